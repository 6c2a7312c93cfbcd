"""Decompositions of matrices by field operations and square roots, as in textbooks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxnn.verify.exact import Arithmetic, Numbers, Run, is_number
from jaxnn.verify.exact.positions import positions
from jaxnn.verify.graph import Unsupported, parameter


class Number:
    """A number with operators: NumPy's arrays of objects compute with it."""

    def __init__(self, arithmetic: Arithmetic, value: Numbers):
        self.arithmetic = arithmetic
        self.value = value  # of length 1

    def _apply(self, name: str, *others: "Number") -> "Number":
        values = (other.value for other in others)
        return Number(self.arithmetic, self.arithmetic.apply(name, self.value, *values))

    def __add__(self, other: "Number") -> "Number":
        return self._apply("add", other)

    def __sub__(self, other: "Number") -> "Number":
        return self._apply("sub", other)

    def __mul__(self, other: "Number") -> "Number":
        return self._apply("mul", other)

    def __truediv__(self, other: "Number") -> "Number":
        return self._apply("div", other)

    def __neg__(self) -> "Number":
        return self._apply("neg")

    def __abs__(self) -> "Number":
        return self._apply("abs")

    def sqrt(self) -> "Number":
        """The square root; NumPy's ``sqrt`` calls it."""
        return self._apply("sqrt")

    def order(self, other: "Number") -> int:
        """-1, 0 or 1; 2 where a number is NaN."""
        return int(self.arithmetic.compare(self.value, other.value)[0])


def constants(arithmetic: Arithmetic, array: np.ndarray) -> np.ndarray:
    """An array of objects with the exact numbers of an array."""
    numbers = arithmetic.exactly(array)
    made = np.empty(array.shape, object)
    made.ravel()[:] = [Number(arithmetic, numbers[np.array([i])]) for i in range(array.size)]
    return made


def batched(function: Callable[..., Sequence[np.ndarray]], eqn, arithmetic: Arithmetic) -> Run:
    """The rule of a primitive on matrices: a function of object arrays [m, n], batch by batch.

    The function's results are object arrays, or arrays of integers.
    """
    places = [positions(atom.aval.shape) for atom in eqn.invars]
    places = [place.reshape(-1, *place.shape[-2:]) for place in places]

    def matrix(numbers: Numbers, place: np.ndarray) -> np.ndarray:
        made = np.empty(place.shape, object)
        made.ravel()[:] = [Number(arithmetic, numbers[np.array([i])]) for i in place.flat]
        return made

    def gathered(variable, parts: Sequence[np.ndarray]) -> Any:
        if is_number(variable):
            return arithmetic.joined([number.value for part in parts for number in part.flat])
        return np.array(parts, variable.aval.dtype).reshape(variable.aval.shape)

    def run(*xs):
        results = [function(eqn, *map(matrix, xs, group)) for group in zip(*places, strict=True)]
        columns = zip(*results, strict=True)
        return [gathered(v, parts) for v, parts in zip(eqn.outvars, columns, strict=True)]

    return run


def _lu(eqn, a: np.ndarray) -> Sequence[np.ndarray]:
    """L below the diagonal and U, the exchanges of rows, and the order of the rows."""
    rows, pivots = np.arange(len(a)), []
    for k in range(min(a.shape)):
        best = k
        for i in range(k + 1, len(a)):
            best = i if abs(a[i, k]).order(abs(a[best, k])) == 1 else best
        pivots.append(best)
        a[[k, best]], rows[[k, best]] = a[[best, k]], rows[[best, k]]
        if (a[k, k] - a[k, k]).order(a[k, k]) != 0:  # no zero
            a[k + 1 :, k] = a[k + 1 :, k] / a[k, k]
        a[k + 1 :, k + 1 :] = a[k + 1 :, k + 1 :] - np.outer(a[k + 1 :, k], a[k, k + 1 :])
    return a, np.array(pivots), rows


def _cholesky(eqn, a: np.ndarray) -> Sequence[np.ndarray]:
    """The lower triangle of A = L L^T; NaN where A is not positive definite."""
    zero = a[0, 0] - a[0, 0]
    for k in range(len(a)):
        if a[k, k].order(zero) != 1:
            return (constants(zero.arithmetic, np.full(a.shape, np.nan)),)
        a[k, k] = np.sqrt(a[k, k])
        a[k + 1 :, k] = a[k + 1 :, k] / a[k, k]
        a[k, k + 1 :] = zero
        a[k + 1 :, k + 1 :] = a[k + 1 :, k + 1 :] - np.outer(a[k + 1 :, k], a[k + 1 :, k])
    return (a,)


def _triangular_solve(eqn, a: np.ndarray, b: np.ndarray) -> Sequence[np.ndarray]:
    """X of A X = B, or of X A = B."""
    lower, transposed = parameter(eqn, "lower"), parameter(eqn, "transpose_a")
    left = parameter(eqn, "left_side")
    if not left:
        b = b.T
    if bool(transposed) == bool(left):
        a, lower = a.T, not lower
    for k in range(len(a)) if lower else reversed(range(len(a))):
        if not parameter(eqn, "unit_diagonal"):
            b[k] = b[k] / a[k, k]
        rest = slice(k + 1, None) if lower else slice(None, k)
        b[rest] = b[rest] - np.outer(a[rest, k], b[k])
    return (b if left else b.T,)


def _qr(eqn, a: np.ndarray) -> Sequence[np.ndarray]:
    """Q and R by Householder's reflections, with LAPACK's signs."""
    if parameter(eqn, "pivoting"):
        raise Unsupported("qr with pivoting is unknown to jaxnn's exact numbers")
    m, n = a.shape
    q = constants(a[0, 0].arithmetic, np.eye(m))
    zero = q[0, 0] - q[0, 0]
    for k in range(min(m - 1, n)):
        column = a[k:, k].copy()
        size = np.sqrt(np.sum(column[1:] * column[1:]) + column[0] * column[0])
        column[0] = column[0] + (size if column[0].order(zero) >= 0 else -size)
        square = np.sum(column * column)
        if square.order(zero) == 0:
            continue
        column_twice = (column + column) / square
        a[k:] = a[k:] - np.outer(column_twice, column @ a[k:])
        q[:, k:] = q[:, k:] - np.outer(q[:, k:] @ column, column_twice)
        a[k + 1 :, k] = zero
    kept = m if parameter(eqn, "full_matrices") else min(m, n)
    return q[:, :kept], a[:kept]


RULES: dict[str, Callable[..., Run]] = {
    "cholesky": partial(batched, _cholesky),
    "lu": partial(batched, _lu),
    "qr": partial(batched, _qr),
    "triangular_solve": partial(batched, _triangular_solve),
}
