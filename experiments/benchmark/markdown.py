"""Tables in GitHub's Markdown."""

import re
from collections.abc import Iterable, Sequence

from experiments.benchmark.part import Table

_ACTIVE = re.compile(r"([\\`*_~<&$\[|])")  # characters with a meaning in Markdown
_NUMBER = r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?"
_QUANTITY = re.compile(rf"{_NUMBER}( \S{{1,2}}| (to|±) {_NUMBER})?")  # 1.5, 1.5 x, 90 %, 1 to 2


def paragraphs(tables: Iterable[Table]) -> list[str]:
    """Title, body and notes of each table; a blank line belongs between any two.

    Raises:
      ValueError: a row has more or fewer cells than there are columns.
    """
    found = []
    for table in tables:
        found += [f"**{plain(table.title)}**", body(table), *table.notes]
    return found


def body(table: Table) -> str:
    """The columns and rows; a column of numbers, for the most part, is aligned right.

    Raises:
      ValueError: a row has more or fewer cells than there are columns.
    """
    width = len(table.columns)
    for row in table.rows:
        if len(row) != width:
            raise ValueError(
                f"the table {table.title!r} has the row {list(row)}, expected {width} cells"
            )
    rule = ["---:" if numbers([row[i] for row in table.rows]) else "---" for i in range(width)]
    text = [[plain(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (text[0], rule, *text[1:]))


def numbers(cells: Sequence[str]) -> bool:
    """Whether most of the cells are numbers, with or without a unit."""
    return 2 * sum(bool(_QUANTITY.fullmatch(cell)) for cell in cells) > len(cells)


def plain(text: str) -> str:
    """Text in a single line, escaped so that Markdown shows the text unchanged."""
    return " ".join(_ACTIVE.sub(r"\\\1", text).split())
