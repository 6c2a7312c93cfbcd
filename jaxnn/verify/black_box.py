"""Formulas that JAX does not trace: NumPy with loops and writes, SciPy, PyTorch.

A black box runs as the user wrote the code, at a trial at a time, outside of compiled programs.
"""

import io
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass, replace
from functools import partial, wraps
from sys import modules
from typing import Any

import jax
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, call, is_list_of_numbers
from jaxnn.verify.graph import located
from jaxnn.verify.inputs import Sizes, draw, filled

Arrays = Sequence[np.ndarray]

EQUAL = 1e-8
"""The largest distance of a formula and the translation, relative to the largest entry."""


class UnusableValue(ValueError):  # noqa: N818
    """A formula's value cannot be judged; the message is a line."""


class BlackBox:
    """The formula of a claim, called with NumPy arrays or tensors, as a function of trials."""

    def __init__(self, claim: Claim, given: Callable[[Any], Any]):
        self.seconds = 0.0  # of a call
        self.shapes: list[tuple[int, ...]] = []
        self._language = "PyTorch" if given is as_tensor else "NumPy"
        self._written: dict[str, None] = {}  # the inputs that the formula writes into
        self._raised = ""  # the first exception
        self._translated = np.zeros(2, int)  # trials: with the translation's value, and all
        self._claim = replace(claim, formula=self._quiet(claim.formula, given))

    def __call__(self, flat: Arrays) -> list[np.ndarray]:
        """The formula's leaves [T, ...] at trials of the flat inputs [T, ...]."""
        trials = [self.at([value[trial] for value in flat]) for trial in range(len(flat[0]))]
        return [np.stack(leaf) for leaf in zip(*trials, strict=True)]

    @property
    def is_translated(self) -> bool:
        """Whether the translation gave the values of the formula, in 99 % of the trials or more."""
        return bool(self._translated[0] > 0 and self._translated[0] >= 0.99 * self._translated[1])

    @property
    def words(self) -> str:
        """The formula's language, and what is known of the operations."""
        known = "the operations are judged as those of jax.numpy, with equal values"
        values = "the values are judged, no operations are known"
        return (
            f"{self._language} code, called as written; {known if self.is_translated else values}"
        )

    @property
    def notes(self) -> str:
        """Writes into inputs, and exceptions, in a line; "" without."""
        names = ", ".join(self._written)
        writes = names and f"the formula writes into {names}: every call gets a copy"
        raises = self._raised and f"at some inputs the formula raises {self._raised}"
        return "; ".join(filter(None, (writes, raises)))

    def beside(self, compiled: Callable[..., Any], *flat: np.ndarray) -> tuple[Any, ...]:
        """The formula's leaves, and the results of a compiled program at the same trials.

        A program with another result than forward, reverse, finite begins with the leaves of the
        formula's translation.
        """
        leaves, results = self(flat), compiled(*flat)
        if len(results) > 3:
            self.compare(leaves, [np.asarray(leaf) for leaf in results[0]])
        return leaves, *results[-3:]

    def compare(self, leaves: Arrays, translated: Arrays) -> None:
        """Counts the trials at which a translation has the values of the formula."""
        equal = np.array([leaf.shape for leaf in leaves] == [leaf.shape for leaf in translated])
        for value, other in zip(leaves, translated, strict=True) if equal else ():
            axes = tuple(range(1, value.ndim))
            with np.errstate(invalid="ignore", over="ignore"):
                apart = np.abs(value - other).max(axes, initial=0.0)
                close = apart <= EQUAL * np.abs(value).max(axes, initial=0.0)
            finite = np.isfinite(value).all(axes) & np.isfinite(other).all(axes)
            equal = equal & (close | ~finite)
        self._translated += np.sum(np.broadcast_to(equal, len(leaves[0]))), len(leaves[0])

    def at(self, point: Arrays) -> list[np.ndarray]:
        """The formula's leaves at the flat inputs of a trial, in float64; NaN for an exception.

        Raises:
          Exception: of the formula, at the first call.
          UnusableValue: the shapes are not those of the first call, or the numbers are float32.
        """
        try:
            leaves = self._leaves(point)
        except (Exception, SystemExit) as error:
            if not self.shapes or isinstance(error, UnusableValue):
                raise
            self._raised = self._raised or located(error)
            return [np.full(shape, np.nan) for shape in self.shapes]
        shapes = [leaf.shape for leaf in leaves]
        self.shapes = self.shapes or shapes
        if shapes != self.shapes:
            raise UnusableValue(
                f"the formula's value has shapes {shapes} at an input and {self.shapes} at "
                "another, expected equal shapes"
            )
        return leaves

    def _leaves(self, point: Arrays) -> list[np.ndarray]:
        with warnings.catch_warnings(), np.errstate(all="ignore"), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            value = self._claim.evaluate(filled(dict(self._claim.inputs), point))
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(value)]
        if not arrays:
            raise UnusableValue("the formula returns no value, expected an array after return")
        for array in arrays:
            refuse_few_digits(array.dtype)
        return [array.astype(float) for array in arrays]

    def _quiet(self, formula: Callable[..., Any], given: Callable[[Any], Any]) -> Callable:
        """The formula with a copy of every input, and arrays as results."""

        @wraps(formula)
        def called(**inputs: PyTree) -> PyTree:
            copies = jax.tree.map(given, inputs)
            value = as_arrays(call(formula, copies))
            self._written |= dict.fromkeys(changed(inputs, copies))
            return value

        return called


def changed(inputs: Mapping[str, PyTree], copies: Mapping[str, PyTree]) -> list[str]:
    """The names of the inputs with another value than before."""
    same = partial(np.array_equal, equal_nan=True)
    pairs = {n: (jax.tree.leaves(inputs[n]), jax.tree.leaves(copies[n])) for n in inputs}
    return [
        name
        for name, (before, after) in pairs.items()
        if len(before) != len(after) or not all(map(same, before, map(as_plain, after)))
    ]


def as_numpy(value: Any) -> Any:
    """A copy, which the formula may write into; of a scalar a number of NumPy."""
    return np.array(value)[()]


def as_tensor(value: Any) -> Any:
    """A copy, as a tensor of PyTorch."""
    return modules["torch"].tensor(np.asarray(value))


def as_plain(value: Any) -> Any:
    """A tensor as an array."""
    return value.numpy(force=True) if hasattr(value, "detach") else value


def as_arrays(value: Any) -> Any:
    """A formula's value with arrays for tensors and for lists of numbers.

    Raises:
      UnusableValue: an array of ``np.ma`` masks entries, which have no values.
    """
    if np.ma.is_masked(value):
        raise UnusableValue("the formula masks entries of its value, expected a number for each")
    if is_list_of_numbers(value):
        return np.asarray(value, float)
    if isinstance(value, list | tuple):
        parts = map(as_arrays, value)
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, Mapping):
        return {name: as_arrays(part) for name, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_arrays(getattr(value, field.name)) for field in fields(value)}
    return as_plain(value)


def black_box(claim: Claim, sizes: Sizes, reason: Exception | None) -> BlackBox:
    """The formula of a claim as a black box, called with arrays, else with tensors.

    Args:
      claim: the claim.
      sizes: of the inputs.
      reason: the exception where JAX does not trace the formula; None: JAX was not asked.

    Raises:
      Exception: of the formula, which raises an exception for arrays too.
      ValueError: the formula gives two values at equal inputs.
    """
    drawn = draw(dict(claim.inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    point = [value[0] for value in jax.tree.leaves(drawn)]

    def boxed(given: Callable[[Any], Any]) -> tuple[BlackBox, list[np.ndarray], list[np.ndarray]]:
        box = BlackBox(claim, given)
        once, began = box.at(point), time.perf_counter()
        again = box.at(point)
        box.seconds = time.perf_counter() - began
        return box, once, again

    box, *values = in_a_language(boxed, reason)
    if not all(map(partial(np.array_equal, equal_nan=True), *values)):
        raise ValueError("the formula gives two values at equal inputs, expected no randomness")
    return box


def in_a_language(work: Callable[[Callable], Any], reason: Exception | None = None) -> Any:
    """Work that calls a function with arrays, else with tensors where the process has PyTorch.

    ``reason`` is the exception where JAX does not trace the function.

    Raises:
      Exception: the first, of the work or of JAX; with tensors where code asks for tensors.
    """
    failures = [] if reason is None or is_of_tracing(reason) else [reason]
    for given in (as_numpy, *([as_tensor] if "torch" in modules else [])):
        try:
            return work(given)
        except SystemExit:
            failures.append(UnusableValue("the formula ends the process, expected a value"))
        except Exception as error:
            failures.append(error)
    unusable = (error for error in failures if isinstance(error, UnusableValue))
    raise next(unusable, failures[-1 if "Tensor" in str(failures[0]) else 0])


def has_values_of(
    program: core.ClosedJaxpr, function: Callable[..., Any], claim: Claim, sizes: Sizes
) -> bool:
    """Whether a program has the values of NumPy code, called with arrays at random inputs.

    JAX traces ``row += x`` for a row of NumPy's zeros without an error, as a new row. A function
    that raises an exception for arrays is JAX's alone.
    """
    drawn = draw(dict(claim.inputs), sizes, TRIED, np.random.default_rng(1), spreads=(1.0,))
    box, flat = BlackBox(replace(claim, formula=function), as_numpy), jax.tree.leaves(drawn)
    try:
        values = box(flat)
    except Exception:
        return True
    box.compare(values, list(map(np.asarray, jax.vmap(core.jaxpr_as_fun(program))(*flat))))
    return box.is_translated


def refuse_few_digits(dtype: Any) -> None:
    """Refuses a formula in float32, whose rounding errors look like mistakes."""
    if np.dtype(dtype).name in ("float32", "float16", "bfloat16"):
        raise UnusableValue(
            f"the formula returns {dtype}, expected float64, in which the inputs are given"
        )


TRIED = 3
"""Random inputs at which a program is compared with the code."""


def is_of_tracing(error: BaseException) -> bool:
    """Whether an exception says that a function takes no values that JAX traces."""
    words = ("traced", "Tracer", "immutable", "__jax_array__", "JitTracer")
    return isinstance(error, jax.errors.JAXTypeError) or any(word in str(error) for word in words)
