"""Formulas in LaTeX against NumPy by definition, and statements against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.verify import claim, one_hot, positive, real, verify

REGRESSION = {
    "W": real("m", "c"),
    "X": real("n", "m"),
    "Y": one_hot("n", "c"),
    "b": real("c"),
    "l2": positive(),
}


def regression(W, X, Y, b, l2):  # noqa: N803
    return -jnp.sum(Y * jax.nn.log_softmax(X @ W + b)) / len(X) + l2 / 2 * jnp.sum(W**2)


def regression_gradient(formula):
    return claim(
        of=regression,
        wrt="W",
        kind="gradient",
        inputs=REGRESSION,
        formula=formula,
        where={r"\hat Y": lambda X, W, b: jax.nn.softmax(X @ W + b), r"\lambda": "l2"},  # noqa: N803
    )


def test_a_formula_in_latex_is_verified_and_certified():
    made = regression_gradient(r"\frac{1}{n} X^\top(\hat Y - Y) + \lambda W")
    verdict = verify(made, trials=1000)
    assert (verdict.verdict, verdict.certificate is not None) == ("holds", True)


def test_a_wrong_formula_in_latex_is_diagnosed():
    verdict = verify(regression_gradient(r"X^\top(\hat Y - Y) + \lambda W"), trials=1000)
    assert verdict.verdict == "refuted"
    assert [finding.code for finding in verdict.diagnosis] == ["missing_mean"]


def stated(statement, **where):
    @claim(
        of=lambda x, y: jnp.sum((x - y) ** 2),
        wrt="x",
        kind="gradient",
        inputs={"x": real("n"), "y": real("n")},
        statement=statement,
        where=where or None,
    )
    def slope(x, y):
        return 2 * (x - y)

    return slope


def test_a_statement_that_says_something_else_is_misstated():
    verdict = verify(stated(r"\frac{\partial J}{\partial x_i} = 2 (x_i + y_i)"), trials=100)
    assert verdict.verdict == "misstated"
    assert not verdict.holds
    assert verdict.statement is not None
    assert verdict.statement.outcome == "differs"
    assert "entry [" in verdict.statement.detail


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        (r"\nabla_x J = 2 (x - y)", "agrees"),
        (r"\frac{\partial J}{\partial x_i} = 2 x_i - 2 y_i", "agrees"),
        (r"\nabla_x J = 2 (x - q)", "unread"),
        (r"twice the difference", "unread"),
        (r"\nabla_y J = 2 (x - y)", "differs"),
    ],
)
def test_the_outcome_of_the_comparison(statement, outcome):
    verdict = verify(stated(statement), trials=100)
    assert verdict.statement is not None
    assert verdict.statement.outcome == outcome
    assert verdict.holds == (outcome != "differs")


def value(formula, inputs, arrays, where=None, of=None):
    """The value of a formula in LaTeX at arrays."""
    example = {name: np.asarray(array) for name, array in arrays.items()}
    made = claim(
        of=of or (lambda **given: jnp.zeros(())),
        kind="value",
        inputs=inputs,
        formula=formula,
        where=where,
    )
    return np.asarray(made(**example))
