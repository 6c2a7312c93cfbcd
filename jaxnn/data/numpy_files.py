"""NumPy's .npy and .npz files, without ever unpickling and without trusting a claimed size."""

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from jaxnn.data.errors import DataError
from jaxnn.data.idx import MAX_INFLATED

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file.

    Raises:
      DataError: not an .npy file, Python objects (they would be unpickled), truncated, or trailing
        bytes.
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
        # RuntimeError is what zipfile raises for an encrypted member.
        raise DataError(f"{path}: not a readable .npz archive ({error})") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    name = f"{path}[{member.filename.removesuffix('.npy')}]"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{name}: zip compression method {member.compress_type}, expected stored or deflated"
        )
    if member.compress_type != zipfile.ZIP_STORED and member.file_size > MAX_INFLATED:
        raise DataError(
            f"{name}: claims {member.file_size} bytes, expected at most {MAX_INFLATED} in a "
            "compressed array"
        )
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, name)


def _read_array(stream: IO[bytes], size: int, name: object) -> np.ndarray:
    """The array in a stream of ``size`` bytes; its header is judged before memory is taken."""
    try:
        shape, dtype = _read_header(stream)
        _check(shape, dtype, size - stream.tell(), name)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except DataError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: not a readable .npy file ({reason})") from None


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"format version {version}, expected (1, 0) or (2, 0)")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _check(shape: tuple[int, ...], dtype: np.dtype, available: int, name: object) -> None:
    if dtype.kind not in "iuf":
        raise DataError(
            f"{name}: holds values of dtype {dtype}, expected integers or floats (Python objects "
            "are never unpickled)"
        )
    if any(n < 0 for n in shape):
        raise DataError(f"{name}: the header claims the shape {shape}, expected sizes >= 0")
    claimed = dtype.itemsize * math.prod(shape)
    if claimed != available:
        problem = "truncated" if available < claimed else "trailing bytes"
        raise DataError(
            f"{name}: {problem}: holds {available} bytes of values, expected {claimed} for the "
            f"shape {shape} and dtype {dtype} that its header claims"
        )
