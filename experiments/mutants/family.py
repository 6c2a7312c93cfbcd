"""Families of claims about one function: right derivations, and derivations with a mistake."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxnn.verify import Claim, claim
from jaxnn.verify.verdict import CODES

Formula = Callable[..., Any]


class Wrong(NamedTuple):
    """A wrong derivation; made by ``wrong`` and ``relaid``."""

    codes: str
    note: str
    formula: Formula
    verdict: str


class Mutant(NamedTuple):
    """A wrong derivation as a claim, with the diagnoses and the verdict to expect."""

    claim: Claim
    explanations: tuple[frozenset[str], ...]  # sets of codes; each set tells the whole mistake
    verdict: str

    @property
    def codes(self) -> frozenset[str]:
        """Every code that a diagnosis may report; empty if no code describes the mistake."""
        return frozenset().union(*self.explanations) - {"unknown"}

    @property
    def described(self) -> bool:
        """Whether a code describes the mistake; the diagnosis ``unknown`` is then not enough."""
        return frozenset({"unknown"}) not in self.explanations

    @property
    def true_class(self) -> str:
        """The simplest explanation, as a row of the confusion matrix."""
        return "+".join(sorted(self.explanations[0]))


class Family(NamedTuple):
    """Claims about one function, written in several ways."""

    name: str
    correct: tuple[Claim, ...]  # a claim for every way of writing the function
    mutants: tuple[Mutant, ...]


def wrong(codes: str, note: str, formula: Formula) -> Wrong:
    """A derivation to be refuted.

    Args:
      codes: the explanations: ``"sign"``, two mistakes at once ``"sign+missing_mean"``, or
        alternatives ``"a | b"`` that describe one function of the inputs. ``"unknown"`` among the
        alternatives: the diagnosis need not have a code.
      note: the mistake in words.
      formula: the derivation.
    """
    return Wrong(codes, note, formula, "refuted")


def relaid(codes: str, note: str, formula: Formula) -> Wrong:
    """A derivation in a layout that the claim does not declare; arguments as in ``wrong``."""
    return Wrong(codes, note, formula, "holds_other_layout")


def family(
    name: str,
    *,
    ofs: Sequence[Formula],
    correct: Formula,
    mutants: Sequence[Wrong],
    **declaration: Any,
) -> Family:
    """The claims that a formula, and every mutant of the formula, is a function's derivative.

    Args:
      name: of the family.
      ofs: the ways of writing the function; each mutant takes the next way in turn.
      correct: the right formula.
      mutants: the wrong formulas.
      declaration: further arguments of ``claim``.
    """

    def named(of: Formula, formula: Formula, note: str) -> Claim:
        return dataclasses.replace(claim(of=of, **declaration)(formula), name=f"{name}: {note}")

    return Family(
        name,
        tuple(named(of, correct, f"correct, written in way {i}") for i, of in enumerate(ofs)),
        tuple(
            Mutant(
                named(ofs[i % len(ofs)], mutant.formula, f"{mutant.codes}, {mutant.note}"),
                _explanations(mutant.codes),
                mutant.verdict,
            )
            for i, mutant in enumerate(mutants)
        ),
    )


def _explanations(codes: str) -> tuple[frozenset[str], ...]:
    explanations = tuple(
        frozenset(code.strip() for code in alternative.split("+"))
        for alternative in codes.split("|")
    )
    unheard = frozenset().union(*explanations) - set(CODES)
    if unheard:
        raise ValueError(f"codes is {codes!r}, expected codes out of {', '.join(CODES)}")
    return explanations
