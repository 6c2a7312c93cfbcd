"""Summaries over the seeds."""

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
