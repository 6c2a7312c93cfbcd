"""The layout of the package: how much a reader opens, what the wheel holds."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LARGEST = 33_030
"""Lines of the package: lower the number with every line that goes; 12,500 is the goal."""


def file_of(module: str) -> Path | None:
    """The file of a module of this repository."""
    path = ROOT.joinpath(*module.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.exists()), None)


def imported(file: Path) -> set[str]:
    """The names of modules, and of names in modules, that a file imports when it is imported."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def opened(module: str) -> set[Path]:
    """The files of jaxnn that importing a module opens, apart from ``jaxnn/__init__.py``."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        if parts[0] != "jaxnn":
            continue
        for length in range(2, len(parts) + 1):
            name = ".".join(parts[:length])
            file = file_of(name)
            if file and file not in found:
                found.add(file)
                waiting += imported(file)
    return found


@pytest.mark.parametrize("module", ["jaxnn.search", "jaxnn.verify"])
def test_a_reader_opens_at_most_25_files(module):
    files = opened(module)
    assert files
    assert len(files) <= 25, sorted(str(file.relative_to(ROOT)) for file in files)


def test_the_package_grows_by_no_file_and_no_line_unnoticed():
    files = list((ROOT / "jaxnn").rglob("*.py"))
    assert len(files) <= 81
    assert sum(len(file.read_text().splitlines()) for file in files) <= LARGEST


def test_the_console_command_tells_the_version():
    program = (
        "import sys; sys.argv = ['jaxnn', '--version'];"
        "from importlib.metadata import entry_points;"
        "(command,) = entry_points(group='console_scripts', name='jaxnn');"
        "sys.exit(command.load()())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("jaxnn 0.")


@pytest.mark.slow
def test_the_wheel_holds_jaxnn_alone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("jaxnn_basics-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"jaxnn", "jaxnn_basics"}
    assert "jaxnn/py.typed" in names
    assert any(name.endswith("report.html.jinja") for name in names)


def required(extra: str) -> set[str]:
    """The distributions of an extra, of the extras within, and of the package itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, waiting = set(project["dependencies"]), [extra]
    while waiting:
        for requirement in project["optional-dependencies"][waiting.pop()]:
            inner = re.fullmatch(r"jaxnn-basics\[(.*)\]", requirement)
            waiting += inner[1].split(",") if inner else []
            found.add(requirement)
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in found}


def test_the_extra_experiments_has_every_package_that_an_experiment_imports():
    distributions = {"sklearn": "scikit-learn", "flint": "python-flint", "PIL": "pillow"}
    folders = ("", "claims", "mutants")
    files = [file for name in folders for file in (ROOT / "experiments" / name).glob("*.py")]
    packages = {name.partition(".")[0] for file in files for name in imported(file)}
    packages -= {"jaxnn", "experiments", *sys.stdlib_module_names}
    assert {distributions.get(name, name) for name in packages} <= required("experiments")
