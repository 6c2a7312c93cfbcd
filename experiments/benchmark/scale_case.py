"""The process of one case of the part ``scale``: its peak memory is that of the case alone.

Its argument is a JSON object: ``sizes``, ``models``, ``steps``, ``repetitions``, ``data`` (the
folder of the examples) and ``cores`` (those of the case, or null on an accelerator). It prints one
line of JSON.
"""

import json
import sys
from pathlib import Path
from typing import Any

from experiments.benchmark.worker import confine

RATES = 1e-3, 1e-1  # smallest and largest learning rate


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Trains the population a few times, the peak of the moment measured after each."""
    # Not before the process is confined: the number of threads is decided on import.
    import jax
    import numpy as np

    from experiments.benchmark.machine import peak_gflops, processor
    from experiments.benchmark.problem import flops_per_step, restore
    from jaxnn import MLP, Hyper, Spec, train_population
    from jaxnn.devices import population_mesh
    from jaxnn.population import Population, default_block_size

    problem = restore(Path(job["data"]), tuple(job["sizes"]))
    models, platform = job["models"], jax.default_backend()
    spec = Spec(MLP(problem.sizes), job["steps"], problem.batch_size)
    mesh = population_mesh(min(models, len(jax.devices())))
    block_size = min(default_block_size(spec, platform, models), -(-models // mesh.size))
    hyper = Hyper(np.geomspace(*RATES, models), problem.l2)

    def train(seed: int) -> Population:
        key = jax.random.key(seed)
        where = {"block_size": block_size, "mesh": mesh, "keep_params": False}
        return train_population(spec, hyper, key, problem.train, {}, **where)

    found: dict[str, Any] = {
        "device": processor() if platform == "cpu" else jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "block_size": block_size,
        "megabytes_before": peak_megabytes(),
    }
    microseconds, shares, peaks = [], [], []
    for seed in range(job["repetitions"]):
        population = train(seed)
        if seed == 0:  # the only one that compiles; measuring the peak takes memory too
            found["compile_seconds"] = population.compile_seconds
            found["megabytes"] = peak_megabytes()
        peaks.append(peak_gflops(repeats=2))
        microseconds.append(1e6 * population.train_seconds / spec.steps / models)
        gflops = flops_per_step(problem.sizes) / microseconds[-1] / 1e3
        shares.append(100 * gflops / float(np.mean(peaks[-2:])))
    return found | {"microseconds": microseconds, "share_of_peak": shares}


def peak_megabytes() -> float:
    """The most memory held so far: the accelerator's, or this process's on CPUs."""
    import resource

    import jax

    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"] / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # which, unlike getrusage, knows nothing of the process that started this
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(job: dict[str, Any]) -> None:
    """Measures the case on its cores, a JAX device each."""
    if job["cores"] is not None:
        confine(job["cores"])
        from jaxnn.devices import use_all_cores

        use_all_cores()
    print(json.dumps(measure(job)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
