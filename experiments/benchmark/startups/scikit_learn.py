"""The shortest real run with scikit-learn.

Its ``fit`` goes through whole epochs, whose last minibatch is short: 34 epochs are 510 updates, on
2 % fewer examples than the others see. 500 calls of ``partial_fit`` would take 0.6 s longer.
"""

from sklearn.neural_network import MLPClassifier

from experiments.benchmark.startups import BATCH_SIZE, L2, LEARNING_RATE, STEPS
from experiments.benchmark.startups.digits import load
from experiments.benchmark.startups.stopwatch import finish, reached

reached("imports")
x_train, y_train, x_test, y_test = load()
epochs = round(STEPS / -(-len(y_train) // BATCH_SIZE)) + 1
model = MLPClassifier(
    hidden_layer_sizes=(),
    solver="sgd",
    learning_rate_init=LEARNING_RATE,
    momentum=0,
    alpha=L2 * BATCH_SIZE,  # it divides the penalty by the size of the minibatch
    max_iter=epochs,
    n_iter_no_change=epochs,  # it does not stop early
    random_state=0,
).set_params(batch_size=BATCH_SIZE)
model.fit(x_train, y_train)
finish(model.score(x_test, y_test))
