"""Claims from use whose verdicts were wrong, each the smallest of its kind."""

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import TRIALS, made, verdict_on
from scipy import special

from jaxnn.verify import (
    assert_holds,
    binary,
    claim,
    interval,
    label,
    positive,
    positive_definite,
    real,
    symmetric,
    verify,
)
from jaxnn.verify.inputs import draw_sizes
from jaxnn.verify.shrinking import counterexample

FOUR = {name: real("n") for name in ("w", "b", "x", "y")}


def squared_error(w, b, x, y):
    return jnp.sum((w * x + b - y) ** 2)


def by_w_and_b(w, b, x, y):
    residual = 2 * (w * x + b - y)
    return residual * x, residual


class Named(NamedTuple):
    b: Any
    w: Any


@dataclasses.dataclass
class Record:
    b: Any
    w: Any


NAMED = {
    "a dict": lambda w, b: {"w": w, "b": b},
    "an ordered dict": lambda w, b: OrderedDict(b=b, w=w),
    "a NamedTuple": lambda w, b: Named(b, w),
    "a dataclass": lambda w, b: Record(b, w),
    "a tuple": lambda w, b: (w, b),
    "a list": lambda w, b: [w, b],
}


@pytest.mark.parametrize("what", NAMED)
def test_gradients_are_matched_by_the_names_of_their_parameters(what):
    def formula(w, b, x, y):
        return NAMED[what](*by_w_and_b(w, b, x, y))

    judged = verdict_on(formula, of=squared_error, wrt=("w", "b"), inputs=FOUR)
    assert judged.verdict == "holds"


def test_a_name_that_fits_two_parameters_is_refused():
    layers = {"p": {"w": real("n")}, "q": {"w": real("n")}}
    judged = verdict_on(
        lambda p, q: {"w": q["w"]},
        of=lambda p, q: jnp.sum(p["w"] * q["w"]),
        wrt=("p['w']", "q['w']"),
        inputs=layers,
    )
    assert judged.verdict == "error"
    assert "the formula returns the parts 'w', expected" in judged.detail


def test_exchanged_gradients_in_a_dict_are_refuted():
    def formula(w, b, x, y):
        return dict(zip("bw", by_w_and_b(w, b, x, y), strict=True))

    judged = verdict_on(formula, of=squared_error, wrt=("w", "b"), inputs=FOUR)
    assert judged.verdict == "refuted"


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda w, b: {"w": w, "bias": b}, "'bias', 'w'"),
        (lambda w, b: {"w": w}, "'w'"),
        (lambda w, b: {"w": w, "b": b, "x": b}, "'b', 'w', 'x'"),
    ],
)
def test_names_that_are_no_parameters_are_said_in_one_line(wrong, found):
    def formula(w, b, x, y):
        return wrong(*by_w_and_b(w, b, x, y))

    judged = verdict_on(formula, of=squared_error, wrt=("w", "b"), inputs=FOUR)
    assert judged.verdict == "error"
    assert judged.detail == f"ValueError: the formula returns the parts {found}, expected 'w', 'b'"


def test_a_named_tuple_is_matched_with_a_dict_of_parameters():
    def formula(params, x, y):
        w, b = by_w_and_b(params["w"], params["b"], x, y)
        return Named(w=w, b=b)

    judged = verdict_on(
        formula,
        of=lambda params, x, y: squared_error(**params, x=x, y=y),
        wrt="params",
        inputs={"params": {"w": real("n"), "b": real("n")}, "x": real("n"), "y": real("n")},
    )
    assert judged.verdict == "holds"


def test_a_path_is_matched_by_its_last_name():
    def formula(params, x, y):
        w, b = by_w_and_b(params["w"], params["b"], x, y)
        return {"b": b, "w": w}

    judged = verdict_on(
        formula,
        of=lambda params, x, y: squared_error(**params, x=x, y=y),
        wrt=("params['w']", "params['b']"),
        inputs={"params": {"w": real("n"), "b": real("n")}, "x": real("n"), "y": real("n")},
    )
    assert judged.verdict == "holds"


def test_a_hessian_is_matched_by_both_names():
    # sum_i u_i^2 v_i + sum_j v_j^3
    def formula(u, v):
        mixed = jnp.zeros((2, 3)).at[:, :2].set(jnp.diag(2 * u))
        return {
            "v": {"v": jnp.diag(6 * v), "u": mixed.T},
            "u": {"v": mixed, "u": jnp.diag(2 * v[:2])},
        }

    judged = verdict_on(
        formula,
        of=lambda u, v: jnp.sum(u**2 * v[:2]) + jnp.sum(v**3),
        wrt=("u", "v"),
        kind="hessian",
        inputs={"u": real(2), "v": real(3)},
    )
    assert judged.verdict == "holds"


# Domains


def log_of_determinant(a):
    return 2 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(a))))


def inverse(a):
    return jnp.linalg.inv((a + a.T) / 2)


def quadratic(a, x):
    return x @ a @ x


def masked(q, k, m):
    return jnp.where(m > 0, k @ q, -jnp.inf)


def of_masked(q, k, m):
    return jax.nn.logsumexp(masked(q, k, m))


MASKED = {"q": real("d"), "k": real("S", "d"), "m": binary("S")}

INSIDE = {
    "arccos on (-1, 1)": made(
        lambda x: -1 / jnp.sqrt(1 - x**2),
        of=lambda x: jnp.sum(jnp.arccos(x)),
        inputs={"x": interval(-1, 1, "n")},
    ),
    "arccos on all reals": made(
        lambda x: -1 / jnp.sqrt(1 - x**2), of=lambda x: jnp.sum(jnp.arccos(x))
    ),
    "log where only the formula is nan": made(
        lambda x: jnp.exp(-jnp.log(x)), of=lambda x: jnp.sum(jnp.log(x))
    ),
    "sqrt above an end": made(
        lambda x: 0.5 / jnp.sqrt(x - 3),
        of=lambda x: jnp.sum(jnp.sqrt(x - 3)),
        inputs={"x": interval(3, None, "n")},
    ),
    "log below an end": made(
        lambda x: 1 / (x + 2),
        of=lambda x: jnp.sum(jnp.log(-2 - x)),
        inputs={"x": interval(None, -2, "n")},
    ),
    "cholesky": made(inverse, of=log_of_determinant, wrt="a", inputs={"a": positive_definite("n")}),
    "A symmetric": made(
        lambda a, x: 2 * a @ x, of=quadratic, inputs={"a": symmetric("n"), "x": real("n")}
    ),
    "not all masked": made(
        lambda q, k, m: jax.nn.softmax(masked(q, k, m)) @ k,
        of=of_masked,
        wrt="q",
        inputs=MASKED,
        where=lambda m: jnp.any(m > 0),
    ),
    "x above y": made(
        lambda x, y: 1 / (x - y),
        of=lambda x, y: jnp.sum(jnp.log(x - y)),
        inputs={"x": real("n"), "y": real("n")},
        where=lambda x, y: x > y,
    ),
}


@pytest.mark.parametrize("what", INSIDE)
def test_a_formula_that_is_right_inside_its_domain_holds(what):
    judged = verify(INSIDE[what], trials=TRIALS)
    assert judged.holds, judged
    assert judged.trials == TRIALS


WRONG_INSIDE = {
    "arccos on all reals": made(
        lambda x: 1 / jnp.sqrt(1 - x**2), of=lambda x: jnp.sum(jnp.arccos(x))
    ),
    "cholesky": made(
        lambda a: 2 * inverse(a),
        of=log_of_determinant,
        wrt="a",
        inputs={"a": positive_definite("n")},
    ),
    "A symmetric": made(
        lambda a, x: a @ x, of=quadratic, inputs={"a": symmetric("n"), "x": real("n")}
    ),
    "A of any kind": made(
        lambda a, x: 2 * a @ x, of=quadratic, inputs={"a": real("n", "n"), "x": real("n")}
    ),
    "not all masked": made(
        lambda q, k, m: -jax.nn.softmax(masked(q, k, m)) @ k,
        of=of_masked,
        wrt="q",
        inputs=MASKED,
        where=lambda m: jnp.any(m > 0),
    ),
}


@pytest.mark.parametrize("what", WRONG_INSIDE)
def test_a_wrong_formula_is_refuted_by_an_input_inside_of_its_domain(what):
    worst, found = shortest(WRONG_INSIDE[what])
    point = found.inputs
    assert np.all(np.isfinite([worst.claimed, worst.true]))
    if what == "cholesky":
        assert np.all(np.linalg.eigvalsh(point["a"]) > 0)
    if what == "A symmetric":
        np.testing.assert_array_equal(point["a"], point["a"].T)
    if what == "not all masked":
        assert np.any(point["m"] > 0)
    if what == "arccos on all reals":
        assert np.all(np.abs(point["x"]) < 1)


def test_a_mistake_is_named_inside_of_the_domain():
    judged = verify(WRONG_INSIDE["arccos on all reals"], trials=TRIALS)
    assert [finding.code for finding in judged.diagnosis] == ["sign"]


def test_too_few_inputs_in_the_domain_are_an_error_that_says_how_to_declare_a_domain():
    judged = verdict_on(inverse, of=log_of_determinant, wrt="a", inputs={"a": real(7, 7)})
    assert (judged.verdict, judged.trials, judged.counterexample) == ("error", 0, None)
    assert judged.detail.startswith("0 of ")
    assert "positive_definite(...)" in judged.detail
    assert "where=" in judged.detail


def test_fewer_trials_than_asked_for_are_said():
    # One of 2^7 inputs drawn has 7 positive numbers, of 20 times 200: about 30.
    judged = verdict_on(
        lambda x: 0.5 / jnp.sqrt(x), of=lambda x: jnp.sum(jnp.sqrt(x)), inputs={"x": real(7)}
    )
    assert judged.holds
    assert 10 < judged.trials < 60
    assert judged.detail.startswith(f"{judged.trials} of ")
    assert judged.detail.endswith(" inputs drawn are in the domain")


def test_a_domain_that_larger_sizes_never_meet_is_said():
    """One of 64 inputs drawn has six positive numbers, one of 16,384 has fourteen."""
    judged = verdict_on(
        lambda x: 0.5 / jnp.sqrt(x),
        of=lambda x: jnp.sum(jnp.sqrt(x)),
        inputs={"x": real("n", 2)},
    )
    assert judged.holds
    assert "; at larger sizes 0 of " in judged.detail


def test_a_condition_that_nothing_satisfies_is_an_error():
    judged = verdict_on(lambda x: 3 * x**2, of=lambda x: jnp.sum(x**3), where=lambda x: x > jnp.inf)
    assert judged.verdict == "error"
    assert "are in the domain of `of` and satisfy where=" in judged.detail


def test_a_condition_that_raises_is_an_error_that_names_where():
    judged = verdict_on(
        lambda x: 3 * x**2, of=lambda x: jnp.sum(x**3), where=lambda x: bool(x[0] > 0)
    )
    assert judged.verdict == "error"
    assert judged.detail.startswith("where: ")


def test_a_formula_that_is_nan_where_the_function_is_not_is_refuted_with_an_input():
    judged = verdict_on(lambda x: 2 * jnp.exp(jnp.log(x)), of=lambda x: jnp.sum(x**2))
    assert judged.verdict == "refuted"
    assert judged.counterexample
    assert np.any(np.asarray(judged.counterexample.inputs["x"]) < 0)


# Time


def log_of_gram(w, s):
    return jnp.linalg.slogdet(w @ w.T + s**2 * jnp.eye(w.shape[0]))[1]


@pytest.mark.slow
def test_batches_of_matrices_are_judged_without_waiting_for_ever():
    judged = verify(
        made(
            lambda w, s: 2 * jnp.linalg.inv(w @ w.T + s**2 * jnp.eye(w.shape[0])) @ w,
            of=log_of_gram,
            wrt="w",
            inputs={"w": real("n", "m"), "s": positive()},
        )
    )
    assert judged.holds


def test_many_matrices_in_a_single_trial_are_judged_without_waiting_for_ever():
    def eye(w):
        return jnp.eye(w.shape[1])

    judged = verdict_on(
        lambda w: 2 * jnp.linalg.inv(w @ jnp.swapaxes(w, 1, 2) + eye(w)) @ w,
        of=lambda w: jnp.sum(jnp.linalg.slogdet(w @ jnp.swapaxes(w, 1, 2) + eye(w))[1]),
        wrt="w",
        inputs={"w": real(16, 2, 3)},
    )
    assert judged.holds


def test_convolutions_are_judged_at_ten_thousand_trials():
    judged = verify(
        made(
            lambda x, w, g: jnp.correlate(g, x, mode="valid"),
            of=lambda x, w, g: jnp.sum(g * jnp.convolve(x, w)),
            wrt="w",
            inputs={"x": real(5), "w": real(3), "g": real(7)},
            certify=False,
        )
    )
    assert (judged.holds, judged.trials) == (True, 10_000)
    assert judged.seconds < 30


@pytest.mark.slow
def test_a_slow_function_gets_fewer_trials_and_the_verdict_has_their_number():
    def steps(x):
        """x a, a = (1 + 1e-9)^2000."""
        return jax.lax.fori_loop(0, 2_000, lambda _, x: x * (1 + 1e-9), x)

    judged = verify(
        made(
            lambda x: jnp.ones_like(x) * steps(1.0),
            of=lambda x: jnp.sum(steps(x)),
            inputs={"x": real(40)},
            certify=False,
        ),
        trials=1_000_000,
    )
    assert judged.holds
    assert judged.trials < 1_000_000
    assert judged.seconds < 60


# Random keys and complex numbers


def dropout(x):
    return jax.random.bernoulli(jax.random.key(0), 0.8, x.shape)


WITH_KEYS = {
    "holds": lambda x, g: g * dropout(x) / 0.8,
    "refuted": lambda x, g: g * dropout(x),
}


@pytest.mark.parametrize("verdict", ["holds", pytest.param("refuted", marks=pytest.mark.slow)])
def test_a_random_key_in_formula_and_function_gets_a_verdict(verdict):
    judged = verdict_on(
        WITH_KEYS[verdict],
        of=lambda x, g: jnp.sum(g * x * dropout(x) / 0.8),
        inputs={"x": real("n"), "g": real("n")},
    )
    assert judged.verdict == verdict
    assert not any("failed" in finding.detail for finding in judged.diagnosis)


def test_a_random_key_inside_of_a_loop_gets_a_verdict():
    def draws(x, seed):
        def add(i, total):
            return total + jax.random.normal(jax.random.fold_in(jax.random.PRNGKey(3), i), x.shape)

        return seed + jax.lax.fori_loop(0, 3, add, jnp.zeros(x.shape))

    judged = verdict_on(
        draws,
        of=lambda x, seed: jnp.sum(x * draws(x, seed)),
        inputs={"x": real("n"), "seed": label(5)},
    )
    assert judged.verdict == "holds"


FOURIER = {
    "holds": lambda x: 2 * len(x) * x,  # Parseval: the sum of |fft x|^2 is n |x|^2
    "refuted": lambda x: 2 * x,
}


@pytest.mark.parametrize("verdict", FOURIER)
def test_complex_numbers_between_real_ends_get_a_verdict(verdict):
    judged = verdict_on(FOURIER[verdict], of=lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2))
    assert judged.verdict == verdict


def test_complex_values_are_refused_rather_than_cut_to_their_real_parts():
    judged = verdict_on(
        lambda x: jnp.conj(jnp.fft.fft(x)), of=lambda x: jnp.fft.fft(x).real, kind="value", wrt=()
    )
    assert judged.verdict == "error"
    assert "the formula returns complex numbers, expected real numbers" in judged.detail


# Layouts


def transposed(w, x, g):
    return jnp.outer(x, g * (1 - jnp.tanh(w @ x) ** 2))


TANH = {
    "of": lambda w, x, g: g @ jnp.tanh(w @ x),
    "wrt": "w",
    "inputs": {"w": real("n", "n"), "x": real("n"), "g": real("n")},
}


def test_a_transposed_gradient_by_a_square_matrix_fails_a_test_unless_declared():
    with pytest.raises(AssertionError, match="right up to the transpose"):
        assert_holds(made(transposed, **TANH), trials=TRIALS)
    assert_holds(made(transposed, layout="transpose", **TANH), trials=TRIALS)


# Counterexamples


def normalised(x):
    centred = x - x.mean(0)
    return centred / jnp.sqrt(jnp.mean(centred**2, 0) + 1e-5)


def statistics_held_constant(x, g):
    return g / jnp.sqrt(jnp.mean((x - x.mean(0)) ** 2, 0) + 1e-5)


def shortest(claimed):
    """The worst entry and the counterexample, without a diagnosis."""
    with jax.enable_x64(True):
        worst, found = counterexample(claimed, draw_sizes(claimed.inputs, 0), 0)
    assert worst
    assert found
    return worst, found


def test_a_batch_norm_is_refuted_by_examples_that_differ():
    """A batch of one, of two, or of equal examples has the gradient 0, or 316 in place of 0."""
    worst, found = shortest(
        made(
            statistics_held_constant,
            of=lambda x, g: jnp.sum(g * normalised(x)),
            inputs={"x": real("N", "D"), "g": real("N", "D")},
        )
    )
    assert found.sizes["N"] >= 2
    assert np.all(np.std(np.asarray(found.inputs["x"]), axis=0) > 0.1)
    assert 0.01 < max(abs(worst.true), abs(worst.claimed)) < 30


def test_a_softmax_is_refuted_by_two_classes_at_least():
    _, found = shortest(
        made(
            lambda z: jax.nn.softmax(z) * (1 - jax.nn.softmax(z)) ** 2,
            of=lambda z: jax.nn.softmax(z)[0],
            wrt="z",
            inputs={"z": real("C")},
        )
    )
    assert found.sizes["C"] >= 2


EPSILON = {
    "log(|x| + 1e-7)": (
        lambda x: jnp.sum(jnp.log(jnp.abs(x) + 1e-7)),
        lambda x: 1 / x,
        1e-4,
    ),
    "sqrt(x^2 + 1e-12)": (
        lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-12),
        lambda x: x / jnp.sqrt(jnp.sum(x**2)),
        1e-4,
    ),
    "sqrt(x^2 + 1e-20)": (
        lambda x: jnp.sqrt(jnp.sum(x**2) + 1e-20),
        lambda x: x / jnp.sqrt(jnp.sum(x**2)),
        1e-8,
    ),
}


@pytest.mark.parametrize("what", EPSILON)
def test_a_forgotten_epsilon_is_shown_at_a_small_input_where_both_values_are_numbers(what):
    of, formula, small = EPSILON[what]
    worst, found = shortest(made(formula, of=of))
    assert 0 < np.max(np.abs(found.inputs["x"])) < small
    claimed, true = worst.claimed, worst.true
    assert np.isfinite(claimed)
    assert np.isfinite(true)
    assert abs(claimed - true) > 0.01 * abs(true)


# Vector-Jacobian products


def test_a_backward_pass_is_claimed_as_it_is_written():
    @claim(of=jnp.tanh, wrt="x", kind="vjp", inputs={"x": real("n"), "dout": real("n")})
    def backward(x, dout):
        return dout / jnp.cosh(x) ** 2

    assert verify(backward, trials=TRIALS).holds
    assert backward.kind == "vjp"


def product_backward(w, x, dout):
    return {"x": dout @ w, "w": jnp.outer(dout, x)}


PRODUCT = {
    "of": lambda w, x: w @ x,
    "wrt": ("w", "x"),
    "kind": "vjp",
    "inputs": {"w": real("m", "n"), "x": real("n"), "dout": real("m")},
}


def test_a_backward_pass_by_several_parameters_holds_and_a_wrong_one_is_refuted():
    assert verdict_on(product_backward, **PRODUCT).verdict == "holds"
    wrong = verdict_on(lambda w, x, dout: (jnp.outer(dout, x), -dout @ w), **PRODUCT)
    assert (wrong.verdict, wrong.kind) == ("refuted", "vjp")
    assert {finding.code for finding in wrong.diagnosis} == {"sign"}


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"w": real("m", "n"), "x": real("n")}, "none"),
        ({"w": real("m", "n"), "x": real("n"), "dout": real("m"), "g": real("m")}, "dout, g"),
    ],
)
def test_a_backward_pass_needs_exactly_one_gradient_by_the_value(inputs, found):
    message = f"no parameters of `of`: {found}, expected exactly one"
    with pytest.raises(ValueError, match=message):
        made(lambda w, x: w, **(PRODUCT | {"inputs": inputs}))


def test_a_gradient_by_the_value_of_another_shape_is_said_in_one_line():
    inputs = PRODUCT["inputs"] | {"dout": real("n")}
    judged = verdict_on(product_backward, **(PRODUCT | {"inputs": inputs}))
    assert judged.verdict == "error"
    assert "dout has shape" in judged.detail
    assert "\n" not in judged.detail


# Right and wrong in floating point


def test_an_unstable_verdict_has_its_input():
    def mish_slope(x):
        e = jnp.exp(x)
        omega = 4 * (x + 1) + 4 * e**2 + e**3 + e * (4 * x + 6)
        return e * omega / (2 * e + e**2 + 2) ** 2

    judged = verdict_on(mish_slope, of=lambda x: jnp.sum(x * jnp.tanh(jnp.log1p(jnp.exp(x)))))
    assert judged.verdict == "holds_unstable"
    assert judged.counterexample
    assert judged.worst
    x = np.asarray(judged.counterexample.inputs["x"])[judged.worst.index]
    with np.errstate(all="ignore"):
        e = np.exp(x)
        naive = e * (4 * (x + 1) + 4 * e**2 + e**3 + e * (4 * x + 6)) / (2 * e + e**2 + 2) ** 2
    # mish'(x) = tanh(s) + x (1 - tanh(s)^2) sigmoid(x), s = softplus(x), which does not overflow
    tanh = np.tanh(np.logaddexp(0.0, x))
    right = tanh + x * (1 - tanh**2) * special.expit(x)
    assert not abs(naive - right) <= 1e-8 * max(1.0, abs(right))
    assert judged.worst.true == pytest.approx(right, abs=1e-12)


def test_a_forgotten_probability_of_an_interval_is_named_as_a_factor():
    judged = verdict_on(
        lambda x, keep: 3 * x**2,
        of=lambda x, keep: jnp.sum(x**3) / keep,
        inputs={"x": real("n"), "keep": interval(0, 1)},
    )
    assert [finding.code for finding in judged.diagnosis] == ["factor"]


def test_a_callback_that_fails_is_the_verdict_error():
    judged = verdict_on(
        lambda x: jax.pure_callback(lambda x: 1 / 0, jax.ShapeDtypeStruct(x.shape, x.dtype), x),
        of=lambda x: jnp.sum(x**2),
    )
    assert judged.verdict == "error"
    assert "ZeroDivisionError" in judged.detail
    assert "\n" not in judged.detail
