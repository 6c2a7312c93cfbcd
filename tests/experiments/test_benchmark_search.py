"""Searches as whole programs: their results, their order, the tables. No time is asserted."""

import json
import math
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.benchmark import problem
from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench
from experiments.benchmark.parts import search
from experiments.benchmark.parts.search import Watched, compared, standings, target, watch
from experiments.benchmark.searches import Job, tell
from experiments.harness import Run
from experiments.processes import ProcessError, Program, running
from jaxnn.data import load

EXAMPLES = 600  # of which 100 validate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("examples")
    problem.store(path, *problem.split(problem.mnist_shaped(load("digits").train, EXAMPLES)))
    return path


def job(folder, method, **changes):
    return Job(
        **{
            "method": method,
            "data": str(folder),
            "sizes": (784, 10),
            "configurations": 3,
            "epochs": 3,
            "seed": 0,
            "processes": 2,
            "learning_rate": (0.05, 0.1),
            "l2": (1e-6, 1e-4),
            "momentum": 0.9,
            "batch_size": 50,
        }
        | changes
    )


PROGRAMS = [
    pytest.param("jaxnn", "random", id="jaxnn random"),
    pytest.param("jaxnn", "successive_halving", id="jaxnn halving"),
    pytest.param("scikit_learn", "randomized", id="sklearn randomized"),
    pytest.param("scikit_learn", "halving", id="sklearn halving"),
    pytest.param("optuna", "tpe", id="optuna"),
    pytest.param("keras_tuner", "hyperband", id="keras tuner"),
]
NEEDS = {"optuna": ("optuna", "torch"), "keras_tuner": ("keras_tuner",)}


@pytest.mark.slow
@pytest.mark.parametrize(("program", "method"), PROGRAMS)
def test_a_search_tells_how_good_the_models_are(program, method, folder, tmp_path):
    for package in NEEDS.get(program, ()):
        if find_spec(package) is None:
            pytest.skip(f"no {package}")
    watched = watch(program, job(folder, method), 100, tmp_path)
    seconds = [seconds for seconds, _ in watched.moments]
    right = [right for _, right in watched.moments]
    assert 0 < watched.imported < watched.first_score == seconds[0]
    assert seconds[0] <= seconds[-1] <= watched.whole
    assert right == sorted(set(right))
    assert 70 < watched.best <= 100  # of ten classes: it has learned


def heavy_ball(some, weight, bias, *, rate, l2, momentum, steps):
    """Softmax regression on all examples at once, by the textbook: z = x W + b."""
    inputs, one_hot = some.inputs.astype(np.float64), np.eye(10)[some.targets]
    trace = np.zeros_like(weight), np.zeros_like(bias)
    for _ in range(steps):
        powers = np.exp(inputs @ weight + bias)
        error = (powers / powers.sum(1, keepdims=True) - one_hot) / len(inputs)
        gradient = inputs.T @ error + l2 * weight, error.sum(0)
        trace = tuple(momentum * t + g for t, g in zip(trace, gradient, strict=True))
        weight, bias = weight - rate * trace[0], bias - rate * trace[1]
    return weight, bias


def scikit_learns_steps(asked, some, rate, l2):
    from experiments.benchmark.peers.scikit_learn import alpha, classifier

    model = classifier(asked.sizes, asked.batch_size, asked.epochs, momentum=asked.momentum)
    penalty = alpha(l2, asked.batch_size)
    model.set_params(alpha=penalty, learning_rate_init=rate, warm_start=True)
    model.set_params(max_iter=1).fit(some.inputs, some.targets)
    before = model.coefs_[0].copy(), model.intercepts_[0].copy()
    model.set_params(max_iter=asked.epochs).fit(some.inputs, some.targets)
    return before, (model.coefs_[0], model.intercepts_[0])


def pytorchs_steps(asked, some, rate, l2):
    pytest.importorskip("torch")
    from experiments.benchmark.peers import pytorch

    model = pytorch.network(asked.sizes)
    optimizer = pytorch.sgd(model, rate, l2, momentum=asked.momentum, fused=True)

    def now():
        weight, bias = (p.detach().double().numpy().copy() for p in model.parameters())
        return weight.T, bias

    before = now()
    loop, generator = pytorch.eager(asked.problem), np.random.default_rng(0)
    for _ in range(asked.epochs):
        loop.epoch((model, optimizer), generator)
    return before, now()


def keras_steps(asked, some, rate, l2):
    pytest.importorskip("keras")
    from experiments.benchmark.peers.keras_on_jax import compiled

    model = compiled(asked.sizes, rate, l2, asked.momentum)
    before = model.get_weights()
    model.fit(some.inputs, some.targets, batch_size=asked.batch_size, epochs=asked.epochs)
    return before, model.get_weights()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("steps", [scikit_learns_steps, pytorchs_steps, keras_steps])
def test_every_peer_trains_by_the_same_rule(steps, folder, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    some = job(folder, "").problem.train
    asked = job(folder, "", epochs=3, batch_size=len(some.targets))
    before, after = steps(asked, some, 0.2, 0.3)
    expected = heavy_ball(some, *before, rate=0.2, l2=0.3, momentum=0.9, steps=3)
    for found, right in zip(after, expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)


def test_examples_are_those_that_were_stored(folder):
    train, validation = job(folder, "").problem.train, job(folder, "").problem.validation
    assert train.pixels.shape == (500, 784)
    assert validation.pixels.shape == (100, 784)
    assert train.inputs.dtype == np.float32
    assert train.inputs.max() == 1.0


def test_a_line_is_written_at_once(monkeypatch):
    """Several processes write to one pipe: the end of a line must not come by itself."""
    written = []
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=written.append, flush=lambda: None))
    tell(accuracy=0.5)
    assert written == ['{"accuracy": 0.5}\n']


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("ModuleNotFoundError: No module named 'x'", ModuleNotFoundError, "^No module named 'x'$"),
        ("ValueError: bad", ProcessError, "^here ended with exit status 3: ValueError: bad$"),
        ("", ProcessError, "^here ended with exit status 3: $"),
    ],
)
def test_a_failed_search_is_one_line(text, kind, message, tmp_path):
    with (tmp_path / "errors").open("w+") as errors:
        errors.write(f"Traceback\n{text}\n" if text else "")
        ended = SimpleNamespace(wait=lambda: 3)
        program = Program("here", ended, errors, 0.0)  # pyright: ignore[reportArgumentType]
        failure = program.failure()
        assert isinstance(failure, kind)
        assert re.match(message, str(failure))


def test_what_a_search_started_ends_with_it(tmp_path):
    code = "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL).pid)"
    (tmp_path / "starts_another.py").write_text(code)
    environment = {"PYTHONPATH": str(tmp_path)}
    with running("starts_another", environment=environment) as program:
        ((_, child),) = program.lines()
        child = child.strip()
        assert running_now(child)
    deadline = time.monotonic() + 10  # a killed process may take a moment to go
    while running_now(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running_now(child)


def running_now(process):
    found = subprocess.run(["ps", "-o", "stat=", "-p", process], capture_output=True, text=True)
    return found.stdout.strip()[:1] not in ("", "Z")


def test_only_better_models_count():
    lines = [(1.0, 0.3), (2.0, 0.3), (3.0, 0.2), (4.0, 0.31)]
    told = [(0.5, {"imported": True}), *((at, {"accuracy": found}) for at, found in lines)]
    assert search.better(told, 100) == [(1.0, 30), (4.0, 31)]


def test_a_search_tells_when_its_packages_are_imported(folder, capsys):
    taken = Job(**json.loads(json.dumps(job(folder, "random")._asdict())))
    assert (taken.method, taken.batch_size) == ("random", 50)
    assert taken.problem.train.pixels.shape == (500, 784)
    assert json.loads(capsys.readouterr().out) == {"imported": True}


def watched(seconds, *moments, imported=0.25):
    return Watched(seconds, list(moments), imported)


def test_an_accuracy_is_reached_when_it_is_first_known():
    one = watched(9.0, (2.0, 80), (5.0, 90))
    assert one.reached(79) == 2.0
    assert one.reached(80) == 2.0
    assert one.reached(81) == 5.0
    assert one.reached(91) is None
    assert one.first_score == 2.0
    assert watched(9.0).reached(1) is None
    assert watched(9.0).best == 0
    assert watched(9.0).first_score == 9.0


SLOW = watched(30.0, (1.0, 50), (20.0, 90))
QUICK = watched(3.0, (1.0, 50), (2.0, 89))
BETTER = watched(29.0, (4.0, 90), (28.0, 99))


def runs(**found):
    return {name: each if isinstance(each, dict) else cold(each) for name, each in found.items()}


def cold(one):
    return {"cold": one, "warm": one}


def test_the_slowest_search_sets_the_target():
    assert target(runs(quick=QUICK, better=BETTER, slow=SLOW)) == 90
    assert target(runs(slow=SLOW, better=BETTER, quick=QUICK)) == 90
    assert target(runs(quick=QUICK)) == 89


def test_of_equally_slow_searches_the_better_one_sets_the_target():
    one, other = watched(30.0, (1.0, 50)), watched(30.0, (1.0, 51))
    assert target(runs(one=one, other=other)) == target(runs(other=other, one=one)) == 51


def test_slowness_is_that_of_the_cold_start():
    compiling = {"cold": watched(40.0, (39.0, 70)), "warm": watched(1.0, (0.5, 70))}
    assert target(runs(compiling=compiling, slow=SLOW)) == 70


def test_every_repetition_has_its_own_target():
    first = runs(slow=SLOW, quick=QUICK)
    second = runs(slow=watched(5.0, (4.0, 40)), quick=QUICK)
    found = compared([first, second], 100)
    assert found["target"]["values"] == [0.9, 0.4]
    assert found["searches"]["slow"]["cold"]["to_target"]["values"] == [20.0, 4.0]
    assert found["searches"]["quick"]["cold"]["to_target"]["values"] == [None, 1.0]
    assert found["searches"]["quick"]["accuracy"]["values"] == [0.89, 0.89]
    quick = found["searches"]["quick"]["warm"]
    assert quick["whole"]["median"] == 3.0
    assert quick["first_score"]["values"] == [1.0, 1.0]
    assert quick["imported"]["values"] == [0.25, 0.25]


def seconds_to(found, name, start):
    return next(row.seconds for row in standings(found, start) if row.name == name)


def fastest(found, names, start):
    return next(row.name for row in standings(found, start) if row.name in names)


def test_a_search_that_never_gets_there_costs_a_peer_its_time_and_us_everything():
    found = compared([runs(slow=SLOW, quick=QUICK, jaxnn_random=QUICK)] * 3, 100)
    assert seconds_to(found, "quick", "cold") == 3.0
    assert seconds_to(found, "jaxnn_random", "cold") == math.inf


def test_the_median_is_taken_of_what_counts():
    repetitions = [
        runs(
            slow=watched(9.0, (8.0, right)),
            quick=watched(5.0, (1.0, 50)),
            jaxnn_random=watched(5.0, (1.0, 50)),
        )
        for right in (40, 60, 50)
    ]
    found = compared(repetitions, 100)
    assert found["searches"]["quick"]["cold"]["to_target"]["values"] == [1.0, None, 1.0]
    assert seconds_to(found, "quick", "cold") == seconds_to(found, "jaxnn_random", "cold") == 1.0
    assert seconds_to(compared(repetitions[:2], 100), "quick", "cold") == 3.0


def test_the_fastest_is_the_first_to_get_there_not_the_first_to_end():
    found = compared([runs(slow=SLOW, better=BETTER)], 100)
    assert fastest(found, ["slow", "better"], "cold") == "better"
    giving_up = compared([runs(jaxnn_halving=SLOW, jaxnn_random=QUICK, quick=QUICK)], 100)
    assert fastest(giving_up, ["jaxnn_halving", "quick"], "cold") == "quick"
    assert fastest(giving_up, ["jaxnn_halving", "jaxnn_random"], "cold") == "jaxnn_halving"


def row(whole, to_target, warm=None, accuracy=0.9):
    def start(to_target):
        return {
            "imported": {"median": 0.31},
            "first_score": {"median": 1.42},
            "whole": {"values": [whole] * len(to_target), "median": whole},
            "to_target": {"values": to_target},
        }

    return {
        "cold": start(to_target),
        "warm": start(to_target if warm is None else warm),
        "accuracy": {"median": accuracy},
    }


def results(**searches):
    return {
        "search": {
            "sizes": [784, 10],
            "configurations": 64,
            "epochs": 12,
            "target": {"median": 0.9213, "values": [0.92, 0.9213, 0.93]},
            "searches": searches,
        }
    }


EXAMPLE = results(
    jaxnn_random=row(9.0, [8.0, 8.0, 8.0], [6.0, 6.0, 6.0]),
    jaxnn_halving=row(5.0, [4.0, 5.0, 4.5], [2.0, 2.5, None]),
    sklearn_halving=row(20.0, [None, None, None], accuracy=0.8765),
    optuna=row(60.0, [27.0, None, 18.0]),
)


def test_the_table_goes_by_the_time_to_the_accuracy_and_marks_what_failed():
    (table,) = search.tables(EXAMPLE)
    assert [line[0] for line in table.rows] == [
        "jaxnn, successive halving",
        "jaxnn, random",
        "scikit-learn, HalvingRandomSearchCV",
        "Optuna (TPE, pruned) + PyTorch",
    ]
    assert [line[1:3] for line in table.rows] == [
        ("4.5", "2.5 (2 of 3)"),
        ("8.0", "6.0"),
        ("not reached", "not reached"),
        ("27.0 (2 of 3)", "27.0 (2 of 3)"),
    ]
    assert table.rows[2][3:] == ("0.3", "0.3", "1.4", "1.4", "20.0", "20.0", "87.65")
    assert all(len(line) == len(table.columns) for line in table.rows)
    assert "64 configurations of 784-10, at most 12 epochs" in table.title
    assert "92.13 %" in table.notes[0]


def test_a_method_of_ours_that_seldom_gets_there_comes_last():
    seldom = [1.0, None, None]
    found = results(jaxnn_random=row(2.0, seldom), optuna=row(9.0, seldom))
    (table,) = search.tables(found)
    assert [line[1] for line in table.rows] == ["9.0 (1 of 3)", "not reached (1 of 3)"]


def test_the_goals_compare_the_better_method_with_the_fastest_peer():
    cold, warm = search.goals(EXAMPLE)
    assert (cold.required, warm.required) == (5.0, 8.0)
    assert cold.measured == pytest.approx(20.0 / 4.5)
    assert warm.measured == pytest.approx(20.0 / 2.5)
    assert "successive halving" in cold.what
    assert cold.what.endswith("HalvingRandomSearchCV (which did not always reach it)")
    assert not cold.reached
    assert warm.reached


def test_where_the_fastest_peer_does_not_always_get_there_the_fastest_that_does_is_named():
    found = results(
        jaxnn_random=row(9.0, [4.5, 5.0, 4.0]),
        sklearn_halving=row(20.0, [None, None, None]),
        optuna=row(60.0, [15.0, None, 18.0]),
        keras_tuner=row(80.0, [27.0, 18.0, 36.0]),
    )
    (table,) = search.tables(found)
    cold, warm = table.notes[3:]
    for start, note in {"cold": cold, "warm": warm}.items():
        assert f"that always reached the accuracy, {start}, is Keras Tuner, Hyperband" in note
        assert note.endswith("it takes 6.00 times as long as jaxnn.")


def test_where_the_fastest_peer_always_gets_there_no_other_is_named():
    (table,) = search.tables(results(jaxnn_random=row(1.0, [1.0]), optuna=row(9.0, [9.0])))
    assert len(table.notes) == 3


def test_nothing_is_won_where_jaxnn_never_gets_there():
    never = [None, None, None]
    found = results(jaxnn_random=row(1.0, never), optuna=row(2.0, [1.0, 1.0, 1.0]))
    assert [goal.measured for goal in search.goals(found)] == [0.0, 0.0]


def test_without_peers_there_are_no_goals():
    assert search.goals(results(jaxnn_random=row(1.0, [1.0]))) == []


@pytest.fixture
def bench(folder, tmp_path):
    config = BenchmarkConfig(seeds=2, quick=True)
    return Bench(config, Run("benchmark", config, tmp_path), folder, (0, 1, 2))


def test_all_searches_are_asked_for_the_same(bench, monkeypatch, capsys):
    asked = []

    def fake(program, job, examples, cache):
        if program == "keras_tuner":
            raise ModuleNotFoundError("No module named 'keras'")
        asked.append((program, job, examples, cache))
        return watched(float(len(asked)), (0.5, 42))

    monkeypatch.setattr(search, "watch", fake)
    found = search.measure(bench)
    assert list(found["searches"]) == [n for n in search.SEARCHERS if n != "keras_tuner"]
    assert "Keras Tuner" in capsys.readouterr().out
    assert found["target"]["values"] == [0.42, 0.42]
    assert {each[2] for each in asked} == {100}
    jobs = [each[1] for each in asked]
    assert len({job._replace(method="", seed=0) for job in jobs}) == 1
    assert jobs[0].processes == 3
    first, second = ([each for each in asked if each[1].seed == seed] for seed in (0, 1))
    assert len(first) == len(second) == 2 * 2 + 3  # only jaxnn is started twice
    assert (first[0][0], first[-1][0]) == ("jaxnn", "scikit_learn")
    assert first[0][1].method != second[0][1].method  # another one goes first
    assert first[0][3] == first[1][3] != first[2][3]  # warm: where cold has been
    rows = found["searches"]
    assert rows["jaxnn_random"]["cold"]["whole"]["values"][0] == 1.0
    assert rows["jaxnn_random"]["warm"]["whole"]["values"][0] == 2.0
    assert rows["optuna"]["cold"] == rows["optuna"]["warm"]
