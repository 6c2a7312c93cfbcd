"""The common ground of the benchmark's parts: tools to measure, tables, required figures."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Results = Mapping[str, Any]
T = TypeVar("T")
R = TypeVar("R")


class Bench(NamedTuple):
    """The tools of a part's measurements."""

    config: Any  # main.BenchmarkConfig
    run: Any  # harness.Run
    data: Path  # the folder of the examples, written by ``problem.store``
    cores: tuple[int, ...]  # usable ones

    def each(self, label: str, items: Sequence[T]) -> Iterator[T]:
        """All items, with progress under the label."""
        with self.run.progress(label) as report:
            for done, item in enumerate(items, start=1):
                yield item
                report(done, len(items))

    def in_turn(
        self, label: str, items: Sequence[T], call: Callable[[T, int], R], repetitions: int = 0
    ) -> list[list[R]]:
        """For each item the values of ``call(item, seed)``, by default of ``--seeds`` seeds."""
        found: list[list[R]] = [[] for _ in items]
        turns = product(range(repetitions or self.config.seeds), range(len(items)))
        for seed, index in self.each(label, list(turns)):
            found[index].append(call(items[index], seed))
        return found


class Table(NamedTuple):
    """A table for the terminal and for Markdown."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def table(
    title: str, rows: Iterable[Results], columns: Mapping[str, str], notes: Sequence[str] = ()
) -> Table:
    """A table whose cells are format strings of a row, as in ``"{seconds[median]:.1f}"``."""
    cells = [tuple(each.format_map(row) for each in columns.values()) for row in rows]
    return Table(title, tuple(columns), cells, tuple(notes))


def ranked(rows: Iterable[Results], measure: str = "microseconds") -> list[dict[str, Any]]:
    """The rows by their median time, the fastest first, with the ``ratio`` to jaxnn's time."""
    ours = next((row[measure]["median"] for row in rows if row["label"] == "jaxnn"), math.nan)
    found = [{**row, "ratio": row[measure]["median"] / ours} for row in rows]
    return sorted(found, key=lambda row: row[measure]["median"])


class Goal(NamedTuple):
    """A required figure beside the measured figure.

    ``share`` says how near the measured speed is to the machine's limit, in percent of the peak.
    Where the limit forbids the required speed, the distance from the limit is shown instead.
    """

    what: str
    required: float
    measured: float
    unit: str = "x"  # x (times), %, or the name of what is counted
    at_most: bool = False  # else at least
    share: float = math.nan

    @property
    def reached(self) -> bool:
        """Whether the measured figure is as required."""
        at_most = self.measured <= self.required
        return at_most if self.at_most else self.measured >= self.required

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The goal, the requirement, the measurement, and ``yes``, ``no`` or ``limit``."""
        bound = f"at {'most' if self.at_most else 'least'} {self.required:g} {self.unit}"
        found = f"{self.measured:.3g} {self.unit}"
        if self.reached or math.isnan(self.share):
            return self.what, bound, found, "yes" if self.reached else "no"
        limit = self.measured * 100 / self.share
        found += f"; {self.share:.1f} % of the peak: at 100 % it would be {limit:.3g} x"
        if self.required > limit:
            return self.what, f"{self.required:g} x is above the peak", found, "limit"
        return self.what, bound, found, "no"


class Part(NamedTuple):
    """A question: how to measure, and the views of results.json."""

    measure: Callable[[Bench], Results]  # the part's entry in results.json
    tables: Callable[[Results], list[Table]]  # of all entries, as are the next two
    goals: Callable[[Results], list[Goal]] = lambda _: []
    figures: Callable[[Results], Mapping[str, Any]] = lambda _: {}  # by file name
