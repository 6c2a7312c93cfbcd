"""Real functions to any precision, with the special cases of IEEE 754 and without exceptions.

A number is mpmath's raw tuple (sign, mantissa, exponent, bits), twice as fast as mpf objects.
Results are right to a few units in the last of ``prec`` bits. Two differences from IEEE 754 remain:
there is no negative zero, and the range is unlimited, except that exponentials and trigonometric
functions beyond 2^4096, and erfc beyond 2^256, have the value at infinity.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import mpmath
import numpy as np
from mpmath import libmp
from mpmath.libmp import finf, fnan, fninf, fone, from_int, fzero, mpf_add, mpf_mul, mpf_neg

Raw = Any  # a tuple of four integers

LARGEST_MAGNITUDE = 4096
_ln = getattr(libmp, "mpf_ln", None) or libmp.mpf_log  # the name before mpmath 1.4


def magnitude(x: Raw) -> int:
    """The least m with |x| < 2^m, for x neither zero nor special."""
    return x[2] + x[3]


def is_special(x: Raw) -> bool:
    """Whether a number is an infinity or NaN."""
    return not x[1] and x[2] != 0


def to_raw(value: Any) -> list[Raw]:
    """The flat list of the numbers of an array: floats, integers or mpmath's own; exact."""
    array = np.asarray(value)
    numbers = array if array.dtype.kind in "iubO" else array.astype(np.float64)
    return [_number_to_raw(x) for x in numbers.ravel().tolist()]


def _number_to_raw(x: Any) -> Raw:
    if hasattr(x, "_mpf_"):
        return x._mpf_
    return from_int(int(x)) if isinstance(x, int) else libmp.from_float(float(x))


def truncated(x: Raw) -> int:
    """The whole part of a finite number."""
    sign, mantissa, exponent, _ = x
    whole = mantissa << exponent if exponent >= 0 else mantissa >> -exponent
    return int(-whole if sign else whole)  # with gmpy2 the mantissa is no int


def _quiet(function: Callable[..., Raw]) -> Callable[..., Raw]:
    """NaN where mpmath raises because the result is not a real number."""

    @wraps(function)
    def quiet(*args) -> Raw:
        try:
            return function(*args)
        except (ValueError, ZeroDivisionError):
            return fnan

    return quiet


def _saturated(function: Callable[..., Raw], most: int = LARGEST_MAGNITUDE) -> Callable[..., Raw]:
    """The function with the value at infinity beyond 2^most."""

    @wraps(function)
    def saturated(x: Raw, prec: int) -> Raw:
        if x[1] and magnitude(x) > most:
            x = fninf if x[0] else finf
        return function(x, prec)

    return saturated


sin, cos, tan = (_saturated(f) for f in (libmp.mpf_sin, libmp.mpf_cos, libmp.mpf_tan))
sinh, cosh = _saturated(libmp.mpf_sinh), _saturated(libmp.mpf_cosh)
erfc = _saturated(libmp.mpf_erfc, 256)
asin, acos, acosh = (_quiet(f) for f in (libmp.mpf_asin, libmp.mpf_acos, libmp.mpf_acosh))
sqrt = _quiet(libmp.mpf_sqrt)


class Rounding:
    """The direction in which sums are rounded."""

    direction = "d"  # towards zero; "u" is away from it


def add(x: Raw, y: Raw, prec: int) -> Raw:
    """x + y, rounded as ``Rounding`` states."""
    return mpf_add(x, y, prec, Rounding.direction)


def sub(x: Raw, y: Raw, prec: int) -> Raw:
    """x - y, rounded as ``Rounding`` states."""
    return libmp.mpf_sub(x, y, prec, Rounding.direction)


def sign(x: Raw, prec: int) -> Raw:
    """-1, 0 or 1."""
    return fnan if x == fnan else from_int(libmp.mpf_sign(x))


def div(x: Raw, y: Raw, prec: int) -> Raw:
    """x / y; x / 0 is infinite with the sign of x."""
    if y != fzero:
        return libmp.mpf_div(x, y, prec)
    return mpf_mul(x, finf)


def rem(x: Raw, y: Raw, prec: int) -> Raw:
    """The remainder of x / y, with the sign of x."""
    if is_special(x) or y in (fzero, fnan):
        return fnan
    if is_special(y):
        return x
    left = libmp.mpf_mod(libmp.mpf_abs(x), libmp.mpf_abs(y), prec)
    return mpf_neg(left) if x[0] else left


def atan2(y: Raw, x: Raw, prec: int) -> Raw:
    """The angle of the point (x, y)."""
    if fnan in (x, y):
        return fnan
    if is_special(x) and is_special(y):
        x, y = sign(x, prec), sign(y, prec)
    return libmp.mpf_atan2(y, x, prec)


def maximum(x: Raw, y: Raw, prec: int, order: int = 1) -> Raw:
    """The larger number; NaN if x or y is NaN."""
    if fnan in (x, y):
        return fnan
    return x if order * libmp.mpf_cmp(x, y) >= 0 else y


minimum = partial(maximum, order=-1)


def clamp(low: Raw, x: Raw, high: Raw, prec: int) -> Raw:
    """The nearest number to x from low to high."""
    return minimum(maximum(x, low, prec), high, prec)


def square(x: Raw, prec: int) -> Raw:
    """x x."""
    return mpf_mul(x, x, prec)


def one_minus_square(x: Raw, prec: int) -> Raw:
    """1 - x x."""
    return sub(fone, mpf_mul(x, x), prec)


def polynomial(x: Raw, *coefficients_and_prec) -> Raw:
    """c_0 + c_1 x + c_2 x^2 + ..., the coefficients before the precision."""
    *rest, last, prec = coefficients_and_prec
    total = last
    for coefficient in reversed(rest):
        total = add(mpf_mul(total, x, prec), coefficient, prec)
    return total


def rsqrt(x: Raw, prec: int) -> Raw:
    """1 / sqrt(x)."""
    return div(fone, sqrt(x, prec + 4), prec)


def cbrt(x: Raw, prec: int) -> Raw:
    """The real cube root."""
    if is_special(x):
        return x
    root = libmp.mpf_cbrt(libmp.mpf_abs(x), prec)
    return mpf_neg(root) if x[0] else root


@_saturated
def exp(x: Raw, prec: int) -> Raw:
    """e^x."""
    if not x[1] or magnitude(x) < 32:
        return libmp.mpf_exp(x, prec)
    extra = prec + magnitude(x) + 10
    log2 = libmp.mpf_ln2(extra)
    doublings = libmp.mpf_floor(libmp.mpf_div(x, log2, extra))
    rest = libmp.mpf_sub(x, mpf_mul(doublings, log2, extra), extra)
    return libmp.mpf_shift(libmp.mpf_exp(rest, prec), truncated(doublings))


def expm1(x: Raw, prec: int) -> Raw:
    """e^x - 1, accurate near 0."""
    if not x[1]:
        return libmp.fnone if x == fninf else x
    if magnitude(x) < -prec:
        return mpf_add(x, mpf_mul(libmp.fhalf, mpf_mul(x, x, prec)), prec)
    return libmp.mpf_sub(exp(x, prec + 10 + max(0, -magnitude(x))), fone, prec)


def log(x: Raw, prec: int) -> Raw:
    """The natural logarithm."""
    if not x[1]:
        return fninf if x == fzero else x if x == finf else fnan
    return fnan if x[0] else _ln(x, prec)


def log2(x: Raw, prec: int) -> Raw:
    """The logarithm to base 2."""
    return div(log(x, prec + 4), libmp.mpf_ln2(prec + 4), prec)


def log1p(x: Raw, prec: int) -> Raw:
    """log(1 + x), accurate near 0."""
    if not x[1]:
        return fnan if x == fninf else x
    if magnitude(x) < -prec:
        return libmp.mpf_sub(x, mpf_mul(libmp.fhalf, mpf_mul(x, x, prec)), prec)
    return log(mpf_add(fone, x, 0 if magnitude(x) <= 0 else prec + 10), prec)


def logaddexp(x: Raw, y: Raw, prec: int) -> Raw:
    """log(e^x + e^y)."""
    top = maximum(x, y, prec)
    if is_special(top):
        return top
    return mpf_add(
        top, log1p(exp(mpf_neg(libmp.mpf_abs(libmp.mpf_sub(x, y, prec))), prec), prec), prec
    )


def logistic(x: Raw, prec: int) -> Raw:
    """1 / (1 + e^-x)."""
    return div(fone, add(fone, exp(mpf_neg(x), prec + 4), prec + 4), prec)


@_quiet
def atanh(x: Raw, prec: int) -> Raw:
    """log((1 + x) / (1 - x)) / 2."""
    if x in (fone, libmp.fnone):
        return mpf_mul(x, finf)
    return libmp.mpf_atanh(x, prec)


def erf_inv(x: Raw, prec: int) -> Raw:
    """The y with erf(y) = x."""
    if x in (fone, libmp.fnone):
        return mpf_mul(x, finf)
    if not x[1] or magnitude(x) > 0:
        return x if x == fzero else fnan
    with mpmath.workprec(prec + 10):
        return mpmath.erfinv(mpmath.mp.make_mpf(x))._mpf_


def round_away(x: Raw, prec: int) -> Raw:
    """The nearest whole number, halves away from zero."""
    if not x[1] or x[2] >= 0:
        return x
    if magnitude(x) < 0:
        return fzero
    whole = libmp.mpf_floor(mpf_add(libmp.mpf_abs(x), libmp.fhalf))
    return mpf_neg(whole) if x[0] else whole


def integer_power(x: Raw, n: int, prec: int) -> Raw:
    """x^n for n other than 0."""
    if x == fzero:
        return fzero if n > 0 else finf
    return libmp.mpf_pow_int(x, n, prec)


def power(x: Raw, y: Raw, prec: int) -> Raw:
    """x^y; 1 wherever y = 0 or x = 1, as C's pow."""
    if fzero == y or x == fone:
        return fone
    if fnan in (x, y):
        return fnan
    if is_special(y):
        order = libmp.mpf_cmp(libmp.mpf_abs(x), fone)
        if order == 0:
            return fone
        return finf if (order > 0) == (y == finf) else fzero
    whole = y[2] >= 0
    if whole and magnitude(y) <= LARGEST_MAGNITUDE:
        return integer_power(x, truncated(y), prec)
    if not x[1]:
        return finf if (x == fzero) == bool(y[0]) else fzero
    if x[0] and not whole:
        return fnan
    extra = prec + 10 + max(0, magnitude(y)) + magnitude(x).bit_length()
    return exp(mpf_mul(y, log(libmp.mpf_abs(x), extra), extra), prec)


exp2 = partial(power, from_int(2))
