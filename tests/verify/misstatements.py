"""Mutated statements: the LaTeX of the sources' claims with one mistake, compared with the code.

``PYTHONPATH=. python tests/verify/misstatements.py [--count N] [--seed N] [--all]`` reads every
statement of ``experiments/claims``, then mutates those that agree with their code, and compares
mutants with the code of the unchanged claim until ``--count`` of them could be read. Exit status 0
when at least 80 statements agree, none differs, and no mutant agrees. Mutants with the meaning of
the statement are left out by the reasons of ``EQUIVALENT``, found by hand.
"""

import argparse
import importlib
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax

from jaxnn.reporting import progress
from jaxnn.verify.claims import Claim
from jaxnn.verify.inputs import is_input
from jaxnn.verify.verdict import Statement
from jaxnn.verify.verification import check_statement

FILES = ("s1", "s2", "s2_affine", "s3", "s3_network", "s4", "s5")

FEWEST = 80
"""Statements that are to agree with their code."""

SHIFT = "softmax(x + c) is softmax(x)"

ZERO = "b_2 is (0)"

ROW = "W_2 stands for the single row of W_2, a list of numbers, whose entries a transpose keeps"

EQUIVALENT: dict[str, str] = {
    r"shifted_softmax: \operatorname{softmax}(x) = \operatorname{softmax}(x )": SHIFT,
    r"shifted_softmax: \operatorname{softmax}(x) = \operatorname{softmax}(x - c)": SHIFT,
    r"softmax_with_offset: \operatorname{softmax}(x) = \operatorname{softmax}(x )": SHIFT,
    r"softmax_with_offset: \operatorname{softmax}(x) = \operatorname{softmax}(x - c)": SHIFT,
    r"f_as_affine_map: f(x) = W_2 x , \quad W_2 = [1, -2, \tfrac{1}{4}],\; b_2 = (0)": ZERO,
    r"f_as_affine_map: f(x) = W_2 x - b_2, \quad W_2 = [1, -2, \tfrac{1}{4}],\; b_2 = (0)": ZERO,
    r"composition_of_f_and_g: (f \circ g)(x) = W_2 (W_1 x + b_1) ": ZERO,
    r"composition_of_f_and_g: (f \circ g)(x) = W_2 (W_1 x + b_1) - b_2": ZERO,
    **{
        r"output_by_vec_first_weights: \frac{\partial (f \circ g)}{\partial "
        r"\operatorname{vec}[W_1]} = \left[ " + ", ".join(entries) + r" \right]": ROW
        for entries in (
            (r"(W_2^\top)_1 x^\top", r"(W_2)_2 x^\top", r"(W_2)_3 x^\top"),
            (r"(W_2)_1 x^\top", r"(W_2^\top)_2 x^\top", r"(W_2)_3 x^\top"),
            (r"(W_2)_1 x^\top", r"(W_2)_2 x^\top", r"(W_2^\top)_3 x^\top"),
        )
    },
}
"""By ``name: mutated statement`` the reason for the equality with the statement."""

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+|[A-Za-z]|\s+|.")

WORDS = (r"\operatorname", r"\mathrm", r"\text", r"\begin", r"\end", r"\mathbb")

FUNCTIONS = {
    r"\log": r"\exp",
    r"\exp": r"\log",
    r"\sum": r"\prod",
    r"\prod": r"\sum",
    r"\max": r"\min",
    r"\sigma": r"\tanh",
    r"\circ": "+",
    ">": "<",
}


class Mutant(NamedTuple):
    """A statement with one mistake."""

    name: str  # of the claim
    kind: str  # of mistake
    statement: str

    @property
    def key(self) -> str:
        """The key in ``EQUIVALENT``."""
        return f"{self.name}: {self.statement}"


def claims() -> list[Claim]:
    """The claims of the sources with a statement, in order."""
    found: dict[int, Claim] = {}
    for name in FILES:
        module = importlib.import_module(f"experiments.claims.{name}")
        own = [value for value in vars(module).values() if isinstance(value, Claim)]
        found |= {id(made): made for made in own if made.formula.__module__ == module.__name__}
    return [made for made in found.values() if made.statement]


def outcome(claim: Claim, statement: str | None = None) -> Statement:
    """The comparison of a claim's code with the claim's own or another statement."""
    with jax.enable_x64(True):
        return check_statement(claim if statement is None else replace(claim, statement=statement))


def mutants(claim: Claim) -> list[Mutant]:
    """Every mutant of a statement, by each kind of mistake at each place."""
    found = {}
    for kind, change in KINDS.items():
        for changed in change(Printed(claim)):
            statement = "".join(changed)
            if statement != claim.statement:
                found[statement] = Mutant(claim.name, kind, statement)
    return list(found.values())


class Printed:
    r"""The tokens of a claim's statement, and the places right of the signs of equality.

    Clauses that are no equations, such as ``l \ne k``, have no place.
    """

    def __init__(self, claim: Claim):
        self.tokens = TOKEN.findall(claim.statement)
        self.inputs = {
            name[0]
            for name, generator in claim.inputs.items()
            if is_input(generator) and len(generator.shape) == 2
        }
        """First letters of the inputs that are matrices."""
        self.places: list[int] = []
        self.left: list[int] = []
        right = False
        depth = 0
        for n, token in enumerate(self.tokens):
            depth += (token in "{([") + (token == r"\begin")
            depth -= (token in "})]") + (token == r"\end")
            if depth == 0 and token in (",", r"\quad", r"\in"):
                right = False
            elif depth == 0 and token in ("=", r"\leftarrow"):
                right = True
            elif right or not {"=", r"\leftarrow"} & {*self.tokens}:
                self.places.append(n)
            elif not self.places:
                self.left.append(n)

    def equal(self, place: int, other: str) -> bool:
        """Whether the case that a token stands in says that the token equals another."""
        before, after = place, place
        while before and self.tokens[before] not in (r"\\", r"\begin"):
            before -= 1
        while after < len(self.tokens) and self.tokens[after] not in (r"\\", r"\end"):
            after += 1
        row = "".join(self.tokens[before:after]).replace(" ", "")
        token = self.tokens[place]
        return f"&{token}={other}" in row or f"&{other}={token}" in row


def _with(tokens: Sequence[str], place: int, *new: str, drop: int = 1) -> list[str]:
    return [*tokens[:place], *new, *tokens[place + drop :]]


def _closing(tokens: Sequence[str], place: int) -> int:
    """The place after the bracket that is opened at a place."""
    depth = 0
    for n in range(place, len(tokens)):
        depth += (tokens[n] in "{([") - (tokens[n] in "})]")
        if depth == 0:
            return n + 1
    return len(tokens)


def _scripts(tokens: Sequence[str], place: int) -> int:
    """The place after the scripts and the bracketed index that follow a symbol."""
    while place < len(tokens):
        if tokens[place] in "_^" and place + 1 < len(tokens):
            opened = tokens[place + 1] == "{"
            place = _closing(tokens, place + 1) if opened else place + 2
        elif re.fullmatch(r"\[[a-z]\]", "".join(tokens[place : place + 3])):
            place += 3
        else:
            return place
    return place


def _in_script(tokens: Sequence[str], place: int) -> bool:
    """Whether a token stands in a subscript, a superscript or a bracketed index."""
    for n in range(place):
        if tokens[n] in "_^" and n + 1 < len(tokens):
            after = _closing(tokens, n + 1) if tokens[n + 1] == "{" else n + 2
            if n < place < after:
                return True
        if tokens[n] == "[" and _scripts(tokens, n) > place:
            return True
    return False


def _in_sum(tokens: Sequence[str], place: int) -> bool:
    """Whether a token stands below or above a sum, a product or a maximum."""
    for n in range(place):
        if tokens[n] in (r"\sum", r"\prod", r"\max") and _scripts(tokens, n + 1) > place:
            return True
    return False


def signs(printed: Printed) -> Iterator[list[str]]:
    """The other sign."""
    for n in printed.places:
        if printed.tokens[n] in "+-" and not _in_script(printed.tokens, n):
            yield _with(printed.tokens, n, "-" if printed.tokens[n] == "+" else "+")


def indices(printed: Printed) -> Iterator[list[str]]:
    """Another index; i and k are the same where a case says i = k."""
    tokens = printed.tokens
    places = [
        n
        for n, token in enumerate(tokens)
        if re.fullmatch("[a-z]", token) and _in_script(tokens, n)
    ]
    letters = dict.fromkeys(tokens[n] for n in places)
    for n in places:
        if n in printed.places and not _in_sum(tokens, n):
            for other in letters:
                if other != tokens[n] and not printed.equal(n, other):
                    yield _with(tokens, n, other)


def transposes(printed: Printed) -> Iterator[list[str]]:
    """A transpose left out; the transpose of a matrix in place of the matrix."""
    tokens = printed.tokens
    for n in printed.places:
        if tokens[n] == r"\top":
            yield _with(tokens, n - 1, drop=2) if tokens[n - 1] == "^" else _with(tokens, n)
        matrix = tokens[n].isupper() and tokens[n].lower() in printed.inputs
        if matrix and not _in_script(tokens, n) and tokens[n - 1] not in "{d":
            after = _scripts(tokens, n + 1)
            if r"\top" not in tokens[n:after] and "0" not in tokens[n:after]:  # W_0 is a bias
                yield _with(tokens, after, r"^\top", drop=0)


def factors(printed: Printed) -> Iterator[list[str]]:
    """A number that is larger by 1, a mean without the division, a factor of 2."""
    tokens = printed.tokens
    for n in printed.places:
        if tokens[n].isdigit() and not _in_script(tokens, n):
            yield _with(tokens, n, str(int(tokens[n]) + 1))
        if tokens[n] == r"\frac" and r"\partial" not in tokens[n : n + 3]:
            above = _closing(tokens, n + 1)
            below = _closing(tokens, above)
            yield [*tokens[:n], *tokens[n + 1 : above], *tokens[below:]]
    first, last = printed.places[0], printed.places[0]
    while last in printed.places:
        last += 1
    yield [*tokens[:first], r" 2 \left(", *tokens[first:last], r"\right)", *tokens[last:]]


def symbols(printed: Printed) -> Iterator[list[str]]:
    """Another symbol of the statement."""
    tokens = printed.tokens
    places = [
        n
        for n in printed.places
        if re.fullmatch(r"[A-Za-z]|\\(lambda|alpha|theta|eta)", tokens[n])
        and not _in_script(tokens, n)
        and not _in_word(tokens, n)
    ]
    letters = dict.fromkeys(tokens[n] for n in places)
    for n in places:
        for other in letters:
            if other != tokens[n] and not printed.equal(n, other):
                yield _with(tokens, n, other)


def _in_word(tokens: Sequence[str], place: int) -> bool:
    """Whether a letter is part of a word such as softmax, otherwise or bmatrix."""
    return any(tokens[n] in WORDS and n < place < _closing(tokens, n + 1) for n in range(place))


def terms(printed: Printed) -> Iterator[list[str]]:
    """A term left out."""
    tokens = printed.tokens
    ends = ("+", "-", ",", "&", r"\\", ")", "]", "}", r"\right")
    for n in printed.places:
        if tokens[n] not in "+-" or _in_script(tokens, n) or not _is_between(tokens, n):
            continue
        after = n + 1
        while after in printed.places and tokens[after] not in ends:
            after = _closing(tokens, after) if tokens[after] in "{([" else after + 1
        yield _with(tokens, n, drop=after - n)


def _is_between(tokens: Sequence[str], place: int) -> bool:
    """Whether a sign stands between two terms, not in front of the first."""
    before = "".join(tokens[:place]).rstrip()
    return not re.search(r"(^|[=(\[{&,]|\\\\|\\lbrack|\\left.)$", before)


def products(printed: Printed) -> Iterator[list[str]]:
    """A factor left out: a bracket, or a symbol with its scripts."""
    tokens = printed.tokens
    for n in printed.places:
        if tokens[n] == "(" and n and tokens[n - 1] not in ("_", "^", "{"):
            yield _with(tokens, n, drop=_closing(tokens, n) - n)
        free = not _in_script(tokens, n) and not _in_word(tokens, n)
        if free and re.fullmatch("[A-Za-z]", tokens[n]):
            yield _with(tokens, n, drop=_scripts(tokens, n + 1) - n)


def functions(printed: Printed) -> Iterator[list[str]]:
    """Another function, sum or relation."""
    tokens = printed.tokens
    for n in printed.places:
        if tokens[n] in FUNCTIONS:
            yield _with(tokens, n, FUNCTIONS[tokens[n]])
        if tokens[n] == r"\sum":
            yield _with(tokens, n, drop=_scripts(tokens, n + 1) - n)


def parameters(printed: Printed) -> Iterator[list[str]]:
    """The derivative by another parameter."""
    tokens = printed.tokens
    letters = dict.fromkeys(
        tokens[n]
        for n in printed.places
        if re.fullmatch("[A-Za-z]", tokens[n]) and not _in_word(tokens, n)
    )
    for n in printed.left:
        below = re.search(r"\}\{\\partial\s*(\\operatorname\{vec\}\[)?$", "".join(tokens[:n]))
        if below and tokens[n].isalpha():
            yield from (_with(tokens, n, other) for other in letters if other != tokens[n])


KINDS = {
    "sign": signs,
    "index": indices,
    "transpose": transposes,
    "factor": factors,
    "symbol exchanged": symbols,
    "term left out": terms,
    "factor left out": products,
    "function or relation": functions,
    "parameter": parameters,
}


def shuffled(pool: Sequence[Mutant], seed: int) -> list[Mutant]:
    """The mutants in random order, the kinds taking turns."""
    groups = {kind: [mutant for mutant in pool if mutant.kind == kind] for kind in KINDS}
    for group in groups.values():
        random.Random(seed).shuffle(group)
    return [group[n] for n in range(len(pool)) for group in groups.values() if n < len(group)]


def main() -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=200, help="mutants to be read")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the mutants")
    parser.add_argument("--all", action="store_true", help="compare every mutant")
    parser.add_argument("--show", action="store_true", help="print every mutant with the outcome")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count takes numbers from 1")
    everything = claims()
    read: dict[str, Statement] = {}
    seconds: list[float] = []
    with progress("statements") as done:
        for number, made in enumerate(everything):
            began = time.process_time()
            read[made.name] = outcome(made)
            seconds.append(time.process_time() - began)
            done(number + 1, len(everything))
    counts = Counter(statement.outcome for statement in read.values())
    reasons = [
        f"  {name}: {found.detail}" for name, found in read.items() if found.outcome != "agrees"
    ]
    print(f"statements {len(read):6}")
    for kind in ("agrees", "differs", "unread"):
        print(f"  {kind:8} {counts[kind]:6}")
    print(
        f"a statement {statistics.median(seconds):5.3f}  s of one core (median)", *reasons, sep="\n"
    )
    agreeing = {made.name: made for made in everything if read[made.name].outcome == "agrees"}
    pool = [mutant for made in agreeing.values() for mutant in mutants(made)]
    equal = [mutant for mutant in pool if mutant.key in EQUIVALENT]
    pool = [mutant for mutant in pool if mutant.key not in EQUIVALENT]
    wanted = len(pool) if arguments.all else arguments.count
    found: list[tuple[Mutant, Statement]] = []
    readable = 0
    with progress("mutants read") as done:
        for mutant in shuffled(pool, arguments.seed):
            said = outcome(agreeing[mutant.name], mutant.statement)
            found.append((mutant, said))
            readable += said.outcome != "unread"
            done(readable, wanted)
            if readable == wanted:
                break
    print(f"\nmutants {len(pool)}, beside {len(equal)} with the statement's meaning")
    print(f"  compared {len(found)}, of which read {readable}")
    for kind in KINDS:
        kinds = Counter(said.outcome for mutant, said in found if mutant.kind == kind)
        print(
            f"  {kind:20} {sum(kinds.values()):5}: {kinds['differs']:5} differ, "
            f"{kinds['unread']:5} not read, {kinds['agrees']:5} accepted"
        )
    accepted = [mutant.key for mutant, said in found if said.outcome == "agrees"]
    print(f"accepted {len(accepted)} of {readable} read (required: 0)", *accepted, sep="\n")
    if arguments.show:
        print(*(f"{m.kind} | {m.key} | {s.outcome}: {s.detail}" for m, s in found), sep="\n")
    met = counts["agrees"] >= FEWEST and not counts["differs"] and not accepted
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
