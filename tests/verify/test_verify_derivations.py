"""Derivations line by line: the line that does not follow, repairs, cases, layouts."""

import jax
import jax.numpy as jnp
import pytest

from jaxnn.verify import assert_holds, derivation, one_hot, real, verify
from tests.verify.samples import cubes

ROWS = {"w": real("m", "c"), "x": real("n", "m"), "y": one_hot("n", "c")}
TRIALS = 200


def cross_entropy(w, x, y):
    return -jnp.sum(y * jax.nn.log_softmax(x @ w)) / len(x)


def residual(w, x, y):
    return jax.nn.softmax(x @ w) - y


def right(w, x, y):
    """X^T (P - Y) / n."""
    return x.T @ residual(w, x, y) / len(x)


def also_right(w, x, y):
    """-1/n sum_i x_i (y_i - p_i)."""
    return -jnp.einsum("ni,nc->ic", x, -residual(w, x, y)) / len(x)


def summed(w, x, y):
    """X^T (P - Y): the mean is missing."""
    return x.T @ residual(w, x, y)


def also_summed(w, x, y):
    """-sum_i x_i (y_i - p_i): the mean is missing."""
    return jnp.einsum("ni,nc->ic", x, residual(w, x, y))


def doubled(w, x, y):
    """2 X^T (P - Y): the mean is missing, and a factor of 2 too much."""
    return 2 * x.T @ residual(w, x, y)


def lined(*formulas, **declared):
    """The verdict on a derivation of such lines; by default of the cross-entropy by w."""
    declared = {"of": cross_entropy, "wrt": "w", "kind": "gradient", "inputs": ROWS} | declared
    made = derivation(**declared)
    for number, formula in enumerate(formulas):
        made.line(f"line {number}", formula)
    return verify(made, trials=TRIALS)


def outcomes(verdict):
    return [line.step.outcome for line in verdict.lines]


def codes(verdict):
    return [finding.code for finding in verdict.diagnosis]


@pytest.mark.parametrize(
    ("formulas", "first_wrong", "repaired_by", "steps"),
    [
        ([right], None, None, "follows"),
        ([right, also_right, right], None, None, "follows follows follows"),
        ([right, right], None, None, "follows follows"),
        ([summed], 1, None, "mistake"),
        ([right, summed, also_summed], 2, None, "follows mistake follows"),
        ([summed, also_summed, summed], 1, None, "mistake follows follows"),
        ([right, summed, also_summed, right], 2, 4, "follows mistake follows repair"),
        ([right, summed, doubled, right], 2, 4, "follows mistake mistake repair"),
        ([summed, right, doubled, right], 1, 2, "mistake repair mistake repair"),
    ],
)
def test_the_first_line_that_does_not_follow_is_named(formulas, first_wrong, repaired_by, steps):
    verdict = lined(*formulas)
    assert (verdict.first_wrong, verdict.repaired_by) == (first_wrong, repaired_by)
    assert outcomes(verdict) == steps.split()
    assert verdict.holds == (first_wrong is None)
    assert codes(verdict) == ([] if first_wrong is None else ["missing_mean"])


def test_a_wrong_line_after_a_wrong_line_is_diagnosed_by_the_step():
    _, _, third = lined(right, summed, doubled).lines
    assert [(finding.code, finding.detail) for finding in third.diagnosis] == [
        ("factor", "the formula is multiplied by 2")
    ]
    assert third.detail == "the diagnosis compares the line with line 2"


def test_a_transposed_line_is_named_and_not_refuted():
    verdict = lined(right, lambda w, x, y: right(w, x, y).T, also_right)
    assert [line.verdict for line in verdict.lines] == ["holds", "holds_other_layout", "holds"]
    assert outcomes(verdict) == ["follows"] * 3
    assert (verdict.verdict, verdict.first_wrong) == ("holds_other_layout", None)


def test_assert_holds_tells_the_line():
    made = derivation(of=cubes, wrt="x", kind="gradient", inputs={"x": real("n")}, name="by_x")
    made.line("3 x^2", lambda x: 3 * x**2)
    assert_holds(made, trials=TRIALS)
    made.line("-3 x^2", lambda x: -3 * x * x)
    with pytest.raises(AssertionError, match="line 2 does not follow from line 1: sign"):
        assert_holds(made, trials=TRIALS)
