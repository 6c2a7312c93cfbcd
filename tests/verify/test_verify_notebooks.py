"""Claims in notebooks: cells in order, magics, damaged files, and functions of a live cell."""

import json
import sys
import types
from typing import Any

import pytest

from jaxnn.verify import runner, verify
from jaxnn.verify.claims import descriptions
from jaxnn.verify.graph import line_of
from jaxnn.verify.worker import UnusableFile, load_claims

HEAD = "import jax.numpy as jnp\nfrom jaxnn.verify import claim, real"
SQUARE = "def square(z):\n    return jnp.sum(z**2)"
CLAIM = (
    "@claim(of=square, wrt='z', kind='gradient', inputs={'z': real('n')})\n"
    "def right(z):\n    return 2 * z"
)
KERNEL = {"kernelspec": {"name": "my-environment", "language": "python"}}


def loaded(path) -> list[Any]:
    """The claims of a file."""
    return load_claims(path)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook of cells of code; returns the path."""

    def write(*cells, version=4, metadata=KERNEL, **changes):
        source = "source" if version == 4 else "input"
        listed = [{"cell_type": "markdown", "metadata": {}, "source": "# *A* %text"}]
        listed += [{"cell_type": "code", "metadata": {}, "outputs": [], source: c} for c in cells]
        parts = {"cells": listed} if version == 4 else {"worksheets": [{"cells": listed}]}
        path = tmp_path / "notebook.ipynb"
        path.write_text(json.dumps({"nbformat": version, "metadata": metadata, **parts, **changes}))
        return path

    return write


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("source", [str, lambda text: text.splitlines(keepends=True)])
def test_the_cells_run_in_order(notebook, version, source):
    cells = [source(cell) for cell in (HEAD, SQUARE, CLAIM)]
    (found,) = load_claims(notebook(*cells, version=version))
    assert found.name == "right"
    assert verify(found, trials=50).holds


def test_a_report_has_the_code_of_the_cells(notebook):
    (description,) = descriptions(load_claims(notebook(HEAD, SQUARE, "", CLAIM)))
    assert description.formula_code == CLAIM
    assert description.function_code == SQUARE


@pytest.mark.parametrize(
    "magics",
    [
        "%matplotlib inline",
        "%load_ext autoreload\n%autoreload 2",
        "!pip install --quiet jaxnn",
        "!echo it's | grep '''",
        "!pip install a \\\n    b \\\n  c",
        "files = !ls",
        "jnp.sum?",
        "??claim",
        "if True:\n    %cd ..",
        "%timeit square(jnp.ones(3))",
        "get_ipython().run_line_magic('cd', '..')",
        "display(3, clear=True)",
        "print('x')",
        "%%bash\nrm -rf /",
        "\n%%writefile x.py\nraise ValueError",
        "%%html\n<b>no Python</b>",
        "%%timeit\nraise ValueError",
        "%%capture\n%%bash\nrm -rf /",
        "%%latex\n\\frac{1}{2}",
    ],
)
def test_magics_and_prints_are_skipped(notebook, magics, capfd):
    assert [claim.name for claim in load_claims(notebook(HEAD, magics, SQUARE, CLAIM))] == ["right"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("magic", ["%%time", "%%capture out --no-stderr", "%%capture\n%%time"])
def test_a_cell_that_is_only_measured_runs(notebook, magic):
    (found,) = load_claims(notebook(HEAD, SQUARE, f"{magic}\n{CLAIM}"))
    assert found.name == "right"


def test_a_line_that_is_only_timed_runs(notebook):
    cells = "%time two = 2", f"def square(z):\n    return jnp.sum(z**two) {'# %time'}", CLAIM
    assert verify(*loaded(notebook(HEAD, *cells)), trials=50).holds


def test_percent_signs_and_question_marks_of_python_stay(notebook):
    cell = "seven = (67\n  % 10)\ntext = '''\n%no magic\n!none\nreally?\n'''\nassert seven == 7\n"
    check = "assert text.split() == ['%no', 'magic', '!none', 'really?']"
    assert load_claims(notebook(HEAD, f"%cd ..\n{cell}", check, SQUARE, CLAIM))


def test_a_skipped_cell_with_a_claim_is_told(notebook, capsys):
    path = notebook(HEAD, SQUARE, CLAIM, f"%%unknown\n{CLAIM}")
    assert len(load_claims(path)) == 1
    assert capsys.readouterr().err == f"{path}, cell 4: skipped, %%unknown is no magic of Python\n"


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["x = 1", "", " \n\t", "# no code", "y = 2\n1 / 0"], "cell 3, line 2: ZeroDivisionError"),
        (["x = 1", "%cd ..\n\ndef f(:\n  3"], "cell 2, line 3: SyntaxError"),
        (["x = 1 1  # is this right?"], "cell 1, line 1: SyntaxError"),
        (["  pass\n pass"], "cell 1, line"),
        (["def f():\n    raise KeyError('w')", "f()"], "cell 1, line 2: KeyError: 'w'"),
        (["files = !ls", "len(files)"], "cell 2, line 1: NameError"),
        ([HEAD, "\nclaim(of=3)"], "cell 2, line 2: "),
        ([HEAD, SQUARE, CLAIM, f"\n{CLAIM}"], "cell 4, line 3: a second claim 'right', the first"),
        (["x = 1"], "no claims in it, expected functions decorated with @claim"),
        (["x = '\ud800'"], "UnicodeEncodeError"),
        (["x = '\0'"], "null bytes"),
        (["import sys\nsys.exit(3)"], "cell 1, line 2: SystemExit: 3"),
        ([3], "a damaged notebook: code cells[0].source is 3, expected a text or a list of texts"),
        ([["a", 3]], "expected a text or a list of texts"),
    ],
)
def test_a_cell_that_cannot_run_is_named(notebook, cells, says):
    path = notebook(*cells)
    with pytest.raises(UnusableFile) as caught:
        load_claims(path)
    assert str(caught.value).startswith(f"{path}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_second_claim_names_both_cells(notebook):
    with pytest.raises(UnusableFile, match=r"cell 4, line 3: .* the first is in cell 3, line 2$"):
        load_claims(notebook(HEAD, SQUARE, CLAIM, f"\n{CLAIM}"))


DAMAGED = [
    (b"", "expected a notebook in JSON"),
    (b"\xff\xfe\x00", "expected a notebook in JSON"),
    (b'{"nbformat": 4, "cells": [', "expected a notebook in JSON"),
    (b"import jax", "expected a notebook in JSON"),
    (b"[" * 100_000, "expected a notebook in JSON"),
    (b'{"nbformat": 1' + b"0" * 10_000 + b"}", "expected a notebook"),
    (b"[]", "nbformat is None, expected a notebook of nbformat 3 or 4"),
    (b"{}", "nbformat is None, expected a notebook of nbformat 3 or 4"),
    (b'{"nbformat": 2}', "nbformat is 2, expected"),
    (b'{"nbformat": 5, "cells": []}', "nbformat is 5, expected"),
    (b'{"nbformat": [[4]]}', "expected a notebook of nbformat 3 or 4"),
    (b'{"nbformat": 4}', "a damaged notebook: cells is null, expected a list"),
    (b'{"nbformat": 3}', "a damaged notebook: worksheets is null, expected a list"),
    (b'{"nbformat": 3, "worksheets": [3]}', "expected values by name"),
    (b'{"nbformat": 4, "cells": {"a": 1}}', "expected a list"),
    (b'{"nbformat": 4, "cells": [null]}', "expected values by name"),
    (b'{"nbformat": 4, "cells": [{}]}', "cell_type is null, expected a text"),
    (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "source is null, expected a text"),
    (
        b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": {"language": "R"}}}',
        "a notebook of 'R', expected a notebook of Python",
    ),
    (
        b'{"nbformat": 4, "cells": [], "metadata": {"language_info": {"name": "julia"}}}',
        "a notebook of 'julia', expected a notebook of Python",
    ),
    (b'{"nbformat": 4, "cells": [], "metadata": [3]}', "no claims in it"),
    (b'{"nbformat": 4, "cells": [], "metadata": {"kernelspec": 3}}', "no claims in it"),
]


@pytest.mark.parametrize(("content", "says"), DAMAGED, ids=lambda case: str(case)[:40])
def test_a_damaged_notebook_is_one_line(tmp_path, content, says):
    path = tmp_path / "damaged.ipynb"
    path.write_bytes(content)
    with pytest.raises(UnusableFile) as caught:
        load_claims(path)
    assert str(caught.value).startswith(f"{path}")
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_notebook_beside_a_file_is_judged_in_processes(notebook, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "claims.py").write_text("\n".join([HEAD, SQUARE, CLAIM]))
    fails = CLAIM.replace("right", "fails").replace("2 * z", "missing(z)")
    files = [notebook(HEAD, SQUARE, CLAIM, f"%pwd\n\n{fails}"), tmp_path / "claims.py"]
    entries = runner.judge(files, trials=50, workers=1)
    assert [verdict.verdict for _, verdict in entries] == ["holds", "error", "holds"]
    assert "name 'missing' is not defined (cell 4, line 5)" in entries[1][1].detail


def test_a_cell_that_takes_too_long_takes_no_output_along(notebook, capsys):
    path = notebook("import time\ntime.sleep(1.5)")
    ((_, verdict),) = runner.judge([path], timeout=0.5, workers=0)
    print("the table")
    assert verdict.detail == "stopped after 0.5 s, while the file was loaded"
    assert capsys.readouterr() == ("the table\n", "")
    for thread in runner._lost:
        thread.join(10)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("/home/me/claims.py", "line 2 of claims.py"),
        ("/home/me/note, cell 3.py", "line 2 of note, cell 3.py"),
        ("/home/me/a.ipynb, cell 3", "cell 3, line 2"),
        ("/home/me/a, cell 3", "line 2 of a, cell 3"),
        ("<ipython-input-7-0a1b2c3d>", "In [7], line 2"),
        ("/tmp/ipykernel_9/123.py", "In [3], line 2"),
        ("/tmp/marimo_9/__marimo__cell_Hbol_.py", "cell Hbol, line 2"),
        ("<stdin>", "line 2 of <stdin>"),
    ],
)
def test_lines_are_of_a_file_or_of_a_cell(file, line, monkeypatch):
    compiler = types.SimpleNamespace(_filename_map={"/tmp/ipykernel_9/123.py": 3})
    shell = types.SimpleNamespace(compile=compiler)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert line_of(file, 2) == line


def test_the_diagnosis_quotes_a_line_of_a_cell(notebook):
    square = "def square(z):\n    w = jnp.tanh(z)\n    return jnp.sum(w**2)"
    wrong = CLAIM.replace("2 * z", "2 * jnp.tanh(z)")
    verdict = verify(*loaded(notebook(HEAD, square, wrong)), trials=50)
    assert [finding.code for finding in verdict.diagnosis] == ["activation_derivative_missing"]
    (finding,) = verdict.diagnosis
    assert "cell 2, line 2 is `w = jnp.tanh(z)`" in finding.detail
