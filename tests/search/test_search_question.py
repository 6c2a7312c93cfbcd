"""The record of a search holds everything that decides the bits of the search."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from small_search import KEY, SPACE, TASK, TRAIN, VALIDATION

from jaxnn.devices import population_mesh
from jaxnn.search import Space, fixed, given, random
from jaxnn.search.journal import differences
from jaxnn.search.search import describe

QUESTION: dict[str, Any] = {
    "task": TASK,
    "space": SPACE,
    "method": random(2),
    "key": KEY,
    "seeds": 1,
    "rule": "mean",
    "mesh": population_mesh(1),
}


def described(**changes):
    arguments = QUESTION | changes
    space = Space(arguments.pop("space"))
    return describe(space=space, **arguments)


def changed(values):
    other = np.array(values)
    other[-1] += 1
    return other


def own_model():
    raise AssertionError


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"task": replace(TASK, train=TRAIN._replace(inputs=changed(TRAIN.inputs)))}, "task.train"),
        (
            {"task": replace(TASK, train=TRAIN._replace(targets=changed(TRAIN.targets)))},
            "task.train",
        ),
        ({"task": replace(TASK, train=TRAIN._replace(scale=1 / 200))}, "task.train"),
        (
            {"task": replace(TASK, validation=given(VALIDATION._replace(scale=1 / 200)))},
            "task.given",
        ),
        ({"task": replace(TASK, epochs=5)}, "task.epochs"),
        ({"task": replace(TASK, evaluations_per_epoch=2)}, "task.evaluations_per_epoch"),
        ({"task": replace(TASK, measure="loss")}, "task.measure"),
        ({"task": replace(TASK, model=own_model)}, "task.model"),
        ({"space": SPACE | {"batch_size": fixed(21)}}, "space.batch_size.options[0]"),
        ({"method": random(3)}, "method.count"),
        ({"key": jax.random.key(8)}, "key[1]"),
        ({"seeds": 2}, "seeds"),
        ({"rule": "one_standard_error"}, "rule"),
        ({"mesh": Mesh([[jax.devices()[0]]], ("population", "batch"))}, "devices.batch"),
    ],
)
def test_one_change_is_one_difference(changes, where):
    (difference,) = differences(described(), described(**changes))
    assert difference.startswith(f"{where} is ")


def test_the_order_of_the_names_counts_for_a_sampler_draws_in_it():
    space = dict(reversed(SPACE.items()))
    found = differences(described(), described(space=space))
    assert found
    assert all(difference.startswith("names[") for difference in found)


def test_the_test_set_does_not_count():
    assert described(task=replace(TASK, test=None)) == described()
