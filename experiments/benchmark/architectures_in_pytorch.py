"""What ``python -m experiments.architectures`` does, with PyTorch: 15 networks, table and figures.

Three networks from five seeds each, 500 minibatches of 100 digits, momentum and a cosine schedule,
evaluated at the same iterations; then a table, results.json, history.csv and the three figures::

    python -m experiments.benchmark.architectures_in_pytorch NAME TIME DIGITS FOLDER
"""

# pyright: reportMissingImports=false
import csv
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # faster to import than pyplot
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.benchmark.peers import pytorch
from experiments.benchmark.problem import Loop, network_name
from experiments.benchmark.startups import STEPS, digits, minibatches

SETTINGS = {"a": (0.3, (64, 10)), "b": (0.1, (64, 50, 50, 10)), "c": (0.1, (64, 90, 50, 10))}
SEEDS = 5
EVALUATE_AT = sorted({*range(0, 26, 5), *range(0, STEPS + 1, 50)})
PLACES = list(product(range(SEEDS), EVALUATE_AT))  # of a setting's rows in history.csv
MEASURES = ("test_error", "train_error", "test_cross_entropy", "train_cross_entropy")
FIGURES = ("train_cross_entropy", "test_error", "train_error")


def train(loop: Loop, rate: float, seed: int) -> Tensor:
    """The measures of a network, [evaluated iterations, measures]; He's initial weights."""
    model, _ = loop.create(seed, rate)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)
    optimizer = pytorch.sgd(model, rate, loop.problem.l2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    history = [evaluate(model, loop)]
    for step, rows in enumerate(minibatches(loop.problem, seed), start=1):
        loop.step((model, optimizer), *loop.train, rows)
        schedule.step()
        if step in EVALUATE_AT:
            history.append(evaluate(model, loop))
    return torch.stack(history)


@torch.no_grad()
def evaluate(model: nn.Module, loop: Loop) -> Tensor:
    """The measures of a network."""
    examples = [(model(inputs), targets) for inputs, targets in (loop.validation, loop.train)]
    errors = [(logits.argmax(dim=1) != y).float().mean() for logits, y in examples]
    return torch.stack(errors + [cross_entropy(logits, y) for logits, y in examples])


def draw(values: Mapping[str, Tensor], measure: str, folder: Path) -> None:
    """A line per setting, in a band of a standard deviation over the seeds."""
    figure = Figure(figsize=(8, 5), dpi=150)
    axes = figure.add_subplot()
    for setting, (_, sizes) in SETTINGS.items():
        curves = values[setting][:, :, MEASURES.index(measure)]
        mean, std = curves.mean(dim=0), curves.std(dim=0)
        axes.fill_between(EVALUATE_AT, mean - std, mean + std, alpha=0.2)
        axes.plot(EVALUATE_AT, mean, label=f"({setting}) {network_name(sizes)}")
    axes.set(title=f"{measure}, digits", xlabel="iteration", ylabel=measure, yscale="log")
    axes.grid(alpha=0.25)
    axes.legend(title=f"mean of {SEEDS} seeds; band: ± 1 standard deviation")
    FigureCanvasAgg(figure).print_png(str(folder / f"{measure}.png"))


def write(values: Mapping[str, Tensor], folder: Path) -> None:
    """Prints the table and writes everything; values [seeds, evaluated iterations, measures]."""
    folder.mkdir(parents=True, exist_ok=True)
    final, history = {}, []
    print("setting", "sizes", *MEASURES, sep="\t")
    for setting, (_, sizes) in SETTINGS.items():
        measured = values[setting][:, -1].T
        cells = (f"{each.mean():.4f} ± {each.std():.4f}" for each in measured)
        print(setting, network_name(sizes), *cells, sep="\t")
        final[setting] = dict(zip(MEASURES, measured.tolist(), strict=True))
        for (seed, i), row in zip(PLACES, values[setting].flatten(0, 1).tolist(), strict=True):
            history.append([setting, seed, i, *row])
    (folder / "results.json").write_text(json.dumps(final))
    with (folder / "history.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["setting", "seed", "iteration", *MEASURES], *history])
    for measure in FIGURES:
        draw(values, measure, folder)


if __name__ == "__main__":
    problem, values = digits(), {}
    for setting, (rate, sizes) in SETTINGS.items():
        loop = pytorch.eager(replace(problem, sizes=sizes))
        values[setting] = torch.stack([train(loop, rate, seed) for seed in range(SEEDS)])
    write(values, Path(sys.argv[4]))
