"""Modules of Flax linen, Flax nnx and Equinox as models, without hand-made pairs of functions.

``Spec(model=module)`` takes a linen module, an instance of an nnx or Equinox module, or a function
with a parameter ``rngs`` (nnx) or ``key`` (Equinox) that makes the module. A linen module and a
function draw the parameters anew for every seed; an instance starts every seed from the instance's
own parameters. Random numbers and statistics need no further word: ``call`` is given the module's
own arguments for training, and collections beside the parameters become ``Variables.statistics``.

Modules alone cause an import of Flax or Equinox.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from inspect import Parameter, Signature, signature
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.types import Array, Key, Network, PyTree, Variables, require_count, shown

_FLAGS = {
    **dict.fromkeys(("train", "training", "is_training"), True),
    **dict.fromkeys(("deterministic", "use_running_average", "inference"), False),
}
"""Arguments of a module's call by the value in training; evaluation gives the opposite."""

_SIZES = 7, 11  # of minibatches on trial


@dataclass(frozen=True)
class Module:
    """A module in a ``Spec``, until the shape of an example is known; see ``network``.

    Attributes:
      source: a linen module, a function that draws a module, or ``Own`` parameters.
      title: the name of the module's class or of the function.
    """

    source: Any
    title: str = field(compare=False)

    def init(self, key: Key) -> PyTree:
        """Raises ValueError: the shape of an example is not known."""
        raise ValueError(
            f"the module {self.title} is initialised from the shape of an example, expected "
            "Spec(model=jaxnn.modules.network(module, shape)) where no data are given"
        )

    def apply(self, params: PyTree, x: Array) -> Array:
        """Raises ValueError, as ``init``."""
        return self.init(x)

    def __call__(self) -> "Module":
        """The module: a function from no ``model_parameters`` of a search."""
        return self


@dataclass(frozen=True)
class Own:
    """An instance's structure and arrays as found, equal to another by content.

    Attributes:
      structure: for ``jax.tree.unflatten``; and of nnx the graph.
      content: digests of the arrays, and the leaves that are none.
      leaves: the leaves.
    """

    structure: Hashable
    content: tuple[Hashable, ...]
    leaves: tuple[Any, ...] = field(compare=False, repr=False)

    def made(self) -> Any:
        """The module, with the arrays as found."""
        graph, structure = self.structure  # pyright: ignore[reportGeneralTypeIssues]
        tree = jax.tree.unflatten(structure, self.leaves)
        if graph is None:
            return tree
        from flax import nnx

        return nnx.merge(graph, tree)


class _Call(NamedTuple):
    """A module as pure functions, of an example or of a minibatch alike."""

    init: Callable[[Key, Array], PyTree]  # (key, x): x is a tree of shapes to linen alone
    apply: Callable[..., Any]  # (params, x, key, training, **named) -> output, or with statistics
    call: Callable[..., Any]  # the module's own, for the signature
    kinds: tuple[bool, ...]  # whether batched: the kinds to try, the likelier first


def as_model(model: Any) -> Any:
    """A ``Module`` for a module of Flax or Equinox, or for a function that makes a module.

    Every other value passes unchanged.

    Raises:
      ValueError: a linen module with a field without a hash, such as an array.
    """
    library = _library(model)
    if library is None:
        return Module(model, _title(model)) if _draws(model) else model
    if library == "linen":
        model = _frozen(model)
        try:
            hash(model)
        except TypeError as error:
            raise ValueError(
                f"the module {_title(model)} has a field without a hash, expected numbers, texts "
                "and tuples: arrays belong to the data or the parameters"
            ) from error
        return Module(model, _title(model))
    graph, tree = None, model
    if library == "nnx":
        from flax import nnx

        graph, tree = nnx.split(model)
    leaves, structure = jax.tree.flatten(tree)
    content = tuple(map(_content, leaves))
    return Module(Own((graph, structure), content, tuple(leaves)), _title(model))


def _frozen(value: Any) -> Any:
    """A linen module, or a field's value, with tuples in place of lists, which have no hash."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    if _library(value) != "linen":
        return value
    fields = [name for name in value.__dataclass_fields__ if name not in ("parent", "name")]
    changed = {name: _frozen(getattr(value, name, None)) for name in fields}
    changed = {n: v for n, v in changed.items() if v is not getattr(value, n, None)}
    return value.clone(**changed) if changed else value


def _content(leaf: Any) -> Hashable:
    """The digest of an array; a leaf of another type is the content."""
    if not isinstance(leaf, jax.Array | np.ndarray):
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    return str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest()


def is_module(model: Any) -> bool:
    """Whether a model is a module, or a function that draws a module by ``rngs`` or ``key``."""
    return isinstance(model, Module) or _library(model) is not None or _draws(model)


def _library(model: Any) -> str | None:
    """The library of a module, or of a pair (Equinox module, state); None for other values."""
    if isinstance(model, type):
        return None
    if isinstance(model, tuple) and len(model) == 2:
        return "equinox" if _library(model[0]) == "equinox" else None
    for kind in type(model).__mro__:
        package, _, rest = kind.__module__.partition(".")
        if kind.__name__ == "Module" and package in ("flax", "equinox"):
            return package if package == "equinox" else rest.partition(".")[0]
    return None


def _draws(model: Any) -> bool:
    """Whether a function draws a module: from ``rngs`` or ``key``, all else optional."""
    if not callable(model) or all(hasattr(model, name) for name in ("init", "apply")):
        return False
    parameters = _arguments(model)
    needed = {p.name for p in parameters.values() if p.default is p.empty and p.kind in (1, 3)}
    given = {"rngs", "key"}.intersection(parameters)
    return len(given) == 1 and needed <= given


def _arguments(model: Callable[..., Any]) -> Mapping[str, Parameter]:
    """The parameters of a function or of a class; a class of nnx tells of ``__init__`` alone."""
    made = model if isinstance(model, partial) else partial(model)
    if isinstance(made.func, type):
        made = partial(made.func.__init__, None, *made.args, **made.keywords)
    try:
        return signature(made).parameters
    except (TypeError, ValueError):
        return {}


def _title(model: Any) -> str:
    model = model[0] if isinstance(model, tuple) else model
    named = model if hasattr(model, "__qualname__") else type(model)
    return f"{named.__module__}.{named.__qualname__}"


def network(module: Any, shape: int | tuple[int, ...], *, batched: bool | None = None) -> Network:
    """The module as a ``Network``, for examples of a shape; ``Spec(model=module)`` asks the data.

    Args:
      module: a linen module, an instance of an nnx or Equinox module, or a function that makes a
        module from ``rngs`` or ``key``.
      shape: of an example, such as (28, 28, 1).
      batched: whether the module takes a minibatch; by default found by trying, a minibatch first
        (an example first for Equinox without ``State``).

    Returns:
      Functions that take a minibatch [B, ...] where the module does, or else an example; equal
      modules share a network. ``apply`` takes a key where the module draws random numbers in
      training, and the module's own arguments with a number as default as hyperparameters.

    Raises:
      ValueError: the module takes neither a minibatch nor an example, mixes the examples of a
        minibatch, or draws random numbers in evaluation.
      TypeError: no module.

    Example:
      >>> import flax.linen as nn, jax
      >>> from jaxnn.modules import network
      >>> model = network(nn.Dense(3), (4,))
      >>> model.batched, jax.tree.map(lambda leaf: leaf.shape, model.init(jax.random.key(0)))
      (True, {'bias': (3,), 'kernel': (4, 3)})
    """
    module = as_model(module)
    if not isinstance(module, Module):
        raise TypeError(f"module is {shown(module)}, expected a module of Flax or Equinox")
    several = shape if isinstance(shape, tuple | list) else (shape,)
    sizes = tuple(require_count("shape", size) for size in several)
    return _network(module, sizes, batched, jnp.dtype(jnp.result_type(float)).name)


@lru_cache
def _network(module: Module, shape: tuple[int, ...], wanted: bool | None, dtype: str) -> Network:
    parts = _parts(module)
    faults = []
    for batched in parts.kinds if wanted is None else (bool(wanted),):
        try:
            key = _trial(parts, shape, dtype, batched)
        except _MixedError as error:
            raise ValueError(f"the module {module.title} {error}") from None
        except Exception as error:  # of the module's own code
            faults.append(str(error).strip().partition("\n")[0] or type(error).__name__)
        else:
            return _as_network(parts, shape, dtype, batched, noisy=key)
    batch = ", ".join(map(str, ("B", *shape)))
    raise ValueError(
        f"the module {module.title} takes neither a minibatch [{batch}] nor an example "
        f"{[*shape]}: {faults[0]:.300}"
    )


def _trial(parts: _Call, shape: tuple[int, ...], dtype: str, batched: bool) -> bool:
    """Whether the module draws random numbers in training; ValueError for a module of a misfit."""
    found = []
    for size in _SIZES if batched else (None,):
        x = jax.ShapeDtypeStruct(shape if size is None else (size, *shape), dtype)
        key = jax.eval_shape(jax.random.key, 0)
        params = jax.eval_shape(parts.init, key, x)
        program = jax.make_jaxpr(partial(parts.apply, training=False))(params, x, key)
        if _reads(program):
            raise ValueError(
                "random numbers are drawn in evaluation, expected a parameter 'training' or "
                "'deterministic' of the call"
            )
        output = program.out_avals[0].shape
        if len(program.out_avals) > 1 or output[: x.ndim - len(shape)] != x.shape[:batched]:
            raise ValueError(f"the output has the shape {output} for inputs {x.shape}")
        if len(output) > 1 + batched:
            raise ValueError(f"the output has the shape {output}, expected logits")
        trained = jax.make_jaxpr(partial(parts.apply, training=True))(params, x, key)
        found.append(([leaf.shape for leaf in jax.tree.leaves(params)], output[batched:]))
    if found[0] != found[-1]:
        raise ValueError("the parameters depend on the number of examples")
    if batched:
        _check_independence(parts, params, x)
    return _reads(trained)


def _reads(program: Any) -> bool:
    """Whether a result of a program depends on the key, the last of the arguments."""
    needed = {id(variable) for variable in program.jaxpr.outvars}
    for equation in reversed(program.jaxpr.eqns):
        if not needed.isdisjoint(map(id, equation.outvars)):
            needed.update(map(id, equation.invars))
    return id(program.jaxpr.invars[-1]) in needed


def _check_independence(parts: _Call, params: PyTree, x: Any) -> None:
    """ValueError where an example's output changes with the other examples of a minibatch."""
    draws = np.random.default_rng(0)

    def some(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        values = draws.uniform(0.1, 1.0, leaf.shape) if floating else np.zeros(leaf.shape)
        return values.astype(leaf.dtype)

    params, first = jax.tree.map(some, params), some(x)
    second = np.concatenate([first[:1], some(x)[1:]])
    run = jax.jit(lambda params, x: parts.apply(params, x, jax.random.key(0), training=False))
    outputs = [np.asarray(run(params, inputs))[0] for inputs in (first, second)]
    if not np.allclose(*outputs, rtol=1e-3, equal_nan=True):
        raise _MixedError(
            "changes the output of an example with the other examples of a minibatch, expected "
            "running statistics in evaluation, images [N, H, W, channels] (inputs[..., None]), or "
            "jaxnn.modules.network(module, shape, batched=False) for a module of one example"
        )


class _MixedError(ValueError):
    """A module takes minibatches, whose examples are not independent."""


def _as_network(
    parts: _Call, shape: tuple[int, ...], dtype: str, batched: bool, noisy: bool
) -> Network:
    """The functions for examples of a shape, with the hyperparameters of the module's call."""
    x = jnp.zeros((1, *shape) if batched else shape, dtype)

    def wide(logits: Array) -> Array:  # a number for an example is logits [1]
        return logits[..., None] if logits.ndim == batched else logits

    def init(key: Key) -> PyTree:
        return parts.init(key, x)

    def apply(
        params: PyTree, x: Array, key: Any = None, training: Any = False, **named: Any
    ) -> Any:
        output = parts.apply(params, x, key, training, **named)
        if not (training and isinstance(params, Variables)):
            return wide(output)
        return wide(output[0]), output[1]

    own = signature(parts.call).parameters.values()
    numbers = [p for p in own if type(p.default) in (int, float) and p.name not in _FLAGS]
    names = ["params", "x", *(["key"] if noisy else []), "training"]
    known = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    hyper = [p.replace(kind=Parameter.KEYWORD_ONLY, annotation=p.empty) for p in numbers]
    apply.__signature__ = Signature([*known, *hyper])
    return Network(init, apply, batched)


def _parts(module: Module) -> _Call:
    source = module.source
    if _library(source) == "linen":
        return _linen(source)

    def make(key: Key) -> Any:
        if isinstance(source, Own):
            return source.made()
        if "rngs" not in _arguments(source):
            return source(key=_typed(key))
        from flax import nnx

        return source(rngs=nnx.Rngs(_typed(key)))

    made: list[Any] = []
    jax.eval_shape(lambda key: made.append(make(key)), jax.random.key(0))
    libraries = {"nnx": _nnx, "equinox": _equinox}
    if (library := _library(made[0])) not in libraries:
        raise ValueError(
            f"the function {module.title} returns {shown(made[0])}, expected a module of Flax nnx "
            "or Equinox"
        )
    return libraries[library](make)


def _typed(key: Key) -> Key:
    return jax.random.wrap_key_data(key) if key.dtype == jnp.uint32 else key


def _flags(call: Callable[..., Any], training: bool) -> dict[str, bool]:
    """The arguments of a call that tell training from evaluation."""
    parameters = signature(call).parameters
    return {name: on == training for name, on in _FLAGS.items() if name in parameters}


def _split(params: PyTree) -> tuple[PyTree, PyTree]:
    """The parameters and the statistics."""
    return params if isinstance(params, Variables) else (params, None)


def _linen(module: Any) -> _Call:
    """Flax linen: collections beside "params" are the statistics."""
    call = type(module).__call__
    own = module.__dataclass_fields__
    fields = {name: on for name, on in _FLAGS.items() if name in own}

    def mode(training: bool) -> Any:
        flags = {name: on == training for name, on in fields.items()}
        return module.clone(**flags) if flags else module

    def init(key: Key, x: Any) -> PyTree:
        x = jnp.zeros(x.shape, x.dtype)
        variables = dict(mode(False).init({"params": key}, x, **_flags(call, False)))
        params = variables.pop("params", {})
        return Variables(params, variables) if variables else params

    def apply(params: PyTree, x: Array, key: Any, training: bool, **named: Any) -> Any:
        params, others = _split(params)
        streams = {} if key is None else {"dropout": key, "params": key}
        run = partial(
            mode(training).apply,
            {"params": params, **(others or {})},
            x,
            rngs=streams,
            **_flags(call, training),
            **named,
        )
        if others is None or not training:
            return run()
        output, new = run(mutable=[*others])
        return output, {**others, **new}

    return _Call(init, apply, call, (True, False))


def _nnx(make: Callable[[Key], Any]) -> _Call:
    """Flax nnx: variables other than ``Param`` and random streams are the statistics."""
    from flax import nnx

    kinds = nnx.Param, nnx.RngState, ...
    module = nnx.eval_shape(make, jax.random.key(0))
    call = type(module).__call__
    graphs = {}
    for training in (True, False):
        module.train() if training else module.eval()
        graphs[training], _, streams, others = nnx.split(module, *kinds)
    stateful = bool(jax.tree.leaves(others))

    def init(key: Key, _: Any) -> PyTree:
        _, params, _, statistics = nnx.split(make(key), *kinds)
        return Variables(params, statistics) if stateful else params

    def seeded(key: Key) -> Any:
        leaves, structure = jax.tree.flatten(streams)
        keys = jax.dtypes.prng_key
        several = [
            jax.random.fold_in(key, place)
            if jnp.issubdtype(leaf.dtype, keys)
            else jnp.zeros(leaf.shape, leaf.dtype)
            for place, leaf in enumerate(leaves)
        ]
        return jax.tree.unflatten(structure, several)

    def apply(params: PyTree, x: Array, key: Any, training: bool, **named: Any) -> Any:
        params, statistics = _split(params)
        key = jax.random.key(0) if key is None else _typed(key)
        states = params, seeded(key), others if statistics is None else statistics
        states = jax.tree.map(lambda leaf: leaf, states)  # of the trace at work: new variables
        run = nnx.merge(graphs[training], *states)
        output = run(x, **_flags(call, training), **named)
        if not (stateful and training):
            return output
        return output, nnx.split(run, *kinds)[3]

    return _Call(init, apply, call, (True, False))


def _equinox(make: Callable[[Key], Any]) -> _Call:
    """Equinox: ``State``, and arrays that are no floating-point numbers, are the statistics."""
    import equinox as eqx

    static: list[Any] = []

    def parts(key: Key) -> tuple[Any, Any]:
        made: Any = make(key)
        several = made if isinstance(made, tuple) else eqx.nn.make_with_state(lambda: made)()
        module, state = several
        params, rest = eqx.partition(module, eqx.is_inexact_array)
        constants, others = eqx.partition(rest, eqx.is_array)
        static[:] = static or [others, type(module)]
        return params, (constants, state)

    shapes = jax.eval_shape(parts, jax.random.key(0))
    structure, stateful = jax.tree.structure(shapes), bool(jax.tree.leaves(shapes[1]))
    others, kind = static
    call = kind.__call__
    known = signature(call).parameters
    axis = next(iter(_axes(others)), "batch")

    def init(key: Key, _: Any) -> PyTree:
        params, rest = jax.tree.unflatten(structure, jax.tree.leaves(parts(_typed(key))))
        # Constants become values of the program at work: Equinox compares types, devices included.
        rest = jax.tree.map(lambda leaf: jnp.where(True, leaf, leaf), rest)
        return Variables(params, rest) if stateful else params

    def example(module: Any, state: Any, named: dict[str, Any], x: Array, key: Any) -> Any:
        keys = {"key": key} if "key" in known else {}
        if "state" in known:
            return module(x, state=state, **keys, **named)
        return module(x, **keys, **named)

    def apply(params: PyTree, x: Array, key: Any, training: bool, **named: Any) -> Any:
        params, rest = _split(params)
        # A State is used up by a call: the module gets a copy.
        rest = shapes[1] if rest is None else rest
        constants, state = jax.tree.map(lambda leaf: leaf, rest)
        module = eqx.combine(params, constants, others)
        module = eqx.nn.inference_mode(module, value=not training)
        run = partial(example, module, state, _flags(call, training) | named)
        if not stateful:
            return run(x, key)
        keys = None if key is None else jax.random.split(key, len(x))
        outs = (0, None) if "state" in known else 0
        output = jax.vmap(run, out_axes=outs, axis_name=axis)(x, keys)
        output, state = output if "state" in known else (output, state)
        return (output, (constants, state)) if training else output

    return _Call(init, apply, call, (True,) if stateful else (False, True))


def _axes(module: PyTree) -> list[Any]:
    """The names of the minibatch's axis in the layers of a module."""
    found: list[Any] = []
    see: Any = lambda node: found.append(getattr(node, "axis_name", None))  # noqa: E731
    jax.tree.leaves(module, is_leaf=see)
    return [name for name in found if isinstance(name, str)]
