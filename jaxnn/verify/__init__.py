"""Verify derivations: a formula derived by hand is confirmed, or refuted and diagnosed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxnn.verify.claims import Claim, claim
from jaxnn.verify.gradcheck import gradcheck
from jaxnn.verify.inputs import (
    binary,
    interval,
    label,
    matrix,
    one_hot,
    positive,
    positive_definite,
    real,
    scalar,
    simplex,
    symmetric,
)
from jaxnn.verify.verdict import (
    Certificate,
    Counterexample,
    DerivationVerdict,
    Finding,
    Step,
    Verdict,
    Worst,
)
from jaxnn.verify.verification import assert_holds, verify

if TYPE_CHECKING:
    from jaxnn.verify.derivations import Derivation, derivation

_LAZILY = {"Derivation": "derivations", "derivation": "derivations"}
"""Names that few programs use, by the module that is imported when a program does."""

__all__ = [
    "Certificate",
    "Claim",
    "Counterexample",
    "Derivation",
    "DerivationVerdict",
    "Finding",
    "Step",
    "Verdict",
    "Worst",
    "assert_holds",
    "binary",
    "claim",
    "derivation",
    "gradcheck",
    "interval",
    "label",
    "matrix",
    "one_hot",
    "positive",
    "positive_definite",
    "real",
    "scalar",
    "simplex",
    "symmetric",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A name of ``_LAZILY``."""
    if name not in _LAZILY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZILY[name]}"), name)
