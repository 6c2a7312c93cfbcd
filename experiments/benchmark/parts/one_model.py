"""One model: microseconds per step, and the time to a stated validation accuracy.

Every contender is tried on one core, on two and on all, and goes on with the number of cores on
which it was fastest. Then they take turns.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from experiments.benchmark.bound import bound
from experiments.benchmark.contender import CONTENDERS
from experiments.benchmark.crew import MissingError, Worker, hired
from experiments.benchmark.part import Bench, Goal, Table, Ticks, figures, median
from experiments.benchmark.problem import NETWORKS, restore

RATE = 0.1
TRIALS = 3  # of each number of cores
EPOCHS = 5  # of a timed training
MOST_EPOCHS = 20  # to reach the accuracy
REQUIRED = 1.5  # times the fastest peer's speed
ACCURACIES = {  # what is to be reached on the validation examples
    "mnist": {"softmax": 0.92, "mlp": 0.97},
    "fashion_mnist": {"softmax": 0.84, "mlp": 0.87},
}
NAMES = tuple(n for n, entry in CONTENDERS.items() if not entry.whole_population or n == "jaxnn")


def measure(bench: Bench) -> Mapping[str, Any]:
    """Every contender on every network, in turn."""
    rows = []
    timed = bench.config.seeds * (2 if bench.config.dataset in ACCURACIES else 1)
    with bench.run.progress("one model") as report:
        tick = Ticks(report, len(NETWORKS) * len(NAMES) * (1 + timed))
        for network, sizes in NETWORKS.items():
            rows += measure_network(bench, network, sizes, tick)
    return {"rows": rows, "epochs": EPOCHS, "learning_rate": RATE}


def measure_network(
    bench: Bench, network: str, sizes: tuple[int, ...], tick: Ticks
) -> list[dict[str, Any]]:
    """One row per contender that is installed; a tick for each of its trainings, and one before."""
    repetitions = range(bench.config.seeds)
    target = ACCURACIES.get(bench.config.dataset, {}).get(network)
    steps = EPOCHS * restore(bench.data, sizes).steps_per_epoch
    with ExitStack() as stack:
        crew: dict[str, Worker] = {}
        tried: dict[str, dict[str, float]] = {}
        for name in NAMES:
            try:
                crew[name], tried[name] = fastest(stack, bench, name, sizes, [RATE], EPOCHS)
            except MissingError as error:
                print(f"{CONTENDERS[name].label} is left out: {error}")
            tick()
        taken = {name: [] for name in crew}
        reached = {name: [] for name in crew}
        for seed in repetitions:
            for name, worker in crew.items():
                taken[name].append(1e6 * worker.train([RATE], EPOCHS, seed).seconds / steps)
                tick()
        if target is not None:
            for worker in crew.values():
                worker.train([RATE], MOST_EPOCHS, 0, evaluate=True)  # compiles
            for seed in repetitions:
                for name, worker in crew.items():
                    reached[name].append(seconds_to(worker, target, seed))
                    tick()
        return [
            {
                "network": network,
                "sizes": sizes,
                "contender": name,
                "label": CONTENDERS[name].label,
                "models": 1,
                "processes": 1,
                "cores": len(worker.cores),
                "microseconds": figures(taken[name]),
                "tried": tried[name],
                "target": target,
                "seconds_to_target": figures(reached[name]) if target is not None else None,
            }
            for name, worker in crew.items()
        ]


def fastest(
    stack: ExitStack,
    bench: Bench,
    name: str,
    sizes: tuple[int, ...],
    rates: Sequence[float],
    epochs: int,
) -> tuple[Worker, dict[str, float]]:
    """The contender on the number of cores that suits it, warm; and the seconds on each.

    Raises:
      MissingError: it is not installed.
      ProcessError: it failed.
    """
    counts = sorted({1, min(2, len(bench.cores)), len(bench.cores)})
    with ExitStack() as candidates:
        workers: dict[int, Worker] = {}
        ends: dict[int, ExitStack] = {}
        for count in counts:
            ends[count] = candidates.enter_context(ExitStack())
            worker = hired(name, sizes, bench.data, bench.cores[:count])
            workers[count] = ends[count].enter_context(worker)
            workers[count].train(rates, epochs, seed=0)
        seconds: dict[int, list[float]] = {count: [] for count in counts}
        for seed in range(TRIALS):
            for count, worker in workers.items():
                seconds[count].append(worker.train(rates, epochs, seed).seconds)
        best = min(counts, key=lambda count: median(seconds[count]))
        stack.push(ends[best].pop_all())
    return workers[best], {str(count): median(seconds[count]) for count in counts}


def seconds_to(worker: Worker, target: float, seed: int) -> float:
    """The time to the first epoch after which the accuracy is reached; infinite if it is not.

    All epochs do the same work, so of a training with an evaluation after every epoch it is the
    share of its epochs that were needed.
    """
    seconds, accuracies = worker.train([RATE], MOST_EPOCHS, seed, evaluate=True)
    assert accuracies is not None
    enough = np.flatnonzero(accuracies[0] >= target)
    return seconds * (enough[0] + 1) / MOST_EPOCHS if len(enough) else np.inf


def speed(rows: list[dict[str, Any]], network: str) -> tuple[float, str]:
    """How many times as fast as the fastest peer jaxnn is, and which one that is."""
    times = {
        row["label"]: row["microseconds"]["median"] for row in rows if row["network"] == network
    }
    ours = times.pop("jaxnn")
    peer = min(times, key=lambda label: times[label])
    return times[peer] / ours, peer


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Microseconds per step and seconds to the accuracy, one table a network."""
    found = results.get("one_model")
    if not found:
        return []
    machine = results.get("roofline")
    return [table(found["rows"], network, machine) for network in NETWORKS]


def table(
    rows: list[dict[str, Any]], network: str, machine: Mapping[str, Any] | None = None
) -> Table:
    """The contenders by speed."""
    mine = sorted(
        (row for row in rows if row["network"] == network),
        key=lambda r: r["microseconds"]["median"],
    )
    ours = next(r["microseconds"]["median"] for r in mine if r["contender"] == "jaxnn")
    target = mine[0]["target"]
    columns = ["", "cores", "µs per step", "time / jaxnn's"]
    if target is not None:
        columns.append(f"seconds to {100 * target:g} % of the validation examples")
    body = []
    for row in mine:
        taken = row["microseconds"]["median"]
        cells = [row["label"], str(row["cores"]), f"{taken:.0f}", f"{taken / ours:.2f}"]
        if target is not None:
            reached = row["seconds_to_target"]["median"]
            cells.append("not reached" if reached is None else f"{reached:.2f}")
        body.append(cells)
    sizes = "-".join(map(str, mine[0]["sizes"]))
    notes = tuple(limits(rows, network, machine)) if machine else ()
    return Table(f"One model, {sizes}, minibatch 100", columns, body, notes)


def limits(rows: list[dict[str, Any]], network: str, machine: Mapping[str, Any]) -> Iterator[str]:
    """What is in the way of the speed that is required, if it is not reached.

    Args:
      rows: of all networks.
      network: the one that is meant.
      machine: what ``parts.roofline`` measured.
    """
    ratio, peer = speed(rows, network)
    if ratio >= REQUIRED:
        return
    ours = next(r for r in rows if r["contender"] == "jaxnn" and r["network"] == network)
    cores, taken = ours["cores"], ours["microseconds"]["median"]
    least = bound(ours, machine).least
    others = {int(n): s for n, s in ours["tried"].items() if int(n) != cores}
    longer = "".join(
        f"; on {n} it takes {seconds / ours['tried'][str(cores)]:.2f} times as long"
        for n, seconds in others.items()
    )
    yield (
        f"{REQUIRED:g} times the speed of {peer} would be {taken * ratio / REQUIRED:.0f} µs; "
        f"at the peak of {cores} core{'s' if cores > 1 else ''}, where jaxnn is fastest, it would "
        f"take {least:.0f} µs{longer}."
    )


def goals(results: Mapping[str, Any]) -> list[Goal]:
    """So many times as fast as the fastest peer."""
    found = results.get("one_model")
    if not found:
        return []
    reached = []
    for network, sizes in NETWORKS.items():
        ratio, peer = speed(found["rows"], network)
        what = f"one model {'-'.join(map(str, sizes))}: jaxnn against the fastest peer, {peer}"
        reached.append(Goal(what, "x", REQUIRED, ratio))
    return reached
