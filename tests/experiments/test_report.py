"""Results, tables and summaries."""

import csv
import io
import math
import statistics

import pytest

from experiments import report

VALUES = [0.0785, 0.0801, 0.0769, 0.0793]


def test_summary_has_the_sample_standard_deviation():
    measure = report.summary(VALUES)
    assert measure["values"] == VALUES
    assert measure["mean"] == pytest.approx(statistics.mean(VALUES), rel=1e-12)
    assert measure["std"] == pytest.approx(statistics.stdev(VALUES), rel=1e-12)


def test_the_spread_of_one_seed_is_unknown():
    assert report.summary([0.25]) == {"values": [0.25], "mean": 0.25, "std": None}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e300])
def test_a_diverged_seed_does_not_hide_in_the_mean(wrong):
    measure = report.summary([0.25, -wrong, wrong])
    std = measure["std"]
    assert std is not None
    assert not std < 1e300
    assert measure["values"][0] == 0.25


@pytest.mark.parametrize(
    ("values", "text"),
    [([0.25], "0.250"), ([1.0, 3.0], "2.000 ± 1.414"), ([math.nan, 1.0], "nan ± nan")],
)
def test_mean_and_std_read_as_one_cell(values, text):
    assert report.mean_and_std(report.summary(values), 3) == text


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="object"):
        report.plain({"x": object()})


def test_history_can_be_read_back(tmp_path):
    rows = [
        {"setting": "a, b", "seed": 0, "iteration": 10, "error": 0.1},
        {"setting": 'say "c"', "seed": 1, "iteration": 20, "error": math.nan},
    ]
    report.write_csv(tmp_path / "history.csv", rows)
    with open(tmp_path / "history.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {name: str(value) for name, value in row.items()} for row in rows
        ]


def test_a_table_that_is_not_on_a_terminal_is_whole():
    wide = " ".join(["words"] * 60)
    stream = io.StringIO()
    report.print_table("A [title]", ["claim", "sizes"], [[wide, "[relu] 50"]], stream)
    text = stream.getvalue()
    assert "A [title]" in text
    assert wide in text
    assert "[relu] 50" in text
    assert "\x1b" not in text


def test_numbers_are_aligned_to_the_right():
    stream = io.StringIO()
    report.print_table("Title", ["name", "value"], [["a", "5 ± 1"], ["bcd", "100.25 ± 12"]], stream)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    ends = [len(line) for line in lines if "±" in line]
    assert len(ends) == 2
    assert len(set(ends)) == 1
