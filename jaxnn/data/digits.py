"""The 8x8 digits that come with scikit-learn: 1,797 real images, no download."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxnn.data.errors import MissingDataError
from jaxnn.data.splits import make_splits
from jaxnn.types import Splits

TEST_PER_CLASS = 36


def load() -> Splits:
    """The digits, pixels 0..16 in uint8, with a fixed split: 1,437 to train, 360 to test.

    The test set is 36 images of each class, the first of each in
    ``numpy.random.default_rng(0).permutation(1797)``; both sets keep scikit-learn's order.

    Raises:
      MissingDataError: scikit-learn is not installed.
    """
    table = read_table()
    images, labels = table[:, :-1], table[:, -1]
    test = np.zeros(len(labels), bool)
    order = np.random.default_rng(0).permutation(len(labels))
    for digit in range(10):
        test[order[labels[order] == digit][:TEST_PER_CLASS]] = True
    arrays = {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }
    return make_splits(arrays, "digits", scale=1 / 16, classes=10)


def read_table() -> np.ndarray:
    """All digits in scikit-learn's order, [1797, 65] in uint8: 64 pixels, then the label.

    Reads the file of the package without importing it, which would take longer than training.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None:
        raise MissingDataError(
            "digits come with scikit-learn, which is not installed, expected: "
            'pip install "jaxnn[experiments]"'
        )
    for folder in package.submodule_search_locations or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.uint8)
