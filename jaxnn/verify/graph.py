"""A function as a list of primitive operations, without custom derivative rules.

Autodiff of a function with a custom derivative (``jax.custom_jvp``: ``jax.nn.relu``,
``jax.nn.softmax``) only repeats the author's claim. A graph inlines every call and drops custom
rules; autodiff of a graph differentiates the primitives alone.
"""

import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxnn.types import PyTree

LONGEST = 1_000
"""Characters of an exception's message that are shown."""

Name = int
"""The number of a value in a graph."""

Place = Name | tuple[int, int]
"""A value, or an operand: (position of the node, place of the operand)."""


class Unsupported(NotImplementedError):  # noqa: N818
    """A primitive or parameter of a jaxpr is unknown to jaxnn; the message has the name."""


class Node(NamedTuple):
    """One primitive operation."""

    primitive: core.Primitive
    params: dict[str, Any]
    operands: tuple[Name, ...]
    results: Sequence[Name]
    where: str  # the line of the user's code, "line 12 of claims.py"


class Graph(NamedTuple):
    """Operations, each after the operations that compute its operands."""

    inputs: tuple[Name, ...]
    constants: dict[Name, Any]
    nodes: tuple[Node, ...]
    outputs: tuple[Name, ...]
    shapes: dict[Name, jax.ShapeDtypeStruct]


def build_graph(function: Callable[..., PyTree], *arguments: PyTree) -> Graph:
    """The graph from the flat arguments of a function to the flat outputs.

    The arguments are trees of arrays or ``jax.ShapeDtypeStruct``; only shapes and types matter.
    """
    return _graph(jax.make_jaxpr(function)(*arguments))


def combined(graph: Graph, summands: Sequence[tuple[Name, float]]) -> Graph:
    """A graph with one new output: the sum of values, each with a sign, 1.0 or -1.0."""
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
    return graph._replace(
        shapes=shapes, nodes=tuple(nodes), outputs=() if total is None else (total,)
    )


def evaluate(
    graph: Graph,
    arguments: Sequence[Any],
    used: Callable[[Place, Any], Any] = lambda place, value: value,
) -> list[Any]:
    """The outputs of a graph for flat arguments; ``used`` maps a value to the value in use."""
    values = dict(graph.constants)
    for name, value in zip(graph.inputs, arguments, strict=True):
        values[name] = used(name, value)
    for position, node in enumerate(graph.nodes):
        operands = [used((position, i), values[name]) for i, name in enumerate(node.operands)]
        for name, value in zip(node.results, apply(node, operands), strict=True):
            values[name] = used(name, value)
    return [values[name] for name in graph.outputs]


def apply(node: Node, operands: Sequence[Any]) -> list[Any]:
    """The results of one operation."""
    bind = partial(node.primitive.bind, **node.primitive.get_bind_params(node.params))
    batch = np.shape(operands[0])[:-2] if node.primitive.name in LAPACK else ()
    if not batch or not _MATRIX_BY_MATRIX.get():
        results = bind(*operands)
        return list(results) if node.primitive.multiple_results else [results]
    flat = [jax.numpy.reshape(v, (-1, *np.shape(v)[len(batch) :])) for v in operands]
    results = jax.lax.map(lambda matrices: bind(*matrices), flat)
    return [jax.numpy.reshape(v, (*batch, *v.shape[1:])) for v in jax.tree.leaves(results)]


def by_primitives(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """A function without custom derivative rules, traced once per structure, shapes and types."""

    @cache
    def traced(structure: Any, kinds: tuple[Any, ...]) -> tuple[Graph, Any]:
        shapes = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*kind) for kind in kinds])
        closed, value = jax.make_jaxpr(function, return_shape=True)(*shapes)
        return _graph(closed), jax.tree.structure(value)

    def plain(*arguments: PyTree) -> PyTree:
        flat, structure = jax.tree.flatten(arguments)
        kinds = ((np.shape(value), jax.numpy.result_type(value)) for value in flat)
        graph, value = traced(structure, tuple(kinds))
        return jax.tree.unflatten(value, evaluate(graph, flat))

    return plain


def _graph(closed: core.ClosedJaxpr) -> Graph:
    """The graph of a jaxpr; equal operations on equal operands share a node."""
    nodes: list[Node] = []
    constants: dict[Name, Any] = {}
    shapes: dict[Name, jax.ShapeDtypeStruct] = {}
    known: dict[Any, Sequence[Name]] = {}
    keys: dict[Name, Any] = {}  # random keys by negative names; their bits are constants

    def new(aval: Any) -> Name:
        shapes[len(shapes)] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return len(shapes) - 1

    def constant(atom: Any, value: Any) -> Name:
        if _is_key(atom.aval):
            keys[name := -1 - len(keys)] = value
            return name
        key: Any = id(value)
        if not isinstance(value, Tracer):
            value = np.asarray(value, atom.aval.dtype)
            key = value.dtype, value.shape, value.tobytes()
        if key not in known:
            known[key] = [new(value)]
            constants[known[key][0]] = value
        return known[key][0]

    def random(equation: core.JaxprEqn, operands: list[Name]) -> Sequence[Name]:
        node = Node(equation.primitive, dict(equation.params), (), (), "")
        with jax.ensure_compile_time_eval():
            results = apply(node, [(keys if name < 0 else constants)[name] for name in operands])
        return [constant(v, value) for v, value in zip(equation.outvars, results, strict=True)]

    def operation(equation: core.JaxprEqn, operands: list[Name], place: str) -> Sequence[Name]:
        variables = (*equation.invars, *equation.outvars)
        if any(_is_key(v.aval) for v in variables) and {*keys, *constants}.issuperset(operands):
            return random(equation, operands)
        key = (equation.primitive, *operands, str(equation.params))
        if key not in known:
            known[key] = tuple(new(variable.aval) for variable in equation.outvars)
            params = {name: _plain_inside(value) for name, value in equation.params.items()}
            nodes.append(Node(equation.primitive, params, tuple(operands), known[key], place))
        return known[key]

    inputs = tuple(map(new, closed.in_avals))
    outputs = tuple(inline(closed, inputs, constant, operation))
    return Graph(inputs, constants | keys, tuple(nodes), outputs, shapes)


def _is_key(array: Any) -> bool:
    """Whether a value is a random key, or an array of keys."""
    return jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key)


def inline(
    closed: core.ClosedJaxpr,
    arguments: Sequence[Name],
    constant: Callable[[Any, Any], Name],
    operation: Callable[[core.JaxprEqn, list[Name], str], Sequence[Name]],
    where: str = "",
) -> list[Name]:
    """Numbers the values of a jaxpr without nested calls.

    Args:
      closed: the jaxpr.
      arguments: the numbers of the inputs.
      constant: gives a number to a constant: (the variable or literal, the value).
      operation: gives numbers to an operation's results: (equation, operands, line of the user).
      where: the line of operations that have no line of the user's code.

    Returns:
      The numbers of the outputs.
    """
    jaxpr = closed.jaxpr
    names: dict[Any, Name] = dict(zip(jaxpr.invars, arguments, strict=True))
    names |= {
        v: constant(v, value) for v, value in zip(jaxpr.constvars, closed.consts, strict=True)
    }

    def name(atom: Any) -> Name:
        return constant(atom, atom.val) if isinstance(atom, core.Literal) else names[atom]

    for equation in jaxpr.eqns:
        operands, place = [name(atom) for atom in equation.invars], _user_line(equation) or where
        if equation.primitive.name in CALLS:
            inner = parameter(equation, "call_jaxpr", "jaxpr", "fun_jaxpr")
            inner = inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())
            results = inline(inner, operands, constant, operation, place)
        else:
            results = operation(equation, operands, place)
        names.update(zip(equation.outvars, results, strict=True))
    return [name(atom) for atom in jaxpr.outvars]


def primitives(program: Any) -> set[str]:
    """The names of the primitives of a jaxpr or of a graph, nested jaxprs included."""
    return set(_primitives(program))


def equations(program: Any) -> int:
    """The number of equations of a jaxpr, nested jaxprs included."""
    return sum(1 for _ in _primitives(program))


def _primitives(program: Any) -> Iterator[str]:
    jaxpr = getattr(program, "jaxpr", program)
    for operation in program.nodes if isinstance(program, Graph) else jaxpr.eqns:
        yield operation.primitive.name
        for value in operation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if hasattr(part, "jaxpr") or hasattr(part, "eqns"):
                    yield from _primitives(part)


CALLS = {
    "checkpoint", "closed_call", "composite", "core_call", "custom_jvp_call", "custom_vjp_call",
    "custom_vjp_call_jaxpr", "jit", "pjit", "remat", "remat2",
}  # fmt: skip
"""Primitives that only call a jaxpr."""


def _plain_inside(value: Any) -> Any:
    """A parameter of scan, while or cond, with custom rules dropped from every jaxpr inside."""

    def plain(part: Any) -> Any:
        if not isinstance(part, core.ClosedJaxpr):
            return part
        arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in part.jaxpr.invars]
        return jax.make_jaxpr(by_primitives(core.jaxpr_as_fun(part)))(*arguments)

    return jax.tree.map(plain, value) if isinstance(value, tuple) else plain(value)


def summed_lengths(program: core.ClosedJaxpr, transposed: bool = False) -> set[int]:
    """The lengths of the axes over which a program sums, or takes the largest, and so on.

    Args:
      program: a jaxpr; operations whose results no output needs are left out.
      transposed: whether axes that change places count too.
    """
    graph = _graph(program)
    needed, lengths = set(graph.outputs), set[int]()
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.results):
            needed |= {*node.operands}
            axes = _moved_axes(node) if node.primitive.name == "transpose" else _summed_axes(node)
            if transposed or node.primitive.name != "transpose":
                lengths.update(graph.shapes[node.operands[0]].shape[axis] for axis in axes)
    return lengths


def _summed_axes(node: Node) -> list[int]:
    """The axes of the first operand over which an operation sums, or takes the largest."""
    name, params = node.primitive.name, node.params
    if name == "dot_general":
        return list(params["dimension_numbers"][0][0])
    if name.startswith("cum"):
        return [params["axis"]]
    if name == "sort":
        return [params["dimension"]]
    return list(params["axes"]) if name.startswith(("reduce_", "arg")) and "axes" in params else []


def _moved_axes(node: Node) -> list[int]:
    return [axis for place, axis in enumerate(node.params["permutation"]) if place != axis]


def parameter(equation: core.JaxprEqn, *names: str) -> Any:
    """The first parameter of an equation that has one of the names.

    Raises:
      Unsupported: the equation has none of the names, as in a newer JAX.
    """
    for name in names:
        if name in equation.params:
            return equation.params[name]
    raise Unsupported(
        f"the primitive {equation.primitive.name!r} without a parameter {' or '.join(names)} "
        f"is unknown to jaxnn (JAX {jax.__version__})"
    )


def scan_counts(equation: core.JaxprEqn) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried.

    Raises:
      Unsupported: the scan states neither counts (JAX 0.10) nor groups of operands (JAX 0.12).
    """
    if "num_consts" in equation.params:
        return parameter(equation, "num_consts"), parameter(equation, "num_carry")
    constants, carried, _ = (
        parameter(equation, "num_consts", "ft_in").update(equation.invars).unpack()
    )
    return len(list(constants)), len(list(carried))


LAPACK = {
    "cholesky", "eig", "eigh", "geqp3", "geqrf", "hessenberg", "householder_product", "lu", "qr",
    "schur", "svd", "triangular_solve", "tridiagonal",
}  # fmt: skip
"""Primitives by LAPACK. A batch of matrices is shared among the threads of XLA's pool by a thread
of the same pool, which waits: two such calls at a time on two cores wait for ever."""

LOOPED = LAPACK | {"conv_general_dilated", "fft", "io_callback", "pure_callback"}
"""Primitives that run trial by trial, as callbacks to Python expect. A convolution with a kernel
per trial would be compiled to a dense one over all pairs of trials: 100 times the time for 10 times
the trials."""

OF_TORCH = "torch_function"
"""The primitive of a function of PyTorch."""

_MATRIX_BY_MATRIX = ContextVar("_MATRIX_BY_MATRIX", default=False)
"""Whether batches of matrices are given to LAPACK matrix by matrix."""


def over_trials(
    function: Callable[..., PyTree], programs: Sequence[core.ClosedJaxpr]
) -> jax.stages.Wrapped:
    """A function over a leading axis of trials, compiled: vectorised, or a loop where safer.

    Args:
      function: of flat arrays.
      programs: jaxprs with the primitives of the function.
    """
    names = set().union(*map(primitives, programs))
    if names.isdisjoint(LOOPED):
        return jit(jax.vmap(function))

    one = function if names.isdisjoint(LAPACK) else _matrix_by_matrix(function)

    def loop(*columns: Any) -> PyTree:
        return jax.lax.map(lambda row: one(*row), columns)

    # Without optimisation XLA's convolutions are naive loops, 40 times slower.
    return jax.jit(loop) if "conv_general_dilated" in names else jit(loop)


def _matrix_by_matrix(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The function with a loop over matrices in place of every batch given to LAPACK."""

    def looped(*arguments: PyTree) -> PyTree:
        closed, value = jax.make_jaxpr(function, return_shape=True)(*arguments)
        token = _MATRIX_BY_MATRIX.set(True)
        try:
            results = evaluate(_graph(closed), jax.tree.leaves(arguments))
        finally:
            _MATRIX_BY_MATRIX.reset(token)
        return jax.tree.unflatten(jax.tree.structure(value), results)

    return looped


_FAST_COMPILATION = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""Compiles 5 to 8 times as fast; at the sizes of claims the programs are hardly slower."""


def jit(function: Callable[..., Any], programs: Sequence[Any] = ()) -> jax.stages.Wrapped:
    """``jax.jit`` for the CPU with little optimisation: verification compiles most of the time.

    Where jaxprs or graphs with the primitives of the function call LAPACK: matrix by matrix.
    """
    if any(primitives(program) & LAPACK for program in programs):
        function = _matrix_by_matrix(function)
    return jax.jit(function, compiler_options=_compiler_options())


@lru_cache(maxsize=1)
def _compiler_options() -> dict[str, Any] | None:
    """XLA's options for fast compilation, None where XLA does not know the options."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda x: x, compiler_options=_FAST_COMPILATION)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return _FAST_COMPILATION


def _user_line(equation: core.JaxprEqn) -> str:
    """The innermost line of the user's code that an operation came from."""
    trace = equation.source_info.traceback
    for frame in trace.frames if trace else ():
        if not is_library(frame.file_name):
            place = line_of(frame.file_name, frame.line_num)
            LINES[place] = linecache.getline(frame.file_name, frame.line_num).strip()
            return place
    return ""


LINES: dict[str, str] = {}
"""The text of the lines of the user's code, by name of the line."""


CELL = "{}, cell {}"
"""The name, for Python, of a cell of a file: the path and the number."""


def source_name(file: str) -> str:
    """The name of a source file, or of a cell: ``In [3]`` at work, ``cell 3`` of a file."""
    cell = re.match(r"<ipython-input-(\d+)-", file)
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cells = getattr(getattr(shell, "compile", None), "_filename_map", {})
    number = cell[1] if cell else cells.get(file)
    if number is not None:
        return f"In [{number}]"
    other = re.search(r"\.ipynb, cell (\d+)$|__marimo__cell_(\w+?)_?\.py$", file)
    return f"cell {other[1] or other[2]}" if other else Path(file).name


def line_of(file: str, line: int) -> str:
    """A line of code: ``line 12 of claims.py``, ``In [3], line 2``, ``cell 3, line 2``."""
    name = source_name(file)
    return f"{name}, line {line}" if re.fullmatch(CELL_NAME, name) else f"line {line} of {name}"


CELL_NAME = r"In \[\d+\]|cell \w+"
"""The names of cells in messages."""


def user_line(error: BaseException) -> str:
    """The innermost line of the user's code that raised: ``line 12 of claims.py``."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not is_library(frame.filename):
            return line_of(frame.filename, frame.lineno or 0)
    return ""


def located(error: BaseException) -> str:
    """An exception in one line, with the innermost line of the user's code."""
    place = user_line(error)
    return message(error) + (f" ({place})" if place else "")


def message(error: BaseException) -> str:
    """An exception in one line of limited length."""
    if isinstance(error, jax.errors.TracerArrayConversionError):
        return (
            f"{type(error).__name__}: NumPy got a value that JAX traces, expected jax.numpy, or "
            "jax.pure_callback around the function"
        )
    try:
        text = " ".join(str(error)[: 2 * LONGEST].split()) or "no message"
    except Exception as other:  # an exception of the user's own
        text = f"no message, but {type(other).__name__}"
    return f"{type(error).__name__}: {text if len(text) <= LONGEST else text[:LONGEST] + ' ...'}"


_FOLDERS = [Path(file).parent for file in (jax.__file__, jaxlib.__file__, np.__file__, __file__)]
_LIBRARIES = {*_FOLDERS, *(folder.resolve() for folder in _FOLDERS)}


@lru_cache(maxsize=4096)
def is_library(path: str) -> bool:
    """Whether a source file is JAX's, NumPy's or ``jaxnn.verify``'s, by the packages' folders."""
    folders = {*Path(path).parents, *Path(path).resolve().parents}
    return path.startswith("<frozen") or not folders.isdisjoint(_LIBRARIES)
