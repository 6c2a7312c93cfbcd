"""A search from the start of its process to a good model, cold and warm.

All search the same space with the same budget, at most. What is to be reached is the best accuracy
that the slowest of them finds: every search that is worth its time does.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmark.crew import MissingError
from experiments.benchmark.part import Bench, Goal, Table
from experiments.benchmark.problem import BATCH_SIZE, NETWORKS, restore
from experiments.benchmark.searches.common import Job
from experiments.benchmark.searches.comparison import STARTS, Fastest, compared, counted, fastest
from experiments.benchmark.searches.watching import Watched, watch

NETWORK = "softmax"
CONFIGURATIONS, QUICK_CONFIGURATIONS = 64, 4
EPOCHS, QUICK_EPOCHS = 12, 2
LEARNING_RATES = 1e-3, 1.0
L2 = 1e-6, 1e-2
MOMENTUM = 0.9
COLUMNS = (
    "",
    "to the accuracy, cold (s)",
    "warm (s)",
    "imports, warm (s)",
    "first score, warm (s)",
    "whole search, cold (s)",
    "warm (s)",
    "best accuracy (%)",
)
MILESTONES = "imported", "first_score"  # seconds since the process was started
REQUIRED = {"cold": 5.0, "warm": 8.0}  # times the fastest peer's speed


class Searcher(NamedTuple):
    """A line of the table."""

    label: str
    program: str  # in experiments.benchmark.searches
    method: str
    compiles: bool = True  # and keeps its programs; otherwise every run is as warm as cold


SEARCHERS = {
    "jaxnn_random": Searcher("jaxnn, random", "jaxnn_itself", "random"),
    "jaxnn_halving": Searcher("jaxnn, successive halving", "jaxnn_itself", "halving"),
    "optuna": Searcher("Optuna (TPE, pruned) + PyTorch", "optuna_and_pytorch", "tpe", False),
    "sklearn_randomized": Searcher(
        "scikit-learn, RandomizedSearchCV", "scikit_learn", "randomized", False
    ),
    "sklearn_halving": Searcher(
        "scikit-learn, HalvingRandomSearchCV", "scikit_learn", "halving", False
    ),
    "keras_tuner": Searcher("Keras Tuner, Hyperband, on JAX", "keras_tuner_on_jax", "hyperband"),
}
OURS = "jaxnn_random", "jaxnn_halving"


def measure(bench: Bench) -> Mapping[str, Any]:
    """Every search that is installed, in turn; those that compile twice, the second time warm."""
    sizes = NETWORKS[NETWORK]
    examples = len(restore(bench.data, sizes).validation.targets)
    names, runs = list(SEARCHERS), []
    with bench.run.progress("searches") as report:
        for seed in range(bench.config.seeds):
            runs.append({})
            for done, name in enumerate(list(names)):
                try:
                    runs[-1][name] = cold_and_warm(bench, SEARCHERS[name], seed, examples)
                except MissingError as error:
                    print(f"{SEARCHERS[name].label} is left out: {error}")
                    names.remove(name)
                report(seed * len(SEARCHERS) + done + 1, bench.config.seeds * len(SEARCHERS))
            names = names[1:] + names[:1]  # another one goes first
    job = asked(bench, SEARCHERS["jaxnn_random"], 0)
    return {
        "sizes": sizes,
        "configurations": job.configurations,
        "epochs": job.epochs,
        **compared(runs, examples),
    }


def cold_and_warm(bench: Bench, searcher: Searcher, seed: int, examples: int) -> dict[str, Watched]:
    """A search without compiled programs, and the same again with those that it left.

    Raises:
      MissingError: a package is not installed.
      ProcessError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        cold, *again = (
            watch(searcher.program, asked(bench, searcher, seed), examples, Path(folder))
            for _ in range(1 + searcher.compiles)
        )
    return {"cold": cold, "warm": again[0] if again else cold}


def asked(bench: Bench, searcher: Searcher, seed: int) -> Job:
    """What a search is to do."""
    quick = bench.config.quick
    return Job(
        method=searcher.method,
        data=str(bench.data),
        sizes=NETWORKS[NETWORK],
        configurations=QUICK_CONFIGURATIONS if quick else CONFIGURATIONS,
        epochs=QUICK_EPOCHS if quick else EPOCHS,
        seed=seed,
        processes=len(bench.cores),
        learning_rate=LEARNING_RATES,
        l2=L2,
        momentum=MOMENTUM,
        batch_size=BATCH_SIZE,
    )


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The searches by their time to the accuracy, started cold."""
    found = results.get("search")
    if not found:
        return []
    names = sorted(found["searches"], key=lambda name: seconds(found, name, "cold"))
    body = [
        (
            SEARCHERS[name].label,
            *(reached(found, name, start) for start in STARTS),
            *(f"{found['searches'][name]['warm'][m]['median']:.1f}" for m in MILESTONES),
            *(f"{found['searches'][name][start]['whole']['median']:.1f}" for start in STARTS),
            f"{100 * found['searches'][name]['accuracy']['median']:.2f}",
        )
        for name in names
    ]
    title = (
        f"A search of {found['configurations']} configurations of "
        f"{'-'.join(map(str, found['sizes']))}, at most {found['epochs']} epochs each, from the "
        "start of the process"
    )
    return [Table(title, COLUMNS, body, (*notes(found["target"]), *limits(found)))]


def notes(target: Mapping[str, Any]) -> tuple[str, ...]:
    """What the reader of the table should know."""
    repetitions = len(target["values"])
    return (
        "To be reached is the best accuracy that the slowest search finds: "
        f"{100 * target['median']:.2f} % of the validation examples (median of {repetitions}).",
        "(n of m): the repetitions in which it was reached. Where it was not, a peer counts with "
        "its whole time, jaxnn with infinity.",
        "Cold: no compiled programs are kept from before. PyTorch and scikit-learn have none, so "
        "both starts of theirs are the same run.",
    )


def limits(found: Mapping[str, Any]) -> Iterator[str]:
    """What is in the way of a speed that is required and not reached."""
    if (best := best_of_each(found)) is None:
        return
    for start, required in REQUIRED.items():
        mine, peer = best[start]
        if mine.seconds * required > peer.seconds:
            imported, first = (found["searches"][mine.name][start][m] for m in MILESTONES)
            yield (
                f"{required:g} times the speed of the fastest peer, {start}, would be "
                f"{peer.seconds / required:.1f} s from the start of the process. "
                f"{SEARCHERS[mine.name].label}, has imported its packages after "
                f"{imported['median']:.1f} s and all its models trained for an epoch after "
                f"{first['median']:.1f} s."
            )
            yield from finders(found, start, mine, peer)


def finders(found: Mapping[str, Any], start: str, mine: Fastest, peer: Fastest) -> Iterator[str]:
    """The same against peers that always reach the accuracy, if the fastest one does not."""

    def always(name: str) -> bool:
        return None not in found["searches"][name][start]["to_target"]["values"]

    reliable = {n: r for n, r in found["searches"].items() if n not in OURS and always(n)}
    if reliable and not always(peer.name):
        other = fastest(reliable, start, ours=False)
        yield (
            f"{SEARCHERS[peer.name].label}, did not always reach the accuracy, and then counts "
            f"with all of its time. The fastest peer that always did, {start}, is "
            f"{SEARCHERS[other.name].label}: it takes {other.seconds / mine.seconds:.2f} times as "
            "long as jaxnn."
        )


def best_of_each(found: Mapping[str, Any]) -> dict[str, tuple[Fastest, Fastest]] | None:
    """jaxnn's better method and the fastest peer, by start, if there are both."""
    ours = {name: row for name, row in found["searches"].items() if name in OURS}
    peers = {name: row for name, row in found["searches"].items() if name not in OURS}
    if not ours or not peers:
        return None
    return {s: (fastest(ours, s, ours=True), fastest(peers, s, ours=False)) for s in REQUIRED}


def seconds(found: Mapping[str, Any], name: str, start: str) -> float:
    """The median time to the accuracy; see ``counted``."""
    return counted(found["searches"][name], start, ours=name in OURS)


def reached(found: Mapping[str, Any], name: str, start: str) -> str:
    """That in a cell, with the number of repetitions it was reached in if that is not all."""
    values = found["searches"][name][start]["to_target"]["values"]
    often, taken = sum(value is not None for value in values), seconds(found, name, start)
    cell = f"{taken:.1f}" if often and math.isfinite(taken) else "not reached"
    return cell if often in (0, len(values)) else f"{cell} ({often} of {len(values)})"


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """jaxnn's better method against the fastest peer, cold and warm."""
    found = results.get("search")
    if not found:
        return []
    goals = []
    for start, (mine, peer) in (best_of_each(found) or {}).items():
        what = (
            f"search, {start}, to the same accuracy: {SEARCHERS[mine.name].label} against the "
            f"fastest peer, {SEARCHERS[peer.name].label}"
        )
        if None in found["searches"][peer.name][start]["to_target"]["values"]:
            what += " (which did not always reach it)"
        goals.append(Goal(what, "x", REQUIRED[start], peer.seconds / mine.seconds))
    return goals
