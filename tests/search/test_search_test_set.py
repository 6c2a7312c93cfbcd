"""The test set is read when it is asked for, counted, and may judge models trained once more."""

from dataclasses import replace
from importlib import import_module

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from small_search import KEY, REPLICATE_KEY, SPACE, TASK, TEST, TRAIN, VALIDATION, in_stages

from jaxnn import MLP, Data, Hyper, Network, evaluate, train
from jaxnn.search import fixed, given, grid, log_uniform, population_based, random, search

ALL = Data(
    np.concatenate([VALIDATION.inputs, TRAIN.inputs]),
    np.concatenate([VALIDATION.targets, TRAIN.targets]),
    TRAIN.scale,
)


@pytest.fixture(scope="module")
def result():
    """Six configurations from two seeds."""
    return search(TASK, SPACE, method=grid(), key=KEY, seeds=2)


def test_the_test_set_is_out_of_reach_until_it_is_asked_for():
    reads = []

    def load():
        reads.append(1)
        return TEST

    found = search(replace(TASK, test=load), SPACE, method=grid(), key=KEY, seeds=2)
    assert (reads, found.test_reads) == ([], 0)
    scores = found.test()
    assert (reads, found.test_reads) == ([1], 1)
    assert found.test() == scores
    assert (reads, found.test_reads) == ([1], 1)
    again = found.test(retrain=True)
    assert (reads, found.test_reads) == ([1, 1], 2)
    assert again != scores


def test_what_trains_has_no_way_to_the_test_set(monkeypatch):
    module = import_module("jaxnn.search.search")
    tasks = []

    class Watched(module.Loop):
        def __init__(self, task, *args, **options):
            tasks.append(task)
            super().__init__(task, *args, **options)

    monkeypatch.setattr(module, "Loop", Watched)
    search(TASK, SPACE, method=random(1), key=KEY)
    assert [task.test for task in tasks] == [None]


def test_a_reading_counts_from_its_beginning():
    def load():
        raise OSError("no such disk")

    found = search(replace(TASK, test=load), SPACE, method=random(1), key=KEY)
    with pytest.raises(OSError, match="no such disk"):
        found.test()
    assert found.test_reads == 1


def test_test_scores_are_those_of_the_chosen_models(result):
    scores = result.test()
    params = [jax.tree.map(lambda leaf, s=s: leaf[s], result.params) for s in range(2)]
    metrics = [evaluate(result.spec, each, TEST) for each in params]
    assert_allclose(scores.losses, [m.loss for m in metrics], rtol=1e-5)
    assert_allclose(scores.accuracies, [1 - m.error for m in metrics], rtol=1e-6)
    assert scores.accuracy == pytest.approx(np.mean(scores.accuracies))
    assert (scores.examples, scores.retrained) == (90, False)
    low, high = scores.accuracy_interval
    assert low < scores.accuracy < high
    # Close to the interval of a proportion, p +- 1.96 sqrt(p (1 - p) / N), models being alike.
    p = scores.accuracy
    assert high - low == pytest.approx(2 * 1.96 * (p * (1 - p) / 90) ** 0.5, rel=0.35)


def test_the_interval_of_the_loss_is_over_the_examples_of_the_mean_over_models(result):
    scores = result.test()
    assert scores.loss == pytest.approx(np.mean(scores.losses))
    losses = np.empty((2, 90))
    for seed in range(2):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], result.params)
        for i in range(90):
            one = Data(TEST.inputs[i : i + 1], TEST.targets[i : i + 1], TEST.scale)
            losses[seed, i] = evaluate(result.spec, params, one).loss
    expected = stats.norm.interval(0.95, scores.loss, stats.sem(losses.mean(axis=0)))
    assert_allclose(scores.loss_interval, expected, rtol=0.05)


def test_retrained_models_have_seen_the_validation_examples_too(result):
    scores = result.test(retrain=True)
    n = len(ALL.targets)
    assert n == 170
    until = int(result.best.epochs)
    losses = []
    for seed in range(2):
        static = {"batch_size": 20, "hidden": (6,)}
        steps = TASK.iteration(until, 20, n)
        spec = replace(TASK.spec(static, n), steps=steps, evaluate_at=())
        hyper = Hyper(result.best.config["learning_rate"], result.best.config["l2"])
        key = jax.random.fold_in(REPLICATE_KEY, seed)
        _, history = train(spec, hyper, key, ALL, {"test": TEST})
        losses.append(float(history.metrics["test"].loss[-1]))
    assert_allclose(scores.losses, losses, rtol=1e-4)
    assert result.retrained() is result.retrained()


@pytest.mark.slow
def test_hyperparameters_that_changed_in_training_change_again_when_it_is_repeated():
    task = replace(TASK, epochs=5, measure="loss")
    space = SPACE | {"learning_rate": log_uniform(1e-4, 1e-3)}
    found = search(task, space, method=population_based(8), key=KEY)
    stages = found.best.stages
    assert len({stage.config["learning_rate"] for stage in stages}) > 1
    ends = [stage.until * 170 // 20 for stage in stages]
    spec = task.spec({"batch_size": 20, "hidden": (6,)}, 170)
    params = in_stages(spec, stages, ends, ALL)
    assert_allclose(found.test(retrain=True).loss, evaluate(spec, params, TEST).loss, rtol=1e-4)


def test_a_task_without_test_examples_says_so(result):
    found = search(replace(TASK, test=None), SPACE, method=random(2), key=KEY)
    with pytest.raises(ValueError, match="the task has no test set"):
        found.test()


def test_a_choice_that_diverges_when_trained_again_says_so_and_reads_no_test_examples():
    """Black images teach nothing; white ones, of which only the loss was asked, teach too much."""
    scale = np.float32(1e18)
    black = Data(np.zeros_like(TRAIN.inputs), TRAIN.targets, scale)
    white = Data(np.full_like(VALIDATION.inputs, 255), VALIDATION.targets, scale)
    task = replace(TASK, train=black, validation=given(white))
    space = SPACE | {"hidden": fixed(()), "learning_rate": fixed(1e-3)}
    found = search(task, space, method=grid(), key=KEY)
    with pytest.raises(ValueError, match="diverged when it was trained again"):
        found.test(retrain=True)
    assert found.test_reads == 0


def test_one_seed_that_diverges_when_trained_again_is_enough_to_say_so():
    """As above, of a network that sees nothing from some seeds."""
    regression = MLP((12, 3))

    def init(key):
        return regression.init(key), jax.random.normal(key)

    def apply(params, x):
        layers, gate = params
        return regression.apply(layers, x * (gate > 0))

    scale = np.float32(1e18)
    black = Data(np.zeros_like(TRAIN.inputs), TRAIN.targets, scale)
    white = Data(np.full_like(VALIDATION.inputs, 255), VALIDATION.targets, scale)
    task = replace(TASK, train=black, validation=given(white), model=lambda: Network(init, apply))
    space = {"learning_rate": fixed(1e-3), "batch_size": fixed(20)}
    found = search(task, space, method=grid(), key=KEY, seeds=4)
    assert set(np.asarray(found.params[1]) > 0) == {False, True}
    with pytest.raises(ValueError, match="diverged when it was trained again"):
        found.test(retrain=True)
