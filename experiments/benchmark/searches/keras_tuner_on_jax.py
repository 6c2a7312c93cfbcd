"""Keras Tuner, with Keras on JAX: RandomSearch and Hyperband."""
# pyright: reportMissingImports=false

import math
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import keras_tuner

from experiments.benchmark.searches.common import Job, examples, tell

FACTOR = 3  # of Hyperband: its default


def random(job: Job, *arguments: Any, **options: Any) -> keras_tuner.Tuner:
    """Trains every configuration to the end."""
    return keras_tuner.RandomSearch(*arguments, max_trials=job.configurations, **options)


def hyperband(job: Job, *arguments: Any, **options: Any) -> keras_tuner.Tuner:
    """Repeats its brackets until it has tried about as many configurations."""
    last = 1 + math.log(job.epochs, FACTOR)  # configurations that a bracket trains to the end
    brackets = range(int(last))
    tried = sum(math.ceil(math.ceil(last) / (s + 1) * FACTOR**s) for s in brackets)
    return keras_tuner.Hyperband(
        *arguments,
        max_epochs=job.epochs,
        factor=FACTOR,
        hyperband_iterations=max(1, round(job.configurations / tried)),
        **options,
    )


METHODS: dict[str, Callable] = {"random": random, "hyperband": hyperband}


class Tell(keras.callbacks.Callback):
    """Tells every accuracy as soon as it is known."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See ``keras.callbacks.Callback``."""
        assert logs
        tell(logs["val_accuracy"])


def main() -> None:
    """Searches."""
    job = Job.given()
    keras.utils.set_random_seed(job.seed)
    train, validation = examples(job)
    with tempfile.TemporaryDirectory() as folder:
        tuner = METHODS[job.method](
            job,
            lambda values: network(job, values),
            objective="val_accuracy",
            seed=job.seed,
            directory=folder,
        )
        tuner.search(
            train.inputs,
            train.targets,
            batch_size=job.batch_size,
            epochs=job.epochs,
            validation_data=(validation.inputs, validation.targets),
            callbacks=[Tell()],
            verbose=0,
        )


def network(job: Job, values: Any) -> keras.Model:
    """The network of a configuration, compiled."""
    penalty = keras.regularizers.L2(values.Float("l2", *job.l2, sampling="log") / 2)
    *hidden, outputs = job.sizes[1:]
    model = keras.Sequential([keras.Input((job.sizes[0],))])
    for units in hidden:
        model.add(keras.layers.Dense(units, activation="relu", kernel_regularizer=penalty))
    model.add(keras.layers.Dense(outputs, kernel_regularizer=penalty))
    rate = values.Float("learning_rate", *job.learning_rate, sampling="log")
    model.compile(
        optimizer=keras.optimizers.SGD(rate, momentum=job.momentum),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


if __name__ == "__main__":
    main()
