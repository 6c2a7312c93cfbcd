"""The examination of a claim: random trials in float64, awkward ones in high precision."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify import diagnosis, shrinking
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import (
    Subject,
    Values,
    affordable_trials,
    arranged,
    evaluate,
    find_layout,
    generators,
    operations,
    relative_errors,
    subject,
)
from jaxnn.verify.diagnosis import diagnose_shapes
from jaxnn.verify.exact import MANTISSA, Judge, Judgement
from jaxnn.verify.failures import FormulaError, FunctionError, line_of, located
from jaxnn.verify.inputs import adversarial, draw, draw_sizes, is_input, other_sizes
from jaxnn.verify.layouts import Layout, declared
from jaxnn.verify.precise import Unsupported
from jaxnn.verify.verdict import Counterexample, Finding, Worst

WORST_TRIALS = 4  # of the random ones, judged in high precision beside the adversarial set

AFFORDABLE = 2_000_000
"""Operations in high precision, a few seconds' worth: of large claims fewer points are judged."""


class Examination(NamedTuple):
    """A verdict with its evidence; the fields are those of ``Verdict``."""

    verdict: str
    bits_lost: float | None = None
    worst: Worst | None = None
    counterexample: Counterexample | None = None
    diagnosis: tuple[Finding, ...] = ()
    detail: str = ""
    sizes: dict[str, int] | None = None  # where they are not the first ones
    trials: int | None = None  # where they are not all that were asked for


def examine(claimed: Claim, trials: int, seed: int) -> Examination:
    """Judges a claim; 64-bit numbers have to be switched on.

    Args:
      claimed: the claim.
      trials: number of random trials.
      seed: of the random numbers.
    """
    sizes = draw_sizes(claimed.inputs, seed)
    try:
        side = subject(claimed, tuple(sizes.items()))
    except FormulaError as error:
        return _not_evaluated(claimed, error.__cause__ or error)
    except FunctionError as error:
        return Examination("error", detail=f"of: {located(error.__cause__ or error)}", trials=0)
    rng = np.random.default_rng(seed)
    trials = affordable_trials(side, trials)
    points = jax.tree.map(
        lambda *values: np.concatenate(values),
        draw(dict(claimed.inputs), sizes, trials, rng),
        adversarial(dict(claimed.inputs), sizes, rng),
    )
    values = evaluate(side, points)
    fits = _fits(claimed, side, values, trials)
    if fits is None:
        return _refuted(claimed, sizes, seed, Examination("refuted"))
    judged = _judge(claimed, side, points, values, fits, sizes)
    judged = judged._replace(trials=trials)
    if judged.verdict != "refuted":
        elsewhere = _at_other_sizes(claimed, trials, seed)
        judged = elsewhere if elsewhere.verdict in ("refuted", "error") else judged
        judged = judged._replace(trials=trials)
    if judged.verdict == "refuted":
        return _refuted(claimed, judged.sizes or sizes, seed, judged)
    named = [
        Finding(fit.layout.code, name, f"it is {fit.layout.name}")
        for fit, name in zip(fits, side.names, strict=True)
        if fit.layout.code
    ]
    if named and judged.verdict in ("holds", "holds_unstable"):
        detail = "; ".join(f"{finding.where}: {finding.detail}" for finding in named)
        if judged.verdict == "holds_unstable":
            detail += f"; unstable: {judged.detail}"
        return judged._replace(verdict="holds_other_layout", diagnosis=tuple(named), detail=detail)
    return judged


def _at_other_sizes(claimed: Claim, trials: int, seed: int) -> Examination:
    """The same at sizes two to four times as large, with a tenth of the trials.

    A formula may be right at one size only: 2 x / 3 for the mean of three squares.
    """
    sizes = other_sizes(claimed.inputs, seed)
    if not sizes:
        return Examination("holds")
    try:
        side = subject(claimed, tuple(sizes.items()), both=False)
    except FormulaError as error:
        return _not_evaluated(claimed, error.__cause__ or error)
    except FunctionError:  # sizes that the function itself does not take
        return Examination("holds")
    fewer = affordable_trials(side, max(1, trials // 10))
    points = draw(dict(claimed.inputs), sizes, fewer, np.random.default_rng([seed, 1]))
    values = evaluate(side, points)
    fits = _fits(claimed, side, values, fewer)
    if fits is None:
        return Examination("refuted", sizes=sizes)
    judged = _judge(claimed, side, points, values, fits, sizes, only_failing=True)
    return judged._replace(sizes=sizes)


class Fit(NamedTuple):
    """The layout in which a leaf of the formula comes closest to the truth."""

    layout: Layout
    errors: np.ndarray  # relative, of every random trial


def _fits(claimed: Claim, side: Subject, values: Values, trials: int) -> list[Fit] | None:
    """Per leaf the layout in which the claim is true at the random trials, None if in none."""
    if len(values.claimed) != len(values.true):
        return None
    fits: list[Fit] = []
    leaves = zip(values.claimed, values.true, values.forward, side.value_ranks, strict=True)
    for *sides, rank in leaves:
        c, t, f = (array[:trials] for array in sides)
        stated = Layout("", "as declared", declared(claimed.layout, rank))
        own_shape = stated.arrange(np.empty(t.shape[1:])).shape == c.shape[1:]
        errors = _errors(c, t, f, stated) if own_shape else np.full(trials, np.nan)
        # Where nothing is finite in float64, the high precision decides, as it does on rounding.
        other = None
        if np.any(errors > claimed.tolerance) or not own_shape:
            other = find_layout(claimed, c, t, rank)
        if other is None and not own_shape:
            return None
        fits.append(Fit(other, _errors(c, t, f, other)) if other else Fit(stated, errors))
    return fits


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
    fits: Sequence[Fit],
    sizes: dict[str, int],
    only_failing: bool = False,
) -> Examination:
    """The verdict at the awkward points and at the worst of the random ones."""
    errors = np.max([fit.errors for fit in fits], axis=0)
    worst_trials = _suspicious(errors, claimed.tolerance)
    if only_failing:
        worst_trials = [trial for trial in worst_trials if not errors[trial] <= claimed.tolerance]
        if not worst_trials:
            return Examination("holds")
    try:
        arrange = [fit.layout.arrange for fit in fits]
        is_value = claimed.kind == "value"
        judge = Judge(side, generators(claimed), arrange, claimed.tolerance, is_value)
    except Unsupported as unsupported:
        return _judged_in_float64(errors, claimed.tolerance, str(unsupported))
    flat = jax.tree.leaves(points)
    awkward = range(len(errors), len(flat[0]))
    step = -(-len(awkward) * operations(side) // AFFORDABLE) or 1
    judgements = []
    for trial in (*worst_trials, *awkward[::step]):
        point = [value[trial] for value in flat]
        judgement = judge(point, [leaf[trial] for leaf in values.claimed])
        if judgement.outcome == "wrong":
            return _stated("refuted", claimed, side, sizes, judgement, point)
        judgements.append((judgement, point))
    return _summary(claimed, side, judgements, sizes)


def _suspicious(errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The random trials to judge in high precision: the worst, not finite, and others that fail."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0, posinf=-1.0), kind="stable")
    failing = np.flatnonzero(~(errors <= tolerance))
    others = failing[:: max(1, len(failing) // WORST_TRIALS)][: 2 * WORST_TRIALS]
    return np.unique(np.concatenate([order[:WORST_TRIALS], others]))


def _stated(
    verdict: str,
    claimed: Claim,
    side: Subject,
    sizes: dict[str, int],
    judgement: Judgement,
    point: Sequence[np.ndarray],
) -> Examination:
    """A verdict with the point it rests on."""
    structure = jax.tree.structure(dict(claimed.inputs), is_leaf=is_input)
    index = tuple(map(int, judgement.index))
    values = judgement.claimed, judgement.true, judgement.one_sided
    return Examination(
        verdict,
        worst=Worst(side.names[judgement.leaf], index, *values),
        counterexample=Counterexample(sizes, jax.tree.unflatten(structure, point)),
    )


def _summary(
    claimed: Claim,
    side: Subject,
    judgements: Sequence[tuple[Judgement, list[np.ndarray]]],
    sizes: dict[str, int],
) -> Examination:
    """The verdict of a formula that is right wherever there is a derivative."""
    bits = max(judgement.bits_lost for judgement, _ in judgements)
    least_stable = min(
        (pair for pair in judgements if pair[0].bits_lost > bits - 1),
        key=lambda pair: shrinking.length(pair[1]),
    )
    unstable = bits > MANTISSA / 2
    for judgement, point in judgements:
        if judgement.outcome == "kink":
            before, after = judgement.one_sided or (np.nan, np.nan)
            detail = f"no derivative here: {before:.6g} from one side, {after:.6g} from the other; "
            detail += f"autodiff takes it to be {judgement.true:.6g}"
            if unstable:
                detail += f"; elsewhere it loses {bits:.0f} of {MANTISSA} bits"
            found = _stated("kink", claimed, side, sizes, judgement, point)
            return found._replace(bits_lost=bits, detail=detail)
    if unstable:
        judgement, point = least_stable
        found = _stated("holds_unstable", claimed, side, sizes, judgement, point)
        return found._replace(bits_lost=bits, detail=_loss(judgement))
    return Examination("holds", bits_lost=bits)


def _loss(judgement: Judgement) -> str:
    if not np.isfinite(judgement.claimed):
        return f"float64 gives {judgement.claimed}, the value is {judgement.true:.6g}"
    return f"loses {judgement.bits_lost:.0f} of {MANTISSA} bits"


def _judged_in_float64(errors: np.ndarray, tolerance: float, reason: str) -> Examination:
    """The verdict without the high precision, which does not know an operation."""
    detail = f"judged in float64 alone: {reason}"
    finite = errors[np.isfinite(errors)]
    if len(finite) == 0 or np.mean(finite > tolerance) > 0.01:
        return Examination("refuted", detail=detail)
    bits = np.log2(max(1.0, float(np.max(finite)) * 2.0**MANTISSA))
    return Examination("holds", bits_lost=float(bits), detail=detail)


def _refuted(claimed: Claim, sizes: dict[str, int], seed: int, judged: Examination) -> Examination:
    """The verdict with the shortest counterexample, or the one at hand, and the diagnosis."""
    worst, counterexample = shrinking.counterexample(claimed, sizes, seed)
    if counterexample is None:
        worst, counterexample = judged.worst, judged.counterexample
    named, alternatives = diagnosis.diagnose(claimed, seed)
    return judged._replace(
        worst=worst,
        counterexample=counterexample,
        diagnosis=named,
        detail=alternatives or ("" if worst else judged.detail),
    )


def _not_evaluated(claimed: Claim, error: BaseException) -> Examination:
    """The verdict where the formula raised: shapes that do not fit are a mistake in it."""
    findings = diagnose_shapes(claimed, error, line_of(error))
    return Examination(
        "refuted" if findings else "error",
        diagnosis=findings,
        detail="" if findings else located(error),
        trials=0,
    )
