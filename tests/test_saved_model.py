"""Saved models: what is loaded predicts what was saved, and damage is noticed."""

import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from numpy.typing import ArrayLike
from safetensors import safe_open

import jaxnn
from jaxnn import MLP, Data, Hyper, Layer, Network, Spec, files, train
from jaxnn.files import DamagedFileError
from jaxnn.saved_model import MODEL, load_model, load_params, save_model
from jaxnn.search import Task, choice, fixed, random, search
from jaxnn.types import Names

SCALE = np.float32(1 / 255)
SPEC = Spec(model=MLP((12, 5, 3), activation="tanh"), steps=1)
INPUTS = np.random.default_rng(0).integers(0, 256, (7, 12)).astype(np.uint8)


def several(spec, count=3):
    """Parameters of several models, leaves [R, ...]."""
    return jax.vmap(spec.model.init)(jax.random.split(jax.random.key(1), count))


def one(params, replicate):
    return jax.tree.map(lambda leaf: leaf[replicate], params)


def by_hand(params, inputs, scale: ArrayLike = SCALE):
    """tanh network in float64, [N, C]."""
    (w1, b1), (w2, b2) = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    hidden = np.tanh(inputs.astype(np.float64) * np.asarray(scale, np.float64) @ w1.T + b1)
    return hidden @ w2.T + b2


def rewrite(folder, **changes):
    """The file with another manifest, and a digest that is right."""
    manifest, arrays = files.unpack((folder / MODEL).read_bytes(), MODEL)
    (folder / MODEL).write_bytes(files.pack(arrays, manifest | changes)[0])


def test_logits_are_those_of_the_network(tmp_path):
    params = several(SPEC)
    save_model(tmp_path, SPEC, params, scale=SCALE)
    model = load_model(tmp_path)
    assert model.replicates == 3
    for replicate in range(3):
        logits = model.logits(INPUTS, replicate=replicate)
        np.testing.assert_allclose(logits, by_hand(one(params, replicate), INPUTS), rtol=1e-5)
        expected = np.argmax(by_hand(one(params, replicate), INPUTS), axis=1)
        assert model.predict(INPUTS, replicate=replicate).tolist() == expected.tolist()


SAVING = """
import sys, jax, jaxnn
from jaxnn.saved_model import save_model
spec = jaxnn.Spec(model=jaxnn.MLP((300, 200)), steps=1)
models = [jax.tree.map(lambda leaf: 0 * leaf + number, spec.model.init(jax.random.key(0)))
          for number in range(2)]
for number in range(60):
    save_model(sys.argv[1], spec, models[number % 2], about={"number": number % 2})
    print(number, flush=True)
"""


def test_a_model_is_loaded_whole_while_another_process_replaces_it(tmp_path):
    """With a manifest in a file of its own, 123 of 519 loads failed."""
    command, loads = [sys.executable, "-c", SAVING, tmp_path], 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        while process.poll() is None:
            model = load_model(tmp_path)
            for leaf in jax.tree.leaves(model.params):
                assert (leaf == model.about["number"]).all()
            loads += 1
    assert process.returncode == 0
    assert loads > 10
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]


def test_parameters_come_back_bit_for_bit(tmp_path):
    params = several(SPEC)
    save_model(tmp_path, SPEC, params)
    restored = load_params(tmp_path, jax.eval_shape(SPEC.model.init, jax.random.key(0)))
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    for was, now in zip(jax.tree.leaves(params), jax.tree.leaves(restored), strict=True):
        assert np.asarray(was).tobytes() == np.asarray(now).tobytes()
        assert was.dtype == now.dtype


def test_one_model_without_an_axis_of_replicates_is_one_replicate(tmp_path):
    params = SPEC.model.init(jax.random.key(0))
    save_model(tmp_path, SPEC, params)
    model = load_model(tmp_path)
    assert model.replicates == 1
    np.testing.assert_allclose(model.logits(INPUTS), by_hand(params, INPUTS, 1), rtol=1e-5)


PREDICT = """
import sys
import numpy as np
from jaxnn.saved_model import load_model
model = load_model(sys.argv[1])
inputs = np.load(sys.argv[2])
np.savez(sys.argv[3], logits=model.logits(inputs), probabilities=model.probabilities(inputs))
"""


def test_another_process_predicts_the_same_bits(tmp_path):
    inputs = np.random.default_rng(1).integers(0, 256, (1203, 12)).astype(np.uint8)
    save_model(tmp_path / "model", SPEC, several(SPEC), scale=SCALE)
    np.save(tmp_path / "inputs.npy", inputs)
    arguments = [tmp_path / "model", tmp_path / "inputs.npy", tmp_path / "outputs.npz"]
    subprocess.run([sys.executable, "-c", PREDICT, *map(str, arguments)], check=True)
    model = load_model(tmp_path / "model")
    with np.load(tmp_path / "outputs.npz") as there:
        assert there["logits"].tobytes() == model.logits(inputs).tobytes()
        assert there["probabilities"].tobytes() == model.probabilities(inputs).tobytes()


def test_an_answer_does_not_depend_on_the_other_examples(tmp_path):
    save_model(tmp_path, SPEC, several(SPEC), scale=SCALE)
    model = load_model(tmp_path)
    inputs = np.random.default_rng(2).integers(0, 256, (1201, 12)).astype(np.uint8)
    together = model.logits(inputs)
    assert together.shape == (1201, 3)
    for row in (0, 499, 500, 1200):
        assert model.logits(inputs[row : row + 1]).tobytes() == together[row].tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_inputs_of_any_kind_are_multiplied_by_the_stored_scale(tmp_path, dtype):
    save_model(tmp_path, SPEC, several(SPEC), scale=SCALE)
    model = load_model(tmp_path)
    np.testing.assert_allclose(
        model.logits(INPUTS.astype(dtype)), model.logits(INPUTS), rtol=1e-6, atol=1e-7
    )


def test_every_input_can_have_its_scale(tmp_path):
    scale = np.linspace(0.01, 0.02, 12).astype(np.float32)
    params = several(SPEC)
    save_model(tmp_path, SPEC, params, scale=scale)
    expected = by_hand(one(params, 0), INPUTS, scale)
    np.testing.assert_allclose(load_model(tmp_path).logits(INPUTS), expected, rtol=1e-5)


def test_no_inputs_have_no_answers(tmp_path):
    save_model(tmp_path, SPEC, several(SPEC))
    model = load_model(tmp_path)
    assert model.probabilities(INPUTS[:0]).shape == (0, 3)
    assert model.predict(INPUTS[:0]).shape == (0,)


def test_probabilities_are_the_softmax(tmp_path):
    params = several(SPEC)
    save_model(tmp_path, SPEC, params, scale=SCALE)
    powers = np.exp(by_hand(one(params, 0), INPUTS))
    np.testing.assert_allclose(
        load_model(tmp_path).probabilities(INPUTS),
        powers / powers.sum(axis=1, keepdims=True),
        rtol=1e-5,
    )


def test_logistic_regression_has_the_sigmoid_and_its_complement(tmp_path):
    spec = Spec(model=MLP((2, 1)), steps=1, loss="logistic")
    params = (jaxnn.Layer(jnp.array([[1.0, 2.0]]), jnp.array([-1.0])),)
    save_model(tmp_path, spec, params)
    model = load_model(tmp_path)
    inputs = np.array([[1.0, 0.0], [1.0, 0.25], [0.0, 0.0]])  # z = 0, 0.5, -1
    h = 1 / (1 + np.exp(-np.array([0.0, 0.5, -1.0])))
    np.testing.assert_allclose(model.probabilities(inputs), np.stack([1 - h, h], axis=1), rtol=1e-6)
    assert model.predict(inputs).tolist() == [0, 1, 0]


def test_a_loss_of_somebody_else_gives_no_probabilities(tmp_path):
    spec = Spec(model=MLP((12, 3)), steps=1, loss=lambda logits, target: jnp.sum(logits))
    save_model(tmp_path, spec, several(spec))
    model = load_model(tmp_path)
    assert model.predict(INPUTS).shape == (7,)
    with pytest.raises(ValueError, match="which defines no probabilities"):
        model.probabilities(INPUTS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (INPUTS[:, :11], r"inputs have the shape \(7, 11\), expected \[N, 12\]"),
        (INPUTS[0], r"inputs have the shape \(12,\), expected \[N, 12\]"),
        (INPUTS.astype(str), r"inputs hold .*, expected numbers"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path, inputs, message):
    save_model(tmp_path, SPEC, several(SPEC))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path).predict(inputs)


@pytest.mark.parametrize("replicate", [3, -1])
def test_a_replicate_that_is_not_there_is_refused(tmp_path, replicate):
    save_model(tmp_path, SPEC, several(SPEC))
    with pytest.raises(ValueError, match=f"replicate is {replicate}, expected one of the 3"):
        load_model(tmp_path).predict(INPUTS, replicate=replicate)


def test_safetensors_can_be_read_by_their_library_alone(tmp_path):
    from safetensors.numpy import load_file

    params = several(SPEC)
    save_model(tmp_path, SPEC, params)
    arrays = load_file(tmp_path / MODEL)
    assert sorted(arrays) == [
        "params[0].bias",
        "params[0].weight",
        "params[1].bias",
        "params[1].weight",
    ]
    assert arrays["params[1].weight"].tolist() == np.asarray(params[1].weight).tolist()


def test_the_manifest_says_what_the_model_is(tmp_path):
    save_model(tmp_path, SPEC, several(SPEC), scale=SCALE, about={"epochs": 3, "x": np.nan})
    with safe_open(tmp_path / MODEL, "numpy") as file:
        found = json.loads(file.metadata()["manifest"])
    assert found["model"] == {"kind": "mlp", "sizes": [12, 5, 3], "activation": "tanh"}
    assert (found["loss"], found["replicates"], found["version"]) == ("cross_entropy", 3, 2)
    assert np.float32(found["scale"]) == SCALE
    assert found["about"] == {"epochs": 3, "x": None}
    assert found["arrays"]["params[0].weight"] == ["float32", 3, 5, 12]
    assert {"jaxnn", "jax", "python"} <= set(found["versions"])
    assert found["device"]["platform"] == jax.default_backend()


@pytest.mark.parametrize("place", [0.05, 0.3, 0.7, 0.99])
def test_a_flipped_bit_is_noticed(tmp_path, place):
    save_model(tmp_path, SPEC, several(SPEC))
    content = bytearray((tmp_path / MODEL).read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / MODEL).write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"model\.safetensors is damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [(b'scale\\": 1.0', b'scale\\": 2.0'), (b"tanh", b"relu"), (b'epochs\\": 3', b'epochs\\": 4')],
)
def test_a_changed_manifest_is_noticed(tmp_path, was, becomes):
    save_model(tmp_path, SPEC, several(SPEC), about={"epochs": 3})
    content = (tmp_path / MODEL).read_bytes()
    assert was in content
    (tmp_path / MODEL).write_bytes(content.replace(was, becomes))
    with pytest.raises(DamagedFileError, match=r"model\.safetensors is damaged: its checksum"):
        load_model(tmp_path)


def test_a_file_that_was_cut_is_noticed(tmp_path):
    save_model(tmp_path, SPEC, several(SPEC))
    content = (tmp_path / MODEL).read_bytes()
    for end in (0, 7, 100, len(content) - 10):
        (tmp_path / MODEL).write_bytes(content[:end])
        with pytest.raises(DamagedFileError, match=r"model\.safetensors is damaged"):
            load_model(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        load_model(tmp_path)


def test_a_model_of_the_version_before_is_refused_in_one_line_and_stays(tmp_path):
    (tmp_path / "model.json").write_text('{"format": "jaxnn model", "version": 1}')
    with pytest.raises(
        ValueError, match=r"holds model\.json, version 1 of the format, .* 2"
    ) as told:
        load_model(tmp_path)
    assert "\n" not in str(told.value)
    save_model(tmp_path, SPEC, several(SPEC))
    assert load_model(tmp_path).replicates == 3
    assert (tmp_path / "model.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "has version 3 of the format, expected 2"),
        ({"format": "another"}, "is no jaxnn model, expected what save_model wrote"),
    ],
)
def test_another_format_is_refused(tmp_path, changes, message):
    save_model(tmp_path, SPEC, several(SPEC))
    rewrite(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def flat_network():
    return Network(
        lambda key: {"w": jax.random.normal(key, (2, 3)), "b": jnp.zeros(2)},
        lambda params, x: params["w"] @ x + params["b"],
    )


@pytest.mark.parametrize(
    "model", [flat_network(), MLP((3, 2, 2), activation=jax.nn.gelu)], ids=["network", "activation"]
)
def test_of_another_model_the_parameters_can_be_restored(tmp_path, model):
    spec = Spec(model=model, steps=1)
    params = several(spec)
    save_model(tmp_path, spec, params)
    with pytest.raises(ValueError, match=r"expected load_params\(folder, template\)"):
        load_model(tmp_path)
    restored = load_params(tmp_path, model.init(jax.random.key(5)))
    for was, now in zip(jax.tree.leaves(params), jax.tree.leaves(restored), strict=True):
        assert np.asarray(was).tolist() == now.tolist()


@pytest.mark.parametrize("sizes", [(12, 5), (12, 4, 3), (12, 5, 3, 3)])
def test_a_template_of_another_model_is_refused(tmp_path, sizes):
    save_model(tmp_path, SPEC, several(SPEC))
    with pytest.raises(ValueError, match=r"params\[\d\].* has the shape .*, expected"):
        load_params(tmp_path, MLP(sizes).init(jax.random.key(0)))


@pytest.mark.parametrize("sizes", [(12, 4, 3), (12, 3)])
def test_parameters_of_another_model_are_not_saved(tmp_path, sizes):
    params = MLP(sizes).init(jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"params\[0\].* has the shape .*, expected .* as of spec.model.init"
    ):
        save_model(tmp_path / "model", SPEC, params)
    assert not (tmp_path / "model").exists()


def test_a_model_replaces_the_model_before(tmp_path):
    old, new = several(SPEC), several(SPEC, 2)
    save_model(tmp_path, SPEC, old)
    (tmp_path / "notes.txt").write_text("mine")
    save_model(tmp_path, SPEC, new)
    assert load_model(tmp_path).replicates == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [MODEL, "notes.txt"]


@pytest.mark.parametrize("calls", range(1, 4))  # of fsync and replace
def test_a_crash_at_any_moment_leaves_one_whole_model(tmp_path, monkeypatch, calls):
    save_model(tmp_path, SPEC, several(SPEC))
    left = calls

    def until_the_power_fails(real):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                raise OSError("the power failed")
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", until_the_power_fails(os.fsync))
        patch.setattr("os.replace", until_the_power_fails(os.replace))
        with pytest.raises(OSError, match="the power failed"):
            save_model(tmp_path, SPEC, several(SPEC, 2))
    assert load_model(tmp_path).replicates == (2 if calls == 3 else 3)
    save_model(tmp_path, SPEC, several(SPEC, 1))
    assert load_model(tmp_path).replicates == 1
    assert [path.name for path in tmp_path.iterdir()] == [MODEL]


@pytest.fixture(scope="module")
def found():
    """A search over three models, one of them linear, from two seeds."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 130).astype(np.int32)
    centres = rng.integers(60, 200, (3, 12))
    inputs = np.clip(centres[targets] + rng.normal(0, 30, (130, 12)), 0, 255).astype(np.uint8)
    data = Data(inputs, targets, SCALE)
    space = {"learning_rate": fixed(0.1), "batch_size": fixed(20), "hidden": choice((), (4,))}
    return search(Task(data, epochs=2), space, method=random(3), key=jax.random.key(0), seeds=2)


@pytest.mark.parametrize("retrain", [False, True])
def test_the_choice_of_a_search_predicts_with_all_its_seeds(tmp_path, found, retrain):
    found.save_model(tmp_path, retrain=retrain)
    model = load_model(tmp_path)
    assert model.replicates == 2
    params = found.retrained() if retrain else found.params
    inputs = np.asarray(found.task.train.inputs)
    for seed in range(2):
        logits = jax.vmap(found.spec.model.apply, in_axes=(None, 0))(
            one(params, seed), inputs * SCALE
        )
        np.testing.assert_allclose(
            model.logits(inputs, replicate=seed), logits, rtol=1e-5, atol=1e-6
        )
    assert model.about["epochs"] == found.best.epochs
    assert model.about["config"]["hidden"] == list(found.best.config["hidden"])
    assert model.about["retrained"] is retrain


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            INPUTS / 255,
            r"inputs lie in .*\.\..*, expected the range of the training examples, 0\.\.255",
        ),
        (INPUTS * 257.0, "expected the range of the training examples"),
        (
            np.where(np.arange(12) > 3, INPUTS, np.nan),
            r"inputs hold \d+ value.* nan at \[0, 0\]",
        ),
    ],
)
def test_inputs_in_another_unit_than_the_training_inputs_are_refused(tmp_path, inputs, message):
    about = {"inputs": {"low": 0.0, "high": 255.0}}
    save_model(tmp_path, SPEC, several(SPEC), scale=SCALE, about=about)
    model = load_model(tmp_path)
    assert len(model.predict(INPUTS.tolist())) == len(INPUTS)
    assert len(model.predict(np.zeros_like(INPUTS))) == len(INPUTS)  # a black image is an image
    with pytest.raises(ValueError, match=message):
        model.predict(inputs)


@pytest.mark.parametrize("notes", [{"inputs": 12}, {"inputs": {"low": "0"}}, {}])
def test_other_notes_about_inputs_are_no_range(tmp_path, notes):
    save_model(tmp_path, SPEC, several(SPEC), scale=SCALE, about=notes)
    assert len(load_model(tmp_path).predict(INPUTS / 255)) == len(INPUTS)


FLOWERS = Data(INPUTS, np.arange(7) % 3, SCALE, -0.5, names=Names(("iris", "rose", "tulip")))


def test_predictions_are_names_and_indices_stay_at_hand(tmp_path):
    params = several(SPEC)
    save_model(tmp_path, SPEC, params, data=FLOWERS)
    model = load_model(tmp_path)
    logits = by_hand(one(params, 0), INPUTS * float(SCALE) - 0.5, 1)
    np.testing.assert_allclose(model.logits(INPUTS), logits, rtol=1e-4, atol=1e-5)
    expected = logits.argmax(axis=1)
    assert model.predict(INPUTS, indices=True).tolist() == expected.tolist()
    assert model.predict(INPUTS).tolist() == [FLOWERS.names[c] for c in expected]
    assert (model.about["inputs"]["low"], model.about["inputs"]["high"]) == (
        INPUTS.min(),
        INPUTS.max(),
    )


def test_a_network_with_one_output_predicts_the_second_name(tmp_path):
    spec = Spec(MLP((12, 1)), 1, loss="logistic")
    params = (Layer(jnp.ones((1, 12)), jnp.full(1, -3.0)),)
    save_model(
        tmp_path, spec, params, data=Data(INPUTS, np.arange(7) % 2, 1.0, names=Names(("a", "b")))
    )
    assert load_model(tmp_path).predict(np.outer([0, 9], np.ones(12))).tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("loss", "outputs", "columns"),
    [("mse", 1, None), ("huber", 2, 2), ("mae", 1, None), ("gaussian_nll", 2, None)],
)
def test_a_regression_predicts_real_numbers(tmp_path, loss, outputs, columns):
    spec = Spec(MLP((12, outputs)), 1, loss=loss)
    params = several(spec, 1)
    targets = np.linspace(0, 1, 7 * (columns or 1)).reshape((7, columns) if columns else 7)
    save_model(tmp_path, spec, params, data=Data(INPUTS, targets, SCALE))
    model = load_model(tmp_path)
    ((weight, bias),) = one(params, 0)
    expected = INPUTS * float(SCALE) @ np.asarray(weight).T + np.asarray(bias)
    expected = expected if columns else expected[:, 0]
    np.testing.assert_allclose(model.predict(INPUTS), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="is a regression, which has no probabilities"):
        model.probabilities(INPUTS)


def test_a_custom_loss_of_real_targets_is_a_regression(tmp_path):
    spec = Spec(MLP((12, 1)), 1, loss=lambda z, t: jnp.cosh(z[0] - t))
    save_model(tmp_path, spec, several(spec), data=Data(INPUTS, np.linspace(0, 1, 7)))
    model = load_model(tmp_path)
    np.testing.assert_array_equal(model.predict(INPUTS), model.logits(INPUTS)[:, 0])


def test_images_are_rows_for_an_mlp(tmp_path):
    images = INPUTS.reshape(7, 3, 4)
    shift = np.arange(12.0).reshape(3, 4)
    save_model(tmp_path, SPEC, several(SPEC), data=Data(images, np.zeros(7, int), SCALE, shift))
    model = load_model(tmp_path)
    np.testing.assert_array_equal(model.logits(images), model.logits(INPUTS))
    expected = by_hand(one(several(SPEC), 0), INPUTS * float(SCALE) + shift.ravel(), 1)
    np.testing.assert_allclose(model.logits(INPUTS), expected, rtol=1e-4, atol=1e-5)


class Normalised(linen.Module):
    """Images, with running statistics."""

    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Conv(2, (3, 3))(x))
        return linen.Dense(3)(x.reshape(len(x), -1))


def test_a_module_is_saved_with_its_statistics(tmp_path):
    data = FLOWERS._replace(inputs=INPUTS.reshape(7, 3, 4, 1))
    spec, module = Spec(Normalised(), 3, batch_size=7), Normalised()
    variables = train(spec, Hyper(0.1), 0, data)[0].params
    save_model(tmp_path, spec, variables, data=data)
    model = load_model(tmp_path, module)
    found = {"params": variables.params, **variables.statistics}
    expected: Any = module.apply(found, data.inputs * SCALE - 0.5, train=False)
    np.testing.assert_allclose(model.logits(data.inputs), expected, rtol=1e-4, atol=1e-5)
    assert {*model.predict(data.inputs)} <= {*FLOWERS.names}
    template = jax.tree.map(lambda leaf: leaf, variables)
    restored = load_params(tmp_path, template)
    jax.tree.map(np.testing.assert_array_equal, one(restored, 0), variables)
    with pytest.raises(ValueError, match=r"expected load_params.* or load_model\(folder, model\)"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"inputs have the shape .*, expected \[N, 3, 4, 1\]"):
        model.predict(INPUTS)


def test_scale_and_data_are_not_both_given(tmp_path):
    with pytest.raises(ValueError, match=r"scale is .* beside data, expected one of both"):
        save_model(tmp_path, SPEC, several(SPEC), scale=SCALE, data=FLOWERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": 3}, "names is 3, expected null or texts"),
        ({"names": ["a", 3]}, "names is .*, expected null or texts"),
        ({"shift": "a"}, "shift is .*, expected null or numbers"),
        ({"shift": [1, 2]}, "expected sizes of floating-point weights and of the scale"),
        ({"shape": [0]}, "shape is .*, expected null or sizes"),
    ],
)
def test_a_manifest_of_wrong_shifts_and_names_is_damaged(tmp_path, changes, message):
    save_model(tmp_path, SPEC, several(SPEC))
    rewrite(tmp_path, **changes)
    with pytest.raises(DamagedFileError, match=message):
        load_model(tmp_path)
