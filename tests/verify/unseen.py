"""Wrong derivations after public threads and repositories, with the codes of a right diagnosis.

Codes: ``a|b``: any of the codes; ``a+b``: both mistakes. Sources are the places of the mistake, or
of the question about the formula. ``DEVELOPING`` and ``HELD_OUT`` are halves drawn at random.
"""

# ruff: noqa: N803, N806, E731, E741

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp, one_hot, relu, sigmoid, softmax

from jaxnn.verify import Claim, binary, claim, label, positive, real, simplex
from jaxnn.verify import one_hot as one_hots


class Mistake(NamedTuple):
    """A wrong derivation."""

    claim: Claim
    codes: str
    source: str


MISTAKES: list[Mistake] = []


def wrong(codes: str, source: str, **declared: Any) -> Callable[[Callable[..., Any]], Claim]:
    """Adds the decorated formula to the mistakes; inputs as text such as ``x=N,D``."""
    declared.setdefault("kind", "gradient")

    def add(formula: Callable[..., Any]) -> Claim:
        made = claim(**declared)(formula)
        MISTAKES.append(Mistake(made, codes, source))
        return made

    return add


def reals(text: str) -> dict[str, Any]:
    """Real inputs from text: ``x:N,D g:D t`` is a matrix, a vector, a scalar."""
    pairs = [word.partition(":") for word in text.split()]
    return {name: real(*filter(None, sizes.split(","))) for name, _, sizes in pairs}


EPS = 1e-5


def batch_norm(x, gamma, dout):
    mean = x.mean(0)
    return jnp.sum(dout * (gamma * (x - mean) / jnp.sqrt(jnp.mean((x - mean) ** 2, 0) + EPS)))


BN = {"of": batch_norm, "wrt": "x", "inputs": reals("x:N,D gamma:D dout:N,D")}


def bn_parts(x, gamma, dout):
    centred = x - x.mean(0)
    inverse = 1 / jnp.sqrt(jnp.mean(centred**2, 0) + EPS)
    return centred * inverse, inverse, dout * gamma


@wrong(
    "statistic_constant",
    "cs231n batchnorm_backward, statistics of the mini-batch as constants",
    **BN,
)
def batch_norm_statistics_held(x, gamma, dout):
    _, inverse, d = bn_parts(x, gamma, dout)
    return d * inverse


@wrong("statistic_constant|missing_term", "stats.stackexchange 328242: mean path forgotten", **BN)
def batch_norm_mean_held(x, gamma, dout):
    h, inverse, d = bn_parts(x, gamma, dout)
    return inverse * (d - h * jnp.mean(d * h, 0))


@wrong(
    "statistic_constant|missing_term", "stats.stackexchange 328242: variance path forgotten", **BN
)
def batch_norm_variance_held(x, gamma, dout):
    _, inverse, d = bn_parts(x, gamma, dout)
    return inverse * (d - jnp.mean(d, 0))


@wrong("wrong_constant", "datascience 10741: the backward pass recomputes 1/sqrt(var)", **BN)
def batch_norm_without_eps(x, gamma, dout):
    centred = x - x.mean(0)
    inverse = 1 / jnp.sqrt(jnp.mean(centred**2, 0))
    h, d = centred * inverse, dout * gamma
    return inverse * (d - jnp.mean(d, 0) - h * jnp.mean(d * h, 0))


@wrong("factor|wrong_value", "divides by the variance, not by the deviation", **BN)
def batch_norm_by_the_variance(x, gamma, dout):
    h, inverse, d = bn_parts(x, gamma, dout)
    return inverse**2 * (d - jnp.mean(d, 0) - h * jnp.mean(d * h, 0))


@wrong(
    "extra_mean|factor",
    "dgamma as a mean over the batch",
    of=batch_norm,
    wrt="gamma",
    inputs=reals("x:N,D gamma:D dout:N,D"),
)
def batch_norm_gamma_mean(x, gamma, dout):
    h, _, _ = bn_parts(x, gamma, dout)
    return jnp.mean(dout * h, 0)


def layer_norm(x, gamma, beta, dout):
    centred = x - x.mean(-1, keepdims=True)
    h = centred / jnp.sqrt(jnp.var(x, -1, keepdims=True) + EPS)
    return jnp.sum(dout * (gamma * h + beta))


LN = {"of": layer_norm, "wrt": "x", "inputs": reals("x:N,D gamma:D beta:D dout:N,D")}


def ln_parts(x):
    inverse = 1 / jnp.sqrt(jnp.var(x, -1, keepdims=True) + EPS)
    return (x - x.mean(-1, keepdims=True)) * inverse, inverse


@wrong("factor", "llm.c issue 763, of layer norm: the weight is forgotten", **LN)
def layer_norm_without_gamma(x, gamma, beta, dout):
    h, inverse = ln_parts(x)
    mean = lambda a: jnp.mean(a, -1, keepdims=True)
    return inverse * (dout - mean(dout) - h * mean(dout * h))


@wrong("wrong_axis", "the means of batch norm, copied into layer norm", **LN)
def layer_norm_means_over_the_batch(x, gamma, beta, dout):
    h, inverse = ln_parts(x)
    d = dout * gamma
    mean = lambda a: jnp.mean(a, 0, keepdims=True)
    return inverse * (d - mean(d) - h * mean(d * h))


def rms_norm(x, weight, dout):
    return jnp.sum(dout * (weight * (x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS))))


RMS = {"of": rms_norm, "wrt": "x", "inputs": reals("x:N,D weight:D dout:N,D")}


@wrong("factor", "llm.c pull 763 (azret): forgot to multiply by the weight", **RMS)
def rms_norm_without_weight(x, weight, dout):
    inverse = 1 / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)
    h = x * inverse
    return inverse * (dout - h * jnp.mean(dout * h, -1, keepdims=True))


@wrong("missing_mean|factor", "the sum of g h for its mean", **RMS)
def rms_norm_sum_for_mean(x, weight, dout):
    inverse = 1 / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)
    h, d = x * inverse, dout * weight
    return inverse * (d - h * jnp.sum(d * h, -1, keepdims=True))


@wrong(
    "wrong_value|missing_term|factor",
    "quack pull 53: (dres + dout) through the norm",
    of=lambda x, r, dres, dout: (
        jnp.sum(dres * (x + r)) + jnp.sum(dout * (x + r) / jnp.sqrt(jnp.mean((x + r) ** 2) + EPS))
    ),
    wrt="x",
    inputs=reals("x:D r:D dres:D dout:D"),
)
def prenorm_residual_through_the_norm(x, r, dres, dout):
    s = x + r
    inverse = 1 / jnp.sqrt(jnp.mean(s**2) + EPS)
    d = dres + dout
    return inverse * (d - s * inverse * jnp.mean(d * s * inverse))


@wrong(
    "factor|wrong_constant|fixed_size",
    "ddof=1 in the backward pass, ddof=0 before",
    of=lambda x, dout: jnp.sum(dout * x) / jnp.var(x),
    wrt="x",
    inputs=reals("x:n dout:n"),
)
def variance_by_n_minus_one(x, dout):
    v = jnp.var(x)
    return dout / v - jnp.sum(dout * x) / v**2 * 2 * (x - x.mean()) / (x.size - 1)


@wrong(
    "statistic_constant|normaliser_constant",
    "weight normalisation, ||v|| held constant",
    of=lambda v, g, x, dout: jnp.sum(dout * (g * v / jnp.linalg.norm(v)) * x),
    wrt="v",
    inputs=reals("v:d g x:d dout:d"),
)
def weight_norm_direction_held(v, g, x, dout):
    return g * dout * x / jnp.linalg.norm(v)


@wrong(
    "factor|wrong_value",
    "x x^T / n^2 where n^3 belongs",
    of=lambda x, dout: dout @ (x / jnp.sqrt(jnp.sum(x**2))),
    wrt="x",
    inputs=reals("x:d dout:d"),
)
def normalised_square_for_cube(x, dout):
    n = jnp.sqrt(jnp.sum(x**2))
    return dout / n - x * (x @ dout) / n**2


def triplet(a, p, n, margin):
    return jnp.mean(relu(jnp.sum((a - p) ** 2, -1) - jnp.sum((a - n) ** 2, -1) + margin))


@wrong(
    "missing_term|wrong_value",
    "luhaofang/tripletloss issue 41",
    of=triplet,
    wrt=("a", "p", "n"),
    inputs=reals("a:N,D p:N,D n:N,D") | {"margin": positive()},
)
def triplet_positive_without_itself(a, p, n, margin):
    on = jnp.sum((a - p) ** 2, -1) - jnp.sum((a - n) ** 2, -1) + margin > 0
    scale = 2 * on[:, None] / len(a)
    return scale * (n - p), -scale * a, scale * (a - n)


@wrong(
    "factor|wrong_value",
    "caffe contrastive_loss_layer, 1/d forgotten",
    of=lambda a, b, margin: relu(margin - jnp.sqrt(jnp.sum((a - b) ** 2))) ** 2,
    wrt="a",
    inputs=reals("a:D b:D") | {"margin": positive()},
)
def contrastive_without_the_distance(a, b, margin):
    d = jnp.sqrt(jnp.sum((a - b) ** 2))
    return -2 * relu(margin - d) * (a - b)


def multiclass_hinge(W, x, y):
    s = W @ x
    margins = relu(s - s[y] + 1)
    return jnp.sum(margins) - 1


@wrong(
    "missing_term",
    "cs231n svm_loss_naive: the row of the right class is forgotten",
    of=multiclass_hinge,
    wrt="W",
    inputs={"W": real("C", "D"), "x": real("D"), "y": label("C")},
)
def hinge_without_the_right_class(W, x, y):
    s = W @ x
    on = (s - s[y] + 1 > 0) * (1.0 - one_hot(y, len(s)))
    return jnp.outer(on, x)


@wrong(
    "missing_term|statistic_constant",
    "Imbalance-XGBoost issue 1: the modulating factor is constant",
    of=lambda z: -((1 - sigmoid(z)) ** 2) * jnp.log(sigmoid(z)),
    wrt="z",
    inputs=reals("z"),
)
def focal_modulation_held(z):
    p = sigmoid(z)
    return -((1 - p) ** 3)


@wrong(
    "factor",
    "liuyuisanai/Focal-Loss: alpha forgotten",
    of=lambda z, alpha: jnp.sum(alpha * (-((1 - sigmoid(z)) ** 2) * jnp.log(sigmoid(z)))),
    wrt="z",
    inputs={"z": real("n"), "alpha": positive("n")},
)
def focal_without_alpha(z, alpha):
    p = sigmoid(z)
    return 2 * (1 - p) ** 2 * p * jnp.log(p) - (1 - p) ** 3


@wrong(
    "wrong_constant|wrong_value",
    "label smoothing forgotten in the gradient",
    of=lambda z, y: -jnp.sum((0.9 * y + 0.1 / y.size) * jax.nn.log_softmax(z)),
    wrt="z",
    inputs={"z": real("C"), "y": one_hots("C")},
)
def label_smoothing_forgotten(z, y):
    return softmax(z) - y


def huber(w, x, y, delta):
    r = x @ w - y
    small = jnp.abs(r) <= delta
    return jnp.sum(jnp.where(small, r**2 / 2, delta * (jnp.abs(r) - delta / 2)))


@wrong(
    "factor",
    "the outer branch of the Huber loss without delta",
    of=huber,
    wrt="w",
    inputs=reals("w:D x:N,D y:N") | {"delta": positive()},
)
def huber_without_delta(w, x, y, delta):
    r = x @ w - y
    return jnp.where(jnp.abs(r) <= delta, r, jnp.sign(r)) @ x


@wrong(
    "factor|missing_term",
    "Poisson regression, the exposure is left out",
    of=lambda w, x, y, e: jnp.mean(e * jnp.exp(x @ w) - y * (x @ w)),
    wrt="w",
    inputs=reals("w:D x:N,D y:N") | {"e": positive("N")},
)
def poisson_without_exposure(w, x, y, e):
    return (jnp.exp(x @ w) - y) @ x / len(y)


@wrong(
    "factor",
    "the derivative by the variance, where the parameter is the deviation",
    of=lambda s, r: jnp.sum(jnp.log(s**2) / 2 + r**2 / (2 * s**2)),
    wrt="s",
    inputs={"s": positive("n"), "r": real("n")},
)
def gaussian_by_the_variance(s, r):
    v = s**2
    return 1 / (2 * v) - r**2 / (2 * v**2)


@wrong(
    "wrong_constant|factor|wrong_value",
    "PyTorch-VAE issue 69, BayesianCompressionForDL issue 1",
    of=lambda mu, logstd: -0.5 * jnp.sum(1 + 2 * logstd - mu**2 - jnp.exp(2 * logstd)),
    wrt="logstd",
    inputs=reals("mu:d logstd:d"),
)
def kl_log_variance_for_log_deviation(mu, logstd):
    return -1 + jnp.exp(logstd)


@wrong(
    "factor",
    "d z / d logvar without 1/2",
    of=lambda mu, logvar, eps, dz: jnp.sum(dz * (mu + eps * jnp.exp(logvar / 2))),
    wrt=("mu", "logvar"),
    inputs=reals("mu:d logvar:d eps:d dz:d"),
)
def reparametrisation_without_half(mu, logvar, eps, dz):
    return dz, dz * eps * jnp.exp(logvar / 2)


@wrong(
    "factor",
    "distiller issue 122, Hinton's T: T^2 (p - q)",
    of=lambda z, q, T: -(T**2) * jnp.sum(q * jax.nn.log_softmax(z / T)),
    wrt="z",
    inputs={"z": real("C"), "q": simplex("C"), "T": positive()},
)
def distillation_without_inner_temperature(z, q, T):
    return T**2 * (softmax(z / T) - q)


@wrong(
    "sign",
    "the derivative by the temperature",
    of=lambda z, T: logsumexp(z / T),
    wrt="T",
    inputs=reals("z:C") | {"T": positive()},
)
def temperature_sign(z, T):
    return softmax(z / T) @ z / T**2


@wrong(
    "factor",
    "InfoNCE without 1/tau",
    of=lambda a, k, tau: logsumexp(k @ a / tau) - k[0] @ a / tau,
    wrt=("a", "k"),
    inputs=reals("a:D k:N,D") | {"tau": positive()},
)
def info_nce_without_temperature(a, k, tau):
    d = softmax(k @ a / tau) - one_hot(0, len(k))
    return d @ k, jnp.outer(d, a)


def cosine(a, b):
    return a @ b / (jnp.sqrt(a @ a) * jnp.sqrt(b @ b))


@wrong(
    "statistic_constant|normaliser_constant|missing_term",
    "honnibal.dev, pytorch 123294: norms constant",
    of=cosine,
    wrt="a",
    inputs=reals("a:d b:d"),
)
def cosine_norms_held(a, b):
    return b / (jnp.sqrt(a @ a) * jnp.sqrt(b @ b))


@wrong(
    "factor|wrong_value",
    "math.stackexchange 1923613, ||a|| for ||a||^2",
    of=cosine,
    wrt="a",
    inputs=reals("a:d b:d"),
)
def cosine_norm_for_square(a, b):
    return b / (jnp.sqrt(a @ a) * jnp.sqrt(b @ b)) - cosine(a, b) * a / jnp.sqrt(a @ a)


@wrong(
    "factor",
    "class weights used in the loss only",
    of=lambda z, y, w: -jnp.sum(jnp.sum(y * w, -1) * jnp.sum(y * jax.nn.log_softmax(z), -1)),
    wrt="z",
    inputs={"z": real("N", "C"), "y": one_hots("N", "C"), "w": positive("C")},
)
def class_weight_forgotten(z, y, w):
    return softmax(z) - y


@wrong(
    "factor|wrong_value|extra_mean",
    "a masked mean, divided by the length",
    of=lambda x, t, m: jnp.sum(m * (x - t) ** 2) / (jnp.sum(m) + 1),
    wrt="x",
    inputs=reals("x:n t:n") | {"m": binary("n")},
)
def masked_mean_by_the_length(x, t, m):
    return 2 * m * (x - t) / x.size


@wrong(
    "wrong_axis",
    "path scores normalised over labels, not over paths",
    of=lambda s, g: jnp.sum(g * logsumexp(s, 0)),
    wrt="s",
    inputs=reals("s:P,L g:L"),
)
def paths_normalised_over_labels(s, g):
    return g * softmax(s, 1)


@wrong(
    "factor|missing_term",
    "pos_weight of BCEWithLogits on one of the terms",
    of=lambda z, y, c: jnp.sum(c * y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z)),
    wrt="z",
    inputs={"z": real("n"), "y": binary("n"), "c": positive()},
)
def positive_weight_forgotten(z, y, c):
    return sigmoid(z) - y


@wrong(
    "factor|missing_term|wrong_value",
    "p - y for targets that do not sum to 1",
    of=lambda z, y: -jnp.sum(y * jax.nn.log_softmax(z)),
    wrt="z",
    inputs=reals("z:C y:C"),
)
def targets_not_summing_to_one(z, y):
    return softmax(z) - y


@wrong(
    "statistic_constant|normaliser_constant|missing_term",
    "Dice loss, the denominator constant",
    of=lambda p, t: 1 - 2 * jnp.sum(p * t) / (jnp.sum(p) + jnp.sum(t)),
    wrt="p",
    inputs={"p": positive("n"), "t": positive("n")},
)
def dice_denominator_held(p, t):
    return -2 * t / (jnp.sum(p) + jnp.sum(t))


@wrong(
    "symmetric_part",
    "Turner, Differentiation of functions of covariance matrices",
    of=lambda X: jnp.sum(jnp.sin(X) * jnp.cos(X).T),
    wrt="X",
    inputs=reals("X:n,n"),
)
def derivative_by_a_symmetric_matrix(X):
    G = jnp.cos(X) * jnp.cos(X).T - jnp.sin(X) * jnp.sin(X).T
    return G + G.T - jnp.diag(jnp.diag(G))


@wrong(
    "symmetric_part",
    "Matrix Cookbook (81) read as 2 A x",
    of=lambda A, x, b: x @ A @ x - b @ x,
    wrt="x",
    inputs=reals("A:n,n x:n b:n"),
)
def quadratic_form_as_if_symmetric(A, x, b):
    return 2 * A @ x - b


@wrong(
    "transpose|wrong_value|symmetric_part",
    "Matrix Cookbook (61) without the transposes",
    of=lambda X, a, b: a @ jnp.linalg.inv(X + 9 * jnp.eye(len(X))) @ b,
    wrt="X",
    inputs=reals("X:n,n a:n b:n"),
)
def inverse_without_transposes(X, a, b):
    Y = jnp.linalg.inv(X + 9 * jnp.eye(len(X)))
    return -Y @ jnp.outer(a, b) @ Y


@wrong(
    "factor|normaliser_constant|missing_term|statistic_constant",
    "Frobenius norm, not squared: 2 forgotten root",
    of=lambda X, A, B: jnp.sqrt(jnp.sum((A @ X - B) ** 2)),
    wrt="X",
    inputs=reals("X:m,k A:n,m B:n,k"),
)
def frobenius_norm_as_half_square(X, A, B):
    return A.T @ (A @ X - B)


@wrong(
    "symmetric_part",
    "tr(X^T A X) by X",
    of=lambda X, A: jnp.trace(X.T @ A @ X),
    wrt="X",
    inputs=reals("X:n,k A:n,n"),
)
def trace_as_if_symmetric(X, A):
    return 2 * A @ X


@wrong(
    "factor",
    "RBF kernel by the length scale, 1/l^2 for 1/l^3",
    of=lambda l, x, y, g: g * jnp.exp(-jnp.sum((x - y) ** 2) / (2 * l**2)),
    wrt="l",
    inputs=reals("x:d y:d g") | {"l": positive()},
)
def rbf_length_scale(l, x, y, g):
    d = jnp.sum((x - y) ** 2)
    return g * jnp.exp(-d / (2 * l**2)) * d / l**2


def attention(q, k, v, dout):
    return jnp.sum(dout * (softmax(q @ k.T / jnp.sqrt(q.shape[1])) @ v))


ATT = {"of": attention, "inputs": reals("q:Q,d k:K,d v:K,e dout:Q,e")}


@wrong("factor", "leetgpu 302: dK without the scale", wrt=("q", "k", "v"), **ATT)
def attention_keys_without_scale(q, k, v, dout):
    p, scale = softmax(q @ k.T / jnp.sqrt(q.shape[1])), 1 / jnp.sqrt(q.shape[1])
    dp = dout @ v.T
    ds = p * (dp - jnp.sum(p * dp, -1, keepdims=True))
    return ds @ k * scale, ds.T @ q, p.T @ dout


@wrong("wrong_axis", "the sum of the softmax Jacobian over the queries", wrt="q", **ATT)
def attention_jacobian_over_queries(q, k, v, dout):
    p, scale = softmax(q @ k.T / jnp.sqrt(q.shape[1])), 1 / jnp.sqrt(q.shape[1])
    dp = dout @ v.T
    return p * (dp - jnp.sum(p * dp, 0, keepdims=True)) @ k * scale


@wrong(
    "missing_bias|missing_term",
    "the recomputed probabilities lack the position bias",
    of=lambda q, k, v, bias: softmax(k @ q + bias) @ v,
    wrt="q",
    inputs=reals("q:d k:S,d v:S bias:S"),
)
def attention_bias_forgotten(q, k, v, bias):
    p = softmax(k @ q)
    return (p * (v - p @ v)) @ k


@wrong(
    "factor",
    "the dropout mask on the probabilities, forgotten in dv",
    of=lambda q, k, v, m: jnp.sum((m * softmax(k @ q)) @ v),
    wrt="v",
    inputs=reals("q:d k:S,d v:S,e") | {"m": binary("S")},
)
def attention_dropout_forgotten(q, k, v, m):
    return jnp.outer(softmax(k @ q), jnp.ones(v.shape[1]))


def lstm_cell(ai, af, ao, ag, c, dh):
    new = sigmoid(af) * c + sigmoid(ai) * jnp.tanh(ag)
    return jnp.sum(dh * sigmoid(ao) * jnp.tanh(new))


LSTM = {
    "of": lstm_cell,
    "wrt": ("ai", "af", "ao", "ag"),
    "inputs": reals("ai:h af:h ao:h ag:h c:h dh:h"),
}


def lstm_backward(
    ai,
    af,
    ao,
    ag,
    c,
    dh,
    slope=lambda s: s * (1 - s),
    output_slope=lambda s: s * (1 - s),
    tanh_slope=lambda new: 1 - jnp.tanh(new) ** 2,
):
    i, f, o, g = sigmoid(ai), sigmoid(af), sigmoid(ao), jnp.tanh(ag)
    new = f * c + i * g
    dc = dh * o * tanh_slope(new)
    return (
        dc * g * slope(i),
        dc * c * slope(f),
        dh * jnp.tanh(new) * output_slope(o),
        dc * i * (1 - g**2),
    )


@wrong("activation_derivative_missing", "math.stackexchange 3532490: o (1 - o) is missing", **LSTM)
def lstm_output_gate(ai, af, ao, ag, c, dh):
    return lstm_backward(ai, af, ao, ag, c, dh, output_slope=lambda s: 1.0)


@wrong("activation_derivative_wrong_argument", "tanh of tanh: the cache holds tanh(c)", **LSTM)
def lstm_tanh_of_tanh(ai, af, ao, ag, c, dh):
    return lstm_backward(
        ai, af, ao, ag, c, dh, tanh_slope=lambda new: 1 - jnp.tanh(jnp.tanh(new)) ** 2
    )


@wrong(
    "activation_derivative_wrong_argument", "one helper sigmoid'(s) on values of a sigmoid", **LSTM
)
def lstm_slope_of_values(ai, af, ao, ag, c, dh):
    twice = lambda s: sigmoid(s) * (1 - sigmoid(s))
    return lstm_backward(ai, af, ao, ag, c, dh, slope=twice, output_slope=twice)


def gru_cell(h, az, W, ah, dh):
    z = sigmoid(az)
    return jnp.sum(dh * ((1 - z) * h + z * jnp.tanh(ah + W @ h)))


@wrong(
    "sign",
    "GRU: h - h~ for h~ - h",
    of=gru_cell,
    wrt="az",
    inputs=reals("h:n az:n W:n,n ah:n dh:n"),
)
def gru_update_gate(h, az, W, ah, dh):
    z = sigmoid(az)
    return dh * (h - jnp.tanh(ah + W @ h)) * z * (1 - z)


@wrong(
    "factor",
    "GRU: the reset gate is forgotten on the way to h",
    of=lambda h, r, W, dh: jnp.sum(dh * jnp.tanh(W @ (r * h))),
    wrt="h",
    inputs=reals("h:n r:n W:m,n dh:m"),
)
def gru_reset_gate(h, r, W, dh):
    return (dh * (1 - jnp.tanh(W @ (r * h)) ** 2)) @ W


@wrong(
    "missing_term",
    "Graves and Schmidhuber 2005: the recurrent path is dropped",
    of=lambda W, x, h: jnp.sum(jnp.tanh(W @ jnp.tanh(W @ h + x) + x)),
    wrt="W",
    inputs=reals("W:n,n x:n h:n"),
)
def truncated_through_time(W, x, h):
    first = jnp.tanh(W @ h + x)
    return jnp.outer(1 - jnp.tanh(W @ first + x) ** 2, first)


def adam(w, g, m, v, lr, b1, b2):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return w - lr * (m / (1 - b1)) / (jnp.sqrt(v / (1 - b2)) + 1e-8)


ADAM = {
    "of": adam,
    "wrt": "w",
    "kind": "update",
    "inputs": reals("w:n g:n m:n")
    | {"v": positive("n"), "lr": positive(), "b1": simplex(2), "b2": simplex(2)},
}
ADAM["of"] = lambda w, g, m, v, lr, b1, b2: adam(w, g, m, v, lr, b1[0], b2[0])


@wrong(
    "factor|wrong_value|missing_bias", "ML-From-Scratch issue 35: no bias correction of m", **ADAM
)
def adam_without_correction(w, g, m, v, lr, b1, b2):
    m, v = b1[0] * m + (1 - b1[0]) * g, b2[0] * v + (1 - b2[0]) * g**2
    return w - lr * m / (jnp.sqrt(v / (1 - b2[0])) + 1e-8)


@wrong(
    "factor|wrong_l2|wrong_value",
    "tensorli issue 1: decay without the learning rate",
    of=lambda w, u, lr, wd: w - lr * u - lr * (wd * w),
    wrt="w",
    kind="update",
    inputs=reals("w:n u:n") | {"lr": positive(), "wd": positive()},
)
def decay_without_learning_rate(w, u, lr, wd):
    return w - lr * u - wd * w


@wrong(
    "missing_term|factor|missing_bias",
    "momentum: the old velocity is left out",
    of=lambda w, g, vel, lr, mu: w - lr * (mu * vel + g),
    wrt="w",
    kind="update",
    inputs=reals("w:n g:n vel:n") | {"lr": positive(), "mu": positive()},
)
def momentum_left_out(w, g, vel, lr, mu):
    return w - lr * g


@wrong(
    "missing_term",
    "tied embeddings: the gradient of the output side alone",
    of=lambda E, a, b, g: g @ jnp.tanh(E @ jnp.tanh(E.T @ a)) + b @ E @ b,
    wrt="E",
    inputs=reals("E:n,n a:n b:n g:n"),
)
def tied_embedding_one_side(E, a, b, g):
    h = jnp.tanh(E.T @ a)
    d = g * (1 - jnp.tanh(E @ h) ** 2)
    return jnp.outer(d, h) + jnp.outer(b, b)


@wrong(
    "factor",
    "token embeddings scaled by sqrt(d), the gradient without",
    of=lambda E, y, g: g @ jnp.tanh(E[y] * jnp.sqrt(E.shape[1])),
    wrt="E",
    inputs={"E": real("V", "d"), "y": label("V"), "g": real("d")},
)
def embedding_scale_forgotten(E, y, g):
    slope = g * (1 - jnp.tanh(E[y] * jnp.sqrt(E.shape[1])) ** 2)
    return jnp.zeros_like(E).at[y].add(slope)


@wrong(
    "factor|missing_term|wrong_value",
    "PyDeepFlow pull 89: GELU, phi(x) for x phi(x)",
    of=lambda x, g: jnp.sum(g * x * jax.scipy.stats.norm.cdf(x)),
    wrt="x",
    inputs=reals("x:n g:n"),
)
def gelu_without_x(x, g):
    return g * (jax.scipy.stats.norm.cdf(x) + jax.scipy.stats.norm.pdf(x))


@wrong(
    "activation_derivative_wrong_argument|wrong_value",
    "mlpack pull 1540: y + alpha with y = x",
    of=lambda x, g: jnp.sum(g * jnp.where(x > 0, x, jnp.exp(x) - 1)),
    wrt="x",
    inputs=reals("x:n g:n"),
)
def elu_of_the_argument(x, g):
    return g * jnp.where(x > 0, 1, x + 1)


@wrong(
    "exchanged",
    "unsloth issue 3314: de and dg stored the wrong way round",
    of=lambda e, g, d: jnp.sum(d * e * sigmoid(e) * g),
    wrt=("e", "g"),
    inputs=reals("e:n g:n d:n"),
)
def swiglu_exchanged(e, g, d):
    s = sigmoid(e)
    return d * e * s, d * g * s * (1 + e * (1 - s))


@wrong(
    "factor",
    "numpy-ml issue 94: the mask is not applied",
    of=lambda x, W, m: jnp.sum(jnp.tanh(W @ (m * x / 0.8))),
    wrt="x",
    inputs=reals("x:n W:k,n") | {"m": binary("n")},
)
def dropout_without_mask(x, W, m):
    return (1 - jnp.tanh(W @ (m * x / 0.8)) ** 2) @ W / 0.8


@wrong(
    "missing_mean|factor",
    "mlpack pull 2865: mean pooling not divided by the window",
    of=lambda x, g: jnp.sum(g * jnp.mean(x, 1)),
    wrt="x",
    inputs=reals("x:n,k g:n"),
)
def mean_pooling_without_mean(x, g):
    return jnp.broadcast_to(g[:, None], x.shape)


@wrong(
    "wrong_value|wrong_axis|transpose",
    "NN_Test issue 2: the kernel is not rotated",
    of=lambda x, w, g: g @ jnp.convolve(x, w, mode="valid"),
    wrt="x",
    inputs={"x": real(6), "w": real(3), "g": real(4)},
)
def convolution_without_rotation(x, w, g):
    return jnp.convolve(g, w)


def mlp(W1, b1, W2, b2, x):
    return jnp.sum(jnp.sin(W2 @ sigmoid(W1 @ x + b1) + b2))


MLP = {"of": mlp, "wrt": ("W1", "b1", "W2", "b2"), "inputs": reals("W1:h,d b1:h W2:k,h b2:k x:d")}


@wrong("missing_bias", "cs231n two-layer network, the hidden layer recomputed without b1", **MLP)
def mlp_hidden_bias_forgotten(W1, b1, W2, b2, x):
    h = sigmoid(W1 @ x)
    d2 = jnp.cos(W2 @ h + b2)
    d1 = d2 @ W2 * h * (1 - h)
    return jnp.outer(d1, x), d1, jnp.outer(d2, h), d2


@wrong(
    "activation_derivative_twice",
    "P (1 - P) on top of P - y",
    of=lambda w, x, y: jnp.mean(jax.nn.softplus(x @ w) - y * (x @ w)),
    wrt="w",
    inputs=reals("w:D x:N,D") | {"y": binary("N")},
)
def logistic_slope_too_many(w, x, y):
    p = sigmoid(x @ w)
    return ((p - y) * p * (1 - p)) @ x / len(y)


@wrong(
    "fixed_size",
    "gradient of a mean, the 4 samples of the example in the code",
    of=lambda w, x, y: jnp.mean((x @ w - y) ** 2),
    wrt="w",
    inputs=reals("w:D x:N,D y:N"),
)
def four_samples(w, x, y):
    return 2 / 4 * (x @ w - y) @ x


@wrong(
    "factor",
    "PReLU: the derivative by the slope over all x",
    of=lambda a, x, g: jnp.sum(g * jnp.where(x > 0, x, a * x)),
    wrt="x",
    inputs=reals("a x:n g:n"),
)
def leaky_slope_squared(a, x, g):
    return g * jnp.where(x > 0, 1, a**2)


def _halves() -> tuple[list[Mistake], list[Mistake]]:
    shuffled = random.Random(16).sample(MISTAKES, len(MISTAKES))
    half = len(shuffled) // 2
    return shuffled[:half], shuffled[half:]


DEVELOPING, HELD_OUT = _halves()
