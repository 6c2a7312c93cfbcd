"""How fast derivations are verified, beside the gradient checkers of PyTorch and of JAX.

One claim, that the Jacobian of the softmax of ten logits is diag(p) - p p^T (S1.1), in float64:
trials of it by jaxnn.verify, torch.autograd.gradcheck and jax.test_util.check_grads in turn, so
that a ratio compares measurements of the same moment. Then all statements of the sources, each
time in a new process.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.test_util
import numpy as np

from experiments import harness
from experiments.claims.s1 import softmax, softmax_jacobian_as_matrix
from experiments.config import Config, Whole
from experiments.report import Summary, summary
from jaxnn.devices import core_count
from jaxnn.verify import real, verify
from jaxnn.verify.comparison import evaluate, relative_errors, subject
from jaxnn.verify.inputs import draw

CLAIM = dataclasses.replace(softmax_jacobian_as_matrix, inputs={"z": real(10)})

DERIVATIONS = (sys.executable, "-m", "experiments.derivations")

Check = Callable[[np.ndarray], object]
"""Checks the claim at one vector of logits; it raises where the claim is wrong."""


class Measure(NamedTuple):
    """A line of the table."""

    what: str
    unit: str
    required: str = ""  # of 10,000 trials, and on 2 cores


MEASURES = {
    "comparison": Measure("one claim, compared with autodiff", "ms", "under 50"),
    "verify": Measure("one claim, the whole verdict", "ms"),
    "jaxnn_rate": Measure("jaxnn.verify, compared with autodiff", "trials/s"),
    "torch_rate": Measure("torch.autograd.gradcheck", "trials/s"),
    "jax_rate": Measure("jax.test_util.check_grads", "trials/s"),
    "torch_ratio": Measure("jaxnn.verify / torch.autograd.gradcheck", "times", "at least 100"),
    "jax_ratio": Measure("jaxnn.verify / jax.test_util.check_grads", "times"),
    "cold": Measure("all statements, empty compilation cache", "s", "under 60"),
    "warm": Measure("all statements, compiled before", "s", "under 25"),
}


@dataclass(frozen=True, kw_only=True)
class SpeedConfig(Config):
    """How long does it take to verify a derivation, and how many trials do other checkers manage?

    The inputs are random: --dataset and --data-dir change nothing. PyTorch is only compared with
    where it is installed. The required figures are shown beside the measured ones, which depend on
    what else the machine is doing: none of them decides the exit status.
    """

    seeds: Whole = 5
    """Number of interleaved repetitions, each from another seed; medians are reported."""

    out: Path | None = None
    """Folder for results.json and history.csv; default: runs/verification_speed."""

    trials: Whole = 10_000
    """Random trials that jaxnn.verify compares at once."""

    checks: Whole = 50
    """Random trials per repetition of the checkers that take one at a time."""

    processes: Whole = 1
    """Repetitions of all statements in new processes, a minute or more each; 0: none."""

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        super().validate()
        self.at_least(1, "trials", "checks")
        self.at_least(0, "processes")


class ProcessError(ValueError):
    """A process that was to be timed failed; its text is one line."""


def experiment(config: SpeedConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures one claim and all statements, and all of that again per repetition."""
    checkers = {"torch": torch_gradcheck(), "jax": jax_check_grads()}
    present = {name: check for name, check in checkers.items() if check is not None}
    if "torch" not in present:
        print("PyTorch is not installed, its row is left out; to have it: pip install torch")
    one_claim, statements = [], []
    with run.progress("one claim") as report:
        measure_claim(config, present, seed=0)  # compiles
        for seed in range(config.seeds):
            one_claim.append(measure_claim(config, present, seed))
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
    """Prints the medians beside what is required."""
    body = []
    for name, found in measured.items():
        median = np.median(found["values"])
        digits = 0 if median >= 100 else 1
        body.append((MEASURES[name].what, f"{median:.{digits}f}", *MEASURES[name][1:]))
    run.table(
        f"{config.trials} trials, {core_count()} cores",
        ("", "median", "unit", "required"),
        body,
    )


def measure_claim(
    config: SpeedConfig, checkers: Mapping[str, Check], seed: int
) -> dict[str, float]:
    """One repetition of everything about the one claim."""
    row = {}
    with ExitStack() as float64:
        float64.enter_context(jax.enable_x64(True))
        float64.enter_context(jax.default_device(jax.devices("cpu")[0]))
        row["comparison"] = 1e3 * seconds(compare, config.trials, seed)
        row["jaxnn_rate"] = config.trials / row["comparison"] * 1e3
        logits = np.random.default_rng(seed).normal(size=(config.checks, 10))
        for name, check in checkers.items():
            taken = seconds(lambda check=check: [check(z) for z in logits])
            row[f"{name}_rate"] = config.checks / taken
            row[f"{name}_ratio"] = row["jaxnn_rate"] / row[f"{name}_rate"]
    row["verify"] = 1e3 * seconds(lambda: verify(CLAIM, trials=config.trials, seed=seed))
    return row


def compare(trials: int, seed: int) -> None:
    """All that ``verify`` does before it turns to the awkward inputs in high precision.

    Raises:
      AssertionError: the claim does not hold.
    """
    points = draw(dict(CLAIM.inputs), {}, trials, np.random.default_rng(seed))
    found = evaluate(subject(CLAIM, ()), points)
    for true in (*found.true, *found.forward):
        if not np.all(relative_errors(found.claimed[0], true) <= CLAIM.tolerance):
            raise AssertionError("the Jacobian of the softmax is not what is claimed")


def torch_gradcheck() -> Check | None:
    """``torch.autograd.gradcheck`` of the claim, None where PyTorch is not installed."""
    try:
        torch = import_module("torch")
    except ImportError:
        return None

    class Softmax(torch.autograd.Function):
        """The softmax with the claimed Jacobian."""

        @staticmethod
        def forward(ctx, z):
            """p = softmax(z)."""
            p = torch.softmax(z, 0)
            ctx.save_for_backward(p)
            return p

        @staticmethod
        def backward(ctx, p_gradient):
            """(diag(p) - p p^T) g."""
            (p,) = ctx.saved_tensors
            return (torch.diag(p) - torch.outer(p, p)) @ p_gradient

    return lambda z: torch.autograd.gradcheck(Softmax.apply, (torch.tensor(z, requires_grad=True),))


def jax_check_grads() -> Check:
    """``jax.test_util.check_grads`` of the claim, to first order, in both modes."""
    claimed = jax.custom_jvp(softmax)
    claimed.defjvp(lambda z, tangent: (softmax(*z), CLAIM(*z) @ tangent[0]))
    compiled = jax.jit(claimed)
    return lambda z: jax.test_util.check_grads(compiled, (z,), order=1)


def measure_statements() -> dict[str, float]:
    """All statements of the sources in a new process, then in another with what it compiled.

    Raises:
      ProcessError: a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        return {name: seconds(derive, Path(folder)) for name in ("cold", "warm")}


def derive(folder: Path) -> None:
    """Runs the derivations with compilation cache and results in the folder.

    Raises:
      ProcessError: it failed.
    """
    done = subprocess.run(
        [*DERIVATIONS, "--out", str(folder / "out")],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    # What the derivations found is theirs to say; here it matters that they were all judged.
    if done.returncode not in (harness.SUCCESS, harness.CHECK_FAILED):
        *_, last = ("", *done.stderr.strip().splitlines())
        raise ProcessError(f"the derivations ended with exit status {done.returncode}: {last}")


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
