"""Counterexamples: short, small, away from kinks, and at them the formula really is wrong."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import TRIALS, VECTOR, cross_entropy, cubes, made

from jaxnn.verify import label, one_hot, positive, real, simplex, verify
from jaxnn.verify.comparison import norms


def mean_of_squares(x, w):
    """The mean of (x w)_i^2 over the rows of x."""
    return jnp.mean((x @ w) ** 2)


def with_penalty(x, w, strength):
    return mean_of_squares(x, w) + strength / 2 * w @ w


def relu_layer(w, x):
    return jnp.sum(jax.nn.relu(w @ x))


def tanh_layer(w, x):
    return jnp.sum(jnp.tanh(w @ x))


def error_of_softmax(z, y):
    return 0.5 * jnp.sum((jax.nn.softmax(z) - y) ** 2)


DATA = {"x": real("B", "n"), "w": real("n")}
LAYER = {"w": real("out", "in"), "x": real("in")}
PROBABILITIES = {"z": real("n"), "y": simplex("n")}

# of, by, formula, inputs
WRONG = {
    "sign": (cubes, "x", lambda x: -3 * x**2, VECTOR),
    "negative numbers only": (
        lambda x: jnp.sum(x**2), "x", lambda x: jnp.where(x < 0, x, 2 * x), VECTOR,
    ),
    "all but the first": (
        lambda x: jnp.sum(x**2), "x", lambda x: (2 + (jnp.arange(len(x)) > 0)) * x, VECTOR,
    ),
    "sign of p - y": (cross_entropy, "z", lambda z, y: y - jax.nn.softmax(z), PROBABILITIES),
    "p - y of another loss": (
        error_of_softmax, "z", lambda z, y: jax.nn.softmax(z) - y,
        PROBABILITIES | {"y": one_hot("n")},
    ),
    "the mean": (mean_of_squares, "w", lambda x, w: 2 * x.T @ (x @ w), DATA),
    "the penalty": (
        with_penalty, "w", lambda x, w, strength: 2 * x.T @ (x @ w) / len(x),
        DATA | {"strength": positive()},
    ),
    "the derivative of tanh": (
        tanh_layer, "w", lambda w, x: jnp.outer(jnp.ones(len(w)), x), LAYER,
    ),
    "sign beside kinks": (
        relu_layer, "w", lambda w, x: -jnp.outer((w @ x > 0) * 1.0, x), LAYER,
    ),
    "the other side of a kink": (
        relu_layer, "w", lambda w, x: jnp.outer((w @ x < 0) * 1.0, x), LAYER,
    ),
    "the smallest for the largest": (
        lambda x: jnp.max(x), "x", lambda x: jax.nn.one_hot(jnp.argmin(x), len(x)), VECTOR,
    ),
    "a label": (
        lambda z, k: -jax.nn.log_softmax(z)[k], "z",
        lambda z, k: jax.nn.one_hot(k, len(z)) - jax.nn.softmax(z),
        {"z": real("n"), "k": label("n")},
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """The verdicts, each asked for once."""
    verdicts = {}

    def verdict(what):
        if what not in verdicts:
            of, by, formula, inputs = WRONG[what]
            claimed = made(formula, of=of, wrt=by, inputs=inputs)
            verdicts[what] = verify(claimed, trials=TRIALS)
        return verdicts[what]

    return verdict


def gradient(what, point):
    """Of the function, by the parameter, in float64."""
    of, by, _, _ = WRONG[what]
    with jax.enable_x64(True):
        fixed = {name: jnp.asarray(value) for name, value in point.items() if name != by}
        return np.asarray(jax.grad(lambda part: of(**fixed, **{by: part}))(point[by]))


def value_of_formula(what, point):
    with jax.enable_x64(True):
        return np.asarray(WRONG[what][2](**{name: jnp.asarray(v) for name, v in point.items()}))


@pytest.mark.parametrize("what", WRONG)
def test_the_formula_is_wrong_at_its_counterexample(what, found):
    verdict = found(what)
    assert verdict.verdict == "refuted"
    point = verdict.counterexample.inputs
    claimed, true = value_of_formula(what, point), gradient(what, point)
    assert np.linalg.norm(claimed - true) > 0.01 * np.linalg.norm(true)


@pytest.mark.parametrize("what", WRONG)
def test_the_worst_entry_is_the_one_that_is_furthest_off(what, found):
    verdict = found(what)
    claimed, true = (f(what, verdict.counterexample.inputs) for f in (value_of_formula, gradient))
    worst = verdict.worst
    assert worst.where == WRONG[what][1]
    assert worst.claimed == pytest.approx(claimed[worst.index])
    assert worst.true == pytest.approx(true[worst.index])
    assert abs(worst.claimed - worst.true) == pytest.approx(np.max(np.abs(claimed - true)))


@pytest.mark.parametrize("what", WRONG)
def test_counterexamples_are_small_and_short(what, found):
    counterexample = found(what).counterexample
    assert max(counterexample.sizes.values()) <= 3
    numbers = [float(n) for value in counterexample.inputs.values() for n in np.ravel(value)]
    assert all(len(f"{abs(number):g}") <= 3 for number in numbers)


@pytest.mark.parametrize("what", WRONG)
def test_the_inputs_have_the_sizes_that_are_told(what, found):
    inputs, counterexample = WRONG[what][3], found(what).counterexample
    assert set(counterexample.inputs) == set(inputs)
    for name, value in counterexample.inputs.items():
        assert np.shape(value) == inputs[name].resolve(counterexample.sizes)


@pytest.mark.parametrize("what", WRONG)
def test_counterexamples_are_away_from_kinks(what, found):
    """The gradient does not jump within a ten-thousandth around them."""
    point, by = found(what).counterexample.inputs, WRONG[what][1]
    there = gradient(what, point)
    rng = np.random.default_rng(0)
    for _ in range(5):
        aside = 1e-4 * rng.uniform(-1, 1, size=np.shape(point[by]))
        assert np.allclose(gradient(what, point | {by: point[by] + aside}), there, atol=0.01)


def test_a_number_that_has_to_be_negative_is(found):
    x = found("negative numbers only").counterexample.inputs["x"]
    assert np.any(np.asarray(x) < 0)


def test_more_than_one_example_is_kept_where_one_would_hide_the_mistake(found):
    assert found("the mean").counterexample.sizes["B"] > 1


@pytest.mark.parametrize("what", ["sign of p - y", "p - y of another loss"])
def test_probabilities_stay_probabilities(what, found):
    y = np.asarray(found(what).counterexample.inputs["y"])
    assert np.all(y >= 0)
    assert y.sum() == pytest.approx(1.0)


def p_times_p_minus_y(z, y):
    p = jax.nn.softmax(z)
    return p * (p - y)


def two_ways_to_be_wrong(z, y):
    """With the normaliser held constant, and with S4.3's -S_j S_j off the Jacobian's diagonal."""
    p = np.exp(z) / np.sum(np.exp(z))
    off_diagonal = -np.outer(np.ones(len(p)), p**2) * (1 - np.eye(len(p)))
    return p * (p - y), (p - y) @ (np.diag(p * (1 - p)) + off_diagonal)


def test_alternatives_come_with_an_input_that_tells_them_apart():
    claimed = made(p_times_p_minus_y, of=error_of_softmax, wrt="z", inputs=PROBABILITIES)
    verdict = verify(claimed, trials=TRIALS)
    assert {finding.code for finding in verdict.diagnosis} == {"normaliser_constant", "wrong_value"}
    assert all("alternative" in finding.detail for finding in verdict.diagnosis)
    probabilities = np.array([0.2, 0.5, 0.3])
    one, other = two_ways_to_be_wrong(np.array([1.0, -0.5, 0.2]), probabilities)
    np.testing.assert_allclose(one, other)
    told = verdict.detail[verdict.detail.index("{") : verdict.detail.index("}") + 1]
    point = {name: np.array(value) for name, value in ast.literal_eval(told).items()}
    one, other = two_ways_to_be_wrong(**point)
    assert np.linalg.norm(one - other) > 0.01 * np.linalg.norm(one)


def test_no_trials_have_no_norms():
    """As where the function has no value at any input of a size."""
    assert norms(np.zeros((0, 1, 2))).shape == (0,)
