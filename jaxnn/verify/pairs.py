"""Forward and backward passes as courses write them: pairs of functions, or a class with both."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from sys import modules
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnn.types import PyTree, require_type, shown
from jaxnn.verify.black_box import as_arrays, in_a_language
from jaxnn.verify.claims import (
    Claim,
    call,
    children,
    claim,
    is_list_of_numbers,
    parameter_of,
    parameters,
    steps,
    with_keywords,
)
from jaxnn.verify.graph import located
from jaxnn.verify.inputs import REAL_KINDS, Sizes, draw, draw_sizes, larger_sizes, leaves, real
from jaxnn.verify.translation import with_translation

METHODS = (
    ("forward", "backward"),
    ("doForward", "doBackward"),
    ("do_forward", "do_backward"),
    ("forward_pass", "backward_pass"),
    ("__call__", "backward"),
)
"""The names of the two methods of a class; the first pair that the class has is taken."""

DOUT, CACHES = "dout", ("cache", "caches", "ctx", "memory", "saved")

GRADIENT = re.compile(r"d_?(out|next|prev|[A-Za-z])\d?(_\w+)?|.*grad.*")
"""The names of a backward pass's parameters for gradients by outputs, such as dout, dh, grad."""

Inputs = Mapping[str, PyTree]


class UnusablePair(ValueError):  # noqa: N818
    """The passes are no pair; the message is a line."""


def claim_pair(
    forward: Any,
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
      forward: ``forward(x, w, b) -> out`` or ``-> (out, cache)``, or ``-> (h, c, cache)`` with
        several outputs; without ``backward`` also ``loss(x, y) -> (loss, gradients)``; or a class,
        an object, or a function of some inputs to an object, with methods ``forward`` and
        ``backward`` (``doForward``, ``forward_pass``); or a ``torch.autograd.Function``.
      backward: ``backward(dout, cache) -> (dx, dw, db)``, or ``backward(dh, dc, cache)``; a
        parameter with the name of an input gets the input. The gradients come in the order of the
        inputs of ``forward``, or by name; None is no gradient.
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
    once, again = _leaves(out, returned), _leaves(*_tried(layer, known, draw_sizes(known, 0)))
    if not all(map(partial(np.array_equal, equal_nan=True), once, again)):
        raise UnusablePair(
            "the passes give two values at equal inputs, expected no randomness, and no sums that "
            "outlast a call (for a class with zero_grad, give the class or the object)"
        )
    if layer.douts > 1 or (layer.douts and np.ndim(out)):
        inputs = {**known, DOUT: inputs.get(DOUT) or _like_out(layer, known)}
    elif np.ndim(out):
        raise UnusablePair(
            f"the backward pass has no parameter for dout, and the forward pass returns shape "
            f"{np.shape(out)}, expected a scalar loss"
        )
    paths = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    paths = paths or tuple(_by_name(returned, layer.order, known))

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
    """Two passes, as a function of the inputs to the output and to a function of dout, or douts."""

    name: str
    run: Callable[[Inputs], tuple[Any, Callable[[Any], Any]]]
    douts: int  # the outputs by which the backward pass takes gradients; 0: of a loss
    order: tuple[str, ...]  # the inputs of the gradients that come in a tuple
    code: Callable[..., Any]  # to be shown
    translated: "Callable[[_Translate], _Layer] | None" = None


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
        found = _by_name(back(given.get(DOUT, 1.0)), layer.order, inputs)
        missing = [name for name in wrt if name not in found]
        if missing:
            raise UnusablePair(
                f"the backward pass gives gradients for {', '.join(found)}, expected "
                f"{', '.join(missing)} too"
            )
        return {name: found[name] for name in wrt}

    return _named(layer, inputs, gradients)


_Translate = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Of a function of the user."""


def _named(
    layer: _Layer, names: Iterable[str], function: Callable[[_Layer, Inputs], Any]
) -> Callable[..., Any]:
    """A function by keywords, with the name and the code of the user's, and a translation."""

    def called(**inputs: PyTree) -> Any:
        return function(layer, inputs)

    with_keywords(called, names).__name__ = layer.name
    vars(called)["__wrapped__"] = layer.code
    made = layer.translated
    if made is None:
        return called
    return with_translation(called, lambda translate: _named(made(translate), names, function))


def _by_name(returned: Any, every: Sequence[str], inputs: Mapping[str, PyTree]) -> dict[str, Any]:
    """The gradients by the names of the inputs; None stands for no gradient.

    Raises:
      ValueError: no gradient, more gradients than inputs, or a name of no input.
    """
    order = _real(inputs, every)
    parts = returned if isinstance(returned, Mapping) else children(returned)
    parts = {0: returned} if parts is None or is_list_of_numbers(returned) else parts
    names = order if len(parts) <= len(order) else every
    if all(isinstance(key, str) for key in parts):
        names = [_input_of(str(key), inputs) for key in parts]
    if len(parts) > len(names):
        raise UnusablePair(
            f"the backward pass returns {len(parts)} gradients, expected at most {len(order)}, for "
            f"{', '.join(order)}"
        )
    pairs = zip(names, parts.values(), strict=False)
    found = {name: gradient for name, gradient in pairs if gradient is not None}
    if not found:
        raise UnusablePair(f"the backward pass returns no gradient, expected {', '.join(order)}")
    return found


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


def _layer(forward: Any, backward: Any, inputs: Inputs, gradients: dict[str, str]) -> _Layer:
    """The two passes of functions, of a class, of an object or of a function to an object."""
    owner, torch = getattr(forward, "__self__", None), modules.get("torch")
    if inspect.ismethod(backward) and inspect.ismethod(forward) and owner is backward.__self__:
        methods = forward.__name__, backward.__name__
        return _of_object(_copies(owner), type(owner), methods, inputs, gradients)
    if not all(map(callable, filter(None, (forward, backward)))) and not _methods(type(forward)):
        which = forward if not callable(forward) else backward
        raise UnusablePair(f"a pass is {shown(which)}, expected a function or a class")
    if backward is not None:
        return _of_functions(forward, backward, inputs, backward)
    made = forward if isinstance(forward, type) else type(forward)
    if torch and issubclass(made, torch.autograd.Function):
        return _of_autograd(made, torch)
    make = _copies(forward) if made is not forward and _methods(made) else forward
    if make is forward and made is not forward:
        sizes = draw_sizes(inputs, 0)
        with _told_as("the forward pass"):
            value = in_a_language(lambda given: call(forward, _point(inputs, sizes, given)))
        if isinstance(value, tuple) and len(value) >= 2 and np.ndim(value[0]) == 0:
            return _of_functions(forward, lambda cache: cache, inputs, forward)
        made = type(value)
    methods = _methods(made)
    if methods is None:
        raise UnusablePair(
            f"{made.__name__} has no methods forward and backward, expected functions, or a class "
            "with both"
        )
    return _of_object(make, made, methods, inputs, gradients)


class _Taken(NamedTuple):
    """The parameters of a backward pass that are no inputs."""

    gradients: list[str]
    caches: list[str]

    def split(self, value: Any) -> tuple[Any, dict[str, Any]]:
        """The output, or a tuple of outputs, and the caches among a forward pass's values.

        Raises:
          UnusablePair: the values are fewer than the parameters.
        """
        outs, names = max(1, len(self.gradients)), self.caches
        several = isinstance(value, tuple) and (names or outs > 1 or len(value) == 2)
        out, left = (value[:outs], value[outs:]) if several else ((value,), ())
        left = left[0] if len(left) == 1 else left or None
        parts = left if len(names) > 1 and isinstance(left, tuple) else [left][: len(names)]
        if len(out) != outs or len(parts) != len(names):
            raise UnusablePair(
                f"the backward pass has the parameters {', '.join((*self.gradients, *names))}, "
                "expected dout, cache, and names of the inputs"
            )
        return out if outs > 1 else out[0], dict(zip(names, parts, strict=True))

    def given(self, dout: Any, caches: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the backward pass."""
        douts = dout if len(self.gradients) > 1 else [dout] * len(self.gradients)
        return {**dict(zip(self.gradients, douts, strict=True)), **caches}


def _taken(known: Mapping[str, bool], inputs: Iterable[str]) -> _Taken:
    """The parameters without a default that are no inputs, by name; else the first is dout."""
    unknown = [name for name, needed in known.items() if needed and name not in {*inputs}]
    named = [name for name in unknown if GRADIENT.fullmatch(name)]
    gradients = named or [name for name in unknown if name not in CACHES][:1]
    return _Taken(gradients, [name for name in unknown if name not in gradients])


def _of_functions(
    forward: Callable[..., Any], backward: Callable[..., Any], inputs: Inputs, code: Any
) -> _Layer:
    taken, order = _taken(parameters(backward), inputs), tuple(parameters(forward))
    name = getattr(code, "__name__", "backward")

    def layer_of(forward: Callable[..., Any], backward: Callable[..., Any]) -> _Layer:
        def run(given: Inputs) -> tuple[Any, Callable[[Any], Any]]:
            out, caches = taken.split(call(forward, given))
            return out, lambda dout: call(backward, {**given, **taken.given(dout, caches)})

        return _Layer(name, run, len(taken.gradients), order, code)

    return _translated(layer_of, forward, backward)


def _of_autograd(made: Any, torch: Any) -> _Layer:
    """A ``torch.autograd.Function``: PyTorch differentiates forward, and calls backward."""
    with_context = made.setup_context is torch.autograd.Function.setup_context
    order = tuple(parameters(made.forward))[1 if with_context else 0 :]
    names = ("save_for_backward", "mark_dirty", "mark_non_differentiable", "set_materialize_grads")

    def run(given: Inputs) -> tuple[Any, Callable[[Any], Any]]:
        inputs = {name: given[name] for name in order if name in given}
        nothing = dict.fromkeys(names, lambda *_: None)
        context = SimpleNamespace(**nothing, needs_input_grad=(True,) * len(inputs))
        out = made.forward(*([context] if with_context else []), *inputs.values())

        def back(dout: Any) -> dict[str, Any]:
            known = {n: x.detach() for n, x in inputs.items()}
            by = {n: x.requires_grad_() for n, x in known.items() if x.is_floating_point()}
            value = made.apply(*known.values())
            dout = torch.as_tensor(dout, dtype=value.dtype)
            found = torch.autograd.grad(value, [*by.values()], dout, allow_unused=True)
            return dict(zip(by, found, strict=True))

        return out, back

    return _Layer(made.__name__, run, 1, order, made)


def _methods(made: type) -> tuple[str, str] | None:
    """The names of the two passes of a class."""
    return next((pair for pair in METHODS if all(hasattr(made, name) for name in pair)), None)


def _copies(layer: Any) -> Callable[[], Any]:
    """A function to copies of an object: passes change what they store."""

    def of_class(made: Any) -> Callable[[], Any]:
        def copied() -> Any:
            copy = deepcopy(layer)
            copy.__class__ = made
            return copy

        return copied

    made = type(layer)
    return with_translation(of_class(made), lambda translate: of_class(translate(made)))


def _of_object(
    make: Callable[..., Any],
    made: type,
    methods: tuple[str, str],
    inputs: Mapping[str, PyTree],
    gradients: dict[str, str],
) -> _Layer:
    """An object's two methods; inputs are stored in the object, gradients read from the object."""
    first, second = (_parameters_of_method(made, method) for method in methods)
    taken = _taken(second, inputs)
    constructed = dict[str, bool]()
    with suppress(ValueError):  # a class without a signature
        constructed = parameters(make)
    stored = [name for name in inputs if name not in {**first, **second}]
    order = (*first, *(name for name in inputs if name not in first))

    def layer_of(make: Callable[..., Any]) -> _Layer:
        def run(given: Inputs) -> tuple[Any, Callable[[Any], Any]]:
            layer = _called_with(make, constructed, given)
            for name in stored:
                if not _is_stored(layer, name, given[name]) and name not in constructed:
                    raise UnusablePair(
                        f"input {name!r} is no parameter, attribute or entry of params of "
                        f"{made.__name__}, expected an input that the passes use"
                    )
            forward, backward = (getattr(layer, method) for method in methods)
            out, caches = taken.split(call(forward, given))

            def back(dout: Any) -> Any:
                returned = call(backward, {**given, **taken.given(dout, caches)})
                found = {} if returned is None else _by_name(returned, order, inputs)
                left = (name for name in _real(inputs, order) if name not in found)
                return found | {n: g for n in left for g in _left(layer, n, gradients)}

            return out, back

        return _Layer(made.__name__, run, len(taken.gradients), order, made)

    return _translated(layer_of, make)


def _parameters_of_method(made: type, method: str) -> dict[str, bool]:
    """The parameters of a method without self."""
    static = isinstance(inspect.getattr_static(made, method), staticmethod | classmethod)
    known = [*parameters(getattr(made, method)).items()]
    return dict(known if static else known[1:])


def _called_with(make: Callable[..., Any], known: Mapping[str, bool], given: Inputs) -> Any:
    """An object, made with the inputs among the parameters."""
    missing = [name for name, needed in known.items() if needed and name not in given]
    if missing:
        raise UnusablePair(
            f"{getattr(make, '__name__', 'the constructor')} takes {', '.join(missing)}, expected "
            "inputs of these names, or a function of inputs to an object: "
            "claim_pair(lambda w: Layer(*w.shape), ...)"
        )
    return make(**{name: given[name] for name in known if name in given})


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


def _left(layer: Any, name: str, gradients: Mapping[str, str]) -> list[Any]:
    """The gradient that the backward pass left in an object: a list of one, or none."""
    path = gradients.get(name)
    if path is not None:
        for step in steps(path):
            table = isinstance(layer, Mapping | list | tuple)
            layer = layer[step] if table else getattr(layer, str(step))
        return [layer]
    tables = [vars(layer), *(getattr(layer, n, None) for n in ("grads", "gradients", "grad"))]
    keys = (f"d{name}", f"d_{name}", f"grad_{name}", f"{name}_grad", f"d{name.upper()}")
    for number, table in enumerate(tables):
        for key in (*keys, name) if number else keys:
            if isinstance(table, Mapping) and key in table:
                return [table[key]]
    return []


def _translated(build: Callable[..., _Layer], *functions: Callable[..., Any]) -> _Layer:
    """A layer, with the way to the layer of the functions' translations."""
    return replace(
        build(*functions), translated=lambda translate: build(*map(translate, functions))
    )


def _point(
    inputs: Mapping[str, PyTree], sizes: Sizes, given: Callable[[Any], Any]
) -> dict[str, Any]:
    drawn = draw(dict(inputs), sizes, 1, np.random.default_rng(0), spreads=(1.0,))
    return jax.tree.map(lambda value: given(value[0]), drawn)


def _tried(layer: _Layer, inputs: Mapping[str, PyTree], sizes: Sizes) -> tuple[Any, Any]:
    """The output at random inputs, and what the backward pass returns.

    Raises:
      UnusablePair: a pass raises an exception, or the output is no array.
    """

    def passed(given: Callable[[Any], Any]) -> tuple[Any, Any]:
        with _told_as("the forward pass"):
            out, back = layer.run(_point(inputs, sizes, given))
        for part in out if layer.douts > 1 else (out,):
            if not hasattr(part, "shape") and not np.isscalar(part):
                raise UnusablePair(f"the forward pass returns {shown(part)}, expected an array")
        rng = np.random.default_rng(1)
        dout = jax.tree.map(lambda part: given(rng.normal(size=np.shape(part))), out)
        with _told_as("the backward pass"):
            return out, back(dout)

    return in_a_language(passed)


def _leaves(*values: Any) -> list[np.ndarray]:
    """Copies of the arrays in values."""
    return [np.array(leaf) for leaf in jax.tree.leaves(as_arrays(values))]


@contextmanager
def _told_as(what: str) -> Iterator[None]:
    """Exceptions of the user's code as a line."""
    try:
        yield
    except UnusablePair:
        raise
    except Exception as error:
        raise UnusablePair(f"{what} raises {located(error)}") from error


def _like_out(layer: _Layer, inputs: Mapping[str, PyTree]) -> PyTree:
    """A generator of the shape of every output, by the names of equal sizes.

    Raises:
      ValueError: a length of the output is no size of the inputs.
    """
    every = draw_sizes(inputs, 0), larger_sizes(inputs, 1)

    def like(*outs: Any) -> Any:
        shapes, names = [*map(np.shape, outs)], list[Any]()
        for lengths in zip(*shapes, strict=True):
            pairs = [*zip(every, lengths, strict=True)]
            equal = [name for name in every[0] if all(s[name] == k for s, k in pairs)]
            if not equal and len({*lengths}) > 1:
                raise UnusablePair(
                    f"the forward pass returns shape {shapes[0]} at the sizes {every[0]}, "
                    f"expected dout=real(...) among the inputs"
                )
            names.append(equal[0] if equal else int(lengths[0]))
        return real(*names)

    return jax.tree.map(like, *(_tried(layer, inputs, sizes)[0] for sizes in every))
