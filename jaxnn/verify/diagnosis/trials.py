"""The trials of a diagnosis: formula values, and the gradient of every term of the objective.

Sizes are distinct: a factor in the formula names the size. Trials come in groups with equal scalar
inputs: a factor that depends on a scalar has a value per group.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, call, learning_rate_name
from jaxnn.verify.comparison import one_trial, trace_claim
from jaxnn.verify.graph import Graph, Name, build_graph, combined, evaluate, jit
from jaxnn.verify.inputs import Input, draw, fixed_sizes, is_input, symbols
from jaxnn.verify.reference import is_rule, reference

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
    terms: list[Term]
    run: Callable[..., Any]  # flat inputs [T, ...] -> formula values, gradients of every term
    names: tuple[str, ...]
    value_ranks: tuple[int, ...]

    def few_trials(self) -> list[np.ndarray]:
        """Flat inputs of four trials, enough to tell the values of a graph apart."""
        rng = np.random.default_rng(0)
        return jax.tree.leaves(draw(dict(self.claim.inputs), self.sizes, 4, rng, spreads=(1.0,)))


@dataclass(frozen=True, eq=False)
class Sample:
    """Formula values and gradients at trials of a program."""

    program: Program
    scalars: list[dict[str, float]]  # per group
    formula: Leaves  # for an update: the gradient that the step implies
    terms: list[Leaves]  # the gradient of each term of the objective
    parameters: Leaves | None  # where gradients have the shapes of the parameters
    flat: list[np.ndarray]  # inputs

    def context(self, group: int) -> dict[str, float]:
        """The sizes, then the scalars, of a group of trials by name."""
        fixed = sorted(fixed_sizes(self.program.claim.inputs))
        sizes = {**self.program.sizes, **{str(size): size for size in fixed}}
        return {**{name: float(size) for name, size in sizes.items()}, **self.scalars[group]}


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal to rounding."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.shape == b.shape and bool(np.linalg.norm(a - b) <= TOLERANCE * np.linalg.norm(b))


def diagnosis_sizes(claim: Claim, choice: int) -> dict[str, int]:
    """Distinct sizes: primes for choices 0 and 1, in two orders; other numbers for choice 2."""
    names, taken = symbols(claim.inputs), fixed_sizes(claim.inputs)
    pool = [n for n in (_CONFIRMATION_SIZES if choice == 2 else _PRIMES) if n not in taken]
    pool = pool[: len(names) + 1]
    shift = choice % len(pool) if choice < 2 else 0
    return dict(zip(names, pool[shift:] + pool[:shift], strict=False))


@lru_cache(maxsize=16)
def program(claim: Claim, choice: int) -> Program:
    """Compiles a claim and the terms of the claim's objective."""
    sizes = diagnosis_sizes(claim, choice)
    shapes = one_trial(claim, sizes)
    traced = trace_claim(claim, tuple(sizes.items()), both_modes=False)
    terms = split(claim, shapes)
    rule = is_rule(claim, shapes)
    if rule:
        terms = [terms[0]._replace(name=name) for name in ("the parameter", "the step")]
    differentiated = gradient_claim(claim, rule)

    def run(*flat: Any) -> tuple[PyTree, list[PyTree]]:
        inputs = jax.tree.unflatten(jax.tree.structure(shapes), flat)
        value = core.jaxpr_as_fun(traced.formula)(*flat)
        gradients = [jax.tree.leaves(reference(differentiated, of=t)(inputs)) for t in terms]
        old = [jnp.asarray(p) for p in jax.tree.leaves([at_path(inputs, w) for w in claim.wrt])]
        if rule:
            return value, [old, [new - p for new, p in zip(gradients[0], old, strict=True)]]
        return _implied_gradient(claim, inputs, old, value), gradients

    names, ranks = traced.names, traced.value_ranks
    return Program(claim, sizes, shapes, terms, jit(jax.vmap(run)), names, ranks)


def gradient_claim(claim: Claim, rule: bool) -> Claim:
    """For an update of an objective: the claim about the objective's gradient."""
    if claim.kind != "update":
        return claim
    return replace(claim, kind="value" if rule else "gradient", rate=None)


def _implied_gradient(claim: Claim, inputs: PyTree, old: Sequence[Any], new: Sequence[Any]) -> Any:
    """For an update: the gradient (old - new) / rate; for another claim the value."""
    rate = learning_rate_name(claim) if claim.kind == "update" else None
    if rate is None or [v.shape for v in new] != [p.shape for p in old]:
        return new
    return [(p - v) / inputs[rate] for v, p in zip(new, old, strict=True)]


def draw_sample(claim: Claim, choice: int, seed: int, unconstrained: bool = False) -> Sample:
    """Trials of a claim at a choice (0, 1 or 2) of sizes.

    Unconstrained inputs are real numbers in place of probabilities, one-hot vectors, binary values.
    """
    ready = program(claim, choice)
    rng = np.random.default_rng([seed, choice])
    inputs = dict(claim.inputs)
    if unconstrained:
        inputs = jax.tree.map(_unconstrained, inputs, is_leaf=is_input)
    drawn = draw(inputs, ready.sizes, GROUPS * PER_GROUP, rng, spreads=(1.0,))
    shared = {
        name: drawn[name][::PER_GROUP]
        for name, generator in claim.inputs.items()
        if generator in (Input("real"), Input("positive")) and name not in claim.wrt
    }
    drawn |= {name: np.repeat(values, PER_GROUP) for name, values in shared.items()}
    value, terms = ready.run(*jax.tree.leaves(drawn))
    trials = _away_from_kinks(ready, jax.tree.leaves(drawn), terms, rng)
    drawn, value, terms = jax.tree.map(lambda a: np.asarray(a)[trials], (drawn, value, terms))
    parameters = None
    if claim.kind in ("gradient", "update"):
        parameters = jax.tree.leaves([at_path(drawn, path) for path in claim.wrt])
    scalars = [{name: float(v[group]) for name, v in shared.items()} for group in range(GROUPS)]
    return Sample(ready, scalars, value, terms, parameters, jax.tree.leaves(drawn))


def _unconstrained(generator: Input) -> Input:
    free = generator.kind in ("simplex", "one_hot", "binary")
    return Input("real", generator.shape) if free else generator


def _away_from_kinks(
    ready: Program, flat: list[np.ndarray], terms: list[Leaves], rng: np.random.Generator
) -> np.ndarray:
    """Numbers of trials [T]; a smooth trial of the group replaces a trial at a kink."""

    def beside(v: np.ndarray) -> np.ndarray:
        return v * (1 + 1e-9 * rng.normal(size=v.shape)) + 1e-12 * rng.normal(size=v.shape)

    _, there = ready.run(*(beside(v) if v.dtype == float else v for v in flat))
    smooth = np.ones(len(flat[0]), bool)
    for leaves in zip(jax.tree.leaves(terms), jax.tree.leaves(there), strict=True):
        a, b = (np.asarray(leaf).reshape(len(smooth), -1) for leaf in leaves)
        with np.errstate(invalid="ignore", over="ignore"):
            jump, size = np.abs(a - b).max(axis=1, initial=0), np.abs(a).max(axis=1, initial=0)
            smooth &= ~(jump > 1e-5 * (1e-3 + size))
    trials = np.arange(len(smooth))
    for group in np.split(trials.copy(), GROUPS):
        good = group[smooth[group]]
        if len(good):
            trials[group] = np.where(smooth[group], group, np.resize(good, len(group)))
    return trials


def split(claim: Claim, shapes: Mapping[str, PyTree]) -> list[Term]:
    """The claim's ``terms``, or the summands of ``of`` as a data term and a penalty."""

    def term(name: str, graph: Graph) -> Term:
        return Term(name, graph, _is_penalty(claim, shapes, graph))

    if claim.terms is not None:
        parts = {name: partial(call, part) for name, part in claim.terms.items()}
        return [term(name, build_graph(part, dict(shapes))) for name, part in parts.items()]
    whole = build_graph(partial(call, claim.of), dict(shapes))
    if claim.kind in ("value", "jacobian") or len(whole.outputs) != 1:
        return [Term("", whole, False)]
    summands = list(_summands(whole, whole.outputs[0], 1.0))
    penalties = [s for s in summands if term("", combined(whole, [s])).penalty]
    data = [s for s in summands if s not in penalties]
    if not penalties or not data:
        return [Term("", whole, False)]
    data_term = Term("the data term", combined(whole, data), False)
    return [data_term, Term("the penalty", combined(whole, penalties), True)]


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


def _is_penalty(claim: Claim, shapes: Mapping[str, PyTree], graph: Graph) -> bool:
    """Whether only parameters and scalars enter, and doubled parameters quadruple the value."""
    wrt = {re.split(r"[.\[]", path)[0] for path in claim.wrt}
    named = zip(graph.inputs, input_names(shapes), strict=True)
    parameters = {value for value, name in named if name.split(".")[0] in wrt}
    entering = ancestors(graph) & set(graph.inputs)
    data = [value for value in entering - parameters if graph.shapes[value].shape != ()]
    if data or not entering & parameters:
        return False
    rng = np.random.default_rng(0)
    pairs = []
    for value in graph.inputs:
        shape = graph.shapes[value]
        drawn = rng.uniform(0.5, 1.5, size=shape.shape).astype(shape.dtype)
        pairs.append(np.stack([drawn, 2 * drawn if value in parameters else drawn]))
    once, twice = jit(jax.vmap(lambda *flat: evaluate(graph, flat)[0]))(*pairs)
    return bool(np.isclose(4 * once, twice, rtol=1e-9, atol=0.0)) and bool(once != 0)


def ancestors(graph: Graph) -> set[Name]:
    """The values behind the outputs, the outputs included."""
    found = set(graph.outputs)
    for node in reversed(graph.nodes):
        if found & set(node.results):
            found |= set(node.operands)
    return found


def input_names(shapes: Mapping[str, PyTree]) -> list[str]:
    """The names of the flat inputs, such as ``params.0.weight``."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree.flatten_with_path(dict(shapes))[0]
    ]
