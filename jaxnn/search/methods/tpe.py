"""Methods that learn from the scores: TPE and Gaussian processes, by Optuna's ask-and-tell.

Optuna proposes a whole population at a time, and stores nothing: a replay of the method makes the
study again, in memory, from the search's seed and the scores in the journal.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.search.methods import Round, Rounds, Scores, Trial, description, fresh
from jaxnn.search.space import Config, Domain, Space, SpaceError, applies
from jaxnn.spec import require_count

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial as Proposal

PACKAGES = {"tpe": ("optuna",), "gp": ("optuna", "scipy", "torch"), "random": ("optuna",)}
"""Optuna's samplers by name, with the packages whose versions decide the proposals."""


@dataclass(frozen=True)
class Optuna:
    """Rounds of an Optuna sampler's proposals; see ``optuna``."""

    count: int
    batch: int
    sampler: "str | Callable[[int], BaseSampler]"

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round per batch."""
        import optuna

        with _silenced():
            study = optuna.create_study(sampler=self._sampler(space, seed))
        worst = -math.inf
        for first in range(0, self.count, self.batch):
            with _silenced():
                proposals = [study.ask() for _ in range(min(self.batch, self.count - first))]
                trials = fresh([_configuration(space, each) for each in proposals], first)
            scores = yield Round(trials, evaluations)
            worst = max([worst, *filter(math.isfinite, scores.best.values())])
            with _silenced():
                _tell(study, proposals, trials, scores, worst)

    def _sampler(self, space: Space, seed: int) -> "BaseSampler":
        from optuna import samplers

        sampler_seed = int(np.random.default_rng([seed, 5]).integers(2**32))
        if self.sampler == "tpe":
            conditional = any(domain.conditions for domain in space.values())
            return samplers.TPESampler(
                seed=sampler_seed, multivariate=True, group=conditional, constant_liar=True
            )
        if self.sampler == "gp":
            return samplers.GPSampler(seed=sampler_seed)
        if self.sampler == "random":
            return samplers.RandomSampler(seed=sampler_seed)
        assert callable(self.sampler)
        made = self.sampler(sampler_seed)
        if not isinstance(made, samplers.BaseSampler):
            raise SpaceError(
                f"optuna: sampler(seed) returned {made!r}, expected an optuna.samplers.BaseSampler"
            )
        return made

    def work(self, space: Space, evaluations: int) -> int:
        """Full training of every configuration."""
        return self.count * evaluations

    def describe(self) -> dict[str, Any]:
        """The method in JSON's types, with the versions of packages that decide the proposals."""
        packages = PACKAGES[self.sampler] if isinstance(self.sampler, str) else ("optuna",)
        versions = {package: version(package) for package in packages}
        return description("optuna", self) | {"versions": versions}


def optuna(
    count: int, *, batch: int = 16, sampler: "str | Callable[[int], BaseSampler]" = "tpe"
) -> Optuna:
    """``count`` configurations that an Optuna sampler proposes, ``batch`` at a time.

    Optuna learns the scores of a batch before the next batch is proposed. "tpe" is the multivariate
    tree-structured Parzen estimator (Bergstra et al., 2011; Falkner et al., 2018), decomposed into
    groups where hyperparameters are conditional; the proposals of a batch keep their distance
    because a proposal counts as bad until the score is known (``constant_liar``).

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

    if not callable(sampler) and sampler not in PACKAGES:
        raise SpaceError(
            f"optuna: sampler is {sampler!r}, expected one of {list(PACKAGES)} or a function from "
            "a seed to an optuna.samplers.BaseSampler"
        )
    packages = ("optuna",) if callable(sampler) else PACKAGES[sampler]
    require("benchmark" if "torch" in packages else "optuna", *packages)
    return Optuna(require_count("count", count), require_count("batch", batch), sampler)


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


def _tell(
    study: "Study",
    proposals: list["Proposal"],
    trials: tuple[Trial, ...],
    scores: Scores,
    worst: float,
) -> None:
    """Tells Optuna the scores of a batch; a diverged trial gets the worst finite score so far.

    A divergence is evidence against a region of the space, and Optuna would forget a failed trial;
    but infinity would spoil the scale of a Gaussian process. Before the first finite score there is
    no scale, and a diverged trial counts as failed.
    """
    from optuna.trial import TrialState

    for proposal, trial in zip(proposals, trials, strict=True):
        score = scores.best[trial.number]
        if math.isfinite(worst):
            study.tell(proposal, score if math.isfinite(score) else worst)
        else:
            study.tell(proposal, state=TrialState.FAIL)


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
