"""The command line all experiments share: what it refuses, and what it leaves behind."""

import io
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import largest_file

from experiments import derivations, harness, loss_curves, verification_speed, worked_examples
from experiments.config import DataConfig, Whole
from jaxnn import mlp, reporting
from jaxnn.figures import Curve, curves_figure
from jaxnn.files import locked


@dataclass(frozen=True, kw_only=True)
class ToyConfig(DataConfig):
    """A toy."""

    rate: float = 0.5
    """How fast it goes."""

    l2: float = 0.0
    """How hard it is held back."""

    steps: Whole | None = None
    """How far it goes."""

    sizes: tuple[Whole, ...] = (3, 2)
    """How wide it is."""

    optimizer: str = "sgd"
    """How it moves."""

    def validate(self):
        super().validate()
        self.at_least(1, "steps")
        self.positive("rate")
        self.not_negative("l2")
        self.one_of(("sgd", "adam"), "optimizer")


def run_toy(argv, experiment=lambda config, run: {}):
    return harness.main("toy", ToyConfig, experiment, argv)


def one_line_of_stderr(capsys):
    captured = capsys.readouterr()
    assert captured.err.endswith("\n")
    assert captured.err.count("\n") == 1
    return captured.err


BAD_INPUTS = [
    (["--bogus", "1"], "--bogus"),
    (["stray"], "stray"),
    (["--seeds"], "--seeds"),
    (["--seeds", "many"], "many"),
    (["--seeds", "2.5"], "2.5"),
    (["--seeds", "0"], "--seeds is 0, expected at least 1"),
    (["--seeds", "-3"], "--seeds is -3, expected at least 1"),
    (["--seeds", "1", "--seeds", "2"], "--seeds"),
    (["--dataset", "mnits"], "--dataset is 'mnits', expected digits, mnist, fashion_mnist"),
    (["--dataset", ""], "--dataset is ''"),
    (["--dataset", "/nowhere/at/all"], "/nowhere/at/all"),
    (["--data-dir", "/nowhere/at/all"], "--data-dir is /nowhere/at/all, expected an existing"),
    (["--data-dir"], "--data-dir"),
    (["--rate", "nan"], "--rate is nan, expected a positive number"),
    (["--rate", "inf"], "--rate is inf, expected a positive number"),
    (["--rate", "-1"], "--rate is -1.0, expected a positive number"),
    (["--rate", "0"], "--rate is 0.0, expected a positive number"),
    (["--rate", "fast"], "fast"),
    (["--l2", "-0.1"], "--l2 is -0.1, expected 0 or a positive number"),
    (["--l2", "nan"], "--l2 is nan, expected 0 or a positive number"),
    (["--steps", "0"], "--steps is 0, expected at least 1"),
    (["--steps", "1e3"], "1e3"),
    (["--sizes", "3", "two"], "two"),
    (["--optimizer", "magic"], "--optimizer is 'magic', expected one of sgd, adam"),
]


@pytest.mark.parametrize(("argv", "names"), BAD_INPUTS, ids=lambda case: str(case)[:40])
def test_bad_input_is_status_2_and_one_line(argv, names, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run_toy([*argv, "--out", str(out)]) == 2
    line = one_line_of_stderr(capsys)
    assert line.startswith("experiments.toy: ")
    assert names in line
    assert not list(tmp_path.iterdir())


def test_flags_reach_the_config(tmp_path):
    seen = []
    argv = ["--rate", "2", "--sizes", "4", "5", "6", "--seeds", "7", "--out", str(tmp_path)]
    assert run_toy(argv, lambda config, run: seen.append(config) or {}) == 0
    assert seen == [ToyConfig(rate=2.0, sizes=(4, 5, 6), seeds=7, out=tmp_path)]


def test_help_explains_every_flag(capsys):
    assert run_toy(["--help"]) == 0
    text = capsys.readouterr().out
    for words in ("A toy.", "--rate", "How fast it goes.", "--dataset", "--data-dir", "--out"):
        assert words in text


def test_results_land_in_runs_name_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_toy([]) == 0
    assert (tmp_path / "runs" / "toy" / "results.json").is_file()


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_results_json_is_complete_and_valid(tmp_path):
    results: Mapping[str, Any] = {
        "diverged": math.nan,
        "array": np.array([1.5, np.inf], np.float32),
        "jax": jnp.arange(3),
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
        "path": Path("a/b"),
        "nested": ({"x": np.int64(1)},),
    }
    assert run_toy(["--out", str(tmp_path), "--seeds", "2"], lambda config, run: results) == 0
    text = (tmp_path / "results.json").read_text()
    content = json.loads(text, parse_constant=refuse_constant)
    assert content["experiment"] == "toy"
    assert content["dataset"] == "digits"
    assert content["config"]["seeds"] == 2
    assert content["config"]["sizes"] == [3, 2]
    assert set(content["versions"]) == {
        "python",
        "jaxnn",
        "jax",
        "jaxlib",
        "numpy",
        "optax",
        "chex",
    }
    assert content["versions"]["numpy"] == np.__version__
    assert content["device"]["platform"]
    assert content["device"]["count"] >= 1
    assert content["seconds"] > 0
    assert content["results"] == {
        "diverged": None,
        "array": [1.5, None],
        "jax": [0, 1, 2],
        "scalar": 2.5,
        "flag": True,
        "path": str(Path("a/b")),
        "nested": [{"x": 1}],
    }


def test_a_failed_check_is_status_1_and_the_results_are_kept(tmp_path, capsys):
    def experiment(config, run):
        run.check("sums agree", True, "3 and 3")
        run.check("products agree", False, "6 and 7")
        return {}

    assert run_toy(["--out", str(tmp_path)], experiment) == 1
    assert "FAILED: products agree: 6 and 7" in capsys.readouterr().out
    checks = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert [check["passed"] for check in checks] == [True, False]


def test_an_interrupt_is_status_130_and_one_line(tmp_path, capsys):
    def experiment(config, run):
        raise KeyboardInterrupt

    assert run_toy(["--out", str(tmp_path / "new")], experiment) == 130
    assert "interrupted" in one_line_of_stderr(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "bug",
    [lambda: 1 / 0, lambda: int("x"), lambda: np.stack([]), lambda: {}["missing"]],
    ids=["ZeroDivisionError", "ValueError", "ValueError in a library", "KeyError"],
)
def test_a_bug_keeps_its_traceback(bug, tmp_path):
    with pytest.raises((ArithmeticError, ValueError, LookupError)):
        run_toy(["--out", str(tmp_path)], lambda config, run: bug())


def test_a_refusal_from_the_library_is_bad_input(tmp_path, capsys):
    assert run_toy(["--out", str(tmp_path)], lambda config, run: mlp.check_sizes((0, 1))) == 2
    assert "(0, 1)" in one_line_of_stderr(capsys)


def test_a_failure_of_the_system_is_one_line(tmp_path, capsys):
    def experiment(config, run):
        raise OSError(28, "No space left\non device")

    assert run_toy(["--out", str(tmp_path)], experiment) == 2
    assert "No space left on device" in one_line_of_stderr(capsys)


@pytest.mark.parametrize("below", ["", "further/down"])
def test_out_at_or_below_a_file_is_refused_before_any_work(below, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("precious")
    worked = []
    argv = ["--out", str(file / below)]
    assert run_toy(argv, lambda config, run: worked.append(1) or {}) == 2
    assert str(file / below) in one_line_of_stderr(capsys)
    assert not worked
    assert file.read_text() == "precious"


@pytest.fixture
def read_only_folder():
    """A folder this process may enter but not write to, even when the tests run as root."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield folder
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions as on POSIX")
@pytest.mark.parametrize("below", ["", "new"])
def test_a_read_only_out_is_refused_before_any_work(below, read_only_folder, capsys):
    worked = []
    argv = ["--out", str(read_only_folder / below)]
    assert run_toy(argv, lambda config, run: worked.append(1) or {}) == 2
    assert "Permission denied" in one_line_of_stderr(capsys)
    assert not worked


def test_a_failed_run_leaves_what_was_there(tmp_path):
    (tmp_path / "notes").write_text("mine")

    def experiment(config, run):
        raise OSError(5, "broken")

    assert run_toy(["--out", str(tmp_path)], experiment) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def evil_figure():
    return {"evil.png": curves_figure([Curve(EVIL, [1, 2], [[1, 2]])], title=EVIL, y_label=EVIL)}


def full_experiment(config, run):
    """Everything that an experiment can leave behind, under a name that is no plain text."""
    run.table(EVIL, ("± what",), [("± θ",), (EVIL,)])
    run.say(EVIL)
    run.history([{EVIL: 1, "name": EVIL}])
    run.page("page.html", "<p>")
    run.figures(evil_figure)
    return {"name": EVIL}


EVIL = os.fsdecode(b"$x_{$ \xff \x1b[31m\x07\n=1+1 $\\frac{")
EVERYTHING = ["evil.png", "history.csv", "page.html", "results.json"]


def test_everything_is_shown_as_text(tmp_path, capsys):
    assert run_toy(["--out", str(tmp_path)], full_experiment) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == EVERYTHING
    written = (tmp_path / "history.csv").read_text() + (tmp_path / "results.json").read_text()
    said = capsys.readouterr()
    for text in (written, said.out, said.err):
        assert all(character.isprintable() for character in text.replace("\n", ""))
    assert r"$x_{$ \xff \x1b[31m\x07\n=1+1" in said.out


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def without_a_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


STREAMS = {
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
    "closed": closed,
    "missing": lambda: None,
    "without a reader": without_a_reader,
    "full": lambda: os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"),
}


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("stream", STREAMS)
def test_an_output_that_fails_loses_nothing(name, stream, tmp_path, monkeypatch, capsys):
    def experiment(config, run):
        print("training", file=sys.stderr, flush=True)
        print("±", flush=True)
        return full_experiment(config, run)

    broken = STREAMS[stream]()
    with monkeypatch.context() as patched:
        patched.setattr(sys, name, broken)
        status = run_toy(["--out", str(tmp_path)], experiment)
    if broken:
        broken.close()
    lost = (name, stream) == ("stdout", "full")
    assert status == (2 if lost else 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == EVERYTHING
    if lost:
        assert "No space left on device: 'standard output'" in capsys.readouterr().err


def test_an_output_without_the_characters_shows_them_in_others(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run_toy(["--out", str(tmp_path)], full_experiment) == 0
    stream.flush()
    text = stream.buffer.getvalue().decode()
    assert "+- what" in text
    assert r"+- \u03b8" in text


def test_results_are_written_first_then_printed_then_drawn(tmp_path, capsys):
    there = []

    def look():
        there.append(sorted(path.name for path in tmp_path.iterdir() if path.suffix))

    def draw():
        look()
        assert "the table" in capsys.readouterr().out
        raise RuntimeError("no figure")

    def experiment(config, run):
        run.figures(draw)
        run.table("the table", ("a",), [(1,)])
        run.show(look)
        run.history([{"a": 1}])
        return {}

    with pytest.raises(RuntimeError, match="no figure"):
        run_toy(["--out", str(tmp_path)], experiment)
    assert there == [["history.csv", "results.json"]] * 2


def test_a_data_path_that_is_no_plain_text_is_trained_and_drawn(tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"$5 \xff\x1b[31m $x_{.npz")
    rng = np.random.default_rng(0)
    inputs, targets = rng.random((60, 4), np.float32), np.arange(60) % 3
    with open(path, "wb") as file:
        np.savez(file, x_train=inputs, y_train=targets, x_test=inputs, y_test=targets)
    out = ["--out", str(tmp_path / "out")]
    argv = [
        "--dataset",
        str(path),
        "--iterations",
        "2",
        "--seeds",
        "1",
        "--batch-size",
        "9",
        "--hidden",
    ]
    assert loss_curves.main([*argv, *out]) == 0
    assert {"loss.png", "accuracy.png"} <= {each.name for each in (tmp_path / "out").iterdir()}
    assert r"$5 \xff\x1b[31m" in capsys.readouterr().out


def test_a_folder_in_use_is_refused_before_any_work(tmp_path, capsys):
    worked = []
    with locked(tmp_path / ".lock"):
        assert run_toy(["--out", str(tmp_path)], lambda config, run: worked.append(1) or {}) == 2
    assert "expected a folder to write to: in use by another process" in one_line_of_stderr(capsys)
    assert not worked
    assert run_toy(["--out", str(tmp_path)], lambda config, run: {}) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_a_folder_is_locked_while_the_experiment_works(tmp_path):
    def experiment(config, run):
        assert run_toy(["--out", str(tmp_path)]) == 2
        return {}

    assert run_toy(["--out", str(tmp_path)], experiment) == 0


@pytest.mark.parametrize("content", ['{"experiment": "other"}', "{}", "[]", "no JSON", "[" * 10**5])
def test_a_folder_never_has_files_of_two_experiments(content, tmp_path, capsys):
    (tmp_path / "results.json").write_text(content)
    worked = []
    assert run_toy(["--out", str(tmp_path)], lambda config, run: worked.append(1) or {}) == 2
    who = "other" if "other" in content else "no experiment"
    assert f"where results.json is of {who}, expected a new folder or" in one_line_of_stderr(capsys)
    assert not worked
    assert (tmp_path / "results.json").read_text() == content


def test_a_folder_never_has_files_of_two_runs(tmp_path):
    (tmp_path / "notes.png").touch()
    (tmp_path / "history.csv").touch()
    assert run_toy(["--out", str(tmp_path)], full_experiment) == 0
    assert run_toy(["--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.png", "results.json"]
    assert json.loads((tmp_path / "results.json").read_text())["files"] == ["results.json"]


@pytest.mark.parametrize(
    "files", [None, 3, "notes.png", [3, None, ["notes.png"]], {"notes.png": 1}]
)
def test_an_edited_list_of_files_removes_no_file(tmp_path, files):
    (tmp_path / "notes.png").touch()
    (tmp_path / "results.json").write_text(json.dumps({"experiment": "toy", "files": files}))
    assert run_toy(["--out", str(tmp_path)]) == 0
    assert (tmp_path / "notes.png").exists()


def test_an_interrupted_run_leaves_the_results_of_the_earlier_run(tmp_path):
    assert run_toy(["--out", str(tmp_path)], full_experiment) == 0

    def experiment(config, run):
        run.history([{"a": 1}])
        raise KeyboardInterrupt

    assert run_toy(["--out", str(tmp_path)], experiment) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == EVERYTHING


@pytest.mark.parametrize(
    ("name", "kind"),
    [("results.json", "file"), ("history.csv", "file"), ("loss.png", "file"), ("model", "folder")],
)
def test_what_is_in_the_way_of_a_result_is_noticed_before_any_work(name, kind, tmp_path, capsys):
    path, worked = tmp_path / name, []
    path.mkdir() if kind == "file" else path.touch()
    assert run_toy(["--out", str(tmp_path)], lambda config, run: worked.append(1) or {}) == 2
    assert f"where {name} is no {kind}, expected a {kind}" in one_line_of_stderr(capsys)
    assert not worked


@pytest.mark.parametrize(
    ("size", "name"), [(100, "results.json"), (2000, "history.csv"), (9000, "evil.png")]
)
def test_a_full_disk_is_one_line_with_the_file(size, name, tmp_path, capsys):
    def experiment(config, run):
        run.history([{"a": "x" * 3000}])
        run.figures(evil_figure)
        return {}

    with largest_file(size):
        assert run_toy(["--out", str(tmp_path)], experiment) == 2
    assert str(tmp_path / name) in one_line_of_stderr(capsys)


def command(*argv, **environment):
    return subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def test_the_command_line_refuses_in_one_line(tmp_path):
    out = tmp_path / "out"
    done = command("-m", "experiments.logistic", "--seeds", "0", "--out", str(out))
    assert done.returncode == 2
    assert done.stderr == "experiments.logistic: --seeds is 0, expected at least 1\n"
    assert not out.exists()


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        (derivations, "--dataset"),
        (derivations, "--data-dir"),
        (verification_speed, "--dataset"),
        (verification_speed, "--data-dir"),
        (worked_examples, "--dataset"),
        (worked_examples, "--data-dir"),
        (worked_examples, "--seeds"),
    ],
)
def test_a_flag_without_a_meaning_is_refused(module, flag, tmp_path, capsys):
    assert module.main([flag, "1", "--out", str(tmp_path / "out")]) == 2
    assert f"Unknown option: {flag}" in one_line_of_stderr(capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "package",
    [
        "cyclopts",
        "sklearn",
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("matplotlib", "rich", "scipy")),
    ],
)
def test_a_missing_package_is_one_line_and_status_2(package, tmp_path):
    # Python imports sitecustomize at its start; None in sys.modules blocks an import.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = command("-m", "experiments.worked_examples", PYTHONPATH=path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"experiments: {package} is not installed")
    assert "pip install 'jaxnn-basics[experiments]'" in done.stderr


INTERRUPT = """
import os, signal, sys, time
class Interrupt:
    def find_spec(self, name, *_):
        if name == "jax":  # an import that loses exceptions, as imports of extension modules do
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(10)
            except BaseException:
                pass
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["-m", "experiments.worked_examples", "--help"], "experiments: interrupted\n"),
        (["-m", "jaxnn.verify", "--help"], "jaxnn: interrupted\n"),
        (["-m", "jaxnn", "--version"], "jaxnn: interrupted\n"),
    ],
    ids=["experiment", "verify", "jaxnn"],
)
def test_an_interrupt_during_the_imports_is_one_line_and_status_130(argv, line, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT)
    done = command(*argv, PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]))
    assert (done.returncode, done.stderr, done.stdout) == (130, line, "")


def test_imports_of_a_program_leave_the_interrupt_key_alone(tmp_path):
    program = (
        "import signal, jaxnn, experiments;"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    assert command("-c", program).returncode == 0


def test_an_interrupt_that_a_destructor_loses_comes_again(monkeypatch):
    class Lost:
        def __del__(self):
            raise KeyboardInterrupt

    def _end_at_once(*_):
        pass

    hook, handler = sys.unraisablehook, signal.signal(signal.SIGINT, _end_at_once)
    try:
        reporting.interrupts_raise()
        lost = Lost()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            del lost
            time.sleep(10)
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, handler)


def test_a_whole_run_imports_and_caches_only_what_it_should(tmp_path):
    script = (
        "import sys; from experiments import logistic; status = logistic.main(sys.argv[1:]);"
        "import jax, jaxnn.devices as d;"
        "print([m for m in ('sklearn', 'matplotlib.pyplot') if m in sys.modules],"
        "status, len(jax.devices('cpu')) == d.core_count())"
    )
    argv = ["--iterations", "2", "--no-compare", "--out", str(tmp_path / "out")]
    done = command("-c", script, *argv, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.stdout.splitlines()[-1] == "[] 0 True"
    assert list((tmp_path / "cache" / "jaxnn" / "xla").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "history.csv",
        "loss.png",
        "results.json",
        "theta.png",
    ]
