"""The losses against mpmath, optax and SciPy, and where arithmetic is at its limits."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
import scipy.special

from jaxnn import losses
from jaxnn.types import Layer

INF = float("inf")


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def exactly_softmax(logits):
    exponentials = [mpmath.exp(mpmath.mpf(z)) for z in logits]
    return [e / mpmath.fsum(exponentials) for e in exponentials]


def exactly_cross_entropy(logits, target):
    p = exactly_softmax(logits)
    return -mpmath.fsum(y * mpmath.log(q) for y, q in zip(target, p, strict=True) if y)


def exactly_squared_error(logits, target):
    p = exactly_softmax(logits)
    return mpmath.fsum((y - q) ** 2 for y, q in zip(target, p, strict=True)) / 2


def exactly_logistic(logit, y):
    h = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
    return -(y * mpmath.log(h) + (1 - y) * mpmath.log(1 - h))


VECTORS = [
    pytest.param([0.0], [1.0], id="one class"),
    pytest.param([0.5, -1.25, 2.0], [0.0, 1.0, 0.0], id="one-hot"),
    pytest.param([0.5, -1.25, 2.0], [0.25, 0.25, 0.5], id="probabilities"),
    pytest.param([300.0, -400.0, 12.5, 0.0], [0.125, 0.5, 0.375, 0.0], id="far apart"),
    pytest.param([1e-9, 0.0, -1e-9], [0.5, 0.5, 0.0], id="close together"),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("logits", "target"), VECTORS)
@pytest.mark.parametrize(
    ("loss", "exactly"),
    [
        pytest.param(losses.cross_entropy, exactly_cross_entropy, id="cross_entropy"),
        pytest.param(losses.squared_error, exactly_squared_error, id="squared_error"),
    ],
)
def test_softmax_losses_have_the_exact_value(loss, exactly, logits, target):
    with mpmath.workdps(400):
        expected = float(exactly(logits, target))
    assert float(loss(jnp.array(logits), jnp.array(target))) == pytest.approx(
        expected, rel=1e-13, abs=1e-16
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("y", [0, 1, 0.25])
@pytest.mark.parametrize("logit", [0.0, 1e-9, -3.5, 40.0, -40.0, 700.0])
def test_logistic_has_the_exact_value(logit, y):
    with mpmath.workdps(400):
        expected = float(exactly_logistic(logit, y))
    assert float(losses.logistic(jnp.array(logit), y)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("spread", [1, 30])
def test_losses_agree_with_optax_on_a_random_minibatch(spread):
    rng = np.random.default_rng(spread)
    z, labels = spread * rng.normal(size=(200, 7)), rng.integers(7, size=200)
    y, binary = rng.dirichlet(np.ones(7), 200), rng.integers(2, size=200)
    for ours, theirs, arguments in (
        (losses.cross_entropy, optax.softmax_cross_entropy, (z, y)),
        (losses.cross_entropy, optax.softmax_cross_entropy_with_integer_labels, (z, labels)),
        (losses.logistic, optax.sigmoid_binary_cross_entropy, (z[:, 0], binary)),
    ):
        measured, expected = jax.vmap(ours)(*arguments), theirs(*arguments)
        np.testing.assert_allclose(measured, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("float64")
def test_softmax_and_sigmoid_agree_with_scipy():
    z = np.random.default_rng(0).normal(size=(50, 6)) * 20
    expected = scipy.special.softmax(z, axis=1)
    np.testing.assert_allclose(jax.vmap(losses.softmax)(z), expected, rtol=1e-12)
    np.testing.assert_allclose(losses.sigmoid(z), scipy.special.expit(z), rtol=1e-12)


@pytest.mark.parametrize("c", [1.0, -1000.0, 1e30])
def test_softmax_does_not_change_under_a_shift(c):
    """S4.1, S5.1; all entries are multiples of c, so that the shift itself is exact."""
    z = c * jnp.array([0.0, 0.0, -1.0])
    np.testing.assert_allclose(losses.softmax(z), losses.softmax(z + c), rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_cross_entropy_prints_the_golden_run_of_s1_2b():
    z, y = jnp.array(np.random.RandomState(1).rand(3, 2)), jnp.eye(3)[:, :2]
    for shift in (0, 1000):
        value = jax.vmap(losses.cross_entropy, in_axes=1)(z + shift, y).mean()
        assert np.floor(value * 1e5) == 104376  # 1.04376...


LOSSES_OF_A_CLASS = [losses.cross_entropy, losses.squared_error]


@pytest.mark.parametrize("loss", LOSSES_OF_A_CLASS)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, bool])
def test_an_index_means_the_same_as_its_one_hot_vector(loss, dtype):
    z = jnp.array([0.5, -1.25, 2.0])
    for index in range(3):
        by_vector = jax.value_and_grad(loss)(z, np.eye(3, dtype=dtype)[index])
        by_index = jax.value_and_grad(loss)(z, np.uint8(index))
        np.testing.assert_allclose(by_vector[0], by_index[0], rtol=1e-6)
        np.testing.assert_allclose(by_vector[1], by_index[1], rtol=1e-6)


EXTREME = [  # logits, target, cross-entropy, its gradient
    pytest.param([1e30, -1e30, 0], [0, 1, 0], 2e30, [1, -1, 0], id="all mass on the smallest"),
    pytest.param([1e30, -1e30, 0], [1, 0, 0], 0, [0, 0, 0], id="all mass on the largest"),
    pytest.param([1e30, -1e30, 0], [0, 0.5, 0.5], 1.5e30, [1, -0.5, -0.5], id="mass split"),
    pytest.param([-1e30] * 3, [1, 0, 0], np.log(3), [-2 / 3, 1 / 3, 1 / 3], id="equally small"),
    pytest.param([1e30, 1e30, 0], [0.25, 0.75, 0], np.log(2), [0.25, -0.25, 0], id="two large"),
    pytest.param([-INF, 0, 0], [0, 1, 0], np.log(2), [0, -0.5, 0.5], id="-inf without mass"),
    pytest.param([0, -INF, 1e30], [0, 0, 1], 0, [0, 0, 0], id="-inf beside 1e30"),
    pytest.param([-INF, 0, 0], [0, 0.5, 0.5], np.log(2), [0, 0, 0], id="-inf, mass split"),
    pytest.param([-INF, 0, -INF], [0, 1, 0], 0, [0, 0, 0], id="only one finite"),
]


def forms(target):
    """The target as a vector, and as an index where there is one."""
    yield jnp.array(target, jnp.float32)
    if 1 in target:
        yield jnp.array(target.index(1))


@functools.partial(jax.jit, static_argnums=0)
def in_every_mode(loss, z, y):
    """The value and gradients: plain, under vmap, and forward mode under vmap."""
    batch = (jnp.stack([z, z]), jnp.stack([y, y]))
    return loss(z, y), {
        "grad": jax.grad(loss)(z, y),
        "vmap(grad)": jax.vmap(jax.grad(loss))(*batch)[1],
        "vmap(jacfwd)": jax.vmap(jax.jacfwd(loss))(*batch)[1],
    }


def assert_right_in_every_mode(loss, logits, y, value, gradient):
    got, gradients = in_every_mode(loss, jnp.array(logits, jnp.float32), y)
    np.testing.assert_allclose(got, value, rtol=1e-6)
    for mode, got in gradients.items():
        np.testing.assert_allclose(got, gradient, atol=1e-6, err_msg=mode)


@pytest.mark.parametrize(("logits", "target", "value", "gradient"), EXTREME)
def test_cross_entropy_and_its_gradient_are_right_at_the_extremes(logits, target, value, gradient):
    for y in forms(target):
        assert_right_in_every_mode(losses.cross_entropy, logits, y, value, gradient)


def test_cross_entropy_is_infinite_where_an_impossible_class_has_mass():
    z = jnp.array([-INF, 0.0])
    assert losses.cross_entropy(z, 0) == INF
    assert losses.cross_entropy(z, jnp.array([0.5, 0.5])) == INF


@pytest.mark.parametrize(
    ("logits", "target", "value", "gradient"),
    [
        pytest.param([1e30, -1e30, 0], [0, 1, 0], 1, [0, 0, 0], id="saturated and wrong"),
        pytest.param([1e30, -1e30, 0], [1, 0, 0], 0, [0, 0, 0], id="saturated and right"),
        pytest.param([1e30, 1e30, 0], [1, 0, 0], 0.25, [-0.25, 0.25, 0], id="two large"),
        pytest.param([-INF, 0, 0], [0, 1, 0], 0.25, [0, -0.25, 0.25], id="-inf without mass"),
        pytest.param([-INF, 1, 1], [1, 0, 0], 0.75, [0, 0, 0], id="-inf with mass"),
    ],
)
def test_squared_error_and_its_gradient_are_right_at_the_extremes(logits, target, value, gradient):
    for y in forms(target):
        assert_right_in_every_mode(losses.squared_error, logits, y, value, gradient)


@pytest.mark.parametrize(
    ("logit", "y", "value", "gradient"),
    [
        (1e30, 1, 0, 0),
        (1e30, 0, 1e30, 1),
        (-1e30, 1, 1e30, -1),
        (-1e30, 0, 0, 0),
        (1e30, 0.25, 0.75e30, 0.75),
        (-INF, 0, 0, 0),
        (INF, 1, 0, 0),
    ],
)
def test_logistic_and_its_gradient_are_right_at_the_extremes(logit, y, value, gradient):
    target = jnp.array(y, jnp.float32)
    assert_right_in_every_mode(losses.logistic, logit, target, value, gradient)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.squared_error, losses.logistic])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_loss_has_the_precision_of_its_logits(loss, dtype):
    classes = 1 if loss is losses.logistic else 3
    z = jnp.ones(classes, dtype)
    for target in (0, jnp.ones((), jnp.int64), jnp.uint8(0)):
        assert loss(z, target).dtype == dtype


@pytest.mark.usefixtures("float64")
def test_logistic_of_float32_logits_is_float32_for_a_float64_target():
    assert losses.logistic(jnp.ones(1, jnp.float32), jnp.float64(0.25)).dtype == jnp.float32


def test_the_derivative_of_cross_entropy_by_the_target_is_minus_log_p_also_at_a_one_hot_target():
    z, y = jnp.array([0.5, -1.25, 2.0]), jnp.array([0.0, 1.0, 0.0])
    gradient = jax.grad(losses.cross_entropy, argnums=1)(z, y)
    np.testing.assert_allclose(gradient, -scipy.special.log_softmax(z), rtol=1e-6)


@pytest.mark.parametrize("y", [0.0, 0.25, 1.0])
def test_the_derivative_of_logistic_by_the_target_is_minus_the_logit(y):
    assert jax.grad(losses.logistic, argnums=1)(jnp.array(3.0), y) == pytest.approx(-3, rel=1e-6)


def test_the_derivative_of_cross_entropy_by_the_target_has_no_nan_beside_an_impossible_class():
    z, y = jnp.array([-INF, 0.0, 0.0]), jnp.array([0.0, 0.5, 0.5])
    assert not jnp.isnan(jax.grad(losses.cross_entropy, argnums=1)(z, y)).any()


def test_a_nan_logit_is_a_nan_loss():
    z = jnp.array([jnp.nan, 0.0])
    for y in (1, jnp.array([0.0, 1.0])):
        assert jnp.isnan(losses.cross_entropy(z, y))


def test_logistic_takes_the_logits_of_a_network_with_one_output():
    assert losses.logistic(jnp.array([0.0]), 1) == losses.logistic(jnp.array(0.0), 1)


def test_l2_penalty_is_half_the_sum_of_squared_weights_without_biases():
    params = (
        Layer(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([100.0, 100.0])),
        Layer(jnp.array([[5.0, 6.0]]), jnp.array([100.0])),
    )
    assert losses.l2_penalty(params) == (1 + 4 + 9 + 16 + 25 + 36) / 2


def test_l2_penalty_counts_kernels_of_any_rank_in_any_tree():
    params = {"kernel": 2 * jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2), "scale": jnp.ones(())}
    assert losses.l2_penalty(params) == 18 * 4 / 2


def test_l2_penalty_without_weights_is_zero():
    assert losses.l2_penalty(()) == 0


@pytest.mark.usefixtures("float64")
def test_l2_penalty_of_float32_weights_is_float32():
    assert losses.l2_penalty(Layer(jnp.ones((2, 2), jnp.float32), jnp.ones(2))).dtype == jnp.float32


def test_the_gradient_of_the_l2_penalty_is_the_weights():
    layer = Layer(jnp.array([[1.0, -2.0]]), jnp.array([3.0]))
    gradient = jax.grad(losses.l2_penalty)(layer)
    assert gradient.weight.tolist() == [[1, -2]]
    assert gradient.bias.tolist() == [0]


@pytest.mark.parametrize(
    ("logits", "target", "error"),
    [
        ([0.1, 0.7, 0.2], 1, 0),
        ([0.1, 0.7, 0.2], 2, 1),
        ([0.1, 0.7, 0.2], [0.3, 0.4, 0.3], 0),
        ([0.1, 0.7, 0.2], [1, 0, 0], 1),
        ([-INF, -1e30, -INF], 1, 0),
        ([0.5], 1, 0),
        ([0.5], 0, 1),
        ([-0.5], 0, 0),
        (-0.5, 1, 1),
        (2.0, 0.75, 0),
    ],
)
def test_classification_error_is_one_where_the_largest_logit_misses_the_target(
    logits, target, error
):
    got = losses.classification_error(jnp.array(logits), jnp.array(target))
    assert got == error
    assert got.shape == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: losses.cross_entropy(jnp.ones((5, 3)), 1),
            r"cross_entropy takes the logits of one example, shape \[C\], got \(5, 3\): jax.vmap",
        ),
        (
            lambda: losses.cross_entropy(jnp.ones(()), 1),
            r"cross_entropy takes the logits of one example, shape \[C\], got \(\)",
        ),
        (
            lambda: losses.cross_entropy(jnp.ones(3), jnp.ones(4)),
            r"cross_entropy takes a class index .* or a vector of 3 .* shape \(4,\)",
        ),
        (
            lambda: losses.cross_entropy(jnp.ones(3), 1.0),
            r"class index \(integer scalar\) .* shape \(\) and dtype float32",
        ),
        (
            lambda: losses.squared_error(jnp.ones(3), jnp.ones((3, 3))),
            r"squared_error takes a class index .* shape \(3, 3\)",
        ),
        (
            lambda: losses.logistic(jnp.ones(2), 1),
            r"logistic takes one logit and a scalar target, got logits \(2,\) and target \(\)",
        ),
        (
            lambda: losses.logistic(jnp.ones(1), jnp.ones(2)),
            r"logistic takes one logit and a scalar target, got logits \(1,\) and target \(2,\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_a_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
