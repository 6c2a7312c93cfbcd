"""Metrics, against scikit-learn on random outputs with ties."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as theirs

from jaxnn import MLP, Data, Hyper, Network, Spec, evaluate, train_population
from jaxnn.devices import population_mesh
from jaxnn.metrics import METRICS, Metric, get_metric
from jaxnn.train import train

AVERAGES = ("binary", "macro", "micro", "weighted")
NAMES = {"precision", "recall", "f1", "jaccard"}
CLASS_SCORES = {
    "accuracy": theirs.accuracy_score,
    "balanced_accuracy": theirs.balanced_accuracy_score,
    "cohen_kappa": theirs.cohen_kappa_score,
    "matthews_corrcoef": theirs.matthews_corrcoef,
} | {
    f"{name}{'' if average == 'binary' else f'_{average}'}": partial(
        getattr(theirs, f"{name}_score"), average=average, zero_division=0
    )
    for name in NAMES
    for average in AVERAGES
}
PROBABILITY_SCORES = {
    "auc": theirs.roc_auc_score,
    "average_precision": theirs.average_precision_score,
    "brier_score": theirs.brier_score_loss,
    "log_loss": theirs.log_loss,
    "roc_auc": theirs.roc_auc_score,
    "top_2_accuracy": theirs.top_k_accuracy_score,
    "top_k_accuracy": theirs.top_k_accuracy_score,
}
REAL_SCORES = {
    "explained_variance": theirs.explained_variance_score,
    "mae": theirs.mean_absolute_error,
    "mape": theirs.mean_absolute_percentage_error,
    "max_error": theirs.max_error,
    "mean_absolute_error": theirs.mean_absolute_error,
    "mean_absolute_percentage_error": theirs.mean_absolute_percentage_error,
    "mean_squared_error": theirs.mean_squared_error,
    "median_absolute_error": theirs.median_absolute_error,
    "mse": theirs.mean_squared_error,
    "r2": theirs.r2_score,
    "rmse": theirs.root_mean_squared_error,
    "root_mean_squared_error": theirs.root_mean_squared_error,
}


def drawn(outputs, *, n=400, seed=0):
    """Logits with many ties, in eighths, and classes that the logits tell apart a little."""
    rng = np.random.default_rng(seed)
    classes = max(outputs, 2)
    labels = rng.choice(classes, n, p=rng.dirichlet(np.full(classes, 3.0)))
    signs = 2 * labels[:, None] - 1 if outputs == 1 else np.eye(outputs)[labels]
    logits = np.round(2 * (rng.normal(size=(n, outputs)) + signs)) / 8
    return logits.astype(np.float32), labels.astype(np.int32), rng.random(n).astype(np.float32)


def predicted(logits):
    return (logits[:, 0] > 0) * 1 if logits.shape[1] == 1 else logits.argmax(axis=1)


def probabilities(logits):
    """Of all classes, or of class 1 of two; rounded, so that equal scores are equal."""
    if logits.shape[1] == 1:
        return expit(logits[:, 0].astype(float))
    found = softmax(logits.astype(float), axis=1)
    return np.round(found[:, 1] if found.shape[1] == 2 else found, 12)


def test_every_metric_by_name_is_compared_with_scikit_learn():
    compared = CLASS_SCORES | PROBABILITY_SCORES | REAL_SCORES
    assert {*compared} - {"top_2_accuracy"} == {*METRICS}


@partial(jax.jit, static_argnames="names")
def _scores(names, outputs, targets, weights=None):
    return {name: get_metric(name)(outputs, targets, weights) for name in names}


def scores(names, *arguments):
    """Several metrics, compiled together."""
    found = _scores(tuple(names), *arguments)
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_metrics_of_predicted_classes_are_scikit_learns(outputs, weighted):
    logits, labels, weights = drawn(outputs)
    given = {"sample_weight": weights} if weighted else {}
    expected = {
        name: function(labels, predicted(logits), **given)
        for name, function in CLASS_SCORES.items()
        if outputs < 3 or name not in NAMES
    }
    assert scores(expected, logits, labels, *given.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_metrics_of_probabilities_are_scikit_learns_with_ties(outputs, weighted):
    logits, labels, weights = drawn(outputs)
    given = {"sample_weight": weights} if weighted else {}
    expected = {}
    for name, function in PROBABILITY_SCORES.items():
        ranked = name.startswith("top")
        more = {"multi_class": "ovr"} if name in ("auc", "roc_auc") else {}
        if outputs > 2 or not ranked:
            found = logits if ranked else probabilities(logits)
            expected[name] = function(labels, found, **given, **more)
    assert scores(expected, logits, labels, *given.values()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", [1, 3])
def test_metrics_of_real_targets_are_scikit_learns(targets, weighted):
    rng = np.random.default_rng(1)
    t = np.round(rng.normal(30, 8, (500, targets))).astype(np.float32)
    z = (t + rng.normal(0, 5, t.shape)).astype(np.float32)
    given = {"sample_weight": rng.random(500).astype(np.float32)} if weighted else {}
    theirs_lack = {"max_error"} if targets > 1 else set()
    ours_lack = {"max_error", "median_absolute_error"} if weighted else set()
    expected = {
        name: function(t.astype(float), z.astype(float), **given)
        for name, function in REAL_SCORES.items()
        if name not in theirs_lack | ours_lack
    }
    single = t[:, 0] if targets == 1 else t
    assert scores(expected, z, single, *given.values()) == pytest.approx(expected, rel=1e-6)


def test_probability_vectors_count_as_their_largest_class():
    logits, labels, _ = drawn(2)
    names = (*CLASS_SCORES, *PROBABILITY_SCORES)
    expected = scores(names, logits, labels)
    found = scores(names, logits, np.eye(2, dtype=np.float32)[labels])
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_class_without_an_example_counts_as_in_scikit_learn():
    logits, labels, _ = drawn(5)
    keep = labels != 3
    logits, labels = logits[keep], labels[keep]
    logits[:, 1] -= 50  # and a class that is never predicted
    names = ("f1_macro", "balanced_accuracy", "precision_macro", "f1_weighted", "jaccard_micro")
    expected = {name: CLASS_SCORES[name](labels, predicted(logits)) for name in names}
    assert scores(names, logits, labels) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("label", "names"), [(1, ("roc_auc", "cohen_kappa")), (0, ("average_precision",))]
)
def test_score_without_a_value_is_nan(label, names):
    logits = np.array([[1.0], [2.0]], np.float32)
    found = scores(names, logits, np.full(2, label, np.int32))
    assert np.isnan([*found.values()]).all()


def test_constant_targets_score_as_in_scikit_learn():
    outputs = np.array([[1.0], [2.0], [4.0]], np.float32)
    names = ("r2", "explained_variance", "matthews_corrcoef")
    assert scores(names, outputs, np.ones(3, np.float32)) == dict.fromkeys(names, 0)
    names = ("r2", "explained_variance")
    assert scores(names, np.ones((3, 1), np.float32), np.ones(3)) == dict.fromkeys(names, 1)


def test_many_examples_of_a_rare_class_keep_six_digits():
    rng = np.random.default_rng(2)
    labels = (rng.random(50_000) < 0.002).astype(np.int32)
    logits = (rng.normal(size=(50_000, 1)) + 3 * labels[:, None] - 3).astype(np.float32)
    names = ("matthews_corrcoef", "cohen_kappa", "f1", "balanced_accuracy")
    expected = {name: CLASS_SCORES[name](labels, predicted(logits)) for name in names}
    chances = expit(logits[:, 0].astype(float))
    for name in ("roc_auc", "average_precision", "log_loss"):
        expected[name] = PROBABILITY_SCORES[name](labels, chances)
    assert scores(expected, logits, labels) == pytest.approx(expected, abs=1e-6)


def test_metrics_of_several_models_are_those_of_each():
    logits, labels, _ = drawn(3)
    several = np.stack([logits, -logits, logits[::-1]])
    names = ("f1_macro", "roc_auc", "log_loss")
    together = jax.vmap(partial(_scores, names), in_axes=(0, None))(several, labels)
    for row, each in enumerate(several):
        found = {name: float(values[row]) for name, values in together.items()}
        assert found == pytest.approx(scores(names, each, labels), abs=1e-6)


LINEAR = Network(lambda key: np.zeros((1,), np.float32), lambda params, x: x + params)


def test_evaluation_in_blocks_scores_all_examples_together():
    logits, labels, weights = drawn(3, n=1234)
    names = ("f1_macro", "roc_auc", "accuracy")
    data = Data(logits, labels, weights=weights)
    spec = Spec(LINEAR, steps=1, metrics=names, weighted=True)
    found = evaluate(spec, np.zeros((1,), np.float32), data).by_name()
    assert found["accuracy"] == pytest.approx(1 - float(found["error"]), abs=1e-6)
    expected = theirs.f1_score(labels, predicted(logits), average="macro", sample_weight=weights)
    assert found["f1_macro"] == pytest.approx(expected, abs=1e-6)


def test_metrics_of_a_minibatch_spread_over_devices_are_those_of_one(pixels):
    spec = Spec(MLP((12, 3)), steps=4, batch_size=10, metrics=("f1_macro", "roc_auc"))
    hyper, devices = Hyper(np.array([0.1, 0.3])), jax.device_count()
    meshes = population_mesh(batch=1), population_mesh(batch=devices)
    one, spread = (train_population(spec, hyper, [0], pixels, mesh=mesh) for mesh in meshes)
    for name, values in one.metrics["train"].by_name().items():
        found = spread.metrics["train"].by_name()[name]
        np.testing.assert_allclose(found, values, atol=1e-5)


def test_metric_of_ones_own_is_recorded_by_its_name(pixels):
    share = Metric("ones", lambda outputs, targets: (targets == 1).mean(), greater_is_better=True)
    spec = Spec(MLP((12, 3)), steps=1, metrics=(share,))
    _, history = train(spec, Hyper(0.1), 0, pixels)
    found = history.metrics["train"].by_name()["ones"]
    assert found == pytest.approx([np.mean(pixels.targets == 1)])


REAL = Data(np.zeros((9, 2), np.float32), np.linspace(0, 1, 9, dtype=np.float32))
COUNTED = Data(np.zeros((9, 2), np.float32), np.arange(9, dtype=np.int32) % 3)


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        (
            REAL,
            {"loss": "mse", "metrics": "f1"},
            "the metric f1 is of two classes and the loss mse",
        ),
        (
            REAL,
            {"loss": "huber", "metrics": "accuracy"},
            "the metric accuracy is of classes and the loss huber of real targets, expected such "
            "as 'rmse'",
        ),
        (
            COUNTED,
            {"model": MLP((2, 3)), "metrics": "rmse"},
            "the metric rmse is of real targets and the loss cross_entropy of classes, expected "
            "such as 'f1_macro'",
        ),
        (
            COUNTED,
            {"model": MLP((2, 3)), "metrics": "f1"},
            "the metric f1 is of two classes and the network has 3 outputs, expected f1_macro, "
            "f1_micro, f1_weighted",
        ),
        (REAL, {"metrics": "max_error", "weighted": True}, "the metric max_error takes no weights"),
        (
            REAL,
            {"metrics": Metric("rows", lambda z, t: z[:, 0] - t, greater_is_better=True)},
            r"the metric rows has the shape \(4,\), expected a scalar",
        ),
    ],
)
def test_metric_that_does_not_fit_is_one_clear_line(data, changes, message):
    spec = Spec(**{"model": MLP((2, 1)), "steps": 1, "batch_size": 3, "loss": "mse"} | {
        **({"loss": "cross_entropy"} if data is COUNTED else {}), **changes
    })  # fmt: skip
    with pytest.raises(ValueError, match=message) as error:
        train(spec, Hyper(0.1), 0, data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("F1", "metric is 'F1', expected one of .*; did you mean 'f1'"),
        ("top_0_accuracy", "metric is 'top_0_accuracy', expected one of"),
        (None, "metric is None, expected one of"),
        (np.mean, "expected one of .* or Metric"),
    ],
)
def test_unknown_metric_is_refused(metric, message):
    with pytest.raises(ValueError, match=message):
        get_metric(metric)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ((1, np.mean, True), TypeError, "name is 1, expected the name of a metric"),
        (("own", 2, True), TypeError, "own is 2, expected a function of JAX"),
        (("own", np.mean, 1), TypeError, "greater_is_better is 1, expected True or False"),
        (("own", np.mean, True, "sets"), ValueError, "of is 'sets', expected one of"),
    ],
)
def test_metric_of_wrong_fields_is_refused(fields, error, message):
    with pytest.raises(error, match=message):
        Metric(*fields)
