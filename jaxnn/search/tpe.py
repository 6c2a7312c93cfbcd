"""Methods that learn from the scores: TPE and Gaussian processes, by Optuna's ask-and-tell.

Optuna proposes a whole population at a time, and stores nothing: a replay of the method makes the
study again, in memory, from the search's seed and the scores in the journal.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxnn.search.methods import BuiltIn, Curve, Round, Rounds, fresh
from jaxnn.search.space import Config, Domain, Space, applies, cell, expect, readable
from jaxnn.spec import require_count
from jaxnn.types import did_you_mean, require

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
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
    expect(
        callable(sampler) or (isinstance(sampler, str) and sampler in PACKAGES),
        f"optuna: sampler is {sampler!r}, expected one of {list(PACKAGES)} or a function from a "
        f"seed to an optuna.samplers.BaseSampler{did_you_mean(sampler, PACKAGES)}",
    )
    packages = ("optuna",) if callable(sampler) else PACKAGES[sampler]
    require("benchmark" if "torch" in packages else "optuna", *packages)
    count, batch = require_count("count", count), require_count("batch", batch)

    def rounds(
        space: Space,
        evaluations: int,
        seed: int,
        configs: Sequence[Config] = (),
        known: Sequence[tuple[Config, float]] = (),
    ) -> Rounds:
        import optuna
        from optuna.trial import TrialState

        with silenced():
            study = optuna.create_study(sampler=_sampler(sampler, space, seed))
            worst = max(filter(math.isfinite, (score for _, score in known)), default=-math.inf)
            for config, score in known:
                study.add_trial(frozen(space, config, min(score, worst)))
            for config in configs:
                study.enqueue_trial(parameters(space, config))
        total = count + len(configs)
        for first in range(0, total, batch):
            with silenced():
                proposals = [study.ask() for _ in range(min(batch, total - first))]
                trials = fresh([_configuration(space, each) for each in proposals], first)
            scores = (yield Round(trials, evaluations)).best
            worst = max([worst, *filter(math.isfinite, scores.values())])
            with silenced():
                for proposal, trial in zip(proposals, trials, strict=True):
                    score = min(scores[trial.number], worst)
                    if math.isfinite(score):
                        study.tell(proposal, score)
                    else:
                        study.tell(proposal, state=TrialState.FAIL)

    versions = {package: version(package) for package in packages}
    settings = {"count": count, "batch": batch, "sampler": sampler, "versions": versions}
    return BuiltIn("optuna", settings, rounds, lambda _, evaluations: count * evaluations, True)


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


def parameters(space: Space, config: Config) -> dict[str, Any]:
    """The searched values of a configuration as Optuna knows them: of a choice the index."""
    return {
        name: space[name].options.index(value) if space[name].options else value
        for name, value in config.items()
        if name in space.searched
    }


def frozen(space: Space, config: Config, score: float) -> "FrozenTrial":
    """A finished trial for a study; failed, if the score is not finite."""
    from optuna.trial import TrialState, create_trial

    params, finite = parameters(space, config), math.isfinite(score)
    return create_trial(
        params=params,
        distributions={n: distribution(space[n], range(len(space[n].options))) for n in params},
        value=score if finite else None,
        state=TrialState.COMPLETE if finite else TrialState.FAIL,
    )


def distribution(domain: Domain, options: Iterable[Any]) -> "BaseDistribution":
    """A domain for Optuna, with other options: texts, numbers or None."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.is_interval:
        return FloatDistribution(domain.low, domain.high, log=domain.kind == "log_uniform")
    if domain.kind == "integer":
        return IntDistribution(int(domain.low), int(domain.high))
    return CategoricalDistribution([*options])


def study(
    curves: Mapping[int, Curve],
    space: Space,
    measure: str,
    evaluations: int,
    storage: "str | BaseStorage | None",
    name: str,
) -> "Study":
    """All trials as an Optuna study, see ``Result.study``."""
    require("optuna", "optuna")
    from optuna import create_study, exceptions
    from optuna.trial import TrialState, create_trial

    trials, greater = [], any(measure in curve.greater for curve in curves.values())
    sign = -1 if greater else 1
    for number, curve in sorted(curves.items()):
        config, lost = curve.trial.config, not math.isfinite(curve.score(measure))
        names = [name for name in space.searched if name in config]
        whole = curve.evaluations[-1] == evaluations
        ended = TrialState.COMPLETE if whole else TrialState.PRUNED
        means = zip(curve.evaluations, curve.means[measure], strict=True)
        about = {"trial": number, "copied_from": curve.copied_from}
        trials.append(
            create_trial(
                params={name: option(config[name]) for name in names},
                distributions={
                    n: distribution(space[n], map(option, space[n].options)) for n in names
                },
                state=TrialState.FAIL if lost else ended,
                value=None if lost else sign * curve.score(measure),
                intermediate_values={e: sign * mean for e, mean in means if math.isfinite(mean)},
                user_attrs=about,
            )
        )
    with silenced():
        try:
            direction = "maximize" if greater else "minimize"
            made = create_study(storage=storage, study_name=name, direction=direction)
        except exceptions.DuplicatedStudyError:
            raise ValueError(
                f"name is {name!r}, and the storage holds a study of this name, expected another"
            ) from None
        made.set_metric_names([f"validation {measure}"])
        made.add_trials(trials)
    return made


def option(value: Any) -> Any:
    """An option of a choice for Optuna, whose options are texts, numbers or None."""
    return value if isinstance(value, str | int | float | None) else cell(readable(value))


@contextmanager
def silenced() -> Iterator[None]:
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
