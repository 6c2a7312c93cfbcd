"""NumPy code as JAX code: ``jax.numpy`` for ``numpy``, and new arrays for writes into arrays.

The translation of a function has the lines and the names of the function. A translation can differ
from the function, as where a view of an array is written into: callers compare both.
"""

import ast
import dis
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from linecache import getline
from textwrap import dedent
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.graph import LINES, Unsupported, is_library, line_of

_MODULES = {"numpy": "jax.numpy", "scipy": "jax.scipy"}

_NAMESAKES = (jnp, jnp.linalg, jax.scipy.special, jax.nn)
"""Where JAX's function stands for a function of ``math``, NumPy or SciPy, by name."""

_OTHER_NAMES = {"fabs": "abs", "lgamma": "gammaln"}
"""Names in JAX of functions with another name in ``math``."""

_WAYS = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
}
"""Updates in place, by the name of the method of JAX's ``array.at[index]``."""


def edits(function: Callable[..., Any]) -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """(Line, words, function) with a statement that adds up, or that stands in another loop.

    ``a[i] = v`` becomes ``a[i] += v``, ``a[i] += v`` becomes ``np.add.at(a, i, v)``; the last
    statements of a loop stand after the loop, the statement after a loop stands in the loop.
    """
    known = _Edits(-1)
    _Translator(known).translated(function)
    for number, (file, line, words) in enumerate(known.found[:MOST_EDITS]):
        LINES[place := line_of(file, line)] = getline(file, line).strip()
        yield place, words, _Translator(_Edits(number)).translated(function)


MOST_SUBSCRIPTS = 6000
"""The most subscripts of a function that JAX differentiates: a few seconds of tracing."""

MOST_EDITS = 200
"""The most changes of statements that are tried."""


def as_jax(function: Callable[..., Any], subscripts: float = math.inf) -> Callable[..., Any]:
    """A function, or a class, with ``jax.numpy`` in the place of NumPy, ``jax.scipy`` of SciPy.

    Functions of the user that the function calls are translated too. ``a[i] = v`` becomes
    ``a = a.at[i].set(v)`` where the source code is known. After so many subscripts, as in a loop
    over pixels, the translation raises ``Unsupported``.
    """
    return _Translator(subscripts=subscripts).translated(function)


def with_translation(
    function: Callable[..., Any], translated: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[..., Any]:
    """A function of jaxnn's own, which calls functions of the user, with the way to translate."""
    if isinstance(function, FunctionType):
        vars(function)[_TRANSLATION] = translated
    return function


_TRANSLATION, _NUMPY = "__translated__", "__is_numpy__"


def by_jax(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that JAX traces: the function as it is, else the translation.

    Raises:
      ValueError: at a call, where JAX traces neither.
    """
    if type(function).__module__.startswith("jaxnn."):  # an expectation, of any language
        return function
    translator = _Translator(subscripts=MOST_SUBSCRIPTS)
    translation = translator.translated(function)
    ways = [function] if translation is function else [function, translation]
    native = len(ways)
    if "torch" in sys.modules:
        from jaxnn.verify.tensors import by_torch

        ways.append(by_torch(function))
    elif native == 1:
        return function

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        errors = list[Exception]()
        translator.left = MOST_SUBSCRIPTS
        for way in ways:
            try:
                return way(*args, **kwargs)
            except TooManyOperations:
                raise
            except Exception as error:
                errors.append(error)
        asks_for_tensors = "Tensor" in str(errors[0])
        raise errors[-1 if asks_for_tensors else native - 1] from errors[0]

    vars(traced)[_NUMPY] = native > 1
    return traced


def is_numpy(function: Callable[..., Any]) -> bool:
    """Whether a function of ``by_jax``, or a function around, is NumPy code."""
    return getattr(function, _NUMPY, False)


class TooManyOperations(Unsupported):
    """Loops in Python over many entries; the message is a line."""


class _Translator:
    """Translates functions, each once."""

    def __init__(self, edits: "_Edits | None" = None, subscripts: float = math.inf):
        """To JAX's words, else to edited statements in NumPy's own."""
        self._edits, self.left = edits, subscripts
        self._known: dict[int, Any] = {}
        counted = {name: self._counted(helper) for name, helper in _HELPERS.items()}
        self._helpers = counted | {"_slices": np.s_}

    def _counted(self, helper: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise TooManyOperations(
                    "loops in Python take more operations than a program may have, expected fixed "
                    "sizes, such as real(2, 3), or code without loops"
                )
            return helper(*args)

        return called

    def translated(self, value: Any) -> Any:
        """A module, a function or a method in JAX's words; any other value as it is."""
        if id(value) not in self._known:
            self._known[id(value)] = value  # of a function that calls itself
            self._known[id(value)] = self._translation(value)
        return self._known[id(value)]

    def _translation(self, value: Any) -> Any:
        name = getattr(value, "__name__", "")
        if isinstance(value, FunctionType) and _TRANSLATION in vars(value):
            return vars(value)[_TRANSLATION](self.translated)
        if isinstance(value, type):
            return self._class(value)
        package = str(getattr(value, "__module__", "")).partition(".")[0]
        if isinstance(value, ModuleType | np.ufunc) or package in (*_MODULES, "math"):
            return value if self._edits else _in_jax(name, value)
        if isinstance(value, partial):
            return partial(self.translated(value.func), *value.args, **value.keywords)
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
        if same and self._edits is None and not _writes(function.__code__):
            return function
        namespace = function.__globals__ | new_globals | self._helpers
        code = None
        if "__class__" not in free:  # of super()
            rewriter = self._edits or _Writes()
            code = _rewritten(function, namespace | new_cells, rewriter)
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


class _Module:
    """``jax.numpy`` for ``numpy`` or ``math``, with own attributes where JAX has none."""

    def __init__(self, own: ModuleType):
        self._own = own

    def __getattr__(self, name: str) -> Any:
        places = (jnp,) if self._own is np else _NAMESAKES
        return _namesake(name, getattr(self._own, name, None), places)


def _namesake(name: str, own: Any, places: Sequence[Any]) -> Any:
    """JAX's object of a name; the own object of ``math``, NumPy or SciPy where JAX has none.

    Whole numbers made of numbers are no arrays, as in ``range(math.ceil(n / 2))``.
    """
    name = _OTHER_NAMES.get(name, name)
    other = next((o for place in places if (o := getattr(place, name, None)) is not None), own)
    if isinstance(own, type) or not callable(own) or own is other:
        return other

    @wraps(own)
    def called(*args: Any, **kwargs: Any) -> Any:
        if all(isinstance(leaf, int | float) for leaf in jax.tree.leaves((args, kwargs))):
            value = own(*args, **kwargs)
            if isinstance(value, int | np.integer):
                return value
        try:
            return other(*args, **kwargs)
        except TypeError as error:
            if "requires ndarray or scalar arguments" not in str(error):
                raise
        return other(
            *(jnp.asarray(a) if isinstance(a, list | tuple) else a for a in args), **kwargs
        )

    return called


def _in_jax(name: str, value: Any) -> Any:
    """JAX's module for a module, JAX's function for a function; the value where JAX has none."""
    if not isinstance(value, ModuleType):
        return _namesake(name, value, _NAMESAKES)
    if value in (np, math):
        return _Module(value)
    package, dot, rest = name.partition(".")
    try:
        return importlib.import_module(_MODULES[package] + dot + rest)
    except (ImportError, KeyError):
        return value


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
    # The lines of a lambda in a decorator are those of the function below.
    if not isinstance(node, ast.FunctionDef) or node.name != function.__code__.co_name:
        return None
    ast.increment_lineno(node, first - 1)
    return node


def _writes(code: CodeType) -> bool:
    """Whether a function writes into an array, a list or a dict."""
    return any(step.opname == "STORE_SUBSCR" for step in dis.get_instructions(code))


def _rewritten(
    function: FunctionType, namespace: dict[str, Any], rewriter: ast.NodeTransformer
) -> FunctionType | None:
    """The function with other statements; None where the source code is not known."""
    node = _source(function)
    if node is None:
        return None
    node.decorator_list = []
    node.args.defaults = [ast.Constant(None) for _ in node.args.defaults]
    node.args.kw_defaults = [d and ast.Constant(None) for d in node.args.kw_defaults]
    for argument in ast.walk(node):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    if isinstance(rewriter, _Edits):
        rewriter.file = function.__code__.co_filename
    tree = ast.fix_missing_locations(ast.Module([rewriter.visit(node)], []))
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
        self.generic_visit(node)
        return node if node.targets[1:] else _stored(node, node.targets[0], node.value, "set")

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        return _stored(node, node.target, node.value, _WAYS.get(type(node.op)))

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        if isinstance(call := node.value, ast.Call) and len(call.args) == 3:
            array, index, value = call.args
            way = re.fullmatch(r"(?:np|numpy)\.(add\.at|subtract\.at)", ast.unparse(call.func))
            return _stored(node, ast.Subscript(array, index, ast.Store()), value, way and way[1])
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            return ast.copy_location(_called("_get", node.value, _index(node.slice)), node)
        return node


def _stored(node: ast.stmt, target: ast.expr, value: ast.expr, way: str | None) -> ast.stmt:
    """A statement that writes into an array as one that makes a new array."""
    if not isinstance(target, ast.Subscript) or way is None:
        return node
    array = target.value
    put = _called("_put", array, _index(target.slice), value, ast.Constant(way))
    if isinstance(array, ast.Call) and getattr(array.func, "id", "") == "_get":  # a[i][j] = v
        inner, place = array.args
        return _stored(node, ast.Subscript(inner, place, ast.Store()), put, "set")
    name = ast.parse(ast.unparse(array), mode="eval").body
    if not isinstance(name, ast.Name | ast.Attribute):
        return node
    name.ctx = ast.Store()
    return ast.copy_location(ast.Assign([name], put), node)


class _Edits(ast.NodeTransformer):
    """Makes the change of a number, and lists all changes up to there."""

    def __init__(self, number: int):
        self._number = number
        self.file, self.found = "", list[tuple[str, int, str]]()

    def _chosen(self, node: ast.stmt, words: str) -> bool:
        self.found.append((self.file, node.lineno, words))
        return len(self.found) - 1 == self._number

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        if isinstance(body := getattr(node, "body", None), list):
            node.body = self._moved(body)  # pyright: ignore
        return node

    def _moved(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Statements with the end of a loop after the loop, or the next statement in the loop."""
        for place, loop in enumerate(body):
            if not isinstance(loop, ast.For):
                continue
            before, after = body[: place + 1], body[place + 1 :]
            for first in range(1, len(loop.body)):
                end = loop.body[first:]
                if self._chosen(end[0], "is inside of the loop, expected after the loop"):
                    loop.body = loop.body[:first]
                    return [*before, *end, *after]
            if after and self._chosen(after[0], "is after the loop, expected inside of the loop"):
                loop.body.append(after[0])
                return [*before, *after[1:]]
        return body

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        (target, *more), words = node.targets, "overwrites earlier values, expected +="
        if isinstance(target, ast.Subscript) and not more and self._chosen(node, words):
            return ast.copy_location(ast.AugAssign(target, ast.Add(), node.value), node)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        target, way = node.target, _WAYS.get(type(node.op), "")
        if not isinstance(target, ast.Subscript) or f"_{way}_at" not in _HELPERS:
            return node
        if not self._chosen(node, f"counts equal indices once, expected np.{way}.at"):
            return node
        call = _called(f"_{way}_at", target.value, _index(target.slice), node.value)
        return ast.copy_location(ast.Expr(call), node)


def _called(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _index(index: ast.expr) -> ast.expr:
    """An index as an expression, such as of slices."""
    return ast.Subscript(ast.Name("_slices", ast.Load()), index, ast.Load())


def _plain(index: Any) -> Any:
    """An index that JAX takes: arrays for lists and ranges."""
    if isinstance(index, tuple):
        return tuple(map(_plain, index))
    return np.asarray(index) if isinstance(index, list | range) else index


def _get(value: Any, index: Any) -> Any:
    return value[_plain(index)] if isinstance(value, jax.Array) else value[index]


def _put(array: Any, index: Any, value: Any, way: str) -> Any:
    """An array with an update at an index, as NumPy does; lists and dicts are written into.

    ``a[i] += v`` counts equal indices once, and keeps the type of the array; ``add.at`` counts
    equal indices as often as they occur.
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
    place, (way, *as_often) = array.at[_plain(index)], way.split(".")
    if as_often:
        return getattr(place, way)(value)
    new = value if way == "set" else getattr(jnp, way)(place.get(), value)
    return place.set(jnp.asarray(new).astype(array.dtype))


_HELPERS = {
    "_get": _get,
    "_put": _put,
    "_add_at": np.add.at,
    "_subtract_at": np.subtract.at,
}
