"""Labelled examples: the data sets known by name, and the user's files."""

import os
from pathlib import Path

from jaxnn.data import catalog, user_files
from jaxnn.data.download import Report
from jaxnn.data.splits import DataError, MissingDataError
from jaxnn.files import as_path
from jaxnn.types import Splits, did_you_mean, shown

__all__ = ["NAMES", "DataError", "MissingDataError", "default_dir", "load"]

NAMES = ("digits", *catalog.NAMED)


def load(
    dataset: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    progress: Report | None = None,
) -> Splits:
    """Training and test examples.

    Args:
      dataset: "digits" (1,437 + 360 images of 8 x 8, part of scikit-learn), "mnist" or
        "fashion_mnist" (60,000 + 10,000 of 28 x 28); or the path of the user's data:
        a folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or ``.gz``;
        a folder with ``PREFIX_{train,test}_{images,labels}.npy``, any common prefix (S2.4);
        or an ``.npz`` with train_images, train_labels, test_images and test_labels. Names like
        x_train, y_train, x_test and y_test, or train_x, ..., also in upper case, do as well.
      data_dir: the folder of the named sets, with the folders ``mnist/`` and ``fashion_mnist/``;
        default ``default_dir()``.
      download: whether missing files may be downloaded.
      progress: called as (file name, received bytes, total bytes or None) during a download.

    Returns:
      NumPy arrays: inputs [N, in] in uint8, or in float32 for float data; targets [N] in int32,
      class indices from 0; the scale of the inputs, chosen by the range: 1/255 for 0..255, 1/16 for
      whole numbers 0..16, 1 for 0..1 and standardised inputs.

    Raises:
      DataError: an unknown name, or unusable data.
      MissingDataError: missing files; both a DataError and a FileNotFoundError.

    Example:
      >>> from jaxnn.data import load
      >>> train, test = load("digits")
      >>> train.inputs.shape, test.inputs.shape, train.inputs.dtype
      ((1437, 64), (360, 64), dtype('uint8'))
      >>> train.targets[:5].tolist()
      [0, 1, 3, 4, 5]

    Source: S1.4, S2.4.
    """
    expected = f"expected {', '.join(map(repr, NAMES))} or the path of a folder or .npz file"
    if not isinstance(dataset, str | os.PathLike):
        raise DataError(f"dataset is {shown(dataset)}, {expected}")
    folder = as_path("data_dir", data_dir or default_dir())
    try:
        if dataset == "digits":
            return catalog.digits()
        if isinstance(dataset, str) and dataset in catalog.NAMED:
            named = catalog.NAMED[dataset]
            return catalog.load(named, folder, download_missing=download, progress=progress)
        if not str(dataset) or not Path(dataset).exists():
            expected += did_you_mean(dataset, NAMES)
            raise MissingDataError(f"dataset is {str(dataset)!r}, {expected}")
        return user_files.load(Path(dataset))
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the data set {dataset}: {error}") from None


def default_dir() -> Path:
    """The folder of the named data sets: $JAXNN_DATA, else jaxnn in the user's cache folder.

    Raises:
      DataError: the user has no home folder.
    """
    if folder := os.environ.get("JAXNN_DATA"):
        return _at_home(folder)
    return _at_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "jaxnn"


def _at_home(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        raise DataError(
            f"the folder of the data sets is {folder}, and the user has no home folder: expected "
            "the environment variable JAXNN_DATA, or data_dir"
        ) from None
