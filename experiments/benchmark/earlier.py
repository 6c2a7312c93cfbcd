"""What has been measured before: a results.json of the benchmark, read again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.benchmark.part import PARTS, BenchmarkConfig

MUST_AGREE = ("dataset", "seeds", "quick")  # flags


def read(path: Path) -> dict[str, Any]:
    """A results.json of the benchmark.

    Raises:
      OSError: there is none.
      ValueError: it is something else; the text says what.
    """
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    experiment = content.get("experiment") if isinstance(content, dict) else None
    if experiment != "benchmark":
        raise ValueError(f"{path} has the experiment {experiment!r}, expected 'benchmark'")
    missing = {"config", "versions", "device", "results"} - set(content)
    if missing or "machine" not in content["results"]:
        what = ", ".join(sorted(missing)) or "results.machine"
        raise ValueError(f"{path} has no {what}, expected a results.json of the benchmark")
    return content


def parts(path: Path, config: BenchmarkConfig, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The parts in a results.json, if they can stand beside what is measured now.

    Args:
      path: the file; where there is none, there are no parts.
      config: the flags of now.
      machine: the machine of now, as ``results.machine``.

    Raises:
      ValueError: it was measured otherwise; the text says what differs.
    """
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
    return {name: content["results"][name] for name in PARTS if name in content["results"]}
