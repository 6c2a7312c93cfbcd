"""The claims of a Python file."""

import ast
import hashlib
import stat
import sys
import traceback
from contextlib import redirect_stdout
from os import PathLike
from pathlib import Path
from types import ModuleType

from jaxnn.verify.claims import Claim
from jaxnn.verify.graph import LONGEST, message


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
