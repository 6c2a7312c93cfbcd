"""The plain gradient checker: centred differences at a point."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnn.types import PyTree, as_array, require_number, require_type
from jaxnn.verify.comparison import norms
from jaxnn.verify.graph import LAPACK, jit, primitives
from jaxnn.verify.verdict import Worst

CHUNK = 2**18
"""The most numbers in points evaluated at once: as many as a core's cache holds."""


FEW = 10
"""Roundings in a value of the function."""

ROOM = 1024
"""Floats between x and x + h at least: the spacing of large x is larger than a small step."""

FACTOR, SMALLER, LARGER = 8.0, 4, 6
"""Ratio and numbers of the smaller and the larger steps that are tried."""


class GradientCheck(NamedTuple):
    """The distance of a gradient from centred differences."""

    passed: bool
    error: float  # by norm, relative to the differences, beyond rounding
    worst: Worst  # true: the difference quotient; one_sided: the slopes on both sides of a kink
    outcome: str = "passed"  # passed, failed, kink or cannot tell
    detail: str = ""  # a sentence: the kink, or what hides the difference


class Differences(NamedTuple):
    """Difference quotients of every entry at a step, and the norms of their errors."""

    step: float
    centred: np.ndarray  # [N]
    left: np.ndarray
    right: np.ndarray
    rounding: float

    @property
    def one_sided(self) -> float:
        """The largest slope on either side, by norm."""
        sides = np.nan_to_num(np.stack([self.left, self.right]), posinf=0.0, neginf=0.0)
        return float(np.max(norms(sides)))


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

    The differences have an error of h^2 f'''/6 + eps |f| / h. Where eps |f| / h hides differences
    of the size of the tolerance, larger steps are tried; where the gradient fails, smaller steps,
    which leave a kink beside x outside. Mistakes that vanish at x pass. ``verify`` tries many
    inputs, names the mistake, and tells where a right formula overflows.

    Args:
      f: a function from x to a scalar.
      x: the point, an array or a tree of arrays.
      gradient: a function of x or the value at x, shaped like x; default: ``jax.grad(f)``.
      step: h, in units of x; at least 1024 times the spacing of the floats at x.
      tolerance: the largest error that passes.

    Returns:
      Whether the gradient passed, the error by norm, and the worst entry. ``outcome`` is
      ``cannot tell`` where rounding hides the difference, or where f is not finite beside x, and
      ``kink`` where f has no derivative at x.

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
        return _compared(point, value, _differences(f, point, step), tolerance)


def _compared(
    point: PyTree,
    value: np.ndarray,
    at: Callable[[float], Differences],
    tolerance: float,
) -> GradientCheck:
    """The outcome at the step, else at a smaller or larger step that decides."""

    def checked(found: Differences, outcome: str, detail: str = "") -> GradientCheck:
        error, worst = _error(value, found), _worst(point, value, found.centred)
        return GradientCheck(outcome == "passed", error, worst, outcome, detail)

    first = at(1.0)
    if not np.all(np.isfinite(value)):
        return checked(first, "failed")
    if not np.all(np.isfinite(first.centred)):
        return checked(first, "cannot tell", f"f is not finite within {first.step:g} of x")
    if not _error(value, first) <= tolerance:
        smaller = [at(FACTOR**-k) for k in range(1, SMALLER + 1)]
        bent = _bent([first, *smaller])
        for found in smaller if np.any(bent) else ():
            if _error(value, found) <= tolerance and _resolves(value, found, tolerance):
                return checked(found, "passed", _beside(point, first, found))
        return _failed(point, value, first, smaller[-1], bent, tolerance, checked)
    if _resolves(value, first, tolerance):
        return checked(first, "passed")
    larger = [at(FACTOR**k) for k in range(1, LARGER + 1)]
    return _among_larger(value, first, larger, tolerance, checked)


def _error(value: np.ndarray, found: Differences) -> float:
    """The distance by norm, beyond rounding, relative to the differences."""
    distance, size = norms(np.stack([value - found.centred, found.centred]))
    beyond = np.maximum(0.0, distance - found.rounding)
    return float(beyond / (size + np.finfo(float).tiny))


def _resolves(value: np.ndarray, found: Differences, tolerance: float, nearby: float = 0.0) -> bool:
    """Whether rounding is smaller than the tolerance allows beside a gradient of this size."""
    sizes = norms(np.stack([value, found.centred]))
    return found.rounding <= tolerance * max(*sizes, found.one_sided, nearby)


def _bent(steps: Sequence[Differences]) -> np.ndarray:
    """Per entry whether the function is bent within the largest step, [N].

    The slopes on both sides of a smooth point approach each other with the step.
    """
    jumps = [np.abs(found.right - found.left) for found in steps]
    bent = np.zeros(len(jumps[0]), bool)
    for jump, then, found in zip(jumps, jumps[1:], steps, strict=False):
        smooth = (then > 0.5 / FACTOR * jump) & (then < 2.0 / FACTOR * jump)
        bent |= (jump > 10 * found.rounding) & ~smooth
    return bent


def _failed(
    point: PyTree,
    value: np.ndarray,
    first: Differences,
    last: Differences,
    bent: np.ndarray,
    tolerance: float,
    checked: Callable[..., GradientCheck],
) -> GradientCheck:
    """The outcome of a gradient that differs at all steps: a kink near x, or a failure."""
    kinks = np.flatnonzero(bent & (np.abs(last.right - last.left) > 10 * last.rounding))
    elsewhere = np.array(first.centred)
    elsewhere[kinks] = value[kinks]
    if not len(kinks) or not _error(value, first._replace(centred=elsewhere)) <= tolerance:
        return checked(first, "failed")
    entry = int(kinks[np.argmax(np.abs(value - first.centred)[kinks])])
    slopes = float(first.left[entry]), float(first.right[entry])
    near = f"a kink within {last.step:.1g} of {_name(point, entry)}: {_slopes(*slopes)}"
    worst = Worst(*_place(point, entry), float(value[entry]), float(first.centred[entry]), slopes)
    return checked(first, "kink", near)._replace(worst=worst)


def _among_larger(
    value: np.ndarray,
    first: Differences,
    larger: list[Differences],
    tolerance: float,
    checked: Callable[..., GradientCheck],
) -> GradientCheck:
    """The outcome where rounding hides the difference at the first step."""
    finite = [found for found in larger if np.all(np.isfinite(found.centred))]
    nearby = max([found.one_sided for found in (first, *finite)])
    if nearby == 0 and not np.any(value):  # f does not change at all
        return checked(first, "passed")
    known = [_with_truncation(*pair) for pair in zip([first, *finite], finite, strict=False)]
    for found in known:
        if not _error(value, found) <= tolerance:
            return checked(found, "failed")
        if _resolves(value, found, tolerance, nearby):
            return checked(found, "passed")
    hidden = min((found.rounding for found in known), default=first.rounding)
    return checked(first, "cannot tell", f"rounding of f hides slopes below {hidden:.1g}")


def _with_truncation(found: Differences, larger: Differences) -> Differences:
    """Differences with their truncation, h^2 f'''/6, among the errors.

    The differences at 8 h differ by 63 times the truncation at h, here divided by 32 for terms of
    higher order.
    """
    apart = float(norms((larger.centred - found.centred)[None])[0])
    apart += found.rounding + larger.rounding
    return found._replace(rounding=found.rounding + apart / (FACTOR**2 / 2))


def _beside(point: PyTree, first: Differences, found: Differences) -> str:
    """A sentence on the entry whose differences a kink, or a bend, beside x changes most."""
    entry = int(np.argmax(np.abs(first.centred - found.centred)))
    slopes = _slopes(float(first.left[entry]), float(first.right[entry]))
    name = _name(point, entry)
    close = f"a kink or a bend within {first.step:g} of {name}: {slopes}"
    return f"{close}; compared with the step {found.step:.1g}"


def _slopes(left: float, right: float) -> str:
    return f"the slope is {left:.6g} on the left, {right:.6g} on the right"


def _differences(
    f: Callable[[Any], Any], point: PyTree, step: float
) -> Callable[[float], Differences]:
    """The difference quotients of all entries, as a function of a factor of the step."""
    flat, unflatten = ravel_pytree(point)
    here = f(unflatten(flat))
    spacing = jnp.asarray(np.spacing(np.abs(np.asarray(flat))))
    at_once = min(flat.size, max(1, CHUNK // flat.size))

    def slopes(factor: jax.Array) -> tuple[jax.Array, ...]:
        def slope(entry: jax.Array) -> tuple[jax.Array, ...]:
            least = jnp.maximum(step * jnp.minimum(factor, 1.0), ROOM * spacing[entry])
            width = least * jnp.maximum(factor, 1.0)
            above, below = flat.at[entry].add(width), flat.at[entry].add(-width)
            ahead, behind = f(unflatten(above)), f(unflatten(below))
            # Not 2h: x + h and x - h are rounded too.
            up, down = above[entry] - flat[entry], flat[entry] - below[entry]
            centred = (ahead - behind) / (above[entry] - below[entry])
            largest = jnp.maximum(jnp.abs(ahead), jnp.abs(behind)) / width
            return centred, (here - behind) / down, (ahead - here) / up, largest

        return jax.lax.map(slope, jnp.arange(flat.size), batch_size=at_once)

    program = jax.make_jaxpr(lambda flat: f(unflatten(flat)))(flat)
    slopes = jax.jit(slopes) if LAPACK.isdisjoint(primitives(program)) else jit(slopes, [program])

    def at(factor: float) -> Differences:
        centred, left, right, largest = map(np.asarray, slopes(jnp.asarray(factor)))
        rounding = FEW * np.finfo(float).eps * float(np.max(largest)) * flat.size**0.5
        return Differences(step * factor, centred, left, right, rounding)

    return at


def _worst(point: PyTree, value: np.ndarray, reference: np.ndarray) -> Worst:
    """The entry with the largest distance, or not finite."""
    entry = int(np.argmax(np.abs(value - reference)))
    return Worst(*_place(point, entry), float(value[entry]), float(reference[entry]))


def _place(point: PyTree, entry: int) -> tuple[str, tuple[int, ...]]:
    """The path and the index of an entry of the flat point."""
    places = (
        ("x" + jax.tree_util.keystr(keys), index)
        for keys, leaf in jax.tree.flatten_with_path(point)[0]
        for index in np.ndindex(leaf.shape)
    )
    return next(islice(places, entry, None))


def _name(point: PyTree, entry: int) -> str:
    where, index = _place(point, entry)
    return where + (str(list(index)) if index else "")


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
