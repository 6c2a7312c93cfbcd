"""Arrays in files: they come back to the bit, and damage is noticed."""

import hashlib
import io
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import largest_file

from jaxnn import checkpoint
from jaxnn.checkpoint import DamagedFileError
from jaxnn.types import Layer

ARRAYS = {
    "params[0].weight": np.array([[0.1, np.nan, -0.0], [np.inf, 1e-45, 3]], np.float32),
    "now/0/step": np.int32(7),
    "none": np.zeros((2, 0)),
}


def same(found, expected):
    return list(found) == list(expected) and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def test_arrays_come_back_to_the_bit(tmp_path):
    digest = checkpoint.save(tmp_path / "a.npz", ARRAYS)
    assert same(checkpoint.load(tmp_path / "a.npz", digest), ARRAYS)


def test_numpy_reads_the_file(tmp_path):
    checkpoint.save(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert same(dict(archive), ARRAYS)


def test_the_digest_is_that_of_the_file_and_the_same_for_the_same_arrays(tmp_path):
    digests = {checkpoint.save(tmp_path / name, ARRAYS) for name in ("a.npz", "b.npz")}
    content = (tmp_path / "a.npz").read_bytes()
    assert digests == {hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args"])
def test_no_name_of_an_array_means_something_else(tmp_path, name):
    checkpoint.save(tmp_path / "a.npz", {name: np.arange(3)})
    assert same(checkpoint.load(tmp_path / "a.npz"), {name: np.arange(3)})


def test_a_tree_comes_back_whatever_the_types_of_its_leaves(tmp_path):
    tree = (Layer(jnp.ones((2, 3), jnp.bfloat16), jnp.arange(2, dtype=jnp.float8_e4m3fn)), [{}])
    checkpoint.save(tmp_path / "a.npz", checkpoint.named_leaves("now/", tree))
    arrays = checkpoint.load(tmp_path / "a.npz")
    assert list(arrays) == ["now/[0].weight", "now/[0].bias"]
    weight, bias = checkpoint.restore("now/", tree, arrays)[0]
    assert (weight.dtype, bias.dtype) == (jnp.bfloat16, jnp.float8_e4m3fn)
    np.testing.assert_array_equal(weight.astype(float), np.ones((2, 3)))
    np.testing.assert_array_equal(bias.astype(float), [0, 1])


def test_a_tree_with_a_leaf_missing_is_damage():
    with pytest.raises(DamagedFileError, match=r"there is no array 'now/\[1\]'"):
        checkpoint.restore("now/", (1.0, 2.0), {"now/[0]": np.ones(())})


def test_with_the_digest_every_flipped_bit_is_noticed(tmp_path):
    digest = checkpoint.save(tmp_path / "a.npz", ARRAYS)
    content = (tmp_path / "a.npz").read_bytes()
    for bit in range(8 * len(content)):
        with pytest.raises(DamagedFileError, match=r"a\.npz is damaged: its checksum"):
            checkpoint.parse(flipped(content, bit), "a.npz", digest)


def test_without_it_a_flipped_bit_never_changes_an_array(tmp_path):
    # Zip files have fields that say nothing; and an array may be gone, which ``restore`` notices.
    checkpoint.save(tmp_path / "a.npz", ARRAYS)
    content = (tmp_path / "a.npz").read_bytes()
    noticed = 0
    for bit in range(8 * len(content)):
        try:
            found = checkpoint.parse(flipped(content, bit), "a.npz")
        except DamagedFileError:
            noticed += 1
        else:
            assert same(found, {name: ARRAYS[name] for name in found})
    assert noticed > 4 * len(content)


def test_a_file_cut_anywhere_is_damage(tmp_path):
    checkpoint.save(tmp_path / "a.npz", ARRAYS)
    content = (tmp_path / "a.npz").read_bytes()
    for end in range(len(content)):
        with pytest.raises(DamagedFileError, match=r"^a\.npz is damaged, or no \.npz file"):
            checkpoint.parse(content[:end], "a.npz")


def npy_file():
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


def zip_file(name, content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def pickled():
    file = io.BytesIO()
    np.save(file, np.array([print], object))
    return zip_file("a.npy", file.getvalue())


@pytest.mark.parametrize(
    "content",
    [b"text", npy_file(), zip_file("a.txt", "text"), pickled()],
    ids=["text", "npy", "zip of text", "pickle"],
)
def test_other_files_are_refused(content):
    with pytest.raises(DamagedFileError, match=r"^a\.npz is damaged, or no \.npz file"):
        checkpoint.parse(content, "a.npz")


def test_objects_are_never_pickled(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        checkpoint.save(tmp_path / "a.npz", {"a": np.array([print], object)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 10, 400])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, size):
    path = tmp_path / "a.npz"
    checkpoint.save(path, ARRAYS)
    before = path.read_bytes()
    with largest_file(size), pytest.raises(OSError, match=r"File too large: .*a\.npz'$"):
        checkpoint.save(path, {"a": np.zeros(5000)})
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def flipped(content, bit):
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)
