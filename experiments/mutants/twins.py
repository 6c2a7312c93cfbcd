"""The formulas of the catalogue in NumPy: as a student without JAX would have written them.

``jax.numpy`` becomes ``numpy``, a vmapped function a loop over examples, and the functions of
``jax.nn`` are written out. Of the claims' functions nothing changes.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import CellType, CodeType, FunctionType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from jaxnn.verify import Claim


def twin(claim: Claim, called: bool = False) -> Claim:
    """A claim with the formula in NumPy; ``called``: as a black box, of which no code is read."""
    return replace(claim, formula=in_numpy(claim.formula, {}), black_box=called)


def in_numpy(value: Any, known: dict[int, Any]) -> Any:
    """A function of JAX in NumPy, with the functions inside; other values as they are."""
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = value
    if value in (jax, jnp, jax.nn, jax.lax):
        known[id(value)] = {jax: _JAX, jnp: np, jax.nn: _NN, jax.lax: _NN}[value]
    elif isinstance(value, partial):
        parts = in_numpy(value.func, known), *(in_numpy(part, known) for part in value.args)
        known[id(value)] = partial(*parts, **value.keywords)
    elif isinstance(value, FunctionType) and "/jax/" not in value.__code__.co_filename:
        known[id(value)] = _function(value, known)
    elif callable(value) and str(getattr(value, "__module__", "")).partition(".")[0] in (
        "jax",
        "jaxlib",
    ):
        name = getattr(value, "__name__", "")
        known[id(value)] = getattr(_NN, name, None) or getattr(np, name)
    elif isinstance(value, jax.Array):
        known[id(value)] = np.asarray(value)
    return known[id(value)]


def _function(function: FunctionType, known: dict[int, Any]) -> FunctionType:
    names = _names(function.__code__) & function.__globals__.keys()
    namespace = function.__globals__ | {
        name: in_numpy(function.__globals__[name], known) for name in names
    }
    cells = tuple(
        CellType(in_numpy(cell.cell_contents, known)) for cell in function.__closure__ or ()
    )
    code, defaults = function.__code__, function.__defaults__
    if defaults:
        defaults = tuple(in_numpy(default, known) for default in defaults)
    made = FunctionType(code, namespace, function.__name__, defaults, cells)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return {*code.co_names}.union(*map(_names, inner))


def _loop(function: Callable[..., Any], in_axes: Any = 0, out_axes: int = 0) -> Callable[..., Any]:
    """``jax.vmap`` as a loop over examples, which a list of the results stacks."""

    def looped(*arguments: Any) -> Any:
        axes = in_axes if isinstance(in_axes, tuple | list) else [in_axes] * len(arguments)
        pairs = list(zip(arguments, axes, strict=True))
        count = next(np.shape(a)[axis] for a, axis in pairs if axis is not None)
        results = [
            function(*(a if axis is None else np.take(a, i, axis) for a, axis in pairs))
            for i in range(count)
        ]
        return jax.tree.map(lambda *some: np.stack(some, axis=out_axes), *results)

    return looped


class _WithAt(np.ndarray):
    """An array with ``a.at[i].add(v)``: a copy with a sum in the place of an entry."""

    @property
    def at(self) -> Any:
        def place(index: Any) -> Any:
            def add(value: Any) -> Any:
                changed = np.array(self)
                np.add.at(changed, index, value)
                return changed

            return SimpleNamespace(add=add)

        return type("At", (), {"__getitem__": lambda _, index: place(index)})()


def _softmax(z: Any, axis: int = -1) -> Any:
    e = np.exp(z - np.max(z, axis=axis, keepdims=True))
    return (e / np.sum(e, axis=axis, keepdims=True)).view(_WithAt)


def _relu(z: Any) -> Any:
    return np.where(z > 0, z, 0.0)


def _one_hot(labels: Any, classes: int, dtype: Any = None) -> Any:
    del dtype
    hot = np.zeros((*np.shape(labels), classes))
    for place in np.ndindex(np.shape(labels)):
        hot[(*place, np.asarray(labels)[place])] = 1.0
    return hot


_NN = SimpleNamespace(
    softmax=_softmax,
    log_softmax=special.log_softmax,
    logsumexp=special.logsumexp,
    sigmoid=special.expit,
    logistic=special.expit,
    softplus=lambda z: np.logaddexp(z, 0.0),
    log_sigmoid=special.log_expit,
    relu=_relu,
    one_hot=_one_hot,
    erf=special.erf,
)

_JAX = SimpleNamespace(
    nn=_NN,
    lax=_NN,
    numpy=np,
    vmap=_loop,
    tree=jax.tree,
    scipy=SimpleNamespace(special=special, stats=stats),
)
