"""The catalogue of mutants: derivations in float64, verdicts, diagnoses.

All derivations are compared with autodiff. ``verify`` judges every seventh right derivation here,
and every 21st mutant among the slow tests; ``confusion_matrix.py``, which ``.ci/run`` runs, judges
every claim.
"""

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
from jaxnn.verify.graph import jit
from jaxnn.verify.inputs import draw, is_input, symbols
from jaxnn.verify.verification import describe, verify

POINTS = 6
TRIALS = 200
SCALES = {
    "sign": lambda sizes: [-1.0],
    "factor": lambda sizes: [2.0, 0.5],
    "missing_mean": lambda sizes: list(sizes),
    "extra_mean": lambda sizes: [1 / n for n in (*sizes, *(a * b for a in sizes for b in sizes))],
}


@pytest.fixture(autouse=True)
def _room_for_programs(request):
    """Frees compiled programs after every 20 claims: programs fill the memory of a process."""
    yield
    if request.node.callspec.params.get("seed", 0) % 20 == 19:
        jax.clear_caches()


def reference(claim: Claim, inputs: Mapping[str, Any]) -> Any:
    """The reference of a claim: the derivative by autodiff."""

    def of(*values):
        replaced = dict(inputs)
        for path, value in zip(claim.wrt, values, strict=True):
            replaced = with_path(replaced, path, value)
        return call(claim.of, replaced)

    values = tuple(at_path(inputs, path) for path in claim.wrt)
    positions = tuple(range(len(values)))
    if claim.kind == "value":
        return of()
    if claim.kind == "hessian":
        return jax.hessian(of)(*values)
    differentiate = jax.jacrev if claim.kind == "jacobian" else jax.grad
    result = differentiate(of, positions)(*values)
    if claim.layout is not None:
        result = tuple(as_vectors(leaf, claim.layout) for leaf in result)
    if claim.kind == "update":
        rate = inputs[str(learning_rate_name(claim))]
        result = jax.tree.map(lambda value, slope: value - rate * slope, values, result)
    return result[0] if claim.single else result


def as_vectors(derivative: jax.Array, layout: str) -> jax.Array:
    """A derivative by a matrix as a derivative by the vector of all columns, or of all rows."""
    if layout == "vec":
        derivative = derivative.swapaxes(-1, -2)
    return derivative.reshape(*derivative.shape[:-2], -1)


class Values(NamedTuple):
    """The leaves of all derivations of a family, with a leading axis of points."""

    sizes: tuple[int, ...]
    reference: list[list[np.ndarray]]  # for every way of writing the function
    formula: dict[str, list[np.ndarray] | None]  # by the claim's name; None: cannot be evaluated


@functools.cache
def values(family: Family) -> Values:
    """Reference and formula values in float64, at inputs at which no function overflows."""
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
            [jax.tree.leaves(reference(claim, point)) for claim in family.correct],
            {claim.name: jax.tree.leaves(claim.evaluate(point)) for claim in fitting},
        )

    with jax.enable_x64(True):
        fitting = [claim for claim in claims if fits(claim, inputs)]
        true, formula = jax.tree.map(np.asarray, jit(jax.vmap(everything))(inputs))
    return Values(
        tuple(sizes.values()), true, {claim.name: formula.get(claim.name) for claim in claims}
    )


def fits(claim: Claim, inputs) -> bool:
    try:
        jax.eval_shape(jax.vmap(claim.evaluate), inputs)
    except (TypeError, ValueError):
        return False
    return True


def differs(formula: np.ndarray, true: np.ndarray) -> bool:
    """Whether a formula value differs from the reference value by more than rounding."""
    return formula.shape != true.shape or not np.allclose(formula, true, rtol=1e-8, atol=1e-12)


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
    formula, true = values(family).formula[family.correct[way].name], values(family).reference[way]
    assert formula is not None
    assert len(formula) == len(true)
    assert all(np.all(np.isfinite(leaf)) for leaf in true)
    assert not any(map(differs, formula, true))


@pytest.mark.parametrize(
    ("family", "mutant"),
    only(lambda mutant: mutant.verdict == "refuted" and "shape" not in mutant.codes),
)
def test_every_mutant_has_the_shape_of_the_derivative_and_differs(family: Family, mutant: Mutant):
    formula, true = values(family).formula[mutant.claim.name], values(family).reference[0]
    assert formula is not None
    assert [c.shape for c in formula] == [t.shape for t in true]
    assert any(map(differs, formula, true))


@pytest.mark.parametrize(
    ("family", "mutant"), only(lambda mutant: mutant.verdict == "holds_other_layout")
)
def test_another_layout_has_the_entries_of_the_derivative(family: Family, mutant: Mutant):
    formula, true = values(family).formula[mutant.claim.name], values(family).reference[0]
    assert formula is not None
    assert any(map(differs, formula, true))
    for c, t in zip(formula, true, strict=True):
        assert not differs(
            np.sort(c.reshape(POINTS, -1), axis=1), np.sort(t.reshape(POINTS, -1), axis=1)
        )


@pytest.mark.parametrize(("family", "mutant"), only(lambda mutant: "shape" in mutant.codes))
def test_a_mutant_of_shape_does_not_fit(family: Family, mutant: Mutant):
    formula, true = values(family).formula[mutant.claim.name], values(family).reference[0]
    assert formula is None or [c.shape for c in formula] != [t.shape for t in true]


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
    formula, true = values(family).formula[mutant.claim.name], values(family).reference[0]
    assert formula is not None
    scales = [np.vdot(c, t) / np.vdot(t, t) for c, t in zip(formula, true, strict=True)]
    for c, t, scale in zip(formula, true, scales, strict=True):
        assert not differs(c, scale * t)
    off = [scale for scale in scales if not np.isclose(scale, 1)]
    assert off
    assert all(
        np.isclose(scale, SCALES[mutant.true_class](values(family).sizes)).any() for scale in off
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_mutants_that_are_the_same_function_may_be_explained_alike(family: Family):
    for one, other in itertools.combinations(family.mutants, 2):
        a, b = (values(family).formula[mutant.claim.name] for mutant in (one, other))
        if a is not None and b is not None and not any(map(differs, a, b)):
            assert one.codes == other.codes


def every(step, claims):
    """Every ``step``-th claim or mutant as a case, with the place in the catalogue as the seed."""
    return [pytest.param(seed, case, id=name) for seed, (case, name) in enumerate(claims)][::step]


@pytest.mark.parametrize(("seed", "claim"), every(7, ((c, c.name) for c in CORRECT)))
def test_every_seventh_right_derivation_is_not_refuted(seed: int, claim: Claim):
    verdict = verify(claim, trials=TRIALS, seed=seed)
    assert judge_correct(verdict) == "right", describe(verdict)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "mutant"), every(21, ((m, m.claim.name) for m in MUTANTS)))
def test_every_21st_mutant_is_refuted_and_not_wrongly_diagnosed(seed: int, mutant: Mutant):
    verdict = verify(mutant.claim, trials=TRIALS, seed=seed)
    assert judge(mutant, verdict) in ("right", "alternatives", "unknown"), describe(verdict)
    assert not any("the diagnosis failed" in finding.detail for finding in verdict.diagnosis)
