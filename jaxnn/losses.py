"""Losses of one example, the L2 penalty and the classification error.

Every loss takes the logits z [C] and the target of ONE example; ``jax.vmap`` them over a minibatch.
All losses are finite, with finite gradients, for logits up to +-1e30, and accept a logit of -inf
where the target is 0. Logits and a target whose shapes do not fit each other are a ValueError.
"""

import jax
import jax.numpy as jnp

from jaxnn.types import Array, ArrayLike, PyTree

softmax = jax.nn.softmax
log_softmax = jax.nn.log_softmax
sigmoid = jax.nn.sigmoid


def cross_entropy(logits: Array, target: ArrayLike) -> Array:
    """Softmax cross-entropy, natural logarithm.

    J(z) = -sum_i y_i log p_i with p = softmax(z) and log p_i = z_i - log sum_j exp z_j.

    Args:
      logits: z, shape [C].
      target: a class index (integer scalar), or any probability vector y, shape [C].

    Returns:
      The loss in nats, a scalar.

    Source: S1.2.
    """
    target = jnp.asarray(target)
    check_target("cross_entropy", logits, target)
    if target.ndim:
        return -jnp.sum(_weighted(target, log_softmax(logits)))
    largest = jax.lax.stop_gradient(jnp.max(logits))
    return jnp.log(jnp.sum(jnp.exp(logits - largest))) + (largest - logits[target])


def squared_error(logits: Array, target: ArrayLike) -> Array:
    """Squared error on the softmax output.

    l(y, p) = 1/2 ||y - p||^2 with p = softmax(z).

    Args:
      logits: z, shape [C].
      target: a class index (integer scalar), or any vector y, shape [C].

    Returns:
      The loss, a scalar.

    Source: S3.4.
    """
    target = jnp.asarray(target)
    check_target("squared_error", logits, target)
    if target.ndim == 0:
        target = jax.nn.one_hot(target, logits.shape[0], dtype=logits.dtype)
    return jnp.sum((target - softmax(logits)) ** 2) / 2


def logistic(logits: Array, target: ArrayLike) -> Array:
    """Binary logistic loss.

    J(z) = -y log h - (1 - y) log(1 - h) with h = sigmoid(z), computed as
    y log(1 + e^-z) + (1 - y) log(1 + e^z).

    Args:
      logits: z, shape [1] or [].
      target: y in {0, 1}, or any probability of the positive class, a scalar.

    Returns:
      The loss in nats, a scalar.

    Source: S5.3.
    """
    target = jnp.asarray(target)
    if logits.size != 1 or target.ndim != 0:
        raise ValueError(
            f"logistic takes one logit and a scalar target, got logits {logits.shape} "
            f"and target {target.shape}"
        )
    z = logits.reshape(())
    y = target.astype(z.dtype)
    return _weighted(y, jax.nn.softplus(-z)) + _weighted(1 - y, jax.nn.softplus(z))


LOSSES = {"cross_entropy": cross_entropy, "squared_error": squared_error, "logistic": logistic}


def l2_penalty(params: PyTree) -> Array:
    """Half the sum of the squared weights: 1/2 sum_k w_k^T w_k. Biases do not count.

    A weight is a leaf of rank 2 or more; biases (and scales) are vectors, in ``Layer`` as in the
    parameters of Flax and Equinox.

    Source: S2.4.
    """
    weights = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim >= 2]
    return jnp.asarray(sum((jnp.sum(weight**2) for weight in weights), start=0.0)) / 2


def classification_error(logits: Array, target: Array) -> Array:
    """1.0 where the largest logit (for one logit: its sign) misses the target's class, else 0.0."""
    if logits.size == 1:
        wrong = (logits.reshape(()) > 0) != (target > 0.5)
    else:
        wrong = jnp.argmax(logits) != (jnp.argmax(target) if target.ndim else target)
    return wrong.astype(logits.dtype)


def _weighted(weight: Array, value: Array) -> Array:
    """weight * value, with 0 * infinity = 0."""
    return weight * jnp.where((weight == 0) & jnp.isinf(value), 0, value)


def check_target(name: str, logits: Array, target: Array) -> None:
    """ValueError, in the name of the caller, unless logits and target fit."""
    if logits.ndim != 1:
        raise ValueError(
            f"{name} takes the logits of one example, shape [C], got {logits.shape}: jax.vmap it "
            "over a minibatch"
        )
    is_index = target.ndim == 0 and jnp.issubdtype(target.dtype, jnp.integer)
    if not is_index and target.shape != logits.shape:
        raise ValueError(
            f"{name} takes a class index (integer scalar) or a vector of {logits.shape[0]} "
            f"probabilities, got a target of shape {target.shape} and dtype {target.dtype}"
        )
