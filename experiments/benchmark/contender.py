"""The table of all contenders, and the process of a contender.

``training.hired`` starts the module with a JSON object: ``contender``, ``sizes`` and ``data`` (the
folder of the examples). The process trains on request, one line of JSON each way.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.problem import Problem, Train, restore


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
    return resolve_name(f"experiments.benchmark.peers.{CONTENDERS[name].place}")(problem)


def serve(contender: str, sizes: list[int], data: str) -> None:
    """Trains once per line of standard input; only the training is timed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries is no answer
    train = make(contender, restore(Path(data), tuple(sizes)))
    at_once = CONTENDERS[contender].whole_population

    def answer(**entries: Any) -> None:
        print(json.dumps(entries), file=answers, flush=True)

    answer(ready=True)
    for line in sys.stdin:
        rates, epochs, seed, evaluate = json.loads(line)
        gc.collect()
        began = time.perf_counter()
        jobs = [rates] if at_once else rates
        found = [train(rate, epochs, seed, evaluate)[1] for rate in jobs]
        seconds = time.perf_counter() - began
        accuracies = np.array(found[0]).T if at_once else np.array(found)  # [K, epochs]
        answer(seconds=seconds, accuracies=accuracies.tolist() if evaluate else None)


if __name__ == "__main__":
    serve(**json.loads(sys.argv[1]))
