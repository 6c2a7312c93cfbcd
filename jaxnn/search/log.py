"""An append-only log: one JSON record a line, each with a checksum that covers all before it.

    3f0c9a1e5b7d2c48 {"segment":0,...}

The checksum is the start of SHA-256(previous checksum, record), so a record that was changed, lost
or doubled is noticed wherever it is. A record is on the disk before ``append`` returns. One that a
crash cut short is the beginning of a line without its end: it is dropped. Anything else that does
not fit is damage, and an error.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

Record = dict[str, Any]


class CorruptLogError(ValueError):
    """A log that is not what was written."""


class Log:
    """An open log; ``records`` are those in it."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens or creates it.

        Raises:
          CorruptLogError: a record fails its checksum; the file is left as it is.
          OSError: it cannot be read or written.
        """
        self.path = Path(path)
        content = self.path.read_bytes() if self.path.exists() else b""
        self.records, self._checksum, self._end = parse(content, str(path))
        self._file: BinaryIO = open(self.path, "r+b" if content else "w+b", buffering=0)  # noqa: SIM115
        self._cut()
        if not content:
            _sync_folder(self.path.parent)

    def append(self, record: Record) -> None:
        """Adds a record, and waits until it is on the disk.

        Raises:
          OSError: it could not be written; the log is as it was.
        """
        line = _line(self._checksum, record)
        try:
            written = 0
            while written < len(line):
                written += self._file.write(line[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError:
            self._cut()
            raise
        self._checksum = line[:_WIDTH].decode()
        self._end += len(line)
        self.records.append(record)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _cut(self) -> None:
        """Removes what a crash or a full disk has left of an unfinished record."""
        self._file.truncate(self._end)
        self._file.seek(self._end)


_WIDTH = 16  # hexadecimal digits of a checksum
_START = "0" * _WIDTH


def parse(content: bytes, origin: str) -> tuple[list[Record], str, int]:
    """The records of a log, the last checksum, and where the last complete record ends.

    Raises:
      CorruptLogError: a complete line that fails its checksum.
    """
    records: list[Record] = []
    checksum, end = _START, 0
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        expected = _checksum(checksum, line[_WIDTH + 1 : -1])
        if line[:_WIDTH] != expected.encode() or line[_WIDTH : _WIDTH + 1] != b" ":
            raise CorruptLogError(
                f"{origin} is damaged: record {len(records) + 1}, at byte {end}, fails its checksum"
            )
        records.append(json.loads(line[_WIDTH + 1 :]))
        checksum, end = expected, end + len(line)
    return records, checksum, end


def _line(checksum: str, record: Record) -> bytes:
    payload = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return f"{_checksum(checksum, payload)} ".encode() + payload + b"\n"


def _checksum(before: str, payload: bytes) -> str:
    return hashlib.sha256(before.encode() + payload).hexdigest()[:_WIDTH]


def _sync_folder(folder: Path) -> None:
    """Makes a new name in the folder survive a power cut, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
