"""Measures over the seeds."""

from collections.abc import Iterable
from typing import TypedDict

import numpy as np


class Summary(TypedDict):
    """A measure over the seeds."""

    values: list[float]  # one per seed
    mean: float
    std: float | None


def summary(values: Iterable[float]) -> Summary:
    """The values of a measure, one per seed, with their mean and sample standard deviation.

    The standard deviation divides by n - 1. Of one seed it is unknown: None, not 0.
    """
    column = np.asarray([float(value) for value in values])
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged seed is data, not a warning
        std = float(np.std(column, ddof=1)) if len(column) > 1 else None
        return {"values": column.tolist(), "mean": float(np.mean(column)), "std": std}


def mean_and_std(measure: Summary, digits: int = 4) -> str:
    """A summary as a table shows it: ``0.0785 ± 0.0012``, or the mean alone for one seed."""
    mean, std = measure["mean"], measure["std"]
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")
