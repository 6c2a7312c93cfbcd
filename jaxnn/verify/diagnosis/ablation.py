"""Derivatives of the same function, each with one mistake in the backward pass.

The function's graph is evaluated as it is, but every operation also has knobs. A knob at zero does
nothing; turned, it leaves all values alone and changes one derivative: drops it, negates it, takes
it at the wrong argument. All the mistakes are thus one program, mapped over the knobs' settings.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn.types import Array
from jaxnn.verify.diagnosis.anatomy import (
    ELEMENTWISE,
    PLAIN,
    STRUCTURAL,
    Anatomy,
    exp,
    log_sum_exp_axis,
    sums_to_one,
    word,
)
from jaxnn.verify.graph import Name, Node, apply


class Mistake(NamedTuple):
    """What is wrong when a knob is turned."""

    code: str
    where: str
    detail: str
    knob: int
    setting: float


CROSS_ENTROPY_GRADIENT = (
    "the gradient by the logits is taken for p - y, which is the cross-entropy's"
)

Known = dict[Name, Any]

Change = Callable[[Known, Known], Any]
"""(All values without derivatives, those so far with) -> what to add to one; itself worth zero."""


class Ablation:
    """A graph with a knob for every mistake that can be made in differentiating it."""

    def __init__(self, anatomy: Anatomy):
        """Places the knobs in a graph, by the anatomy of it."""
        self.graph = graph = anatomy.graph
        self.mistakes: list[Mistake] = []
        self.knobs = 0
        self._anatomy = anatomy
        self._producer = anatomy.producer
        self._active = anatomy.active
        self._on_operands: dict[tuple[int, int], list[int]] = {}
        self._on_values: dict[Name, list[tuple[int, Change]]] = {}
        self._at_end: list[tuple[int, Change]] = []
        self._replace_softmax()
        self._replace_log_sum_exp()
        for position, node in enumerate(graph.nodes):
            if any(name in self._active for name in node.results):
                self._scale_derivatives(position, node)
                if node.where:  # of the user's own code
                    self._replace_activation(node)
                    self._replace_factors(position, node)

    def evaluate(self, settings: Array, arguments: Sequence[Any]) -> list[Any]:
        """The graph's outputs, whose derivatives are wrong as the settings say."""
        fixed = {**self.graph.constants, **dict(zip(self.graph.inputs, arguments, strict=True))}
        for node in self.graph.nodes:
            results = apply(node, [fixed[name] for name in node.operands])
            fixed.update(zip(node.results, results, strict=True))
        fixed = {name: jax.lax.stop_gradient(value) for name, value in fixed.items()}
        live = {**self.graph.constants, **dict(zip(self.graph.inputs, arguments, strict=True))}

        def change(name: Name, changes: Sequence[tuple[int, Change]]) -> None:
            for knob, added in changes:
                live[name] = live[name] + settings[knob] * added(fixed, live)

        for name in self.graph.inputs:
            change(name, self._on_values.get(name, ()))
        for position, node in enumerate(self.graph.nodes):
            operands = []
            for place, name in enumerate(node.operands):
                value = live[name]
                for knob in self._on_operands.get((position, place), ()):
                    value = value + settings[knob] * (value - fixed[name])
                operands.append(value)
            live.update(zip(node.results, apply(node, operands), strict=True))
            for name in node.results:
                change(name, self._on_values.get(name, ()))
        for knob, added in self._at_end:
            change(self.graph.outputs[0], [(knob, added)])
        return [live[name] for name in self.graph.outputs]

    def _knob(self, code: str, where: str, detail: str, *settings: float) -> int:
        """A new knob, with its mistakes."""
        for setting in settings:
            self.mistakes.append(Mistake(code, where, detail, self.knobs, setting))
        self.knobs += 1
        return self.knobs - 1

    def _scale_derivatives(self, position: int, node: Node) -> None:
        """Derivatives by single operands dropped, negated, doubled or halved."""
        if node.primitive.name in STRUCTURAL:
            return
        for place, name in enumerate(node.operands):
            if name not in self._active:
                continue
            what = f"{word(node)}, {self._anatomy.line(node)}"
            first = self.knobs
            for code, detail, setting in (
                (self._dropped(node, place), "is taken for constant", -1.0),
                ("sign", "has the wrong sign", -2.0),
                ("factor", "is doubled", 1.0),
                ("factor", "is halved", -0.5),
            ):
                subject = f"the derivative of the {word(node)} by {self._called(name)}"
                if code == "normaliser_constant":
                    subject, detail = "the normaliser", "is held constant"
                self.mistakes.append(Mistake(code, what, f"{subject} {detail}", first, setting))
            self.knobs += 1
            self._on_operands.setdefault((position, place), []).append(first)

    def _dropped(self, node: Node, place: int) -> str:
        """The code of a mistake that takes an operand for constant."""
        inside, through = self._anatomy.reduced(node.operands[place])
        if inside is None:
            return "unknown"
        divides = node.primitive.name == "div" and place == 1
        divides |= node.params.get("y", 1) < 0 if node.primitive.name == "integer_pow" else False
        divides |= node.primitive.name in ("pow", "rsqrt") or "pow" in through
        return "normaliser_constant" if inside == "exp" or divides else "unknown"

    def _replace_activation(self, node: Node) -> None:
        """An elementwise function's derivative missing, or taken of another value."""
        if node.primitive.name not in ELEMENTWISE or len(node.results) != 1:
            return
        after = node.results[0]
        before = self._anatomy.roots.get(after)
        if before is None or before == after or before not in self._active:
            return
        chain = self._anatomy.chain(after, before)
        if self._anatomy.shape(before) != self._anatomy.shape(after) or all(
            n.primitive.name in ("neg", "convert_element_type", "copy", "add", "sub") for n in chain
        ):
            return
        plain = all(n.primitive.name in PLAIN for n in chain) and not self._anatomy.is_sigmoid(
            after, before
        )
        line = self._anatomy.line(node)
        where = f"{word(node)}, {line}"

        def along(fixed: Known, argument: Any) -> Any:
            """The chain's derivative at an argument."""
            function = partial(_along, chain, before, after, fixed)
            beside = jnp.where(argument == 0, -1e-300, argument)  # of ReLU at 0 the derivative is 0
            return _tame(jax.jvp(function, (beside,), (jnp.ones_like(argument),))[1])

        def replaced(slope: Callable[[Known], Any]) -> Change:
            """The derivative by the chain's own argument in place of the chain's."""
            return lambda fixed, live: (
                slope(fixed) * (live[before] - fixed[before]) - (live[after] - fixed[after])
            )

        missing = self._knob(
            "unknown" if plain else "activation_derivative_missing",
            where,
            f"the derivative of the elementwise function in {line} is missing",
            1.0,
        )
        self._change(after, missing, replaced(lambda fixed: 1.0))
        if self._anatomy.is_log_sigmoid(after, before):
            forgotten = self._knob(
                "activation_derivative_missing",
                where,
                f"the derivative of the sigmoid in {self._anatomy.line(node)} is missing",
                1.0,
            )

            def without(fixed: Known, live: Known) -> Any:
                """In a loss of log sigmoid(z) every derivative by z has sigmoid' as a factor."""
                h = jax.nn.sigmoid(fixed[before])
                return _tame(1 / (h * (1 - h)) - 1) * (live[before] - fixed[before])

            self._change(before, forgotten, without)
        by_value = self._anatomy.derivative_by_value(after, before)
        if by_value is not None:
            self._replace_derivative_by_value(node, by_value, replaced)
        for other in [] if plain else self._anatomy.alike(before):
            if other == before:
                continue

            def slope(fixed: Known, other: Name = other) -> Any:
                return along(fixed, fixed[other])

            wrong = self._knob(
                "activation_derivative_wrong_argument",
                where,
                f"the derivative of the elementwise function in {line} is taken at "
                f"{self._called(other, after)}",
                1.0,
            )
            self._change(after, wrong, replaced(slope))

    def _replace_derivative_by_value(
        self,
        node: Node,
        rule: Callable[[Any], Any],
        replaced: Callable[[Callable[[Known], Any]], Change],
    ) -> None:
        """sigma' = h (1 - h), or tanh' = 1 - h^2, with another value for h."""
        after, line = node.results[0], self._anatomy.line(node)
        for other in self._anatomy.alike(after):
            if other != after:
                wrong = self._knob(
                    "activation_derivative_wrong_argument",
                    f"{word(node)}, {line}",
                    f"the derivative of the elementwise function in {line}, a function of its "
                    f"value, is taken of {self._called(other)}",
                    1.0,
                )
                self._change(after, wrong, replaced(lambda fixed, o=other: rule(fixed[o])))

    def _replace_factors(self, position: int, node: Node) -> None:
        """A product's derivative with another value of the same shape as the other factor."""
        if node.primitive.name not in ("dot_general", "mul"):
            return
        for place in (0, 1):
            moving, factor = node.operands[place], node.operands[1 - place]
            if moving not in self._active or not self._anatomy.shape(factor):
                continue
            for other, transposed in self._substitutes(factor):
                what = "the transpose of " + self._called(factor) if transposed else ""
                wrong = self._knob(
                    "transpose" if transposed else "wrong_value",
                    f"{word(node)}, {self._anatomy.line(node)}",
                    f"in {self._anatomy.line(node)} the derivative is multiplied by "
                    f"{what or self._called(other)} in place of {self._called(factor)}",
                    1.0,
                )

                def added(fixed, live, moving=moving, factor=factor, other=other,
                          transposed=transposed, place=place):  # fmt: skip
                    instead = jnp.transpose(fixed[factor]) if transposed else fixed[other]
                    pair = [live[moving] - fixed[moving], instead - fixed[factor]]
                    return apply(node, pair if place == 0 else pair[::-1])[0]

                self._change(node.results[0], wrong, added)

    def _substitutes(self, factor: Name) -> Iterator[tuple[Name, bool]]:
        shape = self._anatomy.shape(factor)
        if len(shape) == 2 and shape[0] == shape[1]:
            yield factor, True
        for other in self._anatomy.alike(factor):
            if other != factor:
                yield other, False

    def _replace_softmax(self) -> None:
        """The softmax's Jacobian skipped, cut down to its diagonal, or otherwise mistaken."""
        for name in sorted(self._active):
            value = self._anatomy.values.get(name)
            if value is None or value.ndim < 2 or name in self.graph.inputs:
                continue
            for axis in range(1, value.ndim):
                for table, p in ((_SOFTMAX, value), (_LOG_SOFTMAX, exp(value))):
                    if value.shape[axis] > 1 and sums_to_one(p, axis):
                        logits = self._anatomy.logits(name, p, axis)
                        if logits is not None:
                            self._replace_region(logits, name, axis - 1, table)

    def _replace_log_sum_exp(self) -> None:
        """The same mistakes where the logarithm of the softmax is written z_i - log sum_j e^z_j.

        Held constant, the logarithm leaves what the derivative is by the log-probabilities.
        """
        for name in sorted(self._active):
            value = self._anatomy.values.get(name)
            node = self._producer.get(name)
            if value is None or node is None or node.primitive.name not in ("log", "add"):
                continue
            for before in sorted(self._active):
                z = self._anatomy.values.get(before)
                if before >= name or z is None or z.ndim < 2:
                    continue
                axis = log_sum_exp_axis(z, value)
                if axis is not None:
                    self._replace_log_probabilities(before, name, axis - 1)
                    break

    def _replace_log_probabilities(self, logits: Name, total: Name, axis: int) -> None:
        node = self._producer[total]
        for code, detail, share in (
            ("normaliser_constant", "the softmax denominator is held constant", lambda p: 1.0),
            (
                "diagonal_only",
                "of the softmax's Jacobian only the diagonal p (1 - p) is used",
                lambda p: 1 - p,
            ),
            ("softmax_jacobian_skipped", "the softmax's Jacobian is left out", lambda p: 1 / p),
        ):
            knob = self._knob(code, f"softmax, {self._anatomy.line(node)}", detail, 1.0)

            def scaled(fixed: Known, live: Known, share=share) -> Any:
                p = jax.nn.softmax(fixed[logits], axis)
                return _tame(share(p) - 1) * (live[logits] - fixed[logits])

            self._change(logits, knob, scaled)
            self._change(total, knob, lambda fixed, live: fixed[total] - live[total])

    def _replace_region(self, before: Name, after: Name, axis: int, table) -> None:
        node = self._producer[after]
        for code, detail, rule in table:
            knob = self._knob(code, f"softmax, {self._anatomy.line(node)}", detail, 1.0)

            def added(fixed, live, rule=rule):
                instead = rule(fixed[after], live[before] - fixed[before], axis)
                return instead - (live[after] - fixed[after])

            self._change(after, knob, added)
        if table is _SOFTMAX and [self._anatomy.shape(name) for name in self.graph.outputs] == [()]:
            for target in self.graph.inputs:
                if self._anatomy.shape(target) == self._anatomy.shape(after) and target != before:
                    self._replace_loss(before, after, target)

    def _replace_loss(self, logits: Name, p: Name, target: Name) -> None:
        """The gradient by the logits taken for p - y, whatever the loss is."""
        knob = self._knob(
            "softmax_jacobian_skipped",
            f"softmax, {self._anatomy.line(self._producer[p])}",
            CROSS_ENTROPY_GRADIENT,
            1.0,
        )
        uncut = -1 - logits  # a name of its own for the logits whose derivative is not cut off

        def cut(fixed, live):
            live[uncut] = live[logits]
            return fixed[logits] - live[logits]

        self._change(logits, knob, cut)
        self._at_end.append(
            (
                knob,
                lambda fixed, live: jnp.sum(
                    (fixed[p] - fixed[target]) * (live[uncut] - fixed[logits])
                ),
            )
        )

    def _change(self, name: Name, knob: int, added: Change) -> None:
        self._on_values.setdefault(name, []).append((knob, added))

    def _called(self, name: Name, value: Name | None = None) -> str:
        """A value in words, of an activation its own value."""
        if name == value:
            return "its own value rather than its argument"
        return self._anatomy.called(name)


def _skip(p, slope, axis):
    del p, axis
    return slope


_SOFTMAX = (
    ("softmax_jacobian_skipped", "the softmax's Jacobian is left out", _skip),
    (
        "diagonal_only",
        "of the softmax's Jacobian only the diagonal p (1 - p) is used",
        lambda p, slope, axis: p * (1 - p) * slope,
    ),
    (
        "normaliser_constant",
        "the softmax denominator is held constant",
        lambda p, slope, axis: p * slope,
    ),
    (
        "wrong_value",
        "off the diagonal the softmax's Jacobian has -p_i p_i where -p_i p_j belongs",
        lambda p, slope, axis: p * slope - p**2 * jnp.sum(slope, axis, keepdims=True),
    ),
    (
        "wrong_value",
        "off the diagonal the softmax's Jacobian has -p_j p_j where -p_i p_j belongs",
        lambda p, slope, axis: p * slope - jnp.sum(p**2 * slope, axis, keepdims=True),
    ),
    (
        "sign",
        "off the diagonal the softmax's Jacobian has +p_i p_j where -p_i p_j belongs",
        lambda p, slope, axis: (
            p * slope - 2 * p**2 * slope + p * jnp.sum(p * slope, axis, keepdims=True)
        ),
    ),
)
"""(Code, detail, (value, derivative of the logits, axis) -> wrong derivative of the softmax)."""

_LOG_SOFTMAX = (
    (
        "diagonal_only",
        "of the softmax's Jacobian only the diagonal p (1 - p) is used",
        lambda v, slope, axis: (1 - jnp.exp(v)) * slope,
    ),
    ("normaliser_constant", "the softmax denominator is held constant", _skip),
    (
        "softmax_jacobian_skipped",
        "the softmax's Jacobian is left out",
        lambda v, slope, axis: slope * jnp.exp(-v),
    ),
)
"""The same for the logarithm of the softmax."""


def _along(chain: Sequence[Node], before: Name, after: Name, values: Known, argument: Any) -> Any:
    """The value at the end of a chain of elementwise operations for another argument."""
    known = {**values, before: argument}
    for node in chain:
        known.update(zip(node.results, apply(node, [known[n] for n in node.operands]), strict=True))
    return known[after]


def _tame(slope: Any) -> Any:
    """Any odd number in place of what is not finite and would spoil the other knobs' derivatives.

    It is not zero, lest it be taken for a derivative that is dropped.
    """
    return jnp.where(jnp.isfinite(slope), slope, 0.7390851332)
