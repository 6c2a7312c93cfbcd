"""Labelled examples: the data sets known by name, and the user's files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxnn.data import catalog, user_files
from jaxnn.data.catalog import Report
from jaxnn.data.splits import DataError, MissingDataError, expect, standardized
from jaxnn.files import as_path
from jaxnn.types import Splits, did_you_mean, shown, whole

__all__ = ["NAMES", "DataError", "MissingDataError", "default_dir", "load", "standardized"]

NAMES = ("digits", *catalog.NAMED, *catalog.OF_SCIKIT_LEARN, "california_housing")


def load(
    dataset: Any,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    label: str | int | None = None,
    regression: bool | None = None,
    flatten: bool = True,
    seed: int = 0,
    download: bool = True,
    progress: Report | None = None,
) -> Splits:
    """Training and test examples of a data set known by name, of files, or of arrays.

    Decisions on behalf of the user, such as a split, are a line of the logger ``jaxnn.data``.

    Args:
      dataset: "digits" (1,437 + 360 images of 8 x 8, part of scikit-learn), "mnist" or
        "fashion_mnist" (60,000 + 10,000 of 28 x 28), "iris", "wine", "breast_cancer" or "diabetes"
        of scikit-learn, "california_housing" where at hand; or the path of a file or a folder:
        four files in IDX or .npy (such as PREFIX_train_images.npy, S2.4), an .npz, .mat, CSV or
        TSV, Parquet, ARFF or LIBSVM file, CIFAR's binary files, PNG or JPEG files in a folder per
        class; or a data frame, a pair of arrays (inputs, targets), a pair of such pairs.
        ``jaxnn/data/README.md`` has the names of files.
      data_dir: the folder of the named sets, with the folders ``mnist/``, ``fashion_mnist/`` and
        ``california_housing/``; default ``default_dir()``.
      label: the label column of a table, by name or position; default: a column of a name such as
        "label" or "class", the only column of texts, or the last column, of few whole numbers.
      regression: True for real targets, False for classes; default: the targets decide.
      flatten: whether every example is a row; False keeps images [N, H, W, C].
      seed: of the split in five, stratified by class, of data without a test set.
      download: whether missing files may be downloaded.
      progress: called as (file name, received bytes, total bytes or None) during a download.

    Returns:
      NumPy arrays: inputs [N, in] in uint8, or in float32 for other numbers; targets [N] in int32,
      class indices from 0, or in float32, [N] or [N, K]; the names of classes that are no indices
      from 0; the scale of the inputs, chosen by the range: 1/255 for 0..255, 1/16 for whole numbers
      0..16, 1 for 0..1 and standardised inputs. Columns of another range are ``standardized``.

    Raises:
      DataError: an unknown name, or unusable data.
      MissingDataError: missing files; both a DataError and a FileNotFoundError.
      ModuleNotFoundError: a library of the extra ``data`` is missing.

    Example:
      >>> from jaxnn.data import load
      >>> train, test = load("digits")
      >>> train.inputs.shape, test.inputs.shape, train.inputs.dtype
      ((1437, 64), (360, 64), dtype('uint8'))
      >>> train.targets[:5].tolist()
      [0, 1, 3, 4, 5]
      >>> load("iris").train.names
      ('setosa', 'versicolor', 'virginica')

    Source: S1.4, S2.4.
    """
    options: dict[str, Any] = {"regression": regression, "flatten": flatten}
    _check_options(label, regression, flatten, seed)
    folder = as_path("data_dir", data_dir or default_dir())
    if not isinstance(dataset, str | os.PathLike):
        pair = isinstance(dataset, tuple | list) and len(dataset) == 2
        if not pair and not isinstance(dataset, Mapping) and not hasattr(dataset, "__array__"):
            raise DataError(f"dataset is {shown(dataset)}, {_expected()}")
        return user_files.load(dataset, label=label, seed=seed, **options)
    try:
        if isinstance(dataset, str) and dataset in NAMES:
            found = f"label is {label!r} for {dataset}"
            expect(label is None, found, "None: the labels of a named set are known")
            return catalog.named(dataset, folder, download, progress, **options)
        if not str(dataset) or not Path(dataset).exists():
            hint = did_you_mean(dataset, NAMES)
            raise MissingDataError(f"dataset is {str(dataset)!r}, {_expected()}{hint}")
        return user_files.load(Path(dataset), label=label, seed=seed, **options)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read the data set {dataset}: {error}") from None


def _expected() -> str:
    return f"expected {', '.join(map(repr, NAMES))} or the path of a file or folder, or arrays"


def _check_options(label: Any, regression: Any, flatten: Any, seed: Any) -> None:
    text = isinstance(label, str) or label is None or whole(label) is not None
    expect(text, f"label is {shown(label)}", "the name or the position of a column")
    real = regression is None or isinstance(regression, bool)
    expect(real, f"regression is {shown(regression)}", "True, False or None")
    expect(isinstance(flatten, bool), f"flatten is {shown(flatten)}", "True or False")
    known = whole(seed)
    expect(known is not None and known >= 0, f"seed is {shown(seed)}", "a whole number from 0")


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
