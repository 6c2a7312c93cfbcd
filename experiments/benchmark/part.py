"""What the parts of the benchmark have in common."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from experiments import harness
from experiments.config import DataConfig, Whole
from jaxnn.progress import Report

PARTS = ("one_model", "population", "search", "startup", "verification", "scale", "roofline")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DataConfig):
    """Measure jaxnn and its peers on the same data, model, minibatch and steps, in turn.

    Peers that are not installed are left out (extra "benchmark" has them all). Figures are medians;
    ratios are within this run. The exit status does not depend on them.
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist, digits (enlarged to 28x28 and repeated), or the path of your own."""

    seeds: Whole = 3
    """Number of interleaved repetitions, each from another seed; medians are reported."""

    parts: tuple[str, ...] = PARTS
    """Which to measure: one_model, population, search, startup, verification, scale, roofline."""

    keep: bool = False
    """Keep the other parts that the results.json in --out has, of the same machine and versions."""

    quick: bool = False
    """Shorter runs of fewer cases: to see that everything works; the figures mean little."""

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        super().validate()
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise self.refusal("parts", "some of " + ", ".join(PARTS))


class Bench(NamedTuple):
    """What a part measures with."""

    config: BenchmarkConfig
    run: harness.Run
    data: Path  # the folder of the examples, as ``problem.store`` left them
    cores: tuple[int, ...]  # that may be used


class Table(NamedTuple):
    """A table for the terminal and for the README."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


class Goal(NamedTuple):
    """A figure that is required."""

    what: str
    unit: str  # x (times), %, or what is counted
    required: float
    measured: float
    at_most: bool = False  # else at least

    @property
    def reached(self) -> bool:
        """Whether it is."""
        if self.at_most:
            return self.measured <= self.required
        return self.measured >= self.required


class Part(Protocol):
    """A module of ``experiments.benchmark.parts``."""

    def measure(self, bench: Bench) -> Mapping[str, Any]:
        """Measures; what it returns is the part's entry in results.json, under its name."""
        ...

    def tables(self, results: Mapping[str, Any]) -> list[Table]:
        """The tables of results.json's ``results``, from which nothing but this is taken."""
        ...

    def goals(self, results: Mapping[str, Any]) -> list[Goal]:
        """The required figures of the same."""
        ...


class Ticks:
    """Progress of so many pieces of work, of which some may turn out not to be there."""

    def __init__(self, report: Report, total: int):
        self._report = report
        self._done, self._total = 0, total

    def __call__(self) -> None:
        """One more is done."""
        self._done += 1
        self._report(self._done, self._total)


def median(values: Iterable[float]) -> float:
    """The middle value."""
    return float(np.median(list(values)))


def figures(values: Iterable[float]) -> dict[str, Any]:
    """The values of a measure and their median, as results.json has them."""
    column = [float(value) for value in values]
    return {"median": median(column), "values": column}
