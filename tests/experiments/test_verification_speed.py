"""The speed of verification: what is measured, and with what. No timing is asserted."""

import csv
import dataclasses
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import verification_speed
from experiments.harness import BAD_INPUT, SUCCESS

TINY = ("--trials", "20")


@pytest.fixture
def derivations(monkeypatch):
    """Puts another program in the place of the derivations."""

    def stand_in(program):
        monkeypatch.setattr(verification_speed, "DERIVATIONS", (sys.executable, "-c", program))

    return stand_in


NOTE = """
import os, pathlib, sys
cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
with open({noted!r}, "a") as file:
    print("filled" if cache.exists() else "empty", sys.argv[1], file=file)
cache.mkdir(exist_ok=True)
sys.exit({status})
"""


def run(tmp_path, seeds=2, processes=0):
    flags = ("--seeds", str(seeds), "--processes", str(processes), "--out", str(tmp_path / "out"))
    assert verification_speed.main([*TINY, *flags]) == SUCCESS
    return json.loads((tmp_path / "out" / "results.json").read_text())["results"]


def test_results_have_every_measure_with_what_is_required_of_it(tmp_path, capsys):
    results = run(tmp_path)
    assert results["comparison"]["required"] == "under 50"
    assert results["comparison"]["unit"] == "ms"
    for name in ("comparison", "verify", "rate"):
        assert len(results[name]["values"]) == 2
        assert min(results[name]["values"]) > 0
    # 20 trials in so many milliseconds.
    rates = 20e3 / np.array(results["comparison"]["values"])
    np.testing.assert_allclose(results["rate"]["values"], rates)
    with (tmp_path / "out" / "history.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]
    assert "under 50" in capsys.readouterr().out


def test_all_statements_are_timed_with_an_empty_cache_and_then_with_the_filled_one(
    tmp_path, derivations
):
    noted = tmp_path / "noted"
    derivations(NOTE.format(noted=str(noted), status=1))  # a verdict not as recorded is no matter
    results = run(tmp_path, seeds=1, processes=3)
    assert noted.read_text().splitlines() == ["empty --out", "filled --out"] * 3
    assert len(results["cold"]["values"]) == len(results["warm"]["values"]) == 3
    assert len(results["comparison"]["values"]) == 1


def test_derivations_that_fail_are_one_line_and_exit_status_2(tmp_path, derivations, capsys):
    derivations("import sys; print('a trace\\nno room left', file=sys.stderr); sys.exit(2)")
    status = verification_speed.main([*TINY, "--seeds", "1", "--out", str(tmp_path)])
    assert status == BAD_INPUT
    *_, complaint = capsys.readouterr().err.splitlines()
    assert complaint.startswith("experiments.verification_speed: ")
    assert complaint.endswith("ended with exit status 2: no room left")


def test_what_is_timed_checks_the_claim(monkeypatch):
    verification_speed.compare(trials=3, seed=0)
    wrong = dataclasses.replace(verification_speed.CLAIM, formula=lambda z: jnp.eye(10))
    monkeypatch.setattr(verification_speed, "CLAIM", wrong)
    with pytest.raises(AssertionError):
        verification_speed.compare(trials=3, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials is 0, expected at least 1"),
        (["--processes", "-1"], "--processes is -1, expected at least 0"),
    ],
)
def test_bad_usage_is_one_line_and_exit_status_2(tmp_path, capsys, arguments, message):
    assert verification_speed.main(["--out", str(tmp_path), *arguments]) == BAD_INPUT
    assert capsys.readouterr().err == f"experiments.verification_speed: {message}\n"
