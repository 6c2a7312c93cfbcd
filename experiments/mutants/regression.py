"""Logistic, softmax and linear regression: means over examples, with and without L2."""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp, sigmoid, softmax

from experiments.mutants.family import Family, family, relaid, wrong
from jaxnn.verify import binary, label, one_hot, positive, real


def _h(z):
    return 1 / (1 + jnp.exp(-z))


def _log_loss(theta, x, y):
    h = _h(x @ theta)
    return jnp.mean(-y * jnp.log(h) - (1 - y) * jnp.log(1 - h))


LOGISTIC_INPUTS = {"theta": real("d"), "x": real("N", "d"), "y": binary("N"), "lam": positive()}
LOGISTIC_OFS = [
    lambda theta, x, y, lam: _log_loss(theta, x, y) + lam / 2 * theta @ theta,
    lambda theta, x, y, lam: (
        jnp.sum(jax.nn.softplus(x @ theta) - y * (x @ theta)) / len(y)
        + 0.5 * lam * jnp.sum(theta**2)
    ),
    lambda theta, x, y, lam: (
        -jnp.mean(y * jnp.log(jax.lax.logistic(x @ theta)))
        - jnp.mean((1 - y) * jnp.log(jax.lax.logistic(-(x @ theta))))
        + lam * jnp.dot(theta, theta) / 2
    ),
    lambda theta, x, y, lam: (
        jnp.mean(jax.vmap(lambda xi, yi: jnp.log1p(jnp.exp(xi @ theta)) - yi * (xi @ theta))(x, y))
        + lam / 2 * jnp.vdot(theta, theta)
    ),
]

LOGISTIC = family(
    "L2 logistic regression",
    kind="gradient",
    wrt="theta",
    inputs=LOGISTIC_INPUTS,
    source="S5.3",
    ofs=LOGISTIC_OFS,
    correct=lambda theta, x, y, lam: -(y - _h(x @ theta)) @ x / len(y) + lam * theta,
    mutants=[
        wrong(
            "sign",
            "whole",
            lambda theta, x, y, lam: (y - _h(x @ theta)) @ x / len(y) - lam * theta,
        ),
        wrong(
            "sign",
            "the term of the data",
            lambda theta, x, y, lam: (y - sigmoid(x @ theta)) @ x / len(y) + lam * theta,
        ),
        wrong(
            "missing_mean",
            "a sum",
            lambda theta, x, y, lam: x.T @ (sigmoid(x @ theta) - y) + lam * theta,
        ),
        wrong(
            "extra_mean",
            "divided by N twice",
            lambda theta, x, y, lam: (
                jnp.mean((_h(x @ theta) - y)[:, None] * x, 0) / len(y) + lam * theta
            ),
        ),
        wrong(
            "factor",
            "the term of the data halved",
            lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / (2 * len(y)) + lam * theta,
        ),
        wrong(
            "factor",
            "twice",
            lambda theta, x, y, lam: 2 * ((_h(x @ theta) - y) @ x / len(y) + lam * theta),
        ),
        wrong(
            "missing_l2", "without", lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / x.shape[0]
        ),
        wrong(
            "wrong_l2",
            "sign",
            lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / len(y) - lam * theta,
        ),
        wrong(
            "wrong_l2",
            "2 lambda theta",
            lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / len(y) + 2 * lam * theta,
        ),
        wrong(
            "wrong_l2",
            "lambda/2 theta",
            lambda theta, x, y, lam: (sigmoid(x @ theta) - y) @ x / len(y) + lam / 2 * theta,
        ),
        wrong(
            "wrong_l2",
            "divided by N",
            lambda theta, x, y, lam: ((_h(x @ theta) - y) @ x + lam * theta) / len(y),
        ),
        wrong(
            "activation_derivative_missing",
            "sigma' forgotten",
            lambda theta, x, y, lam: (
                ((_h(x @ theta) - y) / (_h(x @ theta) * (1 - _h(x @ theta)))) @ x / len(y)
                + lam * theta
            ),
        ),
        wrong(
            "wrong_value",
            "z for h",
            lambda theta, x, y, lam: (x @ theta - y) @ x / len(y) + lam * theta,
        ),
        wrong(
            "shape",
            "not summed",
            lambda theta, x, y, lam: (_h(x @ theta) - y)[:, None] * x + lam * theta,
        ),
        wrong(
            "shape | transpose",
            "x for x^T",
            lambda theta, x, y, lam: x @ (_h(x @ theta) - y) + lam * theta,
        ),
        wrong(
            "sign+missing_mean",
            "the term of the data",
            lambda theta, x, y, lam: (y - _h(x @ theta)) @ x + lam * theta,
        ),
        wrong(
            "missing_mean+missing_l2",
            "the sum of the data",
            lambda theta, x, y, lam: x.T @ (_h(x @ theta) - y),
        ),
        wrong(
            "sign+missing_l2",
            "(y - h) x",
            lambda theta, x, y, lam: (y - _h(x @ theta)) @ x / len(y),
        ),
        wrong(
            "missing_mean+wrong_l2",
            "the sum of the data, 2 lambda theta",
            lambda theta, x, y, lam: x.T @ (_h(x @ theta) - y) + 2 * lam * theta,
        ),
        wrong(
            "unknown | wrong_l2",
            "lambda for lambda theta",
            lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / len(y) + lam,
        ),
        wrong(
            "activation_derivative_twice",
            "sigma' once too often",
            lambda theta, x, y, lam: (
                ((_h(x @ theta) - y) * _h(x @ theta) * (1 - _h(x @ theta))) @ x / len(y)
                + lam * theta
            ),
        ),
        wrong(
            "unknown",
            "cosine for the sigmoid",
            lambda theta, x, y, lam: (jnp.cos(x @ theta) - y) @ x / len(y) + lam * theta,
        ),
    ],
)

LOGISTIC_UPDATE = family(
    "a step of L2 logistic regression",
    kind="update",
    wrt="theta",
    inputs={**LOGISTIC_INPUTS, "alpha": positive()},
    rate="alpha",
    source="S5.3",
    ofs=LOGISTIC_OFS,
    correct=lambda theta, x, y, lam, alpha: (
        theta - alpha * ((_h(x @ theta) - y) @ x / len(y) + lam * theta)
    ),
    mutants=[
        wrong(
            "sign",
            "ascent",
            lambda theta, x, y, lam, alpha: (
                theta + alpha * ((_h(x @ theta) - y) @ x / len(y) + lam * theta)
            ),
        ),
        wrong(
            "missing_mean+wrong_l2",
            "the constants combined",
            lambda theta, x, y, lam, alpha: (
                theta * (1 - lam / len(y)) - alpha * (_h(x @ theta) - y) @ x
            ),
        ),
        wrong(
            "missing_mean",
            "a sum",
            lambda theta, x, y, lam, alpha: (
                theta * (1 - alpha * lam) - alpha * x.T @ (_h(x @ theta) - y)
            ),
        ),
        wrong(
            "missing_l2",
            "without",
            lambda theta, x, y, lam, alpha: theta - alpha / len(y) * (_h(x @ theta) - y) @ x,
        ),
        wrong(
            "wrong_l2",
            "weights that grow",
            lambda theta, x, y, lam, alpha: (
                theta * (1 + alpha * lam) - alpha * (sigmoid(x @ theta) - y) @ x / len(y)
            ),
        ),
        wrong(
            "wrong_l2",
            "divided by N",
            lambda theta, x, y, lam, alpha: (
                theta * (1 - alpha * lam / len(y)) - alpha * (sigmoid(x @ theta) - y) @ x / len(y)
            ),
        ),
        wrong(
            "unknown | factor",
            "no rate",
            lambda theta, x, y, lam, alpha: (
                theta - ((_h(x @ theta) - y) @ x / len(y) + lam * theta)
            ),
        ),
        wrong(
            "unknown",
            "the step only",
            lambda theta, x, y, lam, alpha: (
                -alpha * ((_h(x @ theta) - y) @ x / len(y) + lam * theta)
            ),
        ),
    ],
)

LOGISTIC_SUM = family(
    "L2 logistic regression, a sum",
    kind="gradient",
    wrt="theta",
    inputs=LOGISTIC_INPUTS,
    terms={
        "data": lambda theta, x, y: jnp.sum(jnp.logaddexp(0, x @ theta) - y * (x @ theta)),
        "l2": lambda theta, lam: lam * jnp.sum(theta**2),
    },
    ofs=[
        lambda theta, x, y, lam: (
            jnp.sum(jnp.logaddexp(0, x @ theta) - y * (x @ theta)) + lam * jnp.sum(theta**2)
        )
    ],
    correct=lambda theta, x, y, lam: x.T @ (_h(x @ theta) - y) + 2 * lam * theta,
    mutants=[
        wrong(
            "extra_mean",
            "divided by N",
            lambda theta, x, y, lam: (_h(x @ theta) - y) @ x / len(y) + 2 * lam * theta,
        ),
        wrong(
            "wrong_l2",
            "half",
            lambda theta, x, y, lam: x.T @ (_h(x @ theta) - y) + lam * theta,
        ),
        wrong("missing_l2", "without", lambda theta, x, y: x.T @ (_h(x @ theta) - y)),
        wrong(
            "extra_mean+missing_l2",
            "the mean of the data",
            lambda theta, x, y: jnp.mean((_h(x @ theta) - y)[:, None] * x, axis=0),
        ),
    ],
)

LOGISTIC_HESSIAN = family(
    "Hessian of L2 logistic regression",
    kind="hessian",
    wrt="theta",
    inputs=LOGISTIC_INPUTS,
    ofs=LOGISTIC_OFS[:2],
    correct=lambda theta, x, y, lam: (
        x.T * (_h(x @ theta) * _h(-x @ theta)) @ x / len(y) + lam * jnp.eye(len(theta))
    ),
    mutants=[
        wrong(
            "missing_l2",
            "without",
            lambda theta, x: x.T * (_h(x @ theta) * _h(-x @ theta)) @ x / len(x),
        ),
        wrong(
            "missing_mean",
            "a sum",
            lambda theta, x, y, lam: (
                x.T * (_h(x @ theta) * _h(-x @ theta)) @ x + lam * jnp.eye(len(theta))
            ),
        ),
        wrong(
            "activation_derivative_missing",
            "X^T X",
            lambda theta, x, y, lam: x.T @ x / len(y) + lam * jnp.eye(len(theta)),
        ),
        wrong(
            "activation_derivative_wrong_argument",
            "sigma'(h)",
            lambda theta, x, y, lam: (
                x.T * (_h(_h(x @ theta)) * _h(-_h(x @ theta))) @ x / len(y)
                + lam * jnp.eye(len(theta))
            ),
        ),
        wrong(
            "diagonal_only",
            "of every theta_j alone",
            lambda theta, x, y, lam: jnp.diag(
                (_h(x @ theta) * _h(-x @ theta)) @ x**2 / len(y) + lam
            ),
        ),
        wrong(
            "sign",
            "whole",
            lambda theta, x, y, lam: (
                -(x.T * (_h(x @ theta) * _h(-x @ theta)) @ x / len(y) + lam * jnp.eye(len(theta)))
            ),
        ),
    ],
)


def _penalty(w, lam):
    return lam / 2 * jnp.sum(w**2)


def _delta(w, b, x, y):
    return softmax(x @ w.T + b) - y


SOFTMAX = family(
    "softmax regression",
    kind="gradient",
    wrt=("w", "b"),
    inputs={
        "w": real("C", "d"),
        "b": real("C"),
        "x": real("B", "d"),
        "y": one_hot("B", "C"),
        "lam": positive(),
    },
    source="S2.4",
    ofs=[
        lambda w, b, x, y, lam: (
            -jnp.mean(jnp.sum(y * log_softmax(x @ w.T + b), axis=1)) + _penalty(w, lam)
        ),
        lambda w, b, x, y, lam: (
            -jnp.sum(y * jnp.log(softmax(x @ w.T + b, axis=-1))) / len(x) + lam * jnp.sum(w * w) / 2
        ),
        lambda w, b, x, y, lam: (
            jnp.mean(jax.vmap(lambda xi, yi: logsumexp(w @ xi + b) - yi @ (w @ xi + b))(x, y))
            + 0.5 * lam * jnp.sum(jax.vmap(jnp.dot)(w, w))
        ),
    ],
    correct=lambda w, b, x, y, lam: (
        _delta(w, b, x, y).T @ x / len(x) + lam * w,
        jnp.mean(_delta(w, b, x, y), axis=0),
    ),
    mutants=[
        wrong(
            "l2_on_bias",
            "lambda b",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) + lam * w,
                jnp.mean(_delta(w, b, x, y), axis=0) + lam * b,
            ),
        ),
        wrong(
            "missing_mean",
            "sums",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x + lam * w,
                jnp.sum(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "missing_mean",
            "in the bias",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) + lam * w,
                jnp.sum(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "missing_l2",
            "without",
            lambda w, b, x, y: (
                jnp.einsum("bc,bd->cd", _delta(w, b, x, y), x) / len(x),
                _delta(w, b, x, y).sum(0) / len(x),
            ),
        ),
        wrong(
            "wrong_l2",
            "divided by B",
            lambda w, b, x, y, lam: (
                (_delta(w, b, x, y).T @ x + lam * w) / len(x),
                jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "wrong_l2",
            "sign",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) - lam * w,
                jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "sign",
            "of the bias",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) + lam * w,
                -jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "sign",
            "of the data",
            lambda w, b, x, y, lam: (
                -_delta(w, b, x, y).T @ x / len(x) + lam * w,
                -jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "extra_mean",
            "over the classes too",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / y.size + lam * w,
                jnp.sum(_delta(w, b, x, y), axis=0) / y.size,
            ),
        ),
        wrong(
            "normaliser_constant",
            "-y x^T",
            lambda w, b, x, y, lam: (-y.T @ x / len(x) + lam * w, -jnp.mean(y, axis=0) + 0 * b),
        ),
        wrong(
            "softmax_jacobian_skipped",
            "-y/p for the gradient by z",
            lambda w, b, x, y, lam: (
                (-y / softmax(x @ w.T + b)).T @ x / len(x) + lam * w,
                jnp.mean(-y / softmax(x @ w.T + b), axis=0),
            ),
        ),
        wrong(
            "wrong_value",
            "z for p",
            lambda w, b, x, y, lam: (
                (x @ w.T + b - y).T @ x / len(x) + lam * w,
                jnp.mean(x @ w.T + b - y, axis=0),
            ),
        ),
        wrong(
            "shape",
            "bias not summed",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) + lam * w,
                _delta(w, b, x, y) / len(x),
            ),
        ),
        wrong(
            "shape | transpose",
            "w for w^T",
            lambda w, b, x, y, lam: (
                (softmax(x @ w + b) - y).T @ x / len(x) + lam * w,
                jnp.mean(softmax(x @ w + b) - y, axis=0),
            ),
        ),
        relaid(
            "transpose",
            "weights as columns",
            lambda w, b, x, y, lam: (
                x.T @ _delta(w, b, x, y) / len(x) + lam * w.T,
                jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        relaid(
            "vec_order",
            "w as one vector, row by row",
            lambda w, b, x, y, lam: (
                (_delta(w, b, x, y).T @ x / len(x) + lam * w).ravel(),
                jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "sign+missing_mean",
            "of the data",
            lambda w, b, x, y, lam: (
                -_delta(w, b, x, y).T @ x + lam * w,
                -jnp.sum(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "missing_mean+missing_l2",
            "sums of the data",
            lambda w, b, x, y: (_delta(w, b, x, y).T @ x, jnp.sum(_delta(w, b, x, y), axis=0)),
        ),
        wrong(
            "missing_mean+l2_on_bias",
            "sums, lambda b",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x + lam * w,
                jnp.sum(_delta(w, b, x, y), axis=0) + lam * b,
            ),
        ),
        wrong(
            "unknown | factor",
            "p^2 for p",
            lambda w, b, x, y, lam: (
                (softmax(x @ w.T + b) ** 2 - y).T @ x / len(x) + lam * w,
                jnp.mean(softmax(x @ w.T + b) ** 2 - y, axis=0),
            ),
        ),
        wrong(
            "unknown | wrong_l2",
            "lambda |w| for lambda w",
            lambda w, b, x, y, lam: (
                _delta(w, b, x, y).T @ x / len(x) + lam * jnp.abs(w),
                jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
    ],
)


def _column_probabilities(w, b, x):
    e = jnp.exp(w.T @ x + b[:, None])
    return e / e.sum(axis=0)


def _column_delta(w, b, x, y):
    return _column_probabilities(w, b, x) - jnp.eye(len(b))[:, y]


COLUMNS = family(
    "softmax regression, one example per column",
    kind="gradient",
    wrt=("w", "b"),
    inputs={"w": real("m", "c"), "b": real("c"), "x": real("m", "n"), "y": label("n", "c")},
    source="S2.2",
    ofs=[
        lambda w, b, x, y: (
            -jnp.mean(jnp.log(_column_probabilities(w, b, x)[y, jnp.arange(len(y))]))
        ),
        lambda w, b, x, y: jnp.mean(
            jax.vmap(lambda xi, yi: -log_softmax(xi @ w + b)[yi], in_axes=(1, 0))(x, y)
        ),
    ],
    correct=lambda w, b, x, y: (
        x @ _column_delta(w, b, x, y).T / x.shape[1],
        jnp.mean(_column_delta(w, b, x, y), axis=1),
    ),
    mutants=[
        wrong(
            "missing_mean",
            "sums",
            lambda w, b, x, y: (
                x @ _column_delta(w, b, x, y).T,
                jnp.sum(_column_delta(w, b, x, y), axis=1),
            ),
        ),
        wrong(
            "sign",
            "whole",
            lambda w, b, x, y: (
                -x @ _column_delta(w, b, x, y).T / len(y),
                -jnp.mean(_column_delta(w, b, x, y), axis=1),
            ),
        ),
        wrong(
            "unknown | missing_mean+extra_mean | wrong_constant",
            "divided by the number of inputs",
            lambda w, b, x, y: (
                x @ _column_delta(w, b, x, y).T / len(x),
                jnp.sum(_column_delta(w, b, x, y), axis=1) / len(x),
            ),
        ),
        relaid(
            "transpose",
            "weights as rows",
            lambda w, b, x, y: (
                _column_delta(w, b, x, y) @ x.T / len(y),
                jnp.mean(_column_delta(w, b, x, y), axis=1),
            ),
        ),
        wrong(
            "factor",
            "of the bias, twice",
            lambda w, b, x, y: (
                x @ _column_delta(w, b, x, y).T / len(y),
                2 * jnp.mean(_column_delta(w, b, x, y), axis=1),
            ),
        ),
        wrong(
            "extra_mean",
            "of the bias",
            lambda w, b, x, y: (
                x @ _column_delta(w, b, x, y).T / len(y),
                jnp.mean(_column_delta(w, b, x, y), axis=1) / len(y),
            ),
        ),
    ],
)

SOFTMAX_UPDATE = family(
    "a step of softmax regression",
    kind="update",
    wrt=("w", "b"),
    inputs={
        "w": real("C", "d"),
        "b": real("C"),
        "x": real("B", "d"),
        "y": one_hot("B", "C"),
        "lam": positive(),
        "rate": positive(),
    },
    source="S2.4",
    ofs=[
        lambda w, b, x, y, lam: (
            -jnp.mean(jnp.sum(y * log_softmax(x @ w.T + b), axis=1)) + _penalty(w, lam)
        )
    ],
    correct=lambda w, b, x, y, lam, rate: (
        w - rate * (_delta(w, b, x, y).T @ x / len(x) + lam * w),
        b - rate * jnp.mean(_delta(w, b, x, y), axis=0),
    ),
    mutants=[
        wrong(
            "l2_on_bias",
            "both shrink",
            lambda w, b, x, y, lam, rate: (
                w * (1 - rate * lam) - rate * _delta(w, b, x, y).T @ x / len(x),
                b * (1 - rate * lam) - rate * jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "sign",
            "of the bias",
            lambda w, b, x, y, lam, rate: (
                w - rate * (_delta(w, b, x, y).T @ x / len(x) + lam * w),
                b + rate * jnp.mean(_delta(w, b, x, y), axis=0),
            ),
        ),
        wrong(
            "missing_mean",
            "sums",
            lambda w, b, x, y, lam, rate: (
                w - rate * (_delta(w, b, x, y).T @ x + lam * w),
                b - rate * jnp.sum(_delta(w, b, x, y), axis=0),
            ),
        ),
    ],
)

RIDGE = family(
    "ridge regression",
    kind="gradient",
    wrt="w",
    inputs={"w": real("d"), "x": real("n", "d"), "y": real("n"), "lam": positive()},
    ofs=[
        lambda w, x, y, lam: jnp.mean((x @ w - y) ** 2) + lam * w @ w,
        lambda w, x, y, lam: jnp.vdot(y - x @ w, y - x @ w) / len(y) + lam * jnp.sum(w**2),
    ],
    correct=lambda w, x, y, lam: 2 / len(y) * x.T @ (x @ w - y) + 2 * lam * w,
    mutants=[
        wrong(
            "sign", "of the data", lambda w, x, y, lam: 2 * (y - x @ w) @ x / len(y) + 2 * lam * w
        ),
        wrong("factor", "half", lambda w, x, y, lam: x.T @ (x @ w - y) / len(y) + lam * w),
        wrong(
            "factor",
            "of the data, half",
            lambda w, x, y, lam: (x @ w - y) @ x / len(y) + 2 * lam * w,
        ),
        wrong("wrong_l2", "half", lambda w, x, y, lam: 2 * x.T @ (x @ w - y) / len(y) + lam * w),
        wrong("missing_mean", "a sum", lambda w, x, y, lam: 2 * x.T @ (x @ w - y) + 2 * lam * w),
        wrong("missing_l2", "without", lambda w, x, y: 2 * (x @ w - y) @ x / len(x)),
        wrong(
            "shape | transpose", "x for x^T", lambda w, x, y, lam: 2 * x @ (x @ w - y) + 2 * lam * w
        ),
        wrong(
            "unknown",
            "residuals cubed",
            lambda w, x, y, lam: 2 * (x @ w - y) ** 3 @ x / len(y) + 2 * lam * w,
        ),
    ],
)

LEAST_SQUARES = family(
    "linear regression",
    kind="gradient",
    wrt=("w", "b"),
    inputs={"w": real("d"), "b": real(), "x": real("n", "d"), "y": real("n")},
    ofs=[
        lambda w, b, x, y: jnp.sum((x @ w + b - y) ** 2) / (2 * len(y)),
        lambda w, b, x, y: 0.5 * jnp.mean(jax.vmap(lambda xi, yi: (yi - w @ xi - b) ** 2)(x, y)),
    ],
    correct=lambda w, b, x, y: (
        (x @ w + b - y) @ x / len(y),
        jnp.mean(x @ w + b - y),
    ),
    mutants=[
        wrong(
            "missing_mean",
            "of the bias",
            lambda w, b, x, y: ((x @ w + b - y) @ x / len(y), jnp.sum(x @ w + b - y)),
        ),
        wrong(
            "factor",
            "twice",
            lambda w, b, x, y: (2 * (x @ w + b - y) @ x / len(y), 2 * jnp.mean(x @ w + b - y)),
        ),
        wrong(
            "sign+missing_mean",
            "y - z summed",
            lambda w, b, x, y: ((y - x @ w - b) @ x, jnp.sum(y - x @ w - b)),
        ),
        wrong(
            "unknown | wrong_value",
            "a constant added to the bias",
            lambda w, b, x, y: ((x @ w + b - y) @ x / len(y), jnp.mean(x @ w + b - y) + 1),
        ),
    ],
)

FAMILIES: list[Family] = [
    LOGISTIC, LOGISTIC_UPDATE, LOGISTIC_SUM, LOGISTIC_HESSIAN, SOFTMAX, COLUMNS, SOFTMAX_UPDATE,
    RIDGE, LEAST_SQUARES,
]  # fmt: skip
