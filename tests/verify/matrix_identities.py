"""Identities of the Matrix Cookbook on constraints, in three conventions, and mistakes in each.

``PYTHONPATH=. python tests/verify/matrix_identities.py [--only TEXT] [--trials N]`` verifies all:
exit status 0 if each right formula holds with the convention named, and each wrong one is refuted.
Numbers are those of K. B. Petersen, M. S. Pedersen, The Matrix Cookbook, November 15, 2012. The
gradient of every identity is of independent entries; (138) is the convention of free entries.
"""

# ruff: noqa: N803

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.numpy.linalg import inv

from jaxnn.verify import (
    Claim,
    Verdict,
    claim,
    orthogonal,
    positive_definite,
    real,
    sphere,
    symmetric,
    triangular,
    verify,
)

Formula = Callable[..., Any]
Way = Callable[[Any, Any], Any]
"""(Gradient of independent entries, parameter X) -> the gradient in a convention."""

EYE = jnp.eye

WAYS: dict[str, dict[str, Way]] = {
    "symmetric": {
        "entries independent": lambda G, X: G,
        "symmetric gradient": lambda G, X: (G + G.T) / 2,
        "free entries": lambda G, X: G + G.T - G * EYE(len(G)),  # (138)
    },
    "triangular": {
        "entries independent": lambda G, X: G,
        "free entries": lambda G, X: jnp.tril(G),
        "tangent": lambda G, X: jnp.tril(G) - 3 * jnp.triu(X.T + 1, 1),  # of no meaning above
    },
    "orthogonal": {
        "entries independent": lambda G, X: G,
        "tangent gradient": lambda G, X: X @ (X.T @ G - G.T @ X) / 2,
        "canonical metric": lambda G, X: G - X @ G.T @ X,
    },
    "sphere": {
        "entries independent": lambda G, X: G,
        "tangent gradient": lambda G, X: (EYE(len(X)) - jnp.outer(X, X)) @ G,
        "tangent": lambda G, X: G + 3 * X,  # of no meaning along x
    },
}
"""Per constraint three conventions."""

REALS = {"A": real("n", "n"), "B": real("n", "n"), "a": real("n"), "b": real("n")}
"""The other inputs of an identity, by name."""

PARAMETERS = {
    "positive_definite": ("symmetric", positive_definite("n")),
    "symmetric": ("symmetric", symmetric("n")),
    "triangular": ("triangular", triangular("n")),
    "orthogonal": ("orthogonal", orthogonal("n")),
    "sphere": ("sphere", sphere("n")),
}
"""The constraint of a parameter, and the generator."""


class Identity(NamedTuple):
    """A function of X, with the gradient of independent entries, and a wrong gradient."""

    number: str  # in the Matrix Cookbook
    text: str
    parameter: str  # from PARAMETERS
    of: Formula
    gradient: Formula
    wrong: Formula
    codes: str  # codes of a right diagnosis

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The generators of the inputs."""
        names = self.of.__code__.co_varnames[: self.of.__code__.co_argcount]
        return {name: REALS.get(name, PARAMETERS[self.parameter][1]) for name in names}

    @property
    def ways(self) -> dict[str, Way]:
        """The conventions."""
        return WAYS[PARAMETERS[self.parameter][0]]

    def claim(self, way: str, gradient: Formula | None = None) -> Claim:
        """The gradient, or a wrong one, in a convention."""
        stated, change = gradient or self.gradient, self.ways[way]

        def formula(**inputs: Any) -> Any:
            given = {name: inputs[name] for name in self.inputs}
            return change(stated(**given), inputs["X"])

        declared = claim(of=self.of, wrt="X", kind="gradient", inputs=self.inputs)
        vars(formula)["__signature__"] = _signature(self.of)
        return declared(formula)


def _signature(function: Formula) -> Any:
    from inspect import Parameter, signature

    known = signature(function).parameters.values()
    return signature(function).replace(
        parameters=[p.replace(kind=Parameter.KEYWORD_ONLY) for p in known]
    )


trace, outer, det = jnp.trace, jnp.outer, jnp.linalg.det

IDENTITIES = [
    Identity(
        "(57), (141)", "ln det X", "positive_definite",
        lambda X: jnp.linalg.slogdet(X)[1],
        lambda X: inv(X).T,
        lambda X: -inv(X).T, "sign",
    ),
    Identity(
        "(49), (140)", "det X", "positive_definite",
        lambda X: det(X),
        lambda X: det(X) * inv(X).T,
        lambda X: inv(X).T, "factor",
    ),
    Identity(
        "(70)", "a^T X b", "symmetric",
        lambda X, a, b: a @ X @ b,
        lambda X, a, b: outer(a, b),
        lambda X, a, b: -outer(a, b), "sign",
    ),
    Identity(
        "(71)", "a^T X^T b", "symmetric",
        lambda X, a, b: a @ X.T @ b,
        lambda X, a, b: outer(b, a),
        lambda X, a, b: 2 * outer(b, a), "factor",
    ),
    Identity(
        "(61)", "a^T X^-1 b", "positive_definite",
        lambda X, a, b: a @ inv(X) @ b,
        lambda X, a, b: -inv(X).T @ outer(a, b) @ inv(X).T,
        lambda X, a, b: inv(X).T @ outer(a, b) @ inv(X).T, "sign",
    ),
    Identity(
        "(62)", "det(X^-1)", "positive_definite",
        lambda X: det(inv(X)),
        lambda X: -det(inv(X)) * inv(X).T,
        lambda X: -det(X) * inv(X).T, "factor|wrong_value|missing_term",
    ),
    Identity(
        "(63), (124)", "Tr(A X^-1 B)", "positive_definite",
        lambda X, A, B: trace(A @ inv(X) @ B),
        lambda X, A, B: -(inv(X) @ B @ A @ inv(X)).T,
        lambda X, A, B: (inv(X) @ B @ A @ inv(X)).T, "sign",
    ),
    Identity(
        "(100), (139)", "Tr(X A)", "symmetric",
        lambda X, A: trace(X @ A),
        lambda X, A: A.T,
        lambda X, A: A.T / 2, "factor",
    ),
    Identity(
        "(101)", "Tr(A X B)", "symmetric",
        lambda X, A, B: trace(A @ X @ B),
        lambda X, A, B: A.T @ B.T,
        lambda X, A, B: A @ B, "transpose|wrong_value",
    ),
    Identity(
        "(106)", "Tr(X^2)", "symmetric",
        lambda X: trace(X @ X),
        lambda X: 2 * X.T,
        lambda X: X, "factor|missing_term",
    ),
    Identity(
        "(107)", "Tr(X^2 B)", "symmetric",
        lambda X, B: trace(X @ X @ B),
        lambda X, B: (X @ B + B @ X).T,
        lambda X, B: (X @ B).T, "missing_term|wrong_value",
    ),
    Identity(
        "(108)", "Tr(X^T B X)", "symmetric",
        lambda X, B: trace(X.T @ B @ X),
        lambda X, B: B @ X + B.T @ X,
        lambda X, B: 2 * B @ X, "symmetric_part|wrong_value|transpose",
    ),
    Identity(
        "(114)", "Tr(A X B X)", "symmetric",
        lambda X, A, B: trace(A @ X @ B @ X),
        lambda X, A, B: A.T @ X.T @ B.T + B.T @ X.T @ A.T,
        lambda X, A, B: A.T @ X.T @ B.T, "missing_term|wrong_value",
    ),
    Identity(
        "(77)", "b^T X^T X a", "symmetric",
        lambda X, a, b: b @ X.T @ X @ a,
        lambda X, a, b: X @ (outer(b, a) + outer(a, b)),
        lambda X, a, b: X @ outer(a, b), "missing_term|wrong_value",
    ),
    Identity(
        "(57)", "ln |det X|", "triangular",
        lambda X: jnp.linalg.slogdet(X)[1],
        lambda X: inv(X).T,
        lambda X: -inv(X).T, "sign",
    ),
    Identity(
        "(119)", "Tr((A X - B)(A X - B)^T)", "triangular",
        lambda X, A, B: trace((A @ X - B) @ (A @ X - B).T),
        lambda X, A, B: 2 * A.T @ (A @ X - B),
        lambda X, A, B: 2 * A @ (A @ X - B), "transpose|wrong_value",
    ),
    Identity(
        "(100)", "Tr(A X), Procrustes", "orthogonal",
        lambda X, A: trace(A @ X),
        lambda X, A: A.T,
        lambda X, A: -A.T, "sign",
    ),
    Identity(
        "(118)", "Tr(X^T A X B)", "orthogonal",
        lambda X, A, B: trace(X.T @ A @ X @ B),
        lambda X, A, B: A @ X @ B + A.T @ X @ B.T,
        lambda X, A, B: A @ X @ B, "missing_term|wrong_value",
    ),
    Identity(
        "(81)", "x^T A x, Rayleigh", "sphere",
        lambda X, A: X @ A @ X,
        lambda X, A: (A + A.T) @ X,
        lambda X, A: 2 * A @ X, "symmetric_part|transpose|wrong_value",
    ),
    Identity(
        "(129)", "|x - a|", "sphere",
        lambda X, a: jnp.sqrt((X - a) @ (X - a)),
        lambda X, a: (X - a) / jnp.sqrt((X - a) @ (X - a)),
        lambda X, a: X - a, "factor|missing_term|normaliser_constant|statistic_constant",
    ),
]  # fmt: skip


class Row(NamedTuple):
    """The verdicts on an identity in a convention."""

    identity: Identity
    way: str
    right: Verdict
    wrong: Verdict
    seconds: tuple[float, float]  # of the processors, for each verdict

    @property
    def named(self) -> list[str]:
        """The conventions named, of the only parameter."""
        return self.right.convention.removeprefix("X: ").split(" = ")

    @property
    def codes(self) -> set[str]:
        """The codes of the diagnosis."""
        return {finding.code for finding in self.wrong.diagnosis}

    @property
    def is_right(self) -> bool:
        """Whether the right formula holds, and the convention is named."""
        return self.right.holds and self.way in self.named

    @property
    def is_diagnosed(self) -> bool:
        """Whether the mistake has a right code."""
        return bool(self.codes & {*self.identity.codes.split("|")})

    def __str__(self) -> str:
        """A line of the table."""
        named, codes = " = ".join(self.named), "+".join(sorted(self.codes))
        fails = not self.is_right or self.wrong.verdict != "refuted"
        return (
            f"{self.identity.number:12} {self.identity.text:24} {self.way:20} "
            f"{self.right.words:26} {named:62} {self.seconds[0]:4.1f} s   "
            f"{self.wrong.verdict} {codes:24} {self.seconds[1]:4.1f} s{'   <- WRONG' * fails}"
        )


def judged(identity: Identity, way: str, trials: int | None = None) -> Row:
    """An identity and the mistake, verified in a convention."""
    times, verdicts = [time.process_time()], []
    for gradient in (identity.gradient, identity.wrong):
        verdicts.append(verify(identity.claim(way, gradient), trials=trials))
        times.append(time.process_time())
    right, wrong = verdicts
    return Row(identity, way, right, wrong, (times[1] - times[0], times[2] - times[1]))


def main() -> int:
    """Verifies all, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="identities with this text")
    parser.add_argument("--trials", type=int, help="random trials; default: 10000")
    only, trials = vars(parser.parse_args()).values()
    chosen = [identity for identity in IDENTITIES if only in f"{identity.number} {identity.text}"]
    rows = []
    for identity in chosen:
        for way in identity.ways:
            rows.append(judged(identity, way, trials))
            print(rows[-1], flush=True)
    every = len(rows)
    right = sum(row.is_right for row in rows)
    certified = sum(row.right.certificate is not None for row in rows)
    refuted = sum(row.wrong.verdict == "refuted" for row in rows)
    named = sum(row.is_diagnosed for row in rows)
    means = [sum(some) / every for some in zip(*(row.seconds for row in rows), strict=True)]
    print(f"\n{right} of {every} hold with the convention named, {certified} certified")
    print(f"{refuted} of {every} mistakes refuted, {named} named")
    print(f"{means[0]:.1f} s of the processors a right formula, {means[1]:.1f} s a wrong one")
    return 0 if right == refuted == every else 1


if __name__ == "__main__":
    sys.exit(main())
