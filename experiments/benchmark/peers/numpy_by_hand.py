"""NumPy: forward and backward pass as one would write them out for a course."""

from itertools import pairwise

import numpy as np

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.problem import Problem
from jaxnn import Data

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight [in, out], bias [out]


class NumPyByHand(OneByOne):
    """Examples as rows, z = x W + b."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.inputs = as_float(problem.train)
        self.one_hot = np.eye(problem.sizes[-1], dtype=np.float32)[problem.train.targets]
        self.validation = as_float(problem.validation)

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        generator = np.random.default_rng(seed)
        layers = init(self.problem.sizes, generator)
        size, accuracies = self.problem.batch_size, []
        rate = np.float32(learning_rate)
        for _ in range(epochs):
            order = generator.permutation(len(self.inputs))
            for step in range(self.problem.steps_per_epoch):
                rows = order[step * size : (step + 1) * size]
                update(layers, self.inputs[rows], self.one_hot[rows], rate, self.problem.l2)
            if evaluate:
                predicted = forward(layers, self.validation)[-1].argmax(axis=1)
                accuracies.append(float(np.mean(predicted == self.problem.validation.targets)))
        return accuracies


def as_float(data: Data) -> np.ndarray:
    """The inputs in floating point."""
    return np.asarray(data.inputs, np.float32) * np.asarray(data.scale, np.float32)


def init(sizes: tuple[int, ...], generator: np.random.Generator) -> Layers:
    """Random weights, zero biases."""
    return [
        (
            (generator.standard_normal((i, o)) * (2 / i) ** 0.5).astype(np.float32),
            np.zeros(o, np.float32),
        )
        for i, o in pairwise(sizes)
    ]


def forward(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """The inputs of every layer, and the logits."""
    activations = [x]
    for weight, bias in layers[:-1]:
        activations.append(np.maximum(activations[-1] @ weight + bias, 0))
    weight, bias = layers[-1]
    activations.append(activations[-1] @ weight + bias)
    return activations


def update(layers: Layers, x: np.ndarray, y: np.ndarray, rate: np.float32, l2: float) -> None:
    """One step of gradient descent, in place."""
    *activations, logits = forward(layers, x)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    delta = (exponentials / exponentials.sum(axis=1, keepdims=True) - y) / len(x)
    for index in reversed(range(len(layers))):
        (weight, bias), h = layers[index], activations[index]
        weight_gradient = h.T @ delta + np.float32(l2) * weight
        bias_gradient = delta.sum(axis=0)
        if index:
            delta = (delta @ weight.T) * (h > 0)
        weight -= rate * weight_gradient
        bias -= rate * bias_gradient
