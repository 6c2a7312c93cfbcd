"""``python -m jaxnn.verify FILE.py ...``: every claim of the files, and the mistakes in them."""

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from jaxnn.extras import require

if TYPE_CHECKING:
    from cyclopts import App, Token

    from jaxnn.verify.claims import Claim
    from jaxnn.verify.verdict import Verdict

HOLD, REFUTED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EXTRA = ("cyclopts", "jinja2", "latex2mathml", "mpmath", "pebble", "rich")
"""The packages of the extra ``verify``."""


class UsageError(ValueError):
    """A flag has a wrong value; the message is one line."""


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxnn.verify") -> int:
    """Verifies the claims of the files named on the command line.

    Args:
      argv: the arguments; default: the process's.
      program: the command's name in the help text.

    Returns:
      The exit status: 0 all claims hold; 1 a claim is refuted or could not be judged; 2 bad usage,
      an unusable file or a missing package, with one line on standard error; 130 interrupted.
    """
    try:
        require("verify", *EXTRA)
    except ModuleNotFoundError as error:
        return _complain(str(error))
    from cyclopts import CycloptsError

    from jaxnn.verify.loading import UnusableFile

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command, bound, _ = _app(program).parse_args(
            arguments, exit_on_error=False, print_error=False
        )
        status = command(*bound.args, **bound.kwargs)
        return status if isinstance(status, int) else HOLD  # a help text has no status
    except (CycloptsError, UnusableFile, UsageError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def _app(program: str) -> "App":
    """The command line, whose command returns the exit status."""
    from cyclopts import App, Parameter

    app = App(name=program, version_flags=[], default_parameter=Parameter(negative=()))
    whole = Parameter(converter=_whole_number)

    @app.default
    def verify(
        *files: Path,
        trials: Annotated[int | None, whole] = None,
        json: Path | None = None,
        html: Path | None = None,
        timeout: float = 60.0,
        seed: Annotated[int, whole] = 0,
        workers: Annotated[int | None, whole] = None,
    ) -> int:
        """Verify the claims of Python files, and name the mistakes in claims that do not hold.

        The exit status is 0 if all claims hold, 1 if a claim does not, 2 if a file is unusable.

        Args:
          files: Python files with functions decorated with @claim.
          trials: Random trials per claim; default: as declared by each claim, or 10000.
          json: File to write the verdicts to, with all evidence, as JSON.
          html: File to write a report to, one self-contained page.
          timeout: Seconds after which a claim is given up.
          seed: Seed of the random trials.
          workers: Processes to use; default: one per core; 0: this process alone, no time limit.
        """
        if not files:
            raise UsageError("no files given, expected FILE.py ...")
        for flag, value, least in (
            ("trials", trials, 1),
            ("seed", seed, 0),
            ("workers", workers, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"--{flag} is {value}, expected at least {least}")
        if not (math.isfinite(timeout) and timeout > 0):
            raise UsageError(f"--timeout is {timeout}, expected a positive number of seconds")
        for flag, path in (("json", json), ("html", html)):
            _check_writable(flag, path, files)
        if json and html and json.resolve() == html.resolve():
            raise UsageError(f"--json and --html are both {json}, expected two files")
        entries = judge_files(files, trials, seed, timeout, workers)
        _write(entries, json, html)
        return HOLD if all(verdict.holds for _, verdict in entries) else REFUTED

    return app


def judge_files(
    files: Sequence[Path], trials: int | None, seed: int, timeout: float, workers: int | None
) -> "list[tuple[Claim, Verdict]]":
    """Judges the claims of the files, and prints the table and the evidence.

    Raises:
      UnusableFile: a file cannot be used.
    """
    import jax

    from jaxnn.progress import Progress
    from jaxnn.verify import runner, table

    jax.config.update("jax_platforms", "cpu")  # a file's own arrays need no accelerator
    claims = runner.load_files(files)
    with Progress(unit="claims") as progress:
        verdicts = runner.judge(
            claims,
            trials=trials,
            seed=seed,
            timeout=timeout,
            workers=workers,
            on_result=lambda done, total, verdict: progress.report(
                "verifying", done, total, verdict.name
            ),
        )
    entries = [(loaded.claim, verdict) for loaded, verdict in zip(claims, verdicts, strict=True)]
    table.print_verdicts(verdicts)
    for claim, verdict in entries:
        if verdict.verdict == "refuted":
            table.print_evidence(claim, verdict)
    return entries


def _write(entries: "list[tuple[Claim, Verdict]]", json: Path | None, html: Path | None) -> None:
    """Writes the reports, each whole or not at all.

    Raises:
      OSError: a report cannot be written.
    """
    from jaxnn.files import atomic_write
    from jaxnn.verify.report import to_html, to_json

    contents: dict[Path, str] = {}
    if json:
        contents[json] = to_json([verdict for _, verdict in entries])
    if html:
        contents[html] = to_html(entries)
    for path, content in contents.items():
        with atomic_write(path, "w") as file:
            file.write(content)
        print(f"wrote {path}")


def _check_writable(flag: str, path: Path | None, files: Sequence[Path]) -> None:
    """Refuses an unwritable file before any claim is judged."""
    if path is None:
        return
    refusal = f"--{flag} is {path}, expected a file to write to: "
    if path.is_dir():
        raise UsageError(refusal + "it is a folder")
    if path.resolve() in [file.resolve() for file in files]:
        raise UsageError(refusal + "its claims would be overwritten")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(refusal + (error.strerror or str(error))) from None


def _whole_number(_: object, tokens: "Sequence[Token]") -> int:
    """Refuses 2.5, which cyclopts would round."""
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r}, expected a whole number") from None


def _complain(text: str) -> int:
    print(f"jaxnn.verify: {' '.join(text.split())}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
