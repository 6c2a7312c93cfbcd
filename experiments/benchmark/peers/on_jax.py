"""What the contenders on JAX have in common: examples on the device, orders, optax's SGD."""

from collections.abc import Iterator

import jax
import numpy as np
import optax

from experiments.benchmark.peers.numpy_by_hand import as_float
from experiments.benchmark.problem import Problem
from jaxnn import Data
from jaxnn.types import Array, PyTree


def on_device(data: Data) -> tuple[Array, Array]:
    """Inputs in floating point, and targets."""
    return jax.device_put((as_float(data), np.asarray(data.targets)))


def minibatches(problem: Problem, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The rows of each minibatch of an epoch, in a new order."""
    order = generator.permutation(len(problem.train.targets)).astype(np.int32)
    steps, size = problem.steps_per_epoch, problem.batch_size
    yield from order[: steps * size].reshape(steps, size)


def sgd(l2: float) -> optax.GradientTransformation:
    """L2 on weights; the learning rate is part of the state, so that a new one compiles nothing."""

    def transformation(learning_rate: Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(l2, mask=are_weights)
        return optax.chain(decay, optax.sgd(learning_rate))

    return optax.inject_hyperparams(transformation)(learning_rate=0.0)


def are_weights(params: PyTree) -> PyTree:
    """What L2 applies to: matrices, not biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
