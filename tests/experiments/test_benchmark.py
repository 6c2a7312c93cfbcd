"""The benchmark: what it counts, what it writes. No timing is asserted."""

import json

import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmark import flops_per_step, mnist_shaped
from jaxnn import Data


def test_floating_point_operations_are_those_of_the_matrix_products():
    # 784-10: forward and weight gradient, 2 * 100 * 784 * 10 each.
    assert flops_per_step((784, 10)) == 2 * 1_568_000
    # 784-50-50-10: the same for 42,200 weights, and the gradient to two layers' inputs.
    assert flops_per_step((784, 50, 50, 10)) == 2 * 200 * 42_200 + 200 * 3_000


def test_small_images_are_enlarged_and_repeated():
    images = np.arange(3 * 64, dtype=np.uint8).reshape(3, 64)
    data = mnist_shaped(Data(images, np.array([4, 5, 6]), 1 / 16))
    inputs, targets = np.asarray(data.inputs), np.asarray(data.targets)
    assert inputs.shape == (60_000, 784)
    assert inputs.dtype == np.uint8
    assert targets[:5].tolist() == [4, 5, 6, 4, 5]
    picture = inputs[1].reshape(28, 28)
    assert (picture[2:5, 2:5] == 64).all()  # the first pixel, three by three, inside the margin
    assert picture[:2].sum() == 0


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the images have 900 pixels, expected 784"):
        mnist_shaped(Data(np.zeros((2, 900), np.uint8), np.zeros(2), 1.0))


def test_results_have_every_population(tmp_path):
    assert benchmark.main(["--seeds", "1", "--largest", "1", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert results["peak_gflops"] > 0
    for network in ("softmax", "mlp"):
        row = results["population"][network]["1"]
        assert row["share_of_peak"] > 0
        assert row["microseconds_per_model_step"] > 0
        assert row["compile_seconds"] > 0
    assert (tmp_path / "share_of_peak.png").read_bytes().startswith(b"\x89PNG")
