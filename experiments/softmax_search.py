"""S2.4: softmax regression by stochastic gradient descent, its hyperparameters chosen honestly.

Learning rate, minibatch size, number of epochs and the strength of L2 (on the weights, never on the
biases) are searched on a validation split; then the test set is read, once. The same command again
goes on where it was interrupted. ``--architecture`` searches the three networks of S1.4 instead.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from experiments import harness
from experiments.config import DistributedConfig, Whole
from jaxnn.optimizers import OPTIMIZERS, SCHEDULES
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
    search,
    sobol,
    successive_halving,
)
from jaxnn.search.reporting import report
from jaxnn.search.selection import RULES
from jaxnn.search.space import readable
from jaxnn.search.validation import Validation

HIDDEN = {"a": (), "b": (50, 50), "c": (90, 50)}
MEASURES = {"cross_entropy": "loss", "accuracy": "error"}
METHODS: dict[str, Callable[["SearchConfig"], Method]] = {
    "grid": lambda config: grid(config.points),
    "random": lambda config: random(config.configurations),
    "sobol": lambda config: sobol(config.configurations),
    "successive_halving": lambda config: successive_halving(config.configurations, eta=config.eta),
    "hyperband": lambda config: hyperband(eta=config.eta),
    "population_based": lambda config: population_based(config.configurations),
    "optuna": lambda config: optuna(config.configurations, batch=config.batch),
}


@dataclass(frozen=True, kw_only=True)
class SearchConfig(DistributedConfig):
    """Search the hyperparameters of softmax regression (S2.4), then test the choice once.

    The same command again goes on where it stopped.
    """

    seeds: Whole = 3
    """Replicates of every configuration; the mean over them chooses."""

    architecture: str = "a"
    """a (softmax regression), b (50 and 50 hidden ReLU), c (90 and 50), or all, to search them
    too."""

    method: str = "sobol"
    """grid, random, sobol, successive_halving, hyperband, population_based or optuna (TPE)."""

    configurations: Whole = 64
    """How many are tried (not for grid and hyperband)."""

    epochs: Whole | None = None
    """The most that one is trained; each epoch is a candidate to stop at. Default: 12, for digits
    50."""

    learning_rate: tuple[float, float] = (0.01, 1.0)
    """Smallest and largest."""

    l2: tuple[float, float] = (1e-6, 1e-2)
    """Smallest and largest strength of l2/2 * sum of squared weights; biases are free."""

    batch_size: tuple[Whole, ...] = (50, 100, 200)
    """Minibatch sizes to choose from; each is a program."""

    optimizer: str = "momentum"
    """sgd, momentum, nesterov or adam."""

    schedule: str = "cosine"
    """Of the learning rate: constant, cosine or step."""

    measure: str = "cross_entropy"
    """What is best on the validation examples: cross_entropy or accuracy."""

    rule: str = "mean"
    """How to choose: mean, or one_standard_error (the simplest one that is as good)."""

    validation: float = 1 / 6
    """Which part of the training examples validates."""

    folds: Whole = 1
    """More than 1: cross-validation with so many folds instead."""

    stratified: bool = False
    """Keep the proportions of the classes in the split."""

    retrain: bool = True
    """Train the choice again, on training and validation examples together, before the test."""

    points: Whole = 4
    """Of grid: values of each interval."""

    eta: Whole = 3
    """Of successive_halving and hyperband: one in how many goes on."""

    batch: Whole = 16
    """Of optuna: configurations asked for at a time."""

    seed: Whole = 0
    """Decides splits, configurations, initial weights and orders."""

    figures: bool = True
    """Draw them."""

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        super().validate()
        self.at_least(1, "configurations", "epochs", "folds", "batch")
        self.at_least(2, "points", "eta")
        self.at_least(0, "seed")
        self.one_of((*HIDDEN, "all"), "architecture")
        self.one_of(tuple(METHODS), "method")
        self.one_of(sorted(OPTIMIZERS), "optimizer")
        self.one_of(sorted(SCHEDULES), "schedule")
        self.one_of(tuple(MEASURES), "measure")
        self.one_of(RULES, "rule")
        for name in ("learning_rate", "l2"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise self.refusal(name, "two positive numbers, the smaller one first")
        if not self.batch_size or min(self.batch_size) < 1:
            raise self.refusal("batch_size", "positive whole numbers")
        if not 0 < self.validation < 1:
            raise self.refusal("validation", "a number above 0 and below 1")

    @property
    def most_epochs(self) -> int:
        """The number of epochs, flag or default."""
        return self.epochs or (50 if self.dataset == "digits" else 12)

    @property
    def split(self) -> Validation:
        """Which examples choose."""
        if self.folds > 1:
            return folds(self.folds, stratified=self.stratified)
        return holdout(self.validation, stratified=self.stratified)

    @property
    def space(self) -> dict[str, Domain]:
        """What is searched."""
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
    """The numbers between the ends, or the one number that both are."""
    low, high = ends
    return fixed(low) if low == high else log_uniform(low, high)


def experiment(config: SearchConfig, run: harness.Run) -> Mapping[str, Any]:
    """Searches, tests the choice, and shows both."""
    began = time.perf_counter()
    splits = run.load()
    task = Task(
        splits.train,
        splits.test,
        epochs=config.most_epochs,
        validation=config.split,
        measure=MEASURES[config.measure],
    )
    result = search(
        task,
        config.space,
        method=METHODS[config.method](config),
        key=jax.random.key(config.seed),
        seeds=config.seeds,
        rule=config.rule,
        folder=run.out,
        progress=True,
    )
    scores = result.test(retrain=config.retrain)
    present(config, run, result, scores)
    found = report.results(result)
    seconds = found["seconds"] | {"total": time.perf_counter() - began}
    return found | {"seconds": seconds}


def present(config: SearchConfig, run: harness.Run, result: Result, scores: FinalScores) -> None:
    """Prints the tables, writes the trials, their curves, the figures and the chosen models."""
    result.print()
    low, high = scores.accuracy_interval
    run.table(
        f"{config.dataset}: the choice on the {scores.examples:,} test examples, read "
        f"{times(result.test_reads)}, {models(len(scores.losses), scores.retrained)}",
        (
            "correct (%)",
            "95 % interval",
            "cross-entropy (nats)",
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
                f"{result.best.epochs:g}",
                *(
                    report.cell(readable(result.best.config[name]))
                    for name in ("learning_rate", "l2", "batch_size", "hidden")
                ),
            )
        ],
    )
    for note in result.notes:
        print(note)
    run.rows("trials.csv", result.table)
    run.history(report.history(result))
    if config.figures:
        from jaxnn.search.reporting.figures import figures

        for name, figure in figures(result).items():
            run.figure(name, figure)
    result.save_model(run.out / "model", retrain=config.retrain)


def times(count: int) -> str:
    """A count of readings in words."""
    return "once" if count == 1 else f"{count} times"


def models(count: int, retrained: bool) -> str:
    """What was tested, in words."""
    what = "1 model" if count == 1 else f"mean of {count} models"
    return f"{what}, trained again on all training examples" if retrained else what


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("softmax_search", SearchConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
