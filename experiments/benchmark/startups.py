"""The shortest real run as whole scripts, by the ways to train of ``peers``.

Softmax regression on scikit-learn's 8x8 digits, in the split of ``jaxnn.data``: 500 minibatches of
100, plain SGD with learning rate 0.5 and an L2 penalty of 1e-4 on the weights, then the accuracy on
the test examples. A script imports no more than necessary::

    python -m experiments.benchmark.startups NAME TIME DIGITS

TIME is ``time.time()`` at the start of the process, DIGITS the folder of the examples:
``sklearn.datasets`` takes longer to import than all the rest of most scripts. The output is a line
of JSON: the accuracy and the seconds from TIME to the end of each stage.
"""

# pyright: reportMissingImports=false
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from itertools import chain, islice, repeat
from pathlib import Path
from pkgutil import resolve_name

import numpy as np

from experiments.benchmark.problem import L2, Loop, Problem, restore

STEPS, LEARNING_RATE = 500, 0.5
_reached: dict[str, float] = {}


def reached(stage: str) -> None:
    """Notes the seconds until ``imports``, ``first_step`` (compiled) or ``result``."""
    _reached[stage] = time.time() - float(sys.argv[2])


def digits() -> Problem:
    """The digits, after the imports of a script; the test examples validate."""
    reached("imports")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # two are slower
    return restore(Path(sys.argv[3]), (64, 10))


def minibatches(problem: Problem, seed: int = 0) -> Iterator[np.ndarray]:
    """The rows of every minibatch; each epoch of whole minibatches is a new random order."""
    generator = np.random.default_rng(seed)
    return islice(chain.from_iterable(map(problem.minibatches, repeat(generator))), STEPS)


def train(loop: Loop) -> float:
    """The accuracy of a peer after all steps."""
    state = loop.create(0, LEARNING_RATE)
    for number, rows in enumerate(minibatches(loop.problem)):
        state = loop.step(state, *loop.train, rows)
        if number == 0:
            loop.wait(state)
            reached("first_step")
    return loop.accuracy(state)


def peer(place: str, *packages: str) -> float:
    """A way to train of ``peers``, which needs the packages at the first call."""
    prepare = resolve_name(f"experiments.benchmark.peers.{place}")
    for package in packages:
        import_module(package)
    return train(prepare(digits()))


def scikit_learn() -> float:
    """MLPClassifier without hidden layers.

    ``fit`` goes through whole epochs with a short last minibatch: 34 epochs are 510 updates, on
    2 % fewer examples than the others see. 500 calls of ``partial_fit`` would take 0.6 s longer.
    """
    from experiments.benchmark.peers.scikit_learn import prepare

    problem = digits()
    epochs = round(STEPS / (problem.steps_per_epoch + 1)) + 1
    model, _ = prepare(problem)(LEARNING_RATE, epochs, 0, False)
    return model.score(problem.validation.inputs, problem.validation.targets)


def jaxnn() -> float:
    """All steps are a single program, which runs while Python goes on."""
    import jax

    from jaxnn import MLP, Hyper, Spec, train
    from jaxnn.data import load
    from jaxnn.devices import use_compilation_cache

    reached("imports")
    use_compilation_cache()
    digits = load("digits")
    spec, hyper = Spec(MLP((64, 10)), STEPS), Hyper(LEARNING_RATE, L2)
    _, history = train(spec, hyper, jax.random.key(0), digits.train, {"test": digits.test})
    reached("first_step")
    return 1 - history.metrics["test"].error.item()


SCRIPTS = {
    "numpy": partial(peer, "numpy_by_hand:prepare"),
    "jaxnn": jaxnn,
    "pytorch": partial(peer, "pytorch:eager"),
    "pytorch_by_hand": partial(peer, "pytorch:by_hand"),
    "scikit_learn": scikit_learn,
    "flax": partial(peer, "on_jax:flax", "flax.linen", "flax.training.train_state", "optax"),
    "equinox": partial(peer, "on_jax:equinox", "equinox", "optax"),
    "keras": partial(peer, "keras_on_jax:prepare"),
}

if __name__ == "__main__":
    accuracy = float(SCRIPTS[sys.argv[1]]())
    reached("result")
    print(json.dumps(_reached | {"accuracy": accuracy}))
