"""Certificates: formula and function equal in random towers of finite fields.

Attacks tried, by the tests below; none is certified:

- roots and signs: sqrt(x^2) = x, sqrt((x + 30)^2) = x + 30, |x| = x, max(x, y) = x, for real x
  log(x^2) = 2 log x and exp(log x) = x, powers of negative numbers;
- constants: off by an ulp, 1e-300 for 0, decimals for 1/3, log 2, e and sqrt(2), the primes of the
  towers of another claim, products of all of them as factors and in exponents;
- exponents: x^p = x and x^(p - 1) = 1 for a prime of the towers, as one power (refused) and as
  products of squares (other primes are drawn, since the program's text seeds the draw);
- zeros and infinities: 0 * inf, (x - x) / (x - x), divisors that vanish, overflow, underflow,
  limits decided by the sign of an input (0^y, inf y, y / 0), negative zeros;
- formulas that hold on a part of the inputs: for symmetric matrices, for one class, for x > 0;
- functions without a model: sin(2 x) = 2 sin x, lgamma, erf = tanh; true ones are no certificate
  either where they need more than equal operands, such as cos^2 + sin^2 = 1;
- random expressions: thousands of them, all pairs with equal residues compared by mpmath; the
  search found 0^y = 0 and 1 / sqrt(-0) = -inf, true for some signs of y or of zeros only;
- towers: repeated chains, levels without residues, exponentials too deep in one another.

A certificate on sign patterns is one on the patterns drawn: where(x > -20, x, 0) = x holds on all
ordinary inputs, and the awkward inputs of ``verify`` refute the claim, not the certificate.
"""

import json
import math
import operator
import random
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from experiments.mutants import CORRECT, MUTANTS, judging
from jaxnn import losses
from jaxnn.verify import (
    binary,
    claim,
    comparison,
    interval,
    label,
    one_hot,
    positive,
    positive_definite,
    real,
    report,
    simplex,
    symmetric,
    verify,
)
from jaxnn.verify.__main__ import main
from jaxnn.verify.exact import Undecided
from jaxnn.verify.exact.certificate import _digest
from jaxnn.verify.exact.residues import Residues
from jaxnn.verify.exact.towers import LEVELS, Towers, chains
from jaxnn.verify.graph import Unsupported
from jaxnn.verify.inputs import draw_sizes
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.verdict import Certificate, Verdict
from jaxnn.verify.worker import decode, encode

sympy = pytest.importorskip("sympy")


def traced_claim(made, seed=0):
    with jax.enable_x64(True):
        sizes = tuple(draw_sizes(made.inputs, seed).items())
        return comparison.trace_claim(made, sizes, both_modes=False)


certificate = partial(judging.certified, seconds=20.0)


def equation(left, right, **inputs):
    """The claim that two functions are equal."""
    return claim(of=left, kind="value", inputs=inputs)(right)


SCALARS = {"x": real(), "y": real(), "p": positive(), "q": positive()}
NAMES = "abs acosh asinh atanh cbrt cos cosh exp expm1 floor log log1p sin sinh sqrt tan tanh"


def _functions(module, **others):
    return {name: getattr(module, name) for name in NAMES.split() if hasattr(module, name)} | others


OF_JAX = _functions(
    jnp, max=jnp.maximum, min=jnp.minimum, erf=jax.scipy.special.erf, where=jnp.where,
    lgamma=jax.scipy.special.gammaln, sigmoid=jax.nn.sigmoid, exp2=jnp.exp2, log2=jnp.log2,
)  # fmt: skip


def _real_log(x):
    if x < 0:
        raise ZeroDivisionError("a pole or a branch cut")
    return mpmath.log(x)


OF_MPMATH = _functions(
    mpmath, max=max, min=min, abs=abs, where=lambda c, a, b: a if c else b,
    lgamma=mpmath.loggamma, sigmoid=lambda x: 1 / (1 + mpmath.exp(-x)), erf=mpmath.erf,
    exp2=lambda x: mpmath.mpf(2) ** x, log2=lambda x: mpmath.log(x, 2),
    log=_real_log, cbrt=lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
)  # fmt: skip


def scalar_equation(left, right):
    """The claim that two expressions in x, y (real), p and q (positive) are equal."""

    def function(code):
        return lambda x, y, p, q: jnp.asarray(
            eval(code, {**OF_JAX, "x": x, "y": y, "p": p, "q": q})
        )

    return equation(function(left), function(right), **SCALARS)


def truly_equal(left, right):
    """mpmath's opinion, at points of all signs, with 400 digits."""
    with mpmath.workdps(400):
        for x, y in ((1.3, -0.7), (-1.9, 0.4), (0.6, 2.2), (-40.3, -1.1)):
            given = {
                name: mpmath.mpf(value)
                for name, value in zip("xypq", (x, y, 0.8, 2.7), strict=True)
            }
            try:
                a, b = (eval(code, {**OF_MPMATH, **given}) for code in (left, right))
            except ZeroDivisionError:
                return False
            size = abs(a) + abs(b)
            if mpmath.im(a) or mpmath.im(b) or abs(a - b) > size * mpmath.mpf(10) ** -350:
                return False
    return True


TRUE = [
    ("exp(x + y)", "exp(x) * exp(y)"),
    ("log(p * q)", "log(p) + log(q)"),
    ("exp(log(p + q))", "p + q"),
    ("exp(2 * log(p + q) - log(q))", "(p + q) ** 2 / q"),
    ("log(exp(x) + exp(y))", "x + log(1 + exp(y - x))"),
    ("sqrt(p) ** 2", "p"),
    ("sqrt(p * q)", "sqrt(p) * sqrt(q)"),
    ("(p + q) / sqrt(p + q)", "sqrt(p + q)"),
    ("p ** x", "exp(x * log(p))"),
    ("(p ** x) ** y", "p ** (x * y)"),
    ("p ** 0.5", "sqrt(p)"),
    ("exp(x / sqrt(9.0))", "exp(x / 3)"),
    ("p ** -1.5", "1 / (p * sqrt(p))"),
    ("cbrt(x) ** 3", "x"),
    ("sigmoid(x)", "1 - sigmoid(-x)"),
    ("tanh(x)", "2 * sigmoid(2 * x) - 1"),
    ("cosh(x) ** 2 - sinh(x) ** 2", "1 + 0 * x"),
    ("asinh(sinh(p))", "log(sinh(p) + sqrt(sinh(p) ** 2 + 1))"),
    ("atanh(tanh(x) / 2)", "log((2 + tanh(x)) / (2 - tanh(x))) / 2"),
    ("expm1(log1p(p))", "p"),
    ("log2(8 * p)", "3 + log2(p)"),
    ("exp2(x + 1)", "2 * exp2(x)"),
    ("sin(-x * y)", "-sin(y * x)"),
    ("cos(x - y)", "cos(y - x)"),
    ("erf(-x) + erf(x)", "0 * x"),
    ("abs(x)", "sqrt(x ** 2)"),
    ("abs(x * y)", "abs(x) * abs(y)"),
    ("max(x, y) + min(x, y)", "x + y"),
    ("max(x, y) ** 2", "max(y, x) ** 2"),
    ("log(1 + exp(x))", "max(x, 0) + log1p(exp(-abs(x)))"),
    ("where(x > y, x - y, 0)", "max(x - y, 0)"),
    ("x / 3", "x * 2 / 6"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), TRUE)
def test_equal_expressions_are_certified(left, right):
    assert truly_equal(left, right)
    assert isinstance(certificate(scalar_equation(left, right)), Certificate)


FALSE = [
    ("sqrt(x ** 2)", "x"),
    ("sqrt((x + 30) ** 2)", "x + 30 + 0 * y"),
    ("sqrt((x - y) ** 2)", "x - y"),
    ("sqrt(x ** 2 * y ** 2)", "x * y"),
    ("abs(x)", "x"),
    ("abs(x)", "-x"),
    ("max(x, y)", "x"),
    ("max(x, y)", "x + y"),
    ("min(x, y)", "max(x, y)"),
    ("log(x ** 2)", "2 * log(x)"),
    ("exp(log(x))", "x"),
    ("(x ** 2) ** 0.5", "x"),
    ("(x ** 3) ** (1 / 3)", "x"),
    ("log(p + q)", "log(p) + log(q)"),
    ("exp(x * y)", "exp(x) * exp(y)"),
    ("exp(x)", "1 + x"),
    ("x * 1.0000000000000002", "x"),
    ("x + 1e-300", "x"),
    ("x * 1e-300", "0 * x"),
    ("x * 0.3333333333333333", "x / 3"),
    ("x * 0.30000000000000004", "x * 0.3"),
    ("x * log(2.0)", "x * 0.6931471805599453"),
    ("x * exp(1.0)", "x * 2.718281828459045"),
    ("x * sqrt(2.0)", "x * 1.4142135623730951"),
    ("sigmoid(x)", "sigmoid(x) + 1e-17 * sigmoid(y)"),
    ("(x - x) * (1 / (y - y))", "0 * x"),
    ("(x - x) / (y - y)", "1 + 0 * x"),
    ("exp(-exp(exp(7 + p)))", "0 * x"),
    ("x * exp(-800.0 - p)", "0 * x"),
    ("1 / (1 + exp(800.0 + p))", "0 * x"),
    ("sin(2 * x)", "2 * sin(x)"),
    ("sin(x)", "x"),
    ("cos(x)", "sin(x)"),
    ("cos(-x)", "-cos(x)"),
    ("erf(x)", "tanh(x)"),
    ("lgamma(p)", "log(p)"),
    ("tanh(0 ** x)", "0 * x"),
    ("tanh(log(0 * x) * y)", "1 + 0 * x"),
    ("exp(y / (0 * x))", "0 * x"),
    ("tanh(1 / sqrt(0 * -p))", "-1 + 0 * x"),
    ("floor(x)", "x"),
    ("where(x > 0, x, 0)", "x"),
    ("where(x > y, 1.0, 0.0)", "1 + 0 * x"),
    ("x ** 64", "x"),
    ("tanh(x)", "sigmoid(x)"),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), FALSE)
def test_unequal_expressions_are_not_certified(left, right):
    assert not truly_equal(left, right)
    made = scalar_equation(left, right)
    assert {type(certificate(made, seed)) for seed in range(3)} == {str}


@pytest.mark.parametrize(
    "made",
    [
        equation(lambda a, x: x @ a, lambda a, x: a @ x, a=real("n", "n"), x=real("n")),
        equation(lambda a: a @ a.T, lambda a: a.T @ a, a=real("n", "n")),
        equation(lambda a, x: x @ a @ x, lambda a, x: 0 * x[0], a=symmetric(3), x=real(3)),
        equation(lambda x: jnp.sqrt(x**2), lambda x: x, x=interval(-1, 1, "n")),
        equation(lambda a: a @ a, lambda a: a, a=positive_definite(3)),
        equation(lambda y: y, lambda y: jnp.eye(len(y))[0], y=one_hot("C")),
        equation(lambda y: y**2, lambda y: 2 * y - 1, y=binary("N")),
        equation(lambda y: jnp.sum(y**2), lambda y: jnp.sum(y), y=simplex("C")),
        equation(lambda y, z: z[y], lambda y, z: z[0], y=label("C"), z=real("C")),
        equation(lambda x: jnp.sort(x), lambda x: x, x=real("n")),
        equation(lambda x: jnp.argmax(x), lambda x: jnp.zeros(()), x=real("n")),
    ],
)
def test_what_holds_on_a_part_of_the_inputs_is_not_certified(made):
    assert {type(certificate(made, seed)) for seed in range(4)} == {str}


@pytest.mark.parametrize(
    "made",
    [
        equation(lambda y: jnp.sum(y, 0), lambda y: jnp.ones(()), y=one_hot("C")),
        equation(lambda y: y**2, lambda y: y, y=one_hot("C")),
        equation(lambda y: y * (1 - y), lambda y: 0 * y, y=binary("N")),
        equation(lambda y: 1 - y[0], lambda y: jnp.sum(y[1:]), y=simplex("C")),
        equation(
            lambda y: jnp.sum(y, axis=0),
            lambda y: jnp.ones(y.shape[1]),
            y=simplex("C", "B", axis=0),
        ),
        equation(lambda a, x: x @ a, lambda a, x: a @ x, a=symmetric("n"), x=real("n")),
        equation(lambda a, x: x @ a, lambda a, x: a @ x, a=positive_definite(3), x=real(3)),
        equation(
            lambda a: jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(a)))),
            lambda a: jnp.log(jnp.linalg.det(a)) / 2,
            a=positive_definite(3),
        ),
        equation(
            lambda x: jnp.sqrt(1 - x) * jnp.sqrt(1 + x),
            lambda x: jnp.sqrt(1 - x**2),
            x=interval(-1, 1, "n"),
        ),
        equation(
            lambda y, z: jax.nn.one_hot(y, len(z)) @ z, lambda y, z: z[y], y=label("C"), z=real("C")
        ),
    ],
)
def test_the_constraints_of_inputs_are_constraints_of_residues(made):
    assert isinstance(certificate(made), Certificate)


def towers_of(made, seed=0):
    """The towers in which a claim is judged with a seed."""
    return Towers(np.random.default_rng(_digest(traced_claim(made, seed), seed)), 16)


HONEST = scalar_equation("x * y", "y * x")


def vanishing_factors():
    """Floats near 1 with a product that is zero modulo all primes of the honest claim."""
    return [prime / 2**30 for prime in towers_of(HONEST).primes.ravel().tolist()]


def test_constants_that_vanish_in_known_towers_do_not_vanish_in_others():
    factors = vanishing_factors()

    def product(start):
        return math.prod(factors[:30]) * start  # rounded; the program below is exact

    def tiny(x):
        for factor in factors:
            x = x * factor * 0.5
        return x * 2.0**-200

    assert abs(product(1.0)) > 0
    for false in (lambda x, y: x * y + tiny(x), lambda x, y: x * y * jnp.exp(tiny(x))):
        made = equation(lambda x, y: x * y, false, x=real(), y=real())
        assert {type(certificate(made, seed)) for seed in range(3)} == {str}


@pytest.mark.parametrize(
    "nested", [jax.jit, jax.checkpoint, lambda f: lambda x: jax.lax.map(f, x[None])[0]]
)
def test_constants_inside_calls_decide_on_the_towers_too(nested):
    def false(factors):
        constants = np.array(factors)
        tiny = nested(lambda x: jnp.prod(constants) * x * 2.0**-300)
        return equation(lambda x, y: x * y, lambda x, y: x * y + tiny(x), x=real(), y=real())

    primes = towers_of(false([1.0] * 64)).primes.ravel().tolist()
    attack = false([prime / 2**30 for prime in primes])
    assert not {*towers_of(attack).primes.ravel().tolist()} & {*primes}
    assert isinstance(certificate(attack), str)


def test_the_same_constants_would_vanish_in_the_known_towers():
    arithmetic = Residues(towers_of(HONEST))
    product = arithmetic.exactly(np.array([1.0]))
    for factor in vanishing_factors():
        product = arithmetic.apply("mul", product, arithmetic.exactly(np.array([factor])))
    assert not product.residues.any()


@pytest.mark.parametrize("less", [0, 1])
def test_powers_of_the_order_of_known_fields_are_no_identity_in_others(less):
    (prime, *_), *_ = towers_of(HONEST).primes.tolist()
    for towers, holds in ((towers_of(HONEST), True), (towers_of(HONEST, 1), False)):
        x = towers.uniform(1)
        power, equal = towers.power(x, np.array(prime - less, np.uint64)), x if less == 0 else 1
        assert np.all((power == equal)[0, 0, 0]) == holds
        assert not np.all(power == equal)


@pytest.mark.parametrize("exponent", [2**30, 5000])
def test_a_large_power_is_refused(exponent):
    made = equation(lambda p: p**exponent, lambda p: 0 * p + p**exponent, p=simplex("n"))
    assert "too large a degree" in certificate(made)


UNARY = [
    "exp", "log", "sqrt", "square", "tanh", "logistic", "cbrt", "log1p", "rsqrt", "sin", "cos",
    "neg",
]  # fmt: skip
BINARY = ["add", "sub", "mul", "div", "add", "mul", "max", "min", "pow"]
CONSTANTS = {"0": 0.0, "1": 1.0, "2": 2.0, "1/2": 0.5, "-1": -1.0, "3": 3.0}


def _power_of(x, y):
    if y == mpmath.nint(y) and abs(y) < 1000:
        return x ** int(y)
    return x**y if x > 0 else 1 / mpmath.mpf(0)


NUMBERS = {name: getattr(operator, name) for name in ("add", "sub", "mul", "neg")} | {
    "div": operator.truediv, "max": max, "min": min, "pow": _power_of, "tanh": mpmath.tanh,
    "exp": lambda x: mpmath.exp(min(x, 10**6)), "sin": mpmath.sin, "cos": mpmath.cos,
    "log": OF_MPMATH["log"], "log1p": lambda x: OF_MPMATH["log"](1 + x),
    "square": lambda x: x * x, "logistic": OF_MPMATH["sigmoid"], "cbrt": OF_MPMATH["cbrt"],
    "sqrt": lambda x: mpmath.sqrt(x) if x >= 0 else 1 / mpmath.mpf(0),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x) if x > 0 else 1 / mpmath.mpf(0),
}  # fmt: skip


def value(tree, inputs):
    """The value of an expression, (function, *operands) or a name, in mpmath's numbers."""
    if isinstance(tree, str):
        return mpmath.mpf(CONSTANTS[tree]) if tree in CONSTANTS else inputs[tree]
    return NUMBERS[tree[0]](*(value(operand, inputs) for operand in tree[1:]))


def random_expressions(seed, count):
    """Expressions in x, y (real), p, q (positive) and constants, with residues."""
    rng, choice = np.random.default_rng(seed), random.Random(seed).choice
    arithmetic = Residues(Towers(rng, 32))
    found: dict[Any, Any] = {
        name: arithmetic.exactly(np.array([number])) for name, number in CONSTANTS.items()
    }
    for name, shadow, residues in (
        ("x", 1.3, arithmetic.towers.uniform(1)), ("y", -0.6, arithmetic.towers.uniform(1)),
        ("p", 0.8, arithmetic.towers.squares(1)), ("q", 1.7, arithmetic.towers.squares(1)),
    ):  # fmt: skip
        number = arithmetic.exactly(np.array([shadow]))
        found[name] = replace(number, residues=residues, constant=False)
    while len(found) < count:
        name = choice(UNARY + BINARY)
        tree = (name, *(choice([*found][:200]) for _ in range(1 + (name in BINARY))))
        with suppress(Undecided, Unsupported):
            operands = [found[operand] for operand in tree[1:]]
            square = name == "square"
            number = operands[0] * operands[0] if square else arithmetic.apply(name, *operands)
            if np.isfinite(number.shadow[0]) and np.count_nonzero(number.known) >= 16:
                found[tree] = number
    return found


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 500), *(pytest.param(seed, 5000, marks=pytest.mark.slow) for seed in (1, 2, 3))],
)
def test_random_expressions_with_equal_residues_are_equal(seed, count):
    found, buckets = random_expressions(seed, count), {}
    for tree, number in found.items():
        for draw_, level in np.argwhere(number.known).tolist():
            place = draw_, level, int(number.residues[0, draw_, level])
            buckets.setdefault(place, []).append(tree)
    equal = 0
    for first, second in {(trees[0], tree) for trees in buckets.values() for tree in trees[1:]}:
        known = found[first].known & found[second].known
        same = (found[first].residues == found[second].residues)[0][known]
        if np.all(same) and len(same) >= 16:
            equal += 1
            for x, y, p, q in ((1.1, 0.7, 0.3, 2.9), (-0.4, 1.9, 1.2, 0.6), (-2.3, -0.8, 3.1, 1.4)):
                with mpmath.workdps(60), suppress(ZeroDivisionError):
                    inputs = {n: mpmath.mpf(v) for n, v in zip("xypq", (x, y, p, q), strict=True)}
                    a, b = value(first, inputs), value(second, inputs)
                    assert abs(a - b) <= mpmath.mpf(10) ** -40 * (1 + abs(a)), (first, second)
    assert equal > count / 20


def test_chains_are_distinct_chains_of_primes():
    found = chains(np.random.default_rng(5), 40)
    assert len({*map(tuple, found.tolist())}) == 40
    for chain in found.tolist():
        assert all(map(sympy.isprime, chain))
        assert 2**27 < chain[-1] < 2**28
        assert all(p == 2 * q + 1 for p, q in pairwise(chain))


def test_other_seeds_and_other_programs_have_other_towers():
    other = scalar_equation("x * y", "y * x + 0")
    found = [towers_of(HONEST, 0), towers_of(HONEST, 1), towers_of(other, 0)]
    assert not set.intersection(*({*map(int, towers.primes[:, 0])} for towers in found))


def test_logarithms_are_exponents_of_the_generators():
    towers = Towers(np.random.default_rng(0), 2)
    squares, everywhere = towers.squares(3), np.ones((2, LEVELS), bool)
    logarithms = towers.log(squares, everywhere)
    for entry, draw_, level in np.ndindex(3, 2, LEVELS - 1):
        generator, prime = int(towers.generators[draw_, level]), int(towers.primes[draw_, level])
        exponent = int(logarithms[entry, draw_, level + 1])
        assert exponent < towers.primes[draw_, level + 1]
        assert pow(generator, exponent, prime) == squares[entry, draw_, level]


def test_inverses_and_powers_are_those_of_the_integers():
    towers = Towers(np.random.default_rng(0), 2)
    x = towers.uniform(5)
    x[2] = 0
    inverse, cube = towers.inverse(x), towers.power(x, np.array(3, np.uint64))
    for index in np.ndindex(x.shape):
        number, prime = int(x[index]), int(towers.primes[index[1:]])
        assert inverse[index] == (pow(number, -1, prime) if number else 0)
        assert cube[index] == pow(number, 3, prime)


def test_the_residues_of_floats_are_those_of_their_fractions():
    arithmetic = Residues(Towers(np.random.default_rng(0), 2))
    floats = np.array([0.1, -1e300, 5e-324, 2.0**70, -3.0])
    residues = arithmetic.exactly(floats).residues
    for entry, number in enumerate(floats.tolist()):
        for index, prime in np.ndenumerate(arithmetic.towers.primes):
            fraction = sympy.Rational(number)
            expected = int(fraction.p) * pow(int(fraction.q), -1, int(prime)) % int(prime)
            assert residues[(entry, *index)] == expected


def newton(x):
    """The square root of 2 from any start."""
    return jax.lax.while_loop(
        lambda s: abs(s * s - 2) > 1e-9, lambda s: s / 2 + 1 / s, x[0, 0] ** 2 + 1
    )


@pytest.mark.parametrize(
    ("of", "formula", "reason"),
    [
        (lambda x: jnp.linalg.eigvalsh(x @ x.T).sum(), lambda x: jnp.trace(x @ x.T), "eigh"),
        (lambda x: jnp.sum(jnp.abs(x + 1j)), lambda x: jnp.sum(jnp.sqrt(x**2 + 1)), "complex"),
        (lambda x: jnp.sin(2 * x), lambda x: 2 * jnp.sin(x) * jnp.cos(x), "cos, sin"),
        (lambda x: jnp.exp(jnp.exp(jnp.exp(jnp.exp(x)))), None, "too deep"),
        (lambda x: x.astype(jnp.float32).astype(float), None, "fewer bits"),
        (
            lambda x: jnp.sum(jnp.ones((600, 600)) @ jnp.tile(x, 200).T),
            lambda x: jnp.sum(x),
            "too large",
        ),
        (newton, lambda x: jnp.sqrt(2.0) + 0 * x[0, 0], "while"),
    ],
)
def test_the_reason_for_no_certificate_names_the_operation(of, formula, reason):
    made = equation(of, formula or (lambda x: of(x) + 0 * x), x=interval(-2, 0, 3, 3))
    assert reason in certificate(made)


def test_without_time_there_is_no_certificate():
    assert certificate(HONEST, seconds=1e-9) == "not done in 1e-09 s"


def jacobian_of_softmax(formula, **declaration):
    return claim(
        of=lambda z: losses.softmax(z),
        wrt="z",
        kind="jacobian",
        inputs={"z": real("C")},
        **declaration,
    )(formula)


def right(z):
    """diag(p) - p p^T."""
    p = losses.softmax(z)
    return jnp.diag(p) - jnp.outer(p, p)


def certified(made, seed=0):
    """The verdict with a certificate."""
    verdict = verify(made, trials=200, seed=seed)
    assert verdict.certificate, verdict.uncertified
    return verdict, verdict.certificate


def test_a_verdict_has_the_certificate():
    verdict, (sizes, patterns, towers, bound, seconds) = certified(jacobian_of_softmax(right))
    assert (dict(sizes), patterns, verdict.uncertified) == ({"C": 3}, 0, "")
    assert towers >= 8
    assert bound < -100
    assert 0 < seconds < verdict.seconds
    assert verdict.words == "holds, certified"


def test_a_certificate_that_rests_on_comparisons_counts_sign_patterns():
    made = equation(lambda x: jax.nn.relu(x), lambda x: x * (x > 0), x=real("n"))
    verdict, found = certified(made)
    assert found.patterns == 3
    assert report.certificate(verdict) == (
        f"on 3 sign patterns, sizes n = 3, in {found.towers} random towers of fields, "
        "error below 2^-100"
    )


def test_a_formula_that_holds_without_a_certificate_says_why():
    made = equation(lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2, lambda x: 1 + 0 * x, x=real())
    verdict = verify(made, trials=200)
    assert (verdict.verdict, verdict.certificate) == ("holds", None)
    assert "cos, sin" in verdict.uncertified
    assert report.findings(verdict) == f"not certified: {verdict.uncertified}"


@pytest.mark.parametrize(
    ("formula", "declaration"),
    [
        (lambda z: losses.softmax(z) * (1 - losses.softmax(z)), {}),
        (lambda z: -right(z), {}),
        (right, {"certify": False}),
    ],
)
def test_a_wrong_formula_has_no_certificate_nor_one_that_asks_for_none(formula, declaration):
    verdict = verify(jacobian_of_softmax(formula, **declaration), trials=200)
    assert (verdict.certificate, verdict.uncertified) == (None, "")


def matrix_gradient(formula, layout):
    return claim(
        of=lambda w, x, g: g @ jnp.tanh(w @ x), wrt="w", kind="gradient", layout=layout,
        inputs={"w": real("m", "n"), "x": real("n"), "g": real("m")},
    )(formula)  # fmt: skip


def in_rows(w, x, g):
    return jnp.outer(x, g * (1 - jnp.tanh(w @ x) ** 2))


@pytest.mark.parametrize("layout", ["transpose", None])
def test_a_certificate_covers_the_layout_declared_or_found(layout):
    verdict, found = certified(matrix_gradient(in_rows, layout))
    assert verdict.verdict == ("holds" if layout else "holds_other_layout")
    assert found.patterns == 0


def test_a_condition_on_the_inputs_holds_at_the_points_that_decide():
    made = claim(
        of=lambda q, k, m: jax.nn.logsumexp(jnp.where(m > 0, k @ q, -jnp.inf)),
        wrt="q", kind="gradient", where=lambda m: jnp.any(m > 0),
        inputs={"q": real("d"), "k": real("S", "d"), "m": binary("S")},
    )(lambda q, k, m: jax.nn.softmax(jnp.where(m > 0, k @ q, -jnp.inf)) @ k)  # fmt: skip
    assert certified(made)[1].patterns == 3


def test_equal_seeds_give_equal_certificates():
    made = jacobian_of_softmax(right)
    (_, first), (_, second) = certified(made, seed=1), certified(made, seed=1)
    assert first[:4] == second[:4]


def test_a_certificate_passes_from_process_to_process_and_into_reports():
    made = jacobian_of_softmax(right)
    verdict = verify(made, trials=200)
    decoded = decode(json.loads(encode(verdict)))
    assert isinstance(decoded, Verdict)
    assert decoded.certificate == verdict.certificate
    (entry,) = json.loads(to_json([verdict]))
    assert entry["certificate"]["sizes"] == {"C": 3}
    page = to_html([(made, verdict)])
    assert "holds, certified" in page
    assert "for all inputs, sizes C = 3, in 16 random towers" in page
    assert "proved" not in page


def test_a_claim_says_whether_to_certify():
    with pytest.raises(ValueError, match="certify is 1, expected True or False"):
        jacobian_of_softmax(right, certify=1)


def test_the_command_line_leaves_certificates_out(tmp_path):
    file, verdicts = tmp_path / "claims.py", tmp_path / "verdicts.json"
    file.write_text(
        "import jax\nfrom jaxnn.verify import claim, real\n"
        "@claim(of=jax.nn.silu, kind='value', inputs={'x': real()})\n"
        "def silu(x):\n    return x * jax.nn.sigmoid(x)\n"
    )
    options = [str(file), "--workers", "0", "--trials", "100", "--json", str(verdicts)]
    for option, certified in (("--certify", True), ("--no-certify", False)):
        assert main([*options, option]) == 0
        ((entry),) = json.loads(verdicts.read_text())
        assert (entry["certificate"] is not None) == certified


@pytest.mark.slow
def test_right_derivations_are_certified():
    found = [certificate(made, seconds=2.0) for made in CORRECT]
    certified = [isinstance(result, Certificate) for result in found]
    assert np.mean(certified) >= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_mutants_are_not_certified(seed):
    """Every mutant with one of the seeds; ``confusion_matrix.py --certificates`` has any number."""
    wrong = [mutant.claim for mutant in MUTANTS if mutant.verdict == "refuted"][seed::5]
    found = {made.name: certificate(made, seed, seconds=2.0) for made in wrong}
    assert not [name for name, result in found.items() if isinstance(result, Certificate)]
