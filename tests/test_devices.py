"""Devices: one per core, and a clear word when it is too late for that."""

import os
import subprocess
import sys

import jax
import pytest

from jaxnn import data, devices
from jaxnn.data import DataError
from jaxnn.devices import core_count, population_mesh, use_all_cores


def without_home(monkeypatch):
    """No HOME, and no entry of the user in the table of users."""

    def absent(_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "JAXNN_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", absent)


def test_a_user_without_home_has_no_compilation_cache(monkeypatch, tmp_path):
    without_home(monkeypatch)
    monkeypatch.chdir(tmp_path)
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        devices.use_compilation_cache()
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [None, "~/data"])
def test_a_user_without_home_is_told_in_one_line_where_to_say_the_folder(monkeypatch, folder):
    without_home(monkeypatch)
    if folder:
        monkeypatch.setenv("JAXNN_DATA", folder)
    with pytest.raises(DataError, match="no home folder: expected the environment variable JAXNN"):
        data.load("mnist")


def test_every_core_is_a_device():
    assert len(jax.devices("cpu")) == core_count()
    use_all_cores()  # once more is no error


def test_mesh_has_one_axis_over_the_devices():
    assert dict(population_mesh().shape) == {"population": core_count()}
    assert dict(population_mesh(1).shape) == {"population": 1}


def test_too_late_is_one_clear_error():
    program = (
        "import jax, jaxnn.devices as d\n"
        "d.core_count = lambda: 3\n"
        "jax.devices()\n"
        "d.use_all_cores()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "JAX is in use with 1 CPU devices, expected 3" in done.stderr


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_neighbours_share_a_minibatch():
    mesh = population_mesh(2, batch=2)
    assert dict(mesh.shape) == {"population": 1, "batch": 2}
    assert mesh.devices.tolist() == [jax.devices()[:2]]


@pytest.mark.parametrize("batch", [0, -1, 2, 3])
def test_devices_that_cannot_be_dealt_out_are_an_error(batch):
    with pytest.raises(ValueError, match=f"^batch is {batch}, expected a divisor of the 1 devices"):
        population_mesh(1, batch=batch)


@pytest.fixture
def cgroups(monkeypatch, tmp_path):
    """Writes fake control groups for a process that may run on 8 cores."""
    monkeypatch.delenv("PYTHON_CPU_COUNT", raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(devices, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path / "cgroup")

    def write(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


CPU_V1 = "9:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n"


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu_dot_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_dot_max": "350000 100000\n"}, 3),
        ("0::/\n", {"cpu_dot_max": "20000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu_dot_max": "9900000 100000\n"}, 8),
        ("0::/\n", {"cpu_dot_max": "nonsense\n"}, 8),
        ("0::/\n", {}, 8),
        ("0::/a/b\n", {"a__b__cpu_dot_max": "max 100000", "a__cpu_dot_max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a__b__cpu_dot_max": "200000 100000", "cpu_dot_max": "500000 100000"}, 2),
        (
            CPU_V1,
            {
                "cpu__docker__x__cpu_dot_cfs_quota_us": "400000\n",
                "cpu__docker__x__cpu_dot_cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            CPU_V1,  # a container sees its group as the root
            {"cpu__cpu_dot_cfs_quota_us": "50000\n", "cpu__cpu_dot_cfs_period_us": "10000\n"},
            5,
        ),
        (
            CPU_V1,
            {"cpu__cpu_dot_cfs_quota_us": "-1\n", "cpu__cpu_dot_cfs_period_us": "100000\n"},
            8,
        ),
    ],
)
def test_the_quota_of_a_container_bounds_the_cores(cgroups, membership, files, expected):
    cgroups(membership, **files)
    assert core_count() == expected


def test_without_control_groups_the_affinity_counts(cgroups):
    assert core_count() == 8


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("16", 16), ("default", 2), ("0", 2)])
def test_pythons_environment_variable_has_the_last_word(cgroups, monkeypatch, given, expected):
    cgroups("0::/\n", cpu_dot_max="200000 100000")
    monkeypatch.setenv("PYTHON_CPU_COUNT", given)
    assert core_count() == expected
