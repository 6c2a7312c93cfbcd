"""Convolutional networks in populations and searches: one after another, in XLA's order of axes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnn import MLP, Data, Hyper, Network, Spec, population, train_population, train_step
from jaxnn.population import default_block_size
from jaxnn.search import RunFolderError, Task, fixed, log_uniform, random, search
from jaxnn.train import State, _in_order

rng = np.random.default_rng(0)
IMAGES = Data(
    rng.integers(0, 256, (40, 36)).astype(np.uint8), rng.integers(0, 3, 40), np.float32(1 / 255)
)


class Small(nn.Module):
    """Two convolutions, the second strided, dilated or grouped, and a dense layer."""

    settings: tuple = ()

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.tanh(nn.Conv(6, (3, 2), **dict(self.settings))(x))
        return nn.Dense(3)(x.reshape(len(x), -1))


def network(module=None):
    module = module or Small()
    return Network(
        lambda key: module.init(key, jnp.zeros((1, 6, 6, 1))),
        lambda params, x: module.apply(params, x.reshape(1, 6, 6, 1))[0],
    )


SPEC = Spec(network(), steps=3, batch_size=8)
KEY = jax.random.key(0)


def by_definition(module, rate, steps, start, batches):
    """SGD by Flax and optax alone."""

    @jax.jit
    @jax.grad
    def slopes(params, x, y):
        logits = module.apply(params, x.reshape(-1, 6, 6, 1))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    params = start
    for x, y in batches[:steps]:
        params = jax.tree.map(lambda p, g: p - rate * g, params, slopes(params, x, y))
    return params


@pytest.mark.parametrize(
    "settings",
    [(), (("strides", 2),), (("kernel_dilation", 2),), (("feature_group_count", 2),)],
    ids=lambda settings: settings[0][0] if settings else "plain",
)
def test_a_step_is_the_step_of_flax_and_optax(settings):
    module = Small(settings)
    start = module.init(KEY, jnp.zeros((1, 6, 6, 1)))
    x, y = IMAGES.inputs[:8] / np.float32(255), jnp.asarray(IMAGES.targets[:8])
    state = State(start, optax.sgd(0.1).init(start), jnp.int32(0), jnp.int32(-1))
    spec = Spec(network(module), steps=1, batch_size=8)
    found, _ = train_step(spec, Hyper(0.1), state, (jnp.asarray(x), y))
    expected = by_definition(module, 0.1, 1, start, [(jnp.asarray(x), y)])
    for a, b in zip(*map(jax.tree.leaves, (found.params, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_convolutions_of_a_gradient_have_the_axes_in_the_order_for_which_xla_has_code(layout):
    kernel = jnp.ones((3, 3, 2, 4) if layout == "NHWC" else (4, 2, 3, 3))
    orders = (layout, "HWIO" if layout == "NHWC" else "OIHW", layout)
    names: Any = {"dimension_numbers": orders}
    x = jnp.arange(2 * 5 * 5 * 2.0).reshape((2, 5, 5, 2) if layout == "NHWC" else (2, 2, 5, 5))

    def value(kernel):
        found = jax.jit(lambda k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", **names))
        return jnp.sum(found(kernel) ** 2)

    slope = jax.grad(value)
    program = jax.make_jaxpr(lambda kernel: _in_order(slope, kernel))(kernel)
    found = [
        tuple(map(tuple, equation.params["dimension_numbers"]))
        for equation in program.jaxpr.eqns
        if equation.primitive.name == "conv_general_dilated"
    ]
    assert len(found) >= 2
    assert set(found) == {((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}
    np.testing.assert_allclose(_in_order(slope, kernel), slope(kernel), rtol=1e-5)


def test_a_function_without_kernels_is_left_alone():
    params = MLP((4, 3)).init(KEY)
    found = jax.make_jaxpr(lambda p: _in_order(lambda p: p[0].weight * 2, p))(params)
    assert str(found) == str(jax.make_jaxpr(lambda p: p[0].weight * 2)(params))


def test_a_block_on_a_cpu_has_no_grouped_convolutions(monkeypatch):
    programs, trace = [], population.trace_once

    def traced(*program):
        programs.append(trace(*program))
        return programs[-1]

    monkeypatch.setattr(population, "trace_once", traced)
    train_population(SPEC, Hyper(np.array([0.1, 0.2])), [0], IMAGES, block_size=2)
    text = programs[0].lowered.as_text()
    assert "feature_group_count = 1 " in text
    assert "feature_group_count = 2 " not in text


def test_a_device_trains_one_model_at_a_time_on_a_cpu_alone():
    assert {default_block_size(SPEC, "cpu", count) for count in (1, 64)} == {1}
    assert default_block_size(SPEC, "gpu", 64) == 64


@pytest.mark.parametrize("block_size", [None, 2])
def test_members_are_what_they_are_when_trained_alone_whatever_the_block(block_size):
    rates = [0.05, 0.2, 0.4]
    found = train_population(
        SPEC, Hyper(np.array(rates)), [0], IMAGES, block_size=block_size
    ).params
    alone = [
        train_population(SPEC, Hyper(np.array([rate])), [0], IMAGES, block_size=1).params
        for rate in rates
    ]
    for k, each in enumerate(alone):
        for a, b in zip(*map(jax.tree.leaves, (found, each)), strict=True):
            np.testing.assert_allclose(a[:, k], b[:, 0], rtol=1e-5, atol=1e-7)


def test_a_search_trains_convolutional_networks_in_blocks_of_the_given_size(tmp_path):
    task = Task(IMAGES, epochs=2, measure="loss", model=lambda: SPEC.model)
    space = {"learning_rate": log_uniform(1e-3, 0.5), "batch_size": fixed(8)}
    where = {"method": random(4), "key": 3, "folder": tmp_path / "search"}
    found = search(task, space, block_size=2, **where)
    default = search(task, space, method=random(4), key=3)
    for a, b in zip(found.table, default.table, strict=True):
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=1e-5)
    again = search(task, space, block_size=2, **where)
    assert again.table == found.table
    with pytest.raises(RunFolderError, match="block_size"):
        search(task, space, block_size=4, **where)
