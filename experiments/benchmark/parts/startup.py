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

from experiments.benchmark.part import Bench, Goal, Part, Results, Table, figures, table
from experiments.benchmark.process import MissingError, running
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
    Program(ARCHITECTURES, "PyTorch", "pytorch", "experiments.benchmark.architectures_in_pytorch"),
)


class Timed(NamedTuple):
    """One process."""

    wall: float  # seconds
    report: dict[str, float]  # seconds from the start to each of STAGES; and the accuracy


def measure(bench: Bench) -> Results:
    """Every installed script: first to fill the cache, then in turn."""
    wanted = PROGRAMS[:2] if bench.config.quick else PROGRAMS
    repetitions = 1 if bench.config.quick else 2 * bench.config.seeds + 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "digits.npz")
        programs = [program for program in wanted if starts(program, folder)]
        cold: dict[Program, list[Timed]] = {program: [] for program in programs}
        warm: dict[Program, list[Timed]] = {program: [] for program in programs}
        for repetition, program in bench.turns("start-up", repetitions, programs):
            if repetition < bench.config.seeds:
                cache = f"cold-{programs.index(program)}-{repetition}"
                cold[program].append(timed(program, folder, cache))
            warm[program].append(timed(program, folder, "warm"))
    return {"rows": [row(program, cold[program], warm[program]) for program in programs]}


def starts(program: Program, folder: Path) -> bool:
    """Fills the warm cache; prints a line if a package of the script is not installed."""
    try:
        timed(program, folder, "warm")
    except MissingError as error:
        print(f"start-up of {program.label} is left out: {error}")
        return False
    return True


def write_digits(path: Path) -> None:
    """The digits in jaxnn's split: scripts need no scikit-learn for examples."""
    train, test = load("digits")
    y_train, y_test = (np.asarray(each.targets, np.int64) for each in (train, test))
    np.savez(path, x_train=train.inputs, y_train=y_train, x_test=test.inputs, y_test=y_test)


def timed(program: Program, folder: Path, cache: str) -> Timed:
    """A process from start to end, with the compilation cache of the given name."""
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / cache / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / cache / "torch"),
        "KERAS_BACKEND": "jax",
    }
    out, began = folder / "out", time.time()
    arguments = [program.script, repr(began), folder / "digits.npz", out]
    if program.module == ARCHITECTURES:
        arguments = ["--out", out]
    with running(program.module, *arguments, environment=environment) as process:
        *_, last = ("", *(line for _, line in process.lines()))
        wall = time.time() - began
    return Timed(wall, json.loads(last) if program.run == SOFTMAX else {})


def row(program: Program, cold: list[Timed], warm: list[Timed]) -> dict[str, Any]:
    """A script's entry in results.json."""
    last = warm[-1].report
    return program._asdict() | {
        "cold": figures(each.wall for each in cold),
        "warm": figures(each.wall for each in warm),
        "stages": {s: figures(each.report[s] for each in warm) for s in STAGES if s in last},
        "accuracy": last.get("accuracy"),
    }


def rows_of(results: Results, run: str) -> list[dict[str, Any]]:
    """A run's rows by warm time, with the ``ratio`` to jaxnn's time and the stages as text."""
    rows = [row for row in results["startup"]["rows"] if row["run"] == run]
    ours = next((r["warm"]["median"] for r in rows if r["label"] == "jaxnn"), np.nan)
    for index, row in enumerate(rows):
        stages = {s: f"{at['median']:.2f}" for s, at in row["stages"].items()}
        rows[index] = dict.fromkeys(STAGES, "") | row | stages
        rows[index]["ratio"] = row["warm"]["median"] / ours
    return sorted(rows, key=lambda row: row["warm"]["median"])


def tables(results: Results) -> list[Table]:
    """The scripts by warm time, a table per run; stages where scripts report stages."""
    stages = {title: f"{{{stage}}}" for stage, title in STAGES.items()}
    return [
        table(title, rows, COLUMNS | (stages if run == SOFTMAX else {}), [note])
        for run, (title, note) in TEXTS.items()
        if (rows := rows_of(results, run))
    ]


def goals(results: Results) -> list[Goal]:
    """Not slower than the faster of PyTorch's scripts."""
    reached = []
    for run, what in GOALS.items():
        torch = [r for r in rows_of(results, run) if r["label"].startswith("PyTorch")]
        if torch and np.isfinite(torch[0]["ratio"]):
            title = f"{what}, warm, whole process: against PyTorch's script"
            reached.append(Goal(title, 1.0, torch[0]["ratio"]))
    return reached


PART = Part(measure, tables, goals)
