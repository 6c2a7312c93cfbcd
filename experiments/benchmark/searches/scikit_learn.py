"""scikit-learn: RandomizedSearchCV and HalvingRandomSearchCV of an MLPClassifier.

Randomized search trains every configuration to the end; halving trains the best third of the
configurations three times as long, from the beginning.
"""

from typing import Any

import numpy as np
from scipy.stats import loguniform
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingRandomSearchCV, PredefinedSplit, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier

from experiments.benchmark.peers.scikit_learn import classifier
from experiments.benchmark.searches.job import Job, tell


def method(job: Job) -> tuple[type, dict[str, Any]]:
    """The class of the search, and the budget."""
    if job.method == "randomized":
        return RandomizedSearchCV, {"n_iter": job.configurations}
    return HalvingRandomSearchCV, {
        "n_candidates": job.configurations,
        "resource": "max_iter",
        "max_resources": job.epochs,
        "return_train_score": False,
    }


def main() -> None:
    """Searches."""
    job = Job.given()
    train, validation = job.examples
    inputs = np.concatenate([train.inputs, validation.inputs])
    targets = np.concatenate([train.targets, validation.targets])
    always, held_out = -1, 0  # PredefinedSplit's marks of examples that train and validate
    fold = np.repeat([always, held_out], [len(train.targets), len(validation.targets)])
    kind, budget = method(job)
    search = kind(
        network(job),
        {
            "learning_rate_init": loguniform(*job.learning_rate),
            "alpha": loguniform(*(alpha(job, l2) for l2 in job.l2)),
        },
        scoring=score,
        cv=PredefinedSplit(fold),
        n_jobs=job.processes,
        refit=False,
        random_state=job.seed,
        **budget,
    )
    search.fit(inputs, targets)


def alpha(job: Job, l2: float) -> float:
    """The penalty for MLPClassifier, which divides alpha by the size of the minibatch."""
    return l2 * job.batch_size


def network(job: Job) -> MLPClassifier:
    """The network, with heavy-ball momentum."""
    settings = {"momentum": job.momentum, "random_state": job.seed}
    return classifier(job.sizes, job.batch_size, job.epochs, **settings)


def score(model: MLPClassifier, inputs: np.ndarray, targets: np.ndarray) -> float:
    """The share of right predictions, printed at once."""
    accuracy = model.score(inputs, targets)
    tell(accuracy)
    return accuracy


if __name__ == "__main__":
    main()
