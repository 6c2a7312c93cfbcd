"""A result for people and programs: ``trials.csv``, ``history.csv``, ``results.json``, a table."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from jaxnn.reporting import environment, print_table, write_csv, write_json
from jaxnn.search.final import FinalScores
from jaxnn.search.journal.records import readable_config
from jaxnn.search.space import static_part

if TYPE_CHECKING:
    from jaxnn.search.result import Result

Row = dict[str, Any]

LOSS_NAMES = {
    "cross_entropy": "cross_entropy",
    "logistic": "cross_entropy",
    "squared_error": "squared_error",
}
"""What a loss of the library is called where it is reported; any other is called "loss"."""


def write(result: "Result", folder: Path | str) -> list[Path]:
    """Writes everything there is to say about a search, each file whole or not at all.

    ``trials.csv``, ``history.csv``, ``results.json`` and the figures as PNG; the folder is made if
    need be, and may be the one of the search. Of several processes, let one write.

    Returns:
      The files.

    Raises:
      OSError: they cannot be written.
    """
    from jaxnn.figures import write_png
    from jaxnn.search.reporting.figures import figures

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("trials.csv", "history.csv", "results.json")]
    write_csv(files[0], result.table)
    write_csv(files[1], history(result))
    write_json(files[2], {**environment(), "results": results(result)})
    for name, figure in figures(result).items():
        files.append(folder / name)
        write_png(files[-1], figure)
    return files


def results(result: "Result") -> dict[str, Any]:
    """The search in JSON's types: what was searched, what was chosen, what it cost.

    ``best`` has the configuration, its epochs, ``validation_accuracy`` and ``validation_X``, where
    X is ``cross_entropy``, ``squared_error`` or ``loss``, and ``stages`` if its hyperparameters
    changed in training. ``test``, if the test set was read, has how often and what the first
    reading found; ``later_tests`` has what others found.
    """
    best, loss = result.best, loss_name(result)
    stages = [
        {
            "config": readable_config(stage.config),
            "epochs": stage.until / result.task.evaluations_per_epoch,
        }
        for stage in best.stages
    ]
    tested = [_test_scores(scores, loss) for scores in result.test_scores]
    return {
        "best": {
            "trial": best.trial,
            "config": readable_config(best.config),
            "epochs": best.epochs,
            "validation_accuracy": best.validation_accuracy,
            f"validation_{loss}": best.validation_loss,
            **({"stages": stages} if len(stages) > 1 else {}),
        },
        **({"test": {"reads": result.test_reads, **tested[0]}} if tested else {}),
        **({"later_tests": tested[1:]} if tested[1:] else {}),
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


def loss_name(result: "Result") -> str:
    """What the chosen trial's loss is called."""
    loss = result.spec.loss
    return LOSS_NAMES[loss] if isinstance(loss, str) else "loss"


def _test_scores(scores: FinalScores, loss: str) -> dict[str, Any]:
    return {
        "accuracy": scores.accuracy,
        loss: scores.loss,
        "confidence_interval": list(scores.accuracy_interval),
        f"{loss}_confidence_interval": list(scores.loss_interval),
        "accuracies": scores.accuracies,
        f"{loss}_values": scores.losses,
        "retrained": scores.retrained,
        "examples": scores.examples,
    }


def history(result: "Result") -> list[Row]:
    """One row per trial, replicate and evaluation; None where a replicate had diverged."""
    return list(_history(result))


def _history(result: "Result") -> Iterator[Row]:
    task = result.task
    for number, curve in sorted(result.curves.items()):
        batch_size = task.spec(static_part(curve.trial.config), result.examples).batch_size
        accuracy, loss = 1 - curve.values("error"), curve.values("loss")  # [evaluations, R]
        for replicate in range(accuracy.shape[1]):
            seed, fold = divmod(replicate, task.validation.count)
            for row, evaluation in enumerate(curve.evaluations):
                yield {
                    "trial": number,
                    "seed": seed,
                    "fold": fold,
                    "epoch": evaluation / task.evaluations_per_epoch,
                    "iteration": task.iteration(evaluation, batch_size, result.examples),
                    "validation_accuracy": _known(accuracy[row, replicate]),
                    "validation_loss": _known(loss[row, replicate]),
                }


def show(result: "Result", count: int = 10, stream: TextIO | None = None) -> None:
    """Prints the best trials, the best first.

    Args:
      result: of a search.
      count: how many, at most.
      stream: default: standard output.
    """
    rows = ranked(result)[:count]
    searched = result.space.searched
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


def ranked(result: "Result") -> list[Row]:
    """The rows of the trials that have not diverged, the best first."""
    measure = result.task.measure
    finite = [row for row in result.table if row["best_epoch"] is not None]
    return sorted(
        finite, key=lambda row: (result.curves[row["trial"]].score(measure), row["trial"])
    )


def cell(value: Any) -> str:
    """A value of a configuration as people read it: layer sizes as ``50-30``."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return "-".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def _measured(row: Row, name: str, factor: float, digits: int) -> str:
    def number(value: float) -> str:
        return f"{factor * value:.{digits}f}" if abs(value) < 1e4 else f"{factor * value:.3g}"

    std = row[f"{name}_std"]
    return number(row[name]) + ("" if std is None else f" ± {number(std)}")


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
