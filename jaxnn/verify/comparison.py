"""Claim and truth side by side, over all trials in one compiled program."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify import layouts
from jaxnn.verify.claims import Claim, at_path
from jaxnn.verify.failures import FormulaError, FunctionError
from jaxnn.verify.inputs import Input, draw, is_input
from jaxnn.verify.quick import jit
from jaxnn.verify.reference import expected_value, is_rule, reference

CHUNK = 2**20
"""The most entries of a derivative that are computed at once; forward mode takes much more."""

MOST_ENTRIES = 2**23
"""The most numbers that the inputs of all random trials have."""


class Subject(NamedTuple):
    """A claim at fixed sizes, traced."""

    claimed: core.ClosedJaxpr  # flat inputs -> leaves of the formula's value
    forward: core.ClosedJaxpr  # flat inputs -> leaves of the truth, by forward mode
    reverse: core.ClosedJaxpr  # the same, by reverse mode
    names: tuple[str, ...]  # what each leaf is the derivative by
    value_ranks: tuple[int, ...]  # per leaf of the truth: the axes that belong to the value of `of`
    run: Callable[..., Any]  # inputs with a leading axis of trials -> leaves of all three

    @property
    def true_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the truth's leaves."""
        return [aval.shape for aval in self.reverse.out_avals]


class Values(NamedTuple):
    """What claim and truth are at every trial, a leading axis of trials in every leaf."""

    claimed: list[np.ndarray]
    true: list[np.ndarray]  # by reverse mode
    forward: list[np.ndarray]


@lru_cache(maxsize=32)
def subject(claimed: Claim, sizes: tuple[tuple[str, int], ...], both: bool = True) -> Subject:
    """Traces a claim at fixed sizes.

    Args:
      claimed: the claim.
      sizes: (name, number) of every symbolic size.
      both: whether by both modes of autodiff, or by reverse mode alone.

    Returns:
      The traced claim.

    Raises:
      FormulaError: from the exception that the formula raised.
      FunctionError: from the exception that ``of`` raised.
    """
    one = one_trial(claimed, dict(sizes))
    try:
        expected_value(claimed, one)
    except Exception as error:
        raise FunctionError from error
    formula = _traced(claimed.evaluate, one, FormulaError)
    reverse = _traced(reference(claimed, "reverse"), one, FunctionError)
    forward = _traced(reference(claimed, "forward"), one, FunctionError) if both else reverse
    names, ranks = leaf_names(claimed, one, reverse)

    def sides(*flat):
        return tuple(core.jaxpr_as_fun(side)(*flat) for side in (formula, forward, reverse))

    return Subject(formula, forward, reverse, names, ranks, jit(jax.vmap(sides)))


def one_trial(claimed: Claim, sizes: dict[str, int]) -> dict[str, PyTree]:
    """The shapes of the inputs of one trial."""
    drawn = draw(dict(claimed.inputs), sizes, 1, np.random.default_rng(0))
    return jax.tree.map(lambda value: jax.ShapeDtypeStruct(value.shape[1:], value.dtype), drawn)


def evaluate(side: Subject, inputs: PyTree) -> Values:
    """Claim and truth at every trial."""
    flat = jax.tree.leaves(inputs)
    trials = len(flat[0])
    entries = sum(int(np.prod(shape, dtype=int)) for shape in side.true_shapes)
    chunk = max(1, min(trials, CHUNK // max(1, entries)))
    columns = []
    for start in range(0, trials, chunk):
        # The last chunk overlaps the one before it, so that all have one shape and one program.
        first = min(start, trials - chunk)
        results = side.run(*(value[first : first + chunk] for value in flat))
        columns.append([[np.asarray(leaf)[start - first :] for leaf in part] for part in results])
    joined = [
        [
            leaves[0] if len(leaves) == 1 else np.concatenate(leaves)
            for leaves in zip(*part, strict=True)
        ]
        for part in zip(*columns, strict=True)
    ]
    return Values(claimed=joined[0], true=joined[2], forward=joined[1])


def affordable_trials(side: Subject, trials: int) -> int:
    """As many of the trials as fit into memory: all, unless a claim's inputs are large."""
    entries = sum(int(np.prod(aval.shape, dtype=int)) for aval in side.claimed.in_avals)
    return min(trials, max(100, MOST_ENTRIES // max(1, entries)))


def operations(side: Subject) -> int:
    """Roughly how many operations on single numbers it takes to evaluate both sides once."""
    count = 0
    for jaxpr in (side.claimed, side.reverse):
        for equation in jaxpr.jaxpr.eqns:
            inner = 1
            if equation.primitive.name == "dot_general":
                shape = equation.invars[0].aval.shape
                (contracted, _), _ = equation.params["dimension_numbers"]
                inner = int(np.prod([shape[axis] for axis in contracted], dtype=int))
            count += inner * sum(int(np.prod(v.aval.shape, dtype=int)) for v in equation.outvars)
    return count


def norms(array: np.ndarray) -> np.ndarray:
    """The Euclidean norm of every trial's entries."""
    flat = array.reshape(len(array), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.einsum("te,te->t", flat, flat))


def relative_errors(claimed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """How far every trial's claim is from the truth, by norm, as a share of the truth's norm.

    Where the truth nearly vanishes it is a share of what is usual in these trials, so that mere
    cancellation is not mistaken for an error. NaN where either side is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distances, sizes = norms(claimed - true), norms(true)
        finite = sizes[np.isfinite(sizes)]
        usual = float(np.median(finite)) if len(finite) else 0.0
        floor = 1e-3 * usual or np.finfo(float).tiny
        return distances / (sizes + floor)


def arranged(arrange: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """A layout applied to every trial."""
    first = arrange(array[0])
    # An index array shows where every entry goes, whatever the layout does.
    index = arrange(np.arange(array[0].size).reshape(array[0].shape))
    return array.reshape(len(array), -1)[:, index.reshape(-1)].reshape(len(array), *first.shape)


def find_layout(
    claim: Claim, claimed: np.ndarray, true: np.ndarray, value_rank: int
) -> layouts.Layout | None:
    """The layout in which a claim is the truth at every trial where both are finite.

    Args:
      claim: the claim, which may declare another layout.
      claimed: [T, ...].
      true: in this package's layout, [T, ...].
      value_rank: the leading axes of one trial's truth that belong to the function's value.
    """
    as_is = layouts.own(claim.layout)
    for layout in (as_is, *layouts.others(true.shape[1:], value_rank)):
        other = arranged(layout.arrange, true)
        if not layouts.same_shape(claimed.shape[1:], other.shape[1:]):
            continue
        errors = relative_errors(claimed.reshape(other.shape), other)
        errors = errors[np.isfinite(errors)]
        if len(errors) and np.all(errors <= claim.tolerance):
            return layouts.reshaped(layout, claimed.shape[1:])
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
    """Truth values and whole numbers as real ones."""
    return leaf if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.astype(float)


def leaf_names(
    claimed: Claim, one: dict[str, PyTree], reverse: core.ClosedJaxpr
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What each leaf of the truth is the derivative by, and how many axes are the value's."""
    ranks = [len(aval.shape) for aval in reverse.out_avals]
    if claimed.kind == "value":
        return tuple("value" if len(ranks) == 1 else f"value[{i}]" for i in range(len(ranks))), (
            0,
        ) * len(ranks)
    parts: list[tuple[str, int]] = []
    for path in claimed.wrt:
        part = at_path(claimed.inputs, path)
        for keys, leaf in jax.tree.flatten_with_path(part, is_leaf=is_input)[0]:
            parts.append((path + _key_path(keys), len(leaf.shape)))
    if claimed.kind == "hessian":
        pairs = [(f"{a}, {b}", rank) for a, rank in parts for b, _ in parts]
        return tuple(name for name, _ in pairs), tuple(rank for _, rank in pairs)
    if claimed.kind == "jacobian":
        return tuple(name for name, _ in parts), tuple(
            rank - own for rank, (_, own) in zip(ranks, parts, strict=True)
        )
    if is_rule(claimed, one) and len(parts) != len(ranks):
        parts = [(f"value[{i}]", 0) for i in range(len(ranks))]
    return tuple(name for name, _ in parts), (0,) * len(parts)


def _key_path(keys: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(keys).replace("['", ".").replace("']", "")


def generators(claimed: Claim) -> list[Input]:
    """The generators in the order of the flat inputs."""
    return jax.tree.leaves(dict(claimed.inputs), is_leaf=is_input)
