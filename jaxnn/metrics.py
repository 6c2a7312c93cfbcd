"""Metrics: scores of all outputs of a data set, by the names of scikit-learn.

A metric is a function of the outputs [N, C] of a network and the targets, which need not be a mean
over examples, as a loss is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxnn.types import Array, did_you_mean, require_type, shown


@dataclass(frozen=True)
class Metric:
    """A score of outputs, and the direction of better scores.

    Attributes:
      name: in tables and records.
      function: from outputs [N, C] and targets [N], [N, C] or [N, K] to a scalar, traced by JAX.
      greater_is_better: whether the highest score is the best.
    """

    name: str
    function: Callable[[Array, Array], Any]
    greater_is_better: bool

    def __post_init__(self):
        require_type(isinstance(self.name, str), "name", self.name, "the name of a metric")
        require_type(callable(self.function), self.name, self.function, "a function of JAX")


def _classes(outputs: Array) -> Array:
    """The predicted classes [N]: the largest of C logits, or the sign of a single logit."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > 0).astype(jnp.int32)
    return jnp.argmax(outputs, axis=1)


def accuracy(outputs: Array, targets: Array) -> Array:
    """The share of examples whose class is predicted."""
    labels = jnp.argmax(targets, axis=1) if targets.ndim == 2 else targets
    return jnp.mean(_classes(outputs) == labels)


def rmse(outputs: Array, targets: Array) -> Array:
    """The root of the mean squared error, the mean over targets of an example."""
    squares = (outputs - targets.reshape(outputs.shape)) ** 2
    return jnp.mean(jnp.sqrt(jnp.mean(squares, axis=0)))


METRICS = {
    metric.name: metric
    for metric in (Metric("accuracy", accuracy, True), Metric("rmse", rmse, False))
}


def get_metric(metric: Any) -> Metric:
    """The metric by name, or the ``Metric`` itself; ValueError for an unknown name."""
    if isinstance(metric, Metric):
        return metric
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(
            f"metric is {shown(metric)}, expected one of {sorted(METRICS)}, or Metric(name, "
            f"function, greater_is_better){did_you_mean(metric, METRICS)}"
        )
    return METRICS[metric]
