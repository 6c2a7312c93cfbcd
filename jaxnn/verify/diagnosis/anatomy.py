"""What the values of a function's graph are: activations, probabilities, sums of exponentials.

Nothing here goes by how the function is written: a sigmoid is a value that is one at random inputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.graph import Graph, Name, Node, evaluate
from jaxnn.verify.quick import jit

Values = dict[Name, np.ndarray]
"""Every value of a graph at some random trials, a leading axis of trials."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _words(
    "neg exp exp2 expm1 log log1p tanh logistic sin cos tan sinh cosh asin acos atan sqrt rsqrt "
    "cbrt integer_pow pow square abs sign max min add sub mul div select_n erf erfc lt le gt ge eq "
    "ne and or not xor is_finite convert_element_type stop_gradient clamp copy"
)
PLAIN = _words(
    "neg add sub mul convert_element_type stop_gradient copy broadcast_in_dim reshape squeeze "
    "transpose expand_dims log exp integer_pow square sqrt div pow abs"
)
"""Operations of which a chain is no activation: arithmetic, powers, logarithms, exponentials."""

STRUCTURAL = _words(
    "broadcast_in_dim reshape squeeze transpose expand_dims convert_element_type copy slice "
    "stop_gradient concatenate"
)


_OF_ONE = _words(
    "log sqrt broadcast_in_dim reshape squeeze integer_pow square pow max add sub mul div"
)
"""What may be done to a sum that something is divided by."""


_WORDS = {
    "dot_general": "product",
    "mul": "product",
    "div": "quotient",
    "add": "sum",
    "sub": "difference",
    "neg": "negative",
    "logistic": "sigmoid",
    "integer_pow": "power",
    "pow": "power",
    "square": "square",
    "reduce_sum": "sum",
    "reduce_max": "maximum",
    "max": "maximum",
    "min": "minimum",
    "select_n": "choice",
    "exp": "exponential",
    "log": "logarithm",
    "sqrt": "square root",
}


def word(node: Node) -> str:
    """An operation in a word: ``product`` rather than ``dot_general``."""
    return _WORDS.get(node.primitive.name, node.primitive.name)


class Anatomy:
    """A graph with what its values are at some random trials."""

    def __init__(
        self,
        graph: Graph,
        input_names: Sequence[str],
        active: Sequence[bool],
        trials: Sequence[np.ndarray],
    ):
        """Evaluates the graph.

        Args:
          graph: of the function.
          input_names: what the flat inputs are called.
          active: per flat input, whether derivatives by it are asked for.
          trials: the flat inputs, a leading axis of trials in each.
        """
        self.graph = graph
        self._input_names = input_names
        self.values = every_value(graph, trials)
        self.producer = {name: node for node in graph.nodes for name in node.results}
        self.roots = _roots(graph)  # what each value is an elementwise function of
        self.active = _reached(graph, active)

    def significant(self) -> list[Name]:
        """The values that a derivation has a letter for, those of one scalar a trial left out.

        Inputs, sums and products of several values, activations: not the steps within an
        elementwise function.
        """
        into_products = {
            name
            for node in self.graph.nodes
            if node.primitive.name == "dot_general"
            for name in node.operands
        }
        found = []
        for name, value in self.values.items():
            root = self.roots[name]
            activation = root not in (None, name) and (
                name in into_products or self.is_sigmoid(name, root)
            )
            if value.ndim > 1 and self.is_float(name) and (root == name or activation):
                found.append(name)
        return found

    def alike(self, name: Name) -> list[Name]:
        """All float values of the same shape, those that are equal everywhere once."""
        shape = self.shape(name)
        found: list[Name] = []
        for other in sorted(self.values):
            if self.shape(other) != shape or other in self.graph.constants:
                continue
            if not self.is_float(other):
                continue
            value = self.values[other]
            if not any(np.array_equal(value, self.values[seen]) for seen in found):
                found.append(other)
        return found

    def chain(self, after: Name, before: Name) -> list[Node]:
        """The elementwise operations from one value to another."""
        needed = {after}
        chain = []
        for node in reversed(self.graph.nodes):
            if any(name in needed for name in node.results) and before not in node.results:
                chain.append(node)
                needed |= set(node.operands)
        return chain[::-1]

    def is_sigmoid(self, after: Name, before: Name) -> bool:
        """Whether it is a sigmoid or a hyperbolic tangent, however written."""
        return self.derivative_by_value(after, before) is not None

    def derivative_by_value(self, after: Name, before: Name) -> Callable[[Any], Any] | None:
        """The derivative as a function of the value, of a sigmoid or a hyperbolic tangent."""
        z, value = self.values[before], self.values[after]
        with np.errstate(over="ignore"):
            if np.allclose(value, 1 / (1 + np.exp(-z)), rtol=1e-9):
                return lambda h: h * (1 - h)
        return (lambda h: 1 - h**2) if np.allclose(value, np.tanh(z), rtol=1e-9) else None

    def is_log_sigmoid(self, after: Name, before: Name) -> bool:
        """Whether it is the logarithm of sigmoid(z) or sigmoid(-z), of either sign."""
        z, value = self.values[before], np.abs(self.values[after])
        return any(np.allclose(value, np.logaddexp(0, s * z), rtol=1e-9) for s in (1, -1))

    def shape(self, name: Name) -> tuple[int, ...]:
        """Its shape in one trial."""
        return tuple(self.graph.shapes[name].shape)

    def reduced(self, name: Name) -> tuple[str | None, list[str]]:
        """What is summed in a value that is a function of a sum, and what is done to the sum."""
        through: list[str] = []
        node = self.producer.get(name)
        while node and node.primitive.name in _OF_ONE:
            through.append(node.primitive.name)
            varying = [name for name in node.operands if name in self.active]
            node = self.producer.get(varying[0]) if varying else None
        if node is None or node.primitive.name not in ("reduce_sum", "dot_general"):
            return None, through
        inside = self.producer.get(node.operands[0])
        return inside.primitive.name if inside else "", through

    def logits(self, name: Name, p: np.ndarray, axis: int) -> Name | None:
        """The first value whose softmax this is."""
        for other in self.alike(name):
            value = self.values.get(other)
            if other >= name or value is None or other not in self.active:
                continue
            e = exp(value - value.max(axis=axis, keepdims=True))
            if np.allclose(e / e.sum(axis=axis, keepdims=True), p, rtol=1e-9, atol=1e-12):
                return other
        return None

    def line(self, node: Node) -> str:
        """The node's line, and which one of its kind it is there, as in a loop over layers."""
        alike = [
            other
            for other in self.graph.nodes
            if (other.primitive, other.where) == (node.primitive, node.where)
        ]
        number = next(i for i, other in enumerate(alike, 1) if other.results == node.results)
        return f"{node.where} (number {number} there)" if len(alike) > 1 else node.where

    def called(self, name: Name) -> str:
        """A value in words."""
        if name in self.graph.inputs:
            return self._input_names[self.graph.inputs.index(name)]
        node = self.producer.get(name)
        return f"the {word(node)} of {self.line(node)}" if node else "a constant"

    def is_float(self, name: Name) -> bool:
        """Whether it is an array of real numbers."""
        return _is_float(self.graph, name)


def every_value(graph: Graph, arguments: Sequence[np.ndarray]) -> Values:
    """Every float value of the graph at trials along the arguments' leading axis."""
    names = [name for name in graph.shapes if name not in graph.constants]
    full = graph._replace(outputs=tuple(names))
    results = jit(jax.vmap(lambda *flat: evaluate(full, flat)))(*arguments)
    return {name: np.asarray(value) for name, value in zip(names, results, strict=True)}


def _roots(graph: Graph) -> dict[Name, Name | None]:
    """The value that each is an elementwise function of; None for constants."""
    roots: dict[Name, Name | None] = {name: name for name in graph.inputs}
    roots |= dict.fromkeys(graph.constants)
    for node in graph.nodes:
        under = {roots[name] for name in node.operands} - {None}
        elementwise = node.primitive.name in ELEMENTWISE and len(under) == 1
        only = next(iter(under), None)
        roots |= {name: only if elementwise or not under else name for name in node.results}
    return roots


def _reached(graph: Graph, active: Sequence[bool]) -> set[Name]:
    """The float values on the way from the active inputs to the outputs."""
    forward = {name for name, on in zip(graph.inputs, active, strict=True) if on}
    for node in graph.nodes:
        if node.primitive.name != "stop_gradient" and forward & set(node.operands):
            forward |= {n for n in node.results if _is_float(graph, n)}
    backward = set(graph.outputs)
    for node in reversed(graph.nodes):
        if backward & set(node.results):
            backward |= set(node.operands)
    return forward & backward


def _is_float(graph: Graph, name: Name) -> bool:
    return bool(jnp.issubdtype(graph.shapes[name].dtype, jnp.floating))


def sums_to_one(p: np.ndarray, axis: int) -> bool:
    """Whether these are probabilities along an axis."""
    return bool(np.all(p >= 0) and np.allclose(p.sum(axis=axis), 1.0, rtol=1e-9))


def log_sum_exp_axis(z: np.ndarray, value: np.ndarray) -> int | None:
    """The axis of z [T, ...] along which the value is log sum e^z, or that less the maximum."""
    for axis in range(1, z.ndim):
        largest = z.max(axis=axis, keepdims=True)
        rest = np.log(np.sum(np.exp(z - largest), axis=axis, keepdims=True))
        for total in (rest + largest, rest):
            fits = z.shape[axis] > 1 and value.size == total.size
            if fits and np.allclose(value.reshape(total.shape), total, rtol=1e-9, atol=1e-12):
                return axis
    return None


def exp(value: np.ndarray) -> np.ndarray:
    """e^value, infinite where it is too large."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(value)
