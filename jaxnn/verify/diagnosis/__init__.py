"""The most likely mistake in a refuted formula.

Every leaf of the formula is explained alone. An explanation reproduces the leaf to 1e-9 in all
trials, at several sizes: a wrong diagnosis does harm. Explanations are (1) the right derivative
times numbers, sizes, inputs or values of the function, (2) the derivative in other layouts, (3) the
derivative with one or two slips in the backward pass, (4) the derivative without an input, or with
another number in the function, and (5) another value in the formula. Only for a matrix taken
for symmetric is the formula compared where the matrix is symmetric.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations, islice, product
from typing import NamedTuple

import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import FormulaError, FunctionError, trace_claim
from jaxnn.verify.diagnosis import hypotheses
from jaxnn.verify.diagnosis.ablation import CROSS_ENTROPY_GRADIENT, merged
from jaxnn.verify.diagnosis.factors import (
    ONE,
    Factors,
    columns_of,
    findings,
    fits,
    fitted_factors,
    joined,
    predicted,
    scale_findings,
    varying_factor,
)
from jaxnn.verify.diagnosis.hypotheses import RIGHT, Hypothesis, unchanged
from jaxnn.verify.diagnosis.substitution import diagnose_shapes, exchanges, other_numbers
from jaxnn.verify.diagnosis.trials import SPREADS, Sample, draw_sample, same
from jaxnn.verify.graph import CELL_NAME, LINES, Unsupported, equations, located
from jaxnn.verify.inputs import filled
from jaxnn.verify.verdict import Finding

__all__ = ["Diagnosis", "diagnose", "diagnose_shapes", "rank"]

MOST_MISTAKES = 2
"""Mistakes in the explanation of a leaf."""

MOST_EQUATIONS = 800
"""The most operations of a formula in which values are exchanged."""

MOST_CHOICES = 64
"""Combinations of explanations of several leaves."""

SMALL = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
"""Sizes of the inputs at which a forgotten small constant shows."""

ONLY_SPECIAL = Finding(
    "unknown", "", "the formula is right at ordinary inputs, and wrong at special ones as given"
)


class Diagnosis(NamedTuple):
    """The mistakes in a formula; an input at which alternatives differ, the right parameters."""

    findings: tuple[Finding, ...]
    detail: str = ""


_VAGUE = {"statistic_constant": 1, "missing_term": 2}
"""Codes that a more exact code of an equally simple explanation replaces."""

Predict = Callable[[Sample], np.ndarray | None]


class Explanation(NamedTuple):
    """Mistakes in a leaf of the formula, and the values predicted by the mistakes."""

    found: tuple[Finding, ...]  # with the mistakes behind the factors
    predict: Predict = lambda sample: None
    sized: bool = False  # whether further sizes must confirm a factor
    given: tuple[Finding, ...] = ()  # without the mistakes behind the factors
    factors: Factors | None = None  # of the terms of the objective

    @property
    def key(self) -> object:
        """Equal for one explanation of several leaves."""
        return self.given, *sorted((self.factors or {}).items())


def _codes(found: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(sorted({finding.code for finding in found}))


def rank(found: Collection[Finding]) -> tuple[bool, int, int]:
    """Explanations without an unknown mistake come first, then few mistakes, then exact codes."""
    vague = max((_VAGUE.get(finding.code, 0) for finding in found), default=0)
    indirect = any(finding.detail == CROSS_ENTROPY_GRADIENT for finding in found)
    return "unknown" in _codes(found), len(found), 1 if indirect else vague


def diagnose(claim: Claim, seed: int = 0) -> Diagnosis:
    """Names the mistakes in a refuted formula.

    Args:
      claim: the claim.
      seed: of the trials.

    Returns:
      The mistakes, or ``unknown``, also if the diagnosis raises an exception: the verdict stands
      without a diagnosis. Where several explanations agree at the claim's inputs: all
      explanations, and in ``detail`` an input at which the explanations differ.
    """
    try:
        found = _diagnose(claim, seed)
    except Exception as error:
        found = Diagnosis((Finding("unknown", "", f"the diagnosis failed: {located(error)}"),))
    return found._replace(findings=tuple(map(_quoted, found.findings)))


def _quoted(finding: Finding) -> Finding:
    """A finding with the text of every line that the finding names."""
    places = dict.fromkeys(_LINE.findall(f"{finding.where} {finding.detail}"))
    texts = [f"{place} is `{LINES[place][:80]}`" for place in places if LINES.get(place)]
    return finding._replace(detail="; ".join([finding.detail, *texts]))


_LINE = re.compile(rf"line \d+ of [^\s:;,()]+|(?:{CELL_NAME}), line \d+")


def _diagnose(claim: Claim, seed: int) -> Diagnosis:
    samples = list(_samples(claim, seed, (0, 1)))
    if not samples:
        reason = "no draw is finite, or loops are too long for JAX at other sizes"
        return Diagnosis((Finding("unknown", "", f"no mistake was tried: {reason}"),))
    problem = hypotheses.count_problem(samples[0])
    if problem is not None:
        return Diagnosis((problem,))
    for spread in (None, *SMALL):
        samples = samples if spread is None else list(_samples(claim, seed, (0, 1), spread))
        search = _Search(claim, samples, seed) if len(samples) == 2 or spread is None else None
        if search and search.wrong:
            return search.diagnosis(spread)
    return Diagnosis((ONLY_SPECIAL,))


def _samples(
    claim: Claim, seed: int, choices: Iterable[int], spread: float | None = None
) -> Iterator[Sample]:
    """Trials at several choices of sizes; choices without finite values are left out."""
    for choice in choices:
        try:
            sample = draw_sample(claim, choice, seed, (spread,) if spread else SPREADS)
        except (FormulaError, FunctionError):
            continue
        if all(
            np.isfinite(leaf).all() for leaves in (sample.formula, *sample.terms) for leaf in leaves
        ):
            yield sample


class _Search:
    """The explanations of the wrong leaves of a formula, engine by engine until all have one."""

    def __init__(self, claim: Claim, samples: list[Sample], seed: int):
        self.claim, self.samples, self.seed = claim, samples, seed
        self.names = samples[0].program.names
        leaves = range(len(self.names))
        true = [hypotheses.right(sample) for sample in samples]
        pairs = list(zip(samples, true, strict=True))
        wrong = [not all(same(s.formula[leaf], t[leaf]) for s, t in pairs) for leaf in leaves]
        self.wrong = [leaf for leaf in leaves if wrong[leaf]]
        self.known: dict[int, list[Explanation]] = {leaf: [] for leaf in self.wrong}
        self.tried: list[str] = []

    def diagnosis(self, spread: float | None = None) -> Diagnosis:
        """Runs the engines, at a tiny spread only for other numbers; combines the explanations."""
        engines = (
            ("factors and layouts", self._by_factors, 1),
            ("inputs left out", partial(self._by_conditions, parameters=False), 1),
            ("statements of the code", self._by_statements, 1),
            ("slips in the backward pass", self._by_slips, 1),
            ("matrices taken for symmetric", partial(self._by_conditions, parameters=True), 1),
            ("other numbers", self._by_numbers, 2),
            ("values exchanged or multiplied", self._by_exchange, 2),
            ("pairs of slips", partial(self._by_slips, two=True), 2),
        )
        for name, engine, enough in engines if spread is None else engines[5:6]:
            before = {leaf: len(some) for leaf, some in self.known.items()}
            try:
                engine()
                self.tried.append(name)
            except Unsupported as reason:
                self.tried.append(f"{name} (left out: {reason})")
            except Exception as error:  # of one engine: the other engines are tried
                self.known = {leaf: some[: before[leaf]] for leaf, some in self.known.items()}
                self.tried.append(f"{name} (failed: {located(error)})")
            self._confirm(before)
            if self._fewest() <= enough:
                break
        found = self._simplest()
        small = f"right to 9 digits but for inputs of about {spread:g} or less" if spread else ""
        return found._replace(detail=small or found.detail)

    def _fewest(self) -> int:
        """The mistakes in the simplest explanations with codes alone; many without any."""
        named = ([e for e in some if not rank(e.found)[0]] for some in self.known.values())
        return max(min((len(e.found) for e in some), default=99) for some in named)

    def _confirm(self, before: dict[int, int]) -> None:
        """Leaves out new explanations that fail at further sizes."""
        new = [e for leaf, some in self.known.items() for e in some[before[leaf] :]]
        if any(explanation.sized for explanation in new):
            (further,) = [*_samples(self.claim, self.seed, (2,))][:1] or [self.samples[0]]
            for leaf, some in self.known.items():
                formula = further.formula[leaf]
                self.known[leaf] = [
                    e for e in some if not e.sized or fits(e.predict(further), formula)
                ]

    def _by_factors(self) -> None:
        self._add_all(hypotheses.exchanged_leaves(self.samples))
        self._add_all(hypotheses.shape_problems(self.samples[0]))
        self._consider([RIGHT, *hypotheses.rearranged(self.samples[0])])

    def _by_slips(self, two: bool = False) -> None:
        self._consider(hypotheses.mistaken(self.samples[0], two))
        if not two and self._fewest() > MOST_MISTAKES:
            self._consider_factors(RIGHT, "the formula")

    def _by_conditions(self, parameters: bool) -> None:
        self._add_all(hypotheses.conditions(self.samples, parameters))

    def _by_statements(self) -> None:
        self._add_all(hypotheses.statements(self.samples))

    def _by_numbers(self) -> None:
        for leaf in self.wrong:
            self._add_all((leaf, finding) for finding in other_numbers(self.samples, leaf))

    def _by_exchange(self) -> None:
        claim, sizes = self.claim, tuple(self.samples[0].program.sizes.items())
        formula = trace_claim(claim, sizes, both_modes=False).formula
        if formula is not None and equations(formula) > MOST_EQUATIONS:
            raise Unsupported(f"more than {MOST_EQUATIONS} operations, as of unrolled loops")
        if all(_share_right(sample) <= 0.5 for sample in self.samples):
            self._add_all(exchanges(self.samples))

    def _add_all(self, found: Iterable[tuple[int, Finding]]) -> None:
        for leaf, finding in found:
            if leaf in self.wrong:
                self.known[leaf].append(Explanation((finding,), given=(finding,)))

    def _consider(self, varied: Iterable[Hypothesis]) -> None:
        """Adds the hypotheses that, with factors of the terms, explain leaves."""
        true = RIGHT.terms(self.samples[0])
        scalars = self.samples[0].program.scalars
        for hypothesis in varied:
            given, terms_at, scaled = hypothesis
            terms = terms_at(self.samples[0])
            changed = [leaf for leaf in self.wrong if not given or not unchanged(terms, true, leaf)]
            if scaled:
                self._consider_factors(hypothesis, scaled)
            for leaf in changed:
                columns_at = partial(columns_of, terms_at, leaf)
                some = fitted_factors(self.samples, leaf, columns_at)
                if some is None:
                    continue
                found = merged((*given, *findings(self.samples[0], {self.names[leaf]: some})))
                # An exchanged value and a second mistake fit by luck.
                most = 1 if "wrong_value" in _codes(found) else MOST_MISTAKES
                if 0 < len(found) <= most:
                    sizes = (name for c in some.values() for name, _ in c.powers)
                    sized = not given or not {*sizes} <= {*scalars}
                    predict = partial(predicted, columns_at, some)
                    self.known[leaf].append(Explanation(found, predict, sized, given, some))

    def _consider_factors(self, hypothesis: Hypothesis, subject: str) -> None:
        """Adds factors of the part of the derivative that a hypothesis leaves out."""
        for leaf in self.wrong:
            if any(rank(e.found)[:2] == (False, 1) for e in self.known[leaf]):
                continue
            columns_at = partial(hypotheses.split_leaf, hypothesis, leaf)
            known = varying_factor(self.samples, leaf, columns_at)
            if known is not None:
                place = hypothesis.findings[0].where if hypothesis.findings else ""
                scalars = self.samples[0].program.scalars
                found = tuple(scale_findings(known["part"], place, subject, scalars))
                predict = partial(predicted, columns_at, known)
                sized = bool(known["part"].powers)
                self.known[leaf].append(Explanation(found, predict, sized, found))

    def _simplest(self) -> Diagnosis:
        """The explanations of the lowest rank, with equal codes only the first."""
        pool = {self._together(choice): choice for choice in reversed([*self._choices()])}
        least = min(map(rank, pool))
        simplest = {_codes(found): found for found in pool if rank(found) == least}
        ordered = [sorted(f, key=lambda f: (f.where, f)) for f in reversed([*simplest.values()])]
        if len(ordered) == 1:
            return Diagnosis(tuple(ordered[0]), self._sides())
        named = tuple(
            finding._replace(detail=f"alternative {i} of {len(ordered)}: {finding.detail}")
            for i, found in enumerate(ordered, start=1)
            for finding in found
        )
        choices = [pool[found] for found in reversed([*simplest.values()])]
        differ = _distinguishing_input(self.claim, choices, self.seed)
        return Diagnosis(named, "; ".join(filter(None, (self._sides(), differ))))

    def _choices(self) -> Iterator[tuple[Explanation, ...]]:
        """Combinations of the simplest explanations of the wrong leaves, shared ones first."""
        shared = Counter(
            e.key for some in self.known.values() for e in {e.key: e for e in some}.values()
        )
        tried = "none of the mistakes that were tried gives this formula: " + "; ".join(self.tried)
        unknown = Explanation(given := (Finding("unknown", "", tried),), given=given)
        choices = []
        for some in self.known.values():
            least = min((rank(e.found) for e in some), default=None)
            best = sorted((e for e in some if rank(e.found) == least), key=lambda e: -shared[e.key])
            choices.append(
                [*{_codes(e.found): e for e in reversed(best)}.values()][::-1][:4] or [unknown]
            )
        return islice(product(*choices), MOST_CHOICES)

    def _together(self, choice: Sequence[Explanation]) -> tuple[Finding, ...]:
        """The mistakes in all leaves: a mistake in several leaves is one finding."""
        leaves: dict[Finding, list[str]] = {}
        by_name: dict[str, Factors] = {}
        explained = dict(zip(self.wrong, choice, strict=True))
        for leaf, name in enumerate(self.names):
            explanation = explained.get(leaf)
            for finding in explanation.given if explanation else ():
                leaves.setdefault(finding, []).append(name)
            terms = [term[leaf] for term in self.samples[0].terms]
            right = {
                t.name: ONE
                for t, a in zip(self.samples[0].program.terms, terms, strict=True)
                if np.any(a)
            }
            some = explanation.factors if explanation else right
            by_name |= {} if some is None else {name: some}
        several = len(self.names) > 1
        return merged(
            (
                *(
                    f._replace(where=joined(", ".join(names), f.where))
                    if several and len(names) < len(self.names) and f.where not in names
                    else f
                    for f, names in leaves.items()
                ),
                *findings(self.samples[0], by_name),
            )
        )

    def _sides(self) -> str:
        """The parameters with a right derivative, and with a wrong one."""
        right = [name for leaf, name in enumerate(self.names) if leaf not in self.wrong]
        wrong = (self.names[leaf] for leaf in self.wrong)
        return f"right for {', '.join(right)}; wrong for {', '.join(wrong)}" if right else ""


def _share_right(sample: Sample) -> float:
    """The share of trials with a right formula; large where a single branch is wrong."""
    trials = zip(*sample.formula, *hypotheses.right(sample), strict=True)
    leaves = len(sample.formula)
    return float(np.mean([all(map(same, trial, trial[leaves:])) for trial in trials]))


def _distinguishing_input(claim: Claim, choices: Sequence[Sequence[Explanation]], seed: int) -> str:
    """An input, outside of the claim's generators, at which explanations differ."""
    sample = draw_sample(claim, 0, seed, unconstrained=True)
    for one, other in combinations(choices, 2):
        pairs = [(a.predict(sample), b.predict(sample)) for a, b in zip(one, other, strict=True)]
        if all(a is None or b is None or same(a, b) for a, b in pairs):
            continue
        values = [np.round(value[0], 2).tolist() for value in sample.flat]
        inputs = filled(dict(claim.inputs), values)
        return f"the alternatives differ where the inputs' constraints are dropped, as at {inputs}"
    return "the alternatives give the same formula for every input of these shapes"
