"""Losses of one example, the L2 penalty and the classification error.

Every loss takes the logits z [C] and the target of ONE example; ``jax.vmap`` them over a minibatch.
Keyword parameters with a number as default, such as ``label_smoothing``, are hyperparameters that
training reads from a field of ``Hyper``; evaluations keep the default, so that the losses of
different configurations are comparable. All losses of classes are finite, with finite gradients,
for logits up to +-1e30, and accept a logit of -inf where the target is 0. Logits and a target whose
shapes do not fit each other are a ValueError.
"""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import Array, ArrayLike, Loss, PyTree, as_array, on_host

softmax = jax.nn.softmax
log_softmax = jax.nn.log_softmax
sigmoid = jax.nn.sigmoid


def cross_entropy(logits: Array, target: ArrayLike, *, label_smoothing: ArrayLike = 0.0) -> Array:
    """Softmax cross-entropy, natural logarithm.

    J(z) = -sum_i y_i log p_i with p = softmax(z) and log p_i = z_i - log sum_j exp z_j.

    Args:
      logits: z, shape [C].
      target: a class index (integer scalar), or any probability vector y, shape [C].
      label_smoothing: e in [0, 1]: (1 - e) y + e / C takes the place of y (Szegedy et al., 2016).

    Returns:
      The loss in nats, a scalar.

    Source: S1.2.
    """
    logits, target = check_target("cross_entropy", logits, target)
    if not isinstance(label_smoothing, float) or label_smoothing:
        share = jnp.asarray(label_smoothing)
        uniform = -jnp.mean(log_softmax(logits))
        return (1 - share) * cross_entropy(logits, target) + share * uniform
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
    logits, target = check_target("squared_error", logits, target)
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
    logits, target = as_array("logits", logits), jnp.asarray(as_array("target", target))
    if logits.size != 1 or target.ndim != 0:
        raise ValueError(
            f"logistic takes one logit and a scalar target, got logits {logits.shape} "
            f"and target {target.shape}"
        )
    _check_value("logistic", target, 1, "0 or 1, or a probability")
    z = logits.reshape(())
    y = target.astype(z.dtype)
    return _weighted(y, jax.nn.softplus(-z)) + _weighted(1 - y, jax.nn.softplus(z))


def focal(logits: Array, target: ArrayLike, *, gamma: ArrayLike = 2.0) -> Array:
    """Focal loss: cross-entropy with less weight on examples that are classified well.

    J(z) = -sum_i y_i (1 - p_i)^gamma log p_i with p = softmax(z).

    Args:
      logits: z, shape [C].
      target: a class index (integer scalar), or any probability vector y, shape [C].
      gamma: at least 0; 0 gives the cross-entropy.

    Returns:
      The loss in nats, a scalar.

    Source: Lin et al., Focal loss for dense object detection, 2017.
    """
    logits, target = check_target("focal", logits, target)
    log_p = log_softmax(logits)
    rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).tiny)  # 1 - p
    values = -jnp.exp(gamma * jnp.log(rest)) * log_p
    return jnp.sum(_weighted(target, values)) if target.ndim else values[target]


def mse(outputs: Array, target: ArrayLike) -> Array:
    """Squared error of a regression, the mean over K outputs: 1/K sum_k (z_k - t_k)^2.

    Args:
      outputs: z, shape [K].
      target: t, shape [K]; a scalar where K is 1.

    Returns:
      The loss, a scalar, in the squared unit of the targets.
    """
    return jnp.mean(_deviations("mse", outputs, target) ** 2)


def mae(outputs: Array, target: ArrayLike) -> Array:
    """Absolute error of a regression, the mean over K outputs: 1/K sum_k |z_k - t_k|.

    Args:
      outputs: z, shape [K].
      target: t, shape [K]; a scalar where K is 1.

    Returns:
      The loss, a scalar, in the unit of the targets.
    """
    return jnp.mean(jnp.abs(_deviations("mae", outputs, target)))


def huber(outputs: Array, target: ArrayLike, *, delta: ArrayLike = 1.0) -> Array:
    """Huber's loss of a regression, the mean over K outputs of h(z_k - t_k).

    h(d) = d^2 / 2 for |d| <= delta, and delta (|d| - delta / 2) beyond.

    Args:
      outputs: z, shape [K].
      target: t, shape [K]; a scalar where K is 1.
      delta: above 0, in the unit of the targets.

    Returns:
      The loss, a scalar.

    Source: P. J. Huber, Robust estimation of a location parameter, 1964.
    """
    size = jnp.abs(_deviations("huber", outputs, target))
    near = jnp.minimum(size, delta)
    return jnp.mean(near * (size - near / 2))


def gaussian_nll(outputs: Array, target: ArrayLike) -> Array:
    """Negative log-likelihood of a normal distribution with the mean m and the variance exp(s).

    J = sum_k (s_k + (t_k - m_k)^2 exp(-s_k) + log 2 pi) / 2.

    Args:
      outputs: the means m, then the logarithms s of the variances, shape [2 K].
      target: t, shape [K]; a scalar where K is 1.

    Returns:
      The loss in nats, a scalar.
    """
    outputs = as_array("outputs", outputs)
    if outputs.ndim != 1 or len(outputs) % 2:
        raise ValueError(
            f"gaussian_nll takes K means and K logarithms of variances, shape [2 K], got "
            f"{outputs.shape}"
        )
    means, log_variances = jnp.split(outputs, 2)
    deviations = _deviations("gaussian_nll", means, target)
    terms = log_variances + deviations**2 * jnp.exp(-log_variances) + math.log(2 * math.pi)
    return jnp.sum(terms) / 2


def _deviations(name: str, outputs: Array, target: ArrayLike) -> Array:
    """z - t, shape [K]; ValueError, in the name of the caller, unless the shapes fit."""
    outputs, target = as_array("outputs", outputs), jnp.asarray(as_array("target", target))
    if outputs.ndim != 1 or (target.shape != outputs.shape and (target.ndim or outputs.size != 1)):
        raise ValueError(
            f"{name} takes outputs [K] and a target [K] of one example, got {outputs.shape} and "
            f"{target.shape}"
        )
    return outputs - target.astype(outputs.dtype)


CLASSES = {
    "cross_entropy": cross_entropy,
    "squared_error": squared_error,
    "focal": focal,
    "logistic": logistic,
}
"""The losses of class indices and probability vectors."""

REGRESSIONS = {"mse": mse, "mae": mae, "huber": huber, "gaussian_nll": gaussian_nll}
"""The losses of real targets."""

LOSSES: dict[str, Callable[..., Array]] = CLASSES | REGRESSIONS


def predictions(loss: str | Loss, outputs: Array) -> Array:
    """The predicted targets [..., K] among the outputs of a regression."""
    return outputs[..., : outputs.shape[-1] // 2] if loss == "gaussian_nll" else outputs


def l2_penalty(params: PyTree) -> Array:
    """Half the sum of the squared weights: 1/2 sum_k w_k^T w_k. Biases do not count.

    A weight is a leaf of rank 2 or more; biases (and scales) are vectors, in ``Layer`` as in the
    parameters of Flax and Equinox.

    Source: S2.4.
    """
    leaves = (as_array("params", leaf) for leaf in jax.tree.leaves(params))
    weights = [leaf for leaf in leaves if leaf.ndim >= 2]
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


def check_target(name: str, logits: Any, target: Any) -> tuple[Array, Array]:
    """Logits and target in arrays; ValueError, in the name of the caller, unless both fit."""
    logits, target = as_array("logits", logits), jnp.asarray(as_array("target", target))
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
    if is_index:
        _check_value(name, target, logits.shape[0] - 1, "a class index")
    return logits, target


def _check_value(name: str, target: Array, most: int, expected: str) -> None:
    """ValueError unless a scalar target is within 0..most; traced targets pass."""
    value = on_host(target)
    if value is not None and not 0 <= value <= most:
        raise ValueError(f"{name} takes {expected} in 0..{most}, got {value}")


_FEW_CLASSES, _FEW_EXAMPLES = 20, 5
"""More classes, with fewer examples each, are probably the targets of a regression."""

_REGRESSION = ": the losses of real targets are " + ", ".join(sorted(REGRESSIONS))


def checked_targets(name: str, targets: Any, outputs: int, loss: str | Loss) -> Any:
    """Targets in the form that a named loss takes; whole numbers in floats become class indices.

    Traced targets and targets of custom losses pass. Targets of a regression become floats.

    Args:
      name: for messages.
      targets: [N] or [N, C].
      outputs: the number of logits.
      loss: the name, or a custom loss.

    Raises:
      ValueError: labels or vectors that the loss would misunderstand; the message says how to map
        the targets.
    """
    values = on_host(targets)
    if callable(loss) or values is None:
        return targets
    if loss in REGRESSIONS:
        return _real_targets(name, targets, outputs, loss)
    if outputs == 1 and loss != "logistic":
        raise ValueError(
            f"the network has 1 output, whose softmax is always 1, expected at least 2 for {loss}, "
            "or the loss 'logistic'"
        )
    if values.ndim == 1:
        if loss == "logistic" and values.dtype.kind == "f":
            low, high = values.min(), values.max()
            if low < 0 or high > 1:
                _refuse_label(name, values, 2)
            return targets
        labels = as_labels(name, targets)
        if labels.min() < 0 or labels.max() >= max(outputs, 2):
            _refuse_label(name, np.asarray(labels), max(outputs, 2))
        return labels
    if loss == "logistic" or values.shape != (len(values), outputs):
        vectors = "" if loss == "logistic" else f" or [N, {outputs}]"
        raise ValueError(
            f"{name} have the shape {values.shape}, expected [N]{vectors}{one_hot_hint(values)}"
        )
    sums = values.sum(axis=1, dtype=float)
    if loss == "cross_entropy" and (values.min() < 0 or abs(sums - 1).max() > 1e-2):
        worst = int(abs(sums - 1).argmax())
        raise ValueError(
            f"{name} have the sum {sums[worst]:g} in row {worst}, expected probabilities with the "
            "sum 1: several labels at once take a custom loss"
        )
    return targets


def _real_targets(name: str, targets: Any, outputs: int, loss: str) -> Any:
    """Targets [N] or [N, K] in floating point, for as many outputs as a regression needs."""
    shape = np.shape(targets)
    columns = shape[1] if len(shape) == 2 else 1
    wanted = columns * (2 if loss == "gaussian_nll" else 1)
    if len(shape) > 2 or outputs != wanted:
        raise ValueError(
            f"{name} have the shape {shape} and the outputs of the network are {outputs}, expected "
            f"{wanted} for {loss}"
        )
    return as_real(targets)


def as_real(targets: Any) -> Any:
    """Real targets, with whole numbers as floats."""
    whole = np.asarray(targets).dtype.kind in "iu"
    return np.asarray(targets, jax.dtypes.canonicalize_dtype(float)) if whole else targets


def as_labels(name: str, targets: Any) -> Any:
    """Class indices [N]: integers as they are, whole numbers in floats as int32.

    Raises:
      ValueError: numbers that are not whole.
    """
    values = np.asarray(targets)
    if values.dtype.kind in "iu":
        return targets
    broken = values[values != np.floor(values)]
    if broken.size:
        raise ValueError(f"{name} hold {broken[0]}, expected class indices{_REGRESSION}")
    return values.astype(np.int32)


def are_few(values: int, examples: int) -> bool:
    """Whether so many values are few enough to be classes of so many examples."""
    return values <= _FEW_CLASSES or examples >= _FEW_EXAMPLES * values


def class_count(name: str, labels: np.ndarray, other: str = "", others: Any = ()) -> int:
    """The number of classes of labels [N], which have to be exactly 0..C-1.

    Args:
      name: for messages.
      labels: of the training examples.
      other: the name of the other labels, for messages.
      others: further labels, such as of test examples, which may have no class of their own.

    Raises:
      ValueError: one class only, gaps, labels that do not start at 0, too many values for
        classes, or a class of the other labels alone; the message says how to map the labels.
    """
    found, n = np.unique(labels), len(labels)
    classes = len(found)
    if classes == 1:
        raise ValueError(f"{name} hold the class {found[0]} alone, expected at least 2 classes")
    if not are_few(classes, n):
        raise ValueError(
            f"{name} hold {classes} different values from {found[0]} to {found[-1]} in {n} "
            f"examples, expected classes of {_FEW_EXAMPLES} examples or more{_REGRESSION}"
        )
    unseen = np.setdiff1d(others, found)
    if unseen.size:
        raise ValueError(
            f"{other} hold {unseen[0]:.0f}, a class without an example in {name}, expected classes "
            "of the training examples alone"
        )
    if found[0] != 0 or found[-1] != classes - 1:
        _refuse_label(name, labels, classes)
    return classes


def are_one_hot(values: np.ndarray) -> bool:
    """Whether targets are rows [N, C] with a single 1 in each, and 0 besides."""
    bits = values.ndim == 2 and bool(((values == 0) | (values == 1)).all())
    return bits and bool((values.sum(axis=1) == 1).all())


def one_hot_hint(values: np.ndarray) -> str:
    """What makes class indices of one-hot rows; empty for other targets."""
    if values.ndim != 2 or not ((values == 0) | (values == 1)).all():
        return ""
    if are_one_hot(values):
        return ": argmax(axis=1) makes indices of one-hot rows"
    return ": rows of several labels take a custom loss"


def _refuse_label(name: str, labels: np.ndarray, classes: int) -> NoReturn:
    """The ValueError for labels other than 0..classes-1."""
    found = np.unique(labels)
    outside = found[(found < 0) | (found >= classes)][0]
    hint = "np.searchsorted(np.unique(train_labels), labels)"
    if found.tolist() == [-1, 1]:
        hint = "(labels + 1) // 2"
    elif found[0] == 1 and found[-1] == classes:
        hint = "labels - 1"
    message = f"{name} hold {outside}, expected 0..{classes - 1}"
    if len(found) > classes:
        raise ValueError(f"{message}: {len(found)} classes are more than the network has outputs")
    raise ValueError(f"{message}: map them with {hint}")
