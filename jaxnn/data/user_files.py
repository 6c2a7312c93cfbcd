"""The user's data: four arrays in a folder or in an .npz archive.

NumPy's files are read without unpickling and without trust in a claimed size; of an archive, the
four arrays alone are decoded.
"""

import logging
import math
import os
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import IO

import numpy as np

from jaxnn.data import idx
from jaxnn.data.nearby import advice
from jaxnn.data.splits import PARTS, DataError, MissingDataError, expect, look_turned, make_splits
from jaxnn.files import decoding, open_regular, printable, short
from jaxnn.types import Splits

logger = logging.getLogger("jaxnn.data")

FAMILIES = (
    PARTS,
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
)
"""The names of four arrays: in lower or upper case, after a prefix that the four share."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load(path: Path) -> Splits:
    """Reads the data at ``path``; see ``jaxnn.data.load`` for the accepted layouts."""
    if not path.is_dir() and path.suffix.lower() != ".npz":
        found = f"{path} is neither a folder nor an .npz file"
        raise DataError(f"{found}, expected one of them{advice(path)}")
    arrays = _read_folder(path) if path.is_dir() else read_npz(path, partial(_four_of, path))
    splits = make_splits(arrays, path)
    if look_turned(*splits):
        logger.warning(
            f"{printable(path)}: the test images look like turned or transposed training images, "
            "expected images of one orientation"
        )
    return splits


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    """The four arrays in a folder, or in the folder ``raw`` that torchvision makes within."""
    sets = _sets_in(folder)
    for raw in () if sets else (*folder.glob("raw"), *sorted(folder.glob("*/raw"))):
        sets += _sets_in(raw)
    if not sets:
        raise MissingDataError(
            f"{folder} holds no data set, expected {', '.join(idx.NAMES.values())} (or .gz), or "
            f"PREFIX_{{train,test}}_{{images,labels}}.npy{advice(folder)}"
        )
    named = " and ".join(f"{os.path.relpath(files[PARTS[0]], folder)}, ..." for files in sets)
    expect(len(sets) == 1, f"{folder} holds {len(sets)} data sets: {named}", "one data set")
    (files,) = sets
    missing = [path.name for path in files.values() if not path.exists()]
    if missing:
        raise MissingDataError(
            f"{files[PARTS[0]].parent} lacks {', '.join(missing)}, expected four files"
        )
    read = read_npy if files[PARTS[0]].suffix.lower() == ".npy" else idx.read
    return {part: read(file) for part, file in files.items()}


def _sets_in(folder: Path) -> list[dict[str, Path]]:
    """The files of every data set in a folder, by part; missing files included."""
    sets = []
    for separator in "-.":
        names = {part: name.replace("-idx", f"{separator}idx") for part, name in idx.NAMES.items()}
        if any(idx.find(folder, name) for name in names.values()):
            sets.append({p: idx.find(folder, name) or folder / name for p, name in names.items()})
    names = [path.name for path in folder.glob("[!.]*") if path.suffix.lower() == ".npy"]
    for named in _families(folder, names, ".npy"):
        sets.append({part: folder / name for part, name in named.items()})
    return sets


def _families(origin: Path, names: Collection[str], suffix: str = "") -> list[dict[str, str]]:
    """The names of four arrays among other names: a name per part, missing names included."""
    sets: dict[str, dict[str, str]] = {}
    for name, family in product(sorted(names), FAMILIES):
        for part, ending in zip(PARTS, family, strict=True):
            start = name[: -len(ending + suffix)]
            if not name.lower().endswith(ending + suffix) or start[-1:].isalnum():
                continue
            wanted = [f"{start}{each}{suffix}" for each in family]
            known = sets.setdefault(wanted[0], dict(zip(PARTS, wanted, strict=True)))
            found = f"{origin} holds both {known[part]} and {name}"
            expect(known[part] not in names or known[part] == name, found, "one of them")
            known[part] = name
    return [*sets.values()]


def _four_of(path: Path, names: Collection[str]) -> dict[str, str]:
    """The names of the four arrays of an archive, by part."""
    whole = [named for named in _families(path, names) if {*named.values()} <= {*names}]
    if not whole:
        expected = "; or ".join(", ".join(family) for family in FAMILIES)
        listed = short(", ".join(names), 400) or "(none)"
        raise DataError(f"{path} holds the arrays {listed}, expected {expected}")
    listed = " and ".join(", ".join(named.values()) for named in whole)
    expect(len(whole) == 1, f"{path} holds {len(whole)} data sets, {listed}", "one data set")
    return whole[0]


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file; DataError for other content, Python objects included."""
    with open_regular(path) as file:
        return _read_array(file, os.fstat(file.fileno()).st_size, path)


def read_npz(
    path: Path,
    choose: Callable[[Collection[str]], Mapping[str, str]] = lambda names: {n: n for n in names},
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file; compressed arrays up to ``idx.inflatable`` bytes together.

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
        limit = idx.inflatable(os.fstat(file.fileno()).st_size)
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
        _check(shape, dtype, size - stream.tell(), name)
        stream.seek(0)
        return np.load(stream, allow_pickle=False)


def _check(shape: tuple[int, ...], dtype: np.dtype, available: int, name: object) -> None:
    expected = "integers or floats (Python objects are never unpickled)"
    expect(
        dtype.kind in "biufUS" and dtype.itemsize,
        f"{name}: holds values of dtype {dtype}",
        expected,
    )
    claim = f"the shape {shape}"
    expect(min(shape, default=0) >= 0, f"{name}: the header claims {claim}", "sizes >= 0")
    claimed = dtype.itemsize * math.prod(shape)
    idx.check_size(available, claimed, f"{claim} and dtype {dtype}", name, unit="bytes of values")
