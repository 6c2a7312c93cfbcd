"""The diagnosis of a refuted claim: the sizes of the trials, and a failure inside."""

import jax.numpy as jnp
import pytest

from jaxnn.verify import claim, matrix, positive, real, scalar, verify
from jaxnn.verify.diagnosis import ablation, hypotheses
from jaxnn.verify.diagnosis.trials import diagnosis_sizes

TRIALS = 50


@claim(of=lambda x: jnp.sum(x**2), kind="gradient", inputs={"x": real("n")}, wrt="x")
def wrong_sign(x):
    return -2 * x


def test_a_refuted_claim_has_a_diagnosis():
    verdict = verify(wrong_sign, trials=TRIALS)
    assert [finding.code for finding in verdict.diagnosis] == ["sign"]


def test_a_failure_of_the_diagnosis_leaves_the_verdict_and_the_counterexample(monkeypatch):
    def fails(*arguments):
        raise ZeroDivisionError("a fault of the diagnosis")

    monkeypatch.setattr(hypotheses, "right", fails)
    verdict = verify(wrong_sign, trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert verdict.counterexample is not None
    assert [finding.code for finding in verdict.diagnosis] == ["unknown"]
    assert "ZeroDivisionError: a fault of the diagnosis" in verdict.diagnosis[0].detail


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_the_sizes_of_a_diagnosis_are_distinct_and_no_size_that_the_claim_fixes(choice):
    inputs = {"a": matrix("n", "m"), "b": matrix("k", "j"), "c": real(5), "d": real("i", 2)}
    made = claim(of=lambda a, b, c, d: jnp.sum(c), kind="gradient", inputs=inputs, wrt="c")
    sizes = diagnosis_sizes(made(lambda c: c), choice)
    assert sorted(sizes) == ["i", "j", "k", "m", "n"]
    assert len({*sizes.values(), 2, 5}) == 7


def test_the_sizes_change_from_choice_to_choice():
    choices = [diagnosis_sizes(wrong_sign, choice)["n"] for choice in (0, 1, 2)]
    assert len(set(choices)) == 3


def test_a_summand_that_is_the_first_input_itself_is_a_term():
    forgotten = claim(of=lambda x: x * x + x, wrt="x", kind="gradient", inputs={"x": scalar()})
    verdict = verify(forgotten(lambda x: 2 * x), trials=TRIALS)
    assert [(found.code, found.where) for found in verdict.diagnosis] == [
        ("missing_term", "the data term")
    ]


def test_a_sum_of_values_of_other_shapes_is_no_activation():
    """The entries of the matrix of a solve come from a number and from a matrix."""

    def of(X, y, l2):  # noqa: N803
        return jnp.linalg.solve(X.T @ X + l2 * jnp.eye(X.shape[1]), X.T @ y)

    def times_examples(X, y, l2):  # noqa: N803
        return jnp.linalg.solve(X.T @ X + len(y) * l2 * jnp.eye(X.shape[1]), X.T @ y)

    inputs = {"X": real("N", "D"), "y": real("N"), "l2": positive()}
    verdict = verify(claim(of=of, kind="value", inputs=inputs)(times_examples), trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert "failed" not in verdict.diagnosis[0].detail


def test_a_graph_with_too_many_places_for_a_mistake_is_told_and_not_tried(monkeypatch):
    monkeypatch.setattr(ablation, "MOST_KNOBS", 2)

    def of(x):
        return jnp.sum(jnp.sin(x) * x**2)

    @claim(of=of, wrt="x", kind="gradient", inputs={"x": real("n")})
    def another(x):
        return jnp.cosh(x)

    verdict = verify(another, trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert "more than 2 places for a mistake, too many to try" in verdict.diagnosis[0].detail
