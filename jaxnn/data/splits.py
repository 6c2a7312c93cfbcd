"""Checks of four arrays, which become a pair of training and test examples."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from jaxnn.files import printable
from jaxnn.losses import as_labels, class_count, one_hot_hint
from jaxnn.types import NAMES_HINT, Data, Splits, numbers

PARTS: tuple[str, ...] = ("train_images", "train_labels", "test_images", "test_labels")

_LARGEST_SCORE = 30
"""Floats up to here, such as standardised inputs, reach the network as they are."""


class DataError(ValueError):
    """Unusable data; the message names the found and the expected value in one line."""

    def __init__(self, message: object):
        """Makes the message printable: names of files and members are a stranger's."""
        super().__init__(printable(message))


class MissingDataError(DataError, FileNotFoundError):
    """Missing data; both a DataError and a FileNotFoundError."""


def expect(holds: object, found: str, expected: str) -> None:
    """Raises a DataError with what was found and what was expected, unless the condition holds."""
    if not holds:
        raise DataError(f"{found}, expected {expected}")


class Kind(NamedTuple):
    """The kind of numbers in images: what the choice of a scale needs to know."""

    low: float
    high: float
    whole: bool  # whether all are whole numbers, of any type
    bytes: bool  # whether they are images of 8-bit pixels, by type and rank
    scores: bool  # whether they are standardised: about the mean 0, with deviations of about 1


def make_splits(
    arrays: Mapping[str, np.ndarray],
    origin: object,
    *,
    scale: float | None = None,
    classes: int | None = None,
) -> Splits:
    """Checks four arrays: inputs [N, in] in uint8 or float32, targets [N] in int32; or DataError.

    Args:
      arrays: by the names of ``PARTS``; images [N, ...] of rank 2 or more, integers, booleans or
        floats; labels [N], [N, 1] or [1, N], whole numbers or booleans.
      origin: the source of the arrays, for messages.
      scale: the network multiplies inputs by the scale; default: ``natural_scale``.
      classes: the labels of both splits must be exactly 0..classes-1; default: the training labels
        are 0..C-1, every class with an example, and the test labels are among them.
    """
    try:
        (train, train_kind), (test, test_kind) = (
            _examples(arrays, origin, split) for split in ("train", "test")
        )
        width = train.inputs.shape[1]
        found = f"{origin}: test_images have {test.inputs.shape[1]} values each"
        expect(test.inputs.shape[1] == width, found, f"{width} as train_images")
        if scale is None:
            scale = natural_scale(origin, train_kind, test_kind)
        names = f"{origin}: train_labels", f"{origin}: test_labels"
        if classes is None:
            class_count(names[0], train.targets, names[1], test.targets)
        for name, data in zip(names, (train, test), strict=True):
            labels = np.unique(data.targets)
            found = f"{name} hold the labels {labels.tolist()}"
            exact = classes is None or np.array_equal(labels, range(classes))
            expect(exact, found, f"exactly 0..{(classes or 0) - 1}")
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from None
    dtype = np.result_type(train.inputs, test.inputs)
    # The data stay NumPy arrays, on the host, until training.
    return Splits(
        *(
            Data(
                data.inputs.astype(dtype, copy=False),
                data.targets.astype(np.int32),
                np.float32(scale),
            )
            for data in (train, test)
        )
    )


def _examples(arrays: Mapping[str, np.ndarray], origin: object, split: str) -> tuple[Data, Kind]:
    images, labels = f"{split}_images", f"{split}_labels"
    inputs, kind = _inputs(arrays[images], f"{origin}: {images}")
    targets = _targets(arrays[labels], f"{origin}: {labels}")
    found = f"{origin}: {images} hold {len(inputs)} examples and {labels} {len(targets)}"
    turned = len(targets) in arrays[images].shape
    hint = f": the axis of {len(targets)} examples comes first (np.moveaxis)" if turned else ""
    expect(len(inputs) == len(targets), found, f"equal numbers{hint}")
    return Data(inputs, targets), kind


def _inputs(images: np.ndarray, name: str) -> tuple[np.ndarray, Kind]:
    """The images as rows, [N, in] in uint8, or in float32 where bytes cannot hold the values."""
    expected = "[N, ...] with at least one example and one value in each"
    hint = ": images[:, None] for one value in each" if images.ndim == 1 else ""
    expect(
        images.ndim > 1 and images.size, f"{name} have the shape {images.shape}", expected + hint
    )
    if images.dtype.kind == "f":
        with np.errstate(over="ignore"):
            images = images.astype(np.float32, copy=False)
    rows, low, high = numbers(name, images.reshape(len(images), -1))
    is_integer = rows.dtype.kind in "iu"
    kind = Kind(
        low,
        high,
        is_integer or _all_whole(rows),
        images.dtype == np.uint8 and images.ndim > 2,
        max(-low, high) > _LARGEST_SCORE and _are_scores(rows),
    )
    fits = is_integer and low >= 0 and high <= 255
    return np.ascontiguousarray(rows, np.uint8 if fits else np.float32), kind


def _all_whole(rows: np.ndarray) -> bool:
    blocks = (rows[first : first + 1000] for first in range(0, len(rows), 1000))
    return all(bool((block == np.floor(block)).all()) for block in blocks)


def _are_scores(rows: np.ndarray) -> bool:
    return abs(rows.mean(dtype=float)) < 0.5 and rows.std(dtype=float) < 2


def _targets(labels: np.ndarray, name: str) -> np.ndarray:
    labels, _, _ = numbers(name, labels, NAMES_HINT)
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    found = f"{name} have the shape {labels.shape}"
    expect(labels.ndim == 1, found, f"one label an example, [N]{one_hot_hint(labels)}")
    expect(labels.size > 0, f"{name} are empty", "at least one label")
    return as_labels(name, labels)


def look_turned(train: Data, test: Data) -> bool:
    """Whether square test images look like training images that are turned or transposed.

    The mean of the test images correlates better with a turned mean of the training images than
    with the mean as it is. The mean has the classes in the proportions of the test set, because a
    single class may look turned.
    """
    side, step = math.isqrt(train.inputs.shape[1]), len(train.inputs) // 2000 + 1
    images, labels = train.inputs[::step], train.targets[::step]
    classes, counts = np.unique(test.targets, return_counts=True)
    known = bool(np.isin(classes, labels).all())
    if not known or side < 8 or side**2 != train.inputs.shape[1] or len(test.inputs) < 30:
        return False
    means = np.stack([images[labels == c].mean(axis=0) for c in classes])
    mean, found = (counts @ means).reshape(side, side), test.inputs.mean(axis=0)
    turned = [np.rot90(each, turns) for each in (mean, mean.T) for turns in range(4)]
    with np.errstate(invalid="ignore"):  # of a constant mean
        straight, *others = (np.corrcoef(each.ravel(), found)[0, 1] for each in turned)
    return bool(max(others) > max(0.9, straight + 0.05))


def natural_scale(origin: object, train: Kind, test: Kind) -> float:
    """The scale with which the inputs of both splits reach the network in about -1..1.

    1 for 0..1, -1..1 and standardised floats; 1/16 for whole numbers to 16; 1/255 for numbers to
    128..255, and for darker 8-bit images; 1/65535 for 16-bit images. Ranges decide, not types.

    Raises:
      DataError: a range of another kind, or splits in different ranges.
    """
    parts = train, test
    both = Kind(
        min(k.low for k in parts),
        max(k.high for k in parts),
        *map(all, zip(*(k[2:] for k in parts), strict=True)),
    )
    scale, *alone = map(_scale, (both, *parts))
    ranges = [f"{kind.low:g}..{kind.high:g}" for kind in parts]
    found = f"{origin}: train_images lie in {ranges[0]} and test_images in {ranges[1]}"
    one_range = "one range: divide both by the same number"
    expect(None in alone or len({*alone}) == 1, found, one_range)
    if scale is None:
        raise DataError(
            f"{found}, expected 0..1, 0..16 or 0..255 (whole numbers), 0..65535, or standardised "
            "columns: subtract the mean of a column of train_images and divide by its standard "
            "deviation, or divide by the largest value"
        )
    expect(8 * scale * min(kind.high for kind in parts) >= 1 or None not in alone, found, one_range)
    return scale


def _scale(kind: Kind) -> float | None:
    """The scale for a kind of numbers; None where several scales, or none, would do."""
    low, high, whole, is_bytes, are_scores = kind
    if low >= -1 and high <= 1:
        return 1.0
    if not whole and (are_scores or max(-low, high) <= _LARGEST_SCORE):
        return 1.0
    if low < 0:
        return None
    if whole and high <= 16:
        return 1 / 16
    if 128 <= high <= 255 or (is_bytes and high <= 255):
        return 1 / 255
    return 1 / 65535 if whole and 2**15 <= high < 2**16 else None
