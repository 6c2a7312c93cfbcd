"""Claims about expectations: sums over outcomes, samples, and what samples cannot decide."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn.verify import (
    bernoulli,
    categorical,
    claim,
    expectation,
    interval,
    real,
    verify,
)

TRIALS = 200


def dropout(x, mask, keep):
    return mask * x / keep


DROPOUT = expectation(dropout, over={"mask": bernoulli("keep", shape="x")})
KEPT = {"x": real("n"), "keep": interval(0, 1)}
POLICY = {"action": categorical(lambda theta: jax.nn.softmax(theta))}
REWARD = expectation(lambda reward, action: reward[action], over=POLICY)
ACTING = {"theta": real("C"), "reward": real("C")}


def test_an_expectation_over_masks_is_the_sum_over_all_masks():
    x, keep = np.array([1.0, -2.0, 0.5]), 0.3
    expected = sum(
        np.prod([keep if kept else 1 - keep for kept in mask]) * np.tanh(np.array(mask) @ x)
        for mask in itertools.product((0, 1), repeat=3)
    )
    found = expectation(lambda x, mask: jnp.tanh(mask @ x), over={"mask": bernoulli(keep, "x")})
    assert float(found(x)) == pytest.approx(expected, rel=1e-6)


def test_dropout_with_the_factor_keeps_the_mean_certified():
    @claim(of=DROPOUT, kind="value", inputs=KEPT)
    def unchanged(x):
        return x

    assert verify(unchanged, trials=TRIALS).words == "holds, certified"


def test_dropout_without_the_factor_is_refuted_and_named():
    @claim(of=DROPOUT, kind="value", inputs=KEPT)
    def scaled(x, keep):
        return keep * x

    verdict = verify(scaled, trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert [finding.code for finding in verdict.diagnosis] == ["factor"]


@pytest.mark.parametrize(("sign", "words"), [(1, "holds, certified"), (-1, "refuted")])
def test_the_estimator_of_reinforce_is_the_gradient_of_the_expected_reward(sign, words):
    @claim(of=REWARD, wrt="theta", kind="gradient", inputs=ACTING)
    @expectation(over=POLICY)
    def reinforce(theta, reward, action):
        return sign * reward[action] * (jnp.eye(len(theta))[action] - jax.nn.softmax(theta))

    assert verify(reinforce, trials=TRIALS).words == words
