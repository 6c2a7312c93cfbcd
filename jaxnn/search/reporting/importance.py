"""Which hyperparameters mattered."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.search.space import Config, Space

FEWEST = 10
"""Trials below which nothing is said."""

_FOLDS, _TREES, _REPEATS = 5, 50, 5
_ABSENT = -0.5  # where a hyperparameter that does not apply lies, beside the unit interval


class Importance(NamedTuple):
    """By how much a prediction of the scores gets worse without a hyperparameter."""

    mean: dict[str, float]  # by name: increase of the squared error, as a share of the variance
    std: dict[str, float]  # over folds
    explained: float  # R^2 of the prediction itself; below 0 it is worse than the mean


def importance(
    space: Space, configs: Mapping[int, Config], scores: Mapping[int, float]
) -> Importance | None:
    """Permutation importance (Breiman, 2001) in a random forest that predicts the scores' ranks.

    A forest learns from four fifths of the trials to predict the rank of a trial among all from its
    configuration; of the other fifth, the values of one hyperparameter are shuffled, and the
    prediction gets worse. It finds what deserves a finer search, and what can be left alone.

    It speaks of this space and these trials: a narrow range makes anything look unimportant.
    Methods that stop trials early or draw new ones near the good ones do not sample evenly, and the
    forest explains how long trials were trained with what they were trained with. Hyperparameters
    that depend on each other share their importance. With ``explained`` near 0 it says nothing.

    Args:
      space: what was searched.
      configs: by the number of the trial.
      scores: by the same numbers, lower is better; only finite ones count.

    Returns:
      None for fewer than ``FEWEST`` finite trials, or if all are equally good.
    """
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    numbers = [number for number, score in scores.items() if np.isfinite(score)]
    ranks = rankdata([scores[number] for number in numbers])
    if len(numbers) < FEWEST or np.ptp(ranks) == 0:
        return None
    names = space.searched
    inputs = np.array([_features(space, configs[number], names) for number in numbers])
    errors, increases = [], []
    for learn, judge in KFold(_FOLDS, shuffle=True, random_state=0).split(inputs):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(inputs[learn], ranks[learn])
        errors.append(np.mean((forest.predict(inputs[judge]) - ranks[judge]) ** 2))
        shuffled = permutation_importance(
            forest,
            inputs[judge],
            ranks[judge],
            scoring="neg_mean_squared_error",
            n_repeats=_REPEATS,
            random_state=0,
        )
        increases.append(shuffled["importances_mean"])
    shares = np.array(increases) / ranks.var()
    return Importance(
        dict(zip(names, shares.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, shares.std(axis=0, ddof=1).tolist(), strict=True)),
        float(1 - np.mean(errors) / ranks.var()),
    )


def _features(space: Space, config: Config, names: tuple[str, ...]) -> list[float]:
    """The point of the unit cube, options in their order."""
    return [space[name].where(config[name]) if name in config else _ABSENT for name in names]
