"""Experiments on the user's own data: what they say about the scale, and about poor networks."""

import json

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris, load_wine

from experiments import logistic, loss_curves, softmax_search
from jaxnn.data import load
from jaxnn.reporting import no_better


@pytest.fixture
def iris(tmp_path):
    """Fisher's irises: 120 and 30 in centimetres, 12 of the test examples in one class."""
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    names = ("train_images", "test_images", "train_labels", "test_labels")
    parts = x[order[:120]], x[order[120:]], y[order[:120]], y[order[120:]]
    np.savez(tmp_path / "iris.npz", **dict(zip(names, parts, strict=True)))
    return tmp_path / "iris.npz"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_irises_at_the_default_rate_are_a_warning_and_the_scale_is_told(iris, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--iterations", "300", "--seeds", "2"]
    assert loss_curves.main(["--dataset", str(iris), "--out", str(out), *flags]) == 0
    printed = capsys.readouterr().out.splitlines()
    (line,) = (line for line in printed if line.startswith("warning: "))
    found = results(out)
    accuracy = 100 * (1 - max(found["results"]["test_error"]["values"]))
    assert accuracy <= 40
    assert f"{accuracy:.2f} % of the test examples" in line
    assert "the commonest class (40.00 %)" in line
    assert found["results"]["warnings"] == [line]
    assert any(
        "4 inputs in 0.1..7.9 (test: 0.1..6.9), which a network sees times 1" in text
        for text in printed
    )
    assert found["data"]["train_range"] == pytest.approx([0.1, 7.9])
    assert found["data"]["scale"] == 1.0


def test_the_choice_of_a_search_is_compared_with_the_commonest_class(tmp_path, capsys):
    labels = np.array([0, 0, 1] * 20)
    four = {"train_labels": labels, "test_labels": labels[:30]}
    four |= {"train_images": np.ones((60, 2)), "test_images": np.ones((30, 2))}  # nothing to learn
    np.savez(tmp_path / "equal.npz", allow_pickle=False, **four)
    flags = ["--dataset", str(tmp_path / "equal.npz"), "--out", str(tmp_path / "out")]
    flags += [
        "--configurations",
        "1",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--batch-size",
        "20",
        "--no-figures",
    ]
    assert softmax_search.main([*flags, "--folds", "3", "--no-retrain"]) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if x.startswith("warning: trial 0"))
    assert "of the validation examples right" in line
    assert "the commonest class (66.67 %)" in line
    found = results(tmp_path / "out")
    assert found["results"]["warnings"] == [line]
    assert found["data"]["classes"] == 2


def test_a_theta_no_better_than_the_rest_is_a_warning(iris, tmp_path, capsys):
    flags = ["--dataset", str(iris), "--out", str(tmp_path), "--iterations", "1", "--l2", "100"]
    assert logistic.main([*flags, "--positive-class", "1", "--seeds", "1", "--no-compare"]) == 0
    found = results(tmp_path)["results"]
    error = found["test_error"]["mean"]
    (line,) = found["warnings"]
    assert f"{100 * (1 - error):.2f} %" in line
    assert line in capsys.readouterr().out.splitlines()


def test_a_table_is_an_experiments_data_set_with_a_label_column(tmp_path, capsys):
    x, y = load_iris(return_X_y=True)
    table = pd.DataFrame(x, columns=[*"abcd"]).assign(kind=np.array(["s", "ve", "vi"])[y], row=y)
    table.to_csv(tmp_path / "iris.csv", index=False)
    out = tmp_path / "out"
    flags = ["--dataset", str(tmp_path / "iris.csv"), "--iterations", "20", "--seeds", "1"]
    assert loss_curves.main([*flags, "--label", "kind", "--out", str(out)]) == 0
    found = results(out)["data"]
    assert (found["train_examples"], found["test_examples"]) == (120, 30)
    assert found["names"] == ["s", "ve", "vi"]
    assert "120 + 30 examples, 3 classes (s, ve, vi), 5 inputs" in capsys.readouterr().out
    assert loss_curves.main([*flags, "--label", "kin", "--out", str(out)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "label is 'kin', expected a column of" in error
    assert error.endswith("did you mean 'kind'?")


def test_columns_of_several_units_are_standardised_and_said(tmp_path):
    out = tmp_path / "out"
    flags = ["--dataset", "wine", "--iterations", "300", "--seeds", "1", "--out", str(out)]
    assert loss_curves.main(flags) == 0
    assert results(out)["data"]["scale"] is None
    assert max(results(out)["results"]["test_error"]["values"]) < 0.1


def test_a_search_standardises_inside_every_fold(tmp_path, monkeypatch):
    tasks = []
    searched = softmax_search.search
    monkeypatch.setattr(
        softmax_search,
        "search",
        lambda task, *rest, **named: tasks.append(task) or searched(task, *rest, **named),
    )
    flags = ["--dataset", "wine", "--configurations", "2", "--seeds", "1", "--epochs", "10"]
    flags += ["--batch-size", "20", "--folds", "3", "--no-figures", "--no-retrain"]
    assert softmax_search.main([*flags, "--out", str(tmp_path / "out")]) == 0
    (task,) = tasks
    assert task.standardize
    assert results(tmp_path / "out")["data"]["scale"] is None


def test_real_targets_are_refused_by_an_experiment_on_classes(tmp_path, capsys):
    flags = ["--dataset", "diabetes", "--out", str(tmp_path / "out"), "--seeds", "1"]
    assert loss_curves.main(flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.endswith("--dataset is 'diabetes', expected classes: the targets are real numbers")


def test_the_shift_of_standardised_columns_reaches_the_logistic_experiment():
    train, _ = load("wine")
    _, y = load_wine(return_X_y=True)
    expected = (train.inputs - train.inputs.mean(axis=0)) / train.inputs.std(axis=0)
    with jax.enable_x64(True):
        found = logistic.binary(train, 1)
    np.testing.assert_allclose(np.asarray(found.x), expected, atol=1e-3)
    assert np.asarray(found.y).sum() == np.sum(y == 1) - round(np.sum(y == 1) / 5)


@pytest.mark.parametrize(
    ("accuracies", "targets", "expected"),
    [
        ({"a": 0.5}, [0, 1, 1, 2], ["a 50.00 %", "(50.00 %)"]),
        ({"a": 0.4, "b": 0.6, "c": 0.1}, np.eye(3)[[0, 1, 1, 2]], ["a 40.00 %, c 10.00 % of the"]),
        ({"a": 0.51}, [0, 1, 1, 2], None),
    ],
)
def test_both_figures_are_named(accuracies, targets, expected):
    lines = no_better(accuracies, targets, "test")
    assert len(lines) == (expected is not None)
    assert all(part in lines[0] for part in expected or ())
