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
from jaxnn.data.splits import PARTS, DataError, MissingDataError, make_splits
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
        raise DataError(
            f"{path} holds the arrays {', '.join(arrays) or '(none)'}, expected "
            f"{', '.join(PARTS)}, or {', '.join(KERAS_NAMES)}"
        )
    if not path.is_dir():
        raise DataError(f"{path} is neither a folder nor an .npz file, expected one of them")
    files = {part: idx.find(path, name) for part, name in idx.NAMES.items()}
    names, read = idx.NAMES, idx.read
    if not any(files.values()):
        names, read = _npy_names(path), read_npy
        files = {part: p if (p := path / name).is_file() else None for part, name in names.items()}
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
    if len(prefixes) > 1:
        listed = ", ".join(map(repr, prefixes))
        raise DataError(f"{folder} holds .npy files with the prefixes {listed}, expected one")
    return {part: f"{prefixes[0]}{part}.npy" for part in PARTS}


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file; DataError for other content, Python objects included."""
    with path.open("rb") as file:
        return _read_array(file, os.fstat(file.fileno()).st_size, path)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; compressed arrays up to ``MAX_INFLATED`` bytes."""
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
    method = member.compress_type
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{name}: zip compression method {method}, expected stored or deflated")
    if method != zipfile.ZIP_STORED and member.file_size > MAX_INFLATED:
        found = f"claims {member.file_size} bytes"
        raise DataError(f"{name}: {found}, expected at most {MAX_INFLATED} in a compressed array")
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, name)


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
    if dtype.kind not in "iuf":
        expected = "integers or floats (Python objects are never unpickled)"
        raise DataError(f"{name}: holds values of dtype {dtype}, expected {expected}")
    if any(n < 0 for n in shape):
        raise DataError(f"{name}: the header claims the shape {shape}, expected sizes >= 0")
    claimed, claim = dtype.itemsize * math.prod(shape), f"the shape {shape} and dtype {dtype}"
    check_size(available, claimed, claim, name, unit="bytes of values")
