"""Training a bucket of trials from one evaluation to the next, on all devices.

A *bucket* holds the trials of a round that share a program. Its members are rows of arrays
[R, K, ...]: R replicates (seeds x folds) of K trials, so copying a trial is an index, and saving
them is writing arrays. They stay on the host between evaluations.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnn import population
from jaxnn.population import SPLIT, WHOLE, Traced, Wave, check_mesh
from jaxnn.search.task import hyper
from jaxnn.search.training.programs import Program, Work, cheapest
from jaxnn.search.validation import Arranged
from jaxnn.spec import Spec
from jaxnn.train import (
    NEVER,
    Metrics,
    State,
    Withheld,
    advance,
    evaluate,
    init_state,
    mark_divergence,
)
from jaxnn.types import Array, Data, Hyper, Key, PyTree


class Members(NamedTuple):
    """The trials of a bucket in training."""

    params: PyTree  # leaves [R, K, ...]
    optimizer_state: PyTree  # leaves [R, K, ...]
    diverged_at: np.ndarray  # [R, K] int32
    best: PyTree  # [R, K, ...]: the parameters at each trial's best evaluation

    def take(self, rows: Sequence[int]) -> "Members":
        """Some of the trials, one perhaps several times; a copy."""
        return jax.tree.map(lambda leaf: leaf[:, np.asarray(rows, int)], self)


class Replicates(NamedTuple):
    """What a trial is repeated over: every fold of every seed."""

    words: np.ndarray  # [R, ...] uint32: the key of the seed
    fold: np.ndarray  # [R] int32
    key_kind: Any

    @property
    def count(self) -> int:
        """R."""
        return len(self.fold)


def replicates(words: Array, folds: int, key_kind: Any) -> Replicates:
    """Seeds by folds; the members of one seed share their minibatches.

    Args:
      words: from ``seed_words``.
      folds: of every seed.
      key_kind: ``jax.random.key_impl`` of the key that the words come from.
    """
    fold = np.tile(np.arange(folds, dtype=np.int32), len(words))
    return Replicates(np.repeat(np.asarray(words), folds, axis=0), fold, key_kind)


@partial(jax.jit, static_argnames="seeds")
def seed_words(key: Key, seeds: int) -> Array:
    """The key of each seed, [seeds, ...] uint32."""
    return jax.vmap(lambda seed: jax.random.key_data(jax.random.fold_in(key, seed)))(
        jnp.arange(seeds)
    )


@dataclass(frozen=True)
class Trainer:
    """Where and on what all buckets of a search are trained."""

    arranged: Arranged
    on_device: Data  # the same examples, on every device
    replicates: Replicates
    mesh: Mesh
    _traced: dict[Program, Traced] = field(default_factory=dict)

    def program(self, spec: Spec, planned: Sequence[Work], had: Collection[Program]) -> Program:
        """How a round is trained; see ``cheapest``."""
        return cheapest(
            spec,
            planned,
            had,
            replicates=self.replicates.count,
            devices=self.mesh.shape["population"],
            platform=self.mesh.devices.flat[0].platform,
        )

    def waves(self, program: Program, trials: int) -> list[Wave]:
        """Which device trains which members when."""
        devices = self.mesh.shape["population"]
        return population.deal(self.replicates.count, trials, program.block_size, devices)

    def empty(self, spec: Spec, trials: int) -> Members:
        """Members that have yet to be drawn."""
        state = jax.eval_shape(partial(init_state, spec), Hyper(0.1), jax.random.key(0))
        shape = self.replicates.count, trials
        params, optimizer_state, best = (
            jax.tree.map(lambda leaf: np.zeros(shape + leaf.shape, leaf.dtype), tree)
            for tree in (state.params, state.optimizer_state, state.params)
        )
        return Members(params, optimizer_state, np.full(shape, NEVER, np.int32), best)

    def traced(self, program: Program) -> Traced:
        """The program for these examples, replicates and devices; once."""
        if program not in self._traced:
            self._traced[program] = self._trace(program)
        return self._traced[program]

    def _trace(self, program: Program) -> Traced:
        spec, some = program.spec, self.empty(program.spec, 1)
        arguments = self._arguments(hyper([{}]), some, self.waves(program, 1)[0], 0, 0)
        static = (
            spec,
            self.mesh,
            self.replicates.key_kind,
            check_mesh(self.mesh, spec),
            self.arranged.held_out,
        )
        return population.trace_once(_program, static, population.signature(arguments))

    def advance(
        self,
        program: Program,
        hyper: Hyper,
        members: Members,
        start: int,
        stop: int,
        report: Callable[[float], None],
    ) -> Metrics:
        """Trains the members from one iteration to another, in place, and evaluates them.

        Args:
          program: how.
          hyper: arrays [K].
          members: changed in place, apart from ``best``.
          start: the iteration they are at.
          stop: the one they are to reach.
          report: called with the share that is done, after every block.

        Returns:
          Validation loss and error, [R, K] each.
        """
        run = self.traced(program).compiled
        shape, dtype = members.diverged_at.shape, jnp.result_type(float)
        waves = self.waves(program, shape[1])
        metrics = Metrics(np.zeros(shape, dtype), np.zeros(shape, dtype))
        own = (members.params, members.optimizer_state, members.diverged_at, metrics)

        def launch(wave: Wave) -> Any:
            return run(*self._arguments(hyper, members, wave, start, stop - start))

        for done, (wave, output) in enumerate(population.one_ahead(waves, launch), start=1):
            population.store(own, output, wave)
            report(done / len(waves))
        population.gather((members.diverged_at, metrics), waves, self.mesh)
        return metrics

    def gather(self, program: Program, members: Members) -> Members:
        """The members with the rows that other processes have trained."""
        waves = self.waves(program, members.diverged_at.shape[1])
        return population.gather(members, waves, self.mesh)

    def _arguments(
        self,
        hyper: Hyper,
        members: Members,
        wave: Wave,
        start: int,
        steps: int,
    ) -> tuple:
        rows = np.stack([block.rows for block in wave])  # [D, block_size]
        replicate = np.array([block.replicate for block in wave])
        own = (
            jax.tree.map(lambda column: column[rows], hyper),
            jax.tree.map(
                lambda leaf: leaf[replicate[:, None], rows],
                (members.params, members.optimizer_state, members.diverged_at),
            ),
            self.replicates.words[replicate],
            self.replicates.fold[replicate],
            np.array([block.count > 0 for block in wave]),
        )
        shared = population.place_whole(self.mesh, (np.int32(start), np.int32(steps)))
        return (*population.place_split(self.mesh, own), *shared, self.on_device)


def _program(
    spec: Spec, mesh: Mesh, key_kind: Any, batch_axis: str | None, held_out: int
) -> Callable:
    """Every device trains its own block on, if it has one in this round, and evaluates it.

    (hyper [D, block], (params, optimizer state, divergence) [D, block, ...], key words [D, 2],
    folds [D], active [D], iteration, steps, data)
      -> (params, optimizer state, divergence, metrics) [D, block, ...]
    """

    def block(
        hyper: Hyper,
        own: tuple[PyTree, PyTree, Array],
        words: Array,
        fold: Array,
        active: Array,
        iteration: Array,
        steps: Array,
        data: Data,
    ) -> Any:
        key = jax.random.wrap_key_data(words[0], impl=key_kind)
        withheld = Withheld(fold[0] * held_out, held_out)
        nothing = Metrics(jnp.zeros(()), jnp.zeros(()))

        def member(
            hyper: Hyper, params: PyTree, optimizer_state: PyTree, diverged_at: Array
        ) -> Any:
            state = State(params, optimizer_state, iteration, diverged_at)
            state = advance(
                spec,
                hyper,
                key,
                state,
                steps,
                data,
                withheld=withheld,
                batch_axis=batch_axis,
                columns=True,
            )
            if not held_out:
                return state.params, state.optimizer_state, state.diverged_at, nothing
            metrics = evaluate(spec, state.params, validation, batch_axis, columns=True)
            state = mark_divergence(state, jnp.isfinite(metrics.loss))
            return state.params, state.optimizer_state, state.diverged_at, metrics

        def train() -> Any:
            return jax.vmap(member)(hyper, *own)

        hyper, own = jax.tree.map(lambda leaf: leaf[0], (hyper, own))
        inputs, targets = (
            jax.lax.dynamic_slice_in_dim(jnp.asarray(x), withheld.first, held_out)
            for x in (data.inputs, data.targets)
        )
        validation = Data(inputs, targets, data.scale)
        idle = jax.tree.map(lambda zero: jnp.broadcast_to(zero, own[2].shape), nothing)
        output = jax.lax.cond(active[0], train, lambda: (*own, idle))
        return jax.tree.map(lambda leaf: leaf[None], output)

    specs = {"in_specs": (*(SPLIT,) * 5, *(WHOLE,) * 3), "out_specs": SPLIT}
    return jax.jit(jax.shard_map(block, mesh=mesh, **specs, check_vma=False))
