"""Programs of a search: the block sizes of rounds, and the platforms that a program lowers for."""

import itertools
import math

import jax
import numpy as np
import pytest
from jax import export
from small_search import KEY, TRAIN

from jaxnn import MLP, Spec, population
from jaxnn.devices import population_mesh
from jaxnn.population import default_block_size
from jaxnn.search import folds, trainer
from jaxnn.search.task import arrange
from jaxnn.search.trainer import Program, Trainer, Work, cheapest, seed_keys

SOFTMAX = Spec(model=MLP((784, 10)), steps=1, batch_size=100)
OTHER = Spec(model=MLP((784, 10)), steps=2, batch_size=100)
HALVING = [Work(64, 500), Work(21, 1500), Work(7, 4000)]
LARGEST = default_block_size(SOFTMAX, "cpu", 64)


def sizes(planned, had=(), *, replicates=1, devices=2, platform="cpu"):
    """The block sizes of the rounds of a plan, one after the other."""
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


def test_the_rungs_of_a_short_search_share_a_program():
    assert len(set(sizes(HALVING))) == 1


def test_longer_searches_have_more_programs_of_smaller_and_smaller_blocks():
    plans = [sizes(longer(HALVING, times)) for times in (1, 3, 10, 1000)]
    counts = [len(set(plan)) for plan in plans]
    assert counts == sorted(counts)
    assert counts[-1] > 1
    assert all(plan == sorted(plan, reverse=True) for plan in plans)


def test_many_trials_per_device_fill_the_largest_blocks_and_few_keep_all_devices_busy():
    for devices in (1, 2):
        assert sizes(longer(HALVING, 1000), devices=devices)[0] == LARGEST
    assert sizes(longer(HALVING, 1000), devices=8)[-1] == 1  # 7 trials on 8 devices
    assert sizes([Work(1, 1)]) == [1]


def test_many_more_devices_mean_smaller_blocks():
    found = [sizes(longer(HALVING, 1000), devices=devices) for devices in (1, 8, 64)]
    for fewer, more in itertools.pairwise(found):
        assert all(few >= many for few, many in zip(fewer, more, strict=True))
        assert any(few > many for few, many in zip(fewer, more, strict=True))


def test_a_program_that_is_there_costs_nothing():
    (shared,) = set(sizes(HALVING))
    (alone,) = sizes(HALVING[:1])
    assert alone != shared
    assert sizes(HALVING, [Program(SOFTMAX, alone)])[0] == alone
    assert sizes(HALVING, [Program(OTHER, alone)])[0] == shared  # of another spec


def test_a_round_of_which_nothing_more_is_known_has_the_size_of_a_long_search():
    assert sizes(HALVING[:1]) == sizes(longer(HALVING, 1000))[:1]


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_takes_all_trials_at_once(platform):
    assert sizes(HALVING, devices=1, platform=platform) == [64, 21, 7]
    assert sizes([Work(3000, 10)], devices=1, platform=platform) == [1024]


@pytest.mark.parametrize("seed", range(20))
def test_no_way_to_train_a_plan_costs_less(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    replicates, devices = rng.integers(1, 5, 2).tolist()
    overhead, compiling = rng.uniform(0.5, 5), 10 ** rng.uniform(9, 12)
    monkeypatch.setattr(trainer, "_OVERHEAD", overhead)
    monkeypatch.setattr(trainer, "_COMPILING", compiling)
    planned = [
        Work(int(rng.integers(1, 100)), int(10 ** rng.uniform(1, 4)))
        for _ in range(rng.integers(1, 5))
    ]
    had = {size for size in (1, 2, 4, 8, 16, 32) if rng.random() < 0.2}

    def cost(chosen):
        operations = compiling * len(set(chosen) - had)
        for work, size in zip(planned, chosen, strict=True):
            blocks = replicates * math.ceil(work.trials / size)
            waves = math.ceil(blocks / devices)
            operations += waves * (size + overhead) * work.updates * 6 * 7850 * 100
        return operations

    every = itertools.product((1, 2, 4, 8, 16, 32), repeat=len(planned))
    found = sizes(
        planned,
        [Program(SOFTMAX, size) for size in had],
        replicates=replicates,
        devices=devices,
    )
    assert cost(found) == pytest.approx(min(map(cost, every)), rel=1e-12)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_segment_lowers_for_every_platform(optimizer, monkeypatch):
    traced = []
    monkeypatch.setattr(population, "trace_once", lambda *program: traced.append(program))
    arranged = arrange(folds(3), TRAIN, seed=0)
    train = Trainer(arranged, (), seed_keys(KEY, 2), population_mesh(1))
    train.traced(Program(Spec(MLP((12, 6, 3)), 40, batch_size=20, optimizer=optimizer), 4))
    ((build, static, signature),) = traced
    arguments = jax.tree.unflatten(*signature[:2])
    platforms = ("cpu", "cuda", "tpu")
    exported = export.export(build(*static), platforms=platforms)(*arguments)
    assert exported.platforms == platforms
    assert [leaf.shape[:2] for leaf in exported.out_avals] == [(1, 4)] * len(exported.out_avals)
