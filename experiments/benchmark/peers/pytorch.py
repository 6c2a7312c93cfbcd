"""PyTorch on the CPU: eager, compiled, and many models at once by ``torch.func``.

Tried, in microseconds of a core per step and model (softmax / 784-50-50-10):

* Eager: SGD as a loop over tensors 280 / 530, ``fused`` 290 / 550, ``foreach`` 310 / 590.
  ``index_select`` gathers a minibatch in 33, indexing in 81, a whole epoch at once in 170 a step.
* ``torch.compile`` of the loss, with eager backward pass and optimizer 370 / 630; of all three, as
  in the tutorial on compiled optimizers, 410 / 660; of the step by ``torch.func.grad``, a
  graph without autograd's records, 150 / 360. Max-autotune and reduce-overhead change no more than
  noise does; without guards 110 / 300, and the C++ wrapper takes 0 to 8 % off.
* 64 models, per model and step: vmap 77 to 85 / 290 to 335, compiled 38 / 157; max-autotune, the
  C++ wrapper, and autograd of the summed losses are not faster.

The worker sets OMP_NUM_THREADS for PyTorch's threads.
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
from experiments.benchmark.contender import Train
from experiments.benchmark.problem import Problem

Parameters = dict[str, Tensor]  # "0.weight" [out, in], "0.bias" [out], "2.weight", ...


class Examples:
    """Examples as tensors, with inputs in float32."""

    def __init__(self, examples: task.Examples):
        self.inputs = torch.from_numpy(examples.inputs)
        self.targets = torch.from_numpy(np.asarray(examples.targets, np.int64))

    def shuffled(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole minibatches of an epoch, in a new order."""
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


def parameter_groups(parameters: Parameters, l2: float) -> list[dict]:
    """The parameters with their penalties; weight decay w is a penalty of w/2 * w^2."""
    weights = [each for name, each in parameters.items() if name.endswith("weight")]
    biases = [each for name, each in parameters.items() if name.endswith("bias")]
    return [{"params": weights, "weight_decay": l2}, {"params": biases}]


def eager(problem: Problem) -> Train:
    """The loop of PyTorch's tutorials, on examples in memory."""
    examples, validation = Examples(problem.train), Examples(problem.validation)

    def train(
        rate: float, epochs: int, seed: int, evaluate: bool
    ) -> tuple[Parameters, list[np.ndarray]]:
        torch.manual_seed(seed)
        model, accuracies = network(problem.sizes), []
        parameters = dict(model.named_parameters())
        groups = parameter_groups(parameters, problem.l2)
        optimizer = torch.optim.SGD(groups, lr=rate, foreach=False)
        for _ in range(epochs):
            for x, y in examples.shuffled(problem.batch_size):
                loss = cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if evaluate:
                with torch.no_grad():
                    accuracies.append(validation.accuracy(model(validation.inputs)))
        return parameters, accuracies

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
    def train(
        rate: Any, epochs: int, seed: int, evaluate: bool
    ) -> tuple[Parameters, list[np.ndarray]]:
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
