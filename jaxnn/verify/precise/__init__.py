"""A jaxpr evaluated in high precision, with mpmath instead of XLA; importable without mpmath."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.extend.core import ClosedJaxpr

from jaxnn.extras import require
from jaxnn.verify.graph import Unsupported, inline, parameter, scan_counts


def evaluate(
    closed_jaxpr: ClosedJaxpr, arguments: Sequence[Any], bits: int = 1200
) -> list[np.ndarray]:
    """The results of a jaxpr, every operation on floats carried out with ``bits`` bits.

    Constants of the jaxpr stay float64: log 2 = 0.693... has 53 bits. Infinities and NaN follow
    IEEE 754; there is no negative zero.

    Args:
      closed_jaxpr: from ``jax.make_jaxpr``, best under ``jax.enable_x64(True)``.
      arguments: an array per variable of the jaxpr: float64, integers, Booleans, or arrays of
        objects with mpmath numbers.
      bits: the precision; at least 53.

    Returns:
      An array per result: of mpmath's ``mpf`` for floats, ordinary arrays otherwise.

    Raises:
      ModuleNotFoundError: mpmath is not installed.
      Unsupported: the jaxpr has a primitive or parameter without a rule.
      ValueError: the number, shapes or types of the arguments, or the bits, do not fit.
    """
    return compile(closed_jaxpr)(arguments, bits)


def compile(closed_jaxpr: ClosedJaxpr) -> Callable[..., list[np.ndarray]]:
    """``evaluate`` for many arguments: a function of the arguments and the bits.

    With ``away=True`` sums are rounded away from zero, by default towards zero. A result that
    depends on the direction has lost all bits to cancellation, like 1 - sigmoid(10^6).

    Nested calls are inlined, unused equations dropped, constant subexpressions folded.

    Raises:
      ModuleNotFoundError, Unsupported: as ``evaluate``.
    """
    rules = _rules()
    for equation in closed_jaxpr.jaxpr.eqns:
        if any(jnp.issubdtype(v.aval.dtype, dtypes.prng_key) for v in equation.outvars):
            raise Unsupported(
                f"random keys ({equation.primitive.name}) are unknown to jaxnn's high precision"
            )
    program = _program(closed_jaxpr)
    variables = closed_jaxpr.jaxpr.invars
    results = [(atom.aval.shape, rules.is_float(atom)) for atom in closed_jaxpr.jaxpr.outvars]

    def run(arguments: Sequence[Any], bits: int = 1200, away: bool = False) -> list[np.ndarray]:
        if bits < 53:
            raise ValueError(f"bits must be at least 53, not {bits}")
        if len(arguments) != len(variables):
            raise ValueError(f"expected {len(variables)} arguments, got {len(arguments)}")
        values = [
            _argument(i, a, v) for i, (a, v) in enumerate(zip(arguments, variables, strict=True))
        ]
        rules.scalars.Rounding.direction = "u" if away else "d"
        outputs = program(bits, values)
        return [
            _numbers(output, shape) if is_float else np.asarray(output)
            for output, (shape, is_float) in zip(outputs, results, strict=True)
        ]

    return run


def _rules():
    """The rules of the primitives, which need mpmath."""
    require("verify", "mpmath")
    from jaxnn.verify.precise import rules

    return rules


def _argument(index: int, argument: Any, variable) -> Any:
    array, aval = np.asarray(argument), variable.aval
    if array.shape != aval.shape:
        raise ValueError(f"argument {index}: expected the shape {aval.shape}, got {array.shape}")
    if _rules().is_float(variable):
        return _rules().to_raw(array)
    if array.dtype.kind not in "iub":
        raise ValueError(f"argument {index}: expected the type {aval.dtype}, got {array.dtype}")
    return array.astype(aval.dtype)


def _numbers(raw: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    import mpmath

    numbers = np.empty(len(raw), object)
    numbers[:] = [mpmath.mp.make_mpf(x) for x in raw]
    return numbers.reshape(shape)


def _program(closed: ClosedJaxpr) -> Callable[[int, Sequence[Any]], list[Any]]:
    """A function of bits and arguments: floats are lists of raw numbers, integers NumPy arrays."""
    constants: list[Any] = []  # None for computed values
    equations: list[tuple[Any, Sequence[int], list[int]]] = []

    def new(value: Any = None) -> int:
        constants.append(value)
        return len(constants) - 1

    def operation(equation, inputs: Sequence[int], _: str) -> list[int]:
        equations.append((equation, inputs, [new() for _ in equation.outvars]))
        return equations[-1][2]

    arguments = [new() for _ in closed.jaxpr.invars]
    outputs = inline(closed, arguments, lambda atom, value: new(_constant(atom, value)), operation)
    needed, live = set(outputs), []
    for equation in reversed(equations):
        if needed.intersection(equation[2]):
            needed.update(equation[1])
            live.append(equation)
    steps = []
    for eqn, ins, outs in reversed(live):
        function, exact = _step(eqn)
        if exact and all(constants[i] is not None for i in ins):
            for i, result in zip(outs, function(0, *[constants[i] for i in ins]), strict=True):
                constants[i] = result
        else:
            steps.append((function, ins, outs))

    def run(bits: int, given: Sequence[Any]) -> list[Any]:
        values = constants.copy()
        for i, argument in zip(arguments, given, strict=True):
            values[i] = argument
        for function, ins, outs in steps:
            for i, result in zip(outs, function(bits, *[values[i] for i in ins]), strict=True):
                values[i] = result
        return [values[i] for i in outputs]

    return run


def _constant(atom, value: Any) -> Any:
    rules = _rules()
    return rules.to_raw(value) if rules.is_float(atom) else np.asarray(value, atom.aval.dtype)


def _step(eqn) -> tuple[Callable[..., Sequence[Any]], bool]:
    """The function of an equation, and whether the function is exact."""
    if eqn.primitive.name in CONTROL:
        return CONTROL[eqn.primitive.name](eqn), False
    return _rules().rule(eqn)


def _cond(eqn) -> Callable[..., Sequence[Any]]:
    branches = [_program(branch) for branch in parameter(eqn, "branches")]

    def run(bits, index, *operands):
        return branches[min(max(int(index), 0), len(branches) - 1)](bits, operands)

    return run


def _while(eqn) -> Callable[..., Sequence[Any]]:
    condition, body = _program(parameter(eqn, "cond_jaxpr")), _program(parameter(eqn, "body_jaxpr"))
    a, b = parameter(eqn, "cond_nconsts"), parameter(eqn, "body_nconsts")

    def run(bits, *operands):
        state = list(operands[a + b :])
        while condition(bits, [*operands[:a], *state])[0]:
            state = body(bits, [*operands[a : a + b], *state])
        return state

    return run


def _scan(eqn) -> Callable[..., Sequence[Any]]:
    body, length = _program(parameter(eqn, "jaxpr")), parameter(eqn, "length")
    reverse = parameter(eqn, "reverse")
    first, carried = scan_counts(eqn)
    stacked = eqn.outvars[carried:]
    is_float = _rules().is_float

    def at(x, i: int):
        if isinstance(x, np.ndarray):
            return x[i]
        size = len(x) // length
        return x[i * size : (i + 1) * size]

    def gathered(variable, parts: list[Any]):
        if is_float(variable):
            return [x for part in parts for x in part]
        return np.array(parts, variable.aval.dtype).reshape(variable.aval.shape)

    def run(bits, *operands):
        consts, state = operands[:first], list(operands[first : first + carried])
        rows: list[Any] = [None] * length
        for i in reversed(range(length)) if reverse else range(length):
            given = [at(x, i) for x in operands[first + carried :]]
            results = body(bits, [*consts, *state, *given])
            state, rows[i] = results[:carried], results[carried:]
        return [*state, *(gathered(v, [row[k] for row in rows]) for k, v in enumerate(stacked))]

    return run


CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
