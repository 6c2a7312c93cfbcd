"""Training as one pure function of (spec, hyperparameters, key, data).

``jaxnn.population`` maps ``run`` over hyperparameters, seeds and devices.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.files import require_shapes, shapes
from jaxnn.losses import checked_targets, classification_error, l2_penalty
from jaxnn.minibatch import as_float, minibatch_indices, shuffle_key, take
from jaxnn.mlp import get_loss
from jaxnn.spec import Spec, check_hyper, optimizer_at, require_hyper, require_spec, with_defaults
from jaxnn.types import (
    Array,
    ArrayLike,
    Batch,
    Data,
    Key,
    Model,
    PyTree,
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


class Withheld(NamedTuple):
    """Neighbouring examples kept out of training, such as validation examples."""

    first: ArrayLike = 0  # [] int32, traced
    count: int = 0  # static


class Layout(NamedTuple):
    """The layout of a program on devices and in memory; populations choose one for speed."""

    batch_axis: str | None = None  # the mesh axis over whose devices every minibatch is spread
    columns: bool = False  # examples are columns in memory: faster under a vmap over models


ALONE = Layout()
"""The layout for one model on one device."""


class Metrics(NamedTuple):
    """Means over a data set: the unregularised loss, and the share of wrong predictions."""

    loss: Array | np.ndarray
    error: Array | np.ndarray


class History(NamedTuple):
    """The evaluations during a training."""

    iteration: Array  # [E] int32
    metrics: dict[str, Metrics]  # by the name of the data set; fields [E]


def objective(
    spec: Spec, params: PyTree, l2: ArrayLike, batch: Batch, layout: Layout = ALONE
) -> tuple[Array, Array]:
    """The objective that training minimises, and the reported, unregularised loss.

    (1/B) sum_i J(z_i, y_i) + l2/2 * sum of squared weights; biases are not penalised.

    Args:
      spec: names the model and the loss.
      params: the model's parameters.
      l2: the strength of the penalty.
      batch: inputs [B, in] in floating point, and targets [B] or [B, C].
      layout: for speed alone.

    Returns:
      The regularised objective and the unregularised mean loss, two scalars.

    Source: S2.4.
    """
    require_spec(spec)
    l2 = as_array("l2", l2)
    losses, _ = _over_examples(spec, params, *as_batch(batch), layout)
    loss = jnp.mean(losses)
    return loss + l2 * l2_penalty(params), loss


def as_batch(batch: Any) -> Batch:
    """A minibatch, in arrays; TypeError or ValueError for anything else, such as one example."""
    fits = isinstance(batch, tuple | list) and len(batch) == 2
    require_type(fits, "batch", batch, "(inputs [B, in], targets)")
    inputs, targets = map(as_array, ("the inputs of the batch", "the targets of the batch"), batch)
    if not inputs.ndim or inputs.shape[:1] != targets.shape[:1]:
        raise ValueError(
            f"batch has inputs {inputs.shape} and targets {targets.shape}, expected inputs [B, in] "
            "and B targets"
        )
    return inputs, targets


def train_step(
    spec: Spec, hyper: Any, state: State, batch: Batch, layout: Layout = ALONE
) -> tuple[State, Array]:
    """An update by the gradient of ``objective`` on a minibatch.

    A state keeps the parameters from before the first loss that is not finite, and the iteration of
    that loss.

    Args:
      spec: the program, static.
      hyper: traced scalars, a ``Hyper``.
      state: from ``init_state`` or the last step.
      batch: inputs [B, in] in floating point, and targets [B] or [B, C]; with a batch axis, the
        device's share of the minibatch.
      layout: for speed alone.

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
    return _checked_step(spec, hyper, state, as_batch(batch), layout)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _checked_step(
    spec: Spec, hyper: Any, state: State, batch: Batch, layout: Layout
) -> tuple[State, Array]:
    first = jax.eval_shape(partial(init_state, spec), hyper, jax.random.key(0))
    found, expected = (shapes("state", tree) for tree in (state, first))
    require_shapes(found, expected, "as of init_state(spec, hyper, key)")
    return _step(spec, hyper, state, batch, layout)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _step(
    spec: Spec, hyper: Any, state: State, batch: Batch, layout: Layout
) -> tuple[State, Array]:
    """``train_step`` without the checks."""
    import optax

    slope = jax.grad(objective, argnums=1, has_aux=True)
    gradient, loss = slope(spec, state.params, hyper.l2, batch, layout)
    if layout.batch_axis:
        gradient, loss = jax.lax.pmean((gradient, loss), layout.batch_axis)
    if getattr(hyper, "clip", None) is not None:
        clip = optax.clip_by_global_norm(hyper.clip)
        gradient, _ = clip.update(gradient, optax.EmptyState())
    optimizer = optimizer_at(spec, hyper, state.iteration)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    params: Any = optax.apply_updates(state.params, updates)
    state = mark_divergence(state, jnp.isfinite(loss))
    healthy = state.diverged_at == NEVER
    # A frozen model's optimizer state has no further use: only the parameters are kept.
    params = jax.tree.map(lambda new, old: jnp.where(healthy, new, old), params, state.params)
    return State(params, optimizer_state, state.iteration + 1, state.diverged_at), loss


def init_state(spec: Spec, hyper: Any, key: Key) -> State:
    """A freshly drawn model, before the first update."""
    require_spec(spec)
    check_hyper(spec, hyper)
    params = spec.model.init(as_key(key))
    optimizer = optimizer_at(spec, hyper, jnp.int32(0))
    return State(params, optimizer.init(params), jnp.int32(0), jnp.int32(NEVER))


def evaluate(spec: Spec, params: PyTree, data: Data, layout: Layout = ALONE) -> Metrics:
    """The mean unregularised loss and error over a data set, block by block to bound the memory.

    With a batch axis, the devices along the axis take turns.

    Raises:
      TypeError: no ``Data``, or no ``Spec``.
      ValueError: the data do not fit each other or the model.
    """
    require_spec(spec)
    if on_host(getattr(data, "targets", ())) is not None:
        (data,) = checked_data([("given", data)])
        data = fitted(spec, "given", data)
    return _evaluate(spec, params, data, layout)


@partial(jax.jit, static_argnames=("spec", "layout"))
def _evaluate(spec: Spec, params: PyTree, data: Data, layout: Layout) -> Metrics:
    n = len(data.targets)
    size = min(n, EVALUATION_BLOCK)
    starts = jnp.arange(0, n, size)
    if layout.batch_axis:  # blocks beyond the last example add nothing
        devices = jax.lax.axis_size(layout.batch_axis)
        starts = jnp.arange(0, n, size * devices) + size * jax.lax.axis_index(layout.batch_axis)

    def add_block(total: Metrics, first: Array) -> tuple[Metrics, None]:
        inputs, targets = (
            jax.lax.dynamic_slice_in_dim(x, first, size) for x in (data.inputs, data.targets)
        )
        values = _over_examples(spec, params, as_float(inputs, data), targets, layout)
        # The last block is moved back to fit; examples of the block before are not counted twice.
        fresh = jnp.minimum(first, n - size) + jnp.arange(size) >= first
        sums = [value @ fresh.astype(value.dtype) for value in values]
        return Metrics(total.loss + sums[0], total.error + sums[1]), None

    zero = Metrics(*(jnp.zeros((), jnp.result_type(float)) for _ in range(2)))
    total, _ = jax.lax.scan(add_block, zero, starts)
    if layout.batch_axis:
        total = jax.lax.psum(total, layout.batch_axis)
    return Metrics(total.loss / n, total.error / n)


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
    hyper, data, evaluate_on = checked(spec, hyper, data, evaluate_on)
    for name, value in hyper._asdict().items():
        if np.ndim(value):
            expected = "a number: train_population trains several configurations"
            raise ValueError(f"{name} is {shown(value)}, expected {expected}")
    return _train_jit(spec, hyper, as_key(key), data, evaluate_on)


def checked(
    spec: Spec, hyper: Any, data: Data, evaluate_on: Mapping[str, Data] | None
) -> tuple[Any, Data, dict[str, Data]]:
    """The hyperparameters, the data, and the data sets to evaluate, completed by the defaults."""
    require_spec(spec)
    fits = evaluate_on is None or isinstance(evaluate_on, Mapping)
    require_type(fits, "evaluate_on", evaluate_on, "data sets by name: {'test': test}")
    evaluate_on = {"train": data} if evaluate_on is None else dict(evaluate_on)
    check_hyper(spec, hyper)
    names = ["train", *("evaluated train" if name == "train" else name for name in evaluate_on)]
    sets = checked_data([*zip(names, (data, *evaluate_on.values()), strict=True)])
    if spec.batch_size > len(sets[0].targets):
        raise ValueError(
            f"batch_size is {spec.batch_size}, expected at most the {len(sets[0].targets)} examples"
        )
    data, *evaluated = (fitted(spec, *each) for each in zip(names, sets, strict=True))
    return with_defaults(spec, hyper), data, dict(zip(evaluate_on, evaluated, strict=True))


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
    draw, step = _start_and_step(spec, hyper, key, data, Withheld(), layout)
    stride = reduce(math.gcd, spec.evaluate_at)
    due = np.isin(np.arange(0, spec.steps + 1, stride), spec.evaluate_at)

    def train_stride(state: State) -> State:
        return jax.lax.scan(lambda state, _: (step(state), None), state, length=stride)[0]

    def evaluate_all(params: PyTree) -> dict[str, Metrics]:
        return {name: evaluate(spec, params, each, layout) for name, each in evaluate_on.items()}

    def skip(params: PyTree) -> dict[str, Metrics]:
        return jax.tree.map(jnp.zeros_like, jax.eval_shape(evaluate_all, params))

    def train_and_evaluate(state: State, flags: tuple[Array, Array]) -> tuple[State, PyTree]:
        started, is_due = (flag & active for flag in flags)
        state = jax.lax.cond(started, train_stride, lambda state: state, state)
        metrics = jax.lax.cond(is_due, evaluate_all, skip, state.params)
        finite = [jnp.isfinite(each.loss) for each in metrics.values()]
        return mark_divergence(state, jnp.all(jnp.array(finite))), metrics

    flags = jnp.array(np.arange(len(due)) > 0), jnp.array(due)
    state, metrics = jax.lax.scan(train_and_evaluate, draw(), flags)
    metrics = jax.tree.map(lambda values: values[np.flatnonzero(due)], metrics)
    return state, History(jnp.array(spec.evaluate_at, jnp.int32), metrics)


_train_jit = jax.jit(run, static_argnames="spec")


def advance(
    spec: Spec,
    hyper: Any,
    key: Key,
    state: State,
    steps: ArrayLike,
    data: Data,
    withheld: Withheld,
    layout: Layout,
) -> State:
    """``run`` piece by piece: a traced number of updates, without the withheld examples.

    A state of iteration 0 is drawn first; only the shapes of the given state count. No bit of the
    result depends on the division of the updates into calls, which share a key.
    """
    draw, step = _start_and_step(spec, hyper, key, data, withheld, layout)
    state = jax.lax.cond(state.iteration == 0, draw, lambda: state)
    return jax.lax.fori_loop(0, steps, lambda _, state: step(state), state)


def _start_and_step(
    spec: Spec, hyper: Any, key: Key, data: Data, withheld: Withheld, layout: Layout
) -> tuple[Callable[[], State], Callable[[State], State]]:
    """The first state, and the update of a state by the minibatch of the state's iteration."""
    init_key, order_key = jax.random.split(key)
    shuffle = shuffle_key(order_key)
    n = len(data.targets) - withheld.count

    def step(state: State) -> State:
        indices = minibatch_indices(shuffle, state.iteration, spec.batch_size, n)
        if layout.batch_axis:
            share = spec.batch_size // jax.lax.axis_size(layout.batch_axis)
            first = jax.lax.axis_index(layout.batch_axis) * share
            indices = jax.lax.dynamic_slice_in_dim(indices, first, share)
        if withheld.count:
            indices += withheld.count * (indices >= withheld.first)
        return _step(spec, hyper, state, take(data, indices), layout)[0]

    return partial(init_state, spec, hyper, init_key), step


def fitted(spec: Spec, name: str, data: Data) -> Data:
    """The examples, with targets in the form that the loss of a spec takes.

    Raises:
      ValueError: examples that do not fit the model, targets that the loss would misunderstand, or
        a loss that is no scalar.
    """
    x = jax.ShapeDtypeStruct(data.inputs.shape[1:], jnp.result_type(float))
    outputs = _outputs(spec.model, x)
    targets = checked_targets(f"the {name} targets", data.targets, outputs, spec.loss)
    if targets is not data.targets:
        data = data._replace(targets=targets)
    dtype = jax.dtypes.canonicalize_dtype(targets.dtype)
    _check_loss(spec, x, jax.ShapeDtypeStruct(targets.shape[1:], dtype))
    return data


@lru_cache
def _outputs(model: Model, x: jax.ShapeDtypeStruct) -> int:
    """The number of a model's outputs."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    check_parameters(params)
    logits: Any = jax.eval_shape(model.apply, params, x)
    require_type(hasattr(logits, "shape"), "model.apply(params, x)", logits, "logits [C]")
    return math.prod(logits.shape)


@lru_cache
def _check_loss(spec: Spec, x: jax.ShapeDtypeStruct, target: jax.ShapeDtypeStruct) -> None:
    """ValueError unless a model and a loss take an example, and the loss is a scalar."""
    params = jax.eval_shape(spec.model.init, jax.random.key(0))
    check_parameters(params)
    require_scalar(
        "the loss of one example", lambda *each: loss_and_error(spec, *each)[0], params, x, target
    )


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
        elif kinds & {("equinox", "State"), ("equinox", "StateIndex")}:
            state.insert(0, f"an equinox.nn.{type(node).__name__}")
    if state:
        raise ValueError(
            f"the model's init returns {state[0]} among the parameters, expected trainable numbers "
            "alone, for gradient descent would train running statistics and other state: use a "
            "layer without state, such as LayerNorm or GroupNorm in place of BatchNorm"
        )


def loss_and_error(spec: Spec, params: PyTree, x: Array, target: Array) -> tuple[Array, Array]:
    """Loss and error of one example."""
    logits = spec.model.apply(params, x)
    return get_loss(spec.loss)(logits, target), classification_error(logits, target)


def _over_examples(
    spec: Spec, params: PyTree, inputs: Array, targets: Array, layout: Layout
) -> tuple[Array, Array]:
    """Losses [B] and errors [B] of a minibatch, whose examples become rows or columns, for speed.

    Rows are faster for one model, unless all layers are narrow; columns are faster for models that
    train together. For columns every bias (a vector as long as a side of a weight) is spread over
    the minibatch first, because for a bias that is not mapped ``vmap`` would transpose every
    layer's pre-activations, a sixth slower. The
    bias is spread by a product with ones: the derivative is a product too, faster than a sum.
    """
    axes: Any = None
    leaves = jax.tree.leaves(params)
    wide = any(leaf.ndim > 1 and len(leaf) >= _NARROW for leaf in leaves)
    if layout.columns or not wide:
        row = 1, len(inputs)
        units = {size for leaf in leaves if leaf.ndim > 1 for size in leaf.shape}

        def is_bias(leaf: Array) -> bool:  # no other vector, such as all parameters in a vector
            return leaf.ndim == 1 and len(leaf) in units

        def spread(leaf: Array) -> Array:
            return leaf[:, None] @ jnp.ones(row, leaf.dtype) if is_bias(leaf) else leaf

        axes = jax.tree.map(lambda leaf: 1 if is_bias(leaf) else None, params)
        params = jax.tree.map(spread, params)
    return jax.vmap(partial(loss_and_error, spec), in_axes=(axes, 0, 0))(params, inputs, targets)


def mark_divergence(state: State, finite: Array) -> State:
    """Notes the iteration of the first loss that is not finite."""
    first = (state.diverged_at == NEVER) & ~finite
    return state._replace(diverged_at=jnp.where(first, state.iteration, state.diverged_at))
