"""Verification: trials per second, and the mistakes that get past each checker.

The trials are of a single claim, the Jacobian of the softmax of ten logits. The mistakes come from
``experiments.mutants``; all checkers see all mistakes at equal random points.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.benchmark import checkers as peers
from experiments.benchmark.part import Bench, Goal, Part, Results, Table, figures, table
from experiments.mutants import CASES
from experiments.mutants.judging import outcomes
from experiments.mutants.pool import over_processes
from experiments.verification_speed import LOGITS, compare, seconds

JAXNN = "jaxnn"
TRIALS, QUICK_TRIALS = 10_000, 100  # of a claim
CHECKS, QUICK_CHECKS = 50, 2  # of checkers that take a trial at a time
VERDICT_TRIALS, QUICK_VERDICT_TRIALS = 1_000, 100  # of every claim of the catalogue
POINTS = 1, 10  # of the peers
QUICK_STEP = 60  # every 60th claim
SEED = 0
SUMS = "PyTorch sums a gradient over the axes that its parameter does not have"
REASONS = {
    "torch_gradcheck": SUMS,
    "torch_gradcheck_fast": SUMS,
    "chex_numerical_grads": "it allows 0.01 times the size of the first argument",
    "gradcheck_naive": "all parameters are one vector, in which a matrix by rows looks right",
}
RATES = {
    "": "{label}",
    "trials per second": "{rate[median]:,.0f}",
    "jaxnn.verify's / its": "{ratio[median]:,.0f}",
}
SCORES = {
    "": "{label}",
    "random points": "{points:,}",
    "mutants let through": "{let_through}",
    "of these, cannot be asked about": "{not_stated}",
    "right derivations rejected": "{false_alarms}",
}
RATES_NOTE = (
    "jaxnn.verify compares all trials with autodiff at once, the others one after another with "
    "finite differences; jaxnn's awkward inputs in high precision are not in this rate."
)
SCORES_NOTE = "A gradient checker cannot be asked whether a value is right."


def measure(bench: Bench) -> Results:
    """The rates in turn, then the scores."""
    checkers = peers.present()
    return {"rates": measure_rates(bench, checkers), "scores": measure_scores(bench, checkers)}


def measure_rates(bench: Bench, checkers: Mapping[str, peers.Checker]) -> list[dict[str, Any]]:
    """Trials per second, a row per checker."""
    trials, checks = (QUICK_TRIALS, QUICK_CHECKS) if bench.config.quick else (TRIALS, CHECKS)
    timed: dict[str, Callable[[int], float]] = {JAXNN: lambda seed: compared(trials, seed)}
    for name, checker in checkers.items():
        timed[name] = lambda seed, checker=checker: checked(checker, checks, seed)
    rates = {name: [] for name in timed}
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        for rate in timed.values():
            rate(0)  # compiles
        for seed, name in bench.turns("trials per second", bench.config.seeds, list(timed)):
            rates[name].append(timed[name](seed))
    ratios = {name: figures(np.divide(rates[JAXNN], found)) for name, found in rates.items()}
    return [
        named(name) | {"rate": figures(found), "ratio": ratios[name]}
        for name, found in rates.items()
    ]


def compared(trials: int, seed: int) -> float:
    """Trials per second of jaxnn, which compares all trials with autodiff at once."""
    return trials / seconds(compare, trials, seed)


def checked(checker: peers.Checker, checks: int, seed: int) -> float:
    """Trials per second of a checker, which compares a trial at a time with finite differences."""
    logits = np.random.default_rng(seed).normal(size=(checks, LOGITS))
    return checks / seconds(lambda: [checker.check_softmax(z) for z in logits])


def measure_scores(bench: Bench, checkers: Mapping[str, peers.Checker]) -> list[dict[str, Any]]:
    """Every checker on the catalogue, one row for every checker and number of points."""
    cases = CASES[::QUICK_STEP] if bench.config.quick else CASES
    trials = QUICK_VERDICT_TRIALS if bench.config.quick else VERDICT_TRIALS
    workers = len(bench.cores)
    with bench.run.progress("mutants, jaxnn.verify") as report:
        said = outcomes(cases, [SEED], trials, workers=workers, report=report)
    ours = [peers.of_outcome(outcome, JAXNN) for outcome in said]
    rows = [named(JAXNN) | {"points": trials} | peers.score(ours, trials)]
    with bench.run.progress("mutants, other checkers") as report:
        found = over_processes(
            peers.examine, cases, tuple(checkers), max(POINTS), SEED, workers=workers, report=report
        )
    for name in checkers:
        findings = [finding for some in found for finding in some if finding.checker == name]
        rows += [named(name) | {"points": n} | peers.score(findings, n) for n in POINTS]
    return rows


def named(checker: str) -> dict[str, Any]:
    """The checker, with the name in tables."""
    return {
        "checker": checker,
        "label": "jaxnn.verify" if checker == JAXNN else peers.LABELS[checker],
    }


def tables(results: Results) -> list[Table]:
    """The rates, and the scores with the classes of the mistakes that were not noticed."""
    rates, scores = results["verification"]["rates"], results["verification"]["scores"]
    title = f"Trials of one claim, the Jacobian of the softmax of {LOGITS} logits, float64"
    mistakes = "Mistakes that are not noticed: {mutants} mutants, {right} right derivations"
    notes = [note(row) for row in scores if row["classes"] and row["points"] == max(POINTS)]
    ordered = sorted(rates, key=lambda row: -row["rate"]["median"])
    return [
        table(title, ordered, RATES, [RATES_NOTE]),
        table(mistakes.format_map(scores[0]), scores, SCORES, [SCORES_NOTE, *notes]),
    ]


def note(row: Results) -> str:
    """The classes of the judged mistakes that a checker does not notice, and the reason."""
    classes = sorted(row["classes"].items(), key=lambda pair: (-pair[1], pair[0]))
    listed = ", ".join(f"{name} ({count})" for name, count in classes)
    why = f"; {REASONS[row['checker']]}" if row["checker"] in REASONS else ""
    return f"{row['label']} does not notice at {row['points']} points: {listed}{why}."


def goals(results: Results) -> list[Goal]:
    """No mutant slips through."""
    ours = next(row for row in results["verification"]["scores"] if row["checker"] == JAXNN)
    what = f"mutants that slip through jaxnn.verify, of {ours['mutants']}"
    return [Goal(what, 0, ours["let_through"], "mutants", at_most=True)]


PART = Part(measure, tables, goals)
