"""The speed of verification.

First a single claim: the Jacobian of the softmax of ten logits is diag(p) - p p^T (S1.1), in
float64. Then all statements of the sources, every repetition in a new process. The benchmark
(``experiments.benchmark.parts.verification``) times the gradient checkers of other libraries.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import harness
from experiments.claims.s1 import softmax_jacobian_as_matrix
from experiments.config import Config, Whole
from experiments.processes import seconds_of
from experiments.report import Summary, summary
from jaxnn.devices import core_count
from jaxnn.verify import real, verify
from jaxnn.verify.comparison import evaluate, relative_errors, trace_claim
from jaxnn.verify.inputs import draw

LOGITS = 10
CLAIM = dataclasses.replace(softmax_jacobian_as_matrix, inputs={"z": real(LOGITS)})

DERIVATIONS = (sys.executable, "-m", "experiments.derivations")


class Measure(NamedTuple):
    """A row of the table."""

    description: str
    unit: str
    required: str = ""  # for 10,000 trials on 2 cores


MEASURES = {
    "comparison": Measure("one claim, compared with autodiff", "ms", "under 50"),
    "verify": Measure("one claim, the whole verdict", "ms"),
    "rate": Measure("one claim, compared with autodiff", "trials/s"),
    "cold": Measure("all statements, empty compilation cache", "s", "under 60"),
    "warm": Measure("all statements, compiled before", "s", "under 25"),
}


@dataclass(frozen=True, kw_only=True)
class SpeedConfig(Config):
    """Measure the time of verifying derivations.

    The table shows the required figures beside the measured figures. Measured times depend on the
    load of the machine and do not decide the exit status.
    """

    seeds: Whole = 5
    """Number of repetitions, every repetition from a new seed; medians are reported."""

    out: Path | None = None
    """Folder for results.json and history.csv; default: runs/verification_speed."""

    trials: Whole = 10_000
    """Random trials of a comparison."""

    processes: Whole = 1
    """Repetitions of all statements in new processes, a minute or more each; 0: none."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "seeds", "trials")
        self.at_least(0, "processes")


def experiment(config: SpeedConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures the single claim and all statements, once per repetition."""
    one_claim, statements = [], []
    with run.progress("one claim") as report:
        measure_claim(config, seed=0)  # compiles
        for seed in range(config.seeds):
            one_claim.append(measure_claim(config, seed))
            report(seed + 1, config.seeds)
    with run.progress("all statements") as report:
        for repetition in range(config.processes):
            statements.append(measure_statements())
            report(repetition + 1, config.processes)
    rows = [{**one, **every} for one, every in zip_longest(one_claim, statements, fillvalue={})]
    run.history([{"seed": seed, **dict.fromkeys(MEASURES), **r} for seed, r in enumerate(rows)])
    measured = {
        name: summary(found)
        for name in MEASURES
        if (found := [row[name] for row in rows if name in row])
    }
    show(config, run, measured)
    return {
        "cores": core_count(),
        **{name: {**MEASURES[name]._asdict(), **found} for name, found in measured.items()},
    }


def show(config: SpeedConfig, run: harness.Run, measured: Mapping[str, Summary]) -> None:
    """Prints the medians beside the required figures."""
    body = []
    for name, found in measured.items():
        median = np.median(found["values"])
        digits = 0 if median >= 100 else 1
        body.append((MEASURES[name].description, f"{median:.{digits}f}", *MEASURES[name][1:]))
    run.table(
        f"{config.trials} trials, {core_count()} cores",
        ("", "median", "unit", "required"),
        body,
    )


def measure_claim(config: SpeedConfig, seed: int) -> dict[str, float]:
    """A repetition of all measurements of the single claim."""
    comparison = seconds(compare, config.trials, seed)
    return {
        "comparison": 1e3 * comparison,
        "rate": config.trials / comparison,
        "verify": 1e3 * seconds(lambda: verify(CLAIM, trials=config.trials, seed=seed)),
    }


def compare(trials: int, seed: int) -> None:
    """The random trials of ``verify`` alone, without the awkward inputs in high precision.

    Raises:
      AssertionError: the claim does not hold.
    """
    points = draw(dict(CLAIM.inputs), {}, trials, np.random.default_rng(seed))
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        found = evaluate(trace_claim(CLAIM, ()), points)
    for true in (*found.reference, *found.forward):
        if not np.all(relative_errors(found.formula[0], true) <= CLAIM.tolerance):
            raise AssertionError("the claimed Jacobian of the softmax is wrong")


def measure_statements() -> dict[str, float]:
    """All statements of the sources in a new process, then in a second with the same cache.

    Raises:
      ProcessError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        return {name: derive(Path(folder)) for name in ("cold", "warm")}


def derive(folder: Path) -> float:
    """The seconds of the derivations with compilation cache and results in the folder.

    Raises:
      ProcessError: the derivations failed.
    """
    return seconds_of(
        [*DERIVATIONS, "--out", str(folder / "out")],
        environment={"JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
        # A verdict other than the recorded one is no failure of the measurement.
        allowed=(harness.SUCCESS, harness.CHECK_FAILED),
    )


def seconds(function: Callable[..., object], *arguments: Any) -> float:
    """The wall-clock time of a call."""
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("verification_speed", SpeedConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
