"""The README's examples run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
TRAINING, CLAIM, SEARCH = (block for block in BLOCKS if block.startswith("import jax\n"))


def test_the_training_example_runs():
    program = TRAINING + "\nprint(population.metrics['test'].error[:, :, -1].shape)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "(3, 64)"


def test_the_claim_is_refuted_as_the_text_says(tmp_path):
    (tmp_path / "claims.py").write_text(CLAIM, encoding="utf-8")
    command = [sys.executable, "-m", "jaxnn.verify", "claims.py", "--workers", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "missing_mean" in done.stdout


def test_the_search_example_runs_and_goes_on_where_it_ended(tmp_path):
    program = SEARCH + "\nprint(result.best, result.test_reads)"
    command = [sys.executable, "-W", "error", "-c", program]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path) for _ in range(2)
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    best = [done.stdout.splitlines()[-1] for done in (first, second)]
    assert best[0] == best[1]
    assert best[0].endswith(" 1")
    folder = tmp_path / "runs" / "my_search"
    for name in ("search.log", "trials.csv", "results.json", "model/model.json"):
        assert (folder / name).is_file()


def test_the_first_screen_has_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:25])
    assert 'pip install -e ".[experiments]" && python -m experiments.architectures' in first_screen
    assert 'pip install -e ".[test]" && pytest' in first_screen


def test_every_experiment_is_listed():
    folder = Path(__file__).parents[1] / "experiments"
    programs = [*folder.glob("*.py"), *folder.glob("*/__main__.py")]
    runnable = [
        file.parent.name if file.stem == "__main__" else file.stem
        for file in programs
        if "harness.leave(main())" in file.read_text("utf-8")
    ]
    listed = re.findall(r"^\| `(\w+)` \| .*\? \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(set(runnable) - {"harness"})
