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


def expect(holds: object, found: str, expected: str) -> None:
    """Raises a DataError with what was found and what was expected, unless the condition holds."""
    if not holds:
        raise DataError(f"{found}, expected {expected}")


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
    width, dtype = test.inputs.shape[1], test.inputs.dtype
    for same, found, expected in (
        (width == train.inputs.shape[1], f"have {width} values each", train.inputs.shape[1]),
        (dtype == train.inputs.dtype, f"become {dtype}", train.inputs.dtype),
    ):
        expect(same, f"{origin}: test_images {found}", f"{expected} as train_images")
    found, top = test.targets.max(), train.targets.max()
    expected = f"0..{top}, the range of train_labels"
    expect(found <= top, f"{origin}: test_labels hold {found}", expected)
    if classes is not None:
        for name, data in (("train_labels", train), ("test_labels", test)):
            labels = np.unique(data.targets)
            found = f"{origin}: {name} holds the labels {labels.tolist()}"
            expect(np.array_equal(labels, range(classes)), found, f"exactly 0..{classes - 1}")
    return Splits(train, test)


def _examples(
    arrays: Mapping[str, np.ndarray], origin: object, split: str, scale: float | None
) -> Data:
    images, labels = f"{split}_images", f"{split}_labels"
    inputs, natural_scale = _inputs(arrays[images], f"{origin}: {images}")
    targets = _targets(arrays[labels], f"{origin}: {labels}")
    found = f"{origin}: {images} holds {len(inputs)} examples and {labels} {len(targets)}"
    expect(len(inputs) == len(targets), found, "equal numbers")
    # The data stay NumPy arrays, on the host, until training.
    return Data(inputs, targets, np.float32(natural_scale if scale is None else scale))


def _inputs(images: np.ndarray, name: str) -> tuple[np.ndarray, float]:
    """The images as rows, [N, in] in uint8 or float32, and the scale for the type."""
    expected = "[N, ...] with at least one example and one value in each"
    expect(images.ndim > 1 and images.size, f"{name} has the shape {images.shape}", expected)
    rows = images.reshape(len(images), -1)
    if rows.dtype.kind == "f":
        return _finite(rows, name), 1.0
    expected = "8-bit integers or floats"
    expect(rows.dtype.kind in "iu", f"{name} has the dtype {rows.dtype}", expected)
    if rows.dtype != np.uint8:
        low, high = rows.min(), rows.max()
        found = f"{name} holds integers in {low}..{high}"
        expect(low >= 0 and high <= 255, found, "0..255 or floats")
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
    expected = "one label an example, [N]"
    expect(labels.ndim == 1, f"{name} has the shape {labels.shape}", expected)
    expect(labels.dtype.kind in "iu", f"{name} has the dtype {labels.dtype}", "integers")
    expect(labels.size > 0, f"{name} is empty", "at least one label")
    for label in (labels.min(), labels.max()):
        expected = f"class indices in 0..{MAX_CLASSES - 1}"
        expect(0 <= label < MAX_CLASSES, f"{name} holds {label}", expected)
    return labels.astype(np.int32)
