"""Derivatives of a function, each with a mistake in the backward pass.

The function's graph is evaluated unchanged, but with knobs. A knob at zero does nothing; a turned
knob keeps all values and changes a derivative: the derivative is dropped, negated, or taken at a
wrong argument. All mistakes are thus one program, mapped over the settings of the knobs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.types import Array
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, word, words
from jaxnn.verify.graph import Name, Node, apply, evaluate
from jaxnn.verify.verdict import Finding

CROSS_ENTROPY_GRADIENT = "the gradient by the logits is taken for the cross-entropy's, p - y"

_LINEAR = words("neg convert_element_type copy add sub")
_ARITHMETIC = _LINEAR | words(
    "mul stop_gradient broadcast_in_dim reshape squeeze transpose expand_dims log exp integer_pow "
    "square sqrt div pow abs"
)
"""Arithmetic, powers, logarithms and exponentials: a chain of only operations is no activation."""

_STRUCTURAL = words(
    "broadcast_in_dim reshape squeeze transpose expand_dims convert_element_type copy slice "
    "stop_gradient concatenate"
)

Known = dict[Any, Any]

Change = Callable[[Known, Known], Any]
"""(All values as constants, the values so far) -> an addend: zero, with a derivative."""

Place = Name | tuple[int, int]
"""A value, or an operand: (position of the node, place of the operand)."""


class Mistake(NamedTuple):
    """A mistake, and the setting of the knob that makes the mistake."""

    finding: Finding
    knob: int
    setting: float


class Knob(NamedTuple):
    """Changes of derivatives, in proportion to a setting."""

    mistakes: Sequence[tuple[Finding, float]]  # (mistake, setting)
    changes: Sequence[tuple[Place, Change]]


def _knob(code: str, where: str, detail: str, *changes: tuple[Place, Change]) -> Knob:
    """A knob for one mistake."""
    return Knob([(Finding(code, where, detail), 1.0)], changes)


class Ablation:
    """A graph with a knob for every mistake in differentiation that has a code.

    Further knobs drop, negate, double and halve the derivatives of single operations.
    """

    def __init__(self, evaluated: EvaluatedGraph):
        """Places the knobs."""
        self.graph = evaluated.graph
        self.mistakes: list[Mistake] = []
        self.knobs = 0
        self._changes: dict[Place, list[tuple[int, Change]]] = {}
        for knob in _knobs(evaluated):
            self.mistakes += [Mistake(f, self.knobs, setting) for f, setting in knob.mistakes]
            for place, change in knob.changes:
                self._changes.setdefault(place, []).append((self.knobs, change))
            self.knobs += 1

    def evaluate(self, settings: Array, arguments: Sequence[Any]) -> list[Any]:
        """The graph's outputs, with derivatives changed by the settings of the knobs."""
        names = tuple(self.graph.shapes)
        values = evaluate(self.graph._replace(outputs=names), arguments)
        fixed = dict(zip(names, map(jax.lax.stop_gradient, values), strict=True))
        live: Known = dict(self.graph.constants)

        def turned(place: Place, value: Any) -> Any:
            live[place] = value
            for knob, change in self._changes.get(place, ()):
                live[place] = live[place] + settings[knob] * change(fixed, live)
            return live[place]

        for name, value in zip(self.graph.inputs, arguments, strict=True):
            turned(name, value)
        for position, node in enumerate(self.graph.nodes):
            operands = [turned((position, i), live[name]) for i, name in enumerate(node.operands)]
            for name, value in zip(node.results, apply(node, operands), strict=True):
                turned(name, value)
        return [live[name] for name in self.graph.outputs]


def _knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    yield from _softmax_knobs(evaluated)
    for position, node in enumerate(evaluated.graph.nodes):
        if any(name in evaluated.active for name in node.results):
            yield from _operand_knobs(evaluated, position, node)
            if node.where:  # of the user's code
                yield from _activation_knobs(evaluated, node)
                yield from _factor_knobs(evaluated, node)


def _replacing(before: Name, after: Name, derivative: Callable[[Known, Any], Any]) -> Change:
    """The differential of ``after`` becomes ``derivative(values, differential of before)``."""

    def change(fixed: Known, live: Known) -> Any:
        instead = derivative(fixed, live[before] - fixed[before])
        return instead - (live[after] - fixed[after])

    return change


def _scaling(name: Name, factor: Callable[[Known], Any]) -> Change:
    """The derivatives by a value are multiplied by a factor."""
    return lambda fixed, live: _tame(factor(fixed) - 1) * (live[name] - fixed[name])


def _tame(slope: Any) -> Any:
    """The slope; where not finite an odd number, which spoils and imitates no derivative."""
    return jnp.where(jnp.isfinite(slope), slope, 0.7390851332)


def _operand_knobs(evaluated: EvaluatedGraph, position: int, node: Node) -> Iterator[Knob]:
    """Derivatives by single operands dropped, negated, doubled or halved."""
    where = evaluated.where(node)
    for place, name in enumerate(node.operands):
        if name not in evaluated.active or node.primitive.name in _STRUCTURAL:
            continue
        subject = f"the derivative of the {word(node)} by {evaluated.described(name)}"
        dropped = Finding("unknown", where, f"{subject} is taken for constant")
        if _normalises(evaluated, node, place):
            dropped = Finding("normaliser_constant", where, "the normaliser is held constant")
        mistakes = [
            (dropped, -1.0),
            (Finding("sign", where, f"{subject} has the wrong sign"), -2.0),
            (Finding("factor", where, f"{subject} is doubled"), 1.0),
            (Finding("factor", where, f"{subject} is halved"), -0.5),
        ]
        yield Knob(mistakes, [((position, place), _scaling(name, lambda fixed: 2.0))])


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
    """An elementwise function's derivative missing, or taken at a wrong value."""
    after = node.results[0]
    before = evaluated.roots[after]
    if before is None or before == after or before not in evaluated.active:
        return
    chain = evaluated.chain(after, before)
    linear = all(n.primitive.name in _LINEAR for n in chain)
    if linear or evaluated.shape(before) != evaluated.shape(after):
        return
    where, line = evaluated.where(node), evaluated.line(node)
    for code, detail, slope in _wrong_slopes(evaluated, chain, before, after):
        detail = f"the derivative of the elementwise function in {line} {detail}"
        change = _replacing(before, after, lambda fixed, d, slope=slope: slope(fixed) * d)
        yield _knob(code, where, detail, (after, change))
    if evaluated.is_log_sigmoid(after, before):
        # In a loss of log sigmoid(z) every derivative by z has the factor sigmoid'(z).
        change = _scaling(before, lambda fixed: 2 + 2 * jnp.cosh(fixed[before]))  # 1 / sigmoid'
        detail = f"the derivative of the sigmoid in {line} is missing"
        yield _knob("activation_derivative_missing", where, detail, (before, change))


def _wrong_slopes(
    evaluated: EvaluatedGraph, chain: Sequence[Node], before: Name, after: Name
) -> Iterator[tuple[str, str, Callable[[Known], Any]]]:
    """(Code, detail, slope) of wrong derivatives of an elementwise function."""
    wrong_argument = "activation_derivative_wrong_argument"
    rule = evaluated.derivative_by_value(after, before)
    plain = rule is None and all(node.primitive.name in _ARITHMETIC for node in chain)
    yield "unknown" if plain else "activation_derivative_missing", "is missing", lambda fixed: 1.0
    for other in evaluated.of_equal_shape(after):
        if rule and other != after:
            detail = f"is taken of {evaluated.described(other)} in place of the function's value"
            yield wrong_argument, detail, lambda fixed, other=other: rule(fixed[other])
    for other in evaluated.of_equal_shape(before):
        if not plain and other != before:
            value = "the function's value" if other == after else evaluated.described(other)
            slope = partial(_slope, chain, before, after, other)
            yield wrong_argument, f"is taken at {value} in place of the argument", slope


def _slope(chain: Sequence[Node], before: Name, after: Name, argument: Name, fixed: Known) -> Any:
    """The derivative of a chain of elementwise operations at a wrong argument."""

    def function(argument: Any) -> Any:
        known = {**fixed, before: argument}
        for node in chain:
            results = apply(node, [known[name] for name in node.operands])
            known.update(zip(node.results, results, strict=True))
        return known[after]

    z = jnp.where(fixed[argument] == 0, -1e-300, fixed[argument])  # the slope of ReLU at 0 is 0
    return _tame(jax.jvp(function, (z,), (jnp.ones_like(z),))[1])


def _factor_knobs(evaluated: EvaluatedGraph, node: Node) -> Iterator[Knob]:
    """A product's derivative, multiplied by a wrong value in place of a factor."""
    if node.primitive.name not in ("dot_general", "mul"):
        return
    line = evaluated.line(node)
    for place, (variable, factor) in enumerate([node.operands, node.operands[::-1]]):
        if variable in evaluated.active and evaluated.shape(factor):
            for code, substitute, value in _substitutes(evaluated, factor):
                detail = f"in {line} the derivative is multiplied by {substitute} in place of "
                detail += evaluated.described(factor)
                change = _factor_change(node, place, value)
                yield _knob(code, evaluated.where(node), detail, (node.results[0], change))


def _substitutes(
    evaluated: EvaluatedGraph, factor: Name
) -> Iterator[tuple[str, str, Callable[[Known], Any]]]:
    """(Code, description, value) of the values in place of a factor."""
    shape = evaluated.shape(factor)
    if len(shape) == 2 and shape[0] == shape[1]:
        described = f"the transpose of {evaluated.described(factor)}"
        yield "transpose", described, lambda fixed: jnp.transpose(fixed[factor])
    for other in evaluated.of_equal_shape(factor):
        if other != factor:
            yield "wrong_value", evaluated.described(other), itemgetter(other)


def _factor_change(node: Node, place: int, instead: Callable[[Known], Any]) -> Change:
    """In a product's derivative by the operand at ``place``, a wrong value for the factor."""
    variable, factor = node.operands[place], node.operands[1 - place]

    def change(fixed: Known, live: Known) -> Any:
        pair = [live[variable] - fixed[variable], instead(fixed) - fixed[factor]]
        return apply(node, pair if place == 0 else pair[::-1])[0]

    return change


_FACTORS: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("softmax_jacobian_skipped", "the softmax's Jacobian is left out", lambda p: 1 / p),
    ("diagonal_only", "of the softmax's Jacobian only the diagonal is used", lambda p: 1 - p),
    ("normaliser_constant", "the softmax denominator is held constant", lambda p: 1.0),
)
"""(Code, detail, wrong f): d log p_i = f(p_i) dz_i, for p = softmax(z)."""

_OFF_DIAGONAL: tuple[tuple[str, str, Callable[[Any, Any, int], Any]], ...] = (
    ("wrong_value", "-p_i p_i", lambda p, d, axis: -(p**2) * jnp.sum(d, axis, keepdims=True)),
    ("wrong_value", "-p_j p_j", lambda p, d, axis: -jnp.sum(p**2 * d, axis, keepdims=True)),
    ("sign", "+p_i p_j", lambda p, d, axis: p * jnp.sum(p * d, axis, keepdims=True) - 2 * p**2 * d),
)
"""(Code, wrong entry, the entries' contribution to dp), with d = dz."""


def _softmax_knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    """The Jacobian of a softmax skipped, cut down to the diagonal, or otherwise mistaken."""
    for kind, logits, value, axis in evaluated.softmaxes():
        where = f"softmax, {evaluated.line(evaluated.producer[value])}"
        for code, detail, factor in _FACTORS:
            yield _knob(code, where, detail, *_jacobian_changes(kind, logits, value, axis, factor))
        if kind == "softmax":
            for code, entry, rest in _OFF_DIAGONAL:
                detail = f"the softmax's Jacobian has {entry} off the diagonal, expected -p_i p_j"
                change = _replacing(logits, value, partial(_off_diagonal, value, axis, rest))
                yield _knob(code, where, detail, (value, change))
            for changes in _loss_changes(evaluated, logits, value):
                yield _knob("softmax_jacobian_skipped", where, CROSS_ENTROPY_GRADIENT, *changes)


def _jacobian_changes(
    kind: str, logits: Name, value: Name, axis: int, factor: Callable[[Any], Any]
) -> list[tuple[Place, Change]]:
    """d log p_i = f(p_i) dz_i, in a softmax, a log-softmax or a log-sum-exp."""

    def derivative(fixed: Known, d: Any) -> Any:
        v = fixed[value]
        return _tame(v * factor(v) if kind == "softmax" else factor(jnp.exp(v))) * d

    if kind != "log_sum_exp":
        return [(value, _replacing(logits, value, derivative))]
    # With log sum e^z held constant, the derivative by z_i is the derivative by log p_i.
    scale = _scaling(logits, lambda fixed: factor(jax.nn.softmax(fixed[logits], axis)))
    return [(logits, scale), (value, _scaling(value, lambda fixed: 0.0))]


def _off_diagonal(p: Name, axis: int, rest: Callable[..., Any], fixed: Known, d: Any) -> Any:
    return fixed[p] * d + rest(fixed[p], d, axis)


def _loss_changes(
    evaluated: EvaluatedGraph, logits: Name, p: Name
) -> Iterator[list[tuple[Place, Change]]]:
    """The gradient of any loss by the logits becomes p - y, for every input y of p's shape."""
    uncut = "uncut", logits  # the logits with the derivative that ``cut`` removes

    def cut(fixed: Known, live: Known) -> Any:
        live[uncut] = live[logits]
        return fixed[logits] - live[logits]

    def loss(y: Name) -> Change:
        return lambda fixed, live: jnp.sum((fixed[p] - fixed[y]) * (live[uncut] - fixed[logits]))

    (output, *others) = evaluated.graph.outputs
    for y in evaluated.graph.inputs if not others and evaluated.shape(output) == () else ():
        if evaluated.shape(y) == evaluated.shape(p) and y != logits:
            yield [(logits, cut), (output, loss(y))]
