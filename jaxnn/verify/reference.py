"""What a claim is compared with: derivatives of ``of`` by forward and by reverse mode."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, call, learning_rate_name, with_path
from jaxnn.verify.graph import by_primitives

Inputs = Mapping[str, PyTree]


def reference(
    claimed: Claim, mode: str = "reverse", of: Callable[..., PyTree] | None = None
) -> Callable[[Inputs], PyTree]:
    """The true counterpart of the formula, as a function of the inputs.

    Args:
      claimed: the claim.
      mode: of autodiff, ``forward`` or ``reverse``.
      of: a function of the inputs in place of the claim's, such as one term of it.

    Returns:
      A function from the inputs to arrays in this package's layout, in a tuple if the claim has
      several ``wrt``; ``expected_value`` says whether ``of`` has the shape that takes.
    """
    function = of or _plain(claimed)
    if claimed.kind == "value":
        return function

    def true(inputs: Inputs) -> PyTree:
        parts = tuple(at_path(inputs, path) for path in claimed.wrt)

        def of_parts(parts: tuple[PyTree, ...]) -> PyTree:
            replaced = inputs
            for path, part in zip(claimed.wrt, parts, strict=True):
                replaced = with_path(replaced, path, part)
            return function(replaced)

        result = _DERIVATIVES[claimed.kind](claimed, of_parts, parts, mode, inputs)
        return result[0] if claimed.single else result

    return true


@lru_cache(maxsize=32)
def _plain(claimed: Claim) -> Callable[[Inputs], PyTree]:
    return by_primitives(lambda inputs: call(claimed.of, inputs))


def is_rule(claimed: Claim, inputs: Inputs) -> bool:
    """Whether the ``of`` of an update is the rule itself, rather than an objective."""
    if claimed.kind != "update":
        return False
    value = jax.eval_shape(lambda inputs: call(claimed.of, inputs), inputs)
    parts = [at_path(inputs, path) for path in claimed.wrt]
    shapes = [leaf.shape for leaf in jax.tree.leaves(value)]
    same = shapes == [jnp.shape(leaf) for leaf in jax.tree.leaves(parts)]
    return same and (learning_rate_name(claimed) is None or shapes != [()])


def gradient(of_parts: Callable[..., Any], parts: PyTree, mode: str) -> PyTree:
    """The gradient of a scalar function by a tree, in either mode."""
    return _either(jax.grad, mode)(of_parts)(parts)


def _either(reverse: Callable[..., Any], mode: str) -> Callable[..., Any]:
    """The transform of a mode; forward mode where the function has a loop without a reverse."""

    def transform(function: Callable[..., Any]) -> Callable[..., Any]:
        def derivative(parts: PyTree) -> PyTree:
            if mode == "reverse":
                try:
                    return reverse(function)(parts)
                except ValueError as error:
                    if "Reverse-mode differentiation does not work" not in str(error):
                        raise
            return jax.jacfwd(function)(parts)

        return derivative

    return transform


def _gradient(claimed: Claim, of_parts, parts, mode, inputs) -> PyTree:
    del claimed, inputs
    return gradient(of_parts, parts, mode)


def _jacobian(claimed: Claim, of_parts, parts, mode, inputs) -> PyTree:
    del claimed, inputs
    return _either(jax.jacrev, mode)(of_parts)(parts)


def _hessian(claimed: Claim, of_parts, parts, mode, inputs) -> PyTree:
    del inputs
    result = _either(jax.jacrev, mode)(lambda parts: gradient(of_parts, parts, mode))(parts)
    return tuple(row[0] for row in result) if claimed.single else result


def expected_value(claimed: Claim, one: Inputs) -> None:
    """Refuses an ``of`` whose value has not the shape that the claim's kind needs.

    Raises:
      ValueError: not a scalar for a gradient, Hessian or update, or not one array for a Jacobian.
    """
    value = jax.eval_shape(_plain(claimed), one)
    shape = getattr(value, "shape", None)
    described = type(value).__name__ if shape is None else f"shape {shape}"
    if claimed.kind == "jacobian" and shape is None:
        raise ValueError(f"of returns {described}, expected one array to take a Jacobian of")
    scalar = claimed.kind in ("gradient", "hessian") or (
        claimed.kind == "update" and not is_rule(claimed, one)
    )
    if scalar and shape != ():
        raise ValueError(f"of returns {described}, expected a scalar to take a gradient of")


def _update(claimed: Claim, of_parts, parts, mode, inputs) -> PyTree:
    if is_rule(claimed, inputs):
        value = of_parts(parts)
        return (value,) if claimed.single else value
    rate_name = learning_rate_name(claimed)
    if rate_name is None:
        raise ValueError(
            f"of is the objective of an update, expected rate= to name its learning rate among "
            f"the inputs {', '.join(claimed.inputs)}"
        )
    rate = inputs[rate_name]
    slopes = gradient(of_parts, parts, mode)
    return jax.tree.map(lambda part, slope: part - rate * slope, parts, slopes)


_DERIVATIVES = {
    "gradient": _gradient,
    "jacobian": _jacobian,
    "hessian": _hessian,
    "update": _update,
}
