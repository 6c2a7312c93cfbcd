"""The search experiment: its contract, the one look at the test set, refusals, real data."""

import csv
import json
import sys

import numpy as np
import pytest

from experiments import search_speed, softmax_search
from experiments.processes import ProcessError
from experiments.search_speed import flops
from jaxnn.data import load
from jaxnn.saved_model import load_model

SMALL = ["--configurations", "6", "--epochs", "8", "--seeds", "2", "--batch-size", "50", "100"]


def run(out, *flags):
    status = softmax_search.main([*flags, "--out", str(out)])
    return status, json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("softmax_search")
    return (*run(out, *SMALL), out)


def test_results_have_what_was_chosen_and_what_it_is_worth(small_run):
    status, written, _ = small_run
    assert status == 0
    assert (written["experiment"], written["dataset"]) == ("softmax_search", "digits")
    results = written["results"]
    best, test = results["best"], results["test"]
    assert set(best["config"]) >= {"learning_rate", "batch_size", "l2", "hidden"}
    assert 1 <= best["epochs"] <= 8
    assert 0.8 < best["validation_accuracy"] < 1
    assert 0.8 < test["accuracy"] < 1
    assert test["cross_entropy"] < 1
    low, high = test["confidence_interval"]
    assert low < test["accuracy"] < high
    assert (test["reads"], test["retrained"], test["examples"]) == (1, True, 360)
    assert (results["trials"], results["diverged"], results["programs"]) == (6, 0, 2)
    seconds = results["seconds"]
    assert seconds["total"] >= seconds["train"] > 0
    assert seconds["compile"] > 0


def test_the_trials_and_their_curves_are_tables(small_run):
    out = small_run[2]
    with open(out / "trials.csv", newline="") as file:
        trials = list(csv.DictReader(file))
    with open(out / "history.csv", newline="") as file:
        history = list(csv.DictReader(file))
    assert len(trials) == 6
    assert len(history) == 6 * 2 * 8
    best = small_run[1]["results"]["best"]
    accuracies = [
        float(row["validation_accuracy"])
        for row in history
        if int(row["trial"]) == best["trial"] and float(row["epoch"]) == best["epochs"]
    ]
    assert np.mean(accuracies) == pytest.approx(best["validation_accuracy"])


def test_the_figures_and_the_models_are_there(small_run):
    out = small_run[2]
    for name in ("learning_curves", "hyperparameters", "learning_rate_l2", "parallel_coordinates"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    test = load("digits").test
    model = load_model(out / "model")
    for seed, accuracy in enumerate(small_run[1]["results"]["test"]["accuracies"]):
        right = model.predict(np.asarray(test.inputs), replicate=seed) == test.targets
        assert right.mean() == pytest.approx(accuracy)


def test_the_same_command_again_answers_from_the_record(small_run, capsys):
    _, before, out = small_run
    status, after = run(out, *SMALL)
    assert status == 0
    for part in ("best", "test", "trials", "diverged", "programs"):
        assert after["results"][part] == before["results"][part]
    assert "read once" in capsys.readouterr().out


def test_another_search_in_the_folder_is_refused_in_one_line(small_run, capsys):
    assert softmax_search.main([*SMALL, "--seed", "1", "--out", str(small_run[2])]) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert "holds another search: key[1] is 1, in the folder 0" in error


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("random", ["--configurations", "4"]),
        pytest.param("grid", ["--points", "2"], marks=pytest.mark.slow),
        pytest.param(
            "successive_halving", ["--configurations", "4", "--eta", "3"], marks=pytest.mark.slow
        ),
        ("hyperband", ["--eta", "3"]),
        ("population_based", ["--configurations", "4"]),
        ("optuna", ["--configurations", "4", "--batch", "2"]),
    ],
)
def test_every_method_works(tmp_path, method, flags):
    flags = [*flags, "--epochs", "3", "--seeds", "1", "--batch-size", "100"]
    flags += ["--no-figures", "--no-retrain"]
    status, written = run(tmp_path, *flags, "--method", method)
    assert status == 0
    assert written["results"]["method"]["method"] == method
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.slow
def test_architectures_folds_and_the_simplest_of_the_best(tmp_path):
    flags = ["--configurations", "6", "--epochs", "2", "--seeds", "1", "--batch-size", "100"]
    flags += ["--architecture", "all", "--folds", "3", "--stratified", "--measure", "accuracy"]
    status, written = run(tmp_path, *flags, "--rule", "one_standard_error", "--no-figures")
    assert status == 0
    assert written["results"]["validation"] == {"kind": "folds", "count": 3, "stratified": True}
    assert written["results"]["programs"] > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learning-rate", "1", "0.1"], "--learning-rate is (1.0, 0.1), expected two positive"),
        (["--l2", "0", "1"], "--l2 is (0.0, 1.0), expected two positive numbers"),
        (["--method", "guess"], "--method is 'guess', expected one of grid, random, sobol"),
        (["--optimizer", "newton"], "--optimizer is 'newton', expected one of"),
        (["--schedule", "warm"], "--schedule is 'warm', expected one of"),
        (["--architecture", "d"], "--architecture is 'd', expected one of a, b, c, all"),
        (["--measure", "loss"], "--measure is 'loss', expected one of cross_entropy, accuracy"),
        (["--validation", "1"], "--validation is 1.0, expected a number above 0 and below 1"),
        (["--batch-size", "0"], "--batch-size is (0,), expected positive whole numbers"),
        (["--eta", "1"], "--eta is 1, expected at least 2"),
        (["--eta", "3"], "--eta is 3, expected only with --method successive_halving or hyperband"),
        (["--points", "3"], "--points is 3, expected only with --method grid"),
        (["--batch", "3"], "--batch is 3, expected only with --method optuna"),
        (
            ["--method", "grid", "--configurations", "3"],
            "--configurations is 3, expected only with",
        ),
        (
            ["--folds", "3", "--validation", "0.2"],
            "--validation is 0.2, expected only with --folds",
        ),
        (["--batch-size", "5000"], "5000"),
    ],
)
def test_bad_flags_are_one_line_and_status_2(tmp_path, capsys, flags, message):
    out = tmp_path / "out"
    assert softmax_search.main([*flags, "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert "Traceback" not in "".join(error)


def test_a_method_whose_package_is_missing_is_one_line_and_status_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    flags = [*SMALL, "--method", "optuna", "--out", str(tmp_path / "out")]
    assert softmax_search.main(flags) == 2
    assert "optuna is not installed" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_when_every_configuration_diverges_it_says_so(tmp_path, capsys):
    flags = [*SMALL, "--learning-rate", "1e30", "1e31", "--out", str(tmp_path)]
    assert softmax_search.main(flags) == 2
    assert "all 6 configurations diverged" in capsys.readouterr().err


def test_a_corrupt_database_is_one_line_and_nothing_is_touched(small_run, tmp_path, capsys):
    database = bytearray((small_run[2] / "run.db").read_bytes())
    database[database.index(b"learning_rate")] ^= 1
    (tmp_path / "run.db").write_bytes(database)
    assert softmax_search.main([*SMALL, "--out", str(tmp_path)]) == 2
    assert "is damaged: record" in capsys.readouterr().err.strip()
    assert (tmp_path / "run.db").read_bytes() == database


@pytest.mark.slow
def test_fashion_mnist_is_learned_as_well_as_softmax_regression_can(real_data, tmp_path):
    """A short search of 8 configurations; L-BFGS to convergence reaches 84.5 % and 0.437 nats."""
    flags = ["--dataset", "fashion_mnist", "--data-dir", str(real_data), "--configurations", "8"]
    flags += ["--epochs", "6", "--seeds", "1", "--batch-size", "100", "--no-figures"]
    status, written = run(tmp_path, *flags)
    assert status == 0
    test = written["results"]["test"]
    assert test["accuracy"] > 0.84
    assert test["cross_entropy"] < 0.455


@pytest.mark.slow
def test_speed_is_measured_of_a_command_of_halving_and_of_the_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(search_speed, "peak_gflops", lambda: 100.0)
    flags = ["--seeds", "1", "--configurations", "3", "--epochs", "1", "--out", str(tmp_path)]
    assert search_speed.main(flags) == 0
    medians = json.loads((tmp_path / "results.json").read_text())["results"]["medians"]
    assert set(medians) == set(search_speed.MEASURES)
    assert medians["command"] > 0
    assert medians["softmax_share_of_peak"] > 0


def test_a_command_that_fails_is_not_timed_but_says_why_in_one_line(tmp_path):
    empty = search_speed.SpeedConfig(dataset=str(tmp_path))
    with pytest.raises(ProcessError, match=r"status 2: experiments\.softmax_search: ") as error:
        search_speed.command_seconds(empty, seed=0)
    assert "\n" not in str(error.value)


def test_floating_point_operations_count_training_and_validation():
    import jax

    from jaxnn.search import Task, fixed, holdout, search, sobol

    task = Task(load("digits").train, epochs=2, validation=holdout(0.2))
    space = {"learning_rate": fixed(0.1), "hidden": fixed((7,)), "batch_size": fixed(100)}
    found = search(task, space, method=sobol(3), key=jax.random.key(0))
    # 1,437 examples: 287 validate, 1,150 train: 23 iterations in two epochs.
    forward, without_first = 64 * 7 + 7 * 10, 7 * 10
    step = 2 * 100 * (2 * forward + without_first)
    assert flops(found) == 3 * (23 * step + 2 * 2 * 287 * forward)
