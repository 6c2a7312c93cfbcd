"""What was measured of a trial, and what it is worth."""

import math
from dataclasses import dataclass, field

import numpy as np

from jaxnn.search.methods.rounds import Trial
from jaxnn.train import NEVER, Metrics


@dataclass
class Curve:
    """A trial and its validation scores, evaluation by evaluation."""

    trial: Trial
    copied_from: int | None  # the trial whose state it started from; None: it was drawn fresh
    start: int  # the evaluation after which it started
    parameter_count: int
    loss: list[np.ndarray] = field(default_factory=list)  # per evaluation [R]
    error: list[np.ndarray] = field(default_factory=list)  # per evaluation [R]
    diverged_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # [R]
    _means: dict[str, list[float]] = field(default_factory=lambda: {"loss": [], "error": []})

    def add(self, metrics: Metrics, diverged_at: np.ndarray) -> None:
        """Adds an evaluation: fields [R], NaN where a replicate has diverged."""
        for name, values in metrics._asdict().items():
            mean = float(np.mean(values))
            getattr(self, name).append(np.asarray(values))
            self._means[name].append(mean if math.isfinite(mean) else math.inf)
        self.diverged_at = diverged_at

    @property
    def evaluations(self) -> range:
        """The numbers of its evaluations."""
        return range(self.start + 1, self.start + 1 + len(self.loss))

    @property
    def diverged(self) -> bool:
        """Whether any replicate's loss has stopped being finite: such a trial is never chosen."""
        return bool((self.diverged_at != NEVER).any())

    def values(self, measure: str) -> np.ndarray:
        """A measure, [evaluations, R] in float64."""
        return np.array(getattr(self, measure), np.float64)

    def means(self, measure: str) -> list[float]:
        """Its mean over replicates, per evaluation; infinite where one is not finite."""
        return self._means[measure]

    def score(self, measure: str) -> float:
        """The mean at the best evaluation; infinite for a trial that has diverged."""
        return math.inf if self.diverged else min(self.means(measure), default=math.inf)

    def last(self, measure: str) -> float:
        """The mean at the latest evaluation; infinite for a trial that has diverged."""
        return math.inf if self.diverged or not self.loss else self.means(measure)[-1]

    def best(self, measure: str) -> int:
        """The index of the best evaluation, the first among equals."""
        return int(np.argmin(self.means(measure)))
