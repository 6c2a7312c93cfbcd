"""The part ``scale``: which cases, how many steps, what a process reports. No time is asserted."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench
from experiments.benchmark.parts import scale
from experiments.benchmark.parts.scale import Case
from experiments.benchmark.problem import Examples, store
from experiments.harness import Run
from experiments.machine import usable_cores
from experiments.processes import ProcessError

SOFTMAX, MLP = (784, 10), (784, 50, 50, 10)


def bench(folder: Path) -> Bench:
    """What a quick case is measured with; its examples have to be stored in the folder."""
    config = BenchmarkConfig(dataset="digits", quick=True)
    return Bench(config, Run("benchmark", config, folder), folder, usable_cores()[:1])


def store_some(folder: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, targets = rng.integers(0, 255, (200, 784), np.uint8), rng.integers(0, 10, 200)
    data = Examples(pixels, targets, np.asarray(1 / 255))
    store(folder, data, data)


def row(question: str, sizes, models: int, cores: int | None, microseconds: float, share: float):
    return {
        "question": question,
        "sizes": list(sizes),
        "models": models,
        "cores": cores,
        "device": "H200",
        "devices": 1,
        "microseconds": {"median": microseconds, "values": [microseconds]},
        "share_of_peak": {"median": share, "values": [share - 1, share, share + 1]},
        "compile_seconds": 1.234,
        "megabytes": 1234.5 * (cores or 1),
        "megabytes_before": 200.4,
    }


def test_cases_are_every_population_and_every_shape_on_one_core_and_two():
    found = scale.cases(2, "cpu", quick=False)
    assert len(set(found)) == len(found) == 2 * 7 * 2 + 3 * 4 * 2
    assert Case("population", MLP, 4096, 1) in found
    assert Case("shape", (784, 512, 512, 512, 10), 64, 2) in found
    assert {case.sizes for case in found if case.question == "population"} == {SOFTMAX, MLP}


@pytest.mark.parametrize(
    ("available", "platform", "places"),
    [(1, "cpu", {1}), (2, "cpu", {1, 2}), (16, "cpu", {1, 2}), (16, "gpu", {None})],
)
def test_cases_run_where_the_machine_lets_them(available, platform, places):
    found = scale.cases(available, platform, quick=False)
    assert {case.cores for case in found} == places


@pytest.mark.parametrize(
    ("case", "steps"),
    [
        # 4 * 100 * 784 * 10 = 3,136,000 operations per step, 6e10 per core and training
        (Case("population", SOFTMAX, 1, 1), 19_132),
        (Case("population", SOFTMAX, 64, 1), 298),
        (Case("population", SOFTMAX, 64, 2), 597),
        (Case("population", SOFTMAX, 1, 2), 20_000),
        (Case("population", MLP, 4096, 1), 10),
        (Case("population", SOFTMAX, 4096, None), 778),
    ],
)
def test_steps_follow_from_the_arithmetic_alone(case, steps):
    assert scale.steps(case) == steps


@pytest.mark.slow
def test_the_quick_case_is_measured_in_a_process_of_its_own(tmp_path):
    store_some(tmp_path)
    (found,) = json.loads(json.dumps(scale.measure(bench(tmp_path))))["rows"]
    assert (found["models"], found["cores"], found["devices"]) == (4, 1, 1)
    assert found["block_size"] == 4  # no more than there are models
    assert len(found["microseconds"]["values"]) == scale.REPETITIONS
    assert all(share > 0 for share in found["share_of_peak"]["values"])
    assert found["compile_seconds"] > 0
    assert found["megabytes"] > found["megabytes_before"] > 0
    assert len(scale.tables({"scale": {"rows": [found]}})) == 1


def test_memory_is_not_that_of_the_process_that_started_it():
    held = np.ones(2**26)  # 512 MiB, which getrusage would report of a child as well
    script = "from experiments.benchmark.parts.scale import peak_megabytes as p; print(p())"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert 0 < float(printed.stdout) < held.nbytes / 2**20


def test_a_case_that_fails_is_one_line(tmp_path):
    with pytest.raises(ProcessError, match=r"exit status 1: FileNotFoundError.*train_pixels"):
        scale.measure_case(bench(tmp_path), Case("population", SOFTMAX, 4, 1))


def test_tables_have_the_cores_side_by_side():
    rows = [
        row("population", SOFTMAX, 64, 1, 36.25, 81.0),
        row("population", SOFTMAX, 64, 2, 17.125, 93.0),
        row("population", MLP, 4096, 1, 180.0, 71.0),
        row("population", MLP, 4096, 2, 1234.0, 88.0),
        row("shape", (784, 512, 10), 64, 1, 5000.0, 61.0),
        row("shape", (784, 512, 10), 64, 2, 2500.0, 62.0),
    ]
    populations, shapes = scale.tables({"scale": {"rows": rows}})
    assert populations.columns[2:6] == (
        "µs per model and step, 1 core",
        "µs per model and step, 2 cores",
        "share of peak (%), 1 core",
        "share of peak (%), 2 cores",
    )
    assert list(populations.rows) == [
        ("784-10", "64", "36.2", "17.1", "81", "93", "1.23", "2,469"),
        ("784-50-50-10", "4,096", "180", "1,234", "71", "88", "1.23", "2,469"),
    ]
    assert [cells[:4] for cells in shapes.rows] == [("784-512-10", "64", "5,000", "2,500")]
    assert "200 MB" in shapes.notes[0]


def test_an_accelerator_is_named():
    (table,) = scale.tables({"scale": {"rows": [row("population", SOFTMAX, 1, None, 50, 1)]}})
    assert table.columns[2] == "µs per model and step, 1 x H200"


def test_the_figure_has_a_line_per_network_and_number_of_cores():
    rows = [
        row("population", sizes, models, cores, 10.0, 50.0 + models)
        for sizes in (SOFTMAX, MLP)
        for models in (1, 4)
        for cores in (1, 2)
    ]
    shape = row("shape", (784, 10, 10), 64, 1, 1.0, 1.0)
    figure = scale.drawings({"scale": {"rows": [*rows, shape]}})["scale.png"]
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert list(lines) == [
        "784-10, 1 core",
        "784-10, 2 cores",
        "784-50-50-10, 1 core",
        "784-50-50-10, 2 cores",
    ]
    assert list(np.asarray(lines["784-10, 2 cores"].get_ydata())) == [51.0, 54.0]


def test_without_populations_there_is_nothing_to_show():
    assert scale.tables({"scale": {"rows": []}}) == []
    assert scale.drawings({"scale": {"rows": []}}) == {}
    assert scale.PARTS["scale"].goals({"scale": {"rows": []}}) == []
