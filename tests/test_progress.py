"""Progress, on a terminal and elsewhere."""

import io
import itertools

import pytest

from jaxnn.reporting import Progress, duration, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(reports, seconds_apart, **options):
    """The lines printed for reports at equal distances in time, the first at 0."""
    stream = io.StringIO()
    ticks = itertools.chain([0.0], itertools.count(step=seconds_apart))
    with Progress(stream, clock=lambda: float(next(ticks)), **options) as shown:
        for report in reports:
            shown.report(*report)
    return stream.getvalue().splitlines()


def test_long_work_prints_at_most_ten_lines():
    printed = lines_of([("training", done, 1000) for done in range(1001)], seconds_apart=1)
    assert len(printed) == 10
    assert printed[-1] == "training: 1000 of 1000"


def test_the_time_left_follows_from_the_time_taken():
    # 50 s for the first 50 of 200: 150 s for the rest.
    printed = lines_of([("training", done, 200) for done in range(0, 51, 50)], seconds_apart=50)
    assert printed == ["training: 50 of 200, about 2 min left"]


def test_skipped_work_does_not_count_for_the_time_left():
    # 60 were skipped; 10 s for 10 more: 30 s for the other 30.
    reports = [("search", 0, 100), ("search", 60, 100, "", 60), ("search", 70, 100, "", 60)]
    printed = lines_of(reports, seconds_apart=10)
    assert printed == ["search: 70 of 100, about 30 s left"]


def test_no_line_before_anything_was_done():
    reports = [("search", 0, 100), ("search", 60, 100, "", 60)]
    assert lines_of(reports, seconds_apart=10) == []


def test_more_work_than_expected_leaves_no_negative_time():
    printed = lines_of([("search", 0, 100), ("search", 110, 100)], seconds_apart=10)
    assert printed == ["search: 110 of 100"]


def test_lines_have_the_unit_and_the_note():
    reports = [("search", 0, 100, "none yet"), ("search", 50, 100, "best 0.5")]
    printed = lines_of(reports, seconds_apart=10, unit="trials")
    assert printed == ["search: 50 of 100 trials, about 10 s left, best 0.5"]


def test_short_work_prints_nothing():
    assert lines_of([("training", done, 100) for done in range(101)], seconds_apart=0.005) == []


def test_a_summary_is_printed_for_short_work_too():
    reports = [("search", done, 100, "best 0.5") for done in (0, 100)]
    printed = lines_of(reports, seconds_apart=7, unit="trials", summary=True)
    assert printed == ["search: 100 trials in 14 s, best 0.5"]


def test_a_download_is_counted_in_megabytes():
    reports = [("a.gz", 0, 8_000_000), ("a.gz", 4_000_000, 8_000_000)]
    printed = lines_of(reports, seconds_apart=3, unit="MB")
    assert printed == ["a.gz: 4.0 of 8.0 MB, about 3 s left"]


def test_a_download_of_unknown_size_is_silent():
    assert lines_of([("a.gz", done, None) for done in range(9)], seconds_apart=3) == []


def test_a_terminal_shows_a_bar():
    stream = Terminal()
    with progress("training [a]", stream) as report:
        report(1, 4)
        report(4, 4)
    assert "training [a]" in stream.getvalue()
    assert "4/4" in stream.getvalue()


def test_a_bar_shows_the_note(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with Progress(stream) as shown:
        shown.report("training", 1, 4, "best [0.5]")
    assert "best [0.5]" in stream.getvalue()


@pytest.mark.parametrize("stream_type", [Terminal, io.StringIO])
def test_nothing_to_report_shows_nothing(stream_type):
    stream = stream_type()
    with Progress(stream, unit="MB", summary=True):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (120, "2 min"), (5400, "90 min"), (9000, "2.5 h")],
)
def test_durations_are_rounded(seconds, text):
    assert duration(seconds) == text


def test_an_error_takes_the_bar_down():
    stream = Terminal()

    def work():
        with progress("training", stream) as report:
            report(1, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is back
