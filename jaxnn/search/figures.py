"""Figures of a search: learning curves, scores by hyperparameter, importance.

``figures`` draws every figure for which a search has enough trials.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, PercentFormatter

from jaxnn.figures import COLOURS, Curve, curves_figure, log_scale
from jaxnn.search.report import cell, loss_name
from jaxnn.search.result import Result
from jaxnn.search.space import Config, Domain, Space

FEWEST = 10
"""The fewest trials that an importance is computed from."""

_FOLDS, _TREES, _REPEATS = 5, 50, 5
_ABSENT = -0.5  # feature of a hyperparameter that does not apply, outside of the unit interval
_SHOWN = 5  # learning curves in colour
_COLOUR_MAP = "viridis"  # dark is good; readable without colour vision, and in print
_FAR = 1000.0  # times the best score: worse scores count as diverged
_JITTER = 0.25  # of trials with equal options, in cells
_BELOW = -0.12  # the height at which lines pass an axis without a value

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


class Point(NamedTuple):
    """A trial in a figure."""

    number: int
    config: Config
    score: float  # in percent or nats; inf for a diverged or far worse trial
    complete: bool  # trained to the end

    @property
    def lost(self) -> bool:
        """Whether the trial has no score to show."""
        return not math.isfinite(self.score)


class Importance(NamedTuple):
    """The loss in prediction of the scores when a hyperparameter is shuffled."""

    mean: dict[str, float]  # by name: increase of the squared error, as a share of the variance
    std: dict[str, float]  # over folds
    explained: float  # R^2 of the prediction; below 0 the mean predicts better


def figures(result: Result) -> dict[str, Figure]:
    """All figures that suit a search, by file name."""
    drawn = {
        "learning_curves.png": learning_curves(result),
        "hyperparameters.png": hyperparameters(result),
        "learning_rate_l2.png": learning_rate_l2(result),
        "parallel_coordinates.png": parallel_coordinates(result),
        "importance.png": importances(result),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def learning_curves(result: Result) -> Figure:
    """The best trials by epoch, with bands over replicates; the rest faint in the background.

    The curve of a copy, in population-based training, begins with the curves of its ancestors.
    """
    lines = {number: _whole_curve(result, number) for number in result.curves}  # [E, R]
    means = {number: line.mean(axis=1) for number, line in lines.items()}
    per_epoch = result.task.evaluations_per_epoch
    epochs = {n: np.arange(1, len(line) + 1) / per_epoch for n, line in lines.items()}
    scores = {point.number: point.score for point in _points(result) if not point.lost}
    best = sorted(scores, key=lambda number: (scores[number], number))[:_SHOWN]
    measure = result.task.measure
    stops = {n: result.curves[n].start + result.curves[n].best(measure) for n in best}
    percent = " %" if measure == "error" else ""
    figure = curves_figure(
        [
            Curve(
                f"trial {n}: {scores[n]:.3g}{percent} at epoch {epochs[n][stops[n]]:g}",
                epochs[n],
                lines[n].T,
            )
            for n in best
        ],
        title=f"The best {len(best)} of {len(lines)} trials",
        x_label="epoch",
        y_label=_measure(result),
        replicates="seeds" if result.task.validation.count == 1 else "models (seeds and folds)",
    )
    (axes,) = figure.axes
    for line, n in zip(list(axes.lines), best, strict=True):
        axes.plot(epochs[n][stops[n]], means[n][stops[n]], "o", color=line.get_color())
    for number in lines.keys() - set(best):
        ending = {"marker": ".", "markersize": 3, "markevery": [-1]}
        axes.plot(epochs[number], means[number], color="0.8", linewidth=0.8, zorder=0, **ending)
    _limit(axes, means, best, _FAR * scores[best[0]] or math.inf)
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


def hyperparameters(result: Result) -> Figure | None:
    """Every trial's score against each searched hyperparameter; None without any."""
    names, points = result.space.searched, _points(result)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = max(5.0, 1 + 3.2 * columns), 1.1 + 2.9 * rows
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    finite = _finite(points)
    _measure_scale(panels[0, 0].yaxis, finite)
    for axes, name in zip(panels.flat, names, strict=False):
        _set_up(axes.xaxis, name, result.space[name])
        for style, group in _groups(result, [point for point in points if name in point.config]):
            axes.plot(
                _positions(name, result.space[name], group),
                [0.96 if point.lost else point.score for point in group],
                transform=axes.get_xaxis_transform() if group[0].lost else axes.transData,
                **{"markersize": 5, **style},
            )
        _frame(axes)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(_measure(result))
    if len(finite) < len(points):  # room for diverged trials at the upper end
        axis = panels[0, 0].yaxis
        low, high = axis.get_transform().transform(np.array(axis.get_view_interval()))
        ends = np.array([low, high + 0.12 * (high - low)])
        panels[0, 0].set_ylim(*axis.get_transform().inverted().transform(ends))
    _legend(figure, result, points)
    return figure


def learning_rate_l2(result: Result) -> Figure | None:
    """The score by learning rate and L2 strength; None unless both were searched."""
    names = ("learning_rate", "l2")
    points = [point for point in _points(result) if all(name in point.config for name in names)]
    finite = _finite(points)
    if not set(names) <= set(result.space.searched) or not len(finite):
        return None
    figure = Figure(figsize=(7, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=True):
        _set_up(axis, name, result.space[name])
    norm = _colours(finite)
    for style, group in _groups(result, points):
        where = [_positions(name, result.space[name], group) for name in names]
        if group[0].lost or style is _CHOSEN:
            axes.plot(*where, **style)
        else:
            tints = [colormaps[_COLOUR_MAP](norm(point.score)) for point in group]
            axes.scatter(*where, edgecolors=tints, facecolors="none" if style is _EARLY else tints)
    bar = figure.colorbar(
        ScalarMappable(norm, _COLOUR_MAP),
        ax=axes,
        label=_measure(result),
        extend="max" if norm.vmax is not None and finite.max() > norm.vmax else "neither",
        ticks=LogLocator(subs=(1, 2, 5)) if isinstance(norm, LogNorm) else MaxNLocator(6),
        format="{x:g}",
    )
    bar.minorticks_off()
    _frame(axes)
    _legend(figure, result, points, color="0.4")
    return figure


def parallel_coordinates(result: Result) -> Figure | None:
    """Every trial as a line; None unless at least two hyperparameters were searched.

    A trial without a hyperparameter passes below the axis; a diverged trial ends below the axis of
    scores, whose upper end is the best score.
    """
    space, names, points = result.space, result.space.searched, _points(result)
    if len(names) < 2:
        return None
    finite = _finite(points)
    norm, tint, along = _colours(finite), colormaps[_COLOUR_MAP], _norm(finite.min(), finite.max())
    figure = Figure(figsize=(3 + 1.5 * len(names), 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for point in sorted(points, key=lambda point: -point.score):  # the best on top
        line = [_height(space, name, point) for name in names]
        line.append(_BELOW if point.lost else 1 - float(along(point.score)))
        colour = COLOURS[1] if point.lost else tint(norm(point.score))
        axes.plot(line, color=colour, linestyle=":" if point.lost else "-", linewidth=1.0)
        if point.number == result.best.trial:
            chosen = axes.plot(line, color=COLOURS[4], linewidth=3.0, zorder=3)
    axes.set(xlim=(-0.5, len(names) + 0.4), ylim=(-0.2, 1.05), yticks=[])
    axes.set_xticks(range(len(names) + 1), [*names, _measure(result).replace(" ", "\n", 1)])
    for place, name in enumerate(names):
        absent = any(name not in point.config for point in points)
        _draw_axis(axes, place, _ticks(space[name]), "not used" if absent else None)
    locator = LogLocator(subs=(1, 2, 5)) if isinstance(along, LogNorm) else MaxNLocator(5)
    scores = _within(locator, finite.min(), finite.max())
    lost = _lost_label(result, points).replace(" ", "\n", 1)
    _draw_axis(
        axes,
        len(names),
        [(1 - float(along(score)), f"{score:g}") for score in scores],
        lost if len(finite) < len(points) else None,
    )
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.legend(chosen, ["chosen"], loc="lower left", frameon=False)
    return figure


def importances(result: Result) -> Figure | None:
    """The importance of every hyperparameter, see ``importance``; None for too few trials."""
    points, space = _points(result), result.space
    configs = {point.number: point.config for point in points}
    scores = {point.number: point.score for point in points}
    found = importance(space, configs, scores) if len(space.searched) > 1 else None
    if found is None:
        return None
    names = sorted(found.mean, key=lambda name: found.mean[name])
    figure = Figure(figsize=(7, 1.6 + 0.4 * len(names)), dpi=150, layout="constrained")
    axes = figure.subplots()
    means, deviations = ([values[name] for name in names] for values in found[:2])
    axes.barh(names, means, xerr=deviations, color=COLOURS[0], ecolor="0.3", capsize=3)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_title(
        "What a random forest's prediction of a trial's rank loses without a hyperparameter\n"
        f"(with all, it explains {max(found.explained, 0):.0%} of the variance)",
        fontsize="medium",
    )
    axes.set_xlabel("error added, as a share of the variance (± 1 standard deviation over folds)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_axisbelow(True)
    _frame(axes)
    return figure


def importance(
    space: Space, configs: Mapping[int, Config], scores: Mapping[int, float]
) -> Importance | None:
    """Permutation importance (Breiman, 2001) in a random forest that predicts the scores' ranks.

    A forest learns from four fifths of the trials to predict the rank of a trial from the
    configuration. In the other fifth, the values of one hyperparameter are shuffled, and the
    prediction gets worse. Important hyperparameters deserve a finer search.

    The importance holds for the given space and trials: over a narrow range every hyperparameter
    looks unimportant. Methods that stop trials early or draw new trials near good trials sample
    unevenly: training length is confounded with the configuration. Dependent hyperparameters share
    importance. With ``explained`` near 0 the importance says nothing.

    Args:
      space: the searched space.
      configs: by the number of the trial.
      scores: by the number of the trial, lower is better; only finite scores count.

    Returns:
      None for fewer than ``FEWEST`` finite trials, or if all scores are equal.
    """
    from jaxnn.extras import require

    require("search", "sklearn", "scipy")
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    numbers = [number for number, score in scores.items() if np.isfinite(score)]
    ranks = rankdata([scores[number] for number in numbers])
    if len(numbers) < FEWEST or np.ptp(ranks) == 0:
        return None
    names = space.searched
    inputs = np.array(
        [
            [space[n].where(config[n]) if n in config else _ABSENT for n in names]
            for config in (configs[number] for number in numbers)
        ]
    )
    errors, increases = [], []
    for learn, judge in KFold(_FOLDS, shuffle=True, random_state=0).split(inputs):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(inputs[learn], ranks[learn])
        errors.append(np.mean((forest.predict(inputs[judge]) - ranks[judge]) ** 2))
        shuffled = permutation_importance(
            forest,
            inputs[judge],
            ranks[judge],
            scoring="neg_mean_squared_error",
            n_repeats=_REPEATS,
            random_state=0,
        )
        increases.append(shuffled["importances_mean"])
    shares = np.array(increases) / ranks.var()
    return Importance(
        dict(zip(names, shares.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, shares.std(axis=0, ddof=1).tolist(), strict=True)),
        float(1 - np.mean(errors) / ranks.var()),
    )


def _points(result: Result) -> list[Point]:
    """All trials, in the order of their numbers."""
    measure, evaluations = result.task.measure, result.task.evaluations
    scores = {n: _unit(result) * c.score(measure) for n, c in sorted(result.curves.items())}
    limit = _FAR * scores[result.best.trial] or math.inf
    return [
        Point(
            number,
            result.curves[number].trial.config,
            score if score <= limit else math.inf,
            result.curves[number].evaluations[-1] == evaluations,
        )
        for number, score in scores.items()
    ]


def _finite(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.score for point in points if not point.lost])


def _unit(result: Result) -> float:
    """The factor of shown scores: errors are in percent."""
    return 100.0 if result.task.measure == "error" else 1.0


def _measure(result: Result) -> str:
    """The minimised measure, with a unit."""
    if result.task.measure == "error":
        return "validation error (%)"
    name = "loss" if "loss" in result.space.searched else loss_name(result)
    nats = " (nats)" if name == "cross_entropy" else ""
    return f"validation {name.replace('cross_', 'cross-').replace('_', ' ')}{nats}"


def _whole_curve(result: Result, number: int) -> np.ndarray:
    """A trial's scores from the first evaluation on, with the scores of ancestors: [E, R]."""
    name, curve = result.task.measure, result.curves[number]
    parts = [curve.values(name)]
    while curve.copied_from is not None:
        start, curve = curve.start, result.curves[curve.copied_from]
        parts.insert(0, curve.values(name)[: start - curve.start])
    return _unit(result) * np.concatenate(parts)


def _limit(axes: Axes, means: dict[int, np.ndarray], best: list[int], far: float) -> None:
    """Limits the measure's axis to the best trials and most others, without far worse scores."""
    values = np.concatenate(list(means.values()))
    values = values[np.isfinite(values)]
    most = max(np.quantile(values, 0.9), *(np.nanmax(means[number]) for number in best))
    low, top = values.min(), min(most, far)
    _measure_scale(axes.yaxis, values[values <= top])
    room = 0.1 * (top - low)
    axes.set_ylim(low / 1.3 if low >= 0 else low - room, top + (room or 0.1))


def _measure_scale(axis: XAxis | YAxis, values: np.ndarray) -> None:
    """A logarithmic axis where values are far apart, otherwise a linear axis."""
    if values.min() >= 0 and values.max() > 3 * values.min():
        log_scale(axis, values)
    else:
        axis.set_major_formatter("{x:g}")


def _norm(low: float, high: float) -> Normalize:
    """From scores to [0, 1], logarithmic where scores are far apart."""
    high = high if high > low else low + 1
    return LogNorm(low, high) if 0 < 3 * low < high else Normalize(low, high)


def _colours(scores: np.ndarray) -> Normalize:
    """From scores to colours; the worst fifth has a single colour, so good scores differ."""
    low, high = float(scores.min()), float(np.quantile(scores, 0.8))
    return _norm(low, max(high, low + 1e-3 * abs(low) or 1e-3))


def _groups(result: Result, points: Sequence[Point]) -> Iterator[tuple[Style, list[Point]]]:
    """The trials by drawing style; the chosen trial comes last, once more."""
    early = [point for point in points if not point.lost and not point.complete]
    complete = [point for point in points if not point.lost and point.complete]
    groups = [
        (_EARLY, early),
        (_COMPLETE | ({"label": "trained to the end"} if early else {}), complete),
        (_LOST | {"label": _lost_label(result, points)}, [p for p in points if p.lost]),
        (_CHOSEN, [point for point in points if point.number == result.best.trial]),
    ]
    yield from ((style, group) for style, group in groups if group)


def _lost_label(result: Result, points: Sequence[Point]) -> str:
    """The reason why some trials have no score to show."""
    far = any(point.lost and not result.curves[point.number].diverged for point in points)
    return f"diverged, or {_FAR:g} times worse" if far else "diverged"


def _legend(figure: Figure, result: Result, points: Sequence[Point], **changes: Any) -> None:
    """Explains the markers in the figure."""
    handles = [
        Line2D([], [], **(style | (changes if style["marker"] == "o" else {})))
        for style, _ in _groups(result, points)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def _is_listed(domain: Domain) -> bool:
    """Whether the values are options rather than numbers along a line."""
    return domain.kind in ("choice", "fixed")


def _jitter(number: int) -> float:
    """An offset to separate trials with equal options, equal in all figures."""
    golden = (math.sqrt(5) - 1) / 2
    return _JITTER * (2 * (number * golden % 1) - 1)


def _positions(name: str, domain: Domain, points: Sequence[Point]) -> np.ndarray:
    """The places of trials along the axis of a hyperparameter; it applies to all trials."""
    if not _is_listed(domain):
        return np.array([point.config[name] for point in points], float)
    places = [domain.values.index(p.config[name]) + _jitter(p.number) for p in points]
    return np.array(places, float)


def _set_up(axis: XAxis | YAxis, name: str, domain: Domain) -> None:
    """The axis of a hyperparameter: range, scale, options."""
    conditions = [f"{other}: {', '.join(map(cell, values))}" for other, values in domain.conditions]
    axis.set_label_text("\n".join([name, *(f"({condition})" for condition in conditions)]))
    limits, pad = (domain.low, domain.high), 0.05 * (domain.high - domain.low)
    if _is_listed(domain):
        limits, pad = (0, len(domain.values) - 1), 0.5
        axis.set_ticks(range(len(domain.values)), [cell(option) for option in domain.values])
    elif domain.kind == "log_uniform":
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
        factor = (domain.high / domain.low) ** 0.05
        limits, pad = (domain.low / factor, domain.high * factor), 0
    else:
        axis.set_major_locator(MaxNLocator(5, integer=domain.kind == "integer"))
    axis.axes.set(**{f"{axis.axis_name}lim": (limits[0] - pad, limits[1] + pad)})


def _frame(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _height(space: Space, name: str, point: Point) -> float:
    """The height at which a trial passes the axis of a hyperparameter."""
    if name not in point.config:
        return _BELOW
    domain = space[name]
    spread = _jitter(point.number) / len(domain.values) if _is_listed(domain) else 0
    return domain.where(point.config[name]) + spread


def _ticks(domain: Domain) -> list[tuple[float, str]]:
    """Heights and labels of an axis: options, powers of ten, or round numbers."""
    if _is_listed(domain):
        return [(domain.where(option), cell(option)) for option in domain.values]
    log, whole = domain.kind == "log_uniform", domain.kind == "integer"
    values = _within(
        LogLocator() if log else MaxNLocator(5, integer=whole), domain.low, domain.high
    )
    values = values if len(values) > 1 else [domain.low, domain.high]
    return [(domain.where(value), f"{value:g}") for value in values]


def _within(locator: LogLocator | MaxNLocator, low: float, high: float) -> list[float]:
    """The ticks between two ends."""
    return [value for value in locator.tick_values(low, high) if low <= value <= high]


def _draw_axis(axes: Axes, place: int, ticks: list[tuple[float, str]], below: str | None) -> None:
    """A vertical line with labels at the left, and a label for lines passing below."""
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    text = {"ha": "right", "va": "center", "fontsize": 9, "bbox": box, "zorder": 4}
    axes.plot([place, place], [0, 1], color="0.2", linewidth=1, zorder=2)
    for height, label in ticks:
        axes.plot([place - 0.03, place], [height, height], color="0.2", linewidth=1, zorder=2)
        axes.text(place - 0.05, height, label, **text)
    if below:
        axes.text(place - 0.05, _BELOW, below, **text)
