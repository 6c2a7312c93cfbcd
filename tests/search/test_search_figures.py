"""Figures of searches: what they show is what was measured, whatever went wrong."""

import math
import os

import numpy as np
import pytest
from handmade import Made, result
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.text import Text

from jaxnn.search import choice, conditional, figures, fixed, integer, log_uniform, uniform
from jaxnn.search.figures import FEWEST, importance
from jaxnn.search.space import Space

SPACE = {
    "learning_rate": log_uniform(1e-3, 1.0),
    "l2": log_uniform(1e-6, 1e-2),
    "optimizer": choice("sgd", "momentum"),
    "momentum": conditional(uniform(0.5, 0.9), optimizer="momentum"),
    "hidden": choice((), (5, 3)),
    "batch_size": fixed(6),
}
NAN = math.nan


def config(learning_rate=0.1, l2=1e-3, **others):
    return {
        "learning_rate": learning_rate,
        "l2": l2,
        "optimizer": "sgd",
        "hidden": (),
        "batch_size": 6,
        **others,
    }


MOMENTUM = {"optimizer": "momentum", "momentum": 0.7}
GOOD = Made(config(0.1, 1e-4), [[0.5, 0.4], [0.1, 0.3]])
WORSE = Made(config(0.01, **MOMENTUM, hidden=(5, 3)), [[0.6, 0.8], [0.5, 0.5]])
SHORT = Made(config(0.02), [[0.7, 0.7]])
LOST = Made(config(1.0, 1e-2), [[0.9, 0.9], [NAN, 0.9]], diverged_at=5)


def one_seed(made):
    return made._replace(errors=[row[:1] for row in made.errors])


def many(count, seed=0):
    """Trials whose error depends on the learning rate alone."""
    rng = np.random.default_rng(seed)
    rates = 10 ** rng.uniform(-3, 0, count)
    return [
        Made(config(float(rate), float(10 ** rng.uniform(-6, -2))), [[(1 + math.log10(rate)) ** 2]])
        for rate in rates
    ]


def draw(drawn):
    for figure in drawn.values():
        figure.set_dpi(40)  # fast
        FigureCanvasAgg(figure).draw()


def panel(figure, label):
    """The axes with this name on their x axis."""
    assert figure is not None
    (axes,) = (a for a in figure.axes if a.get_xlabel().split("\n")[0] == label)
    return axes


def xy(line):
    """The points of a line, [N, 2]."""
    return np.asarray(line.get_xydata())


def marked(axes, marker):
    """The points of the lines with this marker, [(x, y)]."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [tuple(point) for line in lines for point in xy(line)]


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


SEARCHES = {
    "ordinary": [GOOD, WORSE],
    "one seed": [one_seed(GOOD), one_seed(WORSE)],
    "some stopped early": [SHORT, GOOD, SHORT],
    "some diverged": [LOST, GOOD, WORSE],
    "all but one diverged": [LOST, LOST, GOOD, LOST],
    "one trial": [GOOD],
    "copies": [GOOD, Made(config(0.2), [[0.0, 0.1]], copied_from=0, start=1)],
    "no errors": [Made(config(), [[0.0], [0.0]]), Made(config(0.2), [[0.5], [0.0]])],
    "all alike": [Made(config(), [[0.5], [0.5]]), Made(config(0.2), [[0.5], [0.5]])],
    "huge": [Made(config(), [[0.5], [0.4]]), Made(config(0.2), [[1e300], [1e300]])],
}
PLAIN = ("ordinary", "one seed", "some stopped early", "copies")
"""Searches that other tests draw too."""


@pytest.mark.parametrize(
    ("trials", "measure"),
    [
        *(
            pytest.param(trials, "error", id=name, marks=pytest.mark.slow if name in PLAIN else ())
            for name, trials in SEARCHES.items()
        ),
        pytest.param(SEARCHES["huge"], "loss", id="huge losses"),
    ],
)
def test_every_search_can_be_drawn(trials, measure):
    drawn = figures.figures(result(SPACE, trials, epochs=2, measure=measure))
    assert set(drawn) == {
        "learning_curves",
        "hyperparameters",
        "learning_rate_l2",
        "parallel_coordinates",
    }
    draw(drawn)


EVIL = ("$x_{$", os.fsdecode(b"\xff\x1b[31m"), "$$", r"\frac{", "a\nb")


def test_names_and_options_that_are_no_plain_text_are_drawn(tmp_path):
    names = EVIL[:2]
    space = {name: choice(*EVIL) for name in names} | {
        "learning_rate": log_uniform(0.001, 1),
        "l2": conditional(choice(0.0, 0.1), **{EVIL[0]: EVIL}),
        "batch_size": fixed(6),
    }
    given = {"learning_rate": 0.1, "l2": 0.0, "batch_size": 6}
    rows = [dict(zip(names, np.roll(EVIL, i).tolist(), strict=False)) for i in range(10)]
    trials = [Made(given | row, [[0.5], [0.1 + 0.01 * i]]) for i, row in enumerate(rows)]
    drawn = figures.figures(result(space, trials, epochs=2, model_parameters=names))
    assert len(drawn) == 5
    draw(drawn)
    texts = [t.get_text() for f in drawn.values() for t in f.findobj(Text)]  # type: ignore
    assert all(c.isprintable() for text in texts for c in text.replace("\n", ""))
    assert r"\xff\x1b[31m" in texts


def test_no_label_touches_an_edge():
    for figure in figures.figures(result(SPACE, [GOOD, WORSE, LOST], epochs=2)).values():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
        edges = [pixels[:10], pixels[-10:], pixels[:, :10], pixels[:, -10:]]
        assert all((edge == 255).all() for edge in edges)


@pytest.mark.parametrize(
    ("space", "given", "names"),
    [
        ({"learning_rate": fixed(0.1)}, {"learning_rate": 0.1}, set()),
        (
            {"learning_rate": log_uniform(1e-3, 1.0)},
            {"learning_rate": 0.1},
            {"hyperparameters"},
        ),
        (
            {"learning_rate": fixed(0.1), "batch_size": integer(2, 9), "l2": choice(0.0, 1e-3)},
            {"learning_rate": 0.1, "batch_size": 4, "l2": 0.0},
            {"hyperparameters", "parallel_coordinates"},
        ),
    ],
)
def test_what_was_not_searched_is_not_drawn(space, given, names):
    space = {"batch_size": fixed(6), **space}
    made = result(space, [Made({"batch_size": 6, **given}, [[0.5], [0.25]])], epochs=2)
    drawn = figures.figures(made)
    assert set(drawn) == {"learning_curves"} | names
    draw(drawn)


def test_learning_curves_are_the_means_of_the_best_in_percent():
    (axes,) = figures.learning_curves(result(SPACE, [WORSE, GOOD], epochs=2)).axes
    first, second = map(xy, axes.lines[:2])
    assert first == pytest.approx(np.array([[1, 45], [2, 20]]))
    assert second == pytest.approx(np.array([[1, 70], [2, 50]]))
    assert axes.get_ylabel() == "validation error (%)"


def test_the_legend_says_what_and_when_a_trial_scored():
    (axes,) = figures.learning_curves(result(SPACE, [WORSE, GOOD], epochs=2)).axes
    texts = legend_texts(axes)
    assert [text.split("\n")[0] for text in texts] == [
        "trial 1: 20 % at epoch 2",
        "trial 0: 50 % at epoch 2",
    ]


def test_the_legend_tells_trials_apart_by_their_hyperparameters():
    (axes,) = figures.learning_curves(result(SPACE, [WORSE, GOOD], epochs=2)).axes
    first, second = (" ".join(text.split("\n")[1:]) for text in legend_texts(axes))
    assert first == "learning_rate=0.1, l2=0.0001, optimizer=sgd, hidden=none"
    assert second == ("learning_rate=0.01, l2=0.001, optimizer=momentum, hidden=5-3, momentum=0.7")


def test_a_long_legend_is_shortened():
    names = tuple(f"hyperparameter_{i}" for i in range(20))
    space = dict.fromkeys(names, choice(1, 2)) | {"learning_rate": log_uniform(0.1, 1.0)}
    made = [Made(dict.fromkeys(names, 1) | {"learning_rate": 0.5}, [[0.5], [0.1]])]
    drawn = figures.learning_curves(result(space, made, epochs=2, model_parameters=names))
    (axes,) = drawn.axes
    (text,) = legend_texts(axes)
    assert len(text.split("\n")) == 4
    assert text.endswith("[...]")


@pytest.mark.parametrize(("trials", "bands"), [([GOOD, WORSE], 2), ([one_seed(GOOD)], 0)])
def test_bands_need_several_replicates(trials, bands):
    (axes,) = figures.learning_curves(result(SPACE, trials, epochs=2)).axes
    assert sum(isinstance(each, PolyCollection) for each in axes.collections) == bands


def test_all_trials_but_the_best_five_are_faint():
    trials = [Made(config(), [[0.9], [0.1 + 0.05 * i]]) for i in range(8)]
    (axes,) = figures.learning_curves(result(SPACE, trials, epochs=2)).axes
    faint = [line for line in axes.lines if line.get_color() == "0.8"]
    assert len(faint) == 3
    assert len(legend_texts(axes)) == 5


def test_a_copy_begins_with_what_its_parents_did():
    first = Made(config(), [[0.8], [0.6], [0.5], [0.5]])
    copy = Made(config(0.2), [[0.3], [0.35]], copied_from=0, start=2)
    copy_of_copy = Made(config(0.4), [[0.2]], copied_from=1, start=3)
    made = result(SPACE, [first, copy, copy_of_copy], epochs=4)
    (axes,) = figures.learning_curves(made).axes
    best = xy(axes.lines[0])
    assert best == pytest.approx(np.array([[1, 80], [2, 60], [3, 30], [4, 20]]))
    second = legend_texts(axes)[1]
    assert second.split("\n")[0] == "trial 1: 30 % at epoch 3"


def test_a_loss_is_shown_in_nats():
    made = result(SPACE, [GOOD], epochs=2, measure="loss")
    (axes,) = figures.learning_curves(made).axes
    assert axes.get_ylabel() == "validation cross-entropy (nats)"
    assert xy(axes.lines[0])[:, 1] == pytest.approx([0.9, 0.4])


def test_every_trial_is_a_point_above_its_hyperparameter():
    figure = figures.hyperparameters(result(SPACE, [GOOD, WORSE], epochs=2))
    axes = panel(figure, "learning_rate")
    assert axes.get_xscale() == "log"
    assert sorted(marked(axes, "o")) == [pytest.approx((0.01, 50)), pytest.approx((0.1, 20))]
    assert marked(axes, "*") == [pytest.approx((0.1, 20))]


def test_layer_sizes_are_categories():
    figure = figures.hyperparameters(result(SPACE, [GOOD, WORSE], epochs=2))
    axes = panel(figure, "hidden")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "5-3"]
    points = {round(y): x for x, y in marked(axes, "o")}
    assert points == {20: 0, 50: 1}


def test_a_trial_to_which_a_hyperparameter_does_not_apply_has_no_point_there():
    figure = figures.hyperparameters(result(SPACE, [GOOD, WORSE], epochs=2))
    axes = panel(figure, "momentum")
    assert marked(axes, "o") == [pytest.approx((0.7, 50))]
    assert axes.get_xlabel() == "momentum\n(optimizer: momentum)"


def test_diverged_trials_are_marked_at_the_edge():
    figure = figures.hyperparameters(result(SPACE, [LOST, GOOD], epochs=2))
    axes = panel(figure, "learning_rate")
    (line,) = (line for line in axes.lines if line.get_marker() == "x")
    on_screen = line.get_transform().transform(xy(line))
    ((x, _),) = axes.transData.inverted().transform(on_screen)
    ((_, height),) = axes.transAxes.inverted().transform(on_screen)
    assert x == pytest.approx(1.0)
    assert 0.9 < height < 1
    assert legend(figure) == ["trial", "diverged", "chosen"]


def test_a_score_that_is_far_off_does_not_squeeze_the_others():
    figure = figures.hyperparameters(result(SPACE, SEARCHES["huge"], epochs=2))
    axes = panel(figure, "learning_rate")
    assert axes.get_ylim()[1] < 1000
    assert legend(figure) == ["trial", "diverged, or 1000 times worse", "chosen"]


def test_trials_that_were_stopped_early_are_hollow():
    figure = figures.hyperparameters(result(SPACE, [SHORT, GOOD], epochs=2))
    hollow = [line for line in panel(figure, "l2").lines if line.get_fillstyle() == "none"]
    assert [tuple(xy(line)[0]) for line in hollow] == [pytest.approx((1e-3, 70))]
    assert legend(figure) == ["stopped early", "trained to the end", "chosen"]


def test_the_map_has_both_axes_logarithmic_and_the_best_marked():
    figure = figures.learning_rate_l2(result(SPACE, [GOOD, WORSE, LOST], epochs=2))
    axes = panel(figure, "learning_rate")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert marked(axes, "*") == [pytest.approx((0.1, 1e-4))]
    assert marked(axes, "x") == [pytest.approx((1.0, 1e-2))]
    (points,) = (each for each in axes.collections if isinstance(each, PathCollection))
    assert np.asarray(points.get_offsets()) == pytest.approx(np.array([[0.1, 1e-4], [0.01, 1e-3]]))


def test_the_better_a_trial_the_darker_it_is():
    trials = [Made(config(0.1 + 0.1 * i), [[0.1 + 0.1 * i]]) for i in range(4)]
    figure = figures.learning_rate_l2(result(SPACE, trials, epochs=1))
    (points,) = (
        each
        for each in panel(figure, "learning_rate").collections
        if isinstance(each, PathCollection)
    )
    brightness = np.asarray(points.get_facecolor())[:, :3].sum(axis=1)
    assert (np.diff(brightness) > 0).all()


def test_parallel_lines_run_from_values_to_scores():
    made = result(SPACE, [GOOD, WORSE, LOST], epochs=2)
    momentum = made.space.searched.index("momentum")
    figure = figures.parallel_coordinates(made)
    assert figure is not None
    axes, bar = figure.axes
    assert bar.get_ylabel() == "validation error (%)"
    heights = [xy(line)[:, 1] for line in axes.lines if len(xy(line)) == 6]
    lines = {round(3 * height[0]): height for height in heights}  # 1e-3 to 1: three decades
    good, worse, lost = lines[2], lines[1], lines[3]
    assert good[1] == pytest.approx(0.5)  # 1e-4 in 1e-6 .. 1e-2
    assert worse[momentum] == pytest.approx(0.5)  # 0.7 in 0.5 .. 0.9
    hidden = made.space.searched.index("hidden")
    assert (good[hidden], worse[hidden]) == (0.25, 0.75)  # at the options themselves
    assert good[momentum] == lost[momentum] == lost[5] < 0  # not used, and diverged: below
    assert (good[5], worse[5]) == (pytest.approx(1), pytest.approx(0))
    texts = {text.get_text() for text in axes.texts}
    assert {"none", "5-3", "not used", "diverged", "0.001", "1"} <= texts


def test_what_mattered_is_most_important():
    made = result(SPACE, many(60), epochs=1)
    found = importance(
        made.space,
        {n: curve.trial.config for n, curve in made.curves.items()},
        {n: curve.score("error") for n, curve in made.curves.items()},
    )
    assert found is not None
    assert 0.5 < found.mean["learning_rate"] < 1
    assert all(abs(found.mean[name]) < 0.1 for name in found.mean if name != "learning_rate")
    assert found.explained > 0.7


def test_importance_is_the_share_of_the_variance_in_a_sum_of_two():
    """Of 3 a + b with equally spread a and b, a accounts for 9 / 10 of the variance."""
    rng = np.random.default_rng(0)
    space = Space({"l2": uniform(0, 1), "learning_rate": uniform(0.1, 1.1)})
    a, b = rng.random((2, 400))
    configs = {i: {"l2": a[i], "learning_rate": 0.1 + b[i]} for i in range(400)}
    found = importance(space, configs, dict(enumerate((3 * a + b).tolist())))
    assert found is not None
    assert found.mean == pytest.approx({"l2": 0.9, "learning_rate": 0.1}, abs=0.06)


def test_nothing_is_important_where_scores_are_noise():
    rng = np.random.default_rng(1)
    configs = {i: made.config for i, made in enumerate(many(60))}
    found = importance(Space(SPACE), configs, {i: rng.random() for i in configs})
    assert found is not None
    assert found.explained < 0.2
    assert max(found.mean.values()) < 0.2


@pytest.mark.parametrize(
    "scores", [[0.5] * 20, [0.1 * i for i in range(FEWEST - 1)] + [math.inf] * 20]
)
def test_too_little_says_nothing_about_importance(scores):
    configs = {i: made.config for i, made in enumerate(many(len(scores)))}
    assert importance(Space(SPACE), configs, dict(enumerate(scores))) is None


def test_importance_is_drawn_from_enough_trials_on():
    trials = [*many(FEWEST), LOST._replace(errors=[[NAN]])]
    figure = figures.importances(result(SPACE, trials, epochs=1))
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlim()[1] == 1.0
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[-1] == "learning_rate"  # at the top
    assert set(names) == {"learning_rate", "l2", "optimizer", "momentum", "hidden"}
