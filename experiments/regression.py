"""Regression: a linear network beside the closed form of ridge regression, and a network.

The linear network minimises 1/N sum_i |W x_i + b - y_i|^2 / K + lambda/2 |W|^2 by gradient descent
with Nesterov's momentum on all examples, in float64, from a random start per seed. The objective
is strictly convex: every seed has to reach the coefficients of the closed form, which is
scikit-learn's ``Ridge`` with alpha = N K lambda / 2. A network with hidden layers is trained
beside, by minibatches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import harness
from experiments.config import DataConfig, Whole
from experiments.report import mean_and_std, summary
from experiments.training import evaluation_points
from jaxnn import MLP, Data, Hyper, Population, Spec, Splits, train_population
from jaxnn.data import standardized

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGREEMENT = 1e-5  # the largest difference of a coefficient, in units of the largest coefficient


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(DataConfig):
    """A regression: a linear network against ridge regression in closed form, and a network.

    Inputs are standardised on the training examples; targets keep their unit.
    """

    dataset: str = "diabetes"
    """diabetes (comes with scikit-learn), california_housing, or the path of your own table; the
    classes of other data sets count as numbers."""

    seeds: Whole = 3
    """Number of random starts; all starts of the linear network have to end at one solution."""

    l2: float = 0.01
    """lambda of the penalty lambda/2 * sum of squared weights; biases are free."""

    iterations: Whole = 3000
    """Updates of the linear network, each on all training examples."""

    hidden: tuple[Whole, ...] = (32,)
    """Units of the hidden layers of the network."""

    epochs: Whole = 30
    """Passes of the network over the training examples."""

    learning_rate: float = 0.01
    """Learning rate of the network, by Adam with a cosine schedule."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "iterations", "epochs")
        self.positive("l2", "learning_rate")
        if not self.hidden or min(self.hidden) < 1:
            raise self.refusal("hidden", "positive whole numbers")


def experiment(config: RegressionConfig, run: harness.Run) -> Mapping[str, Any]:
    """Solves, trains, compares the coefficients, and shows the errors on the test examples."""
    splits = Splits(*standardized(*run.load(regression=True)))
    inputs, targets = seen(splits.train)
    ridge = closed_form(config, inputs, targets)
    with run.progress("training") as report:
        linear = trained_linear(config, inputs, splits, report)
        network = trained_network(config, targets, splits, report)
    params: Any = linear.params
    weight, bias = (np.asarray(leaf)[:, 0] for leaf in params[0])
    coefficients = np.atleast_2d(ridge.coef_)
    differences = np.abs(weight - coefficients).max(axis=(1, 2)) / np.abs(coefficients).max()
    test_inputs, test_targets = seen(splits.test)
    errors = {
        "ridge": [rmse(ridge.predict(test_inputs), test_targets)],
        "linear": curves(linear, "test")[:, -1],
        "network": curves(network, "test")[:, -1],
    }
    run.check(
        "the linear network has the coefficients of ridge regression",
        bool(differences.max() <= AGREEMENT),
        f"largest difference {differences.max():.1e} of the largest coefficient, allowed "
        f"{AGREEMENT:.0e}",
    )
    constant = rmse(np.broadcast_to(targets.mean(axis=0), test_targets.shape), test_targets)
    present(config, run, {name: summary(each) for name, each in errors.items()}, constant)
    populations = {"linear": linear, "network": network}
    run.history(rows(populations))
    run.figures(partial(draw, populations, errors["ridge"][0]))
    return {
        "coefficients": {"ridge": coefficients.tolist(), "linear": weight.tolist()},
        "intercepts": {"ridge": np.ravel(ridge.intercept_).tolist(), "linear": bias.tolist()},
        "difference": summary(differences),
        "test_rmse": {name: summary(each) for name, each in errors.items()},
        "constant_test_rmse": constant,
        "seconds": {name: each.train_seconds for name, each in populations.items()},
    }


def seen(data: Data) -> tuple[np.ndarray, np.ndarray]:
    """The inputs as a network sees the inputs, and the targets, in float64."""
    shift = 0.0 if data.shift is None else np.asarray(data.shift, float)
    inputs = np.asarray(data.inputs, float) * np.asarray(data.scale, float) + shift
    return inputs, np.asarray(data.targets, float)


def closed_form(config: RegressionConfig, inputs: np.ndarray, targets: np.ndarray) -> Any:
    """Ridge regression: of the sum of squares, so alpha = N K lambda / 2."""
    from sklearn.linear_model import Ridge

    return Ridge(alpha=targets.size * config.l2 / 2, solver="cholesky").fit(inputs, targets)


def rmse(predicted: np.ndarray, targets: np.ndarray) -> float:
    """The root of the mean squared error, a mean over targets."""
    return float(np.mean(np.sqrt(np.mean((predicted - targets) ** 2, axis=0))))


def trained_linear(
    config: RegressionConfig, inputs: np.ndarray, splits: Splits, report: Any
) -> Population:
    """The linear network from every seed, at the rate 1 / (the objective's largest curvature)."""
    targets = np.asarray(splits.train.targets)
    outputs = targets.shape[1] if targets.ndim == 2 else 1
    extended = np.column_stack([inputs, np.ones(len(inputs))])
    curvature = 2 * np.linalg.norm(extended, 2) ** 2 / targets.size + config.l2
    spec = Spec(
        MLP((inputs.shape[1], outputs)),
        steps=config.iterations,
        batch_size=len(inputs),
        loss="mse",
        optimizer="nesterov",
        evaluate_at=evaluation_points(config.iterations),
        metrics=("rmse",),
    )
    hyper = Hyper(1 / curvature, config.l2, momentum=0.95)
    with jax.enable_x64(True):
        exact = Splits(*(d._replace(inputs=np.asarray(d.inputs, float)) for d in splits))
        return train_population(
            spec, hyper, range(config.seeds), exact.train, exact._asdict(), progress=report
        )


def trained_network(
    config: RegressionConfig, targets: np.ndarray, splits: Splits, report: Any
) -> Population:
    """A network with hidden layers from every seed, by minibatches.

    The targets of the training are standardised; the errors are in the unit of the targets.
    """
    middle, width = targets.mean(axis=0), targets.std(axis=0)

    def scaled(data: Data) -> Data:
        return data._replace(targets=(np.asarray(data.targets) - middle) / width)

    count, size = len(targets), min(32, len(targets))
    steps = max(1, config.epochs * count // size)
    outputs = targets.shape[1] if targets.ndim == 2 else 1
    spec = Spec(
        MLP((splits.train.inputs.shape[1], *config.hidden, outputs)),
        steps=steps,
        batch_size=size,
        loss="mse",
        optimizer="adam",
        schedule="cosine",
        evaluate_at=evaluation_points(steps),
        metrics=("rmse",),
    )
    hyper = Hyper(config.learning_rate, config.l2)
    sets = {name: scaled(data) for name, data in splits._asdict().items()}
    found = train_population(spec, hyper, range(config.seeds), sets["train"], sets, progress=report)
    for each in found.metrics.values():
        errors = each.by_name()["rmse"]
        errors *= np.mean(width)  # in place
    return found


def curves(population: Population, split: str) -> np.ndarray:
    """The root of the mean squared error at the evaluations of every seed, [S, E]."""
    return population.metrics[split].by_name()["rmse"][:, 0]


def present(
    config: RegressionConfig, run: harness.Run, errors: Mapping[str, Any], constant: float
) -> None:
    """The table of the errors on the test examples."""
    names = {
        "ridge": "ridge regression, closed form",
        "linear": "linear network",
        "network": f"network with {'-'.join(map(str, config.hidden))} hidden units",
    }
    run.table(
        f"{config.dataset}: root of the mean squared error on the test examples, "
        f"{config.seeds} seeds",
        ("model", "test RMSE"),
        [
            *((names[name], mean_and_std(measure, 3)) for name, measure in errors.items()),
            ("the mean of the training targets", f"{constant:.3f}"),
        ],
    )


def rows(populations: Mapping[str, Population]) -> list[dict[str, Any]]:
    """The rows of history.csv: a row per model, seed and evaluated iteration."""
    return [
        {"setting": name, "seed": seed, "iteration": int(iteration)}
        | {f"{split}_rmse": float(curves(each, split)[seed, place]) for split in ("train", "test")}
        for name, each in populations.items()
        for seed in range(len(each.diverged_at))
        for place, iteration in enumerate(each.iteration)
    ]


def draw(populations: Mapping[str, Population], closed: float) -> "dict[str, Figure]":
    """The curves of the root mean squared error, and the closed form as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axes, (name, each) in zip(figure.subplots(1, 2), populations.items(), strict=True):
        for split in ("train", "test"):
            values = curves(each, split)
            (line,) = axes.plot(each.iteration, values.mean(axis=0), label=split)
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(each.iteration, low, high, alpha=0.2, color=line.get_color())
        axes.axhline(closed, color="black", linestyle=":", label="ridge, test")
        axes.set(title=name, xlabel="iteration", ylabel="RMSE")
        axes.legend()
    return {"rmse.png": figure}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("regression", RegressionConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
