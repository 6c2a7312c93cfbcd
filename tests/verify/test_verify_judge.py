"""Right, wrong or only inaccurate, at single points: mpmath's own formulas are the judge."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from samples import made, textbook_softmax

from jaxnn.verify import real
from jaxnn.verify.comparison import trace_claim
from jaxnn.verify.exact.judge import Judge

SCALAR = {"x": real()}
LOGITS = np.array([37.4, 0.0, -1.0, -2.0])


def judged(claimed, *point):
    """The judgement of a claim whose truth is one array, at a point of its flat inputs."""
    point = [np.asarray(value, float) for value in point]
    with jax.enable_x64(True):
        side = trace_claim(claimed, tuple({"n": 4}.items()))
        computed = [np.asarray(leaf)[0] for leaf in side.run(*(v[None] for v in point))[0]]
        return Judge(side, [lambda array: array])(point, computed)


def bits_lost(computed, true):
    """Of the 53: the binary logarithm of the error in units of the true value's rounding."""
    with mpmath.workprec(400):
        error = abs(mpmath.mpf(float(computed)) - true) / abs(true) * 2**53
        return float(min(53, mpmath.log(error, 2))) if error > 1 else 0.0


def precise_softmax(z):
    shifted = [mpmath.exp(mpmath.mpf(float(value)) - mpmath.mpf(float(max(z)))) for value in z]
    return [value / mpmath.fsum(shifted) for value in shifted]


def jacobian_from(softmax):
    def formula(x):
        p = softmax(x)
        return jnp.diag(p) - jnp.outer(p, p)

    return formula


def jacobian_without_cancellation(x):
    """p_i times the sum of the other probabilities on the diagonal."""
    p = jax.nn.softmax(x)
    other = (1 - jnp.eye(len(p))) @ p
    return jnp.where(jnp.eye(len(p), dtype=bool), p * other, -jnp.outer(p, p))


@pytest.mark.parametrize("softmax", [jax.nn.softmax, textbook_softmax])
def test_the_textbook_softmax_jacobian_loses_more_than_fifty_bits_at_one_dominant(softmax):
    claimed = made(jacobian_from(softmax), of=jax.nn.softmax, kind="jacobian")
    judgement = judged(claimed, LOGITS)
    with mpmath.workprec(400):
        p = precise_softmax(LOGITS)
        true = p[0] * (p[1] + p[2] + p[3])
    assert (judgement.outcome, judgement.index) == ("right", (0, 0))
    assert judgement.bits_lost > 50
    assert judgement.bits_lost == pytest.approx(bits_lost(judgement.formula, true), abs=1e-6)
    assert judgement.reference == pytest.approx(float(true), rel=1e-15)


def test_a_softmax_jacobian_without_cancellation_loses_next_to_nothing_there():
    claimed = made(jacobian_without_cancellation, of=jax.nn.softmax, kind="jacobian")
    judgement = judged(claimed, LOGITS)
    assert judgement.outcome == "right"
    assert judgement.bits_lost < 4


LOG_OF_ONE_MINUS_SIGMOID = lambda x: jnp.log(1 - jax.nn.sigmoid(x))  # noqa: E731
STABLE = lambda x: -jnp.logaddexp(0.0, x)  # noqa: E731


@pytest.mark.parametrize("x", [-40.0, -12.0, -3.0, 0.5, 10.0, 30.0, 36.0, 40.0, 745.0])
def test_the_logarithm_of_one_minus_the_sigmoid_loses_as_many_bits_as_mpmath_says(x):
    claimed = made(LOG_OF_ONE_MINUS_SIGMOID, of=STABLE, kind="value", wrt=(), inputs=SCALAR)
    judgement = judged(claimed, x)
    with mpmath.workprec(3000):
        true = -mpmath.log1p(mpmath.exp(mpmath.mpf(x)))
    computed = judgement.formula
    assert judgement.outcome == "right"
    assert np.isfinite(computed) == (x < 37)  # beyond, 1 - sigmoid(x) is 0
    expected = bits_lost(computed, true) if np.isfinite(computed) else 53.0
    assert judgement.bits_lost == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize("x", [-745.0, -40.0, 0.0, 40.0, 745.0, 1e4])
def test_the_stable_logarithm_is_accurate_whatever_the_function_does(x):
    claimed = made(STABLE, of=LOG_OF_ONE_MINUS_SIGMOID, kind="value", wrt=(), inputs=SCALAR)
    judgement = judged(claimed, x)
    assert judgement.outcome in ("right", "undefined")
    assert judgement.bits_lost < 2


KINKS = {
    "relu": (lambda x: jnp.maximum(x, 0), lambda x: (x > 0) * 1.0, 0.0, (0, 1)),
    "jax.nn.relu": (jax.nn.relu, lambda x: (x > 0) * 1.0, 0.0, (0, 1)),
    "abs": (lambda x: jnp.abs(x), lambda x: jnp.sign(x), 0.0, (-1, 1)),
    "max with a number": (lambda x: jnp.maximum(3 * x, 6.0), lambda x: 3.0 * (x > 2), 2.0, (0, 3)),
    "min": (lambda x: jnp.minimum(x, 1), lambda x: (x < 1) * 1.0, 1.0, (0, 1)),
    "clip": (lambda x: jnp.clip(x, -1, 1), lambda x: (abs(x) < 1) * 1.0, -1.0, (0, 1)),
    "leaky": (
        lambda x: jnp.where(x > 0, x, 0.1 * x) + 0 * jnp.abs(x),
        lambda x: jnp.where(x >= 0, 1.0, 0.1),
        0.0,
        (0.1, 1),
    ),
    "any value there": (jax.nn.relu, lambda x: jnp.where(x == 0, 7.0, x > 0), 0.0, (0, 1)),
}


@pytest.mark.parametrize("what", KINKS)
def test_where_there_is_no_derivative_both_one_sided_ones_are_found(what):
    of, formula, x, one_sided = KINKS[what]
    judgement = judged(made(formula, of=of, inputs=SCALAR), x)
    assert judgement.outcome == "kink"
    assert judgement.one_sided == pytest.approx(one_sided)


@pytest.mark.parametrize("what", KINKS)
@pytest.mark.parametrize("aside", [-0.25, 0.25])
def test_beside_a_kink_the_formula_is_right(what, aside):
    of, formula, x, _ = KINKS[what]
    assert judged(made(formula, of=of, inputs=SCALAR), x + aside).outcome == "right"


@pytest.mark.parametrize("what", KINKS)
def test_beside_a_kink_a_wrong_formula_is_wrong(what):
    of, formula, x, _ = KINKS[what]
    claimed = made(lambda x: formula(x) + 1.0, of=of, inputs=SCALAR)
    assert {judged(claimed, x + aside).outcome for aside in (-0.25, 0.25)} == {"wrong"}


def test_a_tie_for_the_largest_is_a_kink():
    claimed = made(lambda x: jax.nn.one_hot(jnp.argmax(x), len(x)), of=lambda x: jnp.max(x))
    tie = judged(claimed, [2.0, 2.0, -1.0, -1.0])
    assert (tie.outcome, tie.one_sided) == ("kink", (0.0, 1.0))
    assert judged(claimed, [2.0, 1.0, -1.0, -1.0]).outcome == "right"


SMOOTH_AT_A_CASE = {
    "the square of relu": (lambda x: jnp.maximum(x, 0) ** 2, lambda x: 2 * x * (x > 0), 0.0),
    "x |x|": (lambda x: x * jnp.abs(x), lambda x: 2 * jnp.abs(x), 0.0),
    "the same on either side": (
        lambda x: jnp.where(x > 1, x**2, 2 * x - 1),
        lambda x: jnp.where(x > 1, 2 * x, 2.0),
        1.0,
    ),
}


@pytest.mark.parametrize("what", SMOOTH_AT_A_CASE)
def test_where_the_derivative_exists_a_change_of_case_is_no_kink(what):
    of, formula, x = SMOOTH_AT_A_CASE[what]
    assert judged(made(formula, of=of, inputs=SCALAR), x).outcome == "right"
    wrong = made(lambda x: formula(x) + 1.0, of=of, inputs=SCALAR)
    assert judged(wrong, x).outcome == "wrong"


REMOVABLE = {
    "x^2 / x": (lambda x: x, lambda x: x**2 / x, 0.0),
    "sin(x) / x": (lambda x: jnp.sinc(x / jnp.pi), lambda x: jnp.sin(x) / x, 0.0),
    "(x^2 - 1) / (x - 1)": (lambda x: x + 1, lambda x: (x**2 - 1) / (x - 1), 1.0),
}


@pytest.mark.parametrize("what", REMOVABLE)
def test_a_removable_singularity_is_right_but_not_a_number_in_float64(what):
    of, formula, x = REMOVABLE[what]
    claimed = made(formula, of=of, kind="value", wrt=(), inputs=SCALAR)
    assert judged(claimed, x).outcome == "right"
    wrong = made(lambda x: 2 * formula(x), of=of, kind="value", wrt=(), inputs=SCALAR)
    outcome = judged(wrong, x).outcome
    assert outcome == ("right" if what == "x^2 / x" else "wrong")  # 2 * 0 is 0


def test_a_pole_is_undefined():
    claimed = made(lambda x: -1 / x**2, of=lambda x: 1 / x, inputs=SCALAR)
    assert judged(claimed, 0.0).outcome == "undefined"


FORMULAS = {
    # a formula of the same value, an input, and how many bits it loses there, at least and at most
    "1 - cos x": (lambda x: 2 * jnp.sin(x / 2) ** 2, lambda x: 1 - jnp.cos(x), 1e-4, 20, 40),
    "exp(x) - 1": (lambda x: jnp.expm1(x), lambda x: jnp.exp(x) - 1, 1e-9, 20, 40),
    "log(1 + x)": (lambda x: jnp.log1p(x), lambda x: jnp.log(1 + x), 1e-9, 20, 40),
    "expm1": (lambda x: jnp.exp(x) - 1, lambda x: jnp.expm1(x), 1e-9, 0, 2),
    "a sum in another order": (lambda x: 3 * x, lambda x: x + (x + x), 0.1, 0, 2),
}


@pytest.mark.parametrize("what", FORMULAS)
def test_accuracy_is_that_of_the_formula_and_not_of_the_function(what):
    of, formula, x, least, most = FORMULAS[what]
    judgement = judged(made(formula, of=of, kind="value", wrt=(), inputs=SCALAR), x)
    assert judgement.outcome == "right"
    assert least <= judgement.bits_lost <= most


def test_bits_that_rounding_the_inputs_loses_are_not_counted():
    inputs = {"a": real(), "b": real()}
    claimed = made(
        lambda a, b: a - b, of=lambda a, b: (a - b) * 1.0, kind="value", wrt=(), inputs=inputs
    )
    assert judged(claimed, 1.0, 1.0 + 2.0**-50).bits_lost == 0.0
    squares = made(
        lambda a, b: a**2 - b**2,
        of=lambda a, b: (a - b) * (a + b),
        kind="value",
        wrt=(),
        inputs=inputs,
    )
    a, b = 1.1, 1.1 * (1 + 1e-12)
    with mpmath.workprec(400):
        true = mpmath.mpf(a) ** 2 - mpmath.mpf(b) ** 2
    assert bits_lost(a**2 - b**2, true) > 27  # of the 53 more than half
    assert judged(squares, a, b).bits_lost < 4
