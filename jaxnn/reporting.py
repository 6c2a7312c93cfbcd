"""Results for people and programs: valid JSON, CSV, tables, and what produced them."""

import csv
import dataclasses
import io
import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import jaxnn
from jaxnn.atomic import atomic_write


def plain(value: Any) -> Any:
    """The value in JSON's own types: arrays as lists, NaN and infinity as None.

    Raises:
      TypeError: something JSON has no counterpart for.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy and JAX, arrays and scalars
        return plain(value.tolist())
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, Iterable):
        return [plain(entry) for entry in value]
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes valid JSON: no NaN, no infinity."""
    text = json.dumps(plain(content), indent=2, allow_nan=False)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one line per row under a heading of the first row's keys."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path, "w") as file:
        file.write(buffer.getvalue())


def environment() -> dict[str, Any]:
    """The versions and the device that produced a result."""
    import jax

    first, *_ = devices = jax.devices()
    packages = ("jax", "jaxlib", "numpy", "optax", "chex")
    return {
        "versions": {
            "python": platform.python_version(),
            "jaxnn": jaxnn.__version__,
            **{package: version(package) for package in packages},
        },
        "device": {
            "platform": first.platform,
            "kind": first.device_kind,
            "count": len(devices),
        },
    }


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    stream: TextIO | None = None,
) -> None:
    """Prints a table: as wide as it needs to be, except on a terminal, where it wraps to fit."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    output = stream or sys.stdout
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))  # Text: "[relu]" is not markup
    console = Console(file=output, width=None if output.isatty() else 10_000)
    console.print(Text(f"\n{title}", style="bold"), table, sep="\n")


def _is_number(cell: str) -> bool:
    """Whether the cell begins with a number, as ``0.0785 ± 0.0012`` does."""
    try:
        float(cell.split()[0])
    except (ValueError, IndexError):
        return not cell
    return True
