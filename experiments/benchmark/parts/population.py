"""64 configurations: in turn, over two processes, and all at once.

Microseconds per model and step, and the share of the machine's matrix-product peak, which is
measured before and after each training.
"""

from contextlib import ExitStack
from typing import Any

import jax
import numpy as np

from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.machine import peak_gflops, products_microseconds
from experiments.benchmark.part import Bench, Goal, Part, Results, Table, figures, table
from experiments.benchmark.parts.one_model import Line, by_speed, started
from experiments.benchmark.problem import (
    NETWORKS,
    cores_name,
    flops_per_step,
    network_name,
    restore,
)
from experiments.benchmark.process import hired
from jaxnn import MLP, Spec
from jaxnn.population import default_block_size

MODELS, QUICK_MODELS = 64, 4
RATES = 1e-3, 1e-1  # smallest and largest learning rate
PROCESSES = 2
EPOCHS = 1
ONE_BY_ONE_REQUIRED = 4.0  # times the speed of the fastest peer over two processes
VMAP_REQUIRED = {"torch_func": 2.0, "torch_func_compiled": 2.0}
SHARE_REQUIRED = 90.0  # percent of the peak
COLUMNS = {
    "": "{label}",
    "how": "{how}",
    "µs per model and step": "{microseconds[median]:.1f}",
    "time / jaxnn's": "{ratio:.1f}",
    "share of peak (%)": "{share_of_peak[median]:.1f}",
}
NOTE = (
    "The matrix products of a step alone, {models_on_a_core} models on each core, take XLA's "
    "kernels {microseconds[median]:.1f} µs ({share_of_peak[median]:.0f} % of the peak)."
)


def measure(bench: Bench) -> Results:
    """Every way on every network, in turn."""
    models = QUICK_MODELS if bench.config.quick else MODELS
    found = {network: measure_network(bench, network, models) for network in NETWORKS}
    rows = [row for rows, _ in found.values() for row in rows]
    products = {network: alone for network, (_, alone) in found.items()}
    return {"rows": rows, "products": products, "models": models, "epochs": EPOCHS}


def measure_network(
    bench: Bench, network: str, models: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for every way of every installed contender; and the matrix products alone."""
    sizes, rates = NETWORKS[network], np.geomspace(*RATES, models).tolist()
    steps = EPOCHS * restore(bench.data, sizes).steps_per_epoch
    block = models_on_a_core(sizes, models)
    with ExitStack() as stack:
        lines = hire(stack, bench, network, rates)
        times: list[list[float]] = [[] for _ in (*lines, "products")]
        peaks: list[list[float]] = [[] for _ in times]  # of the same moments
        before = peak_gflops()
        turns = bench.turns(f"{network}: {models} models", bench.config.seeds, range(len(times)))
        for seed, way in turns:
            if way < len(lines):
                taken = 1e6 * lines[way].seconds(rates, EPOCHS, seed) / steps / models
            else:
                taken = products_microseconds(sizes, block)
            after = peak_gflops()
            times[way].append(taken)
            peaks[way].append((before + after) / 2)
            before = after
    gflop = flops_per_step(sizes) / 1e3  # per second, of a step in a microsecond
    summaries = [
        {"microseconds": figures(t), "share_of_peak": figures(100 * gflop / np.multiply(t, peak))}
        for t, peak in zip(times, peaks, strict=True)
    ]
    rows = [li.row(network, models) | s for li, s in zip(lines, summaries, strict=False)]
    return rows, {"models_on_a_core": block, **summaries[-1]}


def models_on_a_core(sizes: tuple[int, ...], models: int) -> int:
    """How many models jaxnn trains at once on each device."""
    block = default_block_size(Spec(MLP(sizes), steps=1), jax.default_backend(), models)
    return min(block, -(-models // len(jax.devices())))


def hire(stack: ExitStack, bench: Bench, network: str, rates: list[float]) -> list[Line]:
    """The processes of all ways, warm."""
    lines, sizes = [], NETWORKS[network]
    for _, name in bench.turns(f"{network}: start", 1, tuple(CONTENDERS)):
        at_once = CONTENDERS[name].whole_population
        found = started(stack, bench, name, sizes, rates if at_once else rates[:1], EPOCHS)
        lines += found
        if found and not at_once and len(bench.cores) >= PROCESSES:
            programs = [
                stack.enter_context(hired(name, sizes, bench.data, [core]))
                for core in bench.cores[:PROCESSES]
            ]
            lines.append(Line(name, programs, PROCESSES, {}))
            lines[-1].seconds(rates[:PROCESSES], EPOCHS, seed=0)  # compiles
    return lines


def tables(results: Results) -> list[Table]:
    """The ways by speed, a table per network."""
    found = results["population"]
    shown = []
    for network, sizes in NETWORKS.items():
        rows, _ = by_speed(found["rows"], network)
        title = f"{found['models']} models {network_name(sizes)}, minibatch 100, an epoch with "
        notes = [NOTE.format_map(found["products"][network])]
        body = [row | {"how": manner(row)} for row in rows]
        shown.append(table(title + "shuffling", body, COLUMNS, notes))
    return shown


def manner(row: Results) -> str:
    """How a row trained the population, in words."""
    if CONTENDERS[row["contender"]].whole_population:
        return f"all at once, {cores_name(row['cores'])}"
    if row["processes"] == 1:
        return f"one after another, {cores_name(row['cores'])}"
    return f"over {row['processes']} processes of 1 core"


def goals(results: Results) -> list[Goal]:
    """Against peers over two processes, against torch.func, and the share of peak."""
    reached = []
    for network, sizes in NETWORKS.items():
        rows, ours = by_speed(results["population"]["rows"], network)
        share = ours["share_of_peak"]["median"]
        title = f"{results['population']['models']} models {network_name(sizes)}: "
        for row in [row for row in rows if row["processes"] == PROCESSES][:1]:
            what = f"against the fastest peer one by one over {PROCESSES} processes, {row['label']}"
            reached.append(Goal(title + what, ONE_BY_ONE_REQUIRED, row["ratio"], share=share))
        for name, required in VMAP_REQUIRED.items():
            for row in [row for row in rows if row["contender"] == name]:
                what = f"against {row['label']}"
                reached.append(Goal(title + what, required, row["ratio"], share=share))
        reached.append(Goal(f"{title}share of peak, whole epoch", SHARE_REQUIRED, share, "%"))
    return reached


PART = Part(measure, tables, goals)
