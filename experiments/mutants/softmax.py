"""Softmax, cross-entropy and the squared loss through softmax, as functions of the logits."""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp, one_hot, softmax

from experiments.mutants.family import Family, family, relaid, wrong
from jaxnn.verify import label, real, simplex
from jaxnn.verify import one_hot as one_hots


def _by_hand(z):
    e = jnp.exp(z)
    return e / jnp.sum(e)


def _shifted(z):
    e = jnp.exp(z - jnp.max(z))
    return e / jnp.sum(e)


def _rows(z):
    e = jnp.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def _jacobian(p):
    return jnp.diag(p) - jnp.outer(p, p)


def _through(p, g):
    """The softmax Jacobian times g, with classes along the last axis."""
    return p * (g - jnp.sum(p * g, axis=-1, keepdims=True))


JACOBIAN = family(
    "softmax Jacobian",
    kind="jacobian",
    wrt="z",
    inputs={"z": real("n")},
    source="S1.1",
    ofs=[lambda z: softmax(z), _by_hand, _shifted, lambda z: jnp.exp(log_softmax(z))],
    correct=lambda z: jnp.diag(softmax(z)) - jnp.outer(softmax(z), softmax(z)),
    mutants=[
        wrong(
            "sign", "whole", lambda z: jnp.outer(_by_hand(z), _by_hand(z)) - jnp.diag(softmax(z))
        ),
        wrong(
            "sign",
            "the term of the denominator added",
            lambda z: jnp.diag(softmax(z)) + jnp.outer(softmax(z), softmax(z)),
        ),
        wrong("factor", "twice", lambda z: 2 * _jacobian(softmax(z))),
        wrong("factor", "half", lambda z: _jacobian(softmax(z)) / 2),
        wrong("diagonal_only", "p(1 - p)", lambda z: jnp.diag(softmax(z) * (1 - softmax(z)))),
        wrong("normaliser_constant", "diag(p)", lambda z: jnp.diag(_by_hand(z))),
        wrong(
            "wrong_value | unknown",
            "-p_i p_i off the diagonal",
            lambda z: jnp.diag(softmax(z)) - jnp.outer(softmax(z) ** 2, jnp.ones_like(z)),
        ),
        wrong(
            "unknown | factor",
            "p^2 for p in the diagonal",
            lambda z: jnp.diag(softmax(z) ** 2) - jnp.outer(softmax(z), softmax(z)),
        ),
        wrong("shape | diagonal_only", "a vector", lambda z: softmax(z) * (1 - softmax(z))),
    ],
)

VALUE = family(
    "softmax value",
    kind="value",
    inputs={"z": real("n")},
    source="S4.1",
    ofs=[lambda z: softmax(z), _by_hand, lambda z: softmax(z + 3)],
    correct=lambda z: jnp.exp(z - logsumexp(z)),
    mutants=[
        wrong("sign", "whole", lambda z: -_shifted(z)),
        wrong("factor", "twice", lambda z: 2 * _shifted(z)),
        wrong("unknown | sign", "e^-z", lambda z: jnp.exp(-z) / jnp.sum(jnp.exp(-z))),
        wrong("unknown", "sines", lambda z: jnp.sin(z) / jnp.sum(jnp.exp(z))),
        wrong("unknown", "sigmoid", lambda z: 1 / (1 + jnp.exp(-z))),
        wrong("unknown", "its logarithm", lambda z: z - jnp.log(jnp.sum(jnp.exp(z)))),
        wrong("shape", "summed", lambda z: jnp.sum(softmax(z) ** 2)),
    ],
)

WEIGHT_JACOBIAN = family(
    "softmax Jacobian by W",
    kind="jacobian",
    wrt="w",
    inputs={"w": real("C", "d"), "b": real("C"), "x": real("d")},
    source="S2.1",
    ofs=[lambda w, b, x: softmax(w @ x + b), lambda w, b, x: _by_hand(jnp.dot(w, x) + b)],
    correct=lambda w, b, x: jnp.einsum("kl,j->klj", _jacobian(softmax(w @ x + b)), x),
    mutants=[
        wrong("sign", "whole", lambda w, b, x: -_jacobian(softmax(w @ x + b))[:, :, None] * x),
        wrong(
            "diagonal_only",
            "l = k only",
            lambda w, b, x: jnp.einsum(
                "kl,k,j->klj", jnp.eye(len(b)), softmax(w @ x + b) * (1 - softmax(w @ x + b)), x
            ),
        ),
        wrong(
            "normaliser_constant",
            "p_k x",
            lambda w, b, x: jnp.tensordot(jnp.diag(softmax(w @ x + b)), x, axes=0),
        ),
        wrong("shape", "x forgotten", lambda w, b, x: _jacobian(softmax(w @ x + b))),
        relaid(
            "transpose",
            "weights as columns",
            lambda w, b, x: jnp.einsum("kl,j->kjl", _jacobian(softmax(w @ x + b)), x),
        ),
        relaid(
            "vec_order",
            "by the rows of W, one after the other",
            lambda w, b, x: jnp.kron(_jacobian(softmax(w @ x + b)), x),
        ),
        relaid(
            "vec_order",
            "by the columns of W, one after the other",
            lambda w, b, x: jnp.kron(x, _jacobian(softmax(w @ x + b))),
        ),
    ],
)

CROSS_ENTROPY = family(
    "cross-entropy",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n"), "y": simplex("n")},
    source="S1.2",
    statement=r"\nabla_z J = p - y",
    ofs=[
        lambda z, y: -jnp.sum(y * jnp.log(softmax(z))),
        lambda z, y: -jnp.sum(y * log_softmax(z)),
        lambda z, y: logsumexp(z) - y @ z,
        lambda z, y: -jnp.sum(y * (z - jnp.log(jnp.sum(jnp.exp(z))))),
        lambda z, y: -jnp.dot(y, jnp.log(_by_hand(z))),
    ],
    correct=lambda z, y: softmax(z) - y,
    mutants=[
        wrong("sign", "whole", lambda z, y: y - softmax(z)),
        wrong("sign", "the term of y added", lambda z, y: softmax(z) + y),
        wrong("factor", "twice", lambda z, y: 2 * (softmax(z) - y)),
        wrong("factor", "half", lambda z, y: (softmax(z) - y) / 2),
        wrong("extra_mean", "over the classes", lambda z, y: (softmax(z) - y) / len(y)),
        wrong("softmax_jacobian_skipped", "-y/p", lambda z, y: -y / softmax(z)),
        wrong("diagonal_only", "-y/p p(1 - p)", lambda z, y: -y * (1 - softmax(z))),
        wrong("normaliser_constant", "-y", lambda z, y: -y + 0 * z),
        wrong("sign+normaliser_constant", "y", lambda z, y: y + 0 * z),
        wrong("wrong_value", "z for p", lambda z, y: z - y),
        wrong("sign+factor", "2y - 2p", lambda z, y: 2 * (y - softmax(z))),
        wrong("unknown", "p^2 - y", lambda z, y: softmax(z) ** 2 - y),
        wrong("unknown | wrong_value", "a constant added", lambda z, y: softmax(z) - y + 1),
        wrong("unknown | wrong_value | factor", "e^z - y", lambda z, y: jnp.exp(z) - y),
        wrong(
            "unknown | wrong_value", "p(1 - p) - y", lambda z, y: softmax(z) * (1 - softmax(z)) - y
        ),
        wrong("shape", "a matrix", lambda z, y: jnp.diag(softmax(z)) - y),
    ],
)

ONE_HOT = family(
    "cross-entropy, one-hot",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n"), "y": one_hots("n")},
    source="S4.3",
    ofs=[
        lambda z, y: -jnp.log(jnp.sum(y * softmax(z))),
        lambda z, y: -jnp.sum(jnp.log(_shifted(z)) * y),
        lambda z, y: -(y @ (z - logsumexp(z))),
    ],
    correct=lambda z, y: softmax(z) - y,
    mutants=[
        wrong("sign", "whole", lambda z, y: y - softmax(z)),
        wrong("softmax_jacobian_skipped", "-y/p", lambda z, y: -y / softmax(z)),
        wrong("normaliser_constant", "-y", lambda z, y: -y + 0 * z),
        wrong("diagonal_only", "y(p - 1)", lambda z, y: y * (softmax(z) - 1)),
        wrong("factor", "half", lambda z, y: 0.5 * (softmax(z) - y)),
        wrong("unknown", "p(p - y)", lambda z, y: softmax(z) * (softmax(z) - y)),
    ],
)

LABEL = family(
    "cross-entropy, label",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n"), "y": label("n")},
    source="S5.4",
    ofs=[
        lambda z, y: -log_softmax(z)[y],
        lambda z, y: logsumexp(z) - z[y],
        lambda z, y: -jnp.log(softmax(z)[y]),
    ],
    correct=lambda z, y: softmax(z).at[y].add(-1),
    mutants=[
        wrong("sign", "whole", lambda z, y: one_hot(y, len(z)) - softmax(z)),
        wrong("sign", "the term of y added", lambda z, y: softmax(z).at[y].add(1)),
        wrong("factor", "twice", lambda z, y: 2 * softmax(z).at[y].add(-1)),
        wrong("normaliser_constant", "-y", lambda z, y: -one_hot(y, len(z), dtype=z.dtype)),
        wrong("softmax_jacobian_skipped", "-y/p", lambda z, y: -one_hot(y, len(z)) / softmax(z)),
        wrong("unknown", "always the first class", lambda z, y: softmax(z).at[0].add(-1)),
        wrong("unknown", "the label's number for its vector", lambda z, y: softmax(z) - y),
    ],
)

BATCH = family(
    "cross-entropy of a batch",
    kind="gradient",
    wrt="z",
    inputs={"z": real("B", "n"), "y": simplex("B", "n")},
    source="S1.2b",
    ofs=[
        lambda z, y: -jnp.mean(jnp.sum(y * log_softmax(z), axis=1)),
        lambda z, y: -jnp.sum(y * jnp.log(_rows(z))) / len(z),
        lambda z, y: jnp.mean(jax.vmap(lambda zi, yi: logsumexp(zi) - yi @ zi)(z, y)),
    ],
    correct=lambda z, y: (softmax(z, axis=1) - y) / z.shape[0],
    mutants=[
        wrong("missing_mean", "a sum", lambda z, y: softmax(z) - y),
        wrong("sign", "whole", lambda z, y: (y - softmax(z)) / len(z)),
        wrong("sign+missing_mean", "y - p", lambda z, y: y - softmax(z)),
        wrong("extra_mean", "over the classes too", lambda z, y: (softmax(z) - y) / z.size),
        wrong("factor", "half", lambda z, y: (softmax(z) - y) / (2 * len(z))),
        wrong(
            "wrong_axis", "softmax along the examples", lambda z, y: (softmax(z, 0) - y) / len(z)
        ),
        wrong("shape", "summed over the examples", lambda z, y: jnp.mean(softmax(z) - y, axis=0)),
        relaid("transpose", "examples in columns", lambda z, y: (softmax(z) - y).T / len(z)),
    ],
)

LOG_SUM = family(
    "sum of log-softmax",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n")},
    source="S5.2",
    ofs=[lambda z: jnp.sum(jnp.log(softmax(z))), lambda z: jnp.sum(z) - len(z) * logsumexp(z)],
    correct=lambda z: 1 - len(z) * softmax(z),
    mutants=[
        wrong("sign", "whole", lambda z: -1 + len(z) * softmax(z)),
        wrong("sign", "the term of the denominator added", lambda z: 1 + len(z) * softmax(z)),
        wrong("diagonal_only", "1 - p", lambda z: 1 - softmax(z)),
        wrong("softmax_jacobian_skipped", "1/p", lambda z: 1 / softmax(z)),
        wrong("normaliser_constant", "1", lambda z: jnp.ones_like(z)),
    ],
)

SQUARED = family(
    "squared loss through softmax",
    kind="gradient",
    wrt="z",
    inputs={"z": real("n"), "y": simplex("n")},
    source="S3.4",
    ofs=[
        lambda z, y: jnp.sum((y - softmax(z)) ** 2) / 2,
        lambda z, y: 0.5 * jnp.vdot(_by_hand(z) - y, _by_hand(z) - y),
        lambda z, y: jnp.sum(jnp.square(jnp.exp(log_softmax(z)) - y)) * 0.5,
    ],
    correct=lambda z, y: _jacobian(softmax(z)) @ (softmax(z) - y),
    mutants=[
        wrong("softmax_jacobian_skipped", "p - y", lambda z, y: softmax(z) - y),
        wrong("sign+softmax_jacobian_skipped", "y - p", lambda z, y: y - softmax(z)),
        wrong("sign", "whole", lambda z, y: _through(softmax(z), y - softmax(z))),
        wrong("factor", "twice", lambda z, y: 2 * _through(softmax(z), softmax(z) - y)),
        wrong(
            "diagonal_only",
            "p(1 - p)(p - y)",
            lambda z, y: softmax(z) * (1 - softmax(z)) * (softmax(z) - y),
        ),
        # p - y sums to zero, and so does -p_j p_j for -p_i p_j off the Jacobian's diagonal.
        wrong(
            "normaliser_constant | wrong_value",
            "p(p - y)",
            lambda z, y: softmax(z) * (softmax(z) - y),
        ),
        wrong(
            "sign",
            "the term of the denominator added",
            lambda z, y: softmax(z) * (softmax(z) - y + softmax(z) @ (softmax(z) - y)),
        ),
        wrong("wrong_value", "z for p in p - y", lambda z, y: _through(softmax(z), z - y)),
        wrong(
            "unknown | wrong_value",
            "p - y squared",
            lambda z, y: _through(softmax(z), (softmax(z) - y) ** 2),
        ),
        wrong(
            "sign+diagonal_only",
            "p(1 - p)(y - p)",
            lambda z, y: softmax(z) * (1 - softmax(z)) * (y - softmax(z)),
        ),
    ],
)

BRIER = family(
    "mean squared error of probabilities",
    kind="gradient",
    wrt="z",
    inputs={"z": real("B", "n"), "y": one_hots("B", "n")},
    ofs=[
        lambda z, y: jnp.mean(jnp.sum((softmax(z, axis=1) - y) ** 2, axis=1)),
        lambda z, y: (
            jnp.sum(jax.vmap(lambda zi, yi: jnp.sum((yi - _by_hand(zi)) ** 2))(z, y)) / z.shape[0]
        ),
    ],
    correct=lambda z, y: 2 / len(z) * _through(softmax(z), softmax(z) - y),
    mutants=[
        wrong("factor", "half", lambda z, y: _through(softmax(z), softmax(z) - y) / len(z)),
        wrong("missing_mean", "a sum", lambda z, y: 2 * _through(softmax(z), softmax(z) - y)),
        wrong(
            "missing_mean+factor",
            "neither 2 nor 1/B",
            lambda z, y: _through(softmax(z), softmax(z) - y),
        ),
        wrong("softmax_jacobian_skipped", "p - y", lambda z, y: 2 * (softmax(z) - y) / z.shape[0]),
        wrong(
            "softmax_jacobian_skipped+missing_mean", "2(p - y)", lambda z, y: 2 * (softmax(z) - y)
        ),
        wrong(
            "diagonal_only",
            "p(1 - p)(p - y)",
            lambda z, y: 2 * softmax(z) * (1 - softmax(z)) * (softmax(z) - y) / len(z),
        ),
    ],
)

FAMILIES: list[Family] = [
    JACOBIAN, VALUE, WEIGHT_JACOBIAN, CROSS_ENTROPY, ONE_HOT, LABEL, BATCH, LOG_SUM, SQUARED, BRIER,
]  # fmt: skip
