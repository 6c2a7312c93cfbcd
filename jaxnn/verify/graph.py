"""A function as a list of primitive operations, with every custom derivative rule taken away.

Autodiff of a function whose author supplied its derivative (``jax.custom_jvp``, as ``jax.nn.relu``
and ``jax.nn.softmax`` have it) only repeats what the author claims. Here calls are inlined and such
rules dropped, so that derivatives are those of the primitives.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxnn.types import PyTree

Name = int
"""What a node calls a value: the values of a graph are numbered."""


class Node(NamedTuple):
    """One primitive operation."""

    primitive: core.Primitive
    params: dict[str, Any]
    operands: tuple[Name, ...]
    results: tuple[Name, ...]
    where: str  # "line 12", of the user's code


class Graph(NamedTuple):
    """Operations in an order in which they can be evaluated."""

    inputs: tuple[Name, ...]
    constants: dict[Name, Any]
    nodes: tuple[Node, ...]
    outputs: tuple[Name, ...]
    shapes: dict[Name, jax.ShapeDtypeStruct]


def trace(function: Callable[..., PyTree], *arguments: PyTree) -> Graph:
    """The graph of a function of arguments of these shapes, its flat inputs to its flat outputs."""
    return _graph(jax.make_jaxpr(function)(*arguments))


def _graph(closed: core.ClosedJaxpr) -> Graph:
    builder = _Builder()
    inputs = tuple(builder.new(aval) for aval in closed.in_avals)
    outputs = builder.inline(closed, inputs, "")
    return Graph(inputs, builder.constants, tuple(builder.nodes), outputs, builder.shapes)


def combined(graph: Graph, summands: Sequence[tuple[Name, float]]) -> Graph:
    """The graph whose output is the signed sum of some of its values.

    Args:
      graph: any graph.
      summands: (value, sign); a sign is 1.0 or -1.0.
    """
    shapes, nodes = dict(graph.shapes), list(graph.nodes)

    def append(primitive: core.Primitive, *operands: Name) -> Name:
        result = len(shapes)
        shapes[result] = shapes[operands[0]]
        nodes.append(Node(primitive, {}, operands, (result,), ""))
        return result

    total = None
    for name, sign in summands:
        signed = name if sign > 0 else append(jax.lax.neg_p, name)
        total = signed if total is None else append(jax.lax.add_p, total, signed)
    return graph._replace(shapes=shapes, nodes=tuple(nodes), outputs=(total,) if total else ())


def evaluate(graph: Graph, arguments: Sequence[Any]) -> list[Any]:
    """The outputs for these flat arguments."""
    values = {**graph.constants, **dict(zip(graph.inputs, arguments, strict=True))}
    for node in graph.nodes:
        results = apply(node, [values[name] for name in node.operands])
        values.update(zip(node.results, results, strict=True))
    return [values[name] for name in graph.outputs]


def apply(node: Node, operands: Sequence[Any]) -> list[Any]:
    """The results of one operation."""
    results = node.primitive.bind(*operands, **node.primitive.get_bind_params(node.params))
    return list(results) if node.primitive.multiple_results else [results]


def by_primitives(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function without custom derivative rules, traced once for arguments of a kind."""
    known: dict[Any, tuple[Graph, Any]] = {}

    def plain(*arguments: PyTree) -> PyTree:
        flat, structure = jax.tree.flatten(arguments)
        kind = (structure, *((np.shape(value), jax.numpy.result_type(value)) for value in flat))
        if kind not in known:
            shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in kind[1:]]
            closed, value = jax.make_jaxpr(function, return_shape=True)(
                *jax.tree.unflatten(structure, shapes)
            )
            known[kind] = _graph(closed), jax.tree.structure(value)
        graph, value = known[kind]
        return jax.tree.unflatten(value, evaluate(graph, flat))

    return plain


class _Builder:
    """Numbers the values and collects the nodes."""

    def __init__(self):
        self.nodes: list[Node] = []
        self.constants: dict[Name, Any] = {}
        self.shapes: dict[Name, jax.ShapeDtypeStruct] = {}
        self._known: dict[Any, tuple[Name, ...]] = {}

    def new(self, aval: Any) -> Name:
        """A number for a new value."""
        name = len(self.shapes)
        self.shapes[name] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return name

    def constant(self, value: Any) -> Name:
        """A number for a value that does not depend on the inputs."""
        traced = isinstance(value, Tracer)
        value = value if traced else np.asarray(value)
        key = id(value) if traced else (value.dtype, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = (self.new(value),)
            self.constants[self._known[key][0]] = value
        return self._known[key][0]

    def inline(
        self, closed: core.ClosedJaxpr, arguments: Sequence[Name], where: str
    ) -> tuple[Name, ...]:
        """Appends the operations of a jaxpr, and returns what its outputs are called."""
        names: dict[Any, Name] = dict(zip(closed.jaxpr.invars, arguments, strict=True))
        for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
            names[variable] = self.constant(value)

        def name(atom: Any) -> Name:
            if isinstance(atom, core.Literal):
                return self.constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
            return names[atom]

        for equation in closed.jaxpr.eqns:
            operands = tuple(name(atom) for atom in equation.invars)
            place = _user_line(equation) or where
            called = _called(equation)
            if called is not None:
                results = self.inline(called, operands, place)
            else:
                results = self._operation(equation, operands, place)
            names.update(zip(equation.outvars, results, strict=True))
        return tuple(name(atom) for atom in closed.jaxpr.outvars)

    def _operation(
        self, equation: core.JaxprEqn, operands: tuple[Name, ...], place: str
    ) -> tuple[Name, ...]:
        """Appends an operation, unless it is there: what is written twice is one value."""
        key = (equation.primitive, operands, str(equation.params))
        if key not in self._known:
            results = tuple(self.new(v.aval) for v in equation.outvars)
            params = {name: _plain_inside(value) for name, value in equation.params.items()}
            self.nodes.append(Node(equation.primitive, params, operands, results, place))
            self._known[key] = results
        return self._known[key]


_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}
"""The primitives that only call another jaxpr, and the parameter that holds it."""


def _called(equation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    parameter = _CALLS.get(equation.primitive.name)
    if parameter is None:
        return None
    jaxpr = equation.params[parameter]
    return jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else core.ClosedJaxpr(jaxpr, ())


def _plain_inside(value: Any) -> Any:
    """A parameter of scan, while or cond: the functions in it without custom rules, too."""
    if isinstance(value, tuple) and any(isinstance(v, core.ClosedJaxpr) for v in value):
        parts = [_plain_inside(v) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, core.ClosedJaxpr):
        return value
    arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in value.jaxpr.invars]
    return jax.make_jaxpr(by_primitives(core.jaxpr_as_fun(value)))(*arguments)


def _user_line(equation: core.JaxprEqn) -> str:
    """The innermost line outside of JAX that the operation came from."""
    traceback = equation.source_info.traceback
    for frame in traceback.frames if traceback else ():
        if not is_library(frame.file_name):
            return f"line {frame.line_num}"
    return ""


def is_library(path: str) -> bool:
    """Whether a source file belongs to JAX or to this package's verification."""
    parts = path.replace("\\", "/")
    return any(
        part in parts for part in ("/jax/", "/jaxlib/", "/jaxnn/verify/", "<frozen", "/numpy/")
    )
