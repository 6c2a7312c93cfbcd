"""Every right derivation of the catalogue holds, every mutant is refuted and rightly diagnosed."""

import functools
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments.mutants import CORRECT, FAMILIES, MUTANTS
from experiments.mutants.family import Family, Mutant
from experiments.mutants.judging import judge, judge_correct
from jaxnn.verify import Claim
from jaxnn.verify.claims import at_path, call, learning_rate_name, with_path
from jaxnn.verify.inputs import draw, is_input, symbols
from jaxnn.verify.verification import describe, verify

POINTS = 6
SAMPLED = 7
"""Every seventh of the catalogue is verified here; ``confusion_matrix.py`` verifies all of it."""

TRIALS = 200
SCALES = {
    "sign": lambda sizes: [-1.0],
    "factor": lambda sizes: [2.0, 0.5],
    "missing_mean": lambda sizes: list(sizes),
    "extra_mean": lambda sizes: [1 / n for n in (*sizes, *(a * b for a in sizes for b in sizes))],
}


@pytest.fixture(autouse=True)
def _room_for_programs(request):
    """Lets go of compiled programs now and then: a process holds no more than some hundred."""
    yield
    if request.node.callspec.params.get("seed", 0) % 20 == 19:
        jax.clear_caches()


def truth(claim: Claim, inputs: Mapping[str, Any]) -> Any:
    """What the claim should say, by autodiff."""

    def of(*values):
        moved = dict(inputs)
        for path, value in zip(claim.wrt, values, strict=True):
            moved = with_path(moved, path, value)
        return call(claim.of, moved)

    values = tuple(at_path(inputs, path) for path in claim.wrt)
    which = tuple(range(len(values)))
    if claim.kind == "value":
        return of()
    if claim.kind == "hessian":
        return jax.hessian(of)(*values)
    differentiate = jax.jacrev if claim.kind == "jacobian" else jax.grad
    result = differentiate(of, which)(*values)
    if claim.layout is not None:
        result = tuple(as_vectors(leaf, claim.layout) for leaf in result)
    if claim.kind == "update":
        rate = inputs[str(learning_rate_name(claim))]
        result = jax.tree.map(lambda value, slope: value - rate * slope, values, result)
    return result[0] if claim.single else result


def as_vectors(derivative: jax.Array, layout: str) -> jax.Array:
    """A derivative by a matrix as one by its columns, or its rows, one after the other."""
    if layout == "vec":
        derivative = derivative.swapaxes(-1, -2)
    return derivative.reshape(*derivative.shape[:-2], -1)


class Values(NamedTuple):
    """The leaves of all derivations of a family, with a leading axis of points."""

    sizes: tuple[int, ...]
    true: list[list[np.ndarray]]  # for every way of writing the function
    claimed: dict[str, list[np.ndarray] | None]  # by the claim's name; None: it cannot be evaluated


@functools.cache
def values(family: Family) -> Values:
    """Truth and claims in float64, where no way of writing the function overflows."""
    generators = dict(family.correct[0].inputs)
    sizes: dict[str, int] = dict(zip(symbols(generators), (5, 3, 7, 4, 6), strict=False))
    inputs = jax.tree.map(
        lambda leaf, value: value * 0.3 if leaf.kind == "real" else value,
        generators,
        draw(generators, sizes, POINTS, np.random.default_rng(0)),
        is_leaf=is_input,
    )
    claims = (*family.correct, *(mutant.claim for mutant in family.mutants))

    def everything(point):
        return (
            [jax.tree.leaves(truth(claim, point)) for claim in family.correct],
            {claim.name: jax.tree.leaves(claim.evaluate(point)) for claim in fitting},
        )

    with jax.enable_x64(True):
        fitting = [claim for claim in claims if fits(claim, inputs)]
        true, claimed = jax.tree.map(np.asarray, jax.jit(jax.vmap(everything))(inputs))
    return Values(
        tuple(sizes.values()), true, {claim.name: claimed.get(claim.name) for claim in claims}
    )


def fits(claim: Claim, inputs) -> bool:
    try:
        jax.eval_shape(jax.vmap(claim.evaluate), inputs)
    except (TypeError, ValueError):
        return False
    return True


def differs(claimed: np.ndarray, true: np.ndarray) -> bool:
    """Whether they differ by more than rounding."""
    return claimed.shape != true.shape or not np.allclose(claimed, true, rtol=1e-8, atol=1e-12)


CORRECT_CASES = [
    pytest.param(family, way, id=claim.name)
    for family in FAMILIES
    for way, claim in enumerate(family.correct)
]
MUTANT_CASES = [
    pytest.param(family, mutant, id=mutant.claim.name)
    for family in FAMILIES
    for mutant in family.mutants
]


def only(test):
    return [case for case in MUTANT_CASES if test(case.values[1])]


@pytest.mark.parametrize(("family", "way"), CORRECT_CASES)
def test_every_right_derivation_is_the_derivative(family: Family, way: int):
    claimed, true = values(family).claimed[family.correct[way].name], values(family).true[way]
    assert claimed is not None
    assert len(claimed) == len(true)
    assert all(np.all(np.isfinite(leaf)) for leaf in true)
    assert not any(map(differs, claimed, true))


@pytest.mark.parametrize(
    ("family", "mutant"),
    only(lambda mutant: mutant.verdict == "refuted" and "shape" not in mutant.codes),
)
def test_every_mutant_has_the_shape_of_the_derivative_and_differs(family: Family, mutant: Mutant):
    claimed, true = values(family).claimed[mutant.claim.name], values(family).true[0]
    assert claimed is not None
    assert [c.shape for c in claimed] == [t.shape for t in true]
    assert any(map(differs, claimed, true))


@pytest.mark.parametrize(
    ("family", "mutant"), only(lambda mutant: mutant.verdict == "holds_other_layout")
)
def test_another_layout_has_the_entries_of_the_derivative(family: Family, mutant: Mutant):
    claimed, true = values(family).claimed[mutant.claim.name], values(family).true[0]
    assert claimed is not None
    assert any(map(differs, claimed, true))
    for c, t in zip(claimed, true, strict=True):
        assert not differs(
            np.sort(c.reshape(POINTS, -1), axis=1), np.sort(t.reshape(POINTS, -1), axis=1)
        )


@pytest.mark.parametrize(("family", "mutant"), only(lambda mutant: "shape" in mutant.codes))
def test_a_mutant_of_shape_does_not_fit(family: Family, mutant: Mutant):
    claimed, true = values(family).claimed[mutant.claim.name], values(family).true[0]
    assert claimed is None or [c.shape for c in claimed] != [t.shape for t in true]


@pytest.mark.parametrize(
    ("family", "mutant"),
    only(
        lambda mutant: (
            mutant.true_class in SCALES
            and mutant.claim.kind != "update"
            and "term" not in mutant.claim.name
            and "lam" not in mutant.claim.inputs
        )
    ),
)
def test_a_mutant_of_scale_is_a_multiple_of_the_derivative(family: Family, mutant: Mutant):
    claimed, true = values(family).claimed[mutant.claim.name], values(family).true[0]
    assert claimed is not None
    scales = [np.vdot(c, t) / np.vdot(t, t) for c, t in zip(claimed, true, strict=True)]
    for c, t, scale in zip(claimed, true, scales, strict=True):
        assert not differs(c, scale * t)
    off = [scale for scale in scales if not np.isclose(scale, 1)]
    assert off
    assert all(
        np.isclose(scale, SCALES[mutant.true_class](values(family).sizes)).any() for scale in off
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_mutants_that_are_the_same_function_may_be_explained_alike(family: Family):
    for one, other in itertools.combinations(family.mutants, 2):
        a, b = (values(family).claimed[mutant.claim.name] for mutant in (one, other))
        if a is not None and b is not None and not any(map(differs, a, b)):
            assert one.codes == other.codes


@pytest.mark.parametrize(
    ("seed", "claim"),
    [pytest.param(seed, claim, id=claim.name) for seed, claim in enumerate(CORRECT)][::SAMPLED],
)
def test_no_right_derivation_is_refuted(seed: int, claim: Claim):
    verdict = verify(claim, trials=TRIALS, seed=seed)
    assert judge_correct(verdict) == "right", describe(verdict)


@pytest.mark.parametrize(
    ("seed", "mutant"),
    [pytest.param(seed, mutant, id=mutant.claim.name) for seed, mutant in enumerate(MUTANTS)][
        ::SAMPLED
    ],
)
def test_every_mutant_is_refuted_and_never_wrongly_diagnosed(seed: int, mutant: Mutant):
    verdict = verify(mutant.claim, trials=TRIALS, seed=seed)
    assert judge(mutant, verdict) in ("right", "alternatives", "unknown"), describe(verdict)
