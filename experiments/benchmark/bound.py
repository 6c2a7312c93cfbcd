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
    """A row's arithmetic, bytes and least time, per model and step."""

    flops: int
    bytes: float
    arithmetic: float  # microseconds
    memory: float  # microseconds
    measured: float  # microseconds
    share: float  # the row's part of the machine's devices

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
        """The longer of the two times, by name."""
        return "arithmetic" if self.arithmetic >= self.memory else "memory"

    @property
    def distance(self) -> float:
        """Measured time over the bound."""
        return self.measured / self.least


def bound(row: Mapping[str, Any], machine: Mapping[str, Any]) -> Bound:
    """The bound of one row.

    Args:
      row: a training: ``sizes``, ``contender``, ``models``, ``cores``, ``microseconds``, and
        ``models_on_a_core`` where jaxnn's default has been different.
      machine: the ceilings, as measured by ``parts.roofline``.
    """
    sizes, ours = tuple(row["sizes"]), row["contender"] == "jaxnn"
    flops = flops_per_step(sizes)
    on_cpu = machine["platform"] == "cpu"
    share = min(1.0, row["cores"] / machine["devices"]) if on_cpu else 1.0
    sharing, in_hand = company(row, machine["platform"])
    pixels = sizes[0] * (1 if ours else 4)  # bytes of an example
    parameters = sum(o * (i + 1) for i, o in pairwise(sizes))
    examples_bytes, parameter_bytes = BATCH_SIZE * pixels / sharing, 8 * parameters
    examples_rate = bandwidth_at(machine["bandwidth"], machine["training_examples"] * pixels)
    parameter_rate = bandwidth_at(machine["bandwidth"], 4 * parameters * in_hand) * share
    return Bound(
        flops=flops,
        bytes=examples_bytes + parameter_bytes,
        arithmetic=flops / machine["peak_gflops"]["median"] / share / 1e3,
        memory=(examples_bytes / examples_rate + parameter_bytes / parameter_rate) / 1e3,
        measured=row["microseconds"]["median"],
        share=share,
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


class Line(NamedTuple):
    """A row of a part with its bound, for the roofline page and figure."""

    part: str
    row: Mapping[str, Any]
    bound: Bound

    @property
    def group(self) -> str:
        """The title of the lines shown together."""
        if self.part == "scale":
            return f"Scale, {self.row.get('question', 'population')}"
        models = self.row["models"]
        return f"{'One model' if models == 1 else f'{models} models'} {self._network}"

    @property
    def series(self) -> str:
        """Contender and place; within a group, lines of a series differ in ``models``."""
        cores, processes = self.row["cores"], self.row.get("processes", 1)
        words = [self.row["label"] + (f" {self._network}" if self.part == "scale" else "")]
        if cores is not None:  # None: an accelerator
            words.append(cores_name(cores))
        if processes > 1:
            words.append(f"{processes} processes")
        return ", ".join(words)

    @property
    def name(self) -> str:
        """Different for all lines of a group."""
        return self.series + (f", models: {self.row['models']:,}" if self.part == "scale" else "")

    @property
    def _network(self) -> str:
        return network_name(self.row["sizes"])
