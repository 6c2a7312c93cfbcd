"""``python -m jaxnn.verify FILE ...``: every claim of the files, and the mistakes in the claims."""

import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from jaxnn.types import require

if TYPE_CHECKING:
    from cyclopts import App, Token

    from jaxnn.verify.runner import Entry
    from jaxnn.verify.verdict import DerivationVerdict, Verdict

HOLD, REFUTED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EXTRA = ("cyclopts", "flint", "jinja2", "lark", "latex2mathml", "pebble", "rich")
"""The packages of the extra ``verify``."""


class UsageError(ValueError):
    """Two flags contradict each other; the message is one line."""


def main(argv: Sequence[str] | None = None, program: str = "python -m jaxnn.verify") -> int:
    """Verifies the claims of the files named on the command line.

    Args:
      argv: the arguments; default: the process's.
      program: the command's name in the help text.

    Returns:
      The exit status: 0 all claims hold; 1 a claim is refuted or could not be judged, or a file
      could not be loaded; 2 bad usage, a name of no Python file or notebook, or a missing package,
      with one line on standard error; 130 interrupted.
    """
    try:
        require("verify", *EXTRA)
    except ModuleNotFoundError as error:
        return _complain(str(error))
    from cyclopts import CycloptsError

    from jaxnn.reporting import outputs_that_last
    from jaxnn.verify.runner import end_without_threads
    from jaxnn.verify.worker import UnusableFile

    try:
        command, bound, _ = _app(program).parse_args(argv, exit_on_error=False, print_error=False)
        with outputs_that_last():
            status = command(*bound.args, **bound.kwargs) or HOLD  # a help text has no status
        return end_without_threads(status)
    except (CycloptsError, UnusableFile, UsageError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted")
        return end_without_threads(INTERRUPTED)


def _app(program: str) -> "App":
    """The command line, whose command returns the exit status."""
    from cyclopts import App, Parameter, validators

    app = App(name=program, version_flags=[], default_parameter=Parameter(negative=()))
    counted = Parameter(converter=_whole, validator=validators.Number(gte=1))
    whole = Parameter(converter=_whole, validator=validators.Number(gte=0))
    report = Parameter(validator=_check_writable)

    @app.default
    def verify(
        *files: Annotated[Path, Parameter(required=True)],
        trials: Annotated[int | None, counted] = None,
        json: Annotated[Path | None, report] = None,
        html: Annotated[Path | None, report] = None,
        timeout: Annotated[float, Parameter(validator=_check_seconds)] = 60.0,
        seed: Annotated[int, whole] = 0,
        workers: Annotated[int | None, whole] = None,
        certify: Annotated[bool, Parameter(negative="--no-certify")] = True,
    ) -> int:
        """Verify the claims of Python files and notebooks; name the mistakes in wrong claims.

        Every file is loaded in processes of its own. The exit status is 0 if all claims hold, 1 if
        a claim is refuted or could not be judged or a file could not be loaded, 2 for bad usage.

        Args:
          files: Python files and notebooks (.ipynb) with functions decorated with @claim.
          trials: Random trials per claim; default: as declared by each claim, or 10000.
          json: File to write the verdicts to, with all evidence, as JSON.
          html: File to write a report to, one self-contained page.
          timeout: Seconds to load a file, and to judge a claim, before either is given up.
          seed: Seed of the random trials.
          workers: Processes at a time; default: one per core; 0: this process alone, for one file.
          certify: Certify claims that hold, for 2 seconds at most each.
        """
        from jaxnn.verify.report import to_html, to_json

        reports = [path.resolve() for path in (json, html) if path]
        for path in {file.resolve() for file in files}.intersection(reports):
            raise UsageError(f"{path} is a file of claims: its claims would be overwritten")
        if len(set(reports)) < len(reports):
            raise UsageError(f"--json and --html are both {json}, expected two files")
        entries = judge_files(files, trials, seed, timeout, workers, certify)
        if json:
            _write(json, to_json(verdict for _, verdict in entries))
        if html:
            _write(html, to_html(entries))
        return HOLD if all(verdict.holds for _, verdict in entries) else REFUTED

    return app


def judge_files(
    files: Sequence[Path],
    trials: int | None,
    seed: int,
    timeout: float,
    workers: int | None,
    certify: bool,
) -> "list[Entry]":
    """Judges the claims of the files, and prints the table and the evidence."""
    import jax

    from jaxnn.reporting import Progress, interrupts_raise
    from jaxnn.verify import report, runner

    interrupts_raise()  # from here on processes are to be stopped
    jax.config.update("jax_platforms", "cpu")  # without processes the claims are judged here
    with Progress(unit="claims") as progress:

        def told(done: int, total: int, verdict: "Verdict | DerivationVerdict") -> None:
            progress.report("verifying", done, total, verdict.name)

        entries = runner.judge(
            files,
            trials=trials,
            seed=seed,
            certify=certify,
            timeout=timeout,
            workers=workers,
            on_result=told,
        )
    report.print_verdicts([verdict for _, verdict in entries])
    several = len({verdict.file for _, verdict in entries}) > 1
    for claim, verdict in report.ordered(entries):
        follows = verdict.step and verdict.step.outcome == "follows"  # from another wrong line
        wrong = verdict.verdict in ("refuted", "misstated") and not follows
        if wrong or verdict.counterexample:
            report.print_evidence(claim, verdict, file=verdict.file if several else "")
    return entries


def _write(path: Path, content: str) -> None:
    """Writes a report, whole or not at all."""
    from jaxnn.files import atomic_write, printable

    with atomic_write(path, "w") as file:
        file.write(content)
    print(f"wrote {printable(path)}")


def _check_writable(_: object, path: Path | None) -> None:
    """Refuses an unwritable file before any claim is judged."""
    if path is None:
        return
    reason = "it is a folder" if path.is_dir() else ""
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ValueError(f"Expected a file to write to: {reason}.")


def _check_seconds(_: object, seconds: float) -> None:
    if not 0 < seconds < math.inf:
        raise ValueError("Expected a positive number of seconds.")


def _whole(_: object, tokens: "Sequence[Token]") -> int:
    """Refuses 2.5, which cyclopts would round."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r}, expected a whole number") from None


def _complain(text: str) -> int:
    from jaxnn.files import printable

    print(f"jaxnn.verify: {printable(' '.join(text.split()))}", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
