"""Windows and convolutions as sums over positions."""

from collections.abc import Callable, Sequence

import numpy as np

from jaxnn.verify.exact.arithmetic import Arithmetic, Run, is_number
from jaxnn.verify.exact.movement import folded, positions, updated
from jaxnn.verify.graph import Unsupported, parameter


def _places(eqn, shape: Sequence[int]) -> np.ndarray:
    """The positions in every window, [windows, entries]; -1 outside of the array."""
    p = eqn.params
    strides, sizes, padding = (
        parameter(eqn, name) for name in ("window_strides", "window_dimensions", "padding")
    )
    rank = len(shape)
    base, window = (p.get(f"{part}_dilation") or (1,) * rank for part in ("base", "window"))
    if p.get("base_dilation") and any(d != 1 for d in base):
        raise Unsupported(f"base_dilation {base} of {eqn.primitive.name} is unknown to jaxnn")
    padded = np.pad(positions(shape), padding, constant_values=-1)
    windows = _windows(padded, sizes, strides, window)
    return windows.reshape(-1, int(np.prod(sizes)))


def _windows(array: np.ndarray, sizes, strides, dilations) -> np.ndarray:
    """The windows of an array, [*windows, *entries]."""
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(sizes, dilations, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(array, spans)
    starts = [slice(None, None, stride) for stride in strides]
    return views[(*starts, *[slice(None, None, dilation) for dilation in dilations])]


def reduction(name: str, initial: float, eqn, arithmetic: Arithmetic) -> Run:
    """The rule of ``reduce_window_sum``, ``_max`` and ``_min``."""
    places = _places(eqn, eqn.invars[0].aval.shape)
    outside = arithmetic.exactly(np.array([initial]))
    return lambda x: [
        folded(arithmetic, name, arithmetic.joined([x, outside]), places % (len(x) + 1))
    ]


def _selected(eqn, arithmetic: Arithmetic, x, places: np.ndarray) -> np.ndarray:
    """The position that every window selects: the first of the largest, or smallest."""
    select = parameter(eqn, "select_prim").name
    sign = {"ge": 1, "gt": 1, "le": -1, "lt": -1}[select]
    outside = arithmetic.exactly(np.array([-np.inf * sign]))
    padded, best = arithmetic.joined([x, outside]), places[:, 0]
    for column in places.T[1:]:
        better = arithmetic.compare(padded[column], padded[best]) == sign
        best = np.where((better | (best < 0)) & (column >= 0), column, best)
    return best


def _select_and_scatter_add(eqn, arithmetic: Arithmetic) -> Run:
    shape = eqn.invars[1].aval.shape
    places = _places(eqn, shape)

    def run(source, operand):
        targets, total = (
            _selected(eqn, arithmetic, operand, places),
            arithmetic.exactly(np.zeros(shape)),
        )
        waiting = np.flatnonzero(targets >= 0)
        while len(waiting):  # the first window of every target, then the second, ...
            chosen, first = np.unique(targets[waiting], return_index=True)
            new = arithmetic.apply("add", total[chosen], source[waiting[first]])
            total = updated(arithmetic, total, chosen, new)
            waiting = np.delete(waiting, first)
        return [total]

    return run


def _select_and_gather_add(eqn, arithmetic: Arithmetic) -> Run:
    places = _places(eqn, eqn.invars[1].aval.shape)
    return lambda tangents, operand: [tangents[_selected(eqn, arithmetic, operand, places)]]


def _convolution(eqn, arithmetic: Arithmetic) -> Run:
    numbers = parameter(eqn, "dimension_numbers")
    groups, batches = (parameter(eqn, f"{kind}_group_count") for kind in ("feature", "batch"))
    left = positions(eqn.invars[0].aval.shape).transpose(numbers.lhs_spec)  # [N, C, *space]
    right = positions(eqn.invars[1].aval.shape).transpose(numbers.rhs_spec)  # [O, I, *window]
    for axis, dilation in enumerate(parameter(eqn, "lhs_dilation"), start=2):
        stretched = np.full(_with(left.shape, axis, (left.shape[axis] - 1) * dilation + 1), -1)
        stretched[(slice(None),) * axis + (slice(None, None, dilation),)] = left
        left = stretched
    left = _padded(left, parameter(eqn, "padding"))
    sizes, rank = right.shape[2:], left.ndim - 2
    windows = _windows(
        left, (1, 1, *sizes), (1, 1, *parameter(eqn, "window_strides")),
        (1, 1, *parameter(eqn, "rhs_dilation")),
    )  # fmt: skip
    windows = windows.reshape(*windows.shape[: rank + 2], -1)  # [N, C, *out, entries]
    images, channels, outputs = len(left), left.shape[1], len(right)
    out = np.empty((2, images // batches, outputs, *windows.shape[2:-1], right[0].size), int)
    for o in range(outputs):
        group, batch = o * groups // outputs, o * batches // outputs
        taken = windows[batch * images // batches :][: images // batches]
        taken = taken[:, group * channels // groups :][:, : channels // groups]
        out[0, :, o] = np.moveaxis(taken, 1, -2).reshape(*out.shape[1:2], *out.shape[3:])
        out[1, :, o] = right[o].ravel()
    out = np.moveaxis(out, range(1, rank + 3), [1 + axis for axis in numbers.out_spec])
    places = out.reshape(2, -1, out.shape[-1])
    return bilinear(places[0], places[1], eqn, arithmetic)


def _with(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _padded(left: np.ndarray, padding: Sequence[tuple[int, int]]) -> np.ndarray:
    """Positions [N, C, *space] with -1 around, or fewer entries where the padding is negative."""
    for axis, (low, high) in enumerate(padding, start=2):
        kept = slice(max(0, -low), left.shape[axis] - max(0, -high))
        left = left[(slice(None),) * axis + (kept,)]
        width = [(0, 0)] * left.ndim
        width[axis] = max(0, low), max(0, high)
        left = np.pad(left, width, constant_values=-1)
    return left


def bilinear(left: np.ndarray, right: np.ndarray, eqn, arithmetic: Arithmetic) -> Run:
    """Sums of products x[left] y[right] along the last axis; position -1 of x is zero."""
    given = [is_number(atom) for atom in eqn.invars]
    zero = arithmetic.exactly(np.zeros(1))

    def run(*xs):
        x, y = (x if n else arithmetic.exactly(x) for x, n in zip(xs, given, strict=True))
        if not left.shape[1]:
            return [arithmetic.exactly(np.zeros(len(left)))]
        x = arithmetic.joined([x, zero])
        products = arithmetic.apply("mul", x[left.ravel() % len(x)], y[right.ravel()])
        return [folded(arithmetic, "add", products, positions(left.shape))]

    return run


RULES: dict[str, Callable[..., Run]] = {
    "conv_general_dilated": _convolution,
    "select_and_gather_add": _select_and_gather_add,
    "select_and_scatter_add": _select_and_scatter_add,
}
