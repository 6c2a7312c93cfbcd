"""Formula and reference at the same inputs: all trials in one compiled program, in any layout."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path
from jaxnn.verify.graph import jit, parameter
from jaxnn.verify.inputs import Input, draw, is_input
from jaxnn.verify.reference import check_value_shape, is_rule, reference

CHUNK = 2**20
"""The most entries of a derivative computed at once; forward mode needs a multiple in memory."""

MOST_ENTRIES = 2**23
"""The most numbers in the inputs of all random trials."""


class FormulaError(Exception):
    """The formula cannot be evaluated; the cause is the formula's exception."""


class FunctionError(Exception):
    """``of`` cannot be evaluated or differentiated; the cause is the exception of ``of``."""


class TracedClaim(NamedTuple):
    """The jaxprs of a claim at fixed sizes."""

    formula: core.ClosedJaxpr  # flat inputs -> leaves of the formula's value
    forward: core.ClosedJaxpr  # flat inputs -> leaves of the reference by forward mode
    reverse: core.ClosedJaxpr  # flat inputs -> leaves of the reference by reverse mode
    names: tuple[str, ...]  # per leaf of the reference: the parameter of the derivative
    value_ranks: tuple[int, ...]  # per leaf of the reference: leading axes of the value of `of`
    run: jax.stages.Wrapped  # inputs [T, ...] -> leaves of formula, forward, reverse [T, ...]

    @property
    def reference_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the reference's leaves."""
        return [aval.shape for aval in self.reverse.out_avals]


class Values(NamedTuple):
    """Leaves of formula and reference at every trial, each [T, ...]."""

    formula: list[np.ndarray]
    reference: list[np.ndarray]  # by reverse mode
    forward: list[np.ndarray]


@lru_cache(maxsize=32)
def trace_claim(
    claim: Claim, sizes: tuple[tuple[str, int], ...], both_modes: bool = True
) -> TracedClaim:
    """Traces formula and reference at fixed sizes.

    Args:
      claim: the claim.
      sizes: pairs (name, number) of the symbolic sizes.
      both_modes: False: reverse mode alone, which also stands for forward mode.

    Raises:
      FormulaError: from the exception that the formula raised.
      FunctionError: from the exception that ``of`` raised.
    """
    one = one_trial(claim, dict(sizes))
    try:
        check_value_shape(claim, one)
    except Exception as error:
        raise FunctionError from error
    formula = _traced(claim.evaluate, one, FormulaError)
    reverse = _traced(reference(claim, "reverse"), one, FunctionError)
    forward = _traced(reference(claim, "forward"), one, FunctionError) if both_modes else reverse
    names, ranks = leaf_names(claim, one, reverse)

    def all_three(*flat):
        return tuple(core.jaxpr_as_fun(jaxpr)(*flat) for jaxpr in (formula, forward, reverse))

    return TracedClaim(formula, forward, reverse, names, ranks, jit(jax.vmap(all_three)))


def one_trial(claim: Claim, sizes: dict[str, int]) -> dict[str, PyTree]:
    """The shapes of the inputs of one trial."""
    drawn = draw(dict(claim.inputs), sizes, 1, np.random.default_rng(0))
    return jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape[1:], value.dtype), drawn)


def evaluate(traced: TracedClaim, inputs: PyTree) -> Values:
    """Formula and reference at every trial of the inputs, [T, ...]."""
    flat = jax.tree.leaves(inputs)
    trials = len(flat[0])
    entries = sum(int(np.prod(shape, dtype=int)) for shape in traced.reference_shapes)
    chunk = max(1, min(trials, CHUNK // max(1, entries)))
    columns = []
    for start in range(0, trials, chunk):
        # The last chunk overlaps the chunk before: equal shapes share a program.
        first = min(start, trials - chunk)
        results = traced.run(*(value[first : first + chunk] for value in flat))
        columns.append([[np.asarray(leaf)[start - first :] for leaf in part] for part in results])
    formula, forward, reverse = (
        [
            leaves[0] if len(leaves) == 1 else np.concatenate(leaves)
            for leaves in zip(*part, strict=True)
        ]
        for part in zip(*columns, strict=True)
    )
    return Values(formula, reverse, forward)


def affordable_trials(traced: TracedClaim, trials: int) -> int:
    """The number of trials that fit into memory: fewer than requested for large inputs."""
    entries = sum(int(np.prod(aval.shape, dtype=int)) for aval in traced.formula.in_avals)
    return min(trials, max(100, MOST_ENTRIES // max(1, entries)))


def operations(traced: TracedClaim) -> int:
    """Roughly how many scalar operations formula and reference take at one trial."""
    count = 0
    for jaxpr in (traced.formula, traced.reverse):
        for equation in jaxpr.jaxpr.eqns:
            inner = 1
            if equation.primitive.name == "dot_general":
                shape = equation.invars[0].aval.shape
                (contracted, _), _ = parameter(equation, "dimension_numbers")
                inner = int(np.prod([shape[axis] for axis in contracted], dtype=int))
            count += inner * sum(int(np.prod(v.aval.shape, dtype=int)) for v in equation.outvars)
    return count


def norms(array: np.ndarray) -> np.ndarray:
    """The Euclidean norm of every trial's entries."""
    flat = array.reshape(len(array), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.einsum("te,te->t", flat, flat))


def relative_errors(value: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """||value - reference|| / (||reference|| + 0.001 median ||reference||) of every trial.

    The median keeps cancellation in a nearly vanishing reference from counting as an error.

    Args:
      value: [T, ...].
      reference: [T, ...].

    Returns:
      [T]; NaN where value or reference is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distances, sizes = norms(value - reference), norms(reference)
        finite = sizes[np.isfinite(sizes)]
        usual = float(np.median(finite)) if len(finite) else 0.0
        floor = 1e-3 * usual or np.finfo(float).tiny
        return distances / (sizes + floor)


class Layout(NamedTuple):
    """An arrangement of a derivative's entries."""

    code: str  # transpose, vec_order or shape
    name: str
    arrange: Callable[[np.ndarray], np.ndarray]  # of one trial


def declared_layout(layout: str | None, value_rank: int) -> Callable[[np.ndarray], np.ndarray]:
    """The arrangement that a claim's ``layout`` declares.

    Args:
      layout: ``transpose``, ``vec``, ``vec_rows`` or None.
      value_rank: the leading axes of the derivative that belong to the function's value.

    Returns:
      A function from one trial's derivative in jaxnn's layout to the declared layout.
    """
    if layout is None:
        return lambda array: array
    if layout == "transpose":
        return np.transpose
    order = "F" if layout == "vec" else "C"
    return lambda array: _vec(array, value_rank, order)


def jaxnn_layout(layout: str | None) -> Layout:
    """The layout of jaxnn, as a finding about a claim that declares ``layout``."""
    if layout is None:
        return Layout("shape", "the same with other axes of length 1", lambda array: array)
    code = "transpose" if layout == "transpose" else "vec_order"
    return Layout(code, f"in this package's own layout rather than {layout!r}", lambda array: array)


def alternative_layouts(shape: tuple[int, ...], value_rank: int) -> Iterator[Layout]:
    """Every arrangement of a derivative apart from jaxnn's, the plainest first.

    Args:
      shape: of the derivative in jaxnn's layout.
      value_rank: the leading axes that belong to the function's value.
    """
    rank = len(shape)
    if rank >= 2:
        yield Layout("transpose", "the transpose", np.transpose)
    if 0 < value_rank < rank and rank > 2:
        axes = (*range(value_rank, rank), *range(value_rank))
        name = "the parameter's axes before the value's"
        yield Layout("transpose", name, lambda array: np.transpose(array, axes))
    if rank - value_rank >= 2 or value_rank >= 2:
        for order, lines in (("C", "rows"), ("F", "columns")):
            name = f"vec, {lines} one after the other"

            def flat(array: np.ndarray, order: str = order) -> np.ndarray:
                return _vec(array, value_rank, order)

            yield Layout("vec_order", name, flat)
            yield Layout("vec_order", f"{name}, transposed", lambda a, f=flat: np.transpose(f(a)))


def reshaped(layout: Layout, shape: tuple[int, ...]) -> Layout:
    """A layout with axes of length 1 dropped or added to reach a shape."""
    return layout._replace(arrange=lambda array: layout.arrange(array).reshape(shape))


def same_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether two shapes are equal apart from axes of length 1."""
    return [n for n in shape if n != 1] == [n for n in expected if n != 1]


def _vec(array: np.ndarray, value_rank: int, order: str) -> np.ndarray:
    """[value, parameter]: the value's axes and the parameter's axes, each joined to one."""
    value, parameters = array.shape[:value_rank], array.shape[value_rank:]
    rows = int(np.prod(value, dtype=int))
    columns = int(np.prod(parameters, dtype=int))
    if order == "F":
        array = array.transpose(
            *reversed(range(value_rank)), *reversed(range(value_rank, array.ndim))
        )
    flat = array.reshape(rows, columns)
    return flat if value_rank else flat[0]


def arranged(arrange: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """An arrangement applied to every trial of an array [T, ...]."""
    first = arrange(array[0])
    # An array of positions shows the target of every entry.
    index = arrange(np.arange(array[0].size).reshape(array[0].shape))
    return array.reshape(len(array), -1)[:, index.reshape(-1)].reshape(len(array), *first.shape)


def find_layout(
    claim: Claim, value: np.ndarray, reference: np.ndarray, value_rank: int
) -> Layout | None:
    """The layout in which formula and reference agree at every trial where both are finite.

    Args:
      claim: the claim, with its declared layout.
      value: the formula's, [T, ...].
      reference: in jaxnn's layout, [T, ...].
      value_rank: the leading axes of one trial's reference that belong to the function's value.
    """
    for layout in (
        jaxnn_layout(claim.layout),
        *alternative_layouts(reference.shape[1:], value_rank),
    ):
        expected = arranged(layout.arrange, reference)
        if not same_shape(value.shape[1:], expected.shape[1:]):
            continue
        errors = relative_errors(value.reshape(expected.shape), expected)
        errors = errors[np.isfinite(errors)]
        if len(errors) and np.all(errors <= claim.tolerance):
            return reshaped(layout, value.shape[1:])
    return None


def _traced(
    function: Callable[..., PyTree], one: PyTree, failure: type[Exception]
) -> core.ClosedJaxpr:
    structure = jax.tree.structure(one)

    def flat(*leaves):
        value = function(jax.tree.unflatten(structure, leaves))
        return [_real(jnp.asarray(leaf)) for leaf in jax.tree.leaves(value)]

    try:
        return jax.make_jaxpr(flat)(*jax.tree.leaves(one))
    except Exception as error:
        raise failure from error


def _real(leaf: jax.Array) -> jax.Array:
    """Booleans and integers as real numbers."""
    return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(float)


def leaf_names(
    claim: Claim, one: dict[str, PyTree], reverse: core.ClosedJaxpr
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Per leaf of the reference: the parameter's name, and the leading axes of the value."""
    ranks = [len(aval.shape) for aval in reverse.out_avals]
    if claim.kind == "value":
        names = [f"value[{i}]" for i in range(len(ranks))] if len(ranks) > 1 else ["value"]
        return tuple(names[: len(ranks)]), (0,) * len(ranks)
    parts: list[tuple[str, int]] = []
    for path in claim.wrt:
        part = at_path(claim.inputs, path)
        for keys, leaf in jax.tree.flatten_with_path(part, is_leaf=is_input)[0]:
            parts.append((path + _key_path(keys), len(leaf.shape)))
    if claim.kind == "hessian":
        pairs = [(f"{a}, {b}", rank) for a, rank in parts for b, _ in parts]
        return tuple(name for name, _ in pairs), tuple(rank for _, rank in pairs)
    names = tuple(name for name, _ in parts)
    if claim.kind == "jacobian":
        return names, tuple(rank - axes for rank, (_, axes) in zip(ranks, parts, strict=True))
    if is_rule(claim, one) and len(parts) != len(ranks):
        names = tuple(f"value[{i}]" for i in range(len(ranks)))
    return names, (0,) * len(names)


def _key_path(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys).replace("['", ".").replace("']", "")


def generators(claim: Claim) -> list[Input]:
    """The generators in the order of the flat inputs."""
    return jax.tree.leaves(dict(claim.inputs), is_leaf=is_input)
