"""Names of choices for type checkers: the names that jaxnn knows, and no others."""

import subprocess
import sys
import warnings
from inspect import isfunction
from typing import get_args

import optax
import pytest

from jaxnn import types
from jaxnn.closed_form import ACTIVATION_DERIVATIVES
from jaxnn.losses import LOSSES
from jaxnn.mlp import ACTIVATIONS, INITIALIZERS
from jaxnn.optimizers import OPTIMIZERS, SCHEDULES, named
from jaxnn.search.result import RULES
from jaxnn.search.search import METHODS
from jaxnn.search.task import MEASURES


def optimizers():
    """All names that ``named`` finds in this version of optax."""
    for name in (*OPTIMIZERS, *dir(optax)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                named(name)
            except ValueError:
                continue
        yield name


def schedules():
    """All names of schedules of this version of optax that ``schedule`` could take."""
    yield from SCHEDULES
    for name in dir(optax.schedules):
        if isfunction(getattr(optax.schedules, name)) and not name.startswith(("inject", "join")):
            yield name
            for suffix in ("_schedule", "_decay", "_decay_schedule"):
                if name.endswith(suffix):
                    yield name.removesuffix(suffix)


@pytest.mark.parametrize(
    ("literal", "names"),
    [
        (types.ActivationName, ACTIVATIONS),
        (types.ActivationName, ACTIVATION_DERIVATIVES),
        (types.InitializerName, INITIALIZERS),
        (types.LossName, LOSSES),
        (types.MeasureName, MEASURES),
        (types.RuleName, RULES),
    ],
)
def test_a_literal_has_the_names_of_the_table(literal, names):
    assert set(get_args(literal)) == set(names)


def test_literals_have_every_optimizer_and_schedule_of_optax():
    assert set(get_args(types.OptimizerName)) >= set(optimizers())
    assert set(get_args(types.ScheduleName)) >= set(schedules())


def test_the_methods_by_name_are_those_without_needed_arguments():
    assert set(get_args(types.MethodName)) <= set(METHODS)
    for name in get_args(types.MethodName):
        METHODS[name]()


RIGHT = """
import jax, optax
from jaxnn import MLP, Data, Spec
from jaxnn.optimizers import hyper_class, schedule
from jaxnn.population import best
from jaxnn.search import Task, log_uniform, random, search
from jaxnn.verify import claim, real
model = MLP((4, 3), activation="tanh", initializer="glorot")
Spec(model, steps=1, optimizer="adamw", schedule="warmup_cosine", loss="squared_error")
Spec(model, steps=1, optimizer=lambda hyper: optax.adam(hyper.learning_rate))
schedule("linear"), hyper_class("rmsprop")
def use(data: Data, task: Task):
    space = {"learning_rate": log_uniform(0.1, 1.0)}
    Task(data, measure="loss", validation=data)
    search(task, space, method="grid", rule="one_standard_error", key=jax.random.key(0))
    search(task, space, method=random(4), key=jax.random.key(0))
claim(of=jax.nn.softplus, wrt="x", kind="gradient", inputs={"x": real()})
"""

WRONG = [
    ('"adamw"', '"adamm"'),
    ('"warmup_cosine"', '"warmup_cosin"'),
    ('"squared_error"', '"hinge"'),
    ('"tanh"', '"tanhh"'),
    ('"glorot"', '"xavier"'),
    ('"linear"', '"lin"'),
    ('"rmsprop"', '"rms"'),
    ('"loss"', '"accuracy"'),
    ('"grid"', '"random"'),
    ('"one_standard_error"', '"median"'),
    ('"gradient"', '"grad"'),
]


@pytest.mark.slow
def test_a_type_checker_takes_right_names_and_refuses_each_wrong_name(tmp_path):
    (tmp_path / "right.py").write_text(RIGHT)
    for number, (right, wrong) in enumerate(WRONG):
        assert right in RIGHT
        (tmp_path / f"wrong{number}.py").write_text(RIGHT.replace(right, wrong))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if " - error: " in line]
    assert not [line for line in lines if "right.py" in line], lines
    for number, (_, wrong) in enumerate(WRONG):
        found = [line for line in lines if f"wrong{number}.py" in line]
        assert len(found) == 1, (wrong, found)
        assert wrong.strip('"') in found[0]
