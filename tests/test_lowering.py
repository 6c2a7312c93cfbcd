"""No accelerator is needed to know that the programs of training lower for every platform."""

import jax
import numpy as np
import pytest
from jax import export

from jaxnn import MLP, Hyper, Spec, population, train, train_population
from jaxnn.devices import population_mesh
from jaxnn.optimizers import hyper_class

PLATFORMS = ("cpu", "cuda", "tpu")
KEY = jax.random.key(0)
PROGRAMS = [
    ("sgd", "constant", Hyper(0.1, clip=1.0)),
    ("momentum", "cosine", Hyper(0.1)),
    ("adam", "warmup_cosine", Hyper(0.1)),
    ("rmsprop", "step", hyper_class("rmsprop")(0.1)),
]


_SLOW = {"momentum": [pytest.mark.slow]}


@pytest.fixture(params=[pytest.param(p, id=p[0], marks=_SLOW.get(p[0], [])) for p in PROGRAMS])
def program(request):
    """A spec with hyperparameters."""
    optimizer, schedule, hyper = request.param
    model = MLP((12, 40, 3))
    return Spec(model, 20, batch_size=20, optimizer=optimizer, schedule=schedule), hyper


def test_one_training_lowers(program, pixels):
    spec, hyper = program

    def train_from(words, hyper, data):
        return train(spec, hyper, jax.random.wrap_key_data(words), data)[0].params

    arguments = jax.tree.map(np.asarray, (jax.random.key_data(KEY), hyper, pixels))
    exported = export.export(jax.jit(train_from), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    assert [leaf.shape for leaf in exported.out_avals] == [(40, 12), (40,), (3, 40), (3,)]


class TracedError(Exception):
    """The population's program is known; nothing has to be compiled."""


@pytest.mark.parametrize("block_size", [1, 4])
def test_a_population_lowers(program, pixels, block_size, monkeypatch):
    spec, hyper = program
    traced = []

    def stop(*given):
        traced.append(given)
        raise TracedError

    monkeypatch.setattr(population, "trace_once", stop)
    hyper = hyper._replace(learning_rate=np.geomspace(0.01, 0.1, 4))
    with pytest.raises(TracedError):
        train_population(spec, hyper, KEY, pixels, block_size=block_size, mesh=population_mesh(1))
    ((build, static, signature),) = traced
    arguments = jax.tree.unflatten(*signature[:2])
    exported = export.export(build(*static), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    assert [leaf.shape[:2] for leaf in exported.out_avals] == [(1, block_size)] * 7
