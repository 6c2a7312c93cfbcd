"""The worked examples: every printed number is compared, and a wrong one is seen."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import worked_examples
from experiments.worked_examples import compare, crossEntropyLogit
from jaxnn import closed_form


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the command leaves behind."""
    out = tmp_path_factory.mktemp("worked_examples")
    assert worked_examples.main(["--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "results.json").read_text())["results"]


@pytest.mark.parametrize(("example", "count"), [("S1.2b", 3), ("S1.3", 14), ("S3.4", 18)])
def test_every_printed_number_agrees(results, example, count):
    rows = [row for row in results["comparisons"] if row["example"] == example]
    assert [row["agrees"] for row in rows] == [True] * count


def test_the_misprints_of_s2_5_are_the_only_disagreements(results):
    rows = [row for row in results["comparisons"] if not row["agrees"]]
    assert [row["quantity"] for row in rows] == ["dz2/db2 = 1_{1x3}", "the unvec's shape"]
    assert all(row["misprint"] for row in rows)


@pytest.mark.parametrize("iteration", [1, 2])
def test_every_intermediate_value_of_s1_3_is_there(results, iteration):
    quantities = [row["quantity"] for row in results["comparisons"] if row["example"] == "S1.3"]
    expected = [f"iteration {iteration}: {name}" for name in ("Z", "p", "dZ", "dW", "db", "W", "b")]
    assert [quantity for quantity in quantities if quantity in expected] == expected


def test_the_measured_values_are_in_the_results_in_full(results):
    (hidden,) = (row["measured"] for row in results["comparisons"] if row["quantity"] == "step: H")
    assert hidden == pytest.approx([1 / (1 + np.exp(-4)), 0.5], rel=1e-14)


def test_history_has_a_row_per_comparison(folder, results):
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["quantity"] for row in rows] == [row["quantity"] for row in results["comparisons"]]
    assert results["compared"] == len(rows)


def test_the_table_shows_each_value_beside_the_printed_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    worked_examples.main(["--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "iteration 2: p " in line)
    assert "[[0.6225, 0.3775], [0.3775, 0.6225]]" in line
    assert "[[0.62245933, 0.37754067], [0.37754067, 0.62245933]]" in line
    assert line.rstrip().endswith("agrees")


def test_a_wrong_formula_is_seen_and_makes_the_exit_status_1(tmp_path, capsys, monkeypatch):
    right = closed_form.cross_entropy_gradient
    monkeypatch.setattr(closed_form, "cross_entropy_gradient", lambda z, y: 1.001 * right(z, y))
    assert worked_examples.main(["--out", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "FAILED: S1.2b, crossEntropyLogit: not as expected: dz" in output
    assert "passed: S2.5" in output


@pytest.mark.parametrize(
    ("printed", "measured", "agrees"),
    [
        ("0.25", 0.2549, True),
        ("0.25", 0.2551, False),
        ("-0.25", -0.2549, True),
        ("-0.25", 0.25, False),
        ("0.2500", 0.2549, False),
        ("1.04376…", 1.0437699, True),
        ("1.04376…", 1.0437599, False),
        ("1.04376…", 1.0437701, False),
        ("-1.04376…", -1.0437699, True),
        ("3", 3.0, True),
        ("3", 3.1, False),
        ("[0.982, 0.5]", [0.98201, 0.5004], True),
        ("[0.982, 0.5]", [0.98201, 0.5006], False),
        ("[1, 1, 1]", [1.0], False),
        ("[[1, 2]]", [1.0, 2.0], False),
        ("0.5", np.nan, False),
    ],
)
def test_agreement_is_to_the_printed_digits_in_the_printed_shape(printed, measured, agrees):
    assert compare("S0", "x", printed, np.array(measured)).agrees == agrees


def test_exact_numbers_have_to_agree_exactly():
    assert compare("S0", "x", "0.25", np.array(0.25), exact=True).agrees
    assert not compare("S0", "x", "0.25", np.array(0.2501), exact=True).agrees


@pytest.mark.parametrize(
    ("measured", "misprint", "verdict"),
    [
        (1.0, "", "agrees"),
        (2.0, "", "DISAGREES"),
        (2.0, "it is 2", "misprint: it is 2"),
        (1.0, "it is 2", "AGREES, but was thought a misprint"),
    ],
)
def test_the_verdict_is_as_expected_or_in_capitals(measured, misprint, verdict):
    comparison = compare("S0", "x", "1", np.array(measured), misprint=misprint)
    assert comparison.verdict == verdict
    assert comparison.as_expected == verdict.startswith(("agrees", "misprint"))


def test_cross_entropy_logit_is_the_mean_over_columns_of_any_probabilities():
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(4, 7)), rng.dirichlet(np.ones(4), 7).T
    code = crossEntropyLogit()
    expected = optax.softmax_cross_entropy(jnp.array(z.T), jnp.array(y.T)).mean()
    assert code.doForward(z, y) == pytest.approx(float(expected), rel=1e-5)
    p = np.exp(z) / np.exp(z).sum(axis=0)
    np.testing.assert_allclose(code.doBackward(y), (p - y) / 7, rtol=1e-12)


def test_cross_entropy_logit_takes_and_gives_numpy_in_float64_whatever_jax_is_set_to():
    code = crossEntropyLogit()
    assert isinstance(code.doForward([[0, 1]], [[1, 1]]), float)
    gradient = code.doBackward([[1, 1]])
    assert isinstance(gradient, np.ndarray)
    assert gradient.dtype == np.float64


def test_cross_entropy_logit_does_not_follow_later_changes_of_its_input():
    z, y, code = np.zeros((2, 1)), np.array([[1.0], [0.0]]), crossEntropyLogit()
    code.doForward(z, y)
    z[0] = 100
    assert code.doBackward(y).tolist() == [[-0.5], [0.5]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda code: code.doBackward(np.eye(2)), "doBackward needs the z of a doForward"),
        (lambda code: code.doForward(np.eye(2), np.eye(3)), r"got \(2, 2\) and \(3, 3\)"),
        (lambda code: code.doForward(np.ones(2), np.ones(2)), r"got \(2,\) and \(2,\)"),
    ],
)
def test_cross_entropy_logit_refuses_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call(crossEntropyLogit())


def test_bad_usage_is_one_line_and_exit_status_2(tmp_path, capsys):
    assert worked_examples.main(["--out", str(tmp_path), "--seeds", "0"]) == 2
    assert capsys.readouterr().err == "experiments.worked_examples: Unknown option: --seeds.\n"
