"""The graph of a function with all values at random inputs.

Numbers identify a value, not the way of writing the function: h is the sigmoid of z if all numbers
of h and z agree with a sigmoid.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes

from jaxnn.verify.claims import Claim, call
from jaxnn.verify.diagnosis.trials import Program, ancestors, inputs_at
from jaxnn.verify.graph import Graph, Name, Node, build_graph, evaluate, jit


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_ELEMENTWISE = words(
    "neg exp exp2 expm1 log log1p tanh logistic sin cos tan sinh cosh asin acos atan sqrt rsqrt "
    "cbrt integer_pow pow square abs sign max min add sub mul div select_n erf erfc lt le gt ge eq "
    "ne and or not xor is_finite convert_element_type stop_gradient clamp copy"
)
_OF_A_SUM = words(
    "log sqrt rsqrt neg select_n broadcast_in_dim reshape squeeze expand_dims transpose "
    "integer_pow square pow max add sub mul div convert_element_type"
)
"""Operations between a sum and the use of the sum."""

_WORDS = dict(
    pair.split("=")
    for pair in words(
        "dot_general=product mul=product div=quotient add=sum reduce_sum=sum sub=difference "
        "neg=negative logistic=sigmoid integer_pow=power pow=power max=maximum reduce_max=maximum "
        "min=minimum select_n=choice exp=exponential log=logarithm sqrt=root"
    )
)


def word(node: Node) -> str:
    """An operation in a word: ``product`` rather than ``dot_general``."""
    return _WORDS.get(node.primitive.name, node.primitive.name)


class EvaluatedGraph:
    """A graph with all values at a few random trials."""

    def __init__(self, program: Program, graph: Graph):
        """Evaluates the graph of a function of the claim's inputs."""
        self.graph = graph
        self._every_value = jit(jax.vmap(partial(every_value, graph)), [graph])
        self.values = self.at_trials(program.few_trials())
        self._inputs = dict(zip(graph.inputs, program.inputs, strict=True))
        self.producer = {name: node for node in graph.nodes for name in node.results}
        self.roots = _roots(graph)
        self.active = _on_derivative_paths(graph, program.claim)
        self.statistics = dict(_statistics(self))

    def at_trials(self, flat: Sequence[np.ndarray]) -> dict[Name, np.ndarray]:
        """Every value [T, ...] but constants at flat inputs [T, ...]."""
        return {name: np.asarray(value) for name, value in self._every_value(*flat).items()}

    def shape(self, name: Name) -> tuple[int, ...]:
        """The shape of a value, without the axis of trials."""
        return tuple(self.graph.shapes[name].shape)

    def significant(self) -> list[Name]:
        """The arrays with a letter in a derivation: inputs, sums, products, activations."""
        products = [n for n in self.graph.nodes if n.primitive.name == "dot_general"]
        factors = {name for node in products for name in node.operands}

        def has_letter(name: Name) -> bool:
            root = self.roots[name]
            if root is None or root == name:
                return root == name
            return name in factors or self.derivative_by_value(name, root) is not None

        arrays = [name for name, value in self.values.items() if value.ndim > 1]
        return [name for name in arrays if _is_float(self.graph, name) and has_letter(name)]

    def of_equal_shape(self, name: Name) -> list[Name]:
        """All distinct float values of the shape of ``name``."""
        return [other for other in self.distinct if self.shape(other) == self.shape(name)]

    @cached_property
    def distinct(self) -> list[Name]:
        """All distinct float values."""
        found: dict[Name, np.ndarray] = {}
        for name, value in sorted(self.values.items(), key=itemgetter(0)):
            alike = (np.array_equal(value, seen) for seen in found.values())
            if _is_float(self.graph, name) and not any(alike):
                found[name] = value
        return list(found)

    def chain(self, after: Name, before: Name) -> Graph:
        """The elementwise operations from ``before`` to ``after``."""
        nodes = tuple(node for node in self.graph.nodes if before not in node.results)
        chain = self.graph._replace(inputs=(before,), nodes=nodes, outputs=(after,))
        needed = ancestors(chain)
        return chain._replace(nodes=tuple(n for n in nodes if needed & set(n.results)))

    def derivative_by_value(self, after: Name, before: Name) -> Callable[[Any], Any] | None:
        """The derivative of a sigmoid or tanh as a function of the value, ``after``."""
        z, value = self.values[before], self.values[after]
        if z.shape != value.shape:
            return None
        with np.errstate(over="ignore"):
            if np.allclose(value, 1 / (1 + np.exp(-z)), rtol=1e-9):
                return lambda h: h * (1 - h)
        return (lambda h: 1 - h**2) if np.allclose(value, np.tanh(z), rtol=1e-9) else None

    def is_log_sigmoid(self, after: Name, before: Name) -> bool:
        """Whether ``after`` is +-log sigmoid(+-z) of z = ``before``."""
        z, value = self.values[before], np.abs(self.values[after])
        return z.shape == value.shape and any(
            np.allclose(value, np.logaddexp(0, s * z), rtol=1e-9) for s in (1, -1)
        )

    def softmaxes(self) -> Iterator[tuple[str, Name, Name, int]]:
        """Softmaxes, log-softmaxes and log-sum-exps: (kind, logits, value, axis of a trial)."""
        computed = sorted(self.active & self.producer.keys())
        for name in computed:
            value = self.values[name]
            with np.errstate(over="ignore"):
                exponential = np.exp(value)
            for axis in range(1, value.ndim):
                for kind, p in (("softmax", value), ("log_softmax", exponential)):
                    logits = self._logits(name, p, axis)
                    if logits is not None:
                        yield kind, logits, name, axis - 1
        for name in computed:
            if self.producer[name].primitive.name in ("log", "add"):
                before = [value for value in sorted(self.active) if value < name]
                axes = [_log_sum_exp_axis(self.values[z], self.values[name]) for z in before]
                found = [(z, axis) for z, axis in zip(before, axes, strict=True) if axis]
                yield from (("log_sum_exp", z, name, axis - 1) for z, axis in found[:1])

    def _logits(self, name: Name, p: np.ndarray, axis: int) -> Name | None:
        """The first value before ``name`` with softmax p along an axis."""
        if p.shape[axis] == 1 or not (np.all(p >= 0) and np.allclose(p.sum(axis), 1, rtol=1e-9)):
            return None
        for other in self.of_equal_shape(name):
            if other < name and other in self.active:
                value = self.values[other]
                e = np.exp(value - value.max(axis=axis, keepdims=True))
                if np.allclose(e / e.sum(axis=axis, keepdims=True), p, rtol=1e-9, atol=1e-12):
                    return other
        return None

    def where(self, node: Node) -> str:
        """A node in words: ``product, line 12 of claims.py``."""
        return f"{word(node)}, {self.line(node)}"

    def line(self, node: Node) -> str:
        """The node's line; also the number among the nodes on the line with the same word."""
        kind = word(node), node.where
        alike = [n.results for n in self.graph.nodes if (word(n), n.where) == kind]
        number = alike.index(node.results) + 1
        return f"{node.where} (number {number} there)" if len(alike) > 1 else node.where

    def described(self, name: Name) -> str:
        """A value in words."""
        if name in self._inputs:
            return self._inputs[name]
        node = self.producer.get(name)
        return f"the {word(node)} of {self.line(node)}" if node else "a constant"


@lru_cache(maxsize=8)
def function_of(program: Program) -> EvaluatedGraph:
    """The graph of ``of`` with all values."""
    return EvaluatedGraph(program, build_graph(partial(call, program.claim.of), program.shapes))


_REDUCTIONS = words("reduce_sum reduce_max reduce_min dot_general")
_MOST_ENDS = 20
_BELOW = words("div rsqrt pow")
"""Operations that may divide by an operand."""


def _statistics(evaluated: EvaluatedGraph) -> Iterator[tuple[tuple[int, int], tuple[str, str]]]:
    """Means, variances, normalisers: (operand on the way from the statistic, (code, description)).

    A statistic is a reduction that returns to the entries that went into the reduction, as in
    x - mean(x) or x / |x|, or a sum of exponentials.
    """
    users: dict[Name, list[tuple[int, int, Node]]] = {}
    for position, node in enumerate(evaluated.graph.nodes):
        for place, name in enumerate(node.operands if node.results[0] in evaluated.active else ()):
            users.setdefault(name, []).append((position, place, node))
    for position, node in enumerate(evaluated.graph.nodes):
        first = node.operands[0] if node.primitive.name in _REDUCTIONS else None
        if first not in evaluated.active:
            continue
        way, (last,) = [(position, 0, node)], node.results
        while len(users.get(last, ())) == 1:
            (_, _, after) = users[last][0]
            way += users[last]
            varying = evaluated.active & set(after.operands)
            if len(varying) > 1 or after.primitive.name not in _OF_A_SUM:
                break
            (last,) = after.results
        ends, size = [*users.get(last, ())], math.prod(evaluated.shape(first))
        for _, _, end in ends:  # grows
            alone = len(evaluated.active & set(end.operands)) == 1
            if alone and end.primitive.name in _OF_A_SUM and len(ends) < _MOST_ENDS:
                ends += users.get(end.results[0], ())
        back = any(math.prod(evaluated.shape(end.results[0])) >= size for _, _, end in ends)
        below = [(p, n.primitive.name) for _, p, n in (*way, *ends) if n.primitive.name in _BELOW]
        divides = any(place == 1 or name != "div" for place, name in below)
        before = evaluated.producer.get(first)
        exponential = before is not None and before.primitive.name == "exp"
        square = node.primitive.name != "dot_general" or first == node.operands[1]
        if exponential or (square and (back or divides)):
            mean = (0, "div") in below and not exponential
            code = "statistic_constant" if mean or not (divides or exponential) else ""
            described = f"the {word(node)} of {evaluated.line(node)}"
            found = code or "normaliser_constant", described
            yield from (((at, place), found) for at, place, _ in way)


def every_value(graph: Graph, *arguments: Any) -> dict[Name, Any]:
    """Every value of the graph but constants and PRNG keys, for flat arguments."""
    names = tuple(
        name
        for name, shape in graph.shapes.items()
        if name not in graph.constants and not jnp.issubdtype(shape.dtype, dtypes.prng_key)
    )
    return dict(zip(names, evaluate(graph._replace(outputs=names), arguments), strict=True))


def _roots(graph: Graph) -> dict[Name, Name | None]:
    """For every elementwise function of a single value the value, else the name; None: constant."""
    roots: dict[Name, Name | None] = {name: name for name in graph.inputs}
    roots |= dict.fromkeys(graph.constants)
    for node in graph.nodes:
        under = {roots[name] for name in node.operands} - {None}
        elementwise = node.primitive.name in _ELEMENTWISE and len(under) == 1
        only = next(iter(under), None)
        roots |= {name: only if elementwise or not under else name for name in node.results}
    return roots


def _on_derivative_paths(graph: Graph, claim: Claim) -> set[Name]:
    """The float values between the claim's parameters and the outputs."""
    reached = inputs_at(claim, graph, claim.wrt)
    for node in graph.nodes:
        if node.primitive.name != "stop_gradient" and reached & set(node.operands):
            reached |= {name for name in node.results if _is_float(graph, name)}
    return reached & ancestors(graph)


def _is_float(graph: Graph, name: Name) -> bool:
    return bool(jnp.issubdtype(graph.shapes[name].dtype, jnp.floating))


def _log_sum_exp_axis(z: np.ndarray, value: np.ndarray) -> int | None:
    """The axis of z [T, ...] with value = log sum e^z, or log sum e^(z - max z), if any."""
    for axis in range(1, z.ndim):
        largest = z.max(axis=axis, keepdims=True)
        rest = np.log(np.sum(np.exp(z - largest), axis=axis, keepdims=True))
        for total in (rest + largest, rest):
            fits = z.shape[axis] > 1 and value.size == total.size
            if fits and np.allclose(value.reshape(total.shape), total, rtol=1e-9, atol=1e-12):
                return axis
    return None
