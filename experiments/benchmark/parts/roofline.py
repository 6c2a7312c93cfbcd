"""The least time that a row of the benchmark could have taken: the roofline model.

For one model and step:

- arithmetic: the matrix products (``machine.flops_per_step``); elementwise functions are free.
- minibatch: the rows are read once, from the training examples in memory or in the cache that holds
  the examples: 1 byte per pixel for jaxnn, 4 for the peers, which keep floating point. Models
  trained together share a reading: a block on jaxnn's devices, all models under ``vmap``.
- parameters: read once and written once, 8 bytes each, in the cache that holds the parameters of
  the models that a core has in hand.
- activations and gradients: free. A fully fused program would write none.

The bound is the longer of two times: arithmetic at the measured peak, and bytes at the measured
bandwidth of their working sets. A row has the peak and the caches of its cores, but all of the
bandwidth to the examples, which any core may read. The distance is the measured time
over the bound. The model is Williams, Waterman and Patterson's (2009).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jax

from experiments import machine
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.part import Bench, Part, Results, Table, table
from experiments.benchmark.problem import BATCH_SIZE, NETWORKS, cores_name, network_name, restore
from experiments.machine import bandwidth_at, flops_per_step, peak_gflops
from experiments.report import figures
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAININGS = ("one_model", "population", "scale")  # parts with rows of trainings
NEEDED = {"sizes", "models", "cores", "microseconds"}  # of a training's row
COLUMNS = {
    "": "{name}",
    "MFLOP": "{mflop:.2f}",
    "KB": "{kb:.1f}",
    "FLOP per byte": "{intensity:.1f}",
    "bound (µs)": "{bound:.2f}",
    "by": "{by}",
    "measured (µs)": "{microseconds[median]:.2f}",
    "distance": "{distance:.2f}",
}
CEILINGS = {
    "": "{name}",
    "median": "{median:.1f}",
    "least to most": "{ends[0]:.1f} to {ends[1]:.1f}",
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
    return {
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "training_examples": len(restore(bench.data, NETWORKS["softmax"]).train.targets),
        "peak_gflops": figures(
            peak_gflops() for _ in bench.each("peak", range(bench.config.seeds))
        ),
        "bandwidth": [
            machine.bandwidth(size, moved=moved, repeats=bench.config.seeds)
            for size in bench.each("bandwidth", machine.WORKING_SETS)
        ],
    }


def bounded(row: Results, ceilings: Results) -> dict[str, Any]:
    """A training's row with work and least time, per model and step; times in microseconds."""
    sizes, models, platform = tuple(row["sizes"]), row["models"], ceilings["platform"]
    share = min(1.0, row["cores"] / ceilings["devices"]) if platform == "cpu" else 1.0
    sharing = in_hand = 1  # models that share a reading of the minibatch; that a core has in hand
    if row["contender"] == "jaxnn":
        spec, block = (
            Spec(MLP(sizes), 1, BATCH_SIZE),
            row.get("models_on_a_core", row.get("block_size")),
        )
        sharing = in_hand = min(block or default_block_size(spec, platform, models), models)
    elif CONTENDERS[row["contender"]].whole_population:
        sharing, in_hand = models, -(-models // row["cores"])
    pixels = sizes[0] * (1 if row["contender"] == "jaxnn" else 4)  # bytes of an example
    parameters = sum(o * (i + 1) for i, o in pairwise(sizes))
    examples_bytes, parameter_bytes = BATCH_SIZE * pixels / sharing, 8 * parameters
    examples_rate = bandwidth_at(ceilings["bandwidth"], ceilings["training_examples"] * pixels)
    parameter_rate = bandwidth_at(ceilings["bandwidth"], 4 * parameters * in_hand) * share
    flops, moved = flops_per_step(sizes), examples_bytes + parameter_bytes
    times = {
        "arithmetic": flops / ceilings["peak_gflops"]["median"] / share / 1e3,
        "memory": (examples_bytes / examples_rate + parameter_bytes / parameter_rate) / 1e3,
    }
    bound, measured = max(times.values()), row["microseconds"]["median"]
    return {
        **row,
        **times,
        "mflop": flops / 1e6,
        "kb": moved / 1e3,
        "intensity": flops / moved,  # FLOP per byte
        "bound": bound,
        "by": max(times, key=times.__getitem__),
        "distance": measured / bound,
        "gflops": flops / measured / 1e3 / (share * ceilings["devices"]),  # of a device
    }


def groups(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Every training on JAX's devices with bound, ``name`` and ``series``, by title of the group.

    The nearest to the bound comes first; rows of ``scale`` stay in the order measured. Rows of a
    series differ in ``models``.
    """
    ceilings, groups = results["roofline"], {}
    for part in TRAININGS:
        found, scale = results.get(part) or {}, part == "scale"
        for row in found.get("rows", ()):
            alone = found.get("products", {}).get(row.get("network"), {})
            row = {"contender": "jaxnn", "label": "jaxnn", "processes": 1, **alone, **row}
            packages = CONTENDERS[row["contender"]].packages.split()
            on_device = ceilings["platform"] == "cpu" or "jax" in packages
            if not (on_device and set(row) >= NEEDED and row["microseconds"]["median"]):
                continue
            network, models = network_name(row["sizes"]), row["models"]
            words = [f"{row['label']} {network}" if scale else row["label"]]
            words += [cores_name(row["cores"])] if row["cores"] is not None else []  # accelerator
            words += [f"{row['processes']} processes"] if row["processes"] > 1 else []
            name = series = ", ".join(words)
            group = f"{'One model' if models == 1 else f'{models} models'} {network}"
            if scale:
                name = f"{series}, models: {models:,}"
                group = f"Scale, {row.get('question', 'population')}"
            row = bounded(row, ceilings) | {"series": series, "name": name}
            groups.setdefault(group, []).append(row)
        if not scale:
            for group in groups.values():
                group.sort(key=lambda row: row["distance"])
    return groups


def tables(results: Results) -> list[Table]:
    """The ceilings, then a table for each group of rows, per model and step."""
    ceilings = results["roofline"]
    peak, rates = ceilings["peak_gflops"], ceilings["bandwidth"]
    rows = [{"name": "2048 x 2048 matrix product, float32", "unit": "GFLOP/s", "ridge": "", **peak}]
    for entry in rates:  # above the ridge, arithmetic is the longer work
        name = f"a = b + s c, {machine.size_name(entry['bytes'])} per device"
        ridge = f"{peak['median'] / bandwidth_at(rates, entry['bytes']):.1f}"
        rows.append({"name": name, "unit": "GB/s", "ridge": ridge, **entry["gigabytes_per_second"]})
    for row in rows:
        row["ends"] = min(row["values"]), max(row["values"])
    title = f"What the machine can do, {ceilings['devices']} devices at once"
    return [
        table(title, rows, CEILINGS, NOTES),
        *(table(f"{t}, per model and step", rows, COLUMNS) for t, rows in groups(results).items()),
    ]


def drawings(results: Results) -> dict[str, Any]:
    """The figure of the page, a panel for each group in a column, if there is anything to show."""
    from matplotlib.figure import Figure

    if not (found := groups(results)):
        return {}
    series = [len({row["series"] for row in group}) for group in found.values()]
    heights = [FRAME + max(3.0, NAME_HEIGHT * count) for count in series]
    figure = Figure(figsize=(9.5, sum(heights)), dpi=75, layout="constrained")
    panels = figure.subplots(len(found), squeeze=False, height_ratios=heights).flat
    for axes, (title, group) in zip(panels, found.items(), strict=True):
        draw_panel(axes, results["roofline"], title, group)
    return {"roofline.png": figure}


def draw_panel(axes: "Axes", ceilings: Results, title: str, rows: Sequence[Results]) -> None:
    """The roofs and the rows' points; points of a series are joined and have a name.

    The names, with the distances, are a column at the right, the fastest on top.
    """
    from jaxnn.figures import COLOURS

    def colour(row: Results) -> str:
        return COLOURS[row["contender"] != "jaxnn"]

    peak = ceilings["peak_gflops"]["median"] / ceilings["devices"]
    intensities, rates = ([row[key] for row in rows] for key in ("intensity", "gflops"))
    axes.set(
        title=f"{title} (name: measured time / bound)",
        xscale="log",
        yscale="log",
        xlim=(min(*intensities, 4) / 2, 2 * max(*intensities, 64)),
        ylim=(min(*rates, peak / 10) / 1.5, 2 * peak),
        xlabel="FLOP per byte",
        ylabel=f"GFLOP/s per {'core' if ceilings['platform'] == 'cpu' else 'device'}",
    )
    draw_roofs(axes, ceilings, peak)
    names: dict[str, list[Results]] = {}
    for row in sorted(rows, key=lambda row: row["models"]):
        names.setdefault(row["series"], []).append(row)
    for members in names.values():
        places = [[row[key] for row in members] for key in ("intensity", "gflops")]
        axes.plot(*places, color=colour(members[0]), marker="o", markersize=5, linewidth=0.8)
    named = sorted((members[-1] for members in names.values()), key=lambda row: row["gflops"])
    for place, row in enumerate(named):
        axes.annotate(
            f"{row['series']}: {row['distance']:.3g}",
            (row["intensity"], row["gflops"]),
            (1.03, (place + 0.5) / len(named)),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=colour(row),
            arrowprops={"arrowstyle": "-", "color": colour(row), "lw": 0.5, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def draw_roofs(axes: "Axes", ceilings: Results, peak: float) -> None:
    """The peak, and a slope for each working set whose ridge is in the panel."""
    (left, right), bottom = axes.get_xlim(), axes.get_ylim()[0]
    axes.plot([left, right], [peak, peak], color=ROOF, linewidth=1.4)
    axes.annotate("peak", (right, peak), (-2, 3), **ANNOTATION, ha="right")
    for entry in ceilings["bandwidth"]:
        slope = bandwidth_at(ceilings["bandwidth"], entry["bytes"]) / ceilings["devices"]
        ridge, name = peak / slope, machine.size_name(entry["bytes"])
        if left < ridge < right:
            axes.plot([bottom / slope, ridge], [bottom, peak], color=ROOF, linewidth=0.7, ls="--")
            axes.annotate(name, (ridge, peak), (0, 3), **ANNOTATION, ha="left", rotation=50)


PARTS = {"roofline": Part(measure, tables, figures=drawings)}
