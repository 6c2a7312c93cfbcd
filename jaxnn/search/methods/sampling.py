"""Methods with one round, decided before any training: grid, random, Sobol'."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jaxnn.search.methods import BuiltIn, Round, Rounds, fresh
from jaxnn.search.space import Config, Space, expect
from jaxnn.spec import require_count


def grid(points: int | None = None, **by_name: int) -> BuiltIn:
    """Every combination of evenly spaced values (evenly in the logarithm for ``log_uniform``).

    Args:
      points: the number of values of each interval, both ends included.
      **by_name: the number of values for one name.
    """
    settings = {"points": points, **by_name}
    for name, count in settings.items():
        expect(
            count is None or require_count(name, count) > 1,
            f"grid: {name} is {count}, expected at least 2 points",
        )

    def draw(space: Space, _: int) -> list[Config]:
        spaced = [name for name in space if not space[name].options]
        for name in by_name:
            expect(
                name in spaced,
                f"grid: points are given for {name!r}, expected one of {spaced}: intervals and "
                "whole numbers",
            )
        counts = {name: by_name.get(name, points) for name in space}
        for name, domain in space.items():
            expect(
                not domain.is_interval or counts[name] is not None,
                f"grid: {name} has no end of values, expected a number of points such as "
                f"grid({name}=5)",
            )
        return space.grid(counts)

    return _one_round("grid", settings, draw)


def random(count: int) -> BuiltIn:
    """``count`` independent random configurations (Bergstra and Bengio, 2012)."""
    count = require_count("count", count)
    return _one_round("random", {"count": count}, partial(random_configurations, count=count))


def sobol(count: int) -> BuiltIn:
    """The first ``count`` points of a scrambled Sobol' sequence (Owen, 1998): no gaps, no clusters.

    A power of two makes the points most even.

    Raises:
      SpaceError: the space has more dimensions than SciPy has direction numbers for.
    """
    count = require_count("count", count)

    def draw(space: Space, seed: int) -> list[Config]:
        from scipy.stats import qmc

        names = space.searched
        if not names:
            return [space.configuration({})] * count
        most = qmc.Sobol.MAXDIM
        expect(len(names) <= most, f"sobol: {len(names)} hyperparameters, expected at most {most}")
        sequence = qmc.Sobol(len(names), rng=np.random.default_rng([seed, 3]))
        points = sequence.random_base2((count - 1).bit_length())[:count].tolist()
        return [space.configuration(dict(zip(names, u, strict=True))) for u in points]

    return _one_round("sobol", {"count": count}, draw)


def _one_round(
    name: str, settings: dict[str, Any], draw: Callable[[Space, int], list[Config]]
) -> BuiltIn:
    """A method of configurations that (space, seed) decide, and that train in full."""

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        yield Round(fresh(draw(space, seed)), evaluations)

    def work(space: Space, evaluations: int) -> int:
        return len(draw(space, 0)) * evaluations

    return BuiltIn(name, settings, rounds, work)


def random_configuration(space: Space, seed: int, number: int) -> Config:
    """The configuration of a number: a function of (seed, number) alone."""
    draws = np.random.default_rng([seed, 2, number]).random(len(space.searched))
    return space.configuration(dict(zip(space.searched, draws.tolist(), strict=True)))


def random_configurations(space: Space, seed: int, count: int, first: int = 0) -> list[Config]:
    """The configurations of ``count`` numbers from ``first`` on."""
    return [random_configuration(space, seed, first + number) for number in range(count)]
