"""The contender of the benchmark that is scikit-learn: it trains what the problem defines."""

from dataclasses import replace

import numpy as np
import pytest
from sgd_by_definition import (
    NETWORKS,
    Train,
    assert_accuracies_are_those_of_the_parameters,
    assert_seeds_decide,
    assert_trains_as_defined,
    small,
)

from experiments.benchmark.peers.scikit_learn import Classifier

LEAST = 1e-30  # scikit-learn refuses a learning rate of 0


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    made = small(NETWORKS[request.param])
    # It knows of the classes that it sees.
    return replace(made, train=made.train._replace(targets=np.array([0, 1, 2, 2, 1, 0])))


@pytest.fixture(scope="module")
def contender(problem) -> Classifier:
    return Classifier(problem)


@pytest.fixture(scope="module")
def train(contender) -> Train:
    """By ``fit``, or by ``partial_fit`` if it is to evaluate."""

    def train(rate, epochs, seed=0, *, evaluate=False):
        seed += 7  # from where no accuracies are all the same
        accuracies = contender.train([rate or LEAST], epochs, seed, evaluate=evaluate)
        pairs = zip(contender.model.coefs_, contender.model.intercepts_, strict=True)
        layers = [(weight.T, bias) for weight, bias in pairs]
        return layers, None if accuracies is None else accuracies[0].tolist()

    return train


@pytest.fixture(scope="module")
def by_partial_fit(train) -> Train:
    """Its orders are not those of ``fit``, which shuffles what it has shuffled before."""

    def by_partial_fit(rate, epochs, seed=0, *, evaluate=False):
        layers, accuracies = train(rate, epochs, seed, evaluate=True)
        return layers, accuracies if evaluate else None

    return by_partial_fit


def test_fit_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)
    assert train(0.1, 1)[1] is None


def test_partial_fit_is_sgd_with_l2_on_the_weights(problem, by_partial_fit):
    assert_trains_as_defined(problem, by_partial_fit)


def test_accuracies_are_those_of_the_parameters(problem, by_partial_fit):
    assert_accuracies_are_those_of_the_parameters(problem, by_partial_fit)


def test_seeds_decide(train):
    assert_seeds_decide(train)


def test_all_of_it_is_in_float32(contender, train):
    layers, _ = train(0.1, 1)
    assert contender.inputs.dtype == np.float32
    assert {parameter.dtype for layer in layers for parameter in layer} == {np.dtype(np.float32)}


@pytest.mark.parametrize("evaluate", [False, True])
def test_no_training_stops_early(contender, train, evaluate):
    train(10.0, 30, evaluate=evaluate)  # so fast that nothing improves after a few epochs
    assert len(contender.model.loss_curve_) == 30
