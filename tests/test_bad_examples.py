"""Examples that training, searches and evaluations would misunderstand: one line at every door."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import jaxnn
from jaxnn import MLP, Data, Hyper, Spec, train, train_population
from jaxnn.search import Task, fixed, random, search
from jaxnn.train import checked

KEY = jax.random.key(0)
WRONG = partial(cast, Any)
"""Hides a wrong type from the type checker."""
NAN, INF = float("nan"), float("inf")


def spec(**changes) -> Spec:
    return Spec(**{"model": MLP((4, 3)), "steps": 2, "batch_size": 5, **changes})


PIXELS = np.random.default_rng(0).integers(0, 256, (30, 4)).astype(np.uint8)
LABELS = np.arange(30) % 3
EXAMPLES = Data(PIXELS, LABELS, 1 / 255)
FLOATS = EXAMPLES._replace(inputs=PIXELS / 255, scale=1.0)
BINARY = EXAMPLES._replace(targets=(LABELS > 0).astype(int))


def by_train(task: Spec, data: Data):
    return train(task, Hyper(0.1), KEY, data)


def by_population(task: Spec, data: Data):
    return train_population(task, Hyper(0.1), KEY, data)


def by_evaluation(task: Spec, data: Data):
    return train(task, Hyper(0.1), KEY, EXAMPLES, {"given": data})


def by_search(task: Spec, data: Data):
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(5), "loss": fixed(task.loss)}
    return search(Task(data, epochs=1), space, method=random(1), key=KEY)


def with_nan(data: Data) -> Data:
    inputs = np.array(data.inputs, float)
    inputs[3, 1], inputs[7, 2] = NAN, INF
    return data._replace(inputs=inputs)


MISTAKEN = {
    "labels -1 and 1": (
        EXAMPLES._replace(targets=np.where(LABELS > 0, 1, -1)),
        r"targets hold -1, expected 0\.\.\d: map them with \(labels \+ 1\) // 2",
    ),
    "labels from 1": (
        EXAMPLES._replace(targets=LABELS + 1),
        r"targets hold 3, expected 0\.\.2: map them with labels - 1",
    ),
    "labels too large": (
        EXAMPLES._replace(targets=LABELS * 4),
        r"targets hold [48], expected 0\.\.2: map them with np.searchsorted\(np.unique\(train_lab",
    ),
    "names of classes": (
        EXAMPLES._replace(targets=["ant", "bee", "cat"] * 10),
        r"targets hold ant, expected numbers: map them with np.searchsorted",
    ),
    "NaN and infinity": (
        with_nan(FLOATS),
        r"inputs hold 2 values .*, the first is nan at \[3, 1\], expected finite float32",
    ),
    "NaN in the targets": (
        EXAMPLES._replace(targets=np.where(LABELS > 1, NAN, LABELS)),
        r"targets hold 10 values .*, the first is nan at \[2\]",
    ),
    "one-hot rows of too many classes": (
        EXAMPLES._replace(targets=np.stack([np.eye(4)[LABELS]] * 2, axis=1)),
        r"targets .*\(30, 2, 4\)",
    ),
    "several labels at once": (
        EXAMPLES._replace(targets=np.ones((30, 3))),
        r"the sum 3 in row 0, expected probabilities.*several labels at once take a custom loss",
    ),
    "names for inputs": (
        EXAMPLES._replace(inputs=PIXELS.astype(str)),
        "inputs hold .*expected num",
    ),
    "rows of unequal lengths": (
        EXAMPLES._replace(inputs=[[1, 2, 3, 4]] * 29 + [[1]]),
        "inputs are rows of unequal lengths, expected an array",
    ),
    "masked inputs": (
        EXAMPLES._replace(inputs=np.ma.masked_equal(PIXELS, PIXELS[0, 0])),
        "inputs are masked, expected a number in every place",
    ),
    "complex inputs": (EXAMPLES._replace(inputs=PIXELS * 1j), "inputs have the dtype complex128"),
    "numbers beyond 32 bits": (
        EXAMPLES._replace(inputs=PIXELS.astype(np.int64) << 40),
        r"inputs hold \d+, expected -2147483648\.\.2147483647, or floats",
    ),
    "numbers in place of rows": (
        EXAMPLES._replace(inputs=PIXELS[:, 0]),
        r"\(30,\).*: inputs\[:, None\] for one value in each",
    ),
    "no scale": (EXAMPLES._replace(scale=NAN), "the scale nan, expected a finite number"),
    "a scale for other inputs": (EXAMPLES._replace(scale=np.ones(3)), "for each of the 4 inputs"),
    "fewer targets": (EXAMPLES._replace(targets=LABELS[1:]), r"\(30, 4\) and targets \(29,\)"),
}


@pytest.mark.parametrize("enter", [by_train, by_population, by_evaluation, by_search])
@pytest.mark.parametrize(("data", "message"), MISTAKEN.values(), ids=MISTAKEN)
def test_examples_that_would_be_misunderstood_are_one_line_at_every_door(enter, data, message):
    with pytest.raises(ValueError, match=message) as error:
        enter(spec(), data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("enter", [by_train, by_population, by_search])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (2 * LABELS % 3 - 1, r"targets hold (-1|2), .*"),
        (
            BINARY.targets * 2.0 - 1,
            r"hold -1(\.0)?, expected 0\.\.1: map them with \(labels \+ 1\) // 2",
        ),
        (np.eye(2)[BINARY.targets], r"\(30, 2\), expected \[N\]: argmax\(axis=1\) makes indices"),
    ],
)
def test_the_logistic_loss_takes_0_and_1(enter, targets, message):
    with pytest.raises(ValueError, match=message):
        enter(spec(model=MLP((4, 1)), loss="logistic"), EXAMPLES._replace(targets=targets))


def test_an_entry_called_train_does_not_hide_the_training_examples():
    with pytest.raises(ValueError, match=r"the train data have .*\(29,\)"):
        train(spec(), Hyper(0.1), KEY, EXAMPLES._replace(targets=LABELS[1:]), {"train": EXAMPLES})
    with pytest.raises(ValueError, match="the evaluated train targets hold 3"):
        train(spec(), Hyper(0.1), KEY, EXAMPLES, {"train": EXAMPLES._replace(targets=LABELS + 1)})


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_single_output_needs_the_logistic_loss(loss):
    with pytest.raises(ValueError, match=r"1 output, whose softmax is always 1, .*'logistic'"):
        train(spec(model=MLP((4, 1)), loss=loss), Hyper(0.1), KEY, BINARY)


def test_a_loss_that_is_no_scalar_is_one_line():
    regression = spec(model=MLP((4, 1)), loss=lambda z, y: (z - y) ** 2)
    with pytest.raises(ValueError, match=r"has the shape \(1,\), expected a scalar.*jnp.sum"):
        train(regression, Hyper(0.1), KEY, EXAMPLES)


UNITS = {
    "pixels without a scale": (EXAMPLES, EXAMPLES._replace(scale=1.0)),
    "pixels, then 0..1 at the same scale": (EXAMPLES, FLOATS._replace(scale=1 / 255)),
    "0..1, then pixels": (FLOATS, EXAMPLES._replace(inputs=PIXELS.astype(float), scale=1.0)),
    "0..16, then 0..1": (
        EXAMPLES._replace(inputs=PIXELS // 16, scale=1 / 16),
        FLOATS._replace(scale=1 / 16),
    ),
}


@pytest.mark.parametrize(("first", "other"), UNITS.values(), ids=UNITS)
def test_examples_in_another_unit_are_refused_with_both_ranges(first, other):
    message = r"the test inputs lie in .*\.\..* times .* and the train inputs in .*\.\..* times"
    with pytest.raises(ValueError, match=message):
        train(spec(), Hyper(0.1), KEY, first, {"test": other})
    with pytest.raises(ValueError, match=message):
        Task(first, other)
    with pytest.raises(ValueError, match="the validation inputs lie in"):
        Task(first, validation=other)


def test_one_extreme_input_is_no_other_unit():
    inputs = np.random.default_rng(1).normal(size=(30, 4))
    inputs[4, 2] = 1000.0
    outlier = Data(inputs, LABELS)
    tame = outlier._replace(inputs=np.clip(inputs, -9, 9))
    assert checked(spec(), Hyper(0.1), tame, {"test": outlier})[3]["test"] is outlier


SAME = {
    "lists": EXAMPLES._replace(inputs=PIXELS.tolist(), targets=LABELS.tolist()),
    "data frames": EXAMPLES._replace(inputs=pd.DataFrame(PIXELS), targets=pd.Series(LABELS)),
    "a data frame of targets": EXAMPLES._replace(targets=pd.DataFrame({"label": LABELS})),
    "objects": EXAMPLES._replace(inputs=PIXELS.astype(object)),
    "JAX's arrays": Data(jnp.asarray(PIXELS), jnp.asarray(LABELS), 1 / 255),
    "big-endian": EXAMPLES._replace(inputs=PIXELS.astype(">i4"), targets=LABELS.astype(">i8")),
    "a column of targets": EXAMPLES._replace(targets=LABELS[:, None]),
    "a row of targets": EXAMPLES._replace(targets=LABELS[None, :]),
    "targets in floats": EXAMPLES._replace(targets=LABELS.astype(float)),
    "8-bit targets": EXAMPLES._replace(targets=LABELS.astype(np.uint8)),
}


@pytest.mark.parametrize("data", SAME.values(), ids=SAME)
def test_examples_whose_meaning_is_plain_are_taken(data):
    _, _, trained_on, evaluated = checked(spec(), Hyper(0.1), data, None)
    for taken in (trained_on, evaluated["train"], Task(data).train):
        np.testing.assert_array_equal(taken.inputs, PIXELS)
        np.testing.assert_array_equal(taken.targets, LABELS)
        assert taken.targets.dtype.kind in "iu"
        assert taken.scale == 1 / 255


@pytest.mark.parametrize("enter", [by_train, by_search])
def test_lists_train_as_arrays_do(enter):
    expected, found = (
        jax.tree.leaves(result[0].params if isinstance(result, tuple) else result.params)
        for result in (enter(spec(), EXAMPLES), enter(spec(), SAME["lists"]))
    )
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "targets", [BINARY.targets[:, None], BINARY.targets > 0, BINARY.targets.astype(float)]
)
def test_columns_booleans_and_floats_of_0_and_1_are_labels_of_the_logistic_loss(targets):
    task = spec(model=MLP((4, 1)), loss="logistic")
    _, _, taken, _ = checked(task, Hyper(0.1), BINARY._replace(targets=targets), None)
    np.testing.assert_array_equal(taken.targets, BINARY.targets)


def test_columns_of_numbers_are_the_targets_of_a_regression():
    task = spec(model=MLP((4, 1)), loss=lambda z, y: jnp.sum((z - y) ** 2))
    column = FLOATS._replace(targets=np.linspace(0, 1, 30)[:, None])
    state, _ = by_train(task, column)
    expected, _ = by_train(task, column._replace(targets=column.targets[:, 0]))
    np.testing.assert_array_equal(state.params[0].weight, expected.params[0].weight)


def test_a_whole_number_is_a_key():
    expected, found = (
        train(spec(), Hyper(0.1), key, EXAMPLES)[0] for key in (jax.random.key(7), 7)
    )
    np.testing.assert_array_equal(expected.params[0].weight, found.params[0].weight)
    keys = jnp.stack([jax.random.key(3), jax.random.key(4)])
    one, other = (train_population(spec(), Hyper(0.1), k, EXAMPLES) for k in (keys, [3, 4]))
    assert one.params
    assert other.params
    np.testing.assert_array_equal(one.params[0].weight, other.params[0].weight)
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(5)}
    first, second = (
        search(Task(EXAMPLES, epochs=1), space, method=random(1), key=key)
        for key in (7, jax.random.key(7))
    )
    np.testing.assert_array_equal(first.params[0].weight, second.params[0].weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: train(spec(), Hyper(0.1), WRONG(None), EXAMPLES),
            "key is None, expected jax.random.key",
        ),
        (
            lambda: train(spec(), Hyper(0.1), WRONG("0"), EXAMPLES),
            "key is '0', expected jax.random.key",
        ),
        (
            lambda: train(spec(), Hyper(0.1), WRONG(0.5), EXAMPLES),
            r"key is 0\.5, expected jax.random.key",
        ),
        (
            lambda: train_population(spec(), Hyper(0.1), WRONG(5), EXAMPLES),
            r"keys is 5, expected jax.random.split\(key, S\) or \[0, 1, 2\]",
        ),
        (
            lambda: train(spec(), Hyper(0.1), KEY, WRONG((PIXELS, LABELS))),
            r"the train data are a tuple, expected jaxnn.Data\(inputs, targets\)",
        ),
        (
            lambda: search(Task(EXAMPLES), {}, method=random(1), key=WRONG(None)),
            "key is None, expected jax.random.key",
        ),
    ],
)
def test_other_types_are_one_line(call, message):
    with pytest.raises(TypeError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_values_that_are_not_known_pass():
    targets = jnp.stack([jnp.asarray(LABELS), jnp.asarray(LABELS[::-1])])
    loss = jax.vmap(
        lambda t: by_train(spec(), EXAMPLES._replace(targets=t))[1].metrics["train"].loss
    )
    assert np.isfinite(jax.jit(loss)(targets)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": EXAMPLES._replace(targets=LABELS * 0)},
            "hold the class 0 alone, expected at lea",
        ),
        (
            {"train": EXAMPLES._replace(targets=LABELS * 2)},
            r"hold 4, expected 0\.\.2: map them with",
        ),
        (
            {"train": EXAMPLES._replace(targets=np.arange(30) * 7)},
            "hold 30 different values from 0 to 203 in 30 examples.*losses of real targets",
        ),
        (
            {"test": EXAMPLES._replace(targets=LABELS + 1)},
            "the test targets hold 3, a class without an example in the train targets",
        ),
        (
            {"test": EXAMPLES._replace(inputs=PIXELS[:, 1:])},
            "test inputs have 3 values each, expect",
        ),
        ({"validation": EXAMPLES._replace(targets=-LABELS)}, "the train targets hold -2"),
        ({"validation": EXAMPLES._replace(targets=LABELS[1:])}, r"validation data have .*\(29,\)"),
        ({"validation": with_nan(FLOATS), "train": FLOATS}, "validation inputs hold 2 values"),
    ],
)
def test_the_examples_of_a_search_are_refused(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        Task(**{"train": EXAMPLES, **changes})
    assert "\n" not in str(error.value)


def test_test_examples_that_are_loaded_late_are_refused_too():
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(5)}
    task = Task(EXAMPLES, lambda: EXAMPLES._replace(targets=LABELS + 1), epochs=1)
    found = search(task, space, method=random(1), key=0)
    with pytest.raises(ValueError, match=r"the test targets hold 3, expected 0\.\.2: .*labels - 1"):
        found.test()


def test_a_missing_class_is_fine_where_the_network_says_the_number():
    train(spec(), Hyper(0.1), KEY, EXAMPLES._replace(targets=LABELS // 2 * 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnn.cross_entropy(jnp.zeros(3), 3), r"a class index in 0\.\.2, got 3"),
        (lambda: jaxnn.cross_entropy(jnp.zeros(3), -1), r"a class index in 0\.\.2, got -1"),
        (lambda: jaxnn.squared_error(jnp.zeros(3), 5), r"a class index in 0\.\.2, got 5"),
        (lambda: jaxnn.logistic(jnp.zeros(1), -1), r"0 or 1, or a probability in 0\.\.1, got -1"),
        (
            lambda: jaxnn.evaluate(
                spec(), spec().model.init(KEY), EXAMPLES._replace(targets=LABELS + 1)
            ),
            r"targets hold 3, expected 0\.\.2: map them with labels - 1",
        ),
    ],
)
def test_labels_of_losses_and_evaluations_are_not_clamped(call, message):
    with pytest.raises(ValueError, match=message):
        call()
