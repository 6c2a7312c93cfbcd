"""What the log of a search says: rounds and segments, in JSON's types."""

import json
from collections.abc import Sequence

import numpy as np

from jaxnn.search.journal.log import Record
from jaxnn.search.journal.run_folder import Journal, differences
from jaxnn.search.methods import Round, Trial
from jaxnn.search.space import Config, readable
from jaxnn.train import NEVER, Metrics


class ReproducibilityError(ValueError):
    """A search that went on and found other bits than before."""


class Recorder:
    """Adds records to a journal; those that are there already have to be the same again."""

    def __init__(self, journal: Journal):
        """Looks at what is there."""
        self._journal = journal
        self._there = {
            kind: [record for record in journal.records if kind in record]
            for kind in ("round", "segment")
        }

    def read(self, kind: str, number: int) -> Record:
        """A record that is there."""
        return self._there[kind][number]

    def add(self, kind: str, number: int, record: Record) -> None:
        """Adds a record, or compares it with the one that is there, all but its ``seconds``.

        Raises:
          ReproducibilityError: it is another.
        """
        if number >= len(self._there[kind]):
            self._journal.append(record)
            return
        was = self._there[kind][number] | {"seconds": None}
        differing = differences(was, json.loads(json.dumps(record)) | {"seconds": None})
        if differing:
            raise ReproducibilityError(
                f"{kind} {number} is not what the log has: {differing[0]}; expected the same bits, "
                "as the same machine and software give"
            )


def readable_config(config: Config) -> Config:
    """A configuration in JSON's types."""
    return {name: readable(value) for name, value in config.items()}


def round_record(number: int, asked: Round) -> Record:
    """What a method has asked for."""
    trials = [
        {"trial": t.number, "parent": t.parent, "config": readable_config(t.config)}
        for t in asked.trials
    ]
    return {"round": number, "until": asked.until, "trials": trials}


def segment_record(
    segment: int,
    number: int,
    evaluation: int,
    trials: Sequence[Trial],
    metrics: Metrics,
    diverged_at: np.ndarray,
    seconds: float,
) -> Record:
    """What a segment of a round has measured, [R, K]; of a diverged replicate that is nothing."""
    record: Record = {
        "segment": segment,
        "in_round": number,
        "evaluation": evaluation,
        "trials": [trial.number for trial in trials],
        "diverged_at": diverged_at.tolist(),
        "seconds": seconds,
    }
    for name, values in metrics._asdict().items():
        values = np.asarray(values)
        known = (diverged_at == NEVER) & np.isfinite(values)
        record[name] = [
            [float(v) if k else None for v, k in zip(*pair, strict=True)]
            for pair in zip(values, known, strict=True)
        ]
    return record


def measured(record: Record) -> tuple[Metrics, np.ndarray]:
    """The metrics and divergences [R, K] of a segment's record."""
    metrics = Metrics(*(np.array(record[name], np.float64) for name in Metrics._fields))
    return metrics, np.array(record["diverged_at"], np.int32)
