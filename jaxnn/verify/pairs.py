"""Forward and backward passes as courses write them: pairs of functions, or a class with both."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np

from jaxnn.types import PyTree, require_type, shown
from jaxnn.verify.claims import (
    Claim,
    call,
    claim,
    is_list_of_numbers,
    parameter_of,
    parameters,
    steps,
)
from jaxnn.verify.graph import located
from jaxnn.verify.inputs import (
    REAL_KINDS,
    Input,
    Sizes,
    draw,
    draw_sizes,
    larger_sizes,
    leaves,
    real,
)
from jaxnn.verify.translation import as_jax, with_translation

METHODS = (
    ("forward", "backward"),
    ("doForward", "doBackward"),
    ("do_forward", "do_backward"),
    ("forward_pass", "backward_pass"),
    ("__call__", "backward"),
)
"""The names of the two methods of a class; the first pair that the class has is taken."""

DOUT, CACHES = "dout", ("cache", "caches", "ctx", "memory", "saved")

Inputs = Mapping[str, PyTree]


class UnusablePair(ValueError):  # noqa: N818
    """The passes are no pair; the message is a line."""


Back = Callable[[Any], Any]
"""dout, or None, -> the gradients: a tuple, or a dict by the name of the input."""


def claim_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    *,
    inputs: Mapping[str, PyTree],
    of: Callable[..., PyTree] | None = None,
    wrt: str | Sequence[str] = (),
    gradients: Mapping[str, str] | None = None,
    name: str = "",
    **declared: Any,
) -> Claim:
    """Declares a backward pass to be the derivative of a forward pass: dx = dout^T d out / d x.

    Args:
      forward: ``forward(x, w, b) -> out`` or ``-> (out, cache)``; without ``backward`` also
        ``loss(x, y) -> (loss, gradients)``; or a class, or a function of some inputs to an object,
        with methods ``forward`` and ``backward`` (``doForward``, ``forward_pass``).
      backward: ``backward(dout, cache) -> (dx, dw, db)``; a parameter with the name of an input
        gets the input. The gradients come in the order of the inputs of ``forward``, or by name.
      inputs: generators, as for ``claim``. An input that is no parameter of an object's forward
        pass is given to the constructor, else stored as the attribute, or the entry of
        ``params``, of the same name. ``dout``, the gradient by ``out``, is added if not declared.
      of: a reference for the forward pass, in ``jax.numpy`` or NumPy; default: the forward pass.
      wrt: the inputs of the gradients; default: every input for which there is a gradient.
      gradients: for an input stored in an object, where the backward pass leaves the gradient:
        ``{"w": "grads['weight']"}``; default: ``dw``, ``grad_w``, ``w_grad``, ``grads["w"]``.
      name: of the claim; default: the name of the backward pass, or of the class.
      declared: further arguments of ``claim``.

    Returns:
      A claim of kind ``vjp``, or ``gradient`` of a loss, with several ``wrt``. Where ``of`` is
      given and the forward pass has other values, the verdict is refuted with the finding
      ``forward_wrong``.

    Raises:
      ValueError: an argument is wrong, or a pass raises an exception at random inputs.

    Example:
      >>> import numpy as np
      >>> from jaxnn.verify import claim_pair, real, verify
      >>> def forward(x, w):
      ...     return x @ w, (x, w)
      >>> def backward(dout, cache):
      ...     x, w = cache
      ...     dw = np.zeros_like(w)
      ...     for i in range(len(x)):
      ...         dw += np.outer(x[i], dout[i])
      ...     return dout @ w.T, dw
      >>> pair = claim_pair(forward, backward, inputs={"x": real("N", "D"), "w": real("D", "M")})
      >>> verify(pair, trials=100).verdict
      'holds'

    Source: S1.2b.
    """
    require_type(isinstance(inputs, Mapping), "inputs", inputs, "a dict such as {'x': real('n')}")
    known = {name: generator for name, generator in inputs.items() if name != DOUT}
    layer = _layer(forward, backward, known, dict(gradients or {}))
    out, returned = _tried(layer, known, draw_sizes(known, 0))
    if layer.takes_dout and np.ndim(out):
        inputs = {**known, DOUT: inputs.get(DOUT) or _like_out(layer, known)}
    elif np.ndim(out):
        raise UnusablePair(
            f"the backward pass has no parameter for dout, and the forward pass returns shape "
            f"{np.shape(out)}, expected a scalar loss"
        )
    paths = (
        (wrt,) if isinstance(wrt, str) else tuple(wrt) or tuple(_by_name(returned, layer, known))
    )

    def declare(of: Callable[..., Any]) -> Claim:
        kind = "vjp" if DOUT in inputs else "gradient"
        made = claim(of=of, kind=kind, wrt=paths, inputs=inputs, **declared)
        return replace(made(_formula(layer, inputs, paths)), name=name or layer.name)

    own = _function(layer, known)
    if of is None:
        return declare(own)
    values = claim(of=of, kind="value", inputs=known, certify=False)(own)
    return replace(declare(of), forward=replace(values, name=name or layer.name), own=declare(own))


@dataclass(frozen=True)
class _Layer:
    """Two passes, as a function of the inputs to the output and to the function backward."""

    name: str
    run: Callable[[Inputs], tuple[Any, Back]]
    takes_dout: bool
    order: tuple[str, ...]  # the inputs of the gradients that come in a tuple
    code: Callable[..., Any]  # to be shown
    in_jax: "_Layer | None" = None


def _function(layer: _Layer, inputs: Iterable[str]) -> Callable[..., Any]:
    """The forward pass as a function of the inputs."""

    def out(layer: _Layer, given: Inputs) -> Any:
        try:
            return layer.run(given)[0]
        except jax.errors.JAXTypeError as error:
            found = located(error).partition(": ")[0]
            raise UnusablePair(
                f"JAX does not trace the forward pass ({found}), expected of=, a reference in "
                "jax.numpy"
            ) from error

    return _named(layer, inputs, out)


def _formula(layer: _Layer, inputs: Mapping[str, PyTree], wrt: Sequence[str]) -> Callable[..., Any]:
    """The gradients, by name, as a function of the inputs and of dout."""

    def gradients(layer: _Layer, given: Inputs) -> dict[str, Any]:
        _, back = layer.run({name: given[name] for name in given if name != DOUT})
        found = _by_name(back(given.get(DOUT)), layer, inputs)
        missing = [name for name in wrt if name not in found]
        if missing:
            raise UnusablePair(
                f"the backward pass gives gradients for {', '.join(found)}, expected "
                f"{', '.join(missing)} too"
            )
        return {name: found[name] for name in wrt}

    return _named(layer, inputs, gradients)


def _named(
    layer: _Layer, names: Iterable[str], function: Callable[[_Layer, Inputs], Any]
) -> Callable[..., Any]:
    """A function by keywords, with the name and the code of the user's, and a translation."""

    def called(**inputs: PyTree) -> Any:
        return function(layer, inputs)

    kind = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
    vars(called).update(__signature__=signature, __wrapped__=layer.code)
    called.__name__ = layer.name
    return (
        with_translation(called, _named(layer.in_jax, names, function)) if layer.in_jax else called
    )


def _by_name(returned: Any, layer: _Layer, inputs: Mapping[str, PyTree]) -> dict[str, Any]:
    """The gradients by the names of the inputs.

    Raises:
      ValueError: more gradients than inputs, or a name of no input.
    """
    if isinstance(returned, Mapping):
        return {_input_of(str(key), inputs): value for key, value in returned.items()}
    several = isinstance(returned, tuple | list)
    parts = list(returned) if several and not is_list_of_numbers(returned) else [returned]
    order = layer.order
    if len(parts) > len(order) or any(part is None for part in parts):
        raise UnusablePair(
            f"the backward pass returns {len(parts)} gradients, expected at most {len(order)}, for "
            f"{', '.join(order)}"
        )
    return dict(zip(order, parts, strict=False))


def _input_of(key: str, inputs: Mapping[str, PyTree]) -> str:
    """The input of a gradient's name: x of ``dx``, ``d_x``, ``grad_x``, ``x_grad``."""
    names = {name.lower(): name for name in inputs}
    found = next((names[n.lower()] for n in (key, parameter_of(key)) if n.lower() in names), None)
    if found is None:
        raise UnusablePair(
            f"the backward pass returns a gradient {key!r}, expected one for {', '.join(inputs)}"
        )
    return found


def _real(inputs: Mapping[str, PyTree], names: Iterable[str]) -> tuple[str, ...]:
    """The names of the inputs that vary continuously."""
    return tuple(
        name
        for name in names
        if name in inputs and all(leaf.kind in REAL_KINDS for leaf in leaves(inputs[name]))
    )


def _layer(
    forward: Callable[..., Any],
    backward: Callable[..., Any] | None,
    inputs: Mapping[str, PyTree],
    gradients: dict[str, str],
) -> _Layer:
    """The two passes of functions, of a class or of a function to an object."""
    if not callable(forward) or not (backward is None or callable(backward)):
        which = forward if not callable(forward) else backward
        raise UnusablePair(f"a pass is {shown(which)}, expected a function or a class")
    if backward is not None:
        return _of_functions(forward, backward, inputs)
    if isinstance(forward, type):
        return _of_object(forward, forward, inputs, gradients)
    with _told_as("the forward pass"):
        made = call(forward, _point(inputs, draw_sizes(inputs, 0)))
    if isinstance(made, tuple) and len(made) >= 2 and np.ndim(made[0]) == 0:
        return _of_loss(forward, inputs)
    return _of_object(forward, type(made), inputs, gradients)


def _of_functions(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Mapping[str, PyTree]
) -> _Layer:
    unknown = _unknown(backward, inputs)
    takes_dout = bool(unknown) and unknown[0] not in CACHES
    name = getattr(backward, "__name__", "backward")
    order = _real(inputs, parameters(forward))

    def layer_of(forward: Callable[..., Any], backward: Callable[..., Any]) -> _Layer:
        def run(given: Inputs) -> tuple[Any, Back]:
            value = call(forward, given)
            caches = len(unknown) - takes_dout
            has_cache = isinstance(value, tuple) and (caches or len(value) == 2)
            out = value[0] if has_cache else value
            cache = value[1] if has_cache and len(value) == 2 else value[1:] if has_cache else None

            def back(dout: Any) -> Any:
                rest = [dout, cache] if takes_dout else [cache]
                return call(backward, {**given, **dict(zip(unknown, rest, strict=False))})

            return out, back

        return _Layer(name, run, takes_dout, order, backward)

    return _translated(layer_of, forward, backward)


def _unknown(backward: Callable[..., Any], inputs: Iterable[str]) -> list[str]:
    """The parameters, without a default, that are no inputs: dout and cache."""
    known = {*inputs}
    unknown = [
        name for name, needed in parameters(backward).items() if needed and name not in known
    ]
    if len(unknown) > 2:
        raise UnusablePair(
            f"the backward pass has the parameters {', '.join(unknown)}, expected dout, cache, and "
            f"names of the inputs {', '.join(known)}"
        )
    return unknown


def _of_loss(forward: Callable[..., Any], inputs: Mapping[str, PyTree]) -> _Layer:
    """A function to the loss and the gradients at once."""
    name = getattr(forward, "__name__", "loss")
    order = _real(inputs, parameters(forward))

    def layer_of(forward: Callable[..., Any]) -> _Layer:
        def run(given: Inputs) -> tuple[Any, Back]:
            loss, *gradients = call(forward, given)
            found = gradients[0] if len(gradients) == 1 else tuple(gradients)
            return loss, lambda dout: found

        return _Layer(name, run, False, order, forward)

    return _translated(layer_of, forward)


def _of_object(
    make: Callable[..., Any],
    made: type,
    inputs: Mapping[str, PyTree],
    gradients: dict[str, str],
) -> _Layer:
    """An object's two methods; inputs are stored in the object, gradients read from the object."""
    methods = next((pair for pair in METHODS if all(hasattr(made, name) for name in pair)), None)
    if methods is None:
        raise UnusablePair(
            f"{made.__name__} has no methods forward and backward, expected functions, or a class "
            "with both"
        )
    forward_name, backward_name = methods
    taken = _method_parameters(made, forward_name)
    unknown = _unknown_of_method(made, backward_name, inputs)
    constructed = {*_constructor_parameters(make)}
    given_otherwise = {*taken, *_method_parameters(made, backward_name)}
    stored = [name for name in inputs if name not in given_otherwise]
    order = _real(inputs, [*taken, *(name for name in inputs if name not in taken)])

    def layer_of(make: Callable[..., Any]) -> _Layer:
        def run(given: Inputs) -> tuple[Any, Back]:
            layer = _called_with(make, given)
            for name in stored:
                if not _is_stored(layer, name, given[name]) and name not in constructed:
                    raise UnusablePair(
                        f"input {name!r} is no parameter, attribute or entry of params of "
                        f"{made.__name__}, expected an input that the passes use"
                    )
            out = call(getattr(layer, forward_name), given)

            def back(dout: Any) -> Any:
                rest = dict.fromkeys(unknown, dout)
                returned = call(getattr(layer, backward_name), {**given, **rest})
                found = {} if returned is None else _by_name(returned, known, inputs)
                left = (name for name in order if name not in found)
                return found | {n: g for n in left for g in _left(layer, n, gradients)}

            return out, back

        known = _Layer(made.__name__, run, bool(unknown), order, made)
        return known

    return _translated(layer_of, make)


def _method_parameters(made: type, method: str) -> list[str]:
    """The names of a method's parameters without self."""
    static = isinstance(inspect.getattr_static(made, method), staticmethod | classmethod)
    return list(parameters(getattr(made, method)))[0 if static else 1 :]


def _unknown_of_method(made: type, method: str, inputs: Mapping[str, PyTree]) -> list[str]:
    known = inspect.signature(getattr(made, method)).parameters
    unknown = [
        name
        for name in _method_parameters(made, method)
        if name not in inputs and known[name].default is inspect.Parameter.empty
    ]
    if len(unknown) > 1:
        raise UnusablePair(
            f"{made.__name__}.{method} has the parameters {', '.join(unknown)}, expected dout "
            f"alone beside the inputs {', '.join(inputs)}"
        )
    return unknown


def _constructor_parameters(make: Callable[..., Any]) -> dict[str, bool]:
    try:
        return parameters(make)
    except ValueError:  # a class without a signature
        return {}


def _called_with(make: Callable[..., Any], given: Inputs) -> Any:
    names = _constructor_parameters(make)
    missing = [name for name, needed in names.items() if needed and name not in given]
    if missing:
        raise UnusablePair(
            f"{getattr(make, '__name__', 'the constructor')} takes {', '.join(missing)}, expected "
            "inputs of these names, or a function of inputs to an object: "
            "claim_pair(lambda w: Layer(*w.shape), ...)"
        )
    return make(**{name: given[name] for name in names if name in given})


def _is_stored(layer: Any, name: str, value: Any) -> bool:
    """Puts an input in the place of an object's own parameter; whether there is a place."""
    for table in ("params", "parameters"):
        entries = getattr(layer, table, None)
        if isinstance(entries, dict) and name in entries:
            entries[name] = value
            return True
    if hasattr(layer, name):
        setattr(layer, name, value)
    return hasattr(layer, name)


def _part(value: Any, step: str | int) -> Any:
    """The entry of a table, or the attribute of an object."""
    table = isinstance(value, Mapping | list | tuple)
    return value[step] if table else getattr(value, str(step))  # pyright: ignore


def _left(layer: Any, name: str, gradients: Mapping[str, str]) -> list[Any]:
    """The gradient that the backward pass left in an object: a list of one, or none."""
    path = gradients.get(name)
    if path is not None:
        return [reduce(_part, steps(path), layer)]
    tables = [vars(layer), *(getattr(layer, n, None) for n in ("grads", "gradients", "grad"))]
    keys = (f"d{name}", f"d_{name}", f"grad_{name}", f"{name}_grad", f"d{name.upper()}")
    for number, table in enumerate(tables):
        for key in (*keys, name) if number else keys:
            if isinstance(table, Mapping) and key in table:
                return [table[key]]
    return []


def _translated(build: Callable[..., _Layer], *functions: Callable[..., Any]) -> _Layer:
    """A layer, with the layer of the functions' translations for JAX."""
    return replace(build(*functions), in_jax=build(*map(as_jax, functions)))


def _point(inputs: Mapping[str, PyTree], sizes: Sizes) -> dict[str, Any]:
    drawn = draw(dict(inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    return jax.tree.map(lambda value: value[0][()], drawn)


def _tried(layer: _Layer, inputs: Mapping[str, PyTree], sizes: Sizes) -> tuple[Any, Any]:
    """The output at random inputs, and what the backward pass returns.

    Raises:
      UnusablePair: a pass raises an exception, or the output is no array.
    """
    with _told_as("the forward pass"):
        out, back = layer.run(_point(inputs, sizes))
    if not hasattr(out, "shape") and not np.isscalar(out):
        raise UnusablePair(f"the forward pass returns {shown(out)}, expected an array")
    dout = np.random.default_rng(1).normal(size=np.shape(out))
    with _told_as("the backward pass"):
        return out, back(dout if layer.takes_dout else None)


@contextmanager
def _told_as(what: str) -> Iterator[None]:
    """Exceptions of the user's code as a line."""
    try:
        yield
    except UnusablePair:
        raise
    except Exception as error:
        raise UnusablePair(f"{what} raises {located(error)}") from error


def _like_out(layer: _Layer, inputs: Mapping[str, PyTree]) -> Input:
    """A generator of the shape of the output, by the names of equal sizes.

    Raises:
      ValueError: a length of the output is no size of the inputs.
    """
    every = draw_sizes(inputs, 0), larger_sizes(inputs, 1)
    shapes = [np.shape(_tried(layer, inputs, sizes)[0]) for sizes in every]
    names: list[Any] = []
    for lengths in zip(*shapes, strict=True):
        equal = [n for n in every[0] if all(s[n] == k for s, k in zip(every, lengths, strict=True))]
        if not equal and len({*lengths}) > 1:
            raise UnusablePair(
                f"the forward pass returns shape {shapes[0]} at the sizes {every[0]}, expected "
                f"dout=real(...) among the inputs"
            )
        names.append(equal[0] if equal else int(lengths[0]))
    return real(*names)
