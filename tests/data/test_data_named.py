"""The named data sets: where they are looked for, their checksums, and the real files."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from jaxnn.data import DataError, MissingDataError, catalog, default_dir, load
from jaxnn.data.catalog import FASHION_MNIST, MNIST, NamedSet, RemoteFile

REAL = os.environ.get("JAXNN_DATA", "")


@pytest.fixture
def small(idx_files, server) -> NamedSet:
    """A named set of 20 + 10 examples that ``server`` has."""
    for name, content in idx_files.items():
        server.routes[f"/{name}.gz"] = answer(gzip.compress(content))
    files = (
        RemoteFile(name, len(content), hashlib.sha256(content).hexdigest())
        for name, content in idx_files.items()
    )
    return NamedSet("small", tuple(files), (server.url,))


def answer(body: bytes):
    def route(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return route


def test_the_first_load_downloads_into_the_folder_of_the_set(small, server, tmp_path, arrays):
    splits = catalog.load(small, tmp_path)
    np.testing.assert_array_equal(splits.train.inputs, arrays["train_images"].reshape(20, 6))
    np.testing.assert_array_equal(splits.test.targets, arrays["test_labels"])
    names = [f"{file.name}.gz" for file in small.files]
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == sorted(names)
    assert server.requested == [f"/{name}" for name in names]


def test_the_second_load_leaves_the_network_alone(small, server, tmp_path):
    catalog.load(small, tmp_path)
    server.requested.clear()
    catalog.load(small, tmp_path)
    assert server.requested == []


def test_only_what_is_missing_is_downloaded(small, server, tmp_path):
    catalog.load(small, tmp_path)
    server.requested.clear()
    (tmp_path / "small" / "t10k-labels-idx1-ubyte.gz").unlink()
    catalog.load(small, tmp_path)
    assert server.requested == ["/t10k-labels-idx1-ubyte.gz"]


def test_decompressed_files_are_used_as_they_are(small, server, tmp_path, idx_files, arrays):
    folder = tmp_path / "small"
    folder.mkdir()
    for name, content in idx_files.items():
        (folder / name).write_bytes(content)
    splits = catalog.load(small, tmp_path, download_missing=False)
    np.testing.assert_array_equal(splits.train.targets, arrays["train_labels"])


def test_without_downloads_the_message_names_files_addresses_and_folder(small, server, tmp_path):
    catalog.load(small, tmp_path)
    server.requested.clear()
    (tmp_path / "small" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingDataError) as caught:
        catalog.load(small, tmp_path, download_missing=False)
    assert str(caught.value) == (
        f"small is not complete in {tmp_path / 'small'}: download t10k-labels-idx1-ubyte.gz by "
        f"hand from {server.url} into {tmp_path / 'small'}"
    )
    assert server.requested == []


CORRUPT = {
    "other values": (
        lambda c: gzip.compress(c[:-1] + b"\x07"),
        "SHA-256 is .*, expected [0-9a-f]{64}",
    ),
    "cut gzip": (lambda c: gzip.compress(c)[:-9], "truncated gzip data"),
    "no gzip": (lambda c: b"<html>not found</html>", "expected an IDX file"),
    "longer": (lambda c: gzip.compress(c + b"\0"), "more than the 136 bytes expected"),
    "claims more": (
        lambda c: gzip.compress(c[:4] + b"\x3f" + c[5:]),
        "claims 63.* expected at most 136 in a compressed",
    ),
    "empty": (lambda c: b"", "expected an IDX file"),
}


@pytest.mark.parametrize(("corrupt", "message"), CORRUPT.values(), ids=CORRUPT)
def test_a_corrupt_file_is_named_and_said_to_be_deleted(
    small, tmp_path, idx_files, corrupt, message
):
    catalog.load(small, tmp_path)
    name = "train-images-idx3-ubyte"
    path = tmp_path / "small" / f"{name}.gz"
    path.write_bytes(corrupt(idx_files[name]))
    with pytest.raises(DataError, match=message) as caught:
        catalog.load(small, tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(": delete this file, it is then downloaded again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"JAXNN_DATA": "/data", "XDG_CACHE_HOME": "/cache"}, "/data"),
        ({"JAXNN_DATA": "~/data"}, "/home/ada/data"),
        ({"JAXNN_DATA": "", "XDG_CACHE_HOME": "/cache"}, "/cache/jaxnn"),
        ({"XDG_CACHE_HOME": ""}, "/home/ada/.cache/jaxnn"),
        ({}, "/home/ada/.cache/jaxnn"),
    ],
)
def test_the_default_folder(monkeypatch, environment, expected):
    for name in ("JAXNN_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/ada", **environment}.items():
        monkeypatch.setenv(name, value)
    assert default_dir() == Path(expected)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_a_missing_named_set_says_what_to_download_from_where(tmp_path, monkeypatch, name):
    monkeypatch.setenv("JAXNN_DATA", str(tmp_path))
    with pytest.raises(MissingDataError) as caught:
        load(name, download=False)
    named = {"mnist": MNIST, "fashion_mnist": FASHION_MNIST}[name]
    assert len(named.mirrors) == 2
    for part in (
        *(f"{file}.gz" for file in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte")),
        *named.mirrors,
        str(tmp_path / name),
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("named", [MNIST, FASHION_MNIST], ids=["mnist", "fashion_mnist"])
def test_mirrors_are_secure_folders(named):
    assert all(m.startswith("https://") and m.endswith("/") for m in named.mirrors)


# Examples of the classes 0..9, and the first five labels. MNIST as published with the database;
# Fashion-MNIST is balanced by design (Xiao et al., 2017).
PUBLISHED = {
    "mnist": (
        ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], [5, 0, 4, 1, 9]),
        ([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], [7, 2, 1, 0, 4]),
    ),
    "fashion_mnist": (
        ([6000] * 10, [9, 0, 0, 3, 0]),
        ([1000] * 10, [9, 2, 1, 1, 6]),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_files_are_as_published(name):
    if not (Path(REAL) / name).is_dir() or not REAL:
        pytest.skip(f"JAXNN_DATA is {REAL!r}, which has no {name}")
    splits = load(name, Path(REAL), download=False)
    for data, (counts, first) in zip(splits, PUBLISHED[name], strict=True):
        assert data.inputs.shape == (sum(counts), 784)
        assert data.inputs.dtype == np.uint8
        assert np.bincount(data.targets).tolist() == counts
        assert data.targets[:5].tolist() == first
        np.testing.assert_array_equal(data.scale, np.float32(1 / 255), strict=True)
