"""Claims about expectations: sums over outcomes, samples, and what samples cannot decide."""

import itertools
import json
import re
import sys
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from expected_values import CASES

from jaxnn.verify import (
    Sampling,
    Verdict,
    bernoulli,
    categorical,
    claim,
    confidence,
    expectation,
    interval,
    positive,
    real,
    sampled,
    verify,
)
from jaxnn.verify.report import to_html
from jaxnn.verify.verdict import rounded_up
from jaxnn.verify.verification import describe
from jaxnn.verify.worker import decode, encode

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


def test_an_expectation_stays_one_beside_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    made = claim(of=DROPOUT, kind="value", inputs=KEPT)(lambda x: x)
    assert made.of is DROPOUT


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


# Samples

NORMAL = {"z": sampled(lambda key: jax.random.normal(key))}
AROUND = {"mu": real(), "sigma": interval(0.5, 2)}


def normal_density(outcome, mu, sigma):
    return -jnp.log(sigma) - ((outcome - mu) / sigma) ** 2 / 2


def drawn(log_density=normal_density):
    """An outcome x around mu, with a density."""
    return {"x": sampled(lambda key, mu, sigma: mu + sigma * jax.random.normal(key), log_density)}


@pytest.fixture
def shortly(monkeypatch):
    monkeypatch.setattr(confidence, "SECONDS", 0.6)
    monkeypatch.setattr(confidence, "CHECKED_SECONDS", 0.3)


def sampled_verdict(of, inputs, formula, over=None, **more):
    """The verdict on the mean of a formula over random inputs, or on a plain formula."""
    declared: dict[str, Any] = {"kind": "value"} | more
    formula = expectation(formula, over=over) if over else formula
    return verify(claim(of=of, inputs=inputs, **declared)(formula), trials=TRIALS)


@pytest.mark.usefixtures("shortly")
def test_a_claim_that_samples_do_not_refute_holds_to_the_difference_left():
    verdict = sampled_verdict(
        lambda mu, sigma: 2.0 + jnp.sin(mu) * jnp.exp(-(sigma**2) / 2),
        AROUND,
        lambda mu, sigma, z: 2.0 + jnp.sin(mu + sigma * z),
        NORMAL,
    )
    assert verdict.verdict == "holds"
    assert verdict.sampling is not None
    assert 1e-4 < verdict.sampling.left < 0.1
    assert verdict.words == f"holds to {rounded_up(verdict.sampling.left)}"
    assert verdict.sampling.error == 1e-6
    assert "no sample is 30 times as far from the mean" in describe(verdict)
    assert float(rounded_up(verdict.sampling.left)) >= verdict.sampling.left


BIASED = {
    "n in place of n - 1": (
        lambda sigma: sigma**2,
        {"z": sampled(lambda key: jax.random.normal(key, (4,)))},
        lambda sigma, z: jnp.var(sigma * z),
        0.75,
    ),
    "no importance weight": (
        lambda sigma: jnp.exp(sigma**2 / 2),
        NORMAL,
        lambda sigma, z: jnp.exp(0.5 * sigma * z),
        None,
    ),
    "a mean of maxima": (
        lambda sigma: 1.0 + 0 * sigma,
        {"z": sampled(lambda key: jax.random.normal(key, (2,)))},
        lambda sigma, z: 1.0 + jnp.max(sigma * z),
        None,
    ),
}


@pytest.mark.usefixtures("shortly")
@pytest.mark.parametrize("name", BIASED)
def test_a_biased_estimator_is_refuted_by_samples(name):
    of, over, formula, factor = BIASED[name]
    verdict = sampled_verdict(of, {"sigma": interval(0.8, 1.2)}, formula, over)
    assert verdict.verdict == "refuted"
    assert verdict.worst is not None
    assert (verdict.worst.at_least or 0) > 0
    assert "by samples: they differ by at least" in describe(verdict)
    if factor:  # the expectation is 3 / 4 of the variance
        assert verdict.worst.claimed / verdict.worst.true == pytest.approx(factor, abs=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("shortly")
@pytest.mark.parametrize(
    ("power", "mean"), [(-1 / 1.1, 11.0), (-1 / 1.5, 3.0)], ids=["barely a mean", "no variance"]
)
def test_heavy_tails_are_not_refuted_and_said(power, mean):
    uniform = {"u": sampled(lambda key: jax.random.uniform(key, minval=1e-300))}
    verdict = sampled_verdict(
        lambda s: mean * s, {"s": positive()}, lambda s, u: s * u**power, uniform
    )
    assert verdict.verdict == "undecided"
    assert not verdict.holds
    assert "variance is infinite" in verdict.detail


@pytest.mark.slow
@pytest.mark.usefixtures("shortly")
def test_a_rare_event_that_no_sample_shows_is_not_refuted():
    tail = 9.865876450376946e-10  # 1 - Phi(6)
    verdict = sampled_verdict(
        lambda s: tail + 0 * s, {"s": real()}, lambda s, z: (z > 6) + 0 * s, NORMAL
    )
    assert verdict.verdict == "undecided"


@pytest.mark.parametrize("bias", [1e-9, 1e-6])
def test_a_tiny_bias_of_an_enumerated_expectation_is_refuted(bias):
    verdict = sampled_verdict(
        lambda x: x,
        {"x": real("n")},
        lambda x, m: (1 + bias) * 2 * m * x,
        {"m": bernoulli(0.5, "x")},
    )
    assert verdict.verdict == "refuted"


@pytest.mark.parametrize("p", [0, 1, 0.0, 1.0])
def test_a_certain_mask_has_one_outcome(p):
    # m / p of the impossible outcome would be no number.
    verdict = sampled_verdict(
        lambda x: p * x,
        {"x": real("n")},
        lambda x, m: jnp.where(m == p, m * x, jnp.nan),
        {"m": bernoulli(p, "x")},
    )
    assert verdict.holds


@pytest.mark.usefixtures("shortly")
def test_too_many_masks_are_sampled():
    many = {"m": bernoulli(0.5, "x")}
    twice = expectation(lambda x, m: 1.0 + jnp.mean(m * x) * 2, over=many)
    verdict = sampled_verdict(lambda x: 1.0 + jnp.mean(x), {"x": real(20)}, twice)
    assert verdict.verdict == "holds"
    assert verdict.sampling is not None
    with pytest.raises(ValueError, match="over 1,048,576 outcomes, expected at most 4,096"):
        twice(np.ones(20))


def test_a_random_input_may_depend_on_another():
    # E b = sum_a P(a) sum_b P(b | a) b with P(a = 1) = p, P(b = 1 | a) = (1 + a) / 4.
    chain = {"a": bernoulli("p"), "b": bernoulli(lambda a: (1 + a) / 4)}
    found = expectation(lambda b, p: b, over=chain)
    assert float(found(p=0.3)) == pytest.approx(0.7 / 4 + 0.3 / 2)


@pytest.mark.slow
@pytest.mark.usefixtures("shortly")
def test_a_derivative_by_a_parameter_of_the_outcomes_is_that_of_the_mean():
    # d/d sigma E x^2 = 2 sigma; without the density x^2 does not depend on sigma.
    over = expectation(lambda x: x**2, over=drawn())
    declared = {"kind": "gradient", "wrt": "sigma"}
    assert sampled_verdict(over, AROUND, lambda sigma: sigma, **declared).verdict == "refuted"
    right = sampled_verdict(over, AROUND, lambda sigma: 2 * sigma, **declared)
    assert right.verdict in ("holds", "undecided")


REFUSED = {
    "no density": (drawn(None), lambda x: x, "sigma", "the outcomes of 'x' depend on 'sigma'"),
    "no normaliser": (
        drawn(lambda outcome, mu, sigma: -(((outcome - mu) / sigma) ** 2) / 2),
        lambda x: x,
        "sigma",
        "log_density of 'x' is not the logarithm of the density",
    ),
    "another variance": (
        drawn(lambda outcome, mu, sigma: -(((outcome - mu) / sigma) ** 2)),
        lambda x: x,
        "mu",
        "log_density of 'x' is not the logarithm of the density",
    ),
    "a jump": (NORMAL, lambda mu, z: (mu + z > 0) * 1.0, "mu", "`of` jumps where 'mu' moves"),
    "no key": (
        {"z": sampled(lambda key: jnp.ones(()))},
        lambda mu, z: mu * z,
        "mu",
        "16 draws of 'z' are equal, expected a draw that depends on the key",
    ),
    "probabilities": (
        {"a": categorical(lambda mu: jnp.stack([mu, 1.0]))},
        lambda a: a,
        "mu",
        "the probabilities of 'a' are .*, expected numbers from 0 whose sum is 1",
    ),
    "not finite": (
        NORMAL,
        lambda mu, z: jnp.log(z) + mu,
        "mu",
        "`of` is not finite at some outcomes",
    ),
}


@pytest.mark.usefixtures("shortly")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_expectation_is_an_error_in_one_line(name):
    over, function, wrt, message = REFUSED[name]
    of = expectation(function, over=over)
    verdict = sampled_verdict(of, AROUND, lambda mu: mu, kind="gradient", wrt=wrt)
    assert verdict.verdict == "error"
    assert re.search(message, verdict.detail)
    assert "\n" not in verdict.detail


@pytest.mark.usefixtures("shortly")
def test_samples_of_a_formula_that_are_not_finite_are_an_error():
    verdict = sampled_verdict(lambda mu: mu, {"mu": real()}, lambda mu, z: mu + jnp.log(z), NORMAL)
    assert verdict.verdict == "error"
    assert "4,096 samples of the formula are not finite, expected numbers" in verdict.detail


def test_a_verdict_by_samples_survives_json():
    found = Sampling(4096, 4, 1.2e-3, 1e-6, "none")
    verdict = Verdict("a", "", "value", "holds", sampling=found)
    assert decode(json.loads(encode(verdict))) == verdict


# The catalogue


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.claim.name.startswith(("dropout is", "minibatch"))],
    ids=lambda case: case.claim.name,
)
def test_a_sample_of_the_catalogue_is_judged_as_expected(case):
    verdict = verify(case.claim, trials=TRIALS)
    assert verdict.holds if case.right else verdict.verdict == "refuted"


def test_the_catalogue_has_30_right_claims_and_60_biased_ones():
    assert sum(case.right for case in CASES) >= 30
    assert sum(not case.right for case in CASES) >= 60


class Drawn(confidence.Sampler):
    """Samples of claimed - true by NumPy, one entry."""

    def __init__(self, draw):
        self.draw, self.batch = draw, 4096
        self.zeros = confidence.Sums(*[np.zeros(1)] * 6)

    def __call__(self, point, batches):
        first, point.drawn = point.drawn, point.drawn + batches
        rng = np.random.default_rng([int(point.key), first])
        y = self.draw(rng, batches * self.batch)
        d = y - point.centre
        sums = d.sum(), (d**2).sum(), np.abs(d).max(), y.sum(), 0.0, (y**2).sum()
        return confidence.Sums(*(np.atleast_1d(value) for value in sums))

    def enclosed(self, seed, samples):
        """The enclosure of the mean after so many samples."""
        point, _ = self.pilot([], seed)
        while point.count < samples:
            self._further(point, 4)
        return point


MEANS_OF_ZERO = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.exponential(size=n) - 1,
    "rare": lambda rng, n: (rng.random(n) < 1e-4) - 1e-4,
    "rare and large": lambda rng, n: 100 * (rng.random(n) < 1e-4) - 1e-2,
    "lognormal": lambda rng, n: np.exp(3 * rng.normal(size=n) - 4.5) - 1,
    "no variance": lambda rng, n: 3 - rng.random(n) ** (-1 / 1.5),
    "barely a mean": lambda rng, n: rng.random(n) ** (-1 / 1.1) - 11,
    "t": lambda rng, n: rng.standard_t(1.2, n),
}


@pytest.mark.parametrize("name", MEANS_OF_ZERO)
def test_a_mean_of_zero_is_never_refuted(name):
    points = [Drawn(MEANS_OF_ZERO[name]).enclosed(seed, 2**16) for seed in range(20)]
    assert not any(point.refuted(1) for point in points)


@pytest.mark.parametrize("name", ["normal", "skewed", "lognormal"])
def test_a_mean_of_a_tenth_is_refuted_where_the_spread_is_known(name):
    shifted = Drawn(lambda rng, n: MEANS_OF_ZERO[name](rng, n) + 0.1)
    heavy = name == "lognormal"
    assert shifted.enclosed(0, 2**17).refuted(1) is not heavy


def test_the_enclosure_is_no_narrower_than_the_law_of_large_numbers_allows():
    # A mean of n normal numbers is off by sqrt(2 log(2 / error) / n) as rarely as error says.
    point = Drawn(MEANS_OF_ZERO["normal"]).enclosed(0, 2**18)
    least = np.sqrt(2 * np.log(2e6) / point.count)
    assert least < point.radius(1)[0] < 4 * least


def test_a_report_has_the_difference_left():
    found = Sampling(4096, 4, 1.2e-3, 1e-6, "no sample is far")
    claimed = claim(of=lambda x: x, kind="value", inputs={"x": real()})(lambda x: x)
    verdict = Verdict("a", "", "value", "holds", sampling=found)
    page = to_html([(claimed, verdict)])
    for words in ("holds to 1.2e-03", "4,096 at each of 4 inputs", "if no sample is far"):
        assert words in page
