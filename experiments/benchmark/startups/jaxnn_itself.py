"""The shortest real run with jaxnn."""

import jax

from experiments.benchmark.startups import script
from jaxnn import MLP, Hyper, Spec, train
from jaxnn.data import load
from jaxnn.devices import use_compilation_cache

script.reached("imports")
use_compilation_cache()
digits = load("digits")
_, history = train(
    Spec(model=MLP((64, 10)), steps=script.STEPS, batch_size=script.BATCH_SIZE),
    Hyper(script.LEARNING_RATE, script.L2),
    jax.random.key(0),
    digits.train,
    {"test": digits.test},
)
script.reached("first_step")  # all steps are a single program, which runs while Python goes on
script.finish(1 - history.metrics["test"].error.item())
