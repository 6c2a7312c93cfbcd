"""Claims of files: found, judged in processes of their own, and none takes the others with it."""

import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jaxnn.verify import Claim, Verdict, runner
from jaxnn.verify.report import arrays
from jaxnn.verify.worker import UnusableFile, load_claims

HEAD = """\
import jax.numpy as jnp
from jaxnn.verify import claim, real

def square(z):
    return jnp.sum(z**2)

about = dict(of=square, wrt="z", kind="gradient", inputs={"z": real("n")})

"""

FAKE = """\
import sys, types
import numpy as np
from jaxnn.verify import Verdict

def verify(claimed, *, trials=None, seed=0):
    claimed.evaluate({"z": np.ones(3)})
    return Verdict(claimed.name, claimed.source, claimed.kind, "holds", trials or 7, 0.0, None,
                   None, (), 0.0, f"seed {seed}")

if sys.argv == ["-c"]:
    sys.modules["jaxnn.verify.verification"] = types.ModuleType("fake")
    sys.modules["jaxnn.verify.verification"].verify = verify
"""
"""Imported by a file of claims: in a process started for it, verification is this."""

GOOD = "@claim(**about)\ndef {name}(z):\n    return 2 * z\n\n"


def run(files, **flags) -> list[Verdict]:
    return [verdict for _, verdict in runner.judge(files, **flags)]


def judged(name, **fields) -> Verdict:
    return Verdict(name, "", "gradient", "holds", 7, 0.0)._replace(**fields)


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
    (loaded,) = load_claims(write(text))
    assert isinstance(loaded, Claim)
    value = loaded(3.0)
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
    ("class Odd(BaseException):\n    pass\nraise Odd('base')\n", "line 3: Odd: base"),
    ("def f(n):\n    return f(n + 1)\nf(0)\n", "line 2: RecursionError: maximum recursion depth"),
    ("raise ValueError(10**7 * 'x')\n", f"line 1: ValueError: {1000 * 'x'} ..."),
    (
        "class Mute(Exception):\n    def __str__(self):\n        raise OSError\nraise Mute\n",
        "line 4: Mute: no message, but OSError",
    ),
    (
        HEAD + "@claim(on=square, kind='value', inputs={})\ndef f(z):\n    return z\n",
        "line 9: TypeError: claim() got an unexpected keyword argument 'on'",
    ),
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
    assert len(line) < 3000
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere.py", "No such file or directory"),
        ("", "Is a directory"),
        ("notes.txt", "expected a name that ends in .py"),
        ("pipe.py", "not a regular file"),
        ("\0.py", "null"),
    ],
)
def test_what_is_no_file_of_python_is_refused(tmp_path, name, says):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UnusableFile, match=says):
        load_claims(tmp_path / name)


def test_without_processes_the_claims_are_judged_here(write, fake):
    fake(lambda claimed, *, trials, seed: judged(claimed.name, trials=trials, detail=str(seed)))
    path = write(HEAD + GOOD.format(name="one") + GOOD.format(name="two"))
    assert run([path, path], trials=5, seed=3, workers=0) == [
        judged("one", trials=5, detail="3", file=str(path)),
        judged("two", trials=5, detail="3", file=str(path)),
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
    assert "of test_verify_runner.py)" in failed.detail
    assert other.verdict == "holds"


BODIES = {
    "first": "return 2 * z",
    "dies": "import os; os._exit(3)",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "raises": "raise KeyError('weights')",
    "endless": "\n    while True:\n        pass",
    "deaf": "import os; assert os.getsid(0) == os.getpid(); return z",
    "on_cpu": "import os; assert os.environ['JAX_PLATFORMS'] == 'cpu'; return z",
    "leaves": "raise SystemExit(5)",
    "interrupts": "raise KeyboardInterrupt",
    "long": "raise ValueError(10**7 * 'x')",
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
        ("dies", "error", "the process ended early (exit status 3)"),
        ("killed", "error", "the process ended early (Killed)"),
        ("raises", "error", "KeyError: 'weights' (line 24 of claims.py)"),
        ("endless", "error", "stopped after 2 s"),
        ("deaf", "holds", "seed 4"),
        ("on_cpu", "holds", "seed 4"),
        ("leaves", "error", "SystemExit: 5 (line 42 of claims.py)"),
        ("interrupts", "error", "KeyboardInterrupt: no message (line 46 of claims.py)"),
        ("long", "error", f"ValueError: {1000 * 'x'} ... (line 50 of claims.py)"),
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
    assert {verdict.name for _, _, verdict in reports} == set(verdicts)


def test_a_verdict_that_cannot_leave_its_process_is_an_error(write):
    write(FAKE.replace('f"seed {seed}"', "lambda: 0"), "fake_unpicklable.py")
    path = write(HEAD + "import fake_unpicklable\n" + GOOD.format(name="one"))
    (verdict,) = run([path], workers=1)
    assert verdict.verdict == "error"
    assert "TypeError: " in verdict.detail
    assert "function is not JSON serializable" in verdict.detail


def test_processes_that_cannot_start_are_verdicts_too(write, monkeypatch):
    monkeypatch.setattr(runner, "_SERVE", "raise SystemExit(4)  # {}")
    (verdict,) = run([write(HEAD + GOOD.format(name="one"))], workers=1)
    assert (verdict.verdict, verdict.name) == ("error", "claims.py")
    assert verdict.detail.startswith("the process ended early (exit status 4)")


PATCHED = """
import os, numpy as np, jaxnn.verify.verification, jaxnn.verify.worker
def agree(claimed, *_, **__):
    return Verdict(claimed.name, "", "gradient", "holds", detail="patched")
jaxnn.verify.verification.verify = jaxnn.verify.worker.verified = agree
jnp.sum, np.ones = None, None
sys.path.insert(0, "/nowhere")
os.chdir("/")
os.environ["PATCHED"] = "yes"
"""

UNPATCHED = """
import os, numpy as np, jaxnn.verify.worker
assert jnp.sum and np.ones and "/nowhere" not in sys.path and os.getcwd() != "/"
assert "PATCHED" not in os.environ and "Patched" not in repr(sys.modules)
"""

FILES = {
    "syntax": "x = (\n",
    "endless": "import time\ntime.sleep(1000)\n",
    "exits": "import os\nos._exit(0)\n",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "crashes": "import ctypes\nctypes.string_at(0)\n",
    "patches": "GOOD" + PATCHED,
    "unpatched": "GOOD" + UNPATCHED,
    "silent": "GOOD" + "sys.stdout.close()\n",
    "asks": "GOOD" + "assert sys.stdin.read() == ''\n",
}
"""Files of claims, each in a folder of its own; "GOOD" is a right claim, verified by FAKE."""


@pytest.fixture(scope="module")
def of_files(tmp_path_factory):
    """Verdicts on all files, and the numbers of verdicts."""
    paths = []
    for name, text in FILES.items():
        folder = tmp_path_factory.mktemp(name)
        paths.append(folder / f"{name}.py")
        good = HEAD + FAKE + GOOD.format(name="one")
        paths[-1].write_text(text.replace("GOOD", good, 1))
    before = list(sys.path), os.getcwd(), dict(os.environ), set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        verdicts = run(paths, timeout=4, workers=3)
    assert (list(sys.path), os.getcwd()) == before[:2]
    assert {name for name in set(sys.modules) - before[3] if name.startswith("_claims_")} == set()
    return {Path(verdict.file).stem: verdict for verdict in verdicts}, len(verdicts)


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("syntax", "line 1: SyntaxError: '(' was never closed"),
        ("endless", "stopped after 4 s, while the file was loaded"),
        ("exits", "the process ended early (exit status 0), while the file was loaded"),
        ("killed", "the process ended early (Killed), while the file was loaded"),
        ("interrupts", "KeyboardInterrupt: no message (line 1 of interrupts.py)"),
        ("crashes", "the process ended early (Segmentation fault), while the file was loaded"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_row_with_its_reason(of_files, name, detail):
    verdict = of_files[0][name]
    assert verdict.verdict == "error"
    assert verdict.name == f"{name}.py"
    assert verdict.detail.startswith(detail)
    assert len(verdict.detail) < 3000
    assert "\n" not in verdict.detail


@pytest.mark.parametrize("name", ["unpatched", "silent", "asks"])
def test_a_file_is_judged_whatever_the_other_files_do(of_files, name):
    verdict = of_files[0][name]
    assert (verdict.name, verdict.verdict, verdict.detail) == ("one", "holds", "seed 0")


def test_every_file_has_its_row(of_files):
    verdicts, count = of_files
    assert set(verdicts) == set(FILES)
    assert count == len(FILES)


def test_a_file_that_prints_without_end_is_stopped(write, monkeypatch, capsys):
    monkeypatch.setattr(runner, "PRINTED", 10_000)
    (verdict,) = run([write("while True:\n    print(99 * 'x', '\\x1b[2J')\n")], workers=1)
    assert verdict.detail.startswith("the process printed more than")
    printed = capsys.readouterr().err
    assert printed.startswith(99 * "x" + " \\x1b[2J\n")
    assert len(printed) <= 12_000


def test_named_tuples_of_a_file_keep_their_fields_on_the_way(write):
    text = HEAD + FAKE + "from typing import NamedTuple\nfrom jaxnn.verify import Counterexample\n"
    text += "class Layer(NamedTuple):\n    weight: object\n    bias: object\n"
    text += "def verify(claimed, **_):\n    tree = [Layer(np.ones((2, 1)), (3, {'k': 0.1}))]\n"
    text += "    example = Counterexample({'n': 2}, {'p': tree})\n"
    text += "    return Verdict(claimed.name, '', '', 'refuted', 7, None, None, example)\n"
    text += "sys.modules['jaxnn.verify.verification'].verify = verify\n"
    (verdict,) = run([write(text + GOOD.format(name="one"))], workers=1)
    assert verdict.counterexample
    shown = [f"{name} = {value}" for name, value in arrays(verdict.counterexample.inputs)]
    assert shown == ["p[0].weight = [[1], [1]]", "p[0].bias[0] = 3", "p[0].bias[1]['k'] = 0.1"]


def test_a_file_that_changes_when_it_is_loaded_again_is_no_verdict_on_another_claim(write):
    text = HEAD + FAKE + "from pathlib import Path\nagain = Path(__file__).with_suffix('.seen')\n"
    text += "first = not again.exists()\nagain.touch()\n"
    text += "@claim(**about)\ndef dies(z):\n    import os; os._exit(3)\n"
    text += GOOD.format(name="one") + "if not first:\n    del one\n" + GOOD.format(name="other")
    dies, one, other = run([write(text)], workers=1)
    assert dies.detail == "the process ended early (exit status 3)"
    assert one.detail == "the file defines other claims when it is loaded again"
    assert other.verdict == "error"


def test_files_together_share_processes(write):
    paths = [write(HEAD + FAKE + "import builtins\nbuiltins.seen = 1\n" + GOOD.format(name="one"))]
    paths += [write(HEAD + FAKE + "seen\n" + GOOD.format(name="two"), "second.py")]
    assert [verdict.verdict for verdict in run(paths, together=True, workers=1)] == 2 * ["holds"]
    assert [verdict.verdict for verdict in run(paths, workers=1)] == ["holds", "error"]


def test_one_process_does_not_judge_several_files(write):
    paths = [write(HEAD + GOOD.format(name="one")), write(HEAD, "second.py")]
    with pytest.raises(UnusableFile, match="2 files and no worker processes, expected one file"):
        run(paths, workers=0)


def test_a_script_may_verify_itself_without_a_guard(write):
    write(FAKE, "fake_of_script.py")
    text = HEAD + "import fake_of_script\n@claim(**about)\ndef one(z):\n    print('judged')\n"
    text += "from jaxnn.verify.runner import judge\nif 'main' in __name__:\n"
    text += "    print([verdict.verdict for _, verdict in judge([__file__])])\n"
    done = subprocess.run(
        [sys.executable, write(text)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr) == ("['holds']\n", "judged\n")


def test_the_time_limit_ends_a_claim_without_processes_too(write):
    text = "import time\n" + HEAD + "@claim(**about)\ndef one(z):\n    time.sleep(1000)\n\n"
    path = write(text + GOOD.format(name="two"))
    command = [sys.executable, "-m", "jaxnn.verify", str(path), "--workers", "0", "--timeout", "5"]
    done = subprocess.run(
        [*command, "--trials", "10"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "stopped after 5 s" in done.stdout
    assert "holds" in done.stdout
