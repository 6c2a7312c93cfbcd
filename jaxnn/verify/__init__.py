"""Verify derivations: a formula derived by hand is confirmed, or refuted and diagnosed."""

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
from jaxnn.verify.verdict import Certificate, Counterexample, Finding, Verdict, Worst
from jaxnn.verify.verification import assert_holds, verify

__all__ = [
    "Certificate",
    "Claim",
    "Counterexample",
    "Finding",
    "Verdict",
    "Worst",
    "assert_holds",
    "binary",
    "claim",
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
