"""The common ground of the start-up scripts: the task, the digits, the stopwatch.

Imports NumPy alone. ``sklearn.datasets`` takes longer to import than all the rest of most scripts:
the digits come from a file of arrays instead.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import SupportsFloat

import numpy as np

STEPS = 500
BATCH_SIZE = 100
LEARNING_RATE = 0.5
L2 = 1e-4
_reached: dict[str, float] = {}


def load() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training inputs [1437, 64] in 0..1 and labels, test inputs [360, 64] and labels."""
    with np.load(sys.argv[2]) as file:
        x_train, y_train, x_test, y_test = (
            file[name] for name in ("x_train", "y_train", "x_test", "y_test")
        )
    return x_train.astype(np.float32) / 16, y_train, x_test.astype(np.float32) / 16, y_test


def minibatches(examples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The rows of every minibatch; each epoch of whole minibatches is a new random order."""
    generator = np.random.default_rng(seed)
    per_epoch = examples // BATCH_SIZE
    for step in range(STEPS):
        place = step % per_epoch
        if place == 0:
            order = generator.permutation(examples)
        yield order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]


def reached(stage: str) -> None:
    """Notes the seconds since the start of the process: "imports", or "first_step", compiled."""
    _reached[stage] = time.time() - float(sys.argv[1])


def finish(accuracy: SupportsFloat) -> None:
    """Prints the accuracy and the times of all stages as one line of JSON."""
    reached("result")
    print(json.dumps(_reached | {"accuracy": float(accuracy)}))
