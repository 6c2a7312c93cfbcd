"""Mistakes in the formula's graph: a value exchanged for another value, a factor not transposed.

A candidate replaces an operand of the formula by a value of the function, such as sigmoid(z) by z;
the candidate that makes the formula right names the mistake.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.claims import Claim, call
from jaxnn.verify.comparison import FormulaError, one_trial, trace_claim
from jaxnn.verify.diagnosis.ablation import Ablation, Change, Knob, Known, knob
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value
from jaxnn.verify.diagnosis.trials import Program, Sample, same
from jaxnn.verify.graph import Name, Place, build_graph, evaluate
from jaxnn.verify.inputs import draw, symbols
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

_FUNCTIONS = {
    "": lambda value: value,
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "exponential": jnp.exp,
}


class Donor(NamedTuple):
    """A value of ``of``, or of a function that ``of`` may imply: log-sum-exp implies a softmax."""

    name: Name
    function: str = ""

    def of(self, value: Any) -> Any:
        """The donor from the named value."""
        return _FUNCTIONS[self.function](value)

    def described(self, function: EvaluatedGraph) -> str:
        """The donor in words."""
        value = function.described(self.name)
        return f"the {self.function} of {value}" if self.function else value


def exchanges(samples: Sequence[Sample]) -> list[Finding]:
    """At most one finding: the first exchange that makes a formula right at every sample."""
    right = [_right_exchanges(sample) for sample in samples]
    return [finding for finding in right[0] if all(finding in found for found in right)][:1]


def _right_exchanges(sample: Sample) -> list[Finding]:
    ready = sample.program
    traced = trace_claim(ready.claim, tuple(ready.sizes.items()), both_modes=False)
    true = traced.run(*sample.flat)[2]
    return [
        mistake.finding
        for (mistake,), leaves in _exchanged(ready).leaves(sample.flat)
        if all(map(same, leaves, true))
    ]


@lru_cache(maxsize=8)
def _exchanged(ready: Program) -> Ablation:
    """The formula with a knob for every exchange."""
    formula = EvaluatedGraph(ready, build_graph(ready.claim.evaluate, ready.shapes))
    function = EvaluatedGraph(ready, build_graph(partial(call, ready.claim.of), ready.shapes))
    donors = _donors(function)

    def given(*flat: Any) -> Known:
        values = every_value(function.graph, *flat)
        return {donor: donor.of(values[donor.name]) for donor in donors}

    value = replace(ready.claim, kind="value")
    return Ablation(formula.graph, _knobs(formula, function, donors), given, value, ready.shapes)


def _knobs(
    formula: EvaluatedGraph, function: EvaluatedGraph, donors: dict[Donor, np.ndarray]
) -> Iterator[Knob]:
    """Every operand that is a value of the function, for every other value of equal shape."""
    uses: dict[Name, list[tuple[Place, str]]] = {}
    for position, node in enumerate(formula.graph.nodes):
        for place, name in enumerate(node.operands):
            uses.setdefault(name, []).append(((position, place), node.where))
    for name in [name for name in uses if name in formula.values]:
        value, places = formula.values[name], uses[name]
        present = next((donor for donor, v in donors.items() if same(value, v)), None)
        if present is None or not jnp.issubdtype(value.dtype, jnp.floating):
            continue
        for donor, instead in donors.items():
            if instead.shape != value.shape or same(value, instead):
                continue
            # sigma'(h) in place of sigma'(z) has a wrong argument; z in place of h is any value.
            is_argument = not donor.function and function.roots[present.name] == donor.name
            code = "activation_derivative_wrong_argument" if is_argument else "wrong_value"
            detail = f"has {present.described(function)} where {donor.described(function)} belongs"
            for some in (places, *([one] for one in places if len(places) > 1)):
                changes, line = [_exchange(donor, place) for place, _ in some], some[0][1]
                yield knob(code, line, f"{line} {detail}", *changes)


def _exchange(donor: Donor, place: Place) -> tuple[Place, Change]:
    return place, lambda fixed, live: fixed[donor] - live[place]


def _donors(function: EvaluatedGraph) -> dict[Donor, np.ndarray]:
    """The distinct values for use in a formula, at a few trials."""
    exponentials = any(node.primitive.name == "exp" for node in function.graph.nodes)
    donors: dict[Donor, np.ndarray] = {}
    for through in _FUNCTIONS if exponentials else ("",):
        for name in function.significant():
            donor = Donor(name, through)
            value = np.asarray(donor.of(function.values[name]))
            if np.isfinite(value).all() and not any(same(value, v) for v in donors.values()):
                donors[donor] = value
    return donors


_SHAPE_ERROR = re.compile(r"dot_general|[Ii]ncompatible shapes|broadcast|contracting|matmul|concat")
"""Words of JAX's messages on shapes."""

_EQUAL = (4, 5)
"""With all sizes equal, the shapes of any formula fit."""


def diagnose_shapes(claim: Claim, error: BaseException, where: str) -> tuple[Finding, ...]:
    """Names the mistake in a formula that fails at distinct sizes.

    Args:
      claim: the claim.
      error: raised by the formula.
      where: the line of the error.

    Returns:
      ``shape``, and ``transpose`` if transposing one or two factors makes the formula right.
      Nothing if the formula fails at equal sizes, too, with an error that does not name shapes.
    """
    text = " ".join(str(error).split())[:200]
    try:
        first, second = (_transpositions(claim, size) for size in _EQUAL)
    except FormulaError:
        if isinstance(error, TypeError | ValueError) and _SHAPE_ERROR.search(text):
            return (Finding("shape", where, f"the shapes do not fit: {text}"),)
        return ()
    shape = Finding("shape", where, f"the shapes fit only if all sizes are equal: {text}")
    both = [places for places in first if places in second]
    fewest = [places for places in both if len(places) == min(map(len, both))]
    if len(fewest) != 1:
        return (shape,)
    places = ", ".join(fewest[0])
    detail = f"the formula is right with the factor transposed in {places}"
    return (shape, Finding("transpose", places, detail))


def _transpositions(claim: Claim, size: int) -> list[tuple[str, ...]]:
    """The lines of products whose factors, transposed, make the formula right."""
    sizes = dict.fromkeys(symbols(claim.inputs), size)
    try:
        formula = build_graph(claim.evaluate, one_trial(claim, sizes))
    except Exception as error:
        raise FormulaError from error
    drawn = draw(dict(claim.inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    point = jax.tree.map(lambda value: jnp.asarray(value[0]), drawn)
    true = jax.tree.leaves(reference(claim)(point))
    places = [
        (position, place)
        for position, node in enumerate(formula.nodes)
        if node.primitive.name == "dot_general"
        for place, name in enumerate(node.operands)
        if formula.shapes[name].shape == (size, size)
    ]

    def makes_right(chosen: tuple[Place, ...]) -> bool:
        values = evaluate(
            formula,
            jax.tree.leaves(point),
            lambda place, value: jnp.transpose(value) if place in chosen else value,
        )
        return len(values) == len(true) and all(
            a.shape == b.shape and jnp.allclose(a, b, rtol=1e-9, atol=1e-12)
            for a, b in zip(values, true, strict=True)
        )

    chosen = (*combinations(places, 1), *combinations(places, 2))
    right = filter(makes_right, chosen)
    return [tuple(formula.nodes[position].where for position, _ in some) for some in right]
