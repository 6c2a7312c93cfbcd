"""Derivatives of a function, each with a mistake in the backward pass.

The function's graph is evaluated unchanged, but with knobs. A knob at zero does nothing; a turned
knob keeps all values and changes a derivative: the derivative is dropped, negated, or taken at a
wrong argument. All mistakes are thus one program, mapped over the settings of the knobs.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import copy
from itertools import chain, combinations, islice
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import reference
from jaxnn.verify.diagnosis.evaluated_graph import EvaluatedGraph, every_value, word, words
from jaxnn.verify.diagnosis.trials import TOLERANCE, Leaves, Program
from jaxnn.verify.graph import Graph, Name, Node, Place, Unsupported, apply, evaluate, jit
from jaxnn.verify.verdict import Finding

CROSS_ENTROPY_GRADIENT = "the gradient by the logits is taken for the cross-entropy's, p - y"

MOST_KNOBS = 2000
"""The most mistakes of a graph; every mistake is a part of the compiled program."""

MOST_PAIRS = 2000
_NOT_IN_PAIRS = ("unknown", "missing_term", "statistic_constant", "factor", "sign", "wrong_value")
"""Coefficients explain factors and signs; two exchanged values explain too much."""

_NEWTON_STEPS = 12

MOST_PLACES = 5
"""Places of one kind of mistake, of which all sets are tried."""

_PLACE = re.compile(r"line \d+ of (cell \d+|[^ ;,]+)( \(number \d+ there\))?")

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


def slip(finding: Finding) -> tuple[str, str]:
    """The kind of a mistake: the code, and the detail, without the place of a single place."""
    plain, places = _PLACE.subn("", finding.detail)
    return finding.code, " ".join(plain.split()) if places == 1 else finding.detail


def merged(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same slip in several places, or several times on a line, as one finding."""
    kinds: dict[Any, list[Finding]] = {}
    lines: dict[tuple[str, str], Any] = {}
    for finding in dict.fromkeys(findings):
        kind = lines.setdefault((finding.code, finding.where or finding.detail), slip(finding))
        kinds.setdefault(kind, []).append(finding)
    return tuple(map(_one, kinds.values()))


def _one(some: Sequence[Finding]) -> Finding:
    places = list(dict.fromkeys(finding.where for finding in some))
    details = list(dict.fromkeys(slip(finding)[1] for finding in some))
    detail = some[0].detail
    if len(some) > 1:
        detail += f"; the same slip {len(some)} times"
    if len(details) > 1:
        detail += f": {'; '.join(finding.detail for finding in some[1:])}"
    return some[0]._replace(where="; ".join(places), detail=detail)


class Knob(NamedTuple):
    """A mistake: changes of values or derivatives, in proportion to a setting."""

    finding: Finding
    changes: Sequence[tuple[Place, Change]]
    scaled: str = ""  # the derivative that the mistake drops, and that a factor may multiply


def knob(code: str, where: str, detail: str, *changes: tuple[Place, Change]) -> Knob:
    """A knob for a mistake with a code."""
    return Knob(Finding(code, where, detail), changes)


Mistakes = tuple[int, ...]
"""The numbers of the knobs of mistakes made at once."""


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

        Raises:
          Unsupported: too many knobs, as of loops that JAX unrolls.
        """
        self.knobs = list(islice(knobs, MOST_KNOBS + 1))
        if len(self.knobs) > MOST_KNOBS:
            raise Unsupported(f"more than {MOST_KNOBS:,} places for a mistake, too many to try")
        self._changes: dict[Place, list[tuple[int, Change]]] = {}
        for number, turned in enumerate(self.knobs):
            for place, change in turned.changes:
                self._changes.setdefault(place, []).append((number, change))
        self._graph, self._fixed = graph, fixed
        self._derivative, self._structure = derivative, jax.tree.structure(shapes)
        self._run = self._compiled()

    def only(self, numbers: Collection[int]) -> "Ablation":
        """The ablation without the changes of other knobs: a small program."""
        other = copy(self)
        other._changes = {
            place: [(number, change) for number, change in some if number in numbers]
            for place, some in self._changes.items()
        }
        other._run = other._compiled()
        return other

    def _compiled(self) -> jax.stages.Wrapped:
        def leaves(settings, *flat):
            def of(inputs: PyTree) -> Any:
                return self._evaluate(settings, jax.tree.leaves(inputs))

            inputs = jax.tree.unflatten(self._structure, flat)
            return jax.tree.leaves(reference(self._derivative, of=of)(inputs))

        count = self._structure.num_leaves
        over_settings = jax.vmap(leaves, in_axes=(0, *[None] * count))
        over_trials = jax.vmap(over_settings, in_axes=(None, *[0] * count))
        return jit(over_trials, [self._graph])

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

    def mistakes(self, two: bool = False, alike: bool = True) -> list[Mistakes]:
        """Every knob alone, and the same slip in several places; or every pair of knobs."""
        numbers = range(len(self.knobs))
        if not two:
            return [*((number,) for number in numbers), *(self._alike() if alike else ())]
        named = (n for n in numbers if self.knobs[n].finding.code not in _NOT_IN_PAIRS)
        return list(islice(combinations(named, 2), MOST_PAIRS))

    def named(self, mistakes: Mistakes, held: Collection[int] = ()) -> tuple[list[Finding], str]:
        """The findings without those of held knobs; a derivative that a factor may multiply."""
        some = [self.knobs[number] for number in mistakes if number not in held]
        return [knob.finding for knob in some], some[0].scaled if len(some) == 1 else ""

    def leaves(self, flat: Leaves, made: Sequence[Mistakes]) -> Iterator[tuple[Mistakes, Leaves]]:
        """The leaves [T, ...] of the derivative with every choice of mistakes, at inputs [T, ...].

        All chunks of choices have equally many rows, and share a program.
        """
        rows = min(len(made), max(64, len(self.knobs)))
        for start in range(0, len(made), max(1, rows)):
            chunk = made[start : start + rows]
            settings = np.zeros((rows, len(self.knobs)))
            for row, mistakes in enumerate(chunk):
                settings[row, [*mistakes]] = 1.0
            leaves = [np.asarray(leaf) for leaf in self._run(settings, *flat)]
            for row, mistakes in enumerate(chunk):
                yield mistakes, [leaf[:, row] for leaf in leaves]

    def solved(self, flat: Leaves, target: np.ndarray, leaf: int) -> dict[int, float]:
        """The factors 1 + setting of single knobs with which a leaf is [T, ...], by knob."""

        def errors(factors: np.ndarray) -> np.ndarray:
            values = np.asarray(self._run(np.diag(factors - 1), *flat)[leaf])
            return np.moveaxis(values - target[:, None], 1, 0).reshape(len(self.knobs), -1)

        found: dict[int, float] = {}
        # Half and double: numbers that a comparison hides, such as a margin, have no slope.
        for start in (0.0, -1.0, 0.5, 2.0, 1.0) if self.knobs else ():
            factors = np.full(len(self.knobs), start)
            for _ in range(_NEWTON_STEPS if start == 1 else 1):
                error = errors(factors)
                fits = np.linalg.norm(error, axis=1) <= TOLERANCE * np.linalg.norm(target)
                for number in map(int, np.flatnonzero(fits)):
                    found.setdefault(number, float(factors[number]))
                with np.errstate(all="ignore"):
                    change = (errors(factors * (1 + 1e-6)) - error) / 1e-6
                    step = -np.sum(error * change, axis=1) / np.sum(change**2, axis=1)
                step = np.where(np.isfinite(step) & ~fits, np.clip(step, -2.0, 2.0), 0.0)
                factors = factors * np.exp(step)
        return found

    def _alike(self) -> Iterator[Mistakes]:
        """The same slip in several places, each place a knob."""
        kinds: dict[Any, list[int]] = {}
        for number, (finding, *_) in enumerate(self.knobs):
            if finding.code not in _NOT_IN_PAIRS or finding.code == "statistic_constant":
                kind = "held" if finding.code == "statistic_constant" else slip(finding)
                kinds.setdefault(kind, []).append(number)
        for some in kinds.values():
            for size in range(2, len(some) + 1) if len(some) <= MOST_PLACES else (2, len(some)):
                yield from combinations(some, size)


def backward_mistakes(program: Program, graph: Graph, derivative: Claim) -> Ablation:
    """A graph with a knob for every mistake in differentiation that has a code."""

    def fixed(*flat: Any) -> Known:
        return graph.constants | jax.tree.map(jax.lax.stop_gradient, every_value(graph, *flat))

    knobs = _with_loops(islice(_knobs(EvaluatedGraph(program, graph)), 2 * MOST_KNOBS))
    return Ablation(graph, knobs, fixed, derivative, program.shapes)


MANY_KNOBS = 500
"""Knobs of unrolled loops, from which on a slip is in all passes of a loop, or in none."""

_NUMBERED = re.compile(r"(\w+),? (?:of )?(line \d+(?: of [^ ;,()]+)?) \(number (\d+) there\)")
"""An operation, the line, and the number of the operation on the line."""


def _with_loops(knobs: Iterable[Knob]) -> list[Knob]:
    """The knobs, and for a slip in several passes of a loop that JAX unrolls a knob of all passes.

    A place in another pass keeps the distance: the product of pass t with the value of pass t - 1.
    """
    alone = [(turned, _NUMBERED.findall(" ".join(turned.finding[1:]))) for turned in knobs]
    most: dict[str, dict[str, int]] = {}
    for operation, line, number in chain(*(numbers for _, numbers in alone)):
        by_word = most.setdefault(line, {})
        by_word[operation] = max(by_word.get(operation, 0), int(number))
    grouped: dict[Any, list[Knob]] = {}
    for turned, numbers in alone:
        parts = [most[line][word] // math.gcd(*most[line].values()) for word, line, _ in numbers]
        at = [divmod(int(n) - 1, part) for (_, _, n), part in zip(numbers, parts, strict=True)]
        key = tuple((number - at[0][0], part) for number, part in at)
        plain = [re.sub(r" \(number \d+ there\)", "", text) for text in turned.finding]
        grouped.setdefault((Finding(*plain), key), []).append(turned)
    many, found = len(alone) > MANY_KNOBS, list[Knob]()
    for (plain, key), some in grouped.items():
        in_loop = bool(key) and (many or len(some) > 2)
        if not (many and in_loop):
            found += some
        if in_loop and max(abs(distance) for distance, _ in key) < 2:
            changes = [change for turned in some for change in turned.changes]
            detail = f"{plain.detail}, in every pass of the loop"
            found.append(Knob(plain._replace(detail=detail), changes, some[0].scaled))
    return found


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
    """Derivatives by single operands dropped, which a factor may multiply as well."""
    where = evaluated.where(node)
    for name in dict.fromkeys(node.operands):
        if name not in evaluated.active or node.primitive.name in _STRUCTURAL:
            continue
        places = [place for place, other in enumerate(node.operands) if other == name]
        subject = f"the derivative of the {word(node)} by {evaluated.described(name)}"
        dropped = Finding("missing_term", where, f"{subject} is left out")
        if (position, places[0]) in evaluated.statistics:
            code, statistic = evaluated.statistics[position, places[0]]
            dropped = Finding(code, where, f"{statistic} is held constant")
        change = _scaling(name, lambda fixed: 0.0)
        for some in (places, *([place] for place in places if len(places) > 1)):
            changes = [((position, place), change) for place in some]
            yield Knob(dropped, changes, subject)
        result = node.results[0]
        if node.primitive.name in _BRANCHES and evaluated.shape(name) == evaluated.shape(result):
            value, operand = evaluated.described(result), evaluated.described(name)
            change = lambda _, live, n=name, result=result: live[n] - live[result]  # noqa: E731
            detail = f"the formula is as if {value} were {operand}"
            yield knob("missing_term", where, detail, (result, change))


_BRANCHES = words("select_n max min clamp")
"""Operations that choose an operand: a forgotten mask, maximum or clipping."""


def _activation_knobs(evaluated: EvaluatedGraph, node: Node) -> Iterator[Knob]:
    """An elementwise function's derivative missing, or taken at a wrong value."""
    after = node.results[0]
    before = evaluated.roots[after]
    if before is None or before == after or before not in evaluated.active:
        return
    chain = evaluated.chain(after, before)
    linear = all(
        n.primitive.name in _LINEAR
        or (n.primitive.name in ("mul", "div") and n.operands[1] in evaluated.graph.constants)
        or (n.primitive.name == "mul" and n.operands[0] in evaluated.graph.constants)
        for n in chain.nodes
    )
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
        change = _scaling(before, lambda fixed: 1 / (2 + 2 * jnp.cosh(fixed[before])))
        detail = f"the derivative of the sigmoid in {line} is there once too often"
        yield knob("activation_derivative_twice", where, detail, (before, change))


def _wrong_slopes(
    evaluated: EvaluatedGraph, chain: Graph, before: Name, after: Name
) -> Iterator[tuple[str, str, Callable[[Known], Any]]]:
    """(Code, detail, slope) of wrong derivatives of an elementwise function."""
    wrong_argument = "activation_derivative_wrong_argument"
    rule = evaluated.derivative_by_value(after, before)
    plain = rule is None and all(node.primitive.name in _ARITHMETIC for node in chain.nodes)
    yield "missing_term" if plain else "activation_derivative_missing", "is missing", lambda _: 1.0
    if not plain:
        twice = "activation_derivative_twice"
        yield twice, "is taken twice", lambda fixed: _slope(chain, fixed, before) ** 2
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
    """A product's or quotient's derivative, with a wrong value in place of a factor."""
    line, operation = evaluated.line(node), node.primitive.name
    if operation not in ("dot_general", "mul", "div"):
        return
    for place in (0, 1) if operation != "div" else (0,):
        variable, factor = node.operands[place], node.operands[1 - place]
        if variable in evaluated.active and evaluated.shape(factor):
            described = evaluated.described(factor)
            for code, substitute, value in _substitutes(evaluated, factor, operation):
                detail = f"in {line} the derivative is multiplied by {substitute} in place of "
                detail += described
                if not substitute:
                    detail = f"in {line} the factor {described} is forgotten in the derivative"
                change = _factor_change(node, place, value)
                yield knob(code, evaluated.where(node), detail, (node.results[0], change))


def _substitutes(
    evaluated: EvaluatedGraph, factor: Name, operation: str
) -> Iterator[tuple[str, str, Callable[[Known], Any]]]:
    """(Code, description, value) of the values in place of a factor; forgotten: ""."""
    shape, described = evaluated.shape(factor), evaluated.described(factor)
    if operation != "dot_general" and factor not in evaluated.active:
        yield "factor", "", lambda fixed: jnp.ones_like(fixed[factor])
        yield "factor", f"the square of {described}", lambda fixed: fixed[factor] ** 2
        yield "factor", f"1 over {described}", lambda fixed: _tame(1 / fixed[factor])
    if operation == "div":
        return
    if len(shape) == 2 and shape[0] == shape[1]:
        yield (
            "transpose",
            f"the transpose of {described}",
            lambda fixed: jnp.transpose(fixed[factor]),
        )
    for other in evaluated.of_equal_shape(factor):
        if other != factor:
            yield "wrong_value", evaluated.described(other), itemgetter(other)


def _factor_change(node: Node, place: int, instead: Callable[[Known], Any]) -> Change:
    """In a product's derivative by the operand at ``place``, a wrong value for the factor."""
    variable, factor = node.operands[place], node.operands[1 - place]

    def change(fixed: Known, live: Known) -> Any:
        moved = live[variable] - fixed[variable]
        wrong, right = (
            apply(node, [moved, value] if place == 0 else [value, moved])[0]
            for value in (instead(fixed), fixed[factor])
        )
        return wrong - right

    return change


Jacobian = Callable[[Any, Any, int], Any]
"""(p, dz, axis) -> dp, for p = softmax(z) along an axis."""


def _jacobian(p: Any, d: Any, axis: int) -> Any:
    return p * (d - (p * d).sum(axis, keepdims=True))


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
        line = evaluated.line(evaluated.producer[value])
        where = f"softmax, {line}" if line else "softmax"
        off_diagonal = _WRONG_OFF_DIAGONAL if kind == "softmax" else ()
        for code, detail, jacobian in (*_WRONG_JACOBIANS, *off_diagonal):
            changes = _jacobian_changes(kind, logits, value, axis, jacobian)
            yield knob(code, where, detail, *changes)
        for other in range(len(evaluated.shape(value))):
            if other != axis and kind == "softmax":
                detail = f"the sum in the softmax's Jacobian is over axis {other}, expected {axis}"
                changes = _jacobian_changes(kind, logits, value, other, _jacobian)
                yield knob("wrong_axis", where, detail, *changes)
        p = lambda fixed, z=logits, axis=axis: jax.nn.softmax(fixed[z], axis)  # noqa: E731
        change = _scaling(logits, lambda fixed, p=p: p(fixed) * (1 - p(fixed)))
        detail = "the factor p (1 - p) is there once too often"
        yield knob("activation_derivative_twice", where, detail, (logits, change))
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
