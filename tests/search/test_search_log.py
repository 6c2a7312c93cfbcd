"""The log: nothing is lost silently, and nothing but the end of a record is ever dropped."""

import hashlib
import json
import os

import pytest
from full_disk import largest_file

from jaxnn.search.journal.log import CorruptLogError, Log, parse

RECORDS = [{"search": {"count": 3}}, {"segment": 0, "loss": [[0.1, None]]}, {"text": "η -0 \n"}]


def write(path, records=RECORDS):
    log = Log(path)
    for record in records:
        log.append(record)
    log.close()


def read(path):
    log = Log(path)
    log.close()
    return log.records


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "search.log")
    return tmp_path / "search.log"


def test_records_come_back(path):
    assert read(path) == RECORDS


def test_a_line_is_the_start_of_sha256_of_the_checksum_before_and_the_record(path):
    before = "0" * 16
    for line, record in zip(path.read_bytes().splitlines(), RECORDS, strict=True):
        checksum, payload = line.split(b" ", 1)
        assert checksum.decode() == hashlib.sha256(before.encode() + payload).hexdigest()[:16]
        assert json.loads(payload) == record
        before = checksum.decode()


def test_an_opened_log_goes_on(path):
    write(path, [{"more": 1}])
    assert read(path) == [*RECORDS, {"more": 1}]


def test_an_empty_log_has_no_records(tmp_path):
    (tmp_path / "search.log").touch()
    assert read(tmp_path / "search.log") == []


def test_nothing_but_appending_changes_the_file(path):
    torn = path.read_bytes() + b"0123"
    path.write_bytes(torn)
    read(path)
    assert path.read_bytes() == torn


@pytest.mark.parametrize("last", range(len(RECORDS)))
def test_the_last_record_cut_at_any_byte_is_dropped_and_the_log_goes_on(path, last):
    lines = path.read_bytes().splitlines(keepends=True)
    whole = b"".join(lines[:last])
    for end in range(len(lines[last])):
        path.write_bytes(whole + lines[last][:end])
        assert read(path) == RECORDS[:last]
        write(path, RECORDS[last:])
        assert path.read_bytes() == b"".join(lines)


def test_zeros_where_the_power_failed_are_dropped(path):
    content = path.read_bytes()
    for torn in (b"\0" * 9, b"0123\0\0"):
        path.write_bytes(content + torn)
        assert read(path) == RECORDS
        write(path, [])
    write(path, [{"more": 1}])
    assert read(path) == [*RECORDS, {"more": 1}]


def test_every_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptLogError, match=r"search\.log is damaged"):
            parse(bytes(damaged), "search.log")


def test_every_byte_that_is_another_byte_is_noticed_and_the_file_left_alone(path):
    content = path.read_bytes()
    place = content.index(b"-0")
    for byte in set(range(256)) - {content[place]}:
        damaged = content[:place] + bytes([byte]) + content[place + 1 :]
        path.write_bytes(damaged)
        with pytest.raises(CorruptLogError, match="damaged"):
            read(path)
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "record", "byte"),
    [
        (lambda a, b, c: [b, c], 1, 0),
        (lambda a, b, c: [a, c], 2, 1),
        (lambda a, b, c: [a, b, b, c], 3, 2),
        (lambda a, b, c: [a, c, b], 2, 1),
        (lambda a, b, c: [a, b"\n", b, c], 2, 1),
    ],
    ids=["the first is lost", "one is lost", "doubled", "exchanged", "an empty line"],
)
def test_lines_that_are_not_where_they_were_are_damage(path, change, record, byte):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(*lines)))
    place = sum(map(len, lines[:byte]))
    with pytest.raises(CorruptLogError, match=f"record {record}, at byte {place}, fails"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        b"some notes",
        b"some notes\n",
        b"2026-01-01 12:00 started",
        b"0123456789abcdef {\xff",
        b"\xff",
    ],
)
def test_the_log_of_another_program_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "search.log"
    path.write_bytes(content)
    with pytest.raises(CorruptLogError, match=r"search\.log is damaged"):
        read(path)
    assert path.read_bytes() == content


def test_a_record_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    write(path, [{"more": 1}])
    assert synced == [path.read_bytes()]


def test_a_new_log_s_name_is_on_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("jaxnn.search.journal.log.sync_folder", synced.append)
    read(tmp_path / "search.log")
    assert synced == [tmp_path]


@pytest.mark.parametrize("room", [0, 1, 16, 30])
def test_a_full_disk_is_named_and_leaves_the_log_as_it_was(path, room):
    before = path.read_bytes()
    log = Log(path)
    with (
        largest_file(len(before) + room),
        pytest.raises(OSError, match=r"File too large: .*search\.log'$"),
    ):
        log.append({"a record": "of more than 30 bytes"})
    assert path.read_bytes() == before
    log.append({"more": 1})
    log.close()
    assert read(path) == [*RECORDS, {"more": 1}]


def test_an_interrupted_record_leaves_the_log_as_it_was(path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    before = path.read_bytes()
    log = Log(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append({"lost": 1})
    assert path.read_bytes() == before
    log.append({"more": 1})
    log.close()
    assert read(path) == log.records == [*RECORDS, {"more": 1}]


def test_what_json_has_not_is_refused_and_leaves_the_log_as_it_was(path):
    log = Log(path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"loss": float("nan")})
    log.close()
    assert read(path) == RECORDS
