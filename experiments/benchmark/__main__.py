"""``python -m experiments.benchmark``."""

from experiments import harness
from experiments.benchmark.main import main

if __name__ == "__main__":
    harness.leave(main())
