"""Formulas in LaTeX against NumPy by definition, and statements against formulas."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.verify import (
    Verdict,
    __main__,
    binary,
    claim,
    interval,
    label,
    one_hot,
    positive,
    real,
    verify,
)  # fmt: skip
from jaxnn.verify.latex import Quantity, Reading, Unreadable, example_of, example_sizes
from jaxnn.verify.report import to_html
from jaxnn.verify.verdict import Statement
from jaxnn.verify.verification import check_statement, describe
from jaxnn.verify.worker import decode, encode, load_claims
from tests.verify import misstatements

REGRESSION = {
    "W": real("m", "c"),
    "X": real("n", "m"),
    "Y": one_hot("n", "c"),
    "b": real("c"),
    "l2": positive(),
}


def regression(W, X, Y, b, l2):  # noqa: N803
    return -jnp.sum(Y * jax.nn.log_softmax(X @ W + b)) / len(X) + l2 / 2 * jnp.sum(W**2)


def regression_gradient(formula: str):
    return claim(
        of=regression,
        wrt="W",
        kind="gradient",
        inputs=REGRESSION,
        formula=formula,
        where={r"\hat Y": lambda X, W, b: jax.nn.softmax(X @ W + b), r"\lambda": "l2"},  # noqa: N803
    )


def test_a_formula_in_latex_is_verified_and_certified():
    made = regression_gradient(r"\frac{1}{n} X^\top(\hat Y - Y) + \lambda W")
    verdict = verify(made, trials=1000)
    assert (verdict.verdict, verdict.certificate is not None) == ("holds", True)


def test_a_wrong_formula_in_latex_is_diagnosed():
    verdict = verify(regression_gradient(r"X^\top(\hat Y - Y) + \lambda W"), trials=1000)
    assert verdict.verdict == "refuted"
    assert [finding.code for finding in verdict.diagnosis] == ["missing_mean"]


def stated(statement, **where):
    @claim(
        of=lambda x, y: jnp.sum((x - y) ** 2),
        wrt="x",
        kind="gradient",
        inputs={"x": real("n"), "y": real("n")},
        statement=statement,
        where=where or None,
    )
    def slope(x, y):
        return 2 * (x - y)

    return slope


def test_a_statement_that_says_something_else_is_misstated():
    verdict = verify(stated(r"\frac{\partial J}{\partial x_i} = 2 (x_i + y_i)"), trials=100)
    assert verdict.verdict == "misstated"
    assert not verdict.holds
    assert verdict.statement is not None
    assert verdict.statement.outcome == "differs"
    assert "entry [" in verdict.statement.detail


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        (r"\nabla_x J = 2 (x - y)", "agrees"),
        (r"\frac{\partial J}{\partial x_i} = 2 x_i - 2 y_i", "agrees"),
        (r"\nabla_x J = 2 (x - q)", "unread"),
        (r"twice the difference", "unread"),
        (r"\nabla_y J = 2 (x - y)", "differs"),
        (r"\frac{dJ}{dx} = 2 (x - y)", "agrees"),
        (r"\frac{dJ}{dy} = 2 (x - y)", "differs"),
        (r"\frac{\partial J}{\partial q} = 2 (x - y)", "unread"),
        (r"g = 2 d, \quad d = x - y, \quad d = y - x", "unread"),
        (r"g = 2 (x - y), \quad h = q", "unread"),
    ],
)
def test_the_outcome_of_the_comparison(statement, outcome):
    verdict = verify(stated(statement), trials=100)
    assert verdict.statement is not None
    assert verdict.statement.outcome == outcome
    assert verdict.holds == (outcome != "differs")


INPUTS = {
    "x": real("n"),
    "y": real("n"),
    "u": real("m"),
    "A": real("n", "m"),
    "B": real("m", "n"),
    "P": real("n", "m"),
    "S": real("n", "n"),
    "R": real("n", "n"),
    "a": real(),
    "b": positive(),
}
POINT = example_of(INPUTS, example_sizes(INPUTS))
x, y, u, A, B, P, S, R, a, b = (np.asarray(POINT[name]) for name in INPUTS)
n, m = A.shape


def read(latex, shape=(), inputs=INPUTS, **where):
    """The array of a formula in LaTeX at the example."""
    point = example_of(inputs, example_sizes(inputs))
    with jax.enable_x64(True):
        (value,) = Reading(latex, inputs, where, [shape])(point)
    return np.asarray(value)


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def softmax(t):
    return np.exp(t) / np.exp(t).sum()


NUMBERS = [
    (r"\sum_i x_i y_i", x @ y),
    (r"\sum_{i=1}^n x_i^2 / n", np.mean(x**2)),
    (r"\sum_{i,j} A_{ij}", A.sum()),
    (r"\sum_\ell^n x_\ell", x.sum()),
    (r"\frac\pi2 + \frac a{\sqrt b}", np.pi / 2 + a / np.sqrt(b)),
    (r"\sum_k S_{kk}", np.trace(S)),
    (r"\sum_{i=1}^n a", n * a),
    (r"\sum_i x_i \sum_j y_j", x.sum() * y.sum()),
    (r"\log \sum_i e^{x_i}", np.log(np.exp(x).sum())),
    (r"\prod_i x_i", x.prod()),
    (r"\max_i x_i", x.max()),
    (r"\max(0, a)", max(a, 0)),
    (r"x^\top y", x @ y),
    (r"x^T y", x @ y),
    (r"\mathbf{x}^\top \vec{y}", x @ y),
    (r"x \cdot y", x @ y),
    (r"\langle x, y \rangle", x @ y),
    (r"x^\top A u", x @ A @ u),
    (r"x^\top x y^\top y", (x @ x) * (y @ y)),
    (r"\mathbb{1}^\top x", x.sum()),
    (r"\operatorname{tr}(S R)", np.trace(S @ R)),
    (r"\mathrm{tr}(A^\top P)", (A * P).sum()),
    (r"\det(S)", np.linalg.det(S)),
    (r"\left\| x \right\|^2", x @ x),
    (r"\|x\|_1 \|y\|_\infty", np.abs(x).sum() * np.abs(y).max()),
    (r"\|A\|_F^2", (A**2).sum()),
    (r"|a||b|", abs(a) * b),
    (r"\sin^2 a + \cos^2 a", 1.0),
    (r"e^{-\frac{1}{2} a^2}", np.exp(-a * a / 2)),
    (r"\frac{1}{1+\frac{1}{1+\frac1b}}", 1 / (1 + 1 / (1 + 1 / b))),
    (r"\frac12 a \, b \; \left( \dfrac{a}{b} \right)^2", a * b / 2 * (a / b) ** 2),
    (r"a b / 2", a * b / 2),
    (r"b^{1/2} + b^{-1} + \sqrt[3]{b} + b^a", np.sqrt(b) + 1 / b + np.cbrt(b) + b**a),
    (r"2 \times 3 \cdot 0.1", 0.6),
    (r"a \log b^2", 2 * a * np.log(b)),
    (r"\log(b) a", a * np.log(b)),
    (r"\log^2 b", np.log(b) ** 2),
    (r"\tanh'(a)", 1 - np.tanh(a) ** 2),
    (r"\mathbb{1}[a > 0] \, b + \mathbb{1}_{a \le 0}", b if a > 0 else 1.0),
    (r"\sum_i \mathbb{1}\{x_i > 0\} y_i", ((x > 0) * y).sum()),
    (r"\begin{cases} a & \text{if } a > 0 \\ -a & \text{otherwise} \end{cases}", abs(a)),
    (r"\begin{cases} a & a > 0 \\ -a & a \le 0 \end{cases}", abs(a)),
    (r"$J = n a.$", n * a),
    (r"\sum_{i=1}^{n-1} (x_{i+1} - x_i)^2", (np.diff(x) ** 2).sum()),
    (r"\sum_{i=2}^{n-1} x_{i-1} x_{i+1}", (x[:-2] * x[2:]).sum()),
    (r"\sum_{k=0}^{n-1} b^k x_{k+1}", (b ** np.arange(n) * x).sum()),
    (r"\sum_{i=1}^n \sum_{j=1}^{i} x_i y_j", (x * y.cumsum()).sum()),
    (r"\sum_{i<j} x_i x_j", (x.sum() ** 2 - x @ x) / 2),
    (r"\sum_{1 \le i < j \le n} S_{ij}", np.triu(S, 1).sum()),
    (r"\sum_{i \neq j} S_{ij}", S.sum() - np.trace(S)),
    (r"\sum_{i : x_i > 0} x_i", x[x > 0].sum()),
    (r"\prod_{i<j} (1 + x_i y_j)", np.prod((1 + np.outer(x, y))[np.triu_indices(n, 1)])),
    (r"\max_{i \ne j} S_{ij}", S[~np.eye(n, dtype=bool)].max()),
    (r"x_1 x_n", x[0] * x[-1]),
    (r"\frac{1}{n} \sum_{i=1}^n -x_i y_i + b", b - x @ y / n),
    (r"\Vert x \Vert^2", x @ x),
    (r"\log_2 b + \log_{10} b", np.log2(b) + np.log10(b)),
    (r"\begin{cases} 1, & \text{if } a > 2, \\ 2 & -2 \le a \le 2 \\ 3, & a < -2. \end{cases}",
     1 + (a <= 2) + (a < -2)),
    (r"\(x \cdot y\)", x @ y),
    (r"D(x \| y) = \sum_i |x_i| / y_i", (np.abs(x) / y).sum()),
    ("\u2211_i x_i\u00b2 \u2212 b\u00b7a", x @ x - a * b),
    (r"a^2 d \quad \text{where } d = \sin a", a * a * np.sin(a)),
]  # fmt: skip

ARRAYS = [
    (r"A u", "n", A @ u),
    (r"A^\top x", "m", A.T @ x),
    (r"x A", "m", x @ A),
    (r"x u^\top", "nm", np.outer(x, u)),
    (r"x y^\top x", "n", x * (y @ x)),
    (r"A B", "nn", A @ B),
    (r"S^2", "nn", S @ S),
    (r"S^{\circ 2}", "nn", S * S),
    (r"A^2", "nm", A * A),
    (r"S^{-1} x", "n", np.linalg.solve(S, x)),
    (r"S^{-\top} x", "n", np.linalg.solve(S.T, x)),
    (r"(S + a I)^{-1} x", "n", np.linalg.solve(S + a * np.eye(n), x)),
    (r"I - x x^\top", "nn", np.eye(n) - np.outer(x, x)),
    (r"I_n + \operatorname{diag}(x)", "nn", np.eye(n) + np.diag(x)),
    (r"\operatorname{diag}(S)", "n", np.diag(S)),
    (r"x \odot y - 2 x \circ y", "n", -x * y),
    (r"A u \odot x", "n", (A @ u) * x),
    (r"A + u", "nm", A + u),
    (r"A + x", "nm", A + x[:, None]),
    (r"1 - n x", "n", 1 - n * x),
    (r"A \mathbb{1}", "n", A.sum(1)),
    (r"(I_n - \frac{1}{n} \mathbf{1}\mathbf{1}^\top) A", "nm", A - A.mean(0)),
    (r"x \mathbb{1}_m^\top", "nm", np.outer(x, np.ones(m))),
    (r"1_{n \times m}", "nm", np.ones((n, m))),
    (r"\sigma(x)", "n", sigmoid(x)),
    (r"\mathrm{softmax}(x + a)", "n", softmax(x)),
    (r"q_i = \operatorname{softmax}(x)_i", "n", softmax(x)),
    (r"\frac{x}{\|x\|}", "n", x / np.sqrt(x @ x)),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & \frac14 \end{bmatrix}", (2, 2), [[1, 2], [3, 0.25]]),
    (r"q_i = \sum_{j \ne i} x_j", "n", x.sum() - x),
    (r"q_j = \sum_i A_{ij}", "m", A.sum(0)),
    (r"q_{ij} = S_{ji}", "nn", S.T),
    (r"q_{ij} = A^{(i)}_j x_i", "nm", A * x[:, None]),
    (r"q_{ji} = x_i u_j", "mn", np.outer(u, x)),
    (r"q_{ij} = x_i \delta_{ij}", "nn", np.diag(x)),
    (r"q_{ij} = \begin{cases} x_i & i = j \\ -y_j & i \ne j \end{cases}", "nn",
     np.where(np.eye(n), x, -y[None])),
    (r"q_i = i x_i", "n", np.arange(1, n + 1) * x),
    (r"q_i = A_{i \cdot} \cdot u", "n", A @ u),
    (r"q_i = \sum_{j=1}^i x_j", "n", x.cumsum()),
    (r"q_i = \sum_{j=i}^n b^{j-i} x_j", "n", [b ** np.arange(n - i) @ x[i:] for i in range(n)]),
    (r"x_{t+1} = x_t - b y_t", "n", x - b * y),
    (r"x^{(k+1)} = x^{(k)} - b y", "n", x - b * y),
    (r"q_i = \prod_{j \ne i} (x_i - x_j)", "n", np.prod(x[:, None] - x + np.eye(n), 1)),
]  # fmt: skip


@pytest.mark.parametrize(("latex", "expected"), NUMBERS)
def test_a_number(latex, expected):
    np.testing.assert_allclose(read(latex), expected, rtol=1e-12)


@pytest.mark.parametrize(("latex", "shape", "expected"), ARRAYS)
def test_an_array(latex, shape, expected):
    np.testing.assert_allclose(read(latex, tuple(shape)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("latex", "shape"),
    [
        ("x y", "n"),
        ("1/2a", ""),
        ("a/b/2", ""),
        (r"\sigma x y", "n"),
        (r"\log b a", ""),
        (r"\log(b)^2", ""),
        (r"\sin^{-1} a", ""),
        (r"\exp(S)", "nn"),
        (r"\mathrm{softmax}(A)", "nm"),
        ("S + a", "nn"),
        ("S + x", "nn"),
        (r"\|A\|", ""),
        ("|x|", ""),
        (r"S x \odot y", "n"),
        (r"q_{ij} = S_{ij}^{-1}", "nn"),
        (r"q_{ij} = S^\top_{ij}", "nn"),
        (r"q_i = S_i", "nn"),
        (r"\pm a", ""),
        ("a(b)", ""),
        ("a(b, a)", ""),
        (r"a(b \| a)", ""),
        (r"a \otimes b", ""),
    ],
)
def test_what_has_two_readings_is_refused_with_both(latex, shape):
    with pytest.raises(Unreadable, match="two readings"):
        read(latex, tuple(shape))


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        (r"\begin{align*} g &= \sum_i x_i y_i \\ &= x^\top y \end{align*}", x @ y),
        (r"\begin{equation} g = h + 1 \\ h = x^\top y \end{equation}", x @ y + 1),
        (r"\begin{aligned} g &= 2 a \\ \end{aligned}", 2 * a),
        (r"x^{\mathrm T} y", x @ y),
        (r"x^{\mathsf T} y", x @ y),
        (r"x^{\mathrm{T}} y", x @ y),
        (r"\operatorname{Tr}(S R)", np.trace(S @ R)),
        (r"\Tr S", np.trace(S)),
    ],
)
def test_the_equations_of_a_textbook_are_read(latex, value):
    np.testing.assert_allclose(read(latex), value, rtol=1e-12)


def test_lines_of_an_align_are_no_product():
    with pytest.raises(Unreadable, match="no definition"):
        read(r"\begin{align} g &= a \\ &\quad + b \end{align}")


@pytest.mark.parametrize(
    ("names", "latex"),
    [
        (("w", "w2"), "w^2"),
        (("b", "b1"), "b_1"),
        (("x", "T"), "x^T x"),
        (("a", "b", "ab"), "ab"),
    ],
)
def test_a_name_that_could_be_two_things_is_refused(names, latex):
    with pytest.raises(Unreadable, match="two readings"):
        read(latex, inputs={name: real() for name in names})


@pytest.mark.parametrize(
    ("latex", "reason"),
    [
        ("q", "'q' is not known"),
        (r"\sum_i x_i q_i", "'q_{i}' is not known"),
        (r"\sum_i x_i + y_i", "the index i is on no left side and below no sum, expected a"),
        (r"\sum_{i=1}^m x_i", "the index i runs to m and to n"),
        (r"\sum_{i=1}^7 x_i", "the index i runs to 7 and to n"),
        (r"\sum_{i=0}^{n} x_i", "more than n numbers, expected an index from 1 to a size"),
        (r"\sum_{i=1}^{n+1} x_i", "more than n numbers"),
        (r"\sum_{i=0}^{n-1} x_i", "reaches beyond the entries 1 to n"),
        (r"\sum_{i=1}^n x_{i+1}", "reaches beyond the entries 1 to n"),
        (r"q_{i+1} = x_i", "the index i is on no left side"),
        (r"\sum_{i=1}^n x_{a}", "'x_{a}': 'a' is no index"),
        (r"\sum_i x_i \sum_i y_i", "the index i is in use outside"),
        (r"\sum_i a", "nothing that follows depends on i"),
        (r"\sum_k A_{kk}", "the index k runs to"),
        (r"\sum_i x_{i+1}", "the index i runs over no known size"),
        (r"\sum_i x_{ij}", "2 indices of a vector"),
        ("x_{99}", "the entry 99"),
        ("A P", "the sizes m and n"),
        ("A + B", "expected equal shapes"),
        ("x + u", "expected equal shapes"),
        (r"A^{-1}", "expected a square matrix"),
        (r"x^{-1}", "expected a square matrix"),
        (r"\mathrm{tr}(A)", "expected a square matrix"),
        (r"a + (b", "no formula at the end"),
        (r"a + b)", "no formula at '\\)'"),
        (r"\frac{a}{b", "no formula at the end"),
        (r"}{", "no formula at '}{'"),
        ("", "no formula at the end"),
        ("the gradient of x", None),
        ("\u03b1 + a", r"'\\\\alpha' is not known"),
        ("a % b", "no LaTeX at '% b'"),
        (r"\text{hello}", "prose"),
        (r"a + \ldots + b", r"\\ldots leaves out a part"),
        (r"\foo a", r"'\\\\foo' is not known"),
        (r"a \cdot", "lacks a factor"),
        (r"e^/", "lacks a factor"),
        (r"\frac \cdot \sigma", "lacks a"),
        (r"\sum_i^\top b", "is no size"),
        (r"\mathbb{1}_\frac{1}{n}", "is no size"),
        (r"\begin{cases} \end{cases} b", "is no environment"),
        (r"\begin{cases} a & a > 0 \end{bmatrix}", "is no environment"),
        (r"\sum I m", None),
        (r"a + ", "no formula at the end|sign alone"),
        (r"2^{10^{10}}", "a power above 100"),
        (r"((9^{99})^{99})^{99}", "too large"),
        (r"\frac{a}{0}", "a division by zero"),
        (r"\input{/etc/passwd}", "is not known"),
        ("+".join("a" * 600), "600 symbols"),
        ("(" * 60 + "a" + ")" * 60, "60 brackets within brackets"),
        ("".join(rf"\sum_{{{i}}}" for i in "ijklopqrstuv") + "".join(f"x_{i}" for i in
         "ijklopqrstuv"), "fewer nested sums"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_in_a_line(latex, reason):
    began = time.perf_counter()
    with pytest.raises(Unreadable, match=reason) as refused:
        read(latex)
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < 20


def test_names_of_inputs_and_sizes():
    inputs = {name: real() for name in ("theta", "lambda_", "w1", "b_2", "y_hat", "eps", "X")}
    given = {name: np.asarray(float(3**place)) for place, name in enumerate(inputs)}
    latex = r"\theta + \lambda + W^{(1)} + b_2 + \hat y + \varepsilon + x"
    with jax.enable_x64(True):
        (value,) = Reading(latex, inputs, {}, [()])(given)
    assert np.asarray(value) == (3**7 - 1) / 2


def test_cases_without_otherwise_have_a_value_where_a_single_condition_is_true():
    for first, second in (("b > 0", "b > -1"), ("b < 0", "b < -1")):
        cases = rf"\begin{{cases}} a & {first} \\ -a & {second} \end{{cases}}"
        assert np.isnan(read(cases))
        assert not np.isnan(read(cases.replace(second, r"\text{otherwise}")))


def test_labels_choose_entries_and_are_compared_with_indices():
    inputs = {"p": positive("n", "C"), "y": label("n", "C"), "t": label("C")}
    point = example_of(inputs, example_sizes(inputs))
    p, y, t = (np.asarray(point[name]) for name in inputs)
    chosen, rows = p[np.arange(len(y)), y], np.arange(len(y))
    for latex, shape, expected in (
        (r"-\frac{1}{n} \sum_{i=1}^n \log p_{i, y_i}", "", -np.mean(np.log(chosen))),
        (r"q_i = p^{(i)}_t", "n", p[:, t]),
        (r"q_{ik} = p_{ik} - \mathbb{1}\{y_i = k\}", "nC", p - np.eye(p.shape[1])[y]),
        (r"q_{ik} = p_{ik} - \delta_{k y_i}", "nC", p - np.eye(p.shape[1])[y]),
        (r"q_i = \max_{k \ne y_i} p_{ik}", "n", np.where(p == chosen[:, None], 0, p).max(1)),
        (r"\sum_i \mathbb{1}[y_i = t] p_{i y_i}", "", chosen[rows[y == t]].sum()),
    ):
        np.testing.assert_allclose(read(latex, tuple(shape), inputs), expected, rtol=1e-12)
    for latex in (r"\sum_i \mathbb{1}[y_i = 1]", r"\sum_i \mathbb{1}[y_i = n]"):
        with pytest.raises(Unreadable, match="two readings: classes count from 0 or 1"):
            read(latex, (), inputs)


def test_sigma_beside_an_input_sigma_has_two_readings():
    inputs = {"x": real(), "sigma": positive()}
    with pytest.raises(Unreadable, match="two readings: a function, or a product with input sigma"):
        read(r"\sigma(x - 1)", (), inputs)
    point = example_of(inputs, example_sizes(inputs))
    expected = np.exp(-(point["x"] ** 2) / (2 * point["sigma"] ** 2))
    np.testing.assert_allclose(
        read(r"e^{-\frac{x^2}{2\sigma^2}}", (), inputs), expected, rtol=1e-12
    )


def test_a_function_of_an_example_in_where_is_indexed_by_the_example():
    where = {r"h_\theta(x^{(i)})": Quantity(lambda point: jax.nn.sigmoid(point["x"]))}
    value = read(r"\sum_{i=1}^n y^{(i)} \log h_\theta(x^{(i)})", **where)
    np.testing.assert_allclose(value, (y * np.log(sigmoid(x))).sum(), rtol=1e-12)


def test_definitions_in_where():
    where = {
        "s": r"\sum_j h_j",
        "h_i": r"\sigma(\sum_j S_{ij} x_j)",
        r"\phi": jnp.tanh,
        r"\lambda": "b",
        "m": "n",
        "z": "x_i",
    }
    h = sigmoid(S @ x)
    for latex, shape, expected in (
        ("s h", "n", h.sum() * h),
        (r"\phi(a) + \phi'(a)", "", np.tanh(a) + 1 - np.tanh(a) ** 2),
        (r"\lambda m a", "", b * n * a),
        ("q = z (1 - z)", "n", x * (1 - x)),
    ):
        np.testing.assert_allclose(read(latex, tuple(shape), **where), expected, rtol=1e-12)


def test_an_index_with_a_declared_size():
    inputs = {"Z": real("n", "n")}
    with pytest.raises(Unreadable, match="a row, or a column"):
        read(r"q_k = \sum_i Z_i", "n", inputs)
    inputs = {"Z": real("n", "c")}
    value = read(r"q_k = \sum_i Z^{(i)}_k", "c", inputs, i="n", k="c")
    assert value.shape == (example_sizes(inputs)["c"],)
    assert read(r"q_i = (Z \mathbb{1})_i", "n", inputs).shape == (example_sizes(inputs)["n"],)


def test_a_statement_defines_symbols_in_later_clauses():
    value = read(r"q = D u, \quad D = A + \delta P, \quad \delta = 2", "n")
    np.testing.assert_allclose(value, (A + 2 * P) @ u)


def test_a_transpose_beside_an_input_t():
    inputs = {"X": real("n", "m"), "t": real("n")}
    point = example_of(inputs, example_sizes(inputs))
    np.testing.assert_allclose(read("X^T t", "m", inputs), point["X"].T @ point["t"], rtol=1e-12)


def test_a_definition_by_itself_is_refused():
    with pytest.raises(Unreadable, match="defined by itself"):
        read(r"q = D, \quad D = E, \quad E = D")


def test_the_shape_decides_the_meaning_not_the_numbers_of_one_size():
    """For n = m = 2 the sum of a matrix and a vector is still of rows, by the names."""
    inputs = {"A": real("n", "m"), "u": real("m")}
    reading = Reading("A + u", inputs, {}, [("n", "m")])
    arrays = {"A": np.zeros((2, 2)), "u": np.array([1.0, 2.0])}
    np.testing.assert_array_equal(reading(arrays)[0], [[1, 2], [1, 2]])


@pytest.mark.parametrize(
    ("kind", "wrt", "formula", "of"),
    [
        ("jacobian", "x", r"q_{ij} = \delta_{ij} - y_i", lambda x, y: x - y * jnp.sum(x)),
        ("hessian", "x", r"2 y y^\top", lambda x, y: (x @ y) ** 2),
        ("value", (), r"x^\top y", lambda x, y: x @ y),
        ("gradient", ("x", "y"), r"\left( y, x \right)", lambda x, y: x @ y),
        ("gradient", ("x", "y"), r"\nabla_x J = y, \quad \nabla_y J = x", lambda x, y: x @ y),
        ("update", "x", r"x_i \leftarrow x_i - r y_i", lambda x, y: x @ y),
        ("vjp", "x", r"d \odot y", lambda x, y: x * y),
    ],
)
def test_a_formula_of_every_kind(kind, wrt, formula: str, of):
    inputs = {"x": real("n"), "y": real("n")}
    inputs |= {"update": {"r": positive()}, "vjp": {"d": real("n")}}.get(kind, {})
    made = claim(of=of, kind=kind, wrt=wrt, inputs=inputs, formula=formula, name="made")
    verdict = verify(made, trials=100)
    assert (verdict.name, verdict.holds) == ("made", True), verdict


def test_a_condition_and_definitions_in_where():
    def made(where):
        return claim(
            of=jnp.log, wrt="x", kind="gradient", inputs={"x": real()}, formula="1 / q", where=where
        )

    verdict = verify(made((lambda x: x > 0.1, {"q": "x"})), trials=100)
    assert (verdict.verdict, verdict.certificate is not None) == ("holds", True)
    with pytest.raises(ValueError, match=r"definitions is 3, expected a dict of symbols"):
        made((lambda x: x > 0.1, 3))


def test_the_single_index_of_a_vector_needs_no_left_side():
    np.testing.assert_allclose(read("2 x_i - y_i", "n"), 2 * x - y)
    with pytest.raises(Unreadable, match="the index i is on no left side"):
        read("x_i y_j", "nn")


def test_a_formula_of_parameters_in_a_tree():
    made = claim(
        of=lambda params, x: jnp.sum((params["W"] @ x + params["b"]) ** 2) / 2,
        wrt=("params['W']", "params['b']"),
        kind="gradient",
        inputs={"params": {"W": real("k", "n"), "b": real("k")}, "x": real("n")},
        formula=r"(z x^\top, z), \quad z = W x + b",
    )
    assert verify(made, trials=100).verdict == "holds"


def test_a_function_of_numbers_may_have_a_parameter_named_like_an_input():
    made = claim(
        of=lambda x, y: jnp.tanh(y) * jnp.sum(x),
        kind="value",
        inputs={"x": real("n"), "y": real()},
        formula=r"\sum_i \phi(y) x_i",
        where={r"\phi": jnp.tanh},
    )
    assert verify(made, trials=100).verdict == "holds"


def test_a_formula_has_one_right_side():
    with pytest.raises(ValueError, match="several sides to the right, expected one"):
        regression_gradient("G = W = 2 W")


def test_every_right_side_of_a_statement_is_compared():
    with jax.enable_x64(True):
        assert check_statement(stated("g = 2 (x - y) = 2 x - 2 y")).outcome == "agrees"
        assert check_statement(stated("g = 2 (x + y) = 2 x - 2 y")).outcome == "differs"


def test_a_wrong_shape_is_refuted():
    made = claim(
        of=lambda W, x: jnp.sum((W @ x) ** 2) / 2,  # noqa: N803
        wrt="W",
        kind="gradient",
        inputs={"W": real("k", "n"), "x": real("n")},
        formula=r"x (W x)^\top",
    )
    assert verify(made, trials=100).verdict == "holds_other_layout"


def test_the_left_side_is_compared_with_the_function():
    def shifted(left):
        @claim(
            of=lambda x: jax.nn.softmax(x),
            kind="value",
            inputs={"x": real("n")},
            statement=rf"\mathrm{{softmax}}({left}) = \mathrm{{softmax}}(x)",
        )
        def formula(x):
            return jax.nn.softmax(x)

        with jax.enable_x64(True):
            return check_statement(formula)

    assert shifted("x + 1").outcome == "agrees"
    assert shifted("2 x").outcome == "differs"
    assert "left side" in shifted("2 x").detail


def test_the_left_side_of_a_value_is_a_name():
    @claim(
        of=lambda x: 2 * x,
        kind="value",
        inputs={"x": real("n")},
        statement=r"\frac{\partial J}{\partial x_i} = 2 x_i",
    )
    def slope(x):
        return 2 * x

    with jax.enable_x64(True):
        assert check_statement(slope) == ("agrees", "")


def test_a_number_in_place_of_a_size_is_found():
    @claim(
        of=lambda x: jnp.mean(x),
        wrt="x",
        kind="gradient",
        inputs={"x": real("n")},
        statement=r"\frac{\partial \bar x}{\partial x_i} = \frac{1}{5}",
    )
    def mean(x):
        return jnp.ones_like(x) / len(x)

    with jax.enable_x64(True):
        assert check_statement(mean).outcome == "differs"


def test_the_statement_of_a_numpy_formula_is_compared():
    def slope(statement):
        @claim(
            of=lambda x: jnp.sum(x**2),
            wrt="x",
            kind="gradient",
            inputs={"x": real("n")},
            statement=statement,
        )
        def by_loop(x):
            result = np.zeros(len(x))
            for place, number in enumerate(x):
                result[place] = 2 * float(number)
            return result

        return verify(by_loop, trials=20)

    assert slope("g_i = 2 x_i").statement == ("agrees", "")
    assert slope("g_i = 3 x_i").verdict == "misstated"


def test_a_statement_is_compared_where_the_claim_is_defined():
    @claim(
        of=lambda x: jnp.log(x),
        wrt="x",
        kind="gradient",
        inputs={"x": interval(None, None)},
        where=lambda x: x > 0.1,
        statement=r"\frac{1}{x}",
    )
    def slope(x):
        return jnp.where(x > 0.1, 1 / x, 7.0)

    assert verify(slope, trials=100).statement == ("agrees", "")


def test_a_refuted_claim_stays_refuted_and_its_statement_agrees():
    @claim(
        of=lambda z, y: jnp.mean(-y * jax.nn.log_sigmoid(z) - (1 - y) * jax.nn.log_sigmoid(-z)),
        wrt="z",
        kind="gradient",
        inputs={"z": real("N"), "y": binary("N")},
        statement=r"\frac{\partial J}{\partial z_i} = \sigma(z_i) - y_i",
    )
    def without_mean(z, y):
        return jax.nn.sigmoid(z) - y

    verdict = verify(without_mean, trials=100)
    assert (verdict.verdict, verdict.statement) == ("refuted", ("agrees", ""))


FILE = """
import jax.numpy as jnp
from jaxnn.verify import claim, real

INPUTS = {"x": real("n")}


def squares(x):
    return jnp.sum(x**2)


first = claim(of=squares, wrt="x", kind="gradient", inputs=INPUTS, formula="2 x")
second = claim(of=squares, wrt="x", kind="gradient", inputs=INPUTS, formula="2 x", name="named")


@claim(of=squares, wrt="x", kind="gradient", inputs=INPUTS, statement="3 x")
def stated_wrongly(x):
    return 2 * x
"""


def test_a_formula_without_a_name_has_the_name_of_the_variable(tmp_path):
    (tmp_path / "claims.py").write_text(FILE)
    names = [made.name for made in load_claims(tmp_path / "claims.py")]
    assert names == ["first", "named", "stated_wrongly"]


def test_a_misstated_claim_is_exit_status_1(tmp_path, capsys):
    file = tmp_path / "claims.py"
    file.write_text(FILE)
    argv = [str(file), "--trials", "50", "--workers", "0", "--no-certify"]
    assert __main__.main(argv) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "stated_wrongly misstated 50" in printed
    assert "statement and formula: differs: the statement gives" in printed


MISSTATED = Verdict(
    "slope", "", "gradient", "misstated", statement=Statement("differs", "the statement gives 3")
)


def test_the_comparison_survives_the_way_between_processes():
    assert decode(json.loads(encode(MISSTATED))) == MISSTATED


def test_a_verdict_from_before_statements_were_read_is_decoded():
    fields = json.loads(encode(MISSTATED._replace(verdict="holds", statement=None)))
    del fields["statement"]
    assert decode(fields) == MISSTATED._replace(verdict="holds", statement=None)


def test_the_page_and_the_paragraph_show_the_comparison():
    assert "statement: the statement gives 3" in describe(MISSTATED)
    page = to_html([(stated("3 x"), MISSTATED)])
    assert "differs: the statement gives 3" in page
    assert "misstated" in page


PICKED = {made.name: made for made in misstatements.claims()}
QUICK = ("layer_by_bias", "relu_layer_by_weights", "delta_2")
SLOW = (
    "softmax_jacobian_by_entries",
    "cross_entropy_by_weights",
    "logistic_update",
    "hidden_of_quartic_loss",
    "g_as_affine_map",
    "softmax_of_rows",
)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_a_statement_of_the_sources_agrees_and_mutants_do_not(name):
    made = PICKED[name]
    pool = [m for m in misstatements.mutants(made) if m.key not in misstatements.EQUIVALENT]
    some = misstatements.shuffled(pool, seed=1)[:5]
    assert misstatements.outcome(made) == ("agrees", "")
    assert len(some) == 5
    for mutant in some:
        assert misstatements.outcome(made, mutant.statement).outcome != "agrees", mutant
