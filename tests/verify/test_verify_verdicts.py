"""The six verdicts: what each of them is said of, and with which evidence."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import (
    TRIALS,
    cross_entropy,
    cubes,
    made,
    textbook_softmax,
    verdict_on,
    weighted,
    weighted_by_w,
)

from jaxnn.verify import positive, real, simplex, verify

PROBABILITIES = {"z": real("n"), "y": simplex("n")}


def jacobian_of_softmax(x):
    p = jax.nn.softmax(x)
    return jnp.diag(p) - jnp.outer(p, p)


def raises(x):
    raise RuntimeError("no such derivative")


SOFTMAX = {"of": lambda x: jax.nn.softmax(x), "kind": "value", "wrt": ()}
RELU = {"of": lambda x: jnp.sum(jax.nn.relu(x))}
GRADIENT_BY_W = {"of": weighted, "wrt": "w", "inputs": {"w": real("out", "in"), "x": real("in")}}

VERDICTS = {
    "p - y": (
        "holds",
        made(lambda z, y: jax.nn.softmax(z) - y, of=cross_entropy, wrt="z", inputs=PROBABILITIES),
    ),
    "the softmax with a shift": (
        "holds",
        made(lambda x: jnp.exp(x - x.max()) / jnp.sum(jnp.exp(x - x.max())), **SOFTMAX),
    ),
    "the softmax of the textbook": ("holds_unstable", made(textbook_softmax, **SOFTMAX)),
    "the Jacobian of the textbook": (
        "holds",
        made(jacobian_of_softmax, of=lambda x: jax.nn.softmax(x), kind="jacobian"),
    ),
    "1 - cos x": (
        "holds_unstable",
        made(lambda x: 1 - jnp.cos(x), kind="value", wrt=(), of=lambda x: 2 * jnp.sin(x / 2) ** 2),
    ),
    "2 sin^2 of half of x": (
        "holds",
        made(lambda x: 2 * jnp.sin(x / 2) ** 2, kind="value", wrt=(), of=lambda x: 1 - jnp.cos(x)),
    ),
    "softplus, stable": (
        "holds",
        made(
            lambda x: -jnp.logaddexp(0.0, x),
            of=lambda x: jnp.log(1 - jax.nn.sigmoid(x)),
            kind="value",
            wrt=(),
        ),
    ),
    "transposed": ("holds_other_layout", made(lambda w, x: weighted_by_w(w, x).T, **GRADIENT_BY_W)),
    "relu": ("kink", made(lambda x: (x > 0) * 1.0, **RELU)),
    "abs": ("kink", made(lambda x: jnp.sign(x), of=lambda x: jnp.sum(jnp.abs(x)))),
    "max": ("kink", made(lambda x: jax.nn.one_hot(jnp.argmax(x), len(x)), of=lambda x: jnp.max(x))),
    "wrong sign": ("refuted", made(lambda x: -3 * x**2, of=cubes)),
    "wrong for negative numbers": (
        "refuted",
        made(lambda x: jnp.where(x < 0, x, 2 * x), of=lambda x: jnp.sum(x**2)),
    ),
    "undefined for negative numbers": (
        "refuted",
        made(lambda x: 2 * jnp.exp(jnp.log(x)), of=lambda x: jnp.sum(x**2)),
    ),
    "right for positive numbers": (
        "holds",
        made(
            lambda x: 2 * jnp.exp(jnp.log(x)),
            of=lambda x: jnp.sum(x**2),
            inputs={"x": positive("n")},
        ),
    ),
    "wrong at one dominant": (
        "refuted",
        made(lambda x: jnp.where(x > 37, 0.0, 3 * x**2), of=cubes),
    ),
    "wrong by a millionth": ("refuted", made(lambda x: 3.000003 * x**2, of=cubes)),
    "x^2 / x": ("holds_unstable", made(lambda x: x**2 / x, of=lambda x: x, kind="value", wrt=())),
    "sin(x) / x": (
        "holds_unstable",
        made(lambda x: jnp.sin(x) / x, of=lambda x: jnp.sinc(x / jnp.pi), kind="value", wrt=()),
    ),
    "0 for sin(x) / x at 0": (
        "refuted",
        made(
            lambda x: jnp.where(x == 0, 0, jnp.sinc(x / jnp.pi)),
            of=lambda x: jnp.sinc(x / jnp.pi),
            kind="value",
            wrt=(),
        ),
    ),
    "an exception": ("error", made(raises, of=cubes)),
    "the gradient of a vector": ("error", made(lambda x: 3 * x**2, of=lambda x: x**3)),
}


@pytest.mark.parametrize("what", VERDICTS)
def test_the_verdict_is(what):
    expected, claimed = VERDICTS[what]
    judged = verify(claimed, trials=TRIALS)
    assert judged.verdict == expected
    assert judged.holds is (expected not in ("refuted", "error", "holds_other_layout"))
    assert judged.trials == (0 if expected == "error" else TRIALS)
    assert judged.kind == claimed.kind
    assert judged.seconds > 0


def test_unstable_means_that_float64_fails_at_the_stated_input():
    judged = verify(VERDICTS["the softmax of the textbook"][1], trials=TRIALS)
    assert judged.counterexample is not None
    assert judged.worst is not None
    z = np.asarray(judged.counterexample.inputs["x"])
    with np.errstate(all="ignore"):
        value = np.exp(z) / np.sum(np.exp(z))
    assert not np.all(np.isfinite(value))
    assert judged.bits_lost == 53
    right = np.exp(z - z.max()) / np.sum(np.exp(z - z.max()))
    assert judged.worst.true == pytest.approx(right[judged.worst.index])


def test_what_holds_says_how_many_bits_it_loses():
    judged = verify(VERDICTS["p - y"][1], trials=TRIALS)
    assert judged.bits_lost is not None
    assert 0 <= judged.bits_lost < 53 / 2


KINKS = {"relu": (0, 1), "abs": (-1, 1), "max": (0, 1)}


@pytest.mark.parametrize("what", KINKS)
def test_a_kink_is_shown_with_both_one_sided_derivatives(what):
    judged = verify(VERDICTS[what][1], trials=TRIALS)
    assert judged.worst is not None
    assert judged.counterexample is not None
    assert judged.worst.one_sided == KINKS[what]
    x = np.asarray(judged.counterexample.inputs["x"])
    at_kink = np.sum(x == x.max()) > 1 if what == "max" else np.any(x == 0)
    assert at_kink
    below, above = KINKS[what]
    assert f"{below} from one side, {above} from the other" in judged.detail


def test_an_exception_is_named_with_its_line():
    judged = verify(VERDICTS["an exception"][1], trials=TRIALS)
    line = inspect.getsourcelines(raises)[1] + 1
    assert judged.detail == (
        f"RuntimeError: no such derivative (line {line} of test_verify_verdicts.py)"
    )


def test_an_exception_in_the_function_itself_is_told_apart():
    judged = verdict_on(lambda x: 3 * x**2, of=raises)
    assert judged.verdict == "error"
    assert judged.detail.startswith("of: RuntimeError: no such derivative")
