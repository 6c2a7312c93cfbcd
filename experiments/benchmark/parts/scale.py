"""Scale: 1 to 4,096 models, 1 to 3 hidden layers of 10 to 512 units, on one core and on two.

Time per model and step, compilation and memory; on JAX's accelerator if present. Every case has a
process, ``python -m experiments.benchmark.parts.scale JOB``, without compiled programs of earlier
cases: the peak memory is the memory of the case alone.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.part import Bench, Part, Results, Table, table
from experiments.benchmark.problem import NETWORKS, cores_name, network_name, restore
from experiments.machine import flops_per_step, peak_gflops, processor
from experiments.processes import running
from experiments.report import figures
from jaxnn import MLP, Data, Hyper, Spec, train_population
from jaxnn.devices import population_mesh, use_all_cores
from jaxnn.population import default_block_size

POPULATIONS = (1, 4, 16, 64, 256, 1024, 4096)
MODELS = 64  # of every shape
SHAPES = [(784, *[width] * layers, 10) for layers in (1, 2, 3) for width in (10, 32, 128, 512)]
CORES = (1, 2)
RATES = 1e-3, 1e-1  # smallest and largest learning rate
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
    return {"rows": [measure_case(bench, case) for case in bench.each("scale", wanted)]}


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
    """A row, measured in a process."""
    count = FEWEST_STEPS if bench.config.quick else steps(case)
    job = {"sizes": case.sizes, "models": case.models, "steps": count, "data": str(bench.data)}
    cores = None if case.cores is None else bench.cores[: case.cores]
    with running(__name__, json.dumps(job), environment=ENVIRONMENT, cores=cores) as program:
        *_, (_, last) = program.lines()
    return case._asdict() | {"steps": count} | json.loads(last)


def trained(sizes: tuple[int, ...], models: int, steps: int, data: str) -> dict[str, Any]:
    """Trains the population several times, and measures the peak after each training."""
    problem, platform = restore(Path(data), tuple(sizes)), jax.default_backend()
    spec = Spec(MLP(problem.sizes), steps, problem.batch_size)
    mesh = population_mesh(min(models, len(jax.devices())))
    block_size = min(default_block_size(spec, platform, models), -(-models // mesh.size))
    hyper = Hyper(np.geomspace(*RATES, models), problem.l2)
    where = {"block_size": block_size, "mesh": mesh, "keep_params": False}
    found: dict[str, Any] = {
        "device": processor() if platform == "cpu" else jax.devices()[0].device_kind,
        "devices": len(jax.devices()),
        "block_size": block_size,
        "megabytes_before": peak_megabytes(),
    }
    microseconds, shares, peaks = [], [], []
    for seed in range(REPETITIONS):
        key = jax.random.key(seed)
        population = train_population(spec, hyper, key, Data(*problem.train), {}, **where)
        if seed == 0:  # only the first training compiles; measuring the peak takes memory too
            found["compile_seconds"] = population.compile_seconds
            found["megabytes"] = peak_megabytes()
        peaks.append(peak_gflops(repeats=2))
        microseconds.append(1e6 * population.train_seconds / steps / models)
        gflops = flops_per_step(problem.sizes) / microseconds[-1] / 1e3
        shares.append(100 * gflops / float(np.mean(peaks[-2:])))
    return found | {"microseconds": figures(microseconds), "share_of_peak": figures(shares)}


def peak_megabytes() -> float:
    """The highest use of memory so far: of the accelerator, or of the process on CPUs."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.memory_stats()["peak_bytes_in_use"] / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, without the memory of the parent process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def place(row: Results) -> str:
    """The devices of a case, in words."""
    if row["cores"] is None:
        return f"{row['devices']} x {row['device']}"
    return cores_name(row["cores"])


def tables(results: Results) -> list[Table]:
    """The population sizes, and the shapes, with all numbers of cores in one line."""
    shown = []
    for question, title in TITLES.items():
        lines: dict[tuple[str, int], dict[str, Any]] = {}
        rows = [row for row in results["scale"]["rows"] if row["question"] == question]
        places = {place(row): f"place_{row['cores']}" for row in rows}
        for row in rows:
            name, models = network_name(row["sizes"]), row["models"]
            taken = row["microseconds"]["median"]
            line = lines.setdefault((name, models), {"network": name, "models": models})
            brief = f"{taken:.3g}" if taken < 1000 else f"{taken:,.0f}"
            line[places[place(row)]] = {**row, "brief": brief}
        columns = {"network": "{network}", "models": "{models:,}"}
        columns |= {f"µs per model and step, {on}": f"{{{k}[brief]}}" for on, k in places.items()}
        share = "[share_of_peak][median]:.0f"
        columns |= {f"share of peak (%), {on}": f"{{{k}{share}}}" for on, k in places.items()}
        for last, key in list(places.items())[-1:]:
            columns[f"compilation (s), {last}"] = f"{{{key}[compile_seconds]:.2f}}"
            columns[f"peak memory (MB), {last}"] = f"{{{key}[megabytes]:,.0f}}"
            note = NOTE.format(min(row["megabytes_before"] for row in rows))
            shown.append(table(title, lines.values(), columns, [note]))
    return shown


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


PARTS = {"scale": Part(measure, tables, figures=drawings)}

if __name__ == "__main__":
    use_all_cores()
    print(json.dumps(trained(**json.loads(sys.argv[1]))))
