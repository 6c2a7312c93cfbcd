"""The data sets known by name: MNIST, Fashion-MNIST, and the sets of scikit-learn.

A download is verified before the file gets its name.
"""

import hashlib
import http.client
import importlib.util
import io
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnn.data.arrays import IDX_NAMES, find_idx, gunzip, read_idx
from jaxnn.data.splits import PARTS, DataError, MissingDataError, expect, make_splits
from jaxnn.files import atomic_write, decoding, open_regular
from jaxnn.types import Splits, require

Report = Callable[[str, int, int | None], None]
"""(file name, received bytes, total bytes or None if the server announces no size) -> None."""

_CHUNK = 2**18
_LEAST_IN_TIMEOUT = 2**14  # fewer bytes within the timeout: the connection counts as stalled


class RemoteFile(NamedTuple):
    """A file and the required content once decompressed."""

    name: str  # without .gz
    size: int  # bytes
    sha256: str


class NamedSet(NamedTuple):
    """A data set of four IDX files with labels 0..9."""

    name: str
    files: tuple[RemoteFile, ...]  # in the order of PARTS
    mirrors: tuple[str, ...]


def _files(*checksums: str) -> tuple[RemoteFile, ...]:
    # Header and values: 60,000 and 10,000 images of 28 x 28 bytes, a byte per label.
    sizes = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
    return tuple(map(RemoteFile, IDX_NAMES.values(), sizes, checksums))


MNIST = NamedSet(
    "mnist",
    _files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
)

FASHION_MNIST = NamedSet(
    "fashion_mnist",
    _files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    (
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)

NAMED = {named.name: named for named in (MNIST, FASHION_MNIST)}

OF_SCIKIT_LEARN = ("iris", "wine", "breast_cancer", "diabetes")


def named(
    name: str, data_dir: Path, download_missing: bool, progress: Report | None, **options: Any
) -> Splits:
    """The set of a name; ``options`` are ``regression`` and ``flatten`` of ``make_splits``."""
    if name == "digits":
        return digits(**options)
    if name in OF_SCIKIT_LEARN:
        return of_scikit_learn(name, **options)
    if name == "california_housing":
        return california_housing(data_dir / name, **options)
    dataset = NAMED[name]
    return load(dataset, data_dir, download_missing=download_missing, progress=progress, **options)


def load(
    dataset: NamedSet,
    data_dir: Path,
    *,
    download_missing: bool = True,
    progress: Report | None = None,
    **options: Any,
) -> Splits:
    """Reads the set from ``data_dir/NAME``, after a download of missing files.

    Every load verifies the checksum of every file; the files are read in parallel. Errors are as
    those of ``jaxnn.data.load``.
    """
    folder = data_dir / dataset.name
    missing = [file for file in dataset.files if find_idx(folder, file.name) is None]
    if missing and not download_missing:
        remedy = by_hand(missing, dataset.mirrors, folder)
        raise MissingDataError(f"{dataset.name} is not complete in {folder}: {remedy}")
    if missing:
        fetch(missing, dataset.mirrors, folder, progress=progress)
    with ThreadPoolExecutor(len(dataset.files)) as pool:
        arrays = pool.map(lambda file: _read(folder, file), dataset.files)
        four: dict[str, np.ndarray] = dict(zip(PARTS, arrays, strict=True))
        return make_splits(four, folder, scale=1 / 255, classes=10, **options)


def _read(folder: Path, file: RemoteFile) -> np.ndarray:
    path = find_idx(folder, file.name) or folder / f"{file.name}.gz"
    try:
        return read_idx(path, file.size, lambda content: verify(content, file, path))
    except DataError as error:
        raise DataError(f"{error}: delete this file, it is then downloaded again") from None


def digits(**options: Any) -> Splits:
    """The 8x8 digits, pixels 0..16 in uint8, in a fixed split: 1,437 to train, 360 to test.

    The test set has 36 images of each class, the first of the class in
    ``numpy.random.default_rng(0).permutation(1797)``; both sets keep scikit-learn's order.

    Raises:
      MissingDataError: scikit-learn is not installed.
    """
    table = digits_table()
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    test = np.zeros(len(labels), bool)
    order = np.random.default_rng(0).permutation(len(labels))
    for digit in range(10):
        test[order[labels[order] == digit][:36]] = True
    arrays = (images[~test], labels[~test], images[test], labels[test])
    four = dict(zip(PARTS, arrays, strict=True))
    return make_splits(four, "digits", scale=1 / 16, classes=10, **options)


def digits_table() -> np.ndarray:
    """All digits in scikit-learn's order, [1797, 65] in uint8: 64 pixels, then the label.

    Reads scikit-learn's file; an import of scikit-learn would take longer than training.
    """
    try:
        require("search", "sklearn")
    except ModuleNotFoundError as error:
        raise MissingDataError(f"digits are part of scikit-learn: {error}") from None
    package = importlib.util.find_spec("sklearn")
    for folder in (package and package.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return np.loadtxt(path, np.uint8, delimiter=",")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.uint8)


def of_scikit_learn(name: str, **options: Any) -> Splits:
    """Fisher's irises, and the further tables of scikit-learn, in a split in five by seed 0.

    Raises:
      MissingDataError: scikit-learn is not installed.
    """
    try:
        require("data", "sklearn")
    except ModuleNotFoundError as error:
        raise MissingDataError(f"{name} is part of scikit-learn: {error}") from None
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    two = {"train_images": found.data, "train_labels": found.target}
    names = tuple(map(str, getattr(found, "target_names", ())))
    return make_splits(two, name, names=names, **options)


_HOUSING = "https://ndownloader.figshare.com/files/5976036"


def california_housing(folder: Path, **options: Any) -> Splits:
    """20,640 districts: the table of ``sklearn.datasets.fetch_california_housing``, where at hand.

    The file is ``cal_housing.tgz``, or the unpacked ``cal_housing.data``: the copy that
    scikit-learn makes is a pickle.

    Raises:
      MissingDataError: neither file is in the folder.
      DataError: a file of other content.
    """
    packed, plain = folder / "cal_housing.tgz", folder / "cal_housing.data"
    path = plain if plain.exists() else packed
    if not path.exists():
        raise MissingDataError(
            f"california_housing is not at hand: expected {packed}, from {_HOUSING} (the copy of "
            "scikit-learn is a pickle, which is never read)"
        )
    with open_regular(path) as file, decoding(f"{path}: not California housing", DataError):
        content = file.read()
        if path is packed:
            with tarfile.open(fileobj=io.BytesIO(gunzip(io.BytesIO(content), 2**24, path))) as t:
                member = t.extractfile("CaliforniaHousing/cal_housing.data")
                content = member.read() if member else b""
        table = np.loadtxt(io.BytesIO(content), delimiter=",", ndmin=2)
        expect(table.shape[1] == 9, f"{path} has {table.shape[1]} columns", "9")
    longitude, latitude, age, rooms, bedrooms, people, homes, income, value = table.T
    columns = income, age, rooms / homes, bedrooms / homes, people, people / homes
    inputs = np.column_stack([*columns, latitude, longitude])
    return make_splits({"train_images": inputs, "train_labels": value / 1e5}, path, **options)


# Downloads.


def fetch(
    files: Sequence[RemoteFile],
    mirrors: Sequence[str],
    folder: Path,
    *,
    timeout: float = 30.0,
    progress: Report | None = None,
) -> None:
    """Downloads ``NAME.gz`` for every file into ``folder``, created if need be.

    After any failure of a mirror (down, an HTTP error, stalled, too long, truncated, wrong bytes)
    the next mirror is tried; a mirror that worked comes first for the next file. A file appears in
    ``folder`` whole and verified or not at all: several processes may fetch at the same time.
    A connection is stalled after ``timeout`` seconds of silence. Mirrors end with a slash.

    Raises:
      MissingDataError: no mirror has a good copy; the message lists the files to download by hand.
      DataError: the folder cannot be written.
    """
    mirrors = list(mirrors)
    with _folder_for_files(folder):
        for done, file in enumerate(files):
            failures = []
            for mirror in mirrors:
                try:
                    content = _download(f"{mirror}{file.name}.gz", file, timeout, progress)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failures.append(f"{mirror}: {_reason(error)}")
                else:
                    mirrors = [mirror, *(other for other in mirrors if other != mirror)]
                    break
            else:
                reasons, remedy = "; ".join(failures), by_hand(files[done:], mirrors, folder)
                raise MissingDataError(f"cannot download {file.name}.gz ({reasons}): {remedy}")
            with _writing_to(folder), atomic_write(folder / f"{file.name}.gz") as out:
                out.write(content)


def by_hand(files: Sequence[RemoteFile], mirrors: Sequence[str], folder: Path) -> str:
    """Instructions for a user without a connection."""
    names = ", ".join(f"{file.name}.gz" for file in files)
    return f"download {names} by hand from {' or '.join(mirrors)} into {folder}"


def _download(url: str, file: RemoteFile, timeout: float, progress: Report | None) -> bytes:
    """The compressed bytes at ``url``, verified."""
    # gzip adds at most a few bytes per 64 KiB to incompressible data.
    limit = file.size + file.size // 100 + 4096
    compressed = bytearray()
    request = urllib.request.Request(url, headers={"User-Agent": "jaxnn"})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else None
        if total is not None and total > limit:
            raise DataError(f"announces {total} bytes, expected at most {limit}")
        before, since = 0, time.monotonic()
        while piece := response.read1(_CHUNK):
            compressed += piece
            if len(compressed) > limit:
                raise DataError(f"sent more than the {limit} bytes expected")
            if progress is not None:
                progress(f"{file.name}.gz", len(compressed), total)
            # The socket's timeout starts again with every byte: a trickle would never time out.
            if time.monotonic() - since > timeout:
                if len(compressed) - before < _LEAST_IN_TIMEOUT:
                    raise TimeoutError(f"stalled after {len(compressed)} bytes")
                before, since = len(compressed), time.monotonic()
    if total is not None and len(compressed) != total:
        raise DataError(f"truncated: sent {len(compressed)} of {total} bytes")
    content = gunzip(io.BytesIO(compressed), file.size, url)
    verify(content, file, url)
    return bytes(compressed)


def verify(content: bytes, file: RemoteFile, name: object) -> None:
    """Checks that ``content`` has the checksum of ``file``; ``name`` is for messages."""
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != file.sha256:
        raise DataError(f"{name}: the content's SHA-256 is {checksum}, expected {file.sha256}")


@contextmanager
def _folder_for_files(folder: Path) -> Iterator[None]:
    """A folder, created if missing; without a file at the end, what was created is removed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        expected = "a writable folder (data_dir or the environment variable JAXNN_DATA)"
        reason = error.strerror or error
        raise DataError(
            f"cannot write into the data folder {folder}: {reason}, expected {expected}"
        ) from None


def _reason(error: BaseException) -> str:
    """The reason of a mirror's failure, in one line."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # the error is also the response
    elif isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    return " ".join(str(error).split()) or type(error).__name__
