"""Weights of examples: in training, and in evaluations that ask for the weights."""

# Lists in place of arrays, and trees of any type.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalSubscript=false

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from jaxnn import MLP, Data, Hyper, Spec, evaluate, objective, train, train_population
from jaxnn.minibatch import minibatch_indices, shuffle_key
from jaxnn.types import Names, checked_data

RANDOM = np.random.default_rng(1)
INPUTS = RANDOM.normal(size=(60, 3))
LABELS = (INPUTS @ [1.0, -2.0, 0.5] + RANDOM.normal(size=60) > 1).astype(np.int32)
WEIGHTS = RANDOM.uniform(0.2, 3.0, size=60)
FULL = Spec(MLP((3, 2)), steps=4000, batch_size=60)


def weighted(weights, **changes):
    return checked_data([("train", Data(INPUTS, LABELS, weights=weights, **changes))])[0]


@pytest.mark.parametrize("by", ["balanced", {0: 2.0, 1: 5.0}])
def test_weights_by_class_are_those_of_scikit_learn_divided_by_their_mean(by):
    expected = compute_sample_weight(by, LABELS)
    np.testing.assert_allclose(weighted(by).weights, expected / expected.mean(), rtol=1e-6)


def test_weights_have_the_mean_1():
    np.testing.assert_allclose(weighted(WEIGHTS).weights, WEIGHTS / WEIGHTS.mean(), rtol=1e-6)


def test_a_weight_counts_as_often_as_copies_of_the_example():
    spec, counts = Spec(MLP((3, 2)), steps=1), np.array([1, 3, 2])
    params = spec.model.init(jax.random.key(0))
    batch = jnp.asarray(INPUTS[:3], jnp.float32), jnp.asarray(LABELS[:3])
    found = objective(spec, params, 0.1, (*batch, jnp.asarray(counts / 2, jnp.float32)))
    copies = tuple(np.repeat(x, counts, axis=0) for x in batch)
    np.testing.assert_allclose(found, objective(spec, params, 0.1, copies), rtol=1e-6)


@pytest.mark.parametrize("together", [False, True])
def test_training_with_weights_finds_the_optimum_of_scikit_learn(together):
    l2 = 0.05
    with jax.enable_x64(True):
        spec = Spec(MLP((3, 1)), steps=4000, batch_size=60, loss="logistic")
        data = Data(INPUTS, LABELS, weights=WEIGHTS)
        if together:
            population = train_population(spec, Hyper([0.5, 0.6], l2=l2), [0], data)
            params = jax.tree.map(lambda leaf: leaf[0, 1], population.params)
        else:
            params = train(spec, Hyper(0.5, l2=l2), 0, data)[0].params
    share = WEIGHTS / WEIGHTS.mean()
    model = LogisticRegression(C=1 / (60 * l2), tol=1e-12, max_iter=10_000)
    model.fit(INPUTS, LABELS, sample_weight=share)
    np.testing.assert_allclose(params[0].weight, model.coef_, rtol=1e-5)
    np.testing.assert_allclose(params[0].bias, model.intercept_, rtol=1e-5)


def test_minibatches_take_the_weights_of_their_examples():
    spec, key = Spec(MLP((3, 2)), steps=1, batch_size=7), jax.random.key(5)
    state, _ = train(spec, Hyper(0.5), key, Data(INPUTS, LABELS, weights=WEIGHTS))
    init_key, order_key = jax.random.split(key)
    rows = np.asarray(minibatch_indices(shuffle_key(order_key), jnp.int32(0), 7, 60))
    first = spec.model.init(init_key)

    def weighted_loss(params):
        logits = jax.vmap(spec.model.apply, (None, 0))(params, jnp.float32(INPUTS[rows]))
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS[rows])
        return jnp.sum(losses * WEIGHTS[rows] / WEIGHTS.mean()) / 7

    slope = jax.jit(jax.grad(weighted_loss))(first)
    expected = first[0].weight - 0.5 * slope[0].weight
    np.testing.assert_allclose(state.params[0].weight, expected, rtol=1e-4, atol=1e-6)


def test_evaluations_count_all_examples_alike_unless_asked():
    params = FULL.model.init(jax.random.key(0))
    data = Data(INPUTS, LABELS, weights=WEIGHTS)
    logits = np.asarray(jax.vmap(FULL.model.apply, (None, 0))(params, INPUTS))
    wrong = logits.argmax(axis=1) != LABELS
    np.testing.assert_allclose(evaluate(FULL, params, data).error, wrong.mean(), rtol=1e-6)
    asked = Spec(MLP((3, 2)), steps=1, weighted=True)
    expected = np.average(wrong, weights=WEIGHTS)
    np.testing.assert_allclose(evaluate(asked, params, data).error, expected, rtol=1e-5)


def test_the_names_of_classes_are_no_leaf_and_stay_with_the_examples():
    data = weighted(None, names=("no", "yes"))
    assert data.names == Names(("no", "yes"))
    assert len(jax.tree.leaves(data)) == 3
    assert data.rows(slice(5)).names == ("no", "yes")


def test_a_shift_is_added_to_the_scaled_inputs():
    mean, deviation = INPUTS.mean(axis=0), INPUTS.std(axis=0)
    params = FULL.model.init(jax.random.key(0))
    scaled = Data(INPUTS, LABELS, scale=1 / deviation, shift=-mean / deviation)
    expected = evaluate(FULL, params, Data((INPUTS - mean) / deviation, LABELS))
    np.testing.assert_allclose(evaluate(FULL, params, scaled), expected, rtol=1e-5)


def test_images_are_rows_for_an_mlp():
    rows = RANDOM.integers(0, 256, size=(40, 12)).astype(np.uint8)
    labels = np.arange(40) % 3
    spec, scale = Spec(MLP((12, 3)), steps=30, batch_size=10), RANDOM.uniform(size=(2, 2, 3))
    flat = Data(rows, labels, scale.ravel())
    images = Data(rows.reshape(40, 2, 2, 3), labels, scale)
    found, expected = (train(spec, Hyper(0.1), 0, data)[0] for data in (images, flat))
    np.testing.assert_array_equal(found.params[0].weight, expected.params[0].weight)
