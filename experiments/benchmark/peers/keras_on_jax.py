"""Keras on its JAX backend, after the guide "Writing a training loop from scratch in JAX".

Tried as well (softmax regression, MLP 784-50-50-10: CPU time of a step on a core over the
step's here): minibatches from NumPy (1.4, 1.2); ``compile`` and ``fit`` with one step per execution
(2.4, 1.7), with 100 or all of an epoch (1.6, 1.3), from arrays, a ``PyDataset`` or a generator.
"""

import os
from functools import partial
from importlib import import_module
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np

from experiments.benchmark.contender import Train
from experiments.benchmark.peers.on_jax import loop
from experiments.benchmark.problem import Problem
from jaxnn.types import Array

keras: Any = import_module("keras")
State = tuple[list[Array], list[Array]]  # of the network, of the optimizer


def prepare(problem: Problem) -> Train:
    """A network at a time."""
    model, optimizer = network(problem), keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def create(seed: int, rate: np.ndarray) -> State:
        keras.utils.set_random_seed(seed)
        optimizer.learning_rate = float(rate)
        # Copies: a donated state must not take the optimizer's variables along.
        state = [variable.value.copy() for variable in optimizer.variables]
        return [variable.value for variable in network(problem).trainable_variables], state

    def step(state: State, inputs: Array, targets: Array, rows: Array) -> State:
        def objective(weights: list[Array]) -> Array:
            logits, _, penalties = model.stateless_call(
                weights, [], inputs[rows], training=True, return_losses=True
            )
            return cross_entropy(targets[rows], logits) + sum(penalties)

        weights, optimizer_state = state
        gradients = jax.grad(objective)(weights)
        return optimizer.stateless_apply(optimizer_state, gradients, weights)

    def accuracy(state: State, inputs: Array, targets: Array) -> Array:
        logits, _ = model.stateless_call(state[0], [], inputs)
        return keras.ops.mean(keras.ops.argmax(logits, axis=-1) == targets)

    return loop(problem, create, step, accuracy)


def network(problem: Problem) -> Any:
    """Dense layers with ReLU in between; Keras's L2 has no factor 1/2."""
    *hidden, classes = problem.sizes[1:]
    dense = partial(keras.layers.Dense, kernel_regularizer=keras.regularizers.L2(problem.l2 / 2))
    layers = [dense(width, activation="relu") for width in hidden]
    return keras.Sequential([keras.Input(problem.sizes[:1]), *layers, dense(classes)])
