"""From a claim to a verdict: random trials in float64, awkward inputs in balls."""

import re
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import jax
import numpy as np

from jaxnn.files import printable
from jaxnn.types import PyTree, require, require_count, require_type
from jaxnn.verify import comparison, diagnosis, shrinking
from jaxnn.verify.black_box import UnusableValue, black_box
from jaxnn.verify.claims import Claim, at_path, code, places, quantities
from jaxnn.verify.comparison import FormulaError, FunctionError, Layout, TracedClaim, Values
from jaxnn.verify.graph import Unsupported, jit, located, user_line
from jaxnn.verify.inputs import draw, draw_sizes, filled, larger_sizes, named_leaves
from jaxnn.verify.report import difference, lines, proof, samples, summary
from jaxnn.verify.sampling import DomainError, Trials, draw_inside, run_trials, satisfies
from jaxnn.verify.tangent import Convention, Fit, conventions, unchanged
from jaxnn.verify.translation import TooManyOperations, is_numpy
from jaxnn.verify.verdict import (
    HOLDS,
    HOLDS_UP_TO_LAYOUT,
    MANTISSA,
    VERDICTS,
    Counterexample,
    DerivationVerdict,
    Finding,
    Statement,
    Verdict,
    Worst,
    rounded_up,
)

if TYPE_CHECKING:
    from jaxnn.verify.derivations import Derivation
    from jaxnn.verify.exact.judge import Judgement

WORST_TRIALS = 4
"""Random trials judged in balls, beside the awkward inputs."""

JUDGED_SECONDS = 10.0
"""The time for points in balls, apart from the last: loops of many steps take seconds a point."""

CONVENTION_TRIALS = 32
"""Random inputs at which the conventions of derivatives by constrained parameters are compared."""
STATEMENT_TRIALS = 16
"""Random inputs at which statement and formula are compared."""

STATEMENT_TOLERANCE = 1e-6
"""The largest relative error, by norm, between a statement and its formula."""

SPOILT = 0.01
"""The share of random trials in which rounding may spoil a right formula."""

AFFORDABLE = 2_000_000
"""Operations in balls, a few seconds; large claims are judged at fewer awkward inputs."""


@overload
def verify(claim: Claim, *, trials: int | None = None, seed: int = 0) -> Verdict: ...


@overload
def verify(
    claim: "Derivation", *, trials: int | None = None, seed: int = 0
) -> DerivationVerdict: ...


def verify(
    claim: "Claim | Derivation", *, trials: int | None = None, seed: int = 0
) -> Verdict | DerivationVerdict:
    """Confirms a claim, or refutes the claim and names the mistake; of a derivation every line.

    The formula is compared with autodiff of ``of`` by forward and reverse mode: in float64 over
    random trials in one compiled program, then in balls at awkward inputs.

    Args:
      claim: the claim, or a derivation.
      trials: number of random trials; default: the claim's ``trials``.
      seed: of the random numbers; equal seeds give equal verdicts.

    Returns:
      The verdict. An exception in the formula or in ``of`` is the verdict ``error``. The verdict
      on a derivation has the verdict on every line, and the first line that does not follow.

    Raises:
      ValueError: trials is not positive, or the seed is negative.
      TypeError: no claim.
      ModuleNotFoundError: python-flint is not installed.

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
    require("verify", "flint")
    began = time.perf_counter()
    from jaxnn.verify.derivations import Derivation, judged

    expected = "a function decorated with @claim(...), or a derivation(...)"
    require_type(isinstance(claim, Claim | Derivation), "claim", claim, expected)
    declared = claim.trials if isinstance(claim, Claim) else claim.truth.trials
    count = require_count("trials", declared if trials is None else trials)
    seed = require_count("seed", seed, 0)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        if isinstance(claim, Claim):
            verdict = _with_statement(claim, _examine(claim, count, seed), seed)
            verdict = _with_formula(claim, verdict)
        else:
            examine = partial(_examined_with_values, trials=count, seed=seed)
            verdict = judged(claim, examine, partial(_at_larger_sizes, trials=count, seed=seed))
    return verdict._replace(seconds=time.perf_counter() - began)


def assert_holds(
    claim: "Claim | Derivation",
    *,
    trials: int | None = None,
    seed: int = 0,
    allow: Collection[str] = HOLDS,
) -> None:
    """Fails a test, with the evidence in one message, unless a claim or every line holds.

    Args:
      claim: the claim, or a derivation.
      trials: as for ``verify``.
      seed: as for ``verify``.
      allow: the verdicts that pass; ``("holds",)`` also demands stability, and
        ``(*HOLDS, "holds_other_layout")`` accepts a layout that is not declared.

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
    allow = (allow,) if isinstance(allow, str) else allow
    known = isinstance(allow, Collection) and len(allow) and {*allow} <= {*VERDICTS}
    require_type(known, "allow", allow, f"some of {', '.join(VERDICTS)}")
    verdict = verify(claim, trials=trials, seed=seed)
    if not {line.verdict for line in lines(verdict)} <= {*allow}:
        raise AssertionError(describe(verdict))


def describe(verdict: Verdict | DerivationVerdict) -> str:
    """The verdict in one paragraph."""
    if isinstance(verdict, DerivationVerdict):
        said = summary(verdict.lines) or "every line follows"
        first = verdict.first_wrong
        shown = first or next((n for n, line in enumerate(verdict.lines, 1) if not line.holds), 0)
        evidence = [describe(verdict.lines[shown - 1])] if shown else []
        return "; ".join([f"{verdict.name}: {verdict.verdict}", printable(said), *evidence])
    parts = [f"{verdict.name}: {verdict.verdict}"]
    if verdict.verdict == "refuted":
        parts += [f"{f.code} ({f.where}): {f.detail}" for f in verdict.diagnosis]
    if verdict.worst:
        w = verdict.worst
        claimed, true = difference(w.claimed, w.true)
        parts.append(f"{w.where}{list(w.index)} is claimed {claimed}, true {true}")
    if verdict.verdict == "refuted" and verdict.worst:
        parts.append(proof(verdict))
    if verdict.counterexample:
        listed = jax.tree.map(lambda v: np.asarray(v).tolist(), verdict.counterexample.inputs)
        parts.append(f"for instance at {listed}")
    if verdict.statement and verdict.statement.outcome == "differs":
        parts.append(f"statement: {verdict.statement.detail}")
    if verdict.sampling:
        parts.append(samples(verdict.sampling))
    parts.append(verdict.convention and f"convention: {verdict.convention}")
    return printable("; ".join(part for part in (*parts, verdict.detail) if part))


def _examined_with_values(
    claim: Claim, diagnosed: bool, trials: int, seed: int
) -> tuple[Verdict, list[Trials]]:
    """The verdict on a line of a derivation, and the values found at every choice of sizes."""
    ran: list[Trials] = []
    verdict = _examine(claim, trials, seed, diagnosed, ran)
    if claim.truth is not None and claim.entries is None:
        checked = _with_statement(claim, verdict, seed)
        verdict = checked if checked.verdict == "misstated" else verdict
    return _with_formula(claim, verdict), ran


def _at_larger_sizes(claim: Claim, trials: int, seed: int) -> list[Trials]:
    """The values of a line at larger sizes; none where no size is a name."""
    larger = larger_sizes(claim.inputs, seed)
    if not larger:
        return []
    traced = comparison.trace_claim(claim, tuple(larger.items()), both_modes=False)
    tenth, rng = max(1, trials // 10), np.random.default_rng([seed, 1])
    return [run_trials(traced, tenth, rng, awkward=False)]


def _with_formula(claim: Claim, verdict: Verdict) -> Verdict:
    """The verdict with the formula for a reader."""
    return verdict._replace(latex=claim.statement, code=code(claim.formula))


def _examine(
    claim: Claim,
    trials: int,
    seed: int,
    diagnosed: bool = True,
    kept: list[Trials] | None = None,
) -> Verdict:
    """Judges a claim; the caller switches 64-bit numbers on. The trials are added to ``kept``.

    A formula may be right at one size only: 2 x / 3 for the mean of three squares. A tenth of the
    trials has sizes two to four times as large.
    """
    if claim.forward is not None:
        values = _examine(claim.forward, trials, seed, diagnosed)
        if not values.holds:
            return _of_forward(claim, values, trials, seed)
    sizes, larger = _sizes(claim, seed), larger_sizes(claim.inputs, seed)
    kept = [] if kept is None else kept
    views = _views(claim, sizes, seed)
    claim = views[0].claim
    verdict = _at_sizes(claim, sizes, trials, np.random.default_rng(seed), kept)
    if larger and verdict.verdict in HOLDS_UP_TO_LAYOUT:
        tenth, rng = max(1, verdict.trials // 10), np.random.default_rng([seed, 1])
        at_larger = _at_sizes(claim, larger, tenth, rng, kept, only_random=True)
        verdict = _with_samples(verdict, at_larger)
        if at_larger.verdict not in (*HOLDS_UP_TO_LAYOUT, "undecided"):
            verdict, sizes = at_larger._replace(trials=verdict.trials), larger
        elif at_larger.detail and not at_larger.trials:  # too few in the domain
            found = at_larger.detail.partition(", expected")[0]
            detail = "; ".join(filter(None, [verdict.detail, f"at larger sizes {found}"]))
            verdict = verdict._replace(detail=detail)
    sampled = verdict.sampling is not None
    if verdict.verdict == "refuted" and verdict.trials and diagnosed and not sampled:
        return _diagnosed(views, sizes, seed, verdict)
    return views[0].said(verdict, "states")


def _sizes(claim: Claim, seed: int) -> dict[str, int]:
    """The usual sizes, smaller ones where loops of NumPy code are too long for JAX."""
    sizes = draw_sizes(claim.inputs, seed)
    if sizes and is_numpy(claim.of):
        try:
            comparison.trace_claim(claim, tuple(sizes.items()), both_modes=True)
        except FunctionError as error:
            if isinstance(error.__cause__, TooManyOperations):
                return draw_sizes(claim.inputs, seed, 2)
        except FormulaError:
            pass
    return sizes


class View(NamedTuple):
    """A claim in conventions of writing derivatives by constrained parameters."""

    claim: Claim
    named: Sequence[tuple[str, Sequence[Convention]]] = ()  # by parameter, equal ones

    def said(self, verdict: Verdict, verb: str) -> Verdict:
        """The verdict with the names of the conventions, and a sentence on each parameter."""
        if not (verdict.verdict in HOLDS_UP_TO_LAYOUT or verdict.diagnosis):
            return verdict
        short = [f"{name}: {' = '.join(one.name for one in some)}" for name, some in self.named]
        said = [f"by {name} the formula {verb} {some[0].meaning}" for name, some in self.named]
        detail = "; ".join(filter(None, [verdict.detail, *said]))
        return verdict._replace(convention="; ".join(short), detail=detail)


def _views(claim: Claim, sizes: dict[str, int], seed: int) -> list[View]:
    """The claim in the conventions in which the formula is right at ordinary inputs.

    If no convention fits a parameter, the claim is about the tangent space, and the claims in the
    other conventions follow for the diagnosis, the likeliest first.
    """
    parts = [
        (path, *part) for path in claim.wrt for part in named_leaves(at_path(claim.inputs, path))
    ]
    known = [conventions(generator, claim.kind) for _, _, generator in parts]
    if claim.kind == "value" or not any(known):
        return [View(claim)]
    try:
        traced = comparison.trace_claim(claim, tuple(sizes.items()))
        if comparison.is_rule(claim, comparison.one_trial(claim, sizes)):
            return [View(claim)]
        fitting = _fitting(traced, known, seed)
    except (FormulaError, FunctionError, DomainError):
        return [View(claim)]
    views = []
    for place in range(max(map(len, (some for some in fitting if some)))):
        chosen = [some[min(place, len(some) - 1)] if some else [] for some in fitting]
        first = tuple(some[0] if some else None for some in chosen)
        named = [
            (path + at, some) for (path, at, _), some in zip(parts, chosen, strict=True) if some
        ]
        views.append(View(_stated(claim, first), named))
    return views


def _stated(claim: Claim, chosen: tuple[Convention | None, ...]) -> Claim:
    """The claim in conventions; the claim itself where autodiff's derivative is as stated."""
    if unchanged(chosen):
        return claim
    truth = claim.truth and _stated(claim.truth, chosen)
    return replace(claim, conventions=chosen, truth=truth)


def _fitting(
    traced: TracedClaim, known: Sequence[Sequence[Convention]], seed: int
) -> list[list[list[Convention]]]:
    """Per parameter a list of the conventions that fit, else a list for each likely convention."""
    claim, rng = traced.claim, np.random.default_rng([seed, 2])
    flat = jax.tree.leaves(draw_inside(traced, CONVENTION_TRIALS, rng))
    values = comparison.evaluate(traced, flat)
    layouts = [comparison.declared_layout(claim.layout, rank) for rank in traced.value_ranks]
    points = [flat[place] for path in claim.wrt for place in places(dict(claim.inputs), path)]
    sides = values.formula, values.reference

    def layout(leaf: int, value: np.ndarray, true: np.ndarray) -> Layout | None:
        return comparison.find_layout(claim, value, true, traced.value_ranks[leaf])

    fit = Fit(claim.kind, known, points, *sides, layouts, claim.tolerance, layout)
    return [fit.of(number) for number in range(len(known))]


def _of_forward(claim: Claim, values: Verdict, trials: int, seed: int) -> Verdict:
    """The verdict on a pair whose forward pass is not the reference."""
    if values.verdict == "error":
        detail = f"the forward pass: {values.detail}"
        return _verdict(claim, "error", detail=detail, black_box=values.black_box)
    own = _examine(claim.own, trials, seed, False) if claim.own else None
    told = {True: "right", False: "wrong too"}[own.holds] if own and own.trials else "not judged"
    detail = (
        f"the forward pass is not `of`; for the forward pass as it is, the gradients are {told}"
    )
    named = "; ".join(f"{f.code}: {f.detail}" for f in values.diagnosis if f.code != "unknown")
    found = Finding("forward_wrong", "the forward pass", "; ".join(filter(None, [detail, named])))
    return values._replace(
        name=claim.name, source=claim.source, verdict="refuted", diagnosis=(found,)
    )


def _with_samples(verdict: Verdict, at_larger: Verdict) -> Verdict:
    """The verdict with the difference that samples leave at larger sizes."""
    if not at_larger.sampling:
        return verdict
    left = rounded_up(at_larger.sampling.left)
    note = f"at larger sizes, by samples, the difference left is at most {left}"
    return verdict._replace(detail="; ".join(filter(None, [verdict.detail, note])))


def _with_statement(claim: Claim, verdict: Verdict, seed: int) -> Verdict:
    """The verdict with the comparison of statement and formula; ``misstated`` where they differ."""
    if not claim.statement.strip():
        return verdict
    if getattr(claim.formula, "latex", "") == claim.statement:
        return verdict._replace(statement=Statement("agrees", "the formula is the statement"))
    statement = check_statement(claim, seed)
    if statement.outcome == "differs" and verdict.verdict in HOLDS_UP_TO_LAYOUT:
        verdict = verdict._replace(verdict="misstated", certificate=None, uncertified="")
    return verdict._replace(statement=statement)


def check_statement(claim: Claim, seed: int = 0) -> Statement:
    """Whether a claim's statement in LaTeX says what the formula computes.

    Both are evaluated in float64 at random inputs, whose sizes are none of the statement's
    numbers: 1/3 is not 1/n. A left side that is a formula, as in J(z + 1) = J(z), is compared with
    the true value.

    Returns:
      ``agrees``; ``differs`` with the place and both values; or ``unread`` with the reason.
    """
    from jaxnn.verify.latex import Unreadable

    try:
        return _compared_statement(claim, seed)
    except (Unreadable, ModuleNotFoundError) as error:
        return Statement("unread", printable(str(error)))
    except Exception as error:  # of a definition at other inputs, or of a nesting too deep
        return Statement("unread", f"could not be compared: {located(error)}")


def _compared_statement(claim: Claim, seed: int) -> Statement:
    from jaxnn.verify.latex import Reading, Unreadable, example_sizes, symbolic

    plain, inputs = replace(claim, conventions=(), entries=None), dict(claim.inputs)
    sizes = example_sizes(inputs, [int(n) for n in re.findall(r"\d{1,9}", claim.statement)])
    points = jax.tree.leaves(draw(inputs, sizes, STATEMENT_TRIALS, np.random.default_rng(seed)))
    allowed = satisfies(claim, points)
    if not allowed.any():
        raise Unreadable("no inputs satisfy where=")
    points = [value[allowed] for value in points]
    values, shapes = _formula_values(plain, sizes, points)
    shapes = [symbolic(shape, sizes) for shape in shapes]
    stacked = len(shapes) > 1 and len(claim.wrt) < 2 and len({*shapes}) == 1
    wanted = [(len(shapes), *shapes[0])] if stacked else shapes
    reading = Reading(claim.statement, inputs, quantities(claim), wanted)
    for place, by in enumerate(reading.by if claim.wrt else ()):
        wanted = claim.wrt[place] if len(reading.by) == len(claim.wrt) else " ".join(claim.wrt)
        if by and by not in re.findall(r"\w+", wanted):
            return Statement("differs", f"the left side derives by {by}, the claim by {wanted}")

    def said(*flat: jax.Array) -> tuple[Any, ...]:
        point, left = filled(inputs, flat), []
        with suppress(Unreadable):
            left = [] if claim.kind == "update" else [reading.left(point)]
        truth = jax.tree.leaves(comparison.reference(plain)(point))[:1] if left else []
        return reading.sides(point), left, truth, values(point) if callable(values) else []

    sides, left, truth, traced = jax.tree.map(np.asarray, jit(jax.vmap(said))(*points))
    known = traced if callable(values) else values
    known = [np.stack(known, axis=1)] if stacked else known
    for place, (equal, value) in enumerate(zip(sides, known, strict=True)):
        name = f" for {claim.wrt[place]}" if 1 < len(known) == len(claim.wrt) else ""
        for side in equal:
            different = _first_difference(side, value, f"statement{name}", "formula")
            if different:
                return Statement("differs", different)
    for side, value in zip(left, truth, strict=False):
        different = _first_difference(side, value, "left side", "function")
        if different:
            return Statement("differs", different)
    return Statement("agrees")


def _formula_values(
    claim: Claim, sizes: dict[str, int], points: Sequence[np.ndarray]
) -> tuple[Any, list[tuple[int, ...]]]:
    """The formula's values at some inputs, or a function that JAX traces; and their shapes."""
    from jaxnn.verify.latex import Unreadable

    reason: Exception | None = None
    if not claim.black_box:
        try:
            one = filled(dict(claim.inputs), [value[0] for value in points])
            leaves = jax.tree.leaves(jax.eval_shape(claim.evaluate, one))
            return lambda point: jax.tree.leaves(claim.evaluate(point)), [v.shape for v in leaves]
        except Exception as error:
            reason = error
    try:
        box = black_box(claim, sizes, reason)
        rows = [box.at([value[trial] for value in points]) for trial in range(len(points[0]))]
    except Exception as error:
        raise Unreadable(f"the formula cannot be evaluated: {located(error)}") from error
    return [np.stack(leaf) for leaf in zip(*rows, strict=True)], box.shapes


def _first_difference(said: np.ndarray, value: np.ndarray, who: str, other: str) -> str:
    """The place and both values at the worst trial; "" where the arrays agree."""
    if said.shape != value.shape:
        shapes = [" x ".join(map(str, array.shape[1:])) or "()" for array in (said, value)]
        return f"the {who} has the shape {shapes[0]}, the {other} {shapes[1]}"
    errors = comparison.relative_errors(said, value)
    finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
    errors = np.where(finite & ~np.isfinite(errors), np.inf, errors)[finite]
    if not len(errors):
        from jaxnn.verify.latex import Unreadable

        raise Unreadable("the formula is finite at no random input")
    worst = int(np.argmax(errors))
    if errors[worst] <= STATEMENT_TOLERANCE:
        return ""
    one, two = said[finite][worst], value[finite][worst]
    distance = np.nan_to_num(np.abs(one - two), nan=np.inf)
    at = np.unravel_index(int(np.argmax(distance)), one.shape)
    first, second = difference(float(one[at]), float(two[at]))
    entry = f" at entry {[int(place) for place in at]}" if at else ""
    return f"the {who} gives {first}{entry}, the {other} {second}"


def _at_sizes(
    claim: Claim,
    sizes: dict[str, int],
    trials: int,
    rng: np.random.Generator,
    kept: list[Trials],
    only_random: bool = False,
) -> Verdict:
    """The verdict at random trials, and at the awkward inputs, without a diagnosis.

    The verdict has no trials where the formula or ``of`` raises an exception.
    """
    from jaxnn.verify import confidence

    claim = confidence.exactly(claim)
    try:
        sampled = confidence.is_sampled(claim, sizes)
        at = confidence.at_key(claim, jax.random.key(0)) if sampled else claim
        modes = not only_random and not sampled
        traced = comparison.trace_claim(at, tuple(sizes.items()), both_modes=modes)
    except FormulaError as error:
        return _not_evaluated(claim, error.__cause__ or error)
    except FunctionError as error:
        if only_random:  # `of` does not accept these sizes, or takes too long
            long = isinstance(error.__cause__, TooManyOperations)
            detail = "loops in Python take too many operations" if long else ""
            return _verdict(claim, "holds", detail=detail)
        return _verdict(claim, "error", detail=f"of: {located(error.__cause__ or error)}")
    affordable = comparison.affordable_trials(traced, trials)
    try:
        confidence.check_probabilities(claim, sizes)
        if sampled:
            seconds = confidence.SECONDS / (4 if only_random else 1)
            return confidence.judge(claim, traced, rng, seconds)
        ran = run_trials(traced, affordable, rng, awkward=not only_random)
    except DomainError as error:
        return _verdict(claim, "holds" if only_random else "error", detail=str(error))
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:  # of a callback to Python
        return _verdict(claim, "error", detail=str(error).strip().splitlines()[-1])
    except UnusableValue as error:
        return _verdict(claim, "error", detail=str(error))
    kept.append(ran)
    fits = _fits(traced, ran.values, ran.random)
    if fits is None:
        return _verdict(claim, "refuted", trials=ran.random)
    verdict = _judge(traced, ran.points, ran.values, *fits, only_failing=only_random)
    verdict = _with_layout(verdict, traced, fits[0])
    box = traced.black_box
    notes = [verdict.detail, ran.note, box and box.notes, _digits(verdict, fits[1])]
    detail = "; ".join(filter(None, notes))
    words = box.words if box else ""
    verdict = verdict._replace(trials=ran.random, detail=detail, black_box=words)
    if only_random or verdict.verdict not in HOLDS_UP_TO_LAYOUT or not claim.certify:
        return verdict
    from jaxnn.verify.exact.certificate import with_certificate

    points, values = jax.tree.map(lambda array: array[: ran.random], (ran.points, ran.values))
    seed = int(rng.integers(2**32))
    return with_certificate(verdict, traced, fits[0], points, values, seed)


def _digits(verdict: Verdict, errors: np.ndarray) -> str:
    """A sentence on a formula with a small error everywhere, as of finite differences."""
    largest = float(np.max(errors, initial=0.0))
    if verdict.verdict != "refuted" or not 0 < largest < FEW_DIGITS:
        return ""
    digits = int(-np.log10(largest))
    return (
        f"right to {digits} digits in the random trials, as of finite differences or short decimals"
    )


FEW_DIGITS = 1e-4
"""The largest error of a formula with few right digits."""


def _verdict(claim: Claim, verdict: str, **fields: Any) -> Verdict:
    return Verdict(claim.name, claim.source, claim.kind, verdict, **fields)


def _with_layout(verdict: Verdict, traced: TracedClaim, layouts: Sequence[Layout]) -> Verdict:
    """The verdict ``holds_other_layout`` where only another layout makes the formula hold."""
    named = [
        Finding(layout.code, name, f"right up to {layout.name}")
        for layout, name in zip(layouts, traced.names, strict=True)
        if layout.code
    ]
    if not named or verdict.verdict not in ("holds", "holds_unstable"):
        return verdict
    detail = "; ".join(f"{finding.where}: {finding.detail}" for finding in named)
    if verdict.verdict == "holds_unstable":
        detail += f"; unstable: {verdict.detail}"
    return verdict._replace(verdict="holds_other_layout", diagnosis=tuple(named), detail=detail)


def _fits(
    traced: TracedClaim, values: Values, trials: int
) -> tuple[list[Layout], np.ndarray] | None:
    """The layouts of the leaves that fit best, and the errors [T]; None for a wrong shape."""
    if len(values.formula) != len(values.reference):
        return None
    claim, layouts, worst = traced.claim, [], np.zeros(trials)
    for *arrays, rank in zip(*values[:3], traced.value_ranks, strict=True):
        value, *modes = (array[:trials] for array in arrays)
        layout = Layout("", "as declared", comparison.declared_layout(claim.layout, rank))
        right_shape = layout.arrange(modes[0][0]).shape == value.shape[1:]
        # NaN is no failure here: where float64 has no finite value, the balls decide.
        errors = _errors(value, modes, layout) if right_shape else np.full(trials, np.inf)
        if np.any(errors > claim.tolerance):
            other = comparison.find_layout(claim, value, modes[0], rank)
            if other is not None:
                layout, errors = other, _errors(value, modes, other)
            elif not right_shape:
                return None
        layouts.append(layout)
        worst = np.maximum(worst, errors)
    return layouts, worst


def _errors(value: np.ndarray, modes: Sequence[np.ndarray], layout: Layout) -> np.ndarray:
    """Every trial's error against the worse of the two modes of autodiff."""
    references = (comparison.arranged(layout.arrange, mode) for mode in modes)
    return np.maximum(*(comparison.relative_errors(value, r) for r in references))


def _judge(
    traced: TracedClaim,
    points: PyTree,
    values: Values,
    layouts: Sequence[Layout],
    errors: np.ndarray,
    only_failing: bool = False,
) -> Verdict:
    """The verdict at the awkward inputs and at the worst of the random ones."""
    from jaxnn.verify.exact.judge import Judge

    claim = traced.claim
    worst_trials = _suspicious(errors, claim.tolerance)
    if only_failing:
        worst_trials = [trial for trial in worst_trials if not errors[trial] <= claim.tolerance]
        if not worst_trials:
            return _verdict(claim, "holds")
    try:
        usual = [
            float(np.nanmedian(comparison.norms(leaf[: len(errors)]))) for leaf in values.reference
        ]
        judge = Judge(traced, [layout.arrange for layout in layouts], usual)
    except Unsupported as unsupported:
        return _judged_in_float64(traced, points, values, layouts, errors, str(unsupported))
    flat = jax.tree.leaves(points)
    awkward = range(len(errors), len(flat[0]))
    step = -(-len(awkward) * comparison.operations(traced) // AFFORDABLE) or 1
    judgements, doubtful, deadline = [], False, time.perf_counter() + JUDGED_SECONDS
    off, told = ~(errors <= claim.tolerance), []
    for trial in (*worst_trials, *awkward[::step]):
        if judgements and time.perf_counter() > deadline:
            break
        point = [value[trial] for value in flat]
        judgement = judge(point, [leaf[trial] for leaf in values.formula])
        if judgement.outcome == "wrong" and not (values.finite[trial] or judge.is_defined(point)):
            continue  # outside of the domain
        if judgement.outcome == "wrong":
            limit = judgement.limit
            detail = (
                "" if limit is None else f"the formula gives nan here; its limit is {limit:.6g}"
            )
            return _with_evidence("refuted", traced, judgement, point, detail=detail)
        if trial < len(errors) and off[trial]:
            doubtful |= judgement.outcome == "undecided"
            told.append(judgement.told)
        judgements.append((judgement, point))
    if doubtful or (told and not any(told) and np.mean(off) > SPOILT):
        reason = "formula and derivative differ at inputs that exact numbers do not decide"
        return _judged_in_float64(traced, points, values, layouts, errors, reason)
    return _summary(traced, judgements)


def _suspicious(errors: np.ndarray, tolerance: float) -> np.ndarray:
    """The random trials to judge in balls: the largest errors and failing trials."""
    order = np.argsort(-np.nan_to_num(errors, nan=-1.0, posinf=-1.0), kind="stable")
    failing = np.flatnonzero(~(errors <= tolerance))
    spread = failing[:: max(1, len(failing) // WORST_TRIALS)][: 2 * WORST_TRIALS]
    return np.unique(np.concatenate([order[:WORST_TRIALS], spread]))


def _with_evidence(
    verdict: str, traced: TracedClaim, judgement: "Judgement", point: Sequence[np.ndarray], **fields
) -> Verdict:
    """A verdict with the input and the entry that the verdict rests on."""
    index = tuple(map(int, judgement.index))
    values = judgement.formula, judgement.reference, judgement.one_sided, judgement.at_least
    return _verdict(
        traced.claim,
        verdict,
        worst=Worst(traced.names[judgement.leaf], index, *values),
        counterexample=Counterexample(traced.sizes, filled(dict(traced.claim.inputs), point)),
        **fields,
    )


def _summary(
    traced: TracedClaim, judgements: "Sequence[tuple[Judgement, list[np.ndarray]]]"
) -> Verdict:
    """The verdict on a formula that is right wherever the function has a derivative."""
    known = [pair for pair in judgements if pair[0].outcome in ("right", "kink")]
    bits = max((judgement.bits_lost for judgement, _ in known), default=None)
    unstable = [pair for pair in known if pair[0].unstable]
    for judgement, point in known:
        if judgement.outcome == "kink":
            before, after = judgement.one_sided or (np.nan, np.nan)
            detail = f"no derivative here: {before:.6g} from one side, {after:.6g} from the other; "
            detail += f"autodiff takes it to be {judgement.reference:.6g}"
            if unstable:
                detail += f"; elsewhere {_lost(unstable[0][0])}"
            return _with_evidence("kink", traced, judgement, point, bits_lost=bits, detail=detail)
    if not unstable:
        worst = max(known, key=lambda pair: pair[0].bits_lost, default=None)
        lost = None if worst is None else worst[0].autodiff_lost
        return _verdict(traced.claim, "holds", bits_lost=bits, autodiff_bits_lost=lost)
    judgement, point = min(unstable, key=lambda pair: shrinking.length(pair[1]))
    return _with_evidence(
        "holds_unstable", traced, judgement, point, detail=_lost(judgement),
        bits_lost=judgement.bits_lost, autodiff_bits_lost=judgement.autodiff_lost,
    )  # fmt: skip


def _lost(judgement: "Judgement") -> str:
    """How an unstable formula does worse in float64 than JAX's own derivative."""
    if not np.isfinite(judgement.formula):
        return f"float64 gives {judgement.formula}, the value is {judgement.reference:.6g}"
    return (
        f"loses {judgement.bits_lost:.0f} of {MANTISSA} bits where JAX's own derivative loses "
        f"{judgement.autodiff_lost:.0f}"
    )


def _judged_in_float64(
    traced: TracedClaim,
    points: Sequence[np.ndarray],
    values: Values,
    layouts: Sequence[Layout],
    errors: np.ndarray,
    reason: str,
) -> Verdict:
    """The verdict of float64 alone, for operations unknown to the balls.

    The references are finite: an error that is not a number is the formula's.
    """
    detail = f"judged in float64 alone: {reason}"
    known = np.nan_to_num(errors, nan=np.inf)
    if np.mean(known > traced.claim.tolerance) <= SPOILT:
        largest = float(np.max(known[np.isfinite(known)], initial=0.0))
        bits = float(np.log2(max(1.0, largest * 2.0**MANTISSA)))
        return _verdict(traced.claim, "holds", bits_lost=bits, detail=detail)
    trial = int(np.argmax(known))
    inputs = filled(dict(traced.claim.inputs), [value[trial] for value in points])
    claimed = [leaf[trial] for leaf in values.formula]
    true = [
        layout.arrange(leaf[trial]) for layout, leaf in zip(layouts, values.reference, strict=True)
    ]
    return _verdict(
        traced.claim,
        "refuted",
        worst=shrinking.worst_entry(traced.names, claimed, true),
        counterexample=Counterexample(traced.sizes, inputs),
        detail=detail,
    )


def _diagnosed(
    views: Sequence[View], sizes: dict[str, int], seed: int, refuted: Verdict
) -> Verdict:
    """The verdict with the diagnosis and the shortest counterexample known.

    Of several conventions the convention counts in which the fewest mistakes explain the formula.
    """
    view, (named, alternatives) = views[0], diagnosis.diagnose(views[0].claim, seed)
    for other in views[1:]:
        if len(named) == 1 and named[0].code != "unknown":
            break
        found = diagnosis.diagnose(other.claim, seed)
        if diagnosis.rank(found.findings) < diagnosis.rank(named):
            view, (named, alternatives) = other, found
    claim = view.claim
    worst, counterexample = shrinking.counterexample(claim, sizes, seed)
    detail = refuted.detail
    if counterexample is None:
        worst, counterexample, detail = refuted.worst, refuted.counterexample, refuted.detail
    elif worst and counterexample:
        worst = worst._replace(at_least=_proven(claim, worst, counterexample))
    detail = "; ".join(filter(None, [detail, alternatives]))
    refuted = refuted._replace(
        worst=worst, counterexample=counterexample, diagnosis=named, detail=detail
    )
    return view.said(refuted, "is compared with")


def _proven(claim: Claim, worst: Worst, counterexample: Counterexample) -> float | None:
    """A proven lower bound of |claimed - true| at a counterexample; None where none is found."""
    from jaxnn.verify.exact.judge import Judge

    sizes = tuple(counterexample.sizes.items())
    traced = comparison.trace_claim(claim, sizes, both_modes=False)
    arrange = [comparison.declared_layout(claim.layout, rank) for rank in traced.value_ranks]
    point = jax.tree.leaves(dict(counterexample.inputs))
    if traced.black_box:  # whether the translation has the values of the formula
        traced.run(*(np.asarray(value)[None] for value in point))
    try:
        judge = Judge(traced, arrange)
        return judge.at_least(point, traced.names.index(worst.where), worst.index)
    except (Unsupported, IndexError):  # of another shape
        return None


def _not_evaluated(claim: Claim, error: BaseException) -> Verdict:
    """The verdict on a formula that raised: mismatched shapes are a mistake of the formula."""
    findings = diagnosis.diagnose_shapes(claim, error, user_line(error))
    if findings:
        return _verdict(claim, "refuted", diagnosis=findings)
    return _verdict(claim, "error", detail=located(error))
