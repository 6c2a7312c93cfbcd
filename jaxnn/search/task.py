"""The task of a search: the examples, the training budget, the measure, the validation examples.

Held-out examples, given examples and folds share a layout: the validation examples of every fold
are neighbours. Fold f validates on the rows from ``f * held_out`` on and trains on all other rows,
so a fold is a number, and cross-validation an axis of the population. ``splits`` are folds of any
sizes, by the rows of each in an array: a fold is a number there too.
"""

import hashlib
import re
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.losses import LOSSES, REGRESSIONS, as_labels, as_real, class_count
from jaxnn.metrics import REALS, Metric, get_metric
from jaxnn.minibatch import permutation_grid
from jaxnn.mlp import MLP, PaddedMLP, by_name, get_loss
from jaxnn.modules import Module, as_model, is_module, network
from jaxnn.optimizers import defaults
from jaxnn.search.space import BATCH_SIZE, SEARCH_OPTIMIZER, Domain, SpaceError, expect
from jaxnn.spec import Spec, own_hyper, require_count, scalars
from jaxnn.train import Rows, flattened
from jaxnn.types import (
    Data,
    Hyper,
    MeasureName,
    Model,
    checked_data,
    on_host,
    require_number,
    require_type,
    shown,
    standard,
)

MEASURES = ("error", "loss")

_TAKEN = (
    "accuracy", "best_evaluation", "config", "copied_from", "diverged_at", "evaluation",
    "evaluations", "record", "replicate", "trial"
)  # fmt: skip
"""Columns of tables and views, no names of metrics."""


@dataclass(frozen=True)
class Validation:
    """How validation examples are chosen: by ``holdout``, ``given``, ``folds`` or ``splits``."""

    kind: str
    fraction: float = 0.0
    count: int = 1
    stratified: bool = False
    data: Data | None = None
    pairs: Any = None  # of splits: ((training rows, validation rows), ...)
    splitter: Any = None  # of scikit-learn, and its groups
    groups: Any = None

    def describe(self) -> dict[str, Any]:
        """The choice in JSON's types, for the record of a run."""
        settings = {"holdout": ("fraction", "stratified"), "folds": ("count", "stratified")}
        told = {name: getattr(self, name) for name in ("kind", *settings.get(self.kind, ()))}
        if self.pairs is not None:
            rows = [Data(train, valid) for train, valid in self.pairs]
            told |= {"count": self.count, "rows": [digest(each) for each in rows]}
        return told

    def smallest(self, n: int) -> int:
        """The number of training examples in the smallest fold of n examples."""
        if self.pairs is not None:
            return min(len(train) for train, _ in self.pairs)
        if self.data is not None:
            return n
        return n - (n // self.count if self.kind == "folds" else round(n * self.fraction))

    def of(self, train: Data) -> "Validation":
        """The rows of ``splits``, checked, where a splitter chooses them by the examples."""
        if self.kind != "splits":
            return self
        pairs = self.pairs
        if self.splitter is not None:
            arguments = np.asarray(train.inputs), np.asarray(train.targets), self.groups
            try:
                pairs = tuple(self.splitter.split(*arguments))
            except (TypeError, ValueError) as error:
                raise ValueError(f"validation is {shown(self.splitter)}: {error}") from None
        n = len(train.targets)
        pairs = tuple(_pair(number, pair, n) for number, pair in enumerate(pairs))
        if not pairs:
            raise ValueError("splits holds no pair, expected at least one (train, valid)")
        return replace(self, pairs=pairs, count=len(pairs), splitter=None, groups=None)


def _pair(number: int, pair: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to train on and to validate on; ValueError unless both are rows of n examples."""
    fits: Any = isinstance(pair, tuple | list) and len(pair) == 2
    require_type(fits, f"split {number}", pair, "(rows to train on, rows to validate on)")
    found: list[Any] = []
    for name, rows in zip(("training", "validation"), list(pair), strict=True):
        values = np.asarray(rows)
        if values.dtype == bool and values.shape == (n,):
            values = np.flatnonzero(values)
        fits = values.ndim == 1 and values.size and values.dtype.kind in "iu"
        if not fits or values.min() < 0 or values.max() >= n:
            outside = values[(values < 0) | (values >= n)] if fits else values
            held = f"hold {outside.min()}" if fits and outside.size else f"are {shown(rows)}"
            raise ValueError(
                f"the {name} rows of split {number} {held}, expected at least one number in "
                f"0..{n - 1}"
            )
        found.append(values.astype(np.int32))
    if both := np.intersect1d(found[0], found[1]).tolist():
        raise ValueError(
            f"split {number} trains and validates on the example {both[0]}, expected disjoint rows"
        )
    return found[0], found[1]


def holdout(fraction: float = 1 / 6, *, stratified: bool = False) -> Validation:
    """A random part of the training examples validates.

    Args:
      fraction: the size of the part, above 0 and below 1.
      stratified: whether the part holds every class in proportion, to within one example.
    """
    expected = "a number above 0 and below 1"
    fraction = require_number("fraction", fraction, expected, lambda share: 0 < share < 1)
    return Validation("holdout", fraction=fraction, stratified=bool(stratified))


def given(data: Data) -> Validation:
    """The given examples validate; models train on all training examples."""
    if not isinstance(data, Data):
        raise TypeError(f"given takes {type(data).__name__}, expected Data(inputs, targets)")
    return Validation("given", data=data)


def folds(count: int = 5, *, stratified: bool = False) -> Validation:
    """Cross-validation: ``count`` disjoint parts of equal size, each validating models of the rest.

    Where N is not a multiple of the count, the remainder (fewer than ``count`` examples) is trained
    on in every fold and validates in none.

    Args:
      count: at least 2.
      stratified: whether every fold holds every class in proportion, to within one example.
    """
    return Validation("folds", count=require_count("folds", count, 2), stratified=bool(stratified))


def _is_splitter(value: Any) -> bool:
    """Whether an object splits examples, as those of scikit-learn do."""
    kinds: Any = (str, bytes, type, np.ndarray)
    return callable(getattr(value, "split", None)) and not isinstance(value, kinds)


def splits(pairs: Any, groups: Any = None) -> Validation:
    """Folds by their rows: for groups, for time series, and of any splitter of scikit-learn.

    The folds may have unequal sizes and may overlap: every fold trains for the epochs of the task
    on its own training rows.

    >>> splits([([0, 1], [2]), ([0, 1, 2], [3])]).count
    2

    Args:
      pairs: (rows to train on, rows to validate on) of every fold, as indices or masks; or an
        object with ``split(inputs, targets, groups)``, such as ``TimeSeriesSplit(5)``.
      groups: of the examples [N], for splitters such as ``GroupKFold``.
    """
    if _is_splitter(pairs):
        return Validation("splits", splitter=pairs, groups=groups)
    kinds: Any = (str, bytes, Mapping, Data)
    fits = isinstance(pairs, Iterable) and not isinstance(pairs, kinds)
    require_type(fits, "splits", pairs, "[(train, valid), ...] or a splitter of scikit-learn")
    if groups is not None:
        raise ValueError("splits has pairs and groups, expected groups with a splitter alone")
    pairs = tuple(pairs)
    return Validation("splits", count=len(pairs), pairs=pairs)


@dataclass(frozen=True)
class Task:
    """A data set, and the budget to train a configuration with.

    >>> from jaxnn.data import load
    >>> train, test = load("digits")
    >>> Task(train, test, epochs=4, validation=folds(3)).evaluations
    4

    Attributes:
      train: all examples for the search, validation examples included. Without a ``model``, the
        labels are 0..C-1, each with examples: the search makes networks of C outputs.
      test: examples hidden from the search, or a function that loads the examples; ``Result.test``
        alone scores them.
      epochs: the most epochs of a configuration; every evaluation before the end is a
        candidate for stopping.
      evaluations_per_epoch: how often a configuration is evaluated.
      validation: ``holdout(fraction)``, ``folds(count)``, ``splits(pairs)``, a splitter of
        scikit-learn, or the validation examples: ``Data`` or ``given(data)``.
      measure: the quantity to minimise on the validation examples: "error" (the share of wrong
        predictions) or "loss" (unregularised; cross-entropy in nats by default). Without
        ``measure`` and ``metric``, the error; of a regression "rmse".
      model: for networks beyond MLPs: a module of Flax or Equinox, see ``jaxnn.modules``; or from
        the values of ``model_parameters`` to a ``Model`` or module, such as ``lambda width:
        Net(width)``; the function of a module may take ``rngs`` or ``key`` beside the values.
      model_parameters: the names in the space that belong to ``model`` and not to ``Spec`` or
        ``Hyper``.
      metric: in place of ``measure``, a metric by the name of scikit-learn, a
        ``jaxnn.metrics.Metric``, "loss" or "error"; or several, all recorded, of which the first
        chooses.
      loss: of all configurations; a space may have the name ``loss`` instead. The losses "mse",
        "mae", "huber" and "gaussian_nll" make a regression.
      weighted_validation: whether validation scores weight the examples as the training does.
      standardize: whether the network sees inputs of mean 0 and standard deviation 1, fitted on
        the training examples of each fold alone.
      hyper: the NamedTuple of the traced hyperparameters, with ``learning_rate`` and ``l2``, for
        an optimizer, a loss or a model that reads names of their own; by default ``Hyper`` and
        what the optimizers of the space read.
    """

    train: Data
    test: Data | Callable[[], Data] | None = None
    epochs: int = 12
    evaluations_per_epoch: int = 1
    validation: Any = field(default_factory=holdout)  # a Validation, once checked
    measure: MeasureName | None = None
    model: Callable[..., Model] | Any = None
    model_parameters: tuple[str, ...] = ()
    metric: Any = ()  # a name, a Metric, or several; once checked, a tuple
    loss: Any = None  # LossName, or a Loss
    weighted_validation: bool = False
    standardize: bool = False
    hyper: Any = None

    def __post_init__(self):
        for name in ("epochs", "evaluations_per_epoch"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
        names = self.model_parameters
        names = (names,) if isinstance(names, str) else tuple(names or ())
        object.__setattr__(self, "model_parameters", names)
        if wrong := [name for name in names if not isinstance(name, str) or name in Hyper._fields]:
            raise ValueError(f"model_parameters has {wrong[0]!r}, expected names not in Hyper")
        function = "a function from model_parameters to a model, such as lambda width: MLP(...)"
        function = f"a module of Flax or Equinox, or {function}"
        if not names:
            object.__setattr__(self, "model", as_model(self.model))
        elif is_module(self.model) and not hasattr(self.model, "__qualname__"):
            raise TypeError(
                f"model is a module and takes no {names[0]!r}, expected a function of "
                "model_parameters, such as lambda width: Net(width)"
            )
        require_type(self.model is None or callable(self.model), "model", self.model, function)
        self._check_scores()
        if self.hyper is not None:
            fits = {"learning_rate", "l2"} <= {*getattr(self.hyper, "_fields", ())}
            expected = "a NamedTuple class with learning_rate and l2"
            require_type(fits and isinstance(self.hyper, type), "hyper", self.hyper, expected)
        if isinstance(self.validation, Data):
            object.__setattr__(self, "validation", given(self.validation))
        if _is_splitter(self.validation):
            object.__setattr__(self, "validation", splits(self.validation))
        if not isinstance(self.validation, Validation):
            raise TypeError(
                f"validation is {shown(self.validation)}, expected holdout(0.2), folds(5), "
                "splits(pairs) or Data(inputs, targets)"
            )
        if self.model_parameters and self.model is None:
            raise ValueError("model_parameters are given, expected a model that takes them")
        self._check_examples()
        object.__setattr__(self, "validation", self.validation_split.of(self.train))

    def _check_scores(self) -> None:
        """Checks loss, measure and metrics; the metrics become a tuple."""
        for name in ("weighted_validation", "standardize"):
            value = getattr(self, name)
            require_type(isinstance(value, bool | np.bool_), name, value, "True or False")
        if self.loss is not None:
            get_loss(self.loss)
        several = isinstance(self.metric, tuple | list)
        named = tuple(self.metric if several else (self.metric,))
        named = tuple("error" if m == "accuracy" else m for m in named)
        metric = tuple(m if m in MEASURES else get_metric(m) for m in named)
        object.__setattr__(self, "metric", metric)
        names = [m.name if isinstance(m, Metric) else str(m) for m in metric]
        for name in names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]{0,63}", name) or name in _TAKEN:
                raise ValueError(
                    f"metric has the name {shown(name)}, expected a word of letters, digits and _, "
                    f"and none of {', '.join(_TAKEN)}"
                )
        if twice := [n for n in names if names.count(n) > 1]:
            raise ValueError(f"metric holds {twice[0]!r} twice, expected different names")
        if self.regression and "error" in names:
            raise ValueError(
                f"metric is {shown(self.metric[names.index('error')])} and the targets of the loss "
                f"{shown(self.loss)} are real numbers, expected a metric such as 'rmse'"
            )
        if self.measure is None:
            return
        by_name("measure", self.measure, dict.fromkeys(MEASURES))
        if self.metric:
            raise ValueError(
                f"measure is {self.measure!r} and metric is {names[0]!r}, expected one of the two: "
                f"metric={(self.measure, *names)} chooses by the first"
            )
        if self.regression and self.measure == "error":
            raise ValueError("measure is 'error', expected 'loss' or metric='rmse' of a regression")

    @property
    def regression(self) -> bool:
        """Whether the targets are real numbers, without an accuracy."""
        if callable(self.loss):
            return any(isinstance(m, Metric) and m.of == REALS for m in self.metric)
        return self.loss in REGRESSIONS

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that evaluations record, besides loss and error."""
        if self.regression and self.measure is None and not self.metric:
            return (get_metric("rmse"),)
        return tuple(m for m in self.metric if isinstance(m, Metric))

    @property
    def objective(self) -> str:
        """The name of the choosing score: "error", "loss" or the name of a metric."""
        first = self.metric[0] if self.metric else "rmse" if self.regression else "error"
        return self.measure or (first if isinstance(first, str) else first.name)

    @property
    def greater(self) -> frozenset[str]:
        """The names of the scores whose highest value is the best."""
        return frozenset(m.name for m in self.metrics if m.greater_is_better)

    @property
    def shown(self) -> dict[str, str]:
        """The scores in tables and records, and the names for people: "error" as "accuracy"."""
        error = {} if self.regression else {"error": "accuracy"}
        return {**error, "loss": "loss", **{m.name: m.name for m in self.metrics}}

    def natural(self, cost: float) -> float:
        """The score of a cost: a search minimises costs, the negative of a greater score."""
        return -cost if self.objective in self.greater else cost

    def searching(self, space: Mapping[str, Any]) -> "Task":
        """The task, with a loss of real targets that a space names.

        Raises:
          SpaceError: losses of classes and of real targets, or a loss in both space and task.
        """
        domain = space.get("loss") if isinstance(space, Mapping) else None
        values = domain.values if isinstance(domain, Domain) and not domain.is_interval else ()
        expect(
            not values or self.loss is None, "loss is in the space and in the task, expected one"
        )
        real = [value for value in values if value in REGRESSIONS]
        expect(
            len(real) in (0, len(values)),
            f"loss can be one of {[*values]}, expected losses of classes or of real targets alone",
        )
        try:
            return replace(self, loss=real[0]) if real else self
        except ValueError as error:
            raise SpaceError(f"the loss {real[0]}: {error}") from None

    def own_names(self, space: Mapping[str, Any]) -> dict[Any, dict[str, float]]:
        """The traced hyperparameters of losses and model: {"": ..., "cross_entropy": ...}.

        The names of the model stand for "".
        """
        domain = space.get("loss") if isinstance(space, Mapping) else None
        values = domain.values if isinstance(domain, Domain) and not domain.is_interval else ()
        found: dict[Any, dict[str, float]] = {"": self._model_names(space)}
        losses: list[Any] = [*values] or [self.loss or "cross_entropy"]
        for loss in losses:
            if callable(loss) or loss in LOSSES:
                named: Any = loss
                found[loss] = scalars(get_loss(named))
        return found

    def _model_names(self, space: Mapping[str, Any]) -> dict[str, float]:
        """The traced hyperparameters of the first model of a space."""
        if self.model is None or not isinstance(space, Mapping):
            return {}
        first = {
            n: d.at(0.0)
            for n, d in space.items()
            if n in self.model_parameters and isinstance(d, Domain)
        }
        try:
            apply = getattr(self._model(first, None), "apply", None)
        except Exception:  # of the user's function; every configuration is checked later
            return {}
        return scalars(apply) if callable(apply) else {}

    def _check_examples(self) -> None:
        """Makes arrays of all examples, and checks that labels name the classes of a network."""
        named = {"train": self.train, "validation": self.validation_split.data, "test": self.test}
        given_now = {
            n: data for n, data in named.items() if data is not None and not callable(data)
        }
        sets = dict(zip(given_now, checked_data([*given_now.items()]), strict=True))
        if self.model is None:
            sets = {n: flattened(d) if d.inputs.ndim > 2 else d for n, d in sets.items()}
        if self.regression:
            sets = {n: d._replace(targets=as_real(d.targets)) for n, d in sets.items()}
        targets = [on_host(data.targets) for data in sets.values()]
        whole = (t is not None and t.ndim == 1 and np.all(t == np.floor(t)) for t in targets)
        if not self.regression and all(whole):
            for name, data in sets.items():
                labels = as_labels(name, data.targets)
                sets[name] = data if labels is data.targets else data._replace(targets=labels)
            if self.model is None:
                known = [np.asarray(sets[n].targets) for n in ("train", "validation") if n in sets]
                others = sets["test"].targets if "test" in sets else ()
                names = "the train targets", "the test targets"
                try:
                    class_count(names[0], np.concatenate(known), names[1], others)
                except ValueError as error:
                    if self.loss is not None:
                        raise
                    hint = "; of a regression Task(..., loss='mse')"
                    raise ValueError(f"{error}{hint}") from None
        object.__setattr__(self, "train", sets["train"])
        if "test" in sets:
            object.__setattr__(self, "test", sets["test"])
            self.read_test()
        if "validation" in sets:
            object.__setattr__(self, "validation", given(sets["validation"]))

    @property
    def validation_split(self) -> Validation:
        """``validation`` as a ``Validation``."""
        assert isinstance(self.validation, Validation)
        return self.validation

    @property
    def evaluations(self) -> int:
        """The number of evaluations of a configuration that is trained to the end."""
        return self.epochs * self.evaluations_per_epoch

    def iteration(self, evaluation: int, batch_size: int, examples: int) -> int:
        """The number of updates before an evaluation (from 1); examples: training examples."""
        return max(1, evaluation * examples // (self.evaluations_per_epoch * batch_size))

    def spec(self, static: Mapping[str, Any], examples: int) -> Spec:
        """The program of the static part of a configuration; examples: training examples.

        Raises:
          SpaceError: a value that ``Spec`` or the model refuses.
        """
        usual = min(BATCH_SIZE, self.validation_split.smallest(len(self.train.targets)))
        values = {"batch_size": usual, "optimizer": SEARCH_OPTIMIZER, **static}
        names = ("batch_size", "optimizer", "loss", "schedule")
        training = {name: values.pop(name) for name in names if name in values}
        if self.loss is not None:
            training.setdefault("loss", self.loss)
        training |= {"metrics": self.metrics, "weighted": self.weighted_validation}
        batch_size = training["batch_size"]
        try:
            if require_count("batch_size", batch_size) > examples:
                raise ValueError(  # noqa: TRY301
                    f"batch_size is {batch_size}, expected at most the {examples} examples that "
                    "are trained on"
                )
            model = self._model(values, training.get("loss"))
            return Spec(model, self.iteration(self.evaluations, batch_size, examples), **training)
        except (TypeError, ValueError) as error:
            raise SpaceError(f"the configuration {dict(static)}: {error}") from None

    def _model(self, values: dict[str, Any], loss: Any) -> Model:
        if self.model is not None:
            model = _built(self.model, tuple(values.items()))
            shape = self.train.inputs.shape[1:]
            return network(model, shape) if isinstance(model, Module) else model
        hidden = values.pop("hidden", ())
        if not isinstance(hidden, tuple):
            raise TypeError(f"hidden is {hidden!r}, expected layer sizes such as (50, 50) or ()")
        outputs = self.outputs * (2 if loss == "gaussian_nll" else 1)
        if loss == "logistic":
            if outputs > 2:
                raise ValueError(f"logistic takes the targets 0 and 1, got {outputs} classes")
            outputs = 1
        return MLP((self.inputs, *hidden, outputs), **values)

    def read_test(self) -> Data:
        """The test examples, loaded and checked now if ``test`` is a function."""
        test: Any = self.test
        if not isinstance(test, Data):
            _, test = checked_data([("train", self.train), ("test", test())])
            test = flattened(test) if self.model is None and test.inputs.ndim > 2 else test
        if len(test.targets) < 2:
            raise ValueError("the test set holds 1 example, expected at least 2 for an interval")
        return test

    def all_examples(self) -> Data:
        """Training and validation examples together."""
        return _joined(given, self.train) if (given := self.validation_split.data) else self.train

    @property
    def inputs(self) -> int:
        """The number of inputs of a network for the examples."""
        return self.train.inputs.shape[1]

    @property
    def outputs(self) -> int:
        """The number of classes, or of real targets; one for a network with the logistic loss."""
        several = (data for data in (self.train, self.validation_split.data) if data is not None)
        targets = [np.asarray(data.targets) for data in several]
        if self.regression:
            return targets[0].shape[1] if targets[0].ndim > 1 else 1
        return max(t.shape[1] if t.ndim > 1 else int(t.max()) + 1 for t in targets)


def _unknown(outputs: Any, targets: Any) -> Any:
    """The function of a metric in a record, which has names alone."""
    raise ValueError("the metric is known by name alone, expected search(task, ..., folder=...)")


def recorded_task(described: Mapping[str, Any]) -> Task:
    """The task in the record of a search, without examples and model."""
    task, known = object.__new__(Task), {entry.name for entry in fields(Validation)}
    split = {n: v for n, v in described["validation"].items() if n in known}
    maximised = described.get("maximised", ())
    metric = tuple(
        Metric(name, _unknown, greater_is_better=name in maximised)
        for name in described.get("metrics", ())
    )
    values = {**described, "validation": Validation(**split), "metric": metric}
    values |= {"loss": "mse"} if described.get("regression") else {}
    for entry in fields(Task):
        usual = None if entry.default is MISSING else entry.default
        unknown = entry.name in ("train", "test", "model")
        value = usual if unknown else values.get(entry.name, usual)
        object.__setattr__(task, entry.name, value)
    return task


def spread_over(task: Task) -> str:
    """The independent samples behind the standard error of a score, in words."""
    count = task.validation_split.count
    return f"over {count} folds" if count > 1 else "over the validation examples"


@lru_cache
def _built(model: Callable[..., Model], values: tuple[tuple[str, Any], ...]) -> Model:
    """A model for some values, built once: an equal model would be a program of its own."""
    made = partial(model, **dict(values))
    return as_model(made if is_module(made) else made())


def traced_values(
    spec: Spec, names: tuple[str, ...], configs: list[dict[str, Any]], made: Any = None
) -> Any:
    """The traced hyperparameters of configurations that share a program.

    Args:
      spec: the program.
      names: the traced names of the space.
      configs: K configurations; the optimizer's, the loss's or the model's default takes the place
        of a missing value.
      made: the NamedTuple class of the task, if any.

    Returns:
      A NamedTuple of arrays [K], None for a field that the program does not read.
    """
    known = {"learning_rate": np.nan, "l2": 0.0, "clip": np.inf} | dict(defaults(spec.optimizer))
    if callable(spec.optimizer):
        known = dict.fromkeys(names) | known
    if made is not None:
        known |= {name: made._field_defaults.get(name, known.get(name)) for name in made._fields}
    known |= {name: value for name, value in own_hyper(spec).items() if name in names}
    always = (set(Hyper._fields) | set(getattr(made, "_fields", ()))) - {"clip"}
    dtype = jnp.result_type(float)
    columns = {
        name: np.array([config.get(name, default or 0.0) for config in configs], dtype)
        for name, default in known.items()
        if name in names or (name in always and default is not None)
    }
    if made is not None:
        return made(**{name: columns.get(name) for name in made._fields})
    if isinstance(spec.model, PaddedMLP):
        largest = spec.model.sizes[1:-1]
        columns["widths"] = spec.model.widths([c.get("hidden", largest) for c in configs])
    fields = tuple(dict.fromkeys((*Hyper._fields, *columns)))
    return _hyper_class(fields)(**columns)


@lru_cache
def _hyper_class(fields: tuple[str, ...]) -> Any:
    """A NamedTuple of some fields, None by default."""
    return namedtuple("SearchedHyper", fields, defaults=[None] * len(fields))


class ByFold(NamedTuple):
    """The differences between the folds of a program, as data; leaves [F, ...]."""

    rows: Rows | None = None  # to train on
    valid: Any = None  # [F, V] int32 rows to validate on, filled up with zeros
    scale: Any = None  # [F, in] of standardised inputs
    shift: Any = None


class Arranged(NamedTuple):
    """Examples, ordered: the validation examples of every fold are neighbours."""

    data: Data
    held_out: int | tuple[int, ...]  # validation examples of a fold; of each fold of splits
    folds: int
    pairs: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # of splits
    by_fold: ByFold = ByFold()

    @property
    def sizes(self) -> list[int]:
        """The number of training examples of every fold."""
        if isinstance(self.held_out, tuple):
            return [len(train) for train, _ in self.pairs]
        return [len(self.data.targets) - self.held_out] * self.folds

    @property
    def trained_on(self) -> int:
        """The number of training examples of a fold; of the largest fold of splits."""
        return max(self.sizes)

    def rows(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that a fold trains on, and validates on."""
        if isinstance(self.held_out, tuple):
            return self.pairs[fold]
        every, first = np.arange(len(self.data.targets)), fold * self.held_out
        valid = every[first : first + self.held_out]
        return np.delete(every, valid), valid

    @property
    def validated(self) -> np.ndarray:
        """The targets of the validation examples of all folds."""
        return self.data.targets[np.concatenate([self.rows(f)[1] for f in range(self.folds)])]

    def standardized(self) -> "Arranged":
        """The examples with a scale and a shift of every fold's training inputs."""
        several = [standard(self.data, self.rows(fold)[0]) for fold in range(self.folds)]
        dtype = jax.dtypes.canonicalize_dtype(float)
        scale, shift = (np.stack(each).astype(dtype) for each in zip(*several, strict=True))
        return self._replace(by_fold=self.by_fold._replace(scale=scale, shift=shift))


def arrange(validation: Validation, train: Data, seed: int) -> Arranged:
    """Lays out the examples of a search.

    Args:
      validation: the choice of validation examples.
      train: the training examples.
      seed: decides the held-out examples.

    Returns:
      NumPy arrays in an ``Arranged``.

    Raises:
      ValueError: no example would be left to train or to validate on, given examples do not fit
        the training examples, or stratification by targets other than class indices.
    """
    if validation.pairs is not None:
        return _by_rows(train, validation.pairs)
    if validation.data is not None:
        return Arranged(_joined(validation.data, train), len(validation.data.targets), 1)
    n = len(train.targets)
    held_out = n - validation.smallest(n)
    if validation.kind == "folds":
        fault = f"folds is {validation.count}, expected at most the {n} examples"
    else:
        fault = (
            f"fraction is {validation.fraction:g} and holds out {held_out} of {n} examples, "
            "expected at least one to validate and one to train on"
        )
    if not 0 < held_out < n:
        raise ValueError(fault)
    order = np.random.default_rng([seed, 1]).permutation(n)
    if validation.stratified:
        order = _stratified(order, np.asarray(train.targets), held_out, validation.count)
    return Arranged(train.rows(order), held_out, validation.count)


def _by_rows(train: Data, pairs: tuple[tuple[np.ndarray, np.ndarray], ...]) -> Arranged:
    """The examples as they are, and the rows of every fold, filled up to the longest."""
    trained, valid = (_filled(rows) for rows in zip(*pairs, strict=True))
    counts = np.array([len(rows) for rows, _ in pairs])
    grids = np.array([permutation_grid(int(n)) for n in counts], np.uint32)
    rows = Rows(trained, counts.astype(np.int32), grids)
    held_out = tuple(len(rows) for _, rows in pairs)
    data = train.rows(slice(None))
    return Arranged(data, held_out, len(pairs), pairs, ByFold(rows, valid))


def _filled(several: tuple[np.ndarray, ...]) -> np.ndarray:
    longest = max(map(len, several))
    return np.stack([np.pad(rows, (0, longest - len(rows))) for rows in several])


def _stratified(order: np.ndarray, targets: np.ndarray, held_out: int, count: int) -> np.ndarray:
    """The shuffled order, rearranged: the first ``count`` runs hold all classes in proportion.

    Sorted by class, every stretch of consecutive places holds each class in proportion; dealt out
    evenly, so does every part. From a part with a spare example the most overrepresented class
    loses one.
    """
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise ValueError(
            f"stratified splits need class indices, got targets of shape {targets.shape} and dtype "
            f"{targets.dtype}"
        )
    classes = np.unique(targets, return_inverse=True)[1]
    by_class = order[np.argsort(classes[order], kind="stable")]
    n, sizes = len(order), np.bincount(classes)
    if count == 1:
        chosen = by_class[(np.arange(held_out) * n + n // 2) // held_out]
    else:
        parts = [by_class[fold::count] for fold in range(count)]
        for fold, part in enumerate(parts):
            if len(part) > held_out:
                excess = np.bincount(classes[part], minlength=len(sizes)) - sizes / count
                spare = np.argmax(classes[part] == excess.argmax())
                parts[fold] = np.delete(part, spare)
        chosen = np.concatenate(parts)
    return np.concatenate([chosen, np.setdiff1d(order, chosen)])


def _joined(validation: Data, train: Data) -> Data:
    """Validation examples, then training examples.

    Raises:
      ValueError: shapes, dtypes or scales differ.
    """
    columns: dict[str, np.ndarray] = {}
    for name in ("inputs", "targets"):
        first, second = (np.asarray(getattr(data, name)) for data in (validation, train))
        if first.shape[1:] != second.shape[1:] or first.dtype != second.dtype or not len(first):
            raise ValueError(
                f"the validation {name} have shape {first.shape} and dtype {first.dtype}, expected "
                f"at least one like the training {name}, {second.shape} and {second.dtype}"
            )
        columns[name] = np.concatenate([first, second])
    if np.any(np.asarray(validation.scale) != np.asarray(train.scale)):
        raise ValueError(
            f"the validation inputs have the scale {validation.scale}, expected {train.scale} as "
            "the training inputs"
        )
    if (weights := [data.weights for data in (validation, train)]) != [None, None]:
        several = zip((validation, train), weights, strict=True)
        known = [np.ones(len(data.targets)) if w is None else np.asarray(w) for data, w in several]
        columns["weights"] = np.concatenate(known)
    return train._replace(**columns)


def digest(data: Data) -> str:
    """A checksum of examples."""
    found = hashlib.sha256()
    for name, array in data._asdict().items():
        if name == "names" or array is None:
            continue
        array = np.ascontiguousarray(array)
        added = name if name in ("shift", "weights") else ""
        found.update(f"{added}{array.dtype} {array.shape}".encode())
        found.update(array.data if array.ndim else array.tobytes())
    return found.hexdigest()[:16]
