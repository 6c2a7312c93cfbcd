"""The contenders of the benchmark that are Keras: they train what the problem defines."""

from importlib.util import find_spec

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

if find_spec("keras") is None:  # not importorskip: the backend has to be set before the import
    pytest.skip("Keras is not installed", allow_module_level=True)
from experiments.benchmark.peers.keras_on_jax import Fit, KerasOnJax


def one(kind, problem) -> Train:
    contender = kind(problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        accuracies = contender.train([rate], epochs, seed, evaluate=evaluate)
        values = [np.asarray(variable.value) for variable in contender.model.trainable_variables]
        found = [(kernel.T, bias) for kernel, bias in zip(values[::2], values[1::2], strict=True)]
        return found, None if accuracies is None else accuracies[0].tolist()

    return train


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    return small(NETWORKS[request.param])


@pytest.fixture(scope="module", params=[KerasOnJax, Fit])
def train(request, problem) -> Train:
    return one(request.param, problem)


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(problem, train):
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


@pytest.mark.parametrize("kind", [KerasOnJax, Fit])
def test_another_learning_rate_and_seed_compile_nothing(kind, caplog):
    train = one(kind, small(NETWORKS["softmax"]))
    assert compilations(caplog, train, 0.1, 0) > 0
    assert compilations(caplog, train, 0.2, 1) == 0
