"""jaxnn: one model is ``train``, several are ``train_population``."""

from collections.abc import Sequence

import jax
import numpy as np

from experiments.benchmark.problem import Problem
from jaxnn import MLP, Hyper, Spec, train, train_population
from jaxnn.devices import use_all_cores


class Jaxnn:
    """Trains all learning rates at once."""

    def __init__(self, problem: Problem):
        use_all_cores()
        self.problem = problem
        self.data, self.validation = (
            jax.device_put(data._replace(inputs=np.asarray(data.inputs)))
            for data in (problem.train, problem.validation)
        )

    def train(
        self, learning_rates: Sequence[float], epochs: int, seed: int, *, evaluate: bool
    ) -> np.ndarray | None:
        """See ``Contender.train``."""
        steps = self.problem.steps_per_epoch
        spec = Spec(
            model=MLP(self.problem.sizes),
            steps=epochs * steps,
            batch_size=self.problem.batch_size,
            evaluate_at=tuple(range(steps, epochs * steps + 1, steps)) if evaluate else (0,),
        )
        evaluate_on = {"validation": self.validation} if evaluate else {}
        key = jax.random.key(seed)
        if len(learning_rates) == 1:
            hyper = Hyper(learning_rates[0], self.problem.l2)
            trained = train(spec, hyper, key, self.data, evaluate_on)
            _, history = jax.block_until_ready(trained)
            return 1 - np.asarray(history.metrics["validation"].error)[None] if evaluate else None
        population = train_population(
            spec,
            Hyper(np.array(learning_rates), self.problem.l2),
            key,
            self.data,
            evaluate_on,
            keep_params=False,
        )
        return 1 - np.asarray(population.metrics["validation"].error[0]) if evaluate else None
