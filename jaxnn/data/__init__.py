"""Labelled examples: the data sets known by name, and the user's own files."""

import os
from pathlib import Path

from jaxnn.data import catalog, digits, own
from jaxnn.data.download import Progress
from jaxnn.data.errors import DataError, MissingDataError
from jaxnn.types import Splits

__all__ = ["NAMES", "DataError", "MissingDataError", "Progress", "default_dir", "load"]

NAMES = ("digits", "mnist", "fashion_mnist")


def load(
    dataset: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    progress: Progress | None = None,
) -> Splits:
    """Training and test examples.

    Args:
      dataset: "digits" (1,437 + 360 images of 8 x 8, comes with scikit-learn), "mnist" or
        "fashion_mnist" (60,000 + 10,000 of 28 x 28); or the path of the user's own data:
        a folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or ``.gz``;
        a folder with ``PREFIX_{train,test}_{images,labels}.npy``, any common prefix (S2.4);
        or an ``.npz`` with train_images, train_labels, test_images and test_labels (or x_train,
        y_train, x_test and y_test).
      data_dir: the folder of the named sets, which holds ``mnist/`` and ``fashion_mnist/``;
        default ``default_dir()``.
      download: whether files that are not in it may be downloaded.
      progress: called as (file name, received bytes, total bytes or None) during a download.

    Returns:
      NumPy arrays: inputs [N, in] in uint8, or in float32 for float data; targets [N] in int32,
      class indices from 0; the scale of the inputs: 1/255 for 8-bit images, 1/16 for digits, 1 for
      floats.

    Raises:
      DataError: an unknown name, or data that cannot be used.
      MissingDataError: files that are not there; it is both a DataError and a FileNotFoundError.

    Source: S1.4, S2.4.
    """
    if not isinstance(dataset, str | os.PathLike):
        raise DataError(f"dataset is {dataset!r}, expected {_EXPECTED}")
    if dataset == "digits":
        return digits.load()
    for named in (catalog.MNIST, catalog.FASHION_MNIST):
        if dataset == named.name:
            folder = default_dir() if data_dir is None else Path(data_dir)
            return catalog.load(named, folder, download_missing=download, progress=progress)
    try:
        if not str(dataset) or not Path(dataset).exists():
            raise MissingDataError(f"dataset is {str(dataset)!r}, expected {_EXPECTED}")
        return own.load(Path(dataset))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the data set {dataset}: {error}") from None


_EXPECTED = f"{', '.join(map(repr, NAMES))} or the path of a folder or .npz file"


def default_dir() -> Path:
    """Where named data sets are kept: $JAXNN_DATA, else jaxnn in the user's cache folder."""
    if folder := os.environ.get("JAXNN_DATA"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxnn"
