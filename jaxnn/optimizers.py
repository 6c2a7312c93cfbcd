"""Optimizers and learning-rate schedules, ours and optax's.

SGD and momentum are written here, adam is optax's. Optax itself is imported where it is used, for
that takes a tenth of a second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxnn.types import Array, ArrayLike, PyTree


class GradientTransformation(Protocol):
    """An optimizer as optax has them: pure functions around a state of its own."""

    @property
    def init(self) -> Callable[[PyTree], PyTree]:
        """From the parameters to the first state."""
        ...

    @property
    def update(self) -> Callable[..., tuple[PyTree, PyTree]]:
        """From (gradient, state, parameters) to what is added to the parameters, and the state."""
        ...


@dataclass(frozen=True)
class Transformation:
    """One of ours."""

    init: Callable[[PyTree], PyTree]
    update: Callable[..., tuple[PyTree, PyTree]]


class TraceState(NamedTuple):
    """What momentum remembers."""

    trace: PyTree  # like the parameters


def sgd(learning_rate: ArrayLike) -> Transformation:
    """``optax.sgd``: update -learning_rate g."""

    def update(updates: PyTree, state: tuple, params: PyTree = None) -> tuple[PyTree, tuple]:
        del params
        return jax.tree.map(lambda g: -(learning_rate * g), updates), state

    return Transformation(lambda params: (), update)


def momentum_sgd(
    learning_rate: ArrayLike, momentum: ArrayLike, *, nesterov: bool = False
) -> Transformation:
    """``optax.sgd`` with momentum: t <- g + momentum t, update -learning_rate t.

    With Nesterov's momentum the update is -learning_rate (g + momentum t). The trace t is complete
    before anything is computed from it. Otherwise XLA computes parameters and trace both from the
    old ones, and has to copy both in every step, a tenth of its time and more.
    """

    def update(
        updates: PyTree, state: TraceState, params: PyTree = None
    ) -> tuple[PyTree, TraceState]:
        del params
        trace = jax.tree.map(lambda g, t: g + momentum * t, updates, state.trace)
        ahead = trace = jax.lax.optimization_barrier(trace)
        if nesterov:
            ahead = jax.tree.map(lambda g, t: g + momentum * t, updates, trace)
        return jax.tree.map(lambda t: -(learning_rate * t), ahead), TraceState(trace)

    return Transformation(lambda params: TraceState(jax.tree.map(jnp.zeros_like, params)), update)


def adam(
    learning_rate: ArrayLike, b1: ArrayLike, b2: ArrayLike, eps: ArrayLike
) -> GradientTransformation:
    """``optax.adam``."""
    import optax

    return optax.adam(learning_rate, b1, b2, eps)  # pyright: ignore[reportArgumentType]


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """``optax.apply_updates``: the parameters with their updates added, in their own precision."""
    return jax.tree.map(lambda p, u: (p + u).astype(p.dtype), params, updates)


Optimizer = Callable[[Any], GradientTransformation]


@dataclass(frozen=True)
class NamedOptimizer:
    """An ``Optimizer`` that says which hyperparameters it reads: the arguments of ``make``."""

    make: Callable[..., GradientTransformation]
    reads: tuple[str, ...]

    def __call__(self, hyper: Any) -> GradientTransformation:
        """At the values of these hyperparameters, and of no others."""
        return self.make(*(getattr(hyper, name) for name in self.reads))


OPTIMIZERS = {
    "sgd": NamedOptimizer(sgd, ("learning_rate",)),
    "momentum": NamedOptimizer(momentum_sgd, ("learning_rate", "momentum")),
    "nesterov": NamedOptimizer(partial(momentum_sgd, nesterov=True), ("learning_rate", "momentum")),
    "adam": NamedOptimizer(adam, ("learning_rate", "b1", "b2", "eps")),
}

Schedule = Callable[[int], Callable[[Array], ArrayLike]]


def cosine(steps: int) -> Callable[[Array], ArrayLike]:
    """From 1 to 0."""
    import optax

    return optax.cosine_decay_schedule(1.0, steps)


def step(steps: int) -> Callable[[Array], ArrayLike]:
    """A tenth at one half, and again at three quarters."""
    import optax

    return optax.piecewise_constant_schedule(1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1})


SCHEDULES: dict[str, Schedule] = {
    "constant": lambda steps: lambda iteration: 1.0,
    "cosine": cosine,
    "step": step,
}
