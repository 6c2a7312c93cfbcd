"""The same derivative written down otherwise: transposed, or with a matrix as one long vector."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """A way to arrange the entries of a derivative."""

    code: str  # transpose, vec_order or shape
    name: str
    arrange: Callable[[np.ndarray], np.ndarray]  # of one trial


def declared(layout: str | None, value_rank: int) -> Callable[[np.ndarray], np.ndarray]:
    """How a claim's ``layout`` arranges an array of this package's layout.

    Args:
      layout: ``transpose``, ``vec``, ``vec_rows`` or None.
      value_rank: how many leading axes belong to the function's value, the rest to the parameter.

    Returns:
      A function of the derivative at one trial.
    """
    if layout is None:
        return lambda array: array
    if layout == "transpose":
        return np.transpose
    order = "F" if layout == "vec" else "C"
    return lambda array: _vec(array, value_rank, order)


def own(layout: str | None) -> Layout:
    """This package's layout, for a claim that declares another one, or has axes of length 1."""
    if layout is None:
        return Layout("shape", "the same with other axes of length 1", lambda array: array)
    code = "transpose" if layout == "transpose" else "vec_order"
    return Layout(code, f"in this package's own layout rather than {layout!r}", lambda array: array)


def others(shape: tuple[int, ...], value_rank: int) -> Iterator[Layout]:
    """Every other arrangement of an array of this shape, the plainest first.

    Args:
      shape: that of the derivative in this package's layout.
      value_rank: how many leading axes belong to the function's value.

    Yields:
      Layouts, each also with its axes of length 1 dropped or added by ``same_entries``.
    """
    rank = len(shape)
    if rank >= 2:
        yield Layout("transpose", "the transpose", np.transpose)
    if 0 < value_rank < rank and rank > 2:
        axes = (*range(value_rank, rank), *range(value_rank))
        yield Layout(
            "transpose",
            "the parameter's axes before the value's",
            lambda array: np.transpose(array, axes),
        )
    if rank - value_rank >= 2 or value_rank >= 2:
        for order, name in (("C", "rows"), ("F", "columns")):
            described = f"vec, {name} one after the other"

            def flat(array: np.ndarray, order: str = order) -> np.ndarray:
                return _vec(array, value_rank, order)

            yield Layout("vec_order", described, flat)
            yield Layout(
                "vec_order", described + ", transposed", lambda a, f=flat: np.transpose(f(a))
            )


def reshaped(layout: Layout, shape: tuple[int, ...]) -> Layout:
    """The layout with axes of length 1 dropped or added, so that it has this shape."""
    return layout._replace(arrange=lambda array: layout.arrange(array).reshape(shape))


def same_shape(claimed: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ in axes of length 1 at most."""
    return [n for n in claimed if n != 1] == [n for n in other if n != 1]


def _vec(array: np.ndarray, value_rank: int, order: str) -> np.ndarray:
    """The value's axes as one, and the parameter's axes as one."""
    value, parameter = array.shape[:value_rank], array.shape[value_rank:]
    rows = int(np.prod(value, dtype=int))
    columns = int(np.prod(parameter, dtype=int))
    if order == "F":
        array = array.transpose(
            *reversed(range(value_rank)), *reversed(range(value_rank, array.ndim))
        )
    flat = array.reshape(rows, columns)
    return flat if value_rank else flat[0]
