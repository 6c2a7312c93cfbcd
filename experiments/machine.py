"""The machine's peak and bandwidth, measured with JAX on all devices at once.

- The peak: float32 matrix products of 2048 x 2048.
- The matrix products of a training step alone: the least time of a population's training with XLA's
  kernels, without gathering, activations, loss or update.
- The bandwidth by working set: STREAM's triad, a = b + s c (McCalpin, 1995). A small working set
  stays in a core's first cache, a large one comes from memory every time.
"""

import math
import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.report import figures
from jaxnn.devices import population_mesh
from jaxnn.types import Array

PEAK_SIZE = 2048
BATCH_SIZE = 100  # of a training step
STEPS = 50  # of the matrix products in a timed call
WORKING_SETS = tuple(2**power for power in (15, 17, 19, 21, 23, 25, 27, 28))  # 32 KB to 256 MB
MOVED, QUICK_MOVED = 2**30, 2**24  # least bytes per device in a timed call
SPLIT, WHOLE = PartitionSpec("population"), PartitionSpec()


def description() -> dict[str, Any]:
    """Name, cores, devices and system of this machine, and the date."""
    return {
        "processor": processor(),
        "cores": len(usable_cores()),
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def usable_cores() -> tuple[int, ...]:
    """The numbers of the process's cores."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def processor() -> str:
    """The processor's name, as far as the system tells."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.exists() else ""
    named = re.search(r"^model name\s*:\s*(.*)", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def seconds_of_call(function: Callable[[], Any], repeats: int) -> list[float]:
    """The wall times of calls with a finished result, after a first call for compilation."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - began)
    return taken


def peak_gflops(repeats: int = 5) -> float:
    """The median rate of a float32 2048 x 2048 matrix product on every device at once."""
    mesh = population_mesh()
    matrix = np.random.default_rng(0).random((mesh.size, PEAK_SIZE, PEAK_SIZE), np.float32)
    square = jax.jit(lambda a: a @ a)
    sharded = jax.device_put(matrix, NamedSharding(mesh, SPLIT))
    taken = median(seconds_of_call(lambda: square(sharded), repeats))
    return mesh.size * 2 * PEAK_SIZE**3 / taken / 1e9


def flops_per_step(sizes: tuple[int, ...], batch_size: int = BATCH_SIZE) -> int:
    """Floating-point operations of the matrix products of one model and step.

    A layer has one product forward and two backward, of 2 * B * in * out each; the first layer
    needs no gradient to its input.
    """
    products = [2 * batch_size * i * o for i, o in pairwise(sizes)]
    return 3 * sum(products) - products[0]


def products_microseconds(sizes: tuple[int, ...], models: int, repeats: int = 5) -> float:
    """The matrix products of a step, per model, with ``models`` models on each device at once."""
    mesh = population_mesh()
    count, normal = mesh.size * models, partial(np.random.default_rng(0).standard_normal, dtype="f")
    weights = [normal((count, o, i)) for i, o in pairwise(sizes)]
    minibatch = normal((BATCH_SIZE, sizes[0]))
    hidden = [normal((count, o, BATCH_SIZE)) for o in sizes[1:]]

    def step(_: Array, carry: tuple) -> tuple:  # barriers: every step computes all products, whole
        held, total = jax.lax.optimization_barrier(carry)
        found = jax.lax.optimization_barrier(products(*held))
        return held, total + sum(each[0, 0, :1] for each in found)

    def repeated(*arrays: Any) -> Array:  # a number [1] per device
        return jax.lax.fori_loop(0, STEPS, step, (arrays, jnp.zeros(1)))[1]

    specs = {"in_specs": (SPLIT, WHOLE, SPLIT), "out_specs": SPLIT, "check_vma": False}
    program = jax.jit(jax.shard_map(repeated, mesh=mesh, **specs))
    taken = median(seconds_of_call(lambda: program(weights, minibatch, hidden), repeats))
    return 1e6 * taken / STEPS / count


def products(weights: list[Array], minibatch: Array, hidden: list[Array]) -> list[Array]:
    """The matrix products of one step: forward, of the weights' gradient, and backward.

    Args:
      weights: per layer [K, out, in].
      minibatch: the inputs [B, in] of all models.
      hidden: per layer [K, out, B], in place of activations and of the gradients to them.
    """
    found = [
        jnp.einsum("koi,bi->kob", weights[0], minibatch),
        jnp.einsum("kob,bi->koi", hidden[0], minibatch),
    ]
    for weight, inputs, outputs in zip(weights[1:], hidden, hidden[1:], strict=False):
        found.append(jnp.einsum("koi,kib->kob", weight, inputs))
        found.append(jnp.einsum("kob,kib->koi", outputs, inputs))
        found.append(jnp.einsum("koi,kob->kib", weight, outputs))
    return found


def bandwidth(working_set: int, *, moved: int = MOVED, repeats: int = 5) -> dict[str, Any]:
    """The rate of all devices together; the working set is the bytes of a device's three arrays.

    A triad counts as 12 bytes per element, without the reading of overwritten lines that some
    processors do. A timed call moves at least ``moved`` bytes per device.
    """
    mesh, count, triads = population_mesh(), working_set // 12, math.ceil(moved / working_set)
    sharding, program = NamedSharding(mesh, SPLIT), repeated_triad(mesh, triads)
    a, b, c = (jnp.full((mesh.size, count), value, device=sharding) for value in (0.0, 1.0, 2.0))

    def call() -> Array:
        nonlocal a
        a = program(a, b, c)
        return a

    total = mesh.size * triads * 12 * count
    rates = [total / seconds / 1e9 for seconds in seconds_of_call(call, repeats)]
    return {"bytes": working_set, "gigabytes_per_second": figures(rates)}


def repeated_triad(mesh: Mesh, triads: int) -> Callable[[Array, Array, Array], Array]:
    """``triads`` triads in a row on every device, on arrays [devices, count]; ``a`` is reused."""

    def repeat(a: Array, b: Array, c: Array) -> Array:  # a new s every time: nothing to reuse
        return jax.lax.fori_loop(0, triads, lambda s, _: b + s.astype(c.dtype) * c, a)

    sharded = jax.shard_map(repeat, mesh=mesh, in_specs=SPLIT, out_specs=SPLIT)
    return jax.jit(sharded, donate_argnums=0)  # fresh memory would have to be paged in first


def bandwidth_at(measured: Sequence[Mapping[str, Any]], working_set: float) -> float:
    """Gigabytes per second for a working set: the best rate of the sets at least as large.

    A set fits wherever a larger set does; the smallest sets seem slower by the cost of starting
    each triad. Beyond the largest measured set, the rate of the largest.
    """
    rate = {entry["bytes"]: entry["gigabytes_per_second"]["median"] for entry in measured}
    return max(rate[size] for size in rate if size >= min(working_set, max(rate)))


def size_name(working_set: int) -> str:
    """As in 32 KB, 2 MB."""
    return f"{working_set >> 20} MB" if working_set >= 2**20 else f"{working_set >> 10} KB"
