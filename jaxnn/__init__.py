"""jaxnn: pure JAX functions for the basics of deep learning."""

from jaxnn.losses import cross_entropy, l2_penalty, logistic, softmax, squared_error
from jaxnn.mlp import MLP, apply, init, loss, parameter_count
from jaxnn.population import Population, best, train_population
from jaxnn.spec import Spec
from jaxnn.train import (
    NEVER,
    History,
    Metrics,
    State,
    evaluate,
    init_state,
    objective,
    train,
    train_step,
)
from jaxnn.types import Data, Hyper, Layer, Network, Splits

__version__ = "0.2.0"

__all__ = [
    "MLP",
    "NEVER",
    "Data",
    "History",
    "Hyper",
    "Layer",
    "Metrics",
    "Network",
    "Population",
    "Spec",
    "Splits",
    "State",
    "apply",
    "best",
    "cross_entropy",
    "evaluate",
    "init",
    "init_state",
    "l2_penalty",
    "logistic",
    "loss",
    "objective",
    "parameter_count",
    "softmax",
    "squared_error",
    "train",
    "train_population",
    "train_step",
]
