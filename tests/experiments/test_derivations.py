"""The sources' statements: all are there, their record is this one, and a deviation is seen."""

import csv
import inspect
import json
import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import derivations
from experiments.claims.expected import EXPECTED, WRONG_LINES
from jaxnn.display import mathml
from jaxnn.verify import Claim, Derivation, Finding, Verdict, inputs
from jaxnn.verify.worker import load_claims


def names(text: str) -> set[str]:
    return set(text.split())


REFUTED = {
    "cross_entropy_by_weights_last_line": "missing_mean",
    "likelihood_as_cross_entropy": "extra_mean",
    "composition_program": "wrong_value",
    "composition_program_any_shapes": "shape",
    "output_by_its_bias_as_ones": "shape",
    "relu_layer_by_weights_printed": "unknown",
    "softmax_jacobian_printed": "wrong_value",
    "delta_2_printed": "shape",
    "loss_by_input_printed": "shape, transpose",
    "loss_by_input_printed_square": "transpose",
    "log_softmax_sum_by_logits_printed": "sign",
    "log_softmax_sum_by_weights_printed": "sign",
    "log_softmax_sum_by_bias_printed": "sign",
    "logistic_update_constants_combined": "missing_mean, wrong_l2",
}
OTHER_LAYOUT = {"unvec_by_first_weights_3x2"}
KINK = {
    "relu_layer_by_weights",
    "relu_layer_by_bias",
    "first_weights",
    "first_bias",
    "first_layer_of_relu_network",
}
STABLE = names(
    """
    affine_by_vec_weights composition_of_f_and_g composition_program_any_shapes_corrected
    composition_program_corrected compute_jacobians cost_gradient cross_entropy_by_bias
    cross_entropy_by_scores cross_entropy_by_weights
    cross_entropy_by_weights_last_line_corrected cross_entropy_gradient delta_2
    delta_2_with_columns delta_3 descent_step do_backward do_forward_of_shifted_logits
    f_as_affine_map first_layer_of_sigmoid_network g_as_affine_map hidden_of_squared_loss
    layer_by_bias layer_by_weights likelihood_as_cross_entropy_corrected likelihood_as_sum
    log_softmax_sum_by_bias log_softmax_sum_by_logits log_softmax_sum_by_weights
    logistic_gradient logistic_update logistic_update_multiplied_out loss_by_input
    loss_by_input_square loss_by_logits loss_by_logits_for_any_weights loss_by_probabilities
    number_of_parameters output_by_first_bias output_by_its_bias output_by_second_bias
    output_by_second_weights output_by_vec_first_weights output_by_vec_last_weights
    output_layer_by_bias output_layer_by_weights penalty_by_weights penalty_gradient
    probabilities_by_weights probability_by_its_own_weights probability_by_other_weights
    second_bias_of_quartic_loss second_layer_of_squared_loss second_weights_of_quartic_loss
    sigmoid_derivative sigmoid_derivative_by_symmetry sigmoid_derivative_from_value
    softmax_jacobian softmax_jacobian_as_matrix softmax_jacobian_by_entries softmax_of_rows
    squared_loss_by_output step_of_both_layers step_of_second_layer unvec_by_first_weights
    unvec_by_last_weights unvec_of_weighted
    """
)
UNSTABLE = names(
    """
    cross_entropy_code do_forward gradient_code hidden hidden_of_quartic_loss log_probability
    second_bias second_weights shifted_softmax softmax_code softmax_with_offset
    """
)
SECTIONS = names(
    """
    S1.1 S1.2 S1.2b S1.3 S2.1 S2.2 S2.3 S2.4 S2.5 S3.1 S3.2 S3.3 S3.4 S4.1 S4.2 S4.3 S4.4 S4.5
    S5.1 S5.2 S5.3 S5.4 S5.5
    """
)

FILE = '''
"""Three statements about a sum of squares, the first of them wrong."""

import jax.numpy as jnp

from jaxnn.verify import claim, real


def squares(x):
    return jnp.sum(x**2)


STATED = {"of": squares, "wrt": "x", "kind": "gradient", "inputs": {"x": real("n")}}


@claim(**STATED, source="S2.1", statement=r"\\nabla f = -2 x")
def slope_printed(x):
    """In the layout of x."""
    return -2 * x


@claim(**STATED, source="S2.1", statement=r"\\nabla f = 2 x", corrects=slope_printed)
def slope(x):
    """In the layout of x."""
    return SLOPE * x


@claim(**STATED, source="S1.9", statement=r"\\nabla f = x + x")
def slope_as_sum(x):
    """In the layout of x."""
    return x + x
'''
RECORD = {"slope_printed": "refuted: sign", "slope": "holds", "slope_as_sum": "holds"}


@cache
def statements():
    every = [made for file in derivations.FILES for made in load_claims(file)]
    return [made for made in every if isinstance(made, Claim)]


def test_the_record_is_this_table():
    refuted = {name: f"refuted: {codes}" for name, codes in REFUTED.items()}
    others = {
        **dict.fromkeys(STABLE, "holds"),
        **dict.fromkeys(UNSTABLE, "holds_unstable"),
        **dict.fromkeys(OTHER_LAYOUT, "holds_other_layout"),
        **dict.fromkeys(KINK, "kink"),
    }
    assert refuted | others == EXPECTED


def test_the_record_is_of_these_statements():
    assert [claimed.name for claimed in statements()] == list(EXPECTED)


def test_every_section_with_a_formula_is_stated():
    assert {claimed.source for claimed in statements()} == SECTIONS


def test_every_refuted_statement_is_put_right_and_no_other_refuted_by_itself():
    put_right = {c.corrects.name for c in statements() if c.corrects is not None}
    assert put_right - OTHER_LAYOUT == set(REFUTED)


def test_every_statement_has_a_formula_that_a_browser_shows_and_a_sentence_on_its_convention():
    for claimed in statements():
        assert (mathml(claimed.statement) or "").startswith("<math"), claimed.name
        assert (claimed.formula.__doc__ or "").endswith("."), claimed.name


@cache
def worked():
    every = [made for file in derivations.WORKED for made in load_claims(file)]
    return [made for made in every if isinstance(made, Derivation)]


def differs_from_autodiff(claimed, seed=1, case=""):
    r"""Whether a statement is wrong at one random point, by nothing but jax.grad; None: shapes.

    The case ``l = k`` or ``l \ne k`` is about entries with equal or other indices, first and last.
    """
    point = inputs.draw(
        dict(claimed.inputs),
        inputs.draw_sizes(claimed.inputs, seed),
        1,
        np.random.default_rng(seed),
    )
    point = jax.tree.map(lambda value: jnp.asarray(value[0]), point)
    given = {name: point[name] for name in claimed.wrt}

    def of(given):
        return call(claimed.of, point | given)

    if claimed.kind == "value":
        true = of({})
    elif claimed.kind == "update":
        true = {k: given[k] - point[claimed.rate] * g for k, g in jax.grad(of)(given).items()}
    else:
        true = (jax.grad if claimed.kind == "gradient" else jax.jacrev)(of)(given)
    stated = jax.tree.leaves(call(claimed.formula, point))
    true = jax.tree.leaves([true[w] for w in claimed.wrt] if isinstance(true, dict) else true)
    if claimed.layout == "transpose":
        true = [leaf.T for leaf in true]
    if case:
        first, *_, last = np.indices(true[0].shape)
        inside = (first == last) == (" = " in case)
        true, stated = [true[0][inside]], [np.broadcast_to(stated[0], inside.shape)[inside]]
    if [leaf.shape for leaf in stated] != [leaf.shape for leaf in true]:
        return None
    return not all(np.allclose(a, b, rtol=1e-9) for a, b in zip(stated, true, strict=True))


def call(function, point):
    return function(**{name: point[name] for name in inspect.signature(function).parameters})


@pytest.mark.parametrize("name", [*REFUTED, *sorted(OTHER_LAYOUT)])
def test_what_is_said_to_differ_differs_from_autodiff_and_its_correction_does_not(name):
    by_name = {claimed.name: claimed for claimed in statements()}
    shapes = "shape" in EXPECTED[name] or name in OTHER_LAYOUT
    with jax.enable_x64(True):
        try:
            assert differs_from_autodiff(by_name[name]) is (None if shapes else True)
        except TypeError as error:
            assert shapes, str(error)  # noqa: PT017
        for claimed in statements():
            if claimed.corrects is by_name[name]:
                assert differs_from_autodiff(claimed) is False


def run(tmp_path, monkeypatch, *, slope="2", record=RECORD, arguments=(), worked=()):
    """The experiment on FILE; its exit status."""
    file = tmp_path / "squares.py"
    file.write_text(FILE.replace("SLOPE", slope))
    monkeypatch.setattr(derivations, "FILES", (file,))
    monkeypatch.setattr(derivations, "WORKED", worked)
    monkeypatch.setattr(derivations, "EXPECTED", record)
    out = ["--out", str(tmp_path / "out")]
    return derivations.main([*out, "--trials", "20", "--workers", "0", *arguments])


def test_all_as_recorded_is_exit_status_0_and_leaves_a_report(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, monkeypatch, arguments=["--seeds", "2"]) == 0
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())["results"]
    assert results["verdicts"] == {"refuted": 1, "holds": 2}
    printed, corrected, _ = results["claims"]
    assert printed["verdicts"][1]["diagnosis"][0]["code"] == "sign"
    assert printed["verdicts"][0]["worst"]["claimed"] == -printed["verdicts"][0]["worst"]["true"]
    assert corrected["corrects"] == "slope_printed"
    with (out / "history.csv").open() as file:
        rows = [(row["name"], row["seed"], row["verdict"]) for row in csv.DictReader(file)]
    assert rows[:3] == [
        ("slope_printed", "0", "refuted"),
        ("slope_printed", "1", "refuted"),
        ("slope", "0", "holds"),
    ]
    page = (out / "report.html").read_text()
    assert 0 < page.index("as printed") < page.index("corrected") < page.index("Slope as sum")
    assert "passed: the corrected statements hold: 1 hold" in capsys.readouterr().out


def test_the_table_begins_with_refuted_statements(tmp_path, monkeypatch, capsys):
    head, printed, corrected, last = FILE.split("\n\n\n@claim")
    monkeypatch.setitem(globals(), "FILE", "\n\n\n@claim".join([head, last, printed, corrected]))
    run(tmp_path, monkeypatch)
    names = re.findall(r"^ S\S+ +(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert names == ["slope_printed", "slope_as_sum", "slope"]


def test_another_verdict_than_the_recorded_one_is_exit_status_1(tmp_path, monkeypatch, capsys):
    record = RECORD | {"slope_printed": "refuted: factor"}
    assert run(tmp_path, monkeypatch, record=record) == 1
    shown = capsys.readouterr().out
    assert "slope_printed (refuted: sign; recorded: refuted: factor)" in shown
    assert "passed: S1, the recorded verdicts: 1 as recorded" in shown


def test_the_record_may_leave_it_to_the_seed(tmp_path, monkeypatch):
    assert run(tmp_path, monkeypatch, record=RECORD | {"slope": "kink or holds"}) == 0


def test_a_correction_that_does_not_hold_is_exit_status_1(tmp_path, monkeypatch, capsys):
    record = RECORD | {"slope": "refuted: factor"}
    assert run(tmp_path, monkeypatch, slope="3", record=record) == 1
    shown = capsys.readouterr().out
    assert "FAILED: the corrected statements hold: refuted: slope" in shown
    assert "FAILED: every statement that fails has a correct form: missing for slope" in shown


@pytest.mark.parametrize(
    ("verdict", "codes", "expected"),
    [
        ("holds", [], "holds"),
        ("holds_other_layout", ["transpose"], "holds_other_layout"),
        ("refuted", ["wrong_l2", "missing_mean"], "refuted: missing_mean, wrong_l2"),
        ("refuted", ["sign", "sign"], "refuted: sign"),
    ],
)
def test_the_record_names_the_diagnosis_of_refuted_statements(verdict, codes, expected):
    findings = tuple(Finding(code, "", "") for code in codes)
    found = Verdict("f", "S1.1", "gradient", verdict, 1, None, None, None, findings, 0.0)
    assert derivations.outcome(found) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials is 0, expected at least 1"),
        (["--workers", "-1"], "--workers is -1, expected at least 0"),
        (["--timeout", "0"], "--timeout is 0.0, expected a positive number"),
        (
            ["--timeout", "9", "--workers", "0"],
            "--timeout is 9.0, expected only with worker processes",
        ),
    ],
)
def test_bad_usage_is_one_line_and_exit_status_2(tmp_path, capsys, arguments, message):
    assert derivations.main(["--out", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err == f"experiments.derivations: {message}\n"


WORKED = """
import jax.numpy as jnp
from jaxnn.verify import derivation, real

squares = derivation(
    of=lambda x: jnp.sum(x**2), wrt="x", kind="gradient", inputs={"x": real("n")}, source="S2.1"
)
squares.line("x + x", lambda x: x + x)
squares.line("-2 x", lambda x: -2 * x)
"""


@pytest.mark.parametrize(
    ("recorded", "status", "said"),
    [
        ("line 2: sign", 0, "passed: the wrong lines of the worked derivations: 1 derivations, 1"),
        ("line 1: sign", 1, "squares (line 2: sign; recorded: line 1: sign)"),
        ("", 1, "squares (line 2: sign; recorded: )"),
    ],
)
def test_the_wrong_line_of_a_derivation_is_the_recorded_line(
    tmp_path, monkeypatch, capsys, recorded, status, said
):
    file = tmp_path / "worked.py"
    file.write_text(WORKED)
    monkeypatch.setattr(derivations, "WRONG_LINES", {"squares": recorded})
    assert run(tmp_path, monkeypatch, worked=(file,)) == status
    assert said in capsys.readouterr().out


def test_the_worked_derivations_are_of_these_sections():
    assert {made.truth.source for made in worked()} == names(
        "S1.2 S2.1 S2.2 S2.3 S4.3 S4.4"
    ) | names("S5.2 S5.3 S5.4 S5.5")
    assert [made.name for made in worked()] == list(WRONG_LINES)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG_LINES)
def test_lines_equal_autodiff_up_to_the_wrong_line(name):
    (made,) = [made for made in worked() if made.name == name]
    wrong = int((re.findall(r"\d+", WRONG_LINES[name]) or ["0"])[0])
    with jax.enable_x64(True):
        for number, (line, case) in enumerate(zip(made.lines, made.places, strict=True), start=1):
            assert mathml(line.statement), line.statement
            if number != wrong and (name, number) != ("output_layer", 2):  # a transposed line
                assert differs_from_autodiff(line, case=case) is False, number
