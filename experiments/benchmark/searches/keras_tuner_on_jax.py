"""Keras Tuner's Hyperband, with Keras on JAX.

Hyperband finds good models sooner than Keras Tuner's RandomSearch: after 25 s a model as good as
RandomSearch's after 242 s (softmax regression on MNIST, 64 configurations, 12 epochs).
"""
# pyright: reportMissingImports=false

import math
import tempfile
from typing import Any

import keras
import keras_tuner

from experiments.benchmark.searches.job import Job, tell

FACTOR = 3  # Hyperband's default


class Tell(keras.callbacks.Callback):
    """Prints every accuracy at once."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """See ``keras.callbacks.Callback``."""
        assert logs
        tell(logs["val_accuracy"])


def main() -> None:
    """Searches."""
    job = Job.given()
    keras.utils.set_random_seed(job.seed)
    train, validation = job.examples
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            lambda values: network(job, values),
            objective="val_accuracy",
            max_epochs=job.epochs,
            factor=FACTOR,
            hyperband_iterations=max(1, round(job.configurations / configurations(job.epochs))),
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


def configurations(epochs: int) -> int:
    """How many configurations an iteration of Hyperband tries, in all of its brackets."""
    ends = 1 + math.log(epochs, FACTOR)
    return sum(math.ceil(math.ceil(ends) / (s + 1) * FACTOR**s) for s in range(int(ends)))


def network(job: Job, values: Any) -> keras.Model:
    """The network of a configuration, compiled; Keras's L2 has no factor 1/2."""
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
        steps_per_execution=50,  # an epoch takes a third less time than with 1
    )
    return model


if __name__ == "__main__":
    main()
