"""Optuna and PyTorch, after Optuna's example of the two: TPE, and the median prunes.

Several processes share the study through a journal file, with one thread of PyTorch each.
"""
# pyright: reportMissingImports=false

import multiprocessing
import tempfile
from itertools import pairwise
from pathlib import Path

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor, nn
from torch.nn import functional

from experiments.benchmark.searches.common import Job, examples, tell

Tensors = tuple[Tensor, Tensor]  # inputs [N, in], targets [N]


def main() -> None:
    """Searches."""
    job = Job.given()
    torch.set_num_threads(1)
    train, validation = (
        (torch.from_numpy(some.inputs), torch.from_numpy(some.targets).long())
        for some in examples(job)
    )
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
    """What the processes know of each other's trials."""
    return JournalStorage(JournalFileBackend(str(journal)))


def work(index: int, job: Job, journal: Path, train: Tensors, validation: Tensors) -> None:
    """Tries one process's share of the configurations."""
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


def objective(trial: optuna.Trial, job: Job, train: Tensors, validation: Tensors) -> float:
    """Trains a configuration, unless it is worse than the median of those before it."""
    model = network(job.sizes)
    optimizer = sgd(
        model,
        learning_rate=trial.suggest_float("learning_rate", *job.learning_rate, log=True),
        l2=trial.suggest_float("l2", *job.l2, log=True),
        momentum=job.momentum,
    )
    accuracy = 0.0
    for epoch in range(job.epochs):
        train_epoch(model, optimizer, train, job.batch_size)
        accuracy = accuracy_of(model, validation)
        tell(accuracy)
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def network(sizes: tuple[int, ...]) -> nn.Sequential:
    """Affine maps, ReLU between them."""
    layers: list[nn.Module] = []
    for into, out in pairwise(sizes):
        layers += [nn.Linear(into, out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sgd(
    model: nn.Module, *, learning_rate: float, l2: float, momentum: float
) -> torch.optim.Optimizer:
    """Heavy ball, with L2 on the weights."""
    parameters = dict(model.named_parameters())
    weights = [p for name, p in parameters.items() if name.endswith("weight")]
    biases = [p for name, p in parameters.items() if name.endswith("bias")]
    return torch.optim.SGD(
        [{"params": weights, "weight_decay": l2}, {"params": biases}],
        lr=learning_rate,
        momentum=momentum,
        fused=True,  # up to a tenth faster than the default
    )


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Tensors, batch_size: int
) -> None:
    """One pass over the training examples, gathered by index: a DataLoader takes far longer."""
    inputs, targets = train
    for rows in torch.randperm(len(inputs)).split(batch_size):
        optimizer.zero_grad()
        logits = model(inputs.index_select(0, rows))
        functional.cross_entropy(logits, targets.index_select(0, rows)).backward()
        optimizer.step()


@torch.inference_mode()
def accuracy_of(model: nn.Module, validation: Tensors) -> float:
    """The share of right predictions."""
    inputs, targets = validation
    return (model(inputs).argmax(1) == targets).float().mean().item()


if __name__ == "__main__":
    main()
