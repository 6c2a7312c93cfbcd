"""Search spaces: which hyperparameters may be what, and what has to be compiled for it.

A *configuration* is a plain dict from the names of a space to values. A sampler works in the unit
cube: it gives every name a number u in [0, 1), and the domain turns it into a value.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxnn.optimizers import OPTIMIZERS
from jaxnn.search.domain import Domain, SpaceError, readable
from jaxnn.search.task import SEARCH_OPTIMIZER
from jaxnn.spec import check_hyper
from jaxnn.types import Hyper

Config = dict[str, Any]
"""A configuration: values by the names of the space; a parameter that does not apply is absent."""

TRACED = Hyper._fields
"""The hyperparameters that never cause a compilation."""

STATIC = ("batch_size", "hidden", "activation", "initializer", "optimizer", "schedule", "loss")
"""Those that do: one program per distinct combination."""

LARGEST_GRID = 100_000
"""Combinations that are listed at once, at most."""


class Space(Mapping[str, Domain]):
    """A checked space: domains by name, in an order in which conditions come before what they rule.

    Raises:
      SpaceError: no domains, an unknown name, no learning rate, a value the trainer refuses, a
        compiled hyperparameter whose values cannot be listed, a condition that never holds, or a
        hyperparameter that an optimizer does not read.
    """

    def __init__(self, domains: Mapping[str, Domain], other_names: tuple[str, ...] = ()):
        if not isinstance(domains, Mapping):
            raise SpaceError(f"the space is {domains!r}, expected a dict of domains by name")
        for name, domain in domains.items():
            if not isinstance(domain, Domain):
                raise SpaceError(
                    f"{name} is {domain!r}, expected uniform, log_uniform, integer, choice or "
                    "fixed(...)"
                )
            _check_name(name, other_names)
            (_check_range if name in TRACED else _check_static)(name, domain)
        if "learning_rate" not in domains or domains["learning_rate"].conditions:
            raise SpaceError(
                "learning_rate is not in every configuration of the space, expected a domain "
                "without conditions, such as log_uniform(1e-3, 1.0)"
            )
        self._domains = _in_order(dict(domains))
        self._check_readers()

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

    def grid(
        self, points: Mapping[str, int | None], names: Iterable[str] | None = None
    ) -> list[Config]:
        """All combinations of some names, by default of all; conditions must be among them.

        Raises:
          SpaceError: there are too many.
        """
        found: list[Config] = [{}]
        for name in self if names is None else [n for n in self if n in set(names)]:
            applicable = [applies(self[name], config) for config in found]
            values = self[name].grid(points.get(name))
            if len(found) + sum(applicable) * (len(values) - 1) > LARGEST_GRID:
                raise SpaceError(
                    f"the grid has more than {LARGEST_GRID} combinations, at {name}: expected fewer"
                )
            found = [
                extended
                for config, applied in zip(found, applicable, strict=True)
                for extended in ([config | {name: v} for v in values] if applied else [config])
            ]
        return found

    def static_parts(self) -> list[Config]:
        """The distinct combinations of static values, of whole numbers the two ends alone."""
        ruling = {condition for domain in self.values() for condition, _ in domain.conditions}
        ends = {n: 2 for n, d in self.items() if d.kind == "integer" and n not in ruling}
        return self._static_parts(ends, self._static)

    def programs(self) -> int:
        """How many programs the whole space needs: the combinations of its static values."""
        linked = self._with_rulers(name for name in self._static if self[name].conditions)
        free = [len(self[name].values) for name in self._static if name not in linked]
        return math.prod(free) * len(self._static_parts({}, linked))

    def describe(self) -> dict[str, Any]:
        """The space in JSON's types, as the record of a run has it."""
        return {name: describe_domain(domain) for name, domain in self.items()}

    @property
    def _static(self) -> list[str]:
        return [name for name in self if name not in TRACED]

    def _static_parts(self, points: Mapping[str, int], names: Iterable[str]) -> list[Config]:
        configs = self.grid(points, self._with_rulers(names))
        return list({tuple(part.items()): part for part in map(static_part, configs)}.values())

    def _with_rulers(self, names: Iterable[str]) -> set[str]:
        """The names and all that decide whether they apply."""
        found = set(names)
        for name in reversed(self._domains):  # what rules a name comes before it
            if name in found:
                found |= {condition for condition, _ in self[name].conditions}
        return found

    def _check_readers(self) -> None:
        for name in [name for name in self if name in TRACED]:
            for config in self.grid({}, self._with_rulers([name, "optimizer"]) - {name}):
                optimizer = config.get("optimizer", SEARCH_OPTIMIZER)
                if applies(self[name], config) and not _is_read(name, optimizer):
                    readers = tuple(o for o in OPTIMIZERS if _is_read(name, o))
                    raise SpaceError(
                        f"{name} means nothing to the optimizer {optimizer!r}, expected "
                        f"conditional(..., optimizer={readers})"
                    )


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
                if domains[condition].is_interval:
                    raise SpaceError(
                        f"{name} depends on {condition}, which has no end of values, expected a "
                        "condition on a choice, integer or fixed"
                    )
                if not any(value in domains[condition].values for value in values):
                    raise SpaceError(
                        f"{name} depends on {condition} being one of {values}, which it never is"
                    )
        if not ready:
            raise SpaceError(f"the conditions of {', '.join(waiting)} go in a circle")
        ordered |= {name: waiting.pop(name) for name in ready}
    return ordered


def _check_range(name: str, domain: Domain) -> None:
    for value in domain.options or (domain.low, domain.high):
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise SpaceError(f"{name} can be {value!r}, expected numbers")
        try:
            check_hyper(Hyper(0.1)._replace(**{name: value}))
        except ValueError as error:
            raise SpaceError(f"the space: {error}") from None


def _check_static(name: str, domain: Domain) -> None:
    if domain.is_interval:
        raise SpaceError(
            f"{name} is {domain.kind}({domain.low:g}, {domain.high:g}), expected an integer, "
            "choice or fixed: each of its values is compiled"
        )
    for value in domain.values if name == "optimizer" else ():
        if not callable(value) and value not in OPTIMIZERS:
            raise SpaceError(f"optimizer can be {value!r}, expected one of {sorted(OPTIMIZERS)}")


def _is_read(name: str, optimizer: Any) -> bool:
    """Whether a traced hyperparameter changes anything; L2 is the objective's, whatever minimises.

    What an optimizer of one's own reads is not known.
    """
    return name == "l2" or callable(optimizer) or name in OPTIMIZERS[optimizer].reads
