"""The part ``startup``: every script trains as it says; tables and goals of the times."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench
from experiments.benchmark.parts import startup
from experiments.benchmark.parts.startup import ARCHITECTURES, PROGRAMS, SOFTMAX, Program
from experiments.benchmark.problem import restore, store
from experiments.benchmark.startups import minibatches
from experiments.harness import Run
from experiments.processes import ProcessError
from jaxnn.data import load


def row(run: str, label: str, cold: float, warm: float, stages: dict[str, float] | None = None):
    return {
        "run": run,
        "label": label,
        "module": "",
        "cold": {"median": cold, "values": [cold]},
        "warm": {"median": warm, "values": [warm]},
        "stages": {name: {"median": at, "values": [at]} for name, at in (stages or {}).items()},
        "accuracy": 0.96,
    }


RESULTS = {
    "startup": {
        "rows": [
            row(SOFTMAX, "PyTorch", 2.5, 2.4, {"imports": 1.0, "first_step": 1.9, "result": 2.0}),
            row(SOFTMAX, "jaxnn", 1.8, 0.8, {"imports": 0.5, "first_step": 0.65, "result": 0.7}),
            row(SOFTMAX, "PyTorch, updates by hand", 1.25, 1.2),
            row(SOFTMAX, "NumPy by hand", 0.2, 0.2, {"result": 0.15}),
            row(ARCHITECTURES, "jaxnn", 7.0, 2.0),
            row(ARCHITECTURES, "PyTorch", 5.0, 5.0),
        ]
    }
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("startup")
    store(made, *load("digits"))
    return made


def some(*, run: str) -> list:
    """The scripts of a run; all but the first are slow."""
    return [
        pytest.param(
            program,
            id=program.script,
            marks=() if program is PROGRAMS[0] else pytest.mark.slow,
        )
        for program in PROGRAMS
        if program.run == run
    ]


def timed(program: Program, folder: Path) -> dict[str, float]:
    """Skips the test where a package of the script is not installed."""
    try:
        return startup.timed(program, folder, "cache")
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("program", some(run=SOFTMAX))
def test_every_script_learns_the_digits(program, folder):
    report = timed(program, folder)
    # scikit-learn's LogisticRegression with the same penalty, to convergence: 0.9639 (347 of 360).
    assert report["accuracy"] == pytest.approx(0.9639, abs=0.02)
    reached = [report[stage] for stage in startup.STAGES if stage in report]
    assert report["imports"] > 0
    assert reached == sorted(reached)


def quick_bench(folder: Path) -> Bench:
    config = BenchmarkConfig(dataset="digits", seeds=2, quick=True)
    return Bench(config, Run("benchmark", config, folder), folder, (0,))


def test_scripts_take_turns_and_every_cold_cache_is_new(tmp_path, monkeypatch):
    started = []

    def timed(program: Program, folder: Path, cache: str) -> dict[str, float]:
        assert (folder / "train_pixels.npy").exists()
        started.append((program.label, cache))
        return {"wall": len(started), "imports": 0.5, "result": 1.0, "accuracy": 0.9}

    monkeypatch.setattr(startup, "timed", timed)
    bench = quick_bench(tmp_path)
    assert [row["label"] for row in startup.measure(bench)["rows"]] == ["NumPy by hand", "jaxnn"]
    assert [label for label, _ in started[:2]] == ["NumPy by hand", "jaxnn"]
    del started[:]
    monkeypatch.setattr(startup, "PROGRAMS", PROGRAMS[:2])
    config = BenchmarkConfig(dataset="digits", seeds=2)
    rows = startup.measure(bench._replace(config=config))["rows"]
    assert started[:2] == [("NumPy by hand", "warm"), ("jaxnn", "warm")]  # fills the caches
    assert [label for label, _ in started[2:6]] == 2 * ["NumPy by hand"] + 2 * ["jaxnn"]
    cold = [cache for _, cache in started if cache != "warm"]
    assert len(cold) == len(set(cold)) == 2 * 2
    # Started as number 3, 7; warm 4, 8, 11, 13, 15: what is timed goes where it belongs.
    assert rows[0]["cold"]["values"] == [3, 7]
    assert rows[0]["warm"]["values"] == [4, 8, 11, 13, 15]
    assert rows[1]["stages"]["imports"]["values"] == 5 * [0.5]
    assert "first_step" not in rows[1]["stages"]


def test_the_examples_are_all_seen_in_every_epoch(folder):
    drawn = list(minibatches(restore(folder, (64, 10))))
    assert len(drawn) == 500
    for epoch in range(500 // 14):
        rows = np.concatenate(drawn[14 * epoch : 14 * (epoch + 1)])
        assert len(set(rows.tolist())) == 1400
    assert not np.array_equal(drawn[0], drawn[14])


@pytest.mark.slow
def test_a_cold_run_leaves_the_warm_cache_alone(folder):
    ours = next(program for program in PROGRAMS if program.label == "jaxnn")
    startup.timed(ours, folder, "cold-0-0")
    assert list((folder / "cold-0-0" / "jax").iterdir())
    assert not (folder / "warm").exists()


def test_a_script_that_fails_is_one_line(folder):
    broken = Program(SOFTMAX, "broken", "", "experiments.no_such_script")
    with pytest.raises(ProcessError, match=r"no_such_script ended with exit status 1: .*No module"):
        startup.timed(broken, folder, "cache")


def test_a_missing_package_leaves_a_script_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "nobodys.py").write_text("import no_such_package")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(startup, "PROGRAMS", [Program(SOFTMAX, "Nobody's", "", "nobodys")])
    assert startup.measure(quick_bench(tmp_path)) == {"rows": []}
    assert capsys.readouterr().out == (
        "start-up of Nobody's is left out: No module named 'no_such_package'\n"
    )


def test_tables_are_sorted_by_the_warm_time():
    softmax, architectures = startup.tables(RESULTS)
    assert [tuple(cells) for cells in softmax.rows] == [
        ("NumPy by hand", "0.20", "0.20", "0.25", "", "", "0.15"),
        ("jaxnn", "1.80", "0.80", "1.00", "0.50", "0.65", "0.70"),
        ("PyTorch, updates by hand", "1.25", "1.20", "1.50", "", "", ""),
        ("PyTorch", "2.50", "2.40", "3.00", "1.00", "1.90", "2.00"),
    ]
    assert len(softmax.columns) == 7
    assert [tuple(cells) for cells in architectures.rows] == [
        ("jaxnn", "7.00", "2.00", "1.00"),
        ("PyTorch", "5.00", "5.00", "2.50"),
    ]


def test_the_goal_is_the_faster_of_pytorchs_scripts_when_warm():
    first, second = startup.goals(RESULTS)
    assert (first.measured, second.measured) == (pytest.approx(1.5), pytest.approx(2.5))
    assert first.reached
    assert second.reached
    slow = {"startup": {"rows": [row(SOFTMAX, "jaxnn", 1, 2), row(SOFTMAX, "PyTorch", 1, 1.9)]}}
    (goal,) = startup.goals(slow)
    assert not goal.reached


def test_without_measurements_there_is_nothing_to_show():
    assert (
        startup.tables({"startup": {"rows": []}}) == startup.goals({"startup": {"rows": []}}) == []
    )


@pytest.mark.parametrize("program", some(run=ARCHITECTURES)[1:])
def test_pytorch_does_the_work_of_architectures(program, folder):
    began = time.time()
    timed(program, folder)
    out = folder / "out"
    lines = (out / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + 15 * 16  # as many evaluations as experiments.architectures makes
    written = {path.name for path in out.iterdir() if path.stat().st_mtime >= began - 1}
    assert {"results.json", "history.csv"} <= written
    assert len([name for name in written if name.endswith(".png")]) == 3
    final = json.loads((out / "results.json").read_text())
    assert np.mean(final["a"]["test_error"]) == pytest.approx(0.034, abs=0.01)
    assert np.mean(final["c"]["train_error"]) < 0.005
