"""The table of all contenders.

A contender is a function ``prepare(problem)`` that gets the examples ready and returns
``train(rate, epochs, seed, evaluate)``: draws a network, trains for whole epochs and returns the
finished parameters and, if ``evaluate``, the accuracy on the validation examples after each epoch.
A contender for a whole population takes all learning rates [K] at once; an accuracy then has an
entry per network.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from experiments.benchmark.problem import Problem

Train = Callable[[Any, int, int, bool], tuple[Any, Any]]


class Entry(NamedTuple):
    """A line of the tables."""

    label: str
    place: str  # module:function under experiments.benchmark.peers
    packages: str  # whose versions are reported
    whole_population: bool = False  # trains all learning rates at once


CONTENDERS = {
    "numpy": Entry("NumPy by hand", "numpy_by_hand:prepare", "numpy"),
    "torch": Entry("PyTorch, eager", "pytorch:eager", "torch"),
    "torch_compile": Entry("PyTorch, torch.compile", "pytorch:compiled", "torch"),
    "sklearn": Entry("scikit-learn MLPClassifier", "scikit_learn:prepare", "scikit-learn"),
    "keras": Entry("Keras on JAX", "keras_on_jax:prepare", "keras jax"),
    "flax": Entry("Flax + optax", "flax_and_optax:prepare", "flax optax jax"),
    "equinox": Entry("Equinox + optax", "equinox_and_optax:prepare", "equinox optax jax"),
    "torch_func": Entry("torch.func vmap", "pytorch:vmapped", "torch", True),
    "torch_func_compiled": Entry(
        "torch.func vmap, torch.compile", "pytorch:compiled_vmapped", "torch", True
    ),
    "flax_vmap": Entry("jit(vmap) of a Flax step", "flax_and_optax:vmapped", "flax jax", True),
    "jaxnn": Entry("jaxnn", "jaxnn_itself:prepare", "jaxnn-basics jax", True),
}


def make(name: str, problem: Problem) -> Train:
    """The contender, ready to train; raises ModuleNotFoundError if a package is missing."""
    module, _, function = CONTENDERS[name].place.partition(":")
    return getattr(import_module(f"experiments.benchmark.peers.{module}"), function)(problem)
