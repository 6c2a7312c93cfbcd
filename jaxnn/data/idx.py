"""The IDX format of MNIST: two zero bytes, a type code, the rank, big-endian sizes, the values."""

import gzip
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from jaxnn.data.splits import DataError

MAX_INFLATED = 2**31
"""The largest decompressed size of a file (2 GiB); uncompressed files have no limit."""

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
    """The first bytes of an IDX file: type and shape of the values."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes before the first value

    @property
    def size(self) -> int:
        """The bytes of the whole file."""
        return self.offset + self.dtype.itemsize * math.prod(self.shape)


def find(folder: Path, name: str) -> Path | None:
    """The file ``name`` or ``name.gz``, if either exists."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def read(
    path: Path, limit: int = MAX_INFLATED, verify: Callable[[bytes], None] = lambda content: None
) -> np.ndarray:
    """The array of an IDX file, plain or gzip-compressed, recognised by content.

    The header is read first: memory never holds more than the claimed size, nor more than
    ``limit`` bytes of a compressed file.

    Args:
      path: the file.
      limit: the largest decompressed size of a compressed file.
      verify: called with the decompressed bytes; raises DataError for wrong bytes.

    Returns:
      A read-only array with the shape and the type of the header.

    Raises:
      DataError: not IDX, truncated, trailing bytes, corrupt gzip, or too large once decompressed.
    """
    with path.open("rb") as file:
        head, size = file.read(_LONGEST_HEADER), os.fstat(file.fileno()).st_size
        file.seek(0)
        if head.startswith(_GZIP):
            header = parse_header(gunzip(file, _LONGEST_HEADER, path, whole=False), path)
            if header.size > limit:
                claimed = f"{header.size} bytes {header.shape}"
                raise DataError(
                    f"{path}: the header claims {claimed}, expected at most {limit} in a "
                    "compressed file"
                )
            file.seek(0)
            content = gunzip(file, header.size, path)
            check_size(len(content), header.size, f"the shape {header.shape}", path)
        else:
            header = parse_header(head, path)
            check_size(size, header.size, f"the shape {header.shape}", path)
            content = file.read()
    verify(content)
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
        found = f"truncated after {len(head)} bytes"
        raise DataError(f"{name}: {found}, expected an IDX header of {offset}")
    shape = tuple(np.frombuffer(head, ">u4", rank, offset=4).tolist())
    return Header(np.dtype(_DTYPES[code]), shape, offset)


def gunzip(file: IO[bytes], limit: int, name: object, *, whole: bool = True) -> bytes:
    """At most ``limit`` decompressed bytes; with ``whole``, more bytes are an error."""
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            # Reading a byte past the end verifies the gzip checksum.
            content = stream.read(limit + whole)
    except EOFError:
        raise DataError(f"{name}: truncated gzip data, expected a complete file") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: corrupt gzip data ({error})") from None
    if len(content) > limit:
        raise DataError(f"{name}: decompresses to more than the {limit} bytes expected, refused")
    return content


def check_size(size: int, claimed: int, claim: str, name: object, unit: str = "bytes") -> None:
    """Checks that a file holds the number of bytes claimed by the header."""
    if size != claimed:
        problem = "truncated" if size < claimed else "trailing bytes"
        raise DataError(f"{name}: {problem}: holds {size} {unit}, expected {claimed} for {claim}")
