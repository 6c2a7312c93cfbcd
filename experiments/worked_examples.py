"""The sources' worked examples (S1.2b, S1.3, S2.5, S3.4): is every printed number right?

Each example is computed in float64 by the library's functions, and every intermediate value is
compared with the source's printed number to the printed digits. Matrices are shown in the layout
of the source.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from experiments import harness
from experiments.config import Config
from jaxnn import Layer, apply, closed_form, cross_entropy, softmax, squared_error

ROUNDING_ERROR = 1e-12  # of float64 in the examples, with a wide margin


class Comparison(NamedTuple):
    """A number, vector or matrix of a source beside the library's value."""

    example: str
    quantity: str
    printed: str  # the source's text
    measured: np.ndarray
    agrees: bool  # shape and every number, to the printed digits
    misprint: str = ""  # the mistake in the source, if known

    @property
    def as_expected(self) -> bool:
        """Whether a correct print agrees and a known misprint disagrees."""
        return self.agrees != bool(self.misprint)

    @property
    def verdict(self) -> str:
        """The last cell of the table's row."""
        if not self.as_expected:
            return "AGREES, but was thought a misprint" if self.misprint else "DISAGREES"
        return f"misprint: {self.misprint}" if self.misprint else "agrees"


def compare(
    example: str,
    quantity: str,
    printed: str,
    measured: ArrayLike,
    *,
    exact: bool = False,
    misprint: str = "",
) -> Comparison:
    """Compares to half a unit of the last decimal that the source prints of a quantity.

    Args:
      example: the source's section.
      quantity: the source's name of the quantity.
      printed: a number or nested list; "1.04376…" is truncated rather than rounded.
      measured: the library's value.
      exact: whether the printed numbers are exact; integers are always taken as exact.
      misprint: the mistake in the source, if known.

    Returns:
      The comparison.
    """
    value = np.asarray(measured)
    expected = np.asarray(ast.literal_eval(printed.replace("…", "")), float)
    decimals = max(len(digits) for digits in re.findall(r"\d\.?(\d*)", printed))
    tolerance = ROUNDING_ERROR if exact or not decimals else 0.5 * 10.0**-decimals
    if "…" in printed:  # anything from the print to one unit more
        expected = expected + np.copysign(tolerance, expected)
    agrees = value.shape == expected.shape and bool(np.all(np.abs(value - expected) <= tolerance))
    return Comparison(example, quantity, printed, value, agrees, misprint)


class crossEntropyLogit:  # noqa: N801 (the name S1.2b asks for)
    """S1.2b's interface to the cross-entropy: an example per COLUMN, and the mean over columns.

    For compatibility with the course. The library has ``jaxnn.cross_entropy`` and
    ``jaxnn.closed_form.cross_entropy_gradient``, both of a single example.
    """

    def doForward(self, z: ArrayLike, y: ArrayLike) -> float:  # noqa: N802
        """J, the mean cross-entropy of the logits z [C, B] against the probabilities y [C, B].

        Raises:
          ValueError: z and y are not matrices of the same shape.
        """
        z, y = _same_shape(z, y)
        self.z = z
        with jax.enable_x64(True):
            return float(jnp.mean(_columns(cross_entropy)(z, y)))

    def doBackward(self, y: ArrayLike) -> np.ndarray:  # noqa: N802
        """dJ/dz [C, B] at the z of the last ``doForward``.

        Raises:
          ValueError: ``doForward`` was never called, or z and y differ in shape.
        """
        if not hasattr(self, "z"):
            raise ValueError("doBackward needs the z of a doForward, which has not been called")
        z, y = _same_shape(self.z, y)
        with jax.enable_x64(True):
            gradient = _columns(closed_form.cross_entropy_gradient)(z, y)
            return np.asarray(gradient / z.shape[1])


def _same_shape(z: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    z, y = np.array(z, float), np.array(y, float)
    if z.ndim != 2 or y.shape != z.shape:
        raise ValueError(
            "z and y are matrices of the same shape, one example per column, got "
            f"{z.shape} and {y.shape}"
        )
    return z, y


def _columns(function: Callable) -> Callable:
    """A function of one example as a function of matrices with an example per column."""
    return jax.vmap(function, in_axes=1, out_axes=-1)


def cross_entropy_code() -> list[Comparison]:
    """S1.2b: the golden run of ``crossEntropyLogit``."""
    row = partial(compare, "S1.2b")
    z, y = np.random.RandomState(1).rand(3, 2), np.eye(3)[:, :2]
    code = crossEntropyLogit()
    shifted = row("J of z + 1000", "1.04376…", code.doForward(z + 1000, y))
    dz = "[[-0.29358105, 0.22809874], [0.13604698, -0.34982719], [0.15753407, 0.12172845]]"
    return [row("J", "1.04376…", code.doForward(z, y)), shifted, row("dz", dz, code.doBackward(y))]


TWO_ITERATIONS = (
    {
        "Z": "[[0, 0], [0, 0]]",
        "p": "[[0.5, 0.5], [0.5, 0.5]]",
        "dZ": "[[-0.25, 0.25], [0.25, -0.25]]",
        "dW": "[[-0.25, 0.25], [0.25, -0.25]]",
        "db": "[0, 0]",
        "W": "[[0.25, -0.25], [-0.25, 0.25]]",
        "b": "[0, 0]",
    },
    {
        "Z": "[[0.25, -0.25], [-0.25, 0.25]]",
        "p": "[[0.6225, 0.3775], [0.3775, 0.6225]]",
        "dZ": "[[-0.18877033, 0.18877033], [0.18877033, -0.18877033]]",
        "dW": "[[-0.18877033, 0.18877033], [0.18877033, -0.18877033]]",
        "db": "[0, 0]",
        "W": "[[0.43877033, -0.43877033], [-0.43877033, 0.43877033]]",
        "b": "[0, 0]",
    },
)


def two_iterations() -> list[Comparison]:
    """S1.3: one layer from W = 0, b = 0, X = Y = I, two steps of gradient descent, rate 1."""
    x = y = jnp.eye(2)  # an example per column
    layer = Layer(jnp.zeros((2, 2)), jnp.zeros(2))
    rows = []
    for iteration, printed in enumerate(TWO_ITERATIONS, start=1):
        z = _columns(partial(apply, (layer,)))(x)
        dz = _columns(closed_form.cross_entropy_gradient)(z, y) / 2
        gradient = closed_form.softmax_regression_gradients(layer, x.T, y.T)
        layer = jax.tree.map(jnp.subtract, layer, gradient)
        measured = (z, softmax(z, axis=0), dz, *gradient, *layer)
        rows += [
            # The numbers of the first iteration are binary fractions.
            compare("S1.3", f"iteration {iteration}: {quantity}", text, value, exact=iteration == 1)
            for (quantity, text), value in zip(printed.items(), measured, strict=True)
        ]
    return rows


def affine_maps() -> list[Comparison]:
    """S2.5: f after g and the Jacobians of the composition, at x = (3, 5): all numbers are exact.

    The printed numbers are the source's formulas at x, evaluated by hand.
    """
    g = Layer(jnp.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]), jnp.array([0.0, 0.0, 3.0]))
    f = Layer(jnp.array([[1.0, -2.0, 0.25]]), jnp.array([0.0]))
    x = jnp.array([3.0, 5.0])
    z1, z2 = closed_form.affine_composition((g, f), x)
    by_g, by_f = closed_form.affine_jacobians((g, f), x)
    unvec = by_g.weight.T
    block_diagonal = "[[3, 5, 0, 0, 0, 0], [0, 0, 3, 5, 0, 0], [0, 0, 0, 0, 3, 5]]"
    row = partial(compare, "S2.5", exact=True)
    return [
        row("z1 = g(x)", "[13, 5, 0]", z1),
        row("z2 = f(g(x))", "[3]", z2),
        row("dz2/db2 = I", "[[1]]", by_f.bias[None]),
        row(
            "dz2/db2 = 1_{1x3}",
            "[[1, 1, 1]]",
            by_f.bias[None],
            misprint="z2 and b2 have one entry each",
        ),
        row("dz2/dvec[W2] = z1^T", "[[13, 5, 0]]", by_f.weight),
        row("its unvec = z1", "[[13], [5], [0]]", by_f.weight.T),
        row("dz2/db1 = W2", "[[1, -2, 0.25]]", by_g.bias[None]),
        row("dz1/dvec[W1]", block_diagonal, closed_form.affine_weight_jacobian(x, out=3)),
        row("dz2/dvec[W1]", "[[3, 5, -6, -10, 0.75, 1.25]]", by_g.weight.reshape(1, -1)),
        row("its unvec = x W2", "[[3, -6, 0.75], [5, -10, 1.25]]", unvec),
        row("the unvec's shape", "[3, 2]", np.array(unvec.shape), misprint="x W2 is 2 x 3"),
    ]


TWO_LAYER_GRADIENTS = {
    "H": "[0.982, 0.5]",
    "y-hat": "[0.6267, 0.3733]",
    "loss": "0.3927",
    "grad y-hat": "[0.6267, -0.6267]",
    "grad W2": "[[0.2880, -0.2880], [0.1466, -0.1466]]",
    "grad W2_0": "[0.2932, -0.2932]",
    "grad H": "[-0.2932, 0.2932]",
    "grad W1": "[[-0.0052, 0.0733], [0, 0]]",
    "grad W1_0": "[-0.0052, 0.0733]",
    "W2": "[[1.8560, 3.1440], [3.9267, 3.0733]]",
    "W2_0": "[-1.1466, -1.8534]",
    "W1": "[[3.0026, 5.9633], [4, 5]]",
    "W1_0": "[1.0026, -6.0367]",
}
CASE_1 = {"H": "[0.9821, 0.4817]", "y-hat": "[0.4633, 0.5367]", "loss": "0.2146"}
CASE_2 = {"y-hat": "[0.4672, 0.5328]", "loss": "0.2183"}


def two_layer_network() -> list[Comparison]:
    """S3.4: a step of gradient descent, rate 0.5, on both layers (case 1) or the second (case 2).

    The source writes W [in, out].
    """
    x, y, rate = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]), 0.5
    first = Layer(jnp.array([[3.0, 6.0], [4.0, 5.0]]).T, jnp.array([1.0, -6.0]))
    second = Layer(jnp.array([[2.0, 3.0], [4.0, 3.0]]).T, jnp.array([-1.0, -2.0]))

    def forward(*params: Layer) -> dict[str, jax.Array]:
        values = closed_form.two_layer_values(params, x)
        loss = squared_error(apply(params, x, activation="sigmoid"), y)
        return {"H": values.hidden, "y-hat": values.output, "loss": loss}

    start = forward(first, second)
    gradients = closed_form.two_layer_gradients((first, second), x, lambda output: output - y)
    new_first, new_second = (
        Layer(layer.weight - rate * gradient.weight, layer.bias - rate * gradient.bias)
        for layer, gradient in ((first, gradients.first), (second, gradients.second))
    )
    step = start | {
        "grad y-hat": start["y-hat"] - y,
        "grad W2": gradients.second.weight.T,
        "grad W2_0": gradients.second.bias,
        "grad H": gradients.hidden,
        "grad W1": gradients.first.weight.T,
        "grad W1_0": gradients.first.bias,
        "W2": new_second.weight.T,
        "W2_0": new_second.bias,
        "W1": new_first.weight.T,
        "W1_0": new_first.bias,
    }
    return [
        compare("S3.4", f"{case}: {quantity}", text, measured[quantity])
        for case, printed, measured in (
            ("step", TWO_LAYER_GRADIENTS, step),
            ("case 1", CASE_1, forward(new_first, new_second)),
            ("case 2", CASE_2, forward(first, new_second)),
        )
        for quantity, text in printed.items()
    ]


EXAMPLES: dict[str, Callable[[], list[Comparison]]] = {
    "S1.2b, crossEntropyLogit": cross_entropy_code,
    "S1.3, two iterations by hand": two_iterations,
    "S2.5, affine maps and the chain rule": affine_maps,
    "S3.4, two-layer network": two_layer_network,
}


@dataclass(frozen=True, kw_only=True)
class WorkedExamplesConfig(Config):
    """The sources' worked examples (S1.2b, S1.3, S2.5, S3.4) beside the library's values.

    The sources print every input of the examples. Exit status 1 when a printed number is
    contradicted and is no known misprint.
    """


def experiment(config: WorkedExamplesConfig, run: harness.Run) -> Mapping[str, Any]:
    """Computes the examples, shows measured beside printed values, and checks the values."""
    del config
    rows: list[Comparison] = []
    for title, example in EXAMPLES.items():
        with jax.enable_x64(True):
            comparisons = example()
        run.table(
            title,
            ("quantity", "the source prints", "measured", "verdict"),
            [(c.quantity, c.printed, shown(c.measured), c.verdict) for c in comparisons],
        )
        rows += comparisons
        wrong = [c.quantity for c in comparisons if not c.as_expected]
        detail = f"not as expected: {'; '.join(wrong)}" if wrong else f"{len(comparisons)} compared"
        run.check(title, not wrong, detail)
    run.history([c._asdict() | {"measured": c.measured.tolist()} for c in rows])
    return {
        "compared": len(rows),
        "agree": sum(c.agrees for c in rows),
        "known_misprints": sum(bool(c.misprint) for c in rows),
        "comparisons": rows,
    }


def shown(value: np.ndarray) -> str:
    """The value to 8 decimals, in the notation of the sources, without negative zeros."""
    rounded = np.round(value, 8) + 0.0
    return np.array2string(
        rounded,
        separator=", ",
        max_line_width=10_000,
        formatter={"float_kind": lambda number: np.format_float_positional(number, trim="-")},
    ).replace("\n", "")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("worked_examples", WorkedExamplesConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
