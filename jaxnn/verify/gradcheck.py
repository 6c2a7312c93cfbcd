"""The plain gradient checker: centred differences at a point."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnn.types import PyTree, as_array, require_number, require_type
from jaxnn.verify.comparison import norms
from jaxnn.verify.verdict import Worst

CHUNK = 2**18
"""The most numbers in points evaluated at once: as many as a core's cache holds."""


class GradientCheck(NamedTuple):
    """The distance of a gradient from centred differences."""

    passed: bool
    error: float  # by norm, relative to the differences, beyond rounding
    worst: Worst  # true: the difference quotient


def gradcheck(
    f: Callable[[Any], Any],
    x: PyTree,
    gradient: Callable[[Any], PyTree] | PyTree | None = None,
    *,
    step: float = 1e-5,
    tolerance: float = 1e-5,
) -> GradientCheck:
    """Compares a gradient with centred differences of the function, at a point, in float64.

    df/dx_i = (f(x + h e_i) - f(x - h e_i)) / 2h + O(h^2), every entry in the same program.

    The differences have an error of h^2 f'''/6 + eps |f| / h; smaller mistakes pass, and so do
    mistakes that vanish at x. ``verify`` tries many inputs, names the mistake, and tells where a
    right formula overflows.

    Args:
      f: a function from x to a scalar.
      x: the point, an array or a tree of arrays.
      gradient: a function of x or the value at x, shaped like x; default: ``jax.grad(f)``.
      step: h, in units of x.
      tolerance: the largest error that passes.

    Returns:
      Whether the gradient passed, the error by norm, and the worst entry.

    Raises:
      ValueError: f, x or the gradient has the wrong shape or type.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import gradcheck
      >>> def cubes(x):
      ...     return jnp.sum(x**3)
      >>> x = jnp.array([1.0, 2.0])
      >>> gradcheck(cubes, x).passed
      True
      >>> check = gradcheck(cubes, x, lambda x: 3 * x)
      >>> check.passed, check.worst.index, round(check.worst.true, 6)
      (False, (1,), 12.0)

    Source: S4.6, ``gradcheck_naive``.
    """
    for name, value in (("step", step), ("tolerance", tolerance)):
        require_number(name, value, "a number between 0 and 1", lambda v: 0 < v < 1)
    require_type(callable(f), "f", f, "a function of x")
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        point = _point(f, x)
        gradient = jax.grad(f) if gradient is None else gradient
        stated = gradient(point) if callable(gradient) else gradient
        stated = _arrays("the gradient", stated)
        shapes, expected = (str(jax.tree.map(jnp.shape, tree)) for tree in (stated, point))
        if shapes != expected:
            raise ValueError(f"the gradient has shape {shapes}, expected that of x: {expected}")
        value = np.asarray(ravel_pytree(stated)[0])
        reference, rounding = _differences(f, point, step)
    distance, size = norms(np.stack([value - reference, reference]))
    beyond = np.maximum(0.0, distance - rounding)  # NaN stays NaN and fails
    error = float(beyond / (size + np.finfo(float).tiny))
    return GradientCheck(error <= tolerance, error, _worst(point, value, reference))


def _differences(f: Callable[[Any], Any], point: PyTree, step: float) -> tuple[np.ndarray, float]:
    """The difference quotients of all entries, and the norm of the rounding errors."""
    flat, unflatten = ravel_pytree(point)

    def slope(entry):
        above, below = flat.at[entry].add(step), flat.at[entry].add(-step)
        ahead, behind = f(unflatten(above)), f(unflatten(below))
        # Not 2h: x + h and x - h are rounded too.
        return (ahead - behind) / (above[entry] - below[entry]), jnp.abs(ahead)

    at_once = min(flat.size, max(1, CHUNK // flat.size))
    slopes, values = jax.lax.map(slope, jnp.arange(flat.size), batch_size=at_once)
    few = 10  # roundings in a value of f
    rounding = few * np.finfo(float).eps * float(jnp.max(values)) / step
    return np.asarray(slopes), rounding * flat.size**0.5


def _worst(point: PyTree, value: np.ndarray, reference: np.ndarray) -> Worst:
    """The entry with the largest distance, or not finite."""
    entry = int(np.argmax(np.abs(value - reference)))
    places = (
        ("x" + jax.tree_util.keystr(keys), index)
        for keys, leaf in jax.tree.flatten_with_path(point)[0]
        for index in np.ndindex(leaf.shape)
    )
    return Worst(*next(islice(places, entry, None)), float(value[entry]), float(reference[entry]))


def _arrays(name: str, tree: PyTree) -> PyTree:
    """The tree with arrays as leaves; a list of numbers is an array."""
    if isinstance(tree, list) and not any(isinstance(leaf, list | tuple) for leaf in tree):
        scalars = all(np.ndim(leaf) == 0 and np.isscalar(leaf) for leaf in tree)
        tree = np.array(tree) if tree and scalars else tree
    return jax.tree.map(partial(as_array, name), tree)


def _point(f: Callable[[Any], Any], x: PyTree) -> PyTree:
    """The point in float64, if f has a scalar value there."""
    x = _arrays("x", x)
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"x is of type {dtype}, expected floating-point numbers")
    point = jax.tree.map(partial(jnp.asarray, dtype=jnp.float64), x)
    if not any(leaf.size for leaf in jax.tree.leaves(point)):
        raise ValueError("x has no entries, expected at least one")
    try:
        value = jax.eval_shape(f, point)
    except jax.errors.JAXTypeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"f is no function of jax.numpy alone, as expected: {reason}") from error
    found = f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
    if found != "shape ()":
        raise ValueError(f"f returns {found}, expected a scalar")
    if value.dtype != jnp.float64:
        raise ValueError(f"f returns {value.dtype} for x in float64, expected float64")
    return point
