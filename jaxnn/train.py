"""Training as one pure function of (spec, hyperparameters, key, data).

``jaxnn.population`` maps ``run`` over hyperparameters, seeds and devices.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxnn.files import require_shapes, shapes, short
from jaxnn.losses import (
    CLASSES,
    REGRESSIONS,
    checked_targets,
    classification_error,
    l2_penalty,
    predictions,
)
from jaxnn.metrics import get_metric
from jaxnn.minibatch import as_float, minibatch_indices, shuffle_key, take
from jaxnn.mlp import MLP, PaddedMLP, get_loss
from jaxnn.modules import Module, network
from jaxnn.spec import (
    Spec,
    check_hyper,
    given,
    keywords,
    optimizer_at,
    require_hyper,
    require_spec,
    with_defaults,
)
from jaxnn.types import (
    Array,
    ArrayLike,
    Batch,
    Data,
    Key,
    Model,
    PyTree,
    Variables,
    as_array,
    as_key,
    checked_data,
    on_host,
    require_scalar,
    require_type,
    shown,
)

NEVER = -1
"""The ``diverged_at`` of a member whose loss has always been finite."""

EVALUATION_BLOCK = 500
"""Examples that are evaluated at once: their activations stay in the cache."""

_NARROW = 32  # outputs: a layer of fewer leaves too much of a vector register empty


class State(NamedTuple):
    """A model in training."""

    params: PyTree
    optimizer_state: PyTree
    iteration: Array  # [] int32: finished updates
    diverged_at: Array  # [] int32: the iteration whose loss was not finite, or NEVER


class Seed(NamedTuple):
    """The keys of a run."""

    first: Key  # draws the parameters
    noise: Key  # of dropout and augmentation
    shuffle: Array  # [rounds] uint32: of the order of the examples

    @classmethod
    def of(cls, key: Key) -> "Seed":
        """The keys from a single key."""
        first, order = jax.random.split(key)
        return cls(first, order, shuffle_key(order))


class Withheld(NamedTuple):
    """Neighbouring examples kept out of training, such as validation examples."""

    first: ArrayLike = 0  # [] int32, traced
    count: int = 0  # static


class Rows(NamedTuple):
    """The examples to train on, by their rows; all traced."""

    index: Any  # [n] int32, filled up behind the first ``count``
    count: Any  # [] int32
    grid: Any  # [2] uint32, of ``permutation_grid(count)``


class Layout(NamedTuple):
    """The layout of a program on devices and in memory; populations choose one for speed."""

    batch_axis: str | None = None  # the mesh axis over whose devices every minibatch is spread
    columns: bool = False  # examples are columns in memory: faster under a vmap over models


ALONE = Layout()
"""The layout for one model on one device."""


class Metrics(NamedTuple):
    """Scores of a data set: the mean unregularised loss, and the share of wrong predictions."""

    loss: Any  # array
    error: Any = None  # array; None for a regression

    def by_name(self) -> dict[str, Any]:
        """The scores by name: "loss", and "error" if any."""
        return {"loss": self.loss} | ({} if self.error is None else {"error": self.error})


class ExtendedMetrics(NamedTuple):
    """``Metrics``, and the metrics that a program names."""

    loss: Any
    error: Any
    others: dict[str, Any]  # arrays by the names of ``Spec.metrics``

    def by_name(self) -> dict[str, Any]:
        """The scores by name: "loss", "error" if any, and the names of ``Spec.metrics``."""
        return Metrics(self.loss, self.error).by_name() | self.others


class Mode(NamedTuple):
    """What a forward pass depends on besides parameters and examples."""

    hyper: Any = None  # the NamedTuple of the traced hyperparameters
    training: bool = False  # static
    key: Key | None = None  # in training, for dropout and augmentation


EVALUATION = Mode()


class History(NamedTuple):
    """The evaluations during a training."""

    iteration: Array  # [E] int32
    metrics: dict[str, Metrics | ExtendedMetrics]  # by the name of the data set; fields [E]

    def __repr__(self) -> str:
        found = listed_scores(self.metrics)
        if not self._is_of_one_run:
            shapes = [f"{name} {each} {[*jnp.shape(v)]}" for name, each, v in found]
            return short(f"History({', '.join(shapes)})", 1000)
        last = [f"{name} {each} {v[-1]:.4g}" for name, each, v in found if len(v)]
        count = len(self.iteration)
        return short(f"History({count} evaluations; at the last {', '.join(last)})", 1000)

    @property
    def _is_of_one_run(self) -> bool:
        """Whether all fields are numbers [E]: no trace, and no vmap over runs."""
        return not any(
            isinstance(v, Tracer) or jnp.ndim(v) != 1 for v in jax.tree.leaves(tuple(self))
        )

    def _repr_html_(self) -> str | None:
        from jaxnn import display

        if not self._is_of_one_run:
            return None
        found, iteration = listed_scores(self.metrics), np.asarray(self.iteration)
        columns = {"iteration": iteration} | {f"{name} {each}": v for name, each, v in found}
        names = [*columns]
        rows = zip(*(v.tolist() for v in columns.values()), strict=True)
        return display.html(
            display.heading("History", about=f"{len(iteration)} evaluations"),
            display.curves(iteration, found),
            display.records([dict(zip(names, row, strict=True)) for row in rows]),
        )


def listed_scores(metrics: Mapping[str, Metrics | ExtendedMetrics]) -> list[tuple[str, str, Any]]:
    """All scores as (name of the data set, name of the score, array), as far as known in NumPy."""
    return [
        (name, each, values if isinstance(values, Tracer) else np.asarray(values))
        for name, found in metrics.items()
        for each, values in found.by_name().items()
    ]


def objective(
    spec: Spec,
    params: PyTree,
    l2: ArrayLike,
    batch: Batch,
    layout: Layout = ALONE,
    *,
    hyper: Any = None,
    key: Key | None = None,
) -> tuple[Array, Array]:
    """The objective that training minimises, and the reported, unregularised loss.

    (1/B) sum_i w_i J(z_i, y_i) + l2/2 * sum of squared weights; biases are not penalised; the
    weights w_i of the examples are 1 unless the minibatch has others.

    Args:
      spec: names the model and the loss.
      params: the model's parameters.
      l2: the strength of the penalty.
      batch: inputs [B, in] in floating point, targets [B] or [B, C], and perhaps weights [B].
      layout: for speed alone.
      hyper: hyperparameters of the loss and of the model, by name.
      key: for a model with dropout or augmentation.

    Returns:
      The regularised objective and the unregularised mean loss, two scalars.

    Source: S2.4.
    """
    require_spec(spec)
    batch = as_batch(batch)
    spec = resolved(spec, batch[0])
    mode = Mode(hyper, True, key)
    value, (loss, _) = _objective(spec, params, as_array("l2", l2), batch, layout, mode)
    return value, loss


def _objective(
    spec: Spec, params: PyTree, l2: ArrayLike, batch: Batch, layout: Layout, mode: Mode
) -> tuple[Array, tuple[Array, PyTree]]:
    """The objective, the unregularised loss, and the statistics of a model with ``Variables``."""
    inputs, targets, *weights = batch
    found = over_examples(spec, params, inputs, targets, layout, mode)
    loss = jnp.mean(found.loss * weights[0] if weights else found.loss)
    return loss + l2 * l2_penalty(_trained(params)), (loss, found.statistics)


def _trained(params: PyTree) -> PyTree:
    """The parameters that gradient descent trains."""
    return params.params if isinstance(params, Variables) else params


def as_batch(batch: Any) -> Batch:
    """A minibatch, in arrays; TypeError or ValueError for anything else, such as one example."""
    fits = isinstance(batch, tuple | list) and len(batch) in (2, 3)
    require_type(fits, "batch", batch, "(inputs [B, in], targets)")
    names = ("inputs", "targets", "weights")
    arrays = [as_array(f"the {n} of the batch", x) for n, x in zip(names, batch, strict=False)]
    inputs, targets, *weights = arrays
    if not inputs.ndim or inputs.shape[:1] != targets.shape[:1]:
        raise ValueError(
            f"batch has inputs {inputs.shape} and targets {targets.shape}, expected inputs [B, in] "
            "and B targets"
        )
    if weights and weights[0].shape != inputs.shape[:1]:
        raise ValueError(f"batch has weights {weights[0].shape}, expected [{len(inputs)}]")
    return inputs, targets, *weights


def train_step(
    spec: Spec,
    hyper: Any,
    state: State,
    batch: Batch,
    layout: Layout = ALONE,
    *,
    key: Key | None = None,
) -> tuple[State, Array]:
    """An update by the gradient of ``objective`` on a minibatch.

    A state keeps the parameters from before the first loss that is not finite, and the iteration of
    that loss.

    Args:
      spec: the program, static.
      hyper: traced scalars, a ``Hyper``.
      state: from ``init_state`` or the last step.
      batch: inputs [B, in] in floating point, targets [B] or [B, C], and perhaps weights [B] of
        mean 1; with a batch axis, the device's share of the minibatch.
      layout: for speed alone.
      key: for a model with dropout or augmentation; another one in every step.

    Returns:
      The next state, and the unregularised loss on the minibatch before the update.

    Raises:
      TypeError: an argument of another type.
      ValueError: the state or the minibatch do not fit the program.
    """
    require_spec(spec)
    require_hyper(hyper)
    require_type(isinstance(state, State), "state", state, "what init_state or train_step returns")
    for leaf in jax.tree.leaves((hyper, state)):
        if not isinstance(leaf, jax.Array | float):
            as_array("a value of hyper or state", leaf)
    batch = as_batch(batch)
    return _checked_step(resolved(spec, batch[0]), hyper, state, batch, layout, key)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _checked_step(
    spec: Spec, hyper: Any, state: State, batch: Batch, layout: Layout, key: Key | None
) -> tuple[State, Array]:
    first = jax.eval_shape(partial(init_state, spec), hyper, jax.random.key(0))
    found, expected = (shapes("state", tree) for tree in (state, first))
    require_shapes(found, expected, "as of init_state(spec, hyper, key)")
    return _step(spec, hyper, state, batch, layout, key)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _step(
    spec: Spec,
    hyper: Any,
    state: State,
    batch: Batch,
    layout: Layout,
    key: Key | None = None,
    scheduled: Array | None = None,
) -> tuple[State, Array]:
    """``train_step`` without the checks; scheduled: the iteration of the schedule, if another."""
    import optax

    before, variables = _trained(state.params), state.params

    def value(params: PyTree) -> tuple[Array, tuple[Array, PyTree]]:
        params = params if before is variables else variables._replace(params=params)
        return _objective(spec, params, hyper.l2, batch, layout, Mode(hyper, True, key))

    gradient, (loss, statistics) = _in_order(jax.grad(value, has_aux=True), before)
    if layout.batch_axis:
        several = gradient, loss, statistics
        gradient, loss, statistics = jax.lax.pmean(several, layout.batch_axis)
    if getattr(hyper, "clip", None) is not None:
        clip = optax.clip_by_global_norm(hyper.clip)
        gradient, _ = clip.update(gradient, optax.EmptyState())
    scheduled = state.iteration if scheduled is None else scheduled
    optimizer = optimizer_at(spec, hyper, scheduled)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, before)
    params: Any = optax.apply_updates(before, updates)
    params = params if before is variables else Variables(params, statistics)
    state = mark_divergence(state, jnp.isfinite(loss))
    healthy = state.diverged_at == NEVER
    # A frozen model's optimizer state has no further use: only the parameters are kept.
    params = jax.tree.map(lambda new, old: jnp.where(healthy, new, old), params, state.params)
    return State(params, optimizer_state, state.iteration + 1, state.diverged_at), loss


def init_state(spec: Spec, hyper: Any, key: Key) -> State:
    """A freshly drawn model, before the first update."""
    require_spec(spec)
    check_hyper(spec, hyper)
    params = spec.model.init(as_key(key), **given(spec.model.init, hyper, 1))
    optimizer = optimizer_at(spec, hyper, jnp.int32(0))
    return State(params, optimizer.init(_trained(params)), jnp.int32(0), jnp.int32(NEVER))


def evaluate(
    spec: Spec, params: PyTree, data: Data, layout: Layout = ALONE, *, hyper: Any = None
) -> Metrics | ExtendedMetrics:
    """The mean unregularised loss, the error and the metrics, in blocks to bound the memory.

    Examples count alike unless ``spec.weighted``. With a batch axis, the devices along the axis
    take turns.

    Args:
      spec: names the model, the loss and the metrics.
      params: the model's parameters.
      data: the examples.
      layout: for speed alone.
      hyper: hyperparameters of the model, by name; the loss keeps the defaults.

    Raises:
      TypeError: no ``Data``, or no ``Spec``.
      ValueError: the data do not fit each other or the model.
    """
    require_spec(spec)
    known = on_host(getattr(data, "targets", ())) is not None
    if known:
        (data,) = checked_data([("given", data)])
    spec = resolved(spec, data.inputs)
    if known:
        data = fitted(spec, "given", data)
    return _evaluate(spec, params, data, layout, hyper)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _evaluate(
    spec: Spec, params: PyTree, data: Data, layout: Layout, hyper: Any = None
) -> Metrics | ExtendedMetrics:
    n = len(data.targets)
    size = min(n, EVALUATION_BLOCK)
    starts = jnp.arange(0, n, size)
    if layout.batch_axis:  # blocks beyond the last example add nothing
        devices = jax.lax.axis_size(layout.batch_axis)
        starts = jnp.arange(0, n, size * devices) + size * jax.lax.axis_index(layout.batch_axis)
    weights = data.weights if spec.weighted else None

    def add_block(total: Metrics, first: Array) -> tuple[Metrics, Array | None]:
        inputs, targets = (
            jax.lax.dynamic_slice_in_dim(x, first, size) for x in (data.inputs, data.targets)
        )
        mode = Mode(hyper)
        score = partial(over_examples, spec, layout=layout, mode=mode)
        found = _in_order(score, params, as_float(inputs, data), targets)
        # The last block is moved back to fit; examples of the block before are not counted twice.
        fresh = jnp.minimum(first, n - size) + jnp.arange(size) >= first
        counted = fresh.astype(found.loss.dtype)
        if weights is not None:
            counted *= jax.lax.dynamic_slice_in_dim(weights, first, size)
        values = Metrics(found.loss, found.error)
        return jax.tree.map(lambda so_far, new: so_far + new @ counted, total, values), found.logits

    zero, others = no_scores(spec), {}
    total, logits = jax.lax.scan(add_block, Metrics(zero.loss, zero.error), starts)
    if layout.batch_axis:
        total = jax.lax.psum(total, layout.batch_axis)
    counted = n if weights is None else jnp.sum(weights)
    total = Metrics(*(v if v is None else v / counted for v in total))
    if not spec.metrics:
        return total
    assert logits is not None
    if layout.batch_axis:
        starts, logits = (
            jax.lax.all_gather(x, layout.batch_axis, tiled=True) for x in (starts, logits)
        )
    rows = jnp.minimum(starts, n - size)[:, None] + jnp.arange(size)
    outputs = jnp.zeros((n, logits.shape[-1]), logits.dtype).at[rows].set(logits)
    outputs = predictions(spec.loss, outputs)
    for metric in map(get_metric, spec.metrics):
        others[metric.name] = metric(outputs, data.targets, weights) + jnp.zeros_like(zero.loss)
    return ExtendedMetrics(total.loss, total.error, others)


def no_scores(spec: Spec) -> Metrics | ExtendedMetrics:
    """Zeros in the structure of the scores of a program's evaluation."""
    zero = jnp.zeros((), jnp.result_type(float))
    error = None if spec.loss in REGRESSIONS else zero
    if not spec.metrics:
        return Metrics(zero, error)
    return ExtendedMetrics(zero, error, {get_metric(m).name: zero for m in spec.metrics})


def map_blocks(
    function: Callable[..., PyTree], *examples: Array | np.ndarray, fill: bool = False
) -> PyTree:
    """The results [N, ...] of a function of examples, block by block to bound the memory.

    Args:
      function: from blocks of the examples, at most [EVALUATION_BLOCK, ...], to results [B, ...].
      *examples: arrays [N, ...], such as inputs and targets.
      fill: whether zeros fill the last block. Then one compiled program serves any N, and no bit of
        an example's result depends on N.
    """
    results = []
    for first in range(0, max(len(examples[0]), 1), EVALUATION_BLOCK):
        block = [np.asarray(x[first : first + EVALUATION_BLOCK]) for x in examples]
        n = len(block[0])
        if fill:
            rest = EVALUATION_BLOCK - n
            block = [np.concatenate([x, np.zeros((rest, *x.shape[1:]), x.dtype)]) for x in block]
        results.append(jax.tree.map(lambda x, n=n: np.asarray(x)[:n], function(*block)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


def train(
    spec: Spec,
    hyper: Any,
    key: Key | int,
    data: Data,
    evaluate_on: Mapping[str, Data] | None = None,
) -> tuple[State, History]:
    """Trains one model from a key by minibatch SGD.

    Args:
      spec: the program, static.
      hyper: traced scalars, a ``Hyper``.
      key: consumed; draws the parameters and the order of the examples; a whole number n stands for
        ``jax.random.key(n)``.
      data: the examples to train on, in arrays, lists or data frames.
      evaluate_on: data sets by name, evaluated at ``spec.evaluate_at``; by default the training
        examples, as "train".

    Returns:
      The final state, and the history of the evaluations.

    Raises:
      ValueError: the data do not fit each other or the model, hold a value that is not finite or a
        label that the loss would misunderstand, the minibatch is larger than the data, or a
        hyperparameter is out of range.
      TypeError: the data are no ``Data``, or the key is none.

    Example:
      >>> import jax
      >>> from jaxnn import MLP, Hyper, Spec, train
      >>> from jaxnn.data import load
      >>> examples, test = load("digits")
      >>> spec = Spec(MLP((64, 10)), steps=200, optimizer="momentum", evaluate_at=(0, 100))
      >>> key = jax.random.key(0)
      >>> state, history = train(spec, Hyper(0.05), key, examples, {"test": test})
      >>> history.iteration.tolist(), bool(history.metrics["test"].error[-1] < 0.1)
      ([0, 100, 200], True)
    """
    spec, hyper, data, evaluate_on = checked(spec, hyper, data, evaluate_on)
    for name, value in hyper._asdict().items():
        if np.ndim(value):
            expected = "a number: train_population trains several configurations"
            raise ValueError(f"{name} is {shown(value)}, expected {expected}")
    return _train_jit(spec, hyper, as_key(key), data, evaluate_on)


def checked(
    spec: Spec, hyper: Any, data: Data, evaluate_on: Mapping[str, Data] | None
) -> tuple[Spec, Any, Data, dict[str, Data]]:
    """The program, the hyperparameters, the data and the data sets to evaluate, completed."""
    require_spec(spec)
    fits = evaluate_on is None or isinstance(evaluate_on, Mapping)
    require_type(fits, "evaluate_on", evaluate_on, "data sets by name: {'test': test}")
    evaluate_on = {"train": data} if evaluate_on is None else dict(evaluate_on)
    check_hyper(spec, hyper)
    names = ["train", *("evaluated train" if name == "train" else name for name in evaluate_on)]
    sets = checked_data([*zip(names, (data, *evaluate_on.values()), strict=True)])
    spec = resolved(spec, sets[0].inputs)
    check_hyper(spec, hyper)
    if spec.batch_size > len(sets[0].targets):
        raise ValueError(
            f"batch_size is {spec.batch_size}, expected at most the {len(sets[0].targets)} examples"
        )
    data, *evaluated = (fitted(spec, *each) for each in zip(names, sets, strict=True))
    evaluate_on = dict(zip(evaluate_on, evaluated, strict=True))
    return spec, with_defaults(spec, hyper), data, evaluate_on


def run(
    spec: Spec,
    hyper: Any,
    key: Key,
    data: Data,
    evaluate_on: dict[str, Data],
    active: ArrayLike = True,
    layout: Layout = ALONE,
) -> tuple[State, History]:
    """``train`` without the checks: the pure function that populations map.

    A run that is not active does no work and returns the first state.
    """
    seed = Seed.of(key)
    step = _stepper(spec, hyper, seed, data, Withheld(), layout)
    stride = reduce(math.gcd, spec.evaluate_at)
    due = np.isin(np.arange(0, spec.steps + 1, stride), spec.evaluate_at)

    def train_stride(state: State) -> State:
        return jax.lax.scan(lambda state, _: (step(state), None), state, length=stride)[0]

    def evaluate_all(params: PyTree) -> dict[str, Metrics]:
        return {
            name: _evaluate(spec, params, each, layout, hyper) for name, each in evaluate_on.items()
        }

    def skip(params: PyTree) -> dict[str, Metrics]:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(evaluate_all, params))

    def train_and_evaluate(state: State, flags: tuple[Array, Array]) -> tuple[State, PyTree]:
        started, is_due = (flag & active for flag in flags)
        state = jax.lax.cond(started, train_stride, lambda state: state, state)
        metrics = jax.lax.cond(is_due, evaluate_all, skip, state.params)
        finite = [jnp.isfinite(each.loss) for each in metrics.values()]
        return mark_divergence(state, jnp.all(jnp.array(finite))), metrics

    flags = jnp.array(np.arange(len(due)) > 0), jnp.array(due)
    first = init_state(spec, hyper, seed.first)
    state, metrics = jax.lax.scan(train_and_evaluate, first, flags)
    metrics = jax.tree.map(lambda values: values[np.flatnonzero(due)], metrics)
    return state, History(jnp.array(spec.evaluate_at, jnp.int32), metrics)


_train_jit = jax.jit(run, static_argnames="spec")


def advance(
    spec: Spec,
    hyper: Any,
    seed: Seed,
    state: State,
    steps: ArrayLike,
    data: Data,
    part: Withheld | Rows,
    layout: Layout,
    horizon: Array | None = None,
) -> State:
    """``run`` piece by piece: a traced number of updates, on a part of the examples.

    A state of iteration 0 is drawn first, but for the parameters of padded networks. No bit of the
    result depends on the division of the updates into calls, which share a seed. A schedule is
    stretched from the steps of the spec to ``horizon``, the traced number of updates in all.
    """
    step = _stepper(spec, hyper, seed, data, part, layout, horizon)

    def begin() -> State:
        if not isinstance(spec.model, PaddedMLP):
            return init_state(spec, hyper, seed.first)
        optimizer = optimizer_at(spec, hyper, state.iteration)
        return state._replace(optimizer_state=optimizer.init(state.params))

    state = jax.lax.cond(state.iteration == 0, begin, lambda: state)
    return jax.lax.fori_loop(0, steps, lambda _, state: step(state), state)


def _stepper(
    spec: Spec,
    hyper: Any,
    seed: Seed,
    data: Data,
    part: Withheld | Rows,
    layout: Layout,
    horizon: Array | None = None,
) -> Callable[[State], State]:
    """The update of a state by the minibatch of the state's iteration."""
    noisy = "key" in keywords(spec.model.apply)
    n, grid = len(data.targets) - part.count, None
    if isinstance(part, Rows):
        n, grid = jnp.uint32(part.count), part.grid

    def step(state: State) -> State:
        indices = minibatch_indices(seed.shuffle, state.iteration, spec.batch_size, n, grid)
        if layout.batch_axis:
            share = spec.batch_size // jax.lax.axis_size(layout.batch_axis)
            first = jax.lax.axis_index(layout.batch_axis) * share
            indices = jax.lax.dynamic_slice_in_dim(indices, first, share)
        if isinstance(part, Rows):
            indices = part.index[indices]
        elif part.count:
            indices += part.count * (indices >= part.first)
        noise = jax.random.fold_in(seed.noise, state.iteration) if noisy else None
        if noise is not None and layout.batch_axis:
            noise = jax.random.fold_in(noise, jax.lax.axis_index(layout.batch_axis))
        scheduled = None if horizon is None else state.iteration * (spec.steps / horizon)
        return _step(spec, hyper, state, take(data, indices), layout, noise, scheduled)[0]

    return step


def resolved(spec: Spec, inputs: Any) -> Spec:
    """The program for inputs [N, ...]: a module of Flax or Equinox becomes a ``Network``."""
    if not isinstance(spec.model, Module):
        return spec
    return replace(spec, model=network(spec.model, inputs.shape[1:]))


def fitted(spec: Spec, name: str, data: Data) -> Data:
    """The examples in the form that a spec takes: rows for an MLP, targets for the loss.

    Raises:
      ValueError: examples that do not fit the model, targets that the loss would misunderstand, or
        a loss or a metric that is no scalar.
    """
    if isinstance(spec.model, MLP) and data.inputs.ndim > 2:
        data = flattened(data)
    x = jax.ShapeDtypeStruct(data.inputs.shape[1:], jnp.result_type(float))
    outputs = _outputs(spec.model, x)
    targets = checked_targets(f"the {name} targets", data.targets, outputs, spec.loss)
    if data.names and spec.loss in CLASSES and len(data.names) != max(outputs, 2):
        raise ValueError(
            f"the {name} names are {shown(data.names)}, expected {max(outputs, 2)}, a name of each "
            "class"
        )
    if targets is not data.targets:
        data = data._replace(targets=targets)
    dtype = jax.dtypes.canonicalize_dtype(targets.dtype)
    _check_loss(spec, x, jax.ShapeDtypeStruct(targets.shape[1:], dtype))
    return data


def flattened(data: Data) -> Data:
    """The examples as rows [N, in]."""
    rows = data.inputs.reshape(len(data.inputs), -1)
    scale, shift = (
        x if x is None or not np.ndim(x) else np.reshape(x, -1) for x in (data.scale, data.shift)
    )
    return data._replace(inputs=rows, scale=scale, shift=shift)


@lru_cache
def _outputs(model: Model, x: jax.ShapeDtypeStruct) -> int:
    """The number of a model's outputs."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    check_parameters(_trained(params))
    if isinstance(params, Variables) and not is_batched(model):
        raise ValueError(
            "the model's init returns Variables, expected Network(..., batched=True): statistics "
            "are of minibatches"
        )
    logits: Any = jax.eval_shape(partial(logits_of_one, model), params, x)
    require_type(hasattr(logits, "shape"), "model.apply(params, x)", logits, "logits [C]")
    if is_batched(model):
        _check_minibatch(model, params, jax.ShapeDtypeStruct((2, *x.shape), x.dtype))
    return math.prod(logits.shape)


def logits_of(model: Model, params: PyTree, inputs: Array) -> Array:
    """The logits [B, C] of examples [B, ...] in evaluation."""
    if is_batched(model):
        return _apply(model, params, inputs, EVALUATION)
    return jax.vmap(lambda x: _apply(model, params, x, EVALUATION))(inputs)


def _check_minibatch(model: Model, params: PyTree, inputs: jax.ShapeDtypeStruct) -> None:
    """ValueError unless a batched model returns logits [B, C], and in training new statistics."""
    key = jax.random.key(0)
    found: Any = jax.eval_shape(
        lambda params, x: _apply(model, params, x, Mode(training=True, key=key)), params, inputs
    )
    call, logits = "model.apply(params, x) of 2 examples", found
    if isinstance(params, Variables):
        pair = isinstance(found, tuple) and len(found) == 2
        require_type(pair, f"{call} in training", found, "(logits [B, C], statistics)")
        logits, statistics = found
        new, old = (shapes("statistics", tree) for tree in (statistics, params.statistics))
        require_shapes(new, old, "as of the model's init")
    if getattr(logits, "ndim", 0) != 2 or len(logits) != 2:
        raise ValueError(f"{call} has the shape {np.shape(logits)}, expected logits [2, C]")


def logits_of_one(model: Model, params: PyTree, x: Array) -> Any:
    """The logits of one example in evaluation, also of a model that takes minibatches."""
    if is_batched(model):
        return jax.tree.map(lambda logits: logits[0], _apply(model, params, x[None], EVALUATION))
    return _apply(model, params, x, EVALUATION)


@lru_cache
def _check_loss(spec: Spec, x: jax.ShapeDtypeStruct, target: jax.ShapeDtypeStruct) -> None:
    """ValueError unless a model and a loss take an example, and loss and metrics are scalars."""
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    check_parameters(_trained(params))

    def loss(params: PyTree, x: Array, target: Array) -> Array:
        return scores(spec, logits_of_one(spec.model, params, x), target).loss

    require_scalar("the loss of one example", loss, params, x, target)
    count = _outputs(spec.model, x)
    regression = isinstance(spec.loss, str) and spec.loss in REGRESSIONS
    for metric in map(get_metric, spec.metrics):
        metric.require_fit(spec.loss, count, regression=regression, weighted=spec.weighted)
        outputs = jax.ShapeDtypeStruct((4, count), x.dtype)
        outputs = jax.eval_shape(partial(predictions, spec.loss), outputs)
        targets = jax.ShapeDtypeStruct((4, *target.shape), target.dtype)
        require_scalar(f"the metric {metric.name}", metric.function, outputs, targets)


def check_parameters(params: PyTree) -> None:
    """ValueError for state among the parameters, which gradient descent would train.

    Flax keeps running statistics in collections beside "params", or in an ``nnx.Variable`` other
    than ``nnx.Param``; Equinox in ``nn.State``. Counters and random keys are no real numbers.
    """
    nodes: list[Any] = []
    see: Any = nodes.append  # returns None: no node is a leaf
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=see)
    state = [
        f"{leaf.dtype} numbers at {jax.tree_util.keystr(path) or 'the top'}"
        for path, leaf in leaves
        if not jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    for node in nodes:
        kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(node).__mro__}
        names = list(map(str, node)) if isinstance(node, Mapping) else []
        others = [name for name in names if "params" in names and name != "params"]
        if "batch_stats" in names or others:
            state.insert(0, f"the collection {[*others, 'batch_stats'][0]!r}")
        elif {"mean", "var"} <= {*names} and not {"scale", "bias"}.isdisjoint(names):
            state.insert(0, "the running statistics 'mean' and 'var'")
        elif ("flax", "Variable") in kinds and ("flax", "Param") not in kinds:
            state.insert(0, f"a flax.nnx.{type(node).__name__}")
        elif kinds & {("equinox", "State"), ("equinox", "StateIndex")} and jax.tree.leaves(node):
            state.insert(0, f"an equinox.nn.{type(node).__name__}")
    if state:
        raise ValueError(
            f"the model's init returns {state[0]} among the parameters, expected trainable numbers "
            "alone, for gradient descent would train running statistics and other state: use a "
            "layer without state, such as LayerNorm or GroupNorm in place of BatchNorm"
        )


class Outputs(NamedTuple):
    """The forward pass of a minibatch."""

    loss: Array  # [B]
    error: Array | None  # [B]; None for a regression
    logits: Array | None = None  # [B, C], where the program has metrics
    statistics: PyTree = None  # the new ones of a model with Variables, in training


def _apply(model: Model, params: PyTree, x: Array, mode: Mode) -> Any:
    """``model.apply`` with the keyword arguments that the signature names."""
    passed = {"training": mode.training, "key": mode.key}
    named = {name: value for name, value in passed.items() if name in keywords(model.apply)}
    return model.apply(params, x, **named, **given(model.apply, mode.hyper))


def scores(spec: Spec, logits: Array, target: Array, mode: Mode = EVALUATION) -> Outputs:
    """Loss, error and logits of one example, from the logits."""
    loss = get_loss(spec.loss)
    value = loss(logits, target, **(given(loss, mode.hyper) if mode.training else {}))
    error = None if spec.loss in REGRESSIONS else classification_error(logits, target)
    return Outputs(value, error, logits.reshape(-1) if spec.metrics else None)


def over_examples(
    spec: Spec,
    params: PyTree,
    inputs: Array,
    targets: Array,
    layout: Layout = ALONE,
    mode: Mode = EVALUATION,
) -> Outputs:
    """The forward pass of a minibatch, whose examples become rows or columns, for speed.

    Rows are faster for one model, unless all layers are narrow; columns are faster for models that
    train together. For columns every bias (a vector as long as a side of a weight) is spread over
    the minibatch first, because for a bias that is not mapped ``vmap`` would transpose every
    layer's pre-activations, a sixth slower. The
    bias is spread by a product with ones: the derivative is a product too, faster than a sum.
    """
    axes: Any = None
    leaves = jax.tree.leaves(params)
    wide = any(leaf.ndim > 1 and len(leaf) >= _NARROW for leaf in leaves)
    if (layout.columns or not wide) and not is_batched(spec.model):
        row = 1, len(inputs)
        units = {size for leaf in leaves if leaf.ndim > 1 for size in leaf.shape}

        def is_bias(leaf: Array) -> bool:  # no other vector, such as all parameters in a vector
            return leaf.ndim == 1 and len(leaf) in units

        def spread(leaf: Array) -> Array:
            return leaf[:, None] @ jnp.ones(row, leaf.dtype) if is_bias(leaf) else leaf

        axes = jax.tree.map(lambda leaf: 1 if is_bias(leaf) else None, params)
        params = jax.tree.map(spread, params)
    return over_rows(spec, params, inputs, targets, mode, axes)


def over_rows(
    spec: Spec,
    params: PyTree,
    inputs: Array,
    targets: Array,
    mode: Mode = EVALUATION,
    axes: Any = None,
) -> Outputs:
    """The forward pass of examples [B, in], or of a batched model; axes: of mapped parameters."""
    if mode.training and mode.key is None and "key" in keywords(spec.model.apply):
        raise ValueError("the model takes a key in training, expected key=jax.random.key(...)")
    if is_batched(spec.model):
        logits, statistics = _apply(spec.model, params, inputs, mode), None
        if isinstance(params, Variables) and mode.training:
            logits, statistics = logits
        found = jax.vmap(partial(scores, spec, mode=mode))(logits, targets)
        return found._replace(statistics=statistics)
    keys = None if mode.key is None else jax.random.split(mode.key, len(inputs))

    def example(params: PyTree, x: Array, target: Array, key: Key | None) -> Outputs:
        own = mode._replace(key=key)
        return scores(spec, _apply(spec.model, params, x, own), target, own)

    return jax.vmap(example, in_axes=(axes, 0, 0, 0))(params, inputs, targets, keys)


def is_batched(model: Model) -> bool:
    """Whether ``apply`` takes a minibatch."""
    return bool(getattr(model, "batched", False))


def _in_order(function: Callable[..., PyTree], params: PyTree, *arguments: Any) -> PyTree:
    """``function(params, *arguments)``, with the axes of convolutions in XLA's order.

    Outside of loops XLA orders the axes of a convolution itself. In a loop, such as over the steps
    of a training, a CPU takes twelve times as long for an unordered one, and the derivatives of
    convolutions are unordered.
    """
    if all(leaf.ndim < 3 for leaf in jax.tree.leaves(params)):
        return function(params, *arguments)
    program, shapes = jax.make_jaxpr(function, return_shape=True)(params, *arguments)
    found = _evaluated(program, jax.tree.leaves((params, *arguments)))
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


def _evaluated(program: Any, inputs: Sequence[Array]) -> list[Array]:
    """The outputs of a closed jaxpr."""
    jaxpr = program.jaxpr
    variables = (*jaxpr.constvars, *jaxpr.invars)
    known = dict(zip(variables, (*program.consts, *inputs), strict=True))

    def values(atoms: Sequence[Any]) -> list[Array]:
        return [atom.val if isinstance(atom, core.Literal) else known[atom] for atom in atoms]

    for equation in jaxpr.eqns:
        primitive, given = equation.primitive, values(equation.invars)
        if primitive.name in ("jit", "pjit"):
            found = _evaluated(equation.params["jaxpr"], given)
        elif primitive.name == "conv_general_dilated":
            found = [_convolution(*given, **equation.params)]
        else:
            found = primitive.bind(*given, **primitive.get_bind_params(equation.params))
            found = found if primitive.multiple_results else [found]
        known |= zip(equation.outvars, found, strict=True)
    return values(jaxpr.outvars)


def _convolution(x: Array, kernel: Array, *, dimension_numbers: Any, **parameters: Any) -> Array:
    """A convolution by the order of axes (batch, space, features) and (space, in, out)."""
    (batch, features, *space), (out, into, *window), result = dimension_numbers
    x = x.transpose(batch, *space, features)
    kernel = kernel.transpose(*window, into, out)
    rank, places = x.ndim, (*range(1, x.ndim - 1),)
    outer = 0, rank - 1, *places
    numbers = type(dimension_numbers)(outer, (rank - 1, rank - 2, *range(rank - 2)), outer)
    found = jax.lax.conv_general_dilated_p.bind(x, kernel, dimension_numbers=numbers, **parameters)
    return found.transpose(np.argsort([result[axis] for axis in (0, *range(2, rank), 1)]))


def mark_divergence(state: State, finite: Array) -> State:
    """Notes the iteration of the first loss that is not finite."""
    first = (state.diverged_at == NEVER) & ~finite
    return state._replace(diverged_at=jnp.where(first, state.iteration, state.diverged_at))
