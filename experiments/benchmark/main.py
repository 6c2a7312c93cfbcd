"""The benchmark as an experiment: prepares the examples, runs the parts, shows what they found."""

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from experiments import harness
from experiments.benchmark import earlier, machine, problem
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.part import PARTS, Bench, BenchmarkConfig, Goal, Part
from jaxnn import Data
from jaxnn.reporting import plain

EXAMPLES, QUICK_EXAMPLES = 60_000, 1_200
VALIDATION_SHARE = 1 / 6
PEERS = ("optuna", "keras-tuner", "chex")  # beside those of the contenders


def experiment(config: BenchmarkConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures part after part; each part's results are written and printed when it is done."""
    began = time.perf_counter()
    count = QUICK_EXAMPLES if config.quick else EXAMPLES
    examples = problem.mnist_shaped(run.load().train, count)
    results: dict[str, Any] = {
        "machine": machine.description() | {"versions": versions(), "examples": count}
    }
    if config.keep:
        results |= earlier.parts(run.out / "results.json", config, results["machine"])
    with tempfile.TemporaryDirectory() as folder:
        problem.store(Path(folder), *split(examples))
        bench = Bench(config, run, Path(folder), machine.usable_cores())
        for name in config.parts:
            part = load(name)
            results[name] = plain(part.measure(bench))
            results = {"machine": results["machine"]} | {n: results[n] for n in measured(results)}
            run.config = replace(config, parts=measured(results), keep=False)
            run.results(results, time.perf_counter() - began)
            for table in part.tables(results):
                run.table(table.title, table.columns, table.rows)
                print("\n".join(table.notes))
    show(run, goals(results))
    run.history(list(values(results)))
    for name in measured(results):
        for file_name, figure in getattr(load(name), "drawing", no_drawing)(results).items():
            run.figure(file_name, figure)
    return results


def measured(results: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that there are results of, in their order."""
    return tuple(name for name in PARTS if name in results)


def load(name: str) -> Part:
    """The part's module."""
    return cast(Part, import_module(f"experiments.benchmark.parts.{name}"))


def no_drawing(results: Mapping[str, Any]) -> dict:
    """The figures of a part that has none."""
    del results
    return {}


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """The required figures of all parts that were measured."""
    return [goal for name in measured(results) for goal in load(name).goals(results)]


def show(run: harness.Run, found: Sequence[Goal]) -> None:
    """Prints the required figures beside the measured ones."""
    run.table(
        "What is required",
        ("what", "unit", "required", "measured", ""),
        [
            (
                goal.what,
                goal.unit,
                f"at {'most' if goal.at_most else 'least'} {goal.required:g}",
                f"{goal.measured:.3g}",
                "reached" if goal.reached else "NOT reached",
            )
            for goal in found
        ],
    )


def split(examples: Data) -> tuple[Data, Data]:
    """The last sixth validates."""
    cut = round(len(examples.targets) * (1 - VALIDATION_SHARE))
    return (
        Data(examples.inputs[:cut], examples.targets[:cut], examples.scale),
        Data(examples.inputs[cut:], examples.targets[cut:], examples.scale),
    )


def versions() -> dict[str, str]:
    """Those of all contenders' packages that are installed."""
    packages = dict.fromkeys(p for entry in CONTENDERS.values() for p in entry.packages)
    found = {}
    for package in (*packages, *PEERS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def values(results: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Every repetition of every measure: a row of history.csv."""
    if isinstance(results, Mapping):
        if isinstance(results.get("values"), list):
            for seed, value in enumerate(results["values"]):
                yield {"measure": ".".join(path), "seed": seed, "value": value}
        else:
            for key, entry in results.items():
                yield from values(entry, (*path, str(key)))
    elif isinstance(results, list):
        for index, entry in enumerate(results):
            yield from values(entry, (*path, str(index)))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("benchmark", BenchmarkConfig, experiment, argv)
