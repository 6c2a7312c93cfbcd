"""Bad input: one clear line that names the value and what was expected."""

# Wrong types are the subject of the file.
# pyright: reportArgumentType=false, reportCallIssue=false

import traceback
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest

import jaxnn
from jaxnn import (
    MLP,
    Data,
    Hyper,
    Layer,
    Network,
    Spec,
    Variables,
    closed_form,
    data,
    distributed,
    losses,
    optimizers,
    saved_model,
    search,
    train,
    train_population,
    verify,
)
from jaxnn.metrics import Metric
from jaxnn.optimizers import schedule
from jaxnn.search import choice, conditional, fixed, integer, log_uniform, uniform
from jaxnn.verify import (
    batch_of,
    claim,
    complex_,
    derivation,
    gradcheck,
    integers,
    key,
    label,
    mask,
    one_hot,
    orthogonal,
    real,
    simplex,
    sorted_,
    sphere,
    triangular,
)

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
        (
            {"schedule": optax.warmup_cosine_decay_schedule(0.0, 0.1, 1, 2)},
            r"schedule\(2\) is Array\(0\..*\), expected a function of the iteration: of a schedule "
            r"of optax give the name, such as 'warmup_cosine', or .* lambda steps: .*",
        ),
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
        (GOOD._replace(inputs=np.zeros(20)), r"the train data have inputs \(20,\)"),
        (Data(np.zeros((0, 4)), np.zeros(0, np.int32)), r"the train data have inputs \(0, 4\)"),
        (GOOD._replace(inputs=np.zeros((20, 5))), r"weight \(3, 4\).* input of shape \(5,\)"),
        (GOOD._replace(targets=np.zeros((20, 2))), r"\(20, 2\), expected \[N\] or \[N, 3\]"),
        (
            GOOD._replace(targets=np.full(20, 0.5)),
            r"targets hold 0\.5, expected class indices: the l",
        ),
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


X, VECTOR = np.ones(4, np.float32), np.ones(3, np.float32)
LAYER = Layer(np.ones((3, 4), np.float32), VECTOR)
STATE = jaxnn.init_state(spec(), Hyper(0.1), KEY)
LAST = Layer(np.ones((2, 3), np.float32), np.ones(2, np.float32))
ROWS, LABELS = np.ones((5, 4), np.float32), np.array([0, 1, 2, 0, 1])
BATCH = ROWS, LABELS
NUMBERS = "expected numbers$"
LAYERS = r"expected layers, such as \(Layer\(weight, bias\),\)$"


class Tensor:
    """As of PyTorch: NumPy can read the values, and that is all."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def squares(x):
    return jnp.sum(x**2)


def claimed(formula=lambda x: 2 * x, **changes):
    inputs = {"x": real("n")}
    return claim(**{"of": squares, "wrt": "x", "kind": "gradient", "inputs": inputs, **changes})(
        formula
    )


def in_latex(formula, **changes):
    inputs = {"x": real("n")}
    return claim(of=squares, wrt="x", kind="gradient", inputs=inputs, formula=formula, **changes)


def derived(**changes):
    inputs = {"x": real("n")}
    return derivation(
        **{"of": squares, "wrt": "x", "kind": "gradient", "inputs": inputs, **changes}
    )


def space(**domains):
    return search.Space({"learning_rate": log_uniform(1e-3, 1.0), **domains})


RATE = {"learning_rate": 0.5}
RATES = {"learning_rate": uniform(0.1, 1.0), "batch_size": fixed(2)}


def task(**changes):
    return search.Task(Data(np.ones((6, 4)), np.arange(6) % 2), **changes)


def saved():
    layers = (LAYER, LAST)
    params = tuple(Layer(weight[None], bias[None]) for weight, bias in layers)
    return saved_model.SavedModel(MLP((4, 3, 2)), params, "cross_entropy", 1.0, {})


DOORS = [
    # networks
    (lambda: MLP((4, 3), "Relu"), ValueError, r"activation is 'Relu', .*; did you mean 'relu'\?$"),
    (lambda: MLP((4, 3), "sigmod"), ValueError, r"did you mean 'sigmoid'\?$"),
    (lambda: MLP((4, 3), ["relu"]), ValueError, r"activation is \['relu'\], expected one of"),
    (lambda: MLP((4, 3), jnp.ones(3)), ValueError, r"activation is an array of shape \(3,\), exp"),
    (lambda: MLP((4, 3), initializer=["he"]), ValueError, r"initializer is \['he'\], expected one"),
    (lambda: MLP("43"), ValueError, r"sizes is \('4', '3'\), expected positive integers$"),
    (lambda: MLP((True, 3)), ValueError, r"sizes is \(True, 3\), expected positive integers$"),
    (lambda: jaxnn.parameter_count((LAYER, 3)), ValueError, r"sizes is .*, expected positive int"),
    (
        lambda: jaxnn.init(None, (4, 3)),
        TypeError,
        r"key is None, expected jax.random.key\(0\) or a",
    ),
    (lambda: jaxnn.init("0", (4, 3)), TypeError, "key is '0', expected"),
    (lambda: jaxnn.init(0.5, (4, 3)), TypeError, r"key is 0\.5, expected"),
    (lambda: jaxnn.init(True, (4, 3)), TypeError, "key is True, expected"),
    (lambda: jaxnn.init(2**32, (4, 3)), TypeError, "key is 4294967296, expected .* of 32 bits$"),
    (lambda: jaxnn.init(np.random.default_rng(0), (4, 3)), TypeError, r"key is Generator\(PCG64\)"),
    (lambda: jaxnn.init(jax.random.split(KEY, 2), (4, 3)), TypeError, r"key has the shape \(2,\)"),
    (
        lambda: jaxnn.init(np.ones(2), (4, 3)),
        TypeError,
        r"key has the shape \(2,\) and dtype float",
    ),
    (lambda: jaxnn.init((4, 3), KEY), TypeError, r"key is \(4, 3\), expected"),
    (lambda: jaxnn.init(KEY, (10**9, 10**9)), ValueError, r"with 1000000001000000000 parameters"),
    (lambda: jaxnn.apply((LAYER,), None), TypeError, f"x is None, {NUMBERS}"),
    (lambda: jaxnn.apply((LAYER,), "abcd"), TypeError, f"x is 'abcd', {NUMBERS}"),
    (
        lambda: jaxnn.apply((LAYER,), [[1.0], [2.0, 3.0]]),
        TypeError,
        r"x is \[\[1.0\], \[2.0, 3.0\]\]",
    ),
    (lambda: jaxnn.apply((LAYER,), squares), TypeError, f"x is <function .*>, {NUMBERS}"),
    (lambda: jaxnn.apply(X, (LAYER,)), TypeError, rf"params is an array of shape \(4,\), {LAYERS}"),
    (lambda: jaxnn.apply(LAYER, X), TypeError, rf"params is Layer\(.*, {LAYERS}"),
    (lambda: jaxnn.apply(None, X), TypeError, f"params is None, {LAYERS}"),
    (lambda: jaxnn.apply(MLP((4, 3)), X), TypeError, rf"params is MLP\(.*, {LAYERS}"),
    (
        lambda: jaxnn.apply({"w": 1}, X),
        TypeError,
        r"a layer is 'w', expected Layer\(weight, bias\)$",
    ),
    (lambda: jaxnn.apply([("a", 1)], X), TypeError, f"the weight is 'a', {NUMBERS}"),
    (lambda: jaxnn.loss((LAYER,), X, "1"), TypeError, f"target is '1', {NUMBERS}"),
    (lambda: jaxnn.loss((LAYER,), X, None), TypeError, f"target is None, {NUMBERS}"),
    (lambda: jaxnn.loss((LAYER,), X, 0, loss=["logistic"]), ValueError, r"loss is \['logistic'\]"),
    (lambda: jaxnn.loss((LAYER,), X, 0, loss="crossentropy"), ValueError, "mean 'cross_entropy'"),
    # losses
    (lambda: losses.cross_entropy(None, 0), TypeError, f"logits is None, {NUMBERS}"),
    (lambda: losses.cross_entropy(0, VECTOR), ValueError, r"takes the logits of one .* got \(\)"),
    (lambda: losses.cross_entropy(VECTOR, "a"), TypeError, f"target is 'a', {NUMBERS}"),
    (lambda: losses.squared_error(["a"], 0), TypeError, rf"logits is \['a'\], {NUMBERS}"),
    (lambda: losses.logistic(None, 1), TypeError, f"logits is None, {NUMBERS}"),
    (lambda: losses.logistic([0.0], "1"), TypeError, f"target is '1', {NUMBERS}"),
    (lambda: losses.l2_penalty({"w": "a"}), TypeError, f"params is 'a', {NUMBERS}"),
    # programs
    (lambda: spec(model=None), TypeError, r"model is None, expected jaxnn.MLP\(\(inputs, ..., cla"),
    (lambda: spec(model="mlp"), TypeError, "model is 'mlp', expected jaxnn.MLP"),
    (lambda: spec(model=(4, 3)), TypeError, r"model is \(4, 3\), expected jaxnn.MLP"),
    (lambda: spec(model=MLP), TypeError, "model is <class 'jaxnn.mlp.MLP'>, expected jaxnn.MLP"),
    (lambda: spec(model=(LAYER,)), TypeError, r"model is \(Layer\(.*, expected jaxnn.MLP"),
    (
        lambda: spec(model=Network(1, 2)),
        TypeError,
        r"model is Network\(init=1, apply=2, .*, expected",
    ),
    (lambda: spec(loss=["logistic"]), ValueError, r"loss is \['logistic'\], expected one of"),
    (lambda: spec(loss="cross-entropy"), ValueError, r"did you mean 'cross_entropy'\?$"),
    (
        lambda: spec(batch_size=np.ones(3)),
        ValueError,
        r"batch_size is an array of shape \(3,\), exp",
    ),
    (lambda: spec(evaluate_at=None), ValueError, "evaluate_at is None, expected iterations from 0"),
    (lambda: spec(evaluate_at="all"), ValueError, "evaluate_at is 'all', expected iterations"),
    (lambda: spec(evaluate_at=3), ValueError, "evaluate_at is 3, expected iterations from 0 to 2$"),
    *(
        (lambda hyper=hyper: train(spec(), hyper, KEY, GOOD), error, message)
        for hyper, error, message in [
            (
                0.1,
                TypeError,
                r"hyper is 0\.1, expected Hyper\(learning_rate=0\.1\), or a NamedTuple",
            ),
            (None, TypeError, "hyper is None, expected Hyper"),
            ({"learning_rate": 0.1}, TypeError, r"hyper is \{'learning_rate': 0\.1\}, expected"),
            (Hyper, TypeError, "hyper is <class 'jaxnn.types.Hyper'>, expected"),
            (spec(), TypeError, r"hyper is Spec\(.*, expected Hyper"),
            (Hyper("a"), ValueError, "learning_rate is 'a', expected a finite number above 0$"),
            (Hyper(None), ValueError, "learning_rate is None, expected a finite number above 0$"),
            (Hyper(True), ValueError, "learning_rate is True, expected a finite number above 0$"),
            (Hyper(0.1j), ValueError, r"learning_rate is 0\.1j, expected a finite number"),
            (Hyper(squares), ValueError, "learning_rate is <function squares .*>, expected"),
            (
                Hyper(0.1, l2=None),
                ValueError,
                "l2 is None, expected a finite number of at least 0$",
            ),
            (Hyper(0.1, clip="1"), ValueError, "clip is '1', expected a finite number above 0$"),
        ]
    ),
    (lambda: spec(optimizer="Adam"), ValueError, r"optimizer is 'Adam', .*mean 'adam'\?$"),
    (lambda: spec(optimizer="rmsprp"), ValueError, r"or a callable; did you mean 'rmsprop'\?$"),
    (lambda: spec(optimizer=None), ValueError, "optimizer is None, expected one of"),
    (lambda: spec(optimizer=["adam"]), ValueError, r"optimizer is \['adam'\], expected one of"),
    *(
        (lambda made=made: spec(optimizer=made), ValueError, message)
        for made, message in [
            (
                optax.adam,
                "optimizer is adam, of a learning rate, expected the name 'adam', or lamb",
            ),
            (partial(optax.adam, b1=0.5), "optimizer is adam, of .*, expected the name 'adam', or"),
            (optax.inject_hyperparams(optax.lion), "is lion, of .*, expected the name 'lion', or"),
            (optax.contrib.prodigy, r"is prodigy, of .*, expected lambda h: prodigy\(h\.learning"),
            (optimizers.momentum, "optimizer is momentum, of .*, expected the name 'momentum'"),
        ]
    ),
    (
        lambda: space(optimizer=fixed(optax.adam)),
        search.SpaceError,
        "optimizer can be <function adam at .*>, expected the name 'adam', or lambda h: adam",
    ),
    *(
        (lambda name=name: optimizers.hyper_class(name), ValueError, message)
        for name, message in [
            (optax.adam, r"optimizer is <function adam .*>, expected one of \['adam'"),
            (["adam"], r"optimizer is \['adam'\], expected one of"),
        ]
    ),
    (
        lambda: spec(optimizer=optax.adam(1e-3)),
        TypeError,
        "optimizer is a GradientTransformation, expected a function of the hyperparameters: lam",
    ),
    (
        lambda: train(spec(optimizer=lambda hyper: None), Hyper(0.1), KEY, GOOD),
        TypeError,
        r"optimizer\(hyper\) is None, expected an optax.GradientTransformation",
    ),
    (lambda: spec(schedule="warmup_cosin"), ValueError, r"did you mean 'warmup_cosine'\?$"),
    (lambda: spec(schedule=["step"]), ValueError, r"schedule is \['step'\], expected one of"),
    (
        lambda: schedule("warmup_cosine", warmup_steps=1000),
        ValueError,
        r"is given \{.*'warmup_steps': 1000.*\}, expected what optax takes: .*-900",
    ),
    *(
        (lambda value=value: spec(schedule=lambda steps: lambda i: value), error, message)
        for value, error, message in [
            ("a", TypeError, rf"schedule\(2\)\(iteration\) is 'a', {NUMBERS}"),
            (None, TypeError, rf"schedule\(2\)\(iteration\) is None, {NUMBERS}"),
            (
                np.ones(3),
                ValueError,
                r"schedule\(2\)\(iteration\) has the shape \(3,\), expected a s",
            ),
            (
                0.1j,
                ValueError,
                r"schedule\(2\)\(iteration\) has the dtype complex64, expected a s",
            ),
        ]
    ),
    (
        lambda: spec(schedule=lambda steps: lambda i: 0.1 if i else 1.0),
        ValueError,
        r"schedule\(2\)\(iteration\) is no function of jax.numpy, as expected: Attempted boolean",
    ),
    (lambda: jaxnn.init_state(None, Hyper(0.1), KEY), TypeError, "spec is None, expected jaxnn.Sp"),
    (
        lambda: jaxnn.init_state(MLP((4, 3)), Hyper(0.1), KEY),
        TypeError,
        r"spec is MLP\(.*, expected jaxnn.Spec\(model, steps\)$",
    ),
    (
        lambda: jaxnn.init_state(spec(), Hyper("a"), KEY),
        ValueError,
        "learning_rate is 'a', expected a finite number above 0$",
    ),
    (lambda: jaxnn.init_state(spec(), 0.1, KEY), TypeError, r"hyper is 0\.1, expected Hyper"),
    *(
        (lambda given=given: jaxnn.train_step(*given), error, message)
        for given, error, message in [
            ((None, Hyper(0.1), STATE, BATCH), TypeError, "spec is None, expected jaxnn.Spec"),
            ((spec(), 0.1, STATE, BATCH), TypeError, r"hyper is 0\.1, expected Hyper"),
            (
                (spec(), Hyper("a"), STATE, BATCH),
                TypeError,
                f"a value of hyper or state is 'a', {NUMBERS}",
            ),
            (
                (spec(), Hyper(0.1), (LAYER,), BATCH),
                TypeError,
                r"state is \(Layer\(.*, expected what init_state or train_step returns$",
            ),
            (
                (spec(), Hyper(0.1), None, BATCH),
                TypeError,
                "state is None, expected what init_state or train_step returns$",
            ),
            (
                (spec(optimizer="adam"), Hyper(0.1), STATE, BATCH),
                ValueError,
                r"state.optimizer_state\[0\].count has the shape None, expected \(\) as of init_st",
            ),
            (
                (spec(model=MLP((4, 5, 3))), Hyper(0.1), STATE, BATCH),
                ValueError,
                r"state.params\[0\].weight has the shape \(3, 4\), expected \(5, 4\) as of init_s",
            ),
            (
                (spec(), Hyper(0.1), STATE, (X, 0)),
                ValueError,
                r"batch has inputs \(4,\) and targets \(\), expected inputs \[B, in\] and B",
            ),
            (
                (spec(), Hyper(0.1), STATE, ("a", LABELS)),
                TypeError,
                f"the inputs of the batch is 'a', {NUMBERS}",
            ),
        ]
    ),
    *(
        (lambda given=given: jaxnn.evaluate(*given), TypeError, message)
        for given, message in [
            ((MLP((4, 3)), (LAYER,), GOOD), r"spec is MLP\(.*, expected jaxnn.Spec"),
            ((spec(), GOOD, (LAYER,)), r"the given data are a tuple, expected jaxnn.Data\(inputs"),
            ((spec(), (LAYER,), (ROWS, LABELS)), "the given data are a tuple, expected jaxnn.Data"),
            ((spec(), (LAYER,), None), "the given data are a NoneType, expected jaxnn.Data"),
        ]
    ),
    *(
        (lambda batch=batch: jaxnn.objective(spec(), (LAYER,), 0.0, batch), ValueError, message)
        for batch, message in [
            ((X, 0), r"batch has inputs \(4,\) and targets \(\), expected inputs \[B, in\] and B"),
            ((ROWS, LABELS[:3]), r"batch has inputs \(5, 4\) and targets \(3,\), expected inputs"),
        ]
    ),
    (lambda: jaxnn.init_state(spec(), Hyper(0.1), None), TypeError, "key is None, expected"),
    (
        lambda: jaxnn.objective(MLP((4, 3)), (LAYER,), 0.0, (ROWS, LABELS)),
        TypeError,
        r"spec is MLP\(.*, expected jaxnn.Spec\(model, steps\)$",
    ),
    (
        lambda: jaxnn.objective(spec(), (LAYER,), 0.0, GOOD),
        TypeError,
        r"batch is Data\(...\), expected \(inputs \[B, in\], targets\)$",
    ),
    (lambda: jaxnn.objective(spec(), (LAYER,), "a", (ROWS, LABELS)), TypeError, "l2 is 'a', exp"),
    (lambda: train(MLP((4, 3)), Hyper(0.1), KEY, GOOD), TypeError, r"spec is MLP\(.*, expected"),
    (lambda: train(spec(), Hyper([0.1, 0.2]), KEY, GOOD), ValueError, "a number: train_population"),
    (
        lambda: train(spec(), Hyper(0.1), KEY, GOOD, GOOD),
        TypeError,
        r"evaluate_on is Data\(...\), ",
    ),
    (lambda: train(spec(), Hyper(0.1), KEY, GOOD, "test"), TypeError, "evaluate_on is 'test', exp"),
    (lambda: train(spec(), Hyper(0.1), GOOD, KEY), TypeError, r"the train data are a .*, expected"),
    (
        lambda: train(spec(model=Network(lambda k: X, lambda p, x: None)), Hyper(0.1), KEY, GOOD),
        TypeError,
        r"model.apply\(params, x\) is None, expected logits \[C\]$",
    ),
    *(
        (lambda loss=loss: train(spec(loss=loss), Hyper(0.1), KEY, GOOD), error, message)
        for loss, error, message in [
            (lambda z, y: None, TypeError, f"the loss of one example is None, {NUMBERS}"),
            (
                lambda z, y: z,
                ValueError,
                r"loss of one example has the shape \(3,\), expected a sc",
            ),
            (
                lambda z, y: float(z[0]),
                ValueError,
                "the loss of one example is no function of jax.numpy, as expected: Abstract tracer",
            ),
        ]
    ),
    # populations and processes
    (lambda: jaxnn.best(None, "train"), TypeError, "population is None, expected what train_pop"),
    (
        lambda: train_population(spec(), Hyper(0.1), KEY, GOOD, mesh="cpu"),
        TypeError,
        "mesh is 'cpu'",
    ),
    (
        lambda: train_population(spec(), Hyper(0.1), KEY, GOOD, progress=True),
        TypeError,
        r"progress is True, expected a function \(done, total\)$",
    ),
    (
        lambda: distributed.join(1234, 2, 0),
        ValueError,
        "coordinator_address is 1234, expected 'host:",
    ),
    (
        lambda: distributed.join(2, 1, "a:1"),
        ValueError,
        "coordinator_address is 2, expected 'host:p",
    ),
    (
        lambda: distributed.join("a:99999", 2, 0),
        ValueError,
        "coordinator_address is 'a:99999', exp",
    ),
    (lambda: distributed.join("a:1", 2, "0"), ValueError, "process_id is '0', expected 0 to 1$"),
    # derivations
    (
        lambda: closed_form.softmax_jacobian(None),
        TypeError,
        f"p of softmax_jacobian is None, {NUMBERS}",
    ),
    (
        lambda: closed_form.softmax_jacobian(0.5),
        ValueError,
        r"takes p as a vector, got shape \(\)$",
    ),
    (
        lambda: closed_form.softmax_jacobian(squares),
        TypeError,
        "p of softmax_jacobian is <function",
    ),
    (
        lambda: closed_form.softmax_backward(VECTOR, None),
        TypeError,
        "p_gradient of softmax_backward",
    ),
    (
        lambda: closed_form.layer_gradient("a", X),
        TypeError,
        f"delta of layer_gradient is 'a', {NUMBERS}",
    ),
    (
        lambda: closed_form.affine_composition(X, LAYER),
        TypeError,
        rf"params is an array .*{LAYERS}",
    ),
    (
        lambda: closed_form.affine_weight_jacobian(X, "3"),
        ValueError,
        "out is '3', expected a posit",
    ),
    (
        lambda: closed_form.affine_weight_jacobian(X, -1),
        ValueError,
        "out is -1, expected a positive",
    ),
    (lambda: closed_form.two_layer_values(LAYER, X), TypeError, rf"params is Layer\(.*{LAYERS}"),
    (
        lambda: closed_form.two_layer_gradients((LAYER, LAST), X, VECTOR),
        TypeError,
        r"loss_gradient is an array of shape \(3,\), expected a function of y-hat \[K\]$",
    ),
    (lambda: closed_form.sigmoid_derivative_from_value("a"), TypeError, f"h is 'a', {NUMBERS}"),
    *(
        (lambda given=given: closed_form.softmax_regression_gradients(*given), error, message)
        for given, error, message in [
            ((None, ROWS, LABELS), TypeError, r"a layer is None, expected Layer\(weight, bias\)$"),
            (
                (LAYER[0], ROWS, LABELS),
                TypeError,
                r"a layer is an array of shape \(3, 4\), expected",
            ),
            ((LAYER, ROWS, LABELS + 1), ValueError, r"takes y in 0\.\.2, got 3$"),
            ((LAYER, ROWS, LABELS - 1), ValueError, r"takes y in 0\.\.2, got -1$"),
            ((LAYER, ROWS, [*"abcab"]), TypeError, rf"y is \['a', .*\], {NUMBERS}"),
            ((LAYER, ROWS, LABELS, None), TypeError, f"l2 of .* is None, {NUMBERS}"),
            ((LAYER, ROWS, LABELS, [1, 2]), ValueError, r"takes l2 as a number, got shape \(2,\)$"),
        ]
    ),
    (
        lambda: closed_form.logistic_gradient(X, ROWS, 2 * (LABELS % 2) - 1),
        ValueError,
        r"takes y in 0\.\.1, got -1$",
    ),
    (
        lambda: closed_form.logistic_update(X, ROWS, LABELS, "a"),
        TypeError,
        "learning_rate of .* 'a'",
    ),
    # claims
    *(
        (lambda changes=changes: claimed(**changes), ValueError, message)
        for changes, message in [
            ({"of": None}, "of is None, expected a function$"),
            ({"of": jnp.float32(2)}, r"of is Array\(2\., .*\), expected a function$"),
            ({"formula": 3}, "formula is 3, expected a function$"),
            ({"wrt": ("x", 0)}, r"wrt is \('x', 0\), expected the name of an input"),
            ({"wrt": squares}, "wrt is <function squares .*>, expected the name of an input"),
            ({"wrt": np.ones(2)}, r"wrt is an array of shape \(2,\), expected the name"),
            ({"inputs": real("n")}, r"inputs is Input\(.*\), expected a dict"),
            ({"inputs": [real("n")]}, r"inputs is \[Input\(.*\)\], expected a dict"),
            ({"inputs": {"x": np.ones(3)}}, r"input 'x' is an array of shape \(3,\), expected"),
            ({"terms": squares}, "terms is <function squares .*>, expected a dict of functions"),
            ({"terms": {"a": 3}}, r"terms is \{'a': 3\}, expected a dict of functions by name$"),
            ({"rate": 0.1}, r"rate is 0\.1, expected an input of a claim of kind 'update'$"),
            ({"tolerance": "a"}, "tolerance is 'a', expected a number between 0 and 1$"),
            ({"tolerance": None}, "tolerance is None, expected a number between 0 and 1$"),
            ({"trials": 1.5}, r"trials is 1\.5, expected a whole number, at least 1$"),
            ({"corrects": "other"}, "corrects is 'other', expected a claim$"),
        ]
    ),
    (lambda: simplex("n", axis="a"), ValueError, "simplex has shape .* along axis 'a', expected"),
    *(
        (made, error, message)
        for made, error, message in [
            (
                lambda: sphere(1),
                ValueError,
                r"sphere has shape \(1,\), expected a last size of at l",
            ),
            (
                lambda: sphere(),
                ValueError,
                r"sphere has shape \(\), expected a last size of at lea",
            ),
            (lambda: orthogonal(1), ValueError, r"orthogonal has shape \(1, 1\), expected a last"),
            (lambda: orthogonal(0), ValueError, "a size is 0, expected a name such as 'n', or a "),
            (lambda: sorted_(), ValueError, r"sorted_ got no size, expected a length, such as"),
            (lambda: integers(3, 3), ValueError, "integers got the ends 3 and 3, expected a whole"),
            (lambda: integers(0, 1.5), ValueError, r"integers got the ends 0 and 1\.5, expected a"),
            (lambda: integers(None, 2), ValueError, "integers got the ends None and 2, expected a"),
            (
                lambda: mask("n", axis=2),
                ValueError,
                r"mask has shape \('n',\) and lines along axis",
            ),
            (lambda: mask("n", boolean=1), TypeError, "boolean is 1, expected True or False$"),
            (
                lambda: triangular("n", lower="u"),
                TypeError,
                "lower is 'u', expected True or False$",
            ),
            (
                lambda: batch_of(3),
                TypeError,
                "claim is 3, expected a function decorated with @clai",
            ),
            (
                lambda: batch_of(claimed(), shared=3),
                TypeError,
                "shared is 3, expected the names of",
            ),
            (
                lambda: batch_of(claimed(), shared="q"),
                ValueError,
                "shared is 'q', expected inputs ",
            ),
            (
                lambda: batch_of(claimed(), shared="x"),
                ValueError,
                "expected an input that examples",
            ),
            (
                lambda: batch_of(claimed(), size="n"),
                ValueError,
                "size is 'n', a size of the claim a",
            ),
            (
                lambda: batch_of(claimed(), size=0),
                ValueError,
                "a size is 0, expected a name such as",
            ),
            (
                lambda: batch_of(claimed(layout="vec")),
                ValueError,
                "layout is 'vec', expected a claim without a layout$",
            ),
        ]
    ),
    *(
        (lambda changes=changes: claimed(**changes), ValueError, message)
        for changes, message in [
            (
                {"inputs": {"x": complex_("n")}, "kind": "hessian"},
                "kind is 'hessian' by 'x', complex numbers, expected kind='jacobian' of the gra",
            ),
            (
                {"inputs": {"x": sphere("n")}, "kind": "hessian"},
                "kind is 'hessian' by 'x', a sphere, expected kind='jacobian' of the gradient",
            ),
            ({"inputs": {"x": complex_("n")}, "layout": "vec"}, "layout is 'vec' by 'x', complex"),
            ({"inputs": {"x": key()}}, "wrt is 'x', a PRNG key, expected a parameter that varies"),
            ({"inputs": {"x": integers(0, 3, "n")}}, "wrt is 'x', whole numbers, expected a para"),
            ({"inputs": {"x": mask("n", boolean=True)}}, "wrt is 'x', a mask, expected a paramet"),
        ]
    ),
    (lambda: one_hot("n", axis=None), ValueError, "one_hot has shape .* along axis None, expected"),
    (lambda: label(None), ValueError, "label got no size, expected the number of classes"),
    (lambda: real(np.ones(2)), ValueError, r"a size is an array of shape \(2,\), expected a name"),
    (lambda: verify.verify(derived()), ValueError, "derivation has no lines, expected .line"),
    (lambda: derived().line(squares), TypeError, "statement is <function .*>, expected the line's"),
    (lambda: derived().line("2 x", 3), ValueError, "formula is 3, expected a function"),
    (
        lambda: derived().line("2 x", lambda y: y),
        ValueError,
        "has a parameter 'y', expected one of the inputs x",
    ),
    (
        lambda: derived().line("2 x", squares, layout="rows"),
        ValueError,
        "layout is 'rows', expected one of transpose, vec, vec_rows",
    ),
    (
        lambda: derived().line("2 x", squares, case="i = j"),
        ValueError,
        "case is 'i = j', expected one of the cases: none",
    ),
    (
        lambda: derived(cases={"i": lambda i: i == 0}).line("2", squares, case="i", layout="vec"),
        ValueError,
        "layout is 'vec', expected none for a line of a case",
    ),
    (lambda: derived(formula="2 x"), TypeError, "derivation got 'formula', expected one of terms"),
    (lambda: derived(name=3), TypeError, "name is 3, expected text"),
    (lambda: derived(cases=["i"]), TypeError, r"cases is \['i'\], expected a dict of conditions"),
    (lambda: derived(cases={"i": 3}), ValueError, "the case 'i' is 3, expected a function of ind"),
    (
        lambda: derived(cases={"i": lambda i: i == 0}, layout="vec"),
        ValueError,
        "layout is 'vec', expected none for a derivation with cases",
    ),
    (lambda: derived(kind="slope"), ValueError, "kind is 'slope', expected one of gradient"),
    (
        lambda: in_latex(5),
        ValueError,
        "formula is 5, expected LaTeX as text",
    ),
    (
        lambda: in_latex(" "),
        ValueError,
        "formula is ' ', expected LaTeX as text",
    ),
    (
        lambda: in_latex("2 q"),
        ValueError,
        "formula='2 q' cannot be read: 'q' is not known, expected an input, a size, an index, or a "
        "where= for it",
    ),
    (
        lambda: in_latex("2 q", where={"q": 5}),
        ValueError,
        "where has 5 for 'q', expected for LaTeX a function, LaTeX, or the name of an input",
    ),
    (
        lambda: in_latex("2 q", where={"q": lambda x: x @ x.T.T[:1]}),
        ValueError,
        "formula='2 q' cannot be read: where: q: ",
    ),
    (
        lambda: in_latex("2 x", name=7),
        ValueError,
        "name is 7, expected text",
    ),
    (
        lambda: verify.verify(squares),
        TypeError,
        r"claim is <function .*>, expected a function deco",
    ),
    (
        lambda: verify.verify("claims.py"),
        TypeError,
        "claim is 'claims.py', expected a function deco",
    ),
    (
        lambda: verify.verify([claimed()]),
        TypeError,
        r"claim is \[Claim\(.*, expected a function deco",
    ),
    (
        lambda: verify.verify(claimed(), trials=1.5),
        ValueError,
        r"trials is 1\.5, expected a positiv",
    ),
    (
        lambda: verify.verify(claimed(), trials=True),
        ValueError,
        "trials is True, expected a positive",
    ),
    (
        lambda: verify.verify(claimed(), seed=-1),
        ValueError,
        "seed is -1, expected an integer of at",
    ),
    (
        lambda: verify.verify(claimed(), seed=KEY),
        ValueError,
        "seed is .*, expected an integer of at",
    ),
    (
        lambda: verify.assert_holds(claimed(), allow="hold"),
        TypeError,
        r"allow is \('hold',\), expect",
    ),
    (
        lambda: verify.assert_holds(claimed(), allow=None),
        TypeError,
        "allow is None, expected some of",
    ),
    (
        lambda: verify.expectation(squares, over=[1]),
        ValueError,
        r"over is \[1\], expected a dict such as \{'mask': bernoulli\(\)\}$",
    ),
    (
        lambda: verify.expectation(squares, over={"x": 0.5}),
        TypeError,
        r"over\['x'\] is 0\.5, expected a random input such as bernoulli\(\)$",
    ),
    (
        lambda: verify.expectation(3, over={"x": verify.bernoulli()}),
        TypeError,
        "function is 3, expected a function of inputs$",
    ),
    (
        lambda: verify.expectation(lambda y: y, over={"x": verify.bernoulli()}),
        ValueError,
        "over has 'x', expected one of the parameters y$",
    ),
    (
        lambda: verify.bernoulli(1.5),
        ValueError,
        r"probability is 1\.5, expected a number from 0 to 1$",
    ),
    (
        lambda: verify.minibatch("X", 0),
        ValueError,
        "size is 0, expected a whole number, at least 1$",
    ),
    (
        lambda: verify.sampled(lambda mu: mu),
        ValueError,
        "draw is .*, expected a function of 'key'$",
    ),
    (
        lambda: verify.sampled(lambda key: 0.0, 3),
        ValueError,
        "log_density is 3, expected a function of 'outcome'$",
    ),
    (
        lambda: verify.expectation(lambda z: z, over={"z": verify.sampled(lambda key: 0.0)})(),
        ValueError,
        "an expectation over infinitely many outcomes, expected at most 4,096; more are sampled",
    ),
    (lambda: gradcheck(None, X), TypeError, "f is None, expected a function of x$"),
    (
        lambda: gradcheck(X, squares),
        TypeError,
        r"f is an array of shape \(4,\), expected a function",
    ),
    (lambda: gradcheck(squares, "a"), TypeError, f"x is 'a', {NUMBERS}"),
    (lambda: gradcheck(squares, np.array(["a"])), TypeError, rf"x is an array .*, {NUMBERS}"),
    (lambda: gradcheck(squares, X, "a"), TypeError, f"the gradient is 'a', {NUMBERS}"),
    (lambda: gradcheck(squares, X, step="a"), ValueError, "step is 'a', expected a number between"),
    (
        lambda: gradcheck(lambda x: float(jnp.sum(x)), X),
        ValueError,
        "gradient is None, expected the gradient: JAX does not trace f",
    ),
    # spaces and methods
    (lambda: uniform("a", 1), search.SpaceError, r"uniform\('a', 1\): expected two numbers$"),
    (lambda: uniform(True, 2), search.SpaceError, r"uniform\(True, 2\): expected two numbers$"),
    (lambda: uniform(X, 1), search.SpaceError, r"uniform\(an array of shape \(4,\), 1\): expected"),
    (
        lambda: integer(1.0, "2"),
        search.SpaceError,
        r"integer\(1\.0, '2'\): expected whole numbers$",
    ),
    (
        lambda: choice(uniform(0, 1), 2),
        search.SpaceError,
        r"an option is Domain\(.*, expected a num",
    ),
    (lambda: conditional(0.5, l2=1), search.SpaceError, r"conditional\(0\.5\): expected a domain"),
    (
        lambda: search.Space(pd.DataFrame([[1, 2]])),
        search.SpaceError,
        r"DataFrame of shape \(1, 2\)",
    ),
    (lambda: space(learning_rat=fixed(1)), search.SpaceError, r"did you mean 'learning_rate'\?$"),
    (lambda: space(hiden=fixed(())), search.SpaceError, r"'hiden' .*; did you mean 'hidden'\?$"),
    (lambda: space(l2=np.ones(2)), search.SpaceError, r"l2 is an array of shape \(2,\), expected"),
    *(
        (
            lambda u=u: uniform(0, 1).at(u),
            ValueError,
            f"u is {said}, expected a number from 0 to 1$",
        )
        for u, said in [
            ("a", "'a'"),
            (None, "None"),
            (1.5, r"1\.5"),
            (NAN, "nan"),
            (X, "an array.*"),
        ]
    ),
    (lambda: choice(1, 2).at("a"), ValueError, "u is 'a', expected a number from 0 to 1$"),
    (lambda: space().configuration(None), TypeError, "u is None, expected numbers from 0 to 1 by"),
    (lambda: space().configuration([0.5]), TypeError, r"u is \[0\.5\], expected numbers from 0 to"),
    (
        lambda: space().configuration({"learning_rate": "a"}),
        ValueError,
        "u is 'a', expected a number from 0 to 1$",
    ),
    (lambda: space().grid(5), TypeError, "points is 5, expected numbers of points by name$"),
    *(
        (
            lambda n=n: space().grid({"learning_rate": n}),
            ValueError,
            f"of points is {said}, expecte",
        )
        for n, said in [("a", "'a'"), (0, "0"), (-1, "-1"), (2.5, r"2\.5"), (None, "None")]
    ),
    (
        lambda: uniform(0, 1).grid(10**12),
        search.SpaceError,
        "1000000000000 points, expected at mos",
    ),
    (lambda: search.random({"l2": 1}), ValueError, r"count is \{'l2': 1\}, expected a positive"),
    (
        lambda: search.population_based(4, quantile="a"),
        ValueError,
        "quantile is 'a', expected a num",
    ),
    (
        lambda: search.population_based(4, quantile=25),
        ValueError,
        "quantile is 25, expected a number",
    ),
    (
        lambda: search.population_based(4, factors=1.2),
        search.SpaceError,
        r"factors is 1\.2, expected",
    ),
    (
        lambda: search.population_based(4, factors="0.8"),
        search.SpaceError,
        "factors is '0.8', expec",
    ),
    (lambda: search.population_based(4, factors=[None]), search.SpaceError, r"factors is \[None\]"),
    (
        lambda: search.population_based(4, resample=None),
        ValueError,
        "resample is None, expected a p",
    ),
    (lambda: search.optuna(4, sampler="tp"), search.SpaceError, r"did you mean 'tpe'\?$"),
    (
        lambda: search.optuna(4, sampler=["tpe"]),
        search.SpaceError,
        r"sampler is \['tpe'\], expected",
    ),
    # searches
    (
        lambda: search.holdout("a"),
        ValueError,
        "fraction is 'a', expected a number above 0 and below",
    ),
    (
        lambda: search.holdout(20),
        ValueError,
        "fraction is 20, expected a number above 0 and below 1$",
    ),
    (lambda: search.folds("5"), ValueError, "folds is '5', expected an integer of at least 2$"),
    (lambda: search.folds(True), ValueError, "folds is True, expected an integer of at least 2$"),
    (
        lambda: task(test=Data(np.ones((1, 4)), [0])),
        ValueError,
        "the test set holds 1 example, expected at least 2 for an interval$",
    ),
    (lambda: task(measure="Loss"), ValueError, r"measure is 'Loss', .*; did you mean 'loss'\?$"),
    (lambda: task(measure=["loss"]), ValueError, r"measure is \['loss'\], expected one of"),
    (
        lambda: task(validation=X),
        TypeError,
        r"validation is an array of shape \(4,\), expected hold",
    ),
    (
        lambda: task(model=MLP((4, 2))),
        TypeError,
        r"model is MLP\(.*, expected a module of Flax or Equinox, or a function from",
    ),
    (
        lambda: task(model=lambda l2: MLP((4, 2)), model_parameters="l2"),
        ValueError,
        "model_parameters has 'l2', expected names not in Hyper$",
    ),
    *(
        (
            lambda changes=changes: search.search(
                **{"task": task(), "space": {}, "method": search.random(1), "key": KEY, **changes}
            ),
            error,
            message,
        )
        for changes, error, message in [
            ({"task": None}, TypeError, "task is None, expected jaxnn.search.Task"),
            ({"task": GOOD}, TypeError, r"task is Data\(...\), expected jaxnn.search.Task"),
            ({"seeds": [0, 1]}, ValueError, r"seeds is \[0, 1\], expected a positive integer$"),
            ({"mesh": "cpu"}, TypeError, r"mesh is 'cpu', expected jax.make_mesh"),
            (
                {"checkpoint_seconds": "a"},
                ValueError,
                "checkpoint_seconds is 'a', expected seconds",
            ),
            (
                {"checkpoint_seconds": NAN},
                ValueError,
                "checkpoint_seconds is nan, expected seconds",
            ),
            ({"timeout": -1}, ValueError, "timeout is -1, expected seconds of at least 0$"),
            ({"timeout": "a"}, ValueError, "timeout is 'a', expected seconds of at least 0$"),
            ({"timeout": NAN}, ValueError, "timeout is nan, expected seconds of at least 0$"),
            ({"timeout": True}, ValueError, "timeout is True, expected seconds of at least 0$"),
            ({"callback": 3}, TypeError, "callback is 3, expected a function of an Evaluation$"),
        ]
    ),
    *(
        (
            lambda changes=changes: search.search(
                task(), RATES, **{"method": search.random(1), "key": KEY, **changes}
            ),
            error,
            message,
        )
        for changes, error, message in [
            (
                {"enqueue": "a"},
                TypeError,
                "enqueue is 'a', expected a list of configurations",
            ),
            (
                {"enqueue": RATE},
                TypeError,
                r"enqueue is \{.*, expected a list of configurations, s",
            ),
            ({"enqueue": [3]}, search.SpaceError, r"enqueue\[0\] is 3, expected values by name$"),
            (
                {"enqueue": [{}]},
                search.SpaceError,
                r"has no learning_rate, expected a value$",
            ),
            (
                {"enqueue": [RATE, RATE | {"learning_rates": 1}]},
                search.SpaceError,
                r"enqueue\[1\] has 'learning_rates', expected one of .*mean 'learning_rate'\?$",
            ),
            (
                {"enqueue": [{"learning_rate": 2}]},
                search.SpaceError,
                r"enqueue\[0\]: learning_rate is 2, expected from 0\.1 to 1$",
            ),
            (
                {"enqueue": [{"learning_rate": NAN}]},
                search.SpaceError,
                r"enqueue\[0\]: learning_rate is nan, expected from 0\.1 to 1$",
            ),
            (
                {"enqueue": [{"learning_rate": "a"}]},
                search.SpaceError,
                r"enqueue\[0\]: learning_rate is 'a', expected from 0\.1 to 1$",
            ),
            (
                {"enqueue": [RATE | {"batch_size": 3}]},
                search.SpaceError,
                r"enqueue\[0\]: batch_size is 3, expected one of \[2\]$",
            ),
            (
                {"warm_start": "a"},
                ValueError,
                r"warm_start is given with the method random, expected optuna\(...\)$",
            ),
            (
                {"warm_start": 3, "method": search.optuna(2)},
                TypeError,
                "folder is 3, expected a path$",
            ),
            (
                {"method": lambda *_: 3, "enqueue": [RATE]},
                TypeError,
                "method returned 3, expected a generator of rounds: yield Round$",
            ),
        ]
    ),
    (lambda: search.Result.load(3), TypeError, "folder is 3, expected a path$"),
    (
        lambda: search.Result.load("a\0b"),
        ValueError,
        r"folder is 'a\\x00b', expected a path without",
    ),
    (
        lambda: search.Result.load(Path(__file__).parent),
        search.RunFolderError,
        r"tests holds no run\.db, expected a search$",
    ),
    # files
    (lambda: saved_model.load_model(None), TypeError, "folder is None, expected a path$"),
    (
        lambda: saved_model.load_model(saved()),
        TypeError,
        r"folder is SavedModel\(.*, expected a path$",
    ),
    (
        lambda: saved_model.load_model("a\0b"),
        ValueError,
        r"folder is 'a\\x00b', expected a path with",
    ),
    (lambda: saved_model.save_model(3, spec(), ()), TypeError, "folder is 3, expected a path$"),
    (
        lambda: saved_model.save_model("a", MLP((4, 3)), ()),
        TypeError,
        r"spec is MLP\(.*, expected the",
    ),
    (
        lambda: saved_model.save_model("a", spec(), None),
        ValueError,
        r"params\[0\].weight has the shape None, expected \(1, 3, 4\) as of spec.model.init, with",
    ),
    (
        lambda: saved_model.save_model("a", spec(), (LAYER,), scale="a"),
        TypeError,
        f"scale is 'a', {NUMBERS}",
    ),
    (
        lambda: saved_model.save_model("a", spec(), (LAYER,), about="notes"),
        TypeError,
        "about is 'notes', expected a dict of notes$",
    ),
    (lambda: saved().predict(None), ValueError, "inputs hold None, expected numbers$"),
    (lambda: saved().predict([["a"] * 4]), ValueError, "inputs hold a, expected numbers$"),
    (lambda: saved().predict([[1, 2], [3]]), ValueError, "inputs are rows of unequal lengths, exp"),
    (
        lambda: saved().predict([[1, 2, NAN, 4]]),
        ValueError,
        r"inputs hold 1 value that .* nan at \[0, 2",
    ),
    (lambda: saved().predict(X), ValueError, r"inputs have the shape \(4,\), expected \[N, 4\]$"),
    (lambda: saved().predict([X], replicate="a"), ValueError, "replicate is 'a', expected one of"),
    (
        lambda: saved().predict([X], replicate=0.0),
        ValueError,
        r"replicate is 0\.0, expected one of",
    ),
    (lambda: data.load(GOOD), data.DataError, r"dataset is Data\(...\), expected 'digits'"),
    (
        lambda: data.load(np.ones((3, 4))),
        data.DataError,
        r"the array has the columns '0', '1', '2', '3', expected label=NAME or label=POSITION",
    ),
    (
        lambda: data.standardized(Data(np.zeros((0, 2)), [])),
        data.DataError,
        r"inputs of shape \(0, 2\), expected \[N, \.\.\.\], N > 0",
    ),
    (
        lambda: data.standardized(Data(np.zeros(3), [])),
        data.DataError,
        r"inputs of shape \(3,\), expected",
    ),
    (
        lambda: data.standardized(PLAIN, Data(np.zeros((3, 2)), [])),
        data.DataError,
        r"examples of shape \(2,\), expected \(4,\)",
    ),
    (
        lambda: data.load("MNIST"),
        data.MissingDataError,
        r"dataset is 'MNIST', .*; did you mean 'mnist'",
    ),
    (lambda: data.load("fashion-mnist"), data.MissingDataError, r"did you mean 'fashion_mnist'\?$"),
    (lambda: data.load("mnist", 3), TypeError, "data_dir is 3, expected a path$"),
]


REAL = np.linspace(0.0, 1.0, 20)
PLAIN = Data(np.arange(80.0).reshape(20, 4) / 80, np.arange(20) % 3)


class Own(NamedTuple):
    learning_rate: float = 0.1
    l2: float = 0.0
    label_smoothing: float | None = None
    gamma: float | None = None
    delta: float | None = None
    b1: float | None = None


OWN = Own()


def fit(changes=(), hyper=OWN, **program):
    return train(spec(**program), hyper, 0, PLAIN._replace(**dict(changes)))


def score(function):
    return Metric("own", function, True)


def stateful(apply, init=lambda key: Variables(jnp.ones((4, 3)), jnp.zeros(3))):
    return Network(init, apply, batched=True)


def shrinking(variables, x, training):
    logits = x @ variables.params
    return (logits, jnp.zeros(2)) if training else logits


LINE = MLP((4, 1))
TASKS = [
    # weights
    ({"weights": "uniform"}, {}, r"weights are 'uniform', expected weights \[N\], \{class: weight"),
    ({"weights": 3.0}, {}, r"weights have the shape \(\), expected 20 numbers of at least 0"),
    ({"weights": [1, 2]}, {}, r"weights have the shape \(2,\), expected 20 numbers of at least 0"),
    ({"weights": np.ones((20, 1))}, {}, r"weights have the shape \(20, 1\), expected 20 numbers"),
    ({"weights": -np.ones(20)}, {}, "weights have the least -1, expected 20 numbers of at least 0"),
    ({"weights": np.zeros(20)}, {}, "weights have the least 0, expected .* one above 0"),
    ({"weights": np.full(20, NAN)}, {}, r"weights hold 20 values that .* nan at \[0\], expected"),
    ({"weights": ["a"] * 20}, {}, "weights hold a, expected numbers"),
    ({"weights": {0: 1, 1: 2}}, {}, "weights lack the class 2, expected"),
    ({"weights": {0: 1, 1: 2, 2: None}}, {}, "weight of class 2 is None, expected a number of at"),
    ({"weights": {0: 1, 1: 2, 2: "a"}}, {}, "weight of class 2 is 'a', expected a number of at"),
    ({"weights": {0: 1, 1: 2, 2: -1}}, {}, "weight of class 2 is -1, expected a number of at"),
    (
        {"weights": "balanced", "targets": np.eye(3)[PLAIN.targets]},
        {},
        "weights are by class and the targets are not class indices, expected",
    ),
    (
        {"weights": "balanced", "targets": REAL},
        {"loss": "mse", "model": LINE},
        "weights are by class and the targets are not class indices, expected",
    ),
    # scale, shift, names
    (
        {"shift": NAN},
        {},
        "the shift nan, expected a finite number, or one for each of the 4",
    ),
    ({"shift": np.ones(3)}, {}, r"the shift an array of shape \(3,\), expected a finite number"),
    ({"shift": "a"}, {}, "the shift 'a', expected a finite number"),
    ({"scale": "a"}, {}, "the scale 'a', expected a finite number"),
    ({"names": 3}, {}, "names are 3, expected a name of each class"),
    ({"names": "abc"}, {}, "names are 'abc', expected a name of each class"),
    ({"names": ("a", "b")}, {}, r"names are \('a', 'b'\), expected 3, a name of each class"),
    ({"names": ("a", "b", "a")}, {}, r"names are \('a', 'b', 'a'\), expected a name of each class"),
    # regressions
    (
        {},
        {"loss": "mse"},
        r"\(20,\) and the outputs of the network are 3, expected 1 for mse",
    ),
    ({"targets": REAL}, {"loss": "mae"}, "outputs of the network are 3, expected 1 for mae"),
    (
        {"targets": REAL},
        {"loss": "gaussian_nll", "model": LINE},
        "the outputs of the network are 1, expected 2 for gaussian_nll",
    ),
    (
        {"targets": np.ones((20, 3, 1))},
        {"loss": "mse"},
        r"the shape \(20, 3, 1\) and the outputs of the network are 3",
    ),
    (
        {"targets": np.full(20, INF)},
        {"loss": "huber", "model": LINE},
        "targets hold 20 values that JAX cannot compute with",
    ),
    ({"targets": REAL}, {}, "expected class indices: the losses of real targets are gaussian_nll"),
    ({}, {"loss": "MSE"}, "loss is 'MSE', expected one of .*did you mean 'mse'"),
    # metrics
    ({}, {"metrics": "acuracy"}, "metric is 'acuracy', expected one of .*did you mean 'accuracy'"),
    ({}, {"metrics": None}, "metric is None, expected one of"),
    ({}, {"metrics": (lambda z, t: 0.0,)}, "metric is <function .*, expected one of .* Metric"),
    ({}, {"metrics": ("accuracy", "accuracy")}, "metrics holds 'accuracy' twice, expected"),
    ({}, {"metrics": score(lambda z, t: z[0])}, r"metric own has the shape \(3,\), expected a"),
    (
        {},
        {"metrics": score(lambda z, t: np.asarray(z).max())},
        "metric own is no function of jax.numpy",
    ),
    # hyperparameters of losses
    ({}, {"hyper": Own(label_smoothing=1.5)}, "label_smoothing is 1.5, expected a number from 0"),
    (
        {},
        {"hyper": Own(label_smoothing=[0.1, 0.2])},
        r"label_smoothing is \[0.1, 0.2\], exp",
    ),
    ({}, {"hyper": Own(gamma=-1), "loss": "focal"}, "gamma is -1.0, expected a finite number of"),
    (
        {"targets": REAL},
        {"hyper": Own(delta=0), "loss": "huber", "model": LINE},
        "delta is 0.0, expected a finite number above 0",
    ),
    (
        {},
        {"hyper": Own(b1=0.5), "optimizer": "adam", "loss": lambda z, t, b1=0.5: b1 * jnp.sum(z)},
        "b1 is a parameter of the optimizer and of the loss or the model, expected another name",
    ),
    # models
    (
        {},
        {"model": stateful(shrinking)},
        r"statistics has the shape \(2,\), expected \(3,\) as of the model's init",
    ),
    (
        {},
        {"model": stateful(lambda p, x: (x @ p)[0], lambda key: jnp.ones((4, 3)))},
        r"2 examples has the shape \(3,\), expected logits \[2, C\]",
    ),
]


@pytest.mark.parametrize(("changes", "program", "message"), TASKS)
def test_a_task_is_refused_in_one_line(changes, program, message):
    with pytest.raises(ValueError, match=message) as error:
        fit(changes, **program)
    assert "\n" not in str(error.value)


def rows_and(targets) -> tuple[np.ndarray, np.ndarray]:
    """A pair of inputs and targets."""
    return np.random.default_rng(0).random((len(targets), 3)), np.asarray(targets)


MANY = np.random.default_rng(3).permutation(60) * 3  # too many different values for classes
TWO = (np.zeros((4, 2)), [0, 1, 0, 1])
FRAME = pd.DataFrame({"a": [0.5, 1.5, 2.5, 3.5], "b": [1, 2, 1, 2], "c": [0.1, 0.2, 0.3, 0.4]})

DATA_SETS = [
    # options
    ("digits", {"label": "x"}, "label is 'x' for digits, expected None"),
    ("digits", {"regression": "yes"}, "regression is 'yes', expected True, False or None"),
    ("digits", {"regression": 1}, "regression is 1, expected True, False or None"),
    ("digits", {"flatten": 0}, "flatten is 0, expected True or False"),
    ("digits", {"flatten": None}, "flatten is None, expected True or False"),
    ("digits", {"seed": -1}, "seed is -1, expected a whole number from 0"),
    ("digits", {"seed": 1.5}, r"seed is 1\.5, expected a whole number from 0"),
    ("digits", {"seed": True}, "seed is True, expected a whole number from 0"),
    ("digits", {"label": 0.5}, r"label is 0\.5, expected the name or the position of a column"),
    ("digits", {"label": ["a"]}, r"label is \['a'\], expected the name or the position"),
    # the label of a table
    (FRAME, {}, "the data frame has the columns 'a', 'b', 'c', expected label=NAME or label=POS"),
    (FRAME, {"label": "d"}, "label is 'd', expected a column of the data frame: 'a', 'b', 'c'"),
    (FRAME, {"label": "A"}, "label is 'A', expected a column of .*; did you mean 'a'"),
    (FRAME, {"label": 3}, "label is 3, expected a position among 3 columns"),
    (FRAME, {"label": -4}, "label is -4, expected a position among 3 columns"),
    (FRAME[["b"]], {"label": "b"}, "has no column but the label, expected columns of inputs"),
    (FRAME[["b"]], {}, "the data frame has the columns 'b', expected label=NAME"),
    (FRAME.assign(y=1, label=2), {}, "'label', expected label=NAME or label=POSITION"),
    (FRAME.assign(y="x"), {}, "train_labels hold the class x alone, expected at least 2 classes"),
    # columns
    (FRAME.assign(a="x", y=[0, 1] * 2), {}, "the column 'a' holds 'x', expected numbers: encode"),
    (
        FRAME.assign(a=[1, NAN, 2, INF], y=[0, 1] * 2),
        {},
        "2 of 4 values in the column 'a' are miss",
    ),
    (FRAME.assign(a=NAN, b=NAN, y=[0, 1] * 2), {}, "'a' are .*, 8 in 2 columns together, expected"),
    (FRAME.assign(a=1e300, y=[0, 1] * 2), {}, "4 of 4 values in the column 'a' are missing or not"),
    (FRAME.assign(a=None, y=[0, 1] * 2), {}, "4 of 4 values in the column 'a' are missing"),
    (FRAME.assign(y=["u", None] * 2), {}, "2 of 4 values in the column 'y' are missing"),
    (FRAME.assign(y=[1, NAN] * 2), {}, "2 of 4 values in the column 'y' are missing"),
    (FRAME.assign(a=pd.NaT, y=[0, 1] * 2), {}, "the column 'a'"),
    (FRAME.assign(a=1j, y=[0, 1] * 2), {}, "the column 'a' holds 1j, expected numbers"),
    (pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]), {}, "columns of one name"),
    # objects
    ([], {}, r"dataset is \[\], expected 'digits'"),
    ((np.zeros((3, 2)),), {}, r"dataset is \(array.*\), expected 'digits'"),
    (5, {}, "dataset is 5, expected 'digits'"),
    (b"digits", {}, "dataset is b'digits', expected 'digits'"),
    ({"digits"}, {}, "dataset is {'digits'}, expected 'digits'"),
    (np.array("digits"), {}, r"an array of shape \(\) and dtype <U6, expected a pair"),
    (np.zeros(3), {}, r"an array of shape \(3,\) and dtype float64, expected a pair"),
    (np.zeros((2, 2, 2)), {}, r"an array of shape \(2, 2, 2\) and dtype float64, expected a pair"),
    (np.zeros((0, 2)), {}, r"an array of shape \(0, 2\) and dtype float64, expected a pair"),
    ({"a": np.zeros(3)}, {}, "the data holds the arrays a, expected train_images"),
    ({"x": [[1, 2]], "y": [1], "data": [[1, 2]]}, {}, "hold the class 1 alone"),
    ((np.zeros((3, 2)), np.zeros(4)), {}, "hold 3 examples and train_labels 4, expected equal"),
    ((np.zeros((3, 0)), np.zeros(3)), {}, r"shape \(3, 0\), expected .* one value in each"),
    (([[1, 2], [3]], [0, 1]), {}, r"is no data set \("),
    ((TWO, (np.zeros((4, 3)), TWO[1])), {}, "test_images have 3 values each, expected 2 as train"),
    ((TWO[0], np.ma.masked_equal([0, 1, 3, 1], 3)), {}, "train_labels are masked, expected a num"),
    ((np.ma.masked_equal(TWO[0], 0), TWO[1]), {}, "train_images are masked, expected a number"),
    (TWO, {"label": "a"}, "label is 'a', expected None: the arrays are inputs and targets"),
    ({"x": TWO[0], "y": TWO[1]}, {"label": 0}, "label is 0, expected None: the arrays are inputs"),
    ((FRAME, FRAME), {"label": "d"}, "label is 'd', expected a column of the data frame"),
    ((FRAME, FRAME[["a", "b"]]), {"label": "b"}, "the data frame lacks the column 'c', expected"),
    # targets
    (rows_and(["a", "b"] * 9), {"regression": True}, "hold 'a', expected real numbers for a regre"),
    (
        rows_and(np.linspace(0, 1, 20)),
        {"regression": False},
        r"hold 0\.05.*, expected class indices",
    ),
    (rows_and(MANY), {"regression": False}, "hold 60 different values .* expected classes of 5"),
    (rows_and([f"name{i}" for i in range(60)]), {}, "hold 60 different values"),
    (rows_and(["a"] * 10), {}, "train_labels hold the class a alone, expected at least 2"),
    (rows_and(["a", "", "b", "?"] * 10), {}, "20 of 40 labels are missing, expected a label an ex"),
    (rows_and([0, 1, None] * 9), {}, "train_labels hold 0, expected numbers or texts alone"),
    (rows_and(np.full((30, 3), 1 / 3)), {}, r"\(30, 3\), expected one label an example"),
    (rows_and(np.zeros((30, 3, 2))), {}, r"\(30, 3, 2\), expected one label an example"),
    (rows_and([0, 1, NAN] * 10), {}, "10 values that JAX cannot compute with"),
    (rows_and([0, 1, INF] * 10), {"regression": True}, "10 values that JAX cannot compute with"),
    (rows_and([0, 1j] * 10), {}, "train_labels have the dtype complex128, expected integers"),
    (rows_and(np.array(["2020-01-01", "2021-01-01"] * 9, "M8[D]")), {}, "datetime64"),
    (rows_and(["a", "b", "c"]), {}, "there are 3 examples, expected 2 of a class, one to test on"),
    (
        (rows_and(["a", "b"] * 3), rows_and(["a", "c"])),
        {},
        "test_labels hold c, a class without an",
    ),
    ((rows_and(MANY), rows_and(["a", "b"])), {}, "test_labels hold 'a', expected real numbers"),
]


@pytest.mark.parametrize(("source", "options", "message"), DATA_SETS)
def test_data_are_refused_in_one_line(source, options, message):
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(source, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("call", "error", "message"), DOORS)
def test_every_door_refuses_in_one_line_of_its_own(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    place = Path(traceback.extract_tb(caught.tb)[-1].filename)
    assert place.is_relative_to(Path(jaxnn.__file__).parent)


PROBABILITIES = [0.2, 0.3, 0.5]


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (lambda: jaxnn.init(0, (4, 3)), lambda: jaxnn.init(KEY, (4, 3))),
        (lambda: jaxnn.init(np.int64(0), (4, 3)), lambda: jaxnn.init(KEY, (4, 3))),
        (lambda: jaxnn.init(jax.random.PRNGKey(0), (4, 3)), lambda: jaxnn.init(KEY, (4, 3))),
        (lambda: jaxnn.apply([(*LAYER,)], [1, 1, 1, 1]), lambda: jaxnn.apply((LAYER,), X)),
        (lambda: jaxnn.apply((LAYER,), Tensor(X)), lambda: jaxnn.apply((LAYER,), X)),
        (lambda: jaxnn.apply((LAYER,), pd.Series(X)), lambda: jaxnn.apply((LAYER,), X)),
        (lambda: losses.cross_entropy([1, 1, 1], Tensor(2)), lambda: np.log(3)),
        (lambda: losses.logistic(0, 1), lambda: np.log(2)),
        (lambda: losses.logistic([0], 0.25), lambda: np.log(2)),
        (lambda: losses.l2_penalty([Tensor([[3.0, 4.0]]), Tensor([7.0])]), lambda: 12.5),
        (
            lambda: closed_form.softmax_backward(PROBABILITIES, Tensor([1, 2, 4])),
            lambda: np.array([-0.36, -0.24, 0.6]),  # p_i (g_i - 2.8)
        ),
        (
            lambda: closed_form.softmax_regression_gradients(
                (*LAYER,), pd.DataFrame(ROWS), pd.Series(LABELS)
            ),
            lambda: closed_form.softmax_regression_gradients(LAYER, ROWS, LABELS),
        ),
        (
            lambda: closed_form.logistic_gradient([0] * 4, ROWS.tolist(), [1, 0, 0, 0, 0]),
            lambda: np.full(4, 0.5 - 1 / 5),
        ),
        (lambda: spec(evaluate_at=1).evaluate_at, lambda: (1, 2)),
        (lambda: gradcheck(squares, [1.0, 2.0], [2.0, 4.0]).passed, lambda: True),
        (lambda: gradcheck(squares, Tensor([1.0, 2.0])).passed, lambda: True),
        (lambda: real(np.int64(3)).shape, lambda: (3,)),
        (lambda: uniform(jnp.float32(0.5), np.int64(1)).at(0.5), lambda: 0.75),
        (lambda: choice(np.array([1, 2]), jnp.array([3])).options, lambda: ((1, 2), (3,))),
        (lambda: saved().predict(pd.DataFrame([X])), lambda: saved().predict([X])),
        (lambda: saved().predict([[*map(float, X)]]), lambda: saved().predict([X])),
    ],
)
def test_plain_meanings_are_accepted(given, same):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), given(), same())


def test_a_task_takes_the_name_of_a_single_parameter():
    assert task(
        model=lambda width: MLP((4, width, 2)), model_parameters="width"
    ).model_parameters == ("width",)


def test_a_model_is_loaded_by_its_file(tmp_path):
    saved_model.save_model(tmp_path, spec(), (LAYER,), scale=[1, 2, 3, 4])
    model = saved_model.load_model(tmp_path / saved_model.MODEL)
    np.testing.assert_array_equal(model.scale, [1, 2, 3, 4])


@pytest.mark.parametrize("below", [".", "model"])
def test_a_file_in_place_of_the_folder_of_a_model_is_one_line(tmp_path, below):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError, match=r"file is a file, expected a folder$") as caught:
        saved_model.save_model(tmp_path / "file" / below, spec(), (LAYER,))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_step_takes_lists_and_numbers_of_numpy():
    expected, _ = jaxnn.train_step(spec(), Hyper(0.1), STATE, BATCH)
    hyper = Hyper(np.float32(0.1), np.int64(0))
    found, _ = jaxnn.train_step(spec(), hyper, STATE, (ROWS.tolist(), LABELS.tolist()))
    np.testing.assert_array_equal(found.params[0].weight, expected.params[0].weight)
