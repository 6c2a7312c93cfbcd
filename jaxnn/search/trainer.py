"""Training a bucket of trials from one evaluation to the next, on all devices.

A *bucket* holds the trials of a round with a common program. The members of a bucket are rows of
arrays [R, K, ...]: R replicates (seeds x folds) of K trials. Copying a trial is an index, saving
trials is writing arrays. Between evaluations the arrays stay on the host.

The block size is a part of the program. Small blocks keep all devices busy with few trials, large
blocks share more of a minibatch among many trials. Since every size needs a program, the rungs of a
short search share a program even if another block size would train some rungs faster.
"""

import math
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations, pairwise
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.random import key_data, wrap_key_data
from jax.sharding import Mesh

from jaxnn import mlp, population
from jaxnn.mlp import ACTIVATIONS, MLP, PaddedMLP, get_activation
from jaxnn.population import SPLIT, WHOLE, Traced, Wave, batch_axis, default_block_size
from jaxnn.search.space import Config
from jaxnn.search.task import Arranged, ByFold, traced_values
from jaxnn.spec import Spec, optimizer_at
from jaxnn.train import (
    NEVER,
    ExtendedMetrics,
    Layout,
    Metrics,
    Seed,
    State,
    Withheld,
    advance,
    evaluate,
    init_state,
    mark_divergence,
    no_scores,
)
from jaxnn.types import Array, Data, Key, Layer, PyTree

FEW = 4
"""So few sizes of networks are a program each: padding would save little compilation."""

_ELEMENTWISE = "sgd", "momentum", "nesterov", "adam"  # no parameter's update depends on others
_DRAWS = (
    2**16
)  # a program draws for many sizes of networks: a draw begins with those of fewer numbers
_OVERHEAD = 1.7  # cost of a block beyond its members, in members
_COMPILING = 40e9  # cost of a program for a search that starts cold, in operations of training


class Members(NamedTuple):
    """The trials of a bucket in training."""

    params: PyTree  # leaves [R, K, ...]
    optimizer_state: PyTree  # leaves [R, K, ...]
    diverged_at: np.ndarray  # [R, K] int32
    best: PyTree  # leaves [R, K, ...]: the parameters at each trial's best evaluation

    def take(self, rows: Sequence[int]) -> "Members":
        """A copy of some trials; a row may be repeated."""
        return jax.tree.map(lambda leaf: leaf[:, np.asarray(rows, int)], self)


class Program(NamedTuple):
    """A program to compile."""

    spec: Spec
    block_size: int  # trials of one replicate that a device trains at once


class Work(NamedTuple):
    """The training of a round."""

    trials: int
    updates: int  # per trial


@partial(jax.jit, static_argnames="seeds")
def seed_keys(key: Key, seeds: int) -> Seed:
    """The keys of each seed, [seeds]."""
    return jax.vmap(lambda number: Seed.of(jax.random.fold_in(key, number)))(jnp.arange(seeds))


@partial(jax.jit, static_argnames=("kind", "count"))
def _normal(words: Array, kind: Any, count: int) -> Array:
    """Normal numbers [R, count] by the words [R, 2] of keys."""
    return jax.vmap(partial(jax.random.normal, shape=(count,)))(wrap_key_data(words, impl=kind))


class Trainer:
    """Trains all buckets of a search, on given examples and devices."""

    def __init__(
        self,
        arranged: Arranged,
        names: tuple[str, ...],
        keys: Seed,
        mesh: Mesh,
        block_size: int | None = None,
        made: Any = None,
    ):
        """Copies the examples to every device.

        Args:
          arranged: the examples.
          names: the traced names of the space.
          keys: of each seed, from ``seed_keys``; members of a seed share minibatches.
          mesh: the devices.
          block_size: of every program; by default ``cheapest`` chooses.
          made: the NamedTuple class of the traced hyperparameters, if the task has one.
        """
        words = keys._replace(first=key_data(keys.first), noise=key_data(keys.noise))
        self.arranged = arranged
        self._names, self._key_kind, self._mesh = names, jax.random.key_impl(keys.first), mesh
        self._block_size, self._made = block_size, made
        self._seeds = jax.tree.map(
            lambda x: np.repeat(np.asarray(x), arranged.folds, axis=0), words
        )  # [R, ...]
        self._folds = np.tile(np.arange(arranged.folds, dtype=np.int32), len(keys.shuffle))  # [R]
        self._data = population.place(mesh, WHOLE, (arranged.data, arranged.by_fold))
        self._traced: dict[Program, Traced] = {}

    @property
    def replicates(self) -> int:
        """R, seeds x folds."""
        return len(self._folds)

    def part(self, replicates: slice) -> "Trainer":
        """The trainer of some replicates; programs are shared."""
        part = copy(self)
        own = self._seeds, self._folds
        part._seeds, part._folds = jax.tree.map(lambda x: x[replicates], own)
        return part

    def program(self, spec: Spec, planned: Sequence[Work], had: Collection[Program]) -> Program:
        """The program of a round; see ``cheapest``."""
        if self._block_size:
            return Program(spec, self._block_size)
        devices, platform = self._mesh.shape["population"], self._mesh.devices.flat[0].platform
        return cheapest(spec, planned, had, len(self._folds), devices, platform)

    def hyper(self, spec: Spec, configs: list[Config]) -> Any:
        """The traced hyperparameters of configurations: a NamedTuple of arrays [K]."""
        return traced_values(spec, self._names, configs, self._made)

    def can_pad(self, spec: Spec) -> bool:
        """Whether networks of other sizes can train in the program of a larger network."""
        partitionable = jax.config.values["jax_threefry_partitionable"]
        threefry = partitionable and "threefry" in str(self._key_kind)
        activation = getattr(spec.model, "activation", None)
        own = self._made is not None  # a NamedTuple of the user's own has no field for widths
        return threefry and not own and _keeps_zeros(spec.optimizer, activation, self._names)

    def empty(self, spec: Spec, trials: int) -> Members:
        """Members whose parameters are not yet drawn: zeros of the right shapes."""
        state = _first_state(spec, self._names, self._made, jnp.result_type(float))
        shape = len(self._folds), trials
        params, optimizer_state, best = jax.tree.map(
            lambda leaf: np.zeros(shape + leaf.shape, leaf.dtype),
            (state.params, state.optimizer_state, state.params),
        )
        return Members(params, optimizer_state, np.full(shape, NEVER, np.int32), best)

    def traced(self, program: Program) -> Traced:
        """The program for the trainer's examples, replicates and devices; traced once."""
        if program not in self._traced:
            spec, members = program.spec, self.empty(program.spec, 1)
            hyper, first = self.hyper(spec, [{}]), self._waves(program, members)[0]
            arguments = self._arguments(hyper, members, first, self._moments(0, 0, 0))
            static = spec, self._mesh, self._key_kind, self.arranged.held_out
            signature = population.signature(arguments)
            self._traced[program] = population.trace_once(segment_program, static, signature)
        return self._traced[program]

    def advance(
        self,
        program: Program,
        configs: list[Config],
        members: Members,
        start: int | np.ndarray,
        stop: int | np.ndarray,
        report: Callable[[float], None],
        horizon: int | np.ndarray = 0,
    ) -> Metrics | ExtendedMetrics:
        """Trains and evaluates the members, from iteration ``start`` to ``stop``, in place.

        Args:
          program: trains the members.
          configs: K configurations.
          members: changed in place, apart from ``best``.
          start: the iteration that the members have reached; of each fold, for splits.
          stop: the iteration to reach, as well.
          report: called after every wave with the share of the work that is done.
          horizon: the iterations of a whole training of each fold, for splits.

        Returns:
          The validation scores, [R, K] each.
        """
        run, waves = self.traced(program).compiled, self._waves(program, members)
        hyper, moments = self.hyper(program.spec, configs), self._moments(start, stop, horizon)
        shape = members.diverged_at.shape
        metrics = jax.tree.map(lambda zero: np.zeros(shape, zero.dtype), no_scores(program.spec))
        results = (members.params, members.optimizer_state, members.diverged_at, metrics)
        if isinstance(program.spec.model, PaddedMLP) and not np.any(start):
            self._draw(program.spec.model, configs, members.params)

        def launch(wave: Wave) -> Any:
            return run(*self._arguments(hyper, members, wave, moments))

        for done, (wave, output) in enumerate(population.one_ahead(waves, launch), start=1):
            population.store(results, output, wave)
            report(done / len(waves))
        population.gather((members.diverged_at, metrics), waves, self._mesh)
        return metrics

    def gather(self, program: Program, members: Members) -> Members:
        """The members, rows trained by other processes included."""
        return population.gather(members, self._waves(program, members), self._mesh)

    def _draw(self, model: PaddedMLP, configs: list[Config], params: Any) -> None:
        """Draws the first parameters of padded networks, leaves [R, K, ...], in place."""
        count = max(_DRAWS, 1 << (_products(model.sizes) - 1).bit_length())
        draws = np.asarray(_normal(self._seeds.first, self._key_kind, count))
        for row, config in enumerate(configs):
            own = jax.tree.map(lambda leaf, row=row: leaf[:, row], params)
            model.draw(own, draws, config["hidden"])

    def _waves(self, program: Program, members: Members) -> list[Wave]:
        """The blocks of a bucket, dealt out to the devices."""
        replicates, trials = members.diverged_at.shape
        devices = self._mesh.shape["population"]
        return population.deal(replicates, trials, program.block_size, devices)

    def _moments(self, start: Any, stop: Any, horizon: Any) -> tuple:
        """The iteration, the number of updates to come, and in all; of each fold, for splits."""
        moments = np.int32(start), np.int32(np.subtract(stop, start))
        if self.arranged.by_fold.rows is None:
            return *moments, None
        folds = self.arranged.folds
        return tuple(np.broadcast_to(m, folds) for m in (*moments, np.int32(horizon)))

    def _arguments(self, hyper: Any, members: Members, wave: Wave, moments: tuple) -> tuple:
        states = members.params, members.optimizer_state, members.diverged_at
        per_device = (
            jax.tree.map(lambda column: column[wave.rows], hyper),
            jax.tree.map(lambda leaf: leaf[wave.replicate[:, None], wave.rows], states),
            *jax.tree.map(lambda x: x[wave.replicate], (self._seeds, self._folds)),
            wave.count > 0,
        )
        whole = population.place(self._mesh, WHOLE, moments)
        return (*population.place(self._mesh, SPLIT, per_device), whole, *self._data)


def segment_program(
    spec: Spec, mesh: Mesh, key_kind: Any, held_out: int | tuple[int, ...]
) -> Callable:
    """Every device trains and evaluates the device's block of a wave; padding blocks are skipped.

    (hyper [D, block], (params, optimizer state, divergence) [D, block, ...], seed [D, ...],
    folds [D], active [D], (iteration, steps, horizon), data, by fold)
      -> (params, optimizer state, divergence, metrics) [D, block, ...]
    """

    def train_block(
        hyper: Any,
        states: tuple[PyTree, PyTree, Array],
        words: Seed,
        fold: Array,
        active: Array,
        moments: tuple[Array, Array, Array | None],
        data: Data,
        by_fold: ByFold,
    ) -> Any:
        first, noise = (wrap_key_data(word[0], impl=key_kind) for word in words[:2])
        seed = Seed(first, noise, words.shuffle[0])
        zero, (iteration, steps, horizon) = no_scores(spec), moments
        hyper, states = jax.tree.map(lambda leaf: leaf[0], (hyper, states))
        here: ByFold = jax.tree.map(lambda leaf: jnp.asarray(leaf)[fold[0]], by_fold)
        if here.scale is not None:
            data = data._replace(scale=here.scale, shift=here.shift)
        part: Any = here.rows
        if isinstance(held_out, tuple):
            iteration, steps, horizon = (jnp.asarray(moment)[fold[0]] for moment in moments)
            counts = sorted({*held_out})
            place = jnp.array([counts.index(count) for count in held_out])[fold[0]]
        else:
            part, counts, place = Withheld(fold[0] * held_out, held_out), [held_out], 0

        def validation(count: int) -> Data:
            """The validation examples of the fold."""
            chosen = {}
            for name in ("inputs", "targets", "weights"):
                if (x := getattr(data, name)) is None:
                    continue
                chosen[name] = (
                    jax.lax.dynamic_slice_in_dim(jnp.asarray(x), part.first, count)
                    if isinstance(part, Withheld)
                    else jnp.asarray(x)[here.valid[:count]]
                )
            return data._replace(**chosen)

        known = validation(counts[0]) if len(counts) == 1 else None

        def member(
            hyper: Any, params: PyTree, memory: PyTree, diverged_at: Array, *, columns: bool
        ) -> Any:
            layout = Layout(batch_axis(mesh), columns)
            state = State(params, memory, iteration, diverged_at)
            state = advance(spec, hyper, seed, state, steps, data, part, layout, horizon)
            if not held_out:
                return state.params, state.optimizer_state, state.diverged_at, zero

            def judge(count: int) -> Any:
                examples = validation(count) if known is None else known
                return evaluate(spec, state.params, examples, layout, hyper=hyper)

            metrics: Any = jax.lax.switch(place, [partial(judge, count) for count in counts])
            state = mark_divergence(state, jnp.isfinite(metrics.loss))
            return state.params, state.optimizer_state, state.diverged_at, metrics

        idle = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, states[2].shape), zero)
        alone = population.trains_alone(spec, mesh, len(states[2]))
        train = partial(population.over_block, member, (hyper, *states), alone=alone)
        output = jax.lax.cond(active[0], train, lambda: (*states, idle))
        return jax.tree.map(lambda leaf: leaf[None], output)

    return population.on_every_device(train_block, mesh, split=5, whole=3)


def cheapest(
    spec: Spec,
    planned: Sequence[Work],
    had: Collection[Program],
    replicates: int,
    devices: int,
    platform: str,
) -> Program:
    """The program of a round with which the whole plan costs least.

    The cost of a plan is the training of every round, in blocks of the best of some sizes, and the
    programs for the sizes that are not compiled yet. On accelerators (not measured) programs cost
    nothing. The last bit of a result depends on the choice, so nothing else enters.

    Args:
      spec: the rest of the program.
      planned: the work of the round, and of later rounds as far as known.
      had: compiled programs, of any spec.
      replicates: of every trial; a block holds trials of one replicate.
      devices: the number of devices that train in parallel.
      platform: of the devices.
    """
    per_update = 6 * parameter_count(spec) * spec.batch_size  # forward, and twice that backward
    compiling = _COMPILING if platform == "cpu" else 0
    largest = {default_block_size(spec, platform, work.trials) for work in planned}
    sizes = {*largest, *(size for size in (1, 2, 4, 8, 16) if size < max(largest))}
    if isinstance(spec.model, PaddedMLP):
        parts = devices // math.gcd(replicates, devices)
        sizes |= {_even(work.trials, parts, max(largest)) for work in planned}

    def training(work: Work, size: int) -> float:
        waves = -(-replicates * -(-work.trials // size) // devices)
        return waves * (size + _OVERHEAD) * work.updates * per_update

    def cost(some: tuple[int, ...]) -> float:
        missing = sum(Program(spec, size) not in had for size in some)
        return missing * compiling + sum(min(training(work, s) for s in some) for work in planned)

    choices = [c for n in range(len(planned)) for c in combinations(sorted(sizes), n + 1)]
    return Program(spec, min(min(choices, key=cost), key=lambda size: training(planned[0], size)))


def _even(trials: int, parts: int, most: int) -> int:
    """The size of blocks that fill waves of some parts, where at most some trials are a block."""
    return -(-trials // (parts * -(-trials // (parts * most))))


def parameter_count(spec: Spec) -> int:
    """The number of a model's parameters."""
    if isinstance(spec.model, MLP):
        return mlp.parameter_count(spec.model.sizes)
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def padded(specs: Sequence[Spec]) -> Spec:
    """The program of networks of several sizes, that differ in nothing else."""
    models: list[Any] = [spec.model for spec in specs]
    hidden = [model.sizes[1:-1] for model in models]
    into, *_, out = models[0].sizes
    depth = max(map(len, hidden))
    # A layer beyond a network's depth hands on the last layer.
    columns = zip(*(sizes + sizes[-1:] * (depth - len(sizes)) for sizes in hidden), strict=True)
    sizes = (into, *map(max, columns), out)
    model = PaddedMLP(sizes, models[0].activation, models[0].initializer, min(map(len, hidden)))
    return replace(specs[0], model=model)


def fits(spec: Spec, into: Spec) -> bool:
    """Whether a network is padded to a program's sizes for less than the network's own work."""
    small, large = cast(MLP, spec.model), cast(PaddedMLP, into.model)
    if replace(spec, model=large) != into or len(small.sizes) < large.shallowest + 2:
        return False
    both = cast(PaddedMLP, padded([spec, into]).model)
    fitting = replace(both, shallowest=large.shallowest) == large
    return fitting and 2 * _products(small.sizes) > _products(large.sizes)


def together(specs: Sequence[Spec]) -> list[list[Spec]]:
    """Programs' networks in few groups: less than half of the work is padding.

    The group with the most padding is divided, in the order of work or of depth, where the least
    padding is left, until the padding of all groups together is small enough.
    """

    def work(group: Sequence[Spec]) -> int:
        return len(group) * _products(cast(PaddedMLP, padded(group).model).sizes)

    def halves(group: list[Spec]) -> list[list[Spec]]:
        orders = [sorted(group, key=key) for key in (own.__getitem__, depth)]
        parts = [[each[:n], each[n:]] for each in orders for n in range(1, len(group))]
        return min(parts, key=lambda part: sum(map(work, part)))

    def depth(spec: Spec) -> tuple[int, int]:
        return len(cast(MLP, spec.model).sizes), own[spec]

    own = {spec: _products(cast(MLP, spec.model).sizes) for spec in specs}
    groups = [[*specs]]
    while sum(map(work, groups)) >= 2 * sum(own[spec] for spec in specs):
        worst = max(groups, key=lambda group: work(group) - sum(own[spec] for spec in group))
        groups = [*(group for group in groups if group is not worst), *halves(worst)]
    return groups


def _products(sizes: Sequence[int]) -> int:
    """The multiplications of a network's matrix products, for an example."""
    return sum(into * out for into, out in pairwise(sizes))


@lru_cache
def _first_state(spec: Spec, names: tuple[str, ...], made: Any, _: Any) -> State:
    """The shapes of a model in training, in the current floating-point type."""
    hyper = jax.tree.map(lambda column: column[0], traced_values(spec, names, [{}], made))
    return jax.eval_shape(partial(init_state, spec), hyper, jax.random.key(0))


@lru_cache
def _keeps_zeros(optimizer: Any, activation: Any, names: tuple[str, ...]) -> bool:
    """Whether zeros beside a network change no update, stay zeros, and change no activation.

    An optimizer that looks at several parameters at once, such as adafactor, is seen by two updates
    of a layer with and without zeros around; the layer is as large as optax asks for the factors of
    adafactor.
    """
    if optimizer in _ELEMENTWISE and activation in ACTIVATIONS:
        return True
    spec = Spec(MLP((1, 1), activation=activation), 1, optimizer=optimizer)
    hyper = jax.tree.map(lambda _: jnp.asarray(0.5), traced_values(spec, names, [{}]))
    draw = np.random.default_rng(0).standard_normal
    start, *gradients = (Layer(*map(jnp.asarray, (draw((130, 140)), draw(130)))) for _ in range(3))
    numbers = jnp.asarray(draw(130))

    def around(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.pad(x, [(0, 20)] * x.ndim), tree)

    def updated(params: PyTree, gradients: Sequence[PyTree]) -> PyTree:
        made = optimizer_at(spec, hyper, jnp.int32(0))
        memory: Any = made.init(params)
        for gradient in gradients:
            changes, memory = made.update(gradient, memory, params)
            params = jax.tree.map(jnp.add, params, changes)
        return params

    def activated(x: Array) -> tuple[Array, Array]:
        function = get_activation(activation)
        return jax.value_and_grad(lambda x: jnp.sum(function(x)[:130] ** 2))(x)

    @jax.jit
    def both() -> tuple[PyTree, PyTree]:
        value, slope = activated(numbers)
        plain = around(updated(start, gradients)), value, around(slope)
        return plain, (updated(*around((start, gradients))), *activated(around(numbers)))

    try:
        pairs = zip(*map(jax.tree.leaves, both()), strict=True)
    except Exception:  # of a function of any author
        return False
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)
