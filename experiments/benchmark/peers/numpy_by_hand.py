"""NumPy: forward and backward pass written out, as for a course; examples as rows, z = x W + b."""

from itertools import pairwise

import numpy as np

from experiments.benchmark.problem import Problem, Train

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight [in, out], bias [out]


def prepare(problem: Problem) -> Train:
    """A network at a time."""
    inputs, validation = problem.train.inputs, problem.validation.inputs
    one_hot = np.eye(problem.sizes[-1], dtype=np.float32)[problem.train.targets]

    def train(rate: float, epochs: int, seed: int, evaluate: bool) -> tuple[Layers, list[float]]:
        generator, accuracies = np.random.default_rng(seed), []
        layers, step_size = init(problem.sizes, generator), np.float32(rate)
        for _ in range(epochs):
            for rows in problem.minibatches(generator):
                update(layers, inputs[rows], one_hot[rows], step_size, problem.l2)
            if evaluate:
                predicted = forward(layers, validation)[-1].argmax(axis=1)
                accuracies.append(float(np.mean(predicted == problem.validation.targets)))
        return layers, accuracies

    return train


def init(sizes: tuple[int, ...], generator: np.random.Generator) -> Layers:
    """Random weights, zero biases."""
    layers = []
    for i, o in pairwise(sizes):
        weight = generator.standard_normal((i, o)) * (2 / i) ** 0.5
        layers.append((weight.astype(np.float32), np.zeros(o, np.float32)))
    return layers


def forward(layers: Layers, x: np.ndarray) -> list[np.ndarray]:
    """The inputs of every layer, and the logits."""
    activations = [x]
    for weight, bias in layers[:-1]:
        activations.append(np.maximum(activations[-1] @ weight + bias, 0))
    weight, bias = layers[-1]
    return [*activations, activations[-1] @ weight + bias]


def update(layers: Layers, x: np.ndarray, y: np.ndarray, rate: np.float32, l2: float) -> None:
    """A step of gradient descent, in place."""
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
