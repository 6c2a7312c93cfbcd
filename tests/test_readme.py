"""The README's example runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = example + "\nprint(population.metrics['test'].error[:, :, -1].shape)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "(3, 64)"


def test_the_first_screen_has_the_two_commands():
    first_screen = "\n".join(README.splitlines()[:25])
    assert 'pip install -e ".[experiments]" && python -m experiments.architectures' in first_screen
    assert 'pip install -e ".[test]" && pytest' in first_screen


def test_every_experiment_is_listed():
    folder = Path(__file__).parents[1] / "experiments"
    runnable = [
        f.stem for f in folder.glob("*.py") if "harness.leave(main())" in f.read_text("utf-8")
    ]
    listed = re.findall(r"^\| `(\w+)` \| .*\? \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(set(runnable) - {"harness"})
