"""Files of claims: loaded, and judged in a process that requests and answers by lines of JSON."""

import ast
import hashlib
import json
import linecache
import os
import queue
import re
import stat
import sys
import threading
import time
import traceback
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from jaxnn.files import TEXT, Check, misfit
from jaxnn.types import shown
from jaxnn.verify.claims import Claim, Description, descriptions
from jaxnn.verify.derivations import Derivation
from jaxnn.verify.graph import CELL, LONGEST, line_of, message
from jaxnn.verify.verdict import (
    VERDICTS,
    Certificate,
    Counterexample,
    DerivationVerdict,
    Finding,
    Sampling,
    Statement,
    Step,
    Verdict,
    Worst,
)


class UnusableFile(ValueError):  # noqa: N818
    """A file without usable claims; the message is a line with the file's name."""


SUFFIXES = (".py", ".ipynb")
"""The ends of the names of files with claims."""

_EXPECTED = "expected a Python file or a notebook"


def check_file(path: str | PathLike[str]) -> None:
    """Checks, without opening the file, that a name is the name of a Python file or a notebook.

    Raises:
      UnusableFile: no such file, a folder, a device, or a name without one of ``SUFFIXES``.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnusableFile(f"{file}: {reason}, {_EXPECTED}") from None
    if not stat.S_ISREG(mode):
        what = "Is a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise UnusableFile(f"{file}: {what}, {_EXPECTED}")
    if file.suffix not in SUFFIXES:
        raise UnusableFile(
            f"{file}: not a Python file, expected a name that ends in {' or '.join(SUFFIXES)}"
        )


def load_claims(path: str | PathLike[str]) -> list[Claim | Derivation]:
    """Runs a Python file or a notebook, and collects claims and derivations among the globals.

    A derivation or a formula in LaTeX without a name has the variable's name. Imported claims, and
    wrong claims that a correction only mentions, are left out. A Python file's prints go to
    standard error; prints of a notebook, ``display`` and magics are skipped.

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
        content = file.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{file}: {error.strerror or error}, {_EXPECTED}") from None
    programs: dict[str, ast.Module] = {}
    try:
        if file.suffix == ".py":
            programs[str(file.resolve())] = ast.parse(content, str(file.resolve()))
        else:
            programs |= _cells(content, file.resolve())
        claims = _defined_claims(_execute(programs, file.resolve()))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UnusableFile(f"{file}{_refusal(error, file.resolve())}") from error
    _refuse_equal_names(file, claims, programs)
    if not claims:
        raise UnusableFile(f"{file}: no claims in it, expected functions decorated with @claim")
    return list(claims.values())


RUN = ("%%time", "%%capture", "%%prun")
"""Magics of cells that run as Python, and whose variables last."""

_MAGIC = re.compile(r"\s*([\w., ]+=\s*)?[%!]|\s*(\?+[\w.*]+|[\w.*]+\?+)\s*$")
"""A line that IPython understands and Python does not: a magic, a shell command, a question."""

_TIMED = re.compile(r"%time\s+(-\S+\s+)*")
"""The magic of a line that only measures a statement."""

_SOURCE = Check(
    "a text or a list of texts",
    lambda v: isinstance(v, str) or (type(v) is list and all(isinstance(line, str) for line in v)),
)


def _cells(content: bytes, path: Path) -> dict[str, ast.Module]:
    """The programs of a notebook's cells by the names of cells: ``notebook.ipynb, cell 3``.

    Cells with code are numbered from 1, as Jupyter numbers the cells in a run from the top.

    Raises:
      ValueError: no notebook of nbformat 3 or 4, or no notebook of Python.
      SyntaxError: a cell is neither Python nor a magic.
    """
    try:
        notebook = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{message(error)}, expected a notebook in JSON") from None
    version = notebook.get("nbformat") if type(notebook) is dict else None
    if version not in (3, 4):
        raise ValueError(f"nbformat is {shown(version)}, expected a notebook of nbformat 3 or 4")
    programs: dict[str, ast.Module] = {}
    for source in _sources(notebook, version):
        file = CELL.format(path, len(programs) + 1)
        linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
        programs[file] = _python(source, file)
    return programs


def _sources(notebook: dict[str, Any], version: int) -> list[str]:
    """The code of every cell with code.

    Raises:
      ValueError: the notebook is damaged, or not of Python.
    """
    key = "source" if version == 4 else "input"
    sheets: Any = [notebook] if version == 4 else notebook.get("worksheets")
    fault = misfit(sheets, [{"cells": [{"cell_type": TEXT}]}], "worksheets")
    cells = [] if fault else [cell for sheet in sheets for cell in sheet["cells"]]
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    if fault := fault or misfit(codes, [{key: _SOURCE}], "code cells"):
        raise ValueError(f"a damaged notebook: {fault.removeprefix('worksheets[0].')}")
    for name in _languages(notebook, codes):
        if not str(name).lower().startswith(("python", "ipython")):
            raise ValueError(f"a notebook of {shown(name)}, expected a notebook of Python")
    return [*filter(str.strip, ("".join(cell[key]) for cell in codes))]


def _languages(notebook: dict[str, Any], codes: list[dict[str, Any]]) -> Iterator[Any]:
    """The languages named by a notebook: of the kernel, and of cells of nbformat 3."""
    about = notebook.get("metadata")
    about = about if isinstance(about, dict) else {}
    parts = ((about.get("kernelspec"), "language"), (about.get("language_info"), "name"))
    for part, key in (*parts, *((cell, "language") for cell in codes)):
        if isinstance(part, dict) and key in part:
            yield part[key]


def _python(source: str, file: str) -> ast.Module:
    """The program of a cell without magics; of a cell in another language no statement.

    Raises:
      SyntaxError: a line is neither Python nor a magic.
    """
    lines = [_TIMED.sub("", line) for line in source.split("\n")]
    for first in (line.split()[0] for line in lines if line.strip()):
        if not first.startswith("%%"):
            break
        if first not in RUN:
            if "claim(" in source:
                print(f"{file}: skipped, {first} is no magic of Python", file=sys.stderr)
            return ast.Module([], [])
    while True:
        try:
            return ast.parse("\n".join(lines), file)
        except SyntaxError as error:
            place = (error.lineno or 1) - 1
            if not _MAGIC.match(lines[place]):
                raise
            _skip(lines, place)


def _skip(lines: list[str], place: int) -> None:
    """Replaces a magic by ``pass``, and the lines on which the magic goes on by empty lines."""
    line = lines[place]
    lines[place] = line[: len(line) - len(line.lstrip())] + "pass"
    while line.endswith("\\") and place + 1 < len(lines):
        place += 1
        line, lines[place] = lines[place], ""


def _execute(programs: Mapping[str, ast.Module], path: Path) -> ModuleType:
    """The module, registered under a unique name, by which pickle finds the module's classes."""
    codes = [compile(tree, file, "exec", dont_inherit=True) for file, tree in programs.items()]
    name = f"_claims_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}_{path.stem}"
    module = ModuleType(name)
    sys.modules[name] = module
    if sys.path[:1] != [str(path.parent)]:
        sys.path.insert(0, str(path.parent))
    try:
        if path.suffix == ".py":
            module.__file__ = str(path)
        else:
            vars(module).update(print=_nothing, display=_nothing, get_ipython=_Shell)
            os.environ.setdefault("MPLBACKEND", "agg")  # no window waits for a reader
        with redirect_stdout(sys.stderr):
            for code in codes:
                exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _nothing(*_: object, **__: object) -> None:
    """Stands for ``print``, ``display`` and the methods of IPython in a notebook."""


class _Shell:
    """Stands for IPython's shell: every method does nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return _nothing


def _defined_claims(module: ModuleType) -> dict[str, Claim | Derivation]:
    """The claims among the module's globals, without imported claims, by the first name."""
    known = {
        id(value)
        for other in list(sys.modules.values())
        if isinstance(other, ModuleType) and other is not module
        for value in list(vars(other).values())
        if type(value) in (Claim, Derivation)
    }
    claims: dict[str, Claim | Derivation] = {}
    for name, value in vars(module).items():
        if isinstance(value, Claim | Derivation) and id(value) not in known:
            known.add(id(value))
            claims[name] = value
            if isinstance(value, Derivation):
                value.name = value.name or name
            elif value.name == getattr(value.formula, "latex", ""):
                object.__setattr__(value, "name", name)
    return claims


def _refuse_equal_names(
    path: Path, claims: Mapping[str, Claim | Derivation], programs: Mapping[str, ast.Module]
) -> None:
    """Raises if two claims have equal names, so that the second hides the first."""
    functions = [
        (node.name, _place(file, node.lineno))
        for file, program in programs.items()
        for node in program.body
        if isinstance(node, ast.FunctionDef)
    ]
    for variable, claim in claims.items():
        first, *more = [place for name, place in functions if name == variable] or [""]
        if more:
            raise UnusableFile(
                f"{path}, {more[0]}: a second claim {variable!r}, the first is in {first}"
            )
        same = [other for other in claims if claims[other].name == claim.name]
        if len(same) > 1:
            raise UnusableFile(
                f"{path}: the claims {', '.join(same)} are all of functions named {claim.name!r}, "
                "expected a name for each"
            )


def _place(file: str, line: int) -> str:
    """A line in the file, as at the beginning of a message: ``line 12``, ``cell 3, line 2``."""
    return line_of(file, line).partition(" of ")[0]


def _refusal(error: BaseException, path: Path) -> str:
    """The line and the error: ``, line 12: KeyError: 'w'``; jaxnn.verify's have no class name."""
    frames = list(traceback.walk_tb(error.__traceback__))
    lines = [(frame.f_code.co_filename, line) for frame, line in frames]
    module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    text = str(error) if module.startswith("jaxnn.verify.") else message(error)
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"
        lines.append((error.filename or "", error.lineno or 0))
    places = [
        _place(file, line)
        for file, line in lines
        if line and (file == str(path) or file.startswith(f"{path}, cell "))
    ]
    text = f"{''.join(f', {place}' for place in places[-1:])}: {text}"
    return " ".join(text[: 2 * LONGEST].split())


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


def loaded(file: str) -> list[Claim | Derivation] | str:
    """The claims of a file, or why the file cannot be used."""
    try:
        return load_claims(file)
    except UnusableFile as error:
        return str(error).removeprefix(file).lstrip(":, ")


def _described(claims: list[Claim | Derivation] | str) -> list[Description] | str:
    """The claims in words and code, or why there are none."""
    return claims if isinstance(claims, str) else descriptions(claims)


def verified(
    claim: Claim | Derivation, trials: int | None, seed: int, certify: bool = True
) -> Verdict | DerivationVerdict:
    """The verdict, without a certificate if so asked; ``error`` where verification itself fails."""
    began = time.perf_counter()
    try:
        from jaxnn.verify.verification import verify

        if isinstance(claim, Derivation):
            derivation = claim if certify else claim.without_certificates()
            return verify(derivation, trials=trials, seed=seed)
        claim = claim if certify else replace(claim, certify=False)
        return verify(claim, trials=trials, seed=seed)
    except (Exception, SystemExit) as error:
        seconds, text = time.perf_counter() - began, described(error)
        truth = claim.truth if isinstance(claim, Derivation) else claim
        return Verdict(claim.name, truth.source, truth.kind, "error", seconds=seconds, detail=text)


def described(error: BaseException) -> str:
    """The error with the line of code."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return message(error)
    return f"{message(error)} ({line_of(frames[-1].filename, frames[-1].lineno or 0)})"


_RECORDS = {
    made.__name__: made
    for made in (
        Certificate, Counterexample, DerivationVerdict, Finding, Sampling, Statement, Step,
        Verdict, Worst,
    )
}  # fmt: skip
"""The types in a verdict, by name."""


def encode(verdict: Verdict | DerivationVerdict) -> str:
    """A verdict as JSON, without loss."""
    return json.dumps(_encoded(verdict))


def _encoded(value: Any) -> Any:
    """A record of a verdict by fields, any other node as [kind, keys, parts], an array by type."""
    kind, parts = type(value).__name__, value
    if _RECORDS.get(kind) is type(value):
        return {"type": kind} | {name: _encoded(part) for name, part in value._asdict().items()}
    if hasattr(value, "dtype"):
        return [str(value.dtype), (), np.asarray(value).tolist()]
    if hasattr(value, "_asdict") or hasattr(value, "__dataclass_fields__"):
        kind, parts = "record", value._asdict() if hasattr(value, "_asdict") else vars(value)
    elif isinstance(value, Mapping):
        kind = "dict"
    elif isinstance(value, list | tuple):
        parts = dict(enumerate(value))
    else:
        return value
    return [kind, list(parts), list(map(_encoded, parts.values()))]


def decode(encoded: Any) -> Any:
    """The encoded verdict, or a part; named tuples become named tuples of the same fields."""
    if isinstance(encoded, dict):
        fields = {name: decode(part) for name, part in encoded.items()}
        if "verdict" in fields and fields["verdict"] not in VERDICTS:
            raise ValueError(f"{fields['verdict']!r} is no verdict")
        return _RECORDS[fields.pop("type")](**fields)
    if not isinstance(encoded, list):
        return encoded
    kind, keys, parts = encoded
    if kind not in ("record", "dict", "list", "tuple"):
        return np.array(parts, dtype=kind)[()]
    parts = list(map(decode, parts))
    if kind == "record":
        return namedtuple("record", keys, rename=True)(*parts)
    if kind == "dict":
        return dict(zip(keys, parts, strict=True))
    return parts if kind == "list" else tuple(parts)
