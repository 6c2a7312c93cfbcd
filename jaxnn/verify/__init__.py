"""Verify derivations: a formula derived by hand is confirmed, or refuted and diagnosed."""

from jaxnn.verify.claims import Claim, claim
from jaxnn.verify.gradcheck import gradcheck
from jaxnn.verify.inputs import binary, label, matrix, one_hot, positive, real, scalar, simplex
from jaxnn.verify.verdict import Counterexample, Finding, Verdict, Worst
from jaxnn.verify.verification import assert_holds, verify

__all__ = [
    "Claim",
    "Counterexample",
    "Finding",
    "Verdict",
    "Worst",
    "assert_holds",
    "binary",
    "claim",
    "gradcheck",
    "label",
    "matrix",
    "one_hot",
    "positive",
    "real",
    "scalar",
    "simplex",
    "verify",
]
