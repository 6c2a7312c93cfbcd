"""The folder of a run: what it keeps, what it refuses, and that it leaves alone what is not its."""

import functools
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest

from jaxnn import files
from jaxnn.search import CorruptLogError, RunFolderError
from jaxnn.search.journal import DATABASE, Journal, differences

QUESTION = {"method": {"method": "random", "count": 32}, "key": [0, 7], "seeds": 1}


def state(number):
    return {"now/0/params": np.full(100, number, np.float32)}


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """The folder of a search with checkpoints after 2, 4 and 6 segments."""
    with Journal(tmp_path / "run", QUESTION) as journal:
        for segment in (2, 4, 6):
            journal.append({"segment": segment})
            journal.save(segment, state(segment))
    return tmp_path / "run"


def restored(folder):
    """The segments of the checkpoint that a search goes on from; its arrays are checked."""
    with Journal(folder, QUESTION) as journal:
        segment, arrays = journal.restore()
        if segment:
            np.testing.assert_array_equal(arrays["now/0/params"], state(segment)["now/0/params"])
        return segment


def notes(folder):
    with Journal(folder, QUESTION) as journal:
        return [record["note"] for record in journal.records if "note" in record]


def flip(path, place=None):
    damaged = bytearray(path.read_bytes())
    damaged[place or len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def test_records_are_there_the_next_time(tmp_path):
    for before in range(3):
        with Journal(tmp_path / "in" / "run", QUESTION) as journal:
            assert journal.records == [{"segment": i} for i in range(before)]
            journal.append({"segment": before})


def test_the_two_latest_checkpoints_are_kept(folder):
    names = ["checkpoint-4.safetensors", "checkpoint-6.safetensors", DATABASE]
    assert sorted(content(folder)) == names
    assert restored(folder) == 6


def test_names_in_the_folders_around_it_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("jaxnn.files.sync_folder", synced.append)
    with Journal(tmp_path / "a" / "b", QUESTION):
        assert synced == [tmp_path, tmp_path / "a"]


def test_a_memory_keeps_records_and_no_arrays():
    with Journal() as memory:
        memory.append({"segment": 0})
        memory.save(1, state(1))
        assert memory.records == [{"segment": 0}]
        assert memory.restore() == (0, {})


class TestDamage:
    @pytest.mark.parametrize("damage", [flip, lambda p: p.unlink(), lambda p: p.write_bytes(b"")])
    def test_a_damaged_checkpoint_is_noted_once_and_the_one_before_is_used(self, folder, damage):
        damage(folder / "checkpoint-6.safetensors")
        assert restored(folder) == restored(folder) == 4
        (note,) = notes(folder)
        assert re.search(
            r"checkpoint-6\.safetensors.*; the search goes on from an earlier state$", note
        )
        assert "\n" not in note

    def test_with_both_damaged_a_search_starts_over(self, folder):
        flip(folder / "checkpoint-4.safetensors")
        flip(folder / "checkpoint-6.safetensors")
        assert restored(folder) == restored(folder) == 0
        assert len(notes(folder)) == 2

    def test_the_checkpoint_that_a_search_went_back_to_outlives_the_damaged_one(self, folder):
        flip(folder / "checkpoint-6.safetensors")
        with Journal(folder, QUESTION) as journal:
            assert journal.restore()[0] == 4
            journal.save(7, state(7))
        assert {n for n in content(folder) if "point" in n} == {
            "checkpoint-4.safetensors",
            "checkpoint-7.safetensors",
        }
        flip(folder / "checkpoint-7.safetensors")
        assert restored(folder) == 4

    def test_a_checkpoint_that_was_damaged_counts_again_when_it_is_written_again(self, folder):
        flip(folder / "checkpoint-6.safetensors")
        with Journal(folder, QUESTION) as journal:
            assert journal.restore()[0] == 4
            journal.save(6, state(6))
        assert restored(folder) == 6

    def test_after_starting_over_the_new_checkpoint_counts_though_it_is_of_an_earlier_segment(
        self, folder
    ):
        flip(folder / "checkpoint-4.safetensors")
        flip(folder / "checkpoint-6.safetensors")
        with Journal(folder, QUESTION) as journal:
            assert journal.restore()[0] == 0
            journal.save(1, state(1))
        assert restored(folder) == 1

    def test_a_checkpoint_that_is_not_in_the_log_is_not_used_and_goes(self, folder):
        (folder / "checkpoint-8.safetensors").write_bytes(files.pack(state(8))[0])
        assert restored(folder) == 6
        with Journal(folder, QUESTION) as journal:
            journal.save(10, state(10))
        assert "checkpoint-8.safetensors" not in content(folder)

    def test_a_checkpoint_replaced_before_the_log_has_it_is_passed_over(self, folder):
        # A crash between the two, when a search saves the same segment again.
        (folder / "checkpoint-6.safetensors").write_bytes(files.pack(state(0))[0])
        assert restored(folder) == 4

    def test_what_a_killed_process_was_writing_is_removed(self, folder):
        (folder / ".0123456789abcdef.tmp").write_bytes(b"half")
        restored(folder)
        assert ".0123456789abcdef.tmp" not in content(folder)

    def test_a_damaged_log_is_an_error_and_left_as_it_is(self, folder):
        place = (folder / DATABASE).read_bytes().index(b"random")
        flip(folder / DATABASE, place)
        before = content(folder)
        with (
            pytest.raises(
                CorruptLogError, match=r"run\.db is damaged: record 1 fails its checksum"
            ),
            Journal(folder, QUESTION),
        ):
            pass
        assert content(folder) == before

    def test_a_database_that_was_created_and_never_written_begins_anew(self, tmp_path):
        (tmp_path / DATABASE).touch()
        with Journal(tmp_path, QUESTION) as journal:
            assert journal.records == []
            journal.append({"segment": 0})
        assert restored(tmp_path) == 0


class TestRefusal:
    def refused(self, folder, message, error: type[ValueError] = RunFolderError):
        before = content(folder)
        with pytest.raises(error, match=message) as raised, Journal(folder, QUESTION):
            pass
        assert "\n" not in str(raised.value)
        assert content(folder) == before

    @pytest.mark.parametrize("name", ["notes.txt", "checkpoint-1.safetensors", "run.json"])
    def test_a_folder_that_holds_something_else(self, tmp_path, name):
        (tmp_path / name).touch()
        self.refused(tmp_path, f"holds {name} and no search, expected an empty folder or one of a")

    def test_checkpoints_whose_database_is_lost(self, folder):
        (folder / DATABASE).unlink()
        self.refused(folder, r"holds checkpoint-4\.safetensors and no search")
        (folder / DATABASE).touch()
        self.refused(folder, r"holds checkpoint-4\.safetensors and no search")

    def test_the_folder_of_a_search_by_the_version_before(self, tmp_path):
        (tmp_path / "search.log").write_text('0123456789abcdef {"search":{}}\n')
        (tmp_path / "search.lock").touch()
        (tmp_path / "checkpoint-1.npz").touch()
        self.refused(
            tmp_path, r"holds search\.log, a search by a version of jaxnn before 0\.2, exp"
        )

    @pytest.mark.parametrize("below", [".", "run"])
    def test_a_file(self, tmp_path, below):
        (tmp_path / "file").write_text("kept")
        with (
            pytest.raises(RunFolderError, match=r"file is a file, expected a folder"),
            Journal(tmp_path / "file" / below, QUESTION),
        ):
            pass
        assert content(tmp_path) == {"file": b"kept"}

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"seeds": 2}, "seeds is 2, in the folder 1"),
            ({"key": [0, 8]}, "key[1] is 8, in the folder 7"),
            ({"method": {"method": "random", "count": 64}}, "method.count is 64, in the folder 32"),
            ({"rule": "mean"}, 'rule is "mean", in the folder null'),
            ({"seeds": 2, "key": [0]}, "key is [0], in the folder [0, 7]; seeds is 2, in the f"),
        ],
    )
    def test_another_search(self, folder, change, said):
        before = content(folder)
        message = f"holds another search: {re.escape(said)}.*; expected the same search or another"
        with pytest.raises(RunFolderError, match=message), Journal(folder, QUESTION | change):
            pass
        assert content(folder) == before

    def test_a_folder_in_use_in_this_process(self, folder):
        with Journal(folder, QUESTION) as journal:
            self.refused(folder, "is in use by another search, expected to be the only one")
            journal.append({"segment": 7})
        assert restored(folder) == 6

    def test_a_folder_in_use_by_another_process_until_it_is_killed(self, folder):
        script = (
            "import json, sys, time; from jaxnn.search.journal import Journal; "
            "journal = Journal(sys.argv[1], json.loads(sys.argv[2])).__enter__(); "
            "print('held', flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", script, folder, json.dumps(QUESTION)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        with holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            self.refused(folder, "is in use by another search")
            with (
                closing(sqlite3.connect(folder / DATABASE, timeout=0)) as database,
                pytest.raises(sqlite3.OperationalError, match="database is locked"),
            ):
                database.execute("select * from trials")
            holder.send_signal(signal.SIGKILL)
        assert restored(folder) == 6

    def test_a_reader_in_passing_is_waited_for(self, folder):
        with closing(sqlite3.connect(folder / DATABASE, check_same_thread=False)) as database:
            database.execute("begin")
            database.execute("select * from records").fetchall()
            end = threading.Timer(0.2, database.rollback)
            end.start()
            assert restored(folder) == 6
            end.join()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("SQLITE_IOERR_LOCK", "is on a file system without locks, expected a folder on anoth"),
            ("SQLITE_BUSY", r"in use by another search, .* \(or the file system has no locks\)"),
        ],
    )
    def test_a_folder_on_a_file_system_without_locks(self, folder, monkeypatch, name, said):
        class Connection(sqlite3.Connection):
            def execute(self, statement, *arguments):
                if statement == "BEGIN EXCLUSIVE":
                    error = sqlite3.OperationalError("no locks")
                    error.sqlite_errorname = name  # type: ignore
                    raise error
                return super().execute(statement, *arguments)

        connect = functools.partial(sqlite3.connect, factory=Connection)
        monkeypatch.setattr("jaxnn.search.journal.sqlite3.connect", connect)
        self.refused(folder, said)

    def test_after_a_refusal_the_folder_is_free(self, folder):
        with pytest.raises(RunFolderError), Journal(folder, {}):
            pass
        assert restored(folder) == 6


@pytest.mark.parametrize(
    "name",
    [
        ".gitignore",
        ".note.tmp",
        "checkpoint-best.safetensors",
        "results.json",
        "old-checkpoint-1.safetensors",
    ],
)
def test_files_of_others_in_the_folder_of_a_search_stay(folder, name):
    (folder / name).write_text("kept")
    with Journal(folder, QUESTION) as journal:
        journal.save(8, state(8))
        journal.save(10, state(10))
    assert (folder / name).read_text() == "kept"


@pytest.mark.parametrize("name", [".gitignore", ".nfs0001"])
def test_hidden_files_do_not_matter(tmp_path, name):
    (tmp_path / name).touch()
    with Journal(tmp_path, QUESTION) as journal:
        assert journal.records == []


def test_a_difference_is_short_whatever_differs():
    was, now = {"loss": [list(range(1000))]}, {"loss": [list(range(999)), 3]}
    (line,) = differences(was, now)
    assert line.startswith("loss is [[0, 1, 2,")
    assert len(line) < 150


def test_a_difference_within_lists_of_one_length_is_told_by_its_place():
    was, now = {"loss": [[0.5, None], [0.25, 1]]}, {"loss": [[0.5, None], [0.75, 1]]}
    assert differences(was, now) == ["loss[1][0] is 0.75, in the folder 0.25"]
