"""Keras on its JAX backend, after the guide "Writing a training loop from scratch in JAX".

Faster than ``compile`` and ``fit``, with any number of steps per execution.
"""

import os
from functools import partial
from importlib import import_module
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np

from experiments.benchmark.peers.on_jax import loop
from experiments.benchmark.problem import Loop, Problem

keras: Any = import_module("keras")
State = tuple[list[jax.Array], list[jax.Array]]  # of the network, of the optimizer


def prepare(problem: Problem) -> Loop:
    """A network at a time."""
    model, optimizer = network(problem.sizes, problem.l2), keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def create(seed: int, rate: np.ndarray) -> State:
        keras.utils.set_random_seed(seed)
        optimizer.learning_rate = float(rate)
        # Copies: a donated state must not take the optimizer's variables along.
        state = [variable.value.copy() for variable in optimizer.variables]
        weights = network(problem.sizes, problem.l2).trainable_variables
        return [variable.value for variable in weights], state

    def step(state: State, inputs: jax.Array, targets: jax.Array, rows: jax.Array) -> State:
        def objective(weights: list[jax.Array]) -> jax.Array:
            logits, _, penalties = model.stateless_call(
                weights, [], inputs[rows], training=True, return_losses=True
            )
            return cross_entropy(targets[rows], logits) + sum(penalties)

        weights, optimizer_state = state
        gradients = jax.grad(objective)(weights)
        return optimizer.stateless_apply(optimizer_state, gradients, weights)

    def logits(state: State, inputs: jax.Array) -> jax.Array:
        return model.stateless_call(state[0], [], inputs)[0]

    return loop(problem, create, step, logits)


def network(sizes: tuple[int, ...], l2: float) -> Any:
    """Dense layers with ReLU in between; Keras's L2 has no factor 1/2."""
    inputs, *hidden, classes = sizes
    dense = partial(keras.layers.Dense, kernel_regularizer=keras.regularizers.L2(l2 / 2))
    layers = [dense(width, activation="relu") for width in hidden]
    return keras.Sequential([keras.Input((inputs,)), *layers, dense(classes)])


def compiled(sizes: tuple[int, ...], rate: float, l2: float, momentum: float) -> Any:
    """A network for ``fit``."""
    model = network(sizes, l2)
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=momentum),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=50,  # an epoch takes a third less time than with 1
    )
    return model
