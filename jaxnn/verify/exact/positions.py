"""Positions in place of numbers: primitives that move or sum numbers.

Positions are moved once per equation, or once per value of the integers that the positions depend
on. NumPy or JAX's primitive itself does the moving.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import dtypes

from jaxnn.verify.exact import Arithmetic, Numbers, Run, is_number
from jaxnn.verify.graph import parameter


def bind(eqn, *arrays, **changes) -> list[Any]:
    """The results of JAX's primitive."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = eqn.primitive.bind(*arrays, **{**eqn.params, **changes})
    results = results if eqn.primitive.multiple_results else [results]
    return [r if jax.numpy.issubdtype(r.dtype, dtypes.prng_key) else np.asarray(r) for r in results]


def positions(shape: Sequence[int], start: int = 0) -> np.ndarray:
    """An array of a shape, filled with consecutive numbers."""
    size = int(np.prod(shape, dtype=int))
    return np.arange(start, start + size).reshape(shape)


# Primitives that move numbers


def _broadcast_in_dim(eqn, x, *_):
    shape = parameter(eqn, "shape")
    kept = dict(zip(parameter(eqn, "broadcast_dimensions"), x.shape, strict=True))
    return [np.broadcast_to(x.reshape([kept.get(i, 1) for i in range(len(shape))]), shape)]


def _slice(eqn, x):
    p = eqn.params
    strides = p["strides"] or (1,) * x.ndim
    return [x[tuple(map(slice, p["start_indices"], p["limit_indices"], strides))]]


def _unchanged(eqn, *xs):
    return [x.reshape(var.aval.shape) for x, var in zip(xs, eqn.outvars, strict=True)]


def _reshape(eqn, x):
    order = eqn.params.get("dimensions")  # autodiff of a product over an axis moves the axis
    return _unchanged(eqn, x if order is None else x.transpose(order))


def _gather(eqn, x, indices):
    return bind(eqn, x, indices, **({"fill_value": -1} if is_number(eqn.invars[0]) else {}))


def _scatter(eqn, x, indices, updates):
    kept = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    params = {name: parameter(eqn, name) for name in kept}
    with jax.enable_x64(True):
        return [np.asarray(jax.lax.scatter(x, indices, updates, **params))]


BY_JAX = ("dynamic_slice", "dynamic_update_slice", "pad", "rev", "split", "tile", "unstack")

MOVEMENTS: dict[str, Callable[..., Sequence[np.ndarray]]] = {
    **dict.fromkeys(("copy", "copy_p", "device_put", "name", "optimization_barrier"), _unchanged),
    **dict.fromkeys(("squeeze", "stop_gradient"), _unchanged),
    **dict.fromkeys(BY_JAX, bind),
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda eqn, *xs: [np.concatenate(xs, parameter(eqn, "dimension"))],
    "gather": _gather,
    "reshape": _reshape,
    "scatter": _scatter,
    "select_n": lambda eqn, which, *cases: [np.choose(np.asarray(which, int), cases)],
    "slice": _slice,
    "stack": lambda eqn, *xs: [np.stack(xs, parameter(eqn, "axis"))],
    "transpose": lambda eqn, x: [x.transpose(parameter(eqn, "permutation"))],
}
"""Frequent movements are NumPy's: JAX compiles a program for every shape."""


def movement(eqn, arithmetic: Arithmetic) -> Run:
    """The rule of every primitive in ``MOVEMENTS``."""
    move = MOVEMENTS[eqn.primitive.name]
    moved = [is_number(atom) for atom in eqn.invars]
    if not any(moved):
        return lambda *arrays: move(eqn, *arrays)
    avals = [atom.aval for atom in eqn.invars]
    starts = np.cumsum([0, *[aval.size * m for aval, m in zip(avals, moved, strict=True)]])
    numbered = [
        positions(aval.shape, start) if m else None
        for aval, start, m in zip(avals, starts, moved, strict=False)
    ]
    fill = eqn.params.get("fill_value")
    filler = arithmetic.exactly(np.array(np.nan if fill is None else fill, float))

    @lru_cache(256)
    def routes(*integers: bytes) -> Sequence[np.ndarray]:
        given = iter(integers)
        return move(eqn, *(
            np.frombuffer(next(given), aval.dtype).reshape(aval.shape) if n is None else n
            for aval, n in zip(avals, numbered, strict=True)
        ))  # fmt: skip

    def run(*xs):
        targets = routes(*(x.tobytes() for x, m in zip(xs, moved, strict=True) if not m))
        pool = [x for x, m in zip(xs, moved, strict=True) if m]
        if any(np.any(route < 0) for route in targets):  # position -1: the filler
            pool.append(filler)
        joined = arithmetic.joined(pool)
        return [arithmetic.exactly(joined[route]) for route in targets]  # of a scalar an array

    return run


# Primitives that combine numbers


def folded(arithmetic: Arithmetic, name: str, initial: float, x: Numbers) -> Numbers:
    """The numbers along the first axis combined in pairs; the initial value of none."""
    if x.shape[0] == 0:
        return arithmetic.exactly(np.full(x.shape[1:], initial))
    while (n := x.shape[0]) > 1:
        pairs = arithmetic.apply(name, x[: n - n % 2 : 2], x[1::2])
        odd = [x[n - 1 :]] if n % 2 else []
        x = arithmetic.joined([pairs, *odd]).reshape((-(-n // 2), *x.shape[1:]))
    return x.reshape(x.shape[1:])


def _axis_first(places: np.ndarray, axes: Sequence[int], *kept: int) -> np.ndarray:
    """Some axes joined to the first axis, then the kept axes in order, then the others."""
    moved = np.moveaxis(places, (*axes, *kept), range(len(axes) + len(kept)))
    length = int(np.prod(moved.shape[: len(axes)], dtype=int))
    return moved.reshape(length, *moved.shape[len(axes) :])


def _reduction(name: str, initial: float, eqn, arithmetic: Arithmetic) -> Run:
    rows = _axis_first(positions(eqn.invars[0].aval.shape), parameter(eqn, "axes"))
    return lambda x: [folded(arithmetic, name, initial, arithmetic.joined([x])[rows])]


def _scatter_by(name: str, eqn, arithmetic: Arithmetic) -> Run:
    """The rule of a scatter that combines an entry with every update by a primitive."""
    operand, indices, updates = (atom.aval for atom in eqn.invars)
    numbers, mode = parameter(eqn, "dimension_numbers"), parameter(eqn, "mode")

    @lru_cache(256)
    def targets(key: bytes) -> np.ndarray:
        # The transpose of adding updates reads the place of every update; a dropped update
        # reads 0.
        places = np.frombuffer(key, indices.dtype).reshape(indices.shape)
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):

            def add(u):
                zeros = jax.numpy.zeros(operand.shape)
                return jax.lax.scatter_add(zeros, places, u, numbers, mode=mode)

            transposed = jax.linear_transpose(add, np.zeros(updates.shape))
            (read,) = transposed(positions(operand.shape, 1).astype(float))
            return np.asarray(read).ravel().astype(int) - 1

    def run(x, where, updates):
        x, updates, places = arithmetic.joined([x]), updates.reshape(-1), targets(where.tobytes())
        waiting = np.flatnonzero(places >= 0)
        while len(waiting):  # the first update of every target, then the second, ...
            target, first = np.unique(places[waiting], return_index=True)
            new = arithmetic.apply(name, x[target], updates[waiting[first]])
            order = np.arange(operand.size)
            order[target] = operand.size + np.arange(len(target))
            x, waiting = arithmetic.joined([x, new])[order], np.delete(waiting, first)
        return [x.reshape(operand.shape)]

    return run


def _bilinear(left: np.ndarray, right: np.ndarray, arithmetic: Arithmetic) -> Run:
    """Sums of products x[left] y[right] along the first axis; position -1 of x is zero."""

    def run(*xs):
        x, y = (arithmetic.joined([arithmetic.exactly(v), arithmetic.exactly(0.0)]) for v in xs)
        return [folded(arithmetic, "add", 0.0, arithmetic.apply("mul", x[left], y[right]))]

    return run


def _dot_general(eqn, arithmetic: Arithmetic) -> Run:
    contracted, batch = parameter(eqn, "dimension_numbers")
    left, right = (
        _axis_first(positions(atom.aval.shape), axes, *kept)
        for atom, axes, kept in zip(eqn.invars, contracted, batch, strict=True)
    )
    own, other = (x.ndim - 1 - len(batch[0]) for x in (left, right))
    right = np.expand_dims(right, [*range(1 + len(batch[0]), 1 + len(batch[0]) + own)])
    return _bilinear(left.reshape(*left.shape, *[1] * other), right, arithmetic)


def _convolution(eqn, arithmetic: Arithmetic) -> Run:
    """An entry of x meets an entry of the kernel: the sum of a kernel without other entries."""
    x, kernel = (positions(atom.aval.shape, 1).astype(float) for atom in eqn.invars)
    outputs = parameter(eqn, "dimension_numbers").rhs_spec[0]
    entry = positions([1 if i == outputs else n for i, n in enumerate(kernel.shape)])
    found = np.empty((2, entry.size, *eqn.outvars[0].aval.shape), int)
    for k in range(entry.size):
        alone = np.broadcast_to(entry == k, kernel.shape).astype(float)
        for side, pair in enumerate(((x, alone), (np.ones(x.shape), alone * kernel))):
            found[side, k] = np.rint(bind(eqn, *pair, preferred_element_type=None)[0]) - 1
    return _bilinear(found[0], found[1], arithmetic)


REDUCTIONS = {
    "max": ("max", -np.inf), "min": ("min", np.inf), "prod": ("mul", 1.0), "sum": ("add", 0.0),
}  # fmt: skip
"""The primitive that combines two numbers of a reduction, and the value without numbers."""

RULES: dict[str, Callable[..., Run]] = {
    **{f"reduce_{kind}": partial(_reduction, *way) for kind, way in REDUCTIONS.items()},
    **{f"scatter-{way}": partial(_scatter_by, way) for way in ("add", "max", "min", "mul", "sub")},
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
}
