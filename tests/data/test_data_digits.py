"""The digits against scikit-learn's own loader."""

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jaxnn.data import MissingDataError, catalog, load


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """64 pixels and the label in a row, in scikit-learn's order."""
    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels])


def rows(data) -> np.ndarray:
    return np.column_stack([data.inputs, data.targets])


def test_the_table_is_scikit_learns(expected):
    np.testing.assert_array_equal(catalog.digits_table(), expected)


def test_the_table_is_scikit_learns_when_its_file_has_moved(expected, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    np.testing.assert_array_equal(catalog.digits_table(), expected)


def test_the_split_is_the_whole_set(expected):
    both = np.concatenate([rows(data) for data in load("digits")])
    np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])


def test_the_test_set_has_36_of_every_class():
    train, test = load("digits")
    assert np.bincount(test.targets).tolist() == [36] * 10
    # scikit-learn's description: 178, 182, 177, 183, 181, 182, 181, 179, 174, 180 of each digit.
    assert np.bincount(train.targets).tolist() == [142, 146, 141, 147, 145, 146, 145, 143, 138, 144]


def test_the_split_is_always_the_same():
    first, second = load("digits"), load("digits")
    np.testing.assert_array_equal(rows(first.test), rows(second.test))


def test_pixels_are_sixteenths_in_bytes():
    for data in load("digits"):
        assert data.inputs.dtype == np.uint8
        assert data.targets.dtype == np.int32
        assert data.inputs.min() == 0
        assert data.inputs.max() == 16
        np.testing.assert_array_equal(data.scale, np.float32(1 / 16), strict=True)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDataError, match=r"pip install 'jaxnn-basics\[search\]'"):
        load("digits")


def test_scikit_learn_is_not_imported():
    code = "import sys, jaxnn.data as d; d.load('digits'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
