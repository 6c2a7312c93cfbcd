"""Four arrays become a checked pair of training and test examples."""

from collections.abc import Mapping
from typing import cast

import numpy as np

from jaxnn.data.errors import DataError
from jaxnn.types import Array, Data, Splits

PARTS = ("train_images", "train_labels", "test_images", "test_labels")

MAX_CLASSES = 2**16
"""Labels from here on are taken for a mistake: a network would get a unit for each."""


def make_splits(
    arrays: Mapping[str, np.ndarray],
    origin: object,
    *,
    scale: float | None = None,
    classes: int | None = None,
) -> Splits:
    """Checks the four arrays and lays them out for training.

    Args:
      arrays: by the names of ``PARTS``; images [N, ...] of rank 2 or more, uint8, integers in
        0..255 or floats; labels [N], integers from 0.
      origin: where they come from, for messages.
      scale: what the network multiplies inputs by; default 1/255 for integers, 1 for floats.
      classes: the labels of each split must be exactly 0..classes-1; default: any from 0, those of
        the test examples within the range of the training examples.

    Returns:
      NumPy arrays: inputs [N, in] in uint8 or float32, targets [N] in int32.

    Raises:
      DataError: the first thing that is wrong.
    """
    train = _examples(arrays, f"{origin}: train", scale)
    test = _examples(arrays, f"{origin}: test", scale)
    (_, width), (_, test_width) = train.inputs.shape, test.inputs.shape
    if width != test_width:
        raise DataError(
            f"{origin}: test_images have {test_width} values each, expected {width} as in "
            "train_images"
        )
    if train.inputs.dtype != test.inputs.dtype:
        raise DataError(
            f"{origin}: test_images become {test.inputs.dtype}, expected {train.inputs.dtype} as "
            "train_images"
        )
    highest, top = int(test.targets.max()), int(train.targets.max())
    if highest > top:
        raise DataError(
            f"{origin}: test_labels hold {highest}, expected 0..{top}, the range of train_labels"
        )
    if classes is not None:
        _check_classes(train, f"{origin}: train_labels", classes)
        _check_classes(test, f"{origin}: test_labels", classes)
    return Splits(train, test)


def _examples(arrays: Mapping[str, np.ndarray], split: str, scale: float | None) -> Data:
    part = split.rpartition(" ")[2]
    inputs, natural_scale = _inputs(arrays[f"{part}_images"], f"{split}_images")
    targets = _targets(arrays[f"{part}_labels"], f"{split}_labels")
    if len(inputs) != len(targets):
        raise DataError(
            f"{split}_images holds {len(inputs)} examples and {part}_labels {len(targets)}, "
            "expected as many of each"
        )
    # jax takes NumPy arrays wherever it takes its own; these stay on the host until training.
    return Data(
        cast(Array, inputs),
        cast(Array, targets),
        np.float32(natural_scale if scale is None else scale),
    )


def _inputs(images: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """The images as rows, [N, in] in uint8 or float32, and the scale that suits their type."""
    if images.ndim < 2 or images.size == 0:
        raise DataError(
            f"{name} has the shape {images.shape}, expected [N, ...] with at least one example and "
            "one value in each"
        )
    rows = images.reshape(len(images), -1)
    if rows.dtype.kind == "f":
        return _finite(rows, name), 1.0
    if rows.dtype.kind not in "iu":
        raise DataError(f"{name} has the dtype {rows.dtype}, expected 8-bit integers or floats")
    if rows.dtype != np.uint8 and (rows.min() < 0 or rows.max() > 255):
        raise DataError(
            f"{name} holds integers in {rows.min()}..{rows.max()}, expected 0..255 or floats"
        )
    return np.ascontiguousarray(rows, np.uint8), 1 / 255


def _finite(rows: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(rows, np.float32)
    # The extremes carry any NaN or infinity, without a temporary array of the data's size.
    if not (np.isfinite(narrow.min()) and np.isfinite(narrow.max())):
        example, position = np.argwhere(~np.isfinite(narrow))[0]
        raise DataError(
            f"{name} holds {rows[example, position]} in example {example}, expected finite float32 "
            "values"
        )
    return narrow


def _targets(labels: np.ndarray, name: str) -> np.ndarray:
    if labels.ndim != 1:
        raise DataError(f"{name} has the shape {labels.shape}, expected one label a example, [N]")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{name} has the dtype {labels.dtype}, expected integers")
    if labels.size == 0:
        raise DataError(f"{name} is empty, expected at least one label")
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= MAX_CLASSES:
        wrong = lowest if lowest < 0 else highest
        raise DataError(f"{name} holds {wrong}, expected class indices in 0..{MAX_CLASSES - 1}")
    return labels.astype(np.int32)


def _check_classes(data: Data, name: str, classes: int) -> None:
    found = np.unique(data.targets).tolist()
    if found != list(range(classes)):
        raise DataError(f"{name} holds the labels {found}, expected exactly 0..{classes - 1}")
