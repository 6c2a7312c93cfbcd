"""Common parts of the experiments on networks: flags, and the training of a setting."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import DataConfig, Whole
from experiments.report import summary
from jaxnn import MLP, NEVER, Hyper, Metrics, Spec, Splits, parameter_count, train_population
from jaxnn.optimizers import reads
from jaxnn.reporting import no_better
from jaxnn.types import OptimizerName, ScheduleName

MEASURES = ("test_error", "train_error", "test_cross_entropy", "train_cross_entropy")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(DataConfig):
    """The flags of minibatch SGD."""

    iterations: Whole | None = None
    """Minibatch updates; default: 5000, for digits 500."""

    batch_size: Whole = 100
    """Examples per minibatch."""

    learning_rate: float | None = None
    """Learning rate of the first iteration; default: chosen on MNIST's validation data, for each
    setting."""

    l2: float = 1e-4
    """Strength of the penalty l2/2 * sum of squared weights; biases are free."""

    optimizer: str = "momentum"
    """sgd, momentum, nesterov, or an optimizer of optax: adam, adamw, rmsprop, lion, ..."""

    momentum: float | None = None
    """Momentum of an optimizer with momentum; default: 0.9, or the default of optax."""

    clip: float | None = None
    """Largest global norm of a gradient, longer gradients are clipped; default: no clipping."""

    schedule: str = "cosine"
    """Schedule of the learning rate: constant, cosine, step, or a schedule of optax:
    warmup_cosine, linear, ..."""

    validation: Whole = 0
    """Hold the last N training examples out, and report on the held-out examples in place of the
    test set: the defaults were chosen by such runs."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "iterations", "batch_size")
        self.at_least(0, "validation")
        self.positive("learning_rate", "clip")
        self.not_negative("l2")
        self.optax_names()
        has_momentum = "momentum" in (reads(self.optimizer) or ())
        self.only_with(has_momentum, "an optimizer with momentum", "momentum")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise self.refusal("momentum", "a number from 0 to below 1")

    @property
    def steps(self) -> int:
        """The number of iterations, flag or default."""
        return self.iterations or (500 if self.dataset == "digits" else 5000)

    def splits(self, loaded: Splits) -> Splits:
        """The examples for training and for the report."""
        if not self.validation:
            return loaded
        count = len(loaded.train.targets)
        if self.validation >= count:
            raise self.refusal("validation", f"less than the {count} training examples")
        cut = count - self.validation
        return Splits(loaded.train.rows(slice(cut)), loaded.train.rows(slice(cut, None)))


class Setting(NamedTuple):
    """A network, trained from every seed."""

    sizes: tuple[int, ...]
    learning_rate: float
    iteration: np.ndarray  # [E]
    measures: dict[str, np.ndarray]  # by name in MEASURES, [S, E]
    diverged_at: np.ndarray  # [S], NEVER without divergence
    compile_seconds: float
    train_seconds: float

    def seconds(self) -> dict[str, float]:
        """The wall time of compiling and of training."""
        return {"compile": self.compile_seconds, "train": self.train_seconds}


def train_setting(
    config: TrainingConfig,
    sizes: tuple[int, ...],
    learning_rate: float,
    splits: Splits,
    progress: Callable[[int, int], None],
) -> Setting:
    """Trains a network from every seed, a seed per device at a time."""
    spec = Spec(
        model=MLP(sizes),
        steps=config.steps,
        batch_size=config.batch_size,
        optimizer=cast("OptimizerName", config.optimizer),
        schedule=cast("ScheduleName", config.schedule),
        evaluate_at=evaluation_points(config.steps),
    )
    rate = learning_rate if config.learning_rate is None else config.learning_rate
    population = train_population(
        spec,
        Hyper(rate, config.l2, config.momentum, clip=config.clip),
        seed_keys(config.seeds),
        splits.train,
        splits._asdict(),
        block_size=1,
        keep_params=False,
        progress=progress,
    )
    return Setting(
        sizes,
        rate,
        population.iteration,
        _measures(population.metrics),
        population.diverged_at[:, 0],
        population.compile_seconds,
        population.train_seconds,
    )


def seed_keys(seeds: int) -> jax.Array:
    """The keys of the seeds 0, 1, ...; the key of a seed does not depend on the number."""
    return jnp.stack([jax.random.key(seed) for seed in range(seeds)])


def evaluation_points(steps: int) -> tuple[int, ...]:
    """Every tenth of the iterations, and the first hundredths, where the curves are steep."""
    hundredth = max(1, steps // 100)
    early = range(0, min(6 * hundredth, steps), hundredth)
    return tuple(sorted({*early, *range(0, steps, 10 * hundredth), steps}))


def input_size(splits: Splits) -> int:
    """The number of inputs of a network for the data set."""
    return splits.train.inputs.shape[1]


def class_count(splits: Splits) -> int:
    """The number of outputs of a network for the data set."""
    return int(splits.train.targets.max()) + 1


def final_measures(setting: Setting) -> dict[str, Any]:
    """The entry of a setting in results.json: the measures at the last iteration."""
    return {
        "sizes": setting.sizes,
        "parameter_count": parameter_count(setting.sizes),
        "learning_rate": setting.learning_rate,
        **{measure: summary(setting.measures[measure][:, -1]) for measure in MEASURES},
        "diverged_at": [None if at == NEVER else at for at in setting.diverged_at.tolist()],
    }


def history_rows(name: str, setting: Setting) -> list[dict[str, Any]]:
    """The rows of history.csv: a row per seed and evaluated iteration."""
    return [
        {"setting": name, "seed": seed, "iteration": int(iteration)}
        | {measure: float(values[seed, i]) for measure, values in setting.measures.items()}
        for seed in range(len(setting.diverged_at))
        for i, iteration in enumerate(setting.iteration)
    ]


def divergences(settings: Mapping[str, Setting]) -> list[str]:
    """A line for every diverged seed: the loss stopped being finite."""
    return [
        f"setting {name}, seed {seed}: the loss stopped being finite at iteration {iteration}"
        for name, setting in settings.items()
        for seed, iteration in enumerate(setting.diverged_at)
        if iteration != NEVER
    ]


def warnings(config: TrainingConfig, settings: Mapping[str, Setting], splits: Splits) -> list[str]:
    """The lines of ``divergences``, and a line on seeds no better than a constant answer."""
    accuracies = {}
    for name, setting in settings.items():
        errors = setting.measures["test_error"][:, -1]
        accuracies[f"setting {name}, seed {errors.argmax()}:"] = 1 - float(errors.max())
    examples = "validation" if config.validation else "test"
    return [*divergences(settings), *no_better(accuracies, splits.test.targets, examples)]


def _measures(metrics: Mapping[str, Metrics]) -> dict[str, np.ndarray]:
    """The metrics [S, 1, E] of the single configuration by measure, [S, E]."""
    return {
        name: getattr(metrics[split], "error" if field == "error" else "loss")[:, 0]
        for name in MEASURES
        for split, _, field in [name.partition("_")]
    }
