"""Positions in place of numbers: primitives that move numbers, windows and convolutions.

Positions are moved once per equation, or once per value of the integers that the positions depend
on. NumPy or JAX's primitive itself does the moving.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax import dtypes, lax

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


def rows_along(shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """The positions of entries along some axes, a row per entry of the remaining axes."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    length = int(np.prod([shape[axis] for axis in axes], dtype=int))
    rows = int(np.prod([shape[axis] for axis in kept], dtype=int))
    return positions(shape).transpose(*kept, *axes).reshape(rows, length)


def folded(arithmetic: Arithmetic, name: str, x: Numbers, rows: np.ndarray) -> Numbers:
    """The numbers at each row of positions, [rows, n] with n > 0, combined by a primitive."""
    while (n := rows.shape[1]) > 1:
        pairs = [rows[:, side : n - n % 2 : 2].ravel() for side in range(2)]
        combined, odd = arithmetic.apply(name, *(x[side] for side in pairs)), rows[:, n - n % 2 :]
        x = arithmetic.joined([combined, x[odd.ravel()]]) if odd.size else combined
        places = positions((len(rows), n // 2)), positions(odd.shape, len(combined))
        rows = np.hstack(places)
    return x[rows[:, 0]]


def _pad(eqn, x, filler):
    out = np.full(eqn.outvars[0].aval.shape, filler)
    source, target = [], []
    for size, (low, _, interior), end in zip(
        x.shape, parameter(eqn, "padding_config"), out.shape, strict=True
    ):
        places = low + np.arange(size) * (interior + 1)
        inside = (places >= 0) & (places < end)
        source.append(np.flatnonzero(inside))
        target.append(places[inside])
    out[np.ix_(*target)] = x[np.ix_(*source)]
    return [out]


def _window(shape, sizes, starts) -> tuple[slice, ...]:
    firsts = [max(0, min(int(s), n - k)) for s, n, k in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(first, first + k) for first, k in zip(firsts, sizes, strict=True))


def _dynamic_update_slice(eqn, x, update, *starts):
    out = np.array(x)
    out[_window(x.shape, update.shape, starts)] = update
    return [out]


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


MOVEMENTS: dict[str, Callable[..., Sequence[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": lambda eqn, *xs: [np.concatenate(xs, parameter(eqn, "dimension"))],
    "copy": _unchanged,
    "copy_p": _unchanged,
    "device_put": _unchanged,
    "dynamic_slice": lambda eqn, x, *starts: [
        x[_window(x.shape, parameter(eqn, "slice_sizes"), starts)]
    ],
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "name": _unchanged,
    "optimization_barrier": _unchanged,
    "pad": _pad,
    "reshape": _reshape,
    "rev": lambda eqn, x: [np.flip(x, parameter(eqn, "dimensions"))],
    "slice": _slice,
    "split": lambda eqn, x: np.split(
        x, np.cumsum(parameter(eqn, "sizes"))[:-1], axis=parameter(eqn, "axis")
    ),
    "squeeze": _unchanged,
    "stack": lambda eqn, *xs: [np.stack(xs, parameter(eqn, "axis"))],
    "stop_gradient": _unchanged,
    "tile": lambda eqn, x: [np.tile(x, parameter(eqn, "reps"))],
    "transpose": lambda eqn, x: [x.transpose(parameter(eqn, "permutation"))],
    "unstack": lambda eqn, x: list(np.moveaxis(x, parameter(eqn, "axis"), 0)),
}


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
    def routes(*integers: bytes) -> list[np.ndarray]:
        given = iter(integers)
        arrays = [
            np.frombuffer(next(given), aval.dtype).reshape(aval.shape) if n is None else n
            for aval, n in zip(avals, numbered, strict=True)
        ]
        return [np.ravel(result) for result in move(eqn, *arrays)]

    def run(*xs):
        integers = [x.tobytes() for x, m in zip(xs, moved, strict=True) if not m]
        targets = routes(*integers)
        pool = [x for x, m in zip(xs, moved, strict=True) if m]
        if any(np.any(route < 0) for route in targets):  # position -1: the filler
            pool.append(filler)
        joined = arithmetic.joined(pool) if len(pool) > 1 else pool[0]
        return [joined[route] for route in targets]

    if moved == [True] and [r.tolist() for r in routes()] == [list(range(avals[0].size))]:
        return lambda x: [x]
    return run


def _updated(
    arithmetic: Arithmetic, name: str, x: Numbers, targets: np.ndarray, updates: Numbers
) -> Numbers:
    """The numbers, each combined by a primitive with the updates at the place; "" replaces.

    Updates with a negative target are dropped.
    """
    waiting = np.flatnonzero(targets >= 0)
    while len(waiting):  # the first update of every target, then the second, ...
        places, first = np.unique(targets[waiting], return_index=True)
        new = updates[waiting[first]]
        new = arithmetic.apply(name, x[places], new) if name else new
        order = np.arange(len(x))
        order[places] = len(x) + np.arange(len(places))
        x = arithmetic.joined([x, new])[order]
        waiting = np.delete(waiting, first)
    return x


def scatter(name: str, eqn, arithmetic: Arithmetic) -> Run:
    """The rule of a scatter that combines an entry with an update by a primitive, "" replaces."""
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

    return lambda x, where, new: [_updated(arithmetic, name, x, targets(where.tobytes()), new)]


def _patches(places: np.ndarray, eqn, window: str, base: str, **params: Any) -> np.ndarray:
    """The positions in every window of an array [N, C, ...], [N, C, entries, *windows].

    Positions outside of the array are -1; ``base`` and ``window`` name the dilations.
    """
    dilations = [eqn.params.get(name) or (1,) * (places.ndim - 2) for name in (base, window)]
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = lax.conv_general_dilated_patches(
            places + 1.0,
            window_strides=parameter(eqn, "window_strides"),
            padding=parameter(eqn, "padding"),
            lhs_dilation=dilations[0],
            rhs_dilation=dilations[1],
            **params,
        )
    found = np.asarray(found).round().astype(int) - 1
    return found.reshape(*places.shape[:2], -1, *found.shape[2:])


def _places(eqn, shape: Sequence[int]) -> np.ndarray:
    """The positions in every window of ``reduce_window`` and the like, [windows, entries]."""
    size = parameter(eqn, "window_dimensions")
    dilations = "window_dilation", "base_dilation"
    found = _patches(positions(shape)[None, None], eqn, *dilations, filter_shape=size)
    return found.reshape(math.prod(size), -1).T


def window_reduction(name: str, initial: float, eqn, arithmetic: Arithmetic) -> Run:
    """The rule of ``reduce_window_sum``, ``_max`` and ``_min``."""
    places = _places(eqn, eqn.invars[0].aval.shape)
    outside = arithmetic.exactly(np.array([initial]))
    return lambda x: [
        folded(arithmetic, name, arithmetic.joined([x, outside]), places % (len(x) + 1))
    ]


def _selected(eqn, arithmetic: Arithmetic, x, places: np.ndarray) -> np.ndarray:
    """The position that every window selects: the first of the largest, or smallest."""
    select = parameter(eqn, "select_prim").name
    sign = {"ge": 1, "gt": 1, "le": -1, "lt": -1}[select]
    outside = arithmetic.exactly(np.array([-np.inf * sign]))
    padded, best = arithmetic.joined([x, outside]), places[:, 0]
    for column in places.T[1:]:
        better = arithmetic.compare(padded[column], padded[best]) == sign
        best = np.where((better | (best < 0)) & (column >= 0), column, best)
    return best


def _select_and_scatter_add(eqn, arithmetic: Arithmetic) -> Run:
    places = _places(eqn, eqn.invars[1].aval.shape)
    zeros = arithmetic.exactly(np.zeros(eqn.invars[1].aval.shape))

    def run(source, operand):
        targets = _selected(eqn, arithmetic, operand, places)
        return [_updated(arithmetic, "add", zeros, targets, source)]

    return run


def _select_and_gather_add(eqn, arithmetic: Arithmetic) -> Run:
    places = _places(eqn, eqn.invars[1].aval.shape)
    return lambda tangents, operand: [tangents[_selected(eqn, arithmetic, operand, places)]]


def _convolution(eqn, arithmetic: Arithmetic) -> Run:
    numbers = parameter(eqn, "dimension_numbers")
    groups, batches = (parameter(eqn, f"{kind}_group_count") for kind in ("feature", "batch"))
    left = positions(eqn.invars[0].aval.shape).transpose(numbers.lhs_spec)  # [N, C, *space]
    right = positions(eqn.invars[1].aval.shape).transpose(numbers.rhs_spec)  # [O, I, *window]
    rank, size = left.ndim - 2, right.shape[2:]
    windows = _patches(left, eqn, "rhs_dilation", "lhs_dilation", filter_shape=size)
    windows = np.moveaxis(windows, 2, -1)  # [N, C, *out, entries]
    images, channels, outputs = len(left), left.shape[1], len(right)
    out = np.empty((2, images // batches, outputs, *windows.shape[2:-1], right[0].size), int)
    for o in range(outputs):
        group, batch = o * groups // outputs, o * batches // outputs
        taken = windows[batch * images // batches :][: images // batches]
        taken = taken[:, group * channels // groups :][:, : channels // groups]
        out[0, :, o] = np.moveaxis(taken, 1, -2).reshape(*out.shape[1:2], *out.shape[3:])
        out[1, :, o] = right[o].ravel()
    out = np.moveaxis(out, range(1, rank + 3), [1 + axis for axis in numbers.out_spec])
    places = out.reshape(2, -1, out.shape[-1])
    return bilinear(places[0], places[1], eqn, arithmetic)


def bilinear(left: np.ndarray, right: np.ndarray, eqn, arithmetic: Arithmetic) -> Run:
    """Sums of products x[left] y[right] along the last axis; position -1 of x is zero."""
    given = [is_number(atom) for atom in eqn.invars]
    zero = arithmetic.exactly(np.zeros(1))

    def run(*xs):
        x, y = (x if n else arithmetic.exactly(x) for x, n in zip(xs, given, strict=True))
        if not left.shape[1]:
            return [arithmetic.exactly(np.zeros(len(left)))]
        x = arithmetic.joined([x, zero])
        products = arithmetic.apply("mul", x[left.ravel() % len(x)], y[right.ravel()])
        return [folded(arithmetic, "add", products, positions(left.shape))]

    return run


WINDOWS: dict[str, Callable[..., Run]] = {
    "conv_general_dilated": _convolution,
    "select_and_gather_add": _select_and_gather_add,
    "select_and_scatter_add": _select_and_scatter_add,
}
