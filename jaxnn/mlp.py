"""Multilayer perceptrons as pure functions; with no hidden layer, softmax regression."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn import losses
from jaxnn.types import (
    Activation,
    ActivationName,
    Array,
    ArrayLike,
    InitializerName,
    Key,
    Layer,
    Loss,
    LossName,
    Params,
    PyTree,
    as_array,
    as_key,
    did_you_mean,
    require_type,
    shown,
    whole,
)

T = TypeVar("T")


@jax.custom_jvp
def relu(x: Array) -> Array:
    """max(0, x), elementwise, with the derivative 0 at 0.

    The derivative is a product with the mask: under ``vmap`` a select would move the minibatch axis
    to the front and cost a transpose of every hidden layer.
    """
    return jnp.maximum(x, 0)


@relu.defjvp
def _relu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    return relu(x), t * jnp.asarray(x > 0, t.dtype)


ACTIVATIONS: dict[str, Activation] = {"relu": relu, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}


INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    "he": lambda into, out: math.sqrt(2 / into),  # He et al., 2015
    "glorot": lambda into, out: math.sqrt(2 / (into + out)),  # Glorot and Bengio, 2010
}
"""The standard deviation of a layer's weights, from its numbers of inputs and outputs."""


_MOST = 2**40  # parameters: of more XLA loses count


def init(key: Key, sizes: Sequence[int], *, initializer: InitializerName = "he") -> Params:
    """Draws the parameters: random weights, zero biases.

    Args:
      key: consumed; one draw for all layers; a whole number n stands for ``jax.random.key(n)``.
      sizes: units per layer, input first: (784, 10) is softmax regression, (784, 50, 50, 10) has
        two hidden layers.
      initializer: "he", N(0, 2 / in), or "glorot", N(0, 2 / (in + out)).

    Returns:
      One ``Layer(weight [out, in], bias [out])`` per affine map, in float32 (float64 under
      ``jax_enable_x64``).

    Raises:
      ValueError: fewer than two sizes, a size that is not a positive integer, or an unknown
        initializer.
      TypeError: no key.
    """
    key, sizes = as_key(key), check_sizes(sizes)
    deviation = by_name("initializer", initializer, INITIALIZERS)
    if (count := parameter_count(sizes)) >= _MOST:
        raise ValueError(f"sizes is {sizes}, with {count} parameters, expected below {_MOST}")
    shapes = [(out, into) for into, out in pairwise(sizes)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    draws = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])
    return tuple(
        Layer(deviation(into, out) * draw.reshape(out, into), jnp.zeros(out))
        for draw, (out, into) in zip(draws, shapes, strict=True)
    )


def apply(params: Params, x: Array, *, activation: ActivationName | Activation = "relu") -> Array:
    """The logits of one example: x -> W_n a(... a(W_1 x + b_1) ...) + b_n.

    Args:
      params: one ``Layer`` per affine map.
      x: ONE example, shape [in]; ``jax.vmap(apply, in_axes=(None, 0))`` for a minibatch.
      activation: "relu", "sigmoid", "tanh" or any elementwise callable, after every layer but the
        last.

    Returns:
      The logits z, shape [out of the last layer].

    Raises:
      ValueError: x does not fit the first layer, a layer does not fit the layer before, or an
        unknown activation.
    """
    activate = get_activation(activation)
    *hidden, last = as_layers(params)
    for layer in hidden:
        x = activate(affine(layer, x))
    return affine(last, x)


def loss(
    params: Params,
    x: Array,
    target: ArrayLike,
    *,
    activation: ActivationName | Activation = "relu",
    loss: LossName | Loss = "cross_entropy",
) -> Array:
    """The unregularised loss of one example.

    Args:
      params: one ``Layer`` per affine map.
      x: ONE example, shape [in].
      target: a class index, or a probability vector.
      activation: as in ``apply``.
      loss: "cross_entropy" (S1.2), "squared_error" (S3.4), "logistic" (S5.3), another name of
        ``jaxnn.losses.LOSSES``, or any callable (logits, target) -> scalar.

    Returns:
      A scalar. The training objective, ``jaxnn.objective``, is its mean over a minibatch plus the
      L2 penalty.

    Raises:
      ValueError: the shapes do not fit, or an unknown activation or loss.
    """
    return get_loss(loss)(apply(params, x, activation=activation), as_array("target", target))


def parameter_count(sizes: Sequence[int]) -> int:
    """The number of parameters, sum over layers of in * out + out (S4.5)."""
    sizes = check_sizes(sizes)
    return sum(into * out + out for into, out in pairwise(sizes))


@dataclass(frozen=True)
class MLP:
    """``init`` and ``apply`` bound to sizes and activation: the ``Model`` of a ``Spec``."""

    sizes: tuple[int, ...]
    activation: ActivationName | Activation = "relu"
    initializer: InitializerName = "he"

    def __post_init__(self):
        object.__setattr__(self, "sizes", check_sizes(self.sizes))
        get_activation(self.activation)
        by_name("initializer", self.initializer, INITIALIZERS)

    def init(self, key: Key) -> Params:
        """Draws the parameters; see ``jaxnn.init``."""
        return init(key, self.sizes, initializer=self.initializer)

    def apply(self, params: PyTree, x: Array) -> Array:
        """The logits of one example; see ``jaxnn.apply``."""
        return apply(params, x, activation=self.activation)


@dataclass(frozen=True)
class PaddedMLP(MLP):
    """Networks of many sizes as one program: an ``MLP`` of the largest sizes, the widths traced.

    Units beyond a network's width have zero parameters and are masked, and so is the gradient to
    these; a layer beyond a network's depth hands the input on. Outputs and gradients are those of
    ``MLP((in, *widths, out))`` to rounding, the initial parameters to the bit.
    """

    shallowest: int = 1  # the least number of hidden layers

    def draw(self, params: Params, draws: np.ndarray, hidden: Sequence[int]) -> None:
        """Writes the first parameters of some hidden layers to zeros [..., padded], in place.

        Args:
          params: zeros, in NumPy arrays.
          draws: normal numbers [..., N] by the key of the network, as many as weights or more.
          hidden: the layer sizes.
        """
        first = 0
        for layer in cut(params, hidden):
            out, into = layer.weight.shape[-2:]
            weight = draws[..., first : first + out * into].reshape(layer.weight.shape)
            layer.weight[...] = INITIALIZERS[self.initializer](into, out) * weight
            first += out * into

    def widths(self, hidden: Sequence[Sequence[int]]) -> np.ndarray:
        """The widths [K, layers] that ``apply`` takes for K networks of some hidden layers."""
        largest = self.sizes[1:-1]
        return np.array([(*each, *(0,) * (len(largest) - len(each))) for each in hidden], np.int32)

    def apply(self, params: PyTree, x: Array, *, widths: Any = None) -> Array:
        """The logits of one example, of a network with some ``widths`` [layers]."""
        activate, (*hidden, last) = get_activation(self.activation), params
        for place, layer in enumerate(hidden):
            z = affine(layer, x)
            found = activate(z) * jnp.asarray(jnp.arange(len(z)) < widths[place], z.dtype)
            if place >= self.shallowest:
                kept = jnp.pad(x[: len(z)], (0, max(len(z) - len(x), 0)))
                found = jnp.where(widths[place] > 0, found, kept)
            x = found
        return affine(last, x)


def cut(params: Params, hidden: Sequence[int]) -> Params:
    """The part of parameters [..., padded] that is an ``MLP`` with some hidden layers: views."""
    *layers, last = params
    sizes = (params[0].weight.shape[-1], *hidden, last.weight.shape[-2])
    own = zip((*layers[: len(hidden)], last), pairwise(sizes), strict=True)
    return tuple(
        Layer(layer.weight[..., :out, :into], layer.bias[..., :out]) for layer, (into, out) in own
    )


def check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes as a tuple of ints; ValueError unless all sizes are positive integers."""
    sizes = tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)
    if len(sizes) < 2:
        raise ValueError(f"sizes is {shown(sizes)}, expected at least two: (inputs, ..., classes)")
    if not all((whole(size) or 0) > 0 for size in sizes):
        raise ValueError(f"sizes is {shown(sizes)}, expected positive integers")
    return tuple(map(int, sizes))


def get_activation(activation: str | Activation) -> Activation:
    """The activation by name, or the callable itself."""
    if callable(activation):
        return activation
    return by_name("activation", activation, ACTIVATIONS, " or a callable")


def get_loss(loss: str | Loss) -> Loss:
    """The per-example loss by name, or the callable itself."""
    return loss if callable(loss) else by_name("loss", loss, losses.LOSSES, " or a callable")


def by_name(kind: str, name: str, known: Mapping[str, T], also: str = "") -> T:
    """The entry of a table; ValueError for an unknown name."""
    if not isinstance(name, str) or name not in known:
        expected = f"expected one of {sorted(known)}{also}{did_you_mean(name, known)}"
        raise ValueError(f"{kind} is {shown(name)}, {expected}")
    return known[name]


def as_layers(params: Any) -> Params:
    """The layers of a network, in arrays; TypeError for anything else, ValueError for none."""
    several = isinstance(params, Iterable) and not hasattr(params, "dtype")
    several = several and not isinstance(params, Layer)
    require_type(several, "params", params, "layers, such as (Layer(weight, bias),)")
    if not (layers := tuple(params)):
        raise ValueError("params has no layers, expected at least one Layer(weight, bias)")
    return tuple(map(as_layer, layers))


def as_layer(layer: Any) -> Layer:
    """A layer, in arrays; TypeError unless the layer is a pair of numbers."""
    fits = isinstance(layer, tuple | list) and len(layer) == 2
    require_type(fits, "a layer", layer, "Layer(weight, bias)")
    weight, bias = layer
    return Layer(as_array("the weight", weight), as_array("the bias", bias))


def affine(layer: Layer, x: Array) -> Array:
    """z = Wx + b for one example x [in], guarded (S2.5's ``AffineTransformation``)."""
    (weight, bias), x = as_layer(layer), as_array("x", x)
    if x.ndim != 1:
        raise ValueError(
            f"apply takes one example, shape [in], got {x.shape}: jax.vmap it over a minibatch"
        )
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or weight.shape[1:] != x.shape:
        raise ValueError(
            f"a layer with weight {weight.shape} and bias {bias.shape} cannot take an input of "
            f"shape {x.shape}: expected weight [out, in], bias [out], input [in]"
        )
    return weight @ x + bias
