"""The task of every contender: network, examples, penalty. Imports NumPy alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NETWORKS = {"softmax": (784, 10), "mlp": (784, 50, 50, 10)}
BATCH_SIZE = 100
L2 = 1e-4
VALIDATION_SHARE = 1 / 6
Train = Callable[[Any, int, int, bool], tuple[Any, Any]]
"""A contender, ready to train: ``train(rate, epochs, seed, evaluate)``.

Draws a network, trains for whole epochs and returns the finished parameters and, if ``evaluate``,
the accuracy on the validation examples after each epoch. A contender for a whole population takes
all learning rates [K] at once; an accuracy then has an entry per network.
"""


class Examples(NamedTuple):
    """Images and labels, with the fields of ``jaxnn.Data``."""

    pixels: np.ndarray  # [N, in], 8-bit
    targets: np.ndarray  # [N]
    scale: Any  # []: the network's input is scale * pixel

    @property
    def inputs(self) -> np.ndarray:
        """The inputs in floating point, [N, in]."""
        return np.multiply(self.pixels, self.scale, dtype=np.float32)


@dataclass(frozen=True)
class Problem:
    """A network to train by plain minibatch SGD with L2 on the weights.

    Minimises mean cross-entropy + l2/2 * sum of squared weights, biases free (S2.4); ReLU between
    layers; every epoch goes through all training examples in a new random order.
    """

    sizes: tuple[int, ...]
    train: Examples
    validation: Examples
    batch_size: int = BATCH_SIZE
    l2: float = L2

    @property
    def steps_per_epoch(self) -> int:
        """Whole minibatches in the training examples."""
        return len(self.train.targets) // self.batch_size

    def minibatches(self, generator: np.random.Generator) -> Iterator[np.ndarray]:
        """The rows of each minibatch of one epoch, in a new order."""
        order = generator.permutation(len(self.train.targets)).astype(np.int32)
        steps, size = self.steps_per_epoch, self.batch_size
        yield from order[: steps * size].reshape(steps, size)


@dataclass
class Loop:
    """A contender that takes a step per minibatch, as a ``Train``."""

    problem: Problem
    arrays: Callable[[Examples], Any]  # inputs and targets as arrays of the library
    create: Callable[[int, Any], Any]  # (seed, learning rate) -> state
    step: Callable[..., Any]  # (state, inputs, targets, rows) -> state
    logits: Callable[[Any, Any], Any]  # (state, inputs) -> [..., N, classes]
    wait: Callable[[Any], Any] = lambda state: state  # returns when the state is computed

    def __post_init__(self):
        self.train, self.validation = map(
            self.arrays, (self.problem.train, self.problem.validation)
        )

    def __call__(self, rate: Any, epochs: int, seed: int, evaluate: bool) -> tuple[Any, list]:
        """The finished state, and the accuracies if ``evaluate``."""
        state, accuracies = self.create(seed, rate), []
        generator = np.random.default_rng(seed)
        for _ in range(epochs):
            state = self.epoch(state, generator)
            if evaluate:
                accuracies.append(self.accuracy(state))
        return self.wait(state), accuracies

    def epoch(self, state: Any, generator: np.random.Generator) -> Any:
        """The state after all minibatches of an epoch."""
        for rows in self.problem.minibatches(generator):
            state = self.step(state, *self.train, rows)
        return state

    def accuracy(self, state: Any) -> Any:
        """The share of rightly predicted validation examples, of every network of the state."""
        predicted = np.asarray(self.logits(state, self.validation[0])).argmax(axis=-1)
        return np.mean(predicted == self.problem.validation.targets, axis=-1)


def network_name(sizes: Any) -> str:
    """The layers' sizes as in 784-50-50-10."""
    return "-".join(map(str, sizes))


def cores_name(count: int) -> str:
    """As in 1 core, 2 cores."""
    return f"{count} core{'' if count == 1 else 's'}"


def mnist_shaped(data: Any, count: int) -> Examples:
    """``count`` images of 784 pixels from a ``jaxnn.Data``, enlarged and repeated if need be."""
    pixels = np.asarray(data.inputs)
    width = int(pixels.shape[1] ** 0.5)
    if pixels.shape[1] != 784 and width * width == pixels.shape[1] and width < 28:
        factor, margin = divmod(28, width)
        enlarged = pixels.reshape(-1, width, width).repeat(factor, axis=1).repeat(factor, axis=2)
        pad = (margin // 2, margin - margin // 2)
        pixels = np.pad(enlarged, ((0, 0), pad, pad)).reshape(-1, 784)
    if pixels.shape[1] != 784:
        size = pixels.shape[1]
        raise ValueError(f"the images have {size} pixels, expected 784 or a small square")
    rows = np.arange(count) % len(pixels)
    return Examples(pixels[rows], np.asarray(data.targets)[rows], np.asarray(data.scale))


def split(examples: Examples) -> tuple[Examples, Examples]:
    """Examples to train on, and the last sixth to validate with."""
    pixels, targets, scale = examples
    cut = round(len(targets) * (1 - VALIDATION_SHARE))
    parts = slice(None, cut), slice(cut, None)
    train, validation = (Examples(pixels[rows], targets[rows], scale) for rows in parts)
    return train, validation


def store(folder: Path, train: Any, validation: Any) -> None:
    """Writes ``Examples`` or a ``jaxnn.Data`` of each kind for the contenders' processes."""
    from jaxnn.files import atomic_write  # with JAX, which peers do without

    for name, examples in {"train": train, "validation": validation}.items():
        for field, array in zip(Examples._fields, examples[:3], strict=True):
            with atomic_write(folder / f"{name}_{field}.npy") as file:
                np.save(file, array)


def restore(folder: Path, sizes: tuple[int, ...], batch_size: int = BATCH_SIZE) -> Problem:
    """The problem with the examples of ``store``; all processes share the pixels in memory."""

    def examples(name: str) -> Examples:
        pixels = np.load(folder / f"{name}_pixels.npy", mmap_mode="r")
        rest = (np.load(folder / f"{name}_{field}.npy") for field in ("targets", "scale"))
        return Examples(pixels, *rest)

    return Problem(sizes, examples("train"), examples("validation"), batch_size)
