"""What the user's own functions raised, and where."""

import traceback
from pathlib import Path

from jaxnn.verify.graph import is_library


class Unsupported(NotImplementedError):  # noqa: N818
    """The high-precision reference has no rule for a primitive; the text names it."""


class FormulaError(Exception):
    """The formula cannot be evaluated; the cause is what was raised."""


class FunctionError(Exception):
    """``of`` cannot be evaluated or differentiated; the cause is what was raised."""


def located(error: BaseException) -> str:
    """An exception in one line, with the innermost line of the user's code."""
    text = " ".join(str(error).split()) or "no message"
    place = line_of(error)
    return f"{type(error).__name__}: {text}" + (f" ({place})" if place else "")


def line_of(error: BaseException) -> str:
    """The innermost line of the user's code that raised it, such as ``claims.py, line 12``."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not is_library(frame.filename)]
    return f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
