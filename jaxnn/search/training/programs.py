"""Which program trains a round: how many trials a device is to train at once.

On few trials small blocks keep all devices busy, on many large ones share more of a minibatch. But
every size is a program of its own, so the rungs of a short search had better share one that may be
the best for none of them.
"""

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import NamedTuple

import jax

from jaxnn.population import default_block_size
from jaxnn.spec import Spec

_OVERHEAD = 1.7  # of a block, in members: what its cost has beyond its size
_COMPILING = 40e9  # operations of training: what a program costs a search that starts cold


class Program(NamedTuple):
    """What is compiled."""

    spec: Spec
    block_size: int  # trials, of one replicate, that a device trains at once


class Work(NamedTuple):
    """A round's training."""

    trials: int
    updates: int  # of each of them


def cheapest(
    spec: Spec,
    planned: Sequence[Work],
    had: Collection[Program],
    *,
    replicates: int,
    devices: int,
    platform: str,
) -> Program:
    """The program of a round, such that the whole plan costs least.

    A plan costs what its rounds cost, each in blocks of the best of some sizes, and the programs
    for those sizes that are not there yet. On accelerators, of which this has not been measured,
    programs cost nothing. Nothing else decides: the last bit of a result depends on it.

    Args:
      spec: the rest of the program.
      planned: the round, and those that will follow as far as they are known.
      had: programs that have been compiled, of any spec.
      replicates: of every trial; a block holds trials of one.
      devices: that train side by side.
      platform: of the devices.
    """
    per_update = 6 * parameter_count(spec) * spec.batch_size  # forward, and twice as much backward
    compiling = _COMPILING if platform == "cpu" else 0
    largest = {default_block_size(spec, platform, work.trials) for work in planned}
    sizes = sorted({*largest, *(size for size in (1, 2, 4, 8, 16) if size < max(largest))})

    def training(work: Work, size: int) -> float:
        rounds = -(-replicates * -(-work.trials // size) // devices)
        return rounds * (size + _OVERHEAD) * work.updates * per_update

    def cost(some: tuple[int, ...]) -> float:
        missing = sum(Program(spec, size) not in had for size in some)
        return missing * compiling + sum(min(training(work, s) for s in some) for work in planned)

    choices = [c for n in range(len(planned)) for c in combinations(sizes, n + 1)]
    return Program(spec, min(min(choices, key=cost), key=lambda size: training(planned[0], size)))


def parameter_count(spec: Spec) -> int:
    """The number of a model's parameters."""
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))
