"""One job of several processes, perhaps on several hosts, by JAX's distributed runtime.

Every process runs an equal program with equal arguments, and has some of the devices. Every
function that exchanges values is collective: call it on all processes, in equal order.
"""

import hashlib
import json
import math
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Event, Thread, Timer
from typing import Any

import jax
import numpy as np

from jaxnn.spec import require_count
from jaxnn.types import whole

_PATIENCE = 10.0  # seconds without a word about a missing process
_SHORT = 1024  # bytes of a message that takes a single exchange
_CHUNK = 2**26  # bytes per exchange: a power of 2, so that only the last piece is padded


class LostProcessError(ConnectionError):
    """A process of the job ended early."""


def join(
    coordinator_address: str | None = None,
    process_count: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: int = 300,
) -> None:
    """Joins the job; call ``join`` in every process, before the first use of JAX.

    Without arguments JAX reads the environment of SLURM, Open MPI, Kubernetes or a TPU. SIGTERM
    stops a process, and a process that fails ends within seconds, so that no process waits long.
    After 10 seconds a line on standard error says which processes are missing; for the line, the
    processes meet at another port of process 0 (the port + 20011, modulo the number of ports).

    Args:
      coordinator_address: "host:port" of process 0; any free port.
      process_count: the number of processes.
      process_id: the number of this process, from 0.
      timeout_seconds: how long to wait for the remaining processes before aborting.

    Raises:
      ValueError: arguments are missing or out of range, or the environment names no cluster.
      RuntimeError: JAX is in use, or the process has joined already.
    """
    if jax.distributed.is_initialized():
        raise RuntimeError("this process has joined already, expected join() once")
    given = coordinator_address, process_count, process_id
    if given != (None, None, None):
        _check_job(*given)
    jax.config.update("jax_enable_preemption_service", False)  # swallows SIGTERM
    try:
        with _missing_are_named(timeout_seconds):
            jax.distributed.initialize(*given, initialization_timeout=timeout_seconds)
    except (ValueError, RuntimeError) as error:
        if "before any JAX" in str(error):
            raise RuntimeError(
                "JAX is in use already, expected join() before JAX's first use"
            ) from error
        if None not in given:
            raise
        raise ValueError(
            "found no cluster, expected the environment of SLURM, Open MPI, Kubernetes or a TPU, "
            f"or all of coordinator_address, process_count and process_id (JAX: {error})"
        ) from error
    sys.excepthook = _report_and_fail


@contextmanager
def _missing_are_named(timeout: float) -> Iterator[None]:
    """Says once, on standard error, who has not joined after ``_PATIENCE`` seconds in the block."""
    joined, deadline = Event(), time.monotonic() + timeout
    Thread(target=_watch, args=[joined, deadline], daemon=True).start()
    try:
        yield
    finally:
        joined.set()


def _watch(joined: Event, deadline: float) -> None:
    """The work of a thread of every process; the job does not depend on the work."""
    with suppress(ImportError, AttributeError, OSError, ValueError):
        from jax._src.distributed import global_state as job  # the only place with the address

        until = time.monotonic() + _PATIENCE
        while job.client is None:  # addresses and numbers are known before the client
            if joined.wait(0.1):
                return
        address, count, number = str(job.coordinator_address), job.num_processes, job.process_id
        host, _, port = address.rpartition(":")
        beside = 1024 + (int(port) + 20011) % (65536 - 1024)
        if number == 0:
            missing = _absent(joined, until, beside, count)
        else:
            place = host.strip("[]"), int(port), beside
            missing = _unanswered(joined, until, place, number)
        for who in missing:
            left = max(deadline - time.monotonic(), 0)
            text = f"{who} of the {count} of the job at {address}, for at most {left:.0f} s more"
            print(f"jaxnn: waiting for {text}", file=sys.stderr, flush=True)


def _absent(joined: Event, until: float, port: int, count: int) -> Iterator[str]:
    """In process 0: hears of the others, and names the absent at the time ``until``."""
    absent, said = set(range(1, count)), False
    family = socket.AF_INET6 if (dual := socket.has_dualstack_ipv6()) else socket.AF_INET
    with socket.create_server(("", port), family=family, dualstack_ipv6=dual) as server:
        server.settimeout(0.2)
        while not joined.is_set():
            with suppress(OSError, ValueError), server.accept()[0] as caller:
                caller.settimeout(1)
                absent.discard(int(caller.recv(20)))
            if absent and not said and time.monotonic() > until:
                said = True
                numbers = ", ".join(map(str, sorted(absent)[:10])) + (", ..." * (len(absent) > 10))
                yield f"process{'es' if len(absent) > 1 else ''} {numbers}"


def _unanswered(
    joined: Event, until: float, place: tuple[str, int, int], number: int
) -> Iterator[str]:
    """In the other processes: tells process 0 the number, and names process 0 if absent."""
    host, port, beside = place
    while not joined.wait(0.2):
        with suppress(OSError), socket.create_connection((host, beside), timeout=1) as server:
            server.sendall(str(number).encode())
            return
        if time.monotonic() > until:
            try:
                socket.create_connection((host, port), timeout=1).close()
            except OSError:
                yield "process 0"
            until = math.inf


def _check_job(address: Any, count: Any, index: Any) -> None:
    """ValueError unless all arguments are given and in range."""
    given = {"coordinator_address": address, "process_count": count, "process_id": index}
    if missing := " and ".join(name for name, value in given.items() if value is None):
        raise ValueError(f"{missing} not given, expected all of {', '.join(given)}, or none")
    if not re.fullmatch(r".+:\d{1,5}", str(address)) or int(address.rpartition(":")[2]) >= 2**16:
        raise ValueError(f"coordinator_address is {address!r}, expected 'host:port'")
    if whole(index) not in range(require_count("process_count", count)):
        raise ValueError(f"process_id is {index!r}, expected 0 to {count - 1}")


def process_count() -> int:
    """The number of processes; 1 without ``join``."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """The number of this process, from 0."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is process 0, which prints and writes files."""
    return process_index() == 0


def fail(status: int) -> None:
    """Bounds the time that a failed process takes to end.

    A process that ends waits for all processes. Where all have failed, all end at once, in order.
    Otherwise the failed process ends after 10 seconds with the exit status, and JAX reports the
    loss to the remaining processes.
    """
    if process_count() > 1:
        timer = Timer(10, os._exit, [status])
        timer.daemon = True
        timer.start()


def _report_and_fail(*error: Any) -> None:
    sys.__excepthook__(*error)
    sys.stderr.flush()
    fail(1)


def from_first(work: Callable[[], bytes]) -> bytes:
    """Calls ``work`` in process 0 and returns the result in every process.

    Raises:
      Exception: in every process the exception of ``work`` in process 0.
    """
    if process_count() == 1:
        return work()
    answer, raised = b"", None
    try:
        answer = b"+" + work() if is_first() else b""
    except Exception as error:  # all processes wait for the answer
        raised, kind = error, type(error)
        answer = b"-" + json.dumps([kind.__module__, kind.__name__, str(error)]).encode()
    answer = _broadcast(answer)
    if raised:
        raise raised
    if answer[:1] == b"-":
        raise _error(*json.loads(answer[1:]))
    return answer[1:]


def agree(flag: bool) -> bool:
    """The flag of process 0, in every process."""
    return bool(from_first(lambda: bytes([flag]))[0])


def all_gather(content: np.ndarray) -> np.ndarray:
    """The bytes of every process, [P, n] uint8, in every process; n is equal in all processes.

    Raises:
      LostProcessError: a process has ended.
      ValueError: the processes have different numbers of devices.
    """
    from jax.experimental.multihost_utils import process_allgather

    counts = (*np.bincount([device.process_index for device in jax.devices()]).tolist(),)
    if len(set(counts)) > 1:
        raise ValueError(f"the processes have {counts} devices, expected the same number each")
    return _exchange(process_allgather, content)


def unlike_first(value: bytes) -> list[int]:
    """The processes whose value differs from process 0's; every process gets an equal list."""
    digests = all_gather(np.frombuffer(hashlib.sha256(value).digest(), np.uint8))
    return np.flatnonzero((digests != digests[0]).any(axis=1)).tolist()


def _broadcast(content: bytes) -> bytes:
    """The bytes of process 0, of any length: length and beginning first, then the rest."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    message = len(content).to_bytes(8) + content
    short = message[:_SHORT].ljust(_SHORT, b"\0")
    begin = all_gather(np.frombuffer(short, np.uint8))[0].tobytes()
    end = 8 + int.from_bytes(begin[:8])
    if end <= _SHORT:
        return begin[8:end]
    rest = message[_SHORT:] if is_first() else bytes(end - _SHORT)
    return begin[8:] + _exchange(broadcast_one_to_all, np.frombuffer(rest, np.uint8)).tobytes()


def _exchange(collective: Callable[[np.ndarray], Any], content: np.ndarray) -> np.ndarray:
    """What a collective of JAX makes of bytes, in pieces of few lengths: each is a program."""
    received = []
    try:
        for start in range(0, max(len(content), 1), _CHUNK):
            piece = content[start : start + _CHUNK]
            padding = max(64, 1 << (len(piece) - 1).bit_length()) - len(piece)
            received.append(np.asarray(collective(np.pad(piece, (0, padding)))))
    except (ValueError, RuntimeError) as error:
        raise LostProcessError(
            f"a process of the job was lost, expected all {process_count()} to work until the end: "
            f"{str(error).splitlines()[0][:200]}"
        ) from error
    return np.concatenate(received, axis=-1)[..., : len(content)]


def _error(module: str, name: str, text: str) -> Exception:
    """An exception of process 0, rebuilt from type and text."""
    try:
        return getattr(import_module(module), name)(text)
    except (AttributeError, TypeError):  # a nested class, or one that takes more than a text
        return RuntimeError(f"{name}: {text}")
