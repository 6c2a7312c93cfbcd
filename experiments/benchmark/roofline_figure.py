"""The roofline as a figure: what was reached, below what the machine allows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmark.bandwidth import at, size_name
from jaxnn.figures import COLOURS

if TYPE_CHECKING:
    from experiments.benchmark.parts.roofline import Line

OURS, THEIRS, ROOF = COLOURS[0], COLOURS[1], "0.45"
NAME_HEIGHT, FRAME = 0.19, 0.9  # inches: of a name, and of what is above and below a panel
BESIDE: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": ROOF}


class Point(NamedTuple):
    """A place in a panel; both coordinates are logarithmic."""

    intensity: float  # FLOP per byte
    rate: float  # GFLOP/s of one device
    line: "Line"


def roofline_figure(machine: Mapping[str, Any], groups: Mapping[str, Sequence["Line"]]) -> Figure:
    """A panel for each group of lines, one below the other.

    Args:
      machine: the ceilings, as ``parts.roofline`` measured them.
      groups: the lines by the title of their panel.
    """
    heights = [FRAME + inner_height(len({line.series for line in g})) for g in groups.values()]
    figure = Figure(figsize=(9.5, sum(heights)), dpi=120, layout="constrained")
    panels = np.ravel(figure.subplots(len(groups), squeeze=False, height_ratios=heights))
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        panel(axes, machine, title, [point(line, machine) for line in group])
    return figure


def inner_height(names: int) -> float:
    """Of a panel in inches, so that there is room for the names beside it."""
    return max(3.7, NAME_HEIGHT * names)


def point(line: "Line", machine: Mapping[str, Any]) -> Point:
    """Where a line is: its rate is divided by the devices that it had."""
    bound = line.bound
    rate = bound.flops / bound.measured / 1e3 / (bound.share * machine["devices"])
    return Point(bound.intensity, rate, line)


def panel(axes: Axes, machine: Mapping[str, Any], title: str, points: Sequence[Point]) -> None:
    """The roofs and the points, joined where they differ in the number of models alone."""
    peak = machine["peak_gflops"]["median"] / machine["devices"]
    intensities, rates = zip(*((p.intensity, p.rate) for p in points), strict=True)
    axes.set(
        title=f"{title} (name: measured time / bound)",
        xscale="log",
        yscale="log",
        xlim=(min(*intensities, 4) / 2, 2 * max(*intensities, 64)),
        ylim=(min(*rates, peak / 10) / 1.5, 2 * peak),
        xlabel="FLOP per byte",
        ylabel=f"GFLOP/s per {'core' if machine['platform'] == 'cpu' else 'device'}",
    )
    draw_roofs(axes, machine, peak)
    series: dict[str, list[Point]] = {}
    for each in points:
        series.setdefault(each.line.series, []).append(each)
    for members in series.values():
        members.sort(key=lambda p: p.line.row["models"])
        style = {"marker": "o", "markersize": 5, "linewidth": 0.8}
        places = [p.intensity for p in members], [p.rate for p in members]
        axes.plot(*places, color=colour(members[0]), **style)
    add_names(axes, [members[-1] for members in series.values()])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def colour(of: Point) -> str:
    """Ours or theirs."""
    return OURS if of.line.row["contender"] == "jaxnn" else THEIRS


def draw_roofs(axes: Axes, machine: Mapping[str, Any], peak: float) -> None:
    """The peak, and a slope for each working set that is slow enough to be seen."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    axes.plot([left, right], [peak, peak], color=ROOF, linewidth=1.4)
    axes.annotate("peak", (right, peak), (-2, 3), **BESIDE, ha="right")
    for entry in machine["bandwidth"]:
        slope = at(machine["bandwidth"], entry["bytes"]) / machine["devices"]
        ridge = peak / slope
        if left < ridge < right:
            axes.plot([bottom / slope, ridge], [bottom, peak], color=ROOF, linewidth=0.7, ls="--")
            axes.annotate(
                size_name(entry["bytes"]), (ridge, peak), (0, 3), **BESIDE, ha="left", rotation=50
            )


def add_names(axes: Axes, points: Sequence[Point]) -> None:
    """Names and distances in a column at the right, each joined to its point by a thin line."""
    low, high = np.log(axes.get_ylim())
    points = sorted(points, key=lambda p: p.rate)
    wanted = [(np.log(p.rate) - low) / (high - low) for p in points]
    gap = NAME_HEIGHT / inner_height(len(points))
    for each, height in zip(points, spread(wanted, gap), strict=True):
        axes.annotate(
            f"{each.line.series}: {each.line.bound.distance:.3g}",
            (each.intensity, each.rate),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=colour(each),
            arrowprops={"arrowstyle": "-", "color": colour(each), "lw": 0.5, "relpos": (0, 0.5)},
            annotation_clip=False,
        )


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Heights at least a gap apart, near the wanted ones, which ascend; at most 1 if they can."""
    heights: list[float] = []
    for index, height in enumerate(wanted):
        room = 1 - gap * (len(wanted) - 1 - index)
        heights.append(max(min(height, room), heights[-1] + gap if heights else 0))
    return heights
