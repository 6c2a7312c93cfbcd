"""Optuna and PyTorch, after Optuna's example of the two: TPE, and the median prunes.

Several processes share the study through a journal file, with one thread of PyTorch each.
"""
# pyright: reportMissingImports=false

import multiprocessing
import tempfile
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import nn
from torch.nn.functional import cross_entropy

from experiments.benchmark.peers.pytorch import Examples, network, parameter_groups
from experiments.benchmark.searches.job import Job, tell


def main() -> None:
    """Searches."""
    job = Job.given()
    torch.set_num_threads(1)
    train, validation = map(Examples, job.examples)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.log"
        optuna.create_study(storage=storage(journal), study_name="search", direction="maximize")
        fork = multiprocessing.get_context("fork")  # shares the examples
        workers = [
            fork.Process(target=work, args=(index, job, journal, train, validation))
            for index in range(job.processes)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode:
                raise SystemExit(worker.exitcode)


def storage(journal: Path) -> JournalStorage:
    """The trials of all processes."""
    return JournalStorage(JournalFileBackend(str(journal)))


def work(index: int, job: Job, journal: Path, train: Examples, validation: Examples) -> None:
    """Tries a process's share of the configurations."""
    seed = job.seed * job.processes + index
    torch.manual_seed(seed)
    study = optuna.load_study(
        storage=storage(journal),
        study_name="search",
        sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(),
    )
    share = len(range(index, job.configurations, job.processes))
    study.optimize(lambda trial: objective(trial, job, train, validation), n_trials=share)


def objective(trial: optuna.Trial, job: Job, train: Examples, validation: Examples) -> float:
    """Trains a configuration, unless the median of earlier configurations is better."""
    model = network(job.sizes)
    rate = trial.suggest_float("learning_rate", *job.learning_rate, log=True)
    optimizer = sgd(model, rate, trial.suggest_float("l2", *job.l2, log=True), job.momentum)
    accuracy = 0.0
    for epoch in range(job.epochs):
        train_epoch(model, optimizer, train, job.batch_size)
        with torch.inference_mode():
            accuracy = float(validation.accuracy(model(validation.inputs)))
        tell(accuracy)
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def sgd(model: nn.Module, rate: float, l2: float, momentum: float) -> torch.optim.Optimizer:
    """Heavy ball, with L2 on the weights; fused, a tenth faster than the default."""
    groups = parameter_groups(dict(model.named_parameters()), l2)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, fused=True)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Examples, batch_size: int
) -> None:
    """A pass over the training examples, gathered by index: a DataLoader takes far longer."""
    for inputs, targets in train.shuffled(batch_size):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()


if __name__ == "__main__":
    main()
