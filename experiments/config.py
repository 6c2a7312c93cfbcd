"""The flags of an experiment: a frozen dataclass, read from the command line and checked once."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter, Token

from jaxnn.data import NAMES
from jaxnn.optimizers import check_optimizer, schedule
from jaxnn.types import did_you_mean


def _whole_number(_: object, tokens: Sequence[Token]) -> int:
    """Refuses 2.5; cyclopts would round to 2."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r}, expected a whole number") from None


Whole = Annotated[int, Parameter(converter=_whole_number)]
"""The type of a flag that counts something."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The flag of every experiment. A subclass adds flags and extends ``validate``."""

    out: Path | None = None
    """Folder for results.json, history.csv and the figures; default: runs/NAME."""

    def __post_init__(self):
        self.validate()

    def validate(self) -> None:
        """Raises ValueError with name, value and expectation of the first bad flag."""

    def at_least(self, least: int, *fields: str) -> None:
        """Checks that each field is None or a whole number of at least ``least``."""
        self._check(fields, lambda value: value >= least, f"at least {least}")

    def positive(self, *fields: str) -> None:
        """Checks that each field is None or a finite number above 0."""
        self._check(fields, lambda value: math.isfinite(value) and value > 0, "a positive number")

    def not_negative(self, *fields: str) -> None:
        """Checks that each field is None or a finite number, 0 or above."""
        expected = "0 or a positive number"
        self._check(fields, lambda value: math.isfinite(value) and value >= 0, expected)

    def one_of(self, choices: Sequence[str], *fields: str) -> None:
        """Checks that each field is among the choices."""
        for field in fields:
            hint = did_you_mean(getattr(self, field), choices)
            expected = f"one of {', '.join(choices)}{hint}"
            self._check([field], lambda value: value in choices, expected)

    def _check(self, fields: Sequence[str], is_valid: Callable[[Any], bool], expected: str) -> None:
        for field in fields:
            value = getattr(self, field)
            if value is not None and not is_valid(value):
                raise self.refusal(field, expected)

    def optax_names(self) -> None:
        """Checks that the flags --optimizer and --schedule are names known to jaxnn or optax."""
        for field, check in (("optimizer", check_optimizer), ("schedule", schedule)):
            try:
                check(getattr(self, field))
            except ValueError as error:
                expected = str(error).partition("expected ")[2].replace(", or a callable", "")
                raise self.refusal(field, expected) from None

    def only_with(self, condition: bool, text: str, *fields: str) -> None:
        """Checks that each field is None unless the condition, in words ``text``, is met."""
        for field in fields:
            if getattr(self, field) is not None and not condition:
                raise self.refusal(field, f"only with {text}")

    def refusal(self, field: str, expected: str) -> ValueError:
        """The error with name, value and expectation of a flag."""
        flag = "--" + field.replace("_", "-")
        value = getattr(self, field)
        return ValueError(
            f"{flag} is {value if isinstance(value, Path) else repr(value)}, expected {expected}"
        )


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """The flags of an experiment on a data set."""

    dataset: str = "digits"
    """digits (8x8), iris, wine, breast_cancer, diabetes (all come with scikit-learn), mnist or
    fashion_mnist (downloaded once), california_housing, or the path of your own data: a table, a
    file of arrays, or a folder of files or images."""

    label: str | None = None
    """Column of the labels in your own table, by name or position (from 0; -1 is the last);
    default: a column of a name such as label or class, or the column that looks so."""

    data_dir: Path | None = None
    """Folder of the data sets; default: the environment variable JAXNN_DATA, else the user's cache
    folder."""

    seeds: Whole = 5
    """Number of random seeds; every figure is reported with its spread over them."""

    def validate(self) -> None:
        """See ``Config``."""
        super().validate()
        self.at_least(1, "seeds")
        if self.dataset not in NAMES and not (self.dataset and Path(self.dataset).exists()):
            expected = f"{', '.join(NAMES)} or the path of your own data"
            raise self.refusal("dataset", expected + did_you_mean(self.dataset, NAMES))
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise self.refusal("data_dir", "an existing folder")


@dataclass(frozen=True, kw_only=True)
class DistributedConfig(DataConfig):
    """The flags of an experiment on several processes."""

    distributed: bool = False
    """Use the devices of all processes of the job; SLURM, Open MPI, Kubernetes and TPUs are
    recognised. The first process prints and writes."""


C = TypeVar("C", bound=Config)


def parse(name: str, config_type: type[C], argv: Sequence[str] | None = None) -> C | None:
    """The config of a command line; None after ``--help``, which prints the help text.

    Args:
      name: the name of the experiment, for the usage line.
      config_type: the docstring is the help text, the fields are the flags.
      argv: the arguments; default: the arguments of the process.

    Raises:
      CycloptsError: bad usage, in one line.
      ValueError: a value refused by ``validate``.
    """
    app = App(
        name=f"python -m experiments.{name}",
        help=config_type.__doc__,
        version_flags=[],
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    )

    def configure(config: Config | None = None) -> Config:
        return config or config_type()

    configure.__annotations__["config"] = Annotated[config_type | None, Parameter(name="*")]
    app.default(configure)
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    config = command(*bound.args, **bound.kwargs)
    return config if isinstance(config, config_type) else None
