"""The IDX reader against bytes made by hand, good, broken and malicious."""

import gzip
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from jaxnn.data import DataError, arrays


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


GOOD = header(0x08, 2, 3) + bytes(range(6))


@pytest.mark.parametrize(
    ("code", "struct_format", "values"),
    [
        (0x08, "B", [0, 1, 255]),
        (0x09, "b", [-128, 0, 127]),
        (0x0B, "h", [-300, 0, 300]),
        (0x0C, "i", [-70_000, 0, 70_000]),
        (0x0D, "f", [-0.5, 0.0, 1.25]),
        (0x0E, "d", [-0.5, 0.0, 1e300]),
    ],
)
def test_every_type_code_is_read_big_endian(tmp_path, code, struct_format, values):
    path = tmp_path / "file"
    path.write_bytes(header(code, 3) + struct.pack(f">3{struct_format}", *values))
    assert arrays.read_idx(path).tolist() == values


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 1, 2, 1)])
def test_values_are_in_row_major_order(tmp_path, shape):
    path = tmp_path / "file"
    path.write_bytes(header(0x08, *shape) + bytes(range(6)))
    np.testing.assert_array_equal(arrays.read_idx(path), np.arange(6).reshape(shape))


@pytest.mark.parametrize(
    "compressed",
    [
        gzip.compress(GOOD),
        gzip.compress(GOOD[:7]) + gzip.compress(GOOD[7:]),
        gzip.compress(GOOD) + b"\0" * 100,
    ],
    ids=["one member", "two members", "zero padding"],
)
def test_gzip_is_recognised_by_content(tmp_path, compressed):
    path = tmp_path / "no-suffix"
    path.write_bytes(compressed)
    assert arrays.read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_that_lost_its_compression_but_not_its_name_is_read(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(GOOD)
    assert arrays.read_idx(path).tolist() == [[0, 1, 2], [3, 4, 5]]


BAD = {
    "empty": (b"", r"\(none\), expected an IDX file"),
    "three bytes": (GOOD[:3], "00 00 08, expected an IDX file"),
    "wrong magic": (b"\x01" + GOOD[1:], "01 00 08 02, expected an IDX file"),
    "text": (b"<html>", "3c 68 74 6d, expected an IDX file"),
    "unknown type code": (header(0x0A, 1) + b"\0", "type code is 0x0a, expected one of 0x08"),
    "rank 0": (header(0x08) + b"\0", "rank is 0, expected 1 to 32"),
    "short header": (GOOD[:10], "truncated after 10 bytes, expected an IDX header of 12"),
    "truncated": (GOOD[:-1], r"truncated: holds 17 bytes, expected 18 for the shape \(2, 3\)"),
    "no values": (GOOD[:12], "truncated: holds 12 bytes, expected 18"),
    "trailing bytes": (GOOD + b"\0", "trailing bytes: holds 19 bytes, expected 18"),
    "rank 255": (header(0x08, *[1] * 255) + b"\0", "rank is 255, expected 1 to 32"),
    "sizes of no array": (header(0x08, 0, *[2**32 - 1] * 3), r"shape \(0, 429.*no array's"),
    "claims more than memory": (header(0x0E, *[2**32 - 1] * 3) + b"\0", "truncated"),
}


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bad-file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        arrays.read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def flip(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0xFF
    return bytes(changed)


BIG = header(0x08, 5000) + np.random.default_rng(0).bytes(5000)
BAD_GZIP = {
    "cut in the middle": (gzip.compress(BIG)[:2000], "truncated gzip data"),
    "cut in the checksum": (gzip.compress(BIG)[:-4], "truncated gzip data"),
    "cut in the gzip header": (gzip.compress(BIG)[:5], "truncated gzip data"),
    "wrong checksum": (flip(gzip.compress(BIG), -6), "corrupt gzip data"),
    "wrong block": (flip(gzip.compress(BIG), 10), "corrupt gzip data"),
    "trailing text": (gzip.compress(BIG) + b"text", "corrupt gzip data"),
    "not IDX inside": (gzip.compress(b"text"), "expected an IDX file"),
    "too short inside": (gzip.compress(BIG[:-1]), "truncated: holds 5007 bytes, expected 5008"),
    "too long inside": (gzip.compress(BIG + b"\0"), "more than the 5008 bytes expected"),
    "second member": (
        gzip.compress(BIG) + gzip.compress(b"\0"),
        "more than the 5008 bytes expected",
    ),
}


@pytest.mark.parametrize(("content", "message"), BAD_GZIP.values(), ids=BAD_GZIP)
def test_a_bad_gzip_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "bad-file.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        arrays.read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


ZEROS = gzip.compress(bytes(2**24), 1)
BOMBS = {
    "more than the header claims": (
        gzip.compress(header(0x08, 10, 784)) + ZEROS * 64,
        "more than the 7852 bytes expected, refused",
    ),
    "a header that claims it all": (
        gzip.compress(header(0x08, 2**31)) + ZEROS * 64,
        r"claims 2147483656 bytes .* expected at most \d{9} in a compressed file",
    ),
    "no IDX header": (ZEROS * 64, "expected one of 0x08"),
}


@pytest.mark.parametrize(("bomb", "message"), BOMBS.values(), ids=BOMBS)
def test_a_gzip_bomb_is_refused_before_it_fills_memory(tmp_path, bomb, message):
    path = tmp_path / "bomb.gz"
    path.write_bytes(bomb)  # a gigabyte of zeros in 5 MB
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            arrays.read_idx(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21


def test_a_compressed_file_may_be_held_to_a_smaller_size(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(GOOD))
    assert arrays.read_idx(path, limit=18).shape == (2, 3)
    with pytest.raises(DataError, match=r"claims 18 bytes .* expected at most 17"):
        arrays.read_idx(path, limit=17)


def test_the_gzip_checksum_is_verified(tmp_path):
    path = tmp_path / "file.gz"
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(GOOD) + raw.flush()
    start = b"\x1f\x8b\x08" + bytes(7)
    end = struct.pack("<II", zlib.crc32(GOOD), len(GOOD))
    path.write_bytes(start + body + end)
    assert arrays.read_idx(path).shape == (2, 3)
    path.write_bytes(start + body + flip(end, 0))
    with pytest.raises(DataError, match="CRC"):
        arrays.read_idx(path)
