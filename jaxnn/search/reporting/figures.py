"""Figures of a search; ``figures`` draws all that it has enough trials for."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from jaxnn.figures import COLOURS, Curve, curves_figure
from jaxnn.search.reporting.importance import importance
from jaxnn.search.reporting.parallel import parallel_coordinates
from jaxnn.search.reporting.points import (
    COLOUR_MAP,
    FAR,
    Point,
    best_points,
    colour_bar,
    colours,
    frame,
    leave_room,
    lost_label,
    measure,
    measure_scale,
    points,
    positions,
    score,
    set_up,
    unit,
)

if TYPE_CHECKING:
    from jaxnn.search.result import Result

_SHOWN = 5  # learning curves in colour

Style = dict[str, Any]
_COMPLETE: Style = {"marker": "o", "color": COLOURS[0], "label": "trial", "linestyle": ""}
_EARLY: Style = _COMPLETE | {"fillstyle": "none", "label": "stopped early"}
_LOST: Style = _COMPLETE | {"marker": "x", "color": COLOURS[1]}
_CHOSEN: Style = _COMPLETE | {
    "marker": "*",
    "color": COLOURS[4],
    "markeredgecolor": "black",
    "markersize": 14,
    "label": "chosen",
}


def figures(result: "Result") -> dict[str, Figure]:
    """All figures that make sense for a search, by the names of their files."""
    drawn = {
        "learning_curves.png": learning_curves(result),
        "hyperparameters.png": hyperparameters(result),
        "learning_rate_l2.png": learning_rate_l2(result),
        "parallel_coordinates.png": parallel_coordinates(result),
        "importance.png": importances(result),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def learning_curves(result: "Result") -> Figure:
    """The best trials by epoch, with bands over replicates; the others faint behind them.

    A copy, in population-based training, begins with what its parents did.
    """
    lines = {number: _whole_curve(result, number) for number in result.curves}  # [E, R]
    means = {number: line.mean(axis=1) for number, line in lines.items()}
    per_epoch = result.task.evaluations_per_epoch
    epochs = {n: np.arange(1, len(line) + 1) / per_epoch for n, line in lines.items()}
    best = [point.number for point in best_points(points(result), _SHOWN)]
    stops = {n: _stop(result, n) for n in best}
    percent = " %" if result.task.measure == "error" else ""
    figure = curves_figure(
        [
            Curve(
                f"trial {n}: {score(result, n):.3g}{percent} at epoch {epochs[n][stops[n]]:g}",
                epochs[n],
                lines[n].T,
            )
            for n in best
        ],
        title=f"The best {len(best)} of {len(lines)} trials",
        x_label="epoch",
        y_label=measure(result),
        replicates="seeds" if result.task.validation.count == 1 else "models (seeds and folds)",
    )
    (axes,) = figure.axes
    for line, number in zip(list(axes.lines), best, strict=True):
        stop = epochs[number][stops[number]], means[number][stops[number]]
        axes.plot(*stop, "o", color=line.get_color(), markersize=6)
    for number in lines.keys() - set(best):
        ending = {"marker": ".", "markersize": 3, "markevery": [-1]}
        axes.plot(epochs[number], means[number], color="0.8", linewidth=0.8, zorder=0, **ending)
    _limit(axes, means, best, FAR * score(result, best[0]) or math.inf)
    axes.xaxis.set_major_formatter("{x:g}")
    locator = MaxNLocator(integer=result.task.epochs > 3, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(locator if result.task.evaluations > 1 else FixedLocator([1]))
    figure.set_size_inches(10, 5)
    axes.set_position((0.08, 0.11, 0.62, 0.81))
    legend = axes.get_legend()
    assert legend is not None
    legend.set_title(legend.get_title().get_text().replace("; ", "\n"))
    legend.set(bbox_to_anchor=(1.02, 1.0), loc="upper left")
    return figure


def hyperparameters(result: "Result") -> Figure | None:
    """Every trial's score against each hyperparameter that was searched; None if none was."""
    names, shown = result.space.searched, points(result)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = max(5.0, 1 + 3.2 * columns), 1.1 + 2.9 * rows
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    finite = np.array([point.score for point in shown if not point.lost])
    measure_scale(panels[0, 0].yaxis, finite)
    for axes, name in zip(panels.flat, names, strict=False):
        here = [point for point in shown if name in point.config]
        set_up(axes.xaxis, name, result.space[name])
        for style, group in _groups(result, here):
            axes.plot(
                positions(name, result.space[name], group),
                [0.96 if point.lost else point.score for point in group],
                transform=axes.get_xaxis_transform() if group[0].lost else axes.transData,
                **{"markersize": 5, **style},
            )
        frame(axes)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(measure(result))
    if len(finite) < len(shown):
        leave_room(panels[0, 0].yaxis)
    _legend(figure, result, shown)
    return figure


def learning_rate_l2(result: "Result") -> Figure | None:
    """The score by learning rate and L2 strength; None unless both were searched."""
    names = ("learning_rate", "l2")
    shown = [point for point in points(result) if all(name in point.config for name in names)]
    if not set(names) <= set(result.space.searched) or not shown:
        return None
    figure = Figure(figsize=(7, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=True):
        set_up(axis, name, result.space[name])
    finite = np.array([point.score for point in shown if not point.lost])
    if not len(finite):
        return None
    norm = colours(finite)
    for style, group in _groups(result, shown):
        where = [positions(name, result.space[name], group) for name in names]
        if group[0].lost or style is _CHOSEN:
            axes.plot(*where, **style)
        else:
            tints = [colormaps[COLOUR_MAP](norm(point.score)) for point in group]
            axes.scatter(*where, edgecolors=tints, facecolors="none" if style is _EARLY else tints)
    colour_bar(figure, axes, norm, finite, measure(result))
    frame(axes)
    _legend(figure, result, shown, color="0.4")
    return figure


def importances(result: "Result") -> Figure | None:
    """How much each hyperparameter mattered; None for too few trials to tell.

    ``jaxnn.search.reporting.importance`` says what that means, and what it does not.
    """
    shown = points(result)
    configs = {point.number: point.config for point in shown}
    scores = {point.number: point.score for point in shown}
    found = importance(result.space, configs, scores) if len(result.space.searched) > 1 else None
    if found is None:
        return None
    names = sorted(found.mean, key=lambda name: found.mean[name])
    figure = Figure(figsize=(7, 1.6 + 0.4 * len(names)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.barh(
        names,
        [found.mean[name] for name in names],
        xerr=[found.std[name] for name in names],
        color=COLOURS[0],
        ecolor="0.3",
        capsize=3,
    )
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_title(
        "What a random forest's prediction of a trial's rank loses without a hyperparameter\n"
        f"(with all, it explains {max(found.explained, 0):.0%} of the variance)",
        fontsize="medium",
    )
    axes.set_xlabel("error added, as a share of the variance (± 1 standard deviation over folds)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_axisbelow(True)
    frame(axes)
    return figure


def _stop(result: "Result", number: int) -> int:
    """The index of a trial's best evaluation in its whole curve."""
    curve = result.curves[number]
    return curve.start + curve.best(result.task.measure)


def _whole_curve(result: "Result", number: int) -> np.ndarray:
    """A trial's scores from the first evaluation on, its ancestors' included: [E, R]."""
    name = result.task.measure
    curve = result.curves[number]
    parts, start = [curve.values(name)], curve.start
    while curve.copied_from is not None:
        curve = result.curves[curve.copied_from]
        parts.insert(0, curve.values(name)[: start - curve.start])
        start = curve.start
    return unit(result) * np.concatenate(parts)


def _limit(axes: Axes, means: dict[int, np.ndarray], best: list[int], far: float) -> None:
    """The measure's axis: the best trials and most of the others, but nothing that is far off."""
    everything = np.concatenate(list(means.values()))
    everything = everything[np.isfinite(everything)]
    most = max(np.quantile(everything, 0.9), *(np.nanmax(means[number]) for number in best))
    low, top = everything.min(), min(most, far)
    measure_scale(axes.yaxis, everything[everything <= top])
    room = 0.1 * (top - low)
    axes.set_ylim(low / 1.3 if low >= 0 else low - room, top + (room or 0.1))


def _groups(result: "Result", shown: Sequence[Point]) -> Iterator[tuple[Style, list[Point]]]:
    """The trials by the way in which they are drawn, the chosen one last, once more."""
    early = [point for point in shown if not point.lost and not point.complete]
    complete = [point for point in shown if not point.lost and point.complete]
    groups = [
        (_EARLY, early),
        (_COMPLETE | ({"label": "trained to the end"} if early else {}), complete),
        (_LOST | {"label": lost_label(result, shown)}, [point for point in shown if point.lost]),
        (_CHOSEN, [point for point in shown if point.number == result.best.trial]),
    ]
    yield from ((style, group) for style, group in groups if group)


def _legend(figure: Figure, result: "Result", shown: Sequence[Point], **changes: Any) -> None:
    """What the markers mean, of those that there are."""
    handles = [
        Line2D([], [], **(style | (changes if style["marker"] == "o" else {})))
        for style, _ in _groups(result, shown)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
