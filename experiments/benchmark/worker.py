"""The process of a contender: prepares, then trains on request, one line of JSON each way.

``process.hired`` starts the module with a JSON object: ``contender``, ``sizes`` and ``data`` (the
folder of the examples).
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.contender import CONTENDERS, make
from experiments.benchmark.problem import restore


def serve(job: dict[str, Any]) -> None:
    """Trains once per line of standard input; only the training is timed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries is no answer
    train = make(job["contender"], restore(Path(job["data"]), tuple(job["sizes"])))
    at_once = CONTENDERS[job["contender"]].whole_population
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        rates, evaluate = request["rates"], request["evaluate"]
        gc.collect()
        began = time.perf_counter()
        found = [
            train(rate, request["epochs"], request["seed"], evaluate)[1]
            for rate in ([rates] if at_once else rates)
        ]
        seconds = time.perf_counter() - began
        accuracies = np.array(found[0]).T if at_once else np.array(found)  # [K, epochs]
        answer = {"seconds": seconds, "accuracies": accuracies.tolist() if evaluate else None}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
