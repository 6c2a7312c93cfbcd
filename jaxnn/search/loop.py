"""The loop of a search: ask the method for a round, train the round, send the scores.

A round trains bucket by bucket, a bucket from evaluation to evaluation. Each step is a
*segment*, and after every segment the scores are in the journal. The rounds decide everything, so a
resumed search repeats the uninterrupted search: the method starts again, segments before the latest
checkpoint are read from the journal, and later segments train again and must give the bits in the
journal.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import distributed, files
from jaxnn.search.journal import Journal, Record, measured, round_record, segment_record
from jaxnn.search.methods import Method, Round, Scores, Trial
from jaxnn.search.result import Curve, Outcome
from jaxnn.search.space import Space, readable
from jaxnn.search.task import Task
from jaxnn.search.trainer import Members, Program, Trainer, Work, parameter_count
from jaxnn.spec import Spec
from jaxnn.train import Metrics
from jaxnn.types import PyTree

Keep = Callable[[Mapping[int, Curve]], set[int]]
"""From the curves of finished trials to the candidates for the choice."""


class Status(NamedTuple):
    """The progress of a search."""

    done: float  # evaluations, summed over trials
    total: int  # the most evaluations, summed over trials
    best: float  # the lowest mean score so far; inf before the first
    diverged: int  # trials
    programs: int  # so far
    read: int  # evaluations among ``done`` that were read from the journal, not trained


@dataclass
class Bucket:
    """Trials that train together."""

    program: Program
    trials: list[Trial]  # in the order of the rows
    evaluation: int  # the evaluation that the trials have reached
    members: Members | None  # None while segments are read from the journal


@dataclass
class PopulationState:
    """The population between two segments, as a checkpoint holds it.

    While segments are read from the journal, the buckets have no members; the checkpoint supplies
    the members at the segment where training starts.
    """

    trainer: Trainer  # knows the shapes, and gathers members from other processes
    keep: Keep  # selects the trials whose parameters are kept
    before: dict[str, Bucket] = field(default_factory=dict)  # the last round's buckets, by name
    now: dict[str, Bucket] = field(default_factory=dict)
    parameters: dict[int, PyTree] = field(default_factory=dict)
    """Leaves [R, ...], of trials that train no more."""

    def begin_round(self, curves: Mapping[int, Curve], continuing: set[int]) -> None:
        """Keeps the parameters of trials that do not go on and may be chosen.

        Continuing trials have parameters in the buckets, and may still diverge.
        """
        kept = self.keep({n: curve for n, curve in curves.items() if n not in continuing})
        self.before, self.now = self.now, {}
        if any(bucket.members is None for bucket in self.before.values()):
            return
        for bucket in self.before.values():
            members = bucket.members = self._gathered(bucket)
            for row, trial in enumerate(bucket.trials):
                if trial.number in kept:
                    best = jax.tree.map(lambda leaf, row=row: leaf[:, row].copy(), members.best)
                    self.parameters[trial.number] = best
        self.parameters = {n: p for n, p in self.parameters.items() if n in kept}

    def reached(self, name: str, trials: list[Trial]) -> int:
        """The evaluation from which a bucket's trials are to train on."""
        going_on = name in self.before and any(trial.parent is not None for trial in trials)
        return self.before[name].evaluation if going_on else 0

    def begin_bucket(
        self, name: str, program: Program, trials: list[Trial], *, last: bool, replaying: bool
    ) -> Bucket:
        """A bucket of new trials, or of copies of the last round's rows.

        Args:
          name: of the bucket.
          program: trains the bucket.
          trials: in the order of the rows.
          last: whether the bucket is the round's last; the round before is then dropped.
          replaying: whether segments are read from the journal.
        """
        members, start = None, self.reached(name, trials)
        if start:
            source = self.before[name]
            places = {trial.number: row for row, trial in enumerate(source.trials)}
            if source.members is not None and not replaying:
                rows = [places[t.parent] for t in trials if t.parent is not None]
                members = source.members.take(rows)
        elif not replaying:
            members = self.trainer.empty(program.spec, len(trials))
        bucket = self.now[name] = Bucket(program, trials, start, members)
        if last:
            self.before = {}
        return bucket

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays of the population, by name."""
        arrays = {}
        for prefix, bucket in self._named_buckets():
            arrays |= files.named_leaves(prefix, self._gathered(bucket))
        for number, params in self.parameters.items():
            arrays |= files.named_leaves(f"parameters/{number}/", params)
        return arrays

    def restore(self, arrays: Mapping[str, np.ndarray], spec_of: Callable[[int], Spec]) -> None:
        """Takes all arrays from a checkpoint of the same moment of the search.

        Args:
          arrays: from ``arrays``.
          spec_of: the spec of a trial.
        """
        for prefix, bucket in self._named_buckets():
            template = self.trainer.empty(bucket.program.spec, 0)
            bucket.members = files.restore(prefix, template, arrays)
        kept = {int(name.split("/")[1]) for name in arrays if name.startswith("parameters/")}
        for number in kept:
            template = self.trainer.empty(spec_of(number), 0).best
            self.parameters[number] = files.restore(f"parameters/{number}/", template, arrays)

    def _gathered(self, bucket: Bucket) -> Members:
        assert bucket.members is not None
        return self.trainer.gather(bucket.program, bucket.members)

    def _named_buckets(self) -> list[tuple[str, Bucket]]:
        """The buckets whose members matter from now on, with names for a checkpoint."""
        return [
            (f"{kind}/{place}/", bucket)
            for kind, buckets in (("before", self.before), ("now", self.now))
            for place, bucket in enumerate(buckets.values())
        ]


@dataclass
class Loop:
    """A search in progress."""

    task: Task
    space: Space
    trainer: Trainer
    journal: Journal
    keep: Keep
    report: Callable[[Status], None]  # called after every wave
    checkpoint_seconds: float  # the shortest time between two checkpoints

    def __post_init__(self):
        self._population = PopulationState(self.trainer, self.keep)
        self._curves: dict[int, Curve] = {}
        self._programs: set[Program] = set()
        self._compile_seconds: list[float] = []
        self._train_seconds = 0.0
        self._segment = 0
        self._status = Status(0, 0, math.inf, 0, 0, 0)
        self._restored, self._arrays = self.journal.restore()
        self._saved, self._saved_at = self._restored, time.monotonic()

    def run(self, method: Method, seed: int) -> Outcome:
        """Runs the whole search."""
        evaluations = self.task.evaluations
        rounds = method.rounds(self.space, evaluations, seed)
        current = next(rounds)
        self._status = self._status._replace(total=method.work(self.space, evaluations))
        self.report(self._status)
        with ThreadPoolExecutor(1) as compiler:
            for number in count():
                self._run_round(number, current, compiler)
                try:
                    current = rounds.send(self._scores(current))
                except StopIteration:
                    break
        if self._saved != self._segment:
            self._save()
        self._population.begin_round(self._curves, continuing=set())
        return Outcome(
            self._curves,
            self._population.parameters,
            len(self._programs),
            sum(self._compile_seconds),
            self._train_seconds,
        )

    def _run_round(self, number: int, current: Round, compiler: ThreadPoolExecutor) -> None:
        self.journal.confirm("round", number, round_record(number, current))
        self._population.begin_round(self._curves, {trial.number for trial in current.trials})
        by_name: dict[str, list[Trial]] = {}
        for trial in current.trials:
            name = json.dumps(readable(self.space.static_part(trial.config)))
            by_name.setdefault(name, []).append(trial)
        programs = self._choose(current, by_name)
        compiling: dict[Program, Future] = {}
        for place, (name, trials) in enumerate(by_name.items()):
            last = place + 1 == len(by_name)
            bucket = self._begin_bucket(name, programs[place], trials, last)
            while bucket.evaluation < current.until:
                if not self._replaying:
                    for program in programs[place : place + 2]:  # the next while this one trains
                        if program not in compiling:
                            compiling[program] = self._compile(program, compiler)
                    compiling[bucket.program].result()
                self._run_segment(number, bucket)

    def _choose(self, current: Round, by_name: dict[str, list[Trial]]) -> list[Program]:
        """The programs of a round's buckets and then, if known, of the next round."""
        programs: list[Program] = []
        for name, trials in by_name.items():
            spec, planned = self._spec_of(trials[0]), [(len(trials), current.until)]
            if len(by_name) == 1:  # with several buckets the survivors are unknown
                planned += current.following
            reached = self._population.reached(name, trials)
            ends = [self._iteration(e, spec) for e in (reached, *(until for _, until in planned))]
            works = [
                Work(trials, stop - start)
                for (trials, _), (start, stop) in zip(planned, pairwise(ends), strict=True)
            ]
            programs.append(self.trainer.program(spec, works, self._programs))
            self._programs.add(programs[-1])
            if works[1:]:
                programs.append(self.trainer.program(spec, works[1:], self._programs))
        return programs

    def _iteration(self, evaluation: int, spec: Spec) -> int:
        """The number of updates before an evaluation; evaluation 0 is before all updates."""
        examples = self.trainer.arranged.trained_on
        return evaluation and self.task.iteration(evaluation, spec.batch_size, examples)

    def _begin_bucket(self, name: str, program: Program, trials: list[Trial], last: bool) -> Bucket:
        bucket = self._population.begin_bucket(
            name, program, trials, last=last, replaying=self._replaying
        )
        size = parameter_count(program.spec)
        for trial in trials:
            curve = Curve(trial, trial.parent, bucket.evaluation, size)
            self._curves.setdefault(trial.number, curve)
        return bucket

    @property
    def _replaying(self) -> bool:
        """Whether the next segment was trained before the checkpoint."""
        return self._segment < self._restored

    def _spec_of(self, trial: Trial) -> Spec:
        static = self.space.static_part(trial.config)
        return self.task.spec(static, self.trainer.arranged.trained_on)

    def _compile(self, program: Program, compiler: ThreadPoolExecutor) -> Future:
        """Traces a program, and compiles the program in a background thread."""
        traced = self._timed(lambda: self.trainer.traced(program))
        return compiler.submit(self._timed, lambda: traced.compiled)

    def _timed(self, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self._compile_seconds.append(time.perf_counter() - began)
        return result

    def _run_segment(self, number: int, bucket: Bucket) -> None:
        """Trains a bucket to the next evaluation, or reads the scores in the journal."""
        read = len(bucket.trials) if self._replaying else 0
        if read:
            record = self.journal.known("segment")[self._segment]
        else:
            record = self._train(number, bucket)
            self.journal.confirm("segment", self._segment, record)
        bucket.evaluation += 1
        self._segment += 1
        self._train_seconds += record["seconds"]
        self._note(bucket, record)
        if self._segment == self._restored:
            self._population.restore(self._arrays, lambda n: self._spec_of(self._curves[n].trial))
            self._arrays = {}
        curves = self._curves.values()
        self._status = self._status._replace(
            done=round(self._status.done) + len(bucket.trials),
            best=min(curve.score(self.task.measure) for curve in curves),
            diverged=sum(curve.diverged for curve in curves),
            programs=len(self._programs),
            read=self._status.read + read,
        )
        self.report(self._status)
        due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        if not read and distributed.agree(due):
            self._save()

    def _train(self, number: int, bucket: Bucket) -> Record:
        assert bucket.members is not None
        evaluation, spec = bucket.evaluation + 1, bucket.program.spec
        start, stop = (self._iteration(e, spec) for e in (bucket.evaluation, evaluation))

        def report(share: float) -> None:
            if share < 1:
                done = self._status.done + share * len(bucket.trials)
                self.report(self._status._replace(done=done))

        began = time.perf_counter()
        configs = [trial.config for trial in bucket.trials]
        metrics = self.trainer.advance(bucket.program, configs, bucket.members, start, stop, report)
        seconds, diverged_at = time.perf_counter() - began, bucket.members.diverged_at
        return segment_record(
            self._segment, number, evaluation, bucket.trials, metrics, diverged_at, seconds
        )

    def _note(self, bucket: Bucket, record: Record) -> None:
        """Adds a segment's scores to the curves, and keeps the best parameters."""
        metrics, diverged_at = measured(record)
        better = []
        for row, trial in enumerate(bucket.trials):
            curve = self._curves[trial.number]
            before = curve.score(self.task.measure)
            curve.add(Metrics(*(v[:, row] for v in metrics)), diverged_at[:, row])
            better.append(curve.last(self.task.measure) < before)
        if bucket.members is not None:
            pairs = map(jax.tree.leaves, (bucket.members.best, bucket.members.params))
            for best, params in zip(*pairs, strict=True):
                best[:, better] = params[:, better]

    def _scores(self, current: Round) -> Scores:
        curves = {trial.number: self._curves[trial.number] for trial in current.trials}
        return Scores(
            {number: curve.score(self.task.measure) for number, curve in curves.items()},
            {number: curve.last(self.task.measure) for number, curve in curves.items()},
        )

    def _save(self) -> None:
        self.journal.save(self._segment, self._population.arrays())
        self._saved, self._saved_at = self._segment, time.monotonic()
