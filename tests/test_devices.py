"""Devices: one per core, and a clear word when it is too late for that."""

import subprocess
import sys

import jax
import pytest

from jaxnn.devices import core_count, population_mesh, use_all_cores


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
