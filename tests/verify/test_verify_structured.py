"""Claims whose inputs have structure, but are no parameters: keys, masks, whole numbers, orders."""

# ruff: noqa: N803

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import verdict_on

from jaxnn.verify import integers, key, mask, orthogonal, positive, real, sorted_, sphere


def dropped(key, x):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0.0)


def of_dropped(key, x):
    return jnp.sum(dropped(key, x) ** 2) / 2


DROPOUT = {"key": key(), "x": real("n")}


def test_formula_and_function_get_the_same_key():
    found = verdict_on(lambda key, x: 2 * dropped(key, x), of=of_dropped, inputs=DROPOUT)
    assert found.verdict == "holds"
    assert found.certificate
    assert found.certificate.patterns == 3


@pytest.mark.slow
def test_dropout_without_the_scale_is_refuted_with_a_factor():
    found = verdict_on(lambda key, x: dropped(key, x), of=of_dropped, inputs=DROPOUT)
    assert found.verdict == "refuted"
    assert [f.code for f in found.diagnosis] == ["factor"]
    assert found.counterexample
    data = found.counterexample.inputs["key"]
    assert data.dtype == np.uint32
    with jax.enable_x64(True):  # a key gives other numbers in float32
        x = found.counterexample.inputs["x"]
        assert np.any(dropped(jax.random.wrap_key_data(data), x))


@pytest.mark.slow
def test_a_formula_that_splits_the_key_is_refuted():
    found = verdict_on(
        lambda key, x: 2 * dropped(jax.random.split(key)[0], x), of=of_dropped, inputs=DROPOUT
    )
    assert found.verdict == "refuted"


@pytest.mark.parametrize("boolean", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_mean_over_a_mask_is_defined_at_every_input(boolean):
    seen = set()

    def mean(m, x):
        seen.add(m.dtype.kind)
        return jnp.sum(jnp.where(m, x**2, 0)) / jnp.sum(m)

    declared = {"of": mean, "inputs": {"m": mask("n", boolean=boolean), "x": real("n")}}
    found = verdict_on(lambda m, x: 2 * x * m / jnp.sum(m), **declared)
    assert (found.verdict, found.detail) == ("holds", "")
    assert seen == {"b" if boolean else "f"}
    wrong = verdict_on(lambda m, x: 2 * x * m / m.size, **declared)
    assert wrong.verdict == "refuted"
    assert wrong.counterexample
    assert np.any(wrong.counterexample.inputs["m"] > 0)


def test_a_masked_softmax_has_a_key_in_every_row():
    found = verdict_on(
        lambda q, m: jax.nn.softmax(jnp.where(m > 0, q, -jnp.inf), axis=-1),
        of=lambda q, m: jnp.sum(jax.nn.logsumexp(jnp.where(m > 0, q, -jnp.inf), axis=-1)),
        wrt="q",
        inputs={"q": real("T", "S"), "m": mask("T", "S", axis=-1)},
    )
    assert found.holds
    assert "in the domain" not in found.detail


def test_whole_numbers_are_powers_and_indices():
    seen = set()

    def power(k, x):
        seen.add(k.dtype.kind)
        return jnp.sum(x**k)

    inputs = {"k": integers(1, 5), "x": positive("n")}
    assert verdict_on(lambda k, x: k * x ** (k - 1), of=power, inputs=inputs).verdict == "holds"
    wrong = verdict_on(lambda k, x: (k - 1) * x ** (k - 1), of=power, inputs=inputs)
    assert wrong.verdict == "refuted"
    assert wrong.counterexample
    assert 1 <= wrong.counterexample.inputs["k"] < 5
    assert seen == {"i"}


@pytest.mark.slow
def test_a_formula_right_for_sorted_numbers_alone_holds():
    def maximum(x):
        return jnp.max(x) - jnp.min(x)

    def formula(x):
        return jnp.zeros_like(x).at[-1].set(1.0).at[0].add(-1.0)

    assert verdict_on(formula, of=maximum, inputs={"x": sorted_("n")}).verdict == "holds"
    assert verdict_on(formula, of=maximum, inputs={"x": real("n")}).verdict == "refuted"
    wrong = verdict_on(lambda x: -formula(x), of=maximum, inputs={"x": sorted_("n")})
    assert wrong.counterexample
    assert np.all(np.diff(wrong.counterexample.inputs["x"]) > 0)


def test_an_identity_of_orthogonal_matrices_is_certified_for_both_determinants():
    found = verdict_on(
        lambda Q, x: 2 * x, of=lambda Q, x: jnp.sum((Q @ x) ** 2),
        inputs={"Q": orthogonal("n"), "x": real("n")},
    )  # fmt: skip
    assert found.certificate
    assert found.certificate.patterns == 3


@pytest.mark.slow
def test_an_identity_of_rotations_alone_is_refuted_by_a_reflection():
    found = verdict_on(
        lambda Q, x: 2 * x, of=lambda Q, x: jnp.linalg.det(Q) * jnp.sum(x**2),
        inputs={"Q": orthogonal("n"), "x": real("n")},
    )  # fmt: skip
    assert found.verdict == "refuted"
    assert found.counterexample
    assert np.linalg.det(found.counterexample.inputs["Q"]) < 0


def test_an_identity_of_a_sphere_is_certified_for_all_points():
    found = verdict_on(
        lambda u, x: 2 * (x - u * (u @ x)),
        of=lambda u, x: x @ x - (u @ x) ** 2 * jnp.sum(u**2) ** 3,
        inputs={"u": sphere("n"), "x": real("n")},
    )
    assert found.certificate
    assert found.certificate.patterns == 0
