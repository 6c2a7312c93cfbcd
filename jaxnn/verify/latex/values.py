"""Values of a formula: arrays with named axes, their products and sums.

A value has axes of indices, such as i of x_i, and the axes of a vector or a matrix, with the
claim's names of sizes. Names decide the meaning of a product, numbers never do.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Size = str | int

MOST_ENTRIES = 2**22
"""The most entries of an array on the way: every nested sum multiplies the entries."""


class Unreadable(ValueError):  # noqa: N818
    """A formula without a meaning, or with two; the message is a line with the reason."""

    index = ""  # the index without a left side


class Value(NamedTuple):
    """An array with named axes: first the indices, then the axes of a vector or matrix.

    Numbers and sizes are exact fractions until a product or sum with an array: x / 3 has to stay a
    division.
    """

    data: Any  # jax.Array [*indices, *shape], or Fraction
    indices: tuple[str, ...] = ()
    shape: tuple[Size, ...] = ()
    row: bool = False  # a transposed vector
    pending: str = ""  # a key of PENDING: of a size from the context, times the data

    @property
    def rank(self) -> int:
        """Axes of the scalar (0), vector (1) or matrix (2)."""
        return PENDING[self.pending][0] if self.pending else len(self.shape)

    @property
    def square(self) -> bool:
        """Whether the value is a matrix of equal sizes: powers and functions have two meanings."""
        return self.rank == 2 and len({*self.shape}) < 2

    def __str__(self) -> str:
        if self.rank == 0:
            return "a number"
        names = "?" if self.pending else " x ".join(map(str, self.shape))
        kind = {1: "row" if self.row else "vector", 2: "matrix"}.get(self.rank, "array")
        return f"a {kind} [{names}]" if kind != "array" else f"an array [{names}]"


PENDING: dict[str, tuple[int, Callable[[int], jax.Array]]] = {
    "ones": (1, jnp.ones),
    "identity": (2, jnp.eye),
    "matrix of ones": (2, lambda size: jnp.ones((size, size))),
}
"""Values of a size from the context: the rank, and the array of a size."""


def array(value: Value) -> jax.Array:
    """The value's array; a fraction as a division of whole numbers."""
    if not isinstance(value.data, Fraction):
        return value.data
    try:
        return jnp.asarray(value.data.numerator / value.data.denominator, float)
    except OverflowError:
        raise Unreadable("a number too large for float64") from None


def settled(value: Value, sizes: Mapping[Size, int], *shape: Size) -> Value:
    """Ones or the identity at a known size; other values stay the same."""
    if not value.pending or not shape:
        return value
    rank, of = PENDING[value.pending]
    row = value.row and rank == 1
    unit = Value(of(int(sizes.get(shape[-1], shape[-1]))), (), shape[-1:] * rank, row)
    return scaled(unit, value._replace(pending="", row=False))


def scaled(value: Value, scalar: Value) -> Value:
    """The product with a scalar."""
    if isinstance(value.data, Fraction) and isinstance(scalar.data, Fraction):
        return value._replace(data=value.data * scalar.data)
    if isinstance(scalar.data, Fraction):
        top, bottom = scalar.data.numerator, scalar.data.denominator
        data = value.data if abs(top) == 1 else value.data * float(abs(top))
        data = data if bottom == 1 else data / float(bottom)
        return value._replace(data=-data if top < 0 else data)
    if isinstance(value.data, Fraction):
        return scaled(scalar, value._replace(pending="", row=False))._replace(
            pending=value.pending, row=value.row
        )
    return aligned(jnp.multiply, value, scalar)._replace(pending=value.pending)


def _refuse_large(shape: Sequence[int]) -> None:
    count = 1
    for size in shape:
        count *= size
    if count > MOST_ENTRIES:
        raise Unreadable(f"an array of {count:,} entries on the way, expected fewer nested sums")


def aligned(function: Callable[..., Any], *values: Value) -> Value:
    """A function of every entry of arrays of equal shapes, and of scalars."""
    indices = tuple(dict.fromkeys(index for value in values for index in value.indices))
    rank = max(len(value.shape) for value in values)
    sizes = {
        index: size
        for value in values
        for index, size in zip(value.indices, jnp.shape(value.data), strict=False)
    }
    arrays = []
    for value in values:
        data = array(value)
        order = [value.indices.index(index) for index in indices if index in value.indices]
        data = jnp.transpose(data, [*order, *range(len(order), data.ndim)])
        missing = [place for place, index in enumerate(indices) if index not in value.indices]
        extra = [len(indices) + axis for axis in range(rank - len(value.shape))]
        data = jnp.expand_dims(data, missing)
        arrays.append(jnp.expand_dims(data, extra))
    largest = max(values, key=lambda value: len(value.shape))
    full = [jnp.shape(data) for data in arrays]
    _refuse_large([max(axis) for axis in zip(*full, strict=True)])
    result = function(*arrays)
    shape = (*(sizes[index] for index in indices), *result.shape[len(indices) :])
    return Value(jnp.broadcast_to(result, shape), indices, largest.shape, largest.row)


def plus(a: Value, b: Value, sizes: Mapping[Size, int]) -> Value:
    """The sum; a scalar is added to every entry, a vector to the rows or columns of its size."""
    if a.pending and a.pending == b.pending and a.row == b.row:
        data = plus(a._replace(pending=""), b._replace(pending=""), sizes)
        return data._replace(pending=a.pending, row=a.row)
    if a.rank < b.rank:
        a, b = b, a
    a = settled(a, sizes, *b.shape) if b.shape else a
    b = settled(b, sizes, *a.shape) if a.shape else b
    if a.pending or b.pending:
        raise Unreadable(f"a sum of {a} and {b}: the size is not known")
    if isinstance(a.data, Fraction) and isinstance(b.data, Fraction):
        return Value(a.data + b.data)
    if isinstance(b.data, Fraction) and b.data == 0:
        return a
    if a.square and b.rank == 0:
        raise Unreadable(
            f"a sum of {a} and a number has two readings: the number in every entry, or times the "
            "identity I"
        )
    if a.rank == 2 and b.rank == 1:
        return aligned(jnp.add, a, _along(a, b))
    if b.rank and (a.shape != b.shape or (a.rank == 1 and a.row != b.row)):
        raise Unreadable(f"a sum of {a} and {b}, expected equal shapes")
    return aligned(jnp.add, a, b)


def _along(matrix: Value, vector: Value) -> Value:
    """A vector as a matrix with a single row or column, to be added to every row or column."""
    axes = [axis for axis in (0, 1) if matrix.shape[axis] == vector.shape[0]]
    axes = [axis for axis in axes if axis == 1 or not vector.row]
    if len(axes) != 1:
        what = "two readings: to every row, or to every column" if axes else "no meaning"
        raise Unreadable(f"a sum of {matrix} and {vector} has {what}")
    return _matrix(vector, column=axes[0] == 0)._replace(shape=matrix.shape)


def times(a: Value, b: Value, sizes: Mapping[Size, int], dot: bool = False) -> Value:
    """The product of linear algebra; ``dot``: written with a dot, two vectors' inner product."""
    if a.rank == 0 or b.rank == 0:
        return scaled(b, a) if a.rank == 0 else scaled(a, b)
    if "identity" in (a.pending, b.pending):
        value, unit = (b, a) if a.pending == "identity" else (a, b)
        return scaled(value, unit._replace(pending=""))
    if a.pending == b.pending == "ones" and b.row and not a.row:
        return scaled(a, b._replace(pending="", row=False))._replace(pending="matrix of ones")
    if a.rank == 1 and (a.row or b.rank == 2):
        a = settled(a, sizes, *b.shape[:1])
    if b.rank == 1 and (a.row or a.rank == 2):
        b = settled(b, sizes, *a.shape[-1:])
    if a.pending or b.pending:
        raise Unreadable(f"a product of {a} and {b}: the size is not known; write 1_n")
    if a.rank == b.rank == 1 and a.row == b.row and (not dot or a.row or a.shape != b.shape):
        raise Unreadable(_two_vectors(a, b))
    outer = b.row if b.rank == 1 else b.shape[0] == 1 != a.shape[0]
    column = a.rank == 1 and not a.row and outer  # as in x y^\top; x W is of a row x of data
    left, right = _matrix(a, column), _matrix(b, not b.row)
    if left.rank > 2 or right.rank > 2 or left.shape[1] != right.shape[0]:
        raise Unreadable(
            f"a product of {a} and {b}: the sizes {left.shape[-1]} and {right.shape[0]}"
        )
    product = aligned(jnp.matmul, left, right)
    rows, columns = a.rank == 2 or column, b.rank == 2 or b.row
    data = jnp.squeeze(product.data, (*(() if rows else (-2,)), *(() if columns else (-1,))))
    shape = (*(left.shape[:1] if rows else ()), *(right.shape[1:] if columns else ()))
    return Value(data, product.indices, shape, a.row and b.rank == 2)


def _matrix(value: Value, column: bool) -> Value:
    """A vector as a matrix with a single column or row; a matrix stays the same."""
    if value.rank != 1:
        return value
    data = jnp.expand_dims(value.data, jnp.ndim(value.data) - (not column))
    return value._replace(data=data, shape=(*value.shape, 1) if column else (1, *value.shape))


def _two_vectors(a: Value, b: Value) -> str:
    if a.shape == b.shape:
        return (
            f"a product of {a} and {b} has two readings: the inner product a^\\top b, or entry by "
            "entry, a \\odot b"
        )
    return f"a product of {a} and {b}, expected the outer product a b^\\top"


def entrywise(a: Value, b: Value, sizes: Mapping[Size, int]) -> Value:
    """The product of the entries of two arrays of equal shapes."""
    a, b = settled(a, sizes, *b.shape), settled(b, sizes, *a.shape)
    if a.shape != b.shape or a.row != b.row or a.pending or b.pending:
        raise Unreadable(f"{a} and {b} entry by entry, expected equal shapes")
    return aligned(jnp.multiply, a, b)


def divided(a: Value, b: Value) -> Value:
    """The quotient by a number, or entry by entry."""
    if b.rank == 0 and isinstance(b.data, Fraction):
        if b.data == 0:
            raise Unreadable("a division by zero")
        return scaled(a, Value(1 / b.data))
    if b.rank == 0 and a.pending:
        return scaled(a, inverted(b))
    if b.square or (b.rank and a.square):
        raise Unreadable(f"a fraction of {a} and {b}, expected an inverse, as in A B^{{-1}}")
    if b.rank and a.rank and (a.shape != b.shape or a.row != b.row):
        raise Unreadable(f"a fraction of {a} and {b}, expected equal shapes")
    return aligned(jnp.divide, a, b)


def transposed(value: Value) -> Value:
    """The transpose; a number stays the same."""
    if value.rank == 1:
        return value._replace(row=not value.row)
    if value.rank > 2:
        raise Unreadable(f"the transpose of {value}, expected a vector or a matrix")
    if value.pending or value.rank == 0:
        return value
    return value._replace(data=jnp.swapaxes(value.data, -1, -2), shape=value.shape[::-1])


def inverted(value: Value) -> Value:
    """The inverse of a square matrix or of a number."""
    if value.rank == 0:
        return divided(Value(Fraction(1)), value)
    if not value.square or value.pending:
        raise Unreadable(f"the inverse of {value}, expected a square matrix or a number")
    return value._replace(data=jnp.linalg.inv(value.data))
