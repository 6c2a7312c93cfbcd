"""Methods that learn from the scores: TPE and Gaussian processes, by Optuna's ask-and-tell.

Optuna proposes, a whole population at a time; it stores nothing. Its study lives in memory and is
made anew, from the search's seed, whenever the method is replayed with the scores of the log.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnn.search.domain import Domain, SpaceError, readable
from jaxnn.search.methods.rounds import Round, Rounds, Scores, Trial, fresh
from jaxnn.search.space import Config, Space, applies
from jaxnn.spec import require_count

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

PACKAGES = {"tpe": ("optuna",), "gp": ("optuna", "scipy", "torch"), "random": ("optuna",)}
"""Optuna's samplers by our names, and what each needs: their versions decide what is proposed."""


@dataclass(frozen=True)
class Optuna:
    """Rounds of an Optuna sampler's proposals; see ``optuna``."""

    count: int
    batch: int
    sampler: "str | Callable[[int], BaseSampler]"

    def rounds(self, space: Space, evaluations: int, seed: int) -> Rounds:
        """One round per batch."""
        import optuna

        with _quiet():
            study = optuna.create_study(sampler=self._sampler(space, seed))
        worst = -math.inf
        for first in range(0, self.count, self.batch):
            with _quiet():
                asked = [study.ask() for _ in range(min(self.batch, self.count - first))]
                trials = fresh([_configuration(space, one) for one in asked], first)
            scores = yield Round(trials, evaluations)
            worst = max([worst, *filter(math.isfinite, scores.best.values())])
            with _quiet():
                _tell(study, asked, trials, scores, worst)

    def _sampler(self, space: Space, seed: int) -> "BaseSampler":
        from optuna import samplers

        own = int(np.random.default_rng([seed, 5]).integers(2**32))
        if self.sampler == "tpe":
            conditional = any(domain.conditions for domain in space.values())
            return samplers.TPESampler(
                seed=own, multivariate=True, group=conditional, constant_liar=True
            )
        if self.sampler == "gp":
            return samplers.GPSampler(seed=own)
        if self.sampler == "random":
            return samplers.RandomSampler(seed=own)
        assert callable(self.sampler)
        made = self.sampler(own)
        if not isinstance(made, samplers.BaseSampler):
            raise SpaceError(
                f"optuna: sampler(seed) returned {made!r}, expected an optuna.samplers.BaseSampler"
            )
        return made

    def work(self, space: Space, evaluations: int) -> int:
        """All of it."""
        return self.count * evaluations

    def describe(self) -> dict[str, Any]:
        """In JSON's types, with the versions of the packages that decide the proposals."""
        packages = PACKAGES[self.sampler] if isinstance(self.sampler, str) else ("optuna",)
        return {
            "method": "optuna",
            "count": self.count,
            "batch": self.batch,
            "sampler": readable(self.sampler),
            "versions": {package: version(package) for package in packages},
        }


def optuna(
    count: int, *, batch: int = 16, sampler: "str | Callable[[int], BaseSampler]" = "tpe"
) -> Optuna:
    """``count`` configurations that an Optuna sampler proposes, ``batch`` at a time.

    It is told the scores of a batch before it proposes the next. "tpe" is the multivariate
    tree-structured Parzen estimator (Bergstra et al., 2011; Falkner et al., 2018), decomposed into
    groups where parameters are conditional; the proposals of a batch keep away from each other
    because each counts as a bad one until its score is known (``constant_liar``).

    Args:
      count: configurations in total.
      batch: how many of them train side by side. Smaller batches know more when they are proposed;
        larger ones train faster.
      sampler: "tpe"; "gp", a Gaussian process, which needs the package torch and seconds per
        proposal; "random"; or any function from a seed to a new ``optuna.samplers.BaseSampler``
        that draws from this seed alone.

    Raises:
      SpaceError: an unknown sampler.
      ModuleNotFoundError: Optuna, or a package that the sampler needs, is not installed.
    """
    if not callable(sampler) and sampler not in PACKAGES:
        raise SpaceError(
            f"optuna: sampler is {sampler!r}, expected one of {list(PACKAGES)} or a function from "
            "a seed to an optuna.samplers.BaseSampler"
        )
    for package in ("optuna",) if callable(sampler) else PACKAGES[sampler]:
        if find_spec(package) is None:
            raise ModuleNotFoundError(
                f"optuna(sampler={readable(sampler)!r}) needs the package {package}, expected it "
                f"to be installed: pip install {package}"
            )
    return Optuna(require_count("count", count), require_count("batch", batch), sampler)


def _configuration(space: Space, asked: Any) -> Config:
    """The configuration of an ``optuna.Trial``, asked name by name for what applies."""
    config: Config = {}
    for name, domain in space.items():
        if applies(domain, config):
            searched = name in space.searched
            config[name] = _suggestion(asked, name, domain) if searched else domain.at(0.0)
    return config


def _suggestion(asked: Any, name: str, domain: Domain) -> Any:
    """A proposed value; of a choice the index is asked for, as options may be tuples."""
    if domain.is_interval:
        return asked.suggest_float(name, domain.low, domain.high, log=domain.kind == "log_uniform")
    if domain.kind == "integer":
        return asked.suggest_int(name, int(domain.low), int(domain.high))
    return domain.options[asked.suggest_categorical(name, range(len(domain.options)))]


def _tell(
    study: Any, asked: list[Any], trials: tuple[Trial, ...], scores: Scores, worst: float
) -> None:
    """Tells a batch's scores, for a diverged trial the worst finite one so far.

    A divergence is evidence against its region, and a failed trial would be forgotten; but infinity
    would spoil the scale of a Gaussian process. While nothing has been finite there is no scale,
    and a divergence is told as a failure.
    """
    from optuna.trial import TrialState

    for one, trial in zip(asked, trials, strict=True):
        score = scores.best[trial.number]
        if math.isfinite(worst):
            study.tell(one, score if math.isfinite(score) else worst)
        else:
            study.tell(one, state=TrialState.FAIL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines about every study and trial, and that samplers are experimental."""
    from optuna import exceptions, logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ExperimentalWarning)
            yield
    finally:
        logging.set_verbosity(before)
