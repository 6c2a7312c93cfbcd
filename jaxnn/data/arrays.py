"""Files of arrays: IDX, as MNIST has, NumPy's .npy and .npz, MATLAB's .mat.

An IDX file holds two zero bytes, a type code, the rank, big-endian sizes, the values. Every format
is read here without unpickling and without trust in a claimed size; of an archive, the chosen
arrays alone are decoded.
"""

import gzip
import io
import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxnn.data.splits import DataError, expect
from jaxnn.files import decoding, open_regular

MAX_INFLATED = 2**31
"""The largest decompressed size of a file (2 GiB); uncompressed files have no limit."""

MAX_RANK = 32
"""The largest rank of an array of all versions of NumPy."""

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LONGEST_HEADER = 4 + 4 * 255
_GZIP = b"\x1f\x8b"


def find_idx(folder: Path, name: str) -> Path | None:
    """The file ``name`` or ``name.gz``, if either exists."""
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.exists()), None)


def inflatable(size: int) -> int:
    """The most bytes in a compressed file of ``size`` bytes: 128 a byte, but at least 64 MiB."""
    return min(MAX_INFLATED, max(2**26, 128 * size))


def read_idx(
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


def content_of(path: Path) -> bytes:
    """The bytes of a file, decompressed if the file is gzip."""
    with open_regular(path) as file:
        content = file.read()
    if content.startswith(b"\x1f\x8b"):
        return gunzip(io.BytesIO(content), inflatable(len(content)), path)
    return content


# NumPy.

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file; DataError for other content, Python objects included."""
    with open_regular(path) as file:
        return _read_array(file, os.fstat(file.fileno()).st_size, path)


def read_npz(
    path: Path,
    choose: Callable[[Collection[str]], Mapping[str, str]] = lambda names: {n: n for n in names},
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file; compressed arrays up to ``inflatable`` bytes together.

    Args:
      path: the file.
      choose: the arrays to decode: from the names of all arrays to pairs of a key of the result
        and a name.
    """
    fault = f"{path}: not a readable .npz archive"
    with open_regular(path) as file, decoding(fault, DataError), zipfile.ZipFile(file) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name != member.filename:
                expect(name not in members, f"{path} holds the array {name} twice", "once")
                members[name] = member
        chosen = {key: members[name] for key, name in choose(members).items()}
        inflated = [m.file_size for m in chosen.values() if m.compress_type != zipfile.ZIP_STORED]
        limit = inflatable(os.fstat(file.fileno()).st_size)
        found = f"{path}: the compressed arrays claim {sum(inflated)} bytes"
        expect(sum(inflated) <= limit, found, f"at most {limit}, or no compression (np.savez)")
        return {key: _read_member(archive, m, path) for key, m in chosen.items()}


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = f"{path}[{member.filename.removesuffix('.npy')}]"
    method, size = member.compress_type, member.file_size
    plain = method == zipfile.ZIP_STORED
    found = f"{name}: zip compression method {method}"
    expect(plain or method == zipfile.ZIP_DEFLATED, found, "stored or deflated")
    found = f"{name}: claims {size} bytes"
    expect(not plain or size == member.compress_size, found, f"{member.compress_size} as stored")
    with archive.open(member) as stream:
        return _read_array(stream, size, name)


def _read_array(stream: IO[bytes], size: int, name: object) -> np.ndarray:
    """The array in a stream of ``size`` bytes; the header is checked before memory is taken."""
    with decoding(f"{name}: not a readable .npy file", DataError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy about headers by Python 2
        version = np.lib.format.read_magic(stream)
        found = f"{name}: .npy of format version {version}"
        expect(version in _HEADERS, found, "(1, 0) or (2, 0)")
        shape, _, dtype = _HEADERS[version](stream)
        _check_header(shape, dtype, size - stream.tell(), name)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)


def _check_header(shape: tuple[int, ...], dtype: np.dtype, available: int, name: object) -> None:
    expected = "integers or floats (Python objects are never unpickled)"
    expect(
        dtype.kind in "biufUS" and dtype.itemsize,
        f"{name}: holds values of dtype {dtype}",
        expected,
    )
    claim = f"the shape {shape}"
    expect(min(shape, default=0) >= 0, f"{name}: the header claims {claim}", "sizes >= 0")
    claimed = dtype.itemsize * math.prod(shape)
    check_size(available, claimed, f"{claim} and dtype {dtype}", name, unit="bytes of values")


# MATLAB.

_MATLAB = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"
}  # fmt: skip
"""The types of stored values, by number; ``_MATRIX`` and ``_COMPRESSED`` are elements of a file."""
_MATRIX, _COMPRESSED, _COMPLEX = 14, 15, 0x800
_NUMERIC = range(6, 16)  # classes of matrices: double, single, int8, ..., uint64


def read_mat(path: Path, choose: Callable[[Collection[str]], Mapping[str, str]]) -> dict[str, Any]:
    """Arrays of a file of MATLAB 5 to 7, the examples along the first axis.

    SciPy's reader takes a claimed size or type at the word, up to a crash of the process.

    Args:
      path: the file.
      choose: the arrays to read: from the names of all arrays to pairs of a key of the result and
        a name; keys of labels end with "labels".
    """
    content = content_of(path)
    with decoding(f"{path}: not a readable .mat file", DataError):
        order = {b"\0\1IM": "<", b"\1\0MI": ">"}.get(content[124:128], "")
        expected = "a file of MATLAB's versions 5 to 7 (save -v7), or an .npz"
        expect(order, f"{path} is no such file, or of version 4 or 7.3", expected)
        stored: dict[str, np.ndarray] = {}
        room = inflatable(len(content))
        for kind, part in _elements(memoryview(content)[128:], order):
            if kind == _COMPRESSED:
                stream = zlib.decompressobj()
                inner = stream.decompress(part, room + 1)
                room -= len(inner)
                expect(room >= 0, f"{path}: decompresses to too much", "at most 128 bytes a byte")
                expect(stream.eof, f"{path}: truncated zlib data", "a whole file")
                kind, part = next(_elements(memoryview(inner), order))
            if kind == _MATRIX:
                stored |= _matrix(part, order)
        arrays = {key: stored[name] for key, name in choose(stored).items()}
    counts = {key.partition("_")[0]: a.size for key, a in arrays.items() if key.endswith("labels")}
    for key, array in arrays.items():
        count = counts.get(key.partition("_")[0])
        if key.endswith("images") and array.ndim and count == array.shape[-1] != array.shape[0]:
            arrays[key] = np.moveaxis(array, -1, 0)
    return arrays


def _elements(content: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The number of the type and the bytes of every element."""
    at = 0
    while at + 8 <= len(content):
        kind, size = np.frombuffer(content, f"{order}u4", 2, at).tolist()
        start = at + 8
        if kind >> 16:  # a small element: the size and the bytes are within the first 8 bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(content):
            raise ValueError(f"truncated: {size} bytes at {at} of {len(content)}")
        yield kind, content[start : start + size]
        at = start + size if kind == _COMPRESSED else start + size + -(start + size) % 8


def _matrix(content: memoryview, order: str) -> dict[str, np.ndarray]:
    """The numbers of a matrix by name; no entry for texts, structs and complex numbers."""
    (_, flags), (_, sizes), (_, name), *values = _elements(content, order)
    flag = int(np.frombuffer(flags, f"{order}u4")[0])
    if flag & 0xFF not in _NUMERIC or flag & _COMPLEX or values[0][0] not in _MATLAB:
        return {}
    shape = np.frombuffer(sizes, f"{order}i4").tolist()
    found = np.frombuffer(values[0][1], order + _MATLAB[values[0][0]])
    if min(shape) < 0 or math.prod(shape) != found.size:
        raise ValueError(f"{bytes(name).decode()} holds {found.size} values for the shape {shape}")
    return {bytes(name).decode(): found.reshape(shape, order="F")}
