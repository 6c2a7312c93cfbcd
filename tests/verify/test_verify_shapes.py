"""Shape mismatches are diagnosed, not thrown."""

import inspect

import jax.numpy as jnp
import pytest
from samples import TRIALS, VECTOR, cubes, made, weighted, weighted_by_w

from jaxnn.verify import real, verify

DATA = {"x": real("B", "n"), "w": real("n")}
LAYER = {"w": real("out", "in"), "x": real("in")}


def squares(x, w):
    """sum_i (x w)_i^2."""
    return jnp.sum((x @ w) ** 2)


def square_of_layer(w, x):
    """|w x|^2 / 2, whose gradient by x is w^T w x."""
    return jnp.sum((w @ x) ** 2) / 2


def w_for_its_transpose(w, x):
    return w @ (w @ x)


def never_fits(x):
    return jnp.ones((len(x), len(x) + 1)) @ x


SHAPES = {
    "the sum over the examples is missing": (
        {"of": squares, "wrt": "w", "inputs": DATA},
        lambda x, w: 2 * x * (x @ w)[:, None],
        ["shape"],
        "the sum over axis 0 is missing",
    ),
    "a scalar for a vector": (
        {"of": cubes}, lambda x: jnp.sum(3 * x**2), ["shape"],
        "the formula has shape (), the derivative (",
    ),
    "a matrix for a vector": (
        {"of": cubes}, lambda x: jnp.diag(3 * x**2), ["shape"], "the formula has shape (",
    ),
    "one array for two": (
        {"of": weighted, "wrt": ("w", "x"), "inputs": LAYER}, weighted_by_w, ["shape"],
        "the formula returns 1 arrays, expected 2",
    ),
    "two arrays for one": (
        {"of": cubes}, lambda x: (3 * x**2, x), ["shape"],
        "the formula returns 2 arrays, expected 1",
    ),
    "no array at all": (
        {"of": cubes}, lambda x: None, ["shape"], "the formula returns 0 arrays, expected 1",
    ),
    "fits if all sizes are equal, and a transpose makes it right": (
        {"of": square_of_layer, "inputs": LAYER}, w_for_its_transpose, ["shape", "transpose"],
        "the shapes fit only if all sizes are equal",
    ),
    "never fits": ({"of": cubes}, never_fits, ["shape"], "the shapes do not fit"),
}  # fmt: skip


@pytest.mark.parametrize("what", SHAPES)
def test_a_wrong_shape_is_refuted_and_named(what):
    declaration, formula, codes, detail = SHAPES[what]
    verdict = verify(made(formula, **declaration), trials=TRIALS)
    assert verdict.verdict == "refuted"
    assert [finding.code for finding in verdict.diagnosis] == codes
    assert detail in verdict.diagnosis[0].detail


@pytest.mark.parametrize(
    ("formula", "declaration"),
    [
        (w_for_its_transpose, {"of": square_of_layer, "inputs": LAYER}),
        (never_fits, {"of": cubes, "inputs": VECTOR}),
    ],
)
def test_shapes_that_do_not_fit_are_named_with_their_line(formula, declaration):
    verdict = verify(made(formula, **declaration), trials=TRIALS)
    line = inspect.getsourcelines(formula)[1] + 1
    assert verdict.diagnosis[0].where == f"line {line} of test_verify_shapes.py"


def test_the_factor_to_transpose_is_named():
    claimed = made(w_for_its_transpose, of=square_of_layer, inputs=LAYER)
    shape, transpose = verify(claimed, trials=TRIALS).diagnosis
    line = inspect.getsourcelines(w_for_its_transpose)[1] + 1
    assert transpose.where == f"line {line} of test_verify_shapes.py"
    assert (shape.code, transpose.code) == ("shape", "transpose")


def test_shapes_are_told_with_their_sizes():
    verdict = verify(made(lambda x: jnp.sum(x), of=cubes), trials=TRIALS)
    size = verdict.diagnosis[0].detail.split("(n = ")[1].rstrip(")")
    assert f"the derivative ({size},)" in verdict.diagnosis[0].detail


def test_another_exception_is_no_matter_of_shapes():
    claimed = made(lambda x: x.no_such_attribute, of=cubes)
    assert verify(claimed, trials=TRIALS).verdict == "error"
