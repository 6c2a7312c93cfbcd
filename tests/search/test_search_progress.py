"""Progress of a search: on a terminal, elsewhere, and after it went on."""

import io
import math

import jax
import pytest

from jaxnn.search import Status, Task, choice, fixed, integer, log_uniform, random, search
from jaxnn.search.report import programs, reporting
from jaxnn.search.space import Space

SPACE = Space({"learning_rate": log_uniform(1e-3, 1.0)})


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Shows the time it was set to."""

    now = 0.0

    def __call__(self):
        return self.now


def status(done, total=100, *, best=math.inf, diverged=0, read=0):
    return Status(done, total, best, diverged, programs=1, read=read)


def shown(reports, *, measure="error", stream=None):
    """What is printed for reports [(time, status)], after the first line."""
    stream, clock = stream or io.StringIO(), Clock()
    with reporting(True, SPACE, measure, stream=stream, clock=clock) as report:
        for now, each in reports:
            clock.now = now
            report(each)
    return stream.getvalue().splitlines()[1:]


def test_the_time_left_follows_from_the_time_taken():
    # 10 s for the first 20 of 100: 40 s for the rest.
    lines = shown([(0, status(0)), (10, status(20, best=0.25, diverged=3))])
    assert lines[0] == (
        "search: 20 of 100 evaluations, about 40 s left, best accuracy 75.00%, 3 diverged"
    )


def test_a_loss_is_shown_as_a_loss():
    lines = shown([(0, status(0)), (10, status(20, best=0.25))], measure="loss")
    assert "best loss 0.2500" in lines[0]


def test_what_the_log_had_was_no_work():
    # 60 were read in a moment; 10 s for 10 more: 30 s for the other 30.
    reports = [(0, status(0)), (0.1, status(30, read=30)), (0.2, status(60, read=60))]
    lines = shown([*reports, (10.2, status(70, read=60))])
    assert lines[0].startswith("search: 70 of 100 evaluations, about 30 s left")


def test_long_searches_print_a_line_a_tenth():
    reports = [(float(done), status(done / 10, total=100)) for done in range(1001)]
    lines = shown(reports)
    assert len(lines) == 9 + 1
    assert lines[-1] == "search: 100 evaluations in 17 min, 0 diverged"


def test_short_searches_print_how_they_ended():
    lines = shown([(0.001 * done, status(done, best=0.5)) for done in range(101)])
    assert lines == ["search: 100 evaluations in 0 s, best accuracy 50.00%, 0 diverged"]


def test_an_interrupted_search_does_not_say_that_it_ended():
    stream = io.StringIO()

    def work():
        with reporting(True, SPACE, "error", stream=stream) as report:
            report(status(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert stream.getvalue().splitlines() == ["search: the space needs 1 program"]


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    shown([(0, status(0)), (10, status(20, best=0.25, diverged=3))], stream=stream)
    text = stream.getvalue()
    assert "20/100" in text
    assert "about 40 s left, best accuracy 75.00%, 3 diverged" in text
    assert text.startswith("search: the space needs 1 program\n")
    assert text.endswith("\x1b[?25h")  # the cursor is back


@pytest.mark.parametrize("wish", [None, False])
def test_silence_is_the_default(wish, capsys):
    with reporting(wish, SPACE, "error") as report:
        report(status(1))
    assert capsys.readouterr() == ("", "")


def test_a_function_gets_every_status():
    got = []
    with reporting(got.append, SPACE, "error") as report:
        report(status(1))
        report(status(2))
    assert got == [status(1), status(2)]


@pytest.mark.parametrize("wrong", ["yes", 1, []])
def test_other_wishes_are_refused(wrong):
    expected = pytest.raises(TypeError, match="expected True, None or a function")
    with expected, reporting(wrong, SPACE, "error"):
        pass


def test_the_number_of_programs_is_the_number_of_combinations():
    space = Space(
        {
            "learning_rate": log_uniform(1e-3, 1.0),
            "batch_size": integer(5, 7),
            "hidden": choice((), (3,)),
            "optimizer": fixed("sgd"),
        }
    )
    assert programs(space) == (
        "the space needs 6 programs, one for each combination of batch_size, hidden; "
        "combinations without a trial are not compiled"
    )


@pytest.fixture
def task(pixels):
    return Task(pixels, epochs=2)


def run(task, folder, progress):
    space = {"learning_rate": log_uniform(1e-3, 0.1), "batch_size": fixed(20)}
    return search(
        task, space, method=random(3), key=jax.random.key(0), folder=folder, progress=progress
    )


def test_a_search_reports_until_all_is_done(task):
    got = []
    result = run(task, None, got.append)
    assert [each.done for each in got] == sorted(each.done for each in got)
    assert (got[0].done, got[0].total) == (0, 6)
    assert (got[-1].done, got[-1].read, got[-1].programs) == (6, 0, 1)
    assert got[-1].best == pytest.approx(1 - result.best.validation_accuracy)


def test_a_finished_search_reads_everything(task, tmp_path):
    run(task, tmp_path, None)
    got = []
    run(task, tmp_path, got.append)
    assert (got[-1].done, got[-1].read) == (6, 6)


def test_a_search_shows_its_progress(task, capsys):
    run(task, None, True)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "search: the space needs 1 program"
    assert last.startswith("search: 6 evaluations in ")
