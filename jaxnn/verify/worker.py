"""Files of claims: loaded, and judged in a process that requests and answers by lines of JSON."""

import ast
import hashlib
import json
import os
import queue
import stat
import sys
import threading
import time
import traceback
from collections import namedtuple
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from jaxnn.verify.claims import Claim, descriptions
from jaxnn.verify.graph import LONGEST, message, source_name
from jaxnn.verify.verdict import VERDICTS, Certificate, Counterexample, Finding, Verdict, Worst


class UnusableFile(ValueError):  # noqa: N818
    """A file without usable claims; the message is a line with the file's name."""


def check_file(path: str | PathLike[str]) -> None:
    """Checks, without opening the file, that a name is the name of a Python file.

    Raises:
      UnusableFile: no such file, a folder, a device, or a name that does not end in .py.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableFile(f"{file}: {reason}, expected a Python file") from None
    if not stat.S_ISREG(mode):
        what = "Is a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise UnusableFile(f"{file}: {what}, expected a Python file")
    if file.suffix != ".py":
        raise UnusableFile(f"{file}: not a Python file, expected a name that ends in .py")


def load_claims(path: str | PathLike[str]) -> list[Claim]:
    """Runs a Python file, and collects the claims among the global variables, in order.

    Imported claims, and wrong claims that a correction only mentions, are left out. The file's
    prints go to standard error.

    Args:
      path: the file; like a script, the file can import modules from the same folder.

    Returns:
      At least one claim.

    Raises:
      UnusableFile: the file cannot be read or run, or defines no claims.
    """
    file = Path(path)
    check_file(file)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{file}: {error.strerror or error}, expected a Python file") from None
    try:
        claims = _defined_claims(_execute(source, file.resolve()))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnusableFile(f"{file}{_refusal(error, file.resolve())}") from error
    _refuse_equal_names(file, claims, ast.parse(source))
    if not claims:
        raise UnusableFile(f"{file}: no claims in it, expected functions decorated with @claim")
    return list(claims.values())


def _execute(source: bytes, path: Path) -> ModuleType:
    """The module, registered under a unique name, by which pickle finds the module's classes."""
    code = compile(source, str(path), "exec", dont_inherit=True)
    name = f"_claims_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}_{path.stem}"
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    if sys.path[:1] != [str(path.parent)]:
        sys.path.insert(0, str(path.parent))
    try:
        with redirect_stdout(sys.stderr):
            exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _defined_claims(module: ModuleType) -> dict[str, Claim]:
    """The claims among the module's globals, without imported claims, by the first name."""
    known = {
        id(value)
        for other in list(sys.modules.values())
        if isinstance(other, ModuleType) and other is not module
        for value in list(vars(other).values())
        if type(value) is Claim
    }
    claims: dict[str, Claim] = {}
    for name, value in vars(module).items():
        if isinstance(value, Claim) and id(value) not in known:
            known.add(id(value))
            claims[name] = value
    return claims


def _refuse_equal_names(path: Path, claims: dict[str, Claim], tree: ast.Module) -> None:
    """Raises if two claims have equal names, so that the second hides the first."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for variable, claim in claims.items():
        first, *more = [node.lineno for node in functions if node.name == variable] or [0]
        if more:
            raise UnusableFile(
                f"{path}, line {more[0]}: a second claim {variable!r}, the first is in line {first}"
            )
        same = [other for other in claims if claims[other].name == claim.name]
        if len(same) > 1:
            raise UnusableFile(
                f"{path}: the claims {', '.join(same)} are all of functions named {claim.name!r}, "
                "expected a name for each"
            )


def _refusal(error: BaseException, path: Path) -> str:
    """The line and the error: ``, line 12: KeyError: 'w'``; jaxnn.verify's have no class name."""
    frames = list(traceback.walk_tb(error.__traceback__))
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    text = str(error) if module.startswith("jaxnn.verify.") else message(error)
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"
        lines = [error.lineno] if error.filename == str(path) else lines
    place = f", line {lines[-1]}" if lines and lines[-1] else ""
    return " ".join(f"{place}: {text}"[: 2 * LONGEST].split())


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
                answer = encode(verified(files[file][place], *options))
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


def encode(verdict: Verdict) -> str:
    """A verdict as JSON, without loss."""
    example = verdict.counterexample
    tree = example and [dict(example.sizes), _encode_tree(dict(example.inputs))]
    fields = verdict._asdict() | {"counterexample": tree}
    return json.dumps(fields, default=np.generic.item)  # NumPy's numbers


def decode(fields: Mapping[str, Any]) -> Verdict:
    """The encoded verdict; named tuples become named tuples of the same fields."""
    verdict = Verdict(**fields)
    example, worst = fields["counterexample"], verdict.worst and Worst(*verdict.worst)
    if verdict.verdict not in VERDICTS:
        raise ValueError(f"{verdict.verdict!r} is no verdict")
    if worst:
        sides = worst.one_sided and tuple(worst.one_sided)
        worst = worst._replace(index=tuple(worst.index), one_sided=sides)
    return verdict._replace(
        worst=worst,
        counterexample=example and Counterexample(example[0], _decode_tree(example[1])),
        diagnosis=tuple(Finding(*finding) for finding in verdict.diagnosis),
        certificate=verdict.certificate and Certificate(*verdict.certificate),
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
    if kind == "dict":
        return dict(zip(keys, children, strict=True))
    return list(children) if kind == "list" else tuple(children)
