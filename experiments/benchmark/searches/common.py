"""What the searches have in common: what they are asked, and how they tell what they have measured.

Nothing but NumPy is imported here: a search pays for its own library and for no other.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Job(NamedTuple):
    """A search of learning rate and L2, both log-uniform, that is the same for all libraries.

    Minimises mean cross-entropy + l2/2 * sum of squared weights, biases free, by minibatch SGD with
    heavy-ball momentum; ReLU between layers; every epoch goes through all training examples in a
    new random order.
    """

    method: str  # of those that the library has
    data: str  # the folder of the examples, as ``problem.store`` left them
    sizes: tuple[int, ...]
    configurations: int
    epochs: int  # that one configuration is trained at most
    seed: int
    processes: int  # that may work at the same time
    learning_rate: tuple[float, float]  # smallest and largest
    l2: tuple[float, float]
    momentum: float
    batch_size: int

    @classmethod
    def given(cls) -> "Job":
        """That of the command line: a JSON object. Tells that the program is there to take it."""
        write({"imported": True})
        return cls(**json.loads(sys.argv[1]))


class Examples(NamedTuple):
    """Some of the examples."""

    pixels: np.ndarray  # [N, in], 8-bit
    targets: np.ndarray  # [N]
    scale: np.ndarray  # [], of which scale * pixel is the input

    @property
    def inputs(self) -> np.ndarray:
        """As most libraries want them: [N, in] float32."""
        return np.multiply(self.pixels, self.scale, dtype=np.float32)


def examples(job: Job) -> tuple[Examples, Examples]:
    """Those to train on, and those that choose."""

    def some(name: str) -> Examples:
        fields = ("inputs", "targets", "scale")
        return Examples(*(np.load(Path(job.data) / f"{name}_{field}.npy") for field in fields))

    return some("train"), some("validation")


def tell(accuracy: float) -> None:
    """Prints the share of the validation examples that some model predicts rightly."""
    write({"accuracy": float(accuracy)})


def write(line: dict[str, bool | float]) -> None:
    """Prints a line of JSON for ``watching``."""
    sys.stdout.write(json.dumps(line) + "\n")  # several processes: at once
    sys.stdout.flush()
