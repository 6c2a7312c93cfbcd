"""Downloads that are verified before they get their name."""

import hashlib
import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jaxnn.atomic import atomic_write
from jaxnn.data.errors import DataError, MissingDataError
from jaxnn.data.idx import gunzip

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, received bytes, total bytes or None where the server does not say)."""

_CHUNK = 2**18
_LEAST_IN_TIMEOUT = 2**14
"""A connection that brings fewer bytes than this within the timeout counts as stalled."""


class RemoteFile(NamedTuple):
    """A file as it must be once decompressed."""

    name: str  # without .gz
    size: int  # bytes
    sha256: str


def fetch(
    files: Sequence[RemoteFile],
    mirrors: Sequence[str],
    folder: Path,
    *,
    timeout: float = 30.0,
    progress: Progress | None = None,
) -> None:
    """Downloads ``NAME.gz`` for every file into ``folder``, created if need be.

    A mirror that fails in any way (down, an HTTP error, stalled, too long, truncated, the wrong
    bytes) hands over to the next; the one that worked comes first for the files that follow. A file
    appears in ``folder`` whole and verified or not at all, so any number of processes may do this
    at once.

    Args:
      files: what to download.
      mirrors: the addresses of folders that hold the files, each with a slash at its end.
      folder: where to.
      timeout: seconds of silence after which a connection counts as stalled.
      progress: told about every piece received.

    Raises:
      MissingDataError: no mirror has a good copy; says what to download by hand.
      DataError: the folder cannot be written.
    """
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    mirrors = list(mirrors)
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
            raise MissingDataError(
                f"cannot download {file.name}.gz ({'; '.join(failures)}): "
                + by_hand(files[done:], mirrors, folder)
            )
        with _writing_to(folder), atomic_write(folder / f"{file.name}.gz") as out:
            out.write(content)


def by_hand(files: Sequence[RemoteFile], mirrors: Sequence[str], folder: Path) -> str:
    """What a user without a connection is told to do."""
    names = ", ".join(f"{file.name}.gz" for file in files)
    return f"download {names} by hand from {' or '.join(mirrors)} into {folder}"


def _download(url: str, file: RemoteFile, timeout: float, progress: Progress | None) -> bytes:
    """The compressed bytes at ``url``, once their content is what ``file`` says."""
    # gzip never adds more than a few bytes per 64 KiB to what it cannot compress.
    limit = file.size + file.size // 100 + 4096
    compressed = bytearray()
    for total, piece in _pieces(url, limit, timeout):
        compressed += piece
        if len(compressed) > limit:
            raise DataError(f"sent more than the {limit} bytes expected")
        if progress is not None:
            progress(f"{file.name}.gz", len(compressed), total)
    content = gunzip(io.BytesIO(compressed), file.size, url)
    verify(content, file, url)
    return bytes(compressed)


def verify(content: bytes, file: RemoteFile, name: object) -> None:
    """Raises DataError unless ``content`` has the checksum of ``file``; ``name`` for messages."""
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != file.sha256:
        raise DataError(f"{name}: the content's SHA-256 is {checksum}, expected {file.sha256}")


def _pieces(url: str, limit: int, timeout: float) -> Iterator[tuple[int | None, bytes]]:
    """(Announced length, piece) as they come, from a server that may stall, stop or go on."""
    request = urllib.request.Request(url, headers={"User-Agent": "jaxnn"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        if total is not None and total > limit:
            raise DataError(f"announces {total} bytes, expected at most {limit}")
        received = received_before = 0
        since = time.monotonic()
        while piece := response.read1(_CHUNK):
            received += len(piece)
            yield total, piece
            # The socket's own timeout starts afresh with every byte: a trickle would pass it.
            if time.monotonic() - since > timeout:
                if received - received_before < _LEAST_IN_TIMEOUT:
                    raise TimeoutError(f"stalled after {received} bytes")
                since, received_before = time.monotonic(), received
    if total is not None and received != total:
        raise DataError(f"truncated: sent {received} of {total} bytes")


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write into the data folder {folder}: {error.strerror or error}, expected a "
            "writable folder (data_dir or the environment variable JAXNN_DATA)"
        ) from None


def _reason(error: BaseException) -> str:
    """One line about why a mirror failed."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is also the response
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__
