"""The process that judges the claims of a file: requests come, and answers go, as lines of JSON."""

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections import namedtuple
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from jaxnn.verify.claims import Claim, descriptions
from jaxnn.verify.graph import message, source_name
from jaxnn.verify.loading import UnusableFile, load_claims
from jaxnn.verify.verdict import VERDICTS, Certificate, Counterexample, Finding, Verdict, Worst


def serve() -> None:
    """Answers the requests on standard input until standard input is closed.

    Answers go to the first standard output of the process. The prints of a file of claims go to
    standard error, and standard input is empty for the file.
    """
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    answers = os.fdopen(os.dup(1), "wb")
    threading.Thread(
        target=_receive, args=(os.fdopen(os.dup(0), "rb"), requests), daemon=True
    ).start()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    _warm_up()
    import jax

    files: list[Any] = []
    answer = json.dumps("ready")
    while True:
        answers.write(answer.encode() + b"\n")
        answers.flush()
        request, *arguments = json.loads(requests.get())
        try:
            if request == "load":
                files = [loaded(file) for file in arguments]
                answer = json.dumps([_described(claims) for claims in files])
                # Callbacks to Python run in threads of their own, which no context manager reaches.
                jax.config.update("jax_enable_x64", True)
            else:
                file, place, *options = arguments
                answer = json.dumps(encode(verified(files[file][place], *options)))
        except BaseException as error:  # a file may raise KeyboardInterrupt
            answer = json.dumps(described(error))


def _receive(stream: BinaryIO, requests: "queue.SimpleQueue[bytes]") -> None:
    """Passes requests on; ends the process, busy or not, when no further request can come."""
    for line in stream:
        requests.put(line)
    os._exit(0)


def _warm_up() -> None:
    """Imports the packages of verification, and finds the CPU."""
    import jax

    import jaxnn.verify.verification  # noqa: F401
    from jaxnn.devices import use_compilation_cache

    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    jax.devices()


def loaded(file: str) -> list[Claim] | str:
    """The claims of a file, or why the file cannot be used."""
    try:
        return load_claims(file)
    except UnusableFile as error:
        return str(error).removeprefix(file).lstrip(":, ")


def _described(claims: list[Claim] | str) -> list[dict[str, Any]] | str:
    """The claims in JSON's types, or why there are none."""
    if isinstance(claims, str):
        return claims
    return [description._asdict() for description in descriptions(claims)]


def verified(claim: Claim, trials: int | None, seed: int, certify: bool = True) -> Verdict:
    """The verdict, without a certificate if so asked; ``error`` where verification itself fails."""
    began = time.perf_counter()
    try:
        from jaxnn.verify.verification import verify

        claim = claim if certify else replace(claim, certify=False)
        return verify(claim, trials=trials, seed=seed)
    except (Exception, SystemExit) as error:
        seconds, text = time.perf_counter() - began, described(error)
        return Verdict(claim.name, claim.source, claim.kind, "error", seconds=seconds, detail=text)


def described(error: BaseException) -> str:
    """The error with the line of code."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return message(error)
    return f"{message(error)} (line {frames[-1].lineno} of {source_name(frames[-1].filename)})"


def encode(verdict: Verdict) -> dict[str, Any]:
    """A verdict in JSON's types, without loss."""
    worst, example = verdict.worst, verdict.counterexample
    return verdict._asdict() | {
        "bits_lost": None if verdict.bits_lost is None else float(verdict.bits_lost),
        "worst": None
        if worst is None
        else [
            worst.where,
            list(map(int, worst.index)),
            float(worst.claimed),
            float(worst.true),
            worst.one_sided and list(map(float, worst.one_sided)),
            worst.at_least,
        ],
        "counterexample": example and [dict(example.sizes), _encode_tree(dict(example.inputs))],
    }


def decode(fields: Mapping[str, Any]) -> Verdict:
    """The encoded verdict; named tuples become named tuples of the same fields."""
    verdict = Verdict(**fields)
    worst, example = fields["worst"], fields["counterexample"]
    if verdict.verdict not in VERDICTS:
        raise ValueError(f"{verdict.verdict!r} is no verdict")
    if worst:
        where, index, claimed, true, one_sided, bound = worst
        worst = Worst(where, tuple(index), claimed, true, one_sided and tuple(one_sided), bound)
    if example:
        example = Counterexample(example[0], _decode_tree(example[1]))
    findings = tuple(Finding(*finding) for finding in verdict.diagnosis)
    certificate = verdict.certificate and Certificate(*verdict.certificate)
    return verdict._replace(
        worst=worst, counterexample=example, diagnosis=findings, certificate=certificate
    )


def _encode_tree(tree: Any) -> list[Any]:
    """A tree of arrays: [kind of node, keys, children], or [type, values] of an array."""
    children = tree
    if hasattr(tree, "_asdict"):
        kind, children = "record", tree._asdict()
    elif hasattr(tree, "__dataclass_fields__"):
        kind, children = "record", vars(tree)
    elif isinstance(tree, Mapping):
        kind = "dict"
    elif isinstance(tree, list | tuple):
        kind, children = type(tree).__name__, dict(enumerate(tree))
    else:
        array = np.asarray(tree)
        return [str(array.dtype), array.tolist()]
    return [kind, list(children), list(map(_encode_tree, children.values()))]


def _decode_tree(encoded: list[Any]) -> Any:
    kind, *rest = encoded
    if kind not in ("record", "dict", "list", "tuple"):
        return np.array(*rest, dtype=kind)
    keys, children = rest[0], map(_decode_tree, rest[1])
    if kind == "record":
        return namedtuple("record", keys, rename=True)(*children)
    return (
        dict(zip(keys, children, strict=True))
        if kind == "dict"
        else (list(children) if kind == "list" else tuple(children))
    )
