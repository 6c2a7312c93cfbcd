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

from experiments.benchmark.problem import Problem, Train


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
    """optax's SGD with L2 on matrices; the learning rate is state: a new rate compiles nothing."""
    import optax

    def transformation(learning_rate: jax.Array) -> optax.GradientTransformation:
        decay = optax.add_decayed_weights(l2, lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
        return optax.chain(decay, optax.sgd(learning_rate))

    return optax.inject_hyperparams(transformation)(learning_rate=0.0)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean over a minibatch."""
    import optax

    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def flax(problem: Problem) -> Train:
    """Flax, a network at a time."""
    create, step, accuracy = flax_functions(problem)
    create = jax.jit(create)
    return loop(problem, lambda seed, rate: create(jax.random.key(seed), rate), step, accuracy)


def flax_vmapped(problem: Problem) -> Train:
    """All networks in a step of Flax's functions under ``vmap``; all share the minibatch."""
    create, step, accuracy = flax_functions(problem)
    create = jax.jit(jax.vmap(create, in_axes=(None, 0)))
    return loop(
        problem,
        lambda seed, rates: create(jax.random.key(seed), rates),
        jax.vmap(step, in_axes=(0, None, None, None)),
        jax.vmap(accuracy, in_axes=(0, None, None)),
    )


def flax_functions(problem: Problem) -> tuple[Callable, Callable, Callable]:
    """``create(key, learning_rate)``, ``step`` and ``accuracy`` of a ``TrainState``."""
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for width in problem.sizes[1:-1]:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(problem.sizes[-1])(x)

    network, optimizer = MLP(), sgd(problem.l2)

    def create(key: jax.Array, learning_rate: jax.Array) -> TrainState:
        params = network.init(key, jnp.zeros((1, problem.sizes[0])))["params"]
        state = TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
        return state.replace(opt_state=optax.tree.set(state.opt_state, learning_rate=learning_rate))

    def step(state: TrainState, inputs: jax.Array, targets: jax.Array, rows: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            return cross_entropy(state.apply_fn({"params": params}, inputs[rows]), targets[rows])

        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    def accuracy(state: TrainState, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits = state.apply_fn({"params": state.params}, inputs)
        return jnp.mean(jnp.argmax(logits, axis=-1) == targets)

    return create, step, accuracy


def equinox(problem: Problem) -> Train:
    """Equinox, a network at a time; the state is the list of leaves, in the order of ``create``."""
    import equinox as eqx
    import optax

    class MLP(eqx.Module):
        layers: list[eqx.nn.Linear]

        def __call__(self, x: jax.Array) -> jax.Array:
            for layer in self.layers[:-1]:
                x = jax.nn.relu(layer(x))
            return self.layers[-1](x)

    optimizer = sgd(problem.l2)

    @jax.jit
    def create(key: jax.Array, rate: jax.Array) -> tuple[MLP, Any]:
        keys = jax.random.split(key, len(problem.sizes) - 1)
        widths = zip(pairwise(problem.sizes), keys, strict=True)
        model = MLP([eqx.nn.Linear(i, o, key=each) for (i, o), each in widths])
        state = optimizer.init(eqx.filter(model, eqx.is_array))
        return model, optax.tree.set(state, learning_rate=rate)

    structure = jax.tree.structure(jax.eval_shape(create, jax.random.key(0), np.float32(0)))

    def loss(model: MLP, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return cross_entropy(jax.vmap(model)(inputs), targets)

    def step(leaves: list, inputs: jax.Array, targets: jax.Array, rows: jax.Array) -> list:
        model, state = jax.tree.unflatten(structure, leaves)
        gradient = eqx.filter_grad(loss)(model, inputs[rows], targets[rows])
        updates, state = optimizer.update(gradient, state, eqx.filter(model, eqx.is_array))
        return jax.tree.leaves((eqx.apply_updates(model, updates), state))

    def accuracy(leaves: list, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        model, _ = jax.tree.unflatten(structure, leaves)
        return jnp.mean(jnp.argmax(jax.vmap(model)(inputs), axis=-1) == targets)

    def start(seed: int, rate: np.ndarray) -> list[jax.Array]:
        return jax.tree.leaves(create(jax.random.key(seed), rate))

    return loop(problem, start, step, accuracy)
