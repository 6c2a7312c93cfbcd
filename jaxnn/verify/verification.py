"""From a claim to its verdict."""

import time
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify import diagnosis, shrinking
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import (
    FormulaError,
    FunctionError,
    Subject,
    Values,
    arranged,
    evaluate,
    find_layout,
    generators,
    relative_errors,
    subject,
)
from jaxnn.verify.exact import MANTISSA, Judge, Judgement
from jaxnn.verify.graph import is_library
from jaxnn.verify.inputs import adversarial, draw, draw_sizes, is_input
from jaxnn.verify.layouts import Layout, declared, reshaped
from jaxnn.verify.precise import Unsupported
from jaxnn.verify.repair import diagnose_shapes
from jaxnn.verify.verdict import Counterexample, Finding, Verdict, Worst

HOLDS = ("holds", "holds_unstable", "holds_other_layout", "kink")
WORST_TRIALS = 4  # of the random ones, judged in high precision beside the adversarial set


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
        finding = _examine(claimed, count, seed)
    return Verdict(
        name=claimed.name,
        source=claimed.source,
        kind=claimed.kind,
        trials=count,
        seconds=time.perf_counter() - began,
        **finding._asdict(),
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
    parts += [f"{f.code} ({f.where}): {f.detail}" for f in verdict.diagnosis]
    if verdict.worst:
        w = verdict.worst
        parts.append(f"{w.where}{list(w.index)} is claimed {w.claimed:.6g}, true {w.true:.6g}")
    if verdict.counterexample:
        listed = jax.tree.map(lambda v: np.asarray(v).tolist(), verdict.counterexample.inputs)
        parts.append(f"for instance at {listed}")
    return "; ".join(part for part in (*parts, verdict.detail) if part)


class _Finding(NamedTuple):
    """The part of a verdict that examination finds."""

    verdict: str
    bits_lost: float | None = None
    worst: Worst | None = None
    counterexample: Counterexample | None = None
    diagnosis: tuple[Finding, ...] = ()
    detail: str = ""


def _examine(claimed: Claim, trials: int, seed: int) -> _Finding:
    sizes = draw_sizes(claimed.inputs, seed)
    try:
        side = subject(claimed, tuple(sizes.items()))
    except FormulaError as error:
        return _not_evaluated(claimed, error.__cause__ or error)
    except FunctionError as error:
        return _Finding("error", detail=f"of: {located(error.__cause__ or error)}")
    rng = np.random.default_rng(seed)
    points = jax.tree.map(
        lambda *values: np.concatenate(values),
        draw(dict(claimed.inputs), sizes, trials, rng),
        adversarial(dict(claimed.inputs), sizes, rng),
    )
    values = evaluate(side, points)
    layouts = _layouts(claimed, side, values, trials)
    if layouts is None:
        return _refuted(claimed, sizes, seed, "")
    judged = _judge(claimed, side, points, values, layouts, trials, sizes)
    if judged.verdict == "refuted":
        return _refuted(claimed, sizes, seed, judged.detail)
    named = [
        Finding(layout.code, name, f"the claim is {layout.name}")
        for layout, name in zip(layouts, side.names, strict=True)
        if layout.code
    ]
    if named and judged.verdict in ("holds", "holds_unstable"):
        detail = "; ".join(f"{finding.where}: {finding.detail}" for finding in named)
        if judged.verdict == "holds_unstable":
            detail += f"; unstable: {judged.detail}"
        return judged._replace(verdict="holds_other_layout", diagnosis=tuple(named), detail=detail)
    return judged


def _layouts(claimed: Claim, side: Subject, values: Values, trials: int) -> list[Layout] | None:
    """Per leaf the layout in which the claim is true at the random trials, None if in none."""
    if len(values.claimed) != len(values.true):
        return None
    found: list[Layout] = []
    for leaf, (c, t) in enumerate(zip(values.claimed, values.true, strict=True)):
        c, t = c[:trials], t[:trials]
        stated = Layout("", "as declared", declared(claimed.layout, side.value_ranks[leaf]))
        shape = stated.arrange(np.empty(t.shape[1:])).shape
        if shape == c.shape[1:]:
            errors = _errors(c, t, values.forward[leaf][:trials], stated)
            good = errors <= claimed.tolerance
            if np.all(good | ~np.isfinite(errors)) and np.any(good):
                found.append(reshaped(stated, c.shape[1:]))
                continue
            if not np.any(np.isfinite(errors)):
                found.append(stated)  # never finite in float64: the high precision decides
                continue
        other = find_layout(c, t, side.value_ranks[leaf], claimed.tolerance)
        if other is None and shape != c.shape[1:]:
            return None
        found.append(other or stated)  # it may be rounding that is off: the high precision decides
    return found


def _errors(
    claimed: np.ndarray, reverse: np.ndarray, forward: np.ndarray, layout: Layout
) -> np.ndarray:
    """Every trial's error against the worse of the two modes of autodiff."""
    sides = [relative_errors(claimed, arranged(layout.arrange, t)) for t in (reverse, forward)]
    return np.maximum(*sides)


def _judge(
    claimed: Claim,
    side: Subject,
    points: PyTree,
    values: Values,
    layouts: Sequence[Layout],
    trials: int,
    sizes: dict[str, int],
) -> _Finding:
    """The verdict at the awkward points and at the worst of the random ones."""
    leaves = zip(values.claimed, values.true, values.forward, layouts, strict=True)
    errors = np.max([_errors(c[:trials], t[:trials], f[:trials], at) for c, t, f, at in leaves], 0)
    worst_trials = _suspicious(errors, claimed.tolerance)
    try:
        judge = Judge(
            side, generators(claimed), [layout.arrange for layout in layouts], claimed.tolerance
        )
    except Unsupported as unsupported:
        return _judged_in_float64(errors, claimed.tolerance, str(unsupported))
    flat = jax.tree.leaves(points)
    judgements = []
    for trial in (*worst_trials, *range(trials, len(flat[0]))):
        point = [value[trial] for value in flat]
        judgement = judge(point, [leaf[trial] for leaf in values.claimed])
        if judgement.outcome == "wrong":
            return _Finding("refuted", detail=_at(side, judgement, point))
        judgements.append((judgement, point))
    return _summary(claimed, side, judgements, sizes)


def _suspicious(errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The random trials to judge in high precision: the worst, not finite, and others that fail."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0, posinf=-1.0), kind="stable")
    failing = np.flatnonzero(~(errors <= tolerance))
    others = failing[:: max(1, len(failing) // WORST_TRIALS)][: 2 * WORST_TRIALS]
    return np.unique(np.concatenate([order[:WORST_TRIALS], others]))


def _summary(
    claimed: Claim,
    side: Subject,
    judgements: Sequence[tuple[Judgement, list[np.ndarray]]],
    sizes: dict[str, int],
) -> _Finding:
    """The verdict of a formula that is right wherever there is a derivative."""
    structure = jax.tree.structure(dict(claimed.inputs), is_leaf=is_input)

    def stated(verdict: str, judgement: Judgement, point: list[np.ndarray], detail: str):
        return _Finding(
            verdict,
            bits_lost=bits,
            worst=Worst(
                side.names[judgement.leaf],
                tuple(map(int, judgement.index)),
                judgement.claimed,
                judgement.true,
                judgement.one_sided,
            ),
            counterexample=Counterexample(sizes, jax.tree.unflatten(structure, point)),
            detail=detail,
        )

    bits = max(judgement.bits_lost for judgement, _ in judgements)
    least_stable = min(
        (pair for pair in judgements if pair[0].bits_lost > bits - 1),
        key=lambda pair: max(np.max(np.abs(value), initial=0.0) for value in pair[1]),
    )
    unstable = bits > MANTISSA / 2
    for judgement, point in judgements:
        if judgement.outcome == "kink":
            before, after = judgement.one_sided or (np.nan, np.nan)
            detail = f"no derivative here: {before:.6g} from one side, {after:.6g} from the other"
            if unstable:
                detail += f"; elsewhere it loses {bits:.0f} of {MANTISSA} bits"
            return stated("kink", judgement, point, detail)
    if unstable:
        judgement, point = least_stable
        return stated("holds_unstable", judgement, point, _loss(judgement))
    return _Finding("holds", bits_lost=bits)


def _loss(judgement: Judgement) -> str:
    if not np.isfinite(judgement.claimed):
        return f"float64 gives {judgement.claimed}, the value is {judgement.true:.6g}"
    return f"loses {judgement.bits_lost:.0f} of {MANTISSA} bits"


def _judged_in_float64(errors: np.ndarray, tolerance: float, reason: str) -> _Finding:
    """The verdict without the high precision, which does not know an operation."""
    detail = f"judged in float64 alone: {reason}"
    finite = errors[np.isfinite(errors)]
    if len(finite) == 0 or np.mean(finite > tolerance) > 0.01:
        return _Finding("refuted", detail=detail)
    bits = np.log2(max(1.0, float(np.max(finite)) * 2.0**MANTISSA))
    return _Finding("holds", bits_lost=float(bits), detail=detail)


def _at(side: Subject, judgement: Judgement, point: Sequence[np.ndarray]) -> str:
    del point
    entry = f"{side.names[judgement.leaf]}{list(map(int, judgement.index))}"
    return f"{entry} is claimed {judgement.claimed:.6g}, true {judgement.true:.6g}"


def _refuted(claimed: Claim, sizes: dict[str, int], seed: int, detail: str) -> _Finding:
    worst, counterexample = shrinking.counterexample(claimed, sizes, seed)
    named, alternatives = diagnosis.diagnose(claimed, seed)
    return _Finding(
        "refuted",
        worst=worst,
        counterexample=counterexample,
        diagnosis=named,
        detail=alternatives or ("" if worst else detail),
    )


def _not_evaluated(claimed: Claim, error: BaseException) -> _Finding:
    """The verdict where the formula raised: shapes that do not fit are a mistake in it."""
    findings = diagnose_shapes(claimed, error, line_of(error))
    return _Finding("refuted" if findings else "error", diagnosis=findings, detail=located(error))


def located(error: BaseException) -> str:
    """An exception in one line, with the innermost line of the user's code."""
    text = " ".join(str(error).split()) or "no message"
    place = line_of(error)
    return f"{type(error).__name__}: {text}" + (f" ({place})" if place else "")


def line_of(error: BaseException) -> str:
    """The innermost line of the user's code that raised it, such as ``claims.py, line 12``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
