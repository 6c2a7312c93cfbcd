"""The distance of every row from the machine's limit.

The machine's ceilings are measured here; the bound of a row is ``experiments.benchmark.bound``'s.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax

from experiments.benchmark import machine
from experiments.benchmark.bound import Line, line
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.machine import bandwidth_at, peak_gflops, size_name
from experiments.benchmark.part import Bench, Part, Results, Table, figures, table
from experiments.benchmark.problem import NETWORKS, restore

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


def measure(bench: Bench) -> Results:
    """The ceilings: the matrix-product peak, and the bandwidth by working set."""
    moved = machine.QUICK_MOVED if bench.config.quick else machine.MOVED
    with bench.run.progress("roofline") as report:
        peaks = [peak_gflops() for _ in range(bench.config.seeds)]
        report(1, 2)
        rates = machine.bandwidth(machine.WORKING_SETS, moved=moved, repeats=bench.config.seeds)
        report(2, 2)
    return {
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "training_examples": len(restore(bench.data, NETWORKS["softmax"]).train.targets),
        "peak_gflops": figures(peaks),
        "bandwidth": rates,
    }


def lines(results: Results) -> list[Line]:
    """Every training on JAX's devices, with its bound."""
    ceilings = results["roofline"]
    return [
        line(part, row, ceilings)
        for part, row in trainings(results)
        if ceilings["platform"] == "cpu" or "jax" in CONTENDERS[row["contender"]].packages.split()
    ]


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
    """The lines by group, nearest to the bound first; lines of ``scale`` in the order measured."""
    found: dict[str, list[Line]] = {}
    for each in lines(results):
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
        dict(measured, name=name, unit=unit, ridge=ridge, ends=ends(measured["values"]))
        for name, unit, ridge, measured in rows
    ]
    title = f"What the machine can do, {ceilings['devices']} devices at once"
    return table(title, body, CEILINGS, NOTES)


def ends(values: Sequence[float]) -> str:
    """The least and the largest value."""
    return f"{min(values):.1f} to {max(values):.1f}"


def drawings(results: Results) -> dict[str, Any]:
    """The figure of the page, if there is anything to show."""
    from experiments.benchmark.roofline_figure import roofline_figure

    found = groups(results)
    return {"roofline.png": roofline_figure(results["roofline"], found)} if found else {}


PART = Part(measure, tables, figures=drawings)
