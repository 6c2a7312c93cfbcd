"""A formula with one of the function's values where another belongs, such as z for sigmoid(z).

The formula's own graph is evaluated with one of its operands exchanged for another value of the
function; all exchanges are one program, mapped over a vector that selects them.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import Array
from jaxnn.verify.claims import Claim, call
from jaxnn.verify.comparison import one_trial
from jaxnn.verify.diagnosis import sampling
from jaxnn.verify.diagnosis.anatomy import Anatomy, every_value
from jaxnn.verify.diagnosis.hypotheses import same
from jaxnn.verify.diagnosis.sampling import Sample
from jaxnn.verify.diagnosis.terms import active_inputs
from jaxnn.verify.graph import Graph, Name, apply, evaluate, trace
from jaxnn.verify.inputs import draw
from jaxnn.verify.quick import jit
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

_THROUGH = {
    "": lambda value: value,
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "exponential": jnp.exp,
}


class Donor(NamedTuple):
    """A value of the function, or its softmax or sigmoid, which a loss may not compute itself."""

    name: Name
    through: str = ""  # softmax, sigmoid, exp

    def of(self, value: Any) -> Any:
        """The donor from the named value."""
        return _THROUGH[self.through](value)


class Exchange(NamedTuple):
    """One operand of the formula, or one value wherever it is used, for a value of the function."""

    position: int  # of the node in the formula's graph, -1 for everywhere
    place: int  # of the operand
    own: Name  # in the formula's graph
    donor: Donor
    finding: Finding


def exchanges(claimed: Claim, samples: Sequence[Sample]) -> list[Finding]:
    """The exchanges that make a formula right at every sample, the first of several alike."""
    right: list[set[Finding]] = []
    for sample in samples:
        candidates, run = _program(claimed, sample.choice)
        if not candidates:
            return []
        selections = np.eye(len(candidates))
        leaves = [np.asarray(leaf) for leaf in run(selections, *sample.flat)]
        true = [np.asarray(leaf) for leaf in _true(claimed, sample.choice)(*sample.flat)]
        right.append(
            {
                exchange.finding
                for row, exchange in enumerate(candidates)
                if all(map(same, [leaf[:, row] for leaf in leaves], true))
            }
        )
    ordered = [exchange.finding for exchange in _program(claimed, samples[0].choice)[0]]
    return [finding for finding in ordered if all(finding in found for found in right)][:1]


@lru_cache(maxsize=8)
def _program(claimed: Claim, choice: int) -> tuple[list[Exchange], Any]:
    sizes = sampling.diagnosis_sizes(claimed, choice)
    one = one_trial(claimed, sizes)
    formula = trace(claimed.evaluate, one)
    function = trace(lambda inputs: call(claimed.of, inputs), one)
    rng = np.random.default_rng(0)
    trials = jax.tree.leaves(draw(dict(claimed.inputs), sizes, 4, rng, spreads=(1.0,)))
    anatomy = Anatomy(function, sampling.input_names(one), active_inputs(claimed), trials)
    candidates = list(_candidates(formula, anatomy, trials))
    donors = sorted({exchange.donor for exchange in candidates})
    wanted = function._replace(outputs=tuple(donor.name for donor in donors))

    def exchanged(selection: Array, *flat: Any) -> list[Any]:
        values = evaluate(wanted, flat)
        given = {donor: donor.of(v) for donor, v in zip(donors, values, strict=True)}
        return _evaluate(formula, candidates, selection, given, flat)

    over = jax.vmap(exchanged, in_axes=(0, *[None] * len(formula.inputs)))
    over_trials = jax.vmap(over, in_axes=(None, *[0] * len(formula.inputs)))
    return candidates, jit(over_trials)


@lru_cache(maxsize=8)
def _true(claimed: Claim, choice: int) -> Any:
    structure = jax.tree.structure(one_trial(claimed, sampling.diagnosis_sizes(claimed, choice)))

    def true(*flat: Any) -> list[Any]:
        return jax.tree.leaves(reference(claimed)(jax.tree.unflatten(structure, flat)))

    return jit(jax.vmap(true))


def _candidates(
    formula: Graph, function: Anatomy, trials: Sequence[np.ndarray]
) -> Iterator[Exchange]:
    """Operands that are a value of the function, and the function's other values of their shape."""
    own = every_value(formula, trials)
    donors: dict[Donor, np.ndarray] = {}
    exponentials = any(node.primitive.name == "exp" for node in function.graph.nodes)
    for through in _THROUGH if exponentials else ("",):
        for name in function.significant():
            donor = Donor(name, through)
            value = np.asarray(donor.of(function.values[name]))
            if np.isfinite(value).all() and not any(same(value, v) for v in donors.values()):
                donors[donor] = value

    def called(donor: Donor) -> str:
        plain = function.called(donor.name)
        return f"the {donor.through} of {plain}" if donor.through else plain

    uses: dict[Name, list[tuple[int, int, str]]] = {}
    for position, node in enumerate(formula.nodes):
        for place, name in enumerate(node.operands):
            uses.setdefault(name, []).append((position, place, node.where))
    for name, where in uses.items():
        value = own.get(name)
        floating = jnp.issubdtype(formula.shapes[name].dtype, jnp.floating)
        known = [d for d, v in donors.items() if floating and value is not None and same(value, v)]
        if value is None or not known:
            continue
        for donor, instead in donors.items():
            if instead.shape != value.shape or same(value, instead):
                continue
            # h where z belongs is the argument of sigma', z where h belongs is not.
            its_own_value = not donor.through and function.roots[known[0].name] == donor.name
            code = "activation_derivative_wrong_argument" if its_own_value else "wrong_value"
            detail = f"has {called(known[0])} where {called(donor)} belongs"
            spots = [(-1, -1, where[0][2]), *(where if len(where) > 1 else ())]
            for position, place, line in spots:
                finding = Finding(code, line, f"{line} {detail}")
                yield Exchange(position, place, name, donor, finding)


def _evaluate(
    formula: Graph,
    candidates: Sequence[Exchange],
    selection: Array,
    given: dict[Donor, Any],
    flat: Sequence[Any],
) -> list[Any]:
    values = {**formula.constants, **dict(zip(formula.inputs, flat, strict=True))}

    def operand(name: Name, position: int, place: int) -> Any:
        value = values[name]
        for row, exchange in enumerate(candidates):
            everywhere = exchange.position == -1
            if exchange.own == name and (
                everywhere or (exchange.position, exchange.place) == (position, place)
            ):
                value = value + selection[row] * (given[exchange.donor] - values[name])
        return value

    for position, node in enumerate(formula.nodes):
        operands = [operand(name, position, place) for place, name in enumerate(node.operands)]
        values.update(zip(node.results, apply(node, operands), strict=True))
    return [values[name] for name in formula.outputs]
