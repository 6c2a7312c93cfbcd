"""The catalogue of mutants: right derivations, and derivations with a known mistake."""

from typing import NamedTuple

from experiments.mutants import chains, networks, regression, softmax
from experiments.mutants.family import Family, Mutant
from jaxnn.verify import Claim

FAMILIES: tuple[Family, ...] = (
    *softmax.FAMILIES,
    *regression.FAMILIES,
    *networks.FAMILIES,
    *chains.FAMILIES,
)
CORRECT: tuple[Claim, ...] = tuple(claim for family in FAMILIES for claim in family.correct)
MUTANTS: tuple[Mutant, ...] = tuple(mutant for family in FAMILIES for mutant in family.mutants)


class Case(NamedTuple):
    """The place of a claim in the catalogue; processes exchange places, not claims."""

    is_mutant: bool
    index: int  # in MUTANTS or in CORRECT

    @property
    def claim(self) -> Claim:
        """The claim."""
        return MUTANTS[self.index].claim if self.is_mutant else CORRECT[self.index]


CASES: tuple[Case, ...] = (
    *(Case(False, index) for index in range(len(CORRECT))),
    *(Case(True, index) for index in range(len(MUTANTS))),
)
