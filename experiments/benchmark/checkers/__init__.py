"""Peers of ``jaxnn.verify``: gradient checkers after their documentation, with default tolerances.

All checkers are given equal claims at equal points, in float64.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.process import optional
from experiments.mutants import MUTANTS, Case
from experiments.mutants.judging import NOT_REFUTED, Outcome
from jaxnn.types import PyTree
from jaxnn.verify import Claim
from jaxnn.verify.claims import at_path, call, learning_rate_name, with_path
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


LABELS = {
    "torch_gradcheck": "torch.autograd.gradcheck",
    "torch_gradcheck_fast": "torch.autograd.gradcheck, fast_mode",
    "jax_check_grads": "jax.test_util.check_grads",
    "chex_numerical_grads": "chex.assert_numerical_grads",
    "gradcheck_naive": "gradcheck_naive (NumPy)",
}
MODULES = {"torch": "on_torch", "jax": "on_jax", "chex": "on_jax", "gradcheck": "on_numpy"}


def load(name: str) -> Checker:
    """The checker; raises ModuleNotFoundError if a package is missing."""
    module = MODULES[name.partition("_")[0]]
    return import_module(f"{__name__}.{module}").CHECKERS[name]


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
