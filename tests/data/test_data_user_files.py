"""The user's data: every accepted layout, and the messages about every other layout."""

import glob
import gzip
import io
import os
import pathlib
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import scipy.io
from PIL import Image

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


NAMINGS = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("X_train", "y_train", "X_test", "y_test"),
    ("X_TRAIN", "Y_TRAIN", "X_TEST", "Y_TEST"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("cifar_Train_X", "cifar_Train_Y", "cifar_Test_X", "cifar_Test_Y"),
]


@pytest.mark.parametrize("names", NAMINGS)
def test_plain_names_of_four_arrays_are_accepted(tmp_path, arrays, names):
    named = dict(zip(names, arrays.values(), strict=True))
    np.savez(tmp_path / "user.npz", **named, class_names=np.array(["zero"]), x_val=np.zeros(3))
    (tmp_path / "folder").mkdir()
    for name, array in named.items():
        np.save(tmp_path / "folder" / f"{name}.npy", array)
    for path in (tmp_path / "user.npz", tmp_path / "folder"):
        train, test = load(path)
        assert train.inputs.tolist() == arrays["train_images"].reshape(20, 6).tolist()
        assert test.targets.tolist() == arrays["test_labels"].tolist()


def test_an_upper_case_suffix_is_accepted(tmp_path, arrays, idx_files):
    path = write_npz(tmp_path, arrays, idx_files)
    assert len(load(path.rename(tmp_path / "USER.NPZ")).train.targets) == 20


@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("separator", "-.")
def test_idx_files_may_have_dots_and_lie_in_the_folder_of_torchvision(
    tmp_path, idx_files, arrays, below, separator
):
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in idx_files.items():
        (folder / name.replace("-idx", f"{separator}idx")).write_bytes(content)
    assert load(tmp_path).train.targets.tolist() == arrays["train_labels"].tolist()


def raw_twice(folder, arrays, idx_files):
    for name in ("MNIST", "KMNIST"):
        (folder / name / "raw").mkdir(parents=True)
        write_idx(folder / name / "raw", arrays, idx_files)
    return folder


def mixed(folder, arrays, idx_files):
    write_idx(folder, arrays, idx_files)
    return write_npy(folder, arrays, idx_files)


def two_prefixes(folder, arrays, idx_files):
    write_npy(folder, arrays, idx_files)
    return write_npy_without_prefix(folder, arrays, idx_files)


def two_in_an_archive(folder, arrays, idx_files):
    others = {f"x_{name}": array for name, array in arrays.items()}
    np.savez(folder / "both.npz", **arrays, **others)
    return folder / "both.npz"


def two_spellings(folder, arrays, idx_files):
    named = dict(zip(NAMINGS[0], arrays.values(), strict=True))
    np.savez(folder / "both.npz", **named, X_train=arrays["train_images"])
    return folder / "both.npz"


AMBIGUOUS = {
    raw_twice: "KMNIST/raw/train-images-idx3-ubyte, ... and MNIST/raw/train-images-idx3-ubyte, ...",
    mixed: "2 data sets: train-images-idx3-ubyte, ... and fashion_mnist_train_images.npy, ...",
    two_prefixes: "2 data sets: fashion_mnist_train_images.npy, ... and train_images.npy, ...",
    two_in_an_archive: "test_labels and x_train_images, x_train_labels, x_test_images, x_test_la",
    two_spellings: "both.npz holds both x_train and X_train, expected one of them",
}


@pytest.mark.parametrize(("write", "named"), AMBIGUOUS.items())
def test_of_two_data_sets_none_is_chosen_and_both_are_named(
    tmp_path, arrays, idx_files, write, named
):
    with pytest.raises(DataError) as caught:
        load(write(tmp_path, arrays, idx_files))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("replace", [os.mkfifo, lambda p: p.symlink_to("/dev/zero"), os.mkdir])
@pytest.mark.parametrize("write", LAYOUTS)
def test_a_file_that_is_not_regular_is_refused_at_once(tmp_path, arrays, idx_files, write, replace):
    path = write(tmp_path, arrays, idx_files)
    file = path if path.is_file() else sorted(path.iterdir())[-1]
    file.unlink()
    replace(file)
    with pytest.raises(DataError, match=r"regular file|holds no data set") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_hidden_files_are_no_data_set(tmp_path, arrays, idx_files):
    write_npy(tmp_path, arrays, idx_files)
    (tmp_path / "._fashion_mnist_train_images.npy").write_bytes(b"of a file manager")
    assert len(load(tmp_path).train.targets) == 20


def test_an_archive_of_many_arrays_is_one_short_line(tmp_path):
    named = {f"a{i}": np.zeros(1) for i in range(500)}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **named)
    with pytest.raises(DataError, match=r"a0, a1, .*\.\.\., expected train_images") as caught:
        load(tmp_path / "a.npz")
    assert len(str(caught.value)) < 800


def test_names_of_strangers_are_printable(tmp_path):
    named = {"\x1b[2J\x1b[31mall is well": np.zeros(1)}
    np.savez(tmp_path / "a.npz", allow_pickle=False, **named)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.npz")
    assert "holds the arrays \\x1b[2J\\x1b[31mall is well, expected" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("emnist-letters-train-images-idx3-ubyte.gz", ": rename the four files of a set, or write"),
        ("qmnist-train-labels-idx2-int", ": rename the four files of a set"),
        ("data/cifar10.npz", ": give the path of the file"),
        ("iris.data", ": write the arrays into an .npz: np.savez('data.npz', x_train=..., y_tr"),
        ("X.npy", ": write the arrays into an .npz"),
    ],
)
def test_a_folder_without_a_data_set_names_what_was_found(tmp_path, name, said):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(MissingDataError) as caught:
        load(tmp_path)
    assert f"; found {name}{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_a_folder_says_that_the_folder_is_expected(idx_folder):
    with pytest.raises(DataError, match=r"found t10k-.*gz: give the folder of the four files"):
        load(idx_folder / "t10k-labels-idx1-ubyte.gz")


def csv_table(path, images, labels):
    pd.DataFrame(np.column_stack([labels, images.reshape(len(images), -1)])).to_csv(
        path, index=False
    )


def parquet_table(path, images, labels):
    pytest.importorskip("pyarrow")
    table = pd.DataFrame(np.column_stack([labels, images.reshape(len(images), -1)]))
    table.rename(columns=str).to_parquet(path)


def pickled_table(path, images, labels):
    pd.DataFrame(np.column_stack([labels, images.reshape(len(images), -1)])).to_pickle(path)


def mat(path, images, labels):
    scipy.io.savemat(path, {"X": images, "y": labels[:, None]})


def pictures(path, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (path / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / str(label) / f"{i:02}.png")


def cifar(path, images, labels):
    """The training examples in two files, the test examples in a single file."""
    half = len(labels) // 2
    several = {"data_batch_1": slice(half), "data_batch_2": slice(half, None)}
    for name, part in several.items() if path.name.startswith("data") else [(path.name, slice(99))]:
        batch = {b"data": images[part].reshape(-1, 6), b"labels": labels[part].tolist()}
        path.with_name(name).write_bytes(pickle.dumps(batch))


def svhn(path, images, labels):
    last = np.moveaxis(images, 0, -1)
    scipy.io.savemat(path, {"X": last, "y": np.where(labels == 0, 10, labels)[:, None]})


def kaggle(path, images, labels):
    csv_table(path, images, labels)
    pixels = pd.DataFrame(images[:7].reshape(7, -1))
    pixels.to_csv(path.with_name(path.name.replace("train", "test")), index=False)


class Python2(pickle._Pickler):
    """Bytes as the strings of Python 2, in which mnist.pkl.gz was written."""

    dispatch = pickle._Pickler.dispatch | {
        bytes: lambda self, content: self.write(b"T" + len(content).to_bytes(4, "little") + content)
    }


def mnist_pkl(path, images, labels):
    """Training, validation and test examples as a tuple of three pairs."""
    half, rows = len(labels) // 2, images.reshape(len(images), -1)
    parts = [slice(half), slice(3), slice(half, None)]
    written = io.BytesIO()
    Python2(written, protocol=2).dump(tuple((rows[part], labels[part]) for part in parts))
    content = written.getvalue()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (csv_table, ["mnist_train.csv", "mnist_test.csv"]),
        (csv_table, ["all.csv"]),
        (parquet_table, ["train-0.parquet", "test-0.parquet"]),
        (pickled_table, ["train.pkl", "test.pkl"]),
        (mat, ["ex3data1.mat"]),
        (cifar, ["data_batch_1", "test_batch"]),
        (pictures, ["train", "test"]),
        (pictures, ["notMNIST"]),
        (svhn, ["train_32x32.mat", "test_32x32.mat"]),
        (kaggle, ["train.csv"]),
        (kaggle, ["train.csv.gz"]),
        (mnist_pkl, ["mnist.pkl.gz"]),
        (mnist_pkl, ["mnist.pkl"]),
    ],
)
def test_the_lines_of_numpy_in_the_message_convert_the_data(
    tmp_path, arrays, monkeypatch, write, names
):
    if len(names) == 1:  # half of the examples become test examples
        arrays = {name: np.tile(a, (4,) + (1,) * (a.ndim - 1)) for name, a in arrays.items()}
    data = tmp_path / "it's here"
    data.mkdir()
    for name, split in zip(names, ("train", "test"), strict=False):
        write(data / name, arrays[f"{split}_images"], arrays[f"{split}_labels"])
    with pytest.raises(DataError) as caught:
        load(data)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r": (a(?:, b)? = .*\)) \(", str(caught.value))
    modules = [glob, gzip, pathlib, pickle, pd, scipy, PIL]
    exec(lines, {"np": np, **{module.__name__: module for module in modules}})
    train, test = load("data.npz")
    found = np.concatenate([train.inputs, test.inputs])
    expected = [
        arrays[f"{split}_images"] for split, _ in zip(("train", "test"), names, strict=False)
    ]
    expected = np.concatenate(expected).reshape(-1, 6)
    assert sorted(found.tolist()) == sorted(expected.tolist())
    of_image = {
        tuple(i.ravel()): label
        for i, label in zip(
            np.concatenate([arrays["train_images"], arrays["test_images"]]),
            np.concatenate([arrays["train_labels"], arrays["test_labels"]]),
            strict=True,
        )
    }
    labels = [*train.targets, *test.targets]
    assert [of_image[tuple(row)] for row in found] == labels
