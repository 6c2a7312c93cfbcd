"""Judges every claim of some files, each in a process that can be stopped."""

import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, redirect_stderr, suppress
from functools import cache
from importlib import import_module
from multiprocessing.context import SpawnContext, SpawnProcess
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from jaxnn.devices import core_count, use_compilation_cache
from jaxnn.verify.claims import Claim
from jaxnn.verify.loading import UnusableFile, load_claims
from jaxnn.verify.verdict import Verdict

__all__ = ["Task", "UnusableFile", "judge", "load_claims", "run", "tasks"]

OnResult = Callable[[int, int, Verdict], object]
"""(done, total, the verdict just reached)."""


class Task(NamedTuple):
    """A claim and where it was found."""

    path: Path
    index: int  # among the claims of its file
    claimed: Claim


def tasks(files: Sequence[str | PathLike[str]]) -> list[Task]:
    """The claims of all files, in order of definition; a file named twice counts once.

    Raises:
      UnusableFile: of the first file that cannot be used.
    """
    paths = {Path(file).resolve(): file for file in files}
    return [
        Task(path, index, claimed)
        for path, file in paths.items()
        for index, claimed in enumerate(load_claims(file))
    ]


def run(
    files: Sequence[str | PathLike[str]],
    *,
    trials: int | None = None,
    seed: int = 0,
    timeout: float = 60.0,
    workers: int | None = None,
    on_result: OnResult | None = None,
) -> list[Verdict]:
    """Verifies every claim of the files.

    Args:
      files: Python files with claims.
      trials: random trials per claim; default: what each claim says.
      seed: of the random trials.
      timeout: seconds after which a claim is given up; not enforced with ``workers=0``.
      workers: processes; default: the cores of this process; 0: no others, all happens in this one.
      on_result: called with every verdict as it comes.

    Returns:
      The verdicts in order of definition. A claim that took too long, or whose process died, has
      the verdict ``error``.

    Raises:
      UnusableFile: a file that cannot be used.
    """
    return judge(
        tasks(files), trials=trials, seed=seed, timeout=timeout, workers=workers,
        on_result=on_result,
    )  # fmt: skip


def judge(
    todo: Sequence[Task],
    *,
    trials: int | None = None,
    seed: int = 0,
    timeout: float = 60.0,
    workers: int | None = None,
    on_result: OnResult | None = None,
) -> list[Verdict]:
    """The verdicts on the tasks, in their order; see ``run``."""
    if workers is None:
        workers = core_count()
    found: dict[int, Verdict] = {}
    arrivals = (
        _in_processes(todo, trials, seed, timeout, min(workers, len(todo)))
        if workers
        else ((i, _verified(task.claimed, trials, seed)) for i, task in enumerate(todo))
    )
    with closing(arrivals):
        for number, verdict in arrivals:
            found[number] = verdict
            if on_result is not None:
                on_result(len(found), len(todo), verdict)
    return [found[number] for number in range(len(todo))]


def _in_processes(
    todo: Sequence[Task], trials: int | None, seed: int, timeout: float, workers: int
) -> Generator[tuple[int, Verdict], None, None]:
    """The verdicts as they come, each with its task's number."""
    waiting = dict(enumerate(todo))
    for _ in range(2):  # a process that dies on its first claim can take the pool with it
        with _pool(workers, {str(task.path) for task in todo}) as schedule:
            futures: dict[Future[bytes], int] = {
                schedule(_work, (str(task.path), task.index, trials, seed), timeout=timeout): number
                for number, task in waiting.items()
            }
            for future in as_completed(futures):
                number = futures[future]
                if not isinstance(future.exception(), BrokenProcessPool):
                    claimed = waiting.pop(number).claimed
                    yield number, _result(future, claimed, timeout)
        if not waiting:
            return
    for number, task in waiting.items():
        yield number, _error(task.claimed, "the process that was to judge it could not start", 0.0)


@contextmanager
def _pool(workers: int, paths: set[str]) -> Iterator[Callable[..., Future[bytes]]]:
    """Processes that have loaded the files; stopped, whatever they are doing, if anything fails."""
    from pebble import ProcessPool

    pool = ProcessPool(workers, initializer=_start, initargs=(sorted(paths),), context=Spawn())
    try:
        yield pool.schedule
    finally:
        pool.stop()
        pool.join()


def _result(future: Future[bytes], claimed: Claim, timeout: float) -> Verdict:
    """What became of a claim in its process."""
    from pebble import ProcessExpired

    try:
        return pickle.loads(future.result())
    except TimeoutError:
        return _error(claimed, f"stopped after {timeout:g} s", timeout)
    except ProcessExpired as error:
        return _error(claimed, f"the process died ({_cause(error.exitcode or 0)})", 0.0)
    except Exception as error:
        return _error(claimed, f"its verdict was lost: {_described(error)}", 0.0)


def _cause(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit status {exitcode}"
    return signal.strsignal(-exitcode) or f"signal {-exitcode}"


def _start(paths: Sequence[str]) -> None:
    """Makes a new process ready, so that no claim's time is spent on imports."""
    import jax

    os.dup2(2, 1)  # what claims print must not end up in the table
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    jax.devices()
    # Whatever is wrong will be said of the claims; what the files print has been seen already.
    with suppress(Exception), open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        import_module("jaxnn.verify.verification")
        for path in paths:
            _claims(path)


_claims = cache(load_claims)


def _work(path: str, index: int, trials: int | None, seed: int) -> bytes:
    """The pickled verdict on a claim, in a process of its own."""
    claimed = _claims(path)[index]
    verdict = _verified(claimed, trials, seed)
    try:
        return pickle.dumps(verdict)
    except Exception as error:
        text = f"its verdict, {verdict.verdict}, cannot leave its process: {_described(error)}"
        return pickle.dumps(_error(claimed, text, verdict.seconds))


def _verified(claimed: Claim, trials: int | None, seed: int) -> Verdict:
    """The verdict; ``error`` where verification itself fails."""
    began = time.perf_counter()
    try:
        from jaxnn.verify.verification import verify

        return verify(claimed, trials=trials, seed=seed)
    except (Exception, SystemExit) as error:
        return _error(claimed, _described(error), time.perf_counter() - began)


def _described(error: BaseException) -> str:
    """The error and its line, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where


def _error(claimed: Claim, detail: str, seconds: float) -> Verdict:
    return Verdict(
        claimed.name,
        claimed.source,
        claimed.kind,
        "error",
        0,
        None,
        None,
        None,
        (),
        seconds,
        detail,
    )


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
