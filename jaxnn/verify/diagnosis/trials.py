"""The trials of a diagnosis: formula values, and the gradient of every term of the objective.

Sizes are distinct: a factor in the formula names the size. Trials come in groups with equal scalar
inputs: a factor that depends on a scalar has a value per group.

Also the graph of a function with all values: numbers at random inputs identify a value, not the way
of writing the function. h is the sigmoid of z if all numbers of h and z agree with a sigmoid.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import dtypes
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, call, learning_rate_name, places
from jaxnn.verify.comparison import is_rule, one_trial, reference, trace_claim
from jaxnn.verify.graph import Graph, Name, Node, build_graph, combined, evaluate, jit
from jaxnn.verify.inputs import Input, draw, fixed_sizes, is_input, rotated, symbols
from jaxnn.verify.sampling import draw_inside

GROUPS, PER_GROUP = 4, 8
TOLERANCE = 1e-9
_PRIMES = (5, 3, 7, 11, 13, 17, 19, 23)
_CONFIRMATION_SIZES = (11, 2, 4, 3, 6, 8, 9)

Leaves = list[np.ndarray]
"""Arrays [T, ...], for each leaf of the parameters."""


class Term(NamedTuple):
    """One summand of the objective."""

    name: str
    graph: Graph
    penalty: bool  # a quadratic function of the parameters; no data enters

    def __call__(self, inputs: PyTree) -> Any:
        """The term's value."""
        values = evaluate(self.graph, jax.tree.leaves(inputs))
        return values[0] if len(values) == 1 else values


@dataclass(frozen=True, eq=False)
class Program:
    """A claim at a choice of sizes, compiled."""

    claim: Claim
    sizes: dict[str, int]
    shapes: dict[str, PyTree]  # the shapes of the inputs of a trial
    inputs: tuple[str, ...]  # the paths of the flat inputs
    terms: list[Term]
    derivative: Claim  # of a term; for an update of an objective the gradient
    run: Callable[..., Any]  # flat inputs [T, ...] -> formula, derivative by term, parameters
    names: tuple[str, ...]
    value_ranks: tuple[int, ...]
    scalars: tuple[str, ...]  # the scalar inputs with equal values in all trials of a group

    def few_trials(self) -> list[np.ndarray]:
        """Flat inputs of four trials, enough to tell the values of a graph apart."""
        rng = np.random.default_rng(0)
        return jax.tree.leaves(draw(dict(self.claim.inputs), self.sizes, 4, rng, spreads=(1.0,)))


@dataclass(frozen=True, eq=False)
class Sample:
    """Formula values and gradients at trials of a program."""

    program: Program
    contexts: list[dict[str, float]]  # per group: sizes, then scalars, by name
    formula: Leaves  # for an update: the gradient that the step implies
    terms: list[Leaves]  # the gradient of each term of the objective
    parameters: Leaves
    flat: list[np.ndarray]  # inputs


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal to rounding."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.shape == b.shape and bool(np.linalg.norm(a - b) <= TOLERANCE * np.linalg.norm(b))


def diagnosis_sizes(claim: Claim, choice: int) -> dict[str, int]:
    """Distinct sizes: primes for choices 0 and 1, in two orders; other numbers for choice 2."""
    sizes, order = ((_PRIMES, 0), (_PRIMES, 1), (_CONFIRMATION_SIZES, 0))[choice]
    return rotated(claim.inputs, sizes, len(symbols(claim.inputs)) + 1, order)


@lru_cache(maxsize=16)
def program(claim: Claim, choice: int) -> Program:
    """Compiles a claim and the terms of the claim's objective."""
    sizes = diagnosis_sizes(claim, choice)
    shapes = one_trial(claim, sizes)
    traced = trace_claim(claim, tuple(sizes.items()), both_modes=False)
    terms = split(claim, shapes)
    rule, rate = is_rule(claim, shapes), learning_rate_name(claim)
    derivative = claim
    if rule:
        terms = [terms[0]._replace(name=name) for name in ("the parameter", "the step")]
    if claim.kind == "update":
        derivative = replace(claim, kind="value" if rule else "gradient", rate=None)

    def run(value: Sequence[Any], *flat: Any) -> tuple[PyTree, list[PyTree], list[Any]]:
        inputs = jax.tree.unflatten(jax.tree.structure(shapes), flat)
        if traced.black_box is None and traced.formula is not None:
            value = core.jaxpr_as_fun(traced.formula)(*flat)
        gradients = [jax.tree.leaves(reference(derivative, of=term)(inputs)) for term in terms]
        old = [jnp.asarray(p) for p in jax.tree.leaves([at_path(inputs, w) for w in claim.wrt])]
        if rule:
            gradients = [old, [new - p for new, p in zip(gradients[0], old, strict=True)]]
        elif rate is not None and [v.shape for v in value] == [p.shape for p in old]:
            value = [(p - v) / inputs[rate] for v, p in zip(value, old, strict=True)]
        return list(value), gradients, old

    scalars = tuple(
        name
        for name, generator in claim.inputs.items()
        if is_input(generator)
        and generator.kind in ("real", "positive", "interval")
        and generator.shape == ()
        and name not in claim.wrt
    )
    names, ranks = traced.names, traced.value_ranks
    compiled = jit(jax.vmap(run), [*filter(None, (traced.formula, traced.reverse))])
    box = traced.black_box or (lambda flat: [])
    paths = [path for path, _ in jax.tree.flatten_with_path(shapes)[0]]
    inputs = tuple(jax.tree_util.keystr(path, simple=True, separator=".") for path in paths)
    return Program(
        claim, sizes, shapes, inputs, terms, derivative,
        lambda *flat: compiled(box(flat), *flat), names, ranks, scalars,
    )  # fmt: skip


SPREADS = (1.0, 0.3, 0.1, 3.0)
"""Spreads of the inputs, until most trials are finite and tell formula and derivative apart."""


def draw_sample(
    claim: Claim,
    choice: int,
    seed: int,
    spreads: Sequence[float] = SPREADS,
    unconstrained: bool = False,
) -> Sample:
    """Trials of a claim at a choice (0, 1 or 2) of sizes, with the first good spread.

    Unconstrained inputs are real numbers in place of probabilities, one-hot vectors, binary values.
    """
    samples = []
    for spread in spreads:
        samples.append(_sample_at(claim, choice, seed, spread, unconstrained))
        if _telling(samples[-1]) >= 0.5:
            return samples[-1]
    return max(samples, key=_telling)


def _telling(sample: Sample) -> float:
    """The share of trials with finite values, and with a derivative other than zero."""
    telling = np.ones(len(sample.flat[0]), bool)
    some = np.zeros_like(telling)
    for leaf in (*sample.formula, *(leaf for term in sample.terms for leaf in term)):
        rows = leaf.reshape(len(leaf), -1)
        telling &= np.isfinite(rows).all(axis=1)
        some |= np.any(rows != 0, axis=1)
    return float(np.mean(telling & some)) * (1.0 if telling.all() else 0.1)


def _sample_at(claim: Claim, choice: int, seed: int, spread: float, unconstrained: bool) -> Sample:
    ready = program(claim, choice)
    rng = np.random.default_rng([seed, choice])
    inputs = dict(claim.inputs)
    if unconstrained:
        free = ("simplex", "one_hot", "binary")
        inputs = jax.tree.map(
            lambda g: Input("real", g.shape) if g.kind in free else g, inputs, is_leaf=is_input
        )
    drawn = draw(inputs, ready.sizes, GROUPS * PER_GROUP, rng, spreads=(spread,))
    if not unconstrained and not _all_inside(ready, drawn):
        traced = trace_claim(claim, tuple(ready.sizes.items()), both_modes=False)
        drawn = draw_inside(traced, GROUPS * PER_GROUP, rng, (spread,))
    drawn |= {name: np.repeat(drawn[name][::PER_GROUP], PER_GROUP) for name in ready.scalars}
    fixed = {str(size): size for size in sorted(fixed_sizes(claim.inputs))}
    less = {f"({name} - 1)": size - 1 for name, size in ready.sizes.items()}
    sizes = {**ready.sizes, **fixed, **less}
    contexts = [
        {**sizes, **{name: float(drawn[name][first]) for name in ready.scalars}}
        for first in range(0, GROUPS * PER_GROUP, PER_GROUP)
    ]
    flat = jax.tree.leaves(drawn)
    values = ready.run(*flat)
    trials = _smooth_trials(ready, flat, values, rng)
    return Sample(ready, contexts, *jax.tree.map(lambda a: np.asarray(a)[trials], (*values, flat)))


def _all_inside(ready: Program, drawn: PyTree) -> bool:
    """Whether all results at random inputs are finite, and no input has to satisfy ``where``."""
    results = jax.tree.leaves(ready.run(*jax.tree.leaves(drawn)))
    return ready.claim.where is None and all(np.isfinite(leaf).all() for leaf in results)


def _smooth_trials(
    ready: Program, flat: list[np.ndarray], values: Any, rng: np.random.Generator
) -> np.ndarray:
    """Numbers of trials [T]; a good trial replaces a trial at a kink, or not finite."""

    def beside(v: np.ndarray) -> np.ndarray:
        return v * (1 + 1e-9 * rng.normal(size=v.shape)) + 1e-12 * rng.normal(size=v.shape)

    formula, terms, _ = values
    _, there, _ = ready.run(*(beside(v) if v.dtype == float else v for v in flat))
    smooth = np.ones(len(flat[0]), bool)
    for leaf in jax.tree.leaves(formula):
        smooth &= np.isfinite(np.reshape(leaf, (len(smooth), -1))).all(axis=1)
    for leaves in zip(jax.tree.leaves(terms), jax.tree.leaves(there), strict=True):
        a, b = (np.asarray(leaf).reshape(len(smooth), -1) for leaf in leaves)
        with np.errstate(invalid="ignore", over="ignore"):
            jump, size = np.abs(a - b).max(axis=1, initial=0), np.abs(a).max(axis=1, initial=0)
            smooth &= (jump <= 1e-5 * (1e-3 + size)) & np.isfinite(size)
    trials = np.arange(len(smooth))
    for group in np.split(trials.copy(), GROUPS):
        good = group[smooth[group]]
        if len(good):
            trials[group] = np.where(smooth[group], group, np.resize(good, len(group)))
    return trials


def split(claim: Claim, shapes: dict[str, PyTree]) -> list[Term]:
    """The claim's ``terms``, or the summands of ``of`` as a data term and a penalty."""
    if claim.terms is not None:
        graphs = {name: build_graph(partial(call, f), shapes) for name, f in claim.terms.items()}
        return [Term(name, graph, _is_penalty(claim, graph)) for name, graph in graphs.items()]
    whole = build_graph(partial(call, claim.of), shapes)
    parts: dict[bool, list[tuple[Name, float]]] = {False: [], True: []}
    if claim.kind not in ("value", "jacobian") and len(whole.outputs) == 1:
        for summand in _summands(whole, whole.outputs[0], 1.0):
            parts[_is_penalty(claim, combined(whole, [summand]))].append(summand)
    if not all(parts.values()):
        return [Term("", whole, False)]
    names = {False: "the data term", True: "the penalty"}
    return [Term(names[penalty], combined(whole, some), penalty) for penalty, some in parts.items()]


def _summands(graph: Graph, name: Name, sign: float) -> Iterator[tuple[Name, float]]:
    """The values with a signed sum equal to a value."""
    node = next((node for node in graph.nodes if name in node.results), None)
    kind = node.primitive.name if node and graph.shapes[name].shape == () else ""
    if node is None or kind not in ("convert_element_type", "copy", "neg", "add", "sub"):
        yield name, sign
        return
    signs = {"neg": (-sign,), "sub": (sign, -sign)}.get(kind, (sign, sign))
    for operand, operand_sign in zip(node.operands, signs, strict=False):
        yield from _summands(graph, operand, operand_sign)


def _is_penalty(claim: Claim, graph: Graph) -> bool:
    """Whether only parameters and scalars enter, and doubled parameters quadruple the value."""
    parameters = inputs_at(claim, graph, [re.split(r"[.\[]", path)[0] for path in claim.wrt])
    entering = ancestors(graph) & set(graph.inputs)
    if not entering & parameters or any(graph.shapes[n].shape for n in entering - parameters):
        return False
    rng = np.random.default_rng(0)
    shapes = [graph.shapes[name] for name in graph.inputs]
    drawn = [rng.uniform(0.5, 1.5, size=s.shape).astype(s.dtype) for s in shapes]
    doubled = [
        2 * v if name in parameters else v for name, v in zip(graph.inputs, drawn, strict=True)
    ]
    value = jit(lambda *flat: evaluate(graph, flat)[0], [graph])
    once, twice = value(*drawn), value(*doubled)
    return bool(np.isclose(4 * once, twice, rtol=1e-9, atol=0.0)) and bool(once != 0)


def inputs_at(claim: Claim, graph: Graph, paths: Iterable[str]) -> set[Name]:
    """The inputs of a graph at paths into the claim's inputs."""
    inputs = dict(claim.inputs)
    return {graph.inputs[place] for path in paths for place in places(inputs, path)}


def ancestors(graph: Graph) -> set[Name]:
    """The values behind the outputs, the outputs included."""
    found = set(graph.outputs)
    for node in reversed(graph.nodes):
        if found & set(node.results):
            found |= set(node.operands)
    return found


# The graph of a function, with all values at a few trials


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
