"""The devices a population is spread over: GPUs or TPUs where there are any, else CPU cores."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np

_MEMBERSHIP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def core_count() -> int:
    """The CPU cores that this process may use.

    PYTHON_CPU_COUNT where set; else the cores of the process's affinity, but no more than the whole
    cores of a container's CPU quota (of the control groups of the process and of their parents).
    """
    given = os.environ.get("PYTHON_CPU_COUNT", "")
    if given.isdigit() and int(given):
        return int(given)
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        allowed = os.process_cpu_count() or 1  # pyright: ignore[reportAttributeAccessIssue]
    else:
        affinity = getattr(os, "sched_getaffinity", None)
        allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([allowed, *map(int, _quotas())]))


def _quotas() -> Iterator[float]:
    """The CPU quotas of the control groups of this process, in cores."""
    with suppress(OSError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                root = _CGROUPS / (controllers and "cpu")
                group = root / path.lstrip("/")
                for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
                    yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    """The CPU quota of one control group, of version 1 or 2, in cores; nothing if unlimited."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if int(quota) > 0:  # "max" (version 2) and -1 (version 1): unlimited
                yield int(quota) / int(period)


def use_all_cores() -> None:
    """Makes every CPU core a JAX device; before the first use of JAX.

    A small network is too little work to share between threads: with one device per core, each
    training other members of the population, no operation waits for a second thread.

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
      batch: how many devices share each minibatch, along an axis ``batch``.

    Returns:
      A mesh with the axis ``population``, and the axis ``batch`` if ``batch`` is more than 1.

    Raises:
      ValueError: ``batch`` does not divide the number of devices.
    """
    devices = np.array(jax.devices()[:count])
    if batch == 1:
        return jax.sharding.Mesh(devices, ("population",))
    if batch < 1 or len(devices) % batch:
        raise ValueError(f"batch is {batch}, expected a divisor of the {len(devices)} devices")
    return jax.sharding.Mesh(devices.reshape(-1, batch), ("population", "batch"))


def use_compilation_cache() -> None:
    """Keeps every compiled program on disk, so that a second run loads the programs.

    The folder is JAX_COMPILATION_CACHE_DIR, else ``jaxnn/xla`` in the user's cache folder. A user
    without a home folder has no cache: every run compiles.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if jax.config.values["jax_compilation_cache_dir"]:  # from JAX_COMPILATION_CACHE_DIR
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if str(cache).startswith("~"):
        return
    with suppress(OSError):  # without a cache folder every run compiles
        folder = cache / "jaxnn" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
