"""The estimators of scikit-learn's interface: against scikit-learn's own checks and models."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import check_estimator

from jaxnn.estimators import JaxnnClassifier, JaxnnRegressor

X, LABELS = map(np.asarray, load_iris(return_X_y=True))
FLOWERS = np.array(["setosa", "versicolor", "virginica"])[LABELS]
DRAWS = np.random.default_rng(0)
WEIGHTS = DRAWS.uniform(0.2, 2.0, len(X))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [JaxnnClassifier(), JaxnnRegressor()])
def test_the_checks_of_scikit_learn_pass(estimator):
    failed = [c for c in check_estimator(estimator, on_skip=None) if c["status"] == "failed"]
    assert not failed


def linear(make, **changes):
    """A linear network, trained to convergence on all examples at once."""
    return make((), **{"learning_rate": 0.05, "epochs": 3000, "random_state": 0, **changes})


def test_a_linear_regressor_is_ridge_regression():
    targets = X[:, :2] @ [[1.0, 2.0], [0.5, -1.0]] + DRAWS.normal(size=(len(X), 2))
    inputs = StandardScaler().fit_transform(X)[:, 2:]
    model = linear(JaxnnRegressor, l2=0.1).fit(inputs, targets, sample_weight=WEIGHTS)
    # Ridge penalises the sum of squares: sum w (..)^2 + alpha |W|^2; mse is the mean over targets.
    alpha = 0.1 * WEIGHTS.sum()
    expected = Ridge(alpha=alpha).fit(inputs, targets, sample_weight=WEIGHTS)
    np.testing.assert_allclose(model.predict(inputs), expected.predict(inputs), atol=1e-5)


def test_a_linear_classifier_is_logistic_regression_with_weights_of_classes():
    few = np.concatenate([np.arange(60), np.arange(100, 150)])
    inputs, labels = StandardScaler().fit_transform(X)[few], FLOWERS[few]
    model = linear(JaxnnClassifier, l2=0.1, class_weight="balanced", batch_size=200)
    found = model.fit(inputs, labels, sample_weight=WEIGHTS[few]).predict_proba(inputs)
    weights = WEIGHTS[few] * compute_sample_weight("balanced", labels)
    expected = LogisticRegression(C=1 / (0.1 * weights.sum()), tol=1e-8, max_iter=10_000)
    expected = expected.fit(inputs, labels, sample_weight=weights).predict_proba(inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert model.classes_.tolist() == sorted({*labels})


def test_pipelines_grids_and_joblib(tmp_path):
    model = JaxnnClassifier((8,), learning_rate=0.02, epochs=40, batch_size=50, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model)
    assert cross_val_score(pipeline, X, FLOWERS, cv=3).mean() > 0.9
    grid = GridSearchCV(pipeline, {"jaxnnclassifier__learning_rate": [1e-6, 0.02]}, cv=3)
    grid.fit(X, FLOWERS)
    assert grid.best_params_ == {"jaxnnclassifier__learning_rate": 0.02}
    joblib.dump(grid, tmp_path / "grid.joblib")
    loaded = joblib.load(tmp_path / "grid.joblib")
    np.testing.assert_array_equal(loaded.predict_proba(X), grid.predict_proba(X))
    assert {*loaded.predict(X)} == {*FLOWERS}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_seed_repeats_and_the_precision_is_of_the_inputs(kind):
    model = JaxnnClassifier((4,), epochs=2, random_state=np.random.RandomState(3))
    inputs = X.astype(kind)
    again = JaxnnClassifier((4,), epochs=2, random_state=np.random.RandomState(3))
    found = model.fit(inputs, LABELS).predict_proba(inputs)
    np.testing.assert_array_equal(found, again.fit(inputs, LABELS).predict_proba(inputs))
    assert found.dtype == kind
    assert not np.array_equal(
        found, again.set_params(random_state=4).fit(X, LABELS).predict_proba(X)
    )


def test_two_classes_by_one_logit():
    two = LABELS < 2
    model = JaxnnClassifier((), loss="logistic", learning_rate=0.05, random_state=0)
    model.fit(X[two], FLOWERS[two])
    assert model.score(X[two], FLOWERS[two]) == 1
    assert model.predict_proba(X[two]).shape == (100, 2)


def test_a_gaussian_regressor_predicts_means():
    targets = X @ [1.0, -1.0, 0.5, 0.0] + DRAWS.normal(size=len(X)) / 4
    model = JaxnnRegressor((), loss="gaussian_nll", learning_rate=0.01, epochs=2000, random_state=0)
    assert model.fit(X, targets).score(X, targets) > 0.8


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (JaxnnClassifier(), np.zeros(150), "y holds 1 class, expected at least 2 classes"),
        (JaxnnClassifier(loss="logistic"), FLOWERS, "y holds 3 classes, expected 2 for logistic"),
        (JaxnnClassifier(epochs=0), FLOWERS, "epochs is 0, expected a positive integer"),
        (JaxnnClassifier((8, -1)), FLOWERS, "hidden_layer_sizes is -1, expected a positive"),
        (JaxnnClassifier(batch_size="all"), FLOWERS, "batch_size is 'all', expected a positive"),
        (JaxnnClassifier(batch_size=0), FLOWERS, "batch_size is 0, expected a positive integer"),
        (JaxnnClassifier((8, "big")), FLOWERS, "hidden_layer_sizes is 'big', expected a positive"),
        (JaxnnClassifier(loss="hinge"), FLOWERS, "loss is 'hinge', expected one of"),
        (JaxnnClassifier(learning_rate=-1), FLOWERS, r"learning_rate is -1.0, expected a"),
        (JaxnnClassifier(class_weight={"rose": 1}), FLOWERS, "classes"),
        (JaxnnRegressor(l2=-1), LABELS, r"l2 is -1.0, expected a finite number of"),
        (JaxnnRegressor(loss="cross_entropy"), LABELS, "expected at least 2 for cross_entropy"),
        (
            JaxnnRegressor(learning_rate=1e12, optimizer="sgd"),
            LABELS,
            "the loss is not finite from iteration .*, expected a learning_rate below",
        ),
    ],
)
def test_bad_arguments_are_refused_in_a_line(model, labels, message):
    with pytest.raises(ValueError, match=message) as raised:
        model.fit(X, labels)
    assert "\n" not in str(raised.value)


def test_jaxnn_does_not_import_scikit_learn():
    program = "import sys, jaxnn, jaxnn.saved_model; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
