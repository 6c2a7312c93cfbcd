"""Claims about expectations, 30 right and 60 biased, and how many are held and refuted.

``PYTHONPATH=. python tests/verify/expected_values.py [--only TEXT]`` verifies every claim. Exit
status 0 when every right claim holds, every biased one is refuted, and each takes 20 seconds at
most, by the clock or, on a busy machine, of the processors.
"""

# ruff: noqa: N803

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, sigmoid, softmax

from jaxnn.verify import (
    Claim,
    Verdict,
    bernoulli,
    categorical,
    claim,
    expectation,
    interval,
    minibatch,
    permutation,
    positive,
    real,
    sampled,
    verify,
)

SECONDS = 20.0
"""The most seconds of a claim."""


class Case(NamedTuple):
    """A claim about an expectation."""

    claim: Claim
    right: bool
    seconds: float = 0.0
    verdict: Verdict | None = None

    @property
    def as_expected(self) -> bool:
        """Whether a right claim holds, or a biased one is refuted, in time."""
        if self.verdict is None or self.seconds > SECONDS:
            return False
        return self.verdict.holds if self.right else self.verdict.verdict == "refuted"


CASES: list[Case] = []


def add(
    name: str,
    of: Callable[..., Any],
    over: dict[str, Any] | None,
    inputs: dict[str, Any],
    right: Callable[..., Any],
    *wrong: Callable[..., Any],
    **declared: Any,
) -> None:
    """Adds a claim whose formula is the mean of an estimator, or is plain, and the biased ones."""
    for place, estimator in enumerate((right, *wrong)):
        formula = expectation(estimator, over=over) if over else estimator
        made = claim(**({"of": of, "kind": "value", "inputs": inputs} | declared))(formula)
        object.__setattr__(made, "name", f"{name}{f', biased {place}' if place else ''}")
        CASES.append(Case(made, not place))


def score(logits, index):
    """The gradient of log softmax(logits)[index]."""
    return jnp.eye(len(logits))[index] - softmax(logits)


# Masks

KEPT = {"x": real("n"), "keep": interval(0.1, 1)}
MASK = {"mask": bernoulli("keep", shape="x")}

add(
    "dropout",
    lambda x: x,
    MASK,
    KEPT,
    lambda x, mask, keep: mask * x / keep,
    lambda x, mask: mask * x,
    lambda x, mask, keep: mask * x / (1 - keep),
)
add(
    "gradient through dropout",
    lambda w, x: jnp.tanh(w) @ x,
    MASK,
    KEPT | {"w": real("n")},
    lambda w, x, mask, keep: (1 - jnp.tanh(w) ** 2) * mask * x / keep,
    lambda w, x, mask: (1 - jnp.tanh(w) ** 2) * mask * x,
    lambda w, x, mask, keep: (1 - jnp.tanh(w) ** 2) * mask**2 * x / keep**2,
    kind="gradient",
    wrt="w",
)
add(
    "dropout is a penalty",
    expectation(lambda w, x, y, mask, keep: (y - w @ (mask * x / keep)) ** 2, over=MASK),
    None,
    KEPT | {"w": real("n"), "y": real()},
    lambda w, x, y, keep: (y - w @ x) ** 2 + (1 - keep) / keep * jnp.sum(w**2 * x**2),
    lambda w, x, y, keep: (y - w @ x) ** 2 + keep / (1 - keep) * jnp.sum(w**2 * x**2),
    lambda w, x, y: (y - w @ x) ** 2,
)
add(
    "Horvitz-Thompson",
    lambda x: jnp.sum(x),
    {"mask": bernoulli("p", shape="x")},
    {"x": real("n"), "p": interval(0.1, 1, "n")},
    lambda x, p, mask: jnp.sum(mask * x / p),
    lambda x, mask: len(x) * jnp.sum(mask * x) / jnp.maximum(jnp.sum(mask), 1),
    lambda x, p, mask: jnp.sum(mask * x) / jnp.mean(p),
)
add(
    "Hutchinson's trace",
    lambda A: jnp.trace(A),
    {"mask": bernoulli(0.5, shape=lambda A: A.shape[:1])},
    {"A": real("n", "n")},
    lambda A, mask: (2 * mask - 1) @ A @ (2 * mask - 1),
    lambda A, mask: mask @ A @ mask,
    lambda A, mask: (2 * mask - 1) @ A @ (2 * mask - 1) / len(A),
)
add(
    "dropout of 20 units",
    lambda x: jnp.mean(x),
    {"mask": bernoulli("keep", shape=20)},
    {"x": real(20), "keep": interval(0.1, 1)},
    lambda x, mask, keep: jnp.mean(mask * x) / keep,
    lambda x, mask: jnp.mean(mask * x),
    lambda x, mask: jnp.sum(mask * x) / jnp.maximum(1, jnp.sum(mask)) * 20 / 19,
)

# Rounding

UP = {"up": bernoulli(lambda x: x - jnp.floor(x), shape="x")}

add(
    "stochastic rounding",
    lambda x: x,
    UP,
    {"x": real("n")},
    lambda x, up: jnp.floor(x) + up,
    lambda x, up: jnp.floor(x) + 1 - up,
    lambda x, up: jnp.ceil(x) + up,
)
add(
    "quantised gradient",
    lambda x: x,
    {"on": bernoulli(lambda x: jnp.abs(x) / jnp.sqrt(jnp.sum(x**2)), shape="x")},
    {"x": real("n")},
    lambda x, on: jnp.sqrt(jnp.sum(x**2)) * jnp.sign(x) * on,
    lambda x, on: jnp.sign(x) * on,
    lambda x, on: jnp.sqrt(jnp.sum(x**2)) * on,
)

# Actions

POLICY = {"a": categorical(lambda theta: softmax(theta))}
ACTING = {"theta": real("C"), "r": real("C")}


def of_policy(name, over, right, *wrong, **more):
    """Adds claims of the gradient of the expected reward."""
    declared = {"kind": "gradient", "wrt": "theta"}
    add(name, lambda theta, r: softmax(theta) @ r, over, ACTING | more, right, *wrong, **declared)


of_policy(
    "REINFORCE",
    POLICY,
    lambda theta, r, a: r[a] * score(theta, a),
    lambda theta, r, a: -r[a] * score(theta, a),
    lambda theta, r, a: r[a] * jnp.eye(len(theta))[a],
)
of_policy(
    "REINFORCE with a baseline",
    POLICY,
    lambda theta, r, b, a: (r[a] - b) * score(theta, a),
    lambda theta, r, b, a: (r[a] - b) * jnp.eye(len(theta))[a],
    lambda theta, r, b, a: (r[a] - b * r[a]) * score(theta, a),
    b=real(),
)
PAIR = {"a": categorical(lambda theta: softmax(theta), shape=2)}
of_policy(
    "leave-one-out baseline",
    PAIR,
    lambda theta, r, a: sum((r[a[i]] - r[a[1 - i]]) * score(theta, a[i]) for i in (0, 1)) / 2,
    lambda theta, r, a: sum((r[a[i]] - jnp.mean(r[a])) * score(theta, a[i]) for i in (0, 1)) / 2,
    lambda theta, r, a: sum((r[a[i]] - r[a[1 - i]]) * score(theta, a[i]) for i in (0, 1)),
)
of_policy(
    "expected policy gradient",
    {"a": categorical(lambda theta: jnp.ones(len(theta)) / len(theta))},
    lambda theta, r, a: len(theta) * softmax(theta)[a] * r[a] * score(theta, a),
    lambda theta, r, a: softmax(theta)[a] * r[a] * score(theta, a),
    lambda theta, r, a: r[a] * score(theta, a),
)
BEHAVIOUR = {"a": categorical(lambda q: softmax(q))}
add(
    "off-policy value",
    lambda theta, r: softmax(theta) @ r,
    BEHAVIOUR,
    ACTING | {"q": real("C")},
    lambda theta, q, r, a: softmax(theta)[a] / softmax(q)[a] * r[a],
    lambda r, a, q: r[a],
    lambda theta, q, r, a: softmax(q)[a] / softmax(theta)[a] * r[a],
)


def weights(theta, q, a):
    return (softmax(theta) / softmax(q))[a]


add(
    "importance weights of two draws",
    lambda theta, r: softmax(theta) @ r,
    {"a": categorical(lambda q: softmax(q), shape=2)},
    ACTING | {"q": real("C")},
    lambda theta, q, r, a: jnp.mean(weights(theta, q, a) * r[a]),
    lambda theta, q, r, a: weights(theta, q, a) @ r[a] / jnp.sum(weights(theta, q, a)),
    lambda theta, q, r, a: jnp.mean(weights(theta, q, a)) * jnp.mean(r[a]),
)
STEPS = {
    "a": categorical(lambda theta: softmax(theta)),
    "b": categorical(lambda theta, phi, a: softmax(theta + phi[a])),
}
add(
    "two dependent actions",
    expectation(lambda r, a, b: r[a, b], over=STEPS),
    STEPS,
    {"theta": real("C"), "phi": real("C", "C"), "r": real("C", "C")},
    lambda theta, phi, r, a, b: r[a, b] * (score(theta, a) + score(theta + phi[a], b)),
    lambda theta, r, a, b: r[a, b] * score(theta, a),
    lambda theta, phi, r, a, b: -r[a, b] * (score(theta, a) + score(theta + phi[a], b)),
    kind="gradient",
    wrt="theta",
)
add(
    "a Bernoulli latent",
    expectation(
        lambda w, z: jnp.exp(w @ z), over={"z": bernoulli(lambda t: sigmoid(t), shape="t")}
    ),
    {"z": bernoulli(lambda t: sigmoid(t), shape="t")},
    {"t": real("n"), "w": real("n")},
    lambda t, w, z: jnp.exp(w @ z) * (z - sigmoid(t)),
    lambda t, w, z: jnp.exp(w @ z) * w * sigmoid(t) * (1 - sigmoid(t)),  # straight through
    lambda w, z, t: jnp.exp(w @ z) * z,
    kind="gradient",
    wrt="t",
)

# Minibatches and orders

DATA = {"w": real("d"), "X": real("N", "d"), "t": real("N")}


def squares(w, X, t):
    return jnp.mean((X @ w - t) ** 2) / 2


def gradient(w, X, t, batch):
    return X[batch].T @ (X[batch] @ w - t[batch]) / len(batch)


add(
    "minibatch",
    squares,
    {"batch": minibatch("X", 2)},
    DATA,
    gradient,
    lambda w, X, t, batch: gradient(w, X, t, batch) * 2 / len(X),
    lambda w, X, t, batch: 2 * gradient(w, X, t, batch),
    kind="gradient",
    wrt="w",
)
add(
    "squared norm of the gradient",
    lambda w, X, t: jnp.sum(jax.grad(squares)(w, X, t) ** 2),
    {"one": minibatch("X", 1), "two": minibatch("X", 1)},
    DATA,
    lambda w, X, t, one, two: gradient(w, X, t, one) @ gradient(w, X, t, two),
    lambda w, X, t, one, two: jnp.sum(gradient(w, X, t, one) ** 2),
    lambda w, X, t, one, two: jnp.sum((gradient(w, X, t, one) + gradient(w, X, t, two)) ** 2) / 4,
)
add(
    "variance reduction",
    squares,
    {"batch": minibatch("X", 1)},
    DATA | {"v": real("d")},
    lambda w, v, X, t, batch: (
        gradient(w, X, t, batch) - gradient(v, X, t, batch) + gradient(v, X, t, jnp.arange(len(X)))
    ),
    lambda w, v, X, t, batch: gradient(w, X, t, batch) - gradient(v, X, t, batch),
    lambda w, v, X, t, batch: (
        gradient(w, X, t, batch)
        + gradient(v, X, t, batch)
        - gradient(v, X, t, jnp.arange(len(X)))
        + gradient(w, X, t, batch)
        - gradient(v, X, t, batch)
    ),
    kind="gradient",
    wrt="w",
)
add(
    "random coordinate",
    squares,
    {"i": categorical(lambda w: jnp.ones(len(w)) / len(w))},
    DATA,
    lambda w, X, t, i: len(w) * jnp.eye(len(w))[i] * jax.grad(squares)(w, X, t)[i],
    lambda w, X, t, i: jnp.eye(len(w))[i] * jax.grad(squares)(w, X, t)[i],
    lambda w, X, t, i: (len(w) - 1) * jnp.eye(len(w))[i] * jax.grad(squares)(w, X, t)[i],
    kind="gradient",
    wrt="w",
)
add(
    "variance without replacement",
    lambda x: jnp.var(x, ddof=1),
    {"batch": minibatch("x", 2)},
    {"x": real("N")},
    lambda x, batch: jnp.var(x[batch], ddof=1),
    lambda x, batch: jnp.var(x[batch]),
    lambda x, batch: jnp.sum((x[batch] - jnp.mean(x)) ** 2),
)
add(
    "variance with replacement",
    lambda x: jnp.var(x),
    {"batch": minibatch("x", 3, replace=True)},
    {"x": real("N")},
    lambda x, batch: jnp.sum((x[batch] - jnp.mean(x[batch])) ** 2) / 2,
    lambda x, batch: jnp.sum((x[batch] - jnp.mean(x[batch])) ** 2) / 3,
    lambda x, batch: jnp.sum((x[batch] - jnp.mean(x)) ** 2) / 2,
)
add(
    "the first of a random order",
    lambda x: jnp.mean(x),
    {"order": permutation("x")},
    {"x": real("n")},
    lambda x, order: jnp.mean(x[order[:2]]),
    lambda x, order: jnp.max(x[order[:2]]),
    lambda x, order: jnp.sum(x[order[:2]]),
)
NEGATIVE = {"j": categorical(lambda u: softmax(u), shape=2)}
add(
    "negative sampling",
    lambda s: jnp.sum(jnp.exp(s)),
    NEGATIVE,
    {"s": real("C"), "u": real("C")},
    lambda s, u, j: jnp.mean(jnp.exp(s[j]) / softmax(u)[j]),
    lambda s, u, j: len(s) * jnp.mean(jnp.exp(s[j])),
    lambda s, u, j: jnp.exp(jnp.mean(s[j] - log_softmax(u)[j])),
)

# Continuous outcomes

STANDARD = sampled(lambda key: jax.random.normal(key))
GAUSS = {"mu": real(), "sigma": interval(0.3, 1.5)}
Z = {"z": STANDARD}
X = {
    "x": sampled(
        lambda key, mu, sigma: mu + sigma * jax.random.normal(key),
        lambda outcome, mu, sigma: -jnp.log(sigma) - ((outcome - mu) / sigma) ** 2 / 2,
    )
}

add(
    "Monte Carlo",
    lambda mu, sigma: jnp.sin(mu) * jnp.exp(-(sigma**2) / 2),
    Z,
    GAUSS,
    lambda mu, sigma, z: jnp.sin(mu + sigma * z),
    lambda mu, sigma, z: jnp.sin(mu + sigma**2 * z),
    lambda mu, sigma, z: jnp.sin(mu) + 0 * z,
)
add(
    "reparametrised gradient",
    expectation(lambda x: jnp.sin(x), over=X),
    Z,
    GAUSS,
    lambda mu, sigma, z: jnp.cos(mu + sigma * z) * z,
    lambda mu, sigma, z: jnp.cos(mu + sigma * z),
    lambda mu, sigma, z: -jnp.cos(mu + sigma * z) * z,
    kind="gradient",
    wrt="sigma",
)
add(
    "score function",
    lambda mu, sigma: mu**2 + sigma**2,
    X,
    GAUSS,
    lambda mu, sigma, x: x**2 * (x - mu) / sigma**2,
    lambda mu, sigma, x: x**2 * (x - mu) / sigma,
    lambda mu, sigma, x: x**2 * x / sigma**2,
    kind="gradient",
    wrt="mu",
)
add(
    "variance of normal numbers",
    lambda mu, sigma: sigma**2 + 0 * mu,
    {"z": sampled(lambda key: jax.random.normal(key, (5,)))},
    GAUSS,
    lambda mu, sigma, z: jnp.var(mu + sigma * z, ddof=1),
    lambda mu, sigma, z: jnp.var(mu + sigma * z),
    lambda mu, sigma, z: jnp.sum((sigma * z) ** 2) / 4,
)
add(
    "importance sampling",
    lambda mu: jnp.sin(mu) * jnp.exp(-0.5),
    Z,
    {"mu": interval(-1, 1)},
    lambda mu, z: jnp.sin(z) * jnp.exp(mu * z - mu**2 / 2),
    lambda mu, z: jnp.sin(z),
    lambda mu, z: jnp.sin(z) * jnp.exp(mu * z),
)
add(
    "a larger one of two",
    lambda mu, sigma: mu + sigma / jnp.sqrt(jnp.pi),
    {"z": sampled(lambda key: jax.random.normal(key, (2,)))},
    GAUSS,
    lambda mu, sigma, z: jnp.max(mu + sigma * z),
    lambda mu, sigma, z: jnp.maximum(jnp.mean(mu + sigma * z), mu),
    lambda mu, sigma, z: jnp.mean(mu + sigma * jnp.abs(z)),
)
add(
    "mean of exponentials",
    lambda mu, sigma: jnp.exp(mu + sigma**2 / 2),
    {"z": sampled(lambda key: jax.random.normal(key, (2,)))},
    {"mu": real(), "sigma": interval(0.3, 1)},
    lambda mu, sigma, z: jnp.mean(jnp.exp(mu + sigma * z)),
    lambda mu, sigma, z: jnp.exp(mu + sigma * jnp.mean(z)),
    lambda mu, sigma, z: jnp.exp(mu) * jnp.mean(1 + sigma * z),
)
add(
    "evolution strategies",
    lambda w, sigma: w @ w + sigma**2 * len(w),
    {"e": sampled(lambda key, w: jax.random.normal(key, w.shape))},
    {"w": real("n"), "sigma": interval(0.3, 1)},
    lambda w, sigma, e: jnp.sum((w + sigma * e) ** 2) * e / sigma,
    lambda w, sigma, e: jnp.sum((w + sigma * e) ** 2) * e,
    lambda w, sigma, e: jnp.sum((w + sigma * e) ** 2) * e / sigma**2,
    kind="gradient",
    wrt="w",
)
add(
    "rate of exponential waiting times",
    lambda rate: rate,
    {"t": sampled(lambda key, rate: jax.random.exponential(key, (8,)) / rate)},
    {"rate": positive()},
    lambda t, rate: 7 / jnp.sum(t),
    lambda t, rate: 8 / jnp.sum(t),
    lambda t, rate: jnp.median(1 / t),
)
add(
    "the largest of perturbed logits",
    lambda s: softmax(s),
    {"g": sampled(lambda key, s: jax.random.gumbel(key, s.shape))},
    {"s": real("C")},
    lambda s, g: jnp.eye(len(s))[jnp.argmax(s + g)],
    lambda s, g: jnp.eye(len(s))[jnp.argmax(s + g / 2)],
    lambda s, g: softmax(s + g),
)


def judged(case: Case) -> Case:
    """The case with verdict and time."""
    began = time.perf_counter(), time.process_time()
    verdict = verify(case.claim, trials=1000)
    took = time.perf_counter() - began[0], time.process_time() - began[1]
    return case._replace(verdict=verdict, seconds=min(took))


def row(case: Case) -> str:
    """A line of the table."""
    assert case.verdict is not None
    codes = "+".join(finding.code for finding in case.verdict.diagnosis)
    said = " ".join(filter(None, [case.verdict.words, codes, case.verdict.detail[:60]]))
    mark = " " if case.as_expected else "!"
    how = "samples" if case.verdict.sampling else "sum"
    return f"{mark} {case.claim.name:45} {how:8} {case.seconds:5.1f} s  {said}"


def report(cases: Iterable[Case]) -> tuple[list[str], bool]:
    """The figures as lines, and whether all are as required."""
    done = list(cases)
    lines = []
    for how, right in (("right", True), ("biased", False)):
        some = [case for case in done if case.right is right]
        fine = sum(case.as_expected for case in some)
        slowest = max((case.seconds for case in some), default=0.0)
        mean = sum(case.seconds for case in some) / max(1, len(some))
        word = "held" if right else "refuted"
        times = f"{mean:.1f} s a claim, {slowest:.1f} s at most (required: {SECONDS:.0f} s)"
        lines.append(f"{how:7} {len(some):3}  {word} {fine:3}  {times}")
    return lines, all(case.as_expected for case in done)


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="only claims with this text in their name")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if arguments.only in case.claim.name]
    if not chosen:
        parser.error(f"--only is {arguments.only!r}, expected a part of a claim's name")
    done = []
    for case in chosen:
        done.append(judged(case))
        print(row(done[-1]), flush=True)
    lines, met = report(done)
    print("\n".join(["", *lines]))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
