"""What a claim's inputs are drawn from: sizes, ordinary values, awkward values, simpler ones."""

import jax
import numpy as np
import pytest

from jaxnn.verify import (
    binary,
    complex_,
    integers,
    interval,
    key,
    label,
    mask,
    matrix,
    one_hot,
    orthogonal,
    positive,
    positive_definite,
    real,
    scalar,
    simplex,
    sorted_,
    sphere,
    symmetric,
    triangular,
)
from jaxnn.verify.inputs import (
    adversarial,
    draw,
    draw_sizes,
    fixed_sizes,
    leaves,
    simple,
    simpler,
    symbols,
)

SIZES = {"n": 5, "B": 3, "C": 4}

INPUTS = {
    "reals": (real("n", "B"), (5, 3)),
    "a matrix": (matrix("C", "n"), (4, 5)),
    "a scalar": (scalar(), ()),
    "a real without size": (real(), ()),
    "positives": (positive("n"), (5,)),
    "probabilities": (simplex("C"), (4,)),
    "probabilities by columns": (simplex("C", "B", axis=0), (4, 3)),
    "one-hot": (one_hot("C"), (4,)),
    "one-hot by columns": (one_hot("C", "B", axis=-2), (4, 3)),
    "a label": (label("C"), ()),
    "labels": (label("B", "C"), (3,)),
    "binary": (binary("n"), (5,)),
    "a fixed size": (real("n", 7), (5, 7)),
    "an interval": (interval(-1, 1, "n", "B"), (5, 3)),
    "a scalar above an end": (interval(2, None), ()),
    "symmetric": (symmetric("n"), (5, 5)),
    "positive definite": (positive_definite(2), (2, 2)),
    "lower triangular": (triangular("n"), (5, 5)),
    "upper triangular": (triangular("n", lower=False), (5, 5)),
    "orthogonal": (orthogonal("n"), (5, 5)),
    "a sphere": (sphere("n"), (5,)),
    "unit rows": (sphere("B", "n"), (3, 5)),
    "sorted": (sorted_("B", "n"), (3, 5)),
    "whole numbers": (integers(-2, 5, "n"), (5,)),
    "a whole number": (integers(3, 4), ()),
    "a mask": (mask("B", "n"), (3, 5)),
    "a mask of Booleans": (mask("n", boolean=True), (5,)),
    "a key": (key(), (2,)),
    "complex numbers, in parts": (complex_("n"), (5, 2)),
}

DTYPES = {"label": np.int64, "integers": np.int64, "key": np.uint32}

WAYS = {
    "drawn": lambda leaf: draw(leaf, SIZES, 40, np.random.default_rng(0)),
    "awkward": lambda leaf: adversarial(leaf, SIZES, np.random.default_rng(0)),
    "simple": lambda leaf: simple(leaf, SIZES, 40, np.random.default_rng(0)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", INPUTS)
def test_values_have_the_shape_that_was_asked_for(what, way):
    leaf, shape = INPUTS[what]
    values = WAYS[way](leaf)
    assert values.shape[1:] == shape
    assert values.dtype == DTYPES.get(leaf.kind, np.float64)
    assert np.all(np.isfinite(values))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("axis", [0, 1])
def test_probabilities_are_not_negative_and_sum_to_one(axis, way):
    p = WAYS[way](simplex("C", "B", axis=axis))
    assert np.all(p >= 0)
    np.testing.assert_allclose(p.sum(axis=axis + 1), 1.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("way", WAYS)
def test_one_hot_vectors_have_one_one(way):
    y = WAYS[way](one_hot("C", "B", axis=0))
    assert set(np.unique(y)) == {0.0, 1.0}
    np.testing.assert_array_equal(y.sum(axis=1), 1.0)


@pytest.mark.parametrize("way", WAYS)
def test_labels_run_over_all_classes_and_no_further(way):
    assert set(np.unique(WAYS[way](label("B", "C")))) == {0, 1, 2, 3}


@pytest.mark.parametrize("way", WAYS)
def test_binary_values_are_zero_and_one(way):
    assert set(np.unique(WAYS[way](binary("n")))) == {0.0, 1.0}


@pytest.mark.parametrize("way", WAYS)
def test_positive_values_are_above_zero(way):
    assert np.all(WAYS[way](positive("n")) > 0)


ENDS = [(-1, 1), (0, None), (None, -3), (1e6, 1e6 + 1), (0, 1e-9), (None, None), (-np.inf, 5)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("low", "high"), ENDS)
def test_values_of_an_interval_are_strictly_between_its_ends(low, high, way):
    values = WAYS[way](interval(low, high, "n"))
    assert np.all(np.isfinite(values))
    assert np.all(values > (-np.inf if low is None else low))
    assert np.all(values < (np.inf if high is None else high))
    assert len(np.unique(values)) > 2


def test_awkward_values_of_an_interval_come_near_both_ends():
    values = WAYS["awkward"](interval(-1, 1, "n"))
    assert 0 < 1 - values.max() < 1e-6
    assert 0 < values.min() + 1 < 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [symmetric, positive_definite])
def test_matrices_are_symmetric_and_those_asked_for_positive_definite(make, way):
    values = WAYS[way](make("n"))
    np.testing.assert_array_equal(values, np.swapaxes(values, 1, 2))
    smallest = np.linalg.eigvalsh(values)[:, 0]
    assert np.all(smallest > 0) if make is positive_definite else np.any(smallest < 0)


@pytest.mark.parametrize("way", WAYS)
def test_triangular_matrices_have_zeros_on_one_side_alone(way):
    below, above = (WAYS[way](triangular("n", lower=lower)) for lower in (True, False))
    assert np.all(np.triu(below, 1) == 0)
    assert np.all(np.tril(above, -1) == 0)
    assert np.any(np.tril(below, -1) != 0)
    assert np.any(np.triu(above, 1) != 0)


@pytest.mark.parametrize("way", WAYS)
def test_orthogonal_matrices_turn_and_reflect(way):
    q = WAYS[way](orthogonal("n"))
    unit = np.einsum("tki,tkj->tij", q, q)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(5), unit.shape), atol=1e-14)
    assert {*np.round(np.linalg.det(q))} == {-1.0, 1.0}


def test_orthogonal_matrices_are_spread_evenly():
    # Haar: the mean of q_ij^2 is 1/n, of (tr q)^2 is 1, of tr q is 0.
    q = draw(orthogonal(4), {}, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.mean(q**2, axis=0), np.full((4, 4), 0.25), atol=0.01)
    trace = np.trace(q, axis1=1, axis2=2)
    assert abs(np.mean(trace)) < 0.03
    assert abs(np.mean(trace**2) - 1) < 0.05


@pytest.mark.parametrize("way", WAYS)
def test_points_of_a_sphere_have_length_one_by_rows(way):
    x = WAYS[way](sphere("B", "n"))
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), 1.0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("way", WAYS)
def test_sorted_numbers_rise_strictly(way):
    assert np.all(np.diff(WAYS[way](sorted_("B", "n")), axis=-1) > 0)


def test_awkward_sorted_numbers_come_near_a_tie():
    steps = np.diff(WAYS["awkward"](sorted_("n")), axis=-1)
    assert 0 < steps.min() < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_whole_numbers_lie_from_low_to_high_less_one(way):
    values = WAYS[way](integers(-2, 5, "n"))
    assert {-2, 4} - {*values.flat} == ({4} if way == "simple" else set())
    assert values.min() >= -2
    assert values.max() <= 4


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_has_a_one_somewhere_or_in_every_line(way):
    anywhere, in_rows = (WAYS[way](mask("B", "n", axis=axis)) for axis in (None, -1))
    assert {*anywhere.flat} == {*in_rows.flat} == {0.0, 1.0}
    assert np.all(anywhere.max(axis=(1, 2)) == 1)
    assert np.all(in_rows.max(axis=2) == 1)


def test_a_mask_has_lines_of_zeros_unless_every_line_has_a_one():
    values = draw(mask("B", 2), SIZES, 200, np.random.default_rng(0))
    assert np.any(values.max(axis=2) == 0)
    assert np.all(draw(mask(1), {}, 50, np.random.default_rng(0)) == 1)


def test_keys_are_those_of_the_jax_library():
    data = draw(key(), {}, 3, np.random.default_rng(0))
    for first, second in data:
        assert first == 0
        np.testing.assert_array_equal(jax.random.key_data(jax.random.key(second)), (0, second))


def test_every_class_of_a_one_hot_vector_is_drawn():
    y = draw(one_hot("C"), SIZES, 200, np.random.default_rng(0))
    assert np.all(y.sum(axis=0) > 20)


def test_reals_are_of_either_sign_and_of_several_scales():
    values = draw(real("n"), SIZES, 2000, np.random.default_rng(0))
    spreads = np.std(values, axis=1)
    assert abs(values.mean()) < 0.1
    assert np.quantile(spreads, 0.1) < 0.4
    assert np.quantile(spreads, 0.9) > 2.0


def test_the_same_generator_of_random_numbers_gives_the_same_values():
    tree = {"x": real("n"), "y": [simplex("C"), label("C")]}
    one, other = (draw(tree, SIZES, 5, np.random.default_rng(7)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, other)


MANY = {"w": real("a", "b"), "x": real("b", "c"), "y": simplex("d"), "k": label("e", "f")}


@pytest.mark.parametrize("seed", range(12))
def test_sizes_are_distinct_and_never_one_or_two(seed):
    sizes = draw_sizes(MANY, seed)
    assert set(sizes) == set("abcdef")
    assert len(set(sizes.values())) == 6
    assert min(sizes.values()) >= 3


@pytest.mark.parametrize("seed", range(6))
def test_sizes_differ_from_those_that_the_claim_fixes(seed):
    inputs = {"w": real("n", 3), "x": real(4, "m"), "k": label("B", 5)}
    assert fixed_sizes(inputs) == {3, 4, 5}
    assert not set(draw_sizes(inputs, seed).values()) & {3, 4, 5}


def test_another_seed_gives_a_size_another_number():
    assert len({draw_sizes({"x": real("n")}, seed)["n"] for seed in range(4)}) > 1


def test_sizes_are_named_in_the_order_in_which_they_appear():
    inputs = [real("out", "in"), (label("B", "C"), simplex("C", 2)), real("in")]
    assert symbols(inputs) == ("out", "in", "B", "C")
    assert [leaf.kind for leaf in leaves(inputs)] == ["real", "label", "simplex", "real"]


def _has(predicate):
    return lambda z: any(predicate(row) for row in z)


AWKWARD = {
    "logits of +-1e4": _has(lambda z: z.max() == 1e4 and z.min() == -1e4),
    "a tie for the largest": _has(lambda z: np.sum(z == z.max()) == 2 and z.min() < z.max()),
    "all equal": _has(lambda z: np.all(z == z[0]) and z[0] != 0),
    "one dominant": _has(lambda z: z[0] == 37.4 and np.all(z[1:] <= 0)),
    "zeros at kinks": _has(lambda z: np.all(z == 0)),
    "saturated sigmoids": _has(lambda z: {40.0, -40.0} == set(z)),
    "huge": _has(lambda z: np.all(np.abs(z) >= 1e12)),
    "tiny": _has(lambda z: np.all((np.abs(z) <= 1e-11) & (z != 0))),
}


@pytest.mark.parametrize("what", AWKWARD)
def test_the_awkward_values_contain(what):
    assert AWKWARD[what](adversarial(real("n"), SIZES, np.random.default_rng(0)))


@pytest.mark.parametrize("what", AWKWARD)
@pytest.mark.parametrize("name", ["x", "y"])
def test_every_input_is_awkward_alone_among_ordinary_ones(what, name):
    both = adversarial({"x": real("n"), "y": real("n")}, SIZES, np.random.default_rng(0))
    other = both["y" if name == "x" else "x"]
    ordinary = np.all((np.abs(other) < 20) & (np.round(other, 1) == other), axis=1)
    unlike = ordinary & np.array([len(set(row)) > 2 for row in other])
    assert AWKWARD[what](both[name][unlike])


@pytest.mark.parametrize("corner", [0, 3])
def test_probabilities_have_their_corners_among_the_awkward_values(corner):
    p = adversarial({"z": real("C"), "p": simplex("C")}, SIZES, np.random.default_rng(0))["p"]
    assert any(np.array_equal(row, np.eye(4)[corner]) for row in p)
    assert any(np.array_equal(row, np.full(4, 0.25)) for row in p)


def digits(value):
    return sum(len(repr(float(number))) for number in np.ravel(value))


def test_simple_values_are_short():
    values = simple({"x": real("n"), "p": simplex("C")}, SIZES, 50, np.random.default_rng(0))
    assert set(np.unique(values["x"])) <= {-1.0, 0.0, 0.5, 1.0, 2.0}
    np.testing.assert_array_equal(np.round(values["p"], 2), values["p"])


SIMPLER = {
    "reals": (real(3), np.array([0.123456, -2.5, 7.0])),
    "positives": (positive(2), np.array([0.123456, 3.21])),
    "probabilities": (simplex(3), np.array([0.123456, 0.576544, 0.3])),
    "columns of probabilities": (
        simplex(2, 3, axis=0),
        np.array([[0.123456, 0.3, 0.5], [0.876544, 0.7, 0.5]]),
    ),
    "between ends": (interval(0.1, 0.9, 2), np.array([0.123456, 0.876544])),
    "symmetric": (symmetric(2), np.array([[0.123456, 2.5], [2.5, 3.21]])),
    "positive definite": (positive_definite(2), np.array([[2.123456, 1.5], [1.5, 3.21]])),
    "labels": (label(2, 5), np.array([3, 4])),
    "triangular": (triangular(2), np.array([[0.123456, 0.0], [2.5, 3.21]])),
    "orthogonal": (orthogonal(2), np.array([[0.28, -0.96], [0.96, 0.28]])),
    "a sphere": (sphere(2), np.array([0.28, -0.96])),
    "sorted": (sorted_(3), np.array([-0.123456, 2.5, 3.21])),
    "whole numbers": (integers(1, 90, 2), np.array([77, 33])),
    "a mask": (mask(3), np.array([1.0, 1.0, 0.0])),
    "a key": (key(), np.array([0, 77], np.uint32)),
    "complex numbers": (complex_(1), np.array([[0.123456, 2.5]])),
    "binary": (binary(2), np.array([1.0, 1.0])),
}


@pytest.mark.parametrize("what", SIMPLER)
def test_simpler_values_are_still_of_their_kind_and_some_are_shorter(what):
    leaf, value = SIMPLER[what]
    candidates = list(simpler(leaf, value))
    assert all(candidate.shape == value.shape for candidate in candidates)
    shorter = [c for c in candidates if digits(c) < digits(value) or np.sum(c) < np.sum(value)]
    assert shorter
    if leaf.kind == "positive":
        assert all(np.all(candidate > 0) for candidate in candidates)
    if leaf.kind == "interval":
        assert all(np.all((candidate > 0.1) & (candidate < 0.9)) for candidate in candidates)
    if leaf.kind in ("symmetric", "positive_definite"):
        assert all(np.array_equal(candidate, candidate.T) for candidate in candidates)
    if leaf.kind == "positive_definite":
        assert all(np.linalg.eigvalsh(candidate)[0] > 0 for candidate in candidates)
    assert all(c.dtype == value.dtype for c in candidates)
    if leaf.kind == "lower_triangular":
        assert all(c[0, 1] == 0 for c in candidates)
    if leaf.kind == "orthogonal":
        assert all(np.allclose(c @ c.T, np.eye(2), atol=1e-14) for c in candidates)
    if leaf.kind == "sphere":
        assert all(abs(np.linalg.norm(c) - 1) < 1e-14 for c in candidates)
    if leaf.kind == "sorted":
        assert all(np.all(np.diff(c) > 0) for c in candidates)
    if leaf.kind == "integers":
        assert all(np.all((c >= 1) & (c < 90)) for c in candidates)
    if leaf.kind == "mask":
        assert all(c.max() == 1 for c in candidates)
    if leaf.kind == "simplex":
        for candidate in candidates:
            np.testing.assert_allclose(candidate.sum(axis=leaf.axis), 1.0, atol=1e-15)


def test_a_real_number_alone_may_become_zero_or_lose_its_decimals():
    found = {tuple(c) for c in simpler(real(2), np.array([0.123456, 5.0]))}
    assert {(0.0, 5.0), (1.0, 5.0), (0.1, 5.0), (0.12, 5.0), (0.0, 0.0)} <= found


def test_the_value_itself_is_left_alone():
    value = np.array([0.123456, 5.0])
    list(simpler(real(2), value))
    np.testing.assert_array_equal(value, [0.123456, 5.0])
