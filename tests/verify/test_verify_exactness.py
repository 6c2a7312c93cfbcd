"""Verdicts that are proofs: enclosures decide what rounding, ties and cancellation hide."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy
from jax import lax
from samples import made

from jaxnn.verify import claim, one_hot, positive, real, simplex, verify
from jaxnn.verify.comparison import evaluate, trace_claim
from jaxnn.verify.exact import interpreter
from jaxnn.verify.exact.balls import precision
from jaxnn.verify.exact.judge import _constrained
from jaxnn.verify.verification import _proven, describe

TRIALS = 300


def judged(claimed) -> Any:
    """The verdict on a claim; its optional fields are known to be there."""
    return verify(claimed, trials=TRIALS)


def verdict(formula, **declaration) -> Any:
    return judged(made(formula, **declaration))


REGRESSION = {"t": real("d"), "x": real("n", "d"), "u": real("n")}


def loss_of_labels_made_from_reals(t, x, u):
    return jnp.sum(jnp.logaddexp(0.0, x @ t) - (u > 0) * (x @ t))


def test_an_input_that_no_derivative_is_taken_by_makes_no_kink():
    found = verdict(
        lambda t, x, u: x.T @ (jax.nn.sigmoid(x @ t) - (u > 0)),
        of=loss_of_labels_made_from_reals,
        wrt="t",
        inputs=REGRESSION,
    )
    assert found.verdict == "holds"


def test_a_jump_along_the_parameter_itself_is_a_kink():
    found = verdict(
        lambda t, x, u: jnp.where(t > 0, 1.0, 0.0),
        of=lambda t, x, u: jnp.sum(jax.nn.relu(t)),
        wrt="t",
        inputs=REGRESSION,
    )
    assert found.verdict == "kink"


def minimum(x, y, a):
    return jnp.linalg.solve(x.T @ x + a * jnp.eye(x.shape[1]), x.T @ y)


def ridge(w, x, y, a):
    return jnp.sum((x @ w - y) ** 2) / 2 + a * (w @ w) / 2


RIDGE = {"x": real("n", "d"), "y": real("n"), "a": positive()}


def test_a_gradient_that_vanishes_everywhere_by_cancellation_holds():
    found = verdict(
        lambda x, y, a: jnp.zeros(x.shape[1]),
        of=lambda x, y, a: jax.grad(ridge)(minimum(x, y, a), x, y, a),
        kind="value",
        wrt=(),
        inputs=RIDGE,
    )
    assert (found.verdict, found.diagnosis) == ("holds", ())


def test_nearly_zero_is_not_zero():
    found = verdict(
        lambda x, y, a: jnp.full(x.shape[1], 1e-12),
        of=lambda x, y, a: jax.grad(ridge)(minimum(x, y, a), x, y, a),
        kind="value",
        wrt=(),
        inputs=RIDGE,
    )
    assert found.verdict == "refuted"


def windowed(x, g):
    return jnp.sum(g * lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"))


def reshaped(x, g):
    return jnp.sum(g * jnp.max(x.reshape(-1, 2), axis=1))


def first_of_the_largest(x, g):
    pairs = x.reshape(-1, 2)
    return (jax.nn.one_hot(jnp.argmax(pairs, axis=1), 2) * g[:, None]).ravel()


@pytest.mark.parametrize("of", [windowed, reshaped])
def test_a_max_pool_with_ties_is_a_kink_however_the_pool_is_written(of):
    inputs = {"x": real(6), "g": real(3)}
    assert verdict(first_of_the_largest, of=of, inputs=inputs).verdict == "kink"


def network(w, v, x, y):
    return jnp.sum((v @ jax.nn.sigmoid(w @ x) - y) ** 2) / 2


def network_gradient(w, v, x, y):
    h = jax.nn.sigmoid(w @ x)
    return jnp.outer((v.T @ (v @ h - y)) * h * (1 - h), x)


AS_AUTODIFF = {
    "the Jacobian of the textbook": made(
        lambda x: jnp.diag(jax.nn.softmax(x)) - jnp.outer(jax.nn.softmax(x), jax.nn.softmax(x)),
        of=lambda x: jax.nn.softmax(x),
        kind="jacobian",
    ),
    "p - y": made(
        lambda x, y: jax.nn.softmax(x) - y,
        of=lambda x, y: -jnp.sum(y * jax.nn.log_softmax(x)),
        inputs={"x": real("n"), "y": one_hot("n")},
    ),
    "a network of sigmoids": made(
        network_gradient,
        of=network,
        wrt="w",
        inputs={"w": real("h", "d"), "v": real("k", "h"), "x": real("d"), "y": real("k")},
    ),
}


@pytest.mark.parametrize("name", AS_AUTODIFF)
def test_a_formula_that_cancels_as_autodiff_does_is_not_unstable(name):
    found = judged(AS_AUTODIFF[name])
    assert found.verdict == "holds"
    assert found.bits_lost > 26.5
    assert found.autodiff_bits_lost > found.bits_lost - 16


def test_the_textbook_softmax_without_a_shift_is_unstable():
    found = verdict(
        lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x)), of=jax.nn.softmax, kind="value", wrt=()
    )
    assert found.verdict == "holds_unstable"
    assert found.detail.startswith("float64 gives nan")


def test_a_formula_that_loses_bits_where_autodiff_does_not_is_unstable():
    found = verdict(
        lambda x: (jnp.sqrt(x**2 + 1) - jnp.abs(x)) * 1.0,
        of=lambda x: 1 / (jnp.sqrt(x**2 + 1) + jnp.abs(x)),
        kind="value",
        wrt=(),
    )
    assert found.verdict == "holds_unstable"
    assert "where JAX's own derivative loses" in found.detail


def test_a_refutation_is_proved_by_a_bound_of_the_difference():
    claimed = made(lambda x: 3 * x**2 + jnp.exp(-(x**2)) / 8, of=lambda x: jnp.sum(x**3))
    found = judged(claimed)
    x = sympy.Rational(float(found.counterexample.inputs["x"][found.worst.index]))
    difference = float((sympy.exp(-(x**2)) / 8).evalf(30))
    assert found.verdict == "refuted"
    assert 0.999999 * difference < found.worst.at_least <= difference
    assert "proved: they differ by at least" in describe(found)


def test_a_refutation_without_an_enclosure_is_by_float64():
    claimed = made(
        lambda x: -jnp.nextafter(x, 0.0), of=lambda x: jnp.nextafter(x, 0.0), kind="value", wrt=()
    )
    found = judged(claimed)
    assert (found.verdict, found.worst.at_least) == ("refuted", None)
    assert "by float64" in describe(found)


def test_the_bound_is_no_bound_where_formula_and_reference_agree():
    claimed = made(lambda x: 3 * x**2, of=lambda x: jnp.sum(x**3))
    wrong = verdict(lambda x: 2 * x**2, of=lambda x: jnp.sum(x**3))
    with jax.enable_x64(True):
        assert _proven(claimed, wrong.worst, wrong.counterexample) is None


@pytest.mark.parametrize("factor", [2, 3])
def test_complex_numbers_between_real_ends(factor):
    found = verdict(
        lambda x: factor * len(x) * x, of=lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2)
    )
    assert found.verdict == ("holds" if factor == 2 else "refuted")


def test_a_limit_at_a_point_where_the_formula_is_not_a_number_is_called_a_limit():
    found = verdict(
        lambda x: x / jnp.sqrt(jnp.sum(x**2)), of=lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-20)
    )
    assert found.verdict == "refuted"
    zero = not np.any(found.counterexample.inputs["x"])
    assert not zero or np.isnan(found.worst.claimed)


def halvings(x):
    """How often |x_0| can be halved: a loop that ends in float64 alone, by underflow."""
    halved = lax.while_loop(
        lambda s: s[0] > 0, lambda s: (s[0] / 2, s[1] + 1), (jnp.abs(x[0]), 0.0)
    )
    return halved[1]


@pytest.mark.parametrize(("more", "expected"), [(0, "holds"), (1, "refuted")])
def test_a_loop_without_an_end_on_exact_numbers_leaves_float64_to_judge(
    more, expected, monkeypatch
):
    monkeypatch.setattr(interpreter, "MOST_STEPS", 100)
    found = verdict(lambda x: halvings(x) + more, of=halvings, kind="value", wrt=())
    assert found.verdict == expected
    assert found.certificate is None


def test_a_claim_too_large_for_exact_numbers_is_judged_in_float64():
    found = verdict(
        lambda a, b: 2 * (a @ b) @ b.T,
        of=lambda a, b: jnp.sum((a @ b) ** 2),
        wrt="a",
        inputs={"a": real(120, 120), "b": real(120, 120)},
    )
    assert found.verdict == "holds"
    assert "exact numbers take 4,000,000" in found.detail
    assert found.certificate is None


def test_the_entry_of_a_kink_is_one_with_two_slopes():
    found = verdict(
        lambda x: 1.0 * (x <= jnp.sort(x)[9]),
        of=lambda x: jnp.sum(jnp.sort(x)[:10]),
        inputs={"x": real(30)},
    )
    below, above = found.worst.one_sided
    assert found.verdict == "kink"
    assert below != above


def test_probabilities_have_a_sum_of_exactly_one_in_balls():
    third = np.full(3, 1 / 3)
    thirds = np.stack([third, np.array([0.1, 0.2, 0.7])], axis=1)
    with precision(4096):
        exactly = _constrained(thirds, simplex("C", "N", axis=0))
        assert exactly.sum(axis=0).tolist() == [1, 1]
    np.testing.assert_allclose(exactly.astype(float), thirds, rtol=1e-15)


def test_a_time_limit_leaves_the_least_number_of_trials():
    claimed = made(lambda x: 3 * x**2, of=lambda x: jnp.sum(x**3))
    with jax.enable_x64(True):
        traced = trace_claim(claimed, (("n", 3),))._replace(chunk=4)
        done = evaluate(traced, [np.ones((40, 3))], seconds=0.0, least=10)
    assert len(done.finite) == len(done.reference[0]) == 12


@pytest.mark.parametrize("axis", [0, 1])
def test_the_gradient_of_products_over_an_axis_holds(axis):
    # Autodiff of a product reshapes and moves axes in one operation.
    def others(w):
        n = w.shape[axis]
        rest = [jnp.prod(jnp.delete(w, i, axis), axis) for i in range(n)]
        return jnp.stack(rest, axis)

    made = claim(
        of=lambda w: jnp.sum(jnp.prod(w, axis)), wrt="w", kind="gradient",
        inputs={"w": real("n", 3) if axis else real(3, "n")},
    )(others)  # fmt: skip
    assert verify(made, trials=200).words == "holds, certified"
