"""The devices a population is spread over: GPUs or TPUs where there are any, else CPU cores."""

import os
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np


def core_count() -> int:
    """The CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def use_all_cores() -> None:
    """Makes every CPU core a JAX device; call it before JAX's first use.

    A small network is too little work to share between threads: one device per core, each with its
    own members of the population, does away with the synchronisation inside every operation.

    Raises:
      RuntimeError: JAX has been used already, with another number of CPU devices.
    """
    cores = core_count()
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError as error:
        devices = len(jax.devices("cpu"))
        if devices != cores:
            raise RuntimeError(
                f"JAX is in use with {devices} CPU devices, expected {cores}: call "
                "use_all_cores() before JAX's first use"
            ) from error


def population_mesh(count: int | None = None, *, batch: int = 1) -> jax.sharding.Mesh:
    """A mesh over the first ``count`` devices, by default over all, of all processes.

    Args:
      count: how many devices.
      batch: over how many devices each minibatch is spread; the rest are along ``population``.

    Returns:
      A mesh with the axis ``population``, and the axis ``batch`` if that is more than 1.

    Raises:
      ValueError: the devices cannot be dealt out like that.
    """
    devices = np.array(jax.devices()[:count])
    if batch == 1:
        return jax.sharding.Mesh(devices, ("population",))
    if batch < 1 or len(devices) % batch:
        raise ValueError(f"batch is {batch}, expected a divisor of the {len(devices)} devices")
    return jax.sharding.Mesh(devices.reshape(-1, batch), ("population", "batch"))


def use_compilation_cache() -> None:
    """Keeps every compiled program on disk, so that a second run need not compile.

    The folder is JAX_COMPILATION_CACHE_DIR, else ``jaxnn/xla`` in the user's cache folder.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if jax.config.values["jax_compilation_cache_dir"]:  # from JAX_COMPILATION_CACHE_DIR
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    with suppress(OSError):  # without a cache folder every run compiles
        folder = cache / "jaxnn" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
