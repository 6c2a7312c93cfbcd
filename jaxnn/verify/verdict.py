"""The verdict on a claim."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from jaxnn.files import short
from jaxnn.reporting import printable, registered_html


class Wording(NamedTuple):
    """A verdict for a reader."""

    words: str
    symbol: str
    style: str  # of rich
    meaning: str


VERDICTS = {
    "refuted": Wording(
        "refuted",
        "✗",
        "bold red",
        "Wrong: a counterexample is shown, and what the mistake most likely is.",
    ),
    "error": Wording("error", "!", "bold magenta", "Could not be judged, for the reason noted."),
    "misstated": Wording(
        "misstated",
        "≠",
        "bold yellow",
        "The formula is right, but the statement in LaTeX says something else.",
    ),
    "holds": Wording(
        "holds", "✓", "green", "Not refuted in any trial, and accurate in floating point."
    ),
    "holds_unstable": Wording(
        "holds, unstable",
        "≈",
        "yellow",
        "Right over the real numbers, but at some inputs float64 overflows, gives NaN, or loses "
        "more than half the bits where JAX's own derivative loses fewer.",
    ),
    "holds_other_layout": Wording(
        "right up to a layout",
        "⇄",
        "bold yellow",
        "Right once transposed or reordered as noted: wrong in a step of descent. The claim holds "
        "once that layout is declared.",
    ),
    "undecided": Wording(
        "not decided",
        "?",
        "yellow",
        "Not refuted; but the samples of an expectation leave a difference too large to say more.",
    ),
    "kink": Wording(
        "holds except at kinks", "∠", "cyan", "Wrong only where the function has no derivative."
    ),
}

HOLDS = ("holds", "holds_unstable", "kink")
"""Verdicts on formulas that are right over the real numbers, wherever a derivative exists."""

HOLDS_UP_TO_LAYOUT = (*HOLDS, "holds_other_layout")
"""Verdicts on formulas that are right up to a transpose or another order of the entries."""

CODES = (
    "sign", "missing_mean", "extra_mean", "factor", "fixed_size", "missing_l2", "wrong_l2",
    "l2_on_bias", "transpose", "vec_order", "diagonal_only", "symmetric_part", "exchanged",
    "softmax_jacobian_skipped", "activation_derivative_missing", "activation_derivative_twice",
    "activation_derivative_wrong_argument", "missing_term", "missing_bias", "wrong_value",
    "wrong_constant", "wrong_axis", "normaliser_constant", "statistic_constant", "forward_wrong",
    "wrong_statement", "shape", "unknown",
)  # fmt: skip
"""Mistakes that a diagnosis can name."""

MANTISSA = 53
"""Bits of a float64's mantissa."""


class Finding(NamedTuple):
    """A mistake that explains the value of a refuted formula."""

    code: str  # from CODES
    where: str  # the parameter, term or place in the function
    detail: str  # a sentence


class Worst(NamedTuple):
    """The entry with the largest distance between formula and reference."""

    where: str  # the parameter of the derivative
    index: tuple[int, ...]
    claimed: float  # the formula's value
    true: float  # the reference's value
    one_sided: tuple[float, float] | None = None  # at a kink: the two one-sided derivatives
    at_least: float | None = None  # a proven bound of |claimed - true|; None: by float64


class Counterexample(NamedTuple):
    """An input at which the formula is wrong."""

    sizes: Mapping[str, int]
    inputs: Mapping[str, Any]  # trees of float64 arrays


class Certificate(NamedTuple):
    """Formula and reference are equal in random finite fields, at some sizes."""

    sizes: Mapping[str, int]
    patterns: int  # of signs, drawn at random, that decide comparisons; 0: no comparison matters
    towers: int  # of finite fields, each with random inputs, in which both are equal
    bound: float  # a false formula passes with a probability below 2^bound
    seconds: float


STEPS = {
    "follows": "follows",
    "mistake": "does not follow",
    "repair": "right again",
    "unknown": "could not be compared",
}
"""How a line of a derivation stands to the lines before."""


class Step(NamedTuple):
    """A line of a derivation, compared with the lines before."""

    derivation: str  # the name
    line: int  # from 1
    outcome: str  # from STEPS
    after: tuple[int, ...] = ()  # the lines before of the same entries; none: the function itself
    case: str = ""  # the entries of the line; "": all


class Sampling(NamedTuple):
    """How far samples decide a claim about an expectation."""

    samples: int  # at every input, at least
    inputs: int  # random inputs at which formula and function were sampled
    left: float  # the largest difference left, by norm, relative to the value
    error: float  # the probability that a right formula is refuted, or that more is left
    assumption: str  # a sentence
    of: str = "value"  # what left is relative to; samples: of a value too small to tell from 0


def rounded_up(bound: float) -> str:
    """A positive bound with two digits, no smaller: ``1.2e-03``."""
    near = f"{bound:.1e}"
    exact = not float(near) < bound
    return near if exact else f"{bound + 10.0 ** (int(near[4:]) - 1):.1e}"


class Statement(NamedTuple):
    """Whether the statement in LaTeX says what the formula computes."""

    outcome: str  # agrees, differs, unread
    detail: str = ""  # the place and both values, or why the statement cannot be read


class Verdict(NamedTuple):
    """The verdict on a claim, with the evidence."""

    name: str
    source: str
    kind: str
    verdict: str  # from VERDICTS
    trials: int = 0  # random trials
    bits_lost: float | None = None  # of 53, at worst, beyond the effect of rounding the inputs
    worst: Worst | None = None
    counterexample: Counterexample | None = None
    diagnosis: tuple[Finding, ...] = ()  # several: two mistakes at once, or alternatives
    seconds: float = 0.0
    detail: str = ""  # a sentence: the layout, the error's line, how to tell alternatives apart
    file: str = ""  # the file of the claim, as named on the command line
    autodiff_bits_lost: float | None = None  # by JAX's own derivative in the same entry
    certificate: Certificate | None = None  # of a formula that holds
    uncertified: str = ""  # why a formula that holds has no certificate
    step: Step | None = None  # of a line of a derivation: whether the line follows
    sampling: Sampling | None = None  # of an expectation that was not enumerated
    black_box: str = ""  # of a formula that JAX does not trace: the language, what is known
    convention: str = ""  # of a derivative by a constrained parameter: "A: free entries"
    statement: Statement | None = None  # None: the claim has no statement
    latex: str = ""  # the statement of the formula
    code: str = ""  # the formula as Python

    @property
    def rank(self) -> int:
        """The place in tables and pages: refuted claims, then errors, layouts, the rest."""
        ranks = {"refuted": 0, "error": 1, "undecided": 1, "misstated": 2, "holds_other_layout": 2}
        return ranks.get(self.verdict, 3)

    @property
    def words(self) -> str:
        """The verdict for a reader, such as "holds, certified" or "holds to 1.2e-03"."""
        words = VERDICTS[self.verdict].words + (", certified" if self.certificate else "")
        if self.sampling is None or self.verdict != "holds":
            return words
        return f"{words} to {rounded_up(self.sampling.left)}"

    @property
    def holds(self) -> bool:
        """Whether the formula is right over the real numbers, wherever a derivative exists."""
        return self.verdict in HOLDS

    def __repr__(self) -> str:
        found = ", ".join(f"{f.code} in {f.where}" if f.where else f.code for f in self.diagnosis)
        words = self.words if self.verdict in VERDICTS else self.verdict
        parts = short(self.name), words, short(found or self.detail, 600)
        return printable(f"Verdict({'; '.join(filter(None, parts))})")

    def _repr_html_(self) -> str | None:
        return registered_html(self)  # jaxnn.verify.report has the function


class DerivationVerdict(NamedTuple):
    """The verdict on a derivation: every line against the truth, and against the lines before."""

    name: str
    source: str
    kind: str
    verdict: str  # from VERDICTS, of the line of the lowest rank
    lines: tuple[Verdict, ...]  # each with its step
    first_wrong: int | None = None  # the first line, from 1, that does not follow
    repaired_by: int | None = None  # the first later line that is right again
    unstable: tuple[int, ...] = ()  # lines that are right, but inaccurate in float64
    seconds: float = 0.0
    file: str = ""

    def __repr__(self) -> str:
        wrong = f"line {self.first_wrong} does not follow" if self.first_wrong else ""
        repaired = f"line {self.repaired_by} is right again" if self.repaired_by else ""
        parts = short(self.name), VERDICTS[self.verdict].words, wrong, repaired
        return printable(f"DerivationVerdict({'; '.join(filter(None, parts))})")

    def _repr_html_(self) -> str | None:
        return registered_html(self)  # jaxnn.verify.report has the function

    @property
    def holds(self) -> bool:
        """Whether every line is right over the real numbers, wherever a derivative exists."""
        return all(line.holds for line in self.lines)

    @property
    def diagnosis(self) -> tuple[Finding, ...]:
        """The mistakes in the first wrong line."""
        return self.lines[self.first_wrong - 1].diagnosis if self.first_wrong else ()

    @property
    def rank(self) -> int:
        """The place in tables: that of the line of the lowest rank."""
        return min(line.rank for line in self.lines)


def broken(lines: Iterable[Verdict]) -> tuple[int | None, int | None]:
    """The first line that does not follow, and the first line that is right again afterwards.

    A line of a case repairs no line of all entries.
    """
    first, astray = None, set[int]()
    for line in lines:
        step = line.step or Step("", 0, "unknown")
        if first is None and step.outcome == "mistake":
            first = step
            astray.add(step.line)
        elif first is not None and astray.intersection(step.after):
            if step.outcome != "repair":
                astray.add(step.line)
            elif step.case in ("", first.case):
                return first.line, step.line
    return (first.line if first else None), None
