"""JAX and Chex: ``custom_jvp`` functions with the claimed derivative, first order.

``jax.test_util.check_grads``, in both modes: a random direction against centred differences.
``chex.assert_numerical_grads``: JAX's checker with an absolute tolerance of 0.01 per entry of the
first argument. Further arguments are the defaults.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import chex
import jax
import jax.numpy as jnp
import jax.test_util

from experiments.benchmark.checkers import Checker, Inputs, Parts, Point, Statement

NumericalCheck = Callable[..., object]  # of a function, its arguments, and the order


def check_of(checker: NumericalCheck, statement: Statement) -> Callable[[Point], None]:
    """Checks a statement at a point."""
    function = with_derivative(statement)

    def check(point: Point) -> None:
        checker(lambda *parts: function(parts, point.inputs), point.parts, order=1)

    return check


@lru_cache(maxsize=1)  # compiled once for both checkers
def with_derivative(statement: Statement) -> Callable[..., jax.Array]:
    """The function with the claimed derivative as JAX's rule."""

    @jax.custom_jvp
    def function(parts, inputs):
        return statement.function(parts, inputs)

    @function.defjvp
    def _(primals, tangents):
        value, derivatives = function(*primals), statement.derivative(*primals)
        steps = [
            jnp.tensordot(derivative, tangent, tangent.ndim)
            for derivative, tangent in zip(derivatives, tangents[0], strict=True)
        ]
        return value, jnp.asarray(sum(steps))

    return jax.jit(function)


def softmax_jacobian(parts: Parts, _: Inputs) -> list[jax.Array]:
    """diag(p) - p p^T of the softmax p (S1.1)."""
    p = jax.nn.softmax(*parts)
    return [jnp.diag(p) - jnp.outer(p, p)]


SOFTMAX = Statement(lambda parts, _: jax.nn.softmax(*parts), softmax_jacobian)


def checker(check: NumericalCheck) -> Checker:
    """The check of any statement, and of the softmax."""
    return Checker(partial(check_of, check), lambda z: check_of(check, SOFTMAX)(Point([z], {})))


CHECKERS = {
    "jax_check_grads": checker(jax.test_util.check_grads),
    "chex_numerical_grads": checker(chex.assert_numerical_grads),
}
