"""PyTorch on the CPU: eager, compiled, and many models at once by ``torch.func``.

What was tried, in microseconds of one core per step of one model (softmax / 784-50-50-10):

* Eager: SGD as a loop over tensors 280 / 530, ``fused`` 290 / 550, ``foreach`` 310 / 590.
  ``index_select`` gathers a minibatch in 33, indexing in 81, a whole epoch at once in 170 a step.
* ``torch.compile`` of the loss, with eager backward pass and optimizer 370 / 630; of all three, as
  in the tutorial on compiled optimizers, 410 / 660; of the same step by ``torch.func.grad``, one
  graph without autograd's records, 150 / 360. In that one max-autotune and reduce-overhead change
  no more than noise does; without guards 110 / 300 (softmax: as fast as ten steps in one graph),
  and the C++ wrapper takes another 0 to 8 % off.
* 64 models, per model and step: vmap 77 to 85 / 290 to 335, compiled 38 / 157; max-autotune, the
  C++ wrapper, and autograd of the summed losses are not faster.

Threads follow OMP_NUM_THREADS, which the worker sets.
"""

# pyright: reportMissingImports=false
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from shutil import which
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from experiments.benchmark.contender import OneByOne
from experiments.benchmark.peers.numpy_by_hand import as_float
from experiments.benchmark.problem import Problem
from jaxnn import Data

Parameters = dict[str, Tensor]  # "0.weight" [out, in], "0.bias" [out], "2.weight", ...


class Eager(OneByOne):
    """The loop of PyTorch's tutorials, on examples that are in memory already."""

    parameters: Parameters  # of the last model trained

    def __init__(self, problem: Problem):
        self.problem = problem
        self.examples, self.validation = Examples(problem.train), Examples(problem.validation)

    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        torch.manual_seed(seed)
        model = network(self.problem.sizes)
        self.parameters = dict(model.named_parameters())
        optimizer = torch.optim.SGD(self.groups(), lr=learning_rate, foreach=False)
        accuracies = []
        for _ in range(epochs):
            for x, y in self.examples.shuffled(self.problem.batch_size):
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if evaluate:
                with torch.no_grad():
                    accuracies.append(self.validation.accuracy(model(self.validation.inputs)))
        return accuracies

    def groups(self) -> list[dict]:
        """The parameters with their penalties; weight decay w is a penalty of w/2 * w^2."""
        weights = [each for name, each in self.parameters.items() if is_weight(name)]
        biases = [each for name, each in self.parameters.items() if not is_weight(name)]
        return [{"params": weights, "weight_decay": self.problem.l2}, {"params": biases}]


class Compiled(OneByOne):
    """One graph from the minibatch to the new parameters.

    Sizes and types never change, so nothing is checked before a step; a learning rate is an input.
    """

    parameters: Parameters  # of the last model trained

    def __init__(self, problem: Problem):
        require_compiler()
        self.problem = problem
        self.examples, self.validation = Examples(problem.train), Examples(problem.validation)
        self.model = Functional(problem)
        settings: dict[str, Any] = {
            "dynamic": False,
            "options": {
                "cpp_wrapper": True,
                "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
            },
            "isolate_recompiles": True,  # what was compiled for another problem is not taken
        }
        self.step = torch.compile(self.model.step, **settings)

    @torch.no_grad()
    def train_one(
        self, learning_rate: float, epochs: int, seed: int, *, evaluate: bool
    ) -> list[float]:
        """See ``OneByOne.train_one``."""
        torch.manual_seed(seed)
        self.parameters = network(self.problem.sizes).state_dict()
        rate, accuracies = torch.tensor(learning_rate, dtype=torch.float32), []
        for _ in range(epochs):
            for x, y in self.examples.shuffled(self.problem.batch_size):
                self.step(self.parameters, rate, x, y)
            if evaluate:
                logits = self.model.logits(self.parameters, self.validation.inputs)
                accuracies.append(self.validation.accuracy(logits))
        return accuracies


class Vmapped:
    """All learning rates at once, as in PyTorch's tutorial on model ensembling."""

    parameters: Parameters  # of the last population trained, [K, ...]

    def __init__(self, problem: Problem):
        self.problem = problem
        self.examples, self.validation = Examples(problem.train), Examples(problem.validation)
        self.model = Functional(problem)
        self.step = vmap(self.model.step, (0, 0, None, None))

    @torch.no_grad()
    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool
    ) -> np.ndarray | None:
        """See ``Contender.train``."""
        torch.manual_seed(seed)
        models = [network(self.problem.sizes) for _ in learning_rates]
        stacked, _ = stack_module_state(models)
        self.parameters = {name: each.detach() for name, each in stacked.items()}
        rates, accuracies = torch.tensor(learning_rates, dtype=torch.float32), []
        for _ in range(epochs):
            for x, y in self.examples.shuffled(self.problem.batch_size):
                self.step(self.parameters, rates, x, y)
            if evaluate:
                logits = vmap(self.model.logits, (0, None))(self.parameters, self.validation.inputs)
                accuracies.append([self.validation.accuracy(each) for each in logits])
        return np.array(accuracies).T if evaluate else None


class CompiledVmapped(Vmapped):
    """The same step for all, compiled, which the tutorial does not do."""

    def __init__(self, problem: Problem):
        require_compiler()
        super().__init__(problem)
        self.step = torch.compile(self.step, dynamic=False)


class Functional:
    """The network as functions of its parameters."""

    def __init__(self, problem: Problem):
        with torch.device("meta"):
            self.skeleton = network(problem.sizes)
        self.l2 = problem.l2

    def logits(self, parameters: Parameters, x: Tensor) -> Tensor:
        """What the network makes of a minibatch."""
        return functional_call(self.skeleton, parameters, (x,))

    def loss(self, parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        """The mean cross-entropy."""
        return cross_entropy(self.logits(parameters, x), y)

    def step(self, parameters: Parameters, rate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """One step of gradient descent, in place; the loss before it."""
        gradients, loss = grad_and_value(self.loss)(parameters, x, y)
        for name, each in parameters.items():
            penalty = self.l2 * each if is_weight(name) else 0
            each.sub_(rate * (gradients[name] + penalty))
        return loss


class Examples:
    """Examples as tensors, their inputs in float32."""

    def __init__(self, data: Data):
        self.inputs = torch.from_numpy(as_float(data))
        self.targets = torch.from_numpy(np.asarray(data.targets, np.int64))

    def shuffled(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole minibatches of an epoch, in a new order."""
        count = len(self.targets)
        for rows in torch.randperm(count)[: count - count % size].split(size):
            yield self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

    def accuracy(self, logits: Tensor) -> float:
        """The share whose largest logit is that of their class."""
        return (logits.argmax(dim=1) == self.targets).double().mean().item()


def network(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them, with PyTorch's own initial weights."""
    layers = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def is_weight(name: str) -> bool:
    """Whether the penalty falls on a parameter."""
    return name.endswith("weight")


def require_compiler() -> None:
    """What ``torch.compile`` needs on a CPU.

    Raises:
      ModuleNotFoundError: there is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if which(compiler) is None:
        raise ModuleNotFoundError(f"torch.compile needs the C++ compiler {compiler}")
