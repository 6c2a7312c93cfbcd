"""How fast the devices move bytes, by the size of what they go through again and again.

STREAM's triad, a = b + s c (McCalpin, 1995), on every device at once, each with arrays of its own.
A small working set stays in a core's first cache, a large one comes from memory every time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.benchmark.machine import seconds_of_call
from experiments.benchmark.part import figures
from jaxnn.devices import population_mesh
from jaxnn.types import Array

WORKING_SETS = tuple(2**power for power in (15, 17, 19, 21, 23, 25, 27, 28))  # 32 KB to 256 MB
MOVED, QUICK_MOVED = 2**30, 2**24  # bytes per device in a timed call, at least


def measure(
    working_sets: Sequence[int], *, moved: int = MOVED, repeats: int = 5
) -> list[dict[str, Any]]:
    """The rate of all devices together, for each working set.

    Args:
      working_sets: bytes of the three arrays of one device.
      moved: bytes that a device moves in a timed call, at least.
      repeats: timed calls.

    Returns:
      Per working set its ``bytes``, and ``gigabytes_per_second``: 12 bytes per element and triad,
      which leaves out that some processors read what they are about to overwrite.
    """
    mesh = population_mesh()
    return [
        {
            "bytes": size,
            "gigabytes_per_second": figures(rates(mesh, size, math.ceil(moved / size), repeats)),
        }
        for size in working_sets
    ]


def rates(mesh: Mesh, working_set: int, triads: int, repeats: int) -> list[float]:
    """Gigabytes per second of all devices, one rate per timed call."""
    count = working_set // 12
    sharding = NamedSharding(mesh, PartitionSpec("population"))
    a, b, c = (jnp.full((mesh.size, count), value, device=sharding) for value in (0.0, 1.0, 2.0))
    program = repeated_triad(mesh, triads)

    def call() -> Array:
        nonlocal a
        a = program(a, b, c)
        return a

    return [mesh.size * triads * 12 * count / s / 1e9 for s in seconds_of_call(call, repeats)]


def repeated_triad(mesh: Mesh, triads: int) -> Callable[[Array, Array, Array], Array]:
    """So many triads one after another on every device, on arrays [devices, count].

    The result takes the place of ``a``: fresh memory would have to be paged in first.
    """

    def triad(number: Array, _: Array, b: Array, c: Array) -> Array:
        return b + number.astype(c.dtype) * c  # another s every time: there is nothing to reuse

    def repeat(a: Array, b: Array, c: Array) -> Array:
        return jax.lax.fori_loop(0, triads, partial(triad, b=b, c=c), a)

    spec = PartitionSpec("population")
    sharded = jax.shard_map(repeat, mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.jit(sharded, donate_argnums=0)


def at(measured: Sequence[Mapping[str, Any]], working_set: float) -> float:
    """Gigabytes per second that a working set can count on: the best of all at least as large.

    It fits wherever a larger one does; that the smallest ones seem slower is the cost of starting
    each triad. Beyond the largest that was measured, its rate.
    """
    rate = {entry["bytes"]: entry["gigabytes_per_second"]["median"] for entry in measured}
    return max(rate[size] for size in rate if size >= min(working_set, max(rate)))


def size_name(working_set: int) -> str:
    """As in 32 KB, 2 MB."""
    return f"{working_set >> 20} MB" if working_set >= 2**20 else f"{working_set >> 10} KB"
