"""What ``python -m experiments.architectures`` does, with PyTorch: 15 networks, table and figures.

Three networks from five seeds each, 500 minibatches of 100 digits, momentum and a cosine schedule,
evaluated at the same iterations; then a table, results.json, history.csv and the three figures::

    python -m experiments.benchmark.architectures_in_pytorch NAME TIME DIGITS FOLDER
"""

# pyright: reportMissingImports=false
import csv
import json
import sys
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # faster to import than pyplot
from torch import Tensor, nn

from experiments.benchmark.peers.pytorch import network, sgd
from experiments.benchmark.startups import L2, STEPS, Digits, load, minibatches

SETTINGS = {"a": (0.3, (64, 10)), "b": (0.1, (64, 50, 50, 10)), "c": (0.1, (64, 90, 50, 10))}
SEEDS = 5
EVALUATE_AT = {*range(0, 26, 5), *range(0, STEPS + 1, 50)}
MEASURES = ("test_error", "train_error", "test_cross_entropy", "train_cross_entropy")
FIGURES = ("train_cross_entropy", "test_error", "train_error")


def train(sizes: tuple[int, ...], rate: float, seed: int, digits: Digits) -> list[dict]:
    """The measures of a network at every evaluated iteration; He's initial weights."""
    torch.manual_seed(seed)
    model = network(sizes)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)
    optimizer = sgd(model, rate, L2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    history = [{"iteration": 0} | evaluate(model, digits)]
    for step, rows in enumerate(minibatches(len(digits.y_train), seed), start=1):
        loss = nn.functional.cross_entropy(model(digits.x_train[rows]), digits.y_train[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step in EVALUATE_AT:
            history.append({"iteration": step} | evaluate(model, digits))
    return history


@torch.no_grad()
def evaluate(model: nn.Module, digits: Digits) -> dict[str, float]:
    """Error and cross-entropy on the training and the test examples."""
    measures = {}
    for name, x, y in (("train", *digits[:2]), ("test", *digits[2:])):
        logits = model(x)
        measures[f"{name}_error"] = (logits.argmax(dim=1) != y).float().mean().item()
        measures[f"{name}_cross_entropy"] = nn.functional.cross_entropy(logits, y).item()
    return measures


def column(rows: list[dict], setting: str, measure: str) -> Tensor:
    """A measure of a setting, [seeds, evaluated iterations]."""
    values = torch.tensor([row[measure] for row in rows if row["setting"] == setting])
    return values.reshape(SEEDS, -1)


def draw(rows: list[dict], measure: str, folder: Path) -> None:
    """A line per setting, in a band of a standard deviation over the seeds."""
    figure, at = Figure(figsize=(8, 5), dpi=150), sorted(EVALUATE_AT)
    axes = figure.add_subplot()
    for setting, (_, sizes) in SETTINGS.items():
        values = column(rows, setting, measure)
        mean, std = values.mean(dim=0), values.std(dim=0)
        axes.fill_between(at, mean - std, mean + std, alpha=0.2)
        axes.plot(at, mean, label=f"({setting}) {'-'.join(map(str, sizes))}")
    axes.set(title=f"{measure}, digits", xlabel="iteration", ylabel=measure, yscale="log")
    axes.grid(alpha=0.25)
    axes.legend(title=f"mean of {SEEDS} seeds; band: ± 1 standard deviation")
    FigureCanvasAgg(figure).print_png(str(folder / f"{measure}.png"))


def write(rows: list[dict], folder: Path) -> None:
    """Prints the table and writes everything."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict] = {}
    print("setting", "sizes", *MEASURES, sep="\t")
    for setting, (_, sizes) in SETTINGS.items():
        final = {measure: column(rows, setting, measure)[:, -1] for measure in MEASURES}
        cells = (f"{values.mean():.4f} ± {values.std():.4f}" for values in final.values())
        print(setting, "-".join(map(str, sizes)), *cells, sep="\t")
        results[setting] = {measure: values.tolist() for measure, values in final.items()}
    (folder / "results.json").write_text(json.dumps(results))
    with (folder / "history.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    for measure in FIGURES:
        draw(rows, measure, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)  # two are slower
    digits, rows = Digits(*map(torch.from_numpy, load())), []
    for setting, (rate, sizes) in SETTINGS.items():
        for seed in range(SEEDS):
            history = train(sizes, rate, seed, digits)
            rows += [{"setting": setting, "seed": seed} | row for row in history]
    write(rows, Path(sys.argv[4]))
