"""A population: many configurations x several seeds, trained on all devices.

A *replicate* is a seed, or a fold of a seed. A *block* is the part that a device trains at once:
some configurations of one replicate, which share every minibatch, so that the first layer of a
block is one matrix product. A *wave* is a block per device; waves follow each other, so the size of
a block bounds the memory. Every process launches all waves and trains the blocks of the local
devices; ``gather`` completes the results by the results of the other processes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import product
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.files import short
from jaxnn.mlp import by_name
from jaxnn.spec import Spec, require_count
from jaxnn.train import NEVER, Layout, Metrics, checked, listed_scores, run
from jaxnn.types import Array, Data, Key, MeasureName, Model, PyTree, as_key, require_type

SPLIT, WHOLE = PartitionSpec("population"), PartitionSpec()

_CACHE_BYTES = 5 * 2**19  # parameters of a block: with more, the cores wait for memory
# Of fewer models each model alone is faster: rows of examples fill the registers.
_CPU_BLOCK = 8, 32
_ACCELERATOR_BLOCK = 1024
_SETTINGS = "jax_enable_x64", "jax_default_matmul_precision"


class Population(NamedTuple):
    """The outcome of ``train_population``, in NumPy arrays."""

    params: PyTree | None  # leaves [S, K, ...]
    diverged_at: np.ndarray  # [S, K]: the iteration whose loss was not finite, or NEVER
    iteration: np.ndarray  # [E]
    metrics: dict[str, Metrics]  # by the name of the data set; fields [S, K, E]
    compile_seconds: float
    train_seconds: float

    def __repr__(self) -> str:
        last = [
            f"{name} {each} {v[..., -1].mean(axis=0).min():.4g} at best"
            for name, each, v in listed_scores(self.metrics)
            if v.size
        ]
        return short(f"Population({self._counts}; {', '.join(last)})", 1000)

    @property
    def _counts(self) -> str:
        diverged = int((self.diverged_at != NEVER).any(axis=0).sum())
        seeds, configurations = self.diverged_at.shape
        return f"{seeds} seeds x {configurations} configurations, {diverged} diverged"

    def _repr_html_(self) -> str:
        from jaxnn import display

        found = [each for each in listed_scores(self.metrics) if each[2].size]
        columns = {f"{name} {each}": v[..., -1].mean(axis=0) for name, each, v in found}
        columns["diverged seeds"] = (self.diverged_at != NEVER).sum(axis=0)
        order = np.argsort([*columns.values()][max(len(found) - 1, 0)], kind="stable")
        rows = [
            {"configuration": int(k)} | {name: v[k].item() for name, v in columns.items()}
            for k in order
        ]
        best = [
            (f"configuration {k}", f"{name} {each}", v[:, k])
            for k in order[:5]
            for name, each, v in found[-1:]
        ]
        return display.html(
            display.heading("Population", about=self._counts),
            display.curves(self.iteration, best),
            display.records(rows),
        )


def train_population(
    spec: Spec,
    hyper: Any,
    keys: Key | Sequence[int],
    data: Data,
    evaluate_on: Mapping[str, Data] | None = None,
    *,
    block_size: int | None = None,
    mesh: Mesh | None = None,
    keep_params: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Population:
    """Trains every configuration from every seed.

    A member whose loss is not finite is frozen and marked; no bit of the other members changes. No
    bit of a member depends on the rest of the population, for a given mesh and block size. On CPUs
    the default block size depends on the model alone, never on the number of configurations.

    Args:
      spec: the program, static.
      hyper: a ``Hyper`` of arrays [K]; scalars are shared by all configurations.
      keys: a key per seed, [S], or whole numbers such as [0, 1, 2]; all members of a seed see equal
        minibatches.
      data: the examples to train on.
      evaluate_on: data sets by name, evaluated at ``spec.evaluate_at``; by default the training
        examples, as "train".
      block_size: how many configurations a device trains at once. A block of fewer configurations
        costs as much as a full block: for a handful of configurations, give the block size (1 for
        a single configuration).
      mesh: the devices, along an axis ``population``, and perhaps an axis ``batch`` over which each
        minibatch is spread (for a model that is large alone); by default all of JAX's devices, of
        all processes, along ``population``.
      keep_params: whether to return every member's parameters.
      progress: called with (members done, members in all).

    Raises:
      ValueError: as ``jaxnn.train``; no seeds; or fields of hyper that differ in length.

    Example:
      >>> import jax
      >>> from jaxnn import MLP, Hyper, Spec, train_population
      >>> from jaxnn.data import load
      >>> examples, test = load("digits")
      >>> hyper = Hyper(learning_rate=[1e-4, 1e-1], l2=1e-4)  # 2 configurations,
      >>> keys = jax.random.split(jax.random.key(0), 3)  # of 3 seeds each
      >>> spec = Spec(MLP((64, 10)), steps=100)
      >>> population = train_population(spec, hyper, keys, examples)
      >>> population.metrics["train"].error.shape
      (3, 2, 1)
    """
    spec, hyper, data, evaluate_on = checked(spec, hyper, data, evaluate_on)
    hyper, keys = _as_columns(hyper), _as_keys(keys)
    words = np.asarray(jax.random.key_data(keys))  # [S, 2] on the host, for cheap indexing
    words = words.reshape(-1, words.shape[-1])
    shape = len(words), len(hyper.learning_rate)
    if not shape[0]:
        raise ValueError("keys holds 0 seeds, expected at least 1")
    expected = "a function (done, total)"
    require_type(progress is None or callable(progress), "progress", progress, expected)
    mesh = population_mesh() if mesh is None else mesh
    check_mesh(mesh, spec.batch_size)
    if block_size is None:
        block_size = default_block_size(spec, mesh.devices.flat[0].platform, shape[1])
    waves = deal(*shape, require_count("block_size", block_size), mesh.shape["population"])
    data_on_devices = place(mesh, WHOLE, (data, evaluate_on))

    def arguments(wave: Wave) -> tuple:
        per_device = (
            jax.tree.map(lambda column: column[wave.rows], hyper),
            words[wave.replicate],
            wave.count > 0,
        )
        return *place(mesh, SPLIT, per_device), *data_on_devices

    started = perf_counter()
    static = spec, mesh, jax.random.key_impl(keys)
    program = trace_once(_program, static, signature(arguments(waves[0]))).compiled
    compiled = perf_counter()
    jax.block_until_ready(data_on_devices)
    ready = perf_counter()
    results: Any = None
    done = 0
    for wave, output in one_ahead(waves, lambda wave: program(*arguments(wave))):
        output = output if keep_params else (None, *output[1:])
        if results is None:
            results = jax.tree.map(lambda x: np.empty(shape + x.shape[2:], x.dtype), output)
        store(results, output, wave)
        done += int(wave.count.sum())
        if progress:
            progress(done, shape[0] * shape[1])
    params, diverged_at, metrics = gather(results, waves, mesh)
    seconds = compiled - started, perf_counter() - ready
    return Population(params, diverged_at, np.array(spec.evaluate_at), metrics, *seconds)


def best(population: Population, on: str, *, measure: MeasureName = "loss") -> int:
    """The index of the configuration with the lowest mean over seeds at the last evaluation.

    Configurations that diverged from any seed do not count.

    Args:
      population: from ``train_population``.
      on: the name of a data set, such as "validation".
      measure: "loss" or "error".

    Raises:
      ValueError: every configuration has diverged.
    """
    fits = isinstance(population, Population)
    require_type(fits, "population", population, "what train_population returns")
    metrics = by_name("on", on, population.metrics)
    final = by_name("measure", measure, metrics.by_name())[:, :, -1].mean(axis=0)
    survived = (population.diverged_at == NEVER).all(axis=0) & np.isfinite(final)
    if not survived.any():
        raise ValueError(f"all {len(final)} configurations diverged, expected at least 1 finite")
    return int(np.argmin(np.where(survived, final, np.inf)))


def default_block_size(spec: Spec, platform: str, configurations: int) -> int:
    """How many configurations a device trains at once by default."""
    if platform != "cpu":
        return min(configurations, _ACCELERATOR_BLOCK)
    leaves, (fewest, most) = _parameters(spec.model, jnp.result_type(float)), _CPU_BLOCK
    fitting = _CACHE_BYTES // max(sum(leaf.size * leaf.dtype.itemsize for leaf in leaves), 1)
    if fitting < fewest or has_kernels(spec.model):
        return 1
    return min(2 ** fitting.bit_length() // 2, most)


def trains_alone(spec: Spec, mesh: Mesh, size: int) -> bool:
    """Whether the members of a block train one after another.

    Under ``vmap`` the convolutions of several models become a grouped convolution, for which CPUs
    have no fast code. A single model that is large gains nothing by the layout for several models.
    """
    platform = mesh.devices.flat[0].platform
    large = size == 1 and default_block_size(spec, platform, 2) == 1
    return large or (platform == "cpu" and has_kernels(spec.model))


def has_kernels(model: Model) -> bool:
    """Whether a model has kernels of convolutions among the parameters: of rank 4 or more."""
    return any(leaf.ndim >= 4 for leaf in _parameters(model, jnp.result_type(float)))


@lru_cache
def _parameters(model: Model, _: Any) -> list[jax.ShapeDtypeStruct]:
    """The shapes of a model's parameters, in the current floating-point type."""
    return jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))


def check_mesh(mesh: Mesh, batch_size: int = 0) -> None:
    """ValueError for other axes, a process without a device, or minibatches of unequal shares."""
    require_type(isinstance(mesh, Mesh), "mesh", mesh, "jax.make_mesh((4,), ('population',))")
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
    size = mesh.shape.get("batch", 1)
    if batch_size % size:
        raise ValueError(
            f"batch_size is {batch_size}, expected a multiple of the mesh's {size} devices along "
            "'batch'"
        )


def batch_axis(mesh: Mesh) -> str | None:
    """The mesh axis for minibatches, or None."""
    return "batch" if mesh.shape.get("batch", 1) > 1 else None


def _program(spec: Spec, mesh: Mesh, key_kind: Any) -> Callable:
    """Every device trains the device's block of a wave; padding blocks are skipped.

    (hyper [D, block], key words [D, 2], active [D], data, evaluate_on) -> results [D, block, ...]
    """

    def train_block(hyper: Any, words: Array, active: Array, data: Data, evaluate_on: dict) -> Any:
        key = jax.random.wrap_key_data(words[0], impl=key_kind)

        def member(hyper: Any, *, columns: bool) -> tuple:
            layout = Layout(batch_axis(mesh), columns)
            state, history = run(spec, hyper, key, data, evaluate_on, active[0], layout)
            return state.params, state.diverged_at, history.metrics

        hyper = jax.tree.map(lambda column: column[0], hyper)
        # A single member needs no vmap, whose tracing takes as long as all the rest.
        alone = len(hyper.learning_rate) == 1 or trains_alone(spec, mesh, len(hyper.learning_rate))
        return jax.tree.map(lambda x: x[None], over_block(member, (hyper,), alone=alone))

    return on_every_device(train_block, mesh, split=3, whole=2)


def over_block(member: Callable[..., PyTree], arrays: tuple, *, alone: bool) -> PyTree:
    """A function of a member, and of whether examples are columns, on all members of a block.

    The members train one after another, or at once: as one program of larger products.
    """
    if alone:
        return jax.lax.map(lambda each: member(*each, columns=False), arrays)
    return jax.vmap(partial(member, columns=True))(*arrays)


def on_every_device(function: Callable, mesh: Mesh, *, split: int, whole: int) -> Callable:
    """The function on every device's rows of the first arguments, and all of the last ones."""
    specs = {"in_specs": (*(SPLIT,) * split, *(WHOLE,) * whole), "out_specs": SPLIT}
    return jax.jit(jax.shard_map(function, mesh=mesh, **specs, check_vma=False))


def _as_columns(hyper: Any) -> Any:
    """Every hyperparameter that is not None as a float array [K]."""
    dtype = jnp.result_type(float)
    given = hyper._asdict().items()
    columns = {name: np.asarray(value, dtype) for name, value in given if value is not None}
    shapes = {name: column.shape for name, column in columns.items() if column.ndim}
    shape = next(iter(shapes.values()), (1,))
    if len(shape) != 1 or shape == (0,) or {*shapes.values()} > {shape}:
        raise ValueError(f"hyper has fields of shapes {shapes}, expected scalars or one length [K]")
    return hyper._replace(**{n: np.broadcast_to(column, shape) for n, column in columns.items()})


def _as_keys(keys: Any) -> Key:
    """The keys of the seeds; whole numbers [S] stand for keys."""
    if not isinstance(keys, jax.Array | np.ndarray | list | tuple | range):
        raise TypeError(f"keys is {keys!r}, expected jax.random.split(key, S) or [0, 1, 2]")
    if not isinstance(keys, jax.Array) and len(keys):
        keys = jnp.stack([as_key(key) for key in keys])
    return jnp.asarray(keys)


class Wave(NamedTuple):
    """A block per position along the mesh axis ``population``."""

    replicate: np.ndarray  # [D]
    rows: np.ndarray  # [D, block_size] configurations, the last repeated to fill a block
    count: np.ndarray  # [D]: how many of a block's rows are no padding

    def members(self, position: int) -> tuple[int, np.ndarray]:
        """The replicate and the configurations of the block at a position."""
        return self.replicate[position], self.rows[position, : self.count[position]]


def deal(replicates: int, configurations: int, size: int, devices: int) -> list[Wave]:
    """All blocks in waves; blocks without members fill the last wave."""
    blocks = [*product(range(replicates), range(0, configurations, size))]
    replicate, first = np.array(blocks + blocks[-1:] * (-len(blocks) % devices)).T
    count = np.minimum(size, configurations - first) * (np.arange(len(first)) < len(blocks))
    rows = np.minimum(first[:, None] + np.arange(size), configurations - 1)
    waves = [slice(start, start + devices) for start in range(0, len(first), devices)]
    return [Wave(replicate[each], rows[each], count[each]) for each in waves]


def place(mesh: Mesh, spec: PartitionSpec, arrays: PyTree) -> PyTree:
    """Arrays on the devices: ``WHOLE`` on each, or ``SPLIT``, row d at position d of the mesh."""
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(arrays, sharding)

    def put(leaf: Any) -> jax.Array:
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, leaf.__getitem__)

    return jax.tree.map(put, arrays)


@dataclass(eq=False)  # hashed by identity
class Traced:
    """A traced program, not yet compiled.

    Tracing belongs to the calling thread, whose context managers (``jax.enable_x64``,
    ``jax.default_matmul_precision``) are in force; any thread can compile.
    """

    lowered: jax.stages.Lowered

    @cached_property
    def compiled(self) -> Callable:
        """The program, compiled at the first access."""
        return self.lowered.compile()


@lru_cache
def trace_once(build: Callable[..., Callable], static: tuple, signature: tuple) -> Traced:
    """The program ``build(*static)`` for arguments of one signature; traced once per process."""
    structure, leaves, *_ = signature
    return Traced(build(*static).lower(*jax.tree.unflatten(structure, leaves)))


def signature(arguments: tuple) -> tuple:
    """The structure and types of arguments on devices, and the settings of JAX in this thread."""
    leaves, structure = jax.tree.flatten(arguments)
    abstract = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
    return structure, tuple(abstract), *(getattr(jax.config, name) for name in _SETTINGS)


def one_ahead(waves: Sequence[Wave], launch: Callable[[Wave], Any]) -> Iterator[tuple[Wave, Any]]:
    """Every wave's output, after the launch of the next wave: no device idles."""
    launched = [(waves[0], launch(waves[0]))]
    for wave in waves[1:]:
        launched.append((wave, launch(wave)))
        yield launched.pop(0)
    yield launched.pop()


def store(results: PyTree, output: PyTree, wave: Wave) -> None:
    """Copies the members trained by the process into results [replicates, K, ...]."""
    for whole, part in zip(jax.tree.leaves(results), jax.tree.leaves(output), strict=True):
        for piece in part.addressable_shards:
            if piece.replica_id == 0 or not part.is_fully_addressable:
                members = wave.members(piece.index[0].start or 0)
                whole[members] = np.asarray(piece.data)[0, : len(members[1])]


def gather(results: PyTree, waves: Sequence[Wave], mesh: Mesh) -> PyTree:
    """Completes results [replicates, K, ...], in place, by the members of the other processes."""
    if distributed.process_count() == 1:
        return results
    leaves = jax.tree.leaves(results)
    owner = _owners(waves, mesh, leaves[0].shape[:2])
    places = [np.nonzero(owner == process) for process in range(distributed.process_count())]
    longest = max(len(rows) for _, rows in places)
    row_bytes = sum(leaf[0, 0].nbytes for leaf in leaves)
    packed = [leaf[places[distributed.process_index()]] for leaf in leaves]
    content = np.concatenate([np.ravel(rows).view(np.uint8) for rows in packed])
    sent = np.pad(content, (0, longest * row_bytes - len(content)))
    for place, received in zip(places, distributed.all_gather(sent), strict=True):
        for leaf in leaves:
            shape = (len(place[0]), *leaf.shape[2:])
            size = math.prod(shape) * leaf.itemsize
            leaf[place] = received[:size].view(leaf.dtype).reshape(shape)
            received = received[size:]
    return results


def _owners(waves: Sequence[Wave], mesh: Mesh, shape: tuple[int, int]) -> np.ndarray:
    """The process that trained each member; the first process where several did."""
    grid = np.moveaxis(mesh.devices, mesh.axis_names.index("population"), 0)
    grid = grid.reshape(len(grid), -1)
    owner = np.zeros(shape, int)
    for wave in waves:
        for position, device in enumerate(grid[:, 0]):
            owner[wave.members(position)] = device.process_index
    return owner
