"""Forward and backward passes of courses: functions, classes, a wrong forward pass."""

# ruff: noqa: N801, N802, N803

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from jaxnn.verify import assert_holds, claim_pair, comparison, label, real, simplex, verify
from jaxnn.verify.verification import describe

AFFINE = {"x": real("N", "D"), "w": real("D", "M"), "b": real("M")}
TRIALS = 100


def affine_forward(x, w, b):
    """CS231n's layer: examples in rows."""
    out = np.dot(x.reshape(x.shape[0], -1), w) + b
    return out, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    dx = dout.dot(w.T).reshape(x.shape)
    dw = x.reshape(x.shape[0], -1).T.dot(dout)
    return dx, dw, np.sum(dout, axis=0)


def judged(*passes, **declared):
    return verify(claim_pair(*passes, **declared), trials=TRIALS)


def codes(verdict):
    return [(finding.code, finding.where) for finding in verdict.diagnosis]


def test_two_functions_with_a_cache_hold():
    pair = claim_pair(affine_forward, affine_backward, inputs=AFFINE, source="S9.9")
    assert (pair.kind, pair.wrt, pair.name) == ("vjp", ("x", "w", "b"), "affine_backward")
    assert pair.inputs["dout"].shape == ("N", "M")
    verdict = verify(pair, trials=TRIALS)
    assert (verdict.verdict, verdict.source) == ("holds", "S9.9")


def test_a_wrong_gradient_is_named_and_the_right_ones_are_listed():
    def backward(dout, cache):
        dx, dw, db = affine_backward(dout, cache)
        return dx, dw / len(dout), db

    verdict = judged(affine_forward, backward, inputs=AFFINE)
    assert codes(verdict) == [("extra_mean", "w")]
    assert "right for x, b; wrong for w" in verdict.detail


class Gradients(NamedTuple):
    b: Any
    w: Any
    x: Any


@dataclass
class Slopes:
    w: Any
    x: Any
    b: Any


@pytest.mark.parametrize(
    "returned",
    [
        lambda dx, dw, db: Gradients(db, dw, dx),
        lambda dx, dw, db: Slopes(dw, dx, db),
        lambda dx, dw, db: {"db": db, "dx": dx, "dw": dw},
        lambda dx, dw, db: {"grad_x": dx, "grad_w": dw, "grad_b": db},
        lambda dx, dw, db: [dx, dw, db],
    ],
)
def test_gradients_come_by_name_or_in_order(returned):
    verdict = judged(
        affine_forward, lambda dout, cache: returned(*affine_backward(dout, cache)), inputs=AFFINE
    )
    assert verdict.verdict == "holds", describe(verdict)


def test_a_backward_pass_without_a_cache_gets_the_inputs_by_name():
    def backward(dout, x, w):
        return dout @ w.T, np.matmul(x.T, dout)

    pair = claim_pair(lambda x, w, b: np.dot(x, w) + b, backward, inputs=AFFINE)
    assert pair.wrt == ("x", "w")
    assert_holds(pair, trials=TRIALS)


@pytest.mark.parametrize(
    "backward",
    [
        lambda dh, dc, cache: (dh * cache[1] + dc, dh * cache[0] - dc),
        lambda cache, grad_h, grad_c: (grad_h * cache[1] + grad_c, grad_h * cache[0] - grad_c),
    ],
)
def test_a_pass_has_a_gradient_by_each_of_several_outputs(backward):
    pair = claim_pair(
        lambda x, h: (x * h, x - h, (x, h)), backward, inputs={"x": real("N"), "h": real("N")}
    )
    assert [each.shape for each in pair.inputs["dout"]] == [("N",), ("N",)]
    assert_holds(pair, trials=TRIALS)


def test_a_gradient_by_one_of_two_outputs_is_missed():
    def backward(dh, dc, cache):
        return dh * cache[1] + dc, dh * cache[0]

    verdict = judged(
        lambda x, h: (x * h, x - h, (x, h)), backward, inputs={"x": real("N"), "h": real("N")}
    )
    assert (verdict.verdict, verdict.detail) == ("refuted", "right for x; wrong for h")


def test_none_stands_for_no_gradient():
    def backward(dout, x, t, labels):
        return 2 * dout * (x - t), None, None

    inputs = {"x": real("n"), "t": real("n"), "labels": label("n", "C")}
    pair = claim_pair(lambda x, t, labels: np.sum(np.square(x - t)), backward, inputs=inputs)
    assert pair.wrt == ("x",)
    assert_holds(pair, trials=TRIALS)


class Accumulates:
    """A layer that adds to gradients, as until zero_grad."""

    def __init__(self):
        self.W, self.dW = np.ones((3, 2)), np.zeros((3, 2))

    def forward(self, x):
        self.x = x
        return x @ self.W

    def backward(self, dout):
        self.dW += self.x.T @ dout
        return dout @ self.W.T


def test_a_layer_that_exists_is_left_as_it_was():
    layer, inputs = Accumulates(), {"x": real("N", 3), "W": real(3, 2)}
    pairs = [claim_pair(layer, inputs=inputs)]
    pairs += [claim_pair(layer.forward, layer.backward, inputs=inputs)]
    for pair in pairs:
        assert pair.wrt == ("x", "W")
        assert_holds(pair, trials=TRIALS)
    assert not hasattr(layer, "x")
    assert not layer.dW.any()


class Sine:
    @staticmethod
    def forward(x):
        return np.sin(x), x

    @staticmethod
    def backward(dout, x_before):
        return dout * np.cos(x_before)


def test_methods_with_a_cache_hold():
    assert_holds(claim_pair(Sine, inputs={"x": real("n")}), trials=TRIALS)


class crossEntropyLogit:
    """S1.2b: one example per column, J = -(1/N) sum y log p."""

    def doForward(self, z, y):
        e = np.exp(z - z.max(axis=0, keepdims=True))
        self.p = e / e.sum(axis=0, keepdims=True)
        return -np.sum(y * np.log(self.p)) / z.shape[1]

    def doBackward(self, y):
        return (self.p - y) / y.shape[1]


def test_the_class_of_the_first_document_holds():
    layer = crossEntropyLogit()
    np.random.seed(1)
    z, y = np.random.rand(3, 2), np.eye(3)[:, :2]
    assert layer.doForward(z, y) == pytest.approx(1.04376, abs=1e-5)
    assert layer.doBackward(y)[0] == pytest.approx([-0.29358105, 0.22809874])
    inputs = {"z": real("C", "N"), "y": simplex("C", "N", axis=0)}
    pair = claim_pair(crossEntropyLogit, inputs=inputs)
    assert (pair.kind, pair.wrt) == ("gradient", ("z",))
    assert_holds(pair, trials=TRIALS)


class LinearModule:
    """As in the courses of Amsterdam: parameters and gradients in dicts of the object."""

    def __init__(self, in_features, out_features):
        self.params = {"weight": np.random.randn(out_features, in_features), "bias": 0.0}
        self.grads = {"weight": None, "bias": None}

    def forward(self, x):
        self.x = x
        return np.matmul(x, self.params["weight"].T) + self.params["bias"]

    def backward(self, dout):
        self.grads["weight"] = np.matmul(dout.T, self.x)
        self.grads["bias"] = np.sum(dout, axis=0)
        return dout @ self.params["weight"]


MODULE = {"x": real("N", "D"), "weight": real("M", "D"), "bias": real("M")}


def test_parameters_and_gradients_in_dicts_of_an_object_are_found():
    def make(weight):
        return LinearModule(weight.shape[1], weight.shape[0])

    pair = claim_pair(make, inputs=MODULE)
    assert set(pair.wrt) == {"x", "weight", "bias"}
    assert_holds(pair, trials=TRIALS)


class Dense:
    """Weights by the constructor, gradients as attributes, a static method for the slope."""

    def __init__(self, W, b, slope=0.0):
        self.W, self.b, self.slope = W, b, slope

    def forward_pass(self, x):
        self.z = np.matmul(x, self.W) + self.b
        self.x = x
        return np.tanh(self.z)

    @staticmethod
    def derivative(z):
        return 1 - np.tanh(z) ** 2

    def backward_pass(self, accum_grad):
        d = accum_grad * self.derivative(self.z)
        self.dW, self.grad_b = self.x.T @ d, d.sum(axis=0)
        return d @ self.W.T


class ForgetsTheActivation(Dense):
    def backward_pass(self, accum_grad):
        self.dW, self.grad_b = self.x.T @ accum_grad, accum_grad.sum(axis=0)
        return accum_grad @ self.W.T


DENSE = {"x": real("N", "D"), "W": real("D", "M"), "b": real("M")}


def test_a_constructor_and_a_static_method():
    verdict = judged(Dense, inputs=DENSE)
    assert verdict.verdict == "holds", describe(verdict)
    forgets = judged(ForgetsTheActivation, inputs=DENSE)
    assert forgets.verdict == "refuted"
    assert {code for code, _ in codes(forgets)} == {"activation_derivative_missing"}


class Square:
    def forward(self, x):
        self.x = x
        return np.square(x)

    def backward(self, dout):
        self.slope_of_x = 2 * self.x * dout


def test_the_place_of_a_gradient_can_be_named():
    pair = claim_pair(Square, inputs={"x": real("n")}, gradients={"x": "slope_of_x"}, name="square")
    assert (pair.name, pair.wrt) == ("square", ("x",))
    assert_holds(pair, trials=TRIALS)


def softmax_loss(x, y):
    """CS231n's loss and gradient at once."""
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_probs = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    n = x.shape[0]
    dx = np.exp(log_probs)
    dx[np.arange(n), y] -= 1
    return -np.sum(log_probs[np.arange(n), y]) / n, dx / n


def test_a_loss_and_the_gradient_at_once():
    pair = claim_pair(softmax_loss, inputs={"x": real("N", "C"), "y": label("N", "C")})
    assert (pair.kind, pair.wrt) == ("gradient", ("x",))
    assert verify(pair, trials=TRIALS).holds


def conv_forward(x, w):
    out = np.zeros((x.shape[0], x.shape[1] - w.shape[0] + 1, x.shape[2] - w.shape[1] + 1))
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[n, i, j] = np.sum(x[n, i : i + w.shape[0], j : j + w.shape[1]] * w)
    return out, (x, w)


def conv_backward(dout, cache):
    x, w = cache
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n in range(dout.shape[0]):
        for i in range(dout.shape[1]):
            for j in range(dout.shape[2]):
                dx[n, i : i + w.shape[0], j : j + w.shape[1]] += w * dout[n, i, j]
                dw += x[n, i : i + w.shape[0], j : j + w.shape[1]] * dout[n, i, j]
    return dx, dw


def test_loops_with_writes_are_traced():
    x, w = np.random.default_rng(0).normal(size=(2, 3, 3)), np.ones((2, 2))
    assert conv_forward(x, w)[0][1] == pytest.approx(correlate2d(x[1], w, "valid"))
    inputs = {"x": real(2, 3, 4), "w": real(2, 2)}
    verdict = judged(conv_forward, conv_backward, inputs=inputs)
    assert verdict.verdict == "holds", describe(verdict)
    assert verdict.certificate


def test_loops_of_too_many_operations_are_refused_before_they_are_compiled(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_EQUATIONS", 100)
    verdict = judged(conv_forward, conv_backward, inputs={"x": real("N", 5, 5), "w": real(3, 3)})
    assert verdict.verdict == "error"
    expected = "operations of JAX, expected at most 100: fixed sizes, such as real(2, 3), or code"
    assert expected in verdict.detail


def minus_the_bias(x, w, b):
    return np.matmul(x, w) - b, (x, w, b)


def reference(x, w, b):
    return x @ w + b


def test_a_wrong_forward_pass_is_a_finding_of_its_own():
    def right_for_minus(dout, cache):
        dx, dw, db = affine_backward(dout, cache)
        return dx, dw, -db

    for backward, told in ((affine_backward, "wrong too"), (right_for_minus, "right")):
        verdict = judged(minus_the_bias, backward, inputs=AFFINE, of=reference)
        assert verdict.verdict == "refuted"
        ((code, where),) = codes(verdict)
        assert (code, where) == ("forward_wrong", "the forward pass")
        assert f"the gradients are {told}" in verdict.diagnosis[0].detail
        assert (verdict.kind, verdict.worst and verdict.worst.where) == ("value", "value")
        assert verdict.counterexample
        example = verdict.counterexample.inputs
        assert not np.allclose(minus_the_bias(**example)[0], reference(**example))


def test_a_right_forward_pass_is_compared_with_the_reference_too():
    pair = claim_pair(affine_forward, affine_backward, inputs=AFFINE, of=reference)
    assert_holds(pair, trials=TRIALS)


def test_a_forward_pass_that_jax_cannot_trace_needs_a_reference():
    def forward(x):
        return np.array([float(v) ** 2 for v in x]), x

    def backward(dout, x):
        return 2 * np.multiply(x, dout)

    inputs = {"x": real("n")}
    alone = judged(forward, lambda dout, cache: backward(dout, cache), inputs=inputs)
    assert alone.verdict == "error"
    assert alone.detail.startswith("of: ")
    assert "expected of=, a reference in jax.numpy" in alone.detail
    of = judged(
        forward, lambda dout, cache: backward(dout, cache), inputs=inputs, of=lambda x: x**2
    )
    assert of.verdict == "holds"


def test_dout_of_an_unknown_size_is_to_be_declared():
    def forward(x):
        return np.convolve(x, np.ones(2), "valid"), x

    def backward(dout, cache):
        return np.convolve(dout, np.ones(2))

    with pytest.raises(ValueError, match=r"expected dout=real\(...\) among the inputs"):
        claim_pair(forward, backward, inputs={"x": real("n")})
    assert_holds(
        claim_pair(forward, backward, inputs={"x": real(4), "dout": real(3)}), trials=TRIALS
    )


class NoPasses:
    pass


SUMS = {"x": np.zeros(3)}


def adds_up(dout):
    SUMS["x"] += dout
    return SUMS["x"]


@pytest.mark.parametrize(
    ("passes", "inputs", "message"),
    [
        ((NoPasses,), {"x": real("n")}, "NoPasses has no methods forward and backward"),
        ((3,), {"x": real("n")}, "a pass is 3, expected a function or a class"),
        ((affine_forward, 3), AFFINE, "a pass is 3, expected a function or a class"),
        ((LinearModule,), MODULE, "LinearModule takes in_features, out_features, expected inputs"),
        (
            (Dense,),
            {**DENSE, "u": real()},
            "input 'u' is no parameter, attribute or entry of params",
        ),
        (
            (affine_forward, lambda a, b, c, d: a),
            {"x": real("N", "D")},
            "the forward pass raises TypeError|the backward pass has the parameters a, b, c, d",
        ),
        (
            (affine_forward, lambda dout, cache: (dout,) * 4),
            AFFINE,
            "the backward pass returns 4 gradients, expected at most 3, for x, w, b",
        ),
        (
            (affine_forward, lambda dout, cache: {"du": dout}),
            AFFINE,
            "the backward pass returns a gradient 'du', expected one for x, w, b",
        ),
        ((lambda x: x / 0 + [], lambda d, c: d), {"x": real("n")}, "the forward pass raises"),
        (
            (lambda x: (np.zeros(3) + np.zeros(2), x), lambda dout, cache: dout),
            {"x": real("n")},
            r"the forward pass raises ValueError: operands .* \(line \d+ of test_verify_pairs.py\)",
        ),
        (
            (lambda x: (x, x), lambda dout, cache: 1 / 0),
            {"x": real("n")},
            "the backward pass raises ZeroDivisionError",
        ),
        (
            (lambda x: np.square(x), lambda x: 2 * x),
            {"x": real("n")},
            "no parameter for dout, and the forward pass returns shape",
        ),
        ((lambda x: (None, x), lambda dout, cache: dout), {"x": real("n")}, "expected an array"),
        ((lambda x: x, lambda dout: None), {"x": real("n")}, "returns no gradient, expected x"),
        ((lambda x: x, adds_up), {"x": real(3)}, "the passes give two values at equal inputs"),
        (
            (lambda x: x * np.random.rand(), lambda dout: dout),
            {"x": real("n")},
            "two values at equal inputs, expected no randomness, and no sums that outlast a call",
        ),
        (
            (lambda x: (x, x), lambda dout, a, b: dout),
            {"x": real("n")},
            "the backward pass has the parameters dout, a, b, expected dout, cache",
        ),
    ],
)
def test_bad_pairs_are_refused_in_one_line(passes, inputs, message):
    with pytest.raises(ValueError, match=message) as caught:
        claim_pair(*passes, inputs=inputs)
    assert "\n" not in str(caught.value)


def test_inputs_are_a_dict():
    with pytest.raises(TypeError, match="inputs is 3, expected a dict"):
        claim_pair(affine_forward, affine_backward, inputs=3)  # pyright: ignore[reportArgumentType]


def test_jax_code_in_a_pair_needs_no_translation():
    pair = claim_pair(
        lambda x: (jnp.tanh(x), x),
        lambda dout, cache: dout * (1 - jnp.tanh(cache) ** 2),
        inputs={"x": real("n")},
        name="tanh",
    )
    verdict = verify(pair, trials=TRIALS)
    assert (verdict.name, verdict.verdict, verdict.black_box) == ("tanh", "holds", "")
