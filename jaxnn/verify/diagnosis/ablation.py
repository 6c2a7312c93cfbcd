"""Derivatives of a function, each with one mistake in the backward pass.

The function's graph is evaluated unchanged, but with knobs. A knob at zero does nothing; a turned
knob keeps all values and changes one derivative: the derivative is dropped, negated, or taken at a
wrong argument. All mistakes are thus one program, mapped over the settings of the knobs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.types import Array
from jaxnn.verify.diagnosis.evaluated_graph import (
    ARITHMETIC,
    ELEMENTWISE,
    LINEAR,
    STRUCTURAL,
    EvaluatedGraph,
    exp,
    log_sum_exp_axis,
    sums_to_one,
    word,
)
from jaxnn.verify.graph import Name, Node, apply, evaluate

CROSS_ENTROPY_GRADIENT = (
    "the gradient by the logits is taken for p - y, which is the cross-entropy's"
)

Known = dict[Any, Any]

Change = Callable[[Known, Known], Any]
"""(All values as constants, the values so far) -> an addend: zero, with a derivative."""

Place = Name | tuple[int, int]
"""A value, or one operand: (position of the node, place of the operand)."""


class Mistake(NamedTuple):
    """A knob's setting, and what is then wrong."""

    code: str
    where: str
    detail: str
    knob: int
    setting: float


class Knob(NamedTuple):
    """Changes of derivatives, in proportion to a setting."""

    mistakes: Sequence[tuple[str, str, str, float]]  # (code, where, detail, setting)
    changes: Sequence[tuple[Place, Change]]


def _knob(code: str, where: str, detail: str, *changes: tuple[Place, Change]) -> Knob:
    """A knob for one mistake."""
    return Knob([(code, where, detail, 1.0)], changes)


class Ablation:
    """A graph with a knob for every mistake in differentiating the graph that has a code.

    Knobs also drop, negate, double and halve the derivatives of single operations.
    """

    def __init__(self, evaluated: EvaluatedGraph):
        """Places the knobs.

        Args:
          evaluated: the graph; its values say what each operation computes.
        """
        self.graph = evaluated.graph
        self.mistakes: list[Mistake] = []
        self.knobs = 0
        self._changes: dict[Place, list[tuple[int, Change]]] = {}
        for knob in _knobs(evaluated):
            for code, where, detail, setting in knob.mistakes:
                self.mistakes.append(Mistake(code, where, detail, self.knobs, setting))
            for place, change in knob.changes:
                self._changes.setdefault(place, []).append((self.knobs, change))
            self.knobs += 1

    def evaluate(self, settings: Array, arguments: Sequence[Any]) -> list[Any]:
        """The graph's outputs, with derivatives changed by the settings of the knobs."""
        names = tuple(self.graph.shapes)
        values = evaluate(self.graph._replace(outputs=names), arguments)
        fixed = dict(zip(names, map(jax.lax.stop_gradient, values), strict=True))
        live = {**self.graph.constants, **dict(zip(self.graph.inputs, arguments, strict=True))}

        def operand(place: Place, name: Name) -> Any:
            value = live[name]
            for knob, change in self._changes.get(place, ()):
                value = value + settings[knob] * change(fixed, live)
            return value

        def turn(name: Name) -> None:
            for knob, change in self._changes.get(name, ()):
                live[name] = live[name] + settings[knob] * change(fixed, live)

        for name in self.graph.inputs:
            turn(name)
        for position, node in enumerate(self.graph.nodes):
            operands = [operand((position, i), name) for i, name in enumerate(node.operands)]
            live.update(zip(node.results, apply(node, operands), strict=True))
            for name in node.results:
                turn(name)
        return [live[name] for name in self.graph.outputs]


def _knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    yield from _softmax_knobs(evaluated)
    yield from _log_sum_exp_knobs(evaluated)
    for position, node in enumerate(evaluated.graph.nodes):
        if any(name in evaluated.active for name in node.results):
            yield from _operand_knobs(evaluated, position, node)
            if node.where:  # of the user's code
                yield from _activation_knobs(evaluated, node)
                yield from _factor_knobs(evaluated, node)


def _replacing(before: Name, after: Name, derivative: Callable[[Known, Any], Any]) -> Change:
    """A change that replaces the derivative of one value by another value.

    Args:
      before: the variable.
      after: the function of ``before``.
      derivative: (all values, the differential of ``before``) -> the differential of ``after``.
    """

    def change(fixed: Known, live: Known) -> Any:
        instead = derivative(fixed, live[before] - fixed[before])
        return instead - (live[after] - fixed[after])

    return change


def _doubling(name: Name) -> Change:
    """A change that doubles the derivatives by a value."""
    return lambda fixed, live: live[name] - fixed[name]


def _scaling(name: Name, factor: Callable[[Known], Any]) -> Change:
    """A change that multiplies the derivatives by a value by a factor."""
    return lambda fixed, live: _tame(factor(fixed) - 1) * (live[name] - fixed[name])


def _tame(slope: Any) -> Any:
    """The slope, with an odd number where the slope is not finite.

    A number that is not finite would spoil the derivatives of all other knobs; a zero would look
    like a dropped derivative.
    """
    return jnp.where(jnp.isfinite(slope), slope, 0.7390851332)


def _operand_knobs(evaluated: EvaluatedGraph, position: int, node: Node) -> Iterator[Knob]:
    """Derivatives by single operands dropped, negated, doubled or halved."""
    if node.primitive.name in STRUCTURAL:
        return
    where = f"{word(node)}, {evaluated.line(node)}"
    for place, name in enumerate(node.operands):
        if name in evaluated.active:
            subject = f"the derivative of the {word(node)} by {evaluated.described(name)}"
            dropped = ("unknown", where, f"{subject} is taken for constant", -1.0)
            if _normalises(evaluated, node, place):
                dropped = ("normaliser_constant", where, "the normaliser is held constant", -1.0)
            scaled = [
                ("sign", where, f"{subject} has the wrong sign", -2.0),
                ("factor", where, f"{subject} is doubled", 1.0),
                ("factor", where, f"{subject} is halved", -0.5),
            ]
            yield Knob([dropped, *scaled], [((position, place), _doubling(name))])


def _normalises(evaluated: EvaluatedGraph, node: Node, place: int) -> bool:
    """Whether an operand is a sum of exponentials, or a sum by which the node divides."""
    summand, applied = evaluated.sum_within(node.operands[place])
    operation = node.primitive.name
    divides = (
        (operation == "div" and place == 1)
        or (operation == "integer_pow" and node.params.get("y", 1) < 0)
        or operation in ("pow", "rsqrt")
        or "pow" in applied
    )
    return summand == "exp" or (summand is not None and divides)


def _activation_knobs(evaluated: EvaluatedGraph, node: Node) -> Iterator[Knob]:
    """An elementwise function's derivative missing, or taken of another value."""
    after = node.results[0]
    before = evaluated.roots.get(after)
    if node.primitive.name not in ELEMENTWISE or before in (None, after):
        return
    chain = evaluated.chain(after, before)
    linear = all(n.primitive.name in LINEAR for n in chain)
    if before not in evaluated.active or linear:
        return
    if evaluated.shape(before) != evaluated.shape(after):
        return
    line = evaluated.line(node)
    where = f"{word(node)}, {line}"
    derivative = f"the derivative of the elementwise function in {line}"
    missing, wrong = "activation_derivative_missing", "activation_derivative_wrong_argument"
    arithmetic = all(n.primitive.name in ARITHMETIC for n in chain)
    plain = arithmetic and not evaluated.is_sigmoid(after, before)

    def knob(code: str, detail: str, slope: Callable[[Known], Any]) -> Knob:
        change = _replacing(before, after, lambda fixed, d: slope(fixed) * d)
        return _knob(code, where, detail, (after, change))

    yield knob("unknown" if plain else missing, f"{derivative} is missing", lambda fixed: 1.0)
    if evaluated.is_log_sigmoid(after, before):
        # In a loss of log sigmoid(z) every derivative by z has the factor sigmoid'(z).
        detail = f"the derivative of the sigmoid in {line} is missing"
        change = _scaling(before, lambda fixed: 1 / _sigmoid_slope(fixed[before]))
        yield _knob(missing, where, detail, (before, change))
    rule = evaluated.derivative_by_value(after, before)
    for other in evaluated.of_equal_shape(after) if rule else ():
        if rule and other != after:
            detail = f"{derivative}, a function of its value, is taken of"
            detail += f" {evaluated.described(other)}"
            yield knob(wrong, detail, lambda fixed, other=other: rule(fixed[other]))
    for other in () if plain else evaluated.of_equal_shape(before):
        if other != before:
            own_value = "its own value rather than its argument"
            argument = own_value if other == after else evaluated.described(other)
            slope = partial(_chain_slope, chain, before, after, other)
            yield knob(wrong, f"{derivative} is taken at {argument}", slope)


def _sigmoid_slope(z: Any) -> Any:
    h = jax.nn.sigmoid(z)
    return h * (1 - h)


def _chain_slope(
    chain: Sequence[Node], before: Name, after: Name, argument: Name, fixed: Known
) -> Any:
    """The derivative of a chain of elementwise operations at another argument."""

    def function(argument: Any) -> Any:
        known = {**fixed, before: argument}
        for node in chain:
            results = apply(node, [known[n] for n in node.operands])
            known.update(zip(node.results, results, strict=True))
        return known[after]

    z = jnp.where(fixed[argument] == 0, -1e-300, fixed[argument])  # the slope of ReLU at 0 is 0
    return _tame(jax.jvp(function, (z,), (jnp.ones_like(z),))[1])


def _factor_knobs(evaluated: EvaluatedGraph, node: Node) -> Iterator[Knob]:
    """A product's derivative, multiplied by another value in place of the other factor."""
    if node.primitive.name not in ("dot_general", "mul"):
        return
    line = evaluated.line(node)
    for place in (0, 1):
        factor = node.operands[1 - place]
        shape = evaluated.shape(factor)
        if node.operands[place] not in evaluated.active or not shape:
            continue
        described = evaluated.described(factor)
        substitutes: list[tuple[str, str, Callable[[Known], Any]]] = [
            ("wrong_value", evaluated.described(other), itemgetter(other))
            for other in evaluated.of_equal_shape(factor)
            if other != factor
        ]
        if len(shape) == 2 and shape[0] == shape[1]:
            transposed = _transposed(factor)
            substitutes.insert(0, ("transpose", f"the transpose of {described}", transposed))
        for code, substitute, value in substitutes:
            detail = (
                f"in {line} the derivative is multiplied by {substitute} in place of {described}"
            )
            change = _factor_change(node, place, value)
            where = f"{word(node)}, {line}"
            yield _knob(code, where, detail, (node.results[0], change))


def _transposed(name: Name) -> Callable[[Known], Any]:
    return lambda fixed: jnp.transpose(fixed[name])


def _factor_change(node: Node, place: int, instead: Callable[[Known], Any]) -> Change:
    """A change of the derivative by one factor of a product.

    Args:
      node: the product.
      place: of the factor by which the derivative is taken.
      instead: the value in place of the other factor.
    """
    variable, factor = node.operands[place], node.operands[1 - place]

    def change(fixed: Known, live: Known) -> Any:
        pair = [live[variable] - fixed[variable], instead(fixed) - fixed[factor]]
        return apply(node, pair if place == 0 else pair[::-1])[0]

    return change


_FACTORS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("softmax_jacobian_skipped", "the softmax's Jacobian is left out", lambda p: 1 / p),
    (
        "diagonal_only",
        "of the softmax's Jacobian only the diagonal p (1 - p) is used",
        lambda p: 1 - p,
    ),
    ("normaliser_constant", "the softmax denominator is held constant", lambda p: 1.0),
)
"""(Code, detail, wrong f): d log p_i = f(p_i) dz_i, for p = softmax(z)."""

_OFF_DIAGONAL: tuple[tuple[str, str, Callable[[Any, Any, int], Any]], ...] = (
    ("wrong_value", "-p_i p_i", lambda p, d, axis: -(p**2) * jnp.sum(d, axis, keepdims=True)),
    ("wrong_value", "-p_j p_j", lambda p, d, axis: -jnp.sum(p**2 * d, axis, keepdims=True)),
    ("sign", "+p_i p_j", lambda p, d, axis: p * jnp.sum(p * d, axis, keepdims=True) - 2 * p**2 * d),
)
"""(Code, wrong entry, the entries' contribution to dp, with d = dz)."""


def _softmax_knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    """The Jacobian of a softmax, or of its logarithm, skipped, diagonal or otherwise mistaken."""
    for name in sorted(evaluated.active & evaluated.producer.keys()):
        value = evaluated.values[name]
        for axis, log in product(range(1, value.ndim), (False, True)):
            p = exp(value) if log else value
            if value.shape[axis] > 1 and sums_to_one(p, axis):
                logits = evaluated.logits(name, p, axis)
                if logits is not None:
                    yield from _jacobian_knobs(evaluated, logits, name, axis - 1, log)


def _jacobian_knobs(
    evaluated: EvaluatedGraph, logits: Name, after: Name, axis: int, log: bool
) -> Iterator[Knob]:
    """Mistakes in the Jacobian of p = softmax(z), or of log p."""
    where = f"softmax, {evaluated.line(evaluated.producer[after])}"

    def knob(code: str, detail: str, derivative: Callable[[Any, Any], Any]) -> Knob:
        change = _replacing(logits, after, lambda fixed, d: derivative(fixed[after], d))
        return _knob(code, where, detail, (after, change))

    for code, detail, factor in _FACTORS:
        if log:
            yield knob(code, detail, lambda v, d, f=factor: _tame(f(jnp.exp(v))) * d)
        else:
            yield knob(code, detail, lambda p, d, f=factor: _tame(p * f(p)) * d)
    if log:
        return
    for code, entry, rest in _OFF_DIAGONAL:
        detail = f"off the diagonal the softmax's Jacobian has {entry} where -p_i p_j belongs"
        yield knob(code, detail, lambda p, d, rest=rest: p * d + rest(p, d, axis))
    if [evaluated.shape(name) for name in evaluated.graph.outputs] == [()]:
        for target in evaluated.graph.inputs:
            if evaluated.shape(target) == evaluated.shape(after) and target != logits:
                changes = _loss_changes(evaluated.graph.outputs[0], logits, after, target)
                yield _knob("softmax_jacobian_skipped", where, CROSS_ENTROPY_GRADIENT, *changes)


def _loss_changes(loss: Name, logits: Name, p: Name, target: Name) -> list[tuple[Place, Change]]:
    """The gradient of any loss by the logits becomes p - y."""
    uncut = "uncut", logits  # the logits before their derivative is cut off

    def cut(fixed: Known, live: Known) -> Any:
        live[uncut] = live[logits]
        return fixed[logits] - live[logits]

    def add(fixed: Known, live: Known) -> Any:
        return jnp.sum((fixed[p] - fixed[target]) * (live[uncut] - fixed[logits]))

    return [(logits, cut), (loss, add)]


def _log_sum_exp_knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    """Mistakes in the Jacobian of a softmax whose logarithm is z_i - log sum_j e^z_j.

    With the log-sum-exp held constant, the derivative by z_i is the derivative by log p_i.
    """
    active = sorted(evaluated.active)
    for total in active:
        node = evaluated.producer.get(total)
        if node is None or node.primitive.name not in ("log", "add"):
            continue
        for logits in (name for name in active if name < total):
            axis = log_sum_exp_axis(evaluated.values[logits], evaluated.values[total])
            if axis is not None:
                yield from _log_probability_knobs(evaluated, logits, total, axis - 1)
                break


def _log_probability_knobs(
    evaluated: EvaluatedGraph, logits: Name, total: Name, axis: int
) -> Iterator[Knob]:
    where = f"softmax, {evaluated.line(evaluated.producer[total])}"

    def constant(fixed: Known, live: Known) -> Any:
        return fixed[total] - live[total]

    for code, detail, factor in _FACTORS:
        scale = _scaling(logits, lambda fixed, f=factor: f(jax.nn.softmax(fixed[logits], axis)))
        yield _knob(code, where, detail, (logits, scale), (total, constant))
