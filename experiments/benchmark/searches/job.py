"""The job of a search program, and the lines that the program prints.

Imports NumPy alone: a search pays for its own library and for no peer's.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from experiments.benchmark.problem import Examples, restore


class Job(NamedTuple):
    """A search of learning rate and L2, both log-uniform, equal for all libraries.

    Minimises mean cross-entropy + l2/2 * sum of squared weights, biases free, by minibatch SGD with
    heavy-ball momentum; ReLU between layers; every epoch goes through all training examples in a
    new random order.
    """

    method: str  # a method of the library
    data: str  # the folder of the examples, written by ``problem.store``
    sizes: tuple[int, ...]
    configurations: int
    epochs: int  # at most, of a configuration
    seed: int
    processes: int  # at most, at a time
    learning_rate: tuple[float, float]  # smallest and largest
    l2: tuple[float, float]
    momentum: float
    batch_size: int

    @classmethod
    def given(cls) -> "Job":
        """The job of the command line, a JSON object; prints the end of all imports."""
        write({"imported": True})
        return cls(**json.loads(sys.argv[1]))

    @property
    def examples(self) -> tuple[Examples, Examples]:
        """Training and validation examples."""
        problem = restore(Path(self.data), tuple(self.sizes))
        return problem.train, problem.validation


def tell(accuracy: float) -> None:
    """Prints the share of the validation examples that a model predicts rightly."""
    write({"accuracy": float(accuracy)})


def write(line: dict[str, bool | float]) -> None:
    """Prints a line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")  # in a single call: several processes share the pipe
    sys.stdout.flush()
