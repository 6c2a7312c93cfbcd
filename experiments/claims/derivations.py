"""The sources' worked derivations, line by line, as printed; the first lines spell out the rule.

``jaxnn verify experiments/claims/derivations.py`` names the first line that does not follow. A
derivation without a wrong line in the source has none here.
"""

import jax
import jax.numpy as jnp

from experiments.claims import s1, s2, s4, s5
from jaxnn import losses
from jaxnn.verify import derivation, positive, real, simplex

softmax, sigmoid = losses.softmax, losses.sigmoid


def off_diagonal(matrix):
    """The matrix with zeros in the diagonal."""
    return matrix * (1 - jnp.eye(len(matrix)))


# S1.2: dJ/dz = p - y, by way of dJ/dp and -y_i + p_i sum_j y_j

loss_by_logits = derivation(
    of=s1.cross_entropy, wrt="z", kind="gradient", inputs=s1.VECTORS, source="S1.2"
)


@loss_by_logits.line(
    r"\frac{\partial J}{\partial z_i} = \sum_j \frac{\partial J}{\partial p_j}"
    r" \frac{\partial p_j}{\partial z_i} = \sum_j -\frac{y_j}{p_j} \, p_j (\delta_{ij} - p_i)"
)
def chain_rule(z, y):
    """The rule of the chain through all p_j."""
    p = softmax(z)
    return -(y / p) @ (jnp.diag(p) - jnp.outer(p, p))


@loss_by_logits.line(r"-y_i + p_i \sum_j y_j")
def sum_taken_out(z, y):
    """p_i does not depend on j."""
    return -y + softmax(z) * jnp.sum(y)


@loss_by_logits.line(r"p_i - y_i")
def probabilities_sum_to_one(z, y):
    """y is a probability vector."""
    return softmax(z) - y


# S2.1: the gradient of y-hat_k by the column w^(l) of W [m, c]; entry [k, j, l] is by w_j^(l)

probability_by_column = derivation(
    of=s2.predicted,
    wrt="w",
    kind="jacobian",
    inputs=s2.ONE,
    source="S2.1",
    cases={r"l = k": lambda k, j, l: l == k, r"l \ne k": lambda k, j, l: l != k},  # noqa: E741
)


def exponentials(w, b, x):
    """e^{z_k} of every class, and their sum."""
    e = jnp.exp(x @ w + b)
    return e, jnp.sum(e)


@probability_by_column.line(
    r"\frac{x e^{z_l} \sum_{k'} e^{z_{k'}} - e^{z_l} x e^{z_l}}{(\sum_{k'} e^{z_{k'}})^2}",
    case="l = k",
)
def quotient_rule(w, b, x):
    """[m, c], for every k."""
    e, total = exponentials(w, b, x)
    return jnp.outer(x, (e * total - e * e) / total**2)


@probability_by_column.line(r"x \hat y_l - x \hat y_l^2", case="l = k")
def quotient_split(w, b, x):
    """[m, c], for every k."""
    p = s2.predicted(w, b, x)
    return jnp.outer(x, p) - jnp.outer(x, p**2)


@probability_by_column.line(r"x \hat y_l (1 - \hat y_l)", case="l = k")
def own_column(w, b, x):
    """[m, c], for every k."""
    p = s2.predicted(w, b, x)
    return jnp.outer(x, p * (1 - p))


@probability_by_column.line(
    r"\frac{0 \cdot \sum_{k'} e^{z_{k'}} - e^{z_k} x e^{z_l}}{(\sum_{k'} e^{z_{k'}})^2}",
    case=r"l \ne k",
)
def quotient_rule_of_others(w, b, x):
    """[c, m, c]."""
    e, total = exponentials(w, b, x)
    return (0 * total - jnp.einsum("k,j,l->kjl", e, x, e)) / total**2


@probability_by_column.line(r"-x \hat y_k \hat y_l", case=r"l \ne k")
def other_column(w, b, x):
    """[c, m, c]."""
    p = s2.predicted(w, b, x)
    return -jnp.einsum("k,j,l->kjl", p, x, p)


# S2.2: the gradient of f_CE by the columns of W, and by b, an example per row

cross_entropy_by_weights = derivation(
    of=s2.cross_entropy, wrt="w", kind="gradient", inputs=s2.ROWS, source="S2.2"
)


@cross_entropy_by_weights.line(
    r"-\frac{1}{n} \sum_{i=1}^{n} \sum_{k=1}^{c} y_k^{(i)} \nabla_{w^{(l)}} \log \hat y_k^{(i)}"
)
def gradient_inside(w, b, x, y):
    """The gradients of the logarithms by JAX."""
    slopes = jax.jacobian(lambda w: losses.log_softmax(x @ w + b))(w)
    return -jnp.einsum("ik,ikjl->jl", y, slopes) / len(x)


@cross_entropy_by_weights.line(
    r"-\frac{1}{n} \sum_i \sum_k y_k^{(i)}"
    r" \frac{\nabla_{w^{(l)}} \hat y_k^{(i)}}{\hat y_k^{(i)}}"
)
def logarithms_differentiated(w, b, x, y):
    """By the derivative of the logarithm."""
    p = s2.predicted(w, b, x)
    slopes = jax.jacobian(s2.predicted)(w, b, x)
    return -jnp.einsum("ik,ikjl->jl", y / p, slopes) / len(x)


@cross_entropy_by_weights.line(
    r"-\frac{1}{n} \sum_i \left[ y_l^{(i)} \frac{x^{(i)} \hat y_l^{(i)} (1 - \hat y_l^{(i)})}"
    r"{\hat y_l^{(i)}} - \sum_{k \ne l} y_k^{(i)}"
    r" \frac{x^{(i)} \hat y_k^{(i)} \hat y_l^{(i)}}{\hat y_k^{(i)}} \right]"
)
def cases_inserted(w, b, x, y):
    """By the two cases of S2.1."""
    p = s2.predicted(w, b, x)
    ratios = jnp.einsum("ik,ik,il->ikl", y / p, p, p)
    others = jnp.sum(jax.vmap(off_diagonal)(ratios), axis=1)
    return -x.T @ (y * p * (1 - p) / p - others) / len(x)


@cross_entropy_by_weights.line(
    r"-\frac{1}{n} \sum_i x^{(i)} \left[ y_l^{(i)} (1 - \hat y_l^{(i)})"
    r" - \hat y_l^{(i)} \sum_{k \ne l} y_k^{(i)} \right]"
)
def cancelled(w, b, x, y):
    """The probabilities cancel."""
    p = s2.predicted(w, b, x)
    return -x.T @ (y * (1 - p) - p * (jnp.sum(y, axis=1, keepdims=True) - y)) / len(x)


@cross_entropy_by_weights.line(
    r"-\frac{1}{n} \sum_i x^{(i)} \left[ y_l^{(i)} - \hat y_l^{(i)} \sum_k y_k^{(i)} \right]"
)
def joined(w, b, x, y):
    """The two sums are one."""
    return -x.T @ (y - s2.predicted(w, b, x) * jnp.sum(y, axis=1, keepdims=True)) / len(x)


@cross_entropy_by_weights.line(r"-\sum_{i=1}^{m} x^{(i)} \left[ y_l^{(i)} - \hat y_l^{(i)} \right]")
def last_line(w, b, x, y):
    """As printed, read as a sum over the n examples."""
    return -x.T @ (y - s2.predicted(w, b, x))


cross_entropy_by_bias = derivation(
    of=s2.cross_entropy, wrt="b", kind="gradient", inputs=s2.ROWS, source="S2.2"
)


@cross_entropy_by_bias.line(
    r"-\frac{1}{n} \sum_i \sum_k y_k^{(i)} \nabla_b \log \hat y_k^{(i)}",
)
def bias_inside(w, b, x, y):
    """The gradients of the logarithms by JAX."""
    slopes = jax.jacobian(lambda b: losses.log_softmax(x @ w + b))(b)
    return -jnp.einsum("ik,ikl->l", y, slopes) / len(x)


@cross_entropy_by_bias.line(r"-\frac{1}{n} \sum_i (y^{(i)} - \hat y^{(i)})")
def bias_residuals(w, b, x, y):
    """The derivative of z by b is 1 where that by w^(l) is x."""
    return -jnp.sum(y - s2.predicted(w, b, x), axis=0) / len(x)


# S2.3: the negative log-likelihood is f_CE

likelihood = derivation(of=s2.likelihood_logarithm, kind="value", inputs=s2.ROWS, source="S2.3")
likelihood.line(
    r"-\log \prod_i \prod_k (\hat y_k^{(i)})^{y_k^{(i)}}",
    lambda w, b, x, y: -jnp.log(jnp.prod(s2.predicted(w, b, x) ** y)),
)
likelihood.line(
    r"-\sum_i \sum_k y_k^{(i)} \log \hat y_k^{(i)}",
    lambda w, b, x, y: -jnp.sum(y * losses.log_softmax(x @ w + b)),
)
likelihood.line(
    r"-\frac{1}{n} \sum_i \sum_k y_k^{(i)} \log \hat y_k^{(i)} = f_{CE}",
    lambda w, b, x, y: -jnp.sum(y * losses.log_softmax(x @ w + b)) / len(x),
)


# S4.3: the Jacobian of the softmax S by theta, and the cross-entropy; x is theta

softmax_by_scores = derivation(
    of=s4.softmax,
    wrt="x",
    kind="jacobian",
    inputs={"x": real("D")},
    source="S4.3",
    cases={r"i = j": lambda i, j: i == j, r"i \ne j": lambda i, j: i != j},
)
softmax_by_scores.line(
    r"\frac{e^{\theta_i} \sum_k e^{\theta_k} - e^{\theta_i} e^{\theta_i}}"
    r"{(\sum_k e^{\theta_k})^2}",
    lambda x: (jnp.exp(x) * jnp.sum(jnp.exp(x)) - jnp.exp(x) ** 2) / jnp.sum(jnp.exp(x)) ** 2,
    case="i = j",
)
softmax_by_scores.line(r"S_i (1 - S_i)", lambda x: softmax(x) * (1 - softmax(x)), case="i = j")
softmax_by_scores.line(
    r"\frac{0 - e^{\theta_i} e^{\theta_j}}{(\sum_k e^{\theta_k})^2}",
    lambda x: -jnp.outer(jnp.exp(x), jnp.exp(x)) / jnp.sum(jnp.exp(x)) ** 2,
    case=r"i \ne j",
)
softmax_by_scores.line(
    r"-S_i \times S_i", lambda x: -(softmax(x) * softmax(x))[:, None], case=r"i \ne j"
)

cross_entropy_by_scores = derivation(
    of=s4.cross_entropy,
    wrt="theta",
    kind="gradient",
    inputs={"theta": real("D"), "y": simplex("D")},
    source="S4.3",
)


def by_cases(scores, y):
    """-y_i (1 - S_i) + sum_{k != i} y_k S_i."""
    s = softmax(scores)
    return -y * (1 - s) + s * (jnp.sum(y) - y)


cross_entropy_by_scores.line(
    r"-\sum_k y_k \frac{1}{S_k} \frac{\partial S_k}{\partial \theta_i}",
    lambda theta, y: -(y / softmax(theta)) @ jax.jacobian(softmax)(theta),
)
cross_entropy_by_scores.line(
    r"-y_i (1 - S_i) + \sum_{k \ne i} y_k S_i", lambda theta, y: by_cases(theta, y)
)
cross_entropy_by_scores.line(
    r"S_i \sum_k y_k - y_i", lambda theta, y: softmax(theta) * jnp.sum(y) - y
)
cross_entropy_by_scores.line(r"S_i - y_i", lambda theta, y: softmax(theta) - y)


# S4.4: the gradient of a network's loss by the input, examples in rows

loss_by_input = derivation(
    of=s4.network_loss, wrt="x", kind="gradient", inputs=s4.NETWORK, source="S4.4"
)


def hidden(x, w1, b1):
    """sigma(f_2) with f_2 = x W_1 + b_1."""
    return sigmoid(x @ w1 + b1)


def delta_3(x, w1, b1, w2, b2, y):
    """y-hat - y."""
    return softmax(hidden(x, w1, b1) @ w2 + b2) - y


@loss_by_input.line(
    r"\frac{\partial J}{\partial f_3} \frac{\partial f_3}{\partial h}"
    r" \frac{\partial h}{\partial f_2} \frac{\partial f_2}{\partial x}, \quad"
    r" \frac{\partial J}{\partial f_3} = \delta_3 = \hat y - y"
)
def by_jacobians(x, w1, b1, w2, b2, y):
    """Every factor a Jacobian of one example, the example i in the first axis."""
    slopes = jax.vmap(jnp.diag)(hidden(x, w1, b1) * (1 - hidden(x, w1, b1)))
    return jnp.einsum("ik,hk,ihg,jg->ij", delta_3(x, w1, b1, w2, b2, y), w2, slopes, w1)


@loss_by_input.line(
    r"\delta_2 \frac{\partial f_2}{\partial x}, \quad"
    r" \delta_2 = W_2 \delta_3 \circ \sigma'(f_2)"
)
def by_delta_2(x, w1, b1, w2, b2, y):
    """W_2 delta_3 with a column delta_3 per example."""
    h = hidden(x, w1, b1)
    delta_2 = (w2 @ delta_3(x, w1, b1, w2, b2, y).T).T * h * (1 - h)
    return jnp.einsum("ig,jg->ij", delta_2, w1)


@loss_by_input.line(r"\delta_2 W_1")
def product_printed(x, w1, b1, w2, b2, y):
    """W_1 [D_x, H] as printed, in rows."""
    h = hidden(x, w1, b1)
    return (delta_3(x, w1, b1, w2, b2, y) @ w2.T * h * (1 - h)) @ w1


# S5.2: J = sum_i log softmax(z)_i by z, and by the weights and the offset of z = Wx + c

log_softmax_sum_by_logits = derivation(
    of=s5.log_softmax_sum, wrt="z", kind="gradient", inputs={"z": real("N")}, source="S5.2"
)
log_softmax_sum_by_logits.line(
    r"\sum_i \left( \delta_{ik} - \frac{e^{z_k}}{\sum_j e^{z_j}} \right)",
    lambda z: jnp.sum(jnp.eye(len(z)) - (jnp.exp(z) / jnp.sum(jnp.exp(z)))[None], axis=0),
)
log_softmax_sum_by_logits.line(
    r"-1 + N \operatorname{softmax}(z)", lambda z: -1 + len(z) * softmax(z)
)

log_softmax_sum_by_layer = derivation(
    of=s5.log_softmax_sum_of_layer,
    wrt=("w", "c"),
    kind="gradient",
    inputs=s5.LAYER,
    source="S5.2",
)


@log_softmax_sum_by_layer.line(
    r"\frac{\partial J}{\partial z} \frac{\partial z}{\partial W}, \quad"
    r" \frac{\partial J}{\partial z} \frac{\partial z}{\partial c}"
)
def through_z(w, c, x):
    """The gradient by z by JAX; z_i depends on row i of W alone."""
    slope = jax.grad(s5.log_softmax_sum)(w @ x + c)
    return jnp.outer(slope, x), slope


@log_softmax_sum_by_layer.line(
    r"(-1 + N \operatorname{softmax}(z)) x, \quad -1 + N \operatorname{softmax}(z)"
)
def layer_printed(w, c, x):
    """The product with x is the outer product."""
    slope = -1 + len(c) * softmax(w @ x + c)
    return jnp.outer(slope, x), slope


# S5.3: logistic regression with L2, the gradient and the step of descent

logistic_gradient = derivation(
    of=s5.objective, wrt="theta", kind="gradient", inputs=s5.ROWS, source="S5.3", terms=s5.TERMS
)


@logistic_gradient.line(
    r"\frac{1}{N} \sum_i \left[ -\frac{y_i}{h_i} + \frac{1 - y_i}{1 - h_i} \right]"
    r" h_i (1 - h_i) x_{ij} + \frac{\partial R}{\partial \theta_j}"
)
def logistic_chain_rule(theta, x, y, lam):
    """The derivative of the sigmoid is h (1 - h)."""
    h = sigmoid(x @ theta)
    return ((-y / h + (1 - y) / (1 - h)) * h * (1 - h)) @ x / len(x) + lam * theta


@logistic_gradient.line(
    r"\frac{1}{N} \sum_i \left[ -y_i (1 - h_i) + (1 - y_i) h_i \right] x_{ij} + \lambda \theta_j"
)
def logistic_cancelled(theta, x, y, lam):
    """h and 1 - h cancel."""
    h = sigmoid(x @ theta)
    return (-y * (1 - h) + (1 - y) * h) @ x / len(x) + lam * theta


@logistic_gradient.line(r"-\frac{1}{N} \sum_i (y_i - h_i) x_{ij} + \lambda \theta_j")
def logistic_residuals(theta, x, y, lam):
    """The products y h cancel."""
    return -(y - sigmoid(x @ theta)) @ x / len(x) + lam * theta


logistic_step = derivation(
    of=s5.objective,
    wrt="theta",
    kind="update",
    rate="alpha",
    inputs=s5.ROWS | {"alpha": positive()},
    source="S5.3",
    terms=s5.TERMS,
)


@logistic_step.line(
    r"\theta_j - \alpha \left[ \frac{1}{N} \sum_i (h_i - y_i) x_{ij} + \lambda \theta_j \right]"
)
def step(theta, x, y, lam, alpha):
    """The gradient inserted."""
    return theta - alpha * ((sigmoid(x @ theta) - y) @ x / len(x) + lam * theta)


@logistic_step.line(
    r"\theta_j \left( 1 - \frac{\lambda}{N} \right) - \alpha \sum_i (h_i - y_i) x_{ij}"
)
def constants_combined(theta, x, y, lam, alpha):
    """As printed: the constants can be combined."""
    return theta * (1 - lam / len(x)) - alpha * (sigmoid(x @ theta) - y) @ x


# S5.4 and S5.5: the cross-entropy by z, and by the weights and the offset of z = W^T h + b

cross_entropy_by_logits = derivation(
    of=s5.cross_entropy,
    wrt="z",
    kind="gradient",
    inputs={"z": real("K"), "y": simplex("K")},
    source="S5.4",
)
cross_entropy_by_logits.line(
    r"-\sum_k y_k \frac{1}{\tilde y_k} \frac{\partial \tilde y_k}{\partial z_i}",
    lambda z, y: -(y / softmax(z)) @ jax.jacobian(softmax)(z),
)
cross_entropy_by_logits.line(
    r"-y_i (1 - \tilde y_i) + \sum_{k \ne i} y_k \tilde y_i", lambda z, y: by_cases(z, y)
)
cross_entropy_by_logits.line(
    r"-y_i + \tilde y_i \sum_k y_k", lambda z, y: -y + softmax(z) * jnp.sum(y)
)
cross_entropy_by_logits.line(r"-y + \tilde y", lambda z, y: -y + softmax(z))

output_layer = derivation(
    of=s5.cross_entropy_of_layer,
    wrt=("w", "b"),
    kind="gradient",
    inputs=s5.OUTPUT_LAYER,
    source="S5.5",
)


@output_layer.line(
    r"\frac{\partial J}{\partial z} \frac{\partial z}{\partial W}, \quad"
    r" \frac{\partial J}{\partial z} \frac{\partial z}{\partial b}"
)
def through_logits(w, b, h, y):
    """By Jacobians: z_k depends on column k of W alone, as h."""
    slope = jax.grad(s5.cross_entropy)(w.T @ h + b, y)
    by_weights = jax.jacobian(lambda w: w.T @ h + b)(w)
    return jnp.einsum("k,kjl->jl", slope, by_weights), slope


@output_layer.line(r"(-y + \tilde y) h, \quad -y + \tilde y")
def output_printed(w, b, h, y):
    """The outer product as printed: [out, in], where W is [in, out]."""
    slope = -y + softmax(w.T @ h + b)
    return jnp.outer(slope, h), slope
