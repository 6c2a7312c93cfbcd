"""The rules of a jaxpr's primitives, on numbers of any precision.

A float array is the flat list of its numbers (raw tuples, see scalars), for a jaxpr knows
every shape; integers and Booleans are NumPy arrays. A rule takes an equation and returns a function
of the precision and the operands.
"""

import operator
from collections.abc import Callable, Iterable
from functools import cmp_to_key, partial, reduce
from itertools import pairwise, repeat
from typing import Any

import jax
import numpy as np
from mpmath import libmp
from mpmath.libmp import fnan, fzero, mpf_cmp, mpf_mul

from jaxnn.verify.graph import Unsupported, parameter
from jaxnn.verify.precise import scalars
from jaxnn.verify.precise.positions import (
    MOVEMENTS,
    Run,
    Value,
    bind,
    is_float,
    movement,
    positions,
    rows_along,
    scatter,
)
from jaxnn.verify.precise.scalars import Raw, to_raw


def _fitted(eqn) -> Callable[..., list[Value]]:
    """Brings the operands to the shape of the result, as lists of numbers."""
    shape = eqn.outvars[0].aval.shape
    stretches = [
        None
        if atom.aval.shape == shape
        else np.broadcast_to(positions(atom.aval.shape), shape).ravel().tolist()
        for atom in eqn.invars
    ]
    floats = [is_float(atom) for atom in eqn.invars]

    def fitted(xs):
        numbers = [x if f else to_raw(x) for x, f in zip(xs, floats, strict=True)]
        return [
            x if s is None else [x[i] for i in s] for x, s in zip(numbers, stretches, strict=True)
        ]

    return fitted


def _elementwise(function: Callable[..., Raw], eqn) -> Run:
    fitted = _fitted(eqn)
    return lambda prec, *xs: [list(map(function, *fitted(xs), repeat(prec)))]


def _predicate(function: Callable[..., bool], eqn) -> Run:
    fitted, shape = _fitted(eqn), eqn.outvars[0].aval.shape
    return lambda prec, *xs: [np.array([*map(function, *fitted(xs))], bool).reshape(shape)]


def _integer_pow(eqn) -> Run:
    n = int(parameter(eqn, "y"))
    return lambda prec, x: [[scalars.integer_power(a, n, prec) for a in x]]


def _round(eqn) -> Run:
    to_even = int(parameter(eqn, "rounding_method")) == 1
    function = libmp.mpf_nint if to_even else scalars.round_away
    return lambda prec, x: [[function(a, prec) for a in x]]


def _select_n(eqn) -> Run:
    whole = eqn.invars[0].aval.shape != eqn.outvars[0].aval.shape
    if not is_float(eqn.outvars[0]):
        return lambda prec, which, *cases: [np.choose(which.astype(int), cases)]

    def run(prec, which, *cases):
        if whole:
            return [cases[int(which)]]
        choices = zip(*cases, strict=True)
        return [[c[w] for w, c in zip(which.ravel().tolist(), choices, strict=True)]]

    return run


def _convert(eqn) -> Run:
    (atom,), new = eqn.invars, np.dtype(parameter(eqn, "new_dtype"))
    shape = eqn.outvars[0].aval.shape
    if not is_float(atom):
        if is_float(eqn.outvars[0]):
            return lambda prec, x: [to_raw(x)]
        return lambda prec, x: [np.asarray(x).astype(new)]
    if is_float(eqn.outvars[0]):
        if jax.numpy.finfo(new).bits >= jax.numpy.finfo(atom.aval.dtype).bits:
            return lambda prec, x: [x]
        return lambda prec, x: [_narrowed(x, new)]
    if new.kind == "b":
        return lambda prec, x: [np.array([a != fzero for a in x], bool).reshape(shape)]
    least, most = np.iinfo(new).min, np.iinfo(new).max

    def whole(a: Raw) -> int:
        if scalars.is_special(a) or (a[1] and scalars.magnitude(a) > 64):
            return 0 if a == fnan else least if a[0] else most
        return min(max(scalars.truncated(a), least), most)

    return lambda prec, x: [np.array([whole(a) for a in x], new).reshape(shape)]


def _bitcast(eqn) -> Run:
    """The bits of float64 numbers as integers of 64 bits, or the reverse."""
    (atom,), new = eqn.invars, np.dtype(parameter(eqn, "new_dtype"))
    shape, old = atom.aval.shape, np.dtype(atom.aval.dtype)
    if old.itemsize != new.itemsize:
        raise Unsupported(f"bitcast_convert_type from {old} to {new} is unknown to jaxnn")
    if not is_float(atom):
        numbers = to_raw if is_float(eqn.outvars[0]) else np.asarray
        return lambda prec, x: [numbers(np.asarray(x).view(new))]
    return lambda prec, x: [
        np.array([libmp.to_float(a, rnd="n") for a in x], old).view(new).reshape(shape)
    ]


def _narrowed(x: list[Raw], dtype: np.dtype) -> list[Raw]:
    with np.errstate(over="ignore"):
        return to_raw(np.array([libmp.to_float(a, rnd="n") for a in x]).astype(dtype))


# Several numbers at a time


def _reduction(function: Callable[..., Raw], initial: Raw, eqn) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, parameter(eqn, "axes"))

    def reduced(numbers: Iterable[Raw], prec: int) -> Raw:
        return reduce(lambda total, number: function(total, number, prec), numbers, initial)

    return lambda prec, x: [[reduced((x[i] for i in row), prec) for row in rows]]


def _cumulative(function: Callable[..., Raw], eqn) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, [parameter(eqn, "axis")])
    if parameter(eqn, "reverse"):
        rows = [row[::-1] for row in rows]

    def run(prec, x):
        out = list(x)
        for row in rows:
            for before, i in pairwise(row):
                out[i] = function(out[before], x[i], prec)
        return [out]

    return run


def _argument(better: Callable[[Raw, Raw], bool], eqn) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, parameter(eqn, "axes"))
    aval = eqn.outvars[0].aval

    def best(numbers: list[Raw]) -> int:
        if fnan in numbers:
            return numbers.index(fnan)
        k = 0
        for i, number in enumerate(numbers):
            k = i if better(number, numbers[k]) else k
        return k

    return lambda prec, x: [
        np.array([best([x[i] for i in row]) for row in rows], aval.dtype).reshape(aval.shape)
    ]


def _dot_general(eqn) -> Run:
    contracted, batch = parameter(eqn, "dimension_numbers")
    x_shape, y_shape = (atom.aval.shape for atom in eqn.invars)

    def blocks(shape, contracted, batch) -> np.ndarray:
        """Positions as [batch, free, contracted]."""
        free = [i for i in range(len(shape)) if i not in (*contracted, *batch)]
        sizes = [
            int(np.prod([shape[i] for i in axes], dtype=int)) for axes in (batch, free, contracted)
        ]
        return positions(shape).transpose(*batch, *free, *contracted).reshape(sizes)

    left = blocks(x_shape, contracted[0], batch[0]).tolist()
    right = blocks(y_shape, contracted[1], batch[1]).tolist()
    floats = [is_float(v) for v in eqn.invars]

    def run(prec, x, y):
        x, y = (v if f else to_raw(v) for v, f in zip((x, y), floats, strict=True))
        results = []
        for rows, columns in zip(left, right, strict=True):
            taken = [[y[j] for j in column] for column in columns]
            for row in rows:
                numbers = [x[i] for i in row]
                results += [_dot(numbers, column, prec) for column in taken]
        return [results]

    return run


def _dot(x: list[Raw], y: list[Raw], prec: int) -> Raw:
    total = fzero
    for a, b in zip(x, y, strict=True):
        product = mpf_mul(a, b, prec)
        if product != fzero:
            total = scalars.add(total, product, prec)
    return total


def _sort(eqn) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, [parameter(eqn, "dimension")])
    floats = [is_float(atom) for atom in eqn.invars]
    number_of_keys, shape = parameter(eqn, "num_keys"), eqn.invars[0].aval.shape
    order = cmp_to_key(mpf_cmp)

    def run(prec, *xs):
        flat = [x if f else x.ravel() for x, f in zip(xs, floats, strict=True)]
        keys = [
            [(a == fnan, order(a)) for a in x] if f else x.tolist()
            for x, f in zip(flat[:number_of_keys], floats, strict=False)
        ]
        source = np.zeros(len(flat[0]), int)
        for row in rows:
            source[row] = sorted(row, key=lambda i: [key[i] for key in keys])
        return [
            [x[i] for i in source.tolist()] if f else x[source].reshape(shape)
            for x, f in zip(flat, floats, strict=True)
        ]

    return run


COMPARISONS = ("eq", "ge", "gt", "le", "lt")
OF_MPMATH = ("abs", "asinh", "atan", "ceil", "erf", "floor", "mul", "neg", "tanh")
OF_SCALARS = (
    "acos", "acosh", "add", "asin", "atan2", "atanh", "cbrt", "clamp", "cos", "cosh", "div",
    "erf_inv", "erfc", "exp", "exp2", "expm1", "log", "log1p", "log2", "logistic",
    "one_minus_square", "polynomial", "rem", "rsqrt", "sign", "sin", "sinh", "sqrt", "square",
    "sub", "tan",
)  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Raw]] = {
    **{name: getattr(libmp, f"mpf_{name}") for name in OF_MPMATH},
    **{name: getattr(scalars, name) for name in OF_SCALARS},
    "add_any": scalars.add,
    "max": scalars.maximum,
    "min": scalars.minimum,
    "pow": scalars.power,
}
"""Primitives on single numbers."""

REDUCTIONS = {
    "max": (scalars.maximum, libmp.fninf),
    "min": (scalars.minimum, libmp.finf),
    "prod": (mpf_mul, libmp.fone),
    "sum": (scalars.add, fzero),
}
"""The function of two numbers, and the value without numbers."""

EXACT: dict[str, Callable[..., Run]] = {
    **{name: partial(_predicate, getattr(libmp, f"mpf_{name}")) for name in COMPARISONS},
    "argmax": partial(_argument, libmp.mpf_gt),
    "argmin": partial(_argument, libmp.mpf_lt),
    "convert_element_type": _convert,
    "is_finite": partial(_predicate, lambda x: not scalars.is_special(x)),
    "ne": partial(_predicate, lambda x, y: not libmp.mpf_eq(x, y)),
    "select_n": _select_n,
    "sort": _sort,
    **dict.fromkeys(MOVEMENTS, movement),
}
"""Primitives without rounding: evaluated in advance on constants."""

ANY_TYPE = {*MOVEMENTS, "bitcast_convert_type", "convert_element_type", "select_n"}
"""Primitives whose rule covers integers."""

RULES: dict[str, Callable[..., Run]] = {
    **{name: partial(_elementwise, function) for name, function in FUNCTIONS.items()},
    **{f"reduce_{name}": partial(_reduction, *rule) for name, rule in REDUCTIONS.items()},
    **{f"cum{name}": partial(_cumulative, function) for name, (function, _) in REDUCTIONS.items()},
    **{
        f"scatter-{name}": partial(scatter, FUNCTIONS[name])
        for name in ("add", "max", "min", "mul", "sub")
    },
    **EXACT,
    "bitcast_convert_type": _bitcast,
    "cumlogsumexp": partial(_cumulative, scalars.logaddexp),
    "dot_general": _dot_general,
    "integer_pow": _integer_pow,
    "round": _round,
    "scatter": partial(scatter, lambda old, new, prec: new),
}

INTEGER: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(operator, f"__{name}__")
        for name in (*COMPARISONS, "add", "and", "mul", "ne", "neg", "or", "sub", "xor")
    },
    "max": np.maximum,
    "min": np.minimum,
    "not": np.invert,
}
"""Primitives on integers for which NumPy gives JAX's result, without compilation."""


def _iota(eqn) -> np.ndarray:
    shape, dimension = parameter(eqn, "shape"), parameter(eqn, "dimension")
    along = np.arange(shape[dimension]).reshape([-1] + [1] * (len(shape) - dimension - 1))
    return np.broadcast_to(along, shape)


def _of_integers(eqn) -> Run:
    name = eqn.primitive.name
    floats = [is_float(var) for var in eqn.outvars]
    if name == "iota" and not floats[0]:
        return lambda prec: [_iota(eqn).astype(parameter(eqn, "dtype"))]
    if name == "iota":
        return lambda prec: [to_raw(_iota(eqn))]
    if name in INTEGER:
        return lambda prec, *xs: [np.asarray(INTEGER[name](*xs))]
    return lambda prec, *xs: [
        to_raw(r) if f else r for r, f in zip(bind(eqn, *xs), floats, strict=True)
    ]


def rule(eqn) -> tuple[Run, bool]:
    """The function that an equation's primitive computes, and whether the function is exact.

    Raises:
      Unsupported: the primitive has no rule.
    """
    name = eqn.primitive.name
    if name not in ANY_TYPE and not any(is_float(atom) for atom in eqn.invars):
        return _of_integers(eqn), True
    if name not in RULES:
        raise Unsupported(f"the primitive {name!r} is unknown to jaxnn's high precision")
    return RULES[name](eqn), name in EXACT
