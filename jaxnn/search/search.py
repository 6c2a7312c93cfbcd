"""``search``: from a task, a space and a method to a result."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import jaxnn
from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.population import check_axes, check_mesh, place_whole
from jaxnn.search.domain import Domain, SpaceError, readable
from jaxnn.search.journal.run_folder import Journal, Memory, RunFolder
from jaxnn.search.journal.shared import shared
from jaxnn.search.methods.rounds import Method
from jaxnn.search.reporting.progress import Report, reporting
from jaxnn.search.result import Result
from jaxnn.search.selection import RULES, may_be_chosen
from jaxnn.search.space import Space
from jaxnn.search.task import Task
from jaxnn.search.training.engine import Engine
from jaxnn.search.training.segments import Trainer, replicates, seed_words
from jaxnn.search.validation import Arranged, arrange
from jaxnn.spec import require_count
from jaxnn.train import check_data
from jaxnn.types import Array, Data, Key


def search(
    task: Task,
    space: Mapping[str, Domain],
    *,
    method: Method,
    key: Key,
    seeds: int = 1,
    rule: str = "mean",
    folder: Path | str | None = None,
    mesh: Mesh | None = None,
    progress: bool | Report | None = None,
    checkpoint_seconds: float = 30.0,
) -> Result:
    """Searches hyperparameters: whole populations train as one program, the validation set chooses.

    With a folder the search survives its process: the same call again goes on where it stopped, and
    ends with the same bits as if nothing had happened.

    In several processes (``jaxnn.distributed``) all make the same call, and all get the result.

    Args:
      task: the examples, what may be spent, what is minimised.
      space: domains by the names of hyperparameters.
      method: ``grid``, ``random``, ``sobol``, ``successive_halving``, ``hyperband``,
        ``population_based`` or ``optuna``.
      key: decides everything random: splits, configurations, initial weights, orders.
      seeds: replicates of every configuration; those of one seed share minibatches.
      rule: how to choose: "mean" or "one_standard_error"; see ``jaxnn.search.selection.chosen``.
      folder: where to keep the log and the checkpoints; default: nowhere.
      mesh: the devices; default: all of them, of all processes, along ``population``.
      progress: True shows a bar on a terminal, or plain lines elsewhere: time left, best so far,
        number diverged; a function is called often with a ``Status``; default: silence. Of several
        processes the first one reports.
      checkpoint_seconds: how often the population is saved in the folder, at most; what happened
        since has to be trained again after a crash.

    Returns:
      A ``Result``.

    Raises:
      SpaceError: a space that cannot be searched, or not by this method.
      AllDivergedError: every trial diverged.
      RunFolderError, CorruptLogError: the folder cannot be used; nothing in it was changed.
      ValueError: the data do not fit, or an argument is out of its range.
    """
    require_count("seeds", seeds)
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, expected one of {list(RULES)}")
    if rule == "one_standard_error" and seeds * task.validation.count < 2:
        raise ValueError("rule is 'one_standard_error', expected at least 2 seeds or folds")
    checked = Space(space, task.model_parameters)
    mesh = mesh or population_mesh()
    check_axes(mesh)
    bits, replicate_key, words = _draw(key, seeds)
    seed = int(bits)
    arranged = arrange(task.validation, task.train, seed)
    check(task, checked, method, arranged, mesh, seed)
    on_device = place_whole(mesh, arranged.data)
    repeated = replicates(words, arranged.folds, jax.random.key_impl(key))
    trainer = Trainer(arranged, on_device, repeated, mesh)
    journal: Journal = Memory()
    if folder is not None or distributed.process_count() > 1:
        asked = describe(task, checked, method, key, seeds, rule, mesh)
        journal = shared(journal if folder is None else RunFolder(Path(folder), asked), asked)
    shown = progress if distributed.is_first() else None
    with journal, reporting(shown, checked, task.measure) as report:
        engine = Engine(
            replace(task, test=None),  # nothing that trains can reach the test examples
            checked,
            trainer,
            journal,
            keep=lambda curves: may_be_chosen(curves, task.measure, rule),
            report=report,
            checkpoint_seconds=checkpoint_seconds,
        )
        outcome = engine.run(method, seed)
    return Result(
        task,
        checked,
        outcome,
        journal,
        method=method.describe(),
        rule=rule,
        key=replicate_key,
        seeds=seeds,
        examples=arranged.trained_on,
        mesh=mesh,
    )


@partial(jax.jit, static_argnames="seeds")  # every operation of its own would be a program more
def _draw(key: Key, seeds: int) -> tuple[Array, Key, Array]:
    """The seed of splits and configurations, [] uint32, the key of the replicates, its words."""
    split_key, replicate_key = jax.random.split(key)
    bits = jax.random.bits(split_key, (), jnp.uint32)
    return bits, replicate_key, seed_words(replicate_key, seeds)


def check(
    task: Task, space: Space, method: Method, arranged: Arranged, mesh: Mesh, seed: int
) -> None:
    """Refuses, before anything is trained or written, what training would refuse.

    Raises:
      SpaceError: the method does not fit the space, or a program of the space the examples.
    """
    next(method.rounds(space, task.evaluations, seed))
    seen = set()
    for static in space.static_parts():
        spec = task.spec(static, arranged.trained_on)
        try:
            check_mesh(mesh, spec)
            if (spec.model, spec.loss) not in seen:
                check_data(spec, arranged.data, {})
                seen.add((spec.model, spec.loss))
        except (TypeError, ValueError) as error:
            raise SpaceError(f"the configuration {static}: {error}") from error


def describe(
    task: Task, space: Space, method: Method, key: Key, seeds: int, rule: str, mesh: Mesh
) -> dict[str, Any]:
    """Everything that decides the bits of a search, in JSON's types."""
    device = mesh.devices.flat[0]
    return {
        "task": {
            "train": digest(task.train),
            "validation": task.validation.describe(),
            "given": task.validation.data and digest(task.validation.data),
            "epochs": task.epochs,
            "evaluations_per_epoch": task.evaluations_per_epoch,
            "measure": task.measure,
            "model": task.model and readable(task.model),
        },
        "space": space.describe(),
        "names": list(space),  # in their order, in which a sampler draws their values
        "method": method.describe(),
        "seeds": seeds,
        "rule": rule,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "devices": {"kind": device.device_kind, **dict(mesh.shape)},
        "float": str(np.dtype(jax.dtypes.canonicalize_dtype(float))),
        "versions": {
            "jaxnn": jaxnn.__version__,
            **{package: version(package) for package in ("jax", "jaxlib", "optax")},
        },
    }


def digest(data: Data) -> str:
    """A checksum of examples."""
    found = hashlib.sha256()
    for array in map(np.ascontiguousarray, data):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.data if array.ndim else array.tobytes())
    return found.hexdigest()[:16]
