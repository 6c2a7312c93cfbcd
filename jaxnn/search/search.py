"""``search``: from a task, a space and a method to a result."""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from threading import Event, Thread, current_thread, main_thread
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import jaxnn
from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.metrics import METRICS, REALS, TWO_CLASSES
from jaxnn.minibatch import as_float
from jaxnn.mlp import MLP, by_name
from jaxnn.optimizers import schedule
from jaxnn.population import check_mesh
from jaxnn.search.journal import TRACED, Journal, Record
from jaxnn.search.loop import Evaluation, Loop, Status, block_sizes
from jaxnn.search.methods import DRAWN, BuiltIn, Method, Round, Rounds, beginning, learns, start
from jaxnn.search.result import RULES, Result, may_be_chosen, recorded_curves
from jaxnn.search.space import Config, Domain, Space, SpaceError, expect, readable
from jaxnn.search.task import Arranged, Task, arrange, digest, spread_over, traced_values
from jaxnn.search.tpe import optuna
from jaxnn.search.trainer import Trainer, seed_keys
from jaxnn.spec import (
    Spec,
    derivative_digest,
    optimizer_at,
    program_digest,
    require_count,
    short_digest,
)
from jaxnn.train import Seed, fitted, logits_of_one
from jaxnn.types import (
    Array,
    Key,
    MethodName,
    PyTree,
    RuleName,
    as_key,
    require_number,
    require_type,
)

logger = logging.getLogger("jaxnn.search")

METHODS: dict[str, Callable[..., Method]] = {make.__name__: make for make in (*DRAWN, optuna)}


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
    timeout: float | None = None,
    enqueue: Sequence[Config] = (),
    warm_start: Path | str | None = None,
    callback: Callable[[Evaluation], Any] | None = None,
) -> Result:
    """Searches hyperparameters: whole populations train as one program, the validation set chooses.

    A search with a folder survives the end of the process: an equal call resumes the search where
    the process stopped, and gives the bits of an uninterrupted search. A finished search goes on
    with more: a call with more trials, seeds or epochs of ``random``, ``sobol`` or ``grid`` trains
    the missing models alone, and gives the bits of a search that asks for everything at once.
    Ctrl-C ends the search after the evaluation in progress; a second Ctrl-C ends at once, without a
    result.

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
      timeout: seconds after which the search ends, at the end of the evaluation in progress.
      enqueue: configurations to train first, besides those of the method.
      warm_start: the folder of another search; ``optuna`` begins with the scores of the search.
      callback: called with every ``Evaluation``, those read from the folder included; process 0.

    Returns:
      A ``Result``; ``complete`` is False after ``timeout`` or Ctrl-C.

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
    if timeout is not None:
        require_number("timeout", timeout, expected, lambda value: value >= 0)
    fits = callback is None or callable(callback)
    require_type(fits, "callback", callback, "a function of an Evaluation")
    by_name("rule", rule, dict.fromkeys(RULES))
    if block_size is not None:
        block_size = require_count("block_size", block_size)
    method = method_of(method)
    began = time.monotonic()
    # Optax takes a tenth of a second to import: in the background while keys are drawn.
    Thread(target=import_module, args=("optax",), daemon=True).start()
    mesh = population_mesh() if mesh is None else mesh
    check_mesh(mesh)
    key = as_key(key)
    bits, replicate_key, keys = _draw(key, seeds)
    seed, task = int(bits), task.searching(space)
    arranged = arrange(task.validation_split, task.train, seed)
    check_metrics(task, arranged)
    arranged = arranged.standardized() if task.standardize else arranged
    checked = Space(space, task.model_parameters, task.own_names(space), task.hyper)
    asked = method
    given = checked_configurations(checked, enqueue)
    known, notes = warm(warm_start, checked, task, method)
    if given or known:
        method = beginning(method, given, known)
    rounds, first = start(method, checked, task.evaluations, seed)
    spec_of = partial(checked_spec, task, arranged=arranged, mesh=mesh, seen=set())
    used = [checked.static_part(trial.config) for trial in first.trials]
    distinct = {tuple(part.items()): part for part in (*checked.samples(), *used)}
    specs = list(map(spec_of, distinct.values()))
    validation = None
    if rule == "one_standard_error" and arranged.folds == 1:
        (_, rows), scores = arranged.rows(0), task.objective not in ("error", "loss")
        if len(rows) < 2 or scores or task.weighted_validation:
            weighted = "weighted scores" if task.weighted_validation else task.objective
            found = f"the standard error of {weighted} is over folds: folds(5)"
            expected = found if len(rows) > 1 else "at least 2 validation examples"
            raise ValueError(f"rule is 'one_standard_error', expected {expected}")
        validation = arranged.data.rows(rows)
    trainer = Trainer(arranged, checked.traced, keys, mesh, block_size, task.hyper)
    question = {}  # in the memory of one process nobody asks whether the search is the same
    if folder is not None or distributed.process_count() > 1:
        question = describe(task, checked, asked, key, seeds, rule, mesh, specs)
        scores = [[config, score if math.isfinite(score) else None] for config, score in known]
        begin = {"enqueue": given, "warm_start": scores}
        question |= {} if block_size is None else {"block_size": block_size}
        question |= {"traced": checked.traced, "examples": arranged.trained_on}
        question |= {name: readable(value) for name, value in begin.items() if value}
        question |= {"sizes": arranged.sizes} if arranged.by_fold.rows is not None else {}

    def grow(records: list[Record], differing: list[str]) -> str | None:
        sizes = block_sizes(task, checked, trainer, spec_of, first)
        larger = task, checked, first, seeds, arranged.trained_on, sizes
        return cannot_grow(records, differing, *larger)

    journal = Journal(folder, question, grow)
    from jaxnn.search.report import reporting

    shown = progress if distributed.is_first() else None
    with (
        journal,
        reporting(shown, checked, task.objective) as report,
        interruptible() as interrupted,
    ):
        for note in notes:
            if note not in (record["note"] for record in journal.known("note")):
                journal.append({"note": note})

        def stop() -> bool:
            return interrupted.is_set() or (
                timeout is not None and time.monotonic() - began >= timeout
            )

        loop = Loop(
            replace(task, test=None),  # no code that trains can reach the test examples
            checked,
            trainer,
            journal,
            keep=lambda curves: may_be_chosen(curves, task.objective, rule),
            report=report,
            checkpoint_seconds=checkpoint_seconds,
            spec_of=spec_of,
            stop=stop,
            callback=callback if distributed.is_first() else None,
        )
        outcome = loop.run(rounds, first, method.work(checked, task.evaluations))
        result = Result(
            task,
            checked,
            outcome,
            journal,
            method=asked.describe(),
            rule=rule,
            key=replicate_key,
            seeds=seeds,
            examples=arranged.trained_on,
            validated=arranged.validated,
            mesh=mesh,
            validation=validation,
            sizes=arranged.sizes,
            by_fold=arranged.by_fold,
        )
        result.record_choice()
    return result


@contextmanager
def interruptible() -> Iterator[Event]:
    """An event that the first Ctrl-C sets; the second is a ``KeyboardInterrupt`` as usual.

    Nothing changes outside of the main thread, or where the program handles Ctrl-C otherwise.
    """
    pressed = Event()
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before is not signal.default_int_handler:
        yield pressed
        return

    def press(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)
        logger.warning("Ctrl-C: the search ends after this evaluation; again: at once")

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


_GROWING = ("grid", "random", "sobol")


def cannot_grow(
    records: list[Record],
    differing: list[str],
    task: Task,
    space: Space,
    first: Round,
    seeds: int,
    examples: int,
    sizes: Mapping[str, int],
) -> str | None:
    """The reason why a search with other trials, seeds or epochs is no continuation; None: it is.

    Every member of the smaller search has to be a member of the larger search, with the same bits:
    the same configuration, schedule and block size.

    Args:
      records: of the search in the folder, the question first.
      differing: the differences of the questions.
      task: of the larger search.
      space: of both.
      first: the round of the larger search.
      seeds: of the larger search.
      examples: the number of training examples of every model.
      sizes: the block sizes of the larger search, by bucket.
    """
    was, names = records[0]["search"], {line.partition(" is ")[0] for line in differing}
    name, epochs = was["method"]["method"], was["task"]["epochs"]
    fewer = seeds < was["seeds"] or task.epochs < epochs
    growing = ("seeds", "task.epochs", "block_size")
    if fewer or any(n not in growing and not n.startswith("method.") for n in names):
        return ""
    if name not in _GROWING or "method.method" in names:
        return "" if "method.method" in names else f"{', '.join(_GROWING)} alone go on with more"
    rounds = [record for record in records if "round" in record]
    until, curves = epochs * was["task"]["evaluations_per_epoch"], recorded_curves(records)
    ends = [curve.evaluations[-1] for curve in curves.values()]
    asked = [row["config"] for record in rounds for row in record["trials"]]
    if not ends or len(ends) < len(asked) or min(ends) < until:
        return "the search in the folder is unfinished, expected the same call before more"
    trials = {json.dumps(readable(trial.config)): trial for trial in first.trials}
    if not trials.keys() >= set(map(json.dumps, asked)):
        return "the configurations in the folder are no part of the new configurations"
    before = rounds[0]["block_sizes"]
    if trials.keys() > set(map(json.dumps, asked)) and any(
        "PaddedMLP" in part for part in {*before, *sizes}
    ):
        return (
            "networks of many sizes are padded together, and more networks to other sizes, which "
            "changes bits: more seeds or epochs of the same configurations go on"
        )
    for part, size in before.items():
        if sizes[part] != size:
            return (
                f"the block size is {sizes[part]}, in the folder {size}, and changes bits: "
                f"block_size={size} goes on"
            )
    smaller = replace(task, test=None, epochs=epochs)
    for trial in first.trials if task.epochs > epochs else ():
        static = space.static_part(trial.config)
        short, long = (each.spec(static, examples) for each in (smaller, task))
        if _factors(short) != _factors(long):
            return (
                f"the schedule {readable(long.schedule)} depends on the number of steps: "
                "'constant' goes on with more epochs"
            )
    return None


def _factors(spec: Spec) -> str:
    """The digest of a program's schedule."""
    return program_digest(schedule(spec.schedule)(spec.steps), jnp.int32(0))


def warm(
    folder: Path | str | None, space: Space, task: Task, method: Method
) -> tuple[list[tuple[Config, float]], list[str]]:
    """The scores of another search for a method to begin with, and notes on what is left out.

    Raises:
      ValueError: the method does not learn from scores, or no trial of the folder fits the space.
      RunFolderError, CorruptLogError: the folder holds no search, or a damaged search.
    """
    if folder is None:
        return [], []
    if not learns(method):
        said = f"the method {method.describe().get('method', 'given')}"
        raise ValueError(f"warm_start is given with {said}, expected optuna(...)")
    with Journal(folder) as journal:
        was, records = journal.question, journal.latest
    curves = recorded_curves(records, was["task"])
    if was["task"]["measure"] != task.objective:
        raise ValueError(
            f"warm_start is a search by {was['task']['measure']}, expected by {task.objective}"
        )
    known: list[tuple[Config, float]] = []
    for curve in curves.values():
        with suppress(SpaceError):
            known.append((space.checked(curve.trial.config), curve.score(task.objective)))
    if not known:
        raise ValueError(
            f"warm_start is {folder} with {len(curves)} trials, expected a trial within the space"
        )
    notes = []
    if len(known) < len(curves):
        missing = len(curves) - len(known)
        notes.append(f"warm_start: {missing} of {len(curves)} trials are outside of the space")
    if was["task"]["train"] != digest(task.train):
        notes.append("warm_start: the scores are those of other examples")
    return known, notes


def checked_configurations(space: Space, configs: Any) -> list[Config]:
    """The configurations to train first, in the values of the space.

    Raises:
      SpaceError: a configuration is not in the space.
    """
    expected = "a list of configurations, such as [{'learning_rate': 0.1}]"
    require_type(isinstance(configs, list | tuple), "enqueue", configs, expected)
    return [space.checked(config, f"enqueue[{place}]") for place, config in enumerate(configs)]


@partial(jax.jit, static_argnames="seeds")  # outside of jit every operation would be a program
def _draw(key: Key, seeds: int) -> tuple[Array, Key, Seed]:
    """The seed of splits and configurations, the key of the replicates, the keys of each seed."""
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
    smallest = min(arranged.sizes)
    expect(
        spec.batch_size <= smallest,
        f"the configuration {static}: batch_size is {spec.batch_size}, expected at most the "
        f"{smallest} examples that the smallest fold trains on",
    )
    try:
        check_mesh(mesh, spec.batch_size)
        model: Any = spec.model
        if isinstance(model, MLP):  # the widths of hidden layers decide nothing
            into, *hidden, out = model.sizes
            model = replace(model, sizes=(into, *[1][: len(hidden)], out))
        if (model, spec.loss) not in seen:
            fitted(spec, "training", arranged.data)
            seen.add((model, spec.loss))
    except (TypeError, ValueError) as error:
        raise SpaceError(f"the configuration {static}: {error}") from error
    return spec


def check_metrics(task: Task, arranged: Arranged) -> None:
    """ValueError for a metric without a value in a fold, such as of a class without examples."""
    for metric in task.metrics:
        if METRICS.get(metric.name) is not metric or task.regression != (metric.of == REALS):
            continue  # the check of the program tells a metric of other targets
        for fold in range(arranged.folds):
            targets = np.asarray(arranged.data.targets)[arranged.rows(fold)[1]]
            shape = len(targets), targets.shape[1] if targets.ndim > 1 else 1
            if not task.regression and targets.ndim == 1:
                shape = len(targets), max(task.outputs, 2)
            outputs = jnp.asarray(np.random.default_rng(0).normal(size=shape), float)
            if metric.of == TWO_CLASSES and shape[1] > 2:
                continue
            try:
                value = float(metric(outputs, jnp.asarray(targets)))
            except (TypeError, ValueError):  # as well
                continue
            if not np.isfinite(value):
                raise ValueError(
                    f"the metric {metric.name} is {value} for the {len(targets)} validation "
                    f"examples of fold {fold}, expected examples of every class in each fold: "
                    "folds(5, stratified=True), holdout(stratified=True), or another metric"
                )


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
    programs = digests(specs, task, space.traced)
    given = {
        "metrics": [metric.name for metric in task.metrics],
        "maximised": sorted(task.greater),
        "loss": task.loss and readable(task.loss),
        "weighted_validation": task.weighted_validation,
        "standardize": task.standardize,
        "regression": callable(task.loss) and task.regression,
        "hyper": task.hyper and [*task.hyper._fields],
    }
    own = {name: value for name, value in given.items() if value}
    device = mesh.devices.flat[0]
    return {
        "task": {
            "train": digest(task.train),
            "validation": task.validation_split.describe(),
            "given": task.validation_split.data and digest(task.validation_split.data),
            "epochs": task.epochs,
            "evaluations_per_epoch": task.evaluations_per_epoch,
            "measure": task.objective,
            "model": task.model and readable(task.model),
            **own,
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


def digests(specs: Iterable[Spec], task: Task, names: tuple[str, ...]) -> dict[str, str]:
    """The digest of every function of the user's own: ``{"loss my_module.hinge": ...}``.

    Args:
      specs: programs of a search.
      task: with the examples, and the function that makes the models, or None for MLPs.
      names: the traced names of the space.
    """
    found: dict[str, dict[Any, str]] = {}
    for spec in specs:
        activation = spec.model.activation if isinstance(spec.model, MLP) else None
        own = {  # with the other parts of a spec that enter the digest
            "model": (task.model, spec.model),
            "loss": (spec.loss, spec.model),
            "activation": (activation, None),
            "optimizer": (spec.optimizer, spec.model),
            "schedule": (spec.schedule, spec.steps),
        }
        for kind, (function, parts) in own.items():
            if callable(function):
                several = found.setdefault(f"{kind} {readable(function)}", {})
                if (function, parts) not in several:
                    several[function, parts] = _digest(kind, function, spec, names, task)
    return {
        name: short_digest(*sorted({*several.values()})) for name, several in sorted(found.items())
    }


def _digest(kind: str, function: Any, spec: Spec, names: tuple[str, ...], task: Task) -> str:
    """The digest of a function of a program, for the shapes and types of the program."""
    if kind == "schedule":
        return program_digest(function(spec.steps), jnp.int32(0))
    x, target = jax.eval_shape(lambda d: (as_float(d.inputs, d)[0], d.targets[0]), task.train)
    if kind == "activation":
        return derivative_digest(function, x)
    key = jax.eval_shape(jax.random.key, 0)  # nothing is computed
    params = jax.eval_shape(spec.model.init, key)
    if kind == "model":
        slopes = derivative_digest(partial(logits_of_one, spec.model), params, x)
        return short_digest(program_digest(spec.model.init, key), slopes)
    if kind == "loss":
        logits = jax.eval_shape(partial(logits_of_one, spec.model), params, x)
        return derivative_digest(function, logits, target)

    def update(hyper: Any, params: PyTree) -> Any:
        optimizer = optimizer_at(replace(spec, schedule="constant"), hyper, jnp.int32(0))
        state = optimizer.init(params)
        return state, optimizer.update(params, state, params)

    hyper = jax.tree.map(lambda column: column[0], traced_values(spec, names, [{}], task.hyper))
    return program_digest(update, hyper, params)
