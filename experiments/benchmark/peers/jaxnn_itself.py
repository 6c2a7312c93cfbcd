"""jaxnn: one model is ``train``, several are ``train_population``."""

from typing import Any

import jax
import numpy as np

from experiments.benchmark.problem import Problem, Train
from jaxnn import MLP, Data, Hyper, Spec, train, train_population
from jaxnn.devices import use_all_cores


def prepare(problem: Problem) -> Train:
    """All learning rates at once."""
    use_all_cores()
    data, validation = (
        jax.device_put(Data(np.asarray(pixels), targets, scale))
        for pixels, targets, scale in (problem.train, problem.validation)
    )

    def train_all(rates: list[float], epochs: int, seed: int, evaluate: bool) -> tuple[Any, Any]:
        steps = problem.steps_per_epoch
        at = tuple(range(steps, epochs * steps + 1, steps)) if evaluate else (0,)
        spec = Spec(MLP(problem.sizes), epochs * steps, problem.batch_size, evaluate_at=at)
        on, key = {"validation": validation} if evaluate else {}, jax.random.key(seed)
        if len(rates) == 1:
            hyper = Hyper(rates[0], problem.l2)
            params, history = jax.block_until_ready(train(spec, hyper, key, data, on))
            return params, 1 - history.metrics["validation"].error[:, None] if on else []
        hyper = Hyper(np.array(rates), problem.l2)
        population = train_population(spec, hyper, key, data, on, keep_params=False)
        return None, 1 - population.metrics["validation"].error[0].T if on else []

    return train_all
