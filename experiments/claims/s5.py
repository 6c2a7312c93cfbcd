"""S5, CSE 676 assignment 1: z = Wx + c in S5.2 and z = W^T h + b in S5.5; an example per row."""

import jax.numpy as jnp

from jaxnn import closed_form, losses
from jaxnn.types import Layer
from jaxnn.verify import binary, claim, one_hot, positive, real


def softmax(x):
    """The softmax of a vector."""
    return losses.softmax(x)


def log_softmax_sum(z):
    """J = sum_i log softmax(z)_i."""
    return jnp.sum(losses.log_softmax(z))


def log_softmax_sum_of_layer(w, c, x):
    """J = sum_i log softmax(z)_i with z = Wx + c."""
    return log_softmax_sum(w @ x + c)


@claim(
    of=softmax,
    kind="value",
    inputs={"x": real("n"), "c": real()},
    source="S5.1",
    statement=r"\operatorname{softmax}(x) = \operatorname{softmax}(x + c)",
)
def softmax_with_offset(x, c):
    """A vector x, a number c."""
    return softmax(x + c)


LAYER = {"w": real("N", "in"), "c": real("N"), "x": real("in")}


def printed_logits_gradient(z):
    """-1 + N softmax(z)."""
    return -1 + len(z) * softmax(z)


@claim(
    of=log_softmax_sum,
    wrt="z",
    kind="gradient",
    inputs={"z": real("N")},
    source="S5.2",
    statement=r"\frac{\partial J}{\partial z} = -1 + N \operatorname{softmax}(z)",
)
def log_softmax_sum_by_logits_printed(z):
    """A single example, N being the number of entries of z."""
    return printed_logits_gradient(z)


@claim(
    of=log_softmax_sum,
    wrt="z",
    kind="gradient",
    inputs={"z": real("N")},
    source="S5.2",
    statement=r"\frac{\partial J}{\partial z} = 1 - N \operatorname{softmax}(z)",
    corrects=log_softmax_sum_by_logits_printed,
)
def log_softmax_sum_by_logits(z):
    """A single example, N being the number of entries of z."""
    return closed_form.log_softmax_sum_gradient(z)


@claim(
    of=log_softmax_sum_of_layer,
    wrt="w",
    kind="gradient",
    inputs=LAYER,
    source="S5.2",
    statement=r"\frac{\partial J}{\partial W} = (-1 + N \operatorname{softmax}(z)) x",
    where={"z": lambda w, c, x: w @ x + c, "x": lambda x: x[None, :]},
)
def log_softmax_sum_by_weights_printed(w, c, x):
    """z = Wx + c, the product with x being the outer one, in the shape of W."""
    return jnp.outer(printed_logits_gradient(w @ x + c), x)


@claim(
    of=log_softmax_sum_of_layer,
    wrt="w",
    kind="gradient",
    inputs=LAYER,
    source="S5.2",
    statement=r"\frac{\partial J}{\partial W} = (1 - N \operatorname{softmax}(z)) x^\top",
    corrects=log_softmax_sum_by_weights_printed,
    where={"z": "W x + c"},
)
def log_softmax_sum_by_weights(w, c, x):
    """z = Wx + c."""
    return closed_form.log_softmax_sum_gradients(Layer(w, c), x).weight


@claim(
    of=log_softmax_sum_of_layer,
    wrt="c",
    kind="gradient",
    inputs=LAYER,
    source="S5.2",
    statement=r"\frac{\partial J}{\partial c} = -1 + N \operatorname{softmax}(z)",
    where={"z": "W x + c"},
)
def log_softmax_sum_by_bias_printed(w, c, x):
    """z = Wx + c."""
    return printed_logits_gradient(w @ x + c)


@claim(
    of=log_softmax_sum_of_layer,
    wrt="c",
    kind="gradient",
    inputs=LAYER,
    source="S5.2",
    statement=r"\frac{\partial J}{\partial c} = 1 - N \operatorname{softmax}(z)",
    corrects=log_softmax_sum_by_bias_printed,
    where={"z": "W x + c"},
)
def log_softmax_sum_by_bias(w, c, x):
    """z = Wx + c."""
    return closed_form.log_softmax_sum_gradients(Layer(w, c), x).bias


def cost(theta, x, y):
    """-y log h - (1 - y) log(1 - h) with h = sigma(theta^T x), of one example."""
    h = losses.sigmoid(theta @ x)
    return -y * jnp.log(h) - (1 - y) * jnp.log(1 - h)


def data_term(theta, x, y):
    """The mean over the N rows of x of -y log h - (1 - y) log(1 - h)."""
    h = losses.sigmoid(x @ theta)
    return jnp.sum(-y * jnp.log(h) - (1 - y) * jnp.log(1 - h)) / len(x)


def penalty(theta, lam):
    """R = lambda/2 theta^T theta."""
    return lam / 2 * jnp.sum(theta**2)


def objective(theta, x, y, lam):
    """J(theta) = 1/N sum_i cost_i + R."""
    return data_term(theta, x, y) + penalty(theta, lam)


TERMS = {"cost": data_term, "penalty": penalty}
ROWS = {"theta": real("n"), "x": real("N", "n"), "y": binary("N"), "lam": positive()}


@claim(
    of=cost,
    wrt="theta",
    kind="gradient",
    inputs={"theta": real("n"), "x": real("n"), "y": binary()},
    source="S5.3",
    statement=r"\frac{\partial\, \mathrm{cost}}{\partial \theta_j} = -(y - h) x_j",
    where={"h": r"\sigma(\theta^\top x)"},
)
def cost_gradient(theta, x, y):
    """A single example x, h = sigma(theta^T x)."""
    return -(y - losses.sigmoid(theta @ x)) * x


@claim(
    of=penalty,
    wrt="theta",
    kind="gradient",
    inputs={"theta": real("n"), "lam": positive()},
    source="S5.3",
    statement=r"\frac{\partial R}{\partial \theta_j} = \lambda \theta_j",
)
def penalty_gradient(theta, lam):
    """Every component of theta is penalised."""
    return lam * theta


@claim(
    of=objective,
    wrt="theta",
    kind="gradient",
    terms=TERMS,
    inputs=ROWS,
    source="S5.3",
    statement=r"\frac{\partial J}{\partial \theta_j} ="
    r" -\frac{1}{N} \sum_i (y_i - h_i) x_{ij} + \lambda \theta_j",
    where={"h": r"\sigma(X \theta)"},
)
def logistic_gradient(theta, x, y, lam):
    """An example per row."""
    h = losses.sigmoid(x @ theta)
    return -(y - h) @ x / len(x) + lam * theta


@claim(
    of=objective,
    wrt="theta",
    kind="update",
    rate="alpha",
    terms=TERMS,
    inputs=ROWS | {"alpha": positive()},
    source="S5.3",
    statement=r"\theta_j \leftarrow \theta_j - \alpha"
    r" \left[ \frac{1}{N} \sum_i (h_i - y_i) x_{ij} + \lambda \theta_j \right]",
    where={"h": r"\sigma(X \theta)"},
)
def logistic_update(theta, x, y, lam, alpha):
    """An example per row, alpha the learning rate."""
    h = losses.sigmoid(x @ theta)
    return theta - alpha * ((h - y) @ x / len(x) + lam * theta)


@claim(
    of=objective,
    wrt="theta",
    kind="update",
    rate="alpha",
    terms=TERMS,
    inputs=ROWS | {"alpha": positive()},
    source="S5.3",
    statement=r"\theta_j \leftarrow \theta_j \left( 1 - \frac{\lambda}{N} \right)"
    r" - \alpha \sum_i (h_i - y_i) x_{ij}",
    where={"h": r"\sigma(X \theta)"},
)
def logistic_update_constants_combined(theta, x, y, lam, alpha):
    """An example per row, "the constants can be combined": printed as the same step."""
    h = losses.sigmoid(x @ theta)
    return theta * (1 - lam / len(x)) - alpha * (h - y) @ x


@claim(
    of=objective,
    wrt="theta",
    kind="update",
    rate="alpha",
    terms=TERMS,
    inputs=ROWS | {"alpha": positive()},
    source="S5.3",
    statement=r"\theta_j \leftarrow \theta_j (1 - \alpha \lambda)"
    r" - \frac{\alpha}{N} \sum_i (h_i - y_i) x_{ij}",
    corrects=logistic_update_constants_combined,
    where={"h": r"\sigma(X \theta)"},
)
def logistic_update_multiplied_out(theta, x, y, lam, alpha):
    """An example per row, alpha the learning rate."""
    h = losses.sigmoid(x @ theta)
    return theta * (1 - alpha * lam) - alpha / len(x) * (h - y) @ x


def cross_entropy(z, y):
    """J(z) = -sum_k y_k log softmax(z)_k."""
    return -jnp.sum(y * losses.log_softmax(z))


def cross_entropy_of_layer(w, b, h, y):
    """J of z = W^T h + b."""
    return cross_entropy(w.T @ h + b, y)


def output_probabilities(w, b, h):
    """y-tilde of z = W^T h + b."""
    return softmax(w.T @ h + b)


OUTPUT_LAYER = {"w": real("in", "K"), "b": real("K"), "h": real("in"), "y": one_hot("K")}


@claim(
    of=cross_entropy,
    wrt="z",
    kind="gradient",
    inputs={"z": real("K"), "y": one_hot("K")},
    source="S5.4",
    statement=r"\frac{\partial J}{\partial z} = -y + \tilde y",
    where={r"\tilde y": r"\operatorname{softmax}(z)"},
)
def cross_entropy_gradient(z, y):
    """A single example."""
    return -y + softmax(z)


@claim(
    of=cross_entropy_of_layer,
    wrt="w",
    kind="gradient",
    layout="transpose",
    inputs=OUTPUT_LAYER,
    source="S5.5",
    statement=r"\frac{\partial J}{\partial W} = (-y + \tilde y) h",
    where={r"\tilde y": output_probabilities, "h": lambda h: h[None, :]},
)
def output_layer_by_weights(w, b, h, y):
    """z = W^T h + b with W [in, out], while the outer product as printed is [out, in]."""
    return jnp.outer(-y + softmax(w.T @ h + b), h)


@claim(
    of=cross_entropy_of_layer,
    wrt="b",
    kind="gradient",
    inputs=OUTPUT_LAYER,
    source="S5.5",
    statement=r"\frac{\partial J}{\partial b} = -y + \tilde y",
    where={r"\tilde y": r"\operatorname{softmax}(W^\top h + b)"},
)
def output_layer_by_bias(w, b, h, y):
    """z = W^T h + b."""
    return -y + softmax(w.T @ h + b)
