"""Devices: one per core, and a clear word when it is too late for that."""

import subprocess
import sys

import jax

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
