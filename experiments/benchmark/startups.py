"""The shortest real runs as whole scripts, by the ways to train of ``peers``.

Softmax regression on scikit-learn's 8x8 digits, in the split of ``jaxnn.data``: 500 minibatches of
100, plain SGD with learning rate 0.5 and an L2 penalty of 1e-4 on the weights, then the accuracy on
the test examples. A script imports no more than necessary::

    python -m experiments.benchmark.startups NAME TIME DIGITS FOLDER

TIME is ``time.time()`` at the start of the process, DIGITS the folder of the examples:
``sklearn.datasets`` takes longer to import than all the rest of most scripts. The output is a line
of JSON: the accuracy and the seconds from TIME to the end of each stage.
"""

# pyright: reportMissingImports=false
import csv
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import chain, islice, product, repeat
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np

from experiments.benchmark.problem import L2, Loop, Problem, network_name, restore

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


def peer(place: str, *packages: str) -> float:
    """The accuracy of a way to train of ``peers``, which needs the packages at the first call."""
    prepare = resolve_name(f"experiments.benchmark.peers.{place}")
    for package in packages:
        import_module(package)
    loop: Loop = prepare(digits())
    state = loop.create(0, LEARNING_RATE)
    for number, rows in enumerate(minibatches(loop.problem)):
        state = loop.step(state, *loop.train, rows)
        if number == 0:
            loop.wait(state)
            reached("first_step")
    return loop.accuracy(state)


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


def architectures_in_pytorch() -> float:
    """What ``python -m experiments.architectures`` does, with PyTorch: networks, table, figures.

    Three networks from five seeds each, 500 minibatches of 100 digits, momentum and a cosine
    schedule, evaluated at the same iterations; then a table, and results.json, history.csv and
    three figures in FOLDER. Returns the accuracy of the first network.
    """
    import torch
    from torch.nn.functional import cross_entropy

    from experiments.benchmark.peers import pytorch

    settings = {"a": (0.3, (64, 10)), "b": (0.1, (64, 50, 50, 10)), "c": (0.1, (64, 90, 50, 10))}
    measures = ("test_error", "train_error", "test_cross_entropy", "train_cross_entropy")
    seeds, evaluate_at = range(5), sorted({*range(0, 26, 5), *range(0, STEPS + 1, 50)})
    folder, problem = Path(sys.argv[4]), digits()

    @torch.no_grad()
    def evaluate(model: Any, loop: Loop) -> torch.Tensor:
        examples = [(model(inputs), targets) for inputs, targets in (loop.validation, loop.train)]
        errors = [(logits.argmax(dim=1) != y).float().mean() for logits, y in examples]
        return torch.stack(errors + [cross_entropy(logits, y) for logits, y in examples])

    def train(loop: Loop, rate: float, seed: int) -> torch.Tensor:  # [evaluations, measures]
        model, _ = loop.create(seed, rate)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                torch.nn.init.zeros_(parameter)
        optimizer = pytorch.sgd(model, rate, problem.l2, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        history = [evaluate(model, loop)]
        for step, rows in enumerate(minibatches(problem, seed), start=1):
            loop.step((model, optimizer), *loop.train, rows)
            schedule.step()
            if step in evaluate_at:
                history.append(evaluate(model, loop))
        return torch.stack(history)

    folder.mkdir(parents=True, exist_ok=True)
    final, history, curves = {}, [], {}
    print("setting", "sizes", *measures, sep="\t")
    for setting, (rate, sizes) in settings.items():
        loop, name = pytorch.eager(replace(problem, sizes=sizes)), network_name(sizes)
        values = torch.stack([train(loop, rate, seed) for seed in seeds])
        measured, curves[f"({setting}) {name}"] = values[:, -1].T, values
        print(setting, name, *(f"{m.mean():.4f} ± {m.std():.4f}" for m in measured), sep="\t")
        final[setting] = dict(zip(measures, measured.tolist(), strict=True))
        rows = zip(product(seeds, evaluate_at), values.flatten(0, 1).tolist(), strict=True)
        history += [[setting, *place, *row] for place, row in rows]
    (folder / "results.json").write_text(json.dumps(final))
    with (folder / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["setting", "seed", "iteration", *measures], *history])
    for number, measure in ((n, m) for n, m in enumerate(measures) if m != "test_cross_entropy"):
        draw(folder, measure, evaluate_at, {n: v[:, :, number] for n, v in curves.items()})
    return 1 - float(np.mean(final["a"]["test_error"]))


def draw(folder: Path, measure: str, evaluate_at: list[int], curves: dict[str, Any]) -> None:
    """A line per setting, [seeds, evaluations], in a band of a standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # faster to import than pyplot

    figure = Figure(figsize=(8, 5), dpi=150)
    axes = figure.add_subplot()
    for label, values in curves.items():
        mean, std = values.mean(dim=0), values.std(dim=0)
        axes.fill_between(evaluate_at, mean - std, mean + std, alpha=0.2)
        axes.plot(evaluate_at, mean, label=label)
    axes.set(title=f"{measure}, digits", xlabel="iteration", ylabel=measure, yscale="log")
    axes.grid(alpha=0.25)
    axes.legend(title="mean of 5 seeds; band: ± 1 standard deviation")
    FigureCanvasAgg(figure).print_png(str(folder / f"{measure}.png"))


SCRIPTS = {
    "numpy": partial(peer, "numpy_by_hand:prepare"),
    "jaxnn": jaxnn,
    "pytorch": partial(peer, "pytorch:eager"),
    "pytorch_by_hand": partial(peer, "pytorch:by_hand"),
    "scikit_learn": scikit_learn,
    "flax": partial(peer, "on_jax:flax", "flax.linen", "flax.training.train_state", "optax"),
    "equinox": partial(peer, "on_jax:equinox", "equinox", "optax"),
    "keras": partial(peer, "keras_on_jax:prepare"),
    "architectures_in_pytorch": architectures_in_pytorch,
}

if __name__ == "__main__":
    accuracy = float(SCRIPTS[sys.argv[1]]())
    reached("result")
    print(json.dumps(_reached | {"accuracy": accuracy}))
