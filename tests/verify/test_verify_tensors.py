"""Functions of PyTorch as ``of``: the reference is PyTorch's own autograd."""

import jax
import jax.numpy as jnp
import pytest
from samples import made, verdict_on

from jaxnn.verify import label, real, verify

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
