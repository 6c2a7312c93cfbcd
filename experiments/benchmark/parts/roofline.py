"""How far every row is from what the machine allows.

The machine's ceilings are measured here; the bound of a row is ``experiments.benchmark.bound``'s.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from experiments.benchmark import bandwidth
from experiments.benchmark.bound import Bound, bound
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.machine import peak_gflops
from experiments.benchmark.part import Bench, Goal, Table, figures
from experiments.benchmark.problem import NETWORKS, restore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("one_model", "population", "scale")  # whose rows are trainings
NEEDED = {"sizes", "models", "cores", "microseconds"}  # of such a row
NOTES = (
    "A triad counts as 12 bytes per element. Where a core reads what it is about to overwrite, it "
    "moves 16: a program that only reads can be a third faster than this bandwidth.",
    "The peak was measured at another moment than the rows, so distances have its spread; the "
    "shares of the peak in the README come from peaks measured before and after each row.",
)


class Line(NamedTuple):
    """A row of another part with its bound."""

    part: str
    row: Mapping[str, Any]
    bound: Bound

    @property
    def group(self) -> str:
        """The lines it belongs together with."""
        if self.part == "scale":
            return f"Scale, {self.row.get('question', 'population')}"
        models = self.row["models"]
        return f"{'One model' if models == 1 else f'{models} models'} {self._network}"

    @property
    def series(self) -> str:
        """Who trained and with what; in a group, lines of one series differ in ``models``."""
        cores, processes = self.row["cores"], self.row.get("processes", 1)
        words = [self.row["label"] + (f" {self._network}" if self.part == "scale" else "")]
        if cores is not None:  # else an accelerator
            words.append(f"{cores} core{'s' if cores > 1 else ''}")
        if processes > 1:
            words.append(f"{processes} processes")
        return ", ".join(words)

    @property
    def name(self) -> str:
        """What tells the line from others of its group."""
        return self.series + (f", models: {self.row['models']:,}" if self.part == "scale" else "")

    @property
    def _network(self) -> str:
        return "-".join(map(str, self.row["sizes"]))


def measure(bench: Bench) -> Mapping[str, Any]:
    """The ceilings: the matrix-product peak, and the bandwidth by working set."""
    moved = bandwidth.QUICK_MOVED if bench.config.quick else bandwidth.MOVED
    with bench.run.progress("roofline") as report:
        peaks = [peak_gflops() for _ in range(bench.config.seeds)]
        report(1, 2)
        rates = bandwidth.measure(bandwidth.WORKING_SETS, moved=moved, repeats=bench.config.seeds)
        report(2, 2)
    return {
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "training_examples": len(restore(bench.data, NETWORKS["softmax"]).train.targets),
        "peak_gflops": figures(peaks),
        "bandwidth": rates,
    }


def lines(results: Mapping[str, Any]) -> list[Line]:
    """Every training that was measured on JAX's devices, with its bound."""
    machine = results.get("roofline")
    if not machine:
        return []
    on_cpu = machine["platform"] == "cpu"
    return [
        Line(part, row, bound(row, machine))
        for part, row in trainings(results)
        if on_cpu or "jax" in CONTENDERS[row["contender"]].packages
    ]


def trainings(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of the other parts that are trainings, and those parts' names."""
    for part in PARTS:
        found = results.get(part) or {}
        for row in found.get("rows", ()):
            alone = found.get("products", {}).get(row.get("network"), {})
            row = {"contender": "jaxnn", "label": "jaxnn", **alone, **row}
            if set(row) >= NEEDED and row["microseconds"]["median"]:
                yield part, row


def groups(results: Mapping[str, Any]) -> dict[str, list[Line]]:
    """The lines by group, nearest to the bound first; those of ``scale`` as they were measured."""
    found: dict[str, list[Line]] = {}
    for line in lines(results):
        found.setdefault(line.group, []).append(line)
    for group in found.values():
        group.sort(key=lambda line: line.part != "scale" and line.bound.distance)
    return found


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The ceilings, then a table for each group of lines."""
    if not results.get("roofline"):
        return []
    return [ceilings(results["roofline"]), *(table(*entry) for entry in groups(results).items())]


def ceilings(machine: Mapping[str, Any]) -> Table:
    """What the machine can do, and the intensity above which arithmetic is the longer work."""
    peak = machine["peak_gflops"]
    rows = [("2048 x 2048 matrix product, float32", *middle_and_range(peak), "GFLOP/s", "")]
    for entry in machine["bandwidth"]:
        rate = entry["gigabytes_per_second"]
        ridge = peak["median"] / bandwidth.at(machine["bandwidth"], entry["bytes"])
        name = f"a = b + s c, {bandwidth.size_name(entry['bytes'])} per device"
        rows.append((name, *middle_and_range(rate), "GB/s", f"{ridge:.1f}"))
    return Table(
        f"What the machine can do, {machine['devices']} devices at once",
        ("", "median", "least to most", "", "FLOP per byte at which both take as long"),
        rows,
        NOTES,
    )


def middle_and_range(measured: Mapping[str, Any]) -> tuple[str, str]:
    """A measure's median, and its spread."""
    values = measured["values"]
    return f"{measured['median']:.1f}", f"{min(values):.1f} to {max(values):.1f}"


def table(title: str, group: list[Line]) -> Table:
    """Arithmetic, bytes, bound and distance of each line, per model and step."""
    rows = [
        (
            line.name,
            f"{line.bound.flops / 1e6:.2f}",
            f"{line.bound.bytes / 1e3:.1f}",
            f"{line.bound.intensity:.1f}",
            f"{line.bound.least:.2f}",
            line.bound.binds,
            f"{line.bound.measured:.2f}",
            f"{line.bound.distance:.2f}",
        )
        for line in group
    ]
    columns = ("", "MFLOP", "KB", "FLOP per byte", "bound (µs)", "by", "measured (µs)", "distance")
    return Table(f"{title}, per model and step", columns, rows)


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """None: the shares of the peak that are required are the population's."""
    del results
    return []


def drawing(results: Mapping[str, Any]) -> dict[str, "Figure"]:
    """The figure of the page, if there is anything to show."""
    from experiments.benchmark.roofline_figure import roofline_figure

    found = groups(results)
    return {"roofline.png": roofline_figure(results["roofline"], found)} if found else {}
