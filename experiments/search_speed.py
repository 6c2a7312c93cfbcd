"""The speed of hyperparameter searches: a whole command, successive halving, share of the peak.

Three repeated measurements: ``experiments.softmax_search`` with 64 configurations of softmax
regression as a command in a new process, warm; 64 configurations of the network of S1.4 (c) by
successive halving and to the full budget, in one process; and the rate of the matrix products while
searching by plain SGD (S2.4) and with momentum, validation included, beside a 2048 x 2048 product
before and after the search.
"""

import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import harness
from experiments.config import DataConfig, Whole
from experiments.machine import flops_per_step, peak_gflops
from experiments.processes import seconds_of
from experiments.report import mean_and_std, summary
from jaxnn import Splits
from jaxnn.search import (
    Domain,
    Method,
    Result,
    Task,
    fixed,
    log_uniform,
    random,
    search,
    successive_halving,
)

SOFTMAX, NETWORK = (), (90, 50)
BATCH_SIZE = 100


@dataclass(frozen=True, kw_only=True)
class SpeedConfig(DataConfig):
    """Measure hyperparameter searches: wall time, time saved by halving, share of the peak."""

    seeds: Whole = 3
    """Number of repetitions with different seeds; medians are reported."""

    configurations: Whole = 64
    """Number of configurations of a search."""

    epochs: Whole = 12
    """Largest number of epochs of a configuration."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "configurations", "epochs")


class Measure(NamedTuple):
    """A row of the table."""

    description: str
    unit: str
    required: str = ""  # for data of MNIST's size on 2 cores


MEASURES = {
    "command": Measure("softmax search, whole command", "s", "under 12"),
    "halving_share": Measure("90-50-10, halving's time / full budget's", "%", "at most 35"),
    "halving_gap": Measure(
        "full budget's best accuracy minus halving's", "std. errors", "at most 1"
    ),
    "softmax_share_of_peak": Measure("softmax search, share of peak", "%", "at least 80"),
    "network_share_of_peak": Measure("90-50-10 search, share of peak", "%", "at least 80"),
    "momentum_share_of_peak": Measure("90-50-10 search with momentum, share of peak", "%"),
}


def experiment(config: SpeedConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures everything in turn, once per repetition."""
    splits = run.load()
    rows = []
    with run.progress("measuring") as report:
        for repetition in range(config.seeds):
            rows.append(measure(config, splits, repetition))
            report(repetition + 1, config.seeds)
    summaries = {name: summary(row[name] for row in rows) for name in MEASURES}
    medians = {name: float(np.median(each["values"])) for name, each in summaries.items()}
    run.table(
        f"{config.dataset}, {len(jax.devices())} x {jax.devices()[0].device_kind}, "
        f"{config.configurations} configurations, {config.epochs} epochs",
        ("measure", "unit", f"median of {config.seeds}", "mean ± standard deviation", "required"),
        [
            (
                m.description,
                m.unit,
                f"{medians[name]:.3g}",
                mean_and_std(summaries[name], 2),
                m.required,
            )
            for name, m in MEASURES.items()
        ],
    )
    run.history([{"seed": seed, **row} for seed, row in enumerate(rows)])
    return {"medians": medians, "measures": summaries}


def measure(config: SpeedConfig, splits: Splits, seed: int) -> dict[str, float]:
    """The measures of a repetition."""
    command = command_seconds(config, seed)
    everything, halving = random(config.configurations), successive_halving(config.configurations)
    shares = {
        name: timed(config, splits, hidden, "sgd", everything, seed)[2]
        for name, hidden in (("softmax", SOFTMAX), ("network", NETWORK))
    }
    full, full_seconds, momentum = timed(config, splits, NETWORK, "momentum", everything, seed)
    halved, halving_seconds, _ = timed(config, splits, NETWORK, "momentum", halving, seed)
    accuracy = full.best.validation_accuracy
    examples = full.task.validation_split.fraction * len(splits.train.targets)
    standard_error = math.sqrt(accuracy * (1 - accuracy) / examples)
    return {
        "command": command,
        "halving_share": 100 * halving_seconds / full_seconds,
        "halving_gap": (accuracy - halved.best.validation_accuracy) / standard_error,
        "softmax_share_of_peak": 100 * shares["softmax"],
        "network_share_of_peak": 100 * shares["network"],
        "momentum_share_of_peak": 100 * momentum,
    }


def command_seconds(config: SpeedConfig, seed: int) -> float:
    """``experiments.softmax_search`` in a new process, from an empty folder.

    Raises:
      ProcessError: the command failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments.softmax_search", "--out", folder]
        command += ["--dataset", config.dataset, "--seeds", "1", "--seed", str(seed)]
        command += ["--configurations", str(config.configurations), "--epochs", str(config.epochs)]
        command += ["--batch-size", str(BATCH_SIZE)]
        if config.data_dir is not None:
            command += ["--data-dir", str(config.data_dir)]
        return seconds_of(command)


def timed(
    config: SpeedConfig,
    splits: Splits,
    hidden: tuple[int, ...],
    optimizer: str,
    method: Method,
    seed: int,
) -> tuple[Result, float, float]:
    """A search, the wall time, and the matrix products' share of the peak during training."""
    space: dict[str, Domain] = {
        "learning_rate": log_uniform(0.01, 1.0),
        "l2": log_uniform(1e-6, 1e-2),
        "batch_size": fixed(BATCH_SIZE),
        "hidden": fixed(hidden),
        "optimizer": fixed(optimizer),
        "schedule": fixed("cosine"),
    }
    task = Task(splits.train, epochs=config.epochs)
    before = peak_gflops()
    began = time.perf_counter()
    result = search(task, space, method=method, key=jax.random.key(seed))
    seconds = time.perf_counter() - began
    peak = (before + peak_gflops()) / 2
    return result, seconds, flops(result) / result.train_seconds / 1e9 / peak


def flops(result: Result) -> int:
    """Floating-point operations of the matrix products of all training and validation."""
    task = result.task
    validated = round(task.validation_split.fraction * len(task.train.targets))
    examples = len(task.train.targets) - validated
    total = 0
    for curve in result.curves.values():
        sizes = (task.inputs, *curve.trial.config["hidden"], task.outputs)
        steps = task.iteration(curve.evaluations[-1], BATCH_SIZE, examples)
        once = 2 * validated * sum(i * o for i, o in pairwise(sizes))
        total += steps * flops_per_step(sizes) + len(curve.loss) * once
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("search_speed", SpeedConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
