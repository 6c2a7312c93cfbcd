"""What a search leaves: the choice, the table of all trials, and the one look at the test set."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from jaxnn import distributed
from jaxnn.saved_model import save_model
from jaxnn.search.final import FinalScores, Stage, lineage, retrain, score
from jaxnn.search.journal.records import readable_config
from jaxnn.search.journal.run_folder import Journal
from jaxnn.search.reporting import report
from jaxnn.search.selection import chosen, confidence_intervals
from jaxnn.search.space import Config, Space, static_part
from jaxnn.search.task import Task
from jaxnn.search.training.engine import Outcome
from jaxnn.spec import Spec
from jaxnn.train import NEVER
from jaxnn.types import Key, PyTree

Row = dict[str, Any]


class Best(NamedTuple):
    """The trial that was chosen."""

    trial: int
    config: Config
    epochs: float  # after which it was best, and its parameters were kept
    validation_accuracy: float  # mean over replicates
    validation_loss: float
    stages: list[Stage]  # more than one if hyperparameters changed in training


class Result:
    """What a search found.

    Every process of a job has the whole of it. All of them have to call ``test``, ``retrained`` and
    ``save_model``; one writes and prints.

    Attributes:
      best: the chosen trial.
      table: one row per trial; see ``Result.table``.
      params: the chosen trial's parameters at its best evaluation, leaves [R, ...], one row per
        replicate: the folds of the first seed, of the second, ...
      curves: every trial's validation scores.
      programs: how many programs were compiled for it.
      compile_seconds: the time that took; programs compile while others train.
      train_seconds: the time it trained, over all runs that it took.
      method: how it was searched, in JSON's types.
      rule: how it was chosen.
      seeds: how many there were.
      examples: how many every model was trained on.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        outcome: Outcome,
        journal: Journal,
        *,
        method: Mapping[str, Any],
        rule: str,
        key: Key,
        seeds: int,
        examples: int,
        mesh: Any,
    ):
        """Chooses.

        Raises:
          AllDivergedError: there is nothing to choose.
        """
        self.task, self.space, self.curves = task, space, outcome.curves
        self.programs = outcome.programs
        self.compile_seconds, self.train_seconds = outcome.compile_seconds, outcome.train_seconds
        self.method, self.rule, self.seeds, self.examples = method, rule, seeds, examples
        self._journal, self._key, self._mesh = journal, key, mesh
        self._retrained: PyTree = None
        number = chosen(outcome.curves, task.measure, rule)
        self.best = self._best(number)
        self.params: PyTree = outcome.parameters[number]
        self.table = self._table()

    def _best(self, number: int) -> Best:
        curve = self.curves[number]
        index = curve.best(self.task.measure)
        evaluation = curve.evaluations[index]
        return Best(
            number,
            curve.trial.config,
            evaluation / self.task.evaluations_per_epoch,
            1 - curve.means("error")[index],
            curve.means("loss")[index],
            lineage(self.curves, number, evaluation),
        )

    def _table(self) -> list[Row]:
        """One row per trial, in the order of their numbers.

        ``trial``, ``copied_from``, the names of the space (None where one does not apply),
        ``epochs`` (trained), ``best_epoch``; for ``validation_accuracy`` and ``validation_loss`` at
        the best epoch the mean over replicates, ``_std``, and the ends ``_low`` and ``_high`` of
        its 95 % bootstrap interval; ``diverged_at``, the first iteration at which a replicate's
        loss was not finite. What is not known is None.
        """
        per_epoch, measure = self.task.evaluations_per_epoch, self.task.measure
        rows = []
        at_best: list[dict[str, np.ndarray]] = []
        for number, curve in self.curves.items():
            config = readable_config(curve.trial.config)
            index = None if curve.diverged else curve.best(measure)
            diverged = curve.diverged_at[curve.diverged_at != NEVER]
            rows.append(
                {
                    "trial": number,
                    "copied_from": curve.copied_from,
                    **{name: config.get(name) for name in self.space},
                    "epochs": curve.evaluations[-1] / per_epoch,
                    "best_epoch": None if index is None else curve.evaluations[index] / per_epoch,
                    "diverged_at": int(diverged.min()) if len(diverged) else None,
                }
            )
            missing = np.full(len(curve.diverged_at), np.nan)
            at_best.append(
                {
                    "validation_accuracy": missing
                    if index is None
                    else 1 - curve.values("error")[index],
                    "validation_loss": missing if index is None else curve.values("loss")[index],
                }
            )
        for name in ("validation_accuracy", "validation_loss"):
            _add_summary(rows, name, np.array([values[name] for values in at_best]))
        return sorted(rows, key=lambda row: row["trial"])

    @property
    def diverged(self) -> int:
        """How many trials diverged."""
        return sum(curve.diverged for curve in self.curves.values())

    @property
    def spec(self) -> Spec:
        """The program of the chosen trial."""
        return self._spec(len(self.task.train.targets))

    def _spec(self, examples: int) -> Spec:
        return self.task.spec(static_part(self.best.config), examples)

    @property
    def notes(self) -> list[str]:
        """What the reader of the result should know, such as a damaged checkpoint."""
        return [record["note"] for record in self._journal.records if "note" in record]

    @property
    def test_reads(self) -> int:
        """How often the test set has been read for this search."""
        return sum("test_read" in record for record in self._journal.records)

    @property
    def test_scores(self) -> list[FinalScores]:
        """What the test set has said so far, in the order in which it was asked."""
        records = self._journal.records
        return [_from_record(r["test_scores"]) for r in records if "test_scores" in r]

    def test(self, *, retrain: bool = False) -> FinalScores:
        """Reads the test set, and records that it was read.

        Asked for the same a second time, it answers from the record.

        Args:
          retrain: train the chosen configuration again, on training and validation examples
            together and to the same epoch, from every seed; otherwise the validated models are
            tested.

        Returns:
          Means over the models, with 95 % bootstrap intervals over the test examples.

        Raises:
          ValueError: the task has no test set, or the configuration diverges when trained again.
        """
        if self.task.test is None:
            raise ValueError("the task has no test set, expected Task(..., test=data)")
        with self._journal as journal:  # another process may have asked in the meantime
            for scores in self.test_scores:
                if scores.retrained is retrain:
                    return scores
            params = self.retrained() if retrain else self.params
            journal.append({"test_read": self.test_reads + 1})
            scores = self._score(params, retrain)
            journal.append({"test_scores": scores._asdict()})
        return scores

    def _score(self, params: PyTree, retrained: bool) -> FinalScores:
        """The test set's verdict; of several processes one reads it."""

        def read() -> bytes:
            scores = score(self.spec, params, self.task.read_test(), retrained)
            return json.dumps(scores._asdict()).encode()

        return _from_record(json.loads(distributed.from_first(read)))

    def retrained(self) -> PyTree:
        """Parameters of the chosen configuration trained on all examples, leaves [S, ...]."""
        if self._retrained is None:
            self._retrained = retrain(
                self.task, self.best.stages, self._key, self.seeds, self._mesh
            )
        return self._retrained

    def save_model(self, folder: Path | str, *, retrain: bool = False, format: str = "npz") -> None:
        """Saves the chosen models, one per replicate, for ``jaxnn.saved_model.load_model``.

        Of several processes all have to call it, and the first one writes.

        Args:
          folder: made if need be; a model that is there already is replaced.
          retrain: save models trained on all examples instead, one per seed.
          format: "npz" or "safetensors".
        """
        params = self.retrained() if retrain else self.params
        if not distributed.is_first():
            return
        save_model(
            folder,
            self.spec,
            params,
            scale=self.task.train.scale,
            about={
                "config": readable_config(self.best.config),
                "epochs": self.best.epochs,
                "validation_accuracy": self.best.validation_accuracy,
                "validation_loss": self.best.validation_loss,
                "retrained": retrain,
            },
            format=format,
        )

    def write(self, folder: Path | str) -> list[Path]:
        """Writes tables, ``results.json`` and figures; see ``reporting.report.write``."""
        return report.write(self, folder) if distributed.is_first() else []

    def print(self, count: int = 10, stream: TextIO | None = None) -> None:
        """Prints the best trials."""
        if distributed.is_first():
            report.show(self, count, stream)

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``.

        Raises:
          ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_pandas() needs the package pandas, expected it to be installed: "
                "pip install pandas"
            ) from None
        return pd.DataFrame(self.table)


def _add_summary(rows: list[Row], name: str, values: np.ndarray) -> None:
    """Mean, standard deviation and interval of a measure [K, R]."""
    several = values.shape[1] > 1
    known = ~np.isnan(values).any(axis=1)
    columns = {key: np.full(len(rows), np.nan) for key in ("", "_std", "_low", "_high")}
    columns[""][known] = values[known].mean(axis=1)
    if several:
        columns["_std"][known] = values[known].std(axis=1, ddof=1)
        columns["_low"][known], columns["_high"][known] = confidence_intervals(values[known])
    for suffix, column in columns.items():
        for row, value in zip(rows, column.tolist(), strict=True):
            row[name + suffix] = None if math.isnan(value) else value


def _from_record(record: dict[str, Any]) -> FinalScores:
    intervals: dict[str, Callable] = {"accuracy_interval": tuple, "loss_interval": tuple}
    return FinalScores(**{n: intervals.get(n, lambda v: v)(value) for n, value in record.items()})
