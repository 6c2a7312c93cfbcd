"""Digests of functions of the user's own: of the programs that JAX traces, not of the source.

Moved lines, new names of variables and unused values do not change a digest; another operation,
constant or derivative rule does. Two versions of JAX may trace a function into other operations.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.minibatch import as_float
from jaxnn.mlp import MLP
from jaxnn.search.space import readable
from jaxnn.search.task import Task, traced_values
from jaxnn.spec import Spec, optimizer_at
from jaxnn.train import logits_of_one
from jaxnn.types import Data, PyTree

_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+|\bid=\d+")
_NAMES = ("name", "debug_info", "jaxpr_debug_info", "source_info", "callback")  # of no effect


def digests(specs: Iterable[Spec], task: Task, names: tuple[str, ...]) -> dict[str, str]:
    """The digest of every function that no table of jaxnn has: ``{"loss my_module.hinge": ...}``.

    Args:
      specs: programs of a search.
      task: with the examples, and the function that makes the models, or None for MLPs.
      names: the traced names of the space.
    """
    data = task.train
    found: dict[str, dict[Any, str]] = {}
    for spec in specs:
        activation = spec.model.activation if isinstance(spec.model, MLP) else None
        own = {  # with the other parts of a spec that enter the digest
            "model": (task.model, spec.model),
            "loss": (spec.loss, spec.model),
            "activation": (activation, None),
            "optimizer": (spec.optimizer, spec.model),
            "schedule": (spec.schedule, spec.steps),
        }
        for kind, (function, parts) in own.items():
            if callable(function):
                several = found.setdefault(f"{kind} {readable(function)}", {})
                if (function, parts) not in several:
                    several[function, parts] = _digest(
                        kind, function, spec, names, data, task.hyper
                    )
    return {name: _short(*sorted({*several.values()})) for name, several in sorted(found.items())}


def _digest(
    kind: str, function: Any, spec: Spec, names: tuple[str, ...], data: Data, made: Any
) -> str:
    """The digest of a function of a program, for the shapes and types of the program."""
    if kind == "schedule":
        return program_digest(function(spec.steps), jnp.int32(0))
    x, target = jax.eval_shape(lambda d: (as_float(d.inputs, d)[0], d.targets[0]), data)
    if kind == "activation":
        return derivative_digest(function, x)
    key = jax.eval_shape(jax.random.key, 0)  # nothing is computed
    params = jax.eval_shape(spec.model.init, key)
    if kind == "model":
        slopes = derivative_digest(partial(logits_of_one, spec.model), params, x)
        return _short(program_digest(spec.model.init, key), slopes)
    if kind == "loss":
        logits = jax.eval_shape(partial(logits_of_one, spec.model), params, x)
        return derivative_digest(function, logits, target)

    def update(hyper: Any, params: PyTree) -> Any:
        optimizer = optimizer_at(replace(spec, schedule="constant"), hyper, jnp.int32(0))
        state = optimizer.init(params)
        return state, optimizer.update(params, state, params)

    hyper = jax.tree.map(lambda column: column[0], traced_values(spec, names, [{}], made))
    return program_digest(update, hyper, params)


class _BackwardsError(TypeError):
    """A function with ``jax.custom_vjp`` has no derivative forwards."""


def derivative_digest(function: Callable[..., Any], first: PyTree, *others: PyTree) -> str:
    """``program_digest`` of a function and of the derivative by the first argument.

    The derivative brings custom rules to light: forwards, where the order of independent lines
    changes nothing, or backwards for a function with ``jax.custom_vjp``.
    """

    def forwards(first: PyTree, *others: PyTree) -> Any:
        ones = jax.tree.map(jnp.ones_like, first)
        return jax.jvp(lambda first: function(first, *others), (first,), (ones,))

    def backwards(first: PyTree, *others: PyTree) -> Any:
        result, pull = jax.vjp(lambda first: function(first, *others), first)
        return result, pull(jax.tree.map(jnp.ones_like, result))

    try:
        return program_digest(forwards, first, *others)
    except _BackwardsError:
        return program_digest(backwards, first, *others)


def program_digest(function: Callable[..., Any], *arguments: PyTree) -> str:
    """The digest of a function's program for the shapes and types of some arguments."""
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = [_short("input", i, a.shape, a.dtype) for i, a in enumerate(closed.in_avals)]
    return _short(*_outputs(closed, inputs))


def _outputs(program: Any, inputs: Iterable[str]) -> list[str]:
    """The digests of the results: each a digest of an operation and of the operands' digests."""
    jaxpr, constants = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    known = dict(zip(jaxpr.constvars, map(_described, constants), strict=False))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def value(atom: Any) -> str:
        return _described(atom.val) if isinstance(atom, core.Literal) else known[atom]

    effects = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "custom_lin":
            raise _BackwardsError
        operands = list(map(value, equation.invars))
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit", "closed_call", "core_call") and inner:
            results = _outputs(inner, operands)
        else:
            operation = _short(equation.primitive, _described(equation.params), *operands)
            results = [_short(operation, place) for place in range(len(equation.outvars))]
            if equation.effects and equation.primitive.name != "debug_callback":
                effects.append(operation)
        known |= zip(equation.outvars, results, strict=True)
    return [*map(value, jaxpr.outvars), *effects]


def _described(value: Any) -> str:
    """The digest of a constant, or of a parameter of an operation."""
    if isinstance(value, Mapping):
        parts = {name: _described(value[name]) for name in sorted(value, key=str)}
        return _short(*(item for item in parts.items() if item[0] not in _NAMES))
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        variables = getattr(value, "jaxpr", value).invars
        return _short(*_outputs(value, [f"input {place}" for place in range(len(variables))]))
    if isinstance(value, tuple | list):
        return _short(type(value).__name__, *map(_described, value))
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array | int | float | complex):
        array = np.asarray(value)
        content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        return _short(array.dtype, array.shape, content)
    if callable(value) and not isinstance(value, type):
        return "function"
    return _ADDRESS.sub("", repr(value))


def _short(*parts: Any) -> str:
    """16 hexadecimal digits of some parts."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
