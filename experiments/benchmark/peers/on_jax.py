"""Peers on JAX: Flax and Equinox, both with optax, and the Python loop around a jitted step.

As in Flax's MNIST example, the training examples stay on the device in floating point, an epoch's
order is drawn at its start, and the step gathers the minibatch. Flax's ``TrainState`` is faster
than Flax NNX; Equinox's documentation advises flattened trees where a step is short ("Tricks:
low-overhead training loops").
"""

# pyright: reportMissingImports=false
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.problem import Loop, Problem


def loop(problem: Problem, create: Callable, step: Callable, logits: Callable) -> Loop:
    """A contender of create(seed, rate), step(state, x, y, rows) and logits(state, x)."""
    return Loop(
        problem,
        lambda examples: jax.device_put((examples.inputs, np.asarray(examples.targets))),
        lambda seed, rate: create(seed, np.array(rate, np.float32)),
        jax.jit(step, donate_argnums=0),
        jax.jit(logits),
        jax.block_until_ready,
    )


def sgd(l2: float) -> Any:
    """optax's SGD with L2 on matrices; the learning rate is state: a new rate compiles nothing."""
    import optax

    def transformation(learning_rate: jax.Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(l2, lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
        return optax.chain(decay, optax.sgd(learning_rate))

    return optax.inject_hyperparams(transformation)(learning_rate=0.0)


def flax_vmapped(problem: Problem) -> Loop:
    """All networks in a step of Flax's functions under ``vmap``; all share the minibatch."""
    return flax(problem, jax.vmap)


def flax(problem: Problem, vmap: Callable = lambda function, in_axes: function) -> Loop:
    """Flax, a network at a time unless under ``vmap``; the state is a ``TrainState``."""
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for width in problem.sizes[1:-1]:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(problem.sizes[-1])(x)

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    network, optimizer = MLP(), sgd(problem.l2)

    def create(seed: int, rate: jax.Array) -> TrainState:
        params = network.init(jax.random.key(seed), jnp.zeros((1, problem.sizes[0])))["params"]
        state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        return state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=rate))

    def step(state: TrainState, inputs: jax.Array, targets: jax.Array, rows: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = state.apply_fn({"params": params}, inputs[rows])
            return cross_entropy(logits, targets[rows]).mean()

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    def logits(state: TrainState, inputs: jax.Array) -> Any:
        return state.apply_fn({"params": state.params}, inputs)

    return loop(
        problem,
        jax.jit(vmap(create, in_axes=(None, 0))),
        vmap(step, in_axes=(0, None, None, None)),
        vmap(logits, in_axes=(0, None)),
    )


def equinox(problem: Problem) -> Loop:
    """Equinox, a network at a time; the state is the list of leaves, in the order of ``create``."""
    import equinox as eqx
    import optax

    class MLP(eqx.Module):
        layers: list[eqx.nn.Linear]

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers[:-1]:
                x = jax.nn.relu(layer(x))
            return self.layers[-1](x)

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    optimizer = sgd(problem.l2)

    @jax.jit
    def create(seed: int, rate: jax.Array) -> tuple[MLP, Any]:
        keys = jax.random.split(jax.random.key(seed), len(problem.sizes) - 1)
        widths = zip(pairwise(problem.sizes), keys, strict=True)
        model = MLP([eqx.nn.Linear(i, o, key=each) for (i, o), each in widths])
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        return model, optax.tree.set(state, learning_rate=rate)

    structure = jax.tree.structure(jax.eval_shape(create, 0, np.float32(0)))

    def loss(model: MLP, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return cross_entropy(jax.vmap(model)(inputs), targets).mean()

    def step(leaves: list, inputs: jax.Array, targets: jax.Array, rows: jax.Array) -> list:
        model, state = jax.tree.unflatten(structure, leaves)
        gradient = eqx.filter_grad(loss)(model, inputs[rows], targets[rows])
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return jax.tree.leaves((eqx.apply_updates(model, updates), state))

    def logits(leaves: list, inputs: jax.Array) -> jax.Array:
        model, _ = jax.tree.unflatten(structure, leaves)
        return jax.vmap(model)(inputs)

    return loop(problem, lambda *start: jax.tree.leaves(create(*start)), step, logits)
