"""Results of searches that never ran: every score is written down by the test."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import MLP, Data
from jaxnn.search import Domain, Result, Task, Trial, folds, holdout
from jaxnn.search.journal import Journal
from jaxnn.search.result import Curve, Outcome
from jaxnn.search.space import Space
from jaxnn.train import NEVER, Metrics


class Made(NamedTuple):
    """A trial: a configuration and its scores."""

    config: dict[str, Any]
    errors: Sequence[Sequence[float]]  # [evaluations, R]; losses are twice as much
    diverged_at: int | tuple[int, ...] = NEVER  # of the first replicate, or the first few
    copied_from: int | None = None
    start: int = 0


def result(
    space: Mapping[str, Domain],
    trials: Sequence[Made],
    *,
    epochs: int,
    measure: str = "error",
    evaluations_per_epoch: int = 1,
    fold_count: int = 1,
    model_parameters: tuple[str, ...] = (),
) -> Result:
    """The result of a search that tried these trials, numbered from 0, on 24 examples.

    18 of them were trained on, in minibatches of 6 unless a configuration says otherwise.
    """
    data = Data(np.zeros((24, 4), np.uint8), np.arange(24, dtype=np.int32) % 2, np.float32(0.5))
    task = Task(
        data,
        epochs=epochs,
        evaluations_per_epoch=evaluations_per_epoch,
        measure=measure,  # pyright: ignore[reportArgumentType]
        validation=holdout(0.25) if fold_count == 1 else folds(fold_count),
        model=(lambda **_: MLP((4, 2))) if model_parameters else None,
        model_parameters=model_parameters,
    )
    curves = {}
    for number, made in enumerate(trials):
        curve = Curve(Trial(number, made.config), made.copied_from, made.start, 10)
        for errors in made.errors:
            row = np.array(errors, np.float64)
            diverged_at = np.full(len(row), NEVER, np.int32)
            dates = np.atleast_1d(made.diverged_at)
            diverged_at[: len(dates)] = dates
            curve.add(Metrics(2 * row, row), diverged_at)
        curves[number] = curve
    replicates = len(trials[0].errors[0])
    return Result(
        task,
        Space(space, model_parameters),
        Outcome(curves, dict.fromkeys(curves), 2, 1.5, 2.5),
        Journal(),
        method={"method": "by hand"},
        rule="mean",
        key=jax.random.key(0),
        seeds=replicates // fold_count,
        examples=18,
        validated=np.arange(6) % 2,
        mesh=None,
    )
