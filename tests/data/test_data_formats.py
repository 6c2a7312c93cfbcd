"""Data in the formats of other libraries: the values that those libraries wrote are loaded."""

import gzip
import io
import json
import os
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import scipy.io
import scipy.sparse
import sklearn.datasets
from PIL import Image
from sklearn.preprocessing import StandardScaler

from jaxnn import MLP, Data, Hyper, Spec, train
from jaxnn.data import DataError, MissingDataError, load, standardized
from jaxnn.saved_model import load_model, save_model

N, M = 40, 20


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """40 and 20 images of 8 x 8 pixels, each from 0 to 255, and labels 0..3."""
    rng = np.random.default_rng(0)
    found = {}
    for part, n in (("train", N), ("test", M)):
        found[f"{part}_images"] = rng.integers(0, 256, (n, 8, 8)).astype(np.uint8)
        found[f"{part}_images"][0, 0, :2] = 0, 255
        found[f"{part}_labels"] = (np.arange(n) % 4).astype(np.uint8)
    return found


@pytest.fixture
def colour(arrays) -> dict[str, np.ndarray]:
    """Images of 32 x 32 pixels in three channels, channels last."""
    rng = np.random.default_rng(1)
    shapes = {"train_images": (N, 32, 32, 3), "test_images": (M, 32, 32, 3)}
    images = {p: rng.integers(0, 256, s).astype(np.uint8) for p, s in shapes.items()}
    return arrays | images


def assert_holds(splits, arrays, names=()):
    """The examples are the arrays, in their order and their types."""
    for data, part in zip(splits, ("train", "test"), strict=True):
        images = arrays[f"{part}_images"]
        np.testing.assert_array_equal(data.inputs, images.reshape(len(images), -1), strict=True)
        expected = arrays[f"{part}_labels"].astype(np.int32)
        np.testing.assert_array_equal(data.targets, expected, strict=True)
        assert data.names == names
        assert data.scale == np.float32(1 / 255)


def assert_split(splits, inputs, targets):
    """The examples are the rows, a fifth of every class for testing, each in the old order."""
    both = [np.concatenate([np.asarray(data[i]) for data in splits]) for i in range(2)]
    rows = np.asarray(inputs, np.float32).reshape(len(inputs), -1)
    places = {(*row.tolist(), y): i for i, (row, y) in enumerate(zip(rows, targets, strict=True))}
    found = [places[(*row.tolist(), y)] for row, y in zip(both[0], both[1].tolist(), strict=True)]
    assert sorted(found) == list(range(len(rows)))
    train, test = found[: len(splits.train.targets)], found[len(splits.train.targets) :]
    assert train == sorted(train)
    assert test == sorted(test)
    for label, count in zip(*np.unique(targets, return_counts=True), strict=True):
        assert sum(targets[i] == label for i in test) == max(round(count / 5), count > 1)


# Tables.


def frame(images, labels) -> pd.DataFrame:
    """A table as on Kaggle: label, pixel0, pixel1, ..."""
    rows = pd.DataFrame(images.reshape(len(images), -1)).add_prefix("pixel")
    rows.insert(0, "label", labels)
    return rows


def csv(**options):
    return lambda table, path: table.to_csv(path, index=False, **options)


def arff(table, path):
    lines = [f"@ATTRIBUTE {name} real" for name in table.columns if name != "label"]
    lines = ["@RELATION digits", *lines, "@ATTRIBUTE class {0,1,2,3}", "@DATA"]
    for row in table.to_numpy().tolist():
        lines.append(",".join(map(str, [*row[1:], row[0]])))
    Path(path).write_text("\n".join(lines))


TABLES = {
    "csv": csv(),
    "tsv": csv(sep="\t"),
    "csv.gz": csv(compression="gzip"),
    "data": csv(header=False),
    "parquet": lambda table, path: table.to_parquet(path),
    "pq": lambda table, path: table.to_parquet(path, compression="zstd"),
    "arff": arff,
}


@pytest.mark.parametrize(("suffix", "write"), TABLES.items())
def test_a_pair_of_tables_gives_the_pixels_in_bytes(tmp_path, arrays, suffix, write):
    for part in ("train", "test"):
        table = frame(arrays[f"{part}_images"], arrays[f"{part}_labels"])
        write(table, tmp_path / f"mnist_{part}.{suffix}")
    assert_holds(load(tmp_path), arrays)


@pytest.mark.parametrize(("suffix", "write"), TABLES.items())
def test_a_single_table_is_divided_by_class(tmp_path, arrays, suffix, write):
    path = tmp_path / f"all.{suffix}"
    write(frame(arrays["train_images"], arrays["train_labels"]), path)
    for where in (path, tmp_path):
        assert_split(load(where), arrays["train_images"], arrays["train_labels"].tolist())


FLOWERS = "5.1,3.5,1.4,0.2,Iris-setosa\n4.9,3.0,1.4,0.2,Iris-setosa\n"
FLOWERS += "7.0,3.2,4.7,1.4,Iris-versicolor\n6.3,3.3,6.0,2.5,Iris-virginica\n" * 2
SEPARATED = {
    "commas": FLOWERS,
    "blanks after commas": FLOWERS.replace(",", ", "),
    "semicolons": FLOWERS.replace(",", ";"),
    "decimal commas": FLOWERS.replace(",", ";").replace(".", ","),
    "decimal commas and tabs": FLOWERS.replace(",", "\t").replace(".", ","),
    "bars": FLOWERS.replace(",", "|"),
    "tabs": FLOWERS.replace(",", "\t"),
    "runs of blanks": "  " + FLOWERS.replace(",", "   "),
    "line ends of Windows": FLOWERS.replace("\n", "\r\n"),
    "blank lines": "\n" + FLOWERS + "\n\n",
    "a byte order mark": "\ufeff" + FLOWERS,
    "a header": "sl,sw,pl,pw,species\n" + FLOWERS,
    "a header with a number": "sl,0,1,2,class\n" + FLOWERS,
    "quotes": FLOWERS.replace("Iris-setosa", '"Iris-setosa"'),
    "no end of the last line": FLOWERS[:-1],
    "comments": "# of Fisher, 1936\n# 6 flowers\n" + FLOWERS,
    "comments above a header": "# of Fisher, 1936\nsl,sw,pl,pw,species\n" + FLOWERS,
    "a header as NumPy writes": "# sl,sw,pl,pw,species\n" + FLOWERS,
}


@pytest.mark.parametrize("text", SEPARATED.values(), ids=SEPARATED)
def test_separators_headers_and_line_ends_are_recognised(tmp_path, text):
    (tmp_path / "iris.csv").write_bytes(text.encode())
    splits = load(tmp_path / "iris.csv")
    rows = [[5.1, 3.5, 1.4, 0.2], [4.9, 3.0, 1.4, 0.2]]
    rows += [[7.0, 3.2, 4.7, 1.4], [6.3, 3.3, 6.0, 2.5]] * 2
    expected: Any = np.array(rows, np.float32)
    assert splits.train.names == ("Iris-setosa", "Iris-versicolor", "Iris-virginica")
    found = np.concatenate([data.inputs for data in splits])
    assert sorted(found.tolist()) == sorted(expected.tolist())
    for data in splits:
        for row, label in zip(data.inputs, data.targets, strict=True):
            assert label == (0 if row[2] < 2 else 1 if row[2] < 5 else 2)


def test_text_in_utf_16_is_read(tmp_path):
    (tmp_path / "iris.csv").write_bytes(FLOWERS.encode("utf-16"))
    assert load(tmp_path / "iris.csv").train.inputs.shape == (3, 4)


def test_text_of_windows_keeps_its_letters_and_is_said(tmp_path, caplog):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,label\n" + "1.5,käse\n2.5,brot\n".encode("cp1252") * 5)
    assert load(path).train.names == ("brot", "käse")
    assert "is not UTF-8, and read as Windows-1252" in caplog.text


@pytest.mark.parametrize("text", ["oops", "1;000", "5 %"])
def test_a_text_among_numbers_is_named(tmp_path, text):
    (tmp_path / "a.csv").write_text(f"a,label\n1.5,0\n{text},1\n2.5,0\n3.5,1\n")
    with pytest.raises(DataError, match=rf"the column 'a' holds '{text}', expected numbers"):
        load(tmp_path / "a.csv", label="label")


ARFF = """% of Weka
@relation pets
@attribute 'body length' numeric
@attribute age INTEGER
@attribute class {cat, 'guinea pig'}

@data
40.5, 3, cat
% a comment
20.5, 1, 'guinea pig'
41.5, 4, cat
21.5, 2, 'guinea pig'
"""


@pytest.mark.parametrize(
    "text",
    [
        ARFF,
        ARFF.replace("'", '"'),
        ARFF.replace("{", "{ "),
        ARFF.replace("INTEGER", "integer [0,9]"),
    ],
)
def test_names_and_values_of_arff_may_be_quoted(tmp_path, text):
    (tmp_path / "pets.arff").write_text(text)
    train, test = load(tmp_path / "pets.arff")
    assert train.names == ("cat", "guinea pig")
    rows = np.concatenate([np.column_stack([d.inputs, d.targets]) for d in (train, test)])
    assert sorted(rows.tolist()) == [[20.5, 1, 1], [21.5, 2, 1], [40.5, 3, 0], [41.5, 4, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ARFF.partition("20.5")[0] + "{0 20.5}", "a row is .*, expected 3 values"),
        (ARFF.partition("40.5")[0] + "{0 20.5}", "holds sparse rows"),
        (ARFF + "1, 2", r"a row is \['1', '2'\], expected 3 values"),
        (ARFF + "1, 2, dog", r"class is 'dog', expected one of {cat, 'guinea pig'}"),
        (ARFF + "1, ?, cat", "1 of 5 values in the column 'age' are missing"),
        (ARFF + "1, two, cat", "not a readable ARFF file .*'two'"),
        (ARFF.partition("@data")[0], "expected lines @attribute, and @data"),
        ("@data\n1,2", "expected lines @attribute, and @data"),
    ],
)
def test_unfit_rows_of_arff_are_one_clear_line(tmp_path, text, message):
    (tmp_path / "pets.arff").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / "pets.arff")
    assert "\n" not in str(caught.value)


def test_a_sparse_matrix_is_read_as_its_dense_array():
    dense = np.where(np.arange(60) % 3, 0.0, np.arange(60) / 7).reshape(20, 3)
    targets = np.arange(20) % 2
    found, expected = (load((x, targets)) for x in (scipy.sparse.csr_matrix(dense), dense))
    np.testing.assert_array_equal(found.train.inputs, expected.train.inputs)


@pytest.mark.parametrize("kind", [np.float32, np.uint8, bool])
def test_one_hot_rows_are_the_classes_of_their_ones(kind, caplog):
    inputs, labels = np.arange(60.0).reshape(30, 2), np.arange(30) % 3
    found = load((inputs, np.eye(3)[labels].astype(kind)))
    np.testing.assert_array_equal(found.train.targets, load((inputs, labels)).train.targets)
    assert "one-hot rows" in caplog.text
    assert load((inputs, np.eye(3)[labels]), regression=True).train.targets.shape == (24, 3)


@pytest.mark.parametrize("labels", [[3, 7] * 10, [True, False] * 10, [0.0, 1.0] * 10])
def test_numbers_in_an_array_of_objects_are_numbers(labels):
    inputs = np.arange(40.0).reshape(20, 2)
    found, expected = (load((inputs, np.array(labels, t))).train for t in (object, None))
    np.testing.assert_array_equal(found.targets, expected.targets, strict=True)
    assert found.names == expected.names


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_turned_upright(tmp_path, orientation):
    about = Image.Exif()
    about[0x0112] = orientation
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]  # quarter turns to the left
    ramp = np.repeat(np.arange(0, 256, 16, dtype=np.uint8)[:, None], 8, axis=1)  # [16, 8]
    for label in "ab":
        for i in range(2):
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(ramp).save(tmp_path / label / f"{i}.jpg", exif=about, quality=95)
    image = np.asarray(load(tmp_path, flatten=False).train.inputs)[0, ..., 0].astype(float)
    expected = np.rot90(ramp.astype(float), turns)
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() < 20


@pytest.mark.parametrize("label", ["b", 1, -2, "1"])
def test_the_label_is_a_column_by_name_or_position(tmp_path, label):
    table = pd.DataFrame({"a": [0.5, 1.5, 2.5, 3.5] * 3, "b": [4, 7] * 6, "c": [3, 4, 5, 6] * 3})
    table.to_csv(tmp_path / "table.csv", index=False)
    train, test = load(tmp_path / "table.csv", label=label)
    assert train.names == ("4", "7")
    found = np.concatenate([np.column_stack([d.inputs, d.targets]) for d in (train, test)])
    expected = np.column_stack([table["a"], table["c"], table["b"] == 7])
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_the_columns_of_the_test_table_are_found_by_name(tmp_path):
    table = pd.DataFrame({"a": [0.5, 1.5, 2.5, 3.5], "b": [9.5, 8.5, 7.5, 6.5], "y": [0, 1] * 2})
    table.to_csv(tmp_path / "train.csv", index=False)
    table[["y", "b", "a"]].assign(more=1).to_csv(tmp_path / "test.csv", index=False)
    train, test = load(tmp_path)
    np.testing.assert_array_equal(test.inputs, train.inputs)


def test_a_test_table_of_other_columns_is_one_clear_line(tmp_path, arrays):
    frame(arrays["train_images"], arrays["train_labels"]).to_csv(
        tmp_path / "train.csv", index=False
    )
    (tmp_path / "test.csv").write_text("pixel0,pixel1\n1,2\n")
    with pytest.raises(DataError, match=r"test.csv lacks the column 'pixel2', expected columns as"):
        load(tmp_path)


def test_a_test_table_without_labels_is_left_out_and_said(tmp_path, arrays, caplog):
    frame(arrays["train_images"], arrays["train_labels"]).to_csv(
        tmp_path / "train.csv", index=False
    )
    rest = frame(arrays["test_images"], 0).drop(columns="label")
    rest.assign(pixel3=np.nan).to_csv(tmp_path / "test.csv", index=False)
    pd.DataFrame({"id": [1]}).to_csv(tmp_path / "sample_submission.csv", index=False)
    assert_split(load(tmp_path), arrays["train_images"], arrays["train_labels"].tolist())
    (line,) = caplog.messages
    assert "the test examples have no label and are left out" in line
    assert "32 training and 8 test examples, a stratified split by seed 0" in line


def table_of(**columns) -> pd.DataFrame:
    return pd.DataFrame({name: values * 5 for name, values in columns.items()})


FEW, REALS, TEXTS = [0, 1, 2, 1, 0, 2], [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], [*"abcabc"]
GUESSES = {
    "texts last": (table_of(p=FEW, q=FEW, r=TEXTS), "r"),
    "texts first": (table_of(p=TEXTS, q=FEW, r=REALS), "p"),
    "few whole numbers last": (table_of(p=REALS, q=FEW, r=FEW), "r"),
    "category": (table_of(p=FEW, category=FEW, r=FEW), "category"),
    "texts first and few whole numbers last": (table_of(p=TEXTS, q=REALS, r=FEW), None),
    "few whole numbers first": (table_of(p=FEW, q=REALS, r=REALS), None),
    "few whole numbers at both ends": (table_of(p=FEW, q=REALS, r=FEW), None),
    "few whole numbers between": (table_of(p=REALS, q=FEW, r=REALS), None),
    "two columns of texts": (table_of(p=TEXTS, q=REALS, r=TEXTS), None),
    "two names": (table_of(y=FEW, q=REALS, species=FEW), None),
}


@pytest.mark.parametrize(("table", "label"), GUESSES.values(), ids=GUESSES)
def test_a_label_is_guessed_with_a_word_or_asked_for(tmp_path, caplog, table, label):
    table.to_csv(tmp_path / "t.csv", index=False)
    if label is None:
        with pytest.raises(DataError, match="expected label=NAME or label=POSITION"):
            load(tmp_path / "t.csv")
        return
    guessed, named = load(tmp_path / "t.csv"), load(tmp_path / "t.csv", label=label)
    np.testing.assert_array_equal(guessed.train.targets, named.train.targets)
    np.testing.assert_array_equal(guessed.train.inputs, named.train.inputs)
    assert f"column, {label!r}" in caplog.messages[0]
    assert f"column, {label!r}" not in caplog.messages[1]


def test_validation_examples_are_the_test_set_where_there_is_no_other(tmp_path, arrays, caplog):
    for part, name in (("train", "train"), ("test", "valid")):
        table = frame(arrays[f"{part}_images"], arrays[f"{part}_labels"])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    assert_holds(load(tmp_path), arrays)
    assert "the validation examples are the test set" in caplog.text


def test_validation_examples_beside_a_test_set_are_left_out_and_said(tmp_path, arrays, caplog):
    for part, name in (("train", "train"), ("test", "test"), ("train", "valid")):
        table = frame(arrays[f"{part}_images"], arrays[f"{part}_labels"])
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    assert_holds(load(tmp_path), arrays)
    assert "not read: valid.csv" in caplog.text


def test_a_column_that_32_bits_cannot_tell_apart_is_refused():
    seconds = pd.DataFrame({"time": 1.7e9 + np.arange(20.0), "y": [0, 1] * 10})
    with pytest.raises(
        DataError, match=r"'time' lies in 1700000000\.\.1700000019, expected a diff"
    ):
        load(seconds)
    assert load(seconds.assign(time=seconds["time"] - 1.7e9)).train.inputs.shape == (16, 1)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "Id", "index"])
@pytest.mark.parametrize("start", [0, 1, 100])
def test_a_column_that_numbers_the_rows_is_no_input(tmp_path, caplog, name, start):
    table = pd.DataFrame({name: np.arange(start, start + 20), "x": np.linspace(0, 1, 20)})
    table.assign(y=[0, 1] * 10).to_csv(tmp_path / "t.csv", index=False)
    assert load(tmp_path / "t.csv").train.inputs.shape == (16, 1)
    assert f"without the column {name!r}, which numbers the rows" in caplog.text


def test_a_text_beside_a_table_is_no_second_data_set(tmp_path, caplog):
    (tmp_path / "iris.csv").write_text(FLOWERS)
    (tmp_path / "notes.txt").write_text("measured by hand\nin the garden\n")
    assert load(tmp_path).train.inputs.shape == (3, 4)
    assert "not read: notes.txt" in caplog.text


def test_shards_are_read_one_after_another(tmp_path, arrays):
    for i, rows in enumerate((slice(25), slice(25, N))):
        table = frame(arrays["train_images"][rows], arrays["train_labels"][rows])
        table.to_parquet(tmp_path / f"train-0000{i}-of-00002.parquet")
    table = frame(arrays["test_images"], arrays["test_labels"])
    table.to_parquet(tmp_path / "test-00000-of-00001.parquet")
    assert_holds(load(tmp_path), arrays)


def test_texts_of_parquet_are_names_of_classes(tmp_path):
    table = pd.DataFrame({"x": np.arange(3000.0), "class": ["bee", "ant", "cat"] * 1000})
    table["class"] = table["class"].astype("category")
    table.to_parquet(tmp_path / "t.parquet")
    train, test = load(tmp_path / "t.parquet")
    assert train.names == ("ant", "bee", "cat")
    for data in (train, test):
        assert [[1, 0, 2][int(x) % 3] for x in data.inputs[:, 0]] == data.targets.tolist()


GAPS = "a,b,label\n1,2,0\n2,?,1\n3,NA,0\n,5,1\n"
REFUSED = {
    "missing values": (GAPS, "2 of 4 values in the column 'b'|1 of 4 values in the column 'a'"),
    "missing values of two columns": (GAPS, "3 in 2 columns together, expected a finite number"),
    "an infinite number": ("a,label\n1,0\ninf,1\n2,0\n", "1 of 3 values in the column 'a' are mis"),
    "too large for 32 bits": ("a,label\n1,0\n1e300,1\n", "1 of 2 values in the column 'a' are"),
    "a missing label": ("a,label\n1,0\n2,\n3,1\n", "1 of 3 values in the column 'label' are missi"),
    "a missing name": ("a,label\n1,x\n2,\n3,y\n", "1 of 3 values in the column 'label' are missi"),
    "texts": ("a,b,label\n1,red,0\n2,blue,1\n", "the column 'b' holds 'red', expected numbers: en"),
    "dates": ("a,b,label\n1,2020-01-01,0\n2,2020-01-02,1\n", "the column 'b' holds .*2020"),
    "no column like a label": ("a,b\n1.5,2.5\n3.5,4.5\n", "columns 'a', 'b', expected label=NAME"),
    "two columns like labels": ("y,a,label\n1,2,3\n4,5,6\n", "'label', expected label=NAME or"),
    "a column": ("label\n1\n2\n", "columns 'label', expected label=NAME"),
    "a row too short": ("a,b,label\n1,2,0\n1,2\n", r"not a readable table \(.*Expected 3 columns"),
    "a header alone": ("a,b,label\n", "expected"),
    "nothing": ("", "not a readable table"),
    "bytes that are no text": (b"a,label\n1,caf\xe9\n2,x\n", "expected|not a readable"),
    "binary": (bytes(range(256)) * 4, "expected|not a readable"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_is_not_complete_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("specis", "label is 'specis', expected a column of .*; did you mean 'species'"),
        (5, "label is 5, expected a position among 5 columns"),
        (-6, "label is -6, expected a position among 5"),
        (1.5, "label is 1.5, expected the name or the position of a column"),
        (True, "label is True, expected the name or"),
        (["a"], r"label is \['a'\], expected"),
    ],
)
def test_a_label_that_is_no_column_is_one_clear_line(tmp_path, label, message):
    (tmp_path / "iris.csv").write_text("sl,sw,pl,pw,species\n" + FLOWERS)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "iris.csv", label=label)


# Arrays.


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_of_matlab_are_read(tmp_path, arrays, dtype, compressed):
    images = arrays["train_images"].reshape(N, 64)
    two = {"X": images.astype(dtype), "y": arrays["train_labels"][:, None].astype(dtype)}
    more = {"z": np.ones(3, complex), "text": "names", "cell": np.array([1, "a"], object)}
    more |= {"struct": {"a": 1}, "sparse": scipy.sparse.eye_array(3).tocsc()}
    scipy.io.savemat(tmp_path / "a.mat", more | two, do_compression=compressed)
    assert_split(load(tmp_path), images, arrays["train_labels"].tolist())


@pytest.mark.parametrize("names", [("X", "y"), ("data", "label")])
def test_the_examples_of_matlab_may_come_last(tmp_path, colour, names, caplog):
    for part in ("train", "test"):
        images, labels = colour[f"{part}_images"], colour[f"{part}_labels"]
        two = np.moveaxis(images, 0, -1), np.where(labels == 0, 10, labels)[:, None]
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", dict(zip(names, two, strict=True)))
    labels = {p: (colour[p] - 1) % 4 for p in ("train_labels", "test_labels")}
    assert_holds(load(tmp_path), colour | labels, names=("1", "2", "3", "10"))
    assert "4 classes: 1, 2, 3, 10" in caplog.text


def test_the_label_10_of_ten_digits_is_said_to_mean_0(tmp_path, caplog):
    labels = np.arange(100) % 10
    images = np.random.default_rng(0).random((100, 400))
    two = {"X": images, "y": np.where(labels == 0, 10, labels)[:, None]}
    scipy.io.savemat(tmp_path / "ex3data1.mat", two)
    train, _ = load(tmp_path / "ex3data1.mat")
    assert train.names == tuple(map(str, range(1, 11)))
    assert "in SVHN and ex3data1 it means the digit 0" in caplog.text


def test_matlab_in_hdf5_is_one_clear_line(tmp_path):
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(head.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(DataError, match=r"or of version 4 or 7.3, expected .*save -v7"):
        load(tmp_path / "a.mat")


def test_matlabs_version_4_is_one_clear_line(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.eye(3), "y": np.arange(3)}, format="4")
    with pytest.raises(DataError, match=r"or of version 4 or 7.3, expected .*save -v7"):
        load(tmp_path / "a.mat")


def test_kmnists_pairs_of_archives_are_read(tmp_path, arrays):
    for part, array in arrays.items():
        name = f"kmnist-{part.replace('_', '-').replace('images', 'imgs')}.npz"
        np.savez_compressed(tmp_path / name, array)
    assert_holds(load(tmp_path), arrays)


@pytest.mark.parametrize("names", [("X", "y"), ("data", "target"), ("x_train", "y_train")])
def test_an_archive_without_test_arrays_is_divided(tmp_path, arrays, names, caplog):
    two = arrays["train_images"], arrays["train_labels"]
    np.savez(tmp_path / "a.npz", allow_pickle=False, **dict(zip(names, two, strict=True)))
    assert_split(load(tmp_path / "a.npz"), two[0], two[1].tolist())
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}/a.npz: no test set: 32 training and 8 test examples, a stratified split by "
        "seed 0"
    )


def seen(data) -> np.ndarray:
    """What a network sees of the inputs."""
    return np.asarray(data.inputs * data.scale + data.shift)


def idx(array) -> bytes:
    code = {"uint8": 8, "int32": 0x0C}[array.dtype.name]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def test_emnists_files_are_read_and_named(tmp_path, arrays, caplog):
    for part, array in arrays.items():
        kind = "images-idx3" if part.endswith("images") else "labels-idx1"
        content = idx(array if kind.startswith("images") else array + np.uint8(1))
        name = f"emnist-letters-{part.partition('_')[0]}-{kind}-ubyte.gz"
        (tmp_path / name).write_bytes(gzip.compress(content))
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n")
    assert_holds(load(tmp_path), arrays, names=("1", "2", "3", "4"))
    assert "EMNIST's images are transposed" in caplog.text


def test_qmnists_first_column_is_the_label(tmp_path, arrays, caplog):
    for part, array in arrays.items():
        kind = "images-idx3-ubyte" if part.endswith("images") else "labels-idx2-int"
        if kind.startswith("labels"):
            writers = np.arange(7 * len(array), dtype=np.int32).reshape(-1, 7)
            array = np.column_stack([array.astype(np.int32), writers])
        (tmp_path / f"qmnist-{part.partition('_')[0]}-{kind}").write_bytes(idx(array))
    assert_holds(load(tmp_path), arrays)
    assert "the first of QMNIST's 8 columns is the label" in caplog.text


def test_a_file_of_four_chooses_the_set_among_others(tmp_path, arrays):
    for prefix, change in (("emnist-digits", 0), ("emnist-mnist", 1)):
        for part, array in arrays.items():
            kind = "images-idx3" if part.endswith("images") else "labels-idx1"
            changed = 255 - array if change and part.endswith("images") else array
            name = f"{prefix}-{part.partition('_')[0]}-{kind}-ubyte"
            (tmp_path / name).write_bytes(idx(changed))
    with pytest.raises(DataError, match="holds 2 data sets"):
        load(tmp_path)
    assert_holds(load(tmp_path / "emnist-digits-test-labels-idx1-ubyte"), arrays)


# Rows of LIBSVM.


def test_rows_of_libsvm_are_read_with_the_test_set_beside(tmp_path):
    rng = np.random.default_rng(0)
    sets = {}
    for name, n in (("a9a", 30), ("a9a.t", 12)):
        x = np.round(rng.random((n, 6)) * (rng.random((n, 6)) > 0.5), 3)
        x[:, 5] *= name == "a9a.t"  # a column of the test set alone
        sets[name] = x, np.where(np.arange(n) % 3 > 0, 1, -1)
        inputs, targets = sets[name]
        path: Any = str(tmp_path / name)
        sklearn.datasets.dump_svmlight_file(inputs, targets, path, zero_based=False)
    splits = load(tmp_path)
    for data, (x, y) in zip(splits, sets.values(), strict=True):
        np.testing.assert_array_equal(data.inputs, x.astype(np.float32), strict=True)
        assert [int(data.names[label]) for label in data.targets] == y.tolist()


def test_real_targets_of_libsvm_are_a_regression(tmp_path):
    text = "".join(f"{0.5 * i} 1:{i / 10} 3:{i / 20}\n" for i in range(20))
    (tmp_path / "abalone.txt").write_text(text)
    train, test = load(tmp_path / "abalone.txt")
    for data in (train, test):
        np.testing.assert_allclose(data.targets, data.inputs[:, 0] * 5, rtol=1e-6)
        assert data.targets.dtype == np.float32


def test_a_column_far_out_is_refused_before_it_fills_memory(tmp_path):
    (tmp_path / "a.svm").write_text("1 1:1 2000000000:1\n0 1:2\n")
    with pytest.raises(DataError, match=r"2000000000 columns take \d+ bytes, expected at most"):
        load(tmp_path / "a.svm")


# CIFAR.


def test_cifar_10_in_binary_is_read_with_names(tmp_path, colour):
    rows = {
        p: colour[p].transpose(0, 3, 1, 2).reshape(len(colour[p]), -1) for p in colour if "im" in p
    }
    records = np.column_stack([colour["train_labels"], rows["train_images"]])
    for i in range(5):
        (tmp_path / f"data_batch_{i + 1}.bin").write_bytes(records[8 * i : 8 * i + 8].tobytes())
    test = np.column_stack([colour["test_labels"], rows["test_images"]])
    (tmp_path / "test_batch.bin").write_bytes(test.tobytes())
    assert_holds(load(tmp_path), colour)
    names = ["airplane", "automobile", "bird", "cat", *"efghij"]
    (tmp_path / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    assert_holds(load(tmp_path), colour, names=("airplane", "automobile", "bird", "cat"))


def test_cifar_100_in_binary_has_the_fine_label(tmp_path, colour):
    for part in ("train", "test"):
        images, labels = colour[f"{part}_images"], colour[f"{part}_labels"]
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        content = np.column_stack([labels // 2 + 7, labels, rows]).astype(np.uint8)
        (tmp_path / f"{part}.bin").write_bytes(content.tobytes())
    assert_holds(load(tmp_path), colour)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(3073 * 2 - 1), "holds 6145 bytes, expected examples of 3073 bytes"),
        (b"", "holds 0 bytes, expected examples"),
        (b"\x0a" + bytes(3072), "a label is 10, expected 0..9"),
    ],
)
def test_a_damaged_file_of_cifar_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


PICKLES = {
    "data_batch_1": "take the binary version, cifar-10-binary.tar.gz",
    "test_batch": "take the binary version, cifar-10-binary.tar.gz",
    "mnist.pkl.gz": "take MNIST's four IDX files",
    "train.pkl": "write .parquet",
    "a.pickle.xz": "write .parquet",
    "model.joblib": "write .parquet",
    "training.pt": "write .parquet",
    "a.h5": "write .npz",
    "a.zip": "unpack the archive",
    "a.tar.gz": "unpack the archive",
    "table.xlsx": "write the sheet as .csv",
}


@pytest.mark.parametrize(("name", "message"), PICKLES.items())
@pytest.mark.parametrize("folder", [True, False])
def test_pickles_and_archives_are_refused_with_another_format(tmp_path, name, message, folder):
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path if folder else tmp_path / name)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


# Images.


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def test_images_in_a_folder_per_class_are_read(tmp_path, arrays):
    for part in ("train", "test"):
        for i, (image, label) in enumerate(
            zip(arrays[f"{part}_images"], arrays[f"{part}_labels"], strict=True)
        ):
            save(tmp_path / part / "abcd"[label] / f"{i:03}.png", image)
    (tmp_path / "README.md").write_text("images")
    order = {p: np.argsort(arrays[f"{p}_labels"], kind="stable") for p in ("train", "test")}
    expected = {name: array[order[name.partition("_")[0]]] for name, array in arrays.items()}
    assert_holds(load(tmp_path), expected, names=("a", "b", "c", "d"))


def test_images_of_classes_without_parts_are_divided(tmp_path, arrays):
    for i, (image, label) in enumerate(
        zip(arrays["train_images"], arrays["train_labels"], strict=True)
    ):
        save(tmp_path / "data" / str(label) / f"{i:03}.png", image)
    splits, order = load(tmp_path), np.argsort(arrays["train_labels"], kind="stable")
    assert_split(splits, arrays["train_images"][order], arrays["train_labels"][order].tolist())
    assert splits.train.names == ()


def test_files_of_another_kind_among_images_are_said(tmp_path, caplog):
    for i in range(4):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", np.full((4, 4), 60 * i + 75, np.uint8))
    (tmp_path / "b" / "5.webp").write_bytes(b"RIFF")
    (tmp_path / "notes.txt").write_text("of the images")
    load(tmp_path)
    assert "not read: 1 files such as 5.webp, no PNG or JPEG" in caplog.text


@pytest.mark.parametrize("quality", [95, 60])
def test_a_jpeg_has_the_pixels_that_pillow_decodes(tmp_path, arrays, quality):
    for i, image in enumerate(arrays["train_images"][:10]):
        save(tmp_path / "ab"[i % 2] / f"{i}.jpg", image, quality=quality)
    expected = [np.asarray(Image.open(path)).ravel() for path in tmp_path.rglob("*.jpg")]
    found = np.concatenate([data.inputs for data in load(tmp_path)])
    assert sorted(found.tolist()) == sorted(np.stack(expected).tolist())


def test_images_of_several_modes_have_the_most_channels(tmp_path):
    rng = np.random.default_rng(0)
    grey, colours = (
        rng.integers(0, 256, (4, 5), np.uint8),
        rng.integers(0, 256, (4, 5, 3), np.uint8),
    )
    for folder in "ab":
        save(tmp_path / folder / "0.png", grey)
        save(tmp_path / folder / "1.png", colours)
    train, test = load(tmp_path, flatten=False)
    assert train.inputs.shape[1:] == (4, 5, 3)
    found = np.concatenate([train.inputs, test.inputs]).tolist()
    assert sorted(found) == sorted([np.stack([grey] * 3, -1).tolist(), colours.tolist()] * 2)


def test_palettes_and_single_bits_become_pixels(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2, (6, 6)).astype(bool)
    for folder in "ab":
        (tmp_path / folder).mkdir()
        Image.fromarray(bits).convert("1").save(tmp_path / folder / "0.png")
        Image.fromarray(bits.astype(np.uint8) * 255).save(tmp_path / folder / "1.png")
    for data in load(tmp_path):
        assert all(row == (bits * 255).ravel().tolist() for row in data.inputs.tolist())


def test_16_bit_images_keep_their_values(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 5, 4)).astype(np.uint16)
    pixels[:, 0, 0] = 65535
    for i, image in enumerate(pixels):
        save(tmp_path / "ab"[i % 2] / f"{i}.png", image)
    train, test = load(tmp_path)
    found = np.concatenate([train.inputs, test.inputs])
    assert sorted(found.tolist()) == sorted(pixels.reshape(8, -1).astype(np.float32).tolist())
    assert train.scale == np.float32(1 / 65535)


def test_images_of_two_sizes_are_one_clear_line(tmp_path):
    save(tmp_path / "a" / "0.png", np.zeros((4, 5), np.uint8))
    save(tmp_path / "b" / "0.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match=r"b/0.png has 6 x 4 pixels, expected 5 x 4 as .*a/0.png"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    save(tmp_path / "a" / "0.png", np.zeros((4, 5), np.uint8))
    (tmp_path / "a" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a/1.png: not a readable PNG or JPEG image") as caught:
        load(tmp_path)
    assert "0x" not in str(caught.value)


def test_an_image_cut_short_is_named(tmp_path):
    for i in range(2):
        save(
            tmp_path / "ab"[i] / "0.png",
            np.random.default_rng(i).integers(0, 256, (60, 60), np.uint8),
        )
    path = tmp_path / "b" / "0.png"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"b/0.png: not a readable PNG or JPEG image"):
        load(tmp_path)


def test_a_wrong_checksum_of_an_image_is_named(tmp_path):
    for i in range(2):
        save(tmp_path / "ab"[i] / "0.png", np.full((4, 4), 90 * i + 75, np.uint8))
    path = tmp_path / "b" / "0.png"
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 5] ^= 1  # the last byte of the checksum of the pixels
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b/0.png: not a readable PNG or JPEG image"):
        load(tmp_path)


def test_an_image_that_claims_many_pixels_is_refused(tmp_path):
    for name in "ab":
        save(tmp_path / name / "0.png", np.zeros((7000, 7000), np.uint8))
    with pytest.raises(DataError, match=r"2 images of \(7000, 7000, 1\) take \d+ bytes, expected"):
        load(tmp_path)


def hugging_face(path, images, labels, names=None):
    cells = []
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        cells.append({"bytes": out.getvalue(), "path": None})
    table = pyarrow.table({"image": cells, "label": labels.astype(np.int64)})
    if names:
        label = {"names": names, "_type": "ClassLabel"}
        info = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pyarrow.parquet.write_table(table, path)


def test_a_test_file_of_hugging_face_without_images_is_one_clear_line(tmp_path, arrays):
    path = tmp_path / "train.parquet"
    hugging_face(path, arrays["train_images"], arrays["train_labels"])
    pd.DataFrame({"label": [0, 1]}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"test.parquet has other columns, expected those of"):
        load(tmp_path)


@pytest.mark.parametrize("names", [None, ["ant", "cat", "bee", "dog"]])
def test_images_of_hugging_face_are_read(tmp_path, arrays, names):
    (tmp_path / "data").mkdir()
    for part in ("train", "test"):
        path = tmp_path / "data" / f"{part}-00000-of-00001.parquet"
        hugging_face(path, arrays[f"{part}_images"], arrays[f"{part}_labels"], names)
    assert_holds(load(tmp_path), arrays, names=tuple(names or ()))


# Packages, and files that are none.


def a_file(path: Path) -> Path:
    """A small data set of the format that the suffix names."""
    table = pd.DataFrame({"a": np.linspace(0, 1, 10), "label": [0, 1] * 5})
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".arff":
        rows = "\n".join(f"{a},{b}" for a, b in table.to_numpy())
        path.write_text(f"@relation r\n@attribute a real\n@attribute label real\n@data\n{rows}")
    elif path.suffix == ".svm":
        path.write_text("".join(f"{b:.0f} 1:{a}\n" for a, b in table.to_numpy()))
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"x": table[["a"]].to_numpy(), "y": table["label"].to_numpy()})
    else:
        for i in range(4):
            save(path.with_name("ab"[i % 2]) / f"{i}.png", np.full((4, 4), 60 * i + 75, np.uint8))
        return path.parent
    return path


PACKAGES = {
    ".csv": "pyarrow",
    ".parquet": "pyarrow",
    ".svm": "sklearn",
    "": "PIL",
}


@pytest.mark.parametrize(("suffix", "package"), PACKAGES.items())
def test_a_missing_package_is_a_line_with_the_command(tmp_path, monkeypatch, suffix, package):
    path = a_file(tmp_path / f"t{suffix}")
    assert len(load(path).train.targets) > 1
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"{package} is not installed, expected the extra 'data': pip install 'jaxnn-b"
    with pytest.raises(ModuleNotFoundError, match=message):
        load(path)


def test_a_set_of_scikit_learn_without_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDataError, match=r"iris is part of .*'jaxnn-basics\[data\]'"):
        load("iris")


@pytest.mark.parametrize("replace", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arff", ".svm", ".mat", ".npz"])
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path, suffix, replace):
    replace(tmp_path / f"t{suffix}")
    for path in (tmp_path, tmp_path / f"t{suffix}"):
        with pytest.raises(DataError, match="regular file") as caught:
            load(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arff", ".svm", ".mat"])
def test_a_name_in_upper_case_is_the_same_format(tmp_path, suffix):
    path = a_file(tmp_path / f"t{suffix}")
    expected = load(path)
    found = load(path.rename(tmp_path / f"T{suffix.upper()}"))
    np.testing.assert_array_equal(found.train.inputs, expected.train.inputs)


# Shapes.


def test_images_keep_their_shape_on_request(tmp_path, arrays, colour):
    np.savez(tmp_path / "grey.npz", **arrays)
    np.savez(tmp_path / "last.npz", **colour)
    first = {n: a.transpose(0, 3, 1, 2) if n.endswith("images") else a for n, a in colour.items()}
    np.savez(tmp_path / "first.npz", **first)
    frame(arrays["train_images"], arrays["train_labels"]).to_csv(tmp_path / "a.csv", index=False)
    grey, last, first = (
        load(tmp_path / f"{n}.npz", flatten=False) for n in ("grey", "last", "first")
    )
    np.testing.assert_array_equal(grey.test.inputs, arrays["test_images"][..., None], strict=True)
    for splits in (last, first):
        np.testing.assert_array_equal(splits.train.inputs, colour["train_images"], strict=True)
    assert load(tmp_path / "a.csv", flatten=False).train.inputs.shape == (32, 8, 8, 1)


def test_digits_keep_their_shape_on_request():
    digits: Any = sklearn.datasets.load_digits()
    train, test = load("digits", flatten=False)
    assert train.inputs.shape == (1437, 8, 8, 1)
    found = np.concatenate([train.inputs, test.inputs])[..., 0]
    assert sorted(map(bytes, found)) == sorted(map(bytes, digits.images.astype(np.uint8)))
    np.testing.assert_array_equal(train.inputs.reshape(1437, 64), load("digits").train.inputs)


def test_the_named_images_keep_their_shape_on_request(real_data):
    rows = load("mnist", real_data, download=False)
    images = load("mnist", real_data, flatten=False, download=False)
    assert images.train.inputs.shape == (60000, 28, 28, 1)
    np.testing.assert_array_equal(images.test.inputs.reshape(10000, 784), rows.test.inputs)


# Sets of scikit-learn.


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_the_tables_of_scikit_learn_are_whole(name):
    expected = getattr(sklearn.datasets, f"load_{name}")()
    splits = load(name)
    regression = name == "diabetes"
    found = np.concatenate([np.column_stack([d.inputs, d.targets]) for d in splits])
    wanted = np.column_stack([expected.data, expected.target]).astype(np.float32)
    np.testing.assert_array_equal(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])
    assert splits.train.targets.dtype == (np.float32 if regression else np.int32)
    assert splits.test.names == (() if regression else tuple(expected.target_names))
    counts = [len(wanted)] if regression else np.bincount(expected.target)
    assert len(splits.test.targets) == sum(round(count / 5) for count in counts)


@pytest.mark.parametrize("name", ["wine", "breast_cancer"])
def test_columns_of_several_units_are_standardised_by_the_training_examples(name):
    train, test = load(name)
    scaler = StandardScaler().fit(train.inputs.astype(float))
    for data in (train, test):
        expected: Any = scaler.transform(data.inputs.astype(float))
        np.testing.assert_allclose(seen(data), expected, atol=2e-4)


HOUSING = "-122.23,37.88,41,880,129,322,126,8.3252,452600\n-122.22,37.86,21,7099,1106,2401,1138,"
HOUSING += "8.3014,358500\n-122.24,37.85,52,1467,190,496,177,7.2574,352100\n"


@pytest.mark.parametrize("packed", [True, False])
def test_california_housing_is_read_where_at_hand(tmp_path, packed):
    folder = tmp_path / "california_housing"
    folder.mkdir()
    if packed:
        with tarfile.open(folder / "cal_housing.tgz", "w:gz") as archive:
            member = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
            member.size = len(HOUSING)
            archive.addfile(member, io.BytesIO(HOUSING.encode()))
    else:
        (folder / "cal_housing.data").write_text(HOUSING)
    train, test = load("california_housing", tmp_path)
    # As scikit-learn prints the first districts.
    rows = [[8.3252, 41, 6.98412698, 1.02380952, 322, 2.55555556, 37.88, -122.23]]
    rows += [[8.3014, 21, 6.23813708, 0.97188049, 2401, 2.10984183, 37.86, -122.22]]
    rows += [[7.2574, 52, 8.28813559, 1.07344633, 496, 2.80225989, 37.85, -122.24]]
    found = np.concatenate([np.column_stack([d.inputs, d.targets]) for d in (train, test)])
    expected = np.column_stack([rows, [4.526, 3.585, 3.521]]).astype(np.float32)
    order = np.argsort(found[:, -1])[::-1]
    np.testing.assert_allclose(found[order], expected, rtol=1e-6)


def test_california_housing_elsewhere_says_what_to_download(tmp_path):
    with pytest.raises(MissingDataError, match=r"cal_housing.tgz, from https://.* is a pickle"):
        load("california_housing", tmp_path)


# Objects.


def test_a_pair_of_arrays_is_divided(arrays):
    two = arrays["train_images"], arrays["train_labels"]
    for pair in (
        two,
        [*two],
        (jnp.asarray(two[0]), jnp.asarray(two[1])),
        (two[0].tolist(), two[1]),
    ):
        assert_split(load(pair), two[0], two[1].tolist())


def test_a_pair_of_lists_of_two_examples_is_no_pair_of_pairs():
    inputs, targets = [[0.25, 0.5], [0.75, 1.0]] * 2, ["a", "b"] * 2
    train, test = load((inputs, targets))
    assert (train.inputs.shape, test.inputs.shape) == ((2, 2), (2, 2))
    with pytest.raises(DataError, match="there are 2 examples"):
        load((inputs[:2], targets[:2]))


def test_a_pair_of_pairs_is_a_training_and_a_test_set(arrays):
    four = [*arrays.values()]
    assert_holds(load((four[:2], tuple(four[2:]))), arrays)


def test_arrays_by_name_are_as_in_an_archive(arrays):
    assert_holds(load(arrays), arrays)
    wine: Any = sklearn.datasets.load_wine()
    assert_split(load(wine), wine.data, wine.target.tolist())


class Foreign:
    """An array of another library."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def test_anything_with_the_array_method_is_an_array(arrays):
    two = arrays["train_images"], arrays["train_labels"]
    assert_split(load((Foreign(two[0]), Foreign(two[1]))), two[0], two[1].tolist())
    table = np.column_stack([two[1], two[0].reshape(N, -1)])
    assert_split(load(Foreign(table), label=0), two[0], two[1].tolist())


@pytest.mark.parametrize("kind", [lambda t: t, pyarrow.Table.from_pandas])
def test_a_data_frame_has_a_label_column(kind):
    table = pd.DataFrame({"a": np.linspace(0, 1, 20), "colour": ["red", "blue"] * 10})
    for label in (None, "colour", -1):
        train, test = load(kind(table), label=label)
        assert train.names == ("blue", "red")
        for data in (train, test):
            assert (data.targets == (np.round(data.inputs[:, 0] * 19) % 2 == 0)).all()


def test_two_frames_with_a_label_are_a_training_and_a_test_set():
    table = pd.DataFrame({"a": np.linspace(0, 1, 20), "colour": ["red", "blue"] * 10})
    train, test = load((table, table[::-1][["colour", "a"]]), label="colour")
    np.testing.assert_array_equal(test.inputs, train.inputs[::-1])
    assert train.targets.tolist() == [1, 0] * 10
    assert test.targets.tolist() == [0, 1] * 10


def test_a_frame_and_a_series_are_a_pair():
    table = pd.DataFrame({"a": np.linspace(0, 1, 20), "b": np.linspace(1, 0, 20)})
    labels = pd.Series(["x", "y"] * 10, dtype="category")
    assert load((table, labels)).train.names == ("x", "y")
    table.loc[3, "b"] = np.nan
    with pytest.raises(DataError, match=r"the data frame: 1 of 20 values in the column 'b'"):
        load((table, labels))


# Targets.


def pair(targets):
    return np.random.default_rng(0).random((len(targets), 3)), targets


LABELS = {
    "texts": (np.array(["bee", "ant", "cat"] * 10), ("ant", "bee", "cat"), [1, 0, 2]),
    "texts with blanks": (np.array([" bee", "ant ", "cat"] * 10), ("ant", "bee", "cat"), [1, 0, 2]),
    "bytes": (np.array([b"bee", b"ant", b"cat"] * 10), ("ant", "bee", "cat"), [1, 0, 2]),
    "whole numbers as texts": (np.array(["2", "10", "3"] * 10), ("2", "3", "10"), [0, 2, 1]),
    "indices as texts": (np.array(["2", "1", "0"] * 10), (), [2, 1, 0]),
    "gaps": (np.array([5, 0, 2] * 10), ("0", "2", "5"), [2, 0, 1]),
    "-1 and 1": (np.array([-1, 1, -1] * 10), ("-1", "1"), [0, 1, 0]),
    "from 1": (np.array([3, 1, 2] * 10), ("1", "2", "3"), [2, 0, 1]),
    "booleans": (np.array([True, False, True] * 10), (), [1, 0, 1]),
    "whole floats": (np.array([2.0, 0.0, 1.0] * 10), (), [2, 0, 1]),
    "gaps in floats": (np.array([2.0, 0.0, 4.0] * 10), ("0", "2", "4"), [1, 0, 2]),
    "a column": (np.array([[2], [0], [1]] * 10), (), [2, 0, 1]),
}


@pytest.mark.parametrize(("labels", "names", "expected"), LABELS.values(), ids=LABELS)
def test_labels_become_indices_with_their_names(labels, names, expected):
    x, y = pair(labels)
    splits = load(((x, y), (x[:6], y[:6])))
    assert splits.train.targets.tolist() == expected * 10
    assert splits.test.targets.tolist() == expected * 2
    assert splits.train.names == splits.test.names == names
    assert splits.train.targets.dtype == np.int32


RNG = np.random.default_rng(3)
REAL = {
    "broken numbers": RNG.normal(size=60),
    "many whole numbers": RNG.permutation(60) * 3,
    "many whole floats": RNG.permutation(60) * 3.0,
    "several outputs": RNG.normal(size=(60, 2)),
    "a column": RNG.normal(size=(60, 1)),
}


@pytest.mark.parametrize("targets", REAL.values(), ids=REAL)
def test_real_targets_are_a_regression_and_said(targets, caplog):
    x, y = pair(targets)
    train, test = load((x, y))
    assert len(test.targets) == 12
    shape = y.shape[1:] if y.ndim > 1 and y.shape[1] > 1 else ()
    assert train.targets.shape == (48, *shape)
    assert train.targets.dtype == np.float32
    found = {
        tuple(row): target
        for d in (train, test)
        for row, target in zip(d.inputs.tolist(), d.targets, strict=True)
    }
    for row, target in zip(x.astype(np.float32).tolist(), y.reshape(60, *shape), strict=True):
        np.testing.assert_allclose(found[tuple(row)], target, rtol=1e-6)
    assert "a regression: the targets are numbers from" in caplog.text
    assert "48 training and 12 test examples, a split by seed 0" in caplog.text


def test_few_whole_numbers_are_a_regression_on_request():
    x, y = pair(np.array([3, 4, 5, 9] * 10))
    assert load((x, y)).train.names == ("3", "4", "5", "9")
    train, test = load((x, y), regression=True)
    assert {*np.concatenate([train.targets, test.targets]).tolist()} == {3.0, 4.0, 5.0, 9.0}
    assert train.names == ()


def test_a_class_of_the_test_set_alone_is_named():
    x, y = pair(np.array(["a", "b", "c"] * 10))
    with pytest.raises(DataError, match="test_labels hold d, a class without an example in"):
        load(((x, y), (x[:3], np.array(["a", "d", "b"]))))


def test_the_seed_decides_the_split():
    x, y = pair(np.arange(50) % 5)
    splits = [load((x, y), seed=seed) for seed in (1, 1, 2)]
    rows = [each.test.inputs.tolist() for each in splits]
    assert rows[0] == rows[1] != rows[2]


def test_a_class_of_one_example_is_for_training():
    x, y = pair(np.array([0] * 9 + [1]))
    train, test = load((x, y))
    assert (1 in train.targets, 1 in test.targets) == (True, False)


def test_without_two_examples_of_a_class_nothing_is_left_to_test():
    x, y = pair(np.array(["a", "b", "c"]))
    with pytest.raises(DataError, match="there are 3 examples, expected 2 of a class"):
        load((x, y))


def test_a_model_of_a_table_predicts_the_names_in_the_table(tmp_path):
    rng = np.random.default_rng(0)
    kinds = rng.choice(["north", "south"], 200)
    height = np.where(kinds == "north", 1500, 300) + rng.normal(0, 100, 200)
    table = pd.DataFrame({"height": height, "noise": rng.normal(size=200), "side": kinds})
    table.to_csv(tmp_path / "hills.csv", index=False)
    data = load(tmp_path / "hills.csv", label="side").train
    spec = Spec(model=MLP((2, 2)), steps=100, batch_size=20)
    state, _ = train(spec, Hyper(0.1), jax.random.key(0), data)
    save_model(tmp_path / "model", spec, state.params, data=data)
    model = load_model(tmp_path / "model")
    inputs = table[["height", "noise"]].to_numpy(np.float32)
    assert model.predict(inputs).tolist() == kinds.tolist()


# Standardisation.


def test_standardised_data_are_as_by_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(5, [1, 20, 300], (2500, 3)).astype(np.float32)
    y, others = np.arange(2500) % 2, rng.normal(4, [2, 10, 3], (50, 3)).astype(np.float32)
    train, test = standardized(Data(x, y, 0.5), Data(others, y[:50]))
    scaler = StandardScaler().fit(x.astype(float))
    for data, raw in ((train, x), (test, others)):
        np.testing.assert_array_equal(data.inputs, raw)
        expected: Any = scaler.transform(raw.astype(float))
        np.testing.assert_allclose(seen(data), expected, atol=1e-4)


def test_a_constant_column_has_the_scale_1():
    x = np.array([[3, 1], [3, 2], [3, 6]], np.uint8)
    (train,) = standardized(Data(x, np.array([0, 1, 0])))
    assert train.inputs.dtype == np.uint8
    assert np.asarray(train.scale)[0] == 1
    np.testing.assert_allclose(seen(train)[:, 0], 0)
    expected = (np.array([1, 2, 6]) - 3) / np.std([1, 2, 6])
    np.testing.assert_allclose(seen(train)[:, 1], expected, atol=1e-6)


def test_images_are_standardised_pixel_by_pixel():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8)
    (train,) = standardized(Data(images, np.arange(30) % 2))
    z = seen(train)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)


def test_a_test_set_in_another_unit_than_the_standardised_columns_is_refused():
    rng = np.random.default_rng(0)
    x, y = rng.normal([1000, 50, 4000], [3, 2, 50], (60, 3)), np.arange(60) % 2
    with pytest.raises(DataError, match="deviations off, expected test inputs in the unit of the"):
        load(((x, y), ((x - x.mean(axis=0)) / x.std(axis=0), y)))
