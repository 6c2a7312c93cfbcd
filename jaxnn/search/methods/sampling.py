"""Methods with one round, decided before any training: grid, random, Sobol'."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from jaxnn.search.methods import Round, Rounds, fresh
from jaxnn.search.space import Config, Space, SpaceError
from jaxnn.spec import require_count


@dataclass(frozen=True)
class OneRound:
    """Configurations that are decided before any training, and train in full.

    Attributes:
      name: the name of the method.
      settings: the arguments of the method, in JSON's types.
      draw: (space, seed) -> configurations.
    """

    name: str
    settings: dict[str, Any]
    draw: Callable[[Space, int], list[Config]] = field(repr=False, compare=False)

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round of all configurations."""
        yield Round(fresh(self.draw(space, seed)), evaluations)

    def work(self, space: Space, evaluations: int) -> int:
        """Full training of every configuration."""
        return len(self.draw(space, 0)) * evaluations

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types."""
        return {"method": self.name, **self.settings}


def grid(points: int | None = None, **by_name: int) -> OneRound:
    """Every combination of evenly spaced values (evenly in the logarithm for ``log_uniform``).

    Args:
      points: the number of values of each interval, both ends included.
      **by_name: the number of values for one name.
    """
    for name, count in {"points": points, **by_name}.items():
        if count is not None and require_count(name, count) < 2:
            raise SpaceError(f"grid: {name} is {count}, expected at least 2 points")
    settings = {"points": points, **by_name}
    return OneRound("grid", settings, lambda space, _: _combinations(space, points, by_name))


def random(count: int) -> OneRound:
    """``count`` independent random configurations (Bergstra and Bengio, 2012)."""
    count = require_count("count", count)
    return OneRound("random", {"count": count}, partial(random_configurations, count=count))


def sobol(count: int) -> OneRound:
    """The first ``count`` points of a scrambled Sobol' sequence (Owen, 1998): no gaps, no clusters.

    A power of two makes the points most even.
    """
    count = require_count("count", count)
    return OneRound("sobol", {"count": count}, partial(sobol_configurations, count=count))


def _combinations(space: Space, points: int | None, by_name: Mapping[str, int]) -> list[Config]:
    for name in by_name:
        if name not in space or space[name].options:
            spaced = [n for n in space if not space[n].options]
            raise SpaceError(
                f"grid: points are given for {name!r}, expected one of {spaced}: intervals and "
                "whole numbers"
            )
    counts = {name: by_name.get(name, points) for name in space}
    for name, domain in space.items():
        if domain.is_interval and counts[name] is None:
            raise SpaceError(
                f"grid: {name} has no end of values, expected a number of points such as "
                f"grid({name}=5)"
            )
    return space.grid(counts)


def random_configuration(space: Space, seed: int, number: int) -> Config:
    """The configuration of a number: a function of (seed, number) alone."""
    draws = np.random.default_rng([seed, 2, number]).random(len(space.searched))
    return space.configuration(dict(zip(space.searched, draws.tolist(), strict=True)))


def random_configurations(space: Space, seed: int, count: int, first: int = 0) -> list[Config]:
    """The configurations of ``count`` numbers from ``first`` on."""
    return [random_configuration(space, seed, first + number) for number in range(count)]


def sobol_configurations(space: Space, seed: int, count: int) -> list[Config]:
    """The first points of a seed's sequence, as configurations.

    Raises:
      SpaceError: the space has more dimensions than SciPy has direction numbers for.
    """
    from scipy.stats import qmc

    names = space.searched
    if not names:
        return [space.configuration({})] * count
    if len(names) > qmc.Sobol.MAXDIM:
        raise SpaceError(
            f"sobol: {len(names)} hyperparameters, expected at most {qmc.Sobol.MAXDIM}"
        )
    rng = np.random.default_rng([seed, 3])
    points = qmc.Sobol(len(names), rng=rng).random_base2(max(count - 1, 0).bit_length())
    return [
        space.configuration(dict(zip(names, row, strict=True))) for row in points[:count].tolist()
    ]
