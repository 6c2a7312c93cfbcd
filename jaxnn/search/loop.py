"""The loop of a search: ask the method for a round, train the round, send the scores.

A round trains bucket by bucket, a bucket from evaluation to evaluation. Each step is a
*segment*, and after every segment the scores are in the journal. The rounds decide everything, so a
resumed search repeats the uninterrupted search: the method starts again, segments before the latest
checkpoint are read from the journal, and later segments train again and must give the bits in the
journal.

A search that goes on with more trials, seeds or epochs trains the missing members alone: the
smaller search has the scores and states of the other members, trained in blocks of the same size.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from operator import eq
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn import distributed, files
from jaxnn.files import NUMBER, WHOLE, Check, decoding
from jaxnn.mlp import PaddedMLP, cut
from jaxnn.search.journal import CorruptLogError, Journal, Record
from jaxnn.search.methods import Curve, Round, Rounds, Scores, Trial, checked_round
from jaxnn.search.result import Outcome, recorded_curves, recorded_scores
from jaxnn.search.space import Config, Space, readable
from jaxnn.search.task import Task
from jaxnn.search.trainer import (
    FEW,
    Members,
    Program,
    Trainer,
    Work,
    fits,
    padded,
    parameter_count,
    together,
)
from jaxnn.spec import Spec
from jaxnn.train import NEVER, ExtendedMetrics, Metrics, no_scores
from jaxnn.types import PyTree

Keep = Callable[[Mapping[int, Curve]], set[int]]
"""From the curves of finished trials to the candidates for the choice."""


class Status(NamedTuple):
    """The progress of a search."""

    done: float  # evaluations, summed over trials
    total: int  # the most evaluations, summed over trials
    best: float  # the best mean score so far; inf before the first, of a greatest score -inf
    diverged: int  # trials
    programs: int  # so far
    read: int  # evaluations among ``done`` that were read from the journal, not trained


class Evaluation(NamedTuple):
    """The scores of a trial at an evaluation, for a callback."""

    trial: int
    config: Config
    evaluation: int  # from 1
    epoch: float
    scores: dict[str, np.ndarray]  # by name, over replicates [R]; nan where diverged
    read: bool  # from the record of an earlier run


class StoppedError(Exception):
    """A search ends before the next segment, by a time limit or Ctrl-C."""


@dataclass
class Bucket:
    """Trials that train together."""

    label: str  # begins the names of the arrays in a checkpoint: "now/0/", "before/0/"
    program: Program
    trials: list[Trial]  # in the order of the rows
    evaluation: int  # the evaluation that the trials have reached
    members: Members | None  # None while segments are read from the journal


class Earlier(NamedTuple):
    """The finished smaller search in the folder: one round, all trials trained in full."""

    curves: dict[str, Curve]  # by configuration
    until: int  # the last evaluation
    replicates: int

    @classmethod
    def of(cls, records: list[Record], folds: int) -> "Earlier":
        """The search with some records, the question first."""
        task = records[0]["search"]["task"]
        found = recorded_curves(records, task).values()
        curves = {_name(curve.trial.config): curve for curve in found}
        (until,) = {curve.evaluations[-1] for curve in curves.values()}
        return cls(curves, until, records[0]["search"]["seeds"] * folds)


def _name(config: Config) -> str:
    return json.dumps(readable(config))


@dataclass
class Naming:
    """Decides which trials train together: with a common static part, or padded networks."""

    task: Task
    space: Space
    trainer: Trainer
    spec_of: Callable[[Config], Spec]
    names: dict[int, str] = field(default_factory=dict)
    """The bucket of every trial."""
    padded: dict[str, Spec] = field(default_factory=dict)
    """The programs of padded networks, by bucket."""
    _own: dict[int, str] = field(default_factory=dict)
    """The static part of every trial."""

    def buckets(self, trials: Sequence[Trial]) -> dict[str, list[Trial]]:
        """The trials of a round by bucket; new networks of many sizes are padded together."""
        sized: dict[str, dict[int, Spec]] = {}  # by the static part without the sizes
        before = {trial.parent for trial in trials}
        going_on = {name for number, name in self.names.items() if number in before}
        for trial in trials:
            static = self.space.static_part(trial.config)
            own, parent = _name(static), -1 if trial.parent is None else trial.parent
            same = self._own.get(parent) == own
            self.names[trial.number] = self.names[parent] if same else own
            self._own[trial.number] = own
            if trial.parent is None and self.task.model is None and static.get("hidden"):
                rest = _name({n: value for n, value in static.items() if n != "hidden"})
                sized.setdefault(rest, {})[trial.number] = self.spec_of(static)
        for rest, specs in sized.items():
            self._pad(rest, specs, going_on)
        by_name: dict[str, list[Trial]] = {}
        for trial in trials:
            by_name.setdefault(self.names[trial.number], []).append(trial)
        return by_name

    def _pad(self, rest: str, specs: dict[int, Spec], going_on: set[str]) -> None:
        """Pads new networks, by trial, to known programs, and the rest to a few new programs."""
        ready = {name: spec for name, spec in self.padded.items() if name not in going_on}
        for number, spec in specs.items():
            known = [name for name, into in ready.items() if fits(spec, into)]
            self.names[number] = (*known, self.names[number])[0]
        left = {n: spec for n, spec in specs.items() if self.names[n] not in self.padded}
        if len({*left.values()}) <= FEW or not self.trainer.can_pad(next(iter(left.values()))):
            return
        for group in together([*left.values()]):
            spec = padded(group)
            name = f"{rest} in {spec.model}"
            if len({*group}) > 1 and name not in going_on:
                self.padded[name] = spec
                own = [number for number, each in left.items() if each in group]
                self.names |= dict.fromkeys(own, name)

    def spec(self, trial: Trial) -> Spec:
        """The program of a trial."""
        own = self.spec_of(self.space.static_part(trial.config))
        return self.padded.get(self.names[trial.number], own)


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
    spec_of: Callable[[Config], Spec]  # the checked program of a static part
    stop: Callable[[], bool] = lambda: False  # whether to end after a segment
    callback: Callable[[Evaluation], Any] | None = None  # gets the scores of every evaluation

    def __post_init__(self):
        self._stopping = False
        earlier = self.journal.earlier
        self._earlier = Earlier.of(earlier, self.task.validation_split.count) if earlier else None
        self._states: dict[int, Members] = {}
        """Of trials of the smaller search, leaves [R, 1, ...], until their buckets are so far."""
        self._inexact: set[int] = set()
        """Trials whose best parameters are of another evaluation than the best of all seeds."""
        self._buckets: dict[str, Bucket] = {}
        """By name: this round's, and until their trials go on the last round's."""
        self._naming = Naming(self.task, self.space, self.trainer, self.spec_of)
        self._parameters: dict[int, PyTree] = {}
        """Leaves [R, ...], of trials that train no more."""
        self._curves: dict[int, Curve] = {}
        self._programs: set[Program] = set()
        self._compile_seconds: list[float] = []
        self._segment = 0
        self._status = Status(0, 0, self.task.natural(math.inf), 0, 0, 0)
        self._restored, self._arrays = self.journal.restore()
        self._saved, self._saved_at = self._restored, time.monotonic()

    def run(self, rounds: Rounds, first: Round, total: int) -> Outcome:
        """Runs the whole search: the rounds, of which the first is known.

        ``total`` is the most evaluations, summed over trials; less where only the rounds tell.
        """
        current = first
        self._status = self._status._replace(total=total)
        self.report(self._status)
        complete = False
        with ThreadPoolExecutor(2) as compiler, suppress(StoppedError):
            for number in count():
                scores = self._run_round(number, current, compiler)
                try:
                    current = checked_round(rounds.send(scores))
                except StopIteration:
                    break
            complete = True
        self._curves = {n: curve for n, curve in self._curves.items() if curve.loss}
        again = self._train_best() and complete
        if again or self._saved != self._segment:
            self._save(again=again and self._saved == self._segment)
        self._end_round({})
        seconds = (record["seconds"] for record in self.journal.records if "segment" in record)
        times = sum(self._compile_seconds), sum(seconds)
        return Outcome(self._curves, self._parameters, len(self._programs), *times, complete)

    def _run_round(self, number: int, current: Round, compiler: ThreadPoolExecutor) -> Scores:
        """Trains the trials of a round, bucket by bucket."""
        record = {"round": number, "until": current.until, "trials": []}
        by_name = self._naming.buckets(current.trials)
        for trial in current.trials:
            row = {"trial": trial.number, "parent": trial.parent, "config": readable(trial.config)}
            record["trials"].append(row)
        self._check(number, current.until, by_name)
        self._end_round(by_name)
        programs = self._choose(current, by_name)
        sizes = [program.block_size for program in programs]
        record["block_sizes"] = dict(zip(by_name, sizes, strict=False))
        self.journal.confirm("round", number, record)
        if self._earlier and not self._restored:
            self._recall(current.trials)
        compiling: dict[Program, Future] = {}
        for place, (name, trials) in enumerate(by_name.items()):
            self._begin_bucket(name, f"now/{place}/", programs[place], trials)
            while self._buckets[name].evaluation < current.until:
                if not self._replaying:
                    for program in programs[place : place + 2]:  # the next while this one trains
                        if program not in compiling:
                            compiling[program] = self._compile(program, compiler)
                    compiling[programs[place]].result()
                self._run_segment(number, self._buckets[name])
        curves = {trial.number: self._curves[trial.number] for trial in current.trials}
        return Scores(
            {number: curve.score(self.task.objective) for number, curve in curves.items()},
            {number: curve.last(self.task.objective) for number, curve in curves.items()},
        )

    def _check(self, number: int, until: int, by_name: Mapping[str, list[Trial]]) -> None:
        """ValueError unless a method asks for trials that can be trained."""
        reached, evaluations, work = 0, self.task.evaluations, 0
        for name, trials in by_name.items():
            bucket = self._buckets.get(name) if trials[0].parent is not None else None
            parents = {trial.number for trial in bucket.trials} if bucket else {None}
            for trial in trials:
                new = trial.number not in self._curves or trial.number == trial.parent
                if trial.parent not in parents or not new or "learning_rate" not in trial.config:
                    raise ValueError(
                        f"round {number} has {trial}, expected a learning rate and either a new "
                        "number or a parent of the last round with equal compiled hyperparameters"
                    )
            start = bucket.evaluation if bucket else 0
            reached, work = max(reached, start), work + len(trials) * (until - start)
        if not by_name or not reached < until <= evaluations:
            raise ValueError(
                f"round {number} trains {sum(map(len, by_name.values()))} trials until evaluation "
                f"{until}, expected at least 1, until {reached + 1} to {evaluations}"
            )
        most = max(self._status.total, round(self._status.done) + work)
        self._status = self._status._replace(total=most)

    def _end_round(self, by_name: Mapping[str, list[Trial]]) -> None:
        """Keeps parameters of trials that may be chosen, and buckets that go on in ``by_name``."""
        going_on = {trial.number for trials in by_name.values() for trial in trials}
        kept = self.keep({n: curve for n, curve in self._curves.items() if n not in going_on})
        for bucket in self._buckets.values():
            bucket.label = bucket.label.replace("now", "before")
            if bucket.members is None:
                continue
            members = bucket.members = self.trainer.gather(bucket.program, bucket.members)
            for row, trial in enumerate(bucket.trials):
                if trial.number in kept:
                    best = jax.tree.map(lambda leaf, row=row: leaf[:, row].copy(), members.best)
                    if isinstance(bucket.program.spec.model, PaddedMLP):
                        best = jax.tree.map(np.copy, cut(best, trial.config["hidden"]))
                    self._parameters[trial.number] = best
        self._parameters = {n: p for n, p in self._parameters.items() if n in kept}
        self._buckets = {
            name: bucket
            for name, bucket in self._buckets.items()
            if any(trial.parent is not None for trial in by_name.get(name, ()))
        }

    def _choose(self, current: Round, by_name: dict[str, list[Trial]]) -> list[Program]:
        """The programs of a round's buckets and then, if known, of the next round."""
        programs: list[Program] = []
        for name, trials in by_name.items():
            spec = self._naming.spec(trials[0])
            planned = [(len(trials), current.until)]
            if len(by_name) == 1:  # with several buckets the survivors are unknown
                planned += current.following
            reached = self._buckets[name].evaluation if name in self._buckets else 0
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

    def _moments(self, evaluation: int, spec: Spec) -> int | np.ndarray:
        """The number of updates before an evaluation; of each fold, for splits of unequal sizes."""
        arranged = self.trainer.arranged
        if arranged.by_fold.rows is None:
            return self._iteration(evaluation, spec)
        sizes = arranged.sizes if evaluation else [0]
        ends = [self.task.iteration(evaluation, spec.batch_size, n) for n in sizes if n]
        return np.array(ends or 0)

    def _begin_bucket(self, name: str, label: str, program: Program, trials: list[Trial]) -> None:
        """A bucket of new trials, or of copies of the last round's rows."""
        source, members = self._buckets.get(name), None
        if not source and not self._replaying:
            members = self.trainer.empty(program.spec, len(trials))
        elif source and source.members is not None:
            rows: dict[int | None, int] = {t.number: row for row, t in enumerate(source.trials)}
            members = source.members.take([rows[trial.parent] for trial in trials])
        start, size = source.evaluation if source else 0, parameter_count(program.spec)
        self._buckets[name] = Bucket(label, program, trials, start, members)
        for trial in trials:
            own = parameter_count(self._spec_of(trial)) if name in self._naming.padded else size
            curve = Curve(trial, trial.parent, start, own, greater=self.task.greater)
            self._curves.setdefault(trial.number, curve)

    @property
    def _replaying(self) -> bool:
        """Whether the next segment was trained before the checkpoint."""
        return self._segment < self._restored

    def _spec_of(self, trial: Trial) -> Spec:
        return self.spec_of(self.space.static_part(trial.config))

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
        if self._stopping:
            raise StoppedError
        taken = set(self._states) if self._known(bucket) else set()
        if read:
            record = self.journal.recorded("segment", self._segment, self._schema(number, bucket))
        else:
            record = self._train(number, bucket)
            self.journal.confirm("segment", self._segment, record)
            taken = taken - self._states.keys()
        bucket.evaluation += 1
        self._segment += 1
        self._note(bucket, record, bool(read))
        self._inexact = {n for n in self._inexact | taken if n not in taken or self._is_moved(n)}
        if self._segment == self._restored:
            self._restore()
        curves = self._curves.values()
        self._status = self._status._replace(
            done=self._status.done + len(bucket.trials),
            best=self.task.natural(min(curve.score(self.task.objective) for curve in curves)),
            diverged=sum(curve.diverged for curve in curves),
            programs=len(self._programs),
            read=self._status.read + read,
        )
        self.report(self._status)
        if read:
            return
        due = time.monotonic() - self._saved_at >= self.checkpoint_seconds
        stop, due = distributed.from_first(lambda: bytes([self.stop(), due]))
        self._stopping = bool(stop)
        if stop or due:
            self._save()

    def _schema(self, number: int, bucket: Bucket) -> dict[str, Any]:
        """The schema of the next segment of a bucket."""
        known = {
            "segment": self._segment,
            "in_round": number,
            "evaluation": bucket.evaluation + 1,
            "trials": [trial.number for trial in bucket.trials],
        }
        score = Check("a finite number or null", lambda v: v is None or NUMBER.holds(v))
        moment = Check(f"an iteration, or {NEVER}", lambda v: v == NEVER or WHOLE.holds(v))
        replicates, trials = self.trainer.replicates, len(bucket.trials)
        return {
            **{name: Check(str(value), partial(eq, value)) for name, value in known.items()},
            "seconds": NUMBER,
            "diverged_at": ((moment,) * trials,) * replicates,
            **self._scores(bucket, ((score,) * trials,) * replicates),
        }

    def _scores(self, bucket: Bucket, value: Any) -> dict[str, Any]:
        """A value for every score in the record of a segment; metrics are under "metrics"."""
        zero = no_scores(bucket.program.spec)
        found = dict.fromkeys(Metrics(zero.loss, zero.error).by_name(), value)
        if isinstance(zero, ExtendedMetrics):
            found["metrics"] = dict.fromkeys(zero.others, value)
        return found

    def _train(self, number: int, bucket: Bucket) -> Record:
        """The record of a segment: the metrics [R, K]; None for diverged replicates."""
        assert bucket.members is not None
        evaluation, spec = bucket.evaluation + 1, bucket.program.spec
        ends = bucket.evaluation, evaluation, self.task.evaluations
        start, stop, horizon = (self._moments(e, spec) for e in ends)

        def report(share: float) -> None:
            if share < 1:
                done = self._status.done + share * len(bucket.trials)
                self.report(self._status._replace(done=done))

        began = time.perf_counter()
        configs = [trial.config for trial in bucket.trials]
        work = bucket.program, configs, bucket.members, start, stop, report, horizon
        if self._known(bucket):
            metrics = self._train_rest(bucket, configs, start, stop, horizon)
        else:
            metrics = self.trainer.advance(*work)
        record = {
            "segment": self._segment,
            "in_round": number,
            "evaluation": evaluation,
            "trials": [trial.number for trial in bucket.trials],
            "diverged_at": bucket.members.diverged_at.tolist(),
            "seconds": time.perf_counter() - began,
        }
        others = {"metrics": {}} if isinstance(metrics, ExtendedMetrics) else {}
        record |= others
        for name, values in metrics.by_name().items():
            diverged = (bucket.members.diverged_at != NEVER) | ~np.isfinite(values)
            place = record if name in Metrics._fields else others["metrics"]
            place[name] = np.ma.array(values, mask=diverged).tolist()
        return record

    def _known(self, bucket: Bucket) -> list[int]:
        """The rows of a bucket that the smaller search has trained further than the bucket."""
        return [row for row, t in enumerate(bucket.trials) if t.number in self._states]

    def _train_rest(
        self, bucket: Bucket, configs: list[Config], start: Any, stop: Any, horizon: Any
    ) -> Metrics | ExtendedMetrics:
        """Trains the members of a bucket that the smaller search has not, and takes the others."""
        assert self._earlier
        assert bucket.members is not None
        members, spec, known = bucket.members, bucket.program.spec, self._known(bucket)
        shape, old = members.diverged_at.shape, slice(self._earlier.replicates)
        metrics = jax.tree.map(lambda zero: np.zeros(shape, zero.dtype), no_scores(spec))
        rows = np.arange(len(configs))
        for some, replicates in ((np.setdiff1d(rows, known), old), (rows, slice(old.stop, None))):
            trainer = self.trainer.part(replicates)
            if not len(some) or not trainer.replicates:
                continue
            part = jax.tree.map(lambda x, r=replicates, some=some: x[r][:, some], members)
            work = bucket.program, [configs[row] for row in some], part, start, stop
            found = trainer.advance(*work, lambda _: None, horizon)
            part = trainer.gather(bucket.program, part)
            _put((members, metrics), (part, found), replicates, some)
        for row in known:
            number = bucket.trials[row].number
            curve = self._earlier.curves[_name(configs[row])]
            scores, members.diverged_at[old, row] = curve.scores(bucket.evaluation)
            for name, values in metrics.by_name().items():
                values[old, row] = scores[name]
            if bucket.evaluation + 1 == self._earlier.until:
                _put(members, self._states.pop(number), old, np.array([row]))
        return metrics

    def _recall(self, trials: Sequence[Trial]) -> None:
        """Takes the states of the smaller search from its last checkpoint."""
        assert self._earlier
        arrays, self._arrays = self._arrays, {}
        numbers = {_name(trial.config): trial.number for trial in trials}
        names = {c.trial.number: name for name, c in self._earlier.curves.items()}
        trainer = self.trainer.part(slice(self._earlier.replicates))
        for label in [name.removesuffix("trials") for name in arrays if name.endswith("/trials")]:
            rows = [names[number] for number in arrays[f"{label}trials"].tolist()]
            trial = trials[[trial.number for trial in trials].index(numbers[rows[0]])]
            template = trainer.empty(self._naming.spec(trial), len(rows))
            members = files.restore(label, template, arrays)
            for row, name in enumerate(rows):
                self._states[numbers[name]] = members.take([row])
        self._inexact = {numbers[names[int(number)]] for number in arrays.get("inexact", ())}

    def _train_best(self) -> bool:
        """Trains again where more seeds have moved the best evaluation of a trial to keep.

        The smaller search kept the parameters of the best evaluation by the mean over fewer seeds.

        Returns:
          Whether any trial was trained again.
        """
        if not self._earlier:
            return False
        kept, old, before = self.keep(self._curves), slice(self._earlier.replicates), self._inexact
        self._inexact = set(before)
        for bucket in self._buckets.values():
            for row, trial in enumerate(bucket.trials):
                inexact = trial.number in self._inexact or trial.number in self._states
                if trial.number in kept and inexact:
                    assert bucket.members is not None
                    again = self._trained_again(bucket, trial, self.trainer.part(old))
                    _put(bucket.members.best, again, old, np.array([row]))
                    self._inexact.discard(trial.number)
        return self._inexact != before

    def _trained_again(self, bucket: Bucket, trial: Trial, trainer: Trainer) -> PyTree:
        """The parameters of a trial at the best evaluation, leaves [R, 1, ...]."""
        curve, spec = self._curves[trial.number], bucket.program.spec
        best, members = curve.evaluations[curve.best(self.task.objective)], trainer.empty(spec, 1)
        ends = [self._moments(evaluation, spec) for evaluation in range(best + 1)]
        horizon = self._moments(self.task.evaluations, spec)
        for start, stop in pairwise(ends):
            work = bucket.program, [trial.config], members, start, stop
            trainer.advance(*work, lambda _: None, horizon)
        return trainer.gather(bucket.program, members).params

    def _is_moved(self, number: int) -> bool:
        """Whether a state, taken just now, lacks the parameters of the best evaluation.

        More seeds may move the best evaluation; or an earlier step to more seeds has moved it.
        """
        assert self._earlier
        now, measure = self._curves[number], self.task.objective
        old = self._earlier.curves[_name(now.trial.config)]
        best, before = (c.evaluations[c.best(measure)] for c in (now, old))
        return best < self._earlier.until and (best != before or number in self._inexact)

    def _note(self, bucket: Bucket, record: Record, read: bool) -> None:
        """Adds a segment's scores to the curves, and keeps the best parameters."""
        better = []
        for trial, (metrics, diverged_at) in zip(
            bucket.trials, recorded_scores(record), strict=True
        ):
            curve = self._curves[trial.number]
            before = curve.score(self.task.objective)
            curve.add(metrics, diverged_at)
            better.append(curve.last(self.task.objective) < before)
            if better[-1] and trial.number not in self._states:
                self._inexact.discard(trial.number)
            if self.callback:
                epoch = bucket.evaluation / self.task.evaluations_per_epoch
                about = trial.number, trial.config, bucket.evaluation, epoch
                self.callback(Evaluation(*about, metrics.by_name(), read))
        if bucket.members is not None:
            pairs = map(jax.tree.leaves, (bucket.members.best, bucket.members.params))
            for best, params in zip(*pairs, strict=True):
                best[:, better] = params[:, better]

    def _save(self, *, again: bool = False) -> None:
        """Writes a checkpoint of the buckets and the kept parameters."""
        arrays = {}
        for bucket in self._buckets.values():
            assert bucket.members is not None
            members = self.trainer.gather(bucket.program, bucket.members)
            arrays |= files.named_leaves(bucket.label, members)
            arrays[f"{bucket.label}trials"] = np.array([trial.number for trial in bucket.trials])
        for number, params in self._parameters.items():
            arrays |= files.named_leaves(f"parameters/{number}/", params)
        for number, state in self._states.items():
            arrays |= files.named_leaves(f"known/{number}/", state)
        if self._inexact:
            arrays["inexact"] = np.array(sorted(self._inexact))
        self.journal.save(self._segment, arrays, again=again)
        self._saved, self._saved_at = self._segment, time.monotonic()

    def _restore(self) -> None:
        """Takes the arrays of the checkpoint from this moment of the search."""
        arrays, self._arrays = self._arrays, {}
        with decoding("the latest checkpoint is damaged", CorruptLogError):
            for bucket in self._buckets.values():
                template = self.trainer.empty(bucket.program.spec, len(bucket.trials))
                bucket.members = files.restore(bucket.label, template, arrays)
            for number in {int(n.split("/")[1]) for n in arrays if n.startswith("parameters/")}:
                template = self.trainer.empty(self._spec_of(self._curves[number].trial), 1).best
                template = jax.tree.map(lambda leaf: leaf[:, 0], template)
                self._parameters[number] = files.restore(f"parameters/{number}/", template, arrays)
            for number in {int(n.split("/")[1]) for n in arrays if n.startswith("known/")}:
                assert self._earlier
                trainer = self.trainer.part(slice(self._earlier.replicates))
                template = trainer.empty(self._naming.spec(self._curves[number].trial), 1)
                self._states[number] = files.restore(f"known/{number}/", template, arrays)
            self._inexact = set(map(int, arrays.get("inexact", ())))


def _put(whole: PyTree, part: PyTree, replicates: slice, rows: np.ndarray) -> None:
    """Copies leaves of a part [r, k, ...] into leaves [R, K, ...], in place."""
    for leaf, piece in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        leaf[replicates, rows] = piece


def block_sizes(
    task: Task, space: Space, trainer: Trainer, spec_of: Callable[[Config], Spec], first: Round
) -> dict[str, int]:
    """The block sizes of a search of one round, by bucket."""
    naming, programs = Naming(task, space, trainer, spec_of), []
    by_name = naming.buckets(first.trials)
    for some in by_name.values():
        spec = naming.spec(some[0])
        updates = task.iteration(first.until, spec.batch_size, trainer.arranged.trained_on)
        programs.append(trainer.program(spec, [Work(len(some), updates)], programs))
    return {name: each.block_size for name, each in zip(by_name, programs, strict=True)}
