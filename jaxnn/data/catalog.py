"""The data sets known by name: scikit-learn's digits, MNIST and Fashion-MNIST."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnn.data import download, idx
from jaxnn.data.download import RemoteFile, Report
from jaxnn.data.splits import PARTS, DataError, MissingDataError, make_splits
from jaxnn.extras import require
from jaxnn.types import Splits


class NamedSet(NamedTuple):
    """A data set of four IDX files with labels 0..9."""

    name: str
    files: tuple[RemoteFile, ...]  # in the order of PARTS
    mirrors: tuple[str, ...]


def _files(*checksums: str) -> tuple[RemoteFile, ...]:
    # Header and values: 60,000 and 10,000 images of 28 x 28 bytes, a byte per label.
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    return tuple(map(RemoteFile, idx.NAMES.values(), sizes, checksums))


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

NAMED = {named.name: named for named in (MNIST, FASHION_MNIST)}


def load(
    dataset: NamedSet,
    data_dir: Path,
    *,
    download_missing: bool = True,
    progress: Report | None = None,
) -> Splits:
    """Reads the set from ``data_dir/NAME``, after a download of missing files.

    Every load verifies the checksum of every file; the files are read in parallel. Errors are as
    those of ``jaxnn.data.load``.
    """
    folder = data_dir / dataset.name
    missing = [file for file in dataset.files if idx.find(folder, file.name) is None]
    if missing and not download_missing:
        remedy = download.by_hand(missing, dataset.mirrors, folder)
        raise MissingDataError(f"{dataset.name} is not complete in {folder}: {remedy}")
    if missing:
        download.fetch(missing, dataset.mirrors, folder, progress=progress)
    with ThreadPoolExecutor(len(dataset.files)) as pool:
        arrays = pool.map(lambda file: _read(folder, file), dataset.files)
        four: dict[str, np.ndarray] = dict(zip(PARTS, arrays, strict=True))
        return make_splits(four, folder, scale=1 / 255, classes=10)


def _read(folder: Path, file: RemoteFile) -> np.ndarray:
    path = idx.find(folder, file.name) or folder / f"{file.name}.gz"
    try:
        return idx.read(path, file.size, lambda content: download.verify(content, file, path))
    except DataError as error:
        raise DataError(f"{error}: delete this file, it is then downloaded again") from None


def digits() -> Splits:
    """The 8x8 digits, pixels 0..16 in uint8, in a fixed split: 1,437 to train, 360 to test.

    The test set has 36 images of each class, the first of the class in
    ``numpy.random.default_rng(0).permutation(1797)``; both sets keep scikit-learn's order.

    Raises:
      MissingDataError: scikit-learn is not installed.
    """
    table = digits_table()
    images, labels = table[:, :-1], table[:, -1]
    test = np.zeros(len(labels), bool)
    order = np.random.default_rng(0).permutation(len(labels))
    for digit in range(10):
        test[order[labels[order] == digit][:36]] = True
    arrays = (images[~test], labels[~test], images[test], labels[test])
    return make_splits(dict(zip(PARTS, arrays, strict=True)), "digits", scale=1 / 16, classes=10)


def digits_table() -> np.ndarray:
    """All digits in scikit-learn's order, [1797, 65] in uint8: 64 pixels, then the label.

    Reads scikit-learn's file; an import of scikit-learn would take longer than training.
    """
    try:
        require("search", "sklearn")
    except ModuleNotFoundError as error:
        raise MissingDataError(f"digits are part of scikit-learn: {error}") from None
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.uint8)
