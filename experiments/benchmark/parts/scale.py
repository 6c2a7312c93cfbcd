"""Scale: 1 to 4,096 models, 1 to 3 hidden layers of 10 to 512 units, on one core and on two.

Time per model and step, compilation and memory; where JAX has an accelerator, there instead. Every
case has a process of its own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.part import Bench, Goal, Table, figures
from experiments.benchmark.problem import NETWORKS, flops_per_step
from experiments.processes import ProcessError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POPULATIONS = (1, 4, 16, 64, 256, 1024, 4096)
MODELS = 64  # of every shape
HIDDEN_LAYERS = (1, 2, 3)
WIDTHS = (10, 32, 128, 512)
CORES = (1, 2)
REPETITIONS = 3
CORE_FLOPS, ACCELERATOR_FLOPS = 6e10, 1e13  # of a training: about a second
FEWEST_STEPS, MOST_STEPS = 10, 20_000


class Case(NamedTuple):
    """A population on some cores; None: on an accelerator."""

    question: str  # "population" or "shape"
    sizes: tuple[int, ...]
    models: int
    cores: int | None


def measure(bench: Bench) -> Mapping[str, Any]:
    """Every case, one after another."""
    wanted = cases(len(bench.cores), jax.default_backend(), quick=bench.config.quick)
    rows = []
    with bench.run.progress("scale") as report:
        for case in wanted:
            rows.append(measure_case(bench, case))
            report(len(rows), len(wanted))
    return {"rows": rows}


def cases(available: int, platform: str, *, quick: bool) -> list[Case]:
    """All of them, or with ``quick`` a single small one."""
    places: list[int | None] = [count for count in CORES if count <= available]
    if platform != "cpu":
        places = [None]
    if quick:
        return [Case("population", NETWORKS["softmax"], 4, places[-1])]
    populations = [
        Case("population", sizes, models, cores)
        for sizes in NETWORKS.values()
        for models in POPULATIONS
        for cores in places
    ]
    shapes = [
        Case("shape", (784, *[width] * layers, 10), MODELS, cores)
        for layers in HIDDEN_LAYERS
        for width in WIDTHS
        for cores in places
    ]
    return populations + shapes


def steps(case: Case) -> int:
    """As many as take about a second by the arithmetic alone."""
    flops = ACCELERATOR_FLOPS if case.cores is None else CORE_FLOPS * case.cores
    enough = flops / (flops_per_step(case.sizes) * case.models)
    return int(np.clip(enough, FEWEST_STEPS, MOST_STEPS))


def measure_case(bench: Bench, case: Case) -> dict[str, Any]:
    """A row: the case in a new process, without compiled programs of earlier ones.

    Raises:
      ProcessError: it failed; the text is its last line.
    """
    job = {
        "sizes": case.sizes,
        "models": case.models,
        "steps": FEWEST_STEPS if bench.config.quick else steps(case),
        "repetitions": REPETITIONS,
        "data": str(bench.data),
        "cores": None if case.cores is None else bench.cores[: case.cores],
    }
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the benchmark's own process has the rest
    }
    command = [sys.executable, "-m", "experiments.benchmark.scale_case", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        *_, last = ("", *done.stderr.strip().splitlines())
        raise ProcessError(f"{case} ended with exit status {done.returncode}: {last}")
    found = json.loads(done.stdout.splitlines()[-1])
    measured = {name: figures(found.pop(name)) for name in ("microseconds", "share_of_peak")}
    return case._asdict() | {"steps": job["steps"]} | found | measured


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The population sizes, and the shapes."""
    rows = results.get("scale", {}).get("rows", [])
    titles = {
        "population": "Populations of 1 to 4,096 models, minibatch 100",
        "shape": f"{MODELS} models of other shapes, minibatch 100",
    }
    asked = {question: [r for r in rows if r["question"] == question] for question in titles}
    return [table(titles[question], mine) for question, mine in asked.items() if mine]


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A line per network and size of the population, all numbers of cores side by side."""
    places = list(dict.fromkeys(row["cores"] for row in rows))
    lines: dict[tuple[str, int], dict[int | None, Mapping[str, Any]]] = {}
    for row in rows:
        line = lines.setdefault((name(row["sizes"]), row["models"]), {})
        line[row["cores"]] = row
    body = []
    for (network, models), by_place in lines.items():
        measured = [by_place[place] for place in places]
        body.append(
            (
                network,
                f"{models:,}",
                *(brief(row["microseconds"]["median"]) for row in measured),
                *(f"{row['share_of_peak']['median']:.0f}" for row in measured),
                f"{measured[-1]['compile_seconds']:.2f}",
                f"{measured[-1]['megabytes']:,.0f}",
            )
        )
    where = [place(row) for row in by_place.values()]
    columns = (
        "network",
        "models",
        *(f"µs per model and step, {on}" for on in where),
        *(f"share of peak (%), {on}" for on in where),
        f"compilation (s), {where[-1]}",
        f"peak memory (MB), {where[-1]}",
    )
    return Table(title, columns, body, [note(rows)])


def name(sizes: Sequence[int]) -> str:
    """784-50-50-10."""
    return "-".join(map(str, sizes))


def brief(number: float) -> str:
    """Three digits of a small number, all of a large one."""
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def place(row: Mapping[str, Any]) -> str:
    """What a case ran on, in words."""
    if row["cores"] is None:
        return f"{row['devices']} x {row['device']}"
    return f"{row['cores']} core{'s' if row['cores'] > 1 else ''}"


def note(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the memory includes."""
    least = min(row["megabytes_before"] for row in rows)
    return (
        f"Memory is the whole process's, on accelerators the device's; {least:,.0f} MB of it are "
        "held before training begins. Parameters of trained models are not kept. The peak is that "
        "of all cores of a line; a single model has one of them."
    )


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """None."""
    del results
    return []


def drawing(results: Mapping[str, Any]) -> dict[str, "Figure"]:
    """The share of the peak by the size of the population."""
    from jaxnn.figures import Curve, curves_figure

    rows = results.get("scale", {}).get("rows", [])
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["question"] == "population":
            groups.setdefault(f"{name(row['sizes'])}, {place(row)}", []).append(row)
    if not groups:
        return {}
    curves = [
        Curve(
            label,
            [row["models"] for row in mine],
            np.array([row["share_of_peak"]["values"] for row in mine]).T,
        )
        for label, mine in groups.items()
    ]
    figure = curves_figure(
        curves,
        title=f"Training whole populations, minibatch 100 ({rows[0]['device']})",
        x_label="models trained at once",
        x_scale="log",
        y_label="share of the matrix-product peak (%)",
        replicates="repetitions",
    )
    return {"scale.png": figure}
