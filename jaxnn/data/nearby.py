"""Advice about data in foreign formats: the files found, and lines of NumPy for the conversion.

The lines write ``data.npz``, an archive for ``jaxnn.data.load``.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jaxnn.files import open_regular


class Kind(NamedTuple):
    """Files of a kind, and expressions for the arrays in a file; without expressions, a remedy."""

    names: str  # a regular expression of whole names
    remedy: str
    read: str = ""  # {} is the name of the file
    images: str = ""  # {} is the file's content
    labels: str = ""
    are_both: bool = False  # whether the content is a pair of training and test examples


_TABLE = "{}[:, 1:]", "{}[:, 0].astype(int)"
_FIRST, _TRUST = "labels in the first column", "pickles run code: trust the files"
_BYTES = "pathlib.Path({}).read_bytes()"
_KINDS = (
    Kind(r"(train|t10k)-(images|labels)[-.]idx\d-ubyte.*", "give the folder of the four files"),
    Kind(r".*[-.]idx\d-.*", "rename the four files of a set, or write the arrays into an .npz"),
    Kind(r".*\.npz", "give the path of the file"),
    Kind(r".*\.csv(\.gz)?", _FIRST, "np.loadtxt({}, delimiter=',', skiprows=1)", *_TABLE),
    Kind(r".*\.parquet", _FIRST, "pandas.read_parquet({}).to_numpy()", *_TABLE),
    *(
        Kind(
            rf"mnist\.pkl{end}", f"without the validation examples; {_TRUST}",
            f"pickle.loads({content}, encoding='latin1')[::2]", "{}[0]", "{}[1]", are_both=True,
        )
        for end, content in (("", _BYTES), (r"\.gz", f"gzip.decompress({_BYTES})"))
    ),
    Kind(
        r".*\.(pkl|pickle)(\.(gz|bz2|xz))?", f"{_FIRST}; {_TRUST}",
        "pandas.read_pickle({}).to_numpy()", *_TABLE,
    ),
    Kind(
        "data_batch_.|test_batch", _TRUST,
        f"[pickle.loads({_BYTES.format('p')}, encoding='bytes') for p in sorted(glob.glob({{}}))]",
        "np.concatenate([batch[b'data'] for batch in {}])",
        "np.concatenate([batch[b'labels'] for batch in {}])",
    ),
    Kind(
        r".*_32x32\.mat", "SVHN: the label 10 is the digit 0", "scipy.io.loadmat({})",
        "np.moveaxis({}['X'], -1, 0)", "{}['y'].ravel() % 10",
    ),
    Kind(
        r".*\.mat", "examples in X, labels in y", "scipy.io.loadmat({})", "{}['X']",
        "{}['y'].ravel()",
    ),
    Kind(
        r".*\.(png|jpe?g)", "a folder per class",
        "[(PIL.Image.open(p), p.parent.name) for p in sorted(pathlib.Path({}).glob('*/*.*'))]",
        "np.stack([image for image, _ in {}])",
        "np.unique([name for _, name in {}], return_inverse=True)[1]",
    ),
    Kind(
        r"[^.].*", "write the arrays into an .npz: np.savez('data.npz', x_train=..., y_train=..., "
        "x_test=..., y_test=...)",
    ),
)  # fmt: skip


def advice(path: Path) -> str:
    """The files of the first kind at or below a path, and a remedy: "; found ..." or ""."""
    files = [*islice(_below(path), 1000)] if path.is_dir() else [path]
    for kind in _KINDS:
        if found := [file for file in files if re.fullmatch(kind.names, file.name, re.IGNORECASE)]:
            names = [os.path.relpath(file, path) if file != path else file.name for file in found]
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            remedy = f"{_lines(kind, found)} ({kind.remedy})" if kind.read else kind.remedy
            return f"; found {', '.join(names[:3])}{more}: {remedy}"
    return ""


def _below(folder: Path) -> Iterator[Path]:
    """The files in a folder, then the files in the folders below."""
    folders = [folder]
    for each in folders:
        for entry in sorted(os.scandir(each), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                folders.append(each / entry.name)
            else:
                yield each / entry.name


def _lines(kind: Kind, found: list[Path]) -> str:
    """Lines of NumPy: for training and test files, or for the shuffled rows of a single file."""
    if "Image" in kind.read:  # the files of a class are in a folder, the classes in the data's
        found = list(dict.fromkeys(file.parent.parent for file in found))
    if "glob.glob" in kind.read:  # a file for each part of a split
        found = [file.with_name(re.sub("_.$", "_?", file.name)) for file in found]
    splits = [[f for f in found if re.search(p, f.name)] for p in ("train|data_batch", "test")]
    files = [split[0] for split in splits] if all(splits) else found[:1]
    if len({*map(_columns, files)}) > 1:  # such as Kaggle's test.csv, without labels
        files = files[:1]
    read = ", ".join(kind.read.format(repr(str(file))) for file in files)
    first, sources = f"a, b = {read}", (("a", ""), ("b", ""))
    if len(files) == 1 and not kind.are_both:
        rows = f"np.random.default_rng(0).permutation(len({kind.labels.format('a')}))"
        first, sources = f"a = {read}; i = {rows}", (("a", "[i[::2]]"), ("a", "[i[1::2]]"))
    arrays = ", ".join(
        f"{name}_{split}={expression.format(variable)}{rows}"
        for split, (variable, rows) in zip(("train", "test"), sources, strict=True)
        for name, expression in (("x", kind.images), ("y", kind.labels))
    )
    return f"{first}; np.savez('data.npz', {arrays})"


def _columns(path: Path) -> int:
    """The number of commas in the first line of a CSV file; 0 of another file."""
    line = b""
    if re.search(r"\.csv(\.gz)?$", path.name, re.IGNORECASE):
        with suppress(OSError, EOFError, zlib.error), open_regular(path) as file:
            compressed = path.suffix.lower() == ".gz"
            line = (gzip.GzipFile(fileobj=file) if compressed else file).readline(2**20)
    return line.count(b",")
