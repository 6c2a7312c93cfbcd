"""A search ends with the same bits whatever happens on the way, or says clearly why it cannot."""

import math
import signal
from pathlib import Path
from typing import Any

import jax
import pytest
from databases import rewrite, stored
from full_disk import largest_file
from survival import Searcher, lives, outcome

from jaxnn import Data
from jaxnn import search as s
from jaxnn.search.journal import DATABASE, Journal
from jaxnn.search.trainer import Trainer

METHODS = {
    "successive_halving": s.successive_halving(4, eta=2),
    "hyperband": s.hyperband(eta=3),
    "population_based": s.population_based(5),
    "optuna": s.optuna(4, batch=2),
}
SPACE = {
    "learning_rate": s.log_uniform(0.01, 1e20),  # the largest diverge
    "batch_size": s.fixed(20),
    "hidden": s.choice((), (4,)),
}


class CrashError(Exception):
    """Ends a search where it stands; nothing tidies up after it."""


class Search:
    """A small search that can crash."""

    def __init__(self, pixels: Data, method: s.Method = METHODS["population_based"]):
        test = Data(pixels.inputs[:30], pixels.targets[:30], pixels.scale)
        self.task = s.Task(pixels, test, epochs=2, evaluations_per_epoch=3)
        self.asked: dict[str, Any] = {
            "space": SPACE,
            "method": method,
            "key": jax.random.key(11),
            "seeds": 2,
        }

    def run(
        self, folder: Path | None = None, crash_at: int | None = None, seconds: float = 0, **changes
    ) -> s.Result:
        """The search; it crashes when it tells for so many times how far it is."""
        told = 0

        def progress(_):
            nonlocal told
            told += 1
            if told == crash_at:
                raise CrashError

        asked = {**self.asked, "task": self.task, **changes}
        return s.search(**asked, folder=folder, progress=progress, checkpoint_seconds=seconds)


def flip(path, place=None):
    damaged = bytearray(path.read_bytes())
    damaged[place or len(damaged) // 2] ^= 4
    path.write_bytes(damaged)


def latest_checkpoints(folder):
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.stem[11:]))


@pytest.fixture
def small(pixels):
    return Search(pixels)


@pytest.fixture
def expected(small):
    """What the search finds that nothing disturbs, in memory."""
    return outcome(small.run())


@pytest.mark.parametrize(
    "name",
    [
        "population_based",
        "successive_halving",
        pytest.param("hyperband", marks=pytest.mark.slow),
        pytest.param("optuna", marks=pytest.mark.slow),
    ],
)
def test_a_search_that_ends_anywhere_goes_on_to_the_same_bits(pixels, tmp_path, name):
    small = Search(pixels, METHODS[name])
    expected = outcome(small.run())
    for moment in range(1, 1000):
        try:
            small.run(tmp_path / str(moment), moment)
            break
        except CrashError:
            assert outcome(small.run(tmp_path / str(moment))) == expected
    assert moment > 8


def test_a_search_that_ends_again_and_again_gets_to_its_end(small, tmp_path, expected):
    for moment in range(1, 8):
        with pytest.raises(CrashError):
            small.run(tmp_path, moment)
    assert outcome(small.run(tmp_path)) == expected


def test_a_database_that_lost_its_last_records_is_no_harm(small, tmp_path, expected):
    with pytest.raises(CrashError):
        small.run(tmp_path, 6, 1e9)
    whole = stored(tmp_path)
    for end in range(1, len(whole)):
        rewrite(tmp_path, whole[:end])
        with pytest.raises(CrashError):
            small.run(tmp_path, 6, 1e9)
        assert without_seconds(whole) == without_seconds(stored(tmp_path))
    assert outcome(small.run(tmp_path)) == expected


def without_seconds(records):
    return [{**record, "seconds": None} for record in records]


@pytest.mark.parametrize(("damaged", "resumed"), [(1, "one"), (2, "none")])
def test_damaged_checkpoints_are_noted_and_the_result_is_the_same(
    small, tmp_path, expected, damaged, resumed, caplog
):
    with pytest.raises(CrashError):
        small.run(tmp_path, 7)
    for path in latest_checkpoints(tmp_path)[-damaged:]:
        flip(path)
    found = outcome(small.run(tmp_path))
    assert len(found["notes"]) == damaged
    assert all("is damaged: its checksum is not the recorded" in note for note in found["notes"])
    assert [record.getMessage() for record in caplog.records] == found["notes"]
    assert found | {"notes": []} == expected


def test_a_damaged_checkpoint_costs_only_the_segments_after_the_one_before(
    small, tmp_path, monkeypatch
):
    with pytest.raises(CrashError):
        small.run(tmp_path, 7)
    done = sum("segment" in record for record in stored(tmp_path))
    before_the_last = int(latest_checkpoints(tmp_path)[0].stem[11:])
    flip(latest_checkpoints(tmp_path)[1])
    trained = count_segments(monkeypatch)
    small.run(tmp_path)
    total = sum("segment" in record for record in stored(tmp_path))
    assert (before_the_last, trained) == (done - 2, [1] * (total - before_the_last))


def count_segments(monkeypatch):
    trained, advance = [], Trainer.advance

    def counting(*arguments):
        trained.append(1)
        return advance(*arguments)

    monkeypatch.setattr(Trainer, "advance", counting)
    return trained


def test_scores_that_training_does_not_give_again_are_an_error(small, tmp_path):
    with pytest.raises(CrashError):
        small.run(tmp_path, 6, 1e9)
    logged = stored(tmp_path)
    while "segment" not in logged[-1]:
        logged.pop()
    logged[-1]["loss"][1][0] = math.nextafter(logged[-1]["loss"][1][0], math.inf)
    rewrite(tmp_path, logged)
    before = stored(tmp_path)
    with pytest.raises(s.ReproducibilityError) as raised:
        small.run(tmp_path, None, 1e9)
    message = str(raised.value)
    assert f"segment {logged[-1]['segment']} is not as recorded: loss[1][0] is" in message
    assert "\n" not in message
    assert len(message) < 200
    assert stored(tmp_path) == before


def test_a_round_that_the_method_does_not_ask_for_again_is_an_error(small, tmp_path):
    with pytest.raises(CrashError):
        small.run(tmp_path, 6)
    logged = stored(tmp_path)
    logged[1]["trials"][0]["config"]["learning_rate"] = 0.5
    rewrite(tmp_path, logged)
    with pytest.raises(
        s.ReproducibilityError, match=r"round 0 .*trials\[0\]\.config\.learning_rate is .* 0\.5;"
    ):
        small.run(tmp_path)


def test_a_damaged_record_in_the_middle_is_an_error_and_nothing_is_changed(small, tmp_path):
    with pytest.raises(CrashError):
        small.run(tmp_path, 6)
    flip(tmp_path / DATABASE, (tmp_path / DATABASE).read_bytes().rindex(b"diverged_at"))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(s.CorruptLogError, match=r"run\.db is damaged: record \d+ fails"):
        small.run(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("size", [100, 1500, 3000, 6000])
def test_a_full_disk_is_said_and_with_room_again_the_search_goes_on(
    small, tmp_path, expected, size
):
    with (
        largest_file(size),
        pytest.raises(OSError, match=r"(File too large|disk I/O error): '.*'$") as raised,
    ):
        small.run(tmp_path)
    assert Path(raised.value.filename).parent == tmp_path
    assert not list(tmp_path.glob(".*"))
    assert outcome(small.run(tmp_path)) == expected


def changed(small, **changes):
    values = {name: getattr(small.task, name) for name in small.task.__dataclass_fields__}
    return {"task": s.Task(**values | changes)}


def other_examples(small):
    targets = small.task.train.targets.copy()
    targets[-1] = (targets[-1] + 1) % 3
    return changed(small, train=small.task.train._replace(targets=targets))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (other_examples, "task.train is "),
        (lambda small: changed(small, epochs=3), "task.epochs is 3, in the folder 2;"),
        (
            lambda small: changed(small, validation=s.holdout(0.5)),
            "task.validation.fraction is 0.5, in the folder 0.1666",
        ),
        (
            lambda small: changed(small, validation=s.given(small.task.test)),
            'task.validation.kind is "given", in the folder "holdout"',
        ),
        (lambda small: changed(small, measure="loss"), 'task.measure is "loss", in the folder "er'),
        (
            lambda _: {"space": SPACE | {"hidden": s.choice((), (5,))}},
            "space.hidden.options[1][0] is 5, in the folder 4;",
        ),
        (
            lambda _: {"space": SPACE | {"l2": s.fixed(0.0)}},
            'space.l2 is {"kind": "fixed", "options": [0.0]}, in the folder null;',
        ),
        (
            lambda _: {"method": s.population_based(6)},
            "method.count is 6, in the folder 5;",
        ),
        (lambda _: {"method": s.random(4)}, 'method.method is "random", in the folder "popu'),
        (lambda _: {"seeds": 1}, "seeds is 1, in the folder 2;"),
        (lambda _: {"key": jax.random.key(4)}, "key[1] is 4, in the folder 11;"),
        (
            lambda _: {"rule": "one_standard_error"},
            'rule is "one_standard_error over the validation examples", in the folder "mean"',
        ),
    ],
)
def test_another_search_in_the_folder_is_refused_by_what_differs(small, tmp_path, changes, said):
    with pytest.raises(CrashError):
        small.run(tmp_path, 1)
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(s.RunFolderError) as raised:
        small.run(tmp_path, **changes(small))
    assert f"{tmp_path} holds another search: {said}" in str(raised.value)
    assert str(raised.value).endswith("; expected the same search or another folder")
    assert "\n" not in str(raised.value)
    assert (tmp_path / DATABASE).read_bytes() == before


def test_a_folder_that_is_no_run_is_refused_and_left_alone(small, tmp_path):
    (tmp_path / "thesis.tex").write_text("kept")
    with pytest.raises(s.RunFolderError, match=r"holds thesis\.tex and no search, expected an emp"):
        small.run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_finished_search_trains_nothing_and_tests_no_model_again(
    small, tmp_path, expected, monkeypatch
):
    assert outcome(small.run(tmp_path, None, 1e9)) == expected
    records = stored(tmp_path)
    trained = count_segments(monkeypatch)

    def score(*_):
        raise AssertionError("a model was tested again")

    monkeypatch.setattr(s.Result, "_final_scores", score)
    again = small.run(tmp_path, **changed(small, test=lambda: small.task.test))
    assert outcome(again) == expected
    assert (trained, again.test_reads) == ([], 1)
    assert stored(tmp_path) == records


def test_that_the_test_set_was_read_is_known_though_the_scores_were_never_written(small, tmp_path):
    small.run(tmp_path).test()
    rewrite(tmp_path, stored(tmp_path)[:-1])
    result = small.run(tmp_path)
    assert result.test_reads == 1
    result.test()
    assert result.test_reads == 2


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    return Searcher(tmp_path_factory.mktemp("searches"))


@pytest.mark.slow
def test_killed_searches_end_as_if_nothing_had_happened(searcher):
    for life, _ in lives(searcher, ["population_based"], kills=4, seed=0):
        assert life.differences == []


def test_a_second_process_is_refused_while_the_first_is_at_work(searcher):
    folder = searcher.fresh_folder()
    first = searcher.start("population_based", folder, 0)
    while len(stored(folder)) < 2:
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)  # at work for as long as the second process needs
    second = searcher.start("population_based", folder, 0)
    output, errors = second.communicate()
    assert second.returncode == 1
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert output == ""
    assert errors.splitlines()[-1].endswith(
        f"{folder} is in use by another search, expected to be the only one (or the file system "
        "has no locks)"
    )
    asked = stored(folder)[0]["search"]
    with Journal(folder, asked) as journal:  # the system frees what a killed process held
        assert journal.records[0]["round"] == 0
