"""The population of a search: the buckets in training, and the parameters that may be chosen.

It is what a checkpoint holds. While a search that goes on only reads its log, the buckets have no
members; the checkpoint supplies them where reading ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from jaxnn import checkpoint
from jaxnn.search.curves import Curve
from jaxnn.search.methods.rounds import Trial
from jaxnn.search.task import hyper
from jaxnn.search.training.programs import Program
from jaxnn.search.training.segments import Members, Trainer
from jaxnn.spec import Spec
from jaxnn.types import Hyper, PyTree

Keep = Callable[[Mapping[int, Curve]], set[int]]
"""Of finished trials those that may still be chosen."""


@dataclass
class Bucket:
    """Trials that are trained together."""

    program: Program
    trials: list[Trial]
    evaluation: int  # where they are
    members: Members | None  # None where the log is only read

    @property
    def hyper(self) -> Hyper:
        """The traced hyperparameters [K]."""
        return hyper([trial.config for trial in self.trials])

    def row(self, tree: PyTree, number: int) -> PyTree:
        """A trial's rows of a tree [R, K, ...], as a copy [R, ...]."""
        place = [trial.number for trial in self.trials].index(number)
        return jax.tree.map(lambda leaf: leaf[:, place].copy(), tree)


class PopulationState:
    """The population between two segments."""

    def __init__(self, trainer: Trainer, keep: Keep):
        """An empty one.

        Args:
          trainer: knows the shapes, and gathers members from other processes.
          keep: whose parameters to keep.
        """
        self._trainer, self._keep = trainer, keep
        self._before: dict[str, Bucket] = {}  # of the last round, by name
        self._now: dict[str, Bucket] = {}
        self.parameters: dict[int, PyTree] = {}  # [R, ...], of trials that train no more

    def begin_round(self, curves: Mapping[int, Curve], continuing: set[int]) -> None:
        """Keeps the parameters of the trials that do not go on and may be chosen.

        Trials that go on have theirs in their buckets; they may diverge yet.
        """
        kept = self._keep({n: curve for n, curve in curves.items() if n not in continuing})
        self._before, self._now = self._now, {}
        if any(bucket.members is None for bucket in self._before.values()):
            return
        for bucket in self._before.values():
            bucket.members = self._gathered(bucket)
            for trial in bucket.trials:
                if trial.number in kept:
                    best = bucket.row(bucket.members.best, trial.number)
                    self.parameters[trial.number] = best
        self.parameters = {n: p for n, p in self.parameters.items() if n in kept}

    def reached(self, name: str, trials: list[Trial]) -> int:
        """The evaluation at which the trials of a bucket to come are."""
        going_on = name in self._before and any(trial.parent is not None for trial in trials)
        return self._before[name].evaluation if going_on else 0

    def begin_bucket(
        self, name: str, program: Program, trials: list[Trial], *, last: bool, reading: bool
    ) -> Bucket:
        """The trials of a bucket: to be drawn, or copies of rows of the last round.

        Args:
          name: of the bucket.
          program: trains it.
          trials: in the order of the rows.
          last: whether the round has no more; the round before is then let go.
          reading: whether the log is only read.
        """
        members, start = None, self.reached(name, trials)
        if start:
            source = self._before[name]
            places = {trial.number: row for row, trial in enumerate(source.trials)}
            if source.members is not None and not reading:
                rows = [places[t.parent] for t in trials if t.parent is not None]
                members = source.members.take(rows)
        elif not reading:
            members = self._trainer.empty(program.spec, len(trials))
        bucket = self._now[name] = Bucket(program, trials, start, members)
        if last:
            self._before = {}
        return bucket

    def note_best(self, bucket: Bucket, better: np.ndarray) -> None:
        """Remembers the parameters of the trials [K] that were never better than now."""
        if bucket.members is None:
            return
        leaves = zip(
            *map(jax.tree.leaves, (bucket.members.best, bucket.members.params)), strict=True
        )
        for best, params in leaves:
            best[:, better] = params[:, better]

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, by name."""
        arrays = {}
        for prefix, bucket in self._named_buckets():
            arrays |= checkpoint.named_leaves(prefix, self._gathered(bucket))
        for number, params in self.parameters.items():
            arrays |= checkpoint.named_leaves(f"parameters/{number}/", params)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray], spec_of: Callable[[int], Spec]) -> None:
        """Takes everything from a checkpoint of this very moment of the search.

        Args:
          arrays: from ``arrays``.
          spec_of: the program of a trial.
        """
        for prefix, bucket in self._named_buckets():
            template = self._trainer.empty(bucket.program.spec, 0)
            bucket.members = checkpoint.restore(prefix, template, arrays)
        kept = {int(name.split("/")[1]) for name in arrays if name.startswith("parameters/")}
        for number in kept:
            template = self._trainer.empty(spec_of(number), 0).best
            self.parameters[number] = checkpoint.restore(f"parameters/{number}/", template, arrays)

    def _gathered(self, bucket: Bucket) -> Members:
        assert bucket.members is not None
        return self._trainer.gather(bucket.program, bucket.members)

    def _named_buckets(self) -> list[tuple[str, Bucket]]:
        """Those whose members matter from here on, with their names in a checkpoint."""
        return [
            (f"{kind}/{place}/", bucket)
            for kind, buckets in (("before", self._before), ("now", self._now))
            for place, bucket in enumerate(buckets.values())
        ]
