"""Progress of long work: bars with the time left on a terminal and in notebooks, else lines."""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TextIO

from jaxnn import display
from jaxnn.extras import require
from jaxnn.reporting import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SECONDS = 0.2
"""Seconds between two changes of a bar in a notebook."""

Report = Callable[[int, int], None]
"""(done, total) -> None."""


@contextmanager
def progress(label: str, stream: TextIO | None = None) -> Iterator[Report]:
    """Shows the progress of the work ``label``; yields a callable (done, total)."""
    with Progress(stream) as shown:
        yield partial(shown.report, label)


@dataclass
class _Work:
    began: float  # starts again when more work was skipped
    printed: float  # the time and the tenths of the work at the last line
    tenths: int = 0
    done: float = 0
    skipped: float = 0
    note: str = ""
    bar: Any = None


class Progress:
    """Shows how far labelled pieces of work are; nothing appears before the first report.

    On a terminal and in a notebook every piece of work has a bar. Elsewhere a line is printed
    whenever another tenth of the work is done, at most one line a second; with a ``summary`` a last
    line says the duration of the work, short work included. The unit "MB" shows bytes as megabytes.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        unit: str = "",
        summary: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = stream or sys.stderr or io.StringIO()
        self._unit, self._summary, self._clock = unit, summary, clock
        self._began = clock()
        self._works: dict[str, _Work] = {}
        self._in_notebook = stream is None and display.live() is not None
        terminal = not self._in_notebook and self._stream.isatty()
        self._bars = _bars(self._stream, unit) if terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if self._bars and self._works:
            self._bars.stop()
        elif (self._summary or self._in_notebook) and error is None:
            taken = duration(self._clock() - self._began)
            for label, work in self._works.items():
                line = f"{label}: {self._amount(work.done)} in {taken}"
                self._show(line, work.note, bar=work.bar, done=1, total=1)

    def report(
        self, label: str, done: float, total: float | None, note: str = "", skipped: float = 0
    ) -> None:
        """Takes the state of the work ``label``, and shows the state if a line is due.

        ``skipped`` is the part of ``done`` that took no time, for example results from a file.
        """
        now = self._clock()
        work = self._works.setdefault(label, _Work(now, now))
        if skipped != work.skipped:
            work.began = now
        work.done, work.skipped, work.note = done, skipped, note
        left, tenths = 0.0, 0
        if total and done > skipped:
            left = (now - work.began) * max(total - done, 0) / (done - skipped)
            tenths = int(10 * done / total)
        words = [f"about {duration(left)} left" if left else "", printable(note)]
        line = f"{label}: {self._amount(done, total or 0)}"
        if self._bars:
            self._bars.start()
            if work.bar is None:
                work.bar = self._bars.add_task(label, total=None, words="")
            text = ", ".join(filter(None, words))
            self._bars.update(work.bar, completed=round(done), total=total, words=text)
        elif self._in_notebook and (work.bar is None or now - work.printed >= SECONDS):
            work.bar, work.printed = work.bar or display.live(), now
            self._show(line, *words, bar=work.bar, done=done, total=total)
        elif tenths > work.tenths and now - work.printed >= 1 and (left or not self._summary):
            work.tenths, work.printed = tenths, now
            self._show(line, *words, bar=None)

    def say(self, line: str) -> None:
        """Shows a line."""
        self._show(line, bar=display.live() if self._in_notebook else None)

    def _amount(self, *amounts: float) -> str:
        """Amounts of work with the unit: ``20 of 100 trials``."""
        scale, digits = (1e6, 1) if self._unit == "MB" else (1, 0)
        parts = [f"{amount / scale:.{digits}f}" for amount in amounts]
        return f"{' of '.join(parts)} {self._unit}".rstrip()

    def _show(self, *parts: str, bar: Any, done: float = 0, total: float | None = None) -> None:
        """A line on the stream, or in a notebook the line with the bar."""
        line = printable(", ".join(filter(None, parts)))
        if bar is None:
            print(line, file=self._stream, flush=True)
        else:
            bar.show(line, done, total)


def duration(seconds: float) -> str:
    """A rounded duration: ``14 s``, ``25 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _bars(stream: TextIO, unit: str) -> "Bars":
    require("search", "rich")
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn() if unit == "MB" else MofNCompleteColumn(),
        TextColumn("{task.fields[words]}", markup=False),
        console=Console(file=stream),
    )
