"""The time of whole processes."""

import os
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence

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
