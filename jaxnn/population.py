"""A population: many hyperparameters x several seeds, trained over all devices.

The unit of work is a *block*: some configurations of one seed, which share every minibatch, so the
first layer of the whole block is one matrix product. Each device trains one block at a time, in one
compiled program; blocks follow each other until the population is done, so memory is bounded by
the block, not by the population.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn.devices import population_mesh
from jaxnn.spec import Spec, check_hyper, require_count
from jaxnn.train import NEVER, Metrics, check_data, run
from jaxnn.types import Array, Data, Key, PyTree

_CACHE_BYTES = 2**20  # parameters that stay in a CPU core's second-level cache
_CPU_BLOCK = 16, 32  # fewer share too little of a minibatch, more overflow the cache
_ACCELERATOR_BLOCK = 1024


class Population(NamedTuple):
    """The outcome of ``train_population``, in NumPy arrays."""

    params: PyTree | None  # leaves [S, K, ...]
    diverged_at: np.ndarray  # [S, K]: the iteration whose loss was not finite, or NEVER
    iteration: np.ndarray  # [E]
    metrics: dict[str, Metrics]  # by the name of the data set; fields [S, K, E]
    compile_seconds: float
    train_seconds: float


class _Block(NamedTuple):
    """What one device trains at once: some configurations of one seed."""

    seed: int
    rows: np.ndarray  # [block_size] configurations, the last repeated to fill the block
    count: int  # how many of them are real


def train_population(
    spec: Spec,
    hyper: Any,
    keys: Key,
    data: Data,
    evaluate_on: Mapping[str, Data] | None = None,
    *,
    block_size: int | None = None,
    mesh: Mesh | None = None,
    keep_params: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Population:
    """Trains every configuration from every seed.

    A member whose loss stops being finite is frozen and marked. All others are, bit for bit, what
    they are without it, and what they are in any other population on the same mesh with the same
    block size. On CPUs the default block size depends on the model alone, never on the number of
    configurations.

    Args:
      spec: the program, static.
      hyper: a ``Hyper`` of arrays [K]; scalars are shared by all configurations.
      keys: one key per seed, [S]; the members of one seed see the same minibatches.
      data: the examples to train on.
      evaluate_on: data sets by name, evaluated at ``spec.evaluate_at``; by default the training
        examples, as "train".
      block_size: how many configurations a device trains at once. One that is not full costs as
        much as a full one: for a handful of configurations, say so here (1 for a single one).
      mesh: the devices, along an axis ``population``; by default all of JAX's.
      keep_params: whether to return every member's parameters.
      progress: called with (members done, members in all).

    Returns:
      A ``Population``.

    Raises:
      ValueError: as ``jaxnn.train``; no seeds; or fields of hyper that differ in length.
    """
    evaluate_on = {"train": data} if evaluate_on is None else dict(evaluate_on)
    hyper = _as_columns(hyper)
    check_hyper(hyper)
    check_data(spec, data, evaluate_on)
    words = np.asarray(jax.random.key_data(keys))  # [S, 2] on the host, for cheap indexing
    words = words.reshape(-1, words.shape[-1])
    shape = len(words), len(hyper.learning_rate)
    if not len(words):
        raise ValueError("keys holds 0 seeds, expected at least 1")
    mesh = mesh or population_mesh()
    if block_size is None:
        block_size = default_block_size(spec, mesh.devices.flat[0].platform, shape[1])
    block_size = require_count("block_size", block_size)
    rounds = _rounds(*shape, block_size, mesh.size)
    shared = jax.device_put((data, evaluate_on), NamedSharding(mesh, PartitionSpec()))

    def arguments(blocks: list[_Block]) -> tuple:
        own = (
            jax.tree.map(lambda column: column[np.stack([b.rows for b in blocks])], hyper),
            words[np.array([b.seed for b in blocks])],
            np.array([b.count > 0 for b in blocks]),
        )
        return *jax.device_put(own, NamedSharding(mesh, PartitionSpec("population"))), *shared

    started = perf_counter()
    program = _compile(spec, mesh, jax.random.key_impl(keys), *_signature(arguments(rounds[0])))
    compiled = perf_counter()
    jax.block_until_ready(shared)
    ready = perf_counter()
    result: Any = None
    done = 0
    for blocks, output in _one_ahead(rounds, lambda blocks: program(*arguments(blocks))):
        output = jax.device_get(output if keep_params else (None, *output[1:]))
        if result is None:
            result = jax.tree.map(lambda x: np.empty(shape + x.shape[2:], x.dtype), output)
        _store(result, output, blocks)
        done += sum(block.count for block in blocks)
        if progress:
            progress(done, shape[0] * shape[1])
    params, diverged_at, metrics = result
    seconds = compiled - started, perf_counter() - ready
    return Population(params, diverged_at, np.array(spec.evaluate_at), metrics, *seconds)


def best(population: Population, on: str, *, measure: str = "loss") -> int:
    """The configuration with the lowest mean over seeds at the last evaluation.

    Args:
      population: from ``train_population``.
      on: the data set that chooses, such as "validation".
      measure: "loss" or "error".

    Returns:
      The index k of the configuration. One that diverged from any seed is never chosen.

    Raises:
      ValueError: every configuration has diverged.
    """
    final = getattr(population.metrics[on], measure)[:, :, -1].mean(axis=0)
    survived = (population.diverged_at == NEVER).all(axis=0) & np.isfinite(final)
    if not survived.any():
        raise ValueError(f"all {len(final)} configurations diverged, expected at least 1 finite")
    return int(np.argmin(np.where(survived, final, np.inf)))


def default_block_size(spec: Spec, platform: str, configurations: int) -> int:
    """How many configurations a device trains at once if nobody says otherwise."""
    if platform != "cpu":
        return min(configurations, _ACCELERATOR_BLOCK)
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))
    fewest, most = _CPU_BLOCK
    fitting = _CACHE_BYTES // max(size, 1)
    return int(np.clip(2 ** max(fitting, 1).bit_length() // 2, fewest, most))


def _program(spec: Spec, mesh: Mesh, key_kind: Any) -> Callable:
    """Every device trains its own block, if it has one in this round.

    (hyper [D, block], key words [D, 2], active [D], data, evaluate_on) -> results [D, block, ...]
    """

    def block(
        hyper: Any, words: Array, active: Array, data: Data, evaluate_on: dict[str, Data]
    ) -> Any:
        key = jax.random.wrap_key_data(words[0], impl=key_kind)

        def member(own: Any) -> tuple:
            state, history = run(spec, own, key, data, evaluate_on, active[0])
            return state.params, state.diverged_at, history.metrics

        own = jax.tree.map(lambda column: column[0], hyper)
        if len(own.learning_rate) > 1:
            return jax.tree.map(lambda x: x[None], jax.vmap(member)(own))
        # Alone, a member needs no batching, which takes as long to trace as all the rest.
        alone = member(jax.tree.map(lambda column: column[0], own))
        return jax.tree.map(lambda x: x[None, None], alone)

    split, whole = PartitionSpec("population"), PartitionSpec()
    specs = {"in_specs": (split, split, split, whole, whole), "out_specs": split}
    return jax.jit(jax.shard_map(block, mesh=mesh, **specs, check_vma=False))


@lru_cache
def _compile(spec: Spec, mesh: Mesh, key_kind: Any, structure: Any, leaves: tuple) -> Callable:
    """The compiled program for arguments of these shapes; compiled once per process."""
    program = _program(spec, mesh, key_kind)
    return program.lower(*jax.tree.unflatten(structure, leaves)).compile()


def _signature(arguments: tuple) -> tuple[Any, tuple]:
    """What a program is compiled for: the arguments' structure, shapes, dtypes and placement."""
    leaves, structure = jax.tree.flatten(arguments)
    abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
    return structure, tuple(abstract)


def _rounds(seeds: int, configurations: int, size: int, devices: int) -> list[list[_Block]]:
    """All blocks, one per device and round; the last round is filled with blocks of no members."""
    blocks = []
    for seed in range(seeds):
        for first in range(0, configurations, size):
            rows = np.arange(first, first + size)
            count = min(size, configurations - first)
            blocks.append(_Block(seed, np.minimum(rows, configurations - 1), count))
    blocks += [blocks[-1]._replace(count=0)] * (-len(blocks) % devices)
    return [blocks[i : i + devices] for i in range(0, len(blocks), devices)]


def _one_ahead(
    rounds: list[list[_Block]], launch: Callable[[list[_Block]], Any]
) -> Iterator[tuple[list[_Block], Any]]:
    """Every round's output, with the next round already launched: no device waits for another."""
    launched = [(rounds[0], launch(rounds[0]))]
    for blocks in rounds[1:]:
        launched.append((blocks, launch(blocks)))
        yield launched.pop(0)
    yield launched.pop()


def _store(result: Any, output: Any, blocks: list[_Block]) -> None:
    """Copies the real members of a round to their places in the result."""
    for device, block in enumerate(blocks):
        place = block.seed, block.rows[: block.count]
        for whole, part in zip(jax.tree.leaves(result), jax.tree.leaves(output), strict=True):
            whole[place] = part[device, : block.count]


def _as_columns(hyper: Any) -> Any:
    """Every hyperparameter as a float array [K]."""
    dtype = jnp.result_type(float)
    columns = {name: np.asarray(value, dtype) for name, value in hyper._asdict().items()}
    lengths = {name: column.shape for name, column in columns.items() if column.shape != ()}
    shapes = set(lengths.values())
    if len(shapes) > 1 or any(len(shape) != 1 or shape == (0,) for shape in shapes):
        raise ValueError(
            f"hyper has fields of shapes {lengths}, expected scalars or one length [K]"
        )
    (size,) = shapes.pop() if shapes else (1,)
    return type(hyper)(**{n: np.broadcast_to(column, (size,)) for n, column in columns.items()})
