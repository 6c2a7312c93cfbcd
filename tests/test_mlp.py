"""Networks as pure functions: initialisation, application, sizes, and what they refuse."""

import math
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxnn import mlp
from jaxnn.types import Layer


def random_params(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(
        Layer(jnp.asarray(rng.normal(size=(out, into))), jnp.asarray(rng.normal(size=out)))
        for into, out in pairwise(sizes)
    )


def test_init_gives_a_layer_per_pair_of_sizes_with_weight_out_in():
    params = mlp.init(jax.random.key(0), (7, 5, 3, 2))
    assert [layer.weight.shape for layer in params] == [(5, 7), (3, 5), (2, 3)]
    assert [layer.bias.shape for layer in params] == [(5,), (3,), (2,)]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_init_is_float64_where_that_is_enabled():
    with jax.enable_x64(True):
        params = mlp.init(jax.random.key(0), (3, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float64")}


def test_init_has_zero_biases():
    assert not any(layer.bias.any() for layer in mlp.init(jax.random.key(0), (4, 50, 50, 3)))


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [("he", 2 / 600), ("glorot", 2 / (600 + 400))],
)
def test_init_draws_weights_of_mean_zero_and_the_published_variance(initializer, variance):
    (layer,) = mlp.init(jax.random.key(1), (600, 400), initializer=initializer)
    n = layer.weight.size
    # Four standard errors of the mean, and of the variance of a normal sample.
    assert abs(float(layer.weight.mean())) < 4 * math.sqrt(variance / n)
    assert float(layer.weight.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def test_init_draws_different_weights_per_layer_and_per_key():
    first, second = mlp.init(jax.random.key(0), (6, 6, 6))
    (other, _) = mlp.init(jax.random.key(1), (6, 6, 6))
    assert (first.weight != second.weight).all()
    assert (first.weight != other.weight).all()


def test_init_of_the_same_key_is_the_same():
    first, second = (mlp.init(jax.random.key(3), (4, 3, 2)) for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), first, second))


NUMPY_ACTIVATIONS = [
    ("relu", lambda a: np.maximum(a, 0)),
    ("sigmoid", scipy.special.expit),
    ("tanh", np.tanh),
    (jnp.sin, np.sin),
    (lambda a: a**2, np.square),
]


@pytest.mark.parametrize(("activation", "expected_activation"), NUMPY_ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(4, 3), (4, 6, 3), (1, 2, 5, 4, 1)], ids=str)
def test_apply_is_what_a_loop_in_numpy_computes(sizes, activation, expected_activation):
    with jax.enable_x64(True):
        params = random_params(sizes)
        x = np.random.default_rng(1).normal(size=sizes[0])
        got = mlp.apply(params, jnp.asarray(x), activation=activation)
    z = x
    for depth, (weight, bias) in enumerate(params):
        z = np.asarray(weight) @ (z if depth == 0 else expected_activation(z)) + np.asarray(bias)
    np.testing.assert_allclose(got, z, rtol=1e-12)


def test_apply_uses_relu_unless_told_otherwise():
    params = (
        Layer(jnp.array([[1.0], [-1.0]]), jnp.zeros(2)),
        Layer(jnp.ones((1, 2)), jnp.zeros(1)),
    )
    assert mlp.apply(params, jnp.array([-3.0])).tolist() == [3.0]


def test_apply_of_no_hidden_layer_is_affine_for_any_activation():
    params = (Layer(jnp.array([[1.0, -2.0]]), jnp.array([0.5])),)
    for activation in ("relu", "sigmoid", "tanh"):
        z = mlp.apply(params, jnp.array([1.0, 2.0]), activation=activation)
        assert z.tolist() == [-2.5]


def test_apply_under_vmap_is_a_matrix_product():
    layer = random_params((3, 2))[0]
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)
    got = jax.vmap(mlp.apply, in_axes=(None, 0))((layer,), x)
    np.testing.assert_allclose(got, x @ layer.weight.T + layer.bias, rtol=1e-5, atol=1e-6)


def test_relu_has_the_derivative_zero_at_zero():
    assert jax.grad(mlp.relu)(0.0) == 0
    assert jax.grad(mlp.relu)(-0.0) == 0


RELU_INPUTS = jnp.array([-1e30, -2.0, -1e-30, 0.0, 1e-30, 0.5, 3.0, 1e30])


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.vmap,
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: jax.vmap(jax.grad(jax.grad(f))),
        lambda f: jax.grad(lambda x: jnp.sum(jax.vmap(f)(x) ** 2)),
        jax.jacfwd,
        jax.jacrev,
    ],
    ids=["value", "vmap", "vmap grad", "vmap grad grad", "grad vmap", "jacfwd", "jacrev"],
)
def test_relu_equals_that_of_jax_under_every_transform(transform):
    x = RELU_INPUTS[1:-1]  # their squares are finite
    np.testing.assert_array_equal(transform(mlp.relu)(x), transform(jax.nn.relu)(x))


def test_relu_and_its_derivative_are_right_at_huge_inputs():
    np.testing.assert_array_equal(mlp.relu(RELU_INPUTS), np.maximum(RELU_INPUTS, 0))
    np.testing.assert_array_equal(jax.vmap(jax.grad(mlp.relu))(RELU_INPUTS), RELU_INPUTS > 0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_relu_and_its_derivative_keep_the_precision(dtype):
    value, gradient = jax.value_and_grad(mlp.relu)(jnp.ones((), dtype))
    assert value.dtype == gradient.dtype == dtype


def test_parameter_count_is_the_formula_of_s4_5():
    d_x, h, d_y = 11, 7, 5
    assert mlp.parameter_count((d_x, h, d_y)) == d_x * h + h + h * d_y + d_y


@pytest.mark.parametrize(
    ("sizes", "count"),
    [((784, 10), 7_850), ((784, 50, 50, 10), 42_310), ((784, 90, 50, 10), 75_710), ((1, 1), 2)],
)
def test_parameter_count_is_the_number_of_parameters(sizes, count):
    leaves = jax.tree.leaves(jax.eval_shape(lambda key: mlp.init(key, sizes), jax.random.key(0)))
    assert sum(leaf.size for leaf in leaves) == count
    assert mlp.parameter_count(sizes) == count


def test_the_loss_of_softmax_regression_is_that_of_a_network_without_hidden_layer():
    layer = random_params((4, 3))[0]
    x = jnp.array([0.5, -1.0, 2.0, 0.0])
    z = np.asarray(layer.weight @ x + layer.bias, float)
    expected = scipy.special.logsumexp(z) - z[1]
    assert float(mlp.loss((layer,), x, 1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "target", "expected"),
    [
        ("cross_entropy", 0, math.log(4)),
        ("cross_entropy", [0.5, 0.5, 0.0, 0.0], math.log(4)),
        ("squared_error", 0, 3 / 8),
        (lambda z, y: jnp.sum(z) + y, 7.0, 7.0),
    ],
)
def test_loss_by_name_or_as_a_callable(loss, target, expected):
    params = (Layer(jnp.zeros((4, 2)), jnp.zeros(4)),)
    got = mlp.loss(params, jnp.ones(2), jnp.array(target), loss=loss)
    assert float(got) == pytest.approx(expected, rel=1e-6)


def test_the_logistic_loss_takes_a_network_with_one_output():
    params = (Layer(jnp.zeros((1, 2)), jnp.zeros(1)),)
    assert float(mlp.loss(params, jnp.ones(2), 1, loss="logistic")) == pytest.approx(math.log(2))


def test_the_loss_uses_the_activation():
    params = random_params((3, 4, 2))
    x = jnp.array([0.5, -1.0, 2.0])
    z = np.asarray(mlp.apply(params, x, activation="tanh"), float)
    expected = scipy.special.logsumexp(z) - z[0]
    assert float(mlp.loss(params, x, 0, activation="tanh")) == pytest.approx(expected, rel=1e-5)


def test_an_mlp_is_hashable_and_equal_by_value():
    model = mlp.MLP((4, 3, 2), activation="tanh")
    assert model == mlp.MLP((4, 3, 2), activation="tanh")
    assert hash(model) == hash(mlp.MLP((4, 3, 2), activation="tanh"))
    assert model != mlp.MLP((4, 3, 2))


def test_an_mlp_keeps_its_sizes_as_a_tuple_of_ints():
    sizes: Any = [np.int64(4), 3, jnp.array(2)]
    model = mlp.MLP(sizes)
    assert model.sizes == (4, 3, 2)
    assert {type(size) for size in model.sizes} == {int}


def test_an_mlp_is_init_and_apply_bound_to_its_sizes_and_activation():
    key, x = jax.random.key(0), jnp.array([1.0, -2.0, 3.0, 0.5])
    model = mlp.MLP((4, 3, 2), activation="sigmoid", initializer="glorot")
    params = mlp.init(key, (4, 3, 2), initializer="glorot")
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), model.init(key), params))
    expected = mlp.apply(params, x, activation="sigmoid")
    assert model.apply(params, x).tolist() == expected.tolist()


BAD_SIZES = [
    ((784,), r"sizes is \(784,\), expected at least two: \(inputs, ..., classes\)"),
    ((), r"sizes is \(\), expected at least two"),
    (784, r"sizes is \(784,\), expected at least two"),
    ((784, 0), r"sizes is \(784, 0\), expected positive integers"),
    ((784, -5, 10), r"sizes is \(784, -5, 10\), expected positive integers"),
    ((784, 10.0), r"sizes is \(784, 10.0\), expected positive integers"),
    ((784, math.nan), r"sizes is \(784, nan\), expected positive integers"),
    ((784, True), r"sizes is \(784, True\), expected positive integers"),
    ((784, np.True_), r"expected positive integers"),
    ((784, np.array(2.5)), r"expected positive integers"),
    ((784, "10"), r"sizes is \(784, '10'\), expected positive integers"),
    ("ab", r"sizes is \('a', 'b'\), expected positive integers"),
    ((784, None), r"sizes is \(784, None\), expected positive integers"),
]


@pytest.mark.parametrize(("sizes", "message"), BAD_SIZES, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize(
    "take_sizes",
    [lambda sizes: mlp.init(jax.random.key(0), sizes), mlp.MLP, mlp.parameter_count],
    ids=["init", "MLP", "parameter_count"],
)
def test_bad_sizes_are_a_value_error_that_shows_them(take_sizes, sizes, message):
    with pytest.raises(ValueError, match=message):
        take_sizes(sizes)


def zeros(*shape):
    return jnp.zeros(shape)


@pytest.mark.parametrize(
    ("params", "x", "message"),
    [
        pytest.param((), zeros(3), "params has no layers, expected at least one", id="no layers"),
        pytest.param(
            (Layer(zeros(2, 3), zeros(2)),),
            zeros(5, 3),
            r"apply takes one example, shape \[in\], got \(5, 3\): jax.vmap it over a minibatch",
            id="a minibatch",
        ),
        pytest.param(
            (Layer(zeros(2, 3), zeros(2)),),
            zeros(),
            r"apply takes one example, shape \[in\], got \(\)",
            id="a scalar",
        ),
        pytest.param(
            (Layer(zeros(2, 3), zeros(2)),),
            zeros(4),
            r"weight \(2, 3\) and bias \(2,\) cannot take an input of shape \(4,\): expected",
            id="another input",
        ),
        pytest.param(
            (Layer(zeros(2, 3), zeros(2)), Layer(zeros(4, 5), zeros(4))),
            zeros(3),
            r"weight \(4, 5\) and bias \(4,\) cannot take an input of shape \(2,\)",
            id="layers that do not fit",
        ),
        pytest.param(
            (Layer(zeros(2, 3), zeros(3)),),
            zeros(3),
            r"weight \(2, 3\) and bias \(3,\) cannot take",
            id="bias of another length",
        ),
        pytest.param(
            (Layer(zeros(2, 3), zeros(2, 1)),),
            zeros(3),
            r"bias \(2, 1\) cannot take",
            id="bias as a column",
        ),
        pytest.param(
            (Layer(zeros(3), zeros(3)),), zeros(3), r"weight \(3,\)", id="weight as a vector"
        ),
    ],
)
def test_shapes_that_do_not_fit_apply_are_a_value_error(params, x, message):
    for function in (mlp.apply, lambda params, x: mlp.loss(params, x, 0)):
        with pytest.raises(ValueError, match=message):
            function(params, x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mlp.apply(random_params((3, 2)), zeros(3), activation="swish"),  # pyright: ignore[reportArgumentType]
            r"activation is 'swish', expected one of \['relu', 'sigmoid', 'tanh'\] or a callable",
        ),
        (lambda: mlp.MLP((3, 2), activation="swish"), "activation is 'swish'"),  # pyright: ignore[reportArgumentType]
        (
            lambda: mlp.init(jax.random.key(0), (3, 2), initializer="lecun"),  # pyright: ignore[reportArgumentType]
            r"initializer is 'lecun', expected one of \['glorot', 'he'\]",
        ),
        (lambda: mlp.MLP((3, 2), initializer="lecun"), "initializer is 'lecun'"),  # pyright: ignore[reportArgumentType]
        (
            lambda: mlp.loss(random_params((3, 2)), zeros(3), 0, loss="hinge"),  # pyright: ignore[reportArgumentType]
            r"loss is 'hinge', expected one of \['cross_entropy', 'focal', .*'squared_error'\]",
        ),
        (
            lambda: mlp.loss(random_params((3, 2)), zeros(3), zeros(3)),
            r"vector of 2 probabilities, got a target of shape \(3,\)",
        ),
    ],
)
def test_unknown_names_and_targets_that_do_not_fit_are_a_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
