"""The types every file shares, and the shape letters of their comments.

Shape letters: N examples of a data set, B examples of a minibatch, ``in`` and ``out`` units of a
layer, C classes, K configurations (the population axis), S seeds (the replicate axis), E evaluated
iterations.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

Array = jax.Array
Batch = tuple[Array, Array] | tuple[Array, Array, Array]
"""Inputs [B, in] in floating point, targets [B] or [B, C], and perhaps weights [B]."""
Key = jax.Array
"""From ``jax.random.key``."""
PyTree = Any
"""Nested tuples, dicts, ... of arrays, such as a network's parameters."""


DISTRIBUTION = "jaxnn-basics"
"""The name on the package index; ``import jaxnn`` stays the import."""


class Layer(NamedTuple):
    """An affine map z = Wx + b."""

    weight: Array  # [out, in]
    bias: Array  # [out]


Params = tuple[Layer, ...]

Activation = Callable[[Array], Array]
"""An elementwise function of the pre-activations."""

Loss = Callable[[Array, Array], Array]
"""The loss of one example: (logits [C], target) -> scalar."""

# The choices by name, for type checkers; the values are checked against the tables of names too.
ActivationName = Literal["relu", "sigmoid", "tanh"]
InitializerName = Literal["glorot", "he"]
LossName = Literal[
    "cross_entropy", "focal", "gaussian_nll", "huber", "logistic", "mae", "mse", "squared_error"
]
MeasureName = Literal["error", "loss"]
RuleName = Literal["mean", "one_standard_error"]
MethodName = Literal["grid", "hyperband"]
"""The methods of a search that need no argument."""
OptimizerName = Literal[
    "sgd", "momentum", "nesterov", "adam", "adabelief", "adadelta", "adafactor", "adagrad",
    "adamax", "adamaxw", "adamw", "adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam",
    "nadamw", "noisy_sgd", "novograd", "optimistic_adam", "optimistic_adam_v2",
    "optimistic_gradient_descent", "radam", "rmsprop", "rprop", "sign_sgd", "signum", "sm3", "yogi"
]  # fmt: skip
"""Every optimizer of ``jaxnn.optimizers.named``; give the function of a newer one of optax."""
ScheduleName = Literal[
    "constant", "cosine", "step", "constant_schedule", "cosine_decay", "cosine_decay_schedule",
    "cosine_onecycle", "cosine_onecycle_schedule", "exponential", "exponential_decay", "linear",
    "linear_onecycle", "linear_onecycle_schedule", "linear_schedule", "piecewise_constant",
    "piecewise_constant_schedule", "piecewise_interpolate", "piecewise_interpolate_schedule",
    "polynomial", "polynomial_schedule", "sgdr", "sgdr_schedule", "warmup_constant",
    "warmup_constant_schedule", "warmup_cosine", "warmup_cosine_decay",
    "warmup_cosine_decay_schedule", "warmup_exponential", "warmup_exponential_decay",
    "warmup_exponential_decay_schedule"
]  # fmt: skip


class Model(Protocol):
    """A network as two pure functions; such as ``jaxnn.MLP`` or ``Network``."""

    def init(self, key: Key, /) -> PyTree:
        """The parameters, drawn."""
        ...

    def apply(self, params: PyTree, x: Array, /) -> Array:
        """The logits [C] of one example [in]."""
        ...


@dataclass(frozen=True)
class Network:
    """A network as the pair of functions for training.

    Attributes:
      init: from a key to the parameters, or to ``Variables`` of parameters and statistics.
      apply: from parameters and an example [in] to the logits [C]. ``apply`` is given the keyword
        arguments that the signature names: ``key``, a random key for dropout and augmentation,
        in training alone; ``training``, a bool; and every hyperparameter of an equal name.
      batched: whether ``apply`` takes a minibatch [B, in] and returns logits [B, C], as a network
        with batch normalisation does. With ``Variables``, ``apply`` returns (logits, statistics)
        where ``training`` is True.
    """

    init: Callable[..., PyTree]
    apply: Callable[..., Any]
    batched: bool = False


class Variables(NamedTuple):
    """The arrays of a network with state, such as running means of batch normalisation."""

    params: PyTree  # trained by gradient descent
    statistics: PyTree  # replaced by the statistics that apply returns in training


@jax.tree_util.register_static
class Names(tuple):
    """The names of classes 0..C-1; a part of a tree's structure in JAX, no leaf."""

    __slots__ = ()


class Data(NamedTuple):
    """Labelled examples as stored: pixels stay uint8 until a training step takes the pixels.

    The network sees inputs * scale + shift. Lists and data frames are as good as arrays;
    ``checked_data`` makes arrays of them.
    """

    inputs: Any  # [N, in] uint8 or float; [N, ...] for a network of images, flattened for an MLP
    targets: Any  # [N] class indices, [N, C] probability vectors, or real numbers (regression)
    scale: ArrayLike = 1.0  # 1/255 for 8-bit pixels; a number, or [in]
    shift: ArrayLike | None = None  # a number, or [in]; None adds nothing
    weights: Any = None  # of the examples [N], by class {class: weight}, or "balanced"
    names: Names = Names()  # of the classes

    def __repr__(self) -> str:
        given = [("inputs", self.inputs), ("targets", self.targets), ("weights", self.weights)]
        parts = [f"{name} {_sized(value)}" for name, value in given if value is not None]
        return f"Data({', '.join(parts)}{f', {len(self.names)} names' if self.names else ''})"

    def rows(self, index: Any) -> "Data":
        """Some of the examples, by a slice or by indices [n], in NumPy arrays."""
        columns = {
            name: np.asarray(values)[index]
            for name in ("inputs", "targets", "weights")
            if (values := getattr(self, name)) is not None
        }
        return self._replace(**columns)


def standard(data: Data, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift [in] with which some rows have mean 0 and standard deviation 1.

    As in scikit-learn, an input that is constant in the rows is shifted alone.
    """
    blocks = [rows[first : first + 1000] for first in range(0, len(rows), 1000)]
    inputs = np.asarray(data.inputs)

    def mean(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        parts = (function(inputs[block].astype(float)).sum(axis=0) for block in blocks)
        return np.sum([*parts], axis=0) / len(rows)

    scale, shift = (np.asarray(0.0 if x is None else x, float) for x in (data.scale, data.shift))
    centre = mean(lambda x: x)
    deviation = np.sqrt(mean(lambda x: (x - centre) ** 2)) * np.abs(scale)
    first = inputs[rows[0]]
    constant = np.all([(inputs[block] == first).all(axis=0) for block in blocks], axis=0)
    deviation = np.where(constant | (deviation == 0), 1.0, deviation)
    found = scale / deviation, (shift - (centre * scale + shift)) / deviation
    return np.broadcast_to(found[0], centre.shape), found[1]


class Splits(NamedTuple):
    """A data set: the examples to train on and the examples that judge the result."""

    train: Data
    test: Data


class Hyper(NamedTuple):
    """The traced hyperparameters: scalars, or arrays [K] for a population.

    One program serves every value. An optimizer reads the fields that the optimizer knows and
    ignores the rest; None stands for the optimizer's default. Any NamedTuple with
    ``learning_rate`` and ``l2`` can take the place of ``Hyper``;
    ``jaxnn.optimizers.hyper_class`` makes the NamedTuple of a named optimizer.

    Example:
      >>> from jaxnn import Hyper
      >>> Hyper(learning_rate=0.1, momentum=0.9)._replace(l2=1e-4).l2
      0.0001
    """

    learning_rate: ArrayLike
    l2: ArrayLike = 0.0  # strength of l2/2 * sum of squared weights
    momentum: ArrayLike | None = None  # momentum, nesterov: 0.9
    b1: ArrayLike | None = None  # adam: 0.9
    b2: ArrayLike | None = None  # adam: 0.999
    eps: ArrayLike | None = None  # adam: 1e-8
    clip: ArrayLike | None = None  # the largest norm of the gradient; None: no clipping
    weight_decay: ArrayLike | None = None  # adamw: 1e-4


def whole(value: Any) -> int | None:
    """The value as an int; None unless the value is an integer scalar, and no bool."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | None:
    """The value as a float; None unless the value is a real scalar, and no bool."""
    if isinstance(value, bool | np.bool_ | str | bytes | Tracer):
        return None
    try:
        return None if np.ndim(value) else float(value)
    except (TypeError, ValueError):
        return None


def require_number(
    name: str, value: Any, expected: str, holds: Callable[[float], bool] = math.isfinite
) -> float:
    """The value as a float; ValueError unless a condition holds for the value, a real number."""
    number = real(value)
    if number is None or not holds(number):
        raise ValueError(f"{name} is {shown(value)}, expected {expected}")
    return number


def require_count(name: str, value: Any, least: int = 1) -> int:
    """The value as an int; ValueError unless the value is a whole number from ``least``."""
    count = whole(value)
    if count is None or count < least:
        expected = "a positive integer" if least == 1 else f"an integer of at least {least}"
        raise ValueError(f"{name} is {shown(value)}, expected {expected}")
    return count


def require_type(fits: object, name: str, value: Any, expected: str) -> None:
    """TypeError with a value and the expectation unless the value is of a fitting type."""
    if not fits:
        raise TypeError(f"{name} is {shown(value)}, expected {expected}")


def require(extra: str, *packages: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
      extra: the extra of ``pyproject.toml`` that installs the packages, such as "search".
      *packages: import names.

    Raises:
      ModuleNotFoundError: a package is missing; the message has the pip command.
    """
    missing = [package for package in packages if not is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ModuleNotFoundError(
            f"{', '.join(missing)} {verb} not installed, expected the extra {extra!r}: "
            f"pip install '{DISTRIBUTION}[{extra}]'",
            name=missing[0],
        )


def is_installed(package: str) -> bool:
    """Whether the import would find the package; a blocked import (None in sys.modules) counts."""
    try:
        return find_spec(package) is not None
    except (ValueError, ModuleNotFoundError):
        return False


def require_scalar(name: str, function: Callable[..., Any], *arguments: Any) -> None:
    """TypeError or ValueError unless a function of JAX's arrays returns a real number.

    Nothing is computed: the arguments are arrays, or shapes and types.
    """
    outputs: list[Any] = []
    try:
        jax.eval_shape(lambda *given: outputs.append(function(*given)), *arguments)
    except jax.errors.JAXTypeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} is no function of jax.numpy, as expected: {reason}") from error
    found = as_array(name, outputs[0])
    if found.shape or jnp.iscomplexobj(found):
        wrong = f"the shape {found.shape}" if found.shape else f"the dtype {found.dtype}"
        raise ValueError(f"{name} has {wrong}, expected a scalar, such as by jnp.sum")


def shown(value: Any) -> str:
    """A value in messages: a line of at most 100 characters; arrays and data frames by shape."""
    if not isinstance(value, type) and getattr(value, "ndim", 0) and hasattr(value, "shape"):
        arrays = isinstance(value, np.ndarray | jax.Array)
        return f"{'an array' if arrays else type(value).__name__} of shape {(*value.shape,)}"
    if isinstance(value, Data):
        return "Data(...)"
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:97]}..."


def _sized(values: Any) -> str:
    """The type and the shape of an array, such as ``uint8 [60000, 784]``; else a short text."""
    if not hasattr(values, "shape"):
        return f"a list of {len(values)}" if isinstance(values, list | tuple) else shown(values)
    return f"{getattr(values, 'dtype', type(values).__name__)} {[*values.shape]}"


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """A hint at the known name that is most like a misspelt name; empty without such a name."""
    from difflib import get_close_matches  # for messages alone

    close = get_close_matches(name.lower(), [*known], 1) if isinstance(name, str) else ()
    return f"; did you mean {close[0]!r}?" if close and close[0] != name else ""


def as_array(name: str, value: Any) -> Any:
    """A value as an array, if need be; TypeError unless the value holds numbers."""
    if isinstance(value, jax.Array):
        return value
    if type(value) in (int, float):
        return jnp.asarray(value)  # of a weak type
    try:
        array = np.asarray(value)
        if array.dtype == object:
            array = np.array(array.tolist())
        if array.dtype == bool or jnp.issubdtype(array.dtype, np.number):
            return value if value is array else jnp.asarray(array)
    except Exception:  # of the conversion of an object of any class
        pass
    raise TypeError(f"{name} is {shown(value)}, expected numbers")


def as_key(key: Any) -> Key:
    """The random key; a whole number n stands for ``jax.random.key(n)``.

    Raises:
      TypeError: neither a key nor a whole number.
    """
    expected = "expected jax.random.key(0) or a whole number"
    if (seed := whole(key)) is not None:
        if not -(2**31) <= seed < 2**32:  # JAX would take the last 32 bits
            raise TypeError(f"key is {seed}, {expected} of 32 bits")
        return jax.random.key(seed)
    if isinstance(key, np.ndarray):
        key = jnp.asarray(key)
    if not isinstance(key, jax.Array):
        raise TypeError(f"key is {shown(key)}, {expected}")
    legacy = key.dtype == jnp.uint32
    if not (legacy or jnp.issubdtype(key.dtype, jax.dtypes.prng_key)) or key.ndim != legacy:
        raise TypeError(f"key has the shape {key.shape} and dtype {key.dtype}, {expected}")
    return key


_FAR = 12
"""Inputs so many times the training inputs, the largest and the mean, have another unit."""

NAMES_HINT = ": map them with np.searchsorted(np.unique(train_labels), labels)"


def checked_data(sets: Sequence[tuple[str, Any]]) -> list[Data]:
    """Data sets that belong together, as arrays fit for training; all values are read once.

    Lists and data frames become arrays, booleans 0 and 1, targets [N, 1] and [1, N] become [N].
    Traced values pass.

    Args:
      sets: names for messages, such as "train", and the ``Data``; the training examples first.

    Raises:
      TypeError: no ``Data``.
      ValueError: shapes that do not fit, values that are no finite numbers, or inputs in a range
        far from the range of the first inputs.
    """
    found: dict[int, tuple[Data, float, float]] = {}
    ranged = len({id(data) for _, data in sets}) > 1
    for name, data in sets:
        if not isinstance(data, Data):
            raise TypeError(
                f"the {name} data are a {type(data).__name__}, expected jaxnn.Data(inputs, targets)"
            )
        if id(data) not in found:
            found[id(data)] = _checked(name, data, ranged)
    (first_name, first), *others = ((name, found[id(data)]) for name, data in sets)
    shape = first[0].inputs.shape[1:]
    for name, each in others:
        if each[0].inputs.shape[1:] != shape:
            here, there = (_extent(s) for s in (each[0].inputs.shape[1:], shape))
            raise ValueError(
                f"the {name} inputs have {here} values each, expected {there} as the {first_name} "
                "inputs"
            )
        _same_range(first_name, first, name, each)
    return [found[id(data)][0] for _, data in sets]


def _checked(name: str, data: Data, ranged: bool) -> tuple[Data, float, float]:
    """The examples, and the range of the inputs, if wanted."""
    inputs, low, high = numbers(f"the {name} inputs", data.inputs, ranged=ranged)
    targets, _, _ = numbers(f"the {name} targets", data.targets, NAMES_HINT)
    n = len(inputs) if inputs.ndim else 0
    if targets.ndim == 2 and targets.shape in ((n, 1), (1, n)) and (n > 1 or targets.size == 1):
        targets = targets.reshape(n)
    if inputs.ndim < 2 or targets.shape[:1] != (n,) or not n:
        rows = ": inputs[:, None] for one value in each" if inputs.ndim == 1 and n else ""
        raise ValueError(
            f"the {name} data have inputs {inputs.shape} and targets {targets.shape}, expected "
            f"inputs [N, in] and N targets, N at least 1{rows}"
        )
    for kind, value in (("scale", data.scale), ("shift", data.shift)):
        known = None if value is None else on_host(value)
        if known is not None and (
            known.dtype.kind not in "iuf"
            or known.shape not in ((), inputs.shape[1:])
            or not np.isfinite(known).all()
        ):
            raise ValueError(
                f"the {name} data have the {kind} {shown(value)}, expected a finite number, or one "
                f"for each of the {_extent(inputs.shape[1:])} inputs"
            )
    weights = _weights(name, data.weights, targets)
    names = _names(name, data.names)
    checked = Data(inputs, targets, data.scale, data.shift, weights, names)
    unchanged = all(new is old for new, old in zip(checked, data, strict=True))
    return data if unchanged else checked, low, high


def _names(name: str, names: Any) -> Names:
    """The names of classes; ValueError unless they are different texts."""
    several = isinstance(names, Iterable) and not isinstance(names, str | Mapping)
    found = Names(map(str, names)) if several else Names()
    if not several or len({*found}) < len(found):
        raise ValueError(f"the {name} names are {shown(names)}, expected a name of each class")
    return names if isinstance(names, Names) else found


def _extent(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _weights(name: str, weights: Any, targets: Any) -> Any:
    """Weights [N] of mean 1; of one class ``balanced``: N / (C * examples of the class).

    Raises:
      ValueError: weights that do not fit the examples, that are negative, or all 0.
    """
    if weights is None or (isinstance(weights, jax.Array) and on_host(weights) is None):
        return weights
    labels = on_host(targets)
    if isinstance(weights, str | Mapping):
        expected = "expected weights [N], {class: weight} or 'balanced'"
        if weights != "balanced" and isinstance(weights, str):
            raise ValueError(f"the {name} weights are {weights!r}, {expected}")
        if labels is None or labels.ndim != 1 or np.any(labels != np.floor(labels)):
            raise ValueError(
                f"the {name} weights are by class and the targets are not class indices, {expected}"
            )
        classes, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
        by_class = 1 / counts
        if not isinstance(weights, str):
            if missing := [c for c in classes.tolist() if c not in weights]:
                raise ValueError(f"the {name} weights lack the class {missing[0]:g}, {expected}")
            least = f"the {name} weight of class", "a number of at least 0"
            by_class = np.array(
                [
                    require_number(f"{least[0]} {c:g}", weights[c], least[1], lambda w: w >= 0)
                    for c in classes.tolist()
                ]
            )
        weights = by_class[places]
    values, low, _ = numbers(f"the {name} weights", weights)
    host = np.asarray(values, float)
    if host.shape != (len(targets),) or low < 0 or not host.sum():
        found = f"the shape {host.shape}" if host.shape != (len(targets),) else f"the least {low:g}"
        raise ValueError(
            f"the {name} weights have {found}, expected {len(targets)} numbers of at least 0, and "
            "one above 0"
        )
    if abs(host.mean() - 1) <= 1e-6:
        return values
    return (host / host.mean()).astype(jax.dtypes.canonicalize_dtype(float))


def numbers(
    name: str, values: Any, hint: str = "", *, ranged: bool = True
) -> tuple[Any, float, float]:
    """Values as an array of finite numbers, the least and the greatest; nan where not known.

    Args:
      name: for messages.
      values: anything that NumPy or JAX takes for an array.
      hint: what to do about texts, for messages.
      ranged: whether the least and the greatest of 8-bit integers are wanted too, for a pass over
        the values.

    Raises:
      ValueError: rows of unequal lengths, masked values, values that are no numbers, or not finite
        numbers of the type that JAX computes with.
    """
    if isinstance(values, jax.Array):
        array = values
    else:
        if np.ma.is_masked(values):
            raise ValueError(f"{name} are masked, expected a number in every place")
        try:
            array = np.asarray(values)
            if array.dtype == object:
                array = np.array(array.tolist())
        except ValueError:
            raise ValueError(f"{name} are rows of unequal lengths, expected an array") from None
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype == bool:
            array = array.view(np.uint8)
    if array.dtype.kind in "OUST" and array.size:
        raise ValueError(f"{name} hold {array.ravel()[0]!s:.40}, expected numbers{hint}")
    if not (jnp.issubdtype(array.dtype, np.floating) or array.dtype.kind in "iub"):
        raise ValueError(f"{name} have the dtype {array.dtype}, expected integers or floats")
    host = on_host(array)
    if host is None or not host.size or (not ranged and host.dtype.itemsize == 1):
        return array, np.nan, np.nan
    low, high = host.min(), host.max()
    computed = jax.dtypes.canonicalize_dtype(host.dtype)
    if host.dtype.kind in "iu" and computed != host.dtype:
        limits = np.iinfo(computed)
        for value in (low, high):
            if not limits.min <= value <= limits.max:
                raise ValueError(
                    f"{name} hold {value}, expected {limits.min}..{limits.max}, or floats"
                )
    elif host.dtype.kind not in "iub":
        # The extremes carry any NaN or infinity, without a temporary array of the data's size.
        with np.errstate(over="ignore"):
            if not np.isfinite(np.stack([low, high]).astype(computed)).all():
                places = np.argwhere(~np.isfinite(host.astype(computed))).tolist()
                first, count = places[0], len(places)
                raise ValueError(
                    f"{name} hold {count} {'value' if count == 1 else 'values'} that JAX cannot "
                    f"compute with, the first is {host[tuple(first)]} at {first}, expected finite "
                    f"{computed}"
                )
    return array, float(low), float(high)


def _same_range(
    first_name: str,
    first: tuple[Data, float, float],
    name: str,
    other: tuple[Data, float, float],
) -> None:
    """ValueError for inputs far from the range of the first: both the extremes and the means.

    The extremes are known; the means of roots, read in doubt only, tell another unit from a single
    extreme value.
    """

    def means() -> list[float]:
        roots = (np.sqrt(np.abs(data.inputs), dtype=np.float32) for _, data in scaled)
        return [f * float(root.mean()) ** 2 for (f, _), root in zip(scaled, roots, strict=True)]

    parts = first, other
    scaled = [(_factor(data), data) for data, _, _ in parts]
    largest = [
        factor * max(-low, high) for (factor, _), (_, low, high) in zip(scaled, parts, strict=True)
    ]
    if _are_far(largest) and _are_far(means()):
        here, there = (
            f"{low:g}..{high:g} times {factor:.4g}"
            for (factor, _), (_, low, high) in zip(scaled, parts, strict=True)
        )
        raise ValueError(
            f"the {name} inputs lie in {there} and the {first_name} inputs in {here} (the scale of "
            "the data), expected one range: divide the inputs by the same number, or give the same "
            "scale"
        )


def _are_far(sizes: list[float]) -> bool:
    return 0 < _FAR * min(sizes) <= max(sizes)


def _factor(data: Data) -> float:
    """The scale of the inputs, the largest of several; nan for a traced scale."""
    scale = on_host(data.scale)
    return np.nan if scale is None else float(np.max(np.abs(scale)))


def on_host(array: Any) -> np.ndarray | None:
    """The values; None for traced values and for an array that other processes hold a part of."""
    if isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)
