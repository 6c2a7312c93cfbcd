"""Data sets in the forms in which people have theirs: loaded right, or refused in one line.

The right values are 8-bit pixels, which a network sees as pixel / 255, and labels 0, 1 and 2.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxnn import Data, Splits
from jaxnn.data import DataError, load
from jaxnn.data.splits import look_turned, make_splits

N, M = 60, 30
Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    """60 and 30 images of 4 x 3 pixels, each from 0 to 255, and labels 0..2."""
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 256, (n, 4, 3)).astype(np.uint8) for n in (N, M)}
    for each in images.values():
        each[0, 0, :2] = 0, 255
    return {
        "train_images": images[N],
        "train_labels": (np.arange(N) % 3).astype(np.uint8),
        "test_images": images[M],
        "test_labels": (np.arange(M) % 3).astype(np.uint8),
    }


def images(change: Callable[[np.ndarray], np.ndarray], which: str = "") -> Callable:
    """The change of a data set that changes the images, of both splits or of one."""
    return _changed(change, f"{which}_images")


def labels(change: Callable[[np.ndarray], np.ndarray], which: str = "") -> Callable:
    """The change of a data set that changes the labels, of both splits or of one."""
    return _changed(change, f"{which}_labels")


def _changed(change: Callable, suffix: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {
        name: change(array) if name.endswith(suffix) else array for name, array in arrays.items()
    }


def put(place: Any, value: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        changed = array.astype(np.result_type(array, np.asarray(value)))
        changed[place] = value
        return changed

    return change


RIGHT = {
    "bytes": images(lambda x: x),
    "rows of bytes": images(lambda x: x.reshape(len(x), -1)),
    "one channel last": images(lambda x: x[..., None]),
    "one channel first": images(lambda x: x[:, None]),
    "flat test images": images(lambda x: x.reshape(len(x), -1), "test"),
    "Fortran order": images(np.asfortranarray),
    "64-bit integers": images(lambda x: x.astype(np.int64)),
    "16-bit integers, big-endian": images(lambda x: x.astype(">u2")),
    "16-bit pixels": images(lambda x: x.astype(np.uint16) * 257),
    "floats 0..255": images(lambda x: x.astype(np.float64)),
    "floats 0..255, training alone": images(lambda x: x.astype(np.float64), "train"),
    "floats 0..1": images(lambda x: x / 255),
    "floats 0..1, 32 bits": images(lambda x: (x / 255).astype(np.float32)),
    "floats 0..1, 16 bits": images(lambda x: (x / 255).astype(np.float16)),
    "floats 0..1, big-endian": images(lambda x: (x / 255).astype(">f4")),
    "a column of labels": labels(lambda y: y[:, None]),
    "a row of labels": labels(lambda y: y[None, :]),
    "a column of test labels": labels(lambda y: y[:, None], "test"),
    "labels in floats": labels(lambda y: y.astype(np.float64)),
    "labels in 64-bit integers": labels(lambda y: y.astype(np.int64)),
    "labels in big-endian integers": labels(lambda y: y.astype(">i4")),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_can_only_be_meant_one_way_is_taken_so(tmp_path, arrays, change):
    np.savez(tmp_path / "user.npz", **change(arrays))
    for data, part in zip(load(tmp_path / "user.npz"), ("train", "test"), strict=True):
        pixels, classes = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        seen = np.asarray(data.inputs, np.float64) * data.scale
        np.testing.assert_allclose(seen, pixels.reshape(len(pixels), -1) / 255, atol=3e-4)
        np.testing.assert_array_equal(data.targets, classes.astype(np.int32), strict=True)
        assert data.inputs.dtype in (np.uint8, np.float32)
        assert data.inputs.flags.c_contiguous
        assert np.asarray(data.scale).dtype == np.float32


def spread(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """Pixels as floats between two numbers."""
    return lambda x: low + (high - low) * (x / 255)


def standardised(x: np.ndarray) -> np.ndarray:
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    z[3, 1, 1] = 70.0  # a pixel that is seldom bright has large scores
    return z / z.std()


SEEN = {
    "binary bytes": (lambda x: (x > 127).astype(np.uint8), np.uint8, 1),
    "booleans": (lambda x: x > 127, np.uint8, 1),
    "whole floats 0 and 1": (lambda x: (x > 127).astype(float), np.float32, 1),
    "whole numbers 0..16": (lambda x: x // 16, np.uint8, 1 / 16),
    "whole floats 0..16": (lambda x: (x // 16).astype(float), np.float32, 1 / 16),
    "floats -1..1": (spread(-1, 1), np.float32, 1),
    "whole numbers -1..1": (lambda x: x.astype(int) // 128 * 2 - 1, np.float32, 1),
    "centimetres of irises": (spread(0.1, 7.9), np.float32, 1),
    "standardised": (lambda x: (x / 255 - 0.13) / 0.31, np.float32, 1),
    "standardised by column": (standardised, np.float32, 1),
    "dark 8-bit images": (lambda x: x // 4, np.uint8, 1 / 255),
    "bytes up to 200": (lambda x: np.minimum(x, 200), np.uint8, 1 / 255),
    "broken floats 0..255": (spread(0.0, 254.5), np.float32, 1 / 255),
    "whole numbers up to 128": (lambda x: np.minimum(x.astype(int), 128), np.uint8, 1 / 255),
    "16-bit pixels up to a half": (lambda x: x.astype(np.int32) * 200, np.float32, 1 / 65535),
}


@pytest.mark.parametrize(("change", "dtype", "scale"), SEEN.values(), ids=SEEN)
def test_the_range_decides_the_scale(tmp_path, arrays, change, dtype, scale):
    arrays = images(change)(arrays)
    np.savez(tmp_path / "user.npz", **arrays)
    for data, part in zip(load(tmp_path / "user.npz"), ("train", "test"), strict=True):
        expected = arrays[f"{part}_images"].reshape(len(data.targets), -1).astype(dtype)
        np.testing.assert_array_equal(data.inputs, expected, strict=True)
        np.testing.assert_array_equal(data.scale, np.float32(scale), strict=True)


def test_a_smaller_range_of_a_split_is_no_other_range(arrays):
    arrays["test_images"] = (arrays["test_images"] // 3).reshape(M, -1)  # 0..85, no images
    assert make_splits(arrays, "user").test.scale == np.float32(1 / 255)


RANGE = "standardised columns: subtract the mean"
ONE_RANGE = "expected one range: divide both by the same number"

BAD = {
    "small whole numbers": (images(lambda x: x.astype(int) // 3), rf"0\.\.85 and .*{RANGE}"),
    "centred bytes": (images(lambda x: (x.astype(int) - 128).astype(np.int8)), r"in -128\.\.127"),
    "whole numbers up to 1000": (images(lambda x: x.astype(int) * 4), rf"0\.\.1020 .*{RANGE}"),
    "more than 16 bits": (images(lambda x: x.astype(int) * 1000), r"in 0\.\.255000 .*divide by"),
    "broken floats 0..100": (images(spread(0, 100.5)), rf"in 0\.\.100\.5 and .*{RANGE}"),
    "floats 0..1680": (images(spread(0.3, 1680.5)), rf"in 0\.3\.\.1680\.5 and .*{RANGE}"),
    "a column 1000 times larger": (
        images(lambda x: x * np.array([1.1, 1.0, 1000.0]) - 40),
        rf"expected .*{RANGE}",
    ),
    "bytes, then floats 0..1": (
        images(lambda x: x / 255, "test"),
        rf"train_images lie in 0\.\.255 and test_images in 0\.\.1, {ONE_RANGE}",
    ),
    "floats 0..1, then 0..255": (
        lambda a: images(lambda x: x / 255, "train")(images(lambda x: x * 1.0, "test")(a)),
        rf"train_images lie in 0\.\.1 and test_images in 0\.\.255, {ONE_RANGE}",
    ),
    "bytes, then binary bytes": (images(lambda x: x // 128, "test"), rf"in 0\.\.1, {ONE_RANGE}"),
    "bytes, then 0..16": (images(lambda x: x // 16, "test"), rf"in 0\.\.15, {ONE_RANGE}"),
    "bytes, then 16 bits": (images(lambda x: x * 257.0, "test"), rf"\.\.65535, {ONE_RANGE}"),
    "bytes, then 0..20": (
        images(lambda x: (x // 12).reshape(M, -1), "test"),
        rf"in 0\.\.21, {ONE_RANGE}",
    ),
    "NaN": (images(put((3, 1, 0), np.nan)), r"train_images hold 1 value .* nan at \[3, 3\]"),
    "two infinities": (
        images(put(([5, 7], 0, 1), -np.inf), "test"),
        r"2 values .*-inf at \[5, 1\]",
    ),
    "too large for float32": (images(put((3, 1, 0), 1e300)), r"1 value .* inf at \[3, 3\]"),
    "examples last": (
        images(lambda x: np.moveaxis(x, 0, -1)),
        r"hold 4 examples and train_labels 60.*the axis of 60 examples comes first",
    ),
    "a number an example": (images(lambda x: x[:, 0, 0]), r"\(60,\).*images\[:, None\]"),
    "texts for images": (images(lambda x: x.astype(str)), "images hold .*, expected numbers"),
    "a huge label": (labels(put(2, 2**40), "train"), "train_labels hold 1099511627776, expected"),
    "one class": (labels(lambda y: y * 0), "hold the class 0 alone, expected at least 2 classes"),
    "a class of the test set alone": (
        labels(put(0, 3), "test"),
        "test_labels hold 3, a class without an example in .*train_labels",
    ),
    "a class between, of the test set alone": (
        labels(lambda y: np.where(y == 1, 2, y), "train"),
        "test_labels hold 1, a class without an example in .*train_labels",
    ),
    "NaN for a label": (labels(put(4, np.nan), "test"), r"test_labels hold 1 value .*nan at \[4\]"),
    "several labels at once": (
        labels(lambda y: np.tile([1, 1, 0], (len(y), 1))),
        "rows of several labels take a custom loss",
    ),
    "labels and more": (
        labels(lambda y: np.stack([y, y + 30], axis=1)),
        r"\(60, 2\), expected one",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_could_be_misunderstood_is_one_clear_line(tmp_path, arrays, change, message):
    path = tmp_path / "user.npz"
    np.savez(path, **change(arrays))
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def turned_test(examples: Splits, turn: Callable[[np.ndarray], np.ndarray]) -> Data:
    """The test examples, every image turned."""
    side = math.isqrt(examples.train.inputs.shape[1])
    images = map(turn, examples.test.inputs.reshape(-1, side, side))
    return examples.test._replace(inputs=np.stack([image.ravel() for image in images]))


@pytest.mark.parametrize("turn", [np.transpose, np.rot90])
def test_turned_test_images_are_loaded_with_a_warning(tmp_path, caplog, turn):
    digits = load("digits")
    for name, test in (("right", digits.test), ("turned", turned_test(digits, turn))):
        values = *digits.train[:2], *test[:2]
        names = "x_train", "y_train", "x_test", "y_test"
        np.savez(tmp_path / f"{name}.npz", **dict(zip(names, values, strict=True)))
        load(tmp_path / f"{name}.npz")
    (warning,) = caplog.messages
    assert warning.startswith(
        f"{tmp_path}/turned.npz: the test images look like turned or transposed"
    )


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
def test_few_images_of_few_classes_do_not_look_turned(request, name):
    examples = load(name, None if name == "digits" else request.getfixturevalue("real_data"))
    train, rng = examples.train, np.random.default_rng(1)
    train = train._replace(inputs=train.inputs[::30], targets=train.targets[::30])
    if name == "digits":
        train = examples.train
    right, turned = examples.test, turned_test(examples, np.transpose)
    noticed = 0
    for _ in range(100):
        classes = rng.choice(10, rng.integers(1, 11), replace=False)
        chosen = np.flatnonzero(np.isin(right.targets, classes))
        chosen = rng.choice(chosen, min(len(chosen), 100), replace=False)
        few, few_turned = (
            test._replace(inputs=test.inputs[chosen], targets=test.targets[chosen])
            for test in (right, turned)
        )
        assert not look_turned(train, few)
        noticed += look_turned(train, few_turned)
    assert noticed >= 90


def test_columns_of_a_table_do_not_look_turned():
    rng = np.random.default_rng(2)
    for _ in range(200):
        columns = Data(rng.normal(size=(200, 64)), rng.integers(0, 2, 200))
        assert not look_turned(columns, columns._replace(inputs=rng.normal(size=(200, 64))))
        constant = columns._replace(inputs=np.zeros((200, 64)))
        assert not look_turned(constant, constant)
