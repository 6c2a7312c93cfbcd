"""Hyperparameters of optax's optimizers in a search: traced, conditional, as in plain training."""

from dataclasses import replace
from typing import Any, cast

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_search import KEY, REPLICATE_KEY, TASK, TRAIN, VALIDATION

from jaxnn import train
from jaxnn.optimizers import hyper_class
from jaxnn.search import SpaceError, choice, conditional, fixed, grid, search

SPACE = {
    "learning_rate": fixed(0.01),
    "optimizer": choice("momentum", "adamw", "rmsprop"),
    "weight_decay": conditional(choice(1e-4, 0.5), optimizer="adamw"),
    "clip": choice(0.05, 10.0),
    "batch_size": fixed(20),
}


def test_every_optimizer_of_a_space_is_what_training_alone_makes_of_it():
    task = replace(TASK, epochs=2)
    found = search(task, SPACE, method=grid(), key=KEY)
    assert found.programs == 3  # one for each optimizer
    assert len(found.table) == 2 * (1 + 2 + 1)
    for curve in found.curves.values():
        config = dict(curve.trial.config)
        assert ("weight_decay" in config) == (config["optimizer"] == "adamw")
        static = {name: config.pop(name) for name in ("optimizer", "batch_size")}
        spec = replace(task.spec(static, len(TRAIN.targets)), evaluate_at=(5,))
        hyper = hyper_class(cast(Any, spec.optimizer))(**config)
        key = jax.random.fold_in(REPLICATE_KEY, 0)
        _, history = train(spec, hyper, key, TRAIN, {"validation": VALIDATION})
        loss = history.metrics["validation"].loss
        assert_allclose(curve.values("loss")[:, 0], loss, rtol=1e-5)
    losses = {row["validation_loss"] for row in found.table}
    assert len(losses) == len(found.table)  # clip and weight decay change every training
    assert np.isfinite(list(losses)).all()


@pytest.mark.parametrize("name", ["weight_decay", "momentum"])
def test_a_name_that_no_optimizer_of_the_space_reads_is_refused(name):
    space = {"learning_rate": fixed(0.01), "optimizer": fixed("adagrad"), name: choice(0.1, 0.2)}
    with pytest.raises(SpaceError, match=f"{name} means nothing to the optimizer 'adagrad'"):
        search(TASK, space, method=grid(), key=KEY)
