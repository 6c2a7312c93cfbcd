"""A formula whose shapes do not fit: which factor would have to be transposed?"""

import re
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import one_trial
from jaxnn.verify.failures import FormulaError
from jaxnn.verify.graph import Graph, Node, apply, trace
from jaxnn.verify.inputs import draw, symbols
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

_OF_SHAPES = re.compile(r"dot_general|[Ii]ncompatible shapes|broadcast|contracting|matmul|concat")
"""What JAX says of shapes that do not fit."""

_EQUAL = (4, 5)
"""With all sizes equal, any formula's shapes fit."""


def diagnose_shapes(claimed: Claim, error: BaseException, where: str) -> tuple[Finding, ...]:
    """What is wrong with a formula that cannot be evaluated at distinct sizes.

    Args:
      claimed: the claim.
      error: what it raised.
      where: the line it raised it in.

    Returns:
      Nothing if the shapes are not to blame: it cannot be evaluated at equal sizes either, and the
      error does not speak of shapes. Otherwise ``shape``, and ``transpose`` if transposing one or
      two factors makes it right.
    """
    text = " ".join(str(error).split())[:200]
    try:
        found = [_repairs(claimed, size) for size in _EQUAL]
    except FormulaError:
        if isinstance(error, TypeError | ValueError) and _OF_SHAPES.search(text):
            return (Finding("shape", where, f"the shapes do not fit: {text}"),)
        return ()
    shape = Finding("shape", where, f"the shapes fit only if all sizes are equal: {text}")
    both = [repair for repair in found[0] if repair in found[1]]
    fewest = [repair for repair in both if len(repair) == min(map(len, both))]
    if len(fewest) != 1:
        return (shape,)
    places = ", ".join(fewest[0])
    return (shape, Finding("transpose", places, f"right with the factor transposed in {places}"))


def _repairs(claimed: Claim, size: int) -> list[tuple[str, ...]]:
    """The products whose factors, transposed, make the formula right."""
    sizes = dict.fromkeys(symbols(claimed.inputs), size)
    one = one_trial(claimed, sizes)
    try:
        formula = trace(claimed.evaluate, one)
    except Exception as error:
        raise FormulaError from error
    drawn = draw(dict(claimed.inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    point = jax.tree.map(lambda value: jnp.asarray(value[0]), drawn)
    true = jax.tree.leaves(reference(claimed)(point))
    flat = jax.tree.leaves(point)
    places = [
        (position, place)
        for position, node in enumerate(formula.nodes)
        if node.primitive.name == "dot_general"
        for place, name in enumerate(node.operands)
        if formula.shapes[name].shape == (size, size)
    ]
    right = []
    for count in (1, 2):
        for chosen in combinations(places, count):
            values = _transposing(formula, set(chosen), flat)
            if len(values) == len(true) and all(map(_equal, values, true)):
                right.append(tuple(formula.nodes[position].where for position, _ in chosen))
    return right


def _transposing(graph: Graph, chosen: set[tuple[int, int]], arguments: Sequence[Any]) -> list[Any]:
    """The graph's outputs with some operands transposed."""
    values = {**graph.constants, **dict(zip(graph.inputs, arguments, strict=True))}

    def operands(position: int, node: Node) -> list[Any]:
        return [
            jnp.transpose(values[name]) if (position, place) in chosen else values[name]
            for place, name in enumerate(node.operands)
        ]

    for position, node in enumerate(graph.nodes):
        values.update(zip(node.results, apply(node, operands(position, node)), strict=True))
    return [values[name] for name in graph.outputs]


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(jnp.allclose(a, b, rtol=1e-9, atol=1e-12))
