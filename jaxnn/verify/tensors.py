"""A function of PyTorch as an operation of JAX: values and derivatives are PyTorch's own.

The derivative of an operation is an operation again, by PyTorch's autograd with a graph: Hessians
need no rule of their own.
"""

import warnings
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


def by_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of tensors as a function that JAX traces, differentiates and vectorises."""

    @wraps(function)
    def traced(*args: Any, **kwargs: Any) -> PyTree:
        given = signature(function).bind(*args, **kwargs)
        flat, structure = jax.tree.flatten((given.args, given.kwargs))
        arrays = [jnp.asarray(value) for value in flat]
        operation = _Values(function, structure, tuple(map(jnp.iscomplexobj, arrays)))
        parts = [jnp.stack([a.real, a.imag], -1) if jnp.iscomplexobj(a) else a for a in arrays]
        leaves, tree = jax.tree.flatten(operation.tree(*map(_some_tensor, parts)))
        results = _bound(_value_p, operation, parts)
        return tree.unflatten(
            jax.lax.complex(result[..., 0], result[..., 1]) if leaf.is_complex() else result
            for leaf, result in zip(leaves, results, strict=True)
        )

    return traced


@dataclass(frozen=True)
class _Values:
    """The user's function, of flat tensors; complex numbers are pairs along the last axis."""

    function: Callable[..., Any]
    structure: Any  # of the arguments
    complex: tuple[bool, ...]  # which arguments are

    def tree(self, *tensors: Any) -> PyTree:
        as_complex = modules["torch"].view_as_complex
        flat = (as_complex(t) if c else t for t, c in zip(tensors, self.complex, strict=True))
        args, kwargs = jax.tree.unflatten(self.structure, flat)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.function(*args, **kwargs)

    def __call__(self, *tensors: Any) -> list[Any]:
        as_real = modules["torch"].view_as_real
        leaves = jax.tree.leaves(self.tree(*tensors))
        if any(t.requires_grad for t in tensors) and not any(x.requires_grad for x in leaves):
            raise ValueError(
                "the result has no gradient in PyTorch, expected tensors from the inputs to the "
                "result, without detach, item, data or NumPy between"
            )
        return [as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf for leaf in leaves]


@dataclass(frozen=True)
class _Pullback:
    """(x, dout) -> dout^T d f / d x, of the inputs that are floats."""

    of: Callable[..., list[Any]]
    count: int  # of the inputs

    def __call__(self, *tensors: Any) -> list[Any]:
        inputs = [_tracked(tensor) for tensor in tensors[: self.count]]
        return _gradients(self.of(*inputs), inputs, tensors[self.count :])


@dataclass(frozen=True)
class _Pushforward:
    """(x, dx) -> d f / d x dx, as the pullback of the pullback, which is linear in dout."""

    of: Callable[..., list[Any]]
    count: int

    def __call__(self, *tensors: Any) -> list[Any]:
        inputs = [_tracked(tensor) for tensor in tensors[: self.count]]
        outs = self.of(*inputs)
        douts = [modules["torch"].zeros_like(out, requires_grad=True) for out in outs]
        return _gradients(_gradients(outs, inputs, douts), douts, tensors[self.count :])


def _gradients(outs: Tensors, inputs: Tensors, douts: Tensors) -> list[Any]:
    """The gradients of the sum of dout * out by the inputs, with a graph of their own."""
    pairs = [(o, dout) for o, dout in zip(outs, douts, strict=True) if o.requires_grad]
    inputs = [x for x in inputs if x.is_floating_point()]
    if not pairs:
        return [modules["torch"].zeros_like(x) for x in inputs]
    outs, douts = zip(*pairs, strict=True)
    options = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
    return list(modules["torch"].autograd.grad(outs, inputs, douts, **options))


def _tracked(tensor: Any) -> Any:
    """A tensor that PyTorch differentiates by."""
    known = tensor.requires_grad or not tensor.is_floating_point()
    return tensor if known else tensor.detach().requires_grad_(True)


def _some_tensor(shape: Any) -> Any:
    """A tensor of a shape and type: PyTorch tells the shapes of values at values alone."""
    drawn = np.random.default_rng(0).uniform(0.25, 0.75, size=shape.shape)
    return modules["torch"].tensor(np.asarray(drawn, shape.dtype))


def _on_words(operation: Callable[..., list[Any]], types: Any, *words: Any) -> list[np.ndarray]:
    """The results of an operation, each number in two words of 32 bits."""
    torch = modules["torch"]
    numbers = (np.asarray(word).view(np.float64)[..., 0] for word in words)
    inputs = [torch.tensor(n.astype(t)) for n, t in zip(numbers, types, strict=True)]
    with torch.enable_grad():
        results = operation(*inputs)
    arrays = (result.detach().double().contiguous().numpy() for result in results)
    return [array[..., None].view(np.uint32) for array in arrays]


def _bound(primitive: Any, operation: Any, arrays: Sequence[Any], **known: Any) -> Any:
    """The results of an operation, with their shapes among the parameters."""
    with modules["torch"].enable_grad():
        probed = operation(*map(_some_tensor, arrays))
    shapes = tuple((tuple(value.shape), str(value.dtype).split(".")[1]) for value in probed)
    return primitive.bind(*arrays, operation=operation, shapes=shapes, **known)


def _avals(*_avals: Any, shapes: Any, **_: Any) -> list[Any]:
    return [ShapedArray(shape, np.dtype(dtype)) for shape, dtype in shapes]


def _lowered(*arrays: Any, operation: Any, shapes: Any, **_: Any) -> Any:
    """A callback, from a thread that may know no ``enable_x64``: numbers travel as words."""
    words = [jax.lax.bitcast_convert_type(a.astype(float), jnp.uint32) for a in arrays]
    shaped = [jax.ShapeDtypeStruct((*shape, 2), jnp.uint32) for shape, _ in shapes]
    host = partial(_on_words, operation, [a.dtype for a in arrays])
    found = jax.pure_callback(host, shaped, *words, vmap_method="sequential")
    numbers = (jax.lax.bitcast_convert_type(word, jnp.float64) for word in found)
    return [n.astype(dtype) for n, (_, dtype) in zip(numbers, shapes, strict=True)]


def _batched(primitive: Any, arguments: Any, axes: Any, **known: Any):
    """The operation of a batch: a loop."""
    count = next(a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None)
    rows = [batching.bdim_at_front(a, axis, count) for a, axis in zip(arguments, axes, strict=True)]
    results = jax.lax.map(lambda row: primitive.bind(*row, **known), rows)
    return results, [0] * len(results)


def _jvp(primitive: Any, primals: Any, tangents: Any, *, operation: Any, shapes: Any, **_: Any):
    """Values, and tangents by the pushforward; of inputs that are whole numbers there are none."""
    values = primitive.bind(*primals, operation=operation, shapes=shapes, **_)
    along = [
        ad.instantiate_zeros(tangent)
        for x, tangent in zip(primals, tangents, strict=True)
        if jnp.issubdtype(jnp.result_type(x), jnp.floating)
    ]
    forward = _Pushforward(operation, len(primals))
    return values, _bound(_tangent_p, forward, [*primals, *along], linear=len(along))


def _transposed(cotangents: Any, *arguments: Any, operation: Any, linear: int, **_: Any):
    """The gradients by the tangents: the pullback of the function of a pushforward."""
    primals = arguments[: len(arguments) - linear]
    douts = [ad.instantiate_zeros(c) for c in cotangents]
    gradients = _bound(_value_p, _Pullback(operation.of, len(primals)), [*primals, *douts])
    return [*[None] * len(primals), *gradients]


for _primitive in (_value_p, _tangent_p):
    _primitive.multiple_results = True
    _primitive.def_abstract_eval(_avals)
    _primitive.def_impl(jax.jit(_lowered, static_argnames=("operation", "shapes", "linear")))
    mlir.register_lowering(_primitive, mlir.lower_fun(_lowered, multiple_results=True))
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
    ad.primitive_jvps[_primitive] = partial(_jvp, _primitive)
ad.primitive_transposes[_tangent_p] = _transposed
