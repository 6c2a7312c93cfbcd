"""The truth with something wrong in it: in another layout, its diagonal, a mistake on the way."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxnn.verify import layouts
from jaxnn.verify.claims import Claim
from jaxnn.verify.comparison import arranged
from jaxnn.verify.diagnosis import sampling
from jaxnn.verify.diagnosis.fitting import TOLERANCE, fit
from jaxnn.verify.diagnosis.sampling import GROUPS, Leaves, Sample
from jaxnn.verify.layouts import Layout, declared
from jaxnn.verify.verdict import Finding


class Hypothesis(NamedTuple):
    """A way to get the derivative wrong, to be combined with coefficients of the terms."""

    findings: tuple[Finding, ...]  # none: the truth itself
    terms: Callable[[Sample], Sequence[Leaves] | None]  # in the claim's layout, if it can be made


def truth(claimed: Claim) -> Hypothesis:
    """The derivative as it is, in the claim's declared layout."""
    return Hypothesis((), lambda sample: [_stated(claimed, sample, t) for t in sample.terms])


def transforms(claimed: Claim, sample: Sample) -> Iterator[Hypothesis]:
    """The derivative in every other layout, and its diagonal.

    Args:
      claimed: the claim.
      sample: any, for the shapes.
    """
    ranks = sampling.program(claimed, sample.choice).value_ranks
    widest = max((leaf.shape[1:] for leaf in sample.terms[0]), key=len, default=())
    known = list(layouts.others(widest, max(ranks, default=0)))

    def everywhere(way: Callable[[np.ndarray, int], np.ndarray | None]):
        def terms(sample: Sample) -> Sequence[Leaves]:
            return [
                [
                    _as_claimed(way(leaf, rank), leaf, c)
                    for leaf, rank, c in zip(term, ranks, sample.claimed, strict=True)
                ]
                for term in sample.terms
            ]

        return terms

    for number, layout in enumerate(known):

        def way(leaf: np.ndarray, rank: int, number: int = number) -> np.ndarray | None:
            every = list(layouts.others(leaf.shape[1:], rank))
            return arranged(every[number].arrange, leaf) if number < len(every) else None

        found = Finding(layout.code, "", f"it is {layout.name}")
        yield Hypothesis((found,), everywhere(way))
    off = Finding("diagonal_only", "", "the entries off the diagonal are dropped")
    yield Hypothesis((off,), everywhere(lambda leaf, rank: _diagonal(leaf)))


def mistakes(claimed: Claim, sample: Sample, pairs: bool) -> Iterator[Hypothesis]:
    """The derivative with a mistake in the backward pass, if that may explain a leaf of the claim.

    Args:
      claimed: the claim.
      sample: of the claim, for a first look.
      pairs: two mistakes at once rather than one.
    """
    tables: dict[int, _Table] = {}

    def terms(sample: Sample, key: tuple) -> Sequence[Leaves] | None:
        if id(sample) not in tables:
            tables[id(sample)] = _table(claimed, sample, pairs)
        if key not in tables[id(sample)]:
            return None
        number, leaves = tables[id(sample)][key]
        varied = [_stated(claimed, sample, term) for term in sample.terms]
        varied[number] = _stated(claimed, sample, leaves)
        return varied

    true = truth(claimed).terms(sample) or []
    terms(sample, ())
    for key in tables[id(sample)]:
        varied = terms(sample, key) or []
        if any(
            not unchanged(varied, true, leaf) and _fits(target, varied, leaf)
            for leaf, target in enumerate(sample.claimed)
        ):
            found = tuple(Finding(m.code, m.where, m.detail) for m in key[1:])
            yield Hypothesis(found, lambda sample, key=key: terms(sample, key))


def shape_problem(claimed: Claim, sample: Sample) -> Finding | None:
    """What is wrong if no layout of the derivative has the formula's shape."""
    ready = sampling.program(claimed, sample.choice)
    true = sample.terms[0]
    if len(sample.claimed) != len(true):
        what = f"the formula returns {len(sample.claimed)} arrays, expected {len(true)}"
        return Finding("shape", ", ".join(ready.names), what)
    for leaf, (name, rank) in enumerate(zip(ready.names, ready.value_ranks, strict=True)):
        c, t = sample.claimed[leaf], true[leaf]
        stated = Layout("", "", declared(claimed.layout, rank))
        if not any(
            layouts.same_shape(c.shape[1:], arranged(layout.arrange, t).shape[1:])
            for layout in (stated, *layouts.others(t.shape[1:], rank))
        ):
            detail = f"it has shape {c.shape[1:]}, the derivative {t.shape[1:]}"
            if sample.sizes:
                listed = ", ".join(f"{size} = {number}" for size, number in sample.sizes.items())
                detail += f" ({listed})"
            total = np.sum([term[leaf] for term in sample.terms], axis=0)
            for axis in range(1, c.ndim):
                summed = c.sum(axis=axis)
                if summed.shape == total.shape and same(summed, total):
                    detail += f": the sum over its axis {axis - 1} is missing"
            return Finding("shape", name, detail)
    return None


def unchanged(varied: Sequence[Leaves], true: Sequence[Leaves], leaf: int) -> bool:
    """Whether a hypothesis leaves one leaf as it is."""
    return all(same(a[leaf], b[leaf]) for a, b in zip(varied, true, strict=True))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays are equal to rounding."""
    with np.errstate(over="ignore", invalid="ignore"):
        return a.shape == b.shape and bool(np.linalg.norm(a - b) <= TOLERANCE * np.linalg.norm(b))


_Table = dict[tuple, tuple[int, Leaves]]
"""(Term, mistake, ...) -> (term, its gradient with these mistakes)."""


def _table(claimed: Claim, sample: Sample, pairs: bool) -> _Table:
    table: _Table = {}
    for term, combinations, leaves in sampling.mistaken(claimed, sample, pairs):
        for row, combination in enumerate(combinations):
            key = (term, *combination)
            table.setdefault(key, (term, [leaf[:, row] for leaf in leaves]))
    return table


def _stated(claimed: Claim, sample: Sample, leaves: Leaves) -> Leaves:
    """Leaves in the claim's declared layout."""
    ranks = sampling.program(claimed, sample.choice).value_ranks
    return [
        _as_claimed(arranged(declared(claimed.layout, rank), leaf), leaf, c)
        for leaf, rank, c in zip(leaves, ranks, sample.claimed, strict=True)
    ]


def _as_claimed(array: np.ndarray | None, leaf: np.ndarray, claimed: np.ndarray) -> np.ndarray:
    """A leaf in another layout, with the claim's axes of length 1; as it is where it has none."""
    array = leaf if array is None else array
    if layouts.same_shape(array.shape[1:], claimed.shape[1:]):
        return array.reshape(claimed.shape)
    return array


def _diagonal(leaf: np.ndarray) -> np.ndarray | None:
    if leaf.ndim != 3 or leaf.shape[1] != leaf.shape[2]:
        return None
    return leaf * np.eye(leaf.shape[1])


def _fits(target: np.ndarray, terms: Sequence[Leaves], leaf: int) -> bool:
    columns = [term[leaf] for term in terms]
    return all(c.shape == target.shape for c in columns) and (
        fit(target, columns, GROUPS) is not None
    )
