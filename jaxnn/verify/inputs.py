"""Generators of a claim's inputs: random arrays of symbolic sizes, and awkward values.

A generator has a kind of numbers and a shape. A size is a fixed number or a name (``"n"``); equal
names are equal sizes everywhere in a claim. NumPy draws in float64; the leading axis is the trials.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxnn.types import PyTree, require_type, shown, whole
from jaxnn.types import real as real_number

Size = str | int
Sizes = Mapping[str, int]
"""The number for every symbolic size."""

SYMMETRIC_KINDS = ("symmetric", "positive_definite")
"""Kinds of square matrices with entry [i, j] equal to entry [j, i]."""

TRIANGULAR_KINDS = ("lower_triangular", "upper_triangular")
"""Kinds of square matrices with zeros above the diagonal, or below."""

NONNEGATIVE_KINDS = ("positive", "simplex")
"""Kinds with an end at 0; an interval is open, and floats leave room at the ends."""

MAPPED_KINDS = (
    "interval", "sorted", "sphere", "orthogonal", *SYMMETRIC_KINDS, *TRIANGULAR_KINDS,
)  # fmt: skip
"""Kinds of real numbers onto which any real numbers are mapped."""

REAL_KINDS = ("real", "complex", "positive", "simplex", *MAPPED_KINDS)
"""Kinds with continuous values; the remaining kinds are whole numbers, labels or keys."""

DISCRETE_KINDS = {"label": "a label", "integers": "whole numbers", "key": "a PRNG key"}
"""Kinds without a derivative, in words."""


@dataclass(frozen=True)
class Input:
    """A generator of one array; made by ``real``, ``positive``, ``simplex``, ..."""

    kind: str
    shape: tuple[Size, ...] = ()
    classes: Size | None = None  # label: the number of classes
    axis: int = -1  # simplex, one_hot: the axis of the classes; mask: of lines; made negative
    low: float = -math.inf  # interval: every number lies strictly between low and high
    high: float = math.inf  # integers: from low to high - 1
    lines: bool = field(default=False, repr=False)  # mask: every line along the axis has a 1
    boolean: bool = field(default=False, repr=False)  # mask: formula and function get Booleans

    def __post_init__(self):
        for size in self.sizes:
            if (whole(size) or 0) < 1 and not (isinstance(size, str) and size.isidentifier()):
                raise ValueError(
                    f"a size is {shown(size)}, expected a name such as 'n', or a number from 1"
                )
        shape = tuple(size if isinstance(size, str) else int(size) for size in self.shape)
        object.__setattr__(self, "shape", shape)
        if self.classes is not None and not isinstance(self.classes, str):
            object.__setattr__(self, "classes", int(self.classes))
        rank = len(self.shape)
        if self.kind in ("sphere", "orthogonal") and (not rank or self.shape[-1] == 1):
            raise ValueError(
                f"{self.kind} has shape {self.shape}, expected a last size of at least 2: 1 and -1 "
                "are no continuous values"
            )
        if self.kind == "sorted" and not rank:
            raise ValueError('sorted_ got no size, expected a length, such as sorted_("n")')
        if self.kind in ("simplex", "one_hot") or self.lines:
            along = "lines" if self.lines else "classes"
            if whole(self.axis) not in range(-rank, rank):
                raise ValueError(
                    f"{self.kind} has shape {self.shape} and {along} along axis {self.axis!r}, "
                    "expected at least one size, and one of its axes"
                )
            object.__setattr__(self, "axis", int(self.axis) % rank - rank)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes of the axes, and the number of classes of a label."""
        return self.shape if self.classes is None else (*self.shape, self.classes)

    def resolve(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape in numbers."""
        return tuple(_number(size, sizes) for size in self.shape)

    def count(self, sizes: Sizes) -> int:
        """The number of classes."""
        return _number(self.shape[self.axis] if self.classes is None else self.classes, sizes)


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


def interval(low: float | None, high: float | None, *shape: Size) -> Input:
    """Real numbers strictly between two ends; None is no end: ``interval(-1, 1, "n")``."""
    given = -math.inf if low is None else low, math.inf if high is None else high
    ends = [math.nan if (end := real_number(given_end)) is None else end for given_end in given]
    if not np.nextafter(ends[0], math.inf) < ends[1]:  # NaN is below nothing
        raise ValueError(
            f"interval got the ends {shown(low)} and {shown(high)}, expected a low and a higher "
            "number, or None for no end"
        )
    return Input("interval", shape, low=ends[0], high=ends[1])


def symmetric(size: Size) -> Input:
    """Symmetric matrices of real numbers, [size, size].

    A derivative is compared along symmetric matrices, and the verdict names the convention: entries
    independent, as by autodiff; the symmetric gradient; free entries, [i, j] and [j, i] being one.
    """
    return Input("symmetric", (size, size))


def positive_definite(size: Size) -> Input:
    """Symmetric matrices with positive eigenvalues, [size, size]; derivatives as ``symmetric``."""
    return Input("positive_definite", (size, size))


def simplex(*shape: Size, axis: int = -1) -> Input:
    """Probability vectors along an axis: y_i >= 0 with sum_i y_i = 1."""
    return Input("simplex", shape, axis=axis)


def one_hot(*shape: Size, axis: int = -1) -> Input:
    """Vectors along an axis with a single 1 and zeros."""
    return Input("one_hot", shape, axis=axis)


def label(*sizes: Size) -> Input:
    """Class indices: ``label("C")`` is from 0 to C-1, ``label("B", "C")`` has shape [B]."""
    if not sizes or sizes[-1] is None:
        raise ValueError('label got no size, expected the number of classes, such as label("C")')
    return Input("label", sizes[:-1], classes=sizes[-1])


def binary(*shape: Size) -> Input:
    """Numbers that are 0 or 1."""
    return Input("binary", shape)


def triangular(size: Size, lower: bool = True) -> Input:
    """Square matrices with zeros above the diagonal, or, without ``lower``, below, [size, size]."""
    require_type(isinstance(lower, bool), "lower", lower, "True or False")
    return Input("lower_triangular" if lower else "upper_triangular", (size, size))


def orthogonal(size: Size) -> Input:
    """Matrices with Q^T Q = I, [size, size], of determinants 1 and -1."""
    return Input("orthogonal", (size, size))


def sphere(*shape: Size) -> Input:
    """Vectors of length 1 along the last axis: ``sphere("n")``, ``sphere("B", "n")``."""
    return Input("sphere", shape)


def sorted_(*shape: Size) -> Input:
    """Real numbers that rise strictly along the last axis."""
    return Input("sorted", shape)


def complex_(*shape: Size) -> Input:
    """Complex numbers; in a counterexample the last axis has the real and the imaginary part.

    The derivative of a real function by complex numbers is written in one of four conventions, as
    by JAX (2 df/dz), by PyTorch (2 df/dz*), or as one of Wirtinger's derivatives df/dz, df/dz*.
    """
    return Input("complex", (*shape, 2))


def integers(low: int, high: int, *shape: Size) -> Input:
    """Whole numbers from low to high - 1, as drawn by ``jax.random.randint``."""
    ends = [whole(end) for end in (low, high)]
    if None in ends or not -(2**53) <= (ends[0] or 0) < (ends[1] or 0) <= 2**53:
        raise ValueError(
            f"integers got the ends {shown(low)} and {shown(high)}, expected a whole number and a "
            "larger one: the largest number drawn is high - 1"
        )
    return Input("integers", shape, low=ends[0] or 0, high=ends[1] or 0)


def mask(*shape: Size, axis: int | None = None, boolean: bool = False) -> Input:
    """Zeros and ones, or with ``boolean`` Booleans, with a 1 at least.

    Args:
      shape: the sizes.
      axis: an axis along which every line has a 1, such as the keys of attention; default: a 1
        anywhere.
      boolean: whether formula and function get Booleans in place of 0.0 and 1.0.
    """
    require_type(isinstance(boolean, bool), "boolean", boolean, "True or False")
    lines = axis is not None
    return Input("mask", shape, axis=axis if lines else -1, lines=lines, boolean=boolean)


def key() -> Input:
    """A key of ``jax.random``, the same for formula and function, as for dropout.

    A counterexample has the two numbers of the key: ``jax.random.wrap_key_data`` makes the key.
    """
    return Input("key", (2,))


def presented(inputs: PyTree, arrays: PyTree) -> PyTree:
    """The inputs as formula and function get them, from arrays: complex numbers, keys, Booleans."""

    def one(generator: Input, array: Any) -> Any:
        if generator.kind == "complex":
            return jax.lax.complex(array[..., 0], array[..., 1])
        if generator.kind == "key":
            return jax.random.wrap_key_data(array, impl="threefry2x32")
        return array > 0 if generator.boolean else array

    return jax.tree.map(one, inputs, arrays, is_leaf=is_input)


def is_presented(generator: Input) -> bool:
    """Whether formula and function get another array than the array drawn."""
    return generator.kind in ("complex", "key") or generator.boolean


def is_input(value: object) -> bool:
    """Whether a value is a generator: a leaf of the tree of inputs."""
    return isinstance(value, Input)


def leaves(inputs: PyTree) -> list[Input]:
    """The generators in the order of the tree's leaves."""
    return jax.tree.leaves(inputs, is_leaf=is_input)


def named_leaves(inputs: PyTree) -> list[tuple[str, Input]]:
    """The generators, each with the path in the tree, such as ``.weight`` or ``[0]``."""
    flat = jax.tree.flatten_with_path(inputs, is_leaf=is_input)[0]
    return [
        (jax.tree_util.keystr(keys).replace("['", ".").replace("']", ""), g) for keys, g in flat
    ]


def filled(inputs: PyTree, flat: Iterable[Any]) -> PyTree:
    """The tree of inputs with other leaves in the place of generators or arrays."""
    return jax.tree.unflatten(jax.tree.structure(inputs, is_leaf=is_input), flat)


def symbols(inputs: PyTree) -> tuple[str, ...]:
    """The names of the symbolic sizes, in order of first appearance."""
    sizes = dict.fromkeys(size for leaf in leaves(inputs) for size in leaf.sizes)
    return tuple(size for size in sizes if isinstance(size, str))


def fixed_sizes(inputs: PyTree) -> frozenset[int]:
    """The sizes given as numbers."""
    sizes = [size for leaf in leaves(inputs) for size in leaf.sizes]
    return frozenset(size for size in sizes if isinstance(size, int))


def draw_sizes(inputs: PyTree, seed: int, smallest: int = 3) -> dict[str, int]:
    """Distinct sizes from the smallest on, without the claim's fixed sizes.

    A size of 1 hides a missing 1/n, equal sizes hide a transpose. Seeds rotate the sizes, so that
    few programs are compiled.
    """
    count = len(symbols(inputs)) + len(fixed_sizes(inputs)) + 1
    return rotated(inputs, range(smallest, smallest + count), count, seed)


def larger_sizes(inputs: PyTree, seed: int) -> dict[str, int]:
    """Distinct sizes larger than those of ``draw_sizes``."""
    count = max(2, len(symbols(inputs)))
    return rotated(inputs, (7, 11, 9, 13, 8, 12, 10, 14, *range(15, 15 + count)), count, seed)


def rotated(inputs: PyTree, sizes: Iterable[int], most: int, seed: int) -> dict[str, int]:
    """The symbolic sizes, from at most so many of the numbers that are no fixed sizes."""
    taken = fixed_sizes(inputs)
    pool = [size for size in sizes if size not in taken][:most]
    shift = seed % len(pool)
    return dict(zip(symbols(inputs), pool[shift:] + pool[:shift], strict=False))


def _number(size: Size, sizes: Sizes) -> int:
    return size if isinstance(size, int) else sizes[size]


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
    around 1 / 2; a simplex is a softmax of normal numbers. Normal numbers are mapped into an
    interval, onto symmetric matrices (B + B^T) / 2, onto B B^T / n + I / 10, onto the Q of B = Q R
    with a positive diagonal of R, onto B / |B|.
    """

    def leaf_values(leaf: Input) -> np.ndarray:
        shape = (trials, *leaf.resolve(sizes))
        if leaf.kind in REAL_KINDS and leaf.kind != "positive":
            spread = rng.choice(spreads, size=(trials, *[1] * len(leaf.shape)))
            values = rng.normal(size=shape) * spread
            return _softmax(values, leaf.axis) if leaf.kind == "simplex" else _of_kind(leaf, values)
        if leaf.kind == "positive":
            return 0.5 * np.exp(0.7 * rng.normal(size=shape))
        if leaf.kind == "one_hot":
            index = np.argmax(rng.random(shape), axis=leaf.axis)
            return np.moveaxis(np.eye(leaf.count(sizes))[index], -1, leaf.axis)
        if leaf.kind == "label":
            return rng.integers(leaf.count(sizes), size=shape)
        if leaf.kind == "integers":
            return rng.integers(int(leaf.low), int(leaf.high), size=shape)
        if leaf.kind == "key":
            return (rng.integers(2**31, size=shape) * [0, 1]).astype(np.uint32)
        ones = rng.integers(2, size=shape).astype(float)
        return _with_ones(leaf, ones, rng.random(shape)) if leaf.kind == "mask" else ones

    return jax.tree.map(leaf_values, inputs, is_leaf=is_input)


def _with_ones(leaf: Input, ones: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A mask [..., *shape] with a 1 added, where the order is highest, if there is none."""
    rank = len(leaf.shape)
    axes = leaf.axis if leaf.lines else tuple(range(-rank, 0))
    none = np.max(ones, axis=axes, keepdims=True) == 0
    return np.where(none & (order == np.max(order, axis=axes, keepdims=True)), 1.0, ones)


def _of_kind(leaf: Input, values: np.ndarray) -> np.ndarray:
    """Real numbers [..., *shape] made values of an input of one of the real kinds."""
    if leaf.kind == "interval":
        return _between(leaf.low, leaf.high, values)
    if leaf.kind in TRIANGULAR_KINDS:
        return np.tril(values) if leaf.kind == "lower_triangular" else np.triu(values)
    if leaf.kind == "sorted":
        return _rising(values)
    if leaf.kind == "sphere":
        return _unit(values)
    if leaf.kind == "orthogonal":
        q, r = np.linalg.qr(values)
        signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
        return q * signs[..., None, :]
    transposed = np.swapaxes(values, -1, -2) if leaf.kind in SYMMETRIC_KINDS else values
    if leaf.kind == "symmetric":
        return (values + transposed) / 2
    if leaf.kind == "positive_definite":
        n = values.shape[-1]
        products = np.einsum("...ik,...jk->...ij", values, values) / n
        unit = 0.1 + 1e-7 * np.trace(products, axis1=-2, axis2=-1)[..., None, None]
        products = products + unit * np.eye(n)
        return (products + np.swapaxes(products, -1, -2)) / 2
    return values


def _unit(values: np.ndarray) -> np.ndarray:
    """Vectors along the last axis divided by the length; of zeros the first unit vector."""
    first = np.arange(values.shape[-1]) == 0
    values = np.where(np.any(values, axis=-1, keepdims=True), values, first)
    values = values / np.max(np.abs(values), axis=-1, keepdims=True)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _rising(values: np.ndarray) -> np.ndarray:
    """Numbers sorted along the last axis, equal numbers moved apart by a millionth."""
    values = np.sort(values, axis=-1)
    gaps = 1e-6 * np.maximum(1.0, np.max(np.abs(values), axis=-1, keepdims=True))
    ties = np.diff(values, axis=-1, prepend=values[..., :1] - gaps) < gaps
    return values + gaps * np.cumsum(ties, axis=-1)


def _between(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Real numbers mapped, with their order, to numbers strictly between two ends."""
    if math.isfinite(low) and math.isfinite(high):
        share = 0.5 + 0.5 * np.tanh(values / 2)
        mapped = low + share * (high - low)
    else:
        above = np.where(values > 0, 0.5 + values, 0.5 / (1.0 + np.abs(values)))
        below = -np.where(values < 0, 0.5 - values, 0.5 / (1.0 + np.abs(values)))
        mapped = low + above if math.isfinite(low) else high + below
        mapped = mapped if math.isfinite(low) or math.isfinite(high) else values
    nearest = (_inside(low, high), -_inside(-high, -low))
    return np.clip(mapped, *nearest)


def _inside(low: float, high: float) -> float:
    """A number of few digits just above the lower of two ends, 2^-30 of the width or of 1 away."""
    width = min(high - low, max(1.0, abs(low))) if math.isfinite(low) else 1.0
    return max(low + 2.0**-30 * width, float(np.nextafter(low, math.inf)))


def _softmax(values: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(values - values.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def adversarial(inputs: PyTree, sizes: Sizes, rng: np.random.Generator) -> PyTree:
    """The awkward values, with a leading axis of trials.

    Every pattern fills all continuous inputs at once, then each continuous input alone among
    ordinary numbers with a single decimal; integers contribute the lowest, middle and highest value
    in turn. Small whole numbers at random and numbers of a few hundred come last.
    """
    generators, structure = jax.tree.flatten(inputs, is_leaf=is_input)
    varied = [
        i
        for i, leaf in enumerate(generators)
        if leaf.kind in REAL_KINDS and leaf.kind != "positive"
    ]
    together = [None] if len(varied) != 1 else []
    trials = [
        [
            _pattern(leaf, sizes, pattern, number)
            if alone in (None, i) or i not in varied
            else _ordinary(leaf, sizes, rng)
            for i, leaf in enumerate(generators)
        ]
        for alone in (*together, *varied)
        for number, pattern in enumerate(PATTERNS.values())
    ]
    columns = [np.stack(values) for values in zip(*trials, strict=True)]
    patterns = jax.tree.unflatten(structure, columns)
    whole_numbers = simple(inputs, sizes, WHOLE_NUMBERS, rng)
    wide = draw(inputs, sizes, len(WIDE), rng, spreads=WIDE)
    return jax.tree.map(lambda *values: np.concatenate(values), patterns, whole_numbers, wide)


WHOLE_NUMBERS = 8
"""Awkward trials of small whole numbers, whose sums and differences have ties and zeros."""

WIDE = (20.0, 60.0, 200.0, 600.0, 2000.0)
"""Standard deviations between those of ordinary trials and 1e4."""

PATTERNS: dict[str, Callable[[int], np.ndarray]] = {
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


def _pattern(
    leaf: Input, sizes: Sizes, pattern: Callable[[int], np.ndarray], number: int
) -> np.ndarray:
    shape = leaf.resolve(sizes)
    if leaf.kind in ("real", "complex", *MAPPED_KINDS):
        return _of_kind(leaf, pattern(math.prod(shape)).reshape(shape))
    if leaf.kind == "integers":
        low, high = int(leaf.low), int(leaf.high)
        return np.full(shape, [low, high - 1, (low + high) // 2][number % 3])
    if leaf.kind == "key":
        return np.array(number * np.ones(shape) * [0, 1], np.uint32)
    if leaf.kind == "mask":
        order = -np.arange(math.prod(shape)).reshape(shape)
        return _with_ones(leaf, np.full(shape, [0.0, 1.0][number % 2]), order)
    if leaf.kind == "positive":
        return np.full(shape, [0.5, 1.0, 1e-12, 1e4, 1e-3, 1e12][number % 6])
    if leaf.kind == "binary":
        return np.full(shape, [0.0, 1.0][number % 2])
    classes = leaf.count(sizes)
    corner = [0, classes - 1, classes // 2][number % 3]
    if leaf.kind == "label":
        return np.full(shape, corner)
    vector = np.eye(classes)[corner]
    if leaf.kind == "simplex" and number % 2:
        vector = np.full(classes, 1.0 / classes)
    rows = np.broadcast_to(vector, (*np.delete(shape, leaf.axis), classes))
    return np.moveaxis(rows, -1, leaf.axis)


def _ordinary(leaf: Input, sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
    """One trial of short decimals."""
    values = draw(leaf, sizes, 1, rng)[0]
    if leaf.kind == "simplex":
        return _shortened(values, leaf.axis)
    short = np.round(values, 1) + 0.0
    return short if admits(leaf, short) else values


def admits(leaf: Input, value: np.ndarray) -> bool:
    """Whether an array of real numbers is a value of an input; of the shape, if symmetric."""
    if leaf.kind == "positive":
        return bool(np.all(value > 0))
    if leaf.kind == "positive_definite":
        eigenvalues = np.linalg.eigvalsh(value)
        return bool(np.all(eigenvalues[..., 0] > 1e-9 * eigenvalues[..., -1]))
    if leaf.kind in TRIANGULAR_KINDS:
        return bool(np.all(value == _of_kind(leaf, value)))
    if leaf.kind == "sphere":
        return bool(np.all(np.abs(np.linalg.norm(value, axis=-1) - 1) < 1e-14))
    if leaf.kind == "orthogonal":
        products = value @ np.swapaxes(value, -1, -2)
        return bool(np.all(np.abs(products - np.eye(value.shape[-1])) < 1e-14))
    if leaf.kind == "sorted":
        return bool(np.all(np.diff(value, axis=-1) > 0))
    if leaf.kind == "mask":
        return bool(np.all(np.max(value, axis=leaf.axis if leaf.lines else None) > 0))
    return bool(np.all((leaf.low < value) & (value < leaf.high)))


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
        if leaf.kind in ("real", "complex"):
            return rng.choice([0.0, 1.0, -1.0, 2.0, 0.5], p=[0.3, 0.3, 0.15, 0.15, 0.1], size=shape)
        if leaf.kind == "positive":
            return rng.choice([1.0, 0.5, 2.0], size=shape)
        if leaf.kind == "interval":
            return rng.choice(_short_numbers_in(leaf), size=shape)
        if leaf.kind == "symmetric":
            return _mirrored(rng.choice([0.0, 1.0, -1.0, 2.0], size=shape))
        if leaf.kind == "positive_definite":
            factor = rng.choice([0.0, 1.0, -1.0], p=[0.5, 0.3, 0.2], size=shape)
            return factor @ np.swapaxes(factor, -1, -2) + np.eye(shape[-1])
        if leaf.kind in TRIANGULAR_KINDS:
            entries = rng.choice([0.0, 1.0, -1.0, 2.0], size=shape)
            diagonal = np.eye(shape[-1]) * rng.choice([1.0, 2.0, -1.0], size=shape)
            return np.where(diagonal != 0, diagonal, _of_kind(leaf, entries))
        if leaf.kind == "sorted":
            steps = rng.choice([1.0, 0.5, 2.0], size=shape)
            return np.cumsum(steps, axis=-1) - rng.choice([1.0, 2.0], size=(*shape[:-1], 1))
        if leaf.kind == "sphere":
            return _permuted(shape, rng)[..., 0]
        if leaf.kind == "orthogonal":
            return _permuted(shape[:-1], rng)
        if leaf.kind == "integers":
            return np.clip(rng.integers(-2, 4, size=shape), int(leaf.low), int(leaf.high) - 1)
        if leaf.kind == "key":
            return (rng.integers(10, size=shape) * [0, 1]).astype(np.uint32)
        if leaf.kind == "simplex":
            return _shortened(draw(leaf, sizes, trials, rng), leaf.axis)
        return draw(leaf, sizes, trials, rng)

    return jax.tree.map(leaf_values, inputs, is_leaf=is_input)


def _permuted(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Orthogonal matrices of short numbers, [*shape, n], n the last of the shape.

    Rows and columns of the unit matrix are permuted, rows get a sign; every other matrix also has
    a turn of the triangle with sides 3, 4 and 5.
    """
    n, rows = shape[-1], math.prod(shape[:-1])
    turned = np.eye(n)
    turned[:2, :2] = [[0.6, -0.8], [0.8, 0.6]] if n > 1 else 1.0
    made = [
        rng.permutation(rng.permutation(turned if row % 2 else np.eye(n)), axis=1)
        * rng.choice([1.0, -1.0], size=(n, 1))
        for row in range(rows)
    ]
    return np.stack(made).reshape(*shape, n) + 0.0


def _short_numbers_in(leaf: Input) -> list[float]:
    """Numbers of few digits in an interval: 0, 1, ... or halves and quarters of the width."""
    width = leaf.high - leaf.low
    start = leaf.low if math.isfinite(leaf.low) else leaf.high
    shares = np.array([0.25, 0.5, 0.75]) * width if math.isfinite(width) else [0.5, 1.0, 2.0]
    aside = start + np.asarray(shares) * (1.0 if math.isfinite(leaf.low) else -1.0)
    numbers = [
        number for number in (0.0, 1.0, -1.0, 2.0, 0.5, -0.5) if leaf.low < number < leaf.high
    ]
    return numbers if len(numbers) > 2 else [*numbers, *aside.tolist()]


def _mirrored(values: np.ndarray) -> np.ndarray:
    """Square matrices with the entries below the diagonal also above the diagonal."""
    return np.tril(values) + np.swapaxes(np.tril(values, -1), -1, -2)


SHORTENED = 100
"""Larger arrays are shortened as a whole, not entry by entry."""


def simpler(leaf: Input, value: np.ndarray) -> Iterator[np.ndarray]:
    """Values of an input that are easier to read: zeros, ones, fewer decimals, a corner."""
    if leaf.kind in ("real", "complex", "positive", "interval", "sorted", *TRIANGULAR_KINDS):
        yield from (short for short in _shorter_numbers(value) if admits(leaf, short))
    elif leaf.kind in SYMMETRIC_KINDS:
        shorter = map(_mirrored, _shorter_numbers(value))
        unit = np.broadcast_to(np.eye(value.shape[-1]), value.shape)
        yield from (short for short in (unit, *shorter) if admits(leaf, short))
    elif leaf.kind == "simplex":
        for index in range(value.shape[leaf.axis]):
            corner = np.zeros_like(value)
            np.moveaxis(corner, leaf.axis, -1)[..., index] = 1.0
            yield corner
        yield _shortened(value, leaf.axis)
    elif leaf.kind in ("sphere", "orthogonal"):
        n = value.shape[-1]
        signed = [sign * np.roll(np.eye(n), k, axis=0) for k in range(n) for sign in (1.0, -1.0)]
        units = (unit[:, 0] if leaf.kind == "sphere" else unit for unit in signed)
        short = (np.broadcast_to(unit, value.shape) for unit in units)
        yield from (s + 0.0 for s in (*short, np.round(value)) if admits(leaf, s))
    elif leaf.kind == "integers":
        shorter = (np.clip(n, leaf.low, leaf.high - 1) for n in _shorter_numbers(value))
        yield from (short.astype(value.dtype) for short in shorter)
    elif leaf.kind == "mask":
        flipped = (np.where(np.arange(value.size).reshape(value.shape) == i, 0.0, value)
                   for i in range(value.size))  # fmt: skip
        yield from (short for short in (np.ones_like(value), *flipped) if admits(leaf, short))
    elif leaf.kind in ("label", "binary", "key"):
        yield np.zeros_like(value)


def _shorter_numbers(value: np.ndarray) -> Iterator[np.ndarray]:
    """All zeros, all ones, fewer decimals; a single entry 0, 1, or with fewer decimals."""
    yield from (np.zeros_like(value), np.ones_like(value), np.round(value), np.round(value, 1))
    for index in np.ndindex(value.shape) if value.size <= SHORTENED else ():
        for short in (0.0, 1.0, *(np.round(value[index], decimals) for decimals in range(4))):
            candidate = np.array(value)
            candidate[index] = short
            yield candidate
