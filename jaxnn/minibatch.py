"""The examples of an iteration's minibatch.

Every epoch has a fresh order: a keyed pseudorandom permutation, computed where needed and never
stored, so an iteration's minibatch is a function of (key, iteration) alone. On a CPU
``jax.random.permutation`` of 60,000 examples costs about as much as an epoch of softmax regression,
and the permutation would be an additional array to carry.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

from jaxnn.types import Array, Batch, Data, Key

_ROUNDS = 8
_GOLDEN = 0x9E3779B9


def shuffle_key(key: Key) -> Array:
    """The round keys [rounds] uint32 of a run's shuffles."""
    return jax.random.bits(key, (_ROUNDS,), jnp.uint32)


def minibatch_indices(
    shuffle: Array, iteration: Array, batch_size: int, n: int | Array, grid: Array | None = None
) -> Array:
    """The examples of minibatch number ``iteration``: indices below n, int32 [B].

    Minibatches are consecutive pieces of the sequence of all epochs. A minibatch may contain the
    end of an epoch and the beginning of the next, so every example is visited exactly once per
    epoch whether or not the batch size divides n. ``shuffle`` is from ``shuffle_key``. A traced n
    comes with the array of ``permutation_grid``.
    """
    first = jnp.asarray(iteration, jnp.uint32) * jnp.uint32(batch_size)
    position = first + jnp.arange(batch_size, dtype=jnp.uint32)
    epoch, place = position // jnp.uint32(n), position % jnp.uint32(n)
    keys = shuffle[:, None] + epoch * jnp.uint32(_GOLDEN)
    return permutation(keys, place, n, grid).astype(jnp.int32)


def take(data: Data, indices: Array) -> Batch:
    """The (inputs [B, in] in floating point, targets) at the indices, and weights if any."""
    inputs, targets = (
        jax.lax.platform_dependent(jnp.asarray(each), indices, cpu=_rows_by_call, default=_rows)
        for each in (data.inputs, data.targets)
    )
    if data.weights is None:
        return as_float(inputs, data), targets
    return as_float(inputs, data), targets, _rows(jnp.asarray(data.weights), indices)


def _rows(x: Array, indices: Array) -> Array:
    return x.at[indices].get(mode="promise_in_bounds")


def _rows_by_call(x: Array, indices: Array) -> Array:
    """``_rows`` as a function that XLA does not inline, so that whole rows are copied.

    On a CPU XLA would fuse the gather with the cast after the gather, number by number, which takes
    twice as long: a fifth more for a whole step of a softmax regression.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(_rows)(x, indices)


def as_float(inputs: Array, data: Data) -> Array:
    """Stored inputs as the network's inputs: floating point, scaled and shifted."""
    dtype = inputs.dtype
    if jnp.issubdtype(dtype, jnp.integer):
        dtype = jnp.promote_types(dtype, jnp.result_type(float))
    scaled = inputs.astype(dtype) * jnp.asarray(data.scale, dtype)
    return scaled if data.shift is None else scaled + jnp.asarray(data.shift, dtype)


def permutation(keys: Array, place: Array, n: int | Array, grid: Array | None = None) -> Array:
    """The images of places under a keyed pseudorandom permutation of 0 .. n-1.

    A generalised Feistel network (Black and Rogaway, 2002): places are pairs (l, r) on a
    near-square grid of at least n places, and each round adds a hash of l to r or of r to l, which
    is invertible for any hash. Where n has two divisors near sqrt(n), as 60,000 has, the divisors
    are the sides of the grid; else a place beyond n, at most about 1 in sqrt(n), is permuted again
    until the image is below n.

    Args:
      keys: one uint32 per round, [rounds, ...], broadcast against place.
      place: uint32 [...], each below n, as the images.
      n: the size of the permuted set.
      grid: the array of ``permutation_grid(n)`` for a traced n, with the same images.
    """
    rows, columns = permutation_grid(int(n)) if grid is None else grid

    def walk(place: Array) -> Array:
        left, right = place % rows, place // rows
        for round_number in range(0, _ROUNDS, 2):
            left = (left + _mix(right ^ keys[round_number])) % rows
            right = (right + _mix(left ^ keys[round_number + 1])) % columns
        return right * rows + left

    def walk_on(place: Array) -> Array:
        return jnp.where(place < n, place, walk(place))

    if grid is None and rows * columns == n:
        return walk(place)
    return jax.lax.while_loop(lambda place: jnp.any(place >= n), walk_on, walk(place))


def permutation_grid(n: int) -> tuple[int, int]:
    """The sides of a near-square grid for n places: divisors of n where n has suitable divisors."""
    side = math.isqrt(n)
    divisor = next(d for d in range(side, 0, -1) if n % d == 0)
    if divisor > max(side // 2, 1):
        return divisor, n // divisor
    rows = math.isqrt(n - 1) + 1
    return rows, -(-n // rows)


def _mix(x: Array) -> Array:
    """A bijective 32-bit hash in which every input bit reaches every output bit (MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
