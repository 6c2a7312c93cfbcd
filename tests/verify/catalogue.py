"""The catalogue that proves the diagnosis: right derivations and known mistakes."""

import catalogue_chains
import catalogue_networks
import catalogue_regression
import catalogue_softmax
from catalogue_family import Family, Mutant

from jaxnn.verify import Claim

FAMILIES: tuple[Family, ...] = (
    *catalogue_softmax.FAMILIES,
    *catalogue_regression.FAMILIES,
    *catalogue_networks.FAMILIES,
    *catalogue_chains.FAMILIES,
)
CORRECT: tuple[Claim, ...] = tuple(claim for family in FAMILIES for claim in family.correct)
MUTANTS: tuple[Mutant, ...] = tuple(mutant for family in FAMILIES for mutant in family.mutants)
