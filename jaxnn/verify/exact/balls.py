"""Balls: numbers of python-flint's ``arb`` and ``acb``, enclosures of the true values.

A ball is a midpoint with a rigorous bound of the error. Infinities and NaN follow IEEE 754; there
is no negative zero. Where the operands may lie at a pole or outside of the domain, as far as the
balls tell, the result is the ball of all numbers.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import flint
import numpy as np
from flint import acb, acb_mat, arb

from jaxnn.verify.exact import Arithmetic, Numbers, Run, Undecided
from jaxnn.verify.graph import Unsupported, parameter

Ball = Any  # arb; acb for a complex number

ZERO, ONE, HALF, TWO = arb(0), arb(1), arb(0.5), arb(2)
INFINITY, NAN = arb("inf"), arb("nan")
ANYTHING = arb(0, INFINITY)
"""The ball of all numbers."""

LARGEST = arb(2) ** 4096
"""Exponentials and trigonometric functions of larger numbers have the value at infinity."""


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Operations on balls round to so many bits."""
    before, flint.ctx.prec = flint.ctx.prec, bits
    try:
        yield
    finally:
        flint.ctx.prec = before


def is_infinite(x: arb) -> bool:
    """Whether a ball is an infinity, rather than a finite number known badly."""
    return not x.is_finite() and bool(x > 0 or x < 0)


def _function(
    name: str,
    below: Ball = NAN,
    above: Ball = NAN,
    least: float = -np.inf,
    most: float = np.inf,
    ends: tuple[Ball, Ball] | None = None,
    saturates: bool = False,
) -> Callable[[Ball], Ball]:
    """A method of balls with the values at the infinities, the domain, the values at its ends."""

    def function(x: Ball) -> Ball:
        if isinstance(x, acb):
            return getattr(x, name)()
        if x.is_nan():
            return NAN
        if is_infinite(x) or (saturates and abs(x) > LARGEST):
            return above if x > 0 else below
        if x < least or x > most:
            return NAN
        if ends is not None and (x == least or x == most):  # noqa: SIM109
            return ends[0] if x == least else ends[1]
        y = getattr(x, name)()
        return ANYTHING if y.is_nan() else y

    return function


def div(x: Ball, y: Ball) -> Ball:
    """x / y; x / 0 is infinite with the sign of x."""
    if isinstance(x, acb) or isinstance(y, acb):
        return x / y
    if x.is_nan() or y.is_nan():
        return NAN
    if y == 0:
        return NAN if x == 0 else x * INFINITY if x > 0 or x < 0 else ANYTHING
    if y.contains(0):
        return ANYTHING
    return NAN if is_infinite(x) and is_infinite(y) else x / y


def sign(x: Ball) -> Ball:
    """-1, 0 or 1; of a complex number x / |x|."""
    if isinstance(x, acb):
        return x if x == 0 else x / abs(x)
    if x.is_nan() or x == 0:
        return x
    return ONE if x > 0 else -ONE if x < 0 else arb(0, 1)


def floor(x: arb) -> arb:
    """The largest whole number up to x."""
    return x.floor() if x.is_finite() else x


def _rounded(x: arb, rounding_method: Any) -> arb:
    """The nearest whole number; halves to the even one, or away from zero."""
    if int(rounding_method) == 1:
        nearest = floor(x + HALF)
        tie = nearest == x + HALF and not (nearest * HALF).is_integer()
        return nearest - ONE if tie else nearest
    return sign(x) * floor(abs(x) + HALF)


def rem(x: arb, y: arb) -> arb:
    """The remainder of x / y, with the sign of x."""
    if x.is_nan() or y.is_nan() or is_infinite(x) or y == 0:
        return NAN
    if is_infinite(y):
        return x
    return sign(x) * (abs(x) - abs(y) * floor(div(abs(x), abs(y))))


def power(x: Ball, y: Ball) -> Ball:
    """x^y; 1 wherever y = 0 or x = 1, as C's pow."""
    if isinstance(x, acb) or isinstance(y, acb):
        return x**y
    if y == 0 or x == 1 or (is_infinite(y) and abs(x) == 1):
        return ONE
    if x.is_nan() or y.is_nan():
        return NAN
    if y.is_integer() and abs(y) < LARGEST:
        return integer_power(x, int(y.unique_fmpz()))
    if is_infinite(x) or is_infinite(y):
        x = abs(x)
    if x < 0 and y.is_exact():
        return NAN
    exponent = log(x) * y
    return ANYTHING if exponent.is_nan() else exp(exponent)


def integer_power(x: Ball, y: int) -> Ball:
    """x^y for a whole number y."""
    if y < 0:
        return div(ONE, integer_power(x, -y))
    if y and isinstance(x, arb) and is_infinite(x):
        return x if y % 2 else abs(x)
    return x**y


def _max(x: arb, y: arb) -> arb:
    return NAN if x.is_nan() or y.is_nan() else y if x < y else x if y <= x else x.max(y)


def cbrt(x: arb) -> arb:
    """The real cube root."""
    if not x.is_finite() or x == 0:
        return x
    return sign(x) * abs(x).root(3) if x > 0 or x < 0 else ANYTHING


def atan2(y: arb, x: arb) -> arb:
    """The angle of the point (x, y)."""
    if x.is_nan() or y.is_nan():
        return NAN
    if is_infinite(x) and is_infinite(y):
        x, y = sign(x), sign(y)
    elif is_infinite(x):  # only the half-plane of the point counts
        angle = ZERO if x > 0 else arb.pi()
        return -angle if y < 0 else angle if y >= 0 else ANYTHING
    elif is_infinite(y):
        x, y = ZERO, sign(y)
    return arb.atan2(y, x)


def _log_gamma(x: arb) -> arb:
    """log |gamma(x)|, infinite at the poles 0, -1, -2, ... and at both infinities."""
    if is_infinite(x) or (x.is_integer() and not x > 0):
        return INFINITY
    y = x.lgamma() if x > 0 else abs(x.gamma()).log()
    return ANYTHING if y.is_nan() and not x.is_nan() else y


def _polygamma(m: arb, x: arb) -> arb:
    """The derivative of order m of digamma; NaN at the poles 0, -1, -2, ..."""
    if is_infinite(x):
        return NAN if x < 0 else ZERO if m > 0 else INFINITY
    if x.is_nan() or (x.is_integer() and not x > 0):
        return NAN
    if m == 1 and x < 0:  # by reflection: flint is slow for large negative numbers
        return (arb.pi() / (arb.pi() * x).sin()) ** 2 - _polygamma(m, ONE - x)
    y = acb(x).polygamma(acb(m)).real if m != 0 else x.digamma()
    return ANYTHING if y.is_nan() else y


def _special(evaluate: Callable[..., arb]) -> Callable[..., arb]:
    """A real function without known limits: at infinities and singularities any number."""

    def function(*xs: arb) -> arb:
        if any(x.is_nan() for x in xs):
            return NAN
        y = evaluate(*xs)
        return ANYTHING if y.is_nan() else y

    return function


exp = _function("exp", ZERO, INFINITY, saturates=True)
log = _function("log", above=INFINITY, least=0, ends=(-INFINITY, NAN))
_sqrt = _function("sqrt", above=INFINITY, least=0, ends=(ZERO, NAN))

FUNCTIONS: dict[str, Callable[..., Ball]] = {
    "abs": abs,
    "acos": _function("acos", least=-1, most=1),
    "acosh": _function("acosh", above=INFINITY, least=1),
    "add": operator.add,
    "asin": _function("asin", least=-1, most=1),
    "asinh": _function("asinh", -INFINITY, INFINITY),
    "atan": arb.atan,
    "atan2": atan2,
    "atanh": _function("atanh", least=-1, most=1, ends=(-INFINITY, INFINITY)),
    "bessel_i0e": _special(lambda x: abs(x).bessel_i(0, scaled=True)),
    "bessel_i1e": _special(lambda x: sign(x) * abs(x).bessel_i(1, scaled=True)),
    "cbrt": cbrt,
    "ceil": lambda x: -floor(-x),
    "complex": acb,
    "conj": lambda x: x.conjugate() if isinstance(x, acb) else x,
    "cos": _function("cos", saturates=True),
    "cosh": _function("cosh", INFINITY, INFINITY, saturates=True),
    "digamma": partial(_polygamma, ZERO),
    "div": div,
    "erf": _function("erf", -ONE, ONE),
    "erf_inv": _function("erfinv", least=-1, most=1, ends=(-INFINITY, INFINITY)),
    "erfc": _function("erfc", TWO, ZERO, saturates=True),
    "exp": exp,
    "exp2": lambda x: power(TWO, x),
    "expm1": _function("expm1", -ONE, INFINITY, saturates=True),
    "floor": floor,
    "igamma": _special(lambda a, x: x.gamma_lower(a, regularized=1)),
    "igammac": _special(lambda a, x: x.gamma_upper(a, regularized=1)),
    "imag": lambda x: x.imag if isinstance(x, acb) else ZERO,
    "integer_pow": integer_power,
    "lgamma": _log_gamma,
    "log": log,
    "log1p": _function("log1p", above=INFINITY, least=-1, ends=(-INFINITY, NAN)),
    "log2": lambda x: div(log(x), arb.const_log2()),
    "logistic": lambda x: div(ONE, ONE + exp(-x)),
    "max": _max,
    "min": lambda x, y: -_max(-x, -y),
    "mul": operator.mul,
    "neg": operator.neg,
    "polygamma": _polygamma,
    "pow": power,
    "real": lambda x: x.real,
    "regularized_incomplete_beta": _special(lambda a, b, x: x.beta_lower(a, b, regularized=1)),
    "rem": rem,
    "round": _rounded,
    "rsqrt": lambda x: div(ONE, _sqrt(x)),
    "sign": sign,
    "sin": _function("sin", saturates=True),
    "sinh": _function("sinh", -INFINITY, INFINITY, saturates=True),
    "sqrt": _sqrt,
    "sub": operator.sub,
    "tan": _function("tan", saturates=True),
    "tanh": _function("tanh", -ONE, ONE),
    "zeta": _special(lambda s, a: s.zeta(a)),
}
"""Primitives on balls."""


FAST = {"add": np.add, "mul": np.multiply, "neg": np.negative, "sub": np.subtract}
"""Primitives for which NumPy calls the operators of the balls itself."""


def _compared(x: Ball, y: Ball) -> int:
    if isinstance(x, acb) or isinstance(y, acb):
        if x is y or x == y:
            return 0
        if not acb(x).overlaps(acb(y)):
            return 1  # unequal
    elif x.is_nan() or y.is_nan():
        return 2
    elif x is y or x == y:
        return 0
    elif x < y:
        return -1
    elif x > y:
        return 1
    elif is_infinite(x) and is_infinite(y):  # of one sign
        return 0
    raise Undecided("a comparison is not decided by the bits of the balls")


def _float(x: Ball) -> float | complex:
    return complex(float(x.real), float(x.imag)) if isinstance(x, acb) else float(x)


class Balls:
    """The arithmetic of balls, in flint's current precision: arrays of objects."""

    FUNCTIONS: ClassVar = FUNCTIONS
    RULES: ClassVar[dict[str, Callable[..., Run]]] = {}
    UNKNOWN: ClassVar[str] = "is unknown to jaxnn's exact numbers"

    def exactly(self, array: Any) -> Numbers:
        """The exact numbers of an array; an array of balls stays."""
        array = np.asarray(array)
        if array.dtype == object:
            return array
        if array.dtype.kind == "c":
            return np.asarray(np.frompyfunc(acb, 1, 1)(array), object)
        numbers = array if array.dtype.kind in "iub" else array.astype(np.float64)
        return np.asarray(np.frompyfunc(arb, 1, 1)(numbers), object)

    def apply(self, name: str, *operands: Any, **params: Any) -> Numbers:
        """A primitive on every entry."""
        function = FAST.get(name)
        if function is None:
            of_one = partial(FUNCTIONS[name], **params) if params else FUNCTIONS[name]
            function = np.frompyfunc(of_one, len(operands), 1)
        return np.asarray(function(*map(self.exactly, operands)), object)

    def compare(self, x: Any, y: Any) -> np.ndarray:
        """The order of every pair of entries; raises ``Undecided``."""
        return np.asarray(np.frompyfunc(_compared, 2, 1)(self.exactly(x), self.exactly(y)), np.int8)

    def joined(self, parts: Sequence[Numbers]) -> Numbers:
        """The entries of all parts, one part after the other."""
        return np.concatenate(parts, axis=None)

    def floats(self, x: Numbers) -> np.ndarray:
        """The midpoints as float64, or as complex numbers."""
        return np.array([_float(number) for number in x.flat]).reshape(x.shape)

    def rounded(self, x: Numbers) -> np.ndarray:
        """The nearest float64 numbers; raises ``Undecided`` where the balls are too wide."""
        if any(number.is_finite() and number.rel_accuracy_bits() < 64 for number in x.flat):
            raise Undecided("the float64 nearest to a number is not decided")
        return self.floats(x)

    def whole(self, x: Numbers) -> np.ndarray:
        """The whole parts; raises ``Undecided`` where the balls are too wide."""
        parts = self.apply("mul", self.apply("sign", x), self.apply("floor", np.abs(x)))
        if not all(part.is_exact() or part.is_nan() for part in parts.flat):
            raise Undecided("the whole part of a number is not decided")
        return self.floats(parts)


def _eigen(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, rising, and unit eigenvectors, as columns, of a symmetric matrix of balls.

    The eigenvectors have LAPACK's signs.
    """
    try:
        values, right = acb_mat(a.tolist()).eig(right=True)
    except ValueError:
        raise Undecided("the eigenvalues of a matrix are not separated") from None
    order = np.argsort([float(value.real) for value in values])
    columns = []
    for column in zip(*right.tolist(), strict=True):
        largest = max(column, key=lambda entry: float(abs(entry)))
        reals = np.array([(entry / largest).real for entry in column], object)
        columns.append(reals / np.sum(reals * reals).sqrt())
    vectors = np.stack(columns, axis=1)[:, order]
    signs = np.sum(np.linalg.eigh(a.astype(float))[1] * vectors.astype(float), axis=0)
    reals = np.array([values[i].real for i in order], object)
    return reals, np.where(signs < 0, -vectors, vectors)


def _eigh(eqn, a: np.ndarray) -> Sequence[np.ndarray]:
    """Eigenvectors and eigenvalues of a symmetric matrix, by a triangle."""
    a = np.tril(a) if parameter(eqn, "lower") else np.triu(a).T
    values, vectors = _eigen(np.where(np.tri(len(a), dtype=bool), a, a.T))
    return vectors, values


def _svd(eqn, a: np.ndarray) -> Sequence[np.ndarray]:
    """Singular values, and the singular vectors of nonzero ones with LAPACK's signs."""
    if a.shape[0] < a.shape[1]:
        s, *vectors = _svd(eqn, a.T)
        return s, *(v.T for v in reversed(vectors))
    values, v = (part[..., ::-1] for part in _eigen(a.T @ a))
    s = np.frompyfunc(_sqrt, 1, 1)(values)
    if not parameter(eqn, "compute_uv"):
        return (s,)
    if parameter(eqn, "full_matrices") and a.shape[0] > a.shape[1]:
        raise Unsupported("svd with full_matrices=True is unknown to jaxnn's exact numbers")
    lapack = np.linalg.svd(a.astype(float), full_matrices=False)[2]
    v = np.where(np.sum(lapack * v.T.astype(float), axis=1) < 0, -v, v)
    return s, np.frompyfunc(div, 2, 1)(a @ v, s), v.T


def _by_matrix(function: Callable[..., Sequence[np.ndarray]], eqn, arithmetic: Arithmetic) -> Run:
    """The rule of a function of a single matrix of balls."""

    def run(x):
        results = [function(eqn, matrix) for matrix in x.reshape(-1, *x.shape[-2:])]
        shapes = [variable.aval.shape for variable in eqn.outvars]
        columns = zip(*results, strict=True)
        return [np.array(c, object).reshape(s) for c, s in zip(columns, shapes, strict=True)]

    return run


Balls.RULES = {"eigh": partial(_by_matrix, _eigh), "svd": partial(_by_matrix, _svd)}
