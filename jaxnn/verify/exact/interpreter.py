"""A jaxpr evaluated on the numbers of an arithmetic, such as balls or residues, in place of XLA."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import dtypes
from jax.extend.core import ClosedJaxpr

from jaxnn.verify.exact import Arithmetic, Run, Value, is_number
from jaxnn.verify.exact.rules import rule
from jaxnn.verify.graph import inline, parameter, scan_counts


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
        while condition([*operands[:a], *state])[0]:
            state = body([*operands[a : a + b], *state])
        return state

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


CONTROL: dict[str, Callable[..., Run]] = {
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "scan": _scan,
    "while": _while,
}
"""Primitives that run other jaxprs."""
