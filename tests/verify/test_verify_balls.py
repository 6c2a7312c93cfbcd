"""Jaxprs on balls: against float64 JAX, and against mpmath's own formulas."""

import itertools
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax
from jax.scipy import special
from samples import made

from jaxnn.verify import verify
from jaxnn.verify.exact import Undecided
from jaxnn.verify.exact.balls import Balls, precision
from jaxnn.verify.exact.interpreter import compile
from jaxnn.verify.graph import Unsupported

BITS = 1200
INF, NAN = np.inf, np.nan


def traced(function, *arguments):
    with jax.enable_x64(True):
        return jax.make_jaxpr(function)(*arguments)


def precisely(function, *arguments, bits=BITS):
    """The results' leaves with every operation in 1200 bits."""
    return evaluate(traced(function, *arguments), jax.tree.leaves(arguments), bits)


def evaluate(closed, arguments, bits=BITS):
    balls, arrays = Balls(), map(np.asarray, arguments)
    with precision(bits):
        flat = [balls.exactly(a) if a.dtype.kind in "fc" else a for a in arrays]
        results = compile(closed, balls)(flat)
    return [np.reshape(r, aval.shape) for r, aval in zip(results, closed.out_avals, strict=True)]


def assert_as_float64(function, *arguments, rtol=1e-12):
    with jax.enable_x64(True):
        expected = [np.asarray(x) for x in jax.tree.leaves(jax.jit(function)(*arguments))]
    results = precisely(function, *arguments)
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        assert got.shape == want.shape
        if want.dtype.kind == "f":
            assert got.dtype == object
            np.testing.assert_allclose(got.astype(float), want, rtol=rtol, atol=1e-14)
        else:
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


def assert_equal_to(got, want, relative="1e-300"):
    """The balls are narrow and contain the numbers, anything that mpmath converts."""
    with mpmath.workprec(4 * BITS):
        for ball, b in zip(np.ravel(got), np.ravel(np.array(want, object)), strict=True):
            middle, radius = (mpmath.mpf(part) for part in (ball.mid(), ball.rad()))
            assert radius <= mpmath.mpf(relative) * abs(b), (ball, b)
            assert abs(middle - b) <= radius + abs(b) * mpmath.mpf(2) ** (-2.5 * BITS), (ball, b)


def ordinary(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


Z = np.array([0.3, -1.2, 2.5, 0.7])
M = ordinary(3, 4)
POSITIVE = np.array([0.2, 1.0, 3.7])
SMALL = np.array([-0.9, -0.25, 1e-3, 0.6])
MASK = np.array([True, False, False, True])
WHOLE = np.array([[4, -2, 7], [0, 3, -5]])

UNARY = {
    "abs": (jnp.abs, Z),
    "acos": (lax.acos, SMALL),
    "acosh": (lax.acosh, 1.0 + POSITIVE),
    "asin": (lax.asin, SMALL),
    "asinh": (lax.asinh, Z),
    "atan": (lax.atan, Z),
    "atanh": (lax.atanh, SMALL),
    "cbrt": (lax.cbrt, Z),
    "ceil": (lax.ceil, Z),
    "cos": (lax.cos, Z),
    "cosh": (lax.cosh, Z),
    "erf": (lax.erf, Z),
    "erf_inv": (lax.erf_inv, SMALL),
    "erfc": (lax.erfc, Z),
    "exp": (lax.exp, Z),
    "exp2": (lax.exp2, Z),
    "expm1": (lax.expm1, np.append(Z, 1e-9)),
    "floor": (lax.floor, Z),
    "integer_pow": (lambda x: lax.integer_pow(x, 3) + lax.integer_pow(x, -2), Z),
    "is_finite": (lax.is_finite, Z),
    "log": (lax.log, POSITIVE),
    "log1p": (lax.log1p, np.append(SMALL, 1e-9)),
    "logistic": (lax.logistic, Z),
    "neg": (lax.neg, Z),
    "round away": (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), 0.5 * WHOLE),
    "round to even": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), 0.5 * WHOLE),
    "rsqrt": (lax.rsqrt, POSITIVE),
    "sign": (lax.sign, Z),
    "sin": (lax.sin, Z),
    "sinh": (lax.sinh, Z),
    "sqrt": (lax.sqrt, POSITIVE),
    "square": (lax.square, Z),
    "tan": (lax.tan, Z),
    "tanh": (lax.tanh, Z),
}

BINARY = {
    "add": lax.add,
    "atan2": lax.atan2,
    "div": lax.div,
    "eq": lax.eq,
    "ge": lax.ge,
    "gt": lax.gt,
    "le": lax.le,
    "lt": lax.lt,
    "max": lax.max,
    "min": lax.min,
    "mul": lax.mul,
    "ne": lax.ne,
    "pow": lax.pow,
    "rem": lax.rem,
    "sub": lax.sub,
}

# XLA's own float64 erf_inv is right to about eleven digits only.
LOOSE = {"erf_inv": 1e-10}


@pytest.mark.parametrize("name", UNARY)
def test_function_of_one_number(name):
    function, x = UNARY[name]
    assert_as_float64(function, x, rtol=LOOSE.get(name, 1e-12))


@pytest.mark.parametrize("name", UNARY)
def test_special_values_of_one_number(name):
    x = np.array([INF, -INF, NAN, 0.0, 1.0, -1.0, 0.2, 0.5, -0.5, 2.0, -2.5, 40.0])
    assert_as_float64(UNARY[name][0], x, rtol=LOOSE.get(name, 1e-12))


@pytest.mark.parametrize("name", BINARY)
def test_function_of_two_numbers_with_special_values(name):
    numbers = [INF, -INF, NAN, 0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.7]
    x, y = np.array(list(itertools.product(numbers, numbers))).T
    assert_as_float64(BINARY[name], x, y)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (lambda x: jnp.where(x > 0, x, 2 * x), [Z]),
        (lambda x: lax.clamp(-1.0, x, 1.0), [np.append(Z, [NAN, INF])]),
        (lambda x, n: x ** n.astype(float), [Z, np.array([2, 0, -1, 3])]),
        (lambda x: lax.pow(x, 3), [Z]),
        (lambda m, x: (m & (x > 0)) | ~m ^ (x < 1), [MASK, Z]),
        (lambda n: (n * 2 - 3, -n, n // 2, n % 3, n < 2, abs(n), jnp.sum(n, 0)), [WHOLE]),
        (lambda n: (jnp.argmax(n, 1), jnp.sort(n), n.astype(float) / 3), [WHOLE]),
        (lambda n: jnp.where(n > 0, n, 2 * n), [WHOLE]),
        (lambda x: (x.astype(int), x.astype(bool)), [np.append(Z, [0.0, NAN, INF, -INF, 1e30])]),
        (lambda m: m.astype(float) * 2, [MASK]),
        (lambda x: x.astype(jnp.float32).astype(float), [np.append(Z, [1e40, NAN])]),
    ],
)
def test_choice_logic_and_types(function, arguments):
    assert_as_float64(function, *arguments)


REDUCTIONS = {
    "sum": lambda x: (jnp.sum(x), jnp.sum(x, 0), jnp.sum(x, 1)),
    "max": lambda x: (jnp.max(x), jnp.max(x, 0)),
    "min": lambda x: (jnp.min(x), jnp.min(x, 1)),
    "prod": lambda x: (jnp.prod(x), jnp.prod(x, 0)),
    "argmax": lambda x: (jnp.argmax(x), jnp.argmax(x, 0)),
    "argmin": lambda x: (jnp.argmin(x), jnp.argmin(x, 1)),
    "any, all": lambda x: (jnp.any(x > 1), jnp.all(x > -9, 1)),
    "cumsum": lambda x: (lax.cumsum(x, 1), lax.cumsum(x, 0, reverse=True)),
    "cumprod": lambda x: lax.cumprod(x, 1),
    "cummax": lambda x: (lax.cummax(x, 0), lax.cummin(x, 1, reverse=True)),
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 1),
    "sort": lambda x: (jnp.sort(x, 0), jnp.sort(x, 1), jnp.argsort(x, 1)),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_function_of_several_numbers(name):
    ties = np.round(M)
    assert_as_float64(lambda x, y: (REDUCTIONS[name](x), REDUCTIONS[name](y)), M, ties)


@pytest.mark.parametrize(
    "name", ["sum", "max", "min", "prod", "argmax", "argmin", "cummax", "sort"]
)
def test_several_numbers_with_nan_and_infinity(name):
    x = np.array([[1.0, NAN, INF], [-INF, 2.0, 0.0], [INF, -INF, NAN]])
    assert_as_float64(REDUCTIONS[name], x)


def test_cumulative_log_sum_exp_of_nothing_but_infinities():
    (got,) = precisely(lax.cumlogsumexp, np.array([-INF, -INF, 0.0, -INF, INF]))
    assert got.astype(float).tolist() == [-INF, -INF, 0.0, 0.0, INF]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: lax.reduce_max(x, (0,)), -INF),
        (lambda x: lax.reduce_min(x, (0,)), INF),
        (jnp.sum, 0.0),
        (jnp.prod, 1.0),
    ],
)
def test_reduction_of_nothing(function, expected):
    assert float(precisely(function, np.zeros(0))[0][()]) == expected


MOVES = {
    "broadcast": lambda x: jnp.broadcast_to(x[:, None, :], (3, 2, 4)) + x[0],
    "reshape": lambda x: (x.reshape(2, 6), x.ravel(), x[None], x[:1].squeeze(0)),
    "transpose": lambda x: (x.T, jnp.transpose(x[None], (2, 0, 1))),
    "slice": lambda x: (x[1:, ::2], x[0], x[::-1]),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x, jnp.ones((1, 4))], 0),
    "stack": lambda x: (jnp.stack([x, x], -1), jnp.unstack(x, axis=1)),
    "split": lambda x: jnp.split(x, 2, 1),
    "pad": lambda x: lax.pad(x, -1.5, [(1, 2, 0), (-1, 1, 2)]),
    "negative pad": lambda x: lax.pad(x, -1.5, [(-2, -1, 1), (0, -3, 0)]),
    "diagonal": lambda x: (jnp.diag(x[0]), jnp.diagonal(x), jnp.eye(3) @ x),
    "kron": lambda x: jnp.kron(x, x),
    "tile, roll": lambda x: (jnp.tile(x, 2), jnp.roll(x, 1)),
    "tril": jnp.tril,
    "set": lambda x: (x.at[1].set(7.0), x.at[:, 2].add(x[:, 0]), x.at[0, 0].multiply(3.0)),
    "iota": lambda x: x * lax.iota(float, 4),
}


@pytest.mark.parametrize("name", MOVES)
def test_moving_numbers(name):
    assert_as_float64(MOVES[name], M)


PLACES = {"fill": [0, 3, -1, 7, -9], "clip": [0, 3, -1, 7, -9], "promise_in_bounds": [0, 3]}


@pytest.mark.parametrize(("mode", "label"), [(mode, i) for mode in PLACES for i in PLACES[mode]])
def test_reading_at_a_traced_place(mode, label):
    assert_as_float64(lambda z, i: z.at[i].get(mode=mode), Z, np.asarray(label))


def test_reading_with_a_value_for_places_outside():
    assert_as_float64(
        lambda z, i: z.at[i].get(mode="fill", fill_value=-2.5), Z, np.array([[1, 9], [-7, 3]])
    )


@pytest.mark.parametrize("mode", ["drop", "clip"])
@pytest.mark.parametrize("method", ["set", "add", "subtract", "multiply", "max", "min"])
def test_writing_at_traced_places(method, mode):
    places = np.array([1, 3, 3, 0, 8]) if method != "set" else np.array([1, 8, 0])

    def write(x, i, u):
        return getattr(x.at[:, i], method)(u, mode=mode)

    assert_as_float64(write, M, places, ordinary(3, len(places), seed=1))


@pytest.mark.parametrize("start", [-5, 0, 1, 2, 9])
def test_a_traced_window_stays_inside(start):
    def window(x, i):
        return lax.dynamic_slice(x, (i, 1), (2, 3)), lax.dynamic_update_slice(x, x[:2, :2], (1, i))

    assert_as_float64(window, M, np.asarray(start))


@pytest.mark.parametrize(
    "subscripts", ["ij,kj->ik", "i,j->ij", "bij,bjk->bik", "bij,kbi->jbk", "ijk,kji->", "ij,ij->ij"]
)
def test_products(subscripts):
    sizes = {"i": 2, "j": 3, "k": 4, "b": 5}
    x, y = (ordinary(*[sizes[s] for s in term]) for term in subscripts.split("->")[0].split(","))
    assert_as_float64(lambda x, y: jnp.einsum(subscripts, x, y), x, y)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [([0.0, 1.0], [INF, 1.0], NAN), ([0.0, 1.0], [NAN, 1.0], NAN), ([INF, 1.0], [2.0, 1.0], INF)],
)
def test_products_with_special_values(x, y, expected):
    result = precisely(jnp.dot, np.array(x), np.array(y))[0][()]
    np.testing.assert_equal(float(result), expected)


def power_by_scan(x, n):
    return lax.scan(lambda c, y: (c * y + n, (c, y > 0, y)), 1.0, x, reverse=True)


CONTROL = {
    "scan": lambda x: power_by_scan(x, 2),
    "scan over integers": lambda x: lax.scan(lambda c, i: (c * x[i], i), 1.0, jnp.arange(4)),
    "scan of nothing": lambda x: lax.scan(lambda c, y: (c + y, y), 1.0, x[:0]),
    "gradient of scan": jax.grad(lambda x: power_by_scan(x, 1)[0]),
    "fori": lambda x: lax.fori_loop(0, 4, lambda i, s: s * x[i], 1.0),
    "while": lambda x: lax.while_loop(lambda s: s.sum() < 100, lambda s: s * 2 + x[0], x),
    "cond": lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x),
    "switch": lambda x: lax.switch(x.astype(int)[2], [jnp.sin, jnp.cos, jnp.exp], x),
    "gradient of cond": jax.grad(lambda x: lax.cond(x[1] > 0, jnp.sin, jnp.cos, x).sum()),
    "vmap of cond": jax.vmap(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x)),
    "checkpoint": jax.grad(jax.checkpoint(lambda x: jnp.sin(x).sum())),
    "jit": jax.jit(lambda x: jax.jit(jnp.sin)(x) + jax.jit(jnp.sin)(2 * x)),
    "stop_gradient": jax.grad(lambda x: (x * lax.stop_gradient(x)).sum()),
}


@pytest.mark.parametrize("name", CONTROL)
def test_control_flow(name):
    assert_as_float64(CONTROL[name], Z)


@jax.custom_vjp
def doubled(x):
    return x + x


doubled.defvjp(lambda x: (x + x, None), lambda _, g: (2 * g,))


def network(params, x, y):
    w1, b1, w2, b2 = params
    hidden = jnp.maximum(x @ w1 + b1, 0)
    return -(y * jax.nn.log_softmax(hidden @ w2 + b2)).sum() / x.shape[0]


PARAMS = (ordinary(4, 5), ordinary(5), ordinary(5, 3), ordinary(3))
ONE_HOT = np.eye(3)

DERIVATIVES = {
    "softmax, forward": (jax.jacfwd(jax.nn.softmax), [Z]),
    "softmax, reverse": (jax.jacrev(jax.nn.softmax), [Z]),
    "log_softmax": (jax.jacrev(jax.nn.log_softmax), [Z]),
    "logsumexp, second": (jax.hessian(jax.nn.logsumexp), [Z]),
    "softplus": (jax.grad(lambda z: jax.nn.softplus(z).sum()), [Z]),
    "softplus, second": (jax.hessian(lambda z: jax.nn.softplus(z).sum()), [Z]),
    "sigmoid, forward over reverse": (jax.hessian(lambda z: jax.nn.sigmoid(z).prod()), [Z]),
    "log_sigmoid": (jax.jacfwd(jax.nn.log_sigmoid), [Z]),
    "relu": (jax.grad(lambda z: (jax.nn.relu(z) ** 2).sum()), [Z]),
    "tanh": (jax.jacrev(jnp.tanh), [Z]),
    "maximum": (jax.jacrev(lambda z: jnp.maximum(z, z[::-1]) + z.max()), [Z]),
    "maximum with ties": (jax.grad(lambda z: z.max()), [np.array([1.0, 2.0, 2.0])]),
    "sort, reverse": (jax.jacrev(jnp.sort), [Z]),
    "sort, forward": (jax.jacfwd(jnp.sort), [Z]),
    "cumulative": (jax.jacrev(lambda z: lax.cumprod(z) + lax.cummax(z) + lax.cumsum(z)), [Z]),
    "cumlogsumexp": (jax.jacrev(lax.cumlogsumexp), [Z]),
    "label, reverse": (jax.grad(lambda z, i: -jax.nn.log_softmax(z)[i]), [Z, np.asarray(2)]),
    "label, forward": (jax.jacfwd(lambda z, i: jax.nn.softmax(z)[i]), [Z, np.asarray(2)]),
    "labels, vmapped": (
        jax.grad(lambda z, i: jax.vmap(lambda r, k: r[k] ** 2)(z, i).sum()),
        [M, np.array([3, 0, 3])],
    ),
    "take_along_axis": (
        jax.grad(lambda z, i: jnp.take_along_axis(z, i[:, None], 1).prod()),
        [M, np.array([3, 0, 3])],
    ),
    "where": (jax.grad(lambda z: jnp.where(z > 0, z**3, jnp.exp(z)).sum()), [Z]),
    "norm": (jax.hessian(jnp.linalg.norm), [Z]),
    "powers": (jax.jacfwd(lambda z: (z**2, z**-1, jnp.abs(z) ** 1.5, 2**z)), [Z]),
    "mean and variance": (jax.grad(lambda m: (m.var(0) / m.mean()).sum()), [M]),
    "products with batches": (
        jax.jacrev(lambda x, y: jnp.einsum("bij,bjk->bik", x, y), (0, 1)),
        [ordinary(2, 3, 2), ordinary(2, 2, 2)],
    ),
    "vmapped jacobians": (jax.vmap(jax.jacrev(jax.nn.softmax)), [M]),
    "network": (jax.grad(network), [PARAMS, M, ONE_HOT]),
    "update": (
        lambda p, x, y: jax.tree.map(lambda a, b: a - 0.1 * b, p, jax.grad(network)(p, x, y)),
        [PARAMS, M, ONE_HOT],
    ),
    "own derivative rule": (jax.grad(lambda z: (doubled(z) ** 2).sum()), [Z]),
    "inverse functions": (jax.jacfwd(lambda z: jnp.arctan(z) + jnp.arcsin(z)), [SMALL]),
    "gelu and friends": (
        jax.jacrev(lambda z: jax.nn.gelu(z, approximate=False) + jax.nn.elu(z) + jax.nn.silu(z)),
        [Z],
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name):
    function, arguments = DERIVATIVES[name]
    assert_as_float64(function, *arguments)


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("logits", [(37.4, 0.0, -1.0, -2.0), (700.0, 0.0, -1.0), (0.1, 0.1)])
def test_softmax_jacobian_in_full_precision(mode, logits):
    (got,) = precisely(mode(jax.nn.softmax), np.array(logits))
    with mpmath.workprec(3 * BITS):
        e = [mpmath.exp(mpmath.mpf(z)) for z in logits]
        p = [x / sum(e) for x in e]
        rest = [sum(e[:i] + e[i + 1 :]) / sum(e) for i in range(len(e))]  # 1 - p_i
        want = [
            [p[i] * rest[i] if i == j else -p[i] * p[j] for j in range(len(p))]
            for i in range(len(p))
        ]
    # 1 - p_i of a dominant logit cancels its leading bits: 1009 of them at 700.
    assert_equal_to(got, want, "1e-300" if logits[0] < 100 else "1e-50")


def test_derivative_of_a_sigmoid_far_below_zero():
    (got,) = precisely(jax.grad(jax.nn.sigmoid), np.asarray(-800.0))
    with mpmath.workprec(3 * BITS):
        e = mpmath.exp(-800)
        assert_equal_to(got, e / (1 + e) ** 2)


def test_log_sum_exp_of_numbers_far_apart():
    (got,) = precisely(jax.nn.logsumexp, np.array([1e4, -1e4]), bits=60_000)
    with mpmath.workprec(70_000), precision(60_000):
        assert_equal_to(got - 10_000, mpmath.log1p(mpmath.exp(-20_000)), "1e-9000")


@pytest.mark.parametrize(
    ("function", "x", "want"),
    [
        (lax.exp, 1e9, mpmath.exp),
        (lax.exp, -3e200, mpmath.exp),
        (lambda x: lax.exp(2.5e9 + x), 0.3, lambda x: mpmath.exp(mpmath.mpf(2.5e9) + x)),
        (lax.log1p, 1e-200, lambda x: x - x**2 / 2 + x**3 / 3),
        (lax.expm1, -1e-200, lambda x: x + x**2 / 2 + x**3 / 6),
        (lambda x: lax.log1p(lax.exp(x)), -2000.0, lambda x: mpmath.log1p(mpmath.exp(x))),
        (lambda x: lax.expm1(x * x), 1e-200, lambda x: x**2 + x**4 / 2),
        (lax.erf_inv, 0.3, mpmath.erfinv),
        (lax.erfc, 30.0, mpmath.erfc),
        (lax.cbrt, -0.1, lambda x: -mpmath.cbrt(-x)),
        (lax.rsqrt, 3.0, lambda x: 1 / mpmath.sqrt(x)),
        (lax.tanh, 0.7, mpmath.tanh),
        (lambda x: lax.pow(x, 0.3), 7e200, lambda x: x ** mpmath.mpf(0.3)),
        (lax.logistic, 3.0, lambda x: 1 / (1 + mpmath.exp(-x))),
        (lambda x: lax.zeta(2.0, x), 1.0, lambda x: mpmath.pi**2 / 6),
    ],
)
def test_functions_in_full_precision(function, x, want):
    (got,) = precisely(function, np.asarray(x))
    with mpmath.workprec(3 * BITS):
        assert_equal_to(got, want(mpmath.mpf(x)))


A = mpmath.mpf(2.5)


@pytest.mark.parametrize(
    ("function", "x", "want"),
    [
        (lax.bessel_i0e, -0.7, lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x))),
        (lax.bessel_i1e, -0.7, lambda x: mpmath.besseli(1, x) * mpmath.exp(-abs(x))),
        (lambda x: lax.igamma(2.5, x), 0.7, lambda x: mpmath.gammainc(A, 0, x, regularized=True)),
        (lambda x: lax.igammac(2.5, x), 0.7, lambda x: mpmath.gammainc(A, x, regularized=True)),
        (lambda x: lax.betainc(2.5, 1.0, x), 0.7, lambda x: x**A),
    ],
)
def test_special_functions_and_their_derivatives_are_enclosed(function, x, want):
    with mpmath.workprec(300):
        point = mpmath.mpf(x)
        expected = [want(point), mpmath.diff(want, point, h=mpmath.mpf(2) ** -90)]
        for f, number in zip((function, jax.grad(function)), expected, strict=True):
            (ball,) = precisely(f, np.asarray(x), bits=300)
            middle = mpmath.mpf(ball.item().mid())
            assert abs(middle - number) <= mpmath.mpf(10) ** -20 * abs(number)
            assert ball.item().rel_accuracy_bits() > 200


@pytest.mark.parametrize("function", [special.gamma, lambda x: jnp.ones(2).at[0].add(x), jnp.floor])
def test_a_scalar_taken_out_of_an_array_is_an_array(function):
    assert_as_float64(lambda x: function(x[0]), np.array([2.3, 1.0]))


def test_exponentials_go_beyond_the_range_of_float64():
    (got,) = precisely(lambda x: lax.log(lax.exp(lax.exp(x))), np.asarray(300.0))
    with mpmath.workprec(3 * BITS):
        assert_equal_to(got, mpmath.exp(300))


@pytest.mark.parametrize(
    ("function", "x", "expected"),
    [
        (lambda x: lax.exp(lax.exp(x)), 1e4, INF),
        (lambda x: lax.exp(-lax.exp(x)), 1e4, 0.0),
        (lambda x: lax.sinh(-lax.exp(x)), 1e4, -INF),
        (lambda x: lax.cosh(lax.exp(x)), 1e4, INF),
        (lambda x: lax.tanh(lax.exp(x)), 1e4, 1.0),
        (lambda x: lax.pow(0.5, lax.exp(x)), 1e4, 0.0),
        (lambda x: lax.sin(lax.exp(x)), 1e4, NAN),
        (lax.erfc, 1e100, 0.0),
        (lax.erfc, -1e100, 2.0),
        (lax.digamma, -3.0, NAN),
        (lambda x: lax.polygamma(1.0, x), -1e4, NAN),
    ],
)
def test_what_is_taken_at_infinity(function, x, expected):
    (got,) = precisely(function, np.asarray(x))
    np.testing.assert_equal(float(got[()]), expected)


def test_a_float64_is_taken_exactly():
    (got,) = precisely(lambda x: x + 1.0, np.array([5e-324, 0.1]))
    with mpmath.workprec(2 * BITS):
        assert got.tolist() == [mpmath.mpf(5e-324) + 1, mpmath.mpf(0.1) + 1]


def test_rounding_to_float32_is_numpys():
    (got,) = precisely(lambda x: x.astype(jnp.float32), np.array([0.1, 1e-50]))
    assert got.tolist() == [float(np.float32(0.1)), 0.0]


def test_a_compiled_program_serves_many_arguments_and_precisions():
    balls = Balls()
    run = compile(traced(lambda x, i: x[i] / 3, Z, np.asarray(0)), balls)
    for i, bits in itertools.product(range(4), [53, 400]):
        with precision(bits), mpmath.workprec(4000):
            got = run([balls.exactly(Z), np.asarray(i)])[0]
            assert_equal_to(got, mpmath.mpf(Z[i]) / 3, mpmath.mpf(2) ** (1 - bits))


def test_results_that_nobody_uses_are_not_computed():
    def function(x):
        lax.lgamma(x)
        return x + 1

    assert precisely(function, np.asarray(1.0))[0][()] == 2


def test_a_result_may_be_an_argument_or_a_constant():
    assert_as_float64(lambda x: (x, 2.5, x, jnp.arange(3), jnp.ones(2)), Z)


def test_arrays_that_a_function_closes_over():
    weight, place = ordinary(4), np.array([2, 0])
    assert_as_float64(lambda x: (x * weight)[place] + jnp.asarray(weight)[:2], Z)


def test_a_primitive_without_a_rule_is_named():
    with pytest.raises(Unsupported, match="nextafter"):
        precisely(lambda x: lax.nextafter(x, 2.0), POSITIVE)


def test_without_flint_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flint", None)
    claimed = made(lambda x: 2 * x, of=lambda x: jnp.sum(x**2))
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnn-basics\[verify\]'"):
        verify(claimed)


IMAGES, KERNEL = ordinary(2, 3, 6, 5), ordinary(4, 3, 3, 2, seed=1)
CHANNELS_LAST, DEPTHWISE = ordinary(2, 5, 4, 3), ordinary(3, 3, 1, 6, seed=1)
SQUARE, TALL = ordinary(4, 4), ordinary(4, 2)
DEFINITE = SQUARE @ SQUARE.T + np.eye(4)


def strided(x, w):
    padding = [(1, 2), (0, 1)]
    return lax.conv_general_dilated(x, w, (2, 1), padding, lhs_dilation=(1, 2), rhs_dilation=(2, 1))


def depthwise(x, w):
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=layout, feature_group_count=3
    )


def pooled(x, combine=lax.max, initial=-jnp.inf, size=(3, 2), padding="SAME", **dilation):
    ones = (1,) * (x.ndim - 2)
    return lax.reduce_window(
        x, initial, combine, (*ones, *size), (*ones, 2, 2), padding, **dilation
    )


def summed(function, by: int | tuple[int, ...] = 0):
    return jax.grad(lambda *x: jnp.sum(jnp.sin(function(*x))), by)


LARGE_OPERATIONS = {
    "convolution": (strided, [IMAGES, KERNEL]),
    "gradients of a convolution": (summed(strided, (0, 1)), [IMAGES, KERNEL]),
    "cropped convolution": (
        lambda x, w: lax.conv_general_dilated(x, w, (1, 1), [(-1, 0), (0, -2)]),
        [IMAGES, KERNEL],
    ),
    "depthwise convolution": (depthwise, [CHANNELS_LAST, DEPTHWISE]),
    "gradients of a depthwise one": (summed(depthwise, (0, 1)), [CHANNELS_LAST, DEPTHWISE]),
    "convolve": (jnp.convolve, [Z, SMALL]),
    "max-pool": (pooled, [IMAGES]),
    "gradient of a max-pool": (summed(pooled), [IMAGES]),
    "gradient of a max-pool with ties": (summed(pooled), [np.ones((4, 4))]),
    "max-pool, forward": (jax.jacfwd(pooled), [SQUARE]),
    "average-pool, dilated": (
        lambda x: pooled(x, lax.add, 0.0, window_dilation=(1, 1, 1, 2)),
        [IMAGES],
    ),
    "gradient of a max-pool of infinities": (
        jax.grad(lambda x: jnp.sum(jnp.arange(4.0) * pooled(x).ravel())),
        [np.full((4, 4), -INF)],
    ),
    "inverse": (jnp.linalg.inv, [SQUARE]),
    "rows exchanged": (lax.linalg.lu, [SQUARE]),
    "solve": (jnp.linalg.solve, [SQUARE, Z]),
    "gradient of solve": (summed(jnp.linalg.solve), [SQUARE, Z]),
    "determinant": (jnp.linalg.det, [SQUARE]),
    "slogdet of two": (jnp.linalg.slogdet, [np.stack([SQUARE, DEFINITE])]),
    "cholesky": (jnp.linalg.cholesky, [DEFINITE]),
    "gradient of cholesky": (summed(jnp.linalg.cholesky), [DEFINITE]),
    "qr": (jnp.linalg.qr, [SQUARE]),
    "qr, tall": (jnp.linalg.qr, [TALL]),
    "qr, wide": (jnp.linalg.qr, [TALL.T]),
    "eigh": (jnp.linalg.eigh, [DEFINITE]),
    "gradient of eigenvalues": (summed(lambda a: jnp.linalg.eigh(a)[0]), [DEFINITE]),
    "svd": (lambda a: jnp.linalg.svd(a, full_matrices=False), [TALL]),
    "svd, wide": (lambda a: jnp.linalg.svd(a, full_matrices=False), [TALL.T]),
    "gradient of the nuclear norm": (jax.grad(lambda a: jnp.linalg.norm(a, "nuc")), [SQUARE]),
    "matrix exponential": (jax.scipy.linalg.expm, [SQUARE]),
    "spectrum": (lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, [M]),
    "gradient of a spectrum": (jax.grad(lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 3)), [M]),
    "real spectrum": (jax.grad(lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x)) ** 3)), [M]),
    "real spectrum and back": (lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * (1 + 2j)), [M]),
    "both axes": (lambda x: jnp.real(jnp.fft.ifft2(jnp.fft.fft2(x) * (1 + 2j))), [M]),
    "gamma functions": (lambda x: lax.lgamma(x) + lax.digamma(jnp.abs(x)), [Z]),
    "median": (lambda x: jnp.median(x, axis=1), [M]),
    "largest entries": (lambda x: -jnp.sort(-x, axis=1)[:, :2], [M]),
    "random mask": (
        lambda x: x * jax.random.bernoulli(jax.random.key(0), 0.8, x.shape),
        [M],
    ),
}


@pytest.mark.parametrize("name", LARGE_OPERATIONS)
def test_large_operations(name):
    function, arguments = LARGE_OPERATIONS[name]
    assert_as_float64(function, *arguments, rtol=1e-9)


def test_an_inverse_is_enclosed():
    (got,) = precisely(jnp.linalg.inv, SQUARE)
    with mpmath.workprec(3 * BITS):
        assert_equal_to(got, mpmath.matrix(SQUARE.tolist()).apply(mpmath.mpf) ** -1)


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: jnp.where(x * (1 / x) > 1.0, 1.0, 2.0), 3.0),
        (lambda x: jnp.floor(jnp.log(jnp.exp(x))).astype(int), 2.0),
        (lambda x: jnp.linalg.eigh(x * jnp.eye(2))[1], 2.0),
        (lambda x: (jnp.sin(x) ** 2 + jnp.cos(x) ** 2 - 1).astype(jnp.float32), 0.7),
    ],
)
def test_what_the_balls_do_not_decide_is_undecided(function, x):
    with pytest.raises(Undecided):
        precisely(function, np.asarray(x))


@pytest.mark.parametrize("function", [lax.log, lax.sqrt, lambda x: 1 / x, lambda x: x**0.5])
def test_a_ball_around_a_pole_gives_any_number(function):
    (got,) = precisely(lambda x: function(jnp.sin(x) ** 2 + jnp.cos(x) ** 2 - 1), np.asarray(0.7))
    assert not got.item().is_finite()
    assert not got.item().is_nan()
