"""What a task makes of its budget and of what a space leaves open."""

import pytest
from small_search import TASK

from jaxnn import MLP, Spec
from jaxnn.search import Task


@pytest.mark.parametrize(
    ("evaluation", "batch_size", "examples", "per_epoch", "iteration"),
    [
        (1, 100, 50_000, 1, 500),
        (12, 100, 50_000, 1, 6_000),
        (1, 100, 50_000, 4, 125),
        (3, 20, 110, 1, 16),  # 16.5 minibatches
        (3, 20, 110, 2, 8),  # 8.25
        (1, 100, 110, 5, 1),  # 0.22: every evaluation has trained
    ],
)
def test_an_evaluation_is_after_so_many_minibatches(
    evaluation, batch_size, examples, per_epoch, iteration
):
    task = Task(TASK.train, evaluations_per_epoch=per_epoch)
    assert task.iteration(evaluation, batch_size, examples) == iteration


def test_evaluations_are_those_of_all_epochs():
    assert Task(TASK.train, epochs=3, evaluations_per_epoch=4).evaluations == 12


def test_what_a_space_leaves_open_is_softmax_regression_by_momentum_in_hundreds():
    assert TASK.spec({}, 1000) == Spec(
        MLP((12, 3)), steps=40, batch_size=100, loss="cross_entropy", optimizer="momentum"
    )
