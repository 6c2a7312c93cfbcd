"""jaxnn: all configurations train together, at random or by successive halving."""

import jax

from experiments.benchmark.searches.job import Job, tell
from jaxnn import Data
from jaxnn.devices import use_all_cores, use_compilation_cache
from jaxnn.search import Status, Task, fixed, given, log_uniform, random, search, successive_halving

METHODS = {"random": random, "halving": successive_halving}


def main() -> None:
    """Searches."""
    job = Job.given()
    use_all_cores()
    use_compilation_cache()
    train, validation = (Data(*examples) for examples in job.examples)
    task = Task(train, epochs=job.epochs, validation=given(validation), measure="error")
    space = {
        "learning_rate": log_uniform(*job.learning_rate),
        "l2": log_uniform(*job.l2),
        "momentum": fixed(job.momentum),
        "batch_size": fixed(job.batch_size),
        "hidden": fixed(tuple(job.sizes[1:-1])),
    }
    method = METHODS[job.method](job.configurations)
    search(task, space, method=method, key=jax.random.key(job.seed), progress=show)


def show(status: Status) -> None:
    """Prints the best accuracy until now."""
    if status.best <= 1:  # infinite before the first evaluation
        tell(1 - status.best)


if __name__ == "__main__":
    main()
