"""The contenders of the benchmark that are Flax: they train what the problem defines."""

from dataclasses import replace

import numpy as np
import pytest
from sgd_by_definition import (
    NETWORKS,
    RATE,
    Train,
    assert_accuracies_are_those_of_the_parameters,
    assert_seeds_decide,
    assert_trains_as_defined,
    compilations,
    minibatches_between,
    small,
)

from experiments.benchmark.peers import on_jax
from experiments.benchmark.peers.flax_and_optax import FlaxAndOptax, Vmapped

OTHER_RATES = (0.1, 1.0)


def layers(params):
    dense = [params[f"Dense_{i}"] for i in range(len(params))]
    return [
        (np.asarray(each["kernel"]).swapaxes(-2, -1), np.asarray(each["bias"])) for each in dense
    ]


def one(problem) -> Train:
    contender = FlaxAndOptax(problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        accuracies = contender.train([rate], epochs, seed, evaluate=evaluate)
        found = layers(contender.loop.state.params)
        return found, None if accuracies is None else accuracies[0].tolist()

    return train


def member(problem) -> Train:
    """The second of three networks that train at once."""
    contender = Vmapped(problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        rates = [OTHER_RATES[0], rate, OTHER_RATES[1]]
        accuracies = contender.train(rates, epochs, seed, evaluate=evaluate)
        found = [(weight[1], bias[1]) for weight, bias in layers(contender.loop.state.params)]
        return found, None if accuracies is None else accuracies[1].tolist()

    return train


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    return small(NETWORKS[request.param])


@pytest.fixture(scope="module", params=[one, member])
def train(request, problem) -> Train:
    return request.param(problem)


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(problem, train):
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


@pytest.mark.parametrize("view", [one, member])
def test_another_learning_rate_and_seed_compile_nothing(view, caplog):
    train = view(small(NETWORKS["softmax"]))
    assert compilations(caplog, train, 0.1, 0) > 0
    assert compilations(caplog, train, 0.2, 1) == 0


def test_members_share_start_and_minibatches_but_not_the_learning_rate(problem):
    contender, rates = Vmapped(problem), [0.1, RATE, 1.0]

    def trained(rates, epochs):
        contender.train(rates, epochs, 0, evaluate=False)
        stacked = layers(contender.loop.state.params)
        return [[(weight[k], bias[k]) for weight, bias in stacked] for k in range(len(rates))]

    starts, ends = trained([0.0] * 3, 1), trained(rates, 1)
    ways = [
        minibatches_between(problem, starts[0], end, rate)
        for end, rate in zip(ends, rates, strict=True)
    ]
    assert all(np.array_equal(way, ways[0]) for way in ways)


def test_what_is_left_of_an_epoch_waits_for_another():
    problem, generator = replace(small((5, 3)), batch_size=4), np.random.default_rng(0)
    epochs = [list(on_jax.minibatches(problem, generator)) for _ in range(20)]
    assert {len(epoch) for epoch in epochs} == {1}
    assert {len(set(epoch[0].tolist())) for epoch in epochs} == {4}
    assert {row for epoch in epochs for row in epoch[0].tolist()} == set(range(6))
