"""Derivatives of a function, each with a mistake in the backward pass.

The function's graph is evaluated unchanged, but with knobs. A knob at zero does nothing; a turned
knob keeps all values and changes a derivative: the derivative is dropped, negated, or taken at a
wrong argument. All mistakes are thus one program, mapped over the settings of the knobs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value, word, words
from jaxnn.verify.diagnosis.trials import Leaves, Program
from jaxnn.verify.graph import Graph, Name, Node, Place, apply, evaluate, jit
from jaxnn.verify.reference import reference
from jaxnn.verify.verdict import Finding

CROSS_ENTROPY_GRADIENT = "the gradient by the logits is taken for the cross-entropy's, p - y"

MOST_PAIRS = 2000
_NOT_IN_PAIRS = ("unknown", "factor", "sign", "wrong_value")
"""Coefficients explain factors and signs; two exchanged values explain too much."""

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
"""(Fixed values, the values so far) -> an addend; for a derivative: zero, with a derivative."""


class Mistake(NamedTuple):
    """A mistake, and the setting of the knob that makes the mistake."""

    finding: Finding
    knob: int
    setting: float


Mistakes = tuple[Mistake, ...]
"""Mistakes made at once."""


class Knob(NamedTuple):
    """Changes of values or derivatives, in proportion to a setting."""

    mistakes: Sequence[tuple[Finding, float]]  # (mistake, setting)
    changes: Sequence[tuple[Place, Change]]


def knob(code: str, where: str, detail: str, *changes: tuple[Place, Change]) -> Knob:
    """A knob for one mistake."""
    return Knob([(Finding(code, where, detail), 1.0)], changes)


class Ablation:
    """A graph with knobs, and the graph's derivative compiled for many settings at once."""

    def __init__(
        self,
        graph: Graph,
        knobs: Iterable[Knob],
        fixed: Callable[..., Known],
        derivative: Claim,
        shapes: PyTree,
    ):
        """Places the knobs.

        Args:
          graph: of a function of the inputs.
          knobs: the knobs.
          fixed: from the flat inputs to the fixed values, for the changes.
          derivative: a claim about the derivative; for a claim of kind ``value`` the graph's value.
          shapes: the tree of the inputs of one trial.
        """
        self.mistakes: list[Mistake] = []
        self._changes: dict[Place, list[tuple[int, Change]]] = {}
        self._knobs = 0
        for mistakes, changes in knobs:
            self.mistakes += [Mistake(finding, self._knobs, value) for finding, value in mistakes]
            for place, change in changes:
                self._changes.setdefault(place, []).append((self._knobs, change))
            self._knobs += 1
        self._graph, self._fixed = graph, fixed
        structure = jax.tree.structure(shapes)

        def leaves(settings, *flat):
            def of(inputs: PyTree) -> Any:
                return self._evaluate(settings, jax.tree.leaves(inputs))

            inputs = jax.tree.unflatten(structure, flat)
            return jax.tree.leaves(reference(derivative, of=of)(inputs))

        over_settings = jax.vmap(leaves, in_axes=(0, *[None] * structure.num_leaves))
        over_trials = jax.vmap(over_settings, in_axes=(None, *[0] * structure.num_leaves))
        self._run = jit(over_trials, [graph])

    def _evaluate(self, settings: Any, arguments: Sequence[Any]) -> Any:
        """The graph's value, with changes in proportion to the settings of the knobs."""
        fixed = self._fixed(*arguments)
        live: Known = dict(self._graph.constants)

        def turned(place: Place, value: Any) -> Any:
            live[place] = value
            for number, change in self._changes.get(place, ()):
                live[place] = live[place] + settings[number] * change(fixed, live)
            return live[place]

        outputs = evaluate(self._graph, arguments, turned)
        return outputs[0] if len(outputs) == 1 else outputs

    def leaves(self, flat: Leaves, two: bool = False) -> Iterator[tuple[Mistakes, Leaves]]:
        """The leaves [T, ...] of the derivative with every mistake, or two, at inputs [T, ...]."""
        made: list[Mistakes] = [(mistake,) for mistake in self.mistakes]
        if two:
            named = [m for m in self.mistakes if m.finding.code not in _NOT_IN_PAIRS]
            pairs = (pair for pair in combinations(named, 2) if pair[0].knob != pair[1].knob)
            made = list(pairs)[:MOST_PAIRS]
        rows = len(self.mistakes)
        for start in range(0, len(made), max(1, rows)):
            chunk = made[start : start + rows]
            # Every chunk has equally many rows, and the compiled program serves all chunks.
            settings = np.zeros((rows, self._knobs))
            for row, mistakes in enumerate(chunk):
                for mistake in mistakes:
                    settings[row, mistake.knob] = mistake.setting
            leaves = [np.asarray(leaf) for leaf in self._run(settings, *flat)]
            for row, mistakes in enumerate(chunk):
                yield mistakes, [leaf[:, row] for leaf in leaves]


def backward_mistakes(program: Program, graph: Graph, derivative: Claim) -> Ablation:
    """A graph with a knob for every mistake in differentiation that has a code.

    Further knobs drop, negate, double and halve the derivatives of single operations.
    """

    def fixed(*flat: Any) -> Known:
        return graph.constants | jax.tree.map(jax.lax.stop_gradient, every_value(graph, *flat))

    knobs = _knobs(EvaluatedGraph(program, graph))
    return Ablation(graph, knobs, fixed, derivative, program.shapes)


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
    linear = all(n.primitive.name in _LINEAR for n in chain.nodes)
    if linear or evaluated.shape(before) != evaluated.shape(after):
        return
    where, line = evaluated.where(node), evaluated.line(node)
    for code, detail, slope in _wrong_slopes(evaluated, chain, before, after):
        detail = f"the derivative of the elementwise function in {line} {detail}"
        change = _replacing(before, after, lambda fixed, d, slope=slope: slope(fixed) * d)
        yield knob(code, where, detail, (after, change))
    if evaluated.is_log_sigmoid(after, before):
        # In a loss of log sigmoid(z) every derivative by z has the factor sigmoid'(z).
        change = _scaling(before, lambda fixed: 2 + 2 * jnp.cosh(fixed[before]))  # 1 / sigmoid'
        detail = f"the derivative of the sigmoid in {line} is missing"
        yield knob("activation_derivative_missing", where, detail, (before, change))


def _wrong_slopes(
    evaluated: EvaluatedGraph, chain: Graph, before: Name, after: Name
) -> Iterator[tuple[str, str, Callable[[Known], Any]]]:
    """(Code, detail, slope) of wrong derivatives of an elementwise function."""
    wrong_argument = "activation_derivative_wrong_argument"
    rule = evaluated.derivative_by_value(after, before)
    plain = rule is None and all(node.primitive.name in _ARITHMETIC for node in chain.nodes)
    yield "unknown" if plain else "activation_derivative_missing", "is missing", lambda fixed: 1.0
    for other in evaluated.of_equal_shape(after):
        if rule and other != after:
            detail = f"is taken of {evaluated.described(other)} in place of the function's value"
            yield wrong_argument, detail, lambda fixed, other=other: rule(fixed[other])
    for other in evaluated.of_equal_shape(before):
        if not plain and other != before:
            value = "the function's value" if other == after else evaluated.described(other)
            detail = f"is taken at {value} in place of the argument"
            yield wrong_argument, detail, lambda fixed, other=other: _slope(chain, fixed, other)


def _slope(chain: Graph, fixed: Known, argument: Name) -> Any:
    """The derivative of a chain of elementwise operations at a wrong argument."""
    function = chain._replace(constants=fixed)
    z = jnp.where(fixed[argument] == 0, -1e-300, fixed[argument])  # the slope of ReLU at 0 is 0
    return _tame(jax.jvp(lambda z: evaluate(function, [z])[0], (z,), (jnp.ones_like(z),))[1])


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
                yield knob(code, evaluated.where(node), detail, (node.results[0], change))


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


Jacobian = Callable[[Any, Any, int], Any]
"""(p, dz, axis) -> dp, for p = softmax(z) along an axis."""

_WRONG_JACOBIANS: tuple[tuple[str, str, Jacobian], ...] = (
    ("softmax_jacobian_skipped", "the softmax's Jacobian is left out", lambda p, d, axis: d),
    (
        "diagonal_only",
        "of the softmax's Jacobian only the diagonal is used",
        lambda p, d, axis: p * (1 - p) * d,
    ),
    ("normaliser_constant", "the softmax denominator is held constant", lambda p, d, axis: p * d),
)
_WRONG_OFF_DIAGONAL: tuple[tuple[str, str, Jacobian], ...] = tuple(
    (code, f"the softmax's Jacobian has {entry} off the diagonal, expected -p_i p_j", jacobian)
    for code, entry, jacobian in (
        ("wrong_value", "-p_i p_i", lambda p, d, axis: p * d - p**2 * d.sum(axis, keepdims=True)),
        ("wrong_value", "-p_j p_j", lambda p, d, axis: p * d - (p**2 * d).sum(axis, keepdims=True)),
        (
            "sign",
            "+p_i p_j",
            lambda p, d, axis: p * (1 - 2 * p) * d + p * (p * d).sum(axis, keepdims=True),
        ),
    )
)
"""(Code, detail, wrong Jacobian)."""


def _softmax_knobs(evaluated: EvaluatedGraph) -> Iterator[Knob]:
    """The Jacobian of a softmax skipped, cut down to the diagonal, or otherwise mistaken."""
    outputs = evaluated.graph.outputs
    scalar = [evaluated.shape(output) for output in outputs] == [()]
    for kind, logits, value, axis in evaluated.softmaxes():
        where = f"softmax, {evaluated.line(evaluated.producer[value])}"
        off_diagonal = _WRONG_OFF_DIAGONAL if kind == "softmax" else ()
        for code, detail, jacobian in (*_WRONG_JACOBIANS, *off_diagonal):
            changes = _jacobian_changes(kind, logits, value, axis, jacobian)
            yield knob(code, where, detail, *changes)
        for y in evaluated.graph.inputs if kind == "softmax" else ():
            if scalar and evaluated.shape(y) == evaluated.shape(value) and y != logits:
                changes = _loss_changes(logits, value, y, outputs[0])
                yield knob("softmax_jacobian_skipped", where, CROSS_ENTROPY_GRADIENT, *changes)


def _jacobian_changes(
    kind: str, logits: Name, value: Name, axis: int, jacobian: Jacobian
) -> list[tuple[Place, Change]]:
    """A wrong Jacobian of a softmax, a log-softmax or a log-sum-exp."""

    def derivative(fixed: Known, d: Any) -> Any:
        if kind == "softmax":
            return jacobian(fixed[value], d, axis)
        log = kind == "log_softmax"
        p = jnp.exp(fixed[value]) if log else jax.nn.softmax(fixed[logits], axis)
        return _tame(1 / p) * jacobian(p, d, axis)

    if kind != "log_sum_exp":
        return [(value, _replacing(logits, value, derivative))]
    # With log sum e^z held constant, the derivative by z_i is the derivative by log p_i.
    held = _scaling(value, lambda fixed: 0.0)
    return [(logits, _replacing(logits, logits, derivative)), (value, held)]


def _loss_changes(logits: Name, p: Name, y: Name, loss: Name) -> list[tuple[Place, Change]]:
    """The gradient of any loss by the logits becomes p - y."""
    uncut = "uncut", logits  # the logits with the derivative that ``cut`` removes

    def cut(fixed: Known, live: Known) -> Any:
        live[uncut] = live[logits]
        return fixed[logits] - live[logits]

    def instead(fixed: Known, live: Known) -> Any:
        return jnp.sum((fixed[p] - fixed[y]) * (live[uncut] - fixed[logits]))

    return [(logits, cut), (loss, instead)]
