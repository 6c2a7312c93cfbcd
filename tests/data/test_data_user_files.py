"""The user's data: every accepted layout, and the messages about every other layout."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from jaxnn.data import DataError, MissingDataError, load
from jaxnn.data.splits import make_splits

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def write_idx(folder, arrays, idx_files):
    for name, content in idx_files.items():
        (folder / name).write_bytes(content)
    return folder


def write_idx_gz(folder, arrays, idx_files):
    for name, content in idx_files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def write_npy(folder, arrays, idx_files):
    for part, array in arrays.items():
        np.save(folder / f"fashion_mnist_{part}.npy", array)
    return folder


def write_npy_without_prefix(folder, arrays, idx_files):
    for part, array in arrays.items():
        np.save(folder / f"{part}.npy", array)
    return folder


def write_npz(folder, arrays, idx_files):
    np.savez_compressed(folder / "user.npz", **arrays)
    return folder / "user.npz"


def write_keras_npz(folder, arrays, idx_files):
    names = ("x_train", "y_train", "x_test", "y_test")
    np.savez(folder / "user.npz", **dict(zip(names, arrays.values(), strict=True)))
    return folder / "user.npz"


LAYOUTS = [
    write_idx,
    write_idx_gz,
    write_npy,
    write_npy_without_prefix,
    write_npz,
    write_keras_npz,
]


@pytest.mark.parametrize("write", LAYOUTS)
@pytest.mark.parametrize("kind", [str, Path])
def test_every_layout_gives_the_same_examples(tmp_path, arrays, idx_files, write, kind):
    splits = load(kind(write(tmp_path, arrays, idx_files)))
    for data, part in zip(splits, ("train", "test"), strict=True):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        np.testing.assert_array_equal(data.inputs, images.reshape(len(images), 6), strict=True)
        np.testing.assert_array_equal(data.targets, labels.astype(np.int32), strict=True)


def test_a_plain_file_goes_before_its_compressed_copy(idx_folder, idx_files, arrays):
    name = "train-labels-idx1-ubyte"
    (idx_folder / name).write_bytes(idx_files[name][:-1] + b"\x00")
    assert load(idx_folder).train.targets[-1] == 0


@pytest.mark.parametrize("shape", [(20, 6), (20, 1, 6), (20, 2, 3), (20, 3, 1, 2)])
def test_images_of_any_rank_are_flattened_in_row_major_order(arrays, shape):
    arrays["train_images"] = np.arange(120, dtype=np.uint8).reshape(shape)
    inputs = make_splits(arrays, "user").train.inputs
    np.testing.assert_array_equal(inputs, np.arange(120).reshape(20, 6))


def with_value(position, value):
    def change(array):
        changed = array.astype(np.result_type(array, type(value)))
        changed[position] = value
        return changed

    return change


BAD = {
    "fewer labels": ("train_labels", lambda a: a[:-1], "hold 20 .* train_labels 19"),
    "fewer images": ("test_images", lambda a: a[:-1], "hold 9 .* test_labels 10"),
    "no examples": ("train_images", lambda a: a[:0], r"\(0, 3, 2\), expected .* at least one"),
    "no labels": ("test_labels", lambda a: a[:0], "test_labels are empty, expected at least one"),
    "no pixels": ("test_images", lambda a: a[:, :0], r"\(10, 0, 2\), expected .* one value"),
    "flat images": ("train_images", lambda a: a[:, 0, 0], r"shape \(20,\), expected \[N, ...\]"),
    "no rank": ("train_images", lambda a: a[0, 0, 0], r"shape \(\), expected"),
    "other width": ("test_images", lambda a: a[:, :2], "4 values each, expected 6"),
}


@pytest.mark.parametrize(("part", "change", "message"), BAD.values(), ids=BAD)
def test_bad_arrays_are_one_clear_line(arrays, part, change, message):
    arrays[part] = change(arrays[part])
    with pytest.raises(DataError, match=message) as caught:
        make_splits(arrays, "/the/folder")
    assert str(caught.value).startswith("/the/folder: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "position", "value", "message"),
    [
        ("train_labels", slice(None), 9, r"train_labels hold the labels \[9\], expected .*0..9"),
        ("test_labels", 0, 0, r"test_labels hold .* 8\], expected exactly 0..9"),
        ("train_labels", 0, 10, r"train_labels hold .* 10\], expected exactly 0..9"),
    ],
)
def test_a_named_set_has_exactly_its_classes(arrays, part, position, value, message):
    arrays[part] = with_value(position, value)(arrays[part])
    with pytest.raises(DataError, match=message):
        make_splits(arrays, "user", classes=10)


@pytest.mark.parametrize("dataset", ["mnits", "MNIST", "", "/no/such/folder", "no.npz", "a\0b"])
def test_an_unknown_dataset_names_itself_and_the_known_ones(dataset):
    with pytest.raises(
        MissingDataError, match="expected 'digits', 'mnist', 'fashion_mnist' or"
    ) as e:
        load(dataset)
    assert str(e.value).startswith(f"dataset is {dataset!r}, expected")


def test_a_path_that_the_system_refuses_is_one_clear_line():
    with pytest.raises(DataError, match=r"cannot read the data set x+: .*File name too long"):
        load("x" * 5000)


def test_missing_data_is_caught_as_either_kind_of_error():
    assert issubclass(MissingDataError, DataError)
    assert issubclass(MissingDataError, FileNotFoundError)
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize("dataset", [None, 3, ["digits"]])
def test_a_dataset_that_is_no_text_is_refused(dataset):
    with pytest.raises(DataError, match=r"dataset is .*, expected 'digits'"):
        load(dataset)


def test_an_empty_folder_names_what_was_expected(tmp_path):
    with pytest.raises(MissingDataError, match=r"holds no data set, expected train-images-idx3-"):
        load(tmp_path)


@pytest.mark.parametrize("missing", [0, 3])
def test_an_incomplete_idx_folder_names_the_missing_file(idx_folder, idx_files, missing):
    name = list(idx_files)[missing]
    (idx_folder / f"{name}.gz").unlink()
    with pytest.raises(MissingDataError, match=f"lacks {name}, expected four files"):
        load(idx_folder)


def test_an_incomplete_npy_folder_names_the_missing_files(tmp_path, arrays, idx_files):
    write_npy(tmp_path, arrays, idx_files)
    for part in ("train_labels", "test_images"):
        (tmp_path / f"fashion_mnist_{part}.npy").unlink()
    message = "lacks fashion_mnist_train_labels.npy, fashion_mnist_test_images.npy, expected four"
    with pytest.raises(MissingDataError, match=message):
        load(tmp_path)


def test_two_sets_of_npy_files_in_a_folder_are_refused(tmp_path, arrays, idx_files):
    write_npy(tmp_path, arrays, idx_files)
    np.save(tmp_path / "kmnist_test_images.npy", arrays["test_images"])
    with pytest.raises(
        DataError,
        match=r"holds 2 data sets: fashion_mnist_.*kmnist_train_images.npy, \.\.\., expected one",
    ):
        load(tmp_path)


def test_an_npz_without_the_names_lists_what_it_holds(tmp_path):
    np.savez(tmp_path / "user.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(
        DataError, match=r"arrays images, labels, expected train_images, .* x_train"
    ):
        load(tmp_path / "user.npz")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "data.csv").write_text("1,2")
    with pytest.raises(DataError, match=r"data.csv is neither a folder nor an .npz file"):
        load(tmp_path / "data.csv")


def test_a_broken_file_in_a_folder_is_named(idx_folder):
    path = idx_folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte.gz: truncated gzip data"):
        load(idx_folder)
