"""64 configurations: one after another, over two processes, and all at once.

Microseconds per model and step, and the share of the machine's matrix-product peak, which is
measured before and after each training.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark import products
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.crew import Measured, MissingError, Worker, hired
from experiments.benchmark.machine import peak_gflops
from experiments.benchmark.part import Bench, Goal, Table, Ticks, figures
from experiments.benchmark.parts.one_model import fastest
from experiments.benchmark.problem import NETWORKS, flops_per_step, restore
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size

MODELS, QUICK_MODELS = 64, 4
RATES = 1e-3, 1e-1  # smallest and largest learning rate
PROCESSES = 2
EPOCHS = 1


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
    rows, alone = [], {}
    models = QUICK_MODELS if bench.config.quick else MODELS
    one_by_one = sum(not entry.whole_population for entry in CONTENDERS.values())
    with bench.run.progress(f"{models} models") as report:
        lines = len(CONTENDERS) + one_by_one * (len(bench.cores) >= PROCESSES)
        tick = Ticks(report, len(NETWORKS) * (len(CONTENDERS) + lines * bench.config.seeds))
        for network, sizes in NETWORKS.items():
            found, alone[network] = measure_network(bench, network, sizes, models, tick)
            rows += found
    return {"rows": rows, "products": alone, "models": models, "epochs": EPOCHS}


def measure_network(
    bench: Bench, network: str, sizes: tuple[int, ...], models: int, tick: Ticks
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One row for every way of every contender that is installed; and the products alone.

    There is a tick for every contender that is made ready and for every training.
    """
    rates = np.geomspace(*RATES, models)
    epoch = restore(bench.data, sizes).steps_per_epoch
    block = models_on_a_core(sizes, models)
    with ExitStack() as stack:
        lines = hire(stack, bench, sizes, rates, tick)
        measured = [Measurements(sizes) for _ in (*lines, "products")]
        for seed in range(bench.config.seeds):
            before = peak_gflops()
            for line, its in zip(lines, measured, strict=False):
                seconds = max(each.seconds for each in line.train(rates, EPOCHS, seed))
                after = peak_gflops()
                its.add(1e6 * seconds / EPOCHS / epoch / models, (before + after) / 2)
                before = after
                tick()
            measured[-1].add(products.microseconds(sizes, block), before)
    rows = [
        {
            "network": network,
            "sizes": sizes,
            "contender": line.contender,
            "label": CONTENDERS[line.contender].label,
            "models": models,
            "processes": len(line.workers),
            "cores": len({core for worker in line.workers for core in worker.cores}),
            **its.summary(),
        }
        for line, its in zip(lines, measured, strict=False)
    ]
    return rows, {"models_on_a_core": block, **measured[-1].summary()}


class Measurements:
    """Times, and shares of the peak of the moment."""

    def __init__(self, sizes: tuple[int, ...]):
        self.flops = flops_per_step(sizes)
        self.microseconds: list[float] = []
        self.shares: list[float] = []

    def add(self, microseconds: float, peak: float) -> None:
        """One more: the time per model and step, and the peak in GFLOP/s."""
        self.microseconds.append(microseconds)
        self.shares.append(100 * self.flops / microseconds / 1e3 / peak)

    def summary(self) -> dict[str, Any]:
        """All of them, as results.json has them."""
        return {"microseconds": figures(self.microseconds), "share_of_peak": figures(self.shares)}


def models_on_a_core(sizes: tuple[int, ...], models: int) -> int:
    """How many jaxnn trains at once on each device."""
    spec = Spec(model=MLP(sizes), steps=1)
    block = default_block_size(spec, jax.default_backend(), models)
    return min(block, -(-models // len(jax.devices())))


def hire(
    stack: ExitStack, bench: Bench, sizes: tuple[int, ...], rates: np.ndarray, tick: Ticks
) -> list[Line]:
    """The processes of all ways, warm."""
    lines = []
    for name, entry in CONTENDERS.items():
        try:
            some = rates if entry.whole_population else rates[:1]
            worker, _ = fastest(stack, bench, name, sizes, some.tolist(), EPOCHS)
            lines.append(Line(name, [worker]))
            if not entry.whole_population and len(bench.cores) >= PROCESSES:
                workers = [
                    stack.enter_context(hired(name, sizes, bench.data, [core]))
                    for core in bench.cores[:PROCESSES]
                ]
                lines.append(Line(name, workers))
                lines[-1].train(rates[:PROCESSES], EPOCHS, seed=0)
        except MissingError as error:
            print(f"{entry.label} is left out: {error}")
        tick()
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
    alone = found["products"][network]
    note = (
        f"The matrix products of a step alone, {alone['models_on_a_core']} models on each core, "
        f"take XLA's kernels {alone['microseconds']['median']:.1f} µs "
        f"({alone['share_of_peak']['median']:.0f} % of the peak)."
    )
    return Table(
        f"{found['models']} models {sizes}, minibatch 100, an epoch with shuffling",
        ("", "how", "µs per model and step", "time / jaxnn's", "share of peak (%)"),
        body,
        [note, *limits(rows)],
    )


def limits(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is in the way of a speed that is required and not reached, of one network."""
    ours = next(row for row in rows if row["contender"] == "jaxnn")
    taken, share = (ours[measure]["median"] for measure in ("microseconds", "share_of_peak"))
    for rival in rivals(rows):
        if taken * rival.required > rival.microseconds:
            yield (
                f"{rival.required:g} times the speed of {rival.label} would be "
                f"{rival.microseconds / rival.required:.1f} µs; at 100 % of the peak, jaxnn would "
                f"take {taken * share / 100:.1f} µs."
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


class Rival(NamedTuple):
    """A peer that jaxnn is required to be so many times as fast as."""

    label: str
    what: str  # the label, and how it was chosen
    required: float
    microseconds: float


def rivals(rows: Sequence[Mapping[str, Any]]) -> list[Rival]:
    """The fastest that train one by one over two processes, and both of torch.func; a network's."""
    times = {(r["contender"], r["processes"]): r["microseconds"]["median"] for r in rows}
    found = []
    names = [n for n, processes in times if processes == PROCESSES]
    if names:
        name = min(names, key=lambda n: times[n, PROCESSES])
        label = CONTENDERS[name].label
        what = f"the fastest peer one by one over {PROCESSES} processes, {label}"
        found.append(Rival(label, what, 4.0, times[name, PROCESSES]))
    for name in ("torch_func", "torch_func_compiled"):
        if (name, 1) in times:
            label = CONTENDERS[name].label
            found.append(Rival(label, label, 2.0, times[name, 1]))
    return found


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Against peers one by one over two processes, against torch.func, and the share of peak."""
    found = results.get("population")
    if not found:
        return []
    reached = []
    for network, sizes in NETWORKS.items():
        rows = [row for row in found["rows"] if row["network"] == network]
        ours = next(row for row in rows if row["contender"] == "jaxnn")
        own, share = (ours[measure]["median"] for measure in ("microseconds", "share_of_peak"))
        name = f"{found['models']} models {'-'.join(map(str, sizes))}"
        for rival in rivals(rows):
            speed = rival.microseconds / own
            reached.append(Goal(f"{name}: against {rival.what}", "x", rival.required, speed))
        reached.append(Goal(f"{name}: share of peak, whole epoch", "%", 90.0, share))
    return reached
