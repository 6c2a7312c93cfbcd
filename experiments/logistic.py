"""Logistic regression with L2 (S5.3): does the derived update end at scikit-learn's solution?

One class against the rest, by full-batch gradient descent in float64 with the hand-derived update

    theta <- theta - alpha [1/N sum_i (h_i - y_i) x_i + lambda theta],   h_i = sigmoid(theta^T x_i),

from a random start per seed. The objective is strictly convex: every seed, and scikit-learn's
LogisticRegression with C = 1/(N lambda), has to reach the same theta.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import harness
from experiments.config import DataConfig, Whole
from experiments.report import mean_and_std, summary
from jaxnn import losses
from jaxnn.closed_form import logistic_update
from jaxnn.reporting import no_better
from jaxnn.types import Array, ArrayLike, Data

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AGREEMENT = 1e-5  # the largest difference of a coefficient between equal end points
CONVERGENCE = 1e-6  # descent ends when the distance to the optimum is provably smaller
MEASURES = ("train_loss", "test_loss", "train_error", "test_error")


@dataclass(frozen=True, kw_only=True)
class LogisticConfig(DataConfig):
    """Logistic regression with L2 (S5.3): one class against the rest, compared with scikit-learn.

    Full-batch gradient descent in float64 by the hand-derived update. There is no bias, and every
    component of theta is penalised.
    """

    seeds: Whole = 3
    """Number of random starts; all starts have to end at the same theta."""

    positive_class: Whole = 0
    """The class to tell from the rest."""

    l2: float = 0.01
    """lambda in the objective, mean logistic loss + lambda/2 * sum of squares of theta."""

    learning_rate: float | None = None
    """alpha; default: 1 / (the objective's largest curvature); with the default every step
    descends."""

    iterations: Whole = 20_000
    """Largest number of iterations; descent ends earlier once theta is provably within 1e-6 of
    the optimum."""

    accelerate: bool | None = None
    """Take the derived update from a point extrapolated along the last step (Nesterov): far fewer
    iterations; default: on, except for digits."""

    compare: bool = True
    """Compare every end point with scikit-learn's; a difference of 1e-5 in a coefficient is exit
    status 1."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(0, "positive_class")
        self.at_least(1, "iterations")
        self.positive("l2", "learning_rate")


class Binary(NamedTuple):
    """Examples of two classes, in float64."""

    x: Array  # [N, in]
    y: Array  # [N], 1 for the positive class, else 0


class Step(NamedTuple):
    """The scalars of an update."""

    learning_rate: float  # alpha
    l2: float  # lambda
    momentum: float  # 0 is plain gradient descent


class Descent(NamedTuple):
    """The state of the descent from every seed."""

    theta: Array  # [S, in]
    previous: Array  # [S, in], of the previous iteration
    gradient_norm: Array  # [S], where the last update was taken
    iteration: Array  # []


def binary(data: Data, positive_class: int) -> Binary:
    """One class of a data set against the rest."""
    targets = np.asarray(data.targets)
    classes = targets if targets.ndim == 1 else targets.argmax(axis=1)
    shift = 0.0 if data.shift is None else data.shift
    x = jnp.asarray(data.inputs, jnp.float64) * data.scale + shift
    return Binary(x.reshape(len(x), -1), jnp.asarray(classes == positive_class, jnp.float64))


def largest_curvature(x: Array, l2: float) -> float:
    """L = 1/4 (largest eigenvalue of X^T X / N) + lambda: sigmoid' is at most 1/4."""
    examples = np.asarray(x)
    return float(np.linalg.eigvalsh(examples.T @ examples / len(examples))[-1]) / 4 + l2


def choose_step(config: LogisticConfig, x: Array) -> Step:
    """The config's step, or 1/L; with Nesterov's constant momentum for strong convexity lambda."""
    rate = config.learning_rate or 1 / largest_curvature(x, config.l2)
    accelerate = config.dataset != "digits" if config.accelerate is None else config.accelerate
    root = min(1.0, math.sqrt(rate * config.l2))
    return Step(rate, config.l2, (1 - root) / (1 + root) if accelerate else 0.0)


@jax.jit
def descend(state: Descent, until: ArrayLike, step: Step, train: Binary) -> Descent:
    """Continues to iteration ``until``, or until every theta is provably within CONVERGENCE.

    By strong convexity, the distance from theta to the optimum is at most (gradient norm) / lambda.
    """

    def unfinished(state: Descent) -> Array:
        far = jnp.any(state.gradient_norm > CONVERGENCE * step.l2)
        return far & (state.iteration < until)

    def iterate(state: Descent) -> Descent:
        point = state.theta + step.momentum * (state.theta - state.previous)
        theta = jax.vmap(logistic_update, in_axes=(0, None, None, None, None))(
            point, train.x, train.y, step.learning_rate, step.l2
        )
        norm = jnp.linalg.norm((point - theta) / step.learning_rate, axis=1)
        return Descent(theta, state.theta, norm, state.iteration + 1)

    return jax.lax.while_loop(unfinished, iterate, state)


@jax.jit
def evaluate(theta: Array, data: Binary) -> tuple[Array, Array]:
    """The unregularised mean loss and the error of every seed: ([S], [S])."""

    def one(theta: Array, x: Array, y: Array) -> tuple[Array, Array]:
        logit = theta @ x
        return losses.logistic(logit, y), losses.classification_error(logit, y)

    each = jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))
    loss, error = each(theta, *data)  # [S, N]
    return loss.mean(axis=1), error.mean(axis=1)


def checkpoints(iterations: int) -> list[int]:
    """The evaluated iterations: dense at first, then at least every 250."""
    logarithmic = {round(i) for i in np.geomspace(1, iterations, min(40, iterations))}
    return sorted(logarithmic | set(range(250, iterations, 250)))


def trajectory(
    theta: Array, iterations: int, step: Step, train: Binary, test: Binary
) -> Iterator[tuple[Descent, dict[str, Array]]]:
    """The descent with measures [S], at the start and after every checkpoint."""
    state = Descent(theta, theta, jnp.full(len(theta), jnp.inf), jnp.asarray(0))
    for until in (0, *checkpoints(iterations)):
        before, state = state.iteration, descend(state, until, step, train)
        if until and state.iteration == before:
            return
        train_loss, train_error = evaluate(state.theta, train)
        test_loss, test_error = evaluate(state.theta, test)
        measures = (train_loss, test_loss, train_error, test_error)
        yield state, dict(zip(MEASURES, measures, strict=True))


def scikit_learn(train: Binary, l2: float) -> np.ndarray:
    """scikit-learn's theta [in] for the objective; a warning, such as no convergence, is raised."""
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(train.x), np.asarray(train.y)
    model = LogisticRegression(
        C=1 / (len(y) * l2), fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1000
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model.fit(x, y).coef_[0]


def experiment(config: LogisticConfig, run: harness.Run) -> Mapping[str, Any]:
    """Descends from every start, shows the curves, and compares the end points."""
    with jax.enable_x64(True):
        train, test = (binary(split, config.positive_class) for split in run.load())
        if not 0 < train.y.sum() < len(train.y):
            raise config.refusal("positive_class", "a class of some training examples, not all")
        step = choose_step(config, train.x)
        points = descend_with_progress(config, run, step, train, test)
        end, measures = points[-1]
        method = ("accelerated " if step.momentum else "") + "gradient descent"
        present(config, run, points, method)
        accuracies = {"theta": float(1 - measures["test_error"].mean())}
        lines = no_better(accuracies, np.asarray(test.y), "test")
        for line in lines:
            run.say(line)
        run.figures(partial(draw, config, points, method))
        return {
            "objective": "mean logistic loss + l2/2 * theta^T theta; no bias",
            **step._asdict(),
            "iterations": end.iteration,
            "gradient_norm": summary(end.gradient_norm),
            **{name: summary(measures[name]) for name in MEASURES},
            **compare(config, run, end, train),
            "warnings": lines,
            "theta": end.theta,
        }


Points = list[tuple[Descent, dict[str, Array]]]
"""The evaluated points of a descent, with measures [S]."""


def descend_with_progress(
    config: LogisticConfig, run: harness.Run, step: Step, train: Binary, test: Binary
) -> Points:
    """The evaluated points of the descents from 0.1 * N(0, I), a start per seed."""
    keys = [jax.random.key(seed) for seed in range(config.seeds)]
    starts = jnp.stack([0.1 * jax.random.normal(key, train.x.shape[1:]) for key in keys])
    points: Points = []
    largest = 0.0
    with run.progress("converging (%)") as report:
        for state, measures in trajectory(starts, config.iterations, step, train, test):
            points.append((state, measures))
            norm = float(state.gradient_norm.max())
            if math.isfinite(norm):  # not at the start, before the first gradient
                largest = max(largest, norm)
                report(percent_converged(largest, norm, CONVERGENCE * step.l2), 100)
    return points


def percent_converged(largest: float, norm: float, goal: float) -> int:
    """Decades gained of the decades between the largest gradient norm and the goal, in percent."""
    if norm <= goal:
        return 100
    return min(99, round(100 * math.log(largest / norm) / math.log(largest / goal)))


def present(config: LogisticConfig, run: harness.Run, points: Points, method: str) -> None:
    """The table and history.csv."""
    end, final = points[-1]
    run.table(
        f"{task(config)}: {config.seeds} seeds, {end.iteration} iterations of {method}",
        ["measure", "mean ± std over seeds" if config.seeds > 1 else "1 seed"],
        [[name.replace("_", " "), mean_and_std(summary(final[name]), 6)] for name in MEASURES],
    )
    run.history(
        [
            {"setting": method, "seed": seed, "iteration": int(state.iteration)}
            | {name: float(measures[name][seed]) for name in MEASURES}
            for seed in range(config.seeds)
            for state, measures in points
        ]
    )


def draw(config: LogisticConfig, points: Points, method: str) -> "dict[str, Figure]":
    """The loss curves, and theta if the inputs are square images."""
    from jaxnn.figures import Curve, curves_figure, image_figure

    iterations = [int(state.iteration) for state, _ in points]
    curves = [
        Curve(label, iterations, np.stack([measures[name] for _, measures in points], axis=1))
        for label, name in (("training examples", "train_loss"), ("test examples", "test_loss"))
    ]
    loss = curves_figure(
        curves,
        title=f"Logistic regression by {method}, {task(config)}",
        x_label="iteration (full-batch steps, logarithmic from 1)",
        x_scale="symlog",
        y_label="mean logistic loss (nats)",
    )
    figures = {"loss.png": loss}
    theta = np.asarray(points[-1][0].theta).mean(axis=0)
    width = math.isqrt(len(theta))
    if width**2 == len(theta):
        title = f"theta, {task(config)} (mean over seeds)"
        pixels = theta.reshape(width, width)
        figures["theta.png"] = image_figure(pixels, title=title, value_label="coefficient")
    return figures


def task(config: LogisticConfig) -> str:
    """The learning task in words."""
    return f"class {config.positive_class} of {config.dataset} against the rest"


def compare(
    config: LogisticConfig, run: harness.Run, end: Descent, train: Binary
) -> dict[str, Any]:
    """The distances between end points; checks the distance from scikit-learn's solution."""
    theta = np.asarray(end.theta)
    distances: dict[str, Any] = {"difference_between_seeds": np.ptp(theta, axis=0).max()}
    if not config.compare:
        return distances
    name = "every end point is scikit-learn's"
    try:
        difference = np.abs(theta - scikit_learn(train, config.l2)).max()
    except Warning as warning:
        run.check(name, False, f"scikit-learn warned: {warning}")
        return distances
    detail = f"largest difference in a coefficient {difference:.1e}, expected under {AGREEMENT:.0e}"
    if (norm := end.gradient_norm.max()) > CONVERGENCE * config.l2:
        detail += f"; stopped early, at gradient norm {norm:.1e}: raise --iterations"
    run.check(name, difference < AGREEMENT, detail)
    return distances | {"difference_from_scikit_learn": difference, "agreement": AGREEMENT}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("logistic", LogisticConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
