"""Declaring a claim: what is refused at the door, paths into trees, the learning rate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import VECTOR, cubes, made, verdict_on

from jaxnn.verify import binary, claim, interval, label, one_hot, positive, real, scalar, simplex
from jaxnn.verify.claims import at_path, learning_rate_name, with_path
from jaxnn.verify.inputs import is_input


class Layer(NamedTuple):
    weight: object
    bias: object


LAYERS = {
    "layers": [Layer(real("h", "in"), real("h")), Layer(real("out", "h"), real("out"))],
    "tables": {"left": (real("h"), positive("h")), "right one": real("in")},
}


def by_position(x, /):
    return 3 * x**2


def of_another_name(a):
    return 3 * a**2


def of_greek(θ, λ):
    return λ * jnp.sum(θ**2)


def of_a_label(x, k):
    return x[k]


BAD_CLAIMS = {
    "kind": (
        {"kind": "derivative"},
        r"kind is 'derivative', expected one of gradient, jacobian, hessian, value, update, vjp",
    ),
    "layout": (
        {"layout": "columns"},
        r"layout is 'columns', expected one of transpose, vec, vec_rows",
    ),
    "no trials": ({"trials": 0}, r"trials is 0, expected a whole number, at least 1"),
    "trials that are no number": ({"trials": float("nan")}, r"trials is nan, expected"),
    "tolerance of 0": ({"tolerance": 0.0}, r"tolerance is 0.0, expected .* between 0 and 1"),
    "tolerance of 1": ({"tolerance": 1}, r"tolerance is 1, expected a number between 0 and 1"),
    "an array as input": (
        {"inputs": {"x": np.ones(3)}},
        r"input 'x' is .*, expected a generator such as real\('n'\)",
    ),
    "a number within a tree": ({"inputs": {"x": [real("n"), 3]}}, r"input 'x' is .*expected"),
    "an empty tree": ({"inputs": {"x": ()}}, r"input 'x' is \(\), expected a generator"),
    "a parameter of the function": (
        {"of": of_another_name},
        r"of_another_name has a parameter 'a', expected one of the inputs x",
    ),
    "a parameter of a term": (
        {"terms": {"data": cubes, "penalty": of_another_name}},
        r"of_another_name has a parameter 'a', expected one of the inputs x",
    ),
    "no wrt": ({"wrt": ()}, r"kind 'gradient' got no wrt, expected one of x"),
    "a number as wrt": ({"wrt": 5}, "wrt is 5, expected the name of an input, or a list of names"),
    "no wrt but a label": ({"wrt": (), "inputs": VECTOR | {"k": label("n")}}, "expected one of x$"),
    "a list as inputs": ({"inputs": ["x"]}, r"inputs is \['x'\], expected a dict such as"),
    "text as a function": ({"of": "cubes"}, "of is 'cubes', expected a function"),
    "a tolerance in words": ({"tolerance": "low"}, "tolerance is 'low', expected a number"),
    "an unknown wrt": ({"wrt": "z"}, r"wrt is 'z', expected one of x"),
    "one of two unknown": ({"wrt": ("x", "z")}, r"wrt is 'z', expected one of x"),
    "an expression": ({"wrt": "x + x"}, r"wrt is 'x \+ x', expected one of x"),
    "an index into an array": ({"wrt": "x[0]"}, r"wrt is 'x\[0\]', expected one of x"),
    "a field of a generator": ({"wrt": "x.kind"}, r"wrt is 'x.kind', expected one of x"),
    "an empty name": ({"wrt": ""}, r"wrt is '', expected one of x"),
    "a label": (
        {"of": of_a_label, "wrt": "k", "inputs": VECTOR | {"k": label("n")}},
        r"wrt is 'k', a label, expected a parameter that varies continuously",
    ),
    "a condition that is no function": ({"where": True}, "where is True, expected a function of"),
    "a parameter of the condition": (
        {"where": lambda a: a > 0},
        r"<lambda> has a parameter 'a', expected one of the inputs x",
    ),
    "a rate that is no input": (
        {"kind": "update", "rate": "eta"},
        r"rate is 'eta', expected an input of a claim of kind 'update'",
    ),
    "the rate of a gradient": (
        {"rate": "eta", "inputs": VECTOR | {"eta": positive()}},
        r"rate is 'eta', expected an input of a claim of kind 'update'",
    ),
}


@pytest.mark.parametrize("what", BAD_CLAIMS)
def test_a_claim_that_does_not_fit_together_is_refused_with_the_reason(what):
    declaration, message = BAD_CLAIMS[what]
    with pytest.raises(ValueError, match=message):
        made(lambda x: 3 * x**2, **({"of": cubes} | declaration))


def test_a_parameter_of_the_formula_must_be_an_input():
    with pytest.raises(ValueError, match="of_another_name has a parameter 'a', expected one of"):
        made(of_another_name, of=cubes)


def test_a_parameter_by_position_only_is_given_by_position():
    assert verdict_on(by_position, of=cubes).verdict == "holds"
    assert verdict_on(lambda x: jnp.tanh(x), of=jnp.tanh, kind="value", wrt=()).verdict == "holds"


def test_parameters_with_defaults_need_no_input():
    assert made(lambda x, power=2: 3 * x**power, of=cubes).wrt == ("x",)


BAD_INPUTS = {
    "zero": (lambda: real(0), r"a size is 0, expected a name such as 'n', or a number from 1"),
    "negative": (lambda: real("n", -3), r"a size is -3, expected"),
    "a truth value": (lambda: real(True), r"a size is True, expected"),
    "no name": (lambda: binary("2n"), r"a size is '2n', expected"),
    "an empty name": (lambda: real(""), r"a size is '', expected"),
    "no classes": (lambda: label("B", 0), r"a size is 0, expected"),
    "label without a size": (lambda: label(), r"label got no size, expected the number of classes"),
    "simplex without a size": (lambda: simplex(), r"simplex has shape \(\) .* at least one size"),
    "one_hot without a size": (lambda: one_hot(), r"one_hot has shape \(\) .* at least one size"),
    "ends that are equal": (
        lambda: interval(1, 1, "n"),
        r"the ends 1 and 1, expected a low and a higher number",
    ),
    "ends exchanged": (lambda: interval(2, 1, "n"), r"interval got the ends 2 and 1, expected"),
    "an end in words": (
        lambda: interval("low", 1),  # pyright: ignore[reportArgumentType]
        r"interval got the ends 'low' and 1, expected",
    ),
    "an end that is nan": (lambda: interval(float("nan"), 1), r"the ends nan and 1, expected"),
    "an axis too far": (lambda: simplex("n", axis=1), r"classes along axis 1, expected"),
    "an axis too far back": (lambda: one_hot("n", "B", axis=-3), r"classes along axis -3, expect"),
}


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_a_generator_that_makes_no_sense_is_refused_with_the_value(what):
    make, message = BAD_INPUTS[what]
    with pytest.raises(ValueError, match=message):
        make()


PATHS = {
    "layers": lambda tree: tree["layers"],
    "layers[0]": lambda tree: tree["layers"][0],
    "layers[1].bias": lambda tree: tree["layers"][1].bias,
    "layers[-1].weight": lambda tree: tree["layers"][-1].weight,
    "layers[0][1]": lambda tree: tree["layers"][0].bias,
    "tables.left[1]": lambda tree: tree["tables"]["left"][1],
    "tables['right one']": lambda tree: tree["tables"]["right one"],
    'tables["left"][0]': lambda tree: tree["tables"]["left"][0],
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_into_named_tuples_lists_and_mappings(path):
    assert at_path(LAYERS, path) is PATHS[path](LAYERS)


@pytest.mark.parametrize("path", PATHS)
def test_a_part_is_replaced_and_everything_else_left_as_it_is(path):
    before = PATHS[path](LAYERS)
    new = jax.tree.map(lambda _: object(), before, is_leaf=is_input)  # equal to nothing else
    after = with_path(LAYERS, path, new)
    assert PATHS[path](after) == new
    assert PATHS[path](LAYERS) is before
    assert with_path(after, path, before) == LAYERS


@pytest.mark.parametrize(
    "path", ["layers[2]", "layers[0].wait", "tables.middle", "tables['left'][2]", "layers.weight"]
)
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(ValueError, match=r"expected one of layers\[0\]"):
        at_path(LAYERS, path)


def test_names_in_any_script_are_listed():
    with pytest.raises(ValueError, match="wrt is 'x', expected one of θ, λ"):
        made(of_greek, of=of_greek, inputs={"θ": real("n"), "λ": positive()})


@pytest.mark.parametrize("name", ["µ", "μ"], ids=["micro sign", "letter mu"])
def test_a_name_in_any_script_is_an_input_as_python_reads_the_name(name):
    judged = verdict_on(
        lambda μ: 2 * μ, of=lambda μ: jnp.sum(μ**2), wrt=name, inputs={name: real("n")}
    )
    assert judged.verdict == "holds"


def test_the_derivative_is_by_the_part_that_a_path_leads_to():
    layers = [Layer(real("h", "in"), real("h"))]
    judged = verdict_on(
        lambda layers, x: -2 * layers[0].bias,
        of=lambda layers, x: jnp.sum(layers[0].weight @ x) + jnp.sum(layers[0].bias ** 2),
        wrt="layers[0].bias",
        inputs={"layers": layers, "x": real("in")},
    )
    assert [finding.code for finding in judged.diagnosis] == ["sign"]
    assert judged.worst is not None
    assert judged.worst.where == "layers[0].bias"


def test_several_parts_are_claimed_as_a_tuple():
    judged = verdict_on(
        lambda x, y: (2 * x * y, jnp.sum(x**2)),
        of=lambda x, y: jnp.sum(x**2) * y,
        wrt=["x", "y"],
        inputs={"x": real("n"), "y": scalar()},
    )
    assert judged.verdict == "holds"


STEP = {"x": real("n"), "eta": positive()}
RATES = {
    "named": ({"kind": "update", "rate": "eta", "inputs": STEP | {"decay": scalar()}}, "eta"),
    "the one scalar": ({"kind": "update", "inputs": STEP}, "eta"),
    "two scalars": ({"kind": "update", "inputs": STEP | {"decay": scalar()}}, None),
    "no scalar": ({"kind": "update", "inputs": VECTOR}, None),
    "a vector": ({"kind": "update", "inputs": VECTOR | {"eta": positive("n")}}, None),
    "no update": ({"inputs": STEP}, None),
}


@pytest.mark.parametrize("what", RATES)
def test_the_learning_rate_is_the_scalar_that_the_objective_does_not_know(what):
    declaration, name = RATES[what]
    assert learning_rate_name(made(lambda x: x, of=cubes, **declaration)) == name


def test_a_scalar_of_the_objective_is_not_its_learning_rate():
    claimed = made(
        lambda x, strength, eta: x - eta * strength * x,
        of=lambda x, strength: strength * jnp.sum(x**2) / 2,
        kind="update",
        inputs={"x": real("n"), "strength": positive(), "eta": positive()},
    )
    assert learning_rate_name(claimed) == "eta"


def test_an_update_without_a_learning_rate_is_an_error_that_asks_for_one():
    judged = verdict_on(
        lambda x, eta, decay: x - eta * 3 * x**2,
        of=cubes,
        kind="update",
        inputs=STEP | {"decay": scalar()},
    )
    assert judged.verdict == "error"
    assert "expected rate= to name its learning rate among the inputs x, eta, decay" in (
        judged.detail
    )


def test_a_claim_is_still_the_formula_and_keeps_what_it_was_declared_with():
    @claim(of=cubes, wrt="x", kind="gradient", inputs=VECTOR, source="S4.6", statement="3 x^2")
    def derivative_of_cubes(x):
        return 3 * x**2

    assert derivative_of_cubes(2.0) == 12.0
    assert derivative_of_cubes.evaluate({"x": 1.0, "unused": 5.0}) == 3.0
    assert (derivative_of_cubes.name, derivative_of_cubes.source) == ("derivative_of_cubes", "S4.6")
    assert derivative_of_cubes.statement == "3 x^2"
    assert (derivative_of_cubes.trials, derivative_of_cubes.single) == (10_000, True)
