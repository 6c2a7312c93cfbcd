"""Small claims that several tests make, and how to make one in a line."""

import jax
import jax.numpy as jnp

from jaxnn.verify import Claim, claim, real, verify

VECTOR = {"x": real("n")}
AFFINE = {"w": real("out", "in"), "x": real("in")}
TRIALS = 200


def made(formula, **declaration) -> Claim:
    """The claim of a formula; by default the gradient of ``of`` by x [n]."""
    return claim(**({"kind": "gradient", "wrt": "x", "inputs": VECTOR} | declaration))(formula)


def verdict_on(formula, **declaration):
    """The verdict on such a claim, after few trials."""
    return verify(made(formula, **declaration), trials=TRIALS)


def cubes(x):
    """sum_i x_i^3, whose gradient is 3 x^2 and whose Hessian is diag(6 x)."""
    return jnp.sum(x**3)


def weighted(w, x):
    """sum_ab a w_ab^2 x_b, a = 1, 2, ...: no row of its gradient by w is like another."""
    return jnp.sum(ranks(w)[:, None] * w**2 * x)


def weighted_by_w(w, x):
    """2 a w_ab x_b."""
    return 2 * ranks(w)[:, None] * w * x


def ranks(w):
    """1, 2, ..., as many as w has rows."""
    return jnp.arange(1.0, w.shape[0] + 1)


def product(w, x):
    """w x."""
    return w @ x


def product_by_w(w, x):
    """[out, out, in]: the derivative of (w x)_a by w_bc is x_c if a = b, else 0."""
    return jnp.einsum("ab,c->abc", jnp.eye(w.shape[0]), x)


def textbook_softmax(x):
    """e^{x_i} / sum_j e^{x_j}, without a shift."""
    exponentials = jnp.exp(x)
    return exponentials / jnp.sum(exponentials)


def cross_entropy(z, y):
    """-sum_i y_i log softmax(z)_i."""
    return -jnp.sum(y * jax.nn.log_softmax(z))
