"""The user's data: the files of a data set at a path, and their reader."""

import gzip
import logging
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn.data import readers
from jaxnn.data.arrays import IDX_NAMES, read_idx, read_mat, read_npy, read_npz
from jaxnn.data.readers import Examples, Files, Label, Reader, Table
from jaxnn.data.splits import PARTS, DataError, MissingDataError, expect, look_turned, make_splits
from jaxnn.files import decoding, open_regular, printable, short
from jaxnn.types import Splits, shown

logger = logging.getLogger("jaxnn.data")

FAMILIES = (
    PARTS,
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_x", "train_y", "test_x", "test_y"),
    ("train-imgs", "train-labels", "test-imgs", "test-labels"),
)
"""The names of four arrays: in lower or upper case, after a prefix that the four share."""

PAIRS = (
    ("x", "y"),
    ("data", "target"),
    ("data", "label"),
    ("data", "labels"),
    ("images", "labels"),
    ("features", "labels"),
    ("inputs", "targets"),
)
"""The names of two arrays, without test examples: in lower or upper case."""


def load(source: Any, *, label: Label = None, **options: Any) -> Splits:
    """Reads the data at a path, or in an object; see ``jaxnn.data.load`` and ``make_splits``."""
    is_path = isinstance(source, Path)
    found, origin = (_read(source, label), source) if is_path else (_of(source, label), "the data")
    notes = [note for examples in found.values() for note in examples.notes]
    unlabelled = [part for part, examples in found.items() if examples.targets is None]
    for part in unlabelled:
        notes.append(f"the {part} examples have no label and are left out")
    arrays = {
        f"{part}_{kind}": array
        for part, examples in found.items()
        if part not in unlabelled
        for kind, array in (("images", examples.inputs), ("labels", examples.targets))
    }
    names = next(iter(found.values())).names
    splits = make_splits(arrays, origin, names=names, notes=notes, **options)
    if splits.train.targets.dtype.kind == "i" and "test_images" in arrays and look_turned(*splits):
        notes.append(
            "the test images look like turned or transposed training images, expected images of "
            "one orientation"
        )
    if notes:
        logger.warning(f"{printable(origin)}: {'; '.join(map(printable, notes))}")
    return splits


# Objects.


def _of(source: Any, label: Label) -> dict[str, Examples]:
    """The examples in data frames, an array of columns, a pair of arrays, or a pair of pairs."""
    with decoding(f"{shown(source)} is no data set", DataError):
        pair = isinstance(source, tuple | list)
        if not pair and not isinstance(source, Mapping):
            return readers.from_tables({"train": _table_of(source)}, label)
        if pair and label is not None and all(map(_columns, source)):
            frames = zip(("train", "test"), source, strict=True)
            return readers.from_tables({part: _table_of(frame) for part, frame in frames}, label)
        expect(label is None, f"label is {label!r}", "None: the arrays are inputs and targets")
        if isinstance(source, Mapping):
            found = {str(name): value for name, value in source.items()}
            return _by_part({key: found[name] for key, name in four_of("the data", found).items()})
        pairs = [source]
        if all(isinstance(p, tuple | list) and len(p) == 2 and np.ndim(p[0]) > 1 for p in source):
            pairs = source
        parts = zip(("train", "test"), pairs, strict=False)
        return {part: Examples(_inputs(x), _array(y)) for part, (x, y) in parts}


def _array(values: Any) -> np.ndarray:
    values = values.toarray() if hasattr(values, "toarray") else values  # sparse, of SciPy
    return values if isinstance(values, np.ndarray) else np.asarray(values)


def _inputs(values: Any) -> np.ndarray:
    return readers.inputs_of(_table_of(values)) if _columns(values) else _array(values)


def _columns(source: Any) -> list[Any]:
    """The names of the columns of a data frame; none of other objects."""
    return [*getattr(source, "column_names", getattr(source, "columns", ()))]


def _table_of(source: Any) -> Table:
    if names := _columns(source):
        columns = [readers.as_column(source[name]) for name in names]
        return Table(tuple(map(str, names)), tuple(columns), "the data frame")
    array = np.asarray(source)
    if array.dtype.names:
        columns = tuple(readers.as_column(array[name]) for name in array.dtype.names)
        return Table(array.dtype.names, columns, "the records")
    found = f"an array of shape {array.shape} and dtype {array.dtype}"
    expected = "a pair (inputs, targets), or a table [N, columns] with a label column"
    expect(array.ndim == 2 and array.size and array.dtype.kind in "biuf", found, expected)
    return Table(tuple(map(str, range(array.shape[1]))), tuple(array.T), "the array")


# Formats by the names of files.


def _archives(files: Files, label: Label) -> dict[str, Examples]:
    """Archives of NumPy or MATLAB: a single file, or a file of two arrays for every part."""
    expect(label is None, f"label is {label!r}", "None: arrays have a name, and no columns")
    found: dict[str, Examples] = {}
    for part, paths in files.items():
        expect(len(paths) == 1, f"{paths[0]}, ... are {len(paths)} files", "one")
        (path,) = paths
        mat = path.suffix.lower() == ".mat"
        arrays = (read_mat if mat else read_npz)(path, partial(four_of, path))
        by_part = _by_part(arrays)
        both = f"{path} holds both training and test examples"
        expect(len(files) == 1 or len(by_part) == 1, both, f"one, as there are {len(files)} files")
        found |= by_part if len(files) == 1 else {part: by_part["train"]}
        if mat and np.array_equal(np.unique(found[part].targets), range(1, 11)):
            note = "the label 10 keeps its name; in SVHN and ex3data1 it means the digit 0"
            found[part] = found[part]._replace(notes=(note,) if part == "train" else ())
    return found


def _by_part(arrays: Mapping[str, Any]) -> dict[str, Examples]:
    """Four arrays, or two, as the examples of every part."""
    return {
        part: Examples(_array(arrays[f"{part}_images"]), _array(arrays[f"{part}_labels"]))
        for part in ("train", "test")
        if f"{part}_images" in arrays
    }


_FORMATS: tuple[tuple[str, Reader], ...] = (
    (r".*\.(csv|tsv|tab|data|dat|tra|tes)(\.gz)?", readers.tables(readers.read_csv)),
    (r".*\.(parquet|pq)", readers.read_parquet),
    (r".*\.arff(\.gz)?", readers.tables(readers.read_arff)),
    (r".*\.(npz|mat)", _archives),
    (r"(data_batch_\d|test_batch|train|test)\.bin", readers.read_cifar),
    (r".*\.(libsvm|svm|svmlight)(\.t)?(\.gz)?", readers.read_libsvm),
)
"""Readers by the names of files; ``_reader`` also looks into files of other names."""

_IMAGE = re.compile(r".*\.(png|jpe?g)", re.IGNORECASE)
_NO_DATA = re.compile(r"\..*|readme.*|license.*|.*\.(md|html?|names|json|py|ipynb)|.*meta\.txt|"
                      r".*names\.txt|.*mapping\.txt|.*submission.*", re.IGNORECASE)  # fmt: skip
_ROW = re.compile(rb"[-+]?[\d.]+(e[-+]?\d+)?([ \t]+qid:\d+)?([ \t]+\d+:\S+)+[ \t]*(#.*)?")

_REFUSED = (
    (r"(data_batch_\d|test_batch|batches\.meta)|.*cifar.*(py|python).*",
     "CIFAR's Python version is a pickle, which could run code: take the binary version, "
     "cifar-10-binary.tar.gz or cifar-100-binary.tar.gz"),
    (r"mnist\.pkl(\.gz)?", "a pickle could run code: take MNIST's four IDX files, or 'mnist'"),
    (r".*\.(pkl|pickle|joblib|pt|pth)(\.(gz|bz2|xz))?",
     "a pickle could run code: write .parquet (pandas.DataFrame.to_parquet) or .npz (np.savez)"),
    (r".*\.(h5|hdf5|hdf)", "HDF5 is not read: write .npz (np.savez) or .parquet"),
    (r".*\.(zip|tar|tgz|7z|rar|bz2|xz)|.*\.tar\..*", "unpack the archive"),
    (r".*\.xlsx?", "write the sheet as .csv"),
)  # fmt: skip
"""Names of files that are never read, and what to do instead."""

_EXPECTED = (
    "train-images-idx3-ubyte, ... (four IDX files), PREFIX_{train,test}_{images,labels}.npy, .npz, "
    ".mat, a table (.csv, .tsv, .data, .parquet, .arff, LIBSVM), CIFAR's .bin files, or a folder "
    "of PNG or JPEG files per class"
)

_PARTS = (
    ("test", re.compile(r"(?<![a-z])(test(ing)?|t10k)(_batch)?(?![a-z])", re.IGNORECASE)),
    ("train", re.compile(r"(?<![a-z])(train(ing)?|data_batch_\d)(?![a-z])", re.IGNORECASE)),
    ("validation", re.compile(r"(?<![a-z])(val|valid(ation)?|dev)(?![a-z])", re.IGNORECASE)),
)
_SHARD = re.compile(r"[-_]\d+-of-\d+")


def _reader(path: Path) -> Reader | None:
    """The reader for a file, by the name or by the first rows; None for other files."""
    name = path.name
    if _NO_DATA.fullmatch(name) or _IMAGE.fullmatch(name) or refusal(name):
        return None
    for pattern, reader in _FORMATS:
        if re.fullmatch(pattern, name, re.IGNORECASE) and not name.lower().endswith(".data"):
            return reader
    if _has_rows_of_libsvm(path):
        return readers.read_libsvm
    return _FORMATS[0][1] if re.search(r"\.(data|txt)(\.gz)?$", name, re.IGNORECASE) else None


def refusal(name: str) -> str:
    """The reason why files of a name are never read; "" for other names."""
    return next((why for p, why in _REFUSED if re.fullmatch(p, name, re.IGNORECASE)), "")


def _has_rows_of_libsvm(path: Path) -> bool:
    with suppress(OSError, EOFError, zlib.error), open_regular(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        start = (gzip.GzipFile(fileobj=file) if compressed else file).read(2**16)
        return any(map(_ROW.match, start.splitlines()[:5]))
    return False


def _part_and_set(name: str) -> tuple[str, str]:
    """The part that the name of a file tells, "" for none, and the rest of the name."""
    name = re.sub(r"\.gz$", "", name.lower())
    if name.endswith(".t"):  # as LIBSVM names test sets
        return "test", name[:-2]
    name = _SHARD.sub("", name)
    return next(((part, p.sub("", name)) for part, p in _PARTS if p.search(name)), ("", name))


# Data sets in folders.


class Source(NamedTuple):
    """A data set among files."""

    files: list[Path]  # the first of which names the set
    trains: bool  # whether a name tells that the examples are for training
    read: Callable[[Label], dict[str, Examples]]
    note: str = ""


def _read(path: Path, label: Label) -> dict[str, Examples]:
    """The examples at a path, by part; "train" alone where there is no test set."""
    if path.is_dir():
        source, notes = _only(path, _below(path))
    else:
        source, notes = _source_at(path), []
    notes += [source.note] if source.note else []
    found = source.read(label)
    first = next(iter(found))
    return found | {first: found[first]._replace(notes=(*notes, *found[first].notes))}


def _source_at(path: Path) -> Source:
    """The data set of a file; of four files, for any one file of the four."""
    arrays = [source for source in _arrays_in(path.parent) if path in source.files]
    if arrays:
        return arrays[0]
    reader = _reader(path)
    if reader is None:
        why = refusal(path.name)
        raise DataError(f"{path} is not read: {why}" if why else f"{path}: expected {_EXPECTED}")
    return Source([path], True, partial(reader, {"train": [path]}))


def _only(folder: Path, sources: Sequence[Source]) -> tuple[Source, list[str]]:
    """The data set of a folder, and a note about other files."""

    def name(source: Source) -> str:
        more = ", ..." if len(source.files) > 1 else ""
        return os.path.relpath(source.files[0], folder) + more

    if not sources:
        files = [os.path.relpath(path, folder) for path in islice(_all_files(folder), 1000)]
        files.sort(key=lambda file: not refusal(os.path.basename(file)))
        why = "".join(f": {refusal(os.path.basename(file))}" for file in files[:1]).rstrip(": ")
        listed = f"; found {', '.join(files[:3])}{', ...' * (len(files) > 3)}{why}" if files else ""
        raise MissingDataError(f"{folder} holds no data set, expected {_EXPECTED}{listed}")
    sets = [*filter(_is_no_text, sources)] or sources
    named = [source for source in sets if source.trains] or [*sets]
    found = f"{folder} holds {len(named)} data sets: {short(' and '.join(map(name, named)), 300)}"
    expect(len(named) == 1, found, "one data set, or the path of one of the files")
    others = [name(source) for source in sources if source is not named[0]]
    return named[0], [f"not read: {short(', '.join(others), 100)}"] if others else []


def _all_files(folder: Path) -> Iterator[Path]:
    """The files in a folder, then the files in the folders below."""
    folders = [folder]
    for each in folders:
        for entry in _entries(each):
            if entry.is_dir() and not entry.is_symlink():
                folders.append(entry)
            else:
                yield entry


def _entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, without hidden names."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _below(folder: Path) -> list[Source]:
    """The data sets in a folder; without any, in the folders below, up to three levels deep.

    A text, which may be notes, is a table where there is no other data set.
    """
    level, texts = [folder], []
    for _ in range(4):
        sources = [source for each in level for source in _sources_in(each)]
        if any(map(_is_no_text, sources)):
            return texts + sources
        texts += sources
        level = [path for each in level for path in _entries(each) if path.is_dir()][:1000]
    return texts


def _is_no_text(source: Source) -> bool:
    return source.files[0].suffix.lower() != ".txt"


def _sources_in(folder: Path) -> list[Source]:
    sources = _arrays_in(folder)
    used = {path for source in sources for path in source.files}
    groups: dict[tuple[Reader, str], dict[str, list[Path]]] = {}
    for path in _entries(folder):
        reader = None if path in used or path.is_dir() else _reader(path)
        if reader:
            part, name = _part_and_set(path.name)
            groups.setdefault((reader, name), {}).setdefault(part, []).append(path)
    for (reader, _), parts in groups.items():
        sources.append(_grouped(reader, parts))
    return sources if any(map(_is_no_text, sources)) else sources + _pictures_in(folder)


def _grouped(reader: Reader, parts: Mapping[str, list[Path]]) -> Source:
    """The files of a set by part; validation examples judge where there are no test examples."""
    train, *others = (p for p in ("train", "", "test", "validation") if p in parts)
    files, notes = {"train": parts[train]}, []
    if judge := next((part for part in ("test", "validation") if part in others), None):
        files["test"] = parts[judge]
        notes += ["the validation examples are the test set"] if judge == "validation" else []
    if left := [part for part in others if part != judge]:
        names = ", ".join(parts[part][0].name for part in left)
        notes.append(f"not read: {names}")
    listed = [path for paths in files.values() for path in paths]
    return Source(listed, train == "train", partial(reader, files), "; ".join(notes))


def _pictures_in(folder: Path) -> list[Source]:
    """Images in a folder per class, or in a folder per part with a folder per class."""
    below = {path: _classes_in(path) for path in _entries(folder) if path.is_dir()}
    parts: dict[str, list[Path]] = {}
    for path, images in below.items():
        if images and (part := _part_and_set(path.name)[0]):
            parts.setdefault(part, []).extend(images)
    if "train" not in parts:
        parts = {"": _classes_in(folder)}
    images = [path for some in parts.values() for path in some]
    if not images:
        return []
    source = _grouped(readers.read_pictures, parts)
    folders = dict.fromkeys(path.parent for path in images)
    others = [
        path for each in folders for path in _entries(each) if not _IMAGE.fullmatch(path.name)
    ]
    if others:
        left = f"not read: {len(others)} files such as {others[0].name}, no PNG or JPEG"
        source = source._replace(note="; ".join(filter(None, (source.note, left))))
    return [source]


def _classes_in(folder: Path) -> list[Path]:
    """The images in the folders of a folder."""
    folders = [path for path in _entries(folder) if path.is_dir()]
    files = (path for each in folders for path in _entries(each))
    return [path for path in files if _IMAGE.fullmatch(path.name)]


# Files of four arrays.


def _arrays_in(folder: Path) -> list[Source]:
    """Sets of four files of arrays: IDX, .npy, or .npz with a single array each."""
    names = [path.name for path in _entries(folder)]
    sets = [(named, read_idx) for named in _idx_sets(names)]
    sets += [(named, read_npy) for named in _families(folder, names, ".npy")]
    for named in _families(folder, names, ".npz"):
        if named[PARTS[0]] in names and named[PARTS[1]] in names:
            sets.append((named, _read_alone))
    sources = []
    for named, read in sets:
        files = {part: folder / name for part, name in named.items()}
        if not any(files[part].exists() for part in PARTS[2:]):
            files = {part: files[part] for part in PARTS[:2]}
        listed = [*files.values()]
        sources.append(Source(listed, True, partial(_read_arrays, files, read)))
    return sources


_IDX = re.compile(
    r"(|.*[^a-z0-9])(train|t10k|test)-(images|labels)([-.])idx\d-(ubyte|int)(\.gz)?", re.IGNORECASE
)


def _idx_sets(names: Collection[str]) -> list[dict[str, str]]:
    """The names of IDX files by part, for every prefix; missing names included."""
    sets: dict[tuple[str, str], dict[str, str]] = {}
    for name in sorted(names):
        if match := _IDX.fullmatch(name):
            prefix, part, kind, separator = match.group(1, 2, 3, 4)
            wanted = {
                p: prefix + n.replace("-idx", f"{separator}idx") for p, n in IDX_NAMES.items()
            }
            found = sets.setdefault((prefix, separator), wanted)
            split = "train" if part.lower() == "train" else "test"
            key = f"{split}_{kind.lower()}"
            if found[key] not in names:  # a plain file goes before its compressed copy
                found[key] = name
    return [*sets.values()]


def _read_alone(path: Path) -> np.ndarray:
    arrays = read_npz(path)
    expect(len(arrays) == 1, f"{path} holds {len(arrays)} arrays", "one")
    return next(iter(arrays.values()))


def _read_arrays(
    files: Mapping[str, Path], read: Callable[[Path], np.ndarray], label: Label
) -> dict[str, Examples]:
    expect(label is None, f"label is {label!r}", "None: the labels have a file of their own")
    missing = [path.name for path in files.values() if not path.exists()]
    if missing:
        folder = files[PARTS[0]].parent
        raise MissingDataError(f"{folder} lacks {', '.join(missing)}, expected four files")
    arrays, notes = {part: read(path) for part, path in files.items()}, []
    if "emnist" in files[PARTS[0]].name.lower():
        notes.append("EMNIST's images are transposed")
    for part in files:
        if part.endswith("labels") and read is read_idx and arrays[part].shape[1:] == (8,):
            arrays[part] = arrays[part][:, 0]  # of QMNIST: the digit, the writer, ...
            notes.append(f"the first of QMNIST's 8 columns is the label ({part})")
    found = _by_part(arrays)
    return found | {"train": found["train"]._replace(notes=tuple(notes))}


def _families(origin: object, names: Collection[str], suffix: str = "") -> list[dict[str, str]]:
    """The names of four arrays among other names: a name per part, missing names included."""
    sets: dict[str, dict[str, str]] = {}
    for name, family in product(sorted(names), FAMILIES):
        for part, ending in zip(PARTS, family, strict=True):
            start = name[: -len(ending + suffix)]
            if not name.lower().endswith(ending + suffix) or start[-1:].isalnum():
                continue
            wanted = [f"{start}{each}{suffix}" for each in family]
            known = sets.setdefault(wanted[0], dict(zip(PARTS, wanted, strict=True)))
            found = f"{origin} holds both {known[part]} and {name}"
            expect(known[part] not in names or known[part] == name, found, "one of them")
            known[part] = name
    return [*sets.values()]


def four_of(origin: object, names: Collection[str]) -> dict[str, str]:
    """The names of the arrays of a data set by part: of four arrays, or of two."""
    sets = []
    for named in _families(origin, names):
        train_only = not {*named.values()} & {named[part] for part in PARTS[2:]} & {*names}
        wanted = {part: named[part] for part in (PARTS[:2] if train_only else PARTS)}
        if {*wanted.values()} <= {*names}:
            sets.append(wanted)
    lower = {name.lower(): name for name in names}
    pairs = [pair for pair in PAIRS if {*pair} <= lower.keys()]
    if not sets:
        sets = [{PARTS[0]: lower[x], PARTS[1]: lower[y]} for x, y in pairs]
    if not sets:
        expected = "; or ".join(", ".join(family) for family in (*FAMILIES[:3], *PAIRS[:2]))
        listed = short(", ".join(names), 400) or "(none)"
        raise DataError(f"{origin} holds the arrays {listed}, expected {expected}")
    listed = " and ".join(", ".join(named.values()) for named in sets)
    expect(len(sets) == 1, f"{origin} holds {len(sets)} data sets, {listed}", "one data set")
    return sets[0]
