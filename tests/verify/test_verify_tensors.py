"""Functions of PyTorch as ``of``: the reference is PyTorch's own autograd."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import made, verdict_on

from jaxnn.verify import assert_holds, claim_pair, label, real, verify

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def waves(x, y):
    return torch.sum(torch.sin(x) * y**2)


def of_waves(x, y):
    return jnp.sum(jnp.sin(x) * y**2)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.grad,
        lambda f: jax.grad(f, argnums=1),
        jax.jacfwd,
        lambda f: jax.vmap(jax.grad(f), in_axes=(0, None)),
        jax.hessian,
        lambda f: jax.jacrev(jax.jacfwd(f, argnums=1)),
        lambda f: jax.jit(jax.value_and_grad(f)),
    ],
)
def test_transforms_of_jax_give_the_derivatives_of_the_same_function_in_jax(transform):
    from jaxnn.verify.tensors import by_torch

    x, y = jnp.array([[0.5, -1.0, 2.0], [3.0, 0.1, 0.2]]), jnp.array([2.0, -1.0, 0.3])
    x = x if "in_axes" in str(transform.__code__.co_consts) else x[0]
    found, true = transform(by_torch(waves))(x, y), transform(of_waves)(x, y)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b)), found, true))


def test_derivatives_by_complex_numbers_are_those_of_jax():
    from jaxnn.verify.tensors import by_torch

    def turned(z, math):
        return math.exp(z) * z.conj() * (1 + 2j)

    z, dz = jnp.array([1 + 2j, 3 - 1j]), jnp.array([0.5j, 1 - 1j])
    f, g = by_torch(lambda z: turned(z, torch)), lambda z: turned(z, jnp)
    for found, true in (
        (jax.jvp(f, (z,), (dz,)), jax.jvp(g, (z,), (dz,))),
        (jax.vjp(f, z)[1](dz), jax.vjp(g, z)[1](dz)),
    ):
        for one, other in zip(found, true, strict=True):
            assert one == pytest.approx(other)


def test_large_arrays_keep_64_bits_in_every_thread():
    """XLA calls back large programs from threads of its own, which know no ``enable_x64``."""
    from jaxnn.verify.tensors import by_torch

    x, w = jnp.ones((64, 8, 3, 16, 16)) / 3, jnp.ones((64, 5, 3, 3, 3))
    f = by_torch(lambda x, w: torch.nn.functional.conv2d(x, w).sum())
    found = jax.jit(jax.vmap(jax.grad(f, argnums=1)))(x, w)
    assert np.asarray(found) == pytest.approx(np.full(w.shape, 8 * 14 * 14 / 3), rel=1e-14)


def test_a_name_after_a_dot_makes_no_code_of_torch():
    """``jax.nn`` beside ``import torch.nn as nn``."""
    of = eval("lambda x: jax.numpy.sum(jax.nn.relu(x))", {"jax": jax, "nn": torch.nn})
    assert verdict_on(lambda x: 1.0 * (x > 0), of=of, trials=20).verdict in ("holds", "kink")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2, dtype=torch.float64)

    def forward(self, x):
        return torch.tanh(self.layer(x))


NET = Net()


@pytest.mark.parametrize("of", [lambda x: x.pow(2).sum(), lambda x: NET(x).sum()])
def test_code_of_torch_is_recognised_without_the_name(of):
    def gradient(x):
        if of.__code__.co_names[0] == "pow":
            return 2 * x
        return (1 - NET(x) ** 2) @ NET.layer.weight

    verdict = verdict_on(gradient, of=of, wrt="x", inputs={"x": real("N", 3)}, trials=20)
    assert verdict.verdict == "holds"


def test_a_value_without_a_graph_of_torch_is_refused():
    verdict = verdict_on(lambda x: 2 * x, of=lambda x: torch.sum(x.detach() ** 2), trials=20)
    assert verdict.verdict == "error"
    assert "the result has no gradient in PyTorch, expected tensors" in verdict.detail


def test_warnings_of_torch_are_no_errors():
    def of(x):
        warnings.warn("std(): degrees of freedom is <= 0", stacklevel=1)
        return torch.sum(x**2)

    assert verdict_on(lambda x: 2 * x, of=of, trials=20).verdict == "holds"


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return scale * x**3

    @staticmethod
    def backward(ctx, *grads):
        x, scale = ctx.saved_tensors
        return 3 * grads[0] * scale * x**2, (grads[0] * x**3).sum()


class Cubed(Cube):
    @staticmethod
    def backward(ctx, *grads):
        by_x, by_scale = Cube.backward(ctx, *grads)
        return by_x, by_scale / 3


def test_the_backward_pass_of_an_autograd_function_is_the_claim():
    inputs = {"x": real("n"), "scale": real()}
    right, wrong = (verify(claim_pair(f, inputs=inputs), trials=20) for f in (Cube, Cubed))
    assert right.verdict == "holds"
    assert wrong.verdict == "refuted"
    assert "right for x; wrong for scale" in wrong.detail


def test_a_pair_of_functions_in_torch():
    def forward(x, g):
        return torch.nn.functional.silu(x) * g

    def backward(dout, x, g):
        s = torch.sigmoid(x)
        return dout * g * (s + x * s * (1 - s)), dout * x * s

    assert_holds(claim_pair(forward, backward, inputs={"x": real("n"), "g": real("n")}), trials=20)


LOGITS = {"wrt": "z", "inputs": {"z": real("N", "C"), "y": label("N", "C")}}


def cross_entropy(z, y):
    return torch.nn.functional.cross_entropy(z, y)


def test_a_loss_of_torch_confirms_and_refutes():
    def difference(z, y):
        return jax.nn.softmax(z) - jax.nn.one_hot(y, z.shape[1])

    right = verdict_on(lambda z, y: difference(z, y) / len(y), of=cross_entropy, **LOGITS)
    assert right.verdict == "holds"
    wrong = made(difference, of=cross_entropy, **LOGITS)
    assert verify(wrong, trials=20).verdict == "refuted"


@pytest.mark.slow
def test_a_mistake_against_a_loss_of_torch_is_named():
    verdict = verify(made(lambda x: 2 * x, of=lambda x: torch.sum(x**2) / len(x)), trials=20)
    assert [finding.code for finding in verdict.diagnosis] == ["missing_mean"]


def test_formula_and_function_in_torch():
    def gradient(z, y):
        p = torch.softmax(z, 1)
        p[torch.arange(len(y)), y] -= 1
        return p / len(y)

    verdict = verdict_on(gradient, of=cross_entropy, **LOGITS)
    assert verdict.verdict == "holds"
    assert "PyTorch" in verdict.black_box


def test_a_hessian_of_torch():
    verdict = verdict_on(lambda x: jnp.diag(6 * x), of=lambda x: torch.sum(x**3), kind="hessian")
    assert verdict.verdict == "holds"
