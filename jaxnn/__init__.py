"""jaxnn: pure JAX functions for the basics of deep learning."""

import os
import signal
import sys

# A command of jaxnn, during the seconds of its imports: an exception could be lost in an import.
if (
    sys.argv[:1] == ["-m"] and {"jaxnn", "jaxnn.verify"}.intersection(sys.orig_argv)
) or os.path.basename((sys.argv or [""])[0]) in ("jaxnn", "jaxnn.exe"):

    def _end_at_once(*_: object) -> None:
        os.write(2, b"jaxnn: interrupted\n")
        os._exit(130)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_at_once)

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
from jaxnn.types import Data, Hyper, Layer, Network, Splits, Variables

__version__ = "0.2.0"

__all__ = [
    "MLP", "NEVER", "Data", "History", "Hyper", "Layer", "Metrics", "Network", "Population", "Spec",
    "Splits", "State", "Variables", "apply", "best", "cross_entropy", "evaluate", "init",
    "init_state", "l2_penalty", "logistic", "loss", "objective", "parameter_count", "softmax",
    "squared_error", "train", "train_population", "train_step",
]  # fmt: skip
