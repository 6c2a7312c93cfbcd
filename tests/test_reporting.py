"""JSON, CSV and tables."""

import csv
import io
import json
import math

import numpy as np
import pytest

from jaxnn import reporting


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


def test_a_table_that_is_not_on_a_terminal_is_whole():
    wide = " ".join(["words"] * 60)
    stream = io.StringIO()
    reporting.print_table("A [title]", ["claim", "sizes"], [[wide, "[relu] 50"]], stream)
    text = stream.getvalue()
    assert "A [title]" in text
    assert wide in text
    assert "[relu] 50" in text
    assert "\x1b" not in text


def test_numbers_are_aligned_to_the_right():
    stream = io.StringIO()
    reporting.print_table(
        "Title", ["name", "value"], [["a", "5 ± 1"], ["bcd", "100.25 ± 12"]], stream
    )
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    ends = [len(line) for line in lines if "±" in line]
    assert len(ends) == 2
    assert len(set(ends)) == 1
