"""Search methods: each asks for rounds of training, and learns the scores of every round.

A method never trains, and keeps nothing between runs: equal spaces, budgets, seeds and
scores lead to equal rounds. A search is therefore resumable from the scores
in its journal.

Grid, random and Sobol' train all configurations in full; successive halving and Hyperband go on
with the best; in population-based training bad trials copy good trials and change hyperparameters.
"""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxnn.search.space import Config, Domain, Space, expect, readable
from jaxnn.spec import require_count
from jaxnn.train import NEVER, ExtendedMetrics, Metrics
from jaxnn.types import Hyper, real, require_number, shown


class Trial(NamedTuple):
    """A configuration in training."""

    number: int
    config: Config
    parent: int | None = None
    """The trial that supplies the first state; the own number to go on; None: a new model."""


class Round(NamedTuple):
    """Trials to train from their current states up to an evaluation."""

    trials: tuple[Trial, ...]
    until: int  # the evaluation, from 1
    following: tuple[tuple[int, int], ...] = ()
    """(number of trials, until) of later rounds in which some trials go on, if known: a hint."""


class Scores(NamedTuple):
    """Means over replicates by trial number, after a round; lower is better, inf: diverged."""

    best: Mapping[int, float]  # at the best evaluation so far
    last: Mapping[int, float]  # at the latest evaluation


@dataclass
class Curve:
    """A trial and the validation scores of its evaluations."""

    trial: Trial
    copied_from: int | None  # the trial that supplied the first state; None: a new model
    start: int  # the evaluation after which the trial started
    parameter_count: int
    loss: list[np.ndarray] = field(default_factory=list)  # per evaluation [R]
    error: list[np.ndarray] = field(default_factory=list)  # per evaluation [R]
    others: dict[str, list[np.ndarray]] = field(default_factory=dict)  # metrics by name
    diverged_at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))  # [R]
    divergence: list[np.ndarray] = field(default_factory=list)  # ``diverged_at`` per evaluation
    means: dict[str, list[float]] = field(default_factory=lambda: {"loss": [], "error": []})
    """Over replicates, per evaluation, negative of ``greater`` scores; inf where not finite."""
    greater: frozenset[str] = frozenset()  # the names of scores whose highest value is the best

    def add(self, metrics: Metrics | ExtendedMetrics, diverged_at: np.ndarray) -> None:
        """Adds an evaluation: fields [R], NaN where a replicate has diverged."""
        for name, values in metrics.by_name().items():
            mean = float(np.mean(values)) * (-1 if name in self.greater else 1)
            self._scores(name).append(np.asarray(values))
            known = self.means.setdefault(name, [])
            known.append(mean if math.isfinite(mean) else math.inf)
        self.diverged_at = diverged_at
        self.divergence.append(diverged_at)

    def scores(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The scores of an evaluation by name, and the divergence so far, [R] each."""
        scores = {name: self._scores(name)[index] for name in self.means if self._scores(name)}
        return scores, self.divergence[index]

    def _scores(self, name: str) -> list[np.ndarray]:
        known = {"loss": self.loss, "error": self.error}
        return known[name] if name in known else self.others.setdefault(name, [])

    @property
    def evaluations(self) -> range:
        """The numbers of the evaluations."""
        return range(self.start + 1, self.start + 1 + len(self.loss))

    @property
    def diverged(self) -> bool:
        """Whether any replicate has diverged; a diverged trial is never chosen."""
        return bool((self.diverged_at != NEVER).any())

    def values(self, measure: str) -> np.ndarray:
        """A measure, [evaluations, R] in float64."""
        return np.array(self._scores(measure), np.float64)

    def shown(self, name: str) -> np.ndarray:
        """A score as people read it, [evaluations, R]: the accuracy in place of the error."""
        return 1 - self.values(name) if name == "error" else self.values(name)

    def score(self, measure: str) -> float:
        """The lowest of ``means``; inf for a diverged trial."""
        return math.inf if self.diverged else min(self.means.get(measure, ()), default=math.inf)

    def last(self, measure: str) -> float:
        """The last of ``means``; inf for a diverged trial."""
        return math.inf if self.diverged or not self.loss else self.means[measure][-1]

    def best(self, measure: str) -> int:
        """The index of the best evaluation, the first among equals."""
        return int(np.argmin(self.means[measure]))


Rounds = Generator[Round, Scores, None]


class Method(Protocol):
    """A search method: ``rounds`` makes a generator; ``work`` and ``describe`` tell about a search.

    ``search`` takes a generator function as well; the time left is then known round by round, and
    the record has the name of the function.
    """

    def rounds(self, space: Space, evaluations: int, seed: int, /) -> Rounds:
        """Yields the rounds of a search, and is sent the scores of each.

        Args:
          space: the configurations to choose from.
          evaluations: the number of evaluations in full training.
          seed: decides all random draws.

        Raises:
          SpaceError: the method cannot search the space.
        """
        ...

    def work(self, space: Space, evaluations: int, /) -> int:
        """The most evaluations, summed over trials, that the search takes: for the time left."""
        ...

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types, for the record of a run."""
        ...


@dataclass(frozen=True)
class BuiltIn:
    """A ``Method`` of this package; equal names and settings are equal methods."""

    name: str  # of the function that makes the method
    settings: Mapping[str, Any]  # the arguments of the function
    rounds: Callable[[Space, int, int], Rounds] = field(repr=False, compare=False)
    work: Callable[[Space, int], int] = field(repr=False, compare=False)
    learns: bool = False
    """Whether ``rounds`` takes configurations to begin with, and known scores, by ``beginning``."""

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types."""
        return {"method": self.name, **readable(self.settings)}


def fresh(configs: Sequence[Config], first: int = 0) -> tuple[Trial, ...]:
    """New trials of some configurations, numbered from ``first``."""
    return tuple(Trial(first + i, config) for i, config in enumerate(configs))


def checked_round(yielded: Any) -> Round:
    """TypeError unless a method's generator yielded a round of trials."""
    if not isinstance(yielded, Round) or not all(isinstance(t, Trial) for t in yielded.trials):
        raise TypeError(f"method yielded {yielded!r}, expected Round(trials, until)")
    return yielded


def start(method: Method, space: Space, evaluations: int, seed: int) -> tuple[Rounds, Round]:
    """The rounds of a method, and the first round.

    Raises:
      TypeError: the method makes no generator.
      ValueError: the generator has no rounds, or none left.
    """
    rounds = method.rounds(space, evaluations, seed)
    if not isinstance(rounds, Generator):
        raise TypeError(f"method returned {rounds!r}, expected a generator of rounds: yield Round")
    try:
        return rounds, checked_round(next(rounds))
    except StopIteration:
        raise ValueError(
            "method yields no round, expected at least one; a generator searches once"
        ) from None


def learns(method: Method) -> bool:
    """Whether a method can begin with known scores."""
    return isinstance(method, BuiltIn) and method.learns


def beginning(
    method: Method, configs: Sequence[Config], known: Sequence[tuple[Config, float]] = ()
) -> Method:
    """A method that trains given configurations first, in full, besides those of the method.

    Args:
      method: the rest of the search; its trials are numbered after the given configurations.
      configs: in the values of the space.
      known: configurations with scores, for a method that ``learns``.
    """

    def work(space: Space, evaluations: int) -> int:
        return method.work(space, evaluations) + len(configs) * evaluations

    if isinstance(method, BuiltIn) and method.learns:
        rounds_of: Any = method.rounds
        return replace(method, rounds=partial(rounds_of, configs=configs, known=known), work=work)

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        first, (inner, current) = fresh(configs), start(method, space, evaluations, seed)
        if current.until != evaluations:  # otherwise a single round trains all
            yield Round(first, evaluations)
            first = ()
        while True:
            trials = (*first, *(_shifted(trial, len(configs)) for trial in current.trials))
            scores = yield current._replace(trials=trials)
            best, last = (
                {number - len(configs): score for number, score in values.items()}
                for values in scores
            )
            first = ()
            try:
                current = checked_round(inner.send(Scores(best, last)))
            except StopIteration:
                return

    return BuiltIn("beginning", method.describe(), rounds, work)


def _shifted(trial: Trial, count: int) -> Trial:
    """The trial with numbers that are larger by ``count``."""
    parent = None if trial.parent is None else trial.parent + count
    return trial._replace(number=trial.number + count, parent=parent)


# Methods of configurations drawn without a model of the scores.


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


Bracket = list[tuple[int, int]]
"""Rungs: (number of trials, evaluation up to which the trials train)."""


def successive_halving(count: int, *, eta: int = 3, minimum: int = 1) -> BuiltIn:
    """Trains many configurations shortly, and the best ones on (Jamieson and Talwalkar, 2016).

    From rung to rung the best 1/eta of the trials go on, from their current states, to eta times
    the budget; the last rung ends at the task's full budget. There are as many rungs as the count
    and the budget allow.

    Args:
      count: random configurations in the first rung.
      eta: the factor by which the number of trials falls from rung to rung.
      minimum: the fewest evaluations in the first rung.
    """
    count, minimum = require_count("count", count), require_count("minimum", minimum)
    eta = require_count("eta", eta, 2)

    def brackets(evaluations: int) -> list[Bracket]:
        expect(
            minimum <= evaluations,
            f"successive_halving: minimum is {minimum} evaluations, expected at most the task's "
            f"{evaluations}",
        )
        halvings = _whole_log(min(count, evaluations // minimum), eta)
        return [_bracket(count, eta, halvings, evaluations)]

    settings = {"count": count, "eta": eta, "minimum": minimum}
    return _halving("successive_halving", settings, brackets)


def hyperband(*, eta: int = 3) -> BuiltIn:
    """Successive halvings from many short trainings to few full trainings (Li et al., 2018).

    The task's budget decides the number of configurations: with R evaluations, bracket s of
    s_max = floor(log_eta R), ..., 0 starts ceil((s_max + 1) / (s + 1) * eta^s) configurations at
    R / eta^s.

    Args:
      eta: the factor by which the number of trials falls from rung to rung.
    """
    eta = require_count("eta", eta, 2)

    def brackets(evaluations: int) -> list[Bracket]:
        most = _whole_log(evaluations, eta)
        counts = [-(-(most + 1) * eta**s // (s + 1)) for s in range(most + 1)]
        return [_bracket(counts[s], eta, s, evaluations) for s in range(most, -1, -1)]

    return _halving("hyperband", {"eta": eta}, brackets)


def _halving(
    name: str, settings: dict[str, Any], brackets: Callable[[int], list[Bracket]]
) -> BuiltIn:
    """One bracket after the other, each of new random configurations."""

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        number = 0
        for bracket in brackets(evaluations):
            configs = random_configurations(space, seed, bracket[0][0], number)
            yield from _halve(fresh(configs, number), bracket)
            number += len(configs)

    def work(_: Space, evaluations: int) -> int:
        steps = [step for bracket in brackets(evaluations) for step in pairwise([(0, 0), *bracket])]
        return sum(count * (until - start) for (_, start), (count, until) in steps)

    return BuiltIn(name, settings, rounds, work)


def _bracket(count: int, eta: int, halvings: int, evaluations: int) -> Bracket:
    """Rung i: count / eta^i trials up to evaluation evaluations / eta^(halvings - i).

    Both are rounded down; eta^halvings may exceed neither the count nor the evaluations.
    """
    return [(count // eta**i, evaluations // eta ** (halvings - i)) for i in range(halvings + 1)]


def _halve(trials: tuple[Trial, ...], bracket: Bracket) -> Rounds:
    """The rounds of a bracket: the best trials with finite scores go on, in order of numbers."""
    for rung, (_, until) in enumerate(bracket):
        following = tuple(bracket[rung + 1 :])
        best = (yield Round(trials, until, following)).best
        finite = [trial for trial in trials if math.isfinite(best[trial.number])]
        if not finite or not following:
            return
        ranked = sorted(finite, key=lambda trial, best=best: (best[trial.number], trial.number))
        chosen = sorted(ranked[: following[0][0]], key=lambda trial: trial.number)
        trials = tuple(trial._replace(parent=trial.number) for trial in chosen)


def _whole_log(value: int, base: int) -> int:
    """The logarithm rounded down, in integers: in floating point log_3 243 is 4.999..."""
    power = 0
    while base ** (power + 1) <= value:
        power += 1
    return power


def population_based(
    count: int,
    *,
    interval: int = 1,
    quantile: float = 0.25,
    factors: tuple[float, ...] = (0.8, 1.25),
    resample: float = 0.25,
) -> BuiltIn:
    """Population-based training (Jaderberg et al., 2017), with truncation selection.

    After every interval the worst members, by their latest scores, go on as copies of some of the
    best members, parameters and optimizer state included, with new traced hyperparameters. A copy
    is a new trial, and names its parent.

    Args:
      count: members of the population.
      interval: evaluations between two selections.
      quantile: the share of members in the best, and in the worst group; at most a half.
      factors: a value is multiplied by a factor (a choice or integer moves to a
        neighbour).
      resample: the probability of drawing a value again instead.
    """
    count, interval = require_count("count", count, 2), require_count("interval", interval)
    most_half = "a number above 0, at most 0.5"
    quantile = require_number("quantile", quantile, most_half, lambda q: 0 < q <= 0.5)
    resample = require_number("resample", resample, "a probability", lambda p: 0 <= p <= 1)
    several = tuple(map(real, factors)) if isinstance(factors, Iterable) else ()
    positive = bool(several) and all(f and 0 < f < math.inf for f in several)
    expect(positive, f"factors is {shown(factors)}, expected numbers above 0")
    settings = {"count": count, "interval": interval, "quantile": quantile}
    settings |= {"factors": tuple(factors), "resample": resample}

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        _check(space, evaluations, interval)
        trials, made = fresh(random_configurations(space, seed, count)), count
        tail = max(1, int(quantile * count))
        for step, until in enumerate([*range(interval, evaluations, interval), evaluations]):
            last = (yield Round(trials, until)).last
            ranked = sorted(trials, key=lambda trial, last=last: (last[trial.number], trial.number))
            finite = [trial for trial in ranked if math.isfinite(last[trial.number])]
            if not finite:
                return
            good = finite[:tail]
            bad = {trial.number for trial in ranked[count - tail :] + ranked[len(finite) :]}
            rng = np.random.default_rng([seed, 4, step])
            following = []
            for trial in trials:
                if trial.number in bad:
                    parent = good[rng.integers(len(good))]
                    config = explore(parent.config, space, rng, factors, resample)
                    following.append(Trial(made, config, parent.number))
                    made += 1
                else:
                    following.append(trial._replace(parent=trial.number))
            trials = tuple(following)

    return BuiltIn("population_based", settings, rounds, lambda _, evaluations: count * evaluations)


def _check(space: Space, evaluations: int, interval: int) -> None:
    expect(
        not set(space.traced).isdisjoint(space.searched),
        "population_based changes hyperparameters in training, expected one of "
        f"{', '.join(Hyper._fields)} in the space, with more than one value",
    )
    for name in space.static:
        for condition, _ in space[name].conditions:
            expect(
                condition in space.static,
                f"population_based changes {condition} in training, expected that {name}, which is "
                "compiled, does not depend on it",
            )
    expect(
        interval < evaluations,
        f"population_based: interval is {interval} evaluations, expected fewer than the task's "
        f"{evaluations}",
    )


def explore(
    config: Config,
    space: Space,
    rng: np.random.Generator,
    factors: tuple[float, ...],
    resample: float,
) -> Config:
    """New values of the traced hyperparameters: perturbed, or drawn again.

    A hyperparameter is drawn when a changed condition makes the hyperparameter apply.
    """
    changed = dict(config)
    for name in space.traced:
        chance, u, factor = rng.random(), rng.random(), factors[rng.integers(len(factors))]
        drawn = chance < resample or name not in config
        changed[name] = (
            space[name].at(u) if drawn else _perturbed(space[name], config[name], factor)
        )
    return space.active(changed)


def _perturbed(domain: Domain, value: Any, factor: float) -> Any:
    """The value times the factor, within the domain; a listed value moves to a neighbour."""
    if domain.is_interval:
        return min(max(value * factor, domain.low), domain.high)
    values = domain.values
    place = values.index(value) + (factor > 1) - (factor < 1)
    return values[min(max(place, 0), len(values) - 1)]


DRAWN = grid, hyperband, population_based, random, sobol, successive_halving
"""The methods of configurations drawn without a model of the scores."""
