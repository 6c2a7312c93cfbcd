"""Claims about one example, on a batch: called where the formula takes batches, else mapped."""

# ruff: noqa: N803, N806

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from samples import TRIALS

from jaxnn.verify import (
    Claim,
    batch_of,
    claim,
    complex_,
    key,
    label,
    one_hot,
    orthogonal,
    positive_definite,
    real,
    symmetric,
    verify,
)

LOGITS = {"z": real("C"), "y": one_hot("C")}
LAYER = {"W": real("C", "in"), "b": real("C"), "x": real("in"), "y": one_hot("C")}


def cross_entropy(z, y):
    return -jnp.sum(y * jax.nn.log_softmax(z))


def loss(W, b, x, y):
    return cross_entropy(W @ x + b, y)


def about(formula, **declared: Any) -> Claim:
    """The claim of a formula; by default the gradient of the cross-entropy by the logits."""
    usual = {"of": cross_entropy, "wrt": "z", "kind": "gradient", "inputs": LOGITS}
    return claim(**(usual | declared))(formula)


def judged(made):
    return verify(made, trials=TRIALS)


def error(z, y):
    return jax.nn.softmax(z) - y


def test_inputs_get_a_leading_axis():
    made = batch_of(about(error), size="B")
    assert {name: leaf.shape for name, leaf in made.inputs.items()} == {
        "z": ("B", "C"),
        "y": ("B", "C"),
    }
    assert batch_of(about(error), size=4).inputs["z"].shape == (4, "C")


def test_a_formula_that_takes_batches_is_called():
    made = batch_of(about(error))
    assert made.name == "error, called with a batch"
    assert judged(made).verdict == "holds"


@pytest.mark.slow
def test_a_formula_for_one_example_alone_is_wrong_when_called_with_a_batch():
    def normalised_over_all(z, y):
        return jnp.exp(z) / jnp.sum(jnp.exp(z)) - y

    one = about(normalised_over_all)
    assert judged(one).holds
    found = judged(batch_of(one))
    assert found.verdict == "refuted"
    assert [f.code for f in found.diagnosis] == ["wrong_axis"]
    assert found.counterexample
    assert found.counterexample.sizes["batch"] >= 2


def backward(W, b, x, y):
    delta = jax.nn.softmax(W @ x + b) - y
    return jnp.outer(delta, x), delta


def test_a_formula_that_takes_no_batch_is_mapped_and_summed_for_shared_parameters():
    made = batch_of(about(backward, of=loss, wrt=("W", "b"), inputs=LAYER), shared=("W", "b"))
    assert made.name == "backward, mapped over a batch"
    assert [leaf.shape for leaf in made.inputs.values()] == [
        ("C", "in"),
        ("C",),
        ("batch", "in"),
        ("batch", "C"),
    ]
    assert judged(made).verdict == "holds"
    rng = np.random.default_rng(0)
    W, b, x = rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=(5, 4))
    y = np.eye(3)[[0, 1, 2, 0, 1]]
    by_w, by_b = made(W=W, b=b, x=x, y=y)
    logits = x @ W.T + b
    delta = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - y
    np.testing.assert_allclose(by_w, delta.T @ x, rtol=1e-5)
    np.testing.assert_allclose(by_b, delta.sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_mistake_for_one_example_is_named_for_a_batch():
    def twice(W, b, x, y):
        by_w, by_b = backward(W, b, x, y)
        return by_w, 2 * by_b

    made = batch_of(about(twice, of=loss, wrt=("W", "b"), inputs=LAYER), shared=("W", "b"))
    found = judged(made)
    assert [f.code for f in found.diagnosis] == ["factor"]
    assert "right for W; wrong for b" in found.detail


def test_the_formula_of_a_whole_batch_is_a_sum_over_the_examples():
    def by_products(W, b, x, y):
        delta = jax.nn.softmax(x @ W.T + b) - y
        return delta.T @ x, delta.sum(axis=0)

    one = about(backward, of=loss, wrt=("W", "b"), inputs=LAYER)
    whole = batch_of(one, shared=("W", "b"))
    made = about(by_products, of=whole.of, wrt=("W", "b"), inputs=whole.inputs)
    assert judged(made).verdict == "holds"


def numpy_error(z, y):
    p = np.exp(z - z.max())
    p /= p.sum()
    return p - y


def numpy_loop(z, y):
    p = [np.exp(v - max(z)) for v in z]
    return np.array([v / sum(p) - t for v, t in zip(p, y, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("formula", "called", "verdict"), [(numpy_error, True, "refuted"), (numpy_loop, False, "holds")]
)
def test_numpy_formulas_are_called_or_run_example_by_example(formula, called, verdict):
    made = batch_of(about(formula, black_box=True))
    assert made.name.endswith("called with a batch" if called else "mapped over a batch")
    assert judged(made).verdict == verdict


def p_minus(z):
    p = jax.nn.softmax(z)
    return jnp.diag(p) - jnp.outer(p, p)


KINDS = {
    "jacobian": lambda: about(
        p_minus, of=lambda z: jax.nn.softmax(z), kind="jacobian", inputs={"z": real("C")}
    ),
    "hessian": lambda: about(
        p_minus, of=lambda z: jax.nn.logsumexp(z), kind="hessian", inputs={"z": real("C")}
    ),
    "value": lambda: about(
        lambda z: jnp.exp(z) / jnp.sum(jnp.exp(z), axis=-1, keepdims=True),
        of=lambda z: jax.nn.softmax(z), wrt=(), kind="value", inputs={"z": real("C")},
    ),
    "vjp": lambda: about(
        lambda W, x, dout: (jnp.outer(dout, x), dout @ W), of=lambda W, x: W @ x, wrt=("W", "x"),
        kind="vjp", inputs={"W": real("out", "in"), "x": real("in"), "dout": real("out")},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_claim_of_any_kind_holds_for_a_batch(kind):
    made = batch_of(KINDS[kind](), shared="W" if kind == "vjp" else ())
    assert judged(made).holds


@pytest.mark.slow
def test_a_hessian_by_a_shared_parameter_is_a_sum():
    made = about(
        lambda w, x: 2 * jnp.outer(x, x), of=lambda w, x: (w @ x) ** 2, wrt="w", kind="hessian",
        inputs={"w": real("n"), "x": real("n")},
    )  # fmt: skip
    found = judged(batch_of(made, shared="w"))
    assert found.verdict == "holds"
    with pytest.raises(ValueError, match="of which examples share some, expected all or none"):
        batch_of(about(backward, of=loss, wrt=("W", "x"), kind="hessian", inputs=LAYER), shared="W")


def test_an_update_is_refused():
    made = about(
        lambda z, y, rate: z, of=cross_entropy, kind="update", inputs=LOGITS | {"rate": real()}
    )
    with pytest.raises(ValueError, match="kind is 'update', expected a claim about the gradient"):
        batch_of(made)


@pytest.mark.slow
def test_labels_and_conditions_hold_for_every_example():
    made = about(
        lambda x, k: jnp.where(jnp.arange(x.size) == k, 1 / x[k], 0.0),
        of=lambda x, k: jnp.log(x[k]), wrt="x", inputs={"x": real("C"), "k": label("C")},
        where=lambda x: jnp.all(x > 0.1),
    )  # fmt: skip
    many = batch_of(made, size=2)
    assert many.inputs["k"].shape == (2,)
    found = judged(many)
    assert found.holds
    assert found.counterexample is None or np.all(found.counterexample.inputs["x"] > 0.1)


@pytest.mark.parametrize(
    ("formula", "convention"),
    [
        (lambda X: jnp.linalg.inv(X), "entries independent"),
        (lambda X: 2 * jnp.linalg.inv(X) - jnp.diag(jnp.diag(jnp.linalg.inv(X))), "free entries"),
    ],
)
@pytest.mark.slow
def test_a_batch_of_symmetric_matrices_has_conventions(formula, convention):
    made = about(
        formula, of=lambda X: jnp.linalg.slogdet(X)[1], wrt="X", inputs={"X": positive_definite(3)}
    )
    assert convention in judged(batch_of(made, size=2)).convention


@pytest.mark.slow
def test_a_batch_of_orthogonal_matrices_has_conventions():
    made = about(
        lambda Q, A: (A.T - Q @ A @ Q) / 2, of=lambda Q, A: jnp.trace(A @ Q), wrt="Q",
        inputs={"Q": orthogonal("n"), "A": real("n", "n")},
    )  # fmt: skip
    found = judged(batch_of(made, shared="A"))
    assert found.convention == "Q: tangent gradient"
    assert found.certificate


def test_a_batch_of_symmetric_inputs_alone_is_certified():
    made = about(
        lambda A, x: 2 * A @ x, of=lambda A, x: x @ A @ x, wrt="x",
        inputs={"A": symmetric("n"), "x": real("n")},
    )  # fmt: skip
    assert judged(batch_of(made)).certificate


def dropped(k, x):
    return jnp.where(jax.random.bernoulli(k, 0.5, x.shape), 2 * x, 0.0)


@pytest.mark.slow
def test_every_example_has_a_key_of_its_own():
    made = about(
        lambda k, x: 4 * dropped(k, x), of=lambda k, x: jnp.sum(dropped(k, x) ** 2), wrt="x",
        inputs={"k": key(), "x": real("n")},
    )  # fmt: skip
    assert batch_of(made).inputs["k"].shape == ("batch", 2)
    assert judged(batch_of(made)).verdict == "holds"


def test_a_batch_of_complex_numbers_has_a_convention():
    made = about(
        lambda z: 2 * z, of=lambda z: jnp.sum(jnp.abs(z) ** 2), inputs={"z": complex_("n")}
    )
    assert judged(batch_of(made)).convention == "z: PyTorch"
