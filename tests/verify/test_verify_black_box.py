"""Formulas that JAX does not trace: NumPy, SciPy, PyTorch, and Python's own lists."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from samples import cubes, made, verdict_on

from experiments.mutants import CORRECT, MUTANTS
from experiments.mutants.twins import twin
from jaxnn.verify import (
    assert_holds,
    claim,
    interval,
    label,
    one_hot,
    positive,
    real,
    simplex,
    verify,
)
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.verification import describe

SQUARES = {
    "of": lambda w, x, y: jnp.mean((x @ w - y) ** 2),
    "wrt": "w",
    "inputs": {"w": real("D"), "x": real("N", "D"), "y": real("N")},
}


def by_loops(w, x, y):
    dw = np.zeros(w.shape)
    for i in range(x.shape[0]):
        for j in range(w.shape[0]):
            dw[j] += 2 * (np.dot(x[i], w) - y[i]) * x[i, j]
    return dw / len(x)


def without_the_mean(w, x, y):
    return by_loops(w, x, y) * len(x)


def codes(verdict):
    return [finding.code for finding in verdict.diagnosis]


@pytest.mark.parametrize("black_box", [False, True])
def test_a_loop_over_examples_holds_and_a_missing_mean_is_named(black_box):
    assert verdict_on(by_loops, **SQUARES, black_box=black_box).verdict == "holds"
    refuted = verdict_on(without_the_mean, **SQUARES, black_box=black_box)
    assert (refuted.verdict, codes(refuted)) == ("refuted", ["missing_mean"])
    assert refuted.counterexample
    example = refuted.counterexample.inputs
    assert not np.allclose(without_the_mean(**example), by_loops(**example))


def test_numpy_code_is_read_as_jax_numpy_where_the_values_are_equal():
    verdict = verdict_on(by_loops, **SQUARES)
    assert verdict.certificate
    assert "judged as those of jax.numpy" in verdict.black_box
    called = verdict_on(by_loops, **SQUARES, black_box=True)
    assert not called.certificate
    assert "black box" in called.uncertified


def through_a_view(x):
    slope = np.zeros(x.shape)
    part = slope[:]
    part += 3 * x**2  # a view: JAX's arrays have none
    return slope


def test_a_translation_with_other_values_is_not_judged():
    verdict = verdict_on(through_a_view, of=cubes)
    assert verdict.verdict == "holds"
    assert "no operations are known" in verdict.black_box
    assert not verdict.certificate


def test_views_in_code_that_jax_traces_without_an_error_are_not_lost():
    """JAX traces ``row += x`` as a new row: the gradient would stay zero."""

    def by_rows(w, x):
        dw = np.zeros(w.shape)
        for row in dw:
            row += x
        return dw

    weights = {"wrt": "w", "inputs": {"w": real("M", "D"), "x": real("D")}}
    verdict = verdict_on(by_rows, of=lambda w, x: jnp.sum(w @ x), **weights)
    assert verdict.verdict == "holds"
    verdict = verdict_on(
        lambda w, x: jnp.sum(w) * x,
        of=lambda w, x: by_rows(w, x).sum(),
        wrt="x",
        inputs=weights["inputs"],
    )
    assert verdict.verdict == "error"
    assert "of: " in verdict.detail
    assert "other values" in verdict.detail


def windows(x):
    return jnp.stack([x[i : i + 2] for i in range(len(x) - 1)])


def overwrites_windows(x, dout):
    dx = np.zeros(x.shape)
    for i in range(len(dout)):
        dx[i : i + 2] = dout[i]
    return dx


def rows(e, i):
    return e[i]


def overwrites_rows(e, i, dout):
    de = np.zeros(e.shape)
    for row, slope in zip(i, dout, strict=True):
        de[row] = slope
    return de


def counts_rows_once(e, i, dout):
    de = np.zeros(e.shape)
    de[i] += dout
    return de


def returns_in_the_loop(e, i, dout):  # noqa: RET503
    de = np.zeros(e.shape)
    for row, slope in zip(i, dout, strict=True):
        de[row] += slope
        return de


def adds_after_the_loop(x, dout):
    dx = np.zeros(x.shape)
    for i in range(len(dout)):
        slope = dout[i]
    dx[i : i + 2] += slope
    return dx


WINDOWS = (windows, "x", {"x": real(4), "dout": real(3, 2)})
ROWS = (rows, "e", {"e": real("V", "d"), "i": label("T", "V"), "dout": real("T", "d")})


@pytest.mark.parametrize(
    ("formula", "declared", "words", "line"),
    [
        (overwrites_windows, WINDOWS, "expected +=", "dx[i : i + 2] = dout[i]"),
        (overwrites_rows, ROWS, "expected +=", "de[row] = slope"),
        (counts_rows_once, ROWS, "expected np.add.at", "de[i] += dout"),
        (returns_in_the_loop, ROWS, "expected after the loop", "return de"),
        (adds_after_the_loop, WINDOWS, "expected inside of the loop", "dx[i : i + 2] += slope"),
    ],
)
def test_a_statement_that_makes_numpy_code_wrong_is_named(formula, declared, words, line):
    of, wrt, inputs = declared
    verdict = verdict_on(formula, of=of, wrt=wrt, kind="vjp", inputs=inputs)
    assert (verdict.verdict, codes(verdict)) == ("refuted", ["wrong_statement"])
    (finding,) = verdict.diagnosis
    assert words in finding.detail
    assert f"is `{line}`" in finding.detail


def recurrent(w, u, h, x):
    total = 0.0
    for t in range(4):
        h = jnp.tanh(w @ x[t] + u @ h)
        total += jnp.sum(h**2)
    return total / 2


@pytest.mark.slow
def test_a_derivative_left_out_in_every_pass_of_a_loop_is_named():
    """Backpropagation through time without the gradient from the next step."""

    def truncated(w, u, h, x):
        dw, du = np.zeros_like(w), np.zeros_like(u)
        for t in range(4):
            before, h = h, np.tanh(w @ x[t] + u @ h)
            dw += np.outer(h * (1 - h**2), x[t])
            du += np.outer(h * (1 - h**2), before)
        return dw, du

    inputs = {"w": real("H", "D"), "u": real("H", "H"), "h": real("H"), "x": real(4, "D")}
    verdict = verdict_on(truncated, of=recurrent, wrt=("w", "u"), inputs=inputs)
    (finding,) = verdict.diagnosis
    assert finding.code == "missing_term"
    assert "the derivative of the product by the tanh of line" in finding.detail
    assert "in every pass of the loop" in finding.detail


def test_a_wrong_margin_is_named_though_the_derivative_has_no_slope_in_the_margin():
    def hinge(w, x, y):
        return jnp.sum(jnp.maximum(0, 1 - y * (x @ w)))

    verdict = verdict_on(
        lambda w, x, y: -np.where(y * np.dot(x, w) < 0.5, y, 0) @ x, **SQUARES | {"of": hinge}
    )
    (finding,) = verdict.diagnosis
    assert finding.code == "wrong_constant"
    assert "as if the number 1 were 0.5" in finding.detail


def test_the_shift_of_a_softmax_hides_no_term_that_is_left_out():
    """p in place of p - y: the derivative of the numerator is missing."""

    def loss(z, y):
        e = np.exp(z - np.max(z))
        return -np.sum(y * np.log(e / np.sum(e)))

    inputs = {"z": real("C"), "y": one_hot("C")}
    verdict = verdict_on(lambda z, y: softmax(z), of=loss, wrt="z", inputs=inputs)
    assert verdict.verdict == "refuted"
    assert "unknown" not in codes(verdict), describe(verdict)


def by_math(x):
    from math import sqrt

    halves = range(math.ceil(len(x) / 2), len(x) + 1)
    slopes = [math.tanh(v) + v * (1 - math.tanh(v) ** 2) for v in x]
    return np.reshape(np.add(slopes, 0 * len(halves)), int(np.prod(x.shape))) * sqrt(4) / 2


def test_functions_of_math_and_whole_numbers_of_shapes_are_translated():
    verdict = verdict_on(by_math, of=lambda x: jnp.sum(x * jnp.tanh(x)))
    assert verdict.verdict == "holds", describe(verdict)
    assert "equal values" in verdict.black_box


def test_a_loop_of_thousands_of_operations_is_judged_by_values():
    def by_entries(x):
        slope = np.zeros_like(x)
        for i in range(len(x)):
            for j in range(x.shape[1]):
                slope[i, j] += 3 * x[i, j] ** 2
        return slope

    verdict = verdict_on(by_entries, of=cubes, inputs={"x": real(40, 40)})
    assert (verdict.verdict, verdict.certificate) == ("holds", None)
    assert "no operations are known" in verdict.black_box


def sums_of_rows(e, i):
    return jnp.sum(e[i] ** 2)


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param({"e": real("V"), "i": label("N", "V")}, id="equal in most trials"),
        pytest.param(
            {"e": real(400), "i": label(2, 400)}, id="in 1 of 400", marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.parametrize("black_box", [False, True])
def test_equal_indices_count_once_in_numpy_and_as_often_as_they_occur_for_add_at(black_box, inputs):
    def once(e, i):
        slope = np.zeros_like(e)
        slope[i] += 2 * e[i]
        return slope

    def often(e, i):
        slope = np.zeros_like(e)
        np.add.at(slope, i, 2 * e[i])
        return slope

    declared: Any = {"of": sums_of_rows, "wrt": "e", "inputs": inputs, "black_box": black_box}
    assert verify(made(once, **declared), trials=2000).verdict == "refuted"
    right = verdict_on(often, **declared)
    assert right.verdict == "holds", describe(right)
    assert ("equal values" in right.black_box) is not black_box


def test_a_formula_that_writes_into_its_inputs_is_told_so_and_judged_by_the_value():
    def writes(x):
        x *= x
        x[:] = 3 * x
        return np.negative(-x)

    verdict = verdict_on(writes, of=cubes)
    assert verdict.verdict == "holds"
    assert "the formula writes into x: every call gets a copy" in verdict.detail


def test_two_values_at_equal_inputs_are_an_error():
    rng = np.random.default_rng(0)
    verdict = verdict_on(lambda x: np.exp(x) * rng.normal(size=x.shape), of=cubes)
    assert verdict.verdict == "error"
    assert "two values at equal inputs" in verdict.detail


def test_an_exception_in_numpy_code_is_an_error_with_the_line():
    def broken(x):
        return np.linalg.inv(np.exp(x))

    verdict = verdict_on(broken, of=cubes)
    assert verdict.verdict == "error"
    assert "LinAlgError" in verdict.detail
    assert "line" in verdict.detail


def test_shapes_that_do_not_fit_in_numpy_are_the_code_shape():
    verdict = verdict_on(lambda w, x, y: 2 * np.dot(x, np.dot(x, w) - y), **SQUARES)
    assert (verdict.verdict, codes(verdict)) == ("refuted", ["shape"])


def test_masked_entries_are_refused_in_one_line():
    verdict = verdict_on(lambda x: np.ma.masked_where(np.exp(x) > 1, 3 * np.square(x)), of=cubes)
    assert verdict.verdict == "error"
    assert "the formula masks entries of its value, expected a number for each" in verdict.detail


def test_float32_is_refused_in_one_line():
    verdict = verdict_on(lambda x: (3 * np.square(x)).astype(np.float32), of=cubes)
    assert verdict.verdict == "error"
    assert "the formula returns float32, expected float64" in verdict.detail


def without_a_return(x):
    g = np.zeros(len(x))
    for i in range(len(x)):
        g[i] = 3 * x[i] ** 2


@pytest.mark.parametrize("formula", [without_a_return, lambda x: print(np.array(x) ** 2)])
def test_a_forgotten_return_is_told_in_one_line(formula):
    verdict = verdict_on(formula, of=cubes)
    assert verdict.verdict == "error"
    assert "the formula returns no value, expected an array after return" in verdict.detail


def test_a_formula_that_ends_the_process_does_not():
    verdict = verdict_on(lambda x: exit(0) if np.exp(x[0]) > 0 else x, of=cubes)
    assert (verdict.verdict, "ends the process" in verdict.detail) == ("error", True)


def test_an_exception_at_some_inputs_is_noted():
    def fails_at_zero(x):
        if x[0] == 0:
            raise ZeroDivisionError("the first entry is 0")
        return 3 * np.square(x)

    verdict = verdict_on(fails_at_zero, of=cubes)
    assert verdict.verdict == "holds_unstable"
    assert "at some inputs the formula raises ZeroDivisionError" in verdict.detail


@pytest.mark.slow
def test_a_branch_that_is_wrong_at_few_inputs_is_refuted():
    def wrong_where_large(x):
        return np.where(np.max(x) > 5.5, 2.0, 3.0) * np.square(x)

    values = np.random.default_rng(0).normal(size=(2000, 3)) * 3
    assert 0 < np.mean(values.max(axis=1) > 5.5) < 0.2
    claimed = made(wrong_where_large, of=cubes, black_box=True)
    assert verify(claimed, trials=2000).verdict == "refuted"


def test_a_wrong_value_at_zero_alone_is_refuted():
    def wrong_at_zero(x):
        return np.where(x == 0, 1.0, 3 * np.square(x))

    assert verdict_on(wrong_at_zero, of=cubes, black_box=True).verdict == "refuted"


@pytest.mark.parametrize(
    ("formula", "of"),
    [
        # softmax Jacobian: cancels where an entry is near 1
        (
            lambda x: np.diag(softmax(x)) - np.outer(softmax(x), softmax(x)),
            lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x)),
        ),
        # 1 / (1 + e^x), which overflows; d/dx log sigma(x)
        (lambda x: 1 / (1 + np.exp(x)), lambda x: -jnp.sum(jnp.logaddexp(0, -x))),
        # (1 + x) - 1 has rounding errors far above those of the inputs
        (lambda x: 3 * ((1e6 + np.square(x)) - 1e6), cubes),
    ],
)
def test_rounding_errors_of_a_black_box_do_not_refute(formula, of):
    kind = "jacobian" if "diag" in formula.__code__.co_names else "gradient"
    verdict = verify(made(formula, of=of, kind=kind, black_box=True), trials=500)
    assert verdict.holds, describe(verdict)


def test_rounding_at_large_inputs_does_not_refute():
    """1 - sigma(37.4) is 1.1e-16, twice the spacing: the logarithm has one right digit."""
    formula = made(
        lambda x: np.sum(np.log(1 - 1 / (1 + np.exp(-x)))),
        of=lambda x: -jnp.sum(jnp.logaddexp(0, x)),
        kind="value",
        wrt=(),
        black_box=True,
    )
    verdict = verify(formula, trials=500)
    assert verdict.verdict == "holds_unstable", describe(verdict)


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / np.sum(e)


def test_a_kink_of_the_function_is_a_kink_for_numpy_code():
    verdict = verdict_on(
        lambda x: np.where(x > 0, 1.0, 0.0),
        of=lambda x: jnp.sum(jnp.maximum(x, 0)),
        black_box=True,
    )
    assert verdict.verdict == "kink"
    wrong = verdict_on(
        lambda x: np.where(x > 0, 1.0, 0.5),
        of=lambda x: jnp.sum(jnp.maximum(x, 0)),
        black_box=True,
    )
    assert wrong.verdict == "refuted"


class Slopes(NamedTuple):
    w: np.ndarray
    x: np.ndarray


@dataclasses.dataclass
class Parts:
    x: np.ndarray
    w: np.ndarray


@pytest.mark.parametrize(
    "returned",
    [
        lambda dw, dx: (dw, dx),
        lambda dw, dx: [dw, dx],
        lambda dw, dx: {"x": dx, "w": dw},
        lambda dw, dx: {"dx": dx, "dw": dw},
        Slopes,
        lambda dw, dx: Parts(x=dx, w=dw),
        lambda dw, dx: (dw.tolist(), tuple(dx) and dx.tolist()),
    ],
)
def test_results_may_be_tuples_dicts_and_records(returned):
    verdict = verdict_on(
        lambda w, x: returned(np.multiply(2 * w, x), np.multiply(w, w)),
        of=lambda w, x: jnp.sum(w**2 * x),
        wrt=("w", "x"),
        inputs={"w": real("n"), "x": real("n")},
    )
    assert verdict.verdict == "holds", describe(verdict)


@pytest.mark.parametrize(
    "formula",
    [
        lambda x: [3 * float(v) ** 2 for v in x],
        lambda x: [3 * v**2 for v in x],
    ],
)
def test_a_list_of_numbers_is_an_array(formula):
    assert verdict_on(formula, of=cubes).verdict == "holds"


def test_a_scalar_in_pure_python_holds():
    def slope(x):
        return math.cos(x) if x > 0 else math.cos(-x)

    claimed = made(slope, of=jnp.sin, inputs={"x": real()})
    assert verify(claimed, trials=200).verdict == "holds"


def test_scipy_is_read_as_jax_scipy():
    verdict = verdict_on(
        lambda a: 2 * scipy.linalg.solve(a @ a.T + np.eye(3), a),
        of=lambda a: jnp.linalg.slogdet(a @ a.T + jnp.eye(3))[1],
        wrt="a",
        inputs={"a": real(3, "n")},
    )
    assert verdict.verdict == "holds"
    verdict = verdict_on(
        lambda x: scipy.special.expit(x), of=lambda x: jnp.sum(jnp.logaddexp(x, 0))
    )
    assert (verdict.verdict, verdict.certificate is not None) == ("holds", True)


def test_numpy_code_as_the_function_is_read_as_jax_numpy():
    def cross_entropy(z, y):
        e = np.exp(z - np.max(z))
        p = e / np.sum(e)
        return -np.sum(y * np.log(p))

    inputs = {"z": real("C"), "y": simplex("C")}
    right = made(lambda z, y: softmax(z) - y, of=cross_entropy, wrt="z", inputs=inputs)
    assert_holds(right, trials=200)
    wrong = made(lambda z, y: y - softmax(z), of=cross_entropy, wrt="z", inputs=inputs)
    assert codes(verify(wrong, trials=200)) == ["sign"]


def test_a_lambda_in_a_decorator_is_not_taken_for_the_function_below():
    def logged(of):
        return lambda formula: verdict_on(formula, of=of, wrt="a", inputs={"a": positive("n")})

    @logged(of=lambda a: np.sum(np.log(a)))
    def reciprocal(a):
        return np.divide(1, a)

    assert reciprocal.verdict == "holds", describe(reciprocal)


def test_a_function_that_neither_jax_nor_the_translation_takes_is_one_line():
    def of(x):
        return float(np.sum(x)) ** 2

    verdict = verdict_on(lambda x: 2 * x, of=of)
    assert verdict.verdict == "error"
    assert verdict.detail.startswith("of: ")
    assert "\n" not in verdict.detail


def test_prints_of_a_formula_are_not_shown(capsys):
    def prints(x):
        print("debugging", x[0])
        return 3 * np.square(x)

    assert verdict_on(prints, of=cubes, black_box=True).verdict == "holds"
    assert "debugging" not in capsys.readouterr().out


def test_reports_name_the_language_of_the_formula():
    verdict = verdict_on(by_loops, **SQUARES)
    assert "NumPy code, called as written" in to_json([verdict])
    from jaxnn.verify.claims import descriptions

    (described,) = descriptions([made(by_loops, **SQUARES)])
    assert "NumPy code, called as written" in to_html([(described, verdict)])


@pytest.mark.slow
def test_a_slow_formula_gets_at_least_100_trials_and_a_short_counterexample():
    import time

    def slow(x):
        time.sleep(0.002)
        return 2 * np.square(x)

    verdict = verify(made(slow, of=cubes, black_box=True))
    assert 100 <= verdict.trials < 10_000
    assert verdict.verdict == "refuted"
    assert codes(verdict) == ["factor"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, len(MUTANTS), 41))
def test_mutants_in_numpy_get_the_codes_of_their_twins_in_jax(number):
    mutant = MUTANTS[number]
    in_jax, in_numpy = (verify(c, trials=200) for c in (mutant.claim, twin(mutant.claim)))
    assert (in_numpy.verdict, codes(in_numpy)) == (in_jax.verdict, codes(in_jax))


@pytest.mark.parametrize("number", range(0, len(CORRECT), 23))
@pytest.mark.parametrize("called", [False, True])
def test_right_derivations_in_numpy_hold(number, called):
    verdict = verify(twin(CORRECT[number], called), trials=200)
    assert verdict.holds, describe(verdict)


def test_black_box_takes_true_or_false():
    with pytest.raises(ValueError, match="black_box is 'yes', expected True or False"):
        made(by_loops, **SQUARES, black_box="yes")


def test_a_class_label_is_a_whole_number_for_numpy_code():
    def gradient(z, y):
        p = softmax(z)
        p[y.argmax()] -= 1
        return p

    inputs = {"z": real("C"), "y": one_hot("C")}
    of = lambda z, y: -jnp.sum(y * (z - jnp.log(jnp.sum(jnp.exp(z)))))  # noqa: E731
    assert verdict_on(gradient, of=of, wrt="z", inputs=inputs).holds


def test_tensors_are_given_to_code_for_tensors():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    def gradient(x):
        x = x.requires_grad_(True)
        torch.sum(x**3).backward()
        return x.grad

    verdict = verdict_on(gradient, of=cubes)
    assert verdict.verdict == "holds"
    assert "PyTorch code" in verdict.black_box
    wrong = verdict_on(lambda x: 2 * torch.clone(x) ** 2, of=cubes)
    assert codes(wrong) == ["factor"]


def summed(w, x):
    """The gradient of the mean squared product, without the mean: only called, as lists are."""
    found = [0.0] * len(w)
    for row in x.tolist():
        h = sum(a * b for a, b in zip(row, w.tolist(), strict=True))
        found = [g + 2 * h * a for g, a in zip(found, row, strict=True)]
    return np.array(found)


@pytest.mark.parametrize(("low", "high"), [(100, 1000), (1e-6, 1e-4)])
@pytest.mark.parametrize(("mean", "verdict"), [(False, "refuted"), (True, "holds")])
def test_inputs_in_large_or_small_units_refute_and_confirm(low, high, mean, verdict):
    inputs = {"w": interval(low, high, "k"), "x": interval(low, high, "n", "k")}
    declared = claim(
        of=lambda w, x: jnp.mean((x @ w) ** 2), wrt="w", kind="gradient", inputs=inputs
    )
    formula = (lambda w, x: summed(w, x) / len(x)) if mean else summed
    assert verify(declared(formula), trials=200).verdict == verdict


def by_numbers(function, together: Any = list):
    """A formula of single numbers, which JAX does not trace."""
    return lambda x: np.array(together(function(float(v)) for v in x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


TAIL = {"x": interval(25, 35, "n")}
TINY = {"x": interval(1e-6, 1e-4, "n")}


@pytest.mark.parametrize(
    ("of", "kind", "inputs", "formula", "verdict"),
    [
        (jax.nn.softplus, "value", TAIL, lambda x: -math.log(1 - sigmoid(x)), "holds_unstable"),
        (jax.nn.softplus, "value", TAIL, lambda x: x + 0.5, "refuted"),
        (
            lambda x: jax.nn.softplus(-x),
            "gradient",
            TAIL,
            lambda x: sigmoid(x) - 1,
            "holds_unstable",
        ),
        (lambda x: jax.nn.softplus(-x), "gradient", TAIL, lambda x: -2 * math.exp(-x), "refuted"),
        (jnp.sin, "value", TINY, lambda x: 2 * math.sin(x), "refuted"),
        (lambda x: x - jnp.sin(x), "gradient", TINY, lambda x: x * x, "refuted"),
    ],
)
def test_rounding_at_large_or_small_inputs_is_told_from_a_wrong_value(
    of, kind, inputs, formula, verdict
):
    """1 - sigmoid(x) has two right digits at 33, with steps of the size of an epsilon between."""
    declared = claim(
        of=lambda x: jnp.sum(of(x)), kind=kind, inputs=inputs, wrt="x" if kind == "gradient" else ()
    )
    made = by_numbers(formula, list if kind == "gradient" else sum)
    assert verify(declared(made), trials=300).verdict == verdict
