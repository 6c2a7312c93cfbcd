"""A small convolutional network of Flax, or your own module: searched, then tested once.

Two convolutions of 3 x 3 with 8 and 16 channels, each with max-pooling, and a dense layer. The
module goes into the search as the module is written; learning rate and L2 are searched on
validation examples, and the choice is trained again on all training examples before the test.
``--module FILE:NAME`` trains a module of Flax or Equinox from a Python file instead.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import flax.linen as nn

from experiments import harness
from experiments.config import DataConfig, Whole
from experiments.softmax_search import draw, interval, models, times
from jaxnn.search import Task, fixed, holdout, report, search, sobol
from jaxnn.types import Array, Data


class ConvNet(nn.Module):
    """Images [B, H, W, channels] to logits [B, classes]."""

    classes: int
    channels: tuple[int, ...] = (8, 16)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Convolution, ReLU and pooling for every number of channels, then a dense layer."""
        for channels in self.channels:
            x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), strides=(2, 2))
        return nn.Dense(self.classes)(x.reshape(len(x), -1))


@dataclass(frozen=True, kw_only=True)
class ConvolutionConfig(DataConfig):
    """Search learning rate and L2 of a small convolutional network, then test the choice once.

    After an interruption the same command continues the search.
    """

    seeds: Whole = 1
    """Seeds of every configuration; the mean over the seeds chooses."""

    channels: tuple[Whole, ...] = (8, 16)
    """Channels of the convolutions; every convolution halves height and width."""

    module: str | None = None
    """FILE:NAME, your own network: NAME in a Python file, a function or class that makes a module
    of Flax linen, Flax nnx or Equinox from the number of classes."""

    configurations: Whole = 8
    """Number of configurations."""

    epochs: Whole | None = None
    """Largest number of epochs; default: 4, for digits 20."""

    learning_rate: tuple[float, float] = (1e-3, 1e-2)
    """Smallest and largest learning rate, of Adam with a cosine schedule."""

    l2: tuple[float, float] = (1e-6, 1e-4)
    """Smallest and largest strength of l2/2 * sum of squared weights; biases are free."""

    batch_size: Whole = 100
    """Examples of a minibatch."""

    seed: Whole = 0
    """Random seed of splits, configurations, initial weights and minibatches."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "configurations", "epochs", "batch_size")
        self.at_least(0, "seed")
        if not self.channels or min(self.channels) < 1:
            raise self.refusal("channels", "positive whole numbers")
        for name in ("learning_rate", "l2"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise self.refusal(name, "two positive numbers, the smaller one first")


def experiment(config: ConvolutionConfig, run: harness.Run) -> Mapping[str, Any]:
    """Searches, tests the choice, and shows search and test."""
    began = time.perf_counter()
    splits = run.load(flatten=False)
    task = Task(
        *splits,
        epochs=config.epochs or (20 if config.dataset == "digits" else 4),
        validation=holdout(1 / 6),
        model=network(config, splits.train),
    )
    space = {
        "learning_rate": interval(config.learning_rate),
        "l2": interval(config.l2),
        "batch_size": fixed(config.batch_size),
        "optimizer": fixed("adam"),
        "schedule": fixed("cosine"),
    }
    result = search(
        task,
        space,
        method=sobol(config.configurations),
        key=config.seed,
        seeds=config.seeds,
        folder=run.out,
        progress=True,
    )
    if not result.complete:
        raise KeyboardInterrupt  # the test set is read after the whole search
    searched = time.perf_counter() - began
    scores = result.test(retrain=True)
    low, high = scores.accuracy_interval
    run.show(result.print)
    run.table(
        f"{config.dataset}: the choice on the {scores.examples:,} test examples, read "
        f"{times(result.test_reads)}, {models(len(scores.losses), scores.retrained)}",
        ("correct (%)", "95 % interval", "cross-entropy (nats)", "after epochs", "search (s)"),
        [
            (
                f"{100 * scores.accuracy:.2f}",
                f"{100 * low:.2f} to {100 * high:.2f}",
                f"{scores.loss:.4f}",
                f"{result.best.epochs:g}",
                f"{searched:.0f}",
            )
        ],
    )
    run.rows("trials.csv", result.table)
    run.history(report.history(result))
    run.figures(partial(draw, result))
    result.save_model(run.out / "model", retrain=True)
    found = report.results(result)
    total = time.perf_counter() - began
    return found | {"seconds": found["seconds"] | {"search": searched, "total": total}}


def network(config: ConvolutionConfig, train: Data) -> Any:
    """The module for a data set: of --module, or a convolutional network."""
    classes = int(train.targets.max()) + 1
    if config.module is not None:
        file, _, name = config.module.rpartition(":")
        try:
            make: Any = getattr(own_code(Path(file)), name)
        except (OSError, ImportError, AttributeError, SyntaxError) as error:
            raise config.refusal("module", f"FILE.py:NAME ({error})") from error
        return make(classes)
    images, least = train.inputs, 2 ** len(config.channels)
    if images.ndim < 4 or min(images.shape[1:3]) < least:
        shape = " x ".join(map(str, images.shape[1:]))
        raise config.refusal("dataset", f"images of at least {least} x {least}, found {shape}")
    return ConvNet(classes, config.channels)


def own_code(path: Path) -> ModuleType:
    """The module of a Python file, imported from the path."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("convolution", ConvolutionConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
