"""Layouts: the same derivative transposed or as a vector is no mistake, but it is named."""

import jax.numpy as jnp
import numpy as np
import pytest
from samples import AFFINE, cubes, product, product_by_w, ranks, verdict_on, weighted, weighted_by_w

from jaxnn.verify.comparison import (
    Layout,
    alternative_layouts,
    declared_layout,
    reshaped,
    same_shape,
)

JACOBIAN = np.arange(24).reshape(2, 3, 4)  # of a value [2] by a parameter [3, 4]

# vec of a 3 x 4 matrix takes its columns one after the other, entry [b, c] at 3 c + b.
BY_COLUMNS = np.array([[JACOBIAN[a, b, c] for c in range(4) for b in range(3)] for a in range(2)])
BY_ROWS = np.array([[JACOBIAN[a, b, c] for b in range(3) for c in range(4)] for a in range(2)])

MATRIX = np.array([[1, 2, 3], [4, 5, 6]])

DECLARED = {
    "as it is": (None, JACOBIAN, 1, JACOBIAN),
    "a gradient transposed": ("transpose", MATRIX, 0, [[1, 4], [2, 5], [3, 6]]),
    "a Jacobian transposed": ("transpose", MATRIX, 1, [[1, 4], [2, 5], [3, 6]]),
    "columns of a gradient": ("vec", MATRIX, 0, [1, 4, 2, 5, 3, 6]),
    "rows of a gradient": ("vec_rows", MATRIX, 0, [1, 2, 3, 4, 5, 6]),
    "columns of a Jacobian": ("vec", JACOBIAN, 1, BY_COLUMNS),
    "rows of a Jacobian": ("vec_rows", JACOBIAN, 1, BY_ROWS),
    "a vector stays one": ("vec", np.array([1, 2, 3]), 0, [1, 2, 3]),
    "a scalar's gradient": ("vec_rows", np.array(7), 0, [7]),
    "columns of a matrix by a matrix": (
        "vec",
        np.arange(16).reshape(2, 2, 2, 2),
        2,
        # rows: value entries 00, 10, 01, 11; columns: parameter entries 00, 10, 01, 11
        [[0, 2, 1, 3], [8, 10, 9, 11], [4, 6, 5, 7], [12, 14, 13, 15]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DECLARED)
def test_a_declared_layout_arranges_the_entries_so(what):
    layout, array, value_rank, expected = DECLARED[what]
    np.testing.assert_array_equal(declared_layout(layout, value_rank)(array), expected)


OTHERS = {
    "a vector has no other layout": (np.arange(3), 0, {}),
    "a gradient by a matrix": (
        MATRIX,
        0,
        {
            "the transpose": [[1, 4], [2, 5], [3, 6]],
            "vec, rows one after the other": [1, 2, 3, 4, 5, 6],
            "vec, rows one after the other, transposed": [1, 2, 3, 4, 5, 6],
            "vec, columns one after the other": [1, 4, 2, 5, 3, 6],
            "vec, columns one after the other, transposed": [1, 4, 2, 5, 3, 6],
        },
    ),
    "a vector's Jacobian by a vector": (MATRIX, 1, {"the transpose": [[1, 4], [2, 5], [3, 6]]}),
    "a vector's Jacobian by a matrix": (
        JACOBIAN,
        1,
        {
            "the transpose": [
                [[JACOBIAN[a, b, c] for a in range(2)] for b in range(3)] for c in range(4)
            ],
            "the parameter's axes before the value's": [
                [[JACOBIAN[a, b, c] for a in range(2)] for c in range(4)] for b in range(3)
            ],
            "vec, rows one after the other": BY_ROWS,
            "vec, rows one after the other, transposed": BY_ROWS.T,
            "vec, columns one after the other": BY_COLUMNS,
            "vec, columns one after the other, transposed": BY_COLUMNS.T,
        },
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_the_other_layouts_of_an_array_are(what):
    array, value_rank, expected = OTHERS[what]
    found = {layout.name: layout for layout in alternative_layouts(array.shape, value_rank)}
    assert list(found) == list(expected)
    for name, arranged in expected.items():
        np.testing.assert_array_equal(found[name].arrange(array), arranged)
        assert found[name].code == ("vec_order" if "vec" in name else "transpose")


def test_a_layout_is_given_the_axes_of_length_one_of_a_shape():
    transposed = Layout("transpose", "the transpose", np.transpose)
    array = reshaped(transposed, (1, 3, 2)).arrange(MATRIX)
    np.testing.assert_array_equal(array, [[[1, 4], [2, 5], [3, 6]]])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((3,), (3, 1), True),
        ((3,), (1, 3), True),
        ((), (1, 1), True),
        ((2, 3), (3, 2), False),
        ((6,), (2, 3), False),
    ],
)
def test_shapes_are_the_same_up_to_axes_of_length_one(one, other, same):
    assert same_shape(one, other) is same


def by_row_vectors(w, x):
    """The Jacobian of w x by w as a matrix with x^T along its block diagonal (S2.5)."""
    return jnp.kron(jnp.eye(w.shape[0]), x[None])


def by_column_vectors(w, x):
    """The same with w's entries column by column: x^T tensor I."""
    return jnp.kron(x[None], jnp.eye(w.shape[0]))


GRADIENT = {"of": weighted, "wrt": "w", "inputs": AFFINE}
JACOBIAN_OF_PRODUCT = {"of": product, "wrt": "w", "kind": "jacobian", "inputs": AFFINE}
VECTOR_GRADIENT = {"of": cubes}

IN_ANOTHER_LAYOUT = {
    "a gradient transposed": (
        GRADIENT, lambda w, x: weighted_by_w(w, x).T, "transpose", "the transpose",
    ),
    "a gradient as a vector, by rows": (
        GRADIENT, lambda w, x: weighted_by_w(w, x).reshape(-1), "vec_order", "vec, rows",
    ),
    "a gradient as a vector, by columns": (
        GRADIENT, lambda w, x: weighted_by_w(w, x).T.reshape(-1), "vec_order", "vec, columns",
    ),
    "a Jacobian with x along its diagonal": (
        JACOBIAN_OF_PRODUCT, by_row_vectors, "vec_order", "vec, rows",
    ),
    "a Jacobian of columns": (
        JACOBIAN_OF_PRODUCT, by_column_vectors, "vec_order", "vec, columns",
    ),
    "a Jacobian of columns, transposed": (
        JACOBIAN_OF_PRODUCT, lambda w, x: by_column_vectors(w, x).T, "vec_order",
        "vec, columns one after the other, transposed",
    ),
    "a Jacobian with the parameter first": (
        JACOBIAN_OF_PRODUCT, lambda w, x: jnp.moveaxis(product_by_w(w, x), 0, -1), "transpose",
        "the parameter's axes before the value's",
    ),
    "a row vector": (VECTOR_GRADIENT, lambda x: 3 * x[None] ** 2, "shape", "axes of length 1"),
    "a column vector": (VECTOR_GRADIENT, lambda x: 3 * x[:, None] ** 2, "shape", "axes of length"),
    "another declared layout": (
        GRADIENT | {"layout": "vec"}, lambda w, x: weighted_by_w(w, x).reshape(-1), "vec_order",
        "vec, rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", IN_ANOTHER_LAYOUT)
def test_a_formula_in_a_layout_not_declared_is_right_up_to_the_layout_named(what):
    declaration, formula, code, name = IN_ANOTHER_LAYOUT[what]
    judged = verdict_on(formula, **declaration)
    assert judged.verdict == "holds_other_layout"
    assert not judged.holds
    assert [finding.code for finding in judged.diagnosis] == [code]
    assert name in judged.detail


IN_THE_DECLARED_LAYOUT = {
    "transpose": (GRADIENT, "transpose", lambda w, x: weighted_by_w(w, x).T),
    "vec": (GRADIENT, "vec", lambda w, x: weighted_by_w(w, x).T.reshape(-1)),
    "vec_rows": (GRADIENT, "vec_rows", lambda w, x: weighted_by_w(w, x).reshape(-1)),
    "vec of a Jacobian": (JACOBIAN_OF_PRODUCT, "vec", by_column_vectors),
    "vec_rows of a Jacobian": (JACOBIAN_OF_PRODUCT, "vec_rows", by_row_vectors),
}


@pytest.mark.parametrize("what", IN_THE_DECLARED_LAYOUT)
def test_a_formula_in_the_declared_layout_just_holds(what):
    declaration, layout, formula = IN_THE_DECLARED_LAYOUT[what]
    assert verdict_on(formula, layout=layout, **declaration).verdict == "holds"


@pytest.mark.parametrize("what", IN_THE_DECLARED_LAYOUT)
def test_a_wrong_formula_in_the_declared_layout_is_refuted_for_its_mistake(what):
    declaration, layout, formula = IN_THE_DECLARED_LAYOUT[what]
    judged = verdict_on(lambda w, x: -formula(w, x), layout=layout, **declaration)
    assert judged.verdict == "refuted"
    assert [finding.code for finding in judged.diagnosis] == ["sign"]


def test_a_wrong_row_vector_is_refuted_for_its_mistake():
    judged = verdict_on(lambda x: -3 * x[None] ** 2, of=cubes)
    assert judged.verdict == "refuted"
    assert [finding.code for finding in judged.diagnosis] == ["sign"]


def test_a_matrix_that_is_right_up_to_its_last_row_is_in_no_layout():
    def one_row_off(w, x):
        return weighted_by_w(w, x) * jnp.where(ranks(w) == len(w), 2, 1)[:, None]

    assert verdict_on(one_row_off, **GRADIENT).verdict == "refuted"
