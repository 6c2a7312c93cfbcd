"""Formulas in LaTeX as functions of a claim's inputs."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import permutations
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
    row_of,
    script_letters,
    settled,
    sides_of,
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
        self.paths = _paths(inputs)
        self.ranges: dict[str, Size] = {}
        self.quantities: dict[str, Quantity] = {}
        self.functions: dict[str, Callable[..., Any]] = {}
        self.formulas: dict[str, tuple[Formula, Any, tuple[str, ...]]] = {}
        classes = {f"input {name}": leaf.classes for name, leaf in self.paths.items()
                   if leaf.kind == "label"}  # fmt: skip
        self.names = Names({name: leaf.shape for name, leaf in self.paths.items()}, {}, classes)
        self.renamed: dict[str, str] = {}
        self.stated: list[str] = []  # symbols that the statement itself defines
        self.words = {*self.paths, *self.names.sizes, *definitions}
        self.formula = parsed(latex, self.words)
        for symbol, definition in definitions.items():
            self._define(symbol, definition)
        self.clauses = self._read_clauses()
        known = {key: key for key in (*self.quantities, *self.functions, *self.formulas)}
        self.names = Names(self.names.inputs, known | self.renamed, classes)
        self.axes: dict[str, tuple[Size, ...]] = {}
        try:
            self._learn()
        except RecursionError:
            raise Unreadable("functions or sums within each other, too deep") from None

    def _define(self, symbol: str, definition: Any) -> None:
        left = parsed(symbol, self.words)
        key = spelled(left.tree)
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
            size = definition in self.names.sizes and definition not in self.names.inputs
            self.renamed[key] = f"size {definition}" if size else f"input {definition}"
            if definition in self.names.sizes:
                self.ranges[key] = definition
        else:
            formula = parsed(definition, self.words)
            if len(row_of(left.tree)) != 1:
                raise Unreadable(f"{symbol!r} is no symbol that can be defined")
            self._add_formula(left, formula, formula.tree)

    def _add_formula(self, left: Formula, formula: Formula, tree: Any) -> str:
        """A symbol defined in LaTeX; with indices as in ``h_i``, the array of all entries."""
        (item,) = row_of(left.tree)
        indices = _indices_of(item, self.names)
        if any(index in self.names.inputs for index in indices):  # D_x, the number of columns of x
            indices = ()
        key = spelled(item.children[0]) if indices else spelled(item)
        self.formulas[key] = formula, tree, indices
        return key

    def _read_clauses(self) -> list[Clause]:
        """The clauses of the value; later clauses define symbols."""
        found: list[Clause] = []
        for clause in self.formula.tree.children:
            sides, signs = sides_of(clause)
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
        if len(row_of(sides[0])) != 1:
            raise Unreadable(f"{left.source(sides[0])!r} is no symbol that can be defined")
        (item,) = row_of(sides[0])
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
            before, error = dict(self.ranges), None
            try:
                jax.eval_shape(self._learn_from_left, point)
                jax.eval_shape(self, point)
            except Unreadable as unreadable:
                error = unreadable
                bare = [clause.left is None and not clause.indices for clause in self.clauses]
                if error.index and bare == [True] and len(self.shapes[0]) == 1:  # p_i - y_i
                    self.clauses = [self.clauses[0]._replace(indices=(error.index,))]
                    continue
            if error and self.ranges == before:  # s_i = \\sum_{j=1}^i x_j
                for clause, shape in zip(self.clauses, self.shapes, strict=True):
                    named = len(clause.indices) == len(shape) and {*shape} <= self.names.sizes
                    for index, size in zip(clause.indices, shape if named else (), strict=False):
                        self.ranges.setdefault(index, size)
            if error is None or self.ranges == before:
                break
        if error:
            raise error

    def _learn_from_left(self, inputs: Mapping[str, PyTree]) -> None:
        """Learns the sizes of indices of inputs on the left side, such as i of W_{ij}."""
        for clause in self.clauses:
            evaluation = self.evaluation(inputs, clause.indices)
            for part in clause.left.iter_subtrees() if clause.left is not None else ():
                with suppress(Unreadable):
                    if part.data in ("item", "term"):
                        evaluation(self.formula, part)
            for key in self.stated:  # whether used or not
                evaluation.lookup(key)

    def __call__(self, inputs: Mapping[str, PyTree]) -> list[jax.Array]:
        """The arrays of the statement."""
        return [sides[-1] for sides in self.sides(inputs)]

    @property
    def by(self) -> list[str]:
        """For every array the input by which the left side derives; "" for no derivative."""
        return ["" if clause.left is None else _parameter(self.formula, clause.left, self.names)
                for clause in self.clauses]  # fmt: skip

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
        name = clause.left is None or (
            len(row_of(clause.left)) == 1 and spelled(clause.left) not in self.names.declared
        )
        if others or name:
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
        return Evaluation(self.names, self.formulas, values, sizes, self.ranges, free)

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
    fits = [
        axes
        for axes in permutations(range(len(dims)))
        if [dims[axis] for axis in axes] == [*target]
        and sorted(axes, key=lambda axis: axis >= first) == [*range(len(dims))]
    ]
    if len(fits) > 1:
        raise Unreadable(f"the value [{', '.join(map(str, dims))}] has two readings in its order")
    if fits:
        return jnp.transpose(data, fits[0])
    same = [size for size in target if size != 1] == [size for size in dims if size != 1]
    turned = len(dims) == 1 and len(target) == 2 and value.row != (target[0] == 1)
    if same and len(dims) < len(target) and (not turned or 1 in dims):
        return data.reshape([int(evaluation.sizes.get(size, size)) for size in target])
    return data


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


def _parts(tree: Any) -> list[Any]:
    """The parts of a pair in brackets."""
    items = row_of(tree)
    if len(items) != 1 or len(items[0].children) > 1 or items[0].children[0].data != "round":
        return []
    return list(items[0].children[0].children[0].children)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _indices_of(item: Any, names: Names) -> tuple[str, ...]:
    """The indices of a symbol, in the order of the axes: superscripts first."""
    atom, *scripts = item.children
    _, left = names.resolve(spelled(atom), [spelled(script) for script in scripts])
    chosen = [scripts[place] for place in left if scripts[place].data in ("sub", "sup")]
    chosen = [script for script in chosen if not re.search("[-+]", spelled(script))]
    chosen.sort(key=lambda script: script.data == "sub")
    return tuple(dict.fromkeys(letter for script in chosen for letter in script_letters(script)))


def _derived(left: Any) -> tuple[list[Any], list[Any]]:
    """The parts of a left side with the derived quantity, and with the parameter."""
    for part in left.iter_subtrees_topdown():
        if part.data == "fraction" and r"\partial" in spelled(part):
            return [part.children[1]], [part.children[2]]
    scripts = [item.children[1:] for item in left.find_data("item")
               if spelled(item.children[0]) == r"\nabla"]  # fmt: skip
    return [left], [script for some in scripts for script in some]


def _indices_in(trees: Sequence[Any], names: Names) -> list[str]:
    found: list[str] = []
    for part in (part for tree in trees for part in tree.iter_subtrees_topdown()):
        if part.data == "item" and part.children[0].data != "round":
            found += _indices_of(part, names) if spelled(part.children[0]) != r"\nabla" else ()
        if part.data == "square":
            found += [index for index in script_letters(part) if len(index.rstrip("'")) == 1]
    return found


def _left_indices(left: Any, names: Names) -> tuple[str, ...]:
    """The indices on a left side: of the derived value first, then of the parameter."""
    if any(spelled(part) in SUMS for part in left.find_data("command")):
        return ()
    above, below = _derived(left)
    last = _indices_in(below, names)
    first = [i for i in _indices_in(above, names) if above != [left] or i not in last]
    return tuple(dict.fromkeys([*first, *last]))


def _parameter(formula: Formula, left: Any, names: Names) -> str:
    """The input by which a left side derives; "" where the left side is no derivative.

    Raises:
      Unreadable: the symbol below is no input.
    """
    if whole := re.search(r"\\frac\{d[^{}]*\}\{d([^{}]*)\}", spelled(left)):
        return (names.known(whole[1]) or "").removeprefix("input ")
    below = _derived(left)[1]
    for item in (item for part in below for item in part.find_data("item")):
        if item.children[0].data in SYMBOLS and r"\partial" not in spelled(item):
            scripts = [spelled(script) for script in item.children[1:]]
            key, _ = names.resolve(spelled(item.children[0]), scripts)
            if key is not None and key.startswith("input "):
                return key.removeprefix("input ")
    if below:
        raise Unreadable(
            f"the derivative by {formula.source(below[0])!r}, expected an input, or a where= that "
            "names the input"
        )
    return ""


__all__ = [
    "Definitions",
    "Quantity",
    "Reading",
    "Unreadable",
    "example_of",
    "example_sizes",
    "symbolic",
]
