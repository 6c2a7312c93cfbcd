"""Claims: a formula derived by hand, with the function and the kind of derivative."""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial, reduce, wraps
from keyword import iskeyword
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Required, TypedDict, Unpack, overload
from unicodedata import normalize

import jax
import jax.numpy as jnp

from jaxnn.files import printable, short
from jaxnn.reporting import registered_html
from jaxnn.types import PyTree, real, shown, whole
from jaxnn.verify.inputs import (
    DISCRETE_KINDS,
    filled,
    is_input,
    is_presented,
    leaves,
    presented,
)
from jaxnn.verify.tangent import CURVED_KINDS, Convention, stated
from jaxnn.verify.translation import by_jax

if TYPE_CHECKING:
    from jaxnn.verify.derivations import Derivation

KINDS = ("gradient", "jacobian", "hessian", "value", "update", "vjp")
LAYOUTS = ("transpose", "vec", "vec_rows")


_Function = Callable[..., Any]


class Description(NamedTuple):
    """A claim in words and code: all that a report shows, sent between processes as text."""

    name: str
    file: str = ""
    place: int = 0  # among the claims of the file
    corrects: int | None = None  # the place of the corrected claim
    source: str = ""
    kind: str = ""  # "": no claim, but a file that could not be loaded
    wrt: tuple[str, ...] = ()
    statement: str = ""
    doc: str = ""  # the formula's docstring
    function: str = ""  # the name of ``of``
    formula_code: str = ""
    function_code: str = ""
    lines: "tuple[Description, ...]" = ()  # of a derivation


@dataclass(frozen=True, eq=False)
class Claim:
    """A formula with the declaration; made by the decorator ``claim``, callable like the formula.

    Formula and ``of`` are called by keyword with the inputs among the function's parameters. The
    ``of`` of a vjp is the scalar sum(dout * of).
    """

    formula: Callable[..., PyTree]
    of: Callable[..., PyTree]
    wrt: tuple[str, ...]  # paths such as "z" or "params[0].weight"
    single: bool  # whether wrt was a string: the formula returns no tuple
    kind: str
    inputs: Mapping[str, PyTree]
    name: str
    source: str
    statement: str
    terms: Mapping[str, Callable[..., Any]] | None
    rate: str | None
    layout: str | None
    tolerance: float
    trials: int
    corrects: "Claim | None"
    certify: bool = True
    where: Callable[..., Any] | None = None
    truth: "Claim | None" = None  # a claim with the same derivative, of which programs are shared
    entries: Callable[[Mapping[str, PyTree], PyTree], PyTree] | None = None  # zero outside a case
    black_box: bool = False
    conventions: tuple[Convention | None, ...] = ()  # per array of wrt; (): entries independent
    definitions: Mapping[str, Any] | None = None  # of the statement's symbols, for latex.Reading
    forward: "Claim | None" = None  # of a pair with a reference: the values of the forward pass
    own: "Claim | None" = None  # of the same pair: the derivative of the pair's own forward pass

    def __repr__(self) -> str:
        by = f" by {', '.join(self.wrt)}" if self.wrt else ""
        return printable(f"Claim({short(self.name)}; {self.kind}{short(by)})")

    def _repr_html_(self) -> str | None:
        return registered_html(self)  # jaxnn.verify.report has the function

    def __call__(self, *args, **kwargs) -> PyTree:
        """Calls the formula."""
        return self.formula(*args, **kwargs)

    def evaluate(self, inputs: Mapping[str, PyTree]) -> PyTree:
        """The formula's value; inputs that are no parameters of the formula are left out.

        Gradients in a dict, a NamedTuple or a dataclass are put in the order of the parameters. A
        derivative by a single array may be a list of numbers.

        Raises:
          ValueError: the names are not those of the parameters, or a number is complex.
        """
        given = dict(inputs)
        if any(map(is_presented, leaves(self.inputs))):
            given = presented(dict(self.inputs), given)
        value = call(self.formula, given)
        if type(value) is list and self.single and self.kind not in ("value", "update"):
            value = as_array_of_numbers(value)
        arrays = value if type(value) in (tuple, list) else [] if value is None else [value]
        if not jax.tree_util.all_leaves(arrays) or any(map(is_dataclass, arrays)):
            value = _in_order(value, _expected(self, inputs), self.wrt)
        value = self._in_parts(value)
        if self.entries is not None:
            value = self.entries(inputs, value)
        refuse_complex("the formula", value)
        return self.stated(inputs, value, claimed=True)

    def _in_parts(self, derivative: PyTree) -> PyTree:
        """The formula's derivative with real and imaginary parts of those by complex numbers."""
        by = [g for path in self.wrt for g in leaves(at_path(self.inputs, path))]
        flat, structure = jax.tree.flatten(derivative)
        if self.kind == "value" or len(flat) != len(by):
            return derivative
        parts = (
            jnp.stack([jnp.real(leaf), jnp.imag(leaf)], -1) if g.kind == "complex" else leaf
            for g, leaf in zip(by, flat, strict=True)
        )
        return jax.tree.unflatten(structure, parts)

    def stated(
        self, inputs: Mapping[str, PyTree], derivative: PyTree, claimed: bool = False
    ) -> PyTree:
        """Autodiff's derivative, or the formula's, in the conventions of the claim."""
        if not self.conventions:
            return derivative
        flat, structure = jax.tree.flatten(derivative)
        points = jax.tree.leaves([at_path(inputs, path) for path in self.wrt])
        flat = stated(self.conventions, self.kind, points, flat, claimed)
        return jax.tree.unflatten(structure, flat)


def is_list_of_numbers(value: Any) -> bool:
    """Whether a value is a list of numbers, or of lists of numbers."""
    numbers = jax.tree.leaves(value) if type(value) is list else []
    return bool(numbers) and all(getattr(number, "shape", ()) == () for number in numbers)


def as_array_of_numbers(value: Any) -> Any:
    """A list of numbers as an array; any other value as it is."""
    if is_list_of_numbers(value):
        with suppress(ValueError):  # rows of different lengths
            return jnp.asarray(value)
    return value


_Parts = dict[str | int, Any] | None
"""The parts of a tree by key, in JAX's order, each again a dict; None for an array."""


def _expected(claim: Claim, inputs: Mapping[str, PyTree]) -> _Parts:
    """The parts of the right value: by parameter, for a Hessian by two parameters."""
    if claim.kind in ("value", "update"):
        value = jax.eval_shape(lambda inputs: call(claim.of, inputs), inputs)
        if claim.kind == "value" or getattr(value, "shape", None) != ():
            return _parts(value)  # of an `of` that is the update rule

    def by_parameter(inner: _Parts) -> _Parts:
        parts = {path: _parts(at_path(claim.inputs, path), inner) for path in claim.wrt}
        return parts[claim.wrt[0]] if claim.single else {**parts}

    return by_parameter(by_parameter(None) if claim.kind == "hessian" else None)


def _parts(tree: PyTree, inner: _Parts = None) -> _Parts:
    """The keys of a tree; ``inner`` stands for every array."""
    parts = children(tree)
    return inner if parts is None else {k: _parts(v, inner) for k, v in parts.items()}


def children(tree: PyTree) -> _Parts:
    """The parts of a tree's root by key; None for an array or a generator."""
    flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)[0]
    if len(flat) == 1 and not flat[0][0]:
        known = is_dataclass(tree) and not isinstance(tree, type) and not is_input(tree)
        return {field.name: getattr(tree, field.name) for field in fields(tree)} if known else None
    return {_name(path[0]): part for path, part in flat}


def _name(key: Any) -> str | int:
    """The name of a part of a tree, or the position."""
    return next(getattr(key, name) for name in ("key", "name", "idx") if hasattr(key, name))


def refuse_complex(what: str, value: PyTree) -> None:
    """Refuses complex numbers, which formula and derivative have only on the way.

    Raises:
      ValueError: an array of the value is complex.
    """
    for leaf in jax.tree.leaves(value):
        if jnp.iscomplexobj(leaf):
            raise ValueError(
                f"{what} returns complex numbers, expected real numbers (.real, .imag)"
            )


def _in_order(value: PyTree, expected: _Parts, paths: Sequence[str] = ()) -> PyTree:
    """The value's parts in the order of the expected names; parts without names stay in place.

    Raises:
      ValueError: the names are not those expected.
    """
    given = children(value)
    if given is not None and expected is None and len(paths) == 1:
        expected = {paths[0]: None}
    if given is None or expected is None:
        return value
    if not all(isinstance(name, str) for name in (*given, *expected)):
        matched = zip(given.values(), expected.values(), strict=False)
        return [_in_order(*pair) for pair in matched] if len(given) == len(expected) else value
    short = {path: str(steps(path)[-1]) for path in paths if path in expected}
    stripped = {parameter_of(str(name)): name for name in given}

    def spelled(name: str | int) -> str | int:
        last = short.get(str(name), name)
        return next((n for n in (name, last) if n in given), stripped.get(str(last), name))

    names = {name: spelled(name) for name in expected}
    if len(set(names.values())) < len(names) or set(names.values()) != set(given):
        wanted, found = (", ".join(map(repr, some)) for some in (expected, given))
        raise ValueError(f"the formula returns the parts {found}, expected {wanted}")
    return [_in_order(given[names[name]], part) for name, part in expected.items()]


def parameter_of(gradient: str) -> str:
    """The parameter of a gradient's name: w of ``dw``, ``d_w``, ``grad_w``, ``w_grad``."""
    return re.sub(r"^(d_?|grad_|g_)|(_grad|_gradient)$", "", gradient)


def descriptions(claims: "Sequence[Claim | Derivation]", file: str = "") -> list[Description]:
    """The claims of a file in words and code; corrections of other files' claims correct none."""
    places = {id(made): place for place, made in enumerate(claims)}
    return [
        description(made, file, place, places.get(id(made.corrects)))
        if isinstance(made, Claim)
        else made.description(file, place)
        for place, made in enumerate(claims)
    ]


def description(
    made: Claim, file: str = "", place: int = 0, corrects: int | None = None
) -> Description:
    """A claim in words and code."""
    return Description(
        made.name, file, place, corrects, made.source, made.kind,
        made.wrt, made.statement, inspect.getdoc(made.formula) or "",
        getattr(made.of, "__name__", "a function"), code(made.formula), code(made.of),
    )  # fmt: skip


def code(function: Callable[..., Any]) -> str:
    """The source code of a function, or of a callable object's class; "" without a source file."""
    while isinstance(function, partial):
        function = function.func
    try:
        named = function if hasattr(function, "__name__") else type(function)
        if inspect.getsourcefile(inspect.unwrap(named)) == "<string>":  # of exec
            return ""
        return dedent(inspect.getsource(named)).strip("\n")
    except Exception:  # of inspect on a file that has changed, or on an object of any class
        return ""


class _Declared(TypedDict, total=False):
    """The arguments of ``claim`` apart from the formula, for type checkers."""

    of: Required[Callable[..., PyTree]]
    kind: Required[Literal["gradient", "jacobian", "hessian", "value", "update", "vjp"]]
    inputs: Required[Mapping[str, PyTree]]
    wrt: str | tuple[str, ...] | list[str]
    source: str
    statement: str
    terms: Mapping[str, Callable[..., Any]] | None
    rate: str | None
    layout: Literal["transpose", "vec", "vec_rows"] | None
    tolerance: float
    trials: int
    corrects: Claim | None
    certify: bool
    where: Callable[..., Any] | Mapping[str, Any] | tuple[Any, Mapping[str, Any]] | None
    black_box: bool
    name: str


@overload
def claim(*, formula: str, **declared: Unpack[_Declared]) -> Claim: ...


@overload
def claim(
    *, formula: None = None, **declared: Unpack[_Declared]
) -> Callable[[Callable[..., PyTree]], Claim]: ...


def claim(
    *,
    of: Callable[..., PyTree],
    kind: Literal["gradient", "jacobian", "hessian", "value", "update", "vjp"],
    inputs: Mapping[str, PyTree],
    wrt: str | tuple[str, ...] | list[str] = (),
    source: str = "",
    statement: str = "",
    terms: Mapping[str, Callable[..., Any]] | None = None,
    rate: str | None = None,
    layout: Literal["transpose", "vec", "vec_rows"] | None = None,
    tolerance: float = 1e-9,
    trials: int = 10_000,
    corrects: Claim | None = None,
    certify: bool = True,
    where: Callable[..., Any] | Mapping[str, Any] | tuple[Any, Mapping[str, Any]] | None = None,
    black_box: bool = False,
    formula: str | None = None,
    name: str = "",
) -> Callable[[Callable[..., PyTree]], Claim] | Claim:
    """Declares the decorated formula to be a derivative (or the value) of ``of``.

    Args:
      of: the function; formula and function share parameter names. NumPy code is read as
        ``jax.numpy`` where JAX does not trace the code as it is.
      kind: ``gradient`` of a scalar; ``jacobian``, of shape [*value, *parameter]; ``hessian`` of a
        scalar; ``value``, equal to ``of``; ``update``, a step of gradient descent on the objective
        ``of``, theta - rate * gradient, or equal to an ``of`` that returns the new parameter;
        ``vjp``, the gradient of sum(dout * of), with the one input that is no parameter of ``of``
        as dout.
      inputs: for each parameter a generator (``real``, ``simplex``, ...) or a tree of generators.
      wrt: the parameter of the derivative: a name, a path into a tree such as
        ``"params[0].weight"``, or several; for several the formula returns a tuple in that order,
        or a dict, NamedTuple or dataclass with the names of the parameters.
      source: the origin of the formula, such as ``"S1.2"``.
      statement: the formula as LaTeX.
      terms: the objective as a sum of named functions like ``of``, for the diagnosis; default: the
        sum in the program of ``of``.
      rate: for ``update``: the learning rate among the inputs; default: the only scalar input that
        is no parameter of ``of``.
      layout: of the formula's value, if not jaxnn's: ``transpose``, ``vec`` (each array column by
        column) or ``vec_rows`` (row by row).
      tolerance: the largest relative error, by norm, of a right formula in float64.
      trials: the number of random trials.
      corrects: the claim as printed in the source, if wrong there.
      certify: whether a formula that holds is to be certified, which takes 2 seconds at most.
      where: a condition on the inputs, as a function of some of the inputs, true in every entry:
        ``where=lambda mask: jnp.any(mask > 0)``. Other inputs are not tried. Or a dict from
        symbols of the LaTeX to definitions: a function of inputs, LaTeX, or the name of an input.
        Or both: ``where=(condition, definitions)``.
      black_box: whether the formula is only called, with NumPy arrays, a trial at a time; default:
        where JAX does not trace the formula.
      formula: the formula as LaTeX, in place of a decorated function.
      name: for the reports; default: the name of the decorated function, or the LaTeX.

    Returns:
      A decorator from a formula to a ``Claim``; for a formula in LaTeX the ``Claim``.

    Raises:
      ValueError: an argument is wrong; the message has the value and the expectation.

    Example:
      >>> import jax
      >>> from jaxnn.verify import claim, real
      >>> @claim(of=jax.nn.softplus, wrt="x", kind="gradient", inputs={"x": real()})
      ... def derivative(x):
      ...     return jax.nn.sigmoid(x)
      >>> derivative.kind, float(derivative(0.0))
      ('gradient', 0.5)

    Source: S4.6.
    """
    if not isinstance(wrt, str | tuple | list) or not all(isinstance(path, str) for path in wrt):
        raise ValueError(f"wrt is {shown(wrt)}, expected the name of an input, or a list of names")
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise ValueError(f"inputs is {shown(inputs)}, expected a dict such as {{'x': real('n')}}")
    single = isinstance(wrt, str)
    paths = tuple(map(_as_python, (wrt,) if isinstance(wrt, str) else wrt))
    generators = {_as_python(name): generator for name, generator in inputs.items()}

    both: Any = where if isinstance(where, tuple) and len(where) == 2 else (where, None)
    condition, definitions = (None, where) if isinstance(where, Mapping) else both

    def decorate(formula: Callable[..., PyTree]) -> Claim:
        called = name or getattr(formula, "__name__", "formula")
        made = Claim(
            formula, of, paths, single, kind, generators, called, source, statement,
            dict(terms) if isinstance(terms, Mapping) else terms,
            _as_python(rate) if isinstance(rate, str) else rate,
            layout, tolerance, trials, corrects, certify, condition, black_box=black_box,
            definitions=dict(definitions) if isinstance(definitions, Mapping) else definitions,
        )  # fmt: skip
        check(made)
        made = replace(made, of=by_jax(of))
        return _of_arrays(_pulled_back(made) if kind == "vjp" else made)

    if formula is None:
        return decorate
    if not isinstance(formula, str) or not formula.strip():
        raise ValueError(f"formula is {shown(formula)}, expected LaTeX as text")
    statement, name = statement or formula, name or formula
    return read(decorate(_unread), formula)


def _unread() -> tuple[()]:
    return ()


def read(made: Claim, latex: str) -> Claim:
    """The claim with a formula in LaTeX.

    Raises:
      ValueError: the LaTeX has no meaning, or two.
    """
    from jaxnn.verify.latex import Reading, Unreadable, example_of, example_sizes, symbolic

    def example(inputs: Mapping[str, PyTree]) -> PyTree:
        """A tree of the shapes of the right value."""
        parts = [at_path(inputs, path) for path in made.wrt]
        value = call(made.of, inputs) if made.kind in ("value", "jacobian") else None
        if made.kind == "value":
            return value
        if made.kind in ("jacobian", "hessian"):
            rows = value if made.kind == "jacobian" else parts
            derivatives = jax.tree.map(
                lambda row: [jax.tree.map(partial(_outer, row), part) for part in parts], rows
            )
            if not made.single:
                return derivatives
            return derivatives[0] if made.kind == "jacobian" else derivatives[0][0]
        return parts[0] if made.single else parts

    sizes = example_sizes(made.inputs)
    try:
        tree = jax.eval_shape(example, example_of(made.inputs, sizes))
    except Exception as error:
        raise ValueError(f"of cannot be evaluated: {error}") from error
    leaves, structure = jax.tree.flatten(tree)
    try:
        shapes = [symbolic(leaf.shape, sizes) for leaf in leaves]
        reading = Reading(latex, made.inputs, quantities(made), shapes)
    except Unreadable as error:
        raise ValueError(f"formula={shown(latex)} cannot be read: {error}") from None
    if any(len(clause.right) > 1 for clause in reading.clauses):
        raise ValueError(f"formula={shown(latex)} has several sides to the right, expected one")

    def formula(**inputs: PyTree) -> PyTree:
        return jax.tree.unflatten(structure, reading(inputs))

    vars(with_keywords(formula, made.inputs)).update(__doc__=None, latex=latex)
    return replace(made, formula=formula)


def _outer(row: jax.Array, part: jax.Array) -> jax.Array:
    return jnp.zeros((*row.shape, *part.shape))


def quantities(made: Claim) -> dict[str, Any]:
    """The definitions of symbols as ``latex.Reading`` takes them."""
    from jaxnn.verify.latex import Quantity

    found: dict[str, Any] = {}
    for symbol, definition in (made.definitions or {}).items():
        if isinstance(definition, Claim):
            definition = definition.formula
        if callable(definition):
            needed = [name for name, needs in parameters(definition).items() if needs]
            of_inputs = {*needed} <= made.inputs.keys() and not _by_position(definition)
            definition = Quantity(partial(_given, made, definition)) if of_inputs else definition
        found[symbol] = definition
    return found


def _given(made: Claim, function: Callable[..., Any], inputs: Mapping[str, PyTree]) -> Any:
    """A function of the inputs as formula and ``of`` get them."""
    return call(by_jax(function), presented(dict(made.inputs), dict(inputs)))


def _pulled_back(made: Claim) -> Claim:
    """The claim of a vjp with sum(dout * of) in place of ``of``, and of every term.

    Raises:
      ValueError: not exactly one input is no parameter of ``of``.
    """
    known = parameters(made.of)
    others = [name for name in made.inputs if name not in known]
    if len(others) != 1:
        raise ValueError(
            f"inputs of a vjp that are no parameters of `of`: {', '.join(others) or 'none'}, "
            "expected exactly one, the gradient by the value of `of`, such as dout"
        )
    dout = others[0]

    def product(value: jax.Array, factor: jax.Array) -> jax.Array:
        if jnp.shape(value) != jnp.shape(factor):
            raise ValueError(
                f"{dout} has shape {jnp.shape(factor)}, expected that of the value of `of`: "
                f"{jnp.shape(value)}"
            )
        return jnp.sum(value * factor)

    def pulled_back(of: Callable[..., PyTree]) -> Callable[..., Any]:
        @wraps(of)
        def scalar(**inputs: PyTree) -> Any:
            products = jax.tree.map(product, call(of, inputs), inputs[dout])
            return sum(jax.tree.leaves(products))

        return by_keyword(scalar, of, dout)

    terms = made.terms and {name: pulled_back(term) for name, term in made.terms.items()}
    return replace(made, of=pulled_back(made.of), terms=terms)


def by_keyword(changed: _Function, function: _Function, *more: str) -> _Function:
    """A changed function with the parameters of a function, and more, all by keyword."""
    known = [inspect.signature(function).parameters[name] for name in parameters(function)]
    named = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in known]
    return with_keywords(changed, more, named)


def with_keywords(
    function: _Function, names: Iterable[str], first: Sequence[inspect.Parameter] = ()
) -> _Function:
    """The function with parameters of these names, by keyword; others' inputs are left out."""
    kind = inspect.Parameter.KEYWORD_ONLY
    known = [name for name in names if name.isidentifier() and not iskeyword(name)]
    keywords = [inspect.Parameter(name, kind) for name in known]
    vars(function)["__signature__"] = inspect.Signature([*first, *keywords])
    return function


def _of_arrays(made: Claim) -> Claim:
    """The claim with functions of the arrays drawn, in place of complex numbers and keys.

    The formula stays as given, for calls of the claim; ``Claim.evaluate`` calls it with arrays.
    """
    if not any(map(is_presented, leaves(made.inputs))):
        return made

    def of_arrays(function: _Function) -> _Function:
        @wraps(function)
        def changed(**arrays: PyTree) -> Any:
            generators = {name: made.inputs[name] for name in arrays}
            return call(function, presented(generators, arrays))

        return by_keyword(changed, function)

    terms = made.terms and {name: of_arrays(term) for name, term in made.terms.items()}
    where = made.where and of_arrays(made.where)
    return replace(made, of=of_arrays(made.of), terms=terms, where=where)


def _as_python(path: str) -> str:
    """A path with names as Python reads names: the micro sign, for one, is the letter mu."""
    parts = re.findall(r"\[[^\]]*\]?|[^\[]+", path)
    return "".join(part if part[0] == "[" else normalize("NFKC", part) for part in parts)


def call(function: Callable[..., PyTree], inputs: Mapping[str, PyTree]) -> PyTree:
    """Calls a function with the inputs among the function's parameters."""
    given = {name: inputs[name] for name in parameters(function) if name in inputs}
    first = [given.pop(name) for name in _by_position(function) if name in given]
    return function(*first, **given)


def parameters(function: Callable[..., Any]) -> dict[str, bool]:
    """The names of a function's parameters, and whether each lacks a default."""
    return {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def _by_position(function: Callable[..., Any]) -> list[str]:
    """The parameters that a function takes by position only, as ``jnp.tanh`` takes x."""
    given = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in given if parameter.kind is parameter.POSITIONAL_ONLY]


def learning_rate_name(claim: Claim) -> str | None:
    """The learning rate among the inputs of an update; None where ``of`` is the update rule."""
    if claim.kind != "update" or claim.rate is not None:
        return claim.rate
    known = parameters(claim.of)
    scalars = [
        name
        for name, generator in claim.inputs.items()
        if is_input(generator) and generator.shape == () and name not in known
    ]
    return scalars[0] if len(scalars) == 1 else None


_NAME = r"[^\W\d]\w*"
_PATH = re.compile(rf"{_NAME}(\.{_NAME}|\[(-?\d+|'[^']*'|\"[^\"]*\")\])*")


def at_path(inputs: Mapping[str, PyTree], path: str) -> PyTree:
    """The part of the inputs at a path such as ``params[0].weight``.

    Raises:
      ValueError: the inputs have no such part.
    """
    try:
        return reduce(lambda value, step: value[_key(value, step)], steps(path), inputs)
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"wrt is {path!r}, expected {_paths(inputs)}") from None


def _paths(inputs: Mapping[str, PyTree]) -> str:
    """The paths of the parameters by which a derivative can be taken, at most 20."""
    flat, _ = jax.tree.flatten_with_path(list(inputs.values()), is_leaf=is_input)
    names = list(inputs)
    found = [
        names[first.idx] + jax.tree_util.keystr(tuple(rest))
        for (first, *rest), generator in flat
        if generator.kind not in DISCRETE_KINDS
    ]
    names = f"one of {', '.join(found[:20])}{', ...' if len(found) > 20 else ''}"
    return names if found else "an input of real numbers"


def with_path(inputs: PyTree, path: str, new: PyTree) -> PyTree:
    """The inputs with a new part, of the same structure, at a path."""
    flat = jax.tree.leaves(inputs, is_leaf=is_input)
    for place, leaf in zip(places(inputs, path), jax.tree.leaves(new), strict=True):
        flat[place] = leaf
    return filled(inputs, flat)


def places(inputs: PyTree, path: str) -> list[int]:
    """The numbers, among the flat inputs, of the leaves at a path."""
    count = len(jax.tree.leaves(inputs, is_leaf=is_input))
    return jax.tree.leaves(at_path(filled(inputs, range(count)), path))


def steps(path: str) -> list[str | int]:
    """The names and keys of a path such as ``params[0].weight``.

    Raises:
      KeyError: no path.
    """
    if not _PATH.fullmatch(path):
        raise KeyError(path)
    parts = re.findall(rf"{_NAME}|\[[^\]]*\]", path)
    return [ast.literal_eval(part)[0] if part[0] == "[" else part for part in parts]


def _key(value: Any, step: str | int) -> Any:
    """The key of a part: for a named tuple's field the index."""
    fields = getattr(value, "_fields", ())
    return fields.index(step) if step in fields else step


def check(made: Claim) -> None:
    """Raises a ValueError where the declaration contradicts formula, ``of`` or inputs."""
    terms = {} if made.terms is None else made.terms
    terms_fit = isinstance(terms, Mapping) and all(map(callable, terms.values()))
    rate_fits = made.rate is None or (made.kind == "update" and made.rate in made.inputs)
    for fits, name, expected in (
        (isinstance(made.name, str), "name", "text"),
        (isinstance(made.source, str), "source", "text"),
        (isinstance(made.statement, str), "statement", "LaTeX as text"),
        (made.kind in KINDS, "kind", f"one of {', '.join(KINDS)}"),
        (made.layout in (None, *LAYOUTS), "layout", f"one of {', '.join(LAYOUTS)}"),
        ((whole(made.trials) or 0) > 0, "trials", "a whole number, at least 1"),
        (callable(made.formula), "formula", "a function"),
        (callable(made.of), "of", "a function"),
        (terms_fit, "terms", "a dict of functions by name"),
        (made.corrects is None or isinstance(made.corrects, Claim), "corrects", "a claim"),
        (made.where is None or callable(made.where), "where", "a function of some of the inputs"),
        (
            isinstance(made.definitions or {}, Mapping),
            "definitions",
            "a dict of symbols, second in where=(condition, definitions)",
        ),
        (0 < (real(made.tolerance) or 0) < 1, "tolerance", "a number between 0 and 1"),
        (rate_fits, "rate", "an input of a claim of kind 'update'"),
        (isinstance(made.certify, bool), "certify", "True or False"),
        (isinstance(made.black_box, bool), "black_box", "True or False"),
    ):
        if not fits:
            raise ValueError(f"{name} is {shown(getattr(made, name))}, expected {expected}")
    for symbol, definition in (made.definitions or {}).items():
        if not isinstance(symbol, str) or not (callable(definition) or isinstance(definition, str)):
            raise ValueError(  # noqa: TRY004
                f"where has {shown(definition)} for {shown(symbol)}, expected for LaTeX a "
                "function, LaTeX, or the name of an input"
            )
    for name, generator in made.inputs.items():
        if not leaves(generator) or not all(map(is_input, leaves(generator))):
            raise ValueError(
                f"input {name!r} is {shown(generator)}, expected a generator such as real('n'), "
                "or a tree of them"
            )
    conditions = () if made.where is None else (made.where,)
    for function in (made.formula, made.of, *(made.terms or {}).values(), *conditions):
        for name, needed in parameters(function).items():
            if needed and name not in made.inputs:
                raise ValueError(
                    f"{getattr(function, '__name__', 'a function')} has a parameter {name!r}, "
                    f"expected one of the inputs {', '.join(made.inputs)}"
                )
    if not made.wrt and made.kind != "value":
        raise ValueError(
            f"a claim of kind {made.kind!r} got no wrt, expected {_paths(made.inputs)}"
        )
    for path in made.wrt:
        for generator in leaves(at_path(made.inputs, path)):
            what = "a mask" if generator.boolean else DISCRETE_KINDS.get(generator.kind)
            if what:
                raise ValueError(
                    f"wrt is {path!r}, {what}, expected a parameter that varies continuously: "
                    f"{_paths(made.inputs)}"
                )
            if made.kind == "hessian" and generator.kind in CURVED_KINDS:
                raise ValueError(
                    f"kind is 'hessian' by {path!r}, {CURVED_KINDS[generator.kind]}, expected "
                    "kind='jacobian' of the gradient: second derivatives there have no one meaning"
                )
            if made.layout and generator.kind == "complex":
                raise ValueError(
                    f"layout is {made.layout!r} by {path!r}, complex numbers, expected a formula "
                    "in the layout of the parameter"
                )
        if sum(p == path or p.startswith((f"{path}.", f"{path}[")) for p in made.wrt) > 1:
            raise ValueError(f"wrt is {made.wrt!r}, expected each parameter once")
