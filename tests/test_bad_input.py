"""Bad input to training: one clear line that names the value and what was expected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import MLP, Data, Hyper, Spec, train, train_population

KEY = jax.random.key(0)
GOOD = Data(np.zeros((20, 4), np.uint8), np.zeros(20, np.int32), 1.0)
NAN, INF = float("nan"), float("inf")


def spec(**changes) -> Spec:
    return Spec(**{"model": MLP((4, 3)), "steps": 2, "batch_size": 5, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, r"steps is 0, expected a positive integer"),
        ({"steps": -3}, r"steps is -3, expected a positive integer"),
        ({"steps": 2.0}, r"steps is 2\.0, expected a positive integer"),
        ({"steps": True}, r"steps is True, expected a positive integer"),
        ({"batch_size": 0}, r"batch_size is 0, expected a positive integer"),
        ({"batch_size": -1}, r"batch_size is -1, expected a positive integer"),
        ({"batch_size": None}, r"batch_size is None, expected a positive integer"),
        ({"loss": "hinge"}, r"loss is 'hinge', expected one of .*cross_entropy.* or a callable"),
        ({"optimizer": "newton"}, r"optimizer is 'newton', expected one of .*adam.* or a callable"),
        ({"schedule": "warm"}, r"schedule is 'warm', expected one of .*cosine.* or a callable"),
        ({"evaluate_at": (3,)}, r"evaluate_at is \(3,\), expected iterations from 0 to 2"),
        ({"evaluate_at": (-1, 2)}, r"evaluate_at is \(-1, 2\), expected iterations from 0 to 2"),
        ({"evaluate_at": (0.5,)}, r"evaluate_at is \(0\.5,\), expected iterations from 0 to 2"),
    ],
)
def test_spec_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        spec(**changes)


@pytest.mark.parametrize("run", [train, train_population])
@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        (Hyper(0.0), r"learning_rate is 0\.0, expected a finite number above 0"),
        (Hyper(-0.1), r"learning_rate is -0\.1\d*, expected a finite number above 0"),
        (Hyper(NAN), r"learning_rate is nan, expected a finite number above 0"),
        (Hyper(INF), r"learning_rate is inf, expected a finite number above 0"),
        (Hyper(0.1, l2=-1.0), r"l2 is -1\.0, expected a finite number of at least 0"),
        (Hyper(0.1, l2=NAN), r"l2 is nan, expected a finite number of at least 0"),
        (Hyper(0.1, momentum=1.0), r"momentum is 1\.0, expected a number from 0 to below 1"),
        (Hyper(0.1, momentum=-0.5), r"momentum is -0\.5, expected a number from 0 to below 1"),
        (Hyper(0.1, b1=1.5), r"b1 is 1\.5, expected a number from 0 to below 1"),
        (Hyper(0.1, b2=NAN), r"b2 is nan, expected a number from 0 to below 1"),
        (Hyper(0.1, eps=0.0), r"eps is 0\.0, expected a finite number above 0"),
    ],
)
def test_hyperparameter_is_refused(run, hyper, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        run(spec(), hyper, KEY, GOOD)


@pytest.mark.parametrize("run", [train, train_population])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            GOOD._replace(targets=np.zeros(19, np.int32)),
            r"the train data have inputs \(20, 4\) .*\(19,\)",
        ),
        (GOOD._replace(inputs=np.zeros((20, 2, 2))), r"the train data have inputs \(20, 2, 2\)"),
        (Data(np.zeros((0, 4)), np.zeros(0, np.int32)), r"the train data have inputs \(0, 4\)"),
        (GOOD._replace(inputs=np.zeros((20, 5))), r"weight \(3, 4\).* input of shape \(5,\)"),
        (GOOD._replace(targets=np.zeros((20, 2))), r"vector of 3 probabilities, got .*\(2,\)"),
        (GOOD._replace(targets=np.zeros(20)), r"class index \(integer scalar\).*float32"),
        (
            Data(np.zeros((4, 4)), np.zeros(4, np.int32)),
            r"batch_size is 5, expected at most the 4 examples",
        ),
    ],
)
def test_data_are_refused(run, data, message):
    with pytest.raises(ValueError, match=message) as error:
        run(spec(), Hyper(0.1), KEY, data)
    assert "\n" not in str(error.value)


def test_evaluation_data_are_refused_by_name():
    with pytest.raises(ValueError, match=r"the validation data have inputs \(20,\)"):
        train(spec(), Hyper(0.1), KEY, GOOD, {"validation": GOOD._replace(inputs=np.zeros(20))})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keys": jax.random.split(KEY, 0)}, r"keys holds 0 seeds, expected at least 1"),
        (
            {"hyper": Hyper(np.ones(3), np.zeros(2))},
            r"hyper has fields of shapes .*\(3,\).*\(2,\).*, expected scalars or one length \[K\]",
        ),
        ({"hyper": Hyper(np.ones((2, 2)))}, r"hyper has fields of shapes .*\(2, 2\)"),
        ({"hyper": Hyper(np.ones(0))}, r"hyper has fields of shapes .*\(0,\)"),
        ({"hyper": Hyper(np.array([0.1, NAN]))}, r"learning_rate is nan, expected"),
        ({"block_size": 0}, r"block_size is 0, expected a positive integer"),
        ({"block_size": 2.5}, r"block_size is 2\.5, expected a positive integer"),
    ],
)
def test_population_is_refused(arguments, message):
    given = {"hyper": Hyper(0.1), "keys": KEY, **arguments}
    with pytest.raises(ValueError, match=f"^{message}"):
        train_population(spec(), data=GOOD, **given)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jaxnn.init(KEY, (4,)), r"sizes is \(4,\), expected at least two"),
        (lambda: jaxnn.init(KEY, ()), r"sizes is \(\), expected at least two"),
        (lambda: jaxnn.init(KEY, (4, 0, 3)), r"sizes is \(4, 0, 3\), expected positive integers"),
        (lambda: jaxnn.init(KEY, (4, -2)), r"sizes is \(4, -2\), expected positive integers"),
        (
            lambda: jaxnn.init(KEY, np.array([4, 2.5]).tolist()),
            r"sizes is .*2\.5.*, expected positive integers",
        ),
        (lambda: MLP((4, 0)), r"sizes is \(4, 0\), expected positive integers"),
        (
            lambda: MLP((4, 3), activation="gelu"),
            r"activation is 'gelu', expected one of .* or a callable",
        ),
        (lambda: MLP((4, 3), initializer="zeros"), r"initializer is 'zeros', expected one of"),
        (lambda: jaxnn.parameter_count((4,)), r"sizes is \(4,\), expected at least two"),
        (
            lambda: jaxnn.apply(jaxnn.init(KEY, (4, 3)), jnp.zeros((9, 4))),
            r"apply takes one example, shape \[in\], got \(9, 4\)",
        ),
        (
            lambda: jaxnn.apply(jaxnn.init(KEY, (4, 3)), jnp.zeros(5)),
            r"weight \(3, 4\) and bias \(3,\) cannot take an input of shape \(5,\)",
        ),
        (
            lambda: jaxnn.loss(jaxnn.init(KEY, (4, 3)), jnp.zeros(4), jnp.zeros(2)),
            r"a vector of 3 probabilities, got a target of shape \(2,\)",
        ),
    ],
)
def test_functions_refuse_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
