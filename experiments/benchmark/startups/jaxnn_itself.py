"""The shortest real run with jaxnn."""

import jax

from experiments.benchmark.startups import BATCH_SIZE, L2, LEARNING_RATE, STEPS
from experiments.benchmark.startups.stopwatch import finish, reached
from jaxnn import MLP, Hyper, Spec, train
from jaxnn.data import load
from jaxnn.devices import use_compilation_cache

reached("imports")
use_compilation_cache()
digits = load("digits")
_, history = train(
    Spec(model=MLP((64, 10)), steps=STEPS, batch_size=BATCH_SIZE),
    Hyper(LEARNING_RATE, L2),
    jax.random.key(0),
    digits.train,
    {"test": digits.test},
)
reached("first_step")  # all steps are one program, which runs while Python goes on
finish(1 - history.metrics["test"].error.item())
