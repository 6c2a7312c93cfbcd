"""Checks of four arrays, which become a pair of training and test examples."""

from collections.abc import Mapping

import numpy as np

from jaxnn.types import Data, Splits

PARTS = ("train_images", "train_labels", "test_images", "test_labels")

MAX_CLASSES = 2**16
"""Labels from here on are taken for a mistake: a network would get a unit for every class."""


class DataError(ValueError):
    """Unusable data; the message names the found and the expected value in one line."""


class MissingDataError(DataError, FileNotFoundError):
    """Missing data; both a DataError and a FileNotFoundError."""


def make_splits(
    arrays: Mapping[str, np.ndarray],
    origin: object,
    *,
    scale: float | None = None,
    classes: int | None = None,
) -> Splits:
    """Checks four arrays: inputs [N, in] in uint8 or float32, targets [N] in int32; or DataError.

    Args:
      arrays: by the names of ``PARTS``; images [N, ...] of rank 2 or more, uint8, integers in
        0..255 or floats; labels [N], integers from 0.
      origin: the source of the arrays, for messages.
      scale: the network multiplies inputs by the scale; default 1/255 for integers, 1 for floats.
      classes: the labels of both splits must be exactly 0..classes-1; default: any from 0, test
        labels within the range of the training labels.
    """
    train, test = (_examples(arrays, origin, split, scale) for split in ("train", "test"))
    for verb, found, expected in (
        ("have", f"{test.inputs.shape[1]} values each", f"{train.inputs.shape[1]} values each"),
        ("become", test.inputs.dtype, train.inputs.dtype),
    ):
        if found != expected:
            images = f"test_images {verb} {found}, expected {expected} as train_images"
            raise DataError(f"{origin}: {images}")
    found, top = int(test.targets.max()), int(train.targets.max())
    if found > top:
        expected = f"0..{top}, the range of train_labels"
        raise DataError(f"{origin}: test_labels hold {found}, expected {expected}")
    for name, data in (("train_labels", train), ("test_labels", test)):
        labels = np.unique(data.targets).tolist()
        if classes is not None and labels != list(range(classes)):
            expected = f"exactly 0..{classes - 1}"
            raise DataError(f"{origin}: {name} holds the labels {labels}, expected {expected}")
    return Splits(train, test)


def _examples(
    arrays: Mapping[str, np.ndarray], origin: object, split: str, scale: float | None
) -> Data:
    images, labels = f"{split}_images", f"{split}_labels"
    inputs, natural_scale = _inputs(arrays[images], f"{origin}: {images}")
    targets = _targets(arrays[labels], f"{origin}: {labels}")
    if len(inputs) != len(targets):
        found = f"{images} holds {len(inputs)} examples and {labels} {len(targets)}"
        raise DataError(f"{origin}: {found}, expected equal numbers")
    # The data stay NumPy arrays, on the host, until training.
    return Data(inputs, targets, np.float32(natural_scale if scale is None else scale))


def _inputs(images: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """The images as rows, [N, in] in uint8 or float32, and the scale for the type."""
    if images.ndim < 2 or images.size == 0:
        expected = "[N, ...] with at least one example and one value in each"
        raise DataError(f"{name} has the shape {images.shape}, expected {expected}")
    rows = images.reshape(len(images), -1)
    if rows.dtype.kind == "f":
        return _finite(rows, name), 1.0
    if rows.dtype.kind not in "iu":
        raise DataError(f"{name} has the dtype {rows.dtype}, expected 8-bit integers or floats")
    if rows.dtype != np.uint8 and (rows.min() < 0 or rows.max() > 255):
        found = f"{rows.min()}..{rows.max()}"
        raise DataError(f"{name} holds integers in {found}, expected 0..255 or floats")
    return np.ascontiguousarray(rows, np.uint8), 1 / 255


def _finite(rows: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(rows, np.float32)
    # The extremes carry any NaN or infinity, without a temporary array of the data's size.
    if not (np.isfinite(narrow.min()) and np.isfinite(narrow.max())):
        example, position = np.argwhere(~np.isfinite(narrow))[0]
        found = f"{rows[example, position]} in example {example}"
        raise DataError(f"{name} holds {found}, expected finite float32 values")
    return narrow


def _targets(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.ndim != 1:
        raise DataError(f"{name} has the shape {labels.shape}, expected one label a example, [N]")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{name} has the dtype {labels.dtype}, expected integers")
    if labels.size == 0:
        raise DataError(f"{name} is empty, expected at least one label")
    for label in (labels.min(), labels.max()):
        if not 0 <= label < MAX_CLASSES:
            raise DataError(f"{name} holds {label}, expected class indices in 0..{MAX_CLASSES - 1}")
    return labels.astype(np.int32)
