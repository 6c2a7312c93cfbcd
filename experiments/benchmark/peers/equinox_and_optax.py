"""Equinox and optax: a jitted step on flattened trees, called in a Python loop.

Equinox's documentation advises flattened trees where a step is as short as here ("Tricks:
low-overhead training loops"); since the trees hold nothing but arrays, ``jax.jit`` will do.

Tried as well (softmax regression, MLP 784-50-50-10: CPU time of a step on a core over the step's
here): ``eqx.filter_jit`` of the model and the optimizer's state (2.3, 1.8; donated or not), of
flattened trees (1.9, 1.5); ``jax.jit`` of trees not flattened (1.1, 1.1).
"""

# pyright: reportMissingImports=false

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmark.contender import Train
from experiments.benchmark.peers.on_jax import loop, sgd
from experiments.benchmark.problem import Problem
from jaxnn.types import Array, PyTree


class MLP(eqx.Module):
    """Linear layers with ReLU in between."""

    layers: list[eqx.nn.Linear]

    def __init__(self, sizes: tuple[int, ...], key: Array):
        keys = jax.random.split(key, len(sizes) - 1)
        widths = zip(pairwise(sizes), keys, strict=True)
        self.layers = [eqx.nn.Linear(i, o, key=each) for (i, o), each in widths]

    def __call__(self, x: Array) -> Array:
        """The logits [out] of an example [in]."""
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


def prepare(problem: Problem) -> Train:
    """A network at a time; the state is the list of leaves, in the order of ``create``."""
    optimizer = sgd(problem.l2)

    @jax.jit
    def create(key: Array, rate: Array) -> tuple[MLP, PyTree]:
        model = MLP(problem.sizes, key)
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        return model, optax.tree.set(state, learning_rate=rate)

    structure = jax.tree.structure(jax.eval_shape(create, jax.random.key(0), np.float32(0)))

    def step(leaves: list[Array], inputs: Array, targets: Array, rows: Array) -> list[Array]:
        model, state = jax.tree.unflatten(structure, leaves)
        gradient = eqx.filter_grad(loss)(model, inputs[rows], targets[rows])
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return jax.tree.leaves((eqx.apply_updates(model, updates), state))

    def accuracy(leaves: list[Array], inputs: Array, targets: Array) -> Array:
        model, _ = jax.tree.unflatten(structure, leaves)
        return jnp.mean(jnp.argmax(jax.vmap(model)(inputs), axis=-1) == targets)

    def leaves(seed: int, rate: np.ndarray) -> list[Array]:
        return jax.tree.leaves(create(jax.random.key(seed), rate))

    return loop(problem, leaves, step, accuracy)


def loss(model: MLP, inputs: Array, targets: Array) -> Array:
    """The mean cross-entropy of a minibatch."""
    logits = jax.vmap(model)(inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
