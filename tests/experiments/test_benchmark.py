"""The benchmark: its counts, the trainings it requests, its files. No time is asserted."""

import json
import os
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from experiments.benchmark import contender, main, problem
from experiments.benchmark.contender import CONTENDERS, Entry
from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench, Goal, Part
from experiments.benchmark.parts import training
from experiments.benchmark.parts.training import Job, Line, hired
from experiments.benchmark.problem import Examples, mnist_shaped
from experiments.machine import flops_per_step
from experiments.processes import ProcessError
from jaxnn import Data


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for_training, for_validation = (
        Examples(
            generator.integers(0, 256, (count, 6)).astype(np.uint8),
            generator.integers(0, 3, count).astype(np.int32),
            np.float32(1 / 255),
        )
        for count in (300, 50)
    )
    problem.store(tmp_path, for_training, for_validation)
    return tmp_path


def test_floating_point_operations_are_those_of_the_matrix_products():
    # 784-10: forward and weight gradient, 2 * 100 * 784 * 10 each.
    assert flops_per_step((784, 10)) == 2 * 1_568_000
    # 784-50-50-10: the same for 42,200 weights, and the gradient to two layers' inputs.
    assert flops_per_step((784, 50, 50, 10)) == 2 * 200 * 42_200 + 200 * 3_000


def test_small_images_are_enlarged_and_repeated():
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 64)
    pixels, targets, _ = mnist_shaped(Data(images, np.array([4, 5, 6]), 1 / 16), 1_000)
    assert pixels.shape == (1_000, 784)
    assert pixels.dtype == np.uint8
    assert targets[:5].tolist() == [4, 5, 6, 4, 5]
    picture = pixels[1].reshape(28, 28)
    assert (picture[2:5, 2:5] == 64).all()  # the first pixel, three by three, inside the margin
    assert picture[:2].sum() == 0


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the images have 900 pixels, expected 784"):
        mnist_shaped(Data(np.zeros((2, 900), np.uint8), np.zeros(2), 1.0), 10)


def test_the_last_sixth_of_the_examples_validates():
    examples = Examples(np.arange(12)[:, None], np.arange(12), np.asarray(1.0))
    train, validation = problem.split(examples)
    assert train.targets.tolist() == list(range(10))
    assert validation.pixels[:, 0].tolist() == [10, 11]


def test_examples_come_back_as_they_were_stored(folder):
    found = problem.restore(folder, (6, 3))
    assert found.train.pixels.shape == (300, 6)
    assert found.train.pixels.dtype == np.uint8
    assert found.validation.scale == np.float32(1 / 255)
    assert found.steps_per_epoch == 3


def train(program, rates, epochs, seed, evaluate=False):
    program.ask(rates, epochs, seed, evaluate)
    return program.answer()


def test_a_contender_trains_in_a_process_kept_to_its_cores(folder):
    with hired("numpy", (6, 3), folder, [0]) as program:
        assert os.sched_getaffinity(program.process.pid) == {0}
        found = train(program, [0.1, 0.2], 2, seed=0, evaluate=True)
        again = train(program, [0.2], 2, seed=0, evaluate=True)
        assert train(program, [0.1], 1, seed=0)["accuracies"] is None
        process = program.process
    assert found["seconds"] > 0
    assert np.shape(found["accuracies"]) == (2, 2)
    assert again["accuracies"][0] == found["accuracies"][1]
    assert process.returncode is not None


@pytest.mark.slow
def test_jaxnn_trains_one_and_several(folder):
    with hired("jaxnn", (6, 3), folder, [0]) as program:
        one = train(program, [0.1], 2, seed=0, evaluate=True)
        several = train(program, [0.1, 0.2, 0.3], 2, seed=0, evaluate=True)
    assert np.shape(one["accuracies"]) == (1, 2)
    assert np.shape(several["accuracies"]) == (3, 2)


def test_a_process_that_fails_says_its_last_line(folder):
    with hired("numpy", (7, 3), folder, [0]) as program:
        with pytest.raises(ProcessError, match=r"^numpy ended with exit status 1: ValueError: mat"):
            train(program, [0.1], 1, seed=0)
        with pytest.raises(ProcessError, match="numpy ended with exit status 1"):
            train(program, [0.1], 1, seed=0)


def test_a_contender_whose_package_is_not_there_is_missing(folder, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "other", Entry("Other", "no_such_module:prepare", ""))
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        contender.make("other", problem.restore(folder, (6, 3)))


class Recorded:
    """A contender that answers from a table of seconds."""

    def __init__(self, name, cores, seconds, requests):
        self.name, self.cores, self.seconds, self.requests = name, cores, seconds, requests

    def ask(self, rates, epochs, seed, evaluate=False):
        self.requests.append((self.name, len(self.cores), tuple(rates), epochs, seed))
        self.accuracies = [np.linspace(0.5, 0.975, epochs).tolist()] if evaluate else None

    def answer(self):
        return {"seconds": self.seconds, "accuracies": self.accuracies}


class Progress:
    """A run that keeps the reports of all progress by label."""

    def __init__(self):
        self.reports = {}

    def progress(self, label):
        reports = self.reports.setdefault(label, [])
        return nullcontext(lambda *how_far: reports.append(how_far))


@pytest.fixture
def played(monkeypatch, folder):
    """Contenders that need a second on one core, on two cores half or twice as long."""
    requests, ended = [], []

    @contextmanager
    def hired(name, sizes, data, cores):
        if name in ("keras", "torch_func"):
            raise ModuleNotFoundError("No module named 'keras'")
        seconds = {1: 1.0, 2: 2.0 if name == "numpy" else 0.5}[len(cores)]
        yield Recorded(name, cores, seconds, requests)
        ended.append((name, len(cores)))

    monkeypatch.setattr(training, "hired", hired)
    monkeypatch.setattr(training, "peak_gflops", lambda: 100.0)
    monkeypatch.setattr(training, "products_microseconds", lambda sizes, models: 10.0 * models)
    monkeypatch.setitem(problem.NETWORKS, "softmax", (6, 3))
    config = BenchmarkConfig(dataset="digits", seeds=2, quick=True)
    return Bench(config, Progress(), folder, (0, 1)), requests, ended


def test_the_number_of_cores_that_suits_a_contender_goes_on(played):
    bench, requests, ended = played
    with ExitStack() as stack:
        for name, best in (("numpy", 1), ("jaxnn", 2)):
            line = training.fastest(stack, bench, name, Job("softmax", [0.1], 2))
            assert line.cores == best
            assert line.tried[str(best)] < line.tried[str(3 - best)]
        assert ended == [("numpy", 2), ("jaxnn", 1)]
        first = [cores for name, cores, *_ in requests if name == "numpy"]
        assert first == [1, 2, 1, 2, 1, 2, 1, 2]  # warm, then in turn
    assert sorted(ended[2:]) == [("jaxnn", 2), ("numpy", 1)]


def test_one_model_is_timed_in_turn_with_the_missing_left_out(played, capsys):
    bench, requests, _ = played
    rows = training.one_model_rows(bench, "softmax")
    assert bench.run.reports == {  # eight contenders are made ready, seven of them train twice
        "softmax: start": [(done + 1, 8) for done in range(8)],
        "softmax: one model": [(done + 1, 14) for done in range(7 * 2)],
    }
    assert "Keras on JAX is left out: No module named 'keras'" in capsys.readouterr().out
    names = [row["contender"] for row in rows]
    assert names == ["numpy", "torch", "torch_compile", "sklearn", "flax", "equinox", "jaxnn"]
    # 5 epochs of 3 steps in half a second, in microseconds per step
    assert rows[-1]["microseconds"] == {"median": 5e5 / 15, "values": [5e5 / 15] * 2}
    assert rows[0]["microseconds"]["median"] == 1e6 / 15
    assert [entry[0] for entry in requests[-14:]] == names * 2
    assert [entry[4] for entry in requests[-14:]] == [0] * 7 + [1] * 7
    assert rows[0]["target"] is None


def test_the_time_to_the_accuracy_is_measured_in_turn(played, monkeypatch):
    bench, requests, _ = played
    monkeypatch.setattr(training, "ACCURACIES", {"softmax": {"digits": 0.699}})
    rows = training.one_model_rows(bench, "softmax")
    assert bench.run.reports["softmax: to the accuracy"][-1] == (14, 14)
    # .5, .525, ..., .975 in 20 epochs: .7 is there after the ninth
    assert rows[-1]["seconds_to_target"]["values"] == [0.5 * 9 / 20] * 2
    assert {row["target"] for row in rows} == {0.699}
    assert [entry[3:] for entry in requests[-21:]] == [(20, 0)] * 14 + [(20, 1)] * 7


def test_seconds_to_an_accuracy_are_those_of_the_epochs_it_took():
    program: Any = Recorded("jaxnn", [0], 10.0, [])
    line = Line("jaxnn", [program], 1, {})
    # .5, .525, ..., .975 in 20 epochs: .7 is there after the ninth
    assert line.seconds_to(0.699, 0) == 4.5
    assert line.seconds_to(0.98, 0) == np.inf


def test_a_population_is_dealt_out_to_the_processes(played, capsys):
    bench, requests, _ = played
    rows, products = training.population_rows(bench, "softmax", 4)
    on_a_core = -(-4 // len(jax.devices()))
    assert products["models_on_a_core"] == on_a_core
    assert products["microseconds"]["values"] == [10.0 * on_a_core] * 2
    assert "torch.func vmap is left out" in capsys.readouterr().out
    by_name = {(row["contender"], row["processes"]): row for row in rows}
    assert ("jaxnn", 1) in by_name
    assert ("jaxnn", 2) not in by_name
    rates = np.geomspace(1e-3, 1e-1, 4).tolist()
    numpy_split = [each for each in requests if each[0] == "numpy" and len(each[2]) == 2]
    assert [each[2] for each in numpy_split[:2]] == [(rates[0], rates[2]), (rates[1], rates[3])]
    row = by_name["numpy", 2]
    assert row["cores"] == 2
    # a second for 3 steps of 4 models
    assert row["microseconds"]["median"] == pytest.approx(1e6 / 12)
    gflops = flops_per_step((6, 3)) / (1e6 / 12) / 1e3
    assert row["share_of_peak"]["median"] == pytest.approx(gflops)  # of 100, in percent
    assert by_name["numpy", 1]["cores"] == 1
    assert by_name["jaxnn", 1]["cores"] == 2


def row(name, network, microseconds, processes=1, **more):
    return {
        "network": network,
        "sizes": list(problem.NETWORKS[network]),
        "contender": name,
        "label": CONTENDERS[name].label,
        "models": 64 if more.pop("population", False) else 1,
        "processes": processes,
        "cores": 2,
        "microseconds": {"median": microseconds, "values": [microseconds]},
        **more,
    }


def results():
    """Made up: with 64 models torch.func is three times as slow as jaxnn."""
    one, many = [], []
    reached = {"target": 0.9, "seconds_to_target": {"median": None, "values": [None]}}
    reached["tried"] = {"1": 2.5, "2": 2.0}
    for network in problem.NETWORKS:
        one += [row("numpy", network, 90.0, **reached), row("torch", network, 300.0, **reached)]
        one += [row("jaxnn", network, 50.0, **reached)]
        share = {"share_of_peak": {"median": 91.0, "values": [91.0]}, "population": True}
        many += [row("jaxnn", network, 10.0, **share), row("torch_func", network, 30.0, **share)]
        many += [row("numpy", network, 35.0, 2, **share), row("numpy", network, 20.0, 1, **share)]
        many += [row("torch", network, 50.0, 2, **share)]
    alone = {"models_on_a_core": 8, "microseconds": {"median": 9.0, "values": [9.0]}}
    alone["share_of_peak"] = {"median": 95.0, "values": [95.0]}
    products = dict.fromkeys(problem.NETWORKS, alone)
    return {
        "one_model": {"rows": one},
        "population": {"rows": many, "models": 64, "products": products},
    }


def test_goals_compare_with_the_fastest_peer():
    first, _ = training.one_model_goals(results())
    assert first.measured == pytest.approx(1.8)
    assert first.reached
    assert "NumPy by hand" in first.what
    split, vmapped, share, *_ = training.population_goals(results())
    assert split.measured == pytest.approx(3.5)
    assert not split.reached  # 4 is required
    assert vmapped.measured == pytest.approx(3.0)
    assert share.measured == 91.0
    assert share.reached


def test_compiled_vmap_has_a_goal_of_its_own():
    found = results()
    share = {"share_of_peak": {"median": 60.0, "values": [60.0]}, "population": True}
    found["population"]["rows"].append(row("torch_func_compiled", "softmax", 15.0, **share))
    _, eager, compiled, *_ = training.population_goals(found)
    assert eager.measured == pytest.approx(3.0)
    assert compiled.measured == pytest.approx(1.5)
    assert compiled.what.endswith("against torch.func vmap, torch.compile")
    assert not compiled.reached


@pytest.mark.parametrize(
    ("goal", "cells"),
    [
        (Goal("", 0, 0, "slips", at_most=True), ("at most 0 slips", "0 slips", "yes")),
        (Goal("", 0, 1, "slips", at_most=True), ("at most 0 slips", "1 slips", "no")),
        (Goal("", 1.5, 1.5), ("at least 1.5 x", "1.5 x", "yes")),
        (Goal("", 1.5, 1.4), ("at least 1.5 x", "1.4 x", "no")),
        (Goal("", 1.5, float("nan")), ("at least 1.5 x", "nan x", "no")),
        (Goal("", 1.5, 1.6, share=50), ("at least 1.5 x", "1.6 x", "yes")),
        (
            Goal("", 1.5, 1.2, share=78),
            ("at least 1.5 x", "1.2 x; 78.0 % of the peak: at 100 % it would be 1.54 x", "no"),
        ),
        (
            Goal("", 4, 1.69, share=94.7),
            (
                "4 x is above the peak",
                "1.69 x; 94.7 % of the peak: at 100 % it would be 1.78 x",
                "limit",
            ),
        ),
    ],
)
def test_a_goal_is_reached_or_missed_or_above_the_limit_of_the_machine(goal, cells):
    assert goal.cells[1:] == cells
    assert goal.reached == (cells[-1] == "yes")


def test_a_goal_above_the_peak_has_the_limit_in_its_place():
    split, *_ = training.population_goals(results())  # 3.5 x at 91 %: 3.85 x at 100 %
    assert split.cells[-1] == "limit"
    assert split.cells[2].endswith("91.0 % of the peak: at 100 % it would be 3.85 x")


def test_tables_list_the_contenders_by_speed():
    table, _ = training.one_model_tables(results())
    assert [cells[0] for cells in table.rows] == ["jaxnn", "NumPy by hand", "PyTorch, eager"]
    assert table.rows[1][2:] == ("90", "1.80", "not reached")
    assert table.notes == ("On 1 core, jaxnn takes 1.25 times as long.",)
    table, _ = training.population_tables(results())
    assert [cells[1] for cells in table.rows] == [
        "all at once, 2 cores",
        "one after another, 2 cores",
        "all at once, 2 cores",
        "over 2 processes of 1 core",
        "over 2 processes of 1 core",
    ]
    assert table.rows[0][2:] == ("10.0", "1.0", "91.0")
    assert "9.0 µs (95 % of the peak)" in table.notes[0]


def test_of_one_model_the_limit_is_the_rooflines():
    found = results()
    rate = {"median": 1000.0, "values": [1000.0]}
    found["roofline"] = {
        "platform": "cpu",
        "devices": 2,
        "training_examples": 1000,
        "peak_gflops": {"median": 400.0, "values": [400.0]},
        "bandwidth": [{"bytes": size, "gigabytes_per_second": rate} for size in (2**15, 2**30)],
    }
    for one in found["one_model"]["rows"]:
        if one["contender"] == "jaxnn" and one["network"] == "softmax":
            one |= {"cores": 1}
            one["microseconds"]["median"] = 72.0
    softmax, mlp = training.one_model_goals(found)
    # The products are 2 * 2 * 100 * 7,840 operations at 200 GFLOP/s, the peak of 1 core: 15.68 µs.
    assert softmax.share == pytest.approx(100 * 15.68 / 72)
    assert softmax.cells[-1] == "no"  # 90 / 15.68 would be enough
    assert mlp.reached


def test_history_has_every_repetition():
    rows = {"a": {"rows": [{"t": {"median": 1, "values": [1, 2]}, "u": 3}]}}
    assert list(main.repetitions(rows)) == [
        {"measure": "a.rows.0.t", "seed": 0, "value": 1},
        {"measure": "a.rows.0.t", "seed": 1, "value": 2},
    ]


def test_an_unknown_part_is_refused(capsys):
    assert main.main(["--parts", "one_model", "two_models"]) == 2
    assert "--parts is ('one_model', 'two_models'), expected some of" in capsys.readouterr().err


@pytest.mark.slow
def test_the_benchmark_writes_results_of_the_parts(tmp_path, monkeypatch, capsys):
    two = {name: CONTENDERS[name] for name in ("numpy", "jaxnn")}
    monkeypatch.setattr(training, "CONTENDERS", two)
    monkeypatch.setattr(training, "TRIALS", 1)
    monkeypatch.setattr(main.machine, "usable_cores", lambda: (0,))
    arguments = ["--dataset", "digits", "--seeds", "1", "--parts", "one_model", "--quick"]
    assert main.main([*arguments, "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["results"]["machine"]["cores"] >= 1
    assert content["results"]["machine"]["examples"] == main.QUICK_EXAMPLES
    rows = content["results"]["one_model"]["rows"]
    assert [(row["network"], row["contender"]) for row in rows] == [
        (network, name) for network in ("softmax", "mlp") for name in ("numpy", "jaxnn")
    ]
    assert all(row["microseconds"]["median"] > 0 for row in rows)
    assert "one model 784-10: jaxnn against the" in capsys.readouterr().out
    assert (tmp_path / "history.csv").read_text().startswith("measure,seed,value\n")


QUICK = ["--dataset", "digits", "--seeds", "1", "--quick"]


@pytest.fixture
def two_parts(monkeypatch):
    """Parts that measure nothing; the second one may fail."""

    def part(name, value):
        def measure(bench):
            if isinstance(value, Exception):
                raise value
            return {"found": {"median": value, "values": [value]}}

        return SimpleNamespace(PARTS={name: Part(measure, lambda _: [])})

    def put(**values):
        for name, value in values.items():
            module = f"experiments.benchmark.parts.{main.PARTS[name]}"
            monkeypatch.setitem(sys.modules, module, part(name, value))

    return put


def written(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_part_that_fails_does_not_take_the_ones_before_it_along(tmp_path, two_parts):
    two_parts(one_model=1.0, scale=RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        main.main([*QUICK, "--parts", "one_model", "scale", "--out", str(tmp_path)])
    content = written(tmp_path)
    assert content["results"]["one_model"]["found"]["median"] == 1.0
    assert content["config"]["parts"] == ["one_model"]


def test_parts_measured_one_at_a_time_end_in_one_file(tmp_path, two_parts, capsys):
    two_parts(one_model=1.0, scale=2.0)
    for name in ("scale", "one_model"):
        assert main.main([*QUICK, "--keep", "--parts", name, "--out", str(tmp_path)]) == 0
    content = written(tmp_path)
    assert list(content["results"]) == ["machine", "one_model", "scale"]
    assert content["config"]["parts"] == ["one_model", "scale"]
    assert content["config"]["keep"] is False  # all of it at once says the same
    history = (tmp_path / "history.csv").read_text()
    assert "one_model.found,0,1.0" in history
    assert "scale.found,0,2.0" in history
    assert capsys.readouterr().out.count("results.json") == 2

    two_parts(scale=3.0)
    assert main.main([*QUICK, "--keep", "--parts", "scale", "--out", str(tmp_path)]) == 0
    assert written(tmp_path)["results"]["scale"]["found"]["median"] == 3.0
    assert main.main([*QUICK, "--parts", "scale", "--out", str(tmp_path)]) == 0
    assert list(written(tmp_path)["results"]) == ["machine", "scale"]


@pytest.mark.parametrize("changed", ["processor", "versions", "seeds"])
def test_parts_measured_otherwise_are_not_kept(tmp_path, two_parts, capsys, changed):
    two_parts(one_model=1.0, scale=2.0)
    assert main.main([*QUICK, "--parts", "scale", "--out", str(tmp_path)]) == 0
    content = written(tmp_path)
    holder = content["config"] if changed == "seeds" else content["results"]["machine"]
    holder[changed] = {"numpy": "1.0"} if changed == "versions" else "Abacus"
    (tmp_path / "results.json").write_text(json.dumps(content))
    capsys.readouterr()
    arguments = [*QUICK, "--keep", "--parts", "one_model", "--out", str(tmp_path)]
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert f"results.json was measured with {changed} {holder[changed]}, expected " in error
    assert error.count("\n") == 1
    assert written(tmp_path) == content
