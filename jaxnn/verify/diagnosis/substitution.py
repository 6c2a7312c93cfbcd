"""Mistakes in the formula's graph: a value exchanged for another value, a factor not transposed.

A candidate replaces an operand of the formula by a value of the function, such as sigmoid(z) by z;
the candidate that makes the formula right names the mistake.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.verify.claims import Claim, call
from jaxnn.verify.comparison import FormulaError, one_trial, reference, trace_claim
from jaxnn.verify.diagnosis.ablation import Ablation, Change, Knob, Known, knob
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value, words
from jaxnn.verify.diagnosis.factors import recognise
from jaxnn.verify.diagnosis.trials import Program, Sample, same
from jaxnn.verify.graph import Name, Node, Place, Unsupported, apply, build_graph, evaluate
from jaxnn.verify.inputs import draw, symbols
from jaxnn.verify.verdict import Finding

_FUNCTIONS = {
    "": lambda value: value,
    "softmax": jax.nn.softmax,
    "sigmoid": jax.nn.sigmoid,
    "exponential": jnp.exp,
}


class Donor(NamedTuple):
    """A value of ``of``, or of a function that ``of`` may imply: log-sum-exp implies a softmax."""

    name: Name
    function: str = ""

    def of(self, value: Any) -> Any:
        """The donor from the named value."""
        return _FUNCTIONS[self.function](value)

    def described(self, function: EvaluatedGraph) -> str:
        """The donor in words."""
        value = function.described(self.name)
        return f"the {self.function} of {value}" if self.function else value


def exchanges(samples: Sequence[Sample]) -> Iterator[tuple[int, Finding]]:
    """For every set of leaves the first exchange that makes the leaves right at every sample."""
    found = [_right_exchanges(sample) for sample in samples]
    first: dict[frozenset[int], Finding] = {}
    for finding in found[0]:
        leaves = [other.get(finding, frozenset()) for other in found]
        first.setdefault(frozenset.intersection(*leaves), finding)
    yield from ((leaf, finding) for leaves, finding in first.items() for leaf in leaves)


def _right_exchanges(sample: Sample) -> dict[Finding, frozenset[int]]:
    """The leaves that are right after an exchange, if no right leaf becomes wrong."""
    ready = sample.program
    traced = trace_claim(ready.claim, tuple(ready.sizes.items()), both_modes=False)
    formula, _, true, *_ = traced.run(*sample.flat)
    if traced.read is None:
        raise Unsupported("the formula is a black box: no operations are known")

    def right(leaves: Sequence[Any]) -> frozenset[int]:
        pairs = enumerate(zip(leaves, true, strict=True))
        return frozenset(leaf for leaf, pair in pairs if same(*map(np.asarray, pair)))

    before, found = right(formula), {}
    ablation = _exchanged(ready)
    for (number, *_), leaves in ablation.leaves(sample.flat, ablation.mistakes(alike=False)):
        after = right(leaves)
        if before < after:
            found.setdefault(ablation.knobs[number].finding, after - before)
    return found


def other_numbers(samples: Sequence[Sample], leaf: int) -> Iterator[Finding]:
    """Other values of a number in the function with which the function's derivative is a leaf."""
    contexts = [sample.contexts[0] for sample in samples]
    ablations = [_numbers(sample.program) for sample in samples]
    found = [
        ablation.solved(sample.flat, sample.formula[leaf], leaf)
        for ablation, sample in zip(ablations, samples, strict=True)
    ]
    for number in set.intersection(*map(set, found)):
        finding = ablations[0].knobs[number].finding
        old = np.array([float(ablation.knobs[number].finding.detail) for ablation in ablations])
        new = old * [factors[number] for factors in found]
        shown = 0.0 if abs(new[0]) < 1e-4 * abs(old[0]) else new[0]
        code, detail = "fixed_size" if np.ptp(old) else "wrong_constant", f"{shown:.6g}"
        if not np.allclose(new, new[0], rtol=1e-3, atol=1e-4 * abs(old[0])):
            ratio = recognise([*(new / old)], contexts)
            if ratio is None:
                continue
            code, detail = "wrong_constant", f"multiplied by {ratio}"
        detail = f"the formula is as if the number {old[0]:.6g} were {detail}"
        yield finding._replace(code=code, detail=detail)


@lru_cache(maxsize=8)
def _numbers(ready: Program) -> Ablation:
    """The derivative of the function with a knob for every number in a sum or product."""
    graph = build_graph(partial(call, ready.claim.of), ready.shapes)
    function = EvaluatedGraph(ready, graph)

    def knobs() -> Iterator[Knob]:
        for position, node in enumerate(graph.nodes):
            varies = function.roots[node.results[0]] is not None
            for place, name in enumerate(node.operands if varies else ()):
                value = np.asarray(graph.constants.get(name, function.values.get(name, [0.0])[0]))
                number = value.size == 1 and value.dtype.kind == "f" and value.item() != 0
                if number and function.roots[name] is None and node.primitive.name in _WITH_NUMBERS:
                    change = partial(_itself, (position, place))
                    shown = repr(float(value.item()))
                    yield knob("", function.where(node), shown, ((position, place), change))

    return Ablation(graph, knobs(), lambda *flat: {}, ready.derivative, ready.shapes)


_WITH_NUMBERS = words("add sub mul div max min pow")


def _itself(place: Place, fixed: Known, live: Known) -> Any:
    return live[place]


@lru_cache(maxsize=8)
def _exchanged(ready: Program) -> Ablation:
    """The formula with a knob for every exchange."""
    traced = trace_claim(ready.claim, tuple(ready.sizes.items()), both_modes=False)
    program = core.jaxpr_as_fun(traced.read or traced.reverse)
    formula = EvaluatedGraph(ready, build_graph(program, *jax.tree.leaves(ready.shapes)))
    function = EvaluatedGraph(ready, build_graph(partial(call, ready.claim.of), ready.shapes))
    donors = _donors(function)

    def given(*flat: Any) -> Known:
        values = every_value(function.graph, *flat)
        return {donor: donor.of(values[donor.name]) for donor in donors}

    value = replace(ready.claim, kind="value")
    knobs = chain(_knobs(formula, function, donors), _axis_knobs(formula))
    return Ablation(formula.graph, knobs, given, value, ready.shapes)


def _axis_knobs(formula: EvaluatedGraph) -> Iterator[Knob]:
    """Reductions of the formula over another axis: each alone, of a line, of the formula.

    A reduction over all axes, such as of a softmax over all entries of a batch, is over one axis.
    """
    found: dict[tuple[tuple[int, ...], int], dict[str, list[tuple[Place, Change]]]] = {}
    for node in formula.graph.nodes:
        shape = formula.shape(node.operands[0]) if node.operands else ()
        way = _way_back(formula, node) if node.primitive.name in _REDUCTIONS else None
        axes = tuple(node.params["axes"]) if way else ()
        if way is None or len(axes) not in (1, len(shape)):
            continue
        for axis in range(len(shape)) if len(axes) > 1 else {*range(len(shape))} - {*axes}:
            change = partial(_reduced, node, *way, axis)
            lines = found.setdefault((axes, axis), {})
            lines.setdefault(node.where, []).append((way[0], change))
    for (axes, expected), lines in found.items():
        over = f"axis {axes[0]}" if len(axes) == 1 else "all axes"
        everywhere = [change for some in lines.values() for change in some]
        for line, some in (*lines.items(), (", ".join(lines), everywhere)):
            detail = f"{line} has a sum or maximum over {over}, expected over axis {expected}"
            for part in (some, *([one] for one in some if len(some) > 1)):
                yield knob("wrong_axis", line, detail, *part)


_REDUCTIONS = {"reduce_sum": jnp.sum, "reduce_max": jnp.max}
_SHAPED = words("broadcast_in_dim reshape squeeze expand_dims transpose convert_element_type copy")


def _way_back(formula: EvaluatedGraph, node: Node) -> tuple[Place, list[Node]] | None:
    """Where a reduction meets the shape of the reduced array again, and the nodes before."""
    shape, way, (name,) = formula.shape(node.operands[0]), [], node.results
    for position, user in enumerate(formula.graph.nodes):
        if name not in user.operands:
            continue
        (result,) = user.results
        if user.primitive.name == "broadcast_in_dim" and formula.shape(result) == shape:
            return result, way
        if shape in [formula.shape(other) for other in user.operands if other != name]:
            return (position, user.operands.index(name)), way
        if formula.values[result].dtype.kind != "f":
            return None
        way.append(user)
        name = result
    return None


def _reduced(
    node: Node, place: Place, way: Sequence[Node], axis: int, fixed: Known, live: Known
) -> Any:
    """An addend at a place, for a reduction over another axis; a mean has that axis's length."""
    entries = live[node.operands[0]]
    reduced = _REDUCTIONS[node.primitive.name](entries, axis=axis, keepdims=True)
    value, (name,) = jnp.broadcast_to(reduced, entries.shape), node.results
    for user in way:
        if user.primitive.name not in _SHAPED:
            numbers = [
                live[n] if n != name and np.size(live.get(n, entries)) == 1 else value
                for n in user.operands
            ]
            value = apply(user, [jnp.broadcast_to(n, entries.shape) for n in numbers])[0]
            if user.primitive.name == "div":
                length = math.prod(entries.shape[a] for a in node.params["axes"])
                value = value * (length / entries.shape[axis])
        (name,) = user.results
    return value - live[place]


def _knobs(
    formula: EvaluatedGraph, function: EvaluatedGraph, donors: dict[Donor, np.ndarray]
) -> Iterator[Knob]:
    """Every operand that is a value of the function, for every other value of equal shape."""
    uses: dict[Name, list[tuple[Place, str]]] = {}
    for position, node in enumerate(formula.graph.nodes):
        for place, name in enumerate(node.operands):
            uses.setdefault(name, []).append(((position, place), node.where))
    for name in [name for name in uses if name in formula.values]:
        value, places = formula.values[name], uses[name]
        present = next((donor for donor, v in donors.items() if same(value, v)), None)
        if present is None or not jnp.issubdtype(value.dtype, jnp.floating):
            continue
        for donor, instead in donors.items():
            if instead.shape != value.shape or same(value, instead):
                continue
            # sigma'(h) in place of sigma'(z) has a wrong argument; z in place of h is any value.
            is_argument = not donor.function and function.roots[present.name] == donor.name
            code = "activation_derivative_wrong_argument" if is_argument else "wrong_value"
            detail = f"has {present.described(function)} where {donor.described(function)} belongs"
            for some in (places, *([one] for one in places if len(places) > 1)):
                changes, line = [_exchange(donor, place) for place, _ in some], some[0][1]
                yield knob(code, line, f"{line} {detail}", *changes)


def _exchange(donor: Donor, place: Place) -> tuple[Place, Change]:
    return place, lambda fixed, live: fixed[donor] - live[place]


def _donors(function: EvaluatedGraph) -> dict[Donor, np.ndarray]:
    """The distinct values for use in a formula, at a few trials."""
    exponentials = any(node.primitive.name == "exp" for node in function.graph.nodes)
    donors: dict[Donor, np.ndarray] = {}
    for through in _FUNCTIONS if exponentials else ("",):
        for name in function.significant():
            donor = Donor(name, through)
            value = np.asarray(donor.of(function.values[name]))
            if np.isfinite(value).all() and not any(same(value, v) for v in donors.values()):
                donors[donor] = value
    return donors


_SHAPE_ERROR = re.compile(
    r"dot_general|[Ii]ncompatible shapes|broadcast|contracting|matmul|concat|aligned|same shape"
)
"""Words of the messages of JAX, NumPy and PyTorch on shapes."""

_EQUAL = (4, 5)
"""With all sizes equal, the shapes of any formula fit."""


def diagnose_shapes(claim: Claim, error: BaseException, where: str) -> tuple[Finding, ...]:
    """Names the mistake in a formula that fails at distinct sizes.

    Args:
      claim: the claim.
      error: raised by the formula.
      where: the line of the error.

    Returns:
      ``shape``, and ``transpose`` if transposing one or two factors makes the formula right.
      Nothing if the formula fails at equal sizes, too, with an error that does not name shapes.
    """
    text = " ".join(str(error).split())[:200]
    try:
        first, second = (_transpositions(claim, size) for size in _EQUAL)
    except FormulaError:
        if isinstance(error, TypeError | ValueError) and _SHAPE_ERROR.search(text):
            return (Finding("shape", where, f"the shapes do not fit: {text}"),)
        return ()
    shape = Finding("shape", where, f"the shapes fit only if all sizes are equal: {text}")
    both = [places for places in first if places in second]
    fewest = [places for places in both if len(places) == min(map(len, both))]
    if len(fewest) != 1:
        return (shape,)
    places = ", ".join(fewest[0])
    detail = f"the formula is right with the factor transposed in {places}"
    return (shape, Finding("transpose", places, detail))


def _transpositions(claim: Claim, size: int) -> list[tuple[str, ...]]:
    """The lines of products whose factors, transposed, make the formula right."""
    sizes = dict.fromkeys(symbols(claim.inputs), size)
    program = trace_claim(claim, tuple(sizes.items()), both_modes=False).read
    if program is None:
        raise FormulaError
    formula = build_graph(core.jaxpr_as_fun(program), *jax.tree.leaves(one_trial(claim, sizes)))
    drawn = draw(dict(claim.inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    point = jax.tree.map(lambda value: jnp.asarray(value[0]), drawn)
    true = jax.tree.leaves(reference(claim)(point))
    places = [
        (position, place)
        for position, node in enumerate(formula.nodes)
        if node.primitive.name == "dot_general"
        for place, name in enumerate(node.operands)
        if formula.shapes[name].shape == (size, size)
    ]

    def makes_right(chosen: tuple[Place, ...]) -> bool:
        values = evaluate(
            formula,
            jax.tree.leaves(point),
            lambda place, value: jnp.transpose(value) if place in chosen else value,
        )
        return len(values) == len(true) and all(
            a.shape == b.shape and jnp.allclose(a, b, rtol=1e-9, atol=1e-12)
            for a, b in zip(values, true, strict=True)
        )

    chosen = (*combinations(places, 1), *combinations(places, 2))
    right = filter(makes_right, chosen)
    return [tuple(formula.nodes[position].where for position, _ in some) for some in right]
