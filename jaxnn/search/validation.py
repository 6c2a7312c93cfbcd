"""Which examples choose: a held-out part of the training examples, given ones, or folds.

All three become one layout: the examples in an order in which those that validate lie next to each
other. Fold f validates on the rows from ``f * held_out`` on and trains on the others, so a fold is
a number, and cross-validation one more axis of the population.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jaxnn.types import Data


@dataclass(frozen=True)
class Validation:
    """How validation examples are chosen; made by ``holdout``, ``given`` or ``folds``."""

    kind: str
    fraction: float = 0.0
    count: int = 1
    stratified: bool = False
    data: Data | None = None

    def describe(self) -> dict[str, Any]:
        """In JSON's types, as the record of a run has it."""
        described: dict[str, Any] = {"kind": self.kind}
        if self.kind == "holdout":
            described["fraction"] = self.fraction
        if self.kind == "folds":
            described["count"] = self.count
        if self.kind != "given":
            described["stratified"] = self.stratified
        return described


def holdout(fraction: float = 1 / 6, *, stratified: bool = False) -> Validation:
    """A random part of the training examples.

    Args:
      fraction: how large a part, above 0 and below 1.
      stratified: whether each class is represented as it is in the whole, to within one example.
    """
    if isinstance(fraction, bool) or not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction!r}, expected a number above 0 and below 1")
    return Validation("holdout", fraction=float(fraction), stratified=stratified)


def given(data: Data) -> Validation:
    """These examples; all training examples are trained on."""
    return Validation("given", data=data)


def folds(count: int = 5, *, stratified: bool = False) -> Validation:
    """Cross-validation: ``count`` disjoint parts of one size, each validating models of the rest.

    Where N is not a multiple of the count, the remainder (fewer than ``count`` examples) is trained
    on in every fold and validates none.

    Args:
      count: at least 2.
      stratified: whether each class is represented in each fold as it is in the whole, to within
        one example.
    """
    if isinstance(count, bool) or not hasattr(count, "__index__") or count < 2:
        raise ValueError(f"folds is {count!r}, expected a whole number of at least 2")
    return Validation("folds", count=int(count), stratified=stratified)


class Arranged(NamedTuple):
    """Examples in an order in which every fold's validation examples are neighbours."""

    data: Data
    held_out: int  # validation examples of a fold
    folds: int

    @property
    def trained_on(self) -> int:
        """The training examples of a fold."""
        return len(self.data.targets) - self.held_out


def arrange(validation: Validation, train: Data, seed: int) -> Arranged:
    """The examples laid out for a search.

    Args:
      validation: which of them validate.
      train: the training examples.
      seed: decides which examples are held out.

    Returns:
      NumPy arrays in an ``Arranged``.

    Raises:
      ValueError: nothing would be left to train or to validate on, given examples that do not fit
        the training examples, or stratification by targets that are not classes.
    """
    _check_examples("training", train)
    n = len(train.targets)
    if validation.data is not None:
        _check_examples("validation", validation.data)
        return Arranged(joined(validation.data, train), len(validation.data.targets), 1)
    if validation.kind == "folds":
        held_out = n // validation.count
        if held_out < 1:
            raise ValueError(f"folds is {validation.count}, expected at most the {n} examples")
    else:
        held_out = round(n * validation.fraction)
        if not 0 < held_out < n:
            raise ValueError(
                f"fraction is {validation.fraction:g} and holds out {held_out} of {n} examples, "
                "expected at least one to validate and one to train on"
            )
    order = np.random.default_rng([seed, 1]).permutation(n)
    if validation.stratified:
        order = _stratified(order, train, held_out, validation.count)
    inputs, targets = np.asarray(train.inputs)[order], np.asarray(train.targets)[order]
    return Arranged(Data(inputs, targets, train.scale), held_out, validation.count)


def _stratified(order: np.ndarray, train: Data, held_out: int, count: int) -> np.ndarray:
    """The shuffled order, rearranged so that the first ``count`` runs of it have all classes alike.

    Sorted by class, every stretch of consecutive places holds each class in proportion; dealt out
    evenly, so does every part.
    """
    targets = np.asarray(train.targets)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise ValueError(
            f"stratified splits need class indices, got targets of shape {targets.shape} and dtype "
            f"{targets.dtype}"
        )
    classes = np.unique(targets, return_inverse=True)[1]
    by_class = order[np.argsort(classes[order], kind="stable")]
    n = len(by_class)
    if count == 1:
        places = (np.arange(held_out) * n + n // 2) // held_out
        chosen = by_class[places]
    else:
        shares = np.bincount(classes) / count
        parts = [by_class[fold::count] for fold in range(count)]
        chosen = np.concatenate([_shortened(part, classes, shares, held_out) for part in parts])
    return np.concatenate([chosen, np.setdiff1d(order, chosen)])


def _shortened(
    part: np.ndarray, classes: np.ndarray, shares: np.ndarray, held_out: int
) -> np.ndarray:
    """A fold's examples; if one too many, without one of the class furthest above its share."""
    if len(part) == held_out:
        return part
    excess = np.bincount(classes[part], minlength=len(shares)) - shares
    return np.delete(part, np.flatnonzero(classes[part] == excess.argmax())[0])


def _check_examples(name: str, data: Data) -> None:
    inputs, targets = np.shape(data.inputs), np.shape(data.targets)
    if len(inputs) != 2 or not targets or inputs[0] != targets[0]:
        raise ValueError(
            f"the {name} examples have inputs {inputs} and targets {targets}, expected inputs "
            "[N, in] and N targets"
        )


def joined(validation: Data, train: Data) -> Data:
    """Validation examples, then training examples.

    Raises:
      ValueError: they do not fit each other.
    """
    pairs = {
        "inputs": (np.asarray(validation.inputs), np.asarray(train.inputs)),
        "targets": (np.asarray(validation.targets), np.asarray(train.targets)),
    }
    for name, (first, second) in pairs.items():
        if first.shape[1:] != second.shape[1:] or first.dtype != second.dtype or not len(first):
            raise ValueError(
                f"the validation {name} have shape {first.shape} and dtype {first.dtype}, expected "
                f"at least one like the training {name}, {second.shape} and {second.dtype}"
            )
    if np.any(np.asarray(validation.scale) != np.asarray(train.scale)):
        raise ValueError(
            f"the validation inputs have the scale {validation.scale}, expected {train.scale} as "
            "the training inputs"
        )
    inputs, targets = (np.concatenate(pair) for pair in pairs.values())
    return Data(inputs, targets, train.scale)
