"""What one hyperparameter may be: an interval, whole numbers, options, a single value."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np


class SpaceError(ValueError):
    """A space that cannot be searched."""


@dataclass(frozen=True)
class Domain:
    """What one hyperparameter may be.

    Attributes:
      kind: "uniform", "log_uniform", "integer", "choice" or "fixed".
      low: the smallest value of an interval.
      high: the largest.
      options: the values of a choice.
      conditions: (name, values) pairs: it applies where every name has one of the values.
    """

    kind: str
    low: float = math.nan
    high: float = math.nan
    options: tuple = ()
    conditions: tuple[tuple[str, tuple], ...] = ()

    def at(self, u: float) -> Any:
        """The value at u in [0, 1): the quantile function of the domain's distribution."""
        if self.kind == "uniform":
            return min(self.low + u * (self.high - self.low), self.high)
        if self.kind == "log_uniform":
            first, last = math.log(self.low), math.log(self.high)
            return min(max(math.exp(first + u * (last - first)), self.low), self.high)
        return self.values[min(int(u * len(self.values)), len(self.values) - 1)]

    def where(self, value: Any) -> float:
        """The u of a value, the inverse of ``at``; of one that is listed, its cell's middle."""
        if self.kind == "uniform":
            return (value - self.low) / (self.high - self.low)
        if self.kind == "log_uniform":
            first, last = math.log(self.low), math.log(self.high)
            return (math.log(value) - first) / (last - first)
        return (self.values.index(value) + 0.5) / len(self.values)

    @property
    def is_interval(self) -> bool:
        """Whether it has more values than can be listed."""
        return self.kind in ("uniform", "log_uniform")

    @property
    def values(self) -> Sequence:
        """All its values, where they can be listed."""
        if self.kind == "integer":
            return range(int(self.low), int(self.high) + 1)
        return self.options

    def grid(self, points: int | None) -> Sequence:
        """Evenly spaced values with both ends; of what can be listed, all of them by default."""
        if self.options or points is None:
            return self.values
        if self.kind == "log_uniform":
            return tuple(np.geomspace(self.low, self.high, points).tolist())
        spaced = np.linspace(self.low, self.high, points)
        if self.kind == "integer":
            return tuple(sorted({round(value) for value in spaced.tolist()}))
        return tuple(spaced.tolist())


def uniform(low: float, high: float) -> Domain:
    """Any number from low to high, all equally likely."""
    return Domain("uniform", *_interval("uniform", low, high))


def log_uniform(low: float, high: float) -> Domain:
    """Any number from low to high, above 0, with all factors equally likely."""
    low, high = _interval("log_uniform", low, high)
    if low <= 0:
        raise SpaceError(f"log_uniform({low:g}, {high:g}): expected numbers above 0")
    return Domain("log_uniform", low, high)


def integer(low: int, high: int) -> Domain:
    """Any whole number from low to high, both included."""
    for value in (low, high):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise SpaceError(f"integer({low!r}, {high!r}): expected whole numbers")
    if low > high:
        raise SpaceError(f"integer({low}, {high}): expected the lower end first")
    return Domain("integer", int(low), int(high))


def choice(*options: Any) -> Domain:
    """One of the options, all equally likely; layer sizes are tuples: ``choice((), (50, 50))``."""
    if not options:
        raise SpaceError("choice(): expected at least one option")
    kept = tuple(map(_option, options))
    names = list(map(readable, kept))
    for position, name in enumerate(names):
        if name in names[:position]:
            raise SpaceError(
                f"choice: {name!r} is there twice, expected different options (a function is known "
                "by its name)"
            )
    return Domain("choice", options=kept)


def fixed(value: Any) -> Domain:
    """This value."""
    return Domain("fixed", options=(_option(value),))


def conditional(domain: Domain, **conditions: Any) -> Domain:
    """The domain of a hyperparameter that only applies in some configurations.

    ``conditional(uniform(0.5, 0.99), optimizer=("momentum", "nesterov"))`` applies where the
    configuration's optimizer is one of the two; elsewhere the name is absent from it.

    Args:
      domain: of the values where it applies.
      **conditions: by the name of another hyperparameter, the value, or tuple of values, it must
        have.
    """
    if not isinstance(domain, Domain):
        raise SpaceError(f"conditional({domain!r}): expected a domain, such as uniform(0.5, 0.99)")
    if not conditions:
        raise SpaceError("conditional(): expected a condition, such as optimizer='momentum'")
    kept = {name: _option(values) for name, values in conditions.items()}
    allowed = tuple(
        (name, values if isinstance(values, tuple) else (values,)) for name, values in kept.items()
    )
    return replace(domain, conditions=domain.conditions + allowed)


def readable(value: Any) -> Any:
    """A value of a configuration in JSON's types; a function by its qualified name."""
    if isinstance(value, tuple | list):
        return [readable(entry) for entry in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value.item() if isinstance(value, np.generic) else value


def _option(value: Any) -> Any:
    """An option as it is kept: something hashable that the record of a run can name."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(_option, value))
    named = callable(value) and isinstance(value, Hashable)
    if not named and not isinstance(value, str | int | float | None):
        raise SpaceError(
            f"an option is {value!r}, expected a number, a text, a function, or a tuple of them"
        )
    return value


def _interval(name: str, low: float, high: float) -> tuple[float, float]:
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in (low, high)):
        raise SpaceError(f"{name}({low!r}, {high!r}): expected two numbers")
    low, high = float(low), float(high)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(
            f"{name}({low:g}, {high:g}): expected two finite numbers, the smaller one first"
        )
    return low, high
