"""The examples and their order, for the scripts that bring neither themselves.

Importing ``sklearn.datasets`` takes longer than all the rest of most of these scripts, so that none
of them has to: the digits are read from a file of arrays.
"""

import sys
from collections.abc import Iterator

import numpy as np

from experiments.benchmark.startups import BATCH_SIZE, STEPS


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training inputs [1437, 64] in 0..1 and labels, test inputs [360, 64] and labels."""
    with np.load(sys.argv[2]) as file:
        x_train, y_train, x_test, y_test = (
            file[name] for name in ("x_train", "y_train", "x_test", "y_test")
        )
    return scaled(x_train), y_train, scaled(x_test), y_test


def scaled(pixels: np.ndarray) -> np.ndarray:
    """Pixels 0..16 as inputs 0..1."""
    return pixels.astype(np.float32) / 16


def minibatches(examples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The rows of every minibatch; each epoch of whole minibatches is a new random order."""
    generator = np.random.default_rng(seed)
    per_epoch = examples // BATCH_SIZE
    for step in range(STEPS):
        place = step % per_epoch
        if place == 0:
            order = generator.permutation(examples)
        yield order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
