"""The plain gradient checker: centred differences at a point, and blind spots."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxnn.types import PyTree, as_array, require_number, require_type
from jaxnn.verify.black_box import as_numpy, as_plain, as_tensor, changed, in_a_language
from jaxnn.verify.comparison import norms
from jaxnn.verify.graph import LAPACK, build_graph, evaluate, jit, primitives, summed_lengths
from jaxnn.verify.verdict import Worst

CHUNK = 2**18
"""The most numbers in points evaluated at once: as many as a core's cache holds."""


FEW = 10
"""Roundings in a value of the function."""

ROOM = 1024
"""Floats between x and x + h at least: the spacing of large x is larger than a small step."""

FACTOR, SMALLER, LARGER = 8.0, 4, 6
"""Ratio and numbers of the smaller and the larger steps that are tried."""


NAIVE = 1e-5
"""The relative error, per entry, above which ``gradcheck_naive`` fails a gradient."""


class Blind(NamedTuple):
    """A mistake in the gradient that a check cannot see at the point."""

    code: str  # resolution, entry, sign, order, branch, kink, mean, rows or factor
    where: str  # the entry, the array or the line
    detail: str  # a sentence


class GradientCheck(NamedTuple):
    """The distance of a gradient from centred differences."""

    passed: bool
    error: float  # by norm, relative to the differences, beyond rounding
    worst: Worst  # true: the difference quotient; one_sided: the slopes on both sides of a kink
    outcome: str = "passed"  # passed, failed, kink or cannot tell
    detail: str = ""  # a sentence: the kink, or what hides the difference
    blind: tuple[Blind, ...] = ()  # mistakes that would have passed
    naive: str = ""  # a sentence: gradcheck_naive of S4.6 at the same gradient


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
    for kinks beside x and fast oscillations. Mistakes that vanish at x pass: ``blind`` lists which.
    ``verify`` tries many inputs, names the mistake, and tells where a right formula overflows.

    Args:
      f: a function from x to a scalar, of ``jax.numpy``, or plain Python: NumPy with loops and
        writes, SciPy, PyTorch. What JAX cannot trace is called point by point, with copies of x.
      x: the point, an array or a tree of arrays or tensors.
      gradient: a function of x or the value at x, shaped like x; default: ``jax.grad(f)``.
      step: h, in units of x; at least 1024 times the spacing of the floats at x.
      tolerance: the largest error that passes.

    Returns:
      Whether the gradient passed, the error by norm, and the worst entry. ``outcome`` is
      ``cannot tell`` where rounding hides the difference, or where f is not finite beside x, and
      ``kink`` where f has no derivative at x. ``blind`` has the mistakes invisible at the
      point, ``naive`` the answer of the checker of S4.6.

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
        point, function = _read(f, x)
        stated = _stated(function, gradient, point)
        shapes, expected = (str(jax.tree.map(jnp.shape, tree)) for tree in (stated, point))
        if shapes != expected:
            raise ValueError(f"the gradient has shape {shapes}, expected that of x: {expected}")
        value = np.asarray(ravel_pytree(stated)[0])
        at = _differences(function, point, step)
        check = _compared(point, value, at, tolerance)
        blind = tuple(_blind_spots(function, point, value, at, tolerance))
        detail = "; ".join(filter(None, [check.detail, function.notes]))
        return check._replace(
            detail=detail, blind=blind, naive=_naive(check, point, value, at(1.0))
        )


class Function:
    """A function of a point: traced by JAX, or called with copies of the point."""

    def __init__(self, f: Callable[[Any], Any], program: Any, given: Callable[[Any], Any]):
        self.f, self.program, self.given = f, program, given
        self.written: dict[str, None] = {}

    @property
    def notes(self) -> str:
        """The functions with writes into x, in a sentence."""
        writers = " and ".join(self.written)
        return writers and f"{writers} writes into x: every call gets a copy"

    def called(self, name: str, f: Callable[[Any], Any], point: PyTree) -> Any:
        """The value of plain code, with arrays for tensors."""
        copies = jax.tree.map(self.given, point)
        with np.errstate(all="ignore"):
            value = jax.tree.map(as_plain, f(copies))
        if changed({"x": point}, {"x": copies}):
            self.written[name] = None
        return value

    def number(self, point: PyTree) -> float:
        """The value of f at a point.

        Raises:
          ValueError: the value is no scalar in float64.
        """
        value = np.asarray(self.called("f", self.f, point))
        if value.shape != () or value.dtype.kind not in "fiub":
            kind = f"shape {value.shape}" if value.dtype.kind in "fiub" else f"type {value.dtype}"
            raise ValueError(f"f returns {kind}, expected a scalar")
        if value.dtype.kind == "f" and value.dtype != np.float64:
            raise ValueError(f"f returns {value.dtype} for x in float64, expected float64")
        return float(value)


def _stated(
    function: Function, gradient: Callable[[Any], PyTree] | PyTree | None, point: PyTree
) -> PyTree:
    """The gradient to be checked, as arrays."""
    if gradient is None:
        if not function.program:
            raise ValueError("gradient is None, expected the gradient: JAX does not trace f")
        gradient = jax.grad(function.f)
    if callable(gradient):
        try:
            gradient = gradient(point)
        except Exception:
            gradient = function.called("the gradient", gradient, point)
    return _arrays("the gradient", jax.tree.map(as_plain, gradient))


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
        larger = [at(FACTOR**k) for k in range(1, LARGER + 1)]
        if _vanishes(value, first, larger, tolerance):
            return _among_larger(value, first, larger, tolerance, checked)
        smaller = [at(FACTOR**-k) for k in range(1, SMALLER + 1)]
        bent = _bent([first, *smaller])
        curved = not _error(smaller[0].centred, first) <= tolerance
        for found in smaller if curved or np.any(bent) else ():
            if _error(value, found) <= tolerance and _resolves(value, found, tolerance):
                return checked(found, "passed", _beside(point, first, found))
        return _failed(point, value, first, smaller[-1], bent, tolerance, checked)
    if _resolves(value, first, tolerance):
        return checked(first, "passed")
    larger = [at(FACTOR**k) for k in range(1, LARGER + 1)]
    return _among_larger(value, first, larger, tolerance, checked)


def _vanishes(
    value: np.ndarray, first: Differences, larger: Sequence[Differences], tolerance: float
) -> bool:
    """Whether gradient and differences are nothing beside the slopes around, as at a minimum.

    The differences are then the truncation of the series, which is compared at larger steps.
    """
    around = max((found.one_sided for found in larger), default=0.0)
    return bool(np.max(norms(np.stack([value, first.centred]))) <= tolerance**2 * around)


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


def _differences(function: Function, point: PyTree, step: float) -> Callable[[float], Differences]:
    """The difference quotients of all entries, as a function of a factor of the step."""
    flat, unflatten = ravel_pytree(point)
    values, here = _values(function, flat, unflatten)
    x = np.asarray(flat)
    spacing = np.spacing(np.abs(x))

    @cache
    def at(factor: float) -> Differences:
        width = np.maximum(step * min(factor, 1.0), ROOM * spacing) * max(factor, 1.0)
        above, below = x + width, x - width
        ahead, behind = values(above), values(below)
        up, down = above - x, x - below  # not h: x + h and x - h are rounded too
        with np.errstate(all="ignore"):
            centred = (ahead - behind) / (up + down)
            left, right = (here - behind) / down, (ahead - here) / up
            largest = np.max(np.maximum(np.abs(ahead), np.abs(behind)) / width)
            uneven = np.abs(right - left) * np.abs(up - down) / (up + down)
        rounding = FEW * np.finfo(float).eps * float(largest) * x.size**0.5
        rounding += 2 * float(norms(np.nan_to_num(uneven, posinf=0.0)[None])[0])
        return Differences(step * factor, centred, left, right, rounding)

    return at


def _values(
    function: Function, flat: jax.Array, unflatten: Callable[[Any], PyTree]
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """From new entries [N] to the values of f with one entry of the point replaced, [N]; f(x)."""
    if function.program is None:
        x = np.array(flat)

        def replaced(entry: int, new: float) -> float:
            moved = x.copy()
            moved[entry] = new
            return function.number(jax.tree.map(np.asarray, unflatten(moved)))

        here = function.number(jax.tree.map(np.asarray, unflatten(x)))
        if not np.array_equal(here, function.number(unflatten(x)), equal_nan=True):
            raise ValueError("f gives two values at equal inputs, expected no randomness")
        return lambda new: np.array([replaced(*pair) for pair in enumerate(new)]), here

    def values(new: jax.Array) -> jax.Array:
        def replaced(entry: jax.Array) -> jax.Array:
            return function.f(unflatten(flat.at[entry].set(new[entry])))

        return jax.lax.map(replaced, jnp.arange(flat.size), batch_size=at_once)

    at_once = min(flat.size, max(1, CHUNK // flat.size))
    looped = not LAPACK.isdisjoint(primitives(function.program))
    program = jit(values, [function.program]) if looped else jax.jit(values)
    return lambda new: np.asarray(program(new)), float(function.f(unflatten(flat)))


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


def _read(f: Callable[[Any], Any], x: PyTree) -> tuple[PyTree, Function]:
    """The point in float64, and f as a function with a scalar value."""
    tensors = any(map(_is_tensor, jax.tree.leaves(x)))
    x = _arrays("x", jax.tree.map(as_plain, x))
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(dtype := jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"x is of type {dtype}, expected floating-point numbers")
    point = jax.tree.map(partial(jnp.asarray, dtype=jnp.float64), x)
    if not any(leaf.size for leaf in jax.tree.leaves(point)):
        raise ValueError("x has no entries, expected at least one")
    if tensors:
        return jax.tree.map(np.asarray, point), _boxed(f, point, as_tensor)
    try:
        program, value = jax.make_jaxpr(f, return_shape=True)(point)
    except Exception as error:
        return jax.tree.map(np.asarray, point), in_a_language(partial(_boxed, f, point), error)
    found = f"shape {value.shape}" if hasattr(value, "shape") else type(value).__name__
    if found != "shape ()":
        raise ValueError(f"f returns {found}, expected a scalar")
    if value.dtype != jnp.float64:
        raise ValueError(f"f returns {value.dtype} for x in float64, expected float64")
    return point, Function(f, program, as_numpy)


def _boxed(f: Callable[[Any], Any], point: PyTree, given: Callable[[Any], Any]) -> Function:
    """A function that JAX does not trace, called with arrays or tensors."""
    function = Function(f, None, given)
    function.called("f", f, point)
    return function


# What a check could not have seen


def _blind_spots(
    function: Function,
    point: PyTree,
    value: np.ndarray,
    at: Callable[[float], Differences],
    tolerance: float,
) -> Iterator[Blind]:
    """The mistakes invisible at the point, with the step and the tolerance."""
    found, larger = at(1.0), at(FACTOR)
    if not (np.all(np.isfinite(found.centred)) and np.all(np.isfinite(value))):
        return
    size = float(norms(found.centred[None])[0])
    truncation = float(norms((larger.centred - found.centred)[None])[0]) / (FACTOR**2 - 1)
    limit = tolerance * size + found.rounding
    yield Blind(
        "resolution", "",
        f"errors below {limit:.1e} by norm: the norm is {size:.3g}, the tolerance {tolerance:g}, "
        f"rounding {found.rounding:.1e}; the differences are off by {truncation:.1e}",
    )  # fmt: skip
    small = np.flatnonzero(2 * np.abs(found.centred) <= limit)
    if len(small) < value.size:
        for entry in small[np.argsort(-np.abs(found.centred)[small])][:1]:
            name, many = _name(point, int(entry)), f"{len(small)} of {value.size} entries"
            detail = (
                f"{many} are below {limit:.1e}, such as {name}: a sign or a factor passes there"
            )
            yield Blind("entry", name, detail)
    for entry in np.flatnonzero(_bent([larger, found]))[:1]:
        slopes = _slopes(float(larger.left[entry]), float(larger.right[entry]))
        detail = f"f is bent within {larger.step:g}: {slopes}; another point has the other slope"
        yield Blind("kink", _name(point, int(entry)), detail)
    yield from _alike(point, value, found, tolerance)
    yield from _special_numbers({"x": point}, "x")
    yield from _special_numbers(_captured(function.f), "")
    yield from _in_program(function, point)


def _alike(
    point: PyTree, value: np.ndarray, found: Differences, tolerance: float
) -> Iterator[Blind]:
    """Other gradients pass at special points: the negative, a transpose, another order."""

    def passes(other: np.ndarray) -> bool:
        return _error(other, found) <= tolerance

    if not passes(value):
        return
    if passes(-value):
        yield Blind("sign", "", "the gradient vanishes: any multiple passes, the negative too")
        return
    start = 0
    for where, leaf in _leaves(point):
        part = slice(start, start := start + leaf.size)
        for name, change in (("transpose", np.transpose), ("reverse", np.flip)):
            other, square = value.copy(), leaf.ndim > 1 and leaf.shape == leaf.shape[::-1]
            other[part] = change(value[part].reshape(leaf.shape)).ravel()
            if leaf.size > 1 and (square or name != "transpose") and passes(other):
                detail = f"the gradient by {where} equals the {name}: another order passes"
                yield Blind("order", where, detail)


def _special_numbers(arrays: Mapping[str, PyTree], only: str) -> Iterator[Blind]:
    """Zeros, ones, equal rows and single rows, in x or in arrays of f."""
    for name, tree in arrays.items():
        for where, leaf in _leaves(tree, name):
            zeros, ones = np.count_nonzero(leaf == 0), np.all(np.abs(leaf) == 1)
            share = f"{zeros} of {leaf.size} entries" if leaf.size > 1 else "the number"
            if zeros and (only or zeros == leaf.size):
                yield Blind("factor", where, f"{share} are 0: terms with such a factor vanish")
            elif ones:
                yield Blind("factor", where, "all are 1 or -1: powers look alike")
            if only or not leaf.ndim:
                continue
            if len(leaf) == 1:
                yield Blind("mean", where, f"{where} has one row: a missing mean changes nothing")
            elif len(leaf) and np.all(leaf == leaf[0]):
                rows = f"all {len(leaf)} rows of {where} are equal"
                yield Blind("rows", where, f"{rows}: mistakes that mix examples change nothing")


def _captured(f: Callable[[Any], Any]) -> dict[str, Any]:
    """The arrays of numbers that a function uses beside x, by name."""
    named: dict[str, Any] = {}
    while isinstance(f, partial):
        named, f = {**f.keywords, **named}, f.func
    with suppress(TypeError, ValueError):  # of no Python function, or of a cell without value
        used = inspect.getclosurevars(f)
        named = {**used.globals, **used.nonlocals, **named}
    kinds = np.ndarray | jax.Array
    arrays = {n: as_plain(v) for n, v in named.items() if isinstance(v, kinds) or _is_tensor(v)}
    known = {name: np.asarray(value) for name, value in arrays.items()}
    return {name: value for name, value in known.items() if value.dtype.kind in "fiub"}


def _is_tensor(value: Any) -> bool:
    return hasattr(type(value), "detach")  # the module torch has a function detach


def _in_program(function: Function, point: PyTree) -> Iterator[Blind]:
    """Sums over one entry, and branches of comparisons without an entry."""
    if function.program is None:
        detail = "JAX does not trace f: branches not taken at x are not known"
        yield Blind("branch", "", detail)
        return
    if 1 in summed_lengths(function.program):
        yield Blind("mean", "", "f sums over an axis of length 1: a missing mean changes nothing")
    graph = build_graph(function.f, point)
    reached, switches = set(graph.inputs), []
    for node in graph.nodes:
        if reached.isdisjoint(node.operands):
            continue
        reached |= {*node.results}
        if node.primitive.name in _BRANCHES:
            switches.append(node)
    names = tuple(dict.fromkeys(name for node in switches for name in node.operands))
    values = evaluate(graph._replace(outputs=names), jax.tree.leaves(point)) if names else []
    known = dict(zip(names, map(np.asarray, values), strict=True))
    for node in switches:
        taken = np.asarray(_BRANCHES[node.primitive.name](*(known[n] for n in node.operands)))
        first, word = np.count_nonzero(taken), node.primitive.name
        sides = f"{word}: {first} entries on one side, {taken.size - first} on the other"
        if first in (0, taken.size):
            yield Blind("branch", node.where, f"{sides}, whose derivative is not seen")
        else:
            yield Blind("factor", node.where, f"{sides}; factors of a derivative of 0 vanish")


_BRANCHES: dict[str, Callable[..., Any]] = {
    "abs": lambda x: x > 0,
    "clamp": lambda low, x, high: (low < x) & (x < high),
    "max": lambda a, b: a > b,
    "min": lambda a, b: a < b,
    "select_n": lambda which, *cases: np.broadcast_to(which, cases[0].shape) != 0,
    "sign": lambda x: x > 0,
}
"""Operations with branches: the entries that take the first."""


def _naive(check: GradientCheck, point: PyTree, value: np.ndarray, found: Differences) -> str:
    """What ``gradcheck_naive`` says of the gradient: |a - b| / max(1, |a|, |b|) per entry."""
    largest = np.maximum(1.0, np.maximum(np.abs(value), np.abs(found.centred)))
    errors = np.abs(value - found.centred) / largest
    seen = np.flatnonzero(~(errors <= NAIVE))
    passed = "gradcheck_naive passes the gradient"
    rule = f"no entry is off by more than {NAIVE:g} max(1, |claimed|, |true|)"
    if not len(seen):
        blind = int(np.count_nonzero(2 * np.abs(found.centred) <= NAIVE))
        if check.passed and not blind:
            return passed
        if not check.passed:
            return f"{passed}: {rule}"
        return f"{passed}, in {blind} of {value.size} entries with any sign or factor: {rule}"
    share = f"{len(seen)} of {value.size} entries"
    at = f"gradcheck_naive fails the gradient at {share}, as at {_name(point, int(seen[0]))}"
    if check.passed:
        return f"{at}: the error is small beside the norm of the gradient"
    return (
        f"{at}; a random entry shows the mistake with a probability of {len(seen) / value.size:.1g}"
    )


def _leaves(tree: PyTree, name: str = "x") -> Iterator[tuple[str, np.ndarray]]:
    for keys, leaf in jax.tree.flatten_with_path(tree)[0]:
        yield name + jax.tree_util.keystr(keys), np.asarray(leaf)
