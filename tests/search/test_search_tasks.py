"""Searches of regressions, by metrics, over splits, with weights, standardised inputs and names.

Every search is compared with plain training of each fold, and with scikit-learn.
"""

# Wrong types are a subject of the file.
# pyright: reportArgumentType=false

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import f1_score, r2_score, root_mean_squared_error
from sklearn.model_selection import GroupKFold, StratifiedKFold, TimeSeriesSplit
from sklearn.preprocessing import StandardScaler
from small_search import KEY, REPLICATE_KEY

from jaxnn import Data, Network
from jaxnn.losses import cross_entropy
from jaxnn.metrics import Metric
from jaxnn.saved_model import load_model
from jaxnn.search import (
    AllDivergedError,
    Result,
    Space,
    SpaceError,
    Task,
    choice,
    conditional,
    fixed,
    folds,
    given,
    grid,
    holdout,
    log_uniform,
    random,
    search,
    splits,
    uniform,
)
from jaxnn.search.report import history
from jaxnn.search.task import arrange, traced_values
from jaxnn.train import run

RNG = np.random.default_rng(0)
N = 96
X = RNG.normal(3, [1, 5, 0.2], (N, 3)).astype(np.float32)
T = (X @ [1, -0.4, 2] + RNG.normal(0, 0.5, N)).astype(np.float32)
Y = (np.median(T) < T).astype(np.int32) + (np.quantile(T, 0.8) < T)
REAL, CLASSES = Data(X, T, 0.3), Data(X, Y, 0.3)
SPACE = {"learning_rate": choice(0.02, 0.1), "batch_size": fixed(8)}
GROUPS = np.repeat(np.arange(12), 8) // 2 * (np.arange(N) % 3 > 0)


RUN = jax.jit(run, static_argnames="spec")


def found(task, space=SPACE, **more):
    return search(task, space, method=grid(), key=KEY, **more)


def by_hand(task: Task, config: dict[str, Any], data: Data, valid: Data) -> tuple[dict, Any]:
    """The scores of the evaluations of a fold by plain training, and the final parameters."""
    names = ("batch_size", "schedule", "optimizer", "loss")
    static = {name: value for name, value in config.items() if name in names}
    spec, n = task.spec(static, len(data.targets)), len(data.targets)
    ends = [task.iteration(e, spec.batch_size, n) for e in range(1, task.evaluations + 1)]
    spec = replace(spec, evaluate_at=tuple(ends))
    traced = tuple(name for name in config if name not in names)
    hyper = traced_values(spec, traced, [config], task.hyper)
    hyper = jax.tree.map(lambda column: column[0], hyper)
    key = jax.random.fold_in(REPLICATE_KEY, 0)
    state, history = RUN(spec, hyper, key, data, {"validation": valid})
    return history.metrics["validation"].by_name(), state.params


def compare(result: Result, task: Task, pairs: Any, data: Data = REAL, *, rtol: float = 1e-5):
    for curve in result.curves.values():
        for fold, (train, valid) in enumerate(pairs):
            expected, _ = by_hand(task, curve.trial.config, data.rows(train), data.rows(valid))
            for name, values in expected.items():
                np.testing.assert_allclose(curve.values(name)[:, fold], values, rtol=rtol)


class TestRegression:
    @pytest.fixture(scope="class")
    @classmethod
    def task(cls):
        return Task(REAL, REAL, epochs=2, loss="mse", validation=given(Data(X[:40], T[:40], 0.3)))

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, task):
        return found(task)

    def test_rmse_chooses_and_is_scikit_learns(self, result):
        score = result.test()
        outputs = X * np.float32(0.3) @ result.params[0].weight[0].T + result.params[0].bias[0]
        expected = root_mean_squared_error(T, outputs[:, 0])
        assert score.metrics["rmse"] == pytest.approx(expected, rel=1e-5)
        assert score.loss == pytest.approx(expected**2, rel=1e-5)
        best = min(result.table, key=lambda row: row["validation_rmse"])
        assert best["trial"] == result.best.trial
        assert result.best.validation_metrics["rmse"] == best["validation_rmse"]

    def test_nothing_speaks_of_an_accuracy(self, result, tmp_path, capsys):
        result.test()
        result.print()
        for path in result.write(tmp_path):
            if path.suffix != ".png":
                assert "accuracy" not in path.read_text()
        assert "accuracy" not in capsys.readouterr().out
        assert result.best.validation_accuracy is None
        assert not any("accuracy" in name for name in result.table[0])
        assert result.test_scores[0].accuracy is None

    def test_outputs_are_the_targets(self):
        two = Data(X, np.stack([T, -T], axis=1))
        for loss, outputs in (("huber", 2), ("gaussian_nll", 4)):
            model: Any = Task(two, loss=loss).spec({"batch_size": 8}, 80).model
            assert model.sizes == (3, outputs)

    def test_whole_numbers_are_real_targets(self):
        task = Task(Data(X, np.arange(N)), loss="mae")
        assert task.train.targets.dtype == np.float32

    def test_loss_in_the_space_makes_a_regression(self):
        task = Task(REAL, epochs=1, validation=holdout(0.25))
        result = found(task, SPACE | {"loss": choice("mse", "gaussian_nll")})
        assert result.task.objective == "rmse"
        assert {"validation_rmse", "validation_loss"} < {*result.table[0]}


class TestMetric:
    TASK = Task(CLASSES, CLASSES, epochs=2, metric=("f1_macro", "loss"), validation=folds(3))

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        return tmp_path_factory.mktemp("run")

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, folder):
        return found(cls.TASK, folder=folder)

    def test_highest_chooses(self, result):
        scores = [row["validation_f1_macro"] for row in result.table]
        assert scores[result.best.trial] == max(scores)
        assert len({*scores}) > 1

    def test_folds_are_those_of_plain_training(self, result):
        arranged = arrange(folds(3), CLASSES, int(jax.random.bits(jax.random.split(KEY)[0])))
        pairs = [arranged.rows(fold) for fold in range(3)]
        compare(result, self.TASK, pairs, arranged.data)

    def test_record_and_its_views_have_the_metric(self, result, folder):
        with closing(sqlite3.connect(folder / "run.db")) as run:
            trials = run.execute("select trial, f1_macro, loss from trials").fetchall()
            best = run.execute("select trial from trials order by f1_macro desc").fetchone()
            curves = run.execute("select f1_macro from curves where trial = 0").fetchall()
        expected = [
            (r["trial"], r["validation_f1_macro"], r["validation_loss"]) for r in result.table
        ]
        np.testing.assert_allclose(trials, expected, rtol=1e-6)
        assert best == (result.best.trial,)
        np.testing.assert_array_equal(
            np.ravel(curves), result.curves[0].values("f1_macro").T.ravel()
        )

    def test_resumed_and_loaded_results_are_the_same(self, result, folder):
        again, loaded = found(self.TASK, folder=folder), Result.load(folder)
        assert again.table == result.table == loaded.table
        assert again.best == result.best
        assert loaded.best.validation_metrics == result.best.validation_metrics

    def test_test_score_is_scikit_learns(self, result):
        score = result.test()
        for row, value in enumerate(score.metric_values["f1_macro"]):
            layer = jax.tree.map(lambda leaf, row=row: leaf[row], result.params)[0]
            logits = X * np.float32(0.3) @ layer.weight.T + layer.bias
            expected = f1_score(Y, logits.argmax(axis=1), average="macro")
            assert value == pytest.approx(expected, abs=1e-6)

    def test_figures_have_the_metric(self, result, tmp_path):
        from jaxnn.search.figures import hyperparameters, learning_curves

        (axes,) = learning_curves(result).axes
        assert axes.get_ylabel() == "validation f1\\_macro" or "f1" in axes.get_ylabel()
        figure = hyperparameters(result)
        assert figure is not None
        best = max(row["validation_f1_macro"] for row in result.table)
        low, high = figure.axes[0].get_ylim()
        assert low < best < high

    def test_study_is_maximised(self, result):
        study = result.study()
        assert study.direction.name == "MAXIMIZE"
        assert study.best_trial.number == result.best.trial

    def test_metric_of_ones_own_chooses(self):
        share = Metric("ones", lambda z, t: (z.argmax(axis=1) == 1).mean(), greater_is_better=False)
        result = found(Task(CLASSES, epochs=1, metric=share))
        scores = [row["validation_ones"] for row in result.table]
        assert scores[result.best.trial] == min(scores)

    def test_accuracy_is_the_error(self):
        assert Task(CLASSES, metric="accuracy").objective == "error"
        assert Task(CLASSES).objective == "error"


SPLITTERS = {
    "groups": splits(GroupKFold(3), groups=GROUPS),
    "time": TimeSeriesSplit(3),
    "stratified": StratifiedKFold(3),
    "pairs": splits([(range(50), [60, 70, 61]), (np.arange(N) < 90, np.arange(N) > 92)]),
}


@pytest.mark.parametrize(
    "name",
    [
        "pairs",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("groups", "time", "stratified")),
    ],
)
def test_folds_of_splits_are_those_of_plain_training(name):
    task = Task(CLASSES, epochs=2, metric=("balanced_accuracy", "loss"), validation=SPLITTERS[name])
    pairs = task.validation.pairs
    if name != "pairs":
        splitter = SPLITTERS[name]
        arguments = (X, Y, GROUPS) if name == "groups" else (X, Y)
        theirs = GroupKFold(3) if name == "groups" else splitter
        for ours, expected in zip(pairs, theirs.split(*arguments), strict=True):
            np.testing.assert_array_equal(ours[0], expected[0])
            np.testing.assert_array_equal(ours[1], expected[1])
    result = found(task)
    assert result.programs == 1
    compare(result, task, pairs, CLASSES)


@pytest.mark.parametrize(
    ("validation", "smallest"),
    [(TimeSeriesSplit(3), 24), (folds(3), 64), (holdout(0.25), 72), (given(CLASSES), 96)],
)
def test_without_a_batch_size_minibatches_are_no_larger_than_the_smallest_fold(
    validation, smallest
):
    task = Task(CLASSES, epochs=2, validation=validation)
    result = found(task, {"learning_rate": fixed(0.1)})
    assert result.spec.batch_size == smallest
    last = [row["iteration"] for row in history(result) if row["epoch"] == 2]
    sizes = [24, 48, 72] if smallest == 24 else [smallest] * task.validation.count
    assert last == [2 * size // smallest for size in sizes]


@pytest.mark.slow
def test_schedule_is_stretched_over_the_epochs_of_each_fold():
    task = Task(REAL, epochs=3, loss="mse", validation=TimeSeriesSplit(3))
    space = SPACE | {"schedule": fixed("cosine")}
    compare(found(task, space), task, task.validation.pairs, rtol=1e-4)


def test_inputs_are_standardised_by_what_each_fold_trains_on(tmp_path):
    task = Task(REAL, REAL, epochs=2, loss="mse", standardize=True, validation=TimeSeriesSplit(2))
    result = found(task)
    plain = Task(REAL, epochs=2, loss="mse", validation=TimeSeriesSplit(2))
    result.save_model(tmp_path)
    model = load_model(tmp_path)
    for fold, (train, valid) in enumerate(task.validation.pairs):
        scaler: Any = StandardScaler().fit(X[train])
        scaled = Data(np.asarray(scaler.transform(X), np.float32), T)
        for curve in result.curves.values():
            config = curve.trial.config
            expected, _ = by_hand(plain, config, scaled.rows(train), scaled.rows(valid))
            np.testing.assert_allclose(curve.values("rmse")[:, fold], expected["rmse"], rtol=1e-4)
        layer = jax.tree.map(lambda leaf, fold=fold: leaf[fold], result.params)[0]
        outputs = scaled.inputs @ layer.weight.T + layer.bias
        np.testing.assert_allclose(model.logits(X, replicate=fold), outputs, rtol=1e-3, atol=1e-3)
        rmse = root_mean_squared_error(T, outputs[:, 0])
        values: Any = result.test().metric_values
        assert values["rmse"][fold] == pytest.approx(rmse, rel=1e-4)


def test_constant_input_is_shifted_alone():
    data = Data(np.concatenate([X, np.full((N, 1), 7, np.float32)], axis=1), T)
    task = Task(data, epochs=1, loss="mse", standardize=True)
    arranged = arrange(task.validation, task.train, 0).standardized()
    rows = arranged.rows(0)[0]
    scaler: Any = StandardScaler().fit(arranged.data.inputs[rows])
    np.testing.assert_allclose(arranged.by_fold.scale[0], 1 / scaler.scale_, rtol=1e-6)
    np.testing.assert_allclose(arranged.by_fold.shift[0], -scaler.mean_ / scaler.scale_, rtol=1e-6)


@pytest.mark.parametrize("weighted", [pytest.param(False, marks=pytest.mark.slow), True])
def test_examples_keep_their_weights_in_folds(weighted):
    data = CLASSES._replace(weights={0: 1.0, 1: 2.0, 2: 5.0})
    task = Task(data, epochs=2, validation=TimeSeriesSplit(2), weighted_validation=weighted)
    result = found(task)
    compare(result, task, task.validation.pairs, task.train)
    unweighted = Task(CLASSES, epochs=2, validation=TimeSeriesSplit(2))
    assert not np.allclose(
        found(unweighted).curves[0].values("loss"), result.curves[0].values("loss")
    )


class TestNames:
    def test_hyperparameter_of_the_loss_is_traced(self):
        space = SPACE | {"label_smoothing": choice(0.0, 0.1, 0.4)}
        task = Task(CLASSES, epochs=1, measure="loss", validation=given(CLASSES))
        result = found(task, space)
        assert result.programs == 1
        for curve in result.curves.values():
            expected, _ = by_hand(task, curve.trial.config, CLASSES, CLASSES)
            np.testing.assert_allclose(curve.values("loss")[:, 0], expected["loss"], rtol=1e-5)
        assert len({float(curve.values("loss")[0, 0]) for curve in result.curves.values()}) == 6

    def test_hyperparameter_of_the_model_is_traced_and_used_in_evaluation(self):
        network = Network(
            lambda key: {"w": jax.random.normal(key, (3, 3))},
            lambda params, x, temperature=1.0: params["w"] @ x / temperature,
        )
        task = Task(CLASSES, CLASSES, epochs=1, model=lambda: network, validation=given(CLASSES))
        result = found(task, SPACE | {"temperature": choice(0.5, 2.0)})
        assert result.programs == 1
        assert result.test().loss == pytest.approx(result.best.validation_loss, rel=1e-5)
        for curve in result.curves.values():
            expected, _ = by_hand(task, curve.trial.config, CLASSES, CLASSES)
            np.testing.assert_allclose(curve.values("loss")[:, 0], expected["loss"], rtol=1e-5)

    def test_a_named_tuple_of_ones_own(self):
        class Mine(NamedTuple):
            learning_rate: Any
            l2: Any = 0.0
            decay: Any = 0.01

        def decayed(h):
            return optax.adamw(h.learning_rate, weight_decay=h.decay)

        task = Task(CLASSES, epochs=1, hyper=Mine, validation=given(CLASSES))
        space = SPACE | {"optimizer": fixed(decayed), "decay": choice(0.0, 0.5)}
        result = found(task, space)
        assert result.programs == 1
        losses = {float(curve.values("loss")[0, 0]) for curve in result.curves.values()}
        assert len(losses) == 4

    @pytest.mark.parametrize(
        ("space", "message"),
        [
            (
                {"label_smoothing": uniform(0, 1)},
                "label_smoothing is 1.0, expected a number from 0",
            ),
            ({"gamma": uniform(0, 2)}, "'gamma' is not a hyperparameter, expected one of"),
            (
                {"gamma": uniform(0, 2), "loss": choice("focal", "cross_entropy")},
                "gamma means nothing to the loss 'cross_entropy', expected conditional",
            ),
            ({"dropout": uniform(0, 0.5)}, "'dropout' is not a hyperparameter"),
            ({"loss": choice("mse", "focal")}, "expected losses of classes or of real targets"),
        ],
    )
    def test_name_that_nobody_reads_is_refused(self, space, message):
        with pytest.raises(SpaceError, match=message):
            found(Task(CLASSES, epochs=1), SPACE | space)

    def test_condition_makes_a_name_of_one_loss_fit(self):
        domains = SPACE | {
            "loss": choice("focal", "cross_entropy"),
            "gamma": conditional(uniform(0, 2), loss="focal"),
        }
        task = Task(CLASSES)
        assert "gamma" in Space(domains, (), task.own_names(domains)).traced

    def test_name_of_both_optimizer_and_loss_is_refused(self):
        def loss(logits, target, *, momentum=0.5):
            return momentum * cross_entropy(logits, target)

        space = SPACE | {"momentum": uniform(0.1, 0.9)}
        with pytest.raises(SpaceError, match="momentum is a parameter of the optimizer and of"):
            found(Task(CLASSES, epochs=1, loss=loss), space)


ONE = np.zeros(N, np.int32)
ONE[0] = 1


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"metric": "f2"}, ValueError, "metric is 'f2', expected one of"),
        ({"metric": 3}, ValueError, "metric is 3, expected one of"),
        ({"metric": ("loss", "loss")}, ValueError, "metric holds 'loss' twice"),
        ({"metric": "f1_macro", "measure": "loss"}, ValueError, "expected one of the two: metric="),
        ({"loss": "mse", "measure": "error"}, ValueError, "measure is 'error', expected 'loss'"),
        ({"loss": "hinge"}, ValueError, "loss is 'hinge', expected one of"),
        (
            {"metric": Metric("a b", np.mean, greater_is_better=True)},
            ValueError,
            "metric has the name 'a b', expected a word of letters",
        ),
        (
            {"metric": Metric("trial", np.mean, greater_is_better=True)},
            ValueError,
            "metric has the name 'trial', expected a word",
        ),
        ({"weighted_validation": 1}, TypeError, "weighted_validation is 1, expected True or False"),
        ({"standardize": "yes"}, TypeError, "standardize is 'yes', expected True or False"),
        ({"hyper": dict}, TypeError, "hyper is <class 'dict'>, expected a NamedTuple class"),
        ({"validation": splits([])}, ValueError, "splits holds no pair"),
        ({"validation": splits([[0, 1]])}, ValueError, "training rows of split 0 are 0, expected"),
        ({"validation": splits([([0], [])])}, ValueError, "validation rows of split 0 are"),
        ({"validation": splits([([0], [N])])}, ValueError, f"rows of split 0 hold {N}, expected"),
        ({"validation": splits([([-1], [0])])}, ValueError, "rows of split 0 hold -1, expected"),
        ({"validation": splits([([0.5], [0])])}, ValueError, "training rows of split 0 are"),
        ({"validation": splits([([0, 1], [1])])}, ValueError, "validates on the example 1"),
        ({"validation": splits([(0, 1, 2)])}, TypeError, "split 0 is"),
        ({"validation": GroupKFold(3)}, ValueError, "validation is GroupKFold.*groups"),
        ({"validation": StratifiedKFold(90)}, ValueError, "validation is StratifiedKFold"),
    ],
)  # fmt: skip
def test_bad_task_is_one_clear_line(fields, error, message):
    with pytest.raises(error, match=message) as caught:
        Task(CLASSES, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        (Task(CLASSES, metric="f1"), {}, "the metric f1 is of two classes and the network has 3"),
        (Task(CLASSES, metric="rmse"), {}, "the metric rmse is of real targets and the loss cross"),
        (Task(REAL, loss="mse", metric="auc"), {}, "the metric auc is of classes and the loss mse"),
        (
            Task(Data(X, ONE), metric="roc_auc", validation=holdout(0.1)),
            {},
            "the metric roc_auc is nan for the 10 validation examples of fold 0, expected",
        ),
        (
            Task(CLASSES, metric="f1_macro"),
            {"rule": "one_standard_error"},
            "rule is 'one_standard_error', expected the standard error of f1_macro is over folds",
        ),
        (
            Task(REAL, loss="mse", metric="max_error", weighted_validation=True),
            {},
            "the metric max_error takes no weights",
        ),
        (
            Task(CLASSES, validation=splits([([0, 1, 2], [3]), (range(50), [60])])),
            {},
            "batch_size is 8, expected at most the 3 examples that the smallest fold trains on",
        ),
        (Task(REAL, loss="mse"), {"space": {"loss": fixed("mae")}}, "loss is in the space and in"),
    ],
)  # fmt: skip
def test_search_of_a_bad_task_is_one_clear_line(task, more, message):
    space = SPACE | more.pop("space", {})
    with pytest.raises(ValueError, match=message) as caught:
        found(task, space, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("folds",), TypeError, "splits is 'folds', expected"),
        ((5,), TypeError, "splits is 5, expected"),
        ((CLASSES,), TypeError, "splits is"),
        (([([0], [1])], [0, 1]), ValueError, "splits has pairs and groups"),
    ],
)
def test_bad_splits_are_one_clear_line(arguments, error, message):
    with pytest.raises(error, match=message):
        splits(*arguments)


def test_r2_of_a_search_is_scikit_learns():
    task = Task(REAL, epochs=1, loss="mse", metric="r2", validation=given(REAL))
    result = found(task, {"learning_rate": log_uniform(0.01, 0.1)} | {"batch_size": fixed(8)}
                   | {"learning_rate": fixed(0.05)})  # fmt: skip
    layer = jax.tree.map(lambda leaf: leaf[0], result.params)[0]
    outputs = X * np.float32(0.3) @ layer.weight.T + layer.bias
    expected = r2_score(T, outputs[:, 0])
    assert result.best.validation_metrics["r2"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("metric", ["accuracy", ("rmse", "accuracy"), "error"])
def test_a_regression_has_no_accuracy_to_choose_by(metric):
    real = Data(np.arange(40.0).reshape(20, 2) / 40, np.linspace(0, 1, 20))
    with pytest.raises(ValueError, match=r"loss 'mse' are real numbers, expected .* 'rmse'"):
        Task(real, loss="mse", metric=metric)


def test_a_metric_without_finite_values_is_no_divergence_of_the_losses():
    examples = Data(np.arange(40.0).reshape(20, 2) / 40, np.arange(20) % 2)
    nowhere = Metric("nowhere", lambda outputs, targets: jnp.nan * jnp.sum(outputs), True)
    task = Task(examples, epochs=1, metric=nowhere)
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(5)}
    with pytest.raises(AllDivergedError, match=r"nowhere is not finite for any of 1 config.* loss"):
        search(task, space, method=random(1), key=0).best  # noqa: B018
