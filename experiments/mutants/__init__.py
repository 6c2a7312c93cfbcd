"""The catalogue that proves the diagnosis: right derivations and known mistakes."""

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
    """A claim of the catalogue by its place, as one process tells it to another."""

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
