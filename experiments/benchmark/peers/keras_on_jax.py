"""Keras on its JAX backend, in the two ways of its documentation.

``KerasOnJax`` is the faster one, after the guide "Writing a training loop from scratch in JAX",
with the examples on the device and the rows taken out inside the step. ``Fit`` is ``compile`` and
``fit``, with as many steps per execution as there are in an epoch.

Tried beside it (softmax regression, MLP 784-50-50-10: CPU time of a step on one core over that
of ``KerasOnJax``): the same loop with minibatches from NumPy (1.4, 1.2); ``fit`` with one step per
execution (2.4, 1.7), with 100, all of an epoch (1.6, 1.3), equally from NumPy or JAX arrays, from a
``PyDataset`` and from a generator.
"""

import os
from functools import partial
from importlib import import_module
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import jax
import numpy as np

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.peers.numpy_by_hand import as_float
from experiments.benchmark.peers.on_jax import minibatches, on_device
from experiments.benchmark.problem import Problem
from jaxnn.types import Array

keras: Any = import_module("keras")
Variables = list[Array]
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class KerasOnJax(OneByOne):
    """A jitted step, called in a Python loop."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.train_data, self.validation = on_device(problem.train), on_device(problem.validation)
        self.model = network(problem)  # has the weights of the last training
        self.optimizer = keras.optimizers.SGD()
        self.optimizer.build(self.model.trainable_variables)
        self.step = jax.jit(partial(step, self.model, self.optimizer), donate_argnums=0)
        self.accuracy = jax.jit(partial(accuracy, self.model))

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        generator, accuracies = np.random.default_rng(seed), []
        weights = initial_weights(self.problem, seed)
        self.optimizer.learning_rate = learning_rate
        state = [variable.value for variable in self.optimizer.variables]
        for _ in range(epochs):
            for rows in minibatches(self.problem, generator):
                weights, state = self.step(weights, state, *self.train_data, rows)
            if evaluate:
                accuracies.append(float(self.accuracy(weights, *self.validation)))
        self.model.set_weights(jax.block_until_ready(weights))
        return accuracies


class Fit(OneByOne):
    """``compile`` and ``fit``."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.inputs, self.validation = as_float(problem.train), as_float(problem.validation)
        self.model = network(problem)  # has the weights of the last training
        self.model.compile(
            optimizer=keras.optimizers.SGD(),
            loss=cross_entropy,
            jit_compile=True,
            steps_per_execution=problem.steps_per_epoch,
        )
        # The same layers, so that no metric is computed where none is asked for.
        self.measured = keras.Model(self.model.inputs, self.model.outputs)
        self.measured.compile(metrics=["sparse_categorical_accuracy"], jit_compile=True)

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        self.model.set_weights(initial_weights(self.problem, seed))
        self.model.optimizer.learning_rate = learning_rate
        accuracies = []
        for count in [1] * epochs if evaluate else [epochs]:
            self.model.fit(
                self.inputs,
                self.problem.train.targets,
                batch_size=self.problem.batch_size,
                epochs=count,
                verbose=0,
            )
            if evaluate:
                accuracies.append(self.validation_accuracy())
        jax.block_until_ready([variable.value for variable in self.model.trainable_variables])
        return accuracies

    def validation_accuracy(self) -> float:
        """With the present weights."""
        targets = self.problem.validation.targets
        found = self.measured.evaluate(
            self.validation, targets, batch_size=len(targets), verbose=0, return_dict=True
        )
        return found["sparse_categorical_accuracy"]


def network(problem: Problem) -> Any:
    """Dense layers with ReLU between them; Keras's L2 has no half in it."""
    *hidden, classes = problem.sizes[1:]
    penalty = keras.regularizers.L2(problem.l2 / 2)
    return keras.Sequential(
        [
            keras.Input(problem.sizes[:1]),
            *(
                keras.layers.Dense(width, activation="relu", kernel_regularizer=penalty)
                for width in hidden
            ),
            keras.layers.Dense(classes, kernel_regularizer=penalty),
        ]
    )


def initial_weights(problem: Problem, seed: int) -> Variables:
    """Those of a freshly made network; ``fit`` takes its orders from the same seed."""
    keras.utils.set_random_seed(seed)
    return [variable.value for variable in network(problem).trainable_variables]


def step(
    model: Any,
    optimizer: Any,
    weights: Variables,
    state: Variables,
    inputs: Array,
    targets: Array,
    rows: Array,
) -> tuple[Variables, Variables]:
    """One minibatch of the training examples."""

    def objective(weights: Variables) -> Array:
        logits, _, penalties = model.stateless_call(
            weights, [], inputs[rows], training=True, return_losses=True
        )
        return cross_entropy(targets[rows], logits) + sum(penalties)

    gradients = jax.grad(objective)(weights)
    return optimizer.stateless_apply(state, gradients, weights)


def accuracy(model: Any, weights: Variables, inputs: Array, targets: Array) -> Array:
    """The share of examples whose class is predicted."""
    logits, _ = model.stateless_call(weights, [], inputs)
    return keras.ops.mean(keras.ops.argmax(logits, axis=-1) == targets)
