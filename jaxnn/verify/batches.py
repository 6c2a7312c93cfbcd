"""Claims about one example, for a batch of examples."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxnn.types import PyTree, require_type, shown
from jaxnn.verify.claims import Claim, at_path, by_keyword, call, places
from jaxnn.verify.comparison import reference
from jaxnn.verify.inputs import Size, draw, draw_sizes, filled, leaves, symbols


def batch_of(claim: Claim, *, shared: str | Sequence[str] = (), size: Size = "batch") -> Claim:
    """The claim on a batch: every input has a leading axis of examples.

    The truth is the claim's own: ``of`` is mapped over the examples, and summed for a gradient by
    shared parameters. The formula is called with the batch, if a call gives arrays of the right
    shapes, else mapped over the examples too; the name of the claim says which.

    Args:
      claim: the claim about one example.
      shared: inputs that all examples have in common, such as weights: names, or paths as of
        ``wrt``. Derivatives by shared parameters are sums over the examples.
      size: the number of examples, by name or fixed.

    Returns:
      A claim named ``NAME, called with a batch`` or ``NAME, mapped over a batch``. For a Jacobian
      or a Hessian by parameters of the examples, a claim about the values of all examples, [batch,
      *derivative].

    Raises:
      ValueError: an argument is wrong, or the claim has a layout.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from jaxnn.verify import batch_of, claim, one_hot, real, verify
      >>> def cross_entropy(z, y):
      ...     return -jnp.sum(y * jax.nn.log_softmax(z))
      >>> inputs = {"z": real("C"), "y": one_hot("C")}
      >>> @claim(of=cross_entropy, wrt="z", kind="gradient", inputs=inputs)
      ... def error(z, y):
      ...     return jnp.exp(z) / jnp.sum(jnp.exp(z)) - y
      >>> [verify(made, trials=1000).holds for made in (error, batch_of(error))]
      [True, False]
    """
    expected = "a function decorated with @claim(...)"
    require_type(isinstance(claim, Claim), "claim", claim, expected)
    if isinstance(size, str) and size in symbols(claim.inputs):
        raise ValueError(f"size is {size!r}, a size of the claim already, expected another name")
    if claim.layout is not None:
        raise ValueError(f"layout is {claim.layout!r}, expected a claim without a layout")
    if claim.kind == "update":
        raise ValueError("kind is 'update', expected a claim about the gradient of one example")
    names = isinstance(shared, str | tuple | list) and all(isinstance(s, str) for s in shared)
    require_type(names, "shared", shared, "the names of inputs")
    axes = _axes(claim, [shared] if isinstance(shared, str) else shared)
    generators = [
        g if axis is None else replace(g, shape=(size, *g.shape))
        for g, axis in zip(leaves(claim.inputs), axes, strict=True)
    ]
    inputs = filled(dict(claim.inputs), generators)
    mapped, made = _mapped(claim, axes, inputs)
    called = _takes_batches(claim, inputs, mapped)
    name = f"{claim.name}, {'called with' if called else 'mapped over'} a batch"
    formula = claim.formula if called else mapped
    return replace(made, formula=formula, inputs=inputs, name=name, corrects=None)


def _axes(claim: Claim, shared: Sequence[str]) -> list[int | None]:
    """Per input the axis of the examples, None for a shared input."""
    axes: list[int | None] = [0] * len(leaves(claim.inputs))
    for path in shared:
        try:
            at_path(claim.inputs, path)
        except ValueError:
            known = ", ".join(claim.inputs)
            raise ValueError(f"shared is {path!r}, expected inputs among {known}") from None
        for place in places(dict(claim.inputs), path):
            axes[place] = None
    if None not in axes or any(axis == 0 for axis in axes):
        return axes
    raise ValueError(f"shared is {shown(shared)}, expected an input that examples do not share")


def _mapped(
    claim: Claim, axes: Sequence[int | None], inputs: PyTree
) -> tuple[Callable[..., Any], Claim]:
    """The formula mapped over the examples, and the claim about the batch."""
    by = [axes[place] for path in claim.wrt for place in places(dict(claim.inputs), path)]
    if claim.kind in ("hessian", "jacobian") and len({*by}) > 1:
        raise ValueError(
            f"wrt is {claim.wrt!r}, of which examples share some, expected all or none for a claim "
            f"of kind {claim.kind!r}"
        )
    summed = claim.kind in ("gradient", "vjp") or (claim.kind == "hessian" and None in by)
    kind = claim.kind if summed else "value"
    of_name = {name: [axes[p] for p in places(dict(claim.inputs), name)] for name in claim.inputs}

    def over_examples(function: Callable[..., Any], given: dict[str, PyTree]) -> Any:
        flat, structure = jax.tree.flatten(given)
        some = [axis for name in sorted(given) for axis in of_name[name]]  # as in a tree of JAX
        if not any(isinstance(value, Tracer) for value in flat):
            return _one_by_one(function, flat, some, structure)
        return jax.vmap(lambda *one: function(structure.unflatten(one)), in_axes=some)(*flat)

    def changed(function: Callable[..., Any], end: Callable[[Any], Any]) -> Callable[..., Any]:
        @wraps(function)
        def on_batch(**given: PyTree) -> Any:
            return end(over_examples(lambda one: call(function, one), given))

        return by_keyword(on_batch, function)

    def total(values: PyTree) -> PyTree:
        return jax.tree.map(lambda value: jnp.sum(value, axis=0), values)

    def together(derivative: PyTree) -> PyTree:
        """The derivatives of all examples, those by shared parameters summed."""
        flat, structure = jax.tree.flatten(derivative)
        if not summed or len(flat) != len(by):
            return derivative
        parts = (a if axis == 0 else jnp.sum(a, axis=0) for a, axis in zip(flat, by, strict=True))
        return structure.unflatten(parts)

    formula = changed(claim.formula, together)
    terms = claim.terms and {name: changed(term, total) for name, term in claim.terms.items()}
    where = claim.where and changed(claim.where, jnp.all)
    of = changed(claim.of, total if summed else lambda value: value)
    if not summed and claim.kind != "value":
        every, terms = reference(claim), None
        of = by_keyword(wraps(claim.of)(lambda **given: over_examples(every, given)), claim.of)
    return formula, replace(claim, of=of, terms=terms, where=where, kind=kind)


def _one_by_one(
    function: Callable[..., Any], flat: Sequence[Any], axes: Sequence[int | None], structure: Any
) -> PyTree:
    """The function's values at every example, for functions that JAX does not map."""
    pairs = [*zip(flat, axes, strict=True)]
    examples = range(next(len(value) for value, axis in pairs if axis == 0))
    rows = ([v if axis is None else v[number] for v, axis in pairs] for number in examples)
    values = (function(structure.unflatten(row)) for row in rows)
    return jax.tree.map(lambda *some: np.stack(some), *values)


def _takes_batches(claim: Claim, inputs: PyTree, mapped: Callable[..., Any]) -> bool:
    """Whether the formula, called with a batch, gives arrays of the shapes of the mapped one."""
    drawn = draw(inputs, draw_sizes(inputs, 0), 1, np.random.default_rng(0))

    formulas = claim.formula, mapped
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda values: values[0], drawn)
        for shapes in (jax.eval_shape, lambda function, batch: function(batch)):
            with suppress(Exception):  # of the formula
                sides = (shapes(replace(claim, formula=f).evaluate, batch) for f in formulas)
                called, expected = ([np.shape(leaf) for leaf in jax.tree.leaves(s)] for s in sides)
                return called == expected
    return False
