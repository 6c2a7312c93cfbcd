"""Files that appear whole or not at all, and stay there when the power fails."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary file beside ``path`` and moves it onto ``path`` on success.

    On any exception, KeyboardInterrupt included, the temporary file is removed and ``path`` is what
    it was before. The name is unique, so several processes may write one ``path`` at once: the last
    to finish wins.

    Args:
      path: the file to create or replace; its folder must exist.
      mode: "wb", or "w" for UTF-8 text with line ends as written (as the csv module wants it).

    Returns:
      A context manager that yields the open file.

    Raises:
      ValueError: another mode.
      OSError: the file cannot be written.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"mode is {mode!r}, expected 'wb' or 'w'")
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    encoding, newline = ("utf-8", "") if mode == "w" else (None, None)
    try:
        # "x" instead of the tempfile module: the permissions then follow the user's umask.
        with open(temporary, mode.replace("w", "x"), encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


_NOT_OFFERED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Waits until the names in a folder are on the disk, where the system offers that.

    Raises:
      OSError: the disk fails.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an error of the system, such as a full disk, say which file it is about."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise
