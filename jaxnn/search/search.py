"""``search``: from a task, a space and a method to a result."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import jaxnn
from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.population import check_mesh
from jaxnn.search.journal import Journal
from jaxnn.search.loop import Loop, Status
from jaxnn.search.methods import Method
from jaxnn.search.result import RULES, Result, may_be_chosen
from jaxnn.search.space import Domain, Space, SpaceError, readable
from jaxnn.search.task import Arranged, Task, arrange
from jaxnn.search.trainer import Trainer, seed_keys
from jaxnn.spec import require_count
from jaxnn.train import check_data
from jaxnn.types import Array, Data, Key, require_number, require_type


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
    progress: bool | Callable[[Status], None] | None = None,
    checkpoint_seconds: float = 30.0,
) -> Result:
    """Searches hyperparameters: whole populations train as one program, the validation set chooses.

    A search with a folder survives the end of the process: an equal call resumes the search where
    the process stopped, and gives the bits of an uninterrupted search.

    A search on several processes (``jaxnn.distributed``) is collective: make equal calls on all
    processes; every process gets the result.

    >>> import jax
    >>> from jaxnn.data import load
    >>> from jaxnn.search import Task, log_uniform, random, search
    >>> train, test = load("digits")
    >>> space = {"learning_rate": log_uniform(1e-3, 1.0), "l2": log_uniform(1e-6, 1e-2)}
    >>> found = search(Task(train, test, epochs=3), space, method=random(4), key=jax.random.key(0))
    >>> len(found.table), found.best.validation_accuracy > 0.9, found.test_reads
    (4, True, 0)

    Args:
      task: the examples, the budget and the measure.
      space: domains by hyperparameter name.
      method: ``grid``, ``random``, ``sobol``, ``successive_halving``, ``hyperband``,
        ``population_based``, ``optuna``, or an object with the methods of ``Method``.
      key: decides everything random: splits, configurations, initial weights, orders.
      seeds: the number of random keys per configuration; all configurations share the minibatches
        of a seed.
      rule: the rule of the choice: "mean" or "one_standard_error"; see
        ``jaxnn.search.result.chosen``.
      folder: holds the journal and the checkpoints; by default nothing is written.
      mesh: the devices; by default all devices of all processes, along ``population``.
      progress: True shows a bar on a terminal, or plain lines elsewhere: time left, best score,
        number diverged; a function gets every ``Status``; default: silence. Process 0 reports.
      checkpoint_seconds: the shortest time between two checkpoints in the folder; a crash loses the
        training since the last checkpoint.

    Returns:
      A ``Result``.

    Raises:
      SpaceError: a space that cannot be searched, or not by the method.
      AllDivergedError: every trial diverged.
      RunFolderError, CorruptLogError: the folder cannot be used, and was not changed.
      ValueError: the data do not fit, or an argument is out of range.
    """
    require_type(isinstance(task, Task), "task", task, "jaxnn.search.Task(train, ...)")
    seeds = require_count("seeds", seeds)
    expected = "seconds of at least 0"
    require_number("checkpoint_seconds", checkpoint_seconds, expected, lambda value: value >= 0)
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}, expected one of {list(RULES)}")
    if rule == "one_standard_error" and seeds * task.validation.count < 2:
        raise ValueError("rule is 'one_standard_error', expected at least 2 seeds or folds")
    # Optax takes a tenth of a second to import: in the background while keys are drawn.
    Thread(target=import_module, args=("optax",), daemon=True).start()
    mesh = population_mesh() if mesh is None else mesh
    check_mesh(mesh)
    bits, replicate_key, keys = _draw(key, seeds)
    seed = int(bits)
    arranged = arrange(task.validation, task.train, seed)
    checked = Space(space, task.model_parameters)
    check(task, checked, method, arranged, mesh, seed)
    trainer = Trainer(arranged, checked.traced, keys, mesh)
    question = {}  # in the memory of one process nobody asks whether the search is the same
    if folder is not None or distributed.process_count() > 1:
        question = describe(task, checked, method, key, seeds, rule, mesh)
    journal = Journal(folder, question)
    from jaxnn.search.report import reporting

    shown = progress if distributed.is_first() else None
    with journal, reporting(shown, checked, task.measure) as report:
        loop = Loop(
            replace(task, test=None),  # no code that trains can reach the test examples
            checked,
            trainer,
            journal,
            keep=lambda curves: may_be_chosen(curves, task.measure, rule),
            report=report,
            checkpoint_seconds=checkpoint_seconds,
        )
        outcome = loop.run(method, seed)
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


@partial(jax.jit, static_argnames="seeds")  # outside of jit every operation would be a program
def _draw(key: Key, seeds: int) -> tuple[Array, Key, Key]:
    """The seed of splits and configurations, the key of the replicates, the key of each seed."""
    split_key, replicate_key = jax.random.split(key)
    bits = jax.random.bits(split_key, (), jnp.uint32)
    return bits, replicate_key, seed_keys(replicate_key, seeds)


def check(
    task: Task, space: Space, method: Method, arranged: Arranged, mesh: Mesh, seed: int
) -> None:
    """Refuses unusable arguments before anything is trained or written.

    Raises:
      SpaceError: the method does not fit the space, or a program of the space the examples.
    """
    next(method.rounds(space, task.evaluations, seed))
    seen = set()
    for static in space.static_parts():
        spec = task.spec(static, arranged.trained_on)
        try:
            check_mesh(mesh, spec.batch_size)
            if (spec.model, spec.loss) not in seen:
                check_data(spec, arranged.data, {})
                seen.add((spec.model, spec.loss))
        except (TypeError, ValueError) as error:
            raise SpaceError(f"the configuration {static}: {error}") from error


def describe(
    task: Task, space: Space, method: Method, key: Key, seeds: int, rule: str, mesh: Mesh
) -> dict[str, Any]:
    """The question of a search: everything that decides the bits of the result, in JSON's types."""
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
        "names": list(space),  # samplers draw values in the order of the names
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
