"""The contenders of the benchmark train as the problem defines, each with its own library."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from shutil import which
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from sgd_by_definition import (
    NETWORKS,
    RATE,
    Layers,
    Train,
    assert_accuracies_are_those_of_the_parameters,
    assert_seeds_decide,
    assert_trains_as_defined,
    compilations,
    minibatches_between,
    small,
)

from experiments.benchmark.problem import Examples

# PyTorch's own, when it compiles.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
OTHER_RATES = 0.05, 1.0  # of a population's other members


def kernels(pairs) -> Layers:
    """Layers of (weight [..., in, out], bias)."""
    return [(np.asarray(weight).swapaxes(-2, -1), np.asarray(bias)) for weight, bias in pairs]


def of_flax(state) -> Layers:
    dense = [state.params[f"Dense_{i}"] for i in range(len(state.params))]
    return kernels((each["kernel"], each["bias"]) for each in dense)


def of_torch(state) -> Layers:
    """The first of the state is a module, or a module's parameters by name."""
    model, _ = state
    parameters = model if isinstance(model, dict) else model.state_dict()
    arrays = [each.numpy() for each in parameters.values()]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def of_equinox(leaves) -> Layers:
    """The model's leaves come first: weights and biases in turn, before the optimizer's scalars."""
    arrays = [np.asarray(leaf) for leaf in leaves if leaf.ndim]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def of_scikit_learn(model) -> Layers:
    return kernels(zip(model.coefs_, model.intercepts_, strict=True))


def of_keras(state) -> Layers:
    return kernels(zip(state[0][::2], state[0][1::2], strict=True))


class Way(NamedTuple):
    """A contender, and how to read its parameters."""

    package: str
    place: str
    layers: Callable[[Any], Layers]
    at_once: bool = False
    seed: int = 0  # is added: from there the accuracies are not all equal
    evaluate: bool = False  # always


WAYS = {
    "numpy": Way("numpy", "numpy_by_hand:prepare", lambda state: kernels(state[0])),
    "sklearn fit": Way("sklearn", "scikit_learn:prepare", of_scikit_learn, seed=7),
    "sklearn partial_fit": Way(
        "sklearn", "scikit_learn:prepare", of_scikit_learn, seed=7, evaluate=True
    ),
    "flax": Way("flax", "on_jax:flax", of_flax),
    "flax vmap": Way("flax", "on_jax:flax_vmapped", of_flax, at_once=True),
    "equinox": Way("equinox", "on_jax:equinox", of_equinox),
    "keras": Way("keras", "keras_on_jax:prepare", of_keras),
    "torch eager": Way("torch", "pytorch:eager", of_torch, seed=1),
    "torch by hand": Way("torch", "pytorch:by_hand", of_torch, seed=1),
    "torch compiled": Way("torch", "pytorch:compiled", of_torch, seed=1),
    "torch vmap": Way("torch", "pytorch:vmapped", of_torch, at_once=True, seed=1),
    "torch vmap compiled": Way("torch", "pytorch:compiled_vmapped", of_torch, at_once=True, seed=1),
}


def prepared(way, problem):
    module, _, function = way.place.partition(":")
    return getattr(import_module(f"experiments.benchmark.peers.{module}"), function)(problem)


def trainer(way: Way, problem) -> Train:
    """The contender as something that trains one network: of a population, the middle one."""
    function = prepared(way, problem)

    def train(rate, epochs, seed=0, *, evaluate=False):
        rate = rate or (1e-30 if way.package == "sklearn" else 0)  # scikit-learn refuses 0
        rates = [OTHER_RATES[0], rate, OTHER_RATES[1]] if way.at_once else rate
        found = function(rates, epochs, seed + way.seed, evaluate or way.evaluate)
        layers, accuracies = way.layers(found[0]), found[1]
        assert len(accuracies) == (epochs if evaluate or way.evaluate else 0)
        if way.at_once:
            layers = [(weight[1], bias[1]) for weight, bias in layers]
            accuracies = [each[1] for each in accuracies]
        return layers, [float(each) for each in accuracies] if evaluate else None

    return train


def cases(*names: str) -> list:
    """The named ways, each skipped where its package or compiler is missing."""

    def missing(name: str) -> bool:
        compiles = "compiled" in name and not which("g++")
        return find_spec(WAYS[name].package) is None or compiles

    skips = {name: pytest.mark.skipif(missing(name), reason="not installed") for name in names}
    return [pytest.param(WAYS[name], id=name, marks=skips[name]) for name in names]


JAX_WAYS = ("flax", "flax vmap", "equinox", "keras")
TORCH_WAYS = ("torch eager", "torch compiled", "torch vmap", "torch vmap compiled")


def problem_of(network: str, way: Way):
    made = small(NETWORKS[network])
    if way.package != "sklearn":
        return made
    targets = np.array([0, 1, 2, 2, 1, 0])  # scikit-learn knows the classes that it sees
    return replace(made, train=made.train._replace(targets=targets))


@pytest.fixture(scope="module", params=cases(*WAYS))
def way(request) -> Way:
    return request.param


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request, way):
    return problem_of(request.param, way)


@pytest.fixture(scope="module")
def train(way, problem) -> Train:
    return trainer(way, problem)


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(way, problem, train):
    if way is WAYS["sklearn fit"]:
        pytest.skip("fit draws other orders than partial_fit, which evaluates")
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


def test_parameters_are_single_precision(train):
    layers, _ = train(np.float64(0.1), 1)
    assert {array.dtype for layer in layers for array in layer} == {np.dtype(np.float32)}


@pytest.mark.parametrize("way", cases(*JAX_WAYS))
def test_on_jax_another_learning_rate_and_seed_compile_nothing(way, caplog):
    train = trainer(way, small(NETWORKS["softmax"]))
    assert compilations(caplog, train, 0.1, 0) > 0
    assert compilations(caplog, train, 0.2, 1) == 0


@pytest.mark.parametrize("way", cases(*TORCH_WAYS))
def test_on_torch_another_learning_rate_and_seed_compile_nothing(way):
    torch = pytest.importorskip("torch")

    train = trainer(way, small(NETWORKS["softmax"]))
    train(0.1, 1)
    with torch.compiler.set_stance("fail_on_recompile"):
        train(0.2, 2, seed=1, evaluate=True)


@pytest.mark.parametrize("way", cases("torch compiled"))
def test_what_was_compiled_for_one_problem_is_not_taken_for_another(way):
    problems = small(NETWORKS["softmax"]), replace(small((5, 4, 3)), l2=0.9)
    pairs = [[trainer(w, each) for w in (way, WAYS["torch eager"])] for each in problems]
    for rate in (0.1, 0.3):
        for pair in pairs:
            found, expected = (train(rate, 2)[0] for train in pair)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


@pytest.mark.parametrize("way", cases("flax vmap"))
def test_members_share_start_and_minibatches_but_not_the_learning_rate(way):
    problem, rates = small(NETWORKS["softmax"]), [0.1, RATE, 1.0]
    function = prepared(way, problem)

    def trained(rates):
        stacked = of_flax(function(rates, 1, 0, False)[0])
        return [[(weight[k], bias[k]) for weight, bias in stacked] for k in range(len(rates))]

    starts, ends = trained([0.0] * 3), trained(rates)
    orders = [
        minibatches_between(problem, starts[0], end, rate)
        for end, rate in zip(ends, rates, strict=True)
    ]
    assert all(np.array_equal(order, orders[0]) for order in orders)


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("way", cases("sklearn fit"))
def test_no_training_of_scikit_learn_stops_early(way, evaluate):
    function = prepared(way, problem_of("softmax", way))
    model, _ = function(10.0, 30, 0, evaluate)  # so fast that nothing improves after a few epochs
    assert len(model.loss_curve_) == 30


def test_what_is_left_of_an_epoch_waits_for_another():
    problem, generator = replace(small((5, 3)), batch_size=4), np.random.default_rng(0)
    epochs = [list(problem.minibatches(generator)) for _ in range(20)]
    assert {len(epoch) for epoch in epochs} == {1}
    assert {len(set(epoch[0].tolist())) for epoch in epochs} == {4}
    assert {row for epoch in epochs for row in epoch[0].tolist()} == set(range(6))


def test_large_logits_do_not_overflow_in_numpy():
    from experiments.benchmark.peers import numpy_by_hand

    layers = [(np.eye(3, dtype=np.float32) * 1e4, np.zeros(3, np.float32))]
    x = np.eye(3, dtype=np.float32)
    numpy_by_hand.update(layers, x, np.roll(x, 1, axis=1), np.float32(1), 0.0)
    # Surely wrong: softmax is the prediction's one-hot row, the gradient (prediction - target) / 3.
    np.testing.assert_allclose(layers[0][0], np.eye(3) * 1e4 - (np.eye(3) - np.roll(x, 1, 1)) / 3)


def test_inputs_are_scaled_once_and_in_single_precision():
    pixels = np.array([[0, 51, 255]], np.uint8)
    inputs = Examples(pixels, np.zeros(1), np.asarray(1 / 255)).inputs
    assert inputs.dtype == np.float32
    assert inputs == pytest.approx(np.array([[0, 0.2, 1]]))
