"""The user's data: a folder of IDX files, a folder of .npy files, or an .npz archive.

NumPy's files are read without unpickling and without trust in a claimed size.
"""

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from jaxnn.data import idx
from jaxnn.data.idx import MAX_INFLATED, check_size
from jaxnn.data.splits import PARTS, DataError, MissingDataError, expect, make_splits
from jaxnn.types import Splits

KERAS_NAMES = ("x_train", "y_train", "x_test", "y_test")

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load(path: Path) -> Splits:
    """Reads the data at ``path``; see ``jaxnn.data.load`` for the accepted layouts."""
    if path.suffix == ".npz" and not path.is_dir():
        arrays = read_npz(path)
        for names in (PARTS, KERAS_NAMES):
            if all(name in arrays for name in names):
                renamed = {part: arrays[name] for part, name in zip(PARTS, names, strict=True)}
                return make_splits(renamed, path)
        expected = f"{', '.join(PARTS)}, or {', '.join(KERAS_NAMES)}"
        raise DataError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'}, expected {expected}"
        )
    expect(path.is_dir(), f"{path} is neither a folder nor an .npz file", "one of them")
    names, read = idx.NAMES, idx.read
    if not any(idx.find(path, name) for name in names.values()):
        names, read = _npy_names(path), read_npy
    files = {part: idx.find(path, name) for part, name in names.items()}
    missing = [names[part] for part, file in files.items() if file is None]
    if missing:
        raise MissingDataError(f"{path} lacks {', '.join(missing)}, expected four files")
    return make_splits({part: read(file) for part, file in files.items() if file}, path)


def _npy_names(folder: Path) -> dict[str, str]:
    """The names of the four .npy files, PREFIX_train_images.npy and so on, by part."""
    prefixes = sorted(
        {p.name.removesuffix(f"{part}.npy") for part in PARTS for p in folder.glob(f"*{part}.npy")}
    )
    if not prefixes:
        raise MissingDataError(
            f"{folder} holds no data set, expected {', '.join(idx.NAMES.values())} (or .gz), or "
            f"PREFIX_{{train,test}}_{{images,labels}}.npy"
        )
    listed = ", ".join(map(repr, prefixes))
    expect(len(prefixes) == 1, f"{folder} holds .npy files with the prefixes {listed}", "one")
    return {part: f"{prefixes[0]}{part}.npy" for part in PARTS}


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file; DataError for other content, Python objects included."""
    with path.open("rb") as file:
        return _read_array(file, os.fstat(file.fileno()).st_size, path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; compressed arrays up to ``MAX_INFLATED`` bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            named = {member.filename.removesuffix(".npy"): member for member in members}
            return {n: _read_member(archive, m, f"{path}[{n}]") for n, m in named.items()}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # zipfile raises RuntimeError for an encrypted member.
        raise DataError(f"{path}: not a readable .npz archive ({error})") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    method, size = member.compress_type, member.file_size
    plain = method == zipfile.ZIP_STORED
    found = f"{name}: zip compression method {method}"
    expect(plain or method == zipfile.ZIP_DEFLATED, found, "stored or deflated")
    expected = f"at most {MAX_INFLATED} in a compressed array"
    expect(plain or size <= MAX_INFLATED, f"{name}: claims {size} bytes", expected)
    with archive.open(member) as stream:
        return _read_array(stream, size, name)


def _read_array(stream: IO[bytes], size: int, name: object) -> np.ndarray:
    """The array in a stream of ``size`` bytes; the header is checked before memory is taken."""
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
        _check(shape, dtype, size - stream.tell(), name)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)
    except KeyError as version:
        expected = "expected (1, 0) or (2, 0)"
        raise DataError(f"{name}: .npy of format version {version}, {expected}") from None
    except DataError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{name}: not a readable .npy file ({reason})") from None


def _check(shape: tuple[int, ...], dtype: np.dtype, available: int, name: object) -> None:
    expected = "integers or floats (Python objects are never unpickled)"
    expect(dtype.kind in "biufUS", f"{name}: holds values of dtype {dtype}", expected)
    claim = f"the shape {shape}"
    expect(min(shape, default=0) >= 0, f"{name}: the header claims {claim}", "sizes >= 0")
    claimed = dtype.itemsize * math.prod(shape)
    check_size(available, claimed, f"{claim} and dtype {dtype}", name, unit="bytes of values")
