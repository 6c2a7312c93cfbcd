"""The IDX format of MNIST: two zero bytes, a type code, the rank, big-endian sizes, the values."""

import gzip
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from jaxnn.data.splits import DataError, expect
from jaxnn.files import decoding, open_regular

MAX_INFLATED = 2**31
"""The largest decompressed size of a file (2 GiB); uncompressed files have no limit."""

MAX_RANK = 32
"""The largest rank of an array of all versions of NumPy."""

NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LONGEST_HEADER = 4 + 4 * 255
_GZIP = b"\x1f\x8b"


def find(folder: Path, name: str) -> Path | None:
    """The file ``name`` or ``name.gz``, if either exists."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.exists()), None)


def inflatable(size: int) -> int:
    """The most bytes in a compressed file of ``size`` bytes: 128 a byte, but at least 64 MiB."""
    return min(MAX_INFLATED, max(2**26, 128 * size))


def read(
    path: Path, limit: int = MAX_INFLATED, verify: Callable[[bytes], None] = lambda content: None
) -> np.ndarray:
    """The array of an IDX file, plain or gzip-compressed, recognised by content.

    The header is read first: memory never holds more than the claimed size, nor more than
    ``limit`` and ``inflatable`` bytes of a compressed file. ``verify`` checks the decompressed
    bytes.

    Raises:
      DataError: not IDX, truncated, trailing bytes, corrupt gzip, or too large once decompressed.
      OSError: the file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        head = file.read(_LONGEST_HEADER)
        file.seek(0)
        compressed = head.startswith(_GZIP)
        if compressed:
            head = gunzip(file, _LONGEST_HEADER, path, whole=False)
            file.seek(0)
        dtype, shape, offset = parse_header(head, path)
        claimed, claim = offset + dtype.itemsize * math.prod(shape), f"the shape {shape}"
        size = os.fstat(file.fileno()).st_size
        if not compressed:
            check_size(size, claimed, claim, path)
        else:
            limit = min(limit, inflatable(size))
            found = f"{path}: the header claims {claimed} bytes {shape}"
            expect(claimed <= limit, found, f"at most {limit} in a compressed file")
        content = gunzip(file, claimed, path) if compressed else file.read()
    check_size(len(content), claimed, claim, path)
    verify(content)
    with decoding(f"{path}: {claim} is no array's", DataError):
        return np.frombuffer(content, dtype, offset=offset).reshape(shape)


def parse_header(head: bytes, name: object) -> tuple[np.dtype, tuple[int, ...], int]:
    """Type, shape and offset of the values by the bytes ``head``; ``name`` is for messages."""
    found = f"{name}: starts with the bytes {head[:4].hex(' ') or '(none)'}"
    is_idx = len(head) >= 4 and head.startswith(b"\0\0")
    expect(is_idx, found, "an IDX file: 00 00, the type, the rank")
    code, rank = head[2], head[3]
    known = "one of " + ", ".join(f"{known:#04x}" for known in _DTYPES)
    expect(code in _DTYPES, f"{name}: the IDX type code is {code:#04x}", known)
    expect(0 < rank <= MAX_RANK, f"{name}: the IDX rank is {rank}", f"1 to {MAX_RANK}")
    offset = 4 + 4 * rank
    found = f"{name}: truncated after {len(head)} bytes"
    expect(len(head) >= offset, found, f"an IDX header of {offset}")
    shape = tuple(np.frombuffer(head, ">u4", rank, offset=4).tolist())
    return np.dtype(_DTYPES[code]), shape, offset


def gunzip(file: IO[bytes], limit: int, name: object, *, whole: bool = True) -> bytes:
    """At most ``limit`` decompressed bytes; with ``whole``, more bytes are an error."""
    with decoding(f"{name}: corrupt gzip data", DataError):
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                # Reading a byte past the end verifies the gzip checksum.
                content = stream.read(limit + whole)
        except EOFError:
            raise DataError(f"{name}: truncated gzip data, expected a complete file") from None
    if len(content) > limit:
        raise DataError(f"{name}: decompresses to more than the {limit} bytes expected, refused")
    return content


def check_size(size: int, claimed: int, claim: str, name: object, unit: str = "bytes") -> None:
    """Checks that a file holds the number of bytes claimed by the header."""
    if size != claimed:
        problem = "truncated" if size < claimed else "trailing bytes"
        raise DataError(f"{name}: {problem}: holds {size} {unit}, expected {claimed} for {claim}")
