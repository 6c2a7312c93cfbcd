"""Networks with random layers and running statistics, against Flax and optax step by step."""

# Lists in place of arrays, and trees of any type.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnn import MLP, Data, Hyper, Network, Spec, Variables, evaluate, train, train_population
from jaxnn.minibatch import minibatch_indices, shuffle_key
from jaxnn.train import init_state, train_step

RANDOM = np.random.default_rng(2)
INPUTS = RANDOM.normal(size=(40, 3)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)
DATA = Data(INPUTS, LABELS)


class Normalised(nn.Module):
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, training):
        x = nn.BatchNorm(use_running_average=not training, momentum=0.9)(nn.Dense(5)(x))
        x = nn.Dropout(self.dropout, deterministic=not training)(nn.relu(x))
        return nn.Dense(2)(x)


MODULE = Normalised()


def init(key):
    variables = MODULE.init(key, jnp.zeros((2, 3)), training=False)
    return Variables(variables["params"], variables["batch_stats"])


def apply(variables, x, key, training, dropout=0.0):
    module = Normalised(dropout) if training else MODULE
    named = {"params": variables.params, "batch_stats": variables.statistics}
    if not training:
        return module.apply(named, x, training=False)
    rngs = {"dropout": key}
    logits, new = module.apply(named, x, training=True, mutable=["batch_stats"], rngs=rngs)
    return logits, new["batch_stats"]


NETWORK = Network(init, apply, batched=True)


def test_parameters_and_statistics_are_those_of_a_loop_in_flax():
    spec = Spec(NETWORK, steps=7, batch_size=10)
    state, history = train(spec, Hyper(0.1, l2=0.01), 3, DATA)
    init_key, order_key = jax.random.split(jax.random.key(3))
    variables = MODULE.init(init_key, jnp.zeros((2, 3)), training=False)
    params, statistics = variables["params"], variables["batch_stats"]

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def slopes(params, statistics, x, y):
        named = {"params": params, "batch_stats": statistics}
        logits, new = MODULE.apply(named, x, training=True, mutable=["batch_stats"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
        return loss + 0.01 / 2 * sum(jnp.sum(k**2) for k in kernels), new["batch_stats"]

    for step in range(7):
        rows = minibatch_indices(shuffle_key(order_key), jnp.int32(step), 10, 40)
        slope, statistics = slopes(params, statistics, INPUTS[rows], LABELS[rows])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
    expected = Variables(params, statistics)
    for found, wanted in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=1e-5)
    logits = MODULE.apply({"params": params, "batch_stats": statistics}, INPUTS, training=False)
    wrong = np.mean(np.argmax(logits, axis=1) != LABELS)
    np.testing.assert_allclose(history.metrics["train"].error[-1], wrong, atol=1e-6)


def test_members_of_a_population_have_statistics_of_their_own():
    spec = Spec(NETWORK, steps=5, batch_size=10)
    population = train_population(spec, Hyper([0.1, 0.02]), [3, 4], DATA)
    for seed, key in enumerate((3, 4)):
        for place, rate in enumerate((0.1, 0.02)):
            alone = train(spec, Hyper(rate), key, DATA)[0].params
            member = jax.tree.map(lambda leaf, s=seed, p=place: leaf[s, p], population.params)
            pairs = zip(jax.tree.leaves(member), jax.tree.leaves(alone), strict=True)
            for found, wanted in pairs:
                np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_a_diverged_model_keeps_the_statistics_from_before():
    spec = Spec(NETWORK, steps=1, batch_size=10)
    state = init_state(spec, Hyper(0.1), jax.random.key(0))
    batch = jnp.full((10, 3), jnp.nan), jnp.asarray(LABELS[:10])
    after, _ = train_step(spec, Hyper(0.1), state, batch, key=jax.random.key(1))
    assert after.diverged_at == 0
    for found, wanted in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


class Dropping(NamedTuple):
    learning_rate: float
    l2: float = 0.0
    dropout: float | None = None


def dropping(params, x, *, key, training, dropout=0.5):
    """One layer, whose inputs are dropped in training."""
    if training:
        kept = jax.random.bernoulli(key, 1 - dropout, x.shape)
        x = jnp.where(kept, x / (1 - dropout), 0)
    return params @ x


DROPOUT = Network(lambda key: jnp.eye(2, 50), dropping)


def test_every_example_of_every_step_has_a_mask_of_its_own():
    seen = []

    def spy(params, x, *, key, training):
        if training:
            jax.debug.callback(
                lambda k: seen.append(tuple(np.asarray(k).tolist())), jax.random.key_data(key)
            )
        return params @ x

    spec = Spec(Network(lambda key: jnp.eye(2, 3), spy), steps=4, batch_size=10)
    jax.block_until_ready(train(spec, Hyper(0.1), 0, DATA))
    jax.effects_barrier()
    assert len(seen) == len({*seen}) == 40


def test_evaluations_drop_nothing():
    data = Data(RANDOM.normal(size=(30, 50)), np.arange(30) % 2)
    spec = Spec(DROPOUT, steps=1)
    found = evaluate(spec, jnp.eye(2, 50), data)
    wrong = np.mean(np.argmax(np.asarray(data.inputs)[:, :2], axis=1) != data.targets)
    np.testing.assert_allclose(found.error, wrong, atol=1e-6)


def test_a_rate_of_dropout_is_a_traced_hyperparameter():
    spec, data = Spec(DROPOUT, steps=3, batch_size=20), Data(np.ones((20, 50)), np.zeros(20, int))
    rates = Dropping([0.1, 0.1, 0.1], dropout=[0.0, 0.5, 0.9])
    population = train_population(spec, rates, [0], data)
    for place, rate in enumerate(rates.dropout):
        alone, _ = train(spec, Dropping(0.1, dropout=rate), 0, data)
        np.testing.assert_allclose(population.params[0, place], alone.params, rtol=1e-4, atol=1e-6)
    plain, _ = train(Spec(MLP((50, 2)), steps=3, batch_size=20), Hyper(0.1), 0, data)
    assert plain.params
    assert not np.allclose(population.params[0, 0], population.params[0, 1])


def test_the_default_rate_is_that_of_the_signature():
    spec, data = Spec(DROPOUT, steps=3, batch_size=20), Data(np.ones((20, 50)), np.zeros(20, int))
    default, given = (
        train(spec, hyper, 0, data)[0].params for hyper in (Hyper(0.1), Dropping(0.1, dropout=0.5))
    )
    np.testing.assert_array_equal(default, given)


def test_a_step_of_a_random_model_asks_for_a_key():
    spec = Spec(DROPOUT, steps=1)
    state = init_state(spec, Hyper(0.1), jax.random.key(0))
    batch = jnp.ones((4, 50)), jnp.zeros(4, int)
    with pytest.raises(ValueError, match=r"the model takes a key in training, expected key="):
        train_step(spec, Hyper(0.1), state, batch)


def test_statistics_belong_to_minibatches():
    spec = Spec(Network(init, apply), steps=1, batch_size=10)
    with pytest.raises(ValueError, match=r"returns Variables, expected Network.*batched=True"):
        train(spec, Hyper(0.1), 0, DATA)
