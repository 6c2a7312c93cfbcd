"""From a claim to its verdict."""

import time
from collections.abc import Collection

import jax
import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.examination import examine
from jaxnn.verify.reporting.text import difference
from jaxnn.verify.verdict import HOLDS, Verdict


def verify(claimed: Claim, *, trials: int | None = None, seed: int = 0) -> Verdict:
    """Confirms a claim, or refutes it and says what is wrong with it.

    The formula is compared with autodiff of ``of`` in float64, forward and reverse mode, over
    random trials in one compiled program; then at awkward inputs with both in high precision.

    Args:
      claimed: the claim.
      trials: number of random trials; default: the claim's own, 10,000 unless it says otherwise.
      seed: of the random numbers; the same seed gives the same verdict.

    Returns:
      The verdict. An exception in the formula or in ``of`` is the verdict ``error``.

    Raises:
      ValueError: trials is not positive.
      ImportError: mpmath is not installed.
    """
    began = time.perf_counter()
    count = claimed.trials if trials is None else trials
    if count < 1:
        raise ValueError(f"trials is {count}, expected at least 1")
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        examination = examine(claimed, count, seed)
    return Verdict(
        name=claimed.name,
        source=claimed.source,
        kind=claimed.kind,
        trials=count if examination.trials is None else examination.trials,
        seconds=time.perf_counter() - began,
        **{
            name: value
            for name, value in examination._asdict().items()
            if name not in ("sizes", "trials")
        },
    )


def assert_holds(
    claimed: Claim, *, trials: int | None = None, seed: int = 0, allow: Collection[str] = HOLDS
) -> None:
    """Fails a test, with the verdict's evidence in one message, unless the claim holds.

    Args:
      claimed: the claim.
      trials: as for ``verify``.
      seed: as for ``verify``.
      allow: the verdicts that pass; ``("holds",)`` asks for stability and layout as well.

    Raises:
      AssertionError: any other verdict.
    """
    verdict = verify(claimed, trials=trials, seed=seed)
    if verdict.verdict not in allow:
        raise AssertionError(describe(verdict))


def describe(verdict: Verdict) -> str:
    """The verdict in one paragraph."""
    parts = [f"{verdict.name}: {verdict.verdict}"]
    if verdict.verdict == "refuted":
        parts += [f"{f.code} ({f.where}): {f.detail}" for f in verdict.diagnosis]
    if verdict.worst:
        w = verdict.worst
        claimed, true = difference(w.claimed, w.true)
        parts.append(f"{w.where}{list(w.index)} is claimed {claimed}, true {true}")
    if verdict.counterexample:
        listed = jax.tree.map(lambda v: np.asarray(v).tolist(), verdict.counterexample.inputs)
        parts.append(f"for instance at {listed}")
    return "; ".join(part for part in (*parts, verdict.detail) if part)
