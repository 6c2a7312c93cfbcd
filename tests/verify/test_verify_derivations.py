"""Derivations line by line: the line that does not follow, repairs, cases, layouts, reports."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from broken_lines import chain, judged, pairs, undiagnosed

from jaxnn.verify import (
    DerivationVerdict,
    Step,
    assert_holds,
    derivation,
    one_hot,
    positive,
    real,
    verification,
    verify,
)
from jaxnn.verify.__main__ import main
from jaxnn.verify.report import to_html, to_json
from jaxnn.verify.worker import decode, encode

TRIALS = 200


def mean_of_squares(x):
    """1/n sum_i x_i^2, whose gradient is 2 x / n."""
    return jnp.mean(x**2)


def right(x):
    return 2 * x / len(x)


def also_right(x):
    return (x + x) / len(x)


def summed(x):
    """The mean is missing."""
    return 2 * x


def also_summed(x):
    """The mean is missing."""
    return x + x


def tripled(x):
    """The mean is missing, and 2 is 3."""
    return 3 * x


def of_three(x):
    """Equal to ``right`` if x has three entries."""
    return 2 * x / 3


def as_of_three(x):
    return x / 1.5


def misshapen(x):
    return jnp.append(2 * x, 0.0)


def failing(x):
    raise RuntimeError("no value")


def made_of(*formulas, **declared):
    """A derivation of such lines; by default of the mean of squares by x."""
    declared = {
        "of": mean_of_squares,
        "wrt": "x",
        "kind": "gradient",
        "inputs": {"x": real("n")},
    } | declared
    made = derivation(**declared)
    for formula in formulas:
        made.line("", formula)
    return made


def lined(*formulas, **declared):
    return verify(made_of(*formulas, **declared), trials=TRIALS)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def outcomes(verdict):
    return " ".join(line.step.outcome for line in verdict.lines)


def codes(verdict):
    return [finding.code for finding in verdict.diagnosis]


@pytest.fixture
def no_diagnosis(monkeypatch):
    """For tests of the steps alone: a diagnosis takes longer than the rest."""
    monkeypatch.setattr(verification, "_diagnosed", undiagnosed)


@pytest.mark.usefixtures("no_diagnosis")
@pytest.mark.parametrize(
    ("formulas", "first_wrong", "repaired_by", "steps"),
    [
        ([right], None, None, "follows"),
        ([right, right, also_right], None, None, "follows follows follows"),
        ([summed, also_summed], 1, None, "mistake follows"),
        ([right, summed, also_summed, right], 2, 4, "follows mistake follows repair"),
        slow([summed, right, tripled, right], 1, 2, "mistake repair mistake repair"),
        slow([right, summed, tripled, right], 2, 4, "follows mistake mistake repair"),
        ([right, misshapen, misshapen, right], 2, 4, "follows mistake follows repair"),
        ([of_three, as_of_three], 1, None, "mistake follows"),
        ([summed, of_three], 1, None, "mistake mistake"),
        slow([right, failing, summed, right], 3, 4, "follows unknown mistake repair"),
        ([failing, right], None, None, "unknown follows"),
    ],
)
def test_the_first_line_that_does_not_follow_and_the_repair(
    formulas, first_wrong, repaired_by, steps
):
    verdict = lined(*formulas)
    assert (verdict.first_wrong, verdict.repaired_by) == (first_wrong, repaired_by)
    assert outcomes(verdict) == steps
    assert verdict.holds == ("mistake" not in steps and "unknown" not in steps)


def test_a_line_that_raises_is_an_error_with_the_exception():
    verdict = lined(right, failing)
    assert verdict.verdict == "error"
    assert verdict.lines[1].detail.startswith("RuntimeError: no value")


def test_mistakes_are_diagnosed_as_of_a_claim_and_after_a_wrong_line_by_the_step():
    verdict = lined(right, summed, tripled)
    assert codes(verdict) == ["missing_mean"]
    _, _, third = verdict.lines
    assert [(f.code, f.detail) for f in third.diagnosis] == [
        ("factor", "the formula is multiplied by 3/2")
    ]
    assert third.detail == "the diagnosis compares the line with line 2"


@pytest.mark.usefixtures("no_diagnosis")
def test_equal_values_at_small_sizes_are_not_enough_to_follow():
    """At n = 3, the first of the sizes, x / 1.5 is 2 x / n; both are wrong against 6 x / n."""
    verdict = lined(of_three, right, of=lambda x: 3 * mean_of_squares(x))
    assert outcomes(verdict) == "mistake mistake"


@pytest.mark.usefixtures("no_diagnosis")
def test_rounding_is_no_mistake_between_wrong_lines():
    """(x + 1e8)^2 - x^2 - 1e16 is 2e8 x, and loses half of its bits."""
    far = 1e8
    verdict = lined(lambda x: 2 * far * x, lambda x: (x + far) ** 2 - x**2 - far**2)
    assert outcomes(verdict) == "mistake follows"


def test_lines_that_are_right_but_unstable_are_named():
    verdict = lined(
        lambda x: jax.nn.sigmoid(x),
        lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
        of=lambda x: jnp.sum(jax.nn.softplus(x)),
    )
    assert (verdict.unstable, verdict.verdict, verdict.holds) == ((2,), "holds_unstable", True)


def product(w, x):
    return w @ x


LAYER = {"w": real("out", "in"), "x": real("in"), "dout": real("out")}


def test_a_transposed_line_of_a_vjp_is_named_and_not_refuted():
    made = derivation(of=product, wrt="w", kind="vjp", inputs=LAYER)
    made.line("", lambda x, dout: jnp.outer(dout, x))
    made.line("", lambda x, dout: jnp.outer(x, dout))
    made.line("", lambda x, dout: jnp.outer(x, dout), layout="transpose")
    made.line("", lambda x, dout: dout[:, None] * x)
    verdict = verify(made, trials=TRIALS)
    assert [line.verdict for line in verdict.lines] == [
        *("holds", "holds_other_layout", "holds", "holds")
    ]
    assert (outcomes(verdict), verdict.first_wrong) == ("follows follows follows follows", None)
    assert verdict.verdict == "holds_other_layout"


def test_lines_of_an_update():
    verdict = lined(
        lambda x, rate: x - rate * right(x),
        lambda x, rate: x * (1 + 2 * rate / len(x)),
        kind="update",
        rate="rate",
        inputs={"x": real("n"), "rate": positive()},
    )
    assert (verdict.first_wrong, codes(verdict)) == (2, ["sign"])


@pytest.mark.usefixtures("no_diagnosis")
def test_several_parameters_by_position_and_by_name():
    def squares(w, b):
        return jnp.sum(w**2) + jnp.sum(b**3)

    verdict = lined(
        lambda w, b: (2 * w, 3 * b**2),
        lambda w, b: {"b": 3 * b * b, "w": 2 * w},
        lambda w, b: (2 * w, b**2),
        lambda w, b: {"b": b * b, "w": w + w},
        of=squares,
        wrt=("w", "b"),
        inputs={"w": real("n"), "b": real("m")},
    )
    assert outcomes(verdict) == "follows follows mistake follows"


@pytest.mark.slow
def test_a_line_may_be_a_loop_in_numpy():
    def loop(x):
        gradient = np.zeros(len(x))
        for i in range(len(x)):
            gradient[i] = 2 * x[i] / len(x)
        return gradient

    def wrong_loop(x):
        return -loop(x)

    verdict = lined(right, loop, wrong_loop, lambda x: -right(x))
    assert outcomes(verdict) == "follows follows mistake follows"
    assert codes(verdict) == ["sign"]


CASES = {"i = j": lambda i, j: i == j, "i != j": lambda i, j: i != j}


def softmax_lines(*lines, cases=CASES):
    made = derivation(
        of=lambda x: jax.nn.softmax(x),
        wrt="x",
        kind="jacobian",
        inputs={"x": real("D")},
        cases=cases,
    )
    for formula, case in lines:
        made.line("", formula, case=case)
    return verify(made, trials=TRIALS)


def own(x):
    s = jax.nn.softmax(x)
    return s * (1 - s)


def other(x):
    s = jax.nn.softmax(x)
    return -jnp.outer(s, s)


def printed(x):
    s = jax.nn.softmax(x)
    return -(s * s)[:, None]


def both(x):
    s = jax.nn.softmax(x)
    return jnp.diag(s) - jnp.outer(s, s)


def both_printed(x):
    s = jax.nn.softmax(x)
    return jnp.where(jnp.eye(len(s), dtype=bool), s * (1 - s), -(s * s)[:, None])


@pytest.mark.usefixtures("no_diagnosis")
@pytest.mark.parametrize(
    ("lines", "steps", "repaired_by", "after"),
    [
        ([(own, "i = j"), (other, "i != j"), (both, "")], "follows follows follows", None, (1, 2)),
        (
            [(own, "i = j"), (printed, "i != j"), (own, "i = j"), (both_printed, "")],
            *("follows mistake follows follows", None, (2, 3)),
        ),
        ([(own, "i = j"), (printed, "i != j"), (both, "")], "follows mistake repair", 3, (1, 2)),
        slow([(both_printed, ""), (own, "i = j")], "mistake repair", None, (1,)),
        ([(both_printed, ""), (own, "i = j"), (both, "")], "mistake repair repair", 3, (1, 2)),
        slow([(both_printed, ""), (printed, "i != j")], "mistake follows", None, (1,)),
        slow(
            [(other, "i = j"), (other, "i != j"), (other, "")],
            *("mistake follows follows", None, (1, 2)),
        ),
    ],
)
def test_lines_of_cases_count_for_their_entries(lines, steps, repaired_by, after):
    """As in S4.3: S_i (1 - S_i) if i = j, -S_i S_j otherwise; -S_i S_i is printed."""
    verdict = softmax_lines(*lines)
    assert (outcomes(verdict), verdict.repaired_by) == (steps, repaired_by)
    assert verdict.lines[-1].step
    assert verdict.lines[-1].step.after == after


@pytest.mark.usefixtures("no_diagnosis")
def test_a_case_may_depend_on_inputs():
    made = derivation(
        of=lambda x: jnp.sum(jnp.where(x > 0, x**2, 0.0)),
        wrt="x",
        kind="gradient",
        inputs={"x": real("n")},
        cases={"x > 0": lambda x: x > 0, "x <= 0": lambda i, x: x[i] <= 0},
    )
    made.line("", lambda x: 2 * x, case="x > 0")
    made.line("", lambda x: 0 * x, case="x <= 0")
    made.line("", lambda x: 2 * x, case="x <= 0")
    assert outcomes(verify(made, trials=TRIALS)) == "follows follows mistake"


def test_indices_that_are_not_those_of_the_derivative_are_an_error():
    verdict = softmax_lines((own, "i = j"), cases={"i = j": lambda i, j, k: i == j})
    assert verdict.verdict == "error"
    assert "has the indices i, j, k, expected 2" in verdict.lines[0].detail


def test_assert_holds_tells_the_line_and_the_mistake():
    made = made_of(right)
    assert_holds(made, trials=TRIALS)
    made.line("", summed)
    with pytest.raises(AssertionError, match="line 2 does not follow from line 1: missing_mean"):
        assert_holds(made, trials=TRIALS)


def test_a_line_is_a_decorator_that_leaves_the_function():
    made = made_of()
    assert made.line("")(right) is right
    assert len(made.lines) == 1


def test_a_line_whose_latex_is_another_formula_is_told():
    made = made_of()
    made.line(r"\frac{2}{n} x", right)
    made.line(r"\frac{3}{n} x", right)
    assert [line.verdict for line in verify(made, trials=TRIALS).lines] == ["holds", "misstated"]


@pytest.mark.usefixtures("no_diagnosis")
def test_verdicts_survive_json_between_processes():
    sent = encode(lined(right, summed, right))
    received = decode(json.loads(sent))
    assert encode(received) == sent
    assert isinstance(received, DerivationVerdict)
    assert received.lines[1].step == Step("derivation", 2, "mistake", (1,))


def test_json_has_the_lines_with_their_steps():
    (entry,) = json.loads(to_json([lined(right, summed)]))
    assert (entry["first_wrong"], entry["repaired_by"]) == (2, None)
    assert entry["lines"][1]["step"]["outcome"] == "mistake"
    assert entry["lines"][1]["verdict"] == "refuted"


def test_the_page_has_a_section_with_every_line_in_order():
    made = made_of(right, summed, right, name="mean_of_squares_by_x")
    page = to_html([(made, verify(made, trials=TRIALS))])
    assert page.count("<section") == 1
    assert re.findall(r'<h3 class="role">(Line \d)', page) == ["Line 1", "Line 2", "Line 3"]
    assert "Line 2 does not follow from line 1: missing_mean; line 3 is right again." in page
    assert "a false formula passes with a probability below 2^-100" in page


FILE = """
import jax.numpy as jnp
from jaxnn.verify import claim, derivation, real

SQUARES = {"of": lambda x: jnp.sum(x**2), "wrt": "x", "kind": "gradient"}
by_x = derivation(**SQUARES, inputs={"x": real("n")}, source="S2.2")
by_x.line("x + x", lambda x: x + x)

@by_x.line("-2 x")
def negative(x):
    return -2 * x

by_x.line("2 x", lambda x: 2 * x)
empty = derivation(**SQUARES, inputs={"x": real("n")})

@claim(**SQUARES, inputs={"x": real("n")})
def slope(x):
    return 2 * x
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_the_command_has_a_row_per_line(tmp_path, monkeypatch, capsys, workers):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.py").write_text(FILE)
    arguments = ["--trials", "100", "--workers", workers, "--no-certify", "--json", "v.json"]
    assert main(["file.py", *arguments]) == 1
    shown = capsys.readouterr().out
    names = re.findall(r"^ (\w+(?:, line \d)?) ", shown, re.MULTILINE)
    assert names == ["name", *(f"by_x, line {n}" for n in (1, 2, 3)), "empty", "slope"]
    assert "empty has no lines" in " ".join(shown.split())
    rows = json.loads((tmp_path / "v.json").read_text())
    assert [(row["name"], row["verdict"]) for row in rows] == [
        ("by_x, line 1", "holds"),
        ("by_x, line 2", "refuted"),
        ("by_x, line 3", "holds"),
        ("empty", "error"),
        ("slope", "holds"),
    ]
    assert [row["step"] and row["step"]["outcome"] for row in rows] == [
        *("follows", "mistake", "repair", None, None)
    ]


@pytest.mark.slow
def test_forty_lines_of_which_the_second_half_is_wrong():
    def numbered(number):
        return lambda x: (2 if number < 20 else 3) * x / len(x) + 0 * number

    verdict = lined(*map(numbered, range(40)))
    assert (len(verdict.lines), verdict.first_wrong) == (40, 21)
    assert outcomes(verdict) == " ".join(["follows"] * 20 + ["mistake"] + ["follows"] * 19)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 40, 8))
def test_the_broken_line_of_a_chain_is_located(number):
    outcome = judged(number, 1, True, TRIALS, diagnosed=False)
    assert outcome.found == outcome.expected, outcome


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 24, 8))
def test_a_right_chain_is_not_refuted(number):
    outcome = judged(number, 1, False, TRIALS)
    assert outcome.found == (None, None), outcome


def test_chains_are_made_of_all_catalogues():
    assert {pair.catalogue for pair in pairs()} == {
        *("experiments.mutants", "experiments.claims", "unseen")
    }
    assert len(pairs()) > 200
    assert chain(3, 0, True).broken is not None


def test_a_line_in_latex_needs_no_function():
    d = derivation(
        of=lambda z, y: -jnp.sum(y * jax.nn.log_softmax(z)),
        wrt="z",
        kind="gradient",
        inputs={"z": real("C"), "y": one_hot("C")},
        where={"p": lambda z: jax.nn.softmax(z)},
    )
    d.line(formula=r"-y_i (1 - p_i) + \sum_{k \ne i} y_k p_i")
    d.line(formula="-y - p")
    d.line("p - y", formula="p_i - y_i")
    verdict = verify(d, trials=200)
    assert [line.statement for line in d.lines][1:] == ["-y - p", "p - y"]
    assert (verdict.verdict, verdict.first_wrong, verdict.repaired_by) == ("refuted", 2, 3)
    with pytest.raises(ValueError, match="'q' is not known"):
        d.line(formula="q")


def test_a_line_of_a_case_in_latex():
    d = derivation(
        of=jax.nn.softmax,
        wrt="x",
        kind="jacobian",
        inputs={"x": real("D")},
        where={"S": lambda x: jax.nn.softmax(x)},
        cases={"i = j": lambda i, j: i == j, "i != j": lambda i, j: i != j},
    )
    d.line(formula=r"\frac{\partial S_i}{\partial x_j} = S_i (1 - S_i)", case="i = j")
    d.line(formula=r"\frac{\partial S_i}{\partial x_j} = -S_i S_j", case="i != j")
    assert verify(d, trials=200).verdict == "holds"
