"""scikit-learn: MLPClassifier with plain SGD.

scikit-learn divides its penalty by the size of the minibatch: alpha / (2 B) * sum of squared
weights, biases free. Its own epochs draw a new order each; the inputs stay in float32.
"""

import warnings

import numpy as np
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.peers.numpy_by_hand import as_float
from experiments.benchmark.problem import Problem


class Classifier(OneByOne):
    """``fit`` for all epochs; ``partial_fit``, which is one epoch, where each is evaluated.

    Every class has to be among the training labels: ``fit`` makes no outputs for others.
    """

    model: MLPClassifier  # the last one trained

    def __init__(self, problem: Problem):
        self.problem = problem
        self.inputs = as_float(problem.train)
        self.validation = as_float(problem.validation)
        self.classes = np.arange(problem.sizes[-1])

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        self.model = self.classifier(float(learning_rate), epochs, seed)
        targets, validation = self.problem.train.targets, self.problem.validation.targets
        accuracies = []
        with warnings.catch_warnings(), config_context(assume_finite=True):
            # It is to train for just so many epochs, and not to converge.
            warnings.simplefilter("ignore", ConvergenceWarning)
            if not evaluate:
                self.model.fit(self.inputs, targets)
                return accuracies
            for _ in range(epochs):
                self.model.partial_fit(self.inputs, targets, classes=self.classes)
                accuracies.append(float(self.model.score(self.validation, validation)))
        return accuracies

    def classifier(self, learning_rate: float, epochs: int, seed: int) -> MLPClassifier:
        """The problem's network, which never stops early."""
        return MLPClassifier(
            hidden_layer_sizes=self.problem.sizes[1:-1],
            activation="relu",
            solver="sgd",
            alpha=self.problem.l2 * self.problem.batch_size,
            learning_rate="constant",
            learning_rate_init=learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            max_iter=epochs,
            n_iter_no_change=epochs,
            tol=0.0,
            # A number would start every ``partial_fit`` with the same order.
            random_state=np.random.RandomState(seed),
        ).set_params(batch_size=self.problem.batch_size)
