"""The students' checker (S4.6), in NumPy, of every row of a Jacobian.

As in the assignment, several parameters are a long vector.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.benchmark.checkers import Checker, Point, Statement
from jaxnn.verify.graph import jit

ValueAndGradient = Callable[[np.ndarray], tuple[float, np.ndarray]]


def gradcheck_naive(f: ValueAndGradient, x: np.ndarray) -> None:
    """Compares every entry of the gradient of ``f`` at x with a centred difference.

    Raises:
      AssertionError: a relative difference is above 1e-5.
    """
    _, gradient = f(x)
    h = 1e-4
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + h
        above, _ = f(x)
        x[index] = before - h
        below, _ = f(x)
        x[index] = before
        numerical = (above - below) / (2 * h)
        scale = max(1, abs(numerical), abs(gradient[index]))
        if abs(numerical - gradient[index]) / scale > 1e-5:
            raise AssertionError(f"{gradient[index]} at {index}, expected {numerical}")


def check_of(statement: Statement) -> Callable[[Point], None]:
    """Checks a statement at a point."""
    function, derivative = map(jit, statement)

    def check(point: Point) -> None:
        several = len(point.parts) > 1
        as_one: Any = ravel_pytree if several else lambda parts: (parts[0], lambda x: [x])
        start, parts_of = as_one(point.parts)

        def at(x: np.ndarray, entry: tuple[int, ...]) -> tuple[float, np.ndarray]:
            parts = parts_of(x)
            derivatives = derivative(parts, point.inputs)
            row, _ = as_one([np.asarray(derivative)[entry] for derivative in derivatives])
            return float(function(parts, point.inputs)[entry]), np.asarray(row)

        for entry in np.ndindex(function(point.parts, point.inputs).shape):
            gradcheck_naive(lambda x, entry=entry: at(x, entry), np.array(start))

    return check


def check_softmax(z: np.ndarray) -> None:
    """Checks the Jacobian of the softmax, diag(p) - p p^T (S1.1), row by row."""

    def row(z: np.ndarray, i: int) -> tuple[float, np.ndarray]:
        exponentials = np.exp(z - z.max())
        p = exponentials / exponentials.sum()
        return p[i], np.where(np.arange(len(z)) == i, p, 0) - p[i] * p

    for i in range(len(z)):
        gradcheck_naive(lambda z, i=i: row(z, i), z)


CHECKERS = {"gradcheck_naive": Checker(check_of, check_softmax)}
