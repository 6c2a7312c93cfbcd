"""``python -m experiments.pictures``: draws the pictures of README.md into .github/pictures.

``population.png`` shows the learning curves of the population in README.md, ``report.png`` the HTML
report on the claim in README.md. The screenshot needs Chromium; the text of the report takes the
serif and sans-serif fonts of the machine.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from jaxnn import MLP, Hyper, Population, Spec, train_population
from jaxnn.data import load
from jaxnn.devices import use_all_cores
from jaxnn.figures import log_scale

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / ".github" / "pictures"
RATES = np.geomspace(1e-3, 10, 64)
WIDTH = 820
"""Pixels of a picture, almost twice the width of a picture in the README, for fine screens."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=2",
)

STYLE = (
    "<style>footer, .code { display: none } section { margin: 1.5rem 0; padding-top: 1.5rem }"
    "</style>"
)
"""Added to the page before the screenshot: less height, no code, no legend of the verdicts."""

POLICY = "<meta http-equiv=[^>]*>"
"""The part of the page that allows no style but the page's own."""


def main() -> int:
    """Draws the pictures; status 2 without a browser."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"pictures: no browser found, expected one of {', '.join(BROWSERS)}", file=sys.stderr)
        return 2
    PICTURES.mkdir(parents=True, exist_ok=True)
    save(draw_population(train_digits()), PICTURES / "population.png")
    save(photograph_report(browser), PICTURES / "report.png")
    return 0


def train_digits() -> Population:
    """The population of README.md: 64 learning rates from 3 seeds each, on digits."""
    train, test = load("digits")
    spec = Spec(
        model=MLP((64, 50, 10)),
        steps=500,
        optimizer="momentum",
        evaluate_at=tuple(range(0, 500, 10)),
    )
    seeds = jax.random.split(jax.random.key(0), 3)
    return train_population(spec, Hyper(RATES, l2=1e-4), seeds, train, {"test": test})


def draw_population(population: Population) -> Image.Image:
    """The test loss of each learning rate against the iteration, mean over the seeds."""
    loss = population.metrics["test"].loss.mean(axis=0)  # [64, E]
    colours = ScalarMappable(LogNorm(RATES[0], RATES[-1]), "viridis_r")
    figure = Figure(figsize=(4.8, 5.55), dpi=WIDTH / 4.8, layout="constrained")
    axes = figure.subplots()
    for rate, curve in zip(RATES, loss, strict=True):
        axes.plot(population.iteration, curve, color=colours.to_rgba(rate), linewidth=1.1)
    axes.set_title("64 learning rates, 3 seeds each:\none program", loc="left", fontweight="bold")
    axes.set(xlabel="iteration", ylabel="test loss on digits (nats)", xlim=(0, 500))
    log_scale(axes.yaxis, np.array([0.06, 12]))
    axes.set_ylim(0.06, 12)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    bar = figure.colorbar(colours, ax=axes, label="learning rate", location="bottom", aspect=40)
    bar.ax.xaxis.set_major_formatter("{x:g}")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def photograph_report(browser: str) -> Image.Image:
    """The HTML report on the claim of README.md, down to the evidence."""
    with tempfile.TemporaryDirectory() as folder:
        claims, page, picture = (Path(folder) / n for n in ("claims.py", "page.html", "page.png"))
        claims.write_text(readme_block("claims.py"), encoding="utf-8")
        verify = [sys.executable, "-m", "jaxnn.verify", claims, "--html", page, "--workers", "0"]
        subprocess.run(
            verify, cwd=ROOT, stdout=subprocess.DEVNULL, check=False
        )  # status 1: refuted
        content = re.sub(POLICY, "", page.read_text(encoding="utf-8"))
        page.write_text(content + STYLE, encoding="utf-8")
        subprocess.run(
            [
                browser,
                *FLAGS,
                f"--user-data-dir={folder}/browser",
                "--window-size=640,1200",
                f"--screenshot={picture}",
                page.as_uri(),
            ],
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=120,
        )
        return trimmed(Image.open(picture).convert("RGB"))


def trimmed(image: Image.Image) -> Image.Image:
    """The page without its empty margins, on a margin of 48 pixels, at ``WIDTH``."""
    paper = image.crop((0, 0, 1, 1)).resize(image.size)
    left, top, right, bottom = ImageChops.difference(image, paper).getbbox() or (0, 0, *image.size)
    cropped = image.crop((max(left - 48, 0), max(top - 48, 0), right + 48, bottom + 48))
    height = round(cropped.height * WIDTH / cropped.width)
    return cropped.resize((WIDTH, height), Image.Resampling.LANCZOS)


def readme_block(name: str) -> str:
    """The Python block of README.md whose first line is a comment with this file name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"```python\n(# {re.escape(name)}\n.*?)```", readme, re.DOTALL)
    if found is None:
        raise ValueError(f"README.md has no Python block that starts with # {name}")
    return found[1]


def save(image: Image.Image, path: Path) -> None:
    """Writes a PNG file of 64 colours, a third of the bytes of all colours."""
    few = image.quantize(64, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    few.save(path, optimize=True)
    print(f"wrote {path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    use_all_cores()
    sys.exit(main())
