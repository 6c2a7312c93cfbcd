"""Common parts of all experiments: from the command line to a folder of results and exit status.

An experiment is a config type and a function ``(config, run) -> results``; the last lines are::

    def main(argv=None):
        return harness.main("NAME", NameConfig, experiment, argv)

    if __name__ == "__main__":
        harness.leave(main())
"""

import gc
import json
import math
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
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from cyclopts import CycloptsError

from experiments.config import C, Config, DataConfig, DistributedConfig, parse
from jaxnn import data, distributed, reporting
from jaxnn.devices import use_all_cores, use_compilation_cache
from jaxnn.files import atomic_write, locked, short
from jaxnn.reporting import Progress, Report, progress
from jaxnn.types import Splits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUCCESS, CHECK_FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Run:
    """An execution of an experiment: the source of the data, the folder of the results.

    Tables, texts and figures wait for ``publish``, which writes the results, then prints, then
    draws: no failure of a terminal or of a figure costs a result.
    """

    def __init__(self, name: str, config: Config, out: Path):
        self.name = name
        self.config = config
        self.out = out
        self.checks: list[dict[str, Any]] = []
        self.data: dict[str, Any] | None = None  # sizes, ranges and scale
        self.files: dict[str, None] = {}  # names of written files, in order
        self._earlier = files_of_an_earlier_run(name, out)
        self._writing: dict[str, Callable[[Path], object]] = {}
        self._printing: list[Callable[[], object]] = []
        self._drawing: list[Callable[[], Mapping[str, Figure]]] = []

    def load(self, *, regression: bool = False, flatten: bool = True) -> Splits:
        """The data set of the flags --dataset, --label and --data-dir, downloaded if necessary.

        Args:
          regression: whether the experiment takes real targets; else classes.
          flatten: whether every example is a row; else images are [N, H, W, C].

        Raises:
          ValueError: real targets for an experiment on classes.
        """
        assert isinstance(self.config, DataConfig)
        with Progress(unit="MB") as downloaded:
            splits = data.load(
                self.config.dataset,
                self.config.data_dir,
                label=self.config.label,
                regression=regression or None,
                flatten=flatten,
                progress=downloaded.report,
            )
        if not regression and splits.train.targets.dtype.kind == "f":
            raise self.config.refusal("dataset", "classes: the targets are real numbers")
        self.data = described(splits)
        if self.config.dataset not in data.NAMES:
            self.say(f"{self.config.dataset}: {told(self.data)}")
        return splits

    def progress(self, label: str) -> AbstractContextManager[Report]:
        """``with run.progress("training") as report: report(done, total)``, on standard error."""
        return progress(label)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table on standard output."""
        self.show(partial(reporting.print_table, title, columns, rows))

    def say(self, text: str) -> None:
        """A line of text on standard output."""
        self.show(partial(print, reporting.printable(text)))

    def show(self, output: Callable[[], object]) -> None:
        """A function that prints to standard output."""
        self._printing.append(output)

    def history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The file history.csv: a row per setting, seed and evaluated iteration."""
        self.rows("history.csv", rows)

    def rows(self, file_name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table as CSV."""
        self._writing[file_name] = partial(reporting.write_csv, rows=rows)

    def page(self, file_name: str, text: str) -> None:
        """A file of text."""
        self._writing[file_name] = partial(_write_text, text=text)

    def figures(self, draw: "Callable[[], Mapping[str, Figure]]") -> None:
        """Figures as PNG, from a function that draws figures by file name."""
        self._drawing.append(draw)

    def check(self, name: str, passed: bool, detail: str) -> None:
        """Records and prints a check; a failed check makes the exit status 1."""
        self.checks.append({"name": name, "passed": bool(passed), "detail": detail})
        self.say(f"{'passed' if passed else 'FAILED'}: {name}: {detail}")

    def publish(self, results: Mapping[str, Any], seconds: float) -> None:
        """Writes the results in place of an earlier run's, then prints, then draws what waits.

        Raises:
          OSError: a file cannot be written; without results.json the earlier files stay.
        """
        writing, self._writing = self._writing, {}
        printing, self._printing = self._printing, []
        drawing, self._drawing = self._drawing, []
        self.files |= dict.fromkeys(("results.json", *writing))
        self._write_results(results, seconds)
        for name in self._earlier:
            if name not in self.files:
                (self.out / name).unlink(missing_ok=True)
        self._earlier = ()
        for name, write in writing.items():
            write(self.out / name)
        for output in printing:
            output()
        for draw in drawing:
            from jaxnn.figures import write_figure

            for name, figure in draw().items():
                self.files[name] = None
                write_figure(self.out / name, figure)
        if drawing:
            self._write_results(results, seconds)  # names the figures, too

    def _write_results(self, results: Mapping[str, Any], seconds: float) -> None:
        content = {
            "experiment": self.name,
            "dataset": getattr(self.config, "dataset", None),
            "config": self.config,
            "data": self.data,
            **reporting.environment(),
            "seconds": seconds,
            "files": list(self.files),
            "checks": self.checks,
            "results": results,
        }
        reporting.write_json(self.out / "results.json", content)


def files_of_an_earlier_run(name: str, out: Path) -> tuple[str, ...]:
    """The files that an earlier run of the experiment wrote into the folder.

    Raises:
      ValueError: the folder holds results of another experiment, or a folder in place of a file.
    """
    for path in out.iterdir():
        kind = "file" if path.suffix in (".csv", ".html", ".json", ".png") else "folder"
        wrong = not path.is_file() if kind == "file" else path.name == "model" and path.is_file()
        if wrong:
            raise ValueError(f"--out is {out}, where {path.name} is no {kind}, expected a {kind}")
    try:
        content = json.loads((out / "results.json").read_bytes())
        found, files = content.get("experiment"), content.get("files", ())
    except FileNotFoundError:
        return ()
    except (ValueError, AttributeError, RecursionError):
        found, files = None, ()
    if found != name:
        raise ValueError(
            f"--out is {out}, where results.json is of {found or 'no experiment'}, expected a new "
            f"folder or results of {name}"
        )
    texts = [file for file in files if isinstance(file, str)] if isinstance(files, list) else []
    return tuple(file for file in texts if Path(file).name == file)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def described(splits: Splits) -> dict[str, Any]:
    """The sizes, the ranges of the inputs, the names of the classes and the scale of a data set.

    The scale of standardised columns, and the classes of real targets, are None.
    """
    train, test = splits
    real = train.targets.dtype.kind == "f"
    return {
        "train_examples": len(train.targets),
        "test_examples": len(test.targets),
        "inputs": math.prod(train.inputs.shape[1:]),
        "classes": None if real else int(train.targets.max()) + 1,
        "names": list(train.names),
        "train_range": [float(train.inputs.min()), float(train.inputs.max())],
        "test_range": [float(test.inputs.min()), float(test.inputs.max())],
        "scale": float(np.asarray(train.scale)) if train.shift is None else None,
    }


def told(data: Mapping[str, Any]) -> str:
    """The entries of ``described`` in words."""
    ranges = [f"{low:g}..{high:g}" for low, high in (data["train_range"], data["test_range"])]
    scale, names = data["scale"], f" ({', '.join(data['names'])})" if data["names"] else ""
    targets = f"{data['classes']} classes{short(names, 200)}" if data["classes"] else "real targets"
    seen = "standardised" if scale is None else f"times {scale:g}"
    return (
        f"{data['train_examples']} + {data['test_examples']} examples, {targets}, "
        f"{data['inputs']} inputs in {ranges[0]} (test: {ranges[1]}), which a network sees "
        f"{seen}" + (f" = 1/{1 / scale:.6g}" if scale and scale < 1 else "")
    )


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
    try:
        with reporting.outputs_that_last():
            return _run(name, config_type, experiment, argv)
    except OSError as error:
        return _complain(name, f"{error}; the files are complete", BAD_INPUT)


def _run(
    name: str,
    config_type: type[C],
    experiment: Callable[[C, Run], Mapping[str, Any]],
    argv: Sequence[str] | None,
) -> int:
    """Does what ``main`` says, on outputs that cannot fail."""
    began = time.perf_counter()
    gc.set_threshold(100_000, 50, 50)  # tracing makes many objects that live: collect rarely
    try:
        config = parse(name, config_type, argv)
        if config is None:
            return SUCCESS
        reporting.interrupts_raise()
        set_up_jax(joining=isinstance(config, DistributedConfig) and config.distributed)
        with working_folder(name, config.out or Path("runs") / name) as out:
            # Matplotlib is imported while JAX compiles: both imports take about as long.
            Thread(target=import_module, args=["jaxnn.figures"], daemon=True).start()
            run = Run(name, config, out)
            results = experiment(config, run)
            run.publish(results, time.perf_counter() - began)
    except (CycloptsError, OSError) as error:
        return _complain(name, str(error), BAD_INPUT)
    except (ValueError, ModuleNotFoundError) as error:
        if not _is_deliberate(error):
            raise
        return _complain(name, str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _complain(name, "interrupted", INTERRUPTED)
    if distributed.is_first():
        files = f"wrote {', '.join(run.files)} to {reporting.printable(out)}"
        print(f"{files} in {time.perf_counter() - began:.1f} s")
    return SUCCESS if all(check["passed"] for check in run.checks) else CHECK_FAILED


def leave(status: int) -> NoReturn:
    """Ends the process without the final garbage collections.

    The final collections take a third of a second, a tenth of the shortest run.
    """
    gc.freeze()
    if status == INTERRUPTED and distributed.process_count() == 1:
        os._exit(status)  # threads that compile or import could crash the end of the interpreter
    if status != SUCCESS:
        distributed.fail(status)
    sys.exit(status)


@contextmanager
def working_folder(name: str, out: Path) -> Iterator[Path]:
    """The folder of the results; with several processes, the folder of the first process.

    Output and files of the remaining processes are discarded.

    Raises:
      OSError: the folder cannot be created or written, or is in use by another process.
      ValueError: the folder holds files that are none of the experiment ``name``.
    """
    with ExitStack() as stack:

        def enter() -> bytes:
            stack.enter_context(writable_folder(out))
            files_of_an_earlier_run(name, out)
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
    """Creates and locks the folder: proves before any work that the folder can be written.

    When the work fails, new folders are removed again unless they hold files.

    Raises:
      OSError: the folder cannot be created or written, or is in use by another process.
    """
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            try:
                made += [folder for folder in (out, *out.parents) if not folder.exists()]
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(out / ".lock"))
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
    line = reporting.printable(" ".join(text.split()))
    print(f"experiments.{name}{who}: {line}", file=sys.stderr)
    return status
