"""Hyperparameter search: a whole population as one program, honest and resumable."""

from jaxnn.search.domain import (
    Domain,
    SpaceError,
    choice,
    conditional,
    fixed,
    integer,
    log_uniform,
    uniform,
)
from jaxnn.search.engine import Status
from jaxnn.search.final import FinalScores
from jaxnn.search.halving import hyperband, successive_halving
from jaxnn.search.journal import RunFolderError
from jaxnn.search.log import CorruptLogError
from jaxnn.search.methods import Method, Round, Scores, Trial
from jaxnn.search.pbt import population_based
from jaxnn.search.records import ReproducibilityError
from jaxnn.search.result import Best, Result
from jaxnn.search.sampling import grid, random, sobol
from jaxnn.search.search import search
from jaxnn.search.selection import AllDivergedError
from jaxnn.search.space import Space
from jaxnn.search.task import Task
from jaxnn.search.tpe import optuna
from jaxnn.search.validation import folds, given, holdout

__all__ = [
    "AllDivergedError",
    "Best",
    "CorruptLogError",
    "Domain",
    "FinalScores",
    "Method",
    "ReproducibilityError",
    "Result",
    "Round",
    "RunFolderError",
    "Scores",
    "Space",
    "SpaceError",
    "Status",
    "Task",
    "Trial",
    "choice",
    "conditional",
    "fixed",
    "folds",
    "given",
    "grid",
    "holdout",
    "hyperband",
    "integer",
    "log_uniform",
    "optuna",
    "population_based",
    "random",
    "search",
    "sobol",
    "successive_halving",
    "uniform",
]
