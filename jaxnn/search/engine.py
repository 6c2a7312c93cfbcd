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
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import checkpoint, distributed
from jaxnn.search.curves import Curve
from jaxnn.search.journal import Journal, differences
from jaxnn.search.log import Record
from jaxnn.search.methods import Method, Round, Scores, Trial
from jaxnn.search.segments import Members, Trainer
from jaxnn.search.space import Config, Space, readable, static_part
from jaxnn.search.task import Task, hyper
from jaxnn.spec import Spec
from jaxnn.train import NEVER, Metrics
from jaxnn.types import Hyper, PyTree


class ReproducibilityError(ValueError):
    """A search that went on and found other bits than before."""


@dataclass
class Bucket:
    """Trials that share a program, in training."""

    spec: Spec
    trials: list[Trial]
    evaluation: int  # where they are
    members: Members | None  # None where the journal is only read

    @property
    def hyper(self) -> Hyper:
        """The traced hyperparameters [K]."""
        return hyper([trial.config for trial in self.trials])


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
        keep: Callable[[Mapping[int, Curve]], set[int]],
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
        self._journal, self._keep, self._report = journal, keep, report
        self._checkpoint_seconds = checkpoint_seconds
        self._curves: dict[int, Curve] = {}
        self._parameters: dict[int, PyTree] = {}
        self._before: dict[str, Bucket] = {}  # of the last round, by program
        self._now: dict[str, Bucket] = {}
        self._programs: set[tuple[Spec, int]] = set()
        self._compile_seconds = self._train_seconds = 0.0
        self._segment = self._work = self._read = 0
        self._status = Status(0, 0, math.inf, 0, 0, 0)
        self._recorded = {
            kind: [record for record in journal.records if kind in record]
            for kind in ("round", "segment")
        }
        self._restored, self._arrays = journal.restore()
        self._saved, self._saved_at = self._restored, time.monotonic()

    def run(self, method: Method, seed: int) -> Outcome:
        """The whole search."""
        evaluations = self._task.evaluations
        rounds = method.rounds(self._space, evaluations, seed)
        asked = next(rounds)
        self._status = self._status._replace(total=method.work(self._space, evaluations))
        self._report(self._status)
        number = 0
        with ThreadPoolExecutor(1) as compiler:
            while asked is not None:
                self._run_round(number, asked, compiler)
                number += 1
                asked = _send(rounds, self._scores(asked))
        if self._saved != self._segment:
            self._save()
        self._retain(continuing=set())
        return Outcome(
            self._curves,
            self._parameters,
            len(self._programs),
            self._compile_seconds,
            self._train_seconds,
        )

    def _run_round(self, number: int, asked: Round, compiler: ThreadPoolExecutor) -> None:
        self._remember("round", number, _round_record(number, asked))
        self._retain(continuing={trial.number for trial in asked.trials})
        by_program: dict[str, list[Trial]] = {}
        for trial in asked.trials:
            by_program.setdefault(_program_name(trial.config), []).append(trial)
        self._before, self._now = self._now, {}
        names = list(by_program)
        specs = {name: self._spec(trials) for name, trials in by_program.items()}
        compiling: dict[str, Future] = {}
        for place, name in enumerate(names):
            bucket = self._now[name] = self._bucket(name, specs[name], by_program[name])
            if place + 1 == len(names):
                self._before = {}
            while bucket.evaluation < asked.until:
                if self._segment >= self._restored:
                    for ahead in names[place : place + 2]:  # the next one while this one trains
                        if ahead not in compiling:
                            traced = hyper([trial.config for trial in by_program[ahead]])
                            compiling[ahead] = compiler.submit(self._compile, specs[ahead], traced)
                    compiling[name].result()
                self._run_segment(number, bucket)

    def _spec(self, trials: list[Trial]) -> Spec:
        trainer = self._trainer
        spec = self._task.spec(static_part(trials[0].config), trainer.arranged.trained_on)
        self._programs.add((spec, trainer.block_size(spec, len(trials))))
        return spec

    def _compile(self, spec: Spec, traced: Hyper) -> None:
        began = time.perf_counter()
        self._trainer.compile(spec, traced)
        self._compile_seconds += time.perf_counter() - began

    def _bucket(self, name: str, spec: Spec, trials: list[Trial]) -> Bucket:
        """The trials of a program: drawn fresh, or copies of rows of the last round."""
        source = self._before.get(name)
        parents = [trial.parent for trial in trials]
        if source is None or all(parent is None for parent in parents):
            start, members = 0, self._trainer.empty(spec, len(trials))
        else:
            places: dict[int | None, int] = {t.number: row for row, t in enumerate(source.trials)}
            start = source.evaluation
            members = source.members and source.members.take([places[p] for p in parents])
        size = parameter_count(spec)
        for trial in trials:
            if trial.number not in self._curves:
                self._curves[trial.number] = Curve(trial, trial.parent, start, size)
        reading = self._segment < self._restored
        return Bucket(spec, trials, start, None if reading else members)

    def _run_segment(self, number: int, bucket: Bucket) -> None:
        """Trains a bucket to its next evaluation, or reads in the journal what came of it."""
        evaluation = bucket.evaluation + 1
        if self._segment < self._restored:
            record = self._recorded["segment"][self._segment]
            self._train_seconds += record["seconds"]
            self._read += len(bucket.trials)
        else:
            began = time.perf_counter()
            metrics = self._train(bucket, evaluation)
            seconds = time.perf_counter() - began
            self._train_seconds += seconds
            record = _segment_record(self._segment, number, evaluation, bucket, metrics)
            self._remember("segment", self._segment, record | {"seconds": seconds})
        metrics, diverged_at = _measured(record)
        bucket.evaluation = evaluation
        self._segment += 1
        self._work += len(bucket.trials)
        better = []
        for row, trial in enumerate(bucket.trials):
            curve = self._curves[trial.number]
            before = curve.score(self._task.measure)
            curve.add(
                jax.tree.map(lambda values, row=row: values[:, row], metrics), diverged_at[:, row]
            )
            better.append(curve.last(self._task.measure) < before)
        if bucket.members is not None:
            _copy_rows(bucket.members.best, bucket.members.params, np.array(better))
        if self._segment == self._restored:
            self._restore()
        self._status = self._how_far()
        self._report(self._status)
        self._save_if_due()

    def _train(self, bucket: Bucket, evaluation: int) -> Metrics:
        assert bucket.members is not None
        examples = self._trainer.arranged.trained_on
        start, stop = (
            self._task.iteration(e, bucket.spec.batch_size, examples) if e else 0
            for e in (bucket.evaluation, evaluation)
        )

        def report(share: float) -> None:
            if share < 1:
                done = self._work + share * len(bucket.trials)
                self._report(self._status._replace(done=done))

        return self._trainer.advance(bucket.spec, bucket.hyper, bucket.members, start, stop, report)

    def _scores(self, asked: Round) -> Scores:
        measure = self._task.measure
        curves = {trial.number: self._curves[trial.number] for trial in asked.trials}
        return Scores(
            {number: curve.score(measure) for number, curve in curves.items()},
            {number: curve.last(measure) for number, curve in curves.items()},
        )

    def _how_far(self) -> Status:
        best = min(curve.score(self._task.measure) for curve in self._curves.values())
        diverged = sum(curve.diverged for curve in self._curves.values())
        return self._status._replace(
            done=self._work,
            best=best,
            diverged=diverged,
            programs=len(self._programs),
            read=self._read,
        )

    def _remember(self, kind: str, number: int, record: Record) -> None:
        """Adds a record to the journal; one that is there already has to be the same."""
        if number >= len(self._recorded[kind]):
            self._journal.append(record)
            return
        was = {**self._recorded[kind][number], "seconds": None}
        differing = differences(was, {**json.loads(json.dumps(record)), "seconds": None})
        if differing:
            raise ReproducibilityError(
                f"{kind} {number} is not what the log has: {differing[0][:200]}; expected the same "
                "bits, as the same machine and software give"
            )

    def _retain(self, continuing: set[int]) -> None:
        """Keeps the parameters of the trials that may be chosen, of those that train no more.

        Trials in training have theirs in their buckets; they may diverge yet.
        """
        finished = {n: curve for n, curve in self._curves.items() if n not in continuing}
        kept = self._keep(finished)
        for bucket in self._now.values():
            if bucket.members is None:
                return
            bucket.members = self._trainer.gather(bucket.spec, bucket.members)
            for row, trial in enumerate(bucket.trials):
                if trial.number in kept:
                    self._parameters[trial.number] = jax.tree.map(
                        lambda leaf, row=row: leaf[:, row].copy(), bucket.members.best
                    )
        self._parameters = {n: p for n, p in self._parameters.items() if n in kept}

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved_at >= self._checkpoint_seconds
        if self._segment > self._restored and distributed.agree(due):
            self._save()

    def _save(self) -> None:
        arrays = {}
        for prefix, bucket in self._buckets():
            assert bucket.members is not None
            members = self._trainer.gather(bucket.spec, bucket.members)
            arrays |= checkpoint.named_leaves(prefix, members)
        for number, params in self._parameters.items():
            arrays |= checkpoint.named_leaves(f"parameters/{number}/", params)
        self._journal.save(self._segment, arrays)
        self._saved, self._saved_at = self._segment, time.monotonic()

    def _restore(self) -> None:
        """The population as it was after this segment."""
        trainer = self._trainer
        for prefix, bucket in self._buckets():
            template = trainer.empty(bucket.spec, 0)
            bucket.members = checkpoint.restore(prefix, template, self._arrays)
        for name in self._arrays:
            kind, number, *_ = name.split("/")
            if kind == "parameters" and int(number) not in self._parameters:
                trial = self._curves[int(number)].trial
                spec = self._task.spec(static_part(trial.config), trainer.arranged.trained_on)
                template = trainer.empty(spec, 0).best
                self._parameters[int(number)] = checkpoint.restore(
                    f"parameters/{number}/", template, self._arrays
                )
        self._arrays = {}

    def _buckets(self) -> list[tuple[str, Bucket]]:
        """Those whose members matter from here on, with their names in a checkpoint."""
        both = (("before", self._before), ("now", self._now))
        return [
            (f"{kind}/{place}/", bucket)
            for kind, buckets in both
            for place, bucket in enumerate(buckets.values())
        ]


def _send(rounds: Any, scores: Scores) -> Round | None:
    try:
        return rounds.send(scores)
    except StopIteration:
        return None


def parameter_count(spec: Spec) -> int:
    """The number of a model's parameters."""
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _program_name(config: Config) -> str:
    return json.dumps(readable_config(static_part(config)))


def readable_config(config: Config) -> Config:
    """A configuration in JSON's types."""
    return {name: readable(value) for name, value in config.items()}


def _round_record(number: int, asked: Round) -> Record:
    trials = [
        {"trial": t.number, "parent": t.parent, "config": readable_config(t.config)}
        for t in asked.trials
    ]
    return {"round": number, "until": asked.until, "trials": trials}


def _segment_record(
    segment: int, number: int, evaluation: int, bucket: Bucket, metrics: Metrics
) -> Record:
    """A segment in JSON's types; what a diverged replicate measures is nothing."""
    assert bucket.members is not None
    diverged_at = bucket.members.diverged_at
    record: Record = {
        "segment": segment,
        "in_round": number,
        "evaluation": evaluation,
        "trials": [trial.number for trial in bucket.trials],
        "diverged_at": diverged_at.tolist(),
    }
    for name, values in metrics._asdict().items():
        known = (diverged_at == NEVER) & np.isfinite(values)
        record[name] = np.where(known, np.asarray(values, object), None).tolist()  # type: ignore
    return record


def _measured(record: Record) -> tuple[Metrics, np.ndarray]:
    """The metrics and divergences [R, K] of a record."""
    metrics = Metrics(*(np.array(record[name], np.float64) for name in Metrics._fields))
    return metrics, np.array(record["diverged_at"], np.int32)


def _copy_rows(to: PyTree, source: PyTree, rows: np.ndarray) -> None:
    for there, here in zip(jax.tree.leaves(to), jax.tree.leaves(source), strict=True):
        there[:, rows] = here[:, rows]
