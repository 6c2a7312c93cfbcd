"""The contenders' processes, seen from the benchmark: started, asked in turn, ended."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from experiments.processes import ProcessError


class MissingError(Exception):
    """The contender's package is not installed; the text says which."""


class Measured(NamedTuple):
    """One training, as the contender's process timed it."""

    seconds: float
    accuracies: np.ndarray | None  # [K, epochs]


@contextmanager
def hired(
    contender: str, sizes: Sequence[int], data: Path, cores: Sequence[int]
) -> Iterator["Worker"]:
    """A contender in a process of its own, kept to some cores, ready to train.

    Raises:
      MissingError: the contender's package is not installed.
      ProcessError: it failed; the text is its last line.
    """
    job = {"contender": contender, "sizes": sizes, "data": str(data), "cores": list(cores)}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "experiments.benchmark.worker", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            worker = Worker(contender, tuple(cores), process, errors)
            worker.greet()
            yield worker
        finally:
            process.kill()
            assert process.stdin
            with suppress(BrokenPipeError):  # of one that had ended, with a request unread
                process.stdin.close()


@dataclass(frozen=True)
class Worker:
    """The process of one contender; see ``hired``."""

    contender: str
    cores: tuple[int, ...]
    _process: "subprocess.Popen[str]"
    _errors: IO[str]

    def greet(self) -> None:
        """Waits until it is ready.

        Raises:
          MissingError: the contender's package is not installed.
          ProcessError: it failed.
        """
        ready = self._answer()
        if "missing" in ready:
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
