"""The last step: the chosen configuration, trained again if wished, on the examples held out."""

from collections.abc import Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.minibatch import as_float
from jaxnn.population import place_whole
from jaxnn.search.curves import Curve
from jaxnn.search.selection import confidence_intervals
from jaxnn.search.space import Config, static_part
from jaxnn.search.task import Task, hyper
from jaxnn.search.training.programs import Work
from jaxnn.search.training.segments import Trainer, replicates, seed_words
from jaxnn.search.validation import Arranged
from jaxnn.spec import Spec
from jaxnn.train import NEVER, loss_and_error, map_blocks
from jaxnn.types import Array, Data, Key, PyTree


class FinalScores(NamedTuple):
    """How the chosen models did on the test examples: means over replicates."""

    accuracy: float
    loss: float
    accuracy_interval: tuple[float, float]  # 95 %, over test examples
    loss_interval: tuple[float, float]
    accuracies: list[float]  # per model
    losses: list[float]
    retrained: bool  # on training and validation examples together
    examples: int


class Stage(NamedTuple):
    """A stretch of a trial's training: population-based training changes hyperparameters."""

    config: Config
    until: int  # the evaluation it ended at


def lineage(curves: dict[int, Curve], number: int, evaluation: int) -> list[Stage]:
    """How a trial came to be what it was at an evaluation, from the first iteration on."""
    stages = [Stage(curves[number].trial.config, evaluation)]
    while (parent := curves[number].copied_from) is not None:
        stages.insert(0, Stage(curves[parent].trial.config, curves[number].start))
        number = parent
    return stages


def retrain(task: Task, stages: Sequence[Stage], key: Key, seeds: int, mesh: Any) -> PyTree:
    """The stages again, on training and validation examples together.

    Returns:
      Parameters, leaves [S, ...].

    Raises:
      ValueError: it diverges on these examples.
    """
    arranged = Arranged(task.all_examples(), 0, 1)
    on_device = place_whole(mesh, arranged.data)
    repeated = replicates(seed_words(key, seeds), 1, jax.random.key_impl(key))
    trainer = Trainer(arranged, on_device, repeated, mesh)
    spec = task.spec(static_part(stages[0].config), arranged.trained_on)
    ends = [task.iteration(stage.until, spec.batch_size, arranged.trained_on) for stage in stages]
    program = trainer.program(spec, [Work(1, ends[-1])], had=())
    members = trainer.empty(spec, 1)
    for stage, start, stop in zip(stages, [0, *ends], ends, strict=False):
        trainer.advance(program, hyper([stage.config]), members, start, stop, lambda _: None)
    members = trainer.gather(program, members)
    if (members.diverged_at != NEVER).any():
        raise ValueError(
            f"the chosen configuration {stages[-1].config} diverged when it was trained again on "
            f"training and validation examples, at iteration {members.diverged_at.max()}; expected "
            "finite losses: test(retrain=False) uses the models that were validated"
        )
    return jax.tree.map(lambda leaf: leaf[:, 0], members.params)


def score(spec: Spec, params: PyTree, data: Data, retrained: bool) -> FinalScores:
    """How models, leaves [R, ...], do on examples."""
    count = len(jax.tree.leaves(params)[0])
    each = [
        map_blocks(
            partial(_block_scores, spec, jax.tree.map(itemgetter(r), params), data.scale),
            data.inputs,
            data.targets,
        )
        for r in range(count)
    ]
    losses, errors = (np.array(column, np.float64) for column in zip(*each, strict=True))  # [R, N]
    means = np.stack([1 - errors.mean(axis=0), losses.mean(axis=0)])
    low, high = confidence_intervals(means, resamples=1000)
    return FinalScores(
        accuracy=float(means[0].mean()),
        loss=float(means[1].mean()),
        accuracy_interval=(float(low[0]), float(high[0])),
        loss_interval=(float(low[1]), float(high[1])),
        accuracies=(1 - errors.mean(axis=1)).tolist(),
        losses=losses.mean(axis=1).tolist(),
        retrained=retrained,
        examples=len(data.targets),
    )


@partial(jax.jit, static_argnames="spec")
def _block_scores(
    spec: Spec, params: PyTree, scale: Array, inputs: Array, targets: Array
) -> tuple[Array, Array]:
    """Loss and error of every example of a block, [B] each."""
    inputs = as_float(inputs, Data(inputs, targets, scale))
    return jax.vmap(partial(loss_and_error, spec, params))(inputs, targets)
