"""The IDX format of MNIST: two zero bytes, a type code, the rank, big-endian sizes, the values."""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxnn.data.errors import DataError

MAX_INFLATED = 2**31
"""The most bytes one compressed file may grow to (2 GiB); uncompressed files have no limit."""

NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LONGEST_HEADER = 4 + 4 * 255
_GZIP = b"\x1f\x8b"


class Header(NamedTuple):
    """What the first bytes of an IDX file say about the rest."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes before the first value

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.offset + self.dtype.itemsize * math.prod(self.shape)


def read(path: Path) -> np.ndarray:
    """The array of an IDX file, plain or gzip-compressed.

    Args:
      path: the file; compression is told by its content, not by its name.

    Returns:
      A read-only array with the shape and the type that the header says.

    Raises:
      DataError: not IDX, truncated, trailing bytes, corrupt gzip, or too large once decompressed.
    """
    return parse(read_content(path), path)


def read_content(path: Path, limit: int = MAX_INFLATED) -> bytes:
    """The decompressed bytes of an IDX file, checked against the size that the header claims.

    The header is read first, so that nothing larger than what it claims, and for a compressed file
    nothing larger than ``limit`` bytes, ever fills memory.
    """
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
        file.seek(0)
        if not head.startswith(_GZIP):
            header = parse_header(head, path)
            _check_size(os.fstat(file.fileno()).st_size, header, path)
            return file.read()
        header = parse_header(gunzip(file, _LONGEST_HEADER, path, whole=False), path)
        if header.size > limit:
            raise DataError(
                f"{path}: the header claims {header.size} bytes {header.shape}, expected at most "
                f"{limit} in a compressed file"
            )
        file.seek(0)
        content = gunzip(file, header.size, path)
    _check_size(len(content), header, path)
    return content


def parse(content: bytes, name: object) -> np.ndarray:
    """The array in the decompressed bytes of an IDX file; ``name`` is for messages."""
    header = parse_header(content, name)
    _check_size(len(content), header, name)
    return np.frombuffer(content, header.dtype, offset=header.offset).reshape(header.shape)


def parse_header(head: bytes, name: object) -> Header:
    """The header at the start of ``head``; ``name`` is for messages."""
    if len(head) < 4 or head[:2] != b"\0\0":
        raise DataError(
            f"{name}: starts with the bytes {head[:4].hex(' ') or '(none)'}, expected an IDX file: "
            "00 00, the type, the rank"
        )
    code, rank = head[2], head[3]
    if code not in _DTYPES:
        known = ", ".join(f"{known:#04x}" for known in _DTYPES)
        raise DataError(f"{name}: the IDX type code is {code:#04x}, expected one of {known}")
    if rank == 0:
        raise DataError(f"{name}: the IDX rank is 0, expected at least 1")
    offset = 4 + 4 * rank
    if len(head) < offset:
        raise DataError(
            f"{name}: truncated after {len(head)} bytes, expected an IDX header of {offset}"
        )
    shape = tuple(np.frombuffer(head, ">u4", rank, offset=4).tolist())
    return Header(np.dtype(_DTYPES[code]), shape, offset)


def gunzip(file: IO[bytes], limit: int, name: object, *, whole: bool = True) -> bytes:
    """At most ``limit`` decompressed bytes; with ``whole``, having more of them is an error."""
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            # One byte more: reading past the end is also what verifies the gzip checksum.
            content = stream.read(limit + whole)
    except EOFError:
        raise DataError(f"{name}: truncated gzip data, expected a complete file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip data ({error})") from None
    if len(content) > limit:
        raise DataError(f"{name}: decompresses to more than the {limit} bytes expected, refused")
    return content


def _check_size(size: int, header: Header, name: object) -> None:
    if size != header.size:
        problem = "truncated" if size < header.size else "trailing bytes"
        raise DataError(
            f"{name}: {problem}: holds {size} bytes, expected {header.size} for the shape "
            f"{header.shape} that its header claims"
        )
