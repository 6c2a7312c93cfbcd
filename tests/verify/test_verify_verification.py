"""Verifying: in a test suite, with a seed, with so many trials."""

import json

import jax
import jax.numpy as jnp
import pytest
from samples import (
    TRIALS,
    VECTOR,
    cross_entropy,
    cubes,
    made,
    textbook_softmax,
    weighted,
    weighted_by_w,
)

from jaxnn.verify import assert_holds, real, simplex, verify
from jaxnn.verify.report import to_json
from jaxnn.verify.verification import describe

PROBABILITIES = {"z": real("n"), "y": simplex("n")}


def raises(x):
    raise RuntimeError("no such derivative")


CLAIMS = {
    "holds": made(
        lambda z, y: jax.nn.softmax(z) - y, of=cross_entropy, wrt="z", inputs=PROBABILITIES
    ),
    "holds_unstable": made(textbook_softmax, of=lambda x: jax.nn.softmax(x), kind="value", wrt=()),
    "holds_other_layout": made(
        lambda w, x: weighted_by_w(w, x).T,
        of=weighted,
        wrt="w",
        inputs={"w": real("out", "in"), "x": real("in")},
    ),
    "kink": made(lambda x: (x > 0) * 1.0, of=lambda x: jnp.sum(jax.nn.relu(x))),
    "refuted": made(lambda x: -3 * x**2, of=cubes),
    "error": made(raises, of=cubes),
}


def test_a_claim_that_holds_passes():
    assert_holds(CLAIMS["holds"], trials=TRIALS, allow=("holds",))


def test_the_message_of_a_failed_test_has_the_evidence():
    claimed = made(
        lambda z, y: y - jax.nn.softmax(z), of=cross_entropy, wrt="z", inputs=PROBABILITIES
    )
    with pytest.raises(AssertionError) as failure:
        assert_holds(claimed, trials=TRIALS)
    message = str(failure.value)
    assert "<lambda>: refuted; sign" in message
    assert "z[0] is claimed 0.5, true -0.5" in message
    assert "for instance at {'y': [1.0, 0.0], 'z': [0.0, 0.0]}" in message


def test_a_transposed_gradient_passes_only_where_another_layout_is_allowed():
    with pytest.raises(AssertionError, match="right up to the transpose"):
        assert_holds(CLAIMS["holds_other_layout"], trials=TRIALS)
    assert_holds(CLAIMS["holds_other_layout"], trials=TRIALS, allow=("holds_other_layout",))


@pytest.mark.parametrize("verdict", ["holds_unstable", "kink"])
def test_what_passes_may_be_restricted(verdict):
    assert_holds(CLAIMS[verdict], trials=TRIALS)
    assert_holds(CLAIMS[verdict], trials=TRIALS, allow=(verdict,))
    with pytest.raises(AssertionError, match=verdict):
        assert_holds(CLAIMS[verdict], trials=TRIALS, allow=("holds",))


@pytest.mark.parametrize("verdict", ["error", "refuted"])
def test_errors_and_refutations_pass_only_where_they_are_expected(verdict):
    with pytest.raises(AssertionError, match=verdict):
        assert_holds(CLAIMS[verdict], trials=TRIALS)
    assert_holds(CLAIMS[verdict], trials=TRIALS, allow=(verdict,))


def timeless(verdict):
    """The verdict without the measured times."""
    certificate = verdict.certificate and verdict.certificate._replace(seconds=0.0)
    return verdict._replace(seconds=0.0, certificate=certificate)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("verdict", ["refuted", "holds_unstable", "kink"])
def test_the_same_seed_gives_the_same_evidence(verdict, seed):
    one, other = (
        to_json([timeless(verify(CLAIMS[verdict], trials=TRIALS, seed=seed))]) for _ in range(2)
    )
    assert one == other
    assert json.loads(one)[0]["verdict"] == verdict


def test_another_seed_draws_other_sizes_and_numbers():
    seen = set()

    def formula(x):
        seen.add(x.shape)
        return 3 * x**2

    claimed = made(formula, of=cubes)
    for seed in range(3):
        assert verify(claimed, trials=TRIALS, seed=seed).verdict == "holds"
    assert len(seen) > 1


@pytest.mark.parametrize(("given", "expected"), [(None, 50), (1, 1), (7, 7)])
def test_as_many_trials_as_asked_for(given, expected):
    claimed = made(lambda x: 3 * x**2, of=cubes, trials=50)
    judged = verify(claimed, trials=given)
    assert (judged.trials, judged.verdict) == (expected, "holds")


def test_a_formula_wrong_in_one_of_a_thousand_places_needs_the_trials():
    """Where x lies between 2.9 and 2.91, one of about 4,000 normal numbers."""

    def formula(x):
        return jnp.where((x > 2.9) & (x < 2.91), 0.0, 3 * x**2)

    claimed = made(formula, of=cubes, inputs={"x": real()})
    assert verify(claimed, trials=10_000).verdict == "refuted"
    assert verify(claimed, trials=10).verdict == "holds"


def test_no_trials_at_all_are_refused():
    with pytest.raises(ValueError, match="trials is 0, expected a positive integer"):
        verify(made(lambda x: 3 * x**2, of=cubes), trials=0)


def test_the_precision_of_the_caller_is_left_alone():
    verify(made(lambda x: 3 * x**2, of=cubes, inputs=VECTOR), trials=TRIALS)
    assert jnp.ones(1).dtype == jnp.float32


def test_a_verdict_is_described_in_one_line():
    text = describe(verify(CLAIMS["holds"], trials=TRIALS)._replace(name="p_minus_y"))
    assert text == "p_minus_y: holds"
