"""Waves of blocks: every member in one block, every result in its place on every process."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.population import SPLIT, Wave, deal, gather, one_ahead, place, store


def members(waves):
    """(replicate, configuration) of every member, block by block."""
    return [
        (int(wave.replicate[position]), int(row))
        for wave in waves
        for position in range(len(wave.count))
        for row in wave.members(position)[1]
    ]


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(("replicates", "configurations"), [(1, 1), (2, 5), (3, 6)])
def test_every_member_is_in_one_block(replicates, configurations, size, devices):
    waves = deal(replicates, configurations, size, devices)
    everyone = [(r, k) for r in range(replicates) for k in range(configurations)]
    assert sorted(members(waves)) == everyone
    assert {wave.rows.shape for wave in waves} == {(devices, size)}
    assert len(waves) == -(-replicates * -(-configurations // size) // devices)


def test_every_wave_is_launched_before_the_one_before_it_is_read():
    said = []
    waves = [Wave(np.array([0]), np.array([[k]]), np.array([1])) for k in range(3)]

    def launch(wave):
        said.append(f"launch {wave.rows[0, 0]}")
        return wave.rows[0, 0]

    for wave, output in one_ahead(waves, launch):
        assert output == wave.rows[0, 0]
        said.append(f"read {output}")
    assert said == ["launch 0", "launch 1", "read 0", "launch 2", "read 1", "read 2"]


def test_what_a_device_has_trained_is_stored_without_what_fills_the_block():
    mesh = population_mesh(min(2, len(jax.devices())))
    results = {"a": np.full((2, 5, 3), -1.0, np.float32), "b": np.full((2, 5), -1, np.int32)}
    expected = {"a": np.zeros((2, 5, 3), np.float32), "b": np.zeros((2, 5), np.int32)}
    for replicate, k in np.ndindex(2, 5):
        expected["b"][replicate, k] = 10 * replicate + k
        expected["a"][replicate, k] = 10 * replicate + k + np.arange(3) / 4
    for each in deal(2, 5, 2, mesh.size):
        chosen = each.replicate[:, None], each.rows
        output = {name: leaf[chosen] for name, leaf in expected.items()}
        output = jax.tree.map(lambda leaf: leaf + 0, place(mesh, SPLIT, output))
        store(results, output, each)
    for name, leaf in expected.items():
        np.testing.assert_array_equal(results[name], leaf)


LAYOUTS = {
    "one device each": ([[0], [1], [2]], ("population", "batch")),
    "two devices each": ([[0], [0], [1], [1], [2], [2]], ("population", "batch")),
    "mixed": ([[2], [0], [1], [0], [2]], ("population", "batch")),
    "none for the last": ([[0], [1]], ("population", "batch")),
    "a minibatch over two": ([[0, 1], [2, 1]], ("population", "batch")),
    "batch first": ([[0, 2], [0, 1]], ("batch", "population")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_results_are_completed_by_the_bits_of_those_who_trained_them(monkeypatch, layout, size):
    owners, names = np.array(LAYOUTS[layout][0]), LAYOUTS[layout][1]
    along = owners if names[0] == "population" else owners.T
    mesh = SimpleNamespace(
        axis_names=names,
        devices=np.vectorize(lambda index: SimpleNamespace(process_index=index))(owners),
    )
    waves = deal(2, 7, size, len(along))
    truth = {
        "weight": np.random.default_rng(0).normal(size=(2, 7, 3, 2)).astype(np.float32),
        "count": np.arange(14, dtype=np.int64).reshape(2, 7) + 2**40,
        "flag": np.arange(14).reshape(2, 7, 1) % 3 == 0,
    }
    truth["weight"][1, 3] = np.array([np.nan, np.inf, -0.0]).reshape(3, 1)
    own = []
    for process in range(3):
        results = {name: np.zeros_like(leaf) for name, leaf in truth.items()}
        for each in waves:
            for position, processes in enumerate(along):
                if process in processes:
                    place = each.members(position)
                    for name, leaf in truth.items():
                        results[name][place] = leaf[place]
        own.append(results)
    sent = [exchange(monkeypatch, process, own, waves, mesh) for process in range(3)]
    for process in range(3):
        found = exchange(monkeypatch, process, own, waves, mesh, np.stack(sent))
        for name, leaf in truth.items():
            assert found[name].tobytes() == leaf.tobytes()


def exchange(monkeypatch, process, own, waves, mesh, received=None):
    """What a process sends, or, told what all have sent, what it ends up with."""
    sent = []

    def all_gather(content):
        sent.append(content.copy())
        return np.stack([content] * 3) if received is None else received

    monkeypatch.setattr(distributed, "process_count", lambda: 3)
    monkeypatch.setattr(distributed, "process_index", lambda: process)
    monkeypatch.setattr(distributed, "all_gather", all_gather)
    copy = jax.tree.map(np.copy, own[process])
    found = gather(copy, waves, mesh)
    assert len(sent) == 1
    return sent[0] if received is None else found


def test_alone_a_process_has_everything_already():
    results = {"a": np.ones((1, 1))}
    assert gather(results, deal(1, 1, 1, 1), population_mesh(1)) is results
