"""The hand-derived gradients of the sources, in their correct form.

One function per derivation, in this package's layout z = Wx + b with weight [out, in]; the gradient
by an array has the shape of the array. ``jax.vmap`` the functions of one example over a minibatch.
Arguments whose shapes do not fit each other are a ValueError that names the argument. The
docstrings name the misprints of the sources.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxnn.losses import check_target, sigmoid, softmax
from jaxnn.mlp import ACTIVATIONS, affine, as_layer, as_layers, by_name
from jaxnn.types import (
    ActivationName,
    Array,
    ArrayLike,
    Layer,
    Params,
    as_array,
    on_host,
    require_count,
    require_type,
)

VECTOR, ROWS = (None,), (None, None)


def softmax_jacobian(p: Array) -> Array:
    """The Jacobian of the softmax from its value: dp_i/dz_j = p_i (1{i = j} - p_j).

    As a matrix, diag(p) - p p^T.

    Args:
      p: softmax(z), shape [C].

    Returns:
      The symmetric Jacobian, shape [C, C].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxnn.closed_form import softmax_jacobian
      >>> softmax_jacobian(jnp.array([0.25, 0.75])).tolist()
      [[0.1875, -0.1875], [-0.1875, 0.1875]]

    Source: S1.1. S4.3 prints the off-diagonal entries as -S_i S_i; correct is -S_i S_j.
    """
    p = _array("softmax_jacobian", "p", p, VECTOR)
    return jnp.diag(p) - jnp.outer(p, p)


def softmax_weight_jacobian(p: Array, x: Array) -> Array:
    """The Jacobian of softmax(Wx + b) by W: dp_k/dw_l = p_k (1{k = l} - p_l) x.

    Args:
      p: softmax(Wx + b), shape [C].
      x: the input, shape [in].

    Returns:
      Entry [k, l] is the gradient of p_k by row l of W: shape [C, C, in].

    Source: S2.1.
    """
    x = _array("softmax_weight_jacobian", "x", x, VECTOR)
    return jnp.tensordot(softmax_jacobian(p), x, axes=0)


def softmax_backward(p: Array, p_gradient: Array) -> Array:
    """A gradient by p = softmax(z) as the gradient by z: (diag(p) - p p^T) g = p * (g - p.g).

    Args:
      p: softmax(z), shape [C].
      p_gradient: g, the gradient of any loss by p, shape [C].

    Returns:
      The gradient by z, shape [C].

    Source: S1.2, S3.1.
    """
    p = _array("softmax_backward", "p", p, VECTOR)
    p_gradient = _array("softmax_backward", "p_gradient", p_gradient, p.shape)
    return p * (p_gradient - p @ p_gradient)


def cross_entropy_gradient(z: Array, y: ArrayLike) -> Array:
    """The gradient of the softmax cross-entropy by the logits: p - y with p = softmax(z).

    The result is p sum_j y_j - y, which is p - y for a y that sums to 1.

    Args:
      z: logits, shape [C].
      y: a class index (integer scalar), or a vector, shape [C].

    Returns:
      dJ/dz, shape [C].

    Source: S1.2, S4.3, S5.4.
    """
    z, y = check_target("cross_entropy_gradient", z, y)
    if y.ndim == 0:
        return softmax(z) - jax.nn.one_hot(y, z.shape[0], dtype=z.dtype)
    return softmax(z) * jnp.sum(y) - y


def layer_gradient(delta: Array, x: Array) -> Layer:
    """The gradients by W and b of z = Wx + b, given the gradient by z: delta x^T, and delta.

    Args:
      delta: the gradient of a scalar by z, shape [out].
      x: the input of the layer, shape [in].

    Returns:
      ``Layer(weight [out, in], bias [out])``.

    Source: S5.5.
    """
    delta = _array("layer_gradient", "delta", delta, VECTOR)
    x = _array("layer_gradient", "x", x, VECTOR)
    return Layer(jnp.outer(delta, x), delta)


def softmax_regression_gradients(layer: Layer, x: Array, y: Array, l2: ArrayLike = 0.0) -> Layer:
    """The gradients of the objective of softmax regression on a minibatch.

    dW = 1/B sum_i (p_i - y_i) x_i^T + l2 W and db = 1/B sum_i (p_i - y_i): a mean over the
    examples, with L2 on the weights only.

    Args:
      layer: weight [C, in] and bias [C].
      x: the examples, shape [B, in].
      y: class indices, shape [B], or probability vectors, shape [B, C].
      l2: strength of l2/2 * sum of squared weights.

    Returns:
      ``Layer(weight [C, in], bias [C])``.

    Source: S2.2, S2.4. S2.2 prints its last line with the sum over i = 1..m, the number of inputs,
    and without the 1/n; the sum runs over the n examples.
    """
    layer, x = as_layer(layer), _array("softmax_regression_gradients", "x", x, ROWS)
    y, l2 = jnp.asarray(as_array("y", y)), _array("softmax_regression_gradients", "l2", l2, ())
    _array("softmax_regression_gradients", "y", y, (len(x), *y.shape[1:]))
    _check_labels("softmax_regression_gradients", y, len(layer.bias) - 1)
    z = jax.vmap(affine, in_axes=(None, 0))(layer, x)
    delta = jax.vmap(cross_entropy_gradient)(z, y) / len(x)
    return Layer(delta.T @ x + l2 * layer.weight, jnp.sum(delta, axis=0))


def sigmoid_derivative_from_value(h: Array) -> Array:
    """The sigmoid's derivative from its value h = sigmoid(x), elementwise: h (1 - h) (S4.2)."""
    h = as_array("h", h)
    return h * (1 - h)


ACTIVATION_DERIVATIVES: dict[str, Callable[[Array], Array]] = {
    "relu": lambda h: (h > 0).astype(h.dtype),
    "sigmoid": sigmoid_derivative_from_value,
    "tanh": lambda h: 1 - h**2,
}
"""The derivative of an activation from its VALUE, elementwise."""


def affine_composition(layers: Params, x: Array) -> tuple[Array, ...]:
    """The activations of successive affine maps: z_i = W_i z_{i-1} + b_i, z_0 = x.

    Args:
      layers: (W_1, b_1), ..., (W_n, b_n), the first applied first.
      x: the input, shape [in of the first layer].

    Returns:
      z_1, ..., z_n.

    Source: S2.5, whose program computes every z_i from the original x instead of z_{i-1}.
    """
    return tuple(accumulate(as_layers(layers), lambda z, layer: affine(layer, z), initial=x))[1:]


def affine_weight_jacobian(x: Array, out: int) -> Array:
    """The Jacobian of z = Wx + b by vec[W], the rows of W in succession.

    x^T along the block diagonal: dz_i / dW_kj = 1{i = k} x_j.

    Args:
      x: the input, shape [in].
      out: the number of rows of W.

    Returns:
      Shape [out, out * in].

    Source: S2.5.
    """
    x = _array("affine_weight_jacobian", "x", x, VECTOR)
    return jnp.kron(jnp.eye(require_count("out", out), dtype=x.dtype), x)


def affine_jacobians(layers: Params, x: Array) -> Params:
    """The Jacobians of a scalar composition of affine maps by every W_i and b_i.

    With a_n = 1 and a_{i-1} = a_i W_i: dz_n/db_i = a_i, and dz_n/dW_i = a_i^T z_{i-1}^T.

    Args:
      layers: (W_1, b_1), ..., (W_n, b_n), n >= 1, the last with one output.
      x: the input, shape [in of the first layer].

    Returns:
      For every layer the Jacobians by weight [out, in] and bias [out].

    Source: S2.5, whose unvec of the Jacobian by vec[W] is the transpose, [in, out]: for the first
    of two layers x W_2, of shape 2 x 3 where "3 x 2" is printed. dz_2/db_2 is the 1 x 1 identity,
    printed also as 1_{1x3}. The program of S2.5 returns nothing.
    """
    layers, x = as_layers(layers), as_array("x", x)
    inputs = (x, *affine_composition(layers, x))
    outputs = len(inputs[-1])
    if outputs != 1:
        raise ValueError(f"affine_jacobians takes a last layer of one output, got {outputs}")
    jacobian, gradients = jnp.ones_like(inputs[-1]), []
    for layer, z in zip(reversed(layers), reversed(inputs[:-1]), strict=True):
        gradients.append(layer_gradient(jacobian, z))
        jacobian = jacobian @ layer.weight
    return tuple(reversed(gradients))


class TwoLayerValues(NamedTuple):
    """The activations of the two-layer network for one example."""

    hidden: Array  # [N1] H
    output: Array  # [K] y-hat, the softmax


class TwoLayerGradients(NamedTuple):
    """The gradients of a loss of the two-layer network for one example."""

    first: Layer  # W1 [N1, N], W1_0 [N1]
    hidden: Array  # [N1] H
    second: Layer  # W2 [K, N1], W2_0 [K]


def two_layer_values(
    params: Params, x: Array, *, activation: ActivationName = "sigmoid"
) -> TwoLayerValues:
    """H = phi(W1 x + W1_0) and y-hat = softmax(W2 H + W2_0).

    Args:
      params: the two layers.
      x: the input, shape [N].
      activation: phi, "sigmoid", "relu" or "tanh".

    Returns:
      H, shape [N1], and y-hat, shape [K].

    Source: S3.
    """
    first, second = _two_layers(params)
    hidden = by_name("activation", activation, ACTIVATIONS)(affine(first, x))
    return TwoLayerValues(hidden, softmax(affine(second, hidden)))


def two_layer_gradients(
    params: Params,
    x: Array,
    loss_gradient: Callable[[Array], Array],
    *,
    activation: ActivationName = "sigmoid",
) -> TwoLayerGradients:
    """The gradients of any loss l(y-hat) through both layers of the two-layer network.

    delta_2 = (diag(p) - p p^T) dl/dp with p = y-hat, dH = W2^T delta_2 and delta_1 = dH * phi'; the
    gradients of the layers are delta_2 H^T, delta_2 and delta_1 x^T, delta_1.

    Args:
      params: the two layers.
      x: the input, shape [N].
      loss_gradient: y-hat [K] -> dl/dy-hat [K], for the squared loss ``lambda p: p - y``.
      activation: phi, "sigmoid", "relu" or "tanh".

    Returns:
      The gradients by W1, W1_0, H, W2 and W2_0.

    Source: S3.1, S3.2, S3.3. S3.3 prints dH[k]/dW1_i of a ReLU layer as X[k] if i = k; correct is
    the whole vector X.
    """
    params, x = _two_layers(params), as_array("x", x)
    require_type(callable(loss_gradient), "loss_gradient", loss_gradient, "a function of y-hat [K]")
    hidden, output = two_layer_values(params, x, activation=activation)
    output_delta = softmax_backward(output, loss_gradient(output))
    return _two_layer_backward(params, x, hidden, output_delta, activation)


def input_gradient(
    params: Params, x: Array, y: ArrayLike, *, activation: ActivationName = "sigmoid"
) -> Array:
    """The gradient of the two-layer network's cross-entropy by its input.

    delta_3 = p - y, delta_2 = W_2^T delta_3 * phi', dJ/dx = W_1^T delta_2.

    Args:
      params: the two layers.
      x: the input, shape [N].
      y: a class index (integer scalar), or a vector, shape [K].
      activation: phi, "sigmoid", "relu" or "tanh".

    Returns:
      dJ/dx, shape [N].

    Source: S4.4, which writes one example per row and h = sigma(x W_1 + b_1). In the layout of S4.4
    dJ/dx = delta_2 W_1^T with delta_2 = delta_3 W_2^T * sigma'; printed are delta_2 W_1 and
    W_2 delta_3.
    """
    (first, second), x = params, _ = _two_layers(params), as_array("x", x)
    hidden, _ = two_layer_values(params, x, activation=activation)
    output_delta = cross_entropy_gradient(affine(second, hidden), y)
    backward = _two_layer_backward(params, x, hidden, output_delta, activation)
    return backward.first.bias @ first.weight


def log_softmax_sum_gradient(z: Array) -> Array:
    """The gradient of J = sum_i log softmax(z)_i by z [C]: 1 - C softmax(z).

    Source: S5.2, which prints the gradient of -J.
    """
    z = _array("log_softmax_sum_gradient", "z", z, VECTOR)
    return 1 - z.shape[0] * softmax(z)


def log_softmax_sum_gradients(layer: Layer, x: Array) -> Layer:
    """The gradients of J = sum_i log softmax(z)_i with z = Wx + c by W and c.

    dW = (1 - C softmax(z)) x^T and dc = 1 - C softmax(z).

    Args:
      layer: weight W [C, in] and bias c [C].
      x: the input, shape [in].

    Returns:
      ``Layer(weight [C, in], bias [C])``.

    Source: S5.2, which prints the gradient of -J.
    """
    return layer_gradient(log_softmax_sum_gradient(affine(layer, x)), x)


def logistic_gradient(theta: Array, x: Array, y: Array, l2: ArrayLike = 0.0) -> Array:
    """The gradient of the objective of logistic regression.

    1/N sum_i (h_i - y_i) x_i + l2 theta with h_i = sigmoid(theta^T x_i).

    Args:
      theta: shape [in]; every component is penalised.
      x: the examples, shape [N, in].
      y: labels in {0, 1}, or probabilities of the positive class, shape [N].
      l2: lambda, the strength of l2/2 * theta^T theta.

    Returns:
      dJ/dtheta, shape [in].

    Source: S5.3.
    """
    theta = _array("logistic_gradient", "theta", theta, VECTOR)
    x = _array("logistic_gradient", "x", x, ROWS)
    _array("logistic_gradient", "x", x, (len(x), len(theta)))
    y = _array("logistic_gradient", "y", y, (len(x),))
    l2 = _array("logistic_gradient", "l2", l2, ())
    _check_labels("logistic_gradient", y, 1)
    return (sigmoid(x @ theta) - y) @ x / len(x) + l2 * theta


def logistic_update(
    theta: Array, x: Array, y: Array, learning_rate: ArrayLike, l2: ArrayLike = 0.0
) -> Array:
    """One step of gradient descent: theta - learning_rate * ``logistic_gradient``.

    Multiplied out, theta (1 - learning_rate l2) - learning_rate/N sum_i (h_i - y_i) x_i.

    Args:
      theta: shape [in].
      x: the examples, shape [N, in].
      y: labels in {0, 1}, or probabilities of the positive class, shape [N].
      learning_rate: alpha.
      l2: lambda, the strength of l2/2 * theta^T theta.

    Returns:
      The new theta, shape [in].

    Source: S5.3, whose combined form, theta (1 - l2/N) - alpha sum_i (h_i - y_i) x_i, is a
    different step: the learning rate of the penalty and the mean over the examples are lost.
    """
    learning_rate = _array("logistic_update", "learning_rate", learning_rate, ())
    return as_array("theta", theta) - learning_rate * logistic_gradient(theta, x, y, l2)


def _two_layer_backward(
    params: Params, x: Array, hidden: Array, output_delta: Array, activation: str
) -> TwoLayerGradients:
    """From the gradient by the logits back to both layers."""
    hidden_gradient = output_delta @ params[1].weight
    hidden_delta = hidden_gradient * ACTIVATION_DERIVATIVES[activation](hidden)
    return TwoLayerGradients(
        first=layer_gradient(hidden_delta, x),
        hidden=hidden_gradient,
        second=layer_gradient(output_delta, hidden),
    )


def _two_layers(params: Params) -> tuple[Layer, Layer]:
    if len(layers := as_layers(params)) != 2:
        raise ValueError(f"two_layer_values takes two layers, got {len(layers)}")
    return layers[0], layers[1]


def _check_labels(name: str, y: Array, most: int) -> None:
    """ValueError for class indices (or a probability of one class) out of range; for no tracers."""
    values = on_host(y) if y.ndim == 1 and y.size else None
    if values is not None and not 0 <= values.min() <= values.max() <= most:
        wrong = values[(values < 0) | (values > most)][0]
        raise ValueError(f"{name} takes y in 0..{most}, got {wrong}")


def _array(name: str, argument: str, value: Any, shape: tuple[int | None, ...]) -> Any:
    """The argument of a function as an array; ValueError for another shape; None: any size."""
    value = as_array(f"{argument} of {name}", value)
    kinds = {
        VECTOR: "as a vector, got shape",
        ROWS: "as a matrix, one example per row, got shape",
        (): "as a number, got shape",
    }
    try:
        chex.assert_shape(value, shape)
    except AssertionError:
        expected = kinds.get(shape, f"of shape {shape}, got")
        raise ValueError(f"{name} takes {argument} {expected} {value.shape}") from None
    return value
