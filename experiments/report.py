"""Measures over the seeds."""

from collections.abc import Iterable
from statistics import median
from typing import Any, TypedDict

import numpy as np


class Summary(TypedDict):
    """A measure over the seeds."""

    values: list[float]  # a value per seed
    mean: float
    std: float | None


def summary(values: Iterable[float]) -> Summary:
    """The values of a measure, a value per seed, with mean and sample standard deviation.

    The standard deviation divides by n - 1; for a single seed the standard deviation is None.
    """
    column = np.asarray([float(value) for value in values])
    with np.errstate(over="ignore", invalid="ignore"):  # a diverged seed is data, not a warning
        std = float(np.std(column, ddof=1)) if len(column) > 1 else None
        return {"values": column.tolist(), "mean": float(np.mean(column)), "std": std}


def mean_and_std(measure: Summary, digits: int = 4) -> str:
    """The cell of a table: ``0.0785 ± 0.0012``, or the mean alone for a single seed."""
    mean, std = measure["mean"], measure["std"]
    return f"{mean:.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def figures(values: Iterable[float]) -> dict[str, Any]:
    """The repetitions of a measure and their median, the form of results.json."""
    column = [float(value) for value in values]
    return {"median": median(column), "values": column}
