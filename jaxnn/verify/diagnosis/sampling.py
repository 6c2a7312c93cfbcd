"""The trials a diagnosis works on: the claim, and the true gradient term by term.

Sizes are primes of this file's own, so that a factor read off them names its size. Trials come in
groups that share their scalar inputs, so that a factor that depends on those can be read, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from jaxnn.types import PyTree
from jaxnn.verify.claims import Claim, at_path, learning_rate_name
from jaxnn.verify.comparison import one_trial, subject
from jaxnn.verify.diagnosis.ablation import Ablation, Mistake
from jaxnn.verify.diagnosis.anatomy import Anatomy
from jaxnn.verify.diagnosis.terms import Term, active_inputs, split
from jaxnn.verify.graph import evaluate, trace
from jaxnn.verify.inputs import Input, draw, fixed_sizes, is_input, symbols
from jaxnn.verify.quick import jit
from jaxnn.verify.reference import is_rule, reference

GROUPS, PER_GROUP = 4, 8
MOST_PAIRS = 2000
_NOT_IN_PAIRS = ("unknown", "factor", "sign", "wrong_value")
"""Coefficients see to factors and signs; two exchanged values explain too much."""
_PRIMES = (5, 3, 7, 11, 13, 17, 19, 23)

Leaves = list[np.ndarray]
"""Arrays [T, ...], one for each leaf of the parameters."""


class Sample(NamedTuple):
    """Claim and truth at trials of one choice of sizes."""

    choice: int
    sizes: dict[str, int]
    scalars: list[dict[str, float]]  # per group
    claimed: Leaves  # of an update: the gradient that the step was made with
    terms: list[Leaves]  # the gradient of each term of the objective
    parameters: Leaves | None  # the parameters themselves, where a gradient has their shape
    flat: list[np.ndarray]  # the flat inputs


class Program(NamedTuple):
    """A claim at one choice of sizes, ready to be sampled."""

    sizes: dict[str, int]
    terms: list[Term]
    run: Callable[..., Any]
    names: tuple[str, ...]
    value_ranks: tuple[int, ...]


def diagnosis_sizes(claimed: Claim, choice: int) -> dict[str, int]:
    """Distinct primes, in another order for another choice; choice 2 has 11, 2 and 4."""
    names = symbols(claimed.inputs)
    taken = fixed_sizes(claimed.inputs)
    pool = [p for p in ((11, 2, 4, 3, 6, 8, 9) if choice == 2 else _PRIMES) if p not in taken]
    pool = pool[: len(names) + 1]
    shift = choice % len(pool) if choice < 2 else 0
    return dict(zip(names, pool[shift:] + pool[:shift], strict=False))


@lru_cache(maxsize=16)
def program(claimed: Claim, choice: int) -> Program:
    """Compiles a claim and the terms of its objective."""
    sizes = diagnosis_sizes(claimed, choice)
    one = one_trial(claimed, sizes)
    side = subject(claimed, tuple(sizes.items()), both=False)
    structure = jax.tree.structure(one)
    terms = split(claimed, one)
    rule = is_rule(claimed, one)
    slope_claim = _as_gradient(claimed, rule)

    def sides(*flat: Any) -> tuple[PyTree, list[PyTree]]:
        inputs = jax.tree.unflatten(structure, flat)
        value = core.jaxpr_as_fun(side.claimed)(*flat)
        slopes = [jax.tree.leaves(reference(slope_claim, of=_of(term))(inputs)) for term in terms]
        parts = [jnp.asarray(p) for p in jax.tree.leaves([at_path(inputs, w) for w in claimed.wrt])]
        if rule:
            return value, [parts, [s - p for s, p in zip(slopes[0], parts, strict=True)]]
        rate = learning_rate_name(claimed)
        if claimed.kind == "update" and rate is not None and _alike(value, parts):
            value = [(p - v) / inputs[rate] for v, p in zip(value, parts, strict=True)]
        return value, slopes

    if rule:
        terms = [terms[0]._replace(name="the parameter"), terms[0]._replace(name="the step")]
    return Program(sizes, terms, jit(jax.vmap(sides)), side.names, side.value_ranks)


def sample(claimed: Claim, choice: int, seed: int, unconstrained: bool = False) -> Sample:
    """Trials of one choice of sizes.

    Args:
      claimed: the claim.
      choice: of the sizes.
      seed: of the trials.
      unconstrained: any numbers in place of probabilities, one-hot vectors and zeros and ones.
    """
    ready = program(claimed, choice)
    rng = np.random.default_rng([seed, choice])
    inputs = dict(claimed.inputs)
    if unconstrained:
        inputs = jax.tree.map(_unconstrained, inputs, is_leaf=is_input)
    drawn = draw(inputs, ready.sizes, GROUPS * PER_GROUP, rng, spreads=(1.0,))
    scalars: list[dict[str, float]] = [{} for _ in range(GROUPS)]
    for name, generator in claimed.inputs.items():
        shared = is_input(generator) and generator.shape == () and name not in claimed.wrt
        if shared and generator.kind in ("real", "positive"):
            drawn[name] = np.repeat(drawn[name][::PER_GROUP], PER_GROUP)
            for group in range(GROUPS):
                scalars[group][name] = float(drawn[name][group * PER_GROUP])
    value, terms = ready.run(*jax.tree.leaves(drawn))
    smooth = _smooth(ready, jax.tree.leaves(drawn), terms, rng)
    drawn, value, terms = jax.tree.map(lambda a: np.asarray(a)[smooth], (drawn, value, terms))
    parts = [at_path(drawn, path) for path in claimed.wrt]
    return Sample(
        choice,
        ready.sizes,
        scalars,
        value,
        terms,
        jax.tree.leaves(parts) if claimed.kind in ("gradient", "update") else None,
        jax.tree.leaves(drawn),
    )


def _smooth(
    ready: Program, flat: list[np.ndarray], terms: list[Leaves], rng: np.random.Generator
) -> np.ndarray:
    """The numbers of the trials away from kinks, in place of one at a kink another of its group."""
    beside = [
        v * (1 + 1e-9 * rng.normal(size=v.shape)) + 1e-12 * rng.normal(size=v.shape)
        if v.dtype == float
        else v
        for v in flat
    ]
    smooth = np.ones(len(flat[0]), bool)
    _, there = ready.run(*beside)
    for a, b in zip(jax.tree.leaves(terms), jax.tree.leaves(there), strict=True):
        a, b = (np.asarray(side).reshape(len(smooth), -1) for side in (a, b))
        with np.errstate(invalid="ignore", over="ignore"):
            jump, size = np.abs(a - b).max(axis=1, initial=0), np.abs(a).max(axis=1, initial=0)
            smooth &= ~(jump > 1e-5 * (1e-3 + size))
    kept = np.arange(len(smooth))
    for group in np.split(kept.copy(), GROUPS):
        good = group[smooth[group]]
        if len(good):
            kept[group] = np.where(smooth[group], group, np.resize(good, len(group)))
    return kept


class Mistaken(NamedTuple):
    """The gradients of a term with one mistake each in the backward pass."""

    term: int
    mistakes: list[tuple[Mistake, ...]]
    leaves: Leaves  # [T, mistakes, ...]


@lru_cache(maxsize=8)
def _ablations(claimed: Claim, choice: int) -> list[tuple[int, Ablation, Callable[..., Any]]]:
    ready = program(claimed, choice)
    one = one_trial(claimed, ready.sizes)
    if claimed.kind == "value" or is_rule(claimed, one):
        return []
    structure = jax.tree.structure(one)
    names = input_names(one)
    slope_claim = _as_gradient(claimed, False)
    if claimed.kind == "hessian":
        slope_claim = replace(claimed, kind="jacobian")
    rng = np.random.default_rng(0)
    trials = jax.tree.leaves(draw(dict(claimed.inputs), ready.sizes, 4, rng, spreads=(1.0,)))
    ablations = []
    for number, term in enumerate(ready.terms):
        if term.penalty:
            continue
        graph = term.graph
        if claimed.kind == "hessian":  # the mistake is made in differentiating the gradient
            gradient = reference(replace(claimed, kind="gradient"), of=_of(term))
            graph = trace(gradient, one)
            if len(graph.outputs) != 1:
                continue
        ablation = Ablation(Anatomy(graph, names, active_inputs(claimed), trials))

        def mistaken(settings, *flat, ablation=ablation):
            inputs = jax.tree.unflatten(structure, flat)

            def of(inputs: Any) -> Any:
                return ablation.evaluate(settings, jax.tree.leaves(inputs))[0]

            return jax.tree.leaves(reference(slope_claim, of=of)(inputs))

        over_settings = jax.vmap(mistaken, in_axes=(0, *[None] * len(names)))
        over_trials = jax.vmap(over_settings, in_axes=(None, *[0] * len(names)))
        ablations.append((number, ablation, jit(over_trials)))
    return ablations


def mistaken(claimed: Claim, at: Sample, pairs: bool) -> list[Mistaken]:
    """The gradients with every single mistake, or every pair of those that have a name."""
    results = []
    for term, ablation, run in _ablations(claimed, at.choice):
        combinations = [(m,) for m in ablation.mistakes]
        if pairs:
            named = [m for m in ablation.mistakes if m.code not in _NOT_IN_PAIRS]
            combinations = [
                (a, b) for i, a in enumerate(named) for b in named[i + 1 :] if a.knob != b.knob
            ][:MOST_PAIRS]
        if not combinations:
            continue
        settings = np.zeros((len(combinations), ablation.knobs))
        for row, combination in enumerate(combinations):
            for mistake in combination:
                settings[row, mistake.knob] = mistake.setting
        leaves = _in_chunks(run, settings, len(ablation.mistakes), at.flat)
        results.append((term, combinations, leaves))
    return [Mistaken(*result) for result in results]


def _in_chunks(
    run: Callable[..., Any], settings: np.ndarray, rows: int, flat: Sequence[np.ndarray]
) -> Leaves:
    """The gradients for all settings, always as many at once, so that one program serves."""
    chunks = []
    for start in range(0, len(settings), rows):
        chunk = settings[start : start + rows]
        padded = np.concatenate([chunk, np.zeros((rows - len(chunk), settings.shape[1]))])
        chunks.append([np.asarray(leaf)[:, : len(chunk)] for leaf in run(padded, *flat)])
    return [np.concatenate(leaves, axis=1) for leaves in zip(*chunks, strict=True)]


def _of(term: Term) -> Callable[[PyTree], Any]:

    def of(inputs: PyTree) -> Any:
        values = evaluate(term.graph, jax.tree.leaves(inputs))
        return values[0] if len(values) == 1 else values

    return of


def structure(claimed: Claim) -> Any:
    """The tree of the claim's inputs."""
    return jax.tree.structure(dict(claimed.inputs), is_leaf=is_input)


def _unconstrained(generator: Input) -> Input:
    free = generator.kind in ("simplex", "one_hot", "binary")
    return Input("real", generator.shape) if free else generator


def _as_gradient(claimed: Claim, rule: bool) -> Claim:
    """For an update of an objective: the claim about its gradient."""
    if claimed.kind != "update":
        return claimed
    return replace(claimed, kind="value" if rule else "gradient", rate=None)


def _alike(value: Sequence[Any], parts: Sequence[Any]) -> bool:
    return [v.shape for v in value] == [p.shape for p in parts]


def input_names(one: dict[str, PyTree]) -> list[str]:
    """What the flat inputs are called."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree.flatten_with_path(one)[0]
    ]
