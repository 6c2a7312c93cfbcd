"""How a population is dealt out to the devices, and how its results come back.

A *block* is what one device trains at once: some configurations of one replicate (a seed, or a fold
of a seed), which share every minibatch. A *round* is one block per device. Every process launches
the same rounds, computes the blocks of its own devices, and ``gather`` completes its results by
those of the others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import distributed
from jaxnn.types import PyTree

SPLIT, WHOLE = PartitionSpec("population"), PartitionSpec()

_SETTINGS = "jax_enable_x64", "jax_default_matmul_precision"


class Block(NamedTuple):
    """What one device trains at once: some configurations of one replicate."""

    replicate: int
    rows: np.ndarray  # [block_size] configurations, the last repeated to fill the block
    count: int  # how many of them are real


Round = list[Block]
"""One block per position along the mesh axis ``population``."""


def deal(replicates: int, configurations: int, size: int, devices: int) -> list[Round]:
    """All blocks in rounds; the last round is filled with blocks of no members."""
    blocks = []
    for replicate in range(replicates):
        for first in range(0, configurations, size):
            rows = np.arange(first, first + size)
            count = min(size, configurations - first)
            blocks.append(Block(replicate, np.minimum(rows, configurations - 1), count))
    blocks += [blocks[-1]._replace(count=0)] * (-len(blocks) % devices)
    return [blocks[i : i + devices] for i in range(0, len(blocks), devices)]


def shard(mesh: Mesh, own: PyTree) -> PyTree:
    """Arrays [D, ...] with a row for each position along the population axis, on the devices."""
    return _put(own, NamedSharding(mesh, SPLIT))


def replicate(mesh: Mesh, shared: PyTree) -> PyTree:
    """Arrays that every device needs, on all of them."""
    return _put(shared, NamedSharding(mesh, WHOLE))


def _put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    return jax.tree.map(put, tree)


class Signature(NamedTuple):
    """What a program is compiled for."""

    structure: Any  # of the arguments
    leaves: tuple[jax.ShapeDtypeStruct, ...]  # with their placement
    settings: tuple  # of JAX, as they are in force in this thread


class Traced:
    """A program for arguments of one signature, in the state it has before it is compiled.

    Tracing belongs to the thread that asks for it, whose context managers (``jax.enable_x64``,
    ``jax.default_matmul_precision``) are in force; compiling can be left to another one.
    """

    def __init__(self, lowered: jax.stages.Lowered):
        """From JAX's own."""
        self._lowered = lowered

    @cached_property
    def compiled(self) -> Callable:
        """The program, compiled when it is first asked for."""
        return self._lowered.compile()


@lru_cache
def trace_once(build: Callable[..., Callable], static: tuple, signature: Signature) -> Traced:
    """The program ``build(*static)`` for arguments of one signature; once per process."""
    arguments = jax.tree.unflatten(signature.structure, signature.leaves)
    return Traced(build(*static).lower(*arguments))


def signature(arguments: tuple) -> Signature:
    """What a program for these arguments is compiled for, here and now."""
    leaves, structure = jax.tree.flatten(arguments)
    abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
    settings = tuple(getattr(jax.config, name) for name in _SETTINGS)
    return Signature(structure, tuple(abstract), settings)


def one_ahead(
    rounds: Sequence[Round], launch: Callable[[Round], Any]
) -> Iterator[tuple[Round, Any]]:
    """Every round's output, with the next round already launched: no device waits for another."""
    launched = [(rounds[0], launch(rounds[0]))]
    for blocks in rounds[1:]:
        launched.append((blocks, launch(blocks)))
        yield launched.pop(0)
    yield launched.pop()


def store(results: PyTree, output: PyTree, blocks: Round) -> None:
    """Copies the members that this process has trained to their places, [replicates, K, ...]."""
    for whole, part in zip(jax.tree.leaves(results), jax.tree.leaves(output), strict=True):
        for piece in part.addressable_shards:
            if piece.replica_id == 0 or not part.is_fully_addressable:
                block = blocks[piece.index[0].start or 0]
                place = block.replicate, block.rows[: block.count]
                whole[place] = np.asarray(piece.data)[0, : block.count]


def gather(results: PyTree, rounds: Sequence[Round], mesh: Mesh) -> PyTree:
    """Completes results [replicates, K, ...], in place, by the members other processes trained."""
    if distributed.process_count() == 1:
        return results
    leaves = jax.tree.leaves(results)
    owner = _owners(rounds, mesh, leaves[0].shape[:2])
    places = [np.nonzero(owner == process) for process in range(distributed.process_count())]
    longest = max(len(rows) for _, rows in places)
    row_bytes = sum(leaf[0, 0].nbytes for leaf in leaves)
    own = np.zeros(longest * row_bytes, np.uint8)
    packed = [leaf[places[distributed.process_index()]] for leaf in leaves]
    used = np.concatenate([np.ravel(rows).view(np.uint8) for rows in packed])
    own[: len(used)] = used
    for place, received in zip(places, distributed.all_gather(own), strict=True):
        for leaf in leaves:
            shape = (len(place[0]), *leaf.shape[2:])
            size = math.prod(shape) * leaf.itemsize
            leaf[place] = received[:size].view(leaf.dtype).reshape(shape)
            received = received[size:]
    return results


def _owners(rounds: Sequence[Round], mesh: Mesh, shape: tuple[int, int]) -> np.ndarray:
    """Which process has trained each member; where several have, the first of them."""
    grid = np.moveaxis(mesh.devices, mesh.axis_names.index("population"), 0)
    grid = grid.reshape(len(grid), -1)
    owner = np.zeros(shape, int)
    for blocks in rounds:
        for device, block in zip(grid[:, 0], blocks, strict=True):
            owner[block.replicate, block.rows[: block.count]] = device.process_index
    return owner
