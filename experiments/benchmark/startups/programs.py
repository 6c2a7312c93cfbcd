"""The scripts that start-up is measured with, and their processes."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.processes import ProcessError
from jaxnn.data import load

STAGES = ("imports", "first_step", "result")
SOFTMAX = "64-10, 500 iterations"
ARCHITECTURES = "experiments.architectures"


class Program(NamedTuple):
    """A script, as ``python -m`` starts it."""

    run: str  # what it does: SOFTMAX or ARCHITECTURES
    label: str
    module: str
    packages: tuple[str, ...] = ()  # that it imports, beside jaxnn's own


def _script(label: str, module: str, *packages: str, run: str = SOFTMAX) -> Program:
    return Program(run, label, f"experiments.benchmark.startups.{module}", packages)


PROGRAMS = (
    _script("NumPy by hand", "numpy_by_hand"),
    _script("jaxnn", "jaxnn_itself", "sklearn"),
    _script("PyTorch", "pytorch", "torch"),
    _script("PyTorch, updates by hand", "pytorch_by_hand", "torch"),
    _script("scikit-learn", "scikit_learn", "sklearn"),
    _script("Flax + optax", "flax_and_optax", "flax"),
    _script("Equinox + optax", "equinox_and_optax", "equinox"),
    _script("Keras on JAX", "keras_on_jax", "keras"),
    Program(ARCHITECTURES, "jaxnn", "experiments.architectures", ("sklearn",)),
    _script("PyTorch", "architectures_in_pytorch", "torch", run=ARCHITECTURES),
)


class Timed(NamedTuple):
    """One process."""

    wall: float  # seconds
    report: dict[str, float]  # seconds from the start to each of STAGES; and the accuracy


def installed(program: Program) -> bool:
    """Whether all its packages are; otherwise a line is printed."""
    missing = [package for package in program.packages if find_spec(package) is None]
    if missing:
        print(f"start-up of {program.label} is left out: {', '.join(missing)} is not installed")
    return not missing


def write_digits(path: Path) -> None:
    """The digits in jaxnn's split, for the scripts that need not import scikit-learn for them."""
    train, test = load("digits")
    np.savez(
        path,
        x_train=train.inputs,
        y_train=np.asarray(train.targets, np.int64),
        x_test=test.inputs,
        y_test=np.asarray(test.targets, np.int64),
    )


def timed(program: Program, folder: Path, cache: str) -> Timed:
    """One process with the compilation cache of that name, from its start to its end.

    Raises:
      ProcessError: it failed; the text is its last line.
    """
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / cache / "torch"),
        "KERAS_BACKEND": "jax",
    }
    out = str(folder / "out")
    began = time.time()
    if program.module == ARCHITECTURES:
        arguments = ["--out", out]
    else:
        arguments = [repr(began), str(folder / "digits.npz"), out]
    done = subprocess.run(
        [sys.executable, "-m", program.module, *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    wall = time.time() - began
    if done.returncode:
        *_, last = ("", *done.stderr.strip().splitlines())
        raise ProcessError(f"{program.module} ended with exit status {done.returncode}: {last}")
    *_, last = ("", *done.stdout.splitlines())
    return Timed(wall, json.loads(last) if program.run == SOFTMAX else {})
