"""What is searched: the examples, the most that one configuration may cost, and what counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnn.mlp import MLP
from jaxnn.search.domain import SpaceError
from jaxnn.search.validation import Validation, holdout, joined
from jaxnn.spec import Spec, require_count
from jaxnn.types import Data, Hyper, Model

MEASURES = ("error", "loss")

SEARCH_OPTIMIZER = "momentum"
"""The optimizer of a search whose space names none; the default of ``Spec`` is plain SGD."""


@dataclass(frozen=True)
class Task:
    """A data set and what may be spent on it.

    Attributes:
      train: all examples the search may see, validation examples included.
      test: those it may not, or a function that loads them; ``Result.test`` alone gets at them.
      epochs: the most epochs a configuration is trained; each evaluation on the way is a candidate
        for stopping.
      evaluations_per_epoch: how often it is evaluated.
      validation: ``holdout(fraction)``, ``given(data)`` or ``folds(count)``.
      measure: what is minimised on the validation examples: "error" (the share of wrong
        predictions) or "loss" (unregularised; cross-entropy in nats by default).
      model: for networks that are no MLP: from the values of the space that ``Spec`` and ``Hyper``
        do not know to a ``Model``, such as ``lambda width: Network(...)``.
      model_parameters: the names of those values.
    """

    train: Data
    test: Data | Callable[[], Data] | None = None
    epochs: int = 12
    evaluations_per_epoch: int = 1
    validation: Validation = field(default_factory=holdout)
    measure: str = "error"
    model: Callable[..., Model] | None = None
    model_parameters: tuple[str, ...] = ()

    def __post_init__(self):
        require_count("epochs", self.epochs)
        require_count("evaluations_per_epoch", self.evaluations_per_epoch)
        if self.measure not in MEASURES:
            raise ValueError(f"measure is {self.measure!r}, expected one of {list(MEASURES)}")
        if not isinstance(self.validation, Validation):
            raise TypeError(
                f"validation is {self.validation!r}, expected holdout(...), given(...) or "
                "folds(...)"
            )
        if self.model_parameters and self.model is None:
            raise ValueError("model_parameters are given, expected a model that takes them")

    @property
    def evaluations(self) -> int:
        """How often a configuration is evaluated at most."""
        return self.epochs * self.evaluations_per_epoch

    def iteration(self, evaluation: int, batch_size: int, examples: int) -> int:
        """The number of updates before an evaluation (from 1), with so many training examples."""
        return max(1, evaluation * examples // (self.evaluations_per_epoch * batch_size))

    def spec(self, static: Mapping[str, Any], examples: int) -> Spec:
        """The program of the static part of a configuration, for so many training examples.

        Raises:
          SpaceError: a value that the program refuses.
        """
        values = dict(static)
        batch_size = values.pop("batch_size", 100)
        training = {n: values.pop(n) for n in ("loss", "schedule") if n in values}
        optimizer = values.pop("optimizer", SEARCH_OPTIMIZER)
        try:
            _check_batch_size(batch_size, examples)
            steps = self.iteration(self.evaluations, batch_size, examples)
            return Spec(
                model=self._model(values, training.get("loss")),
                steps=steps,
                batch_size=batch_size,
                optimizer=optimizer,
                **training,
            )
        except (TypeError, ValueError) as error:
            raise SpaceError(f"the configuration {dict(static)}: {error}") from None

    def _model(self, values: dict[str, Any], loss: Any) -> Model:
        if self.model is not None:
            return _built(self.model, tuple(values.items()))
        hidden = values.pop("hidden", ())
        if not isinstance(hidden, tuple):
            raise TypeError(f"hidden is {hidden!r}, expected layer sizes such as (50, 50) or ()")
        outputs = self.outputs
        if loss == "logistic":
            if outputs > 2:
                raise ValueError(f"logistic takes the targets 0 and 1, got {outputs} classes")
            outputs = 1
        return MLP((self.inputs, *hidden, outputs), **values)

    def read_test(self) -> Data:
        """The test examples, loaded now if they come as a function."""
        assert self.test is not None
        return self.test if isinstance(self.test, Data) else self.test()

    def all_examples(self) -> Data:
        """Training and validation examples together."""
        return joined(self.validation.data, self.train) if self.validation.data else self.train

    @property
    def inputs(self) -> int:
        """The number of inputs of a network for these examples."""
        return self.train.inputs.shape[1]

    @property
    def outputs(self) -> int:
        """The number of its outputs: the classes (with the logistic loss it has one)."""
        given = self.validation.data
        several = [np.asarray(data.targets) for data in (self.train, given) if data is not None]
        return max(t.shape[1] if t.ndim > 1 else int(t.max()) + 1 for t in several)


@lru_cache
def _built(model: Callable[..., Model], values: tuple[tuple[str, Any], ...]) -> Model:
    """A model for these values, always the same one: another would be another program."""
    return model(**dict(values))


def _check_batch_size(batch_size: int, examples: int) -> None:
    if require_count("batch_size", batch_size) > examples:
        raise ValueError(
            f"batch_size is {batch_size}, expected at most the {examples} examples that are "
            "trained on"
        )


def hyper(configs: list[dict[str, Any]]) -> Hyper:
    """The traced values of some configurations, [K] each."""
    defaults, dtype = Hyper(learning_rate=np.nan), jnp.result_type(float)
    return Hyper(
        *(
            np.array([config.get(name, getattr(defaults, name)) for config in configs], dtype)
            for name in Hyper._fields
        )
    )
