"""Compiled programs are kept in the user's cache folder, so that a second run need not wait."""

import os
from contextlib import suppress
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keeps every compiled program, in JAX_COMPILATION_CACHE_DIR or in the user's cache folder."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if jax.config.values["jax_compilation_cache_dir"]:  # from JAX_COMPILATION_CACHE_DIR
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    with suppress(OSError):  # no cache folder: it only takes longer
        folder = cache / "jaxnn" / "xla"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
