"""Windows and convolutions as sums over positions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxnn.verify.exact.arithmetic import Arithmetic, Run, is_number
from jaxnn.verify.exact.movement import folded, positions, updated
from jaxnn.verify.graph import parameter


def _patches(places: np.ndarray, eqn, window: str, base: str, **params: Any) -> np.ndarray:
    """The positions in every window of an array [N, C, ...], [N, C, entries, *windows].

    Positions outside of the array are -1; ``base`` and ``window`` name the dilations.
    """
    dilations = [eqn.params.get(name) or (1,) * (places.ndim - 2) for name in (base, window)]
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        found = lax.conv_general_dilated_patches(
            places + 1.0,
            window_strides=parameter(eqn, "window_strides"),
            padding=parameter(eqn, "padding"),
            lhs_dilation=dilations[0],
            rhs_dilation=dilations[1],
            **params,
        )
    found = np.asarray(found).round().astype(int) - 1
    return found.reshape(*places.shape[:2], -1, *found.shape[2:])


def _places(eqn, shape: Sequence[int]) -> np.ndarray:
    """The positions in every window of ``reduce_window`` and the like, [windows, entries]."""
    size = parameter(eqn, "window_dimensions")
    dilations = "window_dilation", "base_dilation"
    found = _patches(positions(shape)[None, None], eqn, *dilations, filter_shape=size)
    return found.reshape(math.prod(size), -1).T


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
    rank, size = left.ndim - 2, right.shape[2:]
    windows = _patches(left, eqn, "rhs_dilation", "lhs_dilation", filter_shape=size)
    windows = np.moveaxis(windows, 2, -1)  # [N, C, *out, entries]
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
