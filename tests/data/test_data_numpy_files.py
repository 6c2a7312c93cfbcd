"""The .npy and .npz readers against what NumPy writes, and against what it would not."""

import io
import pathlib
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxnn.data import DataError, arrays
from jaxnn.data.arrays import read_npy, read_npz


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version)
    return out.getvalue()


def claiming(shape: object, descr: str = "|u1", values: bytes = b"") -> bytes:
    """An .npy file whose header says whatever it likes."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "<i8", "<f2", ">f4", "f8", "?", "U2", "S2"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_what_numpy_writes_is_read(tmp_path, dtype, version):
    array = np.arange(12).reshape(3, 4).astype(dtype)
    (tmp_path / "a.npy").write_bytes(npy(array, version))
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)


def test_fortran_order_is_read(tmp_path):
    array = np.asfortranarray(np.arange(12).reshape(3, 4))
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_both_kinds_of_npz_are_read(tmp_path, save):
    save(tmp_path / "a.npz", x=np.arange(5), y=np.ones((2, 2)))
    arrays = read_npz(tmp_path / "a.npz")
    assert arrays["x"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["y"].tolist() == [[1, 1], [1, 1]]


GOOD = npy(np.arange(6, dtype=np.uint8))
BAD = {
    "empty": (b"", "not a readable .npy file"),
    "text": (b"5,0,4,1,9,2", "not a readable .npy file .*magic"),
    "unknown version": (GOOD[:6] + b"\x09\x00" + GOOD[8:], r"format version \(9, 0\), expected"),
    "header cut": (GOOD[:20], "not a readable .npy file"),
    "header not a dictionary": (
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 4) + b"abc\n",
        "not a readable",
    ),
    "truncated": (GOOD[:-1], r"truncated: holds 5 bytes of values, expected 6 .*shape \(6,\)"),
    "trailing bytes": (GOOD + b"\0", "trailing bytes: holds 7 bytes of values, expected 6"),
    "claims an exabyte": (
        claiming((2**30, 2**30), values=b"\0"),
        "truncated: holds 1 bytes of values, expected 1152921504606846976",
    ),
    "negative sizes": (claiming((-2, -3), values=bytes(6)), r"shape \(-2, -3\), expected .* >= 0"),
    "dates": (npy(np.array(["2026-11-27"], "M8[D]")), "datetime64.*, expected integers or floats"),
    "complex": (npy(np.ones(2, complex)), "dtype complex128, expected integers or floats"),
    "records": (npy(np.ones(2, [("a", "f4")])), "expected integers or floats"),
    "one changed byte in the header": (GOOD.replace(b"}", b" "), "not a readable .npy file"),
    "deep header": (claiming("-" * 5000 + "1"), "not a readable .npy file"),
    "a header of nothing but brackets": (claiming("(" * 3000), "not a readable .npy file"),
    "rank 255": (claiming((1,) * 255, values=b"0"), "not a readable .npy file"),
    "honest but huge": (claiming((0, 2**62, 2**62)), "not a readable .npy file"),
    "strings of no characters": (claiming((2**28,), "<U0"), "dtype <U0, expected"),
    "no bytes a value": (claiming((2**40,), "|V0"), "expected integers or floats"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_npy_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_npy(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_array_in_an_npz_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bad.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=message) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}[x]: ")


class Trap:
    """Unpickling one creates a file."""

    def __init__(self, marker: pathlib.Path):
        self.marker = marker

    def __reduce__(self):
        return pathlib.Path.touch, (self.marker,)


@pytest.fixture
def trap(tmp_path):
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists(), "the trap has to work for the tests to mean anything"
    marker.unlink()
    return Trap(marker)


def write_object_array(path, trap):
    np.save(path, np.array([trap, 1], dtype=object), allow_pickle=True)


def write_raw_pickle(path, trap):
    path.write_bytes(pickle.dumps(trap))


def write_object_archive(path, trap):
    np.savez(path, train_images=np.array([trap, 1], dtype=object))


@pytest.mark.parametrize(
    ("read", "suffix", "write", "message"),
    [
        (read_npy, "npy", write_object_array, "dtype object, .* never unpickled"),
        (read_npy, "npy", write_raw_pickle, "not a readable .npy file"),
        (read_npz, "npz", write_object_archive, "dtype object, .* never unpickled"),
        (read_npz, "npz", write_raw_pickle, "not a readable .npz archive"),
    ],
)
def test_nothing_is_ever_unpickled(tmp_path, trap, read, suffix, write, message):
    path = tmp_path / f"evil.{suffix}"
    write(path, trap)
    with pytest.raises(DataError, match=message):
        read(path)
    assert not trap.marker.exists()


def test_the_loader_itself_would_not_unpickle_either(tmp_path, trap, monkeypatch):
    write_object_array(tmp_path / "evil.npy", trap)
    monkeypatch.setattr(arrays, "_check_header", lambda *header: None)
    with pytest.raises(DataError, match="allow_pickle=False"):
        read_npy(tmp_path / "evil.npy")
    assert not trap.marker.exists()


def test_a_compressed_array_over_the_limit_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, x=np.zeros(2**24, np.uint8))
    monkeypatch.setattr(arrays, "MAX_INFLATED", 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(
            DataError, match=r"arrays claim 16777\d+ bytes, expected at most 1048576"
        ):
            read_npz(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_an_array_stored_without_compression_has_no_limit(tmp_path, monkeypatch):
    np.savez(tmp_path / "large.npz", x=np.zeros(2000, np.uint8))
    monkeypatch.setattr(arrays, "MAX_INFLATED", 1000)
    assert read_npz(tmp_path / "large.npz")["x"].shape == (2000,)


def test_corrupt_values_in_an_npz_are_one_clear_line(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(100, dtype=np.uint8))
    path.write_bytes(path.read_bytes().replace(bytes(range(100)), bytes(100)))
    with pytest.raises(DataError, match=r"a.npz\[x\]: not a readable .npy file .*CRC"):
        read_npz(path)


def test_an_npz_cut_short_is_one_clear_line(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(100))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"not a readable .npz archive"):
        read_npz(path)


def test_an_encrypted_npz_is_one_clear_line(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3))
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        read_npz(path)


def test_an_unusual_compression_method_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", GOOD)
    with pytest.raises(DataError, match="compression method 12, expected stored or deflated"):
        read_npz(path)


def test_of_an_archive_the_chosen_arrays_alone_are_decoded(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(3), bad=np.array([None]), worse=np.zeros(3))
    path.write_bytes(path.read_bytes().replace(bytes(24), bytes(23) + b"1"))  # a wrong checksum
    assert read_npz(path, lambda names: {"found": "x"})["found"].tolist() == [0, 1, 2]


def test_the_limit_is_on_the_sum_of_the_compressed_arrays(tmp_path):
    path = tmp_path / "a.npz"
    large = {f"x{i}": np.zeros(2**24, np.uint8) for i in range(5)}
    np.savez_compressed(path, allow_pickle=False, **large)
    assert sorted(read_npz(path, lambda names: {n: n for n in ["x0", "x1"]})) == ["x0", "x1"]
    with pytest.raises(DataError, match=r"claim 8388\d+ bytes, expected at most 67108864, or no"):
        read_npz(path)


def test_an_array_that_an_archive_holds_twice_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy(np.zeros(3)))
    with pytest.raises(DataError, match=r"holds the array x twice, expected once"):
        read_npz(path)


def test_a_name_that_is_no_text_is_one_clear_line(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ü.npy", GOOD)
    content = bytearray(path.read_bytes())
    content[content.rindex("ü".encode()) + 1] = 0x41
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable .npz archive \('utf-8' codec can't"):
        read_npz(path)


def test_a_header_by_python_2_is_read_without_a_warning(tmp_path):
    (tmp_path / "a.npy").write_bytes(claiming("(3L,)", values=b"abc"))
    assert read_npy(tmp_path / "a.npy").tolist() == [97, 98, 99]
