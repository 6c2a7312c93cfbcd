"""The shortest real run with Equinox and optax."""

# pyright: reportMissingImports=false
import equinox as eqx
import jax
import optax

from experiments.benchmark.startups import script

script.reached("imports")
x_train, y_train, x_test, y_test = script.load()
model = eqx.nn.Linear(64, 10, key=jax.random.key(0))
optimizer = optax.sgd(script.LEARNING_RATE)
optimizer_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_jit
def train_step(model, optimizer_state, inputs, labels):
    """An update by the gradient of cross-entropy and penalty."""

    @eqx.filter_grad
    def gradient(model):
        logits = jax.vmap(model)(inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean() + script.L2 / 2 * (model.weight**2).sum()

    updates, optimizer_state = optimizer.update(gradient(model), optimizer_state, model)
    return eqx.apply_updates(model, updates), optimizer_state


for step, rows in enumerate(script.minibatches(len(y_train))):
    model, optimizer_state = train_step(model, optimizer_state, x_train[rows], y_train[rows])
    if step == 0:
        jax.block_until_ready(model.weight)
        script.reached("first_step")
script.finish((jax.vmap(model)(jax.numpy.asarray(x_test)).argmax(axis=1) == y_test).mean())
