"""Networks with one or two hidden layers, for single examples and for batches."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp, sigmoid, softmax

from experiments.mutants.family import Family, family, relaid, wrong
from jaxnn.types import Layer
from jaxnn.verify import label, one_hot, positive, real, simplex


class Steps(NamedTuple):
    """Backpropagation of one example in the steps of a derivation by hand.

    Layer i computes z[i] and h[i + 1] from h[i], with h[0] = x and no activation at the end.
    """

    activation: Callable[[Any], Any]
    slope: Callable[..., Any]  # (z, h, i): the derivative of the activation of layer i
    output: Callable[..., Any]  # (z, y): the gradient by the logits
    back: Callable[..., Any] = lambda layers, i, delta: layers[i].weight.T @ delta
    value: Callable[..., Any] = lambda z, h, i: h[i]  # the input of layer i
    finish: Callable[..., Any] = lambda layers: layers  # a last step of all gradients

    def __call__(self, layers, x, y):
        """The gradients by all layers."""
        z, h = [], [x]
        for weight, bias in layers:
            z.append(weight @ h[-1] + bias)
            h.append(self.activation(z[-1]))
        delta = self.output(z[-1], y)
        gradients = []
        for i in reversed(range(len(layers))):
            gradients.insert(0, Layer(jnp.outer(delta, self.value(z, h, i)), delta))
            if i:
                delta = self.back(layers, i, delta) * self.slope(z, h, i - 1)
        return self.finish(tuple(gradients))

    def separate(self, depth=2):
        """The derivation with a parameter for every weight and bias."""
        if depth == 2:
            return lambda w1, b1, w2, b2, x, y: _flat(self((Layer(w1, b1), Layer(w2, b2)), x, y))
        return lambda w1, b1, w2, b2, w3, b3, x, y: _flat(
            self((Layer(w1, b1), Layer(w2, b2), Layer(w3, b3)), x, y)
        )

    def tree(self):
        """The derivation with a tree of parameters."""
        return lambda params, x, y: self(params, x, y)

    def batch(self):
        """The mean over a batch of examples, an example in each row."""

        def mean(params, x, y):
            each = jax.vmap(self, in_axes=(None, 0, 0))(params, x, y)
            return jax.tree.map(lambda gradient: jnp.mean(gradient, axis=0), each)

        return mean


def _flat(layers):
    return tuple(leaf for layer in layers for leaf in layer)


def _one_leaf(layer, field, change):
    """A ``finish`` that changes the gradient by a single weight or bias."""

    def finish(layers):
        changed = layers[layer]._replace(**{field: change(getattr(layers[layer], field))})
        return (*layers[:layer], changed, *layers[layer + 1 :])

    return finish


def _weights(change):
    """A ``finish`` for the gradients by the weights."""
    return lambda layers: tuple(Layer(change(weight), bias) for weight, bias in layers)


def _h(z):
    return 1 / (1 + jnp.exp(-z))


def _through(p, g):
    return p * (g - p @ g)


def _squared_output(z, y):
    return _through(softmax(z), softmax(z) - y)


def _one_hot_output(z, y):
    return softmax(z) - jnp.eye(len(z))[y]


def _forward(layers, x, activation):
    *hidden, last = layers
    for weight, bias in hidden:
        x = activation(weight @ x + bias)
    return last.weight @ x + last.bias


def _row_delta(w1, b1, w2, b2, x, y):
    """The gradient by f2 = x W1 + b1 of the network with weights as columns."""
    h = _h(x @ w1 + b1)
    return w2 @ (softmax(h @ w2 + b2) - y) * h * (1 - h)


def _layer(out, into):
    """Generators of a layer's weight and bias."""
    return Layer._make((real(out, into), real(out)))


LAYER = _layer("n", "n")
SIGMOID = Steps(sigmoid, lambda z, h, i: h[i + 1] * (1 - h[i + 1]), _squared_output)
TANH = Steps(jnp.tanh, lambda z, h, i: 1 - h[i + 1] ** 2, lambda z, y: softmax(z) - y)
RELU = Steps(lambda z: jnp.maximum(z, 0), lambda z, h, i: (z[i] > 0) * 1.0, _one_hot_output)

SIGMOID_SQUARED = family(
    "sigmoid network, squared loss",
    kind="gradient",
    wrt=("w1", "b1", "w2", "b2"),
    inputs={
        "w1": real("h", "n"),
        "b1": real("h"),
        "w2": real("k", "h"),
        "b2": real("k"),
        "x": real("n"),
        "y": simplex("k"),
    },
    source="S3.4",
    ofs=[
        lambda w1, b1, w2, b2, x, y: (
            jnp.sum((y - softmax(w2 @ sigmoid(w1 @ x + b1) + b2)) ** 2) / 2
        ),
        lambda w1, b1, w2, b2, x, y: (
            0.5 * jnp.sum((jnp.exp(log_softmax(w2 @ _h(w1 @ x + b1) + b2)) - y) ** 2)
        ),
        lambda w1, b1, w2, b2, x, y: (
            jnp.vdot(
                softmax(jnp.dot(w2, jax.lax.logistic(jnp.dot(w1, x) + b1)) + b2) - y,
                softmax(jnp.dot(w2, jax.lax.logistic(jnp.dot(w1, x) + b1)) + b2) - y,
            )
            / 2
        ),
    ],
    correct=SIGMOID.separate(),
    mutants=[
        wrong(code, note, SIGMOID._replace(**steps).separate())
        for code, note, steps in [
            ("softmax_jacobian_skipped", "p - y", {"output": lambda z, y: softmax(z) - y}),
            (
                "normaliser_constant | wrong_value",  # equal, because p - y sums to zero
                "p(p - y)",
                {"output": lambda z, y: softmax(z) * (softmax(z) - y)},
            ),
            (
                "diagonal_only",
                "p(1 - p)(p - y)",
                {"output": lambda z, y: softmax(z) * (1 - softmax(z)) * (softmax(z) - y)},
            ),
            ("sign", "whole", {"output": lambda z, y: _through(softmax(z), y - softmax(z))}),
            ("factor", "twice", {"output": lambda z, y: 2 * _squared_output(z, y)}),
            ("activation_derivative_missing", "no sigma'", {"slope": lambda z, h, i: 1.0}),
            (
                "activation_derivative_wrong_argument",
                "sigma'(h)",
                {"slope": lambda z, h, i: _h(h[i + 1]) * (1 - _h(h[i + 1]))},
            ),
            (
                "activation_derivative_wrong_argument | wrong_value",
                "z(1 - z)",
                {"slope": lambda z, h, i: z[i] * (1 - z[i])},
            ),
            (
                "wrong_value",
                "z for h in the gradient by W2",
                {"value": lambda z, h, i: z[0] if i else h[0]},
            ),
            ("sign", "of b1", {"finish": _one_leaf(0, "bias", jnp.negative)}),
            ("sign", "of W2", {"finish": _one_leaf(1, "weight", jnp.negative)}),
            ("factor", "of b2, half", {"finish": _one_leaf(1, "bias", lambda g: g / 2)}),
            (
                "shape | transpose",
                "W2 for W2^T",
                {"back": lambda layers, i, d: layers[i].weight @ d},
            ),
            (
                "shape",
                "x forgotten in the gradient by W1",
                {"finish": lambda layers: (Layer(layers[0].bias, layers[0].bias), layers[1])},
            ),
            (
                "sign+activation_derivative_missing",
                "y - p, no sigma'",
                {
                    "slope": lambda z, h, i: 1.0,
                    "output": lambda z, y: _through(softmax(z), y - softmax(z)),
                },
            ),
            (
                "softmax_jacobian_skipped+activation_derivative_missing",
                "no derivative of either",
                {"slope": lambda z, h, i: 1.0, "output": lambda z, y: softmax(z) - y},
            ),
            (
                "unknown | factor",
                "sigma^2 (1 - sigma)",
                {"slope": lambda z, h, i: h[i + 1] ** 2 * (1 - h[i + 1])},
            ),
            ("unknown", "cosine for sigma'", {"slope": lambda z, h, i: jnp.cos(z[i])}),
        ]
    ]
    + [
        relaid(
            "transpose",
            "weights as columns",
            SIGMOID._replace(finish=_weights(jnp.transpose)).separate(),
        ),
        relaid(
            "vec_order",
            "weights as vectors",
            SIGMOID._replace(finish=_weights(jnp.ravel)).separate(),
        ),
    ],
)

SQUARE_STEPS = SIGMOID._replace(output=lambda z, y: softmax(z) - y)

SQUARE = family(
    "sigmoid network, all widths equal",
    kind="gradient",
    wrt="params",
    inputs={"params": (LAYER, LAYER), "x": real("n"), "y": simplex("n")},
    ofs=[
        lambda params, x, y: -jnp.sum(y * jnp.log(softmax(_forward(params, x, sigmoid)))),
        lambda params, x, y: (
            logsumexp(_forward(params, x, _h)) - jnp.sum(y * _forward(params, x, _h))
        ),
    ],
    correct=SQUARE_STEPS.tree(),
    mutants=[
        wrong(code, note, SQUARE_STEPS._replace(**steps).tree())
        for code, note, steps in [
            ("transpose", "W2 for W2^T", {"back": lambda layers, i, d: layers[i].weight @ d}),
            (
                "wrong_value",
                "W1^T for W2^T",
                {"back": lambda layers, i, d: layers[i - 1].weight.T @ d},
            ),
            (
                "wrong_value",
                "x for h in the gradient by W2",
                {"value": lambda z, h, i: h[0]},
            ),
            (
                "wrong_value",
                "h for x in the gradient by W1",
                {"value": lambda z, h, i: h[1]},
            ),
            (
                "wrong_value",
                "z for h in the gradient by W2",
                {"value": lambda z, h, i: z[0] if i else h[0]},
            ),
            ("activation_derivative_missing", "no sigma'", {"slope": lambda z, h, i: 1.0}),
            (
                "activation_derivative_wrong_argument",
                "sigma'(x)",
                {"slope": lambda z, h, i: _h(h[i]) * _h(-h[i])},
            ),
            (
                "activation_derivative_wrong_argument",
                "sigma' of the output's z",
                {"slope": lambda z, h, i: _h(z[i + 1]) * _h(-z[i + 1])},
            ),
            (
                "sign+transpose",
                "y - p, W2 for W2^T",
                {
                    "output": lambda z, y: y - softmax(z),
                    "back": lambda layers, i, d: layers[i].weight @ d,
                },
            ),
            (
                "unknown",
                "W2^T left out",
                {"back": lambda layers, i, d: d},
            ),
        ]
    ]
    + [
        relaid(
            "transpose",
            "weights as columns",
            SQUARE_STEPS._replace(finish=_weights(jnp.transpose)).tree(),
        ),
    ],
)

RELU_LABEL = family(
    "relu network",
    kind="gradient",
    wrt="params",
    inputs={
        "params": (_layer("h", "n"), _layer("k", "h")),
        "x": real("n"),
        "y": label("k"),
    },
    ofs=[
        lambda params, x, y: -log_softmax(_forward(params, x, jax.nn.relu))[y],
        lambda params, x, y: (
            logsumexp(_forward(params, x, lambda z: jnp.where(z > 0, z, 0)))
            - _forward(params, x, lambda z: jnp.where(z > 0, z, 0))[y]
        ),
        lambda params, x, y: -jnp.log(softmax(_forward(params, x, lambda z: jnp.maximum(z, 0)))[y]),
    ],
    correct=RELU.tree(),
    mutants=[
        wrong(code, note, RELU._replace(**steps).tree())
        for code, note, steps in [
            ("activation_derivative_missing", "no mask", {"slope": lambda z, h, i: 1.0}),
            (
                "sign",
                "whole",
                {"output": lambda z, y: jnp.eye(len(z))[y] - softmax(z)},
            ),
            (
                "wrong_value",
                "z for h in the gradient by W2",
                {"value": lambda z, h, i: z[0] if i else h[0]},
            ),
            ("unknown | factor", "relu for its derivative", {"slope": lambda z, h, i: h[i + 1]}),
            ("unknown | sign", "the mask of the dead units", {"slope": lambda z, h, i: z[i] <= 0}),
            ("factor", "of W1, twice", {"finish": _one_leaf(0, "weight", lambda g: 2 * g)}),
            ("shape", "a matrix for b1", {"finish": _one_leaf(0, "bias", jnp.diag)}),
        ]
    ],
)


def _mean_cross_entropy(params, x, y, activation):
    def one(xi, yi):
        return -yi @ log_softmax(_forward(params, xi, activation))

    return jnp.mean(jax.vmap(one)(x, y))


def _rowwise(w1, b1, w2, b2, x, activation):
    return softmax(activation(x @ w1.T + b1) @ w2.T + b2, axis=1)


def _tanh_batch(
    *,
    delta=lambda p, y: (p - y) / len(y),
    slope=lambda a, h: 1 - h**2,
    left=lambda a, h: h,
    penalty=lambda w1, b1, w2, b2, lam, n: (lam * w1, 0.0, lam * w2, 0.0),
    bias=lambda d: jnp.sum(d, axis=0),
):
    """Backpropagation of a batch in matrices, an example per row, with L2 on the weights."""

    def gradients(w1, b1, w2, b2, x, y, lam):
        a = x @ w1.T + b1
        h = jnp.tanh(a)
        d2 = delta(softmax(h @ w2.T + b2), y)
        d1 = d2 @ w2 * slope(a, h)
        l1, l2, l3, l4 = penalty(w1, b1, w2, b2, lam, len(x))
        return d1.T @ x + l1, bias(d1) + l2, d2.T @ left(a, h) + l3, bias(d2) + l4

    return gradients


TANH_BATCH = family(
    "tanh network, batch with L2",
    kind="gradient",
    wrt=("w1", "b1", "w2", "b2"),
    inputs={
        "w1": real("h", "n"),
        "b1": real("h"),
        "w2": real("k", "h"),
        "b2": real("k"),
        "x": real("B", "n"),
        "y": one_hot("B", "k"),
        "lam": positive(),
    },
    ofs=[
        lambda w1, b1, w2, b2, x, y, lam: (
            -jnp.mean(jnp.sum(y * jnp.log(_rowwise(w1, b1, w2, b2, x, jnp.tanh)), axis=1))
            + lam / 2 * (jnp.sum(w1**2) + jnp.sum(w2**2))
        ),
        lambda w1, b1, w2, b2, x, y, lam: (
            _mean_cross_entropy((Layer(w1, b1), Layer(w2, b2)), x, y, jnp.tanh)
            + lam / 2 * jnp.sum(w1 * w1)
            + lam / 2 * jnp.sum(w2 * w2)
        ),
    ],
    correct=_tanh_batch(),
    mutants=[
        wrong(code, note, _tanh_batch(**steps))
        for code, note, steps in [
            ("missing_mean", "sums", {"delta": lambda p, y: p - y}),
            ("extra_mean", "of the biases", {"bias": lambda d: jnp.mean(d, axis=0)}),
            ("sign", "of the data", {"delta": lambda p, y: (y - p) / len(y)}),
            ("missing_l2", "without", {"penalty": lambda *_: (0.0, 0.0, 0.0, 0.0)}),
            (
                "missing_l2",
                "none on W1",
                {"penalty": lambda w1, b1, w2, b2, lam, n: (0.0, 0.0, lam * w2, 0.0)},
            ),
            (
                "wrong_l2",
                "twice",
                {"penalty": lambda w1, b1, w2, b2, lam, n: (2 * lam * w1, 0, 2 * lam * w2, 0)},
            ),
            (
                "wrong_l2",
                "divided by B",
                {"penalty": lambda w1, b1, w2, b2, lam, n: (lam * w1 / n, 0, lam * w2 / n, 0)},
            ),
            (
                "l2_on_bias",
                "on both",
                {
                    "penalty": lambda w1, b1, w2, b2, lam, n: (
                        lam * w1,
                        lam * b1,
                        lam * w2,
                        lam * b2,
                    )
                },
            ),
            ("activation_derivative_missing", "no tanh'", {"slope": lambda a, h: 1.0}),
            (
                "activation_derivative_wrong_argument",
                "tanh'(h)",
                {"slope": lambda a, h: 1 - jnp.tanh(h) ** 2},
            ),
            (
                "activation_derivative_wrong_argument | wrong_value",
                "1 - z^2",
                {"slope": lambda a, h: 1 - a**2},
            ),
            ("wrong_value", "z for h in the gradient by W2", {"left": lambda a, h: a}),
            ("normaliser_constant", "-y", {"delta": lambda p, y: -y / len(y)}),
            ("softmax_jacobian_skipped", "-y/p", {"delta": lambda p, y: -y / p / len(y)}),
            ("unknown | factor", "1 - h for 1 - h^2", {"slope": lambda a, h: 1 - h}),
            ("shape", "biases not summed", {"bias": lambda d: d}),
            (
                "missing_mean+missing_l2",
                "sums of the data",
                {"delta": lambda p, y: p - y, "penalty": lambda *_: (0.0, 0.0, 0.0, 0.0)},
            ),
            (
                "missing_mean+activation_derivative_missing",
                "sums, no tanh'",
                {"delta": lambda p, y: p - y, "slope": lambda a, h: 1.0},
            ),
            (
                "sign+missing_mean",
                "y - p",
                {"delta": lambda p, y: y - p},
            ),
        ]
    ],
)

TWO_TANH = TANH._replace(output=_squared_output)

TWO_HIDDEN = family(
    "two hidden tanh layers, squared loss",
    kind="gradient",
    wrt=("w1", "b1", "w2", "b2", "w3", "b3"),
    inputs={
        "w1": real("h", "n"),
        "b1": real("h"),
        "w2": real("g", "h"),
        "b2": real("g"),
        "w3": real("k", "g"),
        "b3": real("k"),
        "x": real("n"),
        "y": simplex("k"),
    },
    ofs=[
        lambda w1, b1, w2, b2, w3, b3, x, y: (
            0.5 * jnp.sum((softmax(w3 @ jnp.tanh(w2 @ jnp.tanh(w1 @ x + b1) + b2) + b3) - y) ** 2)
        ),
    ],
    correct=TWO_TANH.separate(3),
    mutants=[
        wrong(code, note, TWO_TANH._replace(**steps).separate(3))
        for code, note, steps in [
            ("softmax_jacobian_skipped", "p - y", {"output": lambda z, y: softmax(z) - y}),
            (
                "activation_derivative_missing",
                "no tanh' in the second layer",
                {"slope": lambda z, h, i: 1.0 if i == 1 else 1 - h[i + 1] ** 2},
            ),
            (
                "activation_derivative_missing",
                "no tanh' in the first layer",
                {"slope": lambda z, h, i: 1.0 if i == 0 else 1 - h[i + 1] ** 2},
            ),
            (
                "activation_derivative_wrong_argument",
                "tanh'(h)",
                {"slope": lambda z, h, i: 1 - jnp.tanh(h[i + 1]) ** 2},
            ),
            (
                "wrong_value",
                "z for h in the gradient by W3",
                {"value": lambda z, h, i: z[1] if i == 2 else h[i]},
            ),
            ("sign", "of W1", {"finish": _one_leaf(0, "weight", jnp.negative)}),
            ("factor", "half", {"output": lambda z, y: _squared_output(z, y) / 2}),
            ("shape | transpose", "W for W^T", {"back": lambda layers, i, d: layers[i].weight @ d}),
            (
                "shape",
                "the mask of the wrong layer",
                {"slope": lambda z, h, i: 1 - h[1] ** 2},
            ),
        ]
    ]
    + [
        relaid(
            "transpose",
            "weights as columns",
            TWO_TANH._replace(finish=_weights(jnp.transpose)).separate(3),
        ),
    ],
)

SQUARE_RELU = Steps(
    lambda z: jnp.maximum(z, 0), lambda z, h, i: (h[i + 1] > 0) * 1.0, lambda z, y: softmax(z) - y
)

RELU_BATCH = family(
    "two hidden relu layers of equal width, batch",
    kind="gradient",
    wrt="params",
    inputs={"params": (LAYER, LAYER, LAYER), "x": real("B", "n"), "y": simplex("B", "n")},
    ofs=[
        lambda params, x, y: _mean_cross_entropy(params, x, y, jax.nn.relu),
        lambda params, x, y: _mean_cross_entropy(params, x, y, lambda z: z * (z > 0)),
    ],
    correct=SQUARE_RELU.batch(),
    mutants=[
        wrong(code, note, SQUARE_RELU._replace(**steps).batch())
        for code, note, steps in [
            (
                "activation_derivative_wrong_argument",
                "the masks exchanged",
                {"slope": lambda z, h, i: (z[1 - i] > 0) * 1.0},
            ),
            (
                "activation_derivative_wrong_argument",
                "the mask of the layer before",
                {"slope": lambda z, h, i: (h[i] > 0) * 1.0},
            ),
            ("activation_derivative_missing", "no masks", {"slope": lambda z, h, i: 1.0}),
            ("transpose", "W for W^T", {"back": lambda layers, i, d: layers[i].weight @ d}),
            (
                "transpose",
                "W3 for W3^T",
                {
                    "back": lambda layers, i, d: (
                        layers[i].weight @ d if i == 2 else layers[i].weight.T @ d
                    )
                },
            ),
            (
                "wrong_value",
                "W2 for W3",
                {"back": lambda layers, i, d: layers[1].weight.T @ d},
            ),
            (
                "wrong_value",
                "h1 for h2 in the gradient by W3",
                {"value": lambda z, h, i: h[min(i, 1)]},
            ),
            (
                "sign+activation_derivative_missing",
                "y - p, no masks",
                {"output": lambda z, y: y - softmax(z), "slope": lambda z, h, i: 1.0},
            ),
        ]
    ]
    + [
        wrong(
            "missing_mean",
            "sums",
            lambda params, x, y: jax.tree.map(
                lambda g: jnp.sum(g, axis=0),
                jax.vmap(SQUARE_RELU, in_axes=(None, 0, 0))(params, x, y),
            ),
        ),
        wrong(
            "sign+missing_mean",
            "y - p summed",
            lambda params, x, y: jax.tree.map(
                lambda g: -jnp.sum(g, axis=0),
                jax.vmap(SQUARE_RELU, in_axes=(None, 0, 0))(params, x, y),
            ),
        ),
    ],
)

BY_INPUT = family(
    "sigmoid network by its input, examples as rows",
    kind="gradient",
    wrt="x",
    inputs={
        "w1": real("m", "h"),
        "b1": real("h"),
        "w2": real("h", "k"),
        "b2": real("k"),
        "x": real("m"),
        "y": one_hot("k"),
    },
    source="S4.4",
    ofs=[
        lambda w1, b1, w2, b2, x, y: -jnp.sum(y * jnp.log(softmax(sigmoid(x @ w1 + b1) @ w2 + b2))),
    ],
    correct=lambda w1, b1, w2, b2, x, y: w1 @ (_row_delta(w1, b1, w2, b2, x, y)),
    mutants=[
        wrong(
            "shape | transpose",
            "delta W1 as printed",
            lambda w1, b1, w2, b2, x, y: _row_delta(w1, b1, w2, b2, x, y) @ w1,
        ),
        wrong(
            "activation_derivative_missing",
            "no sigma'",
            lambda w1, b1, w2, b2, x, y: w1 @ w2 @ (softmax(_h(x @ w1 + b1) @ w2 + b2) - y),
        ),
        wrong(
            "sign",
            "whole",
            lambda w1, b1, w2, b2, x, y: -w1 @ _row_delta(w1, b1, w2, b2, x, y),
        ),
        wrong("unknown", "of the bias", lambda w1, b1, w2, b2, x, y: jnp.sum(w1, axis=1)),
        wrong(
            "shape",
            "the gradient by f2",
            lambda w1, b1, w2, b2, x, y: _row_delta(w1, b1, w2, b2, x, y),
        ),
    ],
)

BY_INPUT_SQUARE = family(
    "sigmoid network by its input, square W1",
    kind="gradient",
    wrt="x",
    inputs={
        "w1": real("m", "m"),
        "b1": real("m"),
        "w2": real("m", "k"),
        "b2": real("k"),
        "x": real("m"),
        "y": one_hot("k"),
    },
    source="S4.4",
    ofs=[
        lambda w1, b1, w2, b2, x, y: -(y @ log_softmax(jax.lax.logistic(x @ w1 + b1) @ w2 + b2)),
    ],
    correct=lambda w1, b1, w2, b2, x, y: _row_delta(w1, b1, w2, b2, x, y) @ w1.T,
    mutants=[
        wrong(
            "transpose",
            "delta W1 as printed",
            lambda w1, b1, w2, b2, x, y: _row_delta(w1, b1, w2, b2, x, y) @ w1,
        ),
        wrong(
            "sign+transpose",
            "-delta W1",
            lambda w1, b1, w2, b2, x, y: -(_row_delta(w1, b1, w2, b2, x, y) @ w1),
        ),
    ],
)

FAMILIES: list[Family] = [
    SIGMOID_SQUARED, SQUARE, RELU_LABEL, TANH_BATCH, TWO_HIDDEN, RELU_BATCH, BY_INPUT,
    BY_INPUT_SQUARE,
]  # fmt: skip
