"""The types every file shares, and the shape letters of their comments.

Shape letters: N examples of a data set, B examples of a minibatch, ``in`` and ``out`` units of a
layer, C classes, K configurations (the population axis), S seeds (the replicate axis), E evaluated
iterations.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array
Batch = tuple[Array, Array]
"""Inputs [B, in] in floating point, and targets [B] or [B, C]."""
Key = jax.Array
"""From ``jax.random.key``."""
PyTree = Any
"""Nested tuples, dicts, ... of arrays, such as a network's parameters."""


class Layer(NamedTuple):
    """An affine map z = Wx + b."""

    weight: Array  # [out, in]
    bias: Array  # [out]


Params = tuple[Layer, ...]

Activation = Callable[[Array], Array]
"""An elementwise function of the pre-activations."""

Loss = Callable[[Array, Array], Array]
"""The loss of one example: (logits [C], target) -> scalar."""


class Model(Protocol):
    """A network as two pure functions; such as ``jaxnn.MLP`` or ``Network``."""

    def init(self, key: Key, /) -> PyTree:
        """The parameters, drawn."""
        ...

    def apply(self, params: PyTree, x: Array, /) -> Array:
        """The logits [C] of one example [in]."""
        ...


@dataclass(frozen=True)
class Network:
    """A network of Flax, Equinox, ... as the pair of functions for training."""

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Array], Any]


class Data(NamedTuple):
    """Labelled examples as stored: pixels stay uint8 until a training step takes the pixels."""

    inputs: Array | np.ndarray  # [N, in] uint8 or float; the network sees inputs * scale
    targets: Array | np.ndarray  # [N] class indices, or [N, C] probability vectors
    scale: ArrayLike = 1.0  # 1/255 for 8-bit pixels


class Splits(NamedTuple):
    """A data set: the examples to train on and the examples that judge the result."""

    train: Data
    test: Data


class Hyper(NamedTuple):
    """The traced hyperparameters: scalars, or arrays [K] for a population.

    One program serves every value. An optimizer reads the fields that the optimizer knows and
    ignores the rest; None stands for the optimizer's default. Any NamedTuple with
    ``learning_rate`` and ``l2`` can take the place of ``Hyper``;
    ``jaxnn.optimizers.hyper_class`` makes the NamedTuple of a named optimizer.

    Example:
      >>> from jaxnn import Hyper
      >>> Hyper(learning_rate=0.1, momentum=0.9)._replace(l2=1e-4).l2
      0.0001
    """

    learning_rate: ArrayLike
    l2: ArrayLike = 0.0  # strength of l2/2 * sum of squared weights
    momentum: ArrayLike | None = None  # momentum, nesterov: 0.9
    b1: ArrayLike | None = None  # adam: 0.9
    b2: ArrayLike | None = None  # adam: 0.999
    eps: ArrayLike | None = None  # adam: 1e-8
    clip: ArrayLike | None = None  # the largest norm of the gradient; None: no clipping
    weight_decay: ArrayLike | None = None  # adamw: 1e-4


def whole(value: Any) -> int | None:
    """The value as an int; None unless the value is an integer scalar, and no bool."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
