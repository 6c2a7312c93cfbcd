"""A search is many trainings: each member is what training alone makes of it, the best is kept."""

import math
import threading
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from small_search import KEY, SPACE, TASK, TRAIN, VALIDATION, alone, in_stages

import jaxnn.population
from jaxnn import MLP, NEVER, Data, Network, cross_entropy, evaluate
from jaxnn.devices import population_mesh
from jaxnn.population import Traced
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
    trainer,
)
from jaxnn.search.result import lineage
from jaxnn.search.task import arrange
from jaxnn.search.trainer import Trainer


@pytest.fixture(scope="module")
def result():
    """Six configurations from two seeds."""
    return search(TASK, SPACE, method=grid(), key=KEY, seeds=2)


def test_every_trial_is_what_training_alone_makes_of_it(result):
    assert len(result.curves) == 6
    for curve in result.curves.values():
        for seed in range(2):
            loss, error = alone(curve.trial.config, seed)
            assert_allclose(curve.values("loss")[:, seed], loss, rtol=1e-5)
            assert_allclose(curve.values("error")[:, seed], error, atol=1e-6)


def test_the_lowest_mean_over_seeds_and_evaluations_is_best(result):
    errors = {n: curve.values("error").mean(axis=1) for n, curve in result.curves.items()}
    lowest = min(values.min() for values in errors.values())
    best = result.best
    assert errors[best.trial].min() == lowest
    assert errors[best.trial][int(best.epochs) - 1] == lowest
    assert best.validation_accuracy == pytest.approx(1 - lowest)


@pytest.mark.parametrize("measure", ["error", "loss"])
def test_the_parameters_and_scores_are_those_of_the_best_evaluation(measure):
    task = replace(TASK, epochs=12, measure=measure)
    found = search(task, SPACE | {"learning_rate": fixed(3.0)}, method=grid(), key=KEY, seeds=2)
    curve = found.curves[found.best.trial]
    loss, error = curve.values("loss"), curve.values("error")
    means = {"loss": loss.mean(axis=1), "error": error.mean(axis=1)}
    at = int(np.argmin(means[measure]))
    assert at < 11  # at such a rate it gets worse again, so the kept ones are older
    assert means["loss"].argmin() != means["error"].argmin()
    assert found.table[found.best.trial]["best_epoch"] == found.best.epochs == at + 1
    assert found.best.validation_loss == pytest.approx(means["loss"][at])
    assert found.best.validation_accuracy == pytest.approx(1 - means["error"][at])
    for seed in range(2):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], found.params)
        metrics = evaluate(found.spec, params, VALIDATION)
        assert_allclose(metrics.error, error[at, seed], atol=1e-6)
        assert_allclose(metrics.loss, loss[at, seed], rtol=1e-5)


def test_of_equal_evaluations_the_first_one_has_the_parameters():
    space = SPACE | {"learning_rate": fixed(1e-5), "l2": fixed(0.0)}
    found = search(TASK, space, method=grid(), key=KEY)
    errors, losses = (found.curves[0].values(measure)[:, 0] for measure in ("error", "loss"))
    assert len(set(errors)) == 1  # hardly anything is learned: the loss alone tells them apart
    params = jax.tree.map(lambda leaf: leaf[0], found.params)
    distances = abs(losses - evaluate(found.spec, params, VALIDATION).loss)
    assert distances[0] < distances[1:].min() / 10


def test_several_evaluations_per_epoch_are_where_training_is_then():
    task = replace(TASK, epochs=2, evaluations_per_epoch=2)
    found = search(task, SPACE, method=grid(), key=KEY)
    for curve in found.curves.values():
        loss, _ = alone(curve.trial.config, 0, task=task)
        assert len(loss) == 4
        assert_allclose(curve.values("loss")[:, 0], loss, rtol=1e-5)
        row = found.table[curve.trial.number]
        assert (row["epochs"], row["best_epoch"]) == (2, (curve.best("error") + 1) / 2)
    assert found.best.epochs == found.table[found.best.trial]["best_epoch"]


def test_an_epoch_may_be_one_minibatch():
    found = search(TASK, SPACE | {"batch_size": fixed(110)}, method=random(2), key=KEY)
    for curve in found.curves.values():
        loss, _ = alone(curve.trial.config, 0)
        assert_allclose(curve.values("loss")[:, 0], loss, rtol=1e-5)


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


class InTwoRounds:
    """A method that lets some of its trials go on, and remembers what it is told."""

    def __init__(self, schedules, going_on):
        self.schedules, self.going_on, self.told = schedules, going_on, []

    def rounds(self, space, evaluations, seed):
        configs = [space.active({"schedule": s} | space.configuration({})) for s in self.schedules]
        trials = tuple(Trial(i, config) for i, config in enumerate(configs))
        self.told.append((yield Round(trials, 1)))
        trials = tuple(trials[i]._replace(parent=i) for i in self.going_on)
        self.told.append((yield Round(trials, evaluations)))

    def work(self, space, evaluations):
        return len(self.schedules) + len(self.going_on) * (evaluations - 1)

    def describe(self):
        return {"method": "in two rounds"}


def test_a_method_is_told_the_best_score_so_far_and_the_last():
    method = InTwoRounds(("constant", "cosine"), going_on=(0, 1))
    space = SPACE | {"learning_rate": fixed(3.0), "schedule": choice("constant", "cosine")}
    task = replace(TASK, epochs=12, measure="loss")
    found = search(task, space, method=method, key=KEY, seeds=2)
    first, second = method.told[-2:]  # the door asks for the first round, too
    for number, curve in found.curves.items():
        means = curve.values("loss").mean(axis=1)
        assert first.best[number] == first.last[number] == pytest.approx(means[0])
        assert second.best[number] == pytest.approx(means.min())
        assert second.last[number] == pytest.approx(means[-1])
    assert any(second.best[number] < second.last[number] for number in found.curves)


def explodes(steps):
    """A schedule of steps that become infinite."""
    return lambda t: jnp.where(t < steps // 2, 1.0, jnp.inf)


def test_a_trial_that_stopped_is_chosen_after_all_when_the_one_ahead_of_it_diverges():
    method = InTwoRounds((explodes, "constant"), going_on=(0,))
    space = SPACE | {"schedule": choice(explodes, "constant")}
    found = search(TASK, space, method=method, key=KEY)
    first, second = method.told[-2:]
    assert first.best[0] <= first.best[1]
    assert second.best[0] == math.inf
    assert found.best.trial == 1
    params = jax.tree.map(lambda leaf: leaf[0], found.params)
    metrics = evaluate(found.spec, params, VALIDATION)
    assert_allclose(metrics.loss, found.best.validation_loss, rtol=1e-5)


def test_folds_are_trainings_without_their_examples():
    task = replace(TASK, validation=folds(4))
    found = search(task, SPACE, method=grid(), key=KEY, seeds=2)
    seed = int(np.asarray(jax.random.bits(jax.random.split(KEY)[0], (), np.uint32)))
    arranged = arrange(folds(4), TRAIN, seed)
    assert found.params[0].weight.shape == (8, 6, 12)
    for fold in range(4):
        rows = slice(27 * fold, 27 * (fold + 1))
        inputs, targets, scale = arranged.data[:3]
        held = Data(inputs[rows], targets[rows], scale)
        rest = Data(np.delete(inputs, rows, axis=0), np.delete(targets, rows), scale)
        for replicate, s in ((fold, 0), (4 + fold, 1)):
            loss, _ = alone(found.best.config, s, data=rest, validation=held)
            curve = found.curves[found.best.trial]
            assert_allclose(curve.values("loss")[:, replicate], loss, rtol=1e-5)


def test_the_table_has_mean_deviation_and_interval_of_the_replicates(result):
    assert [row["trial"] for row in result.table] == list(range(6))
    for row in result.table:
        curve = result.curves[row["trial"]]
        values = 1 - curve.values("error")[int(row["best_epoch"]) - 1]
        assert row["validation_accuracy"] == pytest.approx(values.mean())
        assert row["validation_accuracy_std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        half = stats.t.ppf(0.975, 1) * stats.sem(values)  # wide: two seeds tell little
        low, high = np.clip([values.mean() - half, values.mean() + half], 0, 1)
        assert row["validation_accuracy_low"] == pytest.approx(low)
        assert row["validation_accuracy_high"] == pytest.approx(high)
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


def test_a_loss_that_is_infinite_on_the_validation_examples_alone_is_a_divergence():
    """Of white images, about which black ones teach nothing, logits are large until L2 has come."""

    def infinite_if_large(logits, target):
        return jnp.where(jnp.abs(logits).max() > 50, jnp.inf, cross_entropy(logits, target))

    black = TRAIN._replace(inputs=np.zeros_like(TRAIN.inputs), scale=1.0)
    white = VALIDATION._replace(inputs=np.full_like(VALIDATION.inputs, 255), scale=1.0)
    task = Task(black, epochs=4, validation=given(white))
    space = {
        "learning_rate": fixed(0.1),
        "l2": choice(2.0, 8.0),  # weights shrink by 0.8, or by 0.2, in each of 22 iterations
        "batch_size": fixed(20),
        "optimizer": fixed("sgd"),
        "loss": fixed(infinite_if_large),
    }
    found = search(task, space, method=grid(), key=KEY)
    slow, fast = found.curves.values()
    assert not np.isfinite(slow.values("loss")[0])
    assert slow.diverged_at == 5
    assert slow.score("error") == math.inf
    assert not fast.diverged


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
    before = jaxnn.population.trace_once.cache_info().misses
    space["batch_size"] = fixed(20)
    found = search(task, space, method=random(12), key=KEY, seeds=2)
    assert found.programs == 2
    # Each width has models of its own: what is compiled is compiled for the widths and no more.
    assert jaxnn.population.trace_once.cache_info().misses - before == 2
    assert set(traces) == {3, 5}
    assert list(found.curves) != sorted(found.curves)  # one width after the other
    assert [row["trial"] for row in found.table] == list(range(12))
    # Five rounds of as many trials of one width each go on in one program.
    task = replace(task, epochs=5)
    space["width"] = fixed(3)
    found = search(task, space, method=population_based(12), key=KEY, seeds=2)
    assert found.programs == 1
    assert jaxnn.population.trace_once.cache_info().misses - before == 3


def test_a_short_halving_is_one_program():
    space = {"learning_rate": log_uniform(0.01, 0.1), "batch_size": fixed(20)}
    before = jaxnn.population.trace_once.cache_info().misses
    found = search(replace(TASK, epochs=9), space, method=successive_halving(27), key=KEY)
    assert found.programs == 1
    assert jaxnn.population.trace_once.cache_info().misses - before == 1


def test_the_next_rungs_program_is_compiled_while_this_one_trains(monkeypatch):
    monkeypatch.setattr(trainer, "_COMPILING", 0)  # every rung has the size that suits it
    both, compiled, training, seen = threading.Event(), Traced.compiled, Trainer.advance, set()

    def compile_and_tell(self):
        program = compiled.__get__(self)
        seen.add(self)
        if len(seen) == 2:
            both.set()
        return program

    def wait_and_train(self, *rest):
        assert both.wait(timeout=120)
        return training(self, *rest)

    monkeypatch.setattr(Traced, "compiled", property(compile_and_tell))
    monkeypatch.setattr(Trainer, "advance", wait_and_train)
    space = {"learning_rate": log_uniform(0.01, 0.1), "batch_size": fixed(20)}
    method = successive_halving(27)
    found = search(replace(TASK, epochs=3), space, method=method, key=KEY)
    assert [len(curve.values("loss")) for curve in found.curves.values()].count(3) == 9
    assert found.programs == 2


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
        loss, _ = alone(config, 0, task=task)
        assert_allclose(curve.values("loss")[:, 0], loss[: len(curve.loss)], rtol=1e-4)


def test_the_simplest_within_one_standard_error_can_be_chosen():
    space = SPACE | {"hidden": choice((), (6,), (30, 30)), "l2": choice(1e-5, 1e-4)}
    task = replace(TASK, epochs=3, measure="loss")
    arguments = {"method": grid(), "key": KEY, "seeds": 4}
    by_mean = search(task, space, **arguments)
    simplest = search(task, space, rule="one_standard_error", **arguments)
    rows = {row["trial"]: row for row in simplest.table}
    best = rows[by_mean.best.trial]
    losses = np.empty((4, 60))  # of the best models on each validation example
    for seed, example in np.ndindex(losses.shape):
        params = jax.tree.map(lambda leaf, seed=seed: leaf[seed], by_mean.params)
        inputs, targets = (x[example : example + 1] for x in VALIDATION[:2])
        one = Data(inputs, targets, VALIDATION.scale)
        losses[seed, example] = evaluate(by_mean.spec, params, one).loss
    error = stats.sem(losses.mean(axis=0))  # seeds first: they share the examples
    assert simplest.standard_error == pytest.approx(error, rel=1e-4)
    assert by_mean.standard_error is None
    limit = best["validation_loss"] + error
    within = [row for row in rows.values() if row["validation_loss"] <= limit]
    sizes = {(): 12 * 3 + 3, (6,): 12 * 6 + 6 + 6 * 3 + 3}
    sizes[30, 30] = 12 * 30 + 30 + 30 * 30 + 30 + 30 * 3 + 3
    for number, row in rows.items():
        assert simplest.curves[number].parameter_count == sizes[tuple(row["hidden"])]
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
    ends = [task.iteration(stage.until, 20, 110) for stage in stages]
    params = in_stages(found.spec, stages, ends, TRAIN)
    assert_allclose(evaluate(found.spec, params, VALIDATION).loss, curve.last("loss"), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"rule": "median"}, "rule is 'median'"),
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
