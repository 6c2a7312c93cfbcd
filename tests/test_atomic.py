"""Atomic writes: whole or not at all."""

import csv
import errno
import os
import stat

import pytest

from jaxnn.atomic import atomic_write, naming, sync_folder


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
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device: 'log'"),
        (OSError(errno.EACCES, "Permission denied", "other"), "Permission denied: 'other'"),
        (OSError("a message of one's own"), "a message of one's own"),
    ],
)
def test_errors_of_the_system_name_the_file_they_are_about(error, said):
    with pytest.raises(OSError) as raised, naming("log"):
        raise error
    assert str(raised.value).removeprefix(f"[Errno {error.errno}] ") == said
