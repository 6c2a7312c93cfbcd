"""Claims of files: found, judged in processes of their own, and none takes the others with it."""

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jaxnn.verify import Verdict, runner
from jaxnn.verify.loading import UnusableFile, load_claims

HEAD = """\
import jax.numpy as jnp
from jaxnn.verify import claim, real

def square(z):
    return jnp.sum(z**2)

about = dict(of=square, wrt="z", kind="gradient", inputs={"z": real("n")})

"""

FAKE = """\
import sys, types
from multiprocessing import parent_process
import numpy as np
from jaxnn.verify import Verdict

def verify(claimed, *, trials=None, seed=0):
    claimed.evaluate({"z": np.ones(3)})
    return Verdict(claimed.name, claimed.source, claimed.kind, "holds", trials or 7, 0.0, None,
                   None, (), 0.0, f"seed {seed}")

if parent_process():
    sys.modules["jaxnn.verify.verification"] = types.ModuleType("fake")
    sys.modules["jaxnn.verify.verification"].verify = verify
"""
"""Imported by a file of claims: in a process started for it, verification is this."""

GOOD = "@claim(**about)\ndef {name}(z):\n    return 2 * z\n\n"


def run(files, **flags) -> list[Verdict]:
    return runner.judge(runner.load_files(files), **flags)


def judged(name, **fields) -> Verdict:
    return Verdict(name, "", "gradient", "holds", 7, 0.0, None, None, (), 0.0)._replace(**fields)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def write(tmp_path):
    def write(text, name="claims.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def fake(monkeypatch):
    """Replaces verification in this process."""

    def fake(verify):
        module: Any = types.ModuleType("jaxnn.verify.verification")
        module.verify = verify
        monkeypatch.setitem(sys.modules, "jaxnn.verify.verification", module)

    return fake


def names(path):
    return [claimed.name for claimed in load_claims(path)]


def test_claims_come_in_order_of_definition_each_once(write):
    text = HEAD + GOOD.format(name="zeta") + GOOD.format(name="alpha") + "again = zeta\n"
    assert names(write(text)) == ["zeta", "alpha"]


def test_an_imported_claim_belongs_to_the_file_that_defines_it(write):
    write(HEAD + GOOD.format(name="theirs"), "neighbour_of_claims.py")
    text = "from neighbour_of_claims import *\n" + HEAD + GOOD.format(name="ours")
    assert names(write(text)) == ["ours"]


def test_a_claim_of_an_imported_function_belongs_to_this_file(write):
    write("def double(z):\n    return 2 * z\n", "neighbour_with_function.py")
    text = HEAD + "from neighbour_with_function import double\nmine = claim(**about)(double)\n"
    assert names(write(text)) == ["double"]


def test_a_claim_that_is_only_corrected_stays_out(write):
    text = HEAD + "def printed():\n    @claim(**about)\n    def wrong(z):\n        return z\n"
    text += "    return wrong\n\n@claim(**about, corrects=printed())\n"
    assert names(write(text + "def right(z):\n    return 2 * z\n")) == ["right"]


def test_a_changed_file_is_read_anew(write):
    assert names(write(HEAD + GOOD.format(name="one"))) == ["one"]
    assert names(write(HEAD + GOOD.format(name="two"))) == ["two"]


def test_what_a_file_defines_can_be_pickled(write):
    text = HEAD + "from typing import NamedTuple\nclass P(NamedTuple):\n    w: float\n"
    text += "@claim(**about)\ndef made(z):\n    return P(z)\n"
    value = load_claims(write(text))[0](3.0)
    assert pickle.loads(pickle.dumps(value)) == value


def test_what_a_file_prints_goes_to_standard_error(write, capsys):
    load_claims(write(HEAD + GOOD.format(name="one") + "print('loading')\n"))
    assert capsys.readouterr() == ("", "loading\n")


UNUSABLE = [
    ("x = (\n", "line 1: SyntaxError: '(' was never closed"),
    ("x = 1\0\n", "SyntaxError: source code string cannot contain null bytes"),
    ("x = 1\nimport nothing_of_this_name\n", "line 2: ModuleNotFoundError: No module named"),
    ("\n\ndef f():\n    return 1 / 0\n\nf()\n", "line 4: ZeroDivisionError: division by zero"),
    ("import sys\nsys.exit('enough')\n", "line 2: SystemExit: enough"),
    ("x = 1\n", "no claims in it, expected functions decorated with @claim"),
    (
        HEAD + "@claim(**(about | {'kind': 'slope'}))\ndef f(z):\n    return z\n",
        "line 9: kind is 'slope', expected one of gradient,",
    ),
    (HEAD + "@claim(kind='value')\ndef f(z):\n    return z\n", "line 9: TypeError: claim() miss"),
    (
        HEAD + GOOD.format(name="twin") + GOOD.format(name="twin"),
        "line 14: a second claim 'twin', the first is in line 10",
    ),
    (
        HEAD + "a = claim(**about)(lambda z: z)\nb = claim(**about)(lambda z: 2 * z)\n",
        "the claims a, b are all of functions named '<lambda>'",
    ),
]


@pytest.mark.parametrize(("text", "says"), UNUSABLE, ids=lambda case: str(case)[-40:])
def test_an_unusable_file_is_one_line(write, text, says):
    path = write(text)
    with pytest.raises(UnusableFile) as refused:
        load_claims(path)
    line = str(refused.value)
    assert line.startswith(str(path))
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py", "No such file or directory"),
        ("", "Is a directory"),
        ("notes.txt", "expected a name that ends in .py"),
    ],
)
def test_what_is_no_file_of_python_is_refused(tmp_path, name, says):
    with pytest.raises(UnusableFile, match=says):
        load_claims(tmp_path / name)


def test_without_processes_the_claims_are_judged_here(write, fake):
    fake(lambda claimed, *, trials, seed: judged(claimed.name, trials=trials, detail=str(seed)))
    path = write(HEAD + GOOD.format(name="one") + GOOD.format(name="two"))
    assert run([path, path], trials=5, seed=3, workers=0) == [
        judged("one", trials=5, detail="3"),
        judged("two", trials=5, detail="3"),
    ]


@pytest.mark.parametrize("error", [KeyError("weights"), SystemExit(1), RecursionError()])
def test_a_failure_of_verification_is_a_verdict(write, fake, error):
    def verify(claimed, *, trials, seed):
        if claimed.name == "one":
            raise error
        return judged(claimed.name)

    fake(verify)
    path = write(HEAD + GOOD.format(name="one") + GOOD.format(name="two"))
    failed, other = run([path], workers=0)
    assert failed.verdict == "error"
    assert type(error).__name__ in failed.detail
    assert "test_verify_runner.py, line" in failed.detail
    assert other.verdict == "holds"


BODIES = {
    "first": "return 2 * z",
    "dies": "import os; os._exit(3)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "raises": "raise KeyError('weights')",
    "endless": "\n    while True:\n        pass",
    "deaf": "import signal as s; assert s.SIGINT in s.pthread_sigmask(s.SIG_BLOCK, []); return z",
    "on_cpu": "import os; assert os.environ['JAX_PLATFORMS'] == 'cpu'; return z",
    "leaves": "raise SystemExit(5)",
    "last": "return 2 * z",
}


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory):
    """Verdicts of claims that do all sorts of things to their process, and the reports of them."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "fake_in_processes.py").write_text(FAKE)
    path = folder / "claims.py"
    claims = [f"@claim(**about)\ndef {name}(z):\n    {body}\n" for name, body in BODIES.items()]
    path.write_text(HEAD + "import fake_in_processes\n" + "\n".join(claims))
    reports = []
    before = dict(os.environ), sys.modules["__main__"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        verdicts = run(
            [path], seed=4, timeout=2, workers=2, on_result=lambda *report: reports.append(report)
        )
    assert (dict(os.environ), sys.modules["__main__"]) == before
    return {verdict.name: verdict for verdict in verdicts}, reports


@pytest.mark.parametrize(
    ("name", "verdict", "detail"),
    [
        ("first", "holds", "seed 4"),
        ("dies", "error", "the process died (exit status 3)"),
        ("killed", "error", "the process died (Killed)"),
        ("raises", "error", "KeyError: 'weights' (claims.py, line 24)"),
        ("endless", "error", "stopped after 2 s"),
        ("deaf", "holds", "seed 4"),
        ("on_cpu", "holds", "seed 4"),
        ("leaves", "error", "SystemExit: 5 (claims.py, line 42)"),
        ("last", "holds", "seed 4"),
    ],
)
def test_each_claim_has_its_verdict_whatever_the_others_do(in_processes, name, verdict, detail):
    found = in_processes[0][name]
    assert (found.verdict, found.detail) == (verdict, detail)


def test_verdicts_come_in_order_of_definition(in_processes):
    assert list(in_processes[0]) == list(BODIES)


def test_every_verdict_is_reported_as_it_comes(in_processes):
    verdicts, reports = in_processes
    assert [done for done, _, _ in reports] == list(range(1, len(BODIES) + 1))
    assert {total for _, total, _ in reports} == {len(BODIES)}
    assert {verdict for _, _, verdict in reports} == set(verdicts.values())


def test_a_verdict_that_cannot_leave_its_process_is_an_error(write):
    write(FAKE.replace('f"seed {seed}"', "lambda: 0"), "fake_unpicklable.py")
    path = write(HEAD + "import fake_unpicklable\n" + GOOD.format(name="one"))
    (verdict,) = run([path], workers=1)
    assert verdict.verdict == "error"
    assert "its verdict, holds, cannot leave its process" in verdict.detail


def test_processes_that_cannot_start_are_verdicts_too(write, monkeypatch):
    monkeypatch.setattr(runner, "_start", os._exit)
    monkeypatch.setattr(runner, "_work", os._exit)
    (verdict,) = run([write(HEAD + GOOD.format(name="one"))], workers=1)
    assert verdict.verdict == "error"
    assert verdict.detail == "the process that was to judge it could not start"


def test_a_script_may_verify_itself_without_a_guard(write):
    write(FAKE, "fake_of_script.py")
    text = HEAD + "import fake_of_script\n@claim(**about)\ndef one(z):\n    print('judged')\n"
    text += "from jaxnn.verify.runner import judge, load_files\nif 'main' in __name__:\n"
    text += "    print([verdict.verdict for verdict in judge(load_files([__file__]))])\n"
    done = subprocess.run(
        [sys.executable, write(text)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("['holds']\n", "judged\n")
