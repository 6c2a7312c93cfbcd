"""Parallel coordinates: every trial a line through its hyperparameters to its score."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxnn.figures import COLOURS
from jaxnn.search.domain import Domain
from jaxnn.search.reporting.points import (
    COLOUR_MAP,
    Point,
    colours,
    is_listed,
    jitter,
    lost_label,
    measure,
    points,
)
from jaxnn.search.reporting.report import cell
from jaxnn.search.space import Space

if TYPE_CHECKING:
    from jaxnn.search.result import Result

_BELOW = -0.12  # where lines pass an axis on which they have no value
_LOST = {"color": COLOURS[1], "linestyle": ":", "linewidth": 1.0}
_CHOSEN = {"color": COLOURS[4], "linewidth": 3.0}


def parallel_coordinates(result: "Result") -> Figure | None:
    """Every trial as a line; None unless at least two hyperparameters were searched.

    A trial to which a hyperparameter does not apply passes below its axis; one that diverged ends
    below that of the scores, whose upper end is the best.
    """
    names, shown = result.space.searched, points(result)
    if len(names) < 2:
        return None
    finite = np.array([point.score for point in shown if not point.lost])
    norm, tint, heights = colours(finite), colormaps[COLOUR_MAP], _Heights(finite)
    figure = Figure(figsize=(3 + 1.5 * len(names), 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for point in sorted(shown, key=lambda point: -point.score):  # the best on top
        line = [_height(result.space, name, point) for name in names]
        line.append(_BELOW if point.lost else heights(point.score))
        style = _LOST if point.lost else {"color": tint(norm(point.score)), "linewidth": 1.0}
        axes.plot(line, **style)
        if point.number == result.best.trial:
            chosen = axes.plot(line, **_CHOSEN, zorder=3)
    axes.set(xlim=(-0.5, len(names) + 0.4), ylim=(-0.2, 1.05), yticks=[])
    axes.set_xticks(range(len(names) + 1), [*names, measure(result).replace(" ", "\n", 1)])
    for place, name in enumerate(names):
        absent = any(name not in point.config for point in shown)
        _draw_axis(axes, place, _ticks(result.space[name]), "not used" if absent else None)
    lost = lost_label(result, shown).replace(" ", "\n", 1)
    below = lost if any(point.lost for point in shown) else None
    _draw_axis(axes, len(names), heights.ticks(), below)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.legend(chosen, ["chosen"], loc="lower left", frameon=False)
    return figure


class _Heights:
    """Where scores lie along their axis: the best at 1, the worst at 0."""

    def __init__(self, scores: np.ndarray):
        low, high = float(scores.min()), float(scores.max())
        high = high if high > low else low + 1
        self._norm = LogNorm(low, high) if 0 < 3 * low < high else Normalize(low, high)
        self._locator = LogLocator(subs=(1, 2, 5)) if 0 < 3 * low < high else MaxNLocator(5)
        self._ends = low, high

    def __call__(self, score: float) -> float:
        return 1 - float(self._norm(score))

    def ticks(self) -> list[tuple[float, str]]:
        """Heights and labels, within the axis."""
        low, high = self._ends
        values = self._locator.tick_values(low, high)
        return [(self(value), f"{value:g}") for value in values if low <= value <= high]


def _height(space: Space, name: str, point: Point) -> float:
    """Where a trial passes the axis of a hyperparameter."""
    if name not in point.config:
        return _BELOW
    domain = space[name]
    spread = jitter(point.number) / len(domain.values) if is_listed(domain) else 0
    return domain.where(point.config[name]) + spread


def _ticks(domain: Domain) -> list[tuple[float, str]]:
    """Heights and labels of an axis: options, powers of ten, or round numbers."""
    if is_listed(domain):
        return [(domain.where(option), cell(option)) for option in domain.values]
    low, high = domain.low, domain.high
    locator = LogLocator() if domain.kind == "log_uniform" else MaxNLocator(5)
    if domain.kind == "integer":
        locator = MaxNLocator(5, integer=True)
    values = [v for v in locator.tick_values(low, high) if low <= v <= high]
    values = values if len(values) > 1 else [low, high]
    return [(domain.where(value), f"{value:g}") for value in values]


def _draw_axis(axes: Axes, place: int, ticks: list[tuple[float, str]], below: str | None) -> None:
    """A vertical line, labels at its left, and what passes below it."""
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    text = {"ha": "right", "va": "center", "fontsize": 9, "bbox": box, "zorder": 4}
    axes.plot([place, place], [0, 1], color="0.2", linewidth=1, zorder=2)
    for height, label in ticks:
        axes.plot([place - 0.03, place], [height, height], color="0.2", linewidth=1, zorder=2)
        axes.text(place - 0.05, height, label, **text)
    if below:
        axes.text(place - 0.05, _BELOW, below, **text)
