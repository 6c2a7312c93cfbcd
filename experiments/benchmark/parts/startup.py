"""Start-up: whole processes of the shortest real runs, from start to end, in turn.

Cold is with an empty compilation cache, warm with the cache of an earlier run; Python's bytecode is
present in both. Scripts may keep all compiled programs.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.part import Bench, Goal, Part, Results, Table, ranked, table
from experiments.benchmark.problem import store
from experiments.processes import optional, running
from experiments.report import figures
from jaxnn.data import load

STAGES = {"imports": "imported (s)", "first_step": "first step (s)", "result": "result (s)"}
COLUMNS = {
    "": "{label}",
    "cold (s)": "{cold[median]:.2f}",
    "warm (s)": "{warm[median]:.2f}",
    "warm / jaxnn's": "{ratio:.2f}",
}
SOFTMAX = "64-10, 500 iterations"
ARCHITECTURES = "experiments.architectures"
GOALS = {SOFTMAX: "shortest real run", ARCHITECTURES: ARCHITECTURES}
TEXTS = {
    SOFTMAX: (
        "The shortest real run: softmax regression on digits, 500 iterations, accuracy",
        "The whole process, and the moments of its stages, warm. NumPy has next to nothing to "
        "import and nothing to compile; PyTorch's optimizers import its compiler at the first "
        "step.",
    ),
    ARCHITECTURES: (
        "python -m experiments.architectures: 15 networks on digits, table and figures",
        "The whole process.",
    ),
}


class Program(NamedTuple):
    """A script, as ``python -m`` starts it."""

    run: str  # SOFTMAX or ARCHITECTURES
    label: str
    script: str  # of the module
    module: str = "experiments.benchmark.startups"


PROGRAMS = (
    Program(SOFTMAX, "NumPy by hand", "numpy"),
    Program(SOFTMAX, "jaxnn", "jaxnn"),
    Program(SOFTMAX, "PyTorch", "pytorch"),
    Program(SOFTMAX, "PyTorch, updates by hand", "pytorch_by_hand"),
    Program(SOFTMAX, "scikit-learn", "scikit_learn"),
    Program(SOFTMAX, "Flax + optax", "flax"),
    Program(SOFTMAX, "Equinox + optax", "equinox"),
    Program(SOFTMAX, "Keras on JAX", "keras"),
    Program(ARCHITECTURES, "jaxnn", "architectures", ARCHITECTURES),
    Program(ARCHITECTURES, "PyTorch", "architectures_in_pytorch"),
)


def measure(bench: Bench) -> Results:
    """Every installed script: first to fill the cache, then in turn."""
    repetitions = 1 if bench.config.quick else 2 * bench.config.seeds + 1
    programs: list[Program] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store(folder, *load("digits"))  # scripts need no scikit-learn for examples
        for program in PROGRAMS[:2] if bench.config.quick else PROGRAMS:
            with optional(f"start-up of {program.label}"):
                timed(program, folder, "warm")
                programs.append(program)

        def cold_and_warm(program: Program, seed: int) -> list[dict[str, float]]:
            caches = [f"cold-{programs.index(program)}-{seed}"] * (seed < bench.config.seeds)
            return [timed(program, folder, cache) for cache in (*caches, "warm")]

        found = bench.in_turn("start-up", programs, cold_and_warm, repetitions)
    rows = []
    for program, runs in zip(programs, found, strict=True):
        warm, last = [run[-1] for run in runs], runs[-1][-1]
        times = {
            "cold": figures(cold["wall"] for cold, *rest in runs if rest),
            "warm": figures(each["wall"] for each in warm),
            "stages": {s: figures(each[s] for each in warm) for s in STAGES if s in last},
        }
        rows.append(program._asdict() | times | {"accuracy": last.get("accuracy")})
    return {"rows": rows}


def timed(program: Program, folder: Path, cache: str) -> dict[str, float]:
    """The ``wall`` seconds of a process, with the compilation cache of the given name.

    Scripts of SOFTMAX add the seconds from the start to each of STAGES, and the ``accuracy``.
    """
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / cache / "torch"),
        "KERAS_BACKEND": "jax",
    }
    out, began = folder / "out", time.time()
    arguments = [program.script, repr(began), folder, out]
    if program.module == ARCHITECTURES:
        arguments = ["--out", out]
    with running(program.module, *arguments, environment=environment) as process:
        *_, last = ("", *(line for _, line in process.lines()))
        wall = time.time() - began
    return {"wall": wall} | (json.loads(last) if program.run == SOFTMAX else {})


def rows_of(results: Results, run: str) -> list[dict[str, Any]]:
    """A run's rows by warm time, with the ``ratio`` to jaxnn's time."""
    return ranked([row for row in results["startup"]["rows"] if row["run"] == run], "warm")


def tables(results: Results) -> list[Table]:
    """The scripts by warm time, a table per run; stages where scripts report stages."""
    shown = []
    for run, (title, note) in TEXTS.items():
        rows, stages = rows_of(results, run), STAGES.items() if run == SOFTMAX else ()
        columns = COLUMNS | {heading: f"{{{stage}}}" for stage, heading in stages}
        for row in rows:
            seconds = {stage: f"{times['median']:.2f}" for stage, times in row["stages"].items()}
            row |= dict.fromkeys(STAGES, "") | seconds
        shown += [table(title, rows, columns, [note])] if rows else []
    return shown


def goals(results: Results) -> list[Goal]:
    """Not slower than the faster of PyTorch's scripts."""
    reached = []
    for run, what in GOALS.items():
        torch = [r for r in rows_of(results, run) if r["label"].startswith("PyTorch")]
        if torch and np.isfinite(torch[0]["ratio"]):
            title = f"{what}, warm, whole process: against PyTorch's script"
            reached.append(Goal(title, 1.0, torch[0]["ratio"]))
    return reached


PARTS = {"startup": Part(measure, tables, goals)}
