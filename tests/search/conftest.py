"""Searches compile many programs: those of one file are let go before the next."""

import jax
import pytest

from jaxnn.population import trace_once


@pytest.fixture(autouse=True, scope="module")
def compiled_programs():
    yield
    trace_once.cache_clear()
    jax.clear_caches()
