"""Formulas in LaTeX as functions of a claim's inputs."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree, shown
from jaxnn.verify.inputs import draw, fixed_sizes, is_input, symbols
from jaxnn.verify.latex.meaning import (
    SUMS,
    SYMBOLS,
    Evaluation,
    Formula,
    Names,
    Unreadable,
    Value,
    array,
    parsed,
    settled,
    spelled,
)
from jaxnn.verify.latex.values import Size

EXAMPLES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43)
"""Sizes to find out the shapes of definitions by: primes, so that products are told apart."""

SKIPPED = (r"\in",)
"""Relations of clauses about the space of a symbol."""


class Quantity(NamedTuple):
    """A definition of a symbol as a function of the claim's inputs."""

    of: Callable[[Mapping[str, PyTree]], Any]


Definitions = Mapping[str, "str | Quantity | Callable[..., Any]"]
"""By symbol: LaTeX or the name of an input or size, a quantity, or a function of entries."""


def example_sizes(inputs: PyTree, avoid: Sequence[int] = ()) -> dict[str, int]:
    """Distinct sizes, without the fixed sizes of the inputs and the numbers to avoid."""
    taken = {*fixed_sizes(inputs), *avoid}
    free = [size for size in (*EXAMPLES, *range(47, 200)) if size not in taken]
    return dict(zip(symbols(inputs), free, strict=False))


def example_of(inputs: Mapping[str, PyTree], sizes: Mapping[str, int]) -> PyTree:
    """A random value of every input."""
    drawn = draw(dict(inputs), sizes, 1, np.random.default_rng(0))
    return jax.tree.map(lambda values: values[0], drawn)


def symbolic(shape: Sequence[int], sizes: Mapping[str, int], of: str = "") -> tuple[Size, ...]:
    """A shape at example sizes in names of sizes; smaller numbers are fixed sizes."""
    names = {number: name for name, number in sizes.items()}
    fixed = min(sizes.values(), default=EXAMPLES[-1])
    return tuple(
        names.get(n, n if n < fixed or not of else f"{of}.{axis}") for axis, n in enumerate(shape)
    )


class Clause(NamedTuple):
    """An equation of a statement, or a bare formula."""

    left: Any  # the tree of the left side, or None
    right: tuple[Any, ...]  # the sides to the right
    indices: tuple[str, ...]  # on the left side


class Reading:
    """A statement in LaTeX, read for a claim's inputs: a function of the inputs.

    Args:
      latex: the statement; clauses after the first ``len(shapes)`` define symbols.
      inputs: the claim's generators.
      definitions: of symbols, before inputs and sizes of the same name.
      shapes: of every array of the value, in names of sizes.

    Raises:
      Unreadable: no meaning, or two.
    """

    def __init__(
        self,
        latex: str,
        inputs: Mapping[str, PyTree],
        definitions: Definitions,
        shapes: Sequence[tuple[Size, ...]],
    ):
        self.inputs, self.shapes = inputs, shapes
        self.formula = parsed(latex)
        self.paths = _paths(inputs)
        self.ranges: dict[str, Size] = {}
        self.quantities: dict[str, Quantity] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        self.formulas: dict[str, tuple[Formula, Any]] = {}
        self.key_indices: dict[str, tuple[str, ...]] = {}
        self.names = Names({name: leaf.shape for name, leaf in self.paths.items()}, {}, {})
        self.renamed: dict[str, str] = {}
        self.stated: list[str] = []  # symbols that the statement itself defines
        for symbol, definition in definitions.items():
            self._define(symbol, definition)
        self.clauses = self._read_clauses()
        known = {**self.quantities, **self.functions, **self.formulas}
        self.names = Names(self.names.inputs, known, self.renamed)
        self.by = [_parameter(self.formula, clause.left, self.names) for clause in self.clauses]
        self.axes: dict[str, tuple[Size, ...]] = {}
        try:
            self._learn()
        except RecursionError:
            raise Unreadable("functions or sums within each other, too deep") from None

    def _define(self, symbol: str, definition: Any) -> None:
        key = spelled(_only_item(parsed(symbol)) or parsed(symbol).tree)
        if isinstance(definition, Quantity):
            self.quantities[key] = definition
        elif callable(definition):
            self.functions[key] = definition
        elif not isinstance(definition, str):
            raise Unreadable(
                f"where has {shown(definition)} for {symbol}, expected a function, LaTeX, or the "
                "name of an input or a size"
            )
        elif definition in self.names.inputs or definition in self.names.sizes:
            self.renamed[key] = definition
            if definition in self.names.sizes:
                self.ranges[key] = definition
        else:
            formula = parsed(definition)
            self._add_formula(parsed(symbol), formula, formula.tree)

    def _add_formula(self, left: Formula, formula: Formula, tree: Any) -> str:
        """A symbol defined in LaTeX; with indices as in ``h_i``, the array of all entries."""
        item = _only_item(left)
        if item is None:
            raise Unreadable(f"{left.text!r} is no symbol that can be defined")
        indices = _indices_of(item, self.names)
        if any(index in self.names.inputs for index in indices):  # D_x, the number of columns of x
            indices = ()
        key = spelled(item.children[0]) if indices else spelled(item)
        self.formulas[key], self.key_indices[key] = (formula, tree), indices
        return key

    def _read_clauses(self) -> list[Clause]:
        """The clauses of the value; later clauses define symbols."""
        found: list[Clause] = []
        for clause in self.formula.tree.children:
            sides = [child for child in clause.children if hasattr(child, "data")]
            signs = [str(child) for child in clause.children if not hasattr(child, "data")]
            source = self.formula.source(clause)
            words = [self.formula.source(word) for word in clause.find_data("words")]
            cases = any(clause.find_data("environment"))
            if not cases and any(r"\text" in word for word in words):
                raise Unreadable(f"prose: {source!r}")
            if signs and signs[0] in SKIPPED:
                continue
            if signs[-1:] and signs[-1] in SKIPPED:
                sides, signs = sides[:-1], signs[:-1]
            equal = all(sign in ("=", r"\leftarrow", r"\gets", ":=", r"\equiv", r"\coloneqq")
                        for sign in signs)  # fmt: skip
            if not equal:
                if found:
                    continue  # a condition such as l != k
                raise Unreadable(f"{source!r} is no equation")
            if len(found) < len(self.shapes):
                left = sides[0] if signs else None
                indices = _left_indices(left, self.names) if left is not None else ()
                found.append(Clause(left, tuple(sides[1:] if signs else sides), indices))
                parts = _parts(sides[-1]) if len(self.shapes) > 1 else []
                if len(found) == 1 and len(parts) == len(self.shapes):
                    found = [Clause(None, (part,), ()) for part in parts]
            elif len(sides) == 2:
                self._define_by_clause(sides)
            else:
                raise Unreadable(f"{source!r} is no definition")
        if len(found) != len(self.shapes):
            raise Unreadable(
                f"{len(found)} equations for {len(self.shapes)} arrays, expected one for each"
            )
        return found

    def _define_by_clause(self, sides: Sequence[Any]) -> None:
        left = Formula(self.formula.text, sides[0])
        item = _only_item(left)
        if item is None:
            raise Unreadable(f"{left.source(sides[0])!r} is no symbol that can be defined")
        key, _ = self.names.resolve(
            spelled(item.children[0]), [spelled(script) for script in item.children[1:]]
        )
        if key is not None and key.startswith("size "):
            return  # equal sizes, as the inputs have them
        stated = self._add_formula(left, self.formula, sides[1])
        if stated in self.quantities or stated in self.functions or stated in self.stated:
            raise Unreadable(f"{stated} is defined twice")
        self.stated.append(stated)

    def _learn(self) -> None:
        """Finds the shapes of definitions, and the size of the range of every index."""
        sizes = example_sizes(self.inputs)
        point = example_of(self.inputs, sizes)
        for key, quantity in self.quantities.items():
            try:
                value = jax.eval_shape(lambda point, quantity=quantity: quantity.of(point), point)
                shape = value.shape
            except Exception as failure:
                raise Unreadable(f"where: {key}: {_line(failure)}") from failure
            self.axes[key] = symbolic(shape, sizes, key)
        error: Unreadable | None = None
        for _ in range(10):
            before = dict(self.ranges)
            error = None
            try:
                jax.eval_shape(self._learn_from_left, point)
                jax.eval_shape(self, point)
            except Unreadable as unreadable:
                error = unreadable
            if error is None or self.ranges == before:
                break
        if error:
            raise error

    def _learn_from_left(self, inputs: Mapping[str, PyTree]) -> None:
        """Learns the sizes of indices of inputs on the left side, such as i of W_{ij}."""
        for clause in self.clauses:
            evaluation = self.evaluation(inputs, clause.indices)
            for item in clause.left.find_data("item") if clause.left is not None else ():
                with suppress(Unreadable):
                    evaluation(self.formula, item)
            for term in clause.left.find_data("term") if clause.left is not None else ():
                with suppress(Unreadable):
                    evaluation(self.formula, term)
            for key in self.stated:  # whether used or not
                evaluation.lookup(key)

    def __call__(self, inputs: Mapping[str, PyTree]) -> list[jax.Array]:
        """The arrays of the statement."""
        return [self._placed(clause, shape, inputs, clause.right[-1])
                for clause, shape in zip(self.clauses, self.shapes, strict=True)]  # fmt: skip

    def sides(self, inputs: Mapping[str, PyTree]) -> list[list[jax.Array]]:
        """For every array, the value of all sides to the right."""
        return [
            [self._placed(clause, shape, inputs, side) for side in clause.right]
            for clause, shape in zip(self.clauses, self.shapes, strict=True)
        ]

    def left(self, inputs: Mapping[str, PyTree]) -> jax.Array:
        """The value of the left side of a single equation.

        Raises:
          Unreadable: the left side is a name.
        """
        clause, *others = self.clauses
        if (
            others
            or clause.left is None
            or (
                _only_item(Formula("", clause.left)) is not None
                and spelled(clause.left) not in self.names.definitions
            )
        ):
            raise Unreadable("the left side is a name")
        return self._placed(clause, self.shapes[0], inputs, clause.left)

    def evaluation(self, inputs: Mapping[str, PyTree], free: Sequence[str]) -> Evaluation:
        """The values of symbols at given inputs."""
        flat = jax.tree.leaves(dict(inputs))
        generators = jax.tree.leaves(dict(self.inputs), is_leaf=is_input)
        arrays = {id(leaf): value for leaf, value in zip(generators, flat, strict=True)}
        sizes: dict[str, int] = {}
        values: dict[str, Any] = {}
        for name, leaf in self.paths.items():
            data = jnp.asarray(arrays[id(leaf)])
            data = (data > 0 if leaf.boolean else data).astype(float)
            sizes |= {
                s: n for s, n in zip(leaf.shape, data.shape, strict=True) if isinstance(s, str)
            }
            values[f"input {name}"] = Value(data, (), leaf.shape)
        for key, quantity in self.quantities.items():
            data = jnp.asarray(quantity.of(inputs))
            sizes |= dict(zip(self.axes[key], data.shape, strict=True))  # type: ignore
            values[key] = Value(data, (), self.axes[key])
        values |= self.functions
        return Evaluation(self.names, self.formulas, values, sizes, self.ranges, free,
                          self.key_indices)  # fmt: skip

    def _placed(
        self, clause: Clause, target: tuple[Size, ...], inputs: Mapping[str, PyTree], side: Any
    ) -> jax.Array:
        """The value of a side in the order of axes of the target."""
        evaluation = self.evaluation(inputs, clause.indices)
        value = evaluation(self.formula, side)
        value = settled(value, evaluation.sizes, *target) if target else value
        if value.pending:
            raise Unreadable(f"the size of {self.formula.source(side)!r} is not known")
        return _arranged(value, clause.indices, target, evaluation)


def _arranged(
    value: Value, order: Sequence[str], target: tuple[Size, ...], evaluation: Evaluation
) -> jax.Array:
    """The axes of indices, as ordered on the left side, among those of vectors and matrices."""
    data = array(value)
    extra = [index for index in value.indices if index not in order]
    if extra and order:
        raise Unreadable(f"the index {extra[0]} is on the right side alone")
    order = order or value.indices
    missing = [i for i in order if i not in value.indices and i in evaluation.ranges]
    sizes = [evaluation.sizes.get(s, s) for s in (evaluation.ranges[i] for i in missing)]
    data = jnp.broadcast_to(data, (*sizes, *data.shape))  # type: ignore
    indices = [*missing, *value.indices]
    order = [index for index in order if index in indices]
    first = len(indices)
    data = jnp.transpose(
        data, [*(indices.index(index) for index in order), *range(first, data.ndim)]
    )
    dims = [*(evaluation.ranges[index] for index in order), *value.shape]
    fits = {
        tuple(places): _interleaved(places, len(dims))
        for places in combinations(range(len(dims)), first)
        if [dims[axis] for axis in _interleaved(places, len(dims))] == [*target]
    }
    if len(fits) > 1:
        raise Unreadable(f"the value [{', '.join(map(str, dims))}] has two readings in its order")
    if fits:
        return jnp.transpose(data, next(iter(fits.values())))
    same = [size for size in target if size != 1] == [size for size in dims if size != 1]
    turned = len(dims) == 1 and len(target) == 2 and value.row != (target[0] == 1)
    if same and len(dims) < len(target) and (not turned or 1 in dims):
        return data.reshape([int(evaluation.sizes.get(size, size)) for size in target])
    return data


def _interleaved(places: Sequence[int], count: int) -> list[int]:
    """A permutation with the first axes at given places, the others between."""
    others = iter(range(len(places), count))
    return [places.index(place) if place in places else next(others) for place in range(count)]


def _paths(inputs: Mapping[str, PyTree]) -> dict[str, Any]:
    """The generators by name; in trees by the last name, if unique."""
    found: dict[str, list[Any]] = {}
    for name, tree in inputs.items():
        for path, leaf in jax.tree.flatten_with_path(tree, is_leaf=is_input)[0]:
            last = path[-1] if path else None
            key = getattr(last, "key", getattr(last, "name", None)) if path else name
            if isinstance(key, str) and leaf.kind not in ("complex", "key"):
                found.setdefault(key, []).append(leaf)
    return {name: leaves[0] for name, leaves in found.items() if len(leaves) == 1}


def _only_item(formula: Formula) -> Any:
    """The item of a formula with a single item; None for other formulas."""
    tree = formula.tree
    while tree.data in ("clauses", "clause", "sum", "term"):
        if len(tree.children) != 1:
            return None
        tree = tree.children[0]
        if not hasattr(tree, "data"):
            return None
    return tree if tree.data == "item" else None


def _parts(tree: Any) -> list[Any]:
    """The parts of a pair in brackets."""
    item = _only_item(Formula("", tree))
    if item is None or len(item.children) > 1 or item.children[0].data != "round":
        return []
    return list(item.children[0].children[0].children)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _letters(tree: Any) -> list[str]:
    """The letters of a script, each with its primes."""
    from jaxnn.verify.latex.meaning import script_letters

    return script_letters(tree)


def _indices_of(item: Any, names: Names) -> tuple[str, ...]:
    """The indices of a symbol, in the order of the axes: superscripts first."""
    atom, *scripts = item.children
    _, left = names.resolve(spelled(atom), [spelled(script) for script in scripts])
    chosen = [scripts[place] for place in left if scripts[place].data in ("sub", "sup")]
    chosen.sort(key=lambda script: script.data == "sub")
    return tuple(dict.fromkeys(letter for script in chosen for letter in _letters(script)))


def _left_indices(tree: Any, names: Names) -> tuple[str, ...]:
    """The indices on a left side: of the derived value first, then of the parameter."""
    found: list[str] = []
    items = list(tree.iter_subtrees_topdown())
    below: list[str] = []
    if any(spelled(part) in SUMS for part in tree.find_data("command")):
        return ()
    for part in items:
        if part.data == "fraction" and r"\partial" in spelled(part):
            for side in part.children[1:]:
                found += _indices_below(side, names)
            return tuple(dict.fromkeys(found))
    for part in items:
        if part.data == "item" and spelled(part.children[0]) == r"\nabla":
            below += [i for script in part.children[1:] for i in _indices_below(script, names)]
            continue
    for part in items:
        if part.data == "item" and spelled(part.children[0]) != r"\nabla":
            found += [index for index in _own(part, names) if index not in below]
        if part.data == "square":
            found += [i for i in _letters(part) if len(i.rstrip("'")) == 1]
    return tuple(dict.fromkeys([*found, *below]))


def _parameter(formula: Formula, left: Any, names: Names) -> str:
    """The input by which a left side derives; "" where the left side is no derivative.

    Raises:
      Unreadable: the symbol below is no input.
    """
    for part in left.iter_subtrees_topdown() if left is not None else ():
        below: Any = None
        if part.data == "fraction" and r"\partial" in spelled(part):
            below = part.children[2]
        elif part.data == "item" and spelled(part.children[0]) == r"\nabla":
            below = next(iter(part.children[1:]), None)
        plain = spelled(part) if part.data == "fraction" else ""
        if whole := re.fullmatch(r"\\frac\{d[^{}]*\}\{d([^{}]*)\}", plain):
            return (names.known(whole[1]) or "").removeprefix("input ")
        for item in below.find_data("item") if below is not None else ():
            if item.children[0].data in SYMBOLS and r"\partial" not in spelled(item):
                scripts = [spelled(script) for script in item.children[1:]]
                key, _ = names.resolve(spelled(item.children[0]), scripts)
                if key is not None and key.startswith("input "):
                    return key.removeprefix("input ")
        if below is not None:
            raise Unreadable(
                f"the derivative by {formula.source(below)!r}, expected an input, or a where= that "
                "names the input"
            )
    return ""


def _own(item: Any, names: Names) -> tuple[str, ...]:
    return _indices_of(item, names) if item.children[0].data != "round" else ()


def _indices_below(tree: Any, names: Names) -> list[str]:
    found: list[str] = []
    for part in tree.iter_subtrees_topdown():
        if part.data == "item":
            found += [index for index in _own(part, names) if index not in found]
        if part.data == "square":
            found += [index for index in _letters(part) if index not in found]
    return found


__all__ = [
    "Definitions",
    "Quantity",
    "Reading",
    "Unreadable",
    "example_of",
    "example_sizes",
    "symbolic",
]
