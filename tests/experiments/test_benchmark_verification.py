"""Gradient checkers beside jaxnn: the mistakes that each notices. No time is asserted."""

import dataclasses
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import checkers
from experiments.benchmark.checkers import (
    LABELS,
    Finding,
    examine,
    of_outcome,
    points,
    score,
    state,
)
from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench
from experiments.benchmark.parts import verification
from experiments.mutants import CASES, CORRECT, MUTANTS, Case, judging
from experiments.mutants.judging import NOT_REFUTED, Outcome
from experiments.mutants.pool import over_processes
from jaxnn.verify import claim, positive, real, simplex, verify

X = {"x": real("n")}
W = {"w": real("n", "m"), "a": real("n"), "x": real("m")}


PYTORCH = ("torch_gradcheck", "torch_gradcheck_fast")


@pytest.fixture(params=LABELS)
def checker(request):
    """A checker's name."""
    if request.param in PYTORCH:
        pytest.importorskip("torch")
    return request.param


def rejects(checker, claimed, count=1):
    """Whether a checker rejects a claim at one of some points."""
    (finding,) = examine_claim(claimed, [checker], count)
    return finding.rejected_at < math.inf


def examine_claim(claimed, names, count):
    """``examine`` of a claim that is in no catalogue."""
    return examine(SimpleNamespace(claim=claimed, is_mutant=True), names, count, seed=0)  # pyright: ignore[reportArgumentType]


def squares(x):
    return jnp.sum(x**2)


def bilinear(w, a, x):
    return a @ w @ x


def gradient(of, formula, wrt: str | tuple[str, ...] = "x", inputs=X, **more):
    return claim(of=of, wrt=wrt, kind="gradient", inputs=inputs, **more)(formula)


KINDS = {
    "gradient": (gradient(squares, lambda x: 2 * x), lambda x: 2.01 * x),
    "gradient by two": (
        gradient(bilinear, lambda w, a, x: (jnp.outer(a, x), a @ w), ("w", "x"), W),
        lambda w, a, x: (jnp.outer(a, x), w @ x),
    ),
    "gradient by vec": (
        gradient(bilinear, lambda a, x: jnp.kron(x, a), "w", W, layout="vec"),
        lambda a, x: jnp.kron(a, x),
    ),
    "gradient by vec of rows": (
        gradient(bilinear, lambda a, x: jnp.kron(a, x), "w", W, layout="vec_rows"),
        lambda a, x: jnp.kron(x, a),
    ),
    "jacobian": (
        claim(of=lambda w, x: w @ x, wrt=("x", "w"), kind="jacobian", inputs=W)(
            lambda w, x: (w, jnp.einsum("ij,k->ijk", jnp.eye(len(w)), x))
        ),
        lambda w, x: (w, -jnp.einsum("ij,k->ijk", jnp.eye(len(w)), x)),
    ),
    "hessian": (
        claim(of=lambda x: jnp.sum(x**3), wrt="x", kind="hessian", inputs=X)(
            lambda x: jnp.diag(6 * x)
        ),
        lambda x: jnp.diag(3 * x),
    ),
    "update": (
        claim(of=squares, wrt="x", kind="update", inputs={**X, "rate": positive()})(
            lambda x, rate: x - rate * 2 * x
        ),
        lambda x, rate: x + rate * 2 * x,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checker_accepts_what_is_right_and_rejects_what_is_wrong(checker, kind):
    right, wrong = KINDS[kind]
    assert not rejects(checker, right, count=3)
    assert rejects(checker, dataclasses.replace(right, formula=wrong), count=3)


def test_a_shape_that_does_not_fit_is_rejected(checker):
    assert rejects(checker, gradient(squares, lambda x: 2 * x[:-1]))
    assert rejects(checker, gradient(bilinear, lambda a, x: jnp.outer(x, a), "w", W))


OF_THREE = gradient(lambda x: jnp.mean(x**2), lambda x: 2 * x / 3)


def test_a_mistake_at_other_sizes_is_let_through(checker):
    assert not rejects(checker, OF_THREE, count=10)


def test_a_mistake_at_other_sizes_is_seen_by_jaxnn():
    assert verify(OF_THREE, trials=10).verdict == "refuted"


def test_only_chex_does_not_mind_three_thousandths(checker):
    off = gradient(lambda x: jnp.sum(jnp.sin(x)), lambda x: jnp.cos(x) + 0.003)
    assert rejects(checker, off) == (checker != "chex_numerical_grads")


def test_pytorch_sums_a_gradient_over_axes_that_its_parameter_does_not_have(checker):
    by_row = gradient(
        lambda w, b, x: jnp.sum((w @ x)[:, None] * b[None]),
        lambda w, b, x: (w @ x)[:, None] * jnp.ones_like(b),
        "b",
        {"w": real("k", "n"), "b": real("n"), "x": real("n")},
    )
    assert rejects(checker, by_row) == (checker not in PYTORCH)


def test_several_matrices_by_rows_look_right_to_the_naive_checker(checker):
    flat = gradient(bilinear, lambda w, a, x: (jnp.kron(a, x), a @ w), ("w", "x"), W)
    assert rejects(checker, flat) == (checker != "gradcheck_naive")


def test_a_value_cannot_be_asked_about(checker):
    value = claim(of=lambda p: -p, kind="value", inputs={"p": simplex("n")})(lambda p: p)
    (finding,) = examine_claim(value, [checker], 1)
    assert (finding.stated, finding.rejected_at) == (False, math.inf)


def test_the_first_point_that_is_rejected_counts(checker):
    where_positive = gradient(squares, lambda x: jnp.where(x[0] > 0, 2 * x, 3 * x))
    drawn = points(where_positive, 10, seed=0)
    expected = next(i for i, point in enumerate(drawn) if point.parts[0][0] <= 0)
    assert expected > 0
    (finding,) = examine_claim(where_positive, [checker], 10)
    assert finding.rejected_at == expected


def test_a_checker_leaves_the_points_as_they_were(checker):
    for kind in ("gradient", "gradient by two"):
        claimed, _ = KINDS[kind]
        (point,), (as_drawn,) = points(claimed, 1, seed=0), points(claimed, 1, seed=0)
        statement = state(claimed)
        assert statement is not None
        with jax.enable_x64(True):
            checkers.load(checker).check_of(statement)(point)
        for part, drawn in zip(point.parts, as_drawn.parts, strict=True):
            assert part.tolist() == drawn.tolist()


def test_a_point_is_by_columns_where_the_claim_says_so():
    for layout, order in (("vec", "F"), ("vec_rows", "C")):
        claimed = gradient(bilinear, lambda a, x: a, "w", W, layout=layout)
        ((part,), inputs), _ = points(claimed, 2, seed=0)
        assert part.tolist() == inputs["w"].flatten(order).tolist()


@pytest.mark.usefixtures("x64")
def test_the_jacobian_of_the_softmax_is_right(checker):
    checkers.load(checker).check_softmax(np.random.default_rng(0).normal(size=10))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["jax_check_grads", "chex_numerical_grads"])
def test_a_wrong_jacobian_of_the_softmax_is_noticed_by_jax_and_chex(monkeypatch, name):
    wrong = checkers.SOFTMAX._replace(derivative=lambda parts, _: [10 * jnp.eye(10)])
    monkeypatch.setattr(checkers, "SOFTMAX", wrong)
    with pytest.raises(AssertionError):
        checkers.load(name).check_softmax(np.linspace(0.0, 3.0, 10))


@pytest.mark.parametrize("name", PYTORCH)
def test_a_wrong_jacobian_of_the_softmax_is_noticed_by_pytorch(monkeypatch, name):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "outer", lambda p, q: torch.zeros(len(p), len(q)))
    with pytest.raises(RuntimeError, match=r"Jacobian|fast mode"):
        checkers.load(name).check_softmax(np.linspace(0.0, 3.0, 10))


def test_the_naive_checker_is_asked_about_every_row_of_the_jacobian(monkeypatch):
    asked = []
    monkeypatch.setattr(checkers, "gradcheck_naive", lambda f, x: asked.append(f(x)))
    checkers.load("gradcheck_naive").check_softmax(np.log([1.0, 3.0]))
    values, rows = zip(*asked, strict=True)
    np.testing.assert_allclose(values, [0.25, 0.75])
    np.testing.assert_allclose(rows, [[0.1875, -0.1875], [-0.1875, 0.1875]])


def found(index, rejected_at, *, is_mutant=True, stated=True):
    return Finding("some", Case(is_mutant, index), stated, rejected_at)


def test_what_a_checker_lets_through_is_counted():
    sign = next(i for i, mutant in enumerate(MUTANTS) if mutant.true_class == "sign")
    findings = [
        found(sign, 0),
        found(sign, 9),
        found(sign, 10),
        found(sign, math.inf),
        found(sign, math.inf, stated=False),
        found(0, math.inf, is_mutant=False),
        found(1, 4, is_mutant=False),
        found(2, math.inf, is_mutant=False, stated=False),
    ]
    one, ten = (score(findings, count) for count in (1, 10))
    assert ten == {
        "mutants": 5,
        "right": 3,
        "let_through": 3,
        "not_stated": 1,
        "false_alarms": 1,
        "classes": {"sign": 2},
        "survivors": [MUTANTS[sign].claim.name] * 2,
    }
    assert (one["let_through"], one["false_alarms"]) == (4, 0)


@pytest.mark.parametrize(
    ("is_mutant", "judgement", "rejected"),
    [
        (True, "right", True),
        (True, "unknown", True),
        (True, "wrong", True),  # another mistake was named: it did not slip through
        (True, NOT_REFUTED, False),
        (False, "right", False),
        (False, "wrong", True),
    ],
)
def test_a_verdict_of_jaxnn_counts_as_a_checkers_answer(is_mutant, judgement, rejected):
    outcome = Outcome(Case(is_mutant, 0), 0, "", (), judgement, "")
    assert (of_outcome(outcome, "jaxnn").rejected_at < 1) == rejected


def test_cases_are_dealt_out_to_processes_and_come_back_in_order():
    reports = []
    results = over_processes(
        tuple, CASES[-3:], workers=1, report=lambda *done: reports.append(done)
    )
    assert results == list(map(tuple, CASES[-3:]))
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_the_catalogue_has_every_case_once():
    assert [case.claim for case in CASES] == [*CORRECT, *(mutant.claim for mutant in MUTANTS)]


def score_row(name, count, let_through, classes):
    return {
        **verification.named(name),
        "points": count,
        "mutants": 313,
        "right": 91,
        "let_through": let_through,
        "not_stated": 12,
        "false_alarms": 0,
        "classes": classes,
        "survivors": [],
    }


def rate_row(name, rate):
    return {
        **verification.named(name),
        "rate": {"median": rate, "values": [rate]},
        "ratio": {"median": 1e6 / rate, "values": [1e6 / rate]},
    }


def results(slipped=0):
    return {
        "verification": {
            "rates": [rate_row("torch_gradcheck", 500.0), rate_row("jaxnn", 1e6)],
            "scores": [
                score_row("jaxnn", 1000, slipped, {}),
                score_row("torch_gradcheck", 1, 17, {"shape": 3, "factor": 2}),
                score_row("torch_gradcheck", 10, 16, {"factor": 1, "shape": 3}),
            ],
        }
    }


def test_tables_show_the_rates_and_what_is_let_through():
    rates, mistakes = verification.tables(results())
    assert rates.rows == [
        ("jaxnn.verify", "1,000,000", "1"),
        ("torch.autograd.gradcheck", "500", "2,000"),
    ]
    assert "313 mutants, 91 right derivations" in mistakes.title
    assert mistakes.rows[0] == ("jaxnn.verify", "1,000", "0", "12", "0")
    assert mistakes.rows[2] == ("torch.autograd.gradcheck", "10", "16", "12", "0")
    _, note = mistakes.notes
    assert "torch.autograd.gradcheck does not notice at 10 points: shape (3), factor (1)" in note


def test_no_mutant_may_slip_through():
    (goal,) = verification.goals(results())
    assert goal.reached
    (goal,) = verification.goals(results(slipped=1))
    assert goal.measured == 1
    assert not goal.reached


@pytest.fixture
def bench(monkeypatch):
    """Measures in this process, of the mutants one alone."""

    def here(function, cases, *arguments, workers, report):
        assert workers == 2
        return [function(case, *arguments) for case in cases]

    monkeypatch.setattr(verification, "over_processes", here)
    monkeypatch.setattr(judging, "over_processes", here)
    monkeypatch.setattr(verification, "QUICK_STEP", 250)
    monkeypatch.setattr(verification, "QUICK_VERDICT_TRIALS", 20)
    run = SimpleNamespace(progress=lambda label: nullcontext(lambda done, total: None))
    config = BenchmarkConfig(dataset="digits", seeds=2, quick=True)
    return Bench(config, run, Path(), (0, 1))


@pytest.mark.slow
def test_everything_is_measured_with_what_is_missing_left_out(bench, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    checkers.load.cache_clear()
    measured = verification.measure(bench)
    shown = capsys.readouterr().out
    assert all(f"{LABELS[name]} is left out: " in shown for name in PYTORCH)
    others = [name for name in LABELS if name not in PYTORCH]
    assert [row["checker"] for row in measured["rates"]] == ["jaxnn", *others]
    for row in measured["rates"]:
        ours = measured["rates"][0]["rate"]["values"]
        np.testing.assert_allclose(row["ratio"]["values"], np.divide(ours, row["rate"]["values"]))
        assert len(ours) == 2
    first, *rows = measured["scores"]
    assert (first["checker"], first["mutants"], first["right"]) == ("jaxnn", 1, 1)
    assert [(row["checker"], row["points"]) for row in rows] == [
        (name, count) for name in others for count in (1, 10)
    ]
    assert all(row["let_through"] == row["false_alarms"] == 0 for row in measured["scores"])
    verification.tables({"verification": measured})


def test_a_rate_is_of_trials_per_second(monkeypatch):
    monkeypatch.setattr(verification, "seconds", lambda function, *arguments: 0.5)
    assert verification.rate((None, 100), seed=0) == 200
    assert verification.rate((checkers.load("gradcheck_naive"), 10), seed=0) == 20
