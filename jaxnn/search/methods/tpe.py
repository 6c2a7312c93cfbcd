"""Methods that learn from the scores: TPE and Gaussian processes, by Optuna's ask-and-tell.

Optuna proposes a whole population at a time, and stores nothing: a replay of the method makes the
study again, in memory, from the search's seed and the scores in the journal.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxnn.search.methods import BuiltIn, Round, Rounds, fresh
from jaxnn.search.space import Config, Domain, Space, applies, expect
from jaxnn.spec import require_count
from jaxnn.types import did_you_mean

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Proposal

SamplerName = Literal["tpe", "gp", "random"]

PACKAGES = {"tpe": ("optuna",), "gp": ("optuna", "scipy", "torch"), "random": ("optuna",)}
"""Optuna's samplers by name, with the packages whose versions decide the proposals."""


def optuna(
    count: int, *, batch: int = 16, sampler: "SamplerName | Callable[[int], BaseSampler]" = "tpe"
) -> BuiltIn:
    """``count`` configurations that an Optuna sampler proposes, ``batch`` at a time.

    Optuna learns the scores of a batch before the next batch is proposed. "tpe" is the multivariate
    tree-structured Parzen estimator (Bergstra et al., 2011; Falkner et al., 2018), decomposed into
    groups where hyperparameters are conditional; the proposals of a batch keep their distance
    because a proposal counts as bad until the score is known (``constant_liar``).

    A divergence is evidence against a region of the space, but infinity would spoil the scale of a
    Gaussian process: a diverged trial counts as the worst finite score so far, and as failed before
    the first finite score.

    Args:
      count: configurations in total.
      batch: configurations in a round. Small batches use more scores per proposal,
        large batches train faster.
      sampler: "tpe"; "gp", a Gaussian process, which needs the package torch and seconds per
        proposal; "random"; or a function from a seed to a new ``optuna.samplers.BaseSampler`` whose
        draws depend on the seed alone.

    Raises:
      SpaceError: an unknown sampler.
      ModuleNotFoundError: Optuna, or a package that the sampler needs, is not installed.
    """
    from jaxnn.extras import require

    expect(
        callable(sampler) or (isinstance(sampler, str) and sampler in PACKAGES),
        f"optuna: sampler is {sampler!r}, expected one of {list(PACKAGES)} or a function from a "
        f"seed to an optuna.samplers.BaseSampler{did_you_mean(sampler, PACKAGES)}",
    )
    packages = ("optuna",) if callable(sampler) else PACKAGES[sampler]
    require("benchmark" if "torch" in packages else "optuna", *packages)
    count, batch = require_count("count", count), require_count("batch", batch)

    def rounds(space: Space, evaluations: int, seed: int) -> Rounds:
        import optuna
        from optuna.trial import TrialState

        with _silenced():
            study = optuna.create_study(sampler=_sampler(sampler, space, seed))
        worst = -math.inf
        for first in range(0, count, batch):
            with _silenced():
                proposals = [study.ask() for _ in range(min(batch, count - first))]
                trials = fresh([_configuration(space, each) for each in proposals], first)
            scores = (yield Round(trials, evaluations)).best
            worst = max([worst, *filter(math.isfinite, scores.values())])
            with _silenced():
                for proposal, trial in zip(proposals, trials, strict=True):
                    score = min(scores[trial.number], worst)
                    if math.isfinite(score):
                        study.tell(proposal, score)
                    else:
                        study.tell(proposal, state=TrialState.FAIL)

    versions = {package: version(package) for package in packages}
    settings = {"count": count, "batch": batch, "sampler": sampler, "versions": versions}
    return BuiltIn("optuna", settings, rounds, lambda _, evaluations: count * evaluations)


def _sampler(
    sampler: "SamplerName | Callable[[int], BaseSampler]", space: Space, seed: int
) -> "BaseSampler":
    from optuna import samplers

    seed = int(np.random.default_rng([seed, 5]).integers(2**32))
    if sampler == "tpe":
        group = any(domain.conditions for domain in space.values())
        return samplers.TPESampler(seed=seed, multivariate=True, group=group, constant_liar=True)
    if not callable(sampler):
        return (samplers.GPSampler if sampler == "gp" else samplers.RandomSampler)(seed=seed)
    made = sampler(seed)
    expect(
        isinstance(made, samplers.BaseSampler),
        f"optuna: sampler(seed) returned {made!r}, expected an optuna.samplers.BaseSampler",
    )
    return made


def _configuration(space: Space, proposal: "Proposal") -> Config:
    """The configuration of an Optuna trial, which suggests a value for every applicable name."""
    config: Config = {}
    for name, domain in space.items():
        if applies(domain, config):
            searched = name in space.searched
            config[name] = _suggestion(proposal, name, domain) if searched else domain.at(0.0)
    return config


def _suggestion(proposal: "Proposal", name: str, domain: Domain) -> Any:
    """A suggested value; for a choice Optuna suggests the index, as options may be tuples."""
    if domain.is_interval:
        log = domain.kind == "log_uniform"
        return proposal.suggest_float(name, domain.low, domain.high, log=log)
    if domain.kind == "integer":
        return proposal.suggest_int(name, int(domain.low), int(domain.high))
    return domain.options[proposal.suggest_categorical(name, range(len(domain.options)))]


@contextmanager
def _silenced() -> Iterator[None]:
    """Silences Optuna's lines about studies and trials, and warnings of experimental samplers."""
    from optuna import exceptions, logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)
