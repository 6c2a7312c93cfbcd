"""Wrong derivatives: in a wrong layout, cut down to the diagonal, with a mistake on the way."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from itertools import chain, permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.black_box import BlackBox, as_numpy
from jaxnn.verify.comparison import (
    alternative_layouts,
    arranged,
    declared_layout,
    reference,
    same_shape,
    trace_claim,
)
from jaxnn.verify.diagnosis.ablation import Ablation, Mistakes, backward_mistakes
from jaxnn.verify.diagnosis.evaluated_graph import function_of
from jaxnn.verify.diagnosis.factors import Columns, fit
from jaxnn.verify.diagnosis.trials import GROUPS, Leaves, Program, Sample, same
from jaxnn.verify.graph import build_graph
from jaxnn.verify.translation import edits
from jaxnn.verify.verdict import Finding

Arrange = Callable[[np.ndarray, int], np.ndarray]
"""(Leaf [T, ...], rank of the function's value) -> the leaf in another layout."""


class Hypothesis(NamedTuple):
    """A wrong derivative, to be combined with factors of the terms."""

    findings: tuple[Finding, ...]  # none: the right derivative
    terms: Callable[[Sample], list[Leaves]]  # in the claim's layout; may be empty
    scaled: str = ""  # the derivative that is left out, and that a factor may multiply as well


def _stated(sample: Sample, terms: Sequence[Leaves]) -> list[Leaves]:
    layout = partial(declared_layout, sample.program.claim.layout)
    return _arranged(lambda leaf, rank: arranged(layout(rank), leaf), sample, terms)


def _arranged(arrange: Arrange, sample: Sample, terms: Sequence[Leaves]) -> list[Leaves]:
    """Terms with every leaf arranged, with the formula's axes of length 1."""

    def like(formula: np.ndarray, leaf: np.ndarray, rank: int) -> np.ndarray:
        other = arrange(leaf, rank)
        fits = same_shape(other.shape[1:], formula.shape[1:])
        return other.reshape(formula.shape) if fits else other

    ranks = sample.program.value_ranks
    return [list(map(like, sample.formula, term, ranks)) for term in terms]


RIGHT = Hypothesis((), lambda sample: _stated(sample, sample.terms))
"""The right derivative, in the claim's declared layout."""


def right(sample: Sample) -> Leaves:
    """The right derivative, the sum of the terms."""
    return [np.sum(leaves, axis=0) for leaves in zip(*RIGHT.terms(sample), strict=True)]


def rearranged(sample: Sample) -> Iterator[Hypothesis]:
    """The derivative in every wrong layout, and the derivative's diagonal."""
    widest = max((leaf.shape[1:] for leaf in sample.terms[0]), key=len, default=())

    def hypothesis(code: str, detail: str, arrange: Arrange) -> Hypothesis:
        finding = Finding(code, "", detail)
        return Hypothesis((finding,), lambda sample: _arranged(arrange, sample, sample.terms))

    layouts = alternative_layouts(widest, max(sample.program.value_ranks, default=0))
    for number, layout in enumerate(layouts):
        detail = f"the formula is {layout.name}"
        yield hypothesis(layout.code, detail, partial(_in_layout, number))
    for code, detail, combine in _OF_SQUARES:
        yield hypothesis(code, detail, partial(_of_squares, combine))


def _in_layout(number: int, leaf: np.ndarray, rank: int) -> np.ndarray:
    every = list(alternative_layouts(leaf.shape[1:], rank))
    return arranged(every[number].arrange, leaf) if number < len(every) else leaf


def _of_squares(combine: Callable[[Any, Any], Any], leaf: np.ndarray, rank: int) -> np.ndarray:
    """A square leaf combined with the transpose."""
    del rank
    square = leaf.ndim == 3 and leaf.shape[1] == leaf.shape[2]
    return combine(leaf, np.swapaxes(leaf, 1, 2)) if square else leaf


_OF_SQUARES: tuple[tuple[str, str, Callable[[Any, Any], Any]], ...] = (
    (
        "diagonal_only",
        "the entries off the diagonal are dropped",
        lambda a, b: a * np.eye(a.shape[1]),
    ),
    (
        "symmetric_part",
        "the formula is the symmetric part of the derivative",
        lambda a, b: (a + b) / 2,
    ),
    (
        "symmetric_part",
        "the matrix is taken for symmetric: G + G^T - diag(G) for the derivative G",
        lambda a, b: (a + b) * (1 - np.eye(a.shape[1]) / 2),
    ),
)


def count_problem(sample: Sample) -> Finding | None:
    """The mistake in a formula with too few or too many leaves."""
    returned, expected = len(sample.formula), len(sample.program.names)
    detail = f"the formula returns {returned} arrays, expected {expected}"
    where = ", ".join(sample.program.names)
    return None if returned == expected else Finding("shape", where, detail)


def shape_problems(sample: Sample) -> Iterator[tuple[int, Finding]]:
    """The leaves of the formula with the shape of the derivative in no layout."""
    ready = sample.program
    gradients = [np.sum(leaves, axis=0) for leaves in zip(*sample.terms, strict=True)]
    leaves = zip(ready.names, ready.value_ranks, sample.formula, gradients, strict=True)
    for leaf, (name, rank, formula, gradient) in enumerate(leaves):
        layouts = [layout.arrange for layout in alternative_layouts(gradient.shape[1:], rank)]
        layouts.append(declared_layout(ready.claim.layout, rank))
        known = [arranged(arrange, gradient).shape[1:] for arrange in layouts]
        if not any(same_shape(formula.shape[1:], shape) for shape in known):
            yield leaf, Finding("shape", name, _shapes_differ(ready.sizes, formula, gradient))


def exchanged_leaves(samples: Sequence[Sample]) -> Iterator[tuple[int, Finding]]:
    """The leaves of the formula with the derivative by another parameter."""
    names, true = samples[0].program.names, [right(sample) for sample in samples]
    for leaf, other in permutations(range(len(names)), 2):
        pairs = zip(samples, true, strict=True)
        if all(same(s.formula[leaf], t[other]) for s, t in pairs):
            detail = f"the derivative by {names[other]} is in the place of {names[leaf]}"
            yield leaf, Finding("exchanged", names[leaf], detail)


MOVED = {"broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose"}


def _missing(program: Program, number: int) -> str:
    """``missing_bias`` for an input added to other values, or subtracted, else ``missing_term``."""
    graph = function_of(program).graph
    same = {graph.inputs[number]}
    for node in graph.nodes:
        if not same.isdisjoint(node.operands):
            subtracted = node.primitive.name == "sub" and node.operands[1] in same
            if node.primitive.name == "add" or subtracted:
                return "missing_bias"
            same.update(node.results if node.primitive.name in MOVED else ())
    return "missing_term"


def conditions(samples: Sequence[Sample], parameters: bool) -> Iterator[tuple[int, Finding]]:
    """(Leaf, mistake) where the formula ignores an input, or takes a matrix for symmetric.

    A formula that does not depend on an input, and is right where the input is 1 or 0, leaves out
    a factor or a summand. The inputs are the parameters of the derivative, or the other inputs.
    """
    ready = samples[0].program
    moved = [re.split(r"[.\[]", path)[0] for path in ready.claim.wrt]
    for number, (name, shape) in enumerate(
        zip(ready.inputs, jax.tree.leaves(ready.shapes), strict=True)
    ):
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            continue
        ways: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = []
        if parameters == (name.split(".")[0] in moved):
            as_if, left_out = f"the formula is as if {name} were", ": the factor is left out"
            ways.append((_missing(ready, number), f"{as_if} 0", np.zeros_like))
            ways.append(("factor", f"{as_if} 1{left_out}", np.ones_like))
        if parameters and len(shape.shape) == 2 and shape.shape[0] == shape.shape[1]:
            other = f"the formula has the transpose of {name}, or {name} for the transpose"
            detail = f"{name} is taken for symmetric: right only where {name} is"
            ways.append(("transpose", other, lambda a: np.swapaxes(a, 1, 2)))
            ways.append(("symmetric_part", detail, lambda a: (a + np.swapaxes(a, 1, 2)) / 2))
        found: set[int] = set()
        for code, detail, change in ways:
            changed = [_with_input(sample, number, change) for sample in samples]
            for leaf in set(range(len(samples[0].formula))) - found:
                pairs = list(zip(samples, changed, strict=True))
                ignored = all(same(b.formula[leaf], a.formula[leaf]) for a, b in pairs)
                # A transpose in the formula alone; other changes in formula and function.
                true = [right(a if code == "transpose" else b)[leaf] for a, b in pairs]
                if (ignored or code in ("transpose", "symmetric_part")) and all(
                    np.any(b.formula[leaf]) and same(b.formula[leaf], t)
                    for b, t in zip(changed, true, strict=True)
                ):
                    found.add(leaf)
                    yield leaf, Finding(code, name, detail)


def _with_input(sample: Sample, number: int, change: Callable[[np.ndarray], np.ndarray]) -> Sample:
    """A sample with a changed input, by number."""
    flat = [change(v) if i == number else v for i, v in enumerate(sample.flat)]
    formula, terms, _ = jax.tree.map(np.asarray, sample.program.run(*flat))
    return replace(sample, formula=formula, terms=terms, flat=flat)


def statements(samples: Sequence[Sample]) -> Iterator[tuple[int, Finding]]:
    """(Leaf, mistake) where NumPy code with another statement is right."""
    claim, sizes = samples[0].program.claim, tuple(samples[0].program.sizes.items())
    if trace_claim(claim, sizes, both_modes=False).black_box is None or claim.kind == "update":
        return
    for line, words, formula in edits(claim.formula):
        edited = replace(claim, formula=formula)
        found = [_made_right(sample, BlackBox(edited, as_numpy)) for sample in samples]
        for leaf in frozenset.intersection(*found):
            yield leaf, Finding("wrong_statement", line, f"{line} {words}")


def _made_right(sample: Sample, edited: BlackBox) -> frozenset[int]:
    """The leaves that an edited formula has right, and the formula wrong."""
    true, found = right(sample), frozenset[int]()
    for trials in (1, len(sample.flat[0])):
        try:
            leaves = edited([value[:trials] for value in sample.flat])
        except Exception:
            return frozenset()
        before, after = (_right_at(trials, some, true) for some in (sample.formula, leaves))
        if not before < after:
            return frozenset()
        found = after - before
    return found


def _right_at(trials: int, leaves: Leaves, true: Leaves) -> frozenset[int]:
    """The leaves that are right at the first trials."""
    pairs = enumerate(zip(leaves, true, strict=False))
    return frozenset(n for n, (a, b) in pairs if same(a[:trials], b[:trials]))


def _shapes_differ(sizes: dict[str, int], formula: np.ndarray, gradient: np.ndarray) -> str:
    detail = f"the formula has shape {formula.shape[1:]}, the derivative {gradient.shape[1:]}"
    if sizes:
        detail += f" ({', '.join(f'{name} = {size}' for name, size in sizes.items())})"
    for axis in range(1, formula.ndim):
        if same(formula.sum(axis=axis), gradient):
            detail += f": the sum over axis {axis - 1} is missing"
    return detail


def mistaken(sample: Sample, two: bool) -> Iterator[Hypothesis]:
    """The derivative with a mistake, or two, if the mistake explains a leaf of the formula."""
    few = _every_second(sample)
    true, needed, shifts = RIGHT.terms(few), dict[int, list[Mistakes]](), dict[int, Mistakes]()

    def put(sample: Sample, number: int, leaves: Leaves) -> list[Leaves]:
        return _stated(sample, [*sample.terms[:number], leaves, *sample.terms[number + 1 :]])

    def explaining(number: int, made: Sequence[Mistakes]) -> Iterator[Mistakes]:
        ablation = _ablations(sample.program)[number]
        for mistakes, leaves in ablation.leaves(few.flat, made):
            varied = put(few, number, leaves)
            changed = [leaf for leaf in range(len(true[0])) if not unchanged(varied, true, leaf)]
            fitted = (fit(few.formula[n], [term[n] for term in varied], GROUPS) for n in changed)
            findings, scaled = ablation.named(mistakes, shifts.get(number, ()))
            if changed and (scaled or any(f is not None for f in fitted)):
                yield mistakes
            if not changed and len(mistakes) == 1 and findings[0].where.startswith("maximum,"):
                shifts[number] = (*shifts.get(number, ()), *mistakes)

    for number, ablation in _ablations(sample.program).items():
        needed[number] = [*explaining(number, ablation.mistakes(two))]
        shift = shifts.get(number, ())  # of a softmax: constant for everybody who derives by hand
        made = [(n, *shift) for n in range(len(ablation.knobs)) if shift and n not in shift]
        needed[number] += explaining(number, made)

    @cache
    def gradients(sample: Sample) -> dict[tuple[int, Mistakes], Leaves]:
        ablations = _ablations(sample.program)
        small = {n: ablations[n].only({*chain(*some)}) for n, some in needed.items()}
        return {
            (number, mistakes): leaves
            for number, some in needed.items()
            for mistakes, leaves in small[number].leaves(sample.flat, some)
        }

    def terms(number: int, mistakes: Mistakes, sample: Sample) -> list[Leaves]:
        leaves = gradients(sample).get((number, mistakes))
        return [] if leaves is None else put(sample, number, leaves)

    for number, some in needed.items():
        ablation = _ablations(sample.program)[number]
        for mistakes in some:
            findings, scaled = ablation.named(mistakes, shifts.get(number, ()))
            yield Hypothesis(tuple(findings), partial(terms, number, mistakes), scaled)


def _every_second(sample: Sample) -> Sample:
    """Every second trial of each group."""
    kept = (sample.formula, sample.terms, sample.parameters, sample.flat)
    formula, terms, parameters, flat = jax.tree.map(lambda array: array[::2], kept)
    return replace(sample, formula=formula, terms=terms, parameters=parameters, flat=flat)


def split_leaf(hypothesis: Hypothesis, leaf: int, sample: Sample) -> Columns:
    """A leaf of the right derivative: the part that a hypothesis leaves out, and the rest."""
    true = right(sample)[leaf]
    if not hypothesis.findings:
        return {"part": true, "rest": np.zeros_like(true)}
    rest = np.sum([term[leaf] for term in hypothesis.terms(sample)], axis=0)
    return {"part": true - rest, "rest": rest}


def unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    """Whether a hypothesis keeps a leaf of the right derivative."""
    return all(same(a[leaf], b[leaf]) for a, b in zip(varied, true, strict=True))


@lru_cache(maxsize=8)
def _ablations(ready: Program) -> dict[int, Ablation]:
    """The mistakes in the derivatives of the terms of the data, by number of the term."""
    ablations: dict[int, Ablation] = {}
    for number, term in enumerate(ready.terms):
        graph, derivative = term.graph, ready.derivative
        if derivative.kind == "hessian":  # the mistake is made in differentiating the gradient
            gradient = reference(replace(derivative, kind="gradient", entries=None), of=term)
            graph = build_graph(gradient, ready.shapes)
            derivative = replace(derivative, kind="jacobian")
        if derivative.kind != "value" and not term.penalty and len(graph.outputs) == 1:
            ablations[number] = backward_mistakes(ready, graph, derivative)
    return ablations
