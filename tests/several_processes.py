"""Work that tests give to several processes, and to one: ``several_processes.py WORK FOLDER``.

What it comes to is JSON in FOLDER, one file per process. The processes are those of a pretended
SLURM step on this machine, with one CPU device each.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from full_disk import largest_file

from experiments import harness
from experiments.config import DistributedConfig
from jaxnn import MLP, Data, Hyper, Spec, devices, distributed, train_population
from jaxnn.devices import population_mesh
from jaxnn.search import (
    Task,
    fixed,
    log_uniform,
    population_based,
    random,
    search,
    successive_halving,
)
from jaxnn.search.journal import Journal
from jaxnn.search.trainer import Trainer

LENGTHS = (0, 1, 63, 65, 1000, 1014, 1015, 1016, 1017, 2016, 5000)
TIMEOUT = 240  # seconds: far more than any of it takes on a busy machine


def examples(count: int, seed: int = 0) -> Data:
    """Images of 12 8-bit pixels in 3 classes that overlap."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 3, count).astype(np.int32)
    centres = np.random.default_rng(99).integers(90, 170, (3, 12))
    inputs = np.clip(centres[targets] + rng.normal(0, 50, (count, 12)), 0, 255).astype(np.uint8)
    return Data(inputs, targets, np.float32(1 / 255))


TRAIN, TEST = examples(120), examples(90, 2)
TASK = Task(TRAIN, TEST, epochs=4)
SPACE = {
    "learning_rate": log_uniform(0.003, 1e9),  # the largest diverge
    "l2": log_uniform(1e-5, 1e-2),
    "batch_size": fixed(20),
    "hidden": fixed((6,)),
}


def plain(tree: Any) -> Any:
    """Leaves as nested lists of every digit, so that equal JSON is equal bits."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(tree)]


def population(mesh: jax.sharding.Mesh, **options: Any) -> dict[str, Any]:
    """Five configurations, one of which diverges, from three seeds."""
    spec = Spec(
        model=MLP((12, 6, 3)), steps=12, batch_size=20, optimizer="momentum", evaluate_at=(0, 5)
    )
    hyper = Hyper(np.array([0.01, 0.03, 1e30, 0.3, 0.5]), 1e-3)
    keys = jax.random.split(jax.random.key(1), 3)
    found = train_population(spec, hyper, keys, TRAIN, {"test": TEST}, mesh=mesh, **options)
    return {"population": plain((found.params, found.diverged_at, found.metrics))}


def searched(mesh: jax.sharding.Mesh, folder: Path | None = None, **options: Any) -> dict[str, Any]:
    """What population-based training finds: rows are copied to wherever they are trained next."""
    options = {"task": TASK, "method": population_based(6, interval=1), "seeds": 2} | options
    task, space = options.pop("task"), SPACE | options.pop("domains", {})
    result = search(task, space, key=jax.random.key(7), mesh=mesh, folder=folder, **options)
    curves = {n: plain((c.loss, c.error, c.diverged_at)) for n, c in result.curves.items()}
    found = {"table": result.table, "params": plain(result.params), "curves": curves}
    if task.test:
        found["test"] = [result.test(), result.test(retrain=True), result.test()]
        found["test_reads"] = result.test_reads
    return found


def grown(mesh: jax.sharding.Mesh, folder: Path) -> dict[str, Any]:
    """A search that goes on with more trials and seeds."""
    asked = {"task": Task(TRAIN, epochs=2), "block_size": 2, "checkpoint_seconds": 0.0}
    searched(mesh, folder, method=random(3), **asked | {"seeds": 1})
    return searched(mesh, folder, method=random(5), **asked)


def halving(mesh: jax.sharding.Mesh, folder: Path) -> dict[str, Any]:
    """A search of two rungs, with a checkpoint after every segment."""
    task = Task(TRAIN, epochs=2)
    method = successive_halving(4, eta=2)
    return searched(mesh, folder, task=task, method=method, checkpoint_seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(DistributedConfig):
    """An experiment that says where it runs."""


def probe(config: ProbeConfig, run: harness.Run) -> dict[str, Any]:
    """Prints and writes whatever an experiment can, in every process."""
    run.table("processes", ("which",), [(jax.process_index(),)])
    run.history([{"process": jax.process_index()}])
    run.check("devices", True, str(jax.device_count()))
    print("noise", file=sys.stderr)
    (run.out / f"of process {jax.process_index()}").touch()
    return {"devices": jax.device_count()}


def together(folder: Path) -> dict[str, Any]:
    """All that can be shown by processes that live; the experiment joins them."""
    out = str(folder / "run")
    found: dict[str, Any] = {
        "status": harness.main("probe", ProbeConfig, probe, ["--distributed", "--out", out]),
        "refused": harness.main("probe", ProbeConfig, probe, ["--out", __file__]),
    }
    reads, reports = [], []

    def load_test() -> Data:
        reads.append(1)
        return TEST

    mesh = population_mesh()
    found |= population(mesh, block_size=2)
    found["searched"] = searched(
        mesh, folder / "search", task=replace(TASK, test=load_test), progress=reports.append
    )
    found["grown"] = grown(mesh, folder / "grown")
    found |= {"test_loads": len(reads), "reports": len(reports)}
    with jax.enable_x64(True):
        found["along batch"] = population(population_mesh(batch=2))["population"]
    found["exchanged"] = [exchanged(length) for length in LENGTHS]
    found["errors"] = {name: raised(work) for name, work in mistakes(folder).items()}
    return found


def exchanged(length: int) -> tuple[bool, bool]:
    """Whether bytes of a length arrive, in pieces: from process 0, from all."""
    distributed._CHUNK = 512
    messages = [np.random.default_rng([length, p]).bytes(length) for p in (0, 1)]
    received = distributed.from_first(lambda: messages[0])
    own = np.frombuffer(messages[distributed.process_index()], np.uint8)
    return received == messages[0], [r.tobytes() for r in distributed.all_gather(own)] == messages


def mistakes(folder: Path) -> dict[str, Callable[[], object]]:
    """Calls that fail: in process 0 alone, in another alone, or because they are not alike."""
    first = distributed.is_first()
    mesh = population_mesh()

    def other_record() -> None:
        with Journal() as journal:
            journal.append({"number": jax.process_index(), "seconds": 0.1})

    def full_disk() -> None:
        with ExitStack() as stack:
            if first:
                stack.enter_context(largest_file(1000))
            searched(mesh, folder / "full")

    return {
        "file not found": lambda: distributed.from_first((folder / "absent").read_bytes),
        "not made of a text": lambda: distributed.from_first(b"\xff".decode),  # type: ignore
        "other data": lambda: searched(mesh, task=TASK if first else Task(TEST)),
        "other record": other_record,
        "other configuration": lambda: searched(mesh, folder / "search", seeds=3),
        "in use": lambda: searched(mesh, folder / "in use"),
        "full disk": full_disk,
        "own mesh": lambda: searched(jax.sharding.Mesh(jax.local_devices(), ("population",))),
        "joined": lambda: distributed.join("localhost:1", 2, 0),
    }


def raised(work: Callable[[], object]) -> tuple[str, str] | None:
    """The type and the text of the error."""
    try:
        work()
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def halved(folder: Path) -> dict[str, Any]:
    """A search in a folder, and how many segments it trains; joined by explicit arguments."""
    address, index = os.environ["JAX_COORDINATOR_ADDRESS"], int(os.environ["SLURM_PROCID"])
    distributed.join(address, 2, index)
    advance = Trainer.advance
    with mock.patch.object(Trainer, "advance", autospec=True, side_effect=advance) as trained:
        found = halving(population_mesh(), folder / "search")
    return found | {"segments": trained.call_count}


def killed(folder: Path) -> dict[str, Any]:
    """``halved``, but process 1 is killed after the first checkpoint."""
    save = Journal.save

    def save_and_die(self: Journal, *given: Any, **named: Any) -> None:
        save(self, *given, **named)
        if not distributed.is_first():
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.save = save_and_die
    distributed.fail.__defaults__ = (0.5,)
    return halved(folder)


def one_fails(folder: Path) -> dict[str, Any]:
    """Process 1 fails while process 0 waits for it."""
    distributed.fail.__defaults__ = (0.5,)
    distributed.join()
    distributed.agree(True)
    if not distributed.is_first():
        raise ValueError("nobody expected this")
    distributed.agree(True)
    return {}


def waiting(folder: Path) -> dict[str, Any]:
    """Both wait to be told to stop."""
    distributed.join()
    distributed.agree(True)
    (folder / f"{distributed.process_index()}.ready").touch()
    time.sleep(TIMEOUT)
    return {}


def unequal(folder: Path) -> dict[str, Any]:
    """Process 1 has a device more than process 0."""
    devices.core_count = lambda: 1 + int(os.environ["SLURM_PROCID"])
    devices.use_all_cores()
    distributed.join()
    return {"error": raised(lambda: distributed.agree(True))}


def patient(folder: Path) -> dict[str, Any]:
    """Joins, with a word about missing processes after a second."""
    distributed._PATIENCE = 1.0
    distributed.join(timeout_seconds=100)
    return {"agreed": distributed.agree(True)}


WORK = {
    work.__name__: work for work in (together, halved, killed, one_fails, waiting, unequal, patient)
}


def free_port() -> int:
    """A port that no process uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@contextmanager
def processes(
    work: str,
    folder: Path,
    count: int = 2,
    indices: Sequence[int] | None = None,
    port: int | None = None,
) -> Iterator[list[subprocess.Popen]]:
    """The processes at work, or some; whatever happens, they do not outlive the ``with``."""
    port = port or free_port()
    started = []
    try:
        for index in range(count) if indices is None else indices:
            step = {
                "SLURM_JOB_ID": "1",
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_NTASKS": str(count),
                "SLURM_PROCID": str(index),
                "SLURM_LOCALID": str(index),
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_PLATFORMS": "cpu",
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            with (
                open(folder / f"{index}.out", "w") as out,
                open(folder / f"{index}.err", "w") as err,
            ):
                command = [sys.executable, "-W", "error", __file__, work, str(folder)]
                started.append(
                    subprocess.Popen(command, env=os.environ | step, stdout=out, stderr=err)
                )
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def outcomes(work: str, folder: Path) -> list[dict[str, Any]]:
    """What two processes found, after they have ended well."""
    with processes(work, folder) as started:
        statuses = [process.wait(TIMEOUT) for process in started]
    assert statuses == [0, 0], "".join((folder / f"{i}.err").read_text() for i in range(2))
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def main() -> None:
    """One of the processes."""
    work, folder = sys.argv[1], Path(sys.argv[2])
    devices.core_count = lambda: 1
    devices.use_all_cores()
    found = WORK[work](folder)
    path = folder / f"{distributed.process_index()}.json"
    path.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
