"""Trials as points of figures: what they scored, where they lie along an axis, in which colour."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from jaxnn.figures import log_scale
from jaxnn.search.domain import Domain
from jaxnn.search.reporting.report import cell, loss_name
from jaxnn.search.space import Config

if TYPE_CHECKING:
    from jaxnn.search.result import Result

COLOUR_MAP = "viridis"  # dark is good; readable without colour vision, and in print
FAR = 1000.0  # times the best: beyond it a score says no more than that of a diverged trial
_JITTER = 0.25  # of trials with the same option, in cells


class Point(NamedTuple):
    """A trial as figures show it."""

    number: int
    config: Config
    score: float  # in the unit of ``measure``; inf if it diverged or is far off
    complete: bool  # trained to the end

    @property
    def lost(self) -> bool:
        """Whether it has no score to show."""
        return not math.isfinite(self.score)


def points(result: "Result") -> list[Point]:
    """All trials, in the order of their numbers."""
    task = result.task
    limit = FAR * score(result, result.best.trial) or math.inf
    found = []
    for number, curve in sorted(result.curves.items()):
        value = score(result, number)
        complete = curve.evaluations[-1] == task.evaluations
        shown = value if value <= limit else math.inf
        found.append(Point(number, curve.trial.config, shown, complete))
    return found


def best_points(shown: Sequence[Point], count: int) -> list[Point]:
    """The best of them, the best first."""
    scored = [point for point in shown if not point.lost]
    return sorted(scored, key=lambda point: (point.score, point.number))[:count]


def lost_label(result: "Result", shown: Sequence[Point]) -> str:
    """Why some of them have no score to show."""
    far = any(point.lost and not result.curves[point.number].diverged for point in shown)
    return f"diverged, or {FAR:g} times worse" if far else "diverged"


def score(result: "Result", number: int) -> float:
    """A trial's score in the unit of ``measure``; inf if it diverged."""
    return unit(result) * result.curves[number].score(result.task.measure)


def unit(result: "Result") -> float:
    """What scores are multiplied by to be shown: errors are in percent."""
    return 100.0 if result.task.measure == "error" else 1.0


def measure(result: "Result") -> str:
    """What was minimised, with its unit."""
    if result.task.measure == "error":
        return "validation error (%)"
    name = "loss" if "loss" in result.space.searched else loss_name(result)
    nats = " (nats)" if name == "cross_entropy" else ""
    return f"validation {name.replace('cross_', 'cross-').replace('_', ' ')}{nats}"


def measure_scale(axis: XAxis | YAxis, values: np.ndarray) -> None:
    """A logarithmic axis where values are far apart, otherwise a linear one."""
    if values.min() >= 0 and values.max() > 3 * values.min():
        log_scale(axis, values)
    else:
        axis.set_major_formatter("{x:g}")


def colours(scores: np.ndarray) -> Normalize:
    """From scores to colours; the worst fifth shares one, so that the good ones differ."""
    low, high = float(scores.min()), float(np.quantile(scores, 0.8))
    high = max(high, low + 1e-3 * abs(low) or 1e-3)
    return LogNorm(low, high) if 0 < 3 * low < high else Normalize(low, high)


def colour_bar(figure: Figure, axes: Axes, norm: Normalize, scores: np.ndarray, label: str) -> None:
    """The legend of ``colours``."""
    bar = figure.colorbar(
        ScalarMappable(norm, COLOUR_MAP),
        ax=axes,
        label=label,
        extend="max" if norm.vmax is not None and scores.max() > norm.vmax else "neither",
        ticks=LogLocator(subs=(1, 2, 5)) if isinstance(norm, LogNorm) else MaxNLocator(6),
        format="{x:g}",
    )
    bar.minorticks_off()


def is_listed(domain: Domain) -> bool:
    """Whether its values are options rather than numbers along a line."""
    return domain.kind in ("choice", "fixed")


def positions(name: str, domain: Domain, shown: Sequence[Point]) -> np.ndarray:
    """Where trials lie along the axis of a hyperparameter that all of them have."""
    if not is_listed(domain):
        return np.array([point.config[name] for point in shown], float)
    return np.array([domain.values.index(p.config[name]) + jitter(p.number) for p in shown], float)


def set_up(axis: XAxis | YAxis, name: str, domain: Domain) -> None:
    """The axis of a hyperparameter: its whole range, its scale, its options."""
    conditions = [f"{other}: {', '.join(map(cell, values))}" for other, values in domain.conditions]
    axis.set_label_text("\n".join([name, *(f"({condition})" for condition in conditions)]))
    limits, pad = (domain.low, domain.high), 0.05 * (domain.high - domain.low)
    if is_listed(domain):
        limits, pad = (0, len(domain.values) - 1), 0.5
        axis.set_ticks(range(len(domain.values)), [cell(option) for option in domain.values])
    elif domain.kind == "log_uniform":
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        factor = (domain.high / domain.low) ** 0.05
        limits, pad = (domain.low / factor, domain.high * factor), 0
    else:
        axis.set_major_locator(MaxNLocator(5, integer=domain.kind == "integer"))
    axis.axes.set(**{f"{axis.axis_name}lim": (limits[0] - pad, limits[1] + pad)})


def jitter(number: int) -> float:
    """An offset that keeps trials with the same option apart, the same in every figure."""
    golden = (math.sqrt(5) - 1) / 2
    return _JITTER * (2 * (number * golden % 1) - 1)


def leave_room(axis: XAxis | YAxis) -> None:
    """Makes an axis longer at its upper end, where trials are marked that have no score."""
    transform = axis.get_transform()
    low, high = transform.transform(np.array(axis.get_view_interval()))
    ends = transform.inverted().transform(np.array([low, high + 0.12 * (high - low)]))
    axis.axes.set(**{f"{axis.axis_name}lim": tuple(ends)})


def frame(axes: Axes) -> None:
    """A quiet grid, and no lines where nothing is measured."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
