"""The plain gradient checker: what it passes, what it fails, and how exact it is."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from jaxnn.verify.gradcheck import gradcheck

RNG = np.random.default_rng(0)
Z = RNG.normal(size=5)
Y = np.array([0.1, 0.2, 0.3, 0.4, 0.0])


def cross_entropy(z):
    return -jnp.sum(Y * (z - jax.scipy.special.logsumexp(z)))


def cross_entropy_gradient(z):
    return jnp.exp(z) / jnp.sum(jnp.exp(z)) - Y


def sum_of_sigmoids(x):
    return jnp.sum(1 / (1 + jnp.exp(-x)))


def sigmoid_gradient(x):
    value = 1 / (1 + jnp.exp(-x))
    return value * (1 - value)


def sum_of_squares(x):
    return jnp.sum(x**2)


def mean_of_squares(x):
    return jnp.mean(x**2)


class Layer(NamedTuple):
    weight: Any
    bias: Any


LAYER = Layer(RNG.normal(size=(3, 4)), RNG.normal(size=3))
INPUT = RNG.normal(size=4)


def squared_output(layer):
    return jnp.sum((layer.weight @ INPUT + layer.bias) ** 2) / 2


def squared_output_gradient(layer):
    z = layer.weight @ INPUT + layer.bias
    return Layer(z[:, None] * INPUT, z)


@pytest.mark.parametrize(
    ("f", "x", "gradient"),
    [
        (cross_entropy, Z, cross_entropy_gradient),
        (cross_entropy, Z, np.exp(Z) / np.exp(Z).sum() - Y),
        (cross_entropy, Z, None),
        (sum_of_sigmoids, RNG.normal(size=(3, 4)), sigmoid_gradient),
        (sum_of_sigmoids, 0.0, 0.25),
        (sum_of_squares, np.array([1, -2], "f"), np.array([2, -4], "f")),
        (squared_output, LAYER, squared_output_gradient),
    ],
    ids=["S1.2", "as an array", "autodiff", "sigmoid", "scalar", "float32", "tree"],
)
def test_a_right_gradient_passes(f, x, gradient):
    check = gradcheck(f, x, gradient)
    assert check.passed
    assert check.error < 1e-8


def test_a_wrong_gradient_fails_and_its_worst_entry_is_named():
    x = np.arange(6.0).reshape(2, 3)
    wrong = 2 * x
    wrong[1, 2] = -10.0
    check = gradcheck(sum_of_squares, x, wrong)
    assert not check.passed
    assert check.worst.where == "x"
    assert check.worst.index == (1, 2)
    assert check.worst.claimed == -10.0
    assert check.worst.true == pytest.approx(10.0)
    # The distance is 20, the truth's norm 2 sqrt(0 + 1 + 4 + 9 + 16 + 25).
    assert check.error == pytest.approx(10 / 55**0.5)


def test_the_worst_entry_of_a_tree_is_named_by_its_path():
    z = LAYER.weight @ INPUT + LAYER.bias
    wrong = Layer(np.outer(z, INPUT), -z)
    check = gradcheck(squared_output, LAYER, wrong)
    assert not check.passed
    assert check.worst.where == "x.bias"
    assert check.worst.index == (int(np.argmax(np.abs(z))),)


def test_a_zero_gradient_of_a_mean_of_many_squares_fails_where_one_random_direction_passes():
    @jax.custom_vjp
    def claimed(x):
        return mean_of_squares(x)

    claimed.defvjp(lambda x: (claimed(x), x), lambda x, g: (0 * x,))
    x = 0.05 * np.random.default_rng(0).normal(size=10_000)
    jax.test_util.check_grads(claimed, (jnp.float32(x),), order=1, modes=["rev"])
    check = gradcheck(claimed, x)
    assert not check.passed
    assert check.error == pytest.approx(1.0)


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-3])
def test_the_differences_are_off_by_the_square_of_the_step(step):
    # ((x + h)^3 - (x - h)^3) / 2h = 3 x^2 + h^2
    check = gradcheck(lambda x: x**3, 2.0, 12.0, step=step)
    assert check.error == pytest.approx(step**2 / (12 + step**2), rel=1e-3)


def test_the_tolerance_decides():
    assert not gradcheck(sum_of_squares, np.ones(3), np.full(3, 2.001)).passed
    assert gradcheck(sum_of_squares, np.ones(3), np.full(3, 2.001), tolerance=1e-3).passed


def test_rounding_of_the_function_is_not_an_error_where_the_gradient_vanishes():
    # At p = y the gradient is zero, and the differences are rounding alone.
    assert gradcheck(cross_entropy, np.log(Y + 1e-12), np.zeros(5)).passed
    assert gradcheck(lambda x: 1e6 + jnp.sum(jnp.sin(x)), np.full(3, np.pi / 2)).passed


def sines_above(constant):
    return lambda x: constant + jnp.sum(jnp.sin(x))


AT = np.array([0.3, 1.0, 2.0])


@pytest.mark.parametrize("constant", [1e3, 1e6, 1e9, 1e12])
def test_a_gradient_twice_too_large_fails_however_large_the_function(constant):
    assert gradcheck(sines_above(constant), AT, 2 * np.cos(AT)).outcome == "failed"


@pytest.mark.parametrize(
    ("constant", "factor", "outcome"),
    [
        # A double near 1e6 is right to 1e-10: slopes to 1e-6 at the best step. Near 1e12: to 1e-2.
        (1e6, 1.0, "passed"),
        (1e6, 1.0002, "failed"),
        (1e9, 1.01, "failed"),
        (1e12, 1.0, "cannot tell"),
        (1e12, 1.0002, "cannot tell"),
        (1e16, 2.0, "cannot tell"),
    ],
)
def test_rounding_that_hides_the_difference_is_said(constant, factor, outcome):
    check = gradcheck(sines_above(constant), AT, factor * np.cos(AT))
    assert check.outcome == outcome
    assert check.passed is (outcome == "passed")
    assert ("rounding of f hides slopes" in check.detail) is (outcome == "cannot tell")


def test_a_constant_has_the_gradient_zero_however_large():
    assert gradcheck(lambda x: 1e12 + 0 * jnp.sum(x), AT, np.zeros(3)).passed
    assert not gradcheck(lambda x: 1e12 + 0 * jnp.sum(x), AT, np.ones(3)).passed


@pytest.mark.slow
def test_functions_of_matrices_do_not_wait_for_ever():
    def volumes(w):
        squares = w @ w.T + jnp.eye(6)
        return jnp.linalg.slogdet(squares)[1] + jnp.sum(jnp.linalg.inv(squares))

    for _ in range(5):
        assert gradcheck(volumes, np.random.default_rng(0).normal(size=(6, 6))).passed


def test_steps_are_larger_than_the_spacing_of_a_large_x():
    # Near 1e12 doubles are 1.2e-4 apart, more than the step of 1e-5.
    x = np.array([1e12])
    assert gradcheck(sum_of_squares, x, 2 * x).passed
    assert gradcheck(sum_of_squares, x, 2.01 * x).outcome == "failed"


@pytest.mark.parametrize("x", [3e-6, -3e-6, 1e-7])
def test_a_right_gradient_beside_a_kink_passes_and_the_kink_is_named(x):
    check = gradcheck(lambda x: jnp.sum(jax.nn.relu(x)), np.array([1.0, x]), [1.0, float(x > 0)])
    assert check.passed
    assert "a kink or a bend within 1e-05 of x[1]" in check.detail


def test_a_wrong_gradient_beside_a_kink_fails():
    check = gradcheck(lambda x: jnp.sum(jax.nn.relu(x)), np.array([1.0, 1e-7]), [1.0, 2.0])
    assert check.outcome == "failed"


def test_a_kink_is_named_with_both_slopes():
    check = gradcheck(lambda x: jnp.sum(jnp.abs(x)), np.array([1.0, 0.0]), [1.0, 1.0])
    assert (check.passed, check.outcome) == (False, "kink")
    assert check.worst.index == (1,)
    assert check.worst.one_sided == pytest.approx((-1.0, 1.0))
    assert "of x[1]: the slope is -1 on the left, 1 on the right" in check.detail


def test_a_mistake_elsewhere_fails_though_there_is_a_kink():
    check = gradcheck(lambda x: jnp.sum(jnp.abs(x)), np.array([1.0, 0.0]), [2.0, 0.0])
    assert check.outcome == "failed"
    assert check.worst.index == (0,)


@pytest.mark.parametrize(
    ("f", "x", "gradient"),
    [
        (sum_of_squares, np.ones(3), np.array([2.0, np.nan, 2.0])),
        (lambda x: jnp.sum(jnp.sqrt(x)), np.array([1.0, 0.0, 1.0]), np.array([0.5, 1.0, 0.5])),
    ],
    ids=["claimed", "true"],
)
def test_what_is_not_finite_fails(f, x, gradient):
    check = gradcheck(f, x, gradient)
    assert not check.passed
    assert check.worst.index == (1,)


@pytest.mark.parametrize(
    ("f", "x", "options", "message"),
    [
        (lambda x: 2 * x, np.ones(3), {}, r"f returns shape \(3,\), expected a scalar"),
        (lambda x: (x.sum(), x), np.ones(3), {}, "f returns tuple, expected a scalar"),
        (
            lambda x: jnp.float32(x.sum()),
            np.ones(3),
            {},
            "f returns float32 for x in float64, expected float64",
        ),
        (
            sum_of_squares,
            np.ones((2, 3)),
            {"gradient": np.ones((3, 2))},
            r"the gradient has shape \(3, 2\), expected that of x: \(2, 3\)",
        ),
        (
            squared_output,
            LAYER,
            {"gradient": LAYER._replace(bias=0.0)},
            r"the gradient has shape Layer\(weight=\(3, 4\), bias=\(\)\), expected that of x: Lay",
        ),
        (sum_of_squares, np.arange(3), {}, "x is of type int64, expected floating-point numbers"),
        (sum_of_squares, np.ones(0), {}, "x has no entries, expected at least one"),
        (sum_of_squares, np.ones(3), {"step": 0.0}, "step is 0.0, expected a number between"),
        (sum_of_squares, np.ones(3), {"tolerance": -1}, "tolerance is -1, expected a number"),
    ],
)
def test_bad_input_is_refused_in_one_line(f, x, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        gradcheck(f, x, **options)
    assert "\n" not in str(caught.value)
