"""The reference of a claim: derivatives of ``of`` by forward and by reverse mode."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import PyTree
from jaxnn.verify.claims import (
    Claim,
    at_path,
    call,
    learning_rate_name,
    refuse_complex,
    with_path,
)
from jaxnn.verify.graph import by_primitives

Inputs = Mapping[str, PyTree]


def reference(
    claim: Claim, mode: str = "reverse", of: Callable[..., PyTree] | None = None
) -> Callable[[Inputs], PyTree]:
    """Autodiff's result for a claim, as a function of the inputs.

    Args:
      claim: the claim; ``check_value_shape`` tells whether its ``of`` has a value to derive.
      mode: of autodiff, ``forward`` or ``reverse``.
      of: a function of the inputs in place of the claim's, such as one term of the objective.

    Returns:
      A function to arrays in jaxnn's layout, in a tuple if the claim has several ``wrt``.
    """
    function = of or of_by_primitives(claim)
    if claim.kind == "value":
        return function

    def derivative(inputs: Inputs) -> PyTree:
        parts = tuple(at_path(inputs, path) for path in claim.wrt)

        def of_parts(parts: tuple[PyTree, ...]) -> PyTree:
            replaced = inputs
            for path, part in zip(claim.wrt, parts, strict=True):
                replaced = with_path(replaced, path, part)
            return function(replaced)

        gradient = partial(_derivative, mode, jax.grad, of_parts)
        if claim.kind in ("gradient", "vjp"):
            result = gradient(parts)
        elif claim.kind == "jacobian":
            result = _derivative(mode, jax.jacrev, of_parts, parts)
        elif claim.kind == "hessian":
            rows = _derivative(mode, jax.jacrev, gradient, parts)
            result = tuple(row[0] for row in rows) if claim.single else rows
        elif is_rule(claim, inputs):
            return of_parts(parts)
        else:
            rate = inputs[_rate(claim)]
            result = jax.tree.map(lambda part, slope: part - rate * slope, parts, gradient(parts))
        return result[0] if claim.single else result

    return derivative


@lru_cache(maxsize=32)
def of_by_primitives(claim: Claim) -> Callable[[Inputs], PyTree]:
    """The claim's ``of`` without custom derivative rules, as a function of the inputs."""
    return by_primitives(lambda inputs: call(claim.of, inputs))


def is_rule(claim: Claim, inputs: Inputs) -> bool:
    """Whether the ``of`` of an update is the update rule, rather than an objective."""
    if claim.kind != "update":
        return False
    value = jax.eval_shape(lambda inputs: call(claim.of, inputs), inputs)
    parts = [at_path(inputs, path) for path in claim.wrt]
    shapes = [leaf.shape for leaf in jax.tree.leaves(value)]
    same = shapes == [jnp.shape(leaf) for leaf in jax.tree.leaves(parts)]
    return same and (learning_rate_name(claim) is None or shapes != [()])


def _derivative(
    mode: str, reverse: Callable[..., Any], function: Callable[..., Any], parts: PyTree
) -> PyTree:
    """The derivative in a mode; forward mode for functions with loops that cannot be reversed."""
    if mode == "reverse":
        try:
            return reverse(function)(parts)
        except ValueError as error:
            if "Reverse-mode differentiation does not work" not in str(error):
                raise
    return jax.jacfwd(function)(parts)


def check_value_shape(claim: Claim, one: Inputs) -> None:
    """Refuses an ``of`` whose value has the wrong shape for the claim's kind.

    Raises:
      ValueError: a gradient, Hessian or update needs a scalar, a Jacobian needs one array; real.
    """
    value = jax.eval_shape(of_by_primitives(claim), one)
    refuse_complex("of", value)
    shape = getattr(value, "shape", None)
    described = type(value).__name__ if shape is None else f"shape {shape}"
    if claim.kind == "jacobian" and shape is None:
        raise ValueError(f"of returns {described}, expected one array to take a Jacobian of")
    scalar = claim.kind in ("gradient", "hessian", "vjp") or (
        claim.kind == "update" and not is_rule(claim, one)
    )
    if scalar and shape != ():
        raise ValueError(f"of returns {described}, expected a scalar to take a gradient of")


def _rate(claim: Claim) -> str:
    name = learning_rate_name(claim)
    if name is None:
        raise ValueError(
            f"of is the objective of an update, expected rate= to name its learning rate among "
            f"the inputs {', '.join(claim.inputs)}"
        )
    return name
