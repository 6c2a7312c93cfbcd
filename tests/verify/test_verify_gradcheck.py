"""The plain gradient checker: what it passes, what it fails, and how exact it is."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
import scipy.special

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
    check = gradcheck(lambda x: x**3, 2.0, 12.0, step=step, tolerance=1e-2)
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


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (1.001, False)])
def test_differences_of_fast_oscillations_are_taken_at_smaller_steps(factor, passed):
    x = np.array([0.3, -0.7, 1.1])
    gradient = factor * 1e4 * np.cos(1e4 * x)
    assert gradcheck(lambda x: jnp.sum(jnp.sin(1e4 * x)), x, gradient).passed is passed


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


def squares_below(x, y):
    def f(w):
        return jnp.mean((x @ w - y) ** 2) / 2

    return f


ROWS = np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.3]])
SYMMETRIC = np.array([[1.0, 2.0], [2.0, 5.0]])


BLIND = {
    # code: where a check is blind, and where not: function, point, wrong gradient.
    "entry": [
        (lambda w: 50 * jnp.sum(w**2), np.array([1.0, last]), lambda w: [100, -100] * w)
        for last in (1e-9, 1.0)
    ],
    "sign": [
        (lambda w: jnp.sum((w - 1) ** 2), x, lambda w: -2 * (w - 1))
        for x in (np.ones(2), np.zeros(2))
    ],
    "order": [
        (lambda w, b=b: jnp.sum(b * w), np.full((2, 2), 0.3), b.T)
        for b in (SYMMETRIC, ROWS[:2])
    ],
    "branch": [
        (lambda b: jnp.sum(jax.nn.relu(b) ** 2 + b), np.array([x, 0.5]), lambda b: 2 * b + 1)
        for x in (0.3, -0.3)
    ],
    "mean": [
        (squares_below(x, np.arange(len(x))), np.full(2, 0.3),
         lambda w, x=x: x.T @ (x @ w - np.arange(len(x))))
        for x in (ROWS[:1], ROWS)
    ],
    "rows": [
        (squares_below(ROWS, y), np.full(2, 0.3),
         lambda w, y=y: ROWS.T @ (ROWS @ w - y[::-1]) / 3)
        for y in (np.full(3, 2.0), np.arange(3.0))
    ],
    "factor": [
        (lambda w: jnp.sum(jnp.sin(w) + w**3), x, lambda w: jnp.cos(w) + 2 * w)
        for x in (np.zeros(2), np.full(2, 0.3))
    ],
}  # fmt: skip


@pytest.mark.parametrize("code", BLIND)
def test_a_check_names_the_mistakes_that_pass_at_a_special_point(code):
    (f, x, wrong), elsewhere = BLIND[code]
    passed = gradcheck(f, x, wrong)
    assert passed.passed
    assert code in {blind.code for blind in passed.blind}
    assert not gradcheck(*elsewhere).passed
    assert code not in {blind.code for blind in gradcheck(*elsewhere[:2]).blind}


def test_a_check_tells_how_large_an_error_passes():
    # The norm of the gradient is 2 sqrt(1 + 4) = 4.47, the tolerance 1e-5.
    x = np.array([1.0, 2.0])
    (blind,) = [b for b in gradcheck(sum_of_squares, x).blind if b.code == "resolution"]
    assert "errors below 4.5e-05 by norm" in blind.detail
    assert gradcheck(sum_of_squares, x, 2 * x + [0.0, 4.0e-5]).passed
    assert not gradcheck(sum_of_squares, x, 2 * x + [0.0, 5.0e-5]).passed


def test_a_kink_nearer_than_the_step_is_named_though_the_gradient_passes():
    f = lambda x: jnp.sum(jax.nn.relu(x) * 1e-3 + x)  # noqa: E731
    check = gradcheck(f, np.array([1.0, 3e-6]), [1.001, 1.001], tolerance=1e-2)
    assert check.passed
    assert [blind.where for blind in check.blind if blind.code == "kink"] == ["x[1]"]


@pytest.mark.parametrize(
    ("f", "x", "gradient", "said"),
    [
        # Absolute below 1: a gradient of 1e-6 may be claimed to be 0.
        (lambda w: 1e-6 * jnp.sum(w), np.ones(3), np.zeros(3), "passes the gradient: no entry"),
        (sum_of_squares, np.ones(4), np.array([2.0, 2, 2, 3]), "with a probability of 0.2"),
        # Relative to the entry: 1e-4 beside a norm of 200.
        (sum_of_squares, np.array([100.0, 0.5]), np.array([200, 1.0001]), "small beside the norm"),
        (sum_of_squares, np.ones(2), np.full(2, 2.0), "gradcheck_naive passes the gradient"),
    ],
    ids=["small", "random entry", "norm", "right"],
)
def test_a_check_tells_what_the_checker_of_s4_6_says(f, x, gradient, said):
    check = gradcheck(f, x, gradient)
    assert said in check.naive
    largest = np.maximum(1, np.maximum(np.abs(gradient), np.abs(jax.grad(f)(x))))
    passes = bool(np.all(np.abs(gradient - jax.grad(f)(x)) <= 1e-5 * largest))
    assert ("gradcheck_naive passes" in check.naive) is passes


def looped(x):
    total = 0.0
    for row, value in enumerate(x):
        total += (row + 1) * np.sin(value)
    x[0] = 7.0  # of the copy
    return total


def looped_gradient(x):
    slopes = np.empty_like(x)
    for row in range(len(x)):
        slopes[row] = (row + 1) * np.cos(x[row])
    return slopes


def test_a_function_of_numpy_with_loops_and_writes_is_checked():
    x = np.array([0.3, 1.0, 2.0])
    check = gradcheck(looped, x, looped_gradient)
    assert check.passed
    assert check.error < 1e-8
    assert check.detail == "f writes into x: every call gets a copy"
    assert x.tolist() == [0.3, 1.0, 2.0]


def test_a_wrong_gradient_of_a_numpy_function_fails_at_the_entry():
    check = gradcheck(looped, np.array([0.3, 1.0, 2.0]), lambda x: looped_gradient(x) * [1, 1, 2])
    assert check.outcome == "failed"
    assert check.worst.index == (2,)
    assert check.worst.true == pytest.approx(3 * np.cos(2.0))


def test_a_function_of_scipy_and_a_tree_is_checked():
    def f(tree):
        return float(scipy.special.gammaln(tree["a"]).sum() * np.asarray(tree["b"]))

    x = {"a": np.array([1.5, 2.5]), "b": 2.0}
    gradient = {
        "a": 2 * scipy.special.digamma(x["a"]),
        "b": scipy.special.gammaln(x["a"]).sum(),
    }
    assert gradcheck(f, x, gradient).passed
    assert not gradcheck(f, x, gradient | {"b": 1.0}).passed


def test_the_rounding_of_a_numpy_function_is_not_an_error():
    check = gradcheck(lambda x: 1e16 + np.array(x).sum() * 1.0, np.ones(3), np.zeros(3))
    assert check.outcome == "cannot tell"


class Tensor:
    """What a check uses of a tensor of PyTorch."""

    def __init__(self, array):
        self.array = np.array(array, float)

    def detach(self):
        return self

    def numpy(self, force):
        return self.array


USED = ModuleType("torch")
vars(USED)["detach"] = lambda value: value


def test_a_module_that_the_function_uses_is_no_tensor():
    assert gradcheck(lambda x: float(USED.detach(x) @ x), np.ones(2), 2 * np.ones(2)).passed


def test_a_function_of_tensors_gets_tensors(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(tensor=Tensor))

    def f(x):
        return Tensor(np.sum(x.array**2))

    x = Tensor([1.0, 2.0])
    assert gradcheck(f, x, lambda x: Tensor(2 * x.array)).passed
    assert gradcheck(f, x.array, lambda x: Tensor(2 * x.array)).passed
    assert not gradcheck(f, x, Tensor([2.0, 3.0])).passed


@pytest.mark.parametrize(
    ("f", "gradient", "error", "message"),
    [
        (looped, None, ValueError, "gradient is None, expected the gradient: JAX does not trace f"),
        (
            lambda x: np.random.normal() + np.array(x).sum(),
            np.ones(2),
            ValueError,
            "f gives two values at equal inputs, expected no randomness",
        ),
        (lambda x: np.float32(np.array(x).sum()), np.ones(2), ValueError, "f returns float32 for"),
        (lambda x: np.array(x), np.ones(2), ValueError, r"f returns shape \(2,\), expected a sc"),
        (lambda x: str(np.array(x)), np.ones(2), ValueError, "f returns type <U.*, expected a sc"),
        (lambda x: {}[int(np.array(x)[0])], np.ones(2), KeyError, "1"),
    ],
    ids=["no gradient", "random", "float32", "array", "text", "raises"],
)
def test_a_plain_function_that_cannot_be_checked_is_refused_in_one_line(
    f, gradient, error, message
):
    with pytest.raises(error, match=message) as caught:
        gradcheck(f, np.ones(2), gradient)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda w: jnp.sum((w - 1) ** 2), np.ones(2)),
        (lambda w: jnp.sum((w - 0.3) ** 4), np.full(2, 0.3)),
        (lambda w: jnp.sum(w**3), np.zeros(2)),
        (lambda w: jnp.sum(jnp.cosh(w)), np.zeros(2)),
    ],
    ids=["rounding of x", "fourth power", "third power", "even"],
)
def test_a_gradient_of_zero_is_right_where_the_function_is_flat(f, x):
    # The differences are 1e-16 by the rounding of x, or h^2 by the third derivative.
    assert gradcheck(f, x, np.zeros(2)).passed
    assert not gradcheck(f, x, np.full(2, 1e-4)).passed
