"""Compilation for programs that run once or twice: verification compiles more than it computes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax

_QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
"""A fifth to an eighth of the compilation, and hardly slower to run at these sizes."""


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.jit`` for the CPU that saves on the compiler's effort."""
    return jax.jit(function, compiler_options=_options())


@lru_cache(maxsize=1)
def _options() -> dict[str, Any] | None:
    """XLA's options for it, None where this XLA does not know them."""
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda x: x, compiler_options=_QUICKLY)(0.0)
    except jax.errors.JaxRuntimeError:
        return None
    return _QUICKLY
