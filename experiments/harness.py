"""Common parts of all experiments: from the command line to a folder of results and exit status.

An experiment is a config type and a function ``(config, run) -> results``; the last lines are::

    def main(argv=None):
        return harness.main("NAME", NameConfig, experiment, argv)

    if __name__ == "__main__":
        harness.leave(main())
"""

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

from cyclopts import CycloptsError

from experiments.config import C, Config, DataConfig, DistributedConfig, parse
from jaxnn import data, distributed, reporting
from jaxnn.devices import use_all_cores, use_compilation_cache
from jaxnn.progress import Progress, Report, progress
from jaxnn.types import Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUCCESS, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Run:
    """An execution of an experiment: the source of the data, the folder of the results."""

    def __init__(self, name: str, config: Config, out: Path):
        self.name = name
        self.config = config
        self.out = out
        self.checks: list[dict[str, Any]] = []
        self.files: dict[str, None] = {}  # names of written files, in order

    def load(self) -> Splits:
        """The data set of the flags --dataset and --data-dir, downloaded if necessary."""
        assert isinstance(self.config, DataConfig)
        with Progress(unit="MB") as downloaded:
            return data.load(self.config.dataset, self.config.data_dir, progress=downloaded.report)

    def progress(self, label: str) -> AbstractContextManager[Report]:
        """``with run.progress("training") as report: report(done, total)``, on standard error."""
        return progress(label)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Prints a table to standard output."""
        reporting.print_table(title, columns, rows)

    def history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes history.csv: a row per setting, seed and evaluated iteration."""
        self.rows("history.csv", rows)

    def rows(self, file_name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table as CSV."""
        reporting.write_csv(self._new_file(file_name), rows)

    def figure(self, file_name: str, figure: "Figure") -> None:
        """Writes a figure as PNG."""
        from jaxnn.figures import write_png

        write_png(self._new_file(file_name), figure)

    def check(self, name: str, passed: bool, detail: str) -> None:
        """Records and prints a check; a failed check makes the exit status 1."""
        self.checks.append({"name": name, "passed": bool(passed), "detail": detail})
        print(f"{'passed' if passed else 'FAILED'}: {name}: {detail}")

    def results(self, results: Mapping[str, Any], seconds: float) -> None:
        """Writes results.json."""
        content = {
            "experiment": self.name,
            "dataset": getattr(self.config, "dataset", None),
            "config": self.config,
            **reporting.environment(),
            "seconds": seconds,
            "checks": self.checks,
            "results": results,
        }
        reporting.write_json(self._new_file("results.json"), content)

    def _new_file(self, name: str) -> Path:
        self.files[name] = None
        return self.out / name


def main(
    name: str,
    config_type: type[C],
    experiment: Callable[[C, Run], Mapping[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Runs an experiment from its command line.

    Args:
      name: NAME in ``python -m experiments.NAME`` and in the default folder runs/NAME.
      config_type: the flags.
      experiment: does the work; the returned mapping is ``results`` in results.json.
      argv: the arguments; default: the arguments of the process.

    Returns:
      The exit status: 0 success, 1 a check failed, 2 bad usage, bad input or a missing package
      (with a line on standard error), 130 interrupted. An unexpected exception is a bug and keeps
      the traceback.
    """
    began = time.perf_counter()
    gc.set_threshold(100_000, 50, 50)  # tracing makes many objects that live: collect rarely
    try:
        config = parse(name, config_type, argv)
        if config is None:
            return SUCCESS
        set_up_jax(joining=isinstance(config, DistributedConfig) and config.distributed)
        with working_folder(config.out or Path("runs") / name) as out:
            # Matplotlib is imported while JAX compiles: both imports take about as long.
            Thread(target=import_module, args=["jaxnn.figures"], daemon=True).start()
            run = Run(name, config, out)
            results = experiment(config, run)
            run.results(results, time.perf_counter() - began)
    except (CycloptsError, OSError) as error:
        return _complain(name, str(error), BAD_INPUT)
    except (ValueError, ModuleNotFoundError) as error:
        if not _is_deliberate(error):
            raise
        return _complain(name, str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED)
    if distributed.is_first():
        print(f"wrote {', '.join(run.files)} to {out} in {time.perf_counter() - began:.1f} s")
    return SUCCESS if all(check["passed"] for check in run.checks) else CHECK_FAILED


def leave(status: int) -> NoReturn:
    """Ends the process without the final garbage collections.

    The final collections take a third of a second, a tenth of the shortest run.
    """
    gc.freeze()
    if status != SUCCESS:
        distributed.fail(status)
    sys.exit(status)


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """The folder of the results; with several processes, the folder of the first process.

    Output and files of the remaining processes are discarded.

    Raises:
      OSError: the folder cannot be created or written.
    """
    with ExitStack() as stack:

        def enter() -> bytes:
            stack.enter_context(writable_folder(out))
            return b""

        distributed.from_first(enter)
        if not distributed.is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
            out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield out


@contextmanager
def writable_folder(out: Path) -> Iterator[Path]:
    """Creates the folder, and proves before any work that the folder can be written.

    When the work fails, new folders are removed again unless they hold files.

    Raises:
      OSError: the folder cannot be created or written.
    """
    made: list[Path] = []
    try:
        try:
            made += [folder for folder in (out, *out.parents) if not folder.exists()]
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=out):
                pass
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"--out is {out}, expected a folder to write to: {reason}") from error
        yield out
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def set_up_jax(*, joining: bool = False) -> None:
    """Sets up a device per core, and keeps compiled programs in the user's cache folder.

    Args:
      joining: whether several processes share the work; the environment describes the processes.
    """
    if joining:
        distributed.join()
    with suppress(RuntimeError):  # JAX was used before, as in a notebook: keep the devices
        use_all_cores()
    use_compilation_cache()


def _is_deliberate(error: Exception) -> bool:
    """Whether jaxnn or an experiment refused an input, rather than a library a call of ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    return module == "__main__" or module.split(".")[0] in ("jaxnn", "experiments")


def _complain(name: str, text: str, status: int) -> int:
    who = "" if distributed.is_first() else f" (process {distributed.process_index()})"
    print(f"experiments.{name}{who}: {' '.join(text.split())}", file=sys.stderr)
    return status
