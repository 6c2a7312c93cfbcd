"""Flax and optax: a jitted step on a ``TrainState``, called in a Python loop.

As in Flax's own MNIST example, the training examples stay on the device in floating point and an
epoch's order is drawn at its start; the step takes the rows out itself.

Tried beside it (softmax regression, MLP 784-50-50-10: CPU time of a step on one core over this
one's):

- minibatches from NumPy (1.4, 1.2); the state not donated (1.1, 1.05); L2 in the loss instead of in
  the optimizer (1.0, 1.0); 8-bit examples cast in the step (1.0, 0.96)
- Flax NNX: ``nnx.split`` and ``nnx.merge`` around ``jax.jit`` (1.2, 1.2), ``nnx.jit`` with
  ``graph=False`` (1.8, 1.5), ``nnx.cached_partial`` (2.2, 1.6), ``nnx.jit`` (4.6, 3.1)
- what Flax does not document: the state of NNX flattened by hand (0.93, 0.93), parameters without a
  ``TrainState`` (0.96, 0.95)
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.peers.on_jax import minibatches, on_device, sgd
from experiments.benchmark.problem import Problem
from jaxnn.types import Array, PyTree


class FlaxAndOptax(OneByOne):
    """One network after another."""

    def __init__(self, problem: Problem):
        self.loop = Loop(problem, creator(problem), step, accuracy)

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        accuracies = self.loop.run(np.float32(learning_rate), epochs, seed, evaluate=evaluate)
        return [float(value) for value in accuracies]


class Vmapped:
    """All networks in one step, the same functions under ``vmap``; they share the minibatch."""

    def __init__(self, problem: Problem):
        self.loop = Loop(
            problem,
            jax.vmap(creator(problem), in_axes=(None, 0)),
            jax.vmap(step, in_axes=(0, None, None, None)),
            jax.vmap(accuracy, in_axes=(0, None, None)),
        )

    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool
    ) -> np.ndarray | None:
        """See ``Contender.train``."""
        rates = np.array(learning_rates, np.float32)
        accuracies = self.loop.run(rates, epochs, seed, evaluate=evaluate)
        return np.stack(accuracies, axis=1) if evaluate else None


class Loop:
    """The Python loop over jitted steps, of one network or of several."""

    state: TrainState  # after the last training

    def __init__(self, problem: Problem, create: Callable, step: Callable, accuracy: Callable):
        self.problem = problem
        self.train = on_device(problem.train)
        self.validation = on_device(problem.validation)
        self.create = jax.jit(create)
        self.step = jax.jit(step, donate_argnums=0)
        self.accuracy = jax.jit(accuracy)

    def run(
        self, learning_rate: np.ndarray | np.float32, epochs: int, seed: int, *, evaluate: bool
    ) -> list[np.ndarray]:
        """Trains from the start; the accuracies after every epoch, if they are asked for."""
        generator, accuracies = np.random.default_rng(seed), []
        state = self.create(jax.random.key(seed), learning_rate)
        for _ in range(epochs):
            for rows in minibatches(self.problem, generator):
                state = self.step(state, *self.train, rows)
            if evaluate:
                accuracies.append(np.asarray(self.accuracy(state, *self.validation)))
        self.state = jax.block_until_ready(state)
        return accuracies


class MLP(nn.Module):
    """Dense layers with ReLU between them."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """The logits [B, out] of a minibatch [B, in]."""
        for width in self.widths[:-1]:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


def creator(problem: Problem) -> Callable[[Array, Array], TrainState]:
    """What draws a network; its learning rate is part of its state, a new one compiles nothing."""
    network = MLP(problem.sizes[1:])
    optimizer = sgd(problem.l2)

    def create(key: Array, learning_rate: Array) -> TrainState:
        params = network.init(key, jnp.zeros((1, problem.sizes[0])))["params"]
        state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        return state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=learning_rate))

    return create


def step(state: TrainState, inputs: Array, targets: Array, rows: Array) -> TrainState:
    """One minibatch of the training examples."""

    def loss(params: PyTree) -> Array:
        logits = state.apply_fn({"params": params}, inputs[rows])
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets[rows]).mean()

    return state.apply_gradients(grads=jax.grad(loss)(state.params))


def accuracy(state: TrainState, inputs: Array, targets: Array) -> Array:
    """The share of examples whose class is predicted."""
    logits = state.apply_fn({"params": state.params}, inputs)
    return jnp.mean(jnp.argmax(logits, axis=-1) == targets)
