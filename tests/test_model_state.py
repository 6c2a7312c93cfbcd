"""State among the parameters of a model, such as running statistics, is refused by name."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxnn import Data, Hyper, Network, Spec, train, train_population
from jaxnn.search import Task, fixed, random, search
from jaxnn.train import check_parameters

KEY = jax.random.key(0)
GOOD = Data(np.arange(80).reshape(20, 4).astype(np.uint8), np.arange(20) % 3, 1 / 255)


def spec(model):
    return Spec(model, steps=2, batch_size=5)


class LinenBatchNorm(linen.Module):
    """A network with running statistics."""

    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=True)(linen.Dense(3)(x))


class NnxBatchNorm(nnx.Module):
    """A network with running statistics."""

    def __init__(self, rngs):
        self.dense, self.norm = nnx.Linear(4, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.dense(x), use_running_average=True)


def linen_variables(key):
    return LinenBatchNorm().init(key, jnp.zeros(4))


def nnx_state(key):
    return nnx.state(NnxBatchNorm(nnx.Rngs(key)))


def fake(name, module):
    """A class of a package that need not be installed, registered as a tree of a leaf."""
    made = type(name, (), {"__module__": module})
    jax.tree_util.register_pytree_node(made, lambda _: ((jnp.ones(3),), None), lambda *_: made())
    return made()


STATEFUL = [
    (linen_variables, "the collection 'batch_stats'"),
    (lambda key: {"net": linen_variables(key)}, "the collection 'batch_stats'"),
    (lambda key: {"params": linen_variables(key)["params"], "cache": {}}, "the collection 'cache'"),
    (nnx_state, "a flax.nnx.BatchStat"),
    (lambda key: nnx.to_pure_dict(nnx_state(key)), "the running statistics 'mean' and 'var'"),
    (lambda _: (jnp.ones((3, 4)), fake("State", "equinox.nn._stateful")), "an equinox.nn.State"),
    (lambda _: (jnp.ones((3, 4)), jnp.zeros(3, jnp.int32)), r"int32 numbers at \[1\]"),
    (lambda key: (jnp.ones((3, 4)), key), r"key<fry> numbers at \[1\]"),
]


@pytest.mark.parametrize(("init", "named"), STATEFUL)
@pytest.mark.parametrize("run", ["train", "train_population", "search"])
def test_state_among_the_parameters_is_refused_by_name(run, init, named):
    model = Network(init, lambda params, x: x[:3])
    expected = f"the model's init returns {named} among the parameters, .* such as LayerNorm or"
    if run == "search":
        task = Task(GOOD, epochs=1, model=lambda: model)
        space = {"learning_rate": fixed(0.1), "batch_size": fixed(5)}
        call = partial(search, task, space, method=random(1), key=KEY)
    elif run == "train":
        call = partial(train, spec(model), Hyper(0.1), KEY, GOOD)
    else:
        keys = jax.random.split(KEY, 1)
        call = partial(train_population, spec(model), Hyper(0.1), keys, GOOD)
    with pytest.raises(ValueError, match=expected) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "init",
    [
        lambda key: {"params": linen_variables(key)["params"]},
        lambda key: nnx.state(NnxBatchNorm(nnx.Rngs(key)), nnx.Param),
        lambda _: {"mean": jnp.ones(3), "var": jnp.ones(3)},
    ],
)
def test_parameters_alone_are_no_state(init):
    check_parameters(jax.eval_shape(init, KEY))
