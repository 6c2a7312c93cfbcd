"""Minibatches spread over devices, for a model that is large alone: the same training."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from numpy.testing import assert_allclose
from several_processes import SPACE, TASK, TRAIN, population, searched

from jaxnn import MLP, Hyper, Spec, evaluate, train_population
from jaxnn.devices import population_mesh
from jaxnn.population import WHOLE, check_mesh
from jaxnn.search import SpaceError, Task, choice, grid, log_uniform, search
from jaxnn.train import Layout
from jaxnn.types import Data, checked_data

pytestmark = pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")


@pytest.fixture
def mesh():
    """Two devices that share every minibatch."""
    return Mesh(np.array(jax.devices()[:2]).reshape(1, 2), ("population", "batch"))


@pytest.fixture(scope="module")
def one():
    """What one device makes of a population, in float64."""
    with jax.enable_x64(True):
        return population(population_mesh(1))["population"]


@pytest.mark.parametrize(
    ("shape", "names", "block_size"),
    [
        ((1, 2), ("population", "batch"), 1),
        pytest.param((1, 2), ("population", "batch"), 3, marks=pytest.mark.slow),
        ((2, 1), ("batch", "population"), 5),
        pytest.param((2, 1), ("population", "batch"), 3, marks=pytest.mark.slow),
    ],
)
def test_a_population_is_what_it_is_on_one_device(one, x64, shape, names, block_size):
    mesh = Mesh(np.array(jax.devices()[:2]).reshape(shape), names)
    found = population(mesh, block_size=block_size)["population"]
    for a, b in zip(found, one, strict=True):
        assert_allclose(np.array(a), np.array(b), rtol=1e-12, atol=1e-12)


def test_a_search_is_what_it_is_on_one_device(mesh, x64):
    # Minute differences grow where the learning rate is large.
    options = {"task": Task(TRAIN, epochs=2), "domains": {"learning_rate": log_uniform(0.01, 0.3)}}
    found, expected = (searched(each, **options) for each in (mesh, population_mesh(1)))
    for name in ("validation_loss", "validation_loss_std", "validation_accuracy", "copied_from"):
        columns = [[row[name] for row in each["table"]] for each in (found, expected)]
        assert_allclose(*(np.array(column, float) for column in columns), rtol=1e-12, atol=1e-12)
    for a, b in zip(found["params"], expected["params"], strict=True):
        assert_allclose(np.array(a), np.array(b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1000, 1001, 1499, 1501])
def test_evaluation_counts_every_example_once(mesh, x64, count):
    rng = np.random.default_rng(count)
    data = Data(rng.normal(size=(count, 4)), rng.integers(0, 3, count), 1.0)
    spec = Spec(model=MLP((4, 3)), steps=1, batch_size=2)
    params = spec.model.init(jax.random.key(0))
    logits = data.inputs @ np.asarray(params[0].weight).T + np.asarray(params[0].bias)
    surprise = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(count), data.targets]

    def spread(params, data):
        return evaluate(spec, params, data, Layout("batch"))

    specs = {"in_specs": (WHOLE, WHOLE), "out_specs": WHOLE}
    program = jax.jit(jax.shard_map(spread, mesh=mesh, **specs, check_vma=False))
    found = program(params, data)
    assert_allclose(found.loss, surprise.mean(), rtol=1e-12)
    assert_allclose(found.error, (logits.argmax(axis=1) != data.targets).mean(), rtol=1e-12)


@pytest.mark.parametrize("count", [499, 500, 1001, 1501])
@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_and_weights_are_those_of_all_devices(mesh, x64, count, weighted):
    rng = np.random.default_rng(count)
    data = Data(rng.normal(size=(count, 4)), rng.integers(0, 3, count), weights=rng.random(count))
    spec = Spec(MLP((4, 3)), steps=1, metrics=("roc_auc", "f1_macro"), weighted=weighted)
    params = spec.model.init(jax.random.key(0))
    expected = evaluate(spec, params, data)

    def spread(params, data):
        return evaluate(spec, params, data, Layout("batch"))

    specs = {"in_specs": (WHOLE, WHOLE), "out_specs": WHOLE}
    program = jax.jit(jax.shard_map(spread, mesh=mesh, **specs, check_vma=False))
    found = program(params, checked_data([("test", data)])[0])
    for name, value in expected.by_name().items():
        assert_allclose(found.by_name()[name], value, rtol=1e-12)


def test_a_loss_that_is_not_finite_on_one_device_is_noticed_by_all(mesh):
    inputs = TRAIN.inputs.astype(np.float32)
    inputs[5] = 3e38  # in one minibatch of six, on one of the two devices
    data = Data(inputs, TRAIN.targets, TRAIN.scale)
    spec = Spec(model=MLP((12, 6, 3)), steps=6, batch_size=20)
    keys = jax.random.split(jax.random.key(0), 8)
    found, expected = (
        train_population(spec, Hyper(0.1), keys, data, mesh=each, block_size=1)
        for each in (mesh, population_mesh(1))
    )
    assert len(set(expected.diverged_at[:, 0].tolist())) > 2
    np.testing.assert_array_equal(found.diverged_at, expected.diverged_at)
    assert np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(found.params)])).all()


def test_a_minibatch_that_cannot_be_spread_is_refused(mesh):
    spec = Spec(model=MLP((12, 3)), steps=1, batch_size=25)
    message = "^batch_size is 25, expected a multiple of the mesh's 2 devices along 'batch'$"
    with pytest.raises(ValueError, match=message):
        train_population(spec, Hyper(0.1), jax.random.key(0), TRAIN, mesh=mesh)


def test_a_search_refuses_it_before_anything_is_trained_or_written(mesh, tmp_path):
    space = SPACE | {"batch_size": choice(20, 25)}
    with pytest.raises(SpaceError, match="batch_size is 25, expected a multiple of the mesh's 2"):
        search(TASK, space, method=grid(2), key=jax.random.key(0), mesh=mesh, folder=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "names", [("batch",), ("data",), ("population", "model"), ("batch", "data")]
)
def test_other_axes_are_refused(names):
    devices = np.array(jax.devices()[:1]).reshape((1,) * len(names))
    mesh = Mesh(devices, names)
    message = r"^mesh has the axes \(.*\), expected 'population', with or without 'batch'$"
    spec = Spec(model=MLP((12, 3)), steps=1)
    for attempt in (
        lambda: check_mesh(mesh),
        lambda: train_population(spec, Hyper(0.1), jax.random.key(0), TRAIN, mesh=mesh),
        lambda: search(TASK, SPACE, method=grid(2), key=jax.random.key(0), mesh=mesh),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
