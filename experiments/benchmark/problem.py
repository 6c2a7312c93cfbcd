"""What every contender trains: the network, the examples, the penalty."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from jaxnn import Data

NETWORKS = {"softmax": (784, 10), "mlp": (784, 50, 50, 10)}
BATCH_SIZE = 100
L2 = 1e-4


@dataclass(frozen=True)
class Problem:
    """A network to train by plain minibatch SGD with L2 on the weights.

    Minimises mean cross-entropy + l2/2 * sum of squared weights, biases free (S2.4); ReLU between
    layers; every epoch goes through all training examples in a new random order.
    """

    sizes: tuple[int, ...]
    train: Data  # 8-bit pixels [N, in], of which scale * pixel is the input; labels [N]
    validation: Data
    batch_size: int = BATCH_SIZE
    l2: float = L2

    @property
    def steps_per_epoch(self) -> int:
        """Whole minibatches in the training examples."""
        return len(self.train.targets) // self.batch_size


def flops_per_step(sizes: tuple[int, ...], batch_size: int = BATCH_SIZE) -> int:
    """Floating-point operations of the matrix products of one model and step.

    Per layer one product forward and two backward, of 2 * B * in * out each; the first layer has no
    use for the gradient to its input.
    """
    products = [2 * batch_size * i * o for i, o in pairwise(sizes)]
    return 3 * sum(products) - products[0]


def mnist_shaped(data: Data, count: int) -> Data:
    """So many examples of 784 pixels: MNIST as it is, other images enlarged and repeated."""
    pixels = np.asarray(data.inputs)
    side = int(pixels.shape[1] ** 0.5)
    if pixels.shape[1] != 784 and side * side == pixels.shape[1] and side < 28:
        factor = 28 // side
        enlarged = np.kron(pixels.reshape(-1, side, side), np.ones((1, factor, factor), np.uint8))
        margin = 28 - factor * side
        pad = (margin // 2, margin - margin // 2)
        pixels = np.pad(enlarged, ((0, 0), pad, pad)).reshape(-1, 784).astype(pixels.dtype)
    if pixels.shape[1] != 784:
        raise ValueError(
            f"the images have {pixels.shape[1]} pixels, expected 784 or a small square"
        )
    rows = np.arange(count) % len(pixels)
    return Data(pixels[rows], np.asarray(data.targets)[rows], data.scale)


def store(folder: Path, train: Data, validation: Data) -> None:
    """Writes the examples where the contenders' processes find them."""
    for name, data in {"train": train, "validation": validation}.items():
        np.save(folder / f"{name}_inputs.npy", data.inputs)
        np.save(folder / f"{name}_targets.npy", data.targets)
        np.save(folder / f"{name}_scale.npy", data.scale)


def restore(folder: Path, sizes: tuple[int, ...]) -> Problem:
    """The problem with the examples of ``store``, which all processes share in memory."""

    def data(name: str) -> Data:
        inputs = np.load(folder / f"{name}_inputs.npy", mmap_mode="r")
        targets = np.load(folder / f"{name}_targets.npy")
        return Data(inputs, targets, np.load(folder / f"{name}_scale.npy")[()])

    return Problem(sizes, data("train"), data("validation"))
