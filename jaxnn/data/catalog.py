"""The data sets known by name: what their files are and where they come from."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data import download, idx
from jaxnn.data.download import Progress, RemoteFile
from jaxnn.data.errors import DataError, MissingDataError
from jaxnn.data.splits import PARTS, make_splits
from jaxnn.types import Splits


class NamedSet(NamedTuple):
    """A data set of four IDX files with labels 0..9."""

    name: str
    files: tuple[RemoteFile, ...]  # in the order of PARTS
    mirrors: tuple[str, ...]


# Header and values: 60,000 and 10,000 images of 28 x 28 bytes, one byte per label.
_SIZES = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)


def _files(*checksums: str) -> tuple[RemoteFile, ...]:
    return tuple(map(RemoteFile, (idx.NAMES[part] for part in PARTS), _SIZES, checksums))


MNIST = NamedSet(
    "mnist",
    _files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
)

FASHION_MNIST = NamedSet(
    "fashion_mnist",
    _files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)


def load(
    dataset: NamedSet,
    data_dir: Path,
    *,
    download_missing: bool = True,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> Splits:
    """Reads the set from ``data_dir/NAME``, after downloading what is not there.

    Every file's checksum is verified on every load; the files are read side by side.

    Raises:
      MissingDataError: files are missing and may not or cannot be downloaded.
      DataError: a file is corrupt, or the folder cannot be written.
    """
    folder = data_dir / dataset.name
    missing = [file for file in dataset.files if _find(folder, file) is None]
    if missing and not download_missing:
        raise MissingDataError(
            f"{dataset.name} is not complete in {folder}: "
            + download.by_hand(missing, dataset.mirrors, folder)
        )
    if missing:
        download.fetch(missing, dataset.mirrors, folder, timeout=timeout, progress=progress)
    with ThreadPoolExecutor(len(dataset.files)) as pool:
        arrays = pool.map(lambda file: _read(folder, file), dataset.files)
        return make_splits(dict(zip(PARTS, arrays, strict=True)), folder, classes=10)


def _find(folder: Path, file: RemoteFile) -> Path | None:
    """The file, decompressed or not, where there is one."""
    candidates = (folder / file.name, folder / f"{file.name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _read(folder: Path, file: RemoteFile) -> np.ndarray:
    path = _find(folder, file) or folder / f"{file.name}.gz"
    try:
        content = idx.read_content(path, file.size)
        download.verify(content, file, path)
    except DataError as error:
        raise DataError(f"{error}: delete this file, it is then downloaded again") from None
    return idx.parse(content, path)
