"""What every test shares: all cores as devices, real shapes small enough to train in a moment."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxnn import Data
from jaxnn.devices import use_all_cores

_FAST_COMPILER = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"

_LONGEST = (
    "test_distributed.py", "test_harness.py", "test_modules.py", "test_search_figures.py",
    "test_verify_black_box.py", "test_verify_cases.py", "test_verify_certificate.py",
    "test_verify_derivations.py", "test_verify_exactness.py", "test_verify_expectations.py",
    "test_verify_pairs.py", "test_verify_runner.py",
)  # fmt: skip

os.environ.pop("COLUMNS", None)  # tables are as wide as they are elsewhere by default
use_all_cores()


def pytest_configure(config):
    """Without the slow tests, XLA compiles without optimizations: a fifth of the time less.

    All tests together (``-m "slow or not slow"``, of .ci/run) check the programs that users run.
    """
    if config.option.markexpr == "not slow":
        os.environ.setdefault("XLA_FLAGS", _FAST_COMPILER)
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """The longest files come first: no process waits at the end for a long file of another."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)


@pytest.fixture
def x64():
    """Everything inside is in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real MNIST and Fashion-MNIST files."""
    folder = os.environ.get("JAXNN_DATA")
    if not folder:
        pytest.skip("JAXNN_DATA does not name a folder with the real MNIST files")
    return Path(folder)


@pytest.fixture
def pixels() -> Data:
    """130 images of 12 8-bit pixels in 3 classes that a linear model can tell apart."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 130).astype(np.int32)
    centres = rng.integers(60, 200, (3, 12))
    inputs = np.clip(centres[targets] + rng.normal(0, 30, (130, 12)), 0, 255).astype(np.uint8)
    return Data(inputs, targets, np.float32(1 / 255))
