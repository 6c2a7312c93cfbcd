"""A function of PyTorch as an operation of JAX: values and derivatives are PyTorch's own.

The derivative of an operation is an operation again, by PyTorch's autograd with a graph: Hessians
need no rule of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from inspect import signature
from sys import modules
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend import core
from jax.interpreters import ad, batching, mlir

from jaxnn.types import PyTree
from jaxnn.verify.graph import OF_TORCH

Tensors = Sequence[Any]

_value_p, _tangent_p = core.Primitive(OF_TORCH), core.Primitive("torch_tangent")
"""The values of an operation; the tangents, which are linear in the tangents of the inputs."""


def is_of_torch(function: Callable[..., Any]) -> bool:
    """Whether a function names PyTorch, or an object of PyTorch."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    values = [*cells, *map(function.__globals__.get, code.co_names)]
    return any(
        str(place).partition(".")[0] == "torch"
        for value in values
        for place in (getattr(value, "__name__", ""), getattr(value, "__module__", ""))
    )


def by_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors as a function that JAX traces, differentiates and vectorises."""

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> PyTree:
        given = signature(function).bind(*args, **kwargs)
        flat, structure = jax.tree.flatten((given.args, given.kwargs))
        operation = _Values(function, structure)
        arrays = [jnp.asarray(value) for value in flat]
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
        value = operation.tree(*map(_some_tensor, shapes))
        results = _bound(_value_p, operation, arrays)
        return jax.tree.unflatten(jax.tree.structure(value), results)

    return traced


@dataclass(frozen=True)
class _Values:
    """The user's function, of flat tensors."""

    function: Callable[..., Any]
    structure: Any  # of the arguments

    def tree(self, *tensors: Any) -> PyTree:
        args, kwargs = jax.tree.unflatten(self.structure, tensors)
        return self.function(*args, **kwargs)

    def __call__(self, *tensors: Any) -> list[Any]:
        return jax.tree.leaves(self.tree(*tensors))


@dataclass(frozen=True)
class _Pullback:
    """(x, dout) -> dout^T d f / d x, of the inputs that are floats."""

    of: Callable[..., list[Any]]
    count: int  # of the inputs

    def __call__(self, *tensors: Any) -> list[Any]:
        torch = modules["torch"]
        inputs = [_tracked(tensor) for tensor in tensors[: self.count]]
        pairs = [
            (out, dout)
            for out, dout in zip(self.of(*inputs), tensors[self.count :], strict=True)
            if out.requires_grad
        ]
        floats = [x for x in inputs if x.is_floating_point()]
        if not pairs:
            return [torch.zeros_like(x) for x in floats]
        outs, douts = zip(*pairs, strict=True)
        options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
        return list(torch.autograd.grad(outs, floats, douts, **options))


@dataclass(frozen=True)
class _Pushforward:
    """(x, dx) -> d f / d x dx, as the pullback of the pullback, which is linear in dout."""

    of: Callable[..., list[Any]]
    count: int

    def __call__(self, *tensors: Any) -> list[Any]:
        torch = modules["torch"]
        inputs, tangents = tensors[: self.count], tensors[self.count :]
        douts = [torch.zeros_like(out, requires_grad=True) for out in self.of(*inputs)]
        pulled = _Pullback(self.of, self.count)(*inputs, *douts)
        pairs = [(p, t) for p, t in zip(pulled, tangents, strict=True) if p.requires_grad]
        if not pairs:
            return [torch.zeros_like(dout) for dout in douts]
        pulled, tangents = zip(*pairs, strict=True)
        options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
        return list(torch.autograd.grad(pulled, douts, tangents, **options))


def _tracked(tensor: Any) -> Any:
    """A tensor that PyTorch differentiates by."""
    known = tensor.requires_grad or not tensor.is_floating_point()
    return tensor if known else tensor.detach().requires_grad_(True)


def _some_tensor(shape: Any) -> Any:
    """A tensor of a shape and type: PyTorch tells the shapes of values at values alone."""
    drawn = np.random.default_rng(0).uniform(0.25, 0.75, size=shape.shape)
    return modules["torch"].tensor(np.asarray(drawn, shape.dtype))


def _on_arrays(operation: Callable[..., list[Any]], *arrays: Any) -> list[np.ndarray]:
    torch = modules["torch"]
    with torch.enable_grad():
        results = operation(*(torch.tensor(np.array(array)) for array in arrays))
    return [np.asarray(result.detach().numpy()) for result in results]


def _bound(
    primitive: Any, operation: Callable[..., list[Any]], arrays: Sequence[Any], **known: Any
):
    """The results of an operation, with their shapes among the parameters."""
    avals = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in arrays]
    with modules["torch"].enable_grad():
        probed = operation(*map(_some_tensor, avals))
    shapes = tuple((tuple(value.shape), str(value.dtype).split(".")[1]) for value in probed)
    return primitive.bind(*arrays, operation=operation, shapes=shapes, **known)


def _avals(*avals: Any, shapes: Any, **_: Any) -> list[Any]:
    del avals
    return [ShapedArray(shape, np.dtype(dtype)) for shape, dtype in shapes]


def _lowered(*arrays: Any, operation: Any, shapes: Any, **_: Any) -> Any:
    results = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    host = partial(_on_arrays, operation)
    return jax.pure_callback(host, results, *arrays, vmap_method="sequential")


def _batched(
    primitive: Any, arguments: Any, axes: Any, *, operation: Any, shapes: Any, **known: Any
):
    """The operation of a batch: a loop in Python, in a single call from the compiled program."""
    count = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)
    rows = [
        jnp.broadcast_to(array, (count, *array.shape))
        if axis is None
        else jnp.moveaxis(array, axis, 0)
        for array, axis in zip(arguments, axes, strict=True)
    ]
    batch = tuple(((count, *shape), dtype) for shape, dtype in shapes)
    results = primitive.bind(*rows, operation=_Rows(operation), shapes=batch, **known)
    return results, [0] * len(results)


@dataclass(frozen=True)
class _Rows:
    """An operation of every row of the tensors."""

    of: Callable[..., list[Any]]

    def __call__(self, *tensors: Any) -> list[Any]:
        results = [self.of(*row) for row in zip(*tensors, strict=True)]
        return [modules["torch"].stack(column) for column in zip(*results, strict=True)]


def _jvp(primitive: Any, primals: Any, tangents: Any, *, operation: Any, shapes: Any, **_: Any):
    """Values, and tangents by the pushforward; of inputs that are whole numbers there are none."""
    values = primitive.bind(*primals, operation=operation, shapes=shapes, **_)
    floats = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in primals]
    along = [
        ad.instantiate_zeros(tangent)
        for tangent, is_float in zip(tangents, floats, strict=True)
        if is_float
    ]
    forward = _Pushforward(operation, len(primals))
    return values, _bound(_tangent_p, forward, [*primals, *along], linear=len(along))


def _transposed(cotangents: Any, *arguments: Any, operation: Any, linear: int, **_: Any):
    """The gradients by the tangents: the pullback of the function of a pushforward."""
    primals = arguments[: len(arguments) - linear]
    douts = [ad.instantiate_zeros(c) for c in cotangents]
    gradients = _bound(_value_p, _pullback(operation, len(primals)), [*primals, *douts])
    return [*[None] * len(primals), *gradients]


def _pullback(operation: Any, count: int) -> Any:
    """The pullback that a pushforward, or a batch of pushforwards, is the transpose of."""
    if isinstance(operation, _Rows):
        return _Rows(_pullback(operation.of, count))
    return _Pullback(operation.of, count)


for _primitive in (_value_p, _tangent_p):
    _primitive.multiple_results = True
    _primitive.def_abstract_eval(_avals)
    _primitive.def_impl(
        jax.jit(partial(_lowered), static_argnames=("operation", "shapes", "linear"))
    )
    mlir.register_lowering(_primitive, mlir.lower_fun(_lowered, multiple_results=True))
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
    ad.primitive_jvps[_primitive] = partial(_jvp, _primitive)
ad.primitive_transposes[_tangent_p] = _transposed
