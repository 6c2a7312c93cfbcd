"""A search from the start of its process to a good model, cold and warm.

All search an equal space with at most an equal budget. The target is the best accuracy of
the slowest search: every search worth its time reaches the target. A peer below the target counts
with all of its time, as if the peer had found a good model at the very end; jaxnn, with infinity.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from experiments.benchmark.part import Bench, Goal, Part, Results, Table, table
from experiments.benchmark.problem import BATCH_SIZE, NETWORKS, network_name, restore
from experiments.benchmark.searches import Job
from experiments.processes import optional, running
from experiments.report import figures

SIZES = NETWORKS["softmax"]
CONFIGURATIONS, QUICK_CONFIGURATIONS = 64, 4
EPOCHS, QUICK_EPOCHS = 12, 2
SPACE = {
    "learning_rate": (1e-3, 1.0),
    "l2": (1e-6, 1e-2),
    "momentum": 0.9,
    "batch_size": BATCH_SIZE,
}
REQUIRED = {"cold": 5.0, "warm": 8.0}  # times the fastest peer's speed
STARTS = "cold", "warm"
ENVIRONMENT = {  # JAX keeps every program, and Keras takes JAX
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "KERAS_BACKEND": "jax",
}
COLUMNS = {
    "": "{label}",
    "to the accuracy, cold (s)": "{cold[reached]}",
    "to the accuracy, warm (s)": "{warm[reached]}",
    "imports, cold (s)": "{cold[imported][median]:.1f}",
    "imports, warm (s)": "{warm[imported][median]:.1f}",
    "first score, cold (s)": "{cold[first_score][median]:.1f}",
    "first score, warm (s)": "{warm[first_score][median]:.1f}",
    "whole search, cold (s)": "{cold[whole][median]:.1f}",
    "whole search, warm (s)": "{warm[whole][median]:.1f}",
    "best accuracy (%)": "{percent:.2f}",
}
NOTES = (
    "(n of m): the repetitions in which the accuracy was reached. Where it was not, a peer counts "
    "with its whole time, jaxnn with infinity.",
    "Cold: no compiled programs are kept from before. PyTorch and scikit-learn have none, so both "
    "starts of theirs are the same run. The first score is of models trained for an epoch.",
)


SEARCHERS = {  # name: (label, program of experiments.benchmark.searches, method)
    "jaxnn_random": ("jaxnn, random", "jaxnn", "random"),
    "jaxnn_halving": ("jaxnn, successive halving", "jaxnn", "successive_halving"),
    "optuna": ("Optuna (TPE, pruned) + PyTorch", "optuna", "tpe"),
    "sklearn_randomized": ("scikit-learn, RandomizedSearchCV", "scikit_learn", "randomized"),
    "sklearn_halving": ("scikit-learn, HalvingRandomSearchCV", "scikit_learn", "halving"),
    "keras_tuner": ("Keras Tuner, Hyperband, on JAX", "keras_tuner", "hyperband"),
}
LABELS = {name: label for name, (label, *_) in SEARCHERS.items()}
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
    quick, examples = bench.config.quick, len(restore(bench.data, SIZES).validation.targets)
    settings: dict[str, Any] = {
        "sizes": SIZES,
        "configurations": QUICK_CONFIGURATIONS if quick else CONFIGURATIONS,
        "epochs": QUICK_EPOCHS if quick else EPOCHS,
    }
    equal = settings | SPACE | {"data": str(bench.data), "processes": len(bench.cores)}
    names, repetitions = list(SEARCHERS), []
    for seed in range(bench.config.seeds):
        runs: dict[str, dict[str, Watched]] = {}
        for name in bench.each(f"searches, repetition {seed + 1}", names):
            label, program, method = SEARCHERS[name]
            job = Job(method=method, seed=seed, **equal)
            with optional(label), tempfile.TemporaryDirectory() as folder:
                cold = watch(program, job, examples, Path(folder))
                again = program in COMPILE  # with the programs of the first run
                warm = watch(program, job, examples, Path(folder)) if again else cold
                runs[name] = {"cold": cold, "warm": warm}
        repetitions.append(runs)
        names = [*runs][1:] + [*runs][:1]  # the order rotates
    return settings | compared(repetitions, examples)


def watch(program: str, job: Job, examples: int, cache: Path) -> Watched:
    """Runs a search, with the folder of compiled programs and the number of validation examples."""
    arguments = "experiments.benchmark.searches", program, json.dumps(job._asdict())
    environment = ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    with running(*arguments, environment=environment, name=program) as process:
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
    targets, rows = [target(runs) for runs in repetitions], {}
    for name in repetitions[0]:
        found = {start: [runs[name][start] for runs in repetitions] for start in STARTS}
        rows[name] = {"accuracy": figures(each.best / examples for each in found["cold"])}
        for start, each in found.items():
            reached = [w.reached(right) for w, right in zip(each, targets, strict=True)]
            times = ("imported", "first_score", "whole")
            rows[name][start] = {
                **{time: figures(getattr(w, time) for w in each) for time in times},
                "to_target": {"values": reached},
                "moments": [w.moments for w in each],
            }
    return {"target": figures(right / examples for right in targets), "searches": rows}


class Standing(NamedTuple):
    """A search's time to the accuracy."""

    name: str
    seconds: float  # the median
    text: str  # the time, and the number of successful repetitions unless all or none were
    always: bool  # whether the search reached the accuracy in every repetition


def standings(found: Results, start: str) -> list[Standing]:
    """The searches, the fastest to the accuracy first; where not reached, a substitute counts."""
    rows = []
    for name, row in found["searches"].items():
        reached, whole = row[start]["to_target"]["values"], row[start]["whole"]["values"]
        substitutes = [math.inf] * len(whole) if name in OURS else whole
        pairs = zip(reached, substitutes, strict=True)
        seconds = median(other if at is None else at for at, other in pairs)
        count = len(reached) - reached.count(None)
        text = f"{seconds:.1f}" if count and math.isfinite(seconds) else "not reached"
        text += f" ({count} of {len(reached)})" if 0 < count < len(reached) else ""
        rows.append(Standing(name, seconds, text, count == len(reached)))
    return sorted(rows, key=lambda row: row.seconds)


def duels(found: Results) -> Iterator[tuple[str, Standing, list[Standing]]]:
    """Each start with jaxnn's better method, and the peers by speed, if there are both."""
    for start in STARTS:
        rows = standings(found, start)
        ours, peers = ([row for row in rows if (row.name in OURS) == us] for us in (True, False))
        if ours and peers:
            yield start, ours[0], peers


def tables(results: Results) -> list[Table]:
    """The searches by the time to the accuracy, started cold."""
    found, rows = results["search"], []
    texts = {start: {row.name: row.text for row in standings(found, start)} for start in STARTS}
    for name in texts["cold"]:
        row = found["searches"][name]
        starts = {start: row[start] | {"reached": texts[start][name]} for start in STARTS}
        percent = 100 * row["accuracy"]["median"]
        rows.append({"label": LABELS[name], "percent": percent, **starts})
    title = (
        f"A search of {found['configurations']} configurations of {network_name(found['sizes'])}, "
        f"at most {found['epochs']} epochs each, from the start of the process"
    )
    notes = [
        "To be reached is the best accuracy that the slowest search finds: "
        f"{100 * found['target']['median']:.2f} % of the validation examples (median of "
        f"{len(found['target']['values'])}).",
        *NOTES,
    ]
    for start, ours, peers in duels(found):
        sure = [peer for peer in peers if peer.always]
        if sure and not peers[0].always:
            notes.append(
                f"The fastest peer that always reached the accuracy, {start}, is "
                f"{LABELS[sure[0].name]}: it takes {sure[0].seconds / ours.seconds:.2f} "
                "times as long as jaxnn."
            )
    return [table(title, rows, COLUMNS, notes)]


def goals(results: Results) -> list[Goal]:
    """jaxnn's better method against the fastest peer, cold and warm."""
    required = []
    for start, ours, (peer, *_) in duels(results["search"]):
        what = f"search, {start}, to the same accuracy: {LABELS[ours.name]} against the fastest "
        what += f"peer, {LABELS[peer.name]}"
        what += "" if peer.always else " (which did not always reach it)"
        required.append(Goal(what, REQUIRED[start], peer.seconds / ours.seconds))
    return required


PARTS = {"search": Part(measure, tables, goals)}
