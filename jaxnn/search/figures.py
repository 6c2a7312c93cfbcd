"""Figures of a search: learning curves, scores by hyperparameter, importance.

``figures`` draws every figure for which a search has enough trials.
"""

import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from jaxnn.display import Figures
from jaxnn.figures import COLOURS, Curve, curves_figure, framed, literal, log_scale
from jaxnn.mlp import by_name
from jaxnn.search.space import Config, Domain, Space, cell
from jaxnn.types import require

if TYPE_CHECKING:
    from jaxnn.search.result import Result

FEWEST = 10
"""The fewest trials that an importance is computed from."""

_FOLDS, _TREES, _REPEATS = 5, 50, 5
_ABSENT = -0.5  # feature of a hyperparameter that does not apply, outside of the unit interval
_SHOWN = 5  # learning curves in colour
_COLOUR_MAP = "viridis"  # dark is good; readable without colour vision, and in print
_FAR = 1000.0  # times the best score: worse scores count as diverged
_JITTER = 0.15  # of trials with equal options in the map of two hyperparameters, in cells
_LEGEND = 44  # characters in a line of the legend of the learning curves
_BELOW = -0.12  # the height at which lines pass an axis without a value

Options = dict[str, Any]
_COMPLETE: Options = {"marker": "o", "color": COLOURS[0], "label": "trial", "linestyle": ""}
_EARLY: Options = _COMPLETE | {"fillstyle": "none", "label": "stopped early"}
_LOST: Options = _COMPLETE | {"marker": "x", "color": COLOURS[1]}
_STAR: Options = {"marker": "*", "color": COLOURS[4], "markeredgecolor": "black", "markersize": 14}
_CHOSEN: Options = _COMPLETE | _STAR | {"label": "chosen"}


class Point(NamedTuple):
    """A trial in a figure."""

    number: int
    config: Config
    score: float  # as shown, such as percent or nats; inf for a diverged or far worse trial
    cost: float  # lower is better
    complete: bool  # trained to the end
    diverged: bool
    chosen: bool

    @property
    def lost(self) -> bool:
        """Whether the trial has no score to show."""
        return not math.isfinite(self.score)


class Importance(NamedTuple):
    """The share of the scores' variance that a hyperparameter accounts for."""

    mean: dict[str, float]  # by name
    std: dict[str, float]  # over folds
    explained: float  # R^2 of the prediction; below 0 the mean predicts better


def figures(result: "Result", *names: str) -> Figures:
    """All figures that suit a search, or the named figures, by name.

    Raises:
      ValueError: an unknown name, or a figure for which the search has too little to show.
    """
    known = {
        "learning_curves": learning_curves,
        "hyperparameters": hyperparameters,
        "learning_rate_l2": learning_rate_l2,
        "parallel_coordinates": parallel_coordinates,
        "importance": importances,
    }
    drawings = {name: by_name("figure", name, known) for name in names} or known
    drawn = {name: draw(result) for name, draw in drawings.items()}
    for name in names:
        if drawn[name] is None:
            raise ValueError(
                f"figure is {name!r}, for which the search has too few trials or hyperparameters, "
                "expected figures() for all figures that suit the search"
            )
    return Figures({name: figure for name, figure in drawn.items() if figure is not None})


def learning_curves(result: "Result") -> Figure:
    """The best trials by epoch, with bands over replicates; the rest faint in the background.

    The curve of a copy, in population-based training, begins with the curves of its ancestors.
    """
    measure, percent = result.task.objective, " %" if result.task.objective == "error" else ""
    lines = {number: _whole_curve(result, number) for number in result.curves}
    means = {number: line.mean(axis=0) for number, line in lines.items()}
    epochs = np.arange(1, result.task.evaluations + 1) / result.task.evaluations_per_epoch
    ranking = sorted(_points(result), key=lambda point: point.cost)[:_SHOWN]
    curves, stops = {}, {}
    for n in (point.number for point in ranking if not point.lost):
        stop = result.curves[n].start + result.curves[n].best(measure)
        stops[n] = epochs[stop], means[n][stop]
        label = f"trial {n}: {means[n][stop]:.3g}{percent} at epoch {epochs[stop]:g}"
        label = "\n".join([label, *_described(result, n)])
        curves[n] = Curve(label, epochs[: len(means[n])], lines[n])
    figure = curves_figure(
        list(curves.values()),
        title=f"The best {len(curves)} of {len(lines)} trials",
        x_label="epoch",
        y_label=_measure(result),
        replicates="seeds"
        if result.task.validation_split.count == 1
        else "models (seeds and folds)",
    )
    (axes,) = figure.axes
    for line, stop in zip(list(axes.lines), stops.values(), strict=True):
        axes.plot(*stop, "o", color=line.get_color())
    for mean in (means[number] for number in lines.keys() - curves):
        style = {"color": "0.8", "lw": 0.8, "ms": 3, "markevery": [-1], "zorder": 0}
        axes.plot(epochs[: len(mean)], mean, ".-", **style)
    values = np.concatenate(list(means.values()))
    values = values[np.isfinite(values)]
    most = max(np.quantile(values, 0.9), *(np.nanmax(means[number]) for number in curves))
    low, top = values.min(), most
    if measure in result.task.greater:
        worst = min(np.quantile(values, 0.1), *(np.nanmin(means[number]) for number in curves))
        low, top = worst, values.max()
    elif ranking[0].cost > 0:
        top = min(most, _FAR * ranking[0].cost)
    _measure_scale(axes.yaxis, values[values <= top])
    _stretch(axes.yaxis, (low, top), 0.1 if low else 0, 0.1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    figure.set_size_inches(11, 5.5)
    legend = axes.get_legend()
    assert legend is not None
    legend.set_title(legend.get_title().get_text().replace("; ", "\n"))
    legend.set(bbox_to_anchor=(1.02, 1.0), loc="upper left")
    for text in legend.get_texts():
        text.set_fontsize("small")
    return figure


def _described(result: "Result", number: int) -> list[str]:
    """The searched hyperparameters of a trial in at most three lines of a legend."""
    config = result.curves[number].trial.config
    values = [f"{name}={cell(config[name])}" for name in result.space.searched if name in config]
    return wrap(", ".join(values), _LEGEND, max_lines=3, break_long_words=True)


def hyperparameters(result: "Result") -> Figure | None:
    """Every trial's score against each searched hyperparameter; None without any."""
    names, points = result.space.searched, _points(result)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = max(5.0, 1 + 3.2 * columns), 1.1 + 2.9 * rows
    figure, panels = framed(size, rows, columns, sharey=True)
    scores = panels[0, 0].yaxis
    _measure_scale(scores, _finite(points))
    for axes, name in zip(panels.flat, names, strict=False):
        _set_up(axes.xaxis, name, result.space[name])
        for style, group in _groups([point for point in points if name in point.config]):
            axes.plot(
                [_position(result.space[name], name, point, 0) for point in group],
                [0.96 if point.lost else point.score for point in group],
                transform=axes.get_xaxis_transform() if group[0].lost else axes.transData,
                **{"markersize": 5, **style},
            )
    for axes in panels.flat[len(names) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel(_measure(result))
    if any(point.lost for point in points):  # room for diverged trials at the upper end
        _stretch(scores, scores.get_view_interval(), 0, 0.12)
    _legend(figure, points)
    return figure


def learning_rate_l2(result: "Result") -> Figure | None:
    """The score by learning rate and L2 strength; None unless both were searched."""
    names = ("learning_rate", "l2")
    points = [point for point in _points(result) if all(name in point.config for name in names)]
    finite = _finite(points, costs=True)
    if not set(names) <= set(result.space.searched) or not len(finite):
        return None
    figure, ((axes,),) = framed((7, 5.2))
    for axis, name in zip((axes.xaxis, axes.yaxis), names, strict=True):
        _set_up(axis, name, result.space[name])
    norm = _colours(finite)
    for style, group in _groups(points):
        where = [[_position(result.space[n], n, p, _JITTER) for p in group] for n in names]
        if group[0].lost or style is _CHOSEN:
            axes.plot(*where, **style)
        else:
            tints = [colormaps[_COLOUR_MAP](norm(point.cost)) for point in group]
            axes.scatter(*where, edgecolors=tints, facecolors="none" if style is _EARLY else tints)
    _colour_bar(figure, axes, norm, finite, result)
    _legend(figure, points, color="0.4")
    return figure


def parallel_coordinates(result: "Result") -> Figure | None:
    """Every trial as a line; None unless at least two hyperparameters were searched.

    A trial without a hyperparameter passes below the axis; a diverged trial ends below the axis of
    scores, whose upper end is the best score.
    """
    space, names, points = result.space, result.space.searched, _points(result)
    if len(names) < 2:
        return None
    finite = _finite(points, costs=True)
    norm, tint, (low, high) = _colours(finite), colormaps[_COLOUR_MAP], (finite.min(), finite.max())
    kind = "log_uniform" if 0 < 3 * low < high else "uniform"
    scale = Domain(kind, low, high if high > low else low + 1)
    figure, ((axes,),) = framed((4 + 1.5 * len(names), 5))
    for point in sorted(points, key=lambda point: -point.cost):  # the best on top
        line = [_height(space[name], name, point) for name in names]
        line.append(_BELOW if point.lost else 1 - scale.where(point.cost))
        colour = COLOURS[1] if point.lost else tint(norm(point.cost))
        axes.plot(line, color=colour, linestyle=":" if point.lost else "-", linewidth=1.0)
        if point.chosen:
            chosen = axes.plot(line, color=COLOURS[4], linewidth=3.0, zorder=3)
    axes.set(xlim=(-0.5, len(names) + 0.4), ylim=(-0.2, 1.05), yticks=[])
    labels = [*map(literal, names), _measure(result).replace(" ", "\n", 1)]
    axes.set_xticks(range(len(names) + 1), labels)
    for place, name in enumerate(names):
        absent = any(name not in point.config for point in points)
        _draw_axis(axes, place, _ticks(space[name]), "not used" if absent else "")
    sign = result.task.natural(1)
    ticks = [(1 - height, f"{sign * float(label):g}") for height, label in _ticks(scale)]
    _draw_axis(axes, len(names), ticks, _lost_label(points).replace(" ", "\n", 1))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.legend(chosen, ["chosen"], loc="lower left", frameon=False)
    _colour_bar(figure, axes, norm, finite, result)
    return figure


def _colour_bar(
    figure: Figure, axes: Axes, norm: Normalize, costs: np.ndarray, result: "Result"
) -> None:
    """The scores that the colours stand for."""
    bar = figure.colorbar(
        ScalarMappable(norm, _COLOUR_MAP),
        ax=axes,
        label=_measure(result),
        extend="max" if norm.vmax is not None and costs.max() > norm.vmax else "neither",
        ticks=LogLocator(subs=(1, 2, 5)) if isinstance(norm, LogNorm) else MaxNLocator(5),
        format=FuncFormatter(lambda cost, _: f"{result.task.natural(cost):g}"),
    )
    bar.minorticks_off()


def importances(result: "Result") -> Figure | None:
    """The importance of every hyperparameter, see ``importance``; None for too few trials."""
    points, space = _points(result), result.space
    configs = {point.number: point.config for point in points}
    scores = {point.number: point.cost for point in points}
    found = importance(space, configs, scores) if len(space.searched) > 1 else None
    if found is None:
        return None
    names = sorted(found.mean, key=found.mean.__getitem__)
    figure, ((axes,),) = framed((7, 1.6 + 0.4 * len(names)))
    means, deviations = ([values[name] for name in names] for values in (found.mean, found.std))
    bars = {"color": COLOURS[0], "ecolor": "0.3", "capsize": 3}
    axes.barh([*map(literal, names)], means, xerr=deviations, **bars)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_title(
        "The share of the differences between trials that a hyperparameter accounts for\n"
        f"(by a random forest that explains {max(found.explained, 0):.0%} of the ranks' variance)",
        fontsize="medium",
    )
    axes.set_xlabel("share of the variance of ranks (± 1 standard deviation over folds)")
    axes.set_xlim(min(0.0, 1.1 * np.subtract(means, deviations).min()), 1.0)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_axisbelow(True)
    return figure


def importance(
    space: Space, configs: Mapping[int, Config], scores: Mapping[int, float]
) -> Importance | None:
    """Permutation importance (Breiman, 2001) in a random forest that predicts the scores' ranks.

    A forest learns from four fifths of the trials to predict the rank of a trial from the
    configuration. In the other fifth, the values of one hyperparameter are shuffled. Half the
    squared error that the shuffling adds is the variance that the hyperparameter accounts for, with
    interactions (Jansen, 1999): a share from 0 to 1 of the variance of the ranks, up to noise.
    Important hyperparameters deserve a finer search.

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
    require("search", "sklearn", "scipy")
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold, cross_validate

    numbers = [number for number, score in scores.items() if np.isfinite(score)]
    ranks = rankdata([scores[number] for number in numbers])
    if len(numbers) < FEWEST or np.ptp(ranks) == 0:
        return None
    names, chosen = space.searched, [configs[number] for number in numbers]
    rows = [[space[n].where(c[n]) if n in c else _ABSENT for n in names] for c in chosen]
    inputs, forest = np.array(rows), RandomForestRegressor(_TREES, random_state=0)
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    scoring: Options = {"scoring": "neg_mean_squared_error"}
    keep: Options = {"return_estimator": True, "return_indices": True}
    fits = cross_validate(forest, inputs, ranks, cv=folds, **scoring, **keep)
    shuffling = {**scoring, "n_repeats": _REPEATS, "random_state": 0}
    increases = [
        permutation_importance(fit, inputs[judge], ranks[judge], **shuffling)["importances_mean"]
        for fit, judge in zip(fits["estimator"], fits["indices"]["test"], strict=True)
    ]
    shares = np.array(increases) / (2 * ranks.var())
    return Importance(
        dict(zip(names, shares.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, shares.std(axis=0, ddof=1).tolist(), strict=True)),
        float(1 + fits["test_score"].mean() / ranks.var()),
    )


def _points(result: "Result") -> list[Point]:
    """All trials, in the order of their numbers."""
    measure, chosen = result.task.objective, result.best.trial
    best = result.curves[chosen].score(measure)
    limit = _FAR * best if best > 0 else math.inf
    points = []
    for number, curve in sorted(result.curves.items()):
        score = curve.score(measure)
        cost = abs(_unit(result)) * score if score <= limit and math.isfinite(score) else math.inf
        shown = result.task.natural(cost) if math.isfinite(cost) else math.inf
        complete = curve.evaluations[-1] == result.task.evaluations
        config = curve.trial.config
        about = complete, curve.diverged, number == chosen
        points.append(Point(number, config, shown, cost, *about))
    return points


def _finite(points: Sequence[Point], *, costs: bool = False) -> np.ndarray:
    return np.array([p.cost if costs else p.score for p in points if not p.lost])


def _unit(result: "Result") -> float:
    """The factor of shown scores: errors are in percent."""
    return 100.0 if result.task.objective == "error" else 1.0


def _measure(result: "Result") -> str:
    """The minimised measure, with a unit."""
    if result.task.objective == "error":
        return "validation error (%)"
    if result.task.objective != "loss":
        return literal(f"validation {result.task.objective}")
    name = "loss" if "loss" in result.space.searched else result.loss_name
    nats = " (nats)" if name == "cross_entropy" else ""
    return literal(f"validation {name.replace('cross_', 'cross-').replace('_', ' ')}{nats}")


def _whole_curve(result: "Result", number: int) -> np.ndarray:
    """A trial's scores from the first evaluation on, with the scores of ancestors: [R, E]."""
    curve = result.curves[number]
    values = _unit(result) * curve.values(result.task.objective).T
    if curve.copied_from is None:
        return values
    return np.hstack([_whole_curve(result, curve.copied_from)[:, : curve.start], values])


def _measure_scale(axis: XAxis | YAxis, values: np.ndarray) -> None:
    """A logarithmic axis where values are far apart, otherwise a linear axis."""
    if values.min() >= 0 and values.max() > 3 * values.min():
        log_scale(axis, values)
    else:
        axis.set_major_formatter("{x:g}")


def _colours(scores: np.ndarray) -> Normalize:
    """From scores to colours; the worst fifth has a single colour, so good scores differ."""
    low = scores.min()
    high = max(np.quantile(scores, 0.8), low + 1e-3 * abs(low) or 1e-3)
    return LogNorm(low, high) if 0 < 3 * low < high else Normalize(low, high)


def _groups(points: Sequence[Point]) -> list[tuple[Options, list[Point]]]:
    """The trials by drawing style; the chosen trial comes last, once more."""
    early = [point for point in points if not point.lost and not point.complete]
    complete = [point for point in points if not point.lost and point.complete]
    groups = [
        (_EARLY, early),
        (_COMPLETE | ({"label": "trained to the end"} if early else {}), complete),
        (_LOST | {"label": _lost_label(points)}, [point for point in points if point.lost]),
        (_CHOSEN, [point for point in points if point.chosen]),
    ]
    return [(style, group) for style, group in groups if group]


def _lost_label(points: Sequence[Point]) -> str:
    """The reason why some trials have no score to show; "" where all trials have a score."""
    lost = [point for point in points if point.lost]
    far = any(not point.diverged for point in lost)
    return f"diverged, or {_FAR:g} times worse" if far else "diverged" if lost else ""


def _legend(figure: Figure, points: Sequence[Point], **changes: Any) -> None:
    """Explains the markers in the figure."""
    handles = [
        Line2D([], [], **(style | (changes if style["marker"] == "o" else {})))
        for style, _ in _groups(points)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def _position(domain: Domain, name: str, point: Point, jitter: float) -> float:
    """A trial's place along a hyperparameter: the value, or the number of the option."""
    if not domain.options:
        return point.config[name]
    golden = (math.sqrt(5) - 1) / 2  # separates trials with equal options, alike in all figures
    shift = jitter * (2 * (point.number * golden % 1) - 1)
    return domain.options.index(point.config[name]) + shift


def _height(domain: Domain, name: str, point: Point) -> float:
    """The height at which a trial passes the axis of a hyperparameter."""
    if name not in point.config:
        return _BELOW
    return domain.where(point.config[name])


def _set_up(axis: XAxis | YAxis, name: str, domain: Domain) -> None:
    """The axis of a hyperparameter: label, scale, options, range."""
    conditions = [f"{other}: {', '.join(map(cell, values))}" for other, values in domain.conditions]
    lines = [name, *(f"({condition})" for condition in conditions)]
    axis.set_label_text("\n".join(map(literal, lines)))
    ends = domain.low, domain.high
    if domain.options:
        axis.set_ticks(
            range(len(domain.options)), [literal(cell(option)) for option in domain.options]
        )
        ends = -0.5, len(domain.options) - 0.5
    elif domain.kind == "log_uniform":
        getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    else:
        axis.set_major_locator(MaxNLocator(5, integer=domain.kind == "integer"))
    _stretch(axis, ends, 0.05, 0.05)


def _stretch(axis: XAxis | YAxis, ends: ArrayLike, below: float, above: float) -> None:
    """Limits an axis to two ends, with shares of the length added below and above."""
    scale = axis.get_transform()
    low, high = scale.transform(np.asarray(ends, float))
    length = high - low or 1.0
    limits = np.array([low - below * length, high + above * length])
    axis.axes.set(**{f"{axis.axis_name}lim": scale.inverted().transform(limits)})


def _ticks(domain: Domain) -> list[tuple[float, str]]:
    """Heights and labels of an axis: options, or round numbers."""
    if domain.options:
        return [(domain.where(option), literal(cell(option))) for option in domain.options]
    low, high = ends = domain.low, domain.high
    locator = MaxNLocator(5, integer=domain.kind == "integer")
    if domain.kind == "log_uniform":
        locator = LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,))
    values = [value for value in locator.tick_values(low, high) if low <= value <= high]
    return [(domain.where(v), f"{v:g}") for v in (values if len(values) > 1 else ends)]


def _draw_axis(axes: Axes, place: int, ticks: list[tuple[float, str]], below: str) -> None:
    """A vertical line with labels at the left, and a label for lines passing below."""
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
    axes.vlines(place, 0, 1, color="0.2", linewidth=1, zorder=2)
    axes.hlines([height for height, _ in ticks], place - 0.03, place, color="0.2", linewidth=1)
    for height, label in (*ticks, (_BELOW, below)):
        style: Options = {"ha": "right", "va": "center", "fontsize": 9, "zorder": 4}
        axes.text(place - 0.05, height, label, bbox=box, **style)
