"""Small data sets, IDX files made byte by byte, and a web server that misbehaves on request."""

import gzip
import http.server
import struct
import threading
from collections.abc import Callable

import numpy as np
import pytest

IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


@pytest.fixture
def arrays():
    """Four arrays: 20 and 10 images of 3 x 2, labels 0..9."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (20, 3, 2), dtype=np.uint8),
        "train_labels": np.tile(np.arange(10, dtype=np.uint8), 2),
        "test_images": rng.integers(0, 256, (10, 3, 2), dtype=np.uint8),
        "test_labels": np.arange(10, dtype=np.uint8)[::-1].copy(),
    }


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """The IDX encoding of a uint8 array."""

    def encode(array: np.ndarray) -> bytes:
        head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        return head + array.tobytes()

    return encode


@pytest.fixture
def idx_files(arrays, idx_bytes) -> dict[str, bytes]:
    """The four IDX files by name, not compressed."""
    return {name: idx_bytes(arrays[part]) for part, name in IDX_NAMES.items()}


@pytest.fixture
def idx_folder(tmp_path, idx_files):
    """A folder with the four compressed IDX files."""
    folder = tmp_path / "user"
    folder.mkdir()
    for name, content in idx_files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


class Server(http.server.ThreadingHTTPServer):
    """Answers a path by calling its route with the request; keeps the paths it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Callable[[http.server.BaseHTTPRequestHandler], None]] = {}
        self.requested: list[str] = []
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requested.append(self.path)
        route = self.server.routes.get(self.path)
        if route is None:
            self.send_error(404)
        else:
            route(self)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.stopping.set()
        server.shutdown()
        thread.join()
