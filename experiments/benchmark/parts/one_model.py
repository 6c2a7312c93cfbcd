"""One model: microseconds per step, and the time to a stated validation accuracy.

Every contender is tried on one core, on two and on all, and continues with the fastest number of
cores. Then the contenders take turns.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.bound import bound
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.part import Bench, Goal, Part, Results, Table, figures, median, table
from experiments.benchmark.problem import NETWORKS, cores_name, network_name, restore
from experiments.benchmark.process import MissingError, Program, hired

RATE = 0.1
TRIALS = 3  # of each number of cores
EPOCHS = 5  # of a timed training
MOST_EPOCHS = 20  # to reach the accuracy
REQUIRED = 1.5  # times the fastest peer's speed
ACCURACIES = {  # to reach on the validation examples
    "mnist": {"softmax": 0.92, "mlp": 0.97},
    "fashion_mnist": {"softmax": 0.84, "mlp": 0.87},
}
NAMES = tuple(n for n, entry in CONTENDERS.items() if not entry.whole_population or n == "jaxnn")


class Line(NamedTuple):
    """A way to train: a contender in a process or several."""

    name: str
    programs: Sequence[Program]
    cores: int
    tried: dict[str, float]  # seconds by number of cores

    def seconds(self, rates: Sequence[float], epochs: int, seed: int) -> float:
        """The time of a training with the learning rates dealt out to the processes."""
        for index, program in enumerate(self.programs):
            program.ask(rates[index :: len(self.programs)], epochs, seed)
        return max(program.answer()["seconds"] for program in self.programs)

    def row(self, network: str, models: int) -> dict[str, Any]:
        """The network, the contender, the number of cores."""
        names = {"network": network, "sizes": NETWORKS[network], "contender": self.name}
        counts = {"models": models, "processes": len(self.programs), "cores": self.cores}
        return names | {"label": CONTENDERS[self.name].label} | counts


def measure(bench: Bench) -> Results:
    """Every contender on every network, in turn."""
    rows = [row for network in NETWORKS for row in measure_network(bench, network)]
    return {"rows": rows, "epochs": EPOCHS, "learning_rate": RATE}


def measure_network(bench: Bench, network: str) -> list[dict[str, Any]]:
    """A row per installed contender."""
    seeds, sizes = bench.config.seeds, NETWORKS[network]
    target = ACCURACIES.get(bench.config.dataset, {}).get(network)
    steps = EPOCHS * restore(bench.data, sizes).steps_per_epoch
    with ExitStack() as stack:
        starting = bench.turns(f"{network}: start", 1, NAMES)
        lines = [li for _, n in starting for li in started(stack, bench, n, sizes, [RATE], EPOCHS)]
        taken, reached = ({line.name: [] for line in lines} for _ in range(2))
        for seed, line in bench.turns(f"{network}: one model", seeds, lines):
            taken[line.name].append(1e6 * line.seconds([RATE], EPOCHS, seed) / steps)
        if target is not None:
            for line in lines:
                line.programs[0].train([RATE], MOST_EPOCHS, 0, evaluate=True)  # compiles
            for seed, line in bench.turns(f"{network}: to the accuracy", seeds, lines):
                reached[line.name].append(seconds_to(line.programs[0], target, seed))
    return [
        line.row(network, 1)
        | {"microseconds": figures(taken[line.name]), "tried": line.tried, "target": target}
        | {"seconds_to_target": figures(found) if (found := reached[line.name]) else None}
        for line in lines
    ]


def started(
    stack: ExitStack,
    bench: Bench,
    name: str,
    sizes: tuple[int, ...],
    rates: Sequence[float],
    epochs: int,
) -> list[Line]:
    """The contender on the fastest number of cores, warm; nothing if not installed."""
    counts = sorted({1, min(2, len(bench.cores)), len(bench.cores)})
    programs, ends = {}, {}
    try:
        with ExitStack() as candidates:
            for count in counts:
                ends[count] = candidates.enter_context(ExitStack())
                program = hired(name, sizes, bench.data, bench.cores[:count])
                programs[count] = ends[count].enter_context(program)
                programs[count].train(rates, epochs, seed=0)
            trials = [
                {
                    n: program.train(rates, epochs, seed)["seconds"]
                    for n, program in programs.items()
                }
                for seed in range(TRIALS)
            ]
            seconds = {count: median(trial[count] for trial in trials) for count in counts}
            best = min(counts, key=lambda count: seconds[count])
            stack.push(ends[best].pop_all())
    except MissingError as error:
        print(f"{CONTENDERS[name].label} is left out: {error}")
        return []
    return [Line(name, [programs[best]], best, {str(n): taken for n, taken in seconds.items()})]


def seconds_to(program: Program, target: float, seed: int) -> float:
    """The time to the first epoch with the accuracy; infinite if no epoch reaches the accuracy.

    All epochs do equal work: the time is the needed share of the epochs.
    """
    found = program.train([RATE], MOST_EPOCHS, seed, evaluate=True)
    enough = np.flatnonzero(np.array(found["accuracies"][0]) >= target)
    return found["seconds"] * (enough[0] + 1) / MOST_EPOCHS if len(enough) else np.inf


def by_speed(rows: Iterable[Results], network: str) -> tuple[list[dict[str, Any]], Results]:
    """A network's rows with their ``ratio`` to jaxnn's time, the fastest first; jaxnn's row."""
    found = [row for row in rows if row["network"] == network]
    found.sort(key=lambda row: row["microseconds"]["median"])
    ours = next(row for row in found if row["contender"] == "jaxnn")
    fastest = ours["microseconds"]["median"]
    return [{**row, "ratio": row["microseconds"]["median"] / fastest} for row in found], ours


def tables(results: Results) -> list[Table]:
    """Microseconds per step and seconds to the accuracy, a table per network."""
    return [network_table(results["one_model"]["rows"], network) for network in NETWORKS]


def network_table(rows: Sequence[Results], network: str) -> Table:
    """The contenders by speed."""
    found, ours = by_speed(rows, network)
    columns = {
        "": "{label}",
        "cores": "{cores}",
        "µs per step": "{microseconds[median]:.0f}",
        "time / jaxnn's": "{ratio:.2f}",
    }
    if (target := ours["target"]) is not None:
        columns[f"seconds to {100 * target:g} % of the validation examples"] = "{reached}"
    for row in found:
        seconds = (row["seconds_to_target"] or {}).get("median")
        row["reached"] = "not reached" if seconds is None else f"{seconds:.2f}"
    tried = {int(count): seconds for count, seconds in ours["tried"].items()}
    notes = [
        f"On {cores_name(n)}, jaxnn takes {s / tried[ours['cores']]:.2f} times as long."
        for n, s in tried.items()
        if n != ours["cores"]
    ]
    return table(f"One model, {network_name(ours['sizes'])}, minibatch 100", found, columns, notes)


def goals(results: Results) -> list[Goal]:
    """Times as fast as the fastest peer; the limit is the peak of the cores that jaxnn uses."""
    reached = []
    for network, sizes in NETWORKS.items():
        rows, ours = by_speed(results["one_model"]["rows"], network)
        peer = next(row for row in rows if row["contender"] != "jaxnn")
        what = f"one model {network_name(sizes)}: jaxnn against the fastest peer, {peer['label']}"
        machine = results.get("roofline")
        share = 100 / bound(ours, machine).distance if machine else np.nan
        reached.append(Goal(what, REQUIRED, peer["ratio"], share=share))
    return reached


PART = Part(measure, tables, goals)
