"""The least time that a row of the benchmark could have taken: the roofline model.

For one model and step:

- arithmetic: the matrix products (``problem.flops_per_step``); elementwise functions are free.
- minibatch: its rows are read once, from the training examples in memory or in the cache that holds
  them: 1 byte per pixel for jaxnn, 4 for the others, which keep floating point. Models that train
  together share one reading: a block on jaxnn's devices, all models under ``vmap``.
- parameters: read once and written once, 8 bytes each, in the cache that holds the parameters which
  a core has in hand.
- activations and gradients: free. A program that fused everything would never write them.

The bound is the longer of two times: arithmetic at the measured peak, and bytes at the measured
bandwidth of the working sets they belong to. A row has the peak and the caches of its own cores
alone, but all of the bandwidth to the examples, which lie where any core may read them. What it
needs beyond the bound is its distance. The model is Williams, Waterman and Patterson's (2009).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from experiments.benchmark.bandwidth import at
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.problem import BATCH_SIZE, flops_per_step
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size


class Bound(NamedTuple):
    """A row's arithmetic, bytes and least time, per model and step."""

    flops: int
    bytes: float
    arithmetic: float  # microseconds
    memory: float  # microseconds
    measured: float  # microseconds
    share: float  # of the machine's devices that the row had

    @property
    def intensity(self) -> float:
        """Floating-point operations per byte."""
        return self.flops / self.bytes

    @property
    def least(self) -> float:
        """The bound, in microseconds."""
        return max(self.arithmetic, self.memory)

    @property
    def binds(self) -> str:
        """Which of the two it is."""
        return "arithmetic" if self.arithmetic >= self.memory else "memory"

    @property
    def distance(self) -> float:
        """Measured time over the bound."""
        return self.measured / self.least


def bound(row: Mapping[str, Any], machine: Mapping[str, Any]) -> Bound:
    """The bound of one row.

    Args:
      row: of a part that trains: ``sizes``, ``contender``, ``models``, ``cores``,
        ``microseconds``, and ``models_on_a_core`` where jaxnn's default has been another.
      machine: what ``parts.roofline`` measured.
    """
    flops = flops_per_step(tuple(row["sizes"]))
    on_cpu = machine["platform"] == "cpu"
    share = min(1.0, row["cores"] / machine["devices"]) if on_cpu else 1.0
    examples, parameters = traffic(row, machine)
    nanoseconds = examples.nanoseconds(machine) + parameters.nanoseconds(machine) / share
    return Bound(
        flops=flops,
        bytes=examples.bytes + parameters.bytes,
        arithmetic=flops / machine["peak_gflops"]["median"] / share / 1e3,
        memory=nanoseconds / 1e3,
        measured=row["microseconds"]["median"],
        share=share,
    )


class Stream(NamedTuple):
    """Bytes that move, of one model and step."""

    bytes: float
    working_set: float  # bytes that they are some of

    def nanoseconds(self, machine: Mapping[str, Any]) -> float:
        """With all devices at it."""
        return self.bytes / at(machine["bandwidth"], self.working_set)


def traffic(row: Mapping[str, Any], machine: Mapping[str, Any]) -> tuple[Stream, Stream]:
    """The minibatch, and the parameters."""
    sizes = tuple(row["sizes"])
    sharing, in_hand = company(row, machine["platform"])
    pixels = sizes[0] * (1 if row["contender"] == "jaxnn" else 4)
    parameters = sum(o * (i + 1) for i, o in pairwise(sizes))
    return (
        Stream(BATCH_SIZE * pixels / sharing, machine["training_examples"] * pixels),
        Stream(8 * parameters, 4 * parameters * in_hand),
    )


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
