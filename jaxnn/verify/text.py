"""Verdicts and evidence in words and short decimals, for a terminal and for a report."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxnn.verify.verdict import Counterexample, Verdict, Worst

WORDS = {
    "holds": "holds",
    "holds_unstable": "holds, unstable",
    "holds_other_layout": "holds in another layout",
    "refuted": "refuted",
    "kink": "holds except at kinks",
    "error": "error",
}
"""Every verdict in words."""

MEANINGS = {
    "holds": "Not refuted in any trial, and accurate in floating point.",
    "holds_unstable": "Right over the real numbers, but at some inputs it overflows, is not a "
    "number, or loses more than half its bits.",
    "holds_other_layout": "Right once transposed or reordered as noted: a matter of convention.",
    "refuted": "Wrong: a counterexample is shown, and what the mistake most likely is.",
    "kink": "Wrong only where the function has no derivative.",
    "error": "Could not be judged, for the reason noted.",
}
"""The meaning of every verdict."""

KIND_WORDS = {
    "gradient": "gradient",
    "jacobian": "Jacobian",
    "hessian": "Hessian",
    "value": "value",
    "update": "update",
}

DERIVATIVES = {
    "gradient": "gradient by",
    "jacobian": "Jacobian by",
    "hessian": "Hessian by",
    "update": "update of",
}

MAX_ENTRIES = 64  # of an array; counterexamples are shrunk, only the sizes can make an array larger


def plural(verdict: str, count: int) -> str:
    """The verdict in words, after a count: ``3 hold``, ``1 error``."""
    words = WORDS[verdict]
    if count == 1:
        return words
    return "errors" if verdict == "error" else words.replace("holds", "hold")


def title(name: str) -> str:
    """A function's name as a heading: ``Softmax jacobian``."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def bits(lost: float) -> str:
    """Bits lost, to a tenth."""
    return number(round(max(lost, 0.0), 1) if np.isfinite(lost) else lost)


def number(value: float, digits: int = 6) -> str:
    """A number, shortened: ``0.5``, ``-2``, ``1e-08``, ``inf``."""
    value = float(value)
    if value == 0 or not np.isfinite(value):
        return str(value).removesuffix(".0").removeprefix("-" if value == 0 else "+")
    if 1e-4 <= abs(value) < 1e7:
        return np.format_float_positional(
            value, precision=digits, unique=True, fractional=False, trim="-"
        )
    return np.format_float_scientific(value, precision=digits - 1, unique=True, trim="-")


def difference(claimed: float, true: float) -> tuple[str, str]:
    """Two unequal numbers with enough digits to differ."""
    for digits in range(6, 18):
        pair = number(claimed, digits), number(true, digits)
        if pair[0] != pair[1]:
            break
    return pair


def array(value: Any) -> str:
    """An array as nested lists of short decimals: ``[[1, 0], [0.5, -2]]``."""
    value = np.asarray(value)
    if value.size > MAX_ENTRIES:
        shape = " x ".join(map(str, value.shape))
        return f"{shape} numbers from {number(value.min())} to {number(value.max())}"
    if value.ndim == 0:
        return number(value.item())
    return "[" + ", ".join(map(array, value)) + "]"


def arrays(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every array of a tree under its path: ``params[0].weight`` and ``[[1, 0]]``."""
    if hasattr(tree, "_asdict"):
        for name, value in tree._asdict().items():
            yield from arrays(value, f"{path}.{name}")
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from arrays(value, f"{path}[{name!r}]" if path else str(name))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from arrays(value, f"{path}[{index}]")
    elif tree is not None:
        yield path, array(tree)


def sizes(counterexample: Counterexample) -> str:
    """The sizes of a counterexample: ``n = 3, C = 2``."""
    return ", ".join(f"{name} = {size}" for name, size in counterexample.sizes.items())


def entry(kind: str, worst: Worst) -> str:
    """The entry of the derivative: ``gradient by z, entry [1]``."""
    by = DERIVATIVES.get(kind)
    what = f"{by} {worst.where}" if by and worst.where else worst.where or "value"
    return what + (f", entry {list(worst.index)}" if worst.index else "")


def findings(verdict: Verdict) -> str:
    """The remarkable in a few words: codes with places, the layout, the error."""
    if verdict.diagnosis:
        named = [f"{f.code} ({f.where})" if f.where else f.code for f in verdict.diagnosis]
        if verdict.verdict == "refuted" or not verdict.detail:
            return ", ".join(named)
    if verdict.verdict == "kink" and verdict.worst and verdict.worst.one_sided:
        left, right = map(number, verdict.worst.one_sided)
        where = entry(verdict.kind, verdict.worst)
        return f"{where}: {left} from the left, {right} from the right"
    return verdict.detail
