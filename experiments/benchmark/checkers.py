"""Peers of ``jaxnn.verify``: gradient checkers after their documentation, with default tolerances.

All checkers are given equal claims at equal points, in float64. A checker imports the library of
the checker when loaded.
"""

# pyright: reportMissingImports=false
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.mutants import MUTANTS, Case
from experiments.mutants.judging import NOT_REFUTED, Outcome
from experiments.processes import optional
from jaxnn.types import PyTree
from jaxnn.verify import Claim
from jaxnn.verify.claims import at_path, call, learning_rate_name, with_path
from jaxnn.verify.graph import jit
from jaxnn.verify.inputs import draw, draw_sizes

Inputs = Mapping[str, PyTree]
Parts = Sequence[Any]
"""The variables of differentiation, array by array."""

ORDERS = {None: "C", "vec": "F", "vec_rows": "C", "transpose": "C"}  # of a matrix as a vector


class Point(NamedTuple):
    """The place of one check."""

    parts: list[np.ndarray]
    inputs: Inputs


class Statement(NamedTuple):
    """A claim; both functions take a point's parts and inputs."""

    function: Callable[[Parts, Inputs], jax.Array]
    derivative: Callable[[Parts, Inputs], list[jax.Array]]  # by every part: [*value, *part]


def state(claim: Claim) -> Statement | None:
    """The claim as a statement about a derivative.

    A Hessian is the derivative of JAX's gradient. An update theta' states the gradient of its step,
    (theta - theta') / rate. The function of a matrix that is declared as a vector takes the vector.

    Returns:
      The statement; None for a claim about a value, which no gradient checker can judge.
    """
    if claim.kind == "value":
        return None

    def of(parts: Parts, inputs: Inputs) -> jax.Array:
        return call(claim.of, at_parts(claim, inputs, parts))

    def derivative(parts: Parts, inputs: Inputs) -> list[jax.Array]:
        claimed = jax.tree.leaves(claim.evaluate(at_parts(claim, inputs, parts)))
        if claim.kind == "update":
            rate = inputs[str(learning_rate_name(claim))]
            claimed = [(old - new) / rate for old, new in zip(parts, claimed, strict=True)]
        return [jnp.asarray(leaf, float) for leaf in claimed]

    def gradient(parts: Parts, inputs: Inputs) -> jax.Array:
        (slope,) = jax.grad(of)(parts, inputs)
        return slope

    return Statement(gradient if claim.kind == "hessian" else of, derivative)


def at_parts(claim: Claim, inputs: Inputs, parts: Parts) -> Inputs:
    """The inputs with new values of the variables of differentiation, back in their shapes."""
    old = tuple(at_path(inputs, path) for path in claim.wrt)
    leaves, structure = jax.tree.flatten(old)
    new = [
        part.reshape(leaf.shape, order=ORDERS[claim.layout])
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    for path, value in zip(claim.wrt, jax.tree.unflatten(structure, new), strict=True):
        inputs = with_path(inputs, path, value)
    return inputs


def points(claim: Claim, count: int, seed: int) -> list[Point]:
    """Random points of equal sizes, drawn by ``jaxnn.verify``; matrices as the claim declares."""
    sizes = draw_sizes(claim.inputs, seed)
    drawn = draw(dict(claim.inputs), sizes, count, np.random.default_rng(seed))
    found = []
    for trial in range(count):
        inputs = jax.tree.map(lambda value, trial=trial: np.asarray(value[trial]), drawn)
        leaves = jax.tree.leaves(tuple(at_path(inputs, path) for path in claim.wrt))
        if claim.layout is not None:
            leaves = [leaf.ravel(order=ORDERS[claim.layout]) for leaf in leaves]
        found.append(Point(leaves, inputs))
    return found


class Checker(NamedTuple):
    """A gradient checker, in two uses; a check raises where the derivative is not found right."""

    check_of: Callable[[Statement], Callable[[Point], object]]  # of any claim; JAX evaluates it
    check_softmax: Callable[[np.ndarray], object]  # at logits, all in the checker's library


def torch_checker(*, fast_mode: bool) -> Checker:
    """``torch.autograd.gradcheck`` of an ``autograd.Function`` with the claimed backward.

    Every entry of the Jacobian against centred differences, or with ``fast_mode`` a random
    direction.
    """
    import torch

    def check(function: Callable, derivatives: Callable, parts: Parts) -> None:
        """Checks functions of tensors, the derivatives [*value, *part]."""

        class Stated(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *parts):
                ctx.save_for_backward(*parts)
                return function(*parts)

            @staticmethod
            def backward(ctx, gradient):
                found = derivatives(*ctx.saved_tensors)
                return tuple(torch.tensordot(gradient, t, dims=gradient.ndim) for t in found)

        tensors = tuple(torch.tensor(part, requires_grad=True) for part in parts)
        torch.autograd.gradcheck(Stated.apply, tensors, fast_mode=fast_mode)

    def check_of(statement: Statement) -> Callable[[Point], None]:
        function, derivative = map(jit, statement)

        def at(point: Point) -> None:
            def evaluated(function: Callable, *parts: torch.Tensor) -> Any:
                value = function([part.detach().numpy() for part in parts], point.inputs)
                return jax.tree.map(lambda array: torch.tensor(np.asarray(array)), value)

            check(partial(evaluated, function), partial(evaluated, derivative), point.parts)

        return at

    def jacobian(z: torch.Tensor) -> list[torch.Tensor]:
        p = torch.softmax(z, 0)
        return [torch.diag(p) - torch.outer(p, p)]

    return Checker(check_of, lambda z: check(partial(torch.softmax, dim=0), jacobian, [z]))


@lru_cache(maxsize=1)  # compiled once for both checkers on JAX
def with_derivative(statement: Statement) -> Callable[..., jax.Array]:
    """The function with the claimed derivative as JAX's rule."""

    @jax.custom_jvp
    def function(parts, inputs):
        return statement.function(parts, inputs)

    @function.defjvp
    def _(primals, tangents):
        value, derivatives = function(*primals), statement.derivative(*primals)
        steps = [
            jnp.tensordot(derivative, tangent, tangent.ndim)
            for derivative, tangent in zip(derivatives, tangents[0], strict=True)
        ]
        return value, jnp.asarray(sum(steps))

    return jax.jit(function)


def softmax_jacobian(parts: Parts, _: Inputs) -> list[jax.Array]:
    """diag(p) - p p^T of the softmax p (S1.1)."""
    p = jax.nn.softmax(*parts)
    return [jnp.diag(p) - jnp.outer(p, p)]


SOFTMAX = Statement(lambda parts, _: jax.nn.softmax(*parts), softmax_jacobian)


def jax_checker(numerical_check: Callable[..., object]) -> Checker:
    """A check of ``custom_jvp`` functions with the claimed derivative, first order.

    ``jax.test_util.check_grads``, in both modes: a random direction against centred differences.
    ``chex.assert_numerical_grads``: JAX's checker with an absolute tolerance of 0.01 per entry of
    the first argument.
    """

    def check_of(statement: Statement) -> Callable[[Point], None]:
        function = with_derivative(statement)

        def check(point: Point) -> None:
            numerical_check(lambda *parts: function(parts, point.inputs), point.parts, order=1)

        return check

    return Checker(check_of, lambda z: check_of(SOFTMAX)(Point([z], {})))


def gradcheck_naive(f: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray) -> None:
    """Compares every entry of the gradient of ``f`` at x with a centred difference (S4.6).

    Raises:
      AssertionError: a relative difference is above 1e-5.
    """
    _, gradient = f(x)
    h = 1e-4
    for index in np.ndindex(x.shape):
        before = x[index]
        x[index] = before + h
        above, _ = f(x)
        x[index] = before - h
        below, _ = f(x)
        x[index] = before
        numerical = (above - below) / (2 * h)
        scale = max(1, abs(numerical), abs(gradient[index]))
        if abs(numerical - gradient[index]) / scale > 1e-5:
            raise AssertionError(f"{gradient[index]} at {index}, expected {numerical}")


def naive_check_of(statement: Statement) -> Callable[[Point], None]:
    """The students' checker of every row of a Jacobian; several parameters are a long vector."""
    function, derivative = map(jit, statement)

    def check(point: Point) -> None:
        several = len(point.parts) > 1
        as_one: Any = ravel_pytree if several else lambda parts: (parts[0], lambda x: [x])
        start, parts_of = as_one(point.parts)

        def at(x: np.ndarray, entry: tuple[int, ...]) -> tuple[float, np.ndarray]:
            parts = parts_of(x)
            derivatives = derivative(parts, point.inputs)
            row, _ = as_one([np.asarray(derivative)[entry] for derivative in derivatives])
            return float(function(parts, point.inputs)[entry]), np.asarray(row)

        for entry in np.ndindex(function(point.parts, point.inputs).shape):
            gradcheck_naive(partial(at, entry=entry), np.array(start))

    return check


def naive_check_softmax(z: np.ndarray) -> None:
    """The students' checker of the Jacobian of the softmax, row by row, in NumPy."""

    def row(z: np.ndarray, i: int) -> tuple[float, np.ndarray]:
        exponentials = np.exp(z - z.max())
        p = exponentials / exponentials.sum()
        return p[i], np.where(np.arange(len(z)) == i, p, 0) - p[i] * p

    for i in range(len(z)):
        gradcheck_naive(partial(row, i=i), z)


LABELS = {
    "torch_gradcheck": "torch.autograd.gradcheck",
    "torch_gradcheck_fast": "torch.autograd.gradcheck, fast_mode",
    "jax_check_grads": "jax.test_util.check_grads",
    "chex_numerical_grads": "chex.assert_numerical_grads",
    "gradcheck_naive": "gradcheck_naive (NumPy)",
}


@cache
def load(name: str) -> Checker:
    """The checker; raises ModuleNotFoundError if a package is missing."""
    if name == "gradcheck_naive":
        return Checker(naive_check_of, naive_check_softmax)
    if name.startswith("torch"):
        return torch_checker(fast_mode=name.endswith("fast"))
    module, function = LABELS[name].rsplit(".", 1)
    return jax_checker(getattr(import_module(module), function))


def present() -> dict[str, Checker]:
    """The installed checkers; a line is printed about each missing checker."""
    found = {}
    for name, label in LABELS.items():
        with optional(label):
            found[name] = load(name)
    return found


class Finding(NamedTuple):
    """A checker's answer about a claim."""

    checker: str
    case: Case
    stated: bool  # whether the checker can judge such a claim
    rejected_at: float = math.inf  # the first point at which the checker rejects the claim


def examine(case: Case, checkers: Sequence[str], count: int, seed: int) -> list[Finding]:
    """All checkers on a claim at equal points; an exception of any kind rejects the claim."""
    statement = state(case.claim)
    if statement is None:
        return [Finding(name, case, stated=False) for name in checkers]

    def first_rejection(checker: str) -> float:
        check = load(checker).check_of(statement)
        for number, point in enumerate(points(case.claim, count, seed)):
            try:
                check(point)
            except Exception:  # wrong shapes raise all sorts of exceptions
                return number
        return math.inf

    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return [Finding(name, case, True, first_rejection(name)) for name in checkers]


def of_outcome(outcome: Outcome, checker: str) -> Finding:
    """A verdict of jaxnn: a mutant has to be refuted, a right derivation must not be."""
    refuted = outcome.judgement != NOT_REFUTED
    rejects = refuted if outcome.case.is_mutant else outcome.judgement == "wrong"
    return Finding(checker, outcome.case, True, 0 if rejects else math.inf)


def score(findings: Sequence[Finding], count: int) -> dict[str, Any]:
    """The counts of a checker at the first ``count`` points.

    Of all mutants and right derivations: the mutants let through, of which the checker cannot judge
    some; right derivations rejected; classes and names of judged mutants let through.
    """
    mutants, right = ([f for f in findings if f.case.is_mutant == kind] for kind in (True, False))
    through = [finding for finding in mutants if finding.rejected_at >= count]
    survivors = [finding.case for finding in through if finding.stated]
    return {
        "mutants": len(mutants),
        "right": len(right),
        "let_through": len(through),
        "not_stated": len(through) - len(survivors),
        "false_alarms": sum(finding.rejected_at < count for finding in right),
        "classes": dict(Counter(MUTANTS[case.index].true_class for case in survivors)),
        "survivors": [case.claim.name for case in survivors],
    }
