"""Domains as distributions, conditions, programs, and everything that cannot be searched."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxnn import MLP, Data, Hyper, Network, Spec, init_state, train_step
from jaxnn.optimizers import schedule
from jaxnn.search import (
    Space,
    SpaceError,
    Task,
    choice,
    conditional,
    fixed,
    grid,
    integer,
    log_uniform,
    population_based,
    random,
    search,
    successive_halving,
    uniform,
)
from jaxnn.search.task import traced_values

RATE = {"learning_rate": log_uniform(1e-3, 1.0)}
OPTIMIZERS = {"optimizer": choice("sgd", "momentum")}
LAST = np.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("domain", "distribution"),
    [
        (uniform(0.5, 0.99), stats.uniform(0.5, 0.49)),
        (uniform(-3.0, 1.0), stats.uniform(-3.0, 4.0)),
        (log_uniform(1e-6, 1e-2), stats.loguniform(1e-6, 1e-2)),
    ],
)
def test_interval_has_its_distribution(domain, distribution):
    values = [domain.at(u) for u in np.random.default_rng(0).random(5000).tolist()]
    assert stats.kstest(values, distribution.cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (integer(-3, 3), [-3, -2, -1, 0, 1, 2, 3]),
        (integer(10, 14), [10, 11, 12, 13, 14]),
        (integer(7, 7), [7]),
        (choice("a", (1, 2), None), ["a", (1, 2), None]),
    ],
)
def test_listed_values_are_equally_likely(domain, values):
    drawn = [domain.at(u) for u in np.random.default_rng(1).random(7000).tolist()]
    counts = [drawn.count(value) for value in values]
    assert sum(counts) == len(drawn)
    assert stats.chisquare(counts).pvalue > 0.01 or len(values) == 1


@pytest.mark.parametrize(
    ("domain", "first", "last"),
    [
        (uniform(0.1, 0.3), 0.1, 0.3),
        (log_uniform(0.1, 0.3), 0.1, 0.3),
        (log_uniform(1e-300, 1e300), 1e-300, 1e300),
        (integer(-2, 10**12), -2, 10**12),
        (choice(*range(49)), 0, 48),
    ],
)
def test_ends_are_reached_and_never_passed(domain, first, last):
    assert domain.at(0.0) == pytest.approx(first, rel=1e-12)
    assert domain.at(LAST) == pytest.approx(last, rel=1e-12)
    assert first <= domain.at(0.0) <= domain.at(LAST) <= last


@pytest.mark.parametrize(
    "domain", [uniform(-1, 2), log_uniform(1e-4, 10), integer(-3, 4), choice("a", "b", "c")]
)
def test_where_is_the_inverse_of_at(domain):
    for u in np.random.default_rng(2).random(50).tolist():
        value = domain.at(u)
        assert domain.at(domain.where(value)) == (
            pytest.approx(value) if domain.is_interval else value
        )
        if domain.is_interval:
            assert domain.where(value) == pytest.approx(u)


@pytest.mark.parametrize(
    ("domain", "points", "expected"),
    [
        (uniform(0, 1), 5, [0, 0.25, 0.5, 0.75, 1]),
        (log_uniform(1e-4, 1e-1), 4, [1e-4, 1e-3, 1e-2, 1e-1]),
        (integer(1, 9), 3, [1, 5, 9]),
        (integer(1, 3), 50, [1, 2, 3]),
        (integer(1, 3), None, [1, 2, 3]),
        (choice("a", "b", "c"), 2, ["a", "b", "c"]),
    ],
)
def test_grid_of_a_domain_is_evenly_spaced(domain, points, expected):
    found = list(domain.grid(points))
    assert found == (pytest.approx(expected) if domain.is_interval else expected)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.int64(50), 50),
        (np.float64(0.5), 0.5),
        ([50, 50], (50, 50)),
        (np.array([50, 50]), (50, 50)),
        ([np.int32(1), [2]], (1, (2,))),
        ((), ()),
    ],
)
def test_options_are_kept_as_plain_hashable_values(given, kept):
    (option,) = fixed(given).options
    assert option == kept
    assert type(option) is type(kept)
    assert choice(given, "other").options == (kept, "other")
    json.dumps(option)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (uniform, (1, 1), r"uniform\(1, 1\): expected two finite numbers, the smaller one"),
        (uniform, (0, math.inf), "expected two finite numbers"),
        (uniform, (0, math.nan), "expected two finite numbers"),
        (uniform, ("0.1", "0.2"), r"uniform\('0.1', '0.2'\): expected two numbers"),
        (log_uniform, (0.1, 0.1), "log_uniform.*the smaller one first"),
        (log_uniform, (0, 1), r"log_uniform\(0, 1\): expected numbers above 0"),
        (integer, (1, 2.5), r"integer\(1, 2.5\): expected whole numbers"),
        (integer, (True, 3), "expected whole numbers"),
        (integer, (3, 1), r"integer\(3, 1\): expected the lower end first"),
        (choice, (), "expected at least one option"),
        (choice, (50, 100, 50), "50 is there twice"),
        (choice, (schedule("linear"), schedule("linear_schedule")), "is there twice"),
        (choice, ([5], (5,)), r"\[5\] is there twice"),
        (choice, ({"a": 1}, 2), r"\{'a': 1\}, expected a number, a text, a function"),
        (choice, (lambda x: x, lambda x: -x), "lambda>' is there twice.*by its name"),
        (conditional, (0.5,), r"conditional\(0.5\): expected a domain"),
        (conditional, (uniform(0, 1),), "expected a condition"),
    ],
)
def test_bad_domain_is_one_clear_line(function, arguments, message):
    with pytest.raises(SpaceError, match=message) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


def test_schedules_with_other_arguments_are_other_options():
    shapes = choice(*(schedule("warmup_cosine", warmup_steps=steps) for steps in (10, 20)))
    described = Space(RATE | {"schedule": shapes}).describe()
    assert described["schedule"]["options"] == [
        f"optax.warmup_cosine_decay_schedule(warmup_steps={steps})" for steps in (10, 20)
    ]


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({}, "learning_rate is not in every configuration"),
        ({"l2": fixed(0.0)}, "learning_rate is not in every configuration"),
        (
            OPTIMIZERS | {"learning_rate": conditional(fixed(0.1), optimizer="sgd")},
            "learning_rate is not in every configuration",
        ),
        ([RATE], "expected a dict"),
        (RATE | {"l2": 0.1}, "l2 is 0.1, expected uniform"),
        (RATE | {"epochs": integer(1, 9)}, "epochs is not a hyperparameter to search"),
        (RATE | {"rate": fixed(1)}, "'rate' is not a hyperparameter, expected one of learning_"),
        (RATE | {"momentum": uniform(0, 1)}, "momentum is 1.0, expected .* below 1"),
        (RATE | {"l2": uniform(-1, 1)}, "l2 is -1"),
        (RATE | {"l2": choice(0.1, "none")}, "l2 can be 'none', expected numbers"),
        (RATE | {"l2": choice(False, 0.5)}, "l2 can be False, expected numbers"),
        (RATE | {"batch_size": uniform(10, 20)}, r"batch_size is uniform\(10, 20\), expected an"),
        (
            RATE | {"optimizer": choice("sgd", "newton")},
            "optimizer can be 'newton', expected one of",
        ),
        (RATE | {"optimizer": integer(1, 2)}, "optimizer can be 1, expected one of"),
        (RATE | {"b1": fixed(0.9)}, "b1 means nothing to the optimizer 'momentum'"),
        (
            RATE | OPTIMIZERS | {"momentum": uniform(0, 0.9)},
            "momentum means nothing to the optimizer 'sgd'",
        ),
        (
            RATE | {"l2": conditional(fixed(0.1), hidden=())},
            "l2 depends on 'hidden', which is not in the space",
        ),
        (
            RATE | {"hidden": choice((), (5,)), "l2": conditional(fixed(0.1), hidden=((6,),))},
            "being one of .*6.*which it never is",
        ),
        (
            RATE | {"batch_size": integer(1, 5), "l2": conditional(fixed(0.1), batch_size="a")},
            "which it never is",
        ),
        (
            RATE | {"hidden": conditional(choice((), (5,)), learning_rate=1.0)},
            "learning_rate, which has no end of values",
        ),
        (
            RATE
            | {
                "batch_size": conditional(integer(1, 5), schedule="cosine"),
                "schedule": conditional(choice("cosine", "step"), batch_size=1),
            },
            "batch_size, schedule go in a circle",
        ),
    ],
)
def test_bad_space_is_one_clear_line(domains, message):
    with pytest.raises(SpaceError, match=message) as error:
        Space(domains)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd",
        "momentum",
        "adam",
        *(pytest.param(o, marks=pytest.mark.slow) for o in ("nesterov", "rmsprop", "adamw")),
    ],
)
def test_what_a_space_may_have_is_what_changes_the_training(pixels, optimizer):
    def weight(**changed):
        program = Spec(model=MLP((12, 3)), steps=2, batch_size=20, optimizer=optimizer)
        hyper = Hyper(0.1)._replace(**changed)
        batch = jnp.asarray(pixels.inputs / 255, jnp.float32), jnp.asarray(pixels.targets)
        with jax.disable_jit():
            state = init_state(program, hyper, jax.random.key(0))
            for _ in range(2):
                state, _ = train_step(program, hyper, state, batch)
        return np.asarray(state.params[0].weight)

    def is_allowed(name):
        try:
            Space(RATE | {"optimizer": fixed(optimizer), name: choice(0.25, 0.5)})
        except SpaceError:
            return False
        return True

    usual = weight()
    read = {name for name in Hyper._fields if not np.array_equal(usual, weight(**{name: 0.5}))}
    assert {name for name in Hyper._fields if is_allowed(name)} == read


def test_any_optimizer_of_optax_can_be_searched_and_is_named_where_it_would_help(task):
    domains = {"learning_rate": fixed(0.1), "batch_size": fixed(10), "eps": log_uniform(1e-8, 1e-4)}
    with pytest.raises(SpaceError, match=r"optimizer 'sgd', .* optimizer=\('adam', 'rmsprop'\)"):
        Space(domains | {"optimizer": choice("rmsprop", "sgd")})
    domains |= {
        "eps": fixed(1e-6),
        "optimizer": fixed("rmsprop"),
        "decay": choice(0.5, 0.9),
        "clip": fixed(1.0),
    }
    result = search(task, domains, method=grid(2), key=jax.random.key(0))
    assert [row["decay"] for row in result.table] == [0.5, 0.9]
    assert len({row["validation_loss"] for row in result.table}) == 2
    assert np.isfinite(result.best.validation_loss)
    spec = Spec(MLP((12, 3)), steps=1, optimizer="rmsprop")
    absent = traced_values(spec, ("clip", "decay", "momentum", "b1"), [{}, {"clip": 2.0}])
    assert absent.clip.tolist() == [np.inf, 2.0]
    assert absent.momentum.tolist() == [0.0, 0.0]
    np.testing.assert_allclose(absent.decay, 0.9)
    assert absent.b1 is None


def test_the_names_of_another_optimizer_are_unknown():
    with pytest.raises(SpaceError, match="'decay' is not a hyperparameter"):
        Space(RATE | {"optimizer": choice("adam", "lion"), "decay": uniform(0.5, 0.9)})


def test_conditions_come_first_whatever_the_order_of_the_names():
    space = Space(
        {
            "momentum": conditional(uniform(0.5, 0.9), schedule="cosine"),
            "schedule": conditional(choice("constant", "cosine"), optimizer="momentum"),
            **OPTIMIZERS,
            **RATE,
        }
    )
    assert list(space).index("optimizer") < list(space).index("schedule")
    assert list(space).index("schedule") < list(space).index("momentum")


@pytest.mark.parametrize(
    ("u", "names"),
    [
        ({"optimizer": 0.1, "schedule": 0.9}, {"optimizer"}),
        ({"optimizer": 0.9, "schedule": 0.1}, {"optimizer", "schedule"}),
        ({"optimizer": 0.9, "schedule": 0.9}, {"optimizer", "schedule", "momentum"}),
    ],
)
def test_chain_of_conditions_ends_where_one_does_not_hold(u, names):
    space = Space(
        RATE
        | OPTIMIZERS
        | {
            "schedule": conditional(choice("constant", "cosine"), optimizer="momentum"),
            "momentum": conditional(uniform(0.5, 0.9), schedule="cosine"),
        }
    )
    assert set(space.configuration(u)) == names | {"learning_rate"}


def test_conditions_on_one_name_twice_both_have_to_hold():
    momentum = conditional(uniform(0.1, 0.9), optimizer="momentum")
    space = Space(
        RATE | OPTIMIZERS | {"momentum": conditional(momentum, optimizer=("sgd", "momentum"))}
    )
    assert "momentum" not in space.configuration({"optimizer": 0.0})
    assert "momentum" in space.configuration({"optimizer": 0.9})


@pytest.mark.parametrize(
    ("domains", "programs"),
    [
        ({}, 1),
        ({"l2": uniform(0, 1), "momentum": choice(0.0, 0.9)}, 1),
        ({"batch_size": integer(10, 200), "hidden": choice((), (5,))}, 382),
        ({"batch_size": integer(1, 10**6), "hidden": choice((), (5,))}, 2 * 10**6),
        (OPTIMIZERS | {"schedule": conditional(choice("step", "cosine"), optimizer="sgd")}, 3),
        ({"momentum": choice(0.0, 0.9), "hidden": conditional(choice((4,), (5,)), momentum=0)}, 3),
        ({"batch_size": integer(1, 5), "hidden": conditional(choice((), (5,)), batch_size=3)}, 6),
        (
            {
                "momentum": choice(0.0, 0.9),
                "l2": conditional(choice(0.1, 0.2), momentum=0.9),
                "hidden": conditional(choice((4,), (5,)), l2=0.1),
            },
            3,
        ),
        (OPTIMIZERS | {"momentum": conditional(uniform(0, 0.9), optimizer="momentum")}, 2),
    ],
)
def test_programs_are_the_distinct_static_values(domains, programs):
    assert Space(RATE | domains).programs() == programs


def test_description_is_json_and_tells_spaces_apart():
    def described(momentum):
        domains = RATE | OPTIMIZERS | {"momentum": conditional(momentum, optimizer="momentum")}
        return json.dumps(Space(domains).describe())

    assert described(uniform(0.1, 0.9)) == described(uniform(0.1, 0.9))
    assert described(uniform(0.1, 0.9)) != described(uniform(0.1, 0.8))
    assert described(choice(0.1, 0.9)) != described(uniform(0.1, 0.9))


def test_description_of_a_function_is_its_name():
    space = Space(RATE | {"activation": choice("relu", jax.nn.softplus)})
    assert space.describe()["activation"]["options"][1].endswith(".softplus")


@pytest.fixture
def task() -> Task:
    """60 examples of 4 features in 3 classes, 50 of them to train on."""
    targets = np.arange(60) % 3
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    return Task(Data(inputs, targets), epochs=3)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"hidden": choice((), 5)}, "hidden is 5, expected layer sizes"),
        ({"hidden": choice((), "ab")}, "hidden is 'ab', expected layer sizes"),
        ({"hidden": choice((), (0,))}, "expected positive integers"),
        ({"hidden": choice((), (2.5,))}, "expected positive integers"),
        ({"batch_size": choice(10, 51)}, "batch_size is 51, expected at most the 50 examples"),
        ({"batch_size": integer(1, 99)}, "batch_size is 99, expected at most the 50 examples"),
        ({"batch_size": integer(0, 9)}, "batch_size is 0, expected a positive integer"),
        ({"batch_size": choice(10, 10.5)}, "batch_size is 10.5, expected a positive integer"),
        ({"activation": choice("relu", "gelu")}, "activation is 'gelu', expected one of"),
        ({"activation": choice("relu", (1,))}, r"activation is \(1,\), expected one of"),
        ({"initializer": choice("he", "zero")}, "initializer is 'zero', expected one of"),
        ({"schedule": choice("cosine", "warm")}, "schedule is 'warm', expected one of"),
        ({"loss": choice("cross_entropy", "hinge")}, "loss is 'hinge', expected one of"),
        ({"loss": choice("cross_entropy", "logistic")}, "logistic takes the targets 0 and 1"),
        (
            OPTIMIZERS | {"hidden": conditional(choice((), (0,)), optimizer="momentum")},
            "expected positive integers",
        ),
    ],
)
def test_bad_static_value_is_refused_before_anything_is_trained_or_written(
    task, tmp_path, domains, message
):
    domains = {"learning_rate": fixed(0.1), "batch_size": fixed(10)} | domains
    with pytest.raises(SpaceError, match=message) as error:
        search(task, domains, method=random(1), key=jax.random.key(0), folder=tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_bad_value_of_a_models_own_parameter_is_refused(task):
    def model(heads: int) -> Network:
        if 8 % heads:
            raise ValueError(f"heads is {heads}, expected a divisor of 8")
        raise AssertionError

    own = Task(task.train, model=model, model_parameters=("heads",))
    with pytest.raises(SpaceError, match="heads is 3, expected a divisor of 8"):
        search(
            own,
            RATE | {"heads": fixed(3), "batch_size": fixed(10)},
            method=random(1),
            key=jax.random.key(0),
        )


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (grid(), "learning_rate has no end of values"),
        (successive_halving(4, minimum=4), "minimum is 4 evaluations, expected at most .* 3"),
        (population_based(4, interval=3), "interval is 3 evaluations, expected fewer than .* 3"),
    ],
)
def test_method_that_does_not_fit_leaves_no_folder(task, tmp_path, method, message):
    domains = RATE | {"batch_size": fixed(10)}
    with pytest.raises(SpaceError, match=message):
        search(task, domains, method=method, key=jax.random.key(0), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
