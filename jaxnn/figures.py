"""Figures: a measure against the iteration, several settings, mean and spread over the seeds."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure  # without pyplot: half the import time, and no display
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, NullFormatter, SymmetricalLogLocator
from numpy.typing import ArrayLike

from jaxnn.files import atomic_write, printable

# Okabe and Ito's colours for colour-blind readers, without the pale yellow; the line styles
# distinguish settings in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINE_STYLES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 3)))


def literal(text: object) -> str:
    """A text of the user as Matplotlib shows it unchanged, without mathematics between dollars."""
    return printable(text, keep="\n").replace("$", r"\$")


class Curve(NamedTuple):
    """A measure of a setting by evaluated iteration."""

    label: str
    iterations: ArrayLike  # [E]
    values: ArrayLike  # [S, E], a row per seed


def curves_figure(
    curves: Sequence[Curve],
    *,
    title: str,
    y_label: str,
    x_label: str = "iteration (minibatch steps)",
    x_scale: str = "linear",
    y_scale: str = "linear",
    replicates: str = "seeds",
) -> Figure:
    """A line per setting: the mean over the seeds, in a band of a standard deviation.

    Args:
      curves: at most seven, in the order of the legend.
      title: the title.
      y_label: the measure and the unit.
      x_label: the counted quantity.
      x_scale: "linear", "log" or "symlog".
      y_scale: a scale for the measure; "log" turns linear towards 0 if a value is 0.
      replicates: the name of the rows of a curve's values.

    Returns:
      The figure; the legend's title has the number of seeds.
    """
    figure, ((axes,),) = framed((8, 5))
    axes.set_prop_cycle(color=COLOURS, linestyle=LINE_STYLES)
    for curve in curves:
        x, values = np.asarray(curve.iterations), np.atleast_2d(np.asarray(curve.values, float))
        with np.errstate(over="ignore", invalid="ignore"):  # the line ends where a seed diverges
            mean = values.mean(axis=0)
            std = values.std(axis=0, ddof=min(1, len(values) - 1))
        (line,) = axes.plot(x, mean, linewidth=1.8, label=literal(curve.label))
        if len(values) > 1:
            band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
            axes.fill_between(x, mean - std, mean + std, **band)
    axes.set(title=literal(title), xlabel=literal(x_label), ylabel=literal(y_label), xscale=x_scale)
    everything = np.concatenate([np.ravel(curve.values) for curve in curves])
    if y_scale == "log":
        log_scale(axes.yaxis, everything)
    else:
        axes.set_yscale(y_scale)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter("{x:,.0f}")
    count = max((len(np.atleast_2d(curve.values)) for curve in curves), default=0)
    several = f"mean of {count} {replicates}; band: ± 1 standard deviation"
    legend = several if count > 1 else f"1 {replicates.removesuffix('s')}"
    axes.legend(title=legend, frameon=False, handlelength=3.2, alignment="left")
    return figure


def framed(
    size: tuple[float, float], rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and panels [rows, columns] with a faint grid, open at the top and the right."""
    figure = _sheet(size)
    panels = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in panels.flat:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


class Shown(Figure):
    """A figure that a notebook shows without a magic."""

    def _repr_png_(self) -> bytes:
        return as_png(self)


def _sheet(size: tuple[float, float]) -> Figure:
    """An empty figure with a margin, so that no label touches an edge."""
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    return Shown(figsize=size, dpi=150, layout=layout)


def log_scale(axis: XAxis | YAxis, values: ArrayLike) -> None:
    """A logarithmic axis with ticks at 1, 2, 5, 10, ...; linear towards 0 if a value is 0."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    smallest = values[values > 0].min(initial=1.0)
    subs = (1, 2, 5) if values.max(initial=1.0) < 1000 * smallest else (1,)
    set_scale = getattr(axis.axes, f"set_{axis.axis_name}scale")
    if (values <= 0).any():
        set_scale("symlog", linthresh=smallest)
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=smallest, subs=subs))
        axis.axes.set(**{f"{axis.axis_name}lim": (0, None)})
    else:
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def image_figure(pixels: ArrayLike, *, title: str, value_label: str) -> Figure:
    """A matrix [height, width] as an image: 0 is white, positive and negative are coloured."""
    pixels = np.asarray(pixels, float)
    limit = float(np.max(np.abs(pixels), initial=0.0, where=np.isfinite(pixels))) or 1.0
    figure = _sheet((6, 5))
    axes = figure.subplots()
    image = axes.imshow(pixels, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.set(title=literal(title), xlabel="column (pixels)", ylabel="row (pixels)")
    figure.colorbar(image, ax=axes, label=literal(value_label))
    return figure


FORMATS = ("png", "svg", "pdf")
"""The formats of figures in files."""


def write_figure(path: Path, figure: Figure) -> None:
    """Writes the figure in the format of the name's end, one of ``FORMATS``."""
    with atomic_write(path, "wb") as file:
        _save(figure, file, path.suffix[1:])


def as_png(figure: Figure) -> bytes:
    """The figure for a notebook, which keeps every output: a quarter of the bytes of a file."""
    from PIL import Image  # which Matplotlib brings

    drawn, small = BytesIO(), BytesIO()
    _save(figure, drawn, "png", dpi=figure.dpi / 1.5)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    return small.getvalue()


def _save(figure: Figure, file: IO[bytes], format: str, **options: Any) -> None:
    """Equal figures are equal bytes; a box replaces a letter the font lacks."""
    dates = {"svg": "Date", "pdf": "CreationDate"}
    about = {dates[format]: None} if format in dates else {}
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "jaxnn"}):
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format=format, metadata=about, **options)
