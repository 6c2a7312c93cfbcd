"""The Python loop of the contenders on JAX: a jitted step with gathering of the minibatch inside.

As in Flax's MNIST example, the training examples stay on the device in floating point and an
epoch's order is drawn at its start.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmark.contender import Train
from experiments.benchmark.problem import Problem
from jaxnn.types import Array, PyTree


def loop(problem: Problem, create: Callable, step: Callable, accuracy: Callable) -> Train:
    """A contender of create(seed, rate), step(state, x, y, rows) and accuracy(state, x, y)."""
    examples, validation = (
        jax.device_put((each.inputs, np.asarray(each.targets)))
        for each in (problem.train, problem.validation)
    )
    step, accuracy = jax.jit(step, donate_argnums=0), jax.jit(accuracy)

    def train(rate: Any, epochs: int, seed: int, evaluate: bool) -> tuple[Any, list]:
        generator, accuracies = np.random.default_rng(seed), []
        state = create(seed, np.array(rate, np.float32))
        for _ in range(epochs):
            for rows in problem.minibatches(generator):
                state = step(state, *examples, rows)
            if evaluate:
                accuracies.append(np.asarray(accuracy(state, *validation)))
        return jax.block_until_ready(state), accuracies

    return train


def sgd(l2: float) -> Any:
    """optax's SGD with L2 on weights; the learning rate is state: a new rate compiles nothing."""
    import optax

    def transformation(learning_rate: Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(l2, mask=are_weights)
        return optax.chain(decay, optax.sgd(learning_rate))

    return optax.inject_hyperparams(transformation)(learning_rate=0.0)


def are_weights(params: PyTree) -> PyTree:
    """L2 applies to matrices, not to biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
