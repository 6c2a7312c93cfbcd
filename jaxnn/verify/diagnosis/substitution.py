"""Mistakes in the formula's graph: a value exchanged for another value, a factor not transposed.

A candidate replaces an operand of the formula by a value of the function, such as sigmoid(z) by z;
the candidate that makes the formula right names the mistake.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import Array
from jaxnn.verify.claims import Claim, call
from jaxnn.verify.comparison import FormulaError, one_trial
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value
from jaxnn.verify.diagnosis.trials import Program, Sample, same
from jaxnn.verify.graph import Graph, Name, apply, build_graph, evaluate, jit
from jaxnn.verify.inputs import draw, symbols
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

Place = tuple[int, int]
"""An operand: (position of the node, place of the operand)."""

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


class Exchange(NamedTuple):
    """A value of the formula to be exchanged for a donor."""

    name: Name  # in the formula's graph
    place: Place | None  # None: wherever the formula uses the value
    donor: Donor
    finding: Finding


def exchanges(samples: Sequence[Sample]) -> list[Finding]:
    """At most one finding: the first exchange that makes a formula right at every sample."""
    right = [_right_exchanges(sample) for sample in samples]
    return [finding for finding in right[0] if all(finding in found for found in right)][:1]


def _right_exchanges(sample: Sample) -> list[Finding]:
    candidates, run = _candidate_program(sample.program)
    if not candidates:
        return []
    leaves, true = jax.tree.map(np.asarray, run(np.eye(len(candidates)), *sample.flat))
    return [
        exchange.finding
        for row, exchange in enumerate(candidates)
        if all(same(leaf[:, row], right) for leaf, right in zip(leaves, true, strict=True))
    ]


@lru_cache(maxsize=8)
def _candidate_program(ready: Program) -> tuple[list[Exchange], Callable[..., Any]]:
    """The candidates, and (selections [S, candidates], flat inputs [T, ...]) -> leaves compiled.

    The leaves of the formula are [T, S, ...], the leaves of the reference [T, ...].
    """
    claim, shapes = ready.claim, ready.shapes
    formula = build_graph(claim.evaluate, shapes)
    function = build_graph(partial(call, claim.of), shapes)
    known = EvaluatedGraph(ready, function)
    candidates = list(_candidates(formula, known, ready.few_trials()))
    donors = list(dict.fromkeys(exchange.donor for exchange in candidates))
    wanted = function._replace(outputs=tuple(donor.name for donor in donors))

    def exchanged(selection: Array, *flat: Any) -> list[Any]:
        values = zip(donors, evaluate(wanted, flat), strict=True)
        given = {donor: donor.of(value) for donor, value in values}

        def operand(place: Place, name: Name, value: Any) -> Any:
            new = value
            for row, exchange in enumerate(candidates):
                if exchange.name == name and exchange.place in (None, place):
                    new = new + selection[row] * (given[exchange.donor] - value)
            return new

        return _evaluate(formula, flat, operand)

    def run(selections: Array, *flat: Any) -> tuple[list[Any], list[Any]]:
        inputs = jax.tree.unflatten(jax.tree.structure(shapes), flat)
        leaves = jax.vmap(lambda selection: exchanged(selection, *flat))(selections)
        return leaves, jax.tree.leaves(reference(claim)(inputs))

    return candidates, jit(jax.vmap(run, in_axes=(None, *[0] * len(formula.inputs))))


def _evaluate(
    graph: Graph, arguments: Sequence[Any], operand: Callable[[Place, Name, Any], Any]
) -> list[Any]:
    """The graph's outputs, where ``operand`` maps (place, name, value) to the value in use."""
    values = {**graph.constants, **dict(zip(graph.inputs, arguments, strict=True))}
    for position, node in enumerate(graph.nodes):
        named = enumerate(node.operands)
        operands = [operand((position, i), name, values[name]) for i, name in named]
        values.update(zip(node.results, apply(node, operands), strict=True))
    return [values[name] for name in graph.outputs]


def _candidates(
    formula: Graph, function: EvaluatedGraph, trials: Sequence[np.ndarray]
) -> Iterator[Exchange]:
    """Every operand that is a value of the function, for every other value of equal shape."""
    donors, values = _donors(function), every_value(formula, trials)
    uses: dict[Name, list[tuple[Place, str]]] = {}
    for position, node in enumerate(formula.nodes):
        for place, name in enumerate(node.operands):
            uses.setdefault(name, []).append(((position, place), node.where))
    for name in [name for name in uses if name in values]:
        value, places = values[name], uses[name]
        present = next((donor for donor, v in donors.items() if same(value, v)), None)
        if present is None or not jnp.issubdtype(value.dtype, jnp.floating):
            continue
        for donor, instead in donors.items():
            if instead.shape != value.shape or same(value, instead):
                continue
            # sigma'(h) in place of sigma'(z) has a wrong argument; z in place of h is any value.
            is_argument = not donor.function and function.roots[present.name] == donor.name
            code = "activation_derivative_wrong_argument" if is_argument else "wrong_value"
            detail = f"has {present.described(function)} where {donor.described(function)}"
            everywhere = (None, places[0][1])
            for place, line in (everywhere, *(places if len(places) > 1 else ())):
                yield Exchange(name, place, donor, Finding(code, line, f"{line} {detail} belongs"))


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
        values = _evaluate(
            formula,
            jax.tree.leaves(point),
            lambda place, name, value: jnp.transpose(value) if place in chosen else value,
        )
        return len(values) == len(true) and all(
            a.shape == b.shape and jnp.allclose(a, b, rtol=1e-9, atol=1e-12)
            for a, b in zip(values, true, strict=True)
        )

    chosen = (*combinations(places, 1), *combinations(places, 2))
    right = filter(makes_right, chosen)
    return [tuple(formula.nodes[position].where for position, _ in some) for some in right]
