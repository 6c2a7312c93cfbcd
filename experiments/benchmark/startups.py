"""The shortest real run as whole scripts, written as a user of each library would.

Softmax regression on scikit-learn's 8x8 digits, in the split of ``jaxnn.data``: 500 minibatches of
100, plain SGD with learning rate 0.5 and an L2 penalty of 1e-4 on the weights, then the accuracy on
the test examples. A script imports no more than necessary::

    python -m experiments.benchmark.startups NAME TIME DIGITS

TIME is ``time.time()`` at the start of the process, DIGITS a file of arrays: ``sklearn.datasets``
takes longer to import than all the rest of most scripts. The output is a line of JSON: the accuracy
and the seconds from TIME to the end of each stage.
"""

# pyright: reportMissingImports=false, reportArgumentType=false
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

STEPS, BATCH_SIZE = 500, 100
LEARNING_RATE, L2 = 0.5, 1e-4
_reached: dict[str, float] = {}


class Digits(NamedTuple):
    """Training inputs [1437, 64] in 0..1 and labels, test inputs [360, 64] and labels."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any


def load() -> Digits:
    """The digits, after the imports of a script."""
    reached("imports")
    with np.load(sys.argv[3]) as file:
        x_train, y_train, x_test, y_test = (file[name] for name in Digits._fields)
    return Digits(x_train.astype(np.float32) / 16, y_train, x_test.astype(np.float32) / 16, y_test)


def minibatches(examples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The rows of every minibatch; each epoch of whole minibatches is a new random order."""
    generator = np.random.default_rng(seed)
    per_epoch = examples // BATCH_SIZE
    for step in range(STEPS):
        place = step % per_epoch
        if place == 0:
            order = generator.permutation(examples)
        yield order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]


def train(digits: Digits, step: Callable, state: Any, ready: Callable = lambda _: None) -> Any:
    """The state after ``state = step(state, inputs, labels)`` of every minibatch.

    ``ready(state)`` waits until the first step is done.
    """
    for number, rows in enumerate(minibatches(len(digits.y_train))):
        state = step(state, digits.x_train[rows], digits.y_train[rows])
        if number == 0:
            ready(state)
            reached("first_step")
    return state


def reached(stage: str) -> None:
    """Notes the seconds until ``imports``, ``first_step`` (compiled) or ``result``."""
    _reached[stage] = time.time() - float(sys.argv[2])


def numpy() -> float:
    """NumPy, the gradient by hand."""
    digits, one_hot = load(), np.eye(10, dtype=np.float32)
    weight = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32) / 8
    bias = np.zeros(10, np.float32)

    def step(layer, x, y):
        weight, bias = layer
        logits = x @ weight + bias
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta = exponentials / exponentials.sum(axis=1, keepdims=True) - one_hot[y]
        weight -= LEARNING_RATE * (x.T @ delta / BATCH_SIZE + L2 * weight)
        bias -= LEARNING_RATE * delta.mean(axis=0)
        return layer

    train(digits, step, (weight, bias))
    return (np.argmax(digits.x_test @ weight + bias, axis=1) == digits.y_test).mean()


def jaxnn() -> float:
    """All steps are a single program, which runs while Python goes on."""
    import jax

    from jaxnn import MLP, Hyper, Spec, train
    from jaxnn.data import load
    from jaxnn.devices import use_compilation_cache

    reached("imports")
    use_compilation_cache()
    digits = load("digits")
    spec, hyper = Spec(MLP((64, 10)), STEPS, BATCH_SIZE), Hyper(LEARNING_RATE, L2)
    _, history = train(spec, hyper, jax.random.key(0), digits.train, {"test": digits.test})
    reached("first_step")
    return 1 - history.metrics["test"].error.item()


def pytorch(*, optimizer: bool = True) -> float:
    """PyTorch; without ``torch.optim``, whose first step imports Dynamo, updates are by hand."""
    import torch
    from torch.nn import Linear
    from torch.nn.functional import cross_entropy

    digits = Digits(*map(torch.from_numpy, load()))
    torch.set_num_threads(1)  # two are slower
    torch.manual_seed(0)
    model = Linear(64, 10)

    def update(sgd, inputs, labels):
        loss = cross_entropy(model(inputs), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        return sgd

    def update_by_hand(_, inputs, labels):
        loss = cross_entropy(model(inputs), labels)
        weight_gradient, bias_gradient = torch.autograd.grad(loss, (model.weight, model.bias))
        with torch.no_grad():
            model.weight.sub_(LEARNING_RATE * (weight_gradient + L2 * model.weight))
            model.bias.sub_(LEARNING_RATE * bias_gradient)

    if optimizer:
        groups = [{"params": model.weight, "weight_decay": L2}, {"params": model.bias}]
        train(digits, update, torch.optim.SGD(groups, lr=LEARNING_RATE))
    else:
        train(digits, update_by_hand, None)
    with torch.no_grad():
        return (model(digits.x_test).argmax(dim=1) == digits.y_test).float().mean().item()


def scikit_learn() -> float:
    """MLPClassifier without hidden layers.

    ``fit`` goes through whole epochs with a short last minibatch: 34 epochs are 510 updates, on
    2 % fewer examples than the others see. 500 calls of ``partial_fit`` would take 0.6 s longer.
    """
    from sklearn.neural_network import MLPClassifier

    digits = load()
    epochs = round(STEPS / -(-len(digits.y_train) // BATCH_SIZE)) + 1
    model = MLPClassifier(
        hidden_layer_sizes=(),
        solver="sgd",
        learning_rate_init=LEARNING_RATE,
        momentum=0,
        alpha=L2 * BATCH_SIZE,  # scikit-learn divides the penalty by the minibatch's size
        max_iter=epochs,
        n_iter_no_change=epochs,  # no early stop
        random_state=0,
    ).set_params(batch_size=BATCH_SIZE)
    return model.fit(digits.x_train, digits.y_train).score(digits.x_test, digits.y_test)


def flax() -> float:
    """Flax and optax, a ``TrainState``."""
    import jax
    import optax
    from flax import linen as nn
    from flax.training.train_state import TrainState

    digits, model = load(), nn.Dense(10)
    params = model.init(jax.random.key(0), digits.x_train[:1])["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.sgd(LEARNING_RATE))

    @jax.jit
    def step(state, inputs, labels):
        def objective(params):
            logits = state.apply_fn({"params": params}, inputs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean() + L2 / 2 * (params["kernel"] ** 2).sum()

        return state.apply_gradients(grads=jax.grad(objective)(state.params))

    state = train(digits, step, state, jax.block_until_ready)
    logits = state.apply_fn({"params": state.params}, digits.x_test)
    return (logits.argmax(axis=1) == digits.y_test).mean()


def equinox() -> float:
    """Equinox and optax."""
    import equinox as eqx
    import jax
    import optax

    digits = load()
    model = eqx.nn.Linear(64, 10, key=jax.random.key(0))
    optimizer = optax.sgd(LEARNING_RATE)

    @eqx.filter_jit
    def step(state, inputs, labels):
        @eqx.filter_grad
        def gradient(model):
            logits = jax.vmap(model)(inputs)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean() + L2 / 2 * (model.weight**2).sum()

        model, optimizer_state = state
        updates, optimizer_state = optimizer.update(gradient(model), optimizer_state, model)
        return eqx.apply_updates(model, updates), optimizer_state

    start = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    model, _ = train(digits, step, start, lambda state: jax.block_until_ready(state[0].weight))
    logits = jax.vmap(model)(jax.numpy.asarray(digits.x_test))
    return (logits.argmax(axis=1) == digits.y_test).mean()


def keras() -> float:
    """Keras on JAX, by ``compile`` and ``fit``."""
    import keras

    x_train, y_train, x_test, y_test = load()
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(10, kernel_regularizer=keras.regularizers.L2(L2 / 2))
    model = keras.Sequential([keras.Input((64,)), dense])
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    class FirstStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                reached("first_step")

    batches = ((x_train[rows], y_train[rows]) for rows in minibatches(len(y_train)))
    model.fit(batches, steps_per_epoch=STEPS, verbose=0, callbacks=[FirstStep()])
    return (model.predict_on_batch(x_test).argmax(axis=1) == y_test).mean()


SCRIPTS = {
    "numpy": numpy,
    "jaxnn": jaxnn,
    "pytorch": pytorch,
    "pytorch_by_hand": lambda: pytorch(optimizer=False),
    "scikit_learn": scikit_learn,
    "flax": flax,
    "equinox": equinox,
    "keras": keras,
}

if __name__ == "__main__":
    accuracy = float(SCRIPTS[sys.argv[1]]())
    reached("result")
    print(json.dumps(_reached | {"accuracy": accuracy}))
