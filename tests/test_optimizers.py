"""Optimizers and schedules by name: what optax does, with traced hyperparameters."""

import subprocess
import sys
from typing import Any, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn.population
from jaxnn import MLP, Data, Hyper, Spec, init_state, objective, train, train_population, train_step
from jaxnn.optimizers import defaults, hyper_class, reads, schedule
from jaxnn.search import Space, fixed
from jaxnn.spec import optimizer_at
from jaxnn.train import checked
from jaxnn.types import OptimizerName

KEY = jax.random.key(5)
MODEL = MLP((12, 4, 3))
NAMES = ("adamw", "rmsprop", "lion", "adagrad", "adadelta", "lamb", "lars", "nadamw", "yogi")

slopes = jax.jit(jax.grad(objective, argnums=1, has_aux=True), static_argnums=0)


def by_optax(optimizer, batches, l2, clip=None):
    """The parameters after updates by optax alone."""
    spec = Spec(MODEL, steps=len(batches))
    params = init_state(spec, Hyper(0.1), KEY).params
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for batch in batches:
        gradient, _ = slopes(spec, params, l2, batch)
        if clip is not None:
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
            gradient = jax.tree.map(lambda g, n=norm: g * min(1, clip / n), gradient)
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def by_jaxnn(optimizer, hyper, batches):
    spec = Spec(MODEL, steps=len(batches), optimizer=optimizer)
    state, step = init_state(spec, hyper, KEY), jax.jit(train_step, static_argnums=0)
    for batch in batches:
        state, _ = step(spec, hyper, state, batch)
    return state.params


@pytest.fixture
def batches(pixels):
    inputs, targets = jnp.asarray(pixels.inputs / 255), jnp.asarray(pixels.targets)
    return [(inputs[i : i + 20], targets[i : i + 20]) for i in range(0, 100, 20)]


def assert_close(found, expected, rtol=1e-9):
    for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("adamw", "lion", "lars") else pytest.param(name, marks=pytest.mark.slow)
        for name in NAMES
    ],
)
def test_an_optimizer_of_optax_is_optax_at_the_values_of_the_hyperparameters(x64, batches, name):
    make = getattr(optax, name)
    found = by_jaxnn(name, Hyper(0.05, l2=0.01), batches)
    assert_close(found, by_optax(make(0.05), batches, 0.01))
    values = {n: 0.4 if v is None else v * 0.9 for n, v in defaults(name).items()}
    found = by_jaxnn(name, hyper_class(name)(0.05, l2=0.01, **values), batches)
    assert_close(found, by_optax(make(0.05, **values), batches, 0.01))


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_is_optax_sgd_behind_a_barrier(x64, batches, nesterov):
    name = "nesterov" if nesterov else "momentum"
    for momentum, hyper in ((0.7, Hyper(0.05, momentum=0.7)), (0.9, Hyper(0.05))):
        expected = by_optax(optax.sgd(0.05, momentum, nesterov), batches, 0.0)
        assert_close(by_jaxnn(name, hyper, batches), expected)
    optimizer = optimizer_at(Spec(MODEL, 1, optimizer=name), Hyper(0.1), jnp.int32(0))
    params = jnp.ones(3)
    program = jax.make_jaxpr(optimizer.update)(params, optimizer.init(params), params)
    assert "optimization_barrier" in str(program)


@pytest.mark.parametrize("clip", [0.01, 1.0, 1e6])
def test_the_gradient_is_clipped_by_its_global_norm(x64, batches, clip):
    found = by_jaxnn("sgd", Hyper(0.5, l2=0.1, clip=clip), batches)
    assert_close(found, by_optax(optax.sgd(0.5), batches, 0.1, clip), rtol=1e-7)


def test_a_population_traces_every_scalar_of_the_optimizer_and_the_clip(pixels):
    spec = Spec(MODEL, steps=5, batch_size=20, optimizer="rmsprop")
    compiled = jaxnn.population.trace_once.cache_info().misses
    for decay, clip in ((0.5, 1.0), (0.9, 0.1)):
        rates = np.array([0.01, 0.1])
        hyper = hyper_class("rmsprop")(rates, decay=decay, clip=np.array([clip, 2 * clip]))
        population = train_population(spec, hyper, KEY, pixels)
        for k in range(2):
            alone = hyper_class("rmsprop")(rates[k], decay=decay, clip=(k + 1) * clip)
            state, _ = train(spec, alone, KEY, pixels)
            found = jax.tree.map(lambda leaf, k=k: leaf[0, k], population.params)
            for a, b in zip(*map(jax.tree.leaves, (found, state.params)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert jaxnn.population.trace_once.cache_info().misses == compiled + 1


def test_the_scalars_of_every_optimizer_of_optax_can_be_traced():
    spec = Spec(MODEL, steps=1)
    params = init_state(spec, Hyper(0.1), KEY).params
    names = []
    for name in dir(optax):
        try:
            read = reads(name)
        except ValueError:
            continue
        names.append(name)

        def update(hyper, name: Any = name):
            optimizer = optimizer_at(Spec(MODEL, 1, optimizer=name), hyper, jnp.int32(0))
            return optimizer.update(params, optimizer.init(params), params)

        assert read is not None
        assert read[0] == "learning_rate"
        assert not {"seed", "key", "mask", "nesterov", "min_dim_size_to_factor"} & set(read)
        hyper = hyper_class(cast(Any, name))(0.1)
        given = {n: 0.5 if value is None else value for n, value in hyper._asdict().items()}
        jax.eval_shape(update, hyper._replace(**given))
    assert set(names) > {*NAMES, "sgd", "adam", "adafactor", "radam", "rprop", "sm3"}
    assert not {"lbfgs", "scale_by_adam", "chain", "clip_by_global_norm"} & set(names)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # of optax
def test_the_defaults_of_optax_are_in_range():
    data = Data(np.zeros((20, 4)), np.arange(20) % 3)
    for name in get_args(OptimizerName):
        hyper = hyper_class(name)(0.1)
        _, kept, _, _ = checked(Spec(MLP((4, 3)), 1, 5, optimizer=name), hyper, data, None)
        assert kept == hyper
        values = hyper._asdict().items()
        Space({"optimizer": fixed(name)} | {n: fixed(v) for n, v in values if v is not None})
    spec = Spec(MLP((4, 3)), 1, 5, optimizer="lars")
    with pytest.raises(ValueError, match=r"eps is -1\.0, expected a finite number above 0"):
        checked(spec, hyper_class("lars")(0.1, eps=np.array([0.0, -1.0])), data, None)


def test_what_an_optimizer_reads():
    assert reads("sgd") == ("learning_rate",)
    assert reads("nesterov") == ("learning_rate", "momentum")
    assert reads("lion") == ("learning_rate", "b1", "b2", "weight_decay")
    assert reads(optax.adam) is None
    fields = hyper_class("lion")(0.1)._asdict()
    assert fields == {
        "learning_rate": 0.1, "l2": 0.0, "clip": None, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-3,
    }  # fmt: skip
    assert hyper_class("lion") is hyper_class("lion")


@pytest.mark.parametrize("name", ["newton", "chain", "lbfgs", "scale_by_rprop", "_src", None])
def test_what_is_no_optimizer_is_refused_in_a_line(name):
    expected = rf"^optimizer is {name!r}, expected one of .*'adam'.* such as 'adamw' or 'rmsprop'"
    for attempt in (lambda: Spec(MODEL, steps=1, optimizer=name), lambda: hyper_class(name)):
        with pytest.raises(ValueError, match=expected) as error:
            attempt()
        assert "\n" not in str(error.value)


SCHEDULES: dict[str, Any] = {
    "warmup_cosine": optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100),
    "warmup_cosine_decay_schedule": optax.warmup_cosine_decay_schedule(0.0, 1.0, 10, 100),
    "warmup_constant": optax.warmup_constant_schedule(0.0, 1.0, 10),
    "linear": optax.linear_schedule(1.0, 0.0, 100),
    "exponential_decay": optax.exponential_decay(1.0, 100, 0.1),
    "polynomial": optax.polynomial_schedule(1.0, 0.0, 1.0, 100),
    "cosine_onecycle": optax.cosine_onecycle_schedule(100, 1.0),
    "cosine": optax.cosine_decay_schedule(1.0, 100),
}
CYCLES: Any = ({"init_value": 0.0, "peak_value": 1.0, "decay_steps": 50, "warmup_steps": 5},) * 2
ARGUMENTS: dict[str, tuple[dict[str, Any], Any]] = {
    "warmup_cosine": ({"warmup_steps": 30, "end_value": 0.2},
                      optax.warmup_cosine_decay_schedule(0.0, 1.0, 30, 100, 0.2)),
    "exponential_decay": ({"transition_steps": 10, "decay_rate": 0.9, "staircase": True},
                          optax.exponential_decay(1.0, 10, 0.9, staircase=True)),
    "piecewise_constant": ({"boundaries_and_scales": {50: 0.1}},
                           optax.piecewise_constant_schedule(1.0, {50: 0.1})),
    "cosine": ({"alpha": 0.1}, optax.cosine_decay_schedule(1.0, 100, 0.1)),
    "sgdr": ({"cosine_kwargs": CYCLES}, optax.sgdr_schedule(CYCLES)),
}  # fmt: skip


def factors(spec, count=101):
    """The learning rate of every iteration, for the learning rate 1."""
    rates = []
    for iteration in range(count):
        optimizer = optimizer_at(spec, Hyper(1.0), jnp.int32(iteration))
        update, _ = optimizer.update(jnp.ones(()), optimizer.init(jnp.ones(())))
        rates.append(-np.asarray(update))
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_by_name_fits_the_steps(name):
    expected = [float(SCHEDULES[name](i)) for i in range(0, 101, 5)]
    spec = Spec(MODEL, steps=100, schedule=name)
    np.testing.assert_allclose(factors(spec)[::5], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_schedule_takes_the_arguments_of_optax(name):
    arguments, reference = ARGUMENTS[name]
    spec = Spec(MODEL, steps=100, schedule=schedule(name, **arguments))
    again = Spec(MODEL, steps=100, schedule=schedule(name, **arguments))
    assert spec == again
    assert hash(spec) == hash(again)
    expected = [float(reference(i)) for i in range(0, 101, 5)]
    np.testing.assert_allclose(factors(spec)[::5], expected, rtol=1e-6, atol=1e-7)


def test_a_warmed_up_training_learns(pixels):
    model = MLP((12, 3))
    spec = Spec(model, steps=200, batch_size=20, optimizer="adamw", schedule="warmup_cosine")
    _, history = train(spec, Hyper(0.05, weight_decay=1e-3, clip=1.0), KEY, pixels)
    assert history.metrics["train"].error[-1] < 0.05


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "warm",
            {},
            r"schedule is 'warm', expected one of \['constant', 'cosine', 'step'\], a sch",
        ),
        ("step", {"at": 1}, "schedule is 'step', expected"),
        ("sgdr", {}, "schedule sgdr_schedule is given no cosine_kwargs, expected arguments of"),
        ("linear", {"peak": 1}, r"schedule linear_schedule is given peak, expected .*init_value"),
    ],
)
def test_an_unknown_schedule_or_argument_is_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        schedule(name, **arguments)
    assert "\n" not in str(error.value)


def test_names_of_ours_do_not_import_optax():
    code = (
        "import sys; from jaxnn import MLP, Spec; Spec(MLP((2, 2)), 1, optimizer='momentum', "
        "schedule='cosine'); print('optax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
