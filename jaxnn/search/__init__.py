"""Hyperparameter search: whole populations train as a program; searches are resumable."""

from jaxnn.search.journal import CorruptLogError, ReproducibilityError, RunFolderError
from jaxnn.search.loop import Evaluation, Status
from jaxnn.search.methods import (
    Method,
    Round,
    Scores,
    Trial,
    grid,
    hyperband,
    population_based,
    random,
    sobol,
    successive_halving,
)
from jaxnn.search.result import AllDivergedError, Best, FinalScores, NoDataError, Result
from jaxnn.search.search import search
from jaxnn.search.space import (
    Domain,
    Space,
    SpaceError,
    choice,
    conditional,
    fixed,
    integer,
    log_uniform,
    uniform,
)
from jaxnn.search.task import Task, folds, given, holdout, splits
from jaxnn.search.tpe import optuna

__all__ = [
    "AllDivergedError", "Best", "CorruptLogError", "Domain", "Evaluation", "FinalScores", "Method",
    "NoDataError",
    "ReproducibilityError", "Result", "Round", "RunFolderError", "Scores", "Space", "SpaceError",
    "Status", "Task", "Trial", "choice", "conditional", "fixed", "folds", "given", "grid",
    "holdout", "hyperband", "integer", "log_uniform", "optuna", "population_based", "random",
    "search", "sobol", "splits", "successive_halving", "uniform",
]  # fmt: skip
