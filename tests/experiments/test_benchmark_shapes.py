"""The part ``shapes``: what is trained, the ratios, the table. No time is asserted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark.part import Goal
from experiments.benchmark.parts import shapes
from jaxnn import MLP


def results(**changed):
    """Every way takes a second, but for the changed ways."""
    rows = []
    for question, way, cores in shapes.WAYS:
        seconds = changed.get(f"{question} {way} {cores}", 1.0)
        row = {"question": question, "way": way, "cores": cores}
        row["seconds"] = {"median": seconds, "values": [seconds]}
        if question == "wide":
            row["share_of_peak"] = {"median": 81.0, "values": [81.0]}
        rows.append(row)
    return {"shapes": {"rows": rows}}


def test_the_goals_are_ratios_within_the_run():
    found = shapes.goals(results(**{"sizes scikit-learn 2": 6.0, "sizes jaxnn, cold 2": 2.0}))
    measured = {goal.what.partition(":")[0]: goal for goal in found}
    assert measured["32 networks of random sizes, cold"] == Goal(
        "32 networks of random sizes, cold: against scikit-learn, one after another", 1.5, 3.0
    )
    assert measured["32 networks of random sizes, warm"].measured == 6.0
    assert not measured["8 convolutional networks, 2 cores"].reached
    assert measured["parameters in one vector"].reached
    assert measured["784-512-512-10"].cells[-1] == "yes"


def test_the_table_has_every_way():
    (table,) = shapes.tables(results())
    assert len(table.rows) == len(shapes.WAYS)
    assert ("wide", "block 8", "2", "1.00", "81") in table.rows


def test_a_vector_of_parameters_gives_the_outputs_of_the_layers():
    model = MLP((5, 4, 3))
    network, key, x = shapes.in_one_vector(model), jax.random.key(1), jnp.arange(5.0)
    vector = network.init(key)
    assert vector.shape == (5 * 4 + 4 + 4 * 3 + 3,)
    np.testing.assert_array_equal(network.apply(vector, x), model.apply(model.init(key), x))


@pytest.mark.parametrize("seed", [0, 1])
def test_sizes_and_rates_are_in_their_ranges(seed):
    sizes, rates = shapes.random_sizes(seed, 50)
    assert {len(each) for each in sizes} == {2}
    assert 10 <= min(map(min, sizes)) <= max(map(max, sizes)) <= 100
    assert 1e-3 <= min(rates) <= max(rates) <= 0.3
