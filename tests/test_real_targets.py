"""Losses of real targets, smoothed labels and focal loss: against optax, SciPy and definitions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from sklearn.linear_model import Ridge

from jaxnn import MLP, Data, Hyper, Spec, evaluate, losses, objective, train

RANDOM = np.random.default_rng(0)
OUTPUTS = RANDOM.normal(size=(6, 4)).astype(np.float32) * 3
TARGETS = RANDOM.normal(size=(6, 4)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, size=6)

EXPECTED = {
    "mse": (losses.mse, lambda z, t: np.mean((z - t) ** 2)),
    "mae": (losses.mae, lambda z, t: np.mean(np.abs(z - t))),
    "huber": (losses.huber, lambda z, t: float(np.mean(optax.huber_loss(z, t)))),
    "gaussian_nll": (
        losses.gaussian_nll,
        lambda z, t: -scipy.stats.norm.logpdf(t[:2], z[:2], np.exp(z[2:] / 2)).sum(),
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_loss_of_real_targets_is_its_definition(name):
    loss, expected = EXPECTED[name]
    for z, t in zip(OUTPUTS, TARGETS, strict=True):
        t = t[:2] if name == "gaussian_nll" else t
        np.testing.assert_allclose(loss(z, t), expected(z, t), rtol=2e-5)


@pytest.mark.parametrize("delta", [0.3, 2.0])
def test_the_hyperparameter_of_huber_is_where_the_loss_turns_linear(delta):
    found = losses.huber(OUTPUTS[0], TARGETS[0], delta=delta)
    expected = np.mean(optax.huber_loss(OUTPUTS[0], TARGETS[0], delta=delta))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("target", ["index", "vector"])
def test_smoothed_labels_are_those_of_optax(target):
    for z, label in zip(OUTPUTS, LABELS, strict=True):
        y = np.eye(4, dtype=np.float32)[label]
        expected = optax.softmax_cross_entropy(z, optax.smooth_labels(jnp.asarray(y), 0.2))
        given = label if target == "index" else y
        found = losses.cross_entropy(z, given, label_smoothing=0.2)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_is_its_definition(gamma):
    for z, label in zip(OUTPUTS, LABELS, strict=True):
        p = np.exp(z.astype(float)) / np.exp(z.astype(float)).sum()
        expected = -((1 - p[label]) ** gamma) * np.log(p[label])
        np.testing.assert_allclose(losses.focal(z, label, gamma=gamma), expected, rtol=1e-5)
        y = np.eye(4, dtype=np.float32)[label]
        np.testing.assert_allclose(losses.focal(z, y, gamma=gamma), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [50.0, 1e30])
def test_the_slopes_of_focal_loss_are_finite_where_the_example_is_right_or_wrong(gamma, size):
    for label in (0, 1):
        z = jnp.array([size, 0.0, -size])
        value, slope = jax.value_and_grad(losses.focal)(z, label, gamma=gamma)
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


def test_a_linear_network_finds_the_coefficients_of_ridge_regression():
    inputs = RANDOM.normal(size=(120, 3))
    targets = inputs @ [[1.0, -2.0], [0.5, 0.0], [3.0, 1.0]] + [4.0, -1.0]
    with jax.enable_x64(True):
        spec = Spec(MLP((3, 2)), steps=3000, batch_size=120, loss="mse")
        state, history = train(spec, Hyper(0.2, l2=0.1), 0, Data(inputs, targets))
    # mse is a mean over both targets: 1/N sum (z - t)^2 + 2 * (0.1 / 2) ||W||^2
    ridge = Ridge(alpha=0.1 * 120).fit(inputs, targets)
    np.testing.assert_allclose(state.params[0].weight, ridge.coef_, atol=1e-8)
    np.testing.assert_allclose(state.params[0].bias, ridge.intercept_, atol=1e-8)
    expected = np.mean((ridge.predict(inputs) - targets) ** 2)
    np.testing.assert_allclose(history.metrics["train"].loss[-1], expected, rtol=1e-8)
    assert history.metrics["train"].error is None


def test_whole_numbers_are_real_targets_too():
    inputs = np.arange(30.0).reshape(-1, 1) / 30
    spec = Spec(MLP((1, 1)), steps=3000, batch_size=30, loss="mse")
    state, _ = train(spec, Hyper(0.5), 0, Data(inputs, np.arange(30)))
    np.testing.assert_allclose(state.params[0].weight, [[30.0]], rtol=1e-3)


class Smooth(NamedTuple):
    learning_rate: float
    l2: float = 0.0
    label_smoothing: float | None = None


def test_training_reads_the_hyperparameters_of_the_loss_and_evaluation_the_defaults():
    spec = Spec(MLP((4, 4)), steps=1)
    params = spec.model.init(jax.random.key(0))
    batch = jnp.asarray(OUTPUTS), jnp.asarray(LABELS)
    logits = jax.vmap(spec.model.apply, (None, 0))(params, batch[0])
    smooth, _ = objective(spec, params, 0.0, batch, hyper=Smooth(0.1, label_smoothing=0.3))
    labels = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), 0.3)
    expected = np.mean(optax.softmax_cross_entropy(logits, labels))
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)
    found = evaluate(spec, params, Data(OUTPUTS, LABELS), hyper=Smooth(0.1, label_smoothing=0.3))
    sharp = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])
    np.testing.assert_allclose(found.loss, np.mean(sharp), rtol=1e-5)


def test_a_step_with_smoothed_labels_is_the_step_of_the_smoothed_objective():
    spec, data = Spec(MLP((4, 4)), steps=1, batch_size=6), Data(OUTPUTS, LABELS)
    state, _ = train(spec, Smooth(0.1, label_smoothing=0.3), 0, data)
    init_key, _ = jax.random.split(jax.random.key(0))
    first = spec.model.init(init_key)

    def smoothed(params):
        logits = jax.vmap(spec.model.apply, (None, 0))(params, jnp.asarray(OUTPUTS))
        labels = optax.smooth_labels(jax.nn.one_hot(LABELS, 4), 0.3)
        return optax.softmax_cross_entropy(logits, labels).mean()

    slope = jax.jit(jax.grad(smoothed))(first)
    expected = jax.tree.map(lambda x, g: x - 0.1 * g, first, slope)
    for found, wanted in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
