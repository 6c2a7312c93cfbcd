"""What a search remembers: in memory, or in a folder that a crash cannot harm.

The folder of a run holds

- ``search.log``, the truth: first what was asked for, then every round, every segment's scores,
  every checkpoint with its checksum, every reading of the test set;
- ``checkpoint-N.npz``, the two latest states of the population, after N segments;
- ``search.lock``, held by the process that is at work.

A folder that is refused is left as it is.
"""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxnn import checkpoint
from jaxnn.atomic import sync_folder
from jaxnn.search.journal.log import Log, Record, parse

LOG, LOCK = "search.log", "search.lock"
_KEPT = 2  # checkpoints
_CHECKPOINT = re.compile(r"checkpoint-\d+\.npz")
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")  # of ``atomic_write``

logger = logging.getLogger("jaxnn.search")


class RunFolderError(ValueError):
    """A folder that cannot hold this search, or does not hold one."""


class Journal(Protocol):
    """Where records go, and come from when a search goes on; to be used within ``with``."""

    @property
    def records(self) -> list[Record]:
        """All records after the first."""
        ...

    def append(self, record: Record) -> None:
        """Adds a record for good."""
        ...

    def save(self, segment: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the state of the population after so many segments."""
        ...

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest state that is intact: (segments, arrays); (0, {}) if there is none."""
        ...

    def __enter__(self) -> "Journal": ...

    def __exit__(self, *_: object) -> None: ...


class Memory:
    """A journal that is gone with the process."""

    def __init__(self):
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        """Adds a record."""
        self.records.append(record)

    def save(self, segment: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing: what is in memory needs no second copy."""

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """Nothing."""
        return 0, {}

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class RunFolder:
    """A journal in a folder; within ``with``, no other process can have it."""

    def __init__(self, folder: Path, asked: Mapping[str, Any]):
        """Names the folder and the search.

        Args:
          folder: created if need be.
          asked: what decides the results, in JSON's types.
        """
        self.folder = Path(folder)
        self._asked: Record = json.loads(json.dumps(asked))
        self._log: Log | None = None
        self._records: list[Record] = []

    def __enter__(self) -> "RunFolder":
        """Opens the folder for a search: a new one, or the same one again.

        Raises:
          RunFolderError: another process is at work in it, it holds something else, or a search
            that was asked for something else.
          CorruptLogError: its log is damaged.
          OSError: it cannot be read or written.
        """
        _make_folder(self.folder)
        _refuse_others(self.folder)
        self._lock = _locked(self.folder)
        try:
            self._log = Log(self.folder / LOG)
            self._records = self._log.records
            self._begin(self._log)
            for path in self.folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of the folder."""
        if self._log:
            self._log.close()
        self._lock.release()

    def _begin(self, log: Log) -> None:
        if not log.records:
            log.append({"search": self._asked})
        elif "search" not in log.records[0]:
            raise RunFolderError(f"{log.path} begins with no search, expected the log of one")
        elif differing := differences(log.records[0]["search"], self._asked):
            raise RunFolderError(
                f"{self.folder} holds another search: {'; '.join(differing)}; expected the same "
                "search or another folder"
            )

    @property
    def records(self) -> list[Record]:
        """All records after the first."""
        return self._records[1:]

    def append(self, record: Record) -> None:
        """Adds a record for good."""
        assert self._log is not None
        self._log.append(record)

    def save(self, segment: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes a checkpoint, then records it, then lets the one before the last go."""
        name = f"checkpoint-{segment}.npz"
        digest = checkpoint.save(self.folder / name, arrays)
        self.append({"checkpoint": segment, "file": name, "sha256": digest})
        kept = {record["file"] for record in self._checkpoints()}
        for path in self.folder.iterdir():
            if _CHECKPOINT.fullmatch(path.name) and path.name not in kept:
                path.unlink(missing_ok=True)

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest checkpoint that is intact; a damaged one is recorded and passed over."""
        for record in self._checkpoints():
            try:
                arrays = checkpoint.load(self.folder / record["file"], record["sha256"])
            except (OSError, checkpoint.DamagedFileError) as error:
                note = f"{error}; the search goes on from an earlier state"
                logger.warning(note)
                self.append({"note": note, "file": record["file"]})
                continue
            return record["checkpoint"], arrays
        return 0, {}

    def _checkpoints(self) -> list[Record]:
        """The records of those that are kept and not known to be damaged, the latest first."""
        kept: list[Record] = []
        for record in self.records:
            if "checkpoint" in record:
                kept = [record, *kept][:_KEPT]
            elif "file" in record:
                kept = [other for other in kept if other["file"] != record["file"]]
        return kept


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


def _make_folder(folder: Path) -> None:
    """Creates the folder and those it is in, so that a power cut leaves them all."""
    if folder.is_dir():
        return
    if folder.exists():
        raise RunFolderError(f"{folder} is a file, expected a folder")
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _refuse_others(folder: Path) -> None:
    """Refuses a folder that holds something and no search, before anything is written to it."""
    beginning = b""
    if (folder / LOG).exists():
        with open(folder / LOG, "rb") as file:
            beginning = file.readline()
    records, _, _ = parse(beginning, str(folder / LOG))
    names = (path.name for path in folder.iterdir())
    others = sorted(n for n in names if n not in (LOG, LOCK) and not n.startswith("."))
    if others and not records:
        raise RunFolderError(
            f"{folder} holds {others[0]} and no search, expected an empty folder or one of a search"
        )


def _locked(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(
            f"{folder} is in use by another search, expected to be the only one"
        ) from None
    return lock
