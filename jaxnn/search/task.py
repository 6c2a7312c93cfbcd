"""The task of a search: the examples, the training budget, the measure, the validation examples.

Held-out examples, given examples and folds share a layout: the validation examples of every fold
are neighbours. Fold f validates on the rows from ``f * held_out`` on and trains on all other rows,
so a fold is a number, and cross-validation an axis of the population.
"""

import hashlib
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnn.losses import as_labels, class_count
from jaxnn.mlp import MLP, by_name
from jaxnn.modules import Module, as_model, is_module, network
from jaxnn.optimizers import defaults
from jaxnn.search.space import BATCH_SIZE, SEARCH_OPTIMIZER, SpaceError
from jaxnn.spec import Spec, require_count
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
)

MEASURES = ("error", "loss")


@dataclass(frozen=True)
class Validation:
    """How validation examples are chosen; made by ``holdout``, ``given`` or ``folds``."""

    kind: str
    fraction: float = 0.0
    count: int = 1
    stratified: bool = False
    data: Data | None = None

    def describe(self) -> dict[str, Any]:
        """The choice in JSON's types, for the record of a run."""
        settings = {"holdout": ("fraction", "stratified"), "folds": ("count", "stratified")}
        return {name: getattr(self, name) for name in ("kind", *settings.get(self.kind, ()))}


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
      validation: ``holdout(fraction)``, ``folds(count)``, or the validation examples: ``Data`` or
        ``given(data)``.
      measure: the quantity to minimise on the validation examples: "error" (the share of wrong
        predictions) or "loss" (unregularised; cross-entropy in nats by default).
      model: for networks beyond MLPs: a module of Flax or Equinox, see ``jaxnn.modules``; or from
        the values of ``model_parameters`` to a ``Model`` or module, such as ``lambda width:
        Net(width)``; the function of a module may take ``rngs`` or ``key`` beside the values.
      model_parameters: the names in the space that belong to ``model`` and not to ``Spec`` or
        ``Hyper``.
    """

    train: Data
    test: Data | Callable[[], Data] | None = None
    epochs: int = 12
    evaluations_per_epoch: int = 1
    validation: Validation | Data = field(default_factory=holdout)
    measure: MeasureName = "error"
    model: Callable[..., Model] | Any = None
    model_parameters: tuple[str, ...] = ()

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
        by_name("measure", self.measure, dict.fromkeys(MEASURES))
        if isinstance(self.validation, Data):
            object.__setattr__(self, "validation", given(self.validation))
        if not isinstance(self.validation, Validation):
            raise TypeError(
                f"validation is {shown(self.validation)}, expected holdout(0.2), folds(5) or "
                "Data(inputs, targets)"
            )
        if self.model_parameters and self.model is None:
            raise ValueError("model_parameters are given, expected a model that takes them")
        self._check_examples()

    def _check_examples(self) -> None:
        """Makes arrays of all examples, and checks that labels name the classes of a network."""
        named = {"train": self.train, "validation": self.validation_split.data, "test": self.test}
        given_now = {
            n: data for n, data in named.items() if data is not None and not callable(data)
        }
        sets = dict(zip(given_now, checked_data([*given_now.items()]), strict=True))
        targets = [on_host(data.targets) for data in sets.values()]
        if all(t is not None and t.ndim == 1 and np.all(t == np.floor(t)) for t in targets):
            for name, data in sets.items():
                labels = as_labels(name, data.targets)
                sets[name] = data if labels is data.targets else data._replace(targets=labels)
            if self.model is None:
                known = [np.asarray(sets[n].targets) for n in ("train", "validation") if n in sets]
                others = sets["test"].targets if "test" in sets else ()
                names = "the train targets", "the test targets"
                class_count(names[0], np.concatenate(known), names[1], others)
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
        values = {"batch_size": BATCH_SIZE, "optimizer": SEARCH_OPTIMIZER, **static}
        names = ("batch_size", "optimizer", "loss", "schedule")
        training = {name: values.pop(name) for name in names if name in values}
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
        outputs = self.outputs
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
        """The number of classes; a network with the logistic loss has one output instead."""
        several = (data for data in (self.train, self.validation_split.data) if data is not None)
        targets = [np.asarray(data.targets) for data in several]
        return max(t.shape[1] if t.ndim > 1 else int(t.max()) + 1 for t in targets)


def recorded_task(described: Mapping[str, Any]) -> Task:
    """The task in the record of a search, without examples and model."""
    task, known = object.__new__(Task), {entry.name for entry in fields(Validation)}
    split = {n: v for n, v in described["validation"].items() if n in known}
    values = {**described, "validation": Validation(**split)}
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


def traced_values(spec: Spec, names: tuple[str, ...], configs: list[dict[str, Any]]) -> Any:
    """The traced hyperparameters of configurations that share a program.

    Args:
      spec: the program.
      names: the traced names of the space.
      configs: K configurations; the optimizer's default takes the place of a missing value.

    Returns:
      A NamedTuple of arrays [K], None for a field that the program does not read.
    """
    known = {"learning_rate": np.nan, "l2": 0.0, "clip": np.inf} | dict(defaults(spec.optimizer))
    if callable(spec.optimizer):
        known = dict.fromkeys(names) | known
    always = set(Hyper._fields) - {"clip"}
    dtype = jnp.result_type(float)
    columns = {
        name: np.array([config.get(name, default or 0.0) for config in configs], dtype)
        for name, default in known.items()
        if name in names or (name in always and default is not None)
    }
    fields = tuple(dict.fromkeys((*Hyper._fields, *columns)))
    return _hyper_class(fields)(**columns)


@lru_cache
def _hyper_class(fields: tuple[str, ...]) -> Any:
    """A NamedTuple of some fields, None by default."""
    return namedtuple("SearchedHyper", fields, defaults=[None] * len(fields))


class Arranged(NamedTuple):
    """Examples, ordered: the validation examples of every fold are neighbours."""

    data: Data
    held_out: int  # validation examples of a fold
    folds: int

    @property
    def trained_on(self) -> int:
        """The number of training examples of a fold."""
        return len(self.data.targets) - self.held_out

    @property
    def validated(self) -> np.ndarray:
        """The targets of the validation examples of all folds."""
        return self.data.targets[: self.held_out * self.folds]


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
    if validation.data is not None:
        return Arranged(_joined(validation.data, train), len(validation.data.targets), 1)
    n = len(train.targets)
    if validation.kind == "folds":
        held_out = n // validation.count
        fault = f"folds is {validation.count}, expected at most the {n} examples"
    else:
        held_out = round(n * validation.fraction)
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
