"""Estimators of scikit-learn's interface: ``JaxnnClassifier`` and ``JaxnnRegressor``.

Both work in ``Pipeline``, ``cross_val_score`` and ``GridSearchCV``, and are pickled with joblib.
Inputs in float32 train in float32, all others in float64, as in scikit-learn. Grids over the
learning rate and L2 share a compiled program.
"""

# The arguments have the names of scikit-learn.
# ruff: noqa: N803, N806

from contextlib import AbstractContextManager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import jax
import numpy as np

from jaxnn.mlp import MLP
from jaxnn.saved_model import SavedModel
from jaxnn.spec import Spec
from jaxnn.train import NEVER, train
from jaxnn.types import Data, Hyper, require, require_count

require("search", "sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402
from sklearn.utils import check_random_state  # noqa: E402
from sklearn.utils.class_weight import compute_sample_weight  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

_TYPES = np.float64, np.float32
_LARGEST_BATCH = 200  # of batch_size="auto", as in scikit-learn's MLPClassifier


def _precision(inputs: np.ndarray) -> AbstractContextManager:
    """Computation in the precision of the inputs."""
    return jax.enable_x64(inputs.dtype == np.float64)


@dataclass(eq=False, repr=False)
class _Network(BaseEstimator):
    """The common part of both estimators: a multilayer perceptron trained by ``jaxnn.train``."""

    hidden_layer_sizes: Any = (100,)
    _: KW_ONLY
    activation: Any = "relu"
    loss: Any = "cross_entropy"
    optimizer: Any = "adam"
    learning_rate: float = 1e-3
    schedule: Any = "constant"
    l2: float = 1e-4
    epochs: int = 200
    batch_size: Any = "auto"
    random_state: Any = None

    def _fitted(self, inputs: np.ndarray, targets: np.ndarray, weights: Any, outputs: int) -> None:
        """Trains the network on checked arrays."""
        hidden = np.atleast_1d(np.asarray(self.hidden_layer_sizes, dtype=object))
        hidden = [require_count("hidden_layer_sizes", units) for units in hidden]
        epochs, size = require_count("epochs", self.epochs), self.batch_size
        size = _LARGEST_BATCH if size == "auto" else require_count("batch_size", size)
        size = min(size, len(inputs))
        spec = Spec(
            MLP((inputs.shape[1], *hidden, outputs), activation=self.activation),
            steps=epochs * -(-len(inputs) // size),
            batch_size=size,
            loss=self.loss,
            optimizer=self.optimizer,
            schedule=self.schedule,
        )
        hyper = Hyper(self.learning_rate, self.l2)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with _precision(inputs):
            state, history = train(spec, hyper, seed, Data(inputs, targets, weights=weights))
            params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], state.params)
        if (first := int(state.diverged_at)) != NEVER:
            raise ValueError(
                f"the loss is not finite from iteration {first}, expected a learning_rate below "
                f"{self.learning_rate}, or inputs of smaller scale"
            )
        self.n_iter_ = epochs
        self.loss_ = float(history.metrics["train"].loss[-1])
        known = spec.loss if isinstance(spec.loss, str) else None
        real = isinstance(self, RegressorMixin)
        self.model_ = SavedModel(spec.model, params, known, 1.0, {}, regression=real)

    def _answers(self, method: str, X: Any, **options: Any) -> np.ndarray:
        """A method of the saved model, in the precision of the inputs."""
        check_is_fitted(self)
        inputs: Any = validate_data(self, X, reset=False, dtype=_TYPES)
        with _precision(inputs):
            return getattr(self.model_, method)(inputs, **options)


@dataclass(eq=False, repr=False)
class JaxnnClassifier(ClassifierMixin, _Network):
    """A multilayer perceptron as a classifier of scikit-learn.

    Args:
      hidden_layer_sizes: units of the hidden layers; () is softmax regression.
      activation: "relu", "sigmoid", "tanh" or an elementwise function.
      loss: "cross_entropy", "squared_error", "focal", "logistic" (of 2 classes), or a function
        (logits, target) -> scalar.
      optimizer: as in ``jaxnn.Spec``.
      learning_rate: of the optimizer.
      schedule: as in ``jaxnn.Spec``.
      l2: strength of l2/2 * sum of squared weights; biases do not count.
      epochs: passes over the examples.
      batch_size: examples of a minibatch, at most all; "auto" is 200.
      class_weight: {label: weight}, "balanced", or None.
      random_state: draws the parameters and the order of the examples.

    Attributes:
      classes_: the labels, sorted.
      model_: the trained ``jaxnn.saved_model.SavedModel``.
      loss_: of the training examples after the last epoch, unweighted and without penalty.

    Example:
      >>> from sklearn.datasets import load_iris
      >>> from jaxnn.estimators import JaxnnClassifier
      >>> X, y = load_iris(return_X_y=True)
      >>> model = JaxnnClassifier((16,), learning_rate=0.01, random_state=0)
      >>> bool(model.fit(X, y).score(X, y) > 0.9)
      True
    """

    class_weight: Any = field(default=None, kw_only=True)

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "JaxnnClassifier":
        """Trains a network from inputs [N, in], labels [N] and perhaps weights [N].

        Raises:
          ValueError: labels of a single class, or arguments that do not fit.
        """
        X, y = validate_data(self, X, y, dtype=_TYPES)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds 1 class, expected at least 2 classes")
        if self.loss == "logistic" and len(self.classes_) > 2:
            raise ValueError(f"y holds {len(self.classes_)} classes, expected 2 for logistic")
        weights = None
        if sample_weight is not None or self.class_weight is not None:
            weights = _check_sample_weight(sample_weight, X)
            weights = weights * compute_sample_weight(self.class_weight, y)
        outputs = 1 if self.loss == "logistic" else len(self.classes_)
        self._fitted(X, targets.astype(np.int32), weights, outputs)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The labels [N] of inputs [N, in]."""
        found = self._answers("predict", X)
        return self.classes_[found]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probabilities [N, C] of the classes, in the order of ``classes_``."""
        return self._answers("probabilities", X)


@dataclass(eq=False, repr=False)
class JaxnnRegressor(RegressorMixin, _Network):
    """A multilayer perceptron as a regressor of scikit-learn.

    Args:
      hidden_layer_sizes: units of the hidden layers; () is linear regression.
      loss: "mse", "mae", "huber", "gaussian_nll" (predicts the means), or a function
        (outputs, target) -> scalar.
      activation, optimizer, learning_rate, schedule, l2, epochs, batch_size, random_state: as in
        ``JaxnnClassifier``.

    Attributes:
      model_: the trained ``jaxnn.saved_model.SavedModel``.
      loss_: of the training examples after the last epoch, unweighted and without penalty.

    Example:
      >>> import numpy as np
      >>> from jaxnn.estimators import JaxnnRegressor
      >>> X = np.linspace(-1, 1, 50)[:, None]
      >>> model = JaxnnRegressor((), learning_rate=0.1, l2=0.0, random_state=0)
      >>> model.fit(X, 3 * X[:, 0] + 1).predict([[0.5]]).round(2).tolist()
      [2.5]
    """

    loss: Any = field(default="mse", kw_only=True)

    def __sklearn_tags__(self) -> Any:
        """The abilities of the estimator: several targets at once."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "JaxnnRegressor":
        """Trains a network from inputs [N, in], targets [N] or [N, K], and perhaps weights [N].

        Raises:
          ValueError: arguments that do not fit.
        """
        X, y = validate_data(self, X, y, dtype=_TYPES, multi_output=True, y_numeric=True)
        y = np.asarray(y, X.dtype)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        columns = y.shape[1] if y.ndim == 2 else 1
        self._fitted(X, y, weights, columns * (2 if self.loss == "gaussian_nll" else 1))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted targets, [N] or [N, K]."""
        return self._answers("predict", X)
