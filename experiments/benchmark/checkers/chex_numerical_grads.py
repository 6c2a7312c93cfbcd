"""Chex: ``chex.assert_numerical_grads`` of a ``custom_jvp`` function, first order.

It is JAX's checker with an absolute tolerance of 0.01 per entry of the first argument.
"""

from collections.abc import Callable

import chex
import numpy as np

from experiments.benchmark.checkers.jax_check_grads import compiled_softmax, with_derivative
from experiments.benchmark.checkers.statement import Point, Statement


def check_of(statement: Statement) -> Callable[[Point], None]:
    """Checks a statement at a point."""
    function = with_derivative(statement)

    def check(point: Point) -> None:
        chex.assert_numerical_grads(
            lambda *parts: function(parts, point.inputs), point.parts, order=1
        )

    return check


def check_softmax(z: np.ndarray) -> None:
    """Checks the Jacobian of the softmax, diag(p) - p p^T (S1.1)."""
    chex.assert_numerical_grads(compiled_softmax, (z,), order=1)
