"""``python -m jaxnn.verify FILE.py ...``: every claim of the files, and what is wrong with it."""

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from cyclopts import Token

    from jaxnn.verify.claims import Claim
    from jaxnn.verify.verdict import Verdict

HOLD, REFUTED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

EXTRA = ("cyclopts", "jinja2", "latex2mathml", "mpmath", "pebble", "rich")
"""What ``pip install "jaxnn[verify]"`` adds."""


class UsageError(ValueError):
    """A flag has a value that makes no sense; its text is one line."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The command line, checked."""

    files: tuple[Path, ...]
    trials: int | None
    json: Path | None
    html: Path | None
    timeout: float
    seed: int
    workers: int | None

    def __post_init__(self):
        if not self.files:
            raise UsageError("no files given, expected FILE.py ...")
        for flag, least in (("trials", 1), ("seed", 0), ("workers", 0)):
            value = getattr(self, flag)
            if value is not None and value < least:
                raise UsageError(f"--{flag} is {value}, expected at least {least}")
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise UsageError(f"--timeout is {self.timeout}, expected a positive number of seconds")
        for flag in ("json", "html"):
            _check_writable(flag, getattr(self, flag), self.files)
        if self.json and self.html and self.json.resolve() == self.html.resolve():
            raise UsageError(f"--json and --html are both {self.json}, expected two files")


def main(argv: Sequence[str] | None = None) -> int:
    """Verifies the claims of the files named on the command line.

    Args:
      argv: the arguments; default: the process's own.

    Returns:
      The exit status: 0 all claims hold, 1 one is refuted or could not be judged, 2 bad usage or a
      file that cannot be used (one line on standard error says which), 130 interrupted.
    """
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        return _complain(f'{", ".join(missing)} missing, try: pip install "jaxnn[verify]"')
    from cyclopts import CycloptsError

    from jaxnn.verify.loading import UnusableFile

    try:
        flags = parse(argv)
        return HOLD if flags is None else verify_files(flags)
    except (CycloptsError, UnusableFile, UsageError, OSError) as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def parse(argv: Sequence[str] | None = None) -> Flags | None:
    """The flags of a command line, or None if it only asked for help, which has been printed.

    Raises:
      CycloptsError: bad usage; its text is one line.
      UsageError: a value that makes no sense.
    """
    from cyclopts import App, Parameter

    whole = Parameter(converter=_whole_number)
    app = App(
        name="python -m jaxnn.verify", version_flags=[], default_parameter=Parameter(negative=())
    )

    def verify(
        *files: Path,
        trials: Annotated[int | None, whole] = None,
        json: Path | None = None,
        html: Path | None = None,
        timeout: float = 60.0,
        seed: Annotated[int, whole] = 0,
        workers: Annotated[int | None, whole] = None,
    ) -> Flags:
        """Verify the claims of Python files, and say what is wrong with those that do not hold.

        The exit status is 0 if all hold, 1 if one does not, 2 if a file cannot be used.

        Args:
          files: Python files with functions decorated with @claim.
          trials: Random trials per claim; default: what each claim says, or 10000.
          json: File to write the verdicts to, with all evidence, as JSON.
          html: File to write a report to, one self-contained page.
          timeout: Seconds after which a claim is given up.
          seed: Seed of the random trials.
          workers: Processes to use; default: one per core; 0: none but this, without time limit.
        """
        return Flags(
            files=files, trials=trials, json=json, html=html, timeout=timeout, seed=seed,
            workers=workers,
        )  # fmt: skip

    app.default(verify)
    arguments = list(sys.argv[1:] if argv is None else argv)
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    flags = command(*bound.args, **bound.kwargs)
    return flags if isinstance(flags, Flags) else None


def verify_files(flags: Flags) -> int:
    """Judges the claims, prints the table and writes what was asked for; the exit status.

    Raises:
      UnusableFile: a file that cannot be used.
      OSError: a report cannot be written.
    """
    import jax

    from jaxnn.progress import Progress
    from jaxnn.verify import runner, table

    jax.config.update("jax_platforms", "cpu")  # a file's own arrays need no accelerator
    todo = runner.tasks(flags.files)
    with Progress(unit="claims") as progress:
        verdicts = runner.judge(
            todo,
            trials=flags.trials,
            seed=flags.seed,
            timeout=flags.timeout,
            workers=flags.workers,
            on_result=lambda done, total, verdict: progress.report(
                "verifying", done, total, verdict.name
            ),
        )
    entries = [(task.claimed, verdict) for task, verdict in zip(todo, verdicts, strict=True)]
    table.print_verdicts(verdicts)
    for claimed, verdict in entries:
        if verdict.verdict == "refuted":
            table.print_evidence(claimed, verdict)
    _write(flags, entries)
    return HOLD if all(verdict.holds for verdict in verdicts) else REFUTED


def _write(flags: Flags, entries: "list[tuple[Claim, Verdict]]") -> None:
    """Writes the reports, each whole or not at all."""
    from jaxnn.files import atomic_write
    from jaxnn.verify.report import to_html, to_json

    contents: dict[Path, str] = {}
    if flags.json:
        contents[flags.json] = to_json([verdict for _, verdict in entries])
    if flags.html:
        contents[flags.html] = to_html(entries)
    for path, content in contents.items():
        with atomic_write(path, "w") as file:
            file.write(content)
        print(f"wrote {path}")


def _check_writable(flag: str, path: Path | None, files: Sequence[Path]) -> None:
    """Refuses a file that could not be written, before any work is spent on what goes into it."""
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
    """Refuses 2.5 where cyclopts would round it."""
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
