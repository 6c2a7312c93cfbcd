"""The flags of an experiment: one frozen dataclass, read from the command line and checked once."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import App, Parameter, Token

from jaxnn.data import NAMES


def _whole_number(_: object, tokens: Sequence[Token]) -> int:
    """Refuses 2.5 where cyclopts would round it."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r}, expected a whole number") from None


Whole = Annotated[int, Parameter(converter=_whole_number)]
"""The type of a flag that counts something."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """The flags every experiment knows. A subclass adds its own and extends ``validate``."""

    dataset: str = "digits"
    """digits (8x8, comes with scikit-learn), mnist or fashion_mnist (downloaded once), or the
    path of your own data."""

    data_dir: Path | None = None
    """Folder of the data sets; default: the environment variable JAXNN_DATA, else the user's cache
    folder."""

    seeds: Whole = 5
    """Number of random seeds; every figure is reported with its spread over them."""

    out: Path | None = None
    """Folder for results.json, history.csv and the figures; default: runs/NAME."""

    def __post_init__(self):
        self.validate()

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        self.at_least(1, "seeds")
        if self.dataset not in NAMES and not (self.dataset and Path(self.dataset).exists()):
            raise self.refusal("dataset", f"{', '.join(NAMES)} or the path of your own data")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise self.refusal("data_dir", "an existing folder")

    def at_least(self, least: int, *fields: str) -> None:
        """Each field is None or a whole number no smaller than ``least``."""
        for field in fields:
            value = getattr(self, field)
            if value is not None and value < least:
                raise self.refusal(field, f"at least {least}")

    def positive(self, *fields: str) -> None:
        """Each field is None or a finite number above 0."""
        for field in fields:
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise self.refusal(field, "a positive number")

    def not_negative(self, *fields: str) -> None:
        """Each field is None or a finite number, 0 or above."""
        for field in fields:
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise self.refusal(field, "0 or a positive number")

    def one_of(self, choices: Sequence[str], *fields: str) -> None:
        """Each field is one of the choices."""
        for field in fields:
            if getattr(self, field) not in choices:
                raise self.refusal(field, "one of " + ", ".join(choices))

    def refusal(self, field: str, expected: str) -> ValueError:
        """The error that names a flag, its value and what was expected."""
        flag = "--" + field.replace("_", "-")
        value = getattr(self, field)
        return ValueError(
            f"{flag} is {value if isinstance(value, Path) else repr(value)}, expected {expected}"
        )


@dataclass(frozen=True, kw_only=True)
class DistributedConfig(Config):
    """The flags of an experiment that several processes can share."""

    distributed: bool = False
    """Use the devices of all processes of the job; SLURM, Open MPI, Kubernetes and TPUs are
    recognised. The first process prints and writes."""


C = TypeVar("C", bound=Config)


def parse(name: str, config_type: type[C], argv: Sequence[str] | None = None) -> C | None:
    """The config of a command line, or None if it only asked for help, which has been printed.

    Args:
      name: the experiment's, for the usage line.
      config_type: its docstring is the help text, its fields are the flags.
      argv: the arguments; default: the process's own.

    Raises:
      CycloptsError: bad usage; its text is one line.
      ValueError: a value the config refuses.
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
