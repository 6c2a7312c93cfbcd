"""scikit-learn: MLPClassifier with plain SGD.

``fit`` for all epochs; ``partial_fit``, a single epoch, where every epoch is evaluated. Every class
has to be among the training labels: ``fit`` makes no outputs for missing classes. Every epoch draws
a new order; the inputs stay in float32.
"""

import warnings
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from experiments.benchmark.problem import Problem, Train


def prepare(problem: Problem) -> Train:
    """A network at a time."""
    inputs, targets = problem.train.inputs, problem.train.targets
    validation, classes = problem.validation.inputs, np.arange(problem.sizes[-1])

    def train(rate: float, epochs: int, seed: int, evaluate: bool) -> tuple[MLPClassifier, list]:
        model, accuracies = classifier(problem.sizes, problem.batch_size, epochs), []
        model.set_params(
            learning_rate_init=float(rate),
            momentum=0.0,
            alpha=alpha(problem.l2, problem.batch_size),
            # A number would start every ``partial_fit`` with an equal order.
            random_state=np.random.RandomState(seed),
        )
        with warnings.catch_warnings(), config_context(assume_finite=True):
            # The number of epochs is given: a warning of no convergence would say nothing.
            warnings.simplefilter("ignore", ConvergenceWarning)
            if not evaluate:
                model.fit(inputs, targets)
            for _ in range(epochs if evaluate else 0):
                model.partial_fit(inputs, targets, classes=classes)
                accuracies.append(float(model.score(validation, problem.validation.targets)))
        return model, accuracies

    return train


def alpha(l2: float, batch_size: int) -> float:
    """The penalty for MLPClassifier, alpha / (2 B) * sum of squared weights, biases free."""
    return l2 * batch_size


def classifier(sizes: tuple[int, ...], batch_size: int, epochs: int, **more: Any) -> MLPClassifier:
    """SGD for a number of epochs, without early stopping; without hidden layers, softmax."""
    return MLPClassifier(
        hidden_layer_sizes=tuple(sizes[1:-1]),
        solver="sgd",
        nesterovs_momentum=False,
        max_iter=epochs,
        n_iter_no_change=epochs,
        tol=0.0,
        **more,
    ).set_params(batch_size=batch_size)
