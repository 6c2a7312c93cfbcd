"""The contender of the benchmark that is Equinox: it trains what the problem defines."""

import numpy as np
import pytest
from sgd_by_definition import (
    NETWORKS,
    Train,
    assert_accuracies_are_those_of_the_parameters,
    assert_seeds_decide,
    assert_trains_as_defined,
    compilations,
    small,
)

pytest.importorskip("equinox")
from experiments.benchmark.peers.equinox_and_optax import EquinoxAndOptax


def one(problem) -> Train:
    contender = EquinoxAndOptax(problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        accuracies = contender.train([rate], epochs, seed, evaluate=evaluate)
        layers = contender.model.layers
        found = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in layers]
        return found, None if accuracies is None else accuracies[0].tolist()

    return train


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    return small(NETWORKS[request.param])


@pytest.fixture(scope="module")
def train(problem) -> Train:
    return one(problem)


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(problem, train):
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


def test_another_learning_rate_and_seed_compile_nothing(caplog):
    train = one(small(NETWORKS["softmax"]))
    assert compilations(caplog, train, 0.1, 0) > 0
    assert compilations(caplog, train, 0.2, 1) == 0
