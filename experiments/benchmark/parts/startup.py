"""Start-up: whole processes of the shortest real runs, from their start to their end, in turn.

Cold is with an empty compilation cache, warm with one that an earlier run has filled; Python's
bytecode is there in both. Every script may keep all its compiled programs.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.part import Bench, Goal, Table, figures
from experiments.benchmark.startups.programs import (
    ARCHITECTURES,
    PROGRAMS,
    SOFTMAX,
    STAGES,
    Program,
    Timed,
    installed,
    timed,
    write_digits,
)


def measure(bench: Bench) -> Mapping[str, Any]:
    """Every script that is installed: once to fill its cache, then in turn."""
    wanted = PROGRAMS[:2] if bench.config.quick else PROGRAMS
    programs = [program for program in wanted if installed(program)]
    cold: list[list[Timed]] = [[] for _ in programs]
    warm: list[list[Timed]] = [[] for _ in programs]
    repetitions = 1 if bench.config.quick else 2 * bench.config.seeds + 1
    with tempfile.TemporaryDirectory() as name, bench.run.progress("start-up") as report:
        folder = Path(name)
        write_digits(folder / "digits.npz")
        for program in programs:
            timed(program, folder, "warm")
        for repetition in range(repetitions):
            for index, program in enumerate(programs):
                if repetition < bench.config.seeds:
                    cold[index].append(timed(program, folder, f"cold-{index}-{repetition}"))
                warm[index].append(timed(program, folder, "warm"))
            report(repetition + 1, repetitions)
    rows = [row(*each) for each in zip(programs, cold, warm, strict=True)]
    return {"rows": rows}


def row(program: Program, cold: list[Timed], warm: list[Timed]) -> dict[str, Any]:
    """A script's entry in results.json."""
    last = warm[-1].report
    return {
        "run": program.run,
        "label": program.label,
        "module": program.module,
        "cold": figures(each.wall for each in cold),
        "warm": figures(each.wall for each in warm),
        "stages": {
            stage: figures(each.report[stage] for each in warm) for stage in STAGES if stage in last
        },
        "accuracy": last.get("accuracy"),
    }


def tables(results: Mapping[str, Any]) -> list[Table]:
    """The scripts by their warm time, one table a run."""
    found = results.get("startup")
    if not found:
        return []
    mine = {
        run: sorted((r for r in found["rows"] if r["run"] == run), key=warm_seconds)
        for run in (SOFTMAX, ARCHITECTURES)
    }
    return [table(run, rows) for run, rows in mine.items() if rows]


def warm_seconds(row: Mapping[str, Any]) -> float:
    """The whole process with a full cache."""
    return row["warm"]["median"]


def table(run: str, rows: list[dict[str, Any]]) -> Table:
    """One run's scripts; stages only where they report them."""
    ours = next((warm_seconds(row) for row in rows if row["label"] == "jaxnn"), np.nan)
    stages = STAGES if run == SOFTMAX else ()
    body = []
    for row in rows:
        cells = [row["label"], f"{row['cold']['median']:.2f}", f"{warm_seconds(row):.2f}"]
        cells.append(f"{warm_seconds(row) / ours:.2f}")
        reached = (row["stages"].get(stage) for stage in stages)
        cells += ["" if at is None else f"{at['median']:.2f}" for at in reached]
        body.append(cells)
    title, note = TEXTS[run]
    columns = ("", "cold (s)", "warm (s)", "warm / jaxnn's", *(COLUMNS[s] for s in stages))
    return Table(title, columns, body, [note])


COLUMNS = {"imports": "imported (s)", "first_step": "first step (s)", "result": "result (s)"}
TEXTS = {
    SOFTMAX: (
        "The shortest real run: softmax regression on digits, 500 iterations, accuracy",
        "The whole process, and when it came how far, warm. NumPy has next to nothing to import "
        "and nothing to compile; PyTorch's optimizers import its compiler at the first step.",
    ),
    ARCHITECTURES: (
        "python -m experiments.architectures: 15 networks on digits, table and figures",
        "The whole process.",
    ),
}


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """Not slower than PyTorch, however that is written."""
    found = results.get("startup")
    if not found:
        return []
    reached = []
    for run, what in ((SOFTMAX, "shortest real run"), (ARCHITECTURES, ARCHITECTURES)):
        rows = [row for row in found["rows"] if row["run"] == run]
        ours = [warm_seconds(row) for row in rows if row["label"] == "jaxnn"]
        torch = [warm_seconds(row) for row in rows if row["label"].startswith("PyTorch")]
        if ours and torch:
            label = f"{what}, warm, whole process: against PyTorch's script"
            reached.append(Goal(label, "x", 1.0, min(torch) / ours[0]))
    return reached
