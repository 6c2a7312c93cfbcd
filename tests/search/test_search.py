"""A search is many trainings: each member is what training alone makes of it, the best is kept."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import jaxnn.blocks
from jaxnn import MLP, NEVER, Data, Hyper, Network, evaluate, init_state, train, train_step
from jaxnn.devices import population_mesh
from jaxnn.minibatch import minibatch_indices, shuffle_key, take
from jaxnn.search import (
    AllDivergedError,
    Round,
    SpaceError,
    Task,
    Trial,
    choice,
    fixed,
    folds,
    given,
    grid,
    holdout,
    log_uniform,
    population_based,
    random,
    search,
    successive_halving,
)
from jaxnn.search.final import lineage
from jaxnn.search.validation import arrange

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


def alone(config, seed, data=TRAIN, task=TASK, until=None, validation=VALIDATION):
    """The trial as plain training makes it: final state, and validation metrics per evaluation."""
    n = len(data.targets)
    static = {k: v for k, v in config.items() if k not in ("learning_rate", "l2")}
    spec = task.spec(static, n)
    points = tuple(
        task.iteration(e, spec.batch_size, n) for e in range(1, (until or task.evaluations) + 1)
    )
    spec = replace(spec, evaluate_at=points)
    hyper = Hyper(config["learning_rate"], config["l2"])
    key = jax.random.fold_in(REPLICATE_KEY, seed)
    state, history = train(spec, hyper, key, data, {"validation": validation})
    keep = np.isin(history.iteration, points)
    metrics = history.metrics["validation"]
    return spec, state, np.asarray(metrics.loss)[keep], np.asarray(metrics.error)[keep]


@pytest.fixture(scope="module")
def result():
    """Six configurations from two seeds."""
    return search(TASK, SPACE, method=grid(), key=KEY, seeds=2)


def test_every_trial_is_what_training_alone_makes_of_it(result):
    assert len(result.curves) == 6
    for curve in result.curves.values():
        for seed in range(2):
            _, _, loss, error = alone(curve.trial.config, seed)
            assert_allclose(curve.values("loss")[:, seed], loss, rtol=1e-5)
            assert_allclose(curve.values("error")[:, seed], error, atol=1e-6)


def test_the_lowest_mean_over_seeds_and_evaluations_is_best(result):
    errors = {n: curve.values("error").mean(axis=1) for n, curve in result.curves.items()}
    lowest = min(values.min() for values in errors.values())
    best = result.best
    assert errors[best.trial].min() == lowest
    assert errors[best.trial][int(best.epochs) - 1] == lowest
    assert best.validation_accuracy == pytest.approx(1 - lowest)


def test_the_parameters_are_those_of_the_best_evaluation(result):
    task = replace(TASK, epochs=12)
    long = search(task, SPACE | {"learning_rate": fixed(3.0)}, method=grid(), key=KEY, seeds=2)
    assert long.best.epochs < 12  # at such a rate it gets worse again, so the kept ones are older
    for seed in range(2):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], long.params)
        metrics = evaluate(long.spec, params, VALIDATION)
        curve = long.curves[long.best.trial]
        at = curve.best("error")
        assert_allclose(metrics.error, curve.values("error")[at, seed], atol=1e-6)
        assert_allclose(metrics.loss, curve.values("loss")[at, seed], rtol=1e-5)


def test_seeds_differ_and_configurations_of_a_seed_share_everything_random(result):
    twice = search(TASK, SPACE | {"l2": fixed(1e-3)}, method=Repeated(3), key=KEY, seeds=2)
    first, *others = twice.curves.values()
    for other in others:
        assert np.array_equal(other.values("loss"), first.values("loss"))
    assert not np.array_equal(first.values("loss")[:, 0], first.values("loss")[:, 1])


class Repeated:
    """A method that tries one configuration several times."""

    def __init__(self, count):
        self.count = count

    def rounds(self, space, evaluations, seed):
        config = space.configuration({})
        yield Round(tuple(Trial(i, config) for i in range(self.count)), evaluations)

    def work(self, space, evaluations):
        return self.count * evaluations

    def describe(self):
        return {"method": "repeated"}


def test_folds_are_trainings_without_their_examples():
    task = replace(TASK, validation=folds(4))
    found = search(task, SPACE, method=grid(), key=KEY, seeds=2)
    seed = int(np.asarray(jax.random.bits(jax.random.split(KEY)[0], (), np.uint32)))
    arranged = arrange(folds(4), TRAIN, seed)
    assert found.params[0].weight.shape == (8, 6, 12)
    for fold in range(4):
        rows = slice(27 * fold, 27 * (fold + 1))
        inputs, targets, scale = arranged.data
        held = Data(inputs[rows], targets[rows], scale)
        rest = Data(np.delete(inputs, rows, axis=0), np.delete(targets, rows), scale)
        for replicate, s in ((fold, 0), (4 + fold, 1)):
            _, _, loss, _ = alone(found.best.config, s, data=rest, validation=held)
            curve = found.curves[found.best.trial]
            assert_allclose(curve.values("loss")[:, replicate], loss, rtol=1e-5)


def test_the_table_has_mean_deviation_and_interval_of_the_replicates(result):
    assert [row["trial"] for row in result.table] == list(range(6))
    for row in result.table:
        curve = result.curves[row["trial"]]
        values = 1 - curve.values("error")[int(row["best_epoch"]) - 1]
        assert row["validation_accuracy"] == pytest.approx(values.mean())
        assert row["validation_accuracy_std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        # Of two values the resampled means are the smaller, the middle and the larger one.
        assert row["validation_accuracy_low"] == pytest.approx(values.min())
        assert row["validation_accuracy_high"] == pytest.approx(values.max())
        assert row["learning_rate"] == curve.trial.config["learning_rate"]
        assert row["diverged_at"] is None


def test_the_table_of_one_seed_has_no_spread():
    table = search(TASK, SPACE, method=random(3), key=KEY).table
    for row in table:
        assert row["validation_loss"] > 0
        for suffix in ("std", "low", "high"):
            assert row[f"validation_loss_{suffix}"] is None


def test_pandas_gets_the_table(result):
    frame = result.to_pandas()
    assert frame["validation_loss"].tolist() == [row["validation_loss"] for row in result.table]
    assert list(frame.columns) == list(result.table[0])


DIVERGING = SPACE | {"learning_rate": choice(0.1, 1e30, 1e32, 1e34)}


@pytest.mark.parametrize(
    "method", [grid(), successive_halving(9), population_based(6), random(9)], ids=str
)
def test_diverged_trials_are_rows_with_the_iteration_and_the_rest_goes_on(method):
    found = search(TASK, DIVERGING, method=method, key=KEY, seeds=2)
    assert found.best.config["learning_rate"] < 1e29
    rows = [row for row in found.table if row["learning_rate"] > 1e29]
    assert rows
    for row in rows:
        started = found.curves[row["trial"]].start * 110 // 20
        assert 1 <= row["diverged_at"] - started <= 3
        assert row["validation_accuracy"] is row["validation_loss"] is row["best_epoch"] is None
    assert found.diverged == len(rows)
    assert math.isfinite(found.best.validation_loss)


def test_a_diverged_trial_leaves_the_bits_of_the_others_alone():
    found = search(TASK, DIVERGING, method=grid(), key=KEY)
    calm = search(
        TASK, DIVERGING | {"learning_rate": choice(0.1, 0.2, 0.3, 0.4)}, method=grid(), key=KEY
    )
    for number in (0, 1):
        assert found.curves[number].trial == calm.curves[number].trial
        assert np.array_equal(
            found.curves[number].values("loss"), calm.curves[number].values("loss")
        )


def test_a_search_in_which_everything_diverges_says_so():
    space = SPACE | {"learning_rate": choice(1e30, 1e32)}
    with pytest.raises(AllDivergedError, match="all 4 configurations diverged"):
        search(TASK, space, method=grid(), key=KEY)


def test_static_values_are_programs_and_traced_ones_are_not():
    traces = []

    def network(width):
        def apply(params, x):
            traces.append(width)
            return MLP((12, width, 3)).apply(params, x)

        return Network(MLP((12, width, 3)).init, apply)

    task = replace(TASK, model=network, model_parameters=("width",))
    space = {
        "learning_rate": log_uniform(0.01, 0.1),
        "l2": log_uniform(1e-5, 1e-3),
        "momentum": choice(0.0, 0.9),
        "width": choice(3, 5),
    }
    before = jaxnn.blocks.compile_once.cache_info().misses
    space["batch_size"] = fixed(20)
    found = search(task, space, method=random(12), key=KEY, seeds=2)
    assert found.programs == 2
    # Each width has models of its own: what is compiled is compiled for the widths and no more.
    assert jaxnn.blocks.compile_once.cache_info().misses - before == 2
    assert set(traces) == {3, 5}
    # Five rounds of as many trials of one width each go on in one program.
    task = replace(task, epochs=5)
    search(task, space | {"width": fixed(3)}, method=population_based(12), key=KEY, seeds=2)
    assert jaxnn.blocks.compile_once.cache_info().misses - before == 3


def test_logistic_regression_can_be_searched():
    binary = Data(TRAIN.inputs, (np.asarray(TRAIN.targets) > 0).astype(np.int32), TRAIN.scale)
    space = SPACE | {"loss": fixed("logistic"), "hidden": fixed(())}
    found = search(Task(binary, epochs=5), space, method=grid(), key=KEY)
    assert found.params[0].weight.shape == (1, 1, 12)
    assert found.best.validation_accuracy > 0.7


def test_halving_continues_where_the_rung_before_ended():
    task = replace(TASK, epochs=9)
    found = search(task, SPACE, method=successive_halving(9), key=KEY)
    lengths = sorted(len(curve.loss) for curve in found.curves.values())
    assert lengths == [1] * 6 + [3] * 2 + [9]
    for curve in found.curves.values():
        config = curve.trial.config
        _, _, loss, _ = alone(config, 0, task=task)
        assert_allclose(curve.values("loss")[:, 0], loss[: len(curve.loss)], rtol=1e-4)


def test_the_simplest_within_one_standard_error_can_be_chosen():
    space = SPACE | {"hidden": choice((), (6,), (30, 30)), "l2": choice(1e-5, 1e-4)}
    task = replace(TASK, epochs=3, measure="loss")
    arguments = {"method": grid(), "key": KEY, "seeds": 4}
    by_mean = search(task, space, **arguments)
    simplest = search(task, space, rule="one_standard_error", **arguments)
    rows = {row["trial"]: row for row in simplest.table}
    best = rows[by_mean.best.trial]
    limit = best["validation_loss"] + best["validation_loss_std"] / 2
    within = [row for row in rows.values() if row["validation_loss"] <= limit]
    sizes = {(): 12 * 3 + 3, (6,): 12 * 6 + 6 + 6 * 3 + 3}
    sizes[30, 30] = 12 * 30 + 30 + 30 * 30 + 30 + 30 * 3 + 3
    expected = min(
        within, key=lambda row: (sizes[tuple(row["hidden"])], -row["l2"], row["best_epoch"])
    )
    assert len(within) > 1
    assert simplest.best.trial == expected["trial"]
    for seed in range(4):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], simplest.params)
        metrics = evaluate(simplest.spec, params, VALIDATION)
        curve = simplest.curves[simplest.best.trial]
        assert_allclose(metrics.loss, curve.values("loss")[curve.best("loss"), seed], rtol=1e-5)


def test_population_based_training_copies_rows_and_says_of_whom():
    task = replace(TASK, epochs=5, measure="loss")
    space = SPACE | {"learning_rate": log_uniform(1e-4, 0.3)}
    found = search(task, space, method=population_based(8), key=KEY, seeds=2)
    children = [c for c in found.curves.values() if c.copied_from is not None]
    assert len(children) == 2 * 4
    for child in children:
        parent = next(c for n, c in found.curves.items() if n == child.copied_from)
        assert child.start in parent.evaluations
        config, own = parent.trial.config, child.trial.config
        assert {k: v for k, v in own.items() if k not in ("learning_rate", "l2")} == {
            k: v for k, v in config.items() if k not in ("learning_rate", "l2")
        }


def test_the_scores_of_a_copy_are_those_of_its_whole_line():
    """Trained by hand: the parent's hyperparameters up to the copy, the child's from there on."""
    task = replace(TASK, epochs=5, measure="loss")
    space = SPACE | {"learning_rate": log_uniform(1e-4, 0.3)}
    found = search(task, space, method=population_based(8), key=KEY)
    number = max(n for n, c in found.curves.items() if c.copied_from is not None)
    curve = found.curves[number]
    stages = lineage(found.curves, number, curve.evaluations[-1])
    assert len(stages) >= 2
    spec = found.spec
    key = jax.random.fold_in(REPLICATE_KEY, 0)
    init_key, order_key = jax.random.split(key)
    shuffle = shuffle_key(order_key)
    hypers = [Hyper(s.config["learning_rate"], s.config["l2"]) for s in stages]
    state = init_state(spec, hypers[0], init_key)
    for hyper, stage in zip(hypers, stages, strict=True):
        while int(state.iteration) < task.iteration(stage.until, 20, 110):
            indices = minibatch_indices(shuffle, state.iteration, 20, 110)
            state, _ = train_step(spec, hyper, state, take(TRAIN, indices))
    assert_allclose(evaluate(spec, state.params, VALIDATION).loss, curve.last("loss"), rtol=1e-4)


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


def test_retrained_models_have_seen_the_validation_examples_too(result):
    scores = result.test(retrain=True)
    n = len(TRAIN.targets) + len(VALIDATION.targets)
    joined = Data(
        np.concatenate([VALIDATION.inputs, TRAIN.inputs]),
        np.concatenate([VALIDATION.targets, TRAIN.targets]),
        TRAIN.scale,
    )
    assert n == 170
    until = int(result.best.epochs)
    losses = []
    for seed in range(2):
        static = {"batch_size": 20, "hidden": (6,)}
        steps = TASK.iteration(until, 20, n)
        spec = replace(TASK.spec(static, n), steps=steps, evaluate_at=())
        hyper = Hyper(result.best.config["learning_rate"], result.best.config["l2"])
        key = jax.random.fold_in(REPLICATE_KEY, seed)
        _, history = train(spec, hyper, key, joined, {"test": TEST})
        losses.append(float(history.metrics["test"].loss[-1]))
    assert_allclose(scores.losses, losses, rtol=1e-4)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"rule": "median"}, "rule is 'median'"),
        ({"rule": "one_standard_error"}, "expected at least 2 seeds or folds"),
        ({"space": {}}, "learning_rate is not in every configuration"),
        ({"space": {"learning_rate": 0.1}}, "learning_rate is 0.1"),
        (
            {"space": {"learning_rate": log_uniform(0.1, 1)}, "method": grid()},
            "grid: learning_rate",
        ),
        ({"task": replace(TASK, validation=folds(200))}, "folds is 200"),
        ({"task": replace(TASK, validation=holdout(1e-6))}, "holds out 0 of 110"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(changes, message):
    arguments = {"task": TASK, "space": SPACE, "method": random(2), "key": KEY, "seeds": 1}
    arguments |= changes
    task, space = arguments.pop("task"), arguments.pop("space")
    with pytest.raises(ValueError, match=message) as raised:
        search(task, space, **arguments)
    assert "\n" not in str(raised.value)


def test_a_bad_space_is_a_space_error():
    with pytest.raises(SpaceError, match="'learning_rat' is not a hyperparameter"):
        search(TASK, {"learning_rat": fixed(0.1)}, method=random(1), key=KEY)


def test_every_block_size_gives_the_same_scores_to_rounding(result):
    one = search(TASK, SPACE, method=grid(), key=KEY, seeds=2, mesh=population_mesh(1))
    for number, curve in result.curves.items():
        assert_allclose(one.curves[number].values("loss"), curve.values("loss"), rtol=1e-5)


def test_scores_of_healthy_trials_are_finite_and_dated_never(result):
    for curve in result.curves.values():
        assert np.isfinite(curve.values("loss")).all()
        assert (curve.diverged_at == NEVER).all()
