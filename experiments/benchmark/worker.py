"""The process of a contender: prepares, then trains whenever it is asked, one JSON line each way.

Started by ``experiments.benchmark.crew``; its argument is a JSON object with ``contender``,
``sizes``, ``data`` (the folder of the examples) and ``cores``.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TORCHINDUCTOR_COMPILE_THREADS",
)


def confine(cores: list[int]) -> None:
    """Keeps this process to some cores; before the first import of a numerical library."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(len(cores))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def serve(job: dict[str, Any]) -> None:
    """Answers requests until there are no more."""
    from experiments.benchmark.contender import make
    from experiments.benchmark.problem import restore

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    try:
        contender = make(job["contender"], restore(Path(job["data"]), tuple(job["sizes"])))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": str(error)}), file=answers, flush=True)
        return
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        gc.collect()
        began = time.perf_counter()
        accuracies = contender.train(**request)
        seconds = time.perf_counter() - began
        found = None if accuracies is None else accuracies.tolist()
        print(json.dumps({"seconds": seconds, "accuracies": found}), file=answers, flush=True)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    confine(job["cores"])
    serve(job)
