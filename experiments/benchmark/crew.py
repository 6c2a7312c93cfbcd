"""The contenders' processes, seen from the benchmark: started, asked in turn, ended."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from experiments.processes import ProcessError


class MissingError(Exception):
    """The contender's package is not installed; the text says which."""


class Measured(NamedTuple):
    """One training, as the contender's process timed it."""

    seconds: float
    accuracies: np.ndarray | None  # [K, epochs]


class Worker:
    """The process of one contender, kept to some cores. A context manager that ends it."""

    def __init__(self, contender: str, sizes: Sequence[int], data: Path, cores: Sequence[int]):
        """Starts the process and waits until it is ready.

        Raises:
          MissingError: the contender's package is not installed.
          ProcessError: it failed; the text is its last line.
        """
        self.contender = contender
        job = {"contender": contender, "sizes": sizes, "data": str(data), "cores": list(cores)}
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmark.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        ready = self._answer()
        if "missing" in ready:
            self.__exit__(None, None, None)
            raise MissingError(ready["missing"])

    def ask(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool = False
    ) -> None:
        """Makes it train; see ``Contender.train``."""
        request = {
            "learning_rates": [float(rate) for rate in learning_rates],
            "epochs": epochs,
            "seed": seed,
            "evaluate": evaluate,
        }
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._answer()

    def answer(self) -> Measured:
        """Waits for what was asked.

        Raises:
          ProcessError: it failed; the text is its last line.
        """
        found = self._answer()
        accuracies = found["accuracies"]
        return Measured(found["seconds"], None if accuracies is None else np.array(accuracies))

    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool = False
    ) -> Measured:
        """``ask`` and ``answer``."""
        self.ask(learning_rates, epochs, seed, evaluate=evaluate)
        return self.answer()

    def _answer(self) -> dict:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            *_, last = ("", *self._errors.read().strip().splitlines())
            raise ProcessError(f"{self.contender} ended with exit status {status}: {last}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
