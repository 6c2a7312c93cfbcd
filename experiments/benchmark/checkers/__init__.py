"""Peers of ``jaxnn.verify``: gradient checkers after their documentation, with default tolerances.

All checkers are given equal claims at equal points, in float64.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import numpy as np

from experiments.benchmark.checkers.statement import Point, Statement

Check = Callable[[Point], object]
"""Raises where the derivative is not found right."""


class Checker(NamedTuple):
    """A gradient checker, in two uses."""

    check_of: Callable[[Statement], Check]  # of any claim, which JAX evaluates
    check_softmax: Callable[[np.ndarray], object]  # at logits, all in the checker's library


LABELS = {
    "torch_gradcheck": "torch.autograd.gradcheck",
    "torch_gradcheck_fast": "torch.autograd.gradcheck, fast_mode",
    "jax_check_grads": "jax.test_util.check_grads",
    "chex_numerical_grads": "chex.assert_numerical_grads",
    "gradcheck_naive": "gradcheck_naive (NumPy)",
}
MODULES = {"torch": "on_torch", "jax": "on_jax", "chex": "on_jax", "gradcheck": "on_numpy"}


def load(name: str) -> Checker:
    """The checker.

    Raises:
      ModuleNotFoundError: its package is not installed.
    """
    module = import_module(f"{__name__}.{MODULES[name.partition('_')[0]]}")
    return module.CHECKERS[name]


def present() -> dict[str, Checker]:
    """The installed checkers; a line is printed about each missing checker."""
    found = {}
    for name, label in LABELS.items():
        try:
            found[name] = load(name)
        except ModuleNotFoundError as error:
            print(f"{label} is left out: {error}")
    return found
