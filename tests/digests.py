"""SHA-256 digests of everything that jaxnn computes on digits, one line each.

``python tests/digests.py > FILE`` before and ``python tests/digests.py --expect FILE`` after a
change of code prove on one machine that the change moved no bit: training with every optimizer and
schedule, populations, every search method, saved models, closed forms.
"""

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnn
from jaxnn import MLP, Hyper, Layer, Spec, closed_form
from jaxnn import search as s
from jaxnn.data import load
from jaxnn.devices import use_all_cores
from jaxnn.saved_model import load_model
from jaxnn.types import LossName

OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")
SCHEDULES = ("constant", "cosine", "step")
METHODS = {
    "grid": s.grid(2),
    "random": s.random(6),
    "sobol": s.sobol(4),
    "successive_halving": s.successive_halving(8, eta=2),
    "hyperband": s.hyperband(eta=4),
    "population_based": s.population_based(6, interval=1),
    "optuna": s.optuna(8, batch=4),
}


def main() -> int:
    """Prints the digests; status 1 where one is not the expected one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--expect", type=Path, metavar="FILE", help="digests printed earlier")
    expected = parser.parse_args().expect
    use_all_cores()
    lines = [f"{name} {digest(values)}" for name, values in computed()]
    if not expected:
        print("\n".join(lines))
        return 0
    earlier = expected.read_text().splitlines()
    changed = sorted(set(earlier) ^ set(lines))
    print("\n".join(changed) or f"all {len(lines)} digests are the same")
    return 1 if changed else 0


def digest(values: Any) -> str:
    """The SHA-256 of the leaves of a tree: their types, shapes and bytes."""
    content = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(values)):
        content.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return content.hexdigest()


def computed() -> Iterator[tuple[str, Any]]:
    """The names and values."""
    train, test = load("digits")
    key = jax.random.key(0)
    for optimizer in OPTIMIZERS:
        for schedule in SCHEDULES:
            spec = Spec(
                MLP((64, 20, 10)), steps=60, optimizer=optimizer, schedule=schedule,
                evaluate_at=(0, 30),
            )  # fmt: skip
            hyper = Hyper(learning_rate=0.05, l2=1e-4)
            state, history = jaxnn.train(spec, hyper, key, train, {"test": test})
            yield f"train/{optimizer}/{schedule}", (state.params, state.diverged_at, history)
            hyper = Hyper(learning_rate=np.geomspace(1e-3, 1e3, 11), l2=1e-4)
            seeds = jax.random.split(key, 2)
            population = jaxnn.train_population(spec, hyper, seeds, train, {"test": test})
            yield f"population/{optimizer}/{schedule}", population[:4]
    losses: tuple[LossName, ...] = ("cross_entropy", "squared_error")
    for loss in losses:
        for activation in ("relu", "tanh", "sigmoid"):
            model = MLP((64, 12, 10), activation=activation, initializer="glorot")
            spec = Spec(model, steps=40, batch_size=64, loss=loss, optimizer="momentum")
            state, history = jaxnn.train(spec, Hyper(0.1), key, train, {"test": test})
            yield f"train/{loss}/{activation}", (state.params, history)
    yield from searches(train, test)
    yield from closed_forms(key)


def searches(train: Any, test: Any) -> Iterator[tuple[str, Any]]:
    """What every search method finds."""
    space = {
        "learning_rate": s.log_uniform(0.01, 1e4),
        "l2": s.log_uniform(1e-6, 1e-2),
        "momentum": s.choice(0.0, 0.9),
        "hidden": s.choice((), (16,)),
    }
    for name, method in METHODS.items():
        for validation in (s.holdout(0.2), s.folds(3, stratified=True)):
            if name not in ("random", "population_based") and validation.kind == "folds":
                continue
            with tempfile.TemporaryDirectory() as folder:
                task = s.Task(train, test, epochs=4, measure="loss", validation=validation)
                result = s.search(
                    task, space, method=method, seeds=2, key=jax.random.key(1),
                    folder=Path(folder) / "search",
                )  # fmt: skip
                curves = [
                    (n, curve.values("loss"), curve.values("error"), curve.diverged_at)
                    for n, curve in sorted(result.curves.items())
                ]
                scores = result.test(retrain=True)
                yield f"search/{name}/{validation.kind}", (curves, result.params)
                yield f"test/{name}/{validation.kind}", (scores.accuracies, scores.losses)
                result.save_model(Path(folder) / "model", retrain=True)
                model = load_model(Path(folder) / "model")
                yield f"model/{name}/{validation.kind}", (model.params, model.logits(test.inputs))


def closed_forms(key: Any) -> Iterator[tuple[str, Any]]:
    """The hand-derived gradients at random points."""
    keys = iter(jax.random.split(key, 20))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape)

    first, second = Layer(normal(5, 4), normal(5)), Layer(normal(3, 5), normal(3))
    x, z, batch, theta = normal(4), normal(3), normal(7, 4), normal(4)
    p = jax.nn.softmax(z)
    labels, binary = jnp.array([0, 2, 1, 1, 0, 2, 2]), jnp.array([0.0, 1, 1, 0, 1, 0, 1])
    regression, c = Layer(normal(3, 4), normal(3)), closed_form
    yield "closed_form/softmax_jacobian", c.softmax_jacobian(p)
    yield "closed_form/softmax_weight_jacobian", c.softmax_weight_jacobian(p, x)
    yield "closed_form/softmax_backward", c.softmax_backward(p, z)
    yield (
        "closed_form/cross_entropy_gradient",
        (
            c.cross_entropy_gradient(z, 1),
            c.cross_entropy_gradient(z, p),
        ),
    )
    yield "closed_form/layer_gradient", c.layer_gradient(z, x)
    yield (
        "closed_form/softmax_regression_gradients",
        (c.softmax_regression_gradients(regression, batch, labels, 0.1)),
    )
    yield "closed_form/sigmoid_derivative_from_value", c.sigmoid_derivative_from_value(p)
    yield "closed_form/affine_composition", c.affine_composition((first, second), x)
    yield "closed_form/affine_weight_jacobian", c.affine_weight_jacobian(x, 3)
    scalar = Layer(normal(1, 5), normal(1))
    yield "closed_form/affine_jacobians", c.affine_jacobians((first, scalar), x)
    for activation in ("sigmoid", "relu", "tanh"):
        layers = first, second
        gradients = c.two_layer_gradients(layers, x, lambda p: p - 1 / 3, activation=activation)
        yield f"closed_form/two_layer_gradients/{activation}", gradients
        gradient = c.input_gradient(layers, x, 1, activation=activation)
        yield f"closed_form/input_gradient/{activation}", gradient
    yield "closed_form/two_layer_values", c.two_layer_values((first, second), x)
    yield "closed_form/log_softmax_sum_gradient", c.log_softmax_sum_gradient(z)
    yield "closed_form/log_softmax_sum_gradients", c.log_softmax_sum_gradients(regression, x)
    yield "closed_form/logistic_gradient", c.logistic_gradient(theta, batch, binary, 0.1)
    yield "closed_form/logistic_update", c.logistic_update(theta, batch, binary, 0.1)


if __name__ == "__main__":
    sys.exit(main())
