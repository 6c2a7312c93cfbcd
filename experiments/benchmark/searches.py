"""Searches as whole programs, written after the documentation of each library.

``python -m experiments.benchmark.searches NAME JOB`` prints every accuracy on the validation
examples. A search imports NumPy and the library of the search alone.
"""

# pyright: reportMissingImports=false
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmark.problem import Problem, restore

FACTOR = 3  # Hyperband's default


class Job(NamedTuple):
    """A search of learning rate and L2, both log-uniform, equal for all libraries.

    Trainings are those of ``Problem``, with heavy-ball momentum.
    """

    method: str  # a method of the library
    data: str  # the folder of the examples, written by ``problem.store``
    sizes: tuple[int, ...]
    configurations: int
    epochs: int  # at most, of a configuration
    seed: int
    processes: int  # at most, at a time
    learning_rate: tuple[float, float]  # smallest and largest
    l2: tuple[float, float]
    momentum: float
    batch_size: int

    @property
    def problem(self) -> Problem:
        """The network and the examples; the imports end before the examples are read."""
        tell(imported=1)
        return restore(Path(self.data), tuple(self.sizes), self.batch_size)


def tell(**entry: float) -> None:
    """Prints ``imported``, or the ``accuracy`` of a model on the validation examples, as JSON."""
    line = json.dumps({name: float(value) for name, value in entry.items()})
    sys.stdout.write(line + "\n")  # in a single call: several processes share the pipe
    sys.stdout.flush()


def jaxnn(job: Job) -> None:
    """All configurations train together, at random or by successive halving."""
    import jax

    from jaxnn import Data
    from jaxnn import search as methods
    from jaxnn.devices import use_all_cores, use_compilation_cache

    problem = job.problem
    use_all_cores()
    use_compilation_cache()
    given = methods.given(Data(*problem.validation))
    task = methods.Task(Data(*problem.train), epochs=job.epochs, validation=given, measure="error")
    space = {
        "learning_rate": methods.log_uniform(*job.learning_rate),
        "l2": methods.log_uniform(*job.l2),
        "momentum": methods.fixed(job.momentum),
        "batch_size": methods.fixed(job.batch_size),
        "hidden": methods.fixed(tuple(job.sizes[1:-1])),
    }

    def show(status: methods.Status) -> None:
        if status.best <= 1:  # infinite before the first evaluation
            tell(accuracy=1 - status.best)

    method = getattr(methods, job.method)(job.configurations)
    methods.search(task, space, method=method, key=jax.random.key(job.seed), progress=show)


def optuna(job: Job) -> None:
    """Optuna and PyTorch, after Optuna's example of the two: TPE, and the median prunes.

    Several processes share the study through a journal file, with one thread of PyTorch each.
    """
    import multiprocessing

    import optuna
    import torch
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    from experiments.benchmark.peers import pytorch

    loop = pytorch.eager(job.problem)
    torch.set_num_threads(1)

    def storage() -> JournalStorage:
        return JournalStorage(JournalFileBackend(f"{folder}/journal.log"))

    def work(index: int) -> None:
        seed = job.seed * job.processes + index
        torch.manual_seed(seed)
        study = optuna.load_study(
            storage=storage(),
            study_name="search",
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            pruner=optuna.pruners.MedianPruner(),
        )
        study.optimize(objective, n_trials=len(range(index, job.configurations, job.processes)))

    def objective(trial: optuna.Trial) -> float:
        model = pytorch.network(job.sizes)
        rate = trial.suggest_float("learning_rate", *job.learning_rate, log=True)
        l2 = trial.suggest_float("l2", *job.l2, log=True)
        optimizer = pytorch.sgd(model, rate, l2, momentum=job.momentum, fused=True)
        accuracy, generator = 0.0, np.random.default_rng([job.seed, trial.number])
        for epoch in range(job.epochs):
            state = loop.epoch((model, optimizer), generator)
            accuracy = float(loop.accuracy(state))
            tell(accuracy=accuracy)
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    with tempfile.TemporaryDirectory() as folder:
        optuna.create_study(storage=storage(), study_name="search", direction="maximize")
        fork = multiprocessing.get_context("fork")  # shares the examples
        workers = [fork.Process(target=work, args=(index,)) for index in range(job.processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if failed := max(abs(worker.exitcode or 0) for worker in workers):
        raise SystemExit(failed)


def scikit_learn(job: Job) -> None:
    """RandomizedSearchCV or HalvingRandomSearchCV of an MLPClassifier.

    Randomized search trains every configuration to the end; halving trains the best third of the
    configurations three times as long, from the beginning.
    """
    from scipy.stats import loguniform
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingRandomSearchCV, PredefinedSplit, RandomizedSearchCV

    from experiments.benchmark.peers.scikit_learn import alpha, classifier

    def score(model: Any, inputs: np.ndarray, targets: np.ndarray) -> float:
        accuracy = model.score(inputs, targets)
        tell(accuracy=accuracy)
        return accuracy

    problem = job.problem
    train, validation = problem.train, problem.validation
    fold = np.repeat([-1, 0], [len(train.targets), len(validation.targets)])  # train, validate
    shape = job.sizes, job.batch_size, job.epochs
    model = classifier(*shape, momentum=job.momentum, random_state=job.seed)
    space = {
        "learning_rate_init": loguniform(*job.learning_rate),
        "alpha": loguniform(*(alpha(l2, job.batch_size) for l2 in job.l2)),
    }
    kind: Any = RandomizedSearchCV
    budget: dict[str, Any] = {"n_iter": job.configurations}
    if job.method == "halving":
        kind, budget = HalvingRandomSearchCV, {"n_candidates": job.configurations}
        budget |= {"resource": "max_iter", "max_resources": job.epochs, "return_train_score": False}
    search = kind(
        model,
        space,
        scoring=score,
        cv=PredefinedSplit(fold),
        n_jobs=job.processes,
        refit=False,
        random_state=job.seed,
        **budget,
    )
    inputs = np.concatenate([train.inputs, validation.inputs])
    search.fit(inputs, np.concatenate([train.targets, validation.targets]))


def keras_tuner(job: Job) -> None:
    """Keras Tuner's Hyperband, with Keras on JAX.

    Keras Tuner's RandomSearch takes ten times as long to a model as good.
    """
    import keras
    import keras_tuner

    from experiments.benchmark.peers.keras_on_jax import compiled

    class Tell(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            tell(accuracy=logs["val_accuracy"])

    def network(values: Any) -> keras.Model:
        rate = values.Float("learning_rate", *job.learning_rate, sampling="log")
        l2 = values.Float("l2", *job.l2, sampling="log")
        return compiled(job.sizes, rate, l2, job.momentum)

    problem = job.problem
    keras.utils.set_random_seed(job.seed)
    ends = 1 + math.log(job.epochs, FACTOR)
    brackets = [math.ceil(ends) / (s + 1) * FACTOR**s for s in range(int(ends))]
    per_iteration = sum(map(math.ceil, brackets))  # configurations
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            network,
            objective="val_accuracy",
            max_epochs=job.epochs,
            factor=FACTOR,
            hyperband_iterations=max(1, round(job.configurations / per_iteration)),
            seed=job.seed,
            directory=folder,
        )
        tuner.search(
            problem.train.inputs,
            problem.train.targets,
            batch_size=job.batch_size,
            epochs=job.epochs,
            validation_data=(problem.validation.inputs, problem.validation.targets),
            callbacks=[Tell()],
            verbose=0,
        )


if __name__ == "__main__":
    programs = {each.__name__: each for each in (jaxnn, optuna, scikit_learn, keras_tuner)}
    programs[sys.argv[1]](Job(**json.loads(sys.argv[2])))
