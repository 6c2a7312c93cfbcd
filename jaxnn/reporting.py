"""Results and progress for people and programs: JSON, CSV, tables, bars, versions."""

import csv
import dataclasses
import errno
import io
import json
import math
import os
import platform
import re
import signal
import sys
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial, singledispatch
from importlib.metadata import version
from pathlib import Path
from threading import Timer, main_thread
from typing import TYPE_CHECKING, Any, Self, TextIO

import numpy as np

import jaxnn
from jaxnn.files import atomic_write
from jaxnn.files import printable as printable
from jaxnn.types import require, require_type

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


@singledispatch
def registered_html(value: Any) -> str | None:
    """The HTML of a value for a notebook, by the function registered for the value's type.

    For the ``_repr_html_`` of a class whose module must not import the module of the function.
    """


def plain(
    value: Any,
    *,
    not_finite: Callable[[float], object] = lambda _: None,
    unknown: Callable[[object], object] | None = None,
) -> Any:
    """The value in JSON's types: arrays as lists, paths as strings.

    ``not_finite`` replaces NaN and infinity, ``unknown`` objects without counterpart in JSON.

    Raises:
      TypeError: an object without counterpart in JSON, and no ``unknown``.
    """
    inner = partial(plain, not_finite=not_finite, unknown=unknown)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else not_finite(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX, arrays and scalars
        return inner(value.tolist())
    if hasattr(value, "_asdict"):
        return inner(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return inner(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): inner(entry) for key, entry in value.items()}
    if isinstance(value, Iterable):
        return [inner(entry) for entry in value]
    if unknown:
        return unknown(value)
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes valid JSON, without NaN and infinity."""
    text = json.dumps(plain(content), indent=2, allow_nan=False)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a line per row under the keys of the first row; texts are printable.

    A text that a spreadsheet would take as a formula begins with an apostrophe: ``'=1+1``.

    Raises:
      ValueError: a row has further keys.
    """
    with atomic_write(path, "w") as file:
        keys = list(rows[0]) if rows else []
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_cell, keys))
        for row in rows:
            if row.keys() - keys:
                raise ValueError(f"a row has the keys {list(row)}, expected {keys}")
            writer.writerow([_cell(row.get(key, "")) for key in keys])


def _cell(value: object) -> object:
    """The content of a cell in a CSV file."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = printable(value)
    with suppress(ValueError):  # a number in a text
        float(text)
        return text
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def no_better(accuracies: Mapping[str, float], targets: Any, examples: str) -> list[str]:
    """A line about models that are no better than always saying the commonest class, if any.

    Args:
      accuracies: shares of right predictions by the name of the model.
      targets: class indices [N], or [N, C], of the examples that the models were tested on.
      examples: the name of the examples.
    """
    targets = np.asarray(targets)
    labels = targets.argmax(axis=1) if targets.ndim > 1 else targets
    most = np.unique(labels, return_counts=True)[1].max() / len(labels)
    found = [f"{name} {100 * a:.2f} %" for name, a in accuracies.items() if a <= most + 1e-6]
    if not found:
        return []
    return [
        f"warning: {', '.join(found)} of the {examples} examples right, no better than always "
        f"saying the commonest class ({100 * most:.2f} %): try other rates or standardised inputs"
    ]


def environment() -> dict[str, Any]:
    """The versions and the device behind a result."""
    import jax

    first, *_ = devices = jax.devices()
    versions = {"python": platform.python_version(), "jaxnn": jaxnn.__version__}
    versions |= {name: version(name) for name in ("jax", "jaxlib", "numpy", "optax", "chex")}
    device = {"platform": first.platform, "kind": first.device_kind, "count": len(devices)}
    return {"versions": versions, "device": device}


class _Output:
    """A text stream that never fails: text for a closed or full output is dropped."""

    def __init__(self, stream: Any):
        lost = stream is None or getattr(stream, "closed", False)
        self._stream: Any = io.StringIO() if lost else stream
        self.error: Exception | None = None  # the first failure
        with suppress(AttributeError):  # streams of tests and notebooks
            self._stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, work: Callable[..., object], *arguments: str) -> None:
        try:
            if self.error is None:
                work(*arguments)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self.error = error
            with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())  # Python flushes again at the end


@contextmanager
def outputs_that_last() -> Iterator[None]:
    """Standard output and standard error cannot stop the work, whatever their state.

    A closed stream, a pipe without reader and a full disk drop text; characters that the encoding
    lacks become escapes.

    Raises:
      OSError: after the work, if standard output was lost for a reason other than a missing reader.
    """
    output, errors = _Output(sys.stdout), _Output(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):  # type: ignore
        yield
        output.flush()
        if isinstance(output.error, OSError) and output.error.errno not in (
            errno.EPIPE,
            errno.EBADF,
        ):
            raise OSError(output.error.errno, output.error.strerror, "standard output")


def interrupts_raise() -> None:
    """From here on, the interrupt key of a command of jaxnn or the experiments is an exception.

    Before, the key ends the process at once. A KeyboardInterrupt that is lost, as in a destructor,
    comes again.
    """
    if getattr(signal.getsignal(signal.SIGINT), "__name__", "") == "_end_at_once":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = _interrupt_again


def _interrupt_again(lost: Any) -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        thread = main_thread().ident
        kill = getattr(signal, "pthread_kill", lambda *_: interrupt_main())  # Windows
        Timer(0.05, kill, [thread, signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(lost)


def console(stream: TextIO | None = None) -> "Console":
    """A console as wide as the terminal; elsewhere ``COLUMNS`` characters, by default 100."""
    require("search", "rich")
    from rich.console import Console

    writes = stream is None or callable(getattr(stream, "write", None))
    require_type(writes, "stream", stream, "an open text file")
    output = stream or sys.stdout or io.StringIO()
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and int(columns) else 100
    return Console(file=output, width=None if output.isatty() else width, highlight=False)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    stream: TextIO | None = None,
) -> None:
    """Prints a table that wraps at the width of ``console(stream)``; "" is no title.

    Cells are strings, numbers or styled ``rich.text.Text``, printed by ``printable``. Columns of
    numbers are aligned to the right.
    """
    output = console(stream)
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def shown(cell: object) -> Text:
        text = printable(cell, encoding=output.encoding)
        return Text(text, cell.style if isinstance(cell, Text) else "")

    cells = [[*map(shown, row)] for row in rows]
    columns = [shown(heading).plain for heading in columns]
    listed = [(heading, [row[i].plain for row in cells]) for i, heading in enumerate(columns)]
    gap, widths = _widths(listed, output.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0))
    for (heading, texts), width in zip(listed, widths, strict=True):
        justify = "right" if all(map(_is_number, texts)) else "left"
        heading = Text(_broken(heading, width or len(heading)))
        table.add_column(heading, justify=justify, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    if title:
        output.print(Text.assemble("\n", (shown(title).plain, "bold")))
    output.print(table)


def _widths(
    columns: Sequence[tuple[str, list[str]]], width: int
) -> tuple[int, list[int] | list[None]]:
    """The gap and the widths for (heading, cells): words stay whole, as far as there is room."""
    wanted = [max(map(len, (heading, *cells))) for heading, cells in columns]
    for gap, headings, numbers in (
        (2, True, True),
        (1, True, True),
        (1, True, False),
        (2, False, True),
    ):
        room, least = width - 2 - gap * (len(columns) - 1), []
        for heading, cells in columns:
            whole = numbers and all(map(_is_number, cells))
            words = cells if whole else " ".join(cells).split()
            titles = re.findall("[^_ ]*_?", heading) if headings else []
            least.append(max(map(len, (*titles, *words)), default=1))
        if sum(least) <= room:
            bounds = [*zip(least, wanted, strict=True)]
            limits = range(max(wanted) + 1)
            widths = ([max(low, min(high, limit)) for low, high in bounds] for limit in limits)
            return gap, [*max((each for each in widths if sum(each) <= room), key=sum)]
    return 2, [None] * len(columns)


def _broken(heading: str, width: int) -> str:
    """The lines of a heading: names break after underscores."""
    lines = [""]
    for part in re.findall("[^_ ]*[_ ]?", heading):
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines).lstrip("\n")


def _is_number(cell: str) -> bool:
    """Whether the cell is empty or begins with a number, as ``0.0785 ± 0.0012`` does."""
    try:
        float(cell.replace(",", "").split()[0])
    except (ValueError, IndexError):
        return not cell
    return True


# Progress of long work.

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


def _live() -> Any:
    """A place for a bar in a notebook's cell; None elsewhere."""
    from jaxnn import display

    return display.live()


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
        self._in_notebook = stream is None and _live() is not None
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
            work.bar, work.printed = work.bar or _live(), now
            self._show(line, *words, bar=work.bar, done=done, total=total)
        elif tenths > work.tenths and now - work.printed >= 1 and (left or not self._summary):
            work.tenths, work.printed = tenths, now
            self._show(line, *words, bar=None)

    def say(self, line: str) -> None:
        """Shows a line."""
        self._show(line, bar=_live() if self._in_notebook else None)

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
