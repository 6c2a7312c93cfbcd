"""Reads a gradient as a combination of others: by what factor, with which size or scalar in it."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-9
_SNAPS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)


class Coefficient(NamedTuple):
    """A factor c * n^k * ..., with its sizes and scalars by name."""

    value: float  # 0, +-1/2, +-1 or +-2
    powers: tuple[tuple[str, int], ...] = ()

    def at(self, context: Mapping[str, float]) -> float:
        """The factor as a number."""
        return self.value * float(np.prod([context[name] ** k for name, k in self.powers]))

    def __str__(self) -> str:
        """Such as ``-2 n`` or ``1/n``."""
        above = [n if k == 1 else f"{n}^{k}" for n, k in self.powers if k > 0]
        below = [n if k == -1 else f"{n}^{-k}" for n, k in self.powers if k < 0]
        size = {0.5: "1/2", 1.0: "1", 2.0: "2", 0.0: "0"}[abs(self.value)]
        head = " ".join(([] if size == "1" and above else [size]) + above)
        tail = "/" + (below[0] if len(below) == 1 else f"({' '.join(below)})") if below else ""
        return ("-" if self.value < 0 else "") + head + tail


ONE = Coefficient(1.0)


def fit(
    claimed: np.ndarray, columns: Sequence[np.ndarray], groups: int
) -> list[list[float | None]] | None:
    """The coefficients of ``claimed`` as a combination of the columns, in every group of trials.

    Args:
      claimed: [T, ...].
      columns: arrays of the same shape.
      groups: the trials are so many groups, one after the other.

    Returns:
      Per group one coefficient for each column, None for a column of zeros; None if the claim is
      no such combination, or several of them.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        whole = float(np.linalg.norm(claimed))
        sizes = [float(np.linalg.norm(column)) for column in columns]
    if not np.isfinite([whole, *sizes]).all():
        return None
    used = [i for i, size in enumerate(sizes) if size > 1e-12 * max(sizes)]
    if not used:
        none: list[float | None] = [None] * len(columns)
        return [none] * groups if whole == 0 else None
    results = []
    for group in np.split(np.arange(len(claimed)), groups):
        matrix = np.stack([columns[i][group].reshape(-1) for i in used], axis=1)
        target = claimed[group].reshape(-1)
        scale = np.linalg.norm(matrix, axis=0)
        if np.any(scale == 0):
            return None
        solution, _, rank, _ = np.linalg.lstsq(matrix / scale, target, rcond=1e-10)
        if rank < len(used):
            return None
        off = np.linalg.norm(matrix / scale @ solution - target)
        if off > TOLERANCE * max(np.linalg.norm(target), 1e-3 * np.linalg.norm(solution)):
            return None
        coefficients: list[float | None] = [None] * len(columns)
        for i, value in zip(used, solution / scale, strict=True):
            coefficients[i] = float(value)
        results.append(coefficients)
    return results


def recognise(
    values: Sequence[float], contexts: Sequence[Mapping[str, float]]
) -> Coefficient | None:
    """The coefficient that takes these values in these contexts (sizes and scalars by name).

    Sizes come before scalars, few factors before many.
    """
    observed = np.asarray(values)
    if np.all(np.abs(observed) < TOLERANCE):
        return Coefficient(0.0)
    names = list(contexts[0])
    table = {name: np.asarray([context[name] for context in contexts]) for name in names}
    for powers in _monomials(names):
        monomial = np.prod([table[name] ** k for name, k in powers] or [np.ones(1)], axis=0)
        ratio = observed / monomial
        for snap in _SNAPS:
            if np.all(np.abs(ratio - snap) < 4 * TOLERANCE):
                return Coefficient(snap, powers)
    return None


def _monomials(names: Sequence[str]):
    yield ()
    for k in (1, -1):
        for name in names:
            yield ((name, k),)
    for a, b in combinations(names, 2):
        for j in (-1, 1):
            for k in (-1, 1):
                yield ((a, j), (b, k))
    for k in (2, -2):
        for name in names:
            yield ((name, k),)
