"""Results for people and programs: JSON, CSV, tables, and the versions behind a result."""

import csv
import dataclasses
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import jaxnn
from jaxnn.extras import require
from jaxnn.files import atomic_write
from jaxnn.files import printable as printable

if TYPE_CHECKING:
    from rich.console import Console


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
    """Writes a line per row under the keys of the first row."""
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def environment() -> dict[str, Any]:
    """The versions and the device behind a result."""
    import jax

    first, *_ = devices = jax.devices()
    versions = {"python": platform.python_version(), "jaxnn": jaxnn.__version__}
    versions |= {name: version(name) for name in ("jax", "jaxlib", "numpy", "optax", "chex")}
    device = {"platform": first.platform, "kind": first.device_kind, "count": len(devices)}
    return {"versions": versions, "device": device}


def console(stream: TextIO | None = None) -> "Console":
    """A console as wide as the terminal; elsewhere ``COLUMNS`` characters, by default 100."""
    require("search", "rich")
    from rich.console import Console

    output = stream or sys.stdout
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

    Cells are strings, numbers or styled ``rich.text.Text``. Columns of numbers are aligned to the
    right.
    """
    output = console(stream)
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, Text) else Text(str(cell)) for cell in row] for row in rows]
    listed = [(heading, [row[i].plain for row in cells]) for i, heading in enumerate(columns)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for (heading, texts), width in zip(listed, _widths(listed, output.width), strict=True):
        justify = "right" if all(map(_is_number, texts)) else "left"
        table.add_column(Text(heading), justify=justify, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    if title:
        output.print(Text(f"\n{title}", style="bold"))
    output.print(table)


def _widths(columns: Sequence[tuple[str, list[str]]], width: int) -> list[int | None]:
    """Widths of (heading, cells) that keep numbers and words whole; None without enough room."""
    room = width - 2 * len(columns)  # 2: the gap between columns
    wanted = [max(map(len, (heading, *cells))) for heading, cells in columns]
    for headings in (True, False):  # whole words in the headings too, if there is room
        least = []
        for heading, cells in columns:
            words = cells if all(map(_is_number, cells)) else " ".join(cells).split()
            titles = heading.split() if headings else []
            least.append(max(map(len, (*titles, *words)), default=1))
        if sum(least) <= room:
            bounds = [*zip(least, wanted, strict=True)]
            limits = range(max(wanted) + 1)
            widths = ([max(low, min(high, limit)) for low, high in bounds] for limit in limits)
            return [*max((each for each in widths if sum(each) <= room), key=sum)]
    return [None] * len(columns)


def _is_number(cell: str) -> bool:
    """Whether the cell is empty or begins with a number, as ``0.0785 ± 0.0012`` does."""
    try:
        float(cell.replace(",", "").split()[0])
    except (ValueError, IndexError):
        return not cell
    return True
