"""S2.4: softmax regression by stochastic gradient descent, hyperparameters chosen by validation.

Learning rate, minibatch size, number of epochs and the strength of L2 (on the weights, never on the
biases) are searched on a validation split; then the test set is read, once. After an interruption
the same command continues the search. ``--architecture`` searches the networks of S1.4 instead.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import jax

from experiments import harness
from experiments.config import DistributedConfig, Whole
from jaxnn.metrics import METRICS
from jaxnn.search import (
    Domain,
    FinalScores,
    Method,
    Result,
    Task,
    choice,
    fixed,
    folds,
    grid,
    holdout,
    hyperband,
    log_uniform,
    optuna,
    population_based,
    random,
    report,
    search,
    sobol,
    successive_halving,
)
from jaxnn.search.result import RULES
from jaxnn.search.space import cell, readable
from jaxnn.types import MeasureName, RuleName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN = {"a": (), "b": (50, 50), "c": (90, 50)}
MEASURES: dict[str, MeasureName] = {"cross_entropy": "loss", "accuracy": "error"}
METHODS: dict[str, Callable[["SearchConfig"], Method]] = {
    "grid": lambda config: grid(config.points or 4),
    "random": lambda config: random(config.count),
    "sobol": lambda config: sobol(config.count),
    "successive_halving": lambda config: successive_halving(config.count, eta=config.eta or 3),
    "hyperband": lambda config: hyperband(eta=config.eta or 3),
    "population_based": lambda config: population_based(config.count),
    "optuna": lambda config: optuna(config.count, batch=config.batch or 16),
}
METHOD_FLAGS = {
    "configurations": tuple(name for name in METHODS if name not in ("grid", "hyperband")),
    "points": ("grid",),
    "eta": ("successive_halving", "hyperband"),
    "batch": ("optuna",),
}
"""The methods that read a flag; with another method the flag is refused."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DistributedConfig):
    """Search the hyperparameters of softmax regression (S2.4), then test the choice once.

    After an interruption the same command continues the search.
    """

    seeds: Whole = 3
    """Seeds of every configuration; the mean over the seeds chooses."""

    architecture: str = "a"
    """a (softmax regression), b (50 and 50 hidden ReLU), c (90 and 50), or all: the search
    chooses."""

    method: str = "sobol"
    """grid, random, sobol, successive_halving, hyperband, population_based or optuna (TPE)."""

    configurations: Whole | None = None
    """Number of trials, with every method except grid and hyperband; default: 64."""

    epochs: Whole | None = None
    """Largest number of epochs; the search chooses among all epochs. Default: 12, for digits
    50."""

    learning_rate: tuple[float, float] = (0.01, 1.0)
    """Smallest and largest learning rate."""

    l2: tuple[float, float] = (1e-6, 1e-2)
    """Smallest and largest strength of l2/2 * sum of squared weights; biases are free."""

    batch_size: tuple[Whole, ...] = (50, 100, 200)
    """Candidate minibatch sizes; every size needs a compiled program."""

    optimizer: str = "momentum"
    """sgd, momentum, nesterov, or an optimizer of optax: adam, adamw, rmsprop, lion, ..."""

    schedule: str = "cosine"
    """Schedule of the learning rate: constant, cosine, step, or a schedule of optax:
    warmup_cosine, linear, ..."""

    measure: str = "cross_entropy"
    """The validation measure that chooses: cross_entropy, accuracy, or a metric of scikit-learn:
    balanced_accuracy, f1, roc_auc, ..."""

    rule: str = "mean"
    """The rule of choice: mean, or one_standard_error (the simplest configuration within one
    standard error of the best)."""

    validation: float | None = None
    """Share of the training examples used for validation, without --folds; default: 1/6."""

    folds: Whole = 1
    """Number of folds of a cross-validation; 1: a single validation split."""

    stratified: bool = False
    """Keep the proportions of the classes in the split."""

    ordered: bool = False
    """The rows are in the order of time: every fold validates on rows after the training rows."""

    balanced: bool = False
    """Weight the training examples so that all classes count alike, for imbalanced data."""

    retrain: bool = True
    """Train the choice again, on training and validation examples together, before the test."""

    points: Whole | None = None
    """With grid: values of each interval; default: 4."""

    eta: Whole | None = None
    """With successive_halving and hyperband: a round keeps 1 in ETA trials; default: 3."""

    batch: Whole | None = None
    """With optuna: configurations of a batch; default: 16."""

    seed: Whole = 0
    """Random seed of splits, configurations, initial weights and minibatches."""

    figures: bool = True
    """Draw the figures."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "configurations", "epochs", "folds", "batch")
        self.at_least(2, "points", "eta")
        self.at_least(0, "seed")
        self.one_of((*HIDDEN, "all"), "architecture")
        self.one_of(tuple(METHODS), "method")
        self.optax_names()
        self.one_of((*MEASURES, *METRICS), "measure")
        self.only_with(not (self.ordered and self.folds == 1), "--folds of at least 2", "ordered")
        self.only_with(not (self.ordered and self.stratified), "--stratified off", "ordered")
        self.one_of(RULES, "rule")
        for name in ("learning_rate", "l2"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise self.refusal(name, "two positive numbers, the smaller one first")
        if not self.batch_size or min(self.batch_size) < 1:
            raise self.refusal("batch_size", "positive whole numbers")
        for flag, methods in METHOD_FLAGS.items():
            self.only_with(self.method in methods, f"--method {' or '.join(methods)}", flag)
        self.only_with(self.folds == 1, "--folds 1", "validation")
        if self.validation is not None and not 0 < self.validation < 1:
            raise self.refusal("validation", "a number above 0 and below 1")

    @property
    def count(self) -> int:
        """The number of configurations, flag or default."""
        return self.configurations or 64

    @property
    def most_epochs(self) -> int:
        """The number of epochs, flag or default."""
        return self.epochs or (50 if self.dataset == "digits" else 12)

    @property
    def split(self) -> Any:
        """The validation examples."""
        if self.ordered:
            from sklearn.model_selection import TimeSeriesSplit

            return TimeSeriesSplit(self.folds)
        if self.folds > 1:
            return folds(self.folds, stratified=self.stratified)
        return holdout(self.validation or 1 / 6, stratified=self.stratified)

    @property
    def space(self) -> dict[str, Domain]:
        """The searched space."""
        hidden = HIDDEN.values() if self.architecture == "all" else (HIDDEN[self.architecture],)
        return {
            "learning_rate": interval(self.learning_rate),
            "l2": interval(self.l2),
            "batch_size": choice(*dict.fromkeys(self.batch_size)),
            "hidden": choice(*hidden),
            "optimizer": fixed(self.optimizer),
            "schedule": fixed(self.schedule),
        }


def interval(ends: tuple[float, float]) -> Domain:
    """The numbers between the ends, log-uniform; a fixed number where the ends are equal."""
    low, high = ends
    return fixed(low) if low == high else log_uniform(low, high)


def experiment(config: SearchConfig, run: harness.Run) -> Mapping[str, Any]:
    """Searches, tests the choice, and shows search and test."""
    began = time.perf_counter()
    splits = run.load()
    train = splits.train._replace(weights="balanced") if config.balanced else splits.train
    task = Task(
        train,
        splits.test,
        epochs=config.most_epochs,
        validation=config.split,
        measure=MEASURES.get(config.measure),
        metric=() if config.measure in MEASURES else config.measure,
        standardize=splits.train.shift is not None,
    )
    result = search(
        task,
        config.space,
        method=METHODS[config.method](config),
        key=jax.random.key(config.seed),
        seeds=config.seeds,
        rule=cast("RuleName", config.rule),
        folder=run.out,
        progress=True,
    )
    if not result.complete:
        raise KeyboardInterrupt  # the test set is read after the whole search
    scores = result.test(retrain=config.retrain)
    present(config, run, result, scores)
    found = report.results(result)
    seconds = found["seconds"] | {"total": time.perf_counter() - began}
    return found | {"seconds": seconds}


def present(config: SearchConfig, run: harness.Run, result: Result, scores: FinalScores) -> None:
    """The tables, the trials, the curves and the figures; writes the chosen models."""
    run.show(result.print)
    low, high = scores.accuracy_interval
    run.table(
        f"{config.dataset}: the choice on the {scores.examples:,} test examples, read "
        f"{times(result.test_reads)}, {models(len(scores.losses), scores.retrained)}",
        (
            "correct (%)",
            "95 % interval",
            "cross-entropy (nats)",
            *(scores.metrics or {}),
            "after epochs",
            "learning rate",
            "L2",
            "batch size",
            "hidden layers",
        ),
        [
            (
                f"{100 * scores.accuracy:.2f}",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{scores.loss:.4f}",
                *(cell(value) for value in (scores.metrics or {}).values()),
                f"{result.best.epochs:g}",
                *(
                    cell(readable(result.best.config[name]))
                    for name in ("learning_rate", "l2", "batch_size", "hidden")
                ),
            )
        ],
    )
    for note in result.notes:
        run.say(note)
    run.rows("trials.csv", result.table)
    run.history(report.history(result))
    if config.figures:
        run.figures(partial(draw, result))
    result.save_model(run.out / "model", retrain=config.retrain)


def draw(result: Result) -> "dict[str, Figure]":
    """All figures of the search."""
    return {f"{name}.png": figure for name, figure in result.figures().items()}


def times(count: int) -> str:
    """A number of test readings in words."""
    return "once" if count == 1 else f"{count} times"


def models(count: int, retrained: bool) -> str:
    """The tested models in words."""
    tested = "1 model" if count == 1 else f"mean of {count} models"
    return f"{tested}, trained again on all training examples" if retrained else tested


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("softmax_search", SearchConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
