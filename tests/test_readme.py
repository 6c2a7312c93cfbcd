"""Every page of the repository: its examples run and print what the page prints, its links lead."""

import contextlib
import functools
import importlib.util
import io
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import jaxnn.search
from jaxnn import Data
from jaxnn.search import Task, fixed, uniform
from jaxnn.verify.claims import KINDS
from jaxnn.verify.verdict import CODES, VERDICTS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for pattern in ("*.md", ".github/*.md", "jaxnn/**/*.md", "experiments/**/*.md")
    for page in ROOT.glob(pattern)
)

RELATIVE, ABSOLUTE = 0.2, 0.01
"""Tolerances of a printed fraction: other machines round differently, training amplifies it."""

LONG = ("README.md", "jaxnn/verify/README.md")
"""Pages whose blocks take more than ten seconds: their examples run with the slow tests."""

NOT_RUN = {
    "pip install": "installs packages; run by hand",
    "pytest": "this suite",
    ".ci/run": "runs this suite",
    "python -m experiments": "tests/experiments runs every experiment; pictures need a browser",
    "python tests/": "takes minutes; run by .ci/run",
    "srun": "needs a cluster",
    "gcloud": "needs a cloud",
    "mpirun": "needs Open MPI",
    "ruff": "run by .ci/run",
    "pyright": "run by .ci/run",
    "lint-imports": "run by .ci/run",
    "git clone": "needs the network",
}
"""Commands of pages that no test here runs, by their first words, and why."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    printed: str | None  # the block of language "text" that follows at once
    line: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page in their order; a printed output belongs to the block before."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fence = r"```(\w+)\n(.*?)```\n?(?:\s*```text\n(.*?)```)?"
    return [
        Block(found[1], found[2], found[3], text[: found.start()].count("\n") + 1)
        for found in re.finditer(fence, text, re.DOTALL)
    ]


def commands(block: Block) -> list[str]:
    """The commands of a block of language sh, without comments; && separates two."""
    joined = block.text.replace("\\\n", " ")
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    return [part.strip() for line in lines if line for part in line.split("&&")]


def run(page: str, folder: Path) -> Iterator[tuple[Block, str]]:
    """Runs the blocks of a page in one folder and one namespace, as a reader would type them."""
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        file_name = re.match(r"# (\w+\.py)\n", block.text)
        if block.language == "python" and file_name:
            (folder / file_name[1]).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            stream = io.StringIO()
            program = compile("\n" * block.line + block.text, page, "exec")
            with contextlib.chdir(folder), contextlib.redirect_stdout(stream):
                exec(program, names)
            yield block, stream.getvalue()
        elif block.language == "sh":
            for command in commands(block):
                if is_run(command):
                    yield block, run_command(command, folder)


def is_run(command: str) -> bool:
    """Whether a test here runs a command of a page."""
    return not command.startswith(tuple(NOT_RUN))


def run_command(command: str, folder: Path, **variables: str) -> str:
    """What a command prints; ``jaxnn`` is the package of this checkout."""
    interpreter = f'"{sys.executable}" -W error'
    program = re.sub(r"^jaxnn\b", f"{interpreter} -m jaxnn", command)
    program = re.sub(r"^python\b", interpreter, program)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | variables
    done = subprocess.run(
        program, shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr  # 1: a claim is refuted
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


NUMBER = re.compile(r"-?\d[\d,]*\.\d+(?:e-?\d+)?|-?\d+e-\d+")


def assert_printed(printed: str, expected: str) -> None:
    """The same text but for spaces; fractions within RELATIVE or ABSOLUTE, percentages by 2."""
    lines = [
        [" ".join(re.sub("─+", "─", line).split()) for line in text.splitlines() if line.strip()]
        for text in (printed, expected)
    ]
    assert [NUMBER.sub("#", line) for line in lines[0]] == [
        NUMBER.sub("#", line) for line in lines[1]
    ], printed
    for line, wanted in zip(*lines, strict=True):
        for number, value in zip(fractions(line), fractions(wanted), strict=True):
            close = pytest.approx(value, rel=RELATIVE, abs=2 if "%" in wanted else ABSOLUTE)
            assert number == close, f"{line!r}, expected {wanted!r}"


def fractions(line: str) -> list[float]:
    """The numbers of a line that are not whole."""
    return [float(text.replace(",", "")) for text in NUMBER.findall(line)]


class StandIn(types.ModuleType):
    """A package of a dashboard that is not installed: every call is kept with its arguments."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple[str, tuple, dict]] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return functools.partial(self._call, name)

    def _call(self, name: str, *arguments, **options):
        self.calls.append((name, arguments, options))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    @property
    def info(self):
        return types.SimpleNamespace(run_id=str(len(self.calls)))


@pytest.fixture
def stand_ins(monkeypatch):
    """Packages of dashboards, where they are not installed."""
    made = {name: StandIn(name) for name in ("mlflow", "tensorboardX")}
    for name, module in made.items():
        if importlib.util.find_spec(name) is None:
            monkeypatch.setitem(sys.modules, name, module)
    return made


def test_dashboards_get_every_score_of_every_trial(tmp_path, stand_ins):
    """Whether the packages are installed or not: stand-ins hear the calls of the page."""
    rng = np.random.default_rng(0)
    names: dict[str, Any] = {
        "task": Task(Data(rng.random((24, 4)), np.arange(24) % 2), epochs=3),
        "space": {"learning_rate": uniform(0.1, 1.0), "batch_size": fixed(5)},
        "search": jaxnn.search.search,
        "random": jaxnn.search.random,
        "key": 0,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, module in stand_ins.items():
            patch.setitem(sys.modules, name, module)
        for block in blocks("jaxnn/search/README.md"):
            if "callback=" in block.text and block.language == "python":
                with contextlib.chdir(tmp_path):
                    exec(block.text, names)
                assert len([line for line in block.text.splitlines() if line]) <= 16
    board = [arguments for name, arguments, _ in stand_ins["tensorboardX"].calls if "add" in name]
    calls = stand_ins["mlflow"].calls
    flow = [(*arguments, options["step"]) for n, arguments, options in calls if n == "log_metric"]
    assert len(board) == len(flow) == 4 * 3 * 2  # trials, evaluations, loss and error
    assert [(f"validation/{name}", *rest) for name, *rest in flow] == board
    configs = [arguments[0] for name, arguments, _ in calls if name == "log_params"]
    result = names["search"](names["task"], names["space"], method=names["random"](4), key=0)
    curves = result.curves
    assert configs == [curves[number].trial.config for number in range(4)]
    losses = [value for name, value, step in flow if (name, step) == ("loss", 3)]
    assert losses == [curves[number].means["loss"][-1] for number in range(4)]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in LONG else ())
        for page in PAGES
        if any(b.language in ("python", "sh") for b in blocks(page))
    ],
)
def test_every_block_of_a_page_runs_and_prints_as_the_page_says(page, tmp_path, stand_ins):
    for block, printed in run(page, tmp_path):
        if block.printed is not None:
            assert_printed(printed, block.printed)


@pytest.mark.slow
def test_the_program_for_a_cluster_runs_as_a_job_of_slurm(tmp_path):
    (program,) = [
        b.text for b in blocks("jaxnn/search/README.md") if "distributed.join()" in b.text
    ]
    (tmp_path / "cluster.py").write_text(program, encoding="utf-8")
    job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "1"}
    task = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    printed = run_command("python cluster.py", tmp_path, **job, **task)
    assert "the best 3 of 256 trials" in printed


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_run_or_of_a_language_that_cannot_be(page):
    fences = re.findall(r"^```(\w*)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    opening = fences[::2]
    assert set(opening) <= {"python", "sh", "text", "yaml"}
    assert opening.count("text") == sum(block.printed is not None for block in blocks(page))


def test_printed_text_is_compared_word_by_word_and_number_by_number():
    assert_printed("error  2.6%\n\n", "error 2.7%")
    for wrong in ("error 5.9%", "loss 2.7%", "error 2.7%\nmore"):
        with pytest.raises(AssertionError):
            assert_printed(wrong, "error 2.7%")
    for wrong in ("trial 8 0.123", "trial 7 0.2"):
        with pytest.raises(AssertionError):
            assert_printed(wrong, "trial 7 0.123")


def test_the_page_of_verification_lists_every_verdict_kind_and_diagnosis():
    page = (ROOT / "jaxnn/verify/README.md").read_text(encoding="utf-8")
    for name in (*VERDICTS, *KINDS, *CODES):
        assert f"`{name}`" in page, name


def test_the_page_of_search_lists_every_method_domain_and_validation():
    page = (ROOT / "jaxnn/search/README.md").read_text(encoding="utf-8")
    functions = [name for name in jaxnn.search.__all__ if name.islower()]
    for name in set(functions) - {"search"}:
        assert f"`{name}(" in page or f"={name}(" in page, name


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_of_a_page_exists(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    outside = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", outside)
    for link in ("".join(link).partition("#")[0] for link in links):
        if link and not link.startswith(("https://", "http://")):
            assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_no_page_installs_the_other_project_of_this_name(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not re.search(r"pip install [\"']?jaxnn(?!-basics)", text)


def test_the_page_of_the_experiments_lists_every_experiment():
    folder = ROOT / "experiments"
    programs = [*folder.glob("*.py"), *folder.glob("*/__main__.py")]
    runnable = {
        file.parent.name if file.stem == "__main__" else file.stem
        for file in programs
        if "harness.leave(main())" in file.read_text(encoding="utf-8")
    }
    page = (folder / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[`python -m experiments\.(\w+)`\]", page, re.MULTILINE)
    assert sorted(listed) == sorted(runnable - {"harness"})


def test_the_first_page_is_short_and_begins_with_the_two_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) < 200
    first_screen = "\n".join(readme.splitlines()[:12])
    assert 'pip install -e ".[experiments]" && python -m experiments.architectures' in first_screen
    assert 'pip install -e ".[test]" && pytest' in first_screen


def test_the_figures_of_the_first_page_are_those_of_the_benchmark():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    benchmark = (ROOT / "experiments/benchmark/README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| job | jaxnn |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) == 6
    for row in table:
        _, ours, peer, ratio, _ = (cell.strip() for cell in row.strip("|").split("|"))
        figures = [re.findall(r"[\d,]*\d(?:\.\d+)?", text)[-1] for text in (ours, peer)]
        for figure in figures:
            assert re.search(rf"\| {figure} \|", benchmark), (row, figure)
        faster, slower = sorted(float(figure.replace(",", "")) for figure in figures)
        assert float(ratio) == pytest.approx(slower / faster, rel=0.03)


def test_the_first_page_shows_two_to_four_pictures_and_all_pictures_are_small():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 2 <= len(re.findall(r"<img|!\[", readme)) <= 4
    folders = (".github", "jaxnn", "experiments")
    pictures = [path for folder in folders for path in (ROOT / folder).rglob("*.png")]
    assert pictures
    assert sum(path.stat().st_size for path in pictures) < 300_000
