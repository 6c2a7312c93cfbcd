"""64 configurations: one after another, over two processes, and all at once.

Microseconds per model and step, and the share of the machine's matrix-product peak, which is
measured before and after each training.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.crew import Measured, MissingError, Worker, hired
from experiments.benchmark.machine import peak_gflops
from experiments.benchmark.part import Bench, Goal, Table, figures
from experiments.benchmark.parts.one_model import fastest
from experiments.benchmark.problem import NETWORKS, flops_per_step, restore

MODELS, QUICK_MODELS = 64, 4
RATES = 1e-3, 1e-1  # smallest and largest learning rate
PROCESSES = 2


class Line(NamedTuple):
    """A way to train the population: a contender in some processes."""

    contender: str
    workers: Sequence[Worker]

    def train(self, rates: np.ndarray, epochs: int, seed: int) -> list[Measured]:
        """Deals the learning rates out to the processes, which train at the same time."""
        for index, worker in enumerate(self.workers):
            worker.ask(rates[index :: len(self.workers)].tolist(), epochs, seed)
        return [worker.answer() for worker in self.workers]


def measure(bench: Bench) -> Mapping[str, Any]:
    """Every way on every network, in turn."""
    rows = []
    models = QUICK_MODELS if bench.config.quick else MODELS
    with bench.run.progress(f"{models} models") as report:
        for done, (network, sizes) in enumerate(NETWORKS.items()):
            rows += measure_network(bench, network, sizes, models)
            report(done + 1, len(NETWORKS))
    return {"rows": rows, "models": models, "epochs": 1}


def measure_network(
    bench: Bench, network: str, sizes: tuple[int, ...], models: int
) -> list[dict[str, Any]]:
    """One row for every way of every contender that is installed."""
    rates = np.geomspace(*RATES, models)
    steps = restore(bench.data, sizes).steps_per_epoch
    with ExitStack() as stack:
        lines = hire(stack, bench, sizes, rates)
        peaks, taken, shares = [], [[] for _ in lines], [[] for _ in lines]
        for seed in range(bench.config.seeds):
            before = peak_gflops()
            for line, microseconds, share in zip(lines, taken, shares, strict=True):
                seconds = max(each.seconds for each in line.train(rates, 1, seed))
                after = peak_gflops()
                peaks.append((before + after) / 2)
                microseconds.append(1e6 * seconds / steps / models)
                gflops = flops_per_step(sizes) / microseconds[-1] / 1e3
                share.append(100 * gflops / peaks[-1])
                before = after
        return [
            {
                "network": network,
                "sizes": sizes,
                "contender": line.contender,
                "label": CONTENDERS[line.contender].label,
                "models": models,
                "processes": len(line.workers),
                "cores": len({core for worker in line.workers for core in worker.cores}),
                "microseconds": figures(taken[index]),
                "share_of_peak": figures(shares[index]),
            }
            for index, line in enumerate(lines)
        ]


def hire(stack: ExitStack, bench: Bench, sizes: tuple[int, ...], rates: np.ndarray) -> list[Line]:
    """The processes of all ways, warm."""
    lines = []
    for name, entry in CONTENDERS.items():
        try:
            some = rates if entry.whole_population else rates[:1]
            worker, _ = fastest(stack, bench, name, sizes, some.tolist(), 1)
            lines.append(Line(name, [worker]))
            if not entry.whole_population and len(bench.cores) >= PROCESSES:
                workers = [
                    stack.enter_context(hired(name, sizes, bench.data, [core]))
                    for core in bench.cores[:PROCESSES]
                ]
                lines.append(Line(name, workers))
                lines[-1].train(rates[:PROCESSES], 1, seed=0)
        except MissingError as error:
            print(f"{entry.label} is left out: {error}")
    return lines


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The ways by speed, one table a network."""
    found = results.get("population")
    return [table(found, network) for network in NETWORKS] if found else []


def table(found: Mapping[str, Any], network: str) -> Table:
    """The ways by speed."""
    rows = [row for row in found["rows"] if row["network"] == network]
    rows.sort(key=lambda row: row["microseconds"]["median"])
    ours = next(r["microseconds"]["median"] for r in rows if r["contender"] == "jaxnn")
    body = [
        (
            row["label"],
            manner(row),
            f"{(taken := row['microseconds']['median']):.1f}",
            f"{taken / ours:.1f}",
            f"{row['share_of_peak']['median']:.1f}",
        )
        for row in rows
    ]
    sizes = "-".join(map(str, rows[0]["sizes"]))
    return Table(
        f"{found['models']} models {sizes}, minibatch 100, an epoch with shuffling",
        ("", "how", "µs per model and step", "time / jaxnn's", "share of peak (%)"),
        body,
    )


def manner(row: Mapping[str, Any]) -> str:
    """How a row trained the population, in words."""
    if CONTENDERS[row["contender"]].whole_population:
        how = "all at once"
    elif row["processes"] == 1:
        how = "one after another"
    else:
        return f"over {row['processes']} processes of 1 core"
    return f"{how}, {row['cores']} core{'s' if row['cores'] > 1 else ''}"


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Against peers one by one over two processes, against torch.func, and the share of peak."""
    found = results.get("population")
    if not found:
        return []
    reached = []
    for network, sizes in NETWORKS.items():
        rows = [row for row in found["rows"] if row["network"] == network]
        times = {(r["contender"], r["processes"]): r["microseconds"]["median"] for r in rows}
        ours = next(row for row in rows if row["contender"] == "jaxnn")
        own = times.pop(("jaxnn", 1))
        name = f"{found['models']} models {'-'.join(map(str, sizes))}"
        split = {
            row["label"]: times[row["contender"], PROCESSES]
            for row in rows
            if row["processes"] == PROCESSES
        }
        if split:
            peer = min(split, key=lambda label: split[label])
            what = f"{name}: against the fastest peer one by one over 2 processes, {peer}"
            reached.append(Goal(what, "x", 4.0, split[peer] / own))
        if ("torch_func", 1) in times:
            ratio = times["torch_func", 1] / own
            reached.append(Goal(f"{name}: against torch.func vmap", "x", 2.0, ratio))
        share = ours["share_of_peak"]["median"]
        reached.append(Goal(f"{name}: share of peak, whole epoch", "%", 90.0, share))
    return reached
