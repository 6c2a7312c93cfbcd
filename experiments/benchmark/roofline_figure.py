"""The roofline as a figure: measured rates below the machine's ceilings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmark.bound import Line
from experiments.benchmark.machine import bandwidth_at, size_name
from jaxnn.figures import COLOURS

OURS, THEIRS, ROOF = COLOURS[0], COLOURS[1], "0.45"
NAME_HEIGHT, FRAME = 0.19, 0.9  # inches: of a name, and of titles and labels of a panel
ANNOTATION: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": ROOF}


def roofline_figure(machine: Mapping[str, Any], groups: Mapping[str, Sequence[Line]]) -> Figure:
    """A panel for each group of lines, in a column.

    Args:
      machine: the ceilings, as measured by ``parts.roofline``.
      groups: the lines by the panel's title.
    """
    inner = [max(3.0, NAME_HEIGHT * len({line.series for line in g})) for g in groups.values()]
    heights = [FRAME + height for height in inner]
    figure = Figure(figsize=(9.5, sum(heights)), dpi=75, layout="constrained")
    panels = np.ravel(figure.subplots(len(groups), squeeze=False, height_ratios=heights))
    for axes, (title, group) in zip(panels, groups.items(), strict=True):
        panel(axes, machine, title, group)
    return figure


def rate(line: Line, machine: Mapping[str, Any]) -> float:
    """GFLOP/s of a device of the line."""
    bound = line.bound
    return bound.flops / bound.measured / 1e3 / (bound.share * machine["devices"])


def panel(axes: Axes, machine: Mapping[str, Any], title: str, lines: Sequence[Line]) -> None:
    """The roofs and the lines' points; points of a series are joined."""
    peak = machine["peak_gflops"]["median"] / machine["devices"]
    intensities = [line.bound.intensity for line in lines]
    rates = [rate(line, machine) for line in lines]
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
    series: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.row["models"]):
        series.setdefault(line.series, []).append(line)
    for members in series.values():
        places = [m.bound.intensity for m in members], [rate(m, machine) for m in members]
        axes.plot(*places, color=colour(members[0]), marker="o", markersize=5, linewidth=0.8)
    add_names(axes, machine, [members[-1] for members in series.values()])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def colour(line: Line) -> str:
    """jaxnn's colour or the peers'."""
    return OURS if line.row["contender"] == "jaxnn" else THEIRS


def draw_roofs(axes: Axes, machine: Mapping[str, Any], peak: float) -> None:
    """The peak, and a slope for each working set whose ridge is in the panel."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    axes.plot([left, right], [peak, peak], color=ROOF, linewidth=1.4)
    axes.annotate("peak", (right, peak), (-2, 3), **ANNOTATION, ha="right")
    for entry in machine["bandwidth"]:
        slope = bandwidth_at(machine["bandwidth"], entry["bytes"]) / machine["devices"]
        ridge, name = peak / slope, size_name(entry["bytes"])
        if left < ridge < right:
            axes.plot([bottom / slope, ridge], [bottom, peak], color=ROOF, linewidth=0.7, ls="--")
            axes.annotate(name, (ridge, peak), (0, 3), **ANNOTATION, ha="left", rotation=50)


def add_names(axes: Axes, machine: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """Names and distances in a column at the right, the fastest on top, joined to their points."""
    lines = sorted(lines, key=lambda line: rate(line, machine))
    for line, height in zip(lines, (np.arange(len(lines)) + 0.5) / len(lines), strict=True):
        axes.annotate(
            f"{line.series}: {line.bound.distance:.3g}",
            (line.bound.intensity, rate(line, machine)),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=colour(line),
            arrowprops={"arrowstyle": "-", "color": colour(line), "lw": 0.5, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
