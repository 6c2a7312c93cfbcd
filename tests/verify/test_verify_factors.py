"""Factors: c n^k with sizes and scalars, read off pooled trials."""

import numpy as np
import pytest

from jaxnn.verify.diagnosis.factors import ONE, Factor, fit, recognise

SIZES = [{"n": 5.0, "m": 3.0, "rate": 0.37}, {"n": 3.0, "m": 7.0, "rate": 1.21},
         {"n": 7.0, "m": 5.0, "rate": 0.83}]  # fmt: skip

COEFFICIENTS = {
    "0": (lambda n, m, rate: 0.0, Factor(0.0)),
    "1": (lambda n, m, rate: 1.0, ONE),
    "-1": (lambda n, m, rate: -1.0, Factor(-1.0)),
    "2": (lambda n, m, rate: 2.0, Factor(2.0)),
    "-1/2": (lambda n, m, rate: -0.5, Factor(-0.5)),
    "n": (lambda n, m, rate: n, Factor(1.0, (("n", 1),))),
    "-2 n": (lambda n, m, rate: -2 * n, Factor(-2.0, (("n", 1),))),
    "1/n": (lambda n, m, rate: 1 / n, Factor(1.0, (("n", -1),))),
    "-2/m": (lambda n, m, rate: -2 / m, Factor(-2.0, (("m", -1),))),
    "1/2 rate": (lambda n, m, rate: rate / 2, Factor(0.5, (("rate", 1),))),
    "1/rate": (lambda n, m, rate: 1 / rate, Factor(1.0, (("rate", -1),))),
    "n/m": (lambda n, m, rate: n / m, Factor(1.0, (("n", 1), ("m", -1)))),
    "n m": (lambda n, m, rate: n * m, Factor(1.0, (("n", 1), ("m", 1)))),
    "-1/(n m)": (lambda n, m, rate: -1 / (n * m), Factor(-1.0, (("n", -1), ("m", -1)))),
    "rate/m": (lambda n, m, rate: rate / m, Factor(1.0, (("m", -1), ("rate", 1)))),
    "n^2": (lambda n, m, rate: n**2, Factor(1.0, (("n", 2),))),
    "2/n^2": (lambda n, m, rate: 2 / n**2, Factor(2.0, (("n", -2),))),
    "1/sqrt(n)": (lambda n, m, rate: n**-0.5, Factor(1.0, (("n", -0.5),))),
    "n^3": (lambda n, m, rate: n**3, Factor(1.0, (("n", 3),))),
    "2/(3 n)": (lambda n, m, rate: 2 / 3 / n, Factor(2 / 3, (("n", -1),))),
    "-7/10": (lambda n, m, rate: -0.7, Factor(-0.7)),
    "0.739085": (lambda n, m, rate: 0.739085, Factor(0.739085)),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_coefficient_is_recognised_by_how_it_changes_with_the_sizes(name):
    rule, expected = COEFFICIENTS[name]
    found = recognise([rule(**context) for context in SIZES], SIZES)
    assert found is not None
    assert found.value == expected.value
    assert dict(found.powers) == dict(expected.powers)


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_a_coefficient_has_a_value_in_every_context(name):
    rule, coefficient = COEFFICIENTS[name]
    for context in SIZES:
        assert coefficient.at(context) == pytest.approx(rule(**context), rel=1e-15)


@pytest.mark.parametrize("name", sorted(set(COEFFICIENTS) - {"rate/m"}))
def test_a_coefficient_prints_as_a_factor(name):
    assert str(COEFFICIENTS[name][1]) == name


NO_COEFFICIENTS = {
    "0.739 n": lambda n, m, rate: 0.7390851 * n,
    "n - 1": lambda n, m, rate: n - 1,
    "log n": lambda n, m, rate: np.log(n),
    "1 + 1e-5 n": lambda n, m, rate: 1 + 1e-5 * n,
    "n m rate": lambda n, m, rate: n * m * rate,
}


@pytest.mark.parametrize("name", NO_COEFFICIENTS)
def test_an_unknown_coefficient_is_not_recognised(name):
    assert recognise([NO_COEFFICIENTS[name](**context) for context in SIZES], SIZES) is None


def test_a_plain_number_is_preferred_to_a_product_with_sizes():
    contexts = [{"n": 2.0}, {"n": 2.0}]
    assert recognise([2.0, 2.0], contexts) == Factor(2.0)


def columns(seed=0, trials=12):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(trials, 3, 2)) for _ in range(3)]


@pytest.mark.parametrize("factors", [(1.0, 0.0, 0.0), (-1.0, 2.0, 0.5), (0.3, -7.0, 1e-3)], ids=str)
def test_the_coefficients_of_a_combination_are_found_in_every_group(factors):
    parts = columns()
    target = sum(f * part for f, part in zip(factors, parts, strict=True))
    found = fit(np.asarray(target), parts, groups=3)
    np.testing.assert_allclose(np.array(found, float), [factors] * 3, rtol=0, atol=1e-12)


def test_every_group_has_separate_coefficients():
    data, penalty, _ = columns()
    strength = np.repeat([0.1, 2.0, 30.0], 4)[:, None, None]
    found = fit(-data + strength * penalty, [data, penalty], groups=3)
    np.testing.assert_allclose(np.array(found, float), [[-1, 0.1], [-1, 2], [-1, 30]])


def test_a_column_of_zeros_has_no_coefficient():
    data, penalty, _ = columns()
    found = fit(2 * data, [data, 0 * penalty], groups=2)
    assert found is not None
    assert [row[1] for row in found] == [None, None]
    np.testing.assert_allclose(np.array([row[0] for row in found], float), [2.0, 2.0])


def test_zero_is_the_only_combination_of_columns_of_zeros():
    zeros = np.zeros((4, 3))
    assert fit(zeros, [zeros], groups=2) == [[None], [None]]
    assert fit(zeros + 1, [zeros], groups=2) is None


def off_by_a_ten_millionth(parts):
    return parts[0] + 1e-7 * parts[2]


NO_COMBINATIONS = {
    "an independent array": lambda parts: (parts[2], parts[:2]),
    "a ten-millionth off": lambda parts: (off_by_a_ten_millionth(parts), parts[:2]),
    "the square of a column": lambda parts: (parts[0] ** 2, parts[:2]),
    "not a number": lambda parts: (parts[0] * np.nan, parts[:2]),
    "infinite": lambda parts: (parts[0], [parts[0], parts[1] + np.inf]),
    "more than one combination": lambda parts: (parts[0], [parts[0], 2 * parts[0]]),
}


@pytest.mark.parametrize("what", NO_COMBINATIONS)
def test_no_combination_and_several_combinations_have_no_coefficients(what):
    target, parts = NO_COMBINATIONS[what](columns())
    assert fit(target, parts, groups=3) is None
