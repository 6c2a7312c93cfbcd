"""Searches killed at random moments end as if nothing had happened.

``python tests/search/survival.py [--kills N] [--seed S] [--method NAME]`` starts a small search of
every method in a process of its own and kills it (SIGKILL) at a random moment, some several times,
and lets it go on to the end. What it found is compared, bit for bit, with an uninterrupted search:
the table, the parameters, the choice, the test scores, every round and segment in the database, and
the digest of every checkpoint that both have written. Exit status 0 when everything is identical.
"""

import argparse
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from databases import is_torn, stored

from jaxnn import search as s
from jaxnn.data import catalog
from jaxnn.devices import use_all_cores, use_compilation_cache
from jaxnn.files import named_leaves
from jaxnn.search.journal import Record
from jaxnn.types import Data

METHODS: dict[str, s.Method] = {
    "random": s.random(8),
    "successive_halving": s.successive_halving(12, eta=2),
    "hyperband": s.hyperband(eta=4),
    "population_based": s.population_based(8, interval=2),
    "optuna": s.optuna(12, batch=4),
}
SPACE = {
    "learning_rate": s.log_uniform(0.03, 1e5),  # the largest diverge
    "l2": s.log_uniform(1e-6, 1e-2),
    "momentum": s.choice(0.0, 0.9),
    "hidden": s.choice((), (64,)),
}
CHECKPOINT_SECONDS = (0.0, 0.0, 0.05, 0.3, 1e9)  # after every segment, sometimes, at the end
KILLS_PER_SEARCH = 3  # at most


class Killed(NamedTuple):
    """What a killed process left."""

    segment: int  # in the database
    torn: bool  # the write-ahead log ends within a record
    writing: bool  # a temporary file: it was writing a checkpoint


class Life(NamedTuple):
    """One search, from its beginning to its end over several processes."""

    method: str
    checkpoint_seconds: float
    killed: list[Killed]
    differences: list[str]  # from the uninterrupted search


class Reference(NamedTuple):
    """The uninterrupted search."""

    outcome: dict[str, Any]
    records: list[Record]
    seconds: float  # from the beginning of the search

    @property
    def segments(self) -> int:
        """How many there are."""
        return _segments(self.records)


def run(method: str, folder: Path, checkpoint_seconds: float) -> None:
    """What the processes do: says when the search begins, and in the end what it found."""
    use_all_cores()
    use_compilation_cache()
    train, test = catalog.digits()
    task = s.Task(
        Data(train.inputs[:400], train.targets[:400], train.scale),
        Data(test.inputs[:100], test.targets[:100], test.scale),
        epochs=6,
        evaluations_per_epoch=4,
    )
    print("begins", flush=True)
    result = s.search(
        task,
        SPACE,
        method=METHODS[method],
        key=jax.random.key(0),
        seeds=2,
        folder=folder,
        checkpoint_seconds=checkpoint_seconds,
    )
    print(json.dumps(outcome(result)))


def outcome(result: s.Result) -> dict[str, Any]:
    """What a search found, every bit of it, in JSON's types."""
    params = {
        name: [str(leaf.dtype), list(leaf.shape), hashlib.sha256(leaf.tobytes()).hexdigest()]
        for name, leaf in named_leaves("", result.params).items()
    }
    found = {
        "table": result.table,
        "best": result.best._asdict(),
        "params": params,
        "programs": result.programs,
        "test": result.test()._asdict(),
        "notes": result.notes,
    }
    return json.loads(json.dumps(found))


class Searcher:
    """Starts searches; their compiled programs are kept in a folder."""

    def __init__(self, folder: Path):
        """Works within a folder."""
        self.folder = folder
        self._numbers = itertools.count()

    def fresh_folder(self) -> Path:
        """For a new search."""
        return self.folder / f"run-{next(self._numbers)}"

    def start(self, method: str, folder: Path, checkpoint_seconds: float) -> subprocess.Popen[str]:
        """A process whose search is about to begin."""
        command = [sys.executable, __file__, "--run", str(folder), "--method", method]
        process = subprocess.Popen(
            [*command, "--checkpoint-seconds", str(checkpoint_seconds)],
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def finish(self, method: str, folder: Path, checkpoint_seconds: float) -> dict[str, Any]:
        """What a search finds that nobody disturbs."""
        process = self.start(method, folder, checkpoint_seconds)
        output, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{method} in {folder} ended with {errors.strip()}")
        return json.loads(output)

    def reference(self, method: str) -> Reference:
        """The uninterrupted search: once to compile its programs, and again for the time."""
        first = self.finish(method, self.fresh_folder(), 0)
        folder = self.fresh_folder()
        process = self.start(method, folder, 0)
        began = time.monotonic()
        output, _ = process.communicate()
        seconds = time.monotonic() - began
        if json.loads(output) != first:
            raise RuntimeError(f"{method}: two uninterrupted searches differ")
        return Reference(first, stored(folder), seconds)

    def live(self, method: str, reference: Reference, kills: int, rng: np.random.Generator) -> Life:
        """A search that is killed at most so often, and then goes on to its end."""
        folder = self.fresh_folder()
        checkpoint_seconds = float(rng.choice(CHECKPOINT_SECONDS))
        killed: list[Killed] = []
        for _ in range(kills):
            process = self.start(method, folder, checkpoint_seconds)
            _wait(process, folder, reference, rng)
            process.kill()
            _, errors = process.communicate()
            if process.returncode == 0:
                break  # it was faster
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError(f"{method} in {folder} ended with {errors.strip()}")
            killed.append(_left_by_it(folder))
        try:
            found = self.finish(method, folder, checkpoint_seconds)
        except RuntimeError as error:
            return Life(method, checkpoint_seconds, killed, [str(error).splitlines()[-1]])
        differing = differences(reference, found, stored(folder))
        return Life(method, checkpoint_seconds, killed, differing)


def _wait(
    process: subprocess.Popen[str], folder: Path, reference: Reference, rng: np.random.Generator
) -> None:
    """Until a random moment: of the time the search takes, or after a random one of its segments.

    The first also hits what is no segment, and segments that are trained again; the second is
    spread evenly over the segments however fast the machine is at the moment.
    """
    rest = reference.seconds
    if rng.random() < 0.5:
        segment = rng.integers(_segments(stored(folder)), reference.segments + 1)
        while process.poll() is None and _segments(stored(folder)) < segment:
            time.sleep(0.003)
        rest /= reference.segments
    with suppress(subprocess.TimeoutExpired):
        process.wait(rng.uniform(0, rest))


def differences(reference: Reference, found: dict[str, Any], records: list[Record]) -> list[str]:
    """What of a search is not as in the uninterrupted one."""
    expected = reference.outcome
    differing = [name for name in expected if found[name] != expected[name]]
    if _reproducible(records) != _reproducible(reference.records):
        differing.append("records")
    was, now = _checkpoints(reference.records), _checkpoints(records)
    differing += [f"checkpoint {n}" for n in was.keys() & now.keys() if was[n] != now[n]]
    return differing


def lives(
    searcher: Searcher, methods: list[str], kills: int, seed: int
) -> Iterator[tuple[Life, Reference]]:
    """Searches of all methods in turn, until so many processes have been killed."""
    rng = np.random.default_rng(seed)
    references: dict[str, Reference] = {}
    for method in itertools.cycle(methods):
        if kills <= 0:
            return
        if method not in references:
            references[method] = searcher.reference(method)
        planned = min(kills, int(rng.integers(1, KILLS_PER_SEARCH + 1)))
        life = searcher.live(method, references[method], planned, rng)
        kills -= len(life.killed)
        yield life, references[method]


def _left_by_it(folder: Path) -> Killed:
    return Killed(_segments(stored(folder)), is_torn(folder), any(folder.glob(".*.tmp")))


def _segments(records: list[Record]) -> int:
    return sum("segment" in record for record in records)


def _reproducible(records: list[Record]) -> list[Record]:
    """All but the seconds, when checkpoints were written, and how often the test set was read.

    A process that is killed between reading the test set and writing down the scores has read it.
    """
    kept = [r for r in records if "checkpoint" not in r and "test_read" not in r]
    return [{name: value for name, value in r.items() if name != "seconds"} for r in kept]


def _checkpoints(records: list[Record]) -> dict[int, str]:
    return {r["checkpoint"]: r["sha256"] for r in records if "checkpoint" in r}


def _say(life: Life, reference: Reference, done: int, kills: int) -> None:
    moments = ", ".join(str(one.segment) for one in life.killed) or "none"
    verdict = f"DIFFERENT: {', '.join(life.differences)}" if life.differences else "identical"
    print(
        f"{done:3}/{kills} {life.method:18} killed at segment {moments} of {reference.segments}, "
        f"checkpoints every {life.checkpoint_seconds:g} s: {verdict}",
        flush=True,
    )


def _summarise(all_lives: list[tuple[Life, Reference]]) -> None:
    killed = [(one, ref) for life, ref in all_lives for one in life.killed]
    counts = [0] * 4
    for one, reference in killed:
        counts[min(3, 4 * one.segment // reference.segments)] += 1
    identical = sum(not life.differences for life, _ in all_lives)
    print(
        f"\n{len(killed)} kills hit a process at work, {counts} of them in the quarters of the "
        f"search, {sum(one.writing for one, _ in killed)} while it wrote a checkpoint, "
        f"{sum(one.torn for one, _ in killed)} while it wrote a record; "
        f"{identical} of {len(all_lives)} searches are identical to the uninterrupted one"
    )


def main() -> int:
    """Kills searches; see the file's docstring."""
    parser = argparse.ArgumentParser(description="Kills searches and compares what they find.")
    parser.add_argument("--kills", type=int, default=100, help="how many processes to kill")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--method", choices=METHODS, help="only this method")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint-seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.method, arguments.run, arguments.checkpoint_seconds)
        return 0
    methods = [arguments.method] if arguments.method else list(METHODS)
    all_lives = []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        for life, reference in lives(
            Searcher(Path(folder)), methods, arguments.kills, arguments.seed
        ):
            done += len(life.killed)
            _say(life, reference, done, arguments.kills)
            all_lives.append((life, reference))
    _summarise(all_lives)
    return int(any(life.differences for life, _ in all_lives))


if __name__ == "__main__":
    sys.exit(main())
