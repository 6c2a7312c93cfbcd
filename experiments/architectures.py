"""S1.4: three networks on images of digits, their curves, and the observations of the source.

(a) one layer of 10 neurons, (b) 50 and 50 ReLU and 10 linear, (c) 90 and 50 ReLU and 10 linear;
softmax and cross-entropy, minibatch SGD. The source gives neither batch size nor learning rate.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import harness
from experiments.report import mean_and_std, summary
from experiments.training import (
    MEASURES,
    Setting,
    TrainingConfig,
    class_count,
    final_measures,
    history_rows,
    input_size,
    train_setting,
    warnings,
)
from jaxnn import parameter_count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN = {"a": (), "b": (50, 50), "c": (90, 50)}
# The lowest error over 0.01 ... 1 on MNIST with --validation 10000 --learning-rate RATE.
LEARNING_RATES = {"a": 0.3, "b": 0.1, "c": 0.1}
FIGURES = {
    "cross_entropy.png": ("train_cross_entropy", "mean training cross-entropy (nats)"),
    "test_error.png": ("test_error", "test error (share of wrong predictions)"),
    "train_error.png": ("train_error", "training error (share of wrong predictions)"),
}
CLOSE = 0.25  # the relative deviation that counts as "close to"


@dataclass(frozen=True, kw_only=True)
class ArchitecturesConfig(TrainingConfig):
    """Train the three networks of S1.4 from several seeds and show the curves."""


def experiment(config: ArchitecturesConfig, run: harness.Run) -> Mapping[str, Any]:
    """Trains the settings at the same time, and shows the curves side by side."""
    splits = config.splits(run.load())
    done = dict.fromkeys(HIDDEN, 0)
    with run.progress("training") as report, ExitStack() as stack:
        threads = ThreadPoolExecutor()
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)  # after an interrupt

        def train(name: str) -> Setting:
            def progress(members: int, _: int) -> None:
                done[name] = members
                report(sum(done.values()), len(done) * config.seeds)

            sizes = (input_size(splits), *HIDDEN[name], class_count(splits))
            return train_setting(config, sizes, LEARNING_RATES[name], splits, progress)

        # A setting is traced and compiled while another setting trains, and devices without a seed
        # of a setting train a seed of the next.
        settings = dict(zip(HIDDEN, threads.map(train, HIDDEN), strict=True))
    rows = observations(settings)
    present(config, run, settings, rows)
    lines = warnings(config, settings, splits)
    for line in lines:
        run.say(line)
    return {
        "settings": {name: final_measures(setting) for name, setting in settings.items()},
        "observations": rows,
        "warnings": lines,
        "evaluated_on": "validation" if config.validation else "test",
        "seconds": {name: setting.seconds() for name, setting in settings.items()},
    }


def observations(settings: Mapping[str, Setting]) -> list[dict[str, str]]:
    """The observations printed in S1.4, beside the measured means over seeds."""
    return [
        _drops_fastest("cross-entropy of (a) drops fastest and of (c) slowest", settings),
        _all_close(settings, "cross-entropy", "train_cross_entropy", 5000, 0.15),
        _starts_lower("initial test error of (a) is much smaller than the others'", settings),
        _all_close(settings, "test error", "test_error", 3000, 0.08),
        _all_close(settings, "train error", "train_error", 4000, 0.05),
    ]


def _means(settings: Mapping[str, Setting], measure: str, index: int) -> dict[str, float]:
    return {n: float(s.measures[measure][:, index].mean()) for n, s in settings.items()}


def _row(
    says: str, at: int, means: Mapping[str, float], confirmed: bool, note: str
) -> dict[str, str]:
    values = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    verdict = "confirmed" if confirmed else "contradicted"
    return {"source": says, "measured": f"{note}{values} (iteration {at:,})", "verdict": verdict}


def _drops_fastest(says: str, settings: Mapping[str, Setting]) -> dict[str, str]:
    """The fall of the training cross-entropy from the start to the second evaluation."""
    start, early = (_means(settings, "train_cross_entropy", i) for i in (0, 1))
    falls = {name: start[name] - early[name] for name in settings}
    ordered = (
        max(falls, key=lambda n: falls[n]) == "a" and min(falls, key=lambda n: falls[n]) == "c"
    )
    at = int(settings["a"].iteration[1])
    return _row(says, at, falls, ordered, "fallen by ")


def _starts_lower(says: str, settings: Mapping[str, Setting]) -> dict[str, str]:
    """Much smaller: at most two thirds of the smaller of (b) and (c)."""
    means = _means(settings, "test_error", 0)
    return _row(says, 0, means, means["a"] <= 2 / 3 * min(means["b"], means["c"]), "")


def _all_close(
    settings: Mapping[str, Setting], name: str, measure: str, at: int, value: float
) -> dict[str, str]:
    """Every setting's mean is within a quarter of the value printed by the source."""
    says = f"{name} of all three is close to {value} close to iteration {at:,}"
    iterations = settings["a"].iteration
    if iterations[-1] < at:
        measured = f"only {iterations[-1]:,} iterations were run"
        return {"source": says, "measured": measured, "verdict": "not measured"}
    index = int(np.argmin(np.abs(iterations - at)))
    means = _means(settings, measure, index)
    near = all(abs(mean - value) <= CLOSE * value for mean in means.values())
    return _row(says, int(iterations[index]), means, near, "")


def present(
    config: ArchitecturesConfig,
    run: harness.Run,
    settings: Mapping[str, Setting],
    rows: Sequence[Mapping[str, str]],
) -> None:
    """The tables, history.csv and the figures."""
    run.table(
        f"{config.dataset}: {config.steps:,} iterations of {config.batch_size}, mean ± standard "
        f"deviation of {config.seeds} seeds",
        ("name", "sizes", "parameters", *(measure.replace("_", " ") for measure in MEASURES)),
        [
            (
                name,
                "-".join(map(str, setting.sizes)),
                f"{parameter_count(setting.sizes):,}",
                *(mean_and_std(summary(setting.measures[m][:, -1])) for m in MEASURES),
            )
            for name, setting in settings.items()
        ],
    )
    title = "Observations of S1.4 on MNIST, beside the measurements"
    if config.dataset != "mnist":
        title += f" on {config.dataset}"
    columns = ("the source says", "measured (mean over seeds)", "verdict")
    run.table(title, columns, [tuple(row.values()) for row in rows])
    run.history([row for name, each in settings.items() for row in history_rows(name, each)])
    run.figures(partial(draw, config, settings))


def draw(config: ArchitecturesConfig, settings: Mapping[str, Setting]) -> "dict[str, Figure]":
    """The curves of all settings, a figure per measure."""
    from jaxnn.figures import Curve, curves_figure

    figures = {}
    labels = {n: f"({n}) {'-'.join(map(str, s.sizes))}" for n, s in settings.items()}
    for file_name, (measure, y_label) in FIGURES.items():
        curves = [Curve(labels[n], s.iteration, s.measures[measure]) for n, s in settings.items()]
        figures[file_name] = curves_figure(
            curves,
            title=f"{y_label.split(' (')[0].capitalize()}, {config.dataset}",
            y_label=y_label,
            y_scale="log",
        )
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("architectures", ArchitecturesConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
