"""Networks of many sizes in one program: padded, and the same as each by itself."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_search import TASK, TEST, TRAIN

from jaxnn import MLP, Spec, mlp
from jaxnn.mlp import PaddedMLP
from jaxnn.optimizers import named
from jaxnn.saved_model import load_model
from jaxnn.search import (
    Result,
    Round,
    RunFolderError,
    Task,
    Trial,
    choice,
    fixed,
    log_uniform,
    random,
    search,
    successive_halving,
    trainer,
)
from jaxnn.search.report import programs
from jaxnn.search.space import Space

SIZES = ((9, 7), (8, 6), (7, 7), (6,), (9,), (5, 4, 6), (8, 3))
SPACE = {
    "learning_rate": log_uniform(0.01, 0.5),
    "l2": fixed(1e-2),
    "clip": fixed(0.5),
    "batch_size": fixed(20),
    "hidden": choice(*SIZES),
}


def of_sizes(hidden, *, rounds=1, **more):
    """A method that trains a trial of each size to the end of the task."""

    def method(space, evaluations, seed):
        rates = np.geomspace(0.02, 0.4, len(hidden))
        trials = [
            Trial(
                n,
                {"learning_rate": float(rate), "l2": 1e-2, "batch_size": 20, "hidden": sizes}
                | more,
            )
            for n, (rate, sizes) in enumerate(zip(rates, hidden, strict=True))
        ]
        for part in range(rounds):
            yield Round(tuple(trials[part::rounds]), evaluations)

    return method


def nonzero(tree) -> int:
    return sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(tree))


def largest(**settings) -> PaddedMLP:
    """The padded network of all sizes."""
    model = trainer.padded([Spec(MLP((12, *sizes, 3), **settings), 1) for sizes in SIZES]).model
    assert isinstance(model, PaddedMLP)
    return model


def started(large, key, hidden):
    """The first parameters of some hidden layers in a padded network, in NumPy arrays."""
    params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(large.init, key))
    large.draw(params, np.asarray(jax.random.normal(key, (1000,))), hidden)
    return params


def few(monkeypatch, count):
    """Searches pad more than this many sizes."""
    monkeypatch.setattr("jaxnn.search.loop.FEW", count)


@pytest.mark.parametrize("hidden", SIZES, ids=str)
@pytest.mark.parametrize("initializer", ["he", "glorot"])
def test_a_padded_network_starts_from_the_bits_of_the_network(hidden, initializer):
    large = largest(initializer=initializer)
    found = started(large, jax.random.key(5), hidden)
    expected = MLP((12, *hidden, 3), initializer=initializer).init(jax.random.key(5))
    for a, b in zip(*map(jax.tree.leaves, (mlp.cut(found, hidden), expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert nonzero(found) == sum(i * o for i, o in pairwise((12, *hidden, 3)))


@pytest.mark.parametrize("hidden", SIZES, ids=str)
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_outputs_and_gradients_are_those_of_the_network_and_padding_has_none(hidden, activation):
    large = largest(activation=activation)
    small = MLP((12, *hidden, 3), activation)
    (widths,) = large.widths([hidden])
    x = jax.random.normal(jax.random.key(1), (12,))

    def value(params):
        return jnp.sum(jnp.tanh(large.apply(params, x, widths=widths)))

    given, own = started(large, jax.random.key(2), hidden), small.init(jax.random.key(2))
    expected, slope = jax.value_and_grad(lambda p: jnp.sum(jnp.tanh(small.apply(p, x))))(own)
    found, padded_slope = jax.value_and_grad(value)(given)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    cut = mlp.cut(jax.tree.map(np.asarray, padded_slope), hidden)
    for a, b in zip(*map(jax.tree.leaves, (cut, slope)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    within, everywhere = (
        sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(tree))
        for tree in (cut, padded_slope)
    )
    assert within == everywhere


@pytest.mark.parametrize("optimizer", ["momentum", pytest.param("adam", marks=pytest.mark.slow)])
def test_a_search_of_many_sizes_finds_what_a_program_for_each_size_finds(optimizer, monkeypatch):
    sizes = ((9, 7), (9,), (8, 6))
    space = SPACE | {"optimizer": fixed(optimizer), "hidden": choice(*sizes)}
    few(monkeypatch, 2)
    found = search(TASK, space, method=of_sizes(sizes, optimizer=optimizer), key=3, seeds=2)
    few(monkeypatch, 3)
    expected = search(TASK, space, method=of_sizes(sizes, optimizer=optimizer), key=3, seeds=2)
    assert (found.programs, expected.programs) == (1, 3)
    for n, curve in found.curves.items():
        np.testing.assert_allclose(
            curve.values("loss"), expected.curves[n].values("loss"), rtol=1e-3
        )
    for a, b in zip(*map(jax.tree.leaves, (found.params, expected.params)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_the_chosen_model_is_a_network_of_the_chosen_size(tmp_path):
    found = search(TASK, SPACE, method=of_sizes(SIZES), key=1)
    sizes = (12, *found.best.config["hidden"], 3)
    assert [layer.weight.shape[-2:] for layer in found.params] == [
        (out, into) for into, out in pairwise(sizes)
    ]
    found.save_model(tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert tuple(layer.weight.shape[-2:] for layer in model.params) == tuple(
        (out, into) for into, out in pairwise(sizes)
    )
    assert len(found.test().accuracies) == 1
    counts = {n: curve.parameter_count for n, curve in found.curves.items()}
    assert counts[0] == 12 * 9 + 9 + 9 * 7 + 7 + 7 * 3 + 3


@pytest.mark.parametrize("method", [successive_halving(8, eta=2), random(7)], ids=["halving", "r"])
def test_a_search_of_padded_networks_resumes_with_the_same_bits(method, tmp_path, monkeypatch):
    few(monkeypatch, 1)

    class StoppedError(Exception):
        pass

    def stop(status):
        if status.done >= 9:
            raise StoppedError

    where = {"method": method, "key": 2, "checkpoint_seconds": 0}
    whole = search(TASK, SPACE, **where, folder=tmp_path / "whole")
    with pytest.raises(StoppedError):
        search(TASK, SPACE, **where, folder=tmp_path / "stopped", progress=stop)
    resumed = search(TASK, SPACE, **where, folder=tmp_path / "stopped")
    assert resumed.programs < len({str(trial["hidden"]) for trial in resumed.table})
    assert resumed.table == whole.table
    for a, b in zip(*map(jax.tree.leaves, (resumed.params, whole.params)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_later_rounds_train_new_sizes_in_the_programs_of_the_first():
    sizes = tuple(zip(SIZES[:5], ((8, 7), (9, 6), (8, 6), (9, 7), (7, 9)), strict=True))
    interleaved = [each for pair in sizes for each in pair]
    first = search(TASK, SPACE, method=of_sizes([a for a, _ in sizes]), key=1).programs
    assert search(TASK, SPACE, method=of_sizes(interleaved, rounds=2), key=1).programs == first


def test_few_sizes_have_a_program_each():
    task = Task(TRAIN, TEST, epochs=1)
    assert search(task, SPACE, method=of_sizes(SIZES[: trainer.FEW]), key=1).programs == 4


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        *dict.fromkeys(("sgd", "momentum", "nesterov", "adam", "adamw", "lion"), True).items(),
        ("adafactor", False),
    ],
)
def test_an_optimizer_that_looks_at_several_parameters_at_once_is_seen(optimizer, expected):
    def same(hyper):
        return named(optimizer)(hyper.learning_rate)

    assert trainer._keeps_zeros(same, "relu", ("learning_rate",)) == expected


def test_an_optimizer_of_the_users_own_that_divides_by_the_mean_is_seen(monkeypatch):
    def normalised(hyper):
        import optax

        def update(updates, state, params=None):
            return jax.tree.map(lambda g: -hyper.learning_rate * g / jnp.mean(g**2), updates), state

        return optax.GradientTransformation(lambda params: (), update)

    assert not trainer._keeps_zeros(normalised, "relu", ("learning_rate",))
    task = Task(TRAIN, TEST, epochs=1)
    space = SPACE | {"optimizer": fixed(normalised)}
    few(monkeypatch, 1)
    found = search(task, space, method=of_sizes(SIZES[:2], optimizer=normalised), key=1)
    assert found.programs == 2


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(jnp.sin, True), (jax.nn.softplus, True), (jax.nn.softmax, False), (jnp.log, False)],
)
def test_an_activation_that_is_not_elementwise_or_not_finite_at_zero_is_seen(activation, expected):
    assert trainer._keeps_zeros("sgd", activation, ("learning_rate",)) == expected


@pytest.mark.parametrize("seed", range(5))
def test_less_than_half_of_the_work_is_padding(seed):
    rng = np.random.default_rng(seed)
    sizes = [tuple(rng.integers(2, 100, rng.integers(1, 4)).tolist()) for _ in range(20)]
    specs = [Spec(MLP((64, *hidden, 10)), 1) for hidden in sizes]
    groups = trainer.together(specs)

    def work(spec):
        return sum(i * o for i, o in pairwise(spec.model.sizes))

    padded = sum(len(group) * work(trainer.padded(group)) for group in groups)
    assert padded < 2 * sum(map(work, specs))
    assert sorted(map(id, specs)) == sorted(id(spec) for group in groups for spec in group)
    assert len(groups) <= 5


@pytest.mark.parametrize(
    ("trials", "replicates", "expected"), [(18, 1, 9), (14, 1, 7), (5, 2, 5), (100, 1, 25)]
)
def test_the_blocks_of_padded_networks_fill_two_devices(trials, replicates, expected):
    spec = trainer.padded([Spec(MLP((12, *sizes, 3)), 1) for sizes in SIZES])
    planned = [trainer.Work(trials, 100)]
    assert trainer.cheapest(spec, planned, (), replicates, 2, "cpu").block_size == expected


def test_the_page_says_that_sizes_share_programs():
    text = programs(Space(SPACE))
    assert text.endswith("and networks of many sizes are padded to share programs")
    assert "padded" not in programs(Space(SPACE | {"hidden": choice((5,), (6,))}))


def test_a_folder_of_padded_networks_goes_on_with_seeds_and_refuses_networks(tmp_path, monkeypatch):
    few(monkeypatch, 1)
    where = {"key": 4, "folder": tmp_path / "search", "block_size": 2}
    task = Task(TRAIN, TEST, epochs=2)
    search(task, SPACE, method=random(8), **where)
    found = search(task, SPACE, method=random(8), seeds=2, **where)
    expected = search(task, SPACE, method=random(8), seeds=2, key=4, block_size=2)
    assert found.table == expected.table
    for a, b in zip(*map(jax.tree.leaves, (found.params, expected.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.programs < len({str(trial["hidden"]) for trial in found.table})
    loaded = Result.load(tmp_path / "search")
    for a, b in zip(*map(jax.tree.leaves, (loaded.params, expected.params)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(RunFolderError, match="networks of many sizes are padded together"):
        search(task, SPACE, method=random(9), seeds=2, **where)
