"""Search spaces: what each hyperparameter may be, and what has to be compiled for it.

A *configuration* is a plain dict from the names of a space to values. A sampler works in the unit
cube: it gives every name a number u in [0, 1), and the domain turns it into a value.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from jaxnn.spec import OPTIMIZERS, check_hyper
from jaxnn.types import Hyper

Config = dict[str, Any]
"""A configuration: values by the names of the space; a parameter that does not apply is absent."""

TRACED = Hyper._fields
"""The hyperparameters that never cause a compilation."""

STATIC = ("batch_size", "hidden", "activation", "initializer", "optimizer", "schedule", "loss")
"""Those that do: one program per distinct combination."""

READS = {
    "sgd": ("learning_rate", "l2"),
    "momentum": ("learning_rate", "l2", "momentum"),
    "nesterov": ("learning_rate", "l2", "momentum"),
    "adam": ("learning_rate", "l2", "b1", "b2", "eps"),
}
"""What each optimizer makes use of."""


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
    conditions: tuple[tuple[str, tuple], ...] = field(default=())

    def at(self, u: float) -> Any:
        """The value at u in [0, 1): the quantile function of the domain's distribution."""
        if self.kind == "uniform":
            return min(self.low + u * (self.high - self.low), self.high)
        if self.kind == "log_uniform":
            value = math.exp(math.log(self.low) + u * math.log(self.high / self.low))
            return min(max(value, self.low), self.high)
        if self.kind == "integer":
            return min(int(self.low + u * (self.high - self.low + 1)), int(self.high))
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def where(self, value: Any) -> float:
        """The u of a value, the inverse of ``at``; of one that is listed, its cell's middle."""
        if self.kind == "uniform":
            return (value - self.low) / (self.high - self.low)
        if self.kind == "log_uniform":
            return math.log(value / self.low) / math.log(self.high / self.low)
        if self.kind == "integer":
            return (value - self.low + 0.5) / (self.high - self.low + 1)
        return (self.options.index(value) + 0.5) / len(self.options)

    def contains(self, value: Any) -> bool:
        """Whether it is one of the domain's values."""
        if self.options:
            return value in self.options
        whole = self.kind != "integer" or value == int(value)
        return self.low <= value <= self.high and whole

    @property
    def is_interval(self) -> bool:
        """Whether it has more values than can be listed."""
        return self.kind in ("uniform", "log_uniform")

    @property
    def values(self) -> tuple:
        """All its values, where they can be listed."""
        if self.kind == "integer":
            return tuple(range(int(self.low), int(self.high) + 1))
        return self.options

    def grid(self, points: int | None) -> tuple:
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
    options = tuple(tuple(o) if isinstance(o, list) else o for o in options)
    if not options:
        raise SpaceError("choice(): expected at least one option")
    for position, option in enumerate(options):
        if option in options[:position]:
            raise SpaceError(f"choice{options}: {option!r} is there twice")
    return Domain("choice", options=options)


def fixed(value: Any) -> Domain:
    """This value."""
    return Domain("fixed", options=(tuple(value) if isinstance(value, list) else value,))


def conditional(domain: Domain, **conditions: Any) -> Domain:
    """The domain of a hyperparameter that only applies in some configurations.

    ``conditional(uniform(0.5, 0.99), optimizer=("momentum", "nesterov"))`` applies where the
    configuration's optimizer is one of the two; elsewhere the name is absent from it.

    Args:
      domain: of the values where it applies.
      **conditions: by the name of another hyperparameter, the value, or tuple of values, it must
        have.
    """
    if not conditions:
        raise SpaceError("conditional(): expected a condition, such as optimizer='momentum'")
    allowed = tuple(
        (name, values if isinstance(values, tuple) else (values,))
        for name, values in conditions.items()
    )
    return replace(domain, conditions=domain.conditions + allowed)


def _interval(name: str, low: float, high: float) -> tuple[float, float]:
    try:
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        raise SpaceError(f"{name}({low!r}, {high!r}): expected two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SpaceError(
            f"{name}({low:g}, {high:g}): expected two finite numbers, the smaller one first"
        )
    return low, high


class Space(Mapping[str, Domain]):
    """A checked space: domains by name, in an order in which conditions come before what they rule.

    Raises:
      SpaceError: no domains, an unknown name, a value the trainer refuses, a condition on nothing,
        or a hyperparameter that no optimizer of the space reads.
    """

    def __init__(self, domains: Mapping[str, Domain], other_names: tuple[str, ...] = ()):
        if not domains:
            raise SpaceError("the space is empty, expected at least one hyperparameter")
        for name, domain in domains.items():
            if not isinstance(domain, Domain):
                raise SpaceError(
                    f"{name} is {domain!r}, expected uniform, log_uniform, integer, choice or "
                    "fixed(...)"
                )
            _check_name(name, other_names)
        self._domains = _in_order(dict(domains))
        for name, domain in self._domains.items():
            if name in TRACED:
                _check_range(name, domain)
        _check_readers(self._domains)

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    @property
    def searched(self) -> tuple[str, ...]:
        """The names with more than one value: the axes of the unit cube."""
        return tuple(n for n, d in self._domains.items() if d.is_interval or len(d.values) > 1)

    def configuration(self, u: Mapping[str, float]) -> Config:
        """The configuration at a point of the unit cube; u has a number for each searched name."""
        return self.active({name: domain.at(u.get(name, 0.0)) for name, domain in self.items()})

    def active(self, values: Mapping[str, Any]) -> Config:
        """The values without those whose conditions do not hold."""
        config: Config = {}
        for name, domain in self.items():
            if name in values and applies(domain, config):
                config[name] = values[name]
        return config

    def grid(self, points: Mapping[str, int | None]) -> list[Config]:
        """All combinations, each once though an inapplicable hyperparameter may have had values."""
        axes = [[(name, v) for v in self[name].grid(points.get(name))] for name in self]
        found: list[Config] = []
        seen = set()
        for values in product(*axes):
            config = self.active(dict(values))
            identity = tuple(config.items())
            if identity not in seen:
                seen.add(identity)
                found.append(config)
        return found

    def programs(self) -> int:
        """How many programs the whole space needs: the combinations of its static values.

        Raises:
          SpaceError: a static hyperparameter whose values cannot be listed.
        """
        domains = {n: d for n, d in self.items() if n not in TRACED}
        for name, domain in domains.items():
            if domain.is_interval:
                raise SpaceError(
                    f"{name} is {domain.kind} and static: every value needs a program of its own, "
                    "expected integer, choice or fixed(...) to count them"
                )
        return len(Space._unchecked(domains).grid({})) if domains else 1

    def describe(self) -> dict[str, Any]:
        """The space in JSON's types, as the record of a run has it."""
        return {name: describe_domain(domain) for name, domain in self.items()}

    @classmethod
    def _unchecked(cls, domains: dict[str, Domain]) -> "Space":
        space = cls.__new__(cls)
        space._domains = {
            n: replace(d, conditions=tuple(c for c in d.conditions if c[0] in domains))
            for n, d in domains.items()
        }
        return space


def applies(domain: Domain, config: Mapping[str, Any]) -> bool:
    """Whether a hyperparameter's conditions hold in a configuration."""
    return all(name in config and config[name] in values for name, values in domain.conditions)


def static_part(config: Config) -> Config:
    """What is compiled: configurations that agree in it share a program."""
    return {name: value for name, value in config.items() if name not in TRACED}


def describe_domain(domain: Domain) -> dict[str, Any]:
    """A domain in JSON's types."""
    ends = {"options": list(map(readable, domain.options))}
    if not domain.options:
        ends = {"low": domain.low, "high": domain.high}
    conditions = {name: list(map(readable, values)) for name, values in domain.conditions}
    return {"kind": domain.kind, **ends} | ({"where": conditions} if conditions else {})


def readable(value: Any) -> Any:
    """A value of a configuration in JSON's types; a function by its qualified name."""
    if isinstance(value, tuple | list):
        return [readable(entry) for entry in value]
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value.item() if isinstance(value, np.generic) else value


def _check_name(name: str, other_names: tuple[str, ...]) -> None:
    if name == "epochs":
        raise SpaceError(
            "epochs is not a hyperparameter to search: every evaluation is a candidate stopping "
            "point; expected Task(epochs=...) with the most that may be spent"
        )
    known = (*TRACED, *STATIC, *other_names)
    if name not in known:
        raise SpaceError(f"{name!r} is not a hyperparameter, expected one of {', '.join(known)}")


def _in_order(domains: dict[str, Domain]) -> dict[str, Domain]:
    ordered: dict[str, Domain] = {}
    waiting = dict(domains)
    while waiting:
        ready = [n for n, d in waiting.items() if all(c in ordered for c, _ in d.conditions)]
        for name, domain in waiting.items():
            for condition, values in domain.conditions:
                if condition not in domains:
                    raise SpaceError(f"{name} depends on {condition!r}, which is not in the space")
                if not any(domains[condition].contains(v) for v in values):
                    raise SpaceError(
                        f"{name} depends on {condition} being one of {values}, which it never is"
                    )
        if not ready:
            raise SpaceError(f"{', '.join(waiting)} depend on each other in a circle")
        ordered |= {name: waiting.pop(name) for name in ready}
    return ordered


def _check_range(name: str, domain: Domain) -> None:
    ends = domain.options or (domain.low, domain.high)
    for value in ends:
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise SpaceError(f"{name} can be {value!r}, expected numbers")
        try:
            check_hyper(Hyper(0.1)._replace(**{name: value}))
        except ValueError as error:
            raise SpaceError(f"the space: {error}") from None


def _check_readers(domains: dict[str, Domain]) -> None:
    optimizer = domains.get("optimizer", fixed("momentum"))
    if any(callable(option) for option in optimizer.options):
        return
    for option in optimizer.options:
        if option not in OPTIMIZERS:
            raise SpaceError(f"optimizer can be {option!r}, expected one of {sorted(OPTIMIZERS)}")
    for name, domain in domains.items():
        applicable = dict(domain.conditions).get("optimizer", optimizer.options)
        idle = [o for o in optimizer.options if o in applicable and name not in READS[o]]
        if name in TRACED and idle:
            readers = tuple(o for o in READS if name in READS[o])
            raise SpaceError(
                f"{name} means nothing to the optimizer {idle[0]!r}, expected "
                f"conditional(..., optimizer={readers})"
            )
