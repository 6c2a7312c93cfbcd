"""The experiments that train networks: what they write, what they observe, what they refuse."""

import csv
import json
import time
from threading import Event

import numpy as np
import pytest

from experiments import architectures, loss_curves
from experiments.architectures import observations
from experiments.training import MEASURES, Setting, evaluation_points
from jaxnn import NEVER

SMALL = ["--iterations", "60", "--seeds", "2"]


def run(main, out, *flags):
    status = main([*flags, "--out", str(out)])
    return status, json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("architectures")
    return (*run(architectures.main, out, *SMALL), out)


def test_an_interrupt_does_not_wait_for_the_training_of_other_settings(tmp_path, monkeypatch):
    training = Event()

    def train_setting(config, sizes, *_):
        if len(sizes) == 2:
            raise KeyboardInterrupt
        training.wait(60)

    monkeypatch.setattr(architectures, "train_setting", train_setting)
    began = time.monotonic()
    assert architectures.main(["--out", str(tmp_path)]) == 130
    assert time.monotonic() - began < 30
    training.set()


def test_results_have_every_measure_of_every_setting(small_run):
    status, written, _ = small_run
    assert status == 0
    assert (written["experiment"], written["dataset"]) == ("architectures", "digits")
    assert written["config"]["iterations"] == 60
    expected = {"a": ([64, 10], 650), "b": ([64, 50, 50, 10], 6310), "c": ([64, 90, 50, 10], 10910)}
    for name, (sizes, parameters) in expected.items():
        setting = written["results"]["settings"][name]
        assert (setting["sizes"], setting["parameter_count"]) == (sizes, parameters)
        assert setting["diverged_at"] == [None, None]
        for measure in MEASURES:
            values = setting[measure]["values"]
            assert len(values) == 2
            assert setting[measure]["mean"] == pytest.approx(np.mean(values))
            assert setting[measure]["std"] == pytest.approx(np.std(values, ddof=1))
        # 60 minibatches are enough to be far better than the 90 % of guessing.
        assert setting["test_error"]["mean"] < 0.2


def test_history_has_a_row_per_setting_seed_and_evaluation(small_run):
    with open(small_run[2] / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    points = evaluation_points(60)
    keys = [(row["setting"], int(row["seed"]), int(row["iteration"])) for row in rows]
    assert sorted(keys) == sorted((n, s, t) for n in "abc" for s in (0, 1) for t in points)
    last = [float(r["test_error"]) for r in rows if r["setting"] == "b" and r["iteration"] == "60"]
    assert last == pytest.approx(small_run[1]["results"]["settings"]["b"]["test_error"]["values"])


def test_three_figures_are_written(small_run):
    for name in ("cross_entropy.png", "test_error.png", "train_error.png"):
        assert (small_run[2] / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_twice_writes_the_same_numbers(small_run, tmp_path):
    _, again = run(architectures.main, tmp_path, *SMALL)
    assert again["results"]["settings"] == small_run[1]["results"]["settings"]
    assert (tmp_path / "history.csv").read_bytes() == (small_run[2] / "history.csv").read_bytes()


def test_validation_reports_on_examples_held_out_of_training(tmp_path):
    flags = ["--iterations", "30", "--seeds", "2", "--hidden", "10"]
    _, written = run(loss_curves.main, tmp_path / "v", "--validation", "300", *flags)
    _, plain = run(loss_curves.main, tmp_path / "t", *flags)
    held_out = written["results"]["test_error"]["values"]
    # Multiples of 1/300, not of the test set's 1/360.
    assert np.allclose(np.array(held_out) * 300, np.round(np.array(held_out) * 300), atol=1e-3)
    assert held_out != plain["results"]["test_error"]["values"]


def test_divergence_is_told_not_hidden(tmp_path, capsys):
    flags = ["--iterations", "20", "--seeds", "1", "--learning-rate", "1e30"]
    status, written = run(loss_curves.main, tmp_path, *flags)
    assert status == 0
    setting = written["results"]
    assert setting["test_cross_entropy"]["values"] == [None]
    assert 1 <= setting["diverged_at"][0] <= 2
    assert (
        "setting 64-50-50-10, seed 0: the loss stopped being finite at iteration"
        in capsys.readouterr().out
    )


def test_loss_curves_writes_two_curves_in_each_of_two_figures(tmp_path):
    status, written = run(loss_curves.main, tmp_path, *SMALL, "--hidden", "20", "15")
    assert status == 0
    assert written["results"]["sizes"] == [64, 20, 15, 10]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_real_mnist_trains(real_data, tmp_path):
    flags = [
        "--dataset",
        "mnist",
        "--data-dir",
        str(real_data),
        "--iterations",
        "300",
        "--seeds",
        "1",
    ]
    _, written = run(loss_curves.main, tmp_path, *flags)
    # Two hidden layers of 50 and half an epoch: above 90 % in every published account.
    assert written["results"]["test_error"]["mean"] < 0.1


def setting(cross_entropy, test_error, train_error):
    iterations = np.array([0, 50, 3000, 4000, 5000])
    curves = [np.broadcast_to(np.array(c, float), (2, 5)) for c in (test_error, train_error)]
    ce = np.broadcast_to(np.array(cross_entropy, float), (2, 5))
    measures: dict[str, np.ndarray] = dict(zip(MEASURES, (*curves, ce, ce), strict=True))
    return Setting((784, 10), 0.1, iterations, measures, np.array([NEVER] * 2), 0.0, 0.0)


AS_PRINTED = {
    "a": setting(
        [2.3, 0.5, 0.2, 0.2, 0.15], [0.3, 0.2, 0.08, 0.08, 0.08], [0.3, 0.2, 0.1, 0.05, 0.05]
    ),
    "b": setting(
        [2.3, 0.8, 0.2, 0.2, 0.14], [0.9, 0.4, 0.07, 0.07, 0.07], [0.9, 0.4, 0.1, 0.06, 0.05]
    ),
    "c": setting(
        [2.3, 1.2, 0.2, 0.2, 0.16], [0.9, 0.5, 0.09, 0.08, 0.08], [0.9, 0.5, 0.1, 0.05, 0.04]
    ),
}


def verdicts(settings):
    return [row["verdict"] for row in observations(settings)]


def test_observations_are_confirmed_by_curves_as_the_source_describes_them():
    assert verdicts(AS_PRINTED) == ["confirmed"] * 5


@pytest.mark.parametrize(
    ("name", "change", "contradicted"),
    [
        (
            "b",
            setting(
                [2.3, 0.4, 0.2, 0.2, 0.14],
                [0.9, 0.4, 0.07, 0.07, 0.07],
                [0.9, 0.4, 0.1, 0.06, 0.05],
            ),
            0,
        ),
        (
            "b",
            setting(
                [2.3, 0.8, 0.2, 0.2, 0.03],
                [0.9, 0.4, 0.07, 0.07, 0.07],
                [0.9, 0.4, 0.1, 0.06, 0.05],
            ),
            1,
        ),
        (
            "a",
            setting(
                [2.3, 0.5, 0.2, 0.2, 0.15],
                [0.8, 0.2, 0.08, 0.08, 0.08],
                [0.3, 0.2, 0.1, 0.05, 0.05],
            ),
            2,
        ),
        (
            "c",
            setting(
                [2.3, 1.2, 0.2, 0.2, 0.16],
                [0.9, 0.5, 0.02, 0.08, 0.08],
                [0.9, 0.5, 0.1, 0.05, 0.04],
            ),
            3,
        ),
        (
            "c",
            setting(
                [2.3, 1.2, 0.2, 0.2, 0.16],
                [0.9, 0.5, 0.09, 0.08, 0.08],
                [0.9, 0.5, 0.1, 0.09, 0.04],
            ),
            4,
        ),
    ],
)
def test_one_curve_that_differs_contradicts_one_observation(name, change, contradicted):
    expected = ["confirmed"] * 5
    expected[contradicted] = "contradicted"
    assert verdicts({**AS_PRINTED, name: change}) == expected


def test_what_was_not_run_is_not_judged(small_run):
    rows = small_run[1]["results"]["observations"]
    assert [row["verdict"] for row in rows].count("not measured") == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--iterations", "0"], "--iterations is 0, expected at least 1"),
        (["--batch-size", "0"], "--batch-size is 0, expected at least 1"),
        (["--batch-size", "2000"], "batch_size is 2000, expected at most the 1437 examples"),
        (["--learning-rate", "-0.1"], "--learning-rate is -0.1, expected a positive number"),
        (["--learning-rate", "nan"], "--learning-rate is nan, expected a positive number"),
        (["--l2", "-1"], "--l2 is -1.0, expected 0 or a positive number"),
        (["--momentum", "1"], "--momentum is 1.0, expected a number from 0 to below 1"),
        (["--optimizer", "sgd", "--momentum", "0.5"], "--momentum is 0.5, expected only with"),
        (["--optimizer", "newton"], "--optimizer is 'newton', expected one of ['adam', "),
        (["--clip", "0"], "--clip is 0.0, expected a positive number"),
        (["--schedule", "warm"], "--schedule is 'warm', expected one of ['constant', 'cosine', "),
        (["--validation", "1437"], "--validation is 1437, expected less than the 1437 training"),
        (["--validation", "-1"], "--validation is -1, expected at least 0"),
        (["--seeds", "0"], "--seeds is 0, expected at least 1"),
    ],
)
def test_bad_flags_are_one_line_and_status_two(flags, message, tmp_path, capsys):
    assert architectures.main([*flags, "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_optimizer_and_a_schedule_of_optax_train(tmp_path):
    flags = ["--optimizer", "adamw", "--schedule", "warmup_cosine", "--clip", "1", "--hidden", "9"]
    flags += ["--learning-rate", "0.03", "--iterations", "60", "--seeds", "1"]
    status, written = run(loss_curves.main, tmp_path, *flags)
    assert status == 0
    assert written["results"]["test_error"]["mean"] < 0.2


def test_a_hidden_layer_of_nothing_is_refused(tmp_path, capsys):
    assert loss_curves.main(["--hidden", "50", "0", "--out", str(tmp_path / "new")]) == 2
    assert "--hidden is (50, 0), expected positive numbers of units" in capsys.readouterr().err
