"""What a search method is: a generator that asks for rounds of training and is told the scores.

A method never trains, and it keeps nothing between runs: asked again with the same space, budget
and seed, and told the same scores, it asks for the same rounds. That is what makes a search
resumable: the log has the scores.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from jaxnn.search.space import Config, Space


class Trial(NamedTuple):
    """A configuration in training."""

    number: int
    config: Config
    parent: int | None = None  # the trial whose state it starts from; itself to go on; None: fresh


class Round(NamedTuple):
    """Trials to train side by side, from where they are to an evaluation (from 1)."""

    trials: tuple[Trial, ...]
    until: int
    following: tuple[tuple[int, int], ...] = ()
    """(how many of them, until) of the rounds in which some of them go on, if known: a hint."""


class Scores(NamedTuple):
    """What a method learns of a round, by the number of the trial; lower is better."""

    best: Mapping[int, float]  # mean over replicates, at the best evaluation so far; inf: diverged
    last: Mapping[int, float]  # at the latest evaluation


Rounds = Generator[Round, Scores, None]


class Method(Protocol):
    """A way to search."""

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """The rounds of a search.

        Args:
          space: what may be tried.
          evaluations: how many there are in full training.
          seed: decides everything random.

        Raises:
          SpaceError: the method cannot search this space.
        """
        ...

    def work(self, space: Space, evaluations: int) -> int:
        """How many evaluations of one trial the search will take at most, for the time left."""
        ...

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types, as the record of a run has it."""
        ...


def fresh(configs: Sequence[Config], first: int = 0) -> tuple[Trial, ...]:
    """New trials of these configurations, numbered from ``first``."""
    return tuple(Trial(first + i, config) for i, config in enumerate(configs))
