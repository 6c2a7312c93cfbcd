"""What share of the machine's matrix-product peak a population of models reaches while training.

Softmax regression 784-10 and the network 784-50-50-10, minibatch 100, whole epochs with shuffling,
plain SGD with L2; 60,000 images (digits are enlarged to 28x28 and repeated). The peak is a
2048 x 2048 float32 product on every device at once, measured before and after each training run,
so that a share compares two measurements of the same moment. Compilation is shown separately.
"""

import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments import harness
from experiments.config import Config, Whole
from experiments.report import summary
from jaxnn import MLP, Data, Hyper, Spec, train_population
from jaxnn.devices import population_mesh
from jaxnn.population import default_block_size

NETWORKS = {"softmax": (784, 10), "mlp": (784, 50, 50, 10)}
POPULATIONS = (1, 8, 64, 256)
BATCH_SIZE = 100
PEAK_SIZE = 2048


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(Config):
    """Measure training of 1 to 256 models at once against the machine's matrix-product peak."""

    seeds: Whole = 3
    """Number of interleaved repetitions, each from another seed; medians are reported."""

    epochs: Whole = 1
    """Epochs of a training run; four times as many for fewer than 64 models."""

    largest: Whole = POPULATIONS[-1]
    """Leave out populations larger than this."""

    def validate(self) -> None:
        """Raises ValueError, naming the flag, its value and what was expected."""
        super().validate()
        self.at_least(1, "epochs", "largest")


class Row(NamedTuple):
    """One training run, beside the peak of the moment."""

    share_of_peak: float
    microseconds_per_model_step: float
    gflops: float
    peak_gflops: float
    compile_seconds: float


def experiment(config: BenchmarkConfig, run: harness.Run) -> Mapping[str, Any]:
    """Measures every network and population in turn, and all of that again per repetition."""
    data = mnist_shaped(run.load().train)
    populations = [count for count in POPULATIONS if count <= config.largest]
    cases = [(network, count) for network in NETWORKS for count in populations]
    rows: dict[tuple[str, int], list[Row]] = {case: [] for case in cases}
    with run.progress("measuring") as report:
        for repetition in range(config.seeds):
            for done, (network, count) in enumerate(cases, start=1 + repetition * len(cases)):
                row = measure(NETWORKS[network], count, config.epochs, repetition, data)
                rows[network, count].append(row)
                report(done, config.seeds * len(cases))
    present(run, rows)
    return {
        "peak_gflops": float(
            np.median([row.peak_gflops for each in rows.values() for row in each])
        ),
        "population": {
            network: {str(count): medians(rows[network, count]) for count in populations}
            for network in NETWORKS
        },
        "peak_memory_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure(sizes: tuple[int, ...], count: int, epochs: int, seed: int, data: Data) -> Row:
    """Trains a population for whole epochs, between two measurements of the peak."""
    epochs *= 1 if count >= 64 else 4
    spec = Spec(model=MLP(sizes), steps=epochs * (len(data.targets) // BATCH_SIZE))
    mesh = population_mesh(min(count, len(jax.devices())))
    block_size = min(default_block_size(spec, jax.default_backend(), count), -(-count // mesh.size))
    before = peak_gflops()
    population = train_population(
        spec,
        Hyper(np.geomspace(1e-3, 1e-1, count), 1e-4),
        jax.random.key(seed),
        data,
        {},
        block_size=block_size,
        mesh=mesh,
        keep_params=False,
    )
    peak = (before + peak_gflops()) / 2
    step_seconds = population.train_seconds / spec.steps / count
    gflops = flops_per_step(sizes) / step_seconds / 1e9
    return Row(gflops / peak, step_seconds * 1e6, gflops, peak, population.compile_seconds)


def flops_per_step(sizes: tuple[int, ...]) -> int:
    """Floating-point operations of the matrix products of one model and step.

    Per layer one product forward and two backward, of 2 * B * in * out each; the first layer has no
    use for the gradient to its input.
    """
    products = [2 * BATCH_SIZE * i * o for i, o in pairwise(sizes)]
    return 3 * sum(products) - products[0]


def peak_gflops(repeats: int = 5) -> float:
    """The median rate of a float32 matrix product on every device at once."""
    mesh = population_mesh()
    shape = (mesh.size, PEAK_SIZE, PEAK_SIZE)
    matrix = np.random.default_rng(0).random(shape, np.float32)
    square = jax.jit(lambda a: a @ a)
    sharded = jax.device_put(matrix, NamedSharding(mesh, PartitionSpec("population")))
    square(sharded).block_until_ready()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        square(sharded).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return mesh.size * 2 * PEAK_SIZE**3 / float(np.median(seconds)) / 1e9


def mnist_shaped(data: Data) -> Data:
    """60,000 examples of 784 pixels: MNIST as it is, other images enlarged and repeated."""
    pixels = np.asarray(data.inputs)
    side = int(pixels.shape[1] ** 0.5)
    if pixels.shape[1] != 784 and side * side == pixels.shape[1] and side < 28:
        factor = 28 // side
        enlarged = np.kron(pixels.reshape(-1, side, side), np.ones((1, factor, factor), np.uint8))
        margin = 28 - factor * side
        pad = (margin // 2, margin - margin // 2)
        pixels = np.pad(enlarged, ((0, 0), pad, pad)).reshape(-1, 784).astype(pixels.dtype)
    if pixels.shape[1] != 784:
        raise ValueError(
            f"the images have {pixels.shape[1]} pixels, expected 784 or a small square"
        )
    rows = np.arange(60_000) % len(pixels)
    return Data(pixels[rows], np.asarray(data.targets)[rows], data.scale)


def medians(rows: Sequence[Row]) -> dict[str, Any]:
    """The median of every measured quantity, and the shares' values."""
    middle = {name: float(np.median([getattr(row, name) for row in rows])) for name in Row._fields}
    middle["compile_seconds"] = rows[0].compile_seconds
    return middle | {"shares": summary(row.share_of_peak for row in rows)}


def present(run: harness.Run, rows: Mapping[tuple[str, int], Sequence[Row]]) -> None:
    """Prints the table, writes history.csv and the figure."""
    from jaxnn.figures import Curve, curves_figure

    body = []
    for (network, count), each in rows.items():
        middle = medians(each)
        body.append(
            (
                "-".join(map(str, NETWORKS[network])),
                count,
                f"{middle['microseconds_per_model_step']:.1f}",
                f"{middle['gflops']:.0f}",
                f"{middle['peak_gflops']:.0f}",
                f"{100 * middle['share_of_peak']:.1f}",
                f"{middle['compile_seconds']:.2f}",
            )
        )
    device = jax.devices()[0]
    run.table(
        f"{len(jax.devices())} x {device.device_kind}, medians of {len(next(iter(rows.values())))}",
        (
            "network",
            "models",
            "µs per model and step",
            "GFLOP/s",
            "peak GFLOP/s",
            "share of peak (%)",
            "compilation (s)",
        ),
        body,
    )
    run.history(
        [
            {"setting": network, "models": count, "seed": seed, **row._asdict()}
            for (network, count), each in rows.items()
            for seed, row in enumerate(each)
        ]
    )
    curves = []
    for network, sizes in NETWORKS.items():
        counts = [count for name, count in rows if name == network]
        shares = np.array([[100 * row.share_of_peak for row in rows[network, c]] for c in counts])
        curves.append(Curve("-".join(map(str, sizes)), counts, shares.T))
    figure = curves_figure(
        curves,
        title="Training whole populations, minibatch 100",
        x_label="models trained at once",
        y_label="share of the matrix-product peak (%)",
        x_scale="log",
    )
    run.figure("share_of_peak.png", figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the experiment; see ``harness.main``."""
    return harness.main("benchmark", BenchmarkConfig, experiment, argv)


if __name__ == "__main__":
    harness.leave(main())
