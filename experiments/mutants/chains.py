"""Affine chains, and functions from outside of any course."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp, softmax

from experiments.mutants.family import Family, family, relaid, wrong
from jaxnn.verify import one_hot, positive, real, simplex

CHAIN = family(
    "two affine maps",
    kind="gradient",
    wrt=("w1", "b1", "w2", "b2"),
    inputs={
        "w1": real("m", "d"),
        "b1": real("m"),
        "w2": real("m"),
        "b2": real(),
        "x": real("d"),
    },
    source="S2.5",
    ofs=[
        lambda w1, b1, w2, b2, x: w2 @ (w1 @ x + b1) + b2,
        lambda w1, b1, w2, b2, x: jnp.sum(w2 * (jnp.einsum("ij,j->i", w1, x) + b1)) + b2,
    ],
    correct=lambda w1, b1, w2, b2, x: (jnp.outer(w2, x), w2, w1 @ x + b1, 1.0),
    mutants=[
        relaid(
            "transpose",
            "x W2",
            lambda w1, b1, w2, b2, x: (jnp.outer(x, w2), w2, w1 @ x + b1, 1.0),
        ),
        relaid(
            "vec_order",
            "by vec W1",
            lambda w1, b1, w2, b2, x: (jnp.kron(w2, x), w2, w1 @ x + b1, 1.0),
        ),
        wrong(
            "shape",
            "ones for the gradient by b2",
            lambda w1, b1, w2, b2, x: (jnp.outer(w2, x), w2, w1 @ x + b1, jnp.ones_like(b1)),
        ),
        wrong(
            "sign",
            "of b1",
            lambda w1, b1, w2, b2, x: (jnp.outer(w2, x), -w2, w1 @ x + b1, 1.0),
        ),
        wrong(
            "unknown | wrong_value",
            "the bias of z1 forgotten",
            lambda w1, b1, w2, b2, x: (jnp.outer(w2, x), w2, w1 @ x, 1.0),
        ),
        wrong(
            "wrong_value",
            "b1 for W2",
            lambda w1, b1, w2, b2, x: (jnp.outer(b1, x), b1, w1 @ x + b1, 1.0),
        ),
        wrong(
            "factor",
            "of W1, twice",
            lambda w1, b1, w2, b2, x: (2 * jnp.outer(w2, x), w2, w1 @ x + b1, 1.0),
        ),
        wrong(
            "shape",
            "x for the gradient by W2",
            lambda w1, b1, w2, b2, x: (jnp.outer(w2, x), w2, x, 1.0),
        ),
    ],
)

SQUARE_CHAIN = family(
    "three affine maps of equal widths",
    kind="gradient",
    wrt=("w1", "w2", "w3", "x"),
    inputs={
        "w1": real("n", "n"),
        "w2": real("n", "n"),
        "w3": real("n"),
        "b1": real("n"),
        "b2": real("n"),
        "x": real("n"),
    },
    source="S2.5",
    ofs=[lambda w1, w2, w3, b1, b2, x: w3 @ (w2 @ (w1 @ x + b1) + b2)],
    correct=lambda w1, w2, w3, b1, b2, x: (
        jnp.outer(w3 @ w2, x),
        jnp.outer(w3, w1 @ x + b1),
        w2 @ (w1 @ x + b1) + b2,
        w3 @ w2 @ w1,
    ),
    mutants=[
        wrong(
            "wrong_value",
            "x for z1 in the gradient by W2",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(w3 @ w2, x),
                jnp.outer(w3, x),
                w2 @ (w1 @ x + b1) + b2,
                w3 @ w2 @ w1,
            ),
        ),
        wrong(
            "wrong_value",
            "z1 for z2 in the gradient by W3",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(w3 @ w2, x),
                jnp.outer(w3, w1 @ x + b1),
                w1 @ x + b1,
                w3 @ w2 @ w1,
            ),
        ),
        wrong(
            "transpose",
            "W2 for W2^T",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(w2 @ w3, x),
                jnp.outer(w3, w1 @ x + b1),
                w2 @ (w1 @ x + b1) + b2,
                w2 @ w3 @ w1,
            ),
        ),
        wrong(
            "transpose",
            "W1 for W1^T in the gradient by x",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(w3 @ w2, x),
                jnp.outer(w3, w1 @ x + b1),
                w2 @ (w1 @ x + b1) + b2,
                w1 @ w2.T @ w3,
            ),
        ),
        relaid(
            "transpose",
            "the gradients by W1 and W2",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(x, w3 @ w2),
                jnp.outer(w1 @ x + b1, w3),
                w2 @ (w1 @ x + b1) + b2,
                w3 @ w2 @ w1,
            ),
        ),
        wrong(
            "unknown",
            "W1 left out of the gradient by x",
            lambda w1, w2, w3, b1, b2, x: (
                jnp.outer(w3 @ w2, x),
                jnp.outer(w3, w1 @ x + b1),
                w2 @ (w1 @ x + b1) + b2,
                w3 @ w2,
            ),
        ),
    ],
)

CHAIN_JACOBIAN = family(
    "two affine maps by x",
    kind="jacobian",
    wrt="x",
    inputs={"v": real("k", "m"), "w": real("m", "d"), "b": real("m"), "x": real("d")},
    ofs=[lambda v, w, b, x: v @ (w @ x + b)],
    correct=lambda v, w, b, x: v @ w,
    mutants=[
        relaid("transpose", "(VW)^T", lambda v, w, b, x: w.T @ v.T),
        wrong("shape", "WV", lambda v, w, b, x: w @ v),
        wrong("sign", "whole", lambda v, w, b, x: -v @ w),
        wrong("shape", "V left out", lambda v, w, b, x: w),
        wrong("unknown | factor", "VW x", lambda v, w, b, x: v @ w * x),
    ],
)

WEIGHT_JACOBIAN = family(
    "affine map by vec W",
    kind="jacobian",
    wrt="w",
    layout="vec_rows",
    inputs={"w": real("n", "m"), "b": real("n"), "x": real("m")},
    source="S2.5",
    ofs=[lambda w, b, x: w @ x + b],
    correct=lambda w, b, x: jnp.kron(jnp.eye(len(b)), x),
    mutants=[
        relaid("vec_order", "by columns", lambda w, b, x: jnp.kron(x, jnp.eye(len(b)))),
        wrong("sign", "whole", lambda w, b, x: -jnp.kron(jnp.eye(len(b)), x)),
        wrong("unknown", "x everywhere", lambda w, b, x: jnp.tile(x, (len(b), len(b)))),
    ],
)

VEC_GRADIENT = family(
    "bilinear form by vec W",
    kind="gradient",
    wrt="w",
    layout="vec",
    inputs={"w": real("n", "m"), "a": real("n"), "x": real("m")},
    ofs=[lambda w, a, x: a @ w @ x, lambda w, a, x: jnp.einsum("i,ij,j", a, w, x)],
    correct=lambda w, a, x: jnp.kron(x, a),
    mutants=[
        relaid("vec_order", "by rows", lambda w, a, x: jnp.kron(a, x)),
        wrong("factor", "twice", lambda w, a, x: 2 * jnp.kron(x, a)),
        wrong("factor+vec_order", "twice, by rows", lambda w, a, x: 2 * jnp.kron(a, x)),
    ],
)

QUADRATIC = family(
    "quadratic form",
    kind="gradient",
    wrt="x",
    inputs={"a": real("n", "n"), "b": real("n"), "x": real("n")},
    ofs=[
        lambda a, b, x: x @ a @ x / 2 - b @ x,
        lambda a, b, x: jnp.einsum("i,ij,j->", x, a, x) / 2 - jnp.sum(b * x),
    ],
    correct=lambda a, b, x: (a + a.T) @ x / 2 - b,
    mutants=[
        wrong(
            "symmetric_part | transpose",
            "as if A were symmetric",
            lambda a, b, x: a @ x - b,
        ),
        wrong("sign", "the term of b added", lambda a, b, x: (a + a.T) @ x / 2 + b),
        wrong("factor", "the term of the square, twice", lambda a, b, x: (a + a.T) @ x - b),
        wrong("sign", "whole", lambda a, b, x: b - (a + a.T) @ x / 2),
        wrong("unknown | factor", "b for b x", lambda a, b, x: (a + a.T) @ x / 2 - b * x),
    ],
)

QUADRATIC_HESSIAN = family(
    "Hessian of a quadratic form",
    kind="hessian",
    wrt="x",
    inputs={"a": real("n", "n"), "b": real("n"), "x": real("n")},
    ofs=[lambda a, b, x: 0.5 * jnp.dot(x, a @ x) + b @ x],
    correct=lambda a, b, x: (a + a.T) / 2,
    mutants=[
        wrong("factor", "twice", lambda a, b, x: a + a.T),
        wrong("diagonal_only", "a_ii", lambda a, b, x: jnp.diag(jnp.diag(a))),
        wrong("symmetric_part | transpose", "as if A were symmetric", lambda a, b, x: a),
        wrong("shape", "times x", lambda a, b, x: (a + a.T) @ x / 2),
    ],
)

BILINEAR = family(
    "bilinear form",
    kind="gradient",
    wrt="x",
    inputs={"a": real("n", "n"), "b": real("n"), "x": real("n")},
    ofs=[lambda a, b, x: b @ a @ x, lambda a, b, x: jnp.sum(b * (a @ x))],
    correct=lambda a, b, x: a.T @ b,
    mutants=[
        wrong("transpose", "A b", lambda a, b, x: a @ b),
        wrong("sign", "whole", lambda a, b, x: -b @ a),
        wrong("wrong_value", "x for b", lambda a, b, x: a.T @ x),
    ],
)

LOG_SUM_EXP = family(
    "log-sum-exp",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n")},
    ofs=[lambda z: logsumexp(z), lambda z: jnp.log(jnp.sum(jnp.exp(z)))],
    correct=lambda z: jnp.exp(z) / jnp.sum(jnp.exp(z)),
    mutants=[
        wrong("unknown", "e^z", lambda z: jnp.exp(z)),
        wrong("sign", "whole", lambda z: -softmax(z)),
        wrong("extra_mean", "mean for sum", lambda z: softmax(z) / len(z)),
        wrong(
            "unknown | factor", "1 over the sum", lambda z: jnp.ones_like(z) / jnp.sum(jnp.exp(z))
        ),
    ],
)

LOG_SUM_EXP_HESSIAN = family(
    "Hessian of log-sum-exp",
    kind="hessian",
    wrt="z",
    inputs={"z": real("n")},
    ofs=[lambda z: logsumexp(z), lambda z: jnp.log(jnp.sum(jnp.exp(z)))],
    correct=lambda z: jnp.diag(softmax(z)) - jnp.outer(softmax(z), softmax(z)),
    mutants=[
        wrong("normaliser_constant", "diag(p)", lambda z: jnp.diag(softmax(z))),
        wrong("diagonal_only", "p(1 - p)", lambda z: jnp.diag(softmax(z) * (1 - softmax(z)))),
        wrong(
            "sign",
            "the term of the denominator added",
            lambda z: jnp.diag(softmax(z)) + jnp.outer(softmax(z), softmax(z)),
        ),
    ],
)

UNIT = family(
    "normalisation",
    kind="jacobian",
    wrt="x",
    inputs={"x": real("n")},
    ofs=[lambda x: x / jnp.sqrt(jnp.sum(x**2)), lambda x: x / jnp.linalg.norm(x)],
    correct=lambda x: jnp.eye(len(x)) / jnp.sqrt(x @ x) - jnp.outer(x, x) / (x @ x) ** 1.5,
    mutants=[
        wrong("normaliser_constant", "I/|x|", lambda x: jnp.eye(len(x)) / jnp.sqrt(x @ x)),
        wrong(
            "sign",
            "the term of the norm added",
            lambda x: jnp.eye(len(x)) / jnp.sqrt(x @ x) + jnp.outer(x, x) / (x @ x) ** 1.5,
        ),
        wrong(
            "diagonal_only",
            "every x_i alone",
            lambda x: jnp.diag(1 / jnp.sqrt(x @ x) - x**2 / (x @ x) ** 1.5),
        ),
        wrong(
            "unknown | wrong_value | factor",
            "wrong exponent",
            lambda x: jnp.eye(len(x)) / jnp.sqrt(x @ x) - jnp.outer(x, x) / (x @ x),
        ),
    ],
)

PRODUCT = family(
    "elementwise product",
    kind="jacobian",
    wrt=("a", "b"),
    inputs={"a": real("n"), "b": real("n")},
    ofs=[lambda a, b: a * b],
    correct=lambda a, b: (jnp.diag(b), jnp.diag(a)),
    mutants=[
        wrong(
            "exchanged | wrong_value", "a and b exchanged", lambda a, b: (jnp.diag(a), jnp.diag(b))
        ),
        wrong("shape", "vectors", lambda a, b: (b, a)),
        wrong("sign", "of b", lambda a, b: (jnp.diag(b), -jnp.diag(a))),
        wrong("unknown", "a outer product", lambda a, b: (jnp.outer(a, b), jnp.outer(b, a))),
    ],
)

SINES = family(
    "weighted sines",
    kind="gradient",
    wrt="x",
    inputs={"x": real("n"), "y": real("n")},
    ofs=[lambda x, y: jnp.sum(y * jnp.sin(x)), lambda x, y: jax.vmap(jnp.sin)(x) @ y],
    correct=lambda x, y: y * jnp.cos(x),
    mutants=[
        wrong("sign", "-cos", lambda x, y: -y * jnp.cos(x)),
        wrong("activation_derivative_missing", "no cos", lambda x, y: y + 0 * x),
        wrong(
            "activation_derivative_wrong_argument",
            "cos(sin x)",
            lambda x, y: y * jnp.cos(jnp.sin(x)),
        ),
        wrong("unknown | wrong_value", "sin", lambda x, y: y * jnp.sin(x)),
        wrong("wrong_value | unknown", "x for y", lambda x, y: x * jnp.cos(x)),
    ],
)

LIKELIHOOD = family(
    "negative log-likelihood",
    kind="value",
    inputs={"p": simplex("n", "c"), "y": one_hot("n", "c")},
    source="S2.3",
    ofs=[
        lambda p, y: -jnp.log(jnp.prod(p**y)),
        lambda p, y: -jnp.sum(jnp.log(jnp.sum(p * y, axis=1))),
    ],
    correct=lambda p, y: -jnp.sum(y * jnp.log(p)),
    mutants=[
        wrong("extra_mean", "a mean", lambda p, y: -jnp.mean(jnp.sum(y * jnp.log(p), axis=1))),
        wrong("sign", "whole", lambda p, y: jnp.sum(y * jnp.log(p))),
        wrong("factor", "half", lambda p, y: -jnp.sum(y * jnp.log(p)) / 2),
        wrong("unknown", "1 - p", lambda p, y: -jnp.sum(y * jnp.log(1 - p + y))),
        wrong("shape", "one for every example", lambda p, y: -jnp.sum(y * jnp.log(p), axis=1)),
    ],
)

GAUSSIAN = family(
    "Gaussian log-likelihood",
    kind="gradient",
    wrt=("mu", "s"),
    inputs={"mu": real(), "s": positive(), "x": real("n")},
    ofs=[
        lambda mu, s, x: jnp.mean(-((x - mu) ** 2) / (2 * s**2) - jnp.log(s)),
        lambda mu, s, x: -jnp.sum((x - mu) ** 2) / (2 * len(x) * s**2) - jnp.log(s),
    ],
    correct=lambda mu, s, x: (
        jnp.mean(x - mu) / s**2,
        jnp.mean((x - mu) ** 2) / s**3 - 1 / s,
    ),
    mutants=[
        wrong(
            "sign",
            "of mu",
            lambda mu, s, x: (
                jnp.mean(mu - x) / s**2,
                jnp.mean((x - mu) ** 2) / s**3 - 1 / s,
            ),
        ),
        wrong(
            "missing_mean",
            "of mu",
            lambda mu, s, x: (
                jnp.sum(x - mu) / s**2,
                jnp.mean((x - mu) ** 2) / s**3 - 1 / s,
            ),
        ),
        wrong(
            "unknown | factor",
            "s for s^2",
            lambda mu, s, x: (
                jnp.mean(x - mu) / s,
                jnp.mean((x - mu) ** 2) / s**3 - 1 / s,
            ),
        ),
        wrong(
            "sign",
            "the term of log s",
            lambda mu, s, x: (
                jnp.mean(x - mu) / s**2,
                jnp.mean((x - mu) ** 2) / s**3 + 1 / s,
            ),
        ),
    ],
)

FAMILIES: list[Family] = [
    CHAIN, SQUARE_CHAIN, CHAIN_JACOBIAN, WEIGHT_JACOBIAN, VEC_GRADIENT, QUADRATIC,
    QUADRATIC_HESSIAN, BILINEAR, LOG_SUM_EXP, LOG_SUM_EXP_HESSIAN, UNIT, PRODUCT, SINES,
    LIKELIHOOD, GAUSSIAN,
]  # fmt: skip
