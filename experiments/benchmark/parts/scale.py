"""Scale: 1 to 4,096 models, 1 to 3 hidden layers of 10 to 512 units, on one core and on two.

Time per model and step, compilation and memory; on JAX's accelerator if present. Every case
has a process (``scale_case.py``) without compiled programs of earlier cases.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.part import Bench, Part, Results, Table, figures, table
from experiments.benchmark.problem import NETWORKS, cores_name, flops_per_step, network_name
from experiments.benchmark.process import running

POPULATIONS = (1, 4, 16, 64, 256, 1024, 4096)
MODELS = 64  # of every shape
SHAPES = [(784, *[width] * layers, 10) for layers in (1, 2, 3) for width in (10, 32, 128, 512)]
CORES = (1, 2)
REPETITIONS = 3
CORE_FLOPS, ACCELERATOR_FLOPS = 6e10, 1e13  # of a training: about a second
FEWEST_STEPS, MOST_STEPS = 10, 20_000
ENVIRONMENT = {
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # the benchmark's process has the rest
}
TITLES = {
    "population": "Populations of 1 to 4,096 models, minibatch 100",
    "shape": f"{MODELS} models of other shapes, minibatch 100",
}
NOTE = (
    "Memory is the whole process's, on accelerators the device's; {:,.0f} MB of it are held before "
    "training begins. Parameters of trained models are not kept. The peak is that of all cores of "
    "a line; a single model has one of them."
)


class Case(NamedTuple):
    """A population on some cores; None: on an accelerator."""

    question: str  # "population" or "shape"
    sizes: tuple[int, ...]
    models: int
    cores: int | None


def measure(bench: Bench) -> Results:
    """Every case, one after another."""
    wanted = cases(len(bench.cores), jax.default_backend(), quick=bench.config.quick)
    rows = []
    with bench.run.progress("scale") as report:
        for case in wanted:
            rows.append(measure_case(bench, case))
            report(len(rows), len(wanted))
    return {"rows": rows}


def cases(available: int, platform: str, *, quick: bool) -> list[Case]:
    """All cases, or with ``quick`` a single small case."""
    places = [count for count in CORES if count <= available] if platform == "cpu" else [None]
    if quick:
        return [Case("population", NETWORKS["softmax"], 4, places[-1])]
    wanted = [("population", s, models) for s in NETWORKS.values() for models in POPULATIONS]
    wanted += [("shape", sizes, MODELS) for sizes in SHAPES]
    return [Case(*each, cores) for each in wanted for cores in places]


def steps(case: Case) -> int:
    """As many steps as take about a second by the arithmetic alone."""
    flops = ACCELERATOR_FLOPS if case.cores is None else CORE_FLOPS * case.cores
    enough = flops / (flops_per_step(case.sizes) * case.models)
    return int(np.clip(enough, FEWEST_STEPS, MOST_STEPS))


def measure_case(bench: Bench, case: Case) -> dict[str, Any]:
    """A row."""
    job = case._asdict() | {
        "steps": FEWEST_STEPS if bench.config.quick else steps(case),
        "repetitions": REPETITIONS,
        "data": str(bench.data),
        "cores": None if case.cores is None else bench.cores[: case.cores],
    }
    module = "experiments.benchmark.scale_case"
    with running(module, json.dumps(job), environment=ENVIRONMENT) as program:
        *_, (_, last) = program.lines()
    found = json.loads(last)
    measured = {name: figures(found.pop(name)) for name in ("microseconds", "share_of_peak")}
    return case._asdict() | {"steps": job["steps"]} | found | measured


def tables(results: Results) -> list[Table]:
    """The population sizes, and the shapes."""
    rows = results["scale"]["rows"]
    groups = {title: [r for r in rows if r["question"] == q] for q, title in TITLES.items()}
    return [question_table(title, group) for title, group in groups.items() if group]


def question_table(title: str, rows: Sequence[Results]) -> Table:
    """A line per network and size of the population, all numbers of cores in one line."""
    places = {place(row): f"place_{row['cores']}" for row in rows}
    lines: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        name, models = network_name(row["sizes"]), row["models"]
        taken = row["microseconds"]["median"]
        line = lines.setdefault((name, models), {"network": name, "models": models})
        brief = f"{taken:.3g}" if taken < 1000 else f"{taken:,.0f}"
        line[places[place(row)]] = {**row, "brief": brief}
    last, key = list(places.items())[-1]
    share = "[share_of_peak][median]:.0f"
    columns = {
        "network": "{network}",
        "models": "{models:,}",
        **{f"µs per model and step, {on}": f"{{{k}[brief]}}" for on, k in places.items()},
        **{f"share of peak (%), {on}": f"{{{k}{share}}}" for on, k in places.items()},
        f"compilation (s), {last}": f"{{{key}[compile_seconds]:.2f}}",
        f"peak memory (MB), {last}": f"{{{key}[megabytes]:,.0f}}",
    }
    note = NOTE.format(min(row["megabytes_before"] for row in rows))
    return table(title, lines.values(), columns, [note])


def place(row: Results) -> str:
    """The devices of a case, in words."""
    if row["cores"] is None:
        return f"{row['devices']} x {row['device']}"
    return cores_name(row["cores"])


def drawings(results: Results) -> dict[str, Any]:
    """The share of the peak by the size of the population."""
    from jaxnn.figures import Curve, curves_figure

    groups: dict[str, list[Results]] = {}
    for row in results["scale"]["rows"]:
        if row["question"] == "population":
            groups.setdefault(f"{network_name(row['sizes'])}, {place(row)}", []).append(row)
    curves = []
    for label, group in groups.items():
        shares = np.array([row["share_of_peak"]["values"] for row in group]).T
        curves.append(Curve(label, [row["models"] for row in group], shares))
    if not curves:
        return {}
    device = results["scale"]["rows"][0]["device"]
    figure = curves_figure(
        curves,
        title=f"Training whole populations, minibatch 100 ({device})",
        x_label="models trained at once",
        x_scale="log",
        y_label="share of the matrix-product peak (%)",
        replicates="repetitions",
    )
    return {"scale.png": figure}


PART = Part(measure, tables, figures=drawings)
