"""A search from the start of its process to a good model, cold and warm.

All search an equal space with at most an equal budget. The target is the best accuracy of
the slowest search: every search worth its time reaches the target. A peer below the target counts
with all of its time, as if the peer had found a good model at the very end; jaxnn, with infinity.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.benchmark.part import Bench, Goal, Part, Results, Table, figures, median, table
from experiments.benchmark.problem import BATCH_SIZE, NETWORKS, network_name, restore
from experiments.benchmark.process import MissingError, running
from experiments.benchmark.searches import Job

SIZES = NETWORKS["softmax"]
CONFIGURATIONS, QUICK_CONFIGURATIONS = 64, 4
EPOCHS, QUICK_EPOCHS = 12, 2
SPACE = {"learning_rate": (1e-3, 1.0), "l2": (1e-6, 1e-2), "momentum": 0.9}
REQUIRED = {"cold": 5.0, "warm": 8.0}  # times the fastest peer's speed
STARTS = "cold", "warm"
ENVIRONMENT = {  # JAX keeps every program, and Keras takes JAX
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "KERAS_BACKEND": "jax",
}
MEASURES = {  # each cold and warm
    "to the accuracy": "reached",
    "imports": "imported",
    "first score": "first_score",
    "whole search": "whole",
}
NOTES = (
    "(n of m): the repetitions in which the accuracy was reached. Where it was not, a peer counts "
    "with its whole time, jaxnn with infinity.",
    "Cold: no compiled programs are kept from before. PyTorch and scikit-learn have none, so both "
    "starts of theirs are the same run. The first score is of models trained for an epoch.",
)


class Searcher(NamedTuple):
    """A line of the table."""

    label: str
    program: str  # of experiments.benchmark.searches
    method: str


SEARCHERS = {
    "jaxnn_random": Searcher("jaxnn, random", "jaxnn", "random"),
    "jaxnn_halving": Searcher("jaxnn, successive halving", "jaxnn", "successive_halving"),
    "optuna": Searcher("Optuna (TPE, pruned) + PyTorch", "optuna", "tpe"),
    "sklearn_randomized": Searcher(
        "scikit-learn, RandomizedSearchCV", "scikit_learn", "randomized"
    ),
    "sklearn_halving": Searcher("scikit-learn, HalvingRandomSearchCV", "scikit_learn", "halving"),
    "keras_tuner": Searcher("Keras Tuner, Hyperband, on JAX", "keras_tuner", "hyperband"),
}
COMPILE = "jaxnn", "keras_tuner"  # and keep their programs; the rest is as warm as cold
OURS = "jaxnn_random", "jaxnn_halving"


class Watched(NamedTuple):
    """A search from the start of its process to the end."""

    whole: float  # seconds, as are all times
    moments: list[tuple[float, int]]  # better and better models: time, right validation examples
    imported: float  # when the search's packages were imported

    @property
    def best(self) -> int:
        """Rightly predicted validation examples of the best model."""
        return max((right for _, right in self.moments), default=0)

    @property
    def first_score(self) -> float:
        """The time of the first accuracy; the whole time without any."""
        return self.moments[0][0] if self.moments else self.whole

    def reached(self, right: int) -> float | None:
        """The time of the first model at least as good, or None."""
        return next((seconds for seconds, found in self.moments if found >= right), None)


Runs = Mapping[str, Mapping[str, Watched]]  # of a repetition: by searcher, then by start


def measure(bench: Bench) -> Results:
    """Every installed search, in turn; a search that compiles runs twice, then warm."""
    examples = len(restore(bench.data, SIZES).validation.targets)
    job, names, runs = job_of(bench), list(SEARCHERS), []
    for seed in range(bench.config.seeds):
        runs.append({})
        for _, name in bench.turns(f"searches, repetition {seed + 1}", 1, tuple(names)):
            searcher = SEARCHERS[name]
            its_job = job._replace(method=searcher.method, seed=seed)
            try:
                runs[-1][name] = cold_and_warm(searcher, its_job, examples)
            except MissingError as error:
                print(f"{searcher.label} is left out: {error}")
                names.remove(name)
        names = names[1:] + names[:1]  # the order rotates
    settings = {"sizes": SIZES, "configurations": job.configurations, "epochs": job.epochs}
    return settings | compared(runs, examples)


def cold_and_warm(searcher: Searcher, job: Job, examples: int) -> dict[str, Watched]:
    """A search without compiled programs, and a second run with the programs of the first."""
    with tempfile.TemporaryDirectory() as folder:
        cold = watch(searcher.program, job, examples, Path(folder))
        again = searcher.program in COMPILE
        warm = watch(searcher.program, job, examples, Path(folder)) if again else cold
    return {"cold": cold, "warm": warm}


def job_of(bench: Bench) -> Job:
    """The job of all searches."""
    quick = bench.config.quick
    return Job(
        method="",
        data=str(bench.data),
        sizes=SIZES,
        configurations=QUICK_CONFIGURATIONS if quick else CONFIGURATIONS,
        epochs=QUICK_EPOCHS if quick else EPOCHS,
        seed=0,
        processes=len(bench.cores),
        batch_size=BATCH_SIZE,
        **SPACE,
    )


def watch(program: str, job: Job, examples: int, cache: Path) -> Watched:
    """Runs a search, with the folder of compiled programs and the number of validation examples."""
    module, arguments = "experiments.benchmark.searches", (program, json.dumps(job._asdict()))
    environment = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    with running(module, *arguments, environment=environment, name=program) as process:
        told = [(at, json.loads(line)) for at, line in process.lines()]
        seconds = time.time() - process.began
    imported = next(at for at, line in told if "imported" in line)
    return Watched(seconds, better(told, examples), imported)


def better(
    lines: Iterable[tuple[float, Mapping[str, float]]], examples: int
) -> list[tuple[float, int]]:
    """The moments of the lines with a higher accuracy than all lines before."""
    found, best = [], 0.0
    for at, line in lines:
        if (accuracy := line.get("accuracy", 0.0)) > best:
            best = accuracy
            found.append((at, round(accuracy * examples)))
    return found


def target(runs: Runs) -> int:
    """The best model of a repetition's slowest search; of equally slow searches, the better."""
    return max((run["cold"].whole, run["cold"].best) for run in runs.values())[1]


def compared(repetitions: Sequence[Runs], examples: int) -> dict[str, Any]:
    """The targets and the figures of every search; ``to_target`` is None where not reached."""
    targets = [target(runs) for runs in repetitions]

    def at_start(watched: Sequence[Watched]) -> dict[str, Any]:
        reached = [w.reached(right) for w, right in zip(watched, targets, strict=True)]
        times = ("imported", "first_score", "whole")
        measures = {name: figures(getattr(w, name) for w in watched) for name in times}
        moments = [w.moments for w in watched]
        return measures | {"to_target": {"values": reached}, "moments": moments}

    rows = {
        name: {
            "accuracy": figures(runs[name]["cold"].best / examples for runs in repetitions),
            **{start: at_start([runs[name][start] for runs in repetitions]) for start in STARTS},
        }
        for name in repetitions[0]
    }
    return {"target": figures(right / examples for right in targets), "searches": rows}


def seconds_to(found: Results, name: str, start: str) -> float:
    """A search's median time to the accuracy, or the substitute where not reached."""
    row = found["searches"][name][start]
    return median(
        (math.inf if name in OURS else whole) if reached is None else reached
        for reached, whole in zip(row["to_target"]["values"], row["whole"]["values"], strict=True)
    )


def always(found: Results, name: str, start: str) -> bool:
    """Whether a search reached the accuracy in every repetition."""
    return None not in found["searches"][name][start]["to_target"]["values"]


def fastest(found: Results, names: Iterable[str], start: str) -> str:
    """The first of some searches to reach the accuracy."""
    return min(names, key=lambda name: seconds_to(found, name, start))


def duels(found: Results) -> dict[str, tuple[str, str, float]]:
    """By start: jaxnn's better method, the fastest peer, the ratio of their times."""
    ours, peers = ([n for n in found["searches"] if (n in OURS) == us] for us in (True, False))
    if not ours or not peers:
        return {}
    pairs = {start: (fastest(found, ours, start), fastest(found, peers, start)) for start in STARTS}
    return {
        start: (us, peer, seconds_to(found, peer, start) / seconds_to(found, us, start))
        for start, (us, peer) in pairs.items()
    }


def tables(results: Results) -> list[Table]:
    """The searches by the time to the accuracy, started cold."""
    found = results["search"]
    searches = found["searches"].items()
    rows = [
        {"label": SEARCHERS[name].label, "percent": 100 * row["accuracy"]["median"]}
        | {start: row[start] | {"reached": cell(found, name, start)} for start in STARTS}
        for name, row in sorted(searches, key=lambda pair: seconds_to(found, pair[0], "cold"))
    ]
    columns = {"": "{label}"}
    for title, measure in MEASURES.items():
        form = "" if measure == "reached" else "[median]:.1f"
        columns |= {f"{title}, {s} (s)": f"{{{s}[{measure}]{form}}}" for s in STARTS}
    columns["best accuracy (%)"] = "{percent:.2f}"
    title = (
        f"A search of {found['configurations']} configurations of {network_name(found['sizes'])}, "
        f"at most {found['epochs']} epochs each, from the start of the process"
    )
    first = (
        "To be reached is the best accuracy that the slowest search finds: "
        f"{100 * found['target']['median']:.2f} % of the validation examples (median of "
        f"{len(found['target']['values'])})."
    )
    return [table(title, rows, columns, (first, *NOTES, *reliable(found)))]


def cell(found: Results, name: str, start: str) -> str:
    """The time to the accuracy, with the number of successful repetitions unless all were."""
    values = found["searches"][name][start]["to_target"]["values"]
    often, taken = sum(value is not None for value in values), seconds_to(found, name, start)
    text = f"{taken:.1f}" if often and math.isfinite(taken) else "not reached"
    return text if often in (0, len(values)) else f"{text} ({often} of {len(values)})"


def reliable(found: Results) -> list[str]:
    """Where the fastest peer does not always reach the accuracy: the fastest peer that does."""
    notes = []
    for start, (ours, peer, _) in duels(found).items():
        names = [n for n in found["searches"] if n not in OURS and always(found, n, start)]
        if names and not always(found, peer, start):
            sure = fastest(found, names, start)
            ratio = seconds_to(found, sure, start) / seconds_to(found, ours, start)
            notes.append(
                f"The fastest peer that always reached the accuracy, {start}, is "
                f"{SEARCHERS[sure].label}: it takes {ratio:.2f} times as long as jaxnn."
            )
    return notes


def goals(results: Results) -> list[Goal]:
    """jaxnn's better method against the fastest peer, cold and warm."""
    required = []
    for start, (ours, peer, ratio) in duels(results["search"]).items():
        what = (
            f"search, {start}, to the same accuracy: {SEARCHERS[ours].label} against the fastest "
            f"peer, {SEARCHERS[peer].label}"
        )
        if not always(results["search"], peer, start):
            what += " (which did not always reach it)"
        required.append(Goal(what, REQUIRED[start], ratio))
    return required


PART = Part(measure, tables, goals)
