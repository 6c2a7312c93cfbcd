"""Files: written whole or not at all; arrays come back to the bit, and damage is noticed."""

import csv
import errno
import json
import os
import re
import stat
import subprocess
import sys
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import largest_file
from safetensors import safe_open
from safetensors.numpy import save

from jaxnn import files
from jaxnn.files import DamagedFileError, atomic_write, locked, sync_folder
from jaxnn.types import Layer


@pytest.mark.parametrize(("mode", "content"), [("wb", b"\x00\r\n\xff"), ("w", "a\r\nb\n\u03b7")])
def test_the_content_arrives_unchanged(tmp_path, mode, content):
    with atomic_write(tmp_path / "out", mode) as file:
        file.write(content)
    expected = content if mode == "wb" else content.encode()
    assert (tmp_path / "out").read_bytes() == expected


def test_an_existing_file_is_replaced_only_at_the_end(tmp_path):
    path = tmp_path / "out"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_nothing_but_the_file_stays(tmp_path):
    with atomic_write(tmp_path / "out") as file:
        file.write(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [ValueError, OSError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, failure):
    path = tmp_path / "out"
    path.write_text("old")

    def fail_half_way():
        with atomic_write(path, "w") as file:
            file.write("half")
            raise failure

    with pytest.raises(failure):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_rename_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError), atomic_write(tmp_path / "out") as file:
        file.write(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_a_file_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError), atomic_write(tmp_path / "file" / "out"):
        pass
    assert (tmp_path / "file").read_text() == "kept"


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "missing" / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "out"
    with atomic_write(path, "w") as first:
        first.write("first")
        with atomic_write(path, "w") as second:
            second.write("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


@pytest.mark.parametrize("write", [np.save, lambda file, array: file.write(array.tobytes())])
def test_a_full_disk_is_a_line_with_the_file(tmp_path, write):
    with (
        largest_file(1000),
        pytest.raises(OSError, match=re.escape(str(tmp_path / "out"))),
        atomic_write(tmp_path / "out") as file,
    ):
        write(file, np.zeros(1000))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in (".0123456789abcdef.tmp", ".0123456789abcdef.txt", "0123456789abcdef.tmp"):
        (tmp_path / name).write_text("half")
    with atomic_write(tmp_path / "out") as file:
        file.write(b"x")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".0123456789abcdef.txt", "0123456789abcdef.tmp", "out"]


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
input()
"""


@contextmanager
def held_by_another_process(path):
    command = [sys.executable, "-c", HOLD, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"locked\n"
        yield
        process.stdin.close()


def test_what_another_process_is_writing_stays(tmp_path):
    path = tmp_path / ".0123456789abcdef.tmp"
    with held_by_another_process(path):
        with atomic_write(tmp_path / "out") as file:
            file.write(b"x")
        assert path.exists()


def test_a_lock_keeps_other_processes_out_and_leaves_no_file(tmp_path):
    path = tmp_path / ".lock"
    with (
        held_by_another_process(path),
        pytest.raises(BlockingIOError, match="in use by another process"),
        locked(path),
    ):
        pytest.fail("two processes have the lock")
    for _ in range(2):
        with locked(path):
            assert path.exists()
            with pytest.raises(BlockingIOError), locked(path):
                pytest.fail("the lock was taken twice")
        assert not path.exists()


def test_permissions_are_those_of_a_plain_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_write(tmp_path / "out") as file:
        file.write(b"x")
    plain, out = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "out"))
    assert out == plain


def test_the_csv_module_writes_its_own_line_ends(tmp_path):
    with atomic_write(tmp_path / "out", "w") as file:
        csv.writer(file).writerow(["a", "b"])
    assert (tmp_path / "out").read_bytes() == b"a,b\r\n"


@pytest.mark.parametrize("mode", ["r", "a", "w+", "x"])
def test_other_modes_are_refused(tmp_path, mode):
    with (
        pytest.raises(ValueError, match=r"mode is .* expected 'wb' or 'w'"),
        atomic_write(tmp_path / "out", mode),
    ):
        pass


def test_the_content_and_then_the_new_name_are_on_the_disk_at_the_end(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, sorted(path.suffix for path in tmp_path.iterdir())))

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_write(tmp_path / "out") as file:
        file.write(b"x")
    assert synced == [(False, [".tmp"]), (True, [""])]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_system_that_cannot_sync_a_folder_is_no_failure(tmp_path, monkeypatch, number):
    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    sync_folder(tmp_path)


def test_a_disk_that_fails_is_one(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: '{path}'"),
        (OSError(errno.EACCES, "Permission denied", "another"), "Permission denied: 'another'"),
        (OSError("a message without a number"), "a message without a number: '{path}'"),
    ],
)
def test_errors_of_the_system_name_the_file(tmp_path, error, said):
    path = tmp_path / "out"
    with pytest.raises(OSError) as raised, atomic_write(path):
        raise error
    message = str(raised.value).removeprefix(f"[Errno {error.errno}] ")
    assert message == said.format(path=path)


ARRAYS = {
    "params[0].weight": np.array([[0.1, np.nan, -0.0], [np.inf, 1e-45, 3]], np.float32),
    "now/0/step": np.array(7, np.int32),
    "none": np.zeros((2, 0)),
}
MANIFEST = {"what": "an example", "scale": 1 / 255, "list": [1, None]}


def same(found, expected):
    return set(found) == set(expected) and all(
        found[name].dtype == array.dtype
        and found[name].shape == array.shape
        and found[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )


def test_arrays_and_manifest_come_back_to_the_bit():
    content, digest = files.pack(ARRAYS, MANIFEST)
    manifest, arrays = files.unpack(content, "origin", digest)
    assert manifest == MANIFEST
    assert same(arrays, ARRAYS)


TYPES = (
    "bool", "int8", "uint64", "float16", "float64", "complex64", "complex128", "int4",
    "bfloat16", "float8_e4m3fn", "float8_e4m3b11fnuz",
)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
def test_arrays_of_any_type_come_back_and_can_be_changed(dtype):
    array = np.arange(6).reshape(2, 3).astype(jnp.dtype(dtype))
    _, found = files.unpack(files.pack({"a": array})[0], "origin")
    assert same(found, {"a": array})
    found["a"][0] = array[0]


def test_another_byte_order_is_turned():
    _, found = files.unpack(files.pack({"a": np.arange(3, dtype=">f4")})[0], "origin")
    assert same(found, {"a": np.arange(3, dtype="=f4")})


@pytest.mark.parametrize("array", [np.array([print], object), np.array(["text"])])
def test_objects_and_texts_are_refused_and_never_pickled(array):
    with pytest.raises(ValueError, match=r"array 'a' has the dtype .*, expected numbers"):
        files.pack({"a": array})


def test_safetensors_reads_the_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(files.pack(ARRAYS, MANIFEST)[0])
    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        assert same({name: file.get_tensor(name) for name in file.keys()}, ARRAYS)  # noqa: SIM118
        manifest = json.loads(file.metadata()["manifest"])
    assert manifest.items() >= MANIFEST.items()
    assert manifest["arrays"]["params[0].weight"] == ["float32", 2, 3]


def test_the_file_is_the_same_for_the_same_arrays_in_any_order():
    backwards = dict(reversed(ARRAYS.items()))
    assert files.pack(ARRAYS, MANIFEST) == files.pack(backwards, MANIFEST)


@pytest.mark.parametrize(
    "changed",
    [
        files.pack({**ARRAYS, "none": np.zeros((0, 2))}, MANIFEST),
        files.pack({**ARRAYS, "now/0/step": np.array(8, np.int32)}, MANIFEST),
        files.pack({**ARRAYS, "now/0/step": np.array(7, np.uint32)}, MANIFEST),
        files.pack(ARRAYS, {**MANIFEST, "list": []}),
    ],
    ids=["shape", "value", "type", "manifest"],
)
def test_an_intact_file_with_another_content_has_another_digest(changed):
    _, digest = files.pack(ARRAYS, MANIFEST)
    content, _ = changed
    files.unpack(content, "a")
    with pytest.raises(DamagedFileError, match="a is damaged: its checksum is not the recorded"):
        files.unpack(content, "a", digest)


def test_a_tree_comes_back_whatever_the_types_of_its_leaves():
    tree = (Layer(jnp.ones((2, 3), jnp.bfloat16), jnp.arange(2, dtype=jnp.float8_e4m3fn)), [{}])
    _, arrays = files.unpack(files.pack(files.named_leaves("now/", tree))[0], "origin")
    assert sorted(arrays) == ["now/[0].bias", "now/[0].weight"]
    template = jax.eval_shape(lambda: tree)
    weight, bias = files.restore("now/", template, arrays)[0]
    assert (weight.dtype, bias.dtype) == (jnp.bfloat16, jnp.float8_e4m3fn)
    np.testing.assert_array_equal(weight.astype(float), np.ones((2, 3)))
    np.testing.assert_array_equal(bias.astype(float), [0, 1])


def test_a_tree_with_a_leaf_missing_is_damage():
    with pytest.raises(DamagedFileError, match=r"there is no array 'now/\[1\]'"):
        files.restore("now/", (1.0, 2.0), {"now/[0]": np.ones(())})


def test_a_flipped_bit_is_noticed_or_changes_nothing():
    content, digest = files.pack(ARRAYS, MANIFEST)
    unnoticed = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            manifest, arrays = files.unpack(bytes(damaged), "a", digest)
        except DamagedFileError:
            continue
        unnoticed += 1
        assert manifest == MANIFEST
        assert same(arrays, ARRAYS)
    assert unnoticed < 20


def test_a_file_cut_anywhere_is_damage():
    content, _ = files.pack(ARRAYS)
    for end in range(len(content)):
        with pytest.raises(DamagedFileError, match=r"^a is damaged"):
            files.unpack(content[:end], "a")


@pytest.mark.parametrize(
    "content",
    [
        b"text",
        b"",
        b"\xff" * 100,
        save({"a": np.zeros(2)}),
        save({"a": np.zeros(2)}, {"manifest": "[]"}),
        save({"a": np.zeros(2)}, {"manifest": "{}"}),
    ],
    ids=["text", "nothing", "noise", "no metadata", "a list", "an empty manifest"],
)
def test_other_files_are_refused(content):
    with pytest.raises(
        DamagedFileError, match=r"^a is damaged, or no file of arrays by jaxnn \(.+\)$"
    ):
        files.unpack(content, "a")


@pytest.mark.parametrize("size", [0, 10, 400])
def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path, size):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    with (
        largest_file(size),
        pytest.raises(OSError, match=r"File too large: .*a\.safetensors'$"),
        atomic_write(path) as file,
    ):
        file.write(files.pack({"a": np.zeros(5000)})[0])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("call", [lambda: files.pack({}), lambda: files.unpack(b"", "a")])
def test_without_safetensors_the_command_that_installs_it_is_said(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError) as refused:
        call()
    assert str(refused.value).endswith(
        "safetensors is not installed, expected the extra 'safetensors': "
        "pip install 'jaxnn-basics[safetensors]'"
    )
