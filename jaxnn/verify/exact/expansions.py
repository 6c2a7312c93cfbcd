"""Primitives of JAX as functions of other primitives, which JAX traces.

A function takes the operands of a primitive, and the parameters by name. Decompositions of matrices
[..., m, n] are those of textbooks: the steps are unrolled.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from jaxnn.verify.graph import Unsupported


def _argument(best: Callable[..., jax.Array], x, *, axes, index_dtype):
    """The place of the largest or smallest number, or of the first NaN."""
    found = (x == best(x, axes, keepdims=True)) | (x != x)
    return lax.argmax(found.astype(int), axes[0], index_dtype)


def _cumulative(combine: Callable[..., jax.Array], x, *, axis, reverse):
    return lax.associative_scan(combine, x, reverse=reverse, axis=axis)


def _log_of_sum(x, y):
    shift = jnp.maximum(x, y)
    shift = jnp.where(jnp.isfinite(shift), shift, 0.0)
    return shift + jnp.log(jnp.exp(x - shift) + jnp.exp(y - shift))


def _fft(x, *, fft_type, fft_lengths):
    """The discrete Fourier transform along the last axes, from or to real numbers too."""
    kind, length = int(fft_type), fft_lengths[-1]
    if kind == 3:  # to real numbers
        x = jnp.append(x, jnp.conj(x[..., (length - 1) // 2 : 0 : -1]), -1)
    for axis in range(-len(fft_lengths), 0):
        places = jnp.arange(x.shape[axis])
        turns = (places[:, None] * places % len(places)).astype(float) / len(places)
        angles = 8 * jnp.arctan(1.0) * turns  # two pi in any precision
        roots = lax.complex(jnp.cos(angles), jnp.sin(angles) * (1 if kind in (1, 3) else -1))
        x = jnp.moveaxis(jnp.moveaxis(x, axis, -1) @ roots, -1, axis)
        x = x / len(places) if kind in (1, 3) else x
    return jnp.real(x) if kind == 3 else x[..., : length // 2 + 1] if kind == 2 else x


def _hi_primitive(*xs, _prim, **_):
    """A primitive that JAX itself expands to others, such as ``searchsorted`` from JAX 0.12 on."""
    return _prim.expand(*jax.tree.unflatten(_prim.in_tree, xs))


def _linear_solve(*xs, jaxprs, const_lengths, **_):
    """The solution that the function given to ``lax.custom_linear_solve`` computes."""
    first = const_lengths.matvec + const_lengths.vecmat
    solve = jaxpr_as_fun(jaxprs.solve)
    return solve(*xs[first : first + const_lengths.solve], *xs[sum(const_lengths) :])


def _sort(*xs, dimension, num_keys, **_):
    """Every entry goes to the place after all entries that come before; NaN comes last."""
    rows = [jnp.moveaxis(x, dimension, -1) for x in xs]
    places = jnp.arange(rows[0].shape[-1])
    before = places[:, None] < places  # ties keep their order
    for row in reversed(rows[:num_keys]):
        x, y = row[..., :, None], row[..., None, :]
        nan = x != x, y != y
        before = (x < y) | ~nan[0] & nan[1] | ((x == y) | nan[0] & nan[1]) & before
    order = jnp.argsort(jnp.sum(before, -2, dtype=int), -1)
    return [jnp.moveaxis(jnp.take_along_axis(row, order, -1), -1, dimension) for row in rows]


def _windows(
    shape, *, window_dimensions, window_strides, padding, base_dilation=None, window_dilation=None
) -> np.ndarray:
    """The positions in every window, counted from 1, [entries, *windows]; 0 is outside."""
    with jax.ensure_compile_time_eval():
        places = jnp.arange(1.0, 1.0 + np.prod(shape, dtype=int)).reshape(1, 1, *shape)
        found = lax.conv_general_dilated_patches(
            places, window_dimensions, window_strides, padding, base_dilation, window_dilation
        )
        return np.asarray(found)[0].round().astype(int)


def _in_windows(total: Callable[..., jax.Array], outside: float, x, **params):
    return total(jnp.append(outside, x)[_windows(x.shape, **params)], 0)


def _selected(x, *, select_prim, **params):
    """The position that every window selects: the first of the largest, or smallest."""
    places = _windows(x.shape, **params)
    sizes = x if select_prim.name in ("ge", "gt") else -x
    largest = jnp.argmax(jnp.append(-jnp.inf, sizes)[places], 0)
    return jnp.take_along_axis(jnp.asarray(places), largest[None], 0)[0]


def _select_and_scatter_add(source, x, **params):
    return jnp.zeros(1 + x.size).at[_selected(x, **params)].add(source)[1:].reshape(x.shape)


def _outer(x, y):
    return x[..., :, None] * y[..., None, :]


def _cholesky(a, **_):
    """The lower triangle of A = L L^T; NaN where A is not positive definite."""
    places, columns, positive = jnp.arange(a.shape[-1]), [], True
    for k in range(a.shape[-1]):
        pivot = a[..., k, k, None]
        positive &= pivot[..., None] > 0
        columns.append(jnp.where(places < k, 0.0, a[..., :, k] / jnp.sqrt(pivot)))
        a = a - _outer(columns[k], columns[k])
    return jnp.where(positive, jnp.stack(columns, -1), jnp.nan)


def _lu(a, **_):
    """L below the diagonal and U, the exchanges of rows, and the order of the rows."""
    m, n = a.shape[-2:]
    places, pivots = jnp.arange(m), []
    rows = jnp.broadcast_to(places, a.shape[:-1])
    for k in range(min(m, n)):
        best = k + jnp.argmax(jnp.abs(a[..., k:, k]), -1)[..., None]
        order = jnp.where(places == k, best, jnp.where(places == best, k, places))
        a = jnp.take_along_axis(a, order[..., None], -2)
        rows = jnp.take_along_axis(rows, order, -1)
        pivots.append(best)
        pivot = a[..., k, k, None]
        factors = a[..., :, k] / jnp.where(pivot == 0, 1.0, pivot)
        below = (places > k)[:, None]
        eliminated = a - _outer(factors, a[..., k, :])
        a = jnp.where(below & (jnp.arange(n) > k), eliminated, a)
        a = jnp.where(below & (jnp.arange(n) == k), factors[..., None], a)
    return a, jnp.concatenate(pivots, -1).astype(np.int32), rows.astype(np.int32)


def _triangular_solve(a, b, *, left_side, lower, transpose_a, conjugate_a, unit_diagonal):
    """X of A X = B, or of X A = B."""
    if not left_side:
        b = b.mT
    if bool(transpose_a) == bool(left_side):
        a, lower = a.mT, not lower
    rows, places = {}, range(a.shape[-1])
    for k in places if lower else reversed(places):
        rest = sum((a[..., k, j, None] * row for j, row in rows.items()), start=0.0)
        rows[k] = (b[..., k, :] - rest) / (1.0 if unit_diagonal else a[..., k, k, None])
    solution = jnp.stack([rows[k] for k in places], -2)
    return solution if left_side else solution.mT


def _qr(a, *, pivoting, full_matrices, **_):
    """Q and R by Householder's reflections, with LAPACK's signs."""
    if pivoting:
        raise Unsupported("qr with pivoting is unknown to jaxnn's exact numbers")
    m, n = a.shape[-2:]
    places = jnp.arange(m)
    q = jnp.broadcast_to(jnp.eye(m), (*a.shape[:-2], m, m))
    for k in range(min(m - 1, n)):
        column = jnp.where(places < k, 0.0, a[..., :, k])
        first, size = column[..., k, None], jnp.sqrt(jnp.sum(column**2, -1, keepdims=True))
        column = jnp.where(places == k, first + jnp.where(first >= 0, size, -size), column)
        square = jnp.sum(column**2, -1, keepdims=True)
        twice = 2 * column / jnp.where(square == 0, 1.0, square)
        a = a - _outer(twice, jnp.sum(column[..., None] * a, -2))
        q = q - _outer(jnp.sum(q * column[..., None, :], -1), twice)
    kept = m if full_matrices else min(m, n)
    return q[..., :kept], jnp.triu(a)[..., :kept, :]


EXPANDED: dict[str, Callable[..., Any]] = {
    "argmax": partial(_argument, jnp.max),
    "argmin": partial(_argument, jnp.min),
    "call_hi_primitive": _hi_primitive,
    "cholesky": _cholesky,
    "clamp": lambda low, x, high: jnp.minimum(jnp.maximum(low, x), high),
    "cumlogsumexp": partial(_cumulative, _log_of_sum),
    "cummax": partial(_cumulative, jnp.maximum),
    "cummin": partial(_cumulative, jnp.minimum),
    "cumprod": partial(_cumulative, jnp.multiply),
    "cumsum": partial(_cumulative, jnp.add),
    "custom_linear_solve": _linear_solve,
    "fft": _fft,
    "lu": _lu,
    "one_minus_square": lambda x: 1 - x * x,
    "polynomial": lambda x, *terms: reduce(lambda total, term: total * x + term, terms[::-1]),
    "qr": _qr,
    "reduce_window_max": partial(_in_windows, jnp.max, -np.inf),
    "reduce_window_min": partial(_in_windows, jnp.min, np.inf),
    "reduce_window_sum": partial(_in_windows, jnp.sum, 0.0),
    "select_and_gather_add": lambda tangents, x, **params: jnp.append(0.0, tangents)[
        _selected(x, **params)
    ],
    "select_and_scatter_add": _select_and_scatter_add,
    "sort": _sort,
    "square": lambda x: x * x,
    "triangular_solve": _triangular_solve,
}
"""Primitives as functions of others: a polynomial has the operands x, c_0, c_1, ..."""
