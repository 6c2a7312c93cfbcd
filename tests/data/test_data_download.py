"""The downloader against a server on loopback that fails in every way a mirror can."""

import gzip
import hashlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from jaxnn.data import DataError, MissingDataError
from jaxnn.data.catalog import RemoteFile, fetch

CONTENT = np.random.default_rng(0).bytes(100_000)
BODY = gzip.compress(CONTENT)
FILE = RemoteFile("images", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
LABELS = RemoteFile("labels", 3, hashlib.sha256(b"abc").hexdigest())
TIMEOUT = 0.5


def send(body: bytes, length: int | None = None, status: int = 200):
    """A route that announces ``length`` (or nothing, for -1) and sends ``body``."""

    def route(request):
        request.send_response(status)
        if length != -1:
            request.send_header("Content-Length", str(len(body) if length is None else length))
        request.end_headers()
        request.wfile.write(body)

    return route


def stall_at_once(request):
    """Too late by ten times the timeout, but good: who waited for it would have the file."""
    if not request.server.stopping.wait(10 * TIMEOUT):
        send(BODY)(request)


def stall_half_way(request):
    send(BODY[:5000], len(BODY))(request)
    if not request.server.stopping.wait(10 * TIMEOUT):
        request.wfile.write(BODY[5000:])


def trickle(request):
    send(b"", len(BODY))(request)
    for byte in BODY[:500]:
        request.wfile.write(bytes([byte]))
        if request.server.stopping.wait(0.05):
            return


def send_for_ever(request):
    send(b"", -1)(request)
    while not request.server.stopping.is_set():
        request.wfile.write(bytes(2**16))


def no_http(request):
    request.wfile.write(b"SSH-2.0-OpenSSH\r\n")


def redirect_in_circles(request):
    request.send_response(302)
    request.send_header("Location", request.path)
    request.end_headers()


FAULTS = {
    "404": (send(b"", status=404), "HTTP Error 404: Not Found"),
    "500": (send(b"", status=500), "HTTP Error 500"),
    "wrong bytes": (
        send(gzip.compress(CONTENT[:-1] + b"x")),
        r"SHA-256 is [0-9a-f]{64}, expected " + FILE.sha256,
    ),
    "a page instead of the file": (send(b"<html>log in</html>"), "corrupt gzip data"),
    "nothing": (send(b""), "SHA-256 is e3b0c442"),
    "truncated": (send(BODY[:-100], len(BODY)), "truncated: sent .* bytes|IncompleteRead"),
    "truncated, no length": (send(BODY[:-100], -1), "truncated gzip data"),
    "stalled at once": (stall_at_once, "timed out"),
    "stalled half way": (stall_half_way, "timed out"),
    "a trickle": (trickle, "stalled after"),
    "endless": (send_for_ever, "more than the 105096 bytes expected"),
    "announces too much": (send(BODY, 10**12), "announces 1000000000000 bytes, expected at most"),
    "a gzip bomb": (send(gzip.compress(bytes(2**24))), "more than the 100000 bytes expected"),
    "not HTTP": (no_http, "SSH"),
    "a circle of redirects": (redirect_in_circles, "redirect"),
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def mirrors(server) -> list[str]:
    """Two mirrors; the second is good."""
    server.routes["/second/images.gz"] = send(BODY)
    server.routes["/second/labels.gz"] = send(gzip.compress(b"abc"))
    return [f"{server.url}first/", f"{server.url}second/"]


@pytest.fixture
def down() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.mark.parametrize("length", [None, -1], ids=["announced", "not announced"])
def test_a_good_file_arrives_unchanged(server, mirrors, tmp_path, length):
    server.routes["/first/images.gz"] = send(BODY, length)
    fetch([FILE], mirrors, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "images.gz").read_bytes() == BODY
    assert names(tmp_path / "new" / "folder") == ["images.gz"]
    assert server.requested == ["/first/images.gz"]


@pytest.mark.parametrize("fault", [route for route, _ in FAULTS.values()], ids=FAULTS)
def test_the_second_mirror_steps_in(server, mirrors, tmp_path, fault):
    server.routes["/first/images.gz"] = fault
    fetch([FILE], mirrors, tmp_path, timeout=TIMEOUT)
    assert (tmp_path / "images.gz").read_bytes() == BODY
    assert names(tmp_path) == ["images.gz"]
    assert set(server.requested) == {"/first/images.gz", "/second/images.gz"}


def test_a_slow_but_steady_mirror_is_not_stalled(server, tmp_path):
    def slow(request):
        send(b"", len(BODY))(request)
        for start in range(0, len(BODY), 20_000):
            request.server.stopping.wait(TIMEOUT / 3)
            request.wfile.write(BODY[start : start + 20_000])

    server.routes["/images.gz"] = slow
    fetch([FILE], [server.url], tmp_path, timeout=TIMEOUT)
    assert (tmp_path / "images.gz").read_bytes() == BODY


def test_the_second_mirror_steps_in_when_the_first_is_down(mirrors, down, tmp_path):
    fetch([FILE], [down, mirrors[1]], tmp_path, timeout=TIMEOUT)
    assert (tmp_path / "images.gz").read_bytes() == BODY


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(server, tmp_path, fault, reason):
    server.routes["/images.gz"] = fault
    with pytest.raises(MissingDataError, match=reason) as caught:
        fetch([FILE], [server.url], tmp_path, timeout=TIMEOUT)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_offline_the_message_names_files_addresses_and_folder(down, tmp_path):
    with pytest.raises(MissingDataError) as caught:
        fetch([FILE, LABELS], [down, f"{down}other/"], tmp_path, timeout=TIMEOUT)
    message = str(caught.value)
    assert message.startswith(f"cannot download images.gz ({down}: ")
    assert "refused" in message
    assert message.endswith(
        f"download images.gz, labels.gz by hand from {down} or {down}other/ into {tmp_path}"
    )
    assert "\n" not in message


def test_what_came_before_a_failure_stays_and_is_not_asked_for(server, mirrors, tmp_path):
    del server.routes["/second/labels.gz"]
    with pytest.raises(MissingDataError, match=r"download labels.gz by hand"):
        fetch([FILE, LABELS], mirrors, tmp_path)
    assert names(tmp_path) == ["images.gz"]


def test_the_mirror_that_worked_comes_first_for_the_next_file(server, mirrors, tmp_path):
    fetch([FILE, LABELS], mirrors, tmp_path)
    assert server.requested == ["/first/images.gz", "/second/images.gz", "/second/labels.gz"]


@pytest.mark.parametrize(("length", "total"), [(None, len(BODY)), (-1, None)])
def test_progress_counts_up_to_the_whole_file(server, tmp_path, length, total):
    server.routes["/images.gz"] = send(BODY, length)
    calls = []
    fetch([FILE], [server.url], tmp_path, progress=lambda *call: calls.append(call))
    received = [count for _, count, _ in calls]
    assert received == sorted(received)
    assert calls[-1] == ("images.gz", len(BODY), total)
    assert {(name, whole) for name, _, whole in calls} == {("images.gz", total)}


def test_an_interrupt_leaves_nothing_and_asks_no_other_mirror(server, mirrors, tmp_path):
    server.routes["/first/images.gz"] = send(BODY)

    def interrupt(name, received, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch([FILE], mirrors, tmp_path, progress=interrupt)
    assert names(tmp_path) == []
    assert server.requested == ["/first/images.gz"]


def test_a_failed_download_leaves_no_folder(server, tmp_path):
    (tmp_path / "kept").mkdir()
    for folder in ("new/mnist", "kept/mnist"):
        with pytest.raises(MissingDataError):
            fetch([FILE], [f"{server.url}nowhere/"], tmp_path / folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_a_folder_that_cannot_be_made_is_said_before_any_download(server, mirrors, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(DataError, match=r"data folder .*file/mnist: Not a directory, expected a"):
        fetch([FILE], mirrors, tmp_path / "file" / "mnist")
    assert server.requested == []


def test_a_file_that_cannot_be_written_is_no_fault_of_the_mirror(server, mirrors, tmp_path):
    (tmp_path / "images.gz").mkdir()
    with pytest.raises(DataError, match=r"cannot write into the data folder .*: Is a directory"):
        fetch([FILE], [mirrors[1]], tmp_path)
    assert names(tmp_path) == ["images.gz"]


PROCESS = """
import sys
from pathlib import Path
from jaxnn.data.catalog import RemoteFile, fetch
name, size, sha256, mirror, folder = sys.argv[1:]
fetch([RemoteFile(name, int(size), sha256)], [mirror], Path(folder))
"""


def test_two_processes_at_once_both_succeed(server, tmp_path):
    both_are_here = threading.Barrier(2)

    def wait_for_the_other(request):
        send(BODY[:50_000], len(BODY))(request)
        both_are_here.wait(30)
        request.wfile.write(BODY[50_000:])

    server.routes["/images.gz"] = wait_for_the_other
    arguments = [*map(str, FILE), server.url, str(tmp_path / "folder")]
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, *arguments]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert names(tmp_path / "folder") == ["images.gz"]
    assert (tmp_path / "folder" / "images.gz").read_bytes() == BODY
