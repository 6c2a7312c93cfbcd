"""PyTorch on the CPU: eager, compiled, and many models at once by ``torch.func``.

``foreach`` or ``fused`` SGD, other modes of ``torch.compile``, a compiled optimizer, and autograd
of summed losses are not faster, and a DataLoader takes far longer than ``index_select``. The worker
sets OMP_NUM_THREADS for PyTorch's threads.
"""

# pyright: reportMissingImports=false
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from shutil import which
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from experiments.benchmark.problem import Examples, Loop, Problem

Parameters = dict[str, Tensor]  # "0.weight" [out, in], "0.bias" [out], "2.weight", ...
ALL = 0, 0, None, None  # vmap's axes of parameters, rates, inputs, targets


def tensors(examples: Examples) -> tuple[Tensor, Tensor]:
    """Inputs in float32, and targets."""
    targets = np.asarray(examples.targets, np.int64)
    return torch.from_numpy(examples.inputs), torch.from_numpy(targets)


def minibatch(inputs: Tensor, targets: Tensor, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The examples of some rows."""
    index = torch.from_numpy(rows)
    return inputs.index_select(0, index), targets.index_select(0, index)


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


def eager(problem: Problem) -> Loop:
    """A network at a time; the state is the model and the optimizer."""

    def create(seed: int, rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = network(problem.sizes)
        return model, sgd(model, rate, problem.l2, foreach=False)

    def step(state: Any, inputs: Tensor, targets: Tensor, rows: np.ndarray) -> Any:
        model, optimizer = state
        x, y = minibatch(inputs, targets, rows)
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return state

    logits = torch.no_grad()(lambda state, inputs: state[0](inputs))
    return Loop(problem, tensors, create, step, logits)


def by_hand(problem: Problem) -> Loop:
    """Eager without ``torch.optim``, whose first step imports Dynamo; the state has the rate."""

    def create(seed: int, rate: float) -> tuple[nn.Module, float]:
        torch.manual_seed(seed)
        return network(problem.sizes), rate

    def step(state: Any, inputs: Tensor, targets: Tensor, rows: np.ndarray) -> Any:
        model, rate = state
        x, y = minibatch(inputs, targets, rows)
        parameters = tuple(model.parameters())
        gradients = torch.autograd.grad(cross_entropy(model(x), y), parameters)
        with torch.no_grad():
            for each, gradient in zip(parameters, gradients, strict=True):
                penalty = problem.l2 * each if each.ndim > 1 else 0
                each.sub_(rate * (gradient + penalty))
        return state

    return replace(eager(problem), create=create, step=step)


def compiled(problem: Problem) -> Loop:
    """A graph from the minibatch to the new parameters.

    Sizes and types never change: nothing is checked before a step. The learning rate is an input.
    """
    settings: dict[str, Any] = {
        "options": {"cpp_wrapper": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe},
        "isolate_recompiles": True,  # no programs of a different problem
    }
    return functional(problem, lambda step: program(step, **settings))


def vmapped(problem: Problem) -> Loop:
    """All learning rates at once, as in PyTorch's tutorial on model ensembling."""
    return functional(problem, lambda step: vmap(step, ALL), at_once=True)


def compiled_vmapped(problem: Problem) -> Loop:
    """The vmapped step, compiled: beyond the tutorial."""
    return functional(problem, lambda step: program(vmap(step, ALL)), at_once=True)


def program(step: Callable, **settings: Any) -> Callable:
    """``torch.compile``; raises ModuleNotFoundError without a C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if which(compiler) is None:
        raise ModuleNotFoundError(f"torch.compile needs the C++ compiler {compiler}")
    return torch.compile(step, dynamic=False, **settings)


def functional(
    problem: Problem, transform: Callable[[Callable], Callable], *, at_once: bool = False
) -> Loop:
    """Training by a transformed step of parameters and rate, which are the state."""
    with torch.device("meta"):
        skeleton = network(problem.sizes)

    def logits(parameters: Parameters, x: Tensor) -> Tensor:
        return functional_call(skeleton, parameters, (x,))

    def loss(parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits(parameters, x), y)

    def update(parameters: Parameters, rate: Tensor, x: Tensor, y: Tensor) -> Tensor:
        gradients, value = grad_and_value(loss)(parameters, x, y)
        for name, each in parameters.items():  # in place
            penalty = problem.l2 * each if name.endswith("weight") else 0
            each.sub_(rate * (gradients[name] + penalty))
        return value

    transformed, predict = transform(update), vmap(logits, (0, None)) if at_once else logits

    def create(seed: int, rate: Any) -> tuple[Parameters, Tensor]:
        torch.manual_seed(seed)
        rates = torch.tensor(rate, dtype=torch.float32)
        if not at_once:
            return network(problem.sizes).state_dict(), rates
        stacked, _ = stack_module_state([network(problem.sizes) for _ in rate])
        return {name: each.detach() for name, each in stacked.items()}, rates

    @torch.no_grad()
    def step(state: Any, inputs: Tensor, targets: Tensor, rows: np.ndarray) -> Any:
        transformed(*state, *minibatch(inputs, targets, rows))
        return state

    return Loop(problem, tensors, create, step, lambda state, inputs: predict(state[0], inputs))
