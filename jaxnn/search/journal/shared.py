"""One journal for a search in several processes: the first one writes it, all know what it says."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxnn import checkpoint, distributed
from jaxnn.search.journal.log import Record
from jaxnn.search.journal.run_folder import Journal


def shared(journal: Journal, asked: Mapping[str, Any]) -> Journal:
    """The journal for all processes; itself if there is only one.

    Args:
      journal: as one process would use it.
      asked: what decides the results, in JSON's types.

    Raises:
      ValueError: the processes were asked for different searches.
    """
    if distributed.process_count() == 1:
        return journal
    for name, value in asked.items():
        if unlike := distributed.unlike_first(json.dumps(value).encode()):
            raise ValueError(
                f"process {unlike[0]} has another {name} than process 0, expected the same call, "
                "data, software and kind of machine in all processes"
            )
    return SharedJournal(journal)


class SharedJournal:
    """A journal of which every process has the records, and only process 0 the files.

    Whatever goes wrong with the files, such as a full disk, is the same error in every process.
    """

    def __init__(self, journal: Journal):
        self._journal = journal  # at work in process 0 alone
        self.records: list[Record] = []

    def __enter__(self) -> "SharedJournal":
        """Opens the journal; raises whatever it raises."""
        self.records = []
        self._ask(self._journal.__enter__)
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the journal; the processes do not wait for each other, one may have failed."""
        if distributed.is_first():
            self._journal.__exit__()

    def append(self, record: Record) -> None:
        """Adds a record.

        Raises:
          ValueError: the processes have different ones, times apart.
        """
        content = json.dumps({**record, "seconds": None}).encode()
        if unlike := distributed.unlike_first(content):
            raise ValueError(
                f"process {unlike[0]} has another {next(iter(record))} than process 0, expected "
                "the same call, data, software and kind of machine in all processes"
            )
        self._ask(lambda: self._journal.append(record))

    def save(self, segment: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps the state of the population, which every process has as a whole."""
        self._ask(lambda: self._journal.save(segment, arrays))

    def restore(self) -> tuple[int, dict[str, np.ndarray]]:
        """The latest state that is intact."""

        def read() -> bytes:
            segment, arrays = self._journal.restore()
            content = io.BytesIO()
            checkpoint.write(content, arrays)
            return segment.to_bytes(8) + content.getvalue()

        content = self._ask(read)
        return int.from_bytes(content[:8]), checkpoint.parse(content[8:], "the state of process 0")

    def _ask(self, work: Callable[[], Any]) -> bytes:
        """What process 0 gets when it does this with its journal; all learn the new records."""

        def answer() -> bytes:
            done = work()
            content = done if isinstance(done, bytes) else b""
            news = json.dumps(self._journal.records[len(self.records) :]).encode()
            return len(news).to_bytes(8) + news + content

        received = distributed.from_first(answer)
        end = 8 + int.from_bytes(received[:8])
        self.records += json.loads(received[8:end])
        return received[end:]
