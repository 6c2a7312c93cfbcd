"""The records in the database: nothing is lost silently, and every damage is noticed."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from full_disk import largest_file

from jaxnn.search import CorruptLogError, RunFolderError
from jaxnn.search.journal import DATABASE, Journal
from jaxnn.train import NEVER

QUESTION = {"task": {"measure": "error"}, "seeds": 2}
RECORDS = [
    {
        "round": 0,
        "until": 2,
        "trials": [
            {"trial": 0, "parent": None, "config": {"learning_rate": 0.1, "hidden": [4]}},
            {"trial": 1, "parent": None, "config": {"learning_rate": 9.0, "hidden": []}},
        ],
    },
    {
        "segment": 0, "in_round": 0, "evaluation": 1, "trials": [0, 1], "seconds": 0.1,
        "loss": [[0.5, 2.5], [0.25, 3.5]], "error": [[0.5, 0.75], [0.0, 0.5]],
        "diverged_at": [[NEVER, NEVER], [NEVER, NEVER]],
    },
    {
        "segment": 1, "in_round": 0, "evaluation": 2, "trials": [0, 1], "seconds": 0.1,
        "loss": [[0.75, None], [0.5, 1.5]], "error": [[0.25, None], [0.0, 0.5]],
        "diverged_at": [[NEVER, 7], [NEVER, NEVER]],
    },
    {
        "round": 1, "until": 3,
        "trials": [
            {"trial": 0, "parent": 0, "config": {"learning_rate": 0.1, "hidden": [4]}},
            {"trial": 2, "parent": 0, "config": {"learning_rate": 0.2, "hidden": [4]}},
        ],
    },
    {"test_read": 1}, {"note": "η -0 \n"},
]  # fmt: skip


def write(folder, records=RECORDS):
    with Journal(folder, QUESTION) as journal:
        for record in records:
            journal.append(record)


def read(folder):
    with Journal(folder, QUESTION) as journal:
        return journal.records


@pytest.fixture
def path(tmp_path):
    write(tmp_path)
    return tmp_path / DATABASE


def change(path, *statements):
    """Changes the database as another program could."""
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_records_come_back(path):
    assert read(path.parent) == RECORDS


def test_an_opened_journal_goes_on(path):
    write(path.parent, [{"more": 1}])
    assert read(path.parent) == [*RECORDS, {"more": 1}]


def test_records_in_memory_stay_between_uses():
    journal = Journal()
    for number in range(3):
        with journal:
            assert journal.records == RECORDS[:number]
            journal.append(RECORDS[number])


def test_after_the_end_the_database_is_a_single_file(path):
    assert os.listdir(path.parent) == [DATABASE]


def test_reading_a_finished_search_changes_nothing(path):
    before = path.read_bytes()
    path.chmod(0o444)
    pd_rows = rows(path, "select * from trials")
    assert len(pd_rows) == 3
    assert path.read_bytes() == before


CHANGES = {
    "a value": ["update records set record = replace(record, '0.25', '0.26') where number = 3"],
    "a digest": ["update records set digest = 'f' || substr(digest, 2) where number = 3"],
    "the first is lost": ["delete from records where number = 1"],
    "a row is lost": ["delete from records where number = 3"],
    "the last is lost": ["delete from records where number = (select max(number) from records)"],
    "all are lost": ["delete from records"],
    "a row is doubled": ["insert into records select 8, record, digest from records limit 1"],
    "the last is doubled": [
        "insert into records select 8, record, digest from records order by number desc limit 1"
    ],
    "exchanged": [
        "update records set number = -2 where number = 2",
        "update records set number = 2 where number = 3",
        "update records set number = 3 where number = -2",
    ],
    "a number": ["update records set number = 9 where number = 7"],
    "a type": ["update records set record = 3 where number = 3"],
    "the counter": ["delete from sqlite_sequence"],
    "a view": ["drop view curves", "create view curves as select 1"],
    "a table": ["create table more (number)"],
}


@pytest.mark.parametrize("name", CHANGES)
def test_rows_that_are_not_what_was_written_are_damage_and_left_alone(path, name):
    change(path, *CHANGES[name])
    before = path.read_bytes()
    with pytest.raises(CorruptLogError, match=r"run\.db is damaged") as raised:
        read(path.parent)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == before


def outcome(path):
    """The records and the views; or the error."""
    try:
        return read(path.parent), *(rows(path, f"select * from {v}") for v in ("trials", "curves"))
    except (CorruptLogError, RunFolderError, OSError) as error:
        return error


def rows(path, query):
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def flipped_bits(content):
    """Bits of the header, and of places that are spread over all pages."""
    rng = np.random.default_rng(0)
    size = len(content)
    used = [8 * place + int(rng.integers(8)) for place in range(100, size) if content[place]]
    return [*range(800), *rng.choice(used, 250, replace=False), *rng.integers(800, 8 * size, 50)]


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(path):
    content, expected = path.read_bytes(), outcome(path)
    assert isinstance(expected, tuple)
    assert expected[0] == RECORDS
    found = []
    for bit in flipped_bits(content):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found.append(outcome(path))
        if not isinstance(found[-1], tuple):
            found[-1] = type(found[-1])
        assert found[-1] in (expected, CorruptLogError, OSError), bit
        for left in path.parent.iterdir():
            left.unlink()
    assert found.count(CorruptLogError) > 400


def test_a_flipped_bit_of_any_record_or_digest_is_noticed(path):
    content = path.read_bytes()
    for text in rows_of(path):
        place = content.index(text.encode()) + len(text) // 2
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CorruptLogError, match=r"run\.db is damaged: record \d fails its"):
            read(path.parent)


def rows_of(path):
    """The texts of the rows that are short enough to be in a single piece."""
    texts = [text for row in rows(path, "select record, digest from records") for text in row]
    return [text for text in texts if len(text) < 1000]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_database_is_refused_in_one_line_and_left_alone(path, share):
    content = path.read_bytes()[: int(share * path.stat().st_size)]
    path.write_bytes(content)
    with pytest.raises(CorruptLogError, match=r"run\.db is damaged: .*") as raised:
        read(path.parent)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"some notes", b"SQLite format 3\0", b"\xff" * 5000])
def test_the_file_of_another_program_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(CorruptLogError, match=r"run\.db is damaged"):
        read(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path):
    change(tmp_path / DATABASE, "create table runs (number)")
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(CorruptLogError, match="or no search of this version of jaxnn"):
        read(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from jaxnn.search.journal import Journal
with Journal(Path(sys.argv[1]), {}) as journal:
    for number in range(5):
        journal.append({"number": number})
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """The folder of a process that was killed after five records."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    return tmp_path


def test_records_of_a_killed_process_are_there_and_can_be_read_by_anybody(killed):
    assert len(rows(killed / DATABASE, "select * from records")) == 6
    with Journal(killed, {}) as journal:
        assert journal.records == [{"number": number} for number in range(5)]


def test_a_write_ahead_log_cut_or_damaged_anywhere_costs_its_last_records_at_most(killed):
    names = (DATABASE, f"{DATABASE}-wal")
    whole = [(killed / name).read_bytes() for name in names]
    counts = []
    for place in np.linspace(0, len(whole[1]) - 1, 40).astype(int):
        flipped = bytearray(whole[1])
        flipped[place] ^= 1
        for torn in (whole[1][:place], bytes(flipped)):
            for name, content in zip(names, (whole[0], torn), strict=True):
                (killed / name).write_bytes(content)
            with Journal(killed, {}) as journal:
                counts.append(len(journal.records))
                assert journal.records == [{"number": number} for number in range(counts[-1])]
                journal.append({"more": 1})
    assert {0, 4} <= set(counts) <= {0, 1, 2, 3, 4, 5}


def test_every_record_waits_for_the_disk(tmp_path):
    with Journal(tmp_path, QUESTION) as journal:
        assert journal._database is not None
        ((synchronous,),) = journal._database.execute("PRAGMA synchronous")
        ((mode,),) = journal._database.execute("PRAGMA journal_mode")
    assert (synchronous, mode) == (2, "wal")  # FULL: in this mode, a sync after every transaction


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_a_full_disk_is_named_and_leaves_the_records_as_they_were(path, room):
    with Journal(path.parent, QUESTION) as journal:
        journal.append({"before": 1})
        written = (path.parent / f"{DATABASE}-wal").stat().st_size
        with (
            largest_file(written + room),
            pytest.raises(OSError, match=r"\[Errno \d+\] disk I/O error: .*run\.db'$"),
        ):
            journal.append({"a record": "of more than 5000 bytes" * 1000})
        assert journal.records == [*RECORDS, {"before": 1}]
        journal.append({"more": 1})
    assert read(path.parent) == [*RECORDS, {"before": 1}, {"more": 1}]


def test_a_full_disk_at_the_end_loses_nothing(path):
    with largest_file(path.stat().st_size):
        pass
    with Journal(path.parent, QUESTION) as journal:
        for _ in range(5):
            journal.append({"text": "long" * 2000})
        with largest_file(4096):
            journal.__exit__()
    assert len(read(path.parent)) == len(RECORDS) + 5


def test_an_interrupted_record_leaves_the_database_as_it_was(path):
    with Journal(path.parent, QUESTION) as journal:
        assert journal._database is not None
        journal._database.set_progress_handler(lambda: 1, 1)  # SQLite: "interrupted"
        with pytest.raises(InterruptedError):
            journal.append({"lost": 1})
        journal._database.set_progress_handler(None, 1)
        assert journal.records == RECORDS
        journal.append({"more": 1})
    assert read(path.parent) == [*RECORDS, {"more": 1}]


def test_what_json_has_not_is_refused_and_leaves_the_records_as_they_were(path):
    with (
        Journal(path.parent, QUESTION) as journal,
        pytest.raises(ValueError, match="not JSON compliant"),
    ):
        journal.append({"loss": float("nan")})
    assert read(path.parent) == RECORDS


TRIALS = [
    (0, None, {"learning_rate": 0.1, "hidden": [4]}, 2, 2, 0.625, 0.125, None),
    (1, None, {"learning_rate": 9.0, "hidden": []}, 2, None, None, None, 7),
    (2, 0, {"learning_rate": 0.2, "hidden": [4]}, None, None, None, None, None),
]
TRIAL_COLUMNS = [
    "trial", "copied_from", "config", "evaluations", "best_evaluation", "loss", "error",
    "diverged_at",
]  # fmt: skip
CURVES = [
    (0, 0, 1, 0.5, 0.5, None),
    (0, 1, 1, 0.25, 0.0, None),
    (0, 0, 2, 0.75, 0.25, None),
    (0, 1, 2, 0.5, 0.0, None),
    (1, 0, 1, 2.5, 0.75, None),
    (1, 1, 1, 3.5, 0.5, None),
    (1, 0, 2, None, None, 7),
    (1, 1, 2, 1.5, 0.5, None),
]


def test_a_plain_connection_reads_the_views(path):
    found = [(*row[:2], json.loads(row[2]), *row[3:]) for row in rows(path, "select * from trials")]
    assert found == TRIALS
    assert sorted(rows(path, "select * from curves")) == sorted(CURVES)


def test_pandas_reads_the_views(path):
    with closing(sqlite3.connect(path)) as database:
        trials = pd.read_sql("select * from trials", database)
        curves = pd.read_sql("select * from curves", database)
    assert list(trials.columns) == TRIAL_COLUMNS
    assert trials["error"].iloc[0] == 0.125
    columns = ["trial", "replicate", "evaluation", "loss", "error", "diverged_at"]
    assert list(curves.columns) == columns
    assert [curves["loss"][curves["trial"] == trial].mean() for trial in (0, 1)] == [0.5, 2.5]


def test_the_best_evaluation_is_that_of_the_measure_and_the_first_among_equals(tmp_path):
    equal = {
        "segment": 2, "in_round": 1, "evaluation": 3, "trials": [0], "seconds": 0.1,
        "loss": [[0.25], [0.5]], "error": [[0.25], [0.0]], "diverged_at": [[NEVER], [NEVER]],
    }  # fmt: skip
    for measure, best in (("loss", 1), ("error", 2)):
        folder = tmp_path / measure
        with Journal(folder, {"task": {"measure": measure}}) as journal:
            for record in [*RECORDS[:4], equal]:
                journal.append(record)
        query = "select best_evaluation, evaluations from trials where trial = 0"
        assert rows(folder / DATABASE, query) == [(best, 3)]
