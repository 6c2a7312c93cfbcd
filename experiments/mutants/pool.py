"""Work on the catalogue, claim by claim, in several processes."""

import multiprocessing
from collections.abc import Callable, Sequence
from typing import TypeVar

from pebble import ProcessPool

from experiments.mutants import Case
from jaxnn.reporting import Report

CLAIMS_PER_PROCESS = 25  # compiled programs fill the memory

R = TypeVar("R")


def over_processes(
    function: Callable[..., R],
    cases: Sequence[Case] | Sequence[int],
    *arguments: object,
    workers: int,
    report: Report = lambda done, total: None,
) -> list[R]:
    """``function(case, *arguments)`` for all cases, in the order of the cases.

    Args:
      function: a function at the top of a module, so that processes can import the function.
      cases: the cases; every process takes the next case.
      arguments: further arguments, equal for all cases.
      workers: processes.
      report: called with the number of finished cases and the number of all cases.
    """
    results = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPool(workers, max_tasks=CLAIMS_PER_PROCESS, context=spawn) as pool:
        futures = [pool.schedule(function, args=(case, *arguments)) for case in cases]
        for done, future in enumerate(futures, start=1):
            results.append(future.result())
            report(done, len(cases))
    return results
