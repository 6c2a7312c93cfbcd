"""The experiment on regressions: coefficients of ridge regression, errors by definition."""

import csv
import json

import numpy as np
import pytest

from experiments import regression
from jaxnn.data import load, standardized

SMALL = ["--seeds", "2", "--epochs", "30", "--hidden", "8", "--iterations", "2000"]


def run(out, *flags):
    status = regression.main([*flags, "--out", str(out)])
    return status, json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("regression")
    return (*run(out, *SMALL), out)


def test_the_linear_network_has_the_coefficients_of_the_normal_equations(small_run):
    status, written, _ = small_run
    assert status == 0
    train, _ = standardized(*load("diabetes"))
    inputs, targets = regression.seen(train)
    centred = inputs - inputs.mean(axis=0)
    matrix = centred.T @ centred + len(targets) * 0.01 / 2 * np.eye(10)
    expected = np.linalg.solve(matrix, centred.T @ (targets - targets.mean()))
    for coefficients in written["results"]["coefficients"]["linear"]:
        np.testing.assert_allclose(coefficients, [expected], atol=1e-5 * np.abs(expected).max())
    assert written["checks"][0]["passed"]
    assert written["results"]["difference"]["mean"] < 1e-5


def test_the_errors_are_of_the_test_examples(small_run):
    _, written, out = small_run
    results = written["results"]
    train, test = (regression.seen(data) for data in standardized(*load("diabetes")))
    coefficients = np.array(results["coefficients"]["linear"][0][0])
    predicted = test[0] @ coefficients + results["intercepts"]["linear"][0][0]
    expected = np.sqrt(np.mean((predicted - test[1]) ** 2))
    assert results["test_rmse"]["linear"]["values"][0] == pytest.approx(expected)
    assert results["test_rmse"]["ridge"]["mean"] == pytest.approx(expected)
    assert results["test_rmse"]["network"]["mean"] < results["constant_test_rmse"]
    constant = np.sqrt(np.mean((train[1].mean() - test[1]) ** 2))
    assert results["constant_test_rmse"] == pytest.approx(constant)
    with open(out / "history.csv", newline="") as file:
        last = [row for row in csv.DictReader(file) if row["setting"] == "network"][-1]
    assert float(last["test_rmse"]) == pytest.approx(results["test_rmse"]["network"]["values"][1])
    assert (out / "rmse.png").read_bytes().startswith(b"\x89PNG")


def test_too_few_iterations_fail_the_check(tmp_path, capsys):
    status, _ = run(tmp_path, "--epochs", "1", "--iterations", "5", "--seeds", "1")
    assert status == 1
    assert "FAILED: the linear network has the coefficients" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--l2", "0"], "--l2 is 0.0, expected a positive number"),
        (["--hidden", "0"], "--hidden is (0,), expected positive whole numbers"),
        (["--iterations", "0"], "--iterations is 0, expected at least 1"),
        (["--learning-rate", "nan"], "--learning-rate is nan, expected a positive number"),
    ],
)
def test_bad_flags_are_refused_in_a_line(tmp_path, capsys, flags, message):
    assert regression.main([*flags, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"experiments.regression: {message}\n"
