"""The matrix products of a training step and nothing else: what XLA's kernels make of them.

The time that training a population can come down to, short of other kernels: the products of the
shapes that a step has, on every device at once, without gathering, activations, loss or update.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from experiments.benchmark.machine import seconds_of_call
from experiments.benchmark.part import median
from experiments.benchmark.problem import BATCH_SIZE
from jaxnn.devices import population_mesh
from jaxnn.types import Array

STEPS = 50


def microseconds(sizes: tuple[int, ...], models: int, repeats: int = 5) -> float:
    """Per model and step, for so many models a device at once, examples as columns."""
    mesh = population_mesh()
    draw = np.random.default_rng(0)
    weights = [
        draw.normal(size=(mesh.size * models, o, i)).astype(np.float32) for i, o in pairwise(sizes)
    ]
    minibatch = draw.normal(size=(BATCH_SIZE, sizes[0])).astype(np.float32)
    hidden = [
        draw.normal(size=(mesh.size * models, width, BATCH_SIZE)).astype(np.float32)
        for width in sizes[1:]
    ]
    split, whole = PartitionSpec("population"), PartitionSpec()
    program = jax.jit(
        jax.shard_map(
            steps, mesh=mesh, in_specs=(split, whole, split), out_specs=split, check_vma=False
        )
    )
    taken = median(seconds_of_call(lambda: program(weights, minibatch, hidden), repeats))
    return 1e6 * taken / STEPS / models / mesh.size


def steps(weights: list[Array], minibatch: Array, hidden: list[Array]) -> Array:
    """The products of so many steps, of which next to nothing is kept: a number [1] a device.

    The barriers make every step compute all of them again, and whole.
    """

    def step(_: Array, carry: tuple) -> tuple:
        held, total = jax.lax.optimization_barrier(carry)
        found = jax.lax.optimization_barrier(products(*held))
        return held, total + sum(each[0, 0, :1] for each in found)

    start = (weights, minibatch, hidden), jnp.zeros(1)
    return jax.lax.fori_loop(0, STEPS, step, start)[1]


def products(weights: list[Array], minibatch: Array, hidden: list[Array]) -> list[Array]:
    """One step's.

    Args:
      weights: per layer [K, out, in].
      minibatch: the inputs [B, in] of all models.
      hidden: per layer [K, out, B], in place of its activations and of the gradients to them.

    Returns:
      Per layer the pre-activations [K, out, B] and the weights' gradient [K, out, in]; from the
      second on the gradient to the inputs [K, in, B], too.
    """
    found = [
        jnp.einsum("koi,bi->kob", weights[0], minibatch),
        jnp.einsum("kob,bi->koi", hidden[0], minibatch),
    ]
    for weight, inputs, outputs in zip(weights[1:], hidden, hidden[1:], strict=False):
        found += [
            jnp.einsum("koi,kib->kob", weight, inputs),
            jnp.einsum("kob,kib->koi", outputs, inputs),
            jnp.einsum("koi,kob->kib", weight, outputs),
        ]
    return found
