"""The static specification of a training program, and the checks of the traced hyperparameters.

``Spec`` is static, ``jaxnn.Hyper`` is traced; the two meet in ``optimizer_at``.
"""

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend import core

from jaxnn.metrics import Metric, get_metric
from jaxnn.mlp import get_loss
from jaxnn.modules import as_model
from jaxnn.optimizers import Optimizer, Schedule, check_optimizer, defaults, named, reads, schedule
from jaxnn.types import (
    Array,
    ArrayLike,
    Loss,
    LossName,
    Model,
    OptimizerName,
    PyTree,
    ScheduleName,
    require_count,
    require_scalar,
    require_type,
    shown,
    whole,
)

if TYPE_CHECKING:
    from optax import GradientTransformation


@dataclass(frozen=True)
class Spec:
    """The static part of a training: each distinct spec is compiled into one program.

    Attributes:
      model: ``jaxnn.MLP``; pure functions ``init(key)`` and ``apply(params, x)`` for one example,
        such as ``jaxnn.Network``; or a module of Flax or Equinox, or a function of ``rngs`` or
        ``key`` that makes a module, see ``jaxnn.modules``.
      steps: iterations of minibatch SGD.
      batch_size: B, examples per minibatch.
      loss: "cross_entropy", "squared_error", "focal", "logistic"; of real targets "mse", "mae",
        "huber", "gaussian_nll"; or any (logits, target) -> scalar.
      optimizer: "sgd", "momentum", "nesterov", "adam", the name of any other optimizer of optax, or
        any function from the traced hyperparameters to an ``optax.GradientTransformation``.
      schedule: "constant", "cosine" (to 0), "step" (a tenth at one half and again at three
        quarters), the name of any schedule of optax such as "warmup_cosine" or the result of
        ``jaxnn.optimizers.schedule``, or any function from the number of steps to an
        ``optax.Schedule`` of factors on the learning rate.
      evaluate_at: the iterations (numbers of finished updates) at which to evaluate, from 0 to
        steps; the last is always evaluated.
      metrics: scores that evaluations record besides loss and error, by the names of
        ``jaxnn.metrics.METRICS`` or as ``jaxnn.metrics.Metric``.
      weighted: whether evaluations weight the examples as the data do; by default all examples
        count alike. Training always uses the weights of the data.

    Example:
      >>> from jaxnn import MLP, Spec
      >>> spec = Spec(MLP((784, 50, 10)), steps=600, optimizer="adamw", schedule="warmup_cosine")
      >>> spec.batch_size, spec.evaluate_at
      (100, (600,))
    """

    model: Model | Any
    steps: int
    batch_size: int = 100
    loss: LossName | Loss = "cross_entropy"
    optimizer: OptimizerName | Optimizer = "sgd"
    schedule: ScheduleName | Schedule = "constant"
    evaluate_at: tuple[int, ...] = ()
    metrics: tuple[str | Metric, ...] = ()
    weighted: bool = False

    def __post_init__(self):
        object.__setattr__(self, "model", as_model(self.model))
        functions = (getattr(self.model, name, None) for name in ("init", "apply"))
        fits = all(map(callable, functions)) and not isinstance(self.model, type)
        expected = (
            "jaxnn.MLP((inputs, ..., classes)), jaxnn.Network(init, apply), a module of Flax or "
            "Equinox, or a function of rngs or key that makes one"
        )
        require_type(fits and isinstance(self.model, Hashable), "model", self.model, expected)
        object.__setattr__(self, "steps", require_count("steps", self.steps))
        object.__setattr__(self, "batch_size", require_count("batch_size", self.batch_size))
        get_loss(self.loss)
        check_optimizer(self.optimizer)
        factors = schedule(self.schedule)
        if factors is self.schedule:  # of the user's own
            factors = factors(self.steps)
            if not callable(factors):
                raise ValueError(
                    f"schedule({self.steps}) is {shown(factors)}, expected a function of the "
                    "iteration: of a schedule of optax give the name, such as 'warmup_cosine', or "
                    "a function of the number of steps: lambda steps: "
                    "optax.cosine_decay_schedule(1.0, steps)"
                )
            iteration = jax.ShapeDtypeStruct((), jnp.int32)
            require_scalar(f"schedule({self.steps})(iteration)", factors, iteration)
        allowed = range(self.steps + 1)
        points = self.evaluate_at if isinstance(self.evaluate_at, Iterable) else [self.evaluate_at]
        if not all(whole(point) in allowed for point in points):
            raise ValueError(
                f"evaluate_at is {shown(self.evaluate_at)}, expected iterations from 0 to "
                f"{self.steps}"
            )
        points = {*map(int, points), self.steps}
        object.__setattr__(self, "evaluate_at", tuple(sorted(points)))
        require_type(isinstance(self.weighted, bool), "weighted", self.weighted, "True or False")
        several = isinstance(self.metrics, tuple | list)
        metrics = tuple(map(get_metric, self.metrics if several else (self.metrics,)))
        names = [metric.name for metric in metrics]
        if twice := [n for n in names if names.count(n) > 1 or n in ("loss", "error")]:
            raise ValueError(f"metrics holds {twice[0]!r} twice, expected different names")
        object.__setattr__(self, "metrics", metrics)


@lru_cache
def keywords(function: Callable[..., Any], data: int = 2) -> dict[str, Any]:
    """The named parameters of a loss, ``apply`` or ``init`` after the data, and their defaults."""
    try:
        parameters = [*signature(function).parameters.values()][data:]
    except (TypeError, ValueError):  # a signature that Python does not know
        return {}
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {p.name: p.default for p in parameters if p.kind in named}


def given(function: Callable[..., Any], hyper: Any, data: int = 2) -> dict[str, Any]:
    """The hyperparameters that a loss, ``apply`` or ``init`` takes by name."""
    values = {name: getattr(hyper, name, None) for name in keywords(function, data)}
    return {name: value for name, value in values.items() if value is not None}


def scalars(function: Callable[..., Any]) -> dict[str, float]:
    """The traced hyperparameters of a loss or of ``apply``, and their defaults."""
    return {name: v for name, v in keywords(function).items() if type(v) in (int, float)}


def own_hyper(spec: Spec) -> dict[str, float]:
    """The traced hyperparameters of the loss and of the model, and their defaults."""
    return scalars(get_loss(spec.loss)) | scalars(spec.model.apply)


def require_spec(spec: Any) -> None:
    """TypeError unless the argument is a ``Spec``."""
    require_type(isinstance(spec, Spec), "spec", spec, "jaxnn.Spec(model, steps)")


def optimizer_at(spec: Spec, hyper: Any, iteration: Array) -> "GradientTransformation":
    """The optimizer of one iteration, at the scheduled learning rate."""
    factor = schedule(spec.schedule)(spec.steps)(iteration)
    hyper = with_defaults(spec, hyper)
    hyper = hyper._replace(learning_rate=hyper.learning_rate * factor)
    if callable(spec.optimizer):
        made: Any = spec.optimizer(hyper)
        fits = callable(getattr(made, "init", None)) and callable(getattr(made, "update", None))
        require_type(fits, "optimizer(hyper)", made, "an optax.GradientTransformation")
        return made
    known = ("learning_rate", *defaults(spec.optimizer))
    read = {name: v for name, v in hyper._asdict().items() if name in known and v is not None}
    return named(spec.optimizer)(**read)


def with_defaults(spec: Spec, hyper: Any) -> Any:
    """The hyperparameters with the optimizer's default in place of None, and None where unread."""
    known = defaults(spec.optimizer)
    own = keywords(get_loss(spec.loss)) | keywords(spec.model.apply) | keywords(spec.model.init, 1)
    read = ("learning_rate", "l2", "clip", *known, *own)
    read = hyper._fields if callable(spec.optimizer) else read
    given = hyper._asdict().items()
    values = {name: known.get(name) if value is None else value for name, value in given}
    return hyper._replace(**{name: v if name in read else None for name, v in values.items()})


def check_hyper(spec: Spec, hyper: Any) -> None:
    """ValueError for a hyperparameter out of its range; None and traced values pass."""
    require_hyper(hyper)
    optimizers = {"learning_rate", "l2", "clip", *(reads(spec.optimizer) or ())}
    for name in optimizers.intersection(own_hyper(spec)):
        if getattr(hyper, name, None) is not None:
            raise ValueError(
                f"{name} is a parameter of the optimizer and of the loss or the model, expected "
                "another name there"
            )
    for name, value in hyper._asdict().items():
        if not isinstance(value, Tracer) and (value is not None or name in ("learning_rate", "l2")):
            check_range(name, value, spec.optimizer)


def require_hyper(hyper: Any) -> None:
    """TypeError unless the hyperparameters are a NamedTuple with learning_rate and l2."""
    fits = {"learning_rate", "l2"} <= {*getattr(hyper, "_fields", ())}
    expected = "Hyper(learning_rate=0.1), or a NamedTuple with learning_rate and l2"
    require_type(fits and not isinstance(hyper, type), "hyper", hyper, expected)


def check_range(name: str, value: ArrayLike | None, *optimizers: OptimizerName | Optimizer) -> None:
    """ValueError for values of a hyperparameter out of the range of its name, and no default."""
    expected, in_range = _RANGES.get(name, ("a finite number", np.isfinite))
    values = np.asarray(value)
    good = np.zeros(values.shape, bool)
    if values.dtype.kind in "iu" or jnp.issubdtype(values.dtype, np.floating):
        values = values.astype(float)
        usual = [v for o in optimizers if (v := defaults(o).get(name)) is not None]
        good = np.isfinite(values) & (in_range(values) | np.isin(values, usual))
    if not np.all(good):
        raise ValueError(f"{name} is {shown(values[~good].tolist()[0])}, expected {expected}")


_POSITIVE = ("a finite number above 0", lambda v: v > 0)
_NOT_NEGATIVE = ("a finite number of at least 0", lambda v: v >= 0)
_DECAY = ("a number from 0 to below 1", lambda v: (v >= 0) & (v < 1))
_RANGES: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    **dict.fromkeys(("learning_rate", "eps", "clip", "delta", "temperature"), _POSITIVE),
    **dict.fromkeys(("l2", "weight_decay", "eps_root", "gamma"), _NOT_NEGATIVE),
    **dict.fromkeys(("dropout", "dropout_rate", "label_smoothing"), _DECAY),
    **dict.fromkeys(("momentum", "b1", "b2", "b3", "decay", "decay_rate", "rho"), _DECAY),
}


# Digests of functions of the user's own.

_ADDRESS = re.compile(r"\bat 0x[0-9a-f]+|\bid=\d+")
_NAMES = ("name", "debug_info", "jaxpr_debug_info", "source_info", "callback")  # of no effect


class _BackwardsError(TypeError):
    """A function with ``jax.custom_vjp`` has no derivative forwards."""


def derivative_digest(function: Callable[..., Any], first: PyTree, *others: PyTree) -> str:
    """``program_digest`` of a function and of the derivative by the first argument.

    The derivative brings custom rules to light: forwards, where the order of independent lines
    changes nothing, or backwards for a function with ``jax.custom_vjp``.
    """

    def forwards(first: PyTree, *others: PyTree) -> Any:
        ones = jax.tree.map(jnp.ones_like, first)
        return jax.jvp(lambda first: function(first, *others), (first,), (ones,))

    def backwards(first: PyTree, *others: PyTree) -> Any:
        result, pull = jax.vjp(lambda first: function(first, *others), first)
        return result, pull(jax.tree.map(jnp.ones_like, result))

    try:
        return program_digest(forwards, first, *others)
    except _BackwardsError:
        return program_digest(backwards, first, *others)


def program_digest(function: Callable[..., Any], *arguments: PyTree) -> str:
    """The digest of a function's program for the shapes and types of some arguments.

    The digest is of the program that JAX traces, not of the source: moved lines, new names of
    variables and unused values change nothing; another operation, constant or derivative rule does.
    Two versions of JAX may trace a function into other operations.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    inputs = [short_digest("input", i, a.shape, a.dtype) for i, a in enumerate(closed.in_avals)]
    return short_digest(*_outputs(closed, inputs))


def _outputs(program: Any, inputs: Iterable[str]) -> list[str]:
    """The digests of the results: each a digest of an operation and of the operands' digests."""
    jaxpr, constants = getattr(program, "jaxpr", program), getattr(program, "consts", ())
    known = dict(zip(jaxpr.constvars, map(_described, constants), strict=False))
    known |= zip(jaxpr.invars, inputs, strict=True)

    def value(atom: Any) -> str:
        return _described(atom.val) if isinstance(atom, core.Literal) else known[atom]

    effects = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "custom_lin":
            raise _BackwardsError
        operands = list(map(value, equation.invars))
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in ("jit", "pjit", "closed_call", "core_call") and inner:
            results = _outputs(inner, operands)
        else:
            operation = short_digest(equation.primitive, _described(equation.params), *operands)
            results = [short_digest(operation, place) for place in range(len(equation.outvars))]
            if equation.effects and equation.primitive.name != "debug_callback":
                effects.append(operation)
        known |= zip(equation.outvars, results, strict=True)
    return [*map(value, jaxpr.outvars), *effects]


def _described(value: Any) -> str:
    """The digest of a constant, or of a parameter of an operation."""
    if isinstance(value, Mapping):
        parts = {name: _described(value[name]) for name in sorted(value, key=str)}
        return short_digest(*(item for item in parts.items() if item[0] not in _NAMES))
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        variables = getattr(value, "jaxpr", value).invars
        return short_digest(*_outputs(value, [f"input {place}" for place in range(len(variables))]))
    if isinstance(value, tuple | list):
        return short_digest(type(value).__name__, *map(_described, value))
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array | int | float | complex):
        array = np.asarray(value)
        content = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        return short_digest(array.dtype, array.shape, content)
    if callable(value) and not isinstance(value, type):
        return "function"
    return _ADDRESS.sub("", repr(value))


def short_digest(*parts: Any) -> str:
    """16 hexadecimal digits of some parts."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
