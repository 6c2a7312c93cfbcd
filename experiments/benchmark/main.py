"""The benchmark as an experiment: prepares the examples, runs the parts, prints the tables."""

import json
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from experiments import harness, machine
from experiments.benchmark import problem
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.part import Bench, Goal, Part, Results
from experiments.config import DataConfig, Whole
from jaxnn.files import open_regular
from jaxnn.reporting import plain

PARTS = {  # and their modules, in the order of the tables
    **dict.fromkeys(("one_model", "population"), "training"),
    **{n: n for n in ("search", "shapes", "startup", "verification", "scale", "roofline")},
}
EXAMPLES, QUICK_EXAMPLES = 60_000, 1_200
PEERS = "optuna keras-tuner chex"  # beside the packages of the contenders
MUST_AGREE = ("dataset", "seeds", "quick")  # flags, of results that are kept
GOAL_COLUMNS = ("what", "required", "measured", "reached")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(DataConfig):
    """Measure jaxnn and its peers in turn, on equal data, models, minibatches and steps.

    Missing peers are left out (extra "benchmark" brings all peers). Figures are medians; ratios are
    within a run. The exit status does not depend on the figures.
    """

    dataset: str = "mnist"
    """mnist, fashion_mnist, digits (enlarged to 28x28 and repeated), or the path of your data."""

    seeds: Whole = 3
    """Number of interleaved repetitions, each from another seed; medians are reported."""

    parts: tuple[str, ...] = tuple(PARTS)
    """Which to measure: one_model population search shapes startup verification scale roofline."""

    keep: bool = False
    """Keep the parts of the results.json in --out, if machine and versions are the same."""

    quick: bool = False
    """Shorter runs of fewer cases: to see that everything works; the figures mean little."""

    def validate(self) -> None:
        """Raises ValueError with the flag, the value and the expectation."""
        super().validate()
        if not self.parts or not set(self.parts) <= set(PARTS):
            raise self.refusal("parts", f"some of {', '.join(PARTS)}")


def experiment(config: BenchmarkConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures part after part; publishes the results after every part."""
    began = time.perf_counter()
    count = QUICK_EXAMPLES if config.quick else EXAMPLES
    examples = problem.mnist_shaped(run.load().train, count)
    here = machine.description() | {"versions": versions(), "examples": count}
    results = kept(run.out / "results.json", config, here) if config.keep else {}
    with tempfile.TemporaryDirectory() as folder:
        problem.store(Path(folder), *problem.split(examples))
        bench = Bench(config, run, Path(folder), machine.usable_cores())
        for name in config.parts:
            part = parts([name])[name]
            results[name] = plain(part.measure(bench))
            results = {"machine": here} | {n: results[n] for n in PARTS if n in results}
            run.config = replace(config, parts=tuple(parts(results)), keep=False)
            for table in part.tables(results):
                run.table(table.title, table.columns, table.rows)
                for note in table.notes:
                    run.say(note)
            run.publish(results, time.perf_counter() - began)
    run.table("What is required", GOAL_COLUMNS, [goal.cells for goal in goals(results)])
    run.history(list(repetitions(results)))
    for part in parts(results).values():
        run.figures(partial(part.figures, results))
    return results


def parts(names: Collection[str]) -> dict[str, Part]:
    """The parts of the names, as of the keys of results, in the order of PARTS."""
    modules = {n: f"experiments.benchmark.parts.{m}" for n, m in PARTS.items() if n in names}
    return {name: import_module(module).PARTS[name] for name, module in modules.items()}


def goals(results: Results) -> list[Goal]:
    """The required figures of all measured parts."""
    return [goal for part in parts(results).values() for goal in part.goals(results)]


def versions() -> dict[str, str]:
    """The versions of the installed packages of all contenders."""
    packages = " ".join([*(entry.packages for entry in CONTENDERS.values()), PEERS]).split()
    found = {}
    for package in dict.fromkeys(packages):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def repetitions(results: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Every repetition of every measure: a row of history.csv."""
    if isinstance(results, Mapping) and isinstance(results.get("values"), list):
        for seed, value in enumerate(results["values"]):
            yield {"measure": ".".join(path), "seed": seed, "value": value}
    elif isinstance(results, Mapping | list):
        entries = results.items() if isinstance(results, Mapping) else enumerate(results)
        for key, entry in entries:
            yield from repetitions(entry, (*path, str(key)))


def read(path: Path) -> dict[str, Any]:
    """A results.json of the benchmark; ValueError, with the reason, for any different file."""
    try:
        with open_regular(path) as file:
            content = json.loads(file.read())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    experiment = content.get("experiment") if isinstance(content, dict) else None
    if experiment != "benchmark":
        raise ValueError(f"{path} has the experiment {experiment!r}, expected 'benchmark'")
    missing = {"config", "versions", "device", "results"} - set(content)
    if missing or not isinstance(content["results"], dict) or "machine" not in content["results"]:
        what = ", ".join(sorted(missing)) or "results.machine"
        raise ValueError(f"{path} has no {what}, expected a results.json of the benchmark")
    return content


def kept(path: Path, config: BenchmarkConfig, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The parts in a results.json, if the file exists; ValueError if flags or machine differ."""
    if not path.exists():
        return {}
    content = read(path)
    before = {**content["config"], **content["results"]["machine"]}
    now = {flag: getattr(config, flag) for flag in MUST_AGREE} | dict(machine)
    for name, value in now.items():
        if name != "date" and before.get(name) != value:
            raise ValueError(
                f"{path} was measured with {name} {before.get(name)}, expected {value}: measure "
                "all parts again, without --keep"
            )
    return {name: found for name, found in content["results"].items() if name in PARTS}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("benchmark", BenchmarkConfig, experiment, argv)
