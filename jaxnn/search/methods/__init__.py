"""Search methods: each asks for rounds of training, and learns the scores of every round.

A method never trains, and keeps nothing between runs: equal spaces, budgets, seeds and
scores lead to equal rounds. A search is therefore resumable from the scores
in its journal.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

from jaxnn.search.space import Config, Space, readable


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
