"""Two real processes on this machine give what one gives, and fail as one."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from several_processes import (
    LENGTHS,
    TIMEOUT,
    free_port,
    grown,
    halving,
    outcomes,
    population,
    processes,
    searched,
)

from jaxnn import distributed
from jaxnn.devices import population_mesh
from jaxnn.search.journal import DATABASE, Journal

needs_two = pytest.mark.skipif(len(jax.devices()) < 2, reason="to compare with: two devices here")
each_process = pytest.mark.parametrize("process", [0, 1])


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes found, and their folder."""
    folder = tmp_path_factory.mktemp("together")
    with Journal(folder / "in use", {"seeds": 1}):
        return outcomes("together", folder), folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process with two devices finds."""
    mesh, folder = population_mesh(2), tmp_path_factory.mktemp("alone")
    found = {"searched": searched(mesh), "grown": grown(mesh, folder)}
    return population(mesh, block_size=2) | found


def same_bits(found, expected) -> bool:
    return json.dumps(found) == json.dumps(expected)


@needs_two
@each_process
@pytest.mark.parametrize("work", ["population", "searched", "grown"])
def test_every_process_has_the_bits_of_one_process_with_as_many_devices(
    together, alone, process, work
):
    assert same_bits(together[0][process][work], alone[work])


def test_some_of_those_compared_diverged_and_some_were_copied(together):
    table = together[0][0]["searched"]["table"]
    for column in ("diverged_at", "copied_from"):
        assert {row[column] is None for row in table} == {True, False}


@each_process
def test_minibatches_spread_over_processes_train_what_one_device_trains(together, x64, process):
    one = population(population_mesh(1))["population"]
    for found, expected in zip(together[0][process]["along batch"], one, strict=True):
        assert_allclose(np.array(found, float), np.array(expected, float), rtol=1e-12, atol=1e-12)


@each_process
def test_bytes_of_any_length_arrive(together, process):
    assert together[0][process]["exchanged"] == [[True, True]] * len(LENGTHS)


@each_process
def test_the_test_set_is_loaded_by_the_first_process_alone(together, process):
    found = together[0][process]
    assert found["test_loads"] == (2 if process == 0 else 0)  # validated models, retrained ones
    assert found["searched"]["test_reads"] == 2


@each_process
def test_progress_is_reported_by_the_first_process_alone(together, process):
    assert (together[0][process]["reports"] > 0) == (process == 0)


@each_process
@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        ("file not found", "FileNotFoundError", "No such file or directory"),
        ("other data", "ValueError", "process 1 has another task than process 0, expected the"),
        ("other record", "ValueError", "process 1 has another number than process 0, expected"),
        ("other configuration", "RunFolderError", "seeds is 3, in the folder 2; grid, random, sob"),
        ("in use", "RunFolderError", "is in use by another search, expected to be the only one"),
        ("full disk", "OSError", "disk I/O error: "),
        ("own mesh", "ValueError", "mesh has devices of the processes [{0}], expected of all 2"),
        ("joined", "RuntimeError", "this process has joined already, expected join() once"),
    ],
)
def test_a_mistake_is_the_same_line_in_every_process(together, process, mistake, kind, text):
    found, line = together[0][process]["errors"][mistake]
    assert (found, line.count("\n")) == (kind, 0)
    assert text.format(process) in line


def test_an_error_that_cannot_be_made_elsewhere_is_told_by_its_name(together):
    first, second = (found["errors"]["not made of a text"] for found in together[0])
    assert first[0] == "UnicodeDecodeError"
    assert second == ["RuntimeError", f"UnicodeDecodeError: {first[1]}"]


def test_a_refused_search_leaves_the_folder_as_it_was(together):
    assert os.listdir(together[1] / "in use") == [DATABASE]
    assert stored(together[1] / "in use") == [{"search": {"seeds": 1}}]


def stored(folder):
    """The records in the database of a search."""
    with closing(sqlite3.connect(folder / DATABASE)) as database:
        rows = database.execute("select record from records order by number")
        return [json.loads(record) for (record,) in rows]


def test_of_an_experiment_the_first_process_prints_and_writes(together):
    results, folder = together
    assert [found["status"] for found in results] == [0, 0]
    assert sorted(os.listdir(folder / "run")) == ["history.csv", "of process 0", "results.json"]
    written = json.loads((folder / "run" / "results.json").read_text())
    assert written["results"] == {"devices": 2}
    first, second = (said(folder / f"{process}.out") for process in (0, 1))
    assert "passed: devices: 2" in first
    assert first[-1].startswith("wrote results.json, history.csv")
    assert second == []


def test_an_experiment_that_is_refused_says_so_in_a_line(together):
    results, folder = together
    assert [found["refused"] for found in results] == [2, 2]
    (_, first), (second,) = (said(folder / f"{process}.err") for process in (0, 1))
    for who, line in (("probe", first), ("probe (process 1)", second)):
        assert line.startswith(f"experiments.{who}: --out is ")
        assert line.endswith("expected a folder to write to: File exists")


def said(path: Path) -> list[str]:
    """The lines, without those that JAX's collectives say of themselves."""
    return [line for line in path.read_text().splitlines() if line and "[Gloo]" not in line]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A search of which process 1 was killed: exit statuses, the log it left, its folder."""
    folder = tmp_path_factory.mktemp("killed")
    with processes("killed", folder) as started:
        statuses = [process.wait(TIMEOUT) for process in started]
    return statuses, stored(folder / "search"), folder


@pytest.mark.slow
def test_when_a_process_is_killed_the_other_ends_too(killed):
    assert killed[0][1] == -signal.SIGKILL
    assert killed[0][0] not in (0, -signal.SIGKILL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The same search in one process with two devices."""
    return halving(population_mesh(2), tmp_path_factory.mktemp("uninterrupted"))


@needs_two
@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_bits(killed, uninterrupted, tmp_path):
    _, records, folder = killed
    assert sum("segment" in record for record in records) == 1
    shutil.copytree(folder / "search", tmp_path / "search")
    resumed = outcomes("halved", tmp_path)
    assert [found.pop("segments") for found in resumed] == [1, 1]  # of two
    assert [same_bits(found, uninterrupted) for found in resumed] == [True, True]
    assert stored(tmp_path / "search")[: len(records)] == records


@needs_two
@pytest.mark.slow
def test_what_two_processes_began_one_process_with_two_devices_ends(
    killed, uninterrupted, tmp_path
):
    shutil.copytree(killed[2] / "search", tmp_path / "search")
    assert same_bits(halving(population_mesh(2), tmp_path / "search"), uninterrupted)
    assert stored(tmp_path / "search")[: len(killed[1])] == killed[1]


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_and_so_does_the_one_that_waits_for_it(tmp_path):
    with processes("one_fails", tmp_path) as started:
        assert [process.wait(TIMEOUT) for process in started] == [1, 1]
    assert "nobody expected this" in (tmp_path / "1.err").read_text()
    line = "LostProcessError: a process of the job was lost, expected all 2 to work until the end"
    assert line in (tmp_path / "0.err").read_text()


def test_processes_with_different_numbers_of_devices_are_refused(tmp_path):
    line = "the processes have (1, 2) devices, expected the same number each"
    assert [found["error"] for found in outcomes("unequal", tmp_path)] == [["ValueError", line]] * 2


def test_processes_stop_when_they_are_told_to(tmp_path):
    with processes("waiting", tmp_path) as started:
        wait_until(lambda: all((tmp_path / f"{process}.ready").exists() for process in (0, 1)))
        for process in started:
            process.terminate()
        assert [process.wait(TIMEOUT) for process in started] == [-signal.SIGTERM] * 2


def test_a_missing_process_is_named_and_may_come_late(tmp_path):
    port = free_port()
    with processes("patient", tmp_path, 3, [0, 2], port) as early:
        line = "jaxnn: waiting for process 1 of the 3 of the job at localhost:"
        wait_until(lambda: line in (tmp_path / "0.err").read_text())
        with processes("patient", tmp_path, 3, [1], port) as late:
            assert [process.wait(TIMEOUT) for process in (*early, *late)] == [0, 0, 0]
    said_by = [said(tmp_path / f"{process}.err") for process in range(3)]
    assert [len(lines) for lines in said_by] == [1, 0, 0]
    assert re.fullmatch(rf"{line}{port}, for at most 9[0-9] s more", said_by[0][0])


def test_a_missing_first_process_is_named(tmp_path):
    with processes("patient", tmp_path, 2, [1]):
        wait_until(lambda: "s more" in (tmp_path / "1.err").read_text())
    (line,) = said(tmp_path / "1.err")
    assert line.startswith("jaxnn: waiting for process 0 of the 2 of the job at localhost:")


def wait_until(done: Callable[[], bool]) -> None:
    for _ in range(TIMEOUT * 20):
        if done():
            return
        time.sleep(0.05)
    pytest.fail("the processes did not get there")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("host:1",), "process_count and process_id not given, expected all of coordinator_addre"),
        ((None, 2, 0), "coordinator_address not given, expected all of"),
        (("host", 2, 0), "coordinator_address is 'host', expected 'host:port'"),
        (("host:1", 0, 0), "process_count is 0, expected a positive integer"),
        (("host:1", 2, 2), "process_id is 2, expected 0 to 1"),
        (("host:1", 2, -1), "process_id is -1, expected 0 to 1"),
        (("host:1", 2, True), "process_id is True, expected 0 to 1"),
        (("host:1", 2, 0.5), "process_id is 0.5, expected 0 to 1"),
    ],
)
def test_join_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        distributed.join(*arguments)


def test_join_comes_before_jax_is_used():
    jax.devices()
    with pytest.raises(RuntimeError, match=r"^JAX is in use already, expected join\(\) before"):
        distributed.join("localhost:1", 2, 0)


def test_join_says_that_there_is_no_cluster():
    clusters = ("SLURM", "OMPI", "KUBERNETES", "JAX_COORDINATOR", "TPU", "CLOUD_TPU")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(clusters)}
    program = "from jaxnn import distributed; distributed.join()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("ValueError: found no cluster, expected the environment of SLURM, Open")


def test_a_process_that_did_not_join_is_alone():
    assert (distributed.process_count(), distributed.process_index()) == (1, 0)
    assert distributed.is_first()
    assert distributed.from_first(lambda: b"bytes") == b"bytes"
    assert distributed.agree(True)
    assert not distributed.agree(False)
