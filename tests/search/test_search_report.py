"""What a search leaves for people and programs."""

import csv
import io
import json
import math
import sys

import pytest
from handmade import Made, result

from jaxnn.search import choice, conditional, fixed, integer, log_uniform, report, uniform
from jaxnn.search.result import FinalScores

SPACE = {
    "learning_rate": log_uniform(1e-3, 1.0),
    "optimizer": choice("sgd", "momentum"),
    "momentum": conditional(uniform(0.5, 0.99), optimizer="momentum"),
    "hidden": choice((), (5, 3)),
    "batch_size": choice(6, 9),
}


def config(learning_rate=0.1, **others):
    return {
        "learning_rate": learning_rate,
        "optimizer": "sgd",
        "hidden": (),
        "batch_size": 6,
        **others,
    }


GOOD = Made(config(), [[0.5, 0.25], [0.25, 0.0], [0.25, 0.25]])
OTHER = Made(
    config(0.01, optimizer="momentum", momentum=0.9, hidden=(5, 3), batch_size=9),
    [[0.5, 0.5], [0.25, 0.75], [0.5, 0.25]],
)
LOST = Made(config(1.0), [[0.5, 0.5], [math.nan, 0.5], [math.nan, 0.5]], diverged_at=4)


@pytest.fixture
def made():
    return result(SPACE, [OTHER, LOST, GOOD], epochs=3)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def scores(accuracy, retrained):
    return FinalScores(accuracy, 0.5, (0.5, 0.9), (0.4, 0.6), [accuracy], [0.5], retrained, 10)


def record(made, *several):
    """As ``Result.test`` does."""
    with made.journal as journal:
        for count, each in enumerate(several, start=1):
            journal.append({"test_read": count})
            journal.append({"test_scores": each._asdict()})


def test_results_have_the_choice_and_the_cost(made):
    found = report.results(made)
    assert found["best"] == {
        "trial": 2,
        "config": {"learning_rate": 0.1, "optimizer": "sgd", "hidden": [], "batch_size": 6},
        "epochs": 2.0,
        "validation_accuracy": 0.875,
        "validation_cross_entropy": 0.25,
    }
    assert (found["trials"], found["diverged"], found["programs"]) == (3, 1, 2)
    assert found["seconds"] == {"compile": 1.5, "train": 2.5}
    assert found["method"] == {"method": "by hand"}
    assert found["space"]["hidden"]["options"] == [[], [5, 3]]


def test_a_test_set_that_was_not_read_is_not_reported(made):
    assert "test" not in report.results(made)


def test_the_first_reading_of_the_test_set_is_the_one_that_counts(made):
    record(made, scores(0.75, False), scores(0.875, True))
    found = report.results(made)
    assert (found["test"]["reads"], found["test"]["accuracy"]) == (2, 0.75)
    assert (found["test"]["cross_entropy"], found["test"]["examples"]) == (0.5, 10)
    assert found["test"]["confidence_interval"] == [0.5, 0.9]
    (later,) = found["later_tests"]
    assert (later["accuracy"], later["retrained"]) == (0.875, True)


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("cross_entropy", "validation_cross_entropy"),
        ("squared_error", "validation_squared_error"),
        (lambda logits, target: logits[0], "validation_loss"),
    ],
)
def test_a_loss_is_reported_by_its_name(loss, name):
    made = result(
        {"learning_rate": fixed(0.1), "loss": fixed(loss), "batch_size": fixed(6)},
        [Made({"learning_rate": 0.1, "loss": loss, "batch_size": 6}, [[0.5]])],
        epochs=1,
    )
    assert name in report.results(made)["best"]


def test_hyperparameters_that_changed_in_training_are_told():
    first = Made(config(0.1), [[0.5], [0.5]])
    copy = Made(config(0.2), [[0.25]], copied_from=0, start=2)
    made = result(SPACE, [first, copy], epochs=4, evaluations_per_epoch=2)
    stages = report.results(made)["best"]["stages"]
    assert [(stage["config"]["learning_rate"], stage["epochs"]) for stage in stages] == [
        (0.1, 1.0),
        (0.2, 1.5),
    ]


def test_history_has_every_evaluation_of_every_replicate(made):
    rows = report.history(made)
    assert len(rows) == 3 * 3 * 2
    (row,) = (r for r in rows if (r["trial"], r["seed"], r["epoch"]) == (0, 1, 2.0))
    # 18 examples in minibatches of 9: two iterations an epoch.
    assert row == {
        "trial": 0,
        "seed": 1,
        "fold": 0,
        "epoch": 2.0,
        "iteration": 4,
        "validation_accuracy": 0.25,
        "validation_loss": 1.5,
    }


def test_history_tells_folds_from_seeds():
    trial = Made(config(), [[0.0, 0.125, 0.25, 0.5]])  # the folds of seed 0, then those of seed 1
    rows = report.history(result(SPACE, [trial], epochs=1, fold_count=2))
    assert [(r["seed"], r["fold"], r["validation_accuracy"]) for r in rows] == [
        (0, 0, 1.0),
        (0, 1, 0.875),
        (1, 0, 0.75),
        (1, 1, 0.5),
    ]


def test_what_a_diverged_replicate_measures_is_an_empty_cell(made, tmp_path):
    made.write(tmp_path)
    rows = [r for r in read(tmp_path / "history.csv") if (r["trial"], r["seed"]) == ("1", "0")]
    assert [row["validation_loss"] for row in rows] == ["1.0", "", ""]


def test_trials_are_rows_with_empty_cells_where_nothing_applies(made, tmp_path):
    made.write(tmp_path)
    rows = read(tmp_path / "trials.csv")
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    assert [row["momentum"] for row in rows] == ["0.9", "", ""]
    assert [row["diverged_at"] for row in rows] == ["", "4", ""]
    assert rows[0]["hidden"] == "[5, 3]"


def test_a_trial_has_diverged_when_the_first_of_its_replicates_has():
    lost = Made(config(1.0), [[math.nan, math.nan, 0.5]], diverged_at=(7, 5))
    rows = result(SPACE, [lost, Made(config(), [[0.5, 0.5, 0.5]])], epochs=1).table
    assert [row["diverged_at"] for row in rows] == [5, None]


def test_results_are_valid_json_whatever_diverged(tmp_path):
    huge = Made(config(1.0), [[1e300], [math.inf]], diverged_at=3)
    result(SPACE, [huge, Made(config(), [[0.5], [0.25]])], epochs=2).write(tmp_path)

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert content["results"]["best"]["trial"] == 1
    assert content["versions"]["jaxnn"]


def test_writing_says_what_it_wrote(made, tmp_path):
    folder = tmp_path / "new" / "folder"
    files = made.write(folder)
    assert sorted(files) == sorted(folder.iterdir())
    assert {"trials.csv", "history.csv", "results.json", "learning_curves.png"} <= {
        file.name for file in files
    }


@pytest.mark.parametrize("package", ["matplotlib", "scipy", "sklearn"])
def test_a_missing_package_is_named_before_anything_is_written(
    made, tmp_path, monkeypatch, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not .*jaxnn-basics\[search\]"):
        made.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(made, tmp_path, monkeypatch):
    made.write(tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        made.write(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_results_are_written_before_a_figure_is_drawn(made, tmp_path, monkeypatch):
    def fail(_):
        raise RuntimeError("no figure")

    monkeypatch.setattr("jaxnn.search.figures.figures", fail)
    with pytest.raises(RuntimeError, match="no figure"):
        made.write(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["history.csv", "results.json", "trials.csv"]


def lines_of(made, count):
    stream = io.StringIO()
    made.print(count, stream)
    return stream.getvalue().splitlines()


def test_the_table_has_the_best_first_and_no_diverged_trial(made):
    lines = [line for line in lines_of(made, 10) if " ± " in line and "best" not in line]
    assert [line.split()[0] for line in lines] == ["2", "0"]
    # 75 and 100 % correct: mean 87.5, standard deviation 12.5 * sqrt(2).
    assert "2 (chosen)" in lines[0]
    assert "87.50 ± 17.68" in lines[0]
    assert "0.2500 ± 0.3536" in lines[0]
    assert "5-3" in lines[1]


@pytest.mark.parametrize(
    ("name", "domain", "value", "line"),
    [
        ("l2", log_uniform(1e-6, 1e-2), 9.9e-3, "l2 = 0.0099 is at the upper end of the searched "),
        ("l2", log_uniform(1e-6, 1e-2), 1.1e-6, "l2 = 1.1e-06 is at the lower end of the searched"),
        ("l2", log_uniform(1e-6, 1e-2), 5e-3, ""),
        ("batch_size", choice(3, 6, 9), 3, "batch_size = 3 is at the lower end of the searched ra"),
        ("batch_size", choice(3, 9, 6), 9, "range, 3 to 9: a wider range may have a better"),
        ("batch_size", choice(3, 6, 9), 6, ""),
        ("batch_size", choice(3, 6), 3, ""),
        ("batch_size", integer(2, 5), 5, "batch_size = 5 is at the upper end of the searched ran"),
        ("hidden", choice((), (5,), (6,)), (), ""),
        ("optimizer", choice("sgd", "adam", "lion"), "sgd", ""),
        ("l2", fixed(0.5), 0.5, ""),
        (
            "$\x1b[31m",
            choice(1, 2, 3),
            3,
            r"$\x1b[31m = 3 is at the upper end of the searched rang",
        ),
    ],
)
def test_a_choice_at_the_border_of_the_range_is_said(name, domain, value, line):
    space = {"learning_rate": log_uniform(0.1, 10), "batch_size": fixed(6), name: domain}
    given = {"learning_rate": 1.0, "batch_size": 6, name: value}
    own = () if name in ("l2", "batch_size", "hidden", "optimizer") else (name,)
    made = result(space, [Made(given, [[0.5], [0.25]])], epochs=2, model_parameters=own)
    said = " ".join(lines_of(made, 1))
    assert line in said
    assert ("is at the" in said) == bool(line)


def test_the_table_has_as_many_rows_as_wanted(made):
    lines = lines_of(made, 1)
    assert "the best 1 of 3 trials, 1 diverged, ± 1 standard deviation of 2" in lines
    assert not any(line.lstrip().startswith("0 ") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("3",), ValueError, "count is '3', expected a positive integer$"),
        ((0,), ValueError, "count is 0, expected a positive integer$"),
        ((io.StringIO(),), ValueError, "count is <_io.StringIO .*>, expected a positive integer$"),
        ((3, "trials.txt"), TypeError, "stream is 'trials.txt', expected an open text file$"),
    ],
)
def test_what_cannot_be_printed_to_is_one_line(arguments, error, message):
    made = result(SPACE, [Made(config(), [[0.5]])], epochs=1)
    with pytest.raises(error, match=message):
        made.print(*arguments)


def test_results_are_not_written_in_place_of_a_file(tmp_path):
    (tmp_path / "file").write_text("kept")
    made = result(SPACE, [Made(config(), [[0.5]])], epochs=1)
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError, match=r"file is a file, expected a folder$"):
            made.write(folder)
    assert (tmp_path / "file").read_text() == "kept"
