"""NumPy code as JAX code: ``jax.numpy`` for ``numpy``, and new arrays for writes into arrays.

The translation of a function has the lines and the names of the function. A translation can differ
from the function, as where a view of an array is written into: callers compare both.
"""

import ast
import dis
import importlib
import inspect
from collections.abc import Callable
from functools import partial, wraps
from sys import modules
from textwrap import dedent
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.graph import is_library

_MODULES = {"numpy": "jax.numpy", "scipy": "jax.scipy"}

_NAMESAKES = (jnp, jnp.linalg, jax.scipy.special, jax.nn)
"""Where JAX's function stands for a function of NumPy or SciPy, by name."""

_WAYS = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
}
"""Updates in place, by the name of the method of JAX's ``array.at[index]``."""


def as_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, or a class, with ``jax.numpy`` in the place of NumPy, ``jax.scipy`` of SciPy.

    Functions of the user that the function calls are translated too. ``a[i] = v`` becomes
    ``a = a.at[i].set(v)`` where the source code is known.
    """
    return _Translator().translated(function)


def with_translation(function: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    """A function of jaxnn's own, which calls functions of the user, with a translation."""
    if isinstance(function, FunctionType):
        vars(function)[_TRANSLATION] = other
    return function


_TRANSLATION, _NUMPY = "__in_jax__", "__is_numpy__"


def by_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that JAX traces: the function as it is, else the translation.

    Raises:
      ValueError: at a call, where JAX traces neither.
    """
    translation = as_jax(function)
    ways = [function] if translation is function else [function, translation]
    native = len(ways)
    if "torch" in modules:
        from jaxnn.verify.tensors import by_torch

        ways.append(by_torch(function))
    elif native == 1:
        return function

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        errors = list[Exception]()
        for way in ways:
            try:
                return way(*args, **kwargs)
            except Exception as error:
                errors.append(error)
        asks_for_tensors = "Tensor" in str(errors[0])
        raise errors[-1 if asks_for_tensors else native - 1] from errors[0]

    vars(traced)[_NUMPY] = native > 1
    return traced


def is_numpy(function: Callable[..., Any]) -> bool:
    """Whether a function of ``by_jax``, or a function around, is NumPy code."""
    return getattr(function, _NUMPY, False)


class _Translator:
    """Translates functions, each once."""

    def __init__(self) -> None:
        self._known: dict[int, Any] = {}

    def translated(self, value: Any) -> Any:
        """A module, a function or a method in JAX's words; any other value as it is."""
        if id(value) not in self._known:
            self._known[id(value)] = value  # of a function that calls itself
            self._known[id(value)] = self._translation(value)
        return self._known[id(value)]

    def _translation(self, value: Any) -> Any:
        name = getattr(value, "__name__", "")
        if isinstance(value, FunctionType) and _TRANSLATION in vars(value):
            return vars(value)[_TRANSLATION]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return _NumPy() if value is np else _module(name) or value
        if isinstance(value, partial):
            return partial(self.translated(value.func), *value.args, **value.keywords)
        package = str(getattr(value, "__module__", "")).partition(".")[0]
        if isinstance(value, np.ufunc) or package in _MODULES:
            namesakes = (getattr(place, name, None) for place in _NAMESAKES)
            return next((other for other in namesakes if other is not None), value)
        if isinstance(value, MethodType) and isinstance(value.__func__, FunctionType):
            function = self.translated(value.__func__)
            return value if function is value.__func__ else MethodType(function, value.__self__)
        if isinstance(value, FunctionType) and _is_of_the_user(value.__code__.co_filename):
            return self._function(value)
        return value

    def _class(self, made: type) -> type:
        """A class with translated methods, below the class."""
        members: dict[str, Any] = {}
        for base in reversed(made.__mro__):
            for name, member in vars(base).items():
                wrapper = type(member) if isinstance(member, staticmethod | classmethod) else None
                function = member.__func__ if wrapper else member
                if isinstance(function, FunctionType):
                    other = self.translated(function)
                    changed = other is not function
                    members[name] = (wrapper(other) if wrapper else other) if changed else member
        same = all(inspect.getattr_static(made, n) is member for n, member in members.items())
        return made if same else type(made)(made.__name__, (made,), members)

    def _function(self, function: FunctionType) -> FunctionType:
        names = _names(function.__code__)
        globals_ = {n: function.__globals__[n] for n in names & function.__globals__.keys()}
        free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        cells = {name: cell.cell_contents for name, cell in free.items() if _filled(cell)}
        new_globals, new_cells = (
            {name: self.translated(value) for name, value in some.items()}
            for some in (globals_, cells)
        )
        same = all(new_globals[n] is v for n, v in globals_.items())
        same = same and all(new_cells[n] is v for n, v in cells.items())
        if same and not _writes(function.__code__):
            return function
        namespace = function.__globals__ | new_globals | _HELPERS
        code = None
        if "__class__" not in free:  # of super()
            code = _rewritten(function, namespace | new_cells)
        if code is None:
            closure = tuple(
                CellType(new_cells[name]) if name in new_cells else free[name] for name in free
            )
            code = FunctionType(function.__code__, namespace, function.__name__, None, closure)
        code.__defaults__, code.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
        code.__qualname__ = function.__qualname__
        return code


def _is_of_the_user(file: str) -> bool:
    return "site-packages" not in file and not is_library(file)


class _NumPy:
    """``jax.numpy``, with NumPy's own attributes where JAX has none, such as ``random``."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(jnp, name, None)
        return getattr(np, name) if found is None else found


def _module(name: str) -> ModuleType | None:
    """JAX's module for a module of NumPy or SciPy."""
    package, dot, rest = name.partition(".")
    try:
        return importlib.import_module(_MODULES[package] + dot + rest)
    except (ImportError, KeyError):
        return None


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> set[str]:
    """The global names in a code object, and in the functions inside."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _source(function: FunctionType) -> ast.FunctionDef | None:
    """The definition of a function, with the lines of the file; None without source code."""
    try:
        lines, first = inspect.getsourcelines(function)
        (node,) = ast.parse(dedent("".join(lines))).body
    except (OSError, SyntaxError, ValueError, TypeError):
        return None
    if not isinstance(node, ast.FunctionDef):
        return None
    ast.increment_lineno(node, first - 1)
    return node


def _writes(code: CodeType) -> bool:
    """Whether a function writes into an array, a list or a dict."""
    return any(step.opname == "STORE_SUBSCR" for step in dis.get_instructions(code))


def _rewritten(function: FunctionType, namespace: dict[str, Any]) -> FunctionType | None:
    """The function with new arrays for writes; None where the source code is not known."""
    node = _source(function)
    if node is None:
        return None
    node.decorator_list = []
    node.args.defaults = [ast.Constant(None) for _ in node.args.defaults]
    node.args.kw_defaults = [d and ast.Constant(None) for d in node.args.kw_defaults]
    for argument in ast.walk(node):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    tree = ast.fix_missing_locations(ast.Module([_Writes().visit(node)], []))
    namespace = dict(namespace)
    try:
        code = compile(tree, function.__code__.co_filename, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, TypeError):  # f(x)[i] = v
        return None
    exec(code, namespace)
    return namespace[node.name]


class _Writes(ast.NodeTransformer):
    """``a[i] = v`` becomes ``a = _put(a, i, v)``; reading ``a[i]`` becomes ``_get(a, i)``."""

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        node = self.generic_visit(node)  # pyright: ignore
        if len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
            return ast.copy_location(self._stored(node.targets[0], node.value, "set"), node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        node = self.generic_visit(node)  # pyright: ignore
        way = _WAYS.get(type(node.op))
        if isinstance(node.target, ast.Subscript) and way:
            return ast.copy_location(self._stored(node.target, node.value, way), node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        node = self.generic_visit(node)  # pyright: ignore
        if not isinstance(node.ctx, ast.Load):
            return node
        return ast.copy_location(_called("_get", node.value, _index(node.slice)), node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        node = self.generic_visit(node)  # pyright: ignore
        call = node.value
        ways = {"np.add.at": "add", "numpy.add.at": "add", "np.subtract.at": "subtract"}
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ways and len(call.args) == 3:
            array, index, value = call.args
            if isinstance(array, ast.Name):
                way = ast.Constant(ways[ast.unparse(call.func)])
                put = _called("_put_at", array, index, value, way)
                return ast.copy_location(ast.Assign([ast.Name(array.id, ast.Store())], put), node)
        return node

    def _stored(self, target: ast.Subscript, value: ast.expr, way: str) -> ast.Assign:
        array, index = target.value, _index(target.slice)
        if isinstance(array, ast.Call) and getattr(array.func, "id", "") == "_get":
            inner, place = array.args  # a[i][j] = v
            value = _called("_put", array, index, value, ast.Constant(way))
            return self._stored(ast.Subscript(inner, place, ast.Store()), value, "set")
        put = _called("_put", array, index, value, ast.Constant(way))
        name = ast.parse(ast.unparse(array), mode="eval").body
        name.ctx = ast.Store()  # pyright: ignore
        return ast.Assign([name], put)


def _called(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _index(index: ast.expr) -> ast.expr:
    """An index as an expression: a slice i:j is a call of ``slice``."""
    if isinstance(index, ast.Slice):
        ends = (index.lower, index.upper, index.step)
        return _called("slice", *(end or ast.Constant(None) for end in ends))
    if isinstance(index, ast.Tuple):
        return ast.Tuple(list(map(_index, index.elts)), ast.Load())
    return index


def _plain(index: Any) -> Any:
    """An index that JAX takes: arrays for lists and ranges."""
    if isinstance(index, tuple):
        return tuple(map(_plain, index))
    return np.asarray(index) if isinstance(index, list | range) else index


def _get(value: Any, index: Any) -> Any:
    return value[_plain(index)] if isinstance(value, jax.Array) else value[index]


def _put(array: Any, index: Any, value: Any, way: str) -> Any:
    """An array with an update at an index, as NumPy does; lists and dicts are written into.

    ``a[i] += v`` counts equal indices once, and keeps the type of the array.
    """
    if isinstance(array, np.ndarray):
        array = jnp.asarray(array)
    if not isinstance(array, jax.Array):
        array[index] = value if way == "set" else getattr(jnp, way)(array[index], value)
        return array
    if str(getattr(index, "dtype", "")) == "bool":  # which JAX takes only where known
        mask = jnp.reshape(index, index.shape + (1,) * (array.ndim - index.ndim))
        new = value if way == "set" else getattr(jnp, way)(array, value)
        return jnp.where(mask, new, array).astype(array.dtype)
    place = array.at[_plain(index)]
    new = value if way == "set" else getattr(jnp, way)(place.get(), value)
    return place.set(jnp.asarray(new).astype(array.dtype))


def _put_at(array: Any, index: Any, value: Any, way: str) -> Any:
    """An array after ``np.add.at``, which counts equal indices as often as they occur."""
    return getattr(jnp.asarray(array).at[_plain(index)], way)(value)


_HELPERS = {"_get": _get, "_put": _put, "_put_at": _put_at}
