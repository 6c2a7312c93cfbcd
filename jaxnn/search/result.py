"""The result of a search: learning curves, the choice, the table of trials, the test set."""

import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import distributed
from jaxnn.files import as_path, make_folder
from jaxnn.losses import predictions
from jaxnn.metrics import confidence_intervals, proportion_interval, skewed_interval, standard_error
from jaxnn.minibatch import as_float
from jaxnn.mlp import cut
from jaxnn.search.journal import Journal, Record, RunFolderError
from jaxnn.search.methods import Curve, Trial
from jaxnn.search.space import Config, Space, option, readable
from jaxnn.search.task import Arranged, ByFold, Task, digest, recorded_task, traced_values
from jaxnn.search.trainer import Trainer, Work, seed_keys
from jaxnn.spec import Spec
from jaxnn.train import NEVER, ExtendedMetrics, Metrics, Mode, fitted, map_blocks, over_rows
from jaxnn.types import Array, Data, Key, Layer, PyTree, require, require_count, shown

if TYPE_CHECKING:
    from jaxnn.display import Figures

RULES = ("mean", "one_standard_error")
NO_DATA = "no data"
"""Takes the place of the devices in a result that was loaded without the data."""

Row = dict[str, Any]

logger = logging.getLogger("jaxnn.search")


class NoDataError(ValueError):
    """A result that was loaded without the data is asked for what needs the data."""


class AllDivergedError(ValueError):
    """Every trial of a search diverged."""


def recorded_scores(record: Record) -> Iterator[tuple[Metrics | ExtendedMetrics, np.ndarray]]:
    """The metrics and the divergence of every trial of a segment's record, fields [R]."""
    known = {n: record[n] for n in Metrics._fields if n in record} | record.get("metrics", {})
    columns = {name: np.array(values, np.float64).T for name, values in known.items()}
    for row, diverged_at in enumerate(np.array(record["diverged_at"], np.int32).T):
        found = {name: values[row] for name, values in columns.items()}
        loss, error = found.pop("loss"), found.pop("error", None)
        yield (ExtendedMetrics(loss, error, found) if found else Metrics(loss, error)), diverged_at


def recorded_curves(
    records: Iterable[Record], task: Mapping[str, Any] | None = None
) -> dict[int, Curve]:
    """The curves of the trials in a record, by number; trials without a score are left out.

    ``task`` is the task in the question of the record.
    """
    curves: dict[int, Curve] = {}
    greater = frozenset((task or {}).get("maximised", ()))
    for record in records:
        if "round" in record:
            for row in record["trials"]:
                trial = Trial(row["trial"], row["config"], row["parent"])
                curve = Curve(trial, trial.parent, 0, 0, greater=greater)
                curves.setdefault(trial.number, curve)
        elif "segment" in record:
            scores = recorded_scores(record)
            for number, each in zip(record["trials"], scores, strict=True):
                curve = curves[number]
                curve.start = curve.start if curve.loss else record["evaluation"] - 1
                curve.add(*each)
    return {number: curve for number, curve in curves.items() if curve.loss}


class Outcome(NamedTuple):
    """The curves and parameters that the loop of a search leaves."""

    curves: dict[int, Curve]
    parameters: dict[int, PyTree]  # leaves [R, ...], of the trials that may be chosen
    programs: int
    compile_seconds: float
    train_seconds: float
    complete: bool = True  # not stopped before the end


def chosen(
    curves: Mapping[int, Curve], measure: str, error: Callable[[int], float] | None = None
) -> int:
    """The number of the trial to use.

    Args:
      curves: all trials.
      measure: the score that chooses, such as "loss", "error" or a metric's name.
      error: for the rule "one_standard_error", from a trial's number to the standard error of the
        trial's score: the most parsimonious trial within one standard error of the lowest mean has
        the fewest parameters, then the strongest L2, then the earliest stop. None, for the rule
        "mean": the lowest mean over replicates.

    Raises:
      AllDivergedError: every trial has diverged, or no trial has a finite score.
    """
    ranking = ranked(curves, measure)
    if not ranking and not all(curve.diverged for curve in curves.values()):
        raise AllDivergedError(
            f"{measure} is not finite for any of {len(curves)} configurations, though the losses "
            "are, expected a score with finite values"
        )
    if not ranking:
        raise AllDivergedError(
            f"all {len(curves)} configurations diverged, expected at least 1 finite: try smaller "
            "learning rates"
        )
    best = ranking[0]
    if error is None:
        return best
    limit = curves[best].score(measure) + error(best)

    def complexity(number: int) -> tuple[float, ...]:
        curve = curves[number]
        stop, l2 = curve.evaluations[curve.best(measure)], curve.trial.config.get("l2", 0.0)
        return curve.parameter_count, -l2, stop, ranking.index(number)

    return min((n for n in ranking if curves[n].score(measure) <= limit), key=complexity)


def ranked(curves: Mapping[int, Curve], measure: str) -> list[int]:
    """The trials with finite scores, the best first; equal scores in the order of the numbers."""
    scores = {number: curve.score(measure) for number, curve in sorted(curves.items())}
    return sorted(filter(lambda n: math.isfinite(scores[n]), scores), key=scores.__getitem__)


def may_be_chosen(curves: Mapping[int, Curve], measure: str, rule: str) -> set[int]:
    """The trials with parameters to keep while the rest trains."""
    ranking = ranked(curves, measure)
    return set(ranking[:1] if rule == "mean" else ranking)


def _finite(value: float) -> float | None:
    """The value; None for nan, such as the score of a class without examples."""
    return value if math.isfinite(value) else None


class FinalScores(NamedTuple):
    """The scores of the chosen models on the test examples: means over replicates.

    A regression has no accuracy: None.
    """

    accuracy: Any  # float
    loss: float
    accuracy_interval: Any  # [low, high]: 95 %, over test examples
    loss_interval: Sequence[float]  # as well
    accuracies: list[float]  # per model; none of a regression
    losses: list[float]
    retrained: bool  # on training and validation examples together
    examples: int
    digest: str = ""  # of the test examples; "" in a record of an earlier version
    metrics: dict[str, float | None] | None = None  # of the task by name, if any; None: nan
    metric_values: dict[str, list[float | None]] | None = None  # per model


class Stage(NamedTuple):
    """A part of a trial's training with constant hyperparameters."""

    config: Config
    until: int  # the evaluation at the end


def lineage(curves: Mapping[int, Curve], number: int, evaluation: int) -> list[Stage]:
    """The stages of a trial up to an evaluation, the stages of its ancestors first."""
    curve, parent = curves[number], curves[number].copied_from
    before = [] if parent is None else lineage(curves, parent, curve.start)
    return [*before, Stage(curve.trial.config, evaluation)]


@partial(jax.jit, static_argnames="spec")
def _block_scores(
    spec: Spec, params: PyTree, hyper: Any, scaling: tuple, inputs: Array, targets: Array
) -> tuple[Array, Array | None, Array | None]:
    """Loss [B] and error [B] of every example of a block, and the outputs for metrics."""
    inputs = as_float(inputs, Data(inputs, targets, *scaling))
    found = over_rows(spec, params, inputs, targets, Mode(hyper))
    return found.loss, found.error, found.logits


class Best(NamedTuple):
    """The chosen trial."""

    trial: int
    config: Config
    epochs: float  # up to the best evaluation, whose parameters are kept
    validation_accuracy: Any  # mean over replicates; None of a regression
    validation_loss: float
    stages: list[Stage]  # more than one if hyperparameters changed in training
    validation_metrics: Mapping[str, float] = MappingProxyType({})  # of the task, by name


_LAYER = re.compile(r"\[(\d+)\]\.(weight|bias)")


def _kept(arrays: Mapping[str, Any], number: int, hidden: Any = None) -> PyTree:
    """The best parameters of a trial in a checkpoint, leaves [R, ...]; None where there are none.

    The layers of an MLP, without padding around the hidden sizes; of another model the arrays by
    place.
    """
    found = {n.removeprefix(f"parameters/{number}/"): a for n, a in arrays.items()}
    found = {name: array for name, array in found.items() if name not in arrays}
    for label in [name.removesuffix("trials") for name in arrays if name.endswith("/trials")]:
        trials = arrays[f"{label}trials"].tolist()
        if number in trials:
            prefix, row = f"{label}.best", trials.index(number)
            several = [name for name in arrays if name.startswith(prefix)]
            found = {name.removeprefix(prefix): arrays[name][:, row] for name in several}
    parts = {name: _LAYER.fullmatch(name) for name in found}
    if not found or not all(parts.values()):
        return found or None
    count = max(int(part[1]) for part in parts.values() if part) + 1
    layers = tuple(Layer(found[f"[{i}].weight"], found[f"[{i}].bias"]) for i in range(count))
    return cut(layers, hidden) if hidden and count > len(hidden) else layers


@dataclass(eq=False, repr=False)
class Result:
    """The result of a search.

    Every process of a distributed search holds the whole result. ``test``, ``retrained`` and
    ``save_model`` are collective: call them on all processes; process 0 writes and prints.

    Attributes:
      best: the chosen trial.
      table: one row per trial, in the order of the numbers: ``trial``, ``copied_from``, the names
        of the space (None where a hyperparameter does not apply), ``epochs`` (trained),
        ``best_epoch``; for ``validation_accuracy``, ``validation_loss`` and ``validation_NAME`` of
        the task's metrics at the best epoch the mean over replicates, ``_std``, and the ends
        ``_low`` and ``_high`` of a 95 % interval by Student's t (of an accuracy: within 0 and 1);
        ``diverged_at``, the first iteration at which a replicate's loss was not finite. Unknown
        entries are None.
      params: the chosen trial's parameters at the best evaluation, leaves [R, ...], one row per
        replicate: the folds of the first seed, of the second seed, ...
      complete: whether the search was not stopped before the end, by ``timeout`` or Ctrl-C.
      curves: every trial's validation scores.
      programs: the number of compiled programs.
      compile_seconds: the time of compilation; compilation and training overlap.
      train_seconds: the time of training, summed over all runs of a resumed search.
      method: the search method, in JSON's types.
      rule: the rule of the choice.
      standard_error: of the lowest mean, for the rule "one_standard_error", else None: over folds,
        seeds averaged first; with one split over the validation examples, seeds averaged first,
        for the seeds of one split are no independent samples of data.
      seeds: the number of seeds.
      examples: the number of training examples of every model.
      validated: the targets of the validation examples.

    Raises:
      AllDivergedError: every trial has diverged.
    """

    task: Task
    space: Space
    outcome: InitVar[Outcome]
    journal: Journal
    _: KW_ONLY
    method: Mapping[str, Any]
    rule: str
    key: Key | None
    seeds: int
    examples: int
    validated: np.ndarray | None
    mesh: Any
    validation: InitVar[Data | None] = None  # the examples of one split, for one standard error
    recorded: InitVar[Record | None] = None  # the choice of a loaded result
    sizes: Sequence[int] = ()  # the number of training examples of every fold, for splits
    by_fold: ByFold = field(
        default_factory=ByFold
    )  # with scale and shift of every fold, if standardised

    def __post_init__(self, outcome: Outcome, validation: Data | None, recorded: Record | None):
        self.curves, self.programs = outcome.curves, outcome.programs
        self.compile_seconds, self.train_seconds = outcome.compile_seconds, outcome.train_seconds
        self.complete = outcome.complete
        self._retrained: PyTree = None
        self._digest = ""  # of the test examples, once known
        self.standard_error: float | None = None

        def error(number: int) -> float:
            self.standard_error = self._standard_error(number, outcome.parameters, validation)
            return self.standard_error

        one = error if self.rule == "one_standard_error" else None
        if recorded:
            self.standard_error, number = recorded["standard_error"], recorded["chosen"]
        else:
            number = chosen(self.curves, self.task.objective, one)
        self.best = self._best(number)
        self.params: PyTree = outcome.parameters.get(number)
        self.table = self._table()
        if isinstance(self.task.test, Data):
            self._check_test_set()

    def _best(self, number: int) -> Best:
        curve = self.curves[number]
        index = curve.best(self.task.objective)
        evaluation, shown = curve.evaluations[index], self.task.shown
        return Best(
            number,
            curve.trial.config,
            evaluation / self.task.evaluations_per_epoch,
            1 - curve.means["error"][index] if "error" in shown else None,
            curve.means["loss"][index],
            lineage(self.curves, number, evaluation),
            {m.name: float(curve.values(m.name)[index].mean()) for m in self.task.metrics},
        )

    def _table(self) -> list[Row]:
        from jaxnn.display import Table

        per_epoch, measure = self.task.evaluations_per_epoch, self.task.objective
        rows, scores = [], []
        for number, curve in sorted(self.curves.items()):
            config, best = readable(curve.trial.config), curve.best(measure)
            diverged = curve.diverged_at[curve.diverged_at != NEVER]
            rows.append(
                {
                    "trial": number,
                    "copied_from": curve.copied_from,
                    **{name: config.get(name) for name in self.space},
                    "epochs": curve.evaluations[-1] / per_epoch,
                    "best_epoch": None if curve.diverged else curve.evaluations[best] / per_epoch,
                    "diverged_at": int(diverged.min()) if len(diverged) else None,
                }
            )
            at_best = [curve.shown(name)[best] for name in self.task.shown]
            scores.append(np.full_like(at_best, np.nan) if curve.diverged else at_best)
        columns = {}
        for name, values in zip(self.task.shown.values(), np.stack(scores, axis=1), strict=True):
            low, high = confidence_intervals(values)
            if name == "accuracy":
                low, high = np.clip((low, high), 0, 1)
            std = low if values.shape[1] < 2 else values.std(axis=1, ddof=1)  # low: nan
            summary = {"": values.mean(axis=1), "_std": std, "_low": low, "_high": high}
            columns |= {f"validation_{name}{suffix}": each for suffix, each in summary.items()}
        for row, *values in zip(rows, *columns.values(), strict=True):
            row |= zip(columns, (None if math.isnan(v) else float(v) for v in values), strict=True)
        return Table(rows)

    @classmethod
    def load(cls, folder: Path | str) -> "Result":
        """The result in a folder, without the data: table, curves, choice, figures, study.

        ``params`` is None where the folder holds no parameters of the choice: an MLP's are layers,
        of another model the arrays by place. ``test``, ``retrained``, ``save_model`` and ``spec``
        need the data: call ``search`` again.

        Raises:
          RunFolderError: the folder holds no search, or a search at work.
          CorruptLogError: the database is damaged.
          NoDataError: the choice needs the data: an unfinished search by the rule
            "one_standard_error" over validation examples.
        """
        with Journal(folder) as journal:
            segments, arrays = journal.restore()
        asked, latest = journal.question, journal.latest
        curves = recorded_curves(latest, asked["task"])
        for curve in curves.values():
            config = {name: option(value) for name, value in curve.trial.config.items()}
            curve.trial = curve.trial._replace(config=config)
        ends = journal.known("chosen")[-1:]
        recorded = next((record for record in ends if record["complete"]), None)
        rule, folds = asked["rule"].split()[0], asked["task"]["validation"].get("count", 1)
        if rule != "mean" and folds == 1 and not recorded:
            raise NoDataError(
                f"{folder} holds an unfinished search by the rule {rule}, whose choice needs the "
                "validation examples: expected search(task, ..., folder=...)"
            )
        seconds = sum(record["seconds"] for record in journal.records if "segment" in record)
        programs = ends[0]["programs"] if ends else 0
        result = cls(
            recorded_task(asked["task"]),
            Space.recorded(asked["space"], asked["names"], asked["traced"]),
            Outcome(curves, {}, programs, 0.0, seconds, bool(recorded)),
            journal,
            method=asked["method"],
            rule=rule,
            key=None,
            seeds=asked["seeds"],
            examples=asked["examples"],
            validated=None,
            mesh=NO_DATA,
            sizes=asked.get("sizes", ()),
            recorded=recorded,
        )
        exact = recorded or not journal.earlier
        if exact and segments == len(journal.known("segment")):
            result.params = _kept(arrays, result.best.trial, result.best.config.get("hidden"))
        return result

    def _require_data(self, name: str) -> None:
        if self.mesh is NO_DATA:
            raise NoDataError(
                f"{self.journal.name} was loaded without the data, which {name} needs: expected "
                "search(task, ..., folder=...), which trains nothing again"
            )

    def record_choice(self) -> None:
        """Records the choice, for ``load``; within ``with journal``."""
        chosen = {
            "chosen": self.best.trial,
            "standard_error": self.standard_error,
            "programs": self.programs,
            "complete": self.complete,
        }
        if self.journal.known("chosen")[-1:] != [chosen]:
            self.journal.append(chosen)

    def study(self, storage: Any = None, *, name: str = "search") -> Any:
        """All trials as an ``optuna.Study``, for optuna-dashboard and ``optuna.visualization``.

        A trial's value is the best mean over replicates, lower is better; the intermediate values
        are the means by the number of the evaluation. Stopped trials are PRUNED, diverged trials
        FAIL. Parameters are the searched names; options such as layer sizes are texts.

        Args:
          storage: Optuna's: None for memory, a URL such as "sqlite:///study.db", or a storage.
          name: of the study in the storage.

        Raises:
          ValueError: the storage holds a study of this name.
          ModuleNotFoundError: Optuna is not installed.
        """
        from jaxnn.search.tpe import study

        task = self.task
        return study(self.curves, self.space, task.objective, task.evaluations, storage, name)

    @property
    def diverged(self) -> int:
        """The number of diverged trials."""
        return sum(curve.diverged for curve in self.curves.values())

    @property
    def spec(self) -> Spec:
        """The spec of the chosen trial, trained on all examples."""
        self._require_data("spec")
        static = self.space.static_part(self.best.config)
        return self.task.spec(static, len(self.task.train.targets))

    @property
    def loss_name(self) -> str:
        """The name of the chosen trial's loss in reports; custom losses are called "loss"."""
        loss = self.best.config.get("loss", self.task.loss or "cross_entropy")
        return {"logistic": "cross_entropy"}.get(loss, loss) if isinstance(loss, str) else "loss"

    @property
    def notes(self) -> list[str]:
        """Messages to the reader of the result, such as a damaged checkpoint."""
        return [record["note"] for record in self.journal.records if "note" in record]

    @property
    def test_reads(self) -> int:
        """The number of times that the search has read the test set."""
        return sum("test_read" in record for record in self.journal.records)

    @property
    def test_scores(self) -> list[FinalScores]:
        """The scores of the choice at all readings of the test set, the first reading first.

        A search that went on may have made another choice since a reading.
        """
        of = self._choice
        readings = [record for record in self.journal.records if "test_scores" in record]
        chosen = [reading["test_scores"] for reading in readings if reading.get("of", of) == of]
        return [FinalScores(**scores) for scores in chosen]

    @property
    def _choice(self) -> Record:
        """The models that a test score belongs to, in JSON's types."""
        stages = [[readable(stage.config), stage.until] for stage in self.best.stages]
        return {"stages": stages, "seeds": self.seeds}

    def test(self, *, retrain: bool = False) -> FinalScores:
        """Reads the test set, and records the reading; a repeated call returns the recorded scores.

        Args:
          retrain: train the chosen configuration again, on training and validation examples
            together and to the same epoch, from every seed; otherwise the validated models are
            tested.

        Returns:
          Means over the models, with 95 % intervals over the test examples: ``proportion_interval``
          for the accuracy, ``skewed_interval`` for the loss.

        Raises:
          ValueError: the task has no test set, or the configuration diverges when trained again.
          RunFolderError: the folder holds the score of another test set.
          NoDataError: the result was loaded without the data.
        """
        self._require_data("test")
        if self.task.test is None:
            raise ValueError("the task has no test set, expected Task(..., test=data)")
        with self.journal as journal:  # another process may have tested in the meantime
            self._check_test_set()
            for scores in self.test_scores:
                if scores.retrained is retrain:
                    return scores
            params = self.retrained() if retrain else self.params
            journal.append({"test_read": self.test_reads + 1})
            content = distributed.from_first(lambda: self._final_scores(params, retrain))
            journal.append({"test_scores": json.loads(content), "of": self._choice})
        scores = FinalScores(**json.loads(content))
        self._digest = scores.digest
        return scores

    def _check_test_set(self) -> None:
        """RunFolderError if the recorded test scores are of other examples than the task's.

        A function for the test examples is called, but no model sees the examples.
        """
        readings = [record for record in self.journal.records if "test_scores" in record]
        recorded = [FinalScores(**reading["test_scores"]) for reading in readings]
        if not recorded or self._digest:
            return
        found = distributed.from_first(lambda: digest(self.task.read_test()).encode()).decode()
        for scores in recorded:
            if scores.digest and scores.digest != found:
                raise RunFolderError(
                    f"{self.journal.name} holds the score of another test set: its digest is "
                    f"{scores.digest} ({scores.examples} examples), that of this test set {found}; "
                    "expected the same test examples or another folder"
                )
        if distributed.is_first() and not all(scores.digest for scores in recorded):
            logger.warning(
                f"{self.journal.name} holds a test score of an earlier version, which recorded no "
                "digest of the test set: test sets cannot be compared"
            )
        self._digest = found

    def scaling(self, *, retrained: bool = False) -> tuple[Any, Any]:
        """The scale and the shift of the inputs; of standardised inputs of every model, [R, in]."""
        if not self.task.standardize:
            return self.task.train.scale, self.task.train.shift
        by_fold = self.by_fold
        if retrained:
            by_fold = Arranged(self.task.all_examples(), 0, 1).standardized().by_fold
        times = (self.seeds, *(1,) * (np.ndim(by_fold.scale) - 1))
        return np.tile(by_fold.scale, times), np.tile(by_fold.shift, times)

    def _each(
        self, spec: Spec, params: PyTree, data: Data, config: Config, *, retrained: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
        """Losses and errors [R, N] of models, leaves [R, ...], on examples; outputs for metrics."""
        hyper = traced_values(spec, self.space.traced, [config], self.task.hyper)
        hyper, scaling, each = jax.tree.map(itemgetter(0), hyper), self.scaling, []
        whole = data.scale, data.shift
        for r in range(len(jax.tree.leaves(params)[0])):
            own = scaling(retrained=retrained) if self.task.standardize else None
            here = whole if own is None else tuple(x[r] for x in own)
            model = jax.tree.map(itemgetter(r), params)
            scores = partial(_block_scores, spec, model, hyper, here)
            each.append(map_blocks(scores, data.inputs, data.targets))
        losses, errors, outputs = zip(*each, strict=True)
        wrong = None if errors[0] is None else np.array(errors, np.float64)
        return np.array(losses, np.float64), wrong, [*outputs]

    def _final_scores(self, params: PyTree, retrained: bool) -> bytes:
        """The ``FinalScores`` of models, leaves [R, ...], in JSON."""
        spec, config = self.spec, self.best.config
        data = fitted(spec, "test", self.task.read_test())
        losses, errors, outputs = self._each(spec, params, data, config, retrained=retrained)
        loss, shares = losses.mean(axis=0), {}  # [N]: means over models
        if errors is not None and "error" in self.task.shown:
            correct = 1 - errors.mean(axis=0)
            interval = proportion_interval(correct, len(errors))
            shares = {"accuracy": float(correct.mean()), "accuracy_interval": interval}
            shares["accuracies"] = (1 - errors.mean(axis=1)).tolist()
        values = {
            m.name: [
                float(m(predictions(spec.loss, jnp.asarray(z)), data.targets)) for z in outputs
            ]
            for m in self.task.metrics
        }
        scores = FinalScores(
            **{"accuracy": None, "accuracy_interval": None, "accuracies": [], **shares},
            loss=float(loss.mean()),
            loss_interval=skewed_interval(loss),
            losses=losses.mean(axis=1).tolist(),
            retrained=retrained,
            examples=len(data.targets),
            digest=digest(data),
            metrics={name: _finite(float(np.mean(each))) for name, each in values.items()},
            metric_values={name: [*map(_finite, each)] for name, each in values.items()},
        )
        record = {name: value for name, value in scores._asdict().items() if value != {}}
        return json.dumps(record).encode()

    def _standard_error(
        self, number: int, parameters: Mapping[int, PyTree], validation: Data | None
    ) -> float:
        """The standard error of a trial's score: over folds, or examples; seeds averaged first."""
        curve, measure, folds = (
            self.curves[number],
            self.task.objective,
            self.task.validation_split.count,
        )
        if validation is None:
            values = curve.values(measure)[curve.best(measure)]
            return standard_error(values.reshape(self.seeds, folds).mean(axis=0))
        spec = self.task.spec(self.space.static_part(curve.trial.config), self.examples)

        def error() -> bytes:
            found = self._each(spec, parameters[number], validation, curve.trial.config)
            values: Any = found[0] if measure == "loss" else found[1]
            return json.dumps(standard_error(values.mean(axis=0))).encode()

        return json.loads(distributed.from_first(error))

    def retrained(self) -> PyTree:
        """Parameters of the chosen configuration trained on all examples, leaves [S, ...].

        Raises:
          ValueError: the training diverges.
          NoDataError: the result was loaded without the data.
        """
        self._require_data("retrained")
        if self._retrained is not None:
            return self._retrained
        task, stages = self.task, self.best.stages
        arranged = Arranged(task.all_examples(), 0, 1)
        arranged = arranged.standardized() if task.standardize else arranged
        keys = seed_keys(self.key, self.seeds)
        trainer = Trainer(arranged, self.space.traced, keys, self.mesh, made=task.hyper)
        spec = task.spec(self.space.static_part(stages[0].config), arranged.trained_on)
        ends = [task.iteration(s.until, spec.batch_size, arranged.trained_on) for s in stages]
        program = trainer.program(spec, [Work(1, ends[-1])], had=())
        members = trainer.empty(spec, 1)
        for stage, start, stop in zip(stages, [0, *ends], ends, strict=False):
            trainer.advance(program, [stage.config], members, start, stop, lambda _: None)
        members = trainer.gather(program, members)
        if (members.diverged_at != NEVER).any():
            raise ValueError(
                f"the chosen configuration {self.best.config} diverged when it was trained again "
                f"on training and validation examples, at iteration {members.diverged_at.max()}; "
                "expected finite losses: test(retrain=False) uses the models that were validated"
            )
        self._retrained = jax.tree.map(lambda leaf: leaf[:, 0], members.params)
        return self._retrained

    def save_model(self, folder: Path | str, *, retrain: bool = False) -> None:
        """Saves the chosen models, one per replicate, for ``jaxnn.saved_model.load_model``.

        Args:
          folder: created if missing; a model in the folder is replaced.
          retrain: save models trained on all examples instead, one per seed.
        """
        from jaxnn.saved_model import save_model

        self._require_data("save_model")
        params = self.retrained() if retrain else self.params
        if not distributed.is_first():
            return
        names = ("epochs", "validation_accuracy", "validation_loss", "validation_metrics")
        about = {name: getattr(self.best, name) for name in names}
        about = {name: value for name, value in about.items() if value not in (None, {})}
        about |= {"config": readable(self.best.config), "retrained": retrain}
        scale, shift = self.scaling(retrained=retrain)
        data = self.task.train._replace(scale=scale, shift=shift)
        save_model(folder, self.spec, params, about=about, data=data)

    def figures(self, *names: str) -> "Figures":
        """Figures of Matplotlib by name, which a notebook shows without a magic.

        Args:
          *names: some of "learning_curves", "hyperparameters", "learning_rate_l2",
            "parallel_coordinates" and "importance"; by default all that suit the search.

        Raises:
          ValueError: an unknown name, or a figure for which the search has too little to show.
          ModuleNotFoundError: a package of the extra ``search`` is not installed.
        """
        require("search", "matplotlib", "scipy", "sklearn")
        from jaxnn.search.figures import figures

        return figures(self, *names)

    def write(self, folder: Path | str, format: Literal["png", "svg", "pdf"] = "png") -> list[Path]:
        """Writes ``trials.csv``, ``history.csv``, ``results.json`` and the figures.

        Every file is written whole or not at all. The folder is created if missing, and may be the
        folder of the search.

        Args:
          folder: the folder.
          format: of the figures: "png", "svg" or "pdf".

        Returns:
          The files; none in the later processes of a distributed search.

        Raises:
          OSError: a file cannot be written.
          ValueError: an unknown format.
        """
        if not distributed.is_first():
            return []
        require("search", "matplotlib", "scipy", "sklearn")
        from jaxnn import reporting
        from jaxnn.figures import FORMATS, write_figure
        from jaxnn.search.figures import figures
        from jaxnn.search.report import history, results

        if format not in FORMATS:
            raise ValueError(f"format is {shown(format)}, expected one of {', '.join(FORMATS)}")

        folder = as_path("folder", folder)
        make_folder(folder)
        content = {**reporting.environment(), "results": results(self)}
        reporting.write_json(folder / "results.json", content)
        reporting.write_csv(folder / "trials.csv", self.table)
        reporting.write_csv(folder / "history.csv", history(self))
        # After the results are on the disk.
        drawn = {f"{name}.{format}": figure for name, figure in figures(self).items()}
        for name, figure in drawn.items():
            write_figure(folder / name, figure)
        return [folder / name for name in ("results.json", "trials.csv", "history.csv", *drawn)]

    def __repr__(self) -> str:
        from jaxnn.search import report

        return report.summary(self)

    def _repr_html_(self) -> str:
        from jaxnn.search import report

        return report.to_html(self)

    def print(self, count: int = 10, stream: TextIO | None = None) -> None:
        """Prints the best trials, the best first: at most ``count``, by default to stdout."""
        from jaxnn.search import report

        best = ranked(self.curves, self.task.objective)[: require_count("count", count)]
        if distributed.is_first():
            report.show(self, best, stream)

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``.

        Raises:
          ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "pandas is not installed, expected for to_pandas(): pip install pandas"
            ) from None
        return pd.DataFrame(self.table)
