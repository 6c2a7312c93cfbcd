"""PyTorch on the CPU: eager, compiled, and many models at once by ``torch.func``.

``foreach`` or ``fused`` SGD, other modes of ``torch.compile``, a compiled optimizer, and autograd
of summed losses are not faster. The worker sets OMP_NUM_THREADS for PyTorch's threads.
"""

# pyright: reportMissingImports=false
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from shutil import which
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from experiments.benchmark import problem as task
from experiments.benchmark.problem import Problem, Train

Parameters = dict[str, Tensor]  # "0.weight" [out, in], "0.bias" [out], "2.weight", ...


class Examples:
    """Examples as tensors, with inputs in float32."""

    def __init__(self, examples: task.Examples):
        self.inputs = torch.from_numpy(examples.inputs)
        self.targets = torch.from_numpy(np.asarray(examples.targets, np.int64))

    def shuffled(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole minibatches of an epoch, in a new order; a DataLoader takes far longer."""
        count = len(self.targets)
        for rows in torch.randperm(count)[: count - count % size].split(size):
            yield self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

    def accuracy(self, logits: Tensor) -> np.ndarray:
        """The share of rightly predicted examples; logits [..., N, classes]."""
        return (logits.argmax(dim=-1) == self.targets).double().mean(dim=-1).numpy()


def network(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU in between, with PyTorch's initial weights."""
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def sgd(model: nn.Module, rate: float, l2: float, **settings: Any) -> torch.optim.Optimizer:
    """SGD with L2 on the weights; a weight decay of w is a penalty of w/2 * w^2."""
    weights = [each for each in model.parameters() if each.ndim > 1]
    biases = [each for each in model.parameters() if each.ndim == 1]
    groups = [{"params": weights, "weight_decay": l2}, {"params": biases}]
    return torch.optim.SGD(groups, lr=rate, **settings)


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, examples: Examples, batch_size: int
) -> None:
    """The loop of PyTorch's tutorials over the training examples."""
    for x, y in examples.shuffled(batch_size):
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def eager(problem: Problem) -> Train:
    """A network at a time, on examples in memory."""
    examples, validation = Examples(problem.train), Examples(problem.validation)

    def train(rate: float, epochs: int, seed: int, evaluate: bool) -> tuple[Parameters, list]:
        torch.manual_seed(seed)
        model, accuracies = network(problem.sizes), []
        optimizer = sgd(model, rate, problem.l2, foreach=False)
        for _ in range(epochs):
            train_epoch(model, optimizer, examples, problem.batch_size)
            if evaluate:
                with torch.no_grad():
                    accuracies.append(validation.accuracy(model(validation.inputs)))
        return dict(model.named_parameters()), accuracies

    return train


def compiled(problem: Problem) -> Train:
    """A graph from the minibatch to the new parameters.

    Sizes and types never change: nothing is checked before a step. The learning rate is an input.
    """
    require_compiler()
    settings: dict[str, Any] = {
        "dynamic": False,
        "options": {"cpp_wrapper": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe},
        "isolate_recompiles": True,  # no programs of a different problem
    }
    return functional(problem, lambda step: torch.compile(step, **settings))


def vmapped(problem: Problem) -> Train:
    """All learning rates at once, as in PyTorch's tutorial on model ensembling."""
    return functional(problem, lambda step: vmap(step, (0, 0, None, None)), at_once=True)


def compiled_vmapped(problem: Problem) -> Train:
    """The vmapped step, compiled: beyond the tutorial."""
    require_compiler()

    def transform(step: Callable) -> Callable:
        return torch.compile(vmap(step, (0, 0, None, None)), dynamic=False)

    return functional(problem, transform, at_once=True)


def functional(
    problem: Problem, transform: Callable[[Callable], Callable], *, at_once: bool = False
) -> Train:
    """Training by a transformed step that is a function of parameters, rate and minibatch."""
    examples, validation = Examples(problem.train), Examples(problem.validation)
    with torch.device("meta"):
        skeleton = network(problem.sizes)

    def logits(parameters: Parameters, x: Tensor) -> Tensor:
        return functional_call(skeleton, parameters, (x,))

    def loss(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits(parameters, x), y)

    def step(parameters: Parameters, rate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradients, value = grad_and_value(loss)(parameters, x, y)
        for name, each in parameters.items():  # in place
            penalty = problem.l2 * each if name.endswith("weight") else 0
            each.sub_(rate * (gradients[name] + penalty))
        return value

    transformed = transform(step)
    predict = vmap(logits, (0, None)) if at_once else logits

    @torch.no_grad()
    def train(rate: Any, epochs: int, seed: int, evaluate: bool) -> tuple[Parameters, list]:
        torch.manual_seed(seed)
        rates, accuracies = torch.tensor(rate, dtype=torch.float32), []
        if at_once:
            stacked, _ = stack_module_state([network(problem.sizes) for _ in rate])
            parameters = {name: each.detach() for name, each in stacked.items()}
        else:
            parameters = network(problem.sizes).state_dict()
        for _ in range(epochs):
            for x, y in examples.shuffled(problem.batch_size):
                transformed(parameters, rates, x, y)
            if evaluate:
                accuracies.append(validation.accuracy(predict(parameters, validation.inputs)))
        return parameters, accuracies

    return train


def require_compiler() -> None:
    """Raises ModuleNotFoundError without ``torch.compile``'s C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if which(compiler) is None:
        raise ModuleNotFoundError(f"torch.compile needs the C++ compiler {compiler}")
