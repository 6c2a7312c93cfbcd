"""The process of a case of the part ``scale``: the peak memory is the memory of the case alone.

The argument is a JSON object: ``sizes``, ``models``, ``steps``, ``repetitions``, ``data`` (the
folder of the examples) and ``cores`` (null on an accelerator). The module prints a line of JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

from experiments.benchmark.worker import confine

RATES = 1e-3, 1e-1  # smallest and largest learning rate


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Trains the population several times, and measures the peak after each training."""
    # Imported after ``confine``: libraries choose the number of threads on import.
    import jax
    import numpy as np

    from experiments.benchmark.machine import peak_gflops, processor
    from experiments.benchmark.problem import flops_per_step, restore
    from jaxnn import MLP, Data, Hyper, Spec, train_population
    from jaxnn.devices import population_mesh
    from jaxnn.population import default_block_size

    problem = restore(Path(job["data"]), tuple(job["sizes"]))
    models, platform = job["models"], jax.default_backend()
    spec = Spec(MLP(problem.sizes), job["steps"], problem.batch_size)
    mesh = population_mesh(min(models, len(jax.devices())))
    block_size = min(default_block_size(spec, platform, models), -(-models // mesh.size))
    hyper = Hyper(np.geomspace(*RATES, models), problem.l2)
    where = {"block_size": block_size, "mesh": mesh, "keep_params": False}
    found: dict[str, Any] = {
        "device": processor() if platform == "cpu" else jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "block_size": block_size,
        "megabytes_before": peak_megabytes(),
    }
    microseconds, shares, peaks = [], [], []
    for seed in range(job["repetitions"]):
        key = jax.random.key(seed)
        population = train_population(spec, hyper, key, Data(*problem.train), {}, **where)
        if seed == 0:  # only the first training compiles; measuring the peak takes memory too
            found["compile_seconds"] = population.compile_seconds
            found["megabytes"] = peak_megabytes()
        peaks.append(peak_gflops(repeats=2))
        microseconds.append(1e6 * population.train_seconds / spec.steps / models)
        gflops = flops_per_step(problem.sizes) / microseconds[-1] / 1e3
        shares.append(100 * gflops / float(np.mean(peaks[-2:])))
    return found | {"microseconds": microseconds, "share_of_peak": shares}


def peak_megabytes() -> float:
    """The highest use of memory so far: of the accelerator, or of the process on CPUs."""
    import resource

    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"] / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, without the memory of the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["cores"] is not None:
        confine(job["cores"])
        from jaxnn.devices import use_all_cores

        use_all_cores()
    print(json.dumps(measure(job)))
