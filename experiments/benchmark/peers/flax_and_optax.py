"""Flax and optax: a jitted step on a ``TrainState``, called in a Python loop.

Tried as well (softmax regression, MLP 784-50-50-10: CPU time of a step on a core over the step's
here): minibatches from NumPy (1.4, 1.2); the state not donated (1.1, 1.05); L2 in the loss (1.0,
1.0); 8-bit examples cast in the step (1.0, 0.96); Flax NNX with ``nnx.split`` and ``nnx.merge``
around ``jax.jit`` (1.2, 1.2), with ``nnx.jit`` (1.8 to 4.6, 1.5 to 3.1). Not documented by Flax: an
NNX state flattened by hand (0.93, 0.93), parameters without a ``TrainState`` (0.96, 0.95).
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from experiments.benchmark.contender import Train
from experiments.benchmark.peers.on_jax import loop, sgd
from experiments.benchmark.problem import Problem
from jaxnn.types import Array, PyTree


def prepare(problem: Problem) -> Train:
    """A network at a time."""
    create = jax.jit(creator(problem))
    return loop(problem, lambda seed, rate: create(jax.random.key(seed), rate), step, accuracy)


def vmapped(problem: Problem) -> Train:
    """All networks in a step of the functions under ``vmap``; all share the minibatch."""
    create = jax.jit(jax.vmap(creator(problem), in_axes=(None, 0)))
    return loop(
        problem,
        lambda seed, rates: create(jax.random.key(seed), rates),
        jax.vmap(step, in_axes=(0, None, None, None)),
        jax.vmap(accuracy, in_axes=(0, None, None)),
    )


class MLP(nn.Module):
    """Dense layers with ReLU in between."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The logits [B, out] of a minibatch [B, in]."""
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


def creator(problem: Problem) -> Callable[[Array, Array], TrainState]:
    """A function ``(key, learning_rate)`` that draws a network with its optimizer's state."""
    network, optimizer = MLP(problem.sizes[1:]), sgd(problem.l2)

    def create(key: Array, learning_rate: Array) -> TrainState:
        params = network.init(key, jnp.zeros((1, problem.sizes[0])))["params"]
        state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        return state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=learning_rate))

    return create


def step(state: TrainState, inputs: Array, targets: Array, rows: Array) -> TrainState:
    """A step on a minibatch of the training examples."""

    def loss(params: PyTree) -> Array:
        logits = state.apply_fn({"params": params}, inputs[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets[rows]).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def accuracy(state: TrainState, inputs: Array, targets: Array) -> Array:
    """The share of rightly predicted examples."""
    logits = state.apply_fn({"params": state.params}, inputs)
    return jnp.mean(jnp.argmax(logits, axis=-1) == targets)
