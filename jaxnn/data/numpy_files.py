"""NumPy's .npy and .npz files, read without unpickling and without trust in a claimed size."""

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from jaxnn.data.idx import MAX_INFLATED, check_size
from jaxnn.data.splits import DataError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file.

    Raises:
      DataError: not an .npy file, Python objects (never unpickled), truncated, or trailing bytes.
    """
    with path.open("rb") as file:
        return _read_array(file, os.fstat(file.fileno()).st_size, path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Raises:
      DataError: as ``read_npy``; not a zip archive, corrupt, or a compressed array of more than
        ``MAX_INFLATED`` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _read_member(archive, member, path)
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # zipfile raises RuntimeError for an encrypted member.
        raise DataError(f"{path}: not a readable .npz archive ({error})") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = f"{path}[{member.filename.removesuffix('.npy')}]"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = member.compress_type
        raise DataError(f"{name}: zip compression method {method}, expected stored or deflated")
    if member.compress_type != zipfile.ZIP_STORED and member.file_size > MAX_INFLATED:
        found = f"claims {member.file_size} bytes"
        raise DataError(f"{name}: {found}, expected at most {MAX_INFLATED} in a compressed array")
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, name)


def _read_array(stream: IO[bytes], size: int, name: object) -> np.ndarray:
    """The array in a stream of ``size`` bytes; the header is checked before memory is taken."""
    try:
        version = np.lib.format.read_magic(stream)
        _check_version(version)
        shape, _, dtype = _HEADERS[version](stream)
        _check(shape, dtype, size - stream.tell(), name)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except DataError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: not a readable .npy file ({reason})") from None


def _check_version(version: tuple[int, int]) -> None:
    if version not in _HEADERS:
        raise ValueError(f"format version {version}, expected (1, 0) or (2, 0)")


def _check(shape: tuple[int, ...], dtype: np.dtype, available: int, name: object) -> None:
    if dtype.kind not in "iuf":
        expected = "integers or floats (Python objects are never unpickled)"
        raise DataError(f"{name}: holds values of dtype {dtype}, expected {expected}")
    if any(n < 0 for n in shape):
        raise DataError(f"{name}: the header claims the shape {shape}, expected sizes >= 0")
    claimed = dtype.itemsize * math.prod(shape)
    claim = f"the shape {shape} and dtype {dtype}"
    check_size(available, claimed, claim, name, unit="bytes of values")
