"""PyTorch: ``torch.autograd.gradcheck`` of an ``autograd.Function`` with the claimed backward.

Every entry of the Jacobian against centred differences, or with ``fast_mode`` a random direction;
further arguments are the defaults.
"""

# pyright: reportMissingImports=false

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch

from experiments.benchmark.checkers import Checker, Point, Statement
from jaxnn.verify.graph import jit


def check_of(statement: Statement, *, fast_mode: bool) -> Callable[[Point], None]:
    """Checks a statement at a point."""
    function, derivative = map(jit, statement)

    def check(point: Point) -> None:
        class Stated(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *parts):
                ctx.save_for_backward(*parts)
                return torch.tensor(np.asarray(function(arrays(parts), point.inputs)))

            @staticmethod
            def backward(ctx, gradient):
                derivatives = derivative(arrays(ctx.saved_tensors), point.inputs)
                tensors = [torch.tensor(np.asarray(each)) for each in derivatives]
                return tuple(torch.tensordot(gradient, t, dims=gradient.ndim) for t in tensors)

        parts = tuple(torch.tensor(part, requires_grad=True) for part in point.parts)
        torch.autograd.gradcheck(Stated.apply, parts, fast_mode=fast_mode)

    return check


def arrays(tensors: Iterable[torch.Tensor]) -> list[np.ndarray]:
    """Tensors as JAX takes them."""
    return [tensor.detach().numpy() for tensor in tensors]


class Softmax(torch.autograd.Function):
    """The softmax with its Jacobian diag(p) - p p^T (S1.1)."""

    @staticmethod
    def forward(ctx, z):
        """p = softmax(z)."""
        p = torch.softmax(z, 0)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, p_gradient):
        """(diag(p) - p p^T) g."""
        (p,) = ctx.saved_tensors
        return (torch.diag(p) - torch.outer(p, p)) @ p_gradient


def check_softmax(z: np.ndarray, *, fast_mode: bool) -> None:
    """Checks the Jacobian of the softmax."""
    logits = torch.tensor(z, requires_grad=True)
    torch.autograd.gradcheck(Softmax.apply, (logits,), fast_mode=fast_mode)


CHECKERS = {
    name: Checker(partial(check_of, fast_mode=fast), partial(check_softmax, fast_mode=fast))
    for name, fast in {"torch_gradcheck": False, "torch_gradcheck_fast": True}.items()
}
