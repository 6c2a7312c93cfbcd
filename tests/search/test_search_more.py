"""A search goes on with more, begins with given configurations, ends early, and is read again."""

import json
import os
import re
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from databases import stored
from small_search import KEY, SPACE, TASK, VALIDATION, examples
from survival import outcome

from jaxnn import search as s
from jaxnn.search import report
from jaxnn.search.trainer import Trainer

SMALL = SPACE | {"learning_rate": s.log_uniform(0.01, 1e20)}  # the largest diverge
TWO = SMALL | {"hidden": s.choice((6,), ())}


def run(
    folder: Path | None, count: int = 5, seeds: int = 1, epochs: int = 2, **changes
) -> s.Result:
    """A search that stores a checkpoint after every evaluation."""
    asked = {
        "task": replace(TASK, epochs=epochs),
        "space": SMALL,
        "method": s.random(count),
        "key": KEY,
        "seeds": seeds,
        "checkpoint_seconds": 0,
        "block_size": 4,  # for any number of devices
    }
    return s.search(**asked | changes, folder=folder)


def latest(folder: Path) -> list[dict[str, Any]]:
    """The last question and the records after the question, without times and files."""
    records = stored(folder)
    first = max(place for place, record in enumerate(records) if "search" in record)
    ignored = ("seconds", "more", "file", "sha256")
    kept = [
        {name: value for name, value in record.items() if name not in ignored}
        for record in records[first:]
        if not {"test_read", "test_scores"} & record.keys()
    ]
    # A second checkpoint at the end has parameters that were trained again.
    return [now for before, now in pairwise([{}, *kept]) if now != before]


class CrashError(Exception):
    """Ends a search where it stands."""


def crash_at(moment):
    def report(_):
        nonlocal moment
        moment -= 1
        if not moment:
            raise CrashError

    return report


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """Searches that ask for everything at once, by (count, seeds, epochs)."""
    known = {}

    def found(*size):
        if size not in known:
            folder = tmp_path_factory.mktemp("at_once")
            known[size] = outcome(run(folder, *size)), latest(folder)
        return known[size]

    return found


MORE = {"trials": (7, 1, 2), "seeds": (5, 3, 2), "epochs": (5, 1, 4), "all": (7, 3, 3)}


@pytest.mark.parametrize("what", MORE)
def test_a_finished_search_goes_on_with_more_to_the_bits_of_asking_for_all_at_once(
    tmp_path, at_once, what, monkeypatch
):
    run(tmp_path).test()
    trained = []
    advance = Trainer.advance

    def counting(trainer, program, configs, members, *rest):
        trained.append(members.diverged_at.size)
        return advance(trainer, program, configs, members, *rest)

    monkeypatch.setattr(Trainer, "advance", counting)
    grown = outcome(run(tmp_path, *MORE[what]))
    work = sum(trained)
    loaded, again = s.Result.load(tmp_path), run(tmp_path, *MORE[what])
    jax.tree.map(np.testing.assert_array_equal, loaded.params, again.params)
    assert (grown, latest(tmp_path)) == at_once(*MORE[what])
    count, seeds, epochs = MORE[what]
    missing = count * seeds * epochs - 5 * 1 * 2
    assert missing <= work <= missing + 2  # the choice again, to another best evaluation


@pytest.mark.slow
def test_a_search_of_several_programs_goes_on(tmp_path):
    run(tmp_path, space=TWO)
    assert outcome(run(tmp_path, epochs=3, space=TWO)) == outcome(run(None, epochs=3, space=TWO))


@pytest.mark.slow
def test_a_search_goes_on_with_more_again_and_again(tmp_path, at_once):
    for size in ((5, 1, 1), (5, 1, 2), (5, 3, 2), (7, 3, 2)):
        run(tmp_path, *size)
    assert outcome(run(tmp_path, 7, 3, 3)) == at_once(7, 3, 3)[0]


def test_the_record_says_that_and_how_the_search_went_on(tmp_path):
    run(tmp_path)
    run(tmp_path, 7, 3, 3)
    asked = [record for record in stored(tmp_path) if "search" in record]
    assert [record["search"]["method"]["count"] for record in asked] == [5, 7]
    assert asked[1]["more"] == [
        "task.epochs is 3, in the folder 2",
        "method.count is 7, in the folder 5",
        "seeds is 3, in the folder 1",
    ]


@pytest.mark.parametrize("moment", [1, 5])
def test_a_search_that_ends_while_it_goes_on_ends_with_the_same_bits(tmp_path, at_once, moment):
    run(tmp_path)
    with pytest.raises(CrashError):
        run(tmp_path, 7, 3, 3, progress=crash_at(moment))
    grown = outcome(run(tmp_path, 7, 3, 3))
    assert grown == at_once(7, 3, 3)[0]


def test_without_the_checkpoint_everything_trains_again_to_the_same_bits(tmp_path, at_once):
    run(tmp_path)
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(b"damaged")
    grown = outcome(run(tmp_path, 7))
    assert "is damaged" in grown.pop("notes")[0]
    assert grown == {n: v for n, v in at_once(7, 1, 2)[0].items() if n != "notes"}


@pytest.mark.parametrize(
    ("method", "larger"),
    [pytest.param(s.sobol(5), s.sobol(7), marks=pytest.mark.slow), (s.grid(), s.grid())],
    ids=["sobol", "grid"],
)
def test_other_methods_of_drawn_configurations_go_on(tmp_path, method, larger):
    space = SMALL if method.name == "sobol" else SPACE
    run(tmp_path / "more", space=space, method=method, epochs=1)
    grown = run(tmp_path / "more", space=space, method=larger, epochs=2)
    once = run(tmp_path / "once", space=space, method=larger, epochs=2)
    assert outcome(grown) == outcome(once)


COSINE = SMALL | {"schedule": s.fixed("cosine")}
REFUSED = {
    "a schedule of the number of steps": (
        {"space": COSINE},
        {"epochs": 3, "space": COSINE},
        r"epochs is 3, .*; the schedule cosine depends on the number of steps: 'constant' goes",
    ),
    "fewer trials": ({}, {"count": 4}, r"method\.count is 4, in the folder 5; the configurations "),
    "fewer seeds": ({"seeds": 2}, {}, r"seeds is 1, in the folder 2; expected the same"),
    "another key": ({}, {"count": 7, "key": 8}, r"holds another search: .*key\[1\] is 8"),
    "another method": ({}, {"method": s.sobol(8)}, r"method\.method is \"sobol\", in the folder"),
    "a method that learns": (
        {"method": s.hyperband()},
        {"method": s.hyperband(), "epochs": 3},
        "grid, random, sobol alone go on with more",
    ),
    "other blocks": (
        {"count": 2},
        {"count": 9, "block_size": 8},
        r"block size is \d+, in the folder \d.*changes b",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_continuation_is_refused_in_one_line(tmp_path, case):
    before, after, message = REFUSED[case]
    run(tmp_path, **before)
    content = (tmp_path / "run.db").read_bytes()
    with pytest.raises(s.RunFolderError, match=message) as raised:
        run(tmp_path, **after)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "run.db").read_bytes() == content


def test_the_block_size_of_the_folder_goes_on(tmp_path):
    run(tmp_path / "more", 2, epochs=1, block_size=None)
    with pytest.raises(s.RunFolderError, match=r"block_size=(\d+) goes on") as raised:
        run(tmp_path / "more", 40, epochs=1, block_size=None)
    size = int(re.findall(r"block_size=(\d+) goes on", str(raised.value))[0])
    grown = run(tmp_path / "more", 40, epochs=1, block_size=size)
    assert outcome(grown) == outcome(run(None, 40, epochs=1, block_size=size))


def test_an_unfinished_search_ends_before_more_is_asked(tmp_path):
    with pytest.raises(CrashError):
        run(tmp_path, progress=crash_at(2))
    with pytest.raises(s.RunFolderError, match="the search in the folder is unfinished, expected"):
        run(tmp_path, 7)


def test_a_test_score_belongs_to_the_choice_at_the_reading(tmp_path):
    score = run(tmp_path, epochs=1).test()
    more = run(tmp_path, 5, 3, 2)
    assert (more.test_reads, more.test_scores) == (1, [])
    assert more.test() != score
    assert run(tmp_path, 5, 3, 2).test_reads == 2


class TestStopped:
    """A search that ends before the end."""

    @pytest.mark.parametrize(
        "method",
        [
            s.random(5),
            s.population_based(4),
            pytest.param(s.hyperband(), marks=pytest.mark.slow),
            pytest.param(s.optuna(4, batch=2), marks=pytest.mark.slow),
        ],
        ids=["random", "population_based", "hyperband", "optuna"],
    )
    def test_a_time_limit_gives_what_there_is_and_the_same_call_goes_on(self, tmp_path, method):
        asked: dict[str, Any] = {"method": method, "epochs": 4, "space": SPACE}
        moment = 0
        while not (result := run(tmp_path, **asked, timeout=0)).complete:
            moment += 1
            known = sum("segment" in record for record in stored(tmp_path))
            assert known == moment  # an evaluation more in every call
            loaded = s.Result.load(tmp_path)
            assert loaded.table == result.table
            jax.tree.map(np.testing.assert_array_equal, loaded.params, result.params)
        assert moment + 1 == sum("segment" in record for record in stored(tmp_path)) >= 4
        assert outcome(result) == outcome(run(None, **asked))

    def test_the_parameters_are_those_of_the_best_evaluation_so_far(self, tmp_path):
        stopped = run(tmp_path, timeout=0)
        whole = run(None, epochs=1)
        curve = whole.curves[stopped.best.trial]
        np.testing.assert_array_equal(stopped.curves[stopped.best.trial].loss, curve.loss)
        assert stopped.best.epochs == 1

    def test_the_result_says_that_the_search_is_incomplete(self, tmp_path, capsys):
        result = run(tmp_path, timeout=0)
        result.print()
        printed = " ".join(capsys.readouterr().out.split())
        assert "the search is incomplete, stopped before the end: the same call with" in printed
        assert report.results(result)["complete"] is False
        assert s.Result.load(tmp_path).complete is False

    def test_a_limit_that_is_not_reached_changes_nothing(self, tmp_path):
        result = run(tmp_path, timeout=1e6)
        assert result.complete
        assert "incomplete" not in json.dumps(report.results(result)["warnings"])

    def test_ctrl_c_gives_what_there_is_and_the_same_call_goes_on(self, tmp_path, caplog):
        before = signal.getsignal(signal.SIGINT)

        def press(evaluation):
            if evaluation.evaluation == 1 and evaluation.trial == 0:
                os.kill(os.getpid(), signal.SIGINT)

        result = run(tmp_path, callback=press)
        assert not result.complete
        assert "Ctrl-C: the search ends after this evaluation" in caplog.text
        assert signal.getsignal(signal.SIGINT) is before
        assert outcome(run(tmp_path)) == outcome(run(None))

    def test_a_second_ctrl_c_ends_at_once(self, tmp_path):
        def press(_):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, callback=press)
        assert outcome(run(tmp_path)) == outcome(run(None))


GIVEN = {"learning_rate": 0.5, "l2": 1e-3}


class TestEnqueued:
    """Configurations of the user's own, first."""

    @pytest.mark.parametrize(
        "method", [s.random(3), s.successive_halving(4, eta=2), s.optuna(3, batch=2)]
    )
    def test_given_configurations_are_trained_first_and_in_full(self, method):
        result = run(None, method=method, enqueue=[GIVEN])
        given = result.curves[0]
        assert given.trial.config == GIVEN | {"batch_size": 20, "hidden": (6,)}
        assert list(given.evaluations) == [1, 2]
        assert len(result.table) == method.settings["count"] + 1

    def test_the_drawn_configurations_follow_unchanged(self):
        plain, result = run(None), run(None, enqueue=[GIVEN, GIVEN | {"l2": 0.1}])
        drawn = [result.curves[n + 2].trial.config for n in range(5)]
        assert drawn == [plain.curves[n].trial.config for n in range(5)]

    def test_methods_hear_the_scores_of_their_own_trials(self):
        plain = run(None, method=s.successive_halving(4, eta=2))
        result = run(None, method=s.successive_halving(4, eta=2), enqueue=[GIVEN])
        for number, curve in plain.curves.items():
            assert result.curves[number + 1].trial.config == curve.trial.config
            assert result.curves[number + 1].evaluations == curve.evaluations

    def test_a_generator_trains_after_the_given_configurations(self):
        def three(space, evaluations, seed):
            trials = [s.Trial(n, space.configuration({"learning_rate": n / 9})) for n in range(3)]
            scores = yield s.Round(tuple(trials), 1)
            assert sorted(scores.best) == [0, 1, 2]
            yield s.Round((trials[0]._replace(parent=0),), evaluations)

        result = run(None, method=three, enqueue=[GIVEN])
        assert [len(curve.loss) for _, curve in sorted(result.curves.items())] == [2, 2, 1, 1]

    def test_a_search_with_given_configurations_goes_on(self, tmp_path):
        with pytest.raises(CrashError):
            run(tmp_path, enqueue=[GIVEN], progress=crash_at(2))
        assert outcome(run(tmp_path, enqueue=[GIVEN])) == outcome(run(None, enqueue=[GIVEN]))
        with pytest.raises(s.RunFolderError, match="enqueue is null, in the folder"):
            run(tmp_path)

    @pytest.mark.parametrize("hidden", [(5,), [6, 6], 6, "a"])
    def test_an_option_that_is_not_in_the_space_is_one_line(self, hidden):
        message = r"enqueue\[0\]: hidden is .*, expected one of \[\[6\]\]$"
        with pytest.raises(s.SpaceError, match=message):
            run(None, enqueue=[GIVEN | {"hidden": hidden}])

    def test_a_value_that_does_not_apply_is_one_line(self):
        space = s.Space(
            SPACE
            | {
                "optimizer": s.choice("sgd", "momentum"),
                "momentum": s.conditional(s.uniform(0.5, 0.9), optimizer="momentum"),
            }
        )
        plain = {"learning_rate": 0.1, "l2": 0.1, "optimizer": "sgd"}
        with pytest.raises(s.SpaceError, match="has momentum, which does not apply beside the ot"):
            space.checked(plain | {"momentum": 0.6})
        assert "momentum" not in space.checked(plain)


class TestWarmStart:
    """Optuna's samplers begin with the scores of another search."""

    def test_the_sampler_knows_the_trials_of_the_other_search(self, tmp_path, monkeypatch):
        import optuna

        other = run(tmp_path / "other", 12, epochs=1)
        told = []
        ask = optuna.Study.ask

        def asking(study, *arguments, **more):
            told.append([(t.params["learning_rate"], t.value) for t in study.trials if t.value])
            return ask(study, *arguments, **more)

        monkeypatch.setattr(optuna.Study, "ask", asking)
        run(None, method=s.optuna(2, batch=2), epochs=1, warm_start=tmp_path / "other")
        scores = {c.trial.config["learning_rate"]: c.score("error") for c in other.curves.values()}
        finite = {rate: score for rate, score in scores.items() if np.isfinite(score)}
        worst = max(finite.values())
        assert dict(told[0]) == {r: score if r in finite else worst for r, score in scores.items()}

    def test_a_warm_search_goes_on_to_the_same_bits(self, tmp_path):
        run(tmp_path / "other", epochs=1)
        asked: dict[str, Any] = {
            "method": s.optuna(4, batch=2),
            "epochs": 1,
            "warm_start": tmp_path / "other",
            "enqueue": [GIVEN],
        }
        with pytest.raises(CrashError):
            run(tmp_path / "warm", **asked, progress=crash_at(3))
        assert outcome(run(tmp_path / "warm", **asked)) == outcome(run(None, **asked))

    def test_trials_outside_of_the_space_and_other_examples_are_noted(self, tmp_path):
        run(tmp_path, epochs=1)
        narrow = SMALL | {"l2": s.fixed(1e-3)}
        task = replace(TASK, train=examples(110, 7), epochs=1)
        result = run(None, task=task, space=narrow, method=s.optuna(2), warm_start=tmp_path)
        assert result.notes[0].startswith("warm_start: ")
        assert result.notes[0].endswith(" of 5 trials are outside of the space")
        assert result.notes[1] == "warm_start: the scores are those of other examples"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"method": s.random(2)},
                r"warm_start is given with the method random, expected optuna",
            ),
            ({"task": replace(TASK, measure="loss")}, r"a search by error, expected by loss"),
            (
                {"space": SMALL | {"learning_rate": s.log_uniform(1e-9, 1e-8)}},
                r"warm_start is .* with 2 trials, expected a trial within the space",
            ),
        ],
    )
    def test_what_cannot_warm_a_search_is_one_line(self, tmp_path, changes, message):
        run(tmp_path, 2, epochs=1)
        with pytest.raises(ValueError, match=message):
            run(None, **{"method": s.optuna(2), **changes}, warm_start=tmp_path)

    def test_a_folder_without_a_search_is_one_line_and_stays(self, tmp_path):
        with pytest.raises(s.RunFolderError, match=r"holds no run\.db, expected a search"):
            run(None, method=s.optuna(2), warm_start=tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()


class TestLoaded:
    """A result is read from the folder, without the data."""

    @pytest.mark.parametrize("method", [s.random(5), s.population_based(4)])
    def test_table_choice_curves_and_parameters_are_those_of_the_search(self, tmp_path, method):
        result = run(tmp_path, seeds=2, method=method)
        loaded = s.Result.load(tmp_path)
        assert loaded.table == result.table
        assert json.dumps(loaded.best) == json.dumps(result.best)
        assert (loaded.complete, loaded.programs) == (True, result.programs)
        assert {n: c.means for n, c in loaded.curves.items()} == {
            n: c.means for n, c in result.curves.items()
        }
        assert jax.tree.structure(loaded.params) == jax.tree.structure(result.params)
        jax.tree.map(np.testing.assert_array_equal, loaded.params, result.params)

    @pytest.mark.slow
    def test_what_is_written_is_what_the_search_writes(self, tmp_path):
        result = run(tmp_path / "run")
        loaded = s.Result.load(tmp_path / "run")
        for each, name in ((result, "a"), (loaded, "b")):
            each.write(tmp_path / name)
        for name in ("trials.csv", "history.csv", "learning_curves.png", "hyperparameters.png"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    @pytest.mark.parametrize(
        "validation", [pytest.param(s.folds(3), marks=pytest.mark.slow), VALIDATION]
    )
    def test_the_choice_by_one_standard_error_is_known(self, tmp_path, validation):
        task = replace(TASK, validation=validation, epochs=2)
        result = run(tmp_path, task=task, rule="one_standard_error")
        loaded = s.Result.load(tmp_path)
        assert loaded.best.trial == result.best.trial
        assert loaded.standard_error == result.standard_error

    @pytest.mark.parametrize(
        "ask",
        [
            lambda loaded, _: loaded.test(),
            lambda loaded, _: loaded.retrained(),
            lambda loaded, folder: loaded.save_model(folder / "model"),
        ],
        ids=["test", "retrained", "save_model"],
    )
    def test_what_needs_the_data_says_so(self, tmp_path, ask):
        run(tmp_path, 2, epochs=1)
        with pytest.raises(
            s.NoDataError, match=r"loaded without the data, which .* needs: expected"
        ):
            ask(s.Result.load(tmp_path), tmp_path)

    def test_recorded_test_scores_are_known(self, tmp_path):
        score = run(tmp_path, 2, epochs=1).test()
        loaded = s.Result.load(tmp_path)
        assert (loaded.test_reads, loaded.test_scores) == (1, [score])

    def test_the_folder_stays_unchanged(self, tmp_path):
        run(tmp_path, 2, epochs=1)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        s.Result.load(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_a_choice_that_needs_the_data_is_refused_in_one_line(self, tmp_path):
        asked: dict[str, Any] = {"rule": "one_standard_error", "checkpoint_seconds": 1e9}
        with pytest.raises(CrashError):
            run(tmp_path, **asked, progress=crash_at(3))
        with pytest.raises(s.NoDataError, match="holds an unfinished search by the rule one_stand"):
            s.Result.load(tmp_path)


@pytest.fixture(scope="module")
def halved():
    space = TWO | {"momentum": s.conditional(s.uniform(0.5, 0.9), hidden=((6,),))}
    return run(None, method=s.successive_halving(9), epochs=3, space=space)


class TestStudy:
    """Trials for Optuna."""

    def test_values_states_and_curves_are_those_of_the_trials(self, halved):
        from optuna.trial import TrialState

        study = halved.study()
        assert len(study.trials) == 9
        for trial in study.trials:
            curve = halved.curves[trial.number]
            config = curve.trial.config
            means = dict(zip(curve.evaluations, curve.means["error"], strict=True))
            finite = {e: mean for e, mean in means.items() if np.isfinite(mean)}
            state = TrialState.COMPLETE if len(means) == 3 else TrialState.PRUNED
            assert trial.state == (TrialState.FAIL if curve.diverged else state)
            assert trial.value == (None if curve.diverged else min(means.values()))
            assert trial.intermediate_values == finite
            assert trial.params["learning_rate"] == config["learning_rate"]
            assert trial.params["hidden"] == {(6,): "6", (): "none"}[config["hidden"]]
            assert trial.params.get("momentum") == config.get("momentum")
        states = {trial.state for trial in study.trials}
        assert states == {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
        assert study.best_trial.number == halved.best.trial

    @pytest.mark.parametrize("kind", ["sqlite", "journal"])
    def test_a_storage_holds_the_study_for_the_dashboard(self, halved, tmp_path, kind):
        import optuna
        from optuna.storages import JournalStorage, RDBStorage
        from optuna.storages.journal import JournalFileBackend

        storage: Any = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
        if kind == "sqlite":
            storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
        halved.study(storage, name="mine")
        loaded = optuna.load_study(study_name="mine", storage=storage)
        assert [t.value for t in loaded.trials] == [t.value for t in halved.study().trials]
        with pytest.raises(ValueError, match="name is 'mine', and the storage holds a study of th"):
            halved.study(storage, name="mine")
        if kind == "sqlite":
            storage.engine.dispose()

    @pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
    def test_optunas_plots_work_on_the_study(self, halved):
        from optuna.trial import TrialState
        from optuna.visualization import matplotlib as plots

        study = halved.study()
        axes = plots.plot_intermediate_values(study)
        assert len(axes.lines) == sum(trial.state != TrialState.FAIL for trial in study.trials)
        assert plots.plot_optimization_history(study)

    def test_stopped_and_diverged_trials_are_in_our_plots_and_not_in_optunas(self, halved):
        from optuna.trial import TrialState

        from jaxnn.search.figures import parallel_coordinates

        figure = parallel_coordinates(halved)
        assert figure
        lines = [line for line in figure.axes[0].lines if np.size(line.get_xdata()) > 2]
        assert len(lines) == 9 + 1  # and the choice once more
        assert len(halved.study().get_trials(states=(TrialState.COMPLETE,))) < 3


class TestCallback:
    """A function hears every evaluation."""

    def test_a_callback_gets_the_scores_of_every_evaluation(self):
        heard: list[s.Evaluation] = []
        result = run(None, seeds=2, callback=heard.append)
        assert len(heard) == 5 * 2
        for each in heard:
            curve = result.curves[each.trial]
            assert each.config == curve.trial.config
            assert each.epoch == each.evaluation
            assert not each.read
            for name, values in each.scores.items():
                np.testing.assert_array_equal(values, curve.values(name)[each.evaluation - 1])

    def test_evaluations_that_are_read_from_the_folder_are_heard_and_say_so(self, tmp_path):
        run(tmp_path)
        heard: list[s.Evaluation] = []
        run(tmp_path, callback=heard.append)
        assert [each.read for each in heard] == [True] * 10
