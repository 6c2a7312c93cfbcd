"""A search in a process of its own, watched: when it knew how good a model."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from experiments.benchmark.crew import MissingError
from experiments.benchmark.searches.common import Job
from experiments.processes import ProcessError


class Moment(NamedTuple):
    """When a search first knew a model as good as that."""

    seconds: float  # since the process was started
    right: int  # validation examples that the model predicts rightly


class Watched(NamedTuple):
    """A search from the start of its process to the end."""

    seconds: float
    moments: list[Moment]  # each better than the one before
    imported: float  # seconds until its packages were

    @property
    def best(self) -> int:
        """Validation examples that the best model predicts rightly."""
        return max((moment.right for moment in self.moments), default=0)

    @property
    def first_score(self) -> float:
        """When it first knew how good a model is; the whole time if it never told."""
        return self.moments[0].seconds if self.moments else self.seconds

    def reached(self, right: int) -> float | None:
        """When it first knew a model that is at least as good, if it ever did."""
        return next((m.seconds for m in self.moments if m.right >= right), None)


def watch(program: str, job: Job, examples: int, cache: Path) -> Watched:
    """Runs a search.

    Args:
      program: its module in ``experiments.benchmark.searches``.
      job: what it is asked.
      examples: that validate.
      cache: the folder of compiled programs.

    Raises:
      MissingError: a package is not installed; the text says which.
      ProcessError: it failed; the text is its last line.
    """
    module = f"experiments.benchmark.searches.{program}"
    command = [sys.executable, "-m", module, json.dumps(job._asdict())]
    began = time.perf_counter()
    with started(command, environment(cache)) as (process, errors):
        assert process.stdout
        told = [(time.perf_counter() - began, json.loads(line)) for line in process.stdout]
        status = process.wait()
        seconds = time.perf_counter() - began
        if status:
            complain(program, status, errors)
    moments = [Moment(at, round(accuracy * examples)) for at, accuracy in better(told)]
    return Watched(seconds, moments, next(at for at, line in told if "imported" in line))


def better(lines: Iterable[tuple[float, dict[str, float]]]) -> Iterator[tuple[float, float]]:
    """Those of the lines that tell a higher accuracy than all before them."""
    best = 0.0
    for at, line in lines:
        accuracy = line.get("accuracy", 0.0)
        if accuracy > best:
            best = accuracy
            yield at, accuracy


def environment(cache: Path) -> dict[str, str]:
    """The same for all: JAX keeps every program, and Keras takes JAX."""
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "KERAS_BACKEND": "jax",
    }


@contextmanager
def started(
    command: list[str], environment: dict[str, str]
) -> Iterator[tuple["subprocess.Popen[str]", IO[str]]]:
    """The process and its standard error; when left, its whole family has ended."""
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process, errors
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def complain(program: str, status: int, errors: IO[str]) -> None:
    """Raises what a failed process says last.

    Raises:
      MissingError: a package is not installed.
      ProcessError: anything else.
    """
    errors.seek(0)
    *_, last = ("", *errors.read().strip().splitlines())
    kind, _, text = last.partition(": ")
    if kind == "ModuleNotFoundError":
        raise MissingError(text)
    raise ProcessError(f"{program} ended with exit status {status}: {last}")
