"""Derivatives by constrained parameters: right in a convention that is named, or refuted.

The gradients of the identities are checked by differences of the function along curves that obey
the constraint, from the definition of each convention.
"""

# ruff: noqa: N803, N806

import json
from functools import lru_cache
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix_identities import IDENTITIES, judged
from samples import TRIALS, verdict_on

from jaxnn.verify import (
    claim,
    complex_,
    orthogonal,
    positive,
    real,
    simplex,
    sphere,
    symmetric,
    triangular,
    verify,
)
from jaxnn.verify.inputs import draw
from jaxnn.verify.report import evidence, to_html
from jaxnn.verify.verification import describe
from jaxnn.verify.worker import decode, encode

PAIRS = [(identity, way) for identity in IDENTITIES for way in identity.ways]
IDS = [f"{identity.number}-{way}" for identity, way in PAIRS]
N = 3
SLOW = pytest.mark.slow


compiled = lru_cache(jax.jit)


def along(f, curve) -> float:
    """d/dt f(curve(t)) at 0, by differences of order 8."""
    h = 2e-2
    weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
    return sum(w * (f(curve(k * h)) - f(curve(-k * h))) / h for k, w in weights.items())


def unit(*index, shape):
    array = np.zeros(shape)
    array[index] = 1.0
    return array


def by_definition(kind, way, f, X):
    """The gradient in a convention, from the convention's definition; NaN has no meaning."""
    G = np.full(X.shape, np.nan)
    shape, pairs = X.shape, [*product(range(N), repeat=X.ndim)]

    def straight(change):
        return along(f, lambda t: X + t * change)

    if way == "entries independent":
        for index in pairs:
            G[index] = straight(unit(*index, shape=shape))
    elif kind == "symmetric":  # along the matrix of a pair of equal entries
        for i, j in pairs:
            entry = straight(unit(i, j, shape=shape) + (i != j) * unit(j, i, shape=shape))
            G[i, j] = entry if way == "free entries" or i == j else entry / 2
    elif kind == "triangular":
        for i, j in pairs:
            if i >= j:
                G[i, j] = straight(unit(i, j, shape=shape))
            elif way == "free entries":
                G[i, j] = 0.0
    elif kind == "orthogonal":  # along turns of the plane (i, j), of length sqrt(2) as tangents
        G = np.zeros(shape)
        for i, j in pairs:
            if i < j:
                plane = unit(i, j, shape=shape) - unit(j, i, shape=shape)
                inside = np.abs(plane) @ np.abs(plane)

                def turned(t, plane=plane, inside=inside):
                    return X @ (np.eye(N) + np.sin(t) * plane + (np.cos(t) - 1) * inside)

                G += along(f, turned) / 2 * (X @ plane)
        G *= 2 if way == "canonical metric" else 1
    else:  # along great circles
        tangents = np.linalg.eigh(np.eye(N) - np.outer(X, X)).eigenvectors[:, 1:]
        G = np.zeros(shape)
        for v in tangents.T:
            G += along(f, lambda t, v=v: np.cos(t) * X + np.sin(t) * v) * v
    return G


@pytest.mark.parametrize(("identity", "way"), PAIRS, ids=IDS)
def test_the_identities_are_right_by_the_definition_of_their_convention(identity, way):
    kind = {"positive_definite": "symmetric"}.get(identity.parameter, identity.parameter)
    rng = np.random.default_rng(3)
    point = draw(dict(identity.inputs), {"n": N}, 1, rng, spreads=(0.5,))
    point = {name: value[0] for name, value in point.items()}
    if kind in ("symmetric", "triangular"):  # far from singular
        point["X"] = point["X"] + 3 * np.eye(N)
    with jax.enable_x64(True):
        of = compiled(identity.of)
        expected = by_definition(kind, way, lambda X: float(of(**point | {"X": X})), point["X"])
        stated = np.asarray(identity.claim(way)(**point))
    if way == "tangent" and kind == "sphere":  # of no meaning along x
        stated = stated - point["X"] * (point["X"] @ stated)
    meant = np.isfinite(expected)
    np.testing.assert_allclose(stated[meant], expected[meant], rtol=1e-7, atol=1e-8)


FEW = [pair for pair in PAIRS if pair[0].number == "(70)" and pair[1] == "free entries"]


@pytest.mark.parametrize(("identity", "way"), FEW)
def test_a_right_identity_holds_with_the_convention_and_a_wrong_one_is_diagnosed(identity, way):
    row = judged(identity, way, trials=TRIALS)
    assert row.is_right, row.right
    assert row.wrong.verdict == "refuted"
    assert row.is_diagnosed, row.wrong.diagnosis


REST = [pair for pair in PAIRS if pair[0].number in ("(57), (141)", "(81)", "(118)")]


@SLOW
@pytest.mark.parametrize(("identity", "way"), REST)
def test_more_identities_hold_with_the_convention(identity, way):
    row = judged(identity, way, trials=TRIALS)
    assert row.is_right, row.right
    assert row.wrong.verdict == "refuted"


def names(verdict):
    """The conventions named, by parameter."""
    parts = (part.split(": ") for part in filter(None, verdict.convention.split("; ")))
    return {name: set(some.split(" = ")) for name, some in parts}


FORM = {"X": symmetric("n"), "x": real("n")}


def form(X, x):
    return x @ X @ x


def test_conventions_that_agree_are_named_together():
    found = verdict_on(lambda X, x: jnp.outer(x, x), of=form, wrt="X", inputs=FORM)
    assert names(found) == {"X": {"entries independent", "symmetric gradient"}}
    found = verdict_on(
        lambda X, x: 2 * jnp.outer(x, x) - jnp.diag(x**2), of=form, wrt="X", inputs=FORM
    )
    assert names(found) == {"X": {"free entries"}}


@pytest.mark.parametrize("factor", [pytest.param(1.5, marks=SLOW), -1.0])
def test_a_multiple_of_a_right_gradient_is_refuted_in_every_convention(factor):
    for right in (
        lambda x: jnp.outer(x, x),
        lambda x: 2 * jnp.outer(x, x) - jnp.diag(x**2),
    ):
        found = verdict_on(
            lambda X, x, right=right: factor * right(x), of=form, wrt="X", inputs=FORM
        )
        assert found.verdict == "refuted"
        assert [f.code for f in found.diagnosis] == ["sign" if factor == -1 else "factor"]


def test_a_matrix_of_a_single_entry_has_one_convention():
    inputs = {"X": symmetric(1), "x": real(1)}
    found = verdict_on(lambda X, x: jnp.outer(x, x), of=form, wrt="X", inputs=inputs)
    assert names(found)["X"] >= {"entries independent", "symmetric gradient", "free entries"}


def test_a_matrix_without_a_constraint_has_no_convention():
    inputs = FORM | {"X": real("n", "n")}
    found = verdict_on(
        lambda X, x: 2 * jnp.outer(x, x) - jnp.diag(x**2), of=form, wrt="X", inputs=inputs
    )
    assert (found.verdict, found.convention) == ("refuted", "")


def test_a_constrained_input_that_is_no_parameter_has_no_convention():
    found = verdict_on(lambda X, x: 2 * X @ x, of=form, wrt="x", inputs=FORM)
    assert (found.verdict, found.convention) == ("holds", "")


def by_both(X, x):
    return 2 * jnp.outer(x, x) - jnp.diag(x**2), 2 * X @ x


def test_a_symmetric_matrix_and_a_vector_together():
    found = verdict_on(by_both, of=form, wrt=("X", "x"), inputs=FORM)
    assert found.verdict == "holds"
    assert names(found) == {"X": {"free entries"}}


@pytest.mark.parametrize(("wrong", "right"), [("X", "x"), pytest.param("x", "X", marks=SLOW)])
def test_a_mistake_by_one_of_two_parameters_is_found_in_the_right_convention(wrong, right):
    def formula(X, x):
        by_matrix, by_vector = by_both(X, x)
        return (-by_matrix, by_vector) if wrong == "X" else (by_matrix, -by_vector)

    found = verdict_on(formula, of=form, wrt=("X", "x"), inputs=FORM)
    assert found.verdict == "refuted"
    assert [f.code for f in found.diagnosis] == ["sign"]
    assert found.worst
    assert found.worst.where == wrong
    assert f"right for {right}; wrong for {wrong}" in found.detail


@SLOW
def test_symmetric_matrices_in_a_tree_have_conventions_by_path():
    inputs = {"p": {"S": symmetric("n"), "v": [real("n"), sphere("n")]}}

    def of(p):
        return p["v"][0] @ p["S"] @ p["v"][1]

    def formula(p):
        (a, b), S = p["v"], p["S"]
        return {"S": (jnp.outer(a, b) + jnp.outer(b, a)) / 2, "v": [S @ b, S @ a]}

    found = verdict_on(formula, of=of, wrt="p", inputs=inputs)
    assert found.verdict == "holds"
    assert names(found) == {"p.S": {"symmetric gradient"}, "p.v[1]": {"entries independent"}}


def by_rows(X, x):
    """[n, n, n]: d (X x)_i / d X_jk = x_k for i = j."""
    return jnp.einsum("ij,k->ijk", jnp.eye(len(x)), x)


def swapped(array):
    return jnp.swapaxes(array, -1, -2)


def free(G):
    return (G + swapped(G)) * (1 - jnp.eye(G.shape[-1]) / 2)


JACOBIANS = {
    "entries independent": by_rows,
    "symmetric gradient": lambda X, x: (by_rows(X, x) + swapped(by_rows(X, x))) / 2,
    "free entries": lambda X, x: free(by_rows(X, x)),
}


@SLOW
@pytest.mark.parametrize("way", JACOBIANS)
def test_a_jacobian_by_a_symmetric_matrix(way):
    declared = {"of": lambda X, x: X @ x, "wrt": "X", "kind": "jacobian", "inputs": FORM}
    found = verdict_on(JACOBIANS[way], **declared)
    assert found.verdict == "holds"
    assert names(found) == {"X": {way}}
    wrong = verdict_on(lambda X, x: -JACOBIANS[way](X, x), **declared)
    assert [f.code for f in wrong.diagnosis] == ["sign"]


def second(S, T):
    """[n, n, n, n]: the second derivative of Tr(S T) by the entries of S and T."""
    n = S.shape[0]
    return jnp.einsum("il,jk->ijkl", jnp.eye(n), jnp.eye(n))


def both_sides(change, H):
    H = jnp.moveaxis(change(H), (2, 3), (0, 1))
    return jnp.moveaxis(change(H), (2, 3), (0, 1))


HESSIANS = {
    "entries independent": lambda X: 2 * second(X, X),
    "symmetric gradient": lambda X: both_sides(lambda G: (G + swapped(G)) / 2, 2 * second(X, X)),
    "free entries": lambda X: both_sides(free, 2 * second(X, X)),
}


@SLOW
@pytest.mark.parametrize("way", HESSIANS)
def test_a_hessian_by_a_symmetric_matrix(way):
    inputs = {"X": symmetric("n")}
    declared = {"of": lambda X: jnp.trace(X @ X), "wrt": "X", "kind": "hessian", "inputs": inputs}
    found = verdict_on(HESSIANS[way], **declared)
    assert found.verdict == "holds"
    assert names(found) == {"X": {way}}
    wrong = verdict_on(lambda X: 3 * HESSIANS[way](X), **declared)
    assert [f.code for f in wrong.diagnosis] == ["factor"]


STEPS = {
    "entries independent": lambda X, x: jnp.outer(x, x),
    "free entries": lambda X, x: 2 * jnp.outer(x, x) - jnp.diag(x**2),
}


@SLOW
@pytest.mark.parametrize("way", STEPS)
def test_a_step_of_descent_by_a_symmetric_matrix(way):
    declared = {"of": form, "wrt": "X", "kind": "update", "inputs": FORM | {"rate": positive()}}
    found = verdict_on(lambda X, x, rate: X - rate * STEPS[way](X, x), **declared)
    assert found.verdict == "holds"
    assert way in names(found)["X"]
    wrong = verdict_on(lambda X, x, rate: X + rate * STEPS[way](X, x), **declared)
    assert [f.code for f in wrong.diagnosis] == ["sign"]


def test_an_update_rule_of_a_symmetric_matrix_has_no_convention():
    found = verdict_on(
        lambda X: X / 2, of=lambda X: X - X / 2, wrt="X", kind="update",
        inputs={"X": symmetric("n")},
    )  # fmt: skip
    assert (found.verdict, found.convention) == ("holds", "")


@pytest.mark.parametrize("formula", [lambda X, x: jnp.outer(x, x)[0], lambda X, x: 3.0])
def test_a_formula_of_a_wrong_shape_is_refuted_as_before(formula):
    found = verdict_on(formula, of=form, wrt="X", inputs=FORM)
    assert [f.code for f in found.diagnosis] == ["shape"]


def test_a_transposed_jacobian_is_another_layout_as_before():
    found = verdict_on(
        lambda X, A, x: jnp.einsum("ij,k->jki", A, x), of=lambda X, A, x: A @ X @ x,
        wrt="X", kind="jacobian", inputs=FORM | {"A": real("n", "n")},
    )  # fmt: skip
    assert found.verdict == "holds_other_layout"
    assert names(found) == {"X": {"entries independent"}}


def test_a_declared_layout_goes_with_a_convention():
    found = verdict_on(
        lambda X, x: free(jnp.outer(x, x)).ravel(order="F"), of=form, wrt="X", layout="vec",
        inputs=FORM,
    )  # fmt: skip
    assert found.verdict == "holds"
    assert names(found) == {"X": {"free entries"}}


ON_SIMPLEX = {
    "entries independent": lambda p: jnp.log(p) + 1,
    "tangent gradient": lambda p: jnp.log(p) - jnp.mean(jnp.log(p)),
    "tangent": lambda p: 1 * jnp.log(p),  # the constant is of no meaning: sum_i dp_i = 0
}


@pytest.mark.parametrize(
    "way", [*ON_SIMPLEX][2:] + [pytest.param(w, marks=SLOW) for w in [*ON_SIMPLEX][:2]]
)
def test_a_gradient_on_the_simplex_is_right_up_to_a_constant(way):
    declared = {
        "of": lambda p: jnp.sum(p * jnp.log(p)), "wrt": "p", "inputs": {"p": simplex("n")},
    }  # fmt: skip
    found = verdict_on(ON_SIMPLEX[way], **declared)
    assert found.holds
    assert names(found) == {"p": {way}}
    wrong = verdict_on(lambda p: 2 * ON_SIMPLEX[way](p), **declared)
    assert [f.code for f in wrong.diagnosis] == ["factor"]


def test_a_function_that_is_constant_on_a_sphere_has_the_tangent_gradient_zero():
    found = verdict_on(lambda x: 0 * x, of=lambda x: jnp.sum(x**2), inputs={"x": sphere("n")})
    assert found.verdict == "holds"
    assert names(found) == {"x": {"tangent gradient"}}


def test_unit_vectors_by_rows():
    found = verdict_on(
        lambda x, a: a - x * jnp.sum(a * x, axis=1, keepdims=True),
        of=lambda x, a: jnp.sum(a * x), inputs={"x": sphere("B", "n"), "a": real("B", "n")},
    )  # fmt: skip
    assert names(found) == {"x": {"tangent gradient"}}


@SLOW
def test_an_upper_triangle():
    inputs = {"U": triangular("n", lower=False), "A": real("n", "n")}
    declared = {"of": lambda U, A: jnp.trace(A @ U), "wrt": "U", "inputs": inputs}
    assert names(verdict_on(lambda U, A: jnp.triu(A.T), **declared)) == {"U": {"free entries"}}
    assert names(verdict_on(lambda U, A: A.T, **declared)) == {"U": {"entries independent"}}
    assert verdict_on(lambda U, A: jnp.tril(A.T), **declared).verdict == "refuted"


def test_the_rotation_of_an_orthogonal_matrix_is_a_convention():
    found = verdict_on(
        lambda Q, A: (Q.T @ A.T - A @ Q) / 2, of=lambda Q, A: jnp.trace(A @ Q),
        wrt="Q", inputs={"Q": orthogonal("n"), "A": real("n", "n")},
    )  # fmt: skip
    assert names(found) == {"Q": {"rotation"}}


# Complex numbers: f = sum a |z|^2 Re z has df/dx = a (3 x^2 + y^2), df/dy = 2 a x y.

COMPLEX = {"z": complex_("n"), "a": real("n")}


def cubic(z, a):
    return jnp.sum(a * jnp.abs(z) ** 2 * jnp.real(z))


def by_parts(z, a):
    return a * (3 * z.real**2 + z.imag**2), 2 * a * z.real * z.imag


PARTS = {
    "JAX": lambda x, y: x - 1j * y,
    "PyTorch": lambda x, y: x + 1j * y,
    "Wirtinger, df/dz": lambda x, y: (x - 1j * y) / 2,
    "Wirtinger, df/dz*": lambda x, y: (x + 1j * y) / 2,
}


@pytest.mark.parametrize("way", ["JAX", *(pytest.param(w, marks=SLOW) for w in [*PARTS][1:])])
def test_a_gradient_by_complex_numbers_is_right_in_a_convention(way):
    found = verdict_on(lambda z, a: PARTS[way](*by_parts(z, a)), of=cubic, wrt="z", inputs=COMPLEX)
    assert found.verdict == "holds"
    assert found.convention == f"z: {way}"
    assert "complex" in found.uncertified


def test_the_convention_of_jax_is_that_of_jax():
    found = verdict_on(lambda z, a: jax.grad(cubic)(z, a), of=cubic, wrt="z", inputs=COMPLEX)
    assert found.convention == "z: JAX"


@SLOW
def test_the_convention_of_pytorch_is_that_of_pytorch():
    torch = pytest.importorskip("torch")

    def formula(z, a):
        z = torch.tensor(np.asarray(z), requires_grad=True)
        torch.sum(torch.as_tensor(np.asarray(a)) * torch.abs(z) ** 2 * z.real).backward()
        return z.grad.numpy()

    found = verdict_on(formula, of=cubic, wrt="z", inputs=COMPLEX, black_box=True)
    assert found.convention == "z: PyTorch"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda x, y: -(x + 1j * y), "sign"),
        (lambda x, y: 3 * (x - 1j * y), "factor"),
        pytest.param(lambda x, y: x + 0j * y, None, marks=SLOW),
        pytest.param(lambda x, y: y + 1j * x, None, marks=SLOW),
    ],
)
def test_a_wrong_gradient_by_complex_numbers_is_refuted(wrong, code):
    found = verdict_on(lambda z, a: wrong(*by_parts(z, a)), of=cubic, wrt="z", inputs=COMPLEX)
    assert found.verdict == "refuted"
    assert code in (None, *[f.code for f in found.diagnosis])


@SLOW
@pytest.mark.parametrize("conjugate", [True, False])
def test_a_step_of_descent_along_the_gradient_of_jax_is_refuted(conjugate):
    def step(z, a, rate):
        gradient = jax.grad(cubic)(z, a)
        return z - rate * (jnp.conj(gradient) if conjugate else gradient)

    inputs = COMPLEX | {"rate": positive()}
    found = verdict_on(step, of=cubic, wrt="z", kind="update", rate="rate", inputs=inputs)
    assert found.verdict == ("holds" if conjugate else "refuted")


def test_formula_and_function_get_complex_numbers_and_so_does_a_call():
    seen = set()

    def formula(z, a):
        seen.add(z.dtype.kind)
        return 2 * a * z

    made = claim(
        of=lambda z, a: jnp.sum(a * jnp.abs(z) ** 2), wrt="z", kind="gradient", inputs=COMPLEX
    )(formula)
    assert verify(made, trials=TRIALS).convention == "z: PyTorch"
    assert made(np.array([1 + 2j]), np.array([3.0]))[0] == 6 + 12j
    assert seen == {"c"}


# Reports

FOUND = verdict_on(lambda X, x: free(jnp.outer(x, x)), of=form, wrt="X", inputs=FORM)


def test_a_report_shows_the_convention_with_a_sentence():
    made = claim(of=form, wrt="X", kind="gradient", inputs=FORM)(lambda X, x: x)
    shown = dict(evidence(made, FOUND))
    assert shown["convention"] == "X: free entries"
    assert "G + G^T - diag(G)" in shown["note"]
    assert "X: free entries" in describe(FOUND)
    assert "<dt>Convention</dt><dd>X: free entries</dd>" in to_html([(made, FOUND)])


def test_a_convention_passes_between_processes_and_old_verdicts_have_none():
    fields = json.loads(encode(FOUND))
    assert decode(fields) == FOUND
    del fields["convention"]
    assert decode(fields) == FOUND._replace(convention="")
