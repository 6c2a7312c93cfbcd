"""Progress, on a terminal and elsewhere."""

import io
import itertools

import pytest

from jaxnn.progress import Lines, labelled_progress, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines_of(reports, seconds_apart, **options):
    stream = io.StringIO()
    ticks = itertools.count(step=seconds_apart)
    lines = Lines(stream, clock=lambda: float(next(ticks)), **options)
    for label, done, total in reports:
        lines(label, done, total)
    return stream.getvalue().splitlines()


def test_long_work_prints_at_most_ten_lines():
    printed = lines_of([("training", done, 1000) for done in range(1001)], seconds_apart=1)
    assert len(printed) == 10
    assert printed[-1] == "training: 1000 of 1000"


def test_the_time_left_follows_from_the_time_taken():
    # 50 s for the first 50 of 200: 150 s for the rest.
    printed = lines_of([("training", done, 200) for done in range(0, 51, 50)], seconds_apart=50)
    assert printed == ["training: 50 of 200, about 150 s left"]


def test_short_work_prints_nothing():
    assert lines_of([("training", done, 100) for done in range(101)], seconds_apart=0.005) == []


def test_a_download_is_counted_in_megabytes():
    reports = [("a.gz", 0, 8_000_000), ("a.gz", 4_000_000, 8_000_000)]
    printed = lines_of(reports, seconds_apart=3, in_bytes=True)
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


@pytest.mark.parametrize("stream_type", [Terminal, io.StringIO])
def test_nothing_to_report_shows_nothing(stream_type):
    stream = stream_type()
    with labelled_progress(stream, in_bytes=True):
        pass
    assert stream.getvalue() == ""


def test_an_error_takes_the_bar_down():
    stream = Terminal()

    def work():
        with progress("training", stream) as report:
            report(1, 4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is back
