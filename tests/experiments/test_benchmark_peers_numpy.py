"""The contender of the benchmark that is NumPy by hand: it trains what the problem defines."""

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

from experiments.benchmark.peers import numpy_by_hand
from experiments.benchmark.peers.numpy_by_hand import NumPyByHand
from jaxnn import Data


@pytest.fixture(params=NETWORKS)
def problem(request):
    return small(NETWORKS[request.param])


@pytest.fixture
def train(problem, monkeypatch) -> Train:
    drawn, init = [], numpy_by_hand.init
    monkeypatch.setattr(numpy_by_hand, "init", lambda *a: drawn.append(init(*a)) or drawn[-1])
    contender = NumPyByHand(problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        accuracies = contender.train([rate], epochs, seed, evaluate=evaluate)
        layers = [(weight.T, bias) for weight, bias in drawn[-1]]  # updated in place
        return layers, None if accuracies is None else accuracies[0].tolist()

    return train


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(problem, train):
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


def test_parameters_are_single_precision(train):
    layers, _ = train(0.1, 1)
    assert {array.dtype for layer in layers for array in layer} == {np.dtype(np.float32)}


def test_large_logits_do_not_overflow():
    layers = [(np.eye(3, dtype=np.float32) * 1e4, np.zeros(3, np.float32))]
    x = np.eye(3, dtype=np.float32)
    numpy_by_hand.update(layers, x, np.roll(x, 1, axis=1), np.float32(1), 0.0)
    # Surely wrong: softmax is the prediction's one-hot row, the gradient (prediction - target) / 3.
    np.testing.assert_allclose(layers[0][0], np.eye(3) * 1e4 - (np.eye(3) - np.roll(x, 1, 1)) / 3)


def test_inputs_are_scaled_once_and_in_single_precision():
    inputs = numpy_by_hand.as_float(Data(np.array([[0, 51, 255]], np.uint8), np.zeros(1), 1 / 255))
    assert inputs.dtype == np.float32
    assert inputs == pytest.approx(np.array([[0, 0.2, 1]]))
