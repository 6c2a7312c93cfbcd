"""Figures: what they show is what was measured."""

import os
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from jaxnn.figures import (
    COLOURS,
    LINE_STYLES,
    Curve,
    curves_figure,
    image_figure,
    literal,
    write_figure,
)

ITERATIONS = [1, 10, 100]
VALUES = [[3.0, 2.0, 1.0], [5.0, 2.0, 0.0]]  # two seeds: mean 4 2 0.5, std sqrt(2) * (1, 0, 0.5)


def draw(curves, **options):
    figure = curves_figure(curves, title="Title", y_label="loss (nats)", **options)
    return figure, figure.axes[0]


def legend_of(axes):
    legend = axes.get_legend()
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]


def test_the_line_is_the_mean_over_seeds():
    _, axes = draw([Curve("a", ITERATIONS, VALUES)])
    (line,) = axes.lines
    assert np.asarray(line.get_xdata()).tolist() == ITERATIONS
    assert np.asarray(line.get_ydata()).tolist() == [4.0, 2.0, 0.5]


def test_the_band_is_one_standard_deviation():
    _, axes = draw([Curve("a", ITERATIONS, VALUES)])
    (band,) = (entry for entry in axes.collections if isinstance(entry, PolyCollection))
    corners = np.asarray(band.get_paths()[0].vertices)
    first = corners[corners[:, 0] == 1, 1]
    assert (first.min(), first.max()) == pytest.approx((4 - 2**0.5, 4 + 2**0.5))
    assert legend_of(axes)[0] == "mean of 2 seeds; band: ± 1 standard deviation"


@pytest.mark.parametrize(
    ("values", "scale"), [([3.0, 2.0, 1.0], "log"), ([3.0, 0.5, 0.0], "symlog")]
)
def test_a_logarithmic_axis_shows_a_measure_that_reaches_zero(values, scale):
    _, axes = draw([Curve("a", ITERATIONS, [values])], y_scale="log")
    assert axes.get_yscale() == scale
    assert axes.get_ylim()[0] >= 0


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([30.0, 4.0, 1.5], [2, 5, 10, 20]), ([1e9, 1e3, 1.0], [1, 1e4, 1e8])],
)
def test_a_logarithmic_axis_has_round_ticks_however_far_it_reaches(values, ticks):
    _, axes = draw([Curve("a", ITERATIONS, [values])], y_scale="log")
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert set(ticks) <= {float(f"{tick:.6g}") for tick in shown}
    assert len(shown) <= 11


def test_one_seed_has_no_band():
    _, axes = draw([Curve("a", ITERATIONS, VALUES[:1])])
    assert not axes.collections
    assert legend_of(axes)[0] == "1 seed"


def test_no_two_settings_share_a_colour_or_a_line_style():
    assert len({to_hex(colour) for colour in COLOURS}) == len(COLOURS)
    assert len(set(LINE_STYLES)) == len(COLOURS)
    _, axes = draw([Curve(str(k), ITERATIONS, VALUES) for k in range(len(COLOURS))])
    assert [line.get_color() for line in axes.lines] == list(COLOURS)


def test_axes_and_legend_are_labelled():
    _, axes = draw([Curve("setting a", ITERATIONS, VALUES)], x_label="iteration", x_scale="log")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "loss (nats)")
    assert legend_of(axes)[1] == ["setting a"]


@pytest.mark.parametrize(
    "evil", ["$x_{$", r"\$ $", "a$b", os.fsdecode(b"\xff\x1b"), "漢", r"\frac{"]
)
def test_texts_are_literal(evil, tmp_path):
    shown: list[Any]
    figure, axes = draw([Curve(evil, ITERATIONS, VALUES)], x_label=evil)
    axes.set_title(literal(evil))
    image = image_figure([[1.0]], title=evil, value_label=evil)
    for number, each in enumerate((figure, image)):
        write_figure(tmp_path / f"{number}.png", each)
    legend = axes.get_legend()
    assert legend is not None
    shown = [axes.title, axes.xaxis.label, *legend.get_texts()]
    shown += [image.axes[0].title, image.axes[1].yaxis.label]
    expected = evil.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    for text in shown:
        drawn, is_math = text._preprocess_math(text.get_text())
        assert (drawn, is_math) == (expected.replace("\x1b", r"\x1b"), False)


def test_zero_is_white_in_an_image_and_signs_are_symmetric():
    figure = image_figure([[0.0, -3.0], [1.0, 2.0]], title="theta", value_label="coefficient")
    (image,) = figure.axes[0].images
    assert image.get_clim() == (-3.0, 3.0)
    assert np.asarray(image.get_array()).tolist() == [[0.0, -3.0], [1.0, 2.0]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_a_diverged_seed_can_be_drawn(wrong, tmp_path):
    figure, _ = draw([Curve("a", ITERATIONS, [[3.0, 2.0, 1.0], [5.0, 1e8, wrong]])])
    write_figure(tmp_path / "figure.png", figure)
    image = image_figure([[wrong, 1.0]], title="theta", value_label="coefficient")
    write_figure(tmp_path / "image.png", image)
    assert all(path.stat().st_size for path in tmp_path.iterdir())


def test_a_written_png_has_its_size_in_pixels(tmp_path):
    figure, _ = draw([Curve("a", ITERATIONS, VALUES)])
    write_figure(tmp_path / "figure.png", figure)
    content = (tmp_path / "figure.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20], "big") == 8 * 150
    assert int.from_bytes(content[20:24], "big") == 5 * 150
