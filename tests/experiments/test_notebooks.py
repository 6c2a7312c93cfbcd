"""The executed notebooks of experiments/notebooks: small, without errors, and as they run today."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jaxnn.verify import runner
from tests.verify.test_verify_hostile import browsed

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NAMES = ("experiment", "search", "verify")


def outputs(notebook: Any) -> list[list[Any]]:
    """The outputs of the cells of code, a list for each cell."""
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(notebook: Any) -> list[list[list[str]]]:
    """The kinds of the outputs: the types of what is displayed, the names of streams."""
    return [
        [sorted(output.get("data", {output.get("name", "error"): 0})) for output in cell]
        for cell in outputs(notebook)
    ]


def text_of(notebook: Any) -> str:
    """All that is shown as plain text."""
    parts = [
        o.get("data", {}).get("text/plain", o.get("text", "")) for c in outputs(notebook) for o in c
    ]
    return "\n".join("".join(part) for part in parts)


def stored(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.ipynb").read_text())


def test_there_are_three_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == [*NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_small_and_executed_from_the_top(name):
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 200_000
    cells = [cell for cell in stored(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]


@pytest.mark.parametrize("name", NAMES)
def test_no_output_is_an_error_or_a_red_box(name):
    shown = {kind for cell in kinds(stored(name)) for output in cell for kind in output}
    assert {"text/html", "stdout"} <= shown <= {"text/html", "text/plain", "image/png", "stdout"}


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """Runs a notebook in a new kernel that finds this jaxnn."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    import nbformat
    from nbclient import NotebookClient

    def run(name: str) -> Any:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        where = {"metadata": {"path": tmp_path}}
        return NotebookClient(notebook, timeout=300, resources=where).execute()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("experiment", r"Population\(3 seeds x 12 configurations, .*test accuracy 9\d\.\d%"),
        ("search", r"search: 144 evaluations in .*Result\(24 trials, 0 diverged; best: trial"),
        ("verify", r"activation_derivative_missing in tanh, In \[3\], line 2\).*line 2 does not"),
    ],
)
def test_a_notebook_runs_afresh_and_shows_what_it_showed(name, says, executed):
    notebook = executed(name)
    assert kinds(notebook) == kinds(stored(name))
    for shown in (notebook, stored(name)):
        assert re.search(says, text_of(shown), re.DOTALL)


@pytest.mark.slow
def test_the_claims_of_the_notebook_are_verified_from_the_command_line():
    entries = runner.judge([FOLDER / "verify.ipynb"], trials=200, workers=1)
    found = {verdict.name: verdict.verdict for _, verdict in entries}
    assert found == {
        "by_logits": "holds",
        "slip": "refuted",
        "tanh, line 1": "holds",
        "tanh, line 2": "refuted",
        "tanh, line 3": "holds",
        "textbook": "holds_unstable",
    }


CLICK = """<script>
document.querySelector('form .up0').click();
const tops = [...document.querySelectorAll('form tbody tr')].map((row) =>
  [row.cells[0].getBoundingClientRect().top, Number(row.cells[0].textContent)]);
const numbers = tops.sort((a, b) => a[0] - b[0]).map((each) => each[1]);
document.title = [errors.length, numbers.join(' ')].join(': ');
</script>"""


@pytest.mark.slow
def test_the_page_of_nbconvert_has_a_table_that_sorts_and_no_script_error(tmp_path):
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(FOLDER / "search.ipynb", as_version=4)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    page = re.sub(r"<script[^>]*\bsrc=[^>]*></script>", "", page)  # no network in a test
    listen = "<head><script>const errors = []; onerror = (e) => errors.push(e);</script>"
    page = page.replace("<head>", listen, 1).replace("</body>", f"{CLICK}</body>")
    seen = browsed(page, tmp_path)
    assert f"<title>0: {' '.join(map(str, range(24)))}</title>" in seen
