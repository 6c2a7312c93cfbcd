"""The database of a search, seen by another program, also while the search is at work."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from jaxnn.search.journal import DATABASE, Journal, Record


def stored(folder: Path) -> list[Record]:
    """All records, the question first.

    A search at work locks the database, so a copy of the files is read: the beginning of the
    write-ahead log up to the last whole record.
    """
    with tempfile.TemporaryDirectory() as copy:
        for name in (f"{DATABASE}-wal", DATABASE):
            if (folder / name).exists():
                shutil.copy(folder / name, copy)
        with closing(sqlite3.connect(Path(copy) / DATABASE)) as database:
            if not database.execute("select * from sqlite_master").fetchall():
                return []
            rows = database.execute("select record from records order by number")
            return [json.loads(record) for (record,) in rows]


def is_torn(folder: Path) -> bool:
    """Whether the write-ahead log ends within a record: a frame that is no commit, or a part."""
    path = folder / f"{DATABASE}-wal"
    content = path.read_bytes() if path.exists() else b""
    page, salts = int.from_bytes(content[8:12]), content[16:24]
    place, committed = 32, True
    while place < len(content) and content[place + 8 : place + 16] == salts:
        committed = any(content[place + 4 : place + 8]) and place + 24 + page <= len(content)
        place += 24 + page
    return not committed


def rewrite(folder: Path, records: Sequence[Record]) -> None:
    """A database of these records, whose digests are right."""
    (folder / DATABASE).unlink(missing_ok=True)
    checkpoints = [(path, path.read_bytes()) for path in folder.glob("checkpoint-*")]
    for path, _ in checkpoints:
        path.unlink()
    with Journal(folder, records[0]["search"]) as journal:
        for record in records[1:]:
            journal.append(record)
    for path, content in checkpoints:
        path.write_bytes(content)
