"""The least time that a row of the benchmark could have taken: the roofline model.

For one model and step:

- arithmetic: the matrix products (``problem.flops_per_step``); elementwise functions are free.
- minibatch: the rows are read once, from the training examples in memory or in the cache that holds
  the examples: 1 byte per pixel for jaxnn, 4 for the peers, which keep floating point. Models
  trained together share a reading: a block on jaxnn's devices, all models under ``vmap``.
- parameters: read once and written once, 8 bytes each, in the cache that holds the parameters of
  the models that a core has in hand.
- activations and gradients: free. A fully fused program would write none.

The bound is the longer of two times: arithmetic at the measured peak, and bytes at the measured
bandwidth of their working sets. A row has the peak and the caches of its cores, but all of the
bandwidth to the examples, which any core may read. The distance is the measured time
over the bound. The model is Williams, Waterman and Patterson's (2009).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.machine import bandwidth_at
from experiments.benchmark.problem import BATCH_SIZE, cores_name, flops_per_step, network_name
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size


class Bound(NamedTuple):
    """A row's work and least time, per model and step; times in microseconds."""

    flops: int
    bytes: float
    intensity: float  # FLOP per byte
    arithmetic: float
    memory: float
    least: float  # the bound: the longer of the two times
    binds: str  # "arithmetic" or "memory"
    measured: float
    distance: float  # measured over least
    share: float  # the row's part of the machine's devices


def bound(row: Mapping[str, Any], machine: Mapping[str, Any]) -> Bound:
    """The bound of a training, on a machine with the ceilings of ``parts.roofline``."""
    sizes, measured = tuple(row["sizes"]), row["microseconds"]["median"]
    flops = flops_per_step(sizes)
    on_cpu = machine["platform"] == "cpu"
    share = min(1.0, row["cores"] / machine["devices"]) if on_cpu else 1.0
    sharing, in_hand = company(row, machine["platform"])
    pixels = sizes[0] * (1 if row["contender"] == "jaxnn" else 4)  # bytes of an example
    parameters = sum(o * (i + 1) for i, o in pairwise(sizes))
    examples_bytes, parameter_bytes = BATCH_SIZE * pixels / sharing, 8 * parameters
    examples_rate = bandwidth_at(machine["bandwidth"], machine["training_examples"] * pixels)
    parameter_rate = bandwidth_at(machine["bandwidth"], 4 * parameters * in_hand) * share
    moved = examples_bytes + parameter_bytes
    arithmetic = flops / machine["peak_gflops"]["median"] / share / 1e3
    memory = (examples_bytes / examples_rate + parameter_bytes / parameter_rate) / 1e3
    least, binds = max((arithmetic, "arithmetic"), (memory, "memory"))
    times = arithmetic, memory, least, binds, measured, measured / least
    return Bound(flops, moved, flops / moved, *times, share)


def company(row: Mapping[str, Any], platform: str) -> tuple[int, int]:
    """How many models share a reading of the minibatch, and how many a core has in hand."""
    models = row["models"]
    if row["contender"] == "jaxnn":
        spec = Spec(model=MLP(tuple(row["sizes"])), steps=1, batch_size=BATCH_SIZE)
        block = row.get("models_on_a_core") or default_block_size(spec, platform, models)
        return min(block, models), min(block, models)
    if CONTENDERS[row["contender"]].whole_population:
        return models, math.ceil(models / row["cores"])
    return 1, 1


class Line(NamedTuple):
    """A row of a part with its bound, for the roofline page and figure."""

    part: str
    row: Mapping[str, Any]
    bound: Bound
    group: str  # the title of the lines shown together
    series: str  # contender and place; within a group, lines of a series differ in ``models``
    name: str  # different for all lines of a group


def line_of(part: str, row: Mapping[str, Any], machine: Mapping[str, Any]) -> Line:
    """The line of a row, which takes fewer entries from ``scale``."""
    network, models = network_name(row["sizes"]), row["models"]
    cores, processes = row["cores"], row.get("processes", 1)
    words = [row["label"] + (f" {network}" if part == "scale" else "")]
    words += [cores_name(cores)] if cores is not None else []  # None: an accelerator
    words += [f"{processes} processes"] if processes > 1 else []
    name = series = ", ".join(words)
    group = f"{'One model' if models == 1 else f'{models} models'} {network}"
    if part == "scale":
        name, group = f"{series}, models: {models:,}", f"Scale, {row.get('question', 'population')}"
    return Line(part, row, bound(row, machine), group, series, name)
