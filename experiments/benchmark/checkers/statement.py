"""A claim for a gradient checker: a function and a derivative by hand, at a point."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify import Claim
from jaxnn.verify.claims import at_path, call, learning_rate_name, with_path
from jaxnn.verify.graph import jit
from jaxnn.verify.inputs import draw, draw_sizes

Inputs = Mapping[str, PyTree]
Parts = Sequence[Any]
"""The variables of differentiation, array by array."""

ORDERS = {None: "C", "vec": "F", "vec_rows": "C", "transpose": "C"}  # of a matrix as a vector


class Point(NamedTuple):
    """The place of one check."""

    parts: list[np.ndarray]
    inputs: Inputs


class Statement(NamedTuple):
    """A claim; both functions take a point's parts and inputs."""

    function: Callable[[Parts, Inputs], jax.Array]
    derivative: Callable[[Parts, Inputs], list[jax.Array]]  # by every part: [*value, *part]


def state(claim: Claim) -> Statement | None:
    """The claim as a statement about a derivative.

    A Hessian is the derivative of JAX's gradient. An update theta' states the gradient of its step,
    (theta - theta') / rate. The function of a matrix that is declared as a vector takes the vector.

    Returns:
      The statement; None for a claim about a value, which no gradient checker can judge.
    """
    if claim.kind == "value":
        return None

    def of(parts: Parts, inputs: Inputs) -> jax.Array:
        return call(claim.of, at_parts(claim, inputs, parts))

    def derivative(parts: Parts, inputs: Inputs) -> list[jax.Array]:
        claimed = jax.tree.leaves(claim.evaluate(at_parts(claim, inputs, parts)))
        if claim.kind == "update":
            rate = inputs[str(learning_rate_name(claim))]
            claimed = [(old - new) / rate for old, new in zip(parts, claimed, strict=True)]
        return [jnp.asarray(leaf, float) for leaf in claimed]

    def gradient(parts: Parts, inputs: Inputs) -> jax.Array:
        (slope,) = jax.grad(of)(parts, inputs)
        return slope

    return Statement(gradient if claim.kind == "hessian" else of, derivative)


def compiled(statement: Statement) -> Statement:
    """The statement for many evaluations."""
    return Statement(*map(jit, statement))


def at_parts(claim: Claim, inputs: Inputs, parts: Parts) -> Inputs:
    """The inputs with new values of the variables of differentiation, back in their shapes."""
    old = tuple(at_path(inputs, path) for path in claim.wrt)
    leaves, structure = jax.tree.flatten(old)
    new = [
        part.reshape(leaf.shape, order=ORDERS[claim.layout])
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    for path, value in zip(claim.wrt, jax.tree.unflatten(structure, new), strict=True):
        inputs = with_path(inputs, path, value)
    return inputs


def points(claim: Claim, count: int, seed: int) -> list[Point]:
    """Random points of equal sizes, drawn by ``jaxnn.verify``; matrices as the claim declares."""
    sizes = draw_sizes(claim.inputs, seed)
    drawn = draw(dict(claim.inputs), sizes, count, np.random.default_rng(seed))
    found = []
    for trial in range(count):
        inputs = jax.tree.map(lambda value, trial=trial: np.asarray(value[trial]), drawn)
        leaves = jax.tree.leaves(tuple(at_path(inputs, path) for path in claim.wrt))
        if claim.layout is not None:
            leaves = [leaf.ravel(order=ORDERS[claim.layout]) for leaf in leaves]
        found.append(Point(leaves, inputs))
    return found
