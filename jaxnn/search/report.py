"""A search for people and programs: progress, tables, ``trials.csv``, ``results.json``."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from jaxnn.extras import require
from jaxnn.reporting import environment, plain, print_table, write_csv, write_json
from jaxnn.search.space import Space, cell, readable

if TYPE_CHECKING:
    from jaxnn.search.loop import Status
    from jaxnn.search.result import FinalScores, Result, Row


@contextmanager
def reporting(
    progress: "bool | Callable[[Status], None] | None",
    space: Space,
    measure: str,
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "Iterator[Callable[[Status], None]]":
    """Shows the progress of a search, if wanted.

    Args:
      progress: True shows a bar, or lines where there is no terminal; a function gets every
        ``Status``; None and False are silence.
      space: the searched space; the number of programs is printed at the start.
      measure: the minimised measure, "error" or "loss".
      stream: default: standard error.
      clock: seconds.

    Yields:
      A function of a ``Status``.

    Raises:
      TypeError: progress is neither a bool, nor None, nor a function.
    """
    if callable(progress):
        yield progress
        return
    if progress is not None and not isinstance(progress, bool):
        raise TypeError(f"progress is {progress!r}, expected True, None or a function of a Status")
    if not progress:
        yield lambda _: None
        return
    from jaxnn.progress import Progress

    output = stream or sys.stderr
    print(f"search: {programs(space)}", file=output, flush=True)
    with Progress(output, unit="evaluations", summary=True, clock=clock) as shown:
        yield lambda status: shown.report(
            "search", status.done, status.total, _best_so_far(status, measure), status.read
        )


def _best_so_far(status: "Status", measure: str) -> str:
    """The best score and the number diverged: ``best accuracy 92.20%, 3 diverged``."""
    diverged = f"{status.diverged} diverged"
    if not math.isfinite(status.best):
        return diverged
    best = f"accuracy {1 - status.best:.2%}" if measure == "error" else f"loss {status.best:.4f}"
    return f"best {best}, {diverged}"


def programs(space: Space) -> str:
    """The number of programs that a space needs, and why."""
    count = space.programs()
    if count == 1:
        return "the space needs 1 program"
    static = [name for name in space.searched if name in space.static]
    return (
        f"the space needs {count} programs, one for each combination of {', '.join(static)}; "
        "combinations without a trial are not compiled"
    )


def write(result: "Result", folder: Path | str) -> list[Path]:
    """Writes the whole report of a search, each file whole or not at all.

    ``trials.csv``, ``history.csv``, ``results.json`` and the figures as PNG; the folder is created
    if missing, and may be the folder of the search. In a distributed search let one process write.

    Returns:
      The files.

    Raises:
      OSError: a file cannot be written.
    """
    require("search", "matplotlib", "scipy", "sklearn")
    from jaxnn.figures import write_png
    from jaxnn.search.figures import figures

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables, drawn = {"trials.csv": result.table, "history.csv": history(result)}, figures(result)
    for name, rows in tables.items():
        write_csv(folder / name, rows)
    write_json(folder / "results.json", {**environment(), "results": results(result)})
    for name, figure in drawn.items():
        write_png(folder / name, figure)
    return [folder / name for name in (*tables, "results.json", *drawn)]


def results(result: "Result") -> dict[str, Any]:
    """The search in JSON's types: the question, the choice, the cost.

    ``best`` has the configuration, its epochs, ``validation_accuracy`` and ``validation_X``, where
    X is ``cross_entropy``, ``squared_error`` or ``loss``, and ``stages`` if hyperparameters changed
    in training. ``test``, if the test set was read, has the number of readings and the scores of
    the first; ``later_tests`` has the scores of later readings.
    """
    best, loss, per_epoch = result.best, result.loss_name, result.task.evaluations_per_epoch
    stages = [
        {"config": readable(stage.config), "epochs": stage.until / per_epoch}
        for stage in best.stages
    ]
    tests = [_test_scores(scores, loss) for scores in result.test_scores]
    return {
        "best": {
            "trial": best.trial,
            "config": readable(best.config),
            "epochs": best.epochs,
            "validation_accuracy": best.validation_accuracy,
            f"validation_{loss}": best.validation_loss,
            **({"stages": stages} if len(stages) > 1 else {}),
        },
        **({"test": {"reads": result.test_reads, **tests[0]}} if tests else {}),
        **({"later_tests": tests[1:]} if tests[1:] else {}),
        "trials": len(result.table),
        "diverged": result.diverged,
        "programs": result.programs,
        "seconds": {"compile": result.compile_seconds, "train": result.train_seconds},
        "method": dict(result.method),
        "space": result.space.describe(),
        "validation": result.task.validation.describe(),
        "measure": result.task.measure,
        "rule": result.rule,
        "seeds": result.seeds,
        "notes": result.notes,
    }


def _test_scores(scores: "FinalScores", loss: str) -> dict[str, Any]:
    """The scores with the interval of the accuracy as *the* interval, and the loss by name."""
    names = {
        "accuracy_interval": "confidence_interval",
        "loss": loss,
        "loss_interval": f"{loss}_confidence_interval",
        "losses": f"{loss}_values",
    }
    return {names.get(name, name): plain(value) for name, value in scores._asdict().items()}


def history(result: "Result") -> "list[Row]":
    """One row per trial, replicate and evaluation; None where a replicate has diverged."""
    task, rows = result.task, []
    for number, curve in sorted(result.curves.items()):
        static = result.space.static_part(curve.trial.config)
        batch_size = task.spec(static, result.examples).batch_size
        accuracy, loss = 1 - curve.values("error"), curve.values("loss")  # [evaluations, R]
        for replicate in range(accuracy.shape[1]):
            seed, fold = divmod(replicate, task.validation.count)
            rows += [
                {
                    "trial": number,
                    "seed": seed,
                    "fold": fold,
                    "epoch": evaluation / task.evaluations_per_epoch,
                    "iteration": task.iteration(evaluation, batch_size, result.examples),
                    "validation_accuracy": plain(accuracy[row, replicate]),
                    "validation_loss": plain(loss[row, replicate]),
                }
                for row, evaluation in enumerate(curve.evaluations)
            ]
    return rows


def show(result: "Result", count: int = 10, stream: TextIO | None = None) -> None:
    """Prints the best trials, the best first.

    Args:
      result: of a search.
      count: the most trials to print.
      stream: default: standard output.
    """
    measure, searched = result.task.measure, result.space.searched
    finite = [row for row in result.table if row["best_epoch"] is not None]
    rows = sorted(
        finite, key=lambda row: (result.curves[row["trial"]].score(measure), row["trial"])
    )
    rows = rows[:count]
    replicates = len(result.curves[result.best.trial].diverged_at)
    spread = f", ± 1 standard deviation of {replicates}" if replicates > 1 else ""
    print_table(
        f"the best {len(rows)} of {len(result.table)} trials, {result.diverged} diverged{spread}",
        ["trial", *searched, "epochs", "accuracy (%)", "loss"],
        [
            [
                f"{row['trial']}{' (chosen)' if row['trial'] == result.best.trial else ''}",
                *(cell(row[name]) for name in searched),
                f"{row['best_epoch']:g}",
                _measured(row, "validation_accuracy", 100, 2),
                _measured(row, "validation_loss", 1, 4),
            ]
            for row in rows
        ],
        stream,
    )


def _measured(row: "Row", name: str, factor: float, digits: int) -> str:
    def number(value: float) -> str:
        return f"{factor * value:.{digits}f}" if abs(value) < 1e4 else f"{factor * value:.3g}"

    std = row[f"{name}_std"]
    return number(row[name]) + ("" if std is None else f" ± {number(std)}")
