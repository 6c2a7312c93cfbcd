"""Optimizers and learning-rate schedules by name: every optimizer and every schedule of optax.

Optax is imported inside the functions, because the import takes a tenth of a second.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from inspect import Parameter, isfunction, signature
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import jax

from jaxnn.types import (
    Array,
    ArrayLike,
    Layer,
    OptimizerName,
    PyTree,
    ScheduleName,
    did_you_mean,
    shown,
)

if TYPE_CHECKING:
    from optax import GradientTransformation

Optimizer = Callable[[Any], "GradientTransformation"]
"""From the traced hyperparameters to an ``optax.GradientTransformation``."""

Schedule = Callable[[int], Callable[[Array], ArrayLike]]
"""From the number of steps to an ``optax.Schedule`` of factors on the learning rate."""


def sgd(learning_rate: ArrayLike) -> GradientTransformation:
    """``optax.sgd`` without momentum."""
    import optax

    return optax.sgd(learning_rate)  # pyright: ignore[reportArgumentType]


def momentum(
    learning_rate: ArrayLike, momentum: ArrayLike = 0.9, *, nesterov: bool = False
) -> GradientTransformation:
    """``optax.sgd`` with momentum.

    The barrier completes the momentum before the parameters are computed. Without the barrier XLA
    computes both from the old values, and copies both in every step: a tenth of its time and more.
    """
    import optax

    trace = optax.trace(momentum, nesterov)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        return jax.lax.optimization_barrier(trace.update(updates, state, params))

    return optax.chain(
        optax.GradientTransformation(trace.init, update),
        optax.scale_by_learning_rate(learning_rate),  # pyright: ignore[reportArgumentType]
    )


_OURS = {"sgd": sgd, "momentum": momentum, "nesterov": partial(momentum, nesterov=True)}

OPTIMIZERS = (*_OURS, "adam")
"""The best-known names; every optimizer of optax is known by name."""


def check_optimizer(optimizer: str | Optimizer) -> None:
    """ValueError unless the optimizer is a function of hyperparameters or has a known name."""
    if callable(optimizer):
        if _first_parameter(optimizer) == "learning_rate":  # as of all optimizers of optax
            name = getattr(optimizer, "func", optimizer).__name__
            known = f"the name {name!r}, or " if name in get_args(OptimizerName) else ""
            expected = f"{known}lambda h: {name}(h.learning_rate)"
            raise ValueError(f"optimizer is {name}, of a learning rate, expected {expected}")
    elif not isinstance(optimizer, str):
        _refuse(optimizer)
    elif optimizer not in OPTIMIZERS:
        named(optimizer)


def _first_parameter(function: Any) -> str:
    """The name of a function's first parameter, where known."""
    try:
        return next(iter(signature(function).parameters), "")
    except (TypeError, ValueError):
        return ""


def reads(optimizer: str | Optimizer) -> tuple[str, ...] | None:
    """The traced hyperparameters that an optimizer reads; None, for unknown, of a callable."""
    return None if callable(optimizer) else ("learning_rate", *defaults(optimizer))


@lru_cache
def defaults(optimizer: str | Optimizer) -> Mapping[str, float | None]:
    """The traced hyperparameters of an optimizer besides the learning rate, and their defaults.

    Traced hyperparameters are the scalar parameters of optax's function that JAX can trace; every
    parameter besides stays at optax's default. For a callable: momentum and the parameters of Adam.
    """
    if callable(optimizer):
        return {"momentum": 0.9, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    make = named(optimizer)
    _, *parameters = signature(make).parameters.values()
    return {p.name: p.default for p in parameters if _is_scalar(p) and _works(make, p.name)}


def hyper_class(optimizer: OptimizerName) -> Any:
    """The NamedTuple of all traced hyperparameters of a named optimizer, such as "rmsprop".

    Returns:
      A class with the fields ``learning_rate``, ``l2`` and ``clip`` (as of ``jaxnn.Hyper``) and
      every scalar parameter of the optimizer, with optax's defaults.

    Raises:
      ValueError: an unknown name.

    Example:
      >>> from jaxnn.optimizers import hyper_class
      >>> hyper_class("adagrad")(learning_rate=0.1, eps=1e-6)
      AdagradHyper(learning_rate=0.1, l2=0.0, clip=None, initial_accumulator_value=0.1, eps=1e-06)
    """
    if not isinstance(optimizer, str):
        _refuse(optimizer)
    return _hyper_class(optimizer)


@lru_cache
def _hyper_class(optimizer: str) -> Any:
    """The class, made once: its type is a part of a traced program's key."""
    values = {"l2": 0.0, "clip": None, **defaults(optimizer)}
    name = f"{optimizer.title().replace('_', '')}Hyper"
    return namedtuple(name, ("learning_rate", *values), defaults=tuple(values.values()))


@lru_cache
def named(name: str) -> Callable[..., Any]:
    """The function that makes an optimizer; every parameter but the learning rate is optional."""
    import optax

    make = _OURS.get(name) or getattr(optax, str(name), None)
    if str(name).startswith(("_", "scale_by_")) or not callable(make) or not _works(make):
        _refuse(name)
    return make


def _refuse(optimizer: Any) -> NoReturn:
    """The exception for what makes no optimizer."""
    import optax

    if isinstance(optimizer, optax.GradientTransformation):
        example = "a function of the hyperparameters: lambda h: optax.adam(h.learning_rate)"
        raise TypeError(f"optimizer is a GradientTransformation, expected {example}")
    hint = did_you_mean(optimizer, (*OPTIMIZERS, *dir(optax)))
    raise ValueError(
        f"optimizer is {shown(optimizer)}, expected one of {sorted(OPTIMIZERS)}, another optimizer "
        f"of optax such as 'adamw' or 'rmsprop', or a callable{hint}"
    )


def _is_scalar(parameter: Parameter) -> bool:
    default = parameter.default
    if default is None:
        return float in get_args(parameter.annotation) and parameter.name != "key"
    return isinstance(default, int | float) and not isinstance(default, bool)


def _works(make: Callable[..., Any], *names: str) -> bool:
    """Whether a function of a learning rate makes an optimizer when the parameters are traced."""

    def step(values: dict[str, float], params: PyTree) -> PyTree:
        optimizer = make(**values)
        return optimizer.update(params, optimizer.init(params), params)

    params = Layer(jax.numpy.ones((2, 2)), jax.numpy.ones(2))
    try:
        jax.eval_shape(step, dict.fromkeys(("learning_rate", *names), 0.5), params)
    except Exception:  # optax raises many kinds of errors
        return False
    return _first_parameter(make) == "learning_rate"


@dataclass(frozen=True)
class OptaxSchedule:
    """A schedule of optax with arguments; hashable for ``Spec``."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        given = (f"{name}={value!r}" for name, value in sorted(self.arguments.items()))
        return f"optax.{self.name}({', '.join(given)})"

    def __call__(self, steps: int) -> Callable[[Array], ArrayLike]:
        """The ``optax.Schedule`` for a number of steps."""
        import optax

        make = getattr(optax, self.name)
        parameters = signature(make).parameters
        required = [name for name, p in parameters.items() if p.default is Parameter.empty]
        known = {
            **dict.fromkeys(("decay_steps", "transition_steps"), steps),
            **dict.fromkeys(("value", "peak_value", "power"), 1.0),
            "init_value": 0.0 if self.name.startswith("warmup") else 1.0,
            "warmup_steps": steps // 10,
            "end_value": 0.0,
            "decay_rate": 0.1,
        }
        given = {n: known[n] for n in required if n in known} | dict(self.arguments)
        wrong = [f"no {name}" for name in required if name not in given]
        wrong += [name for name in given if name not in parameters]
        if wrong:
            expected = f"expected arguments of ({', '.join(parameters)})"
            raise ValueError(f"schedule {self.name} is given {wrong[0]}, {expected}")
        try:
            return make(**given)
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"schedule {self.name} is given {shown(given)}, expected what optax takes: {error}"
            ) from error


SCHEDULES: dict[str, Schedule] = {
    "constant": lambda steps: lambda iteration: 1.0,
    "cosine": OptaxSchedule("cosine_decay_schedule"),  # from 1 to 0
    "step": lambda steps: schedule(  # a tenth at one half, and again at three quarters
        "piecewise_constant", boundaries_and_scales={steps // 2: 0.1, 3 * steps // 4: 0.1}
    )(steps),
}
"""The schedules of our names; ``schedule`` makes those of optax."""


def schedule(name: ScheduleName | Schedule, **arguments: Any) -> Schedule:
    """A schedule by name: ours, or any of optax, with or without "_decay" and "_schedule".

    Values are factors on the learning rate. Defaults of the arguments that optax requires:
    peak_value and value 1; init_value 1, of a warm-up 0; end_value 0; decay_steps and
    transition_steps the number of steps; warmup_steps a tenth of the number of steps; decay_rate
    0.1; power 1.

    Args:
      name: such as "cosine", "warmup_cosine", "linear" or "exponential_decay"; a callable is
        returned as given.
      **arguments: of optax's function, such as ``warmup_steps=100``.

    Returns:
      What ``Spec.schedule`` takes. Equal names and arguments make equal, hashable schedules.

    Raises:
      ValueError: an unknown name, or arguments that optax's function does not take.

    Example:
      >>> from jaxnn.optimizers import schedule
      >>> factor = schedule("warmup_cosine", warmup_steps=20)(100)
      >>> [round(float(factor(iteration)), 2) for iteration in (0, 10, 20, 60, 100)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if callable(name) or (isinstance(name, str) and name in SCHEDULES and not arguments):
        return name if callable(name) else SCHEDULES[name]
    import optax

    for suffix in ("", "_schedule", "_decay", "_decay_schedule"):
        if isfunction(getattr(optax.schedules, f"{name}{suffix}", None)):
            found = OptaxSchedule(f"{name}{suffix}", arguments)
            if callable(found(100)):
                return found
    known = (n.removesuffix("_schedule").removesuffix("_decay") for n in dir(optax.schedules))
    hint = did_you_mean(name, (*SCHEDULES, *known))
    raise ValueError(
        f"schedule is {shown(name)}, expected one of {sorted(SCHEDULES)}, a schedule of optax such "
        f"as 'warmup_cosine' or 'linear', or a callable{hint}"
    )
