"""The README's performance section and the roofline page: Markdown, from results.json alone."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from experiments.benchmark import bound
from experiments.benchmark.main import goals, load, measured, no_drawing
from experiments.benchmark.markdown import paragraphs
from experiments.benchmark.part import BenchmarkConfig, Goal, Table

PUBLISHED = "experiments/benchmark/published"
PAGE = "roofline.md"


def section(
    content: Mapping[str, Any], folder: str = PUBLISHED, others: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The README's performance section.

    Args:
      content: all of results.json.
      folder: where the figures and the roofline page are, seen from the README.
      others: earlier ones, of other machines, of which only the required figures are shown.
    """
    results = content["results"]
    texts = ["## Performance", opening(content), *required(results, "What was required")]
    for other in others:
        texts += required(
            other["results"],
            "An earlier run on another machine",
            (f"Measured {when_and_where(other)}.",),
        )
    for name in measured(results):
        if name != "roofline":
            texts += paragraphs(load(name).tables(results))
            texts += faster_peers(results[name])
            texts += figure_links(name, results, folder)
    if "roofline" in results:
        texts.append(
            "What each row computes and moves, the least time that takes, and how far the row is "
            f"from it: [the roofline page]({folder}/{PAGE})."
        )
    return "\n\n".join(texts) + "\n"


def page(content: Mapping[str, Any]) -> str:
    """The roofline page, which lies beside its figure."""
    results = content["results"]
    part = load("roofline")
    texts = ["# Roofline", opening(content), inspect.cleandoc(bound.__doc__ or "")]
    texts += [f"![{name.removesuffix('.png')}]({name})" for name in drawings("roofline", results)]
    return "\n\n".join([*texts, *paragraphs(part.tables(results))]) + "\n"


def opening(content: Mapping[str, Any]) -> str:
    """Which machine, versions and day; how often; and the command that does it again."""
    machine = content["results"]["machine"]
    versions = machine["versions"] | content["versions"]
    own = {"python", "jaxnn", "jax", "jaxlib"}
    peers = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in own)
    return (
        f"Measured {when_and_where(content)}, Python {versions['python']}: jaxnn "
        f"{versions['jaxnn']} on jax {versions['jax']}, beside {peers}. Figures are medians of "
        f"{count(content['config']['seeds'], 'repetition')} in which the contenders take turns, "
        "each in a process of its own; times depend on the machine, ratios less. The same again:"
        f"\n\n```sh\n{command(content['config'])}\n```"
    )


def when_and_where(content: Mapping[str, Any]) -> str:
    """The day and the machine, with the rate of its matrix products if that was measured."""
    machine = content["results"]["machine"]
    accelerated = content["device"]["platform"] != "cpu"
    what = [machine["processor"], *[machine["device"]] * accelerated, machine["system"]]
    if roofline := content["results"].get("roofline"):
        what.append(f"{roofline['peak_gflops']['median']:.0f} GFLOP/s in matrix products")
    return f"on {machine['date']} on {count(machine['cores'], 'core')} ({', '.join(what)})"


def count(number: int, what: str) -> str:
    """As in 1 core, 2 cores."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def command(config: Mapping[str, Any]) -> str:
    """The command line, but for where the data are and where the results go."""
    words = ["python -m experiments.benchmark"]
    for field in fields(BenchmarkConfig):
        value = config.get(field.name, field.default)
        value = tuple(value) if isinstance(value, list) else value
        if field.name in ("data_dir", "out") or value == field.default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if value is not True:
            words += [str(each) for each in (value if isinstance(value, tuple) else (value,))]
    return " ".join(words)


def required(results: Mapping[str, Any], what: str, notes: Sequence[str] = ()) -> list[str]:
    """The required figures beside the measured ones, if there are any."""
    found = goals(results)
    if not found:
        return []
    title = f"{what}: {sum(goal.reached for goal in found)} of {len(found)} reached"
    columns = ("what", "required", "measured", "reached")
    return paragraphs([Table(title, columns, [goal_row(goal) for goal in found], notes)])


def goal_row(goal: Goal) -> tuple[str, str, str, str]:
    """A line of that table."""
    bound = f"at {'most' if goal.at_most else 'least'} {goal.required:g} {goal.unit}"
    found = f"{goal.measured:.3g} {goal.unit}"
    return goal.what, bound, found, "yes" if goal.reached else "no"


def faster_peers(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for every peer that trains a network in less time than jaxnn does."""
    needed = {"network", "sizes", "contender", "label", "microseconds"}
    rows = [row for row in found.get("rows", ()) if set(row) >= needed]
    for peer in rows:
        ours = [
            row["microseconds"]["median"]
            for row in rows
            if row["contender"] == "jaxnn" and row["network"] == peer["network"]
        ]
        taken = peer["microseconds"]["median"]
        if peer["contender"] != "jaxnn" and ours and taken < min(ours):
            yield (
                f"{peer['label']} is faster than jaxnn on {'-'.join(map(str, peer['sizes']))}: it "
                f"takes {100 * taken / min(ours):.0f} % of the time."
            )


def figure_links(name: str, results: Mapping[str, Any], folder: str) -> list[str]:
    """A line that leads to the part's figures, if it has any."""
    links = [f"[{file}]({folder}/{file})" for file in drawings(name, results)]
    return [f"Figures: {', '.join(links)}"] if links else []


def drawings(name: str, results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part's figures by the names of their files."""
    return getattr(load(name), "drawing", no_drawing)(results)
