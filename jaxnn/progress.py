"""Progress of long work: a bar with the time left on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TextIO

Report = Callable[[int, int], None]
"""(done, total) -> None."""

LabelledReport = Callable[[str, int, int | None], None]
"""(label, done, total or None where it is unknown) -> None."""


@contextmanager
def progress(label: str, stream: TextIO | None = None) -> Iterator[Report]:
    """Shows how far one piece of work is; the bar appears with the first report.

    Args:
      label: what is being done.
      stream: default: standard error.

    Yields:
      A callable (done, total).
    """
    with labelled_progress(stream) as report:
        yield partial(report, label)


@contextmanager
def labelled_progress(
    stream: TextIO | None = None, *, in_bytes: bool = False
) -> Iterator[LabelledReport]:
    """Shows how far several pieces of work are, such as the files of a download.

    Args:
      stream: default: standard error.
      in_bytes: whether the counts are bytes.

    Yields:
      A callable (label, done, total).
    """
    output = stream or sys.stderr
    if output.isatty():
        with _bars(output, in_bytes) as report:
            yield report
    else:
        yield Lines(output, in_bytes)


class Lines:
    """Prints a line whenever a label passes another tenth, and at most one a second."""

    def __init__(
        self, stream: TextIO, in_bytes: bool = False, clock: Callable[[], float] = time.monotonic
    ):
        self._stream = stream
        self._in_bytes = in_bytes
        self._clock = clock
        self._began: dict[str, float] = {}
        self._printed: dict[str, tuple[int, float]] = {}  # tenths, time

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Takes a report, and prints it if it is time to."""
        now = self._clock()
        began = self._began.setdefault(label, now)
        if not total:
            return
        tenths, printed = self._printed.get(label, (0, began))
        if 10 * done // total <= tenths or now - printed < 1:
            return
        self._printed[label] = (10 * done // total, now)
        left = (now - began) * (total - done) / done
        amounts = (
            f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if self._in_bytes else f"{done} of {total}"
        )
        ending = f", about {left:.0f} s left" if done < total else ""
        print(f"{label}: {amounts}{ending}", file=self._stream, flush=True)


@contextmanager
def _bars(stream: TextIO, in_bytes: bool) -> Iterator[LabelledReport]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(file=stream),
    )
    tasks: dict[str, TaskID] = {}

    def report(label: str, done: int, total: int | None) -> None:
        if not tasks:
            bars.start()
        if label not in tasks:
            tasks[label] = bars.add_task(label, total=total)
        bars.update(tasks[label], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()
