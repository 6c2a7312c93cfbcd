"""Jaxprs on exact numbers: balls enclose the true value, residues certify an identity.

Here is what the interpreter asks of numbers: balls and residues are two arithmetics.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

Numbers = Any
"""An arithmetic's array of numbers: ``shape``, ``reshape``, and ``x[index]`` as of NumPy."""

Value = Any
"""``Numbers`` for floats and complex numbers; a NumPy array for integers, Booleans and keys."""

Run = Callable[..., Sequence[Value]]
"""The results of an equation as a function of the operands."""


class Undecided(ArithmeticError):  # noqa: N818
    """A comparison that the numbers, known up to an error, do not decide."""


class Arithmetic(Protocol):
    """Numbers of one kind. Operands that are NumPy's, or Python's, stand for exact numbers."""

    FUNCTIONS: ClassVar[Any]
    """Primitives on single numbers, by name."""

    RULES: ClassVar[Any]
    """Rules, by name, of other primitives that the arithmetic has of its own."""

    UNKNOWN: ClassVar[str]
    """The words of a message after the name of any other primitive."""

    def exactly(self, array: Any) -> Numbers:
        """The exact numbers of an array of floats, integers or Booleans; numbers stay."""
        ...

    def apply(self, name: str, *operands: Any, **params: Any) -> Numbers:
        """One of ``FUNCTIONS`` on every entry of operands that broadcast."""
        ...

    def compare(self, x: Any, y: Any) -> np.ndarray:
        """Per entry -1, 0 or 1; 2 where a number is NaN; raises ``Undecided``."""
        ...

    def joined(self, parts: Sequence[Numbers]) -> Numbers:
        """The entries of all parts, one part after the other, along a single axis."""
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
