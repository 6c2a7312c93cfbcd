"""A search for people and programs: progress, tables, ``history.csv``, ``results.json``."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from jaxnn import display
from jaxnn.files import short
from jaxnn.reporting import console, no_better, plain, print_table, printable
from jaxnn.search.space import BATCH_SIZE, Space, cell, readable
from jaxnn.search.task import spread_over
from jaxnn.search.trainer import FEW
from jaxnn.types import is_installed

if TYPE_CHECKING:
    from jaxnn.search.loop import Status
    from jaxnn.search.result import Best, FinalScores, Result, Row


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
      progress: True shows a bar, or lines where there is no terminal and no notebook; a function
        gets every ``Status``; None and False are silence.
      space: the searched space; the number of programs is printed at the start.
      measure: the score that chooses: "error", "loss" or the name of a metric.
      stream: default: standard error.
      clock: seconds.

    Yields:
      A function of a ``Status``.

    Raises:
      TypeError: progress is neither a bool, nor None, nor a function.
    """
    if progress is None or progress is False:
        yield lambda _: None
    elif callable(progress):
        yield progress
    elif progress is not True:
        raise TypeError(f"progress is {progress!r}, expected True, None or a function of a Status")
    else:
        from jaxnn.reporting import Progress

        with Progress(stream, unit="evaluations", summary=True, clock=clock) as shown:
            shown.say(f"search: {programs(space)}")
            yield lambda status: shown.report(
                "search", status.done, status.total, _best_so_far(status, measure), status.read
            )


def _best_so_far(status: "Status", measure: str) -> str:
    """The best score and the number diverged: ``best accuracy 92.20%, 3 diverged``."""
    shown = f"{measure} {status.best:.4f}"
    best = f"accuracy {1 - status.best:.2%}" if measure == "error" else shown
    known = f"best {best}, " if math.isfinite(status.best) else ""
    return f"{known}{status.diverged} diverged"


def programs(space: Space) -> str:
    """The number of programs that a space needs, and why."""
    count = space.programs()
    if count == 1:
        return "the space needs 1 program"
    if count is None:
        return "the space needs a program for each combination of compiled hyperparameters"
    static = [name for name in space.searched if name in space.static]
    shared = "hidden" in static and len(space["hidden"].values) > FEW
    return (
        f"the space needs {count} programs, one for each combination of {', '.join(static)}; "
        "combinations without a trial are not compiled"
        f"{', and networks of many sizes are padded to share programs' if shared else ''}"
    )


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
    names = {
        "accuracy_interval": "confidence_interval",
        "loss": loss,
        "loss_interval": f"{loss}_confidence_interval",
        "losses": f"{loss}_values",
    }
    tests = [
        {
            names.get(name, name): plain(v)
            for name, v in scores._asdict().items()
            if v not in (None, [])
        }
        for scores in result.test_scores
    ]
    return {
        "best": {
            "trial": best.trial,
            "config": readable(best.config),
            "epochs": best.epochs,
            **_by_shown_name(result, best),
            **({"stages": stages} if len(stages) > 1 else {}),
        },
        **({"test": {"reads": result.test_reads, **tests[0]}} if tests else {}),
        **({"later_tests": tests[1:]} if tests[1:] else {}),
        "complete": result.complete,
        "trials": len(result.table),
        "diverged": result.diverged,
        "programs": result.programs,
        "seconds": {"compile": result.compile_seconds, "train": result.train_seconds},
        "method": dict(result.method),
        "space": result.space.describe(),
        "validation": result.task.validation_split.describe(),
        "measure": result.task.objective,
        "rule": result.rule,
        "standard_error": result.standard_error
        and {"value": result.standard_error, "spread": spread_over(result.task)},
        "seeds": result.seeds,
        "borders": borders(result),
        "notes": result.notes,
        "warnings": warnings(result),
    }


def _by_shown_name(result: "Result", best: "Best") -> "Row":
    """The validation scores of the chosen trial."""
    loss = {f"validation_{result.loss_name}": best.validation_loss}
    metrics = {f"validation_{name}": value for name, value in best.validation_metrics.items()}
    if result.task.regression:
        return loss | metrics
    return {"validation_accuracy": best.validation_accuracy} | loss | metrics


INCOMPLETE = (
    "the search is incomplete, stopped before the end: the same call with the same folder goes on"
)


def warnings(result: "Result") -> list[str]:
    """A line if the search is incomplete, and one if the choice always says the commonest class."""
    lines = [] if result.complete else [INCOMPLETE]
    targets = result.validated
    if (
        targets is None
        or result.task.regression
        or (targets.ndim == 1 and targets.dtype.kind == "f")
    ):  # no classes
        return lines
    chosen = {f"trial {result.best.trial}": result.best.validation_accuracy}
    return lines + no_better(chosen, targets, "validation")


def history(result: "Result") -> "list[Row]":
    """One row per trial, replicate and evaluation; None where a replicate has diverged."""
    task, rows = result.task, []
    usual = min(BATCH_SIZE, *(result.sizes or [result.examples]))
    for number, curve in sorted(result.curves.items()):
        batch_size = curve.trial.config.get("batch_size", usual)
        scores = {
            f"validation_{name}": curve.shown(key) for key, name in task.shown.items()
        }  # [evaluations, R] each
        for replicate in range(curve.values("loss").shape[1]):
            seed, fold = divmod(replicate, task.validation_split.count)
            examples = result.sizes[fold] if result.sizes else result.examples
            rows += [
                {
                    "trial": number,
                    "seed": seed,
                    "fold": fold,
                    "epoch": evaluation / task.evaluations_per_epoch,
                    "iteration": task.iteration(evaluation, batch_size, examples),
                    **{name: plain(values[row, replicate]) for name, values in scores.items()},
                }
                for row, evaluation in enumerate(curve.evaluations)
            ]
    return rows


_EDGE = 0.03
"""The share of a range, at either end, that counts as the border."""


def borders(result: "Result") -> list[str]:
    """A line for every chosen value at the border of the range: a wider range may be better."""
    lines = []
    for name in result.space.searched:
        if name not in result.best.config:
            continue
        domain, value = result.space[name], result.best.config[name]
        low, high, place = domain.low, domain.high, 0.5
        if domain.is_interval:
            place = domain.where(value)
        elif len(domain.values) > 2 and all(_is_number(option) for option in domain.values):
            low, high = min(domain.values), max(domain.values)
            place = {low: 0.0, high: 1.0}.get(value, 0.5)
        if not _EDGE < place < 1 - _EDGE:
            end = "lower" if place < 0.5 else "upper"
            lines.append(
                f"{name} = {cell(value)} is at the {end} end of the searched range, {low:.3g} to "
                f"{high:.3g}: a wider range may have a better value"
            )
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(result: "Result", numbers: Iterable[int], stream: TextIO | None) -> None:
    """Prints some trials, the best first."""
    table = {row["trial"]: row for row in result.table}
    rows = [table[number] for number in numbers]
    replicates = len(result.curves[result.best.trial].diverged_at)
    spread = f", ± 1 standard deviation of {replicates}" if replicates > 1 else ""
    if result.standard_error is not None:
        spread += f"; 1 standard error {spread_over(result.task)}: {result.standard_error:.2g}"
    print_table(
        f"the best {len(rows)} of {len(table)} trials, {result.diverged} diverged{spread}",
        _columns(result),
        [
            [f"{row['trial']}{' (chosen)' if row['trial'] == result.best.trial else ''}", *cells]
            for row in rows
            for cells in [_cells(result, row)]
        ],
        stream,
    )
    output = console(stream)
    for line in (*borders(result), *warnings(result)):
        text = printable(line, encoding=output.encoding)
        output.print(text, markup=False, soft_wrap=True)


def _columns(result: "Result") -> list[str]:
    """The headings of the table of trials."""
    shown = (f"{n} (%)" if n == "accuracy" else n for n in result.task.shown.values())
    return ["trial", *result.space.searched, "epochs", *shown]


def _cells(result: "Result", row: "Row") -> list[str]:
    """The cells of a trial's row after the trial's number."""
    return [
        *(cell(row[name]) for name in result.space.searched),
        "" if row["best_epoch"] is None else f"{row['best_epoch']:g}",
        *(
            _measured(row, f"validation_{name}", *((100, 2) if key == "error" else (1, 4)))
            for key, name in result.task.shown.items()
        ),
    ]


def summary(result: "Result") -> str:
    """The search in a line: ``Result(16 trials, 1 diverged; best: trial 3, accuracy 92.20%)``."""
    best, scores = result.best, _by_shown_name(result, result.best)
    shown = [f"{name} {value:.4g}" for name, value in scores.items() if value is not None]
    counts = f"{len(result.table)} trials, {result.diverged} diverged"
    state = "" if result.complete else ", incomplete"
    return short(
        printable(f"Result({counts}{state}; best: trial {best.trial}, {', '.join(shown)})"), 1000
    )


def to_html(result: "Result") -> str:
    """The search in a notebook: the choice, the learning curves, a table of the trials."""
    best, table = result.best, {row["trial"]: row for row in result.table}
    order = sorted(table, key=lambda n: (result.curves[n].score(result.task.objective), n))
    rows = [table[number] for number in order[: display.ROWS]]
    names = [*result.space.searched, "best_epoch"]
    names += [f"validation_{name}" for name in result.task.shown.values()]
    config = ", ".join(f"{name} = {cell(value)}" for name, value in readable(best.config).items())
    scores = [
        (name.replace("_", " "), f"{value:.4g}")
        for name, value in _by_shown_name(result, best).items()
        if value is not None
    ]
    tests = [
        (f"test ({scores.examples:,} examples)", _tested(result, scores))
        for scores in result.test_scores
    ]
    curves = None
    if is_installed("matplotlib"):
        from jaxnn.search.figures import learning_curves

        curves = display.picture(learning_curves(result), "learning curves")
    more = f"the best {len(rows)} of {len(table):,} trials" if len(table) > len(rows) else ""
    return display.html(
        display.heading("Search", about=f"{len(table):,} trials, {result.diverged} diverged"),
        display.facts([(f"chosen, trial {best.trial}", config), *scores, *tests]),
        curves,
        display.table(
            _columns(result),
            [[row["trial"], *_cells(result, row)] for row in rows],
            [[row["trial"], *(_key(row[name]) for name in names)] for row in rows],
            chosen=next((i for i, row in enumerate(rows) if row["trial"] == best.trial), None),
        ),
        *map(display.remark, filter(None, (more, *borders(result), *warnings(result)))),
    )


def _key(value: object) -> object:
    """The value by which a table sorts a cell."""
    return value if value is None or _is_number(value) else cell(value)


def _tested(result: "Result", scores: "FinalScores") -> str:
    """The test scores with intervals."""
    found = {"accuracy": scores.accuracy, result.loss_name: scores.loss}
    ends = {"accuracy": scores.accuracy_interval, result.loss_name: scores.loss_interval}
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.4g} ({ends[name][0]:.4g} to {ends[name][1]:.4g})"
        for name, value in found.items()
        if value is not None
    )


def _measured(row: "Row", name: str, factor: float, digits: int) -> str:
    """Mean ± standard deviation, as far as known; large numbers in scientific notation."""
    known = [value for value in (row[name], row[f"{name}_std"]) if value is not None]
    return " ± ".join(
        f"{factor * value:{f'.{digits}f' if abs(value) < 1e4 else '.3g'}}" for value in known
    )
