"""Arrays as found become a pair of training and test examples, or a message in one line."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnn.files import printable, short
from jaxnn.losses import are_few, are_one_hot, as_labels, class_count, one_hot_hint
from jaxnn.types import Data, Names, Splits, numbers, shown, standard

PARTS: tuple[str, ...] = ("train_images", "train_labels", "test_images", "test_labels")

_LARGEST_SCORE = 30
"""Floats up to here, such as standardised inputs, reach the network as they are."""


_WHOLE = re.compile(r"-?(0|[1-9]\d{0,8})")


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
    arrays: Mapping[str, Any],
    origin: object,
    *,
    names: Sequence[str] = (),
    scale: float | None = None,
    classes: int | None = None,
    regression: bool | None = None,
    flatten: bool = True,
    seed: int = 0,
    notes: list[str] | None = None,
) -> Splits:
    """Checks the arrays of a data set; inputs in uint8 or float32, targets in int32 or float32.

    Without test arrays, a fifth of the examples of every class becomes the test set. Inputs of
    tables, [N, in], in a range without a natural scale are standardised.

    Args:
      arrays: by the names of ``PARTS``; images [N, ...] of rank 2 or more, integers, booleans or
        floats; labels [N], [N, 1] or [1, N], numbers, booleans or texts; targets of a regression
        may be [N, K].
      origin: the source of the arrays, for messages.
      names: the names of the classes, if labels are positions among the names.
      scale: the network multiplies inputs by the scale; default: ``natural_scale``.
      classes: the labels of both splits must be exactly 0..classes-1; default: any labels; labels
        become 0..C-1 in their order, and test labels are among the training labels.
      regression: whether the targets are real numbers; default: the targets decide, as few whole
        numbers, or texts, are classes.
      flatten: whether inputs are rows [N, in]; else images are [N, H, W, C].
      seed: of the split without test arrays.
      notes: a list; decisions on behalf of the user are appended.

    Raises:
      DataError: unfit arrays; the message names the found and the expected values.
    """
    notes = [] if notes is None else notes
    names_of_parts = [part for part in ("train", "test") if f"{part}_images" in arrays]
    try:
        parts = [_part(arrays, name, origin, flatten) for name in names_of_parts]
        first, last = parts[0], parts[-1]
        _require_same_shape(first, last, origin)
        if scale is None:
            is_table = all(part.is_table for part in parts)
            scale = natural_scale(origin, first.kind, last.kind, must=not is_table)
        for part in parts:
            _require_classes(part, classes)
        targets, known = _as_targets(parts, names, regression, notes)
    except DataError:
        raise
    except ValueError as error:
        raise DataError(str(error)) from None
    dtype = np.result_type(first.inputs, last.inputs)
    # The data stay NumPy arrays, on the host, until training.
    pairs = [(p.inputs.astype(dtype, copy=False), y) for p, y in zip(parts, targets, strict=True)]
    if len(pairs) == 1:
        pairs = _divided(*pairs[0], seed, notes)
    factor = np.float32(1 if scale is None else scale)
    train, test = (Data(x, y, factor, names=known) for x, y in pairs)
    if scale is None:
        low, high = min(p.kind.low for p in parts), max(p.kind.high for p in parts)
        notes.append(f"every column of inputs, in {low:g}..{high:g}, is standardised")
        train, test = standardized(train, test)
        _require_same_unit(test, origin)
    return Splits(train, test)


class _Part(NamedTuple):
    """Examples as found: inputs fit for training, labels as numbers or texts."""

    inputs: np.ndarray
    kind: Kind
    labels: np.ndarray
    name: str  # of the labels, for messages
    is_table: bool


def _part(arrays: Mapping[str, Any], part: str, origin: object, flatten: bool) -> _Part:
    images, labels = f"{part}_images", f"{part}_labels"
    inputs, kind = _inputs(arrays[images], f"{origin}: {images}", flatten)
    targets = _labels(arrays[labels], f"{origin}: {labels}")
    found = f"{origin}: {images} hold {len(inputs)} examples and {labels} {len(targets)}"
    turned = len(targets) in arrays[images].shape
    hint = f": the axis of {len(targets)} examples comes first (np.moveaxis)" if turned else ""
    expect(len(inputs) == len(targets), found, f"equal numbers{hint}")
    return _Part(inputs, kind, targets, f"{origin}: {labels}", arrays[images].ndim == 2)


def _require_same_shape(first: _Part, last: _Part, origin: object) -> None:
    shapes = [part.inputs.shape[1:] for part in (first, last)]
    there, here = (" x ".join(map(str, shape)) for shape in shapes)
    found = f"{origin}: test_images have {here} values each"
    expect(shapes[0] == shapes[1], found, f"{there} as train_images")


def _require_classes(part: _Part, classes: int | None) -> None:
    """DataError unless the labels are exactly 0..classes-1, if so many are expected."""
    if classes is not None:
        found = np.unique(part.labels).tolist()
        exact = found == [*range(classes)]
        expect(exact, f"{part.name} hold the labels {found}", f"exactly 0..{classes - 1}")


def _divided(
    inputs: np.ndarray, targets: np.ndarray, seed: int, notes: list[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test examples."""
    chosen = _fifth(targets, seed)
    train, test = ((inputs[rows], targets[rows]) for rows in (~chosen, chosen))
    kind = "a stratified split" if targets.dtype.kind == "i" else "a split"
    sizes = f"{len(train[1])} training and {len(test[1])} test examples"
    notes.append(f"no test set: {sizes}, {kind} by seed {seed}")
    return [train, test]


def _fifth(targets: np.ndarray, seed: int) -> np.ndarray:
    """Which examples are test examples: a fifth of every class, of real targets a fifth of all.

    A class of two to four examples gives one, a class of a single example none.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    groups = targets if targets.dtype.kind == "i" else np.zeros(len(targets), np.int32)
    chosen = np.zeros(len(targets), bool)
    by_class = order[np.argsort(groups[order], kind="stable")]
    for rows in np.split(by_class, np.cumsum(np.bincount(groups))[:-1]):
        chosen[rows[: max(round(len(rows) / 5), len(rows) > 1)]] = True
    expect(chosen.any(), f"there are {len(targets)} examples", "2 of a class, one to test on")
    return chosen


def standardized(train: Data, *others: Data) -> tuple[Data, ...]:
    """Data of which a network sees standardised inputs, by the means and deviations of the first.

    z = (x - m) / s = x * scale + shift, m and s of every column of the training inputs alone; 1
    takes the place of s in a constant column. The stored inputs stay as they are.

    Args:
      train: inputs [N, ...]; the scale and the shift are replaced.
      *others: such as the test data, for the same scale and shift.

    Returns:
      The data in the same order; scale and shift are arrays of the shape of one example.

    Raises:
      DataError: no examples, or inputs of different shapes.

    Example:
      >>> import numpy as np
      >>> from jaxnn import Data
      >>> from jaxnn.data import standardized
      >>> (data,) = standardized(Data(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([0, 1])))
      >>> (data.inputs * data.scale + data.shift).tolist()
      [[-1.0, 0.0], [1.0, 0.0]]
    """
    inputs = np.asarray(train.inputs)
    expect(inputs.ndim > 1 and len(inputs), f"inputs of shape {inputs.shape}", "[N, ...], N > 0")
    for other in others:
        shape = np.shape(other.inputs)[1:]
        expect(shape == inputs.shape[1:], f"examples of shape {shape}", f"{inputs.shape[1:]}")
    found = standard(train._replace(scale=1.0, shift=None), np.arange(len(inputs)))
    seen = {n: x.astype(np.float32) for n, x in zip(("scale", "shift"), found, strict=True)}
    return tuple(data._replace(**seen) for data in (train, *others))


def _require_same_unit(test: Data, origin: object) -> None:
    """DataError if most columns of test inputs are far from the training inputs."""
    means = test.inputs.mean(axis=0, dtype=float) * test.scale + test.shift
    found = f"{origin}: the test inputs are {np.median(np.abs(means)):.3g} deviations off"
    expect(np.median(np.abs(means)) < 10, found, "test inputs in the unit of the training inputs")


def _inputs(images: Any, name: str, flatten: bool = True) -> tuple[np.ndarray, Kind]:
    """The images as rows, [N, in] in uint8, or in float32 where bytes cannot hold the values."""
    expected = "[N, ...] with at least one example and one value in each"
    hint = ": images[:, None] for one value in each" if images.ndim == 1 else ""
    expect(
        images.ndim > 1 and images.size, f"{name} have the shape {images.shape}", expected + hint
    )
    if not flatten:
        images = _channels_last(images)
    shape = images.shape
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
    rows = np.ascontiguousarray(rows, np.uint8 if fits else np.float32)
    return rows if flatten else rows.reshape(shape), kind


def _channels_last(images: np.ndarray) -> np.ndarray:
    """Images [N, H, W] and [N, C, H, W] as [N, H, W, C]; other arrays as they are."""
    if images.ndim == 3:
        return images[..., None]
    first = images.ndim == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] not in (1, 3, 4)
    return np.moveaxis(images, 1, -1) if first else images


def _all_whole(rows: np.ndarray) -> bool:
    blocks = (rows[first : first + 1000] for first in range(0, len(rows), 1000))
    return all(bool((block == np.floor(block)).all()) for block in blocks)


def _are_scores(rows: np.ndarray) -> bool:
    return abs(rows.mean(dtype=float)) < 0.5 and rows.std(dtype=float) < 2


def _labels(labels: Any, name: str) -> np.ndarray:
    """Labels as finite numbers, [N] or [N, K], or as texts, objects [N]."""
    array = labels if np.ma.is_masked(labels) else np.asarray(labels)
    if array.dtype == object and all(isinstance(v, int | float | np.number) for v in array.flat):
        array = np.asarray(array.tolist())  # such as of a data frame of several types
    if array.dtype.kind in "OUS" and array.size:
        array = _texts(array, name)
    if array.dtype.kind != "O":
        array = np.asarray(numbers(name, array)[0])
    if array.ndim == 2 and 1 in array.shape:
        array = array.ravel()
    expect(array.ndim in (1, 2), f"{name} have the shape {array.shape}", "one label an example")
    expect(array.size > 0, f"{name} are empty", "at least one label")
    return array


def _texts(labels: np.ndarray, name: str) -> np.ndarray:
    """Texts without blanks around them; whole numbers, if all texts are whole numbers."""
    texts = [t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in labels.flat]
    for text in texts:
        expect(isinstance(text, str), f"{name} hold {shown(text)}", "numbers or texts alone")
    texts = [text.strip() for text in texts]
    blank = sum(text in ("", "?") for text in texts)
    expect(not blank, f"{name}: {blank} of {len(texts)} labels are missing", "a label an example")
    if all(_WHOLE.fullmatch(text) for text in {*texts}):
        return np.array([*map(int, texts)]).reshape(labels.shape)
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(labels.shape)


def _as_targets(
    parts: Sequence[_Part], names: Sequence[str], regression: bool | None, notes: list[str]
) -> tuple[list[np.ndarray], Names]:
    """Targets of every part: class indices with the names of the classes, or real numbers."""
    labels = parts[0].labels
    if regression is None and not names and _are_real(labels):
        low, high = labels.min(), labels.max()
        notes.append(f"a regression: the targets are numbers from {low:g} to {high:g}")
        regression = True
    if regression:
        return [_real(part, parts[0]) for part in parts], Names()
    if are_one_hot(labels):
        notes.append("the labels are one-hot rows: the classes are the places of the ones")
    found = [_classes(part) for part in parts]
    known = sorted({*found[0]})
    expect(len(known) > 1, f"{parts[0].name} hold the class {known[0]} alone", "at least 2 classes")
    for part, values in zip(parts, found, strict=True):
        unseen = sorted({*values}.difference(known), key=str)
        where = f"a class without an example in {parts[0].name}"
        wrong = f"{part.name} hold {[*unseen, ''][0]}, {where}"
        expect(not unseen, wrong, "classes of the training examples alone")
    place = {label: i for i, label in enumerate(known)}
    targets = [np.array([place[label] for label in values], np.int32) for values in found]
    class_count(parts[0].name, targets[0])
    return targets, _class_names(known, names, parts[0].name, notes)


def _real(part: _Part, first: _Part) -> np.ndarray:
    """The targets of a regression."""
    found = f"{part.name} hold {shown(part.labels.flat[0])}"
    expect(part.labels.dtype != object, found, "real numbers for a regression")
    here, there = part.labels.shape[1:], first.labels.shape[1:]
    expect(
        here == there, f"{part.name} have {here} values each", f"{there} as the training targets"
    )
    return part.labels.astype(np.float32)


def _classes(part: _Part) -> list[Any]:
    """The labels [N], whole numbers or texts; of one-hot rows the places of the ones."""
    if are_one_hot(part.labels):
        return part.labels.argmax(axis=1).tolist()
    expected = f"one label an example, [N]{one_hot_hint(part.labels)}"
    expect(part.labels.ndim == 1, f"{part.name} have the shape {part.labels.shape}", expected)
    if part.labels.dtype == object:
        return part.labels.tolist()
    return as_labels(part.name, part.labels).tolist()


def _class_names(
    known: Sequence[Any], names: Sequence[str], origin: str, notes: list[str]
) -> Names:
    """The names of the classes: none for 0..C-1, unless the labels are positions among names."""
    if names:
        inside = 0 <= known[0] <= known[-1] < len(names)
        expect(inside, f"{origin} hold {known[0]}..{known[-1]}", f"0..{len(names) - 1}")
        return Names(names[label] for label in known)
    if known == [*range(len(known))]:
        return Names()
    notes.append(f"{len(known)} classes: {short(', '.join(map(str, known)), 100)}")
    return Names(map(str, known))


def _are_real(labels: np.ndarray) -> bool:
    """Whether labels are the targets of a regression: broken, or many whole numbers."""
    if labels.dtype == object:
        return False
    whole = labels.dtype.kind in "iu" or bool((labels == np.floor(labels)).all())
    if labels.ndim == 2:
        return not whole and not np.allclose(labels.sum(axis=1), 1)
    return not (whole and are_few(len(np.unique(labels)), len(labels)))


def look_turned(train: Data, test: Data) -> bool:
    """Whether square test images look like training images that are turned or transposed.

    The mean of the test images correlates better with a turned mean of the training images than
    with the mean as it is. The mean has the classes in the proportions of the test set, because a
    single class may look turned.
    """
    rows, others = (each.inputs.reshape(len(each.inputs), -1) for each in (train, test))
    side, step = math.isqrt(rows.shape[1]), len(rows) // 2000 + 1
    images, labels = rows[::step], train.targets[::step]
    classes, counts = np.unique(test.targets, return_counts=True)
    known = bool(np.isin(classes, labels).all())
    if not known or side < 8 or side**2 != rows.shape[1] or len(others) < 30:
        return False
    means = np.stack([images[labels == c].mean(axis=0) for c in classes])
    mean, found = (counts @ means).reshape(side, side), others.mean(axis=0)
    turned = [np.rot90(each, turns) for each in (mean, mean.T) for turns in range(4)]
    with np.errstate(invalid="ignore"):  # of a constant mean
        straight, *others = (np.corrcoef(each.ravel(), found)[0, 1] for each in turned)
    return bool(max(others) > max(0.9, straight + 0.05))


def natural_scale(origin: object, train: Kind, test: Kind, *, must: bool = True) -> float | None:
    """The scale with which the inputs of both splits reach the network in about -1..1.

    1 for 0..1, -1..1 and standardised floats; 1/16 for whole numbers to 16; 1/255 for numbers to
    128..255, and for darker 8-bit images; 1/65535 for 16-bit images. Ranges decide, not types.

    Raises:
      DataError: a range of another kind, unless a scale need not be; or splits in different ranges.
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
    if scale is None and not must:
        return None
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
