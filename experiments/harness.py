"""What all experiments share: from the command line to an exit status, a folder of results between.

An experiment is a config type and a function ``(config, run) -> results``; its last lines are::

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

from experiments.config import C, Config, DistributedConfig, parse
from jaxnn import data, distributed, reporting
from jaxnn.compilation_cache import use_compilation_cache
from jaxnn.devices import use_all_cores
from jaxnn.progress import Progress, Report, progress
from jaxnn.types import Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUCCESS, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Run:
    """One execution of an experiment: where its data come from and where its results go."""

    def __init__(self, name: str, config: Config, out: Path):
        self.name = name
        self.config = config
        self.out = out
        self.checks: list[dict[str, Any]] = []
        self.files: dict[str, None] = {}  # their names, in order

    def load(self) -> Splits:
        """The data set of the flags --dataset and --data-dir, downloaded if need be."""
        with Progress(unit="MB") as downloaded:
            return data.load(self.config.dataset, self.config.data_dir, progress=downloaded.report)

    def progress(self, label: str) -> AbstractContextManager[Report]:
        """``with run.progress("training") as report: report(done, total)``, on standard error."""
        return progress(label)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Prints a table to standard output."""
        reporting.print_table(title, columns, rows)

    def history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes history.csv: one row per setting, seed and evaluated iteration."""
        self.rows("history.csv", rows)

    def rows(self, file_name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes a table as CSV."""
        reporting.write_csv(self._new_file(file_name), rows)

    def figure(self, file_name: str, figure: "Figure") -> None:
        """Writes a figure as PNG."""
        from jaxnn.figures import write_png

        write_png(self._new_file(file_name), figure)

    def check(self, name: str, passed: bool, detail: str) -> None:
        """Records and prints a check; one that failed makes the exit status 1."""
        self.checks.append({"name": name, "passed": bool(passed), "detail": detail})
        print(f"{'passed' if passed else 'FAILED'}: {name}: {detail}")

    def results(self, results: Mapping[str, Any], seconds: float) -> None:
        """Writes results.json."""
        content = {
            "experiment": self.name,
            "dataset": self.config.dataset,
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
      config_type: its flags.
      experiment: does the work; what it returns is ``results`` in results.json.
      argv: the arguments; default: the process's own.

    Returns:
      The exit status: 0 success, 1 a check failed, 2 bad usage or bad input (one line on standard
      error says which), 130 interrupted. Any other failure is a bug and keeps its traceback.
    """
    began = time.perf_counter()
    gc.set_threshold(100_000, 50, 50)  # tracing makes many objects that live: look at them rarely
    try:
        config = parse(name, config_type, argv)
        if config is None:
            return SUCCESS
        set_up_jax(joining=isinstance(config, DistributedConfig) and config.distributed)
        with working_folder(config.out or Path("runs") / name) as out:
            # Matplotlib takes nearly as long to import as JAX: let it do so while JAX compiles.
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
    """Ends the process, without a last look at every object that JAX and Matplotlib have made.

    The interpreter's farewell collections take a third of a second, a tenth of the shortest run.
    """
    gc.freeze()
    if status != SUCCESS:
        distributed.fail(status)
    sys.exit(status)


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """The folder of the results; of several processes the first one has it.

    What the others print and write goes nowhere.

    Raises:
      OSError: it cannot be created or written.
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
    """Creates the folder and proves that it can be written, before any work is spent on results.

    When the work fails, the folders made here are taken away again, unless there is something in
    them.

    Raises:
      OSError: it cannot be created or written.
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
    """One device per core, and compiled programs kept in the user's cache folder.

    Args:
      joining: whether this is one of several processes; they are found out from the environment.
    """
    if joining:
        distributed.join()
    with suppress(RuntimeError):  # used before, as in a notebook: then with the devices it has
        use_all_cores()
    use_compilation_cache()


def _is_deliberate(error: Exception) -> bool:
    """Whether our own code raised it about its input, rather than a library about our code."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame else ""
    return module == "__main__" or module.split(".")[0] in ("jaxnn", "experiments")


def _complain(name: str, text: str, status: int) -> int:
    who = "" if distributed.is_first() else f" (process {distributed.process_index()})"
    print(f"experiments.{name}{who}: {' '.join(text.split())}", file=sys.stderr)
    return status
