"""What a search remembers: in memory, or in a folder that a crash cannot harm.

The folder of a run holds

- ``search.log``, the truth: first what was asked for, then every round, every segment's scores,
  every checkpoint with its checksum, every reading of the test set;
- ``checkpoint-N.npz``, the two latest states of the population, after N segments;
- ``search.lock``, held by the process that is at work.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxnn import checkpoint
from jaxnn.search.log import Log, Record

LOG, LOCK = "search.log", "search.lock"
_KEPT = 2  # checkpoints

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
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder)
        try:
            self._log = _open_log(self.folder)
            self._records = self._log.records
            self._begin(self._log)
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
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
        elif differing := differences(log.records[0].get("search", {}), self._asked):
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
        kept = {record["file"] for record in self._checkpoints()[:_KEPT]}
        for path in self.folder.glob("checkpoint-*.npz"):
            if path.name not in kept:
                path.unlink()

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest checkpoint that is intact; a damaged one is recorded and passed over."""
        for record in self._checkpoints()[:_KEPT]:
            try:
                arrays = checkpoint.load(self.folder / record["file"], record["sha256"])
            except (OSError, checkpoint.DamagedFileError) as error:
                note = f"{error}; the search goes on from the state before it"
                logger.warning(note)
                self.append({"note": note})
                continue
            return record["checkpoint"], arrays
        return 0, {}

    def _checkpoints(self) -> list[Record]:
        """The records of checkpoints, the latest first, each file once."""
        latest: dict[str, Record] = {}
        for record in reversed(self.records):
            if "checkpoint" in record:
                latest.setdefault(record["file"], record)
        return list(latest.values())


def differences(was: Any, now: Any, path: str = "") -> list[str]:
    """Where two records of a search differ: ``method.count is 64, the folder's 32``."""
    if isinstance(was, dict) and isinstance(now, dict):
        return [
            line
            for name in dict.fromkeys([*was, *now])
            for line in differences(
                was.get(name), now.get(name), f"{path}.{name}" if path else name
            )
        ]
    if was == now:
        return []
    return [f"{path} is {json.dumps(now)}, in the folder {json.dumps(was)}"]


def _locked(folder: Path) -> Any:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunFolderError(
            f"{folder} is in use by another process, expected to be the only one"
        ) from None
    return lock


def _open_log(folder: Path) -> Log:
    own = {LOG, LOCK}
    others = [
        path.name
        for path in folder.iterdir()
        if path.name not in own and not path.name.startswith(("checkpoint-", "."))
    ]
    if others and not (folder / LOG).exists():
        raise RunFolderError(
            f"{folder} holds {sorted(others)[0]} and no {LOG}, expected an empty folder or one of "
            "a search"
        )
    return Log(folder / LOG)
