"""S2.5, affine maps and the chain rule: z = Wx + b, x a column, vec[W] row after row.

unvec of a Jacobian by vec[W] stands in the transposed shape of W.
"""

import jax.numpy as jnp
import numpy as np

from jaxnn import closed_form
from jaxnn.types import Layer
from jaxnn.verify import claim, real

W1, B1 = np.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([0.0, 0.0, 3.0])
W2, B2 = np.array([[1.0, -2.0, 0.25]]), np.array([0.0])


def f(x):
    """x_1 - 2 x_2 + x_3 / 4, as a vector with a single entry."""
    return jnp.stack([x[0] - 2 * x[1] + x[2] / 4])


def g(x):
    """(x_1 + 2 x_2, x_2, -x_1 + 3)."""
    return jnp.stack([x[0] + 2 * x[1], x[1], -x[0] + 3])


def f_after_g(x):
    """(f o g)(x)."""
    return f(g(x))


def affine(w, b, x):
    """AffineTransformation(W, b, x) = Wx + b."""
    return w @ x + b


def composed(w1, b1, w2, b2, x):
    """z_2 = W_2 z_1 + b_2 of z_1 = W_1 x + b_1."""
    return affine(w2, b2, affine(w1, b1, x))


def composed_scalar(w1, b1, w2, b2, x):
    """z_2 as a number, for W_2 with a single row."""
    return composed(w1, b1, w2, b2, x)[0]


def weighted(w, b, x, a):
    """A (Wx + b), a number."""
    return a @ affine(w, b, x)


def activations(layers, x):
    """Composition: z_i = W_i z_{i-1} + b_i with z_0 = x, the smallest index first."""
    values = [x]
    for w, b in layers:
        values.append(affine(w, b, values[-1]))
    return tuple(values[1:])


def all_weights(layers):
    """W_i of maps of equal shapes, as [i, :, :]."""
    return jnp.stack([w for w, _ in layers])


def all_biases(layers):
    """b_i of maps of equal shapes, as [i, :]."""
    return jnp.stack([b for _, b in layers])


def last_activation(layers, x):
    """z_n, for a scalar z_n."""
    return activations(layers, x)[-1][0]


LAYER = {"w": real("n", "m"), "b": real("n"), "x": real("m")}
TWO = {"w1": real("n", "m"), "b1": real("n"), "w2": real(1, "n"), "b2": real(1), "x": real("m")}
SIZES_OF_F_AND_G = {
    "w1": real(3, 2),
    "b1": real(3),
    "w2": real(1, 3),
    "b2": real(1),
    "x": real(2),
}
SQUARE = Layer._make((real("n", "n"), real("n")))
CHAIN = (
    Layer._make((real("p", "m"), real("p"))),
    Layer._make((real("q", "p"), real("q"))),
    Layer._make((real(1, "q"), real(1))),
)


@claim(
    of=f,
    kind="value",
    inputs={"x": real(3)},
    source="S2.5",
    statement=r"f(x) = W_2 x + b_2, \quad W_2 = [1, -2, \tfrac{1}{4}],\; b_2 = (0)",
)
def f_as_affine_map(x):
    """A column x [3]."""
    return affine(W2, B2, x)


@claim(
    of=g,
    kind="value",
    inputs={"x": real(2)},
    source="S2.5",
    statement=r"g(x) = W_1 x + b_1, \quad"
    r" W_1 = \begin{bmatrix} 1 & 2 \\ 0 & 1 \\ -1 & 0 \end{bmatrix},\; b_1 = (0, 0, 3)",
)
def g_as_affine_map(x):
    """A column x [2]."""
    return affine(W1, B1, x)


@claim(
    of=f_after_g,
    kind="value",
    inputs={"x": real(2)},
    source="S2.5",
    statement=r"(f \circ g)(x) = W_2 (W_1 x + b_1) + b_2",
    where={"W_1": lambda: W1, "b_1": lambda: B1, "W_2": lambda: W2, "b_2": lambda: B2},
)
def composition_of_f_and_g(x):
    """The last activation of L = [(W_1, b_1), (W_2, b_2)], the smallest index first."""
    return activations([(W1, B1), (W2, B2)], x)[-1]


@claim(
    of=activations,
    kind="value",
    inputs={"layers": (SQUARE, SQUARE, SQUARE), "x": real("n")},
    source="S2.5",
    statement=r"z_i = W_i x + b_i",
    where={"W": all_weights, "b": all_biases},
)
def composition_program(layers, x):
    """The printed program, every z_i from the original x, on maps of suitable shapes."""
    return tuple(affine(w, b, x) for w, b in layers)


@claim(
    of=activations,
    kind="value",
    inputs={"layers": (SQUARE, SQUARE, SQUARE), "x": real("n")},
    source="S2.5",
    statement=r"z_i = W_i z_{i-1} + b_i, \quad z_0 = x",
    corrects=composition_program,
)
def composition_program_corrected(layers, x):
    """The smallest index first, each map applied to the result of the previous map."""
    return closed_form.affine_composition(layers, x)


@claim(
    of=activations,
    kind="value",
    inputs={"layers": CHAIN, "x": real("m")},
    source="S2.5",
    statement=r"z_i = W_i x + b_i, \quad W_i \in \mathbb{R}^{n_i \times n_{i-1}}",
)
def composition_program_any_shapes(layers, x):
    """The printed program, every z_i from the original x, on maps such as f and g."""
    return tuple(affine(w, b, x) for w, b in layers)


@claim(
    of=activations,
    kind="value",
    inputs={"layers": CHAIN, "x": real("m")},
    source="S2.5",
    statement=r"z_i = W_i z_{i-1} + b_i, \quad z_0 = x, \quad"
    r" W_i \in \mathbb{R}^{n_i \times n_{i-1}}",
    corrects=composition_program_any_shapes,
)
def composition_program_any_shapes_corrected(layers, x):
    """The smallest index first, on maps of any compatible shapes."""
    return closed_form.affine_composition(layers, x)


@claim(
    of=composed,
    wrt="b2",
    kind="jacobian",
    inputs=SIZES_OF_F_AND_G,
    source="S2.5",
    statement=r"\frac{\partial z_2}{\partial b_2} = 1_{1 \times 3}",
)
def output_by_its_bias_as_ones(w1, b1, w2, b2, x):
    """Rows by z_2, columns by b_2, in the shapes of f and g."""
    return jnp.ones((1, 3))


@claim(
    of=composed,
    wrt="b2",
    kind="jacobian",
    inputs=TWO,
    source="S2.5",
    statement=r"\frac{\partial (f \circ g)}{\partial b_2} = I",
    corrects=output_by_its_bias_as_ones,
)
def output_by_its_bias(w1, b1, w2, b2, x):
    """Rows by f o g, columns by b_2: the 1 x 1 identity."""
    return jnp.eye(len(b2))


@claim(
    of=affine,
    wrt="w",
    kind="jacobian",
    layout="vec_rows",
    inputs=LAYER,
    source="S2.5",
    statement=r"\frac{\partial z}{\partial \operatorname{vec}[W]} ="
    r" \begin{bmatrix} x^\top & & \\ & \ddots & \\ & & x^\top \end{bmatrix}"
    r" \in \mathbb{R}^{n \times nm}",
)
def affine_by_vec_weights(w, b, x):
    """Rows by z, columns by vec[W], the rows of W concatenated."""
    return closed_form.affine_weight_jacobian(x, len(b))


@claim(
    of=weighted,
    wrt="w",
    kind="gradient",
    layout="transpose",
    inputs=LAYER | {"a": real("n")},
    source="S2.5",
    statement=r"\operatorname{unvec}"
    r"\left[ A \frac{\partial z}{\partial \operatorname{vec}[W]} \right] = x A",
    where={"A": lambda a: a[None, :], "x": lambda x: x[:, None]},
)
def unvec_of_weighted(x, a):
    """x a column, A a row: unvec is m x n, the transposed shape of W."""
    return jnp.outer(x, a)


@claim(
    of=composed,
    wrt="w2",
    kind="jacobian",
    layout="vec_rows",
    inputs=TWO,
    source="S2.5",
    statement=r"\frac{\partial (f \circ g)}{\partial \operatorname{vec}[W_2]} = z_1^\top",
    where={"z_1": "W_1 x + b_1"},
)
def output_by_vec_last_weights(w1, b1, x):
    """A row by vec[W_2], 1 x 3 for f and g."""
    return affine(w1, b1, x)[None]


@claim(
    of=composed_scalar,
    wrt="w2",
    kind="gradient",
    layout="transpose",
    inputs=TWO,
    source="S2.5",
    statement=r"\operatorname{unvec}"
    r"\left[ \frac{\partial (f \circ g)}{\partial \operatorname{vec}[W_2]} \right] = z_1",
    where={"z_1": "W_1 x + b_1"},
)
def unvec_by_last_weights(w1, b1, x):
    """A column, the transposed shape of W_2."""
    return affine(w1, b1, x)[:, None]


@claim(
    of=composed,
    wrt="b1",
    kind="jacobian",
    inputs=TWO,
    source="S2.5",
    statement=r"\frac{\partial (f \circ g)}{\partial b_1} = W_2",
)
def output_by_first_bias(w2):
    """Rows by f o g, columns by b_1."""
    return w2


@claim(
    of=composed,
    wrt="w1",
    kind="jacobian",
    layout="vec_rows",
    inputs=SIZES_OF_F_AND_G,
    source="S2.5",
    statement=r"\frac{\partial (f \circ g)}{\partial \operatorname{vec}[W_1]} ="
    r" \left[ (W_2)_1 x^\top, (W_2)_2 x^\top, (W_2)_3 x^\top \right]",
    where={"W_2": lambda w2: w2[0]},
)
def output_by_vec_first_weights(w2, x):
    """A row by vec[W_1], 1 x 6 for f and g, the rows of W_1 concatenated."""
    return jnp.concatenate([w2[0, 0] * x, w2[0, 1] * x, w2[0, 2] * x])[None]


@claim(
    of=composed_scalar,
    wrt="w1",
    kind="gradient",
    inputs=SIZES_OF_F_AND_G,
    source="S2.5",
    statement=r"\operatorname{unvec}"
    r"\left[ \frac{\partial (f \circ g)}{\partial \operatorname{vec}[W_1]} \right] = x W_2"
    r" \in \mathbb{R}^{3 \times 2}",
    where={"W_2": lambda w2: w2, "x": lambda x: x[:, None]},
)
def unvec_by_first_weights_3x2(w2, x):
    """Stated as a 3 x 2 matrix, the shape of W_1 itself; x a column, W_2 a row."""
    return jnp.outer(x, w2)


@claim(
    of=composed_scalar,
    wrt="w1",
    kind="gradient",
    layout="transpose",
    inputs=TWO,
    source="S2.5",
    statement=r"\operatorname{unvec}"
    r"\left[ \frac{\partial (f \circ g)}{\partial \operatorname{vec}[W_1]} \right] = x W_2"
    r" \in \mathbb{R}^{2 \times 3}",
    corrects=unvec_by_first_weights_3x2,
    where={"W_2": lambda w2: w2, "x": lambda x: x[:, None]},
)
def unvec_by_first_weights(w2, x):
    """The transposed shape of W_1, 2 x 3 for f and g; x a column, W_2 a row."""
    return jnp.outer(x, w2)


@claim(
    of=last_activation,
    wrt="layers",
    kind="gradient",
    inputs={"layers": CHAIN, "x": real("m")},
    source="S2.5",
    statement=r"\frac{\partial z_n}{\partial b_i} = a_i, \quad"
    r" \frac{\partial z_n}{\partial W_i} = a_i^\top z_{i-1}^\top, \quad"
    r" a_n = 1, \; a_{i-1} = a_i W_i",
)
def compute_jacobians(layers, x):
    """What ComputeJacobians is to return (the printed program returns nothing), n = 3 maps."""
    return closed_form.affine_jacobians(layers, x)
