"""The shortest real run with Flax and optax."""

import jax
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from experiments.benchmark.startups import script

script.reached("imports")
x_train, y_train, x_test, y_test = script.load()
model = nn.Dense(10)
state = TrainState.create(
    apply_fn=model.apply,
    params=model.init(jax.random.key(0), x_train[:1])["params"],
    tx=optax.sgd(script.LEARNING_RATE),
)


@jax.jit
def train_step(state, inputs, labels):
    """An update by the gradient of cross-entropy and penalty."""

    def objective(params):
        logits = state.apply_fn({"params": params}, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() + script.L2 / 2 * (params["kernel"] ** 2).sum()

    return state.apply_gradients(grads=jax.grad(objective)(state.params))


for step, rows in enumerate(script.minibatches(len(y_train))):
    state = train_step(state, x_train[rows], y_train[rows])
    if step == 0:
        jax.block_until_ready(state)
        script.reached("first_step")
logits = state.apply_fn({"params": state.params}, x_test)
script.finish((logits.argmax(axis=1) == y_test).mean())
