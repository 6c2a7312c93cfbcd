"""The record of a search: an SQLite database in memory, or in a folder that a crash cannot harm.

The folder of a search holds

- ``run.db``, the truth: the question (everything that decides the results), every round, every
  segment's scores, every checkpoint with its digest, every reading of the test set, notes;
- ``checkpoint-N.safetensors``, the two latest states of the population, after N segments.

Table ``records`` has one JSON object a row, on the disk before ``append`` returns. The digest of a
row covers all rows before, so a record that was changed, lost or doubled is noticed. The views
``trials`` and ``curves`` are for people: ``sqlite3 run.db 'select * from trials'``.

A search locks ``run.db`` until it ends. The write-ahead log ``run.db-wal`` costs one wait for the
disk a record instead of four; locked, the log needs no shared memory, so network file systems
will do. After the end, ``run.db`` is a plain file again. A folder that is refused stays unchanged.
"""

import errno
import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxnn import distributed, files
from jaxnn.extras import require
from jaxnn.search.methods import Round, Trial
from jaxnn.search.space import readable
from jaxnn.train import NEVER, Metrics

Record = dict[str, Any]

DATABASE, EARLIER = "run.db", "search.log"  # the second: of versions before 0.2
_KEPT = 2  # checkpoints
_CHECKPOINT = re.compile(r"checkpoint-\d+\.safetensors")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # of ``atomic_write``

_SCHEMA = (
    "CREATE TABLE records "
    "(number INTEGER PRIMARY KEY AUTOINCREMENT, record TEXT NOT NULL, digest TEXT NOT NULL)",
    f"""CREATE VIEW curves AS
SELECT trial.value AS trial, replicate.key AS replicate,
  json_extract(record, '$.evaluation') AS evaluation,
  json_extract(replicate.value, '$[' || trial.key || ']') AS loss,
  json_extract(record, '$.error[' || replicate.key || '][' || trial.key || ']') AS error,
  nullif(json_extract(record, '$.diverged_at[' || replicate.key || '][' || trial.key || ']'),
    {NEVER}) AS diverged_at
FROM records, json_each(record, '$.trials') AS trial, json_each(record, '$.loss') AS replicate
ORDER BY 1, 2, 3""",
    """CREATE VIEW trials AS
WITH begun AS (
  SELECT json_extract(value, '$.trial') AS trial, json_extract(value, '$.parent') AS copied_from,
    json_extract(value, '$.config') AS config, min(number)
  FROM records, json_each(record, '$.trials')
  WHERE json_type(record, '$.round') IS NOT NULL GROUP BY 1),
means AS (
  SELECT trial, evaluation, min(diverged_at) AS diverged_at,
    CASE WHEN count(loss) = count(*) THEN avg(loss) END AS loss,
    CASE WHEN count(error) = count(*) THEN avg(error) END AS error
  FROM curves GROUP BY trial, evaluation),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY trial ORDER BY loss IS NULL, CASE (
    SELECT json_extract(record, '$.search.task.measure') FROM records LIMIT 1
    ) WHEN 'loss' THEN loss ELSE error END, evaluation) AS place,
    max(evaluation) OVER (PARTITION BY trial) AS evaluations,
    min(diverged_at) OVER (PARTITION BY trial) AS diverged FROM means)
SELECT trial, copied_from, config, evaluations,
  CASE WHEN diverged IS NULL THEN evaluation END AS best_evaluation,
  CASE WHEN diverged IS NULL THEN loss END AS loss,
  CASE WHEN diverged IS NULL THEN error END AS error, diverged AS diverged_at
FROM begun LEFT JOIN ranked USING (trial) WHERE place IS 1 OR place IS NULL ORDER BY trial""",
)

logger = logging.getLogger("jaxnn.search")


class RunFolderError(ValueError):
    """A folder that cannot hold this search, or does not hold a search."""


class CorruptLogError(files.DamagedFileError):
    """The records of a search are not the records that were written."""


class ReproducibilityError(ValueError):
    """A search that went on and found other bits than before."""


class Journal:
    """The records of a search; use a journal within ``with``, which locks the folder.

    Attributes:
      records: all records after the question.
    """

    def __init__(self, folder: Path | str | None = None, question: Mapping[str, Any] | None = None):
        """Names the folder and the search.

        Args:
          folder: created if need be; None keeps the records in memory, and no checkpoints.
          question: what decides the results, in JSON's types.
        """
        self._database: sqlite3.Connection | None = None
        self.records: list[Record] = []
        self._folder = None if folder is None else Path(folder)
        self._path = Path(":memory:") if folder is None else Path(folder) / DATABASE
        self._question: Record = json.loads(json.dumps(question or {}))
        self._digest = ""

    def __enter__(self) -> "Journal":
        """Opens the database: a new one, or the same search again.

        Raises:
          RunFolderError: another search is at work in the folder, or the folder holds something
            else, or a search with another question.
          CorruptLogError: the database is damaged.
          OSError: the database cannot be read or written.
        """
        if self._folder:
            require("safetensors", "safetensors")
            _make_folder(self._folder)
            if not self._path.exists() or not self._path.stat().st_size:
                _refuse_others(self._folder)
        try:
            with _explained(self._path):
                self._open()
        except BaseException:
            self._close()
            raise
        for path in self._folder.iterdir() if self._folder else ():
            if _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the folder; records in memory stay."""
        if self._folder and self._database:
            with suppress(sqlite3.Error):  # on a full disk the records stay in the write-ahead log
                self._database.execute("PRAGMA journal_mode=DELETE")
            self._close()

    def __del__(self):
        self._close()

    def _open(self) -> None:
        if self._database is None:
            self._database = sqlite3.connect(
                self._path, timeout=1, isolation_level=None, check_same_thread=False
            )
        database = self._database
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        found = database.execute("SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        schema = tuple(sql for (sql,) in found)
        if not schema:
            if self._folder:
                _refuse_others(self._folder)
            for statement in _SCHEMA:
                database.execute(statement)
            self.records, self._digest = [], ""
            self._insert({"search": self._question})
        database.execute("COMMIT")
        if schema and schema != _SCHEMA:
            raise CorruptLogError(f"{self._path} is damaged, or no search of this version of jaxnn")
        question, *self.records = self._read(database)
        if differing := differences(question["search"], self._question):
            raise RunFolderError(
                f"{self._folder} holds another search: {'; '.join(differing)}; expected the same "
                "search or another folder"
            )
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA journal_mode=WAL")

    def _close(self) -> None:
        if self._database:
            self._database.close()
        self._database = None

    def _read(self, database: sqlite3.Connection) -> list[Record]:
        """All records, the question first."""
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise CorruptLogError(f"{self._path} is damaged: {' '.join(found.split())}")
        (last,) = database.execute("SELECT max(seq) FROM sqlite_sequence").fetchone()
        records: list[Record] = []
        self._digest = ""
        rows = "SELECT number, CAST(record AS BLOB), CAST(digest AS BLOB) FROM records ORDER BY 1"
        for number, text, digest in database.execute(rows):
            self._digest = _digest(self._digest, text)
            if (number, digest) != (len(records) + 1, self._digest.encode()):
                raise CorruptLogError(
                    f"{self._path} is damaged: record {len(records) + 1} fails its checksum"
                )
            records.append(json.loads(text))
        if last != len(records) or not records:
            raise CorruptLogError(f"{self._path} is damaged: {len(records)} of {last} records left")
        return records

    def _insert(self, record: Record) -> None:
        """Adds a row."""
        assert self._database is not None
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
        digest = _digest(self._digest, text.encode())
        row = (len(self.records) + 2 if self._digest else 1, text, digest)
        self._database.execute("INSERT INTO records VALUES (?, ?, ?)", row)
        self._digest = digest

    def _append(self, record: Record) -> None:
        with _explained(self._path):
            self._insert(record)
        self.records.append(record)

    def append(self, record: Record) -> None:
        """Adds a record, and waits until the record is on the disk.

        Raises:
          OSError: the record could not be written; the database is as before.
        """
        self._append(record)

    def save(self, segment: int, arrays: files.Arrays) -> None:
        """Writes a checkpoint, then records the digest, then deletes the checkpoint before last.

        Args:
          segment: how many segments the population has been trained for.
          arrays: the state of the population.
        """
        if not self._folder:
            return
        name = f"checkpoint-{segment}.safetensors"
        digest = files.save_arrays(self._folder / name, arrays)
        self._append({"checkpoint": segment, "file": name, "sha256": digest})
        kept = {record["file"] for record in self._checkpoints()}
        for path in self._folder.iterdir():
            if _CHECKPOINT.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest intact checkpoint: (segments, arrays); (0, {}) if there is none.

        A damaged checkpoint is passed over, with a note in the records.
        """
        for record in self._checkpoints():
            assert self._folder is not None
            try:
                _, arrays = files.load_arrays(self._folder / record["file"], record["sha256"])
            except (OSError, files.DamagedFileError) as error:
                note = f"{error}; the search goes on from an earlier state"
                logger.warning(note)
                self._append({"note": note, "file": record["file"]})
                continue
            return record["checkpoint"], arrays
        return 0, {}

    def _checkpoints(self) -> list[Record]:
        """The records of checkpoints that are kept and not known to be damaged, latest first."""
        kept: list[Record] = []
        for record in self.records:
            if "checkpoint" in record:
                kept = [record, *kept][:_KEPT]
            elif "file" in record:
                kept = [known for known in kept if known["file"] != record["file"]]
        return kept


class SharedJournal(Journal):
    """A journal of several processes: all have the records, process 0 alone has the folder.

    Every method is collective, and raises the errors of process 0, such as a full disk, everywhere.
    """

    def __enter__(self) -> "SharedJournal":
        """Opens the database in process 0."""
        self.records = []
        self._on_first(super().__enter__)
        return self

    def append(self, record: Record) -> None:
        """Adds a record.

        Raises:
          ValueError: the processes have different records, times apart.
        """
        _require_alike(next(iter(record)), {**record, "seconds": None})
        self._on_first(partial(super().append, record))

    def save(self, segment: int, arrays: files.Arrays) -> None:
        """Process 0 writes a checkpoint; every process has the whole population."""
        self._on_first(partial(super().save, segment, arrays))

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest intact checkpoint."""
        work = super().restore

        def read() -> bytes:
            segment, arrays = work()
            return segment.to_bytes(8) + files.pack(arrays)[0] if segment else b""

        content = self._on_first(read)
        if not content:
            return 0, {}
        _, arrays = files.unpack(content[8:], "the state of process 0")
        return int.from_bytes(content[:8]), arrays

    def _on_first(self, work: Callable[[], Any]) -> bytes:
        """What ``work`` returns in process 0; every process learns the new records."""
        known = len(self.records)

        def answer() -> bytes:
            done = work()
            news = json.dumps(self.records[known:]).encode()
            return len(news).to_bytes(8) + news + (done if isinstance(done, bytes) else b"")

        received = distributed.from_first(answer)
        end = 8 + int.from_bytes(received[:8])
        self.records[known:] = json.loads(received[8:end])
        return received[end:]


def open_journal(folder: Path | str | None, question: Mapping[str, Any]) -> Journal:
    """The journal of a search; ``SharedJournal`` where several processes work on the search.

    Raises:
      ValueError: the processes have different questions.
    """
    if distributed.process_count() == 1:
        return Journal(folder, question)
    for name, value in question.items():
        _require_alike(name, value)
    return SharedJournal(folder, question)


def _require_alike(name: str, value: Any) -> None:
    if unlike := distributed.unlike_first(json.dumps(value).encode()):
        raise ValueError(
            f"process {unlike[0]} has another {name} than process 0, expected the same call, "
            "data, software and kind of machine in all processes"
        )


class Recorder:
    """Adds records to a journal; records that the journal has already must be the same again."""

    def __init__(self, journal: Journal):
        """Looks at the records of the journal."""
        self._journal = journal
        self._known = {
            kind: [record for record in journal.records if kind in record]
            for kind in ("round", "segment")
        }

    def read(self, kind: str, number: int) -> Record:
        """A record that was there at the beginning."""
        return self._known[kind][number]

    def add(self, kind: str, number: int, record: Record) -> None:
        """Adds a record, or compares all but ``seconds`` with the record that is there.

        Raises:
          ReproducibilityError: the records differ.
        """
        if number >= len(self._known[kind]):
            self._journal.append(record)
            return
        was = self._known[kind][number] | {"seconds": None}
        differing = differences(was, json.loads(json.dumps(record)) | {"seconds": None})
        if differing:
            raise ReproducibilityError(
                f"{kind} {number} is not what the record has: {differing[0]}; expected the same "
                "bits, as the same machine and software give"
            )


def round_record(number: int, requested: Round) -> Record:
    """The trials that a method has asked for."""
    trials = [
        {"trial": t.number, "parent": t.parent, "config": readable(t.config)}
        for t in requested.trials
    ]
    return {"round": number, "until": requested.until, "trials": trials}


def segment_record(
    segment: int,
    number: int,
    evaluation: int,
    trials: Sequence[Trial],
    metrics: Metrics,
    diverged_at: np.ndarray,
    seconds: float,
) -> Record:
    """The metrics [R, K] of a segment of round ``number``; None for diverged replicates."""
    known = diverged_at == NEVER
    return {
        "segment": segment,
        "in_round": number,
        "evaluation": evaluation,
        "trials": [trial.number for trial in trials],
        "diverged_at": diverged_at.tolist(),
        "seconds": seconds,
        **{
            name: np.where(known & np.isfinite(values), np.asarray(values, float), None).tolist()
            for name, values in metrics._asdict().items()
        },
    }


def measured(record: Record) -> tuple[Metrics, np.ndarray]:
    """The metrics and divergences [R, K] in the record of a segment."""
    metrics = Metrics(*(np.array(record[name], np.float64) for name in Metrics._fields))
    return metrics, np.array(record["diverged_at"], np.int32)


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where two records of a search differ: ``method.count is 64, in the folder 32``."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            line
            for name in dict.fromkeys([*was, *now])
            for line in differences(
                was.get(name), now.get(name), f"{path}.{name}" if path else name
            )
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = enumerate(zip(was, now, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{path}[{i}]")]
    if was == now:
        return []
    return [f"{path} is {_short(now)}, in the folder {_short(was)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _digest(before: str, text: bytes) -> str:
    return hashlib.sha256(before.encode() + text).hexdigest()


def _make_folder(folder: Path) -> None:
    """Creates the folder and all folders above, so that a power cut leaves them."""
    if folder.is_dir():
        return
    if folder.exists():
        raise RunFolderError(f"{folder} is a file, expected a folder")
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    files.sync_folder(folder.parent)


def _refuse_others(folder: Path) -> None:
    """Refuses a folder that holds something and no search."""
    names = sorted(path.name for path in folder.iterdir())
    if EARLIER in names:
        raise RunFolderError(
            f"{folder} holds {EARLIER}, a search by a version of jaxnn before 0.2, expected an "
            "empty folder or a search by this version"
        )
    others = [name for name in names if not name.startswith((".", DATABASE))]
    if others:
        raise RunFolderError(
            f"{folder} holds {others[0]} and no search, expected an empty folder or one of a search"
        )


_ERRORS = {
    "FULL": errno.ENOSPC,
    "CANTOPEN": errno.EACCES,
    "READONLY": errno.EROFS,
    "PERM": errno.EACCES,
    "IOERR": errno.EIO,
    "INTERRUPT": errno.EINTR,
}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says in one line what an error of SQLite means for a search."""
    try:
        yield
    except UnicodeDecodeError:  # the message of SQLite has a damaged name
        raise CorruptLogError(f"{path} is damaged: file is not a database") from None
    except sqlite3.Error as error:
        _, kind, *detail = getattr(error, "sqlite_errorname", "SQLITE_ERROR").split("_")
        if kind == "BUSY":
            raise RunFolderError(
                f"{path.parent} is in use by another search, expected to be the only one (or the "
                "file system has no locks)"
            ) from None
        if kind == "IOERR" and {"LOCK", "UNLOCK", "RDLOCK"} & set(detail):
            raise RunFolderError(
                f"{path.parent} is on a file system without locks, expected a folder on another"
            ) from None
        if kind in _ERRORS:
            raise OSError(_ERRORS[kind], str(error), str(path)) from None
        raise CorruptLogError(f"{path} is damaged: {error}") from None
