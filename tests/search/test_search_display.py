"""A result in a notebook: the choice, the curves, a table that sorts; figures in every format."""

import os
import re
import sys
from base64 import b64decode
from xml.etree import ElementTree

import pytest
from handmade import Made, result

from jaxnn.display import ROWS, Figures
from jaxnn.search import choice, figures, fixed, log_uniform
from tests.verify.test_verify_hostile import SCRIPT, Output

SPACE = {"learning_rate": log_uniform(1e-3, 1.0), "hidden": choice((), (5, 3))}
BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def config(learning_rate, hidden=()):
    return {"learning_rate": learning_rate, "hidden": hidden, "batch_size": 6}


WORSE = Made(config(0.01), [[0.5, 0.6], [0.4, 0.5]])
GOOD = Made(config(0.1, (5, 3)), [[0.3, 0.4], [0.1, 0.2]])
LOST = Made(config(1.0), [[0.9, 0.9], [float("nan"), 0.9]], diverged_at=5)


@pytest.fixture
def made():
    return result(SPACE | {"batch_size": fixed(6)}, [WORSE, GOOD, LOST], epochs=2)


def rows(output):
    found = re.findall("<tr.*?</tr>", output)[1:]
    return [re.findall("<td[^>]*>(.*?)</td>", row) for row in found]


def test_a_result_shows_the_trials_the_best_first_and_the_choice_in_bold(made):
    output = made._repr_html_()
    Output(output)
    assert rows(output) == [
        ["1", "0.1", "5-3", "2", "85.00 ± 7.07", "0.3000 ± 0.1414"],
        ["0", "0.01", "none", "2", "55.00 ± 7.07", "0.9000 ± 0.1414"],
        ["2", "1", "none", "", "", ""],
    ]
    (chosen,) = re.findall('<tr class="chosen".*?</tr>', output)
    assert ">85.00 ± 7.07<" in chosen
    assert "learning_rate = 0.1, hidden = 5-3" in output
    assert "3 trials, 1 diverged" in output


def test_a_result_shows_its_learning_curves(made):
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', made._repr_html_())
    assert b64decode(picture) == made.figures("learning_curves")["learning_curves"]._repr_png_()


def test_a_result_without_matplotlib_is_a_table(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = made._repr_html_()
    assert "<img" not in output
    assert len(rows(output)) == 3


def test_a_column_sorts_by_numbers_and_diverged_trials_come_last(made):
    trials = re.findall('<tr[^>]*style="([^"]*)"', made._repr_html_())
    ranks = [dict(re.findall(r"--by(\d+):(\d+)", trial)) for trial in trials]
    assert [rank["1"] for rank in ranks] == ["1", "0", "2"]  # learning rates 0.1, 0.01, 1
    assert [rank["4"] for rank in ranks] == ["1", "0", "2"]  # accuracies 85, 55, none


def test_many_trials_are_a_table_of_the_best():
    trials = [Made(config(0.01 + i / 1000), [[0.1 + i / 1000]]) for i in range(120)]
    output = result(SPACE | {"batch_size": fixed(6)}, trials, epochs=1)._repr_html_()
    assert [row[0] for row in rows(output)] == [str(i) for i in range(ROWS)]
    assert f"the best {ROWS} of 120 trials" in output
    assert len(output) < 100_000


EVIL = (SCRIPT, os.fsdecode(b"\xff\x1b[31m"), "$x_{$", "\u202e<b>")


def test_names_and_options_of_strangers_stay_text():
    space = {name: choice(*EVIL) for name in EVIL} | {
        "learning_rate": log_uniform(0.001, 1),
        "batch_size": fixed(6),
    }
    given = {"learning_rate": 0.1, "batch_size": 6} | dict.fromkeys(EVIL, SCRIPT)
    made = result(space, [Made(given, [[0.5]])], epochs=1, model_parameters=EVIL)
    output = made._repr_html_()
    Output(output)
    assert "&lt;script&gt;" in output
    assert repr(made).isprintable()


def test_a_result_has_a_short_repr(made):
    assert repr(made) == (
        "Result(3 trials, 1 diverged; best: trial 1, "
        "validation_accuracy 0.85, validation_cross_entropy 0.3)"
    )


def test_the_table_of_a_result_shows_itself(made):
    output = made.table._repr_html_()
    Output(output)
    assert len(rows(output)) == 3
    assert made.table == [*made.table]


@pytest.mark.slow
def test_figures_are_all_that_suit_the_search(made):
    assert [*made.figures()] == ["learning_curves", "hyperparameters", "parallel_coordinates"]


def test_figures_are_those_named(made):
    drawn = made.figures("hyperparameters")
    assert isinstance(drawn, Figures)
    assert [*drawn] == ["hyperparameters"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("curves", "figure is 'curves', expected one of"),
        ("importance", "too few trials or hyperparameters, expected figures"),
        (3, "figure is 3, expected one of"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_refused(made, name, says):
    with pytest.raises(ValueError, match=says):
        made.figures(name)


@pytest.fixture
def curves_alone(monkeypatch):
    """Only the learning curves are drawn, for speed."""
    everything = figures.figures
    monkeypatch.setattr(figures, "figures", lambda made: everything(made, "learning_curves"))


@pytest.mark.parametrize("format", BEGINNINGS)
def test_figures_are_written_in_the_format_asked_for(made, tmp_path, format, curves_alone):
    *_, drawn = made.write(tmp_path, format=format)
    assert drawn.name == f"learning_curves.{format}"
    assert drawn.read_bytes().startswith(BEGINNINGS[format])
    if format == "svg":
        assert ElementTree.parse(drawn).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_equal_results_are_equal_files(made, tmp_path, curves_alone):
    first = [file.read_bytes() for file in made.write(tmp_path / "1", "svg")[1:]]
    assert first == [file.read_bytes() for file in made.write(tmp_path / "2", "svg")[1:]]


@pytest.mark.parametrize("format", ["jpg", ".svg", "SVG", 3, None])
def test_an_unknown_format_is_refused_before_anything_is_written(made, tmp_path, format):
    with pytest.raises(ValueError, match=r"format is .*, expected one of png, svg, pdf"):
        made.write(tmp_path / "out", format=format)
    assert not (tmp_path / "out").exists()
