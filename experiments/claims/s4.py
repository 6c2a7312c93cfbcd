"""S4, CS 224N assignment 1: an example per row, h = sigma(x W_1 + b_1), W [in, out].

The loss of several rows is the sum of theirs.
"""

import jax
import jax.numpy as jnp

from jaxnn import closed_form, losses
from jaxnn.types import Layer
from jaxnn.verify import claim, one_hot, real


def softmax(x):
    """The softmax S of a vector, or of every row of a matrix."""
    return losses.softmax(x)


def summed_sigmoid(x):
    """The sum of sigma over the entries, whose gradient is sigma' of every entry."""
    return jnp.sum(losses.sigmoid(x))


def cross_entropy(theta, y):
    """CE(y, S) = -sum_i y_i log S_i with S = softmax(theta), of a vector or of rows."""
    return -jnp.sum(y * losses.log_softmax(theta))


def loss_from_hidden(f2, w2, b2, y):
    """J as a function of f_2 = x W_1 + b_1."""
    return cross_entropy(losses.sigmoid(f2) @ w2 + b2, y)


def network_loss(x, w1, b1, w2, b2, y):
    """J = CE(y, softmax(h W_2 + b_2)) with h = sigma(x W_1 + b_1)."""
    return loss_from_hidden(x @ w1 + b1, w2, b2, y)


@claim(
    of=softmax,
    kind="value",
    inputs={"x": real("D"), "c": real()},
    source="S4.1",
    statement=r"\operatorname{softmax}(x) = \operatorname{softmax}(x + c)",
)
def shifted_softmax(x, c):
    """One row x, a number c."""
    return softmax(x + c)


@claim(
    of=softmax,
    kind="value",
    inputs={"x": real("N", "D")},
    source="S4.1",
    statement=r"S_{ij} = \frac{e^{x_{ij} - \max_k x_{ik}}}{\sum_l e^{x_{il} - \max_k x_{ik}}}",
)
def softmax_of_rows(x):
    """An N x D matrix row by row, with the shift by the row's largest entry."""
    exponentials = jnp.exp(x - jnp.max(x, axis=1, keepdims=True))
    return exponentials / jnp.sum(exponentials, axis=1, keepdims=True)


@claim(
    of=summed_sigmoid,
    wrt="x",
    kind="gradient",
    inputs={"x": real("n")},
    source="S4.2",
    statement=r"\sigma'(x) = \sigma(x) (1 - \sigma(x))",
    where={"x": "x_i"},
)
def sigmoid_derivative(x):
    """Elementwise."""
    return losses.sigmoid(x) * (1 - losses.sigmoid(x))


@claim(
    of=summed_sigmoid,
    wrt="x",
    kind="gradient",
    inputs={"x": real("n")},
    source="S4.2",
    statement=r"\sigma'(x) = \sigma(x) \sigma(-x)",
    where={"x": "x_i"},
)
def sigmoid_derivative_by_symmetry(x):
    """Elementwise."""
    return losses.sigmoid(x) * losses.sigmoid(-x)


@claim(
    of=summed_sigmoid,
    wrt="x",
    kind="gradient",
    inputs={"x": real("n")},
    source="S4.2",
    statement=r"\sigma' = f (1 - f), \quad f = \sigma(x)",
    where={"x": "x_i"},
)
def sigmoid_derivative_from_value(x):
    """Elementwise, from the function value f alone, as the code has it."""
    return closed_form.sigmoid_derivative_from_value(losses.sigmoid(x))


@claim(
    of=softmax,
    wrt="x",
    kind="jacobian",
    inputs={"x": real("D")},
    source="S4.3",
    statement=r"\frac{\partial S_i}{\partial \theta_j} = \begin{cases}"
    r" S_i (1 - S_i) & i = j \\ -S_i \times S_i & i \ne j \end{cases}",
    where={"S": r"\operatorname{softmax}(x)", r"\theta": "x"},
)
def softmax_jacobian_printed(x):
    """Entry [i, j] is the derivative of S_i by theta_j, x being theta."""
    s = softmax(x)
    return jnp.where(jnp.eye(len(s), dtype=bool), s * (1 - s), -(s * s)[:, None])


@claim(
    of=softmax,
    wrt="x",
    kind="jacobian",
    inputs={"x": real("D")},
    source="S4.3",
    statement=r"\frac{\partial S_i}{\partial \theta_j} = \begin{cases}"
    r" S_i (1 - S_i) & i = j \\ -S_i S_j & i \ne j \end{cases}",
    corrects=softmax_jacobian_printed,
    where={"S": r"\operatorname{softmax}(x)", r"\theta": "x"},
)
def softmax_jacobian(x):
    """Entry [i, j] is the derivative of S_i by theta_j, x being theta."""
    return closed_form.softmax_jacobian(softmax(x))


@claim(
    of=cross_entropy,
    wrt="theta",
    kind="gradient",
    inputs={"theta": real("D"), "y": one_hot("D")},
    source="S4.3",
    statement=r"\frac{\partial CE}{\partial \theta_i} = S_i - y_i",
    where={"S": r"\operatorname{softmax}(\theta)"},
)
def cross_entropy_by_scores(theta, y):
    """One row of scores theta and a one-hot y."""
    return softmax(theta) - y


FROM_HIDDEN = {
    "f2": real("N", "H"),
    "w2": real("H", "Dy"),
    "b2": real("Dy"),
    "y": one_hot("N", "Dy"),
}
NETWORK = {
    "x": real("N", "Dx"),
    "w1": real("Dx", "H"),
    "b1": real("H"),
    "w2": real("H", "Dy"),
    "b2": real("Dy"),
    "y": one_hot("N", "Dy"),
}
SQUARE = NETWORK | {"x": real("N", "H"), "w1": real("H", "H")}


def hidden_delta(x, w1, b1, w2, b2, y):
    """delta_2, the right one, as a function of the network's inputs."""
    return delta_2(x @ w1 + b1, w2, b2, y)


def output_delta(f2, w2, b2, y):
    """delta_3 = y-hat - y at f_2."""
    return softmax(losses.sigmoid(f2) @ w2 + b2) - y


def sigmoid_slope(f2):
    """sigma'(f_2) = sigma(f_2) (1 - sigma(f_2))."""
    return losses.sigmoid(f2) * (1 - losses.sigmoid(f2))


@claim(
    of=cross_entropy,
    wrt="theta",
    kind="gradient",
    inputs={"theta": real("N", "Dy"), "y": one_hot("N", "Dy")},
    source="S4.4",
    statement=r"\delta_3 = \hat y - y",
    where={r"\hat y": lambda theta: softmax(theta)},
)
def delta_3(theta, y):
    """Rows: the gradient by theta = h W_2 + b_2."""
    return softmax(theta) - y


@claim(
    of=loss_from_hidden,
    wrt="f2",
    kind="gradient",
    inputs=FROM_HIDDEN,
    source="S4.4",
    statement=r"\delta_2 = W_2 \delta_3 \circ \sigma'(f_2)",
    where={r"\delta_3": output_delta},
)
def delta_2_printed(f2, w2, b2, y):
    """The gradient by f_2 in the document's own layout, rows: delta_3 is N x D_y."""
    return w2 @ output_delta(f2, w2, b2, y) * sigmoid_slope(f2)


@claim(
    of=loss_from_hidden,
    wrt="f2",
    kind="gradient",
    inputs=FROM_HIDDEN,
    source="S4.4",
    statement=r"\delta_2 = \delta_3 W_2^\top \circ \sigma'(f_2)",
    corrects=delta_2_printed,
    where={r"\delta_3": output_delta},
)
def delta_2(f2, w2, b2, y):
    """Rows: the gradient by f_2."""
    return output_delta(f2, w2, b2, y) @ w2.T * sigmoid_slope(f2)


@claim(
    of=loss_from_hidden,
    wrt="f2",
    kind="gradient",
    inputs=FROM_HIDDEN | {"f2": real("H"), "y": one_hot("Dy")},
    source="S4.4",
    statement=r"\delta_2 = W_2 \delta_3 \circ \sigma'(f_2), \quad \delta_3 \in \mathbb{R}^{D_y}",
    where={r"\delta_3": output_delta},
)
def delta_2_with_columns(f2, w2, b2, y):
    """A single example, the printed formula with delta_3 read as a column, against the layout."""
    return w2 @ output_delta(f2, w2, b2, y) * sigmoid_slope(f2)


@claim(
    of=network_loss,
    wrt="x",
    kind="gradient",
    inputs=NETWORK,
    source="S4.4",
    statement=r"\frac{\partial J}{\partial x} = \delta_2 W_1",
    where={r"\delta_2": hidden_delta},
)
def loss_by_input_printed(x, w1, b1, w2, b2, y):
    """Rows: delta_2 is N x H and W_1 is D_x x H; delta_2 itself is right."""
    return delta_2(x @ w1 + b1, w2, b2, y) @ w1


@claim(
    of=network_loss,
    wrt="x",
    kind="gradient",
    inputs=SQUARE,
    source="S4.4",
    statement=r"\frac{\partial J}{\partial x} = \delta_2 W_1, \quad D_x = H",
    where={r"\delta_2": hidden_delta},
)
def loss_by_input_printed_square(x, w1, b1, w2, b2, y):
    """Rows, with as many hidden units as inputs, so that the printed product exists."""
    return delta_2(x @ w1 + b1, w2, b2, y) @ w1


@claim(
    of=network_loss,
    wrt="x",
    kind="gradient",
    inputs=NETWORK,
    source="S4.4",
    statement=r"\frac{\partial J}{\partial x} = \delta_2 W_1^\top",
    corrects=loss_by_input_printed,
    where={r"\delta_2": hidden_delta},
)
def loss_by_input(x, w1, b1, w2, b2, y):
    """Rows: the gradient by the inputs."""
    layers = Layer(w1.T, b1), Layer(w2.T, b2)
    return jax.vmap(closed_form.input_gradient, in_axes=(None, 0, 0))(layers, x, y)


@claim(
    of=network_loss,
    wrt="x",
    kind="gradient",
    inputs=SQUARE,
    source="S4.4",
    statement=r"\frac{\partial J}{\partial x} = \delta_2 W_1^\top, \quad D_x = H",
    corrects=loss_by_input_printed_square,
    where={r"\delta_2": hidden_delta},
)
def loss_by_input_square(x, w1, b1, w2, b2, y):
    """Rows: the gradient by the inputs, with as many hidden units as inputs."""
    return delta_2(x @ w1 + b1, w2, b2, y) @ w1.T


def entries(w1, b1, w2, b2):
    """The number of entries of all the arrays of parameters."""
    return jnp.asarray(float(w1.size + b1.size + w2.size + b2.size))


@claim(
    of=entries,
    kind="value",
    inputs={name: NETWORK[name] for name in ("w1", "b1", "w2", "b2")},
    source="S4.5",
    statement=r"D_x \cdot H + H + H \cdot D_y + D_y",
)
def number_of_parameters(w1, w2):
    """W_1 is D_x x H and W_2 is H x D_y."""
    (d_x, h), d_y = w1.shape, w2.shape[1]
    return jnp.asarray(float(d_x * h + h + h * d_y + d_y))
