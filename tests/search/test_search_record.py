"""The record of a search tells changed functions and test sets; methods may be generators."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_search import KEY, SPACE, TASK, TEST

from jaxnn import Data, Network
from jaxnn.optimizers import schedule
from jaxnn.search import (
    Round,
    RunFolderError,
    Task,
    Trial,
    choice,
    conditional,
    fixed,
    grid,
    integer,
    log_uniform,
    random,
    search,
)
from jaxnn.search.journal import Journal
from jaxnn.search.space import Space, SpaceError
from jaxnn.spec import derivative_digest

X = jnp.arange(1.0, 5.0)


def two_functions(first, second):
    """Two functions with the name of one."""
    for each in (first, second):
        each.__qualname__, each.__module__ = "mine", "study"
    return first, second


def hinge(logits, target, *, margin=1.0):
    return jnp.sum(jnp.maximum(0.0, margin + logits - logits[target]))


def network(width, *, slope=1.0):
    def init(key):
        return jax.random.normal(key, (width, 12)) / 4, jnp.zeros((3, width))

    return Network(init, lambda p, x: p[1] @ jnp.tanh(slope * p[0] @ x))


CUSTOM = {
    "loss": two_functions(partial(hinge).func, lambda z, y: hinge(z, y, margin=2.0)),
    "activation": two_functions(lambda x: jnp.tanh(x), lambda x: jnp.tanh(2 * x)),
    "optimizer": two_functions(
        lambda h: optax.sgd(h.learning_rate), lambda h: optax.sgd(h.learning_rate / 2)
    ),
    "schedule": two_functions(
        lambda steps: lambda i: jnp.exp(-i / steps), lambda steps: lambda i: jnp.exp(-2 * i / steps)
    ),
    "model": two_functions(lambda width: network(width), lambda width: network(width, slope=2.0)),
}


def with_function(kind, function):
    """The task and the space of a search with a function of the user's own."""
    if kind == "model":
        space = {n: SPACE[n] for n in ("learning_rate", "batch_size")} | {"width": choice(2, 3)}
        return replace(TASK, epochs=1, model=function, model_parameters=("width",)), space
    return replace(TASK, epochs=1), SPACE | {kind: fixed(function)}


def described(kind, function):
    """The question's traced programs."""
    question = {}

    def journal(_, asked, *_more):
        question.update(asked)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["jaxnn.search.search"], "Journal", journal)
        task, space = with_function(kind, function)
        with pytest.raises(InterruptedError):
            search(task, space, method=random(1), key=KEY, folder="unused")
    return {n: value for n, value in question.items() if n.startswith("traced program of")}


@pytest.mark.parametrize("kind", CUSTOM)
def test_the_record_has_the_digest_of_the_program_of_a_users_function(kind):
    before, after = (described(kind, function) for function in CUSTOM[kind])
    assert list(before) == list(after) == [f"traced program of {kind} study.mine"]
    assert before != after
    assert before == described(kind, CUSTOM[kind][0])


def test_a_changed_loss_is_refused_by_name_though_the_folder_is_finished(tmp_path):
    before, after = CUSTOM["loss"]
    task, space = with_function("loss", before)
    first = search(task, space, method=random(2), key=KEY, folder=tmp_path)
    again = search(task, space, method=random(2), key=KEY, folder=tmp_path)
    assert again.table == first.table
    task, space = with_function("loss", after)
    with pytest.raises(RunFolderError, match=r"traced program of loss study\.mine is ") as raised:
        search(task, space, method=random(2), key=KEY, folder=tmp_path)
    assert "\n" not in str(raised.value)


def test_a_search_by_names_alone_has_no_digest_of_functions():
    assert described("activation", "tanh") == {}


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_functions_are_not_compared_between_versions_of_jax(tmp_path, name):
    traced = "traced program of loss study.mine"
    with Journal(tmp_path, {"versions": {name: "0.1"}, traced: "a"}):
        pass
    with (
        pytest.raises(RunFolderError, match=rf'versions\.{name} is "0\.2"') as raised,
        Journal(tmp_path, {"versions": {name: "0.2"}, traced: "b"}),
    ):
        raise AssertionError
    assert "functions cannot be compared between versions of JAX" in str(raised.value)
    assert "traced program" not in str(raised.value)


def test_a_folder_without_digests_of_functions_is_refused_in_one_line(tmp_path):
    with Journal(tmp_path, {"seeds": 1}):
        pass
    traced = "traced program of loss study.mine"
    with (
        pytest.raises(RunFolderError, match=f'{traced} is "b", in the folder null'),
        Journal(tmp_path, {"seeds": 1, traced: "b"}),
    ):
        raise AssertionError


WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def plain(x):
    hidden = jax.nn.relu(x)
    wave = jnp.sin(x)
    return jnp.sum(WEIGHT @ hidden) + wave[0]


def moved(z):
    """``plain`` with renamed variables, lines in another order, a helper and an unused value."""
    sine = jnp.sin(z)
    unused = jnp.cos(z)
    del unused
    positive = jax.jit(lambda each: jax.nn.relu(each))(z)
    return jnp.sum(WEIGHT @ positive) + sine[0]


def test_moved_lines_and_renamed_variables_have_the_same_digest():
    assert derivative_digest(plain, X) == derivative_digest(moved, X)


def of_custom_jvp(x, slope):
    doubled = jax.custom_jvp(lambda x: jnp.sum(x))
    doubled.defjvp(lambda primals, tangents: (primals[0].sum(), slope * tangents[0].sum()))
    return doubled(x)


def of_custom_vjp(x, slope):
    doubled = jax.custom_vjp(lambda x: jnp.sum(x))
    doubled.defvjp(lambda x: (x.sum(), None), lambda _, t: (t * slope * jnp.ones(4),))
    return doubled(x)


def in_scan(x, slope):
    return jax.lax.scan(lambda c, _: (jnp.sin(slope * c), None), x, length=3)[0]


@pytest.mark.parametrize(
    "function",
    [
        of_custom_jvp,
        of_custom_vjp,
        in_scan,
        lambda x, slope: jax.lax.cond(x[0] > slope, jnp.sin, jnp.cos, x),
        lambda x, slope: x @ jnp.asarray(slope * WEIGHT[0]),  # a constant alone
        lambda x, slope: x.reshape(2, 2).sum(axis=int(slope) - 1),  # a parameter alone
        lambda x, slope: x * jax.random.normal(jax.random.key(int(slope)), (4,)),
        lambda x, slope: jax.nn.relu(x) if slope == 1 else jax.nn.gelu(x),
    ],
)
def test_another_constant_parameter_or_derivative_rule_has_another_digest(function):
    digests = [derivative_digest(partial(function, slope=slope), X) for slope in (1.0, 2.0, 1.0)]
    assert digests[0] == digests[2] != digests[1]


@pytest.mark.slow
def test_digests_are_equal_in_every_process():
    program = (
        "import test_search_record as t, jax; from jaxnn import spec;"
        "print(t.derivative_digest(t.plain, t.X),"
        "*(t.derivative_digest(lambda x: f(x, 2.0), t.X)"
        " for f in (t.of_custom_jvp, t.of_custom_vjp, t.in_scan)),"
        "spec.program_digest(t.network(3).init, jax.random.key(0)))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{Path(__file__).parents[2]}"},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_schedules_of_optax_differ_in_the_record_by_their_arguments():
    first, second = (
        described("schedule", schedule("warmup_cosine", warmup_steps=n)) for n in (1, 2)
    )
    assert len(first) == len(second) == 1
    assert {*first.values()}.isdisjoint(second.values())


class TestTestSet:
    """The score of a folder belongs to a test set."""

    OTHER = Data(TEST.inputs, (TEST.targets + 1) % 3, TEST.scale)

    def run(self, folder, test):
        task = replace(TASK, test=test, epochs=1)
        return search(task, SPACE, method=random(2), key=KEY, folder=folder)

    def test_another_test_set_is_refused_by_both_digests(self, tmp_path):
        scores = self.run(tmp_path, TEST).test()
        assert self.run(tmp_path, TEST).test() == scores
        with pytest.raises(RunFolderError, match="holds the score of another test set") as raised:
            self.run(tmp_path, self.OTHER)
        assert scores.digest in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_another_test_set_from_a_function_is_refused_when_asked_for_the_score(self, tmp_path):
        self.run(tmp_path, lambda: TEST).test()
        other = self.run(tmp_path, lambda: self.OTHER)
        for retrain in (False, True):
            with pytest.raises(RunFolderError, match="holds the score of another test set"):
                other.test(retrain=retrain)
        assert other.test_reads == 1

    def test_a_score_without_digest_is_returned_with_a_warning(self, tmp_path, caplog):
        found = self.run(tmp_path, TEST)
        scores = found.test()._asdict()
        folder = tmp_path / "old"
        again = self.run(folder, TEST)
        del scores["digest"]
        with again.journal as journal:
            journal.append({"test_scores": json.loads(json.dumps(scores))})
        with caplog.at_level(logging.WARNING, "jaxnn.search"):
            assert self.run(folder, TEST).test().accuracy == scores["accuracy"]
        assert "test sets cannot be compared" in caplog.text


def halves(space, evaluations, seed):
    """Two rounds: four random trials, then the better half of the trials to the end."""
    configs = [space.configuration({"learning_rate": i / 4, "l2": seed % 2 / 2}) for i in range(4)]
    trials = tuple(Trial(number, config) for number, config in enumerate(configs))
    best = (yield Round(trials, 1)).best
    kept = sorted(trials, key=lambda trial: best[trial.number])[:2]
    yield Round(tuple(trial._replace(parent=trial.number) for trial in kept), evaluations)


class TestGeneratorMethods:
    """A plain generator of rounds is a method."""

    def test_a_generator_function_searches_and_resumes(self, tmp_path):
        totals = []
        found = search(
            TASK,
            SPACE,
            method=halves,
            key=KEY,
            folder=tmp_path,
            progress=lambda s: totals.append(s.total),
        )
        assert sorted(row["epochs"] for row in found.table) == [1, 1, 4, 4]
        assert (totals[0], totals[-1]) == (0, 10)
        again = search(TASK, SPACE, method=halves, key=KEY, folder=tmp_path)
        assert again.table == found.table
        assert found.method == {"method": "test_search_record.halves"}

    def test_a_generator_searches_once(self):
        space = Space(SPACE)
        generator = halves(space, TASK.evaluations, 0)
        found = search(TASK, SPACE, method=generator, key=KEY)
        assert len(found.table) == 4
        with pytest.raises(
            ValueError, match=r"method yields no round, .* a generator searches once"
        ):
            search(TASK, SPACE, method=generator, key=KEY)

    @pytest.mark.parametrize(
        ("method", "message"),
        [
            (lambda *_: [1], r"method returned \[1\], expected a generator of rounds"),
            (lambda *_: (each for each in [1]), "method yielded 1, expected Round"),
            (
                lambda *_: (Round(t, 1) for t in [()]),
                "trains 0 trials until evaluation 1, expected",
            ),
            (
                lambda *_: (Round((Trial(0, {"learning_rate": 0.1}),), u) for u in [9]),
                "until evaluation 9, expected at least 1, until 1 to 4",
            ),
            (
                lambda *_: (Round((Trial(0, {"learning_rate": 0.1}, 7),), 1) for _ in [0]),
                "a parent of the last round",
            ),
            (lambda *_: (Round((Trial(0, {}),), 1) for _ in [0]), "expected a learning rate"),
            ("random", r"method is 'random', expected random\(count\), such as random\(64\)"),
            (random, r"method is 'random', expected random\(count\), such as random\(64\)"),
            ("randm", "method is 'randm', expected one of .*'random'"),
            (7, r"method is 7, expected random\(64\)"),
        ],
    )
    def test_what_is_no_method_is_one_line(self, method, message):
        with pytest.raises((TypeError, ValueError), match=message) as raised:
            search(TASK, SPACE, method=method, key=KEY)
        assert "\n" not in str(raised.value)

    def test_the_name_of_a_method_without_needed_arguments_is_the_method(self):
        by_name, by_call = (search(TASK, SPACE, method=m, key=KEY) for m in ("grid", grid()))
        assert by_name.table == by_call.table


class TestManyPrograms:
    """Only programs that are used are checked."""

    def test_a_few_trials_of_very_many_programs_search(self):
        layers = {f"width{i}": choice(1, 2, 3, 4) for i in range(9)}

        def model(**widths):
            size = sum(widths.values())
            return Network(lambda _: jnp.zeros((3, 12)), lambda p, x: p @ x * size)

        task = Task(TASK.train, epochs=1, model=model, model_parameters=tuple(layers))
        space = {"learning_rate": log_uniform(0.01, 0.1), "batch_size": fixed(20)} | layers
        assert Space(space, task.model_parameters).programs() == 4**9
        found = search(task, space, method=random(2), key=KEY)
        assert len(found.table) == 2

    def test_every_value_is_checked_once_also_where_a_condition_rules_it(self):
        conditions = {"optimizer": choice("sgd", "adam")}
        batch = conditional(integer(10, 99), optimizer="adam")
        space = Space({"learning_rate": fixed(0.1), "batch_size": batch} | conditions)
        sizes = {part.get("batch_size") for part in space.samples()}
        assert sizes == {None, 10, 99}
        assert all(("batch_size" in p) == (p["optimizer"] == "adam") for p in space.samples())

    def test_a_program_of_a_later_round_is_checked_when_the_round_begins(self):
        def model(width, depth):
            if (width, depth) == (2, 2):
                raise ValueError("too large")
            return Network(lambda _: jnp.zeros((3, 12)), lambda p, x: p @ x)

        def rounds(space, evaluations, _):
            for number, width in enumerate((1, 2)):
                config = {"learning_rate": 0.1, "batch_size": 20, "width": width, "depth": width}
                yield Round((Trial(number, config),), evaluations)

        task = Task(TASK.train, epochs=1, model=model, model_parameters=("width", "depth"))
        sizes = {"width": choice(1, 2), "depth": choice(1, 2), "batch_size": fixed(20)}
        space = {"learning_rate": fixed(0.1)} | sizes
        with pytest.raises(SpaceError, match="too large"):
            search(task, space, method=rounds, key=KEY)
        assert search(task, space, method=random(1), key=KEY).table


def test_a_name_that_decides_the_optimizer_needs_no_optimizer_that_reads_the_name():
    optimizer = conditional(choice("sgd", "momentum"), momentum=0.9)
    space = Space(
        {"learning_rate": fixed(0.1), "momentum": choice(0.5, 0.9), "optimizer": optimizer}
    )
    configs = space.grid({})
    assert [(c["momentum"], c.get("optimizer")) for c in configs] == [
        (0.5, None),
        (0.9, "sgd"),
        (0.9, "momentum"),
    ]


def test_a_checked_space_cannot_be_changed():
    space = Space({"learning_rate": fixed(0.1)})
    with pytest.raises(TypeError, match="does not support item assignment"):
        space["learning_rate"] = fixed(-1.0)  # pyright: ignore[reportIndexIssue]
    assert not hasattr(space, "update")


def test_examples_are_a_validation():
    validation = Data(TEST.inputs, TEST.targets, TEST.scale)
    task = replace(TASK, validation=validation, epochs=1)
    assert task.validation_split.describe() == {"kind": "given"}
    assert search(task, SPACE, method=random(1), key=KEY).table


@pytest.mark.parametrize("validation", [0.2, 5, (TEST.inputs, TEST.targets), "holdout"])
def test_another_validation_is_one_line(validation):
    with pytest.raises(
        TypeError, match=r"expected holdout\(0\.2\), folds\(5\), splits\(pairs\) or Data"
    ):
        Task(TEST, validation=validation)
