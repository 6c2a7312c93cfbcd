"""A Python module in a process that answers in lines of JSON.

Contenders, searches, start-up scripts and the cases of scale all run this way.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from experiments.processes import ProcessError

THREADS = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS TORCHINDUCTOR_COMPILE_THREADS"


class Program(NamedTuple):
    """A running process; a failure is a ProcessError with the last line.

    If a package is missing, the failure is the ModuleNotFoundError of the process.
    """

    name: str
    process: "subprocess.Popen[str]"
    errors: IO[str]
    began: float  # time.time()

    def lines(self) -> Iterator[tuple[float, str]]:
        """Each line of standard output, with the seconds from the start until its arrival."""
        assert self.process.stdout
        for line in self.process.stdout:
            yield time.time() - self.began, line
        if self.process.wait():
            raise self.failure()

    def ask(self, rates: Sequence[float], epochs: int, seed: int, evaluate: bool = False) -> None:
        """Requests a training of a contender; ``answer`` notices the end of a process."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([[*rates], epochs, seed, evaluate]) + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON: of a contender ``seconds`` and ``accuracies`` [K, epochs]."""
        for _, line in self.lines():
            return json.loads(line)
        raise self.failure()

    def failure(self) -> Exception:
        """The error of an ended process."""
        status = self.process.wait()
        self.errors.seek(0)
        *_, last = ("", *self.errors.read().strip().splitlines())
        kind, _, text = last.partition(": ")
        if kind == "ModuleNotFoundError":
            return ModuleNotFoundError(text)
        return ProcessError(f"{self.name} ended with exit status {status}: {last}")


@contextmanager
def running(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    cores: Sequence[int] | None = None,
    name: str | None = None,
) -> Iterator[Program]:
    """``python -m MODULE ARGUMENTS`` on some cores; ends, with all children, with the block."""
    threads = {} if cores is None else dict.fromkeys(THREADS.split(), str(len(cores)))
    with tempfile.TemporaryFile("w+") as errors:
        with ExitStack() as stack:
            if cores is not None and hasattr(os, "sched_setaffinity"):  # children inherit cores
                stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
                os.sched_setaffinity(0, cores)
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, arguments)],
                env={**os.environ, **threads, **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        with process:
            try:
                name = name or module.removeprefix("experiments.benchmark.")
                yield Program(name, process, errors, time.time())
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                assert process.stdin
                with suppress(BrokenPipeError):  # a request that an ended process has not read
                    process.stdin.close()


@contextmanager
def hired(name: str, sizes: Sequence[int], data: Path, cores: Sequence[int]) -> Iterator[Program]:
    """A contender in a process on some cores, ready to train."""
    job = json.dumps({"contender": name, "sizes": sizes, "data": str(data)})
    with running("experiments.benchmark.contender", job, cores=cores, name=name) as program:
        program.answer()  # ready
        yield program


@contextmanager
def optional(label: str) -> Iterator[None]:
    """Prints a line if a package of the block, or of the process in the block, is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(f"{label} is left out: {error}")
