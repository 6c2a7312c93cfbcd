"""Which trial is chosen, and how sure its score is."""

import math
from collections.abc import Mapping

import numpy as np

from jaxnn.search.curves import Curve

RULES = ("mean", "one_standard_error")


class AllDivergedError(ValueError):
    """A search in which no trial is left to choose."""


def chosen(curves: Mapping[int, Curve], measure: str, rule: str = "mean") -> int:
    """The number of the trial to use.

    Args:
      curves: all trials.
      measure: what is minimised, "loss" or "error".
      rule: "mean", the lowest mean over replicates; or "one_standard_error", of those within one
        standard error of it the most parsimonious: the fewest parameters, then the strongest L2,
        then the earliest stop.

    Raises:
      AllDivergedError: every trial has diverged.
    """
    scores = {number: curve.score(measure) for number, curve in curves.items()}
    finite = {number: score for number, score in scores.items() if math.isfinite(score)}
    if not finite:
        raise AllDivergedError(
            f"all {len(curves)} configurations diverged, expected at least 1 finite: try smaller "
            "learning rates"
        )
    best = min(finite, key=lambda number: (finite[number], number))
    if rule == "mean":
        return best
    limit = finite[best] + standard_error(curves[best], measure)
    return min(
        (number for number, score in finite.items() if score <= limit),
        key=lambda number: (*_complexity(curves[number], measure), finite[number], number),
    )


def may_be_chosen(curves: Mapping[int, Curve], measure: str, rule: str) -> set[int]:
    """The trials whose parameters have to be kept while others are still in training."""
    finite = {n for n, curve in curves.items() if math.isfinite(curve.score(measure))}
    return finite if rule != "mean" or not finite else {chosen(curves, measure)}


def standard_error(curve: Curve, measure: str) -> float:
    """Of the mean over replicates at the best evaluation; nan for one replicate."""
    values = curve.values(measure)[curve.best(measure)]
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def _complexity(curve: Curve, measure: str) -> tuple[float, ...]:
    stop = curve.evaluations[curve.best(measure)]
    return curve.parameter_count, -curve.trial.config.get("l2", 0.0), stop


def confidence_intervals(
    values: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000
) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap percentile intervals of means.

    Args:
      values: [K, R]: R independent measurements of K things.
      confidence: the share of such intervals that hold the true mean.
      resamples: how many.

    Returns:
      The lower and upper ends, [K] each; nan if R is 1.
    """
    from scipy.stats import bootstrap

    if values.shape[-1] < 2 or not len(values):
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    interval = bootstrap(
        (values,),
        np.mean,
        axis=-1,
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, 10**7 // values.size),
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)
