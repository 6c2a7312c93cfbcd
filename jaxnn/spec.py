"""What is compiled into a training program, and what is traced through it.

``Spec`` is static, ``jaxnn.Hyper`` is traced; the two meet in ``optimizer_at``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from jaxnn.mlp import get_loss
from jaxnn.types import Array, ArrayLike, Loss, Model, PyTree


def momentum_sgd(
    learning_rate: ArrayLike, momentum: ArrayLike, *, nesterov: bool = False
) -> optax.GradientTransformation:
    """``optax.sgd`` with momentum: t <- g + momentum t, update -learning_rate t.

    With Nesterov's momentum the update is -learning_rate (g + momentum t). The trace t is complete
    before anything is computed from it. Otherwise XLA computes parameters and trace both from the
    old ones, and has to copy both in every step, a tenth of its time and more.
    """

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        trace = jax.tree.map(lambda g, t: g + momentum * t, updates, state.trace)
        ahead = trace = jax.lax.optimization_barrier(trace)
        if nesterov:
            ahead = jax.tree.map(lambda g, t: g + momentum * t, updates, trace)
        return jax.tree.map(lambda t: -(learning_rate * t), ahead), optax.TraceState(trace)

    return optax.GradientTransformation(
        lambda params: optax.TraceState(jax.tree.map(jnp.zeros_like, params)), update
    )


Optimizer = Callable[[Any], optax.GradientTransformation]


@dataclass(frozen=True)
class NamedOptimizer:
    """An ``Optimizer`` that says which hyperparameters it reads: the arguments of ``make``."""

    make: Callable[..., optax.GradientTransformation]
    reads: tuple[str, ...]

    def __call__(self, hyper: Any) -> optax.GradientTransformation:
        """At the values of these hyperparameters, and of no others."""
        return self.make(*(getattr(hyper, name) for name in self.reads))


OPTIMIZERS = {
    "sgd": NamedOptimizer(optax.sgd, ("learning_rate",)),
    "momentum": NamedOptimizer(momentum_sgd, ("learning_rate", "momentum")),
    "nesterov": NamedOptimizer(partial(momentum_sgd, nesterov=True), ("learning_rate", "momentum")),
    "adam": NamedOptimizer(optax.adam, ("learning_rate", "b1", "b2", "eps")),
}

SEARCH_OPTIMIZER = "momentum"
"""The optimizer of a search whose space names none; ``Spec`` by itself is plain SGD."""

Schedule = Callable[[int], optax.Schedule]
SCHEDULES: dict[str, Schedule] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "step": lambda steps: optax.piecewise_constant_schedule(
        1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1}
    ),
}


@dataclass(frozen=True)
class Spec:
    """What is compiled into a training program; each distinct spec is one program.

    Attributes:
      model: ``jaxnn.MLP``, or any pair of pure functions ``init(key)`` and ``apply(params, x)``
        for one example, such as ``jaxnn.Network``.
      steps: iterations of minibatch SGD.
      batch_size: B, examples per minibatch.
      loss: "cross_entropy", "squared_error", "logistic", or any (logits, target) -> scalar.
      optimizer: "sgd", "momentum", "nesterov", "adam", or any function from the traced
        hyperparameters to an ``optax.GradientTransformation``.
      schedule: "constant", "cosine" (to 0), "step" (a tenth at one half and again at three
        quarters), or any function from the number of steps to an ``optax.Schedule`` of factors on
        the learning rate.
      evaluate_at: the iterations (numbers of finished updates) at which to evaluate, from 0 to
        steps; the last is always among them.
      together: whether this is one of the models that train at once under ``vmap``, which decides
        how minibatches lie in memory, for speed. Populations and searches see to it themselves.
    """

    model: Model
    steps: int
    batch_size: int = 100
    loss: str | Loss = "cross_entropy"
    optimizer: str | Optimizer = "sgd"
    schedule: str | Schedule = "constant"
    evaluate_at: tuple[int, ...] = ()
    together: bool = False

    def __post_init__(self):
        object.__setattr__(self, "steps", require_count("steps", self.steps))
        object.__setattr__(self, "batch_size", require_count("batch_size", self.batch_size))
        get_loss(self.loss)
        for name, value, table in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
        ):
            if not callable(value) and value not in table:
                raise ValueError(
                    f"{name} is {value!r}, expected one of {sorted(table)} or a callable"
                )
        whole = all(hasattr(point, "__index__") for point in self.evaluate_at)
        points = tuple(sorted({*map(int, self.evaluate_at), self.steps}))
        if not whole or points[0] < 0 or points[-1] > self.steps:
            raise ValueError(
                f"evaluate_at is {self.evaluate_at}, expected iterations from 0 to {self.steps}"
            )
        object.__setattr__(self, "evaluate_at", points)


def optimizer_at(spec: Spec, hyper: Any, iteration: Array) -> optax.GradientTransformation:
    """The optimizer of one iteration: optax's, at the scheduled learning rate."""
    schedule = spec.schedule if callable(spec.schedule) else SCHEDULES[spec.schedule]
    optimizer = spec.optimizer if callable(spec.optimizer) else OPTIMIZERS[spec.optimizer]
    factor = schedule(spec.steps)(iteration)
    return optimizer(hyper._replace(learning_rate=hyper.learning_rate * factor))


def check_hyper(hyper: Any) -> None:
    """ValueError for a hyperparameter out of its range; traced values pass."""
    ranges: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
        "learning_rate": ("a finite number above 0", lambda v: v > 0),
        "l2": ("a finite number of at least 0", lambda v: v >= 0),
        "momentum": ("a number from 0 to below 1", lambda v: (v >= 0) & (v < 1)),
        "b1": ("a number from 0 to below 1", lambda v: (v >= 0) & (v < 1)),
        "b2": ("a number from 0 to below 1", lambda v: (v >= 0) & (v < 1)),
        "eps": ("a finite number above 0", lambda v: v > 0),
    }
    for name, value in hyper._asdict().items():
        if isinstance(value, Tracer):
            continue
        expected, in_range = ranges.get(name, ("a finite number", np.isfinite))
        values = np.asarray(value)
        good = np.isfinite(values) & in_range(values)
        if not np.all(good):
            raise ValueError(f"{name} is {values[~good].flat[0]}, expected {expected}")


def require_count(name: str, value: int) -> int:
    """The value as an int; ValueError unless it is a positive whole number."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a positive integer")
    return int(value)
