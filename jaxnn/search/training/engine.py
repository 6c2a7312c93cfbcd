"""The loop of a search: ask the method for a round, train it, tell the scores.

A round is trained bucket by bucket, a bucket from evaluation to evaluation; one such step is a
*segment*, and after each the scores are in the journal. All of it is decided by what was asked for,
so a search that goes on does what the uninterrupted one did: the method is asked from the
beginning, segments before the latest checkpoint are read instead of trained, and those after it are
trained again and must give the bits that the log has.
"""

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from jaxnn import distributed
from jaxnn.population import Traced
from jaxnn.search.curves import Curve
from jaxnn.search.journal.log import Record
from jaxnn.search.journal.records import (
    Recorder,
    measured,
    readable_config,
    round_record,
    segment_record,
)
from jaxnn.search.journal.run_folder import Journal
from jaxnn.search.methods.rounds import Method, Round, Rounds, Scores, Trial
from jaxnn.search.space import Config, Space, static_part
from jaxnn.search.task import Task
from jaxnn.search.training.programs import Program, Work, parameter_count
from jaxnn.search.training.segments import Trainer
from jaxnn.search.training.state import Bucket, Keep, PopulationState
from jaxnn.spec import Spec
from jaxnn.types import PyTree


class Status(NamedTuple):
    """How far a search is."""

    done: float  # evaluations of one trial
    total: int  # at most
    best: float  # the lowest mean score so far; inf before the first
    diverged: int  # trials
    programs: int  # so far
    read: int  # of what is done: read from the log, not trained by this process


class Outcome(NamedTuple):
    """What a search found out."""

    curves: dict[int, Curve]
    parameters: dict[int, PyTree]  # [R, ...], of the trials that may be chosen
    programs: int
    compile_seconds: float
    train_seconds: float


class Engine:
    """One search at work."""

    def __init__(
        self,
        task: Task,
        space: Space,
        trainer: Trainer,
        journal: Journal,
        *,
        keep: Keep,
        report: Callable[[Status], None],
        checkpoint_seconds: float,
    ):
        """Prepares a search.

        Args:
          task: what is searched.
          space: what may be tried.
          trainer: trains.
          journal: remembers.
          keep: the trials that may still be chosen, whose parameters are kept.
          report: called after every block.
          checkpoint_seconds: how often the population is saved, at most.
        """
        self._task, self._space, self._trainer = task, space, trainer
        self._journal, self._recorder, self._report = journal, Recorder(journal), report
        self._population = PopulationState(trainer, keep)
        self._curves: dict[int, Curve] = {}
        self._programs: set[Program] = set()
        self._trace_seconds = self._compile_seconds = self._train_seconds = 0.0
        self._segment = 0
        self._status = Status(0, 0, math.inf, 0, 0, 0)
        self._checkpoint_seconds = checkpoint_seconds
        self._restored, self._arrays = journal.restore()
        self._saved, self._saved_at = self._restored, time.monotonic()

    def run(self, method: Method, seed: int) -> Outcome:
        """The whole search."""
        evaluations = self._task.evaluations
        rounds = method.rounds(self._space, evaluations, seed)
        asked: Round | None = next(rounds)
        self._status = self._status._replace(total=method.work(self._space, evaluations))
        self._report(self._status)
        number = 0
        with ThreadPoolExecutor(1) as compiler:
            while asked is not None:
                self._run_round(number, asked, compiler)
                asked, number = _send(rounds, self._scores(asked)), number + 1
        if self._saved != self._segment:
            self._save()
        self._population.begin_round(self._curves, continuing=set())
        return Outcome(
            self._curves,
            self._population.parameters,
            len(self._programs),
            self._trace_seconds + self._compile_seconds,
            self._train_seconds,
        )

    def _run_round(self, number: int, asked: Round, compiler: ThreadPoolExecutor) -> None:
        self._recorder.add("round", number, round_record(number, asked))
        self._population.begin_round(self._curves, {trial.number for trial in asked.trials})
        by_name: dict[str, list[Trial]] = {}
        for trial in asked.trials:
            by_name.setdefault(_program_name(trial.config), []).append(trial)
        programs = self._choose(asked, by_name)
        compiling: dict[Program, Future] = {}
        for place, (name, trials) in enumerate(by_name.items()):
            program, last = programs[place], place + 1 == len(by_name)
            bucket = self._begin_bucket(name, program, trials, last)
            while bucket.evaluation < asked.until:
                if not self._reading:
                    for needed in programs[place : place + 2]:  # the next one while this one trains
                        if needed not in compiling:
                            compiling[needed] = compiler.submit(self._compile, self._trace(needed))
                    compiling[program].result()
                self._run_segment(number, bucket)

    def _choose(self, asked: Round, by_name: dict[str, list[Trial]]) -> list[Program]:
        """The programs of a round's buckets and then, if it is known, of the next round."""
        programs: list[Program] = []
        for name, trials in by_name.items():
            spec, planned = self._spec_of(trials[0]), [(len(trials), asked.until)]
            if len(by_name) == 1:  # of several, it is not known which go on
                planned += asked.following
            works = self._works(spec, self._population.reached(name, trials), planned)
            programs.append(self._trainer.program(spec, works, self._programs))
            self._programs.add(programs[-1])
            if works[1:]:
                programs.append(self._trainer.program(spec, works[1:], self._programs))
        return programs

    def _works(self, spec: Spec, reached: int, planned: list[tuple[int, int]]) -> list[Work]:
        """What rounds (trials, until) train that begin at an evaluation."""
        start, *ends = (self._iteration(e, spec) for e in (reached, *(u for _, u in planned)))
        return [
            Work(trials, stop - start)
            for (trials, _), start, stop in zip(planned, (start, *ends), ends, strict=False)
        ]

    def _iteration(self, evaluation: int, spec: Spec) -> int:
        """The number of updates before an evaluation; 0 is before all of them."""
        examples = self._trainer.arranged.trained_on
        return evaluation and self._task.iteration(evaluation, spec.batch_size, examples)

    def _begin_bucket(self, name: str, program: Program, trials: list[Trial], last: bool) -> Bucket:
        bucket = self._population.begin_bucket(
            name, program, trials, last=last, reading=self._reading
        )
        size = parameter_count(program.spec)
        for trial in trials:
            if trial.number not in self._curves:
                self._curves[trial.number] = Curve(trial, trial.parent, bucket.evaluation, size)
        return bucket

    @property
    def _reading(self) -> bool:
        """Whether the next segment was trained before the checkpoint."""
        return self._segment < self._restored

    def _spec_of(self, trial: Trial) -> Spec:
        return self._task.spec(static_part(trial.config), self._trainer.arranged.trained_on)

    def _trace(self, program: Program) -> Traced:
        began = time.perf_counter()
        traced = self._trainer.traced(program)
        self._trace_seconds += time.perf_counter() - began
        return traced

    def _compile(self, traced: Traced) -> None:
        """What is done in the background."""
        began = time.perf_counter()
        _ = traced.compiled
        self._compile_seconds += time.perf_counter() - began

    def _run_segment(self, number: int, bucket: Bucket) -> None:
        """Trains a bucket to its next evaluation, or reads in the journal what came of it."""
        read = len(bucket.trials) if self._reading else 0
        if self._reading:
            record = self._recorder.read("segment", self._segment)
        else:
            record = self._train(number, bucket)
            self._recorder.add("segment", self._segment, record)
        bucket.evaluation += 1
        self._segment += 1
        self._train_seconds += record["seconds"]
        self._note(bucket, record)
        if self._segment == self._restored:
            self._population.restore(
                self._arrays, lambda number: self._spec_of(self._curves[number].trial)
            )
            self._arrays = {}
        self._status = self._how_far(len(bucket.trials), read)
        self._report(self._status)
        due = time.monotonic() - self._saved_at >= self._checkpoint_seconds
        if not read and distributed.agree(due):
            self._save()

    def _train(self, number: int, bucket: Bucket) -> Record:
        assert bucket.members is not None
        evaluation = bucket.evaluation + 1
        start, stop = (
            self._iteration(e, bucket.program.spec) for e in (bucket.evaluation, evaluation)
        )

        def report(share: float) -> None:
            if share < 1:
                done = self._status.done + share * len(bucket.trials)
                self._report(self._status._replace(done=done))

        began = time.perf_counter()
        metrics = self._trainer.advance(
            bucket.program, bucket.hyper, bucket.members, start, stop, report
        )
        seconds, diverged_at = time.perf_counter() - began, bucket.members.diverged_at
        return segment_record(
            self._segment, number, evaluation, bucket.trials, metrics, diverged_at, seconds
        )

    def _note(self, bucket: Bucket, record: Record) -> None:
        """Adds a segment's scores to the curves, and keeps the parameters of what is best."""
        metrics, diverged_at = measured(record)
        better = []
        for row, trial in enumerate(bucket.trials):
            curve, own = self._curves[trial.number], (slice(None), row)
            before = curve.score(self._task.measure)
            curve.add(jax.tree.map(lambda v, own=own: v[own], metrics), diverged_at[own])
            better.append(curve.last(self._task.measure) < before)
        self._population.note_best(bucket, np.array(better))

    def _scores(self, asked: Round) -> Scores:
        measure = self._task.measure
        curves = {trial.number: self._curves[trial.number] for trial in asked.trials}
        return Scores(
            {number: curve.score(measure) for number, curve in curves.items()},
            {number: curve.last(measure) for number, curve in curves.items()},
        )

    def _how_far(self, more: int, read: int) -> Status:
        return self._status._replace(
            done=round(self._status.done) + more,
            best=min(curve.score(self._task.measure) for curve in self._curves.values()),
            diverged=sum(curve.diverged for curve in self._curves.values()),
            programs=len(self._programs),
            read=self._status.read + read,
        )

    def _save(self) -> None:
        self._journal.save(self._segment, self._population.arrays())
        self._saved, self._saved_at = self._segment, time.monotonic()


def _send(rounds: Rounds, scores: Scores) -> Round | None:
    try:
        return rounds.send(scores)
    except StopIteration:
        return None


def _program_name(config: Config) -> str:
    return json.dumps(readable_config(static_part(config)))
