"""The user's data: every accepted layout, and the messages about every other layout."""

import gzip
import os
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
        MissingDataError, match=r"expected 'digits', 'mnist', 'fashion_mnist', 'iris', .* or"
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
    np.savez(tmp_path / "user.npz", pictures=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(
        DataError, match=r"arrays pictures, labels, expected train_images, .* x_train"
    ):
        load(tmp_path / "user.npz")


@pytest.mark.parametrize("name", ["data.bmp", "weights.safetensors", "notes", "a.npy", "a.json"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_text("1,2")
    with pytest.raises(DataError, match=rf"{name}: expected train-images-idx3-ubyte, \.\.\."):
        load(tmp_path / name)


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
    ("names", "listed"),
    [
        (["X.npy"], "X.npy"),
        (["more/notes.txt", "README.md"], "README.md, more/notes.txt"),
        (["a.bmp", "b.bmp", "c.bmp", "d.bmp"], "a.bmp, b.bmp, c.bmp, ..."),
        (["z.pkl", "a.bmp"], "z.pkl, a.bmp: a pickle could run code"),
    ],
)
def test_a_folder_without_a_data_set_names_what_was_found(tmp_path, names, listed):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert f"; found {listed}" in str(caught.value) or "not a readable" in str(caught.value)
    assert "\n" not in str(caught.value)
