"""How far a search is: a bar on a terminal, a few plain lines elsewhere, told between segments."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from jaxnn import distributed
from jaxnn.search.space import TRACED, Space
from jaxnn.search.training.engine import Status

Report = Callable[[Status], None]
Clock = Callable[[], float]


@contextmanager
def reporting(
    progress: bool | Report | None,
    space: Space,
    measure: str,
    *,
    stream: TextIO | None = None,
    clock: Clock = time.monotonic,
) -> Iterator[Report]:
    """Shows progress while its block runs, if that is wanted.

    Args:
      progress: True shows it (the first process does, of several); a callable gets every
        ``Status``; None and False are silence.
      space: what is searched: how many programs it needs is said once.
      measure: what is minimised, "error" or "loss".
      stream: default: standard error.
      clock: seconds.

    Yields:
      What to call with every ``Status``.

    Raises:
      TypeError: progress is something else.
    """
    if callable(progress):
        yield progress
        return
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress is {progress!r}, expected True, None or a function of a Status")
    if not progress or not distributed.is_first():
        yield lambda _: None
        return
    output = stream or sys.stderr
    print(f"search: {programs(space)}", file=output, flush=True)
    if output.isatty():
        with _bar(output, measure, clock) as report:
            yield report
    else:
        lines = Lines(output, measure, clock)
        yield lines
        lines.end()


class TimeLeft:
    """How long it will take, by what this process has trained and how long it took."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._read, self._began = -1, 0.0

    def __call__(self, status: Status) -> float | None:
        """Seconds; None before anything was trained.

        What a log had took no time, so the clock starts where training does.
        """
        now = self._clock()
        if status.read != self._read:
            self._read, self._began = status.read, now
        trained = status.done - status.read
        if trained <= 0:
            return None
        return (now - self._began) * max(status.total - status.done, 0) / trained


class Lines:
    """Prints a line whenever another tenth is done, at most one a second, and one at the end."""

    def __init__(self, stream: TextIO, measure: str, clock: Clock = time.monotonic):
        self._stream, self._measure, self._clock = stream, measure, clock
        self._left = TimeLeft(clock)
        self._began = self._printed = clock()
        self._tenths = 0
        self._last: Status | None = None

    def __call__(self, status: Status) -> None:
        """Takes a report, and prints it if it is time to."""
        self._last = status
        left, now = self._left(status), self._clock()
        tenths = int(10 * status.done / max(status.total, 1))
        if left is None or left == 0 or tenths <= self._tenths or now - self._printed < 1:
            return
        self._tenths, self._printed = tenths, now
        print(
            f"search: {status.done:.0f} of {status.total} evaluations, "
            f"{describe(status, self._measure, left)}",
            file=self._stream,
            flush=True,
        )

    def end(self) -> None:
        """Prints what the search has done."""
        if self._last is not None:
            print(
                f"search: {self._last.done:.0f} evaluations in "
                f"{duration(self._clock() - self._began)}, {describe(self._last, self._measure)}",
                file=self._stream,
                flush=True,
            )


@contextmanager
def _bar(stream: TextIO, measure: str, clock: Clock) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    time_left = TimeLeft(clock)
    bar = Progress(
        TextColumn("search"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(file=stream),
    )

    def report(status: Status) -> None:
        bar.update(
            shown,
            completed=round(status.done),
            total=status.total,
            description=describe(status, measure, time_left(status)),
        )

    with bar:
        shown = bar.add_task("", total=None)
        yield report


def describe(status: Status, measure: str, left: float | None = None) -> str:
    """Time left, best so far and number diverged: ``about 14 s left, best 92.2 %, 3 diverged``."""
    parts = [f"about {duration(left)} left"] if left else []
    if math.isfinite(status.best):
        best = f"{1 - status.best:.2%}" if measure == "error" else f"{status.best:.4f}"
        parts.append(f"best {'accuracy' if measure == 'error' else 'loss'} {best}")
    return ", ".join([*parts, f"{status.diverged} diverged"])


def duration(seconds: float) -> str:
    """As people say it: ``14 s``, ``25 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def programs(space: Space) -> str:
    """How many programs a space needs, and why."""
    static = [name for name in space.searched if name not in TRACED]
    count = space.programs()
    if count == 1:
        return "the space needs 1 program"
    return (
        f"the space needs {count} programs, one for each combination of {', '.join(static)}; "
        "those that no trial has are not compiled"
    )
