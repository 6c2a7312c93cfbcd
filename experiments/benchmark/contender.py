"""The table of all contenders."""

from importlib import import_module
from typing import NamedTuple

from experiments.benchmark.problem import Problem, Train


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
    "flax": Entry("Flax + optax", "on_jax:flax", "flax optax jax"),
    "equinox": Entry("Equinox + optax", "on_jax:equinox", "equinox optax jax"),
    "torch_func": Entry("torch.func vmap", "pytorch:vmapped", "torch", True),
    "torch_func_compiled": Entry(
        "torch.func vmap, torch.compile", "pytorch:compiled_vmapped", "torch", True
    ),
    "flax_vmap": Entry("jit(vmap) of a Flax step", "on_jax:flax_vmapped", "flax jax", True),
    "jaxnn": Entry("jaxnn", "jaxnn_itself:prepare", "jaxnn-basics jax", True),
}


def make(name: str, problem: Problem) -> Train:
    """The contender, ready to train; raises ModuleNotFoundError if a package is missing."""
    module, _, function = CONTENDERS[name].place.partition(":")
    return getattr(import_module(f"experiments.benchmark.peers.{module}"), function)(problem)
