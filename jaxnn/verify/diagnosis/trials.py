"""The trials of a diagnosis: formula values, and the gradient of every term of the objective.

Sizes are distinct: a factor in the formula names the size. Trials come in groups with equal scalar
inputs: a factor that depends on a scalar has a value per group.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, call, learning_rate_name, places
from jaxnn.verify.comparison import is_rule, one_trial, reference, trace_claim
from jaxnn.verify.graph import Graph, Name, build_graph, combined, evaluate, jit
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
