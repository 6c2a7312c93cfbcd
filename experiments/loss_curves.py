"""S5.6: the training loss and the test loss of a network against the iteration, in one figure.

A second figure shows the accuracies. The default network is (b) of S1.4: two hidden layers of 50
ReLU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments import harness
from experiments.config import Whole
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNING_RATE = 0.1  # of setting (b) in experiments.architectures


@dataclass(frozen=True, kw_only=True)
class LossCurvesConfig(TrainingConfig):
    """Train a network and show training and test loss against the iteration (S5.6)."""

    hidden: tuple[Whole, ...] = (50, 50)
    """Units of the hidden layers; --hidden without a number is softmax regression."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        if any(units < 1 for units in self.hidden):
            raise self.refusal("hidden", "positive numbers of units")


def experiment(config: LossCurvesConfig, run: harness.Run) -> Mapping[str, Any]:
    """Trains the network from every seed, and shows the curves."""
    splits = config.splits(run.load())
    sizes = (input_size(splits), *config.hidden, class_count(splits))
    with run.progress("training") as report:
        setting = train_setting(config, sizes, LEARNING_RATE, splits, report)
    present(config, run, setting)
    lines = warnings(config, {"-".join(map(str, sizes)): setting}, splits)
    for line in lines:
        run.say(line)
    return {**final_measures(setting), "warnings": lines, "seconds": setting.seconds()}


def present(config: LossCurvesConfig, run: harness.Run, setting: Setting) -> None:
    """The table, history.csv and the figures."""
    name = "-".join(map(str, setting.sizes))
    run.table(
        f"{config.dataset}, {name}: {config.steps:,} iterations of {config.batch_size}",
        ("measure", f"mean ± standard deviation of {config.seeds} seeds"),
        [
            (measure.replace("_", " "), mean_and_std(summary(setting.measures[measure][:, -1])))
            for measure in MEASURES
        ],
    )
    run.history(history_rows(name, setting))
    run.figures(partial(draw, config, setting))


def draw(config: LossCurvesConfig, setting: Setting) -> "dict[str, Figure]":
    """The figures of the loss and of the accuracy."""
    from jaxnn.figures import Curve, curves_figure

    name, figures = "-".join(map(str, setting.sizes)), {}
    held_out = "validation" if config.validation else "test"
    for file_name, measure, name_of_measure, y_label in (
        ("loss.png", "cross_entropy", "loss", "mean cross-entropy (nats)"),
        ("accuracy.png", "error", "accuracy", "accuracy (share of right predictions)"),
    ):
        curves = []
        for split, label in (("train", "training"), ("test", held_out)):
            values = setting.measures[f"{split}_{measure}"]
            if name_of_measure == "accuracy":
                values = 1 - values
            curves.append(Curve(f"{label} {name_of_measure}", setting.iteration, values))
        title = f"Training and {held_out} {name_of_measure}, {config.dataset}, {name}"
        scale = "log" if name_of_measure == "loss" else "linear"
        figures[file_name] = curves_figure(curves, title=title, y_label=y_label, y_scale=scale)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("loss_curves", LossCurvesConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
