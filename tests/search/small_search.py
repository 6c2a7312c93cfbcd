"""A search that takes a moment, and what plain training makes of its trials."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnn import Data, Hyper, Spec, init_state, train, train_step
from jaxnn.minibatch import minibatch_indices, shuffle_key, take
from jaxnn.search import Task, choice, fixed, given
from jaxnn.search.result import Stage
from jaxnn.types import PyTree

KEY = jax.random.key(7)
REPLICATE_KEY = jax.random.split(KEY)[1]
SPACE = {
    "learning_rate": choice(0.03, 0.1, 0.3),
    "l2": choice(1e-3, 1e-1),
    "batch_size": fixed(20),
    "hidden": fixed((6,)),
}


def examples(count: int, seed: int = 0) -> Data:
    """Images of 12 8-bit pixels in 3 classes that overlap."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count).astype(np.int32)
    centres = np.random.default_rng(99).integers(90, 170, (3, 12))
    inputs = np.clip(centres[targets] + rng.normal(0, 50, (count, 12)), 0, 255).astype(np.uint8)
    return Data(inputs, targets, np.float32(1 / 255))


TRAIN, VALIDATION, TEST = examples(110), examples(60, 1), examples(90, 2)
TASK = Task(TRAIN, TEST, epochs=4, validation=given(VALIDATION))


def alone(
    config: dict[str, Any],
    seed: int,
    data: Data = TRAIN,
    task: Task = TASK,
    validation: Data = VALIDATION,
) -> tuple[np.ndarray, np.ndarray]:
    """The trial as plain training makes it: validation losses and errors, per evaluation."""
    n = len(data.targets)
    spec = task.spec({k: v for k, v in config.items() if k not in ("learning_rate", "l2")}, n)
    ends = [task.iteration(e, spec.batch_size, n) for e in range(1, task.evaluations + 1)]
    spec = replace(spec, evaluate_at=tuple(ends))
    hyper = Hyper(config["learning_rate"], config["l2"])
    key = jax.random.fold_in(REPLICATE_KEY, seed)
    _, history = train(spec, hyper, key, data, {"validation": validation})
    loss, error = map(np.asarray, history.metrics["validation"])
    return loss, error


def in_stages(spec: Spec, stages: Sequence[Stage], ends: Sequence[int], data: Data) -> PyTree:
    """The parameters of a trial of seed 0 whose hyperparameters change at these iterations."""
    init_key, order_key = jax.random.split(jax.random.fold_in(REPLICATE_KEY, 0))
    shuffle = shuffle_key(order_key)
    hypers = [Hyper(stage.config["learning_rate"], stage.config["l2"]) for stage in stages]
    state = init_state(spec, hypers[0], init_key)
    for hyper, end in zip(hypers, ends, strict=True):
        while int(state.iteration) < end:
            n = len(data.targets)
            indices = minibatch_indices(shuffle, state.iteration, spec.batch_size, n)
            state, _ = train_step(spec, hyper, state, take(data, indices))
    return state.params
