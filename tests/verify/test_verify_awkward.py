"""Right formulas that are easily refuted, and wrong ones that easily pass or are misread."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnn.verify import Claim, binary, claim, one_hot, positive, real, simplex, verify

TRIALS = 300
VECTOR = {"x": real("n")}


def made(
    of: Callable,
    formula: Callable,
    inputs: dict,
    wrt: str | tuple[str, ...] = "x",
    kind: Any = "gradient",
    **more,
) -> Claim:
    return claim(of=of, wrt=wrt, kind=kind, inputs=inputs)(formula)


def ridge_with_bias(w, b, x, y, strength):
    return jnp.mean((x @ w + b - y) ** 2) / 2 + strength / 2 * jnp.sum(w**2)


RIDGE = {"w": real("d"), "b": real(), "x": real("n", "d"), "y": real("n"), "strength": positive()}
DISTRIBUTIONS = {"p": simplex("n"), "q": simplex("n")}
TARGETS = {"w": real("n"), "y": real("n")}


def half_squares(w, y):
    return (w - y) @ (w - y) / 2


RIGHT = {
    "a derivative that is infinite on the simplex's border": made(
        lambda p, q: jnp.sum((jnp.sqrt(p) - jnp.sqrt(q)) ** 2),
        lambda p, q: 1 - jnp.sqrt(q) / jnp.sqrt(p),
        DISTRIBUTIONS,
        "p",
    ),
    "logarithms of probabilities that are zero": made(
        lambda p, q: jnp.sum(p * jnp.log(p / q)),
        lambda p, q: jnp.log(p / q) + 1,
        DISTRIBUTIONS,
        "p",
    ),
    "a linear solver": made(
        lambda a, x: x @ jnp.linalg.solve(a + 10 * jnp.eye(3), x),
        lambda a, x: sum(
            jnp.linalg.solve(b + 10 * jnp.eye(3), x) for b in (a, jnp.swapaxes(a, 0, 1))
        ),
        {"a": real(3, 3), "x": real(3)},
    ),
    "a truth value for a number": made(lambda x: jnp.sum(jax.nn.relu(x)), lambda x: x > 0, VECTOR),
    "truth values": made(lambda x: x > 0, lambda x: ~(x <= 0), VECTOR, (), "value"),
    "random numbers of a fixed key": made(
        lambda x: jnp.sum(x * jax.random.normal(jax.random.key(0), (4,))),
        lambda x: jax.random.normal(jax.random.key(0), (4,)),
        {"x": real(4)},
    ),
    "values beyond float64's range": made(
        lambda x: jnp.sum((jnp.exp(x) - 1) ** 2),
        lambda x: 2 * jnp.exp(2 * x) - 2 * jnp.exp(x),
        VECTOR,
    ),
    "a loop without a reverse mode": made(
        lambda x: jnp.sum(
            jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]
        ),
        lambda x: jnp.cos(jnp.sin(x)) * jnp.cos(x),
        VECTOR,
    ),
    "a logarithm of 1 - p where 1200 bits do not suffice": made(
        lambda z, y: jnp.logaddexp(0, z) - y * z,
        lambda z, y: -y * jnp.log(jax.nn.sigmoid(z)) - (1 - y) * jnp.log(1 - jax.nn.sigmoid(z)),
        {"z": real(), "y": binary()},
        (),
        "value",
    ),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_right_formula_is_not_refuted_for(what):
    verdict = verify(RIGHT[what], trials=TRIALS)
    assert verdict.holds, verdict


def test_probabilities_next_to_nothing_stay_probabilities_beside_the_point():
    likelihood = made(
        lambda p, y: -jnp.log(jnp.prod(p**y)),
        lambda p, y: -jnp.sum(y * jnp.log(p)),
        {"p": simplex("n", "c"), "y": one_hot("n", "c")},
        (),
        "value",
    )
    for seed in (9, 12, 15):
        assert verify(likelihood, trials=1000, seed=seed).holds


WRONG = {
    "right for three only": made(lambda x: jnp.mean(x**2), lambda x: 2 * x / 3, VECTOR),
    "right up to four": made(lambda x: jnp.mean(x**2), lambda x: 2 * x / min(len(x), 4), VECTOR),
    "wrong between 100 and 700": made(
        lambda x: jnp.sum(x**2), lambda x: jnp.where((x < -100) & (x > -700), 0, 2 * x), VECTOR
    ),
    "wrong beyond 37": made(
        lambda x: jnp.sum(x**3), lambda x: jnp.where(x > 37, 0, 3 * x**2), VECTOR
    ),
    "wrong in the eighth digit": made(
        lambda x: jnp.sum(x**2), lambda x: 2 * x * (1 + 1e-8), VECTOR
    ),
    "not a number for half of the inputs": made(
        lambda x: jnp.sum(x**2), lambda x: 2 * jnp.exp(jnp.log(x)), VECTOR
    ),
    "wrong where a step jumps": made(
        lambda x: jnp.where(x >= 0, 1.0, 0.0), lambda x: (x > 0) * 1.0, VECTOR, (), "value"
    ),
}


NAMED = {
    "right for three only": {"fixed_size"},
    "wrong in the eighth digit": {"factor", "unknown"},
}
"""Names that fit some of them."""


@pytest.mark.parametrize("what", WRONG)
def test_a_formula_is_refuted_with_a_counterexample_that_is(what):
    for seed in range(3):
        verdict = verify(WRONG[what], trials=TRIALS, seed=seed)
        assert verdict.verdict == "refuted"
        assert verdict.counterexample is not None
        assert verdict.worst is not None
        assert verdict.worst.claimed != verdict.worst.true
        assert {finding.code for finding in verdict.diagnosis} <= NAMED.get(what, {"unknown"})


MISREAD = {
    "the step for the new parameter": (
        made(half_squares, lambda w, y, rate: rate * (w - y), TARGETS | {"rate": positive()}, "w",
             "update"),
        {"unknown"},
    ),
    "a bias that was forgotten, for a penalty": (
        made(
            ridge_with_bias,
            lambda w, b, x, y, strength: (
                x.T @ (x @ w + b - y) / len(y) + strength * w,
                jnp.mean(x @ w - y),
            ),
            RIDGE,
            ("w", "b"),
        ),
        {"missing_bias"},
    ),
    "a term that was forgotten, for a penalty": (
        made(
            lambda x, y, c: c * jnp.sum((x - y) ** 2) / 2,
            lambda x, y, c: -c * y,
            {"x": real("n"), "y": real("n"), "c": positive()},
        ),
        {"missing_term"},
    ),
    "sigma' for sigma, for two mistakes that fit by luck": (
        made(
            lambda x: jnp.sum(x * jax.nn.sigmoid(x)),
            lambda x: jax.nn.sigmoid(x) + x * jax.nn.sigmoid(x),
            VECTOR,
        ),
        {"unknown"},
    ),
    "a branch that is rarely taken, for a wrong value": (
        made(
            lambda z, y: jnp.sum(jax.nn.softplus(z) - y * z),
            lambda z, y: jnp.where(jnp.all(y > 0), 0, jax.nn.sigmoid(z) - y),
            {"z": real("n"), "y": real("n")},
            "z",
        ),
        {"unknown"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISREAD)
def test_a_mistake_is_not_taken(what):
    claimed, codes = MISREAD[what]
    verdict = verify(claimed, trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert {finding.code for finding in verdict.diagnosis} <= codes
