"""The trainings of every contender of the benchmark, from the problem's definition.

Of a contender, only the parameters are read: the minibatches of a training are found by training
with all possible ones.
"""

from itertools import pairwise, permutations
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark.problem import Examples, Problem

Layers = list[tuple[np.ndarray, np.ndarray]]  # weight [out, in], bias [out]

NETWORKS = {"softmax": (5, 3), "mlp": (5, 16, 8, 3)}
RATE = 0.3
TOLERANCE = 2e-6  # float32 after nine steps; another minibatch makes 1e-3


class Train(Protocol):
    """A contender seen as something that trains one network."""

    def __call__(
        self, rate: float, epochs: int, seed: int = 0, *, evaluate: bool = False
    ) -> tuple[Layers, list[float] | None]:
        """The parameters, and what accuracies it says that it had."""
        ...


def small(sizes: tuple[int, ...]) -> Problem:
    """Six examples in minibatches of two, and a strong penalty."""
    generator = np.random.default_rng(0)

    def examples(count: int) -> Examples:
        pixels = generator.integers(0, 256, (count, sizes[0])).astype(np.uint8)
        targets = pixels[:, : sizes[-1]].argmax(axis=1).astype(np.int32)
        return Examples(pixels, targets, np.float32(1 / 255))

    return Problem(sizes, examples(6), examples(50), batch_size=2, l2=0.1)


def logits(layers: Layers, inputs: jax.Array) -> jax.Array:
    """Of a minibatch of inputs."""
    for weight, bias in layers[:-1]:
        inputs = jnp.maximum(inputs @ weight.T + bias, 0)
    weight, bias = layers[-1]
    return inputs @ weight.T + bias


def objective(layers: Layers, inputs: jax.Array, targets: jax.Array, l2: float) -> jax.Array:
    """Mean cross-entropy + l2/2 * sum of squared weights."""
    z = logits(layers, inputs)
    cross_entropy = jax.nn.logsumexp(z, axis=1) - z[jnp.arange(len(z)), targets]
    return cross_entropy.mean() + l2 / 2 * sum((weight**2).sum() for weight, _ in layers)


def epochs_of(problem: Problem) -> np.ndarray:
    """All ways to go through the examples once, [ways, steps, B]."""
    orders = np.array(list(permutations(range(len(problem.train.targets)))))
    orders = np.sort(orders.reshape(len(orders), -1, problem.batch_size), axis=2)
    return np.unique(orders, axis=0)


def trained(
    layers: Layers, inputs: jax.Array, targets: jax.Array, way: jax.Array, rate: float, l2: float
) -> Layers:
    """The parameters after an epoch of steps with the minibatches [steps, B]."""

    def step(layers: Layers, rows: jax.Array) -> tuple[Layers, None]:
        gradient = jax.grad(objective)(layers, inputs[rows], targets[rows], l2)
        return jax.tree.map(lambda p, g: p - rate * g, layers, gradient), None

    return jax.lax.scan(step, layers, way)[0]


trained_in_all_ways = jax.jit(jax.vmap(trained, in_axes=(None, None, None, 0, None, None)))


def minibatches_between(problem: Problem, before: Layers, after: Layers, rate: float) -> np.ndarray:
    """The one way to go through the examples that leads from these parameters to those."""
    inputs, ways = problem.train.inputs, epochs_of(problem)
    ends = trained_in_all_ways(before, inputs, problem.train.targets, ways, rate, problem.l2)
    apart = jax.tree.map(lambda end, p: np.abs(end - p).reshape(len(ways), -1), ends, after)
    largest = np.concatenate(jax.tree.leaves(apart), axis=1).max(axis=1)
    assert np.sum(largest < TOLERANCE) == 1, np.sort(largest)[:3]
    return ways[largest.argmin()]


def assert_trains_as_defined(problem: Problem, train: Train) -> None:
    """Every epoch goes through all examples once, in new orders, by SGD with L2 on the weights."""
    start, _ = train(0.0, 1)
    assert [weight.shape for weight, _ in start] == [(o, i) for i, o in pairwise(problem.sizes)]
    assert all(np.std(weight) > 0.1 for weight, _ in start)
    ends = [start, *(train(RATE, epochs)[0] for epochs in (1, 2, 3))]
    ways = [minibatches_between(problem, *pair, RATE) for pair in pairwise(ends)]
    assert len({way.tobytes() for way in ways}) == 3


def assert_seeds_decide(train: Train) -> None:
    """The same seed, the same parameters; another one, other weights from the start."""
    first, again, other = (train(0.0, 1, seed)[0] for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    assert all(np.abs(a[0] - b[0]).min() > 0 for a, b in zip(first, other, strict=True))


def assert_accuracies_are_those_of_the_parameters(problem: Problem, train: Train) -> None:
    """After every epoch, on the validation examples; and measuring changes nothing."""
    seed = 3  # with which no contender's accuracies are all the same
    inputs = jnp.asarray(problem.validation.inputs)
    ends = [train(RATE, epochs, seed)[0] for epochs in (1, 2, 3)]
    predicted = [logits(layers, inputs).argmax(axis=1) for layers in ends]
    expected = [float(np.mean(each == problem.validation.targets)) for each in predicted]
    assert len(set(expected)) > 1
    layers, accuracies = train(RATE, 3, seed, evaluate=True)
    assert accuracies == pytest.approx(expected, abs=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), layers, ends[-1])
    assert train(RATE, 1, seed)[1] is None


def compilations(caplog: pytest.LogCaptureFixture, train: Train, rate: float, seed: int) -> int:
    """How many programs this training had to compile."""
    caplog.clear()
    with jax.log_compiles(), caplog.at_level("WARNING"):
        train(rate, 2, seed, evaluate=True)
    return sum("Compiling" in message for message in caplog.messages)
