"""Training: against plain NumPy and Flax, step by step; what is frozen, what is evaluated."""

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from jaxnn import (
    MLP,
    NEVER,
    Data,
    Hyper,
    Layer,
    Network,
    Spec,
    cross_entropy,
    evaluate,
    init_state,
    objective,
    train,
    train_step,
)
from jaxnn.minibatch import minibatch_indices, shuffle_key
from jaxnn.train import Layout, map_blocks, run

KEY = jax.random.key(5)


def softmax_np(z):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def regression_gradient(weight, bias, x, y, l2):
    """Softmax regression by S2.2 and S2.4, in NumPy, one example per row."""
    difference = (softmax_np(x @ weight.T + bias) - np.eye(len(bias))[y]) / len(x)
    return difference.T @ x + l2 * weight, difference.sum(axis=0)


class Rule:
    """The optimizers' updates, written out."""

    def __init__(self, hyper):
        self.h, self.m, self.v, self.t = hyper, 0.0, 0.0, 0

    def sgd(self, g):
        return self.h.learning_rate * g

    def momentum(self, g):
        self.m = self.h.momentum * self.m + g
        return self.h.learning_rate * self.m

    def nesterov(self, g):
        self.m = self.h.momentum * self.m + g
        return self.h.learning_rate * (g + self.h.momentum * self.m)

    def adam(self, g):
        h, self.t = self.h, self.t + 1
        self.m = h.b1 * self.m + (1 - h.b1) * g
        self.v = h.b2 * self.v + (1 - h.b2) * g**2
        m, v = self.m / (1 - h.b1**self.t), self.v / (1 - h.b2**self.t)
        return h.learning_rate * m / (np.sqrt(v) + h.eps)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
def test_training_is_what_numpy_does_with_the_same_minibatches(x64, pixels, optimizer):
    hyper = Hyper(0.1, l2=0.01, momentum=0.8, b1=0.7, b2=0.95, eps=1e-6)
    spec = Spec(model=MLP((12, 3)), steps=12, batch_size=40, optimizer=optimizer)
    state, _ = train(spec, hyper, KEY, pixels)

    init_key, order_key = jax.random.split(KEY)
    (layer,) = spec.model.init(init_key)
    weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)
    weight_rule, bias_rule = Rule(hyper), Rule(hyper)
    shuffle = shuffle_key(order_key)
    batches = jax.vmap(lambda t: minibatch_indices(shuffle, t, 40, 130))(jnp.arange(12))
    for i in np.asarray(batches):
        x, y = pixels.inputs[i] * float(pixels.scale), pixels.targets[i]
        dw, db = regression_gradient(weight, bias, x, y, hyper.l2)
        weight = weight - getattr(weight_rule, optimizer)(dw)
        bias = bias - getattr(bias_rule, optimizer)(db)
    np.testing.assert_allclose(state.params[0].weight, weight, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.params[0].bias, bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [(1 + np.cos(np.pi * t / 8)) / 2 for t in range(8)]),
        ("step", [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        (lambda steps: lambda t: 1 / (1 + t), [1 / (1 + t) for t in range(8)]),
    ],
)
def test_schedule_scales_the_learning_rate(x64, pixels, schedule, factors):
    def length(at):
        spec = Spec(model=MLP((12, 3)), steps=8, batch_size=10, schedule=schedule)
        state = init_state(spec, Hyper(0.1), KEY)._replace(iteration=jnp.int32(at))
        after, _ = train_step(spec, Hyper(0.1), state, batch)
        return float(jnp.linalg.norm(after.params[0].weight - state.params[0].weight))

    batch = jnp.asarray(pixels.inputs[:10] / 255), jnp.asarray(pixels.targets[:10])
    lengths = [length(at) for at in range(8)]
    np.testing.assert_allclose(np.array(lengths) / lengths[0], factors, rtol=1e-5, atol=1e-8)


def test_an_import_does_not_wait_for_what_most_trainings_do_without():
    code = "import sys, jaxnn, jaxnn.search; print({'optax', 'chex', 'scipy'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_any_optax_optimizer_of_ones_own_hyperparameters(pixels):
    class Own(Hyper):
        pass

    spec = Spec(
        model=MLP((12, 3)),
        steps=200,
        batch_size=20,
        optimizer=lambda h: optax.rmsprop(h.learning_rate, decay=h.b2, eps=h.eps),
    )
    _, history = train(spec, Own(0.01, b2=0.9, eps=1e-8), KEY, pixels)
    assert history.metrics["train"].error[-1] < 0.05


def test_objective_penalises_weights_only():
    layers = (Layer(jnp.full((2, 3), 2.0), jnp.full(2, 100.0)),)
    spec = Spec(model=MLP((3, 2)), steps=1, batch_size=1)
    batch = jnp.ones((4, 3)), jnp.array([0, 1, 0, 1])
    regularised, loss = objective(spec, layers, 0.5, batch)
    # 1/2 * 0.5 * 6 entries * 2^2, on top of log 2 for two equal logits
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(regularised - loss, 6.0, rtol=1e-5)


@pytest.mark.parametrize("sizes", [(12, 3), (12, 40, 3)])
def test_examples_in_rows_and_in_columns_train_the_same(x64, pixels, sizes):
    def trained(columns):
        spec = Spec(model=MLP(sizes), steps=50, batch_size=20)
        hyper = Hyper(0.3, l2=0.01)
        state, history = run(
            spec, hyper, KEY, pixels, {"train": pixels}, layout=Layout(columns=columns)
        )
        return state.params, history.metrics

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        trained(True),
        trained(False),
    )


def test_l2_does_not_touch_the_bias_of_the_first_step(pixels):
    spec = Spec(model=MLP((12, 5, 3)), steps=1, batch_size=130)
    free, _ = train(spec, Hyper(0.1, 0.0), KEY, pixels)
    penalised, _ = train(spec, Hyper(0.1, 10.0), KEY, pixels)
    for a, b in zip(free.params, penalised.params, strict=True):
        np.testing.assert_allclose(a.bias, b.bias, rtol=1e-4, atol=1e-6)
        assert np.abs(a.weight - b.weight).max() > 0.01


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1203])
def test_evaluate_counts_every_example_once(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    y = rng.integers(0, 3, n).astype(np.int32)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    params = (Layer(jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)),)
    metrics = evaluate(Spec(model=MLP((4, 3)), steps=1), params, Data(x, y))
    p = softmax_np(x @ weight.T + bias)
    np.testing.assert_allclose(metrics.loss, -np.log(p[np.arange(n), y]).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics.error, (p.argmax(axis=1) != y).mean(), rtol=1e-6)


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("n", [0, 1, 499, 500, 501, 1203])
def test_blocks_give_every_example_its_result(n, fill):
    rng, shapes = np.random.default_rng(n), []
    x, y = rng.normal(size=(n, 4)), rng.integers(0, 3, n)

    def function(x, y):
        shapes.append((x.shape, y.shape, x.dtype, y.dtype))
        return {"sum": x.sum(axis=1) + y, "label": y}

    found = map_blocks(function, x, y, fill=fill)
    np.testing.assert_array_equal(found["sum"], x.sum(axis=1) + y)
    np.testing.assert_array_equal(found["label"], y)
    assert len(set(shapes)) == 1 or not fill


def test_history_is_what_a_shorter_run_ends_with(pixels):
    held_out = Data(pixels.inputs[:31], pixels.targets[:31], pixels.scale)
    model = MLP((12, 6, 3))
    spec = Spec(model=model, steps=30, batch_size=20, evaluate_at=(0, 4, 25))
    _, history = train(spec, Hyper(0.3, 1e-3), KEY, pixels, {"train": pixels, "test": held_out})
    assert history.iteration.tolist() == [0, 4, 25, 30]
    for i, steps in enumerate([4, 25, 30], start=1):
        short = Spec(model=model, steps=steps, batch_size=20)
        state, _ = train(short, Hyper(0.3, 1e-3), KEY, pixels)
        for name, data in (("train", pixels), ("test", held_out)):
            expected = evaluate(spec, state.params, data)
            np.testing.assert_allclose(history.metrics[name].loss[i], expected.loss, rtol=1e-5)
            np.testing.assert_allclose(history.metrics[name].error[i], expected.error, rtol=1e-5)


def test_numpy_integers_make_the_same_spec():
    given: dict[str, Any] = {"steps": np.int64(30), "batch_size": np.int32(5)}
    given["evaluate_at"] = tuple(np.arange(0, 30, 10))
    spec = Spec(model=MLP((12, 3)), **given)
    assert spec == Spec(model=MLP((12, 3)), steps=30, batch_size=5, evaluate_at=(0, 10, 20))
    assert hash(spec) == hash(Spec(**vars(spec)))


def test_reported_loss_is_unregularised(pixels):
    spec = Spec(model=MLP((12, 3)), steps=1, batch_size=130)
    state, history = train(spec, Hyper(1e-6, l2=1e3), KEY, pixels)
    _, loss = objective(spec, state.params, 0.0, (pixels.inputs / 255.0, pixels.targets))
    np.testing.assert_allclose(history.metrics["train"].loss[-1], loss, rtol=1e-5)


def test_same_run_twice_gives_the_same_bits(pixels):
    spec = Spec(model=MLP((12, 6, 3)), steps=20, batch_size=20, evaluate_at=(0, 10))
    first, again = (train(spec, Hyper(0.3), KEY, pixels) for _ in range(2))
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True)
    )


def test_one_program_serves_every_value_of_the_hyperparameters(pixels):
    traces = []

    def apply(params, x):
        traces.append(1)
        return MLP((12, 3)).apply(params, x)

    spec = Spec(model=Network(MLP((12, 3)).init, apply), steps=5, batch_size=20)
    train(spec, Hyper(0.1, 0.1), KEY, pixels)
    program = len(traces)
    train(spec, Hyper(0.2, 0.0, 0.5), jax.random.key(8), pixels)
    # The check of the shapes at the door traces evaluation, the program is not traced again.
    assert len(traces) - program <= 2


class Flax(nn.Module):
    """A Flax network with one tanh layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(7)(x))
        return nn.Dense(3)(x)


def test_flax_network_trains_to_the_same_numbers_as_ours(x64, pixels):
    ours = MLP((12, 7, 3), activation="tanh")

    def from_ours(key):
        names = ("Dense_0", "Dense_1")
        layers = zip(names, ours.init(key), strict=True)
        return {"params": {n: {"kernel": a.weight.T, "bias": a.bias} for n, a in layers}}

    hyper = Hyper(0.2, 1e-2, 0.9)
    results = []
    for model in (ours, Network(from_ours, Flax().apply)):
        spec = Spec(model=model, steps=25, batch_size=30, optimizer="momentum", evaluate_at=(0, 10))
        results.append(train(spec, hyper, KEY, pixels)[1].metrics["train"])
    np.testing.assert_allclose(results[0].loss, results[1].loss, rtol=1e-10)
    assert results[0].loss[-1] < results[0].loss[0]


def test_flax_network_with_its_own_initialisation_learns(pixels):
    flax = Flax()
    model = Network(lambda key: flax.init(key, jnp.zeros(12)), flax.apply)
    spec = Spec(model=model, steps=100, batch_size=20, optimizer="adam")
    _, history = train(spec, Hyper(0.01), KEY, pixels)
    assert history.metrics["train"].error[-1] < 0.05


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_probability_vectors_as_targets_train_like_indices(x64, pixels, loss):
    one_hot = pixels._replace(targets=np.eye(3)[pixels.targets])
    spec = Spec(model=MLP((12, 3)), steps=20, batch_size=20, loss=loss)
    states = [train(spec, Hyper(0.5), KEY, data)[0] for data in (pixels, one_hot)]
    np.testing.assert_allclose(states[0].params[0].weight, states[1].params[0].weight, rtol=1e-10)


def test_logistic_loss_trains_a_network_of_one_logit(pixels):
    binary = pixels._replace(targets=(pixels.targets == 1).astype(np.int32))
    spec = Spec(model=MLP((12, 1)), steps=200, batch_size=20, loss="logistic")
    _, history = train(spec, Hyper(1.0), KEY, binary)
    assert history.metrics["train"].error[-1] < 0.1


def infinite_beyond(limit):
    """Cross-entropy that is infinite once a logit is larger than the limit."""
    return lambda z, y: cross_entropy(z, y) + jnp.where(jnp.abs(z).max() > limit, jnp.inf, 0)


@pytest.mark.parametrize(("optimizer", "rate"), [("sgd", 0.5), ("adam", 0.05)])
def test_diverged_state_is_frozen_as_it_was_and_dated(pixels, optimizer, rate):
    def run(steps):
        spec = Spec(
            model=MLP((12, 6, 3)),
            steps=steps,
            batch_size=130,
            optimizer=optimizer,
            loss=infinite_beyond(4.0),
        )
        return train(spec, Hyper(rate), KEY, pixels, {})[0]

    frozen = run(200)
    at = int(frozen.diverged_at)
    assert 1 < at < 200
    assert frozen.iteration == 200
    last_good = run(at)
    assert last_good.diverged_at == NEVER
    for a, b in zip(*map(jax.tree.leaves, (frozen.params, last_good.params)), strict=True):
        assert np.array_equal(a, b)


def test_overflow_is_found_at_the_first_loss_after_it(pixels):
    spec = Spec(
        model=MLP((12, 3)),
        steps=9,
        batch_size=20,
        schedule=lambda steps: lambda t: jnp.where(t == 3, jnp.inf, 1.0),
        evaluate_at=(3,),
    )
    state, history = train(spec, Hyper(0.1), KEY, pixels)
    assert state.diverged_at == 4
    assert np.isfinite(history.metrics["train"].loss).tolist() == [True, False]


def test_overflow_in_the_last_update_is_found_by_the_evaluation(pixels):
    spec = Spec(
        model=MLP((12, 3)),
        steps=4,
        batch_size=20,
        schedule=lambda steps: lambda t: jnp.where(t == 3, jnp.inf, 1.0),
    )
    state, _ = train(spec, Hyper(0.1), KEY, pixels)
    assert state.diverged_at == 4


def test_hypergradient_passes_through_training(x64, pixels):
    spec = Spec(model=MLP((12, 3)), steps=10, batch_size=30, evaluate_at=(5,))

    def final_loss(rate):
        return train(spec, Hyper(rate, 1e-3), KEY, pixels)[1].metrics["train"].loss[-1]

    difference = (final_loss(0.3 + 1e-6) - final_loss(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(final_loss)(0.3), difference, rtol=1e-6)


def test_parameters_in_one_vector_are_not_copied_for_every_example():
    tree, count = MLP((4, 5, 3)), 7
    start, unravel = ravel_pytree(tree.init(KEY))
    flat = Network(lambda _: start, lambda p, x: tree.apply(unravel(p), x))
    batch = jax.random.normal(KEY, (count, 4)), jnp.arange(count) % 3
    slope = jax.grad(objective, 1, has_aux=True)
    layout = Layout(columns=True)

    def slopes(model, stacked):
        slope_of = partial(slope, Spec(model, steps=1))
        return jax.vmap(lambda params: slope_of(params, 0.0, batch, layout)[0])(stacked)

    stacked = jnp.stack([start, 2 * start])
    of_flat = jax.jit(partial(slopes, flat))(stacked)
    of_tree = jax.jit(partial(slopes, tree))(jax.vmap(unravel)(stacked))
    expected = jax.vmap(lambda tree: ravel_pytree(tree)[0])(of_tree)
    np.testing.assert_allclose(of_flat, expected, rtol=1e-5, atol=1e-7)
    program = jax.make_jaxpr(partial(slopes, flat))(stacked)
    assert f"[{start.size},{count}]" not in str(program)
    assert f"[2,{start.size},{count}]" not in str(program)
