"""Derivations with a broken line: how often the line is located, and how long that takes.

``PYTHONPATH=. python tests/verify/broken_lines.py [--chains N] [--right N] [--seed N] [--trials N]
[--workers N] [--diagnose] [--speed]`` writes right formulas of the catalogues in several equal
lines, by identities applied to their operations (``rewriting.py``). In a broken chain a wrong
formula of the catalogues takes the place of the right one from a random line on; the lines below
follow from the wrong line, or are right again from a second random line on. Exit status 0 when
99 % of the broken lines are located, and no right chain is refuted. With ``--speed`` the sources'
derivations are timed instead, beside their lines as claims.
"""

import argparse
import dataclasses
import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple
from unittest.mock import patch

import jax

from experiments.claims import expected, s1, s2, s2_affine, s3, s3_network, s4, s5
from experiments.mutants import CORRECT, FAMILIES
from experiments.mutants.pool import over_processes
from jaxnn.reporting import progress
from jaxnn.verify import Claim, Derivation, Verdict, comparison, verification, verify
from jaxnn.verify.inputs import draw_sizes, is_input
from jaxnn.verify.worker import load_claims
from tests.verify import unseen
from tests.verify.rewriting import IDENTITIES, applies, rewritten

LOCATED = 0.99
"""The share of the broken lines that have to be located."""

Formula = Callable[..., Any]

WORKED = "experiments/claims/derivations.py"

MODULES = (s1, s2, s2_affine, s3, s3_network, s4, s5)


class Pair(NamedTuple):
    """A right formula of a claim's function, and a wrong one."""

    catalogue: str
    claim: Claim
    right: Formula
    wrong: Formula | None


class Chain(NamedTuple):
    """A derivation with the line that is broken, and the line that is right again."""

    catalogue: str
    derivation: Derivation
    broken: int | None
    repaired: int | None


class Outcome(NamedTuple):
    """What verification says of a chain."""

    chain: str
    catalogue: str
    lines: int
    expected: tuple[int | None, int | None]
    found: tuple[int | None, int | None]
    verdicts: tuple[str, ...]
    seconds: float

    @property
    def is_located(self) -> bool:
        """Whether the first wrong line is the broken line."""
        return self.found[0] == self.expected[0]


@cache
def pairs() -> list[Pair]:
    """Right and wrong formulas of the catalogues."""
    found = [
        Pair("experiments.mutants", mutant.claim, family.correct[0].formula, mutant.claim.formula)
        for family in FAMILIES
        for mutant in family.mutants
        if mutant.verdict == "refuted"
    ]
    found += [
        Pair("experiments.claims", made.corrects, made.formula, made.corrects.formula)
        for made in statements()
        if made.corrects is not None
        and made.corrects.of is made.of
        and expected.EXPECTED[made.corrects.name].startswith("refuted")
    ]
    found += [
        Pair("unseen", mistake.claim, by_autodiff(mistake.claim), mistake.claim.formula)
        for mistake in unseen.MISTAKES
        if mistake.claim.layout is None and not {"transpose", "vec_order"} & codes(mistake.codes)
    ]
    return found


def codes(text: str) -> set[str]:
    """The codes of ``a|b+c``."""
    return {code for alternative in text.split("|") for code in alternative.split("+")}


def statements() -> list[Claim]:
    """The claims of the sources."""
    found = [made for module in MODULES for made in vars(module).values()]
    return list({id(made): made for made in found if isinstance(made, Claim)}.values())


@cache
def right_ones() -> list[Pair]:
    """Right formulas of the catalogues."""
    holding = [made for made in statements() if expected.EXPECTED[made.name].startswith("hold")]
    found = [Pair("experiments.mutants", made, made.formula, None) for made in CORRECT]
    return found + [
        Pair("experiments.claims", made, made.formula, None)
        for made in holding
        if expected.EXPECTED[made.name] != "holds_other_layout"
    ]


def by_autodiff(claim: Claim) -> Formula:
    """The derivative by JAX, as a formula to be rewritten."""
    names = list(claim.inputs)
    return eval(  # a function with the names of the inputs as parameters
        f"lambda {', '.join(names)}: derivative(dict({', '.join(f'{n}={n}' for n in names)}))",
        {"derivative": comparison.reference(claim), "dict": dict},
    )


def chain(number: int, seed: int, is_broken: bool) -> Chain:
    """The chain of a number."""
    rng = random.Random(f"{seed} {number} {is_broken}")
    pool = [*pairs()] if is_broken else [*right_ones()]
    random.Random(seed).shuffle(pool)
    pair = pool[number % len(pool)]
    length = rng.randint(3, 7)
    right = lines(pair.right, pair.claim, length, rng)
    broken = repaired = None
    if pair.wrong is not None:
        broken = rng.randint(1, length)
        if broken < length and rng.random() < 0.5:
            repaired = rng.randint(broken + 1, length)
        count = (repaired or length + 1) - broken
        right[broken - 1 : broken - 1 + count] = lines(pair.wrong, pair.claim, count, rng)
    truth = dataclasses.replace(pair.claim, formula=lambda: (), certify=False)
    made = Derivation(truth, f"{number}: {pair.claim.name}")
    for _, formula in right:
        made.line("", formula)
    return Chain(pair.catalogue, made, broken, repaired)


def lines(
    formula: Formula, claim: Claim, count: int, rng: random.Random
) -> list[tuple[str, Formula]]:
    """A formula, and equal formulas: each follows from the one before by an identity.

    A formula that raises an exception is repeated as it is.
    """
    sizes = draw_sizes(claim.inputs, 0)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.resolve(sizes), float),
        {**claim.inputs},
        is_leaf=is_input,
    )
    found = [("as given", formula)]
    identities = list(IDENTITIES)
    rng.shuffle(identities)
    for identity in itertools.chain(identities, identities):
        if len(found) == count:
            break
        if _applies(found[-1][1], identity, shapes):
            found.append((identity, rewritten(found[-1][1], identity)))
    return (found * count)[:count] if len(found) == 1 else (found + [found[-1]] * count)[:count]


def _applies(formula: Formula, identity: str, shapes: Any) -> bool:
    try:
        with jax.enable_x64(True):
            return applies(formula, identity, shapes)
    except Exception:  # of a formula with shapes that do not fit, or of labels given as floats
        return False


def judged(number: int, seed: int, is_broken: bool, trials: int, diagnosed: bool = True) -> Outcome:
    """The verdict of verification on a chain, with diagnoses or without."""
    made = chain(number, seed, is_broken)
    began = time.perf_counter()
    with nullcontext() if diagnosed else patch.object(verification, "_diagnosed", undiagnosed):
        verdict = verify(made.derivation, trials=trials)
    seconds = time.perf_counter() - began
    return Outcome(
        verdict.name,
        made.catalogue,
        len(verdict.lines),
        (made.broken, made.repaired),
        (verdict.first_wrong, verdict.repaired_by),
        tuple(f"{line.verdict} {line.step.outcome if line.step else ''}" for line in verdict.lines),
        seconds,
    )


def undiagnosed(claim: Claim, sizes: dict[str, int], seed: int, refuted: Verdict) -> Verdict:
    """The verdict as it is: a diagnosis takes longer, and does not change which line is wrong."""
    return refuted


def report(broken: Sequence[Outcome], right: Sequence[Outcome]) -> tuple[list[str], bool]:
    """The report as lines, and whether every requirement is met."""
    located = sum(outcome.is_located for outcome in broken)
    mended = [outcome for outcome in broken if outcome.expected[1] is not None]
    repaired = sum(outcome.found == outcome.expected for outcome in mended)
    refuted = [outcome for outcome in right if outcome.found[0] is not None]
    share = located / len(broken) if broken else 1.0
    missed = [*refuted, *(outcome for outcome in broken if outcome.found != outcome.expected)]
    text = [
        f"broken chains            {len(broken):6}",
        *(f"  of {name:22}{n:6}" for name, n in Counter(o.catalogue for o in broken).items()),
        f"  located                {located:6}  {share:.1%} (required: {LOCATED:.0%})",
        f"  repaired by a line     {len(mended):6}",
        f"    line and repair named{repaired:6}",
        f"right chains             {len(right):6}",
        *(f"  of {name:22}{n:6}" for name, n in Counter(o.catalogue for o in right).items()),
        f"  refuted                {len(refuted):6}  (required: 0)",
        _seconds("a line of a broken chain", broken),
        _seconds("a line of a right chain", right),
        "",
        *(f"{o.chain}: expected {o.expected}, found {o.found}; {o.verdicts}" for o in missed),
    ]
    return text, share >= LOCATED and not refuted


def _seconds(what: str, outcomes: Sequence[Outcome]) -> str:
    each = sum(o.seconds for o in outcomes) / max(1, sum(o.lines for o in outcomes))
    return f"{what:25}{each:6.2f}  s (mean)"


def speed() -> list[str]:
    """The seconds of the sources' derivations, and of their lines as claims, compiled anew."""
    rows, total = [], [0.0, 0.0]
    for made in load_claims(WORKED):
        assert isinstance(made, Derivation)
        claims = [dataclasses.replace(line, truth=None) for line in made.lines]
        took = [_timed([made]), _timed(claims)]
        rows.append(_row(f"{made.name}, {len(claims)} lines", took))
        total = [a + b for a, b in zip(total, took, strict=True)]
    return [*rows, _row("all", total)]


def _row(name: str, took: Sequence[float]) -> str:
    return f"{name:36}{took[0]:8.2f} s, as claims {took[1]:8.2f} s of the processor"


def _timed(claims: Sequence[Any]) -> float:
    for cached in (jax.clear_caches, comparison.trace_claim.cache_clear):
        cached()
    began = time.process_time()
    for made in claims:
        verify(made)
    return time.process_time() - began


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chains", type=int, default=200, help="chains with a broken line")
    parser.add_argument("--right", type=int, default=100, help="chains without")
    parser.add_argument("--seed", type=int, default=0, help="of the chains")
    parser.add_argument("--trials", type=int, default=1000, help="random trials for every line")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--diagnose", action="store_true", help="with diagnoses, which take longer")
    parser.add_argument("--speed", action="store_true", help="time the sources' derivations")
    arguments = parser.parse_args()
    if arguments.speed:
        print("\n".join(speed()))
        return 0
    from tests.verify.broken_lines import judged as in_process  # processes import the function

    found = []
    for is_broken, count in ((True, arguments.chains), (False, arguments.right)):
        with progress("chains") as done:
            found.append(
                over_processes(
                    in_process,
                    range(count),
                    arguments.seed,
                    is_broken,
                    arguments.trials,
                    arguments.diagnose,
                    workers=arguments.workers,
                    report=done,
                )
            )
    text, met = report(*found)
    print("\n".join(text))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
