"""Equinox and optax: a jitted step on flattened trees, called in a Python loop.

Flattened trees are what Equinox's documentation advises where a step is as short as here ("Tricks:
low-overhead training loops"), and since they hold nothing but arrays ``jax.jit`` will do.

Tried beside it (softmax regression, MLP 784-50-50-10: CPU time of a step on one core over this
one's): ``eqx.filter_jit`` of the model and the optimizer's state (2.3, 1.8; donated or not), of
flattened trees (1.9, 1.5); ``jax.jit`` of trees that are not flattened (1.1, 1.1).
"""

# pyright: reportMissingImports=false

from functools import partial
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.peers.on_jax import minibatches, on_device, sgd
from experiments.benchmark.problem import Problem
from jaxnn.types import Array, PyTree


class MLP(eqx.Module):
    """Linear layers with ReLU between them."""

    layers: list[eqx.nn.Linear]

    def __init__(self, sizes: tuple[int, ...], key: Array):
        keys = jax.random.split(key, len(sizes) - 1)
        widths = zip(pairwise(sizes), keys, strict=True)
        self.layers = [eqx.nn.Linear(i, o, key=each) for (i, o), each in widths]

    def __call__(self, x: Array) -> Array:
        """The logits [out] of one example [in]."""
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


class EquinoxAndOptax(OneByOne):
    """One network after another."""

    model: MLP  # after the last training

    def __init__(self, problem: Problem):
        self.problem = problem
        self.train_data, self.validation = on_device(problem.train), on_device(problem.validation)
        optimizer = sgd(problem.l2)
        self.create = jax.jit(partial(create, problem.sizes, optimizer))
        shapes = jax.eval_shape(self.create, jax.random.key(0), np.float32(0))
        self.structure = jax.tree.structure(shapes)
        self.step = jax.jit(partial(step, optimizer, self.structure), donate_argnums=0)
        self.accuracy = jax.jit(accuracy)

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        generator, accuracies = np.random.default_rng(seed), []
        leaves = jax.tree.leaves(self.create(jax.random.key(seed), np.float32(learning_rate)))
        for _ in range(epochs):
            for rows in minibatches(self.problem, generator):
                leaves = self.step(leaves, *self.train_data, rows)
            if evaluate:
                model, _ = jax.tree.unflatten(self.structure, leaves)
                accuracies.append(float(self.accuracy(model, *self.validation)))
        self.model, _ = jax.tree.unflatten(self.structure, jax.block_until_ready(leaves))
        return accuracies


def create(
    sizes: tuple[int, ...], optimizer: optax.GradientTransformation, key: Array, rate: Array
) -> tuple[MLP, PyTree]:
    """A freshly drawn network, and the state of its optimizer."""
    model = MLP(sizes, key)
    state = optimizer.init(eqx.filter(model, eqx.is_array))
    return model, optax.tree.set(state, learning_rate=rate)


def step(
    optimizer: optax.GradientTransformation,
    structure: Any,
    leaves: list[Array],
    inputs: Array,
    targets: Array,
    rows: Array,
) -> list[Array]:
    """One minibatch of the training examples."""
    model, state = jax.tree.unflatten(structure, leaves)
    gradient = eqx.filter_grad(loss)(model, inputs[rows], targets[rows])
    updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
    return jax.tree.leaves((eqx.apply_updates(model, updates), state))


def loss(model: MLP, x: Array, y: Array) -> Array:
    """The mean cross-entropy of a minibatch."""
    logits = jax.vmap(model)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def accuracy(model: MLP, x: Array, y: Array) -> Array:
    """The share of examples whose class is predicted."""
    return jnp.mean(jnp.argmax(jax.vmap(model)(x), axis=-1) == y)
