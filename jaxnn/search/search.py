"""``search``: from a task, a space and a method to a result."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import signature
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
from jaxnn.mlp import by_name
from jaxnn.population import check_mesh
from jaxnn.search.journal import TRACED, Journal
from jaxnn.search.loop import Loop, Status
from jaxnn.search.methods import BuiltIn, Method, Round, Rounds, checked_round
from jaxnn.search.methods.pbt import population_based
from jaxnn.search.methods.sampling import (
    grid,
    hyperband,
    random,
    sobol,
    successive_halving,
)
from jaxnn.search.methods.tpe import optuna
from jaxnn.search.result import RULES, Result, may_be_chosen
from jaxnn.search.space import Config, Domain, Space, SpaceError, readable
from jaxnn.search.task import Arranged, Task, arrange, digest, spread_over
from jaxnn.search.trainer import Trainer, seed_keys
from jaxnn.spec import Spec, require_count
from jaxnn.train import fitted
from jaxnn.types import (
    Array,
    Key,
    MethodName,
    RuleName,
    as_key,
    require_number,
    require_type,
)

_METHODS = grid, hyperband, optuna, population_based, random, sobol, successive_halving
METHODS: dict[str, Callable[..., Method]] = {make.__name__: make for make in _METHODS}


def search(
    task: Task,
    space: Mapping[str, Domain],
    *,
    method: MethodName | Method | Rounds | Callable[[Space, int, int], Rounds],
    key: Key | int,
    seeds: int = 1,
    rule: RuleName = "mean",
    folder: Path | str | None = None,
    mesh: Mesh | None = None,
    block_size: int | None = None,
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
        ``population_based``, ``optuna``; "grid" or "hyperband", with the defaults; a generator
        function (space, evaluations, seed), or a generator, that yields each ``Round`` and is sent
        the ``Scores``; or an object with the methods of ``Method``.
      key: decides everything random: splits, configurations, initial weights, orders; a whole
        number n stands for ``jax.random.key(n)``.
      seeds: the number of random keys per configuration; all configurations share the minibatches
        of a seed.
      rule: the rule of the choice: "mean", the lowest mean over replicates; or
        "one_standard_error", the simplest trial within one standard error of the lowest mean, see
        ``jaxnn.search.result.chosen``. The standard error is over the folds, or with one split over
        the validation examples; seeds are averaged first.
      folder: holds the journal and the checkpoints; by default nothing is written.
      mesh: the devices; by default all devices of all processes, along ``population``.
      block_size: how many trials of a seed a device trains at once; by default what is fastest for
        the models and the number of trials. The last bits of a result depend on the block size.
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
    by_name("rule", rule, dict.fromkeys(RULES))
    if block_size is not None:
        block_size = require_count("block_size", block_size)
    method = method_of(method)
    # Optax takes a tenth of a second to import: in the background while keys are drawn.
    Thread(target=import_module, args=("optax",), daemon=True).start()
    mesh = population_mesh() if mesh is None else mesh
    check_mesh(mesh)
    key = as_key(key)
    bits, replicate_key, keys = _draw(key, seeds)
    seed = int(bits)
    arranged = arrange(task.validation_split, task.train, seed)
    checked = Space(space, task.model_parameters)
    rounds, first = start(method, checked, task.evaluations, seed)
    spec_of = partial(checked_spec, task, arranged=arranged, mesh=mesh, seen=set())
    used = [checked.static_part(trial.config) for trial in first.trials]
    distinct = {tuple(part.items()): part for part in (*checked.samples(), *used)}
    specs = list(map(spec_of, distinct.values()))
    validation = None
    if rule == "one_standard_error" and arranged.folds == 1:
        held_out, data = arranged.held_out, arranged.data
        if held_out < 2:
            raise ValueError(
                "rule is 'one_standard_error', expected at least 2 validation examples"
            )
        validation = data.rows(slice(held_out))
    trainer = Trainer(arranged, checked.traced, keys, mesh, block_size)
    question = {}  # in the memory of one process nobody asks whether the search is the same
    if folder is not None or distributed.process_count() > 1:
        question = describe(task, checked, method, key, seeds, rule, mesh, specs)
        question |= {} if block_size is None else {"block_size": block_size}
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
            spec_of=spec_of,
        )
        outcome = loop.run(rounds, first, method.work(checked, task.evaluations))
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
        validated=arranged.validated,
        mesh=mesh,
        validation=validation,
    )


@partial(jax.jit, static_argnames="seeds")  # outside of jit every operation would be a program
def _draw(key: Key, seeds: int) -> tuple[Array, Key, Key]:
    """The seed of splits and configurations, the key of the replicates, the key of each seed."""
    split_key, replicate_key = jax.random.split(key)
    bits = jax.random.bits(split_key, (), jnp.uint32)
    return bits, replicate_key, seed_keys(replicate_key, seeds)


def method_of(method: Any) -> Method:
    """The method that a name, a function or a generator stands for.

    Raises:
      ValueError: an unknown name, or a method that needs arguments.
      TypeError: neither a method nor a generator of rounds.
    """
    name = method
    if method in (known := list(METHODS.values())):
        name = list(METHODS)[known.index(method)]
    if isinstance(name, str):
        make = by_name("method", name, METHODS, " or a generator function")
        parameters = signature(make).parameters.values()
        if needed := [p.name for p in parameters if p.default is p.empty and p.kind < 2]:
            example = f"{name}({', '.join(needed)})"
            raise ValueError(f"method is {name!r}, expected {example}, such as {name}(64)")
        return make()
    if all(callable(getattr(method, part, None)) for part in ("rounds", "work", "describe")):
        return method
    if isinstance(method, Generator):
        return BuiltIn(
            getattr(method, "__qualname__", "generator"), {}, lambda *_: method, lambda *_: 0
        )
    if callable(method) and not isinstance(method, type):
        rounds: Any = method
        return BuiltIn(readable(method), {}, rounds, lambda *_: 0)
    raise TypeError(
        f"method is {method!r}, expected random(64), grid(5), ..., or a generator function "
        "(space, evaluations, seed) of rounds"
    )


def start(method: Method, space: Space, evaluations: int, seed: int) -> tuple[Rounds, Round]:
    """The rounds of a method, and the first round.

    Raises:
      TypeError: the method makes no generator.
      ValueError: the generator has no rounds, or none left.
    """
    rounds = method.rounds(space, evaluations, seed)
    if not isinstance(rounds, Generator):
        raise TypeError(f"method returned {rounds!r}, expected a generator of rounds: yield Round")
    try:
        return rounds, checked_round(next(rounds))
    except StopIteration:
        raise ValueError(
            "method yields no round, expected at least one; a generator searches once"
        ) from None


def checked_spec(task: Task, static: Config, arranged: Arranged, mesh: Mesh, seen: set) -> Spec:
    """The program of a static part, after a check of the model on an example of the data.

    Args:
      task: makes the program.
      static: the static part of a configuration.
      arranged: the examples.
      mesh: the devices.
      seen: the pairs (model, loss) that need no further check; grows.

    Raises:
      SpaceError: the program does not fit the examples or the devices.
    """
    spec = task.spec(static, arranged.trained_on)
    try:
        check_mesh(mesh, spec.batch_size)
        if (spec.model, spec.loss) not in seen:
            fitted(spec, "training", arranged.data)
            seen.add((spec.model, spec.loss))
    except (TypeError, ValueError) as error:
        raise SpaceError(f"the configuration {static}: {error}") from error
    return spec


def describe(
    task: Task,
    space: Space,
    method: Method,
    key: Key,
    seeds: int,
    rule: str,
    mesh: Mesh,
    specs: Iterable[Spec] = (),
) -> dict[str, Any]:
    """The question of a search: everything that decides the bits of the result, in JSON's types.

    A function of the user's own is described by name, and by a digest of the program that JAX
    traces for some specs.
    """
    from jaxnn.search.custom import digests

    programs = digests(specs, task.model, space.traced, task.train)
    device = mesh.devices.flat[0]
    return {
        "task": {
            "train": digest(task.train),
            "validation": task.validation_split.describe(),
            "given": task.validation_split.data and digest(task.validation_split.data),
            "epochs": task.epochs,
            "evaluations_per_epoch": task.evaluations_per_epoch,
            "measure": task.measure,
            "model": task.model and readable(task.model),
        },
        "space": space.describe(),
        "names": list(space),  # samplers draw values in the order of the names
        "method": method.describe(),
        "seeds": seeds,
        "rule": rule if rule == "mean" else f"{rule} {spread_over(task)}",
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "devices": {"kind": device.device_kind, **dict(mesh.shape)},
        "float": str(np.dtype(jax.dtypes.canonicalize_dtype(float))),
        "versions": {
            "jaxnn": jaxnn.__version__,
            **{package: version(package) for package in ("jax", "jaxlib", "optax")},
        },
        **{f"{TRACED} {function}": found for function, found in programs.items()},
    }
