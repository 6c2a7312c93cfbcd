"""Generators of a claim's inputs: random arrays of symbolic sizes, and awkward values.

A generator has a kind of numbers and a shape. A size is a fixed number or a name (``"n"``); equal
names are equal sizes everywhere in a claim. NumPy draws in float64; the leading axis is the trials.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxnn.types import PyTree

Size = str | int
Sizes = Mapping[str, int]
"""The number for every symbolic size."""

REAL_KINDS = ("real", "positive", "simplex")
"""Kinds with continuous values; the remaining kinds are whole numbers or labels."""


@dataclass(frozen=True)
class Input:
    """A generator of one array; made by ``real``, ``positive``, ``simplex``, ..."""

    kind: str
    shape: tuple[Size, ...] = ()
    classes: Size | None = None  # label: the number of classes
    axis: int = -1  # simplex, one_hot: the axis of the classes

    def __post_init__(self):
        for size in (*self.shape, *(() if self.classes is None else (self.classes,))):
            named = isinstance(size, str) and size.isidentifier()
            counted = isinstance(size, int) and not isinstance(size, bool) and size >= 1
            if not (named or counted):
                raise ValueError(
                    f"a size is {size!r}, expected a name such as 'n', or a number from 1"
                )
        if self.kind in ("simplex", "one_hot") and not (
            -len(self.shape) <= self.axis < len(self.shape)
        ):
            raise ValueError(
                f"{self.kind} has shape {self.shape} and classes along axis {self.axis}, "
                "expected at least one size, and one of its axes"
            )

    def resolve(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape in numbers."""
        return tuple(_number(size, sizes) for size in self.shape)


def real(*shape: Size) -> Input:
    """Any real numbers: ``real("out", "in")`` is a matrix, ``real()`` a scalar."""
    return Input("real", shape)


def scalar() -> Input:
    """One real number."""
    return Input("real")


def matrix(rows: Size, columns: Size) -> Input:
    """A matrix of real numbers."""
    return Input("real", (rows, columns))


def positive(*shape: Size) -> Input:
    """Real numbers above zero, such as a strength or a learning rate."""
    return Input("positive", shape)


def simplex(*shape: Size, axis: int = -1) -> Input:
    """Probability vectors along an axis: y_i >= 0 with sum_i y_i = 1."""
    return Input("simplex", shape, axis=axis)


def one_hot(*shape: Size, axis: int = -1) -> Input:
    """Vectors along an axis with a single 1 and zeros."""
    return Input("one_hot", shape, axis=axis)


def label(*sizes: Size) -> Input:
    """Class indices: ``label("C")`` is from 0 to C-1, ``label("B", "C")`` has shape [B]."""
    if not sizes:
        raise ValueError('label got no size, expected the number of classes, such as label("C")')
    return Input("label", sizes[:-1], classes=sizes[-1])


def binary(*shape: Size) -> Input:
    """Numbers that are 0 or 1."""
    return Input("binary", shape)


def is_input(value: object) -> bool:
    """Whether a value is a generator: a leaf of the tree of inputs."""
    return isinstance(value, Input)


def leaves(inputs: PyTree) -> list[Input]:
    """The generators in the order of the tree's leaves."""
    return jax.tree.leaves(inputs, is_leaf=is_input)


def symbols(inputs: PyTree) -> tuple[str, ...]:
    """The names of the symbolic sizes, in order of first appearance."""
    sizes = [s for leaf in leaves(inputs) for s in (*leaf.shape, leaf.classes)]
    return tuple(dict.fromkeys(size for size in sizes if isinstance(size, str)))


def fixed_sizes(inputs: PyTree) -> frozenset[int]:
    """The sizes given as numbers."""
    sizes = [s for leaf in leaves(inputs) for s in (*leaf.shape, leaf.classes)]
    return frozenset(size for size in sizes if isinstance(size, int))


def draw_sizes(inputs: PyTree, seed: int) -> dict[str, int]:
    """Distinct sizes from 3, without the claim's fixed sizes.

    A size of 1 hides a missing 1/n, equal sizes hide a transpose. Seeds rotate the sizes, so that
    few programs are compiled.
    """
    names = symbols(inputs)
    taken = fixed_sizes(inputs)
    pool = [size for size in range(3, 3 + len(names) + len(taken) + 1) if size not in taken]
    shift = seed % len(pool)
    return dict(zip(names, pool[shift:] + pool[:shift], strict=False))


def larger_sizes(inputs: PyTree, seed: int) -> dict[str, int]:
    """Distinct sizes larger than those of ``draw_sizes``."""
    names = symbols(inputs)
    pool = [size for size in (7, 11, 9, 13, 8, 12, 10, 14) if size not in fixed_sizes(inputs)]
    pool = [*pool, *range(15, 15 + len(names))][: max(2, len(names))]
    shift = seed % len(pool)
    return dict(zip(names, pool[shift:] + pool[:shift], strict=False))


SPREADS = (0.3, 1.0, 3.0)
"""Standard deviations of the real numbers, drawn for each trial."""


def draw(
    inputs: PyTree,
    sizes: Sizes,
    trials: int,
    rng: np.random.Generator,
    spreads: Sequence[float] = SPREADS,
) -> PyTree:
    """Random values of every input, float64 (labels int64), with a leading axis of trials.

    Real numbers are normal with a standard deviation from ``spreads``, positive numbers log-normal
    around 1 / 2; a simplex is a softmax of normal numbers.
    """
    return jax.tree.map(
        lambda leaf: _draw_leaf(leaf, sizes, trials, rng, spreads), inputs, is_leaf=is_input
    )


def _draw_leaf(
    leaf: Input,
    sizes: Sizes,
    trials: int,
    rng: np.random.Generator,
    spreads: Sequence[float] = SPREADS,
) -> np.ndarray:
    shape = (trials, *leaf.resolve(sizes))
    if leaf.kind in ("real", "simplex"):
        spread = rng.choice(spreads, size=(trials, *[1] * len(leaf.shape)))
        values = rng.normal(size=shape) * spread
        return values if leaf.kind == "real" else _softmax(values, _trial_axis(leaf))
    if leaf.kind == "positive":
        return 0.5 * np.exp(0.7 * rng.normal(size=shape))
    if leaf.kind == "one_hot":
        axis = _trial_axis(leaf)
        index = np.argmax(rng.random(shape), axis=axis)
        return np.moveaxis(np.eye(shape[axis])[index], -1, axis)
    if leaf.kind == "label":
        return rng.integers(_number(leaf.classes, sizes), size=shape)
    return rng.integers(2, size=shape).astype(float)


def adversarial(inputs: PyTree, sizes: Sizes, rng: np.random.Generator) -> PyTree:
    """The awkward values, with a leading axis of trials.

    Every pattern fills all continuous inputs at once, then each continuous input alone among
    ordinary numbers with a single decimal; integers contribute the lowest, middle and highest value
    in turn. Small whole numbers at random and numbers of a few hundred come last.

    Args:
      inputs: the tree of generators.
      sizes: the number for every symbolic size.
      rng: for the ordinary numbers.

    Returns:
      Arrays as ``draw`` gives them.
    """
    generators, structure = jax.tree.flatten(inputs, is_leaf=is_input)
    varied = [i for i, leaf in enumerate(generators) if leaf.kind in ("real", "simplex")]
    together = [None] if len(varied) != 1 else []
    trials: list[list[np.ndarray]] = []
    for alone in (*together, *varied):
        for number, pattern in enumerate(PATTERNS):
            trials.append(
                [
                    _pattern(leaf, sizes, pattern, number)
                    if alone in (None, i) or i not in varied
                    else _ordinary(leaf, sizes, rng)
                    for i, leaf in enumerate(generators)
                ]
            )
    whole_numbers = jax.tree.leaves(simple(inputs, sizes, WHOLE_NUMBERS, rng))
    wide = jax.tree.leaves(draw(inputs, sizes, len(WIDE), rng, spreads=WIDE))
    columns = [
        np.concatenate([np.stack([trial[i] for trial in trials]), whole_numbers[i], wide[i]])
        for i in range(len(generators))
    ]
    return jax.tree.unflatten(structure, columns)


WHOLE_NUMBERS = 8
"""Awkward trials of small whole numbers, whose sums and differences have ties and zeros."""

WIDE = (20.0, 60.0, 200.0, 600.0, 2000.0)
"""Standard deviations between those of ordinary trials and 1e4."""

PATTERNS: dict[str, Any] = {
    "zeros": lambda n: np.zeros(n),
    "all equal": lambda n: np.ones(n),
    "tie": lambda n: np.where(np.arange(n) < 2, 2.0, -1.0),
    "one dominant": lambda n: np.where(np.arange(n) == 0, 37.4, 1.0 - np.arange(n)),
    "last dominant": lambda n: np.where(np.arange(n) == n - 1, 50.0, 0.5 * np.arange(n)),
    "+-1e4": lambda n: np.where(np.arange(n) % 2 == 0, 1e4, -1e4),
    "all -1e4": lambda n: -1e4 - np.arange(n),
    "saturated": lambda n: np.where(np.arange(n) % 2 == 0, 40.0, -40.0),
    "saturated below": lambda n: -800.0 + np.arange(n) % 3,
    "huge": lambda n: 1e12 * (1.0 + np.arange(n)) * (-1.0) ** np.arange(n),
    "tiny": lambda n: 1e-12 * (1.0 + np.arange(n)) * (-1.0) ** np.arange(n),
}
"""Every pattern as the n numbers of a flat array."""


def _pattern(leaf: Input, sizes: Sizes, pattern: str, number: int) -> np.ndarray:
    shape = leaf.resolve(sizes)
    if leaf.kind == "real":
        return PATTERNS[pattern](int(np.prod(shape, dtype=int))).reshape(shape)
    if leaf.kind == "positive":
        return np.full(shape, [0.5, 1.0, 1e-12, 1e4, 1e-3, 1e12][number % 6])
    if leaf.kind == "binary":
        return np.full(shape, [0.0, 1.0][number % 2])
    classes = _number(leaf.classes, sizes) if leaf.kind == "label" else shape[leaf.axis]
    corner = [0, classes - 1, classes // 2][number % 3]
    if leaf.kind == "label":
        return np.full(shape, corner)
    vector = np.eye(classes)[corner]
    if leaf.kind == "simplex" and number % 2:
        vector = np.full(classes, 1.0 / classes)
    rest = [size for axis, size in enumerate(shape) if axis != leaf.axis % len(shape)]
    return np.moveaxis(np.broadcast_to(vector, (*rest, classes)), -1, leaf.axis)


def _ordinary(leaf: Input, sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
    """One trial of short decimals."""
    values = _draw_leaf(leaf, sizes, 1, rng)[0]
    if leaf.kind == "simplex":
        return _shortened(values, leaf.axis)
    return np.round(values, 1) + 0.0 if leaf.kind == "real" else values


def _shortened(p: np.ndarray, axis: int) -> np.ndarray:
    """Probabilities rounded to hundredths; the largest absorbs the rounding."""
    p = np.moveaxis(np.round(p, 2), axis, -1)
    largest = np.argmax(p, axis=-1)[..., None]
    rest = p.sum(axis=-1, keepdims=True) - np.take_along_axis(p, largest, -1)
    np.put_along_axis(p, largest, np.round(1.0 - rest, 2), -1)
    return np.moveaxis(p, -1, axis)


def simple(inputs: PyTree, sizes: Sizes, trials: int, rng: np.random.Generator) -> PyTree:
    """Random values for counterexamples, easy to read: small whole numbers and halves."""

    def leaf_values(leaf: Input) -> np.ndarray:
        shape = (trials, *leaf.resolve(sizes))
        if leaf.kind == "real":
            return rng.choice([0.0, 1.0, -1.0, 2.0, 0.5], p=[0.3, 0.3, 0.15, 0.15, 0.1], size=shape)
        if leaf.kind == "positive":
            return rng.choice([1.0, 0.5, 2.0], size=shape)
        if leaf.kind == "simplex":
            return _shortened(_draw_leaf(leaf, sizes, trials, rng), _trial_axis(leaf))
        return _draw_leaf(leaf, sizes, trials, rng)

    return jax.tree.map(leaf_values, inputs, is_leaf=is_input)


SHORTENED = 100
"""Larger arrays are shortened as a whole, not entry by entry."""


def simpler(leaf: Input, value: np.ndarray) -> Iterator[np.ndarray]:
    """Values of an input that are easier to read, changed as a whole or at a single entry.

    As a whole: all zeros, all ones, fewer decimals. A single entry: 0, 1, or fewer decimals. A
    simplex puts the mass on a single class.
    """
    if leaf.kind in ("real", "positive"):
        least = () if leaf.kind == "positive" else (0.0,)
        wholes = [np.full_like(value, v) for v in (*least, 1.0)]
        wholes += [np.round(value, decimals) for decimals in (0, 1)]
        for candidate in wholes:
            if leaf.kind == "real" or np.all(candidate > 0):
                yield candidate
        for index in np.ndindex(value.shape) if value.size <= SHORTENED else ():
            for short in (
                *least,
                1.0,
                *(np.round(value[index], decimals) for decimals in range(4)),
            ):
                if leaf.kind == "real" or short > 0:
                    candidate = np.array(value)
                    candidate[index] = short
                    yield candidate
    elif leaf.kind == "simplex":
        for index in range(value.shape[leaf.axis]):
            corner = np.zeros_like(value)
            np.moveaxis(corner, leaf.axis, -1)[..., index] = 1.0
            yield corner
        yield _shortened(value, leaf.axis)
    elif leaf.kind in ("label", "binary"):
        yield np.zeros_like(value)


def _number(size: Size | None, sizes: Sizes) -> int:
    return size if isinstance(size, int) else sizes[str(size)]


def _trial_axis(leaf: Input) -> int:
    """The axis of the classes behind a leading axis of trials."""
    return leaf.axis % len(leaf.shape) + 1


def _softmax(values: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(values - values.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)
