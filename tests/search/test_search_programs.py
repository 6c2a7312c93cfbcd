"""How many trials of a round a device trains at once."""

import itertools
import math

import numpy as np
import pytest

from jaxnn import MLP, Spec
from jaxnn.search.trainer import Program, Work, cheapest

SOFTMAX = Spec(model=MLP((784, 10)), steps=1, batch_size=100)  # 4.71 million operations an update
OTHER = Spec(model=MLP((784, 10)), steps=2, batch_size=100)
HALVING = [Work(64, 500), Work(21, 1500), Work(7, 4000)]


def sizes(planned, had=(), *, replicates=1, devices=2, platform="cpu"):
    """Those of the rounds of a plan, one after the other."""
    had, found = set(had), []
    for place in range(len(planned)):
        program = cheapest(
            SOFTMAX,
            planned[place:],
            had,
            replicates=replicates,
            devices=devices,
            platform=platform,
        )
        assert program.spec is SOFTMAX
        had.add(program)
        found.append(program.block_size)
    return found


def longer(planned, times):
    return [Work(work.trials, times * work.updates) for work in planned]


def test_rungs_share_a_program_where_it_costs_more_than_it_saves():
    # Block by block, each 1.7 members more than it holds: with 4 everywhere 500 x 8 x 5.7 for the
    # first rung, with 32 there 500 x 33.7. That is 28e9 operations less, and a program 40e9 more.
    assert sizes(HALVING) == [4, 4, 4]
    assert sizes(longer(HALVING, 2)) == [32, 4, 4]


@pytest.mark.parametrize(
    ("devices", "replicates", "expected"),
    [
        (1, 1, [32, 8, 8]),  # 21: 3 x 9.7, of 32 33.7, of 4 6 x 5.7; 7: 9.7, of 4 11.4
        (2, 1, [32, 4, 4]),  # 21: 3 x 5.7, of 16 17.7, of 8 2 x 9.7; 7: 5.7, of 2 7.4
        (8, 1, [8, 4, 1]),  # 64: 9.7, of 4 11.4; 21: 5.7, of 2 7.4; 7: 2.7
        (2, 2, [32, 8, 8]),  # 21: 3 x 9.7, of 32 33.7, of 4 6 x 5.7; 7: 9.7, of 4 2 x 5.7
    ],
)
def test_in_a_long_search_every_rung_has_what_suits_it(devices, replicates, expected):
    found = sizes(longer(HALVING, 1000), devices=devices, replicates=replicates)
    assert found == expected


def test_a_program_that_is_there_costs_nothing():
    assert sizes(HALVING, [Program(SOFTMAX, 32)]) == [32, 4, 4]
    assert sizes([Work(21, 150), Work(7, 400)], [Program(SOFTMAX, 8)]) == [8, 8]
    assert sizes(HALVING, [Program(OTHER, 32)]) == [4, 4, 4]  # of another spec


def test_a_round_of_which_nothing_more_is_known_has_what_suits_it():
    assert sizes(HALVING[:1]) == [32]
    assert sizes([Work(1, 1)]) == [1]


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_takes_all_trials_at_once(platform):
    assert sizes(HALVING, devices=1, platform=platform) == [64, 21, 7]
    assert sizes([Work(3000, 10)], devices=1, platform=platform) == [1024]


@pytest.mark.parametrize("seed", range(20))
def test_no_way_to_train_a_plan_costs_less(seed):
    rng = np.random.default_rng(seed)
    replicates, devices = rng.integers(1, 5, 2).tolist()
    planned = [
        Work(int(rng.integers(1, 100)), int(10 ** rng.uniform(1, 4)))
        for _ in range(rng.integers(1, 5))
    ]
    had = {size for size in (1, 2, 4, 8, 16, 32) if rng.random() < 0.2}

    def cost(chosen):
        operations = 40e9 * len(set(chosen) - had)
        for work, size in zip(planned, chosen, strict=True):
            blocks = replicates * math.ceil(work.trials / size)
            rounds = math.ceil(blocks / devices)
            operations += rounds * (size + 1.7) * work.updates * 6 * 7850 * 100
        return operations

    every = itertools.product((1, 2, 4, 8, 16, 32), repeat=len(planned))
    found = sizes(
        planned,
        [Program(SOFTMAX, size) for size in had],
        replicates=replicates,
        devices=devices,
    )
    assert cost(found) == pytest.approx(min(map(cost, every)), rel=1e-12)
