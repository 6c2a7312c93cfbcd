"""Files of strangers give the written content, or one line of a documented exception."""

import gzip
import io
import json
import os
import struct
import tempfile
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from fuzz_files import documented, fuzz, rewrite_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from jaxnn import MLP, Spec, files
from jaxnn.data import DataError
from jaxnn.data import arrays as readers
from jaxnn.files import Check, DamagedFileError, decoding, misfit, open_regular
from jaxnn.saved_model import MODEL, load_model, load_params, save_model
from jaxnn.search.journal import DATABASE, CorruptLogError, Journal, RunFolderError

FEW = settings(max_examples=20, deadline=None, derandomize=True)
NUMBERS = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
QUESTION = {"seeds": 1, "key": [0, 7]}
RECORDS = [{"round": 0, "trials": []}, {"segment": 0, "seconds": 0.5}, {"note": "a note"}]


def idx_file(array: np.ndarray) -> bytes:
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim])
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return head + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def saved(save, *array: np.ndarray) -> bytes:
    out = io.BytesIO()
    save(out, *array)
    return out.getvalue()


def model_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        spec = Spec(model=MLP((4, 3), activation="tanh"), steps=1)
        save_model(folder, spec, spec.model.init(jax.random.key(0)), scale=0.5)
        return (Path(folder) / MODEL).read_bytes()


def database_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with Journal(folder, QUESTION) as journal:
            for record in RECORDS:
                journal.append(record)
        return (Path(folder) / DATABASE).read_bytes()


def read_idx(path):
    return readers.read_idx(path).tolist()


def read_npy(path):
    return readers.read_npy(path).tolist()


def read_npz(path):
    return {name: array.tolist() for name, array in readers.read_npz(path).items()}


def read_model(path):
    model = load_model(path.parent)
    leaves = [leaf.tolist() for leaf in jax.tree.leaves(model.params)]
    return (
        leaves,
        np.asarray(model.scale).tolist(),
        model.loss,
        model.logits(np.ones((1, 4))).tolist(),
    )


def read_database(path):
    with Journal(path.parent, QUESTION) as journal:
        return journal.records


READERS = {
    "idx": ("file", idx_file(NUMBERS), read_idx),
    "idx.gz": ("file.gz", gzip.compress(idx_file(NUMBERS)), read_idx),
    "npy": ("a.npy", saved(np.save, NUMBERS), read_npy),
    "stored": ("a.npz", saved(np.savez, NUMBERS, NUMBERS), read_npz),
    "deflated": ("a.npz", saved(np.savez_compressed, NUMBERS, NUMBERS), read_npz),
    "model": (MODEL, model_file(), read_model),
    "database": (DATABASE, database_file(), read_database),
}
WITHOUT_CHECKSUM = ("idx", "npy")


def outcome(kind, content):
    """What a reader makes of a file in an otherwise empty folder: a value, or None if refused."""
    name, _, read = READERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        try:
            return read(Path(folder) / name)
        except Exception as error:
            if not documented(error):
                raise
            return None


@pytest.mark.parametrize("kind", READERS)
def test_an_intact_file_is_read(kind):
    assert outcome(kind, READERS[kind][1])


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@FEW
def test_a_damaged_file_gives_the_written_content_or_one_line(kind, data):
    _, content, _ = READERS[kind]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content)))
        removed = data.draw(st.integers(0, 12))
        content = content[:place] + data.draw(st.binary(max_size=12)) + content[place + removed :]
    found = outcome(kind, content)
    if kind not in WITHOUT_CHECKSUM:
        empty = [[]] if kind == "database" and len(content) < 512 else []
        assert found in (None, outcome(kind, READERS[kind][1]), *empty)


@pytest.mark.parametrize("kind", READERS)
@given(content=st.binary(min_size=1, max_size=300))
@FEW
def test_any_other_bytes_are_refused(kind, content):
    prefix = READERS[kind][1][: len(content) // 10]
    allowed = (None, []) if kind == "database" else (None,)  # an empty database begins anew
    assert outcome(kind, prefix + content) in allowed or kind in WITHOUT_CHECKSUM


@given(array=arrays(st.sampled_from(["u1", "i1", "i2", "i4", "f4", "f8"]), array_shapes()))
@FEW
def test_every_array_in_an_idx_or_numpy_file_comes_back(array):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        for content, read in (
            (idx_file(array), readers.read_idx),
            (gzip.compress(idx_file(array)), readers.read_idx),
            (saved(np.save, array), readers.read_npy),
            (saved(np.savez, array), lambda path: readers.read_npz(path)["arr_0"]),
            (saved(np.savez_compressed, array), lambda path: readers.read_npz(path)["arr_0"]),
        ):
            path.write_bytes(content)
            np.testing.assert_array_equal(read(path), array)


HEADERS = st.text(st.sampled_from("{}()[]'\",:-+*uif<>|0123 \n\\LTrueshapdcotn_"), max_size=200)


@given(header=HEADERS, version=st.sampled_from([1, 2]), values=st.binary(max_size=8))
@FEW
def test_any_header_of_a_numpy_file_is_read_or_refused(header, version, values):
    size = struct.pack("<H" if version == 1 else "<I", len(header) + 1)
    content = b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + b"\n" + values
    outcome("npy", content)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    outcome("stored", packed.getvalue())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["mlp", "tanh", "float32", "logistic", 2, 4]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PLACES = [
    ("version",), ("model",), ("model", "kind"), ("model", "sizes"), ("model", "activation"),
    ("loss",), ("scale",), ("replicates",), ("about",), ("arrays",), ("arrays", "params[0].bias"),
    ("format",), ("further",),
]  # fmt: skip


def crafted(place, value) -> bytes:
    """The model's file with a value of the manifest replaced and the checksum made right."""
    content = READERS["model"][1]
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    manifest = json.loads(header["__metadata__"]["manifest"])
    del manifest["sha256"]
    *path, last = place
    node = manifest
    for name in path:
        node = node[name]
    node[last] = value
    raw = {
        n: content[8 + size :][slice(*e["data_offsets"])] for n, e in header.items() if n[0] == "p"
    }
    manifest["sha256"] = files._digest(manifest, raw)
    header["__metadata__"]["manifest"] = json.dumps(manifest)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@given(place=st.sampled_from(PLACES), value=JSON)
@FEW
def test_a_manifest_with_a_right_checksum_is_read_or_refused(place, value):
    outcome("model", crafted(place, value))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("model", "sizes"), [4, -3], r"manifest.model.sizes\[1\] is -3, expected a whole number"),
        (("model", "sizes"), [5, 3], r"the sizes are \[5, 3\], expected sizes of floating-point"),
        (("model", "sizes"), [4] * 10**5, r"sizes is \[4, 4, .*\.\.\., expected a list of 2"),
        (("model", "activation"), "\x1b[31m", r'activation is "\\u001b\[31m", expected one of'),
        (("model", "activation"), {}, r"activation is {}, expected one of \['relu'"),
        (("model",), None, "manifest.model is null, expected values by name"),
        (("loss",), ["x"], r'loss is \["x"\], expected null or one of'),
        (("scale",), "large", 'scale is "large", expected numbers'),
        (("scale",), [1.0, 2.0], "expected sizes of floating-point weights and of the scale"),
        (("replicates",), 0, "replicates is 0, expected a whole number above 0"),
        (("about",), None, "about is null, expected values by name"),
        (("arrays",), [], "the arrays are not as described"),
        (("arrays", "params[0].bias"), ["object", 3], "are not as described .*dtype object"),
        (("arrays", "params[0].bias"), ["float32", 1, -3], r"not as described .*shape \(1, -3\)"),
        (("arrays", "params[0].bias"), ["float32", 1, 2**40], "are not as described"),
        (("arrays", "more"), ["float32", 1], "are not as described"),
        (("arrays", "params[0].weight"), ["int32", 1, 3, 4], "expected sizes of floating-point"),
    ],
)
def test_a_crafted_manifest_is_one_clear_line(tmp_path, place, value, said):
    (tmp_path / MODEL).write_bytes(crafted(place, value))
    with pytest.raises(DamagedFileError, match=said) as caught:
        load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / MODEL} is damaged: ")
    assert documented(caught.value)


def test_json_nested_deeply_is_one_clear_line(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    manifest = json.dumps({"__metadata__": {"manifest": deep}}).encode()
    (tmp_path / MODEL).write_bytes(len(manifest).to_bytes(8, "little") + manifest)
    with pytest.raises(DamagedFileError, match=r"is damaged, or no file of arrays by jaxnn \("):
        load_model(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("kind", READERS)
def test_files_that_are_not_regular_are_refused_at_once(tmp_path, kind, make):
    name, _, read = READERS[kind]
    make(tmp_path / name)
    expected = r"expected a regular file|pipe, device or folder, expected a file"
    with pytest.raises((OSError, RunFolderError), match=expected) as caught:
        read(tmp_path / name)
    assert documented(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "database"])
def test_a_file_larger_than_the_memory_is_refused_at_once(tmp_path, kind):
    name, content, read = READERS[kind]
    (tmp_path / name).write_bytes(content)
    os.truncate(tmp_path / name, 2**43)  # without blocks on the disk
    with pytest.raises(OSError, match=r"holds 8796093022208 bytes, expected at most the machine"):
        read(tmp_path / name)


def test_a_checkpoint_that_is_a_pipe_is_noted_and_the_one_before_is_used(tmp_path):
    with Journal(tmp_path, QUESTION) as journal:
        for segment in (1, 2):
            journal.append({"segment": segment})
            journal.save(segment, {"a": np.full(3, segment)})
    (tmp_path / "checkpoint-2.safetensors").unlink()
    os.mkfifo(tmp_path / "checkpoint-2.safetensors")
    with Journal(tmp_path, QUESTION) as journal:
        assert journal.restore()[0] == 1
        (note,) = [record["note"] for record in journal.known("note")]
    assert "expected a regular file, found a pipe, device or folder" in note


def with_rows(folder, *texts):
    """The folder of a search with further rows, whose digests are right."""
    (folder / DATABASE).write_bytes(READERS["database"][1])
    first = json.dumps({"search": QUESTION})
    rewrite_rows(folder, [first, *texts])
    return folder


@given(records=st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=3))
@FEW
def test_rows_with_right_digests_come_back_or_are_refused(records):
    texts = [json.dumps(record) for record in records]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "written").mkdir()
        path = with_rows(Path(folder) / "written", *texts) / DATABASE
        assert outcome("database", path.read_bytes()) in (None, records) or any_nan(records)


def any_nan(records):
    """Whether the records differ from themselves."""
    return json.loads(json.dumps(records)) != records


ROWS = {
    "a list": ("[1]", "record 2 is [1], expected values by name"),
    "two records": ('{"a":1},{"b":2}', "record 2 (too many values to unpack"),
    "brackets": ('{"a":1}],[{"b":2}', "record 2 (Extra data"),
    "no JSON": ("{", "record 2 (Expecting property name"),
    "deep": ("[" * 100_000 + "]" * 100_000, "record 2 (maximum recursion depth exceeded"),
    "digits": ('{"a":' + "1" * 5000 + "}", "record 2 (Exceeds the limit"),
    "a note of a number": ('{"note":3}', "record 2.note is 3, expected a text"),
    "seconds of text": ('{"segment":0,"seconds":"x"}', 'seconds is "x", expected a finite number'),
    "infinite seconds": ('{"seconds":1e999}', "seconds is Infinity, expected a finite number"),
    "another's file": (
        '{"checkpoint":1,"file":"../../x.safetensors","sha256":"x"}',
        'record 2.file is "../../x.safetensors", expected checkpoint-N.safetensors',
    ),
    "no digest": (
        '{"checkpoint":1,"file":"checkpoint-1.safetensors"}',
        "record 2.sha256 is null, expected a text",
    ),
    "scores without names": (
        '{"test_scores":{"accuracy":1}}',
        "test_scores.loss is null, expected",
    ),
    "a fraction of a segment": (
        '{"checkpoint":1.5,"file":"checkpoint-1.safetensors","sha256":"x"}',
        "record 2.checkpoint is 1.5, expected a whole number of at least 0",
    ),
}


@pytest.mark.parametrize(("text", "said"), ROWS.values(), ids=ROWS)
def test_a_crafted_row_is_one_clear_line(tmp_path, text, said):
    with pytest.raises(CorruptLogError) as caught:
        read_database(with_rows(tmp_path, text) / DATABASE)
    assert f"{DATABASE} is damaged: " in str(caught.value)
    assert said in str(caught.value)
    assert documented(caught.value)


def test_a_first_row_of_another_kind_is_one_clear_line(tmp_path):
    (tmp_path / DATABASE).write_bytes(READERS["database"][1])
    rewrite_rows(tmp_path, ['{"note":"x"}'])
    with pytest.raises(CorruptLogError, match="is damaged: record 1"):
        read_database(tmp_path / DATABASE)


def test_names_of_a_crafted_question_are_printable(tmp_path):
    (tmp_path / DATABASE).write_bytes(READERS["database"][1])
    rewrite_rows(tmp_path, [json.dumps({"search": {**QUESTION, "\x1b[31m\n": 1}})])
    with pytest.raises(RunFolderError, match=r"\\x1b\[31m\\n is null, in the folder 1"):
        read_database(tmp_path / DATABASE)


def test_a_recorded_entry_has_to_be_there_and_to_fit():
    with Journal() as journal:
        journal.append({"segment": 0, "loss": [[1, None], [2]]})
        number = Check("a number", lambda value: isinstance(value, int))
        assert journal.recorded("segment", 0, {"segment": number}) == journal.records[0]
        for at, schema, said in (
            (1, {"segment": number}, "segment 1.segment is null, expected a number"),
            (0, {"loss": [[number]]}, r"segment 0.loss\[0\]\[1\] is null, expected a number"),
            (0, {"loss": ((number,),) * 2}, r"loss\[0\] is \[1, null\], expected a list of 1"),
            (0, {"loss": {}}, r"loss is \[\[1, null\], \[2\]\], expected values by name"),
            (0, {"segment": []}, "segment is 0, expected a list"),
        ):
            with pytest.raises(CorruptLogError, match=said):
                journal.recorded("segment", at, schema)


def test_errors_of_the_system_pass_a_decoder_and_other_errors_become_one_line():
    for error in (OSError(5, "Input/output error"), DataError("said already")):
        with pytest.raises(type(error)) as caught, decoding("fault", DataError):
            raise error
        assert caught.value is error
    for error in (MemoryError(), RecursionError("a\nb"), KeyError("x"), EOFError("x" * 500)):
        with pytest.raises(DataError, match=r"^fault \(.{1,160}\)$"), decoding("fault", DataError):
            raise error
    with pytest.raises(KeyboardInterrupt), decoding("fault", DataError):
        raise KeyboardInterrupt


def test_a_schema_names_the_first_part_that_does_not_fit():
    even = Check("an even number", lambda value: value % 2 == 0)
    schema = {"a": [even], "b": {"c": (even, even)}}
    assert misfit({"a": [2, 4], "b": {"c": [0, 2], "more": 1}}, schema, "x") == ""
    assert misfit({"a": [2, 3]}, schema, "x") == "x.a[1] is 3, expected an even number"
    assert misfit({"a": []}, schema, "x") == "x.b is null, expected values by name"
    assert misfit({"a": [], "b": {"c": [0]}}, schema, "x") == "x.b.c is [0], expected a list of 2"
    assert len(misfit([["x" * 1000]], [[]], "x")) < 120


def test_a_regular_file_is_opened_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as file:
        assert file.read() == b"content"


@pytest.mark.slow
def test_damaged_and_crafted_files_of_every_kind():
    from fuzz_files import BAD, KINDS

    counts = fuzz(120, 1, [*KINDS])
    assert counts.total() == 120
    assert not any(verdict in BAD for _, verdict in counts)


def test_parameters_of_a_crafted_model_are_refused_as_well(tmp_path):
    (tmp_path / MODEL).write_bytes(crafted(("replicates",), "x"))
    with pytest.raises(DamagedFileError, match='replicates is "x"'):
        load_params(tmp_path, MLP((4, 3)).init(jax.random.key(0)))
