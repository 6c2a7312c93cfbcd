"""Whole processes: timed, or asked in lines of JSON."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, NamedTuple

from experiments import harness


class ProcessError(OSError):
    """A timed process failed; the text is one line."""


def seconds_of(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    allowed: Collection[int] = (harness.SUCCESS,),
) -> float:
    """The wall-clock time of a command in a new process.

    Args:
      command: program and arguments.
      environment: variables to add to the environment of the current process.
      allowed: exit statuses that count as success.

    Raises:
      ProcessError: the process ended with any further exit status.
    """
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode not in allowed:
        *_, last = ("", *done.stderr.strip().splitlines())
        raise ProcessError(f"{' '.join(command)} ended with exit status {done.returncode}: {last}")
    return seconds


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

    def ask(self, *request: object) -> None:
        """Writes a line of JSON; ``answer`` notices the end of a process."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line, a JSON object."""
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
                yield Program(name or module, process, errors, time.time())
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                assert process.stdin
                with suppress(BrokenPipeError):  # a request that an ended process has not read
                    process.stdin.close()


@contextmanager
def optional(label: str) -> Iterator[None]:
    """Prints a line if a package of the block, or of the process in the block, is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        print(f"{label} is left out: {error}")
