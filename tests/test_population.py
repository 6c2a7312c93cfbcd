"""Populations: what every member is alone, whatever its neighbours, blocks and devices."""

import jax
import numpy as np
import pytest

import jaxnn.population
from jaxnn import (
    MLP,
    NEVER,
    Hyper,
    Metrics,
    Network,
    Population,
    Spec,
    best,
    train,
    train_population,
)
from jaxnn.devices import core_count, population_mesh
from jaxnn.population import default_block_size

KEYS = jax.random.split(jax.random.key(1), 3)
SPEC = Spec(
    model=MLP((12, 6, 3)), steps=12, batch_size=20, optimizer="momentum", evaluate_at=(0, 5)
)
RATES = np.array([0.01, 0.03, 0.1, 0.3, 0.5])


def same_bits(a, b) -> bool:
    pairs = zip(*map(jax.tree.leaves, (a, b)), strict=True)
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def member(population: Population, seed: int, k: int):
    return jax.tree.map(lambda x: x[seed, k], (population.params, population.metrics))


@pytest.fixture(scope="module")
def five(request):
    """Five configurations from three seeds, in blocks of the default size."""
    pixels = request.getfixturevalue("module_pixels")
    return train_population(SPEC, Hyper(RATES, 1e-3), KEYS, pixels)


@pytest.fixture(scope="module")
def module_pixels():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 130).astype(np.int32)
    inputs = (rng.integers(60, 200, (3, 12))[targets] + rng.integers(-60, 55, (130, 12))).astype(
        np.uint8
    )
    return jaxnn.Data(inputs, targets, np.float32(1 / 255))


def test_members_are_what_they_are_when_trained_alone(five, module_pixels):
    for seed in range(3):
        for k, rate in enumerate(RATES):
            state, history = train(SPEC, Hyper(rate, 1e-3), KEYS[seed], module_pixels)
            params, metrics = member(five, seed, k)
            for a, b in zip(*map(jax.tree.leaves, (params, state.params)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(
                metrics["train"].loss, history.metrics["train"].loss, rtol=1e-4
            )
    assert five.iteration.tolist() == [0, 5, 12]
    assert (five.diverged_at == NEVER).all()


@pytest.mark.parametrize("without", [[0], [2], [4], [0, 1, 3, 4]])
def test_members_do_not_depend_on_who_else_is_there(five, module_pixels, without):
    rest = [k for k in range(5) if k not in without]
    fewer = train_population(SPEC, Hyper(RATES[rest], 1e-3), KEYS, module_pixels)
    for seed in range(3):
        for i, k in enumerate(rest):
            assert same_bits(member(fewer, seed, i), member(five, seed, k))


def test_a_population_in_several_rounds_gives_the_bits_of_one_round(five, module_pixels):
    many = np.resize(RATES, 5 + 2 * 32 * core_count())
    population = train_population(SPEC, Hyper(many, 1e-3), KEYS[:1], module_pixels)
    for k in (0, 1, 4, len(many) - 1):
        assert same_bits(member(population, 0, k), member(five, 0, k % 5))


@pytest.mark.parametrize("bad", [0, 2, 4])
def test_diverging_member_is_dated_and_leaves_the_others_as_they_are(five, module_pixels, bad):
    rates = RATES.copy()
    rates[bad] = 1e30
    population = train_population(SPEC, Hyper(rates, 1e-3), KEYS, module_pixels)
    others = [k for k in range(5) if k != bad]
    assert (population.diverged_at[:, bad] >= 1).all()
    assert (population.diverged_at[:, bad] <= 2).all()
    assert (population.diverged_at[:, others] == NEVER).all()
    for seed in range(3):
        for k in others:
            assert same_bits(member(population, seed, k), member(five, seed, k))
    assert best(population, "train") != bad


def test_one_device_gives_the_results_of_all(five, module_pixels):
    assert len(jax.devices()) == core_count()
    alone = train_population(SPEC, Hyper(RATES, 1e-3), KEYS, module_pixels, mesh=population_mesh(1))
    for a, b in zip(*map(jax.tree.leaves, (alone[:4], five[:4])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_same_command_twice_gives_the_same_bits(five, module_pixels):
    again = train_population(SPEC, Hyper(RATES, 1e-3), KEYS, module_pixels)
    assert same_bits(again[:4], five[:4])


@pytest.mark.parametrize("block_size", [1, pytest.param(2, marks=pytest.mark.slow), 3, 7])
def test_block_size_is_a_matter_of_speed(five, module_pixels, block_size):
    done = []
    population = train_population(
        SPEC,
        Hyper(RATES, 1e-3),
        KEYS,
        module_pixels,
        block_size=block_size,
        progress=lambda *counts: done.append(counts),
    )
    for a, b in zip(*map(jax.tree.leaves, (population[:4], five[:4])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert done[-1] == (15, 15)
    assert [d for d, _ in done] == sorted({d for d, _ in done})


def test_one_compiled_program_serves_a_population_of_any_size(module_pixels):
    traces = []

    def apply(params, x):
        traces.append(1)
        return MLP((12, 3)).apply(params, x)

    spec = Spec(model=Network(MLP((12, 3)).init, apply), steps=3, batch_size=20)
    compiled = jaxnn.population.trace_once.cache_info().misses
    for count, keys in ((3, KEYS), (40, KEYS), (100, KEYS[:2])):
        train_population(spec, Hyper(np.linspace(0.01, 0.1, count)), keys, module_pixels)
    assert jaxnn.population.trace_once.cache_info().misses == compiled + 1


def test_a_program_is_compiled_for_the_precision_that_is_in_force(module_pixels):
    spec = Spec(model=MLP((12, 3)), steps=3, batch_size=20)
    compiled = jaxnn.population.trace_once.cache_info().misses
    for precision in ("default", "highest", "default"):
        with jax.default_matmul_precision(precision):
            train_population(spec, Hyper(np.full(2, 0.1)), KEYS, module_pixels)
    assert jaxnn.population.trace_once.cache_info().misses == compiled + 2


def test_default_block_size_depends_on_the_model_alone():
    blocks = {(784, 10): 32, (784, 50, 50, 10): 8, (784, 90, 50, 10): 8, (784, 128, 10): 1}
    for sizes, expected in blocks.items():
        spec = Spec(model=MLP(sizes), steps=1)
        assert {default_block_size(spec, "cpu", k) for k in (1, 2, 64, 10_000)} == {expected}


def test_parameters_can_be_left_behind(five, module_pixels):
    population = train_population(SPEC, Hyper(RATES, 1e-3), KEYS, module_pixels, keep_params=False)
    assert population.params is None
    assert same_bits(population.metrics, five.metrics)


def outcome(error, diverged_at) -> Population:
    error = np.array(error, float)[:, :, None]
    metrics = {"validation": Metrics(loss=error, error=1 - error)}
    return Population(None, np.array(diverged_at), np.array([9]), metrics, 0.0, 0.0)


@pytest.mark.parametrize(
    ("loss", "diverged_at", "expected"),
    [
        ([[3, 1, 2]], [[-1, -1, -1]], 1),
        ([[3, 1, 2], [3, 5, 2]], [[-1, -1, -1], [-1, -1, -1]], 2),
        ([[3, 1, 2]], [[-1, 7, -1]], 2),
        ([[3, 1, 2], [3, 1, 2]], [[-1, -1, -1], [-1, 0, -1]], 2),
        ([[np.nan, np.inf, 9]], [[-1, -1, -1]], 2),
    ],
)
def test_best_has_the_lowest_mean_among_those_that_never_diverged(loss, diverged_at, expected):
    assert best(outcome(loss, diverged_at), "validation") == expected


def test_best_by_another_measure():
    assert best(outcome([[3, 1, 2]], [[-1, -1, -1]]), "validation", measure="error") == 0


def test_best_of_none_is_an_error():
    with pytest.raises(ValueError, match="all 2 configurations diverged"):
        best(outcome([[1, 2]], [[3, 0]]), "validation")
