"""Minibatches: every epoch is a permutation, every run has its own, none is stored."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnn import Data
from jaxnn.minibatch import as_float, minibatch_indices, permutation, shuffle_key, take


@partial(jax.jit, static_argnames="n")
def permuted(seed: int, n: int) -> jax.Array:
    keys = shuffle_key(jax.random.key(seed))[:, None]
    return permutation(keys, jnp.arange(n, dtype=jnp.uint32), n)


@partial(jax.jit, static_argnames=("count", "batch_size", "n"))
def sequence(seed: int, count: int, batch_size: int, n: int) -> jax.Array:
    shuffle = shuffle_key(jax.random.key(seed))
    at = jax.vmap(lambda t: minibatch_indices(shuffle, t, batch_size, n))
    return at(jnp.arange(count)).ravel()


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 16, 97, 100, 1437, 60_000])
def test_permutation_visits_every_place_once(n):
    for seed in range(5):
        assert np.array_equal(np.sort(permuted(seed, n)), np.arange(n))


@pytest.mark.parametrize("n", [3, 10, 12, 36, 97])
def test_every_place_is_equally_likely_to_go_anywhere(n):
    images = np.asarray(jax.vmap(lambda seed: permuted(seed, n))(jnp.arange(20_000)))
    for place in (0, n // 2, n - 1):
        counts = np.bincount(images[:, place], minlength=n)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [10_007, 60_000])  # a prime, and 240 x 250
def test_neighbours_do_not_stay_neighbours(n):
    image = np.asarray(permuted(3, n), float)
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(image, np.arange(len(image)))[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("n", "batch_size"), [(10, 3), (10, 10), (100, 7), (60, 20), (5, 5), (1, 1)]
)
def test_every_epoch_visits_every_example_once_across_minibatches(n, batch_size):
    indices = np.asarray(sequence(0, 4 * n, batch_size, n))
    epochs = indices[: 3 * n].reshape(3, n)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (3, 1)))


def test_epochs_and_seeds_have_their_own_order():
    first, second = sequence(0, 20, 100, 1000).reshape(2, 1000)
    other = sequence(1, 10, 100, 1000)
    # Two independent orders of 1,000 agree in one place on average.
    assert (first == second).sum() < 10
    assert (first == other).sum() < 10


def test_inputs_become_floats_only_when_taken():
    data = Data(jnp.array([[0, 51], [255, 102]], jnp.uint8), jnp.array([7, 9]), 1 / 255)
    inputs, targets, *_ = take(data, jnp.array([1, 0, 1]))
    assert inputs.dtype == jnp.float32
    np.testing.assert_allclose(inputs, [[1.0, 0.4], [0.0, 0.2], [1.0, 0.4]], rtol=1e-6)
    assert targets.tolist() == [9, 7, 9]


def test_float_inputs_keep_their_precision(x64):
    inputs = jnp.array([[0.1, 1e-300]], jnp.float64)
    assert as_float(inputs, Data(inputs, jnp.zeros(1), 1.0)).dtype == jnp.float64
    single = inputs.astype(jnp.float32)
    assert as_float(single, Data(single, jnp.zeros(1), 1.0)).dtype == jnp.float32
