"""Modules of Flax linen, Flax nnx and Equinox as models, without hand-made pairs of functions."""

# Wrong types are a subject of the file.
# pyright: reportArgumentType=false

import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxnn import Data, Hyper, Network, Spec, Variables, evaluate, train, train_population
from jaxnn.modules import is_module, network
from jaxnn.search import Task, choice, fixed, random, search
from jaxnn.spec import own_hyper

KEY = jax.random.key(0)
DRAWS = np.random.default_rng(0)
INPUTS = DRAWS.normal(size=(40, 5)).astype(np.float32)
TARGETS = (INPUTS @ DRAWS.normal(size=5) > 0).astype(np.int32)
DATA = Data(INPUTS, TARGETS)


class Linen(linen.Module):
    """Batch normalisation and dropout."""

    rate: float = 0.3

    @linen.compact
    def __call__(self, x, training):
        x = linen.BatchNorm(use_running_average=not training)(linen.Dense(8)(x))
        x = linen.Dropout(self.rate, deterministic=not training)(linen.relu(x))
        return linen.Dense(2)(x)


class Convolution(linen.Module):
    """Images of minibatches alone: the reshape keeps the axis of examples."""

    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(2, (3, 3))(x))
        return linen.Dense(2)(x.reshape(len(x), -1))


class OneExample(linen.Module):
    """An image at a time."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(linen.relu(linen.Conv(2, (3, 3))(x)).ravel())


class Mixing(linen.Module):
    """Centred by the minibatch, in evaluation as well."""

    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(x - x.mean(0))


class Noisy(linen.Module):
    """Random numbers in evaluation."""

    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=False)(linen.Dense(2)(x))


class Nnx(nnx.Module):
    """Batch normalisation and dropout; ``train()`` and ``eval()`` switch both."""

    def __init__(self, rngs, rate=0.3):
        self.first, self.last = nnx.Linear(5, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


class Equinox(eqx.Module):
    """Batch normalisation over the axis of a minibatch, and dropout."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key, rate=0.3):
        first, last = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(5, 8, key=first), eqx.nn.Linear(8, 2, key=last)
        self.norm, self.drop = eqx.nn.BatchNorm(8, "rows", mode="batch"), eqx.nn.Dropout(rate)

    def __call__(self, x, state, key=None):
        x, state = self.norm(self.first(x), state)
        return self.last(self.drop(jax.nn.relu(x), key=key)), state


def plain(key):
    return eqx.nn.MLP(5, 2, 8, 1, key=key)


KINDS = {
    "linen": Linen(),
    "nnx": lambda rngs: Nnx(rngs),
    "nnx_class": Nnx,
    "nnx instance": Nnx(nnx.Rngs(0)),
    "equinox": lambda key: Equinox(key),
    "equinox instance": Equinox(KEY),
    "equinox pair": eqx.nn.make_with_state(Equinox)(KEY),
}


def mean_loss(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, TARGETS).mean()


def after_one_step(model):
    """The variables after a step of gradient descent on all examples, and the first loss."""
    spec = Spec(model, steps=1, batch_size=40, evaluate_at=(0,))
    state, history = train(spec, Hyper(0.5), KEY, DATA)
    return state.params, history.metrics["train"].loss[0]


def descended(params, gradient):
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)


def close(found, expected):
    found, expected = (jax.tree.leaves(tree) for tree in (found, expected))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-6)


def test_a_linen_module_trains_as_the_hand_made_pair():
    module = Linen()

    def init(key):
        variables = module.init(key, jnp.zeros((1, 5)), training=False)
        return Variables(variables["params"], {"batch_stats": variables["batch_stats"]})

    def apply(params, x, key, training):
        variables = {"params": params.params, **params.statistics}
        if not training:
            return module.apply(variables, x, training=False)
        rngs = {"dropout": key}
        return module.apply(variables, x, training=True, mutable=["batch_stats"], rngs=rngs)

    runs = [
        train(Spec(model, 6, batch_size=20, evaluate_at=(0, 3)), Hyper(0.1), KEY, DATA)
        for model in (module, Network(init, apply, batched=True))
    ]
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_an_nnx_module_takes_the_step_of_nnx():
    model = Nnx(nnx.Rngs(1), rate=0.0)
    variables, first = after_one_step(model)
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        whole = nnx.merge(graph, params, jax.tree.map(jnp.asarray, rest))
        return mean_loss(whole(INPUTS)), nnx.state(whole, nnx.BatchStat)

    gradient, statistics = jax.jit(jax.grad(loss, has_aux=True))(params)
    close(variables, Variables(descended(params, gradient), statistics))
    model.eval()
    close(first, mean_loss(model(INPUTS)))


def test_an_equinox_module_takes_the_step_of_equinox():
    model, state = eqx.nn.make_with_state(Equinox)(KEY, rate=0.0)
    variables, first = after_one_step((model, state))
    params, others = eqx.partition(model, eqx.is_inexact_array)

    def run(model, state):
        over = jax.vmap(lambda x: model(x, state, KEY), out_axes=(0, None), axis_name="rows")
        return over(INPUTS)

    before = mean_loss(run(eqx.nn.inference_mode(model), jax.tree.map(jnp.asarray, state))[0])

    def loss(params):
        logits, new = run(eqx.combine(params, others), state)
        return mean_loss(logits), new

    gradient, statistics = jax.jit(jax.grad(loss, has_aux=True))(params)
    close(variables, (descended(params, gradient), statistics))
    close(first, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_draws_anew_for_a_seed_and_an_instance_keeps_the_parameters(kind):
    model = network(KINDS[kind], 5)
    first, second = (jax.tree.leaves(model.init(jax.random.key(n)).params) for n in (0, 1))
    equal = all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert equal == (" " in kind)


@pytest.mark.parametrize("kind", KINDS)
def test_random_numbers_and_statistics_belong_to_training_alone(kind):
    model = network(KINDS[kind], 5)
    params = model.init(KEY)
    keys = [jax.random.key(n) for n in (1, 2)]
    (one, new), (two, _) = (model.apply(params, INPUTS, key=k, training=True) for k in keys)
    assert model.batched
    assert one.shape == two.shape == (40, 2)
    assert not np.array_equal(one, two)
    changed = zip(*map(jax.tree.leaves, (new, params.statistics)), strict=True)
    assert any(not np.array_equal(*pair) for pair in changed)
    several = [model.apply(params, INPUTS[:n], training=False) for n in (40, 3)]
    np.testing.assert_allclose(several[0][:3], several[1], atol=1e-6)


@pytest.mark.parametrize(
    ("model", "shape", "batched"),
    [
        (Convolution(), (6, 6, 1), True),
        (OneExample(), (6, 6, 1), False),
        (linen.Dense(2), (5,), True),
        (lambda rngs: nnx.Linear(5, 2, rngs=rngs), (5,), True),
        (plain, (5,), False),
        (eqx.nn.Conv2d(1, 2, 6, key=KEY), (1, 6, 6), None),
    ],
)
def test_the_kind_of_a_module_is_found_by_trying(model, shape, batched):
    if batched is None:
        with pytest.raises(ValueError, match=r"takes neither .* expected logits"):
            network(model, shape)
    else:
        assert network(model, shape).batched == batched


def test_a_number_for_an_example_is_a_row_of_a_number():
    class Number(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(x).squeeze(-1)

    model = network(Number(), 5)
    assert model.batched
    assert model.apply(model.init(KEY), INPUTS, training=False).shape == (40, 1)


def test_a_list_of_layers_is_a_part_of_equal_modules():
    def make():
        return linen.Sequential([linen.Sequential([linen.Dense(3)]), linen.relu, linen.Dense(2)])

    model = network(make(), 5)
    assert model is network(make(), 5)
    params = model.init(KEY)
    expected = make().apply({"params": params}, INPUTS)
    np.testing.assert_array_equal(model.apply(params, INPUTS, training=False), expected)


def test_a_module_of_one_example_may_be_named_as_such():
    model = network(Mixing(), 5, batched=False)
    params = model.init(KEY)
    expected = (INPUTS - INPUTS.mean(1, keepdims=True)) @ params["Dense_0"]["kernel"]
    found = jax.vmap(lambda x: model.apply(params, x, training=False))(INPUTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_modules_share_a_network():
    assert network(Linen(0.1), 5) is network(Linen(0.1), (5,))
    assert network(Linen(0.1), 5) is not network(Linen(0.2), 5)
    assert network(Nnx(nnx.Rngs(3)), 5) is network(Nnx(nnx.Rngs(3)), 5)
    assert network(Nnx(nnx.Rngs(3)), 5) is not network(Nnx(nnx.Rngs(4)), 5)
    assert network(plain(KEY), 5) is network(plain(KEY), 5)


def test_an_instance_counts_as_found_when_the_spec_is_made():
    model = Nnx(nnx.Rngs(0))
    spec = Spec(model, steps=1, batch_size=40, evaluate_at=(0,))
    expected = np.asarray(model.last.kernel[...])
    model.last.kernel[...] = jnp.zeros((8, 2))
    params = train(spec, Hyper(1e-9), KEY, DATA)[0].params.params
    np.testing.assert_allclose(params["last"]["kernel"][...], expected, atol=1e-6)


def test_numbers_in_the_call_are_traced_hyperparameters():
    class Scaled(linen.Module):
        @linen.compact
        def __call__(self, x, *, train=False, temperature=1.0, width=None):
            return linen.Dense(2)(x) / temperature

    model = network(Scaled(), 5)
    assert own_hyper(Spec(model, 1, loss="squared_error")) == {"temperature": 1.0}
    params = model.init(KEY)
    halves = model.apply(params, INPUTS, training=False, temperature=2.0)
    np.testing.assert_allclose(halves * 2, model.apply(params, INPUTS, training=False))


def test_the_flag_of_training_may_be_a_field():
    class Field(linen.Module):
        train: bool = True

        @linen.compact
        def __call__(self, x):
            return linen.Dropout(0.5, deterministic=not self.train)(linen.Dense(2)(x))

    model = network(Field(), 5)
    params = model.init(KEY)
    expected = Field(train=False).apply({"params": params}, INPUTS)
    np.testing.assert_array_equal(model.apply(params, INPUTS, training=False), expected)


@pytest.mark.parametrize(
    "kind", ["linen", *(pytest.param(k, marks=pytest.mark.slow) for k in list(KINDS)[1:])]
)
def test_a_population_and_a_search_train_a_module(kind):
    spec = Spec(KINDS[kind], steps=30, batch_size=20, optimizer="adam")
    population = train_population(spec, Hyper([0.05, 1e-6]), [0, 1], DATA)
    errors = population.metrics["train"].error[:, :, -1]
    assert (errors[:, 0] < 0.2).all()
    chosen = jax.tree.map(lambda leaf: leaf[1, 0], population.params)
    assert evaluate(spec, chosen, DATA).error == pytest.approx(errors[1, 0])
    space = {"learning_rate": choice(0.05, 0.01), "batch_size": fixed(10)}
    task = Task(DATA, DATA, epochs=4, model=KINDS[kind])
    found = search(task, space, method=random(2), key=0)
    assert found.programs == 1
    assert found.best.validation_accuracy > 0.6
    assert isinstance(found.params, Variables)


@pytest.mark.parametrize("kind", [Nnx, partial(Nnx, rate=0.3), lambda rngs: Nnx(rngs)])
def test_functions_and_classes_of_nnx_make_modules_from_rngs(kind):
    assert is_module(kind)
    logits = network(kind, 5).apply(network(kind, 5).init(KEY), jnp.zeros((3, 5)))
    assert logits.shape == (3, 2)
    assert not is_module(partial(nnx.Linear, 5))  # the number of outputs is missing


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda width: linen.Sequential([linen.Dense(width), linen.relu, linen.Dense(2)]),
        lambda width, rngs: nnx.Linear(5, 2, use_bias=width > 4, rngs=rngs),
        lambda width, key: eqx.nn.MLP(5, 2, width, 1, key=key),
    ],
)
def test_a_search_gives_values_to_the_function_of_a_module(make):
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(10), "width": choice(4, 8)}
    task = Task(DATA, epochs=3, model=make, model_parameters=("width",))
    found = search(task, space, method=random(4), key=1)
    assert {row["width"] for row in found.table} == {4, 8}


def test_images_keep_the_shape():
    images = DRAWS.integers(0, 255, (30, 6, 6, 1)).astype(np.uint8)
    data = Data(images, np.arange(30) % 2, 1 / 255)
    state, history = train(Spec(Convolution(), 1, batch_size=30), Hyper(0.1), KEY, data)
    assert state.params["Conv_0"]["kernel"].shape == (3, 3, 1, 2)
    assert np.isfinite(history.metrics["train"].loss).all()


def test_no_library_of_modules_is_imported_without_a_module():
    program = (
        "import sys, jaxnn; jaxnn.Spec(jaxnn.MLP((4, 3)), 1);"
        "sys.exit(bool({'flax', 'equinox'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


IMAGES = Data(np.ones((20, 6, 6), np.float32), np.zeros(20, int))


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (Convolution(), IMAGES, "Convolution changes .* expected running .* images .N, H, W"),
        (
            Mixing(),
            DATA,
            r"Mixing changes the output of .*network.module, shape, batched=False.",
        ),
        (Noisy(), DATA, "Noisy takes neither .*: random numbers are drawn in evaluation"),
        (lambda key: plain(key), IMAGES, r"takes neither .* \[B, 6, 6\] nor an example \[6, 6\]: "),
        (lambda key: key, DATA, "the function .* returns .*, expected a module of Flax nnx or"),
        (linen.Dense(3), DATA._replace(targets=TARGETS + 5), "targets hold 5, expected 0..2"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_in_a_line(model, data, message):
    spec = Spec(model, steps=1, batch_size=5)
    for call in (partial(train, spec, Hyper(0.1), KEY, data), partial(evaluate, spec, {}, data)):
        with pytest.raises(ValueError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Spec(Linen, 1), "model is <class .*Linen'>, expected .* a module of Flax or"),
        (lambda: Spec(lambda width: Linen(), 1), "model is <function .*, expected .* rngs or key"),
        (lambda: Spec(lambda rngs, width: Linen(), 1), "model is <function .*, expected .* key"),
        (lambda: network(3, 4), "module is 3, expected a module of Flax or Equinox"),
        (lambda: network(Linen(), "ab"), "shape is 'ab', expected a positive integer"),
        (lambda: network(Linen(), (5, 0)), "shape is 0, expected a positive integer"),
        (lambda: Spec(Linen(np.ones(3)), 1), "Linen has a field without a hash, expected numb"),
        (lambda: Spec(Linen(), 1).model.init(KEY), "Linen is initialised from the shape of an"),
        (
            lambda: Task(DATA, model=Linen(), model_parameters="rate"),
            "model is a module and takes no 'rate', expected a function of model_parameters",
        ),
    ],
)
def test_no_module_is_refused_in_a_line(make, message):
    with pytest.raises((TypeError, ValueError), match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
