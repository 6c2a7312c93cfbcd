"""What the machine can do, measured with the means of JAX on all its devices at once."""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.benchmark.part import median
from jaxnn.devices import population_mesh

PEAK_SIZE = 2048


def peak_gflops(repeats: int = 5) -> float:
    """The median rate of a float32 2048 x 2048 matrix product on every device at once."""
    mesh = population_mesh()
    shape = (mesh.size, PEAK_SIZE, PEAK_SIZE)
    matrix = np.random.default_rng(0).random(shape, np.float32)
    square = jax.jit(lambda a: a @ a)
    sharded = jax.device_put(matrix, NamedSharding(mesh, PartitionSpec("population")))
    taken = median(seconds_of_call(lambda: square(sharded), repeats))
    return mesh.size * 2 * PEAK_SIZE**3 / taken / 1e9


def seconds_of_call(function: Callable[[], Any], repeats: int) -> list[float]:
    """The wall times of calls whose result is waited for, after one that compiles."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return taken


def description() -> dict[str, Any]:
    """Which machine this is, and when."""
    device = jax.devices()[0]
    return {
        "processor": processor(),
        "cores": len(usable_cores()),
        "device": f"{len(jax.devices())} x {device.device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def usable_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def processor() -> str:
    """The processor's name, as far as the system says it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
