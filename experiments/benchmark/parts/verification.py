"""Verification: trials per second, and the mistakes that get past each checker.

The trials are of a single claim, the Jacobian of the softmax of ten logits. The mistakes come from
``experiments.mutants``; all checkers see all mistakes at equal random points.
"""

import jax
import numpy as np

from experiments.benchmark import checkers as peers
from experiments.benchmark.part import Bench, Goal, Part, Results, Table, table
from experiments.mutants import CASES
from experiments.mutants.judging import outcomes
from experiments.mutants.pool import over_processes
from experiments.report import figures
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
    """The rates in turn, then the scores: a row for every checker, and for every number of points.

    A checker takes a trial at a time; jaxnn compares all trials with autodiff at once.
    """
    checkers, quick, workers = peers.present(), bench.config.quick, len(bench.cores)
    trials, checks = (QUICK_TRIALS, QUICK_CHECKS) if quick else (TRIALS, CHECKS)
    timed = [(None, trials), *((checker, checks) for checker in checkers.values())]
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        for each in timed:
            rate(each, 0)  # compiles
        found = bench.in_turn("trials per second", timed, rate)
    rates = [
        named(name) | {"rate": figures(each), "ratio": figures(np.divide(found[0], each))}
        for name, each in zip((JAXNN, *checkers), found, strict=True)
    ]
    cases = CASES[::QUICK_STEP] if quick else CASES
    points = QUICK_VERDICT_TRIALS if quick else VERDICT_TRIALS
    with bench.run.progress("mutants, jaxnn.verify") as report:
        said = outcomes(cases, [SEED], points, workers=workers, report=report)
    ours = peers.score([peers.of_outcome(outcome, JAXNN) for outcome in said], points)
    scores = [named(JAXNN) | {"points": points} | ours]
    with bench.run.progress("mutants, other checkers") as report:
        arguments = tuple(checkers), max(POINTS), SEED
        answers = over_processes(peers.examine, cases, *arguments, workers=workers, report=report)
    for name in checkers:
        findings = [finding for some in answers for finding in some if finding.checker == name]
        scores += [named(name) | {"points": n} | peers.score(findings, n) for n in POINTS]
    return {"rates": rates, "scores": scores}


def rate(timed: tuple[peers.Checker | None, int], seed: int) -> float:
    """Trials per second of a checker, or of jaxnn (None), with a number of trials."""
    checker, trials = timed
    if checker is None:
        return trials / seconds(compare, trials, seed)
    logits = np.random.default_rng(seed).normal(size=(trials, LOGITS))
    return trials / seconds(lambda: [checker.check_softmax(z) for z in logits])


def named(checker: str) -> dict[str, str]:
    """The checker, with the name in tables."""
    return {"checker": checker, "label": (peers.LABELS | {JAXNN: "jaxnn.verify"})[checker]}


def tables(results: Results) -> list[Table]:
    """The rates, and the scores with the classes of the mistakes that were not noticed."""
    rates, scores = results["verification"]["rates"], results["verification"]["scores"]
    title = f"Trials of one claim, the Jacobian of the softmax of {LOGITS} logits, float64"
    mistakes = "Mistakes that are not noticed: {mutants} mutants, {right} right derivations"
    notes = [SCORES_NOTE]
    for row in scores:
        if row["classes"] and row["points"] == max(POINTS):
            classes = sorted(row["classes"].items(), key=lambda pair: (-pair[1], pair[0]))
            listed = ", ".join(f"{name} ({count})" for name, count in classes)
            why = f"; {REASONS[row['checker']]}" if row["checker"] in REASONS else ""
            notes.append(f"{row['label']} does not notice at {max(POINTS)} points: {listed}{why}.")
    ordered = sorted(rates, key=lambda row: -row["rate"]["median"])
    return [
        table(title, ordered, RATES, [RATES_NOTE]),
        table(mistakes.format_map(scores[0]), scores, SCORES, notes),
    ]


def goals(results: Results) -> list[Goal]:
    """No mutant slips through."""
    ours = next(row for row in results["verification"]["scores"] if row["checker"] == JAXNN)
    what = f"mutants that slip through jaxnn.verify, of {ours['mutants']}"
    return [Goal(what, 0, ours["let_through"], "mutants", at_most=True)]


PARTS = {"verification": Part(measure, tables, goals)}
