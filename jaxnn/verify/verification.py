"""From a claim to a verdict: random trials in float64, awkward inputs in high precision."""

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from jaxnn.extras import require
from jaxnn.types import PyTree
from jaxnn.verify import diagnosis, shrinking
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import (
    FormulaError,
    FunctionError,
    Layout,
    TracedClaim,
    Values,
    affordable_trials,
    arranged,
    declared_layout,
    evaluate,
    find_layout,
    generators,
    operations,
    relative_errors,
    trace_claim,
)
from jaxnn.verify.graph import Unsupported, located, user_line
from jaxnn.verify.inputs import adversarial, draw, draw_sizes, is_input, larger_sizes
from jaxnn.verify.text import difference
from jaxnn.verify.verdict import HOLDS, MANTISSA, Counterexample, Finding, Verdict, Worst

if TYPE_CHECKING:
    from jaxnn.verify.exact import Judgement

WORST_TRIALS = 4
"""Random trials judged in high precision, beside the awkward inputs."""

AFFORDABLE = 2_000_000
"""Operations in high precision, a few seconds; large claims are judged at fewer awkward inputs."""


def verify(claim: Claim, *, trials: int | None = None, seed: int = 0) -> Verdict:
    """Confirms a claim, or refutes the claim and names the mistake.

    The formula is compared with autodiff of ``of`` by forward and reverse mode: in float64 over
    random trials in one compiled program, then in high precision at awkward inputs.

    Args:
      claim: the claim.
      trials: number of random trials; default: the claim's ``trials``.
      seed: of the random numbers; equal seeds give equal verdicts.

    Returns:
      The verdict. An exception in the formula or in ``of`` is the verdict ``error``.

    Raises:
      ValueError: trials is not positive.
      ModuleNotFoundError: mpmath is not installed.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import claim, real, verify
      >>> def squares(x):
      ...     return jnp.sum(x**2)
      >>> @claim(of=squares, wrt="x", kind="gradient", inputs={"x": real("n")})
      ... def gradient(x):
      ...     return -2 * x
      >>> verdict = verify(gradient, trials=1000)
      >>> verdict.verdict, [finding.code for finding in verdict.diagnosis]
      ('refuted', ['sign'])

    Source: S4.6.
    """
    require("verify", "mpmath")
    began = time.perf_counter()
    count = claim.trials if trials is None else trials
    if count < 1:
        raise ValueError(f"trials is {count}, expected at least 1")
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        examination = examine(claim, count, seed)
    fields = examination._asdict()
    del fields["sizes"]
    fields["trials"] = count if examination.trials is None else examination.trials
    seconds = time.perf_counter() - began
    return Verdict(claim.name, claim.source, claim.kind, seconds=seconds, **fields)


def assert_holds(
    claim: Claim, *, trials: int | None = None, seed: int = 0, allow: Collection[str] = HOLDS
) -> None:
    """Fails a test, with the evidence in one message, unless a claim holds.

    Args:
      claim: the claim.
      trials: as for ``verify``.
      seed: as for ``verify``.
      allow: the verdicts that pass; ``("holds",)`` also demands stability and the declared layout.

    Raises:
      AssertionError: any other verdict.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import assert_holds, claim, real
      >>> @claim(of=lambda x: jnp.sin(x), wrt="x", kind="gradient", inputs={"x": real()})
      ... def derivative(x):
      ...     return jnp.cos(x)
      >>> assert_holds(derivative, trials=1000)
    """
    verdict = verify(claim, trials=trials, seed=seed)
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


class Examination(NamedTuple):
    """A verdict with the evidence; fields as in ``Verdict``."""

    verdict: str
    bits_lost: float | None = None
    worst: Worst | None = None
    counterexample: Counterexample | None = None
    diagnosis: tuple[Finding, ...] = ()
    detail: str = ""
    sizes: dict[str, int] | None = None  # None: the sizes of the random trials
    trials: int | None = None  # None: as many as requested


def examine(claim: Claim, trials: int, seed: int) -> Examination:
    """Judges a claim; the caller switches 64-bit numbers on.

    Args:
      claim: the claim.
      trials: number of random trials.
      seed: of the random numbers.
    """
    sizes = draw_sizes(claim.inputs, seed)
    try:
        traced = trace_claim(claim, tuple(sizes.items()))
    except FormulaError as error:
        return _not_evaluated(claim, error.__cause__ or error)
    except FunctionError as error:
        return Examination("error", detail=f"of: {located(error.__cause__ or error)}", trials=0)
    rng = np.random.default_rng(seed)
    trials = affordable_trials(traced, trials)
    points = jax.tree.map(
        lambda *values: np.concatenate(values),
        draw(dict(claim.inputs), sizes, trials, rng),
        adversarial(dict(claim.inputs), sizes, rng),
    )
    values = evaluate(traced, points)
    fits = _fits(claim, traced, values, trials)
    if fits is None:
        return _refuted(claim, sizes, seed, Examination("refuted"))
    judged = _judge(claim, traced, points, values, fits, sizes)
    if judged.verdict != "refuted":
        larger = _at_larger_sizes(claim, trials, seed)
        judged = larger if larger.verdict in ("refuted", "error") else judged
    judged = judged._replace(trials=trials)
    if judged.verdict == "refuted":
        return _refuted(claim, judged.sizes or sizes, seed, judged)
    return _with_layout(judged, traced, fits)


def _with_layout(judged: Examination, traced: TracedClaim, fits: "Sequence[Fit]") -> Examination:
    """The verdict ``holds_other_layout`` where only another layout makes the formula hold."""
    named = [
        Finding(fit.layout.code, name, f"it is {fit.layout.name}")
        for fit, name in zip(fits, traced.names, strict=True)
        if fit.layout.code
    ]
    if not named or judged.verdict not in ("holds", "holds_unstable"):
        return judged
    detail = "; ".join(f"{finding.where}: {finding.detail}" for finding in named)
    if judged.verdict == "holds_unstable":
        detail += f"; unstable: {judged.detail}"
    return judged._replace(verdict="holds_other_layout", diagnosis=tuple(named), detail=detail)


def _at_larger_sizes(claim: Claim, trials: int, seed: int) -> Examination:
    """The verdict at sizes two to four times as large, with a tenth of the trials.

    A formula may be right at one size only: 2 x / 3 for the mean of three squares.
    """
    sizes = larger_sizes(claim.inputs, seed)
    if not sizes:
        return Examination("holds")
    try:
        traced = trace_claim(claim, tuple(sizes.items()), both_modes=False)
    except FormulaError as error:
        return _not_evaluated(claim, error.__cause__ or error)
    except FunctionError:  # `of` does not accept these sizes
        return Examination("holds")
    fewer = affordable_trials(traced, max(1, trials // 10))
    points = draw(dict(claim.inputs), sizes, fewer, np.random.default_rng([seed, 1]))
    values = evaluate(traced, points)
    fits = _fits(claim, traced, values, fewer)
    if fits is None:
        return Examination("refuted", sizes=sizes)
    judged = _judge(claim, traced, points, values, fits, sizes, only_failing=True)
    return judged._replace(sizes=sizes)


class Fit(NamedTuple):
    """The layout in which a leaf of the formula comes closest to the reference."""

    layout: Layout
    errors: np.ndarray  # relative, of every random trial


def _fits(claim: Claim, traced: TracedClaim, values: Values, trials: int) -> list[Fit] | None:
    """Per leaf the layout in which the claim holds at the random trials, None without a layout."""
    if len(values.formula) != len(values.reference):
        return None
    fits: list[Fit] = []
    leaves = zip(*values, traced.value_ranks, strict=True)
    for *arrays, rank in leaves:
        value, reverse, forward = (array[:trials] for array in arrays)
        declared = Layout("", "as declared", declared_layout(claim.layout, rank))
        right_shape = declared.arrange(np.empty(reverse.shape[1:])).shape == value.shape[1:]
        errors = np.full(trials, np.nan)
        if right_shape:
            errors = _errors(value, reverse, forward, declared)
        # NaN is no failure here: where float64 has no finite value, the high precision decides.
        alternative = None
        if np.any(errors > claim.tolerance) or not right_shape:
            alternative = find_layout(claim, value, reverse, rank)
        if alternative is not None:
            fits.append(Fit(alternative, _errors(value, reverse, forward, alternative)))
        elif right_shape:
            fits.append(Fit(declared, errors))
        else:
            return None
    return fits


def _errors(
    value: np.ndarray, reverse: np.ndarray, forward: np.ndarray, layout: Layout
) -> np.ndarray:
    """Every trial's error against the worse of the two modes of autodiff."""
    return np.maximum(
        *(relative_errors(value, arranged(layout.arrange, mode)) for mode in (reverse, forward))
    )


def _judge(
    claim: Claim,
    traced: TracedClaim,
    points: PyTree,
    values: Values,
    fits: Sequence[Fit],
    sizes: dict[str, int],
    only_failing: bool = False,
) -> Examination:
    """The verdict at the awkward inputs and at the worst of the random ones."""
    from jaxnn.verify.exact import Judge

    errors = np.max([fit.errors for fit in fits], axis=0)
    worst_trials = _suspicious(errors, claim.tolerance)
    if only_failing:
        worst_trials = [trial for trial in worst_trials if not errors[trial] <= claim.tolerance]
        if not worst_trials:
            return Examination("holds")
    try:
        arrange = [fit.layout.arrange for fit in fits]
        is_value = claim.kind == "value"
        judge = Judge(traced, generators(claim), arrange, claim.tolerance, is_value)
    except Unsupported as unsupported:
        return _judged_in_float64(errors, claim.tolerance, str(unsupported))
    flat = jax.tree.leaves(points)
    awkward = range(len(errors), len(flat[0]))
    step = -(-len(awkward) * operations(traced) // AFFORDABLE) or 1
    judgements = []
    for trial in (*worst_trials, *awkward[::step]):
        point = [value[trial] for value in flat]
        judgement = judge(point, [leaf[trial] for leaf in values.formula])
        if judgement.outcome == "wrong":
            return _with_evidence("refuted", claim, traced, sizes, judgement, point)
        judgements.append((judgement, point))
    return _summary(claim, traced, judgements, sizes)


def _suspicious(errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The random trials to judge in high precision: the largest errors and failing trials."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0, posinf=-1.0), kind="stable")
    failing = np.flatnonzero(~(errors <= tolerance))
    spread = failing[:: max(1, len(failing) // WORST_TRIALS)][: 2 * WORST_TRIALS]
    return np.unique(np.concatenate([order[:WORST_TRIALS], spread]))


def _with_evidence(
    verdict: str,
    claim: Claim,
    traced: TracedClaim,
    sizes: dict[str, int],
    judgement: "Judgement",
    point: Sequence[np.ndarray],
) -> Examination:
    """A verdict with the input and the entry that the verdict rests on."""
    structure = jax.tree.structure(dict(claim.inputs), is_leaf=is_input)
    index = tuple(map(int, judgement.index))
    values = judgement.formula, judgement.reference, judgement.one_sided
    return Examination(
        verdict,
        worst=Worst(traced.names[judgement.leaf], index, *values),
        counterexample=Counterexample(sizes, jax.tree.unflatten(structure, point)),
    )


def _summary(
    claim: Claim,
    traced: TracedClaim,
    judgements: "Sequence[tuple[Judgement, list[np.ndarray]]]",
    sizes: dict[str, int],
) -> Examination:
    """The verdict on a formula that is right wherever the function has a derivative."""
    bits = max(judgement.bits_lost for judgement, _ in judgements)
    unstable = bits > MANTISSA / 2
    for judgement, point in judgements:
        if judgement.outcome == "kink":
            before, after = judgement.one_sided or (np.nan, np.nan)
            detail = f"no derivative here: {before:.6g} from one side, {after:.6g} from the other; "
            detail += f"autodiff takes it to be {judgement.reference:.6g}"
            if unstable:
                detail += f"; elsewhere it loses {bits:.0f} of {MANTISSA} bits"
            found = _with_evidence("kink", claim, traced, sizes, judgement, point)
            return found._replace(bits_lost=bits, detail=detail)
    if not unstable:
        return Examination("holds", bits_lost=bits)
    judgement, point = min(
        (pair for pair in judgements if pair[0].bits_lost > bits - 1),
        key=lambda pair: shrinking.length(pair[1]),
    )
    found = _with_evidence("holds_unstable", claim, traced, sizes, judgement, point)
    return found._replace(bits_lost=bits, detail=_loss(judgement))


def _loss(judgement: "Judgement") -> str:
    if not np.isfinite(judgement.formula):
        return f"float64 gives {judgement.formula}, the value is {judgement.reference:.6g}"
    return f"loses {judgement.bits_lost:.0f} of {MANTISSA} bits"


def _judged_in_float64(errors: np.ndarray, tolerance: float, reason: str) -> Examination:
    """The verdict of float64 alone, for operations unknown to the high precision."""
    detail = f"judged in float64 alone: {reason}"
    finite = errors[np.isfinite(errors)]
    if len(finite) == 0 or np.mean(finite > tolerance) > 0.01:
        return Examination("refuted", detail=detail)
    bits = np.log2(max(1.0, float(np.max(finite)) * 2.0**MANTISSA))
    return Examination("holds", bits_lost=float(bits), detail=detail)


def _refuted(claim: Claim, sizes: dict[str, int], seed: int, judged: Examination) -> Examination:
    """The verdict with the diagnosis and the shortest counterexample known."""
    worst, counterexample = shrinking.counterexample(claim, sizes, seed)
    if counterexample is None:
        worst, counterexample = judged.worst, judged.counterexample
    named, alternatives = diagnosis.diagnose(claim, seed)
    return judged._replace(
        worst=worst,
        counterexample=counterexample,
        diagnosis=named,
        detail=alternatives or ("" if worst else judged.detail),
    )


def _not_evaluated(claim: Claim, error: BaseException) -> Examination:
    """The verdict on a formula that raised: mismatched shapes are a mistake of the formula."""
    findings = diagnosis.diagnose_shapes(claim, error, user_line(error))
    return Examination(
        "refuted" if findings else "error",
        diagnosis=findings,
        detail="" if findings else located(error),
        trials=0,
    )
