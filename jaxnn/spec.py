"""What is compiled into a training program, and what is traced through it.

``Spec`` is static, ``jaxnn.Hyper`` is traced; the two meet in ``optimizer_at``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.core import Tracer

from jaxnn.mlp import get_loss
from jaxnn.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    GradientTransformation,
    Optimizer,
    Schedule,
)
from jaxnn.types import Array, Loss, Model


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
    """

    model: Model
    steps: int
    batch_size: int = 100
    loss: str | Loss = "cross_entropy"
    optimizer: str | Optimizer = "sgd"
    schedule: str | Schedule = "constant"
    evaluate_at: tuple[int, ...] = ()

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


def optimizer_at(spec: Spec, hyper: Any, iteration: Array) -> GradientTransformation:
    """The optimizer of one iteration, at the scheduled learning rate."""
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
