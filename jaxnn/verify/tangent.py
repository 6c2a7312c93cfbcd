"""Derivatives by constrained parameters: the tangent space, and the conventions to write them in.

On a constraint, such as A = A^T, a function has a derivative along the constraint alone. Two
gradients with equal projections onto the tangent space state the same derivative; textbooks write
different ones. A convention is a linear map from autodiff's gradient G, of entries taken for
independent, to the gradient that a textbook writes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnn.verify.inputs import Input

Map = Callable[[Any, Any], Any]
"""(Derivative G, [..., *parameter], parameter X) -> [..., *parameter], linear in G."""


class Convention(NamedTuple):
    """A way to write a derivative by a constrained parameter."""

    name: str
    meaning: str  # of autodiff's G
    true: Map  # of autodiff's derivative
    claimed: Map | None = None  # of the formula's derivative; None: the formula is taken as stated


def _transposed(g: Any) -> Any:
    return jnp.swapaxes(g, -1, -2)


def _as_given(g: Any, x: Any) -> Any:
    return g


def _symmetric(g: Any, x: Any) -> Any:
    return (g + _transposed(g)) / 2


def _free_symmetric(g: Any, x: Any) -> Any:
    return (g + _transposed(g)) * (1 - jnp.eye(g.shape[-1]) / 2)


def _lower(g: Any, x: Any) -> Any:
    return g * jnp.tri(g.shape[-1])


def _upper(g: Any, x: Any) -> Any:
    return g * jnp.tri(g.shape[-1]).T


def _canonical(g: Any, q: Any) -> Any:
    return g - q @ _transposed(g) @ q


def _skew(g: Any, q: Any) -> Any:
    return _canonical(g, q) / 2


def _rotation(g: Any, q: Any) -> Any:
    turned = _transposed(q) @ g
    return (turned - _transposed(turned)) / 2


def _across(g: Any, x: Any) -> Any:
    return g - x * jnp.sum(g * x, axis=-1, keepdims=True)


def _centred(axis: int, g: Any, x: Any) -> Any:
    return g - jnp.mean(g, axis=axis, keepdims=True)


def _scaled(real: float, imaginary: float, g: Any, x: Any) -> Any:
    """The derivatives by real and imaginary parts, [..., 2], times two numbers."""
    return g * jnp.array([real, imaginary])


INDEPENDENT = Convention("entries independent", "autodiff's G, every entry varied alone", _as_given)


def _known(along: str, project: Map, *named: tuple[str, str, Map]) -> tuple[Convention, ...]:
    """The conventions of a constraint: entries independent, the named, and the tangent space."""
    return (
        INDEPENDENT,
        *(Convention(*n) for n in named),
        Convention("tangent", along, project, project),
    )


SYMMETRIC = _known(
    "the part along symmetric matrices alone, (G + G^T)/2",
    _symmetric,
    (
        "symmetric gradient",
        "(G + G^T)/2 of autodiff's G, the gradient within the symmetric matrices",
        _symmetric,
    ),
    (
        "free entries",
        "G + G^T - diag(G) of autodiff's G: [i, j] and [j, i] are one free entry",
        _free_symmetric,
    ),
)
LOWER, UPPER = (
    _known(
        f"the {which} triangle alone",
        project,
        ("free entries", f"the {which} triangle of autodiff's G, zero elsewhere", project),
    )
    for which, project in (("lower", _lower), ("upper", _upper))
)
SPHERE = _known(
    "the part orthogonal to x alone, G - x (x^T G)",
    _across,
    ("tangent gradient", "G - x (x^T G) of autodiff's G, the gradient along the sphere", _across),
)
ORTHOGONAL = _known(
    "the part along orthogonal matrices alone, Q skew(Q^T G)",
    _skew,
    (
        "tangent gradient",
        "Q skew(Q^T G) = (G - Q G^T Q)/2 of autodiff's G, the gradient along orthogonal matrices",
        _skew,
    ),
    ("canonical metric", "G - Q G^T Q of autodiff's G, twice the tangent gradient", _canonical),
    ("rotation", "skew(Q^T G) = (Q^T G - G^T Q)/2 of autodiff's G, the rotation", _rotation),
)

JAX = Convention("JAX", "2 df/dz = df/dx - i df/dy, as jax.grad does", partial(_scaled, 1.0, -1.0))
PYTORCH = Convention(
    "PyTorch", "2 df/dz* = df/dx + i df/dy, as PyTorch does: the steepest ascent", _as_given
)
WIRTINGER = Convention(
    "Wirtinger, df/dz", "df/dz = (df/dx - i df/dy)/2", partial(_scaled, 0.5, -0.5)
)
CONJUGATE = Convention(
    "Wirtinger, df/dz*", "df/dz* = (df/dx + i df/dy)/2", partial(_scaled, 0.5, 0.5)
)

CONVENTIONS: dict[str, tuple[Convention, ...]] = {
    "complex": (JAX, PYTORCH, WIRTINGER, CONJUGATE),
    "lower_triangular": LOWER,
    "orthogonal": ORTHOGONAL,
    "positive_definite": SYMMETRIC,
    "sphere": SPHERE,
    "symmetric": SYMMETRIC,
    "upper_triangular": UPPER,
}
"""The conventions by the kind of the parameter: the first that fits is named; ``tangent`` projects
the formula too."""

CURVED_KINDS = {
    "complex": "complex numbers", "orthogonal": "orthogonal matrices", "sphere": "a sphere"
}  # fmt: skip
"""Kinds whose second derivatives depend on more than the function and a convention above."""


def conventions(generator: Input, kind: str) -> tuple[Convention, ...]:
    """The conventions of derivatives by a parameter; none without a constraint.

    A step along 2 df/dz of complex numbers is no descent: an update has no such convention.
    """
    if generator.kind == "complex" and kind == "update":
        return PYTORCH, CONJUGATE
    if generator.kind == "simplex":
        centred = partial(_centred, generator.axis)
        meaning = "G minus the mean of G, of autodiff's G: the gradient along the simplex"
        gradient = "tangent gradient", meaning, centred
        return _known("G up to a constant for every vector", centred, gradient)
    return CONVENTIONS.get(generator.kind, ())


def unchanged(chosen: Sequence[Convention | None]) -> bool:
    """Whether autodiff's derivative and the formula are as they are in the conventions."""
    return all(c is None or (c.true is _as_given and not c.claimed) for c in chosen)


def stated(
    chosen: Sequence[Convention | None],
    kind: str,
    points: Sequence[Any],
    leaves: Sequence[Any],
    claimed: bool = False,
) -> list[Any]:
    """The leaves of a derivative in conventions.

    Args:
      chosen: the convention of every parameter; None for parameters without a constraint.
      kind: of the claim; the leaves of a Hessian belong to two parameters each.
      points: the parameters.
      leaves: of autodiff's derivative; of a formula that is claimed, for an update the step's end.
      claimed: whether the derivative is a formula's; leaves of other shapes stay as they are.
    """
    pairs = [*zip(chosen, points, strict=True)]
    several = [(a, b) for a in pairs for b in pairs] if kind == "hessian" else [(b,) for b in pairs]
    if len(several) != len(leaves):
        return list(leaves)
    return [_changed(*pair, kind, claimed) for pair in zip(leaves, several, strict=True)]


def _changed(
    leaf: Any, parameters: Sequence[tuple[Convention | None, Any]], kind: str, claimed: bool
) -> Any:
    maps = [convention and (convention.claimed if claimed else convention.true)
            for convention, _ in parameters]  # fmt: skip
    shape = sum((jnp.shape(x) for _, x in parameters), ())
    if not any(maps) or jnp.shape(leaf)[max(0, jnp.ndim(leaf) - len(shape)) :] != shape:
        return leaf
    start = parameters[0][1] if claimed and kind == "update" else 0.0
    changed = leaf - start
    for change, (_, x) in zip(reversed(maps), reversed(parameters), strict=True):
        changed = change(changed, x) if change else changed
        changed = _rolled(changed, jnp.ndim(x)) if kind == "hessian" else changed
    return changed + start


def _rolled(leaf: Any, axes: int) -> Any:
    """The last axes, of the second parameter of a Hessian, before the others."""
    return jnp.moveaxis(leaf, range(leaf.ndim - axes, leaf.ndim), range(axes))


class Fit(NamedTuple):
    """A formula and autodiff's derivative at trials, [T, ...], to be compared in conventions."""

    kind: str
    known: Sequence[Sequence[Convention]]  # per parameter the conventions; none without constraint
    points: Sequence[np.ndarray]  # the parameters
    formula: Sequence[np.ndarray]
    reference: Sequence[np.ndarray]  # in jaxnn's layout
    arrange: Sequence[Callable[[np.ndarray], np.ndarray]]  # per leaf, to the formula's layout
    tolerance: float
    layout: Callable[[int, np.ndarray, np.ndarray], object]  # of a leaf: not None where one fits

    def of(self, number: int) -> list[list[Convention]]:
        """The conventions that fit a parameter, in one list, or a list for each to be tried.

        A convention that projects the formula too is in question only if no other fits, another
        layout only if no convention does. If none fits, the conventions are tried in the order of
        the misfit, the tangent space first.
        """
        known = self.known[number]
        if not known or len(self.formula) != len(self.reference):
            return [[convention] for convention in known[:1]]
        misfits = {convention: self._misfit(number, convention) for convention in known}
        plain = [c for c in known if not c.claimed and misfits[c] <= self.tolerance]
        fitting = plain or [c for c in known if c.claimed and misfits[c] <= self.tolerance]
        if fitting:
            return [fitting]
        fitting = [c for c in known if not c.claimed and self._in_layout(number, c)]
        if fitting:
            return [fitting]
        order = sorted(known, key=lambda c: (round(misfits[c], 6), not c.claimed))
        return [[c] for c in order if misfits[c] < np.inf] or [[known[0]]]

    def _misfit(self, number: int, convention: Convention) -> float:
        """The largest of all leaves that belong to the parameter, and to no other constrained."""
        count = len(self.points)
        free = [place for place in range(count) if place == number or not self.known[place]]
        leaves = [number]
        if self.kind == "hessian":
            leaves = [a * count + b for a in free for b in free if number in (a, b)]
        claimed, true = self._sides(number, convention)
        if convention.claimed and any(self.arrange[leaf] is not np.asarray for leaf in leaves):
            return np.inf  # a formula is projected in jaxnn's layout alone
        return max(self._apart(leaf, claimed[leaf], true[leaf]) for leaf in leaves)

    def _in_layout(self, number: int, convention: Convention) -> bool:
        """Whether the formula is right but for the layout of the derivative by the parameter."""
        own = number * (len(self.points) + 1) if self.kind == "hessian" else number
        claimed, true = self._sides(number, convention)
        return self.layout(own, np.asarray(claimed[own]), np.asarray(true[own])) is not None

    def _sides(self, number: int, convention: Convention) -> tuple[list[Any], list[Any]]:
        """Formula and reference with the derivative by a parameter in a convention."""
        chosen = [convention if place == number else None for place in range(len(self.points))]
        claimed = self._stated(chosen, self.formula, claimed=True)
        return claimed, self._stated(chosen, self.reference, claimed=False)

    def _stated(
        self, chosen: Sequence[Convention | None], side: Sequence[np.ndarray], claimed: bool
    ) -> list[Any]:
        """The formula's or the true derivative in conventions; of an update the step's."""
        kind = self.kind
        if kind == "update":
            pairs = zip(side, self.points, strict=True)
            kind, side = "gradient", [a - x if a.shape == x.shape else a for a, x in pairs]
        return jax.vmap(partial(stated, chosen, kind, claimed=claimed))(self.points, side)

    def _apart(self, leaf: int, value: Any, true: Any) -> float:
        """The largest relative error, if no more than the tolerance; else 1 and more by the angle.

        Infinite for a formula of another shape than the derivative.
        """
        there, whole = self.arrange[leaf], self.reference[leaf]
        value, true = np.asarray(value), np.stack([there(one) for one in np.asarray(true)])
        if value.shape != true.shape:
            return np.inf
        value, true, whole = (a.reshape(len(a), -1) for a in (value, true, whole))
        with np.errstate(all="ignore"):
            distance, size = (np.linalg.norm(a, axis=1) for a in (value - true, true))
            errors = distance / (size + np.linalg.norm(whole, axis=1))
            errors = np.where(distance == 0, 0.0, errors)
            cosines = np.abs(np.sum(value * true, axis=1)) / (size * np.linalg.norm(value, axis=1))
        errors, cosines = errors[np.isfinite(errors)], cosines[np.isfinite(cosines)]
        largest = float(np.max(errors)) if len(errors) else np.inf
        if largest <= self.tolerance:
            return largest
        return 2.0 - float(np.median(cosines)) if len(cosines) else 2.0
