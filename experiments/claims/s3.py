"""S3, "HW 3 Solution": two layers, z = W^T h + b with W [in, out], and a general loss.

H = phi((W1)^T X + W1_0) and y-hat = softmax((W2)^T H + W2_0). The general loss enters by its
gradient g by y-hat alone: l = g . y-hat with any vector g; and once more as sum_k (y - y-hat)_k^4.
"""

import jax.numpy as jnp

from jaxnn import losses
from jaxnn.verify import claim, real


def output(w2, b2, h):
    """y-hat [K] of the hidden layer's H [N1]."""
    return losses.softmax(w2.T @ h + b2)


def general_loss(w2, b2, h, g):
    """A loss with the gradient g by y-hat."""
    return g @ output(w2, b2, h)


def quartic_loss(w2, b2, h, y):
    """A loss that is not linear in y-hat: sum_k (y_k - y-hat_k)^4."""
    return jnp.sum((y - output(w2, b2, h)) ** 4)


def relu_layer(w1, b1, x):
    """H [N1] with phi = ReLU."""
    return jnp.maximum(w1.T @ x + b1, 0)


def loss_of_relu_layer(w1, b1, x, g):
    """A loss with the gradient g by H."""
    return g @ relu_layer(w1, b1, x)


SECOND = {"w2": real("N1", "K"), "b2": real("K"), "h": real("N1")}
GENERAL = SECOND | {"g": real("K")}
QUARTIC = SECOND | {"y": real("K")}
FIRST = {"w1": real("N", "N1"), "b1": real("N1"), "x": real("N")}
FIRST_GENERAL = FIRST | {"g": real("N1")}


SYMBOLS = {"W^1_0": "b1", "W^2_0": "b2"}
BY_SECOND_WEIGHTS = r"\frac{\partial \hat y}{\partial W^2}"
BY_SECOND_BIAS = r"\frac{\partial \hat y}{\partial W^2_0}"


def factors(p):
    """y-hat[k] (1 - y-hat[k]) if i = k, -y-hat[k] y-hat[i] otherwise, as [k, i]."""
    return jnp.where(jnp.eye(len(p), dtype=bool), p * (1 - p), -jnp.outer(p, p))


@claim(
    of=output,
    wrt="w2",
    kind="jacobian",
    inputs=SECOND,
    source="S3.1",
    statement=r"\frac{\partial \hat y[k]}{\partial W^2_i} = \begin{cases}"
    r" \hat y[k] (1 - \hat y[k]) H & i = k \\ -\hat y[k] \hat y[i] H & i \ne k \end{cases}",
    where={r"\hat y": output},
)
def output_by_second_weights(w2, b2, h):
    """W2_i is column i of W2 [in, out]: entry [k, :, i]."""
    return jnp.einsum("ki,n->kni", factors(output(w2, b2, h)), h)


@claim(
    of=output,
    wrt="b2",
    kind="jacobian",
    inputs=SECOND,
    source="S3.1",
    statement=r"\frac{\partial \hat y[k]}{\partial W^2_0[i]} = \begin{cases}"
    r" \hat y[k] (1 - \hat y[k]) & i = k \\ -\hat y[k] \hat y[i] & i \ne k \end{cases}",
    where=SYMBOLS | {r"\hat y": output},
)
def output_by_second_bias(w2, b2, h):
    """The same without H: entry [k, i]."""
    return factors(output(w2, b2, h))


@claim(
    of=general_loss,
    wrt="w2",
    kind="gradient",
    inputs=GENERAL,
    source="S3.1",
    statement=r"\nabla W^2 = \sum_k \frac{\partial \hat y[k]}{\partial W^2} \nabla \hat y[k]",
    where={BY_SECOND_WEIGHTS: output_by_second_weights, r"\nabla \hat y": "g"},
)
def second_weights(w2, b2, h, g):
    """W2 [in, out]; the loss is general, with gradient g by y-hat."""
    return jnp.einsum("kni,k->ni", output_by_second_weights(w2, b2, h), g)


@claim(
    of=quartic_loss,
    wrt="w2",
    kind="gradient",
    inputs=QUARTIC,
    source="S3.1",
    statement=r"\nabla W^2 = \sum_k \frac{\partial \hat y[k]}{\partial W^2} \nabla \hat y[k],"
    r" \quad \nabla \hat y = -4 (y - \hat y)^3",
    where={BY_SECOND_WEIGHTS: output_by_second_weights, r"\hat y": output},
)
def second_weights_of_quartic_loss(w2, b2, h, y):
    """W2 [in, out]; the general rule with a loss that is not linear in y-hat."""
    return second_weights(w2, b2, h, -4 * (y - output(w2, b2, h)) ** 3)


@claim(
    of=general_loss,
    wrt="b2",
    kind="gradient",
    inputs=GENERAL,
    source="S3.1",
    statement=r"\nabla W^2_0 = \sum_k \frac{\partial \hat y[k]}{\partial W^2_0} \nabla \hat y[k]",
    where=SYMBOLS | {BY_SECOND_BIAS: output_by_second_bias, r"\nabla \hat y": "g"},
)
def second_bias(w2, b2, h, g):
    """The loss is general, with gradient g by y-hat."""
    return jnp.einsum("ki,k->i", output_by_second_bias(w2, b2, h), g)


@claim(
    of=quartic_loss,
    wrt="b2",
    kind="gradient",
    inputs=QUARTIC,
    source="S3.1",
    statement=r"\nabla W^2_0 = \sum_k \frac{\partial \hat y[k]}{\partial W^2_0} \nabla \hat y[k],"
    r" \quad \nabla \hat y = -4 (y - \hat y)^3",
    where=SYMBOLS | {BY_SECOND_BIAS: output_by_second_bias, r"\hat y": output},
)
def second_bias_of_quartic_loss(w2, b2, h, y):
    """The general rule with a loss that is not linear in y-hat."""
    return second_bias(w2, b2, h, -4 * (y - output(w2, b2, h)) ** 3)


HIDDEN_RULE = (
    r"\nabla H = \sum_k \left[ W^2_k \hat y[k] - \sum_j W^2_j \hat y[k] \hat y[j] \right]"
    r" \nabla \hat y[k]"
)


@claim(
    of=general_loss,
    wrt="h",
    kind="gradient",
    inputs=GENERAL,
    source="S3.2",
    statement=HIDDEN_RULE,
    where={r"\hat y": output, r"\nabla \hat y": "g"},
)
def hidden(w2, b2, h, g):
    """W2_k is column k of W2 [in, out]; the loss is general, with gradient g by y-hat."""
    p = output(w2, b2, h)
    bracket = w2 * p - jnp.einsum("nj,k,j->nk", w2, p, p)
    return jnp.einsum("nk,k->n", bracket, g)


@claim(
    of=quartic_loss,
    wrt="h",
    kind="gradient",
    inputs=QUARTIC,
    source="S3.2",
    statement=HIDDEN_RULE + r", \quad \nabla \hat y = -4 (y - \hat y)^3",
    where={r"\hat y": output},
)
def hidden_of_quartic_loss(w2, b2, h, y):
    """W2 [in, out]; the general rule with a loss that is not linear in y-hat."""
    return hidden(w2, b2, h, -4 * (y - output(w2, b2, h)) ** 3)


def active(w1, b1, x):
    """1{i = k and (W1_i)^T X + W1_0[i] > 0} as [k, i]."""
    return jnp.diag(jnp.where(w1.T @ x + b1 > 0, 1.0, 0.0))


@claim(
    of=relu_layer,
    wrt="w1",
    kind="jacobian",
    inputs={"w1": real("N", "N"), "b1": real("N"), "x": real("N")},
    source="S3.3",
    statement=r"\frac{\partial H[k]}{\partial W^1_i} = \begin{cases}"
    r" X[k] & i = k,\; (W^1_i)^\top X + W^1_0[i] > 0 \\ 0 & \text{otherwise} \end{cases}",
    where=SYMBOLS,
)
def relu_layer_by_weights_printed(w1, b1, x):
    """W1_i is column i of W1 [in, out], here with N = N1 so that every X[k] exists."""
    return jnp.einsum("ki,k,n->kni", active(w1, b1, x), x, jnp.ones_like(x))


@claim(
    of=relu_layer,
    wrt="w1",
    kind="jacobian",
    inputs=FIRST,
    source="S3.3",
    statement=r"\frac{\partial H[k]}{\partial W^1_i} = \begin{cases}"
    r" X & i = k,\; (W^1_i)^\top X + W^1_0[i] > 0 \\ 0 & \text{otherwise} \end{cases}",
    corrects=relu_layer_by_weights_printed,
    where=SYMBOLS,
)
def relu_layer_by_weights(w1, b1, x):
    """W1_i is column i of W1 [in, out], and its derivative the whole vector X."""
    return jnp.einsum("ki,n->kni", active(w1, b1, x), x)


@claim(
    of=relu_layer,
    wrt="b1",
    kind="jacobian",
    inputs=FIRST,
    source="S3.3",
    statement=r"\frac{\partial H[k]}{\partial W^1_0[i]} = \begin{cases}"
    r" 1 & i = k,\; (W^1_i)^\top X + W^1_0[i] > 0 \\ 0 & \text{otherwise} \end{cases}",
    where=SYMBOLS,
)
def relu_layer_by_bias(w1, b1, x):
    """Entry [k, i], W1 being [in, out]."""
    return active(w1, b1, x)


@claim(
    of=loss_of_relu_layer,
    wrt="w1",
    kind="gradient",
    inputs=FIRST_GENERAL,
    source="S3.3",
    statement=r"\nabla W^1 = \sum_k \frac{\partial H[k]}{\partial W^1} \nabla H[k]",
    where={r"\frac{\partial H}{\partial W^1}": relu_layer_by_weights, r"\nabla H": "g"},
)
def first_weights(w1, b1, x, g):
    """W1 [in, out], with the whole X in dH[k]/dW1; g is the gradient of any loss by H."""
    return jnp.einsum("kni,k->ni", relu_layer_by_weights(w1, b1, x), g)


@claim(
    of=loss_of_relu_layer,
    wrt="b1",
    kind="gradient",
    inputs=FIRST_GENERAL,
    source="S3.3",
    statement=r"\nabla W^1_0 = \sum_k \frac{\partial H[k]}{\partial W^1_0} \nabla H[k]",
    where=SYMBOLS | {r"\frac{\partial H}{\partial W^1_0}": relu_layer_by_bias, r"\nabla H": "g"},
)
def first_bias(w1, b1, x, g):
    """W1 [in, out]; g is the gradient of any loss by H."""
    return jnp.einsum("ki,k->i", relu_layer_by_bias(w1, b1, x), g)


def relu_network(w1, b1, w2, b2, x, g):
    """A general loss, with the gradient g by y-hat, of the network with a ReLU hidden layer."""
    return general_loss(w2, b2, relu_layer(w1, b1, x), g)


@claim(
    of=relu_network,
    wrt=("w1", "b1"),
    kind="gradient",
    inputs=FIRST | {"w2": real("N1", "K"), "b2": real("K"), "g": real("K")},
    source="S3.3",
    statement=r"\nabla W^1 = \sum_k \frac{\partial H[k]}{\partial W^1} \nabla H[k], \quad"
    r" \nabla W^1_0 = \sum_k \frac{\partial H[k]}{\partial W^1_0} \nabla H[k], \quad"
    r" \nabla H \text{ of S3.2}",
)
def first_layer_of_relu_network(w1, b1, w2, b2, x, g):
    """Both layers, W [in, out]; the loss is general, with gradient g by y-hat."""
    hidden_gradient = hidden(w2, b2, relu_layer(w1, b1, x), g)
    return first_weights(w1, b1, x, hidden_gradient), first_bias(w1, b1, x, hidden_gradient)
