"""The contenders of the benchmark that are PyTorch: they train what the problem defines."""

# pyright: reportMissingImports=false
from dataclasses import replace
from shutil import which

import jax
import numpy as np
import pytest
from sgd_by_definition import (
    NETWORKS,
    Train,
    assert_accuracies_are_those_of_the_parameters,
    assert_seeds_decide,
    assert_trains_as_defined,
    small,
)

pytest.importorskip("torch")
import torch

from experiments.benchmark.peers import pytorch

# PyTorch's own, when it compiles.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

OTHER_RATES = 0.05, 1.0  # of a population's other members
needs_compiler = pytest.mark.skipif(not which("g++"), reason="torch.compile needs g++")
WAYS = (
    "Eager",
    pytest.param("Compiled", marks=needs_compiler),
    "Vmapped",
    pytest.param("CompiledVmapped", marks=needs_compiler),
)


def one(contender) -> Train:
    """A contender as something that trains one network: of a population the one in the middle."""
    several = isinstance(contender, pytorch.Vmapped)

    def train(rate, epochs, seed=0, *, evaluate=False):
        seed += 1  # from where no accuracies are all the same
        rates = [OTHER_RATES[0], rate, OTHER_RATES[1]] if several else [rate]
        accuracies = contender.train(rates, epochs, seed, evaluate=evaluate)
        member = 1 if several else ...
        found = [each.detach()[member].numpy() for each in contender.parameters.values()]
        layers = list(zip(found[::2], found[1::2], strict=True))
        return layers, None if accuracies is None else accuracies[member if several else 0].tolist()

    return train


@pytest.fixture(scope="module", params=NETWORKS)
def problem(request):
    return small(NETWORKS[request.param])


@pytest.fixture(scope="module", params=WAYS)
def contender(request, problem):
    return getattr(pytorch, request.param)(problem)


@pytest.fixture(scope="module")
def train(contender) -> Train:
    return one(contender)


def test_it_is_sgd_with_l2_on_the_weights(problem, train):
    assert_trains_as_defined(problem, train)


def test_accuracies_are_those_of_the_parameters(problem, train):
    assert_accuracies_are_those_of_the_parameters(problem, train)


def test_seeds_decide(train):
    assert_seeds_decide(train)


def test_another_learning_rate_and_seed_compile_nothing(train):
    train(0.1, 1)
    with torch.compiler.set_stance("fail_on_recompile"):
        train(0.2, 2, seed=1, evaluate=True)


def test_all_of_it_is_in_float32(contender, train):
    layers, _ = train(np.float64(0.1), 1)
    assert contender.examples.inputs.dtype == torch.float32
    assert {parameter.dtype for layer in layers for parameter in layer} == {np.dtype(np.float32)}


@needs_compiler
def test_what_was_compiled_for_one_problem_is_not_taken_for_another():
    problems = small(NETWORKS["softmax"]), replace(small((5, 4, 3)), l2=0.9)
    contenders = [(pytorch.Compiled(each), pytorch.Eager(each)) for each in problems]
    for rate in (0.1, 0.3):
        for pair in contenders:
            found, expected = (one(contender)(rate, 2)[0] for contender in pair)
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
