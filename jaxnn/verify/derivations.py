"""Derivations: lines in order, each compared with the truth and with the line before."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.files import printable, short
from jaxnn.types import PyTree, require_type, shown
from jaxnn.verify.claims import (
    Claim,
    Description,
    check,
    claim,
    description,
    parameters,
    read,
    with_keywords,
)
from jaxnn.verify.comparison import FormulaError, FunctionError, Inputs, reference, relative_errors
from jaxnn.verify.sampling import DomainError, Trials
from jaxnn.verify.verdict import DerivationVerdict, Step, Verdict, broken

Formula = Callable[..., PyTree]

Examine = Callable[[Claim, bool], tuple[Verdict, list[Trials]]]
"""From a claim to the verdict, if refuted with a diagnosis or without, and the values found."""

_WORST_FIRST = (
    "refuted", "error", "undecided", "misstated", "holds_other_layout", "holds_unstable", "kink",
    "holds",
)  # fmt: skip

_DECLARED = ("terms", "rate", "layout", "tolerance", "trials", "certify", "where", "black_box")

UNKNOWN = ("error", "undecided")
"""Verdicts on lines that count neither as right nor as wrong."""


class Case(NamedTuple):
    """Some entries of the value, such as the diagonal."""

    truth: Claim  # with the other entries 0
    overlay: Callable[[Inputs, PyTree, PyTree], PyTree]  # a value there, another elsewhere


@dataclass(eq=False)
class Derivation:
    """The lines of a derivation in order; made by ``derivation``, empty at first."""

    truth: Claim  # a claim without a formula, for the derivative and the inputs of all lines
    name: str  # "": the name of the variable, in a file for ``jaxnn verify``
    cases: Mapping[str, Case] = field(default_factory=dict)
    lines: list[Claim] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # per line the name of the case; "": none

    @overload
    def line(
        self, statement: str, formula: None = None, *, case: str = "", layout: Any = None
    ) -> Callable[[Formula], Formula]: ...

    @overload
    def line(
        self, statement: str = "", *, formula: str, case: str = "", layout: Any = None
    ) -> Formula: ...

    @overload
    def line(
        self, statement: str, formula: Formula, *, case: str = "", layout: Any = None
    ) -> Formula: ...

    def line(
        self,
        statement: str = "",
        formula: Formula | str | None = None,
        *,
        case: str = "",
        layout: Literal["transpose", "vec", "vec_rows"] | None = None,
    ) -> Any:
        """Adds a line below the lines so far; without a formula a decorator of the formula.

        Args:
          statement: the line as LaTeX.
          formula: the line's value, as a function of some of the inputs; for a case any array that
            broadcasts to the shape of the derivative, as entries outside the case do not count;
            or LaTeX, read as by ``claim``.
          case: the name of a case, if the line holds for some entries alone.
          layout: of this line's value, as for ``claim``.

        Returns:
          The formula.

        Raises:
          ValueError: an argument is wrong; the message has the value and the expectation.
          TypeError: the statement is no text.

        Source: S2.1.
        """
        require_type(isinstance(statement, str), "statement", statement, "the line's LaTeX as text")
        if formula is None:
            return partial(self.line, statement, case=case, layout=layout)
        if case and case not in self.cases:
            known = ", ".join(map(repr, self.cases)) or "none: cases={...} of the derivation"
            raise ValueError(f"case is {shown(case)}, expected one of the cases: {known}")
        if case and layout:
            raise ValueError(f"layout is {shown(layout)}, expected none for a line of a case")
        truth = self.cases[case].truth if case else self.truth
        latex = formula if isinstance(formula, str) else ""
        made = replace(truth, formula=formula, statement=statement or latex, truth=truth)
        made = read(made, latex) if latex else made
        made = replace(made, layout=layout) if layout else made
        check(made)
        self.lines.append(made)
        self.places.append(case)
        return made.formula

    def __repr__(self) -> str:
        return printable(f"Derivation({short(self.called)}; {len(self.lines)} lines)")

    def _repr_html_(self) -> str:
        from jaxnn import display

        lines = (display.formula(line.statement) for line in self.lines)
        return display.html(display.heading(self.called, about="derivation"), *lines)

    @property
    def claims(self) -> list[Claim]:
        """The lines as claims, named ``name, line 1`` and so on."""
        numbered = enumerate(self.lines, start=1)
        return [replace(line, name=f"{self.called}, line {number}") for number, line in numbered]

    @property
    def called(self) -> str:
        """The name; ``derivation`` where none is given."""
        return self.name or "derivation"

    def description(self, file: str = "", place: int = 0) -> Description:
        """The derivation in words and code, with the lines."""
        whole = description(replace(self.truth, name=self.called), file, place)
        lines = tuple(description(line, file, place) for line in self.claims)
        return whole._replace(doc="", formula_code="", lines=lines)

    def without_certificates(self) -> "Derivation":
        """The derivation with lines that are not certified."""
        return replace(self, lines=[replace(line, certify=False) for line in self.lines])


def derivation(
    *,
    of: Formula,
    kind: Literal["gradient", "jacobian", "hessian", "value", "update", "vjp"],
    inputs: Mapping[str, PyTree],
    wrt: str | tuple[str, ...] | list[str] = (),
    source: str = "",
    name: str = "",
    cases: Mapping[str, Callable[..., Any]] | None = None,
    **declared: Any,
) -> Derivation:
    r"""A derivation, to which ``line`` adds lines from the first to the last.

    Args:
      of: the function, as for ``claim``.
      kind: of the derivative, as for ``claim``.
      inputs: for each parameter a generator, as for ``claim``.
      wrt: the parameter of the derivative, or several, as for ``claim``.
      source: the origin, such as ``"S2.2"``.
      name: for the reports; default: the variable's name where ``jaxnn verify`` reads a file.
      cases: by name a condition on the entries of the derivative, true in the case: a function of
        an entry's indices, and of inputs by their names. ``{"l = k": lambda k, j, l: l == k}`` for
        a derivative of three axes.
      declared: further arguments of ``claim``: ``terms``, ``rate``, ``layout``, ``tolerance``,
        ``trials``, ``certify``, ``where``, ``black_box``.

    Returns:
      The derivation, without lines.

    Raises:
      ValueError: an argument is wrong; the message has the value and the expectation.
      TypeError: an argument of another name, or of a wrong type.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import derivation, real, verify
      >>> d = derivation(
      ...     of=lambda x: jnp.sum(x**2) / 2, wrt="x", kind="gradient", inputs={"x": real("n")}
      ... )
      >>> _ = d.line(r"\frac12 \nabla \sum_i x_i^2", lambda x: (2 * x) / 2)
      >>> _ = d.line(r"-x", lambda x: -x)
      >>> verdict = verify(d, trials=1000)
      >>> verdict.first_wrong, [finding.code for finding in verdict.diagnosis]
      (2, ['sign'])

    Source: S2.2.
    """
    for other in set(declared).difference(_DECLARED):
        raise TypeError(f"derivation got {other!r}, expected one of {', '.join(_DECLARED)}")
    require_type(isinstance(name, str), "name", name, "text")
    require_type(isinstance(cases or {}, Mapping), "cases", cases, "a dict of conditions by name")
    truth = claim(of=of, kind=kind, inputs=inputs, wrt=wrt, source=source, **declared)(_no_formula)
    if cases and truth.layout:
        raise ValueError(f"layout is {truth.layout!r}, expected none for a derivation with cases")
    made = {case: _case(truth, case, condition) for case, condition in (cases or {}).items()}
    return Derivation(truth, name, made)


def _no_formula() -> tuple[()]:
    return ()


def _case(truth: Claim, name: str, condition: Callable[..., Any]) -> Case:
    """The entries at which a condition holds."""
    if not callable(condition):
        raise ValueError(  # noqa: TRY004
            f"the case {name!r} is {shown(condition)}, expected a function of indices"
        )
    derivative = reference(truth)

    def overlay(inputs: Inputs, there: PyTree, elsewhere: PyTree) -> PyTree:
        """A value in the case, of any shape that broadcasts, another elsewhere."""
        arrays = jax.tree.leaves(jax.eval_shape(derivative, inputs))
        if len(arrays) != 1:
            raise ValueError(f"the case {name!r} is of {len(arrays)} arrays, expected one array")
        shape = arrays[0].shape
        mask = jnp.broadcast_to(_holds(name, condition, inputs, shape), shape)
        return jnp.where(mask, jnp.broadcast_to(there, shape), elsewhere)

    def alone(inputs: Inputs, value: PyTree) -> PyTree:
        return jax.tree.map(lambda array: overlay(inputs, array, 0.0), value)

    return Case(replace(truth, entries=alone), overlay)


def _holds(
    name: str, condition: Callable[..., Any], inputs: Inputs, shape: tuple[int, ...]
) -> jax.Array:
    """The condition at every index of a shape."""
    names = parameters(condition)
    indices = [name for name in names if name not in inputs]
    if len(indices) not in (0, len(shape)):
        raise ValueError(
            f"the condition of the case {name!r} has the indices {', '.join(indices)}, expected "
            f"{len(shape)} for a derivative of shape {shape}"
        )
    axes = dict(zip(indices, jnp.indices(shape, sparse=True), strict=False))
    return jnp.asarray(condition(*({**inputs, **axes}[name] for name in names)))


def judged(
    derivation: Derivation, examine: Examine, further: Callable[[Claim], list[Trials]]
) -> DerivationVerdict:
    """The verdict on every line, and the first line that does not follow.

    A right line after right lines follows. Where a line before is wrong, a right line repairs, and
    a wrong line is compared with the lines before: by the values found, also at larger sizes, and
    where these differ as a claim of its own.

    Raises:
      ValueError: the derivation has no lines.
    """
    if not derivation.lines:
        raise ValueError(f"{derivation.called} has no lines, expected .line(latex, formula)")
    judge = _Judge(derivation, examine, further)
    for made in derivation.claims:
        began = time.perf_counter()
        verdict = judge.next_line(made)
        judge.lines[-1] = verdict._replace(seconds=time.perf_counter() - began)
    lines, truth = tuple(judge.lines), derivation.truth
    return DerivationVerdict(
        derivation.called,
        truth.source,
        truth.kind,
        min((line.verdict for line in lines), key=_WORST_FIRST.index),
        lines,
        *broken(lines),
        tuple(n for n, line in enumerate(lines, start=1) if "unstable" in line.verdict),
    )


@dataclass
class _Judge:
    """The verdicts on the lines so far, and the values of the lines."""

    _derivation: Derivation
    _examine: Examine
    _further: Callable[[Claim], list[Trials]]
    lines: list[Verdict] = field(default_factory=list)
    _values: list[list[Trials]] = field(default_factory=list)

    def next_line(self, made: Claim) -> Verdict:
        """The verdict on the next line, with the step from the lines before."""
        before = self._before()
        astray = any(self.lines[number].verdict == "refuted" for number in before)
        verdict, values = self._examine(made, not astray)
        self._values.append(values)
        if verdict.verdict in UNKNOWN:
            outcome = "unknown"
        elif verdict.verdict != "refuted":
            outcome = "repair" if astray else "follows"
        elif astray:
            verdict, outcome = self._after_wrong(made, verdict, before)
        else:
            verdict, outcome = self._after_right(made, verdict, before), "mistake"
        places, name = self._derivation.places, self._derivation.called
        after = tuple(number + 1 for number in before)
        step = Step(name, len(self.lines) + 1, outcome, after, places[len(self.lines)])
        self.lines.append(verdict._replace(step=step))
        return self.lines[-1]

    def _before(self) -> tuple[int, ...]:
        """The positions of the lines that the next line has to follow from; none: the function.

        A line of a case follows from the last line of that case or of all entries, a line of all
        entries also from the last line of every case. Lines that could not be judged do not count.
        """
        places, found = self._derivation.places, dict[str, int]()
        case = places[len(self.lines)]
        for number in reversed(range(len(self.lines))):
            place = places[number]
            if self.lines[number].verdict in UNKNOWN or (case and place not in ("", case)):
                continue
            found.setdefault(place, number)
            if place in ("", case):
                break
        return tuple(sorted(found.values()))

    def _after_right(self, made: Claim, verdict: Verdict, before: Sequence[int]) -> Verdict:
        """The verdict on a wrong line after right ones; the lines before may name the mistake."""
        if not before or _is_named(verdict) or not verdict.trials:
            return verdict
        step, _ = self._examine(self._step(made, before), True)
        return _with_diagnosis_of(step, verdict, before)

    def _after_wrong(
        self, made: Claim, verdict: Verdict, before: Sequence[int]
    ) -> tuple[Verdict, str]:
        """The verdict on a wrong line after wrong ones, and whether the line follows."""
        if not all(self._values[number] for number in before):  # a line before raised an exception
            return self._examine(made, True)[0], "mistake" if verdict.trials else "unknown"
        first = before[0]
        detail = f"follows from {_listed(before)}, and is as wrong"
        if len(before) == 1 and self._agrees(made, first):
            worst, example, *_ = self.lines[first].worst, self.lines[first].counterexample
            return verdict._replace(worst=worst, counterexample=example, detail=detail), "follows"
        step, _ = self._examine(self._step(made, before), True)
        if step.verdict in UNKNOWN:
            return verdict, "unknown"
        if step.verdict != "refuted":
            return verdict._replace(diagnosis=(), detail=detail), "follows"
        if not _is_named(step):
            verdict, _ = self._examine(made, True)
        return _with_diagnosis_of(step, verdict, before), "mistake"

    def _agrees(self, made: Claim, number: int) -> bool:
        """Whether the values of the line at hand are those of a line before, at all sizes."""
        here, there = self._values[-1], self._values[number]
        if not _agree(there[:1], here[:1], made.tolerance):
            return False
        for values, line in ((there, self._derivation.lines[number]), (here, made)):
            try:
                values += self._further(line) if len(values) == 1 else []
            except (FormulaError, FunctionError, DomainError):
                return False
        return _agree(there, here, made.tolerance)

    def _step(self, made: Claim, before: Sequence[int]) -> Claim:
        """The claim that a line is equal to the lines before."""
        derivation = self._derivation

        def value(inputs: Inputs) -> PyTree:
            """The lines before together; entries of no line are those of the derivative."""
            found = reference(derivation.truth)(inputs)
            for number in before:
                there = derivation.lines[number].evaluate(inputs)
                case = derivation.cases.get(derivation.places[number])
                found = case.overlay(inputs, there, found) if case else there
            return found if made.entries is None else made.entries(inputs, found)

        names = derivation.truth.inputs
        return replace(
            made, formula=with_keywords(lambda **inputs: made.evaluate(inputs), names),
            of=with_keywords(lambda **inputs: value(inputs), names), kind="value",
            wrt=(), terms=None, rate=None, layout=None, certify=False, truth=None, entries=None,
        )  # fmt: skip


def _agree(before: Sequence[Trials], here: Sequence[Trials], tolerance: float) -> bool:
    """Whether the values of two lines in float64 agree at every trial of equal inputs."""
    if len(before) != len(here):
        return False
    for a, b in zip(before, here, strict=True):
        arrays = (*a.points, *a.values.formula), (*b.points, *b.values.formula)
        if [array.shape for array in arrays[0]] != [array.shape for array in arrays[1]]:
            return False
        if not all(map(np.array_equal, a.points, b.points)):
            return False
        for one, other in zip(a.values.formula, b.values.formula, strict=True):
            if not np.all(relative_errors(one[: a.random], other[: a.random]) <= tolerance):
                return False
    return True


def _is_named(verdict: Verdict) -> bool:
    return all(finding.code not in ("unknown", "shape") for finding in verdict.diagnosis)


def _with_diagnosis_of(step: Verdict, verdict: Verdict, before: Sequence[int]) -> Verdict:
    """The verdict on a line with the diagnosis of the step, where the step's mistake has a name."""
    if step.verdict != "refuted" or not _is_named(step):
        return verdict
    detail = f"the diagnosis compares the line with {_listed(before)}"
    return verdict._replace(diagnosis=step.diagnosis, detail=detail)


def _listed(before: Iterable[int]) -> str:
    return " and ".join(f"line {number + 1}" for number in before)
