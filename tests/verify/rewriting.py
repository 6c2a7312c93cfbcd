"""Equal formulas, made mechanically: an identity applied to the operations of a formula.

The rewritten formula interprets the jaxpr of the given formula, at the sizes of each call, with
other operations in place of some: ``a - b`` becomes ``a + (-b)``, ``(a - b) c`` becomes
``a c - b c``, a mean becomes a sum of quotients, a softmax its definition.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core

from jaxnn.verify.claims import call, parameters

CALLS = ("pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2")
"""Primitives that only call a program."""


class Operation:
    """An operation, with the values of the operands and the operations that made the operands."""

    def __init__(self, equation: Any, values: Sequence[Any], made: dict[int, "Operation"]):
        self.equation, self.values = equation, values
        self.name, self.params = equation.primitive.name, equation.params
        self._made = made

    def operand(self, place: int, *names: str) -> "Operation | None":
        """The operation that made an operand, if of one of the names; without names of any."""
        made = self._made.get(id(self.values[place]))
        return made if made and (not names or made.name in names) else None

    def apply(self) -> list[Any]:
        """The results of the operation as it is."""
        params = self.equation.primitive.get_bind_params(self.params)
        results = self.equation.primitive.bind(*self.values, **params)
        return results if self.equation.primitive.multiple_results else [results]


def _distributed(op: Operation) -> Any:
    """(a + b) c = a c + b c, and c (a - b) = a c - b c."""
    for place in (0, 1):
        inner, factor = op.operand(place, "add", "sub"), op.values[1 - place]
        if inner is not None:
            sign = 1 if inner.name == "add" else -1
            return inner.values[0] * factor + sign * (inner.values[1] * factor)
    return None


def _product_distributed(op: Operation) -> Any:
    """(A - B) C = A C - B C, and C (A - B) = C A - C B."""
    for place in (0, 1):
        inner = op.operand(place, "add", "sub")
        if inner is not None and jnp.shape(inner.values[0]) == jnp.shape(inner.values[1]):
            parts = []
            for value in inner.values:
                op.values = [value if k == place else v for k, v in enumerate(op.values)]
                parts += op.apply()
            return parts[0] + parts[1] if inner.name == "add" else parts[0] - parts[1]
    return None


def _divided_before(op: Operation) -> Any:
    """sum(a) / n = sum(a / n), for a number n."""
    inner = op.operand(0, "reduce_sum")
    if inner is None or jnp.ndim(op.values[1]):
        return None
    return jnp.sum(inner.values[0] / op.values[1], axis=inner.params["axes"])


def _sum_by_halves(op: Operation) -> Any:
    """sum(a) = sum(a / 2) + sum(a / 2)."""
    half = jnp.sum(op.values[0] / 2, axis=op.params["axes"])
    return half + half


def _by_outer_products(op: Operation) -> Any:
    """(A B)_ij = sum_k A_ik B_kj, of two matrices or vectors."""
    a, b = op.values
    (left, right), (batch, _) = op.params["dimension_numbers"]
    if batch or len(left) != 1:
        return None
    a, b = jnp.moveaxis(a, left[0], -1), jnp.moveaxis(b, right[0], -1)
    a = a.reshape(*a.shape[:-1], *[1] * (b.ndim - 1), a.shape[-1])
    return jnp.sum(a * b, axis=-1)


def _transposed_product(op: Operation) -> Any:
    """A B = (B^T A^T)^T, of two matrices."""
    if op.params["dimension_numbers"] != (((1,), (0,)), ((), ())):
        return None
    a, b = op.values
    return (b.T @ a.T).T if a.ndim == b.ndim == 2 else None


def _unshifted(op: Operation) -> Any:
    """e^z / sum e^z = e^(z - max z) / sum e^(z - max z): the shift of a softmax, left out."""
    inner: Operation | None = op
    while inner is not None and inner.name != "reduce_max":
        made = (inner.operand(place) for place in range(len(inner.values)))
        inner = next((operation for operation in made if operation is not None), None)
    return None if inner is None else jnp.zeros_like(op.values[0])


def _by_inverse(op: Operation) -> Any:
    """a / b = a (1 / b); not for a number b, as 1/3 rounded to float64 is another number."""
    a, b = op.values
    return a * (1 / b) if isinstance(b, Tracer) else None


def _binary(function: Callable[[Any, Any], Any]) -> Callable[[Operation], Any]:
    return lambda op: function(*op.values)


def _unary(function: Callable[[Any], Any]) -> Callable[[Operation], Any]:
    return lambda op: function(op.values[0])


IDENTITIES: dict[str, dict[str, Callable[[Operation], Any]]] = {
    "commute": {"mul": _binary(lambda a, b: b * a), "add": _binary(lambda a, b: b + a)},
    "differences as sums": {
        "sub": _binary(lambda a, b: a + (-b)),
        "add": _binary(lambda a, b: a - (-b)),
    },
    "differences turned round": {
        "sub": _binary(lambda a, b: -(b - a)),
        "neg": _unary(lambda a: -1 * a),
    },
    "distribute": {"mul": _distributed, "dot_general": _product_distributed},
    "products by sums": {"dot_general": _by_outer_products},
    "transposed products": {"dot_general": _transposed_product},
    "quotients as products": {"div": _by_inverse},
    "division inside the sum": {"div": _divided_before},
    "sums by halves": {"reduce_sum": _sum_by_halves},
    "exponentials": {"exp": _unary(lambda a: 1 / jnp.exp(-a))},
    "halved exponentials": {"exp": _unary(lambda a: jnp.exp(a / 2) * jnp.exp(a / 2))},
    "logarithms": {"log": _unary(lambda a: -jnp.log(1 / a))},
    "sigmoids": {
        "logistic": _unary(lambda a: 1 / (1 + jnp.exp(-a))),
        "tanh": _unary(lambda a: 2 / (1 + jnp.exp(-2 * a)) - 1),
    },
    "softmax without a shift": {"stop_gradient": _unshifted},
    "powers": {
        "integer_pow": lambda op: op.values[0] * op.values[0] if op.params["y"] == 2 else None,
        "square": _unary(lambda a: a * a),
    },
    "transposed twice": {"dot_general": lambda op: op.apply()[0].T.T + 0.0},
}
"""By name the identity, and by primitive the operation in its place; None where none applies."""


def rewritten(function: Callable[..., Any], identity: str) -> Callable[..., Any]:
    """The function with an identity applied wherever possible."""
    rules = IDENTITIES[identity]

    def formula(**inputs: Any) -> Any:
        return _interpreted(function, rules, inputs)[0]

    names = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in parameters(function)
    ]
    vars(formula)["__signature__"] = inspect.Signature(names)
    return formula


def applies(function: Callable[..., Any], identity: str, inputs: Any) -> bool:
    """Whether an identity changes a function, at inputs of given shapes."""
    counts = []
    rules = IDENTITIES[identity]
    jax.eval_shape(lambda i: counts.append(_interpreted(function, rules, i)[1]), inputs)
    return counts[0] > 0


def _interpreted(
    function: Callable[..., Any], rules: dict[str, Callable[[Operation], Any]], inputs: Any
) -> tuple[Any, int]:
    """The function's value with other operations, and how many operations are others."""
    inputs = {name: inputs[name] for name in parameters(function) if name in inputs}
    program, shape = jax.make_jaxpr(lambda i: call(function, i), return_shape=True)(inputs)
    interpreter = _Interpreter(rules)
    results = interpreter.run(program, jax.tree.leaves(inputs))
    return jax.tree.unflatten(jax.tree.structure(shape), results), interpreter.changed


class _Interpreter:
    """Evaluates jaxprs, operation by operation."""

    def __init__(self, rules: dict[str, Callable[[Operation], Any]]):
        self.rules, self.changed = rules, 0
        self._made: dict[int, Operation] = {}
        self._kept: list[Any] = []  # so that no other value gets the id of a value

    def run(self, program: Any, arguments: Sequence[Any]) -> list[Any]:
        """The results of a closed jaxpr."""
        known = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
        known |= dict(zip(program.jaxpr.invars, arguments, strict=True))

        def value(variable: Any) -> Any:
            return variable.val if isinstance(variable, core.Literal) else known[variable]

        for equation in program.jaxpr.eqns:
            operation = Operation(equation, [*map(value, equation.invars)], self._made)
            results = self._results(operation)
            for variable, result in zip(equation.outvars, results, strict=True):
                known[variable] = result
                self._made[id(result)] = operation
                self._kept.append(result)
        return [value(variable) for variable in program.jaxpr.outvars]

    def _results(self, op: Operation) -> Sequence[Any]:
        rule, (aval, *_) = self.rules.get(op.name), [v.aval for v in op.equation.outvars]
        if rule is not None and jnp.issubdtype(aval.dtype, jnp.floating):
            new = rule(op)
            if new is not None:
                self.changed += 1
                assert new.shape == aval.shape, (op.name, new.shape, aval.shape)
                return [new]
        inner = next((op.params[k] for k in ("jaxpr", "call_jaxpr") if k in op.params), None)
        if op.name in CALLS and inner is not None:
            closed = inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())
            return self.run(closed, op.values)
        return op.apply()
