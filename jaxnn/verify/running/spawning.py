"""Processes that judge claims: started afresh, for JAX on the CPU, without the main module."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType


class Process(SpawnProcess):
    """A process for JAX on one CPU core, deaf to the interrupt key, which its parent acts on."""

    def start(self) -> None:
        """Starts it."""
        blocked = hasattr(signal, "pthread_sigmask")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blocked else ()
        try:
            with _environment({"JAX_PLATFORMS": "cpu"}), _no_main():
                super().start()
        finally:
            if blocked:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Spawn(SpawnContext):
    """Starts such processes."""

    Process = Process


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """The variables are set for the processes started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_main() -> Iterator[None]:
    """Processes started inside do not run the main module again: they only need the files."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
