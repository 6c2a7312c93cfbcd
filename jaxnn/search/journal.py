"""The journal of a search: an SQLite database in memory, or in a folder that a crash cannot harm.

The folder has ``run.db``, with the question (everything that decides the results), rounds, scores
of segments, digests of checkpoints, readings of the test set and notes; and the two latest states
of the population, ``checkpoint-N.safetensors``, after N segments.

A search that goes on with more trials, seeds or epochs adds the larger question, and then the
records of the larger search as if asked for at once: the records after the last question count.

Table ``records`` has one JSON object a row, on the disk before ``append`` returns. The digest of a
row covers all earlier rows, so a changed, lost or doubled record is noticed. People read the views:
``sqlite3 run.db 'select * from trials'``, and ``curves``.

A search locks ``run.db`` until the end; meanwhile, people may read a copy of ``run.db*``. With the
write-ahead log ``run.db-wal`` a record waits for the disk once instead of four times. Under an
exclusive lock the log needs no shared memory, so network file systems will do. After the search,
``run.db`` is a single file again. A refused folder stays unchanged.
"""

import errno
import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jaxnn import distributed, files
from jaxnn.files import COUNT, NUMBER, TEXT, WHOLE, Check, decoding, misfit, open_regular, printable
from jaxnn.train import NEVER
from jaxnn.types import require

Record = dict[str, Any]

DATABASE, EARLIER = "run.db", "search.log"  # the second: before version 0.2
TRACED = "traced program of"  # begins the name of a function's digest in the question
_KEPT = 2  # checkpoints
_QUESTION = b'{"search":'  # begins the record of a question

Grow = Callable[[list[Record], list[str]], str | None]
"""From the records of the search in a folder, its question first, and the differences of the new
question: None where the search goes on to the new question, else a reason, perhaps "".
"""

_CHECKPOINT = re.compile(r"checkpoint-\d+\.safetensors")
_FILE = Check("checkpoint-N.safetensors", lambda v: TEXT.holds(v) and _CHECKPOINT.fullmatch(v))
_FIELDS = {
    "checkpoint": {"checkpoint": WHOLE, "file": _FILE, "sha256": TEXT},
    "file": {"file": _FILE},
    "note": {"note": TEXT},
    "seconds": {"seconds": NUMBER},
    "test_scores": {
        "test_scores": {
            "accuracy": Check("a number or null", lambda v: v is None or NUMBER.holds(v)),
            "loss": NUMBER,
            "accuracy_interval": Check("two numbers or null", lambda v: v is None or _is_pair(v)),
            "loss_interval": (NUMBER, NUMBER),
            "accuracies": [NUMBER],
            "losses": [NUMBER],
            "retrained": Check("true or false", lambda v: type(v) is bool),
            "examples": COUNT,
            "digest": Check("a text or null", lambda v: v is None or isinstance(v, str)),
        }
    },
}
"""The schema of a record with a field: another program can write rows whose digests are right."""


def _is_pair(value: Any) -> bool:
    return not misfit(value, (NUMBER, NUMBER), "")


_LAST_QUESTION = "(SELECT max(number) FROM records WHERE json_type(record, '$.search') = 'object')"
_RECORDS = (
    "CREATE TABLE records "
    "(number INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, digest TEXT NOT NULL)"
)


def _schema(question: Record) -> list[str]:
    """The table and the views of a search, with a column for every metric."""
    task = question.get("task", {})
    metrics, maximised = (task.get(name, ()) for name in ("metrics", "maximised"))
    place = "[' || losses.key || '][' || trials.key || ']'"
    cells = [f"  json_extract(record, '$.metrics.{name}{place}) AS {name},\n" for name in metrics]
    signed = [(name, "-" if name in maximised else "") for name in metrics]
    costs = [f" WHEN '{name}' THEN ifnull({sign}{name}, 9e999)" for name, sign in signed]
    means = [f" avg({name}) AS {name}," for name in metrics]
    shown = [f" ranked.{name}," for name in metrics]
    curves = f"""CREATE VIEW curves AS
SELECT trials.value AS trial, losses.key AS replicate,
  json_extract(record, '$.evaluation') AS evaluation,
  json_extract(losses.value, '$[' || trials.key || ']') AS loss,
  json_extract(record, '$.error{place}) AS error,
{"".join(cells)}  nullif(json_extract(record, '$.diverged_at{place}),
    {NEVER}) AS diverged_at
FROM records, json_each(record, '$.trials') AS trials, json_each(record, '$.loss') AS losses
WHERE number > {_LAST_QUESTION} ORDER BY 1, 2, 3"""
    trials = f"""CREATE VIEW trials AS WITH
started AS (
  SELECT json_extract(value, '$.trial') AS trial, json_extract(value, '$.parent') AS copied_from,
    json_extract(value, '$.config') AS config, min(number)
  FROM records, json_each(record, '$.trials')
  WHERE type = 'object' AND number > {_LAST_QUESTION} GROUP BY 1),
means AS (
  SELECT trial, evaluation, avg(loss) AS loss, avg(error) AS error,{"".join(means)}
    min(diverged_at) AS diverged_at FROM curves GROUP BY 1, 2),
ended AS (
  SELECT trial, max(evaluation) AS evaluations, min(diverged_at) AS diverged_at
  FROM means GROUP BY 1),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY trial ORDER BY CASE (
    SELECT json_extract(record, '$.search.task.measure') FROM records WHERE number = 1
  ) WHEN 'loss' THEN loss{"".join(costs)} ELSE error END, evaluation) AS place FROM means)
SELECT started.trial, copied_from, config, evaluations, ranked.evaluation AS best_evaluation,
  ranked.loss, ranked.error,{"".join(shown)} ended.diverged_at
FROM started LEFT JOIN ended USING (trial) LEFT JOIN ranked
  ON ranked.trial = started.trial AND place = 1 AND ended.diverged_at IS NULL ORDER BY 1"""
    return [_RECORDS, curves, trials]


logger = logging.getLogger("jaxnn.search")


class RunFolderError(ValueError):
    """The folder cannot hold this search, or holds no search; the message is printable."""

    def __init__(self, message: object):
        super().__init__(printable(message))


class CorruptLogError(files.DamagedFileError):
    """The records in the database are not the records of the search."""


class ReproducibilityError(ValueError):
    """A resumed search found other bits than the journal has."""


class Journal:
    """The records of a search; ``with journal`` locks the folder.

    In a job of several processes all methods are collective: every process has the records, process
    0 alone has the database, and errors of process 0, such as a full disk, are raised everywhere.

    Attributes:
      records: all records after the first question.
      name: the folder, for messages.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        question: Mapping[str, Any] | None = None,
        grow: "Grow | None" = None,
    ):
        """Names the folder and the search.

        Args:
          folder: created if missing; None keeps the records in memory, without checkpoints.
          question: everything that decides the results, in JSON's types; None reads whatever search
            the folder holds.
          grow: for a folder with another question, see ``Grow``; None: such a folder is refused.

        Raises:
          ValueError: the processes of the job have different questions.
        """
        self._database: sqlite3.Connection | None = None
        self._grow = grow
        self._since = 0  # the number of records before the last question, this question included
        self.records: list[Record] = []
        self._folder = None if folder is None else files.as_path("folder", folder)
        self.name = str(folder or "the search")
        self._path = Path(":memory:") if self._folder is None else self._folder / DATABASE
        self._reads = question is None and folder is not None
        self._question: Record = json.loads(json.dumps(question or {}))
        self._first = self._question
        self._digest = ""  # of the last row
        for name, value in self._question.items():
            _require_alike(name, value)

    def __enter__(self) -> "Journal":
        """Opens the database, new or of the same search.

        Raises:
          RunFolderError: the folder is in use, or holds a search with another question, or no
            search.
          CorruptLogError: the database is damaged.
          OSError: the database cannot be read or written.
        """
        first, *self.records = json.loads(distributed.from_first(self._open))
        self._first = first["search"]
        asked = [first, *self.records]
        self._since = max(place for place, record in enumerate(asked) if "search" in record)
        was = asked[self._since]["search"]
        self._question = was if self._reads else self._question
        if self._grow and (more := differences(was, self._question)):
            self.append({"search": self._question, "more": more})
            self._since = len(self.records)
        return self

    @property
    def question(self) -> Record:
        """Everything that decides the results."""
        return self._question

    @property
    def latest(self) -> list[Record]:
        """The records since the last question."""
        return self.records[self._since :]

    @property
    def earlier(self) -> list[Record]:
        """The records of the smaller search in the folder, the question first."""
        before = [{"search": self._first}, *self.records][: self._since]
        asked = [place for place, record in enumerate(before) if "search" in record]
        return before[asked[-1] :] if asked else []

    def __exit__(self, *_: object) -> None:
        """Unlocks the folder; records in memory stay."""
        if self._folder and self._database:
            if not self._reads:
                with suppress(sqlite3.Error):  # on a full disk records stay in the write-ahead log
                    self._database.execute("PRAGMA journal_mode=DELETE")
            self._close()

    def _close(self) -> None:
        if self._database:
            self._database.close()
        self._database = None

    __del__ = _close

    def _open(self) -> bytes:
        """A list in JSON of all records, the question first."""
        if self._folder:
            require("safetensors", "safetensors")
            if self._reads and not self._path.exists():
                raise RunFolderError(f"{self._folder} holds no {DATABASE}, expected a search")
            files.make_folder(self._folder, RunFolderError)
            for path in self._folder.glob(f"{DATABASE}*"):
                if not path.is_file():  # SQLite would wait for ever for the bytes of a FIFO
                    raise RunFolderError(f"{path} is a pipe, device or folder, expected a file")
            if not self._path.exists() or not self._path.stat().st_size:
                _refuse_others(self._folder)
        try:
            with _explained(self._path):
                records = self._found() if self._reads else self._locked()
        except BaseException:
            self._close()
            raise
        if self._folder and not self._reads:
            files.remove_leftovers(self._folder)
        return b"[" + b",".join(records) + b"]"

    def _connected(self, begin: str) -> tuple[Callable[[str], sqlite3.Cursor], list]:
        """A function for statements, after the beginning of a transaction; and the tables."""
        if self._database is None:
            self._database = sqlite3.connect(
                self._path, timeout=1, isolation_level=None, check_same_thread=False
            )
        execute = self._database.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute(begin)
        tables = "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
        return execute, execute(tables).fetchall()

    def _found(self) -> list[bytes]:
        """All records, from a database that is read and not changed."""
        execute, schema = self._connected("BEGIN")
        if schema[:1] != [(_RECORDS,)]:
            raise sqlite3.DatabaseError("unknown tables, or no search of this version of jaxnn")
        records = self._intact(execute)
        question = json.loads(records[0]).get("search", {})
        if schema != [(statement,) for statement in _schema(question)]:
            raise sqlite3.DatabaseError("unknown tables, or no search of this version of jaxnn")
        return records

    def _locked(self) -> list[bytes]:
        """All records, from a database that is locked, intact and of the same search."""
        execute, schema = self._connected("BEGIN EXCLUSIVE")
        expected = _schema(self._question)
        if not schema:
            if self._folder:
                _refuse_others(self._folder)
            for statement in expected:
                execute(statement)
            self._digest = ""
            self._insert({"search": self._question})
        execute("COMMIT")
        unknown = schema and schema != [(statement,) for statement in expected]
        if unknown and [name for (name,) in schema[:1]] != [_RECORDS]:
            raise sqlite3.DatabaseError("unknown tables, or no search of this version of jaxnn")
        records = self._intact(execute)
        with decoding(f"{self._path} is damaged: record 1", CorruptLogError):
            asked = [place for place, text in enumerate(records) if text.startswith(_QUESTION)]
            earlier = [json.loads(text) for text in records[asked[-1] if asked else 0 :]]
            differing = differences(earlier[0]["search"], self._question)
        if any(line.startswith("versions.jax") for line in differing):  # trace differently
            differing = [line for line in differing if not line.startswith(TRACED)]
            if any(name.startswith(TRACED) for name in self._question):
                differing.append("functions cannot be compared between versions of JAX")
        reason = "" if differing else None
        if differing and self._grow:
            reason = self._grow(earlier, differing)
        if reason is not None:
            said = "; ".join(filter(None, [*differing, reason]))
            raise RunFolderError(
                f"{self._folder} holds another search: {said}; expected the same search or another "
                "folder"
            )
        if unknown:
            raise sqlite3.DatabaseError("unknown views")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA journal_mode=WAL")
        return records

    def _intact(self, execute: Callable[[str], sqlite3.Cursor]) -> list[bytes]:
        """All records, compared with digests and count."""
        (found,) = execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        (last,) = execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        records: list[bytes] = []
        self._digest = ""
        rows = "SELECT number, CAST(record AS BLOB), CAST(digest AS BLOB) FROM records ORDER BY 1"
        for number, record, digest in execute(rows):
            self._digest = _chained(self._digest, record)
            records.append(record)
            if (number, digest) != (len(records), self._digest.encode()):
                raise sqlite3.DatabaseError(f"record {len(records)} fails its checksum")
            self._check(record, len(records))
        if last != len(records) or not records:
            raise sqlite3.DatabaseError(f"{len(records)} of {last} records left")
        return records

    def _check(self, text: bytes, number: int) -> None:
        """Refuses a row with a right digest and a wrong record."""
        with decoding(f"{self._path} is damaged: record {number}", CorruptLogError):
            (record,) = json.loads(f"[{text.decode()}]")
            schemas = [schema for name, schema in _FIELDS.items() if name in record]
            for schema in ({}, *schemas):
                if fault := misfit(record, schema, f"record {number}"):
                    raise CorruptLogError(f"{self._path} is damaged: {fault}")

    def _insert(self, record: Record) -> bytes:
        """Adds a row, and returns the record as in the row."""
        assert self._database is not None
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        digest = _chained(self._digest, text.encode())
        with _explained(self._path):
            self._database.execute(
                "INSERT INTO records (record, digest) VALUES (?, ?)", (text, digest)
            )
        self._digest = digest
        return text.encode()

    def _add(self, insert: Callable[[], bytes]) -> None:
        """Adds the record that process 0 inserts."""
        self.records.append(json.loads(distributed.from_first(insert)))

    def append(self, record: Record) -> None:
        """Adds a record, and waits until the record is on the disk.

        Raises:
          OSError: the record could not be written; the database is unchanged.
          ValueError: the records of the processes differ, times apart.
        """
        _require_alike(next(iter(record)), {**record, "seconds": None})
        self._add(partial(self._insert, record))

    def known(self, kind: str) -> list[Record]:
        """The records of a kind since the last question: "round", "segment", "note", ..."""
        return [record for record in self.latest if kind in record]

    def confirm(self, kind: str, number: int, record: Record) -> None:
        """Adds the record with this number of a kind, or compares the known record but ``seconds``.

        Raises:
          ReproducibilityError: the records differ.
        """
        known = self.known(kind)
        if number >= len(known):
            self.append(record)
            return
        was, now = known[number] | {"seconds": None}, json.loads(json.dumps(record))
        with decoding(f"{self._path} is damaged: {kind} {number}", CorruptLogError):
            differing = differences(was, now | {"seconds": None})
        if differing:
            raise ReproducibilityError(
                f"{kind} {number} is not as recorded: {differing[0]}; expected the same bits, as "
                "the same machine and software give"
            )

    def recorded(self, kind: str, number: int, schema: Mapping[str, Any]) -> Record:
        """The record with this number of a kind.

        Raises:
          CorruptLogError: there is no such record, or the record does not fit the schema.
        """
        known = self.known(kind)
        record = known[number] if number < len(known) else {}
        with decoding(f"{self._path} is damaged: {kind} {number}", CorruptLogError):
            if fault := misfit(record, schema, f"{kind} {number}"):
                raise CorruptLogError(f"{self._path} is damaged: {fault}")
        return record

    def save(self, segment: int, arrays: files.Arrays, *, again: bool = False) -> None:
        """Writes the population after ``segment`` segments, records the digest, keeps two files.

        Args:
          segment: the number of segments.
          arrays: the population.
          again: whether a file holds the population after as many segments, with other parameters
            to keep.
        """
        smaller = self.records[: self._since]  # searches; a name belongs to a single population
        before = sum("segment" in record or "search" in record for record in smaller)
        folder, name = self._folder, f"checkpoint-{before + segment + again}.safetensors"
        if not folder:
            return

        def write() -> bytes:
            content, digest = files.pack(arrays)
            with files.atomic_write(folder / name) as file:
                file.write(content)
            record = self._insert({"checkpoint": segment, "file": name, "sha256": digest})
            kept = {name, *(known["file"] for known in self._checkpoints()[: _KEPT - 1])}
            for path in folder.iterdir():
                if _CHECKPOINT.fullmatch(path.name) and path.name not in kept:
                    path.unlink(missing_ok=True)
            return record

        self._add(write)

    def restore(self) -> tuple[int, files.Arrays]:
        """The latest intact checkpoint, (segments, arrays), or (0, {}); notes damaged files.

        A search that has just gone on with more begins with the arrays of the smaller search.
        """
        for record in self._checkpoints():
            if arrays := self._arrays(record):
                return record["checkpoint"], arrays
        if not self.known("checkpoint"):
            finished = [record for record in self.earlier if "checkpoint" in record][-1:]
            return 0, self._arrays(finished[0]) if finished else {}
        return 0, {}

    def _arrays(self, record: Record) -> files.Arrays:
        """The arrays of a checkpoint; notes a damaged file, and then returns none."""
        path = self._path.parent / record["file"]
        try:
            content = distributed.from_first(partial(_content, path))
            return files.unpack(content, str(path), record["sha256"])[1]
        except distributed.LostProcessError:
            raise
        except (OSError, files.DamagedFileError) as error:
            note = f"{error}; the search goes on from an earlier state"
        if distributed.is_first():
            logger.warning(note)
        if not self._reads:
            self._add(partial(self._insert, {"note": note, "file": record["file"]}))
        return {}

    def _checkpoints(self) -> list[Record]:
        """The records of the checkpoints that are kept and not known as damaged, latest first."""
        kept: list[Record] = []
        for record in self.known("file"):
            if "checkpoint" in record:
                kept = [record, *kept][:_KEPT]
            else:
                kept = [known for known in kept if known["file"] != record["file"]]
        return kept


def _content(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _require_alike(name: str, value: Any) -> None:
    """Refuses different values in the processes of a job."""
    several = distributed.process_count() > 1
    if several and (unlike := distributed.unlike_first(json.dumps(value).encode())):
        raise ValueError(
            f"process {unlike[0]} has another {name} than process 0, expected the same call, "
            "data, software and kind of machine in all processes"
        )


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where two records of a search differ: ``method.count is 64, in the folder 32``."""
    if isinstance(was, dict) and isinstance(now, dict):
        dot = f"{path}." if path else ""
        names = dict.fromkeys([*was, *now])
        pairs = [(f"{dot}{name}", was.get(name), now.get(name)) for name in names]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(was, now, strict=True))]
    else:
        short = [files.short(json.dumps(value), 60) for value in (now, was)]
        said = f"{printable(path)} is {short[0]}, in the folder {short[1]}"
        return [] if was == now else [said]
    return [line for name, before, after in pairs for line in differences(before, after, name)]


def _chained(before: str, text: bytes) -> str:
    """The digest of a row after a row with the digest ``before``."""
    return hashlib.sha256(before.encode() + text).hexdigest()


def _refuse_others(folder: Path) -> None:
    """Refuses a folder with files of other programs, and no search."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda n: (n != EARLIER, n))
    if others := [name for name in names if not name.startswith((".", DATABASE))]:
        earlier = ", a search by a version of jaxnn before 0.2"
        what = earlier if others[0] == EARLIER else " and no search"
        raise RunFolderError(
            f"{folder} holds {printable(others[0])}{what}, expected an empty folder or one of a "
            "search"
        )


_ERRORS = {
    "CANTOPEN": errno.EACCES,
    "FULL": errno.ENOSPC,
    "INTERRUPT": errno.EINTR,
    "IOERR": errno.EIO,
    "PERM": errno.EACCES,
    "READONLY": errno.EROFS,
}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says in one line what SQLite's errors mean for a search."""
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite may quote a damaged name
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        kind = name.split("_")[1]
        if kind == "BUSY":
            raise RunFolderError(
                f"{path.parent} is in use by another search, expected to be the only one (or the "
                "file system has no locks)"
            ) from None
        if name.endswith("LOCK"):
            raise RunFolderError(
                f"{path.parent} is on a file system without locks, expected a folder on another"
            ) from None
        if kind in _ERRORS:
            raise OSError(_ERRORS[kind], str(error), str(path)) from None
        raise CorruptLogError(f"{path} is damaged: {error}") from None
