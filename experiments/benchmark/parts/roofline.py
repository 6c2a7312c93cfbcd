"""The distance of every row from the machine's limit: the ceilings, the tables, the figure.

The bound of a row is ``experiments.benchmark.bound``'s.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments.benchmark import machine
from experiments.benchmark.bound import Line, line_of
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.machine import bandwidth_at, peak_gflops, size_name
from experiments.benchmark.part import Bench, Part, Results, Table, figures, table
from experiments.benchmark.problem import NETWORKS, restore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("one_model", "population", "scale")  # with rows of trainings
NEEDED = {"sizes", "models", "cores", "microseconds"}  # of a training's row
COLUMNS = {
    "": "{line.name}",
    "MFLOP": "{mflop:.2f}",
    "KB": "{kb:.1f}",
    "FLOP per byte": "{bound.intensity:.1f}",
    "bound (µs)": "{bound.least:.2f}",
    "by": "{bound.binds}",
    "measured (µs)": "{bound.measured:.2f}",
    "distance": "{bound.distance:.2f}",
}
CEILINGS = {
    "": "{name}",
    "median": "{median:.1f}",
    "least to most": "{ends}",
    "unit": "{unit}",
    "FLOP per byte at which both take as long": "{ridge}",
}
NOTES = (
    "A triad counts as 12 bytes per element. A core that reads a line before overwriting it moves "
    "16 bytes: a program that only reads can be a third faster than this bandwidth.",
    "The peak was measured at another moment than the rows, so distances have its spread; the "
    "shares of the peak in the README come from peaks measured before and after each row.",
)


NAME_HEIGHT, FRAME = 0.19, 0.9  # inches: of a name, and of titles and labels of a panel
ROOF = "0.45"
ANNOTATION: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8.5, "color": ROOF}


def measure(bench: Bench) -> Results:
    """The ceilings: the matrix-product peak, and the bandwidth by working set."""
    moved = machine.QUICK_MOVED if bench.config.quick else machine.MOVED
    peaks = [peak_gflops() for _ in bench.turns("peak", bench.config.seeds, [None])]
    rates = [
        machine.bandwidth(size, moved=moved, repeats=bench.config.seeds)
        for _, size in bench.turns("bandwidth", 1, machine.WORKING_SETS)
    ]
    return {
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "training_examples": len(restore(bench.data, NETWORKS["softmax"]).train.targets),
        "peak_gflops": figures(peaks),
        "bandwidth": rates,
    }


def trainings(results: Results) -> Iterator[tuple[str, Results]]:
    """The rows of PARTS that are trainings, with the names of the parts."""
    for part in PARTS:
        found = results.get(part) or {}
        for row in found.get("rows", ()):
            alone = found.get("products", {}).get(row.get("network"), {})
            row = {"contender": "jaxnn", "label": "jaxnn", **alone, **row}
            if set(row) >= NEEDED and row["microseconds"]["median"]:
                yield part, row


def groups(results: Results) -> dict[str, list[Line]]:
    """Every training on JAX's devices with its bound, by group.

    The nearest to the bound comes first; lines of ``scale`` stay in the order measured.
    """
    ceilings, found = results["roofline"], {}
    for part, row in trainings(results):
        if ceilings["platform"] == "cpu" or "jax" in CONTENDERS[row["contender"]].packages.split():
            each = line_of(part, row, ceilings)
            found.setdefault(each.group, []).append(each)
    for group in found.values():
        group.sort(key=lambda each: each.part != "scale" and each.bound.distance)
    return found


def tables(results: Results) -> list[Table]:
    """The ceilings, then a table for each group of lines, per model and step."""
    found = [ceilings_table(results["roofline"])]
    for title, group in groups(results).items():
        rows = [
            {
                "line": li,
                "bound": li.bound,
                "mflop": li.bound.flops / 1e6,
                "kb": li.bound.bytes / 1e3,
            }
            for li in group
        ]
        found.append(table(f"{title}, per model and step", rows, COLUMNS))
    return found


def ceilings_table(ceilings: Results) -> Table:
    """Peak and bandwidths, and the intensities above which arithmetic is the longer work."""
    peak = ceilings["peak_gflops"]
    rows = [("2048 x 2048 matrix product, float32", "GFLOP/s", "", peak)]
    for entry in ceilings["bandwidth"]:
        ridge = peak["median"] / bandwidth_at(ceilings["bandwidth"], entry["bytes"])
        name = f"a = b + s c, {size_name(entry['bytes'])} per device"
        rows.append((name, "GB/s", f"{ridge:.1f}", entry["gigabytes_per_second"]))
    body = [
        dict(
            measured,
            name=name,
            unit=unit,
            ridge=ridge,
            ends="{:.1f} to {:.1f}".format(min(measured["values"]), max(measured["values"])),
        )
        for name, unit, ridge, measured in rows
    ]
    title = f"What the machine can do, {ceilings['devices']} devices at once"
    return table(title, body, CEILINGS, NOTES)


def drawings(results: Results) -> dict[str, Any]:
    """The figure of the page, if there is anything to show."""
    found = groups(results)
    return {"roofline.png": roofline_figure(results["roofline"], found)} if found else {}


def roofline_figure(machine: Mapping[str, Any], groups: Mapping[str, Sequence[Line]]) -> "Figure":
    """A panel for each group of lines, in a column; groups by the panel's title."""
    from matplotlib.figure import Figure

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


def panel(axes: "Axes", machine: Mapping[str, Any], title: str, lines: Sequence[Line]) -> None:
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
    from jaxnn.figures import COLOURS

    return COLOURS[0 if line.row["contender"] == "jaxnn" else 1]


def draw_roofs(axes: "Axes", machine: Mapping[str, Any], peak: float) -> None:
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


def add_names(axes: "Axes", machine: Mapping[str, Any], lines: Sequence[Line]) -> None:
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


PART = Part(measure, tables, figures=drawings)
