"""Networks of other kinds than the fixed MLP, each against the same training in another way.

- ``sizes``: random widths and learning rates, trained by ``search`` in a few programs, against
  scikit-learn's MLPClassifier, one network after another; from a cold and from a warm process.
- ``convolution``: 8 Flax networks of two convolutions and a dense layer, by ``train_population``,
  against Flax's jitted step, one network after another, on one core and on two.
- ``flat``: parameters in one vector, against the same parameters in layers.
- ``wide``: 784-512-512-10, the share of the peak by the size of the block; 0 is the default.

Every measurement has a process, ``python -m experiments.benchmark.parts.shapes JOB``, on its cores.
The ways of a question take turns.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.part import Bench, Goal, Part, Results, Table, table
from experiments.benchmark.problem import Examples, restore
from experiments.machine import flops_per_step, peak_gflops
from experiments.processes import running
from experiments.report import figures
from jaxnn import MLP, Data, Hyper, Network, Spec, train_population
from jaxnn.devices import use_all_cores

WIDTHS, NETWORKS_OF_SIZES, EPOCHS = (10, 100), 32, 10
CONVOLUTIONS, STEPS = 8, 50
WIDE, FLAT = (784, 512, 512, 10), (784, 50, 50, 10)
BLOCKS = 0, 1, 2, 4, 8
WAYS = [
    *(("sizes", way, 2) for way in ("jaxnn, cold", "jaxnn, warm", "scikit-learn")),
    *(("convolution", way, cores) for cores in (1, 2) for way in ("jaxnn", "Flax, jit")),
    *(("flat", way, 2) for way in ("one vector", "layers")),
    *(("wide", f"block {size or 'by default'}", 2) for size in BLOCKS),
]
COLUMNS = {
    "question": "{question}",
    "how": "{way}",
    "cores": "{cores}",
    "seconds": "{seconds[median]:.2f}",
    "share of peak (%)": "{share}",
}
PAIRS = (  # what, question, slower way, faster way, cores, required ratio
    ("32 networks of random sizes, cold", "sizes", "scikit-learn", "jaxnn, cold", 2, 1.5),
    ("32 networks of random sizes, warm", "sizes", "scikit-learn", "jaxnn, warm", 2, 3.0),
    ("8 convolutional networks, 1 core", "convolution", "Flax, jit", "jaxnn", 1, 1.0),
    ("8 convolutional networks, 2 cores", "convolution", "Flax, jit", "jaxnn", 2, 1.6),
)


def measure(bench: Bench) -> Results:
    """Every way in turn, each in a process of its own."""
    ways = [way for way in WAYS if way[2] <= len(bench.cores)]
    with tempfile.TemporaryDirectory() as cache:

        def call(way: tuple[str, str, int], seed: int) -> dict[str, float]:
            question, how, cores = way
            seed = 0 if question == "sizes" else seed  # the same sizes, compiled before if warm
            job = {"question": question, "how": how, "seed": seed, "data": str(bench.data)}
            job |= {"quick": bench.config.quick}
            kept = {"JAX_COMPILATION_CACHE_DIR": cache} if how.endswith("warm") else {}
            environment = {**kept, "JAX_ENABLE_COMPILATION_CACHE": str(bool(kept))}
            environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            began, arguments = time.perf_counter(), json.dumps(job)
            with running(
                __name__, arguments, environment=environment, cores=bench.cores[:cores]
            ) as program:
                *_, (_, last) = program.lines()
            found = json.loads(last)
            return found if "seconds" in found else {"seconds": time.perf_counter() - began}

        for way in ways:
            if way[1].endswith("warm"):
                call(way, 0)  # compiles
        found = bench.in_turn("shapes", ways, call)
    rows = []
    for (question, how, cores), each in zip(ways, found, strict=True):
        row = {"question": question, "way": how, "cores": cores}
        row["seconds"] = figures(one["seconds"] for one in each)
        if "share" in each[0]:
            row["share_of_peak"] = figures(one["share"] for one in each)
        rows.append(row)
    return {"rows": rows}


def done(job: dict[str, Any]) -> dict[str, float]:
    """What a process measures: seconds, and perhaps a share of the peak; {}: of the process."""
    problem = restore(Path(job["data"]), FLAT)
    question, how, seed = job["question"], job["how"], job["seed"]
    shorter = 10 if job["quick"] else 1
    if question == "sizes":
        by = with_scikit_learn if how == "scikit-learn" else with_search
        return by(seed, NETWORKS_OF_SIZES // shorter, EPOCHS // shorter)
    if question == "convolution":
        return convolutions(how, seed, problem.train, STEPS // shorter)
    mlp = MLP(FLAT if question == "flat" else WIDE)
    steps = (500 if question == "flat" else 60) // shorter
    spec = Spec(in_one_vector(mlp) if how == "one vector" else mlp, steps)
    size = {"block_size": int(how.split()[-1])} if how.split()[-1].isdigit() else {}
    models = 16
    hyper = Hyper(np.geomspace(1e-3, 0.1, models), 1e-4)
    seconds = population_seconds(spec, hyper, seed, problem.train, **size)
    if question == "flat":
        return {"seconds": seconds}
    gflops = flops_per_step(WIDE) * spec.steps * models / seconds / 1e9
    return {"seconds": seconds, "share": 100 * gflops / peak_gflops()}


def population_seconds(spec: Spec, hyper: Hyper, seed: int, train: Examples, **how: Any) -> float:
    """The time to train a population, compiled."""
    data = jax.device_put(Data(*train))

    def trained() -> float:
        return train_population(
            spec, hyper, [seed], data, {}, keep_params=False, **how
        ).train_seconds

    return (trained(), trained())[1]


def in_one_vector(model: MLP) -> Network:
    """The network with all parameters in one vector."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def layers(vector: jax.Array) -> Any:
        parts = jnp.split(vector, ends)
        reshaped = [x.reshape(leaf.shape) for x, leaf in zip(parts, leaves, strict=True)]
        return jax.tree.unflatten(structure, reshaped)

    def init(key: jax.Array) -> jax.Array:
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(model.init(key))])

    return Network(init, lambda vector, x: model.apply(layers(vector), x))


def random_sizes(seed: int, count: int) -> tuple[list[tuple[int, ...]], list[float]]:
    """Two widths and a learning rate for every network."""
    rng = np.random.default_rng(seed)
    sizes = [tuple(map(int, each)) for each in rng.integers(WIDTHS[0], WIDTHS[1] + 1, (count, 2))]
    return sizes, np.exp(rng.uniform(np.log(1e-3), np.log(0.3), count)).tolist()


def with_search(seed: int, count: int, epochs: int) -> dict[str, float]:
    """All sizes by ``search``; from the first import to the result."""
    from jaxnn.data import load
    from jaxnn.search import Round, Task, Trial, choice, log_uniform, search

    sizes, rates = random_sizes(seed, count)

    def method(space: Any, evaluations: int, seed: int) -> Any:
        configs = [{"learning_rate": r, "hidden": h} for h, r in zip(sizes, rates, strict=True)]
        yield Round(tuple(Trial(n, config) for n, config in enumerate(configs)), evaluations)

    space = {"learning_rate": log_uniform(1e-3, 0.3), "hidden": choice(*dict.fromkeys(sizes))}
    train, test = load("digits")
    search(Task(train, test, epochs=epochs), space, method=method, key=seed)
    return {}


def with_scikit_learn(seed: int, count: int, epochs: int) -> dict[str, float]:
    """The same by MLPClassifier; scored after training alone."""
    from sklearn.neural_network import MLPClassifier

    from jaxnn.data import load

    warnings.simplefilter("ignore")  # of no convergence
    (inputs, targets, scale, *_), _ = load("digits")
    inputs, cut = np.asarray(inputs) * np.asarray(scale), len(targets) * 5 // 6
    for hidden, rate in zip(*random_sizes(seed, count), strict=True):
        model = MLPClassifier(
            hidden, solver="sgd", momentum=0.9, nesterovs_momentum=False, learning_rate_init=rate,
            max_iter=epochs, n_iter_no_change=epochs, tol=0.0,
        ).set_params(batch_size=100)  # fmt: skip
        model.fit(inputs[:cut], targets[:cut]).score(inputs[cut:], targets[cut:])
    return {}


def convolutions(how: str, seed: int, train: Examples, steps: int) -> dict[str, float]:
    """Flax networks of 16 and 32 channels, by ``train_population`` or one after another."""
    from flax import linen as nn

    class Convolutional(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for channels in (16, 32):
                x = nn.max_pool(nn.relu(nn.Conv(channels, (3, 3))(x)), (2, 2), (2, 2))
            return nn.Dense(10)(x.reshape(len(x), -1))

    network, rates = Convolutional(), np.geomspace(1e-3, 0.1, CONVOLUTIONS)

    def init(key: jax.Array) -> Any:
        return network.init(key, jnp.zeros((1, 28, 28, 1)))

    def apply(params: Any, x: jax.Array) -> Any:
        return network.apply(params, x.reshape(1, 28, 28, 1))

    if how == "jaxnn":
        model = Network(init, lambda params, x: apply(params, x)[0])
        return {"seconds": population_seconds(Spec(model, steps), Hyper(rates), seed, train)}
    return {"seconds": one_after_another(network, init, rates, seed, train, steps)}


def one_after_another(
    network: Any, init: Callable, rates: np.ndarray, seed: int, train: Examples, steps: int
) -> float:
    """The time of Flax's jitted step for all networks, compiled."""
    import optax

    inputs, targets = jnp.asarray(train.inputs), jnp.asarray(train.targets)
    order = np.random.default_rng(seed).permutation(len(targets)).astype(np.int32)
    rows = order[: steps * 100].reshape(steps, 100)

    @jax.jit
    def step(params: Any, rate: Any, inputs: jax.Array, targets: jax.Array, rows: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            logits = network.apply(params, inputs[rows].reshape(-1, 28, 28, 1))
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets[rows])
            return losses.mean()

        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    def trained(rate: float, rows: np.ndarray) -> None:
        params = jax.jit(init)(jax.random.key(seed))
        for each in rows:
            params = step(params, rate, inputs, targets, each)
        jax.block_until_ready(params)

    trained(rates[0], rows[:1])
    began = time.perf_counter()
    for rate in rates:
        trained(rate, rows)
    return time.perf_counter() - began


def tables(results: Results) -> list[Table]:
    """A row for every way."""
    rows = []
    for row in results["shapes"]["rows"]:
        share = row.get("share_of_peak")
        rows.append({**row, "share": f"{share['median']:.0f}" if share else ""})
    return [table("Networks of other shapes, minibatch 100", rows, COLUMNS)]


def goals(results: Results) -> list[Goal]:
    """The ratios, and the share of the peak, within the run."""
    found = {(r["question"], r["way"], r["cores"]): r for r in results["shapes"]["rows"]}

    def ratio(question: str, slow: str, fast: str, cores: int) -> float:
        ways = ((question, way, cores) for way in (slow, fast))
        first, second = (found[way]["seconds"]["median"] for way in ways)
        return first / second

    wanted = [
        Goal(
            f"{what}: against {slow}, one after another", least, ratio(question, slow, fast, cores)
        )
        for what, question, slow, fast, cores, least in PAIRS
        if (question, slow, cores) in found
    ]
    if ("flat", "layers", 2) in found:
        taken, what = ratio("flat", "one vector", "layers", 2), "parameters in one vector"
        wanted.append(Goal(f"{what}: time against layers", 1.5, taken, at_most=True))
    if wide := found.get(("wide", "block by default", 2)):
        share = wide["share_of_peak"]["median"]
        wanted.append(Goal("784-512-512-10: share of peak", 80.0, share, "%"))
    return wanted


PARTS = {"shapes": Part(measure, tables, goals)}

if __name__ == "__main__":
    use_all_cores()
    print(json.dumps(done(json.loads(sys.argv[1]))))
