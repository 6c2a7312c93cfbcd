"""S3.4, the network worked in numbers: sigmoid hidden layer, squared loss, z = W^T h + b.

W is [in, out]; a general loss and a ReLU hidden layer are in ``s3``.
"""

import jax.numpy as jnp

from experiments.claims import s3
from jaxnn import losses
from jaxnn.verify import claim, positive, real


def sigmoid_layer(w1, b1, x):
    """H [N1] with phi = sigmoid."""
    return losses.sigmoid(w1.T @ x + b1)


def squared_loss_of_output(p, y):
    """l = 1/2 ||y - y-hat||^2."""
    return jnp.sum((y - p) ** 2) / 2


def squared_loss(w2, b2, h, y):
    """l = 1/2 ||y - y-hat||^2 as a function of the second layer and H."""
    return squared_loss_of_output(s3.output(w2, b2, h), y)


def network_loss(w1, b1, w2, b2, x, y):
    """l = 1/2 ||y - y-hat||^2 of the network with a sigmoid hidden layer."""
    return squared_loss(w2, b2, sigmoid_layer(w1, b1, x), y)


def by_output(w2, b2, h, y):
    """The gradient of l by y-hat."""
    return squared_loss_by_output(s3.output(w2, b2, h), y)


def by_hidden(w1, b1, w2, b2, x, y):
    """The gradient of l by H."""
    return hidden_of_squared_loss(w2, b2, sigmoid_layer(w1, b1, x), y)


def by_second_layer(w1, b1, w2, b2, x, y):
    """The gradients of l by W^2 and W^2_0."""
    return second_layer_of_squared_loss(w2, b2, sigmoid_layer(w1, b1, x), y)


SECOND = s3.SECOND | {"y": real("K")}
NETWORK = s3.FIRST | {"w2": real("N1", "K"), "b2": real("K"), "y": real("K")}


@claim(
    of=squared_loss_of_output,
    wrt="p",
    kind="gradient",
    inputs={"p": real("K"), "y": real("K")},
    source="S3.4",
    statement=r"\nabla \hat y = -(y - \hat y)",
    where={r"\hat y": "p"},
)
def squared_loss_by_output(p, y):
    """A single example, with independent y-hat_k."""
    return -(y - p)


@claim(
    of=squared_loss,
    wrt=("w2", "b2"),
    kind="gradient",
    inputs=SECOND,
    source="S3.4",
    statement=r"\nabla W^2 = \sum_k \frac{\partial \hat y[k]}{\partial W^2} \nabla \hat y[k],"
    r" \quad \nabla W^2_0 ="
    r" \sum_k \frac{\partial \hat y[k]}{\partial W^2_0} \nabla \hat y[k]",
    where=s3.SYMBOLS
    | {
        s3.BY_SECOND_WEIGHTS: s3.output_by_second_weights,
        s3.BY_SECOND_BIAS: s3.output_by_second_bias,
        r"\nabla \hat y": by_output,
    },
)
def second_layer_of_squared_loss(w2, b2, h, y):
    """W2 [in, out], the squared loss and H of any hidden layer."""
    g = squared_loss_by_output(s3.output(w2, b2, h), y)
    return s3.second_weights(w2, b2, h, g), s3.second_bias(w2, b2, h, g)


@claim(
    of=squared_loss,
    wrt="h",
    kind="gradient",
    inputs=SECOND,
    source="S3.4",
    statement=s3.HIDDEN_RULE + r", \quad \nabla \hat y = -(y - \hat y)",
    where={r"\hat y": s3.output},
)
def hidden_of_squared_loss(w2, b2, h, y):
    """W2 [in, out], and the squared loss."""
    return s3.hidden(w2, b2, h, squared_loss_by_output(s3.output(w2, b2, h), y))


@claim(
    of=network_loss,
    wrt=("w1", "b1"),
    kind="gradient",
    inputs=NETWORK,
    source="S3.4",
    statement=r"\nabla W^1_i = X H[i] (1 - H[i]) \nabla H[i], \quad"
    r" \nabla W^1_0[i] = H[i] (1 - H[i]) \nabla H[i]",
    where={"H": sigmoid_layer, r"\nabla H": by_hidden},
)
def first_layer_of_sigmoid_network(w1, b1, w2, b2, x, y):
    """W1_i is column i of W1 [in, out]; the rule of S3.3 with the sigmoid in the ReLU's place."""
    h = sigmoid_layer(w1, b1, x)
    delta = h * (1 - h) * hidden_of_squared_loss(w2, b2, h, y)
    return jnp.outer(x, delta), delta


@claim(
    of=network_loss,
    wrt=("w1", "b1", "w2", "b2"),
    kind="update",
    rate="r",
    inputs=NETWORK | {"r": positive()},
    source="S3.4",
    statement=r"W \leftarrow W - r \nabla W \quad \text{for } W^1, W^1_0, W^2, W^2_0",
)
def step_of_both_layers(w1, b1, w2, b2, x, y, r):
    """Case 1, W [in, out]: all four blocks, with gradients at the old values."""
    first = first_layer_of_sigmoid_network(w1, b1, w2, b2, x, y)
    second = second_layer_of_squared_loss(w2, b2, sigmoid_layer(w1, b1, x), y)
    return (
        w1 - r * first[0],
        b1 - r * first[1],
        w2 - r * second[0],
        b2 - r * second[1],
    )


@claim(
    of=network_loss,
    wrt=("w2", "b2"),
    kind="update",
    rate="r",
    inputs=NETWORK | {"r": positive()},
    source="S3.4",
    statement=r"W^2 \leftarrow W^2 - r \nabla W^2, \quad"
    r" W^2_0 \leftarrow W^2_0 - r \nabla W^2_0",
    where=s3.SYMBOLS
    | {
        r"\nabla W^2": lambda w1, b1, w2, b2, x, y: by_second_layer(w1, b1, w2, b2, x, y)[0],
        r"\nabla W^2_0": lambda w1, b1, w2, b2, x, y: by_second_layer(w1, b1, w2, b2, x, y)[1],
    },
)
def step_of_second_layer(w1, b1, w2, b2, x, y, r):
    """Case 2, W [in, out]: the first layer stays unchanged."""
    by_w2, by_b2 = second_layer_of_squared_loss(w2, b2, sigmoid_layer(w1, b1, x), y)
    return w2 - r * by_w2, b2 - r * by_b2
