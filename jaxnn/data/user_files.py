"""The user's data: a folder of IDX files, a folder of .npy files, or an .npz archive."""

from pathlib import Path

from jaxnn.data import idx
from jaxnn.data.numpy_files import read_npy, read_npz
from jaxnn.data.splits import PARTS, DataError, MissingDataError, make_splits
from jaxnn.types import Splits

KERAS_NAMES = ("x_train", "y_train", "x_test", "y_test")


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
