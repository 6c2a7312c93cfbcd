"""The experiment on convolutional networks: the contract, refusals, and MNIST."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments import convolution
from jaxnn.data import load
from jaxnn.saved_model import load_model

REAL = os.environ.get("JAXNN_DATA") or "(not set)"
SMALL = ["--configurations", "2", "--epochs", "2", "--channels", "4", "--batch-size", "50"]


def run(out, *flags):
    status = convolution.main([*flags, "--out", str(out)])
    return status, json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_results_say_what_was_chosen_and_the_module_is_saved(tmp_path):
    status, written = run(tmp_path, *SMALL)
    assert status == 0
    results = written["results"]
    assert (results["trials"], results["programs"], results["test"]["reads"]) == (2, 1, 1)
    assert 0.3 < results["test"]["accuracy"] < 1
    model = load_model(tmp_path / "model", convolution.ConvNet(10, (4,)))
    test = load("digits", flatten=False).test
    right = model.predict(np.asarray(test.inputs)) == test.targets
    assert right.mean() == pytest.approx(results["test"]["accuracy"])
    assert (tmp_path / "learning_curves.png").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--channels", "0"], "--channels is (0,), expected positive whole numbers"),
        (["--configurations", "0"], "--configurations is 0, expected at least 1"),
        (
            ["--l2", "1", "0.1"],
            "--l2 is (1.0, 0.1), expected two positive numbers, the smaller one first",
        ),
        (
            ["--dataset", "iris"],
            "--dataset is 'iris', expected images of at least 4 x 4, found 4",
        ),
        (
            ["--channels", "2", "2", "2", "2"],
            "--dataset is 'digits', expected images of at least 16 x 16, found 8 x 8 x 1",
        ),
    ],
)
def test_bad_flags_are_refused_in_a_line(tmp_path, capsys, flags, message):
    assert convolution.main([*flags, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"experiments.convolution: {message}\n"


@pytest.mark.slow
@pytest.mark.skipif(not (Path(REAL) / "mnist").is_dir(), reason=f"JAXNN_DATA is {REAL!r}, no mnist")
def test_a_small_network_reads_mnist_with_an_accuracy_of_985(tmp_path):
    rate = "0.004"  # the best of the eight configurations of `python -m experiments.convolution`
    given = (
        "--dataset",
        "mnist",
        "--data-dir",
        REAL,
        "--configurations",
        "1",
        "--learning-rate",
        rate,
        rate,
    )
    status, written = run(tmp_path, *given)
    assert status == 0
    assert written["results"]["test"]["accuracy"] >= 0.985
