"""The examples in docstrings run, and print what the docstrings say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import jaxnn
from jaxnn import closed_form, data, saved_model, search, verify

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "jaxnn").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)

FIRST = (
    jaxnn.train,
    jaxnn.train_population,
    search.search,
    verify.verify,
    verify.claim,
    data.load,
    saved_model.save_model,
    closed_form.softmax_jacobian,
)
"""Functions that a newcomer calls first."""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome = doctest.testmod(import_module(name), optionflags=options)
    assert outcome.attempted
    assert not outcome.failed


@pytest.mark.parametrize("function", FIRST, ids=lambda function: function.__name__)
def test_a_function_that_a_newcomer_calls_first_has_an_example(function):
    assert ">>> " in function.__doc__
