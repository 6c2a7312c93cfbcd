"""What notebooks show: tables that sort, pictures, bars in place; and short reprs elsewhere."""

import itertools
import re
import subprocess
import sys
import types
from base64 import b64decode
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn import MLP, NEVER, Data, History, Metrics, Population, display, init
from jaxnn.figures import Curve, curves_figure
from jaxnn.reporting import Progress
from jaxnn.saved_model import SavedModel
from jaxnn.train import ExtendedMetrics
from tests.verify.test_verify_hostile import SCRIPT, Output, browsed

EVIL = f"{SCRIPT} \x1b[31m $x_{{$ \u202e"
PNG = b"\x89PNG"
CURVE = Curve("a", [1, 2], [[1.0, 2.0]])


def history(evaluations=3, name="train"):
    values = np.linspace(1.0, 0.5, evaluations)
    return History(jnp.arange(1, evaluations + 1), {name: Metrics(values, values / 2)})


def population(name="validation", seeds=2, configurations=3):
    rng = np.random.default_rng(0)
    loss = rng.uniform(size=(seeds, configurations, 4))
    diverged_at = np.full((seeds, configurations), NEVER)
    diverged_at[0, 1] = 7
    return Population(None, diverged_at, np.arange(4), {name: Metrics(loss, loss)}, 1.0, 2.0)


def pictures(output):
    return [b64decode(found) for found in re.findall(r"base64,([^\"]+)\"", output)]


def cells(output):
    """The texts of the cells of a table, row by row."""
    rows = re.findall("<tr.*?</tr>", output)[1:]
    return [re.findall("<td[^>]*>(.*?)</td>", row) for row in rows]


@pytest.mark.parametrize(
    "shown",
    [
        history(name=EVIL),
        population(EVIL),
        display.Table([{"a": 1, EVIL: EVIL}, {"a": None, EVIL: 2.0}]),
        display.Table(),
        display.Figures({EVIL: curves_figure([CURVE], title=EVIL, y_label=EVIL)}),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_outputs_are_html_in_which_texts_stay_texts(shown):
    Output(shown._repr_html_())


def test_a_history_shows_a_curve_for_every_measure_and_a_row_for_every_evaluation():
    output = history()._repr_html_() or ""
    assert [each[:4] for each in pictures(output)] == [PNG, PNG]
    assert cells(output) == [["1", "1", "0.5"], ["2", "0.75", "0.375"], ["3", "0.5", "0.25"]]


def test_a_history_without_matplotlib_is_a_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = history()._repr_html_() or ""
    assert pictures(output) == []
    assert len(cells(output)) == 3


def test_a_population_shows_means_over_seeds_the_best_first():
    shown = population()
    output = shown._repr_html_()
    means = shown.metrics["validation"].loss[:, :, -1].mean(axis=0)
    order = np.argsort(means)
    assert [row[0] for row in cells(output)] == [str(k) for k in order]
    assert [row[1] for row in cells(output)] == [f"{means[k]:.6g}" for k in order]
    assert [row[-1] for row in cells(output)] == [str(int(k == 1)) for k in order]
    assert len(pictures(output)) == 1


def test_histories_of_several_runs_at_once_have_no_table():
    runs = jax.vmap(lambda x: History(x + jnp.arange(3), {"train": Metrics(x * jnp.ones(3))}))(
        jnp.arange(2)
    )
    assert runs._repr_html_() is None
    assert repr(runs) == "History(train loss [2, 3])"


def test_a_history_has_a_repr_while_jax_traces():
    seen = []

    def run(x):
        seen.append(repr(History(x, {"train": ExtendedMetrics(x, None, {"recall": x})})))
        return x

    jax.jit(run)(jnp.arange(3))
    assert seen == ["History(train loss [3], train recall [3])"]


def test_a_table_has_at_most_fifty_rows_and_says_so():
    output = display.Table([{"a": i} for i in range(1000)])._repr_html_()
    assert len(cells(output)) == display.ROWS == 50
    assert "the first 50 of 1,000 rows" in output


COLUMN = [2, None, "b", 10, "a", float("nan"), 2.0, True]


def test_numbers_come_before_texts_and_missing_values_last():
    output = display.html(display.table(["x"], [[value] for value in COLUMN]))
    ranks = [int(rank) for rank in re.findall(r"--by0:(\d+)", output)]
    assert [COLUMN[i] for i in np.argsort(ranks, kind="stable")][:4] == [2, 2.0, 10, True]
    assert ranks[0] == ranks[6]
    assert ranks[1] == ranks[5] == max(ranks)
    assert ranks[4] < ranks[2]


ORDER = """<script>
const read = () => [...document.querySelectorAll('tbody tr')]
  .map((row) => [row.cells[0].getBoundingClientRect().top, row.cells[0].textContent])
  .sort((a, b) => a[0] - b[0]).map((each) => each[1]).join('');
const first = read();
document.querySelector('.up1').click(); const up = read();
document.querySelector('.down1').click(); const down = read();
const top_of = (each) => each.getBoundingClientRect().top;
const heads = [...document.querySelectorAll('form')].every((form) =>
  [...form.querySelectorAll('td')].every((td) => top_of(td) > top_of(form.querySelector('th'))));
document.title = [first, up, down, heads].join(' ');
</script>"""


VALUES = {"a": 3, "b": 1.5, "c": None, "d": 20}


@pytest.mark.slow
def test_a_click_sorts_a_table_and_no_other_table(tmp_path):
    rows = [{"name": name, "value": value} for name, value in VALUES.items()]
    table = display.Table(rows)._repr_html_()
    page = f"<!DOCTYPE html><html><body>{table}{ORDER}</body></html>"
    assert "<title>abcd badc cdab true</title>" in browsed(page, tmp_path)
    other = ORDER.replace("'tbody tr'", "'form:last-of-type tbody tr'")
    other = other.replace("[...document.q", "[...document.querySelector('#b').q")
    page = page.replace(table, f"{table}<div id='b'>{table}</div>").replace(ORDER, other)
    (tmp_path / "second").mkdir()
    assert "<title>abcd abcd abcd true</title>" in browsed(page, tmp_path / "second")


def test_figures_show_themselves_and_all_figures_too():
    figure: Any = curves_figure([CURVE], title="A title", y_label="loss")
    assert figure._repr_png_()[:4] == PNG
    output = display.Figures({"curves": figure})._repr_html_()
    Output(output)
    assert pictures(output) == [figure._repr_png_()]


def test_a_single_figure_is_a_picture_for_readers_without_html():
    figure: Any = curves_figure([CURVE], title="A title", y_label="loss")
    figures = display.Figures({"curves": figure})
    bundle = figures._repr_mimebundle_()
    assert bundle.keys() == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == repr(figures) == "Figures(curves)"
    assert bundle["image/png"] == figure._repr_png_()
    several = display.Figures({"first": figure, "second": figure})
    assert several._repr_mimebundle_().keys() == {"text/plain", "text/html"}


# Short reprs


def many_layers():
    params = init(jax.random.key(0), (64, 32, 10))
    stacked = jax.tree.map(lambda leaf: np.stack([leaf] * 5), params)
    return SavedModel(MLP((64, 32, 10)), stacked, "cross_entropy", 1 / 255, {"notes": "x" * 9999})


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("value", "begins"),
    [
        (history(1000), "History(1000 evaluations; at the last train loss 0.5"),
        (history(name=LONG), "History(3 evaluations"),
        (population(), "Population(2 seeds x 3 configurations, 1 diverged; validation loss"),
        (population(LONG), "Population(2 seeds x 3 configurations, 1 diverged"),
        (Data(np.zeros((500, 784), np.uint8), np.zeros(500)), "Data(inputs uint8 [500, 784], tar"),
        (Data([[1.0] * 4] * 999, [0] * 999), "Data(inputs a list of 999, targets a list of 999)"),
        (Data(np.ones((2, 2)), [0, 1], weights={0: LONG}), "Data(inputs float64 [2, 2]"),
        (many_layers(), "SavedModel(MLP(sizes=(64, 32, 10)"),
        (SavedModel(cast(Any, LONG), [np.ones(3)], LONG, 1.0, {}), "SavedModel('xxx"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_reprs_are_short(value, begins):
    assert repr(value).startswith(begins)
    assert len(repr(value)) < 2000
    assert "\n" not in repr(value)


# Progress


class Handle:
    """Stands for IPython.display.DisplayHandle; keeps what a reader sees, state by state."""

    seen: list  # of all handles: [handle, text]

    def display(self, shown):
        Handle.seen.append((self, "new", repr(shown)))

    def update(self, shown):
        Handle.seen.append((self, "changed", repr(shown)))


@pytest.fixture
def jupyter(monkeypatch):
    """A kernel at work; the list of all that is shown."""
    shell = types.SimpleNamespace(kernel=object())
    fake = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    shows = types.SimpleNamespace(DisplayHandle=Handle)
    monkeypatch.setitem(sys.modules, "IPython.display", shows)
    Handle.seen = []
    return Handle.seen


def test_a_notebook_gets_a_bar_that_changes_in_place_and_no_line_of_errors(jupyter, capsys):
    ticks = itertools.chain([0.0, 0.0], itertools.count(1.0))
    with Progress(unit="trials", clock=lambda: float(next(ticks))) as shown:
        for done in (0, 50, 100):
            shown.report("search", done, 100, EVIL if done else "")
    assert capsys.readouterr() == ("", "")
    assert len({id(handle) for handle, *_ in jupyter}) == 1
    assert [state for _, state, _ in jupyter] == ["new", "changed", "changed", "changed"]
    assert jupyter[1][2].startswith("search: 50 of 100 trials, about 1 s left, <script>")
    assert jupyter[-1][2].startswith("search: 100 trials in 3 s")
    assert all(c.isprintable() for *_, text in jupyter for c in text)


def test_a_bar_in_a_notebook_changes_at_most_five_times_a_second(jupyter):
    ticks = itertools.count(0.0, 0.01)
    with Progress(clock=lambda: next(ticks)) as shown:
        for done in range(1000):
            shown.report("training", done, 1000)
    assert 40 <= len(jupyter) <= 52


def test_a_bar_of_a_notebook_is_html_in_which_a_note_stays_text(jupyter):
    shown = display.live()
    assert shown is not None
    shown.show(EVIL, 20, 100)
    Output(shown._repr_html_())
    assert '<progress value="20" max="100">' in shown._repr_html_()


def test_a_stream_that_was_given_gets_lines_in_a_notebook_too(jupyter, capsys):
    with Progress(sys.stdout, unit="trials", summary=True) as shown:
        shown.report("search", 5, 5)
    assert capsys.readouterr().out.startswith("search: 5 trials in ")
    assert jupyter == []


def test_marimo_gets_a_bar(monkeypatch, capsys):
    seen = []
    output = types.SimpleNamespace(replace=lambda shown: seen.append(repr(shown)))
    fake = types.SimpleNamespace(running_in_notebook=lambda: True, output=output)
    monkeypatch.setitem(sys.modules, "marimo", fake)
    with Progress(unit="trials") as shown:
        shown.report("search", 5, 10)
    assert seen[0] == "search: 5 of 10 trials"
    assert capsys.readouterr() == ("", "")


def test_importing_the_package_imports_no_notebook_and_no_figures():
    program = (
        "import jaxnn, jaxnn.verify, jaxnn.search, sys;"
        "print([m for m in ('IPython', 'matplotlib', 'nbformat', 'jaxnn.display') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
