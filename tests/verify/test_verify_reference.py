"""The reference: derivatives of primitive operations, by forward and by reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import cubes, made, product, product_by_w, verdict_on

from jaxnn.verify import positive, real
from jaxnn.verify.comparison import is_rule, reference

pytestmark = pytest.mark.usefixtures("x64")

X = np.array([1.5, -0.5, 2.0])


W = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
STEP = {"x": real("n"), "rate": positive()}


def quadratic(w, x):
    """x^T w^T w x / 2, with gradients w x x^T and w^T w x."""
    return jnp.sum((w @ x) ** 2) / 2


TREE = {"w": real("out", "in"), "x": real("in")}
CLOSED_FORMS = {
    "gradient of cubes": (made(lambda x: x, of=cubes), {"x": X}, 3 * X**2),
    "gradient by a matrix": (
        made(lambda w: w, of=quadratic, wrt="w", inputs=TREE),
        {"w": W, "x": X},
        np.outer(W @ X, X),
    ),
    "gradients by both": (
        made(lambda w: w, of=quadratic, wrt=("x", "w"), inputs=TREE),
        {"w": W, "x": X},
        (W.T @ W @ X, np.outer(W @ X, X)),
    ),
    "Jacobian": (
        made(lambda x: x, of=product, wrt="x", kind="jacobian", inputs=TREE),
        {"w": W, "x": X},
        W,
    ),
    "Jacobian by a matrix": (
        made(lambda x: x, of=product, wrt="w", kind="jacobian", inputs=TREE),
        {"w": W, "x": X},
        np.einsum("ab,c->abc", np.eye(2), X),
    ),
    "Hessian": (made(lambda x: x, of=cubes, kind="hessian"), {"x": X}, np.diag(6 * X)),
    "Hessian by two": (
        made(lambda x, y: x, of=lambda x, y: x**2 * y, wrt=("x", "y"), kind="hessian",
             inputs={"x": real(), "y": real()}),
        {"x": 3.0, "y": 5.0},
        ((10.0, 6.0), (6.0, 0.0)),
    ),
    "update": (
        made(lambda x: x, of=cubes, kind="update", inputs=STEP),
        {"x": X, "rate": 0.1},
        X - 0.3 * X**2,
    ),
    "update by a rule": (
        made(lambda x: x, of=lambda x, rate: x * (1 - rate), kind="update", inputs=STEP),
        {"x": X, "rate": 0.1},
        0.9 * X,
    ),
    "value": (made(lambda x: x, of=cubes, kind="value", wrt=()), {"x": X}, np.sum(X**3)),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("what", CLOSED_FORMS)
def test_the_truth_is_the_closed_form(what, mode):
    claimed, inputs, expected = CLOSED_FORMS[what]
    value = jax.jit(reference(claimed, mode))(inputs)
    assert jax.tree.structure(value) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), value, expected)


def network(w, x):
    return jnp.sum(jax.nn.softmax(jnp.tanh(w @ x)) * jnp.arange(2.0))


@pytest.mark.parametrize("kind", ["gradient", "jacobian", "hessian"])
@pytest.mark.parametrize("wrt", ["w", ("w", "x")])
def test_forward_and_reverse_mode_agree(kind, wrt):
    claimed = made(lambda w: w, of=network, wrt=wrt, kind=kind, inputs=TREE)
    forward, reverse = jax.jit(
        lambda inputs: [reference(claimed, mode)(inputs) for mode in ("forward", "reverse")]
    )({"w": W, "x": X})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-14), forward, reverse)


RULES = {
    "a rule": (lambda x, rate: x * (1 - rate), STEP, True),
    "an objective": (cubes, STEP, False),
    "an objective of a scalar": (lambda x: x**2, {"x": real(), "rate": positive()}, False),
    "a rule of a scalar": (lambda x, rate: x - rate, {"x": real(), "rate": positive()}, True),
}


@pytest.mark.parametrize("what", RULES)
def test_an_update_may_be_of_a_rule_or_of_an_objective(what):
    of, inputs, rule = RULES[what]
    claimed = made(lambda x: x, of=of, kind="update", inputs=inputs)
    shapes = {"x": X if inputs["x"].shape else 1.0, "rate": 0.1}
    assert is_rule(claimed, shapes) is rule


NOT_DERIVABLE = {
    "a gradient of a vector": (
        "gradient",
        lambda x: x**3,
        "expected a scalar to take a gradient of",
    ),
    "a gradient of a tuple": ("gradient", lambda x: (x, x), "of returns tuple, expected a scalar"),
    "a Jacobian of a tuple": ("jacobian", lambda x: (x, x), "of returns tuple, expected one array"),
    "a Hessian of a vector": ("hessian", lambda x: x**3, "expected a scalar to take a gradient of"),
}


@pytest.mark.parametrize("what", NOT_DERIVABLE)
def test_a_function_without_this_derivative_is_an_error_that_says_so(what):
    kind, of, message = NOT_DERIVABLE[what]
    judged = verdict_on(lambda x: 3 * x**2, of=of, kind=kind)
    assert judged.verdict == "error"
    assert message in judged.detail


def test_the_jacobian_by_a_matrix_has_the_axes_of_the_value_first():
    judged = verdict_on(product_by_w, of=product, wrt="w", kind="jacobian", inputs=TREE)
    assert judged.verdict == "holds"
