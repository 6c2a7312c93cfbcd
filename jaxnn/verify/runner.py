"""Judges the claims of files, each in a process that can be stopped."""

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
from jaxnn.verify.loading import load_claims
from jaxnn.verify.verdict import Verdict


class LoadedClaim(NamedTuple):
    """A claim with the file that defines the claim."""

    path: Path
    index: int  # among the claims of the file
    claim: Claim


def load_files(files: Sequence[str | PathLike[str]]) -> list[LoadedClaim]:
    """The claims of all files, in order of definition; a file named twice counts once.

    Raises:
      UnusableFile: from the first unusable file.
    """
    paths = {Path(file).resolve(): file for file in files}
    return [
        LoadedClaim(path, index, claim)
        for path, file in paths.items()
        for index, claim in enumerate(load_claims(file))
    ]


def judge(
    claims: Sequence[LoadedClaim],
    trials: int | None = None,
    seed: int = 0,
    timeout: float = 60.0,
    workers: int | None = None,
    on_result: Callable[[int, int, Verdict], object] = lambda *_: None,
) -> list[Verdict]:
    """Verifies claims in several processes.

    Args:
      claims: from ``load_files``.
      trials: random trials per claim; default: as declared by each claim.
      seed: of the random trials.
      timeout: seconds after which a claim is given up; not enforced with ``workers=0``.
      workers: processes; default: the cores of this process; 0: this process alone.
      on_result: called with (done, total, verdict) after every verdict.

    Returns:
      The verdicts in the order of the claims. A claim that took too long, or whose process died,
      has the verdict ``error``.
    """
    if workers is None:
        workers = core_count()
    found: dict[int, Verdict] = {}
    arrivals = (
        _in_processes(claims, trials, seed, timeout, min(workers, len(claims)))
        if workers
        else ((i, _verified(loaded.claim, trials, seed)) for i, loaded in enumerate(claims))
    )
    with closing(arrivals):
        for number, verdict in arrivals:
            found[number] = verdict
            on_result(len(found), len(claims), verdict)
    return [found[number] for number in range(len(claims))]


def _in_processes(
    claims: Sequence[LoadedClaim], trials: int | None, seed: int, timeout: float, workers: int
) -> Generator[tuple[int, Verdict], None, None]:
    """The verdicts in order of arrival, each with the claim's number."""
    waiting = dict(enumerate(claims))
    for _ in range(2):  # a process that dies on its first claim can take the pool with it
        with _pool(workers, {str(loaded.path) for loaded in claims}) as schedule:
            futures: dict[Future[bytes], int] = {
                schedule(_work, (str(path), index, trials, seed), timeout=timeout): number
                for number, (path, index, _) in waiting.items()
            }
            for future in as_completed(futures):
                number = futures[future]
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield number, _result(future, waiting.pop(number).claim, timeout)
        if not waiting:
            return
    for number, loaded in waiting.items():
        yield number, _error(loaded.claim, "the process that was to judge it could not start")


@contextmanager
def _pool(workers: int, paths: set[str]) -> Iterator[Callable[..., Future[bytes]]]:
    """Processes that have loaded the files; busy processes are stopped at the end, too."""
    from pebble import ProcessPool

    pool = ProcessPool(workers, initializer=_start, initargs=(sorted(paths),), context=_Spawn())
    try:
        yield pool.schedule
    finally:
        pool.stop()
        pool.join()


def _result(future: Future[bytes], claim: Claim, timeout: float) -> Verdict:
    """The verdict that a process returned, or ``error`` with the end of the process."""
    from pebble import ProcessExpired

    try:
        return pickle.loads(future.result())
    except TimeoutError:
        return _error(claim, f"stopped after {timeout:g} s", timeout)
    except ProcessExpired as error:
        return _error(claim, f"the process died ({_cause(error.exitcode or 0)})")
    except Exception as error:
        return _error(claim, f"its verdict was lost: {_described(error)}")


def _cause(exitcode: int) -> str:
    if exitcode >= 0:
        return f"exit status {exitcode}"
    return signal.strsignal(-exitcode) or f"signal {-exitcode}"


def _start(paths: Sequence[str]) -> None:
    """Imports and loads everything in a new process, before the time of a claim runs."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    os.dup2(2, 1)  # keeps prints of claims out of the table
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    jax.devices()
    # Failures come again with the claims; the files' prints were shown by the first process.
    with suppress(Exception), open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        import_module("jaxnn.verify.verification")
        for path in paths:
            _claims(path)


_claims = cache(load_claims)


def _work(path: str, index: int, trials: int | None, seed: int) -> bytes:
    """The pickled verdict on a claim, computed in a worker process."""
    claim = _claims(path)[index]
    verdict = _verified(claim, trials, seed)
    try:
        return pickle.dumps(verdict)
    except Exception as error:
        text = f"its verdict, {verdict.verdict}, cannot leave its process: {_described(error)}"
        return pickle.dumps(_error(claim, text, verdict.seconds))


def _verified(claim: Claim, trials: int | None, seed: int) -> Verdict:
    """The verdict; ``error`` where verification itself fails."""
    began = time.perf_counter()
    try:
        from jaxnn.verify.verification import verify

        return verify(claim, trials=trials, seed=seed)
    except (Exception, SystemExit) as error:
        return _error(claim, _described(error), time.perf_counter() - began)


def _described(error: BaseException) -> str:
    """The error with the line of code."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + where


def _error(claim: Claim, detail: str, seconds: float = 0.0) -> Verdict:
    return Verdict(claim.name, claim.source, claim.kind, "error", seconds=seconds, detail=detail)


class _Process(SpawnProcess):
    """A fresh process for JAX on the CPU; only the parent acts on the interrupt key."""

    def start(self) -> None:
        blocked = hasattr(signal, "pthread_sigmask")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]) if blocked else ()
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # keeps the user's script from running
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main
            if blocked:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Spawn(SpawnContext):
    Process = _Process
