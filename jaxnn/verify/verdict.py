"""What is said of a claim."""

from collections.abc import Mapping
from typing import Any, NamedTuple

VERDICTS = ("holds", "holds_unstable", "holds_other_layout", "refuted", "kink", "error")

HOLDS = ("holds", "holds_unstable", "holds_other_layout", "kink")
"""The verdicts on formulas that are right over the real numbers, wherever there is a derivative."""

CODES = (
    "sign",
    "missing_mean",
    "extra_mean",
    "factor",
    "missing_l2",
    "wrong_l2",
    "l2_on_bias",
    "transpose",
    "vec_order",
    "diagonal_only",
    "softmax_jacobian_skipped",
    "activation_derivative_missing",
    "activation_derivative_wrong_argument",
    "wrong_value",
    "normaliser_constant",
    "shape",
    "unknown",
)


class Finding(NamedTuple):
    """One mistake that explains what a refuted claim computes."""

    code: str  # one of CODES
    where: str  # the parameter, term or place in the function
    detail: str  # a sentence


class Worst(NamedTuple):
    """The entry where claim and truth are furthest apart."""

    where: str  # the parameter whose derivative it is an entry of
    index: tuple[int, ...]
    claimed: float
    true: float
    one_sided: tuple[float, float] | None = None  # at a kink: the derivative from either side


class Counterexample(NamedTuple):
    """An input at which the claim fails."""

    sizes: Mapping[str, int]
    inputs: Mapping[str, Any]  # trees of float64 arrays


class Verdict(NamedTuple):
    """What is said of a claim, with the evidence."""

    name: str
    source: str
    kind: str
    verdict: str  # one of VERDICTS
    trials: int  # random trials
    bits_lost: float | None  # of 53, at worst, beyond what rounding the inputs explains
    worst: Worst | None
    counterexample: Counterexample | None
    diagnosis: tuple[Finding, ...]  # several: at most two mistakes at once, or alternatives
    seconds: float
    detail: str = (
        ""  # a sentence: the layout, the error and its line, what tells alternatives apart
    )

    @property
    def holds(self) -> bool:
        """Whether the formula is right over the real numbers, wherever there is a derivative."""
        return self.verdict in HOLDS
