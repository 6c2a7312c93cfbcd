"""Search spaces: a domain for every hyperparameter, and the programs that a space needs.

A *configuration* is a plain dict from hyperparameter names to values. Samplers work in the unit
cube: a sampler draws a number u in [0, 1) for every searched name, and the name's domain maps u to
a value.
"""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from jaxnn.modules import Module
from jaxnn.optimizers import OPTIMIZERS, OptaxSchedule, check_optimizer, reads
from jaxnn.spec import check_range
from jaxnn.types import (
    Hyper,
    did_you_mean,
    real,
    require_count,
    require_number,
    require_type,
    shown,
    whole,
)

Config = dict[str, Any]
"""Values by hyperparameter name; a hyperparameter that does not apply is absent."""

STATIC = ("batch_size", "hidden", "activation", "initializer", "optimizer", "schedule", "loss")
"""Compiled hyperparameters: every distinct combination is a program."""

SEARCH_OPTIMIZER = "momentum"
"""The optimizer of a search whose space names none; ``Spec`` by itself is plain SGD."""

BATCH_SIZE = 100
"""The batch size of a search whose space has none, or all examples of a smaller fold."""

LARGEST_GRID = 100_000
"""The most combinations that a grid lists."""


class SpaceError(ValueError):
    """A space that cannot be searched."""


def expect(holds: bool, message: str) -> None:
    """SpaceError with the message unless a condition holds."""
    if not holds:
        raise SpaceError(message)


@dataclass(frozen=True)
class Domain:
    """The values of a hyperparameter, with a distribution over the values.

    Attributes:
      kind: "uniform", "log_uniform", "integer", "choice" or "fixed".
      low: the smallest value of an interval.
      high: the largest value of an interval.
      options: the values of a choice.
      conditions: (name, values) pairs: the hyperparameter applies where every name has one of the
        values.
    """

    kind: str
    low: float = math.nan
    high: float = math.nan
    options: tuple = ()
    conditions: tuple[tuple[str, tuple], ...] = ()

    def at(self, u: float) -> Any:
        """The value at u in [0, 1): the quantile function of the domain's distribution."""
        u = require_number("u", u, "a number from 0 to 1", lambda u: 0 <= u <= 1)
        if not self.is_interval:
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        first, last = self._scaled(self.low), self._scaled(self.high)
        value = first + u * (last - first)
        value = math.exp(value) if self.kind == "log_uniform" else value
        return min(max(value, self.low), self.high)

    def where(self, value: Any) -> float:
        """The u of a value, the inverse of ``at``; for a listed value the middle of its cell."""
        if not self.is_interval:
            return (self.values.index(value) + 0.5) / len(self.values)
        first, last = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - first) / (last - first)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.kind == "log_uniform" else value

    def checked(self, value: Any, name: str) -> Any:
        """A value of the domain, also given in JSON's types; SpaceError for any other."""
        if self.is_interval:
            number = real(value)
            inside = number is not None and self.low <= number <= self.high
            expect(inside, f"{name} is {shown(value)}, expected from {self.low:g} to {self.high:g}")
            return number
        for known in self.values if self.options or whole(value) is not None else ():
            if readable(known) == readable(value):
                return known
        ends = f"{self.low:g} to {self.high:g}"
        expected = f"one of {readable(self.options)}" if self.options else f"an integer from {ends}"
        raise SpaceError(f"{name} is {shown(value)}, expected {expected}")

    @property
    def is_interval(self) -> bool:
        """Whether the domain has more values than a list can hold."""
        return self.kind in ("uniform", "log_uniform")

    @property
    def values(self) -> Sequence:
        """All values of an integer, choice or fixed domain."""
        if self.kind == "integer":
            return range(int(self.low), int(self.high) + 1)
        return self.options

    def grid(self, points: int | None) -> Sequence:
        """Evenly spaced values, both ends included; by default all values of a listed domain."""
        if self.options or (points is None and not self.is_interval):
            return self.values
        points = require_count("the number of points", points)
        expect(points <= LARGEST_GRID, f"{points} points, expected at most {LARGEST_GRID}")
        spaced = np.geomspace if self.kind == "log_uniform" else np.linspace
        values = spaced(self.low, self.high, points).tolist()
        return sorted(set(map(round, values))) if self.kind == "integer" else values

    def describe(self) -> dict[str, Any]:
        """The domain in JSON's types."""
        ends = {"low": self.low, "high": self.high}
        described = {"options": self.options} if self.options else ends
        where = {"where": dict(self.conditions)} if self.conditions else {}
        return readable({"kind": self.kind, **described, **where})


def uniform(low: float, high: float) -> Domain:
    """Any number from low to high, all equally likely.

    >>> uniform(0.5, 0.9).at(0.25)
    0.6
    """
    return Domain("uniform", *_interval("uniform", low, high))


def log_uniform(low: float, high: float) -> Domain:
    """Any number from low to high, above 0, with all factors equally likely.

    >>> round(log_uniform(1e-4, 1.0).at(0.5), 6)
    0.01
    """
    low, high = _interval("log_uniform", low, high)
    expect(low > 0, f"log_uniform({low:g}, {high:g}): expected numbers above 0")
    return Domain("log_uniform", low, high)


def integer(low: int, high: int) -> Domain:
    """Any integer from low to high, both included.

    >>> list(integer(5, 7).values)
    [5, 6, 7]
    """
    numbers = None not in (whole(low), whole(high))
    expect(numbers, f"integer({shown(low)}, {shown(high)}): expected whole numbers")
    expect(low <= high, f"integer({low}, {high}): expected the lower end first")
    return Domain("integer", int(low), int(high))


def choice(*options: Any) -> Domain:
    """One of the options, all equally likely; layer sizes are tuples: ``choice((), (50, 50))``.

    >>> choice("sgd", "adam").at(0.7)
    'adam'
    """
    expect(bool(options), "choice(): expected at least one option")
    kept = tuple(map(option, options))
    names = list(map(readable, kept))
    if twice := [name for name in names if names.count(name) > 1]:
        raise SpaceError(
            f"choice: {twice[0]!r} is there twice, expected different options (a function is known "
            "by its name)"
        )
    return Domain("choice", options=kept)


def fixed(value: Any) -> Domain:
    """A single value."""
    return Domain("fixed", options=(option(value),))


def conditional(domain: Domain, **conditions: Any) -> Domain:
    """The domain of a hyperparameter that applies in some configurations only.

    >>> momentum = conditional(uniform(0.5, 0.99), optimizer=("momentum", "nesterov"))
    >>> momentum.conditions
    (('optimizer', ('momentum', 'nesterov')),)

    With the optimizer adam, a configuration has no ``momentum``.

    Args:
      domain: the values where the hyperparameter applies.
      **conditions: for the name of another hyperparameter the required value, or a tuple of values.
    """
    expect(
        isinstance(domain, Domain),
        f"conditional({shown(domain)}): expected a domain, such as uniform(0.5, 0.99)",
    )
    expect(bool(conditions), "conditional(): expected a condition, such as optimizer='momentum'")
    kept = {name: option(values) for name, values in conditions.items()}
    allowed = [(name, v if isinstance(v, tuple) else (v,)) for name, v in kept.items()]
    return replace(domain, conditions=(*domain.conditions, *allowed))


def readable(value: Any) -> Any:
    """A value, or a whole configuration, in JSON's types; functions by qualified name."""
    if isinstance(value, Mapping):
        return {name: readable(entry) for name, entry in value.items()}
    if isinstance(value, tuple | list):
        return [readable(entry) for entry in value]
    if isinstance(value, Module):
        return value.title
    if isinstance(value, OptaxSchedule):
        return repr(value)
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value.item() if isinstance(value, np.generic) else value


def cell(value: Any) -> str:
    """A value of a configuration for people: layer sizes as ``50-30``."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def applies(domain: Domain, config: Mapping[str, Any]) -> bool:
    """Whether a hyperparameter's conditions hold in a configuration."""
    return all(name in config and config[name] in values for name, values in domain.conditions)


class Space(Mapping[str, Domain]):
    """Checked domains by name, sorted: conditions come before the names they rule; read-only.

    >>> space = Space({"learning_rate": log_uniform(1e-3, 1.0), "hidden": choice((), (50, 50))})
    >>> space.configuration({"learning_rate": 0.0, "hidden": 0.9})
    {'learning_rate': 0.00100..., 'hidden': (50, 50)}
    >>> space.programs()
    2

    Attributes:
      searched: the names with more than one value: the axes of the unit cube.
      traced: the names of traced hyperparameters, of which no value causes a compilation.
      static: the names of compiled hyperparameters.

    Args:
      domains: by name.
      model_parameters: the names that build the model.
      own: the traced hyperparameters of every loss of the space, by the loss, and of the model, by
        "", as of ``Task.own_names``.
      made: the NamedTuple class of the traced hyperparameters, if the task has one.

    Raises:
      SpaceError: no domains, an unknown name, no learning rate, a value that the trainer refuses, a
        compiled hyperparameter with an interval of values, a condition that never holds, or a
        hyperparameter that an optimizer does not read.
    """

    def __init__(
        self,
        domains: Mapping[str, Domain],
        model_parameters: tuple[str, ...] = (),
        own: Mapping[Any, Mapping[str, float]] | None = None,
        made: Any = None,
    ):
        expect(
            isinstance(domains, Mapping),
            f"the space is {shown(domains)}, expected a dict of domains by name",
        )
        for name, domain in domains.items():
            expect(
                isinstance(domain, Domain),
                f"{name} is {shown(domain)}, expected uniform(...), choice(...), ...",
            )
        self._own = own or {}
        names = _traceable(domains, self._own, made)
        self._traceable = tuple(name for name in names if name not in model_parameters)
        _check_domains(domains, self._traceable, model_parameters)
        self._domains = _in_order(domains)
        self._sort_names()
        self._check_readers()

    @classmethod
    def recorded(
        cls, described: Mapping[str, Any], names: Sequence[str], traced: Sequence[str]
    ) -> "Space":
        """The space in the record of a search, unchecked: functions are known by name alone."""
        space = cls.__new__(cls)
        space._domains = {name: _domain(described[name]) for name in names}
        space._traceable = tuple(traced)
        space._sort_names()
        return space

    def _sort_names(self) -> None:
        self.searched = tuple(n for n, d in self.items() if d.is_interval or len(d.values) > 1)
        self.traced = tuple(name for name in self if name in self._traceable)
        self.static = tuple(name for name in self if name not in self._traceable)

    def __getitem__(self, name: str) -> Domain:
        return self._domains[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._domains)

    def __len__(self) -> int:
        return len(self._domains)

    def static_part(self, config: Config) -> Config:
        """The compiled values: configurations with equal static parts share a program."""
        return {name: config[name] for name in config if name not in self._traceable}

    def configuration(self, u: Mapping[str, float]) -> Config:
        """The configuration at a point of the unit cube; u has a number for each searched name."""
        require_type(isinstance(u, Mapping), "u", u, "numbers from 0 to 1 by name")
        return self.active({name: domain.at(u.get(name, 0.0)) for name, domain in self.items()})

    def active(self, values: Mapping[str, Any]) -> Config:
        """The values of the hyperparameters that apply."""
        config: Config = {}
        for name, domain in self.items():
            if name in values and applies(domain, config):
                config[name] = values[name]
        return config

    def checked(self, config: Any, name: str = "the configuration") -> Config:
        """A configuration in the values of the space; fixed values may be left out.

        Args:
          config: values by name, also in JSON's types.
          name: for messages.

        Raises:
          SpaceError: a name or value that is not in the space, or a missing value.
        """
        fits = isinstance(config, Mapping)
        expect(fits, f"{name} is {shown(config)}, expected values by name")
        found: Config = {}
        for key, domain in self.items():
            if applies(domain, found):
                if key not in config and key in self.searched:
                    raise SpaceError(f"{name} has no {key}, expected a value")
                value = config[key] if key in config else domain.at(0.0)
                found[key] = domain.checked(value, f"{name}: {key}")
        for key in config:
            hint = did_you_mean(key, tuple(self))
            expect(key in self, f"{name} has {key!r}, expected one of {', '.join(self)}{hint}")
            expect(key in found, f"{name} has {key}, which does not apply beside the other values")
        return found

    def grid(
        self, points: Mapping[str, int | None], names: Iterable[str] | None = None
    ) -> list[Config]:
        """All combinations of some names and of the names in their conditions, by default of all.

        Raises:
          SpaceError: the grid has more than ``LARGEST_GRID`` combinations.
        """
        require_type(isinstance(points, Mapping), "points", points, "numbers of points by name")
        listed = self._with_conditions(self if names is None else names)
        found: list[Config] = [{}]
        for name in filter(listed.__contains__, self):
            values = self[name].grid(points.get(name))
            more = (
                config | added
                for config in found
                for added in (({name: v} for v in values) if applies(self[name], config) else [{}])
            )
            found = list(islice(more, LARGEST_GRID + 1))
            expect(
                len(found) <= LARGEST_GRID,
                f"the grid has more than {LARGEST_GRID} combinations, at {name}: expected fewer",
            )
        return found

    def samples(self) -> list[Config]:
        """The distinct static parts with a value of a compiled name, and else the first values.

        Every option of a choice, and the lowest and the highest integer, is in a static part.
        """
        parts = []
        for name in self.static:
            for value in self[name].grid(2):
                chosen = self._first({name: value})
                parts.append(self.static_part(self.active(chosen)))
        parts = parts or [{}]
        return list({tuple(part.items()): part for part in parts}.values())

    def _first(self, chosen: Config) -> Config:
        """First values where no value is chosen, such that the chosen names apply."""
        for name in reversed(tuple(self)):  # conditions come before the names they rule
            for condition, values in self[name].conditions if name in chosen else ():
                allowed = (value for value in self[condition].values if value in values)
                chosen.setdefault(condition, next(allowed))
        return {name: domain.at(0.0) for name, domain in self.items()} | chosen

    def programs(self) -> int | None:
        """The number of programs that the whole space needs: the number of static parts.

        None where the names in conditions have more than ``LARGEST_GRID`` combinations.
        """
        ruling = self._with_conditions(c for n in self.static for c, _ in self[n].conditions)
        ruled = [name for name in self.static if name not in ruling]
        try:
            configs = self.grid({}, ruling)
        except SpaceError:
            return None
        kinds = {
            (*self.static_part(c).items(), *(n for n in ruled if applies(self[n], c)))
            for c in configs
        }
        return sum(math.prod(len(self[n].values) for n in k if isinstance(n, str)) for k in kinds)

    def _with_conditions(self, names: Iterable[str]) -> set[str]:
        """The names, and all names in the conditions."""
        found = set(names)
        for name in reversed(tuple(self)):  # conditions come before the names they rule
            if name in found:
                found |= {condition for condition, _ in self[name].conditions}
        return found

    def describe(self) -> dict[str, Any]:
        """The space in JSON's types, for the record of a run."""
        return {name: domain.describe() for name, domain in self.items()}

    def _check_readers(self) -> None:
        decides = self._with_conditions(["optimizer"])  # a name that chooses the optimizer is read
        losses = [loss for loss in self._own if loss != ""]
        for name in (name for name in self.traced if name not in decides):
            if name in self._own.get("", ()):
                continue
            of_losses = [loss for loss in losses if name in self._own[loss]]
            for config in self.grid({}, [*dict(self[name].conditions), "optimizer", "loss"]):
                optimizer = config.get("optimizer", SEARCH_OPTIMIZER)
                if not applies(self[name], config):
                    continue
                loss = config.get("loss", *losses[:1])
                if of_losses:
                    expect(
                        loss in of_losses,
                        f"{name} means nothing to the loss {loss!r}, expected conditional(..., "
                        f"loss={tuple(of_losses)})",
                    )
                elif not _is_read(name, optimizer):
                    candidates = dict.fromkeys((*OPTIMIZERS, *_optimizers(self)))
                    readers = tuple(o for o in candidates if _is_read(name, o))
                    raise SpaceError(
                        f"{name} means nothing to the optimizer {optimizer!r}, expected "
                        f"conditional(..., optimizer={readers})"
                    )


def option(value: Any) -> Any:
    """An option in a hashable form that the record of a run can name, also from JSON's types."""
    if hasattr(value, "tolist"):  # of NumPy, JAX, pandas, ...
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(option, value))
    named = callable(value) and isinstance(value, Hashable)
    if not named and not isinstance(value, str | int | float | None):
        raise SpaceError(
            f"an option is {shown(value)}, expected a number, a text, a function, a tuple"
        )
    return value


def _domain(described: Mapping[str, Any]) -> Domain:
    """The domain with a description by ``Domain.describe``."""
    options = option(described.get("options", ()))
    where = described.get("where", {}).items()
    conditions = tuple((name, option(values)) for name, values in where)
    low, high = (described.get(end, math.nan) for end in ("low", "high"))
    return Domain(described["kind"], low, high, options, conditions)


def _interval(name: str, low: float, high: float) -> tuple[float, float]:
    first, last = real(low), real(high)
    if first is None or last is None:
        raise SpaceError(f"{name}({shown(low)}, {shown(high)}): expected two numbers")
    expect(
        -math.inf < first < last < math.inf,
        f"{name}({first:g}, {last:g}): expected two finite numbers, the smaller one first",
    )
    return first, last


def _optimizers(domains: Mapping[str, Domain]) -> Sequence[Any]:
    """All values of the hyperparameter ``optimizer``; none of an interval."""
    return domains["optimizer"].values if "optimizer" in domains else (SEARCH_OPTIMIZER,)


def _traceable(
    domains: Mapping[str, Domain], own: Mapping[Any, Mapping[str, float]], made: Any
) -> tuple[str, ...]:
    """The names of traced hyperparameters, with all that optimizers, losses and model read."""
    names = dict.fromkeys(made._fields if made else Hyper._fields)
    others = dict.fromkeys(name for each in own.values() for name in each)
    for value in _optimizers(domains):
        try:
            check_optimizer(value)
        except ValueError as error:
            reason = str(error).partition(", expected ")[2]
            raise SpaceError(f"optimizer can be {value!r}, expected {reason}") from None
        read = reads(value) or ()
        for name in domains:
            expect(
                name not in read or name not in others,
                f"{name} is a parameter of the optimizer and of the loss or the model, expected "
                "another name there",
            )
        names |= {} if made else dict.fromkeys(read)
    return (*names, *(() if made else (name for name in others if name not in names)))


def _check_domains(
    domains: Mapping[str, Domain], traceable: tuple[str, ...], model_parameters: tuple[str, ...]
) -> None:
    known = (*traceable, *STATIC, *model_parameters)
    for name, domain in domains.items():
        expect(
            name != "epochs",
            "epochs is not a hyperparameter to search: every evaluation may be the last; expected "
            "Task(epochs=...)",
        )
        expect(
            name in known,
            f"{name!r} is not a hyperparameter, expected one of {', '.join(known)}"
            f"{'' if name in known else did_you_mean(name, known)}",
        )
        expect(
            name in traceable or not domain.is_interval,
            f"{name} is {domain.kind}({domain.low:g}, {domain.high:g}), expected an integer or "
            "choice: values are compiled",
        )
        ends = domain.options or (domain.low, domain.high)
        for value in ends if name in traceable else ():
            expect(type(value) in (int, float), f"{name} can be {value!r}, expected numbers")
            try:
                check_range(name, value, *_optimizers(domains))
            except ValueError as error:
                raise SpaceError(f"the space: {error}") from None
    expect(
        "learning_rate" in domains and not domains["learning_rate"].conditions,
        "learning_rate is not in every configuration, expected a domain without conditions, such "
        "as log_uniform(1e-3, 1.0)",
    )


def _in_order(domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The domains, sorted: conditions first, then the names they rule."""
    for name, domain in domains.items():
        for condition, values in domain.conditions:
            expect(
                condition in domains, f"{name} depends on {condition!r}, which is not in the space"
            )
            expect(
                not domains[condition].is_interval,
                f"{name} depends on {condition}, which has no end of values, expected a choice, "
                "integer or fixed",
            )
            expect(
                any(value in domains[condition].values for value in values),
                f"{name} depends on {condition} being one of {values}, which it never is",
            )
    ordered: dict[str, Domain] = {}
    while waiting := {n: d for n, d in domains.items() if n not in ordered}:
        ready = {n: d for n, d in waiting.items() if dict(d.conditions).keys() <= ordered.keys()}
        expect(bool(ready), f"the conditions of {', '.join(waiting)} go in a circle")
        ordered |= ready
    return ordered


def _is_read(name: str, optimizer: Any) -> bool:
    """Whether a traced hyperparameter changes the training; the training reads ``l2`` and ``clip``.

    A function that makes an optimizer may read every hyperparameter.
    """
    return name in ("l2", "clip") or name in (reads(optimizer) or (name,))
