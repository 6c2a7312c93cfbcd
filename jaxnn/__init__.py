"""jaxnn: pure JAX functions for the basics of deep learning."""

from jaxnn.losses import cross_entropy, l2_penalty, logistic, softmax, squared_error
from jaxnn.mlp import MLP, apply, init, loss, parameter_count
from jaxnn.types import Data, Hyper, Layer, Network, Splits

__all__ = [
    "MLP",
    "Data",
    "Hyper",
    "Layer",
    "Network",
    "Splits",
    "apply",
    "cross_entropy",
    "init",
    "l2_penalty",
    "logistic",
    "loss",
    "parameter_count",
    "softmax",
    "squared_error",
]
