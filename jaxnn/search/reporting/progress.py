"""Progress of a search: ``jaxnn.progress`` with the best score and the diverged trials."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from jaxnn import distributed
from jaxnn.progress import Progress
from jaxnn.search.space import TRACED, Space
from jaxnn.search.training.engine import Status

Report = Callable[[Status], None]


@contextmanager
def reporting(
    progress: bool | Report | None,
    space: Space,
    measure: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Report]:
    """Shows the progress of a search, if wanted.

    Args:
      progress: True shows the progress (on the first of several processes); a callable gets every
        ``Status``; None and False are silence.
      space: the searched space; the number of programs is printed at the start.
      measure: the minimised measure, "error" or "loss".
      stream: default: standard error.
      clock: seconds.

    Yields:
      A function of a ``Status``.

    Raises:
      TypeError: progress is neither a bool, nor None, nor a function.
    """
    if callable(progress):
        yield progress
        return
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress is {progress!r}, expected True, None or a function of a Status")
    if not progress or not distributed.is_first():
        yield lambda _: None
        return
    output = stream or sys.stderr
    print(f"search: {programs(space)}", file=output, flush=True)
    with Progress(output, unit="evaluations", summary=True, clock=clock) as shown:
        yield lambda status: shown.report(
            "search", status.done, status.total, describe(status, measure), status.read
        )


def describe(status: Status, measure: str) -> str:
    """The best score and the number diverged: ``best accuracy 92.20%, 3 diverged``."""
    diverged = f"{status.diverged} diverged"
    if not math.isfinite(status.best):
        return diverged
    if measure == "error":
        return f"best accuracy {1 - status.best:.2%}, {diverged}"
    return f"best loss {status.best:.4f}, {diverged}"


def programs(space: Space) -> str:
    """The number of programs that a space needs, and why."""
    static = [name for name in space.searched if name not in TRACED]
    count = space.programs()
    if count == 1:
        return "the space needs 1 program"
    return (
        f"the space needs {count} programs, one for each combination of {', '.join(static)}; "
        "combinations without a trial are not compiled"
    )
