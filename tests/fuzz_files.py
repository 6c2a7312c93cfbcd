"""Damaged and crafted files give what was written, or one line of a documented exception.

``python tests/fuzz_files.py [--files N] [--seed S] [--kinds NAME ...]`` damages files of every kind
that jaxnn reads: flipped bits, cuts, insertions, doubled slices, edited headers; and files whose
checksums are made right after an edit, as an attacker would: values of JSON replaced by hostile
values, rows of ``run.db``, members of archives. Worker processes read the files. The command counts
exceptions that are not documented, hangs (10 seconds), memory above 1 GB, and files with a checksum
that gave other values without a word. Exit status 0 when every count is 0.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import resource
import select
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HANG = 10.0  # seconds
MOST = 10**9  # bytes of memory
Rng = np.random.Generator

HOSTILE = (
    "null", "true", "-1", "0", "3", "0.5", "-0.0", "2147483648", "9223372036854775808", "1e308",
    "1e999", "NaN", "-Infinity", "1" * 400, "1" * 5000, '""', '"x"', '"\\u001b[31m\\n"',
    '"\\ud800"', '"../../etc/passwd"', '"float32"', '"object"', json.dumps("x" * 10**5), "[]",
    "{}", "[null]", '{"a":{}}', "[[0.5]]", "[" * 50 + "]" * 50, "[" * 900 + "]" * 900,
    "[" * 10**5 + "]" * 10**5, '{"a":' * 2000 + "1" + "}" * 2000, "[1,2]", "[-1]", "1],[2",
)  # fmt: skip


class Outcome(NamedTuple):
    """The result of reading a file."""

    kind: str
    number: int
    verdict: str  # same, other, refused, or what went wrong
    said: str
    checked: bool  # whether a checksum covers the content, not made right after the damage
    memory: int


# Damage that knows nothing of the format.


def damaged(rng: Rng, content: bytes) -> bytes:
    """The content after one to three random changes."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(changed) + 1)) if rng.random() < 0.6 else int(rng.integers(64))
        size = int(rng.choice([1, 1, 4, 8, 64, 1000]))
        match int(rng.integers(7)):
            case 0 | 1 if changed:
                changed[place % len(changed)] ^= 1 << int(rng.integers(8))
            case 2 if changed:
                changed[place % len(changed)] = int(rng.choice([0, 0x20, 0x7F, 0x80, 0xFF]))
            case 3:
                del changed[place:]
            case 4:
                changed[place:place] = rng.bytes(size)
            case 5:
                changed[place:place] = changed[place : place + size]
            case _:
                del changed[place : place + size]
    return bytes(changed)


def hostile(rng: Rng, text: str) -> str:
    """JSON with a value replaced, a name gone, or an entry doubled."""
    mark = "\0mark"
    tree = [json.loads(text)]
    node, key = tree, 0
    while isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
        node = node[key]
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = keys[int(rng.integers(len(keys)))]
    action = rng.random()
    if action < 0.1 and node is not tree:
        del node[key]
    elif action < 0.2 and isinstance(node, list) and node is not tree:
        node.append(node[key])
    elif action < 0.3 and isinstance(node, dict):
        node[str(rng.choice(["x", "\x1b[2J", "note", "segment", "file"]))] = node.pop(key)
    elif action < 0.4 and isinstance(node[key], int | float):
        node[key] = node[key] * float(rng.normal()) + float(rng.normal())
    else:
        node[key] = mark
    (inner,) = tree
    return json.dumps(inner).replace(json.dumps(mark), str(rng.choice(HOSTILE)), 1)


# The kinds: files as they are written, damage, and how the files are read.


def arrays() -> dict[str, np.ndarray]:
    """Four arrays: 40 and 20 images of 5 x 4, labels 0..9."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (40, 5, 4), dtype=np.uint8),
        "train_labels": np.tile(np.arange(10, dtype=np.uint8), 4),
        "test_images": rng.integers(0, 256, (20, 5, 4), dtype=np.uint8),
        "test_labels": np.tile(np.arange(10, dtype=np.uint8), 2),
    }


IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}


def idx(array: np.ndarray) -> bytes:
    """The IDX encoding."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def npy(array: np.ndarray) -> bytes:
    """The .npy encoding."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def edited_idx(rng: Rng, content: bytes) -> bytes:
    """IDX with another type, rank or shape."""
    rank = int(rng.choice([0, 1, 2, 3, 4, 33, 255]))
    sizes = rng.choice([0, 1, 2, 20, 40, 2**16, 2**31, 2**32 - 1], rank).tolist()
    code = int(rng.choice([8, 8, 9, 0x0B, 0x0C, 0x0D, 0x0E, 0]))
    return struct.pack(f">BBBB{rank}I", 0, 0, code, rank, *sizes) + content[-800:]


NPY_HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (%s,)}", "{'descr': '|u1'}", "(" * 3000,
    "-" * 5000 + "1", "{'descr': '|O', 'fortran_order': False, 'shape': (40,)}", "[" * 9000, "'''",
    "{'descr': '<U%s', 'fortran_order': False, 'shape': (40,)}", "\\", "{'descr': '<f8', 'shape'",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (40,)}", "\x1b[31m", "lambda: 0",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (%s,)}", "{'descr': (%s,)}", "{1: 2, %s: 3}",
    "{'descr': '(%s,2)u1', 'fortran_order': False, 'shape': ()}", "{'descr': 5 ** 5 ** 5 ** 5}",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (%s, 0, %s)}", "9" * 5000, "{**{}}", "\xff",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (800L,)}", "{'descr': '<m8[%s]'}", "x if",
    "{'descr': '<f2', 'fortran_order': False, 'shape': (%s, -1)}", "(1,\n  2,\n 3", "{'descr':'\n",
    "{'descr': '|u1', 'fortran_order': 'x', 'shape': '(40,)'}", "{'descr': '<c16', 'shape': (1)}",
)  # fmt: skip


def edited_npy(rng: Rng, content: bytes) -> bytes:
    """A .npy file with another header, or with changed bytes in the header."""
    start = 10 + int.from_bytes(content[8:10], "little")
    if rng.random() < 0.5:
        return content[:10] + damaged(rng, content[10:start])[: start - 10] + content[start:]
    size = str(rng.choice([0, 1, 40, 800, 2**20, 2**30, 2**40, 2**63, 10**30, True]))
    text = str(rng.choice(NPY_HEADERS)).replace("%s", size).encode("latin1") + b"\n"
    head = b"\x93NUMPY" + bytes([int(rng.choice([1, 1, 2, 3, 9])), 0])
    length = struct.pack("<H" if head[6] == 1 else "<I", len(text))
    return head + length + text + content[start:]


def write_folder(encode: Callable[[np.ndarray], bytes], names: dict[str, str]) -> Any:
    """A writer of four files."""

    def write(folder: Path) -> None:
        folder.mkdir()
        for part, array in arrays().items():
            (folder / names[part]).write_bytes(encode(array))

    return write


def write_npz(method: int) -> Any:
    """A writer of an archive."""

    def write(folder: Path) -> None:
        folder.mkdir()
        with zipfile.ZipFile(folder / "data.npz", "w", method) as archive:
            for part, array in arrays().items():
                archive.writestr(f"{part}.npy", npy(array))
            archive.writestr("names.npy", npy(np.array(["zero", "one"])))

    return write


def damage_a_file(edit: Callable[[Rng, bytes], bytes]) -> Any:
    """Damage of one file of a folder: of the bytes, or of the header."""

    def damage(rng: Rng, folder: Path) -> bool:
        path = folder / str(rng.choice(sorted(os.listdir(folder))))
        change = edit if rng.random() < 0.5 else damaged
        path.write_bytes(change(rng, path.read_bytes()))
        return False

    return damage


def damage_gzip(rng: Rng, folder: Path) -> bool:
    """Damage of a compressed file; or of the content, with a right checksum."""
    path = folder / str(rng.choice(sorted(os.listdir(folder))))
    if rng.random() < 0.5:
        path.write_bytes(damaged(rng, path.read_bytes()))
        return True
    change = edited_idx if rng.random() < 0.5 else damaged
    content = change(rng, gzip.decompress(path.read_bytes()))
    if rng.random() < 0.1:
        content += bytes(70_000_000)
    path.write_bytes(gzip.compress(content, 1))
    return False


def damage_npz(rng: Rng, folder: Path) -> bool:
    """Damage of an archive; or of a member, with a right checksum."""
    path = folder / "data.npz"
    if rng.random() < 0.4:
        path.write_bytes(damaged(rng, path.read_bytes()))
        return True
    with zipfile.ZipFile(path) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    at = int(rng.integers(len(members)))
    name, content = members[at][0].filename, members[at][1]
    if rng.random() < 0.7:
        content = (edited_npy if rng.random() < 0.7 else damaged)(rng, content)
    elif rng.random() < 0.5:
        name = str(
            rng.choice(["\x1b[31m.npy", "../../x.npy", "ü\ud7ff.npy", "", "X" * 60000, "x/"])
        )
    else:
        content = npy(np.zeros((2 ** int(rng.integers(20, 31)),), np.uint8)[:70_000_000])
    doubled = rng.random() < 0.1
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", members[0][0].compress_type) as out:
        warnings.simplefilter("ignore")
        for place, (member, original) in enumerate(members):
            if place != at or doubled:
                out.writestr(member.filename, original)
            if place == at:
                out.writestr(name, content, compresslevel=1)
    return False


# The formats of other libraries.


def frame(images: np.ndarray, labels: np.ndarray) -> Any:
    """A table: label, pixel0, pixel1, ..."""
    import pandas as pd

    rows = pd.DataFrame(images.reshape(len(images), -1)).add_prefix("pixel")
    rows.insert(0, "label", labels)
    return rows


def as_libsvm(table: Any) -> str:
    """The rows of a table in LIBSVM's format."""
    lines = []
    for label, *row in table.to_numpy().tolist():
        lines.append(f"{label} " + " ".join(f"{i + 1}:{value}" for i, value in enumerate(row)))
    return "\n".join(lines) + "\n"


def as_arff(table: Any) -> str:
    """A table in Weka's format."""
    names = [f"@attribute {name} real" for name in table.columns[1:]]
    lines = ["@relation digits", *names, "@attribute class {0,1,2,3,4,5,6,7,8,9}", "@data"]
    for label, *row in table.to_numpy().tolist():
        lines.append(",".join(map(str, [*row, label])))
    return "\n".join(lines) + "\n"


def as_png(image: np.ndarray, kind: str = "PNG") -> bytes:
    """The image as a file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, kind)
    return out.getvalue()


def write_table(save: Callable[[Any, Path], object], suffix: str) -> Any:
    """A writer of a training and a test table."""

    def write(folder: Path) -> None:
        folder.mkdir()
        four = arrays()
        for part in ("train", "test"):
            table = frame(four[f"{part}_images"], four[f"{part}_labels"])
            save(table, folder / f"{part}.{suffix}")

    return write


def save_mat(compressed: bool) -> Any:
    """A function that writes a table as a file of MATLAB."""

    def save(table: Any, path: Path) -> None:
        from scipy.io import savemat

        rows = table.to_numpy()
        two = {"X": rows[:, 1:].astype(np.uint8), "y": rows[:, :1]}
        savemat(path, two, do_compression=compressed)

    return save


def save_hugging_face(table: Any, path: Path) -> None:
    """Writes a table as images of Hugging Face."""
    import pandas as pd

    rows = table.to_numpy().astype(np.uint8)
    cells = [{"bytes": as_png(row[1:].reshape(5, 4)), "path": None} for row in rows]
    pd.DataFrame({"image": cells, "label": rows[:, 0].astype(np.int64)}).to_parquet(path)


def write_pictures(kind: str) -> Any:
    """A writer of images, named by class and number."""

    def write(folder: Path) -> None:
        four = arrays()
        for part in ("train", "test"):
            pairs = zip(four[f"{part}_images"], four[f"{part}_labels"], strict=True)
            for i, (image, label) in enumerate(pairs):
                path = folder / part / str(label) / f"{i}.{kind.lower()}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(as_png(image, kind))

    return write


def write_cifar(folder: Path) -> None:
    """Writes CIFAR-10's binary files."""
    folder.mkdir()
    rng, four = np.random.default_rng(0), arrays()
    for name, part in (("data_batch_1.bin", "train"), ("test_batch.bin", "test")):
        labels = four[f"{part}_labels"]
        rows = rng.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        (folder / name).write_bytes(np.column_stack([labels, rows]).tobytes())


CELLS = (
    "", "?", "nan", "inf", "-1e999", "1e39", "NA", "None", '"', "'", "\0", "9" * 400, "x" * 10**5,
    "1_0", "0x1", "\u0661", "1,2", "\r", ";", "\t", "\n", "\n\n", "#", "%", "{", "{1", "}", "-0",
    "2000000000:1", "-1:1", "0:1", "1:", ":1", "1:1 1:1", "99999999999999999999:1", "qid:3", "3.5",
    "@data", "@attribute x {a,b}", "@attribute class date 'yyyy'", "," * 3000, "1," * 70000, "true",
    "2020-01-01", "\ufeff", "\ud7ff", "label", "12345678901234567890", "1,,,", "1.5,2;3",
)  # fmt: skip


def edited_text(rng: Rng, content: bytes) -> bytes:
    """A text with one to three cells replaced."""
    parts = re.split("([,;\t \n]+)", content.decode("utf-8", "replace"))
    for _ in range(rng.integers(1, 4)):
        parts[int(rng.integers(len(parts)))] = str(rng.choice(CELLS))
    return "".join(parts).encode("utf-8", "replace")


def damage_any_file(edit: Callable[[Rng, bytes], bytes]) -> Any:
    """Damage of a file at any depth."""

    def damage(rng: Rng, folder: Path) -> bool:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[int(rng.integers(len(files)))]
        change = edit if rng.random() < 0.5 else damaged
        path.write_bytes(change(rng, path.read_bytes()))
        return change is damaged

    return damage


def edited_png(rng: Rng, content: bytes) -> bytes:
    """An image with an edited header, and the checksum made right."""
    place, value = int(rng.integers(16, 29)), int(rng.choice([0, 1, 2, 3, 6, 16, 127, 255]))
    header = bytearray(content[12:29])
    header[place - 12] = value
    checksum = struct.pack(">I", zlib.crc32(header))
    return content[:12] + bytes(header) + checksum + content[33:]


def edited_mat(rng: Rng, content: bytes) -> bytes:
    """A file of MATLAB with a changed element, compressed again."""
    at, parts = 128, [content[:128]]
    while at + 8 <= len(content):
        kind, size = struct.unpack("<II", content[at : at + 8])
        part = content[at + 8 : at + 8 + size]
        if kind == 15:
            inner = (
                damaged(rng, zlib.decompress(part)) if rng.random() < 0.7 else zlib.decompress(part)
            )
            inner += bytes(70_000_000) if rng.random() < 0.05 else b""
            part = zlib.compress(inner, 1)
        parts.append(struct.pack("<II", kind, len(part)) + part)
        at += 8 + size
    return b"".join(parts)


def read_data(folder: Path) -> Any:
    """The bits of a data set."""
    from jaxnn.data import load

    archive = folder / "data.npz"
    splits = load(archive if archive.exists() else folder)
    arrays = [bits(each) for data in splits for each in data if isinstance(each, np.ndarray)]
    return [arrays, [float(np.sum(data.scale)) for data in splits], [*splits.train.names]]


def bits(array: Any) -> list[Any]:
    """Type, shape and checksum of an array."""
    array = np.ascontiguousarray(array)
    return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def edited_safetensors(rng: Rng, content: bytes) -> tuple[bytes, str | None]:
    """A file of arrays whose manifest or header is edited, and the digest if made right."""
    from jaxnn.files import _digest

    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    digest = None
    if rng.random() < 0.7:
        text = header["__metadata__"]["manifest"]
        for _ in range(rng.integers(1, 3)):
            try:
                text = hostile(rng, text)
            except (ValueError, RecursionError):
                break
        try:
            manifest = json.loads(text)
            manifest.pop("sha256", None)
            entries = {n: e["data_offsets"] for n, e in header.items() if n != "__metadata__"}
            raw = {name: data[start:stop] for name, (start, stop) in entries.items()}
            digest = _digest(manifest, raw)
            text = json.dumps({**manifest, "sha256": digest})
        except (ValueError, RecursionError, AttributeError, TypeError):
            pass
        header["__metadata__"]["manifest"] = text
        text = json.dumps(header)
    else:
        text = hostile(rng, json.dumps(header))
    return struct.pack("<Q", len(text)) + text.encode("utf-8", "replace") + data, digest


def write_model(folder: Path) -> None:
    """A saved model."""
    import jax

    from jaxnn import MLP, Spec
    from jaxnn.saved_model import save_model

    spec = Spec(model=MLP((20, 4, 10), activation="tanh"), steps=1)
    params = jax.vmap(spec.model.init)(jax.random.split(jax.random.key(0), 2))
    save_model(folder, spec, params, scale=1 / 255, about={"config": {"hidden": [4]}})


def damage_model(rng: Rng, folder: Path) -> bool:
    """Damage of a model; or of the manifest, with a right checksum."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(damaged(rng, content))
        return True
    content, digest = edited_safetensors(rng, content)
    path.write_bytes(content)
    return digest is None


def read_model(folder: Path) -> Any:
    """The bits of a model's parameters, scale and logits."""
    import jax

    from jaxnn.saved_model import load_model

    model: Any = load_model(folder)
    inputs = arrays()["test_images"].reshape(20, 20)
    width = model.model.sizes[0]
    logits = model.logits(np.resize(inputs, (3, width)))
    leaves = [bits(leaf) for leaf in jax.tree.leaves(model.params)]
    return [leaves, bits(model.scale), bits(logits), model.loss, model.replicates]


class StopError(Exception):
    """Ends a search where the search stands."""


def run_search(folder: Path, stop: int | None = None) -> Any:
    """A small search, which may stop after some reports."""
    import jax

    from jaxnn import Data
    from jaxnn import search as s

    rng = np.random.default_rng(0)
    targets = (np.arange(60) % 3).astype(np.int32)
    centres = rng.integers(60, 200, (3, 12))[targets]
    inputs = np.clip(centres + rng.normal(0, 30, (60, 12)), 0, 255).astype(np.uint8)
    data = Data(inputs, targets, np.float32(1 / 255))
    told = 0

    def progress(_: object) -> None:
        nonlocal told
        told += 1
        if told == stop:
            raise StopError

    return s.search(
        s.Task(data, data, epochs=2, evaluations_per_epoch=2),
        {
            "learning_rate": s.log_uniform(0.01, 1e20),
            "batch_size": s.fixed(20),
            "hidden": s.fixed(()),
        },
        method=s.population_based(3),
        key=jax.random.key(0),
        seeds=2,
        folder=folder,
        progress=progress,
        checkpoint_seconds=0,
    )


def write_search(stop: int | None) -> Any:
    """A writer of a search's folder, stopped half-way or finished and tested."""

    def write(folder: Path) -> None:
        with suppress(StopError):
            run_search(folder, stop).test()

    return write


def rows_of(folder: Path) -> list[str]:
    """The records of a search."""
    with closing(sqlite3.connect(folder / "run.db")) as database:
        return [text for (text,) in database.execute("select record from records order by number")]


def rewrite_rows(folder: Path, texts: list[str]) -> None:
    """Replaces the records of a search, with digests that are right."""
    digest = ""
    with closing(sqlite3.connect(folder / "run.db")) as database:
        database.execute("delete from records")
        database.execute("delete from sqlite_sequence")
        for text in texts:
            raw = text.encode("utf-8", "surrogatepass")
            digest = hashlib.sha256(digest.encode() + raw).hexdigest()
            database.execute(
                "insert into records (record, digest) values (cast(? as text), ?)", (raw, digest)
            )
        database.commit()


STATEMENTS = (
    "delete from records where number = {n}", "update records set number = -number",
    "update records set record = x'ff00' where number = {n}", "delete from sqlite_sequence",
    "update records set digest = x'00' where number = {n}", "create table more (a)",
    "update sqlite_sequence set seq = 'x\x1b[31m'", "update sqlite_sequence set seq = 1e300",
    "update records set record = 3 where number = {n}", "drop view curves", "drop table records",
    "create trigger t after insert on records begin delete from records; end",
    "update records set record = zeroblob(100000) where number = {n}",
    "insert into records select number + 100, record, digest from records",
    "pragma user_version = 7", "pragma encoding = 'UTF-16'", "vacuum", "pragma journal_mode=wal",
    "update records set record = replace(record, '0', '1') where number = {n}",
)  # fmt: skip


def damage_database(rng: Rng, folder: Path) -> bool:
    """Damage of run.db; or of rows, with right digests."""
    path, action = folder / "run.db", rng.random()
    if action < 0.3:
        path.write_bytes(damaged(rng, path.read_bytes()))
        return True
    if action < 0.45:
        statement = str(rng.choice(STATEMENTS)).format(n=int(rng.integers(1, 8)))
        with closing(sqlite3.connect(path)) as database:
            database.execute(statement)
            database.commit()
        return True
    texts = rows_of(folder)
    at = int(rng.integers(len(texts)))
    match int(rng.integers(8)):
        case 0:
            del texts[at]
        case 1:
            texts.insert(at, str(rng.choice(texts)))
        case 2:
            texts[at] = str(rng.choice(HOSTILE))
        case 3:
            texts.append(str(rng.choice(['{"segment":0}', '{"round":9}', '{"checkpoint":99}',
                '{"note":3}', '{"test_scores":{"accuracy":1}}', '{"test_read":"x"}', '{"file":[]}',
                '{"checkpoint":99,"file":"checkpoint-99.safetensors","sha256":null}',
                '{"checkpoint":1,"file":"../x.safetensors","sha256":"x"}'])))  # fmt: skip
        case _:
            texts[at] = hostile(rng, texts[at])
    rewrite_rows(folder, texts)
    return False


def damage_checkpoint(rng: Rng, folder: Path) -> bool:
    """Damage of a checkpoint; or of the manifest or arrays, with right digests in run.db too."""
    from jaxnn import files

    texts = rows_of(folder)
    known = {json.loads(text)["file"]: i for i, text in enumerate(texts) if '"checkpoint"' in text}
    path = folder / str(rng.choice(sorted(p.name for p in folder.glob("checkpoint-*"))))
    content, action = path.read_bytes(), rng.random()
    if action < 0.3:
        path.write_bytes(damaged(rng, content))
        return True
    if action < 0.6:
        content, digest = edited_safetensors(rng, content)
    else:
        manifest, found = files.unpack(content, path)
        found = dict(found)
        name = str(rng.choice(sorted(found)))
        array = found.pop(name)
        match int(rng.integers(6)):
            case 0:
                found[name] = array.astype(
                    str(rng.choice(["int8", "float64", "bool", "complex64"]))
                )
            case 1:
                found[name] = array[:0] if array.ndim else array[None]
            case 2:
                found[name] = np.repeat(array, 2, axis=-1) if array.ndim else array
            case 3:
                found["parameters/" + str(rng.choice(["x", "99/[0].weight", "", "-1/a"]))] = array
            case 4:
                other = str(rng.choice(sorted(found)))
                found[name], found[other] = found[other], array
            case _:
                pass
        content, digest = files.pack(found, manifest)
    path.write_bytes(content)
    row = json.loads(texts[known[path.name]])
    texts[known[path.name]] = json.dumps(row | {"sha256": digest}, separators=(",", ":"))
    rewrite_rows(folder, texts)
    return False


def damage_folder(rng: Rng, folder: Path) -> bool:
    """Puts a pipe, a device, a folder, ... in the place of a file, or beside."""
    names = [
        *sorted(os.listdir(folder)),
        "run.db-wal",
        "run.db-journal",
        "checkpoint-9.safetensors",
    ]
    path = folder / str(rng.choice(names))
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    match int(rng.integers(8)):
        case 0:
            os.mkfifo(path)
        case 1:
            path.symlink_to(str(rng.choice(["/dev/zero", "/dev/null", "/dev/stdin", "/nowhere"])))
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.mkdir()
        case 4:
            with closing(socket.socket(socket.AF_UNIX)) as listening:
                os.chdir(folder)
                listening.bind(path.name)
        case 5:
            path.write_bytes(b"")
        case 6:
            path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))
        case _:
            path.write_bytes(damaged(rng, content))
    return True


def read_search(folder: Path) -> Any:
    """The bits of a search that goes on in the folder."""
    import jax

    result = run_search(folder)
    params = [bits(leaf) for leaf in jax.tree.leaves(result.params)]
    return json.loads(json.dumps([result.table, params, result.best.trial, result.test()]))


class Kind(NamedTuple):
    """A kind of files."""

    write: Callable[[Path], None]
    damage: Callable[[Rng, Path], bool]  # whether a checksum covers the content, not made right
    read: Callable[[Path], Any]
    share: int


NPY_NAMES = {part: f"set_{part}.npy" for part in IDX_NAMES}
GZ_NAMES = {part: f"{name}.gz" for part, name in IDX_NAMES.items()}
# fmt: off
KINDS = {
    "idx": Kind(write_folder(idx, IDX_NAMES), damage_a_file(edited_idx), read_data, 3),
    "idx.gz": Kind(
        write_folder(lambda a: gzip.compress(idx(a)), GZ_NAMES), damage_gzip, read_data, 3
    ),
    "npy": Kind(write_folder(npy, NPY_NAMES), damage_a_file(edited_npy), read_data, 4),
    "npz, stored": Kind(write_npz(zipfile.ZIP_STORED), damage_npz, read_data, 4),
    "npz, deflated": Kind(write_npz(zipfile.ZIP_DEFLATED), damage_npz, read_data, 4),
    "csv": Kind(
        write_table(lambda t, path: t.to_csv(path, index=False), "csv"),
        damage_any_file(edited_text), read_data, 4,
    ),
    "csv.gz": Kind(
        write_table(lambda t, path: t.to_csv(path, index=False), "csv.gz"),
        damage_any_file(lambda rng, c: gzip.compress(edited_text(rng, gzip.decompress(c)))),
        read_data, 2,
    ),
    "parquet": Kind(
        write_table(lambda t, path: t.to_parquet(path), "parquet"),
        damage_any_file(damaged), read_data, 4,
    ),
    "libsvm": Kind(
        write_table(lambda t, path: path.write_text(as_libsvm(t)), "libsvm"),
        damage_any_file(edited_text), read_data, 3,
    ),
    "arff": Kind(
        write_table(lambda t, path: path.write_text(as_arff(t)), "arff"),
        damage_any_file(edited_text), read_data, 3,
    ),
    "mat": Kind(write_table(save_mat(False), "mat"), damage_any_file(damaged), read_data, 3),
    "mat, compressed": Kind(
        write_table(save_mat(True), "mat"), damage_any_file(edited_mat), read_data, 3
    ),
    "hugging face": Kind(
        write_table(save_hugging_face, "parquet"), damage_any_file(damaged), read_data, 3
    ),
    "png": Kind(write_pictures("PNG"), damage_any_file(edited_png), read_data, 3),
    "jpeg": Kind(write_pictures("JPEG"), damage_any_file(damaged), read_data, 2),
    "cifar": Kind(write_cifar, damage_any_file(damaged), read_data, 2),
    "model": Kind(write_model, damage_model, read_model, 6),
    "run.db": Kind(write_search(6), damage_database, read_search, 5),
    "run.db, finished": Kind(write_search(None), damage_database, read_search, 4),
    "checkpoint": Kind(write_search(6), damage_checkpoint, read_search, 4),
    "folder of a search": Kind(write_search(6), damage_folder, read_search, 2),
    "folder of data": Kind(write_folder(npy, NPY_NAMES), damage_folder, read_data, 1),
    "folder of a model": Kind(write_model, damage_folder, read_model, 1),
}
# fmt: on

NO_CHECKSUM = (
    "idx", "npy", "folder of data", "csv", "parquet", "libsvm", "arff", "mat", "hugging face",
    "jpeg", "cifar",
)  # fmt: skip
"""Kinds whose values may change without a trace."""


# The processes.


def documented(error: BaseException) -> bool:
    """Whether the exception is one that jaxnn documents, in one line."""
    from jaxnn.files import printable

    text = str(error)
    known = type(error) is ValueError or type(error).__module__.startswith("jaxnn.")
    known = known or (isinstance(error, OSError) and type(error).__module__ == "builtins")
    return known and bool(text) and printable(text) == text and len(text) < 3000


def _peak_memory() -> int:
    """The largest resident memory of this process in bytes; a parent's does not count (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def case(kind: str, number: int, seed: int, original: Path, expected: Any, work: Path) -> Outcome:
    """Damages a copy of the files, and reads the copy."""
    rng, folder, checked = np.random.default_rng([seed, number]), work / "case", True
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    said = ""
    try:
        checked = KINDS[kind].damage(rng, folder)
        print("damaged", flush=True)  # the parent's clock starts
    except Exception as error:  # the damage itself failed, such as SQL on a damaged database
        print("intact", flush=True)
        return Outcome(kind, number, "not damaged", repr(error)[:200], checked, 0)
    try:
        verdict = "same" if KINDS[kind].read(folder) == expected else "other"
    except Exception as error:
        said = f"{type(error).__module__}.{type(error).__name__}: {error}"
        verdict = "refused" if documented(error) else "uncaught"
    if verdict == "other" and checked and kind not in NO_CHECKSUM:
        verdict = "silently wrong"
    return Outcome(kind, number, verdict, said[:600], checked, _peak_memory())


def work_off(seed: int) -> None:
    """The worker: reads lines "number kind", writes an outcome a line."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import logging

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as root:
        known: dict[str, tuple[Path, Any]] = {}
        for line in sys.stdin:
            number, kind = line.rstrip("\n").split(" ", 1)
            if kind not in known:
                original, copy = Path(root) / f"original-{len(known)}", Path(root) / "copy"
                KINDS[kind].write(original)
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(original, copy)
                known[kind] = original, KINDS[kind].read(copy)
            outcome = case(kind, int(number), seed, *known[kind], Path(root))
            print(json.dumps(outcome), flush=True)


class Worker:
    """A process that reads damaged files, started again after a hang."""

    def __init__(self, seed: int):
        """Starts no process yet."""
        self._seed, self._received = seed, b""
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, kind: str, number: int) -> Outcome:
        """The outcome of a case."""
        if self._process is None:
            command = [sys.executable, __file__, "--work", "--seed", str(self._seed)]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self._received = b""
        assert self._process.stdin
        self._process.stdin.write(f"{number} {kind}\n".encode())
        self._process.stdin.flush()
        line = self._line(120) and self._line(HANG)
        if not line:
            hung = self._process.poll() is None
            self.end()
            return Outcome(kind, number, "hang" if hung else "died", "", True, 0)
        outcome = Outcome(*json.loads(line))
        if outcome.memory > MOST:
            self.end()
        return outcome

    def _line(self, seconds: float) -> str:
        """The next line; "" after a time, or for too much memory."""
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + seconds
        while b"\n" not in self._received:
            if select.select([self._process.stdout], [], [], 0.2)[0]:
                received = os.read(self._process.stdout.fileno(), 2**16)
                if not received:
                    return ""
                self._received += received
            if time.monotonic() > end or resident(self._process.pid) > 2 * MOST:
                return ""
        line, self._received = self._received.split(b"\n", 1)
        return line.decode()

    def end(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
        self._process = None


def resident(pid: int) -> int:
    """The resident memory of a process in bytes."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


BAD = ("uncaught", "hang", "died", "above 1 GB", "silently wrong")
VERDICTS = ("same", "other", "refused", "not damaged", *BAD)


def fuzz(files: int, seed: int, kinds: list[str]) -> Counter[tuple[str, str]]:
    """Reads so many damaged files; counts of (kind, verdict)."""
    counts: Counter[tuple[str, str]] = Counter()
    turns = [kind for kind in kinds for _ in range(KINDS[kind].share)]
    worker = Worker(seed)
    try:
        for kind in kinds:
            for number in (n for n in range(files) if turns[n % len(turns)] == kind):
                outcome = worker.run(kind, number)
                verdict = "above 1 GB" if outcome.memory > MOST else outcome.verdict
                counts[kind, verdict] += 1
                if verdict in BAD:
                    print(f"{kind} {number}: {verdict}: {outcome.said}", flush=True)
            print(row(kind, counts), flush=True)
    finally:
        worker.end()
    return counts


def row(name: str, counts: Counter[tuple[str, str]]) -> str:
    """The line of a kind in the table, or of all kinds."""
    sums: Counter[str] = Counter()
    for (kind, verdict), number in counts.items():
        sums[verdict] += number * (name in (kind, "all"))
    return f"{name:20}" + "".join(f"{sums[verdict]:16}" for verdict in VERDICTS)


def main() -> int:
    """Damages files and reads them; see the file's docstring."""
    parser = argparse.ArgumentParser(description="Damages files and reads them.")
    parser.add_argument("--files", type=int, default=5000, help="how many files to damage")
    parser.add_argument("--seed", type=int, default=0, help="decides the damage")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS], metavar="KIND")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work_off(arguments.seed)
        return 0
    print(f"{'':20}" + "".join(f"{verdict:>16}" for verdict in VERDICTS))
    counts = fuzz(arguments.files, arguments.seed, arguments.kinds)
    print(row("all", counts))
    return int(any(verdict in BAD for _, verdict in counts))


if __name__ == "__main__":
    sys.exit(main())
