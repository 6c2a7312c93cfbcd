"""A jaxpr evaluated on the numbers of an arithmetic, such as balls or residues, in place of XLA.

A rule takes an equation and an arithmetic and returns a function of the operands. Primitives
without a rule of their own are functions of other primitives: JAX traces the function.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.extend.core import ClosedJaxpr

from jaxnn.verify.exact import Arithmetic, Run, Value, is_number
from jaxnn.verify.exact.expansions import EXPANDED
from jaxnn.verify.exact.positions import MOVEMENTS, bind, movement
from jaxnn.verify.exact.positions import RULES as SUMS
from jaxnn.verify.graph import Unsupported, inline, parameter, scan_counts

MOST_STEPS = 10_000
"""Steps of a while loop: halving until 0 ends in float64 alone, by underflow."""


def compile(
    closed: ClosedJaxpr, arithmetic: Arithmetic
) -> Callable[[Sequence[Value]], list[Value]]:
    """A jaxpr as a function of ``Numbers`` and of NumPy arrays.

    Nested calls are inlined, unused equations dropped, exact constant subexpressions folded.

    Raises:
      Unsupported: the jaxpr has a primitive, or a parameter, without a rule.
    """
    numbers, known = count(), dict[int, Any]()  # of values, and the values of constants
    equations: list[tuple[Any, Sequence[int], list[int]]] = []

    def constant(atom, value: Any) -> int:
        number = next(numbers)
        if is_number(atom):
            known[number] = arithmetic.exactly(np.asarray(value))
        else:
            is_key = jnp.issubdtype(atom.aval.dtype, dtypes.prng_key)
            known[number] = value if is_key else np.asarray(value, atom.aval.dtype)
        return number

    def operation(equation, inputs: Sequence[int], _: str) -> list[int]:
        equations.append((equation, inputs, [next(numbers) for _ in equation.outvars]))
        return equations[-1][2]

    arguments = [next(numbers) for _ in closed.jaxpr.invars]
    outputs = inline(closed, arguments, constant, operation)
    needed, live = set(outputs), []
    for equation in reversed(equations):
        if needed.intersection(equation[2]):
            needed.update(equation[1])
            live.append(equation)
    steps = []
    for eqn, ins, outs in reversed(live):
        run, is_exact = rule(eqn, arithmetic)
        if is_exact and known.keys() >= {*ins}:
            known.update(zip(outs, run(*(known[i] for i in ins)), strict=True))
        else:
            steps.append((run, ins, outs))

    def program(given: Sequence[Value]) -> list[Value]:
        values = known | dict(zip(arguments, given, strict=True))
        for run, ins, outs in steps:
            values.update(zip(outs, run(*(values[i] for i in ins)), strict=True))
        return [values[i] for i in outputs]

    return program


# Primitives that run other jaxprs


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
    order = range(length)[:: -1 if parameter(eqn, "reverse") else 1]
    first, carried = scan_counts(eqn)

    def stacked(variable, parts: Sequence[Value]) -> Value:
        aval = variable.aval
        if not is_number(variable):
            return np.array(parts, aval.dtype).reshape(aval.shape)
        return (arithmetic.joined(parts) if parts else arithmetic.exactly(())).reshape(aval.shape)

    def run(*operands):
        consts, state = operands[:first], list(operands[first : first + carried])
        rows: list[Any] = [None] * length
        for i in order:
            given = [x[i : i + 1].reshape(x.shape[1:]) for x in operands[first + carried :]]
            results = body([*consts, *state, *given])
            state, rows[i] = results[:carried], results[carried:]
        outputs = enumerate(eqn.outvars[carried:])
        return [*state, *(stacked(variable, [row[k] for row in rows]) for k, variable in outputs)]

    return run


def _expanded(function: Callable[..., Any], eqn, arithmetic: Arithmetic) -> Run:
    """The rule of a primitive that is a function of other primitives."""
    shapes = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in eqn.invars]
    with jax.enable_x64(True):
        flat = jax.make_jaxpr(lambda *xs: jax.tree.leaves(function(*xs, **eqn.params)))(*shapes)
    program = compile(flat, arithmetic)
    return lambda *operands: program(operands)


# Rules of primitives on single numbers


def _elementwise(eqn, arithmetic: Arithmetic) -> Run:
    name = str(eqn.primitive.name).removesuffix("_any")
    params = {key: eqn.params[key] for key in ("y", "rounding_method") if key in eqn.params}
    return lambda *xs: [arithmetic.apply(name, *xs, **params)]


def _predicate(signs: Sequence[int], eqn, arithmetic: Arithmetic) -> Run:
    return lambda x, y: [np.isin(arithmetic.compare(x, y), signs)]


def _is_finite(eqn, arithmetic: Arithmetic) -> Run:
    compare = arithmetic.compare
    return lambda x: [(compare(x, np.inf) == -1) & (compare(x, -np.inf) == 1)]


def _convert(eqn, arithmetic: Arithmetic) -> Run:
    (atom,), (result,), new = eqn.invars, eqn.outvars, np.dtype(parameter(eqn, "new_dtype"))
    old = np.dtype(atom.aval.dtype)
    if not is_number(atom):
        return lambda x: [arithmetic.exactly(x) if is_number(result) else x.astype(new)]
    if is_number(result):
        if new.kind == old.kind == "f" and new.itemsize < old.itemsize:
            narrow = np.errstate(over="ignore")(lambda x: x.astype(new))
            return lambda x: [arithmetic.exactly(narrow(arithmetic.rounded(x)))]
        return lambda x: [arithmetic.apply("real", x) if old.kind == "c" != new.kind else x]
    if new.kind == "b":
        return lambda x: [arithmetic.compare(x, 0.0) != 0]
    limits = np.iinfo(new)

    def whole(x):
        numbers = np.nan_to_num(arithmetic.whole(x), posinf=np.inf, neginf=-np.inf)
        clipped = [int(min(max(a, limits.min), limits.max)) for a in numbers.ravel().tolist()]
        return [np.array(clipped, new).reshape(x.shape)]

    return whole


def _reduce_precision(eqn, arithmetic: Arithmetic) -> Run:
    return lambda x: [arithmetic.exactly(bind(eqn, arithmetic.rounded(x))[0])]


def _bitcast(eqn, arithmetic: Arithmetic) -> Run:
    """The bits of float64 numbers as integers of 64 bits, or the reverse."""
    (atom,), new = eqn.invars, np.dtype(parameter(eqn, "new_dtype"))
    old = np.dtype(atom.aval.dtype)
    if old.itemsize != new.itemsize:
        raise Unsupported(f"bitcast_convert_type from {old} to {new} is unknown to jaxnn")
    if is_number(atom):
        return lambda x: [arithmetic.rounded(x).astype(old).view(new)]
    exactly = arithmetic.exactly if is_number(eqn.outvars[0]) else np.asarray
    return lambda x: [exactly(np.asarray(x).view(new))]


COMPARISONS = {
    "eq": [0], "ge": [0, 1], "gt": [1], "le": [-1, 0], "le_to": [-1, 0], "lt": [-1], "lt_to": [-1],
    "ne": [-1, 1, 2],
}  # fmt: skip
"""The signs of a difference, 2 for NaN, at which a comparison holds."""

EXACT: dict[str, Callable[..., Run]] = {
    **{name: partial(_predicate, signs) for name, signs in COMPARISONS.items()},
    **dict.fromkeys(MOVEMENTS, movement),
    "convert_element_type": _convert,
    "is_finite": _is_finite,
}
"""Primitives without rounding: evaluated in advance on constants."""

CONTROL = {"cond": _cond, "scan": _scan, "while": _while}

ANY_TYPE = {
    "bitcast_convert_type", "call_hi_primitive", "convert_element_type", "custom_linear_solve",
    *CONTROL, *MOVEMENTS,
}  # fmt: skip
"""Primitives whose rule covers integers."""

RULES: dict[str, Callable[..., Run]] = {
    **{name: partial(_expanded, function) for name, function in EXPANDED.items()},
    **CONTROL,
    **EXACT,
    **SUMS,
    "add_any": _elementwise,
    "bitcast_convert_type": _bitcast,
    "reduce_precision": _reduce_precision,
}

_OPERATORS = ["eq", "ge", "gt", "le", "lt", "ne", "add", "and", "mul", "neg", "or", "sub", "xor"]

INTEGER: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, f"__{name}__") for name in _OPERATORS},
    "max": np.maximum,
    "min": np.minimum,
    "not": np.invert,
}
"""Primitives on integers for which NumPy gives JAX's result, without compilation."""


def _of_integers(eqn, arithmetic: Arithmetic) -> Run:
    def numbers(results: Sequence[Any]) -> Sequence[Value]:
        pairs = zip(results, eqn.outvars, strict=True)
        return [arithmetic.exactly(r) if is_number(variable) else r for r, variable in pairs]

    name = eqn.primitive.name
    if name == "iota":
        shape = parameter(eqn, "shape")
        along = np.indices(shape, sparse=True)[parameter(eqn, "dimension")]
        made = np.broadcast_to(along, shape).astype(parameter(eqn, "dtype"))
        return lambda: numbers([made])
    if name in INTEGER:
        return lambda *xs: [np.asarray(INTEGER[name](*xs))]
    return lambda *xs: numbers(bind(eqn, *xs))


def rule(eqn, arithmetic: Arithmetic) -> tuple[Run, bool]:
    """The function that an equation's primitive computes, and whether the function is exact.

    Raises:
      Unsupported: the primitive has no rule.
    """
    name = eqn.primitive.name
    if name not in ANY_TYPE and not any(is_number(atom) for atom in eqn.invars):
        return _of_integers(eqn, arithmetic), True
    made = arithmetic.RULES.get(name) or RULES.get(name)
    if made is None and name not in arithmetic.FUNCTIONS:
        raise Unsupported(f"the primitive {name!r} {arithmetic.UNKNOWN}")
    return (made or _elementwise)(eqn, arithmetic), name in EXACT
