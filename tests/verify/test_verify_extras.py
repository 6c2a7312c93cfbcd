"""Every package of the extra ``verify`` left out: one line with the pip command, no traceback."""

import subprocess
import sys

import pytest

from jaxnn.verify.__main__ import EXTRA

CLAIM = """
import jax.numpy as jnp
from jaxnn.verify import claim, real

@claim(of=lambda x: jnp.sin(x), wrt="x", kind="gradient", inputs={"x": real()})
def derivative(x):
    return jnp.cos(x)
"""

CONSOLE = "from jaxnn.__main__ import main; sys.exit(main(['verify', 'claims.py']))"
MODULE = """
sys.argv = ["jaxnn.verify", "claims.py"]
import runpy
runpy.run_module("jaxnn.verify", run_name="__main__", alter_sys=True)
"""


def without(package: str, program: str, folder) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own, in which the package cannot be imported."""
    blocked = f"import sys; sys.modules[{package!r}] = None\n{program}"
    return subprocess.run(
        [sys.executable, "-c", blocked], cwd=folder, capture_output=True, text=True, check=False
    )


def one_line(package: str) -> str:
    return (
        f"{package} is not installed, expected the extra 'verify': "
        "pip install 'jaxnn-basics[verify]'\n"
    )


@pytest.mark.parametrize(
    "package",
    [p if p == "flint" else pytest.param(p, marks=pytest.mark.slow) for p in EXTRA],
)
def test_a_missing_package_is_one_line_and_status_2(package, tmp_path):
    (tmp_path / "claims.py").write_text(CLAIM)
    done = without(package, CONSOLE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"jaxnn.verify: {one_line(package)}",
    )


def test_the_module_says_the_same_as_the_console_command(tmp_path):
    done = without("flint", MODULE, tmp_path)
    assert (done.returncode, done.stderr) == (2, f"jaxnn.verify: {one_line('flint')}")


def test_without_flint_claims_are_made_and_verifying_names_the_extra(tmp_path):
    program = (
        CLAIM
        + """
from jaxnn.verify import assert_holds, gradcheck, verify
assert gradcheck(jnp.sin, 0.5).passed
for uses in (
    lambda: verify(derivative),
    lambda: assert_holds(derivative),
):
    try:
        uses()
    except ModuleNotFoundError as error:
        print(error)
"""
    )
    done = without("flint", program, tmp_path)
    assert done.stderr == ""
    assert done.stdout == 2 * one_line("flint")


def test_the_extra_is_the_one_that_is_declared():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    declared = project["project"]["optional-dependencies"]["verify"]
    imports = {"python-flint": "flint"}
    packages = [str(requirement).split(">")[0] for requirement in declared]
    assert sorted([imports.get(name) or name for name in packages]) == sorted(EXTRA)
