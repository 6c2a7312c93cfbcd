"""Who knew a good model first: the accuracy to be reached, and what a search that never does costs.

What is to be reached is the best accuracy that the slowest search finds. A peer that does not find
it is counted with all of its time, as if it had found it at the very end; jaxnn, with infinity.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.part import figures, median
from experiments.benchmark.searches.watching import Watched

STARTS = "cold", "warm"
Runs = Mapping[str, Mapping[str, Watched]]  # of a repetition: by searcher, then by start


def target(runs: Runs) -> int:
    """What the slowest search of a repetition finds; of equally slow ones, the better one."""
    return max((run["cold"].seconds, run["cold"].best) for run in runs.values())[1]


def compared(repetitions: Sequence[Runs], examples: int) -> dict[str, Any]:
    """The targets, and for every search its figures; those of all of its repetitions.

    Args:
      repetitions: of the same searches.
      examples: that validate.

    Returns:
      ``target`` and ``searches``, in which ``to_target`` is None where it was not reached.
    """
    targets = [target(runs) for runs in repetitions]

    def row(name: str) -> dict[str, Any]:
        mine = [runs[name] for runs in repetitions]
        found: dict[str, Any] = {"accuracy": figures(run["cold"].best / examples for run in mine)}
        for start in STARTS:
            watched = [run[start] for run in mine]
            reached = [w.reached(right) for w, right in zip(watched, targets, strict=True)]
            found[start] = {
                "imported": figures(w.imported for w in watched),
                "first_score": figures(w.first_score for w in watched),
                "whole": figures(w.seconds for w in watched),
                "to_target": {"values": reached},
                "moments": [w.moments for w in watched],
            }
        return found

    return {
        "target": figures(right / examples for right in targets),
        "searches": {name: row(name) for name in repetitions[0]},
    }


def counted(row: Mapping[str, Any], start: str, *, ours: bool) -> float:
    """The median time to the accuracy, with what counts where it was not reached."""
    found = row[start]
    wholes = found["whole"]["values"]
    return median(
        (math.inf if ours else whole) if reached is None else reached
        for reached, whole in zip(found["to_target"]["values"], wholes, strict=True)
    )


class Fastest(NamedTuple):
    """A search, and its median time to the accuracy."""

    name: str
    seconds: float


def fastest(rows: Mapping[str, Mapping[str, Any]], start: str, *, ours: bool) -> Fastest:
    """The first of some searches to reach the accuracy."""
    found = [Fastest(name, counted(row, start, ours=ours)) for name, row in rows.items()]
    return min(found, key=lambda each: each.seconds)
