"""Verify derivations: a formula derived by hand is confirmed, or refuted and diagnosed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxnn.verify.claims import Claim, claim
from jaxnn.verify.gradcheck import gradcheck
from jaxnn.verify.inputs import (
    binary,
    complex_,
    integers,
    interval,
    key,
    label,
    mask,
    matrix,
    one_hot,
    orthogonal,
    positive,
    positive_definite,
    real,
    scalar,
    simplex,
    sorted_,
    sphere,
    symmetric,
    triangular,
)
from jaxnn.verify.verdict import (
    Certificate,
    Counterexample,
    DerivationVerdict,
    Finding,
    Sampling,
    Step,
    Verdict,
    Worst,
)
from jaxnn.verify.verification import assert_holds, verify

if TYPE_CHECKING:
    from jaxnn.verify.batches import batch_of
    from jaxnn.verify.derivations import Derivation, derivation
    from jaxnn.verify.expectations import (
        bernoulli,
        categorical,
        expectation,
        minibatch,
        permutation,
        sampled,
    )
    from jaxnn.verify.pairs import claim_pair

_LAZILY = {
    "Derivation": "derivations",
    "batch_of": "batches",
    "bernoulli": "expectations",
    "categorical": "expectations",
    "claim_pair": "pairs",
    "derivation": "derivations",
    "expectation": "expectations",
    "minibatch": "expectations",
    "permutation": "expectations",
    "sampled": "expectations",
}
"""Names that few programs use, by the module that is imported when a program does."""

__all__ = [
    "Certificate",
    "Claim",
    "Counterexample",
    "Derivation",
    "DerivationVerdict",
    "Finding",
    "Sampling",
    "Step",
    "Verdict",
    "Worst",
    "assert_holds",
    "batch_of",
    "bernoulli",
    "binary",
    "categorical",
    "claim",
    "claim_pair",
    "complex_",
    "derivation",
    "expectation",
    "gradcheck",
    "integers",
    "interval",
    "key",
    "label",
    "mask",
    "matrix",
    "minibatch",
    "one_hot",
    "orthogonal",
    "permutation",
    "positive",
    "positive_definite",
    "real",
    "sampled",
    "scalar",
    "simplex",
    "sorted_",
    "sphere",
    "symmetric",
    "triangular",
    "verify",
]


def __getattr__(name: str) -> Any:
    """A name of ``_LAZILY``."""
    if name not in _LAZILY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZILY[name]}"), name)
