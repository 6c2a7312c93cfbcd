"""An objective as a sum of parts: the data's, and the penalty on the parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, call, with_path
from jaxnn.verify.graph import Graph, Name, combined, evaluate, trace
from jaxnn.verify.inputs import is_input
from jaxnn.verify.quick import jit


class Term(NamedTuple):
    """One summand of the objective."""

    name: str
    graph: Graph
    penalty: bool  # depends on nothing but the parameters and scalars, and on the former as x^2


def split(claimed: Claim, one: Mapping[str, PyTree]) -> list[Term]:
    """The terms of a claim's objective: those it names, or the summands of ``of``.

    Args:
      claimed: the claim.
      one: the shapes of its inputs.

    Returns:
      Terms, those that are not penalties joined to one unless the claim names them.
    """
    if claimed.terms is not None:
        graphs = {
            name: trace(lambda inputs, term=term: call(term, inputs), dict(one))
            for name, term in claimed.terms.items()
        }
        return [Term(n, g, _is_penalty(claimed, one, g)) for n, g in graphs.items()]
    whole = trace(lambda inputs: call(claimed.of, inputs), dict(one))
    if claimed.kind in ("value", "jacobian") or len(whole.outputs) != 1:
        return [Term("", whole, False)]
    summands = list(_summands(whole, whole.outputs[0], 1.0))
    penalties = [s for s in summands if _is_penalty(claimed, one, combined(whole, [s]))]
    data = [s for s in summands if s not in penalties]
    if not penalties or not data:
        return [Term("", whole, False)]
    return [
        Term("the data term", combined(whole, data), False),
        Term("the penalty", combined(whole, penalties), True),
    ]


def _summands(graph: Graph, name: Name, sign: float):
    """The values whose signed sum an output is."""
    node = next((node for node in graph.nodes if name in node.results), None)
    kind = node.primitive.name if node else ""
    if node is None or graph.shapes[name].shape != ():
        yield name, sign
    elif kind in ("convert_element_type", "copy"):
        yield from _summands(graph, node.operands[0], sign)
    elif kind == "neg":
        yield from _summands(graph, node.operands[0], -sign)
    elif kind in ("add", "sub"):
        yield from _summands(graph, node.operands[0], sign)
        yield from _summands(graph, node.operands[1], -sign if kind == "sub" else sign)
    else:
        yield name, sign


def _is_penalty(claimed: Claim, one: Mapping[str, PyTree], graph: Graph) -> bool:
    """Whether only parameters and scalars enter, and a doubled parameter counts four times."""
    names = jax.tree.leaves(
        {name: jax.tree.map(lambda _, n=name: n, part) for name, part in one.items()}
    )
    parameters = {path.split(".")[0].split("[")[0] for path in claimed.wrt}
    used = _used(graph)
    shapes = [graph.shapes[name].shape for name in graph.inputs]
    inside = [n for n, on in zip(names, used, strict=True) if on and n in parameters]
    others = [
        n
        for n, shape, on in zip(names, shapes, used, strict=True)
        if on and n not in parameters and shape != ()
    ]
    if not inside or others:
        return False
    rng = np.random.default_rng(0)
    pairs = []
    for name, value in zip(names, graph.inputs, strict=True):
        shape = graph.shapes[value]
        drawn = rng.uniform(0.5, 1.5, size=shape.shape).astype(shape.dtype)
        pairs.append(np.stack([drawn, 2 * drawn if name in parameters else drawn]))
    once, twice = jit(jax.vmap(lambda *flat: evaluate(graph, flat)[0]))(*pairs)
    return bool(np.isclose(4 * once, twice, rtol=1e-9, atol=0.0)) and bool(once != 0)


def _used(graph: Graph) -> list[bool]:
    """Per input, whether the outputs depend on it."""
    needed = set(graph.outputs)
    for node in reversed(graph.nodes):
        if needed & set(node.results):
            needed |= set(node.operands)
    return [name in needed for name in graph.inputs]


def active_inputs(claimed: Claim) -> list[bool]:
    """Per flat input, whether the derivative is by it."""
    marks: Any = jax.tree.map(lambda _: False, dict(claimed.inputs), is_leaf=is_input)
    for path in claimed.wrt:
        part = jax.tree.map(lambda _: True, at_path(claimed.inputs, path), is_leaf=is_input)
        marks = with_path(marks, path, part)
    return jax.tree.leaves(marks)
