"""Every command of the table of tasks in experiments/README.md runs, at a small size."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

PAGE = (Path(__file__).parents[2] / "experiments" / "README.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## A command per task")[1].split("## Flags")[0]
COMMANDS = dict(re.findall(r"^\| ([\w ]+) \| `python -m experiments\.(.*)` \|$", SECTION, re.M))

TASKS = (
    "classification", "regression", "convolution", "own CSV", "own Flax module", "time series",
    "imbalanced",
)  # fmt: skip
QUICK = "own CSV", "time series", "imbalanced"
SMALL = {
    "softmax_search": "--configurations 2 --epochs 2 --seeds 1 --batch-size 20 --no-figures",
    "regression": "--epochs 2 --seeds 1",
    "convolution": "--configurations 1 --epochs 1 --dataset digits",
}


def write_tables(folder):
    """The tables that the commands name."""
    draws = np.random.default_rng(0)
    inputs, labels = load_iris(return_X_y=True)
    flowers = pd.DataFrame(inputs, columns=[*"abcd"])
    flowers["species"] = np.array(["setosa", "versicolor", "virginica"])[labels]
    flowers.to_csv(folder / "flowers.csv", index=False)
    (folder / "weather").mkdir()
    for name, count in (("train", 150), ("test", 40)):
        days = pd.DataFrame(draws.normal(size=(count, 3)), columns=["wind", "clouds", "heat"])
        days["rain"] = (days.clouds > 0).astype(int)
        days.to_csv(folder / "weather" / f"{name}.csv", index=False)
    fraud = pd.DataFrame(draws.normal(size=(300, 3)), columns=["amount", "hour", "age"])
    fraud["label"] = (fraud.amount > 1.2).astype(int)
    fraud.to_csv(folder / "fraud.csv", index=False)
    code = re.findall(r"```python\n(.*?)```", SECTION, re.S)
    (folder / "my_net.py").write_text(code[0])


def test_the_table_has_every_task():
    assert tuple(COMMANDS) == TASKS


@pytest.mark.parametrize(
    "task",
    [pytest.param(t, marks=[] if t in QUICK else [pytest.mark.slow]) for t in TASKS],
)
def test_the_command_of_a_task_runs(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    name, *flags = shlex.split(COMMANDS[task])
    small = shlex.split(SMALL[name])
    if "--dataset" in small:
        place = flags.index("--dataset")
        del flags[place : place + 2]
    if task == "own Flax module":
        small = [*small[:-2], "--dataset", "digits"]
    program = import_module(f"experiments.{name}")
    assert program.main([*flags, *small, "--out", "out"]) == 0
    written = json.loads(Path("out", "results.json").read_text())
    assert written["results"]
    if task == "imbalanced":
        assert written["results"]["test"]["metrics"]["balanced_accuracy"] > 0.5
    if task == "time series":
        assert written["data"]["test_examples"] == 40


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("nothing.py:Net", "nothing.py"),
        ("my_net.py:Other", "no attribute 'Other'"),
        ("Net", "expected FILE.py:NAME"),
    ],
)
def test_a_module_that_is_not_there_is_refused_in_a_line(
    module, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_tables(tmp_path)
    program = import_module("experiments.convolution")
    assert program.main(["--module", module, "--out", "out"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith(f"experiments.convolution: --module is {module!r}, expected")
    assert message in error[-1]
