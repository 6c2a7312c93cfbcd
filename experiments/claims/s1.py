"""S1, EE 526X homework 2: an example per column, z = Wx + b, natural logarithms."""

import jax.numpy as jnp

from jaxnn import losses
from jaxnn.verify import claim, one_hot, positive, real, simplex


def softmax(z):
    """p_i = e^{z_i} / sum_j e^{z_j}, of every column."""
    return losses.softmax(z, axis=0)


def loss_of_probabilities(p, y):
    """J = -sum_i y_i log p_i."""
    return -jnp.sum(y * jnp.log(p))


def cross_entropy(z, y):
    """J(z) = -sum_i y_i log p_i with p = softmax(z)."""
    return -jnp.sum(y * losses.log_softmax(z))


def mean_cross_entropy(z, y):
    """The mean of J over the columns of z and y [C, B]."""
    return -jnp.sum(y * losses.log_softmax(z, axis=0)) / z.shape[1]


def shifted_mean_cross_entropy(z, y):
    """J(z + 1000)."""
    return mean_cross_entropy(z + 1000, y)


def layer_probabilities(w, b, x):
    """P, the softmax of every column of Z = WX + b."""
    return softmax(w @ x + b[:, None])


def objective(w, b, x, y):
    """The mean cross-entropy of one layer, Z = WX + b, on the columns of X [in, B] and Y [C, B]."""
    return mean_cross_entropy(w @ x + b[:, None], y)


PROBABILITIES = {"p": r"\operatorname{softmax}(z)"}

VECTORS = {"z": real("C"), "y": simplex("C")}
COLUMNS = {"z": real("C", "B"), "y": simplex("C", "B", axis=0)}
LAYER = {
    "w": real("C", "in"),
    "b": real("C"),
    "x": real("in", "B"),
    "y": one_hot("C", "B", axis=0),
}


@claim(
    of=softmax,
    wrt="z",
    kind="jacobian",
    inputs={"z": real("C")},
    source="S1.1",
    statement=r"\frac{\partial p_j}{\partial z_i} = \begin{cases} p_j (1 - p_j) & j = i \\"
    r" -p_j p_i & j \ne i \end{cases}",
    where=PROBABILITIES,
)
def softmax_jacobian_by_entries(z):
    """Entry [j, i] is the derivative of p_j by z_i."""
    p = softmax(z)
    return jnp.where(jnp.eye(len(p), dtype=bool), p * (1 - p), -jnp.outer(p, p))


@claim(
    of=softmax,
    wrt="z",
    kind="jacobian",
    inputs={"z": real("C")},
    source="S1.1",
    statement=r"\frac{\partial p}{\partial z} = \operatorname{diag}(p) - p p^\top",
    where=PROBABILITIES,
)
def softmax_jacobian_as_matrix(z):
    """The matrix is symmetric: rows by p and rows by z are equal."""
    p = softmax(z)
    return jnp.diag(p) - jnp.outer(p, p)


def log_probabilities(z):
    """The logarithm of p = softmax(z)."""
    return losses.log_softmax(z)


@claim(
    of=log_probabilities,
    kind="value",
    inputs={"z": real("C")},
    source="S1.2",
    statement=r"\log p_i = z_i - \log \sum_j e^{z_j}",
)
def log_probability(z):
    """For a column z, with the natural logarithm, computed as printed: without a shift."""
    return z - jnp.log(jnp.sum(jnp.exp(z)))


@claim(
    of=loss_of_probabilities,
    wrt="p",
    kind="gradient",
    inputs={"p": positive("C"), "y": simplex("C")},
    source="S1.2",
    statement=r"\frac{\partial J}{\partial p_i} = -\frac{y_i}{p_i}",
)
def loss_by_probabilities(p, y):
    """For a column, with independent p_i."""
    return -y / p


@claim(
    of=cross_entropy,
    wrt="z",
    kind="gradient",
    inputs={"z": real("C"), "y": positive("C")},
    source="S1.2",
    statement=r"\frac{\partial J}{\partial z_i} = -y_i + p_i \sum_j y_j",
    where=PROBABILITIES,
)
def loss_by_logits_for_any_weights(z, y):
    """For a column, before sum_j y_j = 1 is used: it holds for all y."""
    return -y + softmax(z) * jnp.sum(y)


@claim(
    of=cross_entropy,
    wrt="z",
    kind="gradient",
    inputs=VECTORS,
    source="S1.2",
    statement=r"\frac{\partial J}{\partial z} = p - y",
    where=PROBABILITIES,
)
def loss_by_logits(z, y):
    """For a column, y being any probability vector."""
    return softmax(z) - y


@claim(
    of=mean_cross_entropy,
    kind="value",
    inputs=COLUMNS,
    source="S1.2b",
    statement=r"J = -\frac{1}{B} \sum_b \sum_i y_{ib} \log p_{ib}",
    where={"p": softmax},
)
def do_forward(z, y):
    """Matrices with an example per column and a mean over the columns."""
    return jnp.mean(-jnp.sum(y * jnp.log(softmax(z)), axis=0))


@claim(
    of=mean_cross_entropy,
    kind="value",
    inputs=COLUMNS,
    source="S1.2b",
    statement=r"J(z + 1000) = J(z)",
    where={"J(z)": mean_cross_entropy, "J(z + 1000)": shifted_mean_cross_entropy},
)
def do_forward_of_shifted_logits(z, y):
    """Matrices with an example per column; computed by the logarithm of the softmax."""
    return mean_cross_entropy(z + 1000, y)


@claim(
    of=mean_cross_entropy,
    wrt="z",
    kind="gradient",
    inputs=COLUMNS,
    source="S1.2b",
    statement=r"\frac{\partial J}{\partial Z} = \frac{1}{B} (P - Y)",
    where={"P": softmax},
)
def do_backward(z, y):
    """Matrices with an example per column, J being the mean over the columns."""
    return (softmax(z) - y) / z.shape[1]


def logits_gradient(w, b, x, y):
    """S1.3's dZ = (p - Y) / B."""
    z = w @ x + b[:, None]
    return do_backward(z, y)


@claim(
    of=objective,
    wrt="w",
    kind="gradient",
    inputs=LAYER,
    source="S1.3",
    statement=r"dW = dZ\, X^\top, \quad dZ = \frac{1}{B} (P - Y)",
    where={"P": layer_probabilities},
)
def layer_by_weights(w, b, x, y):
    """An example per column of X, and dW in the shape of W [out, in]."""
    return logits_gradient(w, b, x, y) @ x.T


@claim(
    of=objective,
    wrt="b",
    kind="gradient",
    inputs=LAYER,
    source="S1.3",
    statement=r"db = \sum_b dZ_{\cdot b}, \quad dZ = \frac{1}{B} (P - Y)",
    where={"P": layer_probabilities},
)
def layer_by_bias(w, b, x, y):
    """An example per column, the sum running over the columns of dZ."""
    return jnp.sum(logits_gradient(w, b, x, y), axis=1)


@claim(
    of=objective,
    wrt=("w", "b"),
    kind="update",
    rate="eta",
    inputs=LAYER | {"eta": positive()},
    source="S1.3",
    statement=r"W \leftarrow W - \eta\, dW, \quad b \leftarrow b - \eta\, db",
    where={"dW": layer_by_weights, "db": layer_by_bias},
)
def descent_step(w, b, x, y, eta):
    """Plain gradient descent, an example per column and W [out, in]."""
    return w - eta * layer_by_weights(w, b, x, y), b - eta * layer_by_bias(w, b, x, y)
