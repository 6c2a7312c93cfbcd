"""Trainings of every contender: ``one_model``, and the 64 configurations of ``population``.

Every contender is tried on one core, on two and on all, and continues with the fastest number of
cores. Then the contenders take turns. One model: microseconds per step, and the time to a stated
validation accuracy. The configurations, in turn, over two processes, and all at once: microseconds
per model and step, and the share of the machine's matrix-product peak, which is measured before
and after each training.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.part import Bench, Goal, Part, Results, Table, ranked, table
from experiments.benchmark.parts.roofline import bounded
from experiments.benchmark.problem import NETWORKS, cores_name, network_name, restore
from experiments.machine import flops_per_step, peak_gflops, products_microseconds
from experiments.processes import Program, optional, running
from experiments.report import figures
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size

RATE = 0.1  # of one model
RATES = 1e-3, 1e-1  # smallest and largest learning rate of a population
MODELS, QUICK_MODELS = 64, 4
TRIALS = 3  # of each number of cores
EPOCHS, POPULATION_EPOCHS = 5, 1  # of a timed training
MOST_EPOCHS = 20  # to reach the accuracy
PROCESSES = 2
ACCURACIES = {  # to reach on the validation examples
    "softmax": {"mnist": 0.92, "fashion_mnist": 0.84},
    "mlp": {"mnist": 0.97, "fashion_mnist": 0.87},
}
REQUIRED = 1.5  # times the fastest peer's speed
ONE_BY_ONE_REQUIRED = 4.0  # times the speed of the fastest peer over two processes
VMAP_REQUIRED = {"torch_func": 2.0, "torch_func_compiled": 2.0}
SHARE_REQUIRED = 90.0  # percent of the peak
ONE_MODEL_COLUMNS = {
    "": "{label}",
    "cores": "{cores}",
    "µs per step": "{microseconds[median]:.0f}",
    "time / jaxnn's": "{ratio:.2f}",
}
POPULATION_COLUMNS = {
    "": "{label}",
    "how": "{how}",
    "µs per model and step": "{microseconds[median]:.1f}",
    "time / jaxnn's": "{ratio:.1f}",
    "share of peak (%)": "{share_of_peak[median]:.1f}",
}
NOTE = (
    "The matrix products of a step alone, {models_on_a_core} models on each core, take XLA's "
    "kernels {microseconds[median]:.1f} µs ({share_of_peak[median]:.0f} % of the peak)."
)


class Job(NamedTuple):
    """A training of one model, or of a model per learning rate."""

    network: str
    rates: Sequence[float]
    epochs: int


class Line(NamedTuple):
    """A way to train: a contender in a process or several."""

    name: str
    programs: Sequence[Program]
    cores: int
    tried: dict[str, float]  # seconds by number of cores

    def seconds(self, job: Job, seed: int) -> float:
        """The time of a training with the learning rates dealt out to the processes."""
        for index, program in enumerate(self.programs):
            program.ask(job.rates[index :: len(self.programs)], job.epochs, seed, False)
        return max(program.answer()["seconds"] for program in self.programs)

    def seconds_to(self, target: float, seed: int) -> float:
        """The time to the first epoch with the accuracy; infinite if no epoch reaches the accuracy.

        All epochs do equal work: the time is the needed share of the epochs.
        """
        self.programs[0].ask([RATE], MOST_EPOCHS, seed, True)
        found = self.programs[0].answer()
        enough = np.flatnonzero(np.array(found["accuracies"][0]) >= target)
        return found["seconds"] * (enough[0] + 1) / MOST_EPOCHS if len(enough) else np.inf

    def row(self, job: Job, **measured: Any) -> dict[str, Any]:
        """The entry in results.json."""
        names = {"network": job.network, "sizes": NETWORKS[job.network], "contender": self.name}
        counts = {"models": len(job.rates), "processes": len(self.programs), "cores": self.cores}
        return names | {"label": CONTENDERS[self.name].label} | counts | measured


@contextmanager
def hired(name: str, sizes: Sequence[int], data: Path, cores: Sequence[int]) -> Iterator[Program]:
    """A contender in a process on some cores, ready to train: ``contender.serve``."""
    job = json.dumps({"contender": name, "sizes": sizes, "data": str(data)})
    with running("experiments.benchmark.contender", job, cores=cores, name=name) as program:
        program.answer()  # ready
        yield program


def started(stack: ExitStack, bench: Bench, job: Job) -> list[Line]:
    """Every installed contender on the fastest number of cores, warm.

    Contenders for one model train several rates one after another, and over two processes.
    """
    lines, several, cores = [], len(job.rates) > 1, bench.cores[:PROCESSES]
    for_one = [name for name, entry in CONTENDERS.items() if not entry.whole_population]
    names = list(CONTENDERS) if several else [*for_one, "jaxnn"]
    for name in bench.each(f"{job.network}: start", names):
        label, *_, at_once = CONTENDERS[name]
        with optional(label):
            suited = job if at_once else job._replace(rates=job.rates[:1])
            lines.append(fastest(stack, bench, name, suited))
            if several and not at_once and len(cores) == PROCESSES:
                ways = [hired(name, NETWORKS[job.network], bench.data, [core]) for core in cores]
                lines.append(Line(name, [stack.enter_context(way) for way in ways], PROCESSES, {}))
                lines[-1].seconds(job._replace(rates=job.rates[:PROCESSES]), seed=0)  # compiles
    return lines


def fastest(stack: ExitStack, bench: Bench, name: str, job: Job) -> Line:
    """A contender on the fastest number of cores, in a process that ends with the stack."""
    counts = sorted({1, min(2, len(bench.cores)), len(bench.cores)})
    with ExitStack() as candidates:
        ends = [candidates.enter_context(ExitStack()) for _ in counts]
        lines = []
        for count, end in zip(counts, ends, strict=True):
            program = hired(name, NETWORKS[job.network], bench.data, bench.cores[:count])
            lines.append(Line(name, [end.enter_context(program)], count, {}))
            lines[-1].seconds(job, seed=0)
        trials = [[line.seconds(job, seed) for line in lines] for seed in range(TRIALS)]
        taken = np.median(trials, axis=0).tolist()
        best = taken.index(min(taken))
        stack.push(ends[best].pop_all())
    return lines[best]._replace(tried=dict(zip(map(str, counts), taken, strict=True)))


def measure_one_model(bench: Bench) -> Results:
    """Every contender on every network, in turn."""
    rows = [row for network in NETWORKS for row in one_model_rows(bench, network)]
    return {"rows": rows, "epochs": EPOCHS, "learning_rate": RATE}


def one_model_rows(bench: Bench, network: str) -> list[dict[str, Any]]:
    """A row per installed contender."""
    job, target = Job(network, [RATE], EPOCHS), ACCURACIES[network].get(bench.config.dataset)
    steps = EPOCHS * restore(bench.data, NETWORKS[network]).steps_per_epoch
    with ExitStack() as stack:
        lines = started(stack, bench, job)

        def in_turn(label: str, call: Callable[[Line, int], float]) -> list[Any]:
            return [*map(figures, bench.in_turn(f"{network}: {label}", lines, call))]

        times = in_turn("one model", lambda line, seed: 1e6 * line.seconds(job, seed) / steps)
        reached = [None] * len(lines)
        if target is not None:
            for line in lines:
                line.seconds_to(target, 0)  # compiles
            reached = in_turn("to the accuracy", lambda line, seed: line.seconds_to(target, seed))
    return [
        line.row(job, tried=line.tried, target=target, microseconds=time, seconds_to_target=to)
        for line, time, to in zip(lines, times, reached, strict=True)
    ]


def measure_population(bench: Bench) -> Results:
    """Every way on every network, in turn."""
    models = QUICK_MODELS if bench.config.quick else MODELS
    found: dict[str, Any] = {"rows": [], "products": {}}
    for network in NETWORKS:
        rows, found["products"][network] = population_rows(bench, network, models)
        found["rows"] += rows
    return found | {"models": models, "epochs": POPULATION_EPOCHS}


def population_rows(
    bench: Bench, network: str, models: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for every way of every installed contender; and the matrix products alone."""
    sizes = NETWORKS[network]
    job = Job(network, np.geomspace(*RATES, models).tolist(), POPULATION_EPOCHS)
    steps = POPULATION_EPOCHS * restore(bench.data, sizes).steps_per_epoch
    block = default_block_size(Spec(MLP(sizes), steps=1), jax.default_backend(), models)
    block = min(block, -(-models // len(jax.devices())))  # models that jaxnn has on a core
    gflop = flops_per_step(sizes) / 1e3  # per second, of a step in a microsecond
    with ExitStack() as stack:
        lines = started(stack, bench, job)
        peaks = [peak_gflops()]

        def timed(line: Line | None, seed: int) -> tuple[float, float]:
            if line:
                taken = 1e6 * line.seconds(job, seed) / steps / models
            else:
                taken = products_microseconds(sizes, block)
            peaks.append(peak_gflops())
            return taken, 100 * gflop / (taken * (peaks[-2] + peaks[-1]) / 2)

        found = bench.in_turn(f"{network}: {models} models", [*lines, None], timed)
    *ways, products = [
        {"microseconds": figures(t for t, _ in each), "share_of_peak": figures(s for _, s in each)}
        for each in found
    ]
    rows = [line.row(job, **way) for line, way in zip(lines, ways, strict=True)]
    return rows, {"models_on_a_core": block, **products}


def by_network(found: Results) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Of every network the key, the rows by speed with their ``ratio``, and jaxnn's row."""
    for network in NETWORKS:
        rows = ranked([row for row in found["rows"] if row["network"] == network])
        yield network, rows, next(row for row in rows if row["contender"] == "jaxnn")


def one_model_tables(results: Results) -> list[Table]:
    """Microseconds per step and seconds to the accuracy, a table per network."""
    shown = []
    for _, rows, ours in by_network(results["one_model"]):
        columns, tried = dict(ONE_MODEL_COLUMNS), dict(ours["tried"])
        if (target := ours["target"]) is not None:
            columns[f"seconds to {100 * target:g} % of the validation examples"] = "{reached}"
        for row in rows:
            seconds = (row["seconds_to_target"] or {}).get("median")
            row["reached"] = "not reached" if seconds is None else f"{seconds:.2f}"
        best = tried.pop(str(ours["cores"]))
        notes = [
            f"On {cores_name(int(count))}, jaxnn takes {seconds / best:.2f} times as long."
            for count, seconds in tried.items()
        ]
        title = f"One model, {network_name(ours['sizes'])}, minibatch 100"
        shown.append(table(title, rows, columns, notes))
    return shown


def population_tables(results: Results) -> list[Table]:
    """The ways by speed, a table per network."""
    found, shown = results["population"], []
    for network, rows, ours in by_network(found):
        for row in rows:
            at_once = CONTENDERS[row["contender"]].whole_population
            way = "all at once" if at_once else "one after another"
            row["how"] = f"{way}, {cores_name(row['cores'])}"
            if row["processes"] > 1:
                row["how"] = f"over {row['processes']} processes of 1 core"
        title = f"{found['models']} models {network_name(ours['sizes'])}, minibatch 100, an epoch "
        notes = [NOTE.format_map(found["products"][network])]
        shown.append(table(title + "with shuffling", rows, POPULATION_COLUMNS, notes))
    return shown


def against(
    what: str, required: float, peers: Sequence[Results], share: float = math.nan
) -> list[Goal]:
    """The goal against the fastest of some peers, whose name comes last; none without peers."""
    return [Goal(what + row["label"], required, row["ratio"], share=share) for row in peers[:1]]


def one_model_goals(results: Results) -> list[Goal]:
    """Times as fast as the fastest peer; the limit is the peak of the cores that jaxnn uses."""
    goals, machine = [], results.get("roofline")
    for _, rows, ours in by_network(results["one_model"]):
        what = f"one model {network_name(ours['sizes'])}: jaxnn against the fastest peer, "
        share = 100 / bounded(ours, machine)["distance"] if machine else math.nan
        goals += against(what, REQUIRED, [row for row in rows if row is not ours], share)
    return goals


def population_goals(results: Results) -> list[Goal]:
    """Against peers over two processes, against torch.func, and the share of peak."""
    goals = []
    for _, rows, ours in by_network(results["population"]):
        share = ours["share_of_peak"]["median"]
        title = f"{results['population']['models']} models {network_name(ours['sizes'])}: "
        what = f"{title}against the fastest peer one by one over {PROCESSES} processes, "
        split = [row for row in rows if row["processes"] == PROCESSES]
        goals += against(what, ONE_BY_ONE_REQUIRED, split, share)
        for name, required in VMAP_REQUIRED.items():
            peer = [row for row in rows if row["contender"] == name]
            goals += against(f"{title}against ", required, peer, share)
        goals.append(Goal(f"{title}share of peak, whole epoch", SHARE_REQUIRED, share, "%"))
    return goals


PARTS = {
    "one_model": Part(measure_one_model, one_model_tables, one_model_goals),
    "population": Part(measure_population, population_tables, population_goals),
}
