"""Metrics: scores of all outputs of a data set, by the names of scikit-learn, and intervals.

A metric is a function of the outputs [N, C] of a network and the targets, which need not be a mean
over examples, as a loss is. Targets of classes are class indices [N] or probability vectors [N, C],
whose largest entry is the class; a single logit tells class 1 from class 0. Classes that neither
targets nor predictions hold count nowhere, as in scikit-learn; a score without a value, such as
``roc_auc`` of a single class, is nan.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import Array, did_you_mean, require, require_type, shown

ANY, CLASSES, TWO_CLASSES, REALS = "any targets", "classes", "two classes", "real targets"


@dataclass(frozen=True)
class Metric:
    """A score of outputs, and the direction of better scores.

    Attributes:
      name: in tables and records.
      function: from outputs [N, C] and targets [N], [N, C] or [N, K] to a scalar, traced by JAX; a
        third parameter ``weights`` [N] or None is for weighted evaluations.
      greater_is_better: whether the highest score is the best.
      of: the kind of targets: "any targets", "classes", "two classes" or "real targets".
    """

    name: str
    function: Callable[..., Any]
    greater_is_better: bool
    of: str = ANY

    def __post_init__(self):
        require_type(isinstance(self.name, str), "name", self.name, "the name of a metric")
        require_type(callable(self.function), self.name, self.function, "a function of JAX")
        fits = isinstance(self.greater_is_better, bool)
        require_type(fits, "greater_is_better", self.greater_is_better, "True or False")
        if self.of not in (kinds := (ANY, CLASSES, TWO_CLASSES, REALS)):
            raise ValueError(f"of is {shown(self.of)}, expected one of {kinds}")

    def __call__(self, outputs: Array, targets: Array, weights: Array | None = None) -> Any:
        """The score of outputs [N, C]."""
        if weights is None:
            return self.function(outputs, targets)
        return self.function(outputs, targets, weights=weights)

    def require_fit(self, loss: Any, outputs: int, *, regression: bool, weighted: bool) -> None:
        """ValueError for a metric of other targets than a loss, or without weights."""
        known = f"the metric {self.name} is of {self.of} and"
        if isinstance(loss, str) and self.of != ANY and regression != (self.of == REALS):
            kind, other = (REALS, "rmse") if regression else (CLASSES, "f1_macro")
            raise ValueError(f"{known} the loss {loss} of {kind}, expected such as {other!r}")
        if self.of == TWO_CLASSES and outputs > 2:
            several = ", ".join(f"{self.name}_{way}" for way in ("macro", "micro", "weighted"))
            raise ValueError(f"{known} the network has {outputs} outputs, expected {several}")
        if weighted and "weights" not in signature(self.function).parameters:
            raise ValueError(
                f"the metric {self.name} takes no weights, expected (outputs, targets, weights) or "
                "unweighted evaluations"
            )


def _mean(values: Array, weights: Array | None) -> Array:
    """The mean over examples, the first axis."""
    return jnp.average(values, axis=0, weights=weights)


def _share(part: Array, whole: Array) -> Array:
    """part / whole, and 0 where both are 0."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))


def _logits(outputs: Array) -> Array:
    """The logits [N, C] of at least 2 classes: 0 and z for a single logit z."""
    return jnp.pad(outputs, ((0, 0), (1, 0))) if outputs.shape[1] == 1 else outputs


def _labels(outputs: Array, targets: Array) -> Array:
    """The classes [N] of the targets."""
    if targets.ndim == 2:
        return jnp.argmax(targets, axis=1)
    return (targets > 0.5 if outputs.shape[1] == 1 else targets).astype(jnp.int32)


def _one_hot(outputs: Array, labels: Array) -> Array:
    """Classes as rows [N, C] of zeros and a one."""
    return jax.nn.one_hot(labels, max(outputs.shape[1], 2), dtype=outputs.dtype)


def _confusion(outputs: Array, targets: Array, weights: Array | None) -> Array:
    """The weight of the examples by class and predicted class, [C, C]."""
    rows = _one_hot(outputs, _labels(outputs, targets))
    rows = rows if weights is None else rows * weights[:, None]
    columns = _one_hot(outputs, jnp.argmax(_logits(outputs), axis=1))
    return jnp.matmul(rows.T, columns, precision="highest")


def accuracy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The share of examples whose class is predicted."""
    hits = jnp.argmax(_logits(outputs), axis=1) == _labels(outputs, targets)
    return _mean(hits.astype(outputs.dtype), weights)


def balanced_accuracy(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean over classes of the share of a class's examples that is predicted."""
    table = _confusion(outputs, targets, weights)
    size = table.sum(axis=1)
    return _share(jnp.diagonal(table), size).sum() / jnp.sum(size > 0)


def top_k_accuracy(
    outputs: Array, targets: Array, weights: Array | None = None, *, k: int = 2
) -> Array:
    """The share of examples whose class has one of the k largest logits; of equals the last."""
    logits, labels = _logits(outputs), _labels(outputs, targets)[:, None]
    own = jnp.take_along_axis(logits, labels, axis=1)
    later = jnp.arange(logits.shape[1]) > labels
    before = jnp.sum((logits > own) | ((logits == own) & later), axis=1)
    return _mean((before < k).astype(outputs.dtype), weights)


def _by_class(
    outputs: Array,
    targets: Array,
    weights: Array | None = None,
    *,
    measure: Callable[[Array, Array, Array], Array],
    average: str,
) -> Array:
    """A measure of (hits, examples, predictions) of classes, and an average over the classes."""
    table = _confusion(outputs, targets, weights)
    counts = jnp.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    if average == "micro":
        return measure(*(count.sum() for count in counts))
    values, (_, size, predicted) = measure(*counts), counts
    if average == "weighted":
        return values @ size / size.sum()
    return values[1] if average == "binary" else values.sum() / jnp.sum(size + predicted > 0)


_MEASURES: dict[str, Callable[[Array, Array, Array], Array]] = {
    "precision": lambda hits, size, predicted: _share(hits, predicted),
    "recall": lambda hits, size, predicted: _share(hits, size),
    "f1": lambda hits, size, predicted: _share(2 * hits, size + predicted),
    "jaccard": lambda hits, size, predicted: _share(hits, size + predicted - hits),
}


def _agreement(outputs: Array, targets: Array, weights: Array | None) -> tuple[Array, ...]:
    """The shares of classes and of predictions [C], the disagreement, and the one by chance."""
    table = _confusion(outputs, targets, weights)
    table /= table.sum()
    shares = table.sum(axis=1), table.sum(axis=0)
    others = 1 - jnp.eye(len(table), dtype=table.dtype)  # without the cancellation in 1 - share
    return *shares, jnp.sum(others * table), shares[0] @ others @ shares[1]


def cohen_kappa(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """Cohen's kappa: 1 - disagreement / disagreement by chance."""
    *_, found, by_chance = _agreement(outputs, targets, weights)
    return 1 - found / by_chance


def matthews_corrcoef(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The correlation of classes and predictions (Gorodkin, 2004); 0 where one is constant."""
    *shares, found, by_chance = _agreement(outputs, targets, weights)
    spreads = [s @ (1 - jnp.eye(len(s), dtype=s.dtype)) @ s for s in shares]
    return _share(by_chance - found, jnp.sqrt(spreads[0] * spreads[1]))


def _one_against_rest(
    outputs: Array, targets: Array, weights: Array | None, score: Callable[..., Array]
) -> Array:
    """A score of class 1 of two classes, or the mean over classes, each against the rest."""
    logits = _logits(outputs)
    hits = _one_hot(outputs, _labels(outputs, targets))
    weights = jnp.ones(len(hits), hits.dtype) if weights is None else weights
    if logits.shape[1] == 2:
        return score(logits[:, 1] - logits[:, 0], hits[:, 1], weights)
    # The sum of the sorted terms: equal probabilities in different rows stay equal.
    shares = logits - jax.nn.logsumexp(jnp.sort(logits, axis=1), axis=1, keepdims=True)
    return jnp.mean(jax.vmap(score, in_axes=(1, 1, None))(shares, hits, weights))


def _beyond(scores: Array, weights: Array, side: str) -> Array:
    """The weight [N] of the examples with lower scores than each; side right: or equal scores."""
    order = jnp.argsort(scores)
    sums = jnp.pad(jnp.cumsum(weights[order]), (1, 0))
    return sums[jnp.searchsorted(scores[order], scores, side=side)]


def _auc(scores: Array, hits: Array, weights: Array) -> Array:
    """The chance that an example of the class has a higher score than another; ties count 1/2."""
    own, other = weights * hits, weights * (1 - hits)
    below = _beyond(scores, other, "left") + _beyond(scores, other, "right")
    return jnp.sum(own / own.sum() * (below / other.sum() / 2))


def _average_precision(scores: Array, hits: Array, weights: Array) -> Array:
    own = weights * hits
    above = _share(_beyond(-scores, own, "right"), _beyond(-scores, weights, "right"))
    return jnp.sum(own / own.sum() * above)


def roc_auc(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The area under the ROC curve; of more than two classes the mean, each against the rest."""
    return _one_against_rest(outputs, targets, weights, _auc)


def average_precision(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean precision at the examples of a class; of more than two classes the mean."""
    return _one_against_rest(outputs, targets, weights, _average_precision)


def _probabilities(outputs: Array, targets: Array) -> Array:
    """The targets as probability vectors [N, C]."""
    if targets.ndim == 2:
        return targets.astype(outputs.dtype)
    if outputs.shape[1] == 1:
        return jnp.stack([1 - targets, targets], axis=1).astype(outputs.dtype)
    return _one_hot(outputs, targets)


def log_loss(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean cross-entropy in nats, whatever the loss of the training."""
    logs, shares = jax.nn.log_softmax(_logits(outputs)), _probabilities(outputs, targets)
    return _mean(-jnp.sum(jnp.where(shares == 0, 0, shares * logs), axis=1), weights)


def brier_score(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean of sum_c (p_c - y_c)^2; half of the mean for two classes."""
    logits = _logits(outputs)
    squares = (jax.nn.softmax(logits) - _probabilities(outputs, targets)) ** 2
    return _mean(squares.sum(axis=1), weights) / (2 if logits.shape[1] == 2 else 1)


def _deviations(outputs: Array, targets: Array) -> Array:
    """t - z, [N, K]."""
    return targets.reshape(outputs.shape).astype(outputs.dtype) - outputs


def rmse(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The root of the mean squared error, the mean over targets of an example."""
    return jnp.mean(jnp.sqrt(_mean(_deviations(outputs, targets) ** 2, weights)))


def mse(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean squared error."""
    return jnp.mean(_mean(_deviations(outputs, targets) ** 2, weights))


def mae(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean absolute error."""
    return jnp.mean(_mean(jnp.abs(_deviations(outputs, targets)), weights))


def mape(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The mean of |t - z| / |t|; the least divisor is 2^-52."""
    size = jnp.maximum(jnp.abs(targets.reshape(outputs.shape)), 2.0**-52)
    return jnp.mean(_mean(jnp.abs(_deviations(outputs, targets)) / size, weights))


def max_error(outputs: Array, targets: Array) -> Array:
    """The largest absolute error."""
    return jnp.max(jnp.abs(_deviations(outputs, targets)))


def median_absolute_error(outputs: Array, targets: Array) -> Array:
    """The median of the absolute errors, the mean over targets of an example."""
    return jnp.mean(jnp.median(jnp.abs(_deviations(outputs, targets)), axis=0))


def _variance(values: Array, weights: Array | None) -> Array:
    return _mean((values - _mean(values, weights)) ** 2, weights)


def _explained(rest: Array, whole: Array) -> Array:
    """1 - rest / whole; of constant targets 1 without a rest and 0 with a rest."""
    found = 1 - rest / jnp.where(whole == 0, 1, whole)
    return jnp.mean(jnp.where(whole == 0, rest == 0, found))


def r2(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """The coefficient of determination: 1 - squared error / variance of the targets."""
    deviations = _deviations(outputs, targets)
    whole = _variance(deviations + outputs, weights)
    return _explained(_mean(deviations**2, weights), whole)


def explained_variance(outputs: Array, targets: Array, weights: Array | None = None) -> Array:
    """1 - variance of the deviations / variance of the targets."""
    deviations = _deviations(outputs, targets)
    return _explained(_variance(deviations, weights), _variance(deviations + outputs, weights))


_AVERAGES = {"": "binary", "_macro": "macro", "_micro": "micro", "_weighted": "weighted"}
_BY_CLASS = [
    Metric(
        f"{name}{suffix}",
        partial(_by_class, measure=measure, average=average),
        greater_is_better=True,
        of=CLASSES if suffix else TWO_CLASSES,
    )
    for name, measure in _MEASURES.items()
    for suffix, average in _AVERAGES.items()
]
_OTHERS = (
    ("accuracy", accuracy, True, CLASSES),
    ("auc roc_auc", roc_auc, True, CLASSES),
    ("average_precision", average_precision, True, CLASSES),
    ("balanced_accuracy", balanced_accuracy, True, CLASSES),
    ("brier_score", brier_score, False, CLASSES),
    ("cohen_kappa", cohen_kappa, True, CLASSES),
    ("log_loss", log_loss, False, CLASSES),
    ("matthews_corrcoef", matthews_corrcoef, True, CLASSES),
    ("top_k_accuracy", top_k_accuracy, True, CLASSES),
    ("explained_variance", explained_variance, True, REALS),
    ("mae mean_absolute_error", mae, False, REALS),
    ("mape mean_absolute_percentage_error", mape, False, REALS),
    ("max_error", max_error, False, REALS),
    ("median_absolute_error", median_absolute_error, False, REALS),
    ("mse mean_squared_error", mse, False, REALS),
    ("r2", r2, True, REALS),
    ("rmse root_mean_squared_error", rmse, False, REALS),
)
"""Names, function, whether the highest score is the best, and the kind of targets."""

METRICS = {metric.name: metric for metric in _BY_CLASS} | {
    name: Metric(name, function, greater_is_better=greater, of=of)
    for names, function, greater, of in _OTHERS
    for name in names.split()
}
"""The metrics by name; ``top_3_accuracy`` and the like are metrics too."""


def get_metric(metric: Any) -> Metric:
    """The metric by name, or the ``Metric`` itself; ValueError for an unknown name."""
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str) and (match := re.fullmatch(r"top_([1-9]\d{0,5})_accuracy", metric)):
        return _top(int(match[1]))
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(
            f"metric is {shown(metric)}, expected one of {sorted(METRICS)}, or Metric(name, "
            f"function, greater_is_better){did_you_mean(metric, METRICS)}"
        )
    return METRICS[metric]


@lru_cache
def _top(k: int) -> Metric:
    """The metric, made once: equal metrics are a part of equal programs."""
    function = partial(top_k_accuracy, k=k)
    return Metric(f"top_{k}_accuracy", function, greater_is_better=True, of=CLASSES)


# Intervals of scores.


def standard_error(values: np.ndarray) -> float:
    """The standard error of a mean: s / sqrt(n) of n independent values, n at least 2."""
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def confidence_intervals(
    values: np.ndarray, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Student's intervals of means: mean +- t s / sqrt(R), with R - 1 degrees of freedom.

    The intervals are exact for normal values and any R: 2 seeds give a wide interval.

    Args:
      values: [K, R]: R independent measurements of K quantities.
      confidence: the share of intervals that contain the true mean.

    Returns:
      The lower and upper ends, [K] each; nan if R is 1, or if a measurement is nan.
    """
    mean, count = values.mean(axis=1), values.shape[1]
    if count < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = _student(count, confidence) * values.std(axis=1, ddof=1) / math.sqrt(count)
    return mean - half, mean + half


def _student(count: int, confidence: float) -> float:
    """The quantile of Student's t for the mean of ``count`` values."""
    require("search", "scipy")
    from scipy.special import stdtrit  # the import of scipy.stats takes half a second

    return float(stdtrit(count - 1, (1 + confidence) / 2))


def proportion_interval(
    shares: np.ndarray, models: int, *, confidence: float = 0.95
) -> tuple[float, float]:
    """The exact interval of a proportion (Clopper and Pearson, 1934), over examples.

    With several models, an example has a share of correct models in place of 0 or 1. Such shares
    vary less: a variance s^2 counts as that of p (1 - p) / s^2 examples for each example, between 1
    and the number of models.

    Args:
      shares: [N], of the models that classify an example correctly.
      models: how many.
      confidence: the least share of intervals that contain the true accuracy.

    Returns:
      The lower and upper ends, between 0 and 1.
    """
    require("search", "scipy")
    from scipy.special import betaincinv

    mean, variance = float(shares.mean()), float(shares.var())
    gain = np.clip(mean * (1 - mean) / variance, 1, models) if variance else 1.0
    n, tail = gain * len(shares), (1 - confidence) / 2
    hits = min(max(mean * n, 0), n)
    low = betaincinv(hits, n - hits + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return float(low), float(high)


def skewed_interval(values: np.ndarray, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the mean of skewed values, such as losses of examples (Hall, 1992).

    A cubic transformation removes the skewness g of T = (m - mean) / (s / sqrt(n)):
    T + a T^2 + a^2 T^3 / 3 + a / 2, where a = g / (3 sqrt(n)), is nearly normal.

    Args:
      values: [N], independent.
      confidence: the share of intervals that contain the true mean, for large N.

    Returns:
      The lower and upper ends; nan for a single value.

    Source: P. Hall, On the removal of skewness by transformation, JRSS B 54 (1992).
    """
    n, mean, deviation = len(values), float(values.mean()), float(values.std())
    if n < 2:
        return math.nan, math.nan
    if not deviation > 0:  # also without finite values
        return mean, mean + 0 * deviation
    a = float(np.mean(((values - mean) / deviation) ** 3)) / (3 * math.sqrt(n))
    t = _student(n, confidence) * np.array([1, -1])
    inverse = (np.cbrt(1 + 3 * a * (t - a / 2)) - 1) / a if abs(a) > 1e-6 else t
    low, high = mean - values.std(ddof=1) / math.sqrt(n) * inverse
    return float(low), float(high)
