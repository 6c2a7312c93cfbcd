"""Judges the claims of files; a process loads one file, and can be stopped."""

import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from jaxnn.devices import core_count
from jaxnn.reporting import printable
from jaxnn.verify.claims import Description, descriptions
from jaxnn.verify.report import Entry, rows
from jaxnn.verify.verdict import DerivationVerdict, Verdict
from jaxnn.verify.worker import UnusableFile, check_file, decode, described, loaded, verified

T = TypeVar("T")

Arrival = tuple[int, int, list[Description] | Verdict | DerivationVerdict]
"""The numbers of a file and of a claim, and the verdict; or of a file and 0, and all claims."""

START = 300.0
"""Seconds in which a process has to import JAX."""

PRINTED = 10_000_000
"""Characters that a process may print."""

ANSWER = 100_000_000
"""Bytes of the longest answer of a process."""

AHEAD = 1
"""Processes that import JAX before a file is ready for them."""

_SERVE = "import sys; sys.path[:] = {!r}; from jaxnn.verify.worker import serve; serve()"


def judge(
    files: Iterable[str | PathLike[str]],
    *,
    trials: int | None = None,
    seed: int = 0,
    certify: bool = True,
    timeout: float = 60.0,
    workers: int | None = None,
    together: bool = False,
    on_result: Callable[[int, int, Verdict | DerivationVerdict], object] = lambda *_: None,
) -> list[Entry]:
    """Verifies the claims of files, each file in processes that load no other file.

    Args:
      files: Python files and notebooks; a file named twice counts once.
      trials: random trials per claim; default: as declared by each claim.
      seed: of the random trials.
      certify: whether to certify the claims that hold, unless a claim declares otherwise.
      timeout: seconds in which a file has to be loaded, and each claim or line to be judged.
      workers: processes at a time; default: the cores of this process; 0: this process alone.
      together: whether every process loads all files; faster, for files of the same author.
      on_result: called with (done, total, verdict) after every verdict.

    Returns:
      Claims and lines of derivations with verdicts, in the order of the files and of definition.
      The verdict is ``error`` for a claim that took too long or ended the process, and for a file
      that cannot be loaded.

    Raises:
      UnusableFile: a name is not the name of a Python file or notebook; or several files that are
        not together for this process alone.
    """
    named = {Path(file).resolve(): os.fspath(file) for file in files}
    for name in named.values():
        check_file(name)
    if workers == 0 and len(named) > 1 and not together:
        raise UnusableFile(
            f"{len(named)} files and no worker processes, expected one file: in the same process a "
            "file could change the functions that the next file uses"
        )
    names, paths = list(named.values()), list(map(str, named))
    jobs = [range(len(paths))] if together else [[number] for number in range(len(paths))]
    arrivals = (
        _here(paths, timeout, trials, seed, certify)
        if workers == 0
        else _Jobs(paths, jobs, timeout, trials, seed, certify).arrivals(workers or core_count())
    )
    claims: dict[int, list[Description]] = {}
    verdicts: dict[tuple[int, int], Verdict | DerivationVerdict] = {}
    with closing(arrivals):
        for file, place, content in arrivals:
            if isinstance(content, Verdict | DerivationVerdict):
                verdicts[file, place] = content._replace(file=names[file])
                total = sum(map(len, claims.values())) + len(names) - len(claims)
                on_result(len(verdicts), total, content)
                if len(verdicts) == total and len(claims) == len(names):
                    break
            else:
                claims[file] = [claim._replace(file=names[file]) for claim in content]
    return [
        row
        for file in range(len(names))
        for place, claim in enumerate(claims[file])
        for row in rows(claim, verdicts[file, place])
    ]


def _here(paths: Sequence[str], timeout: float, *options: Any) -> Generator[Arrival, None, None]:
    """Judges in this process; the options are those of ``verified``."""
    for file, path in enumerate(paths):
        try:
            claims = _within(timeout, loaded, path)
        except Ended as error:
            claims = f"{error}, while the file was loaded"
        if isinstance(claims, str):
            yield from _unusable(file, path, claims)
            continue
        described = descriptions(claims)
        yield file, 0, described
        for place, claim in enumerate(claims):
            seconds = timeout * max(1, len(described[place].lines))
            try:
                yield file, place, _within(seconds, verified, claim, *options)
            except Ended as error:
                yield file, place, _error(described[place], str(error), seconds)


_lost: list[threading.Thread] = []
"""Threads that were given up, as they might never end."""


def _within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """The value of a function, in a thread of its own; the thread is given up after the seconds.

    Raises:
      Ended: the function took too long.
    """
    results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            results.put((function(*arguments), None))
        except BaseException as error:  # a file may raise KeyboardInterrupt
            results.put((None, error))

    thread, output = threading.Thread(target=work, daemon=True), sys.stdout
    thread.start()
    try:
        _lost.append(thread)
        value, error = results.get(timeout=seconds)
        _lost.remove(thread)
    except queue.Empty:
        sys.stdout = output  # which a file that is still loading has redirected
        raise Ended(f"stopped after {seconds:g} s") from None
    if error is not None:
        raise error
    return value


def end_without_threads(status: int) -> int:
    """Ends the process where a thread was given up, which JAX would wait for; else the status."""
    if any(thread.is_alive() for thread in _lost):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    return status


def _unusable(file: int, path: str, reason: str) -> Iterator[Arrival]:
    """The row of a file that could not be loaded."""
    claim = Description(Path(path).name)
    yield file, 0, [claim]
    yield file, 0, _error(claim, reason)


def _error(claim: Description, reason: str, seconds: float = 0.0) -> Verdict:
    return Verdict(claim.name, claim.source, claim.kind, "error", seconds=seconds, detail=reason)


class _Job:
    """Files for the same process, and the claims that wait for a process."""

    def __init__(self, files: Sequence[int]):
        self.files = files
        self.loaded = False
        self.workers = 1
        self.alone = False  # whether a second process failed to load the files
        self.waiting: deque[tuple[int, int, Description]] = deque()


class _Jobs:
    """Threads that work on jobs; every process loads the files of a single job."""

    def __init__(
        self, paths: Sequence[str], jobs: Iterable[Sequence[int]], timeout: float, *request: Any
    ):
        self._paths, self._timeout, self._request = paths, timeout, request
        self._untouched, self._begun = deque(map(_Job, jobs)), list[_Job]()
        self._idle, self._started = deque[_Process](), list[_Process]()
        self._changed = threading.Condition()
        self._stopped = False
        self._arrivals: queue.SimpleQueue[Arrival | BaseException | None] = queue.SimpleQueue()

    def arrivals(self, workers: int) -> Generator[Arrival, None, None]:
        """The claims and the verdicts as they come."""
        # At first no more processes than claims, as far as the text of the files tells.
        claims = sum(max(1, _text(path).count(b"claim(")) for path in self._paths)
        try:
            self._idle.extend(self._start() for _ in range(min(workers, claims)))
            for _ in range(workers):
                threading.Thread(target=self._work, daemon=True).start()
            while workers:
                arrival = self._arrivals.get()
                if isinstance(arrival, BaseException):
                    raise arrival
                if arrival is None:
                    workers -= 1
                else:
                    yield arrival
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            for process in self._started:
                process.close()

    def _work(self) -> None:
        """Works on jobs, then announces the end of the thread."""
        end = None
        try:
            while job := self._next_job():
                self._judge(job, helps=job.loaded)
        except BaseException as error:
            end = error
        self._arrivals.put(end)

    def _next_job(self) -> _Job | None:
        """An untouched job, else a begun job with waiting claims; None at the end."""
        with self._changed:
            while not self._stopped:
                if self._untouched:
                    self._begun.append(job := self._untouched.popleft())
                    return job
                for job in sorted(self._begun, key=lambda job: -len(job.waiting)):
                    if len(job.waiting) >= job.workers and not job.alone:
                        job.workers += 1
                        return job
                if all(job.loaded for job in self._begun):
                    break
                self._changed.wait()
        return None

    def _judge(self, job: _Job, helps: bool) -> None:
        """Judges waiting claims of a job until none is left, after a crash in a new process."""
        while not job.loaded or job.waiting:
            with closing(self._process()) as process:
                try:
                    process.ask((), START)
                    paths = [self._paths[file] for file in job.files]
                    answers = process.ask(("load", *paths), self._timeout)
                except Ended as error:
                    job.alone = True
                    if not helps:
                        self._give_up(job, f"{error}, while the file was loaded")
                    return
                if not job.loaded:
                    self._list(job, answers)
                while (claim := self._take(job)) and self._answered(process, job, *claim):
                    pass

    def _answered(
        self, process: "_Process", job: _Job, file: int, place: int, claim: Description
    ) -> bool:
        """Announces the verdict of a process on a claim; False if the process has ended."""
        began = time.perf_counter()
        request = ("judge", job.files.index(file), place, *self._request)
        try:
            seconds = self._timeout * max(1, len(claim.lines))
            verdict = decode(process.ask(request, seconds))
        except Ended as error:
            verdict = _error(claim, str(error), time.perf_counter() - began)
        except Exception as error:
            verdict = _error(claim, f"its verdict was lost: {described(error)}")
        if verdict.name != claim.name:
            verdict = _error(claim, "the file defines other claims when it is loaded again")
        self._announce((file, place, verdict))
        return process.lives

    def _process(self) -> "_Process":
        """A started process; a further process starts for the next untouched job."""
        with self._changed:
            process = self._idle.popleft() if self._idle else self._start()
            if len(self._idle) < min(AHEAD, len(self._untouched)):
                self._idle.append(self._start())
        return process

    def _start(self) -> "_Process":
        process = _Process()
        self._started.append(process)
        if self._stopped:
            process.close()
        return process

    def _list(self, job: _Job, answers: Sequence[Any]) -> None:
        """Announces the claims of each file of a job, or why the file cannot be used."""
        for file, answer in zip(job.files, answers, strict=True):
            if isinstance(answer, str):
                self._announce(*_unusable(file, self._paths[file], answer))
                continue
            claims = [_description(*fields) for fields in answer]
            self._announce((file, 0, claims))
            job.waiting.extend((file, place, claim) for place, claim in enumerate(claims))
        with self._changed:
            job.loaded = True
            if not job.waiting:
                self._changed.notify_all()

    def _give_up(self, job: _Job, reason: str) -> None:
        """Makes every waiting claim an error, or every file if the claims are unknown."""
        if not job.loaded:
            self._list(job, [reason] * len(job.files))
        while taken := self._take(job):
            file, place, claim = taken
            self._announce((file, place, _error(claim, reason)))

    def _take(self, job: _Job) -> tuple[int, int, Description] | None:
        with self._changed:
            self._changed.notify_all()  # the claims that still wait are work for idle threads
            return job.waiting.popleft() if job.waiting else None

    def _announce(self, *arrivals: Arrival) -> None:
        for arrival in arrivals:
            self._arrivals.put(arrival)


def _description(*fields: Any) -> Description:
    """A description from the fields in JSON's types."""
    made = Description(*fields)
    lines = tuple(_description(*line) for line in made.lines)
    return made._replace(wrt=tuple(made.wrt), lines=lines)


class Ended(Exception):  # noqa: N818
    """A process gave no answer; the message says why."""


class _Process:
    """A process of ``jaxnn.verify.worker``, in a new session: the interrupt key passes by."""

    def __init__(self):
        self.lives = True
        self._reason = ""
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._listen, self._forward)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, request: Sequence[Any], seconds: float) -> Any:
        """The answer to a request; to the empty request the answer to the start.

        Raises:
          Ended: no answer came within the seconds; the process is stopped.
        """
        try:
            if request and self._process.stdin:
                with suppress(OSError, ValueError):  # the process has ended: no line comes
                    self._process.stdin.write(json.dumps(request).encode() + b"\n")
                    self._process.stdin.flush()
            line = self._lines.get(timeout=seconds)
            answer = json.loads(line)
        except queue.Empty:
            self._reason = f"stopped after {seconds:g} s"
        except (ValueError, RecursionError):
            if line.strip():
                self._reason = self._reason or "the answer of the process is damaged or too long"
        else:
            if not isinstance(answer, str) or answer == "ready":
                return answer
            self._reason = answer
        self.close()
        code = self._process.returncode
        raise Ended(self._reason or f"the process ended early ({_cause(code)})")

    def close(self) -> None:
        """Stops the process, and the processes that the process started."""
        self._stop()
        self._process.wait()
        for thread in self._threads:
            thread.join(1)  # a process that left the session may keep a pipe open

    def _stop(self) -> None:
        self.lives = False
        with suppress(OSError):
            if self._process.returncode is None:
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
        with suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()

    def _listen(self) -> None:
        """Queues the answers, and an empty line at the end."""
        with self._process.stdout or io.BytesIO() as stream, suppress(OSError, ValueError):
            while line := stream.readline(ANSWER):
                self._lines.put(line)
        self._lines.put(b"")

    def _forward(self) -> None:
        """Copies the prints of the process to standard error, up to a limit."""
        left = PRINTED
        with io.TextIOWrapper(self._process.stderr or io.BytesIO(), "utf-8", "replace") as stream:
            while text := stream.readline(4096):
                left -= len(text)
                if left < 0:
                    self._reason = f"the process printed more than {PRINTED // 10**6} MB"
                    self._stop()
                    break
                with suppress(OSError, ValueError, AttributeError):
                    end = "\n" if text.endswith("\n") else ""
                    sys.stderr.write(printable(text.removesuffix("\n"), keep="\t") + end)
                    sys.stderr.flush()


def _cause(code: int) -> str:
    """How a process ended: "exit status 3", "Killed"."""
    if code >= 0:
        return f"exit status {code}"
    return signal.strsignal(-code) or f"signal {-code}"


def _text(path: str) -> bytes:
    """The bytes of a file, none where the file cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
