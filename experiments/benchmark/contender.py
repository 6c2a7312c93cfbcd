"""What a contender is, and which there are."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from experiments.benchmark.problem import Problem


class Contender(Protocol):
    """One way to train networks. It is made once in its process, with time to prepare the data."""

    def __init__(self, problem: Problem): ...

    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool
    ) -> np.ndarray | None:
        """Trains a freshly drawn network with each learning rate; all of this is timed.

        Args:
          learning_rates: K of them.
          epochs: whole passes over the training examples, shuffled anew for each.
          seed: decides initial weights and orders.
          evaluate: whether to measure the accuracy on the validation examples after every epoch.

        Returns:
          The accuracies [K, epochs] if ``evaluate``, else None. The weights have been computed when
          the call returns.
        """
        ...


class OneByOne(ABC):
    """A contender that trains one network after another."""

    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool
    ) -> np.ndarray | None:
        """See ``Contender.train``."""
        accuracies = [self.train_one(r, epochs, seed, evaluate=evaluate) for r in learning_rates]
        return np.array(accuracies) if evaluate else None

    @abstractmethod
    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """One network; the accuracies after each epoch if ``evaluate``, else an empty list."""


class Entry(NamedTuple):
    """A line of the tables."""

    label: str
    place: str  # module:class under experiments.benchmark.peers
    packages: tuple[str, ...] = ()  # whose versions are reported
    whole_population: bool = False  # trains all learning rates at once


CONTENDERS = {
    "numpy": Entry("NumPy by hand", "numpy_by_hand:NumPyByHand", ("numpy",)),
    "torch": Entry("PyTorch, eager", "pytorch:Eager", ("torch",)),
    "torch_compile": Entry("PyTorch, torch.compile", "pytorch:Compiled", ("torch",)),
    "sklearn": Entry("scikit-learn MLPClassifier", "scikit_learn:Classifier", ("scikit-learn",)),
    "keras": Entry("Keras on JAX", "keras_on_jax:KerasOnJax", ("keras", "jax")),
    "flax": Entry("Flax + optax", "flax_and_optax:FlaxAndOptax", ("flax", "optax", "jax")),
    "equinox": Entry(
        "Equinox + optax", "equinox_and_optax:EquinoxAndOptax", ("equinox", "optax", "jax")
    ),
    "torch_func": Entry("torch.func vmap", "pytorch:Vmapped", ("torch",), True),
    "torch_func_compiled": Entry(
        "torch.func vmap, torch.compile", "pytorch:CompiledVmapped", ("torch",), True
    ),
    "flax_vmap": Entry(
        "jit(vmap) of a Flax step", "flax_and_optax:Vmapped", ("flax", "optax", "jax"), True
    ),
    "jaxnn": Entry("jaxnn", "jaxnn_itself:Jaxnn", ("jaxnn", "jax"), True),
}


def make(name: str, problem: Problem) -> Contender:
    """The contender, ready to train.

    Raises:
      ModuleNotFoundError: its package is not installed.
    """
    module, _, kind = CONTENDERS[name].place.partition(":")
    return getattr(import_module(f"experiments.benchmark.peers.{module}"), kind)(problem)
