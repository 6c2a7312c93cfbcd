"""S2, CS/DS 541 homework 3: an example per row, the weights of a class in a column.

z_k = x^T w^(k) + b_k with W = [w^(1) ... w^(c)] of m x c. The affine maps of S2.5 have a file of
their own, ``s2_affine``: there z = Wx + b.
"""

import jax.numpy as jnp

from jaxnn import closed_form, losses
from jaxnn.types import Layer
from jaxnn.verify import claim, one_hot, positive, real


def predicted(w, b, x):
    """y-hat = softmax(x W + b), of one example x [m] or of the rows of x [n, m]."""
    return losses.softmax(x @ w + b)


def predicted_split(w, b, x, others):
    """y-hat with a separate name w for a column of W; the class of w comes last."""
    return losses.softmax(jnp.append(others, x @ w + b))


def of_the_class(w, b, x, others):
    """The probability y-hat_l of the class that the column w^(l) belongs to."""
    return predicted_split(w, b, x, others)[-1]


def of_the_others(w, b, x, others):
    """The probabilities y-hat_k, k != l, of the other classes."""
    return predicted_split(w, b, x, others)[:-1]


def log_likelihood(w, b, x, y):
    """The sum_i sum_k y_k log y-hat_k over the examples i and classes k."""
    return jnp.sum(y * losses.log_softmax(x @ w + b))


def cross_entropy(w, b, x, y):
    """f_CE = -1/n sum_i sum_k y_k log y-hat_k."""
    return -log_likelihood(w, b, x, y) / len(x)


ONE = {"w": real("m", "c"), "b": real("c"), "x": real("m")}
SPLIT = {"w": real("m"), "b": real(), "x": real("m"), "others": real("rest")}
ROWS = {"w": real("m", "c"), "b": real("c"), "x": real("n", "m"), "y": one_hot("n", "c")}


@claim(
    of=of_the_class,
    wrt="w",
    kind="gradient",
    inputs=SPLIT,
    source="S2.1",
    statement=r"\nabla_{w^{(l)}} \hat y_l = x\, \hat y_l (1 - \hat y_l)",
    where={"w^{(l)}": "w", r"\hat y_l": of_the_class},
)
def probability_by_its_own_weights(w, b, x, others):
    """The case l = k, of one example x and the column w^(l)."""
    y_l = of_the_class(w, b, x, others)
    return x * y_l * (1 - y_l)


@claim(
    of=of_the_others,
    wrt="w",
    kind="jacobian",
    inputs=SPLIT,
    source="S2.1",
    statement=r"\nabla_{w^{(l)}} \hat y_k = -x\, \hat y_k \hat y_l, \quad l \ne k",
    where={"w^{(l)}": "w", r"\hat y_l": of_the_class, r"\hat y": of_the_others},
)
def probability_by_other_weights(w, b, x, others):
    """The case l != k, of one example x and the column w^(l); a row per k."""
    y_k, y_l = of_the_others(w, b, x, others), of_the_class(w, b, x, others)
    return -jnp.outer(y_k * y_l, x)


@claim(
    of=predicted,
    wrt="w",
    kind="jacobian",
    inputs=ONE,
    source="S2.1",
    statement=r"\nabla_{w^{(l)}} \hat y_k = \begin{cases} x\, \hat y_l (1 - \hat y_l) & l = k \\"
    r" -x\, \hat y_k \hat y_l & l \ne k \end{cases}",
    where={r"\hat y": predicted},
)
def probabilities_by_weights(w, b, x):
    """Both cases at once: entry [k, :, l] is the gradient of y-hat_k by the column w^(l)."""
    p = predicted(w, b, x)
    factor = jnp.where(jnp.eye(len(p), dtype=bool), p * (1 - p), -jnp.outer(p, p))
    return jnp.einsum("kl,m->kml", factor, x)


@claim(
    of=cross_entropy,
    wrt="w",
    kind="gradient",
    inputs=ROWS,
    source="S2.2",
    statement=r"\nabla_{w^{(l)}} f_{CE} ="
    r" -\frac{1}{n} \sum_{i=1}^{n} x^{(i)} \left( y_l^{(i)} - \hat y_l^{(i)} \right)",
    where={r"\hat y": predicted},
)
def cross_entropy_by_weights(w, b, x, y):
    """An example per row, the gradient by w^(l) in column l."""
    return -x.T @ (y - predicted(w, b, x)) / len(x)


@claim(
    of=cross_entropy,
    wrt="b",
    kind="gradient",
    inputs=ROWS,
    source="S2.2",
    statement=r"\nabla_b f_{CE} ="
    r" -\frac{1}{n} \sum_{i=1}^{n} \left( y^{(i)} - \hat y^{(i)} \right)",
    where={r"\hat y": predicted},
)
def cross_entropy_by_bias(w, b, x, y):
    """An example per row."""
    return -jnp.sum(y - predicted(w, b, x), axis=0) / len(x)


@claim(
    of=cross_entropy,
    wrt="w",
    kind="gradient",
    inputs=ROWS,
    source="S2.2",
    statement=r"\nabla_{w^{(l)}} f_{CE} ="
    r" -\sum_{i=1}^{m} x^{(i)} \left[ y_l^{(i)} - \hat y_l^{(i)} \right]",
    where={r"\hat y": predicted, "m": "n"},
)
def cross_entropy_by_weights_last_line(w, b, x, y):
    """The derivation's last line, an example per row, read as a sum over the n examples."""
    return -x.T @ (y - predicted(w, b, x))


@claim(
    of=cross_entropy,
    wrt="w",
    kind="gradient",
    inputs=ROWS,
    source="S2.2",
    statement=r"\nabla_{w^{(l)}} f_{CE} ="
    r" -\frac{1}{n} \sum_{i=1}^{n} x^{(i)} \left[ y_l^{(i)} - \hat y_l^{(i)} \right]",
    corrects=cross_entropy_by_weights_last_line,
    where={r"\hat y": predicted},
)
def cross_entropy_by_weights_last_line_corrected(w, b, x, y):
    """An example per row, the gradient by w^(l) in column l: the sum is a mean."""
    return closed_form.softmax_regression_gradients(Layer(w.T, b), x, y).weight.T


def likelihood_logarithm(w, b, x, y):
    """NLL = -log prod_i prod_k y-hat_k^(y_k)."""
    return -jnp.log(jnp.prod(predicted(w, b, x) ** y))


def negative_log_likelihood(w, b, x, y):
    """-sum_i sum_k y_k log y-hat_k."""
    return -log_likelihood(w, b, x, y)


@claim(
    of=likelihood_logarithm,
    kind="value",
    inputs=ROWS,
    source="S2.3",
    statement=r"-\log \prod_i \prod_k \left( \hat y_k^{(i)} \right)^{y_k^{(i)}} ="
    r" -\sum_i \sum_k y_k^{(i)} \log \hat y_k^{(i)}",
    where={r"\hat y": predicted},
)
def likelihood_as_sum(w, b, x, y):
    """The first equality, an example per row."""
    return negative_log_likelihood(w, b, x, y)


@claim(
    of=negative_log_likelihood,
    kind="value",
    inputs=ROWS,
    source="S2.3",
    statement=r"-\sum_i \sum_k y_k^{(i)} \log \hat y_k^{(i)} = f_{CE}",
    where={r"\hat y": predicted, "f_{CE}": cross_entropy},
)
def likelihood_as_cross_entropy(w, b, x, y):
    """The second equality, an example per row, with S2.2's f_CE, which is a mean."""
    return cross_entropy(w, b, x, y)


@claim(
    of=negative_log_likelihood,
    kind="value",
    inputs=ROWS,
    source="S2.3",
    statement=r"-\sum_i \sum_k y_k^{(i)} \log \hat y_k^{(i)} = n f_{CE}",
    corrects=likelihood_as_cross_entropy,
    where={r"\hat y": predicted, "f_{CE}": cross_entropy},
)
def likelihood_as_cross_entropy_corrected(w, b, x, y):
    """An example per row; the likelihood is of all n examples, the cross-entropy of one."""
    return len(x) * cross_entropy(w, b, x, y)


def penalty(w, alpha):
    """alpha/2 sum_k w^(k)^T w^(k): the weights but not the biases."""
    return alpha / 2 * jnp.sum(w**2)


def column_cross_entropy(w, b, x, y):
    """f_CE with an example per COLUMN of x [m, n], as S2.4's code has them."""
    return cross_entropy(w, b, x.T, y)


def objective(w, b, x, y, alpha):
    """f_CE + alpha/2 sum_k w^(k)^T w^(k)."""
    return column_cross_entropy(w, b, x, y) + penalty(w, alpha)


def shiftless_softmax(z):
    """S2.4's code: exp(z) / sum exp(z), of every row."""
    return jnp.exp(z) / jnp.sum(jnp.exp(z), axis=-1, keepdims=True)


def predicted_columns(w, b, x):
    """The Y-hat of S2.4's code, of an example per column of x."""
    return shiftless_softmax(x.T @ w + b)


def rows_softmax(z):
    """y-hat of every row of z."""
    return losses.softmax(z)


TERMS = {"cross_entropy": column_cross_entropy, "penalty": penalty}
COLUMNS = ROWS | {"x": real("m", "n"), "alpha": positive()}


@claim(
    of=rows_softmax,
    kind="value",
    inputs={"z": real("n", "c")},
    source="S2.4",
    statement=r"\hat y_k = \frac{\exp z_k}{\sum_{k'} \exp z_{k'}}",
    where={"k": "c", "k'": "c"},
)
def softmax_code(z):
    """The printed code, without a shift, an example per row."""
    return shiftless_softmax(z)


@claim(
    of=column_cross_entropy,
    kind="value",
    inputs=COLUMNS,
    source="S2.4",
    statement=r"\mathrm{fCE}(W, X, Y, \alpha) = -\frac{1}{n} \sum Y \log \hat Y",
    where={r"\hat Y": predicted_columns},
)
def cross_entropy_code(w, b, x, y):
    """The printed code, an example per column of X and row of Y: alpha is taken, not used."""
    return -jnp.sum(y * jnp.log(shiftless_softmax(x.T @ w + b))) / len(y)


@claim(
    of=penalty,
    wrt="w",
    kind="gradient",
    inputs={"w": real("m", "c"), "alpha": positive()},
    source="S2.4",
    statement=r"\nabla_W \frac{\alpha}{2} \sum_k w^{(k)\top} w^{(k)} = \alpha W",
)
def penalty_by_weights(w, alpha):
    """The weights of a class in a column."""
    return alpha * w


@claim(
    of=objective,
    wrt=("w", "b"),
    kind="gradient",
    terms=TERMS,
    inputs=COLUMNS,
    source="S2.4",
    statement=r"\mathrm{gradK} = \left( \frac{1}{n} X (\hat Y - Y) + \alpha W,\;"
    r" \frac{1}{n} \sum_i (\hat Y - Y)_i \right)",
    where={r"\hat Y": predicted_columns, "i": "n"},
)
def gradient_code(w, b, x, y, alpha):
    """The printed code, softmax without a shift, an example per column of X and row of Y."""
    error = shiftless_softmax(x.T @ w + b) - y
    return x @ error / len(y) + alpha * w, jnp.sum(error, axis=0) / len(y)
