"""Which examples validate, against scikit-learn."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from jaxnn import Data
from jaxnn.search import Task, folds, given, holdout
from jaxnn.search.task import arrange


def examples(targets):
    """Examples whose one input is their number."""
    targets = np.asarray(targets)
    return Data(np.arange(len(targets), dtype=np.float32)[:, None], targets)


def parts(arranged):
    """The numbers of the validation examples per fold, and of those that are in none."""
    numbers = arranged.data.inputs[:, 0].astype(int)
    ends = arranged.held_out * np.arange(1, arranged.folds + 1)
    *held_out, rest = np.split(numbers, ends)
    return held_out, rest


def random_classes(seed):
    """A few classes of very different sizes, in a random order."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, rng.choice([4, 20, 60]), rng.integers(2, 8))
    return rng.permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize(("n", "count"), [(10, 2), (103, 5), (100, 10), (7, 7), (9, 5)])
def test_folds_are_disjoint_of_one_size_and_cover_all_but_the_remainder(n, count, stratified):
    arranged = arrange(folds(count, stratified=stratified), examples(np.arange(n) % 3), 0)
    held_out, rest = parts(arranged)
    assert {len(part) for part in held_out} == {n // count}
    assert len(rest) == n % count
    assert sorted(np.concatenate([*held_out, rest])) == list(range(n))
    assert arranged.trained_on == n - n // count


@pytest.mark.parametrize("validation", [holdout(0.25), holdout(0.25, stratified=True), folds(4)])
def test_split_is_random_and_its_seed_decides_it(validation):
    train = examples(np.arange(100) % 3)
    first, again, other = (parts(arrange(validation, train, seed))[0][0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)
    assert set(first) != set(range(25))


@pytest.mark.parametrize(
    ("n", "fraction", "held_out"), [(60, 1 / 6, 10), (103, 0.1, 10), (2, 0.5, 1), (99, 0.99, 98)]
)
def test_holdout_is_the_fraction_of_the_examples(n, fraction, held_out):
    arranged = arrange(holdout(fraction), examples(np.arange(n) % 2), 0)
    assert (arranged.held_out, arranged.folds) == (held_out, 1)
    assert sorted(arranged.data.inputs[:, 0]) == list(range(n))


@pytest.mark.parametrize(
    "validation", [holdout(0.3), holdout(0.3, stratified=True), folds(3, stratified=True)]
)
def test_inputs_stay_with_their_targets(validation):
    targets = np.random.default_rng(0).integers(0, 4, 50)
    data = arrange(validation, examples(targets)._replace(scale=0.5), 0).data
    np.testing.assert_array_equal(data.targets, targets[data.inputs[:, 0].astype(int)])
    assert data.scale == 0.5


@pytest.mark.parametrize("fraction", [0.1, 1 / 3, 0.9])
def test_stratified_holdout_has_each_class_in_proportion(fraction):
    for seed in range(60):
        targets = random_classes(seed)
        if not 0 < round(len(targets) * fraction) < len(targets):
            continue
        arranged = arrange(holdout(fraction, stratified=True), examples(targets), seed)
        (held_out,), _ = parts(arranged)
        counts = np.bincount(targets[held_out], minlength=targets.max() + 1)
        share = len(held_out) / len(targets)
        assert np.all(np.abs(counts - np.bincount(targets) * share) < 1 + 1e-9)


@pytest.mark.parametrize("fraction", [0.02, 0.1, 0.5])
def test_of_two_classes_a_stratified_holdout_has_the_nearest_whole_numbers(fraction):
    for rare in range(1, 50):
        targets = np.repeat([0, 1], [rare, 100 - rare])
        for labels in (targets, 1 - targets):
            arranged = arrange(holdout(fraction, stratified=True), examples(labels), 0)
            (held_out,), _ = parts(arranged)
            assert abs(np.sum(targets[held_out] == 0) - rare * fraction) <= 0.5


@pytest.mark.parametrize("count", [2, 3, 5])
def test_stratified_folds_have_each_class_in_proportion(count):
    for seed in range(80):
        targets = random_classes(seed)
        if len(targets) < count:
            continue
        held_out, _ = parts(arrange(folds(count, stratified=True), examples(targets), seed))
        for part in held_out:
            counts = np.bincount(targets[part], minlength=targets.max() + 1)
            assert np.all(np.abs(counts - np.bincount(targets) / count) <= 1)


def test_stratified_remainder_is_no_burden_of_the_last_class():
    targets = np.repeat([0, 1], [41, 13])  # 54 = 5 * 10 + 4, of class 1 2.6 in every fold
    held_out, _ = parts(arrange(folds(5, stratified=True), examples(targets), 0))
    assert all(np.sum(targets[part] == 1) in (2, 3) for part in held_out)


def test_stratified_folds_are_scikit_learns_to_within_one_example():
    targets = np.random.default_rng(0).choice(4, 203, p=[0.5, 0.3, 0.15, 0.05])
    held_out, _ = parts(arrange(folds(5, stratified=True), examples(targets), 0))
    theirs = StratifiedKFold(5).split(np.zeros((203, 1)), targets)
    for ours, (_, test) in zip(held_out, theirs, strict=True):
        difference = np.bincount(targets[ours], minlength=4) - np.bincount(targets[test])
        assert np.all(np.abs(difference) <= 1)


def test_stratified_examples_of_a_class_are_drawn_at_random():
    train = examples(np.repeat([0, 1], 50))
    drawn = [set(parts(arrange(folds(5, stratified=True), train, s))[0][0]) for s in range(40)]
    counts = np.bincount([number for part in drawn for number in part], minlength=100)
    assert counts.min() > 0  # 8 expected of each
    assert counts.max() < 20


def test_given_examples_validate_and_all_others_are_trained_on():
    train, validation = examples(np.arange(20) % 3), examples([2, 1, 0])
    arranged = arrange(given(validation), train, 0)
    assert (arranged.held_out, arranged.folds, arranged.trained_on) == (3, 1, 20)
    np.testing.assert_array_equal(arranged.data.targets[:3], [2, 1, 0])
    np.testing.assert_array_equal(arranged.data.targets[3:], train.targets)


def test_class_that_only_the_given_examples_have_is_an_output():
    assert Task(examples([0, 1, 2]), validation=given(examples([0, 3]))).outputs == 4


@pytest.mark.parametrize(
    ("validation", "train", "message"),
    [
        (folds(5), examples([0, 1, 2]), "folds is 5, expected at most the 3 examples"),
        (holdout(0.01), examples([0, 1, 2]), "fraction is 0.01 and holds out 0 of 3 examples"),
        (holdout(0.99), examples([0, 1, 2]), "fraction is 0.99 and holds out 3 of 3 examples"),
        (
            holdout(0.5, stratified=True),
            examples(np.eye(4)),
            r"stratified splits need class indices, got targets of shape \(4, 4\)",
        ),
        (
            folds(2, stratified=True),
            examples([0.5, 1.5]),
            "stratified splits need class indices, .* dtype float64",
        ),
        (
            given(Data(np.zeros((2, 3), np.float32), np.array([0, 1]))),
            examples([0, 1, 2]),
            r"validation inputs have shape \(2, 3\).*training inputs, \(3, 1\)",
        ),
        (
            given(examples([0, 1])._replace(inputs=np.zeros((2, 1), np.uint8))),
            examples([0, 1, 2]),
            "the validation inputs have .* dtype uint8, expected .* float32",
        ),
        (
            given(examples([0, 1])._replace(targets=np.eye(2))),
            examples([0, 1, 2]),
            "the validation targets have shape",
        ),
        (
            given(examples([0, 1])._replace(scale=2.0)),
            examples([0, 1, 2]),
            "the validation inputs have the scale 2.0, expected 1.0",
        ),
        (
            given(Data(np.zeros((0, 1), np.float32), np.zeros(0, int))),
            examples([0, 1, 2]),
            "expected at least one",
        ),
    ],
)
def test_examples_that_do_not_fit_are_one_clear_line(validation, train, message):
    with pytest.raises(ValueError, match=message) as error:
        arrange(validation, train, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "argument", "message"),
    [
        (holdout, 0, "fraction is 0, expected a number above 0 and below 1"),
        (holdout, 1.0, "fraction is 1.0, expected a number above 0 and below 1"),
        (holdout, True, "fraction is True, expected"),
        (holdout, float("nan"), "fraction is nan, expected"),
        (folds, 1, "folds is 1, expected an integer of at least 2"),
        (folds, 2.5, "folds is 2.5, expected an integer"),
    ],
)
def test_bad_argument_is_one_clear_line(make, argument, message):
    with pytest.raises(ValueError, match=message):
        make(argument)


def test_descriptions_tell_validations_apart():
    several = [
        holdout(0.1),
        holdout(0.2),
        holdout(0.1, stratified=True),
        folds(2),
        folds(3),
        folds(2, stratified=True),
        given(examples([0])),
    ]
    assert len({str(each.describe()) for each in several}) == len(several)
