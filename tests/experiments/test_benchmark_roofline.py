"""The roofline: bounds computed by hand; the ceilings; the figure. No time is asserted."""

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from experiments import harness, machine
from experiments.benchmark import problem
from experiments.benchmark.main import BenchmarkConfig
from experiments.benchmark.part import Bench
from experiments.benchmark.parts import roofline
from experiments.benchmark.parts.roofline import bounded
from experiments.benchmark.problem import Examples
from jaxnn.devices import population_mesh

MACHINE = {
    "platform": "cpu",
    "devices": 2,
    "training_examples": 1000,  # 784 KB of 8-bit pixels, 3.1 MB of floating point
    "peak_gflops": {"median": 200.0, "values": [190.0, 200.0, 210.0]},
    "bandwidth": [
        {"bytes": size, "gigabytes_per_second": {"median": rate, "values": [rate]}}
        for size, rate in ((2**15, 400.0), (2**20, 100.0), (2**28, 10.0))
    ],
}
SOFTMAX, MLP = [784, 10], [784, 50, 50, 10]


def row(contender, sizes=SOFTMAX, models=1, cores=2, microseconds=100.0, **more):
    return {
        "network": "mlp" if len(sizes) > 2 else "softmax",
        "sizes": sizes,
        "contender": contender,
        "label": contender,
        "models": models,
        "cores": cores,
        "processes": 1,
        "microseconds": {"median": microseconds, "values": [microseconds]},
        **more,
    }


# 784-10 has 7,850 parameters: 62,800 bytes to read and to write, 31,400 to hold. A minibatch has
# 78,400 pixels. The products are 2 * 2 * 100 * 7,840 operations: 15.68 us at 200 GFLOP/s.
@pytest.mark.parametrize(
    ("row", "moved", "arithmetic", "memory"),
    [
        # Half the peak and half of 400 GB/s to the parameters, all of 100 GB/s to the pixels.
        (row("jaxnn", cores=1), 78_400 + 62_800, 31.36, 0.784 + 0.314),
        # Floating point: 3.1 MB of examples come at 10 GB/s.
        (row("numpy"), 4 * 78_400 + 62_800, 15.68, 31.36 + 0.157),
        # One after another: every model reads for itself, and has the cache to itself.
        (row("sklearn", models=64), 4 * 78_400 + 62_800, 15.68, 31.36 + 0.157),
        # Eight models share a minibatch, and fill the second cache: 251 KB at 100 GB/s.
        (row("jaxnn", models=64, models_on_a_core=8), 9_800 + 62_800, 15.68, 0.098 + 0.628),
        # A block is never fuller than the population.
        (row("jaxnn", models=2, models_on_a_core=8), 39_200 + 62_800, 15.68, 0.392 + 0.628),
        # All 64 share, and each core holds 32 of them: 1.0048 of 1.0486 MB.
        (row("torch_func", models=64), 4_900 + 62_800, 15.68, 0.49 + 0.628),
        # More cores than devices are no more than all of them.
        (row("numpy", cores=8), 4 * 78_400 + 62_800, 15.68, 31.36 + 0.157),
    ],
)
def test_a_bound_is_what_it_is_by_hand(row, moved, arithmetic, memory):
    found = bounded(row, MACHINE)
    assert found["mflop"] == 3.136
    assert found["kb"] == pytest.approx(moved / 1e3)
    assert found["intensity"] == pytest.approx(3_136_000 / moved)
    assert found["arithmetic"] == pytest.approx(arithmetic)
    assert found["memory"] == pytest.approx(memory)
    assert found["bound"] == pytest.approx(max(arithmetic, memory))
    assert found["by"] == ("memory" if memory > arithmetic else "arithmetic")
    assert found["distance"] == pytest.approx(100 / max(arithmetic, memory))


def test_hidden_layers_count_with_their_biases():
    # Parameters: 785 * 50 + 51 * 50 + 51 * 10; operations as in test_benchmark.
    found = bounded(row("jaxnn", MLP), MACHINE)
    assert found["kb"] == (78_400 + 8 * 42_310) / 1e3
    assert found["mflop"] == (2 * 200 * 42_200 + 200 * 3_000) / 1e6


def test_an_accelerator_is_all_there_is_whatever_the_cores():
    accelerator = MACHINE | {"platform": "gpu", "devices": 1}
    assert bounded(row("jaxnn", cores=1), accelerator)["arithmetic"] == pytest.approx(15.68)


@pytest.mark.parametrize(
    ("working_set", "rate"),
    [(1, 9.0), (32, 9.0), (33, 9.0), (64, 9.0), (65, 4.0), (256, 2.0), (257, 2.0), (1e12, 2.0)],
)
def test_a_working_set_has_the_best_rate_of_those_at_least_as_large(working_set, rate):
    measured = [
        {"bytes": size, "gigabytes_per_second": {"median": rate}}
        for size, rate in ((256, 2.0), (32, 5.0), (64, 9.0), (128, 4.0))
    ]
    assert machine.bandwidth_at(measured, working_set) == rate


def test_the_last_of_several_triads_is_what_comes_out():
    mesh = population_mesh()
    a, b, c = (jnp.full((mesh.size, 5), value) for value in (7.0, 1.0, 2.0))
    found = machine.repeated_triad(mesh, 4)(a, b, c)
    np.testing.assert_array_equal(found, np.full((mesh.size, 5), 1.0 + 3 * 2.0))


def test_rates_follow_from_bytes_and_seconds(monkeypatch):
    monkeypatch.setattr(machine, "seconds_of_call", lambda call, repeats: [2e-6, 1e-6][:repeats])
    # 1,000 bytes hold 83 elements of each array; 5,000 bytes are 5 triads of 12 bytes an element.
    found = machine.bandwidth(1000, moved=5000, repeats=2)
    slow = population_mesh().size * 5 * 83 * 12 / 2e-6 / 1e9
    assert found["bytes"] == 1000
    assert found["gigabytes_per_second"]["values"] == pytest.approx([slow, 2 * slow])
    assert found["gigabytes_per_second"]["median"] == pytest.approx(1.5 * slow)


def test_the_ceilings_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "WORKING_SETS", (2**15, 2**20))
    monkeypatch.setattr(roofline, "peak_gflops", iter([3.0, 1.0]).__next__)
    data = Examples(np.zeros((30, 784), np.uint8), np.zeros(30, int), np.asarray(1.0))
    problem.store(tmp_path, data, data)
    config = BenchmarkConfig(dataset="digits", seeds=2, quick=True)
    found = roofline.measure(
        Bench(config, harness.Run("benchmark", config, tmp_path), tmp_path, (0,))
    )
    assert found["training_examples"] == 30
    assert found["platform"] == "cpu"
    assert found["peak_gflops"] == {"median": 2.0, "values": [3.0, 1.0]}
    assert [entry["bytes"] for entry in found["bandwidth"]] == [2**15, 2**20]
    for entry in found["bandwidth"]:
        assert len(entry["gigabytes_per_second"]["values"]) == 2
        assert 0 < entry["gigabytes_per_second"]["median"] < np.inf


def full():
    """Results of all parts that train."""
    peers = ("numpy", "torch", "sklearn", "keras", "flax", "equinox")
    one = [
        row(n, sizes, microseconds=200.0 + i)
        for sizes in (SOFTMAX, MLP)
        for i, n in enumerate((*peers, "jaxnn"))
    ]
    many = [
        row(n, models=64, microseconds=90.0 + i, processes=p)
        for i, n in enumerate((*peers, "jaxnn"))
        for p in (1, 2)
    ]
    scale = [
        {"sizes": MLP, "models": m, "cores": 2, "microseconds": {"median": 200 / m}}
        for m in (64, 1, 4096)
    ]
    return {
        "roofline": MACHINE,
        "one_model": {"rows": one},
        "scale": {"rows": scale},
        "population": {"rows": many, "products": {"softmax": {"models_on_a_core": 8}}},
    }


def test_every_row_is_in_a_table_nearest_to_its_bound_first():
    ceilings, *tables = roofline.tables(full())
    assert [table.title for table in tables] == [
        "One model 784-10, per model and step",
        "One model 784-50-50-10, per model and step",
        "64 models 784-10, per model and step",
        "Scale, population, per model and step",
    ]
    assert [len(table.rows) for table in tables] == [7, 7, 14, 3]
    for table in (ceilings, *tables):
        assert {len(cells) for cells in table.rows} == {len(table.columns)}
    for table in tables[:3]:
        distances = [float(cells[-1]) for cells in table.rows]
        assert distances == sorted(distances)
    assert ceilings.rows[0][1:3] == ("200.0", "190.0 to 210.0")
    assert [cells[-1] for cells in ceilings.rows] == ["", "0.5", "2.0", "20.0"]


def test_a_row_of_the_table():
    results = {"roofline": MACHINE, "one_model": {"rows": [row("numpy", processes=2)]}}
    (cells,) = roofline.tables(results)[1].rows
    assert cells == (
        "numpy, 2 cores, 2 processes",
        "3.14",
        "376.4",
        "8.3",
        "31.52",
        "memory",
        "100.00",
        "3.17",
    )


def test_the_block_of_the_population_is_the_one_that_was_used():
    # 8 models to a minibatch: 9,800 + 62,800 bytes; by today's default it may be another.
    group = roofline.groups(full())["64 models 784-10"]
    (line,) = [line for line in group if line["series"] == "jaxnn, 2 cores"]
    assert line["kb"] == pytest.approx(72.6)


def test_scale_has_rows_of_jaxnn_alone_as_they_were_measured():
    names = [cells[0] for cells in roofline.tables(full())[-1].rows]
    assert names == [f"jaxnn 784-50-50-10, 2 cores, models: {m}" for m in ("64", "1", "4,096")]


@pytest.mark.parametrize(
    "part",
    [
        None,
        {},
        {"rows": []},
        {"rows": [{"sizes": SOFTMAX, "models": 1}]},
        {"rows": [row("numpy") | {"microseconds": {"median": None, "values": [None]}}]},
    ],
)
def test_parts_without_a_measured_training_are_left_out(part):
    results = {"roofline": MACHINE, "one_model": part, "scale": part}
    assert len(roofline.tables(results)) == 1
    assert roofline.drawings(results) == {}


def test_names_in_the_figure_do_not_overlap():
    shapes = [
        {"sizes": [784, width, 10], "models": 64, "cores": 2, "microseconds": {"median": 200.0}}
        for width in range(10, 40)
    ]
    results = full()
    results["scale"]["rows"] += [shape | {"question": "shape"} for shape in shapes]
    figure = roofline.drawings(results)["roofline.png"]
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert len(figure.axes) == 5
    for axes, count in zip(figure.axes, (7, 7, 14, 1, 30), strict=True):
        names = [text for text in axes.texts if ":" in text.get_text()]
        assert len(names) == count
        boxes = [Text.get_window_extent(name) for name in names]  # without their lines
        for index, box in enumerate(boxes):
            assert box.x1 <= figure.bbox.x1
            assert box.x0 > axes.bbox.x1  # beside the panel
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_on_an_accelerator_there_are_rows_of_jax_without_cores():
    accelerator = MACHINE | {"platform": "gpu", "devices": 1}
    scale = [{"sizes": SOFTMAX, "models": 64, "cores": None, "microseconds": {"median": 20.0}}]
    one = [row("numpy"), row("torch"), row("flax"), row("jaxnn")]
    results = {"roofline": accelerator, "one_model": {"rows": one}, "scale": {"rows": scale}}
    groups = roofline.groups(results).values()
    names = {line["name"] for group in groups for line in group}
    assert names == {"flax, 2 cores", "jaxnn, 2 cores", "jaxnn 784-10, models: 64"}
    figure = roofline.drawings(results)["roofline.png"]
    assert {axes.get_ylabel() for axes in figure.axes} == {"GFLOP/s per device"}


def test_points_are_below_the_roof_and_where_they_belong():
    results = {"roofline": MACHINE, "one_model": {"rows": [row("jaxnn", cores=1)]}}
    (axes,) = roofline.drawings(results)["roofline.png"].axes
    *_, line = axes.lines
    x, y = np.ravel(line.get_xydata())
    assert x == pytest.approx(3_136_000 / 141_200)
    assert y == pytest.approx(31.36)  # 3.136 MFLOP in 100 us, by one core
