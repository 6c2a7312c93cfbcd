"""The user's own data: a folder of IDX files, a folder of .npy files, or an .npz archive."""

from pathlib import Path

import numpy as np

from jaxnn.data import idx
from jaxnn.data.errors import DataError, MissingDataError
from jaxnn.data.numpy_files import read_npy, read_npz
from jaxnn.data.splits import PARTS, make_splits
from jaxnn.types import Splits

KERAS_NAMES = ("x_train", "y_train", "x_test", "y_test")


def load(path: Path) -> Splits:
    """Reads the data at ``path``; see ``jaxnn.data.load`` for what it may be."""
    if path.is_dir():
        arrays = _read_folder(path)
    elif path.suffix == ".npz":
        arrays = _read_archive(path)
    else:
        raise DataError(f"{path} is neither a folder nor an .npz file, expected one of them")
    return make_splits(arrays, path)


def _read_folder(folder: Path) -> dict[str, np.ndarray]:
    files = {part: _idx_file(folder, name) for part, name in idx.NAMES.items()}
    if any(files.values()):
        return {part: idx.read(path) for part, path in _complete(files, idx.NAMES, folder).items()}
    ends = {part: f"{part}.npy" for part in PARTS}
    prefixes = sorted(
        {p.name.removesuffix(end) for end in ends.values() for p in folder.glob(f"*{end}")}
    )
    if not prefixes:
        raise MissingDataError(
            f"{folder} holds no data set, expected {', '.join(idx.NAMES.values())} (or .gz), or "
            f"PREFIX_{{train,test}}_{{images,labels}}.npy"
        )
    if len(prefixes) > 1:
        raise DataError(
            f"{folder} holds .npy files with the prefixes {', '.join(map(repr, prefixes))}, "
            "expected one"
        )
    names = {part: prefixes[0] + end for part, end in ends.items()}
    files = {
        part: path if (path := folder / name).is_file() else None for part, name in names.items()
    }
    return {part: read_npy(path) for part, path in _complete(files, names, folder).items()}


def _idx_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _complete(
    files: dict[str, Path | None], names: dict[str, str], folder: Path
) -> dict[str, Path]:
    """The files, all of them, or a MissingDataError that names those that are not there."""
    missing = [names[part] for part, path in files.items() if path is None]
    if missing:
        raise MissingDataError(f"{folder} lacks {', '.join(missing)}, expected four files")
    return {part: path for part, path in files.items() if path is not None}


def _read_archive(path: Path) -> dict[str, np.ndarray]:
    arrays = read_npz(path)
    for names in (PARTS, KERAS_NAMES):
        if all(name in arrays for name in names):
            return {part: arrays[name] for part, name in zip(PARTS, names, strict=True)}
    raise DataError(
        f"{path} holds the arrays {', '.join(arrays) or '(none)'}, expected {', '.join(PARTS)}, "
        f"or {', '.join(KERAS_NAMES)}"
    )
