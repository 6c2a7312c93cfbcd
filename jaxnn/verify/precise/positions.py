"""Primitives that only move numbers: evaluated on positions in place of numbers.

A primitive moves positions once per equation, or once per value of the integers that the positions
depend on. NumPy or JAX's primitive itself does the moving.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from mpmath.libmp import fnan

from jaxnn.verify.graph import parameter
from jaxnn.verify.precise.scalars import Raw, to_raw

Value = Any  # the flat list of an array's floats as Raw, or a NumPy array of integers or Booleans
Run = Callable[..., Sequence[Value]]  # of the precision and the operands


def is_float(atom) -> bool:
    """Whether a variable of a jaxpr, or a literal, is an array of floats."""
    return jax.numpy.issubdtype(atom.aval.dtype, np.floating)


def bind(eqn, *arrays, **changes) -> list[np.ndarray]:
    """The results of JAX's primitive."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = eqn.primitive.bind(*arrays, **{**eqn.params, **changes})
    return [np.asarray(r) for r in (results if eqn.primitive.multiple_results else [results])]


def positions(shape: Sequence[int], start: int = 0) -> np.ndarray:
    """An array of a shape, filled with consecutive numbers."""
    size = int(np.prod(shape, dtype=int))
    return np.arange(start, start + size).reshape(shape)


def rows_along(shape: Sequence[int], axes: Sequence[int]) -> list[list[int]]:
    """The positions of entries along some axes, a row per entry of the remaining axes."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    length = int(np.prod([shape[axis] for axis in axes], dtype=int))
    rows = int(np.prod([shape[axis] for axis in kept], dtype=int))
    return positions(shape).transpose(*kept, *axes).reshape(rows, length).tolist()


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


def _gather(eqn, x, indices):
    return bind(eqn, x, indices, **({"fill_value": -1} if is_float(eqn.invars[0]) else {}))


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
    "reshape": _unchanged,
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


def movement(eqn) -> Run:
    """The rule of every primitive in ``MOVEMENTS``."""
    move = MOVEMENTS[eqn.primitive.name]
    moved = [is_float(atom) for atom in eqn.invars]
    if not any(moved):
        return lambda prec, *arrays: move(eqn, *arrays)
    avals = [atom.aval for atom in eqn.invars]
    starts = np.cumsum([0, *[aval.size * m for aval, m in zip(avals, moved, strict=True)]])
    numbered = [
        positions(aval.shape, start) if m else None
        for aval, start, m in zip(avals, starts, moved, strict=False)
    ]
    fill = eqn.params.get("fill_value")
    filler = fnan if fill is None else to_raw(fill)[0]

    @lru_cache(256)
    def routes(*integers: bytes) -> list[list[int]]:
        given = iter(integers)
        arrays = [
            np.frombuffer(next(given), aval.dtype).reshape(aval.shape) if n is None else n
            for aval, n in zip(avals, numbered, strict=True)
        ]
        return [np.ravel(result).tolist() for result in move(eqn, *arrays)]

    def run(prec, *xs):
        pool = [x for xs_, m in zip(xs, moved, strict=True) if m for x in xs_]
        integers = [x.tobytes() for x, m in zip(xs, moved, strict=True) if not m]
        pool.append(filler)  # position -1
        return [[pool[i] for i in route] for route in routes(*integers)]

    if moved == [True] and routes() == [list(range(avals[0].size))]:
        return lambda prec, x: [x]
    return run


def scatter(combine: Callable[[Raw, Raw, int], Raw], eqn) -> Run:
    """The rule of a scatter that combines an entry with an update."""
    operand, indices, updates = (atom.aval for atom in eqn.invars)
    numbers, mode = parameter(eqn, "dimension_numbers"), parameter(eqn, "mode")

    @lru_cache(256)
    def targets(key: bytes) -> list[int]:
        # The transpose of adding updates reads the place of every update; a dropped update
        # reads 0.
        places = np.frombuffer(key, indices.dtype).reshape(indices.shape)
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):

            def add(u):
                zeros = jax.numpy.zeros(operand.shape)
                return jax.lax.scatter_add(zeros, places, u, numbers, mode=mode)

            transposed = jax.linear_transpose(add, np.zeros(updates.shape))
            (read,) = transposed(positions(operand.shape, 1).astype(float))
            return (np.asarray(read).ravel().astype(int) - 1).tolist()

    def run(prec, x, where, update):
        out = list(x)
        for target, number in zip(targets(where.tobytes()), update, strict=True):
            if target >= 0:
                out[target] = combine(out[target], number, prec)
        return [out]

    return run
