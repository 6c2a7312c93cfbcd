"""NumPy: forward and backward pass written out, as for a course; examples as rows, z = x W + b."""

from itertools import pairwise

import numpy as np

from experiments.benchmark.problem import Loop, Problem

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight [in, out], bias [out]


def prepare(problem: Problem) -> Loop:
    """A network at a time; targets are rows of the identity."""
    identity = np.eye(problem.sizes[-1], dtype=np.float32)

    def create(seed: int, rate: float) -> tuple[Layers, np.float32]:
        generator, layers = np.random.default_rng([seed, 1]), []
        for i, o in pairwise(problem.sizes):
            weight = generator.standard_normal((i, o)) * (2 / i) ** 0.5
            layers.append((weight.astype(np.float32), np.zeros(o, np.float32)))
        return layers, np.float32(rate)

    def step(state: tuple[Layers, np.float32], x: np.ndarray, y: np.ndarray, rows: np.ndarray):
        update(state[0], x[rows], y[rows], state[1], problem.l2)
        return state

    return Loop(
        problem,
        lambda examples: (examples.inputs, identity[examples.targets]),
        create,
        step,
        lambda state, x: forward(state[0], x)[-1],
    )


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
