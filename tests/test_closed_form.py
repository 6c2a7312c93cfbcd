"""The closed forms against autodiff, the sources' printed numbers, and scikit-learn."""

import functools
from typing import Any, NamedTuple, cast

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from jaxnn import closed_form
from jaxnn.types import Array, Layer, Params

TRIALS = 40
SIZES = [(1, 1, 1), (5, 2, 7), (12, 9, 10)]  # in, hidden, classes


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield


class Example(NamedTuple):
    """Everything a formula may take, drawn at random."""

    x: Array  # [in]
    z: Array  # [C]
    y: Array  # [C] a probability vector
    label: Array  # [] a class index
    any_vector: Array  # [C] sums to anything
    layer: Layer  # in -> C
    two_layers: Params  # in -> hidden -> C
    affine: Params  # in -> hidden -> C -> 1
    batch_x: Array  # [B, in]
    batch_y: Array  # [B, C]
    batch_label: Array  # [B]
    binary: Array  # [B] 0.0 or 1.0
    theta: Array  # [in]
    l2: Array  # []
    rate: Array  # []


@functools.cache
def draw(sizes, *trials: int) -> Example:
    """One example, or with ``trials`` a leading axis of that many."""
    (into, hidden, classes), batch = sizes, 6
    rng = np.random.default_rng(sum(sizes))

    def normal(*shape):
        return jnp.asarray(2 * rng.normal(size=(*trials, *shape)))

    def uniform():
        return jnp.asarray(rng.uniform(size=trials))

    def probabilities(*shape):
        return jnp.asarray(rng.dirichlet(np.ones(classes), (*trials, *shape)))

    def integers(below, *shape):
        return jnp.asarray(rng.integers(below, size=(*trials, *shape)))

    def layer(into, out):
        return Layer(normal(out, into), normal(out))

    return Example(
        x=normal(into),
        z=normal(classes),
        y=probabilities(),
        label=integers(classes),
        any_vector=normal(classes),
        layer=layer(into, classes),
        two_layers=(layer(into, hidden), layer(hidden, classes)),
        affine=(layer(into, hidden), layer(hidden, classes), layer(classes, 1)),
        batch_x=normal(batch, into),
        batch_y=probabilities(batch),
        batch_label=integers(classes, batch),
        binary=integers(2, batch).astype(float),
        theta=normal(into),
        l2=uniform(),
        rate=uniform(),
    )


def cross_entropy(z, y):
    return -jnp.vdot(y, jax.nn.log_softmax(z))


def one_hot_cross_entropy(z, label):
    return -jax.nn.log_softmax(z)[label]


def softmax_regression_objective(layer, x, y, l2):
    z = x @ layer.weight.T + layer.bias[None]
    cross_entropies = jax.vmap(cross_entropy)(z, y)
    return jnp.mean(cross_entropies) + l2 / 2 * jnp.sum(layer.weight**2)


def logistic_objective(theta, x, y, l2):
    losses = optax.sigmoid_binary_cross_entropy(x @ theta, y)
    return jnp.mean(losses) + l2 / 2 * theta @ theta


def two_layer_network(params, x, phi=jax.nn.sigmoid):
    first, second = params
    return second.weight @ phi(first.weight @ x + first.bias) + second.bias


def compose(layers, x):
    for weight, bias in layers:
        x = weight @ x + bias
    return x


def odd_loss(p):
    """A loss that is no familiar one: S3's derivation is for any."""
    return jnp.sum(jnp.sin(3 * p) * jnp.arange(1, len(p) + 1)) + jnp.prod(p)


def two_layer_autodiff(phi):
    def gradients(e: Example):
        first, second = e.two_layers

        def from_hidden(h):
            return odd_loss(jax.nn.softmax(second.weight @ h + second.bias))

        by_params = jax.grad(lambda p: odd_loss(jax.nn.softmax(two_layer_network(p, e.x, phi))))
        hidden = phi(first.weight @ e.x + first.bias)
        return (
            by_params(e.two_layers)[0],
            jax.grad(from_hidden)(hidden),
            by_params((first, second))[1],
        )

    return gradients


def two_layer_closed(activation):
    return lambda e: tuple(
        closed_form.two_layer_gradients(
            e.two_layers, e.x, jax.grad(odd_loss), activation=activation
        )
    )


def input_autodiff(phi):
    return lambda e: jax.grad(
        lambda x: cross_entropy(two_layer_network(e.two_layers, x, phi), e.y)
    )(e.x)


def log_softmax_sum(layer, x):
    return jnp.sum(jax.nn.log_softmax(layer.weight @ x + layer.bias))


FORMULAS = {
    "softmax_jacobian (S1.1)": (
        lambda e: closed_form.softmax_jacobian(jax.nn.softmax(e.z)),
        lambda e: jax.jacfwd(jax.nn.softmax)(e.z),
    ),
    "softmax_weight_jacobian (S2.1)": (
        lambda e: closed_form.softmax_weight_jacobian(
            jax.nn.softmax(e.layer.weight @ e.x + e.layer.bias), e.x
        ),
        lambda e: jax.jacrev(lambda w: jax.nn.softmax(w @ e.x + e.layer.bias))(e.layer.weight),
    ),
    "softmax_backward (S3.1)": (
        lambda e: closed_form.softmax_backward(jax.nn.softmax(e.z), e.any_vector),
        lambda e: jax.vjp(jax.nn.softmax, e.z)[1](e.any_vector)[0],
    ),
    "cross_entropy_gradient, probabilities (S1.2)": (
        lambda e: closed_form.cross_entropy_gradient(e.z, e.y),
        lambda e: jax.grad(cross_entropy)(e.z, e.y),
    ),
    "cross_entropy_gradient, index (S4.3)": (
        lambda e: closed_form.cross_entropy_gradient(e.z, e.label),
        lambda e: jax.grad(one_hot_cross_entropy)(e.z, e.label),
    ),
    "cross_entropy_gradient, any vector (S1.2)": (
        lambda e: closed_form.cross_entropy_gradient(e.z, e.any_vector),
        lambda e: jax.grad(cross_entropy)(e.z, e.any_vector),
    ),
    "layer_gradient (S5.5)": (
        lambda e: closed_form.layer_gradient(e.any_vector, e.x),
        lambda e: jax.grad(lambda p: e.any_vector @ compose([p], e.x))(e.layer),
    ),
    "softmax_regression_gradients, probabilities (S2.2, S2.4)": (
        lambda e: closed_form.softmax_regression_gradients(e.layer, e.batch_x, e.batch_y, e.l2),
        lambda e: jax.grad(softmax_regression_objective)(e.layer, e.batch_x, e.batch_y, e.l2),
    ),
    "softmax_regression_gradients, indices (S2.2, S2.4)": (
        lambda e: closed_form.softmax_regression_gradients(e.layer, e.batch_x, e.batch_label, e.l2),
        lambda e: jax.grad(softmax_regression_objective)(
            e.layer, e.batch_x, jax.nn.one_hot(e.batch_label, len(e.z)), e.l2
        ),
    ),
    "sigmoid_derivative_from_value (S4.2)": (
        lambda e: closed_form.sigmoid_derivative_from_value(jax.nn.sigmoid(e.z)),
        lambda e: jax.vmap(jax.grad(jax.nn.sigmoid))(e.z),
    ),
    "affine_weight_jacobian (S2.5)": (
        lambda e: closed_form.affine_weight_jacobian(e.x, len(e.z)),
        lambda e: jax.jacfwd(lambda w: w.reshape(len(e.z), len(e.x)) @ e.x + e.z)(
            e.layer.weight.ravel()
        ),
    ),
    "affine_jacobians of one layer (S2.5)": (
        lambda e: closed_form.affine_jacobians(e.affine[2:], e.z),
        lambda e: jax.grad(lambda p: compose(p, e.z)[0])(e.affine[2:]),
    ),
    "affine_jacobians of two layers (S2.5)": (
        lambda e: closed_form.affine_jacobians(e.affine[1:], e.affine[0].bias),
        lambda e: jax.grad(lambda p: compose(p, e.affine[0].bias)[0])(e.affine[1:]),
    ),
    "affine_jacobians of three layers (S2.5)": (
        lambda e: closed_form.affine_jacobians(e.affine, e.x),
        lambda e: jax.grad(lambda p: compose(p, e.x)[0])(e.affine),
    ),
    "two_layer_gradients, sigmoid (S3.1, S3.2)": (
        two_layer_closed("sigmoid"),
        two_layer_autodiff(jax.nn.sigmoid),
    ),
    "two_layer_gradients, relu (S3.3)": (two_layer_closed("relu"), two_layer_autodiff(jax.nn.relu)),
    "two_layer_gradients, tanh": (two_layer_closed("tanh"), two_layer_autodiff(jnp.tanh)),
    "input_gradient, sigmoid (S4.4)": (
        lambda e: closed_form.input_gradient(e.two_layers, e.x, e.y),
        input_autodiff(jax.nn.sigmoid),
    ),
    "input_gradient, relu": (
        lambda e: closed_form.input_gradient(e.two_layers, e.x, e.y, activation="relu"),
        input_autodiff(jax.nn.relu),
    ),
    "log_softmax_sum_gradient (S5.2)": (
        lambda e: closed_form.log_softmax_sum_gradient(e.z),
        lambda e: jax.grad(lambda z: jnp.sum(jax.nn.log_softmax(z)))(e.z),
    ),
    "log_softmax_sum_gradients (S5.2)": (
        lambda e: closed_form.log_softmax_sum_gradients(e.layer, e.x),
        lambda e: jax.grad(log_softmax_sum)(e.layer, e.x),
    ),
    "logistic_gradient (S5.3)": (
        lambda e: closed_form.logistic_gradient(e.theta, e.batch_x, e.binary, e.l2),
        lambda e: jax.grad(logistic_objective)(e.theta, e.batch_x, e.binary, e.l2),
    ),
    "logistic_update (S5.3)": (
        lambda e: closed_form.logistic_update(e.theta, e.batch_x, e.binary, e.rate, e.l2),
        lambda e: (
            e.theta - e.rate * jax.grad(logistic_objective)(e.theta, e.batch_x, e.binary, e.l2)
        ),
    ),
}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_formula_equals_autodiff(name, sizes):
    both = jax.jit(jax.vmap(lambda e: tuple(formula(e) for formula in FORMULAS[name])))
    closed, autodiff = both(draw(sizes, TRIALS))
    chex.assert_trees_all_close(closed, autodiff, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", FORMULAS)
def test_formula_of_float32_is_float32(name):
    example = jax.tree.map(
        lambda a: a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a,
        draw((3, 4, 2)),
    )
    closed, _ = FORMULAS[name]
    outputs = jax.tree.leaves(jax.eval_shape(closed, example))
    assert {output.dtype for output in outputs} == {jnp.dtype("float32")}


PRINTED_OTHERWISE = {
    "S2.2: a sum over the inputs": (
        lambda e: (
            -sum(
                jnp.outer(
                    e.batch_y[i] - jax.nn.softmax(e.layer.weight @ e.batch_x[i] + e.layer.bias),
                    e.batch_x[i],
                )
                for i in range(len(e.x))
            )
        ),
        lambda e: closed_form.softmax_regression_gradients(e.layer, e.batch_x, e.batch_y).weight,
    ),
    "S4.3: -S_i S_i": (
        lambda e: (1 - jnp.eye(len(e.z))) * -(jax.nn.softmax(e.z) ** 2)[:, None],
        lambda e: (1 - jnp.eye(len(e.z))) * closed_form.softmax_jacobian(jax.nn.softmax(e.z)),
    ),
    "S5.2: the sign": (
        lambda e: -1 + len(e.z) * jax.nn.softmax(e.z),
        lambda e: closed_form.log_softmax_sum_gradient(e.z),
    ),
    "S5.3: the combined constants": (
        lambda e: (
            e.theta * (1 - e.l2 / len(e.binary))
            - e.rate * (jax.nn.sigmoid(e.batch_x @ e.theta) - e.binary) @ e.batch_x
        ),
        lambda e: closed_form.logistic_update(e.theta, e.batch_x, e.binary, e.rate, e.l2),
    ),
}


@pytest.mark.parametrize("name", PRINTED_OTHERWISE)
def test_where_the_docstring_says_a_source_prints_something_else_it_is_something_else(name):
    printed, derived = PRINTED_OTHERWISE[name]
    example = draw((3, 4, 5))
    assert np.abs(printed(example) - derived(example)).max() > 1e-2


def assert_prints(measured, printed, decimals):
    np.testing.assert_allclose(measured, printed, rtol=0, atol=0.5 * 10**-decimals)


def test_cross_entropy_gradient_prints_the_golden_run_of_s1_2b():
    z = jnp.array(np.random.RandomState(1).rand(3, 2))
    y = jnp.eye(3)[:, :2]
    by_column = jax.vmap(closed_form.cross_entropy_gradient, in_axes=1, out_axes=1)
    printed = [[-0.29358105, 0.22809874], [0.13604698, -0.34982719], [0.15753407, 0.12172845]]
    assert_prints(by_column(z, y) / 2, printed, decimals=8)


def test_softmax_regression_gradients_print_the_two_iterations_of_s1_3():
    layer = Layer(jnp.zeros((2, 2)), jnp.zeros(2))
    sign = np.array([[-1.0, 1.0], [1.0, -1.0]])
    for gradient, weight in ((0.25, 0.25), (0.18877033, 0.43877033)):
        step = closed_form.softmax_regression_gradients(layer, jnp.eye(2), jnp.eye(2))
        layer = jax.tree.map(lambda value, g: value - g, layer, step)
        assert_prints(step.weight, gradient * sign, decimals=8)
        assert_prints(step.bias, 0, decimals=8)
        assert_prints(layer.weight, -weight * sign, decimals=8)


AFFINE = (  # g and f of S2.5
    Layer(jnp.array([[1, 2], [0, 1], [-1, 0]]), jnp.array([0, 0, 3])),
    Layer(jnp.array([[1, -2, 0.25]]), jnp.array([0])),
)


@pytest.mark.parametrize("x", [(3, 5), (-1, 2), (0, 0), (7, -4)], ids=str)
def test_affine_composition_has_the_values_of_s2_5(x):
    a, b = x
    g = (a + 2 * b, b, -a + 3)
    z1, z2 = closed_form.affine_composition(AFFINE, jnp.array(x))
    assert tuple(z1) == g
    assert tuple(z2) == (g[0] - 2 * g[1] + g[2] / 4,)


def test_affine_jacobians_are_exactly_those_of_s2_5():
    first, second = closed_form.affine_jacobians(AFFINE, jnp.array([3.0, 5.0]))
    assert second.bias.tolist() == [1]
    assert second.weight.tolist() == [[13, 5, 0]]  # z_1^T
    assert first.bias.tolist() == [1, -2, 0.25]  # W_2
    assert first.weight.tolist() == [[3, 5], [-6, -10], [0.75, 1.25]]  # (x W_2)^T


def test_affine_weight_jacobian_has_the_input_along_its_block_diagonal():
    jacobian = closed_form.affine_weight_jacobian(jnp.array([3, 5]), 3)
    assert jacobian.tolist() == [[3, 5, 0, 0, 0, 0], [0, 0, 3, 5, 0, 0], [0, 0, 0, 0, 3, 5]]


TWO_LAYERS = (  # S3.4, whose W is [in, out]
    Layer(jnp.array([[3.0, 6.0], [4.0, 5.0]]).T, jnp.array([1.0, -6.0])),
    Layer(jnp.array([[2.0, 3.0], [4.0, 3.0]]).T, jnp.array([-1.0, -2.0])),
)
X, Y, RATE = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.5


def s3_4_gradients():
    # Made before float64 is enabled, but exact in either precision.
    params = jax.tree.map(lambda a: a.astype(float), TWO_LAYERS)
    return params, closed_form.two_layer_gradients(params, X, lambda p: p - Y)


def test_two_layer_values_print_s3_4():
    values = closed_form.two_layer_values(s3_4_gradients()[0], X)
    assert_prints(values.hidden, [0.982, 0.5], decimals=3)
    assert_prints(values.output, [0.6267, 0.3733], decimals=4)


def test_two_layer_gradients_print_s3_4():
    _, gradients = s3_4_gradients()
    assert_prints(gradients.second.weight.T, [[0.2880, -0.2880], [0.1466, -0.1466]], decimals=4)
    assert_prints(gradients.second.bias, [0.2932, -0.2932], decimals=4)
    assert_prints(gradients.hidden, [-0.2932, 0.2932], decimals=4)
    assert_prints(gradients.first.weight.T, [[-0.0052, 0.0733], [0, 0]], decimals=4)
    assert_prints(gradients.first.bias, [-0.0052, 0.0733], decimals=4)


@pytest.mark.parametrize(
    ("first_layer_moves", "hidden", "output", "loss"),
    [
        pytest.param(True, [0.9821, 0.4817], [0.4633, 0.5367], 0.2146, id="case 1"),
        pytest.param(False, [0.9820, 0.5], [0.4672, 0.5328], 0.2183, id="case 2"),
    ],
)
def test_a_step_along_the_two_layer_gradients_prints_s3_4(first_layer_moves, hidden, output, loss):
    (first, second), gradients = s3_4_gradients()
    stepped = jax.tree.map(
        lambda value, g: value - RATE * g, (first, second), (gradients.first, gradients.second)
    )
    params = (stepped[0] if first_layer_moves else first, stepped[1])
    values = closed_form.two_layer_values(params, X)
    assert_prints(values.hidden, hidden, decimals=4)
    assert_prints(values.output, output, decimals=4)
    assert_prints(jnp.sum((values.output - Y) ** 2) / 2, loss, decimals=4)


def test_logistic_gradient_vanishes_where_scikit_learn_ends():
    pixels, labels = load_digits(return_X_y=True)
    x, y, l2 = pixels[:400] / 16, (labels[:400] == 3).astype(float), 0.01
    fit = LogisticRegression(C=1 / (len(x) * l2), fit_intercept=False, tol=1e-10, max_iter=1000)
    theta = jnp.array(fit.fit(x, y).coef_[0])
    assert np.abs(closed_form.logistic_gradient(theta, jnp.array(x), jnp.array(y), l2)).max() < 1e-7


def test_relu_hidden_units_at_zero_pass_no_gradient_back():
    params = (Layer(jnp.zeros((3, 2)), jnp.zeros(3)), Layer(jnp.ones((2, 3)), jnp.zeros(2)))
    gradients = closed_form.two_layer_gradients(
        params, jnp.ones(2), lambda p: p - Y, activation="relu"
    )
    assert not gradients.first.weight.any()
    assert not gradients.first.bias.any()


@pytest.mark.parametrize("label", [0, 1, 2])
def test_cross_entropy_gradient_is_exact_at_huge_logits_in_float32(label):
    z = jnp.array([1e30, -1e30, -jnp.inf], jnp.float32)
    expected = np.array([1, 0, 0]) - np.eye(3)[label]
    for y in (label, jnp.eye(3, dtype=jnp.float32)[label]):
        assert closed_form.cross_entropy_gradient(z, y).tolist() == expected.tolist()


def test_logistic_gradient_is_exact_at_huge_logits_in_float32():
    x = jnp.array([[1.0, 0.0], [0.0, -1.0]], jnp.float32)
    theta = jnp.full(2, 1e30, jnp.float32)
    gradient = closed_form.logistic_gradient(theta, x, jnp.array([0.0, 1.0], jnp.float32))
    assert gradient.tolist() == [0.5, 0.5]


def layer(out, into):
    return Layer(jnp.zeros((out, into)), jnp.zeros(out))


def ones(*shape):
    return jnp.ones(shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: closed_form.softmax_jacobian(ones(2, 3)), r"p as a vector, got shape \(2, 3\)"),
        (
            lambda: closed_form.softmax_weight_jacobian(ones(2), ones(2, 3)),
            r"x as a vector, got shape \(2, 3\)",
        ),
        (
            lambda: closed_form.softmax_backward(ones(3), ones(2)),
            r"p_gradient of shape \(3,\), got \(2,\)",
        ),
        (
            lambda: closed_form.cross_entropy_gradient(ones(3), ones(2)),
            r"vector of 3 probabilities, got a target of shape \(2,\)",
        ),
        (
            lambda: closed_form.cross_entropy_gradient(ones(4, 3), 1),
            r"cross_entropy_gradient takes the logits of one example, .*\(4, 3\)",
        ),
        (lambda: closed_form.layer_gradient(ones(), ones(2)), r"delta as a vector, got shape \(\)"),
        (
            lambda: closed_form.softmax_regression_gradients(layer(3, 2), ones(2), ones(3)),
            r"x as a matrix, one example per row, got shape \(2,\)",
        ),
        (
            lambda: closed_form.softmax_regression_gradients(layer(3, 2), ones(5, 2), ones(4, 3)),
            r"y of shape \(5, 3\), got \(4, 3\)",
        ),
        (
            lambda: closed_form.softmax_regression_gradients(layer(3, 2), ones(5, 4), ones(5, 3)),
            r"weight \(3, 2\) .* cannot take an input of shape \(4,\)",
        ),
        (lambda: closed_form.affine_composition((), ones(2)), "no layers, expected at least one"),
        (
            lambda: closed_form.affine_composition((layer(3, 2), layer(1, 2)), ones(2)),
            r"weight \(1, 2\) .* cannot take an input of shape \(3,\)",
        ),
        (
            lambda: closed_form.affine_weight_jacobian(ones(2, 3), 4),
            r"x as a vector, got shape \(2, 3\)",
        ),
        (lambda: closed_form.affine_jacobians((layer(3, 2),), ones(2)), "one output, got 3"),
        (
            lambda: closed_form.two_layer_values((layer(3, 2),), ones(2)),
            "two_layer_values takes two layers, got 1",
        ),
        (
            lambda: closed_form.input_gradient(
                (layer(3, 2), layer(2, 3)), ones(2), 0, activation=cast(Any, "sin")
            ),
            r"activation is 'sin', expected one of \['relu', 'sigmoid', 'tanh'\]",
        ),
        (
            lambda: closed_form.two_layer_gradients(
                (layer(3, 2), layer(2, 3)), ones(2), lambda p: ones(4)
            ),
            r"p_gradient of shape \(2,\), got \(4,\)",
        ),
        (
            lambda: closed_form.log_softmax_sum_gradient(ones(2, 3)),
            r"z as a vector, got shape \(2, 3\)",
        ),
        (
            lambda: closed_form.log_softmax_sum_gradients(layer(3, 2), ones(3)),
            r"cannot take an input of shape \(3,\)",
        ),
        (
            lambda: closed_form.logistic_gradient(ones(3), ones(5, 2), ones(5)),
            r"x of shape \(5, 3\), got \(5, 2\)",
        ),
        (
            lambda: closed_form.logistic_gradient(ones(2), ones(5, 2), ones(5, 1)),
            r"y of shape \(5,\), got \(5, 1\)",
        ),
        (
            lambda: closed_form.logistic_update(ones(2, 1), ones(5, 2), ones(5), 0.1),
            r"theta as a vector, got shape \(2, 1\)",
        ),
        (
            lambda: closed_form.logistic_gradient(ones(2), ones(2), ones(2)),
            r"x as a matrix, one example per row, got shape \(2,\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_a_value_error_that_names_them(call, message):
    with pytest.raises(ValueError, match=message):
        call()
