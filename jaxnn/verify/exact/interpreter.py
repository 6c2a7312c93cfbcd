"""A jaxpr evaluated on the numbers of an arithmetic, such as balls or residues, in place of XLA.

A rule takes an equation and an arithmetic and returns a function of the operands. Positions are
computed once per equation; the arithmetic only combines flat arrays entry by entry.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.extend.core import ClosedJaxpr

from jaxnn.verify.exact import Arithmetic, Numbers, Run, Value, is_number, linear_algebra
from jaxnn.verify.exact.positions import (
    MOVEMENTS,
    WINDOWS,
    bilinear,
    bind,
    folded,
    movement,
    positions,
    rows_along,
    scatter,
    window_reduction,
)
from jaxnn.verify.graph import Unsupported, inline, parameter, scan_counts

MOST_STEPS = 10_000
"""Steps of a while loop: halving until 0 ends in float64 alone, by underflow."""


def compile(
    closed: ClosedJaxpr, arithmetic: Arithmetic
) -> Callable[[Sequence[Value]], list[Value]]:
    """A jaxpr as a function of flat ``Numbers`` and of NumPy arrays.

    Nested calls are inlined, unused equations dropped, exact constant subexpressions folded.

    Raises:
      Unsupported: the jaxpr has a primitive, or a parameter, without a rule.
    """
    constants: list[Any] = []  # None for computed values
    equations: list[tuple[Any, Sequence[int], list[int]]] = []

    def new(value: Any = None) -> int:
        constants.append(value)
        return len(constants) - 1

    def constant(atom, value: Any) -> int:
        if is_number(atom):
            return new(arithmetic.exactly(np.asarray(value)))
        return new(value if _is_key(atom) else np.asarray(value, atom.aval.dtype))

    def operation(equation, inputs: Sequence[int], _: str) -> list[int]:
        equations.append((equation, inputs, [new() for _ in equation.outvars]))
        return equations[-1][2]

    arguments = [new() for _ in closed.jaxpr.invars]
    outputs = inline(closed, arguments, constant, operation)
    needed, live = set(outputs), []
    for equation in reversed(equations):
        if needed.intersection(equation[2]):
            needed.update(equation[1])
            live.append(equation)
    steps = []
    for eqn, ins, outs in reversed(live):
        control = CONTROL.get(eqn.primitive.name)
        run, exact = (control(eqn, arithmetic), False) if control else rule(eqn, arithmetic)
        if exact and all(constants[i] is not None for i in ins):
            for i, result in zip(outs, run(*[constants[i] for i in ins]), strict=True):
                constants[i] = result
        else:
            steps.append((run, ins, outs))

    def program(given: Sequence[Value]) -> list[Value]:
        values = constants.copy()
        for i, argument in zip(arguments, given, strict=True):
            values[i] = argument
        for run, ins, outs in steps:
            for i, result in zip(outs, run(*[values[i] for i in ins]), strict=True):
                values[i] = result
        return [values[i] for i in outputs]

    return program


def _is_key(atom) -> bool:
    return jax.numpy.issubdtype(atom.aval.dtype, dtypes.prng_key)


def _cond(eqn, arithmetic: Arithmetic) -> Run:
    branches = [compile(branch, arithmetic) for branch in parameter(eqn, "branches")]

    def run(index, *operands):
        return branches[min(max(int(index), 0), len(branches) - 1)](operands)

    return run


def _while(eqn, arithmetic: Arithmetic) -> Run:
    condition = compile(parameter(eqn, "cond_jaxpr"), arithmetic)
    body = compile(parameter(eqn, "body_jaxpr"), arithmetic)
    a, b = parameter(eqn, "cond_nconsts"), parameter(eqn, "body_nconsts")

    def run(*operands):
        state = list(operands[a + b :])
        for _ in range(MOST_STEPS):
            if not condition([*operands[:a], *state])[0]:
                return state
            state = body([*operands[a : a + b], *state])
        raise Unsupported(f"a while loop took more than {MOST_STEPS:,} steps on exact numbers")

    return run


def _scan(eqn, arithmetic: Arithmetic) -> Run:
    body, length = compile(parameter(eqn, "jaxpr"), arithmetic), parameter(eqn, "length")
    reverse = parameter(eqn, "reverse")
    first, carried = scan_counts(eqn)
    given = eqn.invars[first + carried :]
    stacked = eqn.outvars[carried:]

    def at(atom, x: Value, i: int) -> Value:
        if not is_number(atom):
            return x[i]
        size = len(x) // length
        return x[np.arange(i * size, (i + 1) * size)]

    def gathered(variable, parts: Sequence[Value]) -> Value:
        if not is_number(variable):
            return np.array(parts, variable.aval.dtype).reshape(variable.aval.shape)
        return arithmetic.joined(parts) if parts else arithmetic.exactly(np.zeros(0))

    def run(*operands):
        consts, state = operands[:first], list(operands[first : first + carried])
        rows: list[Any] = [None] * length
        for i in reversed(range(length)) if reverse else range(length):
            slices = map(at, given, operands[first + carried :], [i] * len(given))
            results = body([*consts, *state, *slices])
            state, rows[i] = results[:carried], results[carried:]
        return [*state, *(gathered(v, [row[k] for row in rows]) for k, v in enumerate(stacked))]

    return run


def _linear_solve(eqn, arithmetic: Arithmetic) -> Run:
    """The solution that the function given to ``lax.custom_linear_solve`` computes."""
    jaxprs, lengths = parameter(eqn, "jaxprs"), parameter(eqn, "const_lengths")
    solve = compile(jaxprs.solve, arithmetic)
    first = lengths.matvec + lengths.vecmat
    taken = slice(first, first + lengths.solve)
    return lambda *operands: solve([*operands[taken], *operands[sum(lengths) :]])


def _hi_primitive(eqn, arithmetic: Arithmetic) -> Run:
    """A primitive that JAX itself expands to others, such as ``searchsorted`` from JAX 0.12 on."""
    primitive = parameter(eqn, "_prim")

    def function(*operands):
        arguments = jax.tree.unflatten(primitive.in_tree, operands)
        return jax.tree.leaves(primitive.expand(*arguments))

    return _expanded(function, eqn, arithmetic)


def _expanded(function: Callable[..., Any], eqn, arithmetic: Arithmetic) -> Run:
    """A primitive that is a function of other primitives."""
    shapes = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in eqn.invars]
    with jax.enable_x64(True):
        program = compile(jax.make_jaxpr(function)(*shapes), arithmetic)
    return lambda *operands: program(operands)


EXPANDED: dict[str, Callable[..., jax.Array]] = {
    "clamp": lambda low, x, high: jnp.minimum(jnp.maximum(low, x), high),
    "one_minus_square": lambda x: 1 - x * x,
    "polynomial": lambda x, *terms: reduce(lambda total, term: total * x + term, terms[::-1]),
    "square": lambda x: x * x,
}
"""Primitives as functions of others: a polynomial has the operands x, c_0, c_1, ..."""


CONTROL: dict[str, Callable[..., Run]] = {
    "call_hi_primitive": _hi_primitive,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "scan": _scan,
    "while": _while,
}
"""Primitives that run other jaxprs."""


# The rules of primitives


def _fitted(eqn, arithmetic: Arithmetic) -> Callable[..., list[Numbers]]:
    """Brings the operands to the shape of the result, as numbers."""
    shape = eqn.outvars[0].aval.shape
    stretches = [
        None
        if atom.aval.shape == shape
        else np.broadcast_to(positions(atom.aval.shape), shape).ravel()
        for atom in eqn.invars
    ]
    given = [is_number(atom) for atom in eqn.invars]

    def fitted(xs):
        numbers = (x if n else arithmetic.exactly(x) for x, n in zip(xs, given, strict=True))
        return [x if s is None else x[s] for x, s in zip(numbers, stretches, strict=True)]

    return fitted


def _elementwise(eqn, arithmetic: Arithmetic) -> Run:
    fitted, name = _fitted(eqn, arithmetic), str(eqn.primitive.name).removesuffix("_any")
    params = {key: eqn.params[key] for key in ("y", "rounding_method") if key in eqn.params}
    return lambda *xs: [arithmetic.apply(name, *fitted(xs), **params)]


def _predicate(holds: Callable[[np.ndarray], np.ndarray], eqn, arithmetic: Arithmetic) -> Run:
    fitted, shape = _fitted(eqn, arithmetic), eqn.outvars[0].aval.shape
    return lambda *xs: [holds(arithmetic.compare(*fitted(xs))).reshape(shape)]


def _is_finite(eqn, arithmetic: Arithmetic) -> Run:
    shape = eqn.outvars[0].aval.shape

    def run(x):
        nan = arithmetic.compare(x, x) == 2
        return [~(nan | _infinite(arithmetic, x)).reshape(shape)]

    return run


def _infinite(arithmetic: Arithmetic, x: Numbers) -> np.ndarray:
    """Whether each number is an infinity."""
    ends = arithmetic.exactly(np.array([np.inf, -np.inf]))
    above, below = (arithmetic.compare(x, ends[np.full(len(x), end)]) == 0 for end in range(2))
    return above | below


def _select_n(eqn, arithmetic: Arithmetic) -> Run:
    result = eqn.outvars[0].aval
    if not is_number(eqn.outvars[0]):
        return lambda which, *cases: [np.choose(np.asarray(which, int), cases)]

    def run(which, *cases):
        chosen = np.broadcast_to(np.asarray(which, int), result.shape).ravel()
        return [arithmetic.joined(cases)[chosen * result.size + np.arange(result.size)]]

    return run


def _convert(eqn, arithmetic: Arithmetic) -> Run:
    (atom,), new = eqn.invars, np.dtype(parameter(eqn, "new_dtype"))
    shape = eqn.outvars[0].aval.shape
    if not is_number(atom):
        exactly = arithmetic.exactly if is_number(eqn.outvars[0]) else lambda x: x.astype(new)
        return lambda x: [exactly(np.asarray(x))]
    if is_number(eqn.outvars[0]):
        old = np.dtype(atom.aval.dtype)
        if new.kind == old.kind == "f" and new.itemsize < old.itemsize:
            return lambda x: [_narrowed(x, new, arithmetic)]
        return lambda x: [x if new.kind == "c" or old.kind == "f" else arithmetic.apply("real", x)]
    if new.kind == "b":
        return lambda x: [(arithmetic.compare(x, _zeros(arithmetic, x)) != 0).reshape(shape)]
    limits = np.iinfo(new)

    def whole(x):
        numbers = np.nan_to_num(arithmetic.whole(x), posinf=np.inf, neginf=-np.inf)
        clipped = [int(min(max(a, limits.min), limits.max)) for a in numbers.tolist()]
        return [np.array(clipped, new).reshape(shape)]

    return whole


def _zeros(arithmetic: Arithmetic, x: Numbers) -> Numbers:
    return arithmetic.exactly(np.zeros(len(x)))


def _narrowed(x: Numbers, dtype: np.dtype, arithmetic: Arithmetic) -> Numbers:
    with np.errstate(over="ignore"):
        return arithmetic.exactly(arithmetic.rounded(x).astype(dtype))


def _reduce_precision(eqn, arithmetic: Arithmetic) -> Run:
    return lambda x: [arithmetic.exactly(bind(eqn, arithmetic.rounded(x))[0])]


def _bitcast(eqn, arithmetic: Arithmetic) -> Run:
    """The bits of float64 numbers as integers of 64 bits, or the reverse."""
    (atom,), new = eqn.invars, np.dtype(parameter(eqn, "new_dtype"))
    shape, old = atom.aval.shape, np.dtype(atom.aval.dtype)
    if old.itemsize != new.itemsize:
        raise Unsupported(f"bitcast_convert_type from {old} to {new} is unknown to jaxnn")
    if is_number(atom):
        return lambda x: [arithmetic.rounded(x).astype(old).view(new).reshape(shape)]
    exactly = arithmetic.exactly if is_number(eqn.outvars[0]) else np.asarray
    return lambda x: [exactly(np.ascontiguousarray(x).view(new))]


# Several numbers at a time


def _reduction(name: str, initial: float, eqn, arithmetic: Arithmetic) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, parameter(eqn, "axes"))
    if not rows.shape[1]:
        return lambda x: [arithmetic.exactly(np.full(len(rows), initial))]
    return lambda x: [folded(arithmetic, name, x, rows)]


def _cumulative(name: str, eqn, arithmetic: Arithmetic) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, [parameter(eqn, "axis")])
    rows = rows[:, ::-1] if parameter(eqn, "reverse") else rows

    def run(x):
        if not rows.size:
            return [x]
        totals = [x[rows[:, 0]]]
        for column in rows.T[1:]:
            totals.append(_combined(arithmetic, name, totals[-1], x[column]))
        return [arithmetic.joined(totals)[np.argsort(rows.T.ravel())]]

    return run


def _combined(arithmetic: Arithmetic, name: str, x: Numbers, y: Numbers) -> Numbers:
    apply = arithmetic.apply
    if name != "logsumexp":
        return apply(name, x, y)
    largest, size = apply("max", x, y), np.arange(len(x))
    infinite = _infinite(arithmetic, largest)
    shift = arithmetic.joined([largest, _zeros(arithmetic, x)])[size + len(x) * infinite]
    x, y = (apply("exp", apply("sub", z, shift)) for z in (x, y))
    return apply("add", shift, apply("log", apply("add", x, y)))


def _argument(sign: int, eqn, arithmetic: Arithmetic) -> Run:
    """The place of the largest (sign 1) or smallest (sign -1) number, or of the first NaN."""
    rows = rows_along(eqn.invars[0].aval.shape, parameter(eqn, "axes"))
    aval = eqn.outvars[0].aval

    def run(x):
        unordered = arithmetic.compare(x, x) == 2
        best = np.zeros(len(rows), int)
        for i, column in enumerate(rows.T):
            current = rows[np.arange(len(rows)), best]
            better = arithmetic.compare(x[column], x[current]) == sign
            best = np.where(better | (unordered[column] & ~unordered[current]), i, best)
        return [best.astype(aval.dtype).reshape(aval.shape)]

    return run


def _dot_general(eqn, arithmetic: Arithmetic) -> Run:
    contracted, batch = parameter(eqn, "dimension_numbers")

    def blocks(side: int) -> np.ndarray:
        """Positions as [batch, free, contracted]."""
        shape = eqn.invars[side].aval.shape
        free = [i for i in range(len(shape)) if i not in (*contracted[side], *batch[side])]
        axes = batch[side], free, contracted[side]
        sizes = [int(np.prod([shape[i] for i in group], dtype=int)) for group in axes]
        return positions(shape).transpose(*sum(map(tuple, axes), ())).reshape(sizes)

    left, right = np.broadcast_arrays(blocks(0)[:, :, None], blocks(1)[:, None])
    pairs = eqn.outvars[0].aval.size, left.shape[-1]
    return bilinear(left.reshape(pairs), right.reshape(pairs), eqn, arithmetic)


def _sort(eqn, arithmetic: Arithmetic) -> Run:
    rows = rows_along(eqn.invars[0].aval.shape, [parameter(eqn, "dimension")])
    given = [is_number(atom) for atom in eqn.invars]
    keys, shape = parameter(eqn, "num_keys"), eqn.invars[0].aval.shape
    n = rows.shape[1]
    first, second = (index.ravel() for index in np.indices((n, n)))
    left, right = rows[:, first].ravel(), rows[:, second].ravel()

    def order(x, number: bool) -> np.ndarray:
        """Per pair of a row -1, 0 or 1; NaN comes last."""
        if not number:
            flat = np.ravel(x)
            return (flat[left] > flat[right]).astype(int) - (flat[left] < flat[right])
        signs, nan = arithmetic.compare(x[left], x[right]), arithmetic.compare(x, x) == 2
        return np.where(signs == 2, nan[left].astype(int) - nan[right], signs)

    def run(*xs):
        signs = np.tile(np.sign(first - second), len(rows))  # ties keep their order
        for x, number in reversed([*zip(xs[:keys], given, strict=False)]):
            primary = order(x, number)
            signs = np.where(primary, primary, signs)
        ranks = np.sum(signs.reshape(-1, n, n) > 0, axis=2)
        source = np.empty(rows.size, int)
        source[np.take_along_axis(rows, ranks, 1)] = rows
        return [
            x[source] if number else np.ravel(x)[source].reshape(shape)
            for x, number in zip(xs, given, strict=True)
        ]

    return run


COMPARISONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "eq": lambda sign: sign == 0,
    "ge": lambda sign: (sign == 0) | (sign == 1),
    "gt": lambda sign: sign == 1,
    "le": lambda sign: sign <= 0,
    "le_to": lambda sign: sign <= 0,
    "lt": lambda sign: sign == -1,
    "lt_to": lambda sign: sign == -1,
    "ne": lambda sign: sign != 0,
}
"""Comparisons as functions of the sign of the difference, 2 for NaN."""

ELEMENTWISE = (
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "complex", "conj", "cos", "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp",
    "exp2", "expm1", "floor", "imag", "integer_pow", "lgamma", "log", "log1p", "log2", "logistic",
    "max", "min", "mul", "neg", "polygamma", "pow", "real", "rem", "round", "rsqrt", "sign", "sin",
    "sinh", "sqrt", "sub", "tan", "tanh",
)  # fmt: skip
"""Primitives on single numbers, which the arithmetic computes."""

REDUCTIONS = {"max": -np.inf, "min": np.inf, "prod": 1.0, "sum": 0.0}
"""The value without numbers."""

NAMES = {"prod": "mul", "sum": "add"}
"""The primitive that combines two numbers of a reduction; default: of the reduction's name."""

EXACT: dict[str, Callable[..., Run]] = {
    **{name: partial(_predicate, holds) for name, holds in COMPARISONS.items()},
    **dict.fromkeys(MOVEMENTS, movement),
    "argmax": partial(_argument, 1),
    "argmin": partial(_argument, -1),
    "convert_element_type": _convert,
    "is_finite": _is_finite,
    "select_n": _select_n,
    "sort": _sort,
}
"""Primitives without rounding: evaluated in advance on constants."""

ANY_TYPE = {*MOVEMENTS, "bitcast_convert_type", "convert_element_type", "select_n"}
"""Primitives whose rule covers integers."""

RULES: dict[str, Callable[..., Run]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **{
        f"{kind}{name}": partial(rule, NAMES.get(name, name), *initial)
        for name, value in REDUCTIONS.items()
        for kind, rule, initial in (
            ("reduce_", _reduction, [value]),
            ("reduce_window_", window_reduction, [value]),
            ("cum", _cumulative, []),
        )
    },
    **{f"scatter-{name}": partial(scatter, name) for name in ("add", "max", "min", "mul", "sub")},
    **{name: partial(_expanded, function) for name, function in EXPANDED.items()},
    **EXACT,
    **linear_algebra.RULES,
    **WINDOWS,
    "bitcast_convert_type": _bitcast,
    "cumlogsumexp": partial(_cumulative, "logsumexp"),
    "dot_general": _dot_general,
    "reduce_precision": _reduce_precision,
    "scatter": partial(scatter, ""),
}

_OPERATORS = ["eq", "ge", "gt", "le", "lt", "ne", "add", "and", "mul", "neg", "or", "sub", "xor"]

INTEGER: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, f"__{name}__") for name in _OPERATORS},
    "max": np.maximum,
    "min": np.minimum,
    "not": np.invert,
}
"""Primitives on integers for which NumPy gives JAX's result, without compilation."""


def _iota(eqn) -> np.ndarray:
    shape, dimension = parameter(eqn, "shape"), parameter(eqn, "dimension")
    along = np.arange(shape[dimension]).reshape([-1] + [1] * (len(shape) - dimension - 1))
    return np.broadcast_to(along, shape)


def _of_integers(eqn, arithmetic: Arithmetic) -> Run:
    name = eqn.primitive.name
    numbers = [is_number(variable) for variable in eqn.outvars]
    if name == "iota":
        if numbers[0]:
            return lambda: [arithmetic.exactly(_iota(eqn))]
        return lambda: [_iota(eqn).astype(parameter(eqn, "dtype"))]
    if name in INTEGER:
        return lambda *xs: [np.asarray(INTEGER[name](*xs))]
    return lambda *xs: [
        arithmetic.exactly(r) if n else r for r, n in zip(bind(eqn, *xs), numbers, strict=True)
    ]


def rule(eqn, arithmetic: Arithmetic) -> tuple[Run, bool]:
    """The function that an equation's primitive computes, and whether the function is exact.

    Raises:
      Unsupported: the primitive has no rule.
    """
    name = eqn.primitive.name
    if name not in ANY_TYPE and not any(is_number(atom) for atom in eqn.invars):
        return _of_integers(eqn, arithmetic), True
    own = getattr(arithmetic, "RULES", {})
    if name not in own and name not in RULES:
        raise Unsupported(f"the primitive {name!r} is unknown to jaxnn's exact numbers")
    return own.get(name, RULES.get(name))(eqn, arithmetic), name in EXACT
