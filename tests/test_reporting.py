"""JSON, CSV and tables."""

import csv
import io
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.text import Text

from jaxnn import reporting


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.5 ± 0.1, θ, 漢, é, \xa0, 🙂", "loss 0.5 ± 0.1, θ, 漢, é, \xa0, 🙂"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07\x08\x00\x7f\x9b2J", r"\x1b]0;title\x07\x08\x00\x7f\x9b2J"),
        ("two\nlines\r\tand\v\f\x85\u2028\u2029", r"two\nlines\r\tand\x0b\x0c\x85\u2028\u2029"),
        ("\u202egpj.exe\u2066\u200b\ufeff\U000e0041", r"\u202egpj.exe\u2066\u200b\ufeff\U000e0041"),
        (os.fsdecode(b"caf\xe9/\xff\x9b"), r"caf\xe9/\xff\x9b"),
        ("\ud800", r"\ud800"),
        (Path("a\nb"), r"a\nb"),
    ],
)
def test_printable_text_has_no_control_character(text, shown):
    assert reporting.printable(text) == shown


def test_printable_text_keeps_the_wanted_line_ends():
    assert reporting.printable("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", r"0.5 +- 0.1 \u03b8"), ("latin-1", r"0.5 ± 0.1 \u03b8"), ("cp1253", "0.5 ± 0.1 θ")],
)
def test_printable_text_fits_the_encoding_of_the_output(encoding, shown):
    assert reporting.printable("0.5 ± 0.1 θ", encoding=encoding) == shown


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="object"):
        reporting.plain({"x": object()})


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_json_has_null_for_what_is_not_a_finite_number(tmp_path, wrong):
    content = {"a": wrong, "b": [1.5, wrong], "c": np.array([wrong, 2.0]), "d": {"e": (wrong,)}}
    reporting.write_json(tmp_path / "x.json", content)
    found = json.loads((tmp_path / "x.json").read_text())
    assert found == {"a": None, "b": [1.5, None], "c": [None, 2.0], "d": {"e": [None]}}


def test_history_can_be_read_back(tmp_path):
    rows = [
        {"setting": "a, b", "seed": 0, "iteration": 10, "error": 0.1},
        {"setting": 'say "c"', "seed": 1, "iteration": 20, "error": math.nan},
    ]
    reporting.write_csv(tmp_path / "history.csv", rows)
    with open(tmp_path / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {name: str(value) for name, value in row.items()} for row in rows
        ]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-1 +cmd|' /C calc'!A0", "'-1 +cmd|' /C calc'!A0"),
        ("@SUM(1)", "'@SUM(1)"),
        ('=HYPERLINK("http://127.0.0.1")', """'=HYPERLINK("http://127.0.0.1")"""),
        ("-0.5", "-0.5"),
        ("+1e-3", "+1e-3"),
        (-0.5, "-0.5"),
        (np.float32(-0.5), "-0.5"),
        (-3, "-3"),
        (None, ""),
        ("\t=1", r"\t=1"),
        ("a\x1b[2J\nb", r"a\x1b[2J\nb"),
        (os.fsdecode(b"\xff"), r"\xff"),
        ((50, 50), "(50, 50)"),
    ],
)
def test_a_cell_of_a_csv_file_is_a_number_or_a_text_and_never_a_formula(tmp_path, value, cell):
    reporting.write_csv(tmp_path / "a.csv", [{"first": 1, "value": value}])
    reporting.write_csv(tmp_path / "b.csv", [{value: 1, "first": 1}])
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["first", "value"], ["1", cell]]
    with open(tmp_path / "b.csv", newline="") as file:
        assert next(csv.reader(file))[0] == cell


def test_a_row_of_a_csv_file_has_no_key_that_the_first_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"a row has the keys \['b'\], expected \['a'\]"):
        reporting.write_csv(tmp_path / "a.csv", [{"a": 1}, {"b": 1}])


def test_not_finite_numbers_and_unknown_objects_can_be_replaced():
    value = {"a": [math.nan, -math.inf], "b": Ellipsis}
    found = reporting.plain(value, not_finite=str, unknown=str)
    assert found == {"a": ["nan", "-inf"], "b": "Ellipsis"}


@pytest.mark.parametrize(("columns", "width"), [(None, 100), ("60", 60), ("wide", 100), ("0", 100)])
def test_a_table_that_is_not_on_a_terminal_wraps(monkeypatch, columns, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    words = [f"word{number}" for number in range(60)]
    stream = io.StringIO()
    reporting.print_table("A [title]", ["claim", "sizes"], [[" ".join(words), "[relu] 50"]], stream)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert set(words) <= set(text.split())
    assert "A [title]" in text
    assert "[relu] 50" in text
    assert "\x1b" not in text


def headings(names, rows) -> list[str]:
    """The words of the headings of a table, line ends after underscores undone."""
    stream = io.StringIO()
    reporting.print_table("", names, rows, stream)
    lines = stream.getvalue().splitlines()
    above = lines[: next(i for i, line in enumerate(lines) if "─" in line)]
    return " ".join(above).split()


@pytest.mark.parametrize("digits", ["0.95", "0.95 ± 0.05"])
def test_headings_are_not_broken_inside_a_word_where_there_is_room(digits):
    names = ["learning_rate", "l2", "batch_size", "hidden", "activation", "optimizer", "momentum"]
    row = ["0 (chosen)", "0.0123", "1.2e-05", "100", "50-50", "relu", "momentum", "0.95", "3"]
    found = headings(["trial", *names, "epochs", "accuracy", "loss"], [[*row, "99.33", digits]])
    whole = {"trial", *names, "epochs", "accuracy", "loss"}
    assert {"learning_", "rate"} <= {*found} <= {*whole, "learning_", "rate", "batch_", "size"}
    assert headings(["learning_rate", "loss"], [["0.1", digits]]) == ["learning_rate", "loss"]


def test_a_table_shows_every_character_as_text():
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    evil = "a\x1b[31m\n± θ"
    reporting.print_table(evil, [evil], [[evil], [Text(evil, "red")]], stream)
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore
    assert text.count(r"a\x1b[31m\n+- \u03b8") == 4


def test_numbers_are_aligned_to_the_right():
    stream = io.StringIO()
    reporting.print_table(
        "Title", ["name", "value"], [["a", "5 ± 1"], ["bcd", "100.25 ± 12"]], stream
    )
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    ends = [len(line) for line in lines if "±" in line]
    assert len(ends) == 2
    assert len(set(ends)) == 1


def test_words_wrap_rather_than_numbers(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    stream = io.StringIO()
    rows = [["several words " * 9, "0.25 ± 0.125", "1,234.5 ± 0.5"]]
    reporting.print_table("", ["name", "loss", "accuracy"], rows, stream)
    assert "0.25 ± 0.125  1,234.5 ± 0.5" in stream.getvalue()


def test_a_missing_package_is_a_line_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnn-basics\[search\]'"):
        reporting.print_table("", ["a"], [[1]], io.StringIO())
