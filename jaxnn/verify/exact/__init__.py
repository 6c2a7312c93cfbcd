"""Jaxprs on exact numbers: balls enclose the true value, residues certify an identity.

Here is what the interpreter asks of numbers: balls and residues are two arithmetics.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

Numbers = Any
"""A flat array of an arithmetic's numbers: has a length, and ``x[index]`` for arrays of indices."""

Value = Any
"""``Numbers`` for floats and complex numbers; a NumPy array for integers, Booleans and keys."""

Run = Callable[..., Sequence[Value]]
"""The results of an equation as a function of the operands."""


class Undecided(ArithmeticError):  # noqa: N818
    """A comparison that the numbers, known up to an error, do not decide."""


class Arithmetic(Protocol):
    """Numbers of one kind, and elementwise operations of flat arrays of equal length."""

    def exactly(self, array: np.ndarray) -> Numbers:
        """The exact numbers of an array of floats, integers or Booleans."""
        ...

    def apply(self, name: str, *operands: Numbers, **params: Any) -> Numbers:
        """A primitive of JAX on every entry; ``Unsupported`` without a model."""
        ...

    def compare(self, x: Numbers, y: Numbers) -> np.ndarray:
        """Per entry -1, 0 or 1; 2 where a number is NaN; raises ``Undecided``."""
        ...

    def joined(self, parts: Sequence[Numbers]) -> Numbers:
        """The entries of all parts, one part after the other."""
        ...

    def floats(self, x: Numbers) -> np.ndarray:
        """The nearest float64 numbers."""
        ...

    def rounded(self, x: Numbers) -> np.ndarray:
        """The numbers as float64, for programs that look at fewer bits; ``Unsupported``."""
        ...

    def whole(self, x: Numbers) -> np.ndarray:
        """The whole parts, as float64; ``Unsupported``."""
        ...


def is_number(atom) -> bool:
    """Whether a variable of a jaxpr, or a literal, is an array of floats or complex numbers."""
    return jax.numpy.issubdtype(atom.aval.dtype, np.inexact)
