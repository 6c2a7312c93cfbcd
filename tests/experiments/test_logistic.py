"""Logistic regression (S5.3): where it ends, by which way, and that its check can fail."""

import csv
import json
import warnings

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss

from experiments import logistic
from jaxnn import data


@pytest.fixture(scope="module")
def digits():
    """(x, y) of training and test examples: zeros against the rest."""
    return [
        (
            np.asarray(part.inputs, np.float64) * np.float64(np.asarray(part.scale)),
            np.asarray(part.targets) == 0,
        )
        for part in data.load("digits")
    ]


def run(out, *argv):
    return logistic.main([*argv, "--out", str(out)])


def results_of(out):
    return json.loads((out / "results.json").read_text())["results"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """The default command's folder."""
    out = tmp_path_factory.mktemp("logistic")
    assert run(out) == 0
    return out


def test_the_end_point_is_that_of_another_solver(digits_run, digits):
    (x, y), _ = digits
    l2 = results_of(digits_run)["l2"]
    model = LogisticRegression(
        C=1 / (len(y) * l2), fit_intercept=False, solver="newton-cg", tol=1e-10, max_iter=1000
    ).fit(x, y)
    theta = np.array(results_of(digits_run)["theta"])
    assert theta.shape == (3, 64)
    np.testing.assert_allclose(theta, np.repeat(model.coef_, 3, axis=0), rtol=0, atol=1e-5)


def test_the_measured_agreement_is_reported(digits_run):
    content = json.loads((digits_run / "results.json").read_text())
    assert content["results"]["difference_from_scikit_learn"] < 1e-5
    assert content["results"]["difference_between_seeds"] < 2e-6  # twice the promised 1e-6
    assert [check["passed"] for check in content["checks"]] == [True]


@pytest.mark.parametrize(("part", "index"), [("train", 0), ("test", 1)])
def test_measures_are_the_unregularised_loss_and_the_error(digits_run, digits, part, index):
    x, y = digits[index]
    results = results_of(digits_run)
    for seed, theta in enumerate(results["theta"]):
        logits = x @ np.array(theta)
        loss = log_loss(y, 1 / (1 + np.exp(-logits)))
        assert results[f"{part}_loss"]["values"][seed] == pytest.approx(loss, rel=1e-9)
        error = 1 - accuracy_score(y, logits > 0)
        assert results[f"{part}_error"]["values"][seed] == pytest.approx(error, abs=1e-12)


def test_history_has_a_row_per_seed_and_evaluated_iteration(digits_run):
    with open(digits_run / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    results = results_of(digits_run)
    for seed in range(3):
        mine = [row for row in rows if row["seed"] == str(seed)]
        iterations = [int(row["iteration"]) for row in mine]
        assert iterations[0] == 0
        assert iterations == sorted(set(iterations))
        assert iterations[-1] == results["iterations"]
        for name in logistic.MEASURES:
            assert float(mine[-1][name]) == results[name]["values"][seed]


def test_every_step_descends_with_the_default_rate(digits_run):
    with open(digits_run / "history.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["seed"] == "0"]
    losses = [float(row["train_loss"]) for row in rows if int(row["iteration"]) <= 100]
    assert losses == sorted(losses, reverse=True)


def test_the_same_command_gives_the_same_bits(digits_run, tmp_path):
    assert run(tmp_path, "--no-compare") == 0
    again = (tmp_path / "history.csv").read_bytes()
    assert again == (digits_run / "history.csv").read_bytes()


def test_acceleration_takes_fewer_iterations_to_the_same_place(digits_run, tmp_path):
    assert run(tmp_path, "--accelerate") == 0
    plain, accelerated = results_of(digits_run), results_of(tmp_path)
    assert accelerated["iterations"] < plain["iterations"] / 3
    np.testing.assert_allclose(accelerated["theta"], plain["theta"], rtol=0, atol=2e-6)


def test_the_default_rate_is_one_over_the_largest_curvature(digits_run, digits):
    (x, y), _ = digits
    largest = np.linalg.svd(x, compute_uv=False)[0] ** 2 / (4 * len(y)) + 0.01
    assert results_of(digits_run)["learning_rate"] == pytest.approx(1 / largest, rel=1e-9)


def test_stopping_early_fails_the_check_and_says_so(tmp_path, capsys):
    assert run(tmp_path, "--iterations", "50", "--seeds", "1") == 1
    assert "raise --iterations" in capsys.readouterr().out


def test_a_diverged_descent_fails_the_check_and_is_reported(tmp_path, capsys):
    assert run(tmp_path, "--learning-rate", "1e300", "--iterations", "9") == 1
    assert "nan" in capsys.readouterr().out
    assert results_of(tmp_path)["train_loss"] == {"values": [None] * 3, "mean": None, "std": None}


def test_the_combined_update_of_the_source_fails_the_check(tmp_path, monkeypatch):
    def combined(theta, x, y, learning_rate, l2):
        """S5.3's constants combined: alpha is lost from the penalty (and 1/N, restored here)."""
        residual = jax.nn.sigmoid(x @ theta) - y
        return theta * (1 - l2) - learning_rate / len(x) * (residual @ x)

    monkeypatch.setattr(logistic, "logistic_update", combined)
    jax.clear_caches()
    try:
        assert run(tmp_path, "--seeds", "1", "--iterations", "5000") == 1
    finally:
        jax.clear_caches()


def test_a_warning_from_scikit_learn_fails_the_check(tmp_path, monkeypatch, capsys):
    def not_converged(self, x, y):
        warnings.warn("no convergence", UserWarning, stacklevel=1)

    monkeypatch.setattr(LogisticRegression, "fit", not_converged)
    assert run(tmp_path, "--seeds", "1", "--iterations", "5") == 1
    assert "scikit-learn warned: no convergence" in capsys.readouterr().out


@pytest.fixture
def user_data(tmp_path):
    """Six pixels each, which is no square; classes 0 and 1."""
    random = np.random.default_rng(0)
    path = tmp_path / "user.npz"
    arrays = {}
    for part, n in (("train", 60), ("test", 20)):
        arrays[f"{part}_labels"] = random.integers(0, 2, n)
        centres = arrays[f"{part}_labels"][:, None] * 2.0 - 1.0
        arrays[f"{part}_images"] = random.normal(size=(n, 6)) + centres
    np.savez(path, **arrays)
    return path


def test_own_data_accelerates_by_default_and_has_no_image(user_data, tmp_path):
    out = tmp_path / "out"
    assert run(out, "--dataset", str(user_data), "--positive-class", "1") == 0
    assert results_of(out)["momentum"] > 0
    assert sorted(path.name for path in out.iterdir()) == [
        "history.csv",
        "loss.png",
        "results.json",
    ]


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--l2", "0", "a positive number"),
        ("--l2", "nan", "a positive number"),
        ("--learning-rate", "-0.1", "a positive number"),
        ("--learning-rate", "nan", "a positive number"),
        ("--iterations", "0", "at least 1"),
        ("--positive-class", "-1", "at least 0"),
        ("--positive-class", "2", "a class of some training examples, not all"),
        ("--positive-class", "12", "a class of some training examples, not all"),
        (
            "--dataset",
            "letters",
            "digits, mnist, fashion_mnist, iris, wine, breast_cancer, diabetes, "
            "california_housing or the path of your own data",
        ),
    ],
)
def test_bad_input_names_the_flag(flag, value, expected, user_data, tmp_path, capsys):
    defaults = {"--dataset": str(user_data), "--positive-class": "1"}
    argv = [word for pair in (defaults | {flag: value}).items() for word in pair]
    assert run(tmp_path / "out", *argv) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"experiments.logistic: {flag} is ")
    assert error.endswith(f", expected {expected}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("iterations", [1, 2, 60, 1000, 20_000])
def test_checkpoints_lead_from_the_first_iteration_to_the_last(iterations):
    points = logistic.checkpoints(iterations)
    assert points[0] == 1
    assert points[-1] == iterations
    assert points == sorted(set(points))
    assert max(np.diff(points), default=0) <= 250


@pytest.mark.parametrize(
    ("norm", "percent"), [(1.0, 0), (1e-2, 25), (1e-4, 50), (1.01e-8, 99), (1e-8, 100), (0.0, 100)]
)
def test_progress_counts_decades(norm, percent):
    assert logistic.percent_converged(1.0, norm, 1e-8) == percent
