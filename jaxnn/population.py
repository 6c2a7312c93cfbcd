"""A population: many hyperparameters x several seeds, trained over all devices.

The unit of work is a *block* (``jaxnn.blocks``): some configurations of one seed, which share every
minibatch, so the first layer of the whole block is one matrix product. Each device trains one block
at a time, in one compiled program; blocks follow each other until the population is done, so memory
is bounded by the block, not by the population.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnn import blocks, distributed
from jaxnn.blocks import SPLIT, WHOLE
from jaxnn.devices import population_mesh
from jaxnn.spec import Spec, check_hyper, require_count
from jaxnn.train import NEVER, Metrics, check_data, run
from jaxnn.types import Array, Data, Key, Model, PyTree

_CACHE_BYTES = 5 * 2**19  # of parameters in a block: with more, the cores wait for memory
_CPU_BLOCK = 8, 32  # fewer share too little of a minibatch
_ACCELERATOR_BLOCK = 1024


class Population(NamedTuple):
    """The outcome of ``train_population``, in NumPy arrays."""

    params: PyTree | None  # leaves [S, K, ...]
    diverged_at: np.ndarray  # [S, K]: the iteration whose loss was not finite, or NEVER
    iteration: np.ndarray  # [E]
    metrics: dict[str, Metrics]  # by the name of the data set; fields [S, K, E]
    compile_seconds: float
    train_seconds: float


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
      mesh: the devices, along an axis ``population``, and perhaps an axis ``batch`` over which each
        minibatch is spread (for a model that is large alone); by default all of JAX's devices, of
        all processes, along ``population``.
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
    batch_axis = check_mesh(mesh, spec)
    if block_size is None:
        block_size = default_block_size(spec, mesh.devices.flat[0].platform, shape[1])
    block_size = require_count("block_size", block_size)
    rounds = blocks.deal(*shape, block_size, mesh.shape["population"])
    shared = blocks.replicate(mesh, (data, evaluate_on))

    def arguments(these: blocks.Round) -> tuple:
        own = (
            jax.tree.map(lambda column: column[np.stack([b.rows for b in these])], hyper),
            words[np.array([b.replicate for b in these])],
            np.array([b.count > 0 for b in these]),
        )
        return *blocks.shard(mesh, own), *shared

    started = perf_counter()
    static = (spec, mesh, jax.random.key_impl(keys), batch_axis)
    traced = blocks.trace_once(_program, static, blocks.signature(arguments(rounds[0])))
    program = traced.compiled
    compiled = perf_counter()
    jax.block_until_ready(shared)
    ready = perf_counter()
    result: Any = None
    done = 0
    for these, output in blocks.one_ahead(rounds, lambda these: program(*arguments(these))):
        output = output if keep_params else (None, *output[1:])
        if result is None:
            result = jax.tree.map(lambda x: np.empty(shape + x.shape[2:], x.dtype), output)
        blocks.store(result, output, these)
        done += sum(block.count for block in these)
        if progress:
            progress(done, shape[0] * shape[1])
    params, diverged_at, metrics = blocks.gather(result, rounds, mesh)
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
    fewest, most = _CPU_BLOCK
    fitting = _CACHE_BYTES // max(_parameter_bytes(spec.model, jnp.result_type(float)), 1)
    return int(np.clip(2 ** max(fitting, 1).bit_length() // 2, fewest, most))


@lru_cache
def _parameter_bytes(model: Model, _: Any) -> int:
    """The size of a model's parameters, in the floating point of the moment."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def check_axes(mesh: Mesh) -> None:
    """Refuses a mesh that no population can be spread over.

    Raises:
      ValueError: other axes than ``population`` and ``batch``, or no device of some process.
    """
    if set(mesh.axis_names) not in ({"population"}, {"population", "batch"}):
        raise ValueError(
            f"mesh has the axes {mesh.axis_names}, expected 'population', with or without 'batch'"
        )
    processes = {device.process_index for device in mesh.devices.flat}
    if len(processes) < distributed.process_count():
        raise ValueError(
            f"mesh has devices of the processes {sorted(processes)}, expected of all "
            f"{distributed.process_count()}"
        )


def check_mesh(mesh: Mesh, spec: Spec) -> str | None:
    """The axis over which minibatches are spread, if the mesh has one.

    Raises:
      ValueError: as ``check_axes``, or a minibatch that cannot be spread evenly.
    """
    check_axes(mesh)
    size = dict(mesh.shape).get("batch", 1)
    if spec.batch_size % size:
        raise ValueError(
            f"batch_size is {spec.batch_size}, expected a multiple of the mesh's {size} devices "
            "along 'batch'"
        )
    return "batch" if size > 1 else None


def _program(spec: Spec, mesh: Mesh, key_kind: Any, batch_axis: str | None) -> Callable:
    """Every device trains its own block, if it has one in this round.

    (hyper [D, block], key words [D, 2], active [D], data, evaluate_on) -> results [D, block, ...]
    """

    def block(
        hyper: Any, words: Array, active: Array, data: Data, evaluate_on: dict[str, Data]
    ) -> Any:
        key = jax.random.wrap_key_data(words[0], impl=key_kind)

        def member(spec: Spec, own: Any) -> tuple:
            state, history = run(spec, own, key, data, evaluate_on, active[0], batch_axis)
            return state.params, state.diverged_at, history.metrics

        own = jax.tree.map(lambda column: column[0], hyper)
        if len(own.learning_rate) > 1:
            together = replace(spec, together=True)
            return jax.tree.map(lambda x: x[None], jax.vmap(partial(member, together))(own))
        # Alone, a member needs no batching, which takes as long to trace as all the rest.
        alone = member(spec, jax.tree.map(lambda column: column[0], own))
        return jax.tree.map(lambda x: x[None, None], alone)

    specs = {"in_specs": (SPLIT, SPLIT, SPLIT, WHOLE, WHOLE), "out_specs": SPLIT}
    return jax.jit(jax.shard_map(block, mesh=mesh, **specs, check_vma=False))


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
