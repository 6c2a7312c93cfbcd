"""Downloads, verified before a file gets its name."""

import hashlib
import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from jaxnn.data.idx import gunzip
from jaxnn.data.splits import DataError, MissingDataError
from jaxnn.files import atomic_write

Report = Callable[[str, int, int | None], None]
"""(file name, received bytes, total bytes or None if the server announces no size) -> None."""

_CHUNK = 2**18
_LEAST_IN_TIMEOUT = 2**14  # fewer bytes within the timeout: the connection counts as stalled


class RemoteFile(NamedTuple):
    """A file and the required content once decompressed."""

    name: str  # without .gz
    size: int  # bytes
    sha256: str


def fetch(
    files: Sequence[RemoteFile],
    mirrors: Sequence[str],
    folder: Path,
    *,
    timeout: float = 30.0,
    progress: Report | None = None,
) -> None:
    """Downloads ``NAME.gz`` for every file into ``folder``, created if need be.

    After any failure of a mirror (down, an HTTP error, stalled, too long, truncated, wrong bytes)
    the next mirror is tried; a mirror that worked comes first for the next file. A file appears in
    ``folder`` whole and verified or not at all: several processes may fetch at the same time.
    A connection is stalled after ``timeout`` seconds of silence. Mirrors end with a slash.

    Raises:
      MissingDataError: no mirror has a good copy; the message lists the files to download by hand.
      DataError: the folder cannot be written.
    """
    mirrors = list(mirrors)
    with _folder_for_files(folder):
        for done, file in enumerate(files):
            failures = []
            for mirror in mirrors:
                try:
                    content = _download(f"{mirror}{file.name}.gz", file, timeout, progress)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failures.append(f"{mirror}: {_reason(error)}")
                else:
                    mirrors = [mirror, *(other for other in mirrors if other != mirror)]
                    break
            else:
                reasons, remedy = "; ".join(failures), by_hand(files[done:], mirrors, folder)
                raise MissingDataError(f"cannot download {file.name}.gz ({reasons}): {remedy}")
            with _writing_to(folder), atomic_write(folder / f"{file.name}.gz") as out:
                out.write(content)


def by_hand(files: Sequence[RemoteFile], mirrors: Sequence[str], folder: Path) -> str:
    """Instructions for a user without a connection."""
    names = ", ".join(f"{file.name}.gz" for file in files)
    return f"download {names} by hand from {' or '.join(mirrors)} into {folder}"


def _download(url: str, file: RemoteFile, timeout: float, progress: Report | None) -> bytes:
    """The compressed bytes at ``url``, verified."""
    # gzip adds at most a few bytes per 64 KiB to incompressible data.
    limit = file.size + file.size // 100 + 4096
    compressed = bytearray()
    request = urllib.request.Request(url, headers={"User-Agent": "jaxnn"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        if total is not None and total > limit:
            raise DataError(f"announces {total} bytes, expected at most {limit}")
        before, since = 0, time.monotonic()
        while piece := response.read1(_CHUNK):
            compressed += piece
            if len(compressed) > limit:
                raise DataError(f"sent more than the {limit} bytes expected")
            if progress is not None:
                progress(f"{file.name}.gz", len(compressed), total)
            # The socket's timeout starts again with every byte: a trickle would never time out.
            if time.monotonic() - since > timeout:
                if len(compressed) - before < _LEAST_IN_TIMEOUT:
                    raise TimeoutError(f"stalled after {len(compressed)} bytes")
                before, since = len(compressed), time.monotonic()
    if total is not None and len(compressed) != total:
        raise DataError(f"truncated: sent {len(compressed)} of {total} bytes")
    content = gunzip(io.BytesIO(compressed), file.size, url)
    verify(content, file, url)
    return bytes(compressed)


def verify(content: bytes, file: RemoteFile, name: object) -> None:
    """Checks that ``content`` has the checksum of ``file``; ``name`` is for messages."""
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != file.sha256:
        raise DataError(f"{name}: the content's SHA-256 is {checksum}, expected {file.sha256}")


@contextmanager
def _folder_for_files(folder: Path) -> Iterator[None]:
    """A folder, created if missing; without a file at the end, what was created is removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        expected = "a writable folder (data_dir or the environment variable JAXNN_DATA)"
        reason = error.strerror or error
        raise DataError(
            f"cannot write into the data folder {folder}: {reason}, expected {expected}"
        ) from None


def _reason(error: BaseException) -> str:
    """The reason of a mirror's failure, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # the error is also the response
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__
