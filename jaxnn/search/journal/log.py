"""An append-only log: one JSON record a line, each with a checksum that covers all before it.

    3f0c9a1e5b7d2c48 {"segment":0,...}

The checksum is the start of SHA-256(previous checksum, record), so a record that was changed, lost
or doubled is noticed wherever it is. A record is on the disk before ``append`` returns. One that a
crash cut short is the beginning of a line without its end: it is passed over, and overwritten by
the next. Anything else that does not fit is damage, and an error. Nothing but ``append`` changes
the file.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

from jaxnn.atomic import naming, sync_folder

Record = dict[str, Any]


class CorruptLogError(ValueError):
    """A log that is not what was written."""


class Log:
    """An open log; ``records`` are those in it."""

    def __init__(self, path: str | os.PathLike[str]):
        """Opens or creates it.

        Raises:
          CorruptLogError: a record fails its checksum.
          OSError: it cannot be read or written.
        """
        self.path = Path(path)
        self._file: BinaryIO = open(self.path, "a+b", buffering=0)  # noqa: SIM115
        try:
            self._file.seek(0)
            self.records, self._checksum, self._end = parse(self._file.read(), str(path))
            if not self.records:
                sync_folder(self.path.parent)
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Record) -> None:
        """Adds a record, and waits until it is on the disk.

        Raises:
          OSError: it could not be written; the log is as it was.
        """
        line = _line(self._checksum, record)
        with naming(self.path):
            try:
                self._cut()  # what a crash has left of the next record
                written = 0
                while written < len(line):
                    written += self._file.write(line[written:]) or 0
                os.fsync(self._file.fileno())
            except BaseException:
                self._cut()
                raise
        self._checksum = line[:_WIDTH].decode()
        self._end += len(line)
        self.records.append(record)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _cut(self) -> None:
        """Ends the file after the last complete record."""
        self._file.truncate(self._end)


_WIDTH = 16  # hexadecimal digits of a checksum
_START = "0" * _WIDTH
_BEGINNING_OF_A_LINE = re.compile(rb"[0-9a-f]{0,15}|[0-9a-f]{16}( (\{[ -~]*)?)?")


def parse(content: bytes, origin: str) -> tuple[list[Record], str, int]:
    """The records of a log, the last checksum, and where the last complete record ends.

    Raises:
      CorruptLogError: a complete line that fails its checksum, or an end that no crash leaves.
    """
    records: list[Record] = []
    checksum, end = _START, 0
    *lines, rest = content.split(b"\n")
    for line in lines:
        if not _fits(line, checksum):
            raise CorruptLogError(
                f"{origin} is damaged: record {len(records) + 1}, at byte {end}, fails its checksum"
            )
        records.append(json.loads(line[_WIDTH + 1 :]))
        checksum, end = line[:_WIDTH].decode(), end + len(line) + 1
    # Where the power failed, a file system may have made the file longer and written zeros.
    rest = rest.rstrip(b"\0")
    if not _BEGINNING_OF_A_LINE.fullmatch(rest) or _fits(rest[:-1], checksum):
        raise CorruptLogError(
            f"{origin} is damaged: what follows record {len(records)}, at byte {end}, is not the "
            "beginning of a record"
        )
    return records, checksum, end


def _fits(line: bytes, before: str) -> bool:
    """Whether a line without its end is what ``append`` wrote after that checksum."""
    payload = line[_WIDTH + 1 :]
    return line == f"{_checksum(before, payload)} ".encode() + payload


def _line(checksum: str, record: Record) -> bytes:
    payload = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    return f"{_checksum(checksum, payload)} ".encode() + payload + b"\n"


def _checksum(before: str, payload: bytes) -> str:
    return hashlib.sha256(before.encode() + payload).hexdigest()[:_WIDTH]
